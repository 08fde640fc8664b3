/* log/partition_reuse.c: a deleted segment's file becomes the next one: its pages and blocks are there, so that neither the writer pays
 * for fresh ones nor the coordinator for freeing the old (each about a microsecond a page).
 *
 * Only for a log that fills a segment in seconds and deletes behind, and only when all of this holds, in this order:
 *   1. the segment behind it has its name (with 2 on the disk, so that a recovery ends behind what this file held, durable or not, and
 *      never takes a stale batch for one that joins), or all of this one was durable (sealed);
 *   2. retention moved log_start past it and renamed it to "<base>.log.deleted", and the folder was synced since: the old name never
 *      comes back from the disk with other bytes in it;
 *   3. nobody else has the file open or mapped, as the kernel says: it grants a write lease on it (F_SETLEASE) only then. Who opens a
 *      segment looks at log_start afterwards (read_locate.c): either he sees that it is gone, or we see that he has it;
 *   4. it has no second name, and is still in the page cache: writing into pages that must be read first costs more than it saves.
 * What it held stays in it, behind the tail: every append puts BW_TAIL_CLEAR zeros behind itself (append_state.h), which is all that
 * walks, repair and takeover need; its first bytes are cleared here. After a power cut stale bytes may stand where records or those
 * zeros were. Recovery does not take them for records: their base offsets lie below the segment's, and everything must join. Where they
 * follow the last batch of a segment that joins its successor they mean nothing.
 * Files that wait here are at most BW_REUSABLE, for BW_REUSE_WAIT_MS each. */
#include "log/segment.h"

#include "base/killpoint.h"
#include "log/window.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static_assert(BW_GRANT_MARGIN >= BW_TAIL_CLEAR, "zeros behind the last batch");

enum { FAST_FILL_S = 10, BW_REUSE_WAIT_MS = 5000 };

static void deleted_name(char *out, size_t size, int64_t base)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, base, ".log");
    snprintf(out, size, "%s.deleted", name);
}

static void remove_at(bw_partition *p, size_t i, bool unlink)
{
    char name[BW_SEGMENT_NAME_MAX + 16];
    deleted_name(name, sizeof name, p->reusable[i].base_offset);
    if (unlink && bw_os_unlink(bw_partition_dir(p), name, 0) == 0) p->dir_dirty = true;
    p->reusable[i] = p->reusable[--p->reusable_count];
}

static bool is_fast(const bw_partition *p, const bw_segment *a)
{
    return p->config.reuse_segments && p->rest == BW_AWAKE && a->rate_before * FAST_FILL_S >= a->limit;
}

bool bw_partition_keep_for_reuse(bw_partition *p, int64_t base_offset, bool renamed)
{
    if (p->reusable_count == BW_REUSABLE || !is_fast(p, bw_partition_active(p))) return false;
    char name[BW_SEGMENT_NAME_MAX], gone[BW_SEGMENT_NAME_MAX + 16];
    bw_segment_name(name, base_offset, ".log");
    deleted_name(gone, sizeof gone, base_offset);
    if (!renamed && bw_os_rename(bw_partition_dir(p), name, bw_partition_dir(p), gone) != 0) return false;
    p->reusable[p->reusable_count++] = (bw_reusable){.base_offset = base_offset, .since_mono_ms = bw_clock_mono_ms()};
    p->dir_dirty = true;
    BW_KILL_POINT("reuse.kept");
    return true;
}

bool bw_partition_wants_folder(bw_partition *p)
{
    bool wants = false;
    bw_partition_lock(p);
    for (size_t i = 0; i < p->reusable_count; i++) wants |= !p->reusable[i].synced;
    bw_partition_unlock(p);
    return wants;
}

bw_err bw_partition_sync_folder(bw_partition *p)
{
    bw_partition_lock(p);
    for (size_t i = 0; i < p->reusable_count; i++) p->reusable[i].syncing = true;
    int fd = p->reusable_count > 0 ? bw_partition_open_folder(p) : -1;
    bw_partition_unlock(p);
    if (fd < 0) return BW_OK;
    int error = bw_os_sync_dir(fd) == 0 ? 0 : errno;
    bw_os_close(fd);
    BW_KILL_POINT("reuse.folder");
    bw_partition_lock(p);
    for (size_t i = 0; i < p->reusable_count; i++) p->reusable[i].synced |= p->reusable[i].syncing && !error;
    if (error) bw_partition_poison(p); /* nobody else will be told of it */
    bw_partition_unlock(p);
    return error ? bw_fail_errno(error, "cannot sync folder %s", p->dir_name) : BW_OK;
}

void bw_partition_reuse_expire(bw_partition *p, int64_t now_mono_ms)
{
    for (size_t i = p->reusable_count; i-- > 0;)
        if (now_mono_ms < 0 || now_mono_ms - p->reusable[i].since_mono_ms > BW_REUSE_WAIT_MS) remove_at(p, i, true);
}

/* Points 3 and 4. *fd is then the only way to the file. */
static bool is_ours(bw_partition *p, const char *name, uint32_t least, struct stat *st, int *fd)
{
    *fd = bw_os_open_beneath(bw_partition_dir(p), name, O_RDWR, 0);
    if (*fd < 0) return false;
    bool good = bw_os_fstat(*fd, st) == 0 && S_ISREG(st->st_mode) && st->st_nlink == 1 && st->st_size >= (off_t)least &&
                st->st_size <= (off_t)BW_POSITION_MAX && bw_os_is_unshared(*fd) && bw_os_is_cached(*fd, st->st_size);
    if (!good) {
        bw_os_close(*fd);
        *fd = -1;
    }
    return good;
}

bool bw_partition_reuse(bw_partition *p, bw_segment *s, const char *spare_name)
{
    if (!is_fast(p, bw_partition_active(p))) return false;
    for (size_t i = 0; i < p->reusable_count; i++) {
        if (!p->reusable[i].synced) continue;
        char name[BW_SEGMENT_NAME_MAX + 16];
        struct stat st;
        int fd;
        deleted_name(name, sizeof name, p->reusable[i].base_offset);
        if (!is_ours(p, name, s->limit / 2, &st, &fd)) continue; /* perhaps later */
        bool renamed = bw_os_rename(bw_partition_dir(p), name, bw_partition_dir(p), spare_name) == 0;
        remove_at(p, i, !renamed);
        if (!renamed) {
            bw_os_close(fd);
            return false;
        }
        BW_KILL_POINT("reuse.renamed");
        static const uint8_t zeros[BW_TAIL_CLEAR];
        if (bw_os_pwrite(fd, zeros, sizeof zeros, 0) < 0) {
            bw_os_close(fd);
            (void)bw_os_unlink(bw_partition_dir(p), spare_name, 0);
            return false;
        }
        BW_KILL_POINT("reuse.cleared");
        bw_segment_set_fd(s, fd);
        s->file_bytes = bw_u32_min((uint64_t)st.st_size, (uint64_t)s->limit + BW_GRANT_MARGIN);
        return true;
    }
    return false;
}
