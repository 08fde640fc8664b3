/* listen/busway/exchange.c: one request over REP as a session of the broker.
 *
 * Lifetime: made by the request, a session of its own (each message may come from another peer); `consumed` is the broker's last word
 * on it: the session is closed, the answer goes out, and `gone` frees it. The listener's list of exchanges under way lets a stop
 * close those that wait for data; `closed` (the list's lock) keeps the broker from being told twice. */
#include "listen/busway/internal.h"

#include "base/clock.h"
#include "base/err.h"

#include <busway/producer.h>
#include <pthread.h>
#include <stdlib.h>

typedef struct bw_exchange {
    bw_listener *listener;
    struct bw_exchange *next, **at; /* the listener's list */
    bool closed;                    /* the broker was told */
    bw_rep_exchange *rep;
    bw_session *session;
    bw_buf answer;
    bw_buf batch; /* PRODUCE as records: what was made of them */
    uint16_t type;
    uint32_t correlation;
    bool unanswered; /* PRODUCE with acks none: the broker sends nothing */
    bool records;
    bw_fetch_part *from; /* FETCH as records: where each part began; topics are views into the request */
    size_t from_count;
} exchange;

static void answer_error(bw_buf *out, uint16_t type, uint32_t correlation, bw_err err)
{
    bw_request r = {.type = type, .correlation = correlation};
    bw_answer a;
    bw_answer_refuse(&r, err, &a);
    out->len = 0;
    bw_answer_encode(&a, out, false);
}

/* The offset that a part was asked from; 0 when it was not asked for. */
static int64_t asked_from(const exchange *x, const bw_fetched_part *p)
{
    for (size_t i = 0; i < x->from_count; i++) {
        const bw_fetch_part *q = &x->from[i];
        if (q->partition == p->partition && q->topic.len == p->topic.len && memcmp(q->topic.data, p->topic.data, p->topic.len) == 0) {
            return q->offset;
        }
    }
    return 0;
}

