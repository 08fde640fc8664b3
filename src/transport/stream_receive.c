/* transport/stream_receive.c: from bytes to frames.
 *
 * Invariants: one thread at a time owns the receiving side: chunk, parsed, need and want. A chunk grows only as bytes come
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

/* The rest of an unfinished frame moves to the front of a chunk that is large enough. */
bool bw_stream_make_room(bw_stream *s)
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

/* Of a stranger only what introduces him is taken. */
static size_t limited(const bw_stream *s, size_t limit)
{
    return s->remote && !s->established && limit > BW_EARLY_MAX ? BW_EARLY_MAX : limit;
}

bool bw_stream_over_limits(const bw_stream *s)
{
    return atomic_load_explicit(&s->unconsumed, memory_order_relaxed) > limited(s, s->listener->credit) ||
           atomic_load_explicit(&s->backlog, memory_order_relaxed) > BW_STREAM_BACKLOG_MAX;
}

void bw_stream_consumed(bw_stream_token *token)
{
    bw_stream *s = token->stream;
    size_t before = atomic_fetch_sub_explicit(&s->unconsumed, token->charge, memory_order_acq_rel);
    size_t credit = s->listener->credit;
    bool crossed = before > credit && before - token->charge <= credit;
    if (token->chunk) { bw_chunk_release(token->chunk); }
    free(token);
    if (crossed) { s->wire->resume(s); }
    bw_stream_release(s);
}

void bw_stream_charge(bw_stream_token *token, size_t bytes)
{
    token->charge += bytes;
    atomic_fetch_add_explicit(&token->stream->unconsumed, bytes, memory_order_relaxed);
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

bool bw_stream_give_frames(bw_stream *s)
{
    while (s->chunk) {
        const uint8_t *data = s->chunk->data + s->parsed;
        bw_frame f;
        size_t used;
        if (atomic_load_explicit(&s->finishing, memory_order_relaxed)) { return false; }
        if (bw_stream_over_limits(s)) { return true; }
        bw_err err = bw_frame_parse(data, s->chunk->len - s->parsed, limited(s, s->listener->frame_max), &f, &used, &s->need);
        if (err == BW_ERR_EMPTY) { return false; }
        bw_stream_token *t = err == BW_OK ? token_create(s, data, used, &f) : NULL;
        if (!t) {
            if (err == BW_OK) { err = bw_fail(BW_ERR_NO_MEMORY, "no memory for a frame of %zu bytes", used); }
            s->listener->ops->malformed(s->user, err);
            bw_stream_finish(s);
            return false;
        }
        s->parsed += used;
        s->need = BW_FRAME_PREFIX;
        s->listener->ops->frame(s->user, &f, t);
    }
    return false;
}

void bw_stream_took(bw_stream *s, size_t n)
{
    size_t room = s->chunk->cap - s->chunk->len;
    s->chunk->len += n;
    if (n == room && s->want < BW_CHUNK_MAX) {
        s->want *= 4;
    } else if (n < s->want / 8 && s->want > BW_CHUNK_MIN) {
        s->want /= 2;
    }
}
