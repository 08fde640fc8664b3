/* bench/bus.c: Busway's side of each case, through the public API only, with the same processes, cores and counters as the limit.
 *
 * What is timed is what a program would do: bw_producer_send_batch with records in its own memory (the library takes the time,
 * encodes, checksums, appends), bw_consumer_poll with checksums on and bw_batch_next for every record, whose value is touched at
 * both ends. Spinning sides call poll with time-out 0; sleeping ones with a second. */
#include "bench.h"

#include <busway/busway.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WAIT_MS 10000

static bool failed(const bench_run *run, const char *what)
{
    return bench_fail(run->shared, "%s on topic %s: %s", what, run->topic, bw_error_message());
}

static bw_transport transport_of(const bench_run *run)
{
    return strcmp(run->c->transport, "ipc") == 0 ? BW_TRANSPORT_IPC : BW_TRANSPORT_DIRECT;
}

static bool bus_open(const bench_run *run, bw_bus **bus)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.transport = transport_of(run);
    o.client_id = "busway-bench";
    return bw_bus_open(run->bus_url, &o, bus) == BW_OK || failed(run, "open the bus");
}

/* A writer: its bus, its producer and the records that it sends again and again. */
typedef struct writer {
    bw_bus *bus;
    bw_producer *producer;
    bw_record *records;
    uint8_t *values;
    uint32_t count;
} writer;

static bool writer_open(writer *w, const bench_run *run)
{
    const bench_case *c = run->c;
    *w = (writer){.count = c->batch};
    w->records = calloc(c->batch, sizeof *w->records);
    w->values = malloc((size_t)c->batch * c->record_bytes);
    if (!w->records || !w->values) return bench_fail(run->shared, "out of memory");
    for (uint32_t i = 0; i < c->batch; i++) {
        uint8_t *value = w->values + (size_t)i * c->record_bytes;
        bench_value_fill(value, c->record_bytes, i);
        w->records[i] = (bw_record){.value = value, .value_len = c->record_bytes, .timestamp_ms = BW_NO_TIMESTAMP};
    }
    if (!bus_open(run, &w->bus)) return false;
    return bw_producer_open(w->bus, NULL, &w->producer) == BW_OK || failed(run, "open a producer");
}

static void writer_close(writer *w)
{
    bw_producer_close(w->producer, WAIT_MS);
    bw_bus_close(w->bus);
    free(w->records);
    free(w->values);
}

/* A reader of one partition and where it is. */
typedef struct reader {
    bw_bus *bus;
    bw_consumer *consumer;
    int64_t next;
} reader;

static bool reader_open(reader *r, const bench_run *run, int32_t partition)
{
    *r = (reader){0};
    if (!bus_open(run, &r->bus)) return false;
    if (bw_consumer_open(r->bus, NULL, &r->consumer) != BW_OK) return failed(run, "open a consumer");
    return bw_consumer_assign(r->consumer, run->topic, partition, 0) == BW_OK || failed(run, "assign");
}

static void reader_close(reader *r)
{
    bw_consumer_close(r->consumer);
    bw_bus_close(r->bus);
}

/* Read one batch and every record of it; their number, 0 on failure. */
static uint32_t read_batch(reader *r, const bench_run *run, bool may_sleep, uint64_t *sum)
{
    bw_batch batch;
    bw_record_view v;
    uint32_t turns = 0, count = 0;
    uint64_t seen = 0;
    int more;
    for (;;) {
        bw_err e = bw_consumer_poll(r->consumer, may_sleep ? 1000 : 0, &batch);
        if (e == BW_OK) break;
        if (e != BW_ERR_TIMED_OUT) return failed(run, "poll"), 0;
        if (!bench_relax(run->shared, &turns)) return 0;
    }
    while ((more = bw_batch_next(&batch, &v)) == 1) {
        if (v.offset != r->next + count)
            return bench_fail(run->shared, "offset %lld came, %lld was next", (long long)v.offset, (long long)(r->next + count)),
                   0;
        if (v.value_len) seen += v.value[0] + v.value[v.value_len - 1];
        seen += v.value_len + v.key_len + (uint64_t)v.timestamp_ms;
        count++;
    }
    if (more < 0) return failed(run, "iterate"), 0;
    r->next += count;
    *sum += seen;
    return count;
}

/* Roles of the rate: 0 writes, the others read. */
static bool e2e_write(const bench_run *run)
{
    writer w;
    uint64_t step = bench_step_records(run);
    if (!writer_open(&w, run) || !bench_arrive(run->shared)) return false;
    for (uint64_t done = 0; done < run->records;) {
        if (bw_producer_send_batch(w.producer, run->topic, 0, w.records, w.count, WAIT_MS, NULL) != BW_OK)
            return failed(run, "send");
        done += w.count;
        if (done % step == 0 && !bench_hold(run, done)) return false;
    }
    writer_close(&w);
    return true;
}

