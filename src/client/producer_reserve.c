/* client/producer_reserve.c: a record written in place.
 *
 * Direct: the partition's lock (and this producer's of the partition) is held from reserve to commit or abort, by one thread; the
 * value is written into the log, behind the tail. Through the daemon, or where the log can't be mapped: into a buffer.
 * A reservation keeps its own copy of key and headers, since the batch is completed with them after the value. */
#include "client/backend.h"
#include "client/partitioner.h"
#include "client/producer.h"

#include <stdlib.h>
#include <string.h>

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
    bw_held *h = calloc(1, sizeof *h);
    uint8_t *copy = h ? malloc(bytes + sizeof(bw_header)) : NULL;
    if (!copy) {
        free(h);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a reservation");
    }
    h->copy = copy;
    h->meta = *meta;
    h->meta.value = NULL;
    h->meta.value_len = 0;
    h->value_max = value_max;
    bw_header *headers = (bw_header *)(void *)copy; /* malloc'd: aligned */
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
    if (!compressed && !p->name && atomic_load(&h->part->direct)) {
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
    free(h->copy);
    free(h);
}

/* By this thread's seat in the partition, when that is all at hand: no lock, no memory, no clock that costs. */
static inline bool reserve_now(bw_producer *p, const char *topic, int32_t partition, const bw_record *meta, size_t value_max,
                               bw_reservation *out)
{
    bw_ptopic *t = atomic_load_explicit(&p->last, memory_order_acquire);
    if (meta && (meta->key || meta->key_len || meta->header_count)) return false;
    if (!t || strcmp(t->name, topic) != 0 || atomic_load_explicit(&t->gone, memory_order_relaxed)) return false;
    int32_t chosen = bw_producer_choose(t, partition, NULL);
    if ((uint32_t)chosen >= BW_PARTITIONS_MAX) return false;
    bw_ppart *part = atomic_load_explicit(&t->parts[chosen], memory_order_acquire);
    bw_pseat *seat = part ? bw_ppart_sit(part) : NULL;
    if (!seat) return false;
    bw_held *h = &part->quick;
    h->meta = (bw_record){.timestamp_ms = meta ? meta->timestamp_ms : BW_NO_TIMESTAMP};
    if (h->meta.timestamp_ms == BW_NO_TIMESTAMP) h->meta.timestamp_ms = bw_stamp_ms(&part->clock);
    size_t len = bw_batch_reserved_size(&h->meta, value_max);
    bool plain = part->appender && bw_ptopic_codec(t) == BW_CODEC_NONE && !atomic_load_explicit(&t->log_append_time, memory_order_relaxed);
    h->place = plain && len <= atomic_load_explicit(&part->slot->message_max, memory_order_relaxed)
                   ? bw_append_begin_now(part->appender, len, 1, &h->at)
                   : NULL;
    if (!h->place) {
        bw_bias_leave(&seat->busy);
        return false;
    }
    h->part = part;
    h->value_max = value_max;
    h->direct = true;
    h->any = partition == BW_PARTITION_ANY;
    h->seat = seat;
    part->held = h;
    *out = (bw_reservation){bw_batch_reserve_begin(h->place, &h->meta, value_max), value_max, h};
    return true; /* inside until commit or abort */
}

bw_err bw_producer_reserve(bw_producer *p, const char *topic, int32_t partition, const bw_record *meta, size_t value_max,
                           int32_t timeout_ms, bw_reservation *out)
{
    bw_err e = bw_producer_check(p, topic);
    if (e) return e;
    if (!out) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no place for the reservation");
    if (reserve_now(p, topic, partition, meta, value_max, out)) return BW_OK;
    *out = (bw_reservation){NULL, 0, NULL};
    if (p->foreign) return bw_backend_refuse("bw_producer_reserve", "there is no log to write into; use bw_producer_send");
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

/* Completes the batch in the log and makes it visible; leaves the partition. */
static size_t close_batch(bw_held *h, size_t value_len, int64_t *timestamp, bw_append_result *r)
{
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    bw_appender *a = h->part->appender;
    *timestamp = h->meta.timestamp_ms;
    if (!h->seat) {
        if (atomic_load(&h->part->topic->log_append_time)) *timestamp = o.log_append_time = bw_clock_wall_ms();
        size_t used = bw_batch_reserve_finish(h->place, &h->meta, h->value_max, value_len, &o);
        bw_append_commit(a, used, *timestamp, r);
        return used;
    }
    size_t used = bw_batch_single_finish(h->place, &h->meta, h->value_max, value_len, h->at.base_offset, h->at.leader_epoch);
    if (used == 0) {
        used = bw_batch_reserve_finish(h->place, &h->meta, h->value_max, value_len, &o);
        bw_batch_patch(h->place, h->at.base_offset, h->at.leader_epoch);
    }
    if (value_len < h->value_max) memset(h->place + used, 0, h->value_max - value_len); /* what the caller may have written there */
    bw_append_end_now(a, used, *timestamp, r);
    return used;
}

static bw_err commit_direct(bw_held *h, size_t value_len, int32_t timeout_ms, bw_delivery *out)
{
    bw_ppart *part = h->part;
    bw_producer *p = part->producer;
    bw_append_result r;
    int64_t timestamp;
    size_t used = close_batch(h, value_len, &timestamp, &r);
    bw_ppart_count(part, 1, used);
    bw_attach *wait = p->options.acks == BW_ACKS_DURABLE ? part->attach : NULL;
    if (wait) bw_attach_ref(wait);
    part->held = NULL;
    bool look = bw_bus_look_due(p->bus, timestamp);
    if (h->seat) {
        bw_bias_leave(&h->seat->busy);
    } else {
        bw_ppart_offer_seat(part);
        pthread_mutex_unlock(&part->lock);
    }
    if (look) bw_bus_look(p->bus, timestamp);
    bw_err e = wait ? bw_ppart_wait_durable(part, wait, r.end, bw_deadline_in_ms(timeout_ms)) : BW_OK;
    if (out)
        *out = (bw_delivery){e, part->partition, e || p->options.acks == BW_ACKS_NONE ? -1 : r.base_offset, timestamp, 1,
                             part->topic->name, e ? bw_error_message() : NULL};
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
    bool any = h->any, own = !h->seat; /* with a seat, h is the partition's, and another's as soon as it is left */
    bw_err e = h->direct ? commit_direct(h, value_len, timeout_ms, out)
                         : commit_buffer(h, r->value, value_len, timeout_ms, out);
    if (any) bw_sticky_next(&t->sticky, partition, atomic_load(&t->partitions));
    if (own) held_free(h);
    *r = (bw_reservation){NULL, 0, NULL};
    return e;
}

void bw_producer_abort(bw_producer *p, bw_reservation *r)
{
    if (!p || !r || !r->internal || bw_forked(&p->bus->guard)) return;
    bw_held *h = r->internal;
    if (h->seat) {
        bw_append_cancel_now(h->part->appender, bw_batch_reserved_size(&h->meta, h->value_max));
        h->part->held = NULL;
        bw_bias_leave(&h->seat->busy);
        *r = (bw_reservation){NULL, 0, NULL};
        return;
    }
    if (h->direct) {
        bw_append_abort(h->part->appender);
        h->part->held = NULL;
        pthread_mutex_unlock(&h->part->lock);
    }
    held_free(h);
    *r = (bw_reservation){NULL, 0, NULL};
}
