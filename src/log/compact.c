/* log/compact.c: a compaction pass: what may be cleaned, whether it is due, and the order of the steps. See compact.h. */
#include "log/compact_pass.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "log/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum { STEP_BYTES = 64 << 10, SLEW_MS = 60000 };

bw_err compaction_step(compaction *c, uint64_t bytes)
{
    c->moved += bytes;
    if (bytes > 0 && c->moved < STEP_BYTES) return BW_OK;
    uint64_t moved = c->moved;
    c->moved = 0;
    uint32_t state = atomic_load_explicit(&c->p->slot->state, memory_order_acquire);
    if (state != BW_SLOT_OPEN) return bw_fail(BW_ERR_DELETED, "%s was closed while it was cleaned", c->p->dir_name);
    if (c->o->go_on && !c->o->go_on(c->o->opaque, moved)) return BW_ERR_WOKEN;
    return BW_OK;
}

bw_err compaction_open(compaction *c, const compact_span *s, int *fd)
{
    bw_err e = bw_segment_open_named(c->dir_fd, s->base_offset, s->seq, O_RDONLY, fd);
    return e != BW_ERR_EMPTY ? e : bw_fail(BW_ERR_BUSY, "segment %020lld.log was deleted while the log was cleaned", (long long)s->base_offset);
}

/* ---- the range ---- */

/* Sealed, on the disk, followed, and every offset decided. */
static bool may_clean(const bw_partition *p, const bw_segment *s, size_t i, int64_t stable, const bw_compact_options *o, int64_t past_ms)
{
    if (i >= p->follow_at || !s->sealed || !s->linked || s->spare_name || s->fd >= 0 || s->next_offset > stable) return false;
    if (o->min_lag_ms <= 0) return true;
    int64_t newest = s->exact || s->max_timestamp > s->mtime_ms ? s->max_timestamp : s->mtime_ms; /* an index is a hint */
    return newest <= past_ms - o->min_lag_ms;
}

/* A segment that still has its spare's name, because the daemon before this one died, is not cleaned: recovery would take the old file,
 * under that name, for part of the log. The name goes when the other one is on the disk. */
static bw_err drop_spare_names(compaction *c)
{
    bw_partition *p = c->p;
    size_t found = 0;
    bw_partition_lock(p);
    for (size_t i = 0; i < p->count; i++) {
        bw_segment *s = p->segments[i];
        if (!s->sealed || !s->linked || !s->spare_name) continue;
        s->link_syncing = true;
        found++;
    }
    bw_partition_unlock(p);
    if (found == 0) return BW_OK;
    if (bw_os_sync_dir(c->dir_fd) != 0) return bw_fail_errno(errno, "cannot sync folder %s", p->dir_name);
    bw_partition_lock(p);
    for (size_t i = 0; i < p->count; i++) {
        bw_segment *s = p->segments[i];
        char name[BW_SEGMENT_NAME_MAX];
        if (!s->sealed || !s->linked || !s->spare_name || !s->link_syncing) continue;
        bw_spare_name(name, s->spare_seq);
        if (bw_os_unlink(c->dir_fd, name, 0) == 0 || errno == ENOENT) s->spare_name = false;
    }
    p->dir_dirty = true;
    bw_partition_unlock(p);
    return BW_OK;
}

/* The list as it is now, followed up to the tail; how much of it may be cleaned. mutex held. */
static bw_err take_spans(compaction *c)
{
    bw_partition *p = c->p;
    uint32_t state = atomic_load_explicit(&p->slot->state, memory_order_acquire);
    if (state != BW_SLOT_OPEN || p->broken) return bw_fail(BW_ERR_DELETED, "%s is closed", p->dir_name);
    int64_t now = c->o->now_ms, steady = p->open_wall_ms + (bw_clock_mono_ms() - p->open_mono_ms);
    c->past_ms = now < steady + SLEW_MS ? now : steady + SLEW_MS;
    c->horizon_ms = (now > steady ? now : steady) + c->o->delete_retention_ms;
    int64_t stable = atomic_load_explicit(&p->slot->first_unstable, memory_order_acquire); /* before the tail */
    bw_position tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
    bw_partition_adopt_rolls(p, tail);
    bw_err e = bw_partition_follow(p, tail);
    if (e) return e;
    c->segment_bytes = p->config.segment_bytes;
    c->index_interval = p->config.index_interval_bytes;
    c->disk_reserve_bytes = p->config.disk_reserve_bytes;
    c->spans = malloc(p->count * sizeof *c->spans);
    if (!c->spans) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the segment list");
    bool more = true;
    for (size_t i = 0; i < p->count; i++) {
        const bw_segment *s = p->segments[i];
        c->spans[c->count++] = (compact_span){s->base_offset, s->next_offset, s->seq, s->length, s->inode};
        more = more && may_clean(p, s, i, stable, c->o, c->past_ms);
        if (more) c->cleanable = c->count;
    }
    if (p->clean_upto < 0) p->clean_upto = bw_offset_file_read(bw_partition_dir(p), BW_CLEANER_CHECKPOINT_FILE);
    int64_t start = atomic_load_explicit(&p->slot->log_start, memory_order_acquire);
    c->first_dirty = p->clean_upto > p->segments[p->count - 1]->next_offset ? 0 : p->clean_upto; /* of another life of the log */
    if (c->first_dirty < start) c->first_dirty = start;
    return BW_OK;
}

