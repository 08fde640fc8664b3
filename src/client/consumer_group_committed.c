/* client/consumer_group_committed.c: asking for the offsets that a group has committed. See consumer_group.h. */
#include "client/consumer_group.h"

#include "client/backend.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static void forget_fetched(bw_cgroup *g)
{
    for (size_t i = 0; i < g->fetched_count; i++) free(g->fetched[i]);
    free(g->fetched);
    g->fetched = NULL;
    g->fetched_count = 0;
}

static bw_err take_fetched(bw_cgroup *g, const bw_answer *a, bw_topic_partition *parts, size_t count)
{
    if (a->group.part_count != count)
        return bw_fail(BW_ERR_PROTOCOL, "OFFSET_FETCH of %zu partitions was answered with %zu", count, a->group.part_count);
    forget_fetched(g);
    g->fetched = calloc(count, sizeof *g->fetched);
    if (!g->fetched) return bw_fail(BW_ERR_NO_MEMORY, "no memory for committed offsets");
    g->fetched_count = count;
    for (size_t i = 0; i < count; i++) {
        const bw_offset_part *p = &a->group.parts[i];
        parts[i].error = (bw_err)p->error;
        parts[i].offset = p->error || p->offset < 0 ? BW_OFFSET_INVALID : p->offset;
        parts[i].leader_epoch = p->leader_epoch;
        parts[i].metadata = NULL;
        if (!p->metadata.len) continue;
        parts[i].metadata = g->fetched[i] = bw_text_copy(p->metadata.data, p->metadata.len);
        if (!g->fetched[i]) return bw_fail(BW_ERR_NO_MEMORY, "no memory for committed offsets");
    }
    return BW_OK;
}

static bw_err fetch(bw_cgroup *g, bw_request *q, bw_topic_partition *parts, size_t count, bw_deadline deadline)
{
    for (;;) {
        bw_err e = bw_group_advance_until(g, deadline);
        if (!e) {
            bw_reply reply;
            e = bw_conn_request(&g->consumer->conn, q, deadline, &reply);
            if (!e) e = take_fetched(g, &reply.answer, parts, count);
            bw_reply_fini(&reply);
            if (e != BW_ERR_NOT_CONNECTED) return e;
        }
        if (bw_deadline_left_ns(deadline) == 0) return bw_error_context(e, "group %s: the committed offsets", g->id);
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    }
}

bw_err bw_consumer_committed(bw_consumer *c, bw_topic_partition *parts, size_t count, int32_t timeout_ms)
{
    bw_err e = bw_group_check(c);
    if (e) return e;
    if (!parts || count == 0 || count > BW_COMMIT_PARTS_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there are no partitions to ask for");
    BW_DISPATCH(c->bus, committed(c, parts, count, timeout_ms));
    bw_offset_part *list = calloc(count, sizeof *list);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory to ask for %zu partitions", count);
    for (size_t i = 0; i < count && !e; i++) {
        if (!parts[i].topic || strlen(parts[i].topic) > BW_TOPIC_NAME_MAX || parts[i].partition < 0)
            e = bw_fail(BW_ERR_INVALID_ARGUMENT, "one of the partitions to ask for names no topic, or no partition");
        else
            list[i] = (bw_offset_part){.topic = bw_str_of(parts[i].topic), .partition = parts[i].partition, .offset = -1,
                                       .leader_epoch = -1, .timestamp = -1};
    }
    bw_request q;
    bw_request_init(&q, BW_API_OFFSET_FETCH);
    q.group.id = bw_str_of(c->group->id);
    q.group.parts = list;
    q.group.part_count = count;
    if (!e) e = fetch(c->group, &q, parts, count, bw_deadline_in_ms(timeout_ms));
    free(list);
    return e;
}
