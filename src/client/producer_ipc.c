/* client/producer_ipc.c: a partition's batches through the daemon: numbered, up to five in flight, in order over everything.
 *
 * Each batch carries (producer id, epoch, first sequence), so that the daemon admits each once, in order, and answers one that it
 * has already with its first offset. The queue holds what has no outcome yet, in order. What can happen to a batch in flight:
 *   acknowledged          leaves the queue
 *   connection lost       *in doubt*: it may be in the log. Sent again first, with the same number, before anything new
 *   refused               certainly not in the log. Those behind it will be refused for their numbers; when nothing is in flight
 *                         the rest is numbered anew from the last acknowledged (resync)
 * Without enable_idempotence batches carry no number: one that is sent again may be there twice. In a transaction the producer id is the
 * transactional id's, and what would need a new one fails the transaction instead: the abort raises the epoch.
 *   given up in doubt     its number may be used or not: the partition takes a new producer id (needs_id) once nothing else is
 *                         in flight or in doubt
 * Sequences count records and wrap at 2^31 as Kafka's do. */
#include "client/transaction.h"

#include "client/async.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { HAND_OVER_BACKLOG = 1 << 20, HAND_OVER_LOOK_MS = 2, CONCURRENT_BACKOFF_NS = 2000000 };

static int32_t sequence_add(int32_t sequence, int32_t count)
{
    return (int32_t)(((uint32_t)sequence + (uint32_t)count) & 0x7fffffffu);
}

static bool numbered(const bw_producer *p) { return p->options.acks != BW_ACKS_NONE; }

/* ---- the queue; all under queue_lock ---- */

static void queue_put(bw_ppart *part, bw_pbatch *b)
{
    b->next = NULL;
    if (part->tail) part->tail->next = b;
    else part->head = b;
    part->tail = b;
}

static void queue_remove(bw_ppart *part, bw_pbatch *b)
{
    bw_pbatch *before = NULL;
    for (bw_pbatch *at = part->head; at; before = at, at = at->next) {
        if (at != b) continue;
        if (before) before->next = b->next;
        else part->head = b->next;
        if (part->tail == b) part->tail = before;
        b->next = NULL;
        return;
    }
}

static bool any_in_doubt(const bw_ppart *part)
{
    for (const bw_pbatch *b = part->head; b; b = b->next)
        if (b->in_doubt) return true;
    return false;
}

static bool wants_id(bw_ppart *part)
{
    return numbered(part->producer) && atomic_load(&part->needs_id) && part->in_flight == 0 && !any_in_doubt(part);
}

/* ---- sending ---- */

/* A new producer id, unless there is none, or it is the transaction's. */
static void want_new_id(bw_ppart *part)
{
    const bw_producer *p = part->producer;
    if (p->options.enable_idempotence && !p->txn) atomic_store(&part->needs_id, true);
}

/* The transactional id's, whose epoch was raised meanwhile: nothing of the partition is on its way then. */
static void take_transaction_id(bw_ppart *part)
{
    const bw_producer *p = part->producer;
    if (part->producer_id == p->producer_id && part->producer_epoch == p->producer_epoch) return;
    part->producer_id = p->producer_id;
    part->producer_epoch = p->producer_epoch;
    part->next_sequence = part->acked_sequence = 0;
    part->resync = false;
}

static void number_batch(bw_ppart *part, bw_pbatch *b)
{
    bw_ptxn *txn = part->producer->txn;
    if (b->in_doubt || !part->producer->options.enable_idempotence) return;
    if (txn) {
        take_transaction_id(part);
        atomic_store(&txn->used, true);
        b->data[22] |= BW_ATTR_TRANSACTIONAL; /* the low byte of the attributes; the checksum is made anew below */
    }
    bool same = b->sequence == part->next_sequence && b->producer_id == part->producer_id &&
                b->producer_epoch == part->producer_epoch;
    b->sequence = part->next_sequence;
    b->producer_id = part->producer_id;
    b->producer_epoch = part->producer_epoch;
    part->next_sequence = sequence_add(b->sequence, b->count);
    if (!same) bw_batch_set_producer(b->data, b->len, b->producer_id, b->producer_epoch, b->sequence);
}

static void batch_answered(bw_pending *pending, bw_err e, const bw_frame *frame);

