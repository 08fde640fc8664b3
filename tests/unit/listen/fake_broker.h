/* A broker made for the listener's tests, and one listener on it a test.
 *
 * It has the broker's rules: one thread, events in order, `gone` after the close when no request is under way. It keeps the last batch
 * produced and gives it to every FETCH; a FETCH that would wait over a second is parked until its session ends. */
#ifndef TESTS_UNIT_LISTEN_FAKE_BROKER_H
#define TESTS_UNIT_LISTEN_FAKE_BROKER_H

#include "base/clock.h"
#include "base/err.h"
#include "format/record_batch.h"
#include "listen/busway/listener.h"
#include "unit/transport/reactor_thread.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef enum kind { OPENED, REQUEST, WRITABLE, CLOSED } kind;

typedef struct event {
    struct event *next;
    kind kind;
    bw_session *session;
    bw_request request;
    void *token;
} event;

struct bw_session {
    bw_broker *broker;
    const bw_session_ops *ops;
    void *listener;
    bw_peer peer;
    bool closed;
    int under_way;
    event *parked; /* FETCH that waits for data that never comes */
};

struct bw_broker {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    event *first, **last;
    pthread_t thread;
    reactor_thread sockets; /* not the broker's thread: answers come from outside of its turns */
    bool stop;
    int opened, requests, writable, gone;
    bw_peer peer;
    bw_buf stored; /* the last batch that was produced */
};

static inline void push(bw_broker *b, kind k, bw_session *s, const bw_request *r, void *token)
{
    event *e = calloc(1, sizeof *e);
    if (!e) { abort(); }
    e->kind = k;
    e->session = s;
    if (r) { e->request = *r; }
    e->token = token;
    pthread_mutex_lock(&b->lock);
    *b->last = e;
    b->last = &e->next;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
}

bw_session *bw_broker_session_open(bw_broker *b, const bw_session_ops *ops, void *listener_session, const bw_peer *peer)
{
    bw_session *s = calloc(1, sizeof *s);
    if (!s) { abort(); }
    *s = (bw_session){.broker = b, .ops = ops, .listener = listener_session, .peer = *peer};
    push(b, OPENED, s, NULL, NULL);
    return s;
}

void bw_broker_submit(bw_broker *b, bw_session *s, const bw_request *request, void *token) { push(b, REQUEST, s, request, token); }
void bw_broker_writable(bw_broker *b, bw_session *s) { push(b, WRITABLE, s, NULL, NULL); }
void bw_broker_session_closed(bw_broker *b, bw_session *s) { push(b, CLOSED, s, NULL, NULL); }

bw_role bw_session_role(const bw_session *s) { return s->closed ? BW_ROLE_NONE : BW_ROLE_ADMIN; }
bw_reactor *bw_broker_reactor(bw_broker *b) { return b->sockets.reactor; }

static inline void finish(event *e, bw_answer *a)
{
    bw_session *s = e->session;
    if (a && !s->closed) { s->ops->reply(s->listener, a); }
    s->ops->consumed(s->listener, e->token);
    bw_request_fini(&e->request);
    s->under_way--;
    free(e);
}

static inline void fake_fetch(bw_broker *b, event *e, bw_answer *a)
{
    bw_fetched_part part = {.topic = e->request.parts[0].topic, .partition = e->request.parts[0].partition, .log_start = 0, .end = 100};
    part.size = (uint32_t)b->stored.len;
    a->parts = &part;
    a->part_count = 1;
    a->payload = b->stored.data;
    a->payload_len = b->stored.len;
    finish(e, a);
}

static inline void fake_request(bw_broker *b, event *e)
{
    bw_answer a;
    const bw_request *r = &e->request;
    bw_answer_init(&a, r);
    e->session->under_way++;
    if (e->session->closed) {
        finish(e, NULL);
        return;
    }
    switch (r->type) {
    case BW_API_HELLO: a.data_dir = bw_str_of("/data"), a.server_pid = 1, finish(e, &a); return;
    case BW_API_PRODUCE:
        b->stored.len = 0;
        bw_buf_append(&b->stored, r->payload, r->payload_len);
        a.offset = r->correlation;
        finish(e, r->acks ? &a : NULL);
        return;
    case BW_API_FETCH:
        if (r->max_wait_ms > 1000) {
            e->session->parked = e;
            return;
        }
        fake_fetch(b, e, &a);
        return;
    case BW_API_REPORT: finish(e, NULL); return;
    default: finish(e, &a); return;
    }
}

