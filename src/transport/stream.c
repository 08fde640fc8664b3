/* transport/stream.c: a connection's sending and its lifetime.
 *
 * Why an aio without a callback: nng hands each completion of an aio that has one to its task threads, a context switch for every
 * answer. An aio without one completes on the spot, so: send, cancel what did not go at once, and look at what came out. Only what
 * the socket would not take goes the long way, with send_aio.
 * Invariants: bytes leave in the order of bw_stream_send: the direct way is taken only while nothing is queued. Every call to nng on
 * this connection is made under its lock and before nng_stream_close. Callbacks of the user are called without the lock. */
#include "transport/stream_internal.h"

#include "base/err.h"

#include <stdlib.h>

#define BW_SEND_KEEP_MAX (2u << 20)

static void sent(void *stream);

static void destroy_aios(bw_stream *s)
{
    /* Reaped, not freed: this may be the callback of one of them. */
    if (s->recv_aio) { nng_aio_reap(s->recv_aio); }
    if (s->send_aio) { nng_aio_reap(s->send_aio); }
    if (s->try_aio) { nng_aio_reap(s->try_aio); }
}

bw_stream *bw_stream_create(bw_stream_listener *l, nng_stream *nng)
{
    bw_stream *s = (bw_stream *)calloc(1, sizeof *s);
    if (!s) { return NULL; }
    s->listener = l;
    s->nng = nng;
    s->want = BW_CHUNK_MIN;
    s->need = BW_FRAME_PREFIX;
    atomic_init(&s->refs, 1);
    if (nng_aio_alloc(&s->recv_aio, bw_stream_received, s) != 0 || nng_aio_alloc(&s->send_aio, sent, s) != 0 ||
        nng_aio_alloc(&s->try_aio, NULL, NULL) != 0) {
        destroy_aios(s);
        free(s);
        return NULL;
    }
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void bw_stream_ref(bw_stream *s) { atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed); }

void bw_stream_release(bw_stream *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) { return; }
    nng_stream_close(s->nng);
    nng_stream_free(s->nng);
    destroy_aios(s);
    if (s->chunk) { bw_chunk_release(s->chunk); }
    bw_buf_free(&s->pending);
    bw_buf_free(&s->inflight);
    pthread_mutex_destroy(&s->lock);
    if (s->user) { s->listener->ops->destroy(s->user); }
    bw_stream_listener_forget(s->listener, s);
    free(s);
}

size_t bw_stream_backlog(bw_stream *s) { return atomic_load_explicit(&s->backlog, memory_order_relaxed); }

/* Under the lock. true: `closed` must be called, without it. */
static bool close_locked(bw_stream *s)
{
    if (!s->closed) {
        s->closed = true;
        nng_stream_close(s->nng); /* ends what is outstanding: the callbacks come */
    }
    bool tell = !s->receiving && !s->told;
    s->told = s->told || tell;
    return tell;
}

static void tell_closed(bw_stream *s)
{
    s->listener->ops->closed(s->user);
    bw_stream_release(s); /* the receive side's reference */
}

void bw_stream_close(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool tell = close_locked(s);
    pthread_mutex_unlock(&s->lock);
    if (tell) { tell_closed(s); }
}

void bw_stream_finish(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->finishing = true;
    bool tell = bw_stream_backlog(s) == 0 && close_locked(s);
    pthread_mutex_unlock(&s->lock);
    if (tell) { tell_closed(s); }
}

/* What the socket takes at once of the two pieces; -1: the connection is broken. Under the lock. */
static ssize_t try_send(bw_stream *s, const void *head, size_t head_len, const void *payload, size_t payload_len)
{
    nng_iov iov[2] = {{(void *)(uintptr_t)head, head_len}, {(void *)(uintptr_t)payload, payload_len}};
    nng_aio_set_iov(s->try_aio, payload_len ? 2 : 1, iov);
    nng_stream_send(s->nng, s->try_aio);
    nng_aio_cancel(s->try_aio);
    nng_aio_wait(s->try_aio);
    int rv = nng_aio_result(s->try_aio);
    if (rv == NNG_ECANCELED) { return 0; }
    return rv == 0 ? (ssize_t)nng_aio_count(s->try_aio) : -1;
}

