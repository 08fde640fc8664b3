/* tests/crash/writer.c: a writer: tells the parent what it tries, sends it, tells what became of it. Styles:
 *   batch    synchronous batches of 1 to 8 records (direct)
 *   reserve  one record written in place, most often less than reserved, sometimes aborted (direct)
 *   async    asynchronous sends with linger (direct)
 *   ipc      asynchronous sends through the socket, many in flight
 *   durable  synchronous batches through the socket, every other one waiting for the disk
 * On the direct path an error means that nothing was appended (but for a wait for the disk that ran out); through the socket an
 * outcome may stay unknown. No sequence is ever sent twice by this code: what is sent again is the library's own resending. */
#include "crash/crash.h"

#include <busway/busway.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH_MAX = 8, IN_FLIGHT = 64, OPEN_TRIES_MS = 20000, CALL_MS = 20000, DELIVERY_MS = 60000 };

typedef struct writer {
    bw_bus *bus;
    bw_producer *producer;
    bool direct;
    uint32_t id;
    uint32_t sequence;
    crash_random random;
    int outstanding;
} writer;

typedef struct sent {
    writer *owner;
    uint32_t sequence;
    uint8_t partition;
} sent;

static void tell(const writer *w, crash_kind kind, int partition, uint32_t sequence, int count, int64_t offset)
{
    crash_report(&(crash_message){.kind = (uint8_t)kind, .partition = (uint8_t)partition, .count = (uint16_t)count,
                                  .producer = w->id, .sequence = sequence, .offset = offset});
}

/* Errors that no kill explains. */
static bool never_right(bw_err e)
{
    switch (e) {
    case BW_ERR_LOCK_LOST: case BW_ERR_LOCK_HELD: case BW_ERR_INTERNAL: case BW_ERR_CORRUPT: case BW_ERR_POISONED: case BW_ERR_IO:
    case BW_ERR_OUT_OF_ORDER_SEQUENCE: case BW_ERR_INVALID_PRODUCER_EPOCH: case BW_ERR_UNKNOWN_PRODUCER_ID: case BW_ERR_PROTOCOL:
    case BW_ERR_UNKNOWN_TOPIC: case BW_ERR_UNKNOWN_PARTITION: case BW_ERR_DELETED: case BW_ERR_RECORD_TOO_LARGE: case BW_ERR_BUSY:
        return true;
    default:
        return false;
    }
}

/* What an outcome says about the log. */
static void tell_outcome(const writer *w, int partition, uint32_t sequence, int count, bw_err e, int64_t offset, const char *message)
{
    if (e == BW_OK) {
        tell(w, CRASH_ACK, partition, sequence, count, offset);
        return;
    }
    if (w->direct && e != BW_ERR_TIMED_OUT && e != BW_ERR_POISONED) tell(w, CRASH_REFUSED, partition, sequence, count, -1);
    if (never_right(e)) crash_bad("producer %u sequence %u: %s: %s", w->id, sequence, bw_err_name(e), message ? message : "");
    else fprintf(stderr, "producer %u sequence %u: %s: %s\n", w->id, sequence, bw_err_name(e), message ? message : "");
    usleep(2000);
}

static void on_delivery(void *opaque, const bw_delivery *d)
{
    sent *s = opaque;
    s->owner->outstanding--;
    tell_outcome(s->owner, s->partition, s->sequence, 1, d->error, d->offset, d->message);
    free(s);
}

static bw_err open_producer(bw_bus *bus, bool lingers, bw_acks acks, bw_producer **out)
{
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.delivery_timeout_ms = DELIVERY_MS;
    o.linger_ms = lingers ? 1 : 0;
    o.acks = acks;
    return bw_producer_open(bus, &o, out);
}

static bool open_bus(writer *w, const char *url)
{
    int64_t until = crash_now_ms() + OPEN_TRIES_MS;
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.connect_timeout_ms = 2000;
    while (!crash_stopping()) {
        bw_err e = bw_bus_open(url, &o, &w->bus);
        if (!e) return true;
        if (crash_now_ms() > until) {
            crash_bad("cannot open %s for %d ms: %s: %s", url, OPEN_TRIES_MS, bw_err_name(e), bw_error_message());
            return false;
        }
        usleep(5000);
    }
    return false;
}

static void send_batch(writer *w, bool durable)
{
    static uint8_t values[BATCH_MAX][8 + CRASH_FILLING_MAX];
    bw_record records[BATCH_MAX];
    int count = 1 + (int)crash_below(&w->random, BATCH_MAX), partition = (int)crash_below(&w->random, CRASH_PARTITIONS);
    uint32_t first = w->sequence;
    for (int i = 0; i < count; i++) {
        size_t len = crash_value_make(values[i], w->id, w->sequence++);
        records[i] = (bw_record){.value = values[i], .value_len = len, .timestamp_ms = BW_NO_TIMESTAMP};
    }
    bw_delivery d = {.offset = -1};
    tell(w, CRASH_TRY, partition, first, count, -1);
    bw_err e = bw_producer_send_batch(w->producer, CRASH_TOPIC, partition, records, (size_t)count, CALL_MS, &d);
    tell_outcome(w, partition, first, count, e, d.offset, bw_error_message());
    if (!e && durable && crash_below(&w->random, 8) == 0) {
        bw_offset_range range;
        if (bw_offsets_range(w->bus, CRASH_TOPIC, partition, &range) == BW_OK && range.durable < d.offset + count)
            crash_bad("partition %d: told that offsets to %lld are on the disk, the watermark is %lld", partition,
                      (long long)d.offset + count - 1, (long long)range.durable);
    }
}

