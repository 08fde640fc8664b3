/* broker/txn_end.c: the end of transactions, many at a time, each step for all that have come so far (the steps are in txn.h).
 *
 * bw_txn_run goes as far as it can; what must wait stays in its stage: for a partition's opening or its table of producers (an event
 * comes), for the disk (the partition is served when its watermark moves), for a lock or space (the retry timer). Every step may be done
 * twice: a marker is written only while the partition's table says that the transaction is open, offsets only without the note. */
#include "broker/txn_internal.h"

#include "base/killpoint.h"
#include "log/txn.h"
#include "log/wait.h"

#include <stdlib.h>

#define APPEND_PATIENCE_NS 500000

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

bool bw_txn_waiting(const bw_part *p) { return p->txn_waits; }

static bool is_durable(const bw_part *p, bw_position end)
{
    return atomic_load_explicit(&slot_of(p)->durable, memory_order_acquire) >= end;
}

/* Called again when it is on the disk. */
static void want_durable(bw_broker *b, bw_part *p, bw_position end)
{
    bw_position_raise(&slot_of(p)->sync_request, end);
    p->txn_waits = true;
    bw_syncer_want(b, p);
    bw_broker_again(b, p);
}

static void enlist(bw_txns *x, bw_txn *t, bw_txn_stage stage)
{
    t->stage = stage;
    bw_txn **at = &x->ending; /* in their order */
    while (*at) at = &(*at)->next_ending;
    t->next_ending = NULL;
    *at = t;
}

void bw_txn_begin_end(bw_broker *b, bw_txn *t, bool commit, bool durable, bw_txn_raise raise, bw_op *op)
{
    bw_timers_clear(&b->timers, &t->timer);
    t->commit = commit;
    t->durable = durable;
    t->raise = raise;
    t->op = op;
    t->offsets_done = false;
    free(t->needs);
    t->needs = NULL;
    enlist(b->txns, t, BW_TXN_STAGE_SYNC);
}

void bw_txn_resume(bw_broker *b, bw_txn *t)
{
    t->commit = t->state.phase == BW_TXN_PREPARE_COMMIT;
    t->durable = false;
    t->op = NULL;
    enlist(b->txns, t, BW_TXN_STAGE_OFFSETS);
}

/* ---- before the decision ---- */

/* A partition must be open, so that its end can go into the decision. One that cannot be opened has no say. */
static bool is_open(bw_broker *b, bw_part *p)
{
    if (atomic_load(&p->stage) != BW_PART_UNOPENED) return true;
    p->txn_waits = true;
    bw_opener_want(b, p);
    return false;
}

static bool note_needs(bw_broker *b, bw_txn *t)
{
    if (t->needs) return true;
    t->needs = calloc(t->state.part_count + 1, sizeof *t->needs);
    if (!t->needs) return false;
    for (uint32_t i = 0; i < t->state.part_count; i++) {
        bw_part *p = bw_txn_topic_part(b, &t->state.parts[i].topic, t->state.parts[i].partition);
        if (p && p->log) t->needs[i] = atomic_load_explicit(&slot_of(p)->tail, memory_order_acquire);
    }
    return true;
}

static bool may_decide(bw_broker *b, bw_txn *t)
{
    bool may = true;
    for (uint32_t i = 0; i < t->state.part_count; i++) {
        bw_part *p = bw_txn_topic_part(b, &t->state.parts[i].topic, t->state.parts[i].partition);
        if (p && !is_open(b, p)) may = false;
    }
    if (!may || !t->durable || !t->commit) return may;
    if (!note_needs(b, t)) return false;
    for (uint32_t i = 0; i < t->state.part_count; i++) {
        bw_part *p = bw_txn_topic_part(b, &t->state.parts[i].topic, t->state.parts[i].partition);
        if (!p || !p->log || is_durable(p, t->needs[i])) continue;
        if (atomic_load_explicit(&slot_of(p)->state, memory_order_acquire) != BW_SLOT_OPEN) { /* it never will be */
            bw_op *op = t->op;
            t->op = NULL;
            t->commit = false;
            bw_fail(BW_ERR_TRANSACTION_ABORTABLE, "transactional id '%s': topic '%s' partition %u can not be written to the disk; the "
                    "transaction is aborted", t->id, p->topic->name, p->index);
            if (op) bw_op_fail(op, BW_ERR_TRANSACTION_ABORTABLE);
            return true;
        }
        want_durable(b, p, t->needs[i]);
        may = false;
    }
    return may;
}

