/* bench/state.c: `--case state`, a run of its own: state mode and quotas.
 *
 *   state mode   one consumer counts records of 100 B by key (1,000 keys) in transactions of 1,000 records, durable (each on the disk before
 *                the next begins) and fast; from the first record to the commit of the last
 *   quota        a producer on the socket under a producer_byte_rate of 20 MB/s, after a second in which what it had saved is used up: how
 *                far from its rate, in per cent; a consumer likewise
 *   beside it    a producer on the socket without a quota, beside a throttled one that is stopped every other 200 ms: how much slower, in per
 *                cent, the windows with it are than those around
 * The bounds are the project's. Everything runs in children; the process that reports opens no bus. */
#include "apart.h"

#include <busway/busway.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEYS 1000u
#define VALUE 100u
#define BATCH 100u
#define TXN 1000
#define RATE 20000000.0
#define PAIRS 5
#define WINDOW_NS UINT64_C(200000000)

typedef struct shared {
    apart a; /* first */
    _Atomic bool stop;
} shared;

typedef struct scene {
    shared *s;
    char url[128];
    bool quick;
} scene;

static void add(scene *c, const char *name, double value, const char *unit, double bound, bool at_least)
{
    apart_add(&c->s->a, name, value, unit, bound, at_least);
}

static bool failed(scene *c, const char *what) { return apart_failed(&c->s->a, what); }

static bw_bus *open_bus(scene *c, const char *client, bw_transport transport)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.client_id = client;
    o.transport = transport;
    bw_bus *bus = NULL;
    if (bw_bus_open(c->url, &o, &bus)) failed(c, "bus");
    return bus;
}

/* BATCH records with keys; `at` goes on through the keys. */
static void make_batch(bw_record r[BATCH], char keys[BATCH][8], uint64_t at)
{
    static uint8_t value[VALUE];
    bench_value_fill(value, VALUE, 1);
    for (uint32_t i = 0; i < BATCH; i++) {
        int n = snprintf(keys[i], sizeof keys[i], "%u", (unsigned)((at + i) * 7919u % KEYS));
        r[i] = (bw_record){.key = keys[i], .key_len = (size_t)n, .value = value, .value_len = VALUE, .timestamp_ms = BW_NO_TIMESTAMP};
    }
}

static bool fill(scene *c, bw_bus *bus, const char *topic, uint64_t records)
{
    bw_producer *p = NULL;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    bw_record r[BATCH];
    char keys[BATCH][8];
    if (bw_topic_create(bus, topic, 1, NULL, 0) || bw_producer_open(bus, NULL, &p)) return failed(c, "fill");
    bool ok = true;
    for (uint64_t n = 0; n < records && ok; n += BATCH) {
        make_batch(r, keys, n);
        ok = bw_producer_send_batch(p, topic, 0, r, BATCH, 10000, NULL) == BW_OK || failed(c, "send");
    }
    (void)bw_producer_close(p, 10000);
    o.acks = BW_ACKS_DURABLE; /* and all of it on the disk */
    if (ok && bw_producer_open(bus, &o, &p)) return failed(c, "fill");
    if (ok) ok = bw_producer_send_batch(p, topic, 0, r, BATCH, 60000, NULL) == BW_OK || failed(c, "send");
    if (ok) (void)bw_producer_close(p, 10000);
    return ok;
}

/* ---- state mode ---- */

static bw_err count(bw_state_txn *t, const bw_batch *batch, const bw_record_view *r, void *opaque)
{
    (void)batch, (void)opaque;
    const void *old;
    size_t len;
    uint64_t n = 0;
    if (bw_state_get(t, r->key, r->key_len, &old, &len) == BW_OK && len == sizeof n) memcpy(&n, old, sizeof n);
    n++;
    return bw_state_put(t, r->key, r->key_len, &n, sizeof n);
}

