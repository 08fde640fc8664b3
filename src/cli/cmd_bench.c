/* cli/cmd_bench.c: how fast this bus is, on this machine, with records like yours.
 *
 * Two runs, each with a consumer in a thread on a connection of its own, sleeping in bw_consumer_poll as programs do:
 *   rate     N records in batches, as fast as they go; end to end is from the first send to the last record read
 *   latency  single records, one each 200 us; from before the send to after the read
 * Each record carries its monotonic time in its first 8 bytes. A topic that is not there is made for the run and deleted. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/interrupt.h"
#include "cli/table.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STAMP_BYTES     8
#define LATENCY_SAMPLES 2000
#define LATENCY_EACH_NS 200000
#define STALL_NS        INT64_C(30000000000)

typedef struct bench {
    cli *c;
    const char *topic;
    int64_t records, record_bytes, batch, partition;
    bw_acks acks;
    bw_codec codec;
    bool keep, made;
    bw_bus *bus, *reader_bus;
    bw_producer *producer;
    /* the reader thread's, until it is joined */
    int64_t expect, first_offset;
    int64_t *latencies;
    _Atomic int64_t seen;
    _Atomic bool quit;
    int64_t last_read_ns;
    bw_err reader_error;
    char reader_message[1024];
} bench;

typedef struct percentiles {
    double p50, p90, p99, p999, max;
} percentiles;

