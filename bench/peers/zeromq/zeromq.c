/* bench/peers/zeromq/zeromq.c: ZeroMQ over ipc://. PUSH/PULL for the rate, a batch is one message of so many records; REQ/REP for
 * the round trip. High-water marks of 1,000 messages (the default) hold the writer back. */
#include "../peer.h"

#include <errno.h>
#include <zmq.h>

static void check(int ok, const char *what)
{
    if (!ok) peer_die(what, zmq_strerror(errno));
}

static void turn(peer *p, void *socket)
{
    uint8_t answer[65536];
    check(zmq_send(socket, p->where, p->record_bytes, 0) >= 0, "send");
    check(zmq_recv(socket, answer, sizeof answer, 0) >= 0, "receive");
}

int main(int argc, char **argv)
{
    peer p;
    char url[200];
    peer_init(&p, argc, argv);
    snprintf(url, sizeof url, "ipc://%s/zeromq.sock", p.where);
    void *context = zmq_ctx_new();
    int rate = peer_is(&p, "write") || peer_is(&p, "read"), server = peer_is(&p, "read") || peer_is(&p, "pong");
    void *s = zmq_socket(context, rate ? (server ? ZMQ_PULL : ZMQ_PUSH) : server ? ZMQ_REP : ZMQ_REQ);
    check(s != NULL, "socket");
    check((server ? zmq_bind(s, url) : zmq_connect(s, url)) == 0, "bind or connect");
    if (server) peer_ready();
    uint8_t *records = peer_records(&p, p.batch);
    zmq_msg_t m;
    if (peer_is(&p, "write")) {
        for (uint64_t sent = 0; sent < p.warm + p.records; sent += p.batch)
            check(zmq_send(s, records, p.batch * p.record_bytes, 0) >= 0, "send");
    } else if (peer_is(&p, "read")) {
        while (peer_wants(&p)) {
            check(zmq_msg_init(&m) == 0 && zmq_msg_recv(&m, s, 0) >= 0, "receive");
            peer_take_all(&p, zmq_msg_data(&m), zmq_msg_size(&m));
            zmq_msg_close(&m);
        }
        peer_report_rate(&p);
    } else if (peer_is(&p, "pong")) {
        for (uint64_t i = 0; i < p.warm + p.records; i++) {
            uint8_t in[65536];
            int n = zmq_recv(s, in, sizeof in, 0);
            check(n >= 0, "receive");
            check(zmq_send(s, in, (size_t)n, 0) >= 0, "send");
        }
    } else {
        p.where = (const char *)records; /* what turn sends */
        peer_ping(&p, turn, s);
    }
    zmq_close(s);
    zmq_ctx_term(context);
    return 0;
}
