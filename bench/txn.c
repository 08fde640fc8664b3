/* bench/txn.c: transactions, and what idempotence costs.
 *
 * Transactions: each writer is a process with a transactional id of its own. A transaction is `batch` records to each of the topic's
 * partitions by bw_producer_send, then the commit; the next begins when that was answered. The figure is commits a second of all.
 * Idempotence: one producer through the socket, asynchronous, batches of `batch` records, with enable_idempotence and, beside it, without. */
#include "bench.h"

#include <busway/busway.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define WAIT_MS 30000

static bool failed(const bench_run *run, const char *what)
{
    return bench_fail(run->shared, "%s on topic %s: %s: %s", what, run->topic, bw_error_message(), "see the daemon's log");
}

static bool open_bus(const bench_run *run, bw_bus **bus)
{
    bw_bus_options b = BW_BUS_OPTIONS_INIT;
    b.transport = BW_TRANSPORT_IPC;
    return bw_bus_open(run->bus_url, &b, bus) == BW_OK || failed(run, "open the bus");
}

static bool one_transaction(const bench_run *run, bw_producer *p, const bw_record *r)
{
    const bench_case *c = run->c;
    if (bw_transaction_begin(p) != BW_OK) return failed(run, "begin");
    for (uint32_t k = 0; k < c->partitions; k++)
        for (uint32_t i = 0; i < c->batch; i++)
            if (bw_producer_send(p, run->topic, (int32_t)k, r, NULL, NULL, WAIT_MS) != BW_OK) return failed(run, "send");
    return bw_transaction_commit(p, WAIT_MS) == BW_OK || failed(run, "commit");
}

bool bench_txn_role(const bench_run *run, uint32_t index)
{
    const bench_case *c = run->c;
    char id[32];
    bw_bus *bus;
    bw_producer *p;
    uint8_t *value = calloc(1, c->record_bytes);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    uint32_t each = c->round_trips / c->writers;
    if (!value || !open_bus(run, &bus)) return false;
    snprintf(id, sizeof id, "bench-%u", index);
    bench_value_fill(value, c->record_bytes, index);
    bw_record r = {.value = value, .value_len = c->record_bytes, .timestamp_ms = BW_NO_TIMESTAMP};
    o.transactional_id = id;
    o.batch_size = 1 << 20;
    o.acks = c->kind == BENCH_TXN_DURABLE ? BW_ACKS_DURABLE : BW_ACKS_VISIBLE;
    if (bw_producer_open(bus, &o, &p) != BW_OK || bw_transactions_init(p, WAIT_MS) != BW_OK) return failed(run, "open a producer");
    for (uint32_t i = 0; i < each / 10; i++)
        if (!one_transaction(run, p, &r)) return false;
    if (!bench_arrive(run->shared)) return false;
    run->shared->writer[index].start_ns = bench_now_ns();
    for (uint32_t i = 0; i < each; i++)
        if (!one_transaction(run, p, &r)) return false;
    run->shared->writer[index].end_ns = bench_now_ns();
    bw_producer_close(p, WAIT_MS);
    bw_bus_close(bus);
    free(value);
    return true;
}

bool bench_idempotent_role(const bench_run *run, uint32_t index)
{
    (void)index;
    const bench_case *c = run->c;
    bw_bus *bus;
    bw_producer *p;
    uint8_t *value = calloc(1, c->record_bytes);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    if (!value || !open_bus(run, &bus)) return false;
    bench_value_fill(value, c->record_bytes, 1);
    bw_record r = {.value = value, .value_len = c->record_bytes, .timestamp_ms = BW_NO_TIMESTAMP};
    o.enable_idempotence = c->way == BENCH_ASYNC;
    o.batch_size = c->batch * (c->record_bytes + 10);
    o.linger_ms = 5;
    if (bw_producer_open(bus, &o, &p) != BW_OK) return failed(run, "open a producer");
    for (uint32_t i = 0; i < c->round_trips + c->round_trips / 10; i++) {
        if (i == c->round_trips / 10) {
            if (bw_producer_flush(p, WAIT_MS) != BW_OK || !bench_arrive(run->shared)) return failed(run, "flush");
            run->shared->writer[0].start_ns = bench_now_ns();
        }
        if (bw_producer_send(p, run->topic, 0, &r, NULL, NULL, WAIT_MS) != BW_OK) return failed(run, "send");
    }
    if (bw_producer_flush(p, WAIT_MS) != BW_OK) return failed(run, "flush");
    run->shared->writer[0].end_ns = bench_now_ns();
    bw_producer_close(p, WAIT_MS);
    bw_bus_close(bus);
    free(value);
    return true;
}
