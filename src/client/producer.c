/* client/producer.c: open, poll, flush, close. */
#include "client/producer.h"

#include "base/lock.h"
#include "client/async.h"
#include "client/backend.h"
#include "client/readonly.h"
#include "client/transaction.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bw_err copy_options(bw_producer *p, const bw_producer_options *given)
{
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    if (given) {
        if (given->size < sizeof given->size || given->size > 4096)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "producer options: size is not set; begin with BW_PRODUCER_OPTIONS_INIT");
        memcpy(&o, given, given->size < sizeof o ? given->size : sizeof o);
    }
    if (o.acks < BW_ACKS_NONE || o.acks > BW_ACKS_REPLICATED) return bw_fail(BW_ERR_INVALID_ARGUMENT, "producer options: unknown acks");
    if (o.compression < BW_CODEC_NONE || o.compression > BW_CODEC_ZSTD)
        return bw_fail(BW_ERR_UNKNOWN_CODEC, "producer options: unknown compression %d", (int)o.compression);
    if (o.batch_size == 0 || o.batch_size > BW_PLAIN_BATCH_MAX || o.buffer_memory == 0 || o.delivery_timeout_ms < 1)
        return bw_fail(BW_ERR_INVALID_ARGUMENT,
                       "producer options: batch_size is 1 to %u, buffer_memory and delivery_timeout_ms at least 1", BW_PLAIN_BATCH_MAX);
    if (o.transactional_id && *o.transactional_id && o.transaction_timeout_ms < 1)
        return bw_fail(BW_ERR_INVALID_TRANSACTION_TIMEOUT, "producer options: transaction_timeout_ms = %d; at least 1", o.transaction_timeout_ms);
    bw_err e = bw_ptxn_open(&o, &p->txn);
    if (e) return e;
    if (p->txn) o.acks = BW_ACKS_VISIBLE; /* the commit is what is durable */
    o.transactional_id = NULL;
    p->name = o.name && *o.name && !p->txn ? strdup(o.name) : NULL;
    if (o.name && *o.name && !p->name && !p->txn) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a producer");
    o.name = p->name;
    p->options = o;
    return BW_OK;
}

bw_err bw_producer_open(bw_bus *bus, const bw_producer_options *options, bw_producer **out)
{
    if (!bus || !out) return bw_fail(BW_ERR_INVALID_ARGUMENT, "bw_producer_open: there is no bus or no place for the producer");
    *out = NULL;
    BW_CHECK_FORK(bus);
    if (bus->readonly) return bw_readonly_refuse(bus, "bw_producer_open");
    bw_producer *p = calloc(1, sizeof *p);
    if (!p) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a producer");
    p->bus = bus;
    p->producer_id = p->event_fd = -1;
    bw_err e = copy_options(p, options);
    if (e) {
        bw_ptxn_free(p->txn);
        free(p);
        return e;
    }
    if (bus->backend && (e = bus->backend->producer_open(p)) != BW_OK) {
        bw_ptxn_free(p->txn);
        free(p->name);
        free(p);
        return e;
    }
    bw_cond_init(&p->changed);
    pthread_mutex_init(&p->mutex, NULL);
    if (!p->foreign) {
        pthread_mutex_lock(&bus->mutex);
        p->next = bus->producers;
        bus->producers = p;
        pthread_mutex_unlock(&bus->mutex);
    }
    bw_bus_count_handle(bus);
    *out = p;
    return BW_OK;
}

/* ---- callbacks ---- */

static int run_callbacks(const bw_pbatch *b)
{
    int ran = 0;
    for (int32_t i = 0; i < b->builder.count; i++) {
        const bw_pentry *entry = &b->entries[i];
        if (!entry->callback) continue;
        bw_delivery d = {
            .error = b->error,
            .partition = b->part->partition,
            .offset = b->error || b->base_offset < 0 ? -1 : b->base_offset + i,
            .timestamp_ms = b->timestamp_ms != BW_NO_TIMESTAMP ? b->timestamp_ms : entry->timestamp_ms,
            .count = 1,
            .topic = b->part->topic->name,
            .message = b->error ? b->message : NULL,
        };
        entry->callback(entry->opaque, &d);
        ran++;
    }
    return ran;
}

/* Under the mutex, which is dropped for the callbacks. */
static int deliver_all(bw_producer *p)
{
    int ran = 0;
    bw_pbatch *list = p->done_head;
    p->done_head = p->done_tail = NULL;
    if (p->event_fd >= 0) bw_producer_unring(p);
    pthread_mutex_unlock(&p->mutex);
    while (list) {
        bw_pbatch *b = list;
        list = b->next;
        ran += run_callbacks(b);
        atomic_fetch_sub(&p->memory, b->memory);
        atomic_fetch_sub(&p->undelivered_memory, b->memory);
        bw_pbatch_put(p, b);
    }
    pthread_mutex_lock(&p->mutex);
    if (ran && p->waiters) pthread_cond_broadcast(&p->changed);
    return ran;
}