static int by_number(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static percentiles percentiles_of(int64_t *ns, size_t n)
{
    if (n == 0) return (percentiles){0};
    qsort(ns, n, sizeof *ns, by_number);
    return (percentiles){(double)ns[n / 2], (double)ns[n * 9 / 10], (double)ns[n * 99 / 100], (double)ns[n * 999 / 1000],
                         (double)ns[n - 1]};
}

/* Read `expect` records from first_offset; latencies of each when there is room for them. */
static void *reader(void *opaque)
{
    bench *b = opaque;
    bw_consumer *consumer = NULL;
    bw_consumer_options options = BW_CONSUMER_OPTIONS_INIT;
    bw_err e = bw_consumer_open(b->reader_bus, &options, &consumer);
    if (e == BW_OK) e = bw_consumer_assign(consumer, b->topic, (int32_t)b->partition, b->first_offset);
    int64_t seen = 0;
    while (e == BW_OK && seen < b->expect && !atomic_load(&b->quit)) {
        bw_batch batch;
        bw_record_view r;
        e = bw_consumer_poll(consumer, 100, &batch);
        if (e == BW_ERR_TIMED_OUT) {
            e = BW_OK;
            continue;
        }
        if (e != BW_OK) break;
        int64_t now = cli_now_ns(), stamp;
        while (seen < b->expect && bw_batch_next(&batch, &r) == 1) {
            if (b->latencies && r.value_len >= STAMP_BYTES) {
                memcpy(&stamp, r.value, STAMP_BYTES);
                b->latencies[seen] = now - stamp;
            }
            seen++;
        }
        b->last_read_ns = now;
        atomic_store_explicit(&b->seen, seen, memory_order_release);
    }
    b->reader_error = e;
    if (e != BW_OK)
        snprintf(b->reader_message, sizeof b->reader_message, "%s", *bw_error_message() ? bw_error_message() : bw_err_text(e));
    atomic_store(&b->quit, true);
    bw_consumer_close(consumer);
    return NULL;
}

/* Wait for the reader, join it. CLI_OK or the exit code. */
static int reader_join(bench *b, pthread_t thread)
{
    int64_t last = -1, since = cli_now_ns();
    while (!atomic_load(&b->quit) && atomic_load(&b->seen) < b->expect && !cli_interrupted()) {
        int64_t seen = atomic_load(&b->seen), now = cli_now_ns();
        if (seen != last) last = seen, since = now;
        if (now - since > STALL_NS) break;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    int64_t seen = atomic_load(&b->seen);
    atomic_store(&b->quit, true);
    pthread_join(thread, NULL);
    if (b->reader_error != BW_OK)
        return cli_error(b->c, cli_exit_for(b->reader_error), "the consumer stopped: %s", b->reader_message);
    if (cli_interrupted()) return CLI_INTERRUPTED;
    if (seen < b->expect)
        return cli_error(b->c, CLI_UNREACHABLE, "the consumer read %" PRId64 " of %" PRId64 " records, then nothing for 30 s",
                         seen, b->expect);
    return CLI_OK;
}

static int reader_start(bench *b, int64_t expect, int64_t *latencies, pthread_t *thread)
{
    bw_offset_range range;
    bw_err e = bw_offsets_range(b->bus, b->topic, (int32_t)b->partition, &range);
    if (e != BW_OK) return cli_error_bw(b->c, e, "%s", b->topic);
    b->expect = expect;
    b->first_offset = range.end;
    b->latencies = latencies;
    atomic_store(&b->seen, 0);
    atomic_store(&b->quit, false);
    if (pthread_create(thread, NULL, reader, b) != 0) return cli_error(b->c, CLI_FAILURE, "cannot start a thread");
    nanosleep(&(struct timespec){0, 20000000}, NULL); /* it is asleep in its poll */
    return CLI_OK;
}

typedef struct result {
    double produce_per_s, end_to_end_per_s;
    percentiles call, latency;
} result;

static int run_rate(bench *b, uint8_t *value, result *out)
{
    pthread_t thread;
    int64_t batches = (b->records + b->batch - 1) / b->batch;
    bw_record *records = calloc((size_t)b->batch, sizeof *records);
    int64_t *calls = malloc((size_t)batches * sizeof *calls);
    int rc = records && calls ? reader_start(b, b->records, NULL, &thread) : cli_error(b->c, CLI_FAILURE, "out of memory");
    if (rc != CLI_OK) goto done;
    for (int64_t i = 0; i < b->batch; i++)
        records[i] = (bw_record){.value = value, .value_len = (size_t)b->record_bytes, .timestamp_ms = BW_NO_TIMESTAMP};
    int64_t begun = cli_now_ns(), sent = 0, made = 0;
    for (; sent < b->records && !cli_interrupted() && !atomic_load(&b->quit); made++) {
        int64_t now = cli_now_ns(), n = b->records - sent < b->batch ? b->records - sent : b->batch;
        memcpy(value, &now, STAMP_BYTES);
        bw_err e = bw_producer_send_batch(b->producer, b->topic, (int32_t)b->partition, records, (size_t)n, 30000, NULL);
        if (e != BW_OK) {
            rc = cli_error_bw(b->c, e, "after %" PRId64 " records", sent);
            atomic_store(&b->quit, true);
            break;
        }
        calls[made] = cli_now_ns() - now;
        sent += n;
    }
    int64_t ended = cli_now_ns();
    int joined = reader_join(b, thread);
    if (rc == CLI_OK) rc = joined;
    if (rc == CLI_OK) {
        out->produce_per_s = (double)b->records * 1e9 / (double)(ended - begun);
        out->end_to_end_per_s = (double)b->records * 1e9 / (double)(b->last_read_ns - begun);
        out->call = percentiles_of(calls, (size_t)made);
    }
done:
    free(records);
    free(calls);
    return rc;
}

static int run_latency(bench *b, uint8_t *value, result *out)
{
    pthread_t thread;
    int64_t *latencies = calloc(LATENCY_SAMPLES, sizeof *latencies);
    int rc = latencies ? reader_start(b, LATENCY_SAMPLES, latencies, &thread) : cli_error(b->c, CLI_FAILURE, "out of memory");
    if (rc != CLI_OK) goto done;
    bw_record record = {.value = value, .value_len = (size_t)b->record_bytes, .timestamp_ms = BW_NO_TIMESTAMP};
    for (int i = 0; i < LATENCY_SAMPLES && !cli_interrupted() && !atomic_load(&b->quit); i++) {
        int64_t now = cli_now_ns();
        memcpy(value, &now, STAMP_BYTES);
        bw_err e = bw_producer_send_sync(b->producer, b->topic, (int32_t)b->partition, &record, 30000, NULL);
        if (e != BW_OK) {
            rc = cli_error_bw(b->c, e, "after %d single records", i);
            atomic_store(&b->quit, true);
            break;
        }
        nanosleep(&(struct timespec){0, LATENCY_EACH_NS}, NULL);
    }
    int joined = reader_join(b, thread);
    if (rc == CLI_OK) rc = joined;
    if (rc == CLI_OK) out->latency = percentiles_of(latencies, LATENCY_SAMPLES);
done:
    free(latencies);
    return rc;
}

static json_t *percentiles_json(const percentiles *p)
{
    return json_pack("{s:f,s:f,s:f,s:f,s:f}", "p50", p->p50, "p90", p->p90, "p99", p->p99, "p99_9", p->p999, "max", p->max);
}

static const char *transport_of(bench *b, char *out, size_t size)
{
    char *text = bw_bus_stats(b->bus);
    json_t *doc = text ? json_loads(text, 0, NULL) : NULL;
    snprintf(out, size, "%s", cli_doc_text(doc, "transport", "unknown"));
    json_decref(doc);
    bw_free(text);
    return out;
}

static void print_percentiles(const char *name, const percentiles *p)
{
    char a[5][24];
    printf("%-14s p50 %s, p90 %s, p99 %s, p99.9 %s, max %s\n", name, cli_human_ns(a[0], p->p50), cli_human_ns(a[1], p->p90),
           cli_human_ns(a[2], p->p99), cli_human_ns(a[3], p->p999), cli_human_ns(a[4], p->max));
}

static void print_result(bench *b, const result *r)
{
    char how[32], a[24], bytes[24];
    transport_of(b, how, sizeof how);
    if (b->c->json) {
        json_t *doc =
            json_pack("{s:s,s:s,s:I,s:I,s:I,s:f,s:f,s:o,s:o}", "topic", b->topic, "transport", how, "records",
                      (json_int_t)b->records, "record_bytes", (json_int_t)b->record_bytes, "batch", (json_int_t)b->batch,
                      "produce_records_per_s", r->produce_per_s, "end_to_end_records_per_s", r->end_to_end_per_s, "batch_call_ns",
                      percentiles_json(&r->call), "latency_ns", percentiles_json(&r->latency));
        cli_doc_print(doc);
        json_decref(doc);
        return;
    }
    printf("%" PRId64 " records of %" PRId64 " bytes in batches of %" PRId64 ", transport %s\n", b->records, b->record_bytes,
           b->batch, how);
    printf("%-14s %s records/s, %s/s\n", "produce", cli_human_count(a, r->produce_per_s),
           cli_human_bytes(bytes, r->produce_per_s * (double)b->record_bytes));
    printf("%-14s %s records/s, %s/s\n", "end to end", cli_human_count(a, r->end_to_end_per_s),
           cli_human_bytes(bytes, r->end_to_end_per_s * (double)b->record_bytes));
    print_percentiles("batch call", &r->call);
    print_percentiles("latency", &r->latency);
}

enum { ID_RECORDS = 256, ID_BYTES, ID_BATCH, ID_ACKS, ID_KEEP };

static const cli_opt options[] = {
    {ID_RECORDS, 0, "records", "N", "how many (default 1000000)"},
    {ID_BYTES, 0, "record-bytes", "B", "size of a value, from 8 (default 100)"},
    {ID_BATCH, 0, "batch", "N", "records in a batch (default 100)"},
    {'p', 'p', "partition", "N", "which partition (default 0)"},
    {'z', 'z', "compression", "CODEC", "none (default), gzip, snappy, lz4 or zstd"},
    {ID_ACKS, 0, "acks", "WHAT", "none, visible (default), durable or replicated"},
    {ID_KEEP, 0, "keep", NULL, "leave the topic that was made for the run"},
    {0, 0, NULL, NULL, NULL},
};

static int parse(bench *b, int argc, char **argv)
{
    cli *c = b->c;
    cli_args a;
    cli_args_init(&a, c, &cli_bench, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        bool ok = true;
        switch (id) {
        case CLI_ARGS_STOP:
            return a.exit_code;
        case CLI_ARGS_OPERAND:
            if (b->topic) return cli_usage(c, "one topic at a time: %s or %s?", b->topic, a.value);
            b->topic = a.value;
            break;
        case ID_RECORDS:
            ok = cli_parse_int(a.value, 1, INT64_C(100000000000), &b->records);
            break;
        case ID_BYTES:
            ok = cli_parse_size(a.value, STAMP_BYTES, 1 << 30, &b->record_bytes);
            break;
        case ID_BATCH:
            ok = cli_parse_int(a.value, 1, 1000000, &b->batch);
            break;
        case 'p':
            ok = cli_parse_int(a.value, 0, INT32_MAX, &b->partition);
            break;
        case 'z':
            ok = cli_parse_codec(a.value, &b->codec);
            break;
        case ID_ACKS:
            ok = cli_parse_acks(a.value, &b->acks);
            break;
        default:
            b->keep = true;
            break;
        }
        if (!ok) return cli_usage(c, "--%s: %s is not a value that it takes", a.option->name, a.value);
    }
    if (!b->topic) return cli_usage(c, "which topic? busway bench TOPIC");
    return -1;
}

static int prepare(bench *b)
{
    int32_t partitions = 0;
    int rc = cli_connect(b->c, &b->bus);
    if (rc == CLI_OK) rc = cli_connect(b->c, &b->reader_bus);
    if (rc != CLI_OK) return rc;
    bw_err e = bw_topic_partitions(b->bus, b->topic, &partitions);
    if (e == BW_ERR_UNKNOWN_TOPIC) {
        e = bw_topic_create(b->bus, b->topic, (int32_t)b->partition + 1, NULL, 0);
        b->made = e == BW_OK;
    }
    if (e != BW_OK) return cli_error_bw(b->c, e, "%s", b->topic);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.acks = b->acks;
    o.compression = b->codec;
    e = bw_producer_open(b->bus, &o, &b->producer);
    return e == BW_OK ? CLI_OK : cli_error_bw(b->c, e, "%s", b->topic);
}

static int run(cli *c, int argc, char **argv)
{
    bench *b = calloc(1, sizeof *b);
    if (!b) return cli_error(c, CLI_FAILURE, "out of memory");
    b->c = c;
    b->records = 1000000;
    b->record_bytes = b->batch = 100;
    b->acks = BW_ACKS_VISIBLE;
    result r = {0};
    int rc = parse(b, argc, argv);
    uint8_t *value = rc < 0 ? malloc((size_t)b->record_bytes) : NULL;
    if (value) {
        for (int64_t i = 0; i < b->record_bytes; i++) value[i] = (uint8_t)(i * 31 + 7);
        rc = prepare(b);
        if (rc == CLI_OK) rc = run_rate(b, value, &r);
        if (rc == CLI_OK) rc = run_latency(b, value, &r);
        if (rc == CLI_OK) print_result(b, &r);
    } else if (rc < 0) {
        rc = cli_error(c, CLI_FAILURE, "out of memory");
    }
    free(value);
    bw_producer_close(b->producer, 1000);
    if (b->made && !b->keep && bw_topic_delete(b->bus, b->topic) != BW_OK)
        cli_note(c, "%s was not deleted: %s", b->topic, bw_error_message());
    bw_bus_close(b->reader_bus);
    bw_bus_close(b->bus);
    free(b);
    return rc;
}

const cli_command cli_bench = {
    "bench",
    "TOPIC",
    "Measure rate and latency on this bus.",
    "A topic that is not there is made for the run and deleted afterwards; one that is there keeps the records that are written.",
    options,
    true,
    "  busway -b dir:./bus bench speed\n  busway bench speed --transport ipc --records 300000 --record-bytes 1000 --batch 10 "
    "--json\n",
    run,
};
