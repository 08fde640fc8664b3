/* log/partition_rest.c: a partition that nobody uses holds no descriptor, and gets them back when somebody wants to write.
 *
 * A segment's descriptor must be open before the first store into it and stay so until all of it is on the disk: only such a one is
 * told of a failed writeback. So, in this order:
 *   begin   under the shared lock: capacity := tail, the spare is withdrawn. No store can come any more without a new grant.
 *   sync    what was written before (partition_sync.c).
 *   end     if the tail is durable and no room was granted meanwhile: the descriptors are closed.
 *   wake    the descriptors are opened; only then room is granted (partition_files.c).
 * Of a begin that is never ended (death, a failed sync) nothing is left but a capacity at the tail: the next tend grants again. */
#include "log/segment.h"

#include "base/killpoint.h"

bool bw_partition_is_resting(const bw_partition *p) { return atomic_load_explicit(&p->resting, memory_order_acquire); }

bool bw_partition_is_starved(const bw_partition *p) { return atomic_load_explicit(&p->starved, memory_order_acquire); }

static void set_rest(bw_partition *p, bw_rest rest)
{
    p->rest = (uint8_t)rest;
    atomic_store_explicit(&p->resting, rest == BW_RESTING, memory_order_release);
}

static bw_err begin(bw_partition *p)
{
    uint32_t state = atomic_load_explicit(&p->slot->state, memory_order_acquire);
    if (state != BW_SLOT_OPEN || p->broken || p->rest != BW_AWAKE) return bw_fail(BW_ERR_BUSY, "%s cannot rest", p->dir_name);
    bw_err e = bw_partition_lock_slot(p);
    if (e) return e;
    bw_tail_slot *s = p->slot;
    bw_position tail = atomic_load_explicit(&s->tail, memory_order_relaxed);
    atomic_store_explicit(&s->capacity_request, 0, memory_order_relaxed); /* who still waits asks again in a moment */
    atomic_store_explicit(&s->spare_seq, 0, memory_order_release);
    atomic_store_explicit(&s->capacity, tail, memory_order_release);
    BW_KILL_POINT("rest.capacity");
    bw_partition_unlock_slot(p);
    p->spare_published = false;
    bw_partition_adopt_rolls(p, tail);
    if (bw_partition_active(p)->seq != bw_position_seq(tail)) return bw_fail(BW_ERR_BUSY, "%s rolled just now", p->dir_name);
    set_rest(p, BW_SETTLING);
    return BW_OK;
}

bw_err bw_partition_rest_begin(bw_partition *p)
{
    bw_partition_lock(p);
    bw_err e = begin(p);
    bw_partition_unlock(p);
    return e;
}

static bool all_durable(bw_partition *p)
{
    const bw_tail_slot *s = p->slot;
    bw_position tail = atomic_load_explicit(&s->tail, memory_order_acquire);
    return atomic_load_explicit(&s->state, memory_order_acquire) == BW_SLOT_OPEN && !p->broken && !p->unverified && !p->dir_dirty &&
           atomic_load_explicit(&s->capacity, memory_order_acquire) == tail &&
           atomic_load_explicit(&s->durable, memory_order_acquire) == tail && bw_partition_active(p)->seq == bw_position_seq(tail) &&
           bw_partition_follow(p, tail) == BW_OK;
}

static bw_err end(bw_partition *p)
{
    if (p->rest != BW_SETTLING) return bw_fail(BW_ERR_BUSY, "%s is in use", p->dir_name);
    bool may = all_durable(p) && (!p->indexer.index.len || bw_indexer_flush(&p->indexer, bw_partition_dir(p)) == BW_OK);
    if (may) bw_partition_seal_durable(p);
    for (size_t i = 0; may && i < p->count; i++) may = !p->segments[i]->users && p->segments[i]->linked;
    if (!may) {
        set_rest(p, BW_AWAKE);
        return bw_fail(BW_ERR_BUSY, "%s is in use", p->dir_name);
    }
    BW_KILL_POINT("rest.synced");
    for (size_t i = 0; i < p->count; i++) bw_segment_set_fd(p->segments[i], -1);
    if (p->spare) bw_segment_set_fd(p->spare, -1);
    bw_indexer_trim(&p->indexer);
    set_rest(p, BW_RESTING);
    BW_KILL_POINT("rest.closed");
    return BW_OK;
}

bw_err bw_partition_rest_end(bw_partition *p)
{
    bw_partition_lock(p);
    bw_err e = end(p);
    bw_partition_unlock(p);
    return e;
}

bw_err bw_partition_wake(bw_partition *p, bw_position tail, int64_t now, bool force)
{
    bw_segment *a = bw_partition_active(p);
    uint32_t pos = bw_position_pos(tail);
    atomic_store_explicit(&p->starved, false, memory_order_relaxed);
    if (!force && bw_partition_requested(p, a) <= pos && !bw_partition_roll_due(p, a, pos, now)) return BW_ERR_EMPTY;
    if (p->rest == BW_RESTING) {
        if (!force && p->open_files && atomic_load_explicit(&p->open_files->count, memory_order_relaxed) >= p->open_files->most) {
            atomic_store_explicit(&p->starved, true, memory_order_release);
            return BW_ERR_EMPTY;
        }
        bw_err e = bw_segment_open(p, a);
        if (!e && p->spare) e = bw_segment_open(p, p->spare);
        if (e) {
            bw_segment_set_fd(a, -1);
            return e;
        }
        BW_KILL_POINT("rest.opened");
    }
    set_rest(p, BW_AWAKE);
    return BW_OK;
}
