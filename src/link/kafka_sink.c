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

enum { PLAIN_MAX = 64 << 20, COMMIT_MS = 60000, ABORT_MS = 20000, SEND_MS = 60000, TXN_MS = 60000 };

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
    if (!e) e = bw_transactions_init(k->producer, bw_kend_left_ms(deadline));
    return e ? bw_error_context(e, "transactional id '%s'", k->group) : BW_OK;
}

/* ---- appending ---- */

struct sending {
    bw_kend *k;
    bw_kend_part *p;
    bool merged; /* the batch was written by a merge: its marks count */
    bw_err error;
    bw_header headers[BW_KEND_HEADERS_MAX + 1];
};

static void delivered(void *opaque, const bw_delivery *d)
{
    bw_kend_part *p = opaque;
    if (!d->error || p->failed) return;
    p->failed = d->error;
    snprintf(p->message, sizeof p->message, "%s", d->message ? d->message : bw_err_text(d->error));
}

/* What is of another way, or somebody's own, goes; does an origin stay? */
static bool drop_marks(bw_header *headers, size_t *count, bool merged)
{
    bool marked = false;
    size_t n = 0;
    for (size_t i = 0; i < *count; i++) {
        const bw_header *h = &headers[i];
        bool is_link = h->name_len == sizeof BW_KEND_LINK_HEADER - 1 && !memcmp(h->name, BW_KEND_LINK_HEADER, h->name_len);
        bool is_origin = h->name_len == sizeof BW_ORIGIN_HEADER - 1 && !memcmp(h->name, BW_ORIGIN_HEADER, h->name_len);
        if (is_link || (is_origin && !merged)) continue;
        marked |= is_origin;
        headers[n++] = *h;
    }
    *count = n;
    return marked;
}

static bool send(void *opaque, const bw_record_view *r)
{
    struct sending *s = opaque;
    char text[BW_MARK_TEXT_MAX];
    bw_record record;
    if (r->offset < s->p->next) return true; /* a batch that the position is within */
    s->error = bw_record_from_view(r, s->headers, BW_KEND_HEADERS_MAX, &record);
    if (s->error) {
        s->error = bw_error_context(s->error, "topic '%s' partition %d", s->p->key.topic, s->p->key.partition);
        return false;
    }
    bool marked = drop_marks(s->headers, &record.header_count, s->merged);
    bw_mark mark = {.log = {.origin = s->k->other.id, .incarnation = s->k->other.incarnation, .topic = s->p->id, .partition = s->p->key.partition},
                    .offset = r->offset};
    size_t len = bw_mark_print(&mark, text);
    s->headers[record.header_count++] = marked ? (bw_header){BW_KEND_LINK_HEADER, sizeof BW_KEND_LINK_HEADER - 1, text, len}
                                               : (bw_header){BW_ORIGIN_HEADER, sizeof BW_ORIGIN_HEADER - 1, text, len};
    if (r->timestamp_ms < 1) record.timestamp_ms = 1;
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
