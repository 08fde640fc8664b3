/* broker/produce_try.c: one batch: its sequence, its append, its answer; and where it waits meanwhile (produce.c says how the two go
 * together). Parked: not appended, tried again in order. Undurable, unreplicated: appended, until that watermark has passed its end. */
#include "broker/produce_internal.h"

#include "broker/replica.h"
#include "broker/txn.h"
#include "log/txn.h"
#include "log/wait.h"

#include <stdlib.h>

#define RETRY_MS 5

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }
static void produce_free(bw_broker *b, bw_produce *pr)
{
    bw_timers_clear(&b->timers, &pr->timer);
    free(pr->owned);
    free(pr);
}

void bw_produce_answer(bw_broker *b, bw_produce *pr, bw_err e)
{
    if (pr->acks == BW_ACKS_NONE) bw_op_finish(pr->op, NULL); /* never answered, not even an error */
    else {
        bw_answer a;
        bw_answer_init(&a, &pr->op->request);
        a.error = (int32_t)e;
        if (e) a.message = bw_str_of(bw_error_message());
        else a.offset = pr->base_offset;
        a.timestamp = pr->timestamp >= 0 ? pr->timestamp : pr->header.max_timestamp;
        if (!e || e == BW_ERR_DISK_FULL) bw_part_range(pr->part, &a.log_start, &a.end, &a.durable);
        bw_op_finish(pr->op, &a);
    }
    produce_free(b, pr);
}

/* ---- one try ---- */

typedef struct waiting { bw_produce **first, **last; } waiting;

static waiting list_of(bw_part *p, const bw_produce *pr)
{
    return pr->acks == BW_ACKS_REPLICATED ? (waiting){&p->unreplicated, &p->unreplicated_last} : (waiting){&p->undurable, &p->undurable_last};
}

static void on_late(void *broker, bw_timer *timer)
{
    bw_produce *pr = (bw_produce *)(void *)((char *)timer - offsetof(bw_produce, timer));
    bw_part *p = pr->part;
    waiting w = list_of(p, pr);
    bw_produce **at = w.first, *before = NULL;
    while (*at != pr) {
        before = *at;
        at = &before->next;
    }
    *at = pr->next;
    if (*w.last == pr) *w.last = before;
    bw_fail(BW_ERR_TIMED_OUT, "topic '%s' partition %u: offset %lld is visible but not yet known to be %s", p->topic->name, p->index,
            (long long)pr->base_offset, pr->acks == BW_ACKS_REPLICATED ? "on enough peers (replicas)" : "on the disk");
    bw_produce_answer(broker, pr, BW_ERR_TIMED_OUT);
}

static int64_t next_offset_of(const bw_produce *pr) { return pr->base_offset + pr->header.last_offset_delta + 1; }

static bool has_passed(const bw_produce *pr, const bw_produce *other)
{
    return pr->acks == BW_ACKS_REPLICATED ? other->base_offset <= pr->base_offset : other->end <= pr->end;
}

/* Into its list, by end: a resend of an old batch may come behind newer ones. */
static void put_waiting(bw_broker *b, bw_produce *pr)
{
    waiting w = list_of(pr->part, pr);
    bw_produce *before = NULL, **at = w.first;
    if (*w.last && has_passed(pr, *w.last)) at = &(before = *w.last)->next;
    else while (*at && has_passed(pr, *at)) at = &(before = *at)->next;
    pr->next = *at;
    *at = pr;
    if (!pr->next) *w.last = pr;
    pr->timer.fire = on_late;
    bw_timers_set(&b->timers, &pr->timer, pr->deadline);
}

/* The peers learn of it by their links; the answer comes with their acknowledgement (replica.c). With replicas.acks=durable it must be on
 * the disk here, too. */
static void wait_replicated(bw_broker *b, bw_produce *pr)
{
    bw_part *p = pr->part;
    if ((int64_t)atomic_load_explicit(&slot_of(p)->replicated, memory_order_acquire) >= next_offset_of(pr)) {
        bw_produce_answer(b, pr, BW_OK);
        return;
    }
    put_waiting(b, pr);
    if (bw_replica_wants_disk(p)) {
        bw_position_raise(&slot_of(p)->sync_request, pr->end);
        bw_syncer_want(b, p);
    }
    bw_broker_again(b, p);
}

static void wait_durable(bw_broker *b, bw_produce *pr)
{
    bw_part *p = pr->part;
    bw_tail_slot *s = slot_of(p);
    if (atomic_load_explicit(&s->durable, memory_order_acquire) >= pr->end) {
        bw_produce_answer(b, pr, BW_OK);
        return;
    }
    bw_position_raise(&s->sync_request, pr->end);
    put_waiting(b, pr);
    bw_syncer_want(b, p);
    bw_broker_again(b, p);
}

