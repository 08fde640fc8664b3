/* broker/users.c: the table of users; see users.h. */
#include "broker/users.h"

#include "broker/document.h"

#include <stdio.h>
#include <stdlib.h>

enum { VALUE_VERSION = 1, VALUE_HEAD = 11 };

const bw_user *bw_users_find(const bw_broker *b, const char *name, size_t len)
{
    for (const bw_user *u = b->users; u; u = u->next)
        if (strlen(u->name) == len && !memcmp(u->name, name, len)) return u;
    return NULL;
}

size_t bw_users_encode(const bw_user *u, uint8_t out[BW_USER_HASH_MAX + 16])
{
    size_t len = strlen(u->hash);
    out[0] = VALUE_VERSION;
    out[1] = (uint8_t)u->kind;
    out[2] = (uint8_t)u->role;
    for (int i = 0; i < 8; i++) out[3 + i] = (uint8_t)((uint64_t)u->created_ms >> (56 - 8 * i));
    memcpy(out + VALUE_HEAD, u->hash, len);
    return VALUE_HEAD + len;
}

bw_err bw_users_decode(const void *key, size_t key_len, const void *value, size_t value_len, bw_user *out)
{
    const uint8_t *v = value;
    *out = (bw_user){.kind = 0};
    if (key_len == 0 || key_len > BW_USER_NAME_MAX || value_len < VALUE_HEAD || v[0] != VALUE_VERSION || v[1] < BW_USER_PASSWORD ||
        v[1] > BW_USER_CERTIFICATE || v[2] > BW_ROLE_ADMIN || value_len - VALUE_HEAD >= BW_USER_HASH_MAX)
        return bw_fail(BW_ERR_CORRUPT, "an entry of the table of users is not one of this version");
    memcpy(out->name, key, key_len);
    out->kind = (bw_user_kind)v[1];
    out->role = (bw_role)v[2];
    uint64_t at = 0;
    for (int i = 0; i < 8; i++) at = at << 8 | v[3 + i];
    out->created_ms = (int64_t)at;
    memcpy(out->hash, v + VALUE_HEAD, value_len - VALUE_HEAD);
    return BW_OK;
}

bw_err bw_user_store(bw_broker *b, const bw_user *u, bool remove)
{
    uint8_t value[BW_USER_HASH_MAX + 16];
    size_t len = bw_users_encode(u, value);
    bw_meta_change change = {.table = BW_TABLE_USERS, .key = u->name, .key_len = strlen(u->name), .value = remove ? NULL : value,
                             .value_len = remove ? 0 : len};
    return bw_store_change(b->store, &change, 1);
}

static void close_sessions(bw_broker *b, const char *name)
{
    for (bw_session *s = b->sessions; s; s = s->next) {
        if (!s->peer.remote || strcmp(s->user, name) != 0) continue;
        bw_answer a;
        bw_answer_init(&a, NULL);
        a.type = BW_API_AUTHENTICATE;
        a.error = BW_ERR_AUTHENTICATION_FAILED;
        a.message = bw_str_of("the user was changed or removed");
        a.flags |= BW_FRAME_CLOSING;
        s->role = BW_ROLE_NONE;
        s->ops->reply(s->listener, &a);
    }
}

bw_err bw_users_apply(bw_broker *b, const bw_user *u, bool remove)
{
    bw_user **at = &b->users;
    while (*at && strcmp((*at)->name, u->name) != 0) at = &(*at)->next;
    bw_user *mine = *at;
    if (remove && mine) {
        *at = mine->next;
        free(mine);
        b->user_count--;
    } else if (!remove) {
        if (!mine) {
            mine = calloc(1, sizeof *mine);
            if (!mine) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a user");
            *at = mine;
            b->user_count++;
        }
        bw_user *next = mine->next;
        *mine = *u;
        mine->next = next;
    }
    close_sessions(b, u->name);
    return BW_OK;
}

static bool load_one(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    bw_broker *b = opaque;
    bw_user u;
    char why[700];
    bw_err e = bw_users_decode(key, key_len, value, value_len, &u);
    if (!e) e = bw_users_apply(b, &u, false);
    if (e) bw_broker_event(b, BW_LOG_ERROR, "user_ignored", "reason=%s", bw_event_text(bw_error_message(), why, sizeof why));
    return true;
}

bw_err bw_users_load(bw_broker *b) { return bw_store_each(b->store, BW_TABLE_USERS, "", 0, load_one, b); }

void bw_users_free(bw_broker *b)
{
    while (b->users) {
        bw_user *u = b->users;
        b->users = u->next;
        free(u);
    }
}

void bw_handle_list_users(bw_broker *b, bw_op *op)
{
    static const char *const kinds[] = {"", "password", "token", "certificate"};
    msgpack_packer pk;
    bw_doc_begin(b, &pk);
    int bad = msgpack_pack_array(&pk, b->user_count);
    for (const bw_user *u = b->users; u; u = u->next) {
        bad |= msgpack_pack_map(&pk, 4);
        bad |= key_text(&pk, "name", u->name) | key_text(&pk, "kind", kinds[u->kind]) | key_text(&pk, "role", bw_role_name(u->role));
        bad |= key_int(&pk, "created_ms", u->created_ms);
    }
    bw_doc_send(b, op, bad);
}
