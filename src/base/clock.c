/* base/clock.c: the one clock. */
#include "base/clock.h"

#include <stdlib.h>
#include <time.h>

int64_t bw_clock_wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    int64_t ms = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
#ifdef BW_TESTING
    const char *shift = getenv("BUSWAY_CLOCK_OFFSET_MS");
    if (shift) ms += strtoll(shift, NULL, 10);
#endif
    return ms;
}

int64_t bw_clock_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t bw_clock_boot_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bw_deadline bw_deadline_in_ms(int64_t timeout_ms)
{
    if (timeout_ms < 0) return BW_DEADLINE_NEVER;
    if (timeout_ms == 0) return 0;
    int64_t now = bw_clock_mono_ns();
    if (timeout_ms > (INT64_MAX - now) / 1000000) return BW_DEADLINE_NEVER;
    return now + timeout_ms * 1000000;
}

int64_t bw_deadline_left_ns(bw_deadline deadline)
{
    if (deadline == BW_DEADLINE_NEVER) return INT64_MAX;
    if (deadline <= 0) return 0;
    int64_t left = deadline - bw_clock_mono_ns();
    return left > 0 ? left : 0;
}
