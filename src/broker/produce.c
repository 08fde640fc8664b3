/* broker/produce.c: PRODUCE.
 *
 * A batch is checked once and put to the others of its partition that came in the same turn; before the next request of another kind,
 * and when there is no further event, those that can are appended as one: a write of many batches costs a page a quarter of what small ones
 * do. Then, or alone, a batch is tried: sequence, append, answer. What cannot go on now is parked at its partition and tried again, in
 * order, when the partition's state changes (room was granted, the producer table is there) or its retry timer fires; a batch that
 * comes while others are parked goes behind them, so that one session's batches for a partition keep their order. Nothing here
 * waits: bw_append gets a deadline of half a millisecond, which bounds what a contended lock can cost.
 * acks none: never answered, whatever comes of it. acks durable: after the append the batch waits in `undurable` until the slot's durable
 * watermark has passed its end. */
#include "broker/core.h"

#include "broker/recode.h"
#include "format/batch_filter.h"
#include "log/txn.h"
#include "log/wait.h"

#include <busway/producer.h>

#include <stdlib.h>

#define APPEND_PATIENCE_NS 500000
#define RETRY_MS 5
#define TIMEOUT_MAX_MS 3600000
#define GROUP_MAX 32                /* batches that are appended as one */
#define GROUP_BYTES (256u << 10)

struct bw_produce {
    bw_op *op;
    bw_part *part;
    bw_batch_header header;
    uint8_t *owned; /* the batch when it was changed on its way; else it lies in the request */
    const uint8_t *batch;
    size_t len;
    int64_t timestamp; /* as stored: the append time, or -1 */
    int8_t acks;
    bw_deadline deadline;
    bw_timer timer; /* durable: the answer is due */
    int64_t base_offset;
    bw_position end;
    bw_produce *next;
};

typedef enum outcome { FINISHED, PARK } outcome;

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

static void produce_free(bw_broker *b, bw_produce *pr)
{
    bw_timers_clear(&b->timers, &pr->timer);
    free(pr->owned);
    free(pr);
}

static void answer(bw_broker *b, bw_produce *pr, bw_err e)
{
    if (pr->acks == BW_ACKS_NONE) bw_op_finish(pr->op, NULL); /* never answered, not even an error */
    else {
        bw_answer a;
        bw_answer_init(&a, &pr->op->request);
        a.error = (int32_t)e;
        if (e) a.message = bw_str_of(bw_error_message());
        else a.offset = pr->base_offset;
        a.timestamp = pr->timestamp >= 0 ? pr->timestamp : pr->header.max_timestamp;
        if (!e || e == BW_ERR_DISK_FULL) bw_part_range(pr->part, &a.log_start, &a.end, &a.durable);
        bw_op_finish(pr->op, &a);
    }
    produce_free(b, pr);
}

/* ---- checking ---- */

static bw_err check_batch(bw_broker *b, bw_part *p, bw_op *op, bw_batch_header *h)
{
    const bw_request *r = &op->request;
    const bw_topic_config *c = &p->topic->config;
    if (r->acks < BW_ACKS_NONE || r->acks > BW_ACKS_DURABLE)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "acks = %d; allowed: 0 none, 1 visible, 2 durable", r->acks);
    if ((int64_t)r->payload_len > c->max_message_bytes)
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a batch of %zu bytes; topic '%s' takes at most %lld (max.message.bytes)", r->payload_len,
                       p->topic->name, (long long)c->max_message_bytes);
    bw_err e = bw_batch_validate(r->payload, r->payload_len, b->config.socket_request_max_bytes, true, h);
    if (!e && bw_topic_config_compacts(c)) e = bw_batch_check_keys(r->payload, h, b->config.socket_request_max_bytes);
    if (e) return bw_error_context(e, "topic '%s' partition %u: the batch is refused", p->topic->name, p->index);
    if (h->attributes & BW_ATTR_TRANSACTIONAL)
        return bw_fail(BW_ERR_UNSUPPORTED, "transactional batches are not taken by this version");
    if ((h->attributes & BW_ATTR_TRANSACTIONAL) && h->producer_id < 0)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a transactional batch needs a producer id");
    if (h->record_count == 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a batch without records");
    if (h->producer_id >= 0 && (h->base_sequence < 0 || h->producer_epoch < 0))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a batch with producer id %lld needs an epoch and a sequence", (long long)h->producer_id);
    return BW_OK;
}

