/* log/compact_swap.c: a cleaned segment takes the place of those it was made from, live or at the next open.
 *
 * The order, and why, is in compact.h. "<base>.seal.swap" is the decision: it is written and synced under another name, and every file it
 * speaks of has its name on the disk before it gets this one. From then on each step may be done again by whoever comes next. */
#include "log/compact_pass.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "log/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOCK_TRIES = 50 };

typedef char swap_name[BW_SEGMENT_NAME_MAX + 8];

static void name_of(swap_name out, int64_t base, const char *suffix, const char *more)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, base, suffix);
    snprintf(out, sizeof(swap_name), "%.*s%s", BW_SEGMENT_NAME_MAX - 1, name, more);
}

/* ---- names: done live, and again by recovery ---- */

/* Segments' base offsets, as the folder has them. */
typedef struct bases {
    int64_t *list;
    size_t count, cap;
    const char *suffix;
    int64_t above, below; /* only those in between */
    bool failed;
} bases;

static bool note_base(void *opaque, const char *name)
{
    bases *l = opaque;
    int64_t base;
    if (!bw_segment_name_parse(name, l->suffix, &base) || base <= l->above || base >= l->below) return true;
    if (l->count == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 8;
        int64_t *more = realloc(l->list, cap * sizeof *more);
        if (!more) return !(l->failed = true);
        l->list = more;
        l->cap = cap;
    }
    l->list[l->count++] = base;
    return true;
}

static int by_offset(const void *x, const void *y)
{
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return (a > b) - (a < b);
}

/* In ascending order. The list is the caller's to free, also after an error. */
static bw_err list_bases(bw_partition *p, bases *l)
{
    if (bw_os_list_dir(bw_partition_dir(p), note_base, l) != 0) return bw_fail_errno(errno, "cannot list the partition's folder");
    if (l->failed) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a list of segments");
    if (l->count > 1) qsort(l->list, l->count, sizeof *l->list, by_offset);
    return BW_OK;
}

/* The oldest goes first: whoever has read one of them to its end and does not find the next one then does not find the one that it has
 * read either, and looks for the merged one (read_locate.c). */
static bw_err unlink_covered(bw_partition *p, int64_t base, int64_t next)
{
    bases l = {.suffix = ".log", .above = base, .below = next};
    bw_err e = list_bases(p, &l);
    for (size_t i = 0; !e && i < l.count; i++) {
        swap_name name;
        name_of(name, l.list[i], ".log", "");
        if (bw_os_unlink(bw_partition_dir(p), name, 0) != 0 && errno != ENOENT) e = bw_fail_errno(errno, "cannot remove %s, which was merged", name);
        else bw_segment_unlink_hints(p, l.list[i]);
        BW_KILL_POINT("compact.covered");
    }
    free(l.list);
    return e;
}

static bw_err rename_cleaned(int dir, int64_t base, const char *suffix)
{
    swap_name from, to;
    name_of(from, base, suffix, COMPACT_CLEANED);
    name_of(to, base, suffix, "");
    if (bw_os_rename(dir, from, dir, to) == 0 || errno == ENOENT) return BW_OK;
    return bw_fail_errno(errno, "cannot rename %s to %s", from, to);
}

/* mutex held. *placed: the new log is in the old one's place; what fails after that is left to the next open. */
static bw_err place(bw_partition *p, const bw_seal *seal, bool *placed)
{
    int dir = bw_partition_dir(p);
    int64_t base = seal->base_offset;
    swap_name name, swap;
    *placed = false;
    name_of(name, base, ".seal", "");
    name_of(swap, base, COMPACT_SWAP, "");
    if (bw_os_unlink(dir, name, 0) != 0 && errno != ENOENT) return bw_fail_errno(errno, "cannot remove %s", name);
    BW_KILL_POINT("compact.unsealed");
    bw_err e = rename_cleaned(dir, base, ".log");
    if (e) return e;
    *placed = true;
    BW_KILL_POINT("compact.replaced");
    static const char *const hints[] = {".index", ".timeindex", ".txnindex"};
    for (int i = 0; !e && i < 3; i++) e = rename_cleaned(dir, base, hints[i]);
    BW_KILL_POINT("compact.hints");
    if (!e && bw_os_link(dir, swap, dir, name) != 0) e = bw_fail_errno(errno, "cannot link %s to %s", swap, name);
    BW_KILL_POINT("compact.resealed");
    return e ? e : unlink_covered(p, base, seal->next_offset);
}

