/* log/producers.c: the table. Entries are in a hash by id and in two lists: `order`, the one that was silent the longest first, and
 * `open`, those with an open transaction in order of its first offset, so that the first of it is the first unstable offset. Transactions
 * begin in the order of their offsets, so that a new one goes to the end of `open`.
 *
 * An entry of which nothing is known but its id (reserved: epoch -1, no batch) is as if it were not there. */
#include "log/producers.h"

#include <stdlib.h>

#define HASH_NONFATAL_OOM 1
#define uthash_nonfatal_oom(e) ((e)->lost = true)
#include <uthash.h>
#include <utlist.h>

#define SNAPSHOT_VERSION 1
enum { HEAD_BYTES = 13, ENTRY_BYTES = 39, BATCH_BYTES = 24 };

typedef struct producer {
    int64_t id;
    int16_t epoch; /* -1: reserved only */
    uint8_t count; /* batches known, at most BW_PRODUCER_BATCHES; the newest is the last */
    bool lost;     /* no memory to add it */
    int32_t coordinator_epoch;
    bw_producer_batch batches[BW_PRODUCER_BATCHES];
    int64_t transaction; /* first offset; -1 */
    int64_t last_offset; /* of the newest batch or marker; -1 */
    int64_t seen_ms;
    struct producer *prev, *next;           /* order */
    struct producer *open_prev, *open_next; /* open */
    UT_hash_handle hh;
} producer;

struct bw_producers {
    producer *table;
    producer *order, *open;
    uint64_t changes;
};

bw_producers *bw_producers_new(void) { return calloc(1, sizeof(bw_producers)); }

void bw_producers_free(bw_producers *p)
{
    if (!p) return;
    HASH_CLEAR(hh, p->table);
    producer *e, *tmp;
    DL_FOREACH_SAFE(p->order, e, tmp) free(e);
    free(p);
}

size_t bw_producers_count(const bw_producers *p) { return HASH_COUNT(p->table); }

uint64_t bw_producers_changes(const bw_producers *p) { return p->changes; }

static producer *find(const bw_producers *p, int64_t id)
{
    producer *e;
    HASH_FIND(hh, p->table, &id, sizeof id, e);
    return e;
}

static void drop(bw_producers *p, producer *e)
{
    HASH_DEL(p->table, e);
    DL_DELETE(p->order, e);
    if (e->transaction >= 0) DL_DELETE2(p->open, e, open_prev, open_next);
    free(e);
    p->changes++;
}

/* Room for one more: the one that was silent the longest goes, if none of its records is undecided. */
static void make_room(bw_producers *p)
{
    if (HASH_COUNT(p->table) < BW_PRODUCERS_MAX) return;
    producer *e = p->order;
    while (e && e->transaction >= 0) e = e->next;
    if (e) drop(p, e);
}

/* At the end of order; NULL: no memory. */
static producer *add(bw_producers *p, int64_t id, int64_t now_ms)
{
    make_room(p);
    producer *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    e->id = id;
    e->epoch = -1;
    e->coordinator_epoch = -1;
    e->transaction = e->last_offset = -1;
    e->seen_ms = now_ms;
    HASH_ADD(hh, p->table, id, sizeof e->id, e);
    if (e->lost) {
        free(e);
        return NULL;
    }
    DL_APPEND(p->order, e);
    return e;
}

static void seen(bw_producers *p, producer *e, int64_t now_ms)
{
    e->seen_ms = now_ms;
    if (e->next) {
        DL_DELETE(p->order, e);
        DL_APPEND(p->order, e);
    }
    p->changes++;
}

static bw_err no_memory(void) { return bw_fail(BW_ERR_NO_MEMORY, "no memory for a producer's state"); }

bw_producers *bw_producers_copy(const bw_producers *from)
{
    bw_producers *p = bw_producers_new();
    if (!p) return NULL;
    for (const producer *e = from->order; e; e = e->next) {
        producer *n = add(p, e->id, e->seen_ms);
        if (!n) {
            bw_producers_free(p);
            return NULL;
        }
        n->epoch = e->epoch;
        n->count = e->count;
        n->coordinator_epoch = e->coordinator_epoch;
        memcpy(n->batches, e->batches, sizeof n->batches);
        n->last_offset = e->last_offset;
    }
    for (const producer *e = from->open; e; e = e->open_next) {
        producer *n = find(p, e->id);
        n->transaction = e->transaction;
        DL_APPEND2(p->open, n, open_prev, open_next);
    }
    return p;
}

