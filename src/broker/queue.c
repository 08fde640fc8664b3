/* broker/queue.c: queue groups and their workers: QUEUE_JOIN, QUEUE_LEAVE, QUEUE_DELETE; the end of a session.
 *
 * A join is answered when what it changed is on the disk: the group, its settings (what a join says of them counts from then on), and where
 * each partition that is new to it begins. A name is either a queue group's or another group's for as long as it lives. */
#include "broker/queue.h"

#include "broker/groups_core.h"

#include "base/killpoint.h"
#include "format/names.h"

#include <busway/consumer.h>

#include <stdlib.h>

#define LEASE_MS 30000
#define LEASE_MS_MIN 100
#define LEASE_MS_MAX 86400000
#define DELIVERIES 5
#define DELIVERIES_MAX 1000
#define IN_FLIGHT 2000
#define IN_FLIGHT_MAX 50000

/* ---- groups ---- */

bw_err bw_queues_need(bw_broker *b)
{
    if (b->queues) return BW_OK;
    b->queues = calloc(1, sizeof *b->queues);
    if (!b->queues) return bw_fail(BW_ERR_NO_MEMORY, "no memory for queue groups");
    bw_err e = bw_queues_load(b);
    if (e) bw_queues_free(b);
    return e;
}

bw_queue_group *bw_queue_group_find(bw_broker *b, bw_str name)
{
    bw_queue_group *g = NULL;
    if (b->queues && name.len) HASH_FIND(hh, b->queues->groups, name.data, name.len, g);
    return g;
}

bool bw_queue_group_exists(bw_broker *b, bw_str name) { return bw_queues_need(b) == BW_OK && bw_queue_group_find(b, name); }

static bw_err check_name(bw_str name)
{
    bool ok = name.len && name.len <= BW_QUEUE_GROUP_MAX;
    for (size_t i = 0; ok && i < name.len; i++) ok = (uint8_t)name.data[i] >= 0x20 && (uint8_t)name.data[i] != 0x7f;
    if (ok) return BW_OK;
    return bw_fail(BW_ERR_INVALID_GROUP_ID, "a queue group's name has 1 to %u characters, none of them a control character", BW_QUEUE_GROUP_MAX);
}

bw_err bw_queue_group_new(bw_broker *b, bw_str name, bw_queue_group **out)
{
    bw_err e = check_name(name);
    if (e) return e;
    if (HASH_CNT(hh, b->queues->groups) >= BW_QUEUE_GROUPS_MAX)
        return bw_fail(BW_ERR_LIMIT_REACHED, "there are %u queue groups, the most: delete some", BW_QUEUE_GROUPS_MAX);
    bw_queue_group *g = calloc(1, sizeof *g);
    if (!g) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a queue group");
    memcpy(g->name, name.data, name.len);
    g->settings = (bw_queue_settings){.lease_ms = LEASE_MS, .max_deliveries = DELIVERIES, .max_in_flight = IN_FLIGHT};
    HASH_ADD_KEYPTR(hh, b->queues->groups, g->name, name.len, g);
    if (g->not_hashed) {
        free(g);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a queue group");
    }
    *out = g;
    return BW_OK;
}

void bw_queue_group_free(bw_broker *b, bw_queue_group *g)
{
    while (g->members) bw_queue_member_remove(b, g->members);
    while (g->parts) bw_queue_part_remove(b, g->parts);
    HASH_DELETE(hh, b->queues->groups, g);
    free(g);
}

void bw_queues_free(bw_broker *b)
{
    if (!b->queues) return;
    bw_queue_group *g, *tmp;
    HASH_ITER(hh, b->queues->groups, g, tmp) bw_queue_group_free(b, g);
    free(b->queues->runs);
    free(b->queues);
    b->queues = NULL;
}

/* ---- members ---- */

bw_queue_member *bw_queue_member_find(const bw_session *s, uint32_t number, bw_str group)
{
    bw_queue_member *m = s->workers;
    while (m && m->number != number) m = m->next_of_session;
    return m && bw_str_is(group, m->group->name) ? m : NULL;
}

void bw_queue_member_remove(bw_broker *b, bw_queue_member *m)
{
    bw_queue_group *g = m->group;
    for (bw_queue_wait *w = g->waits, *next; w; w = next) {
        next = w->next;
        if (w->member == m) bw_queue_wait_end(b, w, NULL);
    }
    bw_queue_member **at = &g->members;
    while (*at != m) at = &(*at)->next;
    *at = m->next;
    g->member_count--;
    at = &m->session->workers;
    while (*at != m) at = &(*at)->next_of_session;
    *at = m->next_of_session;
    for (bw_queue_part *q = g->parts; q; q = q->next)
        if (q->state.acquired && bw_queue_state_drop(&q->state, m->number, bw_queue_rules_of(g))) q->dirty = true;
    if (m->watch) bw_watch_drop(b, m->watch);
    free(m->topics);
    free(m);
    BW_KILL_POINT("queue.dropped");
    for (bw_queue_part *q = g->parts, *next; q; q = next) {
        next = q->next;
        if (q->dirty && q->part && !b->draining) bw_queue_part_changed(b, q);
    }
}

