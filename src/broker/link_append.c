/* broker/link_append.c: LINK_APPEND: what a link brings, into mirrors (as it is) and merges (what is new of it).
 *
 * A session's appends are done in their order, one at a time; the next begins when the one before was answered. One goes part by part:
 *   payload unpacked (worker) -> part: checked -> mirror: gaps and epochs made known to the log (worker; they sync) -> appended, span by
 *   span; merge: encoded against a copy of the vector (worker) -> appended, and the copy becomes the vector.
 * A mirror's part must begin where the log ends, a merge's not behind where its link has come: else OUT_OF_ORDER_SEQUENCE with what is
 * expected, and nothing of the part is appended. So whoever dies in between, the next append begins at the right place. What can't go on
 * for a moment (no room yet, the lock is held, a vector or a producer table is being read) is tried again by a timer. */
#include "broker/links.h"
#include "broker/replica.h"

#include "base/killpoint.h"
#include "broker/produce_internal.h"
#include "format/codec.h"
#include "log/copy.h"

#include <stdio.h>
#include <stdlib.h>

enum { RETRY_NS = 250000, PATIENCE_MS = 60000, SPAN_BATCHES = 512, SPAN_BYTES = 1 << 20, PAYLOAD_MAX = 64 << 20 };

typedef enum outcome { PART_DONE, PART_AGAIN, PART_RETRY, PART_WORKS } outcome;

struct bw_link_append {
    bw_job job;
    bw_timer timer;
    struct bw_link_append *next;
    bw_op *op; /* NULL: its session is gone */
    bw_link_part *parts; /* the answer */
    size_t index, at;    /* part at work; bytes of the payload in front of it */
    size_t done;         /* of the part: bytes that were appended */
    const uint8_t *data;
    size_t len;
    bw_buf plain;
    bool unpacked, working;
    bw_deadline patience;
    /* the worker's task */
    enum { TASK_UNPACK, TASK_PREPARE, TASK_ENCODE } task;
    int64_t gaps_upto, epoch_from;
    int32_t epoch;
    bw_merge_input input;
    bw_vector vector;
    bw_merged *merged;
    size_t merged_count;
};

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }
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

static void part_error(struct bw_link_append *x, bw_err e)
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
        if (!e && x->epoch >= 0) e = bw_partition_copy_epoch(log, x->epoch, x->epoch_from);
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
            part_error(x, BW_ERR_UNKNOWN_TOPIC);
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
        part_error(x, job->error);
    } else if (x->task == TASK_UNPACK) {
        x->unpacked = true;
        x->data = x->plain.data;
        x->len = x->plain.len;
    }
    pump(b, s);
}

static outcome work(bw_broker *b, struct bw_link_append *x, bw_part *p, int task)
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
    part_error(x, e);
    return PART_DONE;
}

/* ---- mirrors ---- */

struct span {
    bw_append_piece pieces[SPAN_BATCHES];
    size_t count, bytes;
    bw_append_span at;
    bool gaps, producers;
};