static bool decide(bw_broker *b, bw_txn *t)
{
    bool commit = t->commit;
    bw_txn_part *parts = calloc(t->state.part_count + 1, sizeof *parts);
    if (!parts) return false;
    for (uint32_t i = 0; i < t->state.part_count; i++) {
        bw_part *p = bw_txn_topic_part(b, &t->state.parts[i].topic, t->state.parts[i].partition);
        parts[i] = t->state.parts[i];
        parts[i].end = p && p->log ? bw_slot_end_offset(slot_of(p)) : -1;
    }
    bw_txn_record r = {.kind = BW_TXN_PREPARE, .producer_id = t->state.producer_id, .at_ms = bw_clock_wall_ms(), .commit = commit,
                       .epoch = (int16_t)(t->state.epoch + (t->raise != BW_TXN_KEEP)), .recoverable = t->raise == BW_TXN_RECOVER,
                       .parts = parts, .part_count = t->state.part_count};
    bw_err e = bw_txn_put(b, t, &r);
    free(parts);
    if (e) return false;
    t->stage = BW_TXN_STAGE_WRITE;
    return true;
}

/* ---- markers ---- */

static bool add_mark(bw_txns *x, size_t n, bw_txn_mark mark)
{
    if (n == x->marks_cap) {
        size_t cap = n ? n * 2 : 64;
        bw_txn_mark *grown = realloc(x->marks, cap * sizeof *grown);
        if (!grown) return false;
        x->marks = grown;
        x->marks_cap = cap;
    }
    x->marks[n] = mark;
    return true;
}

/* Does the partition need a marker now? Sets `marked` where it never will, or has it. */
static bool needs_marker(bw_broker *b, bw_txn *t, bw_txn_part *at, bw_part **out)
{
    bw_part *p = *out = bw_txn_topic_part(b, &at->topic, at->partition);
    bw_err e;
    if (at->marked) return false;
    if (!p) { /* deleted */
        at->marked = true;
        return false;
    }
    if (!is_open(b, p)) return false;
    if (!p->log || atomic_load_explicit(&slot_of(p)->state, memory_order_acquire) != BW_SLOT_OPEN) {
        at->marked = true; /* when it is opened anew the decision is looked for */
        return false;
    }
    if (!bw_part_have_producers(b, p, &e)) {
        if (e) bw_txn_retry_later(b);
        else p->txn_waits = true;
        return false;
    }
    if (bw_producers_transaction(p->producers, t->state.producer_id) < 0) at->marked = true;
    return !at->marked;
}

static bw_marker marker_of(const bw_txn *t)
{
    return (bw_marker){.producer_id = t->state.producer_id, .producer_epoch = t->state.epoch, .commit = t->commit, .coordinator_epoch = 0,
                       .timestamp_ms = bw_clock_wall_ms()};
}

static size_t gather_marks(bw_broker *b)
{
    bw_txns *x = b->txns;
    size_t n = 0;
    for (bw_txn *t = x->ending; t; t = t->next_ending) {
        if (t->stage != BW_TXN_STAGE_MARK) continue;
        for (uint32_t i = 0; i < t->state.part_count; i++) {
            bw_part *p;
            if (!needs_marker(b, t, &t->state.parts[i], &p)) continue;
            bw_marker m = marker_of(t);
            if (bw_producers_check_marker(p->producers, &m)) { /* another epoch has it: it was ended */
                t->state.parts[i].marked = true;
                continue;
            }
            if (add_mark(x, n, (bw_txn_mark){p, t, i})) n++;
            else bw_txn_retry_later(b);
        }
    }
    return n;
}

static int by_part(const void *a, const void *b)
{
    const bw_txn_mark *x = a, *y = b;
    return (x->part->bus_number > y->part->bus_number) - (x->part->bus_number < y->part->bus_number);
}