/* The old indexes belong to the old log. A .txnindex that is to stay has a cleaned one. mutex held. */
static void unlink_old_hints(bw_partition *p, int64_t base)
{
    static const char *const hints[] = {".index", ".timeindex"};
    swap_name name;
    for (int i = 0; i < 2; i++) {
        name_of(name, base, hints[i], "");
        (void)bw_os_unlink(bw_partition_dir(p), name, 0);
    }
}

/* All names are as they should be: on the disk, then the decision is forgotten. */
static bw_err settle(bw_partition *p, int dir, int64_t base)
{
    swap_name swap;
    name_of(swap, base, COMPACT_SWAP, "");
    if (bw_os_sync_dir(dir) != 0) return bw_fail_errno(errno, "cannot sync folder %s", p->dir_name);
    BW_KILL_POINT("compact.settled");
    if (bw_os_unlink(dir, swap, 0) != 0 && errno != ENOENT) return bw_fail_errno(errno, "cannot remove %s", swap);
    BW_KILL_POINT("compact.done");
    return BW_OK;
}

/* ---- live ---- */

static bw_err raise_gaps(bw_partition *p, int dir, int64_t upto)
{
    if (p->gaps_below >= upto) return BW_OK;
    bw_err e = bw_offset_file_write(dir, BW_GAPS_FILE, upto);
    if (!e) p->gaps_below = upto;
    return e;
}

/* The place of the group in the list, if it is still what it was. mutex held. */
static bw_err find_group(compaction *c, size_t from, size_t n, size_t *at)
{
    bw_partition *p = c->p;
    uint32_t state = atomic_load_explicit(&p->slot->state, memory_order_acquire);
    if (state != BW_SLOT_OPEN || p->broken) return bw_fail(BW_ERR_DELETED, "%s was closed while it was cleaned", p->dir_name);
    size_t i = 0;
    while (i < p->count && p->segments[i]->base_offset < c->spans[from].base_offset) i++;
    bool same = i + n < p->count && i + n <= p->follow_at;
    for (size_t k = 0; same && k < n; k++) {
        const bw_segment *s = p->segments[i + k];
        const compact_span *was = &c->spans[from + k];
        same = s->base_offset == was->base_offset && s->inode == was->inode && s->next_offset == was->next_offset && s->sealed &&
               s->linked && !s->spare_name && s->fd < 0;
    }
    if (!same) return bw_fail(BW_ERR_BUSY, "segments of %s were deleted while they were cleaned", p->dir_name);
    *at = i;
    return BW_OK;
}

/* From here on nobody opens the old files by their ring entries. mutex held. */
static bw_err leave_ring(bw_partition *p, int64_t base, int64_t next)
{
    bw_err e = bw_partition_lock_slot(p);
    if (e) return e;
    uint32_t newest = bw_position_seq(atomic_load_explicit(&p->slot->tail, memory_order_relaxed));
    for (int i = 0; i < (int)BW_RING; i++) {
        bw_ring_entry *r = &p->slot->ring[i];
        uint32_t seq = atomic_load_explicit(&r->seq, memory_order_relaxed);
        int64_t begins = (int64_t)atomic_load_explicit(&r->base_offset, memory_order_relaxed);
        if (seq && seq < newest && begins >= base && begins < next) atomic_store_explicit(&r->inode, 0, memory_order_seq_cst);
    }
    bw_partition_unlock_slot(p);
    return BW_OK;
}

