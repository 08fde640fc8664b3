/* log/append.c: APPEND, ROLL and REPAIR. Proof: tests/model/append.pml, which uses the same labels.
 *
 * The order that makes an append safe against death at any instruction:
 *   1. under the lock, the intent (where it ends, which offsets) is written;
 *   2. the batch is copied behind the tail, where no reader looks;
 *   3. P1: the tail moves, one 64-bit store: the batch is now in the log, whole;
 *   4. next_offset and max_timestamp follow; the intent is cleared; the lock is released.
 * Whoever locks after a death derives everything from whether the tail had moved (REPAIR): it had: finish step 4; it had not: zero
 * what was copied. A killed thread leaves a program-order prefix of its stores, so that between 1 and 3 only the compiler must be
 * held (signal fences); what other processors see is ordered by P1's release.
 *
 * Exclusion is the slot's robust mutex, or, for an appender that has had the partition to itself, the bias (log/owners.h):
 * bw_append_now stores the same words in the same order between entering and leaving it. Whoever takes the mutex revokes a bias
 * first, and repairs what a biased appender left when it was killed.
 *
 * A roll is a few stores (ROLL); begun and not ended it is redone whole by REPAIR. No I/O under the lock, no fault either: pages
 * are populated before. The one exception is the daemon's own append: a single pwrite into space that is allocated. */
#include "log/append.h"

#include "base/killpoint.h"
#include "base/lock.h"
#include "format/record_batch.h"
#include "log/append_state.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    POPULATE_TRIES = 3,     /* other writers may move the tail past what we populated; then a fault is taken */
    WAIT_SLICE_MS = 100,    /* ask the coordinator again this often */
};

/* So many appends in a row give an appender the bias; each loss to another one doubles it. In tests early, so that they meet it. */
#ifdef BW_TESTING
enum { STREAK_MIN = 2, STREAK_MAX = 64 };
#else
enum { STREAK_MIN = 16, STREAK_MAX = 4096 };
#endif



/* What one locked attempt came to. */
typedef enum attempt { DONE = 0, AGAIN, WAIT_CAPACITY, FAILED } attempt;

bw_err bw_appender_open(const bw_appender_options *o, bw_appender **out)
{
    if (o->partition >= atomic_load_explicit(&o->control->header->slots, memory_order_acquire))
        return bw_fail(BW_ERR_UNKNOWN_PARTITION, "partition %u is not in the control data", o->partition);
    bw_err opened = bw_slot_await_opened(o->control, o->partition);
    if (opened) return opened;
    bw_appender *a = calloc(1, sizeof *a);
    if (!a) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an appender");
    a->control = o->control;
    a->slot = &o->control->slots[o->partition];
    a->partition = o->partition;
    a->use_pwrite = o->use_pwrite;
    a->guard = o->guard;
    a->owners = o->owners;
    a->streak_wanted = STREAK_MIN;
    a->pid = (uint32_t)getpid();
    a->mark = a->pid * 2654435761u ^ (uint32_t)((uintptr_t)a >> 4);
    a->window = (bw_window)BW_WINDOW_NONE;
    a->fence = atomic_load_explicit(&a->slot->fence, memory_order_acquire);
    a->windows = o->windows;
    a->folder = o->folder ? strdup(o->folder) : NULL;
    int fd = o->folder ? bw_os_open_beneath(o->dir_fd, o->folder, O_RDONLY | O_DIRECTORY, 0) : fcntl(o->dir_fd, F_DUPFD_CLOEXEC, 0);
    a->dir_fd = o->folder ? o->dir_fd : fd;
    if (fd < 0 || (o->folder && !a->folder)) {
        bw_err e = bw_fail_errno(errno, "cannot keep the partition's folder open");
        if (fd >= 0) bw_os_close(fd);
        free(a->folder);
        free(a);
        return e;
    }
    if (o->folder) bw_os_close(fd); /* it can be opened: that was all */
    *out = a;
    return BW_OK;
}

