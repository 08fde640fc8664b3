/* broker/offsets_commit.c: OFFSET_COMMIT.
 *
 * Who may commit is the group's decision, once when the request comes and once more when it waited for the disk. Each part is checked by
 * itself; those that are good go into the round that gathers, and the answer says of each what became of it, when the round is on the
 * disk. What concerns the member (unknown, fenced, of an old generation) is the answer's error, and nothing is committed.
 *
 * durable: the commit is held until each of its logs is on the disk up to the offset, so that it can't outrun a power cut. A later commit
 * of the same partition may be quicker: then the held one is old news and changes nothing.
 *
 * Below the log's start is allowed, as in Kafka: retention may have been quicker than the consumer, and the next read says so. */
#include "broker/offsets_cache.h"

#include "log/wait.h"

#include <stdlib.h>

/* One partition of a held commit. */
typedef struct bw_hold {
    struct bw_hold *next; /* of the partition */
    bw_held *held;
    bw_part *part; /* NULL: done */
    int64_t offset;
} bw_hold;

struct bw_held {
    bw_held *previous, *next; /* of all */
    bw_op *op;
    uint64_t order;
    size_t count, left;
    bw_hold holds[];
};

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

/* ---- answers ---- */

void bw_offset_part_failed(bw_offset_part *part, bw_err e)
{
    part->error = (int32_t)e;
    part->message = bw_str_of(strdup(bw_error_message())); /* none without memory */
}

void bw_offset_answer(bw_broker *b, bw_op *op, bw_err e)
{
    bw_group_request *g = &op->request.group;
    if (op->request.type == BW_API_OFFSET_FETCH) {
        bw_offset_fetch_answer(b, op);
        return;
    }
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.error = (int32_t)e;
    if (e) a.message = bw_str_of(bw_error_message());
    for (size_t i = 0; i < g->part_count; i++) {
        bw_offset_part *p = &g->parts[i];
        *p = (bw_offset_part){.topic = p->topic, .partition = p->partition, .offset = -1, .leader_epoch = -1, .timestamp = -1,
                              .error = p->error, .message = p->message};
    }
    a.group.parts = g->parts;
    a.group.part_count = g->part_count;
    bw_op_reply(op, &a);
    for (size_t i = 0; i < g->part_count; i++) free((char *)(uintptr_t)g->parts[i].message.data);
    bw_op_finish(op, NULL);
}

/* ---- checks ---- */

/* Who commits may not, whatever it is: for all parts. */
static bw_err check_member(bw_broker *b, const bw_group_request *g)
{
    bw_err e = bw_group_id_check(g->id);
    for (size_t i = 0; !e && i < g->part_count; i++) e = bw_offset_may_commit(b, g, g->parts[i].topic, g->parts[i].partition);
    return e;
}

bw_err bw_offsets_check(bw_broker *b, const bw_offset_put *put)
{
    const bw_part *p = put->part;
    const char *topic = p->topic->name;
    int64_t start, end, durable;
    if ((int64_t)put->metadata.len > b->config.offset_metadata_max_bytes)
        return bw_fail(BW_ERR_OFFSET_METADATA_TOO_LARGE, "topic '%s' partition %u: metadata of %zu bytes; offset.metadata.max.bytes allows %lld",
                       topic, p->index, put->metadata.len, (long long)b->config.offset_metadata_max_bytes);
    bw_part_range(p, &start, &end, &durable);
    if (put->offset < 0 || put->offset > end)
        return bw_fail(BW_ERR_INVALID_COMMIT_OFFSET, "topic '%s' partition %u: offset %lld can't be committed: the log has %lld to %lld", topic,
                       p->index, (long long)put->offset, (long long)start, (long long)end);
    int32_t epoch = (int32_t)atomic_load_explicit(&slot_of(p)->leader_epoch, memory_order_acquire);
    if (put->leader_epoch < 0 || put->leader_epoch == epoch) return BW_OK;
    if (put->leader_epoch > epoch)
        return bw_fail(BW_ERR_LOG_INCARNATION_MISMATCH, "topic '%s' partition %u: a commit with leader epoch %d, but the log is at %d: it was "
                       "replaced by an older copy. Seek to where reading is to go on", topic, p->index, put->leader_epoch, epoch);
    int64_t most = bw_offset_epoch_end(p, put->leader_epoch, end);
    if (put->offset > most)
        return bw_fail(BW_ERR_LOG_INCARNATION_MISMATCH, "topic '%s' partition %u: a commit of offset %lld with leader epoch %d, but that epoch "
                       "ended at %lld: what lay behind it was lost. Seek to %lld", topic, p->index, (long long)put->offset, put->leader_epoch,
                       (long long)most, (long long)most);
    return BW_OK;
}

