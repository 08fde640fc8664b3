/* broker/users.h: who may come from other hosts: the table of users, and proving to be one.
 *
 * The table is in memory, the broker thread's; each change is in the store (table "users": name -> version, kind, role, be64 when, hash) before
 * it is answered. Hashing a password takes tens of milliseconds on purpose: that is done by a thread of its own (auth.c), one at a time,
 * for a bounded number that wait, so that neither records nor other files wait for those who knock. */
#ifndef BW_BROKER_USERS_H
#define BW_BROKER_USERS_H

#include "broker/core.h"

#include <busway/user.h>

#define BW_USERS_MAX 10000u
#define BW_USER_HASH_MAX 128u

typedef struct bw_user {
    char name[BW_USER_NAME_MAX + 1];
    bw_user_kind kind;
    bw_role role;
    int64_t created_ms;
    char hash[BW_USER_HASH_MAX]; /* crypt(5)'s text, or SHA-256 in hex; "" for certificates */
    struct bw_user *next;
} bw_user;

bw_err bw_users_load(bw_broker *b);
void bw_users_free(bw_broker *b);
/* bw_users_find: NULL: there is none. Valid until the next change. */
const bw_user *bw_users_find(const bw_broker *b, const char *name, size_t len);
/* bw_users_encode, decode: the store's value. decode: bounded; CORRUPT. */
size_t bw_users_encode(const bw_user *u, uint8_t out[BW_USER_HASH_MAX + 16]);
bw_err bw_users_decode(const void *key, size_t key_len, const void *value, size_t value_len, bw_user *out);
/* bw_user_store: u, or that there is none by the name, onto the disk. Any thread. */
bw_err bw_user_store(bw_broker *b, const bw_user *u, bool remove);
/* bw_users_apply: u is as it is now, in memory; connections of this name are closed. */
bw_err bw_users_apply(bw_broker *b, const bw_user *u, bool remove);

/* auth.c */
void bw_handle_authenticate(bw_broker *b, bw_op *op);
void bw_handle_set_user(bw_broker *b, bw_op *op);
void bw_handle_remove_user(bw_broker *b, bw_op *op);
void bw_handle_list_users(bw_broker *b, bw_op *op);
/* bw_auth_stop: end the thread; what it did is in the event queue. */
void bw_auth_stop(bw_broker *b);

/* secret.c: pure. hash_password: a new salt; INTERNAL when the C library can't. is_password: takes as long for "" as for a hash. */
bw_err bw_secret_hash_password(const char *password, char out[BW_USER_HASH_MAX]);
bool bw_secret_is_password(const char *password, const char *hash);
void bw_secret_hash_token(const char *token, size_t len, char out[BW_USER_HASH_MAX]);
bool bw_secret_equal(const char *a, const char *b); /* in the same time wherever they differ */

#endif
