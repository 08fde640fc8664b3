/* log/partition_files.c: the coordinator's file work around appends: grant capacity, make spares, and after a roll link, seal, trim.
 *
 * Orders that make it safe:
 *   grow    fallocate, then (under the shared lock, if the tail is still there) store the capacity: C1. Capacity never covers bytes
 *           that are not allocated, so no store can fault for lack of space, nor the last ones (BW_GRANT_MARGIN).
 *   spare   create, fallocate, keep the descriptor (before the first store into it), then publish under the shared lock: C2. The
 *           folder is synced before anything in the new segment is called durable (partition_sync.c), not before publication:
 *           writers need not wait for a journal commit, and recovery takes a spare whose first batch is valid for part of the log.
 *   link    "<seq>.spare" -> "<base>.log", sync the folder, only then unlink the spare's name: at no time is there no name.
 *   seal    only when all of the segment is durable; the cut that follows lies behind its final length, which nobody touches. */
#include "log/segment.h"

#include "base/killpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum { GRANT_ALIGN = 64 << 10, FAST_FILL_MS = 10000, AHEAD_MS = 1000, NEW_MS = 200, SPACE_RETRY_MS = 500, SPACE_MARGIN = 1 << 20 };

bw_err bw_partition_lock_slot(bw_partition *p)
{
    bw_appender_options o = {.control = p->control, .partition = (uint32_t)p->number, .dir_fd = p->data_fd, .folder = p->dir_name,
                             .use_pwrite = true, .guard = p->guard};
    bw_err e = bw_appender_open(&o, &p->appender);
    bw_os_yield(); /* others run now rather than while the lock is held: writers would wait for it as long */
    if (!e && (e = bw_appender_lock(p->appender, bw_deadline_in_ms(BW_LOCK_WAIT_MS)))) {
        bw_appender_close(p->appender);
        p->appender = NULL;
    }
    return e;
}

void bw_partition_unlock_slot(bw_partition *p)
{
    bw_appender_unlock(p->appender);
    bw_appender_close(p->appender);
    p->appender = NULL;
}

/* Bytes a second that this segment is being filled with; when it is new, as the one before was; 0: not known. */
static uint64_t fill_rate(const bw_segment *a, uint32_t pos, int64_t now)
{
    if (!a->born_mono_ms) return 0;
    int64_t ms = now - a->born_mono_ms;
    uint64_t rate = (uint64_t)pos * 1000 / (uint64_t)(ms > 0 ? ms : 1);
    return ms < NEW_MS && a->rate_before > rate ? a->rate_before : rate;
}

/* In memory only: the spare that writers rolled into becomes the active segment. */
void bw_partition_adopt_rolls(bw_partition *p, bw_position tail)
{
    while (bw_partition_active(p)->seq < bw_position_seq(tail)) {
        bw_segment *a = bw_partition_active(p), *s = p->spare;
        bw_ring_entry *old = bw_ring_at(p->slot, a->seq), *e = bw_ring_at(p->slot, a->seq + 1);
        bool sound = s && s->seq == a->seq + 1 && atomic_load_explicit(&e->seq, memory_order_acquire) == s->seq &&
                     atomic_load_explicit(&old->seq, memory_order_acquire) == a->seq;
        uint32_t final = atomic_load_explicit(&old->final_position, memory_order_acquire);
        if (!sound || final < a->length || final > a->file_bytes || bw_partition_push(p, s) != BW_OK) {
            if (sound && final >= a->length && final <= a->file_bytes) return; /* no memory: again at the next call */
            p->broken = true; /* the ring contradicts what we published */
            bw_partition_poison(p);
            return;
        }
        a->final_length = final;
        a->rolled = true;
        s->base_offset = s->next_offset = (int64_t)atomic_load_explicit(&e->base_offset, memory_order_acquire);
        s->born_mono_ms = bw_clock_mono_ms();
        s->rate_before = fill_rate(a, final, s->born_mono_ms);
        p->spare = NULL;
        p->spare_published = false;
        p->roll_wanted = false;
    }
}

/* ---- space ---- */

