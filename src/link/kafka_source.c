/* link/kafka_source.c: records down from a cluster: what is committed, as batches at the cluster's offsets, without compression.
 *
 * Of a merge the batches say that a merge may trust the records' marks (busway.origin): what this bus once sent up does not come back.
 * A key prefix and a header are looked for here; what does not match leaves a gap in the offsets. */
#include "link/kafka.h"

#include "broker/links.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RANGE_NS_MS = 2000, BATCH_BYTES = 256 << 10 };

/* ---- the stream ---- */

static void forget(bw_kend *k)
{
    bw_kend_part *p, *next;
    HASH_ITER(hh, k->parts, p, next)
    {
        HASH_DELETE(hh, k->parts, p);
        free(p);
    }
    bw_consumer_close(k->consumer);
    k->consumer = NULL;
}

static void look_at_range(bw_kend *k, bw_kend_part *p)
{
    bw_offset_range range;
    if (bw_clock_mono_ns() < p->end_ns || bw_offsets_range(k->bus, p->key.topic, p->key.partition, &range) != BW_OK) return;
    p->log_start = range.log_start;
    p->end = range.end;
    p->end_ns = bw_deadline_in_ms(RANGE_NS_MS);
}

bw_err bw_kend_begin(bw_endpoint *ep, const bw_piece *pieces, size_t count)
{
    bw_kend *k = bw_kend_of(ep);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.isolation = BW_READ_COMMITTED;
    forget(k);
    bw_err e = bw_consumer_open(k->bus, &o, &k->consumer);
    for (size_t i = 0; i < count && !e; i++) {
        const bw_piece *q = &pieces[i];
        bw_kend_part *p = bw_kend_part_of(k, q->topic, q->partition, true);
        if (!p) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a stream of %zu partitions", count);
        p->next = q->offset < 0 ? 0 : q->offset;
        look_at_range(k, p);
        if (p->log_start > p->next || (p->end >= 0 && p->next > p->end)) {
            p->failed = BW_ERR_OFFSET_OUT_OF_RANGE;
            snprintf(p->message, sizeof p->message, "the cluster has offsets %lld to %lld of topic '%s' partition %d, not %lld",
                     (long long)p->log_start, (long long)p->end, q->topic, q->partition, (long long)p->next);
            continue;
        }
        e = bw_consumer_assign(k->consumer, q->topic, q->partition, p->next);
        if (e == BW_ERR_UNKNOWN_TOPIC || e == BW_ERR_UNKNOWN_PARTITION || e == BW_ERR_NOT_PERMITTED) {
            p->failed = e == BW_ERR_NOT_PERMITTED ? e : BW_ERR_UNKNOWN_TOPIC;
            snprintf(p->message, sizeof p->message, "%s", bw_error_message());
            e = BW_OK;
        }
    }
    return e;
}

bw_err bw_kend_fetch(bw_endpoint *ep, bw_transfer *t, uint32_t max_bytes, int32_t max_wait_ms)
{
    bw_kend_transfer *x;
    bw_err e = bw_kend_submit(bw_kend_of(ep), t, &x);
    if (e) return e;
    x->max_bytes = max_bytes;
    x->until = bw_deadline_in_ms(max_wait_ms);
    return BW_OK;
}

/* ---- chunks ---- */

static bw_piece *new_piece(bw_kend *k, bw_kend_part *p)
{
    if (k->piece_count == k->piece_cap) {
        size_t cap = k->piece_cap ? 2 * k->piece_cap : 16;
        bw_piece *more = realloc(k->pieces, cap * sizeof *more);
        if (!more) return NULL;
        k->pieces = more;
        k->piece_cap = cap;
    }
    bw_piece *piece = &k->pieces[k->piece_count++];
    *piece = (bw_piece){.id = bw_kend_topic_id(k, p->key.topic), .partition = p->key.partition, .offset = p->next, .next = p->next, .base = -1,
                        .epoch = -1, .log_start = p->log_start, .end = p->end, .incarnation = k->self.incarnation, .timestamp = -1};
    memcpy(piece->topic, p->key.topic, sizeof piece->topic);
    return piece;
}

static bool matches(const bw_link_spec *s, const bw_record_view *r)
{
    size_t prefix = s->key_prefix ? strlen(s->key_prefix) : 0;
    if (s->key_prefix && (!r->key || r->key_len < prefix || memcmp(r->key, s->key_prefix, prefix))) return false;
    if (!s->header) return true;
    bw_header_iter it;
    bw_header h;
    bw_header_iter_init(&it, r);
    while (bw_header_iter_next(&it, &h) == 1) {
        if (h.name_len != strlen(s->header) || memcmp(h.name, s->header, h.name_len)) continue;
        if (!s->header_value) return true;
        if (h.value && h.value_len == strlen(s->header_value) && !memcmp(h.value, s->header_value, h.value_len)) return true;
    }
    return false;
}