void bw_appender_rest(bw_appender *a)
{
    if (a->windows && a->window.seq) atomic_fetch_sub_explicit(a->windows, 1, memory_order_relaxed);
    bw_window_close(&a->window);
    free(a->scratch);
    a->scratch = NULL;
    a->scratch_cap = 0;
}

void bw_appender_close(bw_appender *a)
{
    if (!a) return;
    bw_bias_drop(a->slot, &a->bias);
    bw_appender_rest(a);
    if (!a->folder) bw_os_close(a->dir_fd);
    free(a->folder);
    free(a->scratch);
    free(a);
}

static bw_err refuse_fork(void) { return bw_fail(BW_ERR_FORKED, "this producer belongs to the parent process; open a bus here"); }

/* ---- APPEND ---- */

static bw_err slot_refusal(bw_appender *a)
{
    switch (atomic_load_explicit(&a->slot->state, memory_order_acquire)) {
    case BW_SLOT_POISONED:
        return bw_fail(BW_ERR_POISONED, "partition %u is read-only: writing to the disk failed; see the daemon's log", a->partition);
    case BW_SLOT_DELETED:
        return bw_fail(BW_ERR_DELETED, "the topic was deleted");
    case BW_SLOT_RETIRED:
        return bw_fail(BW_ERR_RETIRED, "the control data was replaced; attach again");
    default:
        break;
    }
    if (atomic_load_explicit(&a->control->header->retired, memory_order_acquire))
        return bw_fail(BW_ERR_RETIRED, "the control data was replaced; attach again");
    if (atomic_load_explicit(&a->slot->fence, memory_order_acquire) != a->fence)
        return bw_fail(BW_ERR_FENCED, "the topic's configuration changed; attach again");
    return BW_OK;
}

static bw_err populate_error(bw_appender *a, int e)
{
    if (e == EOPNOTSUPP) { /* this kernel or file system: go by pwrite from now on */
        a->use_pwrite = true;
        bw_appender_rest(a);
        return BW_OK;
    }
    return bw_fail_errno(e, "partition %u: no pages for the segment", a->partition);
}

/* Room for a batch that is to be written by pwrite; whether it is may turn out late (populate_error). */
static bw_err have_scratch(bw_appender *a, size_t len)
{
    len += BW_TAIL_CLEAR;
    if (a->scratch_cap >= len) return BW_OK;
    uint8_t *p = realloc(a->scratch, len);
    if (!p) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a batch of %zu bytes", len);
    a->scratch = p;
    a->scratch_cap = len;
    return BW_OK;
}

/* Before the lock: the right window, and its pages. */
static bw_err prepare(bw_appender *a, size_t len, int *tries)
{
    for (;;) {
        bw_position t = atomic_load_explicit(&a->slot->tail, memory_order_acquire);
        if (bw_position_seq(t) != a->window.seq) {
            bw_err e = bw_append_map_tail(a);
            if (e) return e;
            continue;
        }
        if (!a->window.map) return have_scratch(a, len);
        uint64_t end = bw_position_pos(t) + (uint64_t)len;
        bw_position c = atomic_load_explicit(&a->slot->capacity, memory_order_acquire);
        if (bw_position_seq(c) != bw_position_seq(t) || end > bw_position_pos(c) || end + BW_TAIL_CLEAR <= a->window.populated)
            return BW_OK;
        (*tries)++;
        /* Somebody has waited for bytes of the newest chunk to be durable: a sync writes all pages that are populated ahead. */
        uint32_t newest = a->window.populated > a->window.chunk ? a->window.populated - a->window.chunk : 0;
        if (atomic_load_explicit(&a->slot->sync_request, memory_order_relaxed) > bw_position_of(a->window.seq, newest))
            bw_window_calm(&a->window);
        int e = bw_window_populate(&a->window, bw_position_pos(t), (uint32_t)end + BW_TAIL_CLEAR, bw_position_pos(c) + BW_TAIL_CLEAR, true);
        if (e == 0) {
            atomic_store_explicit(&a->slot->prepared, bw_position_of(a->window.seq, a->window.populated), memory_order_release);
            return BW_OK;
        }
        if (e == EFAULT && bw_position_seq(atomic_load_explicit(&a->slot->tail, memory_order_acquire)) != a->window.seq)
            continue; /* rolled, sealed and trimmed meanwhile */
        bw_err err = populate_error(a, e);
        if (err) return err;
    }
}

