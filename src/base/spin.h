/* base/spin.h: how long to look before sleeping.
 *
 * Being woken costs far more than a look when the answer is about to come, on virtual machines most of all, where an idle core has been
 * given back to the host. So whoever waits looks for a while first, and gives the core away between looks, so that it takes nothing
 * from anybody. Where that has not paid, it is not tried for the next 1, 3, 7 … 255 waits: who waits long pays next to nothing. */
#ifndef BW_BASE_SPIN_H
#define BW_BASE_SPIN_H

#include "base/clock.h"

#include <sched.h>
#include <stdbool.h>
#include <stdint.h>

#define BW_SPIN_NS 50000
#define BW_SPIN_SKIP_MAX 255u

typedef struct bw_spin { uint32_t skip, backoff; } bw_spin; /* zeroed at first; one thread at a time */

/* bw_spin_for: call look(opaque) until it is true (then so is the result) or it is time to sleep. */
static inline bool bw_spin_for(bw_spin *s, bool (*look)(void *), void *opaque)
{
    if (s->skip > 0) {
        s->skip--;
        return false;
    }
    int64_t until = bw_clock_mono_ns() + BW_SPIN_NS;
    do {
        if (look(opaque)) {
            s->backoff = 0;
            return true;
        }
        sched_yield();
    } while (bw_clock_mono_ns() < until);
    s->backoff = s->backoff * 2 + 1;
    if (s->backoff > BW_SPIN_SKIP_MAX) s->backoff = BW_SPIN_SKIP_MAX;
    s->skip = s->backoff;
    return false;
}

#endif
