/* broker/queue_admin.c: QUEUE_DESCRIBE, QUEUE_PEEK, QUEUE_SETTLE, QUEUE_DELETE: what people ask of queue groups. Documents in msgpack;
 * names as in busway/queue.h. */
#include "broker/document.h"
#include "broker/queue.h"

#include <stdlib.h>

#define PEEK_MAX 10000u

static bw_err need_group(bw_broker *b, bw_str name, bw_queue_group **out)
{
    bw_err e = bw_queues_need(b);
    *out = e ? NULL : bw_queue_group_find(b, name);
    if (e || (*out && !(*out)->deleting)) return e;
    return bw_fail(BW_ERR_GROUP_ID_NOT_FOUND, "there is no queue group '%.*s'", (int)(name.len > 100 ? 100 : name.len), name.data);
}

/* ---- describe ---- */

static uint32_t held_by(const bw_queue_group *g, uint32_t member)
{
    uint32_t n = 0;
    for (const bw_queue_part *q = g->parts; q; q = q->next) {
        uint32_t left = q->state.acquired;
        for (uint32_t i = 0; i < q->state.late_count && left; i++) {
            if (q->state.late[i].entry.mark != BW_QUEUE_ACQUIRED) continue;
            n += q->state.late[i].entry.member == member;
            left--;
        }
        for (int64_t o = q->state.start; o < q->state.end && left; o++) {
            const bw_queue_entry *e = &q->state.ring[(uint64_t)o & (q->state.cap - 1)];
            if (e->mark != BW_QUEUE_ACQUIRED) continue;
            n += e->member == member;
            left--;
        }
    }
    return n;
}

static int put_part(msgpack_packer *pk, const bw_queue_part *q)
{
    const bw_queue_state *s = &q->state;
    int64_t log_start, end, durable;
    bw_part_range(q->part, &log_start, &end, &durable);
    int bad = msgpack_pack_map(pk, 17);
    bad |= key_text(pk, "topic", q->part->topic->name) | key_int(pk, "partition", q->index);
    bad |= key_int(pk, "start_offset", s->start) | key_int(pk, "next_offset", s->end) | key_int(pk, "end_offset", end);
    bad |= key_int(pk, "waiting", end > s->end ? end - s->end : 0) | key_int(pk, "available", s->available);
    bad |= key_int(pk, "in_flight", s->acquired) | key_int(pk, "dying", s->dying);
    bad |= key_int(pk, "delayed", (int64_t)(q->put_off + q->park_count) - s->gone_count - s->late_count);
    bad |= key_bool(pk, "delayed_limit_reached", q->limited);
    bad |= key_int(pk, "acknowledged", (int64_t)s->acknowledged) | key_int(pk, "archived", (int64_t)s->archived);
    bad |= key_int(pk, "dead_lettered", (int64_t)q->dead_lettered) | key_int(pk, "released", (int64_t)s->released);
    bad |= key_int(pk, "lease_ended", (int64_t)s->expired) | key_int(pk, "lost", (int64_t)s->lost);
    return bad;
}

static int put_member(msgpack_packer *pk, const bw_queue_member *m)
{
    int bad = msgpack_pack_map(pk, 6);
    bad |= key_int(pk, "member", m->number) | key_text(pk, "client", m->session->client_id) | key_int(pk, "pid", m->session->peer.pid);
    bad |= key_int(pk, "since_ms", m->session->since_wall_ms) | key_int(pk, "fetched", (int64_t)m->fetched);
    return bad | key_int(pk, "in_flight", held_by(m->group, m->number));
}

