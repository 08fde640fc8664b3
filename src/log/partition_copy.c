/* log/partition_copy.c: what a partition must know of its origin before the origin's batches are appended (log/copy.h).
 *
 * Both files are on the disk before a batch that needs them can be: a reader, or a recovery, that meets a gap looks into the file. */
#include "log/copy.h"

#include "base/killpoint.h"
#include "log/segment.h"
#include "log/smallfile.h"

#include <errno.h>

enum { GAPS_AHEAD = 1 << 20 }; /* offsets that are allowed beyond what is asked for */

int64_t bw_partition_gaps_below(const bw_partition *p)
{
    return atomic_load_explicit(&((bw_partition *)(uintptr_t)p)->gaps_below, memory_order_relaxed);
}

bw_err bw_partition_allow_gaps(bw_partition *p, int64_t upto)
{
    if (atomic_load(&p->gaps_below) >= upto) return BW_OK;
    int64_t ahead = upto < INT64_MAX - GAPS_AHEAD ? upto + GAPS_AHEAD : INT64_MAX;
    int dir = bw_partition_open_folder(p);
    if (dir < 0) return bw_fail_errno(errno, "%s: cannot open the partition's folder", p->dir_name);
    bw_partition_lock(p);
    bw_err e = atomic_load(&p->gaps_below) >= upto ? BW_OK : bw_offset_file_write(dir, BW_GAPS_FILE, ahead);
    if (!e && p->gaps_below < ahead) p->gaps_below = ahead;
    bw_partition_unlock(p);
    bw_os_close(dir);
    BW_KILL_POINT("copy.gaps");
    return e;
}

bw_err bw_partition_copy_epoch(bw_partition *p, int32_t epoch, int64_t offset)
{
    bw_partition_lock(p);
    bw_err e = bw_partition_write_epochs(p, epoch, offset);
    bw_partition_unlock(p);
    BW_KILL_POINT("copy.epoch");
    return e;
}

void bw_partition_set_mirror(bw_partition *p, bool mirror)
{
    bw_partition_lock(p);
    p->config.mirror = mirror;
    bw_partition_unlock(p);
}
