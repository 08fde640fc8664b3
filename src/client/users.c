/* client/users.c: users and tokens; see busway/user.h. */
#include "client/admin.h"

#include "base/os.h"

#include <busway/user.h>
#include <stdio.h>
#include <string.h>

static bw_err set(bw_bus *bus, const char *name, bw_user_kind kind, const char *role, const char *secret)
{
    bw_request q;
    if (!bus || !name || !role) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no bus, name or role");
    bw_request_init(&q, BW_API_SET_USER);
    q.user = (bw_user_request){.name = bw_str_of(name), .secret = bw_str_of(secret), .role = bw_str_of(role), .kind = (int32_t)kind};
    return bw_admin_ask(bus, &q);
}

bw_err bw_user_set(bw_bus *bus, const char *name, bw_user_kind kind, const char *role, const char *secret)
{
    if (kind == BW_USER_TOKEN) return bw_fail(BW_ERR_INVALID_ARGUMENT, "tokens are made by bw_token_add");
    if ((kind == BW_USER_PASSWORD) != (secret != NULL))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a password is for users of that kind, who must have one");
    return set(bus, name, kind, role, secret);
}

bw_err bw_token_add(bw_bus *bus, const char *name, const char *role, char token[BW_TOKEN_MAX])
{
    uint8_t random[32];
    if (!name || strlen(name) > BW_USER_NAME_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a name has 1 to %d bytes", BW_USER_NAME_MAX);
    if (bw_os_random(random, sizeof random)) return bw_fail(BW_ERR_IO, "there are no random numbers");
    int n = snprintf(token, BW_TOKEN_MAX, "%s.", name);
    for (size_t i = 0; i < sizeof random; i++) n += snprintf(token + n, BW_TOKEN_MAX - (size_t)n, "%02x", random[i]);
    bw_err e = set(bus, name, BW_USER_TOKEN, role, token);
    if (e) memset(token, 0, BW_TOKEN_MAX);
    return e;
}

bw_err bw_user_remove(bw_bus *bus, const char *name)
{
    bw_request q;
    if (!bus || !name) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no bus or name");
    bw_request_init(&q, BW_API_REMOVE_USER);
    q.user.name = bw_str_of(name);
    return bw_admin_ask(bus, &q);
}

bw_err bw_users_list(bw_bus *bus, char **json)
{
    bw_request q;
    if (!bus || !json) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no bus, or no place for the answer");
    bw_request_init(&q, BW_API_LIST_USERS);
    return bw_admin_document(bus, &q, json);
}
