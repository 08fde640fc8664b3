/* log/partition_retain.c: retention by bytes and by time, deletion of records, removal of segment files.
 *
 * The order: log_start moves first (readers below it get OFFSET_OUT_OF_RANGE), then the files go. Maps and descriptors that
 * readers hold keep the bytes, so that removal is safe at any time; file.delete.delay.ms keeps a file as "<name>.deleted" for
 * those who open by name. A partition over retention.bytes does not wait: the point of that limit is the disk's space.
 *
 * Time. A segment's age is that of its largest timestamp, clamped by its file's time, so that timestamps from the future delete
 * nothing late and nothing for ever. Indexes are hints and never the reason for a deletion: the timestamp is taken from the
 * batches before the segment goes. A jump of the wall clock while we run purges nothing: the segment must also be old by the clock
 * as it was at start plus the time that passed since (monotonic), or must have been seen by this process for retention.ms. */
#include "log/segment.h"

#include "base/killpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const file_suffixes[] = {".log", ".index", ".timeindex", ".txnindex", ".seal", ".snapshot"};
enum { FILE_SUFFIXES = sizeof file_suffixes / sizeof *file_suffixes };

/* ---- files ---- */

static void unlink_deleted(bw_partition *p, int64_t base, bool reusable)
{
    char name[BW_SEGMENT_NAME_MAX], gone[BW_SEGMENT_NAME_MAX + 16];
    for (int i = 0; i < FILE_SUFFIXES; i++) {
        if (i == 0 && reusable && bw_partition_keep_for_reuse(p, base, true)) continue;
        bw_segment_name(name, base, file_suffixes[i]);
        snprintf(gone, sizeof gone, "%s.deleted", name);
        (void)bw_os_unlink(bw_partition_dir(p), gone, 0);
    }
    p->dir_dirty = true;
}

void bw_partition_reap(bw_partition *p, int64_t now, bool all)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->dropped_count; i++) {
        if (all || p->dropped[i].due_mono_ms <= now) unlink_deleted(p, p->dropped[i].base_offset, p->dropped[i].reusable);
        else p->dropped[kept++] = p->dropped[i];
    }
    p->dropped_count = kept;
}

/* Renames the files aside until their delay is over; false: unlink at once. */
static bool put_aside(bw_partition *p, const bw_segment *s)
{
    if (p->config.file_delete_delay_ms <= 0) return false;
    if (p->dropped_count == p->dropped_cap) {
        size_t cap = p->dropped_cap ? 2 * p->dropped_cap : 8;
        bw_dropped_file *more = realloc(p->dropped, cap * sizeof *more);
        if (!more) return false;
        p->dropped = more;
        p->dropped_cap = cap;
    }
    char name[BW_SEGMENT_NAME_MAX], gone[BW_SEGMENT_NAME_MAX + 16];
    for (int i = 0; i < FILE_SUFFIXES; i++) {
        bw_segment_name(name, s->base_offset, file_suffixes[i]);
        snprintf(gone, sizeof gone, "%s.deleted", name);
        if (bw_os_rename(bw_partition_dir(p), name, bw_partition_dir(p), gone) != 0 && i == 0) return false;
    }
    p->dropped[p->dropped_count++] = (bw_dropped_file){s->base_offset, bw_clock_mono_ms() + p->config.file_delete_delay_ms, s->sealed};
    return true;
}

