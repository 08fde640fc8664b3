/* broker/offsets_requests.c: OFFSET_FETCH, OFFSET_DELETE.
 *
 * A fetch answers what is on the disk: what it gave out can't be taken back by a crash. When something that it asks for is under way, it
 * waits for it. */
#include "broker/offsets_cache.h"

#include <stdlib.h>

void bw_offsets_each_part(bw_broker *b, bw_str group, void (*fn)(void *opaque, bw_part *p), void *opaque)
{
    bw_offset_group *g = bw_offset_group_find(b->offsets, group);
    bw_offset_entry *e, *more;
    if (!g) return;
    HASH_ITER(hh, g->entries, e, more)
    {
        bw_part *p = bw_offset_part_known(b, e->target);
        if (p && bw_offset_entry_newest(e)->offset >= 0) fn(opaque, p);
    }
}

/* ---- fetch ---- */

/* The partition's entry; NULL: none, or no such partition (*err: not open). */
static bw_offset_entry *entry_of(bw_broker *b, const bw_offset_group *g, const bw_offset_part *part)
{
    bw_topic *t = bw_topic_find(b, part->topic);
    if (!g || !t || t->deleting || part->partition < 0 || (uint32_t)part->partition >= t->part_count) return NULL;
    return bw_offset_entry_find(g, bw_offset_target_of_part(b->offsets, t->parts[part->partition], false));
}

/* Settled, so that what has to be clamped is under way then; true: something is. */
static bool is_under_way(bw_broker *b, bw_offset_entry *e)
{
    if (bw_offset_part_known(b, e->target)) (void)bw_offset_settle(b, e->target);
    return e->pending || e->flying;
}

static void fill(bw_broker *b, bw_offset_entry *e, bw_offset_part *out)
{
    bw_part *p = bw_offset_part_known(b, e->target);
    bw_err err = p ? bw_offset_settle(b, e->target) : BW_OK;
    const bw_offset_value *v = &e->value;
    if (!p || v->offset < 0) return;
    out->topic_id = p->topic->id;
    if (!err && v->log_epoch < p->history.life_epoch) err = bw_offset_mismatch(p, v->offset);
    if (err) {
        bw_offset_part_failed(out, err);
        return;
    }
    out->offset = v->offset;
    out->leader_epoch = v->leader_epoch;
    out->timestamp = v->commit_ms;
    out->metadata = (bw_str){v->metadata, v->metadata_len};
}

static bw_offset_part blank(bw_str topic, int32_t partition)
{
    return (bw_offset_part){.topic = topic, .partition = partition, .offset = -1, .leader_epoch = -1, .timestamp = -1};
}

/* All that the group has, for a request without parts: put into the request, as if it had asked for them. */
static bw_err ask_for_all(bw_broker *b, bw_op *op, const bw_offset_group *g)
{
    bw_group_request *r = &op->request.group;
    bw_offset_entry *e, *more;
    if (!g || !g->entries) return BW_OK;
    if (!(r->parts = calloc(HASH_COUNT(g->entries), sizeof *r->parts))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the answer");
    HASH_ITER(hh, g->entries, e, more)
    {
        const bw_part *p = bw_offset_part_known(b, e->target);
        if (p && e->value.offset >= 0) r->parts[r->part_count++] = blank(bw_str_of(p->topic->name), (int32_t)p->index);
    }
    return BW_OK;
}

void bw_offset_fetch_answer(bw_broker *b, bw_op *op)
{
    bw_group_request *r = &op->request.group;
    const bw_offset_group *g = bw_offset_group_find(b->offsets, r->id);
    bw_err err = r->part_count ? BW_OK : ask_for_all(b, op, g);
    if (err) {
        bw_op_fail(op, err);
        return;
    }
    bw_answer a;
    bw_answer_init(&a, &op->request);
    for (size_t i = 0; i < r->part_count; i++) {
        r->parts[i] = blank(r->parts[i].topic, r->parts[i].partition);
        bw_offset_entry *e = entry_of(b, g, &r->parts[i]);
        if (e) fill(b, e, &r->parts[i]);
    }
    a.group.parts = r->parts;
    a.group.part_count = r->part_count;
    bw_op_reply(op, &a);
    for (size_t i = 0; i < r->part_count; i++) free((char *)(uintptr_t)r->parts[i].message.data);
    bw_op_finish(op, NULL);
}

void bw_handle_offset_fetch(bw_broker *b, bw_op *op)
{
    const bw_group_request *r = &op->request.group;
    bw_err err = bw_group_id_check(r->id);
    if (err) {
        bw_op_fail(op, err);
        return;
    }
    const bw_offset_group *g = bw_offset_group_find(b->offsets, r->id);
    bool wait = false;
    for (size_t i = 0; i < r->part_count; i++) {
        bw_offset_entry *e = entry_of(b, g, &r->parts[i]);
        if (e) wait |= is_under_way(b, e);
    }
    if (!r->part_count && g) {
        bw_offset_entry *e, *more;
        HASH_ITER(hh, g->entries, e, more) wait |= is_under_way(b, e);
    }
    if (wait) bw_offset_answer_later(b, op);
    else bw_offset_fetch_answer(b, op);
}

/* ---- delete ---- */

/* Members would go on from where they are, and commit again. */
static bw_err check_unused(bw_broker *b, const bw_offset_group *g, const bw_topic *t)
{
    const bw_group *members = bw_offset_members_of(b, (bw_str){g->id, g->len});
    if (!members || !members->member_count) return BW_OK;
    const bw_group_topic *used = NULL;
    if (members->kind != BW_GROUP_CLASSIC) { /* whose subscriptions only the members can read */
        HASH_FIND(hh, members->topics, t->name, strlen(t->name), used);
        if (!used || !used->subscribers) return BW_OK;
    }
    return bw_fail(BW_ERR_NON_EMPTY_GROUP, "group '%s' has %u members, subscribed to topic '%s': stop them first", g->id, members->member_count,
                   t->name);
}

static bw_err delete_one(bw_broker *b, const bw_offset_group *g, const bw_offset_part *part)
{
    bw_part *p;
    bw_err err = bw_part_of(b, part->topic, part->partition, false, &p);
    if (!err) err = check_unused(b, g, p->topic);
    bw_offset_entry *e = err ? NULL : bw_offset_entry_find(g, bw_offset_target_of_part(b->offsets, p, false));
    return e ? bw_offset_remove(b, e) : err;
}

void bw_handle_offset_delete(bw_broker *b, bw_op *op)
{
    bw_group_request *r = &op->request.group;
    for (size_t i = 0; i < r->part_count; i++) {
        r->parts[i].error = 0;
        r->parts[i].message = (bw_str){0};
    }
    bw_err err = bw_group_id_check(r->id);
    const bw_offset_group *g = err ? NULL : bw_offset_group_find(b->offsets, r->id);
    if (!err && !g)
        err = bw_fail(BW_ERR_GROUP_ID_NOT_FOUND, "there is no group '%.*s' with committed offsets", (int)r->id.len, r->id.data);
    for (size_t i = 0; i < r->part_count && !err; i++) {
        bw_err one = delete_one(b, g, &r->parts[i]);
        if (one) bw_offset_part_failed(&r->parts[i], one);
    }
    if (err) bw_offset_answer(b, op, err);
    else bw_offset_answer_later(b, op);
}
