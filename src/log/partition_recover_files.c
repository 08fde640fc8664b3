/* log/partition_recover_files.c: what recovery does to files: spares, quarantine, salvage, removal behind a cut. Which of it is done
 * when, and why, is in partition_recover.c. Each step leaves a folder that a second recovery understands. */
#include "log/recovery.h"

#include "base/killpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COPY_PIECE = 256 << 10 };

void bw_recovery_note(recovery *r)
{
    if (!r->report->detail[0]) snprintf(r->report->detail, sizeof r->report->detail, "%s", bw_error_message());
}

/* ---- spares: one with a valid first batch, newer than the oldest log file, becomes a log file, the others go ---- */

static bool has_inode(bw_partition *p, const bw_found *f, uint64_t inode)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    for (size_t i = 0; i < f->log_count; i++) {
        bw_segment_name(name, f->logs[i], ".log");
        if (bw_os_stat_at(bw_partition_dir(p), name, &st) == 0 && (uint64_t)st.st_ino == inode) return true;
    }
    return false;
}

/* The base offset of the first batch, when that is whole and right; else -1. */
static int64_t first_batch_base(int fd, uint64_t bytes)
{
    bw_walk w;
    int64_t base = -1;
    if (bw_walk_init_fd(&w, fd, false, bytes, NULL, 0) == BW_OK && bw_walk_next(&w) == BW_OK) base = w.header.base_offset;
    bw_walk_fini(&w);
    return base;
}