static void request_of(const bw_ppart *part, const bw_pbatch *b, bw_deadline now, bw_request *q)
{
    bw_request_init(q, BW_API_PRODUCE);
    q->topic = (bw_str){part->topic->name, part->topic->name_len};
    q->partition = part->partition;
    q->acks = (int8_t)part->producer->options.acks;
    int64_t left_ms = b->expires == BW_DEADLINE_NEVER ? INT32_MAX : (b->expires - now) / 1000000;
    q->timeout_ms = left_ms < 1 ? 1 : left_ms > INT32_MAX ? INT32_MAX : (int32_t)left_ms;
    q->payload = b->data;
    q->payload_len = b->len;
}

static bw_err send_batch(bw_ppart *part, bw_pbatch *b, bw_deadline now)
{
    bw_producer *p = part->producer;
    bw_request q;
    request_of(part, b, now, &q);
    q.correlation = bw_conn_correlate(&p->bus->conn);
    b->pending = (bw_pending){.done = batch_answered, .opaque = b, .correlation = q.correlation};
    part->frame.len = 0;
    bw_err e = bw_request_encode(&q, &part->frame, true);
    if (!e) e = bw_conn_submit(&p->bus->conn, &b->pending, &part->frame, b->data, b->len);
    return e;
}

/* Under queue_lock. */
static void drive_locked(bw_ppart *part)
{
    bw_deadline now = bw_clock_mono_ns();
    if (part->resync) {
        if (part->in_flight) return;
        part->next_sequence = part->acked_sequence;
        part->resync = false;
    }
    if (part->retry_at > now) return;
    bool only_doubtful = atomic_load(&part->needs_id);
    for (bw_pbatch *b = part->head; b && part->in_flight < BW_IN_FLIGHT_MAX; b = b->next) {
        if (b->state != BW_PBATCH_WAITING || b->abandoned) continue;
        if (only_doubtful && !b->in_doubt) break;
        if (!bw_conn_is_up(&part->producer->bus->conn)) break;
        int32_t next = part->next_sequence;
        number_batch(part, b);
        if (send_batch(part, b, now) != BW_OK) {
            if (!b->in_doubt) part->next_sequence = next;
            break;
        }
        b->state = BW_PBATCH_IN_FLIGHT;
        b->attempts++;
        part->in_flight++;
    }
    if (part->head && (wants_id(part) || !bw_conn_is_up(&part->producer->bus->conn))) atomic_store(&part->attention, true);
}

/* With acks none nothing is answered: a batch is handed over when the connection has taken it. Under queue_lock; the batches that
 * were, to be completed without it. */
static bw_pbatch *hand_over(bw_ppart *part)
{
    bw_conn *conn = &part->producer->bus->conn;
    bw_pbatch *first = NULL, **last = &first;
    while (part->head && bw_conn_backlog(conn) < HAND_OVER_BACKLOG) {
        bw_pbatch *b = part->head;
        bw_request q;
        request_of(part, b, bw_clock_mono_ns(), &q);
        q.correlation = bw_conn_correlate(conn);
        part->frame.len = 0;
        if (bw_request_encode(&q, &part->frame, true) != BW_OK) break;
        if (bw_conn_submit(conn, NULL, &part->frame, b->data, b->len) != BW_OK) break;
        atomic_store_explicit(&part->producer->bus->unanswered, true, memory_order_relaxed);
        queue_remove(part, b);
        b->state = BW_PBATCH_DONE;
        *last = b;
        last = &b->next;
    }
    if (part->head && !bw_conn_is_up(conn)) atomic_store(&part->attention, true);
    return first;
}

static void drive_and_unlock(bw_ppart *part)
{
    bw_pbatch *gone = NULL;
    if (numbered(part->producer)) drive_locked(part);
    else gone = hand_over(part);
    pthread_mutex_unlock(&part->queue_lock);
    while (gone) {
        bw_pbatch *b = gone;
        gone = b->next;
        bw_pbatch_complete(b, BW_OK, -1, BW_NO_TIMESTAMP, NULL);
    }
}

void bw_ppart_drive(bw_ppart *part)
{
    pthread_mutex_lock(&part->queue_lock);
    drive_and_unlock(part);
}

void bw_ppart_enqueue(bw_ppart *part, bw_pbatch *b)
{
    pthread_mutex_lock(&part->queue_lock);
    queue_put(part, b);
    drive_and_unlock(part);
}

/* ---- answers ---- */

static void keep_message(bw_pbatch *b, bw_err code, bw_str message)
{
    b->error = code;
    free(b->message);
    b->message = message.len ? bw_text_copy(message.data, message.len) : NULL;
}

