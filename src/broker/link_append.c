/* broker/link_append.c: LINK_APPEND: what a link brings, into mirrors (as it is) and merges (what is new of it).
 *
 * A session's appends are done in their order, one at a time; the next begins when the one before was answered. One goes part by part:
 *   payload unpacked (worker) -> part: checked -> mirror: gaps and epochs made known to the log (worker; they sync) -> appended, span by
 *   span; merge: encoded against a copy of the vector (worker) -> appended, and the copy becomes the vector.
 * A mirror's part must begin where the log ends, a merge's not behind where its link has come: else OUT_OF_ORDER_SEQUENCE with what is
 * expected, and nothing of the part is appended. So whoever dies in between, the next append begins at the right place. What can't go on
 * for a moment (no room yet, the lock is held, a vector or a producer table is being read) is tried again by a timer. */
#include "broker/link_append.h"

#include "base/killpoint.h"
#include "format/codec.h"
#include "log/copy.h"

#include <stdio.h>
#include <stdlib.h>

enum { RETRY_NS = 250000, PATIENCE_MS = 60000, PAYLOAD_MAX = 64 << 20 };

static void pump(bw_broker *b, bw_session *s);

/* ---- its end ---- */

static void append_free(struct bw_link_append *x)
{
    for (size_t i = 0; x->parts && x->op && i < x->op->request.link.part_count; i++)
        if (x->parts[i].error) free((char *)(uintptr_t)x->parts[i].message.data);
    free(x->parts);
    bw_buf_free(&x->plain);
    bw_vector_free(&x->vector);
    bw_merged_free(x->merged, x->merged_count);
    free(x);
}

static void finish(bw_broker *b, struct bw_link_append *x, bw_err e)
{
    bw_session *s = x->op->session;
    struct bw_linking *l = s->linking;
    bw_timers_clear(&b->timers, &x->timer);
    l->appends = x->next;
    if (!l->appends) l->appends_last = NULL;
    bw_answer a;
    bw_answer_init(&a, &x->op->request);
    a.error = (int32_t)e;
    if (e) a.message = bw_str_of(bw_error_message());
    a.link.parts = x->parts;
    a.link.part_count = e ? 0 : x->op->request.link.part_count;
    bw_op_reply(x->op, &a);
    bw_op *op = x->op;
    append_free(x);
    bw_op_finish(op, NULL);
}

void bw_link_append_part_error(struct bw_link_append *x, bw_err e)
{
    bw_link_part *out = &x->parts[x->index];
    if (out->error) return;
    out->error = (int32_t)e;
    out->message = bw_str_of(strdup(bw_error_message()));
}

/* ---- the worker ---- */

static void work_run(bw_broker *b, bw_job *job)
{
    struct bw_link_append *x = (struct bw_link_append *)(void *)job;
    bw_err e = BW_OK;
    (void)b;
    if (x->task == TASK_UNPACK) {
        const bw_request *r = &x->op->request;
        e = bw_codec_decompress((bw_codec)r->link.codec, r->payload, r->payload_len, r->link.plain, &x->plain);
        if (!e && x->plain.len != r->link.plain) e = bw_fail(BW_ERR_CORRUPT, "the payload has %zu bytes, not %u", x->plain.len, r->link.plain);
    } else if (x->task == TASK_PREPARE) {
        bw_partition *log = job->part->log;
        if (x->gaps_upto) e = bw_partition_allow_gaps(log, x->gaps_upto);
        if (!e && x->way_to) e = bw_partition_make_way(log, x->epoch_from, x->way_to);
        else if (!e && x->epoch >= 0) e = bw_partition_copy_epoch(log, x->epoch, x->epoch_from);
    } else e = bw_merge_encode(&x->input, &x->vector, &x->merged, &x->merged_count);
    BW_KILL_POINT("link.prepared");
    bw_job_set_error(job, e);
}