/* The next batches of the part that may be appended as one. */
static bw_err take_span(const bw_part *p, const bw_link_part *q, const uint8_t *data, size_t len, int64_t end, struct span *out)
{
    size_t most = atomic_load_explicit(&slot_of(p)->segment_max, memory_order_relaxed) / 2;
    if (most > SPAN_BYTES) most = SPAN_BYTES;
    out->count = out->bytes = 0;
    out->gaps = out->producers = false;
    out->at = (bw_append_span){.from = end, .next = end, .max_timestamp = INT64_MIN};
    while (out->bytes < len && out->count < SPAN_BATCHES) {
        bw_batch_header h;
        const uint8_t *batch = data + out->bytes;
        bw_err e = bw_batch_header_decode(batch, len - out->bytes, false, &h);
        if (!e && !bw_batch_crc_ok(batch, bw_batch_size(&h))) e = bw_fail(BW_ERR_CORRUPT, "wrong checksum");
        if (!e && (h.base_offset < out->at.next || bw_batch_last_offset(&h) >= q->next || h.base_offset < q->offset))
            e = bw_fail(BW_ERR_CORRUPT, "its offsets do not follow, or are not within what was said");
        if (!e && h.leader_epoch < 0) e = bw_fail(BW_ERR_CORRUPT, "it has no leader epoch");
        if (e) return bw_error_context(BW_ERR_CORRUPT, "topic '%s' partition %u: a batch that its link brought", p->topic->name, p->index);
        if (out->count && (h.leader_epoch != out->at.epoch || out->bytes + bw_batch_size(&h) > most)) break;
        if (bw_batch_last_offset(&h) - end >= UINT32_MAX && out->count) break;
        out->at.epoch = h.leader_epoch;
        out->gaps |= h.base_offset != out->at.next;
        out->producers |= h.producer_id >= 0;
        out->at.next = bw_batch_last_offset(&h) + 1;
        if (h.max_timestamp > out->at.max_timestamp) out->at.max_timestamp = h.max_timestamp;
        out->pieces[out->count++] = (bw_append_piece){batch, bw_batch_size(&h), h.last_offset_delta + 1};
        out->bytes += bw_batch_size(&h);
    }
    return BW_OK;
}

static bw_err append_span(bw_broker *b, bw_part *p, const struct span *s)
{
    bw_appender *appender;
    bw_append_result result;
    bw_err e = BW_OK;
    for (int i = 0; i < 2; i++) {
        if ((e = bw_part_appender(b, p, &appender))) return e;
        bw_produce_before_append(b, p);
        if (p->taps) bw_broker_again(b, p);
        e = bw_txn_copy(p->log, appender, s->producers ? p->producers : NULL, s->pieces, s->count, &s->at, bw_clock_mono_ms(),
                        bw_clock_mono_ns() + BW_PRODUCE_PATIENCE_NS, &result);
        if (e != BW_ERR_FENCED) break;
        bw_appender_close(p->appender);
        p->appender = NULL;
    }
    if (e) return e;
    p->in_batches += s->count;
    p->in_bytes += s->bytes;
    BW_KILL_POINT("link.appended");
    return BW_OK;
}

static bool is_for_now(bw_err e) { return e == BW_ERR_NO_COORDINATOR || e == BW_ERR_LOCK_HELD || e == BW_ERR_TIMED_OUT || e == BW_ERR_BUSY; }

static bw_err check_mirror_part(const bw_part *p, const bw_request *r, const bw_link_part *q, int64_t expected)
{
    const bw_mirror *m = p->topic->mirror;
    if (p->topic->lead) return bw_lead_refuse_link(p->topic);
    if (!m) return bw_fail(BW_ERR_TOPIC_EXISTS, "topic '%s' is no mirror (any more)", p->topic->name);
    if (!bw_str_is(r->link.name, m->link))
        return bw_fail(BW_ERR_MIRROR_READ_ONLY, "topic '%s' is the mirror of another link, '%s'", p->topic->name, m->link);
    if (memcmp(m->source.b, q->id, 16)) return bw_fail(BW_ERR_LOGS_DIVERGED, "topic '%s' mirrors another topic than this", p->topic->name);
    if (q->offset != expected || q->next < q->offset)
        return bw_fail(BW_ERR_OUT_OF_ORDER_SEQUENCE, "topic '%s' partition %u goes on at offset %lld, what came begins at %lld", p->topic->name,
                       p->index, (long long)expected, (long long)q->offset);
    return BW_OK;
}