void bw_queue_drop_session(bw_broker *b, bw_session *s)
{
    while (s->workers) bw_queue_member_remove(b, s->workers);
}

void bw_queue_process_died(bw_broker *b, int64_t pid, uint64_t start_ticks)
{
    for (bw_session *s = b->sessions; s; s = s->next)
        if (s->workers && s->peer.pid == pid && (!start_ticks || s->peer.start_time == start_ticks)) bw_queue_drop_session(b, s);
}

/* ---- join ---- */

typedef struct joining {
    bw_commit commit; /* first */
    bw_op *op;
    uint32_t member;
} joining;

static bw_err read_settings(const bw_queue_request *r, bw_queue_settings *s)
{
    if (r->lease_ms && (r->lease_ms < LEASE_MS_MIN || r->lease_ms > LEASE_MS_MAX))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a lease of %d ms; allowed: %d to %d", r->lease_ms, LEASE_MS_MIN, LEASE_MS_MAX);
    if (r->max_deliveries < 0 || r->max_deliveries > DELIVERIES_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "max deliveries = %d; allowed: 1 to %d", r->max_deliveries, DELIVERIES_MAX);
    if (r->max_in_flight < 0 || r->max_in_flight > IN_FLIGHT_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "max in flight = %d; allowed: 1 to %d", r->max_in_flight, IN_FLIGHT_MAX);
    if (r->isolation < 0 || r->isolation > BW_QUEUE_COMMITTED || r->dead_letters < 0 || r->dead_letters > BW_QUEUE_DEAD_ARCHIVE ||
        r->reset < 0 || r->reset > BW_RESET_LATEST)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "isolation = %d, dead_letters = %d, reset = %d; each is 0, 1 or 2", r->isolation,
                       r->dead_letters, r->reset);
    bw_err e = r->dead_letter.len ? bw_topic_name_check(r->dead_letter.data, r->dead_letter.len) : BW_OK;
    if (e) return bw_error_context(e, "the dead-letter topic");
    if (r->lease_ms) s->lease_ms = r->lease_ms;
    if (r->max_deliveries) s->max_deliveries = (uint16_t)r->max_deliveries;
    if (r->max_in_flight) s->max_in_flight = (uint32_t)r->max_in_flight;
    if (r->isolation) s->committed = r->isolation == BW_QUEUE_COMMITTED;
    if (r->dead_letters) s->archive = r->dead_letters == BW_QUEUE_DEAD_ARCHIVE;
    if (r->reset) s->latest = r->reset == BW_RESET_LATEST;
    if (r->dead_letter.len) {
        memset(s->dead_letter, 0, sizeof s->dead_letter);
        memcpy(s->dead_letter, r->dead_letter.data, r->dead_letter.len);
    }
    return BW_OK;
}

/* What the group does not have yet of the topic; each new part's state goes into the commit. */
static bw_err add_topic(bw_broker *b, bw_queue_group *g, bw_str name, bw_commit *c, bw_uuid *id)
{
    bw_topic *t;
    bw_err e = bw_topic_of(b, name, false, &t);
    if (e) return e;
    *id = t->id;
    for (uint32_t i = 0; i < t->part_count && !e; i++) {
        bw_queue_part *q = t->parts[i]->queues;
        while (q && q->group != g) q = q->next_of_part;
        if (q) continue;
        int64_t log_start, end, durable;
        bw_part_range(t->parts[i], &log_start, &end, &durable);
        if ((e = bw_queue_part_new(g, &t->id, i, t->parts[i], g->settings.latest ? end : log_start, &q))) break;
        e = bw_queue_put_part(c, q);
    }
    return e;
}

static void close_cursors(bw_queue_group *g)
{
    for (bw_queue_part *q = g->parts; q; q = q->next) {
        bw_queue_cursor_close(&q->fresh);
        bw_queue_cursor_close(&q->old);
    }
}