/* Send what is left of inflight, or else what is pending. Under the lock; holds a reference until `sent`. */
static void send_more(bw_stream *s)
{
    if (s->inflight_at == s->inflight.len) {
        bw_buf empty = s->inflight;
        s->inflight = s->pending;
        s->inflight_at = 0;
        s->pending = empty;
        s->pending.len = 0;
    }
    nng_iov iov = {s->inflight.data + s->inflight_at, s->inflight.len - s->inflight_at};
    s->sending = true;
    bw_stream_ref(s);
    nng_aio_set_iov(s->send_aio, 1, &iov);
    nng_stream_send(s->nng, s->send_aio);
}

/* Nothing waits any more; very large buffers are not kept. Under the lock. */
static void sent_all(bw_stream *s)
{
    s->inflight.len = 0;
    s->inflight_at = 0;
    if (s->inflight.cap > BW_SEND_KEEP_MAX) { bw_buf_free(&s->inflight); }
    if (s->pending.cap > BW_SEND_KEEP_MAX) { bw_buf_free(&s->pending); }
}

bool bw_stream_holds_buffers(const bw_stream *s) { return s->inflight.cap + s->pending.cap > BW_CHUNK_MIN; }

void bw_stream_drop_buffers(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    if (!s->sending && bw_stream_backlog(s) == 0) {
        bw_buf_free(&s->inflight);
        bw_buf_free(&s->pending);
        s->inflight_at = 0;
    }
    pthread_mutex_unlock(&s->lock);
}

/* Callback of send_aio. */
static void sent(void *stream)
{
    bw_stream *s = (bw_stream *)stream;
    bool tell = false, drained = false;
    pthread_mutex_lock(&s->lock);
    s->sending = false;
    if (nng_aio_result(s->send_aio) != 0) {
        tell = close_locked(s);
    } else if (!s->closed) {
        size_t n = nng_aio_count(s->send_aio);
        s->inflight_at += n;
        size_t backlog = atomic_fetch_sub_explicit(&s->backlog, n, memory_order_relaxed) - n;
        if (backlog > 0) {
            send_more(s);
        } else {
            sent_all(s);
            tell = s->finishing && close_locked(s);
        }
        drained = backlog < BW_STREAM_LOW_WATER && !s->closed;
    }
    pthread_mutex_unlock(&s->lock);
    if (tell) { tell_closed(s); }
    if (drained) {
        bw_stream_receive_resume(s);
        s->listener->ops->drained(s->user);
    }
    bw_stream_release(s);
}

/* Queue what try_send left. Under the lock. */
static bw_err queue(bw_stream *s, const void *head, size_t head_len, const void *payload, size_t payload_len, size_t done)
{
    size_t head_done = done < head_len ? done : head_len, payload_done = done - head_done;
    bw_err err = bw_buf_reserve(&s->pending, head_len + payload_len - done);
    if (err == BW_OK && head_done < head_len) {
        err = bw_buf_append(&s->pending, (const uint8_t *)head + head_done, head_len - head_done);
    }
    if (err == BW_OK && payload_done < payload_len) {
        err = bw_buf_append(&s->pending, (const uint8_t *)payload + payload_done, payload_len - payload_done);
    }
    if (err != BW_OK) { return err; }
    atomic_fetch_add_explicit(&s->backlog, head_len + payload_len - done, memory_order_relaxed);
    if (!s->sending) { send_more(s); }
    return BW_OK;
}

bw_err bw_stream_send(bw_stream *s, const void *head, size_t head_len, const void *payload, size_t payload_len)
{
    bw_err err = BW_OK;
    bool tell = false;
    pthread_mutex_lock(&s->lock);
    if (s->closed) {
        err = BW_ERR_NOT_CONNECTED;
    } else {
        ssize_t n = s->sending || s->pending.len > 0 ? 0 : try_send(s, head, head_len, payload, payload_len);
        if (n < 0) {
            err = BW_ERR_NOT_CONNECTED;
        } else if ((size_t)n < head_len + payload_len) {
            err = queue(s, head, head_len, payload, payload_len, (size_t)n);
        }
        if (err != BW_OK) { tell = close_locked(s); }
    }
    pthread_mutex_unlock(&s->lock);
    if (tell) { tell_closed(s); }
    return err;
}
