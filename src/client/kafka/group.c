/* client/kafka/group.c: a member of a group on a cluster: subscribing, rebalances, leaving.
 *
 * Where a partition begins is decided here when it is assigned: the group's committed offset, else auto_offset_reset's end; so the program's
 * callback knows the position and may change it before librdkafka begins to read.
 * Commits by interval are librdkafka's, of the positions that bw_kgroup_store gave it: of batches that a later poll has followed. */
#include "client/kafka/consumer.h"

#include <stdlib.h>
#include <string.h>

enum { COMMITTED_MS = 10000, SERVE_MS = 50 };

static bw_err check_group(const bw_kconsumer *k, const char *what)
{
    if (!k->group) return bw_fail(BW_ERR_INVALID_ARGUMENT, "subscribing is a group's: open the consumer with a group_id");
    return bw_kconsumer_check_call(k, what);
}

void bw_kgroup_store(bw_kconsumer *k, bool all)
{
    bw_kpart *given = k->given;
    k->given = NULL;
    if (!k->auto_commit || (!all && !given) || !k->parts) return;
    rd_kafka_topic_partition_list_t *list = bw_kpart_list(k, all ? NULL : given, true);
    if (list->cnt) (void)RK(offsets_store)(k->rk, list); /* one that is not assigned any more has nothing to commit */
    RK(topic_partition_list_destroy)(list);
}

/* ---- rebalances ---- */

static bw_err tell(bw_kconsumer *k, bw_rebalance event, const rd_kafka_topic_partition_list_t *list)
{
    const bw_consumer_options *o = &k->consumer->options;
    if (!o->on_rebalance || list->cnt == 0) return BW_OK;
    bw_topic_partition *parts = calloc((size_t)list->cnt, sizeof *parts);
    if (!parts) return bw_fail(BW_ERR_NO_MEMORY, "group %s: no memory to tell the program of %d partitions", k->group, list->cnt);
    for (int i = 0; i < list->cnt; i++) {
        const bw_kpart *p = bw_kpart_find(k, list->elems[i].topic, list->elems[i].partition);
        parts[i] = (bw_topic_partition){.topic = list->elems[i].topic, .partition = list->elems[i].partition, .leader_epoch = -1,
                                        .offset = p ? p->position : BW_OFFSET_INVALID};
    }
    k->calling = true;
    o->on_rebalance(k->consumer, event, parts, (size_t)list->cnt, o->rebalance_opaque);
    k->calling = false;
    free(parts);
    return BW_OK;
}

/* Where the new ones begin. What can't be found out now librdkafka finds out itself. */
static void find_positions(bw_kconsumer *k, rd_kafka_topic_partition_list_t *list)
{
    bw_offset_reset reset = k->consumer->options.auto_offset_reset;
    if (RK(committed)(k->rk, list, COMMITTED_MS)) return;
    rd_kafka_topic_partition_list_t *none = RK(topic_partition_list_new)(1);
    for (int i = 0; i < list->cnt; i++) {
        rd_kafka_topic_partition_t *at = &list->elems[i];
        bw_kpart *p = bw_kpart_find(k, at->topic, at->partition);
        if (!p || at->err) continue;
        if (at->offset >= 0) p->position = at->offset;
        else if (reset == BW_RESET_ERROR) p->untold = p->stopped = true;
        else RK(topic_partition_list_add)(none, at->topic, at->partition)->offset = reset == BW_RESET_LATEST ? BW_OFFSET_END : BW_OFFSET_BEGINNING;
    }
    if (none->cnt && !bw_kafka_offsets(k->bus, k->rk, none, bw_bus_request_deadline(k->bus->bus)))
        for (int i = 0; i < none->cnt; i++) {
            bw_kpart *p = bw_kpart_find(k, none->elems[i].topic, none->elems[i].partition);
            if (p) p->position = none->elems[i].offset;
        }
    RK(topic_partition_list_destroy)(none);
}

