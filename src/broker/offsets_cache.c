/* broker/offsets_cache.c: groups, targets and entries in memory (offsets_cache.h), their limits, and loading them at the start.
 *
 * Bytes that are counted against offsets.memory.max.bytes: entries, groups, metadata; what is gathered in a round is bounded by the
 * connections' own limits. */
#include "broker/offsets_cache.h"

#include <stdlib.h>

/* What one takes with its place in a hash table, about. */
enum { ENTRY_BYTES = sizeof(bw_offset_entry) + 32, GROUP_BYTES = sizeof(bw_offset_group) + 640 };

bw_err bw_group_id_check(bw_str group)
{
    if (!group.len) return bw_fail(BW_ERR_INVALID_GROUP_ID, "the group's id is empty: give group.id");
    if (group.len > BW_OFFSET_GROUP_MAX)
        return bw_fail(BW_ERR_INVALID_GROUP_ID, "a group id of %zu bytes; at most %u", group.len, BW_OFFSET_GROUP_MAX);
    if (memchr(group.data, 0, group.len)) return bw_fail(BW_ERR_INVALID_GROUP_ID, "a group id with a zero byte");
    return BW_OK;
}

int64_t bw_offsets_clock(const bw_broker *b) { return b->started_wall_ms - b->clock_ahead_ms + (bw_clock_mono_ms() - b->started_mono_ms); }

/* ---- groups ---- */

bw_offset_group *bw_offset_group_find(const bw_offsets *o, bw_str id)
{
    bw_offset_group *g = NULL;
    if (id.len) HASH_FIND(hh, o->groups, id.data, id.len, g);
    return g;
}

static bw_offset_group *group_add(bw_offsets *o, bw_str id)
{
    bw_offset_group *g = calloc(1, sizeof *g + id.len + 1);
    if (g) {
        g->id = (char *)(g + 1);
        g->len = (uint32_t)id.len;
        memcpy(g->id, id.data, id.len);
        HASH_ADD_KEYPTR(hh, o->groups, g->id, g->len, g);
    }
    if (!g || g->not_hashed) {
        free(g);
        bw_fail(BW_ERR_NO_MEMORY, "no memory for a group");
        return NULL;
    }
    o->bytes += GROUP_BYTES + id.len;
    return g;
}

static bw_err check_bytes(const bw_broker *b, size_t more)
{
    if (b->offsets->bytes + more <= (uint64_t)b->config.offsets_memory_max_bytes) return BW_OK;
    return bw_fail(BW_ERR_LIMIT_REACHED, "the committed offsets of all groups take %zu bytes, and no more than offsets.memory.max.bytes = %lld "
                   "is allowed: delete groups that nobody uses, or raise it", b->offsets->bytes, (long long)b->config.offsets_memory_max_bytes);
}

bw_err bw_offset_group_get(bw_broker *b, bw_str id, bw_offset_group **out)
{
    bw_offsets *o = b->offsets;
    if ((*out = bw_offset_group_find(o, id))) return BW_OK;
    bw_err e = check_bytes(b, GROUP_BYTES + id.len);
    if (e) return e;
    if (HASH_COUNT(o->groups) >= (uint32_t)b->config.offsets_groups_max)
        return bw_fail(BW_ERR_LIMIT_REACHED, "%u groups have committed offsets, as many as offsets.groups.max allows: delete some that nobody "
                       "uses, or raise it", HASH_COUNT(o->groups));
    return (*out = group_add(o, id)) ? BW_OK : BW_ERR_NO_MEMORY;
}

void bw_offset_group_done(bw_offsets *o, bw_offset_group *g)
{
    if (g->entries || g->changes || g->idle_stored) return;
    o->bytes -= GROUP_BYTES + g->len;
    HASH_DELETE(hh, o->groups, g);
    free(g);
}

/* ---- targets ---- */

bw_offset_target *bw_offset_target_of(bw_offsets *o, const bw_uuid *topic, uint32_t partition, bool may_make)
{
    uint8_t key[20];
    memcpy(key, topic->b, 16);
    bw_put_be32(key + 16, partition);
    bw_offset_target *t = NULL;
    HASH_FIND(hh, o->targets, key, sizeof key, t);
    if (t || !may_make) return t;
    if ((t = calloc(1, sizeof *t))) {
        memcpy(t->key, key, sizeof key);
        HASH_ADD(hh, o->targets, key, sizeof t->key, t);
    }
    if (t && !t->not_hashed) return t;
    free(t);
    bw_fail(BW_ERR_NO_MEMORY, "no memory for a partition's committed offsets");
    return NULL;
}

