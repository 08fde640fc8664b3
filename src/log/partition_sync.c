/* log/partition_sync.c: make the visible log durable, and say so only then.
 *
 * The order (S1 to S2): load the tail; sync the folder if entries changed; fdatasync every segment from seg(durable) to seg(tail),
 * on descriptors that were open before the segment's first store; only then move the watermark, wake, and note the recovery point.
 * A failed sync is final: the partition is poisoned before anyone is woken, and no sync of it is tried again: after a failed
 * writeback the kernel calls the next sync a success although the pages are lost. */
#include "log/segment.h"

#include "base/killpoint.h"
#include "log/smallfile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A writer may be faster than the disk for as long as retention deletes behind it: syncs that nobody asked for but the number of
 * bytes leave the disk alone for this many times as long as the last one took. log.flush.interval.ms and who waits are not held up. */
enum { SYNC_REST_TIMES = 4, SYNC_REST_MOST_MS = 1000 };

#define POISON_FILE "poisoned" /* beside the recovery point in LMDB, so that a lost LMDB does not unpoison a log */

void bw_partition_poison(bw_partition *p)
{
    uint32_t open = BW_SLOT_OPEN;
    atomic_compare_exchange_strong_explicit(&p->slot->state, &open, BW_SLOT_POISONED, memory_order_acq_rel, memory_order_acquire);
    BW_KILL_POINT("sync.poisoned");
    static const char text[] = "A sync of this partition failed. It is read-only until it was checked from the disk at a restart.\n";
    (void)bw_smallfile_replace(bw_partition_dir(p), POISON_FILE, text, sizeof text - 1); /* the disk is failing: as far as it goes */
    p->point.poisoned = true;
    p->point_moved = true;
    bw_wake(p->control, (uint32_t)p->number, BW_WAIT_STATE);
    bw_wake(p->control, (uint32_t)p->number, BW_WAIT_TAIL);
}

bool bw_partition_poison_marker(bw_partition *p)
{
    struct stat st;
    return bw_os_stat_at(bw_partition_dir(p), POISON_FILE, &st) == 0;
}

void bw_partition_note_point(bw_partition *p, int64_t next_offset, const bw_segment *s, uint32_t position, uint32_t last_crc)
{
    if (!s->linked && position == 0) return; /* an empty spare: recovery would not know it for the point's segment */
    bw_recovery_point point = {
        .known = true,
        .leader_epoch = (int32_t)atomic_load_explicit(&p->slot->leader_epoch, memory_order_relaxed),
        .next_offset = next_offset,
        .segment_base = s->base_offset,
        .position = position,
        .last_crc = position ? last_crc : 0,
        .poisoned = p->point.poisoned,
        .state_offset = p->point.state_offset,
        .state_crc = p->point.state_crc,
    };
    if (point.leader_epoch == p->point.leader_epoch && point.next_offset == p->point.next_offset &&
        point.segment_base == p->point.segment_base && point.position == p->point.position && point.last_crc == p->point.last_crc)
        return;
    p->point = point;
    p->point_moved = true;
}

bool bw_partition_wants_sync_locked(bw_partition *p, bw_position tail)
{
    bw_tail_slot *s = p->slot;
    bw_position durable = atomic_load_explicit(&s->durable, memory_order_acquire);
    if (durable == tail || p->broken || atomic_load_explicit(&s->state, memory_order_acquire) != BW_SLOT_OPEN) return false;
    if (atomic_load_explicit(&s->sync_request, memory_order_acquire) > durable) return true;
    uint64_t bytes = bw_partition_unsynced(p, tail);
    bw_partition_count_dirty(p, bytes);
    if (bw_partition_dirty_presses(p, bytes)) return true;
    if (bw_clock_mono_ms() < p->sync_rest_until_ms) return false;
    return bytes >= BW_SYNC_BYTES;
}

/* Unverified after a takeover: what lies in (durable, tail] may have been lost by a writeback that failed while nobody had the
 * file open. See partition_takeover.c. */
typedef struct sync_job {
    bw_position target;
    int64_t offset; /* behind the last batch below target */
    uint32_t last_crc;
    bool dir;
    int dir_fd;
    bw_segment **segments;
    size_t count;
    bw_state_job state;
} sync_job;

