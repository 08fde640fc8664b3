/* transport/stream_listener.c: accepting connections, and the list of them.
 *
 * Lock order: a listener's lock is never held while a connection's is taken, nor while nng or the user is called. */
#include "transport/stream_internal.h"

#include "base/clock.h"
#include "base/lock.h"

#include <errno.h>
#include <stdlib.h>

void bw_stream_listener_forget(bw_stream_listener *l, bw_stream *s)
{
    pthread_mutex_lock(&l->lock);
    if (s->prev) { s->prev->next = s->next; }
    if (s->next) { s->next->prev = s->prev; }
    if (l->streams == s) { l->streams = s->next; }
    if (!l->streams) { pthread_cond_broadcast(&l->changed); }
    pthread_mutex_unlock(&l->lock);
}

bool bw_stream_listener_is_stopping(bw_stream_listener *l)
{
    pthread_mutex_lock(&l->lock);
    bool stopping = l->stopping;
    pthread_mutex_unlock(&l->lock);
    return stopping;
}

void bw_stream_listener_stopped(bw_stream_listener *l)
{
    pthread_mutex_lock(&l->lock);
    l->accepting = false;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

void bw_stream_listener_add(bw_stream_listener *l, bw_stream *s)
{
    pthread_mutex_lock(&l->lock);
    s->next = l->streams;
    if (l->streams) { l->streams->prev = s; }
    l->streams = s;
    pthread_mutex_unlock(&l->lock);
}

bool bw_stream_listener_introduce(bw_stream_listener *l, bw_stream *s, const bw_stream_peer *peer)
{
    bw_stream_ref(s); /* the user's */
    s->user = bw_stream_listener_is_stopping(l) ? NULL : l->ops->accepted(l->owner, s, peer);
    if (!s->user) { bw_stream_release(s); }
    return s->user != NULL;
}

bool bw_stream_listener_take(bw_stream_listener *l, bw_stream *s, const bw_stream_peer *peer)
{
    bw_stream_listener_add(l, s);
    if (bw_stream_listener_introduce(l, s, peer)) { return true; }
    bw_stream_release(s);
    return false;
}

void bw_stream_listener_set_tls(bw_stream_listener *l, bw_tls_context *tls)
{
    bw_tls_context_ref(tls);
    pthread_mutex_lock(&l->lock);
    bw_tls_context *before = l->tls;
    l->tls = tls;
    pthread_mutex_unlock(&l->lock);
    bw_tls_context_unref(before);
}

static bool has_scheme(const char *url, const char *scheme) { return strncmp(url, scheme, strlen(scheme)) == 0; }

static bw_err open_unix(bw_stream_listener *l, const bw_stream_listen_options *o)
{
    char url[sizeof l->place.listen_path + 8];
    const char *path = o->url + 6;
    bw_err err = bw_socket_place_prepare(path, o->allow_long_path, &l->place);
    if (err != BW_OK) { return err; }
    if (o->reactor) {
        l->kind = BW_LISTEN_UNIX;
        err = bw_socket_listen(l, o->url);
    } else {
        memcpy(url, "ipc://", 6);
        memcpy(url + 6, l->place.listen_path, strlen(l->place.listen_path) + 1);
        err = bw_nng_listen(l, url);
    }
    return err == BW_OK ? bw_socket_place_set_group(&l->place, path, o->gid) : err;
}

static bw_err open_place(bw_stream_listener *l, const bw_stream_listen_options *o)
{
    l->reactor = o->reactor;
    if (has_scheme(o->url, "ipc://")) { return open_unix(l, o); }
    if (o->tls && has_scheme(o->url, "tls+tcp://")) { bw_stream_listener_set_tls(l, o->tls); }
    if (o->reactor && (l->tls || has_scheme(o->url, "tcp://"))) {
        l->kind = BW_LISTEN_TCP;
        return bw_socket_listen(l, o->url);
    }
    l->reactor = NULL;
    return bw_nng_listen(l, o->url);
}

static void listener_free(bw_stream_listener *l)
{
    bw_shaker_free(l);
    bw_nng_free(l);
    bw_socket_free(l);
    bw_tls_context_unref(l->tls);
    bw_socket_place_release(&l->place);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

bw_err bw_stream_listen(const bw_stream_listen_options *options, bw_stream_listener **out)
{
    bw_stream_listener *l = (bw_stream_listener *)calloc(1, sizeof *l);
    if (!l) { return bw_fail(BW_ERR_NO_MEMORY, "no memory for a listener"); }
    l->ops = options->ops;
    l->owner = options->owner;
    l->frame_max = options->frame_max;
    l->credit = options->credit ? options->credit : BW_STREAM_CREDIT_DEFAULT;
    l->hello_timeout_ms = options->hello_timeout_ms;
    l->place.dir_fd = l->source.fd = -1;
    pthread_mutex_init(&l->lock, NULL);
    bw_cond_init(&l->changed);
    bw_err err = open_place(l, options);
    if (err != BW_OK) {
        listener_free(l);
        return err;
    }
    l->accepting = true;
    *out = l;
    if (!l->reactor) {
        bw_nng_start(l);
    } else if ((err = bw_socket_start(l)) != BW_OK) {
        listener_free(l);
    }
    return err;
}

void bw_stream_listener_close(bw_stream_listener *l)
{
    pthread_mutex_lock(&l->lock);
    bool first = !l->stopping;
    l->stopping = true;
    pthread_mutex_unlock(&l->lock);
    if (!first) { return; }
    if (l->reactor) {
        bw_socket_stop(l);
    } else {
        bw_nng_stop(l);
    }
    pthread_mutex_lock(&l->lock);
    while (l->accepting) { pthread_cond_wait(&l->changed, &l->lock); }
    pthread_mutex_unlock(&l->lock);
}

/* The connections as they are now, each with a reference. NULL and count 0 when there are none or no memory. */
static bw_stream **snapshot(bw_stream_listener *l, size_t *count)
{
    *count = 0;
    pthread_mutex_lock(&l->lock);
    size_t n = 0;
    for (bw_stream *s = l->streams; s; s = s->next) { n++; }
    bw_stream **all = n ? (bw_stream **)malloc(n * sizeof *all) : NULL;
    for (bw_stream *s = all ? l->streams : NULL; s; s = s->next) {
        /* One whose last reference is being dropped now is left alone. */
        unsigned refs = atomic_load(&s->refs);
        while (refs > 0 && !atomic_compare_exchange_weak(&s->refs, &refs, refs + 1)) { }
        if (refs > 0) { all[(*count)++] = s; }
    }
    pthread_mutex_unlock(&l->lock);
    return all;
}

size_t bw_stream_listener_busy(bw_stream_listener *l)
{
    size_t count, busy = 0;
    bw_stream **all = snapshot(l, &count);
    for (size_t i = 0; i < count; i++) {
        busy += atomic_load(&all[i]->unconsumed) > 0 || bw_stream_backlog(all[i]) > 0;
        bw_stream_release(all[i]);
    }
    free(all);
    return busy;
}

bool bw_stream_listener_destroy(bw_stream_listener *l, int64_t timeout_ms)
{
    bw_stream_listener_close(l);
    size_t count;
    bw_stream **all = snapshot(l, &count);
    for (size_t i = 0; i < count; i++) {
        bw_stream_close(all[i]);
        bw_stream_release(all[i]);
    }
    free(all);
    int64_t until = bw_clock_mono_ns() + timeout_ms * 1000000;
    struct timespec deadline = {until / 1000000000, until % 1000000000};
    pthread_mutex_lock(&l->lock);
    int rc = 0;
    while (l->streams && rc != ETIMEDOUT) { rc = pthread_cond_timedwait(&l->changed, &l->lock, &deadline); }
    bool empty = l->streams == NULL;
    pthread_mutex_unlock(&l->lock);
    if (empty) { listener_free(l); }
    return empty;
}