static void set_no_space(bw_partition *p, bool full)
{
    if (p->no_space == full) return;
    p->no_space = full;
    if (full) bw_partition_reuse_expire(p, -1);
    uint32_t bit = BW_SLOT_NO_SPACE;
    if (full) atomic_fetch_or_explicit(&p->slot->flags, bit, memory_order_release);
    else atomic_fetch_and_explicit(&p->slot->flags, ~bit, memory_order_release);
    bw_wake(p->control, (uint32_t)p->number, BW_WAIT_STATE);
}

/* Does the file system have the reserve, and some more when it was full (hysteresis)? */
static bool space_left(const bw_partition *p, uint32_t bytes)
{
    int64_t reserve = p->config.disk_reserve_bytes + (p->no_space ? SPACE_MARGIN : 0);
    if (reserve <= 0) return true;
    int64_t free_bytes = bw_os_free_bytes(p->data_fd);
    return free_bytes < 0 || free_bytes >= reserve + (int64_t)bytes;
}

/* Room for the segment's file from its file_bytes up to `to`. */
static bw_err allocate(bw_partition *p, bw_segment *s, uint32_t to)
{
    uint32_t from = s->file_bytes;
    if (to <= from) return BW_OK;
    int error = space_left(p, to - from) ? 0 : ENOSPC;
    if (!error && bw_os_fallocate(s->fd, 0, from, (off_t)to - from) != 0) error = errno;
    if (!error) return BW_OK;
    return bw_fail_errno(error, "cannot allocate %u bytes for %s; free some space or lower retention", to - from, p->dir_name);
}

/* Tries a full step, then the least that helps. *got: the end that was allocated. A full disk is told to the writers. */
static bw_err allocate_step(bw_partition *p, bw_segment *s, uint32_t want, uint32_t least, uint32_t *got)
{
    *got = p->no_space ? least : want;
    bw_err e = allocate(p, s, *got);
    if (e == BW_ERR_DISK_FULL && *got > least) {
        *got = least;
        e = allocate(p, s, least);
    }
    if (e == BW_ERR_DISK_FULL) p->tried_space_ms = bw_clock_mono_ms();
    if (e == BW_OK || e == BW_ERR_DISK_FULL) set_no_space(p, e != BW_OK);
    return e;
}

/* The length of a file in which n bytes may be written. */
static uint32_t round_up(uint64_t n, uint32_t limit)
{
    n = (n + BW_GRANT_MARGIN + GRANT_ALIGN - 1) & ~(uint64_t)(GRANT_ALIGN - 1);
    return bw_u32_min(n, (uint64_t)limit + BW_GRANT_MARGIN);
}

/* Stores the capacity if it is not what the slot says, and wakes who waits for it. It may be less than what is allocated: see
 * partition_dirty.c. */
static bw_err publish_capacity(bw_partition *p, bw_segment *a, uint32_t pos, uint32_t need)
{
    uint32_t room = bw_segment_room(a); /* a cleanly cut file has none: what there is stays */
    if (bw_position_of(a->seq, room) <= atomic_load_explicit(&p->slot->capacity, memory_order_relaxed)) return BW_OK;
    uint32_t piece = bw_partition_grant_piece(p);
    if (piece == 0) return BW_OK;
    uint64_t upto = pos + (uint64_t)piece;
    bw_position want = bw_position_of(a->seq, bw_u32_min(upto < need ? need : upto, room));
    if (atomic_load_explicit(&p->slot->capacity, memory_order_relaxed) >= want) return BW_OK;
    bw_err e = bw_partition_lock_slot(p);
    if (e) return e;
    if (bw_position_seq(atomic_load_explicit(&p->slot->tail, memory_order_relaxed)) == a->seq)
        atomic_store_explicit(&p->slot->capacity, want, memory_order_release); /* C1 */
    bw_partition_unlock_slot(p);
    BW_KILL_POINT("grow.stored");
    bw_wake(p->control, (uint32_t)p->number, BW_WAIT_STATE);
    return BW_OK;
}

