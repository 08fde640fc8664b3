/* client/consumer_group_commit.c: committing offsets. See consumer_group.h.
 *
 * Each commit is one request, sent in the order of the calls. One whose answer got lost with the connection, or that was sent with the
 * epoch before a rebalance (STALE_MEMBER_EPOCH), is sent again: the same offsets twice are the same. What must not be asked for again is
 * left out: consumer_group_again.c. */
#include "base/killpoint.h"
#include "client/consumer_group.h"

#include "client/backend.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { FEW_PARTS = 16, PUMP_EVERY = 64 };

/* ---- making ---- */

static bw_err check_part(const bw_topic_partition *p)
{
    if (!p->topic || strlen(p->topic) > BW_TOPIC_NAME_MAX || p->partition < 0)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "an offset to commit names no topic, or no partition");
    if (p->offset < 0)
        return bw_fail(BW_ERR_INVALID_COMMIT_OFFSET, "topic %s partition %d: offset %lld can't be committed", p->topic, p->partition,
                       (long long)p->offset);
    return BW_OK;
}

/* A copy of what is to be committed, at the end of the list. */
static bw_err commit_make(bw_cgroup *g, const bw_topic_partition *parts, size_t count, bw_commit **out)
{
    if (count == 0 || count > BW_COMMIT_PARTS_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "%zu partitions in one commit; at least 1, at most %d", count, BW_COMMIT_PARTS_MAX);
    size_t text = 0;
    for (size_t i = 0; i < count; i++) {
        bw_err e = check_part(&parts[i]);
        if (e) return e;
        text += strlen(parts[i].topic) + 1 + (parts[i].metadata ? strlen(parts[i].metadata) + 1 : 0);
    }
    size_t part_bytes = count * sizeof(bw_topic_partition), id_bytes = count * sizeof(bw_uuid);
    bw_commit *k = malloc(sizeof *k + part_bytes + id_bytes + count + text);
    if (!k) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a commit of %zu partitions", count);
    memset(k, 0, sizeof *k);
    k->group = g;
    k->count = count;
    k->ids = (bw_uuid *)(void *)(k->parts + count);
    k->skip = (bool *)(void *)(k->ids + count);
    memset(k->ids, 0, id_bytes + count);
    char *at = (char *)(k->skip + count);
    for (size_t i = 0; i < count; i++) {
        k->parts[i] = parts[i];
        k->parts[i].error = BW_OK;
        k->parts[i].topic = at;
        at = stpcpy(at, parts[i].topic) + 1;
        if (!parts[i].metadata) continue;
        k->parts[i].metadata = at;
        at = stpcpy(at, parts[i].metadata) + 1;
    }
    *g->commits_tail = k;
    g->commits_tail = &k->next;
    g->commit_count++;
    g->unsent++;
    *out = k;
    return BW_OK;
}

static void commit_unlink(bw_cgroup *g, bw_commit *k)
{
    bw_commit **at = &g->commits;
    while (*at != k) at = &(*at)->next;
    *at = k->next;
    if (!k->next) g->commits_tail = at;
    g->commit_count--;
    if (k->state == BW_COMMIT_SENT) g->in_flight--;
    if (k->state == BW_COMMIT_QUEUED) g->unsent--;
    if (g->auto_commit == k) g->auto_commit = NULL;
    if (!g->followed) return;
    for (bw_commit *other = g->commits; other != k->next; other = other->next) { /* who follows it came before it */
        if (other->follow != k) continue;
        other->follow = NULL;
        if (!other->error) other->error = k->error;
    }
}

static void commit_free(bw_commit *k)
{
    free(k->message);
    free(k);
}

static void finish(bw_commit *k, bw_err e, const char *message, size_t len)
{
    if (k->state == BW_COMMIT_QUEUED) k->group->unsent--;
    if (k->state == BW_COMMIT_SENT) k->group->in_flight--;
    k->state = BW_COMMIT_DONE;
    k->error = e;
    free(k->message);
    k->message = e && len ? bw_text_copy(message, len) : NULL;
}

