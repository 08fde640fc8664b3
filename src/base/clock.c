/* base/clock.c: the one clock. */
#include "base/clock.h"

#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

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

static bool ticks_are_even(void)
{
#if defined(BW_TESTING)
    return false; /* the offset may change at any time */
#elif defined(__x86_64__)
    /* A fact of the machine, asked once: on a virtual one CPUID goes to the host, 20 us each time. */
    static _Atomic int even; /* 0: not asked yet */
    if (even == 0) {
        unsigned a, b, c, d;
        even = __get_cpuid(0x80000007u, &a, &b, &c, &d) && (d & (1u << 8)) ? 1 : 2; /* invariant TSC */
    }
    return even == 1;
#elif defined(__aarch64__)
    return true; /* the generic timer */
#else
    return false;
#endif
}

int64_t bw_stamp_look_ms(bw_stamp_clock *c)
{
    enum { MEASURE_NS = 2000000, GOOD_NS = 100000 };
    c->valid = 0;
    if (!ticks_are_even()) return bw_clock_wall_ms();
    struct timespec t;
    int64_t mono = bw_clock_mono_ns();
    uint64_t ticks = bw_ticks();
    clock_gettime(CLOCK_REALTIME, &t);
    int64_t wall = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    if (c->first_ticks == 0 || ticks <= c->first_ticks) {
        c->first_ticks = ticks;
        c->first_ns = mono;
    } else if (mono - c->first_ns >= MEASURE_NS) {
        double ns_a_tick = (double)(mono - c->first_ns) / (double)(ticks - c->first_ticks);
        c->rate = (uint64_t)(ns_a_tick * 4294967296.0);
        c->valid = (uint64_t)(GOOD_NS / ns_a_tick);
        c->ticks = ticks;
        c->wall_ns = wall;
    }
    return wall / 1000000;
}

int64_t bw_clock_mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t bw_clock_coarse_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
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
