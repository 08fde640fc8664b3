/* client/admin.c: the administrative calls: one request each. */
#include "client/admin.h"

#include "client/backend.h"
#include "client/readonly.h"

#include "proto/json.h"

#include <busway/admin.h>
#include <busway/consumer.h>
#include <pwd.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

static bw_err check(const bw_bus *bus, const char *topic)
{
    if (!bus) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no bus");
    BW_CHECK_FORK(bus);
    if (!topic) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no topic name");
    return BW_OK;
}

bw_err bw_admin_ask(bw_bus *bus, bw_request *q)
{
    bw_reply reply;
    bw_err e = bw_bus_request(bus, q, bw_bus_request_deadline(bus), &reply);
    bw_reply_fini(&reply);
    return e;
}

/* Calloc'd; NULL with count 0. */
static bw_err pairs_of(const bw_config_entry *config, size_t count, bw_config_pair **out)
{
    *out = NULL;
    if (count && !config) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no configuration");
    bw_config_pair *pairs = count ? calloc(count, sizeof *pairs) : NULL;
    if (count && !pairs) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a request");
    for (size_t i = 0; i < count; i++) {
        if (!config[i].name) {
            free(pairs);
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "configuration entry %zu has no name", i);
        }
        pairs[i].name = bw_str_of(config[i].name);
        pairs[i].has_value = config[i].value != NULL;
        pairs[i].value = bw_str_of(config[i].value);
    }
    *out = pairs;
    return BW_OK;
}

