/* client/transaction.c: init, begin, commit, abort, offsets.
 *
 * Commit: every batch gets its outcome, then END_TXN, asked again until it is answered: the daemon gives the same outcome each time.
 * Abort: batches without an outcome are taken back. When all had one: END_TXN. Otherwise one may still be on its way, over a
 * connection that is gone: INIT_PRODUCER_ID with the present epoch, which aborts and raises the epoch, so that it is refused. */
#include "client/transaction.h"

#include "client/async.h"
#include "client/backend.h"

#include <busway/transaction.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { NAP_FIRST_NS = 200000, NAP_MOST_NS = 20000000 };

/* ---- state ---- */

bw_err bw_ptxn_open(const bw_producer_options *o, bw_ptxn **out)
{
    *out = NULL;
    if (!o->transactional_id || !*o->transactional_id) return BW_OK;
    if (!o->enable_idempotence || o->acks == BW_ACKS_NONE)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "producer options: transactional_id needs enable_idempotence and acks visible or durable");
    bw_ptxn *t = calloc(1, sizeof *t);
    if (t) t->id = strdup(o->transactional_id);
    if (!t || !t->id) {
        free(t);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a producer");
    }
    t->timeout_ms = o->transaction_timeout_ms;
    t->durable = o->acks == BW_ACKS_DURABLE;
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return BW_OK;
}

void bw_ptxn_free(bw_ptxn *t)
{
    if (!t) return;
    pthread_mutex_destroy(&t->lock);
    free(t->id);
    free(t);
}

void bw_ptxn_fail(bw_ptxn *t, bw_err e, const char *message)
{
    uint32_t phase = atomic_load(&t->phase);
    if (phase != BW_PTXN_OPEN && phase != BW_PTXN_COMMITTING) return;
    pthread_mutex_lock(&t->lock);
    if (!atomic_load(&t->failed)) {
        t->why_error = e;
        snprintf(t->why, sizeof t->why, "%s: %s", bw_err_name(e), message && *message ? message : bw_err_text(e));
    }
    pthread_mutex_unlock(&t->lock);
    atomic_store(&t->failed, true);
}

static bw_err abortable(bw_ptxn *t)
{
    pthread_mutex_lock(&t->lock);
    bw_err e = bw_fail(BW_ERR_TRANSACTION_ABORTABLE, "the transaction can only be aborted (%s); call bw_transaction_abort", t->why);
    pthread_mutex_unlock(&t->lock);
    return e;
}

static bw_err fenced(const bw_ptxn *t)
{
    return bw_fail(BW_ERR_PRODUCER_FENCED, "another producer uses transactional id '%s'; close this one", t->id);
}

bw_err bw_ptxn_check_send(bw_ptxn *t)
{
    uint32_t phase = atomic_load_explicit(&t->phase, memory_order_relaxed);
    if (phase == BW_PTXN_OPEN) return atomic_load_explicit(&t->failed, memory_order_relaxed) ? abortable(t) : BW_OK;
    if (phase == BW_PTXN_FENCED) return fenced(t);
    return bw_fail(BW_ERR_INVALID_TXN_STATE, phase == BW_PTXN_NEW ? "transactional id '%s': call bw_transactions_init, then bw_transaction_begin"
                                             : phase == BW_PTXN_READY ? "transactional id '%s': call bw_transaction_begin first"
                                                                      : "transactional id '%s': the transaction is being ended", t->id);
}

static bw_err check(bw_producer *p)
{
    if (!p) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no producer");
    BW_CHECK_FORK(p->bus);
    if (atomic_load(&p->closed)) return bw_fail(BW_ERR_CLOSED, "the producer is closed");
    if (!p->txn) return bw_fail(BW_ERR_INVALID_TXN_STATE, "the producer has no transactional_id");
    return atomic_load(&p->txn->phase) == BW_PTXN_FENCED ? fenced(p->txn) : BW_OK;
}

/* ---- asking ---- */

/* Is the same request to be sent again? */
static bool again(bw_err e)
{
    return e == BW_ERR_CONCURRENT_TRANSACTIONS || e == BW_ERR_NOT_CONNECTED || e == BW_ERR_NO_COORDINATOR || e == BW_ERR_BUSY ||
           e == BW_ERR_DISK_FULL || e == BW_ERR_NO_MEMORY;
}

/* Until it is answered with anything but "later". All requests of transactions may be sent twice. */
static bw_err ask(bw_producer *p, bw_request *q, bw_deadline deadline, bw_reply *reply)
{
    int64_t nap = NAP_FIRST_NS;
    for (;;) {
        bw_err e = bw_bus_request(p->bus, q, deadline, reply);
        if (!again(e)) return e;
        if (bw_deadline_left_ns(deadline) == 0) return bw_error_context(BW_ERR_TIMED_OUT, "%s in time", bw_api_name(q->type));
        bw_reply_fini(reply);
        memset(reply, 0, sizeof *reply);
        int64_t left = bw_deadline_left_ns(deadline), rest = nap < left ? nap : left;
        nanosleep(&(struct timespec){.tv_nsec = rest}, NULL);
        nap = nap * 2 < NAP_MOST_NS ? nap * 2 : NAP_MOST_NS;
    }
}