/* What the topic changes about a batch: codec, append time. The request's memory is not ours to change. */
static bw_err prepare(bw_broker *b, bw_produce *pr)
{
    const bw_topic_config *c = &pr->part->topic->config;
    bw_codec have = (bw_codec)(pr->header.attributes & BW_ATTR_CODEC_MASK);
    bw_codec want = bw_recode_wanted(c->compression_type, have);
    bool append_time = c->timestamp_type[0] == 'L';
    if (want != have) {
        bw_buf out = {0};
        bw_err e = bw_recode(pr->batch, pr->len, want, b->config.socket_request_max_bytes, &out);
        if (!e && (int64_t)out.len > c->max_message_bytes)
            e = bw_fail(BW_ERR_RECORD_TOO_LARGE, "the batch has %zu bytes as compression.type = %s; topic '%s' takes at most %lld", out.len,
                        c->compression_type, pr->part->topic->name, (long long)c->max_message_bytes);
        if (e) {
            bw_buf_free(&out);
            return e;
        }
        pr->owned = out.data;
        pr->batch = out.data;
        pr->len = out.len;
    } else if (append_time) {
        if (!(pr->owned = malloc(pr->len))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a batch of %zu bytes", pr->len);
        memcpy(pr->owned, pr->batch, pr->len);
        pr->batch = pr->owned;
    }
    if (append_time) {
        pr->timestamp = bw_clock_wall_ms();
        bw_batch_set_log_append_time(pr->owned, pr->len, pr->timestamp);
        pr->header.max_timestamp = pr->timestamp;
    }
    return BW_OK;
}

/* ---- the producer table, a copy of the log's (log/producers.h) ---- */

static void scan_run(bw_broker *b, bw_job *job)
{
    (void)b;
    bw_producers *table;
    bw_err e = bw_partition_producers(job->part->log, &table);
    job->data = table;
    if (e) bw_job_set_error(job, e);
}

static void scan_done(bw_broker *b, bw_job *job)
{
    bw_part *p = job->part;
    p->producers_loading = false;
    bool there = bw_part_by_number(b, p->bus_number) == p;
    if (!there || job->error) bw_producers_free(job->data);
    else p->producers = job->data;
    bw_error_set_message(job->error, job->message);
    if (there && job->error) bw_produce_fail_all(b, p, job->error);
    bw_part_release(p);
    free(job);
    if (there) bw_part_serve(b, p);
}

/* true: the table is there. Otherwise it is being read and the partition will be served again, or *e. */
static bool have_producers(bw_broker *b, bw_part *p, bw_err *e)
{
    *e = BW_OK;
    if (p->producers) return true;
    if (p->producers_loading) return false;
    bw_tail_slot *s = slot_of(p);
    if (bw_slot_end_offset(s) == 0) { /* a log that was never written to has no producers */
        p->producers = bw_producers_new();
        if (!p->producers) *e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the producer table");
        return p->producers != NULL;
    }
    bw_job *job = calloc(1, sizeof *job);
    if (!job) {
        *e = bw_fail(BW_ERR_NO_MEMORY, "no memory to read the producer table");
        return false;
    }
    *job = (bw_job){.run = scan_run, .done = scan_done, .part = p};
    atomic_fetch_add(&p->users, 1);
    if ((*e = bw_worker_submit(b, job))) {
        bw_part_release(p);
        free(job);
    } else p->producers_loading = true;
    return false;
}

/* ---- one try ---- */

static void wait_durable(bw_broker *b, bw_produce *pr);

static void on_durable_late(void *broker, bw_timer *timer)
{
    bw_produce *pr = (bw_produce *)(void *)((char *)timer - offsetof(bw_produce, timer));
    bw_part *p = pr->part;
    bw_produce **at = &p->undurable, *before = NULL;
    while (*at != pr) {
        before = *at;
        at = &before->next;
    }
    *at = pr->next;
    if (p->undurable_last == pr) p->undurable_last = before;
    bw_fail(BW_ERR_TIMED_OUT, "topic '%s' partition %u: offset %lld is visible but not yet known to be on the disk", p->topic->name, p->index,
            (long long)pr->base_offset);
    answer(broker, pr, BW_ERR_TIMED_OUT);
}

static void wait_durable(bw_broker *b, bw_produce *pr)
{
    bw_part *p = pr->part;
    bw_tail_slot *s = slot_of(p);
    if (atomic_load_explicit(&s->durable, memory_order_acquire) >= pr->end) {
        answer(b, pr, BW_OK);
        return;
    }
    bw_position_raise(&s->sync_request, pr->end);
    bw_produce *before = NULL, **at = &p->undurable; /* by end: a resend of an old batch may come behind newer ones */
    if (p->undurable_last && p->undurable_last->end <= pr->end) at = &(before = p->undurable_last)->next;
    else while (*at && (*at)->end <= pr->end) at = &(before = *at)->next;
    pr->next = *at;
    *at = pr;
    if (!pr->next) p->undurable_last = pr;
    pr->timer.fire = on_durable_late;
    bw_timers_set(&b->timers, &pr->timer, pr->deadline);
    bw_syncer_want(b, p);
    bw_broker_again(b, p);
}

static bool is_transactional(const bw_produce *pr) { return pr->header.attributes & BW_ATTR_TRANSACTIONAL; }

static void appended(bw_broker *b, bw_produce *pr)
{
    bw_part *p = pr->part;
    p->in_batches++;
    p->in_bytes += pr->len;
    pr->op->session->produced_bytes += pr->len;
    if (pr->header.producer_id >= 0) {
        int64_t now = bw_clock_mono_ms();
        bw_producers_expire(p->producers, now - b->config.producer_id_expiration_ms);
        /* Without memory for it any sequence may come next. A transaction's producer has its entry already. */
        (void)bw_producers_note(p->producers, &pr->header, pr->base_offset, pr->timestamp, pr->end, now);
        if (is_transactional(pr)) bw_txn_settle(p->log, p->producers);
    }
    if (pr->acks == BW_ACKS_DURABLE) wait_durable(b, pr);
    else answer(b, pr, BW_OK);
}

/* What waits for this append is served in this turn: no need to be woken for it. */
static void serve_after_append(bw_broker *b, bw_part *p)
{
    if (p->armed) bw_disarm(p->topic->control, p->index, BW_WAIT_TAIL, BW_MAILBOX_BROKER);
    p->armed = false;
    if (p->subs || p->fetches) bw_broker_again(b, p);
}

static bw_err append_once(bw_broker *b, bw_produce *pr)
{
    bw_appender *appender;
    bw_append_result result;
    bw_err e = bw_part_appender(b, pr->part, &appender);
    if (e) return e;
    serve_after_append(b, pr->part);
    e = bw_append(appender, pr->batch, pr->len, pr->header.last_offset_delta + 1, pr->header.max_timestamp,
                  bw_clock_mono_ns() + APPEND_PATIENCE_NS, &result);
    if (e) return e;
    pr->base_offset = result.base_offset;
    pr->end = result.end;
    return BW_OK;
}

static outcome refuse(bw_broker *b, bw_produce *pr, bw_err e)
{
    bw_error_context(e, "topic '%s'", pr->part->topic->name);
    answer(b, pr, e);
    return FINISHED;
}

static outcome try_produce(bw_broker *b, bw_produce *pr)
{
    bw_part *p = pr->part;
    bw_err e;
    if (pr->header.producer_id >= 0) {
        if (!have_producers(b, p, &e)) return e ? refuse(b, pr, e) : PARK;
        bw_producer_batch before;
        bw_sequence s = bw_producers_check(p->producers, &pr->header, &before, &e);
        if (s == BW_SEQUENCE_REFUSED) return refuse(b, pr, e);
        if (s == BW_SEQUENCE_DUPLICATE) {
            pr->base_offset = before.base_offset;
            pr->timestamp = before.timestamp;
            pr->end = before.end;
            if (!pr->end) pr->end = atomic_load_explicit(&slot_of(p)->tail, memory_order_acquire);
            if (pr->acks == BW_ACKS_DURABLE) wait_durable(b, pr);
            else answer(b, pr, BW_OK);
            return FINISHED;
        }
    }
    if (is_transactional(pr) && (e = bw_txn_begin(p->log, p->producers, pr->header.producer_id, bw_clock_mono_ms()))) return refuse(b, pr, e);
    e = append_once(b, pr);
    if (e == BW_ERR_FENCED) {
        bw_appender_close(p->appender);
        p->appender = NULL;
        e = append_once(b, pr);
    }
    if (e && is_transactional(pr)) bw_txn_settle(p->log, p->producers);
    if (!e) {
        appended(b, pr);
        return FINISHED;
    }
    bool later = e == BW_ERR_NO_COORDINATOR || e == BW_ERR_LOCK_HELD || e == BW_ERR_TIMED_OUT;
    if (later && bw_deadline_left_ns(pr->deadline) > 0) return PARK;
    return refuse(b, pr, e);
}

/* ---- parking ---- */

static void on_retry(void *broker, bw_timer *timer)
{
    bw_part *p = (bw_part *)(void *)((char *)timer - offsetof(bw_part, retry));
    bw_part_serve(broker, p);
}

static void arm_retry(bw_broker *b, bw_part *p)
{
    p->retry.fire = on_retry;
    if (p->parked && !p->retry.index && !p->producers_loading) bw_timers_set(&b->timers, &p->retry, bw_deadline_in_ms(RETRY_MS));
}

static void park(bw_broker *b, bw_produce *pr)
{
    bw_part *p = pr->part;
    pr->next = NULL;
    if (p->parked_last) p->parked_last->next = pr;
    else p->parked = pr;
    p->parked_last = pr;
    arm_retry(b, p);
    bw_broker_again(b, p);
}

static void serve_parked(bw_broker *b, bw_part *p)
{
    while (p->parked) {
        bw_produce *pr = p->parked;
        bw_produce *rest = pr->next;
        /* Out of the list while it is tried: the answer may free it. */
        p->parked = rest;
        if (!rest) p->parked_last = NULL;
        if (try_produce(b, pr) == FINISHED) continue;
        pr->next = p->parked;
        p->parked = pr;
        if (!pr->next) p->parked_last = pr;
        break;
    }
    arm_retry(b, p);
}

static void serve_undurable(bw_broker *b, bw_part *p)
{
    bw_tail_slot *s = slot_of(p);
    uint64_t durable = atomic_load_explicit(&s->durable, memory_order_acquire);
    uint32_t state = atomic_load_explicit(&s->state, memory_order_acquire);
    while (p->undurable && (p->undurable->end <= durable || state != BW_SLOT_OPEN)) {
        bw_produce *pr = p->undurable;
        p->undurable = pr->next;
        if (!p->undurable) p->undurable_last = NULL;
        bw_err e = pr->end <= durable ? BW_OK : state == BW_SLOT_POISONED ? BW_ERR_POISONED : BW_ERR_DELETED;
        if (e)
            bw_fail(e, "topic '%s' partition %u: offset %lld did not reach the disk: %s", p->topic->name, p->index, (long long)pr->base_offset,
                    bw_err_text(e));
        answer(b, pr, e);
    }
}

void bw_produce_serve(bw_broker *b, bw_part *p)
{
    if (p->undurable) serve_undurable(b, p);
    if (p->parked) serve_parked(b, p);
}

bool bw_produce_waiting(const bw_part *p) { return p->undurable || p->parked; }

void bw_produce_fail_all(bw_broker *b, bw_part *p, bw_err e)
{
    char why[600];
    strncpy(why, bw_error_message(), sizeof why - 1);
    why[sizeof why - 1] = 0;
    for (int list = 0; list < 2; list++) {
        bw_produce *pr = list ? p->undurable : p->parked;
        if (list) p->undurable = p->undurable_last = NULL;
        else p->parked = p->parked_last = NULL;
        while (pr) {
            bw_produce *next = pr->next;
            bw_error_set_message(e, why);
            answer(b, pr, e);
            pr = next;
        }
    }
}

/* The answers of a session that is gone go nowhere; what it handed over and was not tried yet is dropped, unacknowledged. */
static void drop_from(bw_broker *b, bw_session *s, bw_produce **first, bw_produce **last)
{
    *last = NULL;
    for (bw_produce **at = first; *at;) {
        bw_produce *pr = *at;
        if (pr->op->session != s) {
            *last = pr;
            at = &pr->next;
            continue;
        }
        *at = pr->next;
        bw_op_finish(pr->op, NULL);
        produce_free(b, pr);
    }
}

void bw_produce_drop_session(bw_broker *b, bw_session *s)
{
    for (uint32_t i = 0; i < b->parts_count; i++) {
        bw_part *p = b->parts[i];
        if (!p) continue;
        if (p->parked) drop_from(b, s, &p->parked, &p->parked_last);
        if (p->undurable) drop_from(b, s, &p->undurable, &p->undurable_last);
    }
}

/* ---- together ---- */

/* May pr go behind the n of the group? Its sequence is checked against the newest of its producer, in the group or in the table. */
static bool joins(const bw_part *p, bw_produce *const *group, size_t n, const bw_produce *pr)
{
    const bw_batch_header *h = &pr->header;
    if (h->producer_id < 0) return true;
    for (size_t i = n; i-- > 0;) {
        const bw_batch_header *before = &group[i]->header;
        if (before->producer_id != h->producer_id) continue;
        return before->producer_epoch == h->producer_epoch && !((before->attributes ^ h->attributes) & BW_ATTR_TRANSACTIONAL) &&
               h->base_sequence == bw_sequence_after(before->base_sequence, before->last_offset_delta + 1);
    }
    bw_producer_batch known;
    bw_err e;
    return p->producers && bw_producers_check(p->producers, h, &known, &e) == BW_SEQUENCE_ACCEPT;
}

/* The first of the list that can be appended as one; at least one, whatever it is. */
static size_t form_group(const bw_part *p, bw_produce *first, bw_produce **group)
{
    size_t n = 0, bytes = 0, most = atomic_load_explicit(&slot_of(p)->segment_max, memory_order_relaxed) / 8;
    if (most > GROUP_BYTES) most = GROUP_BYTES;
    for (bw_produce *pr = first; pr && n < GROUP_MAX; pr = pr->next) {
        if (n > 0 && bytes + pr->len > most) break;
        bool may = joins(p, group, n, pr);
        if (!may && n > 0) break;
        group[n++] = pr;
        bytes += pr->len;
        if (!may) break;
    }
    return n;
}

/* true: all are in the log and answered, or wait for the disk. */
static bool append_group(bw_broker *b, bw_part *p, bw_produce **group, size_t n)
{
    bw_append_piece pieces[GROUP_MAX];
    bw_appender *appender;
    bw_append_result result;
    int64_t newest = INT64_MIN;
    for (size_t i = 0; i < n; i++) {
        pieces[i] = (bw_append_piece){group[i]->batch, group[i]->len, group[i]->header.last_offset_delta + 1};
        if (group[i]->header.max_timestamp > newest) newest = group[i]->header.max_timestamp;
    }
    if (bw_part_appender(b, p, &appender) != BW_OK) return false;
    serve_after_append(b, p);
    bool transactional = false;
    bw_err e = BW_OK;
    for (size_t i = 0; !e && i < n; i++) {
        if (!is_transactional(group[i])) continue;
        transactional = true;
        e = bw_txn_begin(p->log, p->producers, group[i]->header.producer_id, bw_clock_mono_ms());
    }
    if (!e) e = bw_append_many(appender, pieces, n, newest, bw_clock_mono_ns() + APPEND_PATIENCE_NS, &result);
    if (e && transactional) bw_txn_settle(p->log, p->producers);
    if (e) return false;
    bw_position end = result.end;
    int64_t base = result.base_offset;
    for (size_t i = n; i-- > 0;) {
        group[i]->end = end;
        end -= group[i]->len;
    }
    for (size_t i = 0; i < n; i++) {
        group[i]->base_offset = base;
        base += pieces[i].count;
        appended(b, group[i]);
    }
    return true;
}

static void flush_part(bw_broker *b, bw_part *p)
{
    bw_produce *list = p->gathered;
    p->gathered = p->gathered_last = NULL;
    while (list) {
        bw_produce *group[GROUP_MAX];
        size_t n = p->parked ? 1 : form_group(p, list, group);
        if (p->parked) group[0] = list;
        list = group[n - 1]->next;
        if (n > 1 && append_group(b, p, group, n)) continue;
        for (size_t i = 0; i < n; i++) /* one at a time: each has its own outcome */
            if (p->parked || try_produce(b, group[i]) == PARK) park(b, group[i]);
    }
}

void bw_produce_flush(bw_broker *b)
{
    while (b->gathering) {
        bw_part *p = b->gathering;
        b->gathering = p->gathering_next;
        flush_part(b, p);
    }
}

static void gather(bw_broker *b, bw_produce *pr)
{
    bw_part *p = pr->part;
    pr->next = NULL;
    if (p->gathered) {
        p->gathered_last->next = pr;
    } else {
        p->gathered = pr;
        p->gathering_next = b->gathering;
        b->gathering = p;
    }
    p->gathered_last = pr;
}

void bw_handle_produce(bw_broker *b, bw_op *op)
{
    const bw_request *r = &op->request;
    bw_part *p;
    bw_batch_header h;
    bw_err e = bw_part_of(b, r->topic, r->partition, r->allow_auto_create, &p);
    if (!e) e = check_batch(b, p, op, &h);
    bw_produce *pr = e ? NULL : calloc(1, sizeof *pr);
    if (!e && !pr) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a batch");
    if (e) {
        if (r->acks == BW_ACKS_NONE) bw_op_finish(op, NULL);
        else bw_op_fail(op, e);
        return;
    }
    int32_t timeout = r->timeout_ms <= 0 || r->timeout_ms > TIMEOUT_MAX_MS ? TIMEOUT_MAX_MS : r->timeout_ms;
    *pr = (bw_produce){.op = op, .part = p, .header = h, .batch = r->payload, .len = r->payload_len, .timestamp = -1, .acks = r->acks,
                       .deadline = bw_deadline_in_ms(timeout), .base_offset = -1};
    if ((e = prepare(b, pr))) answer(b, pr, e);
    else gather(b, pr);
}