bw_offset_target *bw_offset_target_of_part(bw_offsets *o, bw_part *p, bool may_make)
{
    if (p->offsets) return p->offsets;
    bw_offset_target *t = bw_offset_target_of(o, &p->topic->id, p->index, may_make);
    if (t) t->part = p;
    return p->offsets = t;
}

void bw_offset_target_done(bw_offsets *o, bw_offset_target *t)
{
    if (t->entries || t->part) return;
    HASH_DELETE(hh, o->targets, t);
    free(t);
}

/* ---- entries ---- */

bw_offset_entry *bw_offset_entry_find(const bw_offset_group *g, const bw_offset_target *t)
{
    bw_offset_entry *e = NULL;
    if (g && t) HASH_FIND(hh, g->entries, &t, sizeof t, e);
    return e;
}

static bw_offset_entry *entry_add(bw_offsets *o, bw_offset_group *g, bw_offset_target *t)
{
    bw_offset_entry *e = calloc(1, sizeof *e);
    if (e) {
        e->group = g;
        e->target = t;
        e->value.offset = -1;
        HASH_ADD(hh, g->entries, target, sizeof e->target, e);
    }
    if (!e || e->not_hashed) {
        free(e);
        bw_fail(BW_ERR_NO_MEMORY, "no memory for a committed offset");
        return NULL;
    }
    if ((e->next = t->entries)) e->next->previous = e;
    t->entries = e;
    t->count++;
    o->entry_count++;
    o->bytes += ENTRY_BYTES;
    return e;
}

bw_err bw_offset_entry_get(bw_broker *b, bw_offset_group *g, bw_offset_target *t, bw_offset_entry **out)
{
    if ((*out = bw_offset_entry_find(g, t))) return BW_OK;
    bw_err e = check_bytes(b, ENTRY_BYTES);
    if (e) return e;
    if (HASH_COUNT(g->entries) >= (uint32_t)b->config.offsets_per_group_max)
        return bw_fail(BW_ERR_LIMIT_REACHED, "group '%s' has %u committed offsets, as many as offsets.per.group.max allows: delete some "
                       "that it does not need, or raise it", g->id, HASH_COUNT(g->entries));
    return (*out = entry_add(b->offsets, g, t)) ? BW_OK : BW_ERR_NO_MEMORY;
}

void bw_offset_entry_done(bw_offsets *o, bw_offset_entry *e)
{
    if (e->value.offset >= 0 || e->pending || e->flying) return;
    bw_offset_group *g = e->group;
    bw_offset_target *t = e->target;
    HASH_DELETE(hh, g->entries, e);
    if (e->previous) e->previous->next = e->next;
    else t->entries = e->next;
    if (e->next) e->next->previous = e->previous;
    t->count--;
    o->entry_count--;
    o->bytes -= ENTRY_BYTES;
    bw_offset_value_free(o, &e->value);
    free(e);
    bw_offset_target_done(o, t);
    bw_offset_group_done(o, g);
}

const bw_offset_value *bw_offset_entry_newest(const bw_offset_entry *e)
{
    return e->pending ? &e->pending->value : e->flying ? &e->flying->value : &e->value;
}

void bw_offset_value_free(bw_offsets *o, bw_offset_value *v)
{
    o->bytes -= v->metadata_len;
    free(v->metadata);
    v->metadata = NULL;
    v->metadata_len = 0;
}

