/* client/producer_sync.c: send and know the outcome, in the calling thread.
 *
 * The hot path (send_now: direct, topic and partition known, this thread's seat in the partition, the partition's lock biased to its
 * appender, space there): encode into the partition's own builder, one append; no locked instruction, no fence, no system call.
 * Next to it send_locked, by the two locks. Everything else is in the slow functions below it. */
#include "client/producer.h"

#include "client/backend.h"
#include "client/partitioner.h"
#include "client/transaction.h"

#include <string.h>

enum { LOOK_EVERY = 256 }; /* batches */

static bw_err no_outcome(bw_delivery *out, bw_err e)
{
    if (out) {
        *out = (bw_delivery){.error = e, .partition = -1, .offset = -1, .timestamp_ms = BW_NO_TIMESTAMP,
                             .message = bw_error_message()};
    }
    return e;
}

/* Encode the records into a builder that was reset, and finish the batch. *first_ms: the timestamp of the first as stored; *now_ms:
 * the time if it was needed, else 0. clock: the caller's; NULL: it has none of its own. */
static inline bw_err encode(bw_batch_builder *b, bw_ptopic *t, bw_stamp_clock *clock, bw_codec codec, const bw_record *records,
                            size_t count, uint8_t **data, size_t *len, int64_t *first_ms, int64_t *now_ms)
{
    bool append_time = atomic_load_explicit(&t->log_append_time, memory_order_relaxed);
    int64_t now = append_time ? (clock ? bw_stamp_ms(clock) : bw_clock_wall_ms()) : 0;
    for (size_t i = 0; i < count && !now; i++)
        if (records[i].timestamp_ms == BW_NO_TIMESTAMP) now = (clock ? bw_stamp_ms(clock) : bw_clock_wall_ms());
    *now_ms = now;
    bw_err e = bw_batch_builder_add_many(b, records, count, now, BW_PLAIN_BATCH_MAX);
    if (__builtin_expect(e != BW_OK, 0)) return e;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    o.codec = codec;
    if (append_time) o.log_append_time = now;
    *first_ms = append_time || records[0].timestamp_ms == BW_NO_TIMESTAMP ? now : records[0].timestamp_ms;
    return bw_batch_builder_finish(b, &o, data, len);
}

static bw_err too_large(const bw_ptopic *t, size_t len, uint32_t most)
{
    return bw_fail(BW_ERR_RECORD_TOO_LARGE, "topic %s: a batch of %zu bytes; max.message.bytes is %u", t->name, len, most);
}

void bw_direct_ask_durable(bw_attach *a, int32_t partition, bw_position end)
{
    bw_tail_slot *s = &a->control->slots[partition];
    bw_position_raise(&s->sync_request, end);
    bw_notify(a->control->mail, BW_MAILBOX_SYNCER, atomic_load_explicit(&s->bus_number, memory_order_relaxed));
}

/* Holds nothing of the partition while it waits, and brings the daemon back. */
static bw_err wait_durable(bw_bus *bus, bw_attach *a, int32_t partition, bw_position end, bw_deadline deadline)
{
    bw_tail_slot *s = &a->control->slots[partition];
    for (;;) {
        bw_direct_ask_durable(a, partition, end);
        bool came = bw_slot_wait(s, bw_slot_is_settled, end,
                                 bw_deadline_first(deadline, bw_deadline_in_ms(BW_APPEND_SLICE_MS)));
        if (atomic_load_explicit(&s->durable, memory_order_acquire) >= end) return BW_OK;
        if (came)
            return bw_fail(BW_ERR_POISONED, "topic %s partition %d: the record is visible, but it did not reach the disk", a->topic,
                           partition);
        if (bw_deadline_left_ns(deadline) == 0)
            return bw_fail(BW_ERR_TIMED_OUT, "topic %s partition %d: the record is visible but not yet known to be on the disk",
                           a->topic, partition);
        if (!bw_conn_check(&bus->conn)) bw_bus_connect(bus, true, deadline);
    }
}

bw_err bw_ppart_wait_durable(bw_ppart *part, bw_attach *a, bw_position end, bw_deadline deadline)
{
    bw_bus *bus = part->producer->bus;
    bw_err e = wait_durable(bus, a, part->partition, end, deadline);
    bw_direct_release(bus, a);
    return e;
}

/* What an append came to, and what is still to be done for it when the partition is left. */
typedef struct appended {
    bw_append_result r;
    int64_t first_ms, now_ms;
    bw_attach *wait; /* durable: a reference */
    bool look;       /* at the daemon: a new one must learn of its writers, and whoever never needs it looks now and then */
} appended;

