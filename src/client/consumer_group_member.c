/* client/consumer_group_member.c: acting on what arrived: assignments, and all that is due between two batches. See consumer_group.h.
 *
 * Giving up a partition, in this order, so that its next owner starts behind what was processed: commit its position, let the program
 * commit, wait until the commits have their outcome, stop reading, and only then say that it is not owned any more. If the connection is
 * lost on the way, what has no outcome is not asked for again: the next owner may have begun. */
#include "base/killpoint.h"
#include "client/consumer_group.h"

#include <stdlib.h>
#include <string.h>

enum {
    LOOK_MS = 1000,        /* at a socket that rings us */
    LOOK_IPC_MS = 5,       /* at one that does not, while there are records to give */
    OPEN_AGAIN_MS = 20,
    SETTLE_MS = 5000,
};

static void owe_look(bw_cgroup *g) { g->due_ms = 0; }

/* ---- assignments ---- */

typedef struct change {
    bw_cpart **revoked, **added;
    size_t revoked_count, added_count;
} change;

static int by_name(const char *a, size_t a_len, int32_t a_part, const char *b, size_t b_len, int32_t b_part)
{
    int d = memcmp(a, b, a_len < b_len ? a_len : b_len);
    if (d == 0) d = a_len < b_len ? -1 : a_len > b_len;
    return d ? d : (a_part > b_part) - (a_part < b_part);
}

static int compare_offered(const void *a, const void *b)
{
    const bw_offset_part *x = a, *y = b;
    return by_name(x->topic.data, x->topic.len, x->partition, y->topic.data, y->topic.len, y->partition);
}

static int compare_owned(const void *a, const void *b)
{
    const bw_cpart *x = *(bw_cpart *const *)a, *y = *(bw_cpart *const *)b;
    return by_name(x->topic, strlen(x->topic), x->partition, y->topic, strlen(y->topic), y->partition);
}

static bool same_life(const bw_uuid *a, const bw_uuid *b)
{
    static const bw_uuid none;
    return bw_uuid_equal(a, b) || bw_uuid_equal(a, &none) || bw_uuid_equal(b, &none);
}

/* A partition that is new to us: where it starts. */
static bw_cpart *take_on(bw_cgroup *g, const bw_offset_part *offered)
{
    char topic[BW_TOPIC_NAME_MAX + 1];
    memcpy(topic, offered->topic.data, offered->topic.len);
    topic[offered->topic.len] = 0;
    bw_cpart *p = bw_cpart_create(g->consumer, topic, offered->partition);
    if (!p) return NULL;
    p->topic_id = offered->topic_id;
    p->committed = offered->offset >= 0 ? offered->offset : -1;
    p->position = offered->offset;
    if (offered->error) { /* what is committed can't be used: never begin elsewhere in silence */
        p->position = BW_OFFSET_INVALID;
        p->stopped = true;
        p->untold = (bw_err)offered->error;
        p->trouble = offered->message.len ? bw_text_copy(offered->message.data, offered->message.len) : NULL;
        g->untold = true;
        return p;
    }
    p->wanting = g->wanting = true;
    if (offered->offset >= 0) return p;
    bw_offset_reset reset = g->consumer->options.auto_offset_reset;
    p->position = reset == BW_RESET_EARLIEST ? BW_OFFSET_BEGINNING : BW_OFFSET_END;
    if (reset != BW_RESET_ERROR) return p;
    p->position = BW_OFFSET_INVALID;
    p->wanting = false;
    p->stopped = true;
    p->untold = BW_ERR_NO_OFFSET;
    g->untold = true;
    return p;
}

