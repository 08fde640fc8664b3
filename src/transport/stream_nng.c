/* transport/stream_nng.c: a connection over an nng stream, and accepting it: everything that nng can (ipc, tcp, tls).
 *
 * Why an aio without a callback: nng hands each completion of an aio that has one to its task threads, a context switch for every
 * answer. An aio without one completes on the spot, so: send, cancel what did not go at once, and look at what came out. Only what
 * the socket would not take goes the long way, with send_aio.
 * Invariants: one receive at a time (`receiving`); bytes leave in the order of bw_stream_send: the direct way is taken only while nothing
 * is queued. Every call to nng on this connection is made under its lock and before nng_stream_close. Callbacks of the user are called
 * without the lock. */
#include "transport/stream_internal.h"

#include "base/err.h"
#include "transport/nng_error.h"

#include <stdlib.h>

#define BW_ACCEPT_NAP_MS 100

static void sent(void *stream);
static void received(void *stream);
static void go_on(bw_stream *s);

/* ---- sending ---- */

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

static void nng_wire_close(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool tell = close_locked(s);
    pthread_mutex_unlock(&s->lock);
    if (tell) { bw_stream_tell_closed(s); }
}

static void nng_wire_finish(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->finishing = true;
    bool tell = bw_stream_backlog(s) == 0 && close_locked(s);
    pthread_mutex_unlock(&s->lock);
    if (tell) { bw_stream_tell_closed(s); }
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

static bool holds_buffers(const bw_stream *s) { return s->inflight.cap + s->pending.cap > BW_CHUNK_MIN; }

static void drop_buffers(bw_stream *s)
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
    if (tell) { bw_stream_tell_closed(s); }
    if (drained) {
        s->wire->resume(s);
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

static bw_err nng_wire_send(bw_stream *s, const void *head, size_t head_len, const void *payload, size_t payload_len)
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
    if (tell) { bw_stream_tell_closed(s); }
    return err;
}

/* ---- receiving ---- */

/* Ask nng for more. Under the lock; there is room. */
static void receive_now(bw_stream *s)
{
    nng_iov iov = {s->chunk->data + s->chunk->len, s->chunk->cap - s->chunk->len};
    int32_t timeout = NNG_DURATION_INFINITE;
    if (!s->established && s->listener->hello_timeout_ms > 0) {
        timeout = s->listener->hello_timeout_ms;
    } else if (s->chunk->cap > BW_CHUNK_MIN || holds_buffers(s)) {
        timeout = BW_STREAM_IDLE_MS;
    }
    nng_aio_set_iov(s->recv_aio, 1, &iov);
    nng_aio_set_timeout(s->recv_aio, timeout);
    nng_stream_recv(s->nng, s->recv_aio);
}

/* Give out what is there, then receive again, or pause, or stop. The caller owns `receiving`. */
static void go_on(bw_stream *s)
{
    for (;;) {
        bool left = bw_stream_give_frames(s), room = left || bw_stream_make_room(s), tell = false;
        pthread_mutex_lock(&s->lock);
        if (!room && !s->closed) {
            s->closed = true;
            nng_stream_close(s->nng);
        }
        bool paused = s->closed || s->finishing || bw_stream_over_limits(s);
        if (s->closed) {
            tell = !s->told;
            s->told = true;
        }
        if (paused) {
            s->receiving = false;
        } else if (!left) {
            receive_now(s);
        }
        pthread_mutex_unlock(&s->lock);
        if (tell) { bw_stream_tell_closed(s); }
        if (paused || !left) { return; }
    }
}

static void nng_wire_resume(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool resume = !s->receiving && !s->closed && !s->finishing && !bw_stream_over_limits(s);
    if (resume) { s->receiving = true; }
    pthread_mutex_unlock(&s->lock);
    if (resume) { go_on(s); }
}

static void received(void *stream)
{
    bw_stream *s = (bw_stream *)stream;
    int rv = nng_aio_result(s->recv_aio);
    if (rv == NNG_ETIMEDOUT && s->established) {
        s->want = BW_CHUNK_MIN; /* idle */
        drop_buffers(s);
    } else if (rv != 0) {
        pthread_mutex_lock(&s->lock);
        if (!s->closed) {
            s->closed = true;
            nng_stream_close(s->nng);
        }
        pthread_mutex_unlock(&s->lock);
    } else {
        bw_stream_took(s, nng_aio_count(s->recv_aio));
    }
    go_on(s);
}

/* ---- lifetime ---- */

static void destroy_aios(bw_stream *s)
{
    /* Reaped, not freed: this may be the callback of one of them. */
    if (s->recv_aio) { nng_aio_reap(s->recv_aio); }
    if (s->send_aio) { nng_aio_reap(s->send_aio); }
    if (s->try_aio) { nng_aio_reap(s->try_aio); }
}

static void nng_wire_fini(bw_stream *s)
{
    nng_stream_close(s->nng);
    nng_stream_free(s->nng);
    destroy_aios(s);
    bw_buf_free(&s->pending);
    bw_buf_free(&s->inflight);
}

static const bw_wire nng_wire = {nng_wire_send, nng_wire_close, nng_wire_finish, nng_wire_resume, nng_wire_fini};

/* ---- accepting ---- */

static int64_t peer_number(nng_stream *nng, const char *option)
{
    uint64_t v;
    return nng_stream_get_uint64(nng, option, &v) == 0 ? (int64_t)v : -1;
}

/* A connection that was accepted. false: out of memory. */
static bool take_connection(bw_stream_listener *l, nng_stream *nng)
{
    bw_stream *s = bw_stream_create(l, &nng_wire);
    if (!s) {
        nng_stream_close(nng);
        nng_stream_free(nng);
        return false;
    }
    s->nng = nng;
    bool room = nng_aio_alloc(&s->recv_aio, received, s) == 0 && nng_aio_alloc(&s->send_aio, sent, s) == 0 &&
                nng_aio_alloc(&s->try_aio, NULL, NULL) == 0;
    if (!room) {
        bw_stream_release(s);
        return false;
    }
    bw_stream_peer peer = {.uid = peer_number(nng, NNG_OPT_IPC_PEER_UID),
                           .gid = peer_number(nng, NNG_OPT_IPC_PEER_GID),
                           .pid = peer_number(nng, NNG_OPT_IPC_PEER_PID)};
    if (bw_stream_listener_take(l, s, &peer)) {
        s->receiving = true; /* nobody else receives yet */
        go_on(s);
    }
    return true;
}

static void accept_next(bw_stream_listener *l, bool nap)
{
    pthread_mutex_lock(&l->lock);
    l->napping = nap;
    pthread_mutex_unlock(&l->lock);
    if (bw_stream_listener_is_stopping(l)) {
        bw_stream_listener_stopped(l);
        return;
    }
    if (nap) {
        nng_sleep_aio(BW_ACCEPT_NAP_MS, l->accept_aio);
    } else {
        nng_stream_listener_accept(l->nng, l->accept_aio);
    }
}

/* Callback of accept_aio. */
static void accepted(void *listener)
{
    bw_stream_listener *l = (bw_stream_listener *)listener;
    int rv = nng_aio_result(l->accept_aio);
    pthread_mutex_lock(&l->lock);
    bool stopping = l->stopping, napped = l->napping;
    pthread_mutex_unlock(&l->lock);
    bool trouble = false;
    if (rv == 0 && !napped) {
        trouble = !take_connection(l, (nng_stream *)nng_aio_get_output(l->accept_aio, 0));
        if (trouble) { bw_fail(BW_ERR_NO_MEMORY, "no memory for another connection"); }
    } else if (!napped && !stopping) {
        trouble = true;
        bw_fail_nng(rv, "a connection can't be accepted (more descriptors: ulimit -n, LimitNOFILE=)");
    }
    if (trouble && l->ops->trouble) { l->ops->trouble(l->owner, BW_ERR_IO); }
    accept_next(l, trouble);
}

bw_err bw_nng_listen(bw_stream_listener *l, const char *url)
{
    int rv = nng_stream_listener_alloc(&l->nng, url);
    if (rv == 0 && strncmp(url, "ipc://", 6) == 0) { rv = nng_stream_listener_set_int(l->nng, NNG_OPT_IPC_PERMISSIONS, 0660); }
    if (rv == 0) { rv = nng_stream_listener_listen(l->nng); }
    if (rv == 0) { rv = nng_aio_alloc(&l->accept_aio, accepted, l); }
    if (rv != 0) { return bw_fail_nng(rv, "can't listen on '%s'", url); }
    return BW_OK;
}

void bw_nng_start(bw_stream_listener *l) { accept_next(l, false); }

void bw_nng_stop(bw_stream_listener *l)
{
    nng_stream_listener_close(l->nng);
    nng_aio_cancel(l->accept_aio);
}

void bw_nng_free(bw_stream_listener *l)
{
    if (l->accept_aio) { nng_aio_free(l->accept_aio); }
    if (l->nng) {
        nng_stream_listener_close(l->nng);
        nng_stream_listener_free(l->nng);
    }
}
