/* transport/rep.c: the REP socket, with BW_REP_CONTEXTS contexts that each receive, wait for the answer, send it, receive again.
 *
 * Invariants: a context's aio does one thing at a time: receiving (`request` follows) or sending (receiving follows). While the answer
 * is being worked out nothing of the context is outstanding in nng, so stopping waits until `under_way` is 0 before it closes.
 * nng 1.5.2 has no limit on what it receives unless NNG_OPT_RECVMAXSZ is set before listening. */
#include "transport/rep.h"

#include "base/clock.h"
#include "base/lock.h"
#include "transport/nng_error.h"
#include "transport/socket_path.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

struct bw_rep_exchange {
    bw_rep *rep;
    nng_ctx ctx;
    nng_aio *aio;
    nng_msg *request; /* until the answer */
    bool sending;
};

struct bw_rep {
    const bw_rep_ops *ops;
    void *owner;
    size_t frame_max;
    nng_socket socket;
    bool open;
    bw_socket_place place;
    bw_rep_exchange exchanges[BW_REP_CONTEXTS];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned under_way; /* requests that were given out and not answered */
    bool stopping;
};

static int64_t peer_number(nng_msg *m, const char *option)
{
    uint64_t v;
    return nng_pipe_get_uint64(nng_msg_get_pipe(m), option, &v) == 0 ? (int64_t)v : -1;
}

static void receive(bw_rep_exchange *x)
{
    x->sending = false;
    nng_ctx_recv(x->ctx, x->aio);
}

static bool begin_request(bw_rep *r)
{
    pthread_mutex_lock(&r->lock);
    bool go = !r->stopping;
    r->under_way += go;
    pthread_mutex_unlock(&r->lock);
    return go;
}

static void end_request(bw_rep *r)
{
    pthread_mutex_lock(&r->lock);
    if (--r->under_way == 0) { pthread_cond_broadcast(&r->changed); }
    pthread_mutex_unlock(&r->lock);
}

/* Callback of a context's aio. */
static void step(void *exchange)
{
    bw_rep_exchange *x = (bw_rep_exchange *)exchange;
    int rv = nng_aio_result(x->aio);
    if (x->sending) {
        /* Whether it went or not (the peer may be gone): the next. */
        if (rv != 0) { nng_msg_free(nng_aio_get_msg(x->aio)); }
        nng_aio_set_msg(x->aio, NULL);
        if (rv != NNG_ECLOSED && rv != NNG_ECANCELED) { receive(x); }
        return;
    }
    if (rv == NNG_ECLOSED || rv == NNG_ECANCELED) { return; }
    if (rv != 0) { /* out of memory: breathe first */
        receive(x);
        return;
    }
    x->request = nng_aio_get_msg(x->aio);
    nng_aio_set_msg(x->aio, NULL);
    if (!begin_request(x->rep)) {
        nng_msg_free(x->request);
        x->request = NULL;
        return;
    }
    bw_stream_peer peer = {.uid = peer_number(x->request, NNG_OPT_IPC_PEER_UID),
                           .gid = peer_number(x->request, NNG_OPT_IPC_PEER_GID),
                           .pid = peer_number(x->request, NNG_OPT_IPC_PEER_PID)};
    bw_frame f = {0};
    bw_err err = bw_frame_parse_message((const uint8_t *)nng_msg_body(x->request), nng_msg_len(x->request), x->rep->frame_max, &f);
    x->rep->ops->request(x->rep->owner, x, err, &f, &peer);
}

void bw_rep_answer(bw_rep_exchange *x, const void *frame, size_t frame_len, const void *payload, size_t payload_len)
{
    nng_msg *m = NULL;
    bw_rep *r = x->rep;
    const size_t skip = 4; /* the length field */
    nng_msg_free(x->request);
    x->request = NULL;
    int rv = nng_msg_alloc(&m, 0);
    if (rv == 0) { rv = nng_msg_append(m, (const uint8_t *)frame + skip, frame_len - skip); }
    if (rv == 0 && payload_len > 0) { rv = nng_msg_append(m, payload, payload_len); }
    if (rv != 0) {
        /* No memory for the answer: the requester resends or times out. */
        if (m) { nng_msg_free(m); }
        receive(x);
    } else {
        x->sending = true;
        nng_aio_set_msg(x->aio, m);
        nng_ctx_send(x->ctx, x->aio);
    }
    end_request(r);
}

