/* broker/produce.c: PRODUCE.
 *
 * A batch is checked once and put to the others of its partition that came in the same turn; before the next request of another kind,
 * and when there is no further event, those that can are appended as one: a write of many batches costs a page a quarter of what small ones
 * do. Then, or alone, a batch is tried: sequence, append, answer. What cannot go on now is parked at its partition and tried again, in
 * order, when the partition's state changes (room was granted, the producer table is there) or its retry timer fires; a batch that
 * comes while others are parked goes behind them, so that one session's batches for a partition keep their order. Nothing here
 * waits: bw_append gets a deadline of half a millisecond, which bounds what a contended lock can cost.
 * acks none: never answered, whatever comes of it. acks durable: after the append the batch waits in `undurable` until the slot's durable
 * watermark has passed its end; acks replicated: in `unreplicated`, until as many peers as the topic asks for have acknowledged it.
 * Transactional batches are admitted by the coordinator (txn.h) when they come, and again when they were parked; what it has to write first
 * goes before the first of them is appended. Requests to end a transaction are gathered too, and carried out behind the batches. */
#include "broker/produce_internal.h"

#include "broker/links.h"
#include "broker/recode.h"
#include "format/batch_filter.h"
#include "broker/txn.h"
#include "log/txn.h"

#include <stdlib.h>

#define TIMEOUT_MAX_MS 3600000
#define GROUP_MAX 32                /* batches that are appended as one */
#define GROUP_BYTES (256u << 10)

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

/* ---- checking ---- */

static bw_err check_batch(bw_broker *b, bw_part *p, bw_op *op, bw_batch_header *h)
{
    const bw_request *r = &op->request;
    const bw_topic_config *c = &p->topic->config;
    if (r->acks < BW_ACKS_NONE || r->acks > BW_ACKS_REPLICATED)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "acks = %d; allowed: 0 none, 1 visible, 2 durable, 3 replicated", r->acks);
    if (r->acks == BW_ACKS_REPLICATED && c->replicas == 0)
        return bw_fail(BW_ERR_INVALID_CONFIG, "acks = replicated, but topic '%s' asks for no replicas; `busway topic alter %s replicas=N`",
                       p->topic->name, p->topic->name);
    if ((int64_t)r->payload_len > c->max_message_bytes)
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a batch of %zu bytes; topic '%s' takes at most %lld (max.message.bytes)", r->payload_len,
                       p->topic->name, (long long)c->max_message_bytes);
    bw_err e = bw_batch_validate(r->payload, r->payload_len, b->config.socket_request_max_bytes, true, h);
    if (!e && bw_topic_config_compacts(c)) e = bw_batch_check_keys(r->payload, h, b->config.socket_request_max_bytes);
    if (e) return bw_error_context(e, "topic '%s' partition %u: the batch is refused", p->topic->name, p->index);
    if ((h->attributes & BW_ATTR_TRANSACTIONAL) && (h->producer_id < 0 || r->acks == BW_ACKS_NONE))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a transactional batch needs a producer id and acks");
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

/* ---- together ---- */

/* May pr go behind the n of the group? Its sequence is checked against the newest of its producer, in the group or in the table. */
static bool joins(const bw_broker *b, const bw_part *p, bw_produce *const *group, size_t n, const bw_produce *pr)
{
    const bw_batch_header *h = &pr->header;
    if (h->producer_id < 0) return true;
    if (bw_produce_is_transactional(pr) && bw_txn_unwritten(b)) return false;
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
static size_t form_group(const bw_broker *b, const bw_part *p, bw_produce *first, bw_produce **group)
{
    size_t n = 0, bytes = 0, most = atomic_load_explicit(&slot_of(p)->segment_max, memory_order_relaxed) / 8;
    if (most > GROUP_BYTES) most = GROUP_BYTES;
    for (bw_produce *pr = first; pr && n < GROUP_MAX; pr = pr->next) {
        if (n > 0 && bytes + pr->len > most) break;
        bool may = joins(b, p, group, n, pr);
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
    bw_produce_before_append(b, p);
    bool transactional = false;
    bw_err e = BW_OK;
    for (size_t i = 0; !e && i < n; i++) {
        if (!bw_produce_is_transactional(group[i])) continue;
        transactional = true;
        e = bw_txn_begin(p->log, p->producers, group[i]->header.producer_id, bw_clock_mono_ms());
    }
    if (!e) e = bw_append_many(appender, pieces, n, newest, bw_clock_mono_ns() + BW_PRODUCE_PATIENCE_NS, &result);
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
        bw_produce_appended(b, group[i]);
    }
    return true;
}

static void flush_part(bw_broker *b, bw_part *p)
{
    bw_produce *list = p->gathered;
    p->gathered = p->gathered_last = NULL;
    while (list) {
        bw_produce *group[GROUP_MAX];
        size_t n = p->parked ? 1 : form_group(b, p, list, group);
        if (p->parked) group[0] = list;
        list = group[n - 1]->next;
        if (n > 1 && append_group(b, p, group, n)) continue;
        for (size_t i = 0; i < n; i++) /* one at a time: each has its own outcome */
            if (p->parked || bw_produce_try(b, group[i]) == BW_PRODUCE_PARK) bw_produce_park(b, group[i]);
    }
}

void bw_produce_flush_data(bw_broker *b)
{
    (void)bw_txn_flush(b); /* else the batches that need it are parked */
    while (b->gathering) {
        bw_part *p = b->gathering;
        b->gathering = p->gathering_next;
        flush_part(b, p);
    }
}

void bw_produce_flush(bw_broker *b)
{
    if (b->gathering) bw_produce_flush_data(b);
    if (bw_txn_gathered(b)) bw_txn_end_gathered(b);
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
    if (!e && bw_topic_is_mirror(p->topic)) e = bw_mirror_refuse_write(p->topic);
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
    bool transactional = bw_produce_is_transactional(pr);
    if (transactional && bw_txn_is_ending(b, h.producer_id)) bw_produce_flush(b);
    e = transactional ? bw_txn_admit(b, p, h.producer_id, h.producer_epoch) : BW_OK;
    if (e || (e = prepare(b, pr))) bw_produce_answer(b, pr, e);
    else gather(b, pr);
}