/* What the builder has becomes a batch at the offset. */
static bw_err close_batch(bw_kend *k, int64_t base, bw_piece *piece)
{
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    uint8_t *batch;
    size_t len;
    if (k->builder.count == 0) return BW_OK;
    if (k->base.spec->mode == BW_LINK_MERGE) o.base_sequence = BW_MERGE_SEQUENCE;
    if (k->builder.max_timestamp > piece->timestamp) piece->timestamp = k->builder.max_timestamp;
    bw_err e = bw_batch_builder_finish(&k->builder, &o, &batch, &len);
    if (e) return e;
    bw_batch_patch(batch, base, 0);
    e = bw_buf_append(&k->payload, batch, len);
    if (!e) piece->size += (uint32_t)len;
    bw_batch_builder_reset(&k->builder);
    return e;
}

static bw_err add_records(bw_kend *k, bw_batch *b, bw_piece *piece)
{
    bw_header headers[BW_KEND_HEADERS_MAX];
    bw_record_view r;
    int64_t base = -1;
    bw_err e = BW_OK;
    int got = 0;
    bw_batch_builder_reset(&k->builder);
    while (!e && (got = bw_batch_next(b, &r)) == 1) {
        bw_record record;
        bool full = k->builder.count && (r.offset != base + k->builder.count || bw_batch_builder_size(&k->builder) > BATCH_BYTES);
        if (full) e = close_batch(k, base, piece);
        if (e || !matches(k->base.spec, &r)) continue;
        e = bw_record_from_view(&r, headers, BW_KEND_HEADERS_MAX, &record);
        if (e) return bw_error_context(e, "topic '%s' partition %d", piece->topic, piece->partition);
        if (r.timestamp_ms < 0) record.timestamp_ms = 0;
        if (k->builder.count == 0) base = r.offset;
        e = bw_batch_builder_add(&k->builder, &record);
    }
    if (got < 0) e = bw_fail(BW_ERR_CORRUPT, "topic '%s' partition %d: records that can't be read", piece->topic, piece->partition);
    return e ? e : close_batch(k, base, piece);
}

static void tell_error(bw_kend *k, bw_kend_part *p, bw_err e, const char *message)
{
    bw_piece *piece = new_piece(k, p);
    if (!piece) return;
    piece->error = e;
    snprintf(piece->message, sizeof piece->message, "%s", message);
}

/* An error of one partition, or (the result) of the whole. */
static bw_err poll_failed(bw_kend *k, const bw_batch *b, bw_err e)
{
    bw_kend_part *p = b->topic ? bw_kend_part_of(k, b->topic, b->partition, false) : NULL;
    if (!p) return e;
    p->end_ns = 0;
    look_at_range(k, p);
    tell_error(k, p, e == BW_ERR_DELETED ? BW_ERR_UNKNOWN_TOPIC : e, bw_error_message());
    return BW_OK;
}

/* Ends of transactions and what was aborted are passed, too. */
static void pass_over(bw_kend *k)
{
    for (bw_kend_part *p = k->parts; p; p = p->hh.next) {
        int64_t at;
        if (p->failed || bw_consumer_position(k->consumer, p->key.topic, p->key.partition, &at) || at <= p->next) continue;
        bw_piece *piece = new_piece(k, p);
        if (!piece) return;
        piece->next = p->next = at;
        if (at > piece->end) piece->end = p->end = at;
    }
}

static bw_err gather(bw_kend *k, uint32_t max_bytes)
{
    bw_err e = BW_OK;
    while (!e && k->payload.len < max_bytes) {
        bw_batch b;
        e = bw_consumer_poll(k->consumer, 0, &b);
        if (e == BW_ERR_TIMED_OUT) {
            pass_over(k);
            return BW_OK;
        }
        if (e) {
            e = poll_failed(k, &b, e);
            continue;
        }
        bw_kend_part *p = bw_kend_part_of(k, b.topic, b.partition, false);
        if (!p) continue;
        look_at_range(k, p);
        bw_piece *piece = new_piece(k, p);
        if (!piece) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a chunk");
        e = add_records(k, &b, piece);
        piece->next = p->next = b.last_offset + 1;
        if (piece->next > piece->end) piece->end = p->end = piece->next;
        int64_t behind = piece->end - piece->next, count = b.count ? b.count : 1;
        piece->left = (uint64_t)(behind * (int64_t)piece->size / count);
    }
    return e;
}

bool bw_kend_give(bw_kend *k)
{
    bw_kend_transfer *x = k->transfers;
    if (!x || !k->consumer) return false;
    k->payload.len = 0;
    k->piece_count = 0;
    for (bw_kend_part *p = k->parts; p; p = p->hh.next) {
        if (!p->failed || p->end_ns < 0) continue;
        tell_error(k, p, p->failed, p->message);
        p->end_ns = -1; /* told */
    }
    bw_err e = gather(k, x->max_bytes);
    if (e) {
        k->lost = true;
        bw_kend_finish(k, bw_err_is_retriable(e) ? BW_ERR_NOT_CONNECTED : e, NULL);
        return true;
    }
    bool changed = bw_kend_topics_changed(k);
    if (k->piece_count == 0 && !changed && bw_deadline_left_ns(x->until) > 0) return false;
    bw_chunk chunk = {.pieces = k->pieces, .count = k->piece_count, .codec = BW_CODEC_NONE, .plain = (uint32_t)k->payload.len,
                      .payload = k->payload.data, .len = k->payload.len, .changed = changed};
    bw_kend_finish(k, BW_OK, &chunk);
    return true;
}
