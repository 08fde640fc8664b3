/* broker/groups_members.c: Busway's own members: join, heartbeat, leave, and telling them what they have.
 *
 * A join is answered like a push is sent: when the member's record is on the disk, with what it may read and where to begin. Where to
 * begin is what is committed; while that is not known (the partition is being opened) nothing is told. */
#include "broker/groups_core.h"

#include "base/killpoint.h"
#include "broker/offsets.h"
#include "log/wait.h"

#include <stdio.h>
#include <stdlib.h>

#define MEMBER_ID_CHOSEN_MAX 160u /* bytes; it is part of a key */
#define AGAIN_MS 2 /* until a partition is open whose committed offset is needed */

bw_process bw_groups_process(const bw_session *s)
{
    bw_process p = {0};
    if (s->peer.pid <= 0) return p;
    p.pid = s->peer.pid;
    p.start_ticks = s->peer.start_time;
    memcpy(p.boot, s->broker->groups->boot, sizeof p.boot);
    return p;
}

/* ---- telling ---- */

typedef struct listing {
    bw_broker *b;
    bw_str group;
    bw_offset_part *parts;
    size_t count;
    bool offsets; /* where to begin is wanted */
    bool busy;
} listing;

static void list_part(void *opaque, const bw_group_topic *topic, uint32_t partition)
{
    listing *l = opaque;
    bw_offset_part *out = &l->parts[l->count++];
    *out = (bw_offset_part){.topic = bw_str_of(topic->name), .partition = (int32_t)partition, .offset = -1, .leader_epoch = -1, .timestamp = -1,
                            .topic_id = topic->id};
    const bw_topic *t = l->offsets ? bw_topic_find(l->b, out->topic) : NULL;
    if (!t || t->deleting || partition >= t->part_count) return;
    bw_committed c;
    bw_err err = bw_offsets_get(l->b, l->group, t->parts[partition], &c);
    if (err == BW_ERR_BUSY) {
        bw_opener_want(l->b, t->parts[partition]);
        l->busy = true;
    } else if (err) {
        out->error = (int32_t)err;
        out->message = bw_str_of(strdup(bw_error_message()));
    }
    out->offset = c.offset;
    out->leader_epoch = c.leader_epoch;
    out->timestamp = c.commit_ms;
}

static void listing_free(listing *l)
{
    for (size_t i = 0; l->parts && i < l->count; i++) free((char *)(uintptr_t)l->parts[i].message.data);
    free(l->parts);
}

/* What m has, with offsets. NO_MEMORY; BUSY: not now. */
static bw_err list_parts(bw_entry *e, const bw_member *m, listing *l)
{
    *l = (listing){.b = e->broker, .group = bw_str_of(e->g->id), .offsets = e->g->kind == BW_GROUP_CONSUMER};
    l->parts = calloc(bw_member_part_count(e->g, m) + 1, sizeof *l->parts);
    if (!l->parts) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an assignment");
    bw_member_each_part(e->g, m, list_part, l);
    return l->busy ? BW_ERR_BUSY : BW_OK;
}

/* Not before the frame has left (bw_groups_ring): who is woken too early looks, finds nothing, and sleeps on. */
static void poke(bw_broker *b, uint32_t mailbox)
{
    if (!mailbox || mailbox >= BW_MAILBOXES) return;
    b->groups->ring[mailbox / 64] |= UINT64_C(1) << (mailbox % 64);
    b->groups->rings = true;
}

void bw_groups_ring(bw_broker *b)
{
    bw_groups *all = b->groups;
    uint32_t boxes = b->mail ? atomic_load(&b->mail->header->slots) : 0;
    if (!all->rings) return;
    all->rings = false;
    bw_reactor_flush(b->reactor);
    for (uint32_t w = 0; w < BW_MAILBOXES / 64; w++)
        for (; all->ring[w]; all->ring[w] &= all->ring[w] - 1) {
            uint32_t n = w * 64 + (uint32_t)__builtin_ctzll(all->ring[w]);
            if (n < boxes) bw_mailbox_poke(bw_mail_box(b->mail, n));
        }
}

static void fill(bw_entry *e, const bw_member *m, const listing *l, bw_answer *a)
{
    a->group.id = bw_str_of(e->g->id);
    a->group.member = bw_str_of(m->id);
    a->group.epoch = m->epoch;
    a->group.lease_ms = m->lease_ms;
    a->group.has_parts = l != NULL;
    a->group.parts = l ? l->parts : NULL;
    a->group.part_count = l ? l->count : 0;
}