/* It is in the log: answer, now or when its watermark has passed. */
static void settle(bw_broker *b, bw_produce *pr)
{
    if (pr->acks == BW_ACKS_DURABLE) wait_durable(b, pr);
    else if (pr->acks == BW_ACKS_REPLICATED) wait_replicated(b, pr);
    else bw_produce_answer(b, pr, BW_OK);
}

void bw_produce_appended(bw_broker *b, bw_produce *pr)
{
    bw_part *p = pr->part;
    p->in_batches++;
    p->in_bytes += pr->len;
    pr->op->session->produced_bytes += pr->len;
    if (pr->header.producer_id >= 0) {
        int64_t now = bw_clock_mono_ms();
        bw_producers_expire(p->producers, now - b->config.producer_id_expiration_ms);
        /* Without memory for it any sequence may come next. A transaction's producer has its entry already. */
        (void)bw_producers_note(p->producers, &pr->header, pr->base_offset, pr->timestamp, pr->end, now);
        if (bw_produce_is_transactional(pr)) {
            bw_txn_settle(p->log, p->producers);
            bw_txn_count(b, pr->header.producer_id, pr->header.record_count);
        }
    }
    settle(b, pr);
}

void bw_produce_before_append(bw_broker *b, bw_part *p)
{
    if (p->armed) bw_disarm(p->topic->control, p->index, BW_WAIT_TAIL, BW_MAILBOX_BROKER);
    p->armed = false;
    if (p->subs || p->fetches) bw_broker_again(b, p);
}

static bw_err append_once(bw_broker *b, bw_produce *pr)
{
    bw_appender *appender;
    bw_append_result result;
    bw_err e = bw_part_appender(b, pr->part, &appender);
    if (e) return e;
    bw_produce_before_append(b, pr->part);
    e = bw_append(appender, pr->batch, pr->len, pr->header.last_offset_delta + 1, pr->header.max_timestamp,
                  bw_clock_mono_ns() + BW_PRODUCE_PATIENCE_NS, &result);
    if (e) return e;
    pr->base_offset = result.base_offset;
    pr->end = result.end;
    return BW_OK;
}

static bw_produce_outcome refuse(bw_broker *b, bw_produce *pr, bw_err e)
{
    bw_error_context(e, "topic '%s'", pr->part->topic->name);
    bw_produce_answer(b, pr, e);
    return BW_PRODUCE_FINISHED;
}

bw_produce_outcome bw_produce_try(bw_broker *b, bw_produce *pr)
{
    bw_part *p = pr->part;
    bw_err e;
    if (pr->header.producer_id >= 0) {
        if (!bw_part_have_producers(b, p, &e)) return e ? refuse(b, pr, e) : BW_PRODUCE_PARK;
        bw_producer_batch before;
        bw_sequence s = bw_producers_check(p->producers, &pr->header, &before, &e);
        if (s == BW_SEQUENCE_REFUSED) return refuse(b, pr, e);
        if (s == BW_SEQUENCE_DUPLICATE) {
            pr->base_offset = before.base_offset;
            pr->timestamp = before.timestamp;
            pr->end = before.end;
            if (!pr->end) pr->end = atomic_load_explicit(&slot_of(p)->tail, memory_order_acquire);
            settle(b, pr);
            return BW_PRODUCE_FINISHED;
        }
    }
    if (bw_produce_is_transactional(pr)) {
        e = bw_txn_admit(b, p, pr->header.producer_id, pr->header.producer_epoch);
        if (!e && !bw_txn_flush(b)) return BW_PRODUCE_PARK;
        if (!e) e = bw_txn_begin(p->log, p->producers, pr->header.producer_id, bw_clock_mono_ms());
        if (e) return refuse(b, pr, e);
    }
    e = append_once(b, pr);
    if (e == BW_ERR_FENCED) {
        bw_appender_close(p->appender);
        p->appender = NULL;
        e = append_once(b, pr);
    }
    if (e && bw_produce_is_transactional(pr)) bw_txn_settle(p->log, p->producers);
    if (!e) {
        bw_produce_appended(b, pr);
        return BW_PRODUCE_FINISHED;
    }
    bool later = e == BW_ERR_NO_COORDINATOR || e == BW_ERR_LOCK_HELD || e == BW_ERR_TIMED_OUT;
    if (later && bw_deadline_left_ns(pr->deadline) > 0) return BW_PRODUCE_PARK;
    return refuse(b, pr, e);
}

/* ---- parking ---- */

static void on_retry(void *broker, bw_timer *timer)
{
    bw_part *p = (bw_part *)(void *)((char *)timer - offsetof(bw_part, retry));
    bw_part_serve(broker, p);
}

static void arm_retry(bw_broker *b, bw_part *p)
{
    p->retry.fire = on_retry;
    if (p->parked && !p->retry.index && !p->producers_loading) bw_timers_set(&b->timers, &p->retry, bw_deadline_in_ms(RETRY_MS));
}

void bw_produce_park(bw_broker *b, bw_produce *pr)
{
    bw_part *p = pr->part;
    pr->next = NULL;
    if (p->parked_last) p->parked_last->next = pr;
    else p->parked = pr;
    p->parked_last = pr;
    arm_retry(b, p);
    bw_broker_again(b, p);
}

