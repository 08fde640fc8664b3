/* log/partition_recover.c: make the log's state from its files, when the control data is new (reboot, new generation).
 *
 * What is trusted: a sealed segment (it was synced before its seal was written) while the recovery point is known; whatever lies
 * below the recovery point (it was synced before the point was written). Everything else is scanned: only whole batches with the
 * expected base offset, an epoch that does not go back and a right checksum count.
 *
 *   below the point, bad        corruption: the segment is renamed to "<base>.log.corrupt" (quarantine). Nothing of it is served:
 *                               readers of that range get CORRUPT where the neighbours do not join (OFFSET_OUT_OF_RANGE when it
 *                               was the oldest: the log then starts at the first sound segment). If it is the segment that
 *                               holds the point, what lies behind the point is copied to a new segment.
 *   above the point, bad        never known to be durable: the log is cut there, later segments are deleted.
 *   ends below the point, or    foreign: restored from a copy. Nothing is cut: the log goes on in a new segment if something
 *   has other bytes there       unreadable lies behind its end; the caller makes a new incarnation.
 *   no point (adopted, or LMDB  all is scanned; a bad segment in the middle is quarantined, never the reason to drop what follows;
 *   was lost)                   behind a bad batch in the last one the log goes on in a new segment, and what lies there stays.
 *                               Offsets may be missing between sound batches where there are no seals: Kafka had compacted it.
 *                               Then a small file keeps the offset below which gaps are no damage.
 *
 * What is below the point in the point's own segment is checked at its last 16 MiB only, so that a start does not read gigabytes;
 * the rest is checked when it is read, and by `busway verify`.
 *
 * The leader epoch goes up unless the file ends exactly where the log ends, and at the point, and there is no spare: allocated room
 * behind the end means that records may have been seen there which are now lost, even when no trace of them is left. (That is why
 * the first growth of a cleanly cut file, or a spare beside it, is synced before it is used: sync_grant; the size of an empty one
 * too: sync_room; and why a file that is written to is always longer than the log: BW_GRANT_MARGIN.) */
#include "log/recovery.h"

#include "base/killpoint.h"
#include "base/lock.h"
#include "log/compact.h"
#include "log/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECK_BELOW_POINT = 16 << 20, INDEX_FILE_MAX = 32 << 20, GARBAGE_LOOK = 1 << 20 };

/* ---- the recovery point's own segment ---- */

typedef enum point_check { POINT_HOLDS, POINT_CORRUPT, POINT_FOREIGN, POINT_ERROR } point_check;

/* A position from which to check, about 16 MiB below the point, where a batch begins according to the index; 0 if in doubt. */
static uint32_t check_from(recovery *r, const bw_segment *s)
{
    if (r->point.position <= CHECK_BELOW_POINT) return 0;
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, s->base_offset, ".index");
    int fd = bw_os_open_beneath(bw_partition_dir(r->p), name, O_RDONLY, 0);
    if (fd < 0) return 0;
    struct stat st;
    uint32_t from = 0, most = r->point.position - CHECK_BELOW_POINT;
    uint8_t *data = bw_os_fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= INDEX_FILE_MAX ? malloc((size_t)st.st_size) : NULL;
    ssize_t n = data ? bw_os_pread(fd, data, (size_t)st.st_size, 0) : 0;
    size_t entries = n > 0 ? bw_index_entries(data, (size_t)n, r->point.position) : 0;
    for (size_t i = 0; i < entries && bw_get_be32(data + i * BW_INDEX_ENTRY_BYTES + 4) <= most; i++)
        from = bw_get_be32(data + i * BW_INDEX_ENTRY_BYTES + 4);
    free(data);
    bw_os_close(fd);
    return from;
}

