/* client/kafka/groups.c: groups of a cluster from outside. librdkafka asks for one group's offsets at a time, and tells no process ids, no
 * epochs and no times of commits: null in the documents. */
#include "client/kafka/kafka.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* ---- asking ---- */

typedef struct names {
    char **items;
    size_t count;
} names;

static void names_free(names *n)
{
    for (size_t i = 0; i < n->count; i++) free(n->items[i]);
    free(n->items);
}

static bw_err list_names(bw_kbus *k, names *out)
{
    bw_kafka_ask a;
    *out = (names){0};
    bw_err e = bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPS, &a);
    if (e) return e;
    RK(ListConsumerGroups)(k->rk, a.options, a.queue);
    e = bw_kafka_ask_wait(k, &a, "listing groups");
    if (!e) {
        size_t n = 0, bad = 0;
        const rd_kafka_ListConsumerGroups_result_t *result = RK(event_ListConsumerGroups_result)(a.event);
        const rd_kafka_ConsumerGroupListing_t **found = RK(ListConsumerGroups_result_valid)(result, &n);
        const rd_kafka_error_t **errors = RK(ListConsumerGroups_result_errors)(result, &bad);
        out->items = calloc(n + 1, sizeof *out->items);
        for (size_t i = 0; i < n && out->items; i++)
            if ((out->items[out->count] = strdup(RK(ConsumerGroupListing_group_id)(found[i])))) out->count++;
        if (!out->items || out->count < n) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu groups", n);
        else if (bad && n == 0) e = bw_kafka_fail(RK(error_code)(errors[0]), RK(error_string)(errors[0]), "listing groups");
    }
    bw_kafka_ask_fini(&a);
    if (e) names_free(out);
    return e;
}

bw_err bw_kafka_group_committed(bw_kbus *k, const char *group, const rd_kafka_topic_partition_list_t *of, bool stable,
                                rd_kafka_topic_partition_list_t **out)
{
    bw_kafka_ask a;
    bw_err e = bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS, &a);
    if (e) return e;
    rd_kafka_ListConsumerGroupOffsets_t *request = RK(ListConsumerGroupOffsets_new)(group, of);
    rd_kafka_error_t *refused = RK(AdminOptions_set_require_stable_offsets)(a.options, stable);
    if (refused) RK(error_destroy)(refused); /* librdkafka does know it */
    RK(ListConsumerGroupOffsets)(k->rk, &request, 1, a.options, a.queue);
    e = bw_kafka_ask_wait(k, &a, "asking for committed offsets");
    if (!e) {
        size_t n = 0;
        const rd_kafka_group_result_t **groups =
            RK(ListConsumerGroupOffsets_result_groups)(RK(event_ListConsumerGroupOffsets_result)(a.event), &n);
        const rd_kafka_error_t *error = n == 1 ? RK(group_result_error)(groups[0]) : NULL;
        if (n != 1) e = bw_fail(BW_ERR_PROTOCOL, "group '%s': an answer of %zu groups", group, n);
        else if (error) e = bw_kafka_fail(RK(error_code)(error), RK(error_string)(error), "group '%s'", group);
        else *out = RK(topic_partition_list_copy)(RK(group_result_partitions)(groups[0]));
    }
    RK(ListConsumerGroupOffsets_destroy)(request);
    bw_kafka_ask_fini(&a);
    return e;
}

static bw_err describe(bw_kbus *k, char *const *groups, size_t count, bw_kafka_ask *a, const rd_kafka_ConsumerGroupDescription_t ***out, size_t *n)
{
    *n = 0;
    bw_err e = bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, a);
    if (e) return e;
    RK(DescribeConsumerGroups)(k->rk, (const char **)(uintptr_t)groups, count, a->options, a->queue);
    e = bw_kafka_ask_wait(k, a, "describing groups");
    if (!e) *out = RK(DescribeConsumerGroups_result_groups)(RK(event_DescribeConsumerGroups_result)(a->event), n);
    return e;
}

/* ---- list ---- */

static bool has_offset(const rd_kafka_topic_partition_t *p) { return !p->err && p->offset >= 0; }

