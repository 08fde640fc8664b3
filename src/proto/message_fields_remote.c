/* proto/message_fields_remote.c: the tables of the messages of connections from other hosts. */
#include "proto/message_fields.h"

#define KEY(text) .key = text, .key_len = sizeof(text) - 1
#define COUNT_OF(a) (uint8_t)(sizeof(a) / sizeof((a)[0]))
#define A_OUTCOME                                                                                                              \
    {KEY("error"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, error)},                    \
    {KEY("message"), .kind = BW_FIELD_STR, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, message)},                \
    {KEY("throttle_ms"), .kind = BW_FIELD_I32, .on_error = true, .offset = (uint16_t)offsetof(bw_answer, throttle_ms)}

static const bw_field plain_answer[] = {A_OUTCOME};

static const bw_shapes shapes[BW_API_KEY_COUNT - BW_REMOTE_FIRST] = {
    [BW_API_PING - BW_REMOTE_FIRST] = {{"PING", NULL, 0, 0, 0}, {"PING", plain_answer, COUNT_OF(plain_answer), 0, 0}},
};

const bw_shapes *bw_remote_shapes(uint16_t type)
{
    return type >= BW_REMOTE_FIRST && type < BW_API_KEY_COUNT ? &shapes[type - BW_REMOTE_FIRST] : NULL;
}
