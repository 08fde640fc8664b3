/* log/compact_scan.c: what a pass must know before it drops anything: who wrote last, what was aborted, where each key's last value is.
 *
 * The producer table holds who is active (a batch within producer.id.expiration.ms) or writes transactions. The others' batches need not
 * stay. Above PRODUCERS_MAX plain producers are not told apart any more: then every emptied batch keeps its header. */
#include "log/compact_pass.h"

#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(e) ((e)->lost = true)
#include <uthash.h>

enum { PRODUCERS_MAX = 1 << 17, CONTROL_MAX = 64 << 10 };

struct compact_producer {
    int64_t id;
    int64_t last_data;    /* last offset of its newest batch of the newest epoch; -1: none */
    int64_t last_control; /* offset of its newest marker */
    int64_t newest_ms;
    int64_t txn_first;    /* of the open transaction while scanning; -1: none */
    int16_t epoch;
    bool open_seen;       /* while cleaning: a batch of the transaction before the next marker was met */
    bool lost;
    UT_hash_handle hh;
};

static compact_producer *find(const compaction *c, int64_t id)
{
    compact_producer *e = NULL;
    HASH_FIND(hh, c->producers, &id, sizeof id, e);
    return e;
}

static bw_err get(compaction *c, const bw_batch_header *h, compact_producer **out)
{
    bool active = h->max_timestamp >= c->o->now_ms - c->o->producer_expiration_ms;
    bool transactional = h->attributes & (BW_ATTR_TRANSACTIONAL | BW_ATTR_CONTROL);
    *out = find(c, h->producer_id);
    if (*out || !(active || transactional)) return BW_OK;
    if (!transactional && c->producer_count >= PRODUCERS_MAX) {
        c->keep_empty = true;
        return BW_OK;
    }
    compact_producer *e = calloc(1, sizeof *e);
    if (e) {
        *e = (compact_producer){.id = h->producer_id, .last_data = -1, .last_control = -1, .txn_first = -1, .epoch = h->producer_epoch};
        HASH_ADD(hh, c->producers, id, sizeof e->id, e);
    }
    if (!e || e->lost) {
        free(e);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for the cleaner's producers");
    }
    c->producer_count++;
    *out = e;
    return BW_OK;
}

static bw_err add_aborted(compaction *c, int64_t producer_id, int64_t first, int64_t last)
{
    if (c->aborted_count == c->aborted_cap) {
        size_t cap = c->aborted_cap ? 2 * c->aborted_cap : 64;
        compact_aborted *more = realloc(c->aborted, cap * sizeof *more);
        if (!more) return bw_fail(BW_ERR_NO_MEMORY, "no memory for aborted transactions");
        c->aborted = more;
        c->aborted_cap = cap;
    }
    c->aborted[c->aborted_count++] = (compact_aborted){producer_id, first, last, false};
    return BW_OK;
}

static int by_producer(const void *x, const void *y)
{
    const compact_aborted *a = x, *b = y;
    if (a->producer_id != b->producer_id) return a->producer_id < b->producer_id ? -1 : 1;
    return a->first < b->first ? -1 : a->first > b->first;
}

static bool read_marker(void *opaque, const bw_record_view *r)
{
    compact_marker *kind = opaque;
    if (r->key && r->key_len >= 4) {
        uint16_t type = bw_get_be16(r->key + 2);
        *kind = type == 0 ? MARKER_ABORT : type == 1 ? MARKER_COMMIT : MARKER_NONE;
    }
    return false;
}

bw_err compaction_marker(compaction *c, const uint8_t *batch, const bw_batch_header *h, compact_marker *out)
{
    *out = MARKER_NONE;
    return bw_batch_each(batch, h, CONTROL_MAX, &c->plain, read_marker, out);
}

static bw_err note(compaction *c, bw_walk *w)
{
    const bw_batch_header *h = &w->header;
    compact_producer *e;
    bw_err err = get(c, h, &e);
    if (err || !e) return err;
    bool newer = h->producer_epoch > e->epoch;
    if (newer) e->epoch = h->producer_epoch;
    if (h->max_timestamp > e->newest_ms) e->newest_ms = h->max_timestamp;
    if (!(h->attributes & BW_ATTR_CONTROL)) {
        e->last_data = bw_batch_last_offset(h);
        if ((h->attributes & BW_ATTR_TRANSACTIONAL) && e->txn_first < 0) e->txn_first = h->base_offset;
        return BW_OK;
    }
    const uint8_t *batch;
    compact_marker kind;
    err = w->size > CONTROL_MAX ? BW_OK : bw_walk_batch(w, &batch);
    if (err || w->size > CONTROL_MAX) return err;
    err = compaction_marker(c, batch, h, &kind);
    if (err) return err;
    e->last_control = h->base_offset;
    if (newer) e->last_data = -1; /* the sequence begins anew with the epoch */
    if (kind == MARKER_NONE) return BW_OK;
    if (kind == MARKER_ABORT && e->txn_first >= 0) err = add_aborted(c, e->id, e->txn_first, h->base_offset);
    e->txn_first = -1;
    return err;
}

