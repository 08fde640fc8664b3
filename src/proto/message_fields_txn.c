/* proto/message_fields_txn.c: the tables of the messages of transactions. */
#include "proto/message_fields.h"

#define KEY(text) .key = text, .key_len = sizeof(text) - 1
#define COUNT_OF(a) (uint8_t)(sizeof(a) / sizeof((a)[0]))
#define Q(text, k, member, default_value)                                                                                      \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_request, member), .def = default_value}
#define A(text, k, member, default_value)                                                                                      \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_answer, member), .def = default_value}
#define A_OUTCOME                                                                                                              \
    {KEY("error"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, error)},                    \
    {KEY("message"), .kind = BW_FIELD_STR, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, message)},                \
    {KEY("throttle_ms"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, throttle_ms)}

#define Q_TXN Q("txn", STR, txn.id, 0)
#define Q_PRODUCER Q("producer_id", I64, txn.producer_id, -1), Q("epoch", I16, txn.producer_epoch, -1)

static const bw_field offset_commit_request[] = {
    Q_TXN, Q_PRODUCER, Q("group", STR, group.id, 0), Q("member", STR, group.member, 0), Q("instance", STR, group.instance, 0),
    Q("generation", I32, group.epoch, -1),
    {KEY("parts"), .kind = BW_FIELD_LIST, .offset = (uint16_t)offsetof(bw_request, group.parts),
     .count_offset = (uint16_t)offsetof(bw_request, group.part_count), .item = &bw_offset_part_shape},
};
static const bw_field end_request[] = {
    Q_TXN, Q_PRODUCER, Q("commit", BOOL, txn.commit, 0), Q("durable", BOOL, txn.durable, 0), Q("records", I64, txn.records, -1),
};
static const bw_field id_request[] = {Q_TXN};
static const bw_field part_request[] = {Q("topic", STR, topic, 0), Q("partition", I32, partition, 0)};
static const bw_field last_request[] = {Q("topic", STR, topic, 0), Q("partition", I32, partition, 0), Q("producer", STR, producer_name, 0)};

static const bw_field plain_answer[] = {A_OUTCOME};
static const bw_field parts_answer[] = {
    A_OUTCOME,
    {KEY("parts"), .kind = BW_FIELD_LIST, .offset = (uint16_t)offsetof(bw_answer, group.parts),
     .count_offset = (uint16_t)offsetof(bw_answer, group.part_count), .item = &bw_offset_part_shape},
};
static const bw_field last_answer[] = {
    A_OUTCOME, A("producer_id", I64, producer_id, -1), A("epoch", I16, producer_epoch, -1), A("sequence", I32, sequence, -1),
    A("offset", I64, offset, -1),
};
static const bw_field doc_answer[] = {
    A_OUTCOME,
    {KEY("doc"), .kind = BW_FIELD_DOC, .offset = (uint16_t)offsetof(bw_answer, doc), .count_offset = (uint16_t)offsetof(bw_answer, doc_len)},
};

#define SHAPE(key, request, answer)                                                                                            \
    [BW_API_##key - BW_API_TXN_OFFSET_COMMIT] = {{#key, request, COUNT_OF(request), 0, 0}, {#key, answer, COUNT_OF(answer), 0, 0}}
#define SHAPE_NO_REQUEST(key, answer)                                                                                          \
    [BW_API_##key - BW_API_TXN_OFFSET_COMMIT] = {{#key, NULL, 0, 0, 0}, {#key, answer, COUNT_OF(answer), 0, 0}}

static const bw_shapes shapes[BW_API_PRODUCER_LAST - BW_API_TXN_OFFSET_COMMIT + 1] = {
    SHAPE(TXN_OFFSET_COMMIT, offset_commit_request, parts_answer),
    SHAPE(END_TXN, end_request, plain_answer),
    SHAPE_NO_REQUEST(LIST_TRANSACTIONS, doc_answer),
    SHAPE(DESCRIBE_TRANSACTION, id_request, doc_answer),
    SHAPE(ABORT_TRANSACTION, id_request, plain_answer),
    SHAPE(DESCRIBE_PRODUCERS, part_request, doc_answer),
    SHAPE(PRODUCER_LAST, last_request, last_answer),
};

const bw_shapes *bw_txn_shapes(uint16_t type)
{
    return type >= BW_API_TXN_OFFSET_COMMIT && type <= BW_API_PRODUCER_LAST ? &shapes[type - BW_API_TXN_OFFSET_COMMIT] : NULL;
}
