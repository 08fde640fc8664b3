/* proto/message_fields_queue.c: the tables of the messages of queue groups. */
#include "proto/message_fields.h"

#define KEY(text) .key = text, .key_len = sizeof(text) - 1
#define COUNT_OF(a) (uint8_t)(sizeof(a) / sizeof((a)[0]))
#define Q(text, k, member, default_value)                                                                                      \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_request, queue.member), .def = default_value}
#define Q_LIST(text, list, count, shape)                                                                                       \
    {KEY(text), .kind = BW_FIELD_LIST, .offset = (uint16_t)offsetof(bw_request, queue.list),                                   \
     .count_offset = (uint16_t)offsetof(bw_request, queue.count), .item = &(shape)}
#define A(text, k, member, default_value)                                                                                      \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_answer, queue.member), .def = default_value}
#define A_LIST(text, list, count, shape)                                                                                       \
    {KEY(text), .kind = BW_FIELD_LIST, .offset = (uint16_t)offsetof(bw_answer, queue.list),                                    \
     .count_offset = (uint16_t)offsetof(bw_answer, queue.count), .item = &(shape)}
#define A_OUTCOME                                                                                                              \
    {KEY("error"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, error)},                    \
    {KEY("message"), .kind = BW_FIELD_STR, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, message)},                \
    {KEY("throttle_ms"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, throttle_ms)}
#define ITEM(text, k, type, member, default_value)                                                                             \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(type, member), .def = default_value}

static const bw_field topic_fields[] = {ITEM("topic", STR, bw_queue_topic, topic, 0)};
/* The least item: a map with one key, a topic of one character. */
static const bw_shape topic_shape = {"topic", topic_fields, COUNT_OF(topic_fields), 9, sizeof(bw_queue_topic)};

static const bw_field run_fields[] = {
    ITEM("topic", STR, bw_queue_run, topic, 0),
    ITEM("partition", I32, bw_queue_run, partition, 0),
    ITEM("first", I64, bw_queue_run, first, 0),
    ITEM("last", I64, bw_queue_run, last, 0),
    ITEM("deliveries", U32, bw_queue_run, deliveries, 1),
};
static const bw_shape run_shape = {"run", run_fields, COUNT_OF(run_fields), 9, sizeof(bw_queue_run)};

static const bw_field item_fields[] = {
    ITEM("topic", STR, bw_queue_item, topic, 0),
    ITEM("partition", I32, bw_queue_item, partition, 0),
    ITEM("first", I64, bw_queue_item, first, 0),
    ITEM("last", I64, bw_queue_item, last, 0),
    ITEM("verb", I8, bw_queue_item, verb, 1),
    ITEM("error", I32, bw_queue_item, error, 0),
    ITEM("refused", U32, bw_queue_item, refused, 0),
};
static const bw_shape item_shape = {"item", item_fields, COUNT_OF(item_fields), 9, sizeof(bw_queue_item)};

#define Q_GROUP Q("group", STR, group, 0)
#define Q_MEMBER Q("member", U32, member, 0)
#define Q_ITEMS Q_LIST("items", items, item_count, item_shape)

static const bw_field join_request[] = {
    Q_GROUP, Q_LIST("topics", topics, topic_count, topic_shape), Q("lease_ms", I32, lease_ms, 0), Q("max_deliveries", I32, max_deliveries, 0),
    Q("max_in_flight", I32, max_in_flight, 0), Q("dead_letter", STR, dead_letter, 0), Q("dead_letters", I8, dead_letters, 0),
    Q("isolation", I8, isolation, 0), Q("reset", I8, reset, 0),
};
static const bw_field fetch_request[] = {
    Q_GROUP, Q_MEMBER, Q("max_records", U32, max_records, 500), Q("max_bytes", U32, max_bytes, 1048576),
    Q("max_wait_ms", I32, max_wait_ms, 0), Q("direct", BOOL, direct, 0),
};
static const bw_field ack_request[] = {Q_GROUP, Q_MEMBER, Q_ITEMS};
static const bw_field leave_request[] = {Q_GROUP, Q_MEMBER};
static const bw_field group_request[] = {Q_GROUP};
static const bw_field peek_request[] = {
    Q_GROUP, Q("topic", STR, topic, 0), Q("partition", I32, partition, 0), Q("max_records", U32, max_records, 100),
};
static const bw_field settle_request[] = {Q_GROUP, Q_ITEMS};

static const bw_field plain_answer[] = {A_OUTCOME};
static const bw_field join_answer[] = {
    A_OUTCOME, A("member", U32, member, 0), A("lease_ms", I32, lease_ms, 0), A("max_deliveries", I32, max_deliveries, 0),
};
static const bw_field fetch_answer[] = {A_OUTCOME, A_LIST("runs", runs, run_count, run_shape)};
static const bw_field ack_answer[] = {A_OUTCOME, A_LIST("items", items, item_count, item_shape)};
static const bw_field doc_answer[] = {
    A_OUTCOME,
    {KEY("doc"), .kind = BW_FIELD_DOC, .offset = (uint16_t)offsetof(bw_answer, doc), .count_offset = (uint16_t)offsetof(bw_answer, doc_len)},
};

#define SHAPE(key, request, answer)                                                                                            \
    [BW_API_##key - BW_API_QUEUE_JOIN] = {{#key, request, COUNT_OF(request), 0, 0}, {#key, answer, COUNT_OF(answer), 0, 0}}

static const bw_shapes shapes[BW_API_QUEUE_DELETE - BW_API_QUEUE_JOIN + 1] = {
    SHAPE(QUEUE_JOIN, join_request, join_answer),
    SHAPE(QUEUE_FETCH, fetch_request, fetch_answer),
    SHAPE(QUEUE_ACK, ack_request, ack_answer),
    SHAPE(QUEUE_LEAVE, leave_request, plain_answer),
    SHAPE(QUEUE_DESCRIBE, group_request, doc_answer),
    SHAPE(QUEUE_PEEK, peek_request, doc_answer),
    SHAPE(QUEUE_SETTLE, settle_request, ack_answer),
    SHAPE(QUEUE_DELETE, group_request, plain_answer),
};

const bw_shapes *bw_queue_shapes(uint16_t type)
{
    return type >= BW_API_QUEUE_JOIN && type <= BW_API_QUEUE_DELETE ? &shapes[type - BW_API_QUEUE_JOIN] : NULL;
}
