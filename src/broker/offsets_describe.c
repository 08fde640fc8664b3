/* broker/offsets_describe.c: LIST_GROUPS, DESCRIBE_GROUP, DELETE_GROUP. Names of the documents as in busway/group.h.
 *
 * A description looks into the logs, for how long the first record that was not consumed has been waiting: the header of its batch, read
 * in the worker thread, for LAG_LOOKS_MS at most; what was not come to by then is not known. All else is copied in the broker thread before. */
#include "broker/document.h"
#include "broker/offsets_cache.h"

#include <stdlib.h>

enum { LAG_LOOKS_MS = 2000, HEAD_PAIRS = 6 };

typedef struct row {
    bw_part *part; /* held */
    char *member; /* who owns it; malloc'd; NULL: nobody */
    int64_t committed, commit_ms, log_start, end;
    char *metadata, *error; /* malloc'd; NULL: none */
    uint32_t metadata_len;
    int64_t since_ms; /* of the first record not consumed; -1: not known */
} row;

typedef struct description {
    bw_job job;
    bw_buf head; /* msgpack: HEAD_PAIRS pairs */
    row *rows;
    size_t count, cap;
} description;

static const char *kind_name(const bw_group *g)
{
    static const char *const names[] = {"consumer", "queue", "classic"};
    return !g ? "simple" : (unsigned)g->kind < 3 ? names[g->kind] : "unknown";
}

static const char *state_name(const bw_group *g) { return g ? bw_group_state_name(g->state, g->kind) : "Empty"; }

/* ---- list ---- */

struct list {
    bw_broker *b;
    msgpack_packer *pk;
    size_t count;
    int bad;
};

static void list_one(struct list *l, bw_str id, const bw_group *members, const bw_offset_group *g)
{
    l->count++;
    if (!l->pk) return;
    l->bad |= msgpack_pack_map(l->pk, 5) | key_str(l->pk, "group", id) | key_text(l->pk, "state", state_name(members));
    l->bad |= key_text(l->pk, "kind", kind_name(members)) | key_int(l->pk, "members", members ? members->member_count : 0);
    l->bad |= key_int(l->pk, "partitions", g ? HASH_COUNT(g->entries) : 0);
}

static void list_with_members(void *opaque, const bw_group *g)
{
    struct list *l = opaque;
    list_one(l, bw_str_of(g->id), g, bw_offset_group_find(l->b->offsets, bw_str_of(g->id)));
}

static void list_queue(void *opaque, bw_str id, uint32_t members, uint32_t partitions)
{
    struct list *l = opaque;
    l->count++;
    if (!l->pk) return;
    l->bad |= msgpack_pack_map(l->pk, 5) | key_str(l->pk, "group", id) | key_text(l->pk, "state", members ? "Stable" : "Empty");
    l->bad |= key_text(l->pk, "kind", "queue") | key_int(l->pk, "members", members) | key_int(l->pk, "partitions", partitions);
}

static bw_err list_all(struct list *l)
{
    bw_offset_group *g, *more;
    bw_offset_each_with_members(l->b, list_with_members, l);
    HASH_ITER(hh, l->b->offsets->groups, g, more)
    {
        bw_str id = {g->id, g->len};
        if (g->entries && !bw_offset_members_of(l->b, id)) list_one(l, id, NULL, g);
    }
    return bw_queue_groups_each(l->b, list_queue, l);
}

void bw_handle_list_groups(bw_broker *b, bw_op *op)
{
    msgpack_packer pk;
    struct list count = {.b = b};
    bw_err e = list_all(&count);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    bw_doc_begin(b, &pk);
    struct list l = {.b = b, .pk = &pk, .bad = msgpack_pack_array(&pk, count.count)};
    list_all(&l); /* nothing waits in between: it is the same list */
    bw_doc_send(b, op, l.bad);
}

/* ---- describe: what the broker knows ---- */