static bw_err begin_swap(compaction *c, size_t from, size_t n)
{
    bw_partition *p = c->p;
    int64_t base = c->spans[from].base_offset, next = c->spans[from + n - 1].next_offset;
    bw_err e = BW_ERR_LOCK_HELD;
    for (int tries = 0; e == BW_ERR_LOCK_HELD && tries < LOCK_TRIES; tries++) {
        size_t at;
        bw_partition_lock(p);
        e = find_group(c, from, n, &at);
        if (!e) e = leave_ring(p, base, next);
        if (!e) p->swapping = true; /* retention leaves the files alone */
        bw_partition_unlock(p);
        if (e == BW_ERR_LOCK_HELD && compaction_step(c, 0) != BW_OK) return BW_ERR_WOKEN;
    }
    return e == BW_ERR_LOCK_HELD ? bw_error_context(BW_ERR_BUSY, "cleaning %s", p->dir_name) : e;
}

static bw_err decide(compaction *c, int64_t base)
{
    swap_name from, to;
    name_of(from, base, ".seal", COMPACT_CLEANED);
    name_of(to, base, COMPACT_SWAP, "");
    if (bw_os_rename(c->dir_fd, from, c->dir_fd, to) != 0) return bw_fail_errno(errno, "cannot rename %s to %s", from, to);
    BW_KILL_POINT("compact.renamed");
    if (bw_os_sync_dir(c->dir_fd) != 0) return bw_fail_errno(errno, "cannot sync folder %s", c->p->dir_name);
    BW_KILL_POINT("compact.decided");
    return BW_OK;
}

/* The new segment in the list's place of n old ones; mutex held. */
static void replace_in_list(compaction *c, size_t at, size_t n, const compact_new *fresh, bw_segment *s)
{
    bw_partition *p = c->p;
    struct stat st;
    swap_name name;
    name_of(name, s->base_offset, ".log", "");
    if (bw_os_stat_at(bw_partition_dir(p), name, &st) == 0) {
        s->inode = (uint64_t)st.st_ino;
        s->mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    } else s->mtime_ms = p->segments[at + n - 1]->mtime_ms;
    s->next_offset = fresh->seal.next_offset;
    s->length = s->final_length = s->file_bytes = s->limit = fresh->seal.length;
    s->max_timestamp = fresh->max_timestamp;
    s->linked = s->rolled = s->sealed = s->exact = true;
    s->seen_mono_ms = p->segments[at + n - 1]->seen_mono_ms;
    for (size_t i = 0; i < n; i++) bw_partition_remove_at(p, at);
    memmove(&p->segments[at + 1], &p->segments[at], (p->count - at) * sizeof *p->segments); /* there is room: one was there */
    p->segments[at] = s;
    p->count++;
    p->follow_at++;
}

static bw_err swap_names(compaction *c, size_t from, size_t n, const compact_new *fresh, bool *placed)
{
    bw_partition *p = c->p;
    size_t at;
    *placed = false;
    bw_segment *s = bw_segment_new(p, fresh->seal.base_offset);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a segment");
    pthread_rwlock_wrlock(&p->files_lock);
    bw_partition_lock(p);
    bw_err e = find_group(c, from, n, &at);
    if (!e) {
        unlink_old_hints(p, fresh->seal.base_offset);
        e = place(p, &fresh->seal, placed);
    }
    p->dir_dirty = true;
    if (*placed) replace_in_list(c, at, n, fresh, s);
    else bw_segment_free(s);
    bw_partition_unlock(p);
    pthread_rwlock_unlock(&p->files_lock);
    return e;
}

bw_err compaction_swap(compaction *c, size_t from, size_t n, const compact_new *fresh)
{
    bw_partition *p = c->p;
    int64_t base = fresh->seal.base_offset;
    swap_name swap;
    bool placed = false;
    bw_err e = raise_gaps(p, c->dir_fd, fresh->seal.next_offset);
    BW_KILL_POINT("compact.gaps");
    if (!e && bw_os_sync_dir(c->dir_fd) != 0) e = bw_fail_errno(errno, "cannot sync folder %s", p->dir_name);
    BW_KILL_POINT("compact.named");
    if (!e) e = begin_swap(c, from, n);
    if (e) return e;
    e = decide(c, base);
    if (!e) e = swap_names(c, from, n, fresh, &placed);
    if (!e) e = settle(p, c->dir_fd, base);
    if (e && !placed) { /* the old ones stay */
        name_of(swap, base, COMPACT_SWAP, "");
        (void)bw_os_unlink(c->dir_fd, swap, 0);
    }
    bw_partition_lock(p);
    p->swapping = false;
    bw_partition_drop_deleted(p);
    bw_partition_unlock(p);
    return e;
}

