/* client/producer_async.c: bw_producer_send, and the library thread's part of it.
 *
 * The sender encodes the record into the partition's open batch and returns. A batch is *ready* when it is full, when linger.ms is
 * over, or when somebody flushes or waits for memory; the thread takes it, finishes it (compression, checksum) and appends it or
 * puts it into the socket's queue. With linger 0 batches form by themselves: what gathers while the thread is at work. */
#include "client/backend.h"
#include "client/async.h"
#include "client/partitioner.h"
#include "client/producer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DURABLE_LOOK_NS = 200000, ASK_EVERY = 32, CARE_MS = 1000, FIRST_ENTRIES = 64, LOOKUP_LEAST_MS = 1000 };

/* ---- memory ---- */

static bool take_memory(bw_producer *p, uint64_t bytes)
{
    uint64_t now = atomic_fetch_add(&p->memory, bytes) + bytes;
    if (now <= p->options.buffer_memory) return true;
    atomic_fetch_sub(&p->memory, bytes);
    return false;
}

static bw_err queue_full(const bw_producer *p, const char *advice)
{
    return bw_fail(BW_ERR_QUEUE_FULL, "buffer.memory (%llu bytes) is full of records that are not acknowledged; %s",
                   (unsigned long long)p->options.buffer_memory, advice);
}

static bw_err wait_memory(bw_producer *p, uint64_t bytes, int32_t timeout_ms)
{
    if (bytes > p->options.buffer_memory)
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a record of %llu bytes does not fit buffer.memory (%llu bytes)",
                       (unsigned long long)bytes, (unsigned long long)p->options.buffer_memory);
    if (take_memory(p, bytes)) return BW_OK;
    if (timeout_ms == 0) return queue_full(p, "try again later");
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    bw_err e = BW_OK;
    atomic_fetch_add(&p->flushing, 1); /* what lingers goes now */
    bw_async_wake(p->bus);
    atomic_fetch_add_explicit(&p->bus->waits, 1, memory_order_relaxed);
    pthread_mutex_lock(&p->mutex);
    while (!take_memory(p, bytes)) {
        if (p->done_head && atomic_load(&p->outstanding) == 0) {
            e = queue_full(p, "its callbacks wait for bw_producer_poll");
            break;
        }
        p->waiters++;
        int r;
        if (deadline == BW_DEADLINE_NEVER) {
            r = pthread_cond_wait(&p->changed, &p->mutex);
        } else {
            struct timespec until = {deadline / 1000000000, deadline % 1000000000};
            r = pthread_cond_timedwait(&p->changed, &p->mutex, &until);
        }
        p->waiters--;
        if (r == ETIMEDOUT && !take_memory(p, bytes)) e = queue_full(p, "the wait for it took too long");
        if (r == ETIMEDOUT) break;
    }
    pthread_mutex_unlock(&p->mutex);
    atomic_fetch_sub(&p->flushing, 1);
    return e;
}

/* ---- send ---- */

static bool grow_entries(bw_pbatch *b)
{
    if (b->builder.count < b->entry_cap) return true;
    int32_t cap = b->entry_cap ? b->entry_cap * 2 : FIRST_ENTRIES;
    bw_pentry *grown = realloc(b->entries, (size_t)cap * sizeof *grown);
    if (!grown) return false;
    b->entries = grown;
    b->entry_cap = cap;
    return true;
}

/* Under queue_lock. */
static void close_open(bw_ppart *part)
{
    bw_pbatch *b = part->open;
    part->open = NULL;
    b->next = NULL;
    if (part->ready_tail && part->ready) part->ready_tail->next = b;
    else part->ready = b;
    part->ready_tail = b;
}

static bw_pbatch *begin_batch(bw_ppart *part)
{
    bw_producer *p = part->producer;
    bw_pbatch *b = bw_pbatch_get(p, part);
    if (!b) return NULL;
    bw_deadline now = bw_clock_mono_ns();
    b->send_at = now + (int64_t)p->options.linger_ms * 1000000;
    b->expires = now + (int64_t)p->options.delivery_timeout_ms * 1000000;
    atomic_fetch_add(&p->outstanding, 1);
    return b;
}

typedef struct put_result { bool wake, closed; } put_result;

