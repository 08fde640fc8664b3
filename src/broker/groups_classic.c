/* broker/groups_classic.c: requests of the classic protocol. What is told of a generation is told when its records are on the disk, as
 * Kafka does; what is refused is refused at once. */
#include "broker/groups_core.h"

#include <stdlib.h>

/* ---- answers ---- */

static void answer_joined(bw_op *op, const bw_group *g, const bw_joined *j)
{
    bw_answer a;
    bw_answer_init(&a, &op->request);
    bw_group_member *list = NULL;
    size_t count = 0;
    a.error = (int32_t)j->error;
    if (j->error) a.message = bw_str_of(bw_error_message());
    if (j->member_count && !(list = calloc(j->member_count, sizeof *list))) {
        bw_op_fail(op, bw_fail(BW_ERR_NO_MEMORY, "no memory for the answer"));
        return;
    }
    for (; count < j->member_count; count++) {
        const bw_member *m = j->members[count];
        list[count] = (bw_group_member){bw_str_of(m->id), bw_str_of(m->instance ? m->instance : ""), bw_member_metadata(g, m)};
    }
    a.group.member = bw_str_of(j->member);
    a.group.epoch = j->generation;
    a.group.protocol_type = bw_str_of(j->protocol_type);
    a.group.protocol = bw_str_of(j->protocol);
    a.group.leader = bw_str_of(j->leader);
    a.group.members = list;
    a.group.member_count = count;
    bw_op_finish(op, &a);
    free(list);
}

static void answer_synced(bw_op *op, const bw_group *g, const bw_member *m)
{
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.group.protocol_type = bw_str_of(g->protocol_type ? g->protocol_type : "");
    a.group.protocol = bw_str_of(g->protocol ? g->protocol : "");
    a.group.assignment = (bw_str){(const char *)m->assignment.data, m->assignment.len};
    bw_op_finish(op, &a);
}

/* A good answer waits for what gathers now or is on its way. */
static bool wait_for_save(bw_entry *e, bw_op *op, const char *member, const bw_joined *j)
{
    if (!e->gathering && !e->flying) return false;
    size_t len = strlen(member);
    bw_later *l = calloc(1, sizeof *l + len + 1);
    if (!l || (j && !(l->leader = strdup(j->leader)))) {
        free(l);
        bw_op_fail(op, bw_fail(BW_ERR_NO_MEMORY, "no memory for an answer"));
        return true;
    }
    memcpy(l->member, member, len + 1);
    l->op = op;
    l->batch = e->gathering ? e->gathering->number : e->flying->number;
    l->generation = e->g->epoch;
    l->with_members = j && j->member_count;
    *e->later_last = l;
    e->later_last = &l->next;
    return true;
}

void bw_entry_answer_joined(bw_entry *e, bw_op *op, const bw_joined *j)
{
    if (j->error || !wait_for_save(e, op, j->member, j)) answer_joined(op, e->g, j);
}

void bw_entry_answer_synced(bw_entry *e, bw_op *op, bw_err err, const bw_member *m)
{
    if (err) bw_op_fail(op, err);
    else if (!wait_for_save(e, op, m->id, NULL)) answer_synced(op, e->g, m);
}

/* It was saved; is it still so? */
static void answer_now(bw_entry *e, bw_later *l)
{
    bw_group *g = e->g;
    const bw_member *m = bw_group_with_id(g, bw_str_of(l->member));
    bool is_join = l->op->request.type == BW_API_JOIN_GROUP;
    if (!m) {
        bw_op_fail(l->op, bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s has no member %s any more: join anew", g->id, l->member));
    } else if (g->epoch != l->generation || g->state == BW_GROUP_PREPARING) {
        bw_op_fail(l->op, bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s is rebalancing: join again", g->id));
    } else if (is_join) {
        bw_joined j = {.member = m->id, .generation = g->epoch, .protocol_type = g->protocol_type ? g->protocol_type : "",
                       .protocol = g->protocol ? g->protocol : "", .leader = l->leader, .members = l->with_members ? g->members : NULL,
                       .member_count = l->with_members ? g->member_count : 0};
        answer_joined(l->op, g, &j);
    } else {
        answer_synced(l->op, g, m);
    }
}

void bw_entry_answer_later(bw_entry *e)
{
    while (e->later && e->later->batch <= e->saved) {
        bw_later *l = e->later;
        e->later = l->next;
        if (!e->later) e->later_last = &e->later;
        answer_now(e, l);
        free(l->leader);
        free(l);
    }
}

/* ---- requests ---- */

/* The connection and the process of a member that has just come. */
static void connect(bw_broker *b, bw_entry *e, bw_session *s)
{
    for (uint32_t i = 0; i < e->g->member_count; i++) {
        bw_member *m = e->g->members[i];
        if (m->user || !m->join_token || ((bw_op *)m->join_token)->session != s) continue;
        bw_link *l = bw_link_new();
        bool dead;
        if (!l) return; /* its session time-out sees to it */
        m->user = l;
        l->session = s;
        s->in_groups = true;
        if (m->process.pid) l->watch = bw_watch_get(b, &m->process, &dead);
    }
}

void bw_handle_join_group(bw_broker *b, bw_op *op)
{
    const bw_group_request *r = &op->request.group;
    bw_entry *e;
    char id[160];
    bw_err err = bw_entry_of(b, r->id, !r->member.len, &e);
    if (err) {
        bw_op_fail(op, err == BW_ERR_GROUP_ID_NOT_FOUND
                           ? bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "there is no group %.*s: join without a member id", (int)r->id.len, r->id.data) : err);
        return;
    }
    bw_session *s = op->session;
    bw_new_member_id(s, r->instance, id, sizeof id);
    bw_classic_join j = {.member = r->member, .instance = r->instance, .client = bw_str_of(s->client_id), .host = bw_str_of(s->peer.address),
                         .protocol_type = r->protocol_type, .new_id = bw_str_of(id), .needs_member_id = r->needs_member_id,
                         .session_ms = r->session_timeout_ms, .rebalance_ms = r->rebalance_timeout_ms, .protocols = r->protocols,
                         .protocol_count = r->protocol_count, .process = bw_groups_process(s)};
    bw_group_classic_join(e->g, &j, op, bw_groups_now());
    connect(b, e, s);
    bw_entry_due(e);
}

void bw_handle_sync_group(bw_broker *b, bw_op *op)
{
    bw_entry *e;
    bw_err err = bw_entry_of(b, op->request.group.id, false, &e);
    if (err) {
        bw_op_fail(op, err);
        return;
    }
    bw_group_classic_sync(e->g, &op->request.group, op, bw_groups_now());
    bw_entry_due(e);
}

void bw_handle_heartbeat(bw_broker *b, bw_op *op)
{
    const bw_group_request *r = &op->request.group;
    bw_entry *e;
    bw_err err = bw_entry_of(b, r->id, false, &e);
    if (!err) err = bw_group_classic_beat(e->g, r->member, r->instance, r->epoch, bw_groups_now());
    if (err) bw_op_fail(op, err);
    else bw_op_ok(op);
}
