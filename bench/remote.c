/* bench/remote.c: `--case remote`, a run of its own: a client of another host over loopback tcp, beside bare nng over the same loopback.
 *
 *   bare echo     a frame of 256 bytes to an nng stream listener in another process and back, one at a time
 *   bare stream   1 MiB pieces from an nng stream dialer in another process
 *   remote        a record of 100 bytes, sent and acknowledged, one at a time; 1 KiB records, 64 a batch, asynchronously; then all of them read
 *   over TLS      the same through tls+tcp, with certificates made for the run (makecerts, beside the daemon)
 * Daemon and client share the cores. */
#include "apart.h"

#include <arpa/inet.h>
#include <busway/busway.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nng/nng.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FRAME = 256, VALUE = 1024, BATCH = 64, PIECE = 1 << 20, PORT_ECHO = 17621, PORT_STREAM = 17622, PORT_BUS = 17623, PORT_TLS = 17624 };

typedef struct scene {
    apart *a;
    const char *program;
    char dir[512], url[64], tls_url[640];
    pid_t daemon;
    bool quick;
} scene;

typedef struct figures {
    double trip_us, produced, consumed; /* MB/s */
} figures;

static bool failed(scene *c, const char *what) { return apart_failed(c->a, what); }

/* In a child: accept one connection and send it back what comes, or stream to it. */
static void serve(int port, bool echo)
{
    char url[64];
    nng_stream_listener *l;
    nng_aio *aio;
    uint8_t *space = calloc(1, PIECE);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", port);
    if (!space || nng_stream_listener_alloc(&l, url) || nng_stream_listener_listen(l) || nng_aio_alloc(&aio, NULL, NULL)) _exit(1);
    nng_stream_listener_accept(l, aio);
    nng_aio_wait(aio);
    if (nng_aio_result(aio)) _exit(1);
    nng_stream *s = nng_aio_get_output(aio, 0);
    for (bool sending = !echo;; sending = !sending || !echo) {
        size_t len = echo ? FRAME : PIECE;
        for (size_t at = 0; at < len; at += nng_aio_count(aio)) {
            nng_iov iov = {space + at, len - at};
            nng_aio_set_iov(aio, 1, &iov);
            if (sending) nng_stream_send(s, aio);
            else nng_stream_recv(s, aio);
            nng_aio_wait(aio);
            if (nng_aio_result(aio)) _exit(0);
        }
    }
}

static int call(int port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1;
    for (int i = 0; i < 1000; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&in, sizeof in) == 0) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            return fd;
        }
        if (fd >= 0) close(fd);
        usleep(5000);
    }
    return -1;
}

static double median(double *us, int n)
{
    qsort(us, (size_t)n, sizeof *us, apart_by_value);
    return us[n / 2];
}

static bool bare(scene *c, double *echo_us, double *stream)
{
    int n = c->quick ? 3000 : 20000;
    double *us = calloc((size_t)n, sizeof *us);
    uint8_t *space = calloc(1, PIECE);
    uint64_t bytes = c->quick ? UINT64_C(1) << 28 : UINT64_C(1) << 30, got = 0, began = 0;
    pid_t pid = fork();
    if (pid == 0) serve(PORT_ECHO, true);
    int fd = call(PORT_ECHO);
    bool ok = us && space && fd >= 0;
    for (int i = 0; ok && i < n; i++) {
        uint64_t at = bench_now_ns();
        ok = send(fd, space, FRAME, MSG_NOSIGNAL) == FRAME && recv(fd, space, FRAME, MSG_WAITALL) == FRAME;
        us[i] = (double)(bench_now_ns() - at) / 1000;
    }
    if (fd >= 0) close(fd);
    if (pid > 0) waitpid(pid, NULL, 0);
    if (ok) *echo_us = median(us, n);
    pid = fork();
    if (pid == 0) serve(PORT_STREAM, false);
    fd = ok ? call(PORT_STREAM) : -1;
    ok = ok && fd >= 0;
    for (ssize_t k; ok && got < bytes; got += (uint64_t)k) {
        ok = (k = recv(fd, space, PIECE, 0)) > 0;
        if (!began) began = bench_now_ns();
    }
    if (ok) *stream = (double)got * 1000 / (double)(bench_now_ns() - began);
    if (fd >= 0) close(fd);
    if (pid > 0) kill(pid, SIGKILL);
    if (pid > 0) waitpid(pid, NULL, 0);
    free(us);
    free(space);
    return ok || failed(c, "the bare echo");
}

static bool make_certificates(scene *c)
{
    char command[1800];
    const char *slash = strrchr(c->program, '/');
    snprintf(command, sizeof command, "mkdir -p '%s/certs' && '%.*s/makecerts' '%s/certs'", c->dir, slash ? (int)(slash - c->program) : 1,
             slash ? c->program : ".", c->dir);
    return system(command) == 0 || failed(c, "certificates (`make bench` builds makecerts beside the daemon)");
}