/* Walks the batches of a span from its start. fn gets each one; `bytes` of it are counted. */
static bw_err walk_span(compaction *c, const compact_span *s, bool whole, bw_err (*fn)(compaction *c, bw_walk *w))
{
    int fd;
    bw_walk w;
    bw_err e = compaction_open(c, s, &fd);
    if (e) return e;
    e = bw_walk_init_fd(&w, fd, false, s->length, NULL, 0);
    w.check_crc = whole;
    w.next_offset = s->base_offset;
    w.gaps_below = c->p->gaps_below;
    while (!e && w.position < s->length) {
        e = bw_walk_next(&w);
        if (e == BW_ERR_EMPTY) e = bw_fail(BW_ERR_CORRUPT, "byte %llu: no batch", (unsigned long long)w.position);
        if (!e) e = fn(c, &w);
        if (!e) e = compaction_step(c, whole ? w.size : BW_BATCH_HEADER_BYTES);
    }
    bw_walk_fini(&w);
    bw_os_close(fd);
    return e == BW_ERR_EMPTY ? e : e ? bw_error_context(e, "segment %020lld.log", (long long)s->base_offset) : BW_OK;
}

static bw_err scan_batch(compaction *c, bw_walk *w) { return w->header.producer_id >= 0 ? note(c, w) : BW_OK; }

bw_err compaction_scan(compaction *c)
{
    bw_err e = BW_OK;
    for (size_t i = 0; !e && i < c->count; i++) e = walk_span(c, &c->spans[i], false, scan_batch);
    if (!e && c->aborted_count > 1) qsort(c->aborted, c->aborted_count, sizeof *c->aborted, by_producer);
    return e;
}

void compaction_forget(compaction *c)
{
    compact_producer *e, *tmp;
    HASH_ITER(hh, c->producers, e, tmp)
    {
        HASH_DELETE(hh, c->producers, e);
        free(e);
    }
    free(c->aborted);
    c->aborted = NULL;
    c->aborted_count = c->aborted_cap = c->producer_count = 0;
}

/* ---- questions ---- */

bool compaction_is_last(const compaction *c, const bw_batch_header *h)
{
    if (h->producer_id < 0) return false;
    if (c->keep_empty) return true;
    const compact_producer *e = find(c, h->producer_id);
    if (!e || e->newest_ms < c->o->now_ms - c->o->producer_expiration_ms) return false;
    if (e->last_data >= 0) return bw_batch_last_offset(h) == e->last_data;
    return (h->attributes & BW_ATTR_CONTROL) && h->base_offset == e->last_control;
}

compact_aborted *compaction_find_aborted(const compaction *c, const bw_batch_header *h)
{
    size_t low = 0, high = c->aborted_count;
    while (low < high) { /* the last one of this producer that begins at or before the batch */
        size_t mid = low + (high - low) / 2;
        const compact_aborted *a = &c->aborted[mid];
        if (a->producer_id < h->producer_id || (a->producer_id == h->producer_id && a->first <= h->base_offset)) low = mid + 1;
        else high = mid;
    }
    compact_aborted *a = low > 0 ? &c->aborted[low - 1] : NULL;
    return a && a->producer_id == h->producer_id && h->base_offset <= a->last ? a : NULL;
}

void compaction_note_open(compaction *c, int64_t producer_id)
{
    compact_producer *e = find(c, producer_id);
    if (e) e->open_seen = true;
}

bool compaction_end_open(compaction *c, int64_t producer_id)
{
    compact_producer *e = find(c, producer_id);
    bool seen = e && e->open_seen;
    if (e) e->open_seen = false;
    return !seen;
}

/* ---- the map ---- */

typedef struct filling {
    compaction *c;
    bool full;
} filling;

static bool put_key(void *opaque, const bw_record_view *r)
{
    filling *f = opaque;
    if (r->key && r->offset >= f->c->first_dirty) f->full = !bw_offset_map_put(&f->c->map, r->key, r->key_len, r->offset);
    return !f->full;
}

/* EMPTY: the map is full. The last value of the keys that are in it already may lie behind `upto`: such records stay anyway. */
static bw_err map_batch(compaction *c, bw_walk *w)
{
    const bw_batch_header *h = &w->header;
    int64_t next = bw_batch_last_offset(h) + 1;
    bool counts = next > c->first_dirty && h->record_count > 0 && !(h->attributes & BW_ATTR_CONTROL);
    if (counts && (h->attributes & BW_ATTR_TRANSACTIONAL)) counts = !compaction_find_aborted(c, h);
    if (counts) {
        const uint8_t *batch;
        filling f = {.c = c};
        bw_err e = bw_walk_batch(w, &batch);
        if (!e) e = bw_batch_each(batch, h, c->o->max_plain, &c->plain, put_key, &f);
        if (e) return e;
        if (f.full) {
            c->report->map_full = true;
            return BW_ERR_EMPTY;
        }
    }
    if (next > c->upto) c->upto = next;
    return BW_OK;
}

bw_err compaction_fill_map(compaction *c)
{
    bw_err e = BW_OK;
    c->upto = c->first_dirty;
    for (size_t i = 0; !e && i < c->cleanable; i++)
        if (c->spans[i].next_offset > c->first_dirty) e = walk_span(c, &c->spans[i], true, map_batch);
    if (e == BW_ERR_EMPTY && c->upto == c->first_dirty)
        return bw_fail(BW_ERR_NO_MEMORY, "one batch has more keys than log.cleaner.dedupe.buffer.size = %zu bytes hold; raise it",
                       c->o->dedupe_bytes);
    c->report->keys = c->map.used;
    return e == BW_ERR_EMPTY ? BW_OK : e;
}
