/* listen/busway/connection.c: a stream connection as a session of the broker.
 *
 * Lifetime: made when the connection is accepted; the broker holds it from session_open until `gone`, which drops the reference on the
 * stream; it is freed when the stream's last reference is gone (bw_stream_ops.destroy). The broker is never told anything about a
 * session after session_closed: `lock` orders drained against closed. */
#include "listen/busway/internal.h"

#include "base/err.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct connection {
    bw_listener *listener;
    bw_stream *stream;
    bw_session *session;
    bool remote;
    bool introduced; /* HELLO was accepted; the stream's callbacks only */
    pthread_mutex_t lock;
    bool closed;
} connection;

/* A FETCH under way counts as a quarter of what it may bring: with the default credit a connection has 32 of the usual megabyte under
 * way, or few large ones, and what a client that does not read makes the daemon hold stays within some tens of MiB. */
#define FETCH_CHARGE_SHARE 4u
#define SCRATCH_KEEP_MAX (64u << 10)

/* ---- what the broker calls: the broker thread ---- */

static void send_answer(connection *c, const bw_answer *a, bw_buf *scratch)
{
    scratch->len = 0;
    if (bw_answer_encode(a, scratch, true) != BW_OK) {
        bw_stream_close(c->stream); /* an answer that can't be given must not be waited for */
        return;
    }
    bool payload = a->error == BW_OK && a->payload_len > 0;
    bw_stream_send(c->stream, scratch->data, scratch->len, payload ? a->payload : NULL, payload ? a->payload_len : 0);
    if (a->flags & BW_FRAME_CLOSING) { bw_stream_finish(c->stream); }
}

static void on_reply(void *listener_session, const bw_answer *a)
{
    connection *c = (connection *)listener_session;
    bw_buf *scratch = &c->listener->scratch;
    bool admits = a->type == BW_API_HELLO || a->type == BW_API_AUTHENTICATE;
    if (c->remote && admits && !a->error && bw_session_role(c->session) > BW_ROLE_NONE) { bw_stream_established(c->stream); }
    if (a->type == BW_API_HELLO) {
        bw_answer hello = *a;
        bw_answer_complete(&hello, c->listener->frame_max);
        send_answer(c, &hello, scratch);
    } else {
        send_answer(c, a, scratch);
    }
    if (scratch->cap > SCRATCH_KEEP_MAX) { bw_buf_free(scratch); }
}

static void on_consumed(void *listener_session, void *request_token)
{
    (void)listener_session;
    bw_stream_consumed((bw_stream_token *)request_token);
}

static size_t on_backlog(void *listener_session) { return bw_stream_backlog(((connection *)listener_session)->stream); }

static void on_gone(void *listener_session) { bw_stream_release(((connection *)listener_session)->stream); }

static const bw_session_ops session_ops = {on_reply, on_consumed, on_backlog, on_gone};

/* ---- what the stream calls: nng's threads ---- */

static void *on_accepted(void *owner, bw_stream *s, const bw_stream_peer *from)
{
    bw_listener *l = (bw_listener *)owner;
    connection *c = (connection *)calloc(1, sizeof *c);
    if (!c) { return NULL; }
    c->listener = l;
    c->stream = s;
    pthread_mutex_init(&c->lock, NULL);
    bw_peer peer;
    bw_listen_peer(from, &peer, true);
    c->remote = from->remote;
    c->session = bw_broker_session_open(l->broker, &session_ops, c, &peer);
    if (!c->session) {
        pthread_mutex_destroy(&c->lock);
        free(c);
        return NULL;
    }
    return c;
}

/* Answers from here, not from the broker. */
static void answer_here(connection *c, const bw_answer *a)
{
    bw_buf scratch = {0};
    send_answer(c, a, &scratch);
    bw_buf_free(&scratch);
}

static void on_frame(void *user, const bw_frame *f, bw_stream_token *token)
{
    connection *c = (connection *)user;
    bw_request r;
    bw_answer a;
    bw_err err = f->flags & BW_FRAME_ANSWER
                     ? bw_fail(BW_ERR_PROTOCOL, "a frame of type %u is marked as an answer: only the daemon answers", f->type)
                     : bw_request_decode(f, &r);
    if (err != BW_OK) {
        bw_request_init(&r, (bw_api_key)f->type);
        r.correlation = f->correlation;
        bw_answer_refuse(&r, err, &a);
    } else {
        err = bw_request_refuse(&r, c->introduced, &a);
    }
    if (err == BW_OK && r.records) {
        bw_fail(BW_ERR_UNSUPPORTED, "records as msgpack are taken on the REP socket only; send a record batch");
        err = BW_ERR_UNSUPPORTED;
        bw_answer_refuse(&r, err, &a);
    }
    if (err == BW_OK) {
        if (r.type == BW_API_FETCH) { bw_stream_charge(token, bw_request_bound_fetch(&r) / FETCH_CHARGE_SHARE); }
        if (r.type == BW_API_HELLO) {
            c->introduced = true;
            if (!c->remote) { bw_stream_established(c->stream); } /* others when they are known to have a right here: on_reply */
        }
        bw_broker_submit(c->listener->broker, c->session, &r, token);
        return;
    }
    if (err == BW_ERR_PROTOCOL) { a.flags |= BW_FRAME_CLOSING; }
    answer_here(c, &a);
    bw_request_fini(&r);
    bw_stream_consumed(token);
}

static void on_malformed(void *user, bw_err err)
{
    bw_request r = {.type = BW_API_HELLO};
    bw_answer a;
    bw_answer_refuse(&r, err, &a);
    a.flags |= BW_FRAME_CLOSING;
    answer_here((connection *)user, &a);
}

static void on_drained(void *user)
{
    connection *c = (connection *)user;
    pthread_mutex_lock(&c->lock);
    if (!c->closed) { bw_broker_writable(c->listener->broker, c->session); }
    pthread_mutex_unlock(&c->lock);
}

static void on_closed(void *user)
{
    connection *c = (connection *)user;
    pthread_mutex_lock(&c->lock);
    c->closed = true;
    bw_broker_session_closed(c->listener->broker, c->session);
    pthread_mutex_unlock(&c->lock);
}

static void on_destroy(void *user)
{
    connection *c = (connection *)user;
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static void tell(const bw_listener *l, const char *event, const char *peer)
{
    char fields[1000], text[800];
    if (!l->config->event) { return; }
    snprintf(fields, sizeof fields, "%s%s%serror=%s", peer ? "peer=\"" : "", peer ? peer : "", peer ? "\" " : "",
             bw_event_text(bw_error_message(), text, sizeof text));
    l->config->event(l->config->event_opaque, BW_LOG_WARN, event, fields);
}

static void on_trouble(void *owner, bw_err err)
{
    (void)err;
    tell(owner, "accept-failed", NULL);
}

static void on_refused(void *owner, const char *address, bw_err err)
{
    (void)err;
    tell(owner, "connection-refused", address);
}

const bw_stream_ops bw_connection_ops = {on_accepted, on_frame, on_malformed, on_drained, on_closed, on_destroy, on_trouble, on_refused};