static json_t *summary(bw_kbus *k, const rd_kafka_ConsumerGroupDescription_t *g)
{
    rd_kafka_topic_partition_list_t *list = NULL;
    const char *name = RK(ConsumerGroupDescription_group_id)(g);
    json_int_t parts = 0;
    if (!bw_kafka_group_committed(k, name, NULL, false, &list)) {
        for (int i = 0; i < list->cnt; i++) parts += has_offset(&list->elems[i]);
        RK(topic_partition_list_destroy)(list);
    }
    return json_pack("{s:s, s:s, s:s, s:I, s:I}", "group", name, "state", RK(consumer_group_state_name)(RK(ConsumerGroupDescription_state)(g)),
                     "kind", RK(ConsumerGroupDescription_is_simple_consumer_group)(g) ? "simple" : "classic", "members",
                     (json_int_t)RK(ConsumerGroupDescription_member_count)(g), "partitions", parts);
}

bw_err bw_kafka_groups_list(bw_bus *bus, char **json)
{
    bw_kbus *k = bw_kbus_of(bus);
    bw_kafka_ask a = {0};
    names all;
    *json = NULL;
    bw_err e = list_names(k, &all);
    if (e) return e;
    json_t *out = json_array();
    const rd_kafka_ConsumerGroupDescription_t **groups = NULL;
    size_t n = 0;
    if (all.count) e = describe(k, all.items, all.count, &a, &groups, &n);
    for (size_t i = 0; i < n && !e; i++)
        if (!RK(ConsumerGroupDescription_error)(groups[i])) json_array_append_new(out, summary(k, groups[i]));
    bw_kafka_ask_fini(&a);
    names_free(&all);
    if (!e && !(*json = json_dumps(out, JSON_COMPACT))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the answer");
    json_decref(out);
    return e;
}

/* ---- describe ---- */

/* Whose a partition is: the member's id, or NULL. */
static const char *owner(const rd_kafka_ConsumerGroupDescription_t *g, const char *topic, int32_t partition)
{
    for (size_t i = 0; i < RK(ConsumerGroupDescription_member_count)(g); i++) {
        const rd_kafka_MemberDescription_t *m = RK(ConsumerGroupDescription_member)(g, i);
        const rd_kafka_MemberAssignment_t *assignment = RK(MemberDescription_assignment)(m);
        const rd_kafka_topic_partition_list_t *list = assignment ? RK(MemberAssignment_partitions)(assignment) : NULL;
        for (int p = 0; list && p < list->cnt; p++)
            if (list->elems[p].partition == partition && strcmp(list->elems[p].topic, topic) == 0) return RK(MemberDescription_consumer_id)(m);
    }
    return NULL;
}

static json_t *member_json(const rd_kafka_MemberDescription_t *m, rd_kafka_topic_partition_list_t *all)
{
    const rd_kafka_MemberAssignment_t *assignment = RK(MemberDescription_assignment)(m);
    const rd_kafka_topic_partition_list_t *list = assignment ? RK(MemberAssignment_partitions)(assignment) : NULL;
    const char *instance = RK(MemberDescription_group_instance_id)(m);
    json_t *parts = json_array();
    for (int i = 0; list && i < list->cnt; i++) {
        json_array_append_new(parts, json_pack("{s:s, s:i}", "topic", list->elems[i].topic, "partition", (int)list->elems[i].partition));
        if (!RK(topic_partition_list_find)(all, list->elems[i].topic, list->elems[i].partition))
            RK(topic_partition_list_add)(all, list->elems[i].topic, list->elems[i].partition)->offset = BW_OFFSET_INVALID;
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:n, s:n, s:n, s:o}", "member", RK(MemberDescription_consumer_id)(m), "instance",
                     instance ? instance : "", "client", RK(MemberDescription_client_id)(m), "host", RK(MemberDescription_host)(m), "pid", "uid",
                     "since_ms", "partitions", parts);
}

static json_t *known(const rd_kafka_topic_partition_t *p) { return p && !p->err && p->offset >= 0 ? json_integer(p->offset) : json_null(); }