/* Inside the partition, after an append. */
static inline void note_append(bw_ppart *part, int32_t count, size_t len, appended *out)
{
    bw_ppart_count(part, count, len);
    out->look = atomic_load_explicit(&part->sent_batches, memory_order_relaxed) % LOOK_EVERY == 0 ||
                bw_bus_look_due(part->producer->bus, out->now_ms);
    out->wait = NULL;
    if (__builtin_expect(part->producer->options.acks == BW_ACKS_DURABLE, 0)) bw_attach_ref(out->wait = part->attach);
}

/* Outside of it again. deadline NULL: of timeout_ms from now. */
static inline bw_err finish_direct(bw_ppart *part, const appended *a, int32_t count, const bw_deadline *deadline, int32_t timeout_ms,
                                   bw_delivery *out)
{
    bw_producer *p = part->producer;
    if (__builtin_expect(a->look, 0)) {
        int64_t now = bw_clock_wall_ms();
        if (bw_bus_look_due(p->bus, now)) bw_bus_look(p->bus, now);
    }
    if (__builtin_expect(a->wait != NULL, 0)) {
        bw_err e = bw_ppart_wait_durable(part, a->wait, a->r.end, deadline ? *deadline : bw_deadline_in_ms(timeout_ms));
        if (e) return no_outcome(out, e);
    }
    if (out)
        *out = (bw_delivery){BW_OK, part->partition, p->options.acks == BW_ACKS_NONE ? -1 : a->r.base_offset, a->first_ms, count,
                             part->topic->name, NULL};
    return BW_OK;
}

/* Through the daemon. */
static bw_err send_ipc(bw_ppart *part, const bw_record *records, size_t count, bw_deadline deadline, bw_delivery *out)
{
    bw_producer *p = part->producer;
    bw_pbatch *b = bw_pbatch_get(p, part);
    if (!b) return no_outcome(out, BW_ERR_NO_MEMORY);
    int64_t first_ms = 0, now_ms;
    bw_batch_builder_reset(&b->builder);
    bw_err e = encode(&b->builder, part->topic, NULL, bw_ptopic_codec(part->topic), records, count, &b->data, &b->len, &first_ms, &now_ms);
    uint32_t most = atomic_load_explicit(&part->topic->message_max, memory_order_relaxed);
    if (!e && b->len > most) {
        e = bw_ptopic_refresh(part->topic, false, deadline); /* it may have been raised */
        most = atomic_load_explicit(&part->topic->message_max, memory_order_relaxed);
        if (e || b->len > most) e = too_large(part->topic, b->len, most);
    }
    if (e) {
        bw_pbatch_put(p, b);
        return no_outcome(out, e);
    }
    b->count = (int32_t)count;
    b->max_timestamp = b->builder.max_timestamp;
    b->timestamp_ms = first_ms;
    bw_delivery d = {.partition = part->partition, .offset = -1, .timestamp_ms = first_ms};
    e = bw_ppart_send_wait(part, b, deadline, &d);
    d.error = e;
    d.message = e ? bw_error_message() : NULL;
    if (out) *out = d;
    return e;
}

/* why: what the first attempt came to; OK: there was none. */
static bw_err send_slow(bw_ppart *part, const bw_record *records, size_t count, int32_t timeout_ms, bw_err why, bw_delivery *out)
{
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    if (!atomic_load(&part->direct) && bw_ppart_may_turn_back(part)) bw_ppart_turn_back(part);
    if (atomic_load_explicit(&part->direct, memory_order_acquire)) {
        bw_err e = bw_ppart_lock(part, deadline);
        if (e) return no_outcome(out, e);
        uint8_t *data = NULL;
        size_t len = 0;
        appended done = {.first_ms = 0};
        if (why == BW_ERR_FENCED || why == BW_ERR_RETIRED || why == BW_ERR_DELETED) { /* first see how to encode now */
            e = bw_ppart_retry(part, why, deadline);
            if (e == BW_ERR_UNSUPPORTED) e = BW_OK; /* it turned to the socket */
        }
        if (!e && atomic_load_explicit(&part->direct, memory_order_acquire)) {
            bw_batch_builder_reset(&part->builder);
            e = encode(&part->builder, part->topic, &part->clock, bw_ptopic_codec(part->topic), records, count, &data, &len,
                       &done.first_ms, &done.now_ms);
            uint32_t most = e ? 0 : atomic_load_explicit(&part->slot->message_max, memory_order_relaxed);
            if (!e && len > most) e = too_large(part->topic, len, most);
            if (!e) bw_ppart_stamp(part, data, len);
            if (!e) e = bw_ppart_append(part, data, len, (int32_t)count, part->builder.max_timestamp, deadline, &done.r);
            if (!e) {
                bw_ppart_stamped(part, (int32_t)count);
                note_append(part, (int32_t)count, len, &done);
                pthread_mutex_unlock(&part->lock);
                return finish_direct(part, &done, (int32_t)count, &deadline, timeout_ms, out);
            }
        }
        bool turned = !atomic_load(&part->direct) && (!e || e == BW_ERR_UNSUPPORTED);
        pthread_mutex_unlock(&part->lock);
        if (!turned) return no_outcome(out, e);
    }
    return send_ipc(part, records, count, deadline, out);
}