static void queue_again(bw_commit *k)
{
    k->state = BW_COMMIT_QUEUED;
    k->group->in_flight--;
    k->group->unsent++;
    k->group->due_ms = 0;
}

/* ---- answers ---- */

/* The outcome of each partition; the first error is the commit's. */
static void take_parts(bw_commit *k, const bw_answer *a)
{
    size_t at = 0;
    const bw_offset_part *worst = NULL;
    for (size_t i = 0; i < k->count && at < a->group.part_count; i++) {
        const bw_offset_part *p = &a->group.parts[at];
        if (k->skip[i]) continue;
        at++;
        k->parts[i].error = (bw_err)p->error;
        if (p->error && !worst) worst = p;
    }
    if (worst) finish(k, (bw_err)worst->error, worst->message.data, worst->message.len);
    else finish(k, BW_OK, NULL, 0);
}

static void take_error(bw_commit *k, const bw_answer *a)
{
    bw_cgroup *g = k->group;
    bw_err e = (bw_err)a->error;
    if (e == BW_ERR_STALE_MEMBER_EPOCH && k->epoch >= 0 && g->epoch > k->epoch) { /* a rebalance went past it */
        queue_again(k);
        return;
    }
    for (size_t i = 0; i < k->count; i++) k->parts[i].error = e;
    finish(k, e, a->message.data, a->message.len);
    if (!bw_group_is_fence(e) || k->epoch < 0 || g->state != BW_MEMBER_IN) return;
    if (e == BW_ERR_UNKNOWN_MEMBER_ID || e == BW_ERR_FENCED_INSTANCE_ID) bw_group_fence(g, e, k->message);
    else bw_group_doubt_lease(g); /* the partition may have been given up, or everything be lost */
}

static void answered(bw_pending *pending, bw_err e, const bw_frame *frame)
{
    bw_commit *k = (bw_commit *)pending;
    bw_answer a;
    memset(&a, 0, sizeof a);
    if (e) {
        queue_again(k);
        return;
    }
    e = bw_answer_decode(frame, &a);
    if (!e && a.type != BW_API_OFFSET_COMMIT) e = bw_fail(BW_ERR_PROTOCOL, "OFFSET_COMMIT was answered with message type %u", a.type);
    if (e) finish(k, e, bw_error_message(), strlen(bw_error_message()));
    else if (a.error) take_error(k, &a);
    else take_parts(k, &a);
    bw_answer_fini(&a);
}

/* ---- sending ---- */

static void fill_request(bw_commit *k, bw_request *q, bw_offset_part *parts)
{
    bw_cgroup *g = k->group;
    bw_request_init(q, BW_API_OFFSET_COMMIT);
    q->group.id = bw_str_of(g->id);
    k->epoch = -1;
    if (g->state == BW_MEMBER_IN) {
        k->epoch = g->epoch;
        q->group.member = bw_str_of(g->member);
        q->group.instance = bw_str_of(g->instance);
    }
    q->group.epoch = k->epoch;
    q->group.durable = g->durable;
    q->group.parts = parts;
    for (size_t i = 0; i < k->count; i++) {
        const bw_topic_partition *p = &k->parts[i];
        if (k->skip[i]) continue;
        parts[q->group.part_count++] = (bw_offset_part){.topic = bw_str_of(p->topic), .partition = p->partition, .offset = p->offset,
            .leader_epoch = p->leader_epoch, .metadata = bw_str_of(p->metadata), .topic_id = k->ids[i], .timestamp = -1};
    }
}

