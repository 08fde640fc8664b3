/* transport/stream_internal.h: a connection's state, shared by the files stream*.c.
 *
 * stream.c has the lifetime, stream_receive.c turns bytes into frames; how bytes come and go is a *wire*: stream_socket.c (sockets on
 * a reactor) or stream_nng.c (everything that nng can, on nng's threads). */
#ifndef BW_TRANSPORT_STREAM_INTERNAL_H
#define BW_TRANSPORT_STREAM_INTERNAL_H

#include "transport/reactor.h"
#include "transport/socket_path.h"
#include "transport/stream.h"

#include <nng/nng.h>
#include <pthread.h>
#include <stdatomic.h>

#define BW_CHUNK_MIN 4096u
#define BW_CHUNK_MAX (256u << 10)
#define BW_TOKEN_COPY_MAX 1024u  /* frames up to this are copied out, so that a small request does not pin a large chunk */
#define BW_STREAM_IDLE_MS 5000   /* after so long large buffers are given back */
#define BW_SEND_KEEP_MAX (2u << 20)
#define BW_HANDSHAKES_MAX 64     /* connections of a listener that are in the TLS handshake */
#define BW_EARLY_MAX (64u << 10) /* what a remote peer may send, in a frame and in all, before it is established */

/* Received bytes. The connection holds one reference, each token whose frame lies in it another. */
typedef struct bw_chunk {
    atomic_uint refs;
    size_t cap;
    size_t len;
    uint8_t data[];
} bw_chunk;

struct bw_stream_token {
    bw_stream *stream;
    bw_chunk *chunk; /* NULL: copied */
    size_t charge;
    uint8_t copy[];
};

typedef struct bw_shake bw_shake;   /* a connection's handshake; see stream_tls.c */
typedef struct bw_shaker bw_shaker; /* the thread that does them */

typedef struct bw_wire {
    bw_err (*send)(bw_stream *s, const void *head, size_t head_len, const void *payload, size_t payload_len);
    void (*close)(bw_stream *s);
    void (*finish)(bw_stream *s);
    void (*resume)(bw_stream *s); /* read on after a pause, if there was one and its reason is gone. Without the lock */
    void (*fini)(bw_stream *s);   /* the last reference is gone */
} bw_wire;

struct bw_stream {
    bw_stream_listener *listener;
    const bw_wire *wire;
    atomic_uint refs;
    atomic_size_t unconsumed;
    atomic_size_t backlog; /* bytes that the socket would not take; written under the lock */
    void *user;

    /* Owned by the receiving side: whoever set `receiving` (nng), the reactor's waiting thread (sockets). */
    bw_chunk *chunk;
    size_t parsed; /* bytes of chunk that were given out */
    size_t need;   /* bytes of the frame that begins at parsed, as far as known */
    size_t want;   /* size of the next chunk */
    atomic_bool established; /* set by any thread */

    pthread_mutex_t lock;
    bool closed;
    atomic_bool finishing; /* written under the lock */
    bool told;             /* `closed` was called */

    /* nng, under the lock. It must not be asked to send or receive after nng_stream_close (the aio would never finish), so each call
     * to it is made under the lock, after a look at `closed`. */
    nng_stream *nng;
    nng_aio *recv_aio;
    nng_aio *send_aio;
    nng_aio *try_aio; /* without a callback: see try_send */
    bool receiving;   /* a receive is outstanding, or its callback runs */
    bool sending;     /* send_aio is outstanding with `inflight` */
    bw_buf pending;
    bw_buf inflight;
    size_t inflight_at;

    /* sockets: see stream_socket.c */
    bw_source source;
    bw_call chore;      /* the waiting thread should end it, or read on */
    bw_flusher gathered;
    bw_ticker ticker;
    int64_t accepted_ms; /* the waiting thread's, as idle_ticks: since it received last */
    int idle_ticks;
    bw_buf out;                   /* under the lock: what has not left yet, from out_at */
    size_t out_at;
    bool blocked; /* under the lock: the socket took no more; out is its backlog */
    bool paused;  /* under the lock: not read from */
    bool remote;
    bw_tls *tls;   /* NULL: plain. Until `secured` the waiting thread's, or its helper's; user is NULL until then */
    bw_shake *shake; /* the waiting thread's; NULL: no handshake is under way */
    bool secured;
    bool rereads;  /* under the lock: TLS has bytes that no poll will tell of */
    bool lingering; /* under the lock: closed by finish, and to be lingered on */
    bool lingers; /* the waiting thread's: everything was sent; what comes is thrown away until the peer closes */

    /* The listener's lock. */
    bw_stream *next, *prev;
};

typedef enum bw_listen_kind { BW_LISTEN_NNG, BW_LISTEN_UNIX, BW_LISTEN_TCP } bw_listen_kind;

