/* broker/offsets_round.c: rounds: many changes of committed offsets in one transaction.
 *
 * At most one round is on its way. What comes meanwhile gathers: an entry that is changed twice has one change, with the newer value. A
 * round that is on the disk: its values become those of the entries, then who waits is told, then the next one sets out. A round that
 * failed leaves the entries as they were (the store refuses everything from then on until the daemon is started again). */
#include "broker/offsets_cache.h"

#include "base/killpoint.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- gathering ---- */

static bw_offset_change *change_new(bw_offsets *o)
{
    bw_offset_change *c = calloc(1, sizeof *c);
    if (!c) {
        bw_fail(BW_ERR_NO_MEMORY, "no memory for a change of committed offsets");
        return NULL;
    }
    c->value.offset = -1;
    *o->changes_end = c;
    o->changes_end = &c->next;
    o->change_count++;
    return c;
}

bw_offset_value *bw_offset_change_entry(bw_broker *b, bw_offset_entry *e, bw_str metadata)
{
    bw_offsets *o = b->offsets;
    bw_offset_value fresh = {0};
    if (metadata.len && bw_offset_value_set(o, &fresh, metadata)) return NULL;
    if (!e->pending) {
        bw_offset_change *c = change_new(o);
        if (!c) {
            bw_offset_value_free(o, &fresh);
            return NULL;
        }
        c->entry = e;
        e->pending = c;
    }
    bw_offset_value *v = &e->pending->value;
    bw_offset_value_free(o, v);
    v->metadata = fresh.metadata;
    v->metadata_len = fresh.metadata_len;
    return v;
}

void bw_offset_change_group(bw_broker *b, bw_offset_group *g)
{
    if (g->idle_pending) return; /* its value is taken when the round sets out */
    bw_offset_change *c = change_new(b->offsets);
    if (!c) return; /* in memory it holds; it is looked at again */
    c->group = g;
    g->changes++;
    g->idle_pending = true;
}

void bw_offset_answer_later(bw_broker *b, bw_op *op)
{
    bw_offsets *o = b->offsets;
    op->next = NULL;
    *o->ops_end = op;
    o->ops_end = &op->next;
}

void bw_offsets_await(bw_broker *b, bw_offsets_wait *w)
{
    bw_offsets *o = b->offsets;
    w->next = NULL;
    *o->waits_end = w;
    o->waits_end = &w->next;
}

bw_err bw_offsets_with(bw_broker *b, bw_commit *c)
{
    bw_offsets *o = b->offsets;
    bw_err e = bw_buf_append(&o->extra, c->entries.data, c->entries.len);
    if (e) return e;
    o->extra_count += c->count;
    bw_commit_fini(c);
    return BW_OK;
}

/* ---- on its way ---- */

static bw_err encode_change(bw_commit *c, const bw_offset_change *x, bw_buf *room)
{
    const bw_offset_group *g = x->entry ? x->entry->group : x->group;
    uint8_t key[BW_OFFSET_KEY_MAX], idle[BW_OFFSET_IDLE_BYTES];
    bw_offset_key k = {.group = {g->id, g->len}, .of_group = !x->entry};
    if (x->entry) {
        memcpy(k.topic.b, x->entry->target->key, 16);
        k.partition = bw_get_be32(x->entry->target->key + 16);
    }
    size_t key_len = bw_offset_key_encode(&k, key);
    if (!x->entry) {
        if (!g->idle_ms) return bw_commit_remove(c, BW_TABLE_OFFSETS, key, key_len);
        bw_offset_idle_encode(g->idle_ms, idle);
        return bw_commit_put(c, BW_TABLE_OFFSETS, key, key_len, idle, sizeof idle);
    }
    const bw_offset_value *v = &x->value;
    if (v->offset < 0) return bw_commit_remove(c, BW_TABLE_OFFSETS, key, key_len);
    bw_offset_stored s = {v->offset, v->leader_epoch, v->log_epoch, v->commit_ms, {v->metadata, v->metadata_len}};
    room->len = 0;
    bw_err e = bw_buf_reserve(room, BW_OFFSET_VALUE_HEAD + v->metadata_len);
    if (e) return e;
    bw_offset_value_encode(&s, room->data);
    if (v->metadata_len) memcpy(room->data + BW_OFFSET_VALUE_HEAD, v->metadata, v->metadata_len);
    return bw_commit_put(c, BW_TABLE_OFFSETS, key, key_len, room->data, BW_OFFSET_VALUE_HEAD + v->metadata_len);
}