static bool wait_changed(bw_producer *p, bw_deadline deadline)
{
    p->waiters++;
    int r = 0;
    if (deadline == BW_DEADLINE_NEVER) {
        pthread_cond_wait(&p->changed, &p->mutex);
    } else {
        struct timespec until = {deadline / 1000000000, deadline % 1000000000};
        r = pthread_cond_timedwait(&p->changed, &p->mutex, &until);
    }
    p->waiters--;
    return r == 0;
}

int bw_producer_poll(bw_producer *p, int32_t timeout_ms)
{
    if (!p || bw_forked(&p->bus->guard)) return 0;
    BW_DISPATCH(p->bus, producer_poll(p, timeout_ms));
    pthread_mutex_lock(&p->mutex);
    if (!p->done_head && timeout_ms != 0) {
        bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
        while (!p->done_head && wait_changed(p, deadline)) {}
    }
    int ran = p->done_head ? deliver_all(p) : 0;
    pthread_mutex_unlock(&p->mutex);
    return ran;
}

bw_err bw_producer_flush(bw_producer *p, int32_t timeout_ms)
{
    if (!p) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no producer");
    BW_CHECK_FORK(p->bus);
    BW_DISPATCH(p->bus, flush(p, timeout_ms));
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    bw_err e = BW_OK;
    atomic_fetch_add(&p->flushing, 1);
    if (atomic_load(&p->outstanding)) bw_async_wake(p->bus);
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        if (p->done_head) deliver_all(p);
        if (p->done_head) continue;
        if (atomic_load(&p->outstanding) == 0) break;
        if (!wait_changed(p, deadline) && !p->done_head && atomic_load(&p->outstanding)) {
            e = bw_fail(BW_ERR_TIMED_OUT, "%llu batches are still without an outcome", (unsigned long long)atomic_load(&p->outstanding));
            break;
        }
    }
    pthread_mutex_unlock(&p->mutex);
    atomic_fetch_sub(&p->flushing, 1);
    if (!e && p->options.acks == BW_ACKS_NONE) e = bw_conn_drain(&p->bus->conn, deadline);
    return e;
}

/* ---- closing ---- */

static void unlist(bw_producer *p)
{
    bw_bus *bus = p->bus;
    pthread_mutex_lock(&bus->mutex);
    while (bus->serving == p) pthread_cond_wait(&bus->idle, &bus->mutex);
    for (bw_producer **at = &bus->producers; *at; at = &(*at)->next) {
        if (*at != p) continue;
        *at = p->next;
        break;
    }
    pthread_mutex_unlock(&bus->mutex);
}

static bool fail_list(bw_pbatch *list, bw_err e, const char *message)
{
    bool unsent = true;
    while (list) {
        bw_pbatch *b = list;
        list = b->next;
        unsent &= b->attempts == 0;
        bw_pbatch_complete(b, e, -1, BW_NO_TIMESTAMP, message);
    }
    return unsent;
}

bool bw_ppart_take_back(bw_ppart *part, bw_err e, const char *message)
{
    bool unsent = fail_list(bw_ppart_withdraw(part), e, message);
    pthread_mutex_lock(&part->queue_lock);
    bw_pbatch *ready = part->ready, *open = part->open, *durable = part->durable_head;
    part->ready = part->open = part->durable_head = NULL;
    pthread_mutex_unlock(&part->queue_lock);
    unsent &= fail_list(durable, e, message);
    unsent &= fail_list(ready, e, message);
    return fail_list(open, e, message) && unsent;
}

static void producer_free(bw_producer *p)
{
    while (p->topics) {
        bw_ptopic *t = p->topics;
        p->topics = t->next;
        bw_ptopic_free(t);
    }
    while (p->pool) {
        bw_pbatch *b = p->pool;
        p->pool = b->next;
        bw_batch_builder_fini(&b->builder);
        free(b->entries);
        free(b);
    }
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->changed);
    if (p->event_fd >= 0) close(p->event_fd);
    free(p->name);
    bw_ptxn_free(p->txn);
    free(p);
}

bw_err bw_producer_close(bw_producer *p, int32_t timeout_ms)
{
    if (!p) return BW_OK;
    BW_CHECK_FORK(p->bus);
    if (p->foreign) {
        bw_err closed = p->bus->backend->producer_close(p, timeout_ms);
        atomic_fetch_sub(&p->bus->handles, 1);
        producer_free(p);
        return closed;
    }
    bw_err e = bw_producer_flush(p, timeout_ms);
    atomic_store(&p->closed, true);
    unlist(p);
    for (bw_ptopic *t = p->topics; t; t = t->next)
        for (int32_t i = 0; i < atomic_load(&t->partitions); i++)
            if (atomic_load(&t->parts[i]))
                (void)bw_ppart_take_back(atomic_load(&t->parts[i]), BW_ERR_TIMED_OUT, "the producer was closed before it was acknowledged");
    bw_conn_quiesce(&p->bus->conn);
    pthread_mutex_lock(&p->mutex);
    while (p->done_head) deliver_all(p);
    pthread_mutex_unlock(&p->mutex);
    atomic_fetch_sub(&p->bus->handles, 1);
    producer_free(p);
    return e;
}
