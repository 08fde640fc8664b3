/* bench/bus.c: Busway's side of each case, through the public API only, with the same processes, cores and counters as the limit.
 *
 * What is timed is what a program would do: bw_producer_send_batch with records in its own memory (the library takes the time,
 * encodes, checksums, appends), bw_consumer_poll with checksums on and bw_batch_next for every record, whose value is touched at
 * both ends. Spinning sides call poll with time-out 0; sleeping ones with a second. Other ways to write: bw_producer_reserve, the
 * value copied into the log by the caller, bw_producer_commit; or bw_producer_send, one record a call, batched by the library
 * with its default options. */
#include "bus.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool bench_bus_failed(const bench_run *run, const char *what)
{
    return bench_fail(run->shared, "%s on topic %s: %s", what, run->topic, bw_error_message());
}

static bw_transport transport_of(const bench_run *run)
{
    return strcmp(run->c->transport, "ipc") == 0 ? BW_TRANSPORT_IPC : BW_TRANSPORT_DIRECT;
}

bool bench_bus_open(const bench_run *run, bw_bus **bus)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.transport = transport_of(run);
    o.client_id = "busway-bench";
    return bw_bus_open(run->bus_url, &o, bus) == BW_OK || bench_bus_failed(run, "open the bus");
}

bool bench_writer_open(bench_writer *w, const bench_run *run)
{
    const bench_case *c = run->c;
    *w = (bench_writer){.count = c->batch};
    w->records = calloc(c->batch, sizeof *w->records);
    w->values = malloc((size_t)c->batch * c->record_bytes);
    if (!w->records || !w->values) return bench_fail(run->shared, "out of memory");
    for (uint32_t i = 0; i < c->batch; i++) {
        uint8_t *value = w->values + (size_t)i * c->record_bytes;
        bench_value_fill(value, c->record_bytes, i);
        w->records[i] = (bw_record){.value = value, .value_len = c->record_bytes, .timestamp_ms = BW_NO_TIMESTAMP};
    }
    if (!bench_bus_open(run, &w->bus)) return false;
    return bw_producer_open(w->bus, NULL, &w->producer) == BW_OK || bench_bus_failed(run, "open a producer");
}

static void delivered(void *opaque, const bw_delivery *d)
{
    const bench_run *run = opaque;
    if (d->error != BW_OK) bench_fail(run->shared, "delivery to topic %s: %s", run->topic, d->message ? d->message : "?");
}

static bool write_async(bench_writer *w, const bench_run *run, int32_t partition)
{
    for (uint32_t i = 0; i < w->count; i++)
        if (bw_producer_send(w->producer, run->topic, partition, &w->records[i], delivered, (void *)(uintptr_t)run,
                             BENCH_WAIT_MS) != BW_OK)
            return bench_bus_failed(run, "send");
    bw_producer_poll(w->producer, 0);
    return !atomic_load_explicit(&run->shared->failed, memory_order_relaxed);
}

static bool write_reserved(bench_writer *w, const bench_run *run, int32_t partition)
{
    for (uint32_t i = 0; i < w->count; i++) {
        bw_reservation r;
        const bw_record *record = &w->records[i];
        if (bw_producer_reserve(w->producer, run->topic, partition, NULL, record->value_len, BENCH_WAIT_MS, &r) != BW_OK)
            return bench_bus_failed(run, "reserve");
        memcpy(r.value, record->value, record->value_len);
        if (bw_producer_commit(w->producer, &r, record->value_len, BENCH_WAIT_MS, NULL) != BW_OK)
            return bench_bus_failed(run, "commit");
    }
    return true;
}

bool bench_writer_write(bench_writer *w, const bench_run *run, int32_t partition)
{
    if (run->c->way == BENCH_RESERVE) return write_reserved(w, run, partition);
    if (run->c->way == BENCH_ASYNC) return write_async(w, run, partition);
    return bw_producer_send_batch(w->producer, run->topic, partition, w->records, w->count, BENCH_WAIT_MS, NULL) == BW_OK ||
           bench_bus_failed(run, "send");
}

bool bench_writer_close(bench_writer *w, const bench_run *run)
{
    bool ok = bw_producer_close(w->producer, BENCH_WAIT_MS) == BW_OK || bench_bus_failed(run, "close the producer");
    bw_bus_close(w->bus);
    free(w->records);
    free(w->values);
    return ok && !atomic_load(&run->shared->failed);
}