static point_check check_point(recovery *r, const bw_segment *s)
{
    const bw_recovery_point *pt = &r->point;
    if (pt->position == 0) return pt->next_offset == s->base_offset ? POINT_HOLDS : POINT_FOREIGN;
    if (s->file_bytes < pt->position) return POINT_FOREIGN;
    for (uint32_t from = check_from(r, s);; from = 0) {
        bw_scan scan = {.from = from, .next_offset = from ? -1 : s->base_offset, .leader_epoch = INT32_MIN, .until = pt->position,
                        .direct = r->direct};
        if (bw_segment_scan(r->p, s, &scan) != BW_OK) return POINT_ERROR;
        if (scan.position == pt->position)
            return scan.next_offset == pt->next_offset && scan.last_crc == pt->last_crc ? POINT_HOLDS : POINT_FOREIGN;
        if (from) continue; /* the index may have misled us */
        bw_walk w;
        bool zero = false;
        uint64_t at;
        bw_err e = bw_walk_init_fd(&w, s->fd, false, pt->position, NULL, 0);
        if (!e) e = bw_walk_zero_from(&w, scan.position, &zero, &at);
        bw_walk_fini(&w);
        if (e) return POINT_ERROR;
        if (zero) return POINT_FOREIGN; /* it simply ends there */
        if (scan.end == BW_ERR_EMPTY)
            (void)bw_fail(BW_ERR_CORRUPT, "segment %020lld.log: no batch at byte %u, below the recovery point", (long long)s->base_offset,
                          scan.position);
        return POINT_CORRUPT;
    }
}

/* ---- one segment after the other ---- */

static void note_epoch(recovery *r, int32_t epoch)
{
    r->scan_epoch = epoch;
    if (epoch > r->epoch) r->epoch = epoch;
}

static void joined(recovery *r, int64_t next_offset)
{
    r->expected = next_offset;
    if (next_offset > r->floor) r->floor = next_offset;
}

/* A scan's outcome becomes the segment's state; a segment that is not the last one is closed. */
static bw_err take_scan(recovery *r, size_t i, const bw_scan *scan, bool whole)
{
    bw_partition *p = r->p;
    bw_segment *s = p->segments[i];
    r->gap |= r->adopted && scan->gap;
    s->length = scan->position;
    s->next_offset = scan->next_offset;
    s->exact = whole;
    if (scan->max_timestamp > s->max_timestamp) s->max_timestamp = scan->max_timestamp;
    note_epoch(r, scan->leader_epoch);
    joined(r, s->next_offset);
    r->last_crc = scan->last_crc;
    r->indexed = whole;
    if (i + 1 == p->count) return BW_OK;
    if (whole) bw_indexer_complete(&p->indexer, bw_partition_dir(p));
    s->cut_due = true; /* not yet: until the epoch is written nothing may look like a clean stop */
    return bw_segment_close_rolled(p, s);
}

/* Scans segment i from `from`. *again: look at index i anew (it was quarantined). */
static bw_err scan_one(recovery *r, size_t i, uint32_t from, int64_t next_offset, bool *again)
{
    bw_partition *p = r->p;
    bw_segment *s = p->segments[i];
    bool whole = from == 0, last = i + 1 == p->count;
    if (whole) bw_indexer_restart(&p->indexer, bw_partition_dir(p), s->base_offset, p->config.index_interval_bytes);
    bw_scan scan = {.from = from, .next_offset = next_offset, .leader_epoch = whole ? r->scan_epoch : r->point.leader_epoch,
                    .until = s->file_bytes, .direct = r->direct, .indexer = whole ? &p->indexer : NULL};
    if (!whole) scan.last_crc = r->point.last_crc;
    bw_err e = bw_segment_scan(p, s, &scan);
    if (e) return e;
    bool below = r->known && !last && p->segments[i + 1]->base_offset <= r->point.segment_base;
    bool bad = scan.end == BW_ERR_CORRUPT;
    /* Whole, whatever follows its last batch: what the file held before it was used again. */
    if (!last && scan.next_offset == p->segments[i + 1]->base_offset) bad = false;
    if (bad && !last && (below || !r->known)) {
        *again = true;
        r->expected = -1;
        return bw_recovery_quarantine(r, i);
    }
    if (bad) {
        bw_recovery_note(r);
        r->garbage = true;
        if (!r->report->foreign) r->report->cut = true;
        r->report->cut_from_bytes += s->file_bytes - scan.position;
    }
    if (!last && r->known && !below && (bad || scan.next_offset != p->segments[i + 1]->base_offset)) {
        r->cut = true;
        e = bw_recovery_drop_from(r, i + 1);
        if (e) return e;
    }
    return take_scan(r, i, &scan, whole);
}

