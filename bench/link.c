/* bench/link.c: `--case link`, a run of its own: a mirror over loopback (tcp), pulled by one daemon from another.
 *
 *   bare stream  one process sends 1 MiB pieces over an nng stream to another one that only receives: what loopback gives here
 *   link         records of 1 KiB, 64 a batch, that lie at the origin before the link is added; from then until the mirror has all;
 *                the median of three
 *   latency      a record each millisecond, from before the send to after the read, asleep in poll: read at the origin, read in the
 *                mirror; the difference of the 99th percentiles is what the link adds
 * Both daemons, and in the last part writer and reader, share the cores. */
#include "apart.h"

#include <busway/busway.h>
#include <nng/nng.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define VALUE 1024u
#define BATCH 64u
#define ROUNDS 3
#define PIECE (1u << 20)
#define PORT_A 17611
#define PORT_BARE 17612

typedef struct scene {
    apart *a;
    const char *program;
    char dir[512], url_a[600], url_b[128];
    pid_t origin;
    double bare;
    bool quick;
} scene;

static bool failed(scene *c, const char *what) { return apart_failed(c->a, what); }

/* ---- the bare stream ---- */

static int bare_send(void)
{
    char url[64];
    nng_stream_dialer *d;
    nng_aio *aio;
    uint8_t *piece = calloc(1, PIECE);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", PORT_BARE);
    if (!piece || nng_stream_dialer_alloc(&d, url) || nng_aio_alloc(&aio, NULL, NULL)) return 1;
    for (int i = 0; i < 500; i++) {
        nng_stream_dialer_dial(d, aio);
        nng_aio_wait(aio);
        if (!nng_aio_result(aio)) break;
        usleep(5000);
    }
    if (nng_aio_result(aio)) return 1;
    nng_stream *s = nng_aio_get_output(aio, 0);
    for (;;) {
        for (size_t at = 0; at < PIECE; at += nng_aio_count(aio)) {
            nng_iov iov = {piece + at, PIECE - at};
            nng_aio_set_iov(aio, 1, &iov);
            nng_stream_send(s, aio);
            nng_aio_wait(aio);
            if (nng_aio_result(aio)) return 0;
        }
    }
}

static int bare_receive(double *rate, uint64_t bytes)
{
    char url[64];
    nng_stream_listener *l;
    nng_aio *aio;
    uint8_t *piece = malloc(PIECE);
    uint64_t got = 0, began = 0;
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", PORT_BARE);
    if (!piece || nng_stream_listener_alloc(&l, url) || nng_stream_listener_listen(l) || nng_aio_alloc(&aio, NULL, NULL)) return 1;
    nng_stream_listener_accept(l, aio);
    nng_aio_wait(aio);
    if (nng_aio_result(aio)) return 1;
    nng_stream *s = nng_aio_get_output(aio, 0);
    while (got < bytes) {
        nng_iov iov = {piece, PIECE};
        nng_aio_set_iov(aio, 1, &iov);
        nng_stream_recv(s, aio);
        nng_aio_wait(aio);
        if (nng_aio_result(aio)) return 1;
        if (!began) began = bench_now_ns();
        got += nng_aio_count(aio);
    }
    *rate = (double)got * 1000 / (double)(bench_now_ns() - began);
    return 0;
}

