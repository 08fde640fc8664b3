/* tests/crash/reader.c: a reader: tells the parent every record that it is given, and checks that it never is past its watermark
 * (which only moves forward, so that looking at it afterwards is enough). */
#include "crash/crash.h"

#include <busway/busway.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OPEN_TRIES_MS = 20000, BUFFERED = 128, QUIET_MS = 20000 };

static crash_message buffered[BUFFERED];
static size_t buffered_count;

static void flush_reads(void)
{
    const char *at = (const char *)buffered;
    size_t left = buffered_count * sizeof *buffered;
    while (left > 0) { /* 128 messages are less than PIPE_BUF: one whole write */
        ssize_t n = write(CRASH_PIPE_FD, at, left);
        if (n < 0 && errno != EINTR) _exit(0);
        if (n > 0) {
            at += n;
            left -= (size_t)n;
        }
    }
    buffered_count = 0;
}

static void tell_read(int partition, int64_t offset, uint32_t producer, uint32_t sequence)
{
    buffered[buffered_count++] = (crash_message){.kind = CRASH_READ, .partition = (uint8_t)partition, .count = 1,
                                                 .producer = producer, .sequence = sequence, .offset = offset};
    if (buffered_count == BUFFERED) flush_reads();
}

static bw_err open_all(const char *url, bw_read_limit limit, const int64_t start[], bw_bus **bus, bw_consumer **consumer)
{
    bw_bus_options bo = BW_BUS_OPTIONS_INIT;
    bw_consumer_options co = BW_CONSUMER_OPTIONS_INIT;
    bo.connect_timeout_ms = 2000;
    co.read_limit = limit;
    *bus = NULL;
    *consumer = NULL;
    bw_err e = bw_bus_open(url, &bo, bus);
    if (!e) e = bw_consumer_open(*bus, &co, consumer);
    for (int p = 0; !e && p < CRASH_PARTITIONS; p++) e = bw_consumer_assign(*consumer, CRASH_TOPIC, p, start[p]);
    if (!e) return BW_OK;
    bw_consumer_close(*consumer);
    bw_bus_close(*bus);
    return e;
}

static void check_watermark(bw_bus *bus, bw_read_limit limit, int partition, int64_t next)
{
    bw_offset_range range;
    if (bw_offsets_range(bus, CRASH_TOPIC, partition, &range) != BW_OK) return; /* the daemon is away */
    int64_t mark = limit == BW_READ_DURABLE ? range.durable : range.end;
    if (mark < next)
        crash_bad("partition %d: was given offset %lld, the %s watermark is %lld", partition, (long long)next - 1,
                  limit == BW_READ_DURABLE ? "durable" : "visible", (long long)mark);
}

static void take_batch(bw_batch *batch, int64_t next[])
{
    bw_record_view r;
    int got;
    while ((got = bw_batch_next(batch, &r)) == 1) {
        uint32_t producer, sequence;
        if (r.offset != next[batch->partition])
            crash_bad("partition %d: offset %lld where %lld was next", batch->partition, (long long)r.offset,
                      (long long)next[batch->partition]);
        next[batch->partition] = r.offset + 1;
        if (!crash_value_check(r.value, r.value_len, &producer, &sequence))
            crash_bad("partition %d: offset %lld holds bytes that nobody wrote", batch->partition, (long long)r.offset);
        else
            tell_read(batch->partition, r.offset, producer, sequence);
    }
    if (got < 0) crash_bad("partition %d: batch at %lld cannot be decoded", batch->partition, (long long)batch->base_offset);
}

static bool at_end(bw_bus *bus, const int64_t next[])
{
    for (int p = 0; p < CRASH_PARTITIONS; p++) {
        bw_offset_range range;
        if (bw_offsets_range(bus, CRASH_TOPIC, p, &range) != BW_OK || range.end != next[p]) return false;
    }
    return true;
}

/* A poll that gave no batch. false: stop. */
static bool take_error(bw_err e)
{
    static bw_err shown;
    if (e == BW_ERR_TIMED_OUT) return true;
    if (e != shown) fprintf(stderr, "poll: %s: %s\n", bw_err_name(e), bw_error_message());
    shown = e;
    if (e == BW_ERR_NOT_CONNECTED || e == BW_ERR_NO_COORDINATOR || e == BW_ERR_RETIRED) { /* the daemon was killed */
        usleep(5000);
        return true;
    }
    crash_bad("poll: %s: %s", bw_err_name(e), bw_error_message());
    return false;
}

int crash_reader(int argc, char **argv)
{
    if (argc < 4) return 2;
    bw_read_limit limit = strcmp(argv[1], "durable") == 0 ? BW_READ_DURABLE : BW_READ_VISIBLE;
    int64_t next[CRASH_PARTITIONS] = {0}, until = crash_now_ms() + OPEN_TRIES_MS;
    const char *text = argv[2];
    for (int p = 0; p < CRASH_PARTITIONS && text; p++, text = strchr(text, ',')) next[p] = atoll(*text == ',' ? ++text : text);
    bool to_end = argv[3][0] == '1';
    bw_bus *bus;
    bw_consumer *consumer;
    bw_err e;
    while ((e = open_all(argv[0], limit, next, &bus, &consumer)) != BW_OK) {
        if (crash_stopping()) return 0;
        if (crash_now_ms() > until) {
            crash_bad("cannot open %s: %s: %s", argv[0], bw_err_name(e), bw_error_message());
            return 0;
        }
        usleep(5000);
    }
    crash_random random;
    crash_seed(&random, (uint64_t)getpid());
    int64_t last_ms = crash_now_ms();
    while (!crash_stopping()) {
        bw_batch batch;
        e = bw_consumer_poll(consumer, 50, &batch);
        if (e == BW_OK) {
            take_batch(&batch, next);
            last_ms = crash_now_ms();
            if (crash_below(&random, 64) == 0) check_watermark(bus, limit, batch.partition, next[batch.partition]);
            continue;
        }
        flush_reads();
        if (!take_error(e)) break;
        if (to_end && at_end(bus, next)) break;
        if (to_end && crash_now_ms() - last_ms > QUIET_MS) {
            crash_bad("nothing more comes, and the end is not reached: next %lld and %lld", (long long)next[0], (long long)next[1]);
            break;
        }
    }
    flush_reads();
    for (int p = 0; p < CRASH_PARTITIONS; p++)
        crash_report(&(crash_message){.kind = CRASH_DONE, .partition = (uint8_t)p, .offset = next[p]});
    bw_consumer_close(consumer);
    bw_bus_close(bus);
    return 0;
}
