/* log/partition_dirty.c: how much of the log may be written but not yet on the disk.
 *
 * Writers store into mapped files, as fast as memory; the disk comes behind. What is dirty fills the page cache, and where that is
 * small (a container's limit) or the disk slow, the kernel then stops whoever next needs a page, readers as well as writers, for as
 * long as the writeback of pages in its way takes. So all partitions of a daemon share one budget of dirty bytes, an eighth of the
 * memory by default. A partition is granted room in pieces: half of what is left of the budget, a sixteenth of it at least; while that
 * much is not left, none, and its writers wait for the coordinator, asleep, instead of in the kernel's reclaim. When a quarter is used,
 * what is dirty is synced without the rest that syncs otherwise take (partition_sync.c). What retention deletes before it was synced
 * is not dirty any more. Where there is memory for gigabytes of dirty pages none of this ever binds. */
#include "log/segment.h"

enum { PIECES = 16, PRESSING = 4, WORTH_A_SYNC = 64 << 10 };

uint64_t bw_partition_unsynced(const bw_partition *p, bw_position tail)
{
    bw_position durable = atomic_load_explicit(&p->slot->durable, memory_order_acquire);
    uint64_t bytes = 0;
    for (size_t i = p->count; i-- > 0;) {
        const bw_segment *g = p->segments[i];
        if (g->seq < bw_position_seq(durable)) break;
        uint32_t end = g->rolled ? g->final_length : g->seq == bw_position_seq(tail) ? bw_position_pos(tail) : g->length;
        uint32_t from = g->seq == bw_position_seq(durable) ? bw_position_pos(durable) : 0;
        bytes += end > from ? end - from : 0;
    }
    return bytes;
}

void bw_partition_count_dirty(bw_partition *p, uint64_t bytes)
{
    bw_dirty_budget *b = p->config.dirty;
    if (!b || bytes == p->dirty_counted) return;
    atomic_fetch_add_explicit(&b->bytes, (int64_t)bytes - (int64_t)p->dirty_counted, memory_order_relaxed);
    p->dirty_counted = bytes;
}

uint32_t bw_partition_grant_piece(bw_partition *p)
{
    const bw_dirty_budget *b = p->config.dirty;
    if (!b) return UINT32_MAX;
    int64_t left = b->most - atomic_load_explicit(&b->bytes, memory_order_relaxed);
    p->dirty_denied = left < b->most / PIECES;
    if (p->dirty_denied) return 0;
    int64_t piece = left / 2 > b->most / PIECES ? left / 2 : b->most / PIECES;
    return piece > UINT32_MAX ? UINT32_MAX : (uint32_t)piece;
}

bool bw_partition_dirty_presses(const bw_partition *p, uint64_t bytes)
{
    const bw_dirty_budget *b = p->config.dirty;
    if (!b || bytes == 0 || (bytes < WORTH_A_SYNC && !p->dirty_denied)) return false;
    return atomic_load_explicit(&b->bytes, memory_order_relaxed) >= b->most / PRESSING;
}
