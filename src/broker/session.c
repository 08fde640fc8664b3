/* broker/session.c: connections, and how answers leave.
 *
 * Life of a session: the listener opens it (any thread); requests, then one close, come as events in order; when the close was
 * handled and no request or job of it is under way any more, `gone` is called, once, and it is freed. `consumed` comes exactly
 * once for each request, before `gone`. After the close nothing is sent. */
#include "broker/groups.h"
#include "broker/links.h"
#include "broker/offsets.h"
#include "broker/txn.h"
#include "broker/quota_admit.h"

#include "base/os.h"

#include <stdio.h>
#include <stdlib.h>

/* One piece of memory for a request and the event that brings it. */
typedef struct bw_event_with_op {
    bw_event event;
    bw_op op;
} bw_event_with_op;

bw_session *bw_broker_session_open(bw_broker *b, const bw_session_ops *ops, void *listener_session, const bw_peer *peer)
{
    bw_session *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->broker = b;
    s->ops = ops;
    s->listener = listener_session;
    s->peer = *peer;
    s->refs = 1;
    s->pid_fd = -1;
    s->since_wall_ms = bw_clock_wall_ms();
    atomic_store(&b->idle_since_ms, 0);
    s->open_event = (bw_event){.kind = BW_EVENT_OPENED, .session = s};
    bw_broker_push(b, &s->open_event);
    return s;
}

void bw_broker_submit(bw_broker *b, bw_session *s, const bw_request *request, void *token)
{
    bw_event_with_op *both = malloc(sizeof *both);
    if (!both) { /* as if the peer had gone: nothing can be answered */
        bw_request moved = *request;
        bw_request_fini(&moved);
        s->ops->consumed(s->listener, token);
        return;
    }
    both->op = (bw_op){.session = s, .request = *request, .token = token};
    both->event = (bw_event){.kind = BW_EVENT_REQUEST, .session = s, .op = &both->op};
    bw_broker_push(b, &both->event);
}

void bw_broker_writable(bw_broker *b, bw_session *s)
{
    if (atomic_exchange(&s->writable_queued, true)) return;
    s->writable_event = (bw_event){.kind = BW_EVENT_WRITABLE, .session = s};
    bw_broker_push(b, &s->writable_event);
}

void bw_broker_session_closed(bw_broker *b, bw_session *s)
{
    s->close_event = (bw_event){.kind = BW_EVENT_CLOSED, .session = s};
    bw_broker_push(b, &s->close_event);
}

bw_role bw_session_role(const bw_session *s) { return s->role; }

int64_t bw_broker_idle_ms(bw_broker *b)
{
    int64_t since = atomic_load(&b->idle_since_ms);
    return since ? bw_clock_mono_ms() - since : 0;
}

/* ---- broker thread ---- */

void bw_session_ref(bw_session *s) { s->refs++; }

void bw_session_unref(bw_session *s)
{
    if (--s->refs) return;
    if (s->pid_fd >= 0) bw_os_close(s->pid_fd);
    s->ops->gone(s->listener);
    free(s);
}

/* One more than may be: it learns so from the answer to its first request, behind which it is closed. */
static bool is_over_limit(const bw_broker *b, const bw_session *opened)
{
    uint64_t all = 0, same = 0, most = (uint64_t)b->config.max_connections, most_same = (uint64_t)b->config.max_connections_per_uid;
    if (!most && !most_same) return false;
    for (const bw_session *s = b->sessions; s; s = s->next) {
        all += !s->over_limit;
        same += !s->over_limit && s->peer.uid == opened->peer.uid && s->peer.uid >= 0;
    }
    return (most && all >= most) || (most_same && same >= most_same);
}

