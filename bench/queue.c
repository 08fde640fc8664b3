/* bench/queue.c: `--case queue`, a run of its own: queue groups.
 *
 *   acknowledgements   four workers (processes), four partitions, records of 100 B: until each record was acknowledged and every
 *                      acknowledgement answered, which means that it is on the disk. Once with 500 in a request, once with one a request
 *   one at a time      one worker: poll one, acknowledge it and wait: one sync each
 *   redelivery         a worker that holds a record is killed (SIGKILL): from the kill until another one, which waits, has the record
 *   delayed            records with times spread over two seconds: how much later than its time a worker has each; early ones counted
 * The bounds are the project's. Everything runs in children; the process that reports opens no bus. */
#include "apart.h"

#include <busway/busway.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKERS 4
#define PARTITIONS 4
#define VALUE 100u
#define BATCH 100u
#define SAMPLES_MAX 4096

typedef struct shared {
    apart a; /* first */
    _Atomic uint64_t done, ready;
    _Atomic bool failed;
    _Atomic int64_t killed_ns;
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

static bool failed(scene *c, const char *what)
{
    if (!atomic_exchange(&c->s->failed, true)) (void)apart_failed(&c->s->a, what);
    return false;
}

static int64_t wall_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static bw_bus *open_bus(scene *c)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.client_id = "busway-bench-queue";
    bw_bus *bus = NULL;
    if (bw_bus_open(c->url, &o, &bus)) failed(c, "bus");
    return bus;
}

static bool fill(scene *c, bw_bus *bus, const char *topic, uint64_t records)
{
    bw_producer *p = NULL;
    static uint8_t value[VALUE];
    bw_record r[BATCH];
    bench_value_fill(value, VALUE, 1);
    for (uint32_t i = 0; i < BATCH; i++) r[i] = (bw_record){.value = value, .value_len = VALUE, .timestamp_ms = BW_NO_TIMESTAMP};
    if (bw_topic_create(bus, topic, PARTITIONS, NULL, 0) || bw_producer_open(bus, NULL, &p)) return failed(c, "fill");
    bool ok = true;
    for (uint64_t n = 0; n < records && ok; n += BATCH)
        ok = bw_producer_send_batch(p, topic, (int32_t)(n / BATCH % PARTITIONS), r, BATCH, 10000, NULL) == BW_OK || failed(c, "send");
    (void)bw_producer_close(p, 10000);
    return ok;
}

static bw_queue *open_queue(scene *c, bw_bus *bus, const char *topic, int32_t fetch, int32_t acks)
{
    bw_queue_options o = BW_QUEUE_OPTIONS_INIT;
    o.group = "bench";
    o.topics = &topic;
    o.topic_count = 1;
    o.max_records = fetch;
    o.ack_records = acks;
    o.max_deliveries = 1000; /* the same records are taken from many killed workers */
    bw_queue *q = NULL;
    if (!bus || bw_queue_open(bus, &o, &q)) failed(c, "queue");
    return q;
}

/* ---- acknowledgements ---- */

static void work(scene *c, const char *topic, uint64_t records, int32_t acks)
{
    bw_bus *bus = open_bus(c);
    bw_queue *q = open_queue(c, bus, topic, 500, acks);
    static bw_message m[500];
    size_t n;
    uint64_t said = 0;
    atomic_fetch_add(&c->s->ready, 1);
    while (atomic_load(&c->s->ready) < WORKERS + 1) usleep(100);
    while (q && !atomic_load(&c->s->failed) && atomic_load(&c->s->done) + said < records) {
        bw_err e = bw_queue_poll_batch(q, 20, m, 500, &n);
        if (e == BW_ERR_TIMED_OUT && said && bw_queue_flush(q, 10000) == BW_OK) {
            atomic_fetch_add(&c->s->done, said);
            said = 0;
        }
        if (e == BW_ERR_TIMED_OUT) continue;
        if (e || bw_queue_ack_batch(q, m, n)) failed(c, "work");
        said += n;
        if (said < 20000) continue;
        if (bw_queue_flush(q, 10000)) failed(c, "flush");
        atomic_fetch_add(&c->s->done, said);
        said = 0;
    }
    if (q && said && bw_queue_flush(q, 10000)) failed(c, "flush");
    atomic_fetch_add(&c->s->done, said);
    if (atomic_load(&c->s->failed)) _exit(1);
    _exit(0);
}