/* Under queue_lock: one record into the open batch. */
static bw_err put_record(bw_ppart *part, const bw_record *record, size_t size, uint64_t memory, bw_delivery_fn callback, void *opaque,
                         put_result *result)
{
    bw_producer *p = part->producer;
    bw_record stamped = *record;
    if (stamped.timestamp_ms == BW_NO_TIMESTAMP) stamped.timestamp_ms = bw_stamp_ms(&part->queue_clock);
    if (part->open && bw_batch_builder_size(&part->open->builder) + size > p->options.batch_size) {
        close_open(part);
        result->wake = result->closed = true;
    }
    if (!part->open) {
        part->open = begin_batch(part);
        if (!part->open) return BW_ERR_NO_MEMORY;
        result->wake = true;
    }
    bw_pbatch *b = part->open;
    bw_err e = grow_entries(b) ? bw_batch_builder_add(&b->builder, &stamped) : bw_fail(BW_ERR_NO_MEMORY, "no memory for a record");
    if (e) return e; /* an empty batch that is left here is dropped by the thread */
    b->entries[b->builder.count - 1] = (bw_pentry){callback, opaque, stamped.timestamp_ms};
    b->wants_callback |= callback != NULL;
    b->memory += memory;
    if (bw_batch_builder_size(&b->builder) >= p->options.batch_size) {
        close_open(part);
        result->wake = result->closed = true;
    }
    return BW_OK;
}

static bw_err check_size(bw_ptopic *t, size_t size, const bw_record *record, bw_deadline deadline)
{
    uint32_t most = atomic_load_explicit(&t->message_max, memory_order_relaxed);
    size_t plain = BW_BATCH_HEADER_BYTES + size;
    if (plain <= most || (bw_ptopic_codec(t) != BW_CODEC_NONE && plain <= BW_PLAIN_BATCH_MAX)) return BW_OK;
    bw_err e = bw_ptopic_refresh(t, false, deadline);
    if (e) return e;
    most = atomic_load_explicit(&t->message_max, memory_order_relaxed);
    /* The estimate is an upper bound; an exact look decides about what is near the limit. */
    if (plain <= most || (plain - most < 32 && bw_batch_reserved_size(record, record->value_len) <= most)) return BW_OK;
    return bw_fail(BW_ERR_RECORD_TOO_LARGE, "topic %s: a record of about %zu bytes; max.message.bytes is %u", t->name, plain, most);
}

/* The first use of a topic asks the daemon; the time-out of the call is for memory, so that this has a little of its own. */
static bw_deadline lookup_deadline(int32_t timeout_ms)
{
    return bw_deadline_in_ms(timeout_ms >= 0 && timeout_ms < LOOKUP_LEAST_MS ? LOOKUP_LEAST_MS : timeout_ms);
}

bw_err bw_producer_send(bw_producer *p, const char *topic, int32_t partition, const bw_record *record, bw_delivery_fn callback,
                        void *opaque, int32_t timeout_ms)
{
    bw_err e = bw_producer_check(p, topic);
    if (e) return e;
    if (!record) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no record");
    bw_ptopic *t = atomic_load_explicit(&p->last, memory_order_acquire);
    if (!t || strcmp(t->name, topic) != 0 || atomic_load_explicit(&t->gone, memory_order_relaxed)) {
        if (p->foreign) return p->bus->backend->send(p, topic, partition, record, callback, opaque, timeout_ms);
        e = bw_producer_topic(p, topic, lookup_deadline(timeout_ms), &t);
        if (e) return e;
    }
    int32_t chosen = bw_producer_choose(t, partition, record);
    bw_ppart *part = NULL;
    if ((uint32_t)chosen < BW_PARTITIONS_MAX) part = atomic_load_explicit(&t->parts[chosen], memory_order_acquire);
    if (!part) {
        e = bw_ptopic_part(t, chosen, lookup_deadline(timeout_ms), &part);
        if (e) return e;
    }
    size_t size = bw_record_encoded_size(record);
    if (__builtin_expect(BW_BATCH_HEADER_BYTES + size > atomic_load_explicit(&t->message_max, memory_order_relaxed), 0)) {
        e = check_size(t, size, record, bw_deadline_in_ms(LOOKUP_LEAST_MS));
        if (e) return e;
    }
    if (__builtin_expect(!p->bus->thread_runs, 0) && (e = bw_async_start(p->bus)) != BW_OK) return e;
    uint64_t memory = size + sizeof(bw_pentry);
    e = wait_memory(p, memory, timeout_ms);
    if (e) return e;
    put_result result = {false, false};
    pthread_mutex_lock(&part->queue_lock);
    e = put_record(part, record, size, memory, callback, opaque, &result);
    pthread_mutex_unlock(&part->queue_lock);
    if (e) atomic_fetch_sub(&p->memory, memory);
    if (result.wake) {
        bw_producer_activate(p, part);
        bw_async_wake(p->bus);
    }
    if (result.closed && partition == BW_PARTITION_ANY && !record->key)
        bw_sticky_next(&t->sticky, chosen, atomic_load_explicit(&t->partitions, memory_order_relaxed));
    return e;
}

/* ---- the thread's part ---- */