/* The oldest segment goes. It is rolled, followed, and not the last one. */
static bw_err delete_oldest(bw_partition *p, bool at_once)
{
    bw_segment *s = p->segments[0];
    int64_t start = p->segments[1]->base_offset;
    if (atomic_load_explicit(&p->slot->log_start, memory_order_relaxed) < start)
        atomic_store_explicit(&p->slot->log_start, start, memory_order_release);
    BW_KILL_POINT("retain.start_moved");
    if (s->spare_name) { /* before the log's own name: recovery takes a spare that stands alone for part of the log */
        char name[BW_SEGMENT_NAME_MAX];
        bw_spare_name(name, s->spare_seq);
        if (bw_os_unlink(bw_partition_dir(p), name, 0) != 0 && errno != ENOENT) return bw_fail_errno(errno, "cannot remove %s", name);
        s->spare_name = false;
        BW_KILL_POINT("retain.spare_gone");
    }
    if (at_once || !put_aside(p, s)) {
        char name[BW_SEGMENT_NAME_MAX];
        bw_segment_name(name, s->base_offset, ".log");
        bool kept = (s->sealed || p->segments[1]->linked) && bw_partition_keep_for_reuse(p, s->base_offset, false);
        if (!kept && bw_os_unlink(bw_partition_dir(p), name, 0) != 0 && errno != ENOENT)
            return bw_fail_errno(errno, "cannot remove segment %s", name);
        BW_KILL_POINT("retain.log_gone");
        bw_segment_unlink_hints(p, s->base_offset);
    }
    p->dir_dirty = true;
    BW_KILL_POINT("retain.removed");
    bw_partition_remove_at(p, 0);
    return BW_OK;
}

static bool may_delete_oldest(const bw_partition *p)
{
    return !p->swapping && p->count > 1 && p->follow_at > 0 && p->segments[0]->rolled && p->segments[0]->linked;
}

/* ---- bytes ---- */

void bw_partition_retain_bytes(bw_partition *p, uint32_t *deleted)
{
    if (p->config.retention_bytes < 0) return;
    uint64_t total = bw_position_pos(atomic_load_explicit(&p->slot->tail, memory_order_acquire));
    for (size_t i = 0; i + 1 < p->count; i++) total += p->segments[i]->final_length;
    while (may_delete_oldest(p) && total - p->segments[0]->final_length >= (uint64_t)p->config.retention_bytes) {
        total -= p->segments[0]->final_length;
        if (delete_oldest(p, true) != BW_OK) return;
        if (deleted) (*deleted)++;
    }
}

/* ---- time ---- */

/* The largest timestamp from the batches themselves. */
static bw_err exact_timestamp(bw_partition *p, bw_segment *s)
{
    if (s->exact) return BW_OK;
    int fd;
    bool own;
    bw_err e = bw_segment_read_fd(p, s, &fd, &own);
    if (e) return e;
    bw_walk w;
    int64_t newest = -1;
    e = bw_walk_init_fd(&w, fd, false, s->length, NULL, 0);
    w.check_crc = false;
    w.next_offset = s->base_offset;
    w.gaps_below = p->gaps_below;
    while (!e && w.position < s->length) {
        e = bw_walk_next(&w);
        if (e == BW_ERR_EMPTY) e = bw_fail(BW_ERR_CORRUPT, "byte %llu: no batch", (unsigned long long)w.position);
        if (!e && w.header.max_timestamp > newest) newest = w.header.max_timestamp;
    }
    bw_walk_fini(&w);
    if (own) bw_os_close(fd);
    if (e) return e;
    s->max_timestamp = newest;
    s->exact = true;
    return BW_OK;
}

static int64_t clamped(const bw_segment *s)
{
    return s->max_timestamp >= 0 && s->max_timestamp < s->mtime_ms ? s->max_timestamp : s->mtime_ms;
}

static bool is_old(const bw_partition *p, const bw_segment *s, int64_t now_ms, int64_t mono_ms)
{
    int64_t limit = p->config.retention_ms, ts = clamped(s);
    if (now_ms - ts <= limit) return false;
    int64_t steady = p->open_wall_ms + (mono_ms - p->open_mono_ms);
    enum { SLEW_MS = 60000 }; /* a clock that is disciplined drifts from the steady one by seconds */
    return steady + SLEW_MS >= now_ms || steady - ts > limit || mono_ms - s->seen_mono_ms > limit;
}

/* A file that may still be written to, or was until lately. */
static void refresh_time(bw_segment *s)
{
    struct stat st;
    if (s->fd >= 0 && bw_os_fstat(s->fd, &st) == 0)
        s->mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
}

