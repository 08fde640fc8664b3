/* log/read_aborted.c: which batches belong to aborted transactions: for committed readers.
 *
 * A transaction that was aborted has its entry in the .txnindex of the segment of its *marker*: those that concern the reader's segment
 * may lie in any later one. They are read from the reader's segment on, in the order of their markers, and kept.
 *   slot.aborts is loaded before files are read, and first_unstable was loaded before that: an entry of whatever is decided below the
 *     reader's bound is in the files by then. Read again, from where reading ended, only when slot.aborts has moved.
 *   For an entry i and any later one j: first(j) >= stable(i), because below the last stable offset all was decided. So a search ends at the
 *     first entry whose `stable` lies above the batch, and a list that was cut off after entry i is complete for all batches below stable(i).
 *   Entries are appended by one thread in the order of the markers: when a file has one, no older file grows any more.
 * The cleaner merges segments, and their indexes: the entries of one that is gone are in the next older one (which is read too), and that
 * one is another file than before: whoever has read it in part, or lost one that was listed, reads all of them again. */
#include "log/reader.h"

#include "format/names.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum { ENTRIES_MOST = 64 << 10, REPLACED_TRIES = 16 };

typedef struct base_list {
    int64_t from;
    int64_t *items;
    size_t count, cap;
    bool failed;
} base_list;

static bool add_base(base_list *l, int64_t base)
{
    if (l->count == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 16;
        int64_t *more = realloc(l->items, cap * sizeof *more);
        if (!more) return !(l->failed = true);
        l->items = more;
        l->cap = cap;
    }
    l->items[l->count++] = base;
    return true;
}

