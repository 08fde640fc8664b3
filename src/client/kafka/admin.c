/* client/kafka/admin.c: topics of a cluster. What Busway's documents have and a cluster does not tell is null there. */
#include "client/kafka/kafka.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { WAIT_MORE_MS = 1000, KNOWN_MS = 10000, NAP_MS = 50 };

/* ---- asking ---- */

bw_err bw_kafka_ask_init(bw_kbus *k, rd_kafka_admin_op_t op, bw_kafka_ask *a)
{
    char why[256];
    *a = (bw_kafka_ask){.options = RK(AdminOptions_new)(k->rk, op), .queue = RK(queue_new)(k->rk)};
    if (!a->options || !a->queue) {
        bw_kafka_ask_fini(a);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a request");
    }
    RK(AdminOptions_set_request_timeout)(a->options, k->bus->request_timeout_ms, why, sizeof why);
    bool operates = op == RD_KAFKA_ADMIN_OP_CREATETOPICS || op == RD_KAFKA_ADMIN_OP_DELETETOPICS || op == RD_KAFKA_ADMIN_OP_CREATEPARTITIONS;
    if (operates) RK(AdminOptions_set_operation_timeout)(a->options, k->bus->request_timeout_ms, why, sizeof why);
    return BW_OK;
}

bw_err bw_kafka_ask_wait(bw_kbus *k, bw_kafka_ask *a, const char *what)
{
    a->event = RK(queue_poll)(a->queue, k->bus->request_timeout_ms + WAIT_MORE_MS);
    if (!a->event) return bw_kafka_fail_wait(k, RD_KAFKA_RESP_ERR__TIMED_OUT, what);
    rd_kafka_resp_err_t r = RK(event_error)(a->event);
    if (r == RD_KAFKA_RESP_ERR__TIMED_OUT) return bw_kafka_fail_wait(k, r, what);
    return r ? bw_kafka_fail(r, RK(event_error_string)(a->event), "%s", what) : BW_OK;
}

void bw_kafka_ask_fini(bw_kafka_ask *a)
{
    if (a->event) RK(event_destroy)(a->event);
    if (a->options) RK(AdminOptions_destroy)(a->options);
    if (a->queue) RK(queue_destroy)(a->queue);
}

/* The one topic's outcome of create, delete or more partitions. */
static bw_err topic_outcome(const rd_kafka_topic_result_t **results, size_t count, const char *what)
{
    if (count != 1) return bw_fail(BW_ERR_PROTOCOL, "%s: an answer of %zu topics", what, count);
    rd_kafka_resp_err_t r = RK(topic_result_error)(results[0]);
    return r ? bw_kafka_fail(r, RK(topic_result_error_string)(results[0]), "%s", what) : BW_OK;
}

/* ---- create, alter, delete ---- */

/* Every broker knows a new topic a little later than the one that made it. */
static bw_err wait_until_known(bw_kbus *k, const char *topic)
{
    bw_deadline deadline = bw_deadline_in_ms(KNOWN_MS);
    for (;;) {
        int32_t count;
        bw_err e = bw_kafka_partitions(k, k->rk, topic, true, deadline, &count);
        if (e != BW_ERR_UNKNOWN_TOPIC || bw_deadline_left_ns(deadline) == 0) return e;
        bw_kafka_nap(NAP_MS);
    }
}

