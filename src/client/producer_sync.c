/* client/producer_sync.c: send and know the outcome, in the calling thread.
 *
 * The hot path (direct, topic and partition known, lock free, space there): encode into the partition's own builder, one append.
 * It takes a clock once, and only when a timestamp is missing. Everything else is in the slow functions below it. */
#include "client/producer.h"

#include "client/partitioner.h"

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

/* Encode the records into a builder and finish the batch. target: where it will be copied, or NULL. *first_ms: the timestamp of the
 * first as stored. */
static inline bw_err encode(bw_batch_builder *b, const uint8_t *target, bw_ptopic *t, const bw_record *records, size_t count,
                            uint8_t **data, size_t *len, int64_t *first_ms)
{
    bool append_time = atomic_load_explicit(&t->log_append_time, memory_order_relaxed);
    int64_t now = append_time ? bw_clock_wall_ms() : 0;
    for (size_t i = 0; i < count && !now; i++)
        if (records[i].timestamp_ms == BW_NO_TIMESTAMP) now = bw_clock_wall_ms();
    if (now && bw_bus_look_due(t->producer->bus, now)) bw_bus_look(t->producer->bus, now);
    bw_batch_builder_reset(b);
    b->target = target;
    bw_err e = bw_batch_builder_add_many(b, records, count, now, BW_PLAIN_BATCH_MAX);
    if (__builtin_expect(e != BW_OK, 0)) return e;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    o.codec = bw_ptopic_codec(t);
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

/* As bw_append_wait_durable, but holding nothing of the partition while it waits, and bringing the daemon back. */
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

bw_err bw_ppart_wait_durable(bw_ppart *part, bw_position end, bw_deadline deadline)
{
    bw_bus *bus = part->producer->bus;
    bw_attach *a = part->attach;
    bw_attach_ref(a);
    pthread_mutex_unlock(&part->lock);
    bw_err e = wait_durable(bus, a, part->partition, end, deadline);
    bw_direct_release(bus, a);
    return e;
}

/* A new daemon must learn of its writers: whoever never needs it looks now and then (encode does, when it takes the clock). */
static void look_at_daemon(bw_bus *bus)
{
    int64_t now = bw_clock_wall_ms();
    if (bw_bus_look_due(bus, now)) bw_bus_look(bus, now);
}

/* After an append under part->lock, which is released here. */
static bw_err finish_direct(bw_ppart *part, const bw_append_result *r, int32_t count, size_t len, int64_t first_ms,
                            bw_deadline deadline, bool have_deadline, int32_t timeout_ms, bw_delivery *out)
{
    bw_producer *p = part->producer;
    bw_err e = BW_OK;
    bw_ppart_count(part, count, len);
    if (atomic_load_explicit(&part->sent_batches, memory_order_relaxed) % LOOK_EVERY == 0) look_at_daemon(p->bus);
    if (p->options.acks == BW_ACKS_DURABLE) {
        e = bw_ppart_wait_durable(part, r->end, have_deadline ? deadline : bw_deadline_in_ms(timeout_ms));
    } else {
        pthread_mutex_unlock(&part->lock);
    }
    if (e) return no_outcome(out, e);
    if (out)
        *out = (bw_delivery){BW_OK, part->partition, p->options.acks == BW_ACKS_NONE ? -1 : r->base_offset, first_ms, count,
                             part->topic->name, NULL};
    return BW_OK;
}

/* Through the daemon. */
static bw_err send_ipc(bw_ppart *part, const bw_record *records, size_t count, bw_deadline deadline, bw_delivery *out)
{
    bw_producer *p = part->producer;
    bw_pbatch *b = bw_pbatch_get(p, part);
    if (!b) return no_outcome(out, BW_ERR_NO_MEMORY);
    int64_t first_ms = 0;
    bw_err e = encode(&b->builder, NULL, part->topic, records, count, &b->data, &b->len, &first_ms);
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
    if (atomic_load_explicit(&part->direct, memory_order_acquire)) {
        bw_err e = bw_ppart_lock(part, deadline);
        if (e) return no_outcome(out, e);
        uint8_t *data = NULL;
        size_t len = 0;
        int64_t first_ms = 0;
        if (why == BW_ERR_FENCED || why == BW_ERR_RETIRED || why == BW_ERR_DELETED) { /* first see how to encode now */
            e = bw_ppart_retry(part, why, deadline);
            if (e == BW_ERR_UNSUPPORTED) e = BW_OK; /* it turned to the socket */
        }
        if (!e && atomic_load_explicit(&part->direct, memory_order_acquire)) {
            e = encode(&part->builder, NULL, part->topic, records, count, &data, &len, &first_ms);
            uint32_t most = e ? 0 : atomic_load_explicit(&part->slot->message_max, memory_order_relaxed);
            if (!e && len > most) e = too_large(part->topic, len, most);
            bw_append_result r;
            if (!e) e = bw_ppart_append(part, data, len, (int32_t)count, part->builder.max_timestamp, deadline, &r);
            if (!e) return finish_direct(part, &r, (int32_t)count, len, first_ms, deadline, true, timeout_ms, out);
        }
        bool turned = !atomic_load(&part->direct) && (!e || e == BW_ERR_UNSUPPORTED);
        pthread_mutex_unlock(&part->lock);
        if (!turned) return no_outcome(out, e);
    }
    return send_ipc(part, records, count, deadline, out);
}

static inline bw_err send_batch(bw_ppart *part, const bw_record *records, size_t count, int32_t timeout_ms, bw_delivery *out)
{
    if (__builtin_expect(!atomic_load_explicit(&part->direct, memory_order_acquire) || pthread_mutex_trylock(&part->lock) != 0, 0))
        return send_slow(part, records, count, timeout_ms, BW_OK, out);
    uint8_t *data;
    size_t len;
    int64_t first_ms = 0;
    bw_append_result r;
    bw_err e = BW_ERR_UNSUPPORTED;
    if (__builtin_expect(part->appender != NULL && part->held == NULL, 1)) {
        e = encode(&part->builder, bw_append_target(part->appender), part->topic, records, count, &data, &len, &first_ms);
        if (__builtin_expect(!e, 1) && len <= atomic_load_explicit(&part->slot->message_max, memory_order_relaxed))
            e = bw_append(part->appender, data, len, (int32_t)count, part->builder.max_timestamp, 0, &r);
        else if (!e)
            e = BW_ERR_RECORD_TOO_LARGE;
        if (__builtin_expect(!e, 1)) return finish_direct(part, &r, (int32_t)count, len, first_ms, 0, false, timeout_ms, out);
    }
    pthread_mutex_unlock(&part->lock);
    return send_slow(part, records, count, timeout_ms, e, out);
}

bw_err bw_producer_check(bw_producer *p, const char *topic)
{
    if (!p) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no producer");
    if (bw_forked(&p->bus->guard)) return bw_bus_forked();
    if (atomic_load_explicit(&p->closed, memory_order_relaxed)) return bw_fail(BW_ERR_CLOSED, "the producer is closed");
    if (!topic) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no topic name");
    return BW_OK;
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