/* A FETCH answer with its batches turned into records. */
static bw_err encode_records(exchange *x, const bw_answer *a)
{
    bw_answer out = *a;
    bw_buf payload = {0};
    size_t at = 0, bytes = a->part_count * sizeof *a->parts;
    bw_err err = BW_OK;
    out.parts = (bw_fetched_part *)malloc(bytes ? bytes : 1);
    if (!out.parts) { return bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu parts", a->part_count); }
    if (bytes > 0) { memcpy(out.parts, a->parts, bytes); }
    for (size_t i = 0; i < a->part_count && err == BW_OK; i++) {
        size_t before = payload.len, room = x->listener->frame_max / 2;
        if (a->parts[i].size > a->payload_len - at) {
            err = bw_fail(BW_ERR_INTERNAL, "part %zu of a FETCH answer is larger than its payload", i);
            break;
        }
        err = bw_records_from_batches(a->payload + at, a->parts[i].size, asked_from(x, &a->parts[i]),
                                      room > before ? room - before : 0, &payload);
        at += a->parts[i].size;
        out.parts[i].size = (uint32_t)(payload.len - before);
    }
    out.payload = payload.data;
    out.payload_len = payload.len;
    if (err == BW_OK) { err = bw_answer_encode(&out, &x->answer, false); }
    free(out.parts);
    bw_buf_free(&payload);
    return err;
}

/* ---- what the broker calls: the broker thread ---- */

static void on_reply(void *listener_session, const bw_answer *a)
{
    exchange *x = (exchange *)listener_session;
    bw_answer complete = *a;
    bw_err err;
    if (x->answer.len > 0) { return; } /* one answer a request */
    bw_answer_complete(&complete, x->listener->frame_max);
    if (x->records && a->type == BW_API_FETCH && a->error == BW_OK) {
        err = encode_records(x, &complete);
    } else {
        err = bw_answer_encode(&complete, &x->answer, false);
    }
    if (err != BW_OK) { answer_error(&x->answer, x->type, x->correlation, err); }
}

/* The broker sent nothing: because it was not asked to, or because it is stopping. */
static void answer_missing(exchange *x, bool stopping)
{
    bw_request r = {.type = x->type, .correlation = x->correlation};
    bw_answer a;
    if (x->unanswered && !stopping) {
        bw_answer_init(&a, &r);
        bw_answer_encode(&a, &x->answer, false);
        return;
    }
    bw_err err = stopping ? bw_fail(BW_ERR_NO_COORDINATOR, "the daemon is stopping: send the request again later")
                          : bw_fail(BW_ERR_NO_MEMORY, "no memory for a request: send it again later");
    answer_error(&x->answer, x->type, x->correlation, err);
}

/* Tells the broker that the session is over, once. Under the listener's lock. */
static void close_session(exchange *x)
{
    if (!x->closed) { bw_broker_session_closed(x->listener->broker, x->session); }
    x->closed = true;
}

static void on_consumed(void *listener_session, void *request_token)
{
    exchange *x = (exchange *)listener_session;
    bw_listener *l = x->listener;
    (void)request_token;
    pthread_mutex_lock(&l->lock);
    bool stopping = x->closed;
    *x->at = x->next;
    if (x->next) { x->next->at = x->at; }
    close_session(x);
    pthread_mutex_unlock(&l->lock);
    if (x->answer.len == 0) { answer_missing(x, stopping); }
    bw_rep_answer(x->rep, x->answer.data, x->answer.len, NULL, 0); /* last: the listener may be gone after it */
}

void bw_exchanges_close(bw_listener *l)
{
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    for (exchange *x = l->exchanges; x; x = x->next) { close_session(x); }
    pthread_mutex_unlock(&l->lock);
}

static size_t on_backlog(void *listener_session)
{
    (void)listener_session;
    return 0; /* one answer, then it is over */
}

static void exchange_free(exchange *x)
{
    bw_buf_free(&x->answer);
    bw_buf_free(&x->batch);
    free(x->from);
    free(x);
}

static void on_gone(void *listener_session) { exchange_free((exchange *)listener_session); }

static const bw_session_ops session_ops = {on_reply, on_consumed, on_backlog, on_gone};

/* ---- what the REP socket calls: nng's threads ---- */

static bool needs_stream(uint16_t type)
{
    switch (type) {
    case BW_API_SUBSCRIBE:
    case BW_API_CREDIT:
    case BW_API_UNSUBSCRIBE:
    case BW_API_ATTACH:
    case BW_API_DETACH:
    case BW_API_MAILBOX:
    case BW_API_RELEASE_MAILBOX:
    case BW_API_REPORT: return true;
    default: return false;
    }
}

/* Records to a batch, or the memory of where a FETCH begins. */
static bw_err prepare_records(exchange *x, bw_request *r)
{
    x->records = true;
    if (r->type == BW_API_PRODUCE) {
        bw_err err = bw_records_to_batch(r->payload, r->payload_len, bw_clock_wall_ms(), &x->batch);
        r->payload = x->batch.data;
        r->payload_len = x->batch.len;
        return err;
    }
    x->from_count = r->part_count;
    x->from = (bw_fetch_part *)malloc((r->part_count ? r->part_count : 1) * sizeof *x->from);
    if (!x->from) { return bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu parts", r->part_count); }
    if (r->part_count > 0) { memcpy(x->from, r->parts, r->part_count * sizeof *x->from); }
    return BW_OK;
}

static bw_err prepare(exchange *x, bw_request *r)
{
    if (needs_stream(r->type)) {
        return bw_fail(BW_ERR_UNSUPPORTED, "%s needs a connection of its own: use the stream socket", bw_api_name(r->type));
    }
    if (r->type == BW_API_FETCH) { bw_request_bound_fetch(r); }
    return r->records ? prepare_records(x, r) : BW_OK;
}

/* Give the request to the broker. On an error x is still the caller's. */
static bw_err hand_over(exchange *x, const bw_request *r, const bw_stream_peer *from)
{
    bw_listener *l = x->listener;
    bw_peer peer;
    bw_listen_peer(from, &peer, false);
    bw_err err = BW_OK;
    pthread_mutex_lock(&l->lock);
    if (l->stopping) {
        err = bw_fail(BW_ERR_NO_COORDINATOR, "the daemon is stopping: send the request again later");
    } else {
        x->session = bw_broker_session_open(l->broker, &session_ops, x, &peer);
        if (!x->session) { err = bw_fail(BW_ERR_NO_MEMORY, "no memory for a session"); }
    }
    if (err == BW_OK) {
        x->next = l->exchanges;
        x->at = &l->exchanges;
        if (x->next) { x->next->at = &x->next; }
        l->exchanges = x;
        bw_broker_submit(l->broker, x->session, r, x); /* x may be gone behind it */
    }
    pthread_mutex_unlock(&l->lock);
    return err;
}

static void refuse(bw_rep_exchange *rep, const bw_answer *a)
{
    bw_buf out = {0};
    bw_answer_encode(a, &out, false);
    bw_rep_answer(rep, out.data, out.len, NULL, 0);
    bw_buf_free(&out);
}

static void on_request(void *owner, bw_rep_exchange *rep, bw_err err, const bw_frame *f, const bw_stream_peer *from)
{
    bw_request r;
    bw_answer a;
    bw_request_init(&r, (bw_api_key)f->type);
    r.correlation = f->correlation;
    if (err == BW_OK) { err = bw_request_decode(f, &r); }
    if (err != BW_OK) {
        bw_answer_refuse(&r, err, &a);
        refuse(rep, &a);
        return;
    }
    err = bw_request_refuse(&r, true, &a);
    exchange *x = err == BW_OK ? (exchange *)calloc(1, sizeof *x) : NULL;
    if (err == BW_OK) {
        if (x) {
            *x = (exchange){.listener = (bw_listener *)owner, .rep = rep, .type = r.type, .correlation = r.correlation,
                            .unanswered = r.type == BW_API_PRODUCE && r.acks == BW_ACKS_NONE};
            err = prepare(x, &r);
        } else {
            err = bw_fail(BW_ERR_NO_MEMORY, "no memory for a request");
        }
        if (err == BW_OK) { err = hand_over(x, &r, from); }
        if (err == BW_OK) { return; }
        bw_answer_refuse(&r, err, &a);
    }
    refuse(rep, &a);
    bw_request_fini(&r);
    if (x) { exchange_free(x); }
}

const bw_rep_ops bw_exchange_ops = {on_request};