static void description_free(description *d)
{
    for (size_t i = 0; i < d->count; i++) {
        bw_part_release(d->rows[i].part);
        free(d->rows[i].member);
        free(d->rows[i].metadata);
        free(d->rows[i].error);
    }
    free(d->rows);
    bw_buf_free(&d->head);
    free(d);
}

static row *add_row(description *d, bw_part *p)
{
    if (d->count == d->cap) {
        size_t cap = d->cap ? d->cap * 2 : 16;
        row *grown = realloc(d->rows, cap * sizeof *grown);
        if (!grown) return NULL;
        d->rows = grown;
        d->cap = cap;
    }
    row *r = &d->rows[d->count++];
    *r = (row){.part = p, .committed = -1, .commit_ms = -1, .since_ms = -1};
    atomic_fetch_add(&p->users, 1);
    bw_part_range(p, &r->log_start, &r->end, &(int64_t){0});
    return r;
}

static int add_committed(bw_broker *b, description *d, bw_offset_entry *e)
{
    bw_part *p = bw_offset_part_known(b, e->target);
    const bw_offset_value *v = &e->value;
    if (!p || v->offset < 0) return 0;
    row *r = add_row(d, p);
    if (!r) return 1;
    bw_err err = bw_offset_settle(b, e->target);
    if (!err && v->log_epoch < p->history.life_epoch) err = bw_offset_mismatch(p, v->offset);
    if (err) r->error = strdup(bw_error_message());
    r->committed = v->offset;
    r->commit_ms = v->commit_ms;
    if (v->metadata_len && !(r->metadata = malloc(v->metadata_len))) return 1;
    if (v->metadata_len) memcpy(r->metadata, v->metadata, v->metadata_len);
    r->metadata_len = v->metadata_len;
    return 0;
}

/* ---- members ---- */

struct owned {
    bw_broker *b;
    description *d;
    const bw_offset_group *offsets;
    const bw_member *member;
    msgpack_packer *pk;
    bool adds_rows; /* partitions have one owner each */
    int bad;
};

static bw_part *part_of(bw_broker *b, const bw_uuid *topic, uint32_t partition)
{
    bw_topic *t = NULL;
    HASH_FIND(by_id, b->topics_by_id, topic->b, 16, t);
    return t && !t->deleting && partition < t->part_count ? t->parts[partition] : NULL;
}

static int by_part(const void *x, const void *y)
{
    const row *a = x, *b = y;
    int c = a->part->topic == b->part->topic ? 0 : strcmp(a->part->topic->name, b->part->topic->name);
    return c ? c : (a->part->index > b->part->index) - (a->part->index < b->part->index);
}

static void put_owned(void *opaque, const bw_group_topic *topic, uint32_t partition)
{
    struct owned *o = opaque;
    o->bad |= msgpack_pack_map(o->pk, 2) | key_text(o->pk, "topic", topic->name) | key_int(o->pk, "partition", partition);
    bw_part *p = o->adds_rows ? part_of(o->b, &topic->id, partition) : NULL;
    if (!p) return;
    bw_offset_target *t = bw_offset_target_of_part(o->b->offsets, p, false);
    const bw_offset_entry *e = o->offsets ? bw_offset_entry_find(o->offsets, t) : NULL;
    if (e && e->value.offset >= 0) return; /* it has a row */
    o->bad |= add_row(o->d, p) == NULL;
}

static int put_member(bw_broker *b, description *d, msgpack_packer *pk, const bw_group *g, const bw_member *m, const bw_offset_group *offsets)
{
    int64_t uid, since;
    bw_offset_member_peer(m, &uid, &since);
    int bad = msgpack_pack_map(pk, 7) | key_text(pk, "member", m->id) | key_text(pk, "instance", m->instance ? m->instance : "");
    bad |= key_text(pk, "client", m->client ? m->client : "") | key_int(pk, "pid", m->process.pid) | key_int(pk, "uid", uid);
    bad |= key_int(pk, "since_ms", since) | put_text(pk, "partitions") | msgpack_pack_array(pk, bw_member_part_count(g, m));
    struct owned o = {b, d, offsets, m, pk, g->kind == BW_GROUP_CONSUMER, bad};
    bw_member_each_part(g, m, put_owned, &o);
    return o.bad;
}

