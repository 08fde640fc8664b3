/* client/conn.h: one connection to the daemon: frames over a stream socket (UNIX, or tcp), many requests in flight.
 *
 * Nobody owns a thread for it. Whoever waits for an answer *pumps*: one thread at a time waits on the socket, reads, and hands
 * each answer to the request it belongs to; the others sleep on a condition variable and one of them takes over. Writing is
 * possible from any thread at any time and never blocks: what the socket does not take is queued and sent by the pump.
 *
 * Locks: `mutex` guards everything but the receive buffers, which belong to the pumper. Callbacks run without the mutex, in the
 * pumping thread; they may submit, but not pump or connect. A lost connection completes every pending request with NOT_CONNECTED
 * before a new connection can be made. */
#ifndef BW_CLIENT_CONN_H
#define BW_CLIENT_CONN_H

#include "base/clock.h"
#include "base/err.h"
#include "base/os.h"
#include "base/spin.h"
#include "base/stop.h"
#include "client/remote.h"
#include "proto/message.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

/* A receive buffer. Frames lie in it; who keeps one beyond the callback takes a reference. Single-threaded: the pumper's. */
typedef struct bw_rx {
    struct bw_rx *next; /* in the pool */
    uint32_t refs;
    size_t cap, len, at; /* bytes received; parsed up to at */
    uint8_t data[];
} bw_rx;

typedef struct bw_pending bw_pending;
/* e != OK: the connection was lost and frame is NULL. The frame is valid during the call. The pending is out of the table. */
typedef void (*bw_pending_fn)(bw_pending *p, bw_err e, const bw_frame *frame);
struct bw_pending {
    bw_pending *next;
    bw_pending_fn done;
    void *opaque;
    uint32_t correlation; /* 0: not in the table */
};

enum { BW_CONN_BUCKETS = 256 };

typedef struct bw_conn_options {
    const char *client_id;
    const bw_remote *remote; /* NULL: this host's. Outlives the connection */
    int32_t patience_ms;     /* remote: a try to connect is given so long, whatever the deadline of who asks */
    const bw_stop *stop;     /* NULL, or what ends every wait: CLOSED. Outlives the connection */
    /* What the server sends by itself; may be NULL. false: it could not be kept, so the connection is lost: nothing may be missing. */
    bool (*push)(void *opaque, const bw_frame *frame, bw_rx *rx);
    void *opaque;
} bw_conn_options;

typedef struct bw_conn_hello {
    char data_dir[PATH_MAX], arena_dir[PATH_MAX], server_version[32];
    uint8_t generation[16];
    int32_t server_pid;
    uint64_t server_uid;
    uint32_t frame_max;
} bw_conn_hello;

typedef struct bw_conn {
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* monotonic clock */
    bw_conn_options options;
    int wake_fd;            /* makes the pumper look again */
    _Atomic int fd;         /* -1: none; changed by the pumper only */
    _Atomic bool up;        /* the handshake is done */
    bool pumping;
    bool broken;            /* a send failed; the pumper closes */
    bool calling;           /* a callback runs, in the pumping thread */
    pthread_t caller;
    uint32_t waiters;
    int handover_fd;        /* eventfd to write when the pump becomes free; -1 */
    int lost_fd;            /* eventfd to write when the connection was lost; -1 */
    uint32_t next_correlation;
    bw_pending *buckets[BW_CONN_BUCKETS];
    uint32_t in_flight;
    bw_buf out;             /* what the socket has not taken yet */
    size_t out_at;
    bw_rx *rx, *pool;       /* the pumper's */
    bw_spin spin;           /* the pumper's */
    uint32_t pool_count;
    bw_tls *tls;            /* over fd; NULL: plain. Set and freed under mutex by the pumper */
    bw_backoff backoff;     /* remote: when it may be tried again */
    bw_pending heartbeat;   /* remote: under way when its correlation is set */
    int64_t heard_ms;       /* the pumper's, remote: when something came last, or a heartbeat was sent */
    _Atomic uint32_t epoch; /* counts connections; 0: never connected */
    bw_conn_hello *hello;   /* of the present or last connection; written by the connecter under mutex */
    _Atomic uint64_t sends, receives, polls, bytes_out, bytes_in;
    _Atomic uint64_t throttled, throttled_ms; /* answers that a quota held back, and for how long in all */
} bw_conn;

bw_err bw_conn_init(bw_conn *c, const bw_conn_options *options);
/* bw_conn_fini: no other thread uses it any more. */
void bw_conn_fini(bw_conn *c);
/* bw_conn_abandon: after a fork: close descriptors, touch no lock. */
void bw_conn_abandon(bw_conn *c);

static inline bool bw_conn_is_up(bw_conn *c) { return atomic_load_explicit(&c->up, memory_order_acquire); }