static bool bare(scene *c)
{
    double *rate = mmap(NULL, sizeof *rate, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (rate == MAP_FAILED) return failed(c, "memory");
    pid_t receiver = fork();
    if (receiver == 0) _exit(bare_receive(rate, c->quick ? UINT64_C(1) << 29 : UINT64_C(1) << 31));
    pid_t sender = fork();
    if (sender == 0) _exit(bare_send());
    int status = 1;
    if (receiver > 0) waitpid(receiver, &status, 0);
    if (sender > 0) {
        kill(sender, SIGKILL);
        waitpid(sender, NULL, 0);
    }
    c->bare = *rate;
    munmap(rate, sizeof *rate);
    if (status || c->bare <= 0) return failed(c, "the bare stream");
    apart_add(c->a, "bare nng stream over loopback", c->bare, "MB/s", -1, true);
    return true;
}

/* ---- the origin ---- */

static bool start_origin(scene *c)
{
    char data[540], listen[560], port[64];
    snprintf(data, sizeof data, "%s/origin", c->dir);
    snprintf(listen, sizeof listen, "ipc://%s/origin.sock", c->dir);
    snprintf(c->url_a, sizeof c->url_a, "%s", listen);
    snprintf(port, sizeof port, "listeners=tcp://127.0.0.1:%d", PORT_A);
    c->origin = fork();
    if (c->origin == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        execl(c->program, c->program, "--data-dir", data, "--listen", listen, "--set", port, "--set", "anonymous.role=reader", "--log-level", "error",
              (char *)NULL);
        _exit(127);
    }
    bw_bus *bus = NULL;
    for (int i = 0; i < 500 && bw_bus_open(c->url_a, NULL, &bus) != BW_OK; i++) usleep(10000);
    if (!bus) return failed(c, "the origin");
    bw_bus_close(bus);
    return true;
}

static bw_bus *open_bus(scene *c, const char *url, bw_transport transport)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.transport = transport;
    bw_bus *bus = NULL;
    if (bw_bus_open(url, &o, &bus)) failed(c, "bus");
    return bus;
}

static bool link_topic(scene *c, bw_bus *target, const char *name, const char *topic)
{
    char url[64];
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", PORT_A);
    bw_config_entry options[] = {{"url", url}, {"topics", topic}};
    return bw_link_add(target, name, options, 2) == BW_OK || failed(c, "link");
}

static bool fill(scene *c, bw_bus *bus, const char *topic, uint64_t records)
{
    static uint8_t value[VALUE];
    bw_record batch[BATCH];
    bw_producer *p = NULL;
    bw_config_entry segments = {"segment.bytes", "268435456"};
    for (size_t i = 0; i < VALUE; i++) value[i] = (uint8_t)(i * 131);
    for (size_t i = 0; i < BATCH; i++) batch[i] = (bw_record){.value = value, .value_len = VALUE, .timestamp_ms = BW_NO_TIMESTAMP};
    if (bw_topic_create(bus, topic, 1, &segments, 1) || bw_producer_open(bus, NULL, &p)) return failed(c, "topic");
    bw_err e = BW_OK;
    for (uint64_t n = 0; !e && n < records; n += BATCH) e = bw_producer_send_batch(p, topic, 0, batch, BATCH, 10000, NULL);
    (void)bw_producer_close(p, 10000);
    return !e || failed(c, "filling");
}

static int64_t end_of(bw_bus *bus, const char *topic)
{
    bw_offset_range r;
    return bw_offsets_range(bus, topic, 0, &r) == BW_OK ? r.end : 0;
}

static bool wait_durable(scene *c, bw_bus *bus, const char *topic, int64_t end)
{
    bw_offset_range r = {0};
    for (int i = 0; i < 3000 && r.durable < end; i++) {
        if (bw_offsets_range(bus, topic, 0, &r)) break;
        usleep(10000);
    }
    return r.durable >= end || failed(c, "the origin's records are not on the disk after half a minute");
}

static bool rate(scene *c)
{
    double rates[ROUNDS];
    uint64_t records = (c->quick ? 96u : 512u) * 1024 / BATCH * BATCH;
    bw_bus *a = open_bus(c, c->url_a, BW_TRANSPORT_AUTO), *b = open_bus(c, c->url_b, BW_TRANSPORT_IPC);
    bool ok = a && b;
    for (int i = 0; ok && i < ROUNDS; i++) {
        char topic[16];
        snprintf(topic, sizeof topic, "bulk%d", i);
        ok = fill(c, a, topic, records);
        ok = ok && wait_durable(c, a, topic, (int64_t)records); /* what was filled in is not written while the link is timed */
        uint64_t began = bench_now_ns();
        ok = ok && link_topic(c, b, topic, topic);
        while (ok && end_of(b, topic) < (int64_t)records && bench_now_ns() - began < UINT64_C(60000000000)) bench_pause(2000);
        uint64_t took = bench_now_ns() - began;
        if (ok && end_of(b, topic) < (int64_t)records) ok = failed(c, "the mirror is not complete after a minute");
        rates[i] = (double)records * VALUE * 1000 / (double)took;
        if (ok) ok = bw_link_remove(b, topic) == BW_OK && bw_topic_delete(a, topic) == BW_OK && bw_topic_delete(b, topic) == BW_OK;
    }
    bw_bus_close(a);
    bw_bus_close(b);
    if (!ok) return failed(c, "rate");
    qsort(rates, ROUNDS, sizeof *rates, apart_by_value);
    apart_add(c->a, "link, records of 1 KiB", rates[ROUNDS / 2], "MB/s", c->bare * 0.8 < 500 ? c->bare * 0.8 : 500, true);
    return true;
}