/* Answer its join, or push. BUSY: later. */
static bw_err tell(bw_entry *e, bw_member *m)
{
    bw_link *link = bw_link_of(m);
    listing l;
    bw_answer a;
    if (!link->join && !link->session) return BW_OK; /* it joins again, and hears of it then */
    bw_err err = list_parts(e, m, &l);
    if (!err && link->join) {
        bw_answer_init(&a, &link->join->request);
        fill(e, m, &l, &a);
        bw_op *op = link->join;
        link->join = NULL;
        bw_op_finish(op, &a);
    } else if (!err) {
        bw_answer_init_push(&a, BW_API_GROUP_ASSIGNMENT);
        fill(e, m, &l, &a);
        BW_KILL_POINT("group.push");
        link->session->ops->reply(link->session->listener, &a);
    }
    if (!err) poke(e->broker, link->mailbox);
    listing_free(&l);
    return err;
}

static bool is_saved(const bw_entry *e, const bw_member *m) { return !m->unsaved && !m->unpushed && bw_link_of(m)->batch <= e->saved; }

void bw_entry_tell(bw_entry *e)
{
    bool again = false;
    if (e->g->kind == BW_GROUP_CLASSIC) return;
    for (uint32_t i = 0; i < e->g->member_count; i++) {
        bw_member *m = e->g->members[i];
        bw_link *link = bw_link_of(m);
        if (!link || !link->owed || link->batch > e->saved || m->unsaved || m->unpushed) continue;
        if (tell(e, m) == BW_OK) link->owed = false;
        else again = true;
    }
    if (again && !e->again.index) bw_timers_set(&e->broker->timers, &e->again, bw_deadline_in_ms(AGAIN_MS));
}

void bw_entry_tell_fenced(bw_entry *e, bw_member *m, bw_err why, const char *reason)
{
    bw_link *link = bw_link_of(m);
    char text[600];
    bw_answer a;
    if (!link || e->g->kind == BW_GROUP_CLASSIC) return;
    snprintf(text, sizeof text, "group %s: member %s was removed: %s; join anew", e->g->id, m->id, reason ? reason : "");
    bw_op *op = link->join;
    link->join = NULL;
    if (op) bw_answer_init(&a, &op->request);
    else bw_answer_init_push(&a, BW_API_GROUP_ASSIGNMENT);
    a.error = (int32_t)why;
    a.message = bw_str_of(text);
    a.group.id = bw_str_of(e->g->id);
    a.group.member = bw_str_of(m->id);
    if (op) bw_op_finish(op, &a);
    else if (link->session) link->session->ops->reply(link->session->listener, &a);
    poke(e->broker, link->mailbox);
}

/* ---- join ---- */

/* The session says it is this member, from now on. */
static void connect(bw_broker *b, bw_link *link, bw_member *m, bw_session *s, uint32_t mailbox)
{
    link->session = s;
    link->mailbox = mailbox;
    s->in_groups = true;
    bool dead;
    if (!link->watch && m->process.pid) link->watch = bw_watch_get(b, &m->process, &dead);
}

/* An empty group that nobody joined after all. */
static void drop_unused(bw_entry *e)
{
    const bw_group *g = e->g;
    if (!g->kind_fixed && !g->member_count && !g->pending && !e->gathering && !e->flying) bw_entry_free(e);
}

static bw_err admit(bw_broker *b, bw_op *op, bw_entry *e, bw_member **out)
{
    const bw_group_request *r = &op->request.group;
    bw_session *s = op->session;
    bw_buf record = {0};
    bw_wanted wanted = {0};
    bw_topic_view *topics = NULL;
    char id[160];
    bw_member_join j = {.member = r->member, .instance = r->instance, .epoch = r->epoch, .kind = (bw_group_kind)r->kind, .assignor = r->assignor,
                        .session_ms = r->session_timeout_ms, .rebalance_ms = r->rebalance_timeout_ms, .lease_ms = r->max_poll_interval_ms,
                        .owned = r->parts, .owned_count = r->part_count, .client = bw_str_of(s->client_id),
                        .host = bw_str_of(s->peer.address), .process = bw_groups_process(s)};
    bw_new_member_id(s, r->instance, id, sizeof id);
    j.new_id = bw_str_of(id);
    bw_err err = bw_wanted_encode(r->topics, r->topic_count, &record);
    j.subscription = (bw_str){(const char *)record.data, record.len};
    if (!err) err = bw_wanted_decode(j.subscription, &wanted);
    if (!err) err = bw_wanted_resolve(b, &wanted, &topics, &j.topic_count);
    j.topics = topics;
    bw_wanted_fini(&wanted);
    bw_link *fresh = err ? NULL : bw_link_new();
    if (!err && !fresh) err = BW_ERR_NO_MEMORY;
    if (!err) err = bw_group_admit(e->g, &j, bw_groups_now(), out);
    if (!err && !(*out)->user) {
        (*out)->user = fresh;
        fresh = NULL;
    }
    free(fresh);
    free(topics);
    bw_buf_free(&record);
    return err;
}

/* The link's views are of the member's own copy of what it subscribed to. */
static bw_err renew_wanted(bw_member *m)
{
    bw_link *link = bw_link_of(m);
    bw_wanted_fini(&link->wanted);
    return bw_wanted_decode((bw_str){(const char *)m->subscription.data, m->subscription.len}, &link->wanted);
}