uint32_t bw_partition_requested(const bw_partition *p, const bw_segment *a)
{
    bw_position r = atomic_load_explicit(&p->slot->capacity_request, memory_order_acquire);
    return bw_position_seq(r) == a->seq ? bw_position_pos(r) : 0;
}

/* A file that ends exactly at the log's end tells recovery that nothing was ever visible behind it. That must stop being true on the
 * disk before it stops being true at all. */
static bw_err sync_size(bw_partition *p, const bw_segment *a)
{
    if (bw_os_fsync(a->fd) != 0) {
        bw_err io = bw_fail_errno(errno, "cannot sync segment %020lld.log", (long long)a->base_offset);
        bw_partition_poison(p);
        return io;
    }
    p->sync_grant = p->sync_room = false;
    BW_KILL_POINT("grow.synced");
    return BW_OK;
}

static bw_err grow(bw_partition *p, bw_segment *a, uint32_t pos, int64_t now)
{
    uint32_t need = bw_partition_requested(p, a);
    bw_err e = BW_OK;
    if (p->sync_room && (need == 0 || (e = sync_size(p, a)) != BW_OK)) return e;
    /* Half of the newest step in hand, and what is written in half a second: so long writers go on when there is no coordinator. But no more
     * than there is: a small topic stays small. */
    uint32_t ahead = bw_u32_min(fill_rate(a, pos, now) / 2, bw_u32_min(pos, BW_GRANT_MOST));
    uint32_t threshold = ahead > a->step / 2 ? ahead : a->step / 2;
    uint32_t room = bw_segment_room(a);
    bool asked = need > room && need <= a->limit;
    if (room >= a->limit || !(asked || (pos > 0 && (room < pos || room - pos < threshold))))
        return publish_capacity(p, a, pos, need);
    uint64_t step = a->step == 0 ? BW_GRANT_FIRST : 2 * (uint64_t)a->step;
    if (step < 2 * (uint64_t)ahead) step = 2 * (uint64_t)ahead;
    if (step > BW_GRANT_MOST) step = BW_GRANT_MOST;
    uint32_t want = round_up(a->file_bytes + step, a->limit);
    uint32_t least = round_up(asked ? need : (uint64_t)a->file_bytes + 1, a->limit);
    if (want < least) want = least;
    uint32_t got;
    e = allocate_step(p, a, want, least, &got);
    if (e) return e;
    BW_KILL_POINT("grow.allocated");
    if (p->sync_grant && (e = sync_size(p, a)) != BW_OK) return e;
    a->step = got - a->file_bytes;
    a->file_bytes = got;
    return publish_capacity(p, a, pos, need);
}

/* ---- spare ---- */

bool bw_partition_roll_due(const bw_partition *p, const bw_segment *a, uint32_t pos, int64_t now)
{
    if (pos == 0) return false;
    if (p->roll_wanted) return true;
    return p->config.segment_ms >= 0 && a->born_mono_ms != 0 && now - a->born_mono_ms > p->config.segment_ms;
}

static bool spare_wanted(const bw_partition *p, const bw_segment *a, uint32_t pos, int64_t now)
{
    uint32_t limit = bw_u32_min(a->limit, p->config.segment_bytes);
    if (pos == 0) return a->rate_before * AHEAD_MS / 1000 > limit && fill_rate(a, pos, now) > 0;
    uint32_t left = pos < limit ? limit - pos : 0;
    return pos > limit / 2 || bw_partition_requested(p, a) > limit || fill_rate(a, pos, now) * AHEAD_MS / 1000 > left ||
           bw_partition_roll_due(p, a, pos, now);
}

