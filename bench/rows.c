/* bench/rows.c: the cases of `make bench` and the rows of each, with the bound that the project has set itself for it.
 *
 * Bytes are of the log: 20 segments timed behind 5 that warm up (the fifth is the first that deletes one) for batches of 100 records
 * of 100 bytes; 10 and fewer for the others. Of the system calls only those of most windows are bound: a writer that comes to the end
 * of the space made ready for it prepares memory, and asks a sleeping coordinator for the next segment. */
#include "bench.h"

#include <stdio.h>

#define MIB   (UINT64_C(1) << 20)
#define FIELD(name) offsetof(bench_figures, name)

#define NO_VALUE -1.0
#define RATE(bound) {"rate", FIELD(rate), "records/s", true, bound, NO_VALUE}
#define RATE_OF_AT_LEAST(value) {"rate", FIELD(rate), "records/s", true, 0, value}
#define WRITER(bound) {"writer", FIELD(writer_rate), "records/s", true, bound, NO_VALUE}
#define P50(bound, value) {"p50", FIELD(p50_ns), "ns", false, bound, value}
#define P99 {"p99", FIELD(p99_ns), "ns", false, 0, NO_VALUE}
#define MEAN(bound) {"mean", FIELD(mean_ns), "ns", false, bound, NO_VALUE}
#define BATCHES(bound) {"rate", FIELD(rate), "batches/s", true, bound, NO_VALUE}
#define P999(bound) {"p99.9", FIELD(p999_ns), "ns", false, bound, NO_VALUE}
#define CALLS(name, field, value) {name, FIELD(field), "calls", false, 0, value}

