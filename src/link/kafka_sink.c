/* link/kafka_sink.c: records up to a cluster. See kafka.h for why nothing is there twice.
 *
 * append hands the records to the producer, within a transaction that the first one begins; the next wait of the link's thread adds the
 * positions and commits, for all chunks that came meanwhile. After any failure the transaction is aborted and positions are read anew.
 * Each record has the header busway.origin: where it was written first. One that came from another bus has it already, and has
 * busway.link for this link's own source. */
#include "link/kafka.h"

#include "base/killpoint.h"
#include "broker/links.h"
#include "format/batch_filter.h"
#include "format/codec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINK_HEADER "busway.link"
enum { HEADERS_MAX = 1024, PLAIN_MAX = 64 << 20, COMMIT_MS = 60000, ABORT_MS = 20000, SEND_MS = 60000, TXN_MS = 60000, LOOK_BACK = 256 };

static int32_t left_ms(bw_deadline deadline)
{
    int64_t ms = bw_deadline_left_ns(deadline) / 1000000;
    return ms < 1 ? 1 : ms > 60000 ? 60000 : (int32_t)ms;
}

/* ---- beginning ---- */

bw_err bw_kend_start_sink(bw_kend *k, bw_deadline deadline)
{
    char origin[33];
    for (int i = 0; i < 16; i++) snprintf(origin + 2 * i, 3, "%02x", k->other.id.b[i]);
    snprintf(k->group, sizeof k->group, "busway.link.%s.%s", k->base.spec->name, origin);
    bw_producer_options po = BW_PRODUCER_OPTIONS_INIT;
    po.transactional_id = k->group;
    po.transaction_timeout_ms = TXN_MS;
    po.batch_size = 1 << 20;
    po.linger_ms = 5;
    po.buffer_memory = 64 << 20;
    po.compression = k->base.spec->codec;
    bw_consumer_options co = BW_CONSUMER_OPTIONS_INIT;
    co.group_id = k->group;
    co.enable_auto_commit = false;
    co.isolation = BW_READ_COMMITTED; /* committed offsets of a transaction that is being ended are waited for */
    bw_err e = bw_producer_open(k->bus, &po, &k->producer);
    if (!e) e = bw_consumer_open(k->bus, &co, &k->consumer);
    if (!e) e = bw_transactions_init(k->producer, left_ms(deadline));
    return e ? bw_error_context(e, "transactional id '%s'", k->group) : BW_OK;
}

/* ---- where a partition goes on ---- */

/* The mark of this link's source in a record's headers. */
static bool find_mark(const bw_kend *k, const bw_record_view *r, const bw_uuid *topic, int32_t partition, int64_t *next)
{
    bw_header_iter it;
    bw_header h;
    bw_mark mark;
    bool found = false;
    bw_header_iter_init(&it, r);
    while (bw_header_iter_next(&it, &h) == 1) {
        bool ours = (h.name_len == sizeof BW_ORIGIN_HEADER - 1 && !memcmp(h.name, BW_ORIGIN_HEADER, h.name_len)) ||
                    (h.name_len == sizeof LINK_HEADER - 1 && !memcmp(h.name, LINK_HEADER, h.name_len));
        if (!ours || !h.value || !bw_mark_parse(h.value, h.value_len, &mark)) continue;
        if (!bw_uuid_equal(&mark.log.origin, &k->other.id) || !bw_uuid_equal(&mark.log.topic, topic) || mark.log.partition != partition) continue;
        *next = mark.offset + 1;
        found = true;
    }
    return found;
}

/* The last of the partition's committed records with this link's mark: from the end backwards, twice as far each time. */
static bw_err look_back(bw_kend *k, const char *target, int32_t partition, const bw_uuid *topic, int64_t *next, bw_deadline deadline)
{
    bw_offset_range range;
    bw_consumer *c = NULL;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.isolation = BW_READ_COMMITTED;
    *next = 0;
    bw_err e = bw_offsets_range(k->bus, target, partition, &range);
    if (e || range.end == range.log_start) return e;
    e = bw_consumer_open(k->bus, &o, &c);
    bool found = false;
    for (int64_t back = LOOK_BACK; !e && !found; back *= 2) {
        int64_t from = range.end - back > range.log_start ? range.end - back : range.log_start, at = from;
        e = bw_consumer_assign(c, target, partition, from);
        while (!e && at < range.end) {
            bw_batch b;
            bw_record_view r;
            e = bw_consumer_poll(c, 100, &b);
            if (e == BW_ERR_TIMED_OUT && bw_deadline_left_ns(deadline) > 0) {
                e = bw_consumer_position(c, target, partition, &at); /* what is left are ends of transactions */
                continue;
            }
            while (!e && bw_batch_next(&b, &r) == 1) found |= find_mark(k, &r, topic, partition, next);
            if (!e) at = b.last_offset + 1;
        }
        if (from == range.log_start) break;
    }
    bw_consumer_close(c);
    return e;
}