static bw_err load_sealed(recovery *r, size_t i, const bw_seal *seal, bool *again)
{
    bw_partition *p = r->p;
    bw_segment *s = p->segments[i];
    bw_err e = bw_segment_load_sealed(p, s, seal);
    if (!e && !r->known) { /* not trusted: read it all, and compare */
        bw_scan scan = {.next_offset = s->base_offset, .leader_epoch = INT32_MIN, .until = seal->length, .direct = r->direct};
        bw_indexer_begin(&p->indexer, s->base_offset, p->config.index_interval_bytes);
        scan.indexer = &p->indexer;
        e = bw_segment_scan(p, s, &scan);
        if (!e && scan.end == BW_ERR_CORRUPT) e = BW_ERR_CORRUPT;
        else if (!e && (scan.position != seal->length || scan.next_offset != seal->next_offset ||
                        bw_merkle_root(&p->indexer.merkle) != seal->root))
            e = bw_fail(BW_ERR_CORRUPT, "segment %020lld.log does not match its seal", (long long)s->base_offset);
        r->gap |= r->adopted && scan.gap;
        note_epoch(r, scan.leader_epoch);
        s->max_timestamp = scan.max_timestamp;
        s->exact = true;
    }
    if (e == BW_ERR_CORRUPT) {
        *again = true;
        r->expected = -1;
        if (seal->next_offset > r->floor) r->floor = seal->next_offset;
        return bw_recovery_quarantine(r, i);
    }
    if (!e) joined(r, s->next_offset);
    return e;
}

/* A gap or an overlap before segment i. *again: index i changed. */
static bw_err check_joint(recovery *r, size_t i, bool *again)
{
    bw_segment *s = r->p->segments[i];
    if (r->expected < 0 || s->base_offset == r->expected) return BW_OK;
    (void)bw_fail(BW_ERR_CORRUPT, "segment %020lld.log begins at offset %lld, the one before ends at %lld", (long long)s->base_offset,
                  (long long)s->base_offset, (long long)r->expected);
    if (s->base_offset < r->expected) {
        *again = true;
        return bw_recovery_quarantine(r, i);
    }
    bw_recovery_note(r);
    if (r->known && r->expected >= r->point.next_offset) { /* above the point: the segment before lost its end */
        *again = true;
        r->cut = true;
        return bw_recovery_drop_from(r, i);
    }
    return BW_OK; /* a segment is missing; readers are told so at the gap */
}

static bw_err recover_segment(recovery *r, size_t i, bool *again)
{
    bw_partition *p = r->p;
    bw_segment *s = p->segments[i];
    bw_seal seal;
    bw_err e = check_joint(r, i, again);
    if (e || *again) return e;
    if (bw_segment_read_seal(p, s->base_offset, &seal)) return load_sealed(r, i, &seal, again);
    e = bw_segment_open(p, s);
    if (e) return e;
    if (!r->known || s->base_offset != r->point.segment_base) return scan_one(r, i, 0, s->base_offset, again);
    switch (check_point(r, s)) {
    case POINT_HOLDS:
        return scan_one(r, i, r->point.position, r->point.next_offset, again);
    case POINT_CORRUPT:
        *again = true;
        r->expected = -1;
        if (i + 1 < p->count && p->segments[i + 1]->base_offset <= r->point.next_offset) return bw_recovery_quarantine(r, i);
        return bw_recovery_salvage(r, i);
    case POINT_FOREIGN:
        r->known = false;
        r->report->foreign = true;
        return scan_one(r, i, 0, s->base_offset, again);
    case POINT_ERROR:
    default:
        return bw_error_context(BW_ERR_IO, "checking the recovery point");
    }
}

/* The point's segment was cleaned, and is part of an older one now: that one's seal covers the point. */
static bool was_merged(recovery *r, int64_t base)
{
    bw_seal seal;
    return bw_segment_read_seal(r->p, base, &seal) && seal.next_offset > r->point.segment_base && seal.next_offset >= r->point.next_offset;
}

/* Is the recovery point one of these files at all? */
static void check_known(recovery *r)
{
    const bw_recovery_point *pt = &r->point;
    r->known = pt->known || pt->next_offset != 0 || pt->position != 0;
    const bw_found *f = &r->found;
    if (!r->known || (f->log_count > 0 && f->logs[f->log_count - 1] >= pt->segment_base)) {
        for (size_t i = 0; i < f->log_count; i++)
            if (f->logs[i] >= pt->segment_base) {
                if (f->logs[i] > pt->segment_base && i > 0 && !was_merged(r, f->logs[i - 1]))
                    r->known = false; /* its segment is missing: trust nothing */
                return;
            }
        return;
    }
    r->known = false;
    r->report->foreign = true;
    (void)bw_fail(BW_ERR_CORRUPT, "the log ends below its recovery point (offset %lld)", (long long)pt->next_offset);
    bw_recovery_note(r);
}