static void own_row(void *opaque, const bw_group_topic *topic, uint32_t partition)
{
    struct owned *o = opaque;
    bw_part *p = part_of(o->b, &topic->id, partition);
    row key = {.part = p};
    row *r = p ? bsearch(&key, o->d->rows, o->d->count, sizeof key, by_part) : NULL;
    if (r && !r->member) r->member = strdup(o->member->id);
}

static const char *assignor_of(const bw_group *g)
{
    if (!g) return "";
    if (g->kind == BW_GROUP_CLASSIC) return g->protocol ? g->protocol : "";
    return g->kind == BW_GROUP_CONSUMER ? bw_assignor_name(g->assignor) : "";
}

static int describe_head(bw_broker *b, description *d, bw_str id, const bw_group *g, const bw_offset_group *offsets)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, &d->head, bw_doc_append);
    int bad = key_str(&pk, "group", id) | key_text(&pk, "state", state_name(g)) | key_text(&pk, "kind", kind_name(g));
    bad |= key_text(&pk, "assignor", assignor_of(g)) | key_int(&pk, "epoch", g ? g->epoch : 0);
    bad |= put_text(&pk, "members") | msgpack_pack_array(&pk, g ? g->member_count : 0);
    for (uint32_t i = 0; g && i < g->member_count; i++) bad |= put_member(b, d, &pk, g, g->members[i], offsets);
    return bad;
}

/* Rows sorted, with their owners. */
static void sort_rows(bw_broker *b, description *d, const bw_group *g)
{
    if (d->count) qsort(d->rows, d->count, sizeof *d->rows, by_part);
    for (uint32_t i = 0; g && g->kind == BW_GROUP_CONSUMER && d->count && i < g->member_count; i++) {
        struct owned o = {.b = b, .d = d, .member = g->members[i]};
        bw_member_each_part(g, g->members[i], own_row, &o);
    }
}

/* ---- describe: what the logs say; worker thread ---- */

/* The time of the first record not consumed: of its batch's first, or, where the log says, of the batch. */
static void look_into_log(bw_broker *b, row *r)
{
    bw_reader *reader;
    bw_batch_ref batch;
    int64_t from = r->committed > r->log_start ? r->committed : r->log_start;
    if (from >= r->end || bw_part_open_reader(b, r->part, BW_LIMIT_ALL, false, &reader)) return;
    bw_reader_seek(reader, from);
    if (bw_reader_next(reader, &batch) == BW_OK)
        r->since_ms = batch.header.attributes & BW_ATTR_LOG_APPEND_TIME ? batch.header.max_timestamp : batch.header.base_timestamp;
    bw_reader_close(reader);
}

static void describe_run(bw_broker *b, bw_job *job)
{
    description *d = (description *)(void *)job;
    int64_t until = bw_clock_mono_ms() + LAG_LOOKS_MS;
    for (size_t i = 0; i < d->count && bw_clock_mono_ms() < until; i++)
        if (d->rows[i].committed >= 0 && atomic_load(&d->rows[i].part->stage) == BW_PART_OPEN) look_into_log(b, &d->rows[i]);
}

/* ---- describe: the document; broker thread ---- */

static int key_number(msgpack_packer *pk, const char *key, int64_t v, bool known) { return known ? key_int(pk, key, v) : key_nil(pk, key); }