static json_t *part_json(const rd_kafka_ConsumerGroupDescription_t *g, const rd_kafka_topic_partition_t *p,
                         const rd_kafka_topic_partition_list_t *starts, const rd_kafka_topic_partition_list_t *ends)
{
    const rd_kafka_topic_partition_t *start = RK(topic_partition_list_find)(starts, p->topic, p->partition),
                                     *end = RK(topic_partition_list_find)(ends, p->topic, p->partition);
    const char *member = owner(g, p->topic, p->partition);
    json_t *o = json_object(), *lag = json_null();
    if (has_offset(p) && end && !end->err && end->offset >= 0) lag = json_integer(end->offset - p->offset);
    json_object_set_new(o, "topic", json_string(p->topic));
    json_object_set_new(o, "partition", json_integer(p->partition));
    json_object_set_new(o, "member", member ? json_string(member) : json_null());
    json_object_set_new(o, "committed_offset", known(p));
    json_object_set_new(o, "metadata", p->metadata_size ? json_stringn(p->metadata, p->metadata_size) : json_string(""));
    json_object_set_new(o, "committed_ms", json_null());
    json_object_set_new(o, "log_start_offset", known(start));
    json_object_set_new(o, "end_offset", known(end));
    json_object_set(o, "lag_ms", json_is_integer(lag) && json_integer_value(lag) == 0 ? lag : json_null());
    json_object_set_new(o, "lag", lag);
    json_object_set_new(o, "error", p->err ? json_string(RK(err2str)(p->err)) : json_null());
    return o;
}

static bw_err ranges(bw_kbus *k, const rd_kafka_topic_partition_list_t *all, rd_kafka_topic_partition_list_t **starts,
                     rd_kafka_topic_partition_list_t **ends)
{
    bw_deadline deadline = bw_bus_request_deadline(k->bus);
    *starts = RK(topic_partition_list_copy)(all);
    *ends = RK(topic_partition_list_copy)(all);
    for (int i = 0; i < all->cnt; i++) {
        (*starts)->elems[i].offset = BW_OFFSET_BEGINNING;
        (*ends)->elems[i].offset = BW_OFFSET_END;
    }
    bw_err e = bw_kafka_offsets(k, k->rk, *starts, deadline);
    return e ? e : bw_kafka_offsets(k, k->rk, *ends, deadline);
}

static bw_err group_json(bw_kbus *k, const rd_kafka_ConsumerGroupDescription_t *g, rd_kafka_topic_partition_list_t *all, char **json)
{
    rd_kafka_topic_partition_list_t *starts = NULL, *ends = NULL;
    json_t *members = json_array(), *parts = json_array();
    for (size_t i = 0; i < RK(ConsumerGroupDescription_member_count)(g); i++)
        json_array_append_new(members, member_json(RK(ConsumerGroupDescription_member)(g, i), all));
    bw_err e = ranges(k, all, &starts, &ends);
    if (e) bw_bus_log(k->bus, BW_LOG_WARN, "a group is described without lags: %s", bw_error_message());
    for (int i = 0; i < all->cnt; i++) json_array_append_new(parts, part_json(g, &all->elems[i], starts, ends));
    json_t *o = json_pack("{s:s, s:s, s:s, s:s, s:n, s:o, s:o}", "group", RK(ConsumerGroupDescription_group_id)(g), "state",
                          RK(consumer_group_state_name)(RK(ConsumerGroupDescription_state)(g)), "kind",
                          RK(ConsumerGroupDescription_is_simple_consumer_group)(g) ? "simple" : "classic", "assignor",
                          RK(ConsumerGroupDescription_partition_assignor)(g), "epoch", "members", members, "partitions", parts);
    *json = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    RK(topic_partition_list_destroy)(starts);
    RK(topic_partition_list_destroy)(ends);
    return *json ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for the answer");
}

/* A cluster describes a group that it has never heard of as a dead one. */
static bw_err check_known(const rd_kafka_ConsumerGroupDescription_t *g, const char *group, const rd_kafka_topic_partition_list_t *all)
{
    const rd_kafka_error_t *error = RK(ConsumerGroupDescription_error)(g);
    if (error) return bw_kafka_fail(RK(error_code)(error), RK(error_string)(error), "group '%s'", group);
    if (RK(ConsumerGroupDescription_state)(g) != RD_KAFKA_CONSUMER_GROUP_STATE_DEAD || all->cnt) return BW_OK;
    return bw_fail(BW_ERR_GROUP_ID_NOT_FOUND, "there is no group '%s'", group);
}