/* Inside the partition: one attempt to encode and append. */
static bw_err append_once(bw_ppart *part, const bw_record *records, size_t count, bool seated, bw_codec codec, appended *out)
{
    uint8_t *data;
    size_t len;
    out->first_ms = 0;
    bw_batch_builder_reset(&part->builder);
    bw_err e = encode(&part->builder, part->topic, &part->clock, codec, records, count, &data, &len, &out->first_ms, &out->now_ms);
    if (e) return e;
    if (len > atomic_load_explicit(&part->slot->message_max, memory_order_relaxed)) return BW_ERR_RECORD_TOO_LARGE;
    int64_t newest = part->builder.max_timestamp;
    bw_ppart_stamp(part, data, len);
    if (seated && !bw_append_now(part->appender, data, len, (int32_t)count, newest, &out->r)) return BW_ERR_BUSY;
    if (!seated && (e = bw_append(part->appender, data, len, (int32_t)count, newest, 0, &out->r)) != BW_OK) return e;
    bw_ppart_stamped(part, (int32_t)count);
    note_append(part, (int32_t)count, len, out);
    return BW_OK;
}

/* The same, encoded in the log itself, behind its tail. */
static inline bw_err append_in_place(bw_ppart *part, const bw_record *records, size_t count, appended *out)
{
    bw_append_place at;
    uint32_t most = atomic_load_explicit(&part->slot->message_max, memory_order_relaxed);
    uint8_t *place = bw_append_begin_now(part->appender, BW_BATCH_HEADER_BYTES, (int32_t)count, &at), *data;
    if (__builtin_expect(!place, 0)) return BW_ERR_BUSY;
    if (at.room > most) at.room = most;
    bw_batch_builder *b = &part->in_place;
    size_t len;
    bw_batch_builder_place(b, place, at.room);
    bw_err e = encode(b, part->topic, &part->clock, BW_CODEC_NONE, records, count, &data, &len, &out->first_ms, &out->now_ms);
    if (__builtin_expect(e != BW_OK, 0)) { /* often: the pages that are there are used up */
        bw_append_cancel_now(part->appender, b->buf.len);
        return e;
    }
    bw_batch_patch(place, at.base_offset, at.leader_epoch);
    bw_append_end_now(part->appender, len, b->max_timestamp, &out->r);
    note_append(part, (int32_t)count, len, out);
    return BW_OK;
}

/* The same for a single record of the common shape. */
static inline bw_err append_single(bw_ppart *part, const bw_record *r, size_t size, appended *out)
{
    bw_append_place at;
    if (__builtin_expect(size > atomic_load_explicit(&part->slot->message_max, memory_order_relaxed), 0)) return BW_ERR_RECORD_TOO_LARGE;
    out->now_ms = r->timestamp_ms == BW_NO_TIMESTAMP ? bw_stamp_ms(&part->clock) : 0;
    out->first_ms = out->now_ms ? out->now_ms : r->timestamp_ms;
    if (__builtin_expect(out->first_ms < 0, 0)) return BW_ERR_INVALID_ARGUMENT;
    uint8_t *place = bw_append_begin_now(part->appender, size, 1, &at);
    if (__builtin_expect(!place, 0)) return BW_ERR_BUSY;
    size_t len = bw_batch_single_write(place, r, out->first_ms, at.base_offset, at.leader_epoch);
    bw_append_end_now(part->appender, len, out->first_ms, &out->r);
    note_append(part, 1, len, out);
    return BW_OK;
}

static inline bw_err append_seated(bw_ppart *part, const bw_record *records, size_t count, appended *out)
{
    bw_codec codec = bw_ptopic_codec(part->topic);
    if (__builtin_expect(codec != BW_CODEC_NONE, 0)) return append_once(part, records, count, true, codec, out);
    bool append_time = atomic_load_explicit(&part->topic->log_append_time, memory_order_relaxed);
    size_t single = count == 1 && !append_time ? bw_batch_single_size(records) : 0;
    return single ? append_single(part, records, single, out) : append_in_place(part, records, count, out);
}

/* false: not possible this way now; nothing was done. */
static inline bool send_now(bw_ppart *part, const bw_record *records, size_t count, appended *out)
{
    bw_pseat *seat = bw_ppart_sit(part);
    if (__builtin_expect(!seat, 0)) return false;
    bw_err e = BW_ERR_BUSY;
    if (__builtin_expect(part->appender != NULL && part->held == NULL, 1)) e = append_seated(part, records, count, out);
    bw_bias_leave(&seat->busy);
    return e == BW_OK;
}

