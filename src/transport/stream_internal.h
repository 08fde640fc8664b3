/* transport/stream_internal.h: a connection's state, shared by stream.c, stream_receive.c and stream_listener.c. */
#ifndef BW_TRANSPORT_STREAM_INTERNAL_H
#define BW_TRANSPORT_STREAM_INTERNAL_H

#include "transport/socket_path.h"
#include "transport/stream.h"

#include <nng/nng.h>
#include <pthread.h>
#include <stdatomic.h>

#define BW_CHUNK_MIN 4096u
#define BW_CHUNK_MAX (256u << 10)
#define BW_TOKEN_COPY_MAX 1024u  /* frames up to this are copied out, so that a small request does not pin a large chunk */
#define BW_STREAM_IDLE_MS 5000   /* after so long a large chunk is given back */

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

struct bw_stream {
    bw_stream_listener *listener;
    nng_stream *nng;
    nng_aio *recv_aio;
    nng_aio *send_aio;
    nng_aio *try_aio; /* without a callback: see try_send */
    atomic_uint refs;
    atomic_size_t unconsumed;
    atomic_size_t backlog; /* bytes of pending and inflight that wait; written under the lock */
    void *user;

    /* Owned by whoever set `receiving`: the receive callback mostly. */
    bw_chunk *chunk;
    size_t parsed; /* bytes of chunk that were given out */
    size_t need;   /* bytes of the frame that begins at parsed, as far as known */
    size_t want;   /* size of the next chunk */
    bool established;

    /* nng must not be asked to send or receive after nng_stream_close (the aio would never finish), so each call to it is made under
     * the lock, after a look at `closed`. */
    pthread_mutex_t lock;
    bool closed;
    bool receiving; /* a receive is outstanding, or its callback runs */
    atomic_bool finishing; /* written under the lock */
    bool told;      /* `closed` was called */
    bool sending;   /* send_aio is outstanding with `inflight` */
    bw_buf pending;
    bw_buf inflight;
    size_t inflight_at;

    /* The listener's lock. */
    bw_stream *next, *prev;
};

struct bw_stream_listener {
    const bw_stream_ops *ops;
    void *owner;
    size_t frame_max;
    size_t credit;
    int32_t hello_timeout_ms;
    bw_socket_place place;
    nng_stream_listener *nng;
    nng_aio *accept_aio;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool accepting; /* accept_aio is outstanding, or its callback runs */
    bool napping;   /* it waits to try again */
    bool stopping;
    bw_stream *streams;
};

/* stream.c */
bw_stream *bw_stream_create(bw_stream_listener *l, nng_stream *nng);
void bw_stream_ref(bw_stream *s);
/* Buffers of an idle connection's sending: are there large ones (under the lock); give them back. */
bool bw_stream_holds_buffers(const bw_stream *s);
void bw_stream_drop_buffers(bw_stream *s);

/* stream_receive.c */
void bw_stream_received(void *stream); /* callback of recv_aio */
void bw_stream_receive_start(bw_stream *s);
/* Go on after a pause, if there was one and its reason is gone. Without the lock. */
void bw_stream_receive_resume(bw_stream *s);
void bw_chunk_release(bw_chunk *c);

/* stream_listener.c */
void bw_stream_listener_forget(bw_stream_listener *l, bw_stream *s);

#endif