/* ---- at open ---- */

/* Is this file the one that the seal describes? Its bytes were synced before the seal had its name: headers will do. */
static bool is_sealed_by(bw_partition *p, const char *name, const bw_seal *seal)
{
    int fd = bw_os_open_beneath(bw_partition_dir(p), name, O_RDONLY, 0);
    struct stat st;
    if (fd < 0) return false;
    bw_walk w;
    bw_merkle m = {0};
    bool good = bw_os_fstat(fd, &st) == 0 && st.st_size == (off_t)seal->length &&
                bw_walk_init_fd(&w, fd, false, seal->length, NULL, 0) == BW_OK;
    if (good) {
        w.check_crc = false;
        w.next_offset = seal->base_offset;
        w.gaps_below = seal->next_offset;
        while (w.position < seal->length && bw_walk_next(&w) == BW_OK) bw_merkle_add(&m, w.first);
        good = w.position == seal->length && w.next_offset == seal->next_offset && m.count == seal->batches &&
               bw_merkle_root(&m) == seal->root;
        bw_walk_fini(&w);
    }
    bw_os_close(fd);
    return good;
}

static bool read_swap(bw_partition *p, int64_t base, bw_seal *seal)
{
    char bytes[BW_SEAL_BYTES + 2];
    size_t len;
    swap_name name;
    name_of(name, base, COMPACT_SWAP, "");
    return bw_smallfile_read(bw_partition_dir(p), name, bytes, sizeof bytes, &len) == BW_OK &&
           bw_seal_decode((const uint8_t *)bytes, len, seal) == BW_OK && seal->base_offset == base;
}

static bw_err finish_swap(bw_partition *p, int64_t base)
{
    bw_seal seal;
    swap_name log, cleaned, swap;
    bool placed;
    name_of(log, base, ".log", "");
    name_of(cleaned, base, ".log", COMPACT_CLEANED);
    name_of(swap, base, COMPACT_SWAP, "");
    struct stat st;
    bool good = read_swap(p, base, &seal);
    bool waiting = good && bw_os_stat_at(bw_partition_dir(p), cleaned, &st) == 0;
    if (good) good = is_sealed_by(p, waiting ? cleaned : log, &seal);
    if (!good) { /* damaged, or another program has put the files in order meanwhile: the log is what its names say */
        if (bw_os_unlink(bw_partition_dir(p), swap, 0) != 0 && errno != ENOENT) return bw_fail_errno(errno, "cannot remove %s", swap);
        return BW_OK;
    }
    if (waiting) unlink_old_hints(p, base);
    bw_err e = place(p, &seal, &placed);
    return e ? e : settle(p, bw_partition_dir(p), base);
}

static bool unlink_cleaned(void *opaque, const char *name)
{
    size_t n = strlen(name), m = strlen(COMPACT_CLEANED);
    if (n > m && strcmp(name + n - m, COMPACT_CLEANED) == 0) (void)bw_os_unlink(bw_partition_dir(opaque), name, 0);
    return true;
}

bw_err bw_compact_recover(bw_partition *p)
{
    bases l = {.suffix = COMPACT_SWAP, .above = -1, .below = INT64_MAX};
    bw_err e = list_bases(p, &l);
    for (size_t i = 0; !e && i < l.count; i++) e = finish_swap(p, l.list[i]);
    free(l.list);
    if (!e && bw_os_list_dir(bw_partition_dir(p), unlink_cleaned, p) != 0) e = bw_fail_errno(errno, "cannot list the partition's folder");
    p->dir_dirty = true;
    return e;
}