static bw_err ask_init(bw_producer *p, bool raise, bw_deadline deadline)
{
    bw_request q;
    bw_reply reply = {0};
    bw_request_init(&q, BW_API_INIT_PRODUCER_ID);
    q.txn.id = bw_str_of(p->txn->id);
    q.txn.timeout_ms = p->txn->timeout_ms;
    if (raise) {
        q.txn.producer_id = p->producer_id;
        q.txn.producer_epoch = p->producer_epoch;
    }
    bw_err e = ask(p, &q, deadline, &reply);
    if (!e) {
        pthread_mutex_lock(&p->mutex);
        p->producer_id = reply.answer.producer_id;
        p->producer_epoch = reply.answer.producer_epoch;
        pthread_mutex_unlock(&p->mutex);
    }
    bw_reply_fini(&reply);
    return e;
}

static bw_err ask_end(bw_producer *p, bool commit, bw_deadline deadline)
{
    bw_request q;
    bw_reply reply = {0};
    bw_request_init(&q, BW_API_END_TXN);
    q.txn.id = bw_str_of(p->txn->id);
    q.txn.producer_id = p->producer_id;
    q.txn.producer_epoch = p->producer_epoch;
    q.txn.commit = commit;
    q.txn.durable = commit && p->txn->durable;
    bw_err e = ask(p, &q, deadline, &reply);
    bw_reply_fini(&reply);
    return e;
}

/* ---- the calls ---- */

void bw_ptxn_now_in(bw_ptxn *t, bw_ptxn_phase phase)
{
    atomic_store(&t->failed, false);
    atomic_store(&t->used, false);
    atomic_store(&t->phase, phase);
}

bw_err bw_transactions_init(bw_producer *p, int32_t timeout_ms)
{
    bw_err e = check(p);
    if (e) return e;
    if (atomic_load(&p->txn->phase) != BW_PTXN_NEW)
        return bw_fail(BW_ERR_INVALID_TXN_STATE, "transactional id '%s' is initialised already", p->txn->id);
    BW_DISPATCH(p->bus, txn_init(p, timeout_ms));
    e = ask_init(p, false, bw_deadline_in_ms(timeout_ms));
    if (!e) bw_ptxn_now_in(p->txn, BW_PTXN_READY);
    return e;
}

bw_err bw_transaction_begin(bw_producer *p)
{
    bw_err e = check(p);
    if (e) return e;
    uint32_t phase = atomic_load(&p->txn->phase);
    if (phase != BW_PTXN_READY)
        return bw_fail(BW_ERR_INVALID_TXN_STATE, phase == BW_PTXN_NEW ? "transactional id '%s': call bw_transactions_init first"
                                                                      : "transactional id '%s': a transaction is open", p->txn->id);
    BW_DISPATCH(p->bus, txn_begin(p));
    bw_ptxn_now_in(p->txn, BW_PTXN_OPEN);
    return BW_OK;
}

static bw_err must_be_open(bw_ptxn *t, bool committing_too)
{
    uint32_t phase = atomic_load(&t->phase);
    if (phase == BW_PTXN_OPEN || (committing_too && phase == BW_PTXN_COMMITTING)) return atomic_load(&t->failed) ? abortable(t) : BW_OK;
    return bw_fail(BW_ERR_INVALID_TXN_STATE, "transactional id '%s': %s", t->id,
                   phase == BW_PTXN_COMMITTING ? "a commit was asked for and its outcome is not known: commit again" : "no transaction was begun");
}

static bw_err first_error(const bw_answer *a)
{
    for (size_t i = 0; i < a->group.part_count; i++)
        if (a->group.parts[i].error) return (bw_err)a->group.parts[i].error;
    return BW_OK;
}