/* Under queue_lock. true: the batch has an outcome, *code. */
static bool judge(bw_ppart *part, bw_pbatch *b, bw_err e, const bw_answer *a, bw_err *code)
{
    b->state = BW_PBATCH_WAITING;
    if (e) { /* the connection went, or its answer could not be read */
        *code = e;
        b->in_doubt = !part->resync;
        if (b->in_doubt && b->abandoned) want_new_id(part);
        atomic_store(&part->attention, true);
        return b->abandoned;
    }
    *code = (bw_err)a->error;
    switch (*code) {
    case BW_OK:
    case BW_ERR_TIMED_OUT: /* appended, not known to be on the disk */
        part->acked_sequence = sequence_add(b->sequence, b->count);
        return true;
    case BW_ERR_OUT_OF_ORDER_SEQUENCE:
    case BW_ERR_UNKNOWN_PRODUCER_ID:
        b->in_doubt = false;
        keep_message(b, *code, a->message);
        if (part->producer->txn) break; /* it can only be aborted */
        if (!part->resync) want_new_id(part);
        return b->abandoned || b->attempts >= BW_ATTEMPTS_MAX;
    case BW_ERR_DISK_FULL:
    case BW_ERR_NO_MEMORY:
        break;
    default:
        if (!bw_err_is_retriable(*code)) break;
        b->in_doubt = false;
        keep_message(b, *code, a->message);
        part->resync = true;
        part->retry_at = bw_clock_mono_ns() +
                         (*code == BW_ERR_CONCURRENT_TRANSACTIONS ? CONCURRENT_BACKOFF_NS : BW_RETRY_BACKOFF_MS * INT64_C(1000000));
        atomic_store(&part->attention, true); /* who sleeps learns of retry_at */
        return b->abandoned;
    }
    part->resync = true;
    return true;
}

static void batch_answered(bw_pending *pending, bw_err e, const bw_frame *frame)
{
    bw_pbatch *b = pending->opaque;
    bw_ppart *part = b->part;
    bw_answer a;
    memset(&a, 0, sizeof a);
    if (!e) e = bw_answer_decode(frame, &a);
    bw_conn_throttled(&part->producer->bus->conn, a.throttle_ms);
    char text[512] = "";
    if (!e && a.error && a.message.len) {
        size_t n = a.message.len < sizeof text - 1 ? a.message.len : sizeof text - 1;
        memcpy(text, a.message.data, n);
        text[n] = 0;
    }
    bw_err code;
    pthread_mutex_lock(&part->queue_lock);
    part->in_flight--;
    bool over = judge(part, b, e, &a, &code);
    if (over) {
        b->state = BW_PBATCH_DONE;
        queue_remove(part, b);
    }
    drive_locked(part);
    bool more = part->head != NULL;
    pthread_mutex_unlock(&part->queue_lock);
    if (over) bw_pbatch_complete(b, code, a.offset, a.timestamp, text);
    bw_answer_fini(&a);
    if (more && atomic_load(&part->attention)) bw_async_wake(part->producer->bus);
}

/* ---- what waits ---- */

static bw_err ask_id(bw_producer *p, const char *name, bw_deadline deadline, int64_t *id, int16_t *epoch)
{
    bw_request q;
    bw_request_init(&q, BW_API_INIT_PRODUCER_ID);
    if (name) q.producer_name = bw_str_of(name);
    bw_reply reply;
    bw_err e = bw_bus_request(p->bus, &q, deadline, &reply);
    if (!e) {
        *id = reply.answer.producer_id;
        *epoch = reply.answer.producer_epoch;
    }
    bw_reply_fini(&reply);
    return e;
}

bw_err bw_producer_take_name(bw_producer *p, bw_deadline deadline)
{
    pthread_mutex_lock(&p->mutex);
    bool known = p->producer_id >= 0;
    pthread_mutex_unlock(&p->mutex);
    if (known) return BW_OK;
    int64_t id;
    int16_t epoch;
    bw_err e = ask_id(p, p->name, deadline, &id, &epoch);
    if (e) return e;
    pthread_mutex_lock(&p->mutex);
    if (p->producer_id < 0) {
        p->producer_epoch = epoch;
        p->producer_id = id;
    }
    pthread_mutex_unlock(&p->mutex);
    return BW_OK;
}