bool bench_reader_open(bench_reader *r, const bench_run *run, int32_t partition)
{
    *r = (bench_reader){0};
    if (!bench_bus_open(run, &r->bus)) return false;
    if (bw_consumer_open(r->bus, NULL, &r->consumer) != BW_OK) return bench_bus_failed(run, "open a consumer");
    return bw_consumer_assign(r->consumer, run->topic, partition, 0) == BW_OK || bench_bus_failed(run, "assign");
}

void bench_reader_close(bench_reader *r)
{
    bw_consumer_close(r->consumer);
    bw_bus_close(r->bus);
}

uint32_t bench_reader_read(bench_reader *r, const bench_run *run, bool may_sleep, uint64_t *sum)
{
    bw_batch batch;
    bw_record_view v;
    uint32_t turns = 0, count = 0;
    uint64_t seen = 0;
    int more;
    for (;;) {
        bw_err e = bw_consumer_poll(r->consumer, may_sleep ? 1000 : 0, &batch);
        if (e == BW_OK) break;
        if (e != BW_ERR_TIMED_OUT) return bench_bus_failed(run, "poll"), 0;
        if (!bench_relax(run->shared, &turns)) return 0;
    }
    int64_t *next = &r->next[(uint32_t)batch.partition % BENCH_PARTITIONS_MAX];
    while ((more = bw_batch_next(&batch, &v)) == 1) {
        if (v.offset != *next + count)
            return bench_fail(run->shared, "offset %lld came, %lld was next", (long long)v.offset, (long long)(*next + count)), 0;
        if (v.value_len >= sizeof r->first) memcpy(r->first, v.value, sizeof r->first);
        if (v.value_len) seen += v.value[0] + v.value[v.value_len - 1];
        seen += v.value_len + v.key_len + (uint64_t)v.timestamp_ms;
        count++;
    }
    if (more < 0) return bench_bus_failed(run, "iterate"), 0;
    *next += count;
    *sum += seen;
    return count;
}

/* Roles of the rate: 0 writes, the others read. */
static bool e2e_write(const bench_run *run)
{
    bench_writer w;
    uint64_t step = bench_step_records(run);
    int32_t partition = 0;
    if (!bench_writer_open(&w, run) || !bench_arrive(run->shared)) return false;
    for (uint64_t done = 0; done < run->records;) {
        if (!bench_writer_write(&w, run, partition)) return false;
        if (++partition == (int32_t)run->c->partitions) partition = 0;
        done += w.count;
        if (done % step == 0 && !bench_hold(run, done)) return false;
    }
    return bench_writer_close(&w, run);
}

static bool e2e_role(const bench_run *run, uint32_t index)
{
    if (index == 0) return e2e_write(run);
    bench_reader r;
    bench_reader_slot *slot = &run->shared->reader[index - 1];
    uint64_t step = bench_step_records(run), done = 0;
    bool through_socket = transport_of(run) == BW_TRANSPORT_IPC; /* three processes: one that spins takes a core from the others */
    if (!bench_reader_open(&r, run, BW_PARTITION_ANY) || !bench_arrive(run->shared)) return false;
    while (done < run->records) {
        uint32_t n = bench_reader_read(&r, run, through_socket, &slot->checksum);
        if (!n) return false;
        bench_note_read(run, slot, done, done + n, step);
        done += n;
    }
    slot->end_ns = bench_now_ns();
    bench_reader_close(&r);
    return true;
}

/* Roles of the round trip: 0 asks on partition 0 and times, 1 answers on partition 1. */
static bool rtt_role(const bench_run *run, uint32_t index)
{
    bool may_sleep = run->c->kind == BENCH_RTT_SLEEP;
    uint32_t warm = run->c->round_trips / 10;
    uint64_t sum = 0;
    bench_writer w;
    bench_reader r;
    if (!bench_writer_open(&w, run) || !bench_reader_open(&r, run, index == 0 ? 1 : 0) || !bench_arrive(run->shared))
        return false;
    uint64_t before = bench_now_ns();
    for (uint32_t i = 0; i < warm + run->c->round_trips; i++) {
        if (index == 1 && !bench_reader_read(&r, run, may_sleep, &sum)) return false;
        if (bw_producer_send_sync(w.producer, run->topic, (int32_t)index, &w.records[0], BENCH_WAIT_MS, NULL) != BW_OK)
            return bench_bus_failed(run, "send");
        if (index == 1) continue;
        if (!bench_reader_read(&r, run, may_sleep, &sum)) return false;
        uint64_t now = bench_now_ns();
        if (i >= warm) run->shared->sample_ns[run->shared->samples++] = now - before;
        before = now;
    }
    run->shared->reader[index].checksum = sum;
    bench_reader_close(&r);
    return bench_writer_close(&w, run);
}

