/* listen/busway/listener.h: Busway's own protocol: framed streams, and the same requests over nng REP.
 *
 * Decodes, checks what belongs to the connection (HELLO first, versions, known types), hands the rest to the broker, and encodes its
 * answers. What each message carries: proto/PROTOCOL.md. */
#ifndef BW_LISTEN_BUSWAY_LISTENER_H
#define BW_LISTEN_BUSWAY_LISTENER_H

#include "broker/broker.h"

typedef struct bw_listener bw_listener;

typedef struct bw_listener_options {
    bool allow_long_path; /* UNIX socket paths over 107 bytes: listen through /proc/self/fd (embedded daemons) */
    bool rep_later; /* without the REP endpoint, until bw_listener_start_rep: nng's first socket takes milliseconds */
} bw_listener_options;

/* bw_listener_check: can this configuration be listened on, as far as words go: the URLs and the group. Touches nothing.
 * INVALID_ARGUMENT, UNSUPPORTED, INVALID_CONFIG as below. */
bw_err bw_listener_check(const bw_daemon_config *config);
/* bw_listener_start: listen on every URL of config->listen (there must be one) and on config->listen_rep: NULL: rep.sock beside the
 * first ipc:// one, "none": not at all. config and b outlive the listener. INVALID_ARGUMENT (URL, path over 107 bytes, a foreign
 * file at the path), BUSY (somebody answers there), UNSUPPORTED (a URL other than ipc://), INVALID_CONFIG (unknown group),
 * NOT_PERMITTED, NO_MEMORY, IO. */
bw_err bw_listener_start(bw_broker *b, const bw_daemon_config *config, const bw_listener_options *options, bw_listener **out);
/* bw_listener_start_rep: what rep_later put off. As bw_listener_start; what listens already goes on. */
bw_err bw_listener_start_rep(bw_listener *l);
/* bw_listener_reload: read certificates and keys again when their files are others than at the last time (always: in any case); those who
 * connect from now on see the new ones. INVALID_CONFIG: they can't be used; the former stay. One thread. */
bw_err bw_listener_reload(bw_listener *l, bool always, bool *changed);
bool bw_listener_has_tls(const bw_listener *l);
/* bw_listener_stop: accept no more, let what is under way finish for at most half a second, close every connection, and wait until
 * the broker has forgotten each. Before bw_broker_stop. Frees l. */
void bw_listener_stop(bw_listener *l);

#endif