static inline void fake_event(bw_broker *b, event *e)
{
    bw_session *s = e->session;
    switch (e->kind) {
    case OPENED: b->peer = s->peer; break;
    case REQUEST: fake_request(b, e); break;
    case WRITABLE: break;
    case CLOSED:
        s->closed = true;
        if (s->parked) { finish(s->parked, NULL); }
        break;
    }
    if (s->closed && s->under_way == 0) {
        s->ops->gone(s->listener);
        free(s);
    }
}

static inline void *fake_main(void *arg)
{
    bw_broker *b = arg;
    pthread_mutex_lock(&b->lock);
    for (;;) {
        while (!b->first && !b->stop) { pthread_cond_wait(&b->changed, &b->lock); }
        event *e = b->first;
        if (!e) { break; }
        b->first = e->next;
        if (!b->first) { b->last = &b->first; }
        kind k = e->kind;
        bool closing = k == CLOSED;
        pthread_mutex_unlock(&b->lock);
        fake_event(b, e);
        if (k != REQUEST) { free(e); }
        pthread_mutex_lock(&b->lock);
        b->opened += k == OPENED;
        b->requests += k == REQUEST;
        b->writable += k == WRITABLE;
        b->gone += closing;
        pthread_cond_broadcast(&b->changed);
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

static inline void wait_for(bw_broker *b, const int *counter, int value)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 5;
    pthread_mutex_lock(&b->lock);
    while (*counter < value && pthread_cond_timedwait(&b->changed, &b->lock, &until) == 0) { }
    int got = *counter;
    pthread_mutex_unlock(&b->lock);
    assert_true(got >= value);
}

/* ---- one daemon a test ---- */

typedef struct fixture {
    char folder[64];
    char url[100];
    char *urls[1];
    bw_daemon_config config;
    bw_broker broker;
    bw_listener *listener;
} fixture;

static inline int set_up(void **state)
{
    fixture *x = calloc(1, sizeof *x);
    if (!x) { return -1; }
    snprintf(x->folder, sizeof x->folder, "/tmp/bw-test-listener-XXXXXX");
    if (!mkdtemp(x->folder)) { return -1; }
    snprintf(x->url, sizeof x->url, "ipc://%s/bus.sock", x->folder);
    x->urls[0] = x->url;
    x->config.listen = x->urls;
    x->config.listen_count = 1;
    x->config.socket_request_max_bytes = 1 << 20;
    pthread_mutex_init(&x->broker.lock, NULL);
    pthread_cond_init(&x->broker.changed, NULL);
    x->broker.last = &x->broker.first;
    pthread_create(&x->broker.thread, NULL, fake_main, &x->broker);
    if (!reactor_thread_start(&x->broker.sockets)) { return -1; }
    if (bw_listener_start(&x->broker, &x->config, NULL, &x->listener) != BW_OK) {
        print_error("%s\n", bw_error_message());
        return -1;
    }
    *state = x;
    return 0;
}

static inline int tear_down(void **state)
{
    fixture *x = *state;
    if (x->listener) { bw_listener_stop(x->listener); }
    reactor_thread_stop(&x->broker.sockets);
    pthread_mutex_lock(&x->broker.lock);
    x->broker.stop = true;
    pthread_cond_broadcast(&x->broker.changed);
    pthread_mutex_unlock(&x->broker.lock);
    pthread_join(x->broker.thread, NULL);
    bool even = x->broker.opened == x->broker.gone;
    bw_buf_free(&x->broker.stored);
    pthread_mutex_destroy(&x->broker.lock);
    pthread_cond_destroy(&x->broker.changed);
    int rc = rmdir(x->folder); /* both sockets are gone */
    free(x);
    return rc == 0 && even ? 0 : -1;
}

#endif
