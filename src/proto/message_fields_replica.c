/* proto/message_fields_replica.c: the tables of the messages between peers that hold the same log. */
#include "proto/message_fields.h"

#define KEY(text) .key = text, .key_len = sizeof(text) - 1
#define COUNT_OF(a) (uint8_t)(sizeof(a) / sizeof((a)[0]))
#define Q(text, k, member, default_value) \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_request, member), .def = default_value}
#define A(text, k, member, default_value) \
    {KEY(text), .kind = BW_FIELD_##k, .offset = (uint16_t)offsetof(bw_answer, member), .def = default_value}
#define A_ERR(text, k, member, default_value) \
    {KEY(text), .kind = BW_FIELD_##k, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, member), .def = default_value}
#define A_OUTCOME A_ERR("error", I32, error, 0), A_ERR("message", STR, message, 0), A_ERR("throttle_ms", I32, throttle_ms, 0)
#define A_RANGE A_ERR("log_start", I64, log_start, -1), A_ERR("end", I64, end, -1), A_ERR("durable", I64, durable, -1)
#define Q_PART Q("topic", STR, topic, 0), Q("partition", I32, partition, 0)
#define Q_RANGE Q("from", I64, replica.from, 0), Q("upto", I64, replica.upto, 0)

static const bw_field hashes_request[] = {
    Q_PART, Q_RANGE, Q("step", I64, replica.step, 0), Q("scan_max", U64, replica.scan_max, 67108864), Q("check", BOOL, replica.check, 0),
};
static const bw_field batches_request[] = {
    Q_PART, Q_RANGE, Q("scan_max", U64, replica.scan_max, 67108864), Q("check", BOOL, replica.check, 0),
};
static const bw_field ranges_answer[] = {
    A_OUTCOME, A_RANGE, A("next", I64, replica.next, -1), A("ranges", BIN, replica.ranges, 0), A("bytes", U64, replica.bytes, 0),
};
static const bw_field ack_request[] = {
    Q_PART, Q("peer", STR, replica.peer, 0), Q("epoch", I32, replica.epoch, -1), Q("visible", I64, replica.visible, 0),
    Q("durable", I64, replica.durable, 0),
};
static const bw_field ack_answer[] = {
    A_OUTCOME, A_RANGE, A_ERR("epoch", I32, replica.epoch, -1), A("replicated", I64, replica.replicated, 0), A("wanted", I32, replica.wanted, 0),
};
static const bw_field state_request[] = {Q_PART, Q("visible", I64, replica.visible, 0), Q("durable", I64, replica.durable, 0)};
static const bw_field part_request[] = {Q_PART};
static const bw_field promote_request[] = {Q("topic", STR, topic, 0), Q("force", BOOL, replica.force, 0)};
static const bw_field tails_request[] = {Q("topic", STR, topic, 0)};
static const bw_field tails_answer[] = {
    A_OUTCOME,
    {KEY("doc"), .kind = BW_FIELD_DOC, .offset = (uint16_t)offsetof(bw_answer, doc), .count_offset = (uint16_t)offsetof(bw_answer, doc_len)},
};
static const bw_field epochs_answer[] = {A_OUTCOME, A_RANGE, A("epoch", I32, replica.epoch, -1), A("ranges", BIN, replica.ranges, 0)};
static const bw_field fence_request[] = {
    Q_PART, Q("peer", STR, replica.peer, 0), Q("epoch", I32, replica.epoch, -1), Q("from", I64, replica.from, 0),
};
static const bw_field mend_request[] = {Q_PART, Q_RANGE, Q("force", BOOL, replica.force, 0)};
static const bw_field fence_answer[] = {
    A_OUTCOME, A_RANGE, A("epoch", I32, replica.epoch, -1), A("path", STR, replica.path, 0), A("bytes", U64, replica.bytes, 0),
};

#define SHAPE(name, request, answer) {{name, request, COUNT_OF(request), 0, 0}, {name, answer, COUNT_OF(answer), 0, 0}}
static const bw_shapes shapes[] = {
    SHAPE("RANGE_HASHES", hashes_request, ranges_answer), SHAPE("RANGE_BATCHES", batches_request, ranges_answer),
    SHAPE("REPLICA_ACK", ack_request, ack_answer),        SHAPE("EPOCHS", part_request, epochs_answer),
    SHAPE("FENCE", fence_request, fence_answer),            SHAPE("MEND", mend_request, ranges_answer),
    SHAPE("PROMOTE", promote_request, ack_answer),           SHAPE("TAILS", tails_request, tails_answer),
    SHAPE("REPLICA_STATE", state_request, ack_answer),
};

const bw_shapes *bw_replica_shapes(uint16_t type)
{
    return type >= BW_API_RANGE_HASHES && type <= BW_API_REPLICA_STATE ? &shapes[type - BW_API_RANGE_HASHES] : NULL;
}