static void send_reserved(writer *w)
{
    uint8_t value[8 + CRASH_FILLING_MAX];
    int partition = (int)crash_below(&w->random, CRASH_PARTITIONS);
    uint32_t sequence = w->sequence++;
    size_t len = crash_value_make(value, w->id, sequence);
    bw_reservation place;
    bw_delivery d = {.offset = -1};
    tell(w, CRASH_TRY, partition, sequence, 1, -1);
    bw_err e = bw_producer_reserve(w->producer, CRASH_TOPIC, partition, NULL, len + crash_below(&w->random, 2000), CALL_MS, &place);
    if (!e) {
        memset(place.value, 0xee, place.value_max);
        memcpy(place.value, value, len);
        if (crash_below(&w->random, 8) == 0) {
            bw_producer_abort(w->producer, &place);
            tell(w, CRASH_REFUSED, partition, sequence, 1, -1);
            return;
        }
        e = bw_producer_commit(w->producer, &place, len, CALL_MS, &d);
    }
    tell_outcome(w, partition, sequence, 1, e, d.offset, bw_error_message());
}

static void send_async(writer *w)
{
    uint8_t value[8 + CRASH_FILLING_MAX];
    sent *s = malloc(sizeof *s);
    if (!s) return;
    *s = (sent){w, w->sequence++, (uint8_t)crash_below(&w->random, CRASH_PARTITIONS)};
    bw_record r = {.value = value, .value_len = crash_value_make(value, w->id, s->sequence), .timestamp_ms = BW_NO_TIMESTAMP};
    tell(w, CRASH_TRY, s->partition, s->sequence, 1, -1);
    w->outstanding++;
    bw_err e = bw_producer_send(w->producer, CRASH_TOPIC, s->partition, &r, on_delivery, s, CALL_MS);
    if (e) { /* refused at once, on either path */
        tell(w, CRASH_REFUSED, s->partition, s->sequence, 1, -1);
        fprintf(stderr, "send: %s: %s\n", bw_err_name(e), bw_error_message());
        w->outstanding--;
        free(s);
        usleep(2000);
    }
    while (w->outstanding > IN_FLIGHT && !crash_stopping()) bw_producer_poll(w->producer, 20);
    bw_producer_poll(w->producer, 0);
}

static void run_style(writer *w, const char *style, bw_producer *ack_durable)
{
    bw_producer *visible = w->producer;
    bool async = strcmp(style, "async") == 0 || strcmp(style, "ipc") == 0, reserves = strcmp(style, "reserve") == 0;
    while (!crash_stopping()) {
        if (async) {
            send_async(w);
        } else if (reserves) {
            send_reserved(w);
        } else {
            bool durable = ack_durable && crash_below(&w->random, 2) == 0;
            w->producer = durable ? ack_durable : visible;
            send_batch(w, durable);
        }
        if (crash_below(&w->random, 2) == 0) usleep(crash_below(&w->random, 3000));
    }
    w->producer = visible;
}

int crash_writer(int argc, char **argv)
{
    if (argc < 4) return 2;
    const char *style = argv[1];
    writer w = {.id = (uint32_t)atol(argv[2]), .direct = strstr(argv[0], "transport=direct") != NULL};
    crash_seed(&w.random, (uint64_t)atoll(argv[3]));
    if (!open_bus(&w, argv[0])) return 0;
    bw_producer *ack_durable = NULL;
    bw_err e = open_producer(w.bus, strcmp(style, "async") == 0, BW_ACKS_VISIBLE, &w.producer);
    if (!e && strcmp(style, "durable") == 0) e = open_producer(w.bus, false, BW_ACKS_DURABLE, &ack_durable);
    if (e) {
        crash_bad("cannot open a producer: %s: %s", bw_err_name(e), bw_error_message());
        return 0;
    }
    run_style(&w, style, ack_durable);
    e = bw_producer_close(w.producer, DELIVERY_MS);
    if (e && !crash_stood_still()) crash_bad("close with everything running: %s: %s", bw_err_name(e), bw_error_message());
    if (w.outstanding != 0) crash_bad("%d sends never got their outcome", w.outstanding);
    bw_producer_close(ack_durable, DELIVERY_MS);
    bw_bus_close(w.bus);
    crash_report(&(crash_message){.kind = CRASH_DONE});
    return 0;
}
