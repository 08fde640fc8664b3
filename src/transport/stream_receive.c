/* transport/stream_receive.c: from bytes to frames.
 *
 * Invariants: one receive at a time (`receiving`); whoever set it owns chunk, parsed, need and want. A chunk grows only as bytes come
 * in, at most to twice what is there (beyond 256 KiB), so that a length field alone buys no memory. Parsed bytes are never moved while
 * a token refers to them: then the rest moves to a new chunk. */
#include "transport/stream_internal.h"

#include "base/err.h"

#include <stdlib.h>

static bw_chunk *chunk_create(size_t cap)
{
    bw_chunk *c = (bw_chunk *)malloc(sizeof *c + cap);
    if (!c) { return NULL; }
    atomic_init(&c->refs, 1);
    c->cap = cap;
    c->len = 0;
    return c;
}

void bw_chunk_release(bw_chunk *c)
{
    if (atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1) { free(c); }
}

/* Room for what the next receive may bring: the rest of an unfinished frame moves to the front of a chunk that is large enough. */
static bool make_room(bw_stream *s)
{
    size_t rest = s->chunk ? s->chunk->len - s->parsed : 0;
    size_t cap = s->want;
    if (s->need > BW_CHUNK_MAX && cap < s->need) {
        cap = rest > BW_CHUNK_MAX / 2 ? rest * 2 : BW_CHUNK_MAX;
        if (cap > s->need) { cap = s->need; }
    } else if (s->need > cap) {
        cap = s->need;
    }
    bool alone = s->chunk && atomic_load_explicit(&s->chunk->refs, memory_order_acquire) == 1;
    if (alone && s->chunk->cap >= cap && s->chunk->cap / 2 < cap + BW_CHUNK_MIN) {
        if (s->parsed > 0 && rest > 0) { memmove(s->chunk->data, s->chunk->data + s->parsed, rest); }
    } else if (alone && s->parsed == 0 && rest > 0) {
        bw_chunk *c = (bw_chunk *)realloc(s->chunk, sizeof *c + cap);
        if (!c) { return false; }
        c->cap = cap;
        s->chunk = c;
    } else {
        bw_chunk *c = chunk_create(cap);
        if (!c) { return false; }
        if (rest > 0) { memcpy(c->data, s->chunk->data + s->parsed, rest); }
        if (s->chunk) { bw_chunk_release(s->chunk); }
        s->chunk = c;
    }
    s->chunk->len = rest;
    s->parsed = 0;
    return true;
}

static bool over_limits(const bw_stream *s)
{
    return atomic_load_explicit(&s->unconsumed, memory_order_relaxed) > s->listener->credit ||
           bw_stream_backlog_locked(s) > BW_STREAM_BACKLOG_MAX;
}

/* Receive again, or pause, or stop. The caller owns `receiving`. */
static void receive_more(bw_stream *s)
{
    bool room = make_room(s), tell = false;
    pthread_mutex_lock(&s->lock);
    if (!room && !s->closed) {
        s->closed = true;
        nng_stream_close(s->nng);
    }
    if (s->closed) {
        s->receiving = false;
        tell = !s->told;
        s->told = true;
    } else if (s->finishing || over_limits(s)) {
        s->receiving = false;
    } else {
        nng_iov iov = {s->chunk->data + s->chunk->len, s->chunk->cap - s->chunk->len};
        nng_aio_set_iov(s->recv_aio, 1, &iov);
        int32_t timeout = !s->established && s->listener->hello_timeout_ms > 0 ? s->listener->hello_timeout_ms
                          : s->chunk->cap > BW_CHUNK_MIN || bw_stream_holds_buffers(s) ? BW_STREAM_IDLE_MS
                                                                                       : NNG_DURATION_INFINITE;
        nng_aio_set_timeout(s->recv_aio, timeout);
        nng_stream_recv(s->nng, s->recv_aio);
    }
    pthread_mutex_unlock(&s->lock);
    if (tell) {
        s->listener->ops->closed(s->user);
        bw_stream_release(s);
    }
}