/* Under the lock: is there room at the tail for len bytes? DONE: yes, *tail is it. Otherwise unlocked. */
static attempt claim(bw_appender *a, size_t len, int tries, bw_position *tail, bw_err *err)
{
    bw_tail_slot *s = a->slot;
    if ((*err = slot_refusal(a)) != BW_OK) {
        bw_appender_unlock(a);
        return FAILED;
    }
    bw_position t = atomic_load_explicit(&s->tail, memory_order_relaxed);
    if (bw_position_seq(t) != a->window.seq) {
        bw_appender_unlock(a);
        return AGAIN;
    }
    bw_position c = atomic_load_explicit(&s->capacity, memory_order_acquire); /* pairs C1 */
    uint64_t end = bw_position_pos(t) + (uint64_t)len;
    if (bw_position_seq(c) != bw_position_seq(t) || end > bw_position_pos(c)) {
        attempt result = WAIT_CAPACITY;
        bool fits_segment = end <= a->window.limit && end <= atomic_load_explicit(&s->segment_max, memory_order_relaxed);
        if (!fits_segment && bw_position_pos(t) > 0 && bw_append_roll(a, t)) result = AGAIN;
        bw_appender_unlock(a);
        if (result == AGAIN) bw_appender_ask(a);
        return result;
    }
    if (a->window.map && end + BW_TAIL_CLEAR > a->window.populated && tries < POPULATE_TRIES) {
        bw_appender_unlock(a);
        return AGAIN;
    }
    *tail = t;
    return DONE;
}

static void intend(bw_appender *a, bw_position t, size_t len, int32_t count, int64_t new_ts)
{
    bw_tail_slot *s = a->slot;
    bw_append_intend(s, t + len, atomic_load_explicit(&s->next_offset, memory_order_relaxed), count,
                     atomic_load_explicit(&s->max_timestamp, memory_order_relaxed), new_ts);
}

/* Under the mutex: who has had the partition for itself for a while gets its lock biased. */
static inline void think_of_bias(bw_appender *a)
{
    bw_tail_slot *s = a->slot;
    if (atomic_load_explicit(&s->last_appender, memory_order_relaxed) != a->mark) {
        atomic_store_explicit(&s->last_appender, a->mark, memory_order_relaxed);
        if (a->streak >= a->streak_wanted && a->streak_wanted < STREAK_MAX) a->streak_wanted *= 2;
        a->streak = 0;
    } else if (a->streak < a->streak_wanted) {
        a->streak++;
    } else if (a->owners) {
        a->bias_tail = atomic_load_explicit(&s->tail, memory_order_relaxed);
        a->bias_next = atomic_load_explicit(&s->next_offset, memory_order_relaxed);
        a->bias_max_ts = atomic_load_explicit(&s->max_timestamp, memory_order_relaxed);
        if (!bw_bias_give(s, a->owners, &a->bias)) a->owners = NULL; /* all are in use: by the mutex, then */
    }
}

