/* proto/message_remote.h: who somebody from another host is; a part of bw_request (message.h).
 *
 * AUTHENTICATE carries name and secret (name empty: the secret is a token, which says the name); SET_USER name, kind, role and secret; REMOVE_USER
 * the name. LIST_USERS answers a document, an array of maps. */
#ifndef BW_PROTO_MESSAGE_REMOTE_H
#define BW_PROTO_MESSAGE_REMOTE_H

typedef struct bw_user_request {
    bw_str name, secret, role;
    int32_t kind; /* bw_user_kind */
} bw_user_request;

#endif
