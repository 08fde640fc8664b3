/* broker/link_append_mirror.c: a part of LINK_APPEND into a mirror: batches as they are, at their offsets.
 *
 * checked (whose mirror it is, where the log ends, checksums, offsets that ascend) -> gaps and leader epochs made known to the log, and way
 * made to offsets that are far from its end (worker; they sync) -> appended, span by span: all of a span or nothing of it. What the log has
 * is the position; there is no other. */
#include "broker/link_append.h"

#include "base/killpoint.h"
#include "broker/produce_internal.h"
#include "broker/replica.h"
#include "log/copy.h"

enum { SPAN_BATCHES = 512, SPAN_BYTES = 1 << 20 };

static bw_tail_slot *slot_of(const bw_part *p) { return &p->topic->control->slots[p->index]; }

struct span {
    bw_append_piece pieces[SPAN_BATCHES];
    size_t count, bytes;
    bw_append_span at;
    int64_t first; /* base offset of the first batch */
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
        if (!out->count) out->first = h.base_offset;
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

bw_link_step bw_link_append_mirror(bw_broker *b, struct bw_link_append *x, bw_part *p)
{
    const bw_request *r = &x->op->request;
    const bw_link_part *q = &r->link.parts[x->index];
    int64_t log_start, end, durable, expected;
    bw_part_range(p, &log_start, &end, &durable);
    expected = p->copied_upto > end ? p->copied_upto : end;
    bw_err e = BW_OK;
    if (((x->done == 0 && !x->moved) || p->topic->lead) && (e = check_mirror_part(p, r, q, expected))) {
        x->parts[x->index].offset = expected;
        bw_link_append_part_error(x, e);
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
        x->way_to = bw_partition_is_far(p->log, end, s.at.next - 1) ? s.first : 0;
        x->moved |= x->way_to != 0;
        if (x->gaps_upto || x->epoch >= 0 || x->way_to) return bw_link_append_work(b, x, p, TASK_PREPARE);
        x->epoch = epoch ? s.at.epoch : -1; /* it is known to the log: in case of another try */
        e = append_span(b, p, &s);
    }
    if (!e) x->done += s.bytes;
    else if (bw_link_append_may_retry(x, e)) return PART_RETRY;
    else {
        bw_part_range(p, &log_start, &end, &durable);
        x->parts[x->index].offset = end;
        bw_link_append_part_error(x, e);
        return PART_DONE;
    }
    return PART_AGAIN;
}