static bool list_one(void *opaque, const char *name)
{
    base_list *l = opaque;
    int64_t base;
    if (!bw_segment_name_parse(name, BW_TXN_INDEX_SUFFIX, &base)) return true;
    if (base < l->from) { /* of older ones only the newest */
        if (l->count == 0 || l->items[0] >= l->from) {
            if (!add_base(l, base)) return false;
            int64_t first = l->items[0];
            l->items[0] = base;
            if (l->count > 1) l->items[l->count - 1] = first;
        } else if (base > l->items[0]) l->items[0] = base;
        return true;
    }
    return add_base(l, base);
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Indexes of segments from l->from on, and the one before. */
static bw_err list_indexes(const bw_reader *r, base_list *l)
{
    if (bw_os_list_dir(r->dir_fd, list_one, l) != 0) return bw_fail_errno(errno, "cannot list the partition's folder");
    if (l->failed) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the list of indexes");
    if (l->count) qsort(l->items, l->count, sizeof *l->items, ascending);
    return BW_OK;
}

/* Which file has the name: its inode; 0: none. */
static uint64_t index_file(const bw_reader *r, int64_t base)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    bw_segment_name(name, base, BW_TXN_INDEX_SUFFIX);
    return bw_os_stat_at(r->dir_fd, name, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

/* One file, from where reading ended. Of what it gives nothing that ends below `low` is kept. */
static bw_err read_one(bw_reader *r, int64_t base, int64_t low)
{
    bool more = base == r->aborted_base;
    uint64_t file = index_file(r, base);
    if (more && file != r->aborted_file) return BW_ERR_CORRUPT; /* replaced: read it all again */
    size_t kept = r->aborted.count;
    uint64_t end;
    int64_t before = more ? r->aborted_before : base - 1;
    bw_err e = bw_txn_index_read(r->dir_fd, base, more ? r->aborted_bytes : 0, before, &r->aborted, &end);
    if (!e && index_file(r, base) != file) e = BW_ERR_CORRUPT;
    if (e) return e;
    if (end > 0) {
        r->aborted_base = base;
        r->aborted_file = file;
        r->aborted_bytes = end;
        if (r->aborted.count > kept) r->aborted_before = r->aborted.items[r->aborted.count - 1].last;
    }
    for (size_t i = kept; i < r->aborted.count; i++)
        if (r->aborted.items[i].last >= low) r->aborted.items[kept++] = r->aborted.items[i];
    r->aborted.count = kept;
    return BW_OK;
}

static void forget(bw_reader *r, int64_t low)
{
    r->aborted.count = r->aborted_from = 0;
    r->aborted_base = -1;
    r->aborted_bytes = 0;
    r->aborted_low = low;
    r->aborted_until = 0;
}

/* What is behind the position is not needed any more. */
static void drop_passed(bw_reader *r, int64_t low)
{
    size_t kept = 0;
    for (size_t i = r->aborted_from; i < r->aborted.count; i++) r->aborted.items[kept++] = r->aborted.items[i];
    r->aborted.count = kept;
    r->aborted_from = 0;
    r->aborted_low = low;
}

static bw_err read_files(bw_reader *r, int64_t from, int64_t low)
{
    base_list l = {.from = from};
    bw_err e = list_indexes(r, &l);
    int64_t until = INT64_MAX;
    for (size_t i = 0; !e && i < l.count && until == INT64_MAX; i++) {
        e = read_one(r, l.items[i], low);
        size_t n = r->aborted.count;
        if (!e && n >= ENTRIES_MOST && i + 1 < l.count && r->aborted.items[n - 1].stable > low) until = r->aborted.items[n - 1].stable;
    }
    free(l.items);
    r->aborted_until = e ? 0 : until;
    return e;
}

/* Only the newest segment's index can have grown, and it was read before. */
static bool only_newest(const bw_reader *r)
{
    uint32_t seq = bw_position_seq(atomic_load_explicit(&r->slot->tail, memory_order_acquire));
    const bw_ring_entry *e = bw_ring_at(r->slot, seq);
    int64_t base = (int64_t)atomic_load_explicit(&e->base_offset, memory_order_acquire);
    return atomic_load_explicit(&e->seq, memory_order_acquire) == seq && base == r->aborted_base;
}

static bw_err refresh(bw_reader *r, int64_t offset)
{
    uint64_t aborts = atomic_load_explicit(&r->slot->aborts, memory_order_acquire);
    bool go_on = r->aborted_until == INT64_MAX && offset >= r->aborted_low && r->aborted_base >= 0;
    bool entered = bw_reader_enter(r);
    bw_err e = BW_OK;
    if (go_on) {
        drop_passed(r, offset);
        e = only_newest(r) ? read_one(r, r->aborted_base, offset) : read_files(r, r->aborted_base, offset);
    }
    if (!go_on) e = BW_ERR_CORRUPT;
    for (int tries = 0; (e == BW_ERR_CORRUPT || e == BW_ERR_NOT_FOUND) && tries < REPLACED_TRIES; tries++) {
        forget(r, offset);
        e = read_files(r, r->window.base_offset, offset);
    }
    bw_reader_leave(r, entered);
    if (e) {
        forget(r, offset);
        return bw_error_context(e, "partition %u: aborted transactions", r->partition);
    }
    r->aborts_seen = aborts;
    return BW_OK;
}

bw_err bw_reader_is_aborted(bw_reader *r, const bw_batch_header *h, bool *aborted)
{
    int64_t at = h->base_offset;
    *aborted = false;
    if (h->attributes & BW_ATTR_CONTROL) return BW_OK;
    bool moved = r->aborted_until == INT64_MAX && atomic_load_explicit(&r->slot->aborts, memory_order_acquire) != r->aborts_seen;
    if (moved || at >= r->aborted_until || at < r->aborted_low) {
        bw_err e = refresh(r, at);
        if (e) return e;
    }
    while (r->aborted_from < r->aborted.count && r->aborted.items[r->aborted_from].last < at) r->aborted_from++;
    r->aborted_low = at;
    for (size_t i = r->aborted_from; i < r->aborted.count; i++) {
        const bw_aborted *a = &r->aborted.items[i];
        if (a->producer_id == h->producer_id && a->first <= at && at < a->last) {
            *aborted = true;
            return BW_OK;
        }
        if (a->stable > at) break;
    }
    return BW_OK;
}
