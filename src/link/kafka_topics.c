/* link/kafka_topics.c: a cluster's topics, as the end of a link sees them: listed, their options, whether there are others now; and the one
 * that records go up to. Ids are made of names, since librdkafka tells none. */
#include "link/kafka.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { LOOK_MS = 30000 };

/* ---- a source's ---- */

static uint64_t names_hash(const bw_backend_topic *list, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = 14695981039346656037u ^ (uint64_t)list[i].partitions;
        for (const char *c = list[i].name; *c; c++) hash = (hash ^ (uint8_t)*c) * 1099511628211u;
        sum += hash; /* in any order */
    }
    return sum;
}

bw_err bw_kend_list(bw_endpoint *ep, bw_source_topic **out, size_t *count, bw_deadline deadline)
{
    bw_kend *k = bw_kend_of(ep);
    bw_backend_topic *list = NULL;
    size_t n = 0;
    (void)deadline;
    *out = NULL;
    *count = 0;
    bw_err e = bw_cluster_topics(k->bus, &list, &n);
    if (!e && !(*out = calloc(n + 1, sizeof **out))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the list of topics");
    for (size_t i = 0; !e && i < n; i++) {
        bw_source_topic *to = &(*out)[*count];
        if (list[i].partitions > (int32_t)BW_PARTITIONS_MAX) continue;
        memcpy(to->name, list[i].name, sizeof to->name);
        to->id = bw_kend_topic_id(k, to->name);
        to->partitions = list[i].partitions;
        ++*count;
    }
    if (!e) k->topics_seen = names_hash(list, n);
    k->look_at = bw_deadline_in_ms(LOOK_MS);
    free(list);
    return e;
}

/* Of what a cluster says only what a bus knows too is passed on. */
static bool is_known(const char *name)
{
    static const char *const known[] = {"retention.ms", "retention.bytes", "cleanup.policy", "segment.bytes", "segment.ms", "max.message.bytes",
                                        "compression.type", "min.cleanable.dirty.ratio", "delete.retention.ms", "min.compaction.lag.ms",
                                        "max.compaction.lag.ms", "message.timestamp.type"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i], name)) return true;
    return false;
}

bw_err bw_kend_configs(bw_endpoint *ep, const char *topic, bw_config_pair **out, size_t *count, bw_deadline deadline)
{
    bw_kend *k = bw_kend_of(ep);
    char *text = NULL;
    size_t n = 0, bytes = 0;
    const char *name;
    json_t *entry;
    (void)deadline;
    *out = NULL;
    *count = 0;
    bw_err e = bw_topics_describe(k->bus, topic, &text);
    if (e) return e;
    json_t *doc = json_loads(text, 0, NULL), *config = json_object_get(json_array_get(doc, 0), "config");
    bw_free(text);
    json_object_foreach(config, name, entry)
    {
        if (json_is_true(json_object_get(entry, "default")) || !json_is_string(json_object_get(entry, "value")) || !is_known(name)) continue;
        n++;
        bytes += strlen(name) + json_string_length(json_object_get(entry, "value"));
    }
    bw_config_pair *pairs = malloc(n * sizeof *pairs + bytes + 1);
    char *at = (char *)(pairs + n);
    if (!pairs) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a topic's configuration");
    if (!e) json_object_foreach(config, name, entry)
    {
        const json_t *value = json_object_get(entry, "value");
        if (json_is_true(json_object_get(entry, "default")) || !json_is_string(value) || !is_known(name)) continue;
        size_t name_len = strlen(name), len = json_string_length(value);
        pairs[(*count)++] = (bw_config_pair){{at, name_len}, {at + name_len, len}, true};
        memcpy(at, name, name_len);
        memcpy(at + name_len, json_string_value(value), len);
        at += name_len + len;
    }
    *out = pairs;
    json_decref(doc);
    return e;
}

bool bw_kend_topics_changed(bw_kend *k)
{
    bw_backend_topic *list = NULL;
    size_t count = 0;
    if (bw_deadline_left_ns(k->look_at) > 0) return false;
    k->look_at = bw_deadline_in_ms(LOOK_MS);
    bool changed = bw_cluster_topics(k->bus, &list, &count) == BW_OK && names_hash(list, count) != k->topics_seen;
    free(list);
    return changed;
}

/* ---- a sink's ---- */

bw_err bw_kend_make_target(bw_kend *k, const char *target, int32_t partitions, const bw_config_pair *configs, size_t count)
{
    int32_t have = 0;
    bw_err e = bw_topic_partitions(k->bus, target, &have);
    if (e == BW_ERR_UNKNOWN_TOPIC) {
        bw_config_entry *entries = calloc(count + 1, sizeof *entries);
        bw_buf texts = {0};
        e = entries ? bw_buf_reserve(&texts, 1) : BW_ERR_NO_MEMORY;
        size_t bytes = 0;
        for (size_t i = 0; i < count; i++) bytes += configs[i].name.len + configs[i].value.len + 2;
        if (!e) e = bw_buf_reserve(&texts, bytes + 1); /* pointers into it stay */
        for (size_t i = 0; i < count && !e; i++) {
            entries[i].name = (const char *)texts.data + texts.len;
            e = bw_buf_append(&texts, configs[i].name.data, configs[i].name.len);
            if (!e) e = bw_buf_append(&texts, "", 1);
            entries[i].value = (const char *)texts.data + texts.len;
            if (!e) e = bw_buf_append(&texts, configs[i].value.data, configs[i].value.len);
            if (!e) e = bw_buf_append(&texts, "", 1);
        }
        if (!e) e = bw_topic_create(k->bus, target, partitions, entries, count);
        else e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a topic's configuration");
        bw_buf_free(&texts);
        free(entries);
        if (e == BW_OK || e == BW_ERR_TOPIC_EXISTS) e = bw_topic_partitions(k->bus, target, &have);
    }
    if (!e && have < partitions)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "the cluster's topic '%s' has %d partitions, its source %d: give it more", target, have, partitions);
    return e;
}
