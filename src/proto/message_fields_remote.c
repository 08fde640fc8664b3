/* proto/message_fields_remote.c: the tables of the messages of connections from other hosts. */
#include "proto/message_fields.h"

#define KEY(text) .key = text, .key_len = sizeof(text) - 1
#define COUNT_OF(a) (uint8_t)(sizeof(a) / sizeof((a)[0]))
#define U(text, member) {KEY(text), .kind = BW_FIELD_STR, .offset = (uint16_t)offsetof(bw_request, user.member)}
#define A_OUTCOME                                                                                                              \
    {KEY("error"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, error)},                    \
    {KEY("message"), .kind = BW_FIELD_STR, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, message)},                \
    {KEY("throttle_ms"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, throttle_ms)}

static const bw_field authenticate_request[] = {U("user", name), U("secret", secret)};
static const bw_field set_request[] = {
    U("user", name),
    U("secret", secret),
    U("role", role),
    {KEY("kind"), .kind = BW_FIELD_I32, .offset = (uint16_t)offsetof(bw_request, user.kind)},
};
static const bw_field remove_request[] = {U("user", name)};
static const bw_field plain_answer[] = {A_OUTCOME};
static const bw_field doc_answer[] = {
    A_OUTCOME,
    {KEY("doc"), .kind = BW_FIELD_DOC, .offset = (uint16_t)offsetof(bw_answer, doc), .count_offset = (uint16_t)offsetof(bw_answer, doc_len)},
};

#define AT(id) [BW_API_##id - BW_REMOTE_FIRST]
static const bw_shapes shapes[BW_API_KEY_COUNT - BW_REMOTE_FIRST] = {
    AT(AUTHENTICATE) = {{"AUTHENTICATE", authenticate_request, COUNT_OF(authenticate_request), 0, 0},
                        {"AUTHENTICATE", plain_answer, COUNT_OF(plain_answer), 0, 0}},
    AT(SET_USER) = {{"SET_USER", set_request, COUNT_OF(set_request), 0, 0}, {"SET_USER", plain_answer, COUNT_OF(plain_answer), 0, 0}},
    AT(REMOVE_USER) = {{"REMOVE_USER", remove_request, COUNT_OF(remove_request), 0, 0}, {"REMOVE_USER", plain_answer, COUNT_OF(plain_answer), 0, 0}},
    AT(LIST_USERS) = {{"LIST_USERS", NULL, 0, 0, 0}, {"LIST_USERS", doc_answer, COUNT_OF(doc_answer), 0, 0}},
    AT(PING) = {{"PING", NULL, 0, 0, 0}, {"PING", plain_answer, COUNT_OF(plain_answer), 0, 0}},
    AT(HANDOVER) = {{"HANDOVER", NULL, 0, 0, 0}, {"HANDOVER", plain_answer, COUNT_OF(plain_answer), 0, 0}},
};

const bw_shapes *bw_remote_shapes(uint16_t type)
{
    return type >= BW_REMOTE_FIRST && type < BW_API_KEY_COUNT ? &shapes[type - BW_REMOTE_FIRST] : NULL;
}
