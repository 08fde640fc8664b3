/* log/partition_producers.c: the state of producers and transactions of the log, and its snapshots.
 *
 * The table is fed by following the log (partition_index.c), which the coordinator does anyway: so it is at any time exactly the state of
 * all batches below one offset, whoever appended them, and costs plain batches one compare.
 *
 * Snapshots. The state is stored with the recovery point, in one transaction of the caller's, so that a start walks no more of the log
 * than what lies behind it, and so that nothing is lost of it when retention or compaction removes the batches. A sync takes the
 * state of the very offset that it makes durable:
 *   begin   (mutex; S1 was loaded, everything below it is followed) unless an abort is between its marker and its index entry
 *   sync    the .txnindex files that have grown
 *   end     the point says: this state, at this offset
 * so that the state never knows of a batch that a power cut can take, and every index entry of a marker below it is on the disk. A
 * partition whose table has not changed stores nothing: the old snapshot holds at the new offset as well. A large table is stored
 * when the log has grown by many times its size, or after a while: a start then walks headers of that much.
 *
 * Loading: snapshot, then the headers from its offset to the end. If it is missing, or not the one that the point names, all headers of
 * the log. Index entries of the markers that are walked over are put into their files again, in front of which readers are kept by
 * first_unstable (takeover), or by the slot that is not open yet (recovery). An index with an entry that is none is made anew as a whole. */
#include "log/segment.h"

#include "base/clock.h"
#include "base/crc32c.h"
#include "base/killpoint.h"
#include "log/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum {
    SNAPSHOT_SMALL = 4096,         /* bytes that go with every point */
    SNAPSHOT_LOG_TIMES = 16,       /* larger ones when the log has grown by so many times their size, */
    SNAPSHOT_EVERY_MS = 60 * 1000, /* or after so long */
    MARKER_MOST = 4096,            /* bytes of a control batch that is looked at */
    INDEX_MOST = 32 << 20,
};

/* ---- following ---- */

/* A control batch: the end of a transaction? *aborted is filled, and true returned, when it ended one that is to be indexed. */
static bool note_control(bw_partition *p, bw_walk *w, bw_aborted *aborted)
{
    const uint8_t *data;
    bw_marker m;
    int64_t first;
    if (w->size > MARKER_MOST || bw_walk_batch(w, &data) != BW_OK || bw_marker_read(data, &w->header, &m) != BW_OK) return false;
    int64_t offset = w->header.base_offset;
    if (!bw_producers_note_marker(p->producers, &m, offset, bw_clock_mono_ms(), &first) || m.commit) return false;
    int64_t stable = bw_producers_first_unstable(p->producers);
    *aborted = (bw_aborted){m.producer_id, first, offset, stable < offset + 1 ? stable : offset + 1};
    return true;
}

static bw_err note(bw_partition *p, bw_walk *w, bw_aborted_list *aborted)
{
    const bw_batch_header *h = &w->header;
    bw_aborted one;
    bw_err e = BW_OK;
    if (h->base_offset < p->producers_next) return BW_OK; /* noted before something else failed */
    if (h->attributes & BW_ATTR_CONTROL) {
        if (note_control(p, w, &one) && aborted) e = bw_aborted_list_add(aborted, &one);
    } else if (h->base_sequence >= 0 && h->producer_epoch >= 0) {
        int64_t timestamp = h->attributes & BW_ATTR_LOG_APPEND_TIME ? h->max_timestamp : -1;
        e = bw_producers_note(p->producers, h, h->base_offset, timestamp, 0, bw_clock_mono_ms());
    }
    if (!e) p->producers_next = w->next_offset;
    return e;
}

bw_err bw_partition_note_batch(bw_partition *p, bw_walk *w) { return note(p, w, NULL); }

/* ---- loading ---- */