/* What is given up, and (created) what is new. An offered one whose topic had another life is both. */
static bw_err compare_lists(bw_cgroup *g, bw_answer *a, change *out)
{
    bw_consumer *c = g->consumer;
    size_t owned = 0, n = a->group.part_count;
    for (bw_cpart *p = c->parts; p; p = p->next_part) owned++;
    bw_cpart **mine = malloc((owned + 1) * sizeof *mine);
    out->revoked = malloc((owned + 1) * sizeof *out->revoked);
    out->added = malloc((n + 1) * sizeof *out->added);
    if (!mine || !out->revoked || !out->added) {
        free(mine);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for an assignment of %zu partitions", n);
    }
    size_t at = 0;
    for (bw_cpart *p = c->parts; p; p = p->next_part) mine[at++] = p;
    qsort(mine, owned, sizeof *mine, compare_owned);
    if (n) qsort(a->group.parts, n, sizeof *a->group.parts, compare_offered);
    bw_err e = BW_OK;
    size_t i = 0, j = 0;
    while ((i < owned || j < n) && !e) {
        const bw_offset_part *offered = j < n ? &a->group.parts[j] : NULL;
        int d = !offered ? -1 : i == owned ? 1 :
                by_name(mine[i]->topic, strlen(mine[i]->topic), mine[i]->partition, offered->topic.data, offered->topic.len, offered->partition);
        bool keeps = d == 0 && same_life(&mine[i]->topic_id, &offered->topic_id);
        bool wrong = d >= 0 && (offered->topic.len == 0 || offered->topic.len > BW_TOPIC_NAME_MAX || offered->partition < 0);
        if (d <= 0 && !keeps) out->revoked[out->revoked_count++] = mine[i];
        if (d >= 0 && !keeps && !wrong && !(out->added[out->added_count] = take_on(g, offered))) e = BW_ERR_NO_MEMORY;
        else if (d >= 0 && !keeps && !wrong) out->added_count++;
        i += d <= 0;
        j += d >= 0;
    }
    free(mine);
    return e ? bw_fail(e, "no memory for an assignment of %zu partitions", n) : BW_OK;
}

static void give_up(bw_cgroup *g, change *ch)
{
    g->releasing = true;
    g->beat.owned = false; /* one that is on its way said what we had before this: its answer does not end it */
    if (g->wants_auto_commit) bw_group_commit_positions(g, ch->revoked, ch->revoked_count, NULL);
    bw_group_tell(g, BW_REBALANCE_REVOKED, ch->revoked, ch->revoked_count);
    BW_KILL_POINT("member.revoked");
    uint32_t epoch = g->conn_epoch;
    int32_t most = g->consumer->options.rebalance_timeout_ms;
    if (g->state != BW_MEMBER_FENCED) bw_group_settle(g, bw_deadline_in_ms(most < SETTLE_MS ? most : SETTLE_MS));
    bw_group_note_connection(g);
    if (g->conn_epoch != epoch || !bw_conn_is_up(&g->consumer->conn))
        bw_group_fail_commits(g, BW_ERR_NOT_CONNECTED, "the connection to the daemon was lost while partitions were given up");
    BW_KILL_POINT("member.settled");
    for (size_t i = 0; i < ch->revoked_count; i++) bw_cpart_remove(ch->revoked[i]);
    BW_KILL_POINT("member.released");
}

static void open_wanting(bw_cgroup *g)
{
    g->wanting = false;
    for (bw_cpart *p = g->consumer->parts; p; p = p->next_part) {
        if (!p->wanting) continue;
        bw_err e = bw_cpart_open(p, p->position);
        p->wanting = e != BW_OK;
        if (!e) continue;
        if (bw_err_is_retriable(e)) {
            g->wanting = true;
            if (!bw_conn_is_up(&g->consumer->conn) || e == BW_ERR_NO_COORDINATOR) return;
            continue;
        }
        p->wanting = false;
        p->stopped = true;
        p->untold = e == BW_ERR_UNKNOWN_TOPIC ? BW_ERR_DELETED : e;
        g->untold = true;
        free(p->trouble);
        p->trouble = strdup(bw_error_message());
    }
}