static void assigned(bw_kconsumer *k, rd_kafka_topic_partition_list_t *list, bool eager)
{
    for (int i = 0; i < list->cnt; i++)
        if (!bw_kpart_find(k, list->elems[i].topic, list->elems[i].partition) &&
            !bw_kpart_add(k, list->elems[i].topic, list->elems[i].partition))
            bw_bus_log(k->bus->bus, BW_LOG_ERROR, "group %s: no memory for a partition", k->group);
    if (list->cnt) find_positions(k, list);
    bw_err e = tell(k, BW_REBALANCE_ASSIGNED, list);
    rd_kafka_topic_partition_list_t *from = RK(topic_partition_list_new)(list->cnt);
    for (int i = 0; i < list->cnt; i++) {
        bw_kpart *p = bw_kpart_find(k, list->elems[i].topic, list->elems[i].partition);
        if (!p) continue;
        /* One without a position waits for a seek: at the end, in silence. */
        int64_t at = p->position >= 0 ? p->position : p->stopped ? RD_KAFKA_OFFSET_END : RD_KAFKA_OFFSET_STORED;
        RK(topic_partition_list_add)(from, p->topic, p->partition)->offset = at;
        p->live = true;
        p->restart = false;
    }
    rd_kafka_error_t *error = NULL;
    rd_kafka_resp_err_t r = RD_KAFKA_RESP_ERR_NO_ERROR;
    if (eager) r = RK(assign)(k->rk, from);
    else error = RK(incremental_assign)(k->rk, from);
    for (bw_kpart *p = k->parts; p; p = p->hh.next) {
        if (p->live && p->restart) (void)bw_kpart_restart(k, p); /* kept, and sought by the callback */
        if (!p->paused || !p->live) continue;
        rd_kafka_topic_partition_list_t *one = bw_kpart_list(k, p, false);
        RK(pause_partitions)(k->rk, one);
        RK(topic_partition_list_destroy)(one);
    }
    if (r) e = bw_kafka_fail(r, NULL, "group %s", k->group);
    if (error) e = bw_kafka_fail_object(error, "group %s", k->group);
    if (e) bw_bus_log(k->bus->bus, BW_LOG_ERROR, "%s", bw_error_message());
    RK(topic_partition_list_destroy)(from);
}

static void revoked(bw_kconsumer *k, rd_kafka_topic_partition_list_t *list, bool eager)
{
    bool lost = RK(assignment_lost)(k->rk) != 0;
    if (!lost) bw_kgroup_store(k, true);
    if (lost && list->cnt && !k->closing) {
        k->lost = BW_ERR_FENCED_MEMBER_EPOCH;
        snprintf(k->lost_topic, sizeof k->lost_topic, "%s", list->elems[0].topic);
        k->lost_partition = list->elems[0].partition;
    }
    (void)tell(k, lost ? BW_REBALANCE_LOST : BW_REBALANCE_REVOKED, list);
    if (!lost && !k->closing) bw_kcommits_serve(k, bw_deadline_in_ms(SERVE_MS));
    for (int i = 0; i < list->cnt; i++) {
        bw_kpart *p = bw_kpart_find(k, list->elems[i].topic, list->elems[i].partition);
        if (p) bw_kpart_remove(k, p);
    }
    if (eager) {
        RK(assign)(k->rk, NULL);
    } else {
        rd_kafka_error_t *error = RK(incremental_unassign)(k->rk, list);
        if (error) RK(error_destroy)(error); /* they are gone either way */
    }
}

void bw_kgroup_rebalance(bw_kconsumer *k, rd_kafka_event_t *event)
{
    rd_kafka_topic_partition_list_t *list = RK(event_topic_partition_list)(event);
    const char *protocol = RK(rebalance_protocol)(k->rk);
    bool eager = !protocol || strcmp(protocol, "COOPERATIVE") != 0;
    if (RK(event_error)(event) == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) assigned(k, list, eager);
    else revoked(k, list, eager);
}

/* ---- subscribing and leaving ---- */

/* Busway matches whole names; librdkafka looks for the expression anywhere behind '^'. */
static bool add_topic(rd_kafka_topic_partition_list_t *list, const char *name)
{
    if (name[0] != '^') return RK(topic_partition_list_add)(list, name, RD_KAFKA_PARTITION_UA) != NULL;
    size_t size = strlen(name) + 8;
    char *whole = malloc(size);
    if (!whole) return false;
    snprintf(whole, size, "^(%s)$", name + 1);
    RK(topic_partition_list_add)(list, whole, RD_KAFKA_PARTITION_UA);
    free(whole);
    return true;
}

bw_err bw_kafka_subscribe(bw_consumer *c, const char *const *topics, size_t count)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_err e = check_group(k, "bw_consumer_subscribe");
    if (e) return e;
    if (!k->topics && k->parts)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "partitions are assigned by hand; unassign them before subscribing");
    char **copy = bw_names_copy(topics, count);
    if (!copy) return bw_fail(BW_ERR_NO_MEMORY, "no memory to subscribe to %zu topics", count);
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)((int)count);
    for (size_t i = 0; i < count && !e; i++)
        if (!add_topic(list, topics[i])) e = bw_fail(BW_ERR_NO_MEMORY, "no memory to subscribe to %zu topics", count);
    if (!e) {
        rd_kafka_resp_err_t r = RK(subscribe)(k->rk, list);
        if (r) e = bw_kafka_fail(r, NULL, "group %s: subscribing", k->group);
    }
    RK(topic_partition_list_destroy)(list);
    if (e) {
        free(copy);
        return e;
    }
    free(k->topics);
    k->topics = copy;
    k->topic_count = count;
    return BW_OK;
}