/* The topic of the same name, with as many partitions; made when it is not there. */
static bw_err make_target(bw_kend *k, const char *target, int32_t partitions, const bw_config_pair *configs, size_t count)
{
    int32_t have = 0;
    bw_err e = bw_topic_partitions(k->bus, target, &have);
    if (e == BW_ERR_UNKNOWN_TOPIC) {
        bw_config_entry *entries = calloc(count + 1, sizeof *entries);
        bw_buf texts = {0};
        e = entries ? bw_buf_reserve(&texts, 1) : BW_ERR_NO_MEMORY;
        size_t bytes = 0;
        for (size_t i = 0; i < count; i++) bytes += configs[i].name.len + configs[i].value.len + 2;
        if (!e) e = bw_buf_reserve(&texts, bytes + 1); /* pointers into it stay */
        for (size_t i = 0; i < count && !e; i++) {
            entries[i].name = (const char *)texts.data + texts.len;
            e = bw_buf_append(&texts, configs[i].name.data, configs[i].name.len);
            if (!e) e = bw_buf_append(&texts, "", 1);
            entries[i].value = (const char *)texts.data + texts.len;
            if (!e) e = bw_buf_append(&texts, configs[i].value.data, configs[i].value.len);
            if (!e) e = bw_buf_append(&texts, "", 1);
        }
        if (!e) e = bw_topic_create(k->bus, target, partitions, entries, count);
        else e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a topic's configuration");
        bw_buf_free(&texts);
        free(entries);
        if (e == BW_OK || e == BW_ERR_TOPIC_EXISTS) e = bw_topic_partitions(k->bus, target, &have);
    }
    if (!e && have < partitions)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "the cluster's topic '%s' has %d partitions, its source %d: give it more", target, have, partitions);
    return e;
}

bw_err bw_kend_prepare(bw_endpoint *ep, const char *target, const bw_source_topic *from, const bw_origin *origin, const bw_config_pair *configs,
                       size_t config_count, bw_sink_part **parts, bw_deadline deadline)
{
    bw_kend *k = bw_kend_of(ep);
    size_t n = (size_t)from->partitions;
    (void)origin;
    *parts = calloc(n, sizeof **parts);
    bw_topic_partition *asked = calloc(n, sizeof *asked);
    bw_err e = *parts && asked ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for positions");
    if (!e) e = make_target(k, target, from->partitions, configs, config_count);
    for (size_t i = 0; i < n && !e; i++) asked[i] = (bw_topic_partition){.topic = target, .partition = (int32_t)i, .leader_epoch = -1};
    if (!e) e = bw_consumer_committed(k->consumer, asked, n, left_ms(deadline));
    for (size_t i = 0; i < n && !e; i++) {
        int64_t next = asked[i].offset;
        if (asked[i].error) e = bw_fail(asked[i].error, "the link's own position in topic '%s' partition %zu", target, i);
        else if (next < 0) e = look_back(k, target, (int32_t)i, &from->id, &next, deadline);
        bw_kend_part *p = e ? NULL : bw_kend_part_of(k, target, (int32_t)i, true);
        if (!e && !p) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for positions");
        if (e) break;
        p->next = p->committed = next;
        p->id = from->id;
        p->failed = BW_OK;
        (*parts)[i] = (bw_sink_part){next, -1, -1, 0};
    }
    free(asked);
    if (e) {
        free(*parts);
        *parts = NULL;
    }
    return e;
}

/* ---- appending ---- */

struct sending {
    bw_kend *k;
    bw_kend_part *p;
    bool merged; /* the batch was written by a merge: its marks count */
    bw_err error;
    bw_header headers[HEADERS_MAX + 2];
};

static void delivered(void *opaque, const bw_delivery *d)
{
    bw_kend_part *p = opaque;
    if (!d->error || p->failed) return;
    p->failed = d->error;
    snprintf(p->message, sizeof p->message, "%s", d->message ? d->message : bw_err_text(d->error));
}