static void work_done(bw_broker *b, bw_job *job)
{
    struct bw_link_append *x = (struct bw_link_append *)(void *)job;
    bw_part *p = job->part;
    x->working = false;
    bool gone = x->op->session->closed;
    if (x->task == TASK_ENCODE && p->merge) p->merge->busy = false;
    bool removed = p && bw_part_by_number(b, p->bus_number) != p;
    if (gone || removed) {
        if (removed) bw_fail(BW_ERR_UNKNOWN_TOPIC, "topic '%s' was deleted", p->topic->name);
        if (p) bw_part_release(p);
        if (!gone) {
            bw_link_append_part_error(x, BW_ERR_UNKNOWN_TOPIC);
            pump(b, x->op->session);
            return;
        }
        bw_op *op = x->op; /* it was taken out of the list when the session was closed */
        append_free(x);
        bw_op_finish(op, NULL);
        return;
    }
    if (p) bw_part_release(p);
    bw_session *s = x->op->session;
    if (job->error) {
        bw_error_set_message(job->error, job->message);
        if (x->task == TASK_UNPACK) {
            finish(b, x, job->error);
            pump(b, s);
            return;
        }
        bw_link_append_part_error(x, job->error);
    } else if (x->task == TASK_UNPACK) {
        x->unpacked = true;
        x->data = x->plain.data;
        x->len = x->plain.len;
    }
    pump(b, s);
}

bw_link_step bw_link_append_work(bw_broker *b, struct bw_link_append *x, bw_part *p, bw_link_task task)
{
    x->task = task;
    x->job = (bw_job){.run = work_run, .done = work_done, .part = p};
    if (p) atomic_fetch_add(&p->users, 1);
    bw_err e = bw_worker_submit(b, &x->job);
    if (!e) {
        x->working = true;
        return PART_WORKS;
    }
    if (p) bw_part_release(p);
    bw_link_append_part_error(x, e);
    return PART_DONE;
}

bool bw_link_append_may_retry(const struct bw_link_append *x, bw_err e)
{
    bool for_now = e == BW_ERR_NO_COORDINATOR || e == BW_ERR_LOCK_HELD || e == BW_ERR_TIMED_OUT || e == BW_ERR_BUSY;
    return for_now && bw_deadline_left_ns(x->patience) > 0;
}

/* ---- steps ---- */

static bw_link_step one_part(bw_broker *b, struct bw_link_append *x)
{
    const bw_request *r = &x->op->request;
    const bw_link_part *q = &r->link.parts[x->index];
    bw_part *p;
    if (x->parts[x->index].error) return PART_DONE;
    bw_err e = bw_part_of(b, q->topic, q->partition, false, &p);
    if (!e && !p->log) e = bw_fail(BW_ERR_BUSY, "topic '%s' partition %u is not open: %s", p->topic->name, p->index, p->why ? p->why : "yet");
    if (e) {
        bw_link_append_part_error(x, e);
        return PART_DONE;
    }
    return r->link.mode == BW_LINK_MIRROR ? bw_link_append_mirror(b, x, p) : bw_link_append_merge(b, x, p);
}

static void on_retry(void *broker, bw_timer *timer)
{
    struct bw_link_append *x = (struct bw_link_append *)(void *)((char *)timer - offsetof(struct bw_link_append, timer));
    pump(broker, x->op->session);
}

static void next_part(struct bw_link_append *x)
{
    x->at += x->op->request.link.parts[x->index++].size;
    x->done = 0;
    x->moved = false;
    x->epoch = -1;
    x->task = TASK_UNPACK;
    bw_vector_free(&x->vector);
    bw_merged_free(x->merged, x->merged_count);
    x->merged = NULL;
    x->merged_count = 0;
}