static void round_done(bw_broker *b, bw_commit *c, bw_err e);

/* The gathered becomes a round; NULL: no memory. */
static bw_offset_round *round_take(bw_offsets *o)
{
    bw_offset_round *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->commit.done = round_done;
    r->commit.entries = o->extra;
    r->commit.count = o->extra_count;
    r->changes = o->changes;
    r->ops = o->ops;
    r->waits = o->waits;
    o->extra = (bw_buf){0};
    o->extra_count = 0;
    o->change_count = 0;
    o->changes = NULL;
    o->changes_end = &o->changes;
    o->ops = NULL;
    o->ops_end = &o->ops;
    o->waits = NULL;
    o->waits_end = &o->waits;
    return r;
}

static bw_err round_encode(bw_broker *b, bw_offset_round *r)
{
    bw_err e = BW_OK;
    for (bw_offset_change *x = r->changes; x; x = x->next) {
        if (x->entry) {
            x->entry->flying = x;
            x->entry->pending = NULL;
        } else {
            x->group->idle_pending = false;
            x->value.offset = x->group->idle_ms ? 0 : -1;
        }
        if (!e) e = encode_change(&r->commit, x, &b->scratch);
    }
    return e;
}

void bw_offsets_flush(bw_broker *b)
{
    bw_offsets *o = b->offsets;
    while (o && !o->flying && (o->changes || o->ops || o->waits || o->extra_count)) {
        bw_offset_round *r = round_take(o);
        if (!r) return; /* tried again at the end of the next round of the loop */
        bw_err e = round_encode(b, r);
        o->flying = r;
        o->rounds++;
        if (!e) e = bw_committer_submit(b, &r->commit);
        if (e) round_done(b, &r->commit, e);
    }
}

/* ---- done ---- */

static void apply(bw_offsets *o, bw_offset_change *x, bool stored)
{
    bw_offset_entry *e = x->entry;
    bw_offset_group *g = x->group;
    if (e) {
        e->flying = NULL;
        if (stored) {
            bw_offset_value old = e->value;
            e->value = x->value;
            x->value = old;
        }
        bw_offset_value_free(o, &x->value);
        bw_offset_entry_done(o, e);
    } else {
        g->changes--;
        if (stored) g->idle_stored = x->value.offset == 0;
        bw_offset_group_done(o, g);
    }
    free(x);
}

static void round_done(bw_broker *b, bw_commit *c, bw_err e)
{
    bw_offsets *o = b->offsets;
    bw_offset_round *r = (bw_offset_round *)(void *)((char *)c - offsetof(bw_offset_round, commit));
    char why[600];
    if (e) snprintf(why, sizeof why, "%s", bw_error_message());
    o->flying = NULL;
    for (bw_offset_change *x = r->changes, *next; x; x = next) {
        next = x->next;
        apply(o, x, !e);
    }
    BW_KILL_POINT("commit.applied");
    for (bw_op *op = r->ops, *next; op; op = next) {
        next = op->next;
        if (e) bw_error_set_message(e, why);
        bw_offset_answer(b, op, e);
    }
    for (bw_offsets_wait *w = r->waits, *next; w; w = next) {
        next = w->next;
        if (e) bw_error_set_message(e, why);
        w->done(b, w, e);
    }
    BW_KILL_POINT("commit.answered");
    bw_commit_fini(&r->commit);
    free(r);
    bw_offsets_flush(b);
}