struct bw_stream_listener {
    bw_listen_kind kind;
    const bw_stream_ops *ops;
    void *owner;
    size_t frame_max;
    size_t credit;
    int32_t hello_timeout_ms;
    bw_socket_place place;
    nng_stream_listener *nng; /* NULL: sockets */
    nng_aio *accept_aio;
    bw_reactor *reactor;      /* NULL: nng */
    bw_source source;         /* the listening socket */
    bw_call closing;
    bw_ticker nap;            /* accepting failed: it is tried again */
    bw_shaker *shaker;        /* the waiting thread's, as what follows; NULL until the first TLS connection */
    bw_shake *shakes, *shakes_last; /* handshakes that are under way, oldest first */
    uint32_t shake_count;

    pthread_mutex_t lock;
    bw_tls_context *tls; /* NULL: plain */
    pthread_cond_t changed;
    bool accepting; /* accept_aio is outstanding, or its callback runs */
    bool napping;   /* it waits to try again */
    bool stopping;
    bw_stream *streams;
};

/* stream.c */
bw_stream *bw_stream_create(bw_stream_listener *l, const bw_wire *wire);
void bw_stream_ref(bw_stream *s);
/* bw_stream_tell_closed: the user's callback, then the receiving side's reference. Once, without the lock. */
void bw_stream_tell_closed(bw_stream *s);

/* stream_receive.c; all by the owner of the receiving side */
/* bw_stream_make_room: for what the next receive may bring. */
bool bw_stream_make_room(bw_stream *s);
/* bw_stream_took: n bytes came into the chunk's room. */
void bw_stream_took(bw_stream *s, size_t n);
/* bw_stream_give_frames: whole frames of the chunk until it is empty or the connection is over its limits. true: some may be left. */
bool bw_stream_give_frames(bw_stream *s);
bool bw_stream_over_limits(const bw_stream *s);
void bw_chunk_release(bw_chunk *c);

/* stream_socket.c */
extern const bw_wire bw_socket_wire;
/* bw_socket_begin: serve the connection s, made with the caller's reference, which it takes, over fd, which it takes too. Within a turn, the waiting
 * thread. false: turned away, and gone. */
bool bw_socket_begin(bw_stream *s, int fd, const bw_stream_peer *peer);

/* stream_tls.c; all by the waiting thread */
/* bw_shake_begin: TLS over fd, in a handshake. May end another connection for it. BUSY: there are too many; NO_MEMORY. */
bw_err bw_shake_begin(bw_stream *s, bw_tls_context *context, int fd);
/* bw_shake_step: the socket is ready. false: it is being done; the connection's chore is called then, and until then the socket is not
 * watched. true: it is done already. */
bool bw_shake_step(bw_stream *s);
bool bw_shake_is_busy(const bw_stream *s);
/* bw_shake_outcome: of a step that is done, once; its message is the thread's. false: there is none. */
bool bw_shake_outcome(bw_stream *s, bw_err *err, short *events);
/* bw_shake_end: the handshake is over, one way or the other; not while it is busy. */
void bw_shake_end(bw_stream *s);
/* bw_shaker_free: no connection is left. */
void bw_shaker_free(bw_stream_listener *l);

/* stream_nng.c, stream_accept.c: the listening end. listen: bind; start: accept from now on; stop: no more, bw_stream_listener_stopped
 * follows; free: also behind a listen that failed. */
bw_err bw_nng_listen(bw_stream_listener *l, const char *url);
void bw_nng_start(bw_stream_listener *l);
void bw_nng_stop(bw_stream_listener *l);
void bw_nng_free(bw_stream_listener *l);
bw_err bw_socket_listen(bw_stream_listener *l, const char *url);
bw_err bw_socket_start(bw_stream_listener *l);
void bw_socket_stop(bw_stream_listener *l);
void bw_socket_free(bw_stream_listener *l);

/* stream_listener.c */
/* bw_stream_listener_add: into the list; bw_stream_listener_introduce: to the user. take is both. */
void bw_stream_listener_add(bw_stream_listener *l, bw_stream *s);
bool bw_stream_listener_introduce(bw_stream_listener *l, bw_stream *s, const bw_stream_peer *peer);
/* bw_stream_listener_take: a new connection, whose receiving side holds its first reference. false: turned away, and gone. */
bool bw_stream_listener_take(bw_stream_listener *l, bw_stream *s, const bw_stream_peer *peer);
void bw_stream_listener_forget(bw_stream_listener *l, bw_stream *s);
/* bw_stream_listener_stopped: nothing is accepted any more, and no callback of accepting runs. */
void bw_stream_listener_stopped(bw_stream_listener *l);
bool bw_stream_listener_is_stopping(bw_stream_listener *l);

#endif
