/* proto/message_fields_groups.c: the tables of the messages of groups. */
#include "proto/message_fields.h"

#define KEY(text) .key = text, .key_len = sizeof(text) - 1
#define COUNT_OF(a) (uint8_t)(sizeof(a) / sizeof((a)[0]))
/* A field of the request's or the answer's group. */
#define Q(text, k, member, default_value)                                                                                      \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_request, group.member), .def = default_value}
#define Q_LIST(text, list, count, shape)                                                                                       \
    {KEY(text), .kind = BW_FIELD_LIST, .offset = (uint16_t)offsetof(bw_request, group.list),                                   \
     .count_offset = (uint16_t)offsetof(bw_request, group.count), .item = &(shape)}
#define A(text, k, member, default_value)                                                                                      \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_answer, group.member), .def = default_value}
/* Sent with an error too. */
#define A_ERR(text, k, member, default_value)                                                                                  \
    {KEY(text), .kind = BW_FIELD_##k, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, group.member), .def = default_value}
#define A_LIST(text, list, count, shape)                                                                                       \
    {KEY(text), .kind = BW_FIELD_LIST, .offset = (uint16_t)offsetof(bw_answer, group.list),                                    \
     .count_offset = (uint16_t)offsetof(bw_answer, group.count), .item = &(shape)}
#define A_OUTCOME                                                                                                              \
    {KEY("error"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, error)},                    \
    {KEY("message"), .kind = BW_FIELD_STR, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, message)},                \
    {KEY("throttle_ms"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, throttle_ms)}
#define ITEM(text, k, type, member, default_value)                                                                             \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(type, member), .def = default_value}

static const bw_field offset_part_fields[] = {
    ITEM("topic", STR, bw_offset_part, topic, 0),
    ITEM("partition", I32, bw_offset_part, partition, 0),
    ITEM("offset", I64, bw_offset_part, offset, -1),
    ITEM("epoch", I32, bw_offset_part, leader_epoch, -1),
    ITEM("metadata", STR, bw_offset_part, metadata, 0),
    ITEM("id", BYTES16, bw_offset_part, topic_id, 0),
    ITEM("timestamp", I64, bw_offset_part, timestamp, -1),
    ITEM("error", I32, bw_offset_part, error, 0),
    ITEM("message", STR, bw_offset_part, message, 0),
};
/* The least item: a map with one key, a topic of one character. */
const bw_shape bw_offset_part_shape = {"part", offset_part_fields, COUNT_OF(offset_part_fields), 9, sizeof(bw_offset_part)};

static const bw_field subscription_fields[] = {
    ITEM("topic", STR, bw_subscription, topic, 0),
    ITEM("pattern", BOOL, bw_subscription, pattern, 0),
};
static const bw_shape subscription_shape = {"topic", subscription_fields, COUNT_OF(subscription_fields), 9, sizeof(bw_subscription)};

static const bw_field protocol_fields[] = {
    ITEM("name", STR, bw_group_protocol, name, 0),
    ITEM("metadata", BIN, bw_group_protocol, metadata, 0),
};
static const bw_shape protocol_shape = {"protocol", protocol_fields, COUNT_OF(protocol_fields), 8, sizeof(bw_group_protocol)};

static const bw_field member_fields[] = {
    ITEM("member", STR, bw_group_member, member, 0),
    ITEM("instance", STR, bw_group_member, instance, 0),
    ITEM("data", BIN, bw_group_member, metadata, 0),
};
static const bw_shape member_shape = {"member", member_fields, COUNT_OF(member_fields), 10, sizeof(bw_group_member)};

#define Q_GROUP Q("group", STR, id, 0)
#define Q_MEMBER Q("member", STR, member, 0), Q("instance", STR, instance, 0)
#define Q_EPOCH Q("epoch", I32, epoch, -1)
#define Q_PARTS Q_LIST("parts", parts, part_count, bw_offset_part_shape)
#define Q_TIMES Q("session_timeout_ms", I32, session_timeout_ms, 0), Q("rebalance_timeout_ms", I32, rebalance_timeout_ms, 0)