/* mutex held: what is to be synced up to the present tail (S1). EMPTY: nothing. */
static bw_err prepare(bw_partition *p, sync_job *j)
{
    uint32_t state = atomic_load_explicit(&p->slot->state, memory_order_acquire);
    if (state == BW_SLOT_POISONED || p->broken)
        return bw_fail(BW_ERR_POISONED, "%s is read-only: an earlier sync failed; restart the daemon to check it", p->dir_name);
    if (state != BW_SLOT_OPEN) return BW_ERR_EMPTY;
    bw_position durable = atomic_load_explicit(&p->slot->durable, memory_order_relaxed);
    j->target = atomic_load_explicit(&p->slot->tail, memory_order_acquire); /* S1 */
    if (j->target == durable && !p->dir_dirty) return BW_ERR_EMPTY;
    bw_partition_adopt_rolls(p, j->target);
    (void)bw_partition_link_files(p); /* not needed for durability: recovery takes a spare with data as well */
    bw_err e = bw_partition_follow(p, j->target);
    if (e) return e;
    bw_segment *a = bw_partition_active(p);
    if (a->seq != bw_position_seq(j->target)) return bw_fail(BW_ERR_INTERNAL, "the newest segment is not known");
    j->offset = a->next_offset;
    j->last_crc = p->indexer.last_crc;
    j->dir_fd = bw_partition_open_folder(p); /* without it nothing has begun, and nothing is lost */
    if (j->dir_fd < 0) return bw_fail_errno(errno, "cannot open partition folder %s", p->dir_name);
    j->segments = malloc(p->count * sizeof *j->segments);
    if (!j->segments) {
        bw_os_close(j->dir_fd);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a sync");
    }
    bw_partition_state_begin(p, j->offset, &j->state);
    j->dir = p->dir_dirty || j->state.folder; /* from here on the sync happens, or poisons: a folder's sync is never forgotten */
    p->dir_dirty = false;
    for (size_t i = 0; i < p->count; i++) {
        bw_segment *s = p->segments[i];
        if (s->seq < bw_position_seq(durable) || s->seq == 0 || s->fd < 0) continue;
        s->users++;
        s->link_syncing = j->dir && s->linked;
        j->segments[j->count++] = s;
    }
    return BW_OK;
}

static bool was_dropped(bw_partition *p, const bw_segment *s)
{
    bw_partition_lock(p);
    bool dropped = s->dropped;
    bw_partition_unlock(p);
    return dropped;
}

/* No lock held. What retention has deleted meanwhile need not reach the disk, but then its deletion must, or a recovery would find
 * it below the recovery point with holes. */
static int run(bw_partition *p, sync_job *j)
{
    bool skipped = false;
    if (j->dir && bw_os_sync_dir(j->dir_fd) != 0) return errno;
    BW_KILL_POINT("sync.folder");
    for (size_t i = 0; i < j->count; i++) {
        if (was_dropped(p, j->segments[i])) skipped = true;
        else if (bw_os_fdatasync(j->segments[i]->fd) != 0) return errno;
        BW_KILL_POINT("sync.segment");
    }
    bw_partition_state_sync(j->dir_fd, &j->state);
    if (skipped && bw_os_sync_dir(j->dir_fd) != 0) return errno;
    return 0;
}

/* mutex held. */
static void finish(bw_partition *p, sync_job *j, int error)
{
    if (error) {
        bw_partition_poison(p);
    } else {
        const bw_segment *a = NULL;
        for (size_t i = 0; i < j->count; i++)
            if (j->segments[i]->seq == bw_position_seq(j->target)) a = j->segments[i];
        atomic_store_explicit(&p->slot->durable_offset, j->offset, memory_order_release);
        atomic_store_explicit(&p->slot->durable, j->target, memory_order_release); /* S2 */
        BW_KILL_POINT("sync.stored");
        if (a) bw_partition_note_point(p, j->offset, a, bw_position_pos(j->target), j->last_crc);
        if (j->dir) bw_partition_unlink_spare_names(p);
    }
    bw_partition_state_end(p, j->offset, &j->state, !error && p->point.next_offset == j->offset);
    for (size_t i = 0; i < j->count; i++) {
        bw_segment *s = j->segments[i];
        if (--s->users == 0 && s->dropped) bw_segment_free(s);
    }
    bw_os_close(j->dir_fd);
    free(j->segments);
}

bw_err bw_partition_sync(bw_partition *p)
{
    pthread_mutex_lock(&p->sync_mutex);
    bw_partition_lock(p);
    sync_job j = {0};
    bw_err e = p->unverified ? bw_partition_verify_takeover(p) : BW_OK;
    if (!e) e = prepare(p, &j);
    bw_partition_unlock(p);
    if (!e) {
        BW_KILL_POINT("sync.begin");
        int64_t began = bw_clock_mono_ms();
        int error = run(p, &j);
        BW_KILL_POINT("sync.synced");
        bw_partition_lock(p);
        int64_t ended = bw_clock_mono_ms(), rest = (ended - began) * SYNC_REST_TIMES;
        p->sync_rest_until_ms = ended + (rest < SYNC_REST_MOST_MS ? rest : SYNC_REST_MOST_MS);
        finish(p, &j, error);
        bw_partition_count_dirty(p, bw_partition_unsynced(p, atomic_load_explicit(&p->slot->tail, memory_order_acquire)));
        bool denied = p->dirty_denied;
        bw_partition_unlock(p);
        bw_wake(p->control, (uint32_t)p->number, BW_WAIT_STATE);
        if (denied) bw_notify(p->control->mail, BW_MAILBOX_COORDINATOR, p->bus_number); /* there is room to grant again */
        if (error) {
            e = bw_fail(BW_ERR_POISONED, "syncing %s failed (%s): it is read-only now; check the disk, then restart the daemon",
                        p->dir_name, strerror(error));
        }
    }
    pthread_mutex_unlock(&p->sync_mutex);
    return e == BW_ERR_EMPTY ? BW_OK : e;
}