/* The offsets of an assignment that was made while we gave something up: what is committed now counts. */
static bw_err refresh_offsets(bw_cgroup *g, bw_answer *a)
{
    bw_request q;
    bw_reply reply;
    bw_request_init(&q, BW_API_OFFSET_FETCH);
    q.group.id = bw_str_of(g->id);
    q.group.parts = a->group.parts;
    q.group.part_count = a->group.part_count;
    if (q.group.part_count == 0) return BW_OK;
    bw_err e = bw_conn_request(&g->consumer->conn, &q, bw_deadline_in_ms(SETTLE_MS), &reply);
    if (!e && reply.answer.group.part_count != q.group.part_count) e = bw_fail(BW_ERR_PROTOCOL, "OFFSET_FETCH was answered with other partitions");
    for (size_t i = 0; !e && i < q.group.part_count; i++) {
        const bw_offset_part *p = &reply.answer.group.parts[i];
        a->group.parts[i].offset = p->error ? -1 : p->offset;
    }
    bw_reply_fini(&reply);
    if (e) bw_conn_drop(&g->consumer->conn); /* join again, and be told again */
    return e;
}

static bw_err apply(bw_cgroup *g)
{
    bw_frame frame = {.type = g->assigned_type, .flags = BW_FRAME_ANSWER, .header = g->assigned, .header_len = g->assigned_len};
    uint8_t *header = g->assigned;
    change ch = {0};
    bw_answer a;
    memset(&a, 0, sizeof a);
    if (frame.type == BW_API_GROUP_ASSIGNMENT) frame.flags = 0;
    g->assigned = NULL;
    bw_err e = bw_answer_decode(&frame, &a);
    if (!e && g->doubtful && refresh_offsets(g, &a) != BW_OK) {
        bw_answer_fini(&a);
        free(header);
        return BW_OK;
    }
    if (!e) e = compare_lists(g, &a, &ch);
    g->owed |= ch.revoked_count || ch.added_count;
    for (size_t i = 0; e && i < ch.added_count; i++) bw_cpart_remove(ch.added[i]);
    if (e && !g->assigned) g->assigned = header; /* again, when there is memory */
    else free(header);
    if (!e && ch.revoked_count) give_up(g, &ch);
    if (!e && ch.added_count) {
        open_wanting(g);
        BW_KILL_POINT("member.taken");
        if (g->state != BW_MEMBER_FENCED) bw_group_tell(g, BW_REBALANCE_ASSIGNED, ch.added, ch.added_count);
    }
    if (!e) bw_consumer_fd_update(g->consumer);
    free(ch.revoked);
    free(ch.added);
    bw_answer_fini(&a);
    return e;
}

/* ---- what poll is told ---- */

static void name_none(bw_batch *batch) { *batch = (bw_batch){.topic = NULL, .partition = -1}; }

static bw_err tell_fenced(bw_cgroup *g, bw_batch *batch)
{
    bw_consumer *c = g->consumer;
    bw_group_forget(g, batch);
    bw_consumer_fd_update(c);
    bw_err e = g->fenced;
    if (e != BW_ERR_FENCED_INSTANCE_ID) {
        g->state = BW_MEMBER_WANTS;
        g->join_at_ms = 0;
        owe_look(g);
    }
    return bw_fail(e, "group %s: %s", g->id, g->reason ? g->reason : bw_err_text(e));
}

static bw_err tell_refused(bw_cgroup *g, bw_batch *batch)
{
    bw_err e = g->refused;
    g->refused = BW_OK;
    name_none(batch);
    return bw_fail(e, "group %s: %s", g->id, g->reason ? g->reason : bw_err_text(e));
}

static bw_err tell_untold(bw_cgroup *g, bw_batch *batch)
{
    for (bw_cpart *p = g->consumer->parts; p; p = p->next_part) {
        if (!p->untold) continue;
        bw_err e = p->untold;
        p->untold = BW_OK;
        if (e == BW_ERR_NO_OFFSET) bw_fail(e, "group %s has committed nothing and auto_offset_reset is error; seek", g->id);
        else bw_fail(e, "%s", p->trouble ? p->trouble : bw_err_text(e));
        return bw_cpart_fail(p, e, true, batch);
    }
    g->untold = false;
    return BW_OK;
}

/* ---- all of it ---- */

static int64_t earlier(int64_t a, int64_t b) { return a < b ? a : b; }

