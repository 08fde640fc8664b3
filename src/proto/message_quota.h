/* proto/message_quota.h: whom a quota is for; a part of bw_request (message.h).
 *
 * SET_QUOTA's rates are its `configs`: producer_byte_rate, consumer_byte_rate (bytes a second), request_rate (requests a second), each a whole
 * number from 1 as text, or nil: no longer; what is not named stays. LIST_QUOTAS answers a document, an array of maps. */
#ifndef BW_PROTO_MESSAGE_QUOTA_H
#define BW_PROTO_MESSAGE_QUOTA_H

#include <busway/admin.h>

/* Each is empty (does not matter), BW_QUOTA_DEFAULT, or a value. */
typedef struct bw_quota_entity {
    bw_str user;   /* the uid in decimal */
    bw_str client; /* client id */
    bw_str pid;    /* alone */
} bw_quota_entity;

#endif