bw_err bw_offset_value_set(bw_offsets *o, bw_offset_value *v, bw_str metadata)
{
    char *copy = NULL;
    if (metadata.len && !(copy = malloc(metadata.len))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a commit's metadata");
    if (copy) memcpy(copy, metadata.data, metadata.len);
    bw_offset_value_free(o, v);
    v->metadata = copy;
    v->metadata_len = (uint32_t)metadata.len;
    o->bytes += metadata.len;
    return BW_OK;
}

/* ---- the start ---- */

struct load {
    bw_broker *b;
    bw_offset_group *last; /* keys come sorted */
    bw_err error;
};

static bw_err load_entry(struct load *l, const void *key, size_t key_len, const void *value, size_t value_len)
{
    bw_offsets *o = l->b->offsets;
    bw_offset_key k;
    bw_offset_stored v;
    int64_t idle;
    bw_err e = bw_offset_key_decode(key, key_len, &k);
    if (!e) e = k.of_group ? bw_offset_idle_decode(value, value_len, &idle) : bw_offset_value_decode(value, value_len, &v);
    if (e) return e;
    if (!l->last || l->last->len != k.group.len || memcmp(l->last->id, k.group.data, k.group.len) != 0) {
        l->last = bw_offset_group_find(o, k.group);
        if (!l->last && !(l->last = group_add(o, k.group))) return BW_ERR_NO_MEMORY;
    }
    if (k.of_group) {
        l->last->idle_stored = true;
        l->last->idle_ms = idle >= 0 ? idle : bw_offsets_clock(l->b);
        return BW_OK;
    }
    bw_offset_target *t = bw_offset_target_of(o, &k.topic, k.partition, true);
    bw_offset_entry *x = t ? entry_add(o, l->last, t) : NULL;
    if (!x) return BW_ERR_NO_MEMORY;
    x->value = (bw_offset_value){.offset = v.offset, .commit_ms = v.commit_ms, .leader_epoch = v.leader_epoch, .log_epoch = v.log_epoch};
    return bw_offset_value_set(o, &x->value, v.metadata);
}

static bool on_stored(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    struct load *l = opaque;
    l->error = load_entry(l, key, key_len, value, value_len);
    return !l->error;
}

bw_err bw_offsets_load(bw_broker *b)
{
    bw_offsets *o = calloc(1, sizeof *o);
    if (!o) return bw_fail(BW_ERR_NO_MEMORY, "no memory for committed offsets");
    o->changes_end = &o->changes;
    o->ops_end = &o->ops;
    o->waits_end = &o->waits;
    b->offsets = o;
    struct load l = {.b = b};
    int64_t began = bw_clock_mono_ms();
    bw_err e = bw_store_each(b->store, BW_TABLE_OFFSETS, NULL, 0, on_stored, &l);
    if (!e && !l.error && o->entry_count)
        bw_broker_event(b, BW_LOG_INFO, "offsets_loaded", "groups=%u offsets=%zu ms=%lld", HASH_COUNT(o->groups), o->entry_count,
                        (long long)(bw_clock_mono_ms() - began));
    return e ? e : l.error;
}

void bw_offsets_free(bw_broker *b)
{
    bw_offsets *o = b->offsets;
    if (!o) return;
    bw_offset_group *g, *more_groups;
    bw_offset_entry *e, *more;
    bw_offset_target *t, *more_targets;
    HASH_ITER(hh, o->groups, g, more_groups)
    {
        HASH_ITER(hh, g->entries, e, more)
        {
            HASH_DELETE(hh, g->entries, e);
            free(e->value.metadata);
            free(e);
        }
        HASH_DELETE(hh, o->groups, g);
        free(g);
    }
    HASH_ITER(hh, o->targets, t, more_targets)
    {
        HASH_DELETE(hh, o->targets, t);
        free(t);
    }
    bw_buf_free(&o->extra);
    free(o);
    b->offsets = NULL;
}

/* ---- what others ask ---- */

bool bw_offsets_group_known(bw_broker *b, bw_str group)
{
    const bw_offset_group *g = bw_offset_group_find(b->offsets, group);
    return g && g->entries;
}

bw_err bw_offsets_get(bw_broker *b, bw_str group, bw_part *p, bw_committed *out)
{
    *out = (bw_committed){.offset = -1, .leader_epoch = -1, .commit_ms = -1};
    bw_offset_target *t = bw_offset_target_of_part(b->offsets, p, false);
    bw_offset_entry *e = bw_offset_entry_find(bw_offset_group_find(b->offsets, group), t);
    if (!e) return BW_OK;
    bw_err err = bw_offset_settle(b, t);
    if (err) return err;
    const bw_offset_value *v = bw_offset_entry_newest(e);
    if (v->offset < 0) return BW_OK;
    if (v->log_epoch < p->history.life_epoch) return bw_offset_mismatch(p, v->offset);
    *out = (bw_committed){v->offset, v->leader_epoch, v->commit_ms, {v->metadata, v->metadata_len}};
    return BW_OK;
}

void bw_offsets_count(const bw_broker *b, bw_offsets_counters *out)
{
    const bw_offsets *o = b->offsets;
    *out = (bw_offsets_counters){HASH_COUNT(o->groups), o->entry_count, o->bytes, o->commits, o->rounds};
}
