/* broker/subscribe.c: SUBSCRIBE, CREDIT, UNSUBSCRIBE: batches of one partition pushed as DATA, within the client's credit.
 *
 * Two bounds keep a slow reader's memory small and lose nothing: bytes are pushed only while the subscription has credit (the last batch
 * may exceed it, so that a batch larger than the credit passes) and while the connection's backlog is below BACKLOG_MAX; then the
 * subscription rests until CREDIT or `writable`. One turn pushes at most TURN_BYTES, so that others get theirs.
 * An error (offset out of range, corruption, deletion) is pushed as a last DATA, and the subscription ends. */
#include "broker/quota_admit.h"

#include <busway/consumer.h>

#include <stdlib.h>
#include <string.h>

#define BACKLOG_MAX (256u << 10)
#define RUN_BYTES (256u << 10)
#define RUN_FIRST_BYTES (16u << 10) /* to other hosts: a line that is cut often brings whole frames nevertheless */
#define RUN_SHARE 4                 /* later up to this part of what was sent: a cut costs no more */
#define TURN_BYTES (1u << 20)
#define SUBS_MAX 4096

struct bw_sub {
    bw_session *session;
    bw_part *part;
    bw_reader *reader;
    uint32_t id;
    bw_reader_limit limit; /* what it gets: bw_fetch_limit */
    int64_t credit; /* may go below 0 by one batch */
    size_t most;    /* bytes of the next DATA; one batch may exceed it */
    uint64_t sent;
    bool blocked;   /* by the backlog */
    bool drained;   /* nothing below the limit when it was last looked at */
    bw_sub *session_prev, *session_next, *part_prev, *part_next;
};

static void sub_end(bw_sub *s)
{
    if (s->session_prev) s->session_prev->session_next = s->session_next;
    else s->session->subs = s->session_next;
    if (s->session_next) s->session_next->session_prev = s->session_prev;
    if (s->part_prev) s->part_prev->part_next = s->part_next;
    else s->part->subs = s->part_next;
    if (s->part_next) s->part_next->part_prev = s->part_prev;
    bw_reader_close(s->reader);
    free(s);
}

static bw_sub *find(const bw_session *session, uint32_t id)
{
    bw_sub *s = session->subs;
    while (s && s->id != id) s = s->session_next;
    return s;
}

static void push_data(bw_sub *s, bw_err e, const bw_run *run)
{
    bw_answer a;
    bw_answer_init(&a, NULL);
    a.subscription = s->id;
    a.error = (int32_t)e;
    bw_part_range(s->part, &a.log_start, &a.end, &a.durable);
    if (e) a.message = bw_str_of(bw_error_message());
    else {
        a.offset = run->base_offset;
        a.payload = run->data;
        a.payload_len = run->len;
        s->session->sent_bytes += run->len;
        s->part->out_bytes += run->len;
    }
    bw_quota_sent(s->session, NULL, &a);
    s->session->ops->reply(s->session->listener, &a);
}

/* Push what credit and backlog allow; ends the subscription on an error. */
static void push(bw_broker *b, bw_sub *s)
{
    size_t pushed = 0;
    s->drained = s->blocked = false;
    bw_part_use_io(b, s->part);
    while (s->credit > 0) {
        if (s->session->ops->backlog(s->session->listener) >= BACKLOG_MAX || bw_quota_must_wait(b, s->session)) {
            s->blocked = true;
            return;
        }
        if (pushed >= TURN_BYTES) {
            bw_broker_again(b, s->part);
            return;
        }
        bw_run run;
        size_t most = s->credit < (int64_t)s->most ? (size_t)s->credit : s->most;
        bw_err e = bw_reader_run(s->reader, most, &run);
        if (e == BW_ERR_EMPTY) {
            s->drained = true;
            return;
        }
        push_data(s, e, &run);
        if (e) {
            sub_end(s);
            return;
        }
        pushed += run.len;
        s->credit -= (int64_t)run.len;
        s->sent += run.len;
        if (s->most < RUN_BYTES && s->sent >= RUN_SHARE * s->most) s->most *= 2;
    }
}

void bw_sub_serve(bw_broker *b, bw_part *p)
{
    for (bw_sub *s = p->subs, *next; s; s = next) {
        next = s->part_next;
        if (s->credit > 0 && !s->blocked) push(b, s);
    }
}

