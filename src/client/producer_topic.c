/* client/producer_topic.c: a producer's topics and partitions: found without a lock once they are there, attached anew when the
 * daemon replaced or changed what they lead to. */
#include "client/transaction.h"

#include "base/lock.h"
#include "format/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- topics ---- */

static void take_info(bw_ptopic *t, const bw_topic_info *info)
{
    atomic_store(&t->partitions, info->partitions);
    atomic_store(&t->codec, info->codec);
    atomic_store(&t->message_max, info->message_max);
    atomic_store(&t->log_append_time, info->log_append_time);
    t->refreshed_ms = bw_clock_mono_ms();
}

static bw_err topic_lock(bw_ptopic *t, bw_deadline deadline)
{
    if (bw_lock(&t->lock, deadline) == BW_LOCK_OK) return BW_OK;
    return bw_fail(BW_ERR_TIMED_OUT, "topic %s: another thread has been attaching to it for too long", t->name);
}

enum { LOOK_AGAIN_MS = 1000 };

/* Under t->lock: the direct path if it is to be had. */
static bw_err choose_way(bw_ptopic *t, bw_deadline deadline)
{
    bw_bus *bus = t->producer->bus;
    t->attach = NULL;
    if (t->producer->txn) {
        bw_direct_note(bus, t->name, true, "transactions go through the daemon");
        return BW_OK;
    }
    if (t->producer->options.acks == BW_ACKS_REPLICATED) { /* who is told by the network can be told by the socket */
        bw_direct_note(bus, t->name, true, "the daemon tells what is replicated");
        return BW_OK;
    }
    bw_err e = bw_direct_attach(bus, t->name, BW_CONTROL_WRITE, deadline, &t->attach);
    if (!e) {
        if (atomic_exchange(&t->look_again, 0)) atomic_fetch_add(&t->way, 1);
        bw_direct_note(bus, t->name, true, NULL);
        return BW_OK;
    }
    t->attach = NULL;
    if (e == BW_ERR_THROTTLED) atomic_store(&t->look_again, bw_deadline_in_ms(LOOK_AGAIN_MS));
    if (!bw_direct_may_fall_back(bus, e)) return bw_error_context(e, "topic %s", t->name);
    bw_direct_note(bus, t->name, true, bw_error_message());
    return BW_OK;
}

bw_err bw_ptopic_refresh(bw_ptopic *t, bool create, bw_deadline deadline)
{
    bw_topic_info info;
    bw_err e = bw_bus_topic_info(t->producer->bus, t->name, create, deadline, &info);
    if (!e) take_info(t, &info);
    return e;
}

static bw_err topic_open(bw_producer *p, const char *name, size_t len, bw_deadline deadline, bw_ptopic **out)
{
    bw_ptopic *t = calloc(1, sizeof *t + BW_PARTITIONS_MAX * sizeof t->parts[0]);
    if (!t) return bw_fail(BW_ERR_NO_MEMORY, "no memory for topic %s", name);
    t->producer = p;
    t->name_len = len;
    memcpy(t->name, name, len + 1);
    atomic_store(&t->sticky, -1);
    pthread_mutex_init(&t->lock, NULL);
    bw_err e = bw_ptopic_refresh(t, true, deadline);
    if (!e) e = choose_way(t, deadline);
    if (e) {
        bw_ptopic_free(t);
        return e;
    }
    *out = t;
    return BW_OK;
}

/* The topic was deleted (or its control data replaced) while this producer had it: begin again, creating it if that is configured. */
static bw_err topic_revive(bw_ptopic *t, bw_deadline deadline)
{
    bw_err e = topic_lock(t, deadline);
    if (e) return e;
    if (atomic_load(&t->gone)) {
        if (t->attach) {
            bw_direct_mark_stale(t->producer->bus, t->attach);
            bw_direct_release(t->producer->bus, t->attach);
            t->attach = NULL;
        }
        e = bw_ptopic_refresh(t, true, deadline);
        if (!e) e = choose_way(t, deadline);
        if (!e) atomic_store(&t->gone, false);
    }
    pthread_mutex_unlock(&t->lock);
    return e;
}

static bw_ptopic *topic_find(bw_producer *p, const char *name)
{
    bw_ptopic *t = p->topics;
    while (t && strcmp(t->name, name) != 0) t = t->next;
    return t;
}

bw_err bw_producer_topic(bw_producer *p, const char *name, bw_deadline deadline, bw_ptopic **out)
{
    bw_ptopic *t = atomic_load_explicit(&p->last, memory_order_acquire);
    if (!t || strcmp(t->name, name) != 0) {
        pthread_mutex_lock(&p->mutex);
        t = topic_find(p, name);
        pthread_mutex_unlock(&p->mutex);
    }
    if (!t) {
        size_t len = strlen(name);
        bw_err e = bw_topic_name_check(name, len);
        if (!e) e = topic_open(p, name, len, deadline, &t);
        if (e) return e;
        pthread_mutex_lock(&p->mutex);
        bw_ptopic *other = topic_find(p, name); /* another thread was as quick */
        if (!other) {
            t->next = p->topics;
            p->topics = t;
        }
        pthread_mutex_unlock(&p->mutex);
        if (other) {
            bw_ptopic_free(t);
            t = other;
        }
    }
    if (__builtin_expect(atomic_load_explicit(&t->gone, memory_order_relaxed), 0)) {
        bw_err e = topic_revive(t, deadline);
        if (e) return e;
    }
    atomic_store_explicit(&p->last, t, memory_order_release);
    *out = t;
    return BW_OK;
}

