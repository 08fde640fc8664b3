/* log/append_now.c: appending while the partition's lock is biased to this appender (log/owners.h): no lock, no fence, no system call.
 *
 * The stores are those of append.c in the same order, between entering and leaving the bias; a record may be encoded in the log itself,
 * since what lies behind the tail is nobody's. Everything that is not at hand (pages, capacity, another segment, a changed state) is
 * left to bw_append. Invariant: bias_tail, bias_next and bias_max_ts are the slot's words as long as slot.bias is bias.id. */
#include "log/append_state.h"

#include <pthread.h>
#include <string.h>

/* Inside: how many bytes may be written at the tail; 0: not here and now. */
static inline uint32_t room_at_tail(const bw_appender *a, bw_position *capacity)
{
    const bw_tail_slot *s = a->slot;
    bw_position t = a->bias_tail, c = atomic_load_explicit(&s->capacity, memory_order_acquire); /* pairs C1 */
    if (__builtin_expect(bw_position_seq(t) != a->window.seq || bw_position_seq(c) != a->window.seq ||
                             atomic_load_explicit(&s->state, memory_order_acquire) != BW_SLOT_OPEN ||
                             atomic_load_explicit(&a->control->header->retired, memory_order_acquire) ||
                             atomic_load_explicit(&s->fence, memory_order_acquire) != a->fence,
                         0))
        return 0;
    *capacity = c;
    uint32_t end = a->window.populated < bw_position_pos(c) + BW_TAIL_CLEAR ? a->window.populated : bw_position_pos(c) + BW_TAIL_CLEAR;
    return end > bw_position_pos(t) + BW_TAIL_CLEAR ? end - BW_TAIL_CLEAR - bw_position_pos(t) : 0;
}

static inline bool enter(bw_appender *a)
{
    bw_bias_record *r = a->bias.record;
    return __builtin_expect(r && a->window.map && a->bias.thread == (uintptr_t)pthread_self() && !bw_appender_forked(a), 1) &&
           __builtin_expect(bw_bias_enter(&a->slot->bias, a->bias.id, &r->busy), 1);
}

uint8_t *bw_append_begin_now(bw_appender *a, size_t least, int32_t count, bw_append_place *out)
{
    if (!enter(a)) return NULL;
    bw_position c = 0;
    uint32_t room = room_at_tail(a, &c);
    if (__builtin_expect(room < least || room == 0, 0)) {
        bw_bias_leave(&a->bias.record->busy);
        return NULL;
    }
    BW_KILL_POINT("append.inside");
    a->reserved_capacity = c;
    a->reserved_count = count;
    bw_append_intend(a->slot, a->bias_tail + room, a->bias_next, count, a->bias_max_ts, a->bias_max_ts);
    *out = (bw_append_place){room, (int32_t)atomic_load_explicit(&a->slot->leader_epoch, memory_order_relaxed), a->bias_next};
    return a->window.map + bw_position_pos(a->bias_tail);
}

void bw_append_end_now(bw_appender *a, size_t used, int64_t max_timestamp, bw_append_result *out)
{
    bw_tail_slot *s = a->slot;
    bw_position t = a->bias_tail, end = t + used;
    if (max_timestamp > a->bias_max_ts) {
        a->bias_max_ts = max_timestamp;
        atomic_store_explicit(&s->intent_new_ts, max_timestamp, memory_order_relaxed);
    }
    atomic_store_explicit(&s->intent_end, end, memory_order_release); /* from here on REPAIR can tell by the tail */
    out->base_offset = a->bias_next;
    out->end = a->bias_tail = end;
    a->bias_next += a->reserved_count;
    bw_append_publish(s, a->window.map + bw_position_pos(end), end, a->bias_next, a->bias_max_ts);
    bw_bias_leave(&a->bias.record->busy);
    BW_KILL_POINT("append.left");
    bw_wake(a->control, a->partition, BW_WAIT_TAIL);
    BW_KILL_POINT("append.woken");
    bw_position c = a->reserved_capacity;
    if (__builtin_expect(c != a->seen_capacity || bw_position_pos(end) >= a->ask_at, 0))
        bw_append_ask_ahead(a, c, bw_position_pos(end));
}

void bw_append_cancel_now(bw_appender *a, size_t dirty)
{
    memset(a->window.map + bw_position_pos(a->bias_tail), 0, dirty);
    atomic_signal_fence(memory_order_seq_cst);
    BW_KILL_POINT("reserve.zeroed");
    atomic_store_explicit(&a->slot->intent_end, 0, memory_order_release);
    bw_bias_leave(&a->bias.record->busy);
}

bool bw_append_now(bw_appender *a, const uint8_t *batch, size_t len, int32_t count, int64_t max_timestamp, bw_append_result *out)
{
    bw_append_place at;
    uint8_t *place = bw_append_begin_now(a, len, count, &at);
    if (!place) return false;
    memcpy(place, batch, len);
    bw_batch_patch(place, at.base_offset, at.leader_epoch);
    bw_append_end_now(a, len, max_timestamp, out);
    return true;
}
