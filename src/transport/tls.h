/* transport/tls.h: TLS over a connected, non-blocking socket, by mbedTLS; the only place that knows it. For the daemon and the client.
 *
 * A *context* is what many connections share: who we are (certificate and key), whom we trust. It does not change once it is open and is counted, so
 * that a daemon whose certificate was renewed opens another and the connections of the former go on.
 * A connection behaves as a socket does: bw_tls_recv and bw_tls_sendv give what recv and sendmsg would. What was encrypted and not taken
 * by the socket stays here (bw_tls_unsent) and leaves with the next call. One thread may send while another receives.
 * TLS 1.2 (mbedTLS 2.28), with forward secrecy and authenticated ciphers only. Random numbers come from the kernel, so that a fork does no harm. */
#ifndef BW_TRANSPORT_TLS_H
#define BW_TRANSPORT_TLS_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define BW_TLS_SYSTEM_CA "/etc/ssl/certs/ca-certificates.crt"
#define BW_TLS_NAME_MAX 127u

typedef struct bw_tls_context bw_tls_context;
typedef struct bw_tls bw_tls;

typedef enum bw_tls_demand { BW_TLS_NONE = 0, BW_TLS_REQUESTED = 1, BW_TLS_REQUIRED = 2 } bw_tls_demand;

typedef struct bw_tls_options {
    bool server;
    const char *certificate, *key; /* PEM files; the certificate's chain behind it. NULL (clients only): we show none */
    const char *ca;                /* PEM file of those whose signature counts. Clients: NULL is the system's */
    bw_tls_demand client;          /* servers: must clients show a certificate of that CA? */
} bw_tls_options;

/* bw_tls_context_open: reads the files. INVALID_CONFIG: which can't be read, or does not fit to the other. Freed by the last unref. */
bw_err bw_tls_context_open(const bw_tls_options *options, bw_tls_context **out);
void bw_tls_context_ref(bw_tls_context *c);
void bw_tls_context_unref(bw_tls_context *c);

/* bw_tls_open: over fd, which stays the caller's and outlives it. server_name (clients): what the certificate must be for, a DNS name or an IP
 * address. NO_MEMORY. */
bw_err bw_tls_open(bw_tls_context *c, int fd, const char *server_name, bw_tls **out);
void bw_tls_close(bw_tls *t); /* NULL is allowed */

/* bw_tls_handshake: go on. EMPTY: call again when the socket is ready for *events (of poll). TLS_FAILED: the message says why. */
bw_err bw_tls_handshake(bw_tls *t, short *events);
/* bw_tls_recv, bw_tls_sendv: as recv and sendmsg: -1 with EAGAIN, or another errno when the connection is broken; recv 0: it is closed. recv takes
 * what is there: less than len means that the socket is empty. sendv with count 0 only tries what is unsent (0 or -1). */
ssize_t bw_tls_recv(bw_tls *t, void *buf, size_t len);
ssize_t bw_tls_sendv(bw_tls *t, const struct iovec *pieces, int count);
size_t bw_tls_unsent(bw_tls *t);
/* bw_tls_has_more: bytes were taken from the socket and not given out: no poll will tell of them. */
bool bw_tls_has_more(bw_tls *t);
/* bw_tls_end: tell the peer that nothing more comes. */
void bw_tls_end(bw_tls *t);
/* bw_tls_peer: the common name of the peer's certificate, when it showed one and it was verified; else "". Behind the handshake. */
const char *bw_tls_peer(const bw_tls *t);

/* bw_tls_is_hello: do these bytes, the first of a connection, begin a TLS handshake? */
static inline bool bw_tls_is_hello(const uint8_t *bytes, size_t len) { return len > 0 && bytes[0] == 22; }

#endif
