/* client/kafka/transaction.c: a producer's transactions on a cluster. The phases are those of client/transaction.c, whose calls check them;
 * librdkafka's three kinds of errors are Busway's: fatal: PRODUCER_FENCED; must be aborted: TRANSACTION_ABORTABLE; else: ask again. */
#include "client/kafka/producer.h"

#include <stdlib.h>
#include <string.h>

enum { UNSTABLE_MS = 5000, UNSTABLE_NAP_MS = 5 };

/* error is destroyed. aborting: what can only be aborted is being aborted. */
static bw_err outcome(bw_kproducer *p, rd_kafka_error_t *error, bool aborting, const char *what)
{
    if (!error) return BW_OK;
    bw_ptxn *t = p->producer->txn;
    rd_kafka_resp_err_t code = RK(error_code)(error);
    bool fatal = RK(error_is_fatal)(error), must_abort = RK(error_txn_requires_abort)(error);
    bw_err e = bw_kafka_error(code);
    if (e == BW_ERR_INVALID_PRODUCER_EPOCH && fatal) e = BW_ERR_PRODUCER_FENCED;
    if (fatal && e == BW_ERR_PRODUCER_FENCED) atomic_store(&t->phase, BW_PTXN_FENCED);
    bw_fail(e, "transactional id '%s': %s: %s (librdkafka: %s)", t->id, what, RK(error_string)(error), RK(err2name)(code));
    RK(error_destroy)(error);
    if (fatal || aborting || !must_abort) return e;
    char why[400];
    snprintf(why, sizeof why, "%s", bw_error_message());
    bw_ptxn_fail(t, e, why);
    return bw_fail(BW_ERR_TRANSACTION_ABORTABLE, "the transaction can only be aborted (%s); call bw_transaction_abort", why);
}

bw_err bw_kafka_txn_init(bw_producer *producer, int32_t timeout_ms)
{
    bw_kproducer *p = producer->foreign;
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    for (;;) {
        rd_kafka_error_t *error = RK(init_transactions)(p->rk, bw_kafka_left_ms(deadline));
        rd_kafka_resp_err_t code = error ? RK(error_code)(error) : RD_KAFKA_RESP_ERR_NO_ERROR;
        /* CONCURRENT_TRANSACTIONS: the cluster is still ending the former producer's; librdkafka does not always call it retriable. */
        bool again = error && code != RD_KAFKA_RESP_ERR__TIMED_OUT && !RK(error_is_fatal)(error) &&
                     (RK(error_is_retriable)(error) || code == RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS);
        if (again && bw_deadline_left_ns(deadline) > 0) {
            RK(error_destroy)(error);
            bw_kafka_nap(50);
            continue;
        }
        if (again) { /* as any wait whose time is over: it may be called again */
            RK(error_destroy)(error);
            return bw_fail(BW_ERR_TIMED_OUT, "transactional id '%s': init: the cluster does not have it ready yet (librdkafka: %s)",
                           producer->txn->id, RK(err2name)(code));
        }
        bw_err e = outcome(p, error, false, "init");
        if (!e) bw_ptxn_now_in(producer->txn, BW_PTXN_READY);
        return e;
    }
}

bw_err bw_kafka_txn_begin(bw_producer *producer)
{
    bw_kproducer *p = producer->foreign;
    bw_err e = outcome(p, RK(begin_transaction)(p->rk), false, "begin");
    if (!e) bw_ptxn_now_in(producer->txn, BW_PTXN_OPEN);
    if (!e) p->offsets_former = p->offsets != NULL;
    return e;
}

/* ---- offsets ---- */

/* A broker (Kafka 3.9) files the end of a transaction with a group's offsets a moment after it was told, and takes with it what the same
 * producer has given the group meanwhile: an abort loses it, a commit commits it too early. So the former transaction's offsets must have
 * come to rest before the next ones go. */
static void await_former(bw_kproducer *p, bw_deadline deadline)
{
    bool unstable = p->offsets_former;
    while (unstable) {
        rd_kafka_topic_partition_list_t *list = NULL;
        if (bw_kafka_group_committed(p->bus, p->offsets_group, p->offsets, true, &list)) break; /* the call that follows says it better */
        unstable = false;
        for (int i = 0; i < list->cnt; i++) unstable |= list->elems[i].err == RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT;
        RK(topic_partition_list_destroy)(list);
        if (bw_deadline_left_ns(deadline) == 0) break; /* another producer's, perhaps */
        if (unstable) bw_kafka_nap(UNSTABLE_NAP_MS);
    }
    if (p->offsets_former && p->offsets) {
        RK(topic_partition_list_destroy)(p->offsets);
        p->offsets = NULL;
    }
    p->offsets_former = false;
}

