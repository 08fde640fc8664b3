/* proto/message_fields.h: one table a message: key, kind, place in the struct, default. Internal to proto/.
 *
 * The same tables encode, decode and set the defaults, so that the three can't disagree; proto/PROTOCOL.md lists them. A field that
 * has its default is not sent; one that is not there takes its default. */
#ifndef BW_PROTO_MESSAGE_FIELDS_H
#define BW_PROTO_MESSAGE_FIELDS_H

#include "proto/message.h"

typedef enum bw_field_kind {
    BW_FIELD_BOOL,
    BW_FIELD_I8,
    BW_FIELD_I16,
    BW_FIELD_I32,
    BW_FIELD_I64,
    BW_FIELD_U32,
    BW_FIELD_U64,
    BW_FIELD_STR,     /* bw_str */
    BW_FIELD_BIN,     /* bw_str: a binary of any length */
    BW_FIELD_BYTES16, /* uint8_t[16]: binary of 16 bytes; default all zero */
    BW_FIELD_DOC,     /* any one value, as it is: pointer, and its length at count_offset */
    BW_FIELD_CONFIGS, /* map of name to value or nil: bw_config_pair *, count at count_offset */
    BW_FIELD_LIST,    /* array of maps of `item`: pointer, count at count_offset */
} bw_field_kind;

typedef struct bw_shape bw_shape;

typedef struct bw_field {
    const char *key;
    uint8_t key_len;
    uint8_t kind;
    bool on_error; /* answers: sent with an error too */
    uint16_t offset;
    uint16_t count_offset;
    const bw_shape *item;
    int64_t def;
} bw_field;

struct bw_shape {
    const char *name;
    const bw_field *fields;
    uint8_t count;
    uint8_t min_bytes; /* items of lists: the least that one takes, so that a count can be judged before anything is allocated */
    uint16_t size;     /* items of lists: sizeof */
};

#define BW_CONFIGS_MAX 1024u
#define BW_LIST_MAX 262144u

/* Of one API. */
typedef struct bw_shapes { bw_shape request, answer; } bw_shapes;
/* bw_group_shapes: of the types of groups (message_fields_groups.c); NULL: it is none of them. */
const bw_shapes *bw_group_shapes(uint16_t type);
const bw_shapes *bw_queue_shapes(uint16_t type); /* likewise, message_fields_queue.c */
/* bw_txn_shapes: of the types of transactions (message_fields_txn.c); NULL: it is none of them. */
const bw_shapes *bw_txn_shapes(uint16_t type);
/* The items of offsets in lists, for all who carry them. */
extern const bw_shape bw_offset_part_shape;
/* bw_quota_shapes: of the types of quotas (message_fields_quota.c); NULL: it is none of them. */
const bw_shapes *bw_quota_shapes(uint16_t type);
/* bw_link_shapes: of the types of links (message_fields_link.c); NULL: it is none of them. */
const bw_shapes *bw_link_shapes(uint16_t type);
const bw_shapes *bw_remote_shapes(uint16_t type); /* of connections from other hosts, message_fields_remote.c */

const bw_shapes *bw_replica_shapes(uint16_t type); /* likewise, message_fields_replica.c */

/* NULL for an unknown type; a shape without fields where nothing is carried. */
const bw_shape *bw_request_shape(uint16_t type);
const bw_shape *bw_answer_shape(uint16_t type);
/* bw_shape_defaults: set each field of base to its default; pointers to NULL. base was zeroed. */
void bw_shape_defaults(const bw_shape *s, void *base);

#endif