static bw_err send_locked(bw_ppart *part, const bw_record *records, size_t count, int32_t timeout_ms, bw_delivery *out)
{
    if (!atomic_load_explicit(&part->direct, memory_order_acquire) || bw_ppart_lock(part, 0) != BW_OK)
        return send_slow(part, records, count, timeout_ms, BW_OK, out);
    appended done;
    bw_err e = BW_ERR_UNSUPPORTED;
    if (part->appender && !part->held) e = append_once(part, records, count, false, bw_ptopic_codec(part->topic), &done);
    if (!e) bw_ppart_offer_seat(part);
    pthread_mutex_unlock(&part->lock);
    if (e) return send_slow(part, records, count, timeout_ms, e, out);
    return finish_direct(part, &done, (int32_t)count, NULL, timeout_ms, out);
}

static inline bw_err send_batch(bw_ppart *part, const bw_record *records, size_t count, int32_t timeout_ms, bw_delivery *out)
{
    appended done;
    if (__builtin_expect(send_now(part, records, count, &done), 1))
        return finish_direct(part, &done, (int32_t)count, NULL, timeout_ms, out);
    return send_locked(part, records, count, timeout_ms, out);
}

bw_err bw_producer_check(bw_producer *p, const char *topic)
{
    if (!p) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no producer");
    if (bw_forked(&p->bus->guard)) return bw_bus_forked();
    if (atomic_load_explicit(&p->closed, memory_order_relaxed)) return bw_fail(BW_ERR_CLOSED, "the producer is closed");
    if (!topic) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no topic name");
    return __builtin_expect(p->txn != NULL, 0) ? bw_ptxn_check_send(p->txn) : BW_OK;
}

int32_t bw_producer_choose(bw_ptopic *t, int32_t partition, const bw_record *record)
{
    if (partition != BW_PARTITION_ANY) return partition;
    int32_t n = atomic_load_explicit(&t->partitions, memory_order_relaxed);
    if (record && record->key) return bw_partition_for_key(record->key, record->key_len, n);
    return bw_sticky_get(&t->sticky, n);
}

static bw_err check_records(const bw_record *records, size_t count, int32_t partition)
{
    if (!records || count == 0 || count > INT32_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a batch has 1 to %d records, not %zu", INT32_MAX, count);
    if (count > 1 && partition == BW_PARTITION_ANY)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a batch of several records needs a partition");
    return BW_OK;
}

bw_err bw_producer_send_batch(bw_producer *p, const char *topic, int32_t partition, const bw_record *records, size_t count,
                              int32_t timeout_ms, bw_delivery *out)
{
    bw_err e = bw_producer_check(p, topic);
    if (!e) e = check_records(records, count, partition);
    if (__builtin_expect(e != BW_OK, 0)) return no_outcome(out, e);
    bw_ptopic *t = atomic_load_explicit(&p->last, memory_order_acquire);
    if (__builtin_expect(!t || strcmp(t->name, topic) != 0 || atomic_load_explicit(&t->gone, memory_order_relaxed), 0)) {
        if (p->foreign) return p->bus->backend->send_batch(p, topic, partition, records, count, timeout_ms, out);
        e = bw_producer_topic(p, topic, bw_deadline_in_ms(timeout_ms), &t);
        if (e) return no_outcome(out, e);
    }
    int32_t chosen = bw_producer_choose(t, partition, records);
    bw_ppart *part = NULL;
    if (__builtin_expect((uint32_t)chosen < BW_PARTITIONS_MAX, 1)) part = atomic_load_explicit(&t->parts[chosen], memory_order_acquire);
    if (__builtin_expect(!part, 0)) {
        e = bw_ptopic_part(t, chosen, bw_deadline_in_ms(timeout_ms), &part);
        if (e) return no_outcome(out, e);
    }
    e = send_batch(part, records, count, timeout_ms, out);
    if (partition == BW_PARTITION_ANY && !records[0].key)
        bw_sticky_next(&t->sticky, chosen, atomic_load_explicit(&t->partitions, memory_order_relaxed));
    if (e == BW_ERR_UNKNOWN_TOPIC) atomic_store(&t->gone, true); /* through the daemon: it was deleted; the next send asks anew */
    return e;
}

bw_err bw_producer_send_sync(bw_producer *p, const char *topic, int32_t partition, const bw_record *record, int32_t timeout_ms,
                             bw_delivery *out)
{
    return bw_producer_send_batch(p, topic, partition, record, 1, timeout_ms, out);
}
