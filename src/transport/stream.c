/* transport/stream.c: a connection's lifetime. How bytes come and go: stream_socket.c, stream_nng.c. */
#include "transport/stream_internal.h"

#include <stdlib.h>

bw_stream *bw_stream_create(bw_stream_listener *l, const bw_wire *wire)
{
    bw_stream *s = (bw_stream *)calloc(1, sizeof *s);
    if (!s) { return NULL; }
    s->listener = l;
    s->wire = wire;
    s->source.fd = -1;
    s->want = BW_CHUNK_MIN;
    s->need = BW_FRAME_PREFIX;
    atomic_init(&s->refs, 1);
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void bw_stream_ref(bw_stream *s) { atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed); }

void bw_stream_release(bw_stream *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1) { return; }
    s->wire->fini(s);
    if (s->chunk) { bw_chunk_release(s->chunk); }
    pthread_mutex_destroy(&s->lock);
    if (s->user) { s->listener->ops->destroy(s->user); }
    bw_stream_listener_forget(s->listener, s);
    free(s);
}

void bw_stream_tell_closed(bw_stream *s)
{
    if (s->user) { s->listener->ops->closed(s->user); }
    bw_stream_release(s);
}

size_t bw_stream_backlog(bw_stream *s) { return atomic_load_explicit(&s->backlog, memory_order_relaxed); }

bw_err bw_stream_send(bw_stream *s, const void *head, size_t head_len, const void *payload, size_t payload_len)
{
    return s->wire->send(s, head, head_len, payload, payload_len);
}

void bw_stream_close(bw_stream *s) { s->wire->close(s); }

void bw_stream_finish(bw_stream *s) { s->wire->finish(s); }

void bw_stream_established(bw_stream *s) { atomic_store_explicit(&s->established, true, memory_order_relaxed); }