static int put_group(msgpack_packer *pk, const bw_queue_group *g)
{
    uint32_t parts = 0, waiting = 0;
    for (const bw_queue_part *q = g->parts; q; q = q->next) parts += q->part != NULL;
    for (const bw_queue_wait *w = g->waits; w; w = w->next) waiting++;
    int bad = msgpack_pack_map(pk, 10);
    bad |= key_text(pk, "group", g->name) | key_text(pk, "type", "queue") | key_int(pk, "lease_ms", g->settings.lease_ms);
    bad |= key_int(pk, "max_deliveries", g->settings.max_deliveries) | key_int(pk, "max_in_flight", g->settings.max_in_flight);
    bad |= key_text(pk, "dead_letters", g->settings.archive ? "archived" : g->settings.dead_letter[0] ? g->settings.dead_letter : "<topic>.dlq");
    bad |= key_text(pk, "isolation", g->settings.committed ? "read_committed" : "read_uncommitted") | key_int(pk, "fetches_waiting", waiting);
    bad |= put_text(pk, "partitions") | msgpack_pack_array(pk, parts);
    for (const bw_queue_part *q = g->parts; q; q = q->next)
        if (q->part) bad |= put_part(pk, q);
    bad |= put_text(pk, "members") | msgpack_pack_array(pk, g->member_count);
    for (const bw_queue_member *m = g->members; m; m = m->next) bad |= put_member(pk, m);
    return bad;
}

void bw_handle_queue_describe(bw_broker *b, bw_op *op)
{
    bw_queue_group *g = NULL, *tmp;
    bw_err e = op->request.queue.group.len ? need_group(b, op->request.queue.group, &g) : bw_queues_need(b);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    msgpack_packer pk;
    bw_doc_begin(b, &pk);
    uint32_t n = 0;
    bw_queue_group *each;
    HASH_ITER(hh, b->queues->groups, each, tmp) n += !each->deleting && (!g || each == g);
    int bad = msgpack_pack_array(&pk, n);
    HASH_ITER(hh, b->queues->groups, each, tmp)
        if (!each->deleting && (!g || each == g)) bad |= put_group(&pk, each);
    bw_doc_send(b, op, bad);
}

bw_err bw_queue_groups_each(bw_broker *b, bw_queue_each_fn fn, void *opaque)
{
    bw_queue_group *g, *tmp;
    bw_err e = bw_queues_need(b);
    if (e) return e;
    HASH_ITER(hh, b->queues->groups, g, tmp)
        if (!g->deleting) fn(opaque, bw_str_of(g->name), g->member_count, g->part_count);
    return BW_OK;
}

/* ---- peek ---- */

static int put_entry(msgpack_packer *pk, int64_t offset, const bw_queue_entry *e, int64_t due_ms, int64_t now_ns)
{
    static const char *const marks[] = {"available", "acquired", "dying", "settled"};
    bool held = e->mark == BW_QUEUE_ACQUIRED;
    int bad = msgpack_pack_map(pk, 3 + (held ? 2 : 0) + (due_ms >= 0));
    bad |= key_int(pk, "offset", offset) | key_text(pk, "state", marks[e->mark]) | key_int(pk, "deliveries", e->deliveries);
    if (held) bad |= key_int(pk, "member", e->member) | key_int(pk, "lease_left_ms", (e->lease_ns - now_ns) / 1000000);
    if (due_ms >= 0) bad |= key_int(pk, "deliver_at", due_ms);
    return bad;
}