/* true: it was answered. */
static bool step(bw_broker *b, struct bw_link_append *x)
{
    bw_link_step o = PART_DONE;
    if (!x->unpacked) {
        if (bw_link_append_work(b, x, NULL, TASK_UNPACK) == PART_WORKS) return false;
        finish(b, x, BW_ERR_NO_MEMORY);
        return true;
    }
    while (x->index < x->op->request.link.part_count && (o == PART_DONE || o == PART_AGAIN)) {
        o = one_part(b, x);
        if (o == PART_DONE) next_part(x);
    }
    if (o == PART_WORKS) return false;
    x->timer.fire = on_retry;
    if (o == PART_RETRY && bw_timers_set(&b->timers, &x->timer, bw_clock_mono_ns() + RETRY_NS) == BW_OK) return false;
    finish(b, x, o == PART_RETRY ? BW_ERR_NO_MEMORY : BW_OK);
    return true;
}

/* The session is open: it is not freed meanwhile. */
static void pump(bw_broker *b, bw_session *s)
{
    while (s->linking && s->linking->appends && step(b, s->linking->appends)) {}
}

static bw_err check(const bw_request *r)
{
    size_t total = 0;
    if (r->link.mode != BW_LINK_MIRROR && r->link.mode != BW_LINK_MERGE)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "mode = %d; allowed: 0 mirror, 1 merge", r->link.mode);
    if (r->link.codec < BW_CODEC_NONE || r->link.codec > BW_CODEC_ZSTD) return bw_fail(BW_ERR_UNKNOWN_CODEC, "codec %d is not known", r->link.codec);
    size_t plain = r->link.codec == BW_CODEC_NONE ? r->payload_len : r->link.plain;
    if (plain > PAYLOAD_MAX) return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a payload of %zu bytes; at most %d", plain, PAYLOAD_MAX);
    for (size_t i = 0; i < r->link.part_count; i++) total += r->link.parts[i].size;
    if (total != plain) return bw_fail(BW_ERR_INVALID_ARGUMENT, "the parts have %zu bytes, the payload %zu", total, plain);
    return BW_OK;
}

void bw_handle_link_append(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_err e = check(r);
    struct bw_link_append *x = e ? NULL : calloc(1, sizeof *x);
    bw_link_part *parts = e ? NULL : calloc(r->link.part_count ? r->link.part_count : 1, sizeof *parts);
    if (!e && (!x || !parts || !bw_linking_of(op->session))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for an append");
    if (e) {
        free(x);
        free(parts);
        bw_op_fail(op, e);
        return;
    }
    *x = (struct bw_link_append){.op = op, .parts = parts, .data = r->payload, .len = r->payload_len, .unpacked = r->link.codec == BW_CODEC_NONE,
                                 .patience = bw_deadline_in_ms(PATIENCE_MS), .epoch = -1};
    for (size_t i = 0; i < r->link.part_count; i++) {
        parts[i] = (bw_link_part){.topic = r->link.parts[i].topic, .partition = r->link.parts[i].partition, .offset = -1, .next = -1, .base = -1,
                                  .epoch = -1, .log_start = -1, .end = -1, .timestamp = -1};
    }
    struct bw_linking *l = op->session->linking;
    if (l->appends) l->appends_last->next = x;
    else l->appends = x;
    l->appends_last = x;
    if (l->appends == x) pump(b, op->session);
}

void bw_link_drop_session(bw_broker *b, bw_session *s)
{
    struct bw_linking *l = s->linking;
    bw_link_streams_drop(b, s);
    while (l->appends) {
        struct bw_link_append *x = l->appends;
        l->appends = x->next;
        bw_timers_clear(&b->timers, &x->timer);
        if (x->working) continue; /* freed when the worker is done */
        if (x->vector.valid && x->index < x->op->request.link.part_count) { /* it held a vector */
            const bw_link_part *q = &x->op->request.link.parts[x->index];
            bw_part *p;
            if (bw_part_of(b, q->topic, q->partition, false, &p) == BW_OK && p->merge) {
                p->merge->busy = false;
                if (x->done) bw_merge_spoil(p->merge);
            }
        }
        bw_op *op = x->op;
        append_free(x);
        bw_op_finish(op, NULL);
    }
    bw_feeds_free(l);
    free(l);
    s->linking = NULL;
}
