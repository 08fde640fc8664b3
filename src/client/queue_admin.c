/* client/queue_admin.c: queue groups as people see them: describe, peek, settle, delete; dead letters back to where they came from. */
#include "client/bus.h"

#include "format/record_batch.h"
#include "proto/json.h"

#include <busway/admin.h>
#include <busway/producer.h>
#include <busway/queue.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REDRIVE_AT_ONCE = 500, REDRIVE_WAIT_MS = 1000, REDRIVE_HEADERS = 256, SETTLE_AT_ONCE = 100000 };

static bw_err check(const bw_bus *bus, const char *group)
{
    if (!bus) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no bus");
    BW_CHECK_FORK(bus);
    if (!group) return bw_fail(BW_ERR_INVALID_GROUP_ID, "there is no group name");
    return BW_OK;
}

static bw_err ask_document(bw_bus *bus, bw_request *r, char **json)
{
    if (!json) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no place for the answer");
    *json = NULL;
    bw_reply reply;
    bw_err e = bw_bus_request(bus, r, bw_bus_request_deadline(bus), &reply);
    bw_buf text = {0};
    if (!e) e = bw_json_from_msgpack(reply.answer.doc, reply.answer.doc_len, &text);
    if (!e) e = bw_buf_append(&text, "", 1);
    bw_reply_fini(&reply);
    if (e) bw_buf_free(&text);
    else *json = (char *)text.data;
    return e;
}

bw_err bw_queue_describe(bw_bus *bus, const char *group, char **json)
{
    bw_request r;
    bw_err e = check(bus, group ? group : "");
    if (e) return e;
    bw_request_init(&r, BW_API_QUEUE_DESCRIBE);
    r.queue.group = bw_str_of(group);
    return ask_document(bus, &r, json);
}

bw_err bw_queue_peek(bw_bus *bus, const char *group, const char *topic, int32_t partition, int32_t max, char **json)
{
    bw_request r;
    bw_err e = check(bus, group);
    if (!e && !topic) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no topic name");
    if (e) return e;
    bw_request_init(&r, BW_API_QUEUE_PEEK);
    r.queue.group = bw_str_of(group);
    r.queue.topic = bw_str_of(topic);
    r.queue.partition = partition;
    if (max > 0) r.queue.max_records = (uint32_t)max;
    return ask_document(bus, &r, json);
}

bw_err bw_queue_settle(bw_bus *bus, const char *group, const char *topic, int32_t partition, int64_t first, int64_t last,
                       bw_queue_outcome outcome, int64_t *settled)
{
    bw_err e = check(bus, group);
    if (!e && !topic) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no topic name");
    if (!e && (first < 0 || last < first)) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "records %lld to %lld", (long long)first, (long long)last);
    int64_t done = 0;
    while (!e && first <= last) {
        int64_t upto = last - first < SETTLE_AT_ONCE ? last : first + SETTLE_AT_ONCE - 1;
        bw_queue_item item = {bw_str_of(topic), partition, first, upto, (int8_t)outcome, 0, 0};
        bw_request r;
        bw_request_init(&r, BW_API_QUEUE_SETTLE);
        r.queue.group = bw_str_of(group);
        r.queue.items = &item;
        r.queue.item_count = 1;
        bw_reply reply;
        e = bw_bus_request(bus, &r, bw_bus_request_deadline(bus), &reply);
        if (!e) {
            done += upto - first + 1;
            for (size_t i = 0; i < reply.answer.queue.item_count; i++) {
                const bw_queue_item *refused = &reply.answer.queue.items[i];
                done -= refused->refused;
                if (refused->error != BW_ERR_INVALID_RECORD_STATE)
                    e = bw_fail((bw_err)refused->error, "queue group %s, topic %s partition %d: %s", group, topic, partition,
                                bw_err_text((bw_err)refused->error));
            }
        }
        bw_reply_fini(&reply);
        first = upto + 1;
    }
    if (settled) *settled = done;
    return e;
}

bw_err bw_queue_delete(bw_bus *bus, const char *group)
{
    bw_err e = check(bus, group);
    if (e) return e;
    bw_request r;
    bw_request_init(&r, BW_API_QUEUE_DELETE);
    r.queue.group = bw_str_of(group);
    bw_reply reply;
    e = bw_bus_request(bus, &r, bw_bus_request_deadline(bus), &reply);
    bw_reply_fini(&reply);
    return e;
}

void bw_header_deliver_at(int64_t at_ms, uint8_t room[8], bw_header *header)
{
    bw_put_be64(room, (uint64_t)at_ms);
    *header = (bw_header){"deliver-at", 10, room, 8};
}

/* ---- redrive ---- */

typedef struct origin {
    char topic[BW_TOPIC_NAME_MAX + 1];
    int64_t partition; /* -1: not said */
    bw_header headers[REDRIVE_HEADERS];
    size_t count;
} origin;

static bool is_own(const bw_header *h, const char *name)
{
    static const char prefix[] = "__dlq.errors.";
    size_t p = sizeof prefix - 1, n = strlen(name);
    if (h->name_len < p || memcmp(h->name, prefix, p) != 0) return false;
    return !n || (h->name_len == p + n && !memcmp(h->name + p, name, n));
}

