/* log/partition_replicated.c: the third watermark: how much of a partition its peers have.
 *
 * The slot's `replicated` is an offset, so it means the same before and after a restart, here and on a mirror. Only the coordinator raises
 * it, to what its peers have acknowledged (broker/replica.c) and never past the log's end; it does not go back while the control data
 * lives: who has read a record as replicated reads it again.
 *
 * It is kept in BW_REPLICATED_FILE, at most once a second, without a sync: an old value, or none, says less than what is true, and what
 * peers acknowledge next puts it right. After a restart it is what the file says, as far as the log goes; so no record is ever taken for
 * replicated that no peer has acknowledged. */
#include "log/segment.h"

#include "base/killpoint.h"
#include "log/smallfile.h"
#include "log/wait.h"

bool bw_partition_raise_replicated(bw_partition *p, int64_t offset)
{
    bw_tail_slot *s = p->slot;
    int64_t end = bw_slot_end_offset(s);
    if (offset > end) offset = end;
    uint64_t now = atomic_load_explicit(&s->replicated, memory_order_relaxed);
    while ((int64_t)now < offset)
        if (atomic_compare_exchange_weak_explicit(&s->replicated, &now, (uint64_t)offset, memory_order_acq_rel, memory_order_relaxed)) {
            bw_wake(p->control, (uint32_t)p->number, BW_WAIT_STATE);
            return true;
        }
    return false;
}

int64_t bw_partition_replicated(const bw_partition *p)
{
    return (int64_t)atomic_load_explicit(&p->slot->replicated, memory_order_acquire);
}

void bw_partition_restore_replicated(bw_partition *p, bool fresh)
{
    int64_t offset = bw_offset_file_read(bw_partition_dir(p), BW_REPLICATED_FILE), end = bw_slot_end_offset(p->slot);
    int64_t lives = fresh ? 0 : bw_partition_replicated(p);
    p->replicated_saved = offset;
    if (offset < lives) offset = lives; /* the slot was raised after the file was written */
    atomic_store_explicit(&p->slot->replicated, (uint64_t)(offset < end ? offset : end), memory_order_release);
}

void bw_partition_save_replicated(bw_partition *p, int64_t now_mono_ms)
{
    int64_t offset = bw_partition_replicated(p);
    if (__builtin_expect(offset == p->replicated_saved, 1) || now_mono_ms - p->replicated_saved_ms < BW_TICK_MS) return;
    p->replicated_saved_ms = now_mono_ms;
    if (bw_offset_file_put(bw_partition_dir(p), BW_REPLICATED_FILE, offset) == BW_OK) p->replicated_saved = offset;
    BW_KILL_POINT("replicated.saved");
}

bw_err bw_partition_begin_epoch(bw_partition *p, int32_t epoch)
{
    bw_err e = BW_OK;
    bw_partition_lock(p);
    if ((int32_t)atomic_load_explicit(&p->slot->leader_epoch, memory_order_acquire) < epoch) {
        e = bw_partition_write_epochs(p, epoch, bw_slot_end_offset(p->slot));
        BW_KILL_POINT("epoch.written");
        if (!e) atomic_store_explicit(&p->slot->leader_epoch, (uint32_t)epoch, memory_order_release);
    }
    bw_partition_unlock(p);
    return e;
}

bw_err bw_partition_quiesce(bw_partition *p)
{
    bw_partition_lock(p);
    bw_err e = bw_partition_lock_slot(p);
    if (!e) bw_partition_unlock_slot(p);
    bw_partition_unlock(p);
    return e;
}
