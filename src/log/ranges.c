/* log/ranges.c: the scan behind ranges.h. */
#include "log/ranges.h"

#include "base/killpoint.h"
#include "log/segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

enum { INDEX_MAX = 32 << 20, HEAD_BYTES = 21 };

/* ---- the tree ---- */

static uint64_t pair_of(uint64_t left, uint64_t right)
{
    uint64_t both[2] = {left, right}; /* little-endian, as this host is (base/bytes.h) */
    return XXH3_64bits(both, sizeof both);
}

void bw_tree_add(bw_tree *t, uint64_t leaf)
{
    unsigned i = 0;
    for (; t->count >> i & 1; i++) leaf = pair_of(t->level[i], leaf);
    t->level[i] = leaf;
    t->count++;
}

uint64_t bw_tree_root(const bw_tree *t)
{
    if (t->count == 0) return 0;
    unsigned i = (unsigned)__builtin_ctzll(t->count);
    uint64_t node = t->level[i];
    for (i++; i < 64; i++)
        if (t->count >> i & 1) node = pair_of(t->level[i], node);
    return node;
}

/* ---- the list of segments ---- */

typedef struct span {
    int64_t base_offset, next_offset;
    uint32_t seq, length;
} span;

typedef struct span_list {
    span *items;
    size_t count;
    int64_t gaps_below;
    int dir; /* a descriptor of the folder */
} span_list;

static bw_err spans_copy(bw_partition *p, span_list *l)
{
    *l = (span_list){.dir = bw_partition_open_folder(p)};
    if (l->dir < 0) return bw_fail_errno(errno, "cannot open partition folder %s", p->dir_name);
    bw_partition_lock(p);
    bw_position tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
    bw_partition_adopt_rolls(p, tail);
    bw_err e = bw_partition_follow(p, tail);
    if (!e && !(l->items = malloc(p->count * sizeof *l->items))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the segment list");
    for (size_t i = 0; !e && i < p->count; i++) {
        const bw_segment *g = p->segments[i];
        l->items[i] = (span){g->base_offset, g->next_offset, g->seq, g->length};
    }
    l->count = e ? 0 : p->count;
    l->gaps_below = p->gaps_below;
    bw_partition_unlock(p);
    return e;
}

static void spans_free(span_list *l)
{
    free(l->items);
    if (l->dir >= 0) bw_os_close(l->dir);
}

/* ---- the scan of one segment ---- */

typedef struct item {
    bw_range_batch batch;
    const span *span;
    uint32_t position;
} item;
/* false: enough. */
typedef bool (*item_fn)(void *opaque, const item *it);

typedef struct scan {
    const span_list *list;
    const bw_range_query *q;
    item_fn fn;
    void *opaque;
    uint64_t bytes;
    bool enough;
    const span *span;
    bw_walk walk;
    bw_buf index;
    size_t entries;
} scan;

static void read_index(scan *s)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    s->index.len = 0;
    bw_segment_name(name, s->span->base_offset, ".index");
    int fd = bw_os_open_beneath(s->list->dir, name, O_RDONLY, 0);
    if (fd >= 0 && bw_os_fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= INDEX_MAX && !bw_buf_reserve(&s->index, (size_t)st.st_size)) {
        ssize_t n = bw_os_pread(fd, s->index.data, (size_t)st.st_size, 0);
        s->index.len = n > 0 ? (size_t)n : 0;
    }
    if (fd >= 0) bw_os_close(fd);
    s->entries = bw_index_entries(s->index.data, s->index.len, s->span->length);
}

/* Does a believable batch begin at `position`, behind offset `after`? *base: its. */
static bool begins_at(scan *s, uint64_t position, int64_t after, int64_t *base)
{
    if (position >= s->span->length) {
        *base = s->span->next_offset;
        return position == s->span->length && *base > after;
    }
    bw_walk probe = s->walk;
    probe.position = position;
    probe.next_offset = -1;
    probe.leader_epoch = INT32_MIN;
    probe.check_crc = false;
    bw_err e = bw_walk_next(&probe);
    s->walk.buf = probe.buf;
    s->walk.cap = probe.cap;
    s->walk.buf_at = probe.buf_at;
    s->walk.buf_len = probe.buf_len;
    *base = probe.header.base_offset;
    return e == BW_OK && *base > after && probe.next_offset <= s->span->next_offset;
}