static void session_opened(bw_broker *b, bw_session *s)
{
    s->over_limit = is_over_limit(b, s);
    s->number = ++b->next_session;
    s->role = bw_broker_role_of(b, &s->peer);
    if (s->peer.remote) snprintf(s->user, sizeof s->user, "%.63s", s->peer.subject);
    s->next = b->sessions;
    if (s->next) s->next->prev = s;
    b->sessions = s;
    b->session_count++;
    atomic_store(&b->idle_since_ms, 0);
    char address[300];
    bw_broker_event(b, BW_LOG_DEBUG, "connected", "session=%llu peer=%s uid=%lld pid=%d", (unsigned long long)s->number,
                    bw_event_text(s->peer.address, address, sizeof address), (long long)s->peer.uid, (int)s->peer.pid);
}

static void session_closed(bw_broker *b, bw_session *s)
{
    if (s->closed) return;
    s->closed = true;
    bw_sub_drop_session(b, s);
    if (s->linking) bw_link_drop_session(b, s);
    bw_fetch_drop_session(b, s);
    bw_produce_drop_session(b, s);
    bw_groups_session_closed(b, s);
    bw_offsets_drop_session(b, s);
    bw_queue_drop_session(b, s);
    bw_quota_session_closed(b, s);
    bw_attach_session_closed(b, s);
    if (s->prev) s->prev->next = s->next;
    else b->sessions = s->next;
    if (s->next) s->next->prev = s->prev;
    if (!--b->session_count) atomic_store(&b->idle_since_ms, bw_clock_mono_ms());
    bw_broker_event(b, BW_LOG_DEBUG, "disconnected", "session=%llu", (unsigned long long)s->number);
    bw_session_unref(s);
}

void bw_session_writable(bw_broker *b, bw_session *s)
{
    if (s->closed) return;
    bw_fetch_serve_session(b, s);
    bw_sub_serve_session(b, s);
    if (s->linking) bw_link_streams_serve_session(b, s);
}

void bw_session_dispatch(bw_broker *b, bw_event *e)
{
    bool joins = e->kind == BW_EVENT_REQUEST && (e->op->request.type == BW_API_PRODUCE || e->op->request.type == BW_API_END_TXN);
    if (!joins) bw_produce_flush(b);
    switch (e->kind) {
    case BW_EVENT_OPENED: session_opened(b, e->session); break;
    case BW_EVENT_REQUEST:
        e->session->requests++;
        bw_session_ref(e->session);
        if (e->session->closed) bw_op_finish(e->op, NULL);
        else bw_broker_handle(b, e->op);
        break;
    case BW_EVENT_WRITABLE:
        atomic_store(&e->session->writable_queued, false);
        bw_session_writable(b, e->session);
        break;
    case BW_EVENT_CLOSED: session_closed(b, e->session); break;
    case BW_EVENT_JOB_DONE: e->job->done(b, e->job); break;
    case BW_EVENT_PART_OPENED:
        bw_offsets_part_opened(b, e->part);
        if (e->part->queues) bw_broker_again(b, e->part);
        bw_txn_part_opened(b, e->part);
        bw_opener_release(b, e->part);
        break;
    case BW_EVENT_COMMITTED: bw_committer_done(b, e->commit); break;
    }
}

void bw_op_reply(bw_op *op, bw_answer *a)
{
    bw_session *s = op->session;
    if (s->closed) return;
    a->type = op->request.type;
    a->correlation = op->request.correlation;
    s->sent_bytes += a->payload_len;
    bw_quota_sent(s, op, a);
    s->ops->reply(s->listener, a);
}

void bw_op_finish(bw_op *op, bw_answer *a)
{
    if (a) bw_op_reply(op, a);
    bw_session *s = op->session;
    s->ops->consumed(s->listener, op->token);
    bw_request_fini(&op->request);
    free((char *)op - offsetof(bw_event_with_op, op));
    bw_session_unref(s);
}

void bw_op_fail(bw_op *op, bw_err e)
{
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.error = (int32_t)e;
    a.message = bw_str_of(bw_error_message());
    bw_op_finish(op, &a);
}

void bw_op_ok(bw_op *op)
{
    bw_answer a;
    bw_answer_init(&a, &op->request);
    bw_op_finish(op, &a);
}