static outcome mirror_part(bw_broker *b, struct bw_link_append *x, bw_part *p)
{
    const bw_request *r = &x->op->request;
    const bw_link_part *q = &r->link.parts[x->index];
    int64_t log_start, end, durable, expected;
    bw_part_range(p, &log_start, &end, &durable);
    expected = p->copied_upto > end ? p->copied_upto : end;
    bw_err e = BW_OK;
    if ((x->done == 0 || p->topic->lead) && (e = check_mirror_part(p, r, q, expected))) {
        x->parts[x->index].offset = expected;
        part_error(x, e);
        return PART_DONE;
    }
    if (x->done == q->size) {
        if (q->next > p->copied_upto) p->copied_upto = q->next;
        x->parts[x->index].offset = x->parts[x->index].next = q->next;
        return PART_DONE;
    }
    struct span s;
    e = take_span(p, q, x->data + x->at + x->done, q->size - x->done, end, &s);
    if (!e && s.producers && !bw_part_have_producers(b, p, &e) && !e) return PART_RETRY;
    if (!e) {
        bool epoch = (uint32_t)s.at.epoch != atomic_load_explicit(&slot_of(p)->leader_epoch, memory_order_relaxed);
        x->gaps_upto = s.gaps && bw_partition_gaps_below(p->log) < s.at.next ? s.at.next : 0;
        x->epoch = epoch && !(x->epoch == s.at.epoch && x->epoch_from == end) ? s.at.epoch : -1;
        x->epoch_from = end;
        if (x->gaps_upto || x->epoch >= 0) return work(b, x, p, TASK_PREPARE);
        x->epoch = epoch ? s.at.epoch : -1; /* it is known to the log: in case of another try */
        e = append_span(b, p, &s);
    }
    if (!e) x->done += s.bytes;
    else if (is_for_now(e) && bw_deadline_left_ns(x->patience) > 0) return PART_RETRY;
    else {
        bw_part_range(p, &log_start, &end, &durable);
        x->parts[x->index].offset = end;
        part_error(x, e);
        return PART_DONE;
    }
    return PART_AGAIN;
}

/* ---- merges ---- */

bw_log_id bw_link_log_id(const bw_request *r, const uint8_t source[16], int32_t partition, bool of_link)
{
    bw_log_id id = {.incarnation = r->link.incarnation, .partition = partition};
    uint64_t hash = 14695981039346656037u; /* FNV-1a: each link has a place of its own */
    for (size_t i = 0; i < r->link.name.len; i++) hash = (hash ^ (uint8_t)r->link.name.data[i]) * 1099511628211u;
    if (of_link) id.incarnation ^= hash;
    memcpy(id.origin.b, r->link.origin, 16);
    memcpy(id.topic.b, source, 16);
    return id;
}

static bw_err append_merged(bw_broker *b, bw_part *p, struct bw_link_append *x)
{
    bw_append_piece pieces[64];
    size_t most = atomic_load_explicit(&slot_of(p)->segment_max, memory_order_relaxed) / 2;
    bw_err e = BW_OK;
    while (!e && x->done < x->merged_count) {
        size_t n = 0, bytes = 0;
        int64_t newest = INT64_MIN;
        while (x->done + n < x->merged_count && n < 64) {
            const bw_merged *m = &x->merged[x->done + n];
            if (n && (bytes + m->len > most || bytes + m->len > SPAN_BYTES)) break;
            pieces[n++] = (bw_append_piece){m->batch, m->len, m->count};
            bytes += m->len;
            if (m->max_timestamp > newest) newest = m->max_timestamp;
        }
        bw_appender *appender;
        bw_append_result result;
        for (int i = 0; i < 2; i++) {
            if ((e = bw_part_appender(b, p, &appender))) return e;
            bw_produce_before_append(b, p);
            if (p->taps) bw_broker_again(b, p);
            e = bw_append_many(appender, pieces, n, newest, bw_clock_mono_ns() + BW_PRODUCE_PATIENCE_NS, &result);
            if (e != BW_ERR_FENCED) break;
            bw_appender_close(p->appender);
            p->appender = NULL;
        }
        if (e) break;
        x->done += n;
        p->in_batches += n;
        p->in_bytes += bytes;
        BW_KILL_POINT("link.merged");
    }
    return e;
}