/* Where to begin in segment s for batches from `from` on: an indexed batch below it, or byte 0. */
static uint32_t start_in(bw_partition *p, const bw_segment *s, int64_t from, bw_walk *w)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    uint32_t at = 0;
    if (from <= s->base_offset) return 0;
    bw_segment_name(name, s->base_offset, ".index");
    int fd = bw_os_open_beneath(bw_partition_dir(p), name, O_RDONLY, 0);
    if (fd < 0) return 0;
    uint8_t *data = bw_os_fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= INDEX_MOST ? malloc((size_t)st.st_size) : NULL;
    ssize_t n = data ? bw_os_pread(fd, data, (size_t)st.st_size, 0) : 0;
    if (n > 0) at = bw_index_floor(data, bw_index_entries(data, (size_t)n, s->length), s->base_offset, from);
    free(data);
    bw_os_close(fd);
    if (at == 0) return 0;
    w->position = at; /* a hint: is there a sound batch? */
    w->next_offset = -1;
    w->check_crc = true;
    bool holds = bw_walk_next(w) == BW_OK && w->header.base_offset >= s->base_offset && w->header.base_offset <= from;
    w->leader_epoch = INT32_MIN;
    return holds ? at : 0;
}

/* Headers of segment s from offset `from` on. CORRUPT: it cannot be read to its end. */
static bw_err walk_segment(bw_partition *p, const bw_segment *s, int64_t from, bw_aborted_list *aborted)
{
    int fd;
    bool own;
    bw_walk w;
    bw_err e = bw_segment_read_fd(p, s, &fd, &own);
    if (e) return e;
    e = bw_walk_init_fd(&w, fd, false, s->length, NULL, 0);
    if (!e) {
        w.gaps_below = p->gaps_below;
        w.position = start_in(p, s, from, &w);
        w.next_offset = w.position ? -1 : s->base_offset;
        w.check_crc = false;
        while (!e && w.position < s->length) {
            e = bw_walk_next(&w);
            if (e == BW_ERR_EMPTY) e = BW_ERR_CORRUPT;
            if (!e && w.header.producer_id >= 0 && w.header.base_offset >= from) e = note(p, &w, aborted);
        }
        bw_walk_fini(&w);
    }
    if (own) bw_os_close(fd);
    return e;
}

static bw_err walk_from(bw_partition *p, int64_t from)
{
    for (size_t i = 0; i < p->count; i++) {
        const bw_segment *s = p->segments[i];
        if ((i + 1 < p->count ? p->segments[i + 1]->base_offset : s->next_offset) <= from || s->length == 0) continue;
        bw_aborted_list aborted = {0};
        bool changed = false;
        bw_err e = walk_segment(p, s, from, &aborted);
        /* What rots in an old segment is found by those who read it; it keeps no partition closed. */
        bool read = e == BW_OK;
        if (e == BW_ERR_CORRUPT || e == BW_ERR_NOT_FOUND) e = BW_OK;
        if (!e && read)
            e = bw_txn_index_restore(bw_partition_dir(p), s->base_offset, from > s->base_offset ? from : s->base_offset, aborted.items,
                                     aborted.count, &changed);
        bw_aborted_list_free(&aborted);
        if (changed && !bw_partition_unsynced_index(p, s->base_offset, true)) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for an index");
        if (e) return e;
    }
    return BW_OK;
}

/* The index of segment `at` anew, whatever it holds: transactions may have begun in any segment before it. */
static bw_err rebuild_index(bw_partition *p, size_t at)
{
    const bw_segment *s = p->segments[at];
    bw_aborted_list aborted = {0};
    bw_producers *kept = p->producers;
    int64_t kept_next = p->producers_next;
    bool changed = false;
    bw_err e = (p->producers = bw_producers_new()) ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for the producers' state");
    p->producers_next = 0;
    for (size_t i = 0; !e && i <= at; i++) {
        e = walk_segment(p, p->segments[i], p->segments[i]->base_offset, i == at ? &aborted : NULL);
        if (i < at && (e == BW_ERR_CORRUPT || e == BW_ERR_NOT_FOUND)) e = BW_OK;
    }
    if (!e) e = bw_txn_index_restore(bw_partition_dir(p), s->base_offset, s->base_offset, aborted.items, aborted.count, &changed);
    bw_aborted_list_free(&aborted);
    bw_producers_free(p->producers);
    p->producers = kept;
    p->producers_next = kept_next;
    if (changed && !bw_partition_unsynced_index(p, s->base_offset, false)) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for an index");
    return e;
}

/* Indexes that rot are made anew, so that committed readers, whom they stop, can go on. */
static bw_err mend_indexes(bw_partition *p)
{
    bw_err e = BW_OK;
    for (size_t i = 0; !e && i < p->count; i++) {
        bw_aborted_list list = {0};
        uint64_t end;
        int64_t base = p->segments[i]->base_offset;
        if (bw_txn_index_read(bw_partition_dir(p), base, 0, base - 1, &list, &end) == BW_ERR_CORRUPT) e = rebuild_index(p, i);
        bw_aborted_list_free(&list);
        if (e == BW_ERR_CORRUPT || e == BW_ERR_NOT_FOUND) e = BW_OK; /* the segment itself cannot be read */
    }
    return e;
}