static bw_err make_spare(bw_partition *p, const bw_segment *a, uint32_t pos, int64_t now)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment *s = bw_segment_new(p, 0);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a segment");
    s->seq = a->seq + 1;
    s->limit = bw_segment_limit(p->config.segment_bytes);
    uint32_t r = bw_partition_requested(p, a);
    uint32_t need = r > pos && r - pos < s->limit ? r - pos : 1;
    uint64_t rate = fill_rate(a, pos, now);
    uint64_t want = rate * (FAST_FILL_MS / 1000) >= s->limit ? s->limit : 2 * rate;
    uint32_t least = round_up(need, s->limit);
    uint32_t bytes = round_up(want > BW_GRANT_FIRST ? want : BW_GRANT_FIRST, s->limit);
    if (bytes < least) bytes = least;
    bw_spare_name(name, s->seq);
    (void)bw_os_unlink(bw_partition_dir(p), name, 0); /* left by an attempt that failed */
    if (!bw_partition_reuse(p, s, name))
        bw_segment_set_fd(s, bw_os_open_beneath(bw_partition_dir(p), name, O_RDWR | O_CREAT | O_EXCL, 0644));
    bw_err e = s->fd < 0 ? bw_fail_errno(errno, "cannot create %s", name) : BW_OK;
    BW_KILL_POINT("spare.created");
    if (!e) e = allocate_step(p, s, bytes, least, &bytes);
    if (!e) e = bw_segment_open(p, s);
    if (e) {
        if (s->fd >= 0) (void)bw_os_unlink(bw_partition_dir(p), name, 0);
        bw_segment_free(s);
        return e;
    }
    s->spare_name = true;
    s->spare_seq = s->seq;
    p->dir_dirty = true;
    if (p->sync_grant && bw_os_sync_dir(p->dir_fd) != 0) { /* as in grow: a spare on the disk says that the stop was not clean */
        e = bw_fail_errno(errno, "cannot sync folder %s", p->dir_name);
        bw_segment_free(s);
        bw_partition_poison(p);
        return e;
    }
    s->step = bw_u32_min(s->file_bytes, BW_GRANT_MOST);
    p->spare = s;
    p->spare_published = false;
    BW_KILL_POINT("spare.allocated");
    return BW_OK;
}

/* Publishes the spare and, when a roll is due, rolls. */
static bw_err publish_spare(bw_partition *p, const bw_segment *a, bool roll)
{
    bw_segment *s = p->spare;
    bw_err e = bw_partition_lock_slot(p);
    if (e) return e;
    bw_tail_slot *slot = p->slot;
    if (bw_position_seq(atomic_load_explicit(&slot->tail, memory_order_relaxed)) + 1 == s->seq &&
        (atomic_load_explicit(&slot->spare_seq, memory_order_relaxed) != s->seq ||
         atomic_load_explicit(&slot->spare_inode, memory_order_relaxed) != s->inode)) {
        atomic_store_explicit(&slot->spare_seq, 0, memory_order_release);
        uint32_t piece = bw_partition_grant_piece(p), least = bw_u32_min(BW_GRANT_FIRST, bw_segment_room(s));
        atomic_store_explicit(&slot->spare_bytes, piece > least ? bw_u32_min(piece, bw_segment_room(s)) : least, memory_order_relaxed);
        atomic_store_explicit(&slot->spare_inode, s->inode, memory_order_relaxed);
        atomic_store_explicit(&slot->spare_limit, s->limit, memory_order_relaxed);
        BW_KILL_POINT("spare.filled");
        atomic_store_explicit(&slot->spare_seq, s->seq, memory_order_release); /* C2 */
        BW_KILL_POINT("spare.published");
    }
    p->spare_published = true;
    if (roll && bw_position_seq(atomic_load_explicit(&slot->tail, memory_order_relaxed)) == a->seq)
        (void)bw_appender_roll_locked(p->appender);
    bw_position tail = atomic_load_explicit(&slot->tail, memory_order_relaxed);
    bw_partition_unlock_slot(p);
    BW_KILL_POINT("spare.unlocked");
    bw_wake(p->control, (uint32_t)p->number, BW_WAIT_STATE);
    if (bw_position_seq(tail) != a->seq) bw_partition_adopt_rolls(p, tail);
    return BW_OK;
}