/* The walk stands at something that can't be believed, which begins with offset `expect`: *position, *base: where it goes on. */
static void find_again(scan *s, int64_t expect, uint64_t *position, int64_t *base)
{
    uint64_t at = s->walk.position;
    uint8_t head[12];
    if (bw_os_pread(s->walk.fd, head, sizeof head, (off_t)at) == (ssize_t)sizeof head) {
        uint64_t size = (uint64_t)bw_get_be32(head + 8) + 12;
        *position = at + size;
        if (size >= BW_BATCH_HEADER_BYTES && *position <= s->span->length && begins_at(s, *position, expect, base)) return;
    }
    for (size_t i = 0; i < s->entries; i++) {
        *position = bw_get_be32(s->index.data + i * BW_INDEX_ENTRY_BYTES + 4);
        if (*position > at && begins_at(s, *position, expect, base)) return;
    }
    *position = s->span->length;
    *base = s->span->next_offset;
}

static bw_err give_batch(scan *s, item *it)
{
    bw_walk *w = &s->walk;
    bw_err e = BW_OK;
    it->batch = (bw_range_batch){.base_offset = w->header.base_offset, .next_offset = w->next_offset, .bytes = w->size};
    it->position = (uint32_t)w->at;
    if (s->q->whole) {
        const uint8_t *data;
        e = bw_walk_batch(w, &data);
        if (!e) it->batch.hash = XXH3_64bits(data, w->size);
    } else it->batch.hash = XXH3_64bits(w->first, HEAD_BYTES);
    if (e == BW_ERR_CORRUPT) {
        it->batch.damaged = true;
        e = BW_OK;
    }
    return e;
}

/* What lies at the walk's position up to the next believable batch is one damaged item. */
static void give_damage(scan *s, int64_t expect, item *it)
{
    uint64_t position;
    int64_t base;
    find_again(s, expect, &position, &base);
    it->batch = (bw_range_batch){.base_offset = expect, .next_offset = base, .bytes = (uint32_t)(position - s->walk.position), .damaged = true};
    it->position = (uint32_t)s->walk.position;
    s->walk.position = position;
    s->walk.next_offset = base;
}

/* The walk to a batch at or before the range, by the index; as near as the index can be believed. Returns that batch's offset. */
static int64_t jump(scan *s)
{
    uint32_t position = bw_index_floor(s->index.data, s->entries, s->span->base_offset, s->q->from);
    size_t i = s->entries;
    while (i > 0 && bw_get_be32(s->index.data + (i - 1) * BW_INDEX_ENTRY_BYTES + 4) > position) i--;
    for (; i > 0; i--) {
        int64_t base;
        s->walk.position = bw_get_be32(s->index.data + (i - 1) * BW_INDEX_ENTRY_BYTES + 4);
        if (begins_at(s, s->walk.position, s->span->base_offset - 1, &base) && base <= s->q->from) return base;
    }
    s->walk.position = 0;
    return s->span->base_offset;
}

static bw_err scan_span(scan *s, int fd)
{
    bw_walk *w = &s->walk;
    const bw_range_query *q = s->q;
    w->fd = fd;
    w->end = s->span->length;
    w->buf_len = w->size = 0;
    w->gaps_below = s->list->gaps_below;
    w->check_crc = q->whole;
    read_index(s);
    w->next_offset = jump(s);
    w->leader_epoch = INT32_MIN;
    bw_err e = BW_OK;
    while (!e && !s->enough && w->position < s->span->length && w->next_offset < q->upto) {
        item it = {.span = s->span};
        int64_t expect = w->next_offset;
        uint64_t before = w->position;
        e = bw_walk_next(w);
        if (!e) e = give_batch(s, &it);
        else if (e == BW_ERR_CORRUPT || e == BW_ERR_EMPTY) {
            give_damage(s, expect, &it);
            e = BW_OK;
        }
        if (e || it.batch.next_offset <= q->from) continue;
        s->bytes += w->position - before;
        if (it.batch.next_offset > q->upto) break;
        s->enough = !s->fn(s->opaque, &it);
    }
    return e;
}

/* Every item whose last offset lies in the range, in order, until fn says that it is enough. */
static bw_err scan_range(scan *s)
{
    bw_err e = bw_walk_init_fd(&s->walk, -1, false, 0, NULL, 0);
    for (size_t i = 0; !e && !s->enough && i < s->list->count; i++) {
        s->span = &s->list->items[i];
        if (s->span->next_offset <= s->q->from || s->span->length == 0) continue;
        if (s->span->base_offset >= s->q->upto) break;
        int fd;
        e = bw_segment_open_named(s->list->dir, s->span->base_offset, s->span->seq, O_RDONLY, &fd);
        if (e == BW_ERR_EMPTY) { /* retention was here */
            e = BW_OK;
            continue;
        }
        if (e) break;
        e = scan_span(s, fd);
        bw_os_close(fd);
    }
    bw_walk_fini(&s->walk);
    bw_buf_free(&s->index);
    return e;
}