static outcome merge_encoded(bw_broker *b, struct bw_link_append *x, bw_part *p, struct bw_merge *m)
{
    const bw_link_part *q = &x->op->request.link.parts[x->index];
    bw_err e = append_merged(b, p, x);
    if (e && is_for_now(e) && bw_deadline_left_ns(x->patience) > 0) {
        m->busy = true; /* the copy of the vector stays the newest */
        return PART_RETRY;
    }
    m->busy = false;
    if (e && x->done) bw_merge_spoil(m); /* some of it is in the log */
    if (e) part_error(x, e);
    else {
        bw_log_id id = bw_link_log_id(&x->op->request, q->id, q->partition, true);
        int64_t log_start, end, durable;
        e = bw_vector_raise(&x->vector, BW_VECTOR_LINK, &id, q->next);
        bw_part_range(p, &log_start, &end, &durable);
        x->vector.valid = end;
        bw_vector old = m->vector;
        m->vector = x->vector;
        x->vector = old;
        bw_merge_changed(b, m);
        x->parts[x->index].offset = x->parts[x->index].next = q->next;
    }
    return PART_DONE;
}

static outcome merge_part(bw_broker *b, struct bw_link_append *x, bw_part *p)
{
    const bw_request *r = &x->op->request;
    const bw_link_part *q = &r->link.parts[x->index];
    bw_err e = BW_OK;
    if (bw_topic_is_mirror(p->topic)) e = bw_mirror_refuse_write(p->topic);
    struct bw_merge *m = e ? NULL : bw_merge_ready(b, p, &e);
    if (!m && !e) return PART_RETRY;
    if (!e && x->task == TASK_ENCODE && x->vector.valid) return merge_encoded(b, x, p, m);
    if (!e && m->busy) return PART_RETRY;
    bw_log_id id = bw_link_log_id(r, q->id, q->partition, true);
    int64_t expected = e ? 0 : bw_vector_next(&m->vector, BW_VECTOR_LINK, &id);
    x->parts[x->index].offset = expected;
    if (!e && q->offset > expected)
        e = bw_fail(BW_ERR_OUT_OF_ORDER_SEQUENCE, "topic '%s' partition %u: the link goes on at offset %lld, what came begins at %lld",
                    p->topic->name, p->index, (long long)expected, (long long)q->offset);
    if (!e) e = bw_vector_copy(&m->vector, &x->vector);
    if (e) {
        part_error(x, e);
        return PART_DONE;
    }
    if (!x->vector.valid) x->vector.valid = 1; /* an empty log's: it says here that there is one */
    x->input = (bw_merge_input){x->data + x->at, q->size, bw_link_log_id(r, q->id, q->partition, false), bw_origin_id(b),
                                b->config.socket_request_max_bytes};
    m->busy = true;
    outcome o = work(b, x, p, TASK_ENCODE);
    if (o != PART_WORKS) m->busy = false;
    return o;
}

/* ---- steps ---- */

static outcome one_part(bw_broker *b, struct bw_link_append *x)
{
    const bw_request *r = &x->op->request;
    const bw_link_part *q = &r->link.parts[x->index];
    bw_part *p;
    if (x->parts[x->index].error) return PART_DONE;
    bw_err e = bw_part_of(b, q->topic, q->partition, false, &p);
    if (!e && !p->log) e = bw_fail(BW_ERR_BUSY, "topic '%s' partition %u is not open: %s", p->topic->name, p->index, p->why ? p->why : "yet");
    if (e) {
        part_error(x, e);
        return PART_DONE;
    }
    return r->link.mode == BW_LINK_MIRROR ? mirror_part(b, x, p) : merge_part(b, x, p);
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
    outcome o = PART_DONE;
    if (!x->unpacked) {
        if (work(b, x, NULL, TASK_UNPACK) == PART_WORKS) return false;
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
    free(l);
    s->linking = NULL;
}