bw_err bw_kafka_topic_create(bw_bus *bus, const char *topic, int32_t partitions, const bw_config_entry *config, size_t count)
{
    bw_kbus *k = bw_kbus_of(bus);
    char why[256], what[BW_TOPIC_NAME_MAX + 32];
    snprintf(what, sizeof what, "topic %.249s", topic);
    rd_kafka_NewTopic_t *wanted = RK(NewTopic_new)(topic, partitions > 0 ? partitions : -1, -1, why, sizeof why);
    if (!wanted) return bw_fail(BW_ERR_INVALID_ARGUMENT, "%s: %s", what, why);
    bw_kafka_ask a = {0};
    bw_err e = BW_OK;
    for (size_t i = 0; i < count && !e; i++) {
        if (!config[i].name || !config[i].value) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "%s: a configuration without name or value", what);
        else if (RK(NewTopic_set_config)(wanted, config[i].name, config[i].value))
            e = bw_fail(BW_ERR_INVALID_CONFIG, "%s: configuration %s", what, config[i].name);
    }
    if (!e) e = bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_CREATETOPICS, &a);
    if (!e) {
        RK(CreateTopics)(k->rk, &wanted, 1, a.options, a.queue);
        e = bw_kafka_ask_wait(k, &a, what);
    }
    if (!e) {
        size_t n;
        const rd_kafka_topic_result_t **results = RK(CreateTopics_result_topics)(RK(event_CreateTopics_result)(a.event), &n);
        e = topic_outcome(results, n, what);
    }
    bw_kafka_ask_fini(&a);
    RK(NewTopic_destroy)(wanted);
    return e ? e : wait_until_known(k, topic);
}

static bw_err raise_partitions(bw_kbus *k, const char *topic, int32_t partitions)
{
    char why[256], what[BW_TOPIC_NAME_MAX + 48];
    snprintf(what, sizeof what, "topic %.249s: %d partitions", topic, partitions);
    rd_kafka_NewPartitions_t *wanted = RK(NewPartitions_new)(topic, (size_t)partitions, why, sizeof why);
    if (!wanted) return bw_fail(BW_ERR_INVALID_ARGUMENT, "%s: %s", what, why);
    bw_kafka_ask a;
    bw_err e = bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_CREATEPARTITIONS, &a);
    if (!e) {
        RK(CreatePartitions)(k->rk, &wanted, 1, a.options, a.queue);
        e = bw_kafka_ask_wait(k, &a, what);
        size_t n;
        if (!e) e = topic_outcome(RK(CreatePartitions_result_topics)(RK(event_CreatePartitions_result)(a.event), &n), 1, what);
        bw_kafka_ask_fini(&a);
    }
    RK(NewPartitions_destroy)(wanted);
    return e;
}

bw_err bw_kafka_topic_alter(bw_bus *bus, const char *topic, int32_t partitions, const bw_config_entry *config, size_t count)
{
    bw_kbus *k = bw_kbus_of(bus);
    int32_t now = 0;
    bw_err e = bw_kafka_partitions(k, k->rk, topic, false, bw_bus_request_deadline(bus), &now);
    if (!e && count) e = bw_kafka_configs_alter(k, topic, config, count);
    if (e || partitions == 0 || partitions == now) return e;
    return raise_partitions(k, topic, partitions);
}

bw_err bw_kafka_topic_delete(bw_bus *bus, const char *topic)
{
    bw_kbus *k = bw_kbus_of(bus);
    char what[BW_TOPIC_NAME_MAX + 32];
    snprintf(what, sizeof what, "topic %.249s", topic);
    rd_kafka_DeleteTopic_t *unwanted = RK(DeleteTopic_new)(topic);
    bw_kafka_ask a;
    bw_err e = bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_DELETETOPICS, &a);
    if (!e) {
        RK(DeleteTopics)(k->rk, &unwanted, 1, a.options, a.queue);
        e = bw_kafka_ask_wait(k, &a, what);
        size_t n;
        if (!e) e = topic_outcome(RK(DeleteTopics_result_topics)(RK(event_DeleteTopics_result)(a.event), &n), 1, what);
        bw_kafka_ask_fini(&a);
    }
    RK(DeleteTopic_destroy)(unwanted);
    return e;
}

/* ---- describe ---- */

static rd_kafka_topic_partition_list_t *every_partition(const struct rd_kafka_metadata *m, int64_t offset)
{
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)(16);
    for (int i = 0; i < m->topic_cnt; i++)
        for (int p = 0; p < m->topics[i].partition_cnt; p++)
            if (m->topics[i].partitions[p].leader >= 0)
                RK(topic_partition_list_add)(list, m->topics[i].topic, m->topics[i].partitions[p].id)->offset = offset;
    return list;
}