/* Never 0, which says that there is no snapshot. */
static uint32_t crc_of(const void *data, size_t len)
{
    uint32_t crc = bw_crc32c(data, len);
    return crc ? crc : 1;
}

/* true: the state at *from is in the table. */
static bool take_snapshot(bw_partition *p, const bw_recovery_point *point, const uint8_t *snapshot, size_t len, int64_t *from)
{
    if (!point->known || point->state_offset < 0) return false;
    if (point->state_crc == 0) {
        *from = point->state_offset;
        return true;
    }
    bw_producers *table;
    int64_t made;
    if (!snapshot || crc_of(snapshot, len) != point->state_crc) return false;
    if (bw_producers_decode(snapshot, len, bw_clock_mono_ms(), &table, &made) != BW_OK) return false;
    bw_producers_free(p->producers);
    p->producers = table;
    p->snapshot_bytes = len;
    *from = point->state_offset;
    return true;
}

bw_err bw_partition_load_producers(bw_partition *p, const bw_recovery_point *point, const uint8_t *snapshot, size_t len)
{
    const bw_segment *a = bw_partition_active(p);
    int64_t from = 0, end = a->next_offset;
    p->producers = bw_producers_new();
    if (!p->producers) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the producers' state");
    bool there = take_snapshot(p, point, snapshot, len, &from);
    if (there && from > end) { /* of other files: restored from a copy */
        bw_producers_free(p->producers);
        p->producers = bw_producers_new();
        if (!p->producers) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the producers' state");
        there = false;
    }
    p->producers_next = from = there ? from : 0;
    p->point.state_offset = there ? point->state_offset : -1;
    p->point.state_crc = there ? point->state_crc : 0;
    p->snapshot_changes = there ? bw_producers_changes(p->producers) : UINT64_MAX;
    p->snapshot_mono_ms = bw_clock_mono_ms();
    bw_err e = p->just_created || from == end ? BW_OK : walk_from(p, from);
    return e || !p->has_indexes ? e : mend_indexes(p);
}

void bw_partition_producers_fini(bw_partition *p)
{
    bw_producers_free(p->producers);
    bw_buf_free(&p->snapshot);
    bw_aborted_list_free(&p->unindexed);
    free(p->unsynced_indexes);
    pthread_mutex_destroy(&p->txn_mutex);
}

/* ---- snapshots ---- */

static bool is_due(const bw_partition *p)
{
    return p->snapshot_bytes <= SNAPSHOT_SMALL || p->snapshot_log_bytes >= (uint64_t)p->snapshot_bytes * SNAPSHOT_LOG_TIMES ||
           bw_clock_mono_ms() - p->snapshot_mono_ms >= SNAPSHOT_EVERY_MS;
}

/* The files that have grown become the job's. */
static void take_unsynced(bw_partition *p, bw_state_job *j)
{
    pthread_mutex_lock(&p->txn_mutex);
    j->indexes = p->unsynced_indexes;
    j->index_count = p->unsynced_count;
    j->folder = p->index_created;
    p->unsynced_indexes = NULL;
    p->unsynced_count = p->unsynced_cap = 0;
    p->index_created = false;
    pthread_mutex_unlock(&p->txn_mutex);
}

void bw_partition_state_begin(bw_partition *p, int64_t offset, bw_state_job *j)
{
    *j = (bw_state_job){0};
    /* Loaded after the tail: a marker below it whose entry is not written yet was announced before it was published. */
    if (atomic_load_explicit(&p->aborting, memory_order_acquire)) return;
    j->changes = bw_producers_changes(p->producers);
    bool changed = j->changes != p->snapshot_changes;
    bool never = j->changes == 0 && bw_producers_count(p->producers) == 0; /* nothing to say: no snapshot */
    if (changed && !never && !is_due(p)) return;
    j->made = changed && !never;
    if (j->made && bw_producers_encode(p->producers, offset, bw_clock_mono_ms(), &j->snapshot) != BW_OK) {
        bw_buf_free(&j->snapshot);
        return;
    }
    j->moves = true;
    take_unsynced(p, j);
    BW_KILL_POINT("snapshot.made");
}