static bool counting(scene *c, const char *topic, bool fast)
{
    uint64_t records = c->quick ? 200000 : 2000000, all = records + BATCH, done = 0;
    bw_bus *bus = open_bus(c, "busway-bench-state", BW_TRANSPORT_AUTO);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_state_options so = BW_STATE_OPTIONS_INIT;
    bw_consumer *consumer = NULL;
    bw_state *s = NULL;
    char name[64];
    o.group_id = "bench";
    o.auto_offset_reset = BW_RESET_EARLIEST;
    so.fast = fast;
    if (!bus || !fill(c, bus, topic, records)) return false;
    if (bw_consumer_open(bus, &o, &consumer) || bw_state_open(consumer, &so, &s) || bw_consumer_subscribe(consumer, &topic, 1))
        return failed(c, "state");
    uint64_t begin = bench_now_ns();
    while (done < all) {
        int32_t n;
        bw_err e = bw_state_process(s, 10000, TXN, count, NULL, &n);
        if (e) return failed(c, "process");
        if (!done) begin = bench_now_ns();
        done += (uint64_t)n;
    }
    snprintf(name, sizeof name, "state mode, %d in a transaction, %s", TXN, fast ? "fast" : "durable");
    add(c, name, (double)(all - TXN) * 1e9 / (double)(bench_now_ns() - begin), "records/s", 200000, true);
    bw_state_close(s);
    bw_consumer_close(consumer);
    bw_bus_close(bus);
    return true;
}

/* ---- quotas ---- */

static bool set_quota(scene *c, const char *client, const char *rate, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.0f", value);
    bw_config_entry e = {rate, value > 0 ? text : NULL};
    bw_bus *bus = open_bus(c, "busway-bench-admin", BW_TRANSPORT_IPC);
    bool ok = bus && bw_quota_set(bus, NULL, client, NULL, &e, 1) == BW_OK;
    if (!ok) failed(c, "quota");
    bw_bus_close(bus);
    return ok;
}

/* Sends for so long; bytes of batches a second behind the warm part. */
static bool sending(scene *c, const char *client, double warm_s, double timed_s, double *rate)
{
    bw_bus *bus = open_bus(c, client, BW_TRANSPORT_IPC);
    bw_producer *p = NULL;
    bw_record r[BATCH];
    char keys[BATCH][8];
    if (!bus || bw_producer_open(bus, NULL, &p)) return failed(c, "sending");
    make_batch(r, keys, 0);
    size_t bytes = 0;
    for (uint32_t i = 0; i < BATCH; i++) bytes += r[i].key_len + VALUE + 8;
    bytes += 61;
    uint64_t begin = bench_now_ns(), from = 0, sent = 0;
    for (;;) {
        uint64_t now = bench_now_ns();
        if (!from && (double)(now - begin) / 1e9 >= warm_s) {
            from = now;
            sent = 0;
        }
        if ((from && (double)(now - from) / 1e9 >= timed_s) || atomic_load(&c->s->stop)) break;
        if (bw_producer_send_batch(p, "quota", 0, r, BATCH, 10000, NULL)) return failed(c, "send");
        sent += bytes;
    }
    if (rate) *rate = (double)sent * 1e9 / (double)(bench_now_ns() - from);
    (void)bw_producer_close(p, 10000);
    bw_bus_close(bus);
    return true;
}

static bool receiving(scene *c, const char *client, double warm_s, double timed_s, double *rate)
{
    bw_bus *bus = open_bus(c, client, BW_TRANSPORT_IPC);
    bw_consumer *consumer = NULL;
    bw_batch b;
    if (!bus || bw_consumer_open(bus, NULL, &consumer)) return failed(c, "receiving");
    uint64_t begin = bench_now_ns(), from = 0, got = 0;
    if (bw_consumer_assign(consumer, "quota", 0, BW_OFFSET_BEGINNING)) return failed(c, "assign");
    for (;;) {
        bw_err e = bw_consumer_poll(consumer, 1000, &b);
        if (e && e != BW_ERR_TIMED_OUT) return failed(c, "poll");
        uint64_t now = bench_now_ns();
        if (!e) got += (uint64_t)(b.it_end - b.it_at) + 61; /* its records, and the header before them */
        if (!from && (double)(now - begin) / 1e9 >= warm_s) {
            from = now;
            got = 0;
        }
        if (from && (double)(now - from) / 1e9 >= timed_s) break;
    }
    *rate = (double)got * 1e9 / (double)(bench_now_ns() - from);
    bw_consumer_close(consumer);
    bw_bus_close(bus);
    return true;
}

