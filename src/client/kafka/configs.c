/* client/kafka/configs.c: topics' configuration on a cluster.
 *
 * librdkafka before 2.2 can only replace all of a topic's options: what the topic has set and is not to change is read first and set again.
 * Two who change the same topic at the same time may undo each other, as with Kafka's own tools before incremental changes. */
#include "client/kafka/kafka.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* The describing request's answer for each topic, within a's event. */
static bw_err ask_configs(bw_kbus *k, const char *const *topics, size_t count, bw_kafka_ask *a, const rd_kafka_ConfigResource_t ***out, size_t *n)
{
    rd_kafka_ConfigResource_t **wanted = calloc(count, sizeof *wanted);
    bw_err e = wanted ? bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, a) : bw_fail(BW_ERR_NO_MEMORY, "no memory for a request");
    for (size_t i = 0; i < count && !e; i++) wanted[i] = RK(ConfigResource_new)(RD_KAFKA_RESOURCE_TOPIC, topics[i]);
    if (!e) {
        RK(DescribeConfigs)(k->rk, wanted, count, a->options, a->queue);
        e = bw_kafka_ask_wait(k, a, "asking for topics' configuration");
    }
    if (!e) *out = RK(DescribeConfigs_result_resources)(RK(event_DescribeConfigs_result)(a->event), n);
    for (size_t i = 0; wanted && i < count; i++)
        if (wanted[i]) RK(ConfigResource_destroy)(wanted[i]);
    free(wanted);
    return e;
}

static json_t *config_json(const rd_kafka_ConfigResource_t *resource)
{
    size_t n = 0;
    const rd_kafka_ConfigEntry_t **entries = RK(ConfigResource_configs)(resource, &n);
    json_t *o = json_object();
    for (size_t i = 0; i < n; i++) {
        const char *value = RK(ConfigEntry_is_sensitive)(entries[i]) ? NULL : RK(ConfigEntry_value)(entries[i]);
        bool set = RK(ConfigEntry_source)(entries[i]) == RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG;
        json_object_set_new(o, RK(ConfigEntry_name)(entries[i]),
                            json_pack("{s:o, s:b}", "value", value ? json_string(value) : json_null(), "default", !set));
    }
    return o;
}

bw_err bw_kafka_configs_describe(bw_kbus *k, const char *const *topics, size_t count, json_t **out)
{
    bw_kafka_ask a = {0};
    const rd_kafka_ConfigResource_t **answers = NULL;
    size_t n = 0;
    bw_err e = ask_configs(k, topics, count, &a, &answers, &n);
    for (size_t i = 0; i < n && !e; i++) {
        const char *name = RK(ConfigResource_name)(answers[i]);
        if (RK(ConfigResource_error)(answers[i])) continue;
        for (size_t j = 0; j < count; j++)
            if (!out[j] && strcmp(topics[j], name) == 0) {
                out[j] = config_json(answers[i]);
                break;
            }
    }
    bw_kafka_ask_fini(&a);
    return e;
}

static const bw_config_entry *find_entry(const bw_config_entry *config, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(config[i].name, name) == 0) return &config[i];
    return NULL;
}

/* What the topic has set and nobody wants changed. */
static bw_err keep_others(const rd_kafka_ConfigResource_t *now, const bw_config_entry *config, size_t count, rd_kafka_ConfigResource_t *wanted)
{
    if (RK(ConfigResource_error)(now))
        return bw_kafka_fail(RK(ConfigResource_error)(now), RK(ConfigResource_error_string)(now), "topic %s", RK(ConfigResource_name)(now));
    size_t n = 0;
    const rd_kafka_ConfigEntry_t **entries = RK(ConfigResource_configs)(now, &n);
    for (size_t i = 0; i < n; i++) {
        const char *name = RK(ConfigEntry_name)(entries[i]), *value = RK(ConfigEntry_value)(entries[i]);
        if (RK(ConfigEntry_source)(entries[i]) != RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG || !value) continue;
        if (!find_entry(config, count, name)) RK(ConfigResource_set_config)(wanted, name, value);
    }
    return BW_OK;
}

bw_err bw_kafka_configs_alter(bw_kbus *k, const char *topic, const bw_config_entry *config, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!config[i].name || !*config[i].name) return bw_fail(BW_ERR_INVALID_ARGUMENT, "topic %s: a configuration without a name", topic);
    char what[BW_TOPIC_NAME_MAX + 32];
    snprintf(what, sizeof what, "topic %.249s", topic);
    bw_kafka_ask now = {0}, a = {0};
    const rd_kafka_ConfigResource_t **answers = NULL;
    size_t n = 0;
    rd_kafka_ConfigResource_t *wanted = RK(ConfigResource_new)(RD_KAFKA_RESOURCE_TOPIC, topic);
    bw_err e = ask_configs(k, &topic, 1, &now, &answers, &n);
    if (!e && n != 1) e = bw_fail(BW_ERR_PROTOCOL, "%s: an answer of %zu topics", what, n);
    if (!e) e = keep_others(answers[0], config, count, wanted);
    for (size_t i = 0; i < count && !e; i++)
        if (config[i].value && RK(ConfigResource_set_config)(wanted, config[i].name, config[i].value))
            e = bw_fail(BW_ERR_INVALID_CONFIG, "%s: configuration %s", what, config[i].name);
    if (!e) e = bw_kafka_ask_init(k, RD_KAFKA_ADMIN_OP_ALTERCONFIGS, &a);
    if (!e) {
        RK(AlterConfigs)(k->rk, &wanted, 1, a.options, a.queue);
        e = bw_kafka_ask_wait(k, &a, what);
    }
    if (!e) {
        answers = RK(AlterConfigs_result_resources)(RK(event_AlterConfigs_result)(a.event), &n);
        rd_kafka_resp_err_t r = n == 1 ? RK(ConfigResource_error)(answers[0]) : RD_KAFKA_RESP_ERR_NO_ERROR;
        if (r) e = bw_kafka_fail(r, RK(ConfigResource_error_string)(answers[0]), "%s", what);
    }
    bw_kafka_ask_fini(&now);
    bw_kafka_ask_fini(&a);
    RK(ConfigResource_destroy)(wanted);
    return e;
}