static bw_err take_id(bw_ppart *part, bw_deadline deadline)
{
    bw_producer *p = part->producer;
    int64_t id = -1;
    int16_t epoch = -1;
    bool first = part->producer_id < 0;
    if (first) {
        pthread_mutex_lock(&p->mutex);
        id = p->producer_id;
        epoch = p->producer_epoch;
        pthread_mutex_unlock(&p->mutex);
    }
    if (id < 0) {
        bw_err e = ask_id(p, p->name, deadline, &id, &epoch);
        if (e) return e;
        if (first) {
            pthread_mutex_lock(&p->mutex);
            if (p->producer_id < 0) {
                p->producer_id = id;
                p->producer_epoch = epoch;
            }
            id = p->producer_id;
            epoch = p->producer_epoch;
            pthread_mutex_unlock(&p->mutex);
        }
    }
    pthread_mutex_lock(&part->queue_lock);
    if (wants_id(part)) {
        part->producer_id = id;
        part->producer_epoch = epoch;
        part->next_sequence = part->acked_sequence = 0;
        part->resync = false;
        atomic_store(&part->needs_id, false);
    }
    pthread_mutex_unlock(&part->queue_lock);
    return BW_OK;
}

bw_err bw_ppart_care(bw_ppart *part, bw_deadline deadline)
{
    atomic_store(&part->attention, false);
    bw_err e = bw_bus_connect(part->producer->bus, true, deadline);
    if (e) return e;
    pthread_mutex_lock(&part->queue_lock);
    bool want = wants_id(part);
    pthread_mutex_unlock(&part->queue_lock);
    return want ? take_id(part, deadline) : BW_OK;
}

void bw_ppart_refuse(bw_ppart *part, bw_err e)
{
    char text[512];
    snprintf(text, sizeof text, "%s", bw_error_message());
    for (;;) {
        pthread_mutex_lock(&part->queue_lock);
        bw_pbatch *b = part->head;
        while (b && (b->sync || b->abandoned || b->in_doubt || b->state != BW_PBATCH_WAITING)) b = b->next;
        if (b) queue_remove(part, b);
        pthread_mutex_unlock(&part->queue_lock);
        if (!b) return;
        bw_pbatch_complete(b, e, -1, BW_NO_TIMESTAMP, text);
    }
}

static bool caller_wakes(void *opaque)
{
    bw_pbatch *b = opaque;
    return atomic_load_explicit(&b->finished, memory_order_acquire) || atomic_load(&b->part->attention);
}

/* The caller's time is over, or there is no sense in trying on: take the batch back. true: it had an outcome after all. */
static bool give_up(bw_ppart *part, bw_pbatch *b, bool *doubt, bw_err *last, char *text, size_t size)
{
    pthread_mutex_lock(&part->queue_lock);
    *last = b->error;
    snprintf(text, size, "%s", b->message ? b->message : *last ? bw_err_text(*last) : "");
    bool finished = atomic_load(&b->finished);
    bool mine = !finished && b->state == BW_PBATCH_WAITING;
    *doubt = b->state == BW_PBATCH_IN_FLIGHT || b->in_doubt;
    if (mine) {
        queue_remove(part, b);
        if (b->in_doubt) want_new_id(part);
    } else if (!finished && b->state == BW_PBATCH_IN_FLIGHT) {
        b->abandoned = true; /* the answer frees it */
    }
    bool completing = !finished && b->state == BW_PBATCH_DONE;
    pthread_mutex_unlock(&part->queue_lock);
    if (mine) bw_pbatch_put(part->producer, b);
    while (completing && !atomic_load(&b->finished)) sched_yield(); /* between its removal and its last store */
    return finished || completing;
}

static bw_err wait_for_outcome(bw_ppart *part, bw_pbatch *b, bw_deadline deadline)
{
    bw_bus *bus = part->producer->bus;
    for (;;) {
        bw_err e = BW_OK;
        bw_deadline deadline_of_look = BW_DEADLINE_NEVER;
        if (!caller_wakes(b)) {
            pthread_mutex_lock(&part->queue_lock);
            if (!numbered(part->producer)) deadline_of_look = bw_deadline_in_ms(HAND_OVER_LOOK_MS);
            bw_deadline until = part->retry_at > bw_clock_mono_ns() ? bw_deadline_first(deadline, part->retry_at) : deadline;
            until = bw_deadline_first(until, deadline_of_look);
            pthread_mutex_unlock(&part->queue_lock);
            bw_conn_wait(&bus->conn, caller_wakes, b, -1, until);
        }
        if (atomic_load_explicit(&b->finished, memory_order_acquire)) return BW_OK;
        if (!numbered(part->producer)) atomic_store(&part->attention, false); /* it waits for room only */
        if (bw_deadline_left_ns(deadline) == 0) return BW_ERR_TIMED_OUT;
        if (atomic_load(&part->attention) || !bw_conn_is_up(&bus->conn)) e = bw_ppart_care(part, deadline);
        if (e && e != BW_ERR_NO_COORDINATOR && e != BW_ERR_NOT_CONNECTED && e != BW_ERR_TIMED_OUT) return e;
        if (e) nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        bw_ppart_drive(part);
    }
}