void bw_sub_end_part(bw_part *p, bw_err e)
{
    char why[300];
    strncpy(why, bw_error_message(), sizeof why - 1);
    why[sizeof why - 1] = 0;
    while (p->subs) {
        bw_error_set_message(e, why);
        push_data(p->subs, e, NULL);
        sub_end(p->subs);
    }
}

void bw_sub_rest(bw_part *p)
{
    for (bw_sub *s = p->subs; s; s = s->part_next) bw_reader_rest(s->reader);
}

void bw_sub_serve_session(bw_broker *b, bw_session *session)
{
    for (bw_sub *s = session->subs, *next; s; s = next) {
        next = s->session_next;
        if (!s->blocked) continue;
        bw_part *p = s->part;
        push(b, s);
        bw_broker_again(b, p); /* to be armed when it is drained now */
    }
}

void bw_sub_drop_session(bw_broker *b, bw_session *session)
{
    (void)b;
    while (session->subs) sub_end(session->subs);
}

bool bw_sub_waiting(const bw_part *p, bw_wait_class cls)
{
    for (const bw_sub *s = p->subs; s; s = s->part_next)
        if (s->credit > 0 && !s->blocked && bw_limit_wait_class(s->limit) == cls) return true;
    return false;
}

static int64_t add_credit(int64_t credit, uint64_t more)
{
    int64_t sum;
    if (more > INT64_MAX || __builtin_add_overflow(credit, (int64_t)more, &sum)) return INT64_MAX;
    return sum;
}

static bw_err subscribe(bw_broker *b, bw_op *op, bw_sub **out)
{
    const bw_request *r = &op->request;
    bw_part *p;
    size_t count = 0;
    for (bw_sub *s = op->session->subs; s; s = s->session_next) count++;
    if (count >= SUBS_MAX) return bw_fail(BW_ERR_BUSY, "a connection has at most %d subscriptions", SUBS_MAX);
    if (find(op->session, r->subscription)) return bw_fail(BW_ERR_INVALID_ARGUMENT, "subscription %u is in use in this connection", r->subscription);
    if (r->isolation != BW_READ_UNCOMMITTED && r->isolation != BW_READ_COMMITTED)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "isolation = %d; allowed: 0 read uncommitted, 1 read committed", r->isolation);
    bw_err e = bw_fetch_limit_check(op);
    if (!e) e = bw_part_of(b, r->topic, r->partition, false, &p);
    if (e) return e;
    bw_sub *s = calloc(1, sizeof *s);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a subscription");
    *s = (bw_sub){.session = op->session, .part = p, .id = r->subscription, .limit = bw_fetch_limit(p, r->read_limit),
                  .credit = add_credit(0, r->credit), .most = op->session->peer.remote ? RUN_FIRST_BYTES : RUN_BYTES};
    if ((e = bw_part_open_reader(b, p, r->read_limit, r->isolation == BW_READ_COMMITTED, &s->reader))) {
        free(s);
        return e;
    }
    *out = s;
    return BW_OK;
}

void bw_handle_subscribe(bw_broker *b, bw_op *op)
{
    bw_sub *s = NULL;
    bw_err e = subscribe(b, op, &s);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.offset = bw_resolve_offset(s->part, op->request.offset, s->limit);
    bw_part_range(s->part, &a.log_start, &a.end, &a.durable);
    bw_reader_seek(s->reader, a.offset);
    s->session_next = op->session->subs;
    if (s->session_next) s->session_next->session_prev = s;
    op->session->subs = s;
    s->part_next = s->part->subs;
    if (s->part_next) s->part_next->part_prev = s;
    s->part->subs = s;
    bw_op_reply(op, &a); /* before its first DATA */
    bw_broker_again(b, s->part);
    bw_op_finish(op, NULL);
}

/* One way: a subscription that has just ended is no error. */
void bw_handle_credit(bw_broker *b, bw_op *op)
{
    bw_sub *s = find(op->session, op->request.subscription);
    if (s) {
        bw_part *p = s->part;
        s->credit = add_credit(s->credit, op->request.credit);
        if (!s->blocked) push(b, s);
        bw_broker_again(b, p);
    }
    bw_op_finish(op, NULL);
}

void bw_handle_unsubscribe(bw_broker *b, bw_op *op)
{
    bw_sub *s = find(op->session, op->request.subscription);
    bw_opener_withdraw(b, op->session, op->request.subscription);
    if (s) sub_end(s);
    bw_op_ok(op);
}