static bw_err recover_segments(recovery *r)
{
    bw_partition *p = r->p;
    for (size_t i = 0; i < r->found.log_count; i++) {
        bw_segment *s = bw_segment_new(p, r->found.logs[i]);
        if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the segment list");
        s->linked = true;
        bw_err e = bw_partition_push(p, s);
        if (e) {
            bw_segment_free(s);
            return e;
        }
        struct stat st;
        char name[BW_SEGMENT_NAME_MAX];
        bw_segment_name(name, s->base_offset, ".log");
        if (bw_os_stat_at(bw_partition_dir(p), name, &st) == 0 && st.st_size <= (off_t)BW_POSITION_MAX) s->file_bytes = (uint32_t)st.st_size;
    }
    for (size_t i = 0; i < p->count;) {
        bool again = false;
        bw_err e = recover_segment(r, i, &again);
        if (e) return e;
        if (!again) i++;
        BW_KILL_POINT("recover.segment");
    }
    return BW_OK;
}

/* ---- the end of the log ---- */

static bw_err look_for_garbage(recovery *r)
{
    bw_segment *a = bw_partition_active(r->p);
    bw_walk w;
    bool zero = true;
    uint64_t at, end = (uint64_t)a->length + GARBAGE_LOOK;
    if (r->garbage || a->file_bytes <= a->length) return BW_OK;
    bw_err e = bw_walk_init_fd(&w, a->fd, false, end < a->file_bytes ? end : a->file_bytes, NULL, 0);
    if (!e) e = bw_walk_zero_from(&w, a->length, &zero, &at);
    bw_walk_fini(&w);
    if (e || zero) return e;
    r->garbage = true;
    if (!r->report->foreign) r->report->cut = true;
    r->report->cut_from_bytes += a->file_bytes - a->length;
    (void)bw_fail(BW_ERR_CORRUPT, "segment %020lld.log: stray bytes at %llu behind the end at %u", (long long)a->base_offset,
                  (unsigned long long)at, a->length);
    bw_recovery_note(r);
    return BW_OK;
}

/* The log ends at the point, which was written after the sync of all that it covers: a start needs no sync of its own. */
static bool nothing_unsynced(const recovery *r, const bw_segment *a)
{
    if (r->direct) return false;
    return a->length == 0 || (r->known && a->base_offset == r->point.segment_base && a->length == r->point.position);
}

/* A clean stop cut the file to its length, synced it, and only then wrote the point. */
static bool stopped_cleanly(const recovery *r, const bw_segment *a)
{
    if (a->file_bytes != a->length || r->found.spare_count > 0) return false;
    if (!r->known) return a->length > 0; /* as Kafka leaves it */
    return a->base_offset == r->point.segment_base && a->length == r->point.position && a->next_offset == r->point.next_offset;
}

/* What is left of a seal that a power cut took: the segment was the last but one then. */
static void drop_broken_seal(recovery *r, const bw_segment *a)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, a->base_offset, ".seal");
    if (r->found.seals > 0 && bw_os_unlink(bw_partition_dir(r->p), name, 0) == 0) r->p->dir_dirty = true;
}