const bench_entry bench_entries[] = {
    {{BENCH_E2E, "direct", BENCH_BATCH, 100, 100, 1, 1, 1, false, BENCH_BESIDE_LIMIT, 1280 * MIB, 320 * MIB, 0},
     "100 B x 100, end to end",
     {RATE(0.8)}},
    {{BENCH_E2E, "direct", BENCH_BATCH, 100, 1, 1, 1, 1, false, BENCH_BESIDE_LIMIT, 640 * MIB, 320 * MIB, 0},
     "100 B, batch of one, end to end",
     {RATE(0.6)}},
    {{BENCH_E2E, "direct", BENCH_RESERVE, 100, 1, 1, 1, 1, false, BENCH_BESIDE_LIMIT, 640 * MIB, 320 * MIB, 0},
     "100 B, reserve/commit, end to end",
     {RATE(0.6)}},
    {{BENCH_E2E, "direct", BENCH_ASYNC, 100, 100, 1, 1, 1, false, BENCH_BESIDE_LIMIT, 640 * MIB, 320 * MIB, 0},
     "100 B, asynchronous, one a call",
     {RATE(0)}},
    {{BENCH_E2E, "direct", BENCH_BATCH, 1024, 100, 1, 1, 1, false, BENCH_BESIDE_LIMIT, 640 * MIB, 320 * MIB, 0},
     "1 KiB x 100, end to end",
     {RATE(0.8)}},
    {{BENCH_E2E, "direct", BENCH_BATCH, 65536, 1, 1, 1, 1, false, BENCH_BESIDE_LIMIT, 640 * MIB, 320 * MIB, 0},
     "64 KiB, end to end",
     {RATE(0.8)}},
    {{BENCH_RTT_SPIN, "direct", BENCH_BATCH, 100, 1, 2, 1, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 200000},
     "round trip, spinning",
     {P50(1.5, NO_VALUE), P99, P999(1.5)}},
    {{BENCH_RTT_SLEEP, "direct", BENCH_BATCH, 100, 1, 2, 1, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 20000},
     "round trip, asleep",
     {P50(0, NO_VALUE), P99, P999(0)}},
    {{BENCH_ONE_WAY, "direct", BENCH_BATCH, 100, 1, 1, 1, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 2000},
     "one way, asleep, one core",
     {P50(0, 6000), P99}},
    {{BENCH_ONE_WAY, "direct", BENCH_BATCH, 100, 1, 1, 1, 1, true, BENCH_BESIDE_LIMIT, 0, 0, 2000},
     "one way, asleep, two cores",
     {P50(0, NO_VALUE), P99}},
    {{BENCH_CALLS, "direct", BENCH_BATCH, 100, 1, 1, 1, 1, false, BENCH_BESIDE_NONE, 0, 0, 200000},
     "writer's system calls, nobody asleep",
     {CALLS("per 1000 appends", calls_per_1000, 0), CALLS("futex of 200000", futex_calls, NO_VALUE),
      CALLS("all of 200000", calls, NO_VALUE), CALLS("asleep, of 1000", calls_asleep_per_1000, NO_VALUE)}},
    {{BENCH_FAN, "direct", BENCH_BATCH, 100, 100, 1, 4, 1, false, BENCH_BESIDE_ONE, 640 * MIB, 128 * MIB, 0},
     "four readers beside one reader",
     {RATE(0.9), WRITER(0.9)}},
    {{BENCH_WRITERS, "direct", BENCH_BATCH, 100, 100, 1, 0, 8, false, BENCH_BESIDE_ONE, 640 * MIB, 320 * MIB, 0},
     "eight writers, one partition, x 100",
     {RATE(0.7)}},
    {{BENCH_WRITERS, "direct", BENCH_BATCH, 100, 100, 8, 0, 8, false, BENCH_BESIDE_ONE, 640 * MIB, 320 * MIB, 0},
     "eight writers, eight partitions, x 100",
     {RATE(0.7)}},
    {{BENCH_WRITERS, "direct", BENCH_BATCH, 100, 1, 1, 0, 8, false, BENCH_BESIDE_ONE, 256 * MIB, 128 * MIB, 0},
     "eight writers, one partition, x 1",
     {RATE(0.7)}},
    {{BENCH_WRITERS, "direct", BENCH_BATCH, 100, 1, 8, 0, 8, false, BENCH_BESIDE_ONE, 256 * MIB, 128 * MIB, 0},
     "eight writers, eight partitions, x 1",
     {RATE(0.7)}},
    {{BENCH_E2E, "ipc", BENCH_BATCH, 100, 100, 1, 1, 1, false, BENCH_BESIDE_LIMIT, 96 * MIB, 32 * MIB, 0},
     "100 B x 100, end to end",
     {RATE_OF_AT_LEAST(2.5e6)}},
    {{BENCH_E2E, "ipc", BENCH_ASYNC, 100, 100, 1, 1, 1, false, BENCH_BESIDE_LIMIT, 96 * MIB, 32 * MIB, 0},
     "100 B, asynchronous, end to end",
     {RATE_OF_AT_LEAST(2.5e6)}},
    {{BENCH_E2E, "ipc", BENCH_BATCH, 100, 1, 1, 1, 1, false, BENCH_BESIDE_NONE, 4 * MIB, 1 * MIB, 0},
     "100 B, batch of one, end to end",
     {RATE(0)}},
    {{BENCH_REQUEST, "ipc", BENCH_BATCH, 100, 1, 1, 0, 1, false, BENCH_BESIDE_ECHO, 0, 0, 10000},
     "one request and its answer",
     {P50(1.3, NO_VALUE), P99}},
    {{BENCH_RTT_SLEEP, "ipc", BENCH_BATCH, 100, 1, 2, 1, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 5000},
     "round trip, asleep",
     {P50(0, NO_VALUE), P99}},
    {{BENCH_DURABLE, "direct", BENCH_BATCH, 100, 1, 1, 0, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 1000},
     "durable, 100 B x 1, one at a time",
     {MEAN(1.3), P50(0, NO_VALUE), P99}},
    {{BENCH_DURABLE, "direct", BENCH_BATCH, 100, 100, 1, 0, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 1000},
     "durable, 100 B x 100, one at a time",
     {MEAN(1.3), P50(0, NO_VALUE), P99}},
    {{BENCH_DURABLE_MANY, "direct", BENCH_ASYNC, 100, 1, 1, 0, 1, false, BENCH_BESIDE_ONE, 0, 0, 16000},
     "durable, 100 B x 1, 64 not acknowledged",
     {BATCHES(30)}},
    {{BENCH_DURABLE_MANY, "direct", BENCH_ASYNC, 100, 100, 1, 0, 1, false, BENCH_BESIDE_ONE, 0, 0, 16000},
     "durable, 100 B x 100, 64 not acknowledged",
     {BATCHES(0)}},
    {{BENCH_DURABLE_MANY, "direct", BENCH_ASYNC, 100, 1, 1, 0, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 16000},
     "durable, x 1, 64 beside one sync for 64",
     {BATCHES(0)}},
    {{BENCH_DURABLE_MANY, "direct", BENCH_ASYNC, 100, 100, 1, 0, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 16000},
     "durable, x 100, 64 beside one sync for 64",
     {BATCHES(0)}},
    {{BENCH_DURABLE, "ipc", BENCH_BATCH, 100, 1, 1, 0, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 1000},
     "durable, 100 B x 1, one at a time",
     {MEAN(0), P50(0, NO_VALUE), P99}},
    {{BENCH_DURABLE, "ipc", BENCH_BATCH, 100, 100, 1, 0, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 1000},
     "durable, 100 B x 100, one at a time",
     {MEAN(0), P50(0, NO_VALUE), P99}},
    {{BENCH_DURABLE_MANY, "ipc", BENCH_ASYNC, 100, 1, 1, 0, 1, false, BENCH_BESIDE_ONE, 0, 0, 16000},
     "durable, 100 B x 1, 64 not acknowledged",
     {BATCHES(0)}},
    {{BENCH_DURABLE_MANY, "ipc", BENCH_ASYNC, 100, 100, 1, 0, 1, false, BENCH_BESIDE_ONE, 0, 0, 16000},
     "durable, 100 B x 100, 64 not acknowledged",
     {BATCHES(0)}},
    {{BENCH_COMMIT, "ipc", BENCH_BATCH, 100, 1, 1, 0, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 2000},
     "committed offset, one at a time",
     {MEAN(1.3), P50(0, NO_VALUE), P99}},
    {{BENCH_COMMIT_MANY, "ipc", BENCH_ASYNC, 100, 1, 8, 0, 8, false, BENCH_BESIDE_NONE, 0, 0, 400000},
     "committed offsets, eight clients, asynchronous",
     {{"rate", FIELD(rate), "commits/s", true, 0, 100000}}},
    {{BENCH_COMPACT, "direct", BENCH_BATCH, 100, 100, 1, 0, 1, false, BENCH_BESIDE_NONE, 0, 0, 10000000},
     "compaction, 10 M records of 100 k keys",
     {RATE(0), {"peak memory", FIELD(peak_bytes), "bytes", false, 0, 128e6}}},
    {{BENCH_TXN, "ipc", BENCH_ASYNC, 100, 25, 4, 0, 16, false, BENCH_BESIDE_NONE, 0, 0, 32000},
     "transactions of 100 records over 4 partitions",
     {{"rate", FIELD(rate), "commits/s", true, 0, 5000}}},
    {{BENCH_TXN_DURABLE, "ipc", BENCH_ASYNC, 100, 25, 4, 0, 16, false, BENCH_BESIDE_NONE, 0, 0, 8000},
     "the same, durable",
     {{"rate", FIELD(rate), "commits/s", true, 0, NO_VALUE}}},
    {{BENCH_IDEMPOTENT, "ipc", BENCH_ASYNC, 100, 100, 1, 0, 1, false, BENCH_BESIDE_ONE, 0, 0, 4000000},
     "idempotence beside none, asynchronous",
     {RATE(0.9)}},
};
const size_t bench_entry_count = sizeof bench_entries / sizeof bench_entries[0];

void bench_case_id(const bench_case *c, char *out, size_t size)
{
    static const char *const kinds[] = {"e2e", "fan", "writers", "rtt_spin", "rtt_sleep", "one_way", "calls", "request", "durable",
                                        "durable_many", "commit", "commit_many", "compact", "txn", "txn_durable", "idempotent"};
    static const char *const ways[] = {"", "/reserve", "/async"};
    snprintf(out, size, "%s/%s/%ux%u/w%u/p%u/r%u%s%s", kinds[c->kind], c->transport, c->record_bytes, c->batch, c->writers,
             c->partitions, c->readers, ways[c->way], c->two_cores ? "/two_cores" : "");
}
