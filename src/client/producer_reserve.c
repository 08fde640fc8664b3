/* client/producer_reserve.c: a record written in place.
 *
 * Direct: the partition's lock (and this producer's of the partition) is held from reserve to commit or abort, by one thread; the
 * value is written into the log, behind the tail. Through the daemon, or where the log can't be mapped: into a buffer.
 * A reservation keeps its own copy of key and headers, since the batch is completed with them after the value. */
#include "client/partitioner.h"
#include "client/producer.h"

#include <stdlib.h>
#include <string.h>

typedef struct bw_held {
    bw_ppart *part;
    bw_record meta; /* leads into `copy` */
    size_t value_max;
    bool direct;
    bool any; /* the partition was chosen by stickiness */
    uint8_t *place; /* of the batch */
    uint8_t *buffer; /* when not direct; malloc'd */
    int64_t timestamp_ms;
    uint8_t copy[];
} bw_held;

static uint8_t *keep(uint8_t **at, const void *data, size_t len)
{
    if (!data) return NULL;
    uint8_t *p = *at;
    if (len) memcpy(p, data, len);
    *at += len;
    return p;
}

/* A copy of key and headers in one piece of memory. */
static bw_err hold(const bw_record *meta, size_t value_max, bw_held **out)
{
    bw_record none = {.timestamp_ms = BW_NO_TIMESTAMP};
    if (!meta) meta = &none;
    size_t bytes = meta->header_count * sizeof(bw_header) + meta->key_len;
    for (size_t i = 0; i < meta->header_count; i++) bytes += meta->headers[i].name_len + meta->headers[i].value_len;
    bw_held *h = calloc(1, sizeof *h + bytes + sizeof(bw_header));
    if (!h) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a reservation");
    h->meta = *meta;
    h->meta.value = NULL;
    h->meta.value_len = 0;
    h->value_max = value_max;
    bw_header *headers = (bw_header *)(void *)(h->copy + (-(uintptr_t)h->copy & (sizeof(void *) - 1)));
    uint8_t *at = (uint8_t *)(headers + meta->header_count);
    h->meta.key = keep(&at, meta->key, meta->key_len);
    h->meta.headers = headers;
    for (size_t i = 0; i < meta->header_count; i++) {
        headers[i] = meta->headers[i];
        headers[i].name = (const char *)keep(&at, meta->headers[i].name, meta->headers[i].name_len);
        headers[i].value = keep(&at, meta->headers[i].value, meta->headers[i].value_len);
    }
    if (h->meta.timestamp_ms == BW_NO_TIMESTAMP) h->meta.timestamp_ms = bw_clock_wall_ms();
    *out = h;
    return BW_OK;
}

static bw_err reserve_direct(bw_held *h, size_t len, bw_deadline deadline, bool *done)
{
    bw_ppart *part = h->part;
    *done = false;
    bw_err e = bw_ppart_lock(part, deadline);
    if (e) return e;
    while (!e && atomic_load(&part->direct)) {
        if (len > atomic_load_explicit(&part->slot->message_max, memory_order_relaxed)) {
            e = bw_fail(BW_ERR_RECORD_TOO_LARGE, "topic %s: a reservation of %zu bytes; max.message.bytes is %u", part->topic->name,
                        len, atomic_load(&part->slot->message_max));
            break;
        }
        bw_deadline slice = bw_deadline_first(deadline, bw_deadline_in_ms(BW_APPEND_SLICE_MS));
        e = bw_append_reserve(part->appender, len, 1, slice, &h->place);
        if (e == BW_OK) {
            h->direct = *done = true;
            part->held = h;
            return BW_OK; /* part->lock stays held */
        }
        if (e == BW_ERR_UNSUPPORTED) { /* it can't be mapped: a buffer */
            e = BW_OK;
            break;
        }
        e = bw_ppart_retry(part, e, deadline);
        if (e == BW_ERR_UNSUPPORTED) e = BW_OK;
    }
    pthread_mutex_unlock(&part->lock);
    return e;
}

static bw_err reserve(bw_producer *p, const char *topic, int32_t partition, bw_held *h, bw_deadline deadline)
{
    bw_ptopic *t;
    bw_err e = bw_producer_topic(p, topic, deadline, &t);
    if (e) return e;
    int32_t chosen = bw_producer_choose(t, partition, &h->meta);
    h->any = partition == BW_PARTITION_ANY && !h->meta.key;
    e = bw_ptopic_part(t, chosen, deadline, &h->part);
    if (e) return e;
    size_t len = bw_batch_reserved_size(&h->meta, h->value_max);
    if (len == SIZE_MAX) return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a reservation of %zu bytes with this key and headers", h->value_max);
    bool compressed = bw_ptopic_codec(t) != BW_CODEC_NONE; /* can't be done in place */
    if (!compressed && atomic_load(&h->part->direct)) {
        bool done;
        e = reserve_direct(h, len, deadline, &done);
        if (e || done) return e;
    }
    uint32_t most = atomic_load(&t->message_max);
    if (!compressed && len > most)
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "topic %s: a reservation of %zu bytes; max.message.bytes is %u", t->name, len, most);
    h->buffer = malloc(len);
    if (!h->buffer) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a reservation of %zu bytes", len);
    h->place = h->buffer;
    return BW_OK;
}