/* The next batch that is due, or NULL and *next: when one will be. */
static bw_pbatch *take_due(bw_ppart *part, bw_deadline now, bool flush, bw_deadline *next)
{
    pthread_mutex_lock(&part->queue_lock);
    bw_pbatch *b = NULL;
    if (part->retry_at > now && (part->ready || part->open)) {
        *next = bw_deadline_first(*next, part->retry_at);
    } else if (part->ready) {
        b = part->ready;
        part->ready = b->next;
    } else if (part->open && (flush || part->open->send_at <= now)) {
        b = part->open;
        part->open = NULL;
    } else if (part->open) {
        *next = bw_deadline_first(*next, part->open->send_at);
    }
    pthread_mutex_unlock(&part->queue_lock);
    if (b) b->next = NULL;
    return b;
}

static void put_back(bw_ppart *part, bw_pbatch *b, bw_deadline retry_at)
{
    pthread_mutex_lock(&part->queue_lock);
    b->next = part->ready;
    if (!part->ready) part->ready_tail = b;
    part->ready = b;
    part->retry_at = retry_at;
    pthread_mutex_unlock(&part->queue_lock);
}

static void put_durable(bw_ppart *part, bw_pbatch *b)
{
    b->state = BW_PBATCH_DURABLE;
    b->next = NULL;
    pthread_mutex_lock(&part->queue_lock);
    if (part->durable_head) part->durable_tail->next = b;
    else part->durable_head = b;
    part->durable_tail = b;
    pthread_mutex_unlock(&part->queue_lock);
}

/* One attempt on the direct path. false: the partition has none (any more). */
static bool append_direct(bw_ppart *part, bw_pbatch *b, bw_deadline now)
{
    bw_producer *p = part->producer;
    bw_deadline slice = bw_deadline_first(b->expires, bw_deadline_in_ms(BW_APPEND_SLICE_MS));
    bw_append_result r = {-1, 0};
    bw_err e = bw_ppart_lock(part, slice);
    if (!e) {
        bool direct = atomic_load(&part->direct);
        if (direct) {
            uint32_t most = atomic_load_explicit(&part->slot->message_max, memory_order_relaxed);
            if (b->len > most)
                e = bw_fail(BW_ERR_RECORD_TOO_LARGE, "a batch of %zu bytes; max.message.bytes is %u", b->len, most);
            if (!e) {
                bw_ppart_stamp(part, b->data, b->len);
                e = bw_ppart_append(part, b->data, b->len, b->count, b->max_timestamp, slice, &r);
            }
            if (!e) {
                bw_ppart_count(part, b->count, b->len);
                bw_ppart_stamped(part, b->count);
            }
            direct = atomic_load(&part->direct);
        }
        pthread_mutex_unlock(&part->lock);
        if (!direct) return false;
    }
    if (!e) {
        part->why[0] = 0;
        b->end = r.end;
        b->base_offset = r.base_offset;
        if (p->options.acks == BW_ACKS_DURABLE) put_durable(part, b);
        else bw_pbatch_complete(b, BW_OK, p->options.acks == BW_ACKS_NONE ? -1 : r.base_offset, BW_NO_TIMESTAMP, NULL);
    } else if (bw_err_is_retriable(e) && e != BW_ERR_DISK_FULL && e != BW_ERR_NO_MEMORY && b->expires > now) {
        snprintf(part->why, sizeof part->why, "; %s: %s", bw_err_name(e), bw_error_message());
        put_back(part, b, bw_clock_mono_ns() + (int64_t)BW_RETRY_BACKOFF_MS * 1000000);
    } else {
        bw_pbatch_complete(b, e, -1, BW_NO_TIMESTAMP, bw_error_message());
    }
    return true;
}

static void send_due(bw_ppart *part, bw_pbatch *b, bw_deadline now)
{
    if (b->builder.count == 0) { /* its first record could not be added */
        b->wants_callback = false;
        bw_pbatch_complete(b, BW_ERR_NO_MEMORY, -1, BW_NO_TIMESTAMP, NULL);
        return;
    }
    if (!b->data) {
        bw_err e = bw_pbatch_finish(b, part->topic, bw_clock_wall_ms());
        if (e) {
            bw_pbatch_complete(b, e, -1, BW_NO_TIMESTAMP, bw_error_message());
            return;
        }
    }
    if (b->expires <= now) {
        char message[sizeof part->why + 64];
        snprintf(message, sizeof message, "not sent within delivery.timeout.ms%s", part->why);
        bw_pbatch_complete(b, BW_ERR_TIMED_OUT, -1, BW_NO_TIMESTAMP, message);
        return;
    }
    if (!atomic_load(&part->direct) && bw_ppart_may_turn_back(part)) bw_ppart_turn_back(part);
    if (atomic_load(&part->direct) && append_direct(part, b, now)) return;
    bw_ppart_enqueue(part, b);
}

