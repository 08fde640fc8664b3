/* broker/timer.h: deadlines of the broker thread: an intrusive binary heap. Broker thread only. */
#ifndef BW_BROKER_TIMER_H
#define BW_BROKER_TIMER_H

#include "base/clock.h"
#include "base/err.h"

#include <stddef.h>

typedef struct bw_timer {
    bw_deadline at;
    size_t index; /* in the heap plus one; 0: not set */
    void (*fire)(void *broker, struct bw_timer *self);
} bw_timer;

typedef struct bw_timers {
    bw_timer **heap;
    size_t count, cap;
} bw_timers;

/* bw_timers_set: (re)arm. NO_MEMORY: not armed. */
bw_err bw_timers_set(bw_timers *t, bw_timer *timer, bw_deadline at);
void bw_timers_clear(bw_timers *t, bw_timer *timer);
/* bw_timers_next: the earliest deadline, BW_DEADLINE_NEVER when none. */
bw_deadline bw_timers_next(const bw_timers *t);
/* bw_timers_run: fire everything that is due at now_ns; each is cleared before it fires. Returns how many. */
size_t bw_timers_run(bw_timers *t, void *broker, int64_t now_ns);
void bw_timers_free(bw_timers *t);

#endif