/* Sees to an unsealed last segment that may be appended to. */
static bw_err prepare_active(recovery *r, bool *clean)
{
    bw_partition *p = r->p;
    bw_err e = BW_OK;
    *clean = false;
    if (p->count > 0 && !bw_partition_active(p)->sealed) {
        bw_segment *a = bw_partition_active(p);
        e = look_for_garbage(r);
        if (e) return e;
        *clean = stopped_cleanly(r, a);
        if (a->length == 0 && r->garbage && !r->known) { /* nothing of it is sound, its name is needed */
            e = bw_recovery_quarantine(r, p->count - 1);
            if (e) return e;
        } else if (a->length >= p->config.segment_bytes || (r->garbage && !r->known)) { /* garbage may be records: kept, passed over */
            a->cut_due = !r->garbage;
            e = bw_segment_close_rolled(p, a);
            if (e) return e;
        } else {
            drop_broken_seal(r, a);
            a->limit = bw_segment_limit(p->config.segment_bytes);
            bool zero = r->garbage || (uint64_t)a->length + GARBAGE_LOOK < a->file_bytes; /* else it was seen to be zero */
            if (zero) e = bw_segment_zero_tail(a);
            BW_KILL_POINT("recover.zeroed");
            if (!e && (zero || !nothing_unsynced(r, a)) && bw_os_fdatasync(a->fd) != 0)
                e = bw_fail_errno(errno, "cannot sync the newest segment");
            if (e) return e;
            p->sync_grant = a->file_bytes == a->length;
            p->follow_at = p->count - 1;
            return r->indexed ? BW_OK : bw_partition_resume_index(p);
        }
    }
    int64_t base = r->expected;
    if (base < 0) { /* nothing sound at the end, or nothing at all: behind everything that is known to have been there */
        base = r->floor;
        if (r->point.next_offset > base) base = r->point.next_offset;
        if (bw_partition_read_log_start(p) > base) base = bw_partition_read_log_start(p);
    }
    bw_segment *s;
    e = bw_segment_create_log(p, base, BW_GRANT_FIRST, &s);
    if (e) return e;
    s->limit = bw_segment_limit(p->config.segment_bytes);
    s->step = s->file_bytes;
    e = bw_partition_push(p, s);
    if (e) {
        bw_segment_free(s);
        return e;
    }
    return bw_partition_resume_index(p);
}

static void init_slot(recovery *r)
{
    bw_partition *p = r->p;
    bw_tail_slot *t = p->slot;
    bw_segment *a = bw_partition_active(p);
    a->seq = 1;
    a->step = a->step ? a->step : a->file_bytes > a->length ? BW_GRANT_FIRST : 0;
    int64_t start = bw_partition_read_log_start(p);
    if (start < p->segments[0]->base_offset) start = p->segments[0]->base_offset;
    if (start > a->next_offset) start = a->next_offset;
    int64_t newest = -1;
    for (size_t i = 0; i < p->count; i++)
        if (p->segments[i]->max_timestamp > newest) newest = p->segments[i]->max_timestamp;
    bw_position tail = bw_position_of(1, a->length);
    bw_lock_init(&t->mutex);
    atomic_store(&t->repair_pending, 0);
    atomic_store(&t->bus_number, p->bus_number);
    atomic_store(&t->tail, tail);
    atomic_store(&t->next_offset, a->next_offset);
    atomic_store(&t->max_timestamp, newest);
    atomic_store(&t->first_unstable, bw_producers_first_unstable(p->producers));
    atomic_fetch_add(&t->aborts, 1);
    atomic_store(&t->intent_end, 0);
    atomic_store(&t->flags, 0);
    atomic_store(&t->leader_epoch, (uint32_t)r->epoch);
    atomic_fetch_add(&t->fence, 1);
    atomic_store(&t->log_start, start);
    p->sync_room = a->length == 0 && a->file_bytes > 0 && !p->just_created;
    bool room = !p->sync_room && bw_segment_room(a) > a->length;
    atomic_store(&t->capacity, bw_position_of(1, room ? bw_segment_room(a) : a->length));
    atomic_store(&t->spare_seq, 0);
    atomic_store(&t->durable, tail);
    atomic_store(&t->durable_offset, a->next_offset);
    atomic_store(&t->sync_request, 0);
    atomic_store(&t->capacity_request, 0);
    bw_ring_entry *e = bw_ring_at(t, 1);
    atomic_store(&e->final_position, 0);
    atomic_store(&e->base_offset, (uint64_t)a->base_offset);
    atomic_store(&e->inode, a->inode);
    atomic_store(&e->limit, a->limit);
    atomic_store(&e->seq, 1);
    bw_partition_store_config(p);
    uint32_t was = atomic_load(&t->state); /* the last store: who waits for it finds all the rest */
    while (was != BW_SLOT_DELETED && !atomic_compare_exchange_weak(&t->state, &was, BW_SLOT_OPEN)) {}
}

