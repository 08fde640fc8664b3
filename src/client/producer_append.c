/* client/producer_append.c: appends of a producer on the direct path, and what to do when one does not go through at once.
 *
 * The first attempt is made with a deadline that is over already: it takes no clock, and it succeeds unless the lock is held, space
 * is used up or the way has changed. Everything else happens here, in slices, so that a daemon that went away is noticed and, for a
 * dir: bus, started again within the caller's time. */
#include "client/producer.h"

#include "base/cpu.h"
#include "base/lock.h"

#include <stdlib.h>
#include <time.h>

/* So many sends in a row by one thread give it a seat; each loss to another thread doubles it. In tests early, so that they meet it. */
#ifdef BW_TESTING
enum { SEAT_STREAK_MIN = 3, SEAT_STREAK_MAX = 64 };
#else
enum { SEAT_STREAK_MIN = 16, SEAT_STREAK_MAX = 4096 };
#endif
enum { SEATS_MAX = 16, SEAT_SPINS = 1000, SEAT_NAP_NS = 20000 };

/* Under the lock: afterwards nobody is inside. Who is inside stays there for one append, or as long as a reservation is out. false:
 * not within the deadline; who locks next goes on waiting. */
static bool clear_seat(bw_ppart *part, bw_deadline deadline)
{
    bw_pseat *seat = atomic_load_explicit(&part->seat, memory_order_relaxed);
    uint64_t word = atomic_load_explicit(&part->seat_word, memory_order_relaxed);
    if (seat->thread == (uintptr_t)pthread_self()) {
        if (part->held) return false;
        atomic_store_explicit(&part->seat_word, 0, memory_order_release);
        return true;
    }
    atomic_store_explicit(&part->seat_word, word | BW_BIAS_REVOKED, memory_order_seq_cst); /* B3 */
    while (!bw_os_membarrier()) nanosleep(&(struct timespec){.tv_nsec = SEAT_NAP_NS}, NULL); /* B4 */
    for (uint32_t turn = 0; atomic_load_explicit(&seat->busy, memory_order_acquire) != 0; turn++) { /* B5 */
        if (turn < SEAT_SPINS) {
            bw_cpu_relax();
            continue;
        }
        if (bw_deadline_left_ns(deadline) == 0) return false;
        nanosleep(&(struct timespec){.tv_nsec = SEAT_NAP_NS}, NULL);
    }
    atomic_store_explicit(&part->seat_word, 0, memory_order_release);
    if (part->streak_wanted < SEAT_STREAK_MAX) part->streak_wanted *= 2;
    part->streak = 0;
    return true;
}

static bw_pseat *seat_of_thread(bw_ppart *part, uintptr_t thread)
{
    uint32_t count = 0;
    for (bw_pseat *s = part->seats; s; s = s->next, count++)
        if (s->thread == thread) return s;
    bw_pseat *s = count < SEATS_MAX ? aligned_alloc(64, (sizeof *s + 63) / 64 * 64) : NULL;
    if (!s) return NULL;
    *s = (bw_pseat){.next = part->seats, .thread = thread};
    part->seats = s;
    return s;
}

void bw_ppart_offer_seat(bw_ppart *part)
{
    uintptr_t self = (uintptr_t)pthread_self();
    if (part->producer->name) return; /* what passes by a seat carries no name */
    if (part->last_thread != self) {
        part->last_thread = self;
        part->streak = 0;
        if (part->streak_wanted == 0) part->streak_wanted = SEAT_STREAK_MIN;
        return;
    }
    if (++part->streak < part->streak_wanted || !part->attach || !part->attach->control->asymmetric) return;
    bw_pseat *seat = seat_of_thread(part, self);
    if (!seat) return;
    seat->id = ++part->seats_given;
    atomic_store_explicit(&part->seat, seat, memory_order_release);
    atomic_store_explicit(&part->seat_word, seat->id, memory_order_release);
}

bw_err bw_ppart_lock(bw_ppart *part, bw_deadline deadline)
{
    bw_lock_result r = bw_lock(&part->lock, deadline);
    if (r == BW_LOCK_OK) {
        if (atomic_load_explicit(&part->seat_word, memory_order_relaxed) == 0 || clear_seat(part, deadline)) return BW_OK;
        bw_pseat *seat = atomic_load_explicit(&part->seat, memory_order_relaxed);
        if (seat->thread == (uintptr_t)pthread_self()) r = BW_LOCK_RECURSION; /* its reservation is out */
        pthread_mutex_unlock(&part->lock);
    }
    if (r == BW_LOCK_RECURSION)
        return bw_fail(BW_ERR_BUSY, "topic %s partition %d: this thread holds a reservation; commit or abort it first", part->topic->name,
                       part->partition);
    return bw_fail(BW_ERR_LOCK_HELD, "topic %s partition %d: another thread of this process holds a reservation or a long append",
                   part->topic->name, part->partition);
}

bw_err bw_ppart_retry(bw_ppart *part, bw_err e, bw_deadline deadline)
{
    bw_bus *bus = part->producer->bus;
    switch (e) {
    case BW_ERR_FENCED:
    case BW_ERR_RETIRED:
    case BW_ERR_DELETED:
        e = bw_ppart_reopen(part, e, deadline);
        if (!e && !atomic_load(&part->direct)) return bw_fail(BW_ERR_UNSUPPORTED, "the direct path is gone");
        return e;
    case BW_ERR_NO_COORDINATOR:
        if (bw_deadline_left_ns(deadline) == 0) return e;
        bw_conn_check(&bus->conn);
        if (bw_bus_connect(bus, true, deadline) != BW_OK) {
            if (bw_deadline_left_ns(deadline) == 0) return BW_ERR_NO_COORDINATOR;
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        }
        return BW_OK;
    case BW_ERR_LOCK_HELD:
    case BW_ERR_TIMED_OUT:
        return bw_deadline_left_ns(deadline) == 0 ? e : BW_OK;
    default:
        return e;
    }
}

bw_err bw_ppart_append(bw_ppart *part, const uint8_t *data, size_t len, int32_t count, int64_t max_timestamp, bw_deadline deadline,
                       bw_append_result *out)
{
    if (bw_append_now(part->appender, data, len, count, max_timestamp, out)) return BW_OK;
    for (;;) {
        bw_deadline slice = deadline ? bw_deadline_first(deadline, bw_deadline_in_ms(BW_APPEND_SLICE_MS)) : 0;
        bw_err e = bw_append(part->appender, data, len, count, max_timestamp, slice, out);
        if (e == BW_OK) return BW_OK;
        bw_err now = bw_ppart_retry(part, e, deadline);
        if (now) return now;
    }
}