/* When to look again. */
static void plan(bw_cgroup *g)
{
    bw_consumer *c = g->consumer;
    int64_t now = bw_clock_coarse_ms(), at = now + LOOK_MS;
    bool needs_conn = g->state != BW_MEMBER_OUT || g->unsent;
    if (needs_conn && !(c->has_conn && bw_conn_is_up(&c->conn))) at = earlier(at, g->conn_at_ms);
    else if (g->state == BW_MEMBER_WANTS) at = earlier(at, g->join_at_ms);
    if (g->state == BW_MEMBER_IN) at = earlier(at, g->renewed_ms + g->lease_ms / 3);
    if (g->wants_auto_commit && !g->auto_commit) at = earlier(at, g->commit_at_ms);
    if (g->wanting) at = earlier(at, now + OPEN_AGAIN_MS);
    if (g->refused || g->untold || g->state == BW_MEMBER_FENCED) at = now;
    g->alarm_ms = at > now ? at : now + 1;
    if (c->direct_count == 0 || c->ipc_count) at = earlier(at, now + LOOK_IPC_MS);
    if (g->in_flight || g->join.pending.correlation || g->beat.pending.correlation) at = now + 1;
    g->due_ms = at;
}

static bool beat_is_due(const bw_cgroup *g)
{
    if (g->owed || g->topics_changed || bw_group_mailbox(g->consumer) != g->told_mailbox) return true;
    return bw_clock_coarse_ms() - g->renewed_ms >= g->lease_ms / 3;
}

static void commit_by_interval(bw_cgroup *g)
{
    int64_t now = bw_clock_coarse_ms();
    if (!g->wants_auto_commit || g->auto_commit || g->state == BW_MEMBER_FENCED || now < g->commit_at_ms) return;
    g->commit_at_ms = now + g->consumer->options.auto_commit_interval_ms;
    bw_group_commit_positions(g, NULL, 0, &g->auto_commit);
}

static bw_err member_work(bw_cgroup *g, int32_t timeout_ms)
{
    bw_consumer *c = g->consumer;
    bw_err e = bw_group_advance(g);
    if (e && e != BW_ERR_NOT_CONNECTED) return e;
    if (g->state == BW_MEMBER_IN && bw_group_lease_is_over(g)) e = bw_group_verify_lease(g, timeout_ms);
    else e = BW_OK;
    if (e) return e;
    for (int i = 0; g->assigned && i < 4 && g->state != BW_MEMBER_FENCED; i++) e = apply(g); /* another may come on the way */
    if (e) return e;
    if (g->wanting) open_wanting(g);
    if (g->state == BW_MEMBER_IN && bw_conn_is_up(&c->conn) && beat_is_due(g)) bw_cgroup_beat(g);
    commit_by_interval(g);
    return BW_OK;
}

bw_err bw_group_work(bw_cgroup *g, int32_t timeout_ms, bw_batch *batch)
{
    bw_consumer *c = g->consumer;
    bw_mailbox *box = atomic_load_explicit(&c->box, memory_order_relaxed);
    if (box && atomic_load_explicit(&box->poked, memory_order_relaxed)) atomic_exchange(&box->poked, 0); /* before the socket is read */
    if (c->has_conn && bw_conn_is_up(&c->conn)) bw_conn_try_pump(&c->conn, -1, 0);
    bw_err e = BW_OK;
    bw_group_tell_commits(g);
    if (g->state == BW_MEMBER_OUT) {
        if (g->unsent) bw_group_advance(g);
        commit_by_interval(g);
    } else if (g->state != BW_MEMBER_FENCED) {
        e = member_work(g, timeout_ms);
    }
    bw_group_tell_commits(g);
    if (g->state == BW_MEMBER_FENCED) e = tell_fenced(g, batch);
    else if (g->refused) e = tell_refused(g, batch);
    else if (!e && g->untold) e = tell_untold(g, batch);
    else if (e && e != BW_ERR_TIMED_OUT) name_none(batch);
    plan(g);
    return e;
}

bw_deadline bw_group_until(bw_cgroup *g, bw_deadline deadline)
{
    const bw_consumer *c = g->consumer;
    bool by_futex = !(c->ipc_count || c->by_watch || c->direct_count == 0);
    int64_t left = (by_futex ? g->due_ms : g->alarm_ms) - bw_clock_coarse_ms();
    return bw_deadline_first(deadline, bw_deadline_in_ms(left > 0 ? left : 1));
}
