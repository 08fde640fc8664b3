/* broker/queue_ack.c: QUEUE_ACK and QUEUE_SETTLE, and the commits that make them last.
 *
 * What is accepted, released or rejected changes the state in memory at once; the part's next commit has it, and answers. RENEW and RETURN
 * are answered with the rest, and need no commit of their own: leases are not stored, and a returned record is as it was. When a
 * commit fails, its acknowledgements are answered with the error (such a record may be delivered again after a restart), and what
 * it had goes with the next one. */
#include "broker/queue.h"

#include "base/killpoint.h"

#include <stdlib.h>

#define ITEMS_MAX 65536u
#define SPAN_MAX 1000000 /* offsets that one item may name */
#define RETRY_MS 1000

typedef struct queue_commit {
    bw_commit commit; /* first */
    bw_queue_part *part;
} queue_commit;

/* ---- answers ---- */

static void ack_finish(bw_queue_ack_op *a)
{
    bw_answer answer;
    bw_answer_init(&answer, &a->op->request);
    answer.error = (int32_t)a->error;
    if (a->error) answer.message = bw_str_of(bw_error_message());
    answer.queue.items = a->refused;
    answer.queue.item_count = a->refused_count;
    bw_op_finish(a->op, &answer);
    free(a->refused);
    free(a);
}

static void ack_done(bw_queue_ack_op *a, bw_err e)
{
    if (e) a->error = e;
    if (--a->pending == 0) ack_finish(a);
}

void bw_queue_acks_fail(bw_broker *b, bw_queue_part *q, bw_err e)
{
    (void)b;
    for (uint32_t i = 0; i < q->waiting_count; i++) {
        bw_fail(e, "queue group '%s': %s", q->group->name, e == BW_ERR_DELETED ? "the topic or the group was deleted" : bw_err_text(e));
        ack_done(q->waiting[i], e);
    }
    q->waiting_count = 0;
}

/* Once in a part's list, however many of its items are the part's. */
static bw_err join_next_commit(bw_queue_part *q, bw_queue_ack_op *a)
{
    if (q->waiting_count && q->waiting[q->waiting_count - 1] == a) return BW_OK;
    if (q->waiting_count == q->waiting_cap) {
        uint32_t cap = q->waiting_cap ? q->waiting_cap * 2 : 16;
        bw_queue_ack_op **grown = realloc(q->waiting, cap * sizeof(*grown));
        if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an acknowledgement");
        q->waiting = grown;
        q->waiting_cap = cap;
    }
    q->waiting[q->waiting_count++] = a;
    a->pending++;
    return BW_OK;
}

/* ---- commits ---- */

static void drop_sent(bw_queue_part *q)
{
    q->put_off += q->parks_sent;
    q->put_off -= q->gone_sent;
    q->park_count -= q->parks_sent;
    if (q->parks_sent && q->park_count) memmove(q->parks, q->parks + q->parks_sent, q->park_count * sizeof *q->parks);
    q->state.gone_count -= q->gone_sent;
    if (q->gone_sent && q->state.gone_count)
        memmove(q->state.gone, q->state.gone + q->gone_sent, q->state.gone_count * sizeof *q->state.gone);
    if (q->gone_sent) q->limited = false;
}

static void committed(bw_broker *b, bw_commit *c, bw_err e)
{
    bw_queue_part *q = ((queue_commit *)c)->part;
    bw_commit_fini(c);
    free(c);
    BW_KILL_POINT("queue.committed");
    q->committing = false;
    for (uint32_t i = 0; i < q->sent_count; i++) ack_done(q->sent[i], e);
    q->sent_count = 0;
    if (q->gone) {
        bw_queue_part_free(q);
        return;
    }
    if (!e) drop_sent(q);
    q->parks_sent = q->gone_sent = 0;
    if (e) {
        char why[700];
        bw_broker_event(b, BW_LOG_ERROR, "queue_commit_failed", "group=%s partition=%u reason=%s", q->group->name, q->index,
                        bw_event_text(bw_error_message(), why, sizeof why));
        q->dirty = true;
        if (b->draining) bw_queue_acks_fail(b, q, e);
        else bw_timers_set(&b->timers, &q->persist_timer, bw_deadline_in_ms(RETRY_MS));
        return;
    }
    BW_KILL_POINT("queue.answered");
    if (bw_delays_wants(&q->delays)) bw_queue_refill(b, q); /* the only moment when what is stored is known, while commits follow each other */
    if (q->dirty && (b->draining || !q->persist_timer.index)) bw_queue_commit(b, q);
    bw_queue_serve(b, q);
}