bw_err bw_ppart_send_wait(bw_ppart *part, bw_pbatch *b, bw_deadline deadline, bw_delivery *out)
{
    bw_producer *p = part->producer;
    int32_t count = b->count;
    b->sync = true;
    b->expires = deadline;
    out->partition = part->partition;
    out->topic = part->topic->name;
    out->count = count;
    bw_ppart_enqueue(part, b);
    bw_err e = wait_for_outcome(part, b, deadline);
    if (e) {
        bool doubt = false;
        bw_err last = BW_OK;
        char text[256];
        if (!give_up(part, b, &doubt, &last, text, sizeof text)) {
            if (p->txn) bw_ptxn_fail(p->txn, last ? last : e, text);
            if (last && !doubt) return bw_fail(last, "topic %s partition %d: %s", part->topic->name, part->partition, text);
            if (e != BW_ERR_TIMED_OUT) return e;
            return bw_fail(e, "topic %s partition %d: not acknowledged in time; %s", part->topic->name, part->partition,
                           doubt ? "whether it was written is not known" : "it was not sent");
        }
    }
    e = b->error;
    if (e) bw_fail(e, "topic %s partition %d: %s", part->topic->name, part->partition, b->message ? b->message : bw_err_text(e));
    out->offset = b->base_offset;
    out->timestamp_ms = b->timestamp_ms;
    bw_pbatch_put(p, b);
    return e;
}

/* ---- time-outs and closing ---- */

bw_deadline bw_ppart_expire(bw_ppart *part, bw_deadline now)
{
    bw_deadline first = BW_DEADLINE_NEVER;
    for (;;) {
        bw_pbatch *late = NULL;
        bool sent = false;
        pthread_mutex_lock(&part->queue_lock);
        first = part->retry_at > now ? part->retry_at : BW_DEADLINE_NEVER;
        if (!numbered(part->producer) && part->head) first = now + HAND_OVER_LOOK_MS * INT64_C(1000000);
        for (bw_pbatch *b = part->head; b && !late; b = b->next) {
            if (b->sync || b->abandoned) continue;
            if (b->expires > now) { /* those behind it are younger */
                first = bw_deadline_first(first, b->expires);
                break;
            }
            late = b;
        }
        if (late) {
            sent = late->state == BW_PBATCH_IN_FLIGHT;
            if (late->in_doubt || sent) want_new_id(part);
            if (!sent) queue_remove(part, late);
        }
        pthread_mutex_unlock(&part->queue_lock);
        if (!late) return first;
        if (sent && !bw_conn_cancel(&part->producer->bus->conn, &late->pending)) continue; /* its answer came just now */
        pthread_mutex_lock(&part->queue_lock);
        if (sent) {
            part->in_flight--;
            queue_remove(part, late);
        }
        bw_err e = late->error && !sent && !late->in_doubt ? late->error : BW_ERR_TIMED_OUT;
        char text[512];
        text[0] = 0;
        strncat(text, late->message ? late->message : "not acknowledged within delivery.timeout.ms", sizeof text - 1);
        pthread_mutex_unlock(&part->queue_lock);
        bw_pbatch_complete(late, e, -1, BW_NO_TIMESTAMP, text);
    }
}

bw_pbatch *bw_ppart_withdraw(bw_ppart *part)
{
    for (;;) {
        bw_pbatch *flying = NULL;
        pthread_mutex_lock(&part->queue_lock);
        for (bw_pbatch *b = part->head; b && !flying; b = b->next)
            if (b->state == BW_PBATCH_IN_FLIGHT) flying = b;
        bw_pbatch *all = NULL;
        if (!flying) {
            all = part->head;
            part->head = part->tail = NULL;
        }
        pthread_mutex_unlock(&part->queue_lock);
        if (!flying) return all;
        if (!bw_conn_cancel(&part->producer->bus->conn, &flying->pending)) continue;
        pthread_mutex_lock(&part->queue_lock);
        part->in_flight--;
        flying->state = BW_PBATCH_WAITING;
        flying->in_doubt = true;
        pthread_mutex_unlock(&part->queue_lock);
    }
}
