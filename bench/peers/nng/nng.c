/* bench/peers/nng/nng.c: bare nng over ipc://. PUSH/PULL for the rate, a batch is one message of so many records; REQ/REP for the
 * round trip. Receive buffers at 1,000 messages on both sides; no limit on a message's size. */
#include "../peer.h"

#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/supplemental/util/platform.h>

static void check(int rc, const char *what)
{
    if (rc != 0) peer_die(what, nng_strerror(rc));
}

typedef struct side {
    nng_socket socket;
    uint8_t *records;
} side;

static void turn(peer *p, void *of)
{
    side *s = of;
    uint8_t in[65536];
    size_t len = sizeof in;
    check(nng_send(s->socket, s->records, p->record_bytes, 0), "send");
    check(nng_recv(s->socket, in, &len, 0), "receive");
}

int main(int argc, char **argv)
{
    peer p;
    side s;
    char url[200];
    peer_init(&p, argc, argv);
    snprintf(url, sizeof url, "ipc://%s/nng.sock", p.where);
    int rate = peer_is(&p, "write") || peer_is(&p, "read"), server = peer_is(&p, "read") || peer_is(&p, "pong");
    check(rate     ? (server ? nng_pull0_open(&s.socket) : nng_push0_open(&s.socket))
          : server ? nng_rep0_open(&s.socket)
                   : nng_req0_open(&s.socket),
          "open");
    if (rate) nng_socket_set_int(s.socket, server ? NNG_OPT_RECVBUF : NNG_OPT_SENDBUF, 1000);
    nng_socket_set_size(s.socket, NNG_OPT_RECVMAXSZ, 0);
    check(server ? nng_listen(s.socket, url, NULL, 0) : nng_dial(s.socket, url, NULL, 0), "listen or dial");
    if (server) peer_ready();
    s.records = peer_records(&p, p.batch);
    nng_msg *m;
    if (peer_is(&p, "write")) {
        for (uint64_t sent = 0; sent < p.warm + p.records; sent += p.batch) {
            check(nng_msg_alloc(&m, p.batch * p.record_bytes), "message");
            memcpy(nng_msg_body(m), s.records, p.batch * p.record_bytes);
            check(nng_sendmsg(s.socket, m, 0), "send");
        }
        nng_msleep(60000); /* nng does not linger: what is queued leaves while this sleeps; peers.py ends it */
    } else if (peer_is(&p, "read")) {
        while (peer_wants(&p)) {
            check(nng_recvmsg(s.socket, &m, 0), "receive");
            peer_take_all(&p, nng_msg_body(m), nng_msg_len(m));
            nng_msg_free(m);
        }
        peer_report_rate(&p);
    } else if (peer_is(&p, "pong")) {
        for (uint64_t i = 0; i < p.warm + p.records; i++) {
            check(nng_recvmsg(s.socket, &m, 0), "receive");
            check(nng_sendmsg(s.socket, m, 0), "send");
        }
        nng_msleep(200);
    } else {
        peer_ping(&p, turn, &s);
    }
    return 0;
}
