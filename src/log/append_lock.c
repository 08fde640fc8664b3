/* log/append_lock.c: the partition's lock for appenders and for the coordinator: mutex, bias, ROLL and REPAIR. append.c has the whole.
 *
 * Who takes the mutex first revokes a bias (nobody is inside afterwards) and then repairs what a dead holder left, be it of the mutex
 * (EOWNERDEAD) or of the bias; in this order, since a biased owner may live while the mutex's holder died. repair_pending stays set
 * until the repair is done, so that a repairer may die as well. */
#include "log/append_state.h"

#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

enum { ZERO_PIECE = 65536 };

static bool zero_range(bw_appender *a, uint32_t from, uint32_t to)
{
    if (from >= to) return true;
    if (a->window.map) {
        memset(a->window.map + from, 0, to - from);
        return true;
    }
    static const uint8_t zeros[ZERO_PIECE];
    while (from < to) {
        uint32_t n = to - from < ZERO_PIECE ? to - from : ZERO_PIECE;
        if (bw_os_pwrite(a->window.fd, zeros, n, from) < 0) return false;
        from += n;
    }
    return true;
}

/* ROLL(t): redirects the log to the published spare; nothing here blocks or fails. Recomputed whole when it is redone. */
bool bw_append_roll(bw_appender *a, bw_position t)
{
    bw_tail_slot *s = a->slot;
    uint32_t spare = atomic_load_explicit(&s->spare_seq, memory_order_acquire); /* pairs C2 */
    if (spare != bw_position_seq(t) + 1 || bw_position_pos(t) == 0) return false;
    atomic_store_explicit(&bw_ring_at(s, bw_position_seq(t))->final_position, bw_position_pos(t), memory_order_release);
    BW_KILL_POINT("roll.final");
    bw_ring_entry *e = bw_ring_at(s, spare);
    atomic_store_explicit(&e->seq, 0, memory_order_relaxed);
    atomic_thread_fence(memory_order_release);
    atomic_store_explicit(&e->base_offset, (uint64_t)atomic_load_explicit(&s->next_offset, memory_order_relaxed),
                          memory_order_relaxed);
    atomic_store_explicit(&e->inode, atomic_load_explicit(&s->spare_inode, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(&e->limit, atomic_load_explicit(&s->spare_limit, memory_order_relaxed), memory_order_relaxed);
    atomic_store_explicit(&e->final_position, 0, memory_order_relaxed);
    BW_KILL_POINT("roll.entry");
    atomic_store_explicit(&e->seq, spare, memory_order_release);
    BW_KILL_POINT("roll.seq");
    uint32_t bytes = atomic_load_explicit(&s->spare_bytes, memory_order_relaxed);
    atomic_store_explicit(&s->capacity, bw_position_of(spare, bytes), memory_order_release);
    BW_KILL_POINT("roll.capacity");
    atomic_store_explicit(&s->tail, bw_position_of(spare, 0), memory_order_release); /* P2 */
    BW_KILL_POINT("roll.tail");
    atomic_store_explicit(&s->spare_seq, 0, memory_order_release);
    return true;
}

/* REPAIR: idempotent; the lock is held and the window is that of the tail. false: the zeroing failed; stays pending. */
bool bw_append_repair(bw_appender *a)
{
    bw_tail_slot *s = a->slot;
    atomic_store_explicit(&s->holder_step, BW_STEP_REPAIR, memory_order_relaxed);
    BW_KILL_POINT("repair.begin");
    bw_position t = atomic_load_explicit(&s->tail, memory_order_relaxed);
    bw_position e = atomic_load_explicit(&s->intent_end, memory_order_relaxed);
    if (e) {
        int64_t base = atomic_load_explicit(&s->intent_base, memory_order_relaxed);
        if (t >= e) {
            atomic_store_explicit(&s->next_offset, base + atomic_load_explicit(&s->intent_count, memory_order_relaxed),
                                  memory_order_release);
            atomic_store_explicit(&s->max_timestamp, atomic_load_explicit(&s->intent_new_ts, memory_order_relaxed),
                                  memory_order_relaxed);
        } else {
            atomic_store_explicit(&s->next_offset, base, memory_order_release);
            atomic_store_explicit(&s->max_timestamp, atomic_load_explicit(&s->intent_old_ts, memory_order_relaxed),
                                  memory_order_relaxed);
            if (!zero_range(a, bw_position_pos(t), bw_position_pos(e))) return false;
            BW_KILL_POINT("repair.zeroed");
        }
        atomic_store_explicit(&s->intent_end, 0, memory_order_release);
    } else if (atomic_load_explicit(&bw_ring_at(s, bw_position_seq(t))->seq, memory_order_relaxed) != bw_position_seq(t)) {
        atomic_store_explicit(&s->state, BW_SLOT_POISONED, memory_order_release); /* cannot happen; never guess */
        bw_wake(a->control, a->partition, BW_WAIT_STATE);
    }
    uint32_t next = bw_position_seq(t) + 1;
    bool begun = atomic_load_explicit(&bw_ring_at(s, next)->seq, memory_order_relaxed) == next ||
                 bw_position_seq(atomic_load_explicit(&s->capacity, memory_order_relaxed)) != bw_position_seq(t);
    if (begun) bw_append_roll(a, t); /* F1 */
    t = atomic_load_explicit(&s->tail, memory_order_relaxed);
    if (atomic_load_explicit(&s->spare_seq, memory_order_relaxed) == bw_position_seq(t)) {
        atomic_store_explicit(&s->spare_seq, 0, memory_order_release);
        bw_appender_ask(a);
    }
    BW_KILL_POINT("repair.done");
    return true;
}

static bw_err lock_error(bw_appender *a, bw_lock_result r)
{
    uint32_t holder = atomic_load_explicit(&a->slot->holder_pid, memory_order_relaxed);
    if (r == BW_LOCK_TIMED_OUT)
        return bw_fail(BW_ERR_LOCK_HELD, "partition %u: the lock is held by process %u (step %u); is it stopped or hung?",
                       a->partition, holder, atomic_load_explicit(&a->slot->holder_step, memory_order_relaxed));
    if (r == BW_LOCK_RECURSION)
        return bw_fail(BW_ERR_BUSY, "partition %u: this thread holds a reservation; commit or abort it first", a->partition);
    return bw_fail(BW_ERR_LOCK_LOST, "partition %u: the lock cannot be recovered; restart the daemon with all writers stopped",
                   a->partition);
}

static bw_err open_window(bw_appender *a, uint32_t seq)
{
    int dir = a->folder ? bw_os_open_beneath(a->dir_fd, a->folder, O_RDONLY | O_DIRECTORY, 0) : a->dir_fd;
    if (dir < 0) return bw_fail_errno(errno, "cannot open the partition's folder");
    bool had = a->window.seq != 0;
    bw_err e = bw_window_open_seq(&a->window, dir, a->slot, seq, a->use_pwrite ? BW_WINDOW_PWRITE : BW_WINDOW_WRITE);
    if (a->folder) bw_os_close(dir);
    int32_t more = (a->window.seq != 0) - had;
    if (a->windows && more) atomic_fetch_add_explicit(a->windows, (uint32_t)more, memory_order_relaxed);
    return e;
}

bw_err bw_append_map_tail(bw_appender *a)
{
    for (int i = 0; i < 8; i++) {
        uint32_t seq = bw_position_seq(atomic_load_explicit(&a->slot->tail, memory_order_acquire));
        if (a->window.seq == seq) return BW_OK;
        bw_err e = open_window(a, seq);
        if (e == BW_OK) return BW_OK;
        if (e != BW_ERR_NOT_FOUND || seq == bw_position_seq(atomic_load_explicit(&a->slot->tail, memory_order_acquire)))
            return bw_error_context(e, "partition %u", a->partition);
    }
    return bw_fail(BW_ERR_BUSY, "partition %u rolls faster than this process can map it", a->partition);
}

/* With the mutex held: takes the lock's bias away from whomever it is biased to. On an error the mutex is released. */
static bw_err unbias_locked(bw_appender *a, bw_deadline deadline)
{
    bw_tail_slot *s = a->slot;
    if (atomic_load_explicit(&s->bias, memory_order_relaxed) == a->bias.id) { /* our own: we are not inside */
        atomic_store_explicit(&s->bias, 0, memory_order_release);
        return BW_OK;
    }
    uint32_t pid = 0;
    switch (bw_bias_revoke(s, a->control->mail, deadline, &pid)) {
    case BW_REVOKED:
        return BW_OK;
    case BW_REVOKED_DEAD:
        atomic_store_explicit(&s->repair_pending, 1, memory_order_release);
        bw_bias_bury(s, a->control->mail);
        return BW_OK;
    default:
        bw_unlock(&s->mutex);
        return bw_fail(BW_ERR_LOCK_HELD, "partition %u: process %u is in the middle of an append; is it stopped or hung?",
                       a->partition, pid);
    }
}

/* Locks and repairs. On BW_OK the lock is held; the window is that of the tail whenever a repair was due. */
bw_err bw_appender_lock(bw_appender *a, bw_deadline deadline)
{
    bw_tail_slot *s = a->slot;
    for (;;) {
        bw_lock_result r = bw_lock(&s->mutex, deadline);
        if (r == BW_LOCK_OWNER_DIED) {
            atomic_store_explicit(&s->repair_pending, 1, memory_order_release); /* F4: repair may need another window */
            BW_KILL_POINT("lock.owner_died");
            bw_lock_make_consistent(&s->mutex);
        } else if (r != BW_LOCK_OK) {
            return lock_error(a, r);
        }
        /* Acquire: who dropped a bias of his own (bw_bias_drop) did so without the mutex. */
        if (__builtin_expect(atomic_load_explicit(&s->bias, memory_order_acquire) != 0, 0)) {
            bw_err e = unbias_locked(a, deadline);
            if (e) return e;
        }
        atomic_store_explicit(&s->holder_pid, a->pid, memory_order_relaxed);
        if (__builtin_expect(!atomic_load_explicit(&s->repair_pending, memory_order_relaxed), 1)) break;
        if (bw_position_seq(atomic_load_explicit(&s->tail, memory_order_relaxed)) != a->window.seq) {
            bw_unlock(&s->mutex);
            bw_err e = bw_append_map_tail(a);
            if (e) return e;
            continue;
        }
        if (!bw_append_repair(a)) {
            int saved = errno;
            bw_unlock(&s->mutex);
            return bw_fail_errno(saved, "partition %u: cannot repair after a writer's death", a->partition);
        }
        atomic_store_explicit(&s->repair_pending, 0, memory_order_release);
        break;
    }
    a->locked = true;
    return BW_OK;
}

void bw_appender_unlock(bw_appender *a)
{
    a->locked = false;
    bw_unlock(&a->slot->mutex);
}

bool bw_appender_roll_locked(bw_appender *a)
{
    return bw_append_roll(a, atomic_load_explicit(&a->slot->tail, memory_order_relaxed));
}