static bw_bus *start_daemon(scene *c)
{
    char data[540], ports[128], certificate[600], key[600];
    bw_bus *bus = NULL;
    snprintf(data, sizeof data, "%s/far", c->dir);
    snprintf(ports, sizeof ports, "listeners=tcp://127.0.0.1:%d, tls+tcp://127.0.0.1:%d", PORT_BUS, PORT_TLS);
    snprintf(certificate, sizeof certificate, "tls.certificate=%s/certs/server.pem", c->dir);
    snprintf(key, sizeof key, "tls.key=%s/certs/server.key", c->dir);
    snprintf(c->url, sizeof c->url, "tcp://127.0.0.1:%d", PORT_BUS);
    snprintf(c->tls_url, sizeof c->tls_url, "tls+tcp://127.0.0.1:%d?ca=%s/certs/ca.pem", PORT_TLS, c->dir);
    if (!make_certificates(c)) return NULL;
    c->daemon = fork();
    if (c->daemon == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        execl(c->program, c->program, "--data-dir", data, "--set", ports, "--set", certificate, "--set", key, "--set", "anonymous.role=admin",
              "--log-level", "error", (char *)NULL);
        _exit(127);
    }
    for (int i = 0; i < 500 && bw_bus_open(c->url, NULL, &bus) != BW_OK; i++) usleep(10000);
    if (!bus) failed(c, "the daemon");
    return bus;
}

static bool round_trip(scene *c, bw_producer *p, const char *topic, double *out)
{
    int n = c->quick ? 3000 : 20000;
    double *us = calloc((size_t)n, sizeof *us);
    uint8_t value[100] = {0};
    bw_record r = {.value = value, .value_len = sizeof value, .timestamp_ms = BW_NO_TIMESTAMP};
    bool ok = us != NULL;
    for (int i = 0; ok && i < n; i++) {
        uint64_t at = bench_now_ns();
        ok = bw_producer_send_sync(p, topic, 0, &r, 5000, NULL) == BW_OK;
        us[i] = (double)(bench_now_ns() - at) / 1000;
    }
    if (ok) *out = median(us, n);
    free(us);
    return ok || failed(c, "round trips");
}

static bool rates(scene *c, bw_bus *bus, bw_producer *p, const char *topic, figures *f)
{
    static uint8_t value[VALUE];
    bw_record batch[BATCH];
    uint64_t records = (c->quick ? 64u : 512u) * 1024, seen = 0;
    for (size_t i = 0; i < BATCH; i++) batch[i] = (bw_record){.value = value, .value_len = VALUE, .timestamp_ms = BW_NO_TIMESTAMP};
    uint64_t began = bench_now_ns();
    bw_err e = BW_OK;
    for (uint64_t n = 0; !e && n < records; n++) e = bw_producer_send(p, topic, 0, &batch[n % BATCH], NULL, NULL, 60000);
    if (!e) e = bw_producer_flush(p, 60000);
    if (e) return failed(c, "producing");
    f->produced = (double)records * VALUE * 1000 / (double)(bench_now_ns() - began);
    bw_consumer *s = NULL;
    bw_batch b;
    bw_record_view v;
    if (bw_consumer_open(bus, NULL, &s) || bw_consumer_assign(s, topic, 0, 0)) return failed(c, "consuming");
    began = bench_now_ns();
    while (seen < records && bw_consumer_poll(s, 5000, &b) == BW_OK)
        while (bw_batch_next(&b, &v) == 1) seen++;
    f->consumed = (double)seen * VALUE * 1000 / (double)(bench_now_ns() - began);
    bw_consumer_close(s);
    return seen == records || failed(c, "consuming");
}

static bool measure(scene *c, bw_bus *bus, const char *one, const char *many, figures *f)
{
    bw_producer *p = NULL;
    bool ok = !bw_topic_create(bus, one, 1, NULL, 0) && !bw_topic_create(bus, many, 1, NULL, 0) && !bw_producer_open(bus, NULL, &p);
    ok = (ok || failed(c, "topics")) && round_trip(c, p, one, &f->trip_us) && rates(c, bus, p, many, f);
    if (p) (void)bw_producer_close(p, 5000);
    return ok;
}

static void add(apart *a, const figures *f, const char *how)
{
    char name[64];
    snprintf(name, sizeof name, "remote%s: a record and its acknowledgement, p50", how);
    apart_add(a, name, f->trip_us, "us", -1, false);
    snprintf(name, sizeof name, "remote%s: produced, records of 1 KiB", how);
    apart_add(a, name, f->produced, "MB/s", -1, true);
    snprintf(name, sizeof name, "remote%s: consumed, records of 1 KiB", how);
    apart_add(a, name, f->consumed, "MB/s", -1, true);
}

static bool run(apart *shared, const bench_daemon *d, const char *program, const char *dir, bool quick)
{
    scene c = {.a = shared, .program = program, .quick = quick};
    double echo = 0, stream = 0;
    figures plain = {0}, tls = {0};
    (void)d;
    snprintf(c.dir, sizeof c.dir, "%s", dir);
    bool ok = bare(&c, &echo, &stream);
    bw_bus *bus = ok ? start_daemon(&c) : NULL, *secure = NULL;
    ok = bus && measure(&c, bus, "one", "many", &plain);
    ok = ok && (bw_bus_open(c.tls_url, NULL, &secure) == BW_OK || failed(&c, "TLS")) && measure(&c, secure, "one.tls", "many.tls", &tls);
    bw_bus_close(secure);
    bw_bus_close(bus);
    if (c.daemon > 0) {
        kill(c.daemon, SIGTERM);
        waitpid(c.daemon, NULL, 0);
    }
    if (!ok) return false;
    apart_add(shared, "bare nng echo over loopback tcp, p50", echo, "us", -1, false);
    apart_add(shared, "bare nng stream over loopback tcp", stream, "MB/s", -1, true);
    add(shared, &plain, "");
    add(shared, &tls, " over TLS");
    return true;
}

bool bench_remote_run(const char *program, const char *dir, bool quick, FILE *json, bool table)
{
    static const apart_case apart_remote = {"remote", "a client of another host", sizeof(apart), run};
    return apart_run(&apart_remote, program, dir, quick, json, table);
}