static bool e2e_role(const bench_run *run, uint32_t index)
{
    if (index == 0) return e2e_write(run);
    reader r;
    bench_reader_slot *slot = &run->shared->reader[index - 1];
    uint64_t step = bench_step_records(run), done = 0;
    if (!reader_open(&r, run, 0) || !bench_arrive(run->shared)) return false;
    while (done < run->records) {
        uint32_t n = read_batch(&r, run, false, &slot->checksum);
        if (!n) return false;
        bench_note_read(run, slot, done, done + n, step);
        done += n;
    }
    slot->end_ns = bench_now_ns();
    reader_close(&r);
    return true;
}

/* Roles of the round trip: 0 asks on partition 0 and times, 1 answers on partition 1. */
static bool rtt_role(const bench_run *run, uint32_t index)
{
    bool may_sleep = run->c->kind == BENCH_RTT_SLEEP;
    uint32_t warm = run->c->round_trips / 10;
    uint64_t sum = 0;
    writer w;
    reader r;
    if (!writer_open(&w, run) || !reader_open(&r, run, index == 0 ? 1 : 0) || !bench_arrive(run->shared)) return false;
    uint64_t before = bench_now_ns();
    for (uint32_t i = 0; i < warm + run->c->round_trips; i++) {
        if (index == 1 && !read_batch(&r, run, may_sleep, &sum)) return false;
        if (bw_producer_send_sync(w.producer, run->topic, (int32_t)index, &w.records[0], WAIT_MS, NULL) != BW_OK)
            return failed(run, "send");
        if (index == 1) continue;
        if (!read_batch(&r, run, may_sleep, &sum)) return false;
        uint64_t now = bench_now_ns();
        if (i >= warm) run->shared->sample_ns[run->shared->samples++] = now - before;
        before = now;
    }
    run->shared->reader[index].checksum = sum;
    reader_close(&r);
    writer_close(&w);
    return true;
}

static bool request_role(const bench_run *run, uint32_t index)
{
    (void)index;
    writer w;
    uint32_t warm = run->c->round_trips / 10;
    if (!writer_open(&w, run) || !bench_arrive(run->shared)) return false;
    uint64_t before = bench_now_ns();
    for (uint32_t i = 0; i < warm + run->c->round_trips; i++) {
        if (bw_producer_send_sync(w.producer, run->topic, 0, &w.records[0], WAIT_MS, NULL) != BW_OK) return failed(run, "send");
        uint64_t now = bench_now_ns();
        if (i >= warm) run->shared->sample_ns[run->shared->samples++] = now - before;
        before = now;
    }
    writer_close(&w);
    return true;
}

static bool create_role(const bench_run *run, uint32_t index)
{
    (void)index;
    bw_bus *bus;
    char segment[24], retention[24];
    snprintf(segment, sizeof segment, "%u", BENCH_SEGMENT_BYTES);
    snprintf(retention, sizeof retention, "%llu", (unsigned long long)BENCH_SEGMENT_BYTES * BENCH_SEGMENTS_KEPT);
    bw_config_entry config[] = {{"segment.bytes", segment}, {"retention.bytes", retention}, {"file.delete.delay.ms", "0"}};
    if (!bus_open(run, &bus)) return false;
    if (bw_topic_create(bus, run->topic, (int32_t)run->c->partitions, config, sizeof config / sizeof config[0]) != BW_OK)
        return failed(run, "create");
    bw_bus_close(bus);
    return true;
}

static bool delete_role(const bench_run *run, uint32_t index)
{
    (void)index;
    bw_bus *bus;
    if (!bus_open(run, &bus)) return false;
    if (bw_topic_delete(bus, run->topic) != BW_OK) return failed(run, "delete");
    bw_bus_close(bus);
    return true;
}

bool bench_bus_run(bench_run *run, bench_figures *out)
{
    const bench_case *c = run->c;
    bench_role one = {create_role, -1}, roles[BENCH_READERS_MAX + 1];
    uint32_t count = c->kind == BENCH_E2E ? c->readers + 1 : c->kind == BENCH_REQUEST ? 1 : 2;
    bool direct = transport_of(run) == BW_TRANSPORT_DIRECT;
    if (!bench_roles_run(run, &one, 1, 20)) return false;
    bench_shared_reset(run->shared);
    for (uint32_t i = 0; i < count; i++) {
        if (c->kind == BENCH_E2E)
            roles[i] = (bench_role){e2e_role, !direct ? -1 : i == 0 ? 0 : 1};
        else if (c->kind == BENCH_REQUEST)
            roles[i] = (bench_role){request_role, 0};
        else
            roles[i] = (bench_role){rtt_role, c->kind == BENCH_RTT_SLEEP ? 0 : (int)i};
    }
    bool ok = bench_roles_run(run, roles, count, 120);
    if (!ok) return false;
    bench_figures_take(run, out);
    bench_shared_reset(run->shared);
    one.fn = delete_role;
    return bench_roles_run(run, &one, 1, 20);
}