/* The disk will wake the thread by this word, if it is still what it was before the watermark was looked at. */
static void note_disk_wait(bw_bus *bus, const _Atomic uint32_t *word, uint32_t seen)
{
    uint32_t i = 0;
    while (i < bus->disk_wait_count && i < BW_DISK_WAITS_MAX && bus->disk_waits[i].word != word) i++;
    if (i < BW_DISK_WAITS_MAX) bus->disk_waits[i] = (bw_os_futex){word, seen};
    if (i >= bus->disk_wait_count) bus->disk_wait_count = i + 1;
}

/* Batches that wait for the disk: complete the front ones that are there, ask for all others at once. */
static void look_durable(bw_ppart *part, bw_deadline now, bw_deadline *next)
{
    for (;;) {
        pthread_mutex_lock(&part->queue_lock);
        bw_pbatch *b = part->durable_head;
        bw_position last = b ? part->durable_tail->end : 0;
        pthread_mutex_unlock(&part->queue_lock);
        if (!b) return;
        uint64_t durable = 0;
        const _Atomic uint32_t *word = NULL;
        uint32_t seen = 0;
        uint32_t state = BW_SLOT_RETIRED;
        bool known = false;
        if (pthread_mutex_trylock(&part->lock) == 0) {
            if (part->slot) {
                word = &part->slot->state_word;
                seen = atomic_load_explicit(word, memory_order_acquire);
                durable = atomic_load_explicit(&part->slot->durable, memory_order_acquire);
                state = atomic_load_explicit(&part->slot->state, memory_order_acquire);
            }
            known = true;
            if (part->attach && durable < b->end && state == BW_SLOT_OPEN)
                bw_direct_ask_durable(part->attach, part->partition, last);
            pthread_mutex_unlock(&part->lock);
        }
        bool over = known && (durable >= b->end || state != BW_SLOT_OPEN);
        if (!over && b->expires > now) {
            if (word) note_disk_wait(part->producer->bus, word, seen);
            *next = bw_deadline_first(*next, word ? b->expires : now + DURABLE_LOOK_NS);
            return;
        }
        pthread_mutex_lock(&part->queue_lock);
        part->durable_head = b->next;
        pthread_mutex_unlock(&part->queue_lock);
        bool good = known && durable >= b->end;
        bw_err e = good ? BW_OK : over ? BW_ERR_POISONED : BW_ERR_TIMED_OUT;
        bw_pbatch_complete(b, e, b->base_offset, BW_NO_TIMESTAMP,
                           over ? "the record is visible, but it is not known to be on the disk"
                                : "visible, but not on the disk within delivery.timeout.ms");
    }
}

/* true: there is more to come for this partition. */
static bool serve_part(bw_ppart *part, bw_deadline now, bw_deadline *next)
{
    bw_producer *p = part->producer;
    uint32_t sent = 0;
    for (bw_pbatch *b; (b = take_due(part, now, atomic_load(&p->flushing) > 0, next)) != NULL;) {
        send_due(part, b, now);
        if (++sent % ASK_EVERY == 0) look_durable(part, now, next); /* else at the end: one request for all */
    }
    look_durable(part, now, next);
    if (part->head) {
        *next = bw_deadline_first(*next, bw_ppart_expire(part, now));
        if (atomic_load(&part->attention) || !bw_conn_is_up(&p->bus->conn)) {
            bw_err e = bw_ppart_care(part, bw_deadline_in_ms(CARE_MS));
            if (e == BW_ERR_NOT_PERMITTED || e == BW_ERR_AUTHENTICATION_FAILED) bw_ppart_refuse(part, e);
            if (e)
                *next = bw_deadline_first(*next, now + (int64_t)BW_RETRY_BACKOFF_MS * 1000000);
        }
        bw_ppart_drive(part);
    }
    pthread_mutex_lock(&part->queue_lock);
    bool more = part->open || part->ready || part->head || part->durable_head;
    pthread_mutex_unlock(&part->queue_lock);
    return more;
}

bw_deadline bw_producer_serve(bw_producer *p, bw_deadline now)
{
    bw_deadline next = BW_DEADLINE_NEVER;
    pthread_mutex_lock(&p->mutex);
    bw_ppart *keep = p->active; /* ours now: `active` keeps everybody else from linking them */
    p->active = NULL;
    pthread_mutex_unlock(&p->mutex);
    while (keep) {
        bw_ppart *part = keep;
        keep = part->next_active;
        pthread_mutex_lock(&p->mutex);
        part->active = false; /* from here on a sender links it again */
        pthread_mutex_unlock(&p->mutex);
        if (serve_part(part, now, &next)) bw_producer_activate(p, part);
    }
    return next;
}