/* ---- partitions ---- */

/* Under part->lock: take the topic's attachment, open an appender. Leaves `direct` as it turns out. */
static bw_err part_open_way(bw_ppart *part, bw_deadline deadline)
{
    bw_ptopic *t = part->topic;
    bw_bus *bus = part->producer->bus;
    bw_err e = topic_lock(t, deadline);
    if (e) return e;
    part->attach = t->attach;
    if (part->attach) bw_attach_ref(part->attach);
    atomic_store(&part->way, atomic_load(&t->way));
    pthread_mutex_unlock(&t->lock);
    if (!part->attach) {
        atomic_store(&part->direct, false);
        return BW_OK;
    }
    char folder[BW_PARTITION_DIR_MAX];
    bw_partition_dir_name(folder, part->attach->topic, part->partition);
    bw_appender_options o = {.control = part->attach->control, .partition = (uint32_t)part->partition, .folder = folder,
                             .dir_fd = part->attach->env->dir->fd, .guard = &bus->guard,
                             .owners = part->attach->env->owners, .windows = &part->producer->windows};
    e = bw_appender_open(&o, &part->appender);
    if (!e) {
        part->slot = &part->attach->control->slots[part->partition];
        atomic_store(&part->direct, true);
        return BW_OK;
    }
    bw_direct_release(bus, part->attach);
    part->attach = NULL;
    atomic_store(&part->direct, false);
    if (!bw_direct_may_fall_back(bus, e)) return bw_error_context(e, "topic %s", t->name);
    bw_direct_note(bus, t->name, true, bw_error_message());
    return BW_OK;
}

static void part_close_way(bw_ppart *part)
{
    if (part->appender) bw_appender_close(part->appender);
    if (part->attach) bw_direct_release(part->producer->bus, part->attach);
    part->appender = NULL;
    part->attach = NULL;
    part->slot = NULL;
}

static void part_free(bw_ppart *part)
{
    bw_bus *bus = part->producer->bus;
    atomic_fetch_add(&bus->records_out, atomic_load(&part->sent_records));
    atomic_fetch_add(&bus->bytes_out, atomic_load(&part->sent_bytes));
    atomic_fetch_add(&bus->batches_out, atomic_load(&part->sent_batches));
    part_close_way(part);
    while (part->seats) {
        bw_pseat *seat = part->seats;
        part->seats = seat->next;
        free(seat);
    }
    bw_batch_builder_fini(&part->builder);
    bw_buf_free(&part->frame);
    pthread_mutex_destroy(&part->lock);
    pthread_mutex_destroy(&part->queue_lock);
    free(part);
}

static bw_err part_new(bw_ptopic *t, int32_t partition, bw_deadline deadline, bw_ppart **out)
{
    bw_err named = t->producer->name ? bw_producer_take_name(t->producer, deadline) : BW_OK;
    if (named) return named;
    bw_ppart *part = calloc(1, sizeof *part);
    if (!part) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a partition");
    part->topic = t;
    part->producer = t->producer;
    part->partition = partition;
    part->producer_id = -1;
    atomic_store(&part->needs_id, t->producer->options.enable_idempotence && !t->producer->txn);
    pthread_mutexattr_t checked; /* a thread that sends while its own reservation is out is told so */
    pthread_mutexattr_init(&checked);
    pthread_mutexattr_settype(&checked, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&part->lock, &checked);
    pthread_mutexattr_destroy(&checked);
    pthread_mutex_init(&part->queue_lock, NULL);
    bw_batch_builder_init(&part->builder);
    bw_err e = part_open_way(part, deadline);
    if (e) {
        part_free(part);
        return e;
    }
    *out = part;
    return BW_OK;
}

/* Gives back a quarter of the windows: first of partitions that sent nothing since the last time, then of any. What is in use stays. */
static void rest_some(bw_producer *p)
{
    if (pthread_mutex_trylock(&p->mutex) != 0) return; /* another thread is at it */
    for (int any = 0; any < 2; any++) {
        for (bw_ptopic *t = p->topics; t; t = t->next) {
            for (int32_t i = 0; i < atomic_load(&t->partitions); i++) {
                bw_ppart *part = atomic_load_explicit(&t->parts[i], memory_order_acquire);
                if (atomic_load(&p->windows) <= BW_APPENDER_WINDOWS_MAX - BW_APPENDER_WINDOWS_MAX / 4) break;
                if (!part || bw_ppart_lock(part, 0) != BW_OK) continue;
                uint64_t sent = atomic_load_explicit(&part->sent_batches, memory_order_relaxed);
                if (part->appender && !part->held && (any || sent == part->rested_at)) bw_appender_rest(part->appender);
                part->rested_at = sent;
                pthread_mutex_unlock(&part->lock);
            }
        }
    }
    pthread_mutex_unlock(&p->mutex);
}