void bw_handle_group_join(bw_broker *b, bw_op *op)
{
    const bw_group_request *r = &op->request.group;
    bw_entry *e = NULL;
    bw_member *m = NULL;
    bw_err err = r->member.len <= MEMBER_ID_CHOSEN_MAX ? bw_entry_of(b, r->id, true, &e)
                                                       : bw_fail(BW_ERR_INVALID_ARGUMENT, "a member id of %zu bytes: at most %u", r->member.len,
                                                                 MEMBER_ID_CHOSEN_MAX);
    if (!err) err = admit(b, op, e, &m);
    if (!err && (err = renew_wanted(m))) bw_group_remove(e->g, m, err, "no memory for its subscription", bw_groups_now());
    if (err) {
        bw_op_fail(op, err);
        if (e) {
            bw_entry_due(e);
            drop_unused(e);
        }
        return;
    }
    bw_link *link = bw_link_of(m);
    if (link->join) {
        bw_op_fail(link->join, bw_fail(BW_ERR_REBALANCE_IN_PROGRESS, "group %s: member %s joined once more", e->g->id, m->id));
        link->join = NULL;
    }
    connect(b, link, m, op->session, r->mailbox);
    link->join = op;
    link->owed = true;
    link->batch = UINT64_MAX; /* of the record that is still to be made */
    char id[400], text[300];
    bw_broker_event(b, BW_LOG_DEBUG, "member_joined", "group=%s member=%s session=%llu", bw_event_text(e->g->id, text, sizeof text),
                    bw_event_text(m->id, id, sizeof id), (unsigned long long)op->session->number);
    bw_entry_due(e);
}

/* ---- heartbeat, leave ---- */

static bw_err resubscribe(bw_broker *b, bw_entry *e, bw_member *m, const bw_group_request *r)
{
    bw_buf record = {0};
    bw_wanted wanted = {0};
    bw_topic_view *topics = NULL;
    size_t count = 0;
    bw_err err = bw_wanted_encode(r->topics, r->topic_count, &record);
    bw_str blob = {(const char *)record.data, record.len};
    if (!err) err = bw_wanted_decode(blob, &wanted);
    if (!err) err = bw_wanted_resolve(b, &wanted, &topics, &count);
    if (!err) err = bw_group_resubscribe(e->g, m, blob, topics, count, bw_groups_now());
    bw_wanted_fini(&wanted);
    free(topics);
    bw_buf_free(&record);
    return err ? err : renew_wanted(m);
}

void bw_handle_group_heartbeat(bw_broker *b, bw_op *op)
{
    const bw_group_request *r = &op->request.group;
    bw_entry *e;
    bw_member *m;
    bw_err err = bw_entry_of(b, r->id, false, &e);
    if (!err) err = bw_group_beat(e->g, r->member, r->instance, r->epoch, r->parts, r->part_count, r->has_owned, bw_groups_now(), &m);
    if (!err && !bw_link_of(m)) err = bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s: member %s has no connection; join anew", e->g->id, m->id);
    if (!err && bw_link_of(m)->session != op->session && op->session->peer.pid > 0 && m->process.pid && m->process.pid != op->session->peer.pid)
        err = bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "group %s: member %s is another process; join without a member id", e->g->id, m->id);
    if (!err && r->has_topics) err = resubscribe(b, e, m, r);
    if (err) {
        bw_op_fail(op, err);
        return;
    }
    bw_link *link = bw_link_of(m);
    if (!link->session) connect(b, link, m, op->session, r->mailbox);
    if (r->mailbox) link->mailbox = r->mailbox;
    bw_entry_due(e);
    /* Who missed a push, or can't be pushed to, hears it here. */
    bw_answer a;
    listing l = {0};
    bool with_parts = r->epoch < m->epoch && is_saved(e, m) && list_parts(e, m, &l) == BW_OK;
    bw_answer_init(&a, &op->request);
    fill(e, m, with_parts ? &l : NULL, &a);
    if (!with_parts) a.group.epoch = r->epoch;
    bw_op_finish(op, &a);
    listing_free(&l);
}

void bw_handle_group_leave(bw_broker *b, bw_op *op)
{
    const bw_group_request *r = &op->request.group;
    char reason[120];
    bw_entry *e;
    snprintf(reason, sizeof reason, "%.*s", (int)(r->reason.len > 100 ? 100 : r->reason.len), r->reason.data ? r->reason.data : "");
    bw_err err = bw_entry_of(b, r->id, false, &e);
    if (!err) err = bw_group_leave(e->g, r->member, r->instance, r->epoch, reason, bw_groups_now());
    if (!err) bw_entry_due(e);
    if (err) bw_op_fail(op, err);
    else bw_op_ok(op);
}
