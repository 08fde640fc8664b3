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

/* Indexes have offsets relative to the segment's base in 31 bits; an append moves the end by 32 bits at most. */
static int64_t newest_base(const bw_tail_slot *s, bw_position tail)
{
    return (int64_t)atomic_load_explicit(&bw_ring_at((bw_tail_slot *)(uintptr_t)s, bw_position_seq(tail))->base_offset, memory_order_acquire);
}

bool bw_partition_is_far(bw_partition *p, int64_t from, int64_t last)
{
    bw_position tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
    return last - from >= UINT32_MAX || (bw_position_pos(tail) > 0 && last - newest_base(p->slot, tail) > INT32_MAX);
}

/* A segment without a record: the end is one word, and nothing lies between the old one and the new one. So a death leaves either, and what a
 * restart reads from the files is the old one: the link then goes on there. */
static bw_err move_end(bw_partition *p, int64_t from, int64_t to)
{
    bw_err e = bw_partition_lock_slot(p);
    if (e) return e;
    if (atomic_load_explicit(&p->slot->next_offset, memory_order_relaxed) != from)
        e = bw_fail(BW_ERR_OUT_OF_ORDER_SEQUENCE, "%s does not end at %lld", p->dir_name, (long long)from);
    else if (bw_position_pos(atomic_load_explicit(&p->slot->tail, memory_order_relaxed)) > 0) e = BW_ERR_BUSY;
    else atomic_store_explicit(&p->slot->next_offset, to, memory_order_release);
    bw_partition_unlock_slot(p);
    BW_KILL_POINT("copy.moved");
    return e;
}

bw_err bw_partition_make_way(bw_partition *p, int64_t from, int64_t offset)
{
    bw_err e = BW_OK;
    bw_partition_lock(p);
    bw_position tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
    if (bw_position_pos(tail) > 0) {
        bw_partition_adopt_rolls(p, tail);
        p->roll_wanted = true;
        e = bw_partition_grant(p, tail, bw_clock_mono_ms());
        if (!e) tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
        if (!e && bw_position_pos(tail) > 0) e = bw_fail(BW_ERR_BUSY, "%s has no next segment yet", p->dir_name);
        BW_KILL_POINT("copy.rolled");
    }
    if (!e && offset - from >= INT32_MAX) e = move_end(p, from, offset);
    bw_partition_unlock(p);
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