/* ---- latency ---- */

static bool time_reads(scene *c, const char *read_url, double out[2])
{
    enum { WARM = 200 };
    int n = c->quick ? 1000 : 4000, at = 0;
    double *us = calloc((size_t)n, sizeof *us);
    bw_bus *a = open_bus(c, c->url_a, BW_TRANSPORT_AUTO), *r = open_bus(c, read_url, BW_TRANSPORT_AUTO);
    bw_producer *p = NULL;
    bw_consumer *s = NULL;
    bool ok = us && a && r && !bw_producer_open(a, NULL, &p) && !bw_consumer_open(r, NULL, &s) && !bw_consumer_assign(s, "pulse", 0, BW_OFFSET_END);
    for (int i = 0; ok && i < n + WARM; i++) {
        uint64_t stamp = bench_now_ns(), got = 0;
        bw_record record = {.value = &stamp, .value_len = sizeof stamp, .timestamp_ms = BW_NO_TIMESTAMP};
        bw_batch batch;
        bw_record_view v;
        ok = bw_producer_send_sync(p, "pulse", 0, &record, 5000, NULL) == BW_OK;
        while (ok && got != stamp) {
            ok = bw_consumer_poll(s, 5000, &batch) == BW_OK;
            while (ok && bw_batch_next(&batch, &v) == 1) memcpy(&got, v.value, sizeof got);
        }
        if (i >= WARM) us[at++] = (double)(bench_now_ns() - stamp) / 1000;
        bench_pause(1000);
    }
    if (ok) {
        qsort(us, (size_t)n, sizeof *us, apart_by_value);
        out[0] = us[n / 2];
        out[1] = us[n * 99 / 100];
    }
    bw_consumer_close(s);
    if (p) (void)bw_producer_close(p, 5000);
    bw_bus_close(a);
    bw_bus_close(r);
    free(us);
    return ok || failed(c, "latency");
}

static bool latency(scene *c)
{
    double here[2] = {0}, there[2] = {0};
    bw_bus *a = open_bus(c, c->url_a, BW_TRANSPORT_IPC), *b = open_bus(c, c->url_b, BW_TRANSPORT_IPC);
    bool ok = a && b && bw_topic_create(a, "pulse", 1, NULL, 0) == BW_OK && link_topic(c, b, "pulse", "pulse");
    for (int i = 0; ok && i < 500 && bw_topic_partitions(b, "pulse", NULL) != BW_OK; i++) usleep(10000);
    bw_bus_close(a);
    bw_bus_close(b);
    if (!ok || !time_reads(c, c->url_a, here) || !time_reads(c, c->url_b, there)) return failed(c, "latency");
    apart_add(c->a, "read at the origin, p50", here[0], "us", -1, false);
    apart_add(c->a, "read in the mirror, p50", there[0], "us", -1, false);
    apart_add(c->a, "read at the origin, p99", here[1], "us", -1, false);
    apart_add(c->a, "read in the mirror, p99", there[1], "us", -1, false);
    apart_add(c->a, "the link adds, p99", there[1] - here[1], "us", 1000, false);
    return true;
}

static bool run(apart *shared, const bench_daemon *d, const char *program, const char *dir, bool quick)
{
    scene c = {.a = shared, .program = program, .quick = quick};
    snprintf(c.dir, sizeof c.dir, "%s", dir);
    snprintf(c.url_b, sizeof c.url_b, "%s", d->url);
    bool ok = bare(&c) && start_origin(&c) && rate(&c) && latency(&c);
    if (c.origin > 0) {
        kill(c.origin, SIGTERM);
        waitpid(c.origin, NULL, 0);
    }
    return ok;
}

bool bench_link_run(const char *program, const char *dir, bool quick, FILE *json, bool table)
{
    static const apart_case apart_link = {"link", "a mirror over loopback", sizeof(apart), run};
    return apart_run(&apart_link, program, dir, quick, json, table);
}