static bw_err make_member(bw_broker *b, bw_session *s, bw_queue_group *g, size_t topics, bw_queue_member **out)
{
    if (g->member_count >= BW_QUEUE_MEMBERS_MAX)
        return bw_fail(BW_ERR_GROUP_MAX_SIZE_REACHED, "queue group '%s' has %u workers, the most", g->name, BW_QUEUE_MEMBERS_MAX);
    bw_queue_member *m = calloc(1, sizeof *m);
    if (m) m->topics = calloc(topics, sizeof *m->topics);
    if (!m || !m->topics) {
        free(m);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a worker");
    }
    if (++b->queues->next_member == 0) b->queues->next_member = 1;
    m->number = b->queues->next_member;
    m->session = s;
    m->group = g;
    bw_process process = bw_groups_process(s);
    bool dead;
    if (b->groups) m->watch = bw_watch_get(b, &process, &dead); /* one that is dead already: its connection's end tells */
    m->next = g->members;
    g->members = m;
    g->member_count++;
    m->next_of_session = s->workers;
    s->workers = m;
    *out = m;
    return BW_OK;
}

static void answer_join(bw_broker *b, joining *j, bw_err e)
{
    bw_op *op = j->op;
    bw_queue_member *m = bw_queue_member_find(op->session, j->member, op->request.queue.group);
    if (!e && !m) e = bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "the queue group was deleted meanwhile"); /* or the session has ended */
    if (e && m) bw_queue_member_remove(b, m);
    if (e) bw_op_fail(op, e);
    else {
        bw_answer a;
        bw_answer_init(&a, &op->request);
        a.queue.member = m->number;
        a.queue.lease_ms = m->group->settings.lease_ms;
        a.queue.max_deliveries = m->group->settings.max_deliveries;
        bw_op_finish(op, &a);
    }
    bw_commit_fini(&j->commit);
    free(j);
}

static void join_stored(bw_broker *b, bw_commit *c, bw_err e)
{
    BW_KILL_POINT("queue.joined");
    answer_join(b, (joining *)c, e);
}

static bw_err join(bw_broker *b, joining *j)
{
    const bw_queue_request *r = &j->op->request.queue;
    bw_queue_group *g = bw_queue_group_find(b, r->group);
    bw_queue_settings s = g ? g->settings : (bw_queue_settings){0};
    bw_queue_member *m = NULL;
    bool fresh = !g;
    bw_err e = r->topic_count && r->topic_count <= BW_QUEUE_TOPICS_MAX
                   ? BW_OK : bw_fail(BW_ERR_INVALID_ARGUMENT, "a worker names 1 to %u topics, not %zu", BW_QUEUE_TOPICS_MAX, r->topic_count);
    bw_topic *t;
    for (size_t i = 0; i < r->topic_count && !e; i++) e = bw_topic_of(b, r->topics[i].topic, false, &t);
    if (!e && g && g->deleting) e = bw_fail(BW_ERR_BUSY, "queue group '%s' is being deleted; try again", g->name);
    if (!e && fresh && bw_groups_find(b, r->group))
        e = bw_fail(BW_ERR_INCONSISTENT_GROUP_PROTOCOL, "%.*s is a group of another kind: a queue group needs another name",
                    (int)(r->group.len > 100 ? 100 : r->group.len), r->group.data);
    if (!e) e = read_settings(r, &s); /* before a group is made for it */
    if (!e && fresh && !(e = bw_queue_group_new(b, r->group, &g))) {
        s = g->settings;
        e = read_settings(r, &s);
    }
    if (e) return e;
    if (fresh || memcmp(&s, &g->settings, sizeof s) != 0) e = bw_queue_put_group(&j->commit, g, &s);
    if (!e && s.committed != g->settings.committed) close_cursors(g);
    if (!e) g->settings = s;
    if (!e) e = make_member(b, j->op->session, g, r->topic_count, &m);
    if (!e) j->member = m->number;
    for (size_t i = 0; i < r->topic_count && !e; i++) {
        e = add_topic(b, g, r->topics[i].topic, &j->commit, &m->topics[i]);
        if (!e) m->topic_count++;
    }
    if (e && m) bw_queue_member_remove(b, m);
    if (e && fresh) bw_queue_group_free(b, g);
    return e;
}

void bw_handle_queue_join(bw_broker *b, bw_op *op)
{
    bw_err e = bw_queues_need(b);
    joining *j = e ? NULL : calloc(1, sizeof *j);
    if (!e && !j) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a worker");
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    j->op = op;
    j->commit.done = join_stored;
    e = join(b, j);
    if (!e && j->commit.count && !(e = bw_committer_submit(b, &j->commit))) return;
    answer_join(b, j, e);
}

void bw_handle_queue_leave(bw_broker *b, bw_op *op)
{
    const bw_queue_request *r = &op->request.queue;
    bw_queue_member *m = bw_queue_member_find(op->session, r->member, r->group);
    if (m) bw_queue_member_remove(b, m);
    if (m) bw_op_ok(op);
    else bw_op_fail(op, bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "this connection has no member %u in that queue group", r->member));
}