/* publish_stores, then unlock and wake. */
static void publish(bw_appender *a, bw_position t, size_t len, int64_t count, bw_append_result *out)
{
    bw_tail_slot *s = a->slot;
    int64_t base = atomic_load_explicit(&s->intent_base, memory_order_relaxed);
    int64_t max_ts = atomic_load_explicit(&s->intent_new_ts, memory_order_relaxed);
    bw_append_publish(s, a->window.map ? a->window.map + bw_position_pos(t) + len : NULL, t + len, base + count, max_ts);
    bw_position c = atomic_load_explicit(&s->capacity, memory_order_relaxed);
    think_of_bias(a);
    bw_appender_unlock(a);
    BW_KILL_POINT("append.unlocked");
    out->base_offset = base;
    out->end = t + len;
    bw_wake(a->control, a->partition, BW_WAIT_TAIL);
    BW_KILL_POINT("append.woken");
    if (bw_position_seq(c) == bw_position_seq(t)) bw_append_ask_ahead(a, c, bw_position_pos(t) + (uint32_t)len);
}

/* use_pwrite: what lies in scratch by one write, into allocated space. On failure everything is as before, or a repair is pending. */
static bw_err write_scratch(bw_appender *a, bw_position t, size_t len)
{
    memset(a->scratch + len, 0, BW_TAIL_CLEAR);
    if (bw_os_pwrite(a->window.fd, a->scratch, len + BW_TAIL_CLEAR, bw_position_pos(t)) >= 0) return BW_OK;
    int saved = errno;
    atomic_store_explicit(&a->slot->repair_pending, 1, memory_order_release);
    if (bw_append_repair(a)) atomic_store_explicit(&a->slot->repair_pending, 0, memory_order_release);
    bw_appender_unlock(a);
    return bw_fail_errno(saved, "partition %u: cannot write %zu bytes to the log", a->partition, len);
}

static bool granted(const bw_tail_slot *s, uint64_t capacity_before)
{
    return atomic_load_explicit(&s->capacity, memory_order_acquire) != capacity_before ||
           atomic_load_explicit(&s->state, memory_order_acquire) != BW_SLOT_OPEN ||
           (atomic_load_explicit(&s->flags, memory_order_acquire) & BW_SLOT_NO_SPACE);
}

static bool granted_or_spare(const bw_tail_slot *s, uint64_t capacity_before)
{
    return granted(s, capacity_before) ||
           atomic_load_explicit(&s->spare_seq, memory_order_acquire) == bw_position_seq(capacity_before) + 1;
}

/* Ask for capacity, or for a spare when the segment itself is too full, and wait for it, within the deadline. */
static bw_err wait_for_capacity(bw_appender *a, size_t len, bw_deadline deadline)
{
    bw_tail_slot *s = a->slot;
    uint64_t before = atomic_load_explicit(&s->capacity, memory_order_acquire);
    bw_position t = atomic_load_explicit(&s->tail, memory_order_acquire);
    if (bw_position_seq(before) != bw_position_seq(t)) return BW_OK; /* rolled meanwhile */
    uint64_t end = bw_position_pos(t) + (uint64_t)len;
    if (end <= bw_position_pos(before)) return BW_OK; /* granted meanwhile */
    bool fits_segment = end <= a->window.limit && end <= atomic_load_explicit(&s->segment_max, memory_order_relaxed);
    bw_position_raise(&s->capacity_request, t + len);
    bw_appender_ask(a);
    bw_deadline slice = bw_deadline_in_ms(WAIT_SLICE_MS);
    bool came = bw_slot_wait(s, fits_segment ? granted : granted_or_spare, before, slice < deadline ? slice : deadline);
    if (came && atomic_load_explicit(&s->capacity, memory_order_acquire) != before) return BW_OK;
    if (atomic_load_explicit(&s->flags, memory_order_acquire) & BW_SLOT_NO_SPACE)
        return bw_fail(BW_ERR_DISK_FULL, "partition %u: the disk is full; free some space or lower retention", a->partition);
    if (!came && bw_deadline_left_ns(deadline) == 0)
        return bw_fail(BW_ERR_NO_COORDINATOR, "partition %u: its allocated space is used up and the daemon grants no more",
                       a->partition);
    return BW_OK;
}

