/* proto/message_fields.c: the tables of all messages. */
#include "proto/message_fields.h"

#define KEY(text) .key = text, .key_len = sizeof(text) - 1
#define AT(type, member) .offset = (uint16_t)offsetof(type, member)
#define COUNT_AT(type, member) .count_offset = (uint16_t)offsetof(type, member)

/* Requests. */
#define Q(text, k, member, default_value) {KEY(text), .kind = BW_FIELD_##k, AT(bw_request, member), .def = default_value}
#define Q_TOPIC Q("topic", STR, topic, 0)
#define Q_PARTITION Q("partition", I32, partition, 0)

static const bw_field fetch_part_fields[] = {
    {KEY("topic"), .kind = BW_FIELD_STR, AT(bw_fetch_part, topic)},
    {KEY("partition"), .kind = BW_FIELD_I32, AT(bw_fetch_part, partition)},
    {KEY("offset"), .kind = BW_FIELD_I64, AT(bw_fetch_part, offset)},
    {KEY("max_bytes"), .kind = BW_FIELD_U32, AT(bw_fetch_part, max_bytes), .def = 1048576},
};
#define COUNT_OF(a) (uint8_t)(sizeof(a) / sizeof((a)[0]))
/* The least item: a map with one key, a topic of one character. */
static const bw_shape fetch_part_shape = {"part", fetch_part_fields, COUNT_OF(fetch_part_fields), 9, sizeof(bw_fetch_part)};

static const bw_field hello_request[] = {
    Q("min", I32, version_min, 1), Q("max", I32, version_max, 1), Q("client", STR, client_id, 0), Q("pid", I32, client_pid, 0),
};
static const bw_field topic_request[] = {Q_TOPIC};
static const bw_field metadata_request[] = {Q_TOPIC, Q("create", BOOL, allow_auto_create, 1)};
static const bw_field topic_config_request[] = {
    Q_TOPIC,
    Q("partitions", I32, partitions, 0),
    {KEY("configs"), .kind = BW_FIELD_CONFIGS, AT(bw_request, configs), COUNT_AT(bw_request, config_count)},
};
static const bw_field produce_request[] = {
    Q_TOPIC, Q_PARTITION, Q("acks", I8, acks, 1), Q("timeout_ms", I32, timeout_ms, 30000), Q("create", BOOL, allow_auto_create, 1),
    Q("records", BOOL, records, 0),
};
static const bw_field fetch_request[] = {
    Q("read_limit", I8, read_limit, 0),
    Q("max_wait_ms", I32, max_wait_ms, 0),
    Q("min_bytes", U32, min_bytes, 1),
    Q("max_bytes", U32, max_bytes, 1048576),
    {KEY("parts"), .kind = BW_FIELD_LIST, AT(bw_request, parts), COUNT_AT(bw_request, part_count), .item = &fetch_part_shape},
    Q("records", BOOL, records, 0),
    Q("isolation", I8, isolation, 0),
};
static const bw_field subscribe_request[] = {
    Q("subscription", U32, subscription, 0), Q_TOPIC, Q_PARTITION, Q("offset", I64, offset, BW_OFFSET_BEGINNING),
    Q("read_limit", I8, read_limit, 0), Q("credit", U64, credit, 0), Q("isolation", I8, isolation, 0),
};
static const bw_field credit_request[] = {Q("subscription", U32, subscription, 0), Q("credit", U64, credit, 0)};
static const bw_field unsubscribe_request[] = {Q("subscription", U32, subscription, 0)};
static const bw_field list_offsets_request[] = {
    Q_TOPIC, Q_PARTITION, Q("timestamp", I64, timestamp, BW_OFFSET_END), Q("read_limit", I8, read_limit, 0),
};
static const bw_field delete_records_request[] = {Q_TOPIC, Q_PARTITION, Q("offset", I64, offset, 0)};
static const bw_field init_producer_request[] = {
    Q("producer", STR, producer_name, 0), Q("txn", STR, txn.id, 0), Q("timeout_ms", I32, txn.timeout_ms, 60000),
    Q("producer_id", I64, txn.producer_id, -1), Q("epoch", I16, txn.producer_epoch, -1),
};
static const bw_field attach_request[] = {Q_TOPIC, Q("for_write", BOOL, for_write, 0)};
static const bw_field mailbox_request[] = {Q("mailbox", U32, mailbox, 0)};
static const bw_field report_request[] = {Q_TOPIC, Q("transport", STR, transport, 0), Q("reason", STR, reason, 0)};