static bw_err finish(recovery *r)
{
    bw_partition *p = r->p;
    bool clean;
    bw_err e = prepare_active(r, &clean);
    if (e) return e;
    bw_segment *a = bw_partition_active(p);
    if (r->adopted) p->gaps_below = r->gap ? a->next_offset : 0;
    if (r->gap && (e = bw_offset_file_write(bw_partition_dir(p), BW_GAPS_FILE, p->gaps_below)) != BW_OK) return e;
    BW_KILL_POINT("recover.gaps");
    e = bw_partition_load_producers(p, &r->point, r->snapshot, r->snapshot_len);
    if (e) return e;
    BW_KILL_POINT("recover.producers");
    if (r->report->cut || r->report->foreign || r->report->quarantined) /* what was clean may be other records now */
        (void)bw_os_unlink(bw_partition_dir(p), BW_CLEANER_CHECKPOINT_FILE, 0);
    bool raise = !p->just_created && !p->config.mirror && (!clean || r->report->cut || r->report->foreign || r->report->quarantined || r->direct);
    if (raise) r->epoch++;
    if (r->report->foreign && (e = bw_offset_file_write(bw_partition_dir(p), BW_LIFE_FILE, r->epoch)) != BW_OK) return e;
    BW_KILL_POINT("recover.life");
    if (raise || r->epoch_lost) {
        e = bw_partition_write_epochs(p, r->epoch, raise ? a->next_offset : p->segments[0]->base_offset);
        if (e) return e;
    }
    BW_KILL_POINT("recover.epoch");
    for (size_t i = 0; i < p->count; i++)
        if (p->segments[i]->cut_due) (void)bw_segment_cut(p, p->segments[i]);
    int64_t start;
    if (bw_offset_file_check(bw_partition_dir(p), BW_LOG_START_FILE, &start) == BW_ERR_CORRUPT) bw_recovery_note(r); /* deleted records are back */
    if (bw_partition_read_log_start(p) > a->next_offset) { /* a log start of other files: new records must not count as deleted */
        e = bw_partition_write_log_start(p, a->next_offset);
        if (e) return e;
    }
    if (p->dir_dirty && bw_os_sync_dir(bw_partition_dir(p)) != 0) return bw_fail_errno(errno, "cannot sync the partition's folder");
    p->dir_dirty = false;
    if (r->direct && bw_os_unlink(bw_partition_dir(p), "poisoned", 0) == 0) (void)bw_os_sync_dir(bw_partition_dir(p));
    init_slot(r);
    p->point = (bw_recovery_point){.leader_epoch = -1, .state_offset = p->point.state_offset, .state_crc = p->point.state_crc};
    bw_state_job state;
    bw_partition_state_begin(p, a->next_offset, &state);
    bw_partition_state_sync(bw_partition_dir(p), &state);
    bw_partition_note_point(p, a->next_offset, a, a->length, r->last_crc);
    bw_partition_state_end(p, a->next_offset, &state, true);
    bw_segment_estimate_age(p, a);
    r->report->recovered = true;
    r->report->end_offset = a->next_offset;
    r->report->leader_epoch = r->epoch;
    return BW_OK;
}

bw_err bw_partition_recover(bw_partition *p, const bw_partition_open_options *o, bw_recovery_report *report)
{
    const bw_recovery_point *point = &o->point;
    recovery r = {.p = p, .point = *point, .snapshot = o->snapshot, .snapshot_len = o->snapshot_len,
                  .report = report, .expected = -1, .scan_epoch = INT32_MIN};
    r.direct = point->poisoned || bw_partition_poison_marker(p);
    bw_err e = bw_partition_list(p, &r.found);
    /* Kafka leaves no seals. Where there are some the log is our own, and only its point was lost: no offset may be missing. */
    r.adopted = !point->known && point->next_offset == 0 && point->position == 0 && r.found.seals == 0;
    if (r.adopted) p->gaps_below = INT64_MAX;
    if (!e) e = bw_partition_read_epoch(p, &r.epoch, &r.epoch_lost);
    if (!e && point->leader_epoch > r.epoch) r.epoch = point->leader_epoch;
    for (size_t i = 0; !e && i < r.found.spare_count; i++) e = bw_recovery_place_spare(&r, r.found.spares[i]);
    if (!e) {
        check_known(&r);
        e = recover_segments(&r);
    }
    if (!e) e = finish(&r);
    bw_found_free(&r.found);
    return e;
}