/* bw_conn_connect: connect to the socket at path, or to the remote daemon (path is its name in messages), and shake hands. A connection
 * that is up is left alone.
 * A remote daemon that could not be reached is tried again after a while only: it is waited for.
 * NO_COORDINATOR: nobody listens there (*refused true), or no answer in time; NOT_PERMITTED; UNSUPPORTED_VERSION; PROTOCOL. */
bw_err bw_conn_connect(bw_conn *c, const char *path, bw_deadline deadline, bool *refused);
/* bw_conn_in_flight: is any request, of whatever thread, without its answer? */
bool bw_conn_in_flight(bw_conn *c);
/* bw_conn_drop: close the connection, if any, failing what is pending. */
void bw_conn_drop(bw_conn *c);

/* bw_conn_submit: send one encoded frame whose correlation has been set by bw_conn_correlate; p may be NULL (one way).
 * payload is sent behind it and not kept. NOT_CONNECTED: p was not registered; nothing was sent. */
bw_err bw_conn_submit(bw_conn *c, bw_pending *p, const bw_buf *frame, const void *payload, size_t payload_len);
uint32_t bw_conn_correlate(bw_conn *c);
/* bw_conn_cancel: take a pending back; on return its callback neither runs nor will (but when called
 * from that very callback). false: it ran. */
bool bw_conn_cancel(bw_conn *c, bw_pending *p);

/* bw_conn_quiesce: callbacks that run at this moment have ended on return. */
void bw_conn_quiesce(bw_conn *c);

/* bw_conn_wait: pump (or let another thread pump) until done(opaque) or the deadline or the loss of the connection. done is
 * called under the mutex. extra_fd (-1: none): return early when it is readable. TIMED_OUT, NOT_CONNECTED, CLOSED (stopped), BW_OK. */
bw_err bw_conn_wait(bw_conn *c, bool (*done)(void *), void *opaque, int extra_fd, bw_deadline deadline);
/* bw_conn_try_pump: pump once unless another thread does: BUSY. For the library's thread, whose handover_fd is told when the pump
 * becomes free. */
bw_err bw_conn_try_pump(bw_conn *c, int extra_fd, bw_deadline deadline);
/* bw_conn_poke: those in bw_conn_wait ask done() again. Call without the mutex. */
void bw_conn_poke(bw_conn *c);
/* bw_conn_backlog: bytes that wait for the socket. */
size_t bw_conn_backlog(bw_conn *c);
/* bw_conn_drain: until the socket has taken everything. TIMED_OUT, NOT_CONNECTED. */
bw_err bw_conn_drain(bw_conn *c, bw_deadline deadline);
/* bw_conn_part: say that nothing more comes and give the daemon a moment to read what was sent without an answer. */
void bw_conn_part(bw_conn *c, bw_deadline deadline);
/* bw_conn_check: notice a closed connection without waiting; true when it is up. */
bool bw_conn_check(bw_conn *c);

/* An answer that owns its memory. */
typedef struct bw_reply {
    bw_answer answer;
    uint8_t *frame; /* malloc'd copy the answer's views lead into; may be `small` */
    size_t frame_len;
    uint8_t small[512];
} bw_reply;
void bw_reply_fini(bw_reply *r);

/* bw_conn_request: one request, one answer. An error in the answer becomes the result, with its message; r is filled even then
 * when the result came from the server (r->answer.error != 0). Always bw_reply_fini. TIMED_OUT, NOT_CONNECTED, PROTOCOL. */
bw_err bw_conn_request(bw_conn *c, bw_request *request, bw_deadline deadline, bw_reply *r);
/* bw_conn_tell: a one-way request. */
bw_err bw_conn_tell(bw_conn *c, bw_request *request);

/* bw_conn_throttled: what came says that a quota held it back. */
static inline void bw_conn_throttled(bw_conn *c, int32_t ms)
{
    if (__builtin_expect(ms <= 0, 1)) return;
    atomic_fetch_add_explicit(&c->throttled, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->throttled_ms, (uint64_t)ms, memory_order_relaxed);
}

/* bw_conn_patience: the deadline, or, on the way to another host, at least as long as connecting may take. */
static inline bw_deadline bw_conn_patience(const bw_conn *c, bw_deadline deadline)
{
    bw_deadline least = c->options.remote ? bw_deadline_in_ms(c->options.patience_ms) : deadline;
    return deadline < least ? least : deadline;
}

static inline bw_deadline bw_deadline_first(bw_deadline a, bw_deadline b) { return a < b ? a : b; }

static inline void bw_rx_ref(bw_rx *rx) { rx->refs++; }
void bw_rx_unref(bw_conn *c, bw_rx *rx);

#endif