void bw_handle_queue_peek(bw_broker *b, bw_op *op)
{
    const bw_queue_request *r = &op->request.queue;
    bw_queue_group *g = NULL;
    bw_err e = need_group(b, r->group, &g);
    bw_topic *t = e ? NULL : bw_topic_find(b, r->topic);
    bw_queue_part *q = t && r->partition >= 0 ? bw_queue_part_find(g, &t->id, (uint32_t)r->partition) : NULL;
    if (!e && !q)
        e = bw_fail(BW_ERR_UNKNOWN_PARTITION, "queue group '%s' has no partition %d of topic '%.*s'", g->name, r->partition,
                    (int)(r->topic.len > 100 ? 100 : r->topic.len), r->topic.data);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    const bw_queue_state *s = &q->state;
    uint32_t most = r->max_records && r->max_records < PEEK_MAX ? r->max_records : PEEK_MAX, n = 0;
    for (int64_t o = s->start; o < s->end && n < most; o++) n += s->ring[(uint64_t)o & (s->cap - 1)].mark != BW_QUEUE_SETTLED;
    uint32_t late = s->late_count < most - n ? s->late_count : most - n;
    uint32_t delayed = q->delays.count < most - n - late ? q->delays.count : most - n - late;
    int64_t now_ns = bw_clock_mono_ns();
    msgpack_packer pk;
    bw_doc_begin(b, &pk);
    int bad = msgpack_pack_map(&pk, 4);
    bad |= key_int(&pk, "start_offset", s->start) | key_int(&pk, "next_offset", s->end);
    bad |= put_text(&pk, "records") | msgpack_pack_array(&pk, late + n);
    for (uint32_t i = 0; i < late; i++) bad |= put_entry(&pk, s->late[i].offset, &s->late[i].entry, s->late[i].due_ms, now_ns);
    for (int64_t o = s->start; o < s->end && n; o++) {
        const bw_queue_entry *entry = &s->ring[(uint64_t)o & (s->cap - 1)];
        if (entry->mark == BW_QUEUE_SETTLED) continue;
        bad |= put_entry(&pk, o, entry, -1, now_ns);
        n--;
    }
    bad |= put_text(&pk, "delayed") | msgpack_pack_array(&pk, delayed);
    for (uint32_t i = 0; i < delayed; i++) {
        bad |= msgpack_pack_map(&pk, 2) | key_int(&pk, "offset", q->delays.heap[i].offset);
        bad |= key_int(&pk, "deliver_at", q->delays.heap[i].due_ms);
    }
    bw_doc_send(b, op, bad);
}

/* ---- by hand ---- */

void bw_handle_queue_settle(bw_broker *b, bw_op *op)
{
    bw_queue_group *g = NULL;
    bw_err e = need_group(b, op->request.queue.group, &g);
    if (e) bw_op_fail(op, e);
    else bw_queue_settle_by_hand(b, op, g);
}

/* ---- delete ---- 'g' goes last: a group that is cut short in between is there again after a restart, and nobody was told otherwise. */

typedef struct deleting {
    bw_commit commit; /* first */
    bw_queue_group *group;
} deleting;

static void answer_delete(bw_queue_group *g, bw_err e)
{
    bw_op *op = g->deleting_op;
    g->deleting_op = NULL;
    if (op && e) bw_op_fail(op, e);
    else if (op) bw_op_ok(op);
}

static void deleted(bw_broker *b, bw_commit *c, bw_err e)
{
    bw_queue_group *g = ((deleting *)c)->group;
    bw_commit_fini(c);
    free(c);
    answer_delete(g, e);
    if (!e) bw_queue_group_free(b, g); /* else its name is not free until a restart: something of it may still be there */
}

void bw_queue_swept(bw_broker *b, bw_queue_group *g, bw_err e)
{
    g->sweeps--;
    if (e) answer_delete(g, e);
    if (g->sweeps || !g->deleting_op) return;
    uint8_t key[BW_QUEUE_KEY_MAX];
    deleting *d = calloc(1, sizeof *d);
    e = d ? bw_commit_remove(&d->commit, BW_TABLE_QUEUES, key, bw_queue_key_group(g, key)) : bw_fail(BW_ERR_NO_MEMORY, "no memory for a commit");
    if (!e) {
        d->commit.done = deleted;
        d->group = g;
        e = bw_committer_submit(b, &d->commit);
    }
    if (!e) return;
    if (d) bw_commit_fini(&d->commit);
    free(d);
    answer_delete(g, e);
}

void bw_handle_queue_delete(bw_broker *b, bw_op *op)
{
    bw_queue_group *g = NULL;
    bw_err e = need_group(b, op->request.queue.group, &g);
    if (!e && g->members)
        e = bw_fail(BW_ERR_NON_EMPTY_GROUP, "queue group '%s' has %u workers: end them first", g->name, g->member_count);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    g->deleting = true;
    g->deleting_op = op;
    g->sweeps = 1; /* until all have begun */
    while (g->parts) {
        bw_queue_part *q = g->parts;
        g->sweeps++;
        bw_queue_sweep(b, q, g);
        bw_queue_part_remove(b, q);
    }
    bw_queue_swept(b, g, BW_OK);
}
