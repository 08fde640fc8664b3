/* broker/timer.c: the heap. Invariant: heap[i]->index == i + 1, and no parent is later than its children. */
#include "broker/timer.h"

#include <stdlib.h>

static void place(bw_timers *t, size_t i, bw_timer *timer)
{
    t->heap[i] = timer;
    timer->index = i + 1;
}

static void sift_up(bw_timers *t, size_t i, bw_timer *timer)
{
    while (i > 0 && t->heap[(i - 1) / 2]->at > timer->at) {
        place(t, i, t->heap[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place(t, i, timer);
}

static void sift_down(bw_timers *t, size_t i, bw_timer *timer)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= t->count) break;
        if (child + 1 < t->count && t->heap[child + 1]->at < t->heap[child]->at) child++;
        if (t->heap[child]->at >= timer->at) break;
        place(t, i, t->heap[child]);
        i = child;
    }
    place(t, i, timer);
}

bw_err bw_timers_set(bw_timers *t, bw_timer *timer, bw_deadline at)
{
    bw_timers_clear(t, timer);
    if (t->count == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 32;
        bw_timer **grown = realloc(t->heap, cap * sizeof *grown);
        if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a timer");
        t->heap = grown;
        t->cap = cap;
    }
    timer->at = at;
    sift_up(t, t->count++, timer);
    return BW_OK;
}

void bw_timers_clear(bw_timers *t, bw_timer *timer)
{
    if (!timer->index) return;
    size_t i = timer->index - 1;
    timer->index = 0;
    bw_timer *last = t->heap[--t->count];
    if (last == timer) return;
    if (i > 0 && t->heap[(i - 1) / 2]->at > last->at) sift_up(t, i, last);
    else sift_down(t, i, last);
}

bw_deadline bw_timers_next(const bw_timers *t) { return t->count ? t->heap[0]->at : BW_DEADLINE_NEVER; }

size_t bw_timers_run(bw_timers *t, void *broker, int64_t now_ns)
{
    size_t fired = 0;
    while (t->count && t->heap[0]->at <= now_ns) {
        bw_timer *timer = t->heap[0];
        bw_timers_clear(t, timer);
        timer->fire(broker, timer);
        fired++;
    }
    return fired;
}

void bw_timers_free(bw_timers *t)
{
    free(t->heap);
    *t = (bw_timers){0};
}