bw_err bw_kafka_group_describe(bw_bus *bus, const char *group, char **json)
{
    bw_kbus *k = bw_kbus_of(bus);
    bw_kafka_ask a = {0};
    const rd_kafka_ConsumerGroupDescription_t **groups = NULL;
    rd_kafka_topic_partition_list_t *all = NULL;
    size_t n = 0;
    char *name = strdup(group);
    *json = NULL;
    bw_err e = !name ? bw_fail(BW_ERR_NO_MEMORY, "no memory for a request")
               : !*group ? bw_fail(BW_ERR_INVALID_GROUP_ID, "a group id has 1 to 249 characters") : BW_OK;
    if (!e) e = describe(k, &name, 1, &a, &groups, &n);
    if (!e && n != 1) e = bw_fail(BW_ERR_PROTOCOL, "group '%s': an answer of %zu groups", group, n);
    if (!e) e = bw_kafka_group_committed(k, group, NULL, false, &all);
    if (!e) e = check_known(groups[0], group, all);
    if (!e) e = group_json(k, groups[0], all, json);
    if (all) RK(topic_partition_list_destroy)(all);
    bw_kafka_ask_fini(&a);
    free(name);
    return e;
}

bw_err bw_kafka_group_delete(bw_bus *bus, const char *group)
{
    bw_kbus *k = bw_kbus_of(bus);
    bw_kafka_ask a;
    bw_err e = bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_DELETEGROUPS, &a);
    if (e) return e;
    rd_kafka_DeleteGroup_t *unwanted = RK(DeleteGroup_new)(group);
    RK(DeleteGroups)(k->rk, &unwanted, 1, a.options, a.queue);
    e = bw_kafka_ask_wait(k, &a, "deleting a group");
    if (!e) {
        size_t n = 0;
        const rd_kafka_group_result_t **results = RK(DeleteGroups_result_groups)(RK(event_DeleteGroups_result)(a.event), &n);
        const rd_kafka_error_t *error = n == 1 ? RK(group_result_error)(results[0]) : NULL;
        if (error) e = bw_kafka_fail(RK(error_code)(error), RK(error_string)(error), "group '%s'", group);
    }
    RK(DeleteGroup_destroy)(unwanted);
    bw_kafka_ask_fini(&a);
    return e;
}

/* ---- offsets ---- */

/* A cluster commits any offset: what is outside the log is refused here. */
static bw_err check_offsets(bw_kbus *k, const char *group, bw_group_offset *offsets, size_t count)
{
    bw_err first = BW_OK;
    for (size_t i = 0; i < count; i++) {
        int64_t start = 0, end = 0;
        int32_t parts = 0;
        bw_deadline deadline = bw_bus_request_deadline(k->bus);
        bw_err e = bw_kafka_partitions(k, k->rk, offsets[i].topic, false, deadline, &parts);
        if (!e && (offsets[i].partition < 0 || offsets[i].partition >= parts))
            e = bw_fail(BW_ERR_UNKNOWN_PARTITION, "topic %s has no partition %d; it has %d", offsets[i].topic, offsets[i].partition, parts);
        if (!e) e = bw_kafka_log_range(k, k->rk, offsets[i].topic, offsets[i].partition, deadline, &start, &end);
        if (!e && (offsets[i].offset < start || offsets[i].offset > end))
            e = bw_fail(BW_ERR_INVALID_COMMIT_OFFSET, "group '%s': topic %s partition %d has offsets %lld to %lld, not %lld", group,
                        offsets[i].topic, offsets[i].partition, (long long)start, (long long)end, (long long)offsets[i].offset);
        offsets[i].error = e;
        if (!first) first = e;
    }
    return first;
}