static bool send(void *opaque, const bw_record_view *r)
{
    struct sending *s = opaque;
    bw_header_iter it;
    char text[BW_MARK_TEXT_MAX];
    bool marked = false;
    size_t n = 0;
    int got;
    if (r->offset < s->p->next) return true; /* a batch that the position is within */
    bw_header_iter_init(&it, r);
    while (n < HEADERS_MAX && (got = bw_header_iter_next(&it, &s->headers[n])) == 1) {
        const bw_header *h = &s->headers[n];
        bool is_link = h->name_len == sizeof LINK_HEADER - 1 && !memcmp(h->name, LINK_HEADER, h->name_len);
        bool is_origin = h->name_len == sizeof BW_ORIGIN_HEADER - 1 && !memcmp(h->name, BW_ORIGIN_HEADER, h->name_len);
        if (is_link || (is_origin && !s->merged)) continue; /* of another way, or somebody's own */
        marked |= is_origin;
        n++;
    }
    if (n == HEADERS_MAX) {
        s->error = bw_fail(BW_ERR_INVALID_RECORD, "topic '%s' partition %d: offset %lld has %d headers or more", s->p->key.topic,
                           s->p->key.partition, (long long)r->offset, HEADERS_MAX);
        return false;
    }
    bw_mark mark = {.log = {.origin = s->k->other.id, .incarnation = s->k->other.incarnation, .topic = s->p->id, .partition = s->p->key.partition},
                    .offset = r->offset};
    size_t len = bw_mark_print(&mark, text);
    s->headers[n++] = marked ? (bw_header){LINK_HEADER, sizeof LINK_HEADER - 1, text, len}
                             : (bw_header){BW_ORIGIN_HEADER, sizeof BW_ORIGIN_HEADER - 1, text, len};
    bw_record record = {.key = r->key, .key_len = r->key_len, .value = r->value, .value_len = r->value_len, .headers = s->headers,
                        .header_count = n, .timestamp_ms = r->timestamp_ms < 1 ? 1 : r->timestamp_ms};
    s->error = bw_producer_send(s->k->producer, s->p->key.topic, s->p->key.partition, &record, delivered, s->p, SEND_MS);
    if (!s->error) s->p->next = r->offset + 1;
    return !s->error;
}

static bw_err send_piece(bw_kend *k, bw_kend_part *p, const bw_piece *piece, const uint8_t *data)
{
    struct sending s;
    s.k = k;
    s.p = p;
    s.error = BW_OK;
    for (size_t at = 0; at < piece->size;) {
        bw_batch_header h;
        bw_err e = bw_batch_header_decode(data + at, piece->size - at, false, &h);
        if (!e && !bw_batch_crc_ok(data + at, bw_batch_size(&h))) e = bw_fail(BW_ERR_CORRUPT, "wrong checksum");
        s.merged = !e && h.producer_id < 0 && h.base_sequence == BW_MERGE_SEQUENCE;
        if (!e && !(h.attributes & BW_ATTR_CONTROL)) e = bw_batch_each(data + at, &h, PLAIN_MAX, &k->records, send, &s);
        if (e || s.error) return e ? e : s.error;
        at += bw_batch_size(&h);
    }
    if (piece->next > p->next) p->next = piece->next;
    return BW_OK;
}

bw_err bw_kend_append(bw_endpoint *ep, const bw_chunk *chunk, bw_transfer *t)
{
    bw_kend *k = bw_kend_of(ep);
    bw_kend_transfer *x;
    bw_piece *pieces = malloc(chunk->count * sizeof *pieces);
    if (!pieces) return bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu parts", chunk->count);
    memcpy(pieces, chunk->pieces, chunk->count * sizeof *pieces);
    const uint8_t *data = chunk->payload;
    bw_err e = BW_OK;
    if (chunk->codec != BW_CODEC_NONE) {
        k->plain.len = 0;
        e = bw_codec_decompress(chunk->codec, chunk->payload, chunk->len, chunk->plain, &k->plain);
        data = k->plain.data;
    }
    if (!e && !k->open) {
        e = bw_transaction_begin(k->producer);
        k->open = !e;
    }
    if (!e) e = bw_kend_submit(k, t, &x);
    if (e) {
        free(pieces);
        return e;
    }
    x->chunk = (bw_chunk){.pieces = pieces, .count = chunk->count, .len = chunk->len};
    for (size_t i = 0, at = 0; i < chunk->count; at += pieces[i++].size) {
        bw_piece *piece = &pieces[i];
        bw_kend_part *p = bw_kend_part_of(k, piece->topic, piece->partition, false);
        if (!p) e = bw_fail(BW_ERR_UNKNOWN_TOPIC, "topic '%s' was not made ready", piece->topic);
        else if (p->failed || piece->offset != p->next)
            e = bw_fail(BW_ERR_OUT_OF_ORDER_SEQUENCE, "topic '%s' partition %d goes on at %lld", piece->topic, piece->partition, (long long)p->next);
        else if ((e = send_piece(k, p, piece, data + at))) delivered(p, &(bw_delivery){.error = e, .message = bw_error_message()});
        piece->error = e;
        if (e) snprintf(piece->message, sizeof piece->message, "%s", bw_error_message());
    }
    return BW_OK;
}