static void rep_free(bw_rep *r)
{
    for (unsigned i = 0; i < BW_REP_CONTEXTS; i++) {
        if (r->exchanges[i].aio) { nng_aio_stop(r->exchanges[i].aio); }
    }
    if (r->open) { nng_close(r->socket); }
    for (unsigned i = 0; i < BW_REP_CONTEXTS; i++) {
        bw_rep_exchange *x = &r->exchanges[i];
        if (!x->aio) { continue; }
        if (x->sending && nng_aio_get_msg(x->aio)) { nng_msg_free(nng_aio_get_msg(x->aio)); }
        nng_aio_free(x->aio);
    }
    bw_socket_place_release(&r->place);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static int listen_at(bw_rep *r, const char *url, bool ipc)
{
    nng_listener l;
    int rv = nng_listener_create(&l, r->socket, url);
    if (rv == 0 && ipc) { rv = nng_listener_set_int(l, NNG_OPT_IPC_PERMISSIONS, 0660); }
    return rv == 0 ? nng_listener_start(l, 0) : rv;
}

static bw_err rep_open(bw_rep *r, const bw_rep_options *o)
{
    char url[sizeof r->place.listen_path + 8];
    const char *nng_url = o->url, *path = o->url + 6;
    bool ipc = strncmp(o->url, "ipc://", 6) == 0;
    if (ipc) {
        bw_err err = bw_socket_place_prepare(path, o->allow_long_path, &r->place);
        if (err != BW_OK) { return err; }
        memcpy(url, "ipc://", 6);
        memcpy(url + 6, r->place.listen_path, strlen(r->place.listen_path) + 1);
        nng_url = url;
    }
    int rv = nng_rep0_open(&r->socket);
    r->open = rv == 0;
    if (rv == 0) { rv = nng_socket_set_size(r->socket, NNG_OPT_RECVMAXSZ, r->frame_max + 64); }
    for (unsigned i = 0; rv == 0 && i < BW_REP_CONTEXTS; i++) {
        bw_rep_exchange *x = &r->exchanges[i];
        x->rep = r;
        rv = nng_aio_alloc(&x->aio, step, x);
        if (rv == 0) { rv = nng_ctx_open(&x->ctx, r->socket); }
    }
    if (rv == 0) { rv = listen_at(r, nng_url, ipc); }
    if (rv != 0) { return bw_fail_nng(rv, "can't listen on '%s' (REP)", o->url); }
    return ipc ? bw_socket_place_set_group(&r->place, path, o->gid) : BW_OK;
}

bw_err bw_rep_listen(const bw_rep_options *options, bw_rep **out)
{
    bw_rep *r = (bw_rep *)calloc(1, sizeof *r);
    if (!r) { return bw_fail(BW_ERR_NO_MEMORY, "no memory for a REP listener"); }
    r->ops = options->ops;
    r->owner = options->owner;
    r->frame_max = options->frame_max;
    r->place.dir_fd = -1;
    pthread_mutex_init(&r->lock, NULL);
    bw_cond_init(&r->changed);
    bw_err err = rep_open(r, options);
    if (err != BW_OK) {
        rep_free(r);
        return err;
    }
    *out = r;
    for (unsigned i = 0; i < BW_REP_CONTEXTS; i++) { receive(&r->exchanges[i]); }
    return BW_OK;
}

size_t bw_rep_busy(bw_rep *r)
{
    pthread_mutex_lock(&r->lock);
    size_t n = r->under_way;
    pthread_mutex_unlock(&r->lock);
    return n;
}

bool bw_rep_destroy(bw_rep *r, int64_t timeout_ms)
{
    int64_t until = bw_clock_mono_ns() + timeout_ms * 1000000;
    struct timespec deadline = {until / 1000000000, until % 1000000000};
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    while (r->under_way > 0 && rc != ETIMEDOUT) { rc = pthread_cond_timedwait(&r->changed, &r->lock, &deadline); }
    bool done = r->under_way == 0;
    pthread_mutex_unlock(&r->lock);
    if (done) { rep_free(r); }
    return done;
}