static bw_err append_markers(bw_broker *b, bw_part *p, const bw_marker *markers, size_t n)
{
    bw_appender *a;
    bw_append_result r;
    bw_err e = bw_part_appender(b, p, &a);
    if (!e) e = bw_txn_end(p->log, a, p->producers, markers, n, bw_clock_mono_ms(), bw_clock_mono_ns() + APPEND_PATIENCE_NS, &r);
    if (e == BW_ERR_FENCED) {
        bw_appender_close(p->appender);
        p->appender = NULL;
        e = bw_part_appender(b, p, &a);
        if (!e) e = bw_txn_end(p->log, a, p->producers, markers, n, bw_clock_mono_ms(), bw_clock_mono_ns() + APPEND_PATIENCE_NS, &r);
    }
    if (e) return e;
    bw_txn_touch(b->txns, p, r.end);
    if (!bw_txn_tend(p->log, p->producers)) bw_txn_retry_later(b);
    bw_broker_again(b, p);
    return BW_OK;
}

static void mark_group(bw_broker *b, bw_txn_mark *marks, size_t n)
{
    bw_marker markers[BW_TXN_MARKERS_MAX];
    for (size_t i = 0; i < n; i++) markers[i] = marker_of(marks[i].txn);
    BW_KILL_POINT("txn.marking");
    bw_err e = append_markers(b, marks[0].part, markers, n);
    if (e) bw_txn_retry_later(b);
    for (size_t i = 0; i < n && !e; i++) marks[i].txn->state.parts[marks[i].index].marked = true;
}

static void mark(bw_broker *b)
{
    bw_txns *x = b->txns;
    size_t n = gather_marks(b);
    if (n > 1) qsort(x->marks, n, sizeof *x->marks, by_part);
    for (size_t at = 0; at < n;) {
        size_t k = 1;
        while (at + k < n && k < BW_TXN_MARKERS_MAX && x->marks[at + k].part == x->marks[at].part) k++;
        mark_group(b, x->marks + at, k);
        at += k;
    }
    for (bw_txn *t = x->ending; t; t = t->next_ending) {
        if (t->stage != BW_TXN_STAGE_MARK) continue;
        bool all = true;
        for (uint32_t i = 0; i < t->state.part_count; i++) all &= t->state.parts[i].marked;
        if (all) t->stage = t->storing_offsets ? BW_TXN_STAGE_STORING : BW_TXN_STAGE_COMPLETE;
    }
}

/* ---- offsets ---- */

static void offsets_stored(bw_broker *b, bw_offsets_wait *w, bw_err e)
{
    bw_txn *t = (bw_txn *)(void *)((char *)w - offsetof(bw_txn, stored));
    t->storing_offsets = false;
    BW_KILL_POINT("txn.offsets_stored");
    if (e) { /* again; markers that are there are not written twice */
        t->stage = BW_TXN_STAGE_OFFSETS;
        bw_txn_retry_later(b);
        return;
    }
    if (t->stage == BW_TXN_STAGE_STORING) t->stage = BW_TXN_STAGE_COMPLETE;
    bw_txn_run(b);
}

static bw_err put_offsets(bw_broker *b, bw_txn *t)
{
    bw_err e = BW_OK;
    for (uint32_t i = 0; i < t->state.offset_count && !e; i++) {
        const bw_txn_offset *o = &t->state.offsets[i];
        bw_part *p = bw_txn_topic_part(b, &o->topic_id, o->partition);
        if (!p) continue; /* deleted, and its offsets with it */
        bw_offset_put put = {.part = p, .offset = o->offset, .leader_epoch = o->leader_epoch, .metadata = bw_str_of(o->metadata)};
        e = bw_offsets_put(b, bw_str_of(o->group), &put, 1);
    }
    return e;
}

/* The note that they were stored goes with them, so that a later commit is never undone by doing this twice. */
static void store_offsets(bw_broker *b, bw_txn *t)
{
    if (!t->commit || t->state.offset_count == 0 || t->offsets_done) {
        t->stage = BW_TXN_STAGE_MARK;
        return;
    }
    char key[BW_TXN_KEY_MAX];
    uint8_t value[9] = {1};
    bw_commit c = {0};
    bw_put_be64(value + 1, t->state.serial);
    bw_err e = bw_commit_put(&c, BW_TABLE_TRANSACTIONS, key, bw_txn_key(key, "done:", t->id), value, sizeof value);
    if (!e) e = put_offsets(b, t);
    if (!e) e = bw_offsets_with(b, &c);
    if (e) {
        bw_commit_fini(&c);
        bw_txn_retry_later(b);
        return;
    }
    t->stage = BW_TXN_STAGE_MARK;
    t->storing_offsets = true;
    t->stored = (bw_offsets_wait){.done = offsets_stored};
    bw_offsets_await(b, &t->stored);
}

