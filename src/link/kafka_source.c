/* link/kafka_source.c: records down from a cluster: what is committed, as batches at the cluster's offsets, without compression.
 *
 * Of a merge the batches say that a merge may trust the records' marks (busway.origin): what this bus once sent up does not come back.
 * A key prefix and a header are looked for here; what does not match leaves a gap in the offsets. */
#include "link/kafka.h"

#include "broker/links.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADERS_MAX = 4096, RANGE_NS_MS = 2000, LOOK_MS = 30000, BATCH_BYTES = 256 << 10 };

/* ---- topics ---- */

static uint64_t names_hash(const bw_backend_topic *list, size_t count)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t hash = 14695981039346656037u ^ (uint64_t)list[i].partitions;
        for (const char *c = list[i].name; *c; c++) hash = (hash ^ (uint8_t)*c) * 1099511628211u;
        sum += hash; /* in any order */
    }
    return sum;
}

bw_err bw_kend_list(bw_endpoint *ep, bw_source_topic **out, size_t *count, bw_deadline deadline)
{
    bw_kend *k = bw_kend_of(ep);
    bw_backend_topic *list = NULL;
    size_t n = 0;
    (void)deadline;
    *out = NULL;
    *count = 0;
    bw_err e = bw_cluster_topics(k->bus, &list, &n);
    if (!e && !(*out = calloc(n + 1, sizeof **out))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the list of topics");
    for (size_t i = 0; !e && i < n; i++) {
        bw_source_topic *to = &(*out)[*count];
        if (list[i].partitions > (int32_t)BW_PARTITIONS_MAX) continue;
        memcpy(to->name, list[i].name, sizeof to->name);
        to->id = bw_kend_topic_id(k, to->name);
        to->partitions = list[i].partitions;
        ++*count;
    }
    if (!e) k->topics_seen = names_hash(list, n);
    k->look_at = bw_deadline_in_ms(LOOK_MS);
    free(list);
    return e;
}

/* Of what a cluster says only what a bus knows too is passed on. */
static bool is_known(const char *name)
{
    static const char *const known[] = {"retention.ms", "retention.bytes", "cleanup.policy", "segment.bytes", "segment.ms", "max.message.bytes",
                                        "compression.type", "min.cleanable.dirty.ratio", "delete.retention.ms", "min.compaction.lag.ms",
                                        "max.compaction.lag.ms", "message.timestamp.type"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (!strcmp(known[i], name)) return true;
    return false;
}

bw_err bw_kend_configs(bw_endpoint *ep, const char *topic, bw_config_pair **out, size_t *count, bw_deadline deadline)
{
    bw_kend *k = bw_kend_of(ep);
    char *text = NULL;
    size_t n = 0, bytes = 0;
    const char *name;
    json_t *entry;
    (void)deadline;
    *out = NULL;
    *count = 0;
    bw_err e = bw_topics_describe(k->bus, topic, &text);
    if (e) return e;
    json_t *doc = json_loads(text, 0, NULL), *config = json_object_get(json_array_get(doc, 0), "config");
    bw_free(text);
    json_object_foreach(config, name, entry)
    {
        if (json_is_true(json_object_get(entry, "default")) || !json_is_string(json_object_get(entry, "value")) || !is_known(name)) continue;
        n++;
        bytes += strlen(name) + json_string_length(json_object_get(entry, "value"));
    }
    bw_config_pair *pairs = malloc(n * sizeof *pairs + bytes + 1);
    char *at = (char *)(pairs + n);
    if (!pairs) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a topic's configuration");
    if (!e) json_object_foreach(config, name, entry)
    {
        const json_t *value = json_object_get(entry, "value");
        if (json_is_true(json_object_get(entry, "default")) || !json_is_string(value) || !is_known(name)) continue;
        size_t name_len = strlen(name), len = json_string_length(value);
        pairs[(*count)++] = (bw_config_pair){{at, name_len}, {at + name_len, len}, true};
        memcpy(at, name, name_len);
        memcpy(at + name_len, json_string_value(value), len);
        at += name_len + len;
    }
    *out = pairs;
    json_decref(doc);
    return e;
}

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
    bw_header headers[HEADERS_MAX];
    bw_record_view r;
    int64_t base = -1;
    bw_err e = BW_OK;
    int got = 0;
    bw_batch_builder_reset(&k->builder);
    while (!e && (got = bw_batch_next(b, &r)) == 1) {
        bw_header_iter it;
        size_t n = 0;
        bool full = k->builder.count && (r.offset != base + k->builder.count || bw_batch_builder_size(&k->builder) > BATCH_BYTES);
        if (full) e = close_batch(k, base, piece);
        if (e || !matches(k->base.spec, &r)) continue;
        bw_header_iter_init(&it, &r);
        while (n < HEADERS_MAX && bw_header_iter_next(&it, &headers[n]) == 1) n++;
        if (n == HEADERS_MAX)
            return bw_fail(BW_ERR_INVALID_RECORD, "topic '%s' partition %d: offset %lld has %d headers or more", piece->topic, piece->partition,
                           (long long)r.offset, HEADERS_MAX);
        bw_record record = {r.key, r.key_len, r.value, r.value_len, headers, n, r.timestamp_ms < 0 ? 0 : r.timestamp_ms};
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

static bool topics_changed(bw_kend *k)
{
    bw_backend_topic *list = NULL;
    size_t count = 0;
    if (bw_deadline_left_ns(k->look_at) > 0) return false;
    k->look_at = bw_deadline_in_ms(LOOK_MS);
    bool changed = bw_cluster_topics(k->bus, &list, &count) == BW_OK && names_hash(list, count) != k->topics_seen;
    free(list);
    return changed;
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
    bool changed = topics_changed(k);
    if (k->piece_count == 0 && !changed && bw_deadline_left_ns(x->until) > 0) return false;
    bw_chunk chunk = {.pieces = k->pieces, .count = k->piece_count, .codec = BW_CODEC_NONE, .plain = (uint32_t)k->payload.len,
                      .payload = k->payload.data, .len = k->payload.len, .changed = changed};
    bw_kend_finish(k, BW_OK, &chunk);
    return true;
}