static bw_err ask_with_config(bw_bus *bus, bw_api_key type, const char *topic, int32_t partitions, const bw_config_entry *config,
                              size_t count)
{
    bw_err e = check(bus, topic);
    if (e) return e;
    if (partitions < 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a topic can't have %d partitions", partitions);
    if (type == BW_API_CREATE_TOPIC) BW_DISPATCH(bus, topic_create(bus, topic, partitions, config, count));
    BW_DISPATCH(bus, topic_alter(bus, topic, partitions, config, count));
    bw_config_pair *pairs;
    e = pairs_of(config, count, &pairs);
    if (e) return e;
    bw_request q;
    bw_request_init(&q, type);
    q.topic = bw_str_of(topic);
    q.partitions = partitions;
    q.configs = pairs;
    q.config_count = count;
    e = bw_admin_ask(bus, &q);
    free(pairs);
    return e;
}

bw_err bw_topic_create(bw_bus *bus, const char *topic, int32_t partitions, const bw_config_entry *config, size_t config_count)
{
    return ask_with_config(bus, BW_API_CREATE_TOPIC, topic, partitions, config, config_count);
}

bw_err bw_topic_alter(bw_bus *bus, const char *topic, int32_t partitions, const bw_config_entry *config, size_t config_count)
{
    return ask_with_config(bus, BW_API_ALTER_TOPIC, topic, partitions, config, config_count);
}

bw_err bw_topic_delete(bw_bus *bus, const char *topic)
{
    bw_err e = check(bus, topic);
    if (e) return e;
    BW_DISPATCH(bus, topic_delete(bus, topic));
    bw_request q;
    bw_request_init(&q, BW_API_DELETE_TOPIC);
    q.topic = bw_str_of(topic);
    return bw_admin_ask(bus, &q);
}

bw_err bw_topic_partitions(bw_bus *bus, const char *topic, int32_t *count)
{
    bw_topic_info info;
    bw_err e = check(bus, topic);
    if (e) return e;
    BW_DISPATCH(bus, topic_partitions(bus, topic, count));
    e = bw_bus_topic_info(bus, topic, false, bw_bus_request_deadline(bus), &info);
    if (!e && count) *count = info.partitions;
    return e;
}

bw_err bw_admin_document(bw_bus *bus, bw_request *q, char **json)
{
    if (!json) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no place for the answer");
    *json = NULL;
    bw_reply reply;
    bw_err e = bw_bus_request(bus, q, bw_bus_request_deadline(bus), &reply);
    bw_buf text = {0};
    if (!e) e = bw_json_from_msgpack(reply.answer.doc, reply.answer.doc_len, &text);
    if (!e) e = bw_buf_append(&text, "", 1);
    bw_reply_fini(&reply);
    if (e) bw_buf_free(&text);
    else *json = (char *)text.data;
    return e;
}

bw_err bw_topics_describe(bw_bus *bus, const char *topic, char **json)
{
    bw_err e = check(bus, topic ? topic : "");
    if (!e && !json) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no place for the answer");
    if (e) return e;
    if (bus->readonly) return bw_readonly_describe(bus, topic, json);
    BW_DISPATCH(bus, topics_describe(bus, topic, json));
    bw_request q;
    bw_request_init(&q, BW_API_DESCRIBE_TOPICS);
    if (topic) q.topic = bw_str_of(topic);
    return bw_admin_document(bus, &q, json);
}

bw_err bw_status(bw_bus *bus, char **json)
{
    bw_err e = check(bus, "");
    if (!e && !json) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no place for the answer");
    if (e) return e;
    if (bus->readonly) return bw_readonly_status(bus, json);
    BW_DISPATCH(bus, status(bus, json));
    bw_request q;
    bw_request_init(&q, BW_API_STATUS);
    return bw_admin_document(bus, &q, json);
}

/* ---- quotas ---- */

/* The daemon knows uids only: names are looked up here, where it may take time. */
static bw_err uid_text(const char *user, char *out, size_t size)
{
    struct passwd pw, *found = NULL;
    char room[4096];
    bool number = *user != 0;
    for (const char *p = user; *p; p++) number &= *p >= '0' && *p <= '9';
    if (number || strcmp(user, BW_QUOTA_DEFAULT) == 0) {
        if (snprintf(out, size, "%s", user) < (int)size) return BW_OK;
    } else if (getpwnam_r(user, &pw, room, sizeof room, &found) == 0 && found) {
        snprintf(out, size, "%lu", (unsigned long)pw.pw_uid);
        return BW_OK;
    }
    return bw_fail(BW_ERR_INVALID_QUOTA, "there is no user '%.60s'; allowed: a user's name, a uid, or " BW_QUOTA_DEFAULT, user);
}

static bw_err name_entity(bw_quota_entity *out, const char *user, const char *client_id, const char *pid, char *uid, size_t uid_size)
{
    bw_err e = user ? uid_text(user, uid, uid_size) : BW_OK;
    if (e) return e;
    if (user) out->user = bw_str_of(uid);
    if (client_id) out->client = bw_str_of(client_id);
    if (pid) out->pid = bw_str_of(pid);
    return BW_OK;
}

bw_err bw_quota_set(bw_bus *bus, const char *user, const char *client_id, const char *pid, const bw_config_entry *rates, size_t rate_count)
{
    char uid[24];
    bw_request q;
    bw_request_init(&q, BW_API_SET_QUOTA);
    bw_err e = check(bus, "");
    if (!e) e = name_entity(&q.quota, user, client_id, pid, uid, sizeof uid);
    if (!e) e = pairs_of(rates, rate_count, &q.configs);
    if (e) return e;
    q.config_count = rate_count;
    e = bw_admin_ask(bus, &q);
    free(q.configs);
    return e;
}

bw_err bw_quotas_list(bw_bus *bus, const char *user, const char *client_id, const char *pid, char **json)
{
    char uid[24];
    bw_request q;
    bw_request_init(&q, BW_API_LIST_QUOTAS);
    bw_err e = check(bus, "");
    if (!e) e = name_entity(&q.quota, user, client_id, pid, uid, sizeof uid);
    return e ? e : bw_admin_document(bus, &q, json);
}

bw_err bw_delete_records(bw_bus *bus, const char *topic, int32_t partition, int64_t before_offset, int64_t *log_start)
{
    bw_err e = check(bus, topic);
    if (e) return e;
    BW_DISPATCH(bus, delete_records(bus, topic, partition, before_offset, log_start));
    bw_request q;
    bw_request_init(&q, BW_API_DELETE_RECORDS);
    q.topic = bw_str_of(topic);
    q.partition = partition;
    q.offset = before_offset;
    bw_reply reply;
    e = bw_bus_request(bus, &q, bw_bus_request_deadline(bus), &reply);
    if (!e && log_start) *log_start = reply.answer.log_start;
    bw_reply_fini(&reply);
    return e;
}

static bw_err list_offsets(bw_bus *bus, const char *topic, int32_t partition, int64_t timestamp, bw_read_limit limit, bw_answer *out)
{
    bw_err e = check(bus, topic);
    if (e) return e;
    bw_request q;
    bw_request_init(&q, BW_API_LIST_OFFSETS);
    q.topic = bw_str_of(topic);
    q.partition = partition;
    q.timestamp = timestamp;
    q.read_limit = (int8_t)limit;
    bw_reply reply;
    e = bw_bus_request(bus, &q, bw_bus_request_deadline(bus), &reply);
    if (!e) *out = reply.answer; /* numbers only are read from it */
    bw_reply_fini(&reply);
    return e;
}

bw_err bw_offsets_range(bw_bus *bus, const char *topic, int32_t partition, bw_offset_range *out)
{
    bw_answer a;
    bw_err e = check(bus, topic);
    if (e) return e;
    BW_DISPATCH(bus, offsets_range(bus, topic, partition, out));
    e = list_offsets(bus, topic, partition, BW_OFFSET_END, BW_READ_VISIBLE, &a);
    if (!e && out) *out = (bw_offset_range){a.log_start, a.end, a.durable};
    return e;
}

bw_err bw_offset_end(bw_bus *bus, const char *topic, int32_t partition, bw_read_limit read_limit, int64_t *end)
{
    bw_answer a;
    if (read_limit < BW_READ_VISIBLE || read_limit > BW_READ_REPLICATED)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "bw_offset_end: unknown read limit %d", (int)read_limit);
    bw_err e = check(bus, topic);
    if (e) return e;
    if (bus->backend) { /* what consumers see of a cluster is what all its replicas have */
        bw_offset_range range = {0, 0, 0};
        e = bus->backend->offsets_range(bus, topic, partition, &range);
        if (!e && end) *end = range.end;
        return e;
    }
    e = list_offsets(bus, topic, partition, BW_OFFSET_END, read_limit, &a);
    if (!e && end) *end = a.offset;
    return e;
}

bw_err bw_offset_for_time(bw_bus *bus, const char *topic, int32_t partition, int64_t timestamp_ms, int64_t *offset,
                          int64_t *found_ms)
{
    bw_answer a;
    if (timestamp_ms < 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a time before 1970 (%lld ms)", (long long)timestamp_ms);
    bw_err e = check(bus, topic);
    if (e) return e;
    BW_DISPATCH(bus, offset_for_time(bus, topic, partition, timestamp_ms, offset, found_ms));
    e = list_offsets(bus, topic, partition, timestamp_ms, BW_READ_VISIBLE, &a);
    if (!e && offset) *offset = a.offset;
    if (!e && found_ms) *found_ms = a.timestamp;
    return e;
}