/* ---- complete ---- */

static void complete(bw_broker *b, bw_txn *t)
{
    bw_txn_record r = {.kind = BW_TXN_COMPLETE, .producer_id = t->state.producer_id, .epoch = t->state.epoch, .at_ms = bw_clock_wall_ms(),
                       .commit = t->commit};
    if (bw_txn_put(b, t, &r)) bw_txn_retry_later(b);
    else t->stage = BW_TXN_STAGE_WRITTEN;
}

static void finish_written(bw_broker *b)
{
    bw_txns *x = b->txns;
    for (bw_txn **at = &x->ending; *at;) {
        bw_txn *t = *at;
        if (t->stage != BW_TXN_STAGE_WRITTEN) {
            at = &t->next_ending;
            continue;
        }
        *at = t->next_ending;
        t->stage = BW_TXN_STAGE_NONE;
        t->records = 0;
        if (t->commit) x->commits++;
        else x->aborts++;
        bw_op *op = t->op;
        t->op = NULL;
        bw_txn_ended(b, t, op); /* may enlist another one: behind */
    }
    BW_KILL_POINT("txn.answered");
}

/* ---- all of it ---- */

static void each_in(bw_broker *b, bw_txn_stage stage, void (*fn)(bw_broker *b, bw_txn *t))
{
    for (bw_txn *t = b->txns->ending; t; t = t->next_ending)
        if (t->stage == stage) fn(b, t);
}

static void step_decide(bw_broker *b, bw_txn *t)
{
    if (may_decide(b, t) && !decide(b, t)) bw_txn_retry_later(b);
}

static void step_written(bw_broker *b, bw_txn *t)
{
    bw_txns *x = b->txns;
    t->decided_at = x->log_end;
    t->stage = t->durable && t->commit ? BW_TXN_STAGE_DECIDED : BW_TXN_STAGE_OFFSETS;
}

static void step_decided(bw_broker *b, bw_txn *t)
{
    bw_part *log = b->txns->log;
    if (is_durable(log, t->decided_at)) t->stage = BW_TXN_STAGE_OFFSETS;
    else if (atomic_load_explicit(&slot_of(log)->state, memory_order_acquire) == BW_SLOT_OPEN) want_durable(b, log, t->decided_at);
    else { /* it is decided all the same, and the rest goes on */
        bw_op *op = t->op;
        t->op = NULL;
        t->stage = BW_TXN_STAGE_OFFSETS;
        if (op) bw_op_fail(op, bw_fail(BW_ERR_POISONED, "transactional id '%s': it was decided, but that did not reach the disk", t->id));
    }
}

void bw_txn_run(bw_broker *b)
{
    bw_txns *x = b->txns;
    if (!x || !x->ready || x->running || b->draining) return;
    x->running = true;
    bw_produce_flush_data(b); /* what the transactions wrote in this turn */
    each_in(b, BW_TXN_STAGE_SYNC, step_decide);
    BW_KILL_POINT("txn.deciding");
    if (bw_txn_flush(b)) {
        BW_KILL_POINT("txn.decided");
        each_in(b, BW_TXN_STAGE_WRITE, step_written);
        each_in(b, BW_TXN_STAGE_DECIDED, step_decided);
        each_in(b, BW_TXN_STAGE_OFFSETS, store_offsets);
        BW_KILL_POINT("txn.offsets_put");
        mark(b);
        BW_KILL_POINT("txn.marked_all");
        each_in(b, BW_TXN_STAGE_COMPLETE, complete);
        BW_KILL_POINT("txn.completing");
        if (bw_txn_flush(b)) finish_written(b);
    }
    x->running = false;
    bw_txn_checkpoint_look(b);
}