static bw_err fill(bw_commit *c, bw_queue_part *q)
{
    bw_err e = BW_OK;
    if (q->part && q->settled_in) q->state.leader_epoch = atomic_load(&q->part->topic->control->slots[q->index].leader_epoch);
    uint8_t key[BW_QUEUE_KEY_MAX];
    for (uint32_t i = 0; !e && i < q->park_count; i++) e = bw_queue_put_delay(c, q, q->parks[i]);
    for (uint32_t i = 0; !e && i < q->state.late_count; i++) {
        bw_queue_late *l = &q->state.late[i];
        if (!l->entry.changed) continue;
        e = bw_queue_put_delay(c, q, (bw_delay){l->due_ms, l->offset, l->entry.deliveries, l->entry.mark == BW_QUEUE_DYING ? l->entry.reason : 0});
        l->entry.changed = false;
    }
    for (uint32_t i = 0; !e && i < q->state.gone_count; i++)
        e = bw_commit_remove(c, BW_TABLE_QUEUES, key, bw_queue_key_delay(q, q->state.gone[i].due_ms, q->state.gone[i].offset, key));
    return e ? e : bw_queue_put_part(c, q);
}

void bw_queue_commit(bw_broker *b, bw_queue_part *q)
{
    if (!q->dirty || q->committing) return;
    queue_commit *c = calloc(1, sizeof *c);
    bw_err e = c ? fill(&c->commit, q) : bw_fail(BW_ERR_NO_MEMORY, "no memory for a commit");
    if (!e) {
        c->commit.done = committed;
        c->part = q;
        BW_KILL_POINT("queue.filled");
        e = bw_committer_submit(b, &c->commit);
    }
    if (e) { /* those who wait are told; the rest is tried again */
        if (c) bw_commit_fini(&c->commit);
        free(c);
        for (uint32_t i = 0; i < q->waiting_count; i++) ack_done(q->waiting[i], e);
        q->waiting_count = 0;
        if (!b->draining) bw_timers_set(&b->timers, &q->persist_timer, bw_deadline_in_ms(RETRY_MS));
        return;
    }
    bw_timers_clear(&b->timers, &q->persist_timer);
    q->committing = true;
    q->dirty = false;
    q->parks_sent = q->park_count;
    q->gone_sent = q->state.gone_count;
    bw_queue_ack_op **list = q->sent;
    uint32_t cap = q->sent_cap;
    q->sent = q->waiting;
    q->sent_cap = q->waiting_cap;
    q->sent_count = q->waiting_count;
    q->waiting = list;
    q->waiting_cap = cap;
    q->waiting_count = 0;
    BW_KILL_POINT("queue.submitted");
}

/* ---- the requests ---- */

static bw_err find_part(bw_broker *b, bw_queue_group *g, const bw_queue_item *item, bw_queue_part **out)
{
    bw_topic *t = bw_topic_find(b, item->topic);
    bool there = t && !t->deleting && item->partition >= 0 && (uint32_t)item->partition < t->part_count;
    *out = there ? t->parts[item->partition]->queues : NULL;
    while (*out && (*out)->group != g) *out = (*out)->next_of_part;
    if (*out) return BW_OK;
    return bw_fail(BW_ERR_UNKNOWN_PARTITION, "queue group '%s' has no partition %d of topic '%.*s'", g->name, item->partition,
                   (int)(item->topic.len > 100 ? 100 : item->topic.len), item->topic.data);
}

