/* base/clock.h: the one clock. Wall time is for record timestamps and retention only; everything that waits or expires uses the
 * monotonic clock. In BW_TESTING builds BUSWAY_CLOCK_OFFSET_MS shifts the wall clock. */
#ifndef BW_BASE_CLOCK_H
#define BW_BASE_CLOCK_H

#include <stdint.h>

int64_t bw_clock_wall_ms(void);
int64_t bw_clock_mono_ns(void);
/* bw_clock_coarse_ms: the monotonic clock as of the kernel's last tick (1 to 10 ms ago): a third of its cost. */
int64_t bw_clock_coarse_ms(void);
int64_t bw_clock_boot_ms(void); /* since the boot; goes on while the machine is suspended */
static inline int64_t bw_clock_mono_ms(void) { return bw_clock_mono_ns() / 1000000; }

/* bw_stamp_ms: the wall clock for record timestamps at a fifth of its cost: between two looks at it, at most 100 us apart, the
 * processor's counter is read. One a user, zeroed at first, one thread at a time. Where the counter's rate is not constant, and in
 * BW_TESTING builds, it is bw_clock_wall_ms. */
typedef struct bw_stamp_clock {
    uint64_t ticks, valid; /* at the last look; how long it is good for, in ticks; 0: not at all */
    int64_t wall_ns;       /* at the last look */
    uint64_t rate;         /* ns a tick, times 2^32 */
    uint64_t first_ticks;  /* where measuring the rate began, and when; 0: never looked */
    int64_t first_ns;
} bw_stamp_clock;
int64_t bw_stamp_look_ms(bw_stamp_clock *c);
static inline uint64_t bw_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t t;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
    return t;
#else
    return 0;
#endif
}
static inline int64_t bw_stamp_ms(bw_stamp_clock *c)
{
    uint64_t passed = bw_ticks() - c->ticks;
    if (__builtin_expect(passed >= c->valid, 0)) return bw_stamp_look_ms(c);
    return (int64_t)((uint64_t)c->wall_ns + (passed * c->rate >> 32)) / 1000000;
}

/* A deadline on the monotonic clock, in ns. INT64_MAX: never. */
typedef int64_t bw_deadline;
#define BW_DEADLINE_NEVER INT64_MAX
/* timeout_ms < 0: never; 0: already over. */
bw_deadline bw_deadline_in_ms(int64_t timeout_ms);
/* What is left, in ns, at least 0; INT64_MAX for never. */
int64_t bw_deadline_left_ns(bw_deadline deadline);

#endif