/* ---- committing ---- */

static bw_err send_positions(bw_kend *k)
{
    size_t n = 0;
    bw_topic_partition *parts = calloc(HASH_COUNT(k->parts) + 1, sizeof *parts);
    if (!parts) return bw_fail(BW_ERR_NO_MEMORY, "no memory for positions");
    for (const bw_kend_part *p = k->parts; p; p = p->hh.next)
        if (p->next != p->committed)
            parts[n++] = (bw_topic_partition){.topic = p->key.topic, .partition = p->key.partition, .offset = p->next, .leader_epoch = -1};
    bw_group_metadata who = {k->group, "", NULL, -1};
    bw_err e = n ? bw_transaction_send_offsets(k->producer, &who, parts, n, COMMIT_MS) : BW_OK;
    free(parts);
    return e;
}

static bool is_of_the_record(bw_err e)
{
    return e == BW_ERR_RECORD_TOO_LARGE || e == BW_ERR_INVALID_RECORD || e == BW_ERR_CORRUPT || e == BW_ERR_NOT_PERMITTED;
}

/* Nothing of it is there: whose record was refused stands still, the others begin anew where they were. */
static void fail_pieces(bw_kend *k)
{
    for (bw_kend_transfer *x = k->transfers; x; x = x->next)
        for (size_t i = 0; i < x->chunk.count; i++) {
            bw_piece *piece = &x->chunk.pieces[i];
            bw_kend_part *p = bw_kend_part_of(k, piece->topic, piece->partition, false);
            bool guilty = p && is_of_the_record(p->failed);
            piece->error = guilty ? p->failed : BW_ERR_OUT_OF_ORDER_SEQUENCE;
            if (p) piece->offset = p->committed;
            snprintf(piece->message, sizeof piece->message, "%s", guilty ? p->message : "the transaction was aborted");
        }
}

static bool has_guilty(const bw_kend *k)
{
    for (const bw_kend_part *p = k->parts; p; p = p->hh.next)
        if (is_of_the_record(p->failed)) return true;
    return false;
}

static bw_err commit(bw_kend *k)
{
    bw_err e = bw_producer_flush(k->producer, COMMIT_MS); /* its callbacks say whose record was refused */
    for (const bw_kend_part *p = k->parts; p && !e; p = p->hh.next)
        if (p->failed) e = bw_fail(p->failed, "%s", p->message);
    BW_KILL_POINT("kafka.sent");
    if (!e) e = send_positions(k);
    BW_KILL_POINT("kafka.positioned");
    if (!e) e = bw_transaction_commit(k->producer, COMMIT_MS);
    BW_KILL_POINT("kafka.committed");
    return e;
}

void bw_kend_commit(bw_kend *k)
{
    bw_err e = commit(k);
    k->open = false;
    char why[400];
    snprintf(why, sizeof why, "%s", bw_error_message());
    if (e && has_guilty(k) && bw_transaction_abort(k->producer, ABORT_MS) == BW_OK) {
        fail_pieces(k);
        for (bw_kend_part *p = k->parts; p; p = p->hh.next) {
            p->next = p->committed;
            p->failed = BW_OK;
        }
        e = BW_OK;
    } else if (!e) {
        for (bw_kend_part *p = k->parts; p; p = p->hh.next) p->committed = p->next;
    } else { /* what became of it the next connection finds out */
        k->lost = true;
        bool later = bw_err_is_retriable(e) || e == BW_ERR_TRANSACTION_ABORTABLE || e == BW_ERR_INVALID_PRODUCER_EPOCH;
        if (later) e = BW_ERR_NOT_CONNECTED;
    }
    while (k->transfers) {
        if (e) bw_error_set_message(e, why);
        bw_kend_finish(k, e, &k->transfers->chunk);
    }
}