/* Until the lock is held with room for len bytes at *tail, or an error. */
static bw_err acquire(bw_appender *a, size_t len, bw_deadline deadline, bw_position *tail)
{
    if (bw_appender_forked(a)) return refuse_fork();
    uint32_t most = atomic_load_explicit(&a->slot->segment_max, memory_order_relaxed);
    if (len > most)
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a batch of %zu bytes does not fit a segment of %u bytes (segment.bytes)", len, most);
    for (int tries = 0;;) {
        bw_err e = prepare(a, len, &tries);
        if (e) {
            bw_err why = e == BW_ERR_NOT_FOUND ? slot_refusal(a) : BW_OK;
            return why ? why : e;
        }
        e = bw_appender_lock(a, deadline);
        if (e) return e;
        BW_KILL_POINT("append.locked");
        switch (claim(a, len, tries, tail, &e)) {
        case DONE:
            return BW_OK;
        case FAILED:
            return e;
        case WAIT_CAPACITY:
            e = wait_for_capacity(a, len, deadline);
            if (e) return e;
            break;
        case AGAIN:
            break;
        }
    }
}

bw_err bw_append(bw_appender *a, const uint8_t *batch, size_t len, int32_t count, int64_t max_timestamp, bw_deadline deadline,
                 bw_append_result *out)
{
    bw_position t;
    bw_err e = acquire(a, len, deadline, &t);
    if (e) return e;
    bw_tail_slot *s = a->slot;
    intend(a, t, len, count, max_timestamp);
    atomic_store_explicit(&s->holder_step, BW_STEP_COPY, memory_order_relaxed);
    int64_t base = atomic_load_explicit(&s->next_offset, memory_order_relaxed);
    int32_t epoch = (int32_t)atomic_load_explicit(&s->leader_epoch, memory_order_relaxed);
    if (a->window.map) {
        uint8_t *place = a->window.map + bw_position_pos(t);
        memcpy(place, batch, len);
        bw_batch_patch(place, base, epoch);
    } else {
        memcpy(a->scratch, batch, len);
        bw_batch_patch(a->scratch, base, epoch);
        if ((e = write_scratch(a, t, len)) != BW_OK) return e;
    }
    publish(a, t, len, count, out);
    return BW_OK;
}

/* Like one batch to everything else: one intent over all, one publication. */
bw_err bw_append_many(bw_appender *a, const bw_append_piece *pieces, size_t n, int64_t max_timestamp, bw_deadline deadline,
                      bw_append_result *out)
{
    size_t len = 0;
    int64_t count = 0;
    for (size_t i = 0; i < n; i++) {
        len += pieces[i].len;
        count += pieces[i].count;
    }
    if (n == 0 || count > INT32_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "%lld records to append at once", (long long)count);
    bw_position t;
    bw_err e = acquire(a, len, deadline, &t);
    if (e) return e;
    intend(a, t, len, (int32_t)count, max_timestamp);
    atomic_store_explicit(&a->slot->holder_step, BW_STEP_COPY, memory_order_relaxed);
    int64_t base = atomic_load_explicit(&a->slot->next_offset, memory_order_relaxed);
    int32_t epoch = (int32_t)atomic_load_explicit(&a->slot->leader_epoch, memory_order_relaxed);
    uint8_t *place = a->window.map ? a->window.map + bw_position_pos(t) : a->scratch;
    for (size_t i = 0; i < n; i++) {
        memcpy(place, pieces[i].batch, pieces[i].len);
        bw_batch_patch(place, base, epoch);
        place += pieces[i].len;
        base += pieces[i].count;
    }
    if (!a->window.map && (e = write_scratch(a, t, len)) != BW_OK) return e;
    publish(a, t, len, (int32_t)count, out);
    return BW_OK;
}

