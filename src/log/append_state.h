/* log/append_state.h: what the two ways of appending share (append.c by the mutex, append_now.c by the bias): the appender, and the
 * stores of an append in their order, which tests/model/append.pml has step by step. Internal to log/. */
#ifndef BW_LOG_APPEND_STATE_H
#define BW_LOG_APPEND_STATE_H

#include "base/killpoint.h"
#include "format/record_batch.h"
#include "log/append.h"
#include "log/window.h"

#include <limits.h>
#include <string.h>

struct bw_appender {
    bw_control *control;
    bw_tail_slot *slot;
    uint32_t partition;
    int dir_fd;
    char *folder; /* in dir_fd, opened for each window anew; NULL: dir_fd is it, and ours */
    _Atomic uint32_t *windows;
    bool use_pwrite;
    bool locked;
    const bw_fork_guard *guard;
    bw_owners *owners;
    bw_bias bias;
    /* while slot.bias is bias.id nobody else changes these words, and the tail's line need not be taken back from the readers */
    bw_position bias_tail;
    int64_t bias_next, bias_max_ts;
    uint32_t streak, streak_wanted;
    uint32_t mark; /* this appender in slot.last_appender */
    uint32_t pid;
    uint64_t fence; /* the slot's when this appender was opened */
    bw_window window;
    uint64_t seen_capacity; /* newest grant seen, and the position from where more is asked for ahead of need */
    uint32_t ask_at;
    uint8_t *scratch; /* use_pwrite: the batch with its offset patched in */
    size_t scratch_cap;
    bw_position reserved_tail;
    int32_t reserved_count;
    size_t reserved_len;
    bw_position reserved_capacity;
};

static inline bool bw_appender_forked(const bw_appender *a) { return a->guard && bw_forked(a->guard); }

static inline void bw_appender_ask(bw_appender *a)
{
    bw_notify(a->control->mail, BW_MAILBOX_COORDINATOR, atomic_load_explicit(&a->slot->bus_number, memory_order_relaxed));
}

/* Ahead of need: tell the coordinator when half of its newest grant is used. */
static inline void bw_append_ask_ahead(bw_appender *a, bw_position capacity, uint32_t end)
{
    if (capacity != a->seen_capacity) {
        bool same = bw_position_seq(capacity) == bw_position_seq(a->seen_capacity);
        uint32_t before = same ? bw_position_pos(a->seen_capacity) : 0;
        a->ask_at = before + (bw_position_pos(capacity) - before) / 2;
        a->seen_capacity = capacity;
    }
    if (end < a->ask_at) return;
    a->ask_at = UINT_MAX;
    bw_appender_ask(a);
}

/* append_lock.c, under the mutex. bw_append_roll: ROLL(t); false: no spare. bw_append_repair: REPAIR, with the tail's window; false: the
 * zeroing failed, it stays pending. bw_append_map_tail (no lock needed): the window of the tail's segment. */
bool bw_append_roll(bw_appender *a, bw_position t);
bool bw_append_repair(bw_appender *a);
bw_err bw_append_map_tail(bw_appender *a);

/* holder_step, for diagnostics of a hung holder. */
enum { BW_STEP_COPY = 2, BW_STEP_RESERVED = 3, BW_STEP_REPAIR = 4 };

/* What REPAIR needs, should the writer die from here on. */
static inline void bw_append_intend(bw_tail_slot *s, bw_position end, int64_t base, int32_t count, int64_t old_ts, int64_t new_ts)
{
    atomic_store_explicit(&s->intent_base, base, memory_order_relaxed);
    atomic_store_explicit(&s->intent_count, (uint32_t)count, memory_order_relaxed);
    atomic_store_explicit(&s->intent_old_ts, old_ts, memory_order_relaxed);
    atomic_store_explicit(&s->intent_new_ts, new_ts > old_ts ? new_ts : old_ts, memory_order_relaxed);
    atomic_store_explicit(&s->intent_end, end, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    BW_KILL_POINT("append.intent");
}

/* The batch lies whole between the tail and `end`, which is what intent_end says: zeros behind it (at `behind`; NULL: they are there), P1
 * and what follows. */
static inline void bw_append_publish(bw_tail_slot *s, uint8_t *behind, bw_position end, int64_t next_offset, int64_t max_ts)
{
    if (behind) memset(behind, 0, BW_TAIL_CLEAR);
    atomic_signal_fence(memory_order_seq_cst);
    BW_KILL_POINT("append.copied");
    atomic_store_explicit(&s->tail, end, memory_order_release); /* P1; pairs R1, S1, W3 */
    BW_KILL_POINT("append.published");
    atomic_store_explicit(&s->next_offset, next_offset, memory_order_release);
    atomic_store_explicit(&s->max_timestamp, max_ts, memory_order_relaxed);
    BW_KILL_POINT("append.offset");
    atomic_store_explicit(&s->intent_end, 0, memory_order_release);
    BW_KILL_POINT("append.cleared");
}

#endif