bw_err bw_transaction_send_offsets(bw_producer *p, const bw_group_metadata *group, const bw_topic_partition *offsets, size_t count,
                                   int32_t timeout_ms)
{
    bw_err e = check(p);
    if (e) return e;
    e = must_be_open(p->txn, false);
    if (e) return e;
    if (!group || !group->group_id || (count && !offsets)) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no group, or there are no offsets");
    if (count == 0) return BW_OK;
    BW_DISPATCH(p->bus, txn_send_offsets(p, group, offsets, count, timeout_ms));
    bw_offset_part *parts = calloc(count, sizeof *parts);
    if (!parts) return bw_fail(BW_ERR_NO_MEMORY, "no memory for offsets");
    for (size_t i = 0; i < count; i++)
        parts[i] = (bw_offset_part){.topic = bw_str_of(offsets[i].topic), .partition = offsets[i].partition, .offset = offsets[i].offset,
                                    .leader_epoch = offsets[i].leader_epoch, .metadata = bw_str_of(offsets[i].metadata), .timestamp = -1};
    bw_request q;
    bw_reply reply = {0};
    bw_request_init(&q, BW_API_TXN_OFFSET_COMMIT);
    q.txn.id = bw_str_of(p->txn->id);
    q.txn.producer_id = p->producer_id;
    q.txn.producer_epoch = p->producer_epoch;
    q.group.id = bw_str_of(group->group_id);
    q.group.member = bw_str_of(group->member_id);
    q.group.instance = bw_str_of(group->group_instance_id);
    q.group.epoch = group->member_epoch;
    q.group.parts = parts;
    q.group.part_count = count;
    atomic_store(&p->txn->used, true);
    e = ask(p, &q, bw_deadline_in_ms(timeout_ms), &reply);
    if (!e && (e = first_error(&reply.answer)) != BW_OK) bw_fail(e, "the offsets of group %s were refused: %s", group->group_id, bw_err_text(e));
    if (e) bw_ptxn_fail(p->txn, e, bw_error_message());
    bw_reply_fini(&reply);
    free(parts);
    return e;
}

static bw_err fail_commit(bw_ptxn *t, bw_err e)
{
    if (e == BW_ERR_TIMED_OUT) return e; /* asked again with the same outcome */
    bw_ptxn_fail(t, e, bw_error_message());
    atomic_store(&t->phase, BW_PTXN_OPEN);
    return abortable(t);
}

bw_err bw_transaction_commit(bw_producer *p, int32_t timeout_ms)
{
    bw_err e = check(p);
    if (e) return e;
    e = must_be_open(p->txn, true);
    if (e) return e;
    BW_DISPATCH(p->bus, txn_commit(p, timeout_ms));
    bw_ptxn *t = p->txn;
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    if (atomic_load(&t->phase) == BW_PTXN_OPEN) {
        e = bw_producer_flush(p, timeout_ms); /* callbacks may say that something failed */
        if (e == BW_ERR_TIMED_OUT) return e;
        if (atomic_load(&t->failed)) return abortable(t);
        if (!atomic_load(&t->used)) {
            bw_ptxn_now_in(t, BW_PTXN_READY);
            return BW_OK;
        }
        atomic_store(&t->phase, BW_PTXN_COMMITTING);
    }
    e = ask_end(p, true, deadline);
    if (e) return fail_commit(t, e);
    bw_ptxn_now_in(t, BW_PTXN_READY);
    return BW_OK;
}

/* Everything without an outcome comes back. true: none of it was on its way. */
static bool take_back(bw_producer *p)
{
    bool clean = true;
    do {
        pthread_mutex_lock(&p->bus->mutex);
        while (p->bus->serving == p) pthread_cond_wait(&p->bus->idle, &p->bus->mutex);
        pthread_mutex_unlock(&p->bus->mutex);
        for (bw_ptopic *t = p->topics; t; t = t->next)
            for (int32_t i = 0; i < atomic_load(&t->partitions); i++) {
                bw_ppart *part = atomic_load(&t->parts[i]);
                if (part) clean &= bw_ppart_take_back(part, BW_ERR_TRANSACTION_ABORTABLE, "its transaction was aborted");
            }
    } while (atomic_load(&p->outstanding));
    return clean;
}

bw_err bw_transaction_abort(bw_producer *p, int32_t timeout_ms)
{
    bw_err e = check(p);
    if (e) return e;
    bw_ptxn *t = p->txn;
    uint32_t phase = atomic_load(&t->phase);
    if (phase != BW_PTXN_OPEN && phase != BW_PTXN_ABORTING) return must_be_open(t, false);
    BW_DISPATCH(p->bus, txn_abort(p, timeout_ms));
    bool clean = phase == BW_PTXN_OPEN && !atomic_load(&t->failed);
    atomic_store(&t->phase, BW_PTXN_ABORTING);
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    clean &= take_back(p);
    bool used = atomic_load(&t->used);
    e = clean && used ? ask_end(p, false, deadline) : BW_OK;
    if (!clean || (e && e != BW_ERR_TIMED_OUT)) e = ask_init(p, true, deadline);
    if (e == BW_ERR_PRODUCER_FENCED || e == BW_ERR_INVALID_PRODUCER_ID_MAPPING) {
        atomic_store(&t->phase, BW_PTXN_FENCED);
        return e == BW_ERR_PRODUCER_FENCED ? e : fenced(t);
    }
    if (!e) bw_ptxn_now_in(t, BW_PTXN_READY);
    return e;
}