/* ---- batches ---- */

static bw_sequence refuse_sequence(const bw_batch_header *h, int32_t expected, bw_err *error)
{
    *error = bw_fail(BW_ERR_OUT_OF_ORDER_SEQUENCE, "producer %lld epoch %d: sequence %d came, %d was expected", (long long)h->producer_id,
                     h->producer_epoch, h->base_sequence, expected);
    return BW_SEQUENCE_REFUSED;
}

bw_sequence bw_producers_check(const bw_producers *p, const bw_batch_header *h, bw_producer_batch *before, bw_err *error)
{
    const producer *e = find(p, h->producer_id);
    if (!e || e->epoch < 0) return BW_SEQUENCE_ACCEPT;
    if (h->producer_epoch < e->epoch) {
        *error = bw_fail(BW_ERR_INVALID_PRODUCER_EPOCH, "producer %lld: epoch %d was replaced by %d: another one goes by this name",
                         (long long)h->producer_id, h->producer_epoch, e->epoch);
        return BW_SEQUENCE_REFUSED;
    }
    int32_t expected = 0;
    if (h->producer_epoch == e->epoch && e->count) {
        int32_t last = bw_sequence_after(h->base_sequence, h->last_offset_delta);
        for (int i = 0; i < e->count; i++) {
            if (e->batches[i].first != h->base_sequence || e->batches[i].last != last) continue;
            *before = e->batches[i];
            return BW_SEQUENCE_DUPLICATE;
        }
        expected = bw_sequence_after(e->batches[e->count - 1].last, 1);
    }
    if (h->base_sequence != expected) return refuse_sequence(h, expected, error);
    if (e->transaction >= 0 && !(h->attributes & BW_ATTR_TRANSACTIONAL)) {
        *error = bw_fail(BW_ERR_INVALID_TXN_STATE, "producer %lld has a transaction open here, and sent a batch that is not part of it",
                         (long long)h->producer_id);
        return BW_SEQUENCE_REFUSED;
    }
    return BW_SEQUENCE_ACCEPT;
}

bw_err bw_producers_reserve(bw_producers *p, int64_t producer_id, int64_t now_ms)
{
    return find(p, producer_id) || add(p, producer_id, now_ms) ? BW_OK : no_memory();
}

static void set_epoch(producer *e, int16_t epoch)
{
    if (e->epoch == epoch) return;
    e->epoch = epoch;
    e->count = 0;
}

bw_err bw_producers_note(bw_producers *p, const bw_batch_header *h, int64_t base_offset, int64_t timestamp, bw_position end, int64_t now_ms)
{
    producer *e = find(p, h->producer_id);
    if (!e && !(e = add(p, h->producer_id, now_ms))) return no_memory();
    set_epoch(e, h->producer_epoch);
    if (e->count == BW_PRODUCER_BATCHES) {
        e->count--;
        memmove(&e->batches[0], &e->batches[1], sizeof e->batches[0] * (size_t)e->count);
    }
    e->batches[e->count++] = (bw_producer_batch){
        .first = h->base_sequence,
        .last = bw_sequence_after(h->base_sequence, h->last_offset_delta),
        .base_offset = base_offset,
        .timestamp = timestamp,
        .end = end,
    };
    e->last_offset = base_offset + h->last_offset_delta;
    if ((h->attributes & BW_ATTR_TRANSACTIONAL) && e->transaction < 0) {
        e->transaction = base_offset;
        DL_APPEND2(p->open, e, open_prev, open_next);
    }
    seen(p, e, now_ms);
    return BW_OK;
}

void bw_producers_expire(bw_producers *p, int64_t before_ms)
{
    for (producer *e = p->order, *next; e && e->seen_ms < before_ms; e = next) {
        next = e->next;
        if (e->transaction < 0) drop(p, e);
    }
}

/* ---- transactions ---- */

