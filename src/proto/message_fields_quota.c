/* proto/message_fields_quota.c: the tables of the messages about quotas. */
#include "proto/message_fields.h"

#define KEY(text) .key = text, .key_len = sizeof(text) - 1
#define COUNT_OF(a) (uint8_t)(sizeof(a) / sizeof((a)[0]))
#define Q(text, member) {KEY(text), .kind = BW_FIELD_STR, .offset = (uint16_t)offsetof(bw_request, quota.member)}
#define Q_ENTITY Q("user", user), Q("client", client), Q("pid", pid)
#define A_OUTCOME                                                                                                              \
    {KEY("error"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, error)},                    \
    {KEY("message"), .kind = BW_FIELD_STR, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, message)},                \
    {KEY("throttle_ms"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, throttle_ms)}

static const bw_field set_request[] = {
    Q_ENTITY,
    {KEY("rates"), .kind = BW_FIELD_CONFIGS, .offset = (uint16_t)offsetof(bw_request, configs),
     .count_offset = (uint16_t)offsetof(bw_request, config_count)},
};
static const bw_field list_request[] = {Q_ENTITY};
static const bw_field plain_answer[] = {A_OUTCOME};
static const bw_field doc_answer[] = {
    A_OUTCOME,
    {KEY("doc"), .kind = BW_FIELD_DOC, .offset = (uint16_t)offsetof(bw_answer, doc), .count_offset = (uint16_t)offsetof(bw_answer, doc_len)},
};

static const bw_shapes shapes[] = {
    {{"SET_QUOTA", set_request, COUNT_OF(set_request), 0, 0}, {"SET_QUOTA", plain_answer, COUNT_OF(plain_answer), 0, 0}},
    {{"LIST_QUOTAS", list_request, COUNT_OF(list_request), 0, 0}, {"LIST_QUOTAS", doc_answer, COUNT_OF(doc_answer), 0, 0}},
};

const bw_shapes *bw_quota_shapes(uint16_t type)
{
    return type >= BW_API_SET_QUOTA && type <= BW_API_LIST_QUOTAS ? &shapes[type - BW_API_SET_QUOTA] : NULL;
}
