/* client/kafka/commit.c: commits of a group's offsets. Answers of asynchronous ones come to a queue of their own, in the order of the
 * calls; their callbacks run in bw_consumer_poll, _commit, _unsubscribe and _close. */
#include "client/kafka/consumer.h"

#include <stdlib.h>
#include <string.h>

enum { COMMITS_MAX = 1024, FOREVER_SLICE_MS = 1000 };

static bw_err check_group(const bw_kconsumer *k)
{
    return k->group ? BW_OK : bw_fail(BW_ERR_INVALID_ARGUMENT, "commits are a group's: open the consumer with a group_id");
}

/* A list for librdkafka; NULL and the message when a part can't be committed. */
static rd_kafka_topic_partition_list_t *list_of(const bw_kconsumer *k, const bw_topic_partition *parts, size_t count, bw_err *e)
{
    if (!parts) return bw_kpart_list(k, NULL, true);
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)((int)count);
    for (size_t i = 0; i < count; i++) {
        const bw_topic_partition *p = &parts[i];
        if (!p->topic || !*p->topic || p->partition < 0) *e = bw_fail(BW_ERR_INVALID_ARGUMENT, "one of the offsets to commit names no partition");
        else if (p->offset < 0)
            *e = bw_fail(BW_ERR_INVALID_COMMIT_OFFSET, "topic %s partition %d: %lld is no offset", p->topic, p->partition, (long long)p->offset);
        if (*e) {
            RK(topic_partition_list_destroy)(list);
            return NULL;
        }
        rd_kafka_topic_partition_t *to = RK(topic_partition_list_add)(list, p->topic, p->partition);
        to->offset = p->offset;
        if (p->metadata && (to->metadata = strdup(p->metadata))) to->metadata_size = strlen(p->metadata);
    }
    return list;
}

/* The outcome of all; of each into parts, which may be NULL. */
static bw_err outcome(const bw_kconsumer *k, rd_kafka_event_t *event, bw_topic_partition *parts, size_t count)
{
    rd_kafka_resp_err_t r = RK(event_error)(event);
    const rd_kafka_topic_partition_list_t *list = RK(event_topic_partition_list)(event);
    if (r == RD_KAFKA_RESP_ERR__NO_OFFSET) r = RD_KAFKA_RESP_ERR_NO_ERROR; /* nothing is to be committed */
    bw_err e = r ? bw_kafka_fail(r, NULL, "group %s: commit", k->group) : BW_OK;
    for (size_t i = 0; i < count; i++) { /* librdkafka has sorted them */
        const rd_kafka_topic_partition_t *at = list ? RK(topic_partition_list_find)(list, parts[i].topic, parts[i].partition) : NULL;
        parts[i].error = bw_kafka_error(at && at->err ? at->err : r);
    }
    for (int i = 0; list && i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *at = &list->elems[i];
        if (at->err && (!e || e == bw_kafka_error(at->err)))
            e = bw_kafka_fail(at->err, NULL, "group %s: commit of topic %s partition %d", k->group, at->topic, at->partition);
    }
    return e;
}

bw_err bw_kafka_commit(bw_consumer *c, bw_topic_partition *parts, size_t count, int32_t timeout_ms)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    bw_err e = check_group(k);
    if (e) return e;
    if (parts && count == 0) return BW_OK;
    rd_kafka_topic_partition_list_t *list = list_of(k, parts, count, &e);
    if (e) return e;
    if (list->cnt == 0) {
        RK(topic_partition_list_destroy)(list);
        return BW_OK;
    }
    rd_kafka_queue_t *queue = RK(queue_new)(k->rk);
    rd_kafka_resp_err_t r = RK(commit_queue)(k->rk, list, queue, NULL, NULL);
    RK(topic_partition_list_destroy)(list);
    rd_kafka_event_t *event = NULL;
    while (!r && !event) {
        int left = bw_kafka_left_ms(deadline);
        event = RK(queue_poll)(queue, timeout_ms < 0 || left > FOREVER_SLICE_MS ? FOREVER_SLICE_MS : left);
        if (!event && timeout_ms >= 0 && bw_deadline_left_ns(deadline) == 0) break;
    }
    if (r) e = bw_kafka_fail(r, NULL, "group %s: commit", k->group);
    else if (event) e = outcome(k, event, parts, parts ? count : 0);
    else e = bw_fail(BW_ERR_TIMED_OUT, "group %s: the commit has no outcome yet", k->group);
    if (event) RK(event_destroy)(event);
    RK(queue_destroy)(queue);
    if (k->commits && !k->calling) bw_kcommits_serve(k, 0);
    return e;
}