void bw_stream_receive_start(bw_stream *s)
{
    s->receiving = true; /* nobody else knows the connection yet */
    receive_more(s);
}

void bw_stream_receive_resume(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool resume = !s->receiving && !s->closed && !s->finishing && !over_limits(s);
    if (resume) { s->receiving = true; }
    pthread_mutex_unlock(&s->lock);
    if (resume) { receive_more(s); }
}

void bw_stream_established(bw_stream *s) { s->established = true; }

void bw_stream_consumed(bw_stream_token *token)
{
    bw_stream *s = token->stream;
    size_t before = atomic_fetch_sub_explicit(&s->unconsumed, token->charge, memory_order_acq_rel);
    size_t credit = s->listener->credit;
    bool crossed = before > credit && before - token->charge <= credit;
    if (token->chunk) { bw_chunk_release(token->chunk); }
    free(token);
    if (crossed) { bw_stream_receive_resume(s); }
    bw_stream_release(s);
}

/* The token of a frame of `size` bytes at data; small ones are copied into it. f's views are set accordingly. */
static bw_stream_token *token_create(bw_stream *s, const uint8_t *data, size_t size, bw_frame *f)
{
    bool copy = size <= BW_TOKEN_COPY_MAX;
    bw_stream_token *t = (bw_stream_token *)malloc(sizeof *t + (copy ? size : 0));
    if (!t) { return NULL; }
    t->stream = s;
    t->chunk = copy ? NULL : s->chunk;
    t->charge = size;
    if (copy) {
        memcpy(t->copy, data, size);
        f->header = t->copy + (f->header - data);
        f->payload = t->copy + (f->payload - data);
    } else {
        atomic_fetch_add_explicit(&s->chunk->refs, 1, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&s->unconsumed, size, memory_order_relaxed);
    bw_stream_ref(s);
    return t;
}

/* Give out every whole frame of the chunk. */
static void give_frames(bw_stream *s)
{
    for (;;) {
        const uint8_t *data = s->chunk->data + s->parsed;
        bw_frame f;
        size_t used;
        bw_err err = bw_frame_parse(data, s->chunk->len - s->parsed, s->listener->frame_max, &f, &used, &s->need);
        if (err == BW_ERR_EMPTY) { return; }
        bw_stream_token *t = err == BW_OK ? token_create(s, data, used, &f) : NULL;
        if (!t) {
            if (err == BW_OK) { err = bw_fail(BW_ERR_NO_MEMORY, "no memory for a frame of %zu bytes", used); }
            s->listener->ops->malformed(s->user, err);
            bw_stream_finish(s);
            return;
        }
        s->parsed += used;
        s->need = BW_FRAME_PREFIX;
        s->listener->ops->frame(s->user, &f, t);
        if (atomic_load_explicit(&s->finishing, memory_order_relaxed)) { return; }
    }
}

void bw_stream_received(void *stream)
{
    bw_stream *s = (bw_stream *)stream;
    int rv = nng_aio_result(s->recv_aio);
    if (rv == NNG_ETIMEDOUT && s->established) {
        s->want = BW_CHUNK_MIN; /* idle */
        bw_stream_drop_buffers(s);
    } else if (rv != 0) {
        pthread_mutex_lock(&s->lock);
        if (!s->closed) {
            s->closed = true;
            nng_stream_close(s->nng);
        }
        pthread_mutex_unlock(&s->lock);
    } else {
        size_t n = nng_aio_count(s->recv_aio);
        size_t room = s->chunk->cap - s->chunk->len;
        s->chunk->len += n;
        if (n == room && s->want < BW_CHUNK_MAX) {
            s->want *= 4;
        } else if (n < s->want / 8 && s->want > BW_CHUNK_MIN) {
            s->want /= 2;
        }
        give_frames(s);
    }
    receive_more(s);
}
