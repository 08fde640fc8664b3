/* transport/stream_listener.c: accepting connections, and the list of them.
 *
 * Lock order: a listener's lock is never held while a connection's is taken, nor while nng or the user is called. */
#include "transport/stream_internal.h"

#include "base/clock.h"
#include "transport/nng_error.h"

#include <errno.h>
#include <stdlib.h>

#define BW_ACCEPT_NAP_MS 100

void bw_stream_listener_forget(bw_stream_listener *l, bw_stream *s)
{
    pthread_mutex_lock(&l->lock);
    if (s->prev) { s->prev->next = s->next; }
    if (s->next) { s->next->prev = s->prev; }
    if (l->streams == s) { l->streams = s->next; }
    if (!l->streams) { pthread_cond_broadcast(&l->changed); }
    pthread_mutex_unlock(&l->lock);
}

static int64_t peer_number(nng_stream *nng, const char *option)
{
    uint64_t v;
    return nng_stream_get_uint64(nng, option, &v) == 0 ? (int64_t)v : -1;
}

/* A connection that was accepted. false: out of memory. */
static bool take_connection(bw_stream_listener *l, nng_stream *nng)
{
    bw_stream *s = bw_stream_create(l, nng);
    if (!s) {
        nng_stream_close(nng);
        nng_stream_free(nng);
        return false;
    }
    pthread_mutex_lock(&l->lock);
    s->next = l->streams;
    if (l->streams) { l->streams->prev = s; }
    l->streams = s;
    bool stopping = l->stopping;
    pthread_mutex_unlock(&l->lock);
    bw_stream_peer peer = {peer_number(nng, NNG_OPT_IPC_PEER_UID), peer_number(nng, NNG_OPT_IPC_PEER_GID),
                           peer_number(nng, NNG_OPT_IPC_PEER_PID)};
    bw_stream_ref(s); /* the user's */
    s->user = stopping ? NULL : l->ops->accepted(l->owner, s, &peer);
    if (!s->user) {
        bw_stream_release(s);
        bw_stream_release(s);
        return true;
    }
    bw_stream_receive_start(s);
    return true;
}

static void accept_next(bw_stream_listener *l, bool nap)
{
    pthread_mutex_lock(&l->lock);
    bool stop = l->stopping;
    l->napping = nap;
    if (stop) {
        l->accepting = false;
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    if (stop) { return; }
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

static bool is_ipc(const char *url, const char **path)
{
    *path = url + 6;
    return strncmp(url, "ipc://", 6) == 0;
}

static bw_err open_nng(bw_stream_listener *l, const bw_stream_listen_options *o)
{
    char url[sizeof l->place.listen_path + 8];
    const char *path, *nng_url = o->url;
    if (is_ipc(o->url, &path)) {
        bw_err err = bw_socket_place_prepare(path, o->allow_long_path, &l->place);
        if (err != BW_OK) { return err; }
        memcpy(url, "ipc://", 6);
        memcpy(url + 6, l->place.listen_path, strlen(l->place.listen_path) + 1);
        nng_url = url;
    }
    int rv = nng_stream_listener_alloc(&l->nng, nng_url);
    if (rv == 0 && nng_url == url) { rv = nng_stream_listener_set_int(l->nng, NNG_OPT_IPC_PERMISSIONS, 0660); }
    if (rv == 0) { rv = nng_stream_listener_listen(l->nng); }
    if (rv == 0) { rv = nng_aio_alloc(&l->accept_aio, accepted, l); }
    if (rv != 0) { return bw_fail_nng(rv, "can't listen on '%s'", o->url); }
    return nng_url == url ? bw_socket_place_set_group(&l->place, path, o->gid) : BW_OK;
}

static void listener_free(bw_stream_listener *l)
{
    if (l->accept_aio) { nng_aio_free(l->accept_aio); }
    if (l->nng) {
        nng_stream_listener_close(l->nng);
        nng_stream_listener_free(l->nng);
    }
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
    l->place.dir_fd = -1;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->changed, &attr);
    pthread_condattr_destroy(&attr);
    bw_err err = open_nng(l, options);
    if (err != BW_OK) {
        listener_free(l);
        return err;
    }
    l->accepting = true;
    *out = l;
    accept_next(l, false);
    return BW_OK;
}

void bw_stream_listener_close(bw_stream_listener *l)
{
    pthread_mutex_lock(&l->lock);
    bool first = !l->stopping;
    l->stopping = true;
    pthread_mutex_unlock(&l->lock);
    if (!first) { return; }
    nng_stream_listener_close(l->nng);
    nng_aio_cancel(l->accept_aio);
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