bw_err bw_kafka_commit_async(bw_consumer *c, const bw_topic_partition *parts, size_t count, bw_commit_fn callback, void *opaque)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_err e = check_group(k);
    if (e) return e;
    if (k->commits >= COMMITS_MAX)
        return bw_fail(BW_ERR_QUEUE_FULL, "group %s: %u commits are on their way; poll, so that their answers are read", k->group, k->commits);
    bw_kcommit *commit = malloc(sizeof *commit);
    if (!commit) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a commit");
    *commit = (bw_kcommit){callback, opaque};
    rd_kafka_topic_partition_list_t *list = list_of(k, parts, count, &e);
    if (!e) {
        rd_kafka_resp_err_t r = RK(commit_queue)(k->rk, list, k->answers, NULL, commit);
        if (r) e = bw_kafka_fail(r, NULL, "group %s: commit", k->group);
        RK(topic_partition_list_destroy)(list);
    }
    if (e) free(commit);
    else k->commits++;
    return e;
}

static void tell(bw_kconsumer *k, const bw_kcommit *commit, rd_kafka_event_t *event)
{
    const rd_kafka_topic_partition_list_t *list = RK(event_topic_partition_list)(event);
    size_t count = list ? (size_t)list->cnt : 0;
    bw_topic_partition *parts = calloc(count ? count : 1, sizeof *parts);
    for (size_t i = 0; parts && i < count; i++)
        parts[i] = (bw_topic_partition){.topic = list->elems[i].topic, .partition = list->elems[i].partition, .offset = list->elems[i].offset,
                                        .leader_epoch = -1};
    bw_err e = outcome(k, event, parts, parts ? count : 0);
    bool outer = k->calling;
    k->calling = true;
    commit->callback(k->consumer, e, parts, parts ? count : 0, commit->opaque);
    k->calling = outer;
    free(parts);
}

void bw_kcommits_serve(bw_kconsumer *k, bw_deadline deadline)
{
    while (k->commits) {
        rd_kafka_event_t *event = RK(queue_poll)(k->answers, deadline ? bw_kafka_left_ms(deadline) : 0);
        if (!event) return;
        bw_kcommit *commit = RK(event_opaque)(event);
        if (RK(event_type)(event) == RD_KAFKA_EVENT_OFFSET_COMMIT && commit) {
            k->commits--;
            if (commit->callback) tell(k, commit, event);
            free(commit);
        }
        RK(event_destroy)(event);
    }
}

bw_err bw_kafka_committed(bw_consumer *c, bw_topic_partition *parts, size_t count, int32_t timeout_ms)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_err e = check_group(k);
    if (e) return e;
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)((int)count);
    for (size_t i = 0; i < count && !e; i++) {
        if (!parts[i].topic || parts[i].partition < 0)
            e = bw_fail(BW_ERR_INVALID_ARGUMENT, "one of the partitions to ask for names no topic, or no partition");
        else RK(topic_partition_list_add)(list, parts[i].topic, parts[i].partition);
    }
    for (size_t i = 0; i < k->fetched_count; i++) free(k->fetched[i]);
    free(k->fetched);
    k->fetched_count = 0;
    k->fetched = calloc(count, sizeof *k->fetched);
    if (!e && !k->fetched) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for committed offsets");
    if (!e) {
        rd_kafka_resp_err_t r = RK(committed)(k->rk, list, timeout_ms);
        if (r) e = bw_kafka_fail_wait(k->bus, r, "asking for committed offsets");
    }
    for (size_t i = 0; i < count && !e; i++) {
        const rd_kafka_topic_partition_t *at = &list->elems[i];
        parts[i].error = bw_kafka_error(at->err);
        parts[i].offset = at->err || at->offset < 0 ? BW_OFFSET_INVALID : at->offset;
        parts[i].leader_epoch = -1;
        parts[i].metadata = NULL;
        if (!at->metadata_size) continue;
        parts[i].metadata = k->fetched[i] = strndup(at->metadata, at->metadata_size);
        k->fetched_count = i + 1;
    }
    RK(topic_partition_list_destroy)(list);
    return e;
}
