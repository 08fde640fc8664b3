/* client/url.h: what a bus URL says. Pure but for the environment and the working directory. */
#ifndef BW_CLIENT_URL_H
#define BW_CLIENT_URL_H

#include "base/err.h"
#include "client/remote.h"
#include "proto/message.h"

#include <busway/bus.h>
#include <limits.h>

#define BW_URL_SYSTEM_RUNTIME "/run/busway"

typedef struct bw_url {
    bool embedded;          /* dir: */
    bool read_only;         /* ?mode=ro: no coordinator, nothing is written */
    bool self_coordinator;  /* ?coordinator=self: carried in this process when the folder has none */
    bool remote;            /* tcp:, tls+tcp:; what they say is in `at` */
    bool kafka;             /* kafka://: path is everything behind it, for the backend */
    bool transport_given;   /* ?transport= */
    bw_transport transport;
    char idle_exit[24];     /* "30s": passed to the daemon as it is */
    char path[PATH_MAX];    /* absolute: the data directory (dir:), or the socket (ipc:); "host:port" of a remote one */
    bw_remote at;
} bw_url;

/* bw_url_parse: INVALID_ARGUMENT names what is wrong and what is allowed; UNSUPPORTED for schemes of other transports. */
bw_err bw_url_parse(const char *text, bw_url *out);
/* bw_url_choose: the URL to use when none was given: $BUSWAY_URL, the host's daemon, or the user's own folder
 * (*own_folder: true, to be told to the user). */
bw_err bw_url_choose(bw_url *out, bool *own_folder);
/* bw_url_print: the canonical text; at most size bytes. */
void bw_url_print(const bw_url *url, char *out, size_t size);

/* Shared by url.c and url_remote.c; `url` is the text for messages. bw_url_unescape: %XX. bw_url_duration: in ms, -1: it is none; a plain number is
 * ms. bw_url_options: what stands behind '?'. */
bw_err bw_url_unescape(const char *url, const char *from, size_t len, char *out, size_t size);
int64_t bw_url_duration(const char *value, size_t len);
bw_err bw_url_options(const char *url, const char *options, bw_url *out);
/* bw_url_remote: text is tcp://… or tls+tcp://…, rest what stands behind "://". */
bw_err bw_url_remote(const char *text, const char *rest, bw_url *out);
bw_err bw_url_remote_option(const char *url, bw_str name, bw_str value, bw_remote *at);

#endif