/* What the next transaction has to wait for. */
static bw_err remember(bw_kproducer *p, const char *group, const rd_kafka_topic_partition_list_t *list)
{
    char *copy = strdup(group);
    if (!copy) return bw_fail(BW_ERR_NO_MEMORY, "no memory for offsets");
    free(p->offsets_group);
    p->offsets_group = copy;
    if (!p->offsets) p->offsets = RK(topic_partition_list_new)(list->cnt);
    for (int i = 0; i < list->cnt; i++)
        if (!RK(topic_partition_list_find)(p->offsets, list->elems[i].topic, list->elems[i].partition))
            RK(topic_partition_list_add)(p->offsets, list->elems[i].topic, list->elems[i].partition);
    return BW_OK;
}

bw_err bw_kafka_txn_send_offsets(bw_producer *producer, const bw_group_metadata *group, const bw_topic_partition *offsets, size_t count,
                                 int32_t timeout_ms)
{
    bw_kproducer *p = producer->foreign;
    rd_kafka_consumer_group_metadata_t *m = RK(consumer_group_metadata_new_with_genid)(
        group->group_id, group->member_epoch, group->member_id ? group->member_id : "", group->group_instance_id);
    if (!m) return bw_fail(BW_ERR_NO_MEMORY, "no memory for offsets");
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)((int)count);
    for (size_t i = 0; i < count; i++) {
        rd_kafka_topic_partition_t *to = RK(topic_partition_list_add)(list, offsets[i].topic, offsets[i].partition);
        to->offset = offsets[i].offset;
        if (offsets[i].metadata) { /* librdkafka frees it with the list, by the C library's free */
            to->metadata = strdup(offsets[i].metadata);
            to->metadata_size = to->metadata ? strlen(offsets[i].metadata) : 0;
        }
    }
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    await_former(p, bw_deadline_first(deadline, bw_deadline_in_ms(UNSTABLE_MS)));
    bw_err e = remember(p, group->group_id, list);
    if (!e) e = outcome(p, RK(send_offsets_to_transaction)(p->rk, list, m, bw_kafka_left_ms(deadline)), false, "offsets");
    RK(topic_partition_list_destroy)(list);
    RK(consumer_group_metadata_destroy)(m);
    return e;
}

static void deliver(bw_kproducer *p)
{
    pthread_mutex_lock(&p->mutex);
    while (p->done) bw_kproducer_deliver(p);
    pthread_mutex_unlock(&p->mutex);
}

bw_err bw_kafka_txn_commit(bw_producer *producer, int32_t timeout_ms)
{
    bw_kproducer *p = producer->foreign;
    bw_ptxn *t = producer->txn;
    bw_err e = BW_OK;
    if (atomic_load(&t->phase) == BW_PTXN_OPEN) { /* every record has its outcome first: one that failed is the reason then */
        e = bw_kafka_flush(producer, timeout_ms);
        if (e) return e;
        if (atomic_load(&t->failed)) return bw_ptxn_check_send(t);
        atomic_store(&t->phase, BW_PTXN_COMMITTING);
    }
    e = outcome(p, RK(commit_transaction)(p->rk, timeout_ms), false, "commit");
    deliver(p);
    if (!e) bw_ptxn_now_in(t, BW_PTXN_READY);
    else if (e == BW_ERR_TRANSACTION_ABORTABLE) atomic_store(&t->phase, BW_PTXN_OPEN);
    return e;
}

bw_err bw_kafka_txn_abort(bw_producer *producer, int32_t timeout_ms)
{
    bw_kproducer *p = producer->foreign;
    bw_ptxn *t = producer->txn;
    atomic_store(&t->phase, BW_PTXN_ABORTING);
    bw_err e = outcome(p, RK(abort_transaction)(p->rk, timeout_ms), true, "abort");
    if (!e) bw_ptxn_now_in(t, BW_PTXN_READY);
    return e;
}
