/* client/producer_append.c: appends of a producer on the direct path, and what to do when one does not go through at once.
 *
 * The first attempt is made with a deadline that is over already: it takes no clock, and it succeeds unless the lock is held, space
 * is used up or the way has changed. Everything else happens here, in slices, so that a daemon that went away is noticed and, for a
 * dir: bus, started again within the caller's time. */
#include "client/producer.h"

#include "base/lock.h"

#include <time.h>

bw_err bw_ppart_lock(bw_ppart *part, bw_deadline deadline)
{
    if (bw_lock(&part->lock, deadline) == BW_LOCK_OK) return BW_OK;
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
    for (;;) {
        bw_deadline slice = deadline ? bw_deadline_first(deadline, bw_deadline_in_ms(BW_APPEND_SLICE_MS)) : 0;
        bw_err e = bw_append(part->appender, data, len, count, max_timestamp, slice, out);
        if (e == BW_OK) return BW_OK;
        bw_err now = bw_ppart_retry(part, e, deadline);
        if (now) return now;
    }
}