bw_err bw_recovery_place_spare(recovery *r, uint32_t seq)
{
    bw_partition *p = r->p;
    char name[BW_SEGMENT_NAME_MAX], log[BW_SEGMENT_NAME_MAX];
    struct stat st;
    bw_spare_name(name, seq);
    int fd = bw_os_open_beneath(bw_partition_dir(p), name, O_RDONLY, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s", name);
    int64_t base = -1;
    if (bw_os_fstat(fd, &st) == 0 && !has_inode(p, &r->found, (uint64_t)st.st_ino)) base = first_batch_base(fd, (uint64_t)st.st_size);
    bw_os_close(fd);
    /* An older one was a segment that retention has removed, or holds a reserved batch that was never committed: that has no base. */
    if (r->found.log_count > 0 && base < r->found.logs[0]) base = -1;
    p->dir_dirty = true;
    bw_segment_name(log, base < 0 ? 0 : base, ".log");
    if (base >= 0 && bw_os_stat_at(bw_partition_dir(p), log, &st) != 0 && errno == ENOENT) {
        int64_t *more = realloc(r->found.logs, (r->found.log_count + 1) * sizeof *more);
        if (!more) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the segment list");
        r->found.logs = more;
        if (bw_os_rename(bw_partition_dir(p), name, bw_partition_dir(p), log) != 0) return bw_fail_errno(errno, "cannot rename %s to %s", name, log);
        size_t i = r->found.log_count++;
        for (; i > 0 && more[i - 1] > base; i--) more[i] = more[i - 1];
        more[i] = base;
        BW_KILL_POINT("recover.spare_kept");
        return BW_OK;
    }
    if (bw_os_unlink(bw_partition_dir(p), name, 0) != 0) return bw_fail_errno(errno, "cannot remove %s", name);
    BW_KILL_POINT("recover.spare_gone");
    return BW_OK;
}

/* ---- quarantine and salvage ---- */

bw_err bw_recovery_quarantine(recovery *r, size_t i)
{
    bw_partition *p = r->p;
    bw_segment *s = p->segments[i];
    bw_recovery_note(r);
    char name[BW_SEGMENT_NAME_MAX], aside[BW_SEGMENT_NAME_MAX + 24];
    struct stat st;
    bw_segment_name(name, s->base_offset, ".log");
    snprintf(aside, sizeof aside, "%s.corrupt", name);
    for (int n = 1; bw_os_stat_at(bw_partition_dir(p), aside, &st) == 0 && n < 1000; n++) snprintf(aside, sizeof aside, "%s.corrupt.%d", name, n);
    if (bw_os_rename(bw_partition_dir(p), name, bw_partition_dir(p), aside) != 0) return bw_fail_errno(errno, "cannot set %s aside", name);
    BW_KILL_POINT("recover.quarantined");
    bw_segment_unlink_hints(p, s->base_offset);
    r->report->quarantined++;
    bw_partition_remove_at(p, i);
    return BW_OK;
}

static bw_err copy_bytes(int from_fd, uint32_t from, uint32_t len, int to_fd)
{
    uint8_t *piece = malloc(COPY_PIECE);
    if (!piece) return bw_fail(BW_ERR_NO_MEMORY, "no memory to copy batches");
    bw_err e = BW_OK;
    for (uint32_t done = 0; !e && done < len;) {
        uint32_t n = len - done < COPY_PIECE ? len - done : COPY_PIECE;
        if (bw_os_pread(from_fd, piece, n, (off_t)from + done) != (ssize_t)n || bw_os_pwrite(to_fd, piece, n, done) < 0)
            e = bw_fail_errno(errno, "cannot copy batches out of a corrupt segment");
        done += n;
    }
    free(piece);
    return e;
}

/* The batches in [from, from + len) of old as a new log file. It gets its name only when it is whole: a start that is cut short
 * finds the old file as it was. */
static bw_err write_copy(bw_partition *p, const bw_segment *old, uint32_t from, uint32_t len, bw_segment *s)
{
    char name[BW_SEGMENT_NAME_MAX], temporary[BW_SEGMENT_NAME_MAX + 8];
    bw_segment_name(name, s->base_offset, ".log");
    snprintf(temporary, sizeof temporary, "%s.tmp", name);
    bw_segment_set_fd(s, bw_os_open_beneath(bw_partition_dir(p), temporary, O_RDWR | O_CREAT | O_TRUNC, 0644));
    if (s->fd < 0) return bw_fail_errno(errno, "cannot create %s", temporary);
    if (bw_os_fallocate(s->fd, 0, 0, len > BW_GRANT_FIRST ? len : BW_GRANT_FIRST) != 0)
        return bw_fail_errno(errno, "cannot allocate %s", temporary);
    bw_err e = copy_bytes(old->fd, from, len, s->fd);
    if (e) return e;
    BW_KILL_POINT("recover.copied");
    if (bw_os_fsync(s->fd) != 0) return bw_fail_errno(errno, "cannot sync %s", temporary);
    if (bw_os_rename(bw_partition_dir(p), temporary, bw_partition_dir(p), name) != 0) return bw_fail_errno(errno, "cannot rename %s", temporary);
    if (bw_os_sync_dir(bw_partition_dir(p)) != 0) return bw_fail_errno(errno, "cannot sync the partition's folder");
    s->linked = true;
    return bw_segment_open(p, s);
}

bw_err bw_recovery_salvage(recovery *r, size_t i)
{
    bw_partition *p = r->p;
    bw_segment *old = p->segments[i];
    bw_recovery_note(r);
    bw_scan scan = {.from = r->point.position, .next_offset = r->point.next_offset, .leader_epoch = INT32_MIN,
                    .until = old->file_bytes, .direct = r->direct};
    if (scan.from > scan.until) scan.from = scan.until;
    bw_err e = bw_segment_scan(p, old, &scan);
    if (e) return e;
    bw_segment *s = bw_segment_new(p, r->point.next_offset);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a segment");
    e = write_copy(p, old, (uint32_t)scan.from, scan.position - (uint32_t)scan.from, s);
    BW_KILL_POINT("recover.salvaged");
    if (!e) e = bw_recovery_quarantine(r, i);
    if (!e) e = bw_partition_push(p, s);
    if (e) {
        bw_segment_free(s);
        return e;
    }
    memmove(&p->segments[i + 1], &p->segments[i], (p->count - 1 - i) * sizeof *p->segments);
    p->segments[i] = s;
    return BW_OK;
}

/* Drops segment i and all that follow: above the point and behind a cut. */
bw_err bw_recovery_drop_from(recovery *r, size_t i)
{
    bw_partition *p = r->p;
    char name[BW_SEGMENT_NAME_MAX];
    while (p->count > i) {
        bw_segment *s = p->segments[p->count - 1];
        bw_segment_name(name, s->base_offset, ".log");
        r->report->cut_from_bytes += s->file_bytes;
        r->report->cut = true;
        if (bw_os_unlink(bw_partition_dir(p), name, 0) != 0) return bw_fail_errno(errno, "cannot remove segment %s behind the cut", name);
        bw_segment_unlink_hints(p, s->base_offset);
        bw_partition_remove_at(p, p->count - 1);
        BW_KILL_POINT("recover.dropped");
    }
    return BW_OK;
}