bw_err bw_producers_check_marker(const bw_producers *p, const bw_marker *m)
{
    const producer *e = find(p, m->producer_id);
    if (!e) return BW_OK;
    if (m->producer_epoch < e->epoch)
        return bw_fail(BW_ERR_INVALID_PRODUCER_EPOCH, "producer %lld: a marker of epoch %d, but epoch %d has written here",
                       (long long)m->producer_id, m->producer_epoch, e->epoch);
    if (m->coordinator_epoch < e->coordinator_epoch)
        return bw_fail(BW_ERR_FENCED, "producer %lld: a marker of coordinator epoch %d, but %d has written here", (long long)m->producer_id,
                       m->coordinator_epoch, e->coordinator_epoch);
    return BW_OK;
}

bool bw_producers_note_marker(bw_producers *p, const bw_marker *m, int64_t offset, int64_t now_ms, int64_t *first)
{
    producer *e = find(p, m->producer_id);
    if (!e && !(e = add(p, m->producer_id, now_ms))) return false;
    set_epoch(e, m->producer_epoch);
    e->coordinator_epoch = m->coordinator_epoch;
    e->last_offset = offset;
    bool open = e->transaction >= 0;
    if (open) {
        *first = e->transaction;
        e->transaction = -1;
        DL_DELETE2(p->open, e, open_prev, open_next);
    }
    seen(p, e, now_ms);
    return open;
}

int64_t bw_producers_transaction(const bw_producers *p, int64_t producer_id)
{
    const producer *e = find(p, producer_id);
    return e ? e->transaction : -1;
}

int64_t bw_producers_first_unstable(const bw_producers *p) { return p->open ? p->open->transaction : INT64_MAX; }

static bw_producer_info describe(const producer *e, int64_t now_ms)
{
    return (bw_producer_info){
        .id = e->id, .epoch = e->epoch, .coordinator_epoch = e->coordinator_epoch,
        .last_sequence = e->count ? e->batches[e->count - 1].last : -1, .last_offset = e->last_offset, .transaction = e->transaction,
        .silent_ms = now_ms > e->seen_ms ? now_ms - e->seen_ms : 0,
    };
}

bool bw_producers_get(const bw_producers *p, int64_t producer_id, int64_t now_ms, bw_producer_info *out)
{
    const producer *e = find(p, producer_id);
    if (!e || e->epoch < 0) return false;
    *out = describe(e, now_ms);
    return true;
}

void bw_producers_each(const bw_producers *p, bool open_only, int64_t now_ms, bw_producer_fn fn, void *opaque)
{
    for (const producer *e = open_only ? p->open : p->order; e; e = open_only ? e->open_next : e->next) {
        if (e->epoch < 0) continue;
        bw_producer_info info = describe(e, now_ms);
        if (!fn(opaque, &info)) return;
    }
}

/* ---- snapshots ---- */

static uint8_t *put_entry(uint8_t *at, const producer *e, int64_t now_ms)
{
    bw_put_be64(at, (uint64_t)e->id);
    bw_put_be16(at + 8, (uint16_t)e->epoch);
    bw_put_be32(at + 10, (uint32_t)e->coordinator_epoch);
    bw_put_be64(at + 14, (uint64_t)e->transaction);
    bw_put_be64(at + 22, (uint64_t)e->last_offset);
    bw_put_be64(at + 30, now_ms > e->seen_ms ? (uint64_t)(now_ms - e->seen_ms) : 0);
    at[38] = e->count;
    at += ENTRY_BYTES;
    for (int i = 0; i < e->count; i++, at += BATCH_BYTES) {
        bw_put_be32(at, (uint32_t)e->batches[i].first);
        bw_put_be32(at + 4, (uint32_t)e->batches[i].last);
        bw_put_be64(at + 8, (uint64_t)e->batches[i].base_offset);
        bw_put_be64(at + 16, (uint64_t)e->batches[i].timestamp);
    }
    return at;
}

bw_err bw_producers_encode(const bw_producers *p, int64_t offset, int64_t now_ms, bw_buf *out)
{
    size_t most = HEAD_BYTES, count = 0;
    for (const producer *e = p->order; e; e = e->next)
        if (e->epoch >= 0) {
            most += ENTRY_BYTES + (size_t)e->count * BATCH_BYTES;
            count++;
        }
    bw_err e = bw_buf_reserve(out, most);
    if (e) return e;
    uint8_t *at = out->data + out->len;
    at[0] = SNAPSHOT_VERSION;
    bw_put_be64(at + 1, (uint64_t)offset);
    bw_put_be32(at + 9, (uint32_t)count);
    at += HEAD_BYTES;
    for (const producer *one = p->order; one; one = one->next)
        if (one->epoch >= 0) at = put_entry(at, one, now_ms);
    out->len += most;
    return BW_OK;
}