static bw_err check_part(bw_broker *b, const bw_offset_part *part, bw_part **out)
{
    static const bw_uuid none;
    bw_err e = bw_part_of(b, part->topic, part->partition, false, out);
    if (e) return e;
    if (memcmp(&part->topic_id, &none, sizeof none) && memcmp(&part->topic_id, &(*out)->topic->id, sizeof none))
        return bw_fail(BW_ERR_LOG_INCARNATION_MISMATCH, "topic '%s' was deleted and made again since it was read: this offset is of the one before. "
                       "Ask for the topic's metadata and begin anew", (*out)->topic->name);
    bw_offset_put put = {*out, part->offset, part->leader_epoch, part->metadata};
    e = bw_offsets_check(b, &put);
    bw_offset_target *t = e ? NULL : bw_offset_target_of_part(b->offsets, *out, false);
    return t ? bw_offset_settle(b, t) : e;
}

/* ---- taking ---- */

static bw_err take(bw_broker *b, bw_offset_group *g, const bw_offset_put *put, uint64_t order)
{
    bw_offsets *o = b->offsets;
    bw_offset_target *t = bw_offset_target_of_part(o, put->part, true);
    bw_offset_entry *x = NULL;
    if (!t) return BW_ERR_NO_MEMORY;
    if (!t->entries) t->settled = true; /* nothing is there that could be of another life */
    bw_err e = bw_offset_entry_get(b, g, t, &x);
    if (e || x->newest > order) return e;
    bw_offset_value *v = bw_offset_change_entry(b, x, put->metadata);
    if (!v) {
        bw_offset_entry_done(o, x);
        return BW_ERR_NO_MEMORY;
    }
    int64_t wall = bw_clock_wall_ms(), steady = bw_offsets_clock(b);
    v->offset = put->offset;
    v->leader_epoch = put->leader_epoch;
    v->log_epoch = (int32_t)atomic_load_explicit(&slot_of(put->part)->leader_epoch, memory_order_acquire);
    v->commit_ms = wall > steady ? wall : steady; /* never older than it is, for the sake of expiry */
    x->newest = order;
    o->commits++;
    return BW_OK;
}

bw_err bw_offsets_put(bw_broker *b, bw_str group, const bw_offset_put *puts, size_t count)
{
    bw_offset_group *g;
    bw_err e = bw_offset_group_get(b, group, &g);
    if (e) return e;
    g->changes++; /* stays, whatever becomes of its entries */
    for (size_t i = 0; !e && i < count; i++) {
        if (puts[i].offset >= 0) e = take(b, g, &puts[i], ++b->offsets->order);
        else {
            bw_offset_entry *x = bw_offset_entry_find(g, bw_offset_target_of_part(b->offsets, puts[i].part, false));
            if (x) e = bw_offset_remove(b, x);
        }
    }
    g->changes--;
    bw_offset_group_done(b->offsets, g);
    return e;
}

/* The parts without an error yet go into the round; answered with it, or at once when there are none. */
static void commit_now(bw_broker *b, bw_op *op, uint64_t order)
{
    bw_group_request *g = &op->request.group;
    bw_offset_group *group = NULL;
    size_t taken = 0;
    bw_err e = bw_offset_group_get(b, g->id, &group);
    if (group) group->changes++; /* stays, whatever becomes of its entries */
    for (size_t i = 0; i < g->part_count; i++) {
        bw_offset_part *part = &g->parts[i];
        bw_part *p;
        if (part->error) continue;
        bw_err one = e ? e : check_part(b, part, &p);
        if (!one) one = take(b, group, &(bw_offset_put){p, part->offset, part->leader_epoch, part->metadata}, order);
        if (one) bw_offset_part_failed(part, one);
        else taken++;
    }
    if (group) group->changes--;
    if (group) bw_offset_group_done(b->offsets, group);
    if (taken) bw_offset_answer_later(b, op);
    else bw_offset_answer(b, op, BW_OK);
}

/* ---- durable ---- */

static bool is_durable(const bw_part *p, int64_t offset)
{
    return atomic_load_explicit(&slot_of(p)->durable_offset, memory_order_acquire) >= offset;
}