bw_err bw_partition_grant(bw_partition *p, bw_position tail, int64_t now)
{
    bw_segment *a = bw_partition_active(p);
    if (bw_position_seq(tail) != a->seq) return BW_OK; /* adopt failed: nothing can be granted */
    if (p->rest != BW_AWAKE) {
        bw_err woken = bw_partition_wake(p, tail, now, false);
        if (woken) return woken == BW_ERR_EMPTY ? BW_OK : woken;
    }
    uint32_t pos = bw_position_pos(tail);
    if (pos > 0 && a->born_mono_ms == 0) a->born_mono_ms = now;
    if (p->no_space) {
        if (now - p->tried_space_ms < SPACE_RETRY_MS) return BW_OK;
        p->tried_space_ms = now;
        if (space_left(p, BW_GRANT_FIRST)) set_no_space(p, false);
    }
    bw_err e = grow(p, a, pos, now);
    bool wanted = spare_wanted(p, a, pos, now);
    if (!wanted) return e;
    bw_err e2 = p->spare ? BW_OK : make_spare(p, a, pos, now);
    bool roll = bw_partition_roll_due(p, a, pos, now);
    if (!e2 && (roll || !p->spare_published || atomic_load_explicit(&p->slot->spare_seq, memory_order_relaxed) != a->seq + 1))
        e2 = publish_spare(p, a, roll);
    return e ? e : e2;
}

/* ---- after a roll ---- */

bw_err bw_partition_link_files(bw_partition *p)
{
    size_t first = p->count;
    while (first > 0 && !p->segments[first - 1]->linked) first--;
    for (size_t i = first; i < p->count; i++) { /* the oldest first: by their names they are one log at any moment */
        bw_segment *s = p->segments[i];
        char spare[BW_SEGMENT_NAME_MAX], log[BW_SEGMENT_NAME_MAX];
        bw_spare_name(spare, s->seq);
        bw_segment_name(log, s->base_offset, ".log");
        if (bw_os_link(bw_partition_dir(p), spare, bw_partition_dir(p), log) != 0) {
            struct stat st;
            int saved = errno;
            if (saved != EEXIST || bw_os_stat_at(bw_partition_dir(p), log, &st) != 0 || (uint64_t)st.st_ino != s->inode)
                return bw_fail_errno(saved, "cannot link %s to %s", spare, log);
        }
        s->linked = true;
        p->dir_dirty = true;
        BW_KILL_POINT("roll.linked");
    }
    return BW_OK;
}

/* The folder was synced: the links are on the disk. */
void bw_partition_unlink_spare_names(bw_partition *p)
{
    for (size_t i = p->count; i-- > 0;) {
        bw_segment *s = p->segments[i];
        if (!s->linked || !s->spare_name || !s->link_syncing) {
            if (s->sealed) break;
            continue;
        }
        char name[BW_SEGMENT_NAME_MAX];
        bw_spare_name(name, s->spare_seq);
        if (bw_os_unlink(bw_partition_dir(p), name, 0) != 0 && errno != ENOENT) return;
        s->spare_name = false;
        BW_KILL_POINT("roll.unlinked");
    }
}

void bw_partition_seal_durable(bw_partition *p)
{
    uint32_t durable = bw_position_seq(atomic_load_explicit(&p->slot->durable, memory_order_acquire));
    bool all = p->seal_all;
    p->seal_all = false;
    for (size_t i = p->follow_at; i-- > 0 && (all || !p->segments[i]->sealed);) {
        bw_segment *s = p->segments[i];
        if (s->sealed) continue;
        if (!s->rolled || s->seq >= durable || s->users || !s->linked || bw_segment_seal(p, s) != BW_OK) {
            p->seal_all = true; /* at a later tend, although newer ones may be sealed by then */
            continue;
        }
        BW_KILL_POINT("seal.done");
        if (s->fd >= 0) {
            if (s->file_bytes > s->final_length && bw_os_ftruncate(s->fd, s->final_length) == 0) s->file_bytes = s->final_length;
            BW_KILL_POINT("seal.trimmed");
            struct stat st;
            if (bw_os_fstat(s->fd, &st) == 0) s->mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
            bw_segment_set_fd(s, -1);
        }
        free(s->merkle);
        s->merkle = NULL;
        s->sealed = true;
    }
}