static bw_err send_one(bw_commit *k)
{
    bw_cgroup *g = k->group;
    bw_conn *conn = &g->consumer->conn;
    bw_offset_part few[FEW_PARTS], *parts = few;
    if (k->count > FEW_PARTS && !(parts = malloc(k->count * sizeof *parts))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a commit");
    bw_request q;
    bw_buf frame = {0};
    fill_request(k, &q, parts);
    bw_err e = BW_OK;
    if (q.group.part_count == 0) {
        finish(k, BW_OK, NULL, 0); /* nothing of it is left to be asked */
    } else {
        q.correlation = k->pending.correlation = bw_conn_correlate(conn);
        k->pending.done = answered;
        e = bw_request_encode(&q, &frame, false);
        if (!e) e = bw_conn_submit(conn, &k->pending, &frame, NULL, 0);
        if (e == BW_ERR_NOT_CONNECTED || e == BW_ERR_NO_MEMORY) {
            k->pending.correlation = 0;
        } else if (e) {
            finish(k, e, bw_error_message(), strlen(bw_error_message()));
            e = BW_OK;
        } else {
            BW_KILL_POINT("member.committing");
            k->state = BW_COMMIT_SENT;
            k->sent_once = true;
            g->unsent--;
            g->in_flight++;
        }
    }
    bw_buf_free(&frame);
    if (parts != few) free(parts);
    return e;
}

void bw_group_send_commits(bw_cgroup *g)
{
    if (g->unsent == 0 || !g->consumer->has_conn || !bw_conn_is_up(&g->consumer->conn) || !bw_group_may_commit(g)) return;
    bool again = false;
    for (bw_commit *k = g->commits; k && !again; k = k->next) again = k->state == BW_COMMIT_QUEUED && k->sent_once;
    if (again && bw_group_thin_out(g) != BW_OK) return;
    uint32_t left = g->unsent;
    for (bw_commit *k = g->commits; k && left; k = k->next) {
        if (k->state != BW_COMMIT_QUEUED) continue;
        left--;
        if (send_one(k) != BW_OK) return;
    }
}

/* ---- outcomes ---- */

/* The one whose outcome is k's: a later one that k was left out for may itself have been left out for one later still. */
static const bw_commit *decider(const bw_commit *k)
{
    while (k->state == BW_COMMIT_DONE && !k->error && k->follow) k = k->follow;
    return k;
}

static bw_err outcome(const bw_commit *k, const bw_commit **of)
{
    *of = decider(k);
    bw_err e = (*of)->error;
    for (size_t i = 0; i < k->count && !e; i++) e = k->parts[i].error;
    return e;
}

static bool is_told(const bw_commit *k) { return decider(k)->state == BW_COMMIT_DONE; }

static bw_err say(const bw_commit *k)
{
    const bw_commit *of;
    bw_err e = outcome(k, &of);
    if (!e) return BW_OK;
    if (e == BW_ERR_REBALANCE_IN_PROGRESS && !of->message)
        return bw_fail(e, "the partition was given up before the commit could be asked for again");
    return bw_fail(e, "%s", of->message ? of->message : bw_err_text(e));
}

/* What failed is committed with the next commit by interval. */
static void note_failure(bw_cgroup *g, const bw_commit *k)
{
    for (size_t i = 0; i < k->count; i++) {
        bw_cpart *p = bw_consumer_find(g->consumer, k->parts[i].topic, k->parts[i].partition);
        if (p) p->committed = -1;
    }
    if (k->automatic) bw_bus_log(g->consumer->bus, BW_LOG_WARN, "group %s: a commit of positions failed: %s", g->id, bw_error_message());
}

void bw_group_tell_commits(bw_cgroup *g)
{
    while (!g->calling && g->commits && is_told(g->commits) && !g->commits->waited_for) {
        bw_commit *k = g->commits;
        bw_err e = say(k);
        commit_unlink(g, k);
        if (e) note_failure(g, k);
        if (k->callback) {
            g->calling = true;
            k->callback(g->consumer, e, k->parts, k->count, k->opaque);
            g->calling = false;
        }
        commit_free(k);
    }
}

void bw_group_fail_commits(bw_cgroup *g, bw_err e, const char *message)
{
    for (bw_commit *k = g->commits; k; k = k->next) {
        if (k->state == BW_COMMIT_DONE) continue;
        if (k->state == BW_COMMIT_SENT && k->pending.correlation != 0) continue; /* its own answer comes, or the connection ends */
        for (size_t i = 0; i < k->count; i++) k->parts[i].error = e;
        finish(k, e, message, message ? strlen(message) : 0);
    }
}

/* ---- waiting ---- */

typedef struct waits_for { bw_cgroup *group; bw_commit *commit; } waits_for;

static bool has_outcome(void *opaque)
{
    waits_for *w = opaque;
    bw_cgroup *g = w->group;
    if (w->commit ? is_told(w->commit) : g->in_flight == 0 && g->unsent == 0) return true;
    return g->state == BW_MEMBER_WANTS || (g->unsent && (bw_group_may_commit(g) || g->state == BW_MEMBER_FENCED)); /* to be done first */
}

static bool is_over(const waits_for *w)
{
    return w->commit ? is_told(w->commit) : w->group->in_flight == 0 && w->group->unsent == 0;
}

static bw_err wait_for(bw_cgroup *g, bw_commit *k, bw_deadline deadline)
{
    waits_for w = {g, k};
    while (!is_over(&w)) {
        bw_err e = bw_group_advance_until(g, deadline);
        if (g->state == BW_MEMBER_FENCED) bw_group_fail_commits(g, g->fenced, g->reason);
        if (is_over(&w)) break;
        if (!e && g->state != BW_MEMBER_WANTS) e = bw_conn_wait(&g->consumer->conn, has_outcome, &w, -1, deadline);
        else nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        if (!is_over(&w) && bw_deadline_left_ns(deadline) == 0)
            return bw_fail(BW_ERR_TIMED_OUT, "group %s: no answer to a commit in time; its outcome is not known", g->id);
    }
    return BW_OK;
}

bw_err bw_group_settle(bw_cgroup *g, bw_deadline deadline) { return wait_for(g, NULL, deadline); }

/* Nobody waits for it any more. */
static void abandon(bw_cgroup *g, bw_commit *k)
{
    if (k->state == BW_COMMIT_SENT) bw_conn_cancel(&g->consumer->conn, &k->pending);
    commit_unlink(g, k);
    commit_free(k);
}

/* ---- the calls ---- */

bw_err bw_group_check(bw_consumer *c)
{
    if (!c) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no consumer");
    BW_CHECK_FORK(c->bus);
    if (c->foreign) return BW_OK;
    if (!c->group) return bw_fail(BW_ERR_INVALID_ARGUMENT, "commits are a group's: open the consumer with a group_id");
    return bw_consumer_ensure_conn(c);
}

static bw_err check_may_commit(bw_consumer *c)
{
    bw_err e = bw_group_check(c);
    if (e || c->foreign || c->group->state != BW_MEMBER_FENCED) return e;
    return bw_fail(c->group->fenced, "%s", c->group->reason ? c->group->reason : bw_err_text(c->group->fenced));
}

static bw_err commit_given(bw_cgroup *g, const bw_topic_partition *parts, size_t count, bw_commit **out)
{
    if (g->state != BW_MEMBER_OUT && g->epoch < 0)
        return bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s: this consumer is no member at the moment; poll until it has joined", g->id);
    bw_err e = commit_make(g, parts, count, out);
    for (size_t i = 0; i < count && !e; i++) {
        const bw_cpart *p = bw_consumer_find(g->consumer, parts[i].topic, parts[i].partition);
        if (p) (*out)->ids[i] = p->topic_id;
    }
    return e;
}

/* Positions of all parts (parts NULL) or of these; `moved`: of those that were not committed yet. */
static bw_err commit_positions(bw_cgroup *g, bw_cpart *const *parts, size_t count, bool moved, bw_commit **out)
{
    bw_consumer *c = g->consumer;
    size_t n = 0, cap = 0;
    *out = NULL;
    if (parts) cap = count;
    else for (bw_cpart *p = c->parts; p; p = p->next_part) cap++;
    if (cap == 0) return BW_OK;
    bw_topic_partition *list = malloc(cap * sizeof *list);
    bw_cpart **which = malloc(cap * sizeof *which);
    if (!list || !which) {
        free(list);
        free(which);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a commit of %zu partitions", cap);
    }
    bw_cpart *p = parts ? NULL : c->parts;
    for (size_t i = 0; i < cap; i++) {
        bw_cpart *this = parts ? parts[i] : p;
        if (!parts) p = p->next_part;
        if (this->wanting || this->position < 0 || (moved && this->position == this->committed)) continue;
        list[n] = (bw_topic_partition){.topic = this->topic, .partition = this->partition, .offset = this->position,
                                       .leader_epoch = this->leader_epoch};
        which[n++] = this;
    }
    bw_err e = n ? commit_make(g, list, n, out) : BW_OK;
    for (size_t i = 0; i < n && !e; i++) {
        (*out)->ids[i] = which[i]->topic_id;
        which[i]->committed = which[i]->position;
    }
    free(list);
    free(which);
    return e;
}

bw_err bw_group_commit_positions(bw_cgroup *g, bw_cpart *const *parts, size_t count, bw_commit **out)
{
    bw_commit *k;
    bw_err e = commit_positions(g, parts, count, true, &k);
    if (out) *out = k;
    if (e || !k) return e;
    k->automatic = true;
    bw_group_send_commits(g);
    return BW_OK;
}

bw_err bw_consumer_commit(bw_consumer *c, bw_topic_partition *parts, size_t count, int32_t timeout_ms)
{
    bw_err e = check_may_commit(c);
    if (e) return e;
    BW_DISPATCH(c->bus, commit(c, parts, count, timeout_ms));
    bw_cgroup *g = c->group;
    bw_commit *k = NULL;
    e = parts ? commit_given(g, parts, count, &k) : commit_positions(g, NULL, 0, false, &k);
    if (e || !k) return e;
    k->waited_for = true;
    bw_group_send_commits(g);
    e = wait_for(g, k, bw_deadline_in_ms(timeout_ms));
    if (e) {
        abandon(g, k);
        return e;
    }
    for (size_t i = 0; parts && i < count; i++) parts[i].error = k->parts[i].error;
    bw_group_tell_commits(g); /* of those before it */
    e = say(k);
    if (e) note_failure(g, k);
    commit_unlink(g, k);
    commit_free(k);
    return e;
}

bw_err bw_consumer_commit_async(bw_consumer *c, const bw_topic_partition *parts, size_t count, bw_commit_fn callback, void *opaque)
{
    bw_err e = check_may_commit(c);
    if (e) return e;
    BW_DISPATCH(c->bus, commit_async(c, parts, count, callback, opaque));
    bw_cgroup *g = c->group;
    if (g->commit_count >= BW_COMMITS_MAX)
        return bw_fail(BW_ERR_QUEUE_FULL, "group %s: %u commits are on their way; poll, so that their answers are read", g->id, g->commit_count);
    bw_commit *k = NULL;
    e = parts ? commit_given(g, parts, count, &k) : commit_positions(g, NULL, 0, false, &k);
    if (e || !k) return e;
    k->callback = callback;
    k->opaque = opaque;
    if (!bw_conn_is_up(&c->conn)) bw_group_advance(g);
    bw_group_send_commits(g);
    if (g->in_flight && g->in_flight % PUMP_EVERY == 0) bw_conn_try_pump(&c->conn, -1, 0); /* the answers need not pile up in the socket */
    if (g->due_ms != 0) g->due_ms = bw_clock_coarse_ms() + 1;
    return BW_OK;
}