/* One intent over all, as above; the slot's epoch follows the batches, before they can be seen. */
bw_err bw_append_copy(bw_appender *a, const bw_append_piece *pieces, size_t n, const bw_append_span *span, bw_deadline deadline,
                      bw_append_result *out)
{
    size_t len = 0;
    bw_position t;
    for (size_t i = 0; i < n; i++) len += pieces[i].len;
    if (n == 0 || span->next <= span->from || span->next - span->from > UINT32_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a copy of offsets %lld to %lld", (long long)span->from, (long long)span->next);
    bw_err e = acquire(a, len, deadline, &t);
    if (e) return e;
    bw_tail_slot *s = a->slot;
    int64_t end = atomic_load_explicit(&s->next_offset, memory_order_relaxed);
    if (end != span->from) {
        bw_appender_unlock(a);
        out->base_offset = end;
        return bw_fail(BW_ERR_OUT_OF_ORDER_SEQUENCE, "partition %u ends at %lld, what came begins at %lld", a->partition, (long long)end,
                       (long long)span->from);
    }
    intend(a, t, len, (int32_t)(uint32_t)(span->next - span->from), span->max_timestamp);
    atomic_store_explicit(&s->holder_step, BW_STEP_COPY, memory_order_relaxed);
    atomic_store_explicit(&s->leader_epoch, (uint32_t)span->epoch, memory_order_relaxed);
    uint8_t *place = a->window.map ? a->window.map + bw_position_pos(t) : a->scratch;
    for (size_t i = 0; i < n; i++) {
        memcpy(place, pieces[i].batch, pieces[i].len);
        place += pieces[i].len;
    }
    if (!a->window.map && (e = write_scratch(a, t, len)) != BW_OK) return e;
    publish(a, t, len, span->next - span->from, out);
    return BW_OK;
}

bw_err bw_append_reserve(bw_appender *a, size_t len, int32_t count, bw_deadline deadline, uint8_t **place)
{
    bw_position t;
    bw_err e = acquire(a, len, deadline, &t);
    if (e) return e;
    if (!a->window.map) {
        bw_appender_unlock(a);
        return bw_fail(BW_ERR_UNSUPPORTED, "partition %u cannot be mapped here", a->partition);
    }
    intend(a, t, len, count, atomic_load_explicit(&a->slot->max_timestamp, memory_order_relaxed));
    atomic_store_explicit(&a->slot->holder_step, BW_STEP_RESERVED, memory_order_relaxed);
    BW_KILL_POINT("reserve.locked");
    a->reserved_tail = t;
    a->reserved_len = len;
    a->reserved_count = count;
    *place = a->window.map + bw_position_pos(t);
    return BW_OK;
}

void bw_append_commit(bw_appender *a, size_t used, int64_t max_timestamp, bw_append_result *out)
{
    bw_tail_slot *s = a->slot;
    bw_position t = a->reserved_tail;
    uint8_t *place = a->window.map + bw_position_pos(t);
    /* The room behind what is used is zeroed while the intent still covers it; only then the intent shrinks to it. */
    if (used < a->reserved_len) memset(place + used, 0, a->reserved_len - used);
    atomic_signal_fence(memory_order_seq_cst);
    BW_KILL_POINT("reserve.zeroed");
    if (max_timestamp > atomic_load_explicit(&s->intent_new_ts, memory_order_relaxed))
        atomic_store_explicit(&s->intent_new_ts, max_timestamp, memory_order_relaxed);
    atomic_store_explicit(&s->intent_end, t + used, memory_order_release);
    atomic_signal_fence(memory_order_seq_cst);
    bw_batch_patch(place, atomic_load_explicit(&s->intent_base, memory_order_relaxed),
                   (int32_t)atomic_load_explicit(&s->leader_epoch, memory_order_relaxed));
    publish(a, t, used, a->reserved_count, out);
}

void bw_append_abort(bw_appender *a)
{
    uint8_t *place = a->window.map + bw_position_pos(a->reserved_tail);
    memset(place, 0, a->reserved_len);
    atomic_signal_fence(memory_order_seq_cst);
    atomic_store_explicit(&a->slot->intent_end, 0, memory_order_release);
    bw_appender_unlock(a);
}
