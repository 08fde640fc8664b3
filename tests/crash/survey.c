/* tests/crash/survey.c: roles of the damage rounds.
 *   fill     records of which the first half is on the disk and the rest only visible, so that a recovery has both to judge
 *   survey   every record that can be read, whatever cannot be read passed over; then each partition must take one more
 *   poison   writers that wait for the disk, until one is told POISONED
 *   poisoned a poisoned partition after that: it takes nothing on either path, whatever the acknowledgement; what it holds is read;
 *            the other partition goes on */
#include "crash/crash.h"

#include <busway/busway.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 8, DURABLE_BATCHES = 26, VISIBLE_BATCHES = 30, CALL_MS = 20000, POINT_WRITTEN_MS = 1300, SURVEY_PRODUCER = 63 };
enum { POISON_SENDS = 60, REFUSALS = 12 };

static bw_bus *open_bus(const char *url)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.connect_timeout_ms = 5000;
    bw_bus *bus = NULL;
    bw_err e;
    int64_t until = crash_now_ms() + CALL_MS; /* the daemon may be killed and started again just now */
    while ((e = bw_bus_open(url, &o, &bus)) != BW_OK && crash_now_ms() < until && !crash_stopping()) usleep(5000);
    if (e) crash_bad("cannot open %s: %s: %s", url, bw_err_name(e), bw_error_message());
    return bus;
}

static bw_producer *open_producer(bw_bus *bus, bw_acks acks)
{
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    bw_producer *p = NULL;
    o.acks = acks;
    bw_err e = bw_producer_open(bus, &o, &p);
    if (e) crash_bad("cannot open a producer: %s: %s", bw_err_name(e), bw_error_message());
    return p;
}

static void tell(crash_kind kind, int partition, uint32_t producer, uint32_t sequence, int count, int64_t offset)
{
    crash_report(&(crash_message){.kind = (uint8_t)kind, .partition = (uint8_t)partition, .count = (uint16_t)count, .producer = producer,
                                  .sequence = sequence, .offset = offset});
}

/* Sends `count` records of the producer from `sequence` on. */
static bw_err send_some(bw_producer *p, uint32_t producer, uint32_t sequence, int partition, int count, bw_delivery *d)
{
    static uint8_t values[BATCH][8 + CRASH_FILLING_MAX];
    bw_record records[BATCH];
    for (int i = 0; i < count; i++) {
        size_t len = crash_value_make(values[i], producer, sequence + (uint32_t)i);
        records[i] = (bw_record){.value = values[i], .value_len = len, .timestamp_ms = BW_NO_TIMESTAMP};
    }
    *d = (bw_delivery){.offset = -1};
    tell(CRASH_TRY, partition, producer, sequence, count, -1);
    bw_err e = bw_producer_send_batch(p, CRASH_TOPIC, partition, records, (size_t)count, CALL_MS, d);
    if (!e) tell(CRASH_ACK, partition, producer, sequence, count, d->offset);
    return e;
}

/* ---- fill: url producer ---- */

static bool fill(bw_bus *bus, bw_acks acks, int batches, uint32_t producer, uint32_t *sequence, int64_t end[])
{
    bw_producer *p = open_producer(bus, acks);
    bool good = p != NULL;
    for (int i = 0; good && i < batches * CRASH_PARTITIONS; i++) {
        bw_delivery d;
        bw_err e = send_some(p, producer, *sequence, i % CRASH_PARTITIONS, BATCH, &d);
        good = e == BW_OK;
        if (e) crash_bad("fill: %s: %s", bw_err_name(e), bw_error_message());
        *sequence += BATCH;
        end[i % CRASH_PARTITIONS] = d.offset + BATCH;
    }
    bw_producer_close(p, CALL_MS);
    return good;
}

int crash_fill(int argc, char **argv)
{
    if (argc < 2) return 2;
    bw_bus *bus = open_bus(argv[0]);
    uint32_t producer = (uint32_t)atol(argv[1]), sequence = 0;
    int64_t durable[CRASH_PARTITIONS] = {0}, visible[CRASH_PARTITIONS];
    bool good = bus && fill(bus, BW_ACKS_DURABLE, DURABLE_BATCHES, producer, &sequence, durable);
    usleep(POINT_WRITTEN_MS * 1000); /* the recovery points are written once a second */
    good = good && fill(bus, BW_ACKS_VISIBLE, VISIBLE_BATCHES, producer, &sequence, visible);
    for (int p = 0; good && p < CRASH_PARTITIONS; p++) tell(CRASH_DONE, p, 0, 0, 0, durable[p]);
    bw_bus_close(bus);
    return 0;
}

/* ---- survey: url ---- */

static int64_t take_batch(bw_batch *batch, int partition)
{
    bw_record_view r;
    int64_t next = -1;
    while (bw_batch_next(batch, &r) == 1) {
        uint32_t producer, sequence;
        if (!crash_value_check(r.value, r.value_len, &producer, &sequence))
            crash_bad("partition %d: offset %lld holds bytes that nobody wrote", partition, (long long)r.offset);
        else
            tell(CRASH_READ, partition, producer, sequence, 1, r.offset);
        next = r.offset + 1;
    }
    return next;
}

