/* client/producer_batch.c: the life of a batch: taken from the pool, filled, finished, completed, called back, put back. */
#include "client/transaction.h"

#include <stdlib.h>
#include <string.h>

enum { POOL_MAX = 64, POOL_BATCH_BYTES = 256 * 1024 };

bw_codec bw_ptopic_codec(const bw_ptopic *t)
{
    int32_t c = atomic_load_explicit(&t->codec, memory_order_relaxed);
    return c >= 0 ? (bw_codec)c : t->producer->options.compression;
}

bw_pbatch *bw_pbatch_get(bw_producer *p, bw_ppart *part)
{
    pthread_mutex_lock(&p->mutex);
    bw_pbatch *b = p->pool;
    if (b) {
        p->pool = b->next;
        p->pool_count--;
    }
    pthread_mutex_unlock(&p->mutex);
    if (!b) {
        b = calloc(1, sizeof *b);
        if (!b) {
            bw_fail(BW_ERR_NO_MEMORY, "no memory for a batch");
            return NULL;
        }
        bw_batch_builder_init(&b->builder);
    }
    bw_batch_builder builder = b->builder;
    bw_pentry *entries = b->entries;
    int32_t entry_cap = b->entry_cap;
    memset(b, 0, sizeof *b);
    b->builder = builder;
    b->entries = entries;
    b->entry_cap = entry_cap;
    bw_batch_builder_reset(&b->builder);
    b->part = part;
    b->producer_id = -1;
    b->producer_epoch = -1;
    b->sequence = -1;
    b->base_offset = -1;
    b->expires = BW_DEADLINE_NEVER;
    return b;
}

static void batch_free(bw_pbatch *b)
{
    bw_batch_builder_fini(&b->builder);
    free(b->entries);
    free(b);
}

void bw_pbatch_put(bw_producer *p, bw_pbatch *b)
{
    free(b->message);
    free(b->owned);
    b->message = NULL;
    b->owned = NULL;
    if (b->builder.buf.cap + b->builder.packed.cap > POOL_BATCH_BYTES) {
        batch_free(b);
        return;
    }
    pthread_mutex_lock(&p->mutex);
    bool keep = p->pool_count < POOL_MAX;
    if (keep) {
        b->next = p->pool;
        p->pool = b;
        p->pool_count++;
    }
    pthread_mutex_unlock(&p->mutex);
    if (!keep) batch_free(b);
}

bw_err bw_pbatch_finish(bw_pbatch *b, bw_ptopic *t, int64_t now_ms)
{
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    o.codec = bw_ptopic_codec(t);
    if (atomic_load_explicit(&t->log_append_time, memory_order_relaxed)) o.log_append_time = now_ms;
    b->count = b->builder.count;
    b->max_timestamp = o.log_append_time != BW_NO_TIMESTAMP ? o.log_append_time : b->builder.max_timestamp;
    b->timestamp_ms = o.log_append_time;
    return bw_batch_builder_finish(&b->builder, &o, &b->data, &b->len);
}

void bw_producer_activate(bw_producer *p, bw_ppart *part)
{
    pthread_mutex_lock(&p->mutex);
    if (!part->active) {
        part->active = true;
        part->next_active = p->active;
        p->active = part;
    }
    pthread_mutex_unlock(&p->mutex);
}

/* An asynchronous batch: its record memory is free; its entries stay counted until they were called back. */
static void complete_async(bw_pbatch *b)
{
    bw_producer *p = b->part->producer;
    uint64_t entries = b->wants_callback ? (uint64_t)b->builder.count * sizeof(bw_pentry) : 0;
    if (entries > b->memory) entries = b->memory;
    atomic_fetch_sub(&p->memory, b->memory - entries);
    atomic_fetch_add(&p->undelivered_memory, entries);
    b->memory = entries;
    b->next = NULL;
    bool queue = b->wants_callback;
    pthread_mutex_lock(&p->mutex);
    if (queue) {
        if (p->done_tail) p->done_tail->next = b;
        else p->done_head = b;
        p->done_tail = b;
        if (p->done_head == b && p->event_fd >= 0) bw_producer_ring(p);
    }
    atomic_fetch_sub(&p->outstanding, 1);
    if (p->waiters) pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    if (!queue) bw_pbatch_put(p, b);
}

void bw_pbatch_complete(bw_pbatch *b, bw_err e, int64_t base_offset, int64_t timestamp_ms, const char *message)
{
    bw_bus *bus = b->part->producer->bus;
    if (e && b->part->producer->txn) bw_ptxn_fail(b->part->producer->txn, e, message);
    if (b->abandoned) { /* nobody is to be told any more */
        bw_pbatch_put(b->part->producer, b);
        return;
    }
    b->state = BW_PBATCH_DONE;
    b->error = e;
    b->base_offset = e ? -1 : base_offset;
    /* The daemon says the largest timestamp as stored: another one than was sent is the time of the append. */
    if (timestamp_ms != BW_NO_TIMESTAMP && timestamp_ms != b->max_timestamp) b->timestamp_ms = timestamp_ms;
    if (e) {
        free(b->message);
        b->message = strdup(message && *message ? message : bw_err_text(e));
    } else if (!b->end) { /* direct ones are counted by their partition */
        atomic_fetch_add_explicit(&bus->records_out, (uint64_t)b->count, memory_order_relaxed);
        atomic_fetch_add_explicit(&bus->bytes_out, b->len, memory_order_relaxed);
        atomic_fetch_add_explicit(&bus->batches_out, 1, memory_order_relaxed);
    }
    if (b->sync) atomic_store_explicit(&b->finished, true, memory_order_release);
    else complete_async(b);
}