static bw_err retain_time(bw_partition *p, int64_t now_ms, uint32_t *deleted)
{
    int64_t mono = bw_clock_mono_ms();
    for (size_t i = 0; i < p->count; i++) refresh_time(p->segments[i]);
    while (may_delete_oldest(p) && is_old(p, p->segments[0], now_ms, mono)) {
        bw_err e = exact_timestamp(p, p->segments[0]);
        if (e) return e;
        if (!is_old(p, p->segments[0], now_ms, mono)) return BW_OK;
        e = delete_oldest(p, false);
        if (e) return e;
        if (deleted) (*deleted)++;
    }
    bw_segment *a = bw_partition_active(p);
    if (p->count > 1 || bw_position_pos(atomic_load_explicit(&p->slot->tail, memory_order_acquire)) == 0) return BW_OK;
    if (!is_old(p, a, now_ms, mono)) return BW_OK;
    bw_err e = exact_timestamp(p, a);
    if (e || !is_old(p, a, now_ms, mono)) return e;
    p->roll_wanted = true; /* all of it is old: closed now, deleted at a later call */
    return bw_partition_grant(p, atomic_load_explicit(&p->slot->tail, memory_order_acquire), mono);
}

bw_err bw_partition_retain(bw_partition *p, int64_t now_ms, uint32_t *deleted)
{
    if (deleted) *deleted = 0;
    bw_partition_lock(p);
    uint32_t state = atomic_load_explicit(&p->slot->state, memory_order_acquire);
    bw_err e = BW_OK;
    if (state != BW_SLOT_DELETED && state != BW_SLOT_RETIRED && !p->broken) {
        bw_position tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
        bw_partition_adopt_rolls(p, tail);
        e = bw_partition_link_files(p);
        if (!e) e = bw_partition_follow(p, tail);
        bw_partition_reap(p, bw_clock_mono_ms(), false);
        if (!e) bw_partition_retain_bytes(p, deleted);
        if (!e && p->config.retention_ms >= 0) e = retain_time(p, now_ms, deleted);
    }
    bw_partition_unlock(p);
    return e ? bw_error_context(e, "partition %s", p->dir_name) : BW_OK;
}

/* ---- delete records ---- */

void bw_partition_drop_deleted(bw_partition *p)
{
    int64_t start = atomic_load_explicit(&p->slot->log_start, memory_order_acquire);
    while (may_delete_oldest(p) && p->segments[1]->base_offset <= start)
        if (delete_oldest(p, false) != BW_OK) return; /* retention tries again */
}

bw_err bw_partition_delete_records(bw_partition *p, int64_t before, int64_t *log_start)
{
    bw_tail_slot *s = p->slot;
    /* What is deleted must be on the disk: if a power cut took it, new records would get the deleted ones' offsets. */
    if (before == BW_OFFSET_END || before > atomic_load_explicit(&s->durable_offset, memory_order_acquire)) {
        bw_err synced = bw_partition_sync(p);
        if (synced) return synced;
    }
    bw_partition_lock(p);
    bw_position tail = atomic_load_explicit(&s->tail, memory_order_acquire);
    int64_t start = atomic_load_explicit(&s->log_start, memory_order_acquire), end = bw_slot_end_offset(s);
    if (before == BW_OFFSET_END) before = atomic_load_explicit(&s->durable_offset, memory_order_acquire);
    bw_err e = BW_OK;
    if (before < 0 || before > end)
        e = bw_fail(BW_ERR_OFFSET_OUT_OF_RANGE, "cannot delete before offset %lld: the log has %lld to %lld", (long long)before,
                    (long long)start, (long long)end);
    bw_partition_adopt_rolls(p, tail);
    if (!e) e = bw_partition_link_files(p);
    if (!e) e = bw_partition_follow(p, tail);
    /* On the disk before it is true, or promised again: deleted records must not come back. Retention alone promises nothing. */
    if (!e && before > bw_partition_read_log_start(p)) e = bw_partition_write_log_start(p, before);
    if (!e && before > start) {
        BW_KILL_POINT("retain.start_written");
        atomic_store_explicit(&s->log_start, before, memory_order_release);
        while (!e && may_delete_oldest(p) && p->segments[1]->base_offset <= before) e = delete_oldest(p, false);
    }
    if (log_start) *log_start = atomic_load_explicit(&s->log_start, memory_order_acquire);
    bw_partition_unlock(p);
    return e ? bw_error_context(e, "partition %s", p->dir_name) : BW_OK;
}