static json_t *offset_json(const rd_kafka_topic_partition_list_t *list, const char *topic, int32_t partition)
{
    const rd_kafka_topic_partition_t *at = RK(topic_partition_list_find)(list, topic, partition);
    return at && !at->err && at->offset >= 0 ? json_integer(at->offset) : json_null();
}

static json_t *topic_json(const struct rd_kafka_metadata_topic *t, const rd_kafka_topic_partition_list_t *starts,
                          const rd_kafka_topic_partition_list_t *ends)
{
    json_t *o = json_object(), *parts = json_array();
    for (int i = 0; i < t->partition_cnt; i++) {
        const struct rd_kafka_metadata_partition *p = &t->partitions[i];
        json_t *part = json_object(), *replicas = json_array(), *isrs = json_array();
        for (int r = 0; r < p->replica_cnt; r++) json_array_append_new(replicas, json_integer(p->replicas[r]));
        for (int r = 0; r < p->isr_cnt; r++) json_array_append_new(isrs, json_integer(p->isrs[r]));
        json_object_set_new(part, "partition", json_integer(p->id));
        json_object_set_new(part, "log_start_offset", offset_json(starts, t->topic, p->id));
        json_object_set_new(part, "end_offset", offset_json(ends, t->topic, p->id));
        json_object_set_new(part, "durable_offset", offset_json(ends, t->topic, p->id)); /* consumers see what all replicas have */
        json_object_set_new(part, "size_bytes", json_null());
        json_object_set_new(part, "segments", json_null());
        json_object_set_new(part, "leader_epoch", json_null());
        json_object_set_new(part, "state", json_string(p->leader >= 0 ? "ok" : "no leader"));
        json_object_set_new(part, "leader", json_integer(p->leader));
        json_object_set_new(part, "replicas", replicas);
        json_object_set_new(part, "in_sync", isrs);
        json_array_append_new(parts, part);
    }
    json_object_set_new(o, "name", json_string(t->topic));
    json_object_set_new(o, "id", json_null());
    json_object_set_new(o, "partitions", parts);
    return o;
}

static bw_err describe(bw_kbus *k, const struct rd_kafka_metadata *m, json_t *out)
{
    bw_deadline deadline = bw_bus_request_deadline(k->bus);
    rd_kafka_topic_partition_list_t *starts = every_partition(m, BW_OFFSET_BEGINNING), *ends = every_partition(m, BW_OFFSET_END);
    size_t count = (size_t)m->topic_cnt;
    const char **names = calloc(count + 1, sizeof *names);
    json_t **configs = calloc(count + 1, sizeof *configs);
    bw_err e = names && configs ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu topics", count);
    for (size_t i = 0; i < count && !e; i++) names[i] = m->topics[i].topic;
    if (!e) e = bw_kafka_offsets(k, k->rk, starts, deadline);
    if (!e) e = bw_kafka_offsets(k, k->rk, ends, deadline);
    if (!e && count) {
        bw_err none = bw_kafka_configs_describe(k, names, count, configs);
        if (none) bw_bus_log(k->bus, BW_LOG_WARN, "topics are described without their configuration: %s", bw_error_message());
    }
    for (size_t i = 0; i < count && !e; i++) {
        json_t *o = topic_json(&m->topics[i], starts, ends);
        json_object_set_new(o, "config", configs[i] ? configs[i] : json_object());
        configs[i] = NULL;
        json_array_append_new(out, o);
    }
    for (size_t i = 0; configs && i < count; i++) json_decref(configs[i]);
    RK(topic_partition_list_destroy)(starts);
    RK(topic_partition_list_destroy)(ends);
    free(names);
    free(configs);
    return e;
}

bw_err bw_kafka_topics_describe(bw_bus *bus, const char *topic, char **json)
{
    bw_kbus *k = bw_kbus_of(bus);
    const struct rd_kafka_metadata *m = NULL;
    *json = NULL;
    bw_err e = bw_kafka_metadata(k, topic, bw_bus_request_deadline(bus), &m);
    if (e) return e;
    json_t *out = json_array();
    e = describe(k, m, out);
    RK(metadata_destroy)(m);
    if (!e && !(*json = json_dumps(out, JSON_COMPACT))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the answer");
    json_decref(out);
    return e;
}