/* Reads [from, to), passing over what cannot be read. */
static void read_through(bw_bus *bus, int partition, int64_t from, int64_t to)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.auto_offset_reset = BW_RESET_ERROR;
    bw_consumer *c;
    bw_err e = bw_consumer_open(bus, &o, &c);
    if (!e) e = bw_consumer_assign(c, CRASH_TOPIC, partition, from);
    for (int64_t next = from; !e && next < to;) {
        bw_batch batch;
        e = bw_consumer_poll(c, CALL_MS, &batch);
        if (!e) {
            int64_t behind = take_batch(&batch, partition);
            if (behind > next) {
                next = behind;
                continue;
            }
        } else if (e != BW_ERR_CORRUPT && e != BW_ERR_OFFSET_OUT_OF_RANGE) {
            break;
        }
        e = bw_consumer_seek(c, CRASH_TOPIC, partition, ++next);
    }
    if (e) crash_bad("partition %d from %lld to %lld: %s: %s", partition, (long long)from, (long long)to, bw_err_name(e), bw_error_message());
    bw_consumer_close(c);
}

static void append_one(bw_bus *bus, int partition, int64_t end)
{
    bw_producer *p = open_producer(bus, BW_ACKS_DURABLE);
    uint8_t value[8 + CRASH_FILLING_MAX];
    bw_record r = {.value = value, .value_len = crash_value_make(value, SURVEY_PRODUCER, (uint32_t)partition), .timestamp_ms = BW_NO_TIMESTAMP};
    bw_delivery d = {.offset = -1};
    bw_err e = p ? bw_producer_send_sync(p, CRASH_TOPIC, partition, &r, CALL_MS, &d) : BW_ERR_INTERNAL;
    if (e) crash_bad("partition %d takes no record: %s: %s", partition, bw_err_name(e), bw_error_message());
    else if (d.offset != end) crash_bad("partition %d ended at %lld, the next record got %lld", partition, (long long)end, (long long)d.offset);
    bw_producer_close(p, CALL_MS);
}

int crash_survey(int argc, char **argv)
{
    if (argc < 1) return 2;
    bw_bus *bus = open_bus(argv[0]);
    for (int p = 0; bus && p < CRASH_PARTITIONS; p++) {
        bw_offset_range range;
        bw_err e = bw_offsets_range(bus, CRASH_TOPIC, p, &range);
        if (e) {
            crash_bad("partition %d has no range: %s: %s", p, bw_err_name(e), bw_error_message());
            continue;
        }
        read_through(bus, p, range.log_start, range.end);
        append_one(bus, p, range.end);
        tell(CRASH_DONE, p, 0, 0, 0, range.end);
    }
    bw_bus_close(bus);
    return 0;
}

/* ---- poison: url producer ---- */

int crash_poison(int argc, char **argv)
{
    if (argc < 2) return 2;
    bw_bus *bus = open_bus(argv[0]);
    bw_producer *p = bus ? open_producer(bus, BW_ACKS_DURABLE) : NULL;
    uint32_t producer = (uint32_t)atol(argv[1]);
    for (uint32_t i = 0; p && i < POISON_SENDS && !crash_stopping(); i++) {
        bw_delivery d;
        int partition = (int)(i + producer) % CRASH_PARTITIONS;
        bw_err e = send_some(p, producer, i, partition, 1, &d);
        if (!e) continue;
        if (e == BW_ERR_POISONED) {
            tell(CRASH_POISONED, partition, 0, 0, 0, 0);
            break;
        }
        if (e == BW_ERR_TIMED_OUT && crash_stood_still()) continue;
        if (e == BW_ERR_IO && strstr(bw_error_message(), "metadata")) break; /* the sync that failed was the metadata's: refused, rightly */
        crash_bad("waiting for the disk, a sync fails: %s: %s", bw_err_name(e), bw_error_message());
        break;
    }
    bw_producer_close(p, CALL_MS);
    bw_bus_close(bus);
    tell(CRASH_DONE, CRASH_PARTITIONS, 0, 0, 0, 0);
    return 0;
}

/* ---- poisoned: ipc-url direct-url producer mask ---- */

static void check_one_path(const char *url, uint32_t producer, uint32_t *sequence, int mask)
{
    static const bw_acks all_acks[] = {BW_ACKS_VISIBLE, BW_ACKS_DURABLE};
    bw_bus *bus = open_bus(url);
    for (size_t a = 0; bus && a < 2; a++) {
        bw_producer *p = open_producer(bus, all_acks[a]);
        for (int i = 0; p && i < REFUSALS; i++) {
            int partition = i % CRASH_PARTITIONS;
            bool poisoned = mask >> partition & 1;
            bw_delivery d;
            bw_err e = send_some(p, producer, (*sequence)++, partition, 1, &d);
            if (poisoned && e != BW_ERR_POISONED)
                crash_bad("partition %d is poisoned, a send comes to %s: %s", partition, bw_err_name(e), e ? bw_error_message() : "");
            else if (!poisoned && e)
                crash_bad("partition %d is sound, a send comes to %s: %s", partition, bw_err_name(e), bw_error_message());
            else if (poisoned && !*bw_error_message())
                crash_bad("POISONED, and no word on why");
        }
        bw_producer_close(p, CALL_MS);
    }
    for (int p = 0; bus && p < CRASH_PARTITIONS; p++) {
        bw_offset_range range;
        bw_err e = bw_offsets_range(bus, CRASH_TOPIC, p, &range);
        if (e) crash_bad("partition %d has no range: %s: %s", p, bw_err_name(e), bw_error_message());
        else read_through(bus, p, range.log_start, range.end);
    }
    bw_bus_close(bus);
}

int crash_poisoned(int argc, char **argv)
{
    if (argc < 4) return 2;
    uint32_t sequence = 0;
    check_one_path(argv[0], (uint32_t)atol(argv[2]), &sequence, atoi(argv[3]));
    check_one_path(argv[1], (uint32_t)atol(argv[2]), &sequence, atoi(argv[3]));
    tell(CRASH_DONE, CRASH_PARTITIONS, 0, 0, 0, 0);
    return 0;
}
