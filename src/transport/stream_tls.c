/* transport/stream_tls.c: the TLS handshakes of a listener's new connections, done beside its reactor.
 *
 * A handshake costs milliseconds of arithmetic. Done by the reactor's waiting thread it would keep everybody else waiting, and who connects
 * again and again would keep them waiting for good. So the listener has a thread that does nothing else, made with the first TLS
 * connection, and the waiting thread gives it each step of a handshake whose socket is ready.
 * Who owns what: while a step is `busy` the connection's TLS and socket are the helper's: it is not watched, and not closed. The waiting
 * thread learns the outcome by the connection's chore and owns them again. The list, and how many are in it, are the waiting thread's.
 * Bound: at most BW_HANDSHAKES_MAX connections of a listener are in a handshake. One more ends the oldest that has not gone on: clients
 * that stall don't keep others out. Time: as for every connection that does not introduce itself (hello_timeout_ms). */
#include "transport/stream_internal.h"

#include "base/err.h"
#include "base/lock.h"
#include "transport/tcp.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { STACK_BYTES = 256 << 10, MESSAGE_MAX = 400 };

typedef enum shake_state { SHAKE_WAITS, SHAKE_BUSY, SHAKE_STEPPED } shake_state;

struct bw_shake {
    bw_stream *stream;
    _Atomic int state; /* the helper makes BUSY STEPPED, the waiting thread all else */
    bw_err err;
    short events;
    bool listed;
    char message[MESSAGE_MAX];
    bw_shake *next, *prev; /* the listener's, oldest first */
    bw_shake *queued_next;
};

struct bw_shaker {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bw_shake *queue, **queue_tail; /* under the lock, as stopping */
    bool stopping;
};

static void step(bw_shake *k)
{
    k->events = 0;
    k->err = bw_tls_handshake(k->stream->tls, &k->events);
    snprintf(k->message, sizeof k->message, "%s", k->err && k->err != BW_ERR_EMPTY ? bw_error_message() : "");
}

/* ---- the thread ---- */