static void held_unlink(bw_broker *b, bw_held *h)
{
    if (h->previous) h->previous->next = h->next;
    else b->offsets->held = h->next;
    if (h->next) h->next->previous = h->previous;
    h->previous = h->next = NULL;
}

/* h is in no list any more. */
static void release(bw_broker *b, bw_held *h)
{
    bw_op *op = h->op;
    uint64_t order = h->order;
    free(h);
    bw_err e = check_member(b, &op->request.group);
    if (e) bw_offset_answer(b, op, e);
    else commit_now(b, op, order);
}

static void hold(bw_broker *b, bw_op *op, uint64_t order)
{
    bw_group_request *g = &op->request.group;
    bw_held *h = calloc(1, sizeof *h + g->part_count * sizeof h->holds[0]);
    if (!h) {
        bw_offset_answer(b, op, bw_fail(BW_ERR_NO_MEMORY, "no memory for a commit that waits"));
        return;
    }
    h->op = op;
    h->order = order;
    if ((h->next = b->offsets->held)) h->next->previous = h;
    b->offsets->held = h;
    for (size_t i = 0; i < g->part_count; i++) {
        bw_part *p;
        bw_err e = check_part(b, &g->parts[i], &p);
        if (e) bw_offset_part_failed(&g->parts[i], e);
        if (e || is_durable(p, g->parts[i].offset)) continue;
        bw_hold *w = &h->holds[h->count++];
        *w = (bw_hold){p->holds, h, p, g->parts[i].offset};
        p->holds = w;
        h->left++;
        bw_position_raise(&slot_of(p)->sync_request, atomic_load_explicit(&slot_of(p)->tail, memory_order_acquire));
        bw_syncer_want(b, p);
        bw_broker_again(b, p);
    }
    if (h->left) return;
    held_unlink(b, h);
    release(b, h);
}

static void part_lost(bw_held *h, const bw_part *p, uint32_t state)
{
    bw_group_request *g = &h->op->request.group;
    bw_err e = state == BW_SLOT_DELETED ? BW_ERR_DELETED : BW_ERR_POISONED;
    for (size_t i = 0; i < g->part_count; i++) {
        if (g->parts[i].error || (uint32_t)g->parts[i].partition != p->index || !bw_str_is(g->parts[i].topic, p->topic->name)) continue;
        bw_fail(e, "topic '%s' partition %u: the log did not reach the disk up to offset %lld: %s", p->topic->name, p->index,
                (long long)g->parts[i].offset, bw_err_text(e));
        bw_offset_part_failed(&g->parts[i], e);
    }
}

void bw_offsets_serve(bw_broker *b, bw_part *p)
{
    uint32_t state = atomic_load_explicit(&slot_of(p)->state, memory_order_acquire);
    bw_held *ready = NULL, **ready_end = &ready;
    for (bw_hold **at = &p->holds, *w; (w = *at);) {
        if (!is_durable(p, w->offset) && state == BW_SLOT_OPEN) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->part = NULL;
        bw_held *h = w->held;
        if (!is_durable(p, w->offset)) part_lost(h, p, state);
        if (--h->left) continue;
        held_unlink(b, h);
        *ready_end = h;
        ready_end = &h->next;
    }
    while (ready) {
        bw_held *h = ready;
        ready = h->next;
        release(b, h);
    }
}

void bw_offsets_drop_session(bw_broker *b, bw_session *s)
{
    for (bw_held *h = b->offsets ? b->offsets->held : NULL, *next; h; h = next) {
        next = h->next;
        if (h->op->session != s) continue;
        for (size_t i = 0; i < h->count; i++) {
            bw_hold *w = &h->holds[i], **at = w->part ? &w->part->holds : NULL;
            while (at && *at != w) at = &(*at)->next;
            if (at) *at = w->next;
        }
        bw_op *op = h->op;
        held_unlink(b, h);
        free(h);
        bw_offset_answer(b, op, BW_OK); /* to nobody */
    }
}

/* ---- the request ---- */

void bw_handle_offset_commit(bw_broker *b, bw_op *op)
{
    bw_group_request *g = &op->request.group;
    for (size_t i = 0; i < g->part_count; i++) { /* what only answers say */
        g->parts[i].error = 0;
        g->parts[i].message = (bw_str){0};
    }
    bw_err e = check_member(b, g);
    uint64_t order = ++b->offsets->order;
    if (e) bw_offset_answer(b, op, e);
    else if (g->durable) hold(b, op, order);
    else commit_now(b, op, order);
}
