/* transport/stream.h: connections that carry Busway's frames: sockets on a reactor (UNIX, tcp), and nng's byte streams (ipc, tcp and tls).
 *
 * Receiving. Bytes go into chunks of 4 to 256 KiB (as much as the peer sends at once), frames are cut out in place. A frame's memory
 * is a *token*: valid until bw_stream_consumed. While the tokens of a connection hold more than its credit, or more than
 * BW_STREAM_BACKLOG_MAX waits to be sent, it is not read from: the peer's writes block, nothing is dropped.
 * Sending. bw_stream_send writes at once what the socket takes, on the caller's thread; the rest is copied and sent as the
 * socket drains, in large pieces. Small frames that are sent within a reactor's turn leave together at its next flush. Nothing ever
 * blocks.
 * Lifetime. A connection is reference-counted: its own receive side, each token, each send under way and the user hold one. The
 * user's object is given back with `destroy` when the last is gone; no callback comes later.
 * Callbacks run within the reactor's turn, on its waiting thread. Those of nng's streams run on nng's task threads, and on the threads that
 * call bw_stream_consumed (frames that a pause held back) and bw_stream_close (closed). They must not block. frame, malformed and closed
 * of one connection never overlap; drained may come beside them. */
#ifndef BW_TRANSPORT_STREAM_H
#define BW_TRANSPORT_STREAM_H

#include "proto/frame.h"
#include "transport/reactor.h"
#include "transport/tls.h"

#include <sys/types.h>

#define BW_STREAM_CREDIT_DEFAULT (8u << 20)
#define BW_STREAM_BACKLOG_MAX (8u << 20)
#define BW_STREAM_LOW_WATER (64u << 10)

typedef struct bw_stream bw_stream;
typedef struct bw_stream_token bw_stream_token;
typedef struct bw_stream_listener bw_stream_listener;

/* uid, gid, pid as the kernel says; -1 where it can't (tcp). */
typedef struct bw_stream_peer {
    int64_t uid, gid, pid;
    bool remote;      /* not by a UNIX socket */
    bool tls;         /* the handshake is over; subject: whom its verified certificate names, "" without one */
    char subject[BW_TLS_NAME_MAX + 1];
    char address[80]; /* of a remote one, with its port */
} bw_stream_peer;

typedef struct bw_stream_ops {
    /* A new connection: the user's object, which holds one reference until bw_stream_release; NULL: turned away. */
    void *(*accepted)(void *owner, bw_stream *s, const bw_stream_peer *peer);
    /* One whole frame. Its views are valid until bw_stream_consumed(token), which must come exactly once, from any thread. */
    void (*frame)(void *user, const bw_frame *f, bw_stream_token *token);
    /* What came is no frame (the thread's message says why). Nothing is read any more; when the callback returns, the connection
     * is closed behind what is queued. */
    void (*malformed)(void *user, bw_err err);
    /* The backlog fell below BW_STREAM_LOW_WATER after a part of it had to wait. */
    void (*drained)(void *user);
    /* The peer is gone, or bw_stream_close was called. Once; no frame comes after it. */
    void (*closed)(void *user);
    /* The last reference is gone. */
    void (*destroy)(void *user);
    /* Accepting failed (out of descriptors, of memory); it is tried again in a while. */
    void (*trouble)(void *owner, bw_err err);
    /* A TLS handshake failed (the thread's message says why): it never was a connection. */
    void (*refused)(void *owner, const char *address, bw_err err);
} bw_stream_ops;

typedef struct bw_stream_listen_options {
    const char *url;      /* ipc:///absolute/path, tcp://…, tls+tcp://… */
    bool allow_long_path; /* ipc: listen through /proc/self/fd when the path has over 107 bytes */
    int64_t gid;          /* ipc: the socket's group; -1: the process's */
    size_t frame_max;     /* largest length field */
    size_t credit;        /* bytes of unconsumed frames a connection; 0: BW_STREAM_CREDIT_DEFAULT */
    int32_t hello_timeout_ms; /* a connection that is not established by then is closed; 0: never */
    bw_tls_context *tls;      /* tls+tcp with a reactor: counted by the listener */
    bw_reactor *reactor;      /* ipc, tcp: whose waiting thread does everything, within its turn; outlives all. NULL, or another URL: nng */
    const bw_stream_ops *ops;
    void *owner;
} bw_stream_listen_options;

/* bw_stream_listen: errors of bw_socket_place_prepare; INVALID_ARGUMENT (URL), BUSY, NOT_PERMITTED, NO_MEMORY. The socket has mode
 * 0660, its folder (when it was not there) 0750. Accepts from now on. */
bw_err bw_stream_listen(const bw_stream_listen_options *options, bw_stream_listener **out);
/* bw_stream_listener_close: accept no more, and remove the socket. Connections go on. Not from a callback. */
void bw_stream_listener_close(bw_stream_listener *l);
/* bw_stream_listener_set_tls: connections that come from now on are given this one. Of a listener that has one. Any thread. */
void bw_stream_listener_set_tls(bw_stream_listener *l, bw_tls_context *tls);
/* bw_stream_listener_busy: connections with queued output or unconsumed frames. */
size_t bw_stream_listener_busy(bw_stream_listener *l);
/* bw_stream_listener_destroy: close it and all connections, wait at most timeout_ms until the last is gone, and free. false: some are
 * still referenced; nothing is freed then. Not from a callback. */
bool bw_stream_listener_destroy(bw_stream_listener *l, int64_t timeout_ms);

/* bw_stream_send: head, then payload; neither is needed any more when it returns. NOT_CONNECTED, NO_MEMORY (the connection is closed
 * then, as a part may have been sent). Any thread; frames of concurrent calls do not mix. */
bw_err bw_stream_send(bw_stream *s, const void *head, size_t head_len, const void *payload, size_t payload_len);
/* bw_stream_backlog: bytes that wait to be sent. */
size_t bw_stream_backlog(bw_stream *s);
void bw_stream_consumed(bw_stream_token *token);
/* bw_stream_charge: count further bytes against the credit until the token is consumed: what the answer may take. From the frame
 * callback. */
void bw_stream_charge(bw_stream_token *token, size_t bytes);
/* bw_stream_established: the peer has introduced itself, and a remote one may do something here. Any thread. */
void bw_stream_established(bw_stream *s);
/* bw_stream_finish: read no more; close when what is queued has been sent. */
void bw_stream_finish(bw_stream *s);
void bw_stream_close(bw_stream *s);
/* bw_stream_release: drop the user's reference. */
void bw_stream_release(bw_stream *s);

#endif