static bw_err scan_partition(bw_partition *p, const bw_range_query *q, item_fn fn, void *opaque, uint64_t *bytes)
{
    if (q->from < 0 || q->upto <= q->from || q->step < 1)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a range of offsets from %lld to %lld, %lld each", (long long)q->from, (long long)q->upto,
                       (long long)q->step);
    span_list l;
    pthread_rwlock_rdlock(&p->files_lock); /* the cleaner swaps no files between the list and their opening */
    bw_err e = spans_copy(p, &l);
    scan s = {.list = &l, .q = q, .fn = fn, .opaque = opaque};
    if (!e) e = scan_range(&s);
    pthread_rwlock_unlock(&p->files_lock);
    spans_free(&l);
    *bytes = s.bytes;
    return e ? bw_error_context(e, "%s", p->dir_name) : BW_OK;
}

/* ---- hashes of parts ---- */

typedef struct hashing {
    const bw_range_query *q;
    bw_range_hash *out;
    uint32_t at, parts; /* the part that is being filled */
    bw_tree tree;
    uint64_t bytes;
} hashing;

static void part_end(hashing *h)
{
    h->out[h->at].hash = bw_tree_root(&h->tree);
    memset(&h->tree, 0, sizeof h->tree);
    h->at++;
    if (h->at < h->parts) h->out[h->at] = (bw_range_hash){0};
}

static bool hash_item(void *opaque, const item *it)
{
    hashing *h = opaque;
    uint32_t part = (uint32_t)((it->batch.next_offset - 1 - h->q->from) / h->q->step);
    while (h->at < part) {
        part_end(h);
        if (h->bytes >= h->q->scan_max) return false;
    }
    bw_range_hash *r = &h->out[part];
    bw_tree_add(&h->tree, it->batch.damaged ? 0 : it->batch.hash);
    r->bytes += it->batch.bytes;
    r->batches++;
    r->damaged += it->batch.damaged;
    h->bytes += it->batch.bytes;
    return true;
}

bw_err bw_partition_range_hashes(bw_partition *p, const bw_range_query *q, bw_range_hash *out, uint32_t *count, int64_t *next, uint64_t *bytes)
{
    hashing h = {.q = q, .out = out};
    if (q->from >= 0 && q->upto > q->from && q->step > 0) {
        h.parts = (uint32_t)bw_range_parts(q);
        out[0] = (bw_range_hash){0};
    }
    bw_err e = scan_partition(p, q, hash_item, &h, bytes);
    if (e) return e;
    bool all = h.bytes < q->scan_max;
    while (h.at < h.parts && (all || h.at == 0)) part_end(&h);
    *count = h.at;
    *next = h.at == h.parts ? q->upto : q->from + (int64_t)h.at * q->step;
    return BW_OK;
}

/* ---- batches ---- */

typedef struct listing {
    const bw_range_query *q;
    bw_range_batch *out;
    uint32_t max, count;
    uint64_t bytes;
    bool cut;
} listing;

static bool list_item(void *opaque, const item *it)
{
    listing *l = opaque;
    if (l->count == l->max || l->bytes >= l->q->scan_max) return !(l->cut = true);
    l->out[l->count++] = it->batch;
    l->bytes += it->batch.bytes;
    return true;
}

bw_err bw_partition_range_batches(bw_partition *p, const bw_range_query *q, bw_range_batch *out, uint32_t max, uint32_t *count, int64_t *next,
                                  uint64_t *bytes)
{
    listing l = {.q = q, .out = out, .max = max};
    bw_err e = scan_partition(p, q, list_item, &l, bytes);
    *count = l.count;
    *next = l.cut && l.count ? out[l.count - 1].next_offset : q->upto;
    return e;
}

/* ---- mending ---- */

typedef struct place {
    int64_t from, upto;
    span span;
    uint32_t position;
    uint64_t bytes;
    uint32_t items;
    bool begins, ends, one; /* it begins and ends where it should, in one segment */
} place;

static bool place_item(void *opaque, const item *it)
{
    place *pl = opaque;
    if (pl->items++ == 0) {
        pl->begins = it->batch.base_offset == pl->from;
        pl->span = *it->span;
        pl->position = it->position;
        pl->one = true;
    }
    pl->one &= it->span->base_offset == pl->span.base_offset;
    pl->bytes += it->batch.bytes;
    pl->ends = it->batch.next_offset == pl->upto;
    return true;
}

