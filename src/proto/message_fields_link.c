/* proto/message_fields_link.c: the tables of the messages of links. */
#include "proto/message_fields.h"

#define KEY(text) .key = text, .key_len = sizeof(text) - 1
#define COUNT_OF(a) (uint8_t)(sizeof(a) / sizeof((a)[0]))
#define Q(text, k, member, default_value)                                                                                      \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_request, member), .def = default_value}
#define Q_LIST(text, list, count, shape)                                                                                       \
    {KEY(text), .kind = BW_FIELD_LIST, .offset = (uint16_t)offsetof(bw_request, list),                                         \
     .count_offset = (uint16_t)offsetof(bw_request, count), .item = &(shape)}
#define A(text, k, member, default_value)                                                                                      \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_answer, member), .def = default_value}
#define A_OUTCOME                                                                                                              \
    {KEY("error"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, error)},                    \
    {KEY("message"), .kind = BW_FIELD_STR, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, message)},                \
    {KEY("throttle_ms"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, throttle_ms)}
#define ITEM(text, k, member, default_value)                                                                                   \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_link_part, member), .def = default_value}

static const bw_field part_fields[] = {
    ITEM("topic", STR, topic, 0), ITEM("partition", I32, partition, 0), ITEM("id", BYTES16, id, 0), ITEM("offset", I64, offset, -1),
    ITEM("next", I64, next, -1), ITEM("base", I64, base, -1), ITEM("epoch", I32, epoch, -1), ITEM("crc", U32, crc, 0),
    ITEM("size", U32, size, 0), ITEM("log_start", I64, log_start, -1), ITEM("end", I64, end, -1), ITEM("left", U64, left, 0),
    ITEM("incarnation", U64, incarnation, 0), ITEM("priority", I32, priority, 0), ITEM("timestamp", I64, timestamp, -1),
    ITEM("error", I32, error, 0), ITEM("message", STR, message, 0),
};
/* The least item: a map with one key, a topic of one character. */
static const bw_shape part_shape = {"part", part_fields, COUNT_OF(part_fields), 9, sizeof(bw_link_part)};

#define Q_NAME Q("name", STR, link.name, 0)
#define Q_OPTIONS                                                                                                              \
    {KEY("options"), .kind = BW_FIELD_CONFIGS, .offset = (uint16_t)offsetof(bw_request, configs),                              \
     .count_offset = (uint16_t)offsetof(bw_request, config_count)}
#define Q_PARTS Q_LIST("parts", link.parts, link.part_count, part_shape)
#define Q_MODE Q("mode", I8, link.mode, 0)
#define Q_ORIGIN Q("origin", BYTES16, link.origin, 0), Q("incarnation", U64, link.incarnation, 0)
#define Q_FILTER                                                                                                               \
    Q("key_prefix", BIN, link.key_prefix, 0), Q("header", STR, link.header, 0), Q("header_value", BIN, link.header_value, 0)
#define A_PARTS A_LIST("parts", link.parts, link.part_count, part_shape)
#define A_LIST(text, list, count, shape)                                                                                       \
    {KEY(text), .kind = BW_FIELD_LIST, .offset = (uint16_t)offsetof(bw_answer, list),                                          \
     .count_offset = (uint16_t)offsetof(bw_answer, count), .item = &(shape)}

static const bw_field options_request[] = {Q_NAME, Q_OPTIONS};
static const bw_field name_request[] = {Q_NAME};
static const bw_field hello_request[] = {Q_NAME, Q_ORIGIN};
static const bw_field topic_request[] = {
    Q_NAME, Q_ORIGIN, Q_MODE, Q("topic", STR, topic, 0), Q("partitions", I32, partitions, 0), Q("source", BYTES16, link.source, 0),
    Q("create", BOOL, link.create, 0), Q_OPTIONS, Q_FILTER,
};
static const bw_field append_request[] = {
    Q_NAME, Q_ORIGIN, Q_MODE, Q_PARTS, Q("codec", I8, link.codec, 0), Q("plain", U32, link.plain, 0),
};
static const bw_field fetch_request[] = {
    Q_NAME, Q_ORIGIN, Q_MODE, Q("stream", U32, link.stream, 0), Q("begin", BOOL, link.begin, 0), Q_PARTS, Q("codec", I8, link.codec, 0),
    Q_FILTER,
    Q("max_wait_ms", I32, max_wait_ms, 0), Q("max_bytes", U32, max_bytes, 1048576), Q("read_limit", I8, read_limit, 0),
};
static const bw_field position_request[] = {Q_NAME, Q_ORIGIN, Q_MODE, Q_PARTS};

static const bw_field plain_answer[] = {A_OUTCOME};
static const bw_field doc_answer[] = {
    A_OUTCOME,
    {KEY("doc"), .kind = BW_FIELD_DOC, .offset = (uint16_t)offsetof(bw_answer, doc), .count_offset = (uint16_t)offsetof(bw_answer, doc_len)},
};
static const bw_field hello_answer[] = {
    A_OUTCOME, A("origin", BYTES16, link.origin, 0), A("incarnation", U64, link.incarnation, 0),
};
static const bw_field parts_answer[] = {A_OUTCOME, A_PARTS};
static const bw_field fetch_answer[] = {A_OUTCOME, A_PARTS, A("codec", I8, link.codec, 0), A("plain", U32, link.plain, 0),
    A("changed", BOOL, link.changed, 0),
};

#define SHAPE(key, request, answer)                                                                                            \
    [BW_API_##key - BW_API_LINK_ADD] = {{#key, request, COUNT_OF(request), 0, 0}, {#key, answer, COUNT_OF(answer), 0, 0}}
static const bw_shapes shapes[] = {
    SHAPE(LINK_ADD, options_request, plain_answer),     SHAPE(LINK_LIST, name_request, doc_answer),
    SHAPE(LINK_DESCRIBE, name_request, doc_answer),     SHAPE(LINK_ALTER, options_request, plain_answer),
    SHAPE(LINK_REMOVE, name_request, plain_answer),     SHAPE(LINK_HELLO, hello_request, hello_answer),
    SHAPE(LINK_TOPIC, topic_request, parts_answer),     SHAPE(LINK_APPEND, append_request, parts_answer),
    SHAPE(LINK_FETCH, fetch_request, fetch_answer),     SHAPE(LINK_POSITION, position_request, parts_answer),
};

const bw_shapes *bw_link_shapes(uint16_t type)
{
    return type >= BW_API_LINK_ADD && type <= BW_API_LINK_POSITION ? &shapes[type - BW_API_LINK_ADD] : NULL;
}
