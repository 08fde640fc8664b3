/* busway/user.h: who may come from other hosts (tcp://, tls+tcp://), and what they may do. For administrators.
 *
 * A user is a name, a way to prove it, and a role. Ways: a password; a token, which is a long random text for programs; a client certificate
 * whose common name is the user's (the listener must ask for it: tls.client.auth). Roles: "none", "reader" (consume, commit offsets), "client"
 * (that, and produce, transactions, queues), "admin". The daemon keeps of a password a yescrypt hash with its salt, of a token a SHA-256 hash. */
#ifndef BUSWAY_USER_H
#define BUSWAY_USER_H

#include <busway/bus.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BW_USER_NAME_MAX 63 /* letters, digits, '.', '_', '-', '@' */
#define BW_USER_SECRET_MAX 255
#define BW_TOKEN_MAX 136

typedef enum bw_user_kind { BW_USER_PASSWORD = 1, BW_USER_TOKEN = 2, BW_USER_CERTIFICATE = 3 } bw_user_kind;

/* bw_user_set: make a user, or change one: connections of one that is changed are closed. secret: the password; with the other kinds NULL.
 * On the disk when it returns. INVALID_ARGUMENT (name, role, secret), NOT_PERMITTED, LIMIT_REACHED. */
BW_API bw_err bw_user_set(bw_bus *bus, const char *name, bw_user_kind kind, const char *role, const char *secret);
/* bw_token_add: a user of kind BW_USER_TOKEN; token gets its text, which nobody can ask for again. As bw_user_set. */
BW_API bw_err bw_token_add(bw_bus *bus, const char *name, const char *role, char token[BW_TOKEN_MAX]);
/* bw_user_remove: its connections are closed. NOT_FOUND, NOT_PERMITTED. */
BW_API bw_err bw_user_remove(bw_bus *bus, const char *name);
/* bw_users_list: JSON array of {"name", "kind": "password", "token" or "certificate", "role", "created_ms"}; never a secret. */
BW_API bw_err bw_users_list(bw_bus *bus, char **json);

#ifdef __cplusplus
}
#endif

#endif