bw_err bw_ptopic_part(bw_ptopic *t, int32_t partition, bw_deadline deadline, bw_ppart **out)
{
    if (__builtin_expect(atomic_load_explicit(&t->producer->windows, memory_order_relaxed) > BW_APPENDER_WINDOWS_MAX, 0)) rest_some(t->producer);
    if (partition >= 0 && partition < (int32_t)BW_PARTITIONS_MAX) {
        *out = atomic_load_explicit(&t->parts[partition], memory_order_acquire);
        if (*out) return BW_OK;
    }
    if (partition >= atomic_load(&t->partitions)) { /* there may be more by now */
        bw_err e = bw_ptopic_refresh(t, false, deadline);
        if (e) return e;
    }
    if (partition < 0 || partition >= atomic_load(&t->partitions))
        return bw_fail(BW_ERR_UNKNOWN_PARTITION, "topic %s has no partition %d; it has %d", t->name, partition,
                       atomic_load(&t->partitions));
    bw_ppart *part = NULL, *none = NULL;
    bw_err e = part_new(t, partition, deadline, &part);
    if (e) return e;
    if (atomic_compare_exchange_strong(&t->parts[partition], &none, part)) {
        *out = part;
    } else {
        part_free(part);
        *out = none;
    }
    return BW_OK;
}

static bw_err topic_gone(bw_ptopic *t, bw_err e)
{
    atomic_store(&t->gone, true);
    return bw_fail(BW_ERR_DELETED, "topic %s was deleted (%s)", t->name, bw_err_text(e));
}

/* The topic's attachment after it was retired: a new one if the topic is still the same one. */
static bw_err topic_reattach(bw_ptopic *t, bw_attach *old, bw_deadline deadline)
{
    bw_bus *bus = t->producer->bus;
    bw_err e = topic_lock(t, deadline);
    if (e) return e;
    if (t->attach == old && old) { /* else: another partition's thread has done it */
        bw_direct_mark_stale(bus, old);
        bw_direct_release(bus, old);
        t->attach = NULL;
        e = choose_way(t, deadline);
    }
    pthread_mutex_unlock(&t->lock);
    return e;
}

void bw_ppart_turn_back(bw_ppart *part)
{
    bw_ptopic *t = part->topic;
    bw_deadline again = atomic_load(&t->look_again), until = bw_deadline_in_ms(LOOK_AGAIN_MS);
    if (again && bw_clock_mono_ns() >= again && topic_lock(t, 0) == BW_OK) {
        if (atomic_load(&t->look_again) == again && !t->attach && choose_way(t, until) != BW_OK) atomic_store(&t->look_again, until);
        pthread_mutex_unlock(&t->lock);
    }
    if (atomic_load(&part->way) == atomic_load(&t->way) || bw_ppart_lock(part, 0) != BW_OK) return;
    pthread_mutex_lock(&part->queue_lock);
    bool idle = !part->head && part->in_flight == 0;
    pthread_mutex_unlock(&part->queue_lock);
    if (idle && !part->appender && !part->held) part_open_way(part, until); /* what fails leaves it on the socket */
    pthread_mutex_unlock(&part->lock);
}

bw_err bw_ppart_reopen(bw_ppart *part, bw_err why, bw_deadline deadline)
{
    bw_ptopic *t = part->topic;
    bw_deadline until = bw_deadline_first(deadline, bw_bus_request_deadline(part->producer->bus));
    bw_err e = bw_bus_connect(part->producer->bus, true, until);
    if (!e) e = bw_ptopic_refresh(t, false, until);
    if (e == BW_ERR_UNKNOWN_TOPIC) return topic_gone(t, why);
    if (e) return e;
    bw_attach *old = part->attach;
    if (why != BW_ERR_FENCED || (old && bw_direct_confirm(part->producer->bus, old, until) != BW_OK)) {
        e = topic_reattach(t, old, until);
        if (e == BW_ERR_UNKNOWN_TOPIC) return topic_gone(t, why);
        if (e) return e;
    }
    part_close_way(part);
    return part_open_way(part, until);
}

void bw_ptopic_free(bw_ptopic *t)
{
    for (int32_t i = 0; i < (int32_t)BW_PARTITIONS_MAX; i++) {
        bw_ppart *part = atomic_load_explicit(&t->parts[i], memory_order_relaxed);
        if (part) part_free(part);
        if (i >= atomic_load(&t->partitions)) break;
    }
    if (t->attach) bw_direct_release(t->producer->bus, t->attach);
    pthread_mutex_destroy(&t->lock);
    free(t);
}