static bool request_role(const bench_run *run, uint32_t index)
{
    (void)index;
    bench_writer w;
    uint32_t warm = run->c->round_trips / 10;
    if (!bench_writer_open(&w, run) || !bench_arrive(run->shared)) return false;
    uint64_t before = bench_now_ns();
    for (uint32_t i = 0; i < warm + run->c->round_trips; i++) {
        if (bw_producer_send_sync(w.producer, run->topic, 0, &w.records[0], BENCH_WAIT_MS, NULL) != BW_OK)
            return bench_bus_failed(run, "send");
        uint64_t now = bench_now_ns();
        if (i >= warm) run->shared->sample_ns[run->shared->samples++] = now - before;
        before = now;
    }
    return bench_writer_close(&w, run);
}

static bool create_role(const bench_run *run, uint32_t index)
{
    (void)index;
    bw_bus *bus;
    char segment[24], retention[24];
    snprintf(segment, sizeof segment, "%u", BENCH_SEGMENT_BYTES);
    snprintf(retention, sizeof retention, "%llu", (unsigned long long)BENCH_SEGMENT_BYTES * BENCH_SEGMENTS_KEPT);
    bool keep = run->keep || run->c->kind == BENCH_FAN; /* a writer that nobody holds: its readers may come late */
    bw_config_entry config[] = {
        {"segment.bytes", segment}, {"retention.bytes", keep ? "-1" : retention}, {"file.delete.delay.ms", "0"}};
    if (!bench_bus_open(run, &bus)) return false;
    if (bw_topic_create(bus, run->topic, (int32_t)run->c->partitions, config, sizeof config / sizeof config[0]) != BW_OK)
        return bench_bus_failed(run, "create");
    bw_bus_close(bus);
    return true;
}

static bool delete_role(const bench_run *run, uint32_t index)
{
    (void)index;
    bw_bus *bus;
    if (!bench_bus_open(run, &bus)) return false;
    if (bw_topic_delete(bus, run->topic) != BW_OK) return bench_bus_failed(run, "delete");
    bw_bus_close(bus);
    return true;
}

/* The processes of a case: which core each has. */
static uint32_t roles_of(const bench_case *c, bench_role roles[BENCH_READERS_MAX + BENCH_WRITERS_MAX])
{
    static const bench_role_fn role_fn[BENCH_KINDS] = {
        e2e_role,     bench_fan_role,         bench_writers_role,     rtt_role, rtt_role, bench_one_way_role, bench_calls_role,
        request_role, bench_durable_one_role, bench_durable_many_role, bench_commit_one_role, bench_commit_many_role, bench_compact_role,
        bench_txn_role, bench_txn_role, bench_idempotent_role};
    bool pinned = strcmp(c->transport, "direct") == 0;
    bool writers = c->kind == BENCH_WRITERS || c->kind == BENCH_COMMIT_MANY || c->kind >= BENCH_TXN;
    uint32_t count = writers ? c->writers : c->kind == BENCH_REQUEST || c->kind == BENCH_COMPACT ? 1 : c->readers + 1;
    if (c->kind >= BENCH_DURABLE) pinned = false;
    for (uint32_t i = 0; i < count; i++) {
        int core = i == 0 ? 0 : 1;
        if (c->kind == BENCH_WRITERS)
            core = (int)(i % 2);
        else if (c->kind == BENCH_RTT_SLEEP || (c->kind == BENCH_ONE_WAY && !c->two_cores))
            core = 0;
        else if (!pinned && (c->kind == BENCH_E2E || c->kind >= BENCH_DURABLE))
            core = -1;
        roles[i] = (bench_role){role_fn[c->kind], core};
    }
    return count;
}

bool bench_bus_run(bench_run *run, bench_figures *out)
{
    bench_role one = {create_role, -1}, roles[BENCH_READERS_MAX + BENCH_WRITERS_MAX];
    if (!bench_roles_run(run, &one, 1, 20)) return false;
    bench_shared_reset(run->shared);
    if (!bench_roles_run(run, roles, roles_of(run->c, roles), 120)) return false;
    bench_figures_take(run, out);
    if (run->c->kind == BENCH_CALLS) bench_calls_take(run, out);
    bench_shared_reset(run->shared);
    one.fn = delete_role;
    return bench_roles_run(run, &one, 1, 20);
}
