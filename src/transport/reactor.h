/* transport/reactor.h: one thread that sleeps on many descriptors, and the *turn*: the right to touch what belongs together.
 *
 * Why not nng here: on a UNIX socket nng costs a request two more thread changes (its poller, then its task thread, then whoever
 * works) and two more system calls (epoll_ctl each time). A reactor's owner does the work itself: the thread that learns of a request reads
 * it, handles it and writes the answer. Measured with 100 records of 100 bytes a request: see stream_socket.c.
 *
 * Threads. One thread calls bw_reactor_wait in a loop. Any other may take the turn too (bw_reactor_enter) and work; nobody else's work
 * runs meanwhile. Sources are added, asked and removed within a turn; ready() and calls run within the waiting thread's turn, which alone
 * removes: so a source that was removed is never called again and its memory is free at once.
 * What is sent within a turn may be gathered and leave at its end, or at bw_reactor_flush (see bw_flusher). */
#ifndef BW_TRANSPORT_REACTOR_H
#define BW_TRANSPORT_REACTOR_H

#include "base/clock.h"
#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

typedef struct bw_reactor bw_reactor;

/* A descriptor that is watched; part of its owner's object. */
typedef struct bw_source {
    void (*ready)(struct bw_source *s, uint32_t events);
    int fd;
    uint32_t events; /* asked for; 0: none, and it is not watched */
} bw_source;

/* Something to be done by the waiting thread, once; part of its owner's object. */
typedef struct bw_call {
    struct bw_call *next;
    void (*fn)(struct bw_call *c);
    bool queued;
} bw_call;

/* Something gathered within a turn that must leave at its end. */
typedef struct bw_flusher {
    struct bw_flusher *next;
    void (*fn)(struct bw_flusher *f);
    bool queued;
} bw_flusher;

/* Looked at about once a second while it is on the list: time-outs of connections. fn: false takes it off; true: it stays, or is gone
 * already. Within a turn. */
typedef struct bw_ticker {
    struct bw_ticker *next, **at;
    bool (*fn)(struct bw_ticker *t, int64_t now_ms);
} bw_ticker;

bw_err bw_reactor_open(bw_reactor **out);
/* bw_reactor_close: nobody uses it any more; calls that are still queued are done first. */
void bw_reactor_close(bw_reactor *r);

void bw_reactor_enter(bw_reactor *r);
void bw_reactor_leave(bw_reactor *r); /* flushes */
bool bw_reactor_is_mine(const bw_reactor *r); /* does this thread have the turn? */
void bw_reactor_flush(bw_reactor *r); /* within a turn */

/* bw_reactor_wait: sleep until something is ready, is called, or max_ms (-1: for ever) is over; then take the turn and serve it.
 * `served` (may be NULL) is called behind each source that was served. Returns with the turn; what was served. */
size_t bw_reactor_wait(bw_reactor *r, int max_ms, void (*served)(void *opaque), void *opaque);
/* bw_reactor_wake: the waiting thread comes back. Any thread. */
void bw_reactor_wake(bw_reactor *r);
/* bw_reactor_call: c->fn by the waiting thread, soon. One that is queued already is not queued twice: false. Any thread. */
bool bw_reactor_call(bw_reactor *r, bw_call *c);

/* bw_reactor_ask: what is wanted of a source from now on; the first time adds it, 0 takes it off. IO, NO_MEMORY. Any thread, one at a
 * time for a source. */
bw_err bw_reactor_ask(bw_reactor *r, bw_source *s, uint32_t events);
/* bw_reactor_remove: it is not called any more, not even for what came already. The waiting thread, within its turn. */
void bw_reactor_remove(bw_reactor *r, bw_source *s);

/* bw_reactor_gather: f->fn at the next flush. Within a turn. */
void bw_reactor_gather(bw_reactor *r, bw_flusher *f);
void bw_reactor_tick(bw_reactor *r, bw_ticker *t);
void bw_reactor_untick(bw_ticker *t);

#endif