static bw_err refuse(bw_queue_ack_op *a, const bw_queue_item *item, size_t items, bw_err error, uint32_t count)
{
    if (!a->refused && !(a->refused = calloc(items, sizeof *a->refused))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an answer");
    bw_queue_item *r = &a->refused[a->refused_count++];
    *r = *item;
    r->error = (int32_t)error;
    r->refused = count;
    return BW_OK;
}

/* How many were refused. */
static uint32_t apply(bw_queue_part *q, const bw_queue_item *item, uint32_t member, int64_t lease_ns)
{
    uint32_t refused = 0;
    bw_queue_rules rules = bw_queue_rules_of(q->group);
    for (int64_t o = item->first; o <= item->last; o++)
        if (!bw_queue_state_ack(&q->state, o, member, (bw_queue_verb)item->verb, lease_ns, rules)) refused++;
    return refused;
}

static bw_err check_items(const bw_queue_request *r)
{
    if (r->item_count > ITEMS_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "%zu items; at most %u in one request", r->item_count, ITEMS_MAX);
    int64_t all = 0;
    for (size_t i = 0; i < r->item_count; i++) {
        const bw_queue_item *t = &r->items[i];
        if (t->verb < BW_QUEUE_ACCEPT || t->verb > BW_QUEUE_RETURN)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "verb = %d; allowed: 1 accept, 2 release, 3 reject, 4 renew, 5 return", t->verb);
        if (t->first < 0 || t->last < t->first || t->last - t->first >= SPAN_MAX || (all += t->last - t->first + 1) > SPAN_MAX)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "records %lld to %lld: at most %d records in one request", (long long)t->first,
                           (long long)t->last, SPAN_MAX);
    }
    return BW_OK;
}

static void acknowledge(bw_broker *b, bw_op *op, bw_queue_group *g, uint32_t member)
{
    const bw_queue_request *r = &op->request.queue;
    bw_err e = check_items(r);
    bw_queue_ack_op *a = e ? NULL : calloc(1, sizeof *a);
    if (!e && !a) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for an acknowledgement");
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    a->op = op;
    a->pending = 1; /* held until all items were looked at */
    int64_t lease_ns = bw_clock_mono_ns() + g->settings.lease_ms * INT64_C(1000000);
    bw_queue_part *q = NULL, *changed[64];
    size_t changed_count = 0;
    for (size_t i = 0; i < r->item_count && !e; i++) {
        const bw_queue_item *item = &r->items[i];
        if (!q || !bw_str_is(item->topic, q->part->topic->name) || q->index != (uint32_t)item->partition) {
            bw_err missing = find_part(b, g, item, &q);
            if (missing) e = refuse(a, item, r->item_count, missing, (uint32_t)(item->last - item->first + 1));
            if (missing) continue;
        }
        uint32_t refused = apply(q, item, member, lease_ns);
        if (refused) e = refuse(a, item, r->item_count, BW_ERR_INVALID_RECORD_STATE, refused);
        if (item->verb <= BW_QUEUE_REJECT && refused <= item->last - item->first) {
            q->dirty = true;
            if (!e) e = join_next_commit(q, a);
        }
        size_t k = 0;
        while (k < changed_count && changed[k] != q) k++;
        if (k < changed_count) continue;
        if (changed_count == sizeof changed / sizeof changed[0]) bw_queue_part_changed(b, q);
        else changed[changed_count++] = q;
    }
    BW_KILL_POINT("queue.acknowledged");
    for (size_t k = 0; k < changed_count; k++) bw_queue_part_changed(b, changed[k]);
    ack_done(a, e);
}

void bw_handle_queue_ack(bw_broker *b, bw_op *op)
{
    const bw_queue_request *r = &op->request.queue;
    bw_err e = bw_queues_need(b);
    bw_queue_member *m = e ? NULL : bw_queue_member_find(op->session, r->member, r->group);
    if (!e && !m)
        e = bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "this connection has no member %u in queue group '%.*s': what it held was released", r->member,
                    (int)(r->group.len > 100 ? 100 : r->group.len), r->group.data);
    if (e) bw_op_fail(op, e);
    else acknowledge(b, op, m->group, m->number);
}

void bw_queue_settle_by_hand(bw_broker *b, bw_op *op, bw_queue_group *g) { acknowledge(b, op, g, 0); }