/* NULL: no memory, or *broken. */
static producer *take_entry(bw_producers *p, bw_cursor *c, int64_t limit, int64_t now_ms, bool *broken)
{
    int64_t id = (int64_t)bw_cursor_be64(c);
    int16_t epoch = (int16_t)bw_cursor_be16(c);
    int32_t coordinator = (int32_t)bw_cursor_be32(c);
    int64_t transaction = (int64_t)bw_cursor_be64(c), last = (int64_t)bw_cursor_be64(c);
    uint64_t silent = bw_cursor_be64(c);
    uint8_t count = bw_cursor_u8(c);
    *broken = c->bad || id < 0 || epoch < 0 || coordinator < -1 || transaction < -1 || last < 0 || last >= limit || transaction > last ||
              silent > INT64_MAX || count > BW_PRODUCER_BATCHES || find(p, id);
    if (*broken) return NULL;
    producer *e = add(p, id, now_ms - (int64_t)silent);
    if (!e) return NULL;
    e->epoch = epoch;
    e->coordinator_epoch = coordinator;
    e->last_offset = last;
    e->transaction = transaction;
    for (; e->count < count && !*broken; e->count++) {
        bw_producer_batch b = {.first = (int32_t)bw_cursor_be32(c), .last = (int32_t)bw_cursor_be32(c)};
        b.base_offset = (int64_t)bw_cursor_be64(c);
        b.timestamp = (int64_t)bw_cursor_be64(c);
        *broken = c->bad || b.first < 0 || b.last < 0 || b.base_offset < 0 || b.base_offset > last || b.timestamp < -1 ||
                  (e->count && b.base_offset <= e->batches[e->count - 1].base_offset);
        e->batches[e->count] = b;
    }
    return e;
}

static int by_transaction(const void *a, const void *b)
{
    int64_t x = (*(producer *const *)a)->transaction, y = (*(producer *const *)b)->transaction;
    return (x > y) - (x < y);
}

/* The list of open transactions, in order. */
static bw_err link_open(bw_producers *p, size_t count)
{
    if (!count) return BW_OK;
    producer **all = malloc(count * sizeof *all), *e;
    if (!all) return no_memory();
    size_t n = 0;
    DL_FOREACH(p->order, e)
    {
        if (e->transaction >= 0) all[n++] = e;
    }
    qsort(all, n, sizeof *all, by_transaction);
    for (size_t i = 0; i < n; i++) DL_APPEND2(p->open, all[i], open_prev, open_next);
    free(all);
    return BW_OK;
}

bw_err bw_producers_decode(const void *data, size_t len, int64_t now_ms, bw_producers **out, int64_t *offset)
{
    bw_cursor c = bw_cursor_over(data, len);
    int version = bw_cursor_u8(&c);
    *out = NULL;
    if (!c.bad && version > SNAPSHOT_VERSION)
        return bw_fail(BW_ERR_NEWER_FORMAT, "a snapshot of producers has version %d; this program knows %d", version, SNAPSHOT_VERSION);
    *offset = (int64_t)bw_cursor_be64(&c);
    uint32_t count = bw_cursor_be32(&c);
    bool broken = c.bad || version != SNAPSHOT_VERSION || *offset < 0 || count > bw_cursor_left(&c) / ENTRY_BYTES;
    bw_producers *p = broken ? NULL : bw_producers_new();
    if (!broken && !p) return no_memory();
    size_t open = 0;
    bool lost = false;
    for (uint32_t i = 0; !broken && !lost && i < count; i++) {
        producer *e = take_entry(p, &c, *offset, now_ms, &broken);
        lost = !e;
        open += e && e->transaction >= 0;
    }
    broken = broken || (!lost && bw_cursor_left(&c));
    bw_err e = broken ? bw_fail(BW_ERR_CORRUPT, "a snapshot of producers is broken") : lost ? no_memory() : BW_OK;
    if (!e) e = link_open(p, open);
    if (e) {
        bw_producers_free(p);
        return e;
    }
    *out = p;
    return BW_OK;
}