static bw_err check_mend(const bw_partition *p, int64_t from, int64_t upto, const uint8_t *data, size_t len)
{
    bw_walk w;
    bw_walk_init_memory(&w, data, len);
    w.gaps_below = p->gaps_below;
    bw_err e = BW_OK;
    for (int64_t at = from; !e && w.position < len; at = w.next_offset) {
        e = bw_walk_next(&w);
        if (!e && w.at == 0 && w.header.base_offset != at) e = BW_ERR_CORRUPT;
    }
    if (!e && w.next_offset == upto) return BW_OK;
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "what was sent are not the whole batches from offset %lld up to %lld", (long long)from, (long long)upto);
}

/* The seal as the bytes now want it. */
static bw_err seal_again(bw_partition *p, const span *s, int fd)
{
    bw_walk w;
    bw_merkle m = {0};
    bw_seal seal;
    bw_err e = bw_walk_init_fd(&w, fd, false, s->length, NULL, 0);
    if (e) return e;
    w.check_crc = false;
    w.next_offset = s->base_offset;
    w.gaps_below = s->next_offset;
    while (w.position < s->length && !(e = bw_walk_next(&w))) bw_merkle_add(&m, w.first);
    bw_walk_fini(&w);
    if (e) return BW_OK; /* something else is damaged there: the old seal vouches for no less than before */
    bw_partition_lock(p);
    bool good = bw_segment_read_seal(p, s->base_offset, &seal) && seal.root == bw_merkle_root(&m) && seal.batches == m.count;
    for (size_t i = 0; !good && i < p->count; i++)
        if (p->segments[i]->base_offset == s->base_offset) e = bw_segment_write_seal(p, p->segments[i], &m);
    bw_partition_unlock(p);
    return e;
}

/* Of what is not sealed yet, the root that was gathered so far is of the bytes as they were: it is gathered anew. */
static bool is_sealed(bw_partition *p, const span *s)
{
    bool sealed = false;
    bw_partition_lock(p);
    for (size_t i = 0; i < p->count; i++) {
        bw_segment *g = p->segments[i];
        if (g->base_offset != s->base_offset) continue;
        sealed = g->sealed;
        if (sealed) break;
        free(g->merkle);
        g->merkle = NULL;
        if (i == p->follow_at) p->indexer.whole = false;
    }
    bw_partition_unlock(p);
    return sealed;
}

static bw_err write_place(bw_partition *p, int dir, const place *pl, const uint8_t *data, size_t len)
{
    int fd;
    bw_err e = bw_segment_open_named(dir, pl->span.base_offset, pl->span.seq, O_RDWR, &fd);
    if (e == BW_ERR_EMPTY) return bw_fail(BW_ERR_BUSY, "%s: the segment was deleted meanwhile", p->dir_name);
    if (e) return e;
    if (bw_os_pwrite(fd, data, len, pl->position) < 0) e = bw_fail_errno(errno, "cannot write to segment %lld", (long long)pl->span.base_offset);
    BW_KILL_POINT("mend.written");
    if (!e && bw_os_fdatasync(fd) != 0) e = bw_fail_errno(errno, "cannot sync segment %lld", (long long)pl->span.base_offset);
    BW_KILL_POINT("mend.synced");
    if (!e && is_sealed(p, &pl->span)) e = seal_again(p, &pl->span, fd);
    bw_os_close(fd);
    return e;
}

bw_err bw_partition_mend(bw_partition *p, int64_t from, int64_t upto, const uint8_t *data, size_t len)
{
    bw_range_query q = {.from = from, .upto = upto, .step = upto - from, .scan_max = UINT64_MAX};
    place pl = {.from = from, .upto = upto};
    uint64_t bytes;
    bw_err e = check_mend(p, from, upto, data, len);
    if (!e) e = scan_partition(p, &q, place_item, &pl, &bytes);
    if (e) return e;
    if (!pl.items || !pl.begins || !pl.ends || !pl.one || pl.bytes != len)
        return bw_fail(BW_ERR_LOGS_DIVERGED,
                       "%s: offsets %lld to %lld are %llu bytes here and %zu there, or batches that begin elsewhere: that is not mended in place",
                       p->dir_name, (long long)from, (long long)upto, (unsigned long long)pl.bytes, len);
    pthread_rwlock_rdlock(&p->files_lock);
    int dir = bw_partition_open_folder(p);
    if (dir < 0) e = bw_fail_errno(errno, "cannot open partition folder %s", p->dir_name);
    else e = write_place(p, dir, &pl, data, len);
    if (dir >= 0) bw_os_close(dir);
    pthread_rwlock_unlock(&p->files_lock);
    return e;
}