static void held_free(bw_held *h)
{
    free(h->buffer);
    free(h);
}

bw_err bw_producer_reserve(bw_producer *p, const char *topic, int32_t partition, const bw_record *meta, size_t value_max,
                           int32_t timeout_ms, bw_reservation *out)
{
    bw_err e = bw_producer_check(p, topic);
    if (e) return e;
    if (!out) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no place for the reservation");
    *out = (bw_reservation){NULL, 0, NULL};
    bw_held *h = NULL;
    e = hold(meta, value_max, &h);
    if (!e) {
        e = reserve(p, topic, partition, h, bw_deadline_in_ms(timeout_ms));
        if (e) held_free(h);
    }
    if (e) return e;
    out->value = bw_batch_reserve_begin(h->place, &h->meta, value_max);
    out->value_max = value_max;
    out->internal = h;
    return BW_OK;
}

static void fill(bw_delivery *out, const bw_held *h, bw_err e, int64_t offset, int64_t timestamp_ms)
{
    if (!out) return;
    *out = (bw_delivery){e, h->part->partition, e ? -1 : offset, timestamp_ms, 1, h->part->topic->name, e ? bw_error_message() : NULL};
}

static bw_err commit_direct(bw_held *h, size_t value_len, bw_deadline deadline, bw_delivery *out)
{
    bw_ppart *part = h->part;
    bw_producer *p = part->producer;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    if (atomic_load(&part->topic->log_append_time)) o.log_append_time = bw_clock_wall_ms();
    int64_t timestamp = o.log_append_time != BW_NO_TIMESTAMP ? o.log_append_time : h->meta.timestamp_ms;
    size_t used = bw_batch_reserve_finish(h->place, &h->meta, h->value_max, value_len, &o);
    bw_append_result r;
    bw_append_commit(part->appender, used, timestamp, &r);
    part->held = NULL;
    bw_ppart_count(part, 1, used);
    bw_attach *wait = p->options.acks == BW_ACKS_DURABLE ? part->attach : NULL;
    if (wait) bw_attach_ref(wait);
    pthread_mutex_unlock(&part->lock);
    bw_err e = wait ? bw_ppart_wait_durable(part, wait, r.end, deadline) : BW_OK;
    fill(out, h, e, p->options.acks == BW_ACKS_NONE ? -1 : r.base_offset, timestamp);
    return e;
}

/* The value is in a buffer: an ordinary synchronous send of it. */
static bw_err commit_buffer(bw_held *h, const uint8_t *value, size_t value_len, int32_t timeout_ms, bw_delivery *out)
{
    bw_record record = h->meta;
    record.value = value_len ? value : (const uint8_t *)"";
    record.value_len = value_len;
    return bw_producer_send_batch(h->part->producer, h->part->topic->name, h->part->partition, &record, 1, timeout_ms, out);
}

bw_err bw_producer_commit(bw_producer *p, bw_reservation *r, size_t value_len, int32_t timeout_ms, bw_delivery *out)
{
    if (!p || !r || !r->internal) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no reservation to commit");
    BW_CHECK_FORK(p->bus);
    bw_held *h = r->internal;
    if (value_len > h->value_max)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a value of %zu bytes was reserved, %zu are to be committed", h->value_max, value_len);
    bw_ptopic *t = h->part->topic;
    int32_t partition = h->part->partition;
    bw_err e = h->direct ? commit_direct(h, value_len, bw_deadline_in_ms(timeout_ms), out)
                         : commit_buffer(h, r->value, value_len, timeout_ms, out);
    if (h->any) bw_sticky_next(&t->sticky, partition, atomic_load(&t->partitions));
    held_free(h);
    *r = (bw_reservation){NULL, 0, NULL};
    return e;
}

void bw_producer_abort(bw_producer *p, bw_reservation *r)
{
    if (!p || !r || !r->internal || bw_forked(&p->bus->guard)) return;
    bw_held *h = r->internal;
    if (h->direct) {
        bw_append_abort(h->part->appender);
        h->part->held = NULL;
        pthread_mutex_unlock(&h->part->lock);
    }
    held_free(h);
    *r = (bw_reservation){NULL, 0, NULL};
}