static bw_err outcomes(const char *group, const rd_kafka_group_result_t *result, bw_group_offset *offsets, size_t count)
{
    const rd_kafka_error_t *error = RK(group_result_error)(result);
    const rd_kafka_topic_partition_list_t *list = RK(group_result_partitions)(result);
    bw_err first = error ? bw_kafka_fail(RK(error_code)(error), RK(error_string)(error), "group '%s'", group) : BW_OK;
    for (size_t i = 0; i < count; i++) {
        const rd_kafka_topic_partition_t *at = list ? RK(topic_partition_list_find)(list, offsets[i].topic, offsets[i].partition) : NULL;
        if (offsets[i].error) continue;
        rd_kafka_resp_err_t r = error ? RK(error_code)(error) : at ? at->err : RD_KAFKA_RESP_ERR_NO_ERROR;
        bool strange = r == RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID || r == RD_KAFKA_RESP_ERR_GROUP_SUBSCRIBED_TO_TOPIC;
        offsets[i].error = strange ? BW_ERR_NON_EMPTY_GROUP : bw_kafka_error(r);
        if (strange) bw_fail(BW_ERR_NON_EMPTY_GROUP, "group '%s' has members, which would go on from where they are: stop them first", group);
        else if (r && !first) bw_kafka_fail(r, NULL, "group '%s', topic %s partition %d", group, offsets[i].topic, offsets[i].partition);
        if (offsets[i].error && (!first || strange)) first = offsets[i].error;
    }
    return first;
}

bw_err bw_kafka_group_offsets_alter(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count)
{
    bw_kbus *k = bw_kbus_of(bus);
    bw_err refused = check_offsets(k, group, offsets, count);
    char why[400];
    snprintf(why, sizeof why, "%s", refused ? bw_error_message() : "");
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)((int)count);
    for (size_t i = 0; i < count; i++) {
        if (offsets[i].error) continue;
        rd_kafka_topic_partition_t *to = RK(topic_partition_list_add)(list, offsets[i].topic, offsets[i].partition);
        to->offset = offsets[i].offset;
        if (offsets[i].metadata && (to->metadata = strdup(offsets[i].metadata))) to->metadata_size = strlen(offsets[i].metadata);
    }
    bw_kafka_ask a = {0};
    bw_err e = list->cnt ? bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_ALTERCONSUMERGROUPOFFSETS, &a) : BW_OK;
    if (list->cnt && !e) {
        rd_kafka_AlterConsumerGroupOffsets_t *request = RK(AlterConsumerGroupOffsets_new)(group, list);
        size_t n = 0;
        RK(AlterConsumerGroupOffsets)(k->rk, &request, 1, a.options, a.queue);
        e = bw_kafka_ask_wait(k, &a, "committing a group's offsets");
        if (!e) {
            const rd_kafka_group_result_t **results =
                RK(AlterConsumerGroupOffsets_result_groups)(RK(event_AlterConsumerGroupOffsets_result)(a.event), &n);
            e = n == 1 ? outcomes(group, results[0], offsets, count) : bw_fail(BW_ERR_PROTOCOL, "group '%s': an answer of %zu groups", group, n);
        }
        RK(AlterConsumerGroupOffsets_destroy)(request);
    }
    bw_kafka_ask_fini(&a);
    RK(topic_partition_list_destroy)(list);
    return refused ? bw_error_set_message(refused, why) : e;
}

bw_err bw_kafka_group_offsets_delete(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count)
{
    bw_kbus *k = bw_kbus_of(bus);
    bw_kafka_ask a;
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)((int)count);
    for (size_t i = 0; i < count; i++) {
        RK(topic_partition_list_add)(list, offsets[i].topic, offsets[i].partition);
        offsets[i].error = BW_OK;
    }
    bw_err e = bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_DELETECONSUMERGROUPOFFSETS, &a);
    if (!e) {
        rd_kafka_DeleteConsumerGroupOffsets_t *request = RK(DeleteConsumerGroupOffsets_new)(group, list);
        size_t n = 0;
        RK(DeleteConsumerGroupOffsets)(k->rk, &request, 1, a.options, a.queue);
        e = bw_kafka_ask_wait(k, &a, "deleting a group's offsets");
        if (!e) {
            const rd_kafka_group_result_t **results =
                RK(DeleteConsumerGroupOffsets_result_groups)(RK(event_DeleteConsumerGroupOffsets_result)(a.event), &n);
            e = n == 1 ? outcomes(group, results[0], offsets, count) : bw_fail(BW_ERR_PROTOCOL, "group '%s': an answer of %zu groups", group, n);
        }
        RK(DeleteConsumerGroupOffsets_destroy)(request);
        bw_kafka_ask_fini(&a);
    }
    RK(topic_partition_list_destroy)(list);
    return e;
}