static bool rate(scene *c, const char *topic, uint64_t records, int32_t acks, double *out)
{
    bw_bus *bus = open_bus(c);
    bool ok = bus && fill(c, bus, topic, records);
    bw_bus_close(bus);
    pid_t pids[WORKERS];
    atomic_store(&c->s->done, 0);
    atomic_store(&c->s->ready, 0);
    for (int i = 0; i < WORKERS && ok; i++) {
        if ((pids[i] = fork()) == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            work(c, topic, records, acks);
        }
    }
    while (ok && atomic_load(&c->s->ready) < WORKERS && !atomic_load(&c->s->failed)) usleep(1000);
    uint64_t begun = bench_now_ns();
    atomic_fetch_add(&c->s->ready, 1);
    while (ok && atomic_load(&c->s->done) < records && !atomic_load(&c->s->failed) && bench_now_ns() - begun < UINT64_C(60000000000)) usleep(200);
    *out = (double)atomic_load(&c->s->done) * 1e9 / (double)(bench_now_ns() - begun);
    if (ok && atomic_load(&c->s->done) < records) failed(c, "not all were acknowledged");
    for (int i = 0; i < WORKERS && ok; i++) waitpid(pids[i], NULL, 0);
    return ok && !atomic_load(&c->s->failed);
}

static bool one_at_a_time(scene *c, uint64_t records)
{
    bw_bus *bus = open_bus(c);
    bw_queue *q = bus && fill(c, bus, "single", records) ? open_queue(c, bus, "single", 500, 1) : NULL;
    double *us = calloc(records, sizeof *us);
    bool ok = q && us;
    for (uint64_t i = 0; i < records && ok; i++) {
        bw_message m;
        uint64_t begun = bench_now_ns();
        ok = (bw_queue_poll(q, 5000, &m) == BW_OK && bw_queue_ack_sync(q, &m, 5000) == BW_OK) || failed(c, "one at a time");
        us[i] = (double)(bench_now_ns() - begun) / 1e3;
    }
    (void)bw_queue_close(q);
    bw_bus_close(bus);
    if (ok) {
        qsort(us, records, sizeof *us, apart_by_value);
        add(c, "one at a time, acknowledged and on the disk: p50", us[records / 2], "us", -1, false);
    }
    free(us);
    return ok;
}

/* ---- redelivery ---- */

static void hold(scene *c)
{
    bw_bus *bus = open_bus(c);
    bw_queue *q = open_queue(c, bus, "kills", 1, 1);
    bw_message m;
    if (!q || bw_queue_poll(q, 10000, &m)) failed(c, "hold");
    atomic_store(&c->s->ready, 1);
    for (;;) pause();
}

static bool redelivery(scene *c, uint32_t kills)
{
    double ms[SAMPLES_MAX];
    bw_bus *bus = open_bus(c);
    bool ok = bus && fill(c, bus, "kills", BATCH);
    bw_queue *q = ok ? open_queue(c, bus, "kills", 1, 1) : NULL;
    bw_message m;
    for (uint32_t i = 0; i < BATCH - 1 && q; i++) /* one is left */
        if (bw_queue_poll(q, 5000, &m) || bw_queue_ack_sync(q, &m, 5000)) ok = failed(c, "empty");
    for (uint32_t i = 0; i < kills && ok && q; i++) {
        atomic_store(&c->s->ready, 0);
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            hold(c);
        }
        while (!atomic_load(&c->s->ready) && !atomic_load(&c->s->failed)) usleep(200);
        if (fork() == 0) { /* while we wait */
            usleep(20000);
            atomic_store(&c->s->killed_ns, (int64_t)bench_now_ns());
            kill(pid, SIGKILL);
            _exit(0);
        }
        ok = bw_queue_poll(q, 10000, &m) == BW_OK || failed(c, "redelivery");
        ms[i] = (double)((int64_t)bench_now_ns() - atomic_load(&c->s->killed_ns)) / 1e6;
        while (waitpid(-1, NULL, 0) > 0) {}
        if (ok && i % 4 == 3) { /* a new one: this one was out often enough */
            bw_producer *p = NULL;
            bw_record r = {.value = "x", .value_len = 1, .timestamp_ms = BW_NO_TIMESTAMP};
            ok = bw_queue_ack_sync(q, &m, 5000) == BW_OK && bw_producer_open(bus, NULL, &p) == BW_OK &&
                 bw_producer_send_sync(p, "kills", 0, &r, 5000, NULL) == BW_OK;
            (void)bw_producer_close(p, 5000);
        } else if (ok) {
            ok = bw_queue_release(q, &m) == BW_OK && bw_queue_flush(q, 5000) == BW_OK;
        }
        if (!ok) failed(c, "after a kill");
    }
    (void)bw_queue_close(q);
    bw_bus_close(bus);
    if (!ok || !q) return false;
    qsort(ms, kills, sizeof *ms, apart_by_value);
    add(c, "killed worker, record at another: p50", ms[kills / 2], "ms", -1, false);
    add(c, "killed worker, record at another: p99", ms[kills * 99 / 100], "ms", 20, false);
    return true;
}

