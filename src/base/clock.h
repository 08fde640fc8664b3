/* base/clock.h: the one clock. Wall time is for record timestamps and retention only; everything that waits or expires uses the
 * monotonic clock. In BW_TESTING builds BUSWAY_CLOCK_OFFSET_MS shifts the wall clock. */
#ifndef BW_BASE_CLOCK_H
#define BW_BASE_CLOCK_H

#include <stdint.h>

int64_t bw_clock_wall_ms(void);
int64_t bw_clock_mono_ns(void);
int64_t bw_clock_boot_ms(void); /* since the boot; goes on while the machine is suspended */
static inline int64_t bw_clock_mono_ms(void) { return bw_clock_mono_ns() / 1000000; }

/* A deadline on the monotonic clock, in ns. INT64_MAX: never. */
typedef int64_t bw_deadline;
#define BW_DEADLINE_NEVER INT64_MAX
/* timeout_ms < 0: never; 0: already over. */
bw_deadline bw_deadline_in_ms(int64_t timeout_ms);
/* What is left, in ns, at least 0; INT64_MAX for never. */
int64_t bw_deadline_left_ns(bw_deadline deadline);

#endif