static void serve_parked(bw_broker *b, bw_part *p)
{
    while (p->parked) {
        bw_produce *pr = p->parked;
        bw_produce *rest = pr->next;
        /* Out of the list while it is tried: the answer may free it. */
        p->parked = rest;
        if (!rest) p->parked_last = NULL;
        if (bw_produce_try(b, pr) == BW_PRODUCE_FINISHED) continue;
        pr->next = p->parked;
        p->parked = pr;
        if (!pr->next) p->parked_last = pr;
        break;
    }
    arm_retry(b, p);
}

static void serve_undurable(bw_broker *b, bw_part *p)
{
    bw_tail_slot *s = slot_of(p);
    uint64_t durable = atomic_load_explicit(&s->durable, memory_order_acquire);
    uint32_t state = atomic_load_explicit(&s->state, memory_order_acquire);
    while (p->undurable && (p->undurable->end <= durable || state != BW_SLOT_OPEN)) {
        bw_produce *pr = p->undurable;
        p->undurable = pr->next;
        if (!p->undurable) p->undurable_last = NULL;
        bw_err e = pr->end <= durable ? BW_OK : state == BW_SLOT_POISONED ? BW_ERR_POISONED : BW_ERR_DELETED;
        if (e)
            bw_fail(e, "topic '%s' partition %u: offset %lld did not reach the disk: %s", p->topic->name, p->index, (long long)pr->base_offset,
                    bw_err_text(e));
        bw_produce_answer(b, pr, e);
    }
}

static void serve_unreplicated(bw_broker *b, bw_part *p)
{
    bw_tail_slot *s = slot_of(p);
    int64_t replicated = (int64_t)atomic_load_explicit(&s->replicated, memory_order_acquire);
    uint32_t state = atomic_load_explicit(&s->state, memory_order_acquire);
    while (p->unreplicated && (next_offset_of(p->unreplicated) <= replicated || state != BW_SLOT_OPEN)) {
        bw_produce *pr = p->unreplicated;
        p->unreplicated = pr->next;
        if (!p->unreplicated) p->unreplicated_last = NULL;
        bw_err e = next_offset_of(pr) <= replicated ? BW_OK : state == BW_SLOT_POISONED ? BW_ERR_POISONED : BW_ERR_DELETED;
        if (e)
            bw_fail(e, "topic '%s' partition %u: offset %lld did not reach enough peers: %s", p->topic->name, p->index,
                    (long long)pr->base_offset, bw_err_text(e));
        bw_produce_answer(b, pr, e);
    }
}

void bw_produce_serve(bw_broker *b, bw_part *p)
{
    if (p->undurable) serve_undurable(b, p);
    if (p->unreplicated) serve_unreplicated(b, p);
    if (p->parked) serve_parked(b, p);
}

bool bw_produce_waiting(const bw_part *p) { return p->undurable || p->unreplicated || p->parked; }

void bw_produce_fail_all(bw_broker *b, bw_part *p, bw_err e)
{
    char why[600];
    strncpy(why, bw_error_message(), sizeof why - 1);
    why[sizeof why - 1] = 0;
    waiting lists[] = {{&p->parked, &p->parked_last}, {&p->undurable, &p->undurable_last}, {&p->unreplicated, &p->unreplicated_last}};
    for (size_t list = 0; list < sizeof lists / sizeof *lists; list++) {
        bw_produce *pr = *lists[list].first;
        *lists[list].first = *lists[list].last = NULL;
        while (pr) {
            bw_produce *next = pr->next;
            bw_error_set_message(e, why);
            bw_produce_answer(b, pr, e);
            pr = next;
        }
    }
}

/* The answers of a session that is gone go nowhere; what waits for one is dropped, unacknowledged. With acks none nothing was to be
 * answered: what was handed over goes on its way, unless the daemon stops. */
static void drop_from(bw_broker *b, bw_session *s, bw_produce **first, bw_produce **last)
{
    *last = NULL;
    for (bw_produce **at = first; *at;) {
        bw_produce *pr = *at;
        if (pr->op->session != s || (pr->acks == BW_ACKS_NONE && !b->draining)) {
            *last = pr;
            at = &pr->next;
            continue;
        }
        *at = pr->next;
        bw_op_finish(pr->op, NULL);
        produce_free(b, pr);
    }
}

void bw_produce_drop_session(bw_broker *b, bw_session *s)
{
    for (uint32_t i = 0; i < b->parts_count; i++) {
        bw_part *p = b->parts[i];
        if (!p) continue;
        if (p->parked) drop_from(b, s, &p->parked, &p->parked_last);
        if (p->undurable) drop_from(b, s, &p->undurable, &p->undurable_last);
        if (p->unreplicated) drop_from(b, s, &p->unreplicated, &p->unreplicated_last);
    }
}