static int put_row(msgpack_packer *pk, const row *r, int64_t now_ms)
{
    bool there = r->committed >= 0;
    int64_t lag = r->end > r->committed ? r->end - (r->committed > r->log_start ? r->committed : r->log_start) : 0;
    int64_t waits = r->since_ms < now_ms ? now_ms - r->since_ms : 0;
    int bad = msgpack_pack_map(pk, 11) | key_text(pk, "topic", r->part->topic->name) | key_int(pk, "partition", r->part->index);
    bad |= r->member ? key_text(pk, "member", r->member) : key_nil(pk, "member");
    bad |= key_number(pk, "committed_offset", r->committed, there) | key_str(pk, "metadata", (bw_str){r->metadata, r->metadata_len});
    bad |= key_number(pk, "committed_ms", r->commit_ms, there) | key_int(pk, "log_start_offset", r->log_start);
    bad |= key_int(pk, "end_offset", r->end) | key_number(pk, "lag", lag, there && !r->error);
    bad |= key_number(pk, "lag_ms", lag ? waits : 0, there && !r->error && (!lag || r->since_ms >= 0));
    return bad | (r->error ? key_text(pk, "error", r->error) : key_nil(pk, "error"));
}

static void describe_done(bw_broker *b, bw_job *job)
{
    description *d = (description *)(void *)job;
    int64_t now = bw_clock_wall_ms();
    msgpack_packer pk;
    bw_doc_begin(b, &pk);
    int bad = msgpack_pack_map(&pk, HEAD_PAIRS + 1) | bw_doc_append(&b->doc, (const char *)d->head.data, d->head.len);
    bad |= put_text(&pk, "partitions") | msgpack_pack_array(&pk, d->count);
    for (size_t i = 0; i < d->count; i++) bad |= put_row(&pk, &d->rows[i], now);
    bw_op *op = job->op;
    description_free(d);
    bw_doc_send(b, op, bad);
}

static bw_err unknown_group(bw_str id)
{
    return bw_fail(BW_ERR_GROUP_ID_NOT_FOUND, "there is no group '%.*s': nobody joined it, and nothing is committed for it", (int)id.len, id.data);
}

static bw_err describe(bw_broker *b, bw_op *op, bw_str id)
{
    bw_err e = bw_group_id_check(id);
    if (e) return e;
    const bw_group *g = bw_offset_members_of(b, id);
    const bw_offset_group *offsets = bw_offset_group_find(b->offsets, id);
    if (!g && !(offsets && offsets->entries)) return unknown_group(id);
    description *d = calloc(1, sizeof *d);
    bw_offset_entry *x, *more;
    int bad = !d;
    if (d && offsets) HASH_ITER(hh, offsets->entries, x, more) bad |= add_committed(b, d, x);
    if (d) bad |= describe_head(b, d, id, g, offsets);
    if (!bad) sort_rows(b, d, g);
    if (!bad) d->job = (bw_job){.run = describe_run, .done = describe_done, .op = op};
    e = bad ? bw_fail(BW_ERR_NO_MEMORY, "no memory to describe a group") : bw_worker_submit(b, &d->job);
    if (e && d) description_free(d);
    return e;
}

void bw_handle_describe_group(bw_broker *b, bw_op *op)
{
    bw_err e = describe(b, op, op->request.group.id);
    if (e) bw_op_fail(op, e);
}

/* ---- delete ---- */

void bw_handle_delete_group(bw_broker *b, bw_op *op)
{
    bw_str id = op->request.group.id;
    bw_err e = bw_group_id_check(id);
    bw_offset_group *offsets = e ? NULL : bw_offset_group_find(b->offsets, id);
    const bw_group *g = e ? NULL : bw_offset_members_of(b, id);
    if (!e && !g && !(offsets && offsets->entries)) e = unknown_group(id);
    if (!e && g) e = bw_offset_members_forget(b, id);
    bw_offset_entry *x, *more;
    if (!e && offsets) HASH_ITER(hh, offsets->entries, x, more) if (!e) e = bw_offset_remove(b, x);
    if (!e && offsets && offsets->idle_ms) {
        offsets->idle_ms = 0;
        bw_offset_change_group(b, offsets);
    }
    if (e) bw_op_fail(op, e);
    else bw_offset_answer_later(b, op);
}