/* Where it came from, and the headers that it had there. false: it does not say, or has too many. */
static bool read_origin(const bw_record_view *v, origin *o)
{
    bw_header_iter it;
    bw_header h;
    int r;
    o->topic[0] = 0;
    o->partition = -1;
    o->count = 0;
    bw_header_iter_init(&it, v);
    while ((r = bw_header_iter_next(&it, &h)) == 1) {
        if (is_own(&h, "topic") && h.value_len && h.value_len <= BW_TOPIC_NAME_MAX) {
            memcpy(o->topic, h.value, h.value_len);
            o->topic[h.value_len] = 0;
        } else if (is_own(&h, "partition") && h.value_len && h.value_len < 11) {
            char text[12] = "";
            memcpy(text, h.value, h.value_len);
            o->partition = strtol(text, NULL, 10);
        } else if (!is_own(&h, "")) {
            if (o->count == REDRIVE_HEADERS) return false;
            o->headers[o->count++] = h;
        }
    }
    return r == 0 && o->topic[0] && o->partition >= 0 && o->partition <= INT32_MAX;
}

typedef struct redriving {
    bw_bus *bus;
    bw_queue *queue;
    bw_producer *producer;
    int64_t moved, skipped, left;
    origin origin;
} redriving;

static bw_err redrive_one(redriving *d, const bw_message *m)
{
    const bw_record_view *v = &m->record;
    if (!read_origin(v, &d->origin)) {
        d->skipped++;
        return BW_OK; /* it stays held until the end, and is released then */
    }
    bw_record r = {v->key, v->key_len, v->value, v->value_len, d->origin.headers, d->origin.count, v->timestamp_ms};
    bw_err e = bw_producer_send_sync(d->producer, d->origin.topic, (int32_t)d->origin.partition, &r, d->bus->request_timeout_ms, NULL);
    if (e) return bw_error_context(e, "dead letter %lld, from %s", (long long)v->offset, d->origin.topic);
    d->moved++;
    return bw_queue_ack(d->queue, m);
}

/* How many letters there are now that were not redriven. */
static bw_err count_letters(bw_bus *bus, const char *topic, int64_t *count)
{
    int32_t partitions;
    bw_err e = bw_topic_partitions(bus, topic, &partitions);
    *count = 0;
    for (int32_t i = 0; i < partitions && !e; i++) {
        bw_offset_range range;
        e = bw_offsets_range(bus, topic, i, &range);
        if (!e) *count += range.end - range.log_start;
    }
    return e;
}

static bw_err redrive_all(redriving *d, bw_redrive_fn progress, void *opaque)
{
    bw_message messages[64];
    size_t count;
    bw_err e = BW_OK;
    while (!e && d->left > 0) {
        e = bw_queue_poll_batch(d->queue, REDRIVE_WAIT_MS, messages, d->left < 64 ? (size_t)d->left : 64, &count);
        if (e) return e == BW_ERR_TIMED_OUT ? BW_OK : e;
        for (size_t i = 0; i < count && !e; i++) e = redrive_one(d, &messages[i]);
        d->left -= (int64_t)count;
        bw_err flushed = bw_queue_flush(d->queue, d->bus->request_timeout_ms);
        if (!e) e = flushed;
        if (!e && progress && !progress(opaque, d->moved, d->skipped)) return BW_OK;
    }
    return e;
}

bw_err bw_queue_redrive(bw_bus *bus, const char *topic, int64_t max, bw_redrive_fn progress, void *opaque, int64_t *moved, int64_t *skipped)
{
    char group[BW_TOPIC_NAME_MAX + 16];
    bw_err e = check(bus, topic);
    if (e) return e;
    redriving *d = calloc(1, sizeof *d);
    if (!d) return bw_fail(BW_ERR_NO_MEMORY, "no memory to redrive");
    d->bus = bus;
    snprintf(group, sizeof group, "redrive.%s", topic);
    e = count_letters(bus, topic, &d->left);
    if (max > 0 && d->left > max) d->left = max;
    bw_queue_options o = BW_QUEUE_OPTIONS_INIT;
    o.group = group;
    o.topics = &topic;
    o.topic_count = 1;
    o.archive = true;
    o.max_deliveries = 1000; /* a letter is never lost by being skipped often; see the header */
    o.max_records = 64;
    o.start = BW_RESET_EARLIEST;
    bw_producer_options po = BW_PRODUCER_OPTIONS_INIT;
    po.acks = BW_ACKS_DURABLE;
    if (!e) e = bw_queue_open(bus, &o, &d->queue);
    if (!e) e = bw_producer_open(bus, &po, &d->producer);
    if (!e) e = redrive_all(d, progress, opaque);
    char why[512];
    snprintf(why, sizeof why, "%s", e ? bw_error_message() : "");
    if (d->producer) (void)bw_producer_close(d->producer, bus->request_timeout_ms);
    bw_err closed = bw_queue_close(d->queue);
    if (moved) *moved = d->moved;
    if (skipped) *skipped = d->skipped;
    free(d);
    return e ? bw_error_set_message(e, why) : closed;
}