/* Events that are not messages, until there are no partitions any more, or (closing) librdkafka is done. */
static void serve_until_left(bw_kconsumer *k, bw_deadline deadline)
{
    bw_kconsumer_drop(k, NULL);
    while (k->closing ? !RK(consumer_closed)(k->rk) : k->parts != NULL) {
        rd_kafka_event_t *event = k->held ? k->held : RK(queue_poll)(k->queue, SERVE_MS);
        k->held = NULL;
        if (event && RK(event_type)(event) == RD_KAFKA_EVENT_REBALANCE) bw_kgroup_rebalance(k, event);
        if (event) RK(event_destroy)(event);
        if (bw_deadline_left_ns(deadline) == 0) break;
    }
}

void bw_kgroup_leave(bw_kconsumer *k, bw_deadline deadline)
{
    bw_kgroup_store(k, true);
    k->closing = true;
    rd_kafka_error_t *error = RK(consumer_close_queue)(k->rk, k->queue);
    if (error) RK(error_destroy)(error); /* it was closed by a fatal error */
    else serve_until_left(k, deadline);
    bw_kcommits_serve(k, deadline);
}

bw_err bw_kafka_unsubscribe(bw_consumer *c)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_err e = check_group(k, "bw_consumer_unsubscribe");
    if (e) return e;
    if (!k->topics) return bw_fail(BW_ERR_NOT_SUBSCRIBED, "this consumer is not subscribed");
    bw_kgroup_store(k, true);
    rd_kafka_resp_err_t r = RK(unsubscribe)(k->rk);
    if (r) return bw_kafka_fail(r, NULL, "group %s: unsubscribing", k->group);
    serve_until_left(k, bw_deadline_in_ms(BW_GROUP_CLOSE_MS));
    bw_kcommits_serve(k, bw_deadline_in_ms(BW_GROUP_CLOSE_MS));
    free(k->topics);
    k->topics = NULL;
    k->topic_count = 0;
    k->lost = BW_OK;
    return BW_OK;
}

/* ---- what it is ---- */

bw_err bw_kafka_subscription(bw_consumer *c, const char ***topics, size_t *count)
{
    const bw_kconsumer *k = bw_kconsumer_of(c);
    char **copy = bw_names_copy((const char *const *)k->topics, k->topic_count);
    if (!copy) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a list of %zu topics", k->topic_count);
    *topics = (const char **)copy;
    *count = k->topic_count;
    return BW_OK;
}

/* librdkafka tells a generation only within the text that it makes for other clients of its own: "CGMDv2:", the generation in this
 * machine's byte order, then the names. */
static int32_t generation_of(const bw_kconsumer *k)
{
    static const char magic[] = "CGMDv2:";
    int32_t generation = -1;
    void *text = NULL;
    size_t size = 0;
    rd_kafka_consumer_group_metadata_t *m = RK(consumer_group_metadata)(k->rk);
    if (!m) return -1;
    rd_kafka_error_t *error = RK(consumer_group_metadata_write)(m, &text, &size);
    if (error) RK(error_destroy)(error);
    else if (size >= sizeof magic - 1 + sizeof generation && memcmp(text, magic, sizeof magic - 1) == 0)
        memcpy(&generation, (char *)text + sizeof magic - 1, sizeof generation);
    if (text) RK(mem_free)(k->rk, text);
    RK(consumer_group_metadata_destroy)(m);
    return generation;
}

bw_err bw_kafka_group_metadata(bw_consumer *c, bw_group_metadata *out)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    if (!k->group) return bw_fail(BW_ERR_INVALID_ARGUMENT, "this consumer has no group: open it with a group_id");
    char *member = k->topics ? RK(memberid)(k->rk) : NULL;
    free(k->member);
    k->member = strdup(member ? member : "");
    if (member) RK(mem_free)(k->rk, member);
    if (!k->member) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a member's id");
    *out = (bw_group_metadata){k->group, k->member, k->instance, *k->member ? generation_of(k) : -1};
    return BW_OK;
}
