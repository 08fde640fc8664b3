/* client/remote.h: a daemon on another host: where it is, and coming back to it.
 *
 * A connection to it is used as the one to a UNIX socket is (conn.h); what differs is here: the name is resolved at each connection, a
 * connection that failed is not tried again at once (back-off), and silence is broken by a heartbeat. */
#ifndef BW_CLIENT_REMOTE_H
#define BW_CLIENT_REMOTE_H

#include "base/clock.h"
#include "base/err.h"
#include "transport/tcp.h"
#include "transport/tls.h"

#include <stdbool.h>

#define BW_REMOTE_HEARTBEAT_MS 60000 /* five packets each, all counted: less than one in ten seconds */
#define BW_REMOTE_FILE_MAX 512u
#define BW_REMOTE_ANSWER_MS 15000    /* so long nothing may come behind a heartbeat: as long as the heartbeat, 1 s to this */

/* What a URL says of it. */
typedef struct bw_remote {
    bw_tcp_place place;
    int32_t heartbeat_ms;
    bool tls;
    char ca[BW_REMOTE_FILE_MAX], certificate[BW_REMOTE_FILE_MAX], key[BW_REMOTE_FILE_MAX]; /* PEM files; "": none given */
    char server_name[BW_TCP_HOST_MAX + 1];                                                    /* of the certificate; "": the host */
    bool insecure;                /* secrets may go over a network that is not encrypted */
    char user[64];                /* "": a token, or nobody */
    char secret[256];             /* password or token; "" */
    char secret_file[BW_REMOTE_FILE_MAX]; /* instead: its first line, read anew at each connection */
    char secret_variable[24];     /* instead: of the environment */
} bw_remote;

static inline int32_t bw_remote_answer_ms(const bw_remote *r)
{
    return r->heartbeat_ms > BW_REMOTE_ANSWER_MS ? BW_REMOTE_ANSWER_MS : r->heartbeat_ms < 1000 ? 1000 : r->heartbeat_ms;
}

/* bw_remote_secret: what proves who we are; *given false: nothing is to be proved. INVALID_CONFIG (the file), NOT_PERMITTED (it would go in the
 * clear over a network). */
bw_err bw_remote_secret(const bw_remote *r, char out[256], bool *given);
/* bw_remote_connect: a connection, with TLS when it is asked for (*tls, over *fd; else NULL). Files are read anew each time. As bw_tcp_connect;
 * INVALID_CONFIG (a file), TLS_FAILED (the message says why). */
bw_err bw_remote_connect(const bw_remote *r, const bw_stop *stop, bw_deadline deadline, int *fd, bw_tls **tls, bool *refused);

/* Between one try and the next: 50 ms, twice as long each time up to 5 s, each a random half to the whole of it. One a connection, under its
 * mutex. */
typedef struct bw_backoff {
    uint32_t fails;
    bw_deadline next; /* 0: at once */
} bw_backoff;
void bw_backoff_failed(bw_backoff *b);
void bw_backoff_worked(bw_backoff *b);

#endif