/* ---- delayed ---- */

static bool delayed(scene *c, uint32_t records)
{
    double late[SAMPLES_MAX];
    bw_bus *bus = open_bus(c);
    bw_producer *p = NULL;
    if (!bus || bw_topic_create(bus, "later", PARTITIONS, NULL, 0) || bw_producer_open(bus, NULL, &p)) return failed(c, "delayed");
    int64_t from = wall_us() / 1000 + 500;
    uint32_t seed = 1, early = 0;
    for (uint32_t i = 0; i < records; i++) {
        uint8_t room[8];
        bw_header h;
        seed = seed * 1664525u + 1013904223u;
        bw_header_deliver_at(from + seed / 65536 % 2000, room, &h);
        bw_record r = {.value = room, .value_len = 8, .headers = &h, .header_count = 1, .timestamp_ms = BW_NO_TIMESTAMP};
        if (bw_producer_send_sync(p, "later", (int32_t)(i % PARTITIONS), &r, 5000, NULL)) return failed(c, "send");
    }
    (void)bw_producer_close(p, 5000);
    bw_queue *q = open_queue(c, bus, "later", 1, 100);
    for (uint32_t i = 0; i < records && q; i++) {
        bw_message m;
        if (bw_queue_poll(q, 10000, &m)) return failed(c, "delayed poll");
        int64_t due = 0;
        for (int k = 0; k < 8; k++) due = due << 8 | m.record.value[k];
        late[i] = (double)(wall_us() - due * 1000) / 1e3;
        early += late[i] < 0;
        if (bw_queue_ack(q, &m)) return failed(c, "delayed ack");
    }
    if (!q || bw_queue_close(q)) return failed(c, "delayed close");
    bw_bus_close(bus);
    qsort(late, records, sizeof *late, apart_by_value);
    add(c, "delayed records that came early", early, "records", 0, false);
    add(c, "delayed, later than its time: p50", late[records / 2], "ms", -1, false);
    add(c, "delayed, later than its time: p99", late[records * 99 / 100], "ms", 20, false);
    return true;
}

/* ---- all of it ---- */

static bool run_all(scene *c)
{
    double many = 0, single = 0;
    if (!rate(c, "acks500", c->quick ? 200000 : 2000000, 500, &many)) return false;
    add(c, "acknowledgements, 500 in a request, 4 workers", many, "acks/s", 100000, true);
    if (!rate(c, "acks1", c->quick ? 50000 : 500000, 1, &single)) return false;
    add(c, "acknowledgements, one in a request, 4 workers", single, "acks/s", -1, true);
    return one_at_a_time(c, c->quick ? 200 : 2000) && redelivery(c, c->quick ? 20 : 200) && delayed(c, c->quick ? 400 : 4000);
}

static bool run(apart *shared_, const bench_daemon *d, const char *program, const char *dir, bool quick)
{
    (void)program, (void)dir;
    scene c = {.s = (shared *)shared_, .quick = quick};
    snprintf(c.url, sizeof c.url, "%s", d->url);
    return run_all(&c);
}

bool bench_queue_run(const char *program, const char *dir, bool quick, FILE *json, bool table)
{
    static const apart_case apart_queue = {"queue", "queue groups", sizeof(shared), run};
    return apart_run(&apart_queue, program, dir, quick, json, table);
}
