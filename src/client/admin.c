/* client/admin.c: the administrative calls: one request each. */
#include "client/admin.h"

#include "proto/json.h"

#include <busway/admin.h>
#include <stdlib.h>
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

static bw_err ask_with_config(bw_bus *bus, bw_api_key type, const char *topic, int32_t partitions, const bw_config_entry *config,
                              size_t count)
{
    bw_err e = check(bus, topic);
    if (e) return e;
    if (count && !config) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no configuration");
    if (partitions < 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a topic can't have %d partitions", partitions);
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
    bw_request q;
    bw_request_init(&q, BW_API_DELETE_TOPIC);
    q.topic = bw_str_of(topic);
    return bw_admin_ask(bus, &q);
}

bw_err bw_topic_partitions(bw_bus *bus, const char *topic, int32_t *count)
{
    bw_topic_info info;
    bw_err e = check(bus, topic);
    if (!e) e = bw_bus_topic_info(bus, topic, false, bw_bus_request_deadline(bus), &info);
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
    if (e) return e;
    bw_request q;
    bw_request_init(&q, BW_API_DESCRIBE_TOPICS);
    if (topic) q.topic = bw_str_of(topic);
    return bw_admin_document(bus, &q, json);
}

bw_err bw_status(bw_bus *bus, char **json)
{
    bw_err e = check(bus, "");
    if (e) return e;
    bw_request q;
    bw_request_init(&q, BW_API_STATUS);
    return bw_admin_document(bus, &q, json);
}

bw_err bw_delete_records(bw_bus *bus, const char *topic, int32_t partition, int64_t before_offset, int64_t *log_start)
{
    bw_err e = check(bus, topic);
    if (e) return e;
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

static bw_err list_offsets(bw_bus *bus, const char *topic, int32_t partition, int64_t timestamp, bw_answer *out)
{
    bw_err e = check(bus, topic);
    if (e) return e;
    bw_request q;
    bw_request_init(&q, BW_API_LIST_OFFSETS);
    q.topic = bw_str_of(topic);
    q.partition = partition;
    q.timestamp = timestamp;
    bw_reply reply;
    e = bw_bus_request(bus, &q, bw_bus_request_deadline(bus), &reply);
    if (!e) *out = reply.answer; /* numbers only are read from it */
    bw_reply_fini(&reply);
    return e;
}

bw_err bw_offsets_range(bw_bus *bus, const char *topic, int32_t partition, bw_offset_range *out)
{
    bw_answer a;
    bw_err e = list_offsets(bus, topic, partition, BW_OFFSET_END, &a);
    if (!e && out) *out = (bw_offset_range){a.log_start, a.end, a.durable};
    return e;
}

bw_err bw_offset_for_time(bw_bus *bus, const char *topic, int32_t partition, int64_t timestamp_ms, int64_t *offset,
                          int64_t *found_ms)
{
    bw_answer a;
    if (timestamp_ms < 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a time before 1970 (%lld ms)", (long long)timestamp_ms);
    bw_err e = list_offsets(bus, topic, partition, timestamp_ms, &a);
    if (!e && offset) *offset = a.offset;
    if (!e && found_ms) *found_ms = a.timestamp;
    return e;
}
