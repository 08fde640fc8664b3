/* broker/link_encode.c: the records of a source's batches as a merge stores them: those that are new, each with its mark (vector.h). Pure.
 *
 * A batch becomes a batch, with the same codec and timestamps, without producer id (it was deduplicated by its mark, not by a sequence) and
 * with base sequence BW_MERGE_SEQUENCE. Control batches are left out; the source gives none of aborted transactions. */
#include "broker/links.h"

#include "format/batch_filter.h"

#include <stdlib.h>

enum { HEADERS_MAX = 1024 };

struct encoder {
    const bw_merge_input *in;
    bw_vector *v;
    bw_batch_builder builder;
    bw_header headers[HEADERS_MAX + 1];
    bool trusted; /* the batch was written by a merge: so were its marks */
    bw_err error;
};

/* The mark that a record brings; false: none. With build: its headers are copied to x->headers, but for that one. */
static bool read_headers(const bw_record_view *r, bw_header *headers, size_t *count, bw_mark *mark, bool *broken)
{
    bw_header_iter it;
    bw_header h;
    bool marked = false;
    size_t n = 0;
    int got;
    bw_header_iter_init(&it, r);
    while ((got = bw_header_iter_next(&it, &h)) == 1) {
        if (h.name_len == sizeof BW_ORIGIN_HEADER - 1 && !memcmp(h.name, BW_ORIGIN_HEADER, h.name_len) &&
            bw_mark_parse(h.value, h.value_len, mark)) {
            marked = true;
            continue;
        }
        if (headers && n < HEADERS_MAX) headers[n] = h;
        n++;
    }
    *broken = got < 0 || n > HEADERS_MAX;
    if (count) *count = n;
    return marked;
}

static bool add(void *opaque, const bw_record_view *r)
{
    struct encoder *x = opaque;
    bw_mark mark;
    size_t count;
    bool broken;
    char text[BW_MARK_TEXT_MAX];
    bool marked = read_headers(r, x->headers, &count, &mark, &broken);
    if (broken) {
        x->error = bw_fail(BW_ERR_CORRUPT, "record %lld: its headers can't be read, or are more than %d", (long long)r->offset, HEADERS_MAX);
        return false;
    }
    if (!marked || !x->trusted) mark = (bw_mark){x->in->source, r->offset};
    if (bw_uuid_equal(&mark.log.origin, &x->in->own)) return true; /* it was written here: come round */
    if (mark.offset < bw_vector_next(x->v, BW_VECTOR_RECORDS, &mark.log)) return true;
    size_t len = bw_mark_print(&mark, text);
    x->headers[count++] = (bw_header){BW_ORIGIN_HEADER, sizeof BW_ORIGIN_HEADER - 1, text, len};
    bw_record record = {.key = r->key, .key_len = r->key_len, .value = r->value, .value_len = r->value_len, .headers = x->headers,
                        .header_count = count, .timestamp_ms = r->timestamp_ms < 0 ? 0 : r->timestamp_ms};
    if (!(x->error = bw_batch_builder_add(&x->builder, &record)))
        x->error = bw_vector_raise(x->v, BW_VECTOR_RECORDS, &mark.log, mark.offset + 1);
    return !x->error;
}

static bw_err finish(struct encoder *x, const bw_batch_header *h, bw_merged *out)
{
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    uint8_t *batch;
    o.codec = (bw_codec)(h->attributes & BW_ATTR_CODEC_MASK);
    o.base_sequence = BW_MERGE_SEQUENCE;
    bw_err e = bw_batch_builder_finish(&x->builder, &o, &batch, &out->len);
    if (e) return e;
    if (!(out->batch = malloc(out->len))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a batch of %zu bytes", out->len);
    memcpy(out->batch, batch, out->len);
    out->count = x->builder.count;
    out->max_timestamp = x->builder.max_timestamp;
    return BW_OK;
}

void bw_merged_free(bw_merged *list, size_t count)
{
    for (size_t i = 0; list && i < count; i++) free(list[i].batch);
    free(list);
}

static bw_err encode_batch(struct encoder *x, const uint8_t *data, const bw_batch_header *h, bw_buf *plain, bw_merged *out, size_t *n)
{
    bw_batch_builder_reset(&x->builder);
    bw_err e = bw_batch_each(data, h, x->in->max_plain, plain, add, x);
    if (!e) e = x->error;
    if (e || x->builder.count == 0) return e;
    e = finish(x, h, &out[*n]);
    *n += !e;
    return e;
}

bw_err bw_merge_encode(const bw_merge_input *in, bw_vector *v, bw_merged **out, size_t *count)
{
    size_t batches = 0, n = 0, at;
    bw_batch_header h;
    bw_err e = BW_OK;
    *out = NULL;
    *count = 0;
    for (at = 0; !e && at < in->len; at += e ? 0 : bw_batch_size(&h), batches++) {
        e = bw_batch_header_decode(in->data + at, in->len - at, false, &h);
        if (e) return e == BW_ERR_EMPTY ? bw_fail(BW_ERR_CORRUPT, "what a link brought does not end with a batch") : e;
    }
    struct encoder *x = calloc(1, sizeof *x);
    bw_merged *list = calloc(batches ? batches : 1, sizeof *list);
    if (!x || !list) e = bw_fail(BW_ERR_NO_MEMORY, "no memory to merge %zu batches", batches);
    bw_buf plain = {0};
    if (!e) {
        *x = (struct encoder){.in = in, .v = v};
        bw_batch_builder_init(&x->builder);
    }
    for (at = 0; !e && at < in->len; at += bw_batch_size(&h)) {
        (void)bw_batch_header_decode(in->data + at, in->len - at, false, &h);
        if (h.attributes & BW_ATTR_CONTROL) continue;
        x->trusted = h.base_sequence == BW_MERGE_SEQUENCE && h.producer_id < 0;
        e = encode_batch(x, in->data + at, &h, &plain, list, &n);
    }
    bw_buf_free(&plain);
    if (x && x->in) bw_batch_builder_fini(&x->builder);
    free(x);
    if (e) bw_merged_free(list, n);
    else {
        *out = list;
        *count = n;
    }
    return e;
}

/* ---- what a batch of the log says ---- */

struct noter {
    bw_vector *v;
    bw_err error;
};

static bool note(void *opaque, const bw_record_view *r)
{
    struct noter *x = opaque;
    bw_mark mark;
    bool broken;
    if (read_headers(r, NULL, NULL, &mark, &broken)) x->error = bw_vector_raise(x->v, BW_VECTOR_RECORDS, &mark.log, mark.offset + 1);
    return !x->error;
}

bw_err bw_merge_note(const uint8_t *batch, const bw_batch_header *h, size_t max_plain, bw_buf *plain, bw_vector *v)
{
    struct noter x = {v, BW_OK};
    bw_err e = bw_batch_each(batch, h, max_plain, plain, note, &x);
    return e ? e : x.error;
}