static const bw_field offset_commit_request[] = {Q_GROUP, Q_MEMBER, Q_EPOCH, Q_PARTS, Q("durable", BOOL, durable, 0)};
static const bw_field offset_parts_request[] = {Q_GROUP, Q_PARTS};
static const bw_field group_join_request[] = {
    Q_GROUP, Q_MEMBER, Q_EPOCH, Q("kind", I8, kind, 0), Q("assignor", STR, assignor, 0), Q_TIMES,
    Q("max_poll_interval_ms", I32, max_poll_interval_ms, 0), Q_LIST("topics", topics, topic_count, subscription_shape), Q_PARTS,
    Q("mailbox", U32, mailbox, 0),
};
static const bw_field group_heartbeat_request[] = {
    Q_GROUP, Q_MEMBER, Q_EPOCH, Q("has_topics", BOOL, has_topics, 0), Q_LIST("topics", topics, topic_count, subscription_shape),
    Q("has_owned", BOOL, has_owned, 0), Q_PARTS, Q("mailbox", U32, mailbox, 0),
};
static const bw_field leave_request[] = {Q_GROUP, Q_MEMBER, Q_EPOCH, Q("reason", STR, reason, 0)};
static const bw_field join_group_request[] = {
    Q_GROUP, Q_MEMBER, Q_TIMES, Q("protocol_type", STR, protocol_type, 0), Q_LIST("protocols", protocols, protocol_count, protocol_shape),
    Q("needs_member_id", BOOL, needs_member_id, 0), Q("reason", STR, reason, 0),
};
static const bw_field sync_group_request[] = {
    Q_GROUP, Q_MEMBER, Q_EPOCH, Q("protocol_type", STR, protocol_type, 0), Q("protocol", STR, protocol, 0),
    Q_LIST("assignments", assignments, assignment_count, member_shape),
};
static const bw_field heartbeat_request[] = {Q_GROUP, Q_MEMBER, Q_EPOCH};
static const bw_field group_request[] = {Q_GROUP};

#define A_PARTS A_LIST("parts", parts, part_count, bw_offset_part_shape)
static const bw_field plain_answer[] = {A_OUTCOME};
static const bw_field parts_answer[] = {A_OUTCOME, A_PARTS};
static const bw_field assigned_answer[] = {
    A_OUTCOME, A_ERR("group", STR, id, 0), A_ERR("member", STR, member, 0), A("epoch", I32, epoch, -1), A("lease_ms", I32, lease_ms, 0),
    A("has_parts", BOOL, has_parts, 0), A_PARTS,
};
static const bw_field join_group_answer[] = {
    A_OUTCOME, A_ERR("member", STR, member, 0), A("epoch", I32, epoch, -1), A("protocol_type", STR, protocol_type, 0),
    A("protocol", STR, protocol, 0), A("leader", STR, leader, 0), A_LIST("members", members, member_count, member_shape),
};
static const bw_field sync_group_answer[] = {
    A_OUTCOME, A("protocol_type", STR, protocol_type, 0), A("protocol", STR, protocol, 0), A("assignment", BIN, assignment, 0),
};
static const bw_field doc_answer[] = {
    A_OUTCOME,
    {KEY("doc"), .kind = BW_FIELD_DOC, .offset = (uint16_t)offsetof(bw_answer, doc), .count_offset = (uint16_t)offsetof(bw_answer, doc_len)},
};

#define SHAPE(key, request, answer)                                                                                            \
    [BW_API_##key - BW_API_OFFSET_COMMIT] = {{#key, request, COUNT_OF(request), 0, 0}, {#key, answer, COUNT_OF(answer), 0, 0}}
#define SHAPE_NO_REQUEST(key, answer)                                                                                          \
    [BW_API_##key - BW_API_OFFSET_COMMIT] = {{#key, NULL, 0, 0, 0}, {#key, answer, COUNT_OF(answer), 0, 0}}

static const bw_shapes shapes[BW_API_DELETE_GROUP - BW_API_OFFSET_COMMIT + 1] = {
    SHAPE(OFFSET_COMMIT, offset_commit_request, parts_answer),
    SHAPE(OFFSET_FETCH, offset_parts_request, parts_answer),
    SHAPE(OFFSET_DELETE, offset_parts_request, parts_answer),
    SHAPE(GROUP_JOIN, group_join_request, assigned_answer),
    SHAPE(GROUP_HEARTBEAT, group_heartbeat_request, assigned_answer),
    SHAPE(GROUP_LEAVE, leave_request, plain_answer),
    SHAPE_NO_REQUEST(GROUP_ASSIGNMENT, assigned_answer),
    SHAPE(JOIN_GROUP, join_group_request, join_group_answer),
    SHAPE(SYNC_GROUP, sync_group_request, sync_group_answer),
    SHAPE(HEARTBEAT, heartbeat_request, plain_answer),
    SHAPE(LEAVE_GROUP, leave_request, plain_answer),
    SHAPE_NO_REQUEST(LIST_GROUPS, doc_answer),
    SHAPE(DESCRIBE_GROUP, group_request, doc_answer),
    SHAPE(DELETE_GROUP, group_request, plain_answer),
};

const bw_shapes *bw_group_shapes(uint16_t type)
{
    return type >= BW_API_OFFSET_COMMIT && type <= BW_API_DELETE_GROUP ? &shapes[type - BW_API_OFFSET_COMMIT] : NULL;
}