/* The first batch's time: is the oldest dirty record older than max.compaction.lag.ms? */
static bool lags(compaction *c, size_t first_dirty_span)
{
    if (c->o->max_lag_ms == INT64_MAX || first_dirty_span >= c->cleanable) return false;
    uint8_t first[BW_BATCH_HEADER_BYTES];
    bw_batch_header h;
    int fd;
    if (compaction_open(c, &c->spans[first_dirty_span], &fd) != BW_OK) return false;
    bool got = bw_os_pread(fd, first, sizeof first, 0) == (ssize_t)sizeof first && bw_batch_header_decode(first, sizeof first, true, &h) == BW_OK;
    bw_os_close(fd);
    return got && h.max_timestamp < c->past_ms - c->o->max_lag_ms;
}

static bool is_due(compaction *c)
{
    uint64_t clean = 0, dirty = 0;
    size_t first = c->cleanable;
    for (size_t i = 0; i < c->cleanable; i++) {
        if (c->spans[i].next_offset <= c->first_dirty) clean += c->spans[i].length;
        else {
            if (first > i) first = i;
            dirty += c->spans[i].length;
        }
    }
    bw_compact_report *r = c->report;
    r->first_dirty = c->first_dirty;
    r->dirty_ratio = clean + dirty ? (double)dirty / (double)(clean + dirty) : 0;
    r->due = dirty > 0 && (r->dirty_ratio > c->o->min_dirty_ratio || lags(c, first));
    int64_t horizon = c->p->clean_horizon_ms;
    r->due |= horizon > 0 && horizon <= c->past_ms && clean + dirty > 0;
    return r->due || (c->o->force && clean + dirty > 0);
}

/* ---- the steps ---- */

static bw_err clean_all(compaction *c)
{
    bw_err e = BW_OK;
    for (size_t i = 0, n = 0; !e && i < c->cleanable && c->spans[i].base_offset < c->upto; i += n) {
        e = compaction_clean(c, i, &n);
    }
    return e;
}

static bw_err note_clean(compaction *c)
{
    bw_partition *p = c->p;
    bw_err e = c->upto != p->clean_upto ? bw_offset_file_write(c->dir_fd, BW_CLEANER_CHECKPOINT_FILE, c->upto) : BW_OK;
    BW_KILL_POINT("compact.checkpoint");
    bw_partition_lock(p);
    p->clean_upto = c->upto;
    p->clean_horizon_ms = c->horizons ? c->horizon_ms : 0;
    bw_partition_unlock(p);
    c->report->upto = c->upto;
    return e;
}

static bw_err run(compaction *c)
{
    bw_err e = bw_offset_map_init(&c->map, c->o->dedupe_bytes);
    if (e) return e;
    BW_KILL_POINT("compact.begin");
    e = compaction_scan(c);
    BW_KILL_POINT("compact.scanned");
    if (!e) e = compaction_fill_map(c);
    BW_KILL_POINT("compact.mapped");
    if (!e) e = clean_all(c);
    if (!e) e = note_clean(c);
    bw_offset_map_fini(&c->map);
    compaction_forget(c);
    return e;
}

bool bw_partition_compact_options(bw_partition *p, bw_compact_options *o)
{
    bw_partition_lock(p);
    const bw_partition_config *c = &p->config;
    bool compact = c->compact;
    o->min_dirty_ratio = c->min_dirty_ratio;
    o->min_lag_ms = c->min_compaction_lag_ms;
    o->max_lag_ms = c->max_compaction_lag_ms;
    o->delete_retention_ms = c->delete_retention_ms;
    bw_partition_unlock(p);
    return compact;
}

bw_err bw_partition_compact(bw_partition *p, const bw_compact_options *options, bw_compact_report *report)
{
    compaction c = {.p = p, .o = options, .report = report, .dir_fd = bw_partition_open_folder(p)};
    *report = (bw_compact_report){0};
    if (c.dir_fd < 0) return bw_fail_errno(errno, "cannot open partition folder %s", p->dir_name);
    bw_err e = drop_spare_names(&c);
    bw_partition_lock(p);
    if (!e) e = take_spans(&c);
    bw_partition_unlock(p);
    if (!e) e = is_due(&c) ? run(&c) : BW_ERR_EMPTY;
    free(c.spans);
    bw_batch_filter_fini(&c.filter);
    bw_buf_free(&c.plain);
    bw_os_close(c.dir_fd);
    return e == BW_ERR_EMPTY || e == BW_ERR_WOKEN || !e ? e : bw_error_context(e, "cleaning %s", p->dir_name);
}