/* One client sends without a pause; the throttled one beside it is stopped and let go on, a window each: a window beside it is compared with
 * the two around it, so that the disk's and the machine's slow changes fall out. */
static bool beside(scene *c)
{
    int pairs = c->quick ? PAIRS : 3 * PAIRS;
    double rate[6 * PAIRS + 1], slower[3 * PAIRS];
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(sending(c, "slow", 1e9, 0, NULL) ? 0 : 1);
    }
    bw_bus *bus = open_bus(c, "free", BW_TRANSPORT_IPC);
    bw_producer *p = NULL;
    bw_record r[BATCH];
    char keys[BATCH][8];
    bool ok = pid > 0 && bus && !bw_producer_open(bus, NULL, &p);
    make_batch(r, keys, 0);
    for (int i = -1; ok && i <= 2 * pairs; i++) { /* -1: to warm up */
        kill(pid, i & 1 ? SIGCONT : SIGSTOP);
        uint64_t begin = bench_now_ns(), now = begin, sent = 0;
        for (; ok && now - begin < WINDOW_NS; now = bench_now_ns(), sent++)
            ok = bw_producer_send_batch(p, "quota", 1, r, BATCH, 10000, NULL) == BW_OK;
        if (i >= 0) rate[i] = (double)sent / (double)(now - begin);
    }
    kill(pid, SIGCONT);
    atomic_store(&c->s->stop, true);
    int status = 0;
    if (pid > 0) waitpid(pid, &status, 0);
    atomic_store(&c->s->stop, false);
    if (p) (void)bw_producer_close(p, 10000);
    bw_bus_close(bus);
    if (!ok || status) return failed(c, "beside");
    for (int i = 0; i < pairs; i++) slower[i] = ((rate[2 * i] + rate[2 * i + 2]) / 2 / rate[2 * i + 1] - 1) * 100;
    qsort(slower, (size_t)pairs, sizeof *slower, apart_by_value);
    add(c, "a client beside one of 200 kB/s, slower (median)", slower[pairs / 2], "%", 2, false);
    return true;
}

static bool run_all(scene *c)
{
    double rate = 0, timed = c->quick ? 1 : 4;
    if (!counting(c, "durable", false) || !counting(c, "fast", true)) return false;
    bw_bus *bus = open_bus(c, "busway-bench-admin", BW_TRANSPORT_IPC);
    if (!bus || bw_topic_create(bus, "quota", 2, NULL, 0)) return failed(c, "topic");
    bw_bus_close(bus);
    if (!set_quota(c, "slow", "producer_byte_rate", RATE) || !sending(c, "slow", 1.5, timed, &rate)) return false;
    add(c, "producer of 20 MB/s, off its rate", fabs(rate / RATE - 1) * 100, "%", 5, false);
    if (!sending(c, "free", 0, 2, NULL)) return false;
    if (!set_quota(c, "slow", "consumer_byte_rate", RATE) || !receiving(c, "slow", 1.5, timed, &rate)) return false;
    add(c, "consumer of 20 MB/s, off its rate", fabs(rate / RATE - 1) * 100, "%", 5, false);
    return set_quota(c, "slow", "producer_byte_rate", 200000) && beside(c);
}

static bool run(apart *shared_, const bench_daemon *d, const char *program, const char *dir, bool quick)
{
    (void)program, (void)dir;
    scene c = {.s = (shared *)shared_, .quick = quick};
    snprintf(c.url, sizeof c.url, "%s", d->url);
    return run_all(&c);
}

bool bench_state_run(const char *program, const char *dir, bool quick, FILE *json, bool table)
{
    static const apart_case apart_state = {"state", "state mode and quotas", sizeof(shared), run};
    return apart_run(&apart_state, program, dir, quick, json, table);
}