void bw_partition_state_sync(int dir_fd, bw_state_job *j)
{
    for (size_t i = 0; i < j->index_count; i++) {
        if (bw_txn_index_sync(dir_fd, j->indexes[i]) != BW_OK) j->moves = false;
        BW_KILL_POINT("snapshot.index_synced");
    }
}

void bw_partition_state_end(bw_partition *p, int64_t offset, bw_state_job *j, bool stored)
{
    if (j->moves && stored) {
        if (j->made) {
            bw_buf_free(&p->snapshot);
            p->snapshot = j->snapshot;
            j->snapshot = (bw_buf){0};
            p->snapshot_bytes = p->snapshot.len;
            p->snapshot_log_bytes = 0;
            p->snapshot_mono_ms = bw_clock_mono_ms();
            p->point.state_crc = crc_of(p->snapshot.data, p->snapshot.len);
        }
        p->snapshot_changes = j->changes;
        p->point_moved |= j->made || p->point.state_offset != offset;
        p->point.state_offset = offset;
    } else {
        for (size_t i = 0; i < j->index_count; i++) (void)bw_partition_unsynced_index(p, j->indexes[i], j->folder);
    }
    bw_buf_free(&j->snapshot);
    free(j->indexes);
    *j = (bw_state_job){0};
}

bool bw_partition_unsynced_index(bw_partition *p, int64_t base_offset, bool created)
{
    bool there = false;
    pthread_mutex_lock(&p->txn_mutex);
    p->index_created |= created;
    for (size_t i = 0; i < p->unsynced_count; i++) there |= p->unsynced_indexes[i] == base_offset;
    if (!there && p->unsynced_count == p->unsynced_cap) {
        size_t cap = p->unsynced_cap ? 2 * p->unsynced_cap : 4;
        int64_t *more = realloc(p->unsynced_indexes, cap * sizeof *more);
        if (more) {
            p->unsynced_indexes = more;
            p->unsynced_cap = cap;
        }
    }
    bool room = there || p->unsynced_count < p->unsynced_cap;
    if (!there && room) p->unsynced_indexes[p->unsynced_count++] = base_offset;
    pthread_mutex_unlock(&p->txn_mutex);
    return room;
}

bool bw_partition_recovery_point(bw_partition *p, bw_recovery_point *out, bw_buf *snapshot)
{
    bw_partition_lock(p);
    bool moved = p->point_moved;
    p->point_moved = false;
    *out = p->point;
    if (snapshot && moved) {
        *snapshot = p->snapshot;
        p->snapshot = (bw_buf){0};
    }
    bw_partition_unlock(p);
    return moved;
}

void bw_partition_point_lost(bw_partition *p)
{
    bw_partition_lock(p);
    p->point.state_offset = -1;
    p->point.state_crc = 0;
    p->snapshot_changes = UINT64_MAX;
    p->snapshot_bytes = 0;
    p->point_moved = true;
    bw_partition_unlock(p);
}

/* ---- questions ---- */

/* mutex held. */
static bw_err follow_all(bw_partition *p)
{
    bw_position tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
    bw_partition_adopt_rolls(p, tail);
    return bw_partition_follow(p, tail);
}

bw_err bw_partition_producers(bw_partition *p, bw_producers **out)
{
    bw_partition_lock(p);
    bw_err e = follow_all(p);
    *out = e ? NULL : bw_producers_copy(p->producers);
    bw_partition_unlock(p);
    if (!e && !*out) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the producers' state");
    return e ? bw_error_context(e, "partition %s", p->dir_name) : BW_OK;
}

bw_err bw_partition_producer_last(bw_partition *p, int64_t producer_id, bw_producer_info *out)
{
    bw_partition_lock(p);
    bw_err e = follow_all(p);
    bool known = !e && bw_producers_get(p->producers, producer_id, bw_clock_mono_ms(), out);
    bw_partition_unlock(p);
    if (!e && !known) return bw_fail(BW_ERR_NOT_FOUND, "producer %lld has written nothing to %s", (long long)producer_id, p->dir_name);
    return e ? bw_error_context(e, "partition %s", p->dir_name) : BW_OK;
}

void bw_partition_expire_producers(bw_partition *p, int64_t silent_ms)
{
    bw_partition_lock(p);
    bw_producers_expire(p->producers, bw_clock_mono_ms() - silent_ms);
    bw_partition_unlock(p);
}