/* Answers. */
#define A(text, k, member, default_value) {KEY(text), .kind = BW_FIELD_##k, AT(bw_answer, member), .def = default_value}
#define A_ERR(text, k, member, default_value)                                                                                  \
    {KEY(text), .kind = BW_FIELD_##k, .on_error = true, AT(bw_answer, member), .def = default_value}
#define A_RANGE A_ERR("log_start", I64, log_start, -1), A_ERR("end", I64, end, -1), A_ERR("durable", I64, durable, -1)
/* Every answer begins with these. */
#define A_OUTCOME A_ERR("error", I32, error, 0), A_ERR("message", STR, message, 0), A_ERR("throttle_ms", I32, throttle_ms, 0)

static const bw_field topic_meta_fields[] = {
    {KEY("name"), .kind = BW_FIELD_STR, AT(bw_topic_meta, name)},
    {KEY("id"), .kind = BW_FIELD_BYTES16, AT(bw_topic_meta, id)},
    {KEY("partitions"), .kind = BW_FIELD_I32, AT(bw_topic_meta, partitions)},
    {KEY("log_append_time"), .kind = BW_FIELD_BOOL, AT(bw_topic_meta, log_append_time)},
    {KEY("compression"), .kind = BW_FIELD_STR, AT(bw_topic_meta, compression)},
    {KEY("message_max"), .kind = BW_FIELD_U32, AT(bw_topic_meta, message_max)},
    {KEY("error"), .kind = BW_FIELD_I32, AT(bw_topic_meta, error)},
};
static const bw_shape topic_meta_shape = {"topic", topic_meta_fields, COUNT_OF(topic_meta_fields), 8, sizeof(bw_topic_meta)};

static const bw_field fetched_part_fields[] = {
    {KEY("topic"), .kind = BW_FIELD_STR, AT(bw_fetched_part, topic)},
    {KEY("partition"), .kind = BW_FIELD_I32, AT(bw_fetched_part, partition)},
    {KEY("error"), .kind = BW_FIELD_I32, AT(bw_fetched_part, error)},
    {KEY("message"), .kind = BW_FIELD_STR, AT(bw_fetched_part, message)},
    {KEY("log_start"), .kind = BW_FIELD_I64, AT(bw_fetched_part, log_start), .def = -1},
    {KEY("end"), .kind = BW_FIELD_I64, AT(bw_fetched_part, end), .def = -1},
    {KEY("durable"), .kind = BW_FIELD_I64, AT(bw_fetched_part, durable), .def = -1},
    {KEY("size"), .kind = BW_FIELD_U32, AT(bw_fetched_part, size)},
};
static const bw_shape fetched_part_shape = {"part", fetched_part_fields, COUNT_OF(fetched_part_fields), 9, sizeof(bw_fetched_part)};

#define A_PARTS                                                                                                                \
    {KEY("parts"), .kind = BW_FIELD_LIST, AT(bw_answer, parts), COUNT_AT(bw_answer, part_count), .item = &fetched_part_shape}

static const bw_field plain_answer[] = {A_OUTCOME};
static const bw_field hello_answer[] = {
    A_OUTCOME, A("version", I32, version, 0), A_ERR("min", I32, version_min, 0), A_ERR("max", I32, version_max, 0),
    A("server", STR, server_version, 0), A("data_dir", STR, data_dir, 0), A("arena_dir", STR, arena_dir, 0),
    A("generation", BYTES16, generation, 0), A("pid", I32, server_pid, 0), A("uid", U64, server_uid, 0),
    A("frame_max", U32, frame_max, 0),
};
static const bw_field metadata_answer[] = {
    A_OUTCOME,
    {KEY("topics"), .kind = BW_FIELD_LIST, AT(bw_answer, topics), COUNT_AT(bw_answer, topic_count), .item = &topic_meta_shape},
};
static const bw_field doc_answer[] = {
    A_OUTCOME, {KEY("doc"), .kind = BW_FIELD_DOC, AT(bw_answer, doc), COUNT_AT(bw_answer, doc_len)},
};
static const bw_field offset_answer[] = {A_OUTCOME, A("offset", I64, offset, -1), A_RANGE};
static const bw_field produce_answer[] = {A_OUTCOME, A("offset", I64, offset, -1), A("timestamp", I64, timestamp, -1), A_RANGE};
static const bw_field fetch_answer[] = {A_OUTCOME, A_PARTS};
static const bw_field data_answer[] = {
    A_OUTCOME, A_ERR("subscription", U32, subscription, 0), A("offset", I64, offset, -1), A_RANGE, A_PARTS,
};
static const bw_field producer_answer[] = {A_OUTCOME, A("producer_id", I64, producer_id, -1), A("epoch", I16, producer_epoch, -1)};
static const bw_field attach_answer[] = {A_OUTCOME, A("id", BYTES16, topic_id, 0), A("partitions", I32, partitions, 0)};
static const bw_field mailbox_answer[] = {A_OUTCOME, A("mailbox", U32, mailbox, 0)};

#define SHAPE(key, request, answer)                                                                                            \
    [BW_API_##key] = {{#key, request, COUNT_OF(request), 0, 0}, {#key, answer, COUNT_OF(answer), 0, 0}}
#define SHAPE_NO_REQUEST(key, answer) [BW_API_##key] = {{#key, NULL, 0, 0, 0}, {#key, answer, COUNT_OF(answer), 0, 0}}

static const bw_shapes shapes[BW_API_STATUS + 1] = {
    SHAPE(HELLO, hello_request, hello_answer),
    SHAPE(METADATA, metadata_request, metadata_answer),
    SHAPE(CREATE_TOPIC, topic_config_request, plain_answer),
    SHAPE(DELETE_TOPIC, topic_request, plain_answer),
    SHAPE(ALTER_TOPIC, topic_config_request, plain_answer),
    SHAPE(DESCRIBE_TOPICS, topic_request, doc_answer),
    SHAPE(PRODUCE, produce_request, produce_answer),
    SHAPE(FETCH, fetch_request, fetch_answer),
    SHAPE(SUBSCRIBE, subscribe_request, offset_answer),
    SHAPE(CREDIT, credit_request, plain_answer),
    SHAPE(UNSUBSCRIBE, unsubscribe_request, plain_answer),
    SHAPE_NO_REQUEST(DATA, data_answer),
    SHAPE(LIST_OFFSETS, list_offsets_request, produce_answer),
    SHAPE(DELETE_RECORDS, delete_records_request, offset_answer),
    SHAPE(INIT_PRODUCER_ID, init_producer_request, producer_answer),
    SHAPE(ATTACH, attach_request, attach_answer),
    SHAPE(DETACH, topic_request, plain_answer),
    SHAPE_NO_REQUEST(MAILBOX, mailbox_answer),
    SHAPE(RELEASE_MAILBOX, mailbox_request, plain_answer),
    SHAPE(REPORT, report_request, plain_answer),
    SHAPE_NO_REQUEST(STATUS, doc_answer),
};

static const bw_shapes *shapes_of(uint16_t type)
{
    if (type <= BW_API_STATUS) { return &shapes[type]; }
    if (type >= BW_REMOTE_FIRST) { return bw_remote_shapes(type); }
    if (type >= BW_API_RANGE_HASHES) { return bw_replica_shapes(type); }
    if (type >= BW_API_LINK_ADD) { return bw_link_shapes(type); }
    if (type >= BW_API_SET_QUOTA) { return bw_quota_shapes(type); }
    if (type >= BW_API_QUEUE_JOIN) { return bw_queue_shapes(type); }
    return type <= BW_API_DELETE_GROUP ? bw_group_shapes(type) : bw_txn_shapes(type);
}

const bw_shape *bw_request_shape(uint16_t type)
{
    const bw_shapes *s = shapes_of(type);
    return s && s->request.name ? &s->request : NULL;
}

const bw_shape *bw_answer_shape(uint16_t type)
{
    const bw_shapes *s = shapes_of(type);
    return s && s->answer.name ? &s->answer : NULL;
}

void bw_shape_defaults(const bw_shape *s, void *base)
{
    for (unsigned i = 0; i < s->count; i++) {
        const bw_field *f = &s->fields[i];
        uint8_t *at = (uint8_t *)base + f->offset;
        if (f->def == 0) { continue; }
        switch ((bw_field_kind)f->kind) {
        case BW_FIELD_BOOL: *(bool *)at = true; break;
        case BW_FIELD_I8: *(int8_t *)at = (int8_t)f->def; break;
        case BW_FIELD_I16: *(int16_t *)(void *)at = (int16_t)f->def; break;
        case BW_FIELD_I32: *(int32_t *)(void *)at = (int32_t)f->def; break;
        case BW_FIELD_I64: *(int64_t *)(void *)at = f->def; break;
        case BW_FIELD_U32: *(uint32_t *)(void *)at = (uint32_t)f->def; break;
        case BW_FIELD_U64: *(uint64_t *)(void *)at = (uint64_t)f->def; break;
        case BW_FIELD_STR:
        case BW_FIELD_BIN:
        case BW_FIELD_BYTES16:
        case BW_FIELD_DOC:
        case BW_FIELD_CONFIGS:
        case BW_FIELD_LIST: break; /* zero is their only default */
        }
    }
}