static void *help(void *opaque)
{
    bw_shaker *h = opaque;
    pthread_mutex_lock(&h->lock);
    for (;;) {
        while (!h->queue && !h->stopping) { pthread_cond_wait(&h->changed, &h->lock); }
        bw_shake *k = h->queue;
        if (!k) { break; }
        h->queue = k->queued_next;
        if (!h->queue) { h->queue_tail = &h->queue; }
        pthread_mutex_unlock(&h->lock);
        bw_stream *s = k->stream;
        step(k);
        atomic_store_explicit(&k->state, SHAKE_STEPPED, memory_order_release);
        if (!bw_reactor_call(s->listener->reactor, &s->chore)) { bw_stream_release(s); } /* else the reference goes with the call */
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static bw_shaker *make_helper(void)
{
    bw_shaker *h = (bw_shaker *)calloc(1, sizeof *h);
    sigset_t all, before;
    pthread_attr_t attributes;
    if (!h) { return NULL; }
    h->queue_tail = &h->queue;
    pthread_mutex_init(&h->lock, NULL);
    bw_cond_init(&h->changed);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&h->thread, &attributes, help, h);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (rc == 0) {
        pthread_setname_np(h->thread, "busway-tls");
        return h;
    }
    pthread_cond_destroy(&h->changed);
    pthread_mutex_destroy(&h->lock);
    free(h);
    return NULL;
}

void bw_shaker_free(bw_stream_listener *l)
{
    bw_shaker *h = l->shaker;
    if (!h) { return; }
    pthread_mutex_lock(&h->lock);
    h->stopping = true;
    pthread_cond_signal(&h->changed);
    pthread_mutex_unlock(&h->lock);
    pthread_join(h->thread, NULL);
    pthread_cond_destroy(&h->changed);
    pthread_mutex_destroy(&h->lock);
    free(h);
    l->shaker = NULL;
}

/* ---- the waiting thread ---- */

static void unlist(bw_shake *k)
{
    bw_stream_listener *l = k->stream->listener;
    if (!k->listed) { return; }
    k->listed = false;
    if (k->next) { k->next->prev = k->prev; }
    else { l->shakes_last = k->prev; }
    if (k->prev) { k->prev->next = k->next; }
    else { l->shakes = k->next; }
    l->shake_count--;
}

/* Room for one more: the oldest that nobody works for goes. false: there is none. */
static bool make_room(bw_stream_listener *l)
{
    if (l->shake_count < BW_HANDSHAKES_MAX) { return true; }
    for (bw_shake *k = l->shakes; k; k = k->next) {
        if (atomic_load_explicit(&k->state, memory_order_acquire) != SHAKE_WAITS) { continue; }
        char address[80];
        unlist(k);
        bw_tcp_peer(k->stream->source.fd, address, sizeof address);
        bw_fail(BW_ERR_BUSY, "more than %d clients are in the TLS handshake; this one had not gone on for longest", BW_HANDSHAKES_MAX);
        if (l->ops->refused) { l->ops->refused(l->owner, address, BW_ERR_BUSY); }
        bw_stream_close(k->stream);
        return true;
    }
    return false;
}

bw_err bw_shake_begin(bw_stream *s, bw_tls_context *context, int fd)
{
    bw_stream_listener *l = s->listener;
    bw_shake *k = NULL;
    if (!make_room(l)) { return bw_fail(BW_ERR_BUSY, "%d clients are in the TLS handshake at once", BW_HANDSHAKES_MAX); }
    bw_err err = bw_tls_open(context, fd, NULL, &s->tls);
    if (err != BW_OK) { return err; }
    if (!(k = (bw_shake *)calloc(1, sizeof *k))) { return bw_fail(BW_ERR_NO_MEMORY, "no memory for a TLS connection"); }
    k->stream = s;
    k->listed = true;
    k->prev = l->shakes_last;
    if (k->prev) { k->prev->next = k; }
    else { l->shakes = k; }
    l->shakes_last = k;
    l->shake_count++;
    s->shake = k;
    return BW_OK;
}

bool bw_shake_is_busy(const bw_stream *s)
{
    return s->shake && atomic_load_explicit(&s->shake->state, memory_order_acquire) == SHAKE_BUSY;
}

bool bw_shake_step(bw_stream *s)
{
    bw_stream_listener *l = s->listener;
    bw_shake *k = s->shake;
    if (!l->shaker) { l->shaker = make_helper(); }
    bw_shaker *h = l->shaker;
    if (!h || bw_reactor_ask(l->reactor, &s->source, 0) != BW_OK) {
        step(k);
        atomic_store_explicit(&k->state, SHAKE_STEPPED, memory_order_relaxed);
        return true;
    }
    atomic_store_explicit(&k->state, SHAKE_BUSY, memory_order_relaxed);
    bw_stream_ref(s); /* the helper's */
    pthread_mutex_lock(&h->lock);
    k->queued_next = NULL;
    *h->queue_tail = k;
    h->queue_tail = &k->queued_next;
    pthread_cond_signal(&h->changed);
    pthread_mutex_unlock(&h->lock);
    return false;
}

bool bw_shake_outcome(bw_stream *s, bw_err *err, short *events)
{
    bw_shake *k = s->shake;
    if (!k || atomic_load_explicit(&k->state, memory_order_acquire) != SHAKE_STEPPED) { return false; }
    atomic_store_explicit(&k->state, SHAKE_WAITS, memory_order_relaxed);
    *err = k->err;
    *events = k->events;
    if (k->message[0]) { bw_error_set_message(k->err, k->message); }
    return true;
}

void bw_shake_end(bw_stream *s)
{
    if (!s->shake) { return; }
    unlist(s->shake);
    free(s->shake);
    s->shake = NULL;
}
