/* format/batch_filter.c: see batch_filter.h.
 *
 * Kept records are copied as they are encoded, because neither the base offset nor the base timestamp changes; only a new delete horizon,
 * which takes the base timestamp's place, has their timestamp deltas written anew. */
#include "format/batch_filter.h"

#include "base/err.h"
#include "format/codec.h"
#include "format/record_encode.h"

void bw_batch_filter_fini(bw_batch_filter *f)
{
    bw_buf_free(&f->plain);
    bw_buf_free(&f->kept);
    bw_buf_free(&f->out);
}

/* The record section, plain. */
static bw_err plain_records(const uint8_t *batch, const bw_batch_header *h, size_t max_plain, bw_buf *plain, const uint8_t **records,
                            size_t *len)
{
    *records = batch + BW_BATCH_HEADER_BYTES;
    *len = bw_batch_size(h) - BW_BATCH_HEADER_BYTES;
    bw_codec codec = (bw_codec)(h->attributes & BW_ATTR_CODEC_MASK);
    if (codec == BW_CODEC_NONE || *len == 0) return BW_OK;
    plain->len = 0;
    bw_err e = bw_codec_decompress(codec, *records, *len, max_plain, plain);
    *records = plain->data;
    *len = plain->len;
    return e ? bw_error_context(e, "batch at offset %lld", (long long)h->base_offset) : BW_OK;
}

bw_err bw_batch_each(const uint8_t *batch, const bw_batch_header *h, size_t max_plain, bw_buf *plain, bw_record_fn fn, void *opaque)
{
    const uint8_t *records;
    size_t len;
    bw_err e = plain_records(batch, h, max_plain, plain, &records, &len);
    if (e) return e;
    bw_record_iter it;
    bw_record_view r;
    int more;
    bw_record_iter_init(&it, h, records, len);
    while ((more = bw_record_iter_next(&it, &r)) == 1)
        if (!fn(opaque, &r)) return BW_OK;
    return more < 0 ? BW_ERR_CORRUPT : BW_OK;
}

static bool has_key(void *opaque, const bw_record_view *r)
{
    int64_t *missing = opaque;
    if (!r->key) *missing = r->offset;
    return r->key != NULL;
}

bw_err bw_batch_check_keys(const uint8_t *batch, const bw_batch_header *h, size_t max_plain)
{
    bw_buf plain = {0};
    int64_t missing = -1;
    bw_err e = bw_batch_each(batch, h, max_plain, &plain, has_key, &missing);
    bw_buf_free(&plain);
    if (!e && missing >= 0)
        e = bw_fail(BW_ERR_INVALID_RECORD, "record %lld of the batch has no key; a compacted topic keeps the last value of each key, so "
                    "every record needs one", (long long)(missing - h->base_offset));
    return e;
}

/* One record with its timestamp as a delta to another base. */
static bw_err put_rebased(bw_buf *out, const bw_record_view *r, int64_t base_offset, int64_t base_timestamp)
{
    uint64_t timestamp = bw_zigzag64((int64_t)((uint64_t)r->timestamp_ms - (uint64_t)base_timestamp));
    uint32_t offset = (uint32_t)(r->offset - base_offset) << 1;
    size_t headers = bw_varint_size_fast(r->header_count << 1) + r->headers_len;
    size_t body = 1 + bw_varlong_size_fast(timestamp) + bw_varint_size_fast(offset) + bw_field_size(r->key, r->key_len) +
                  bw_field_size(r->value, r->value_len) + headers;
    if (body > INT32_MAX / 2) return bw_fail(BW_ERR_RECORD_TOO_LARGE, "the record at offset %lld is too long", (long long)r->offset);
    bw_err e = bw_buf_reserve(out, BW_RECORD_LENGTH_MAX + body);
    if (e) return e;
    uint8_t *p = out->data + out->len;
    p = bw_varint_write(p, (uint64_t)body << 1);
    *p++ = 0; /* attributes */
    p = bw_varint_write(p, timestamp);
    p = bw_varint_write(p, offset);
    p = bw_field_write(p, r->key, r->key_len);
    p = bw_field_write(p, r->value, r->value_len);
    p = bw_varint_write(p, (uint64_t)r->header_count << 1);
    if (r->headers_len) memcpy(p, r->headers_raw, r->headers_len);
    p += r->headers_len;
    out->len = (size_t)(p - out->data);
    return BW_OK;
}

/* The kept records, written anew with `horizon` as base. They are in f->kept, encoded against the old base; they end up there again. */
static bw_err rebase(bw_batch_filter *f, const bw_batch_header *h, int64_t horizon)
{
    bw_batch_header kept = *h;
    kept.record_count = (int32_t)f->records_kept;
    bw_record_iter it;
    bw_record_view r;
    int more;
    bw_err e = BW_OK;
    f->out.len = 0;
    bw_record_iter_init(&it, &kept, f->kept.data, f->kept.len);
    while (!e && (more = bw_record_iter_next(&it, &r)) == 1) e = put_rebased(&f->out, &r, h->base_offset, horizon);
    if (!e && more < 0) return BW_ERR_CORRUPT;
    bw_buf swap = f->kept;
    f->kept = f->out;
    f->out = swap;
    return e;
}

/* Header and records (f->kept) as one batch in f->out. */
static bw_err assemble(bw_batch_filter *f, bw_batch_header *h, const uint8_t **out, size_t *len)
{
    bw_codec codec = (bw_codec)(h->attributes & BW_ATTR_CODEC_MASK);
    f->out.len = 0;
    bw_err e = bw_buf_reserve(&f->out, BW_BATCH_HEADER_BYTES);
    if (e) return e;
    f->out.len = BW_BATCH_HEADER_BYTES;
    if (h->record_count > 0) e = bw_codec_compress(codec, f->kept.data, f->kept.len, &f->out);
    if (e) return e;
    if (f->out.len > INT32_MAX)
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "the batch at offset %lld has %zu bytes", (long long)h->base_offset, f->out.len);
    h->batch_length = (int32_t)(f->out.len - 12);
    bw_batch_header_encode(f->out.data, h);
    *out = f->out.data;
    *len = f->out.len;
    return BW_OK;
}

bw_err bw_batch_filter_empty(bw_batch_filter *f, const bw_batch_header *h, const uint8_t **out, size_t *len)
{
    bw_batch_header empty = *h;
    empty.attributes = (int16_t)(h->attributes & ~(BW_ATTR_CODEC_MASK | BW_ATTR_DELETE_HORIZON));
    empty.base_timestamp = h->max_timestamp;
    empty.record_count = 0;
    f->kept.len = 0;
    f->horizon_set = false;
    return assemble(f, &empty, out, len);
}

typedef struct pass {
    bw_batch_filter *f;
    int64_t newest;
    bool tombstone;
} pass;

/* Copies what stays to f->kept. */
static bw_err sift(pass *p, const bw_batch_header *h, const uint8_t *records, size_t len, bw_filter_fn fn, void *opaque)
{
    bw_batch_filter *f = p->f;
    bw_record_iter it;
    bw_record_view r;
    int more;
    bw_err e = BW_OK;
    f->kept.len = 0;
    bw_record_iter_init(&it, h, records, len);
    for (;;) {
        const uint8_t *from = it.at.at;
        more = bw_record_iter_next(&it, &r);
        if (more != 1) break;
        f->records++;
        bw_filter_verdict v = fn ? fn(opaque, &r) : BW_FILTER_KEEP;
        if (v == BW_FILTER_DROP) continue;
        if ((e = bw_buf_append(&f->kept, from, (size_t)(it.at.at - from)))) return e;
        f->records_kept++;
        p->tombstone |= v == BW_FILTER_KEEP_TOMBSTONE;
        if (r.timestamp_ms > p->newest) p->newest = r.timestamp_ms;
    }
    return more < 0 ? BW_ERR_CORRUPT : BW_OK;
}

static bw_err run(pass *p, const uint8_t *batch, const bw_batch_header *h, size_t max_plain, int64_t horizon, bw_filter_fn fn, void *opaque,
                  const uint8_t **out, size_t *len)
{
    bw_batch_filter *f = p->f;
    const uint8_t *records;
    size_t bytes;
    f->records = f->records_kept = 0;
    f->horizon_set = false;
    bw_err e = plain_records(batch, h, max_plain, &f->plain, &records, &bytes);
    if (!e) e = sift(p, h, records, bytes, fn, opaque);
    if (e) return e;
    bool set = p->tombstone && !(h->attributes & BW_ATTR_DELETE_HORIZON);
    if (f->records_kept == f->records && !set) {
        *out = batch;
        *len = bw_batch_size(h);
        return BW_OK;
    }
    if (f->records_kept == 0) return bw_batch_filter_empty(f, h, out, len);
    bw_batch_header fresh = *h;
    fresh.record_count = (int32_t)f->records_kept;
    if (!(h->attributes & BW_ATTR_LOG_APPEND_TIME)) fresh.max_timestamp = p->newest;
    if (set) {
        if ((e = rebase(f, h, horizon))) return e;
        fresh.attributes = (int16_t)(fresh.attributes | BW_ATTR_DELETE_HORIZON);
        fresh.base_timestamp = horizon;
        f->horizon_set = true;
    }
    return assemble(f, &fresh, out, len);
}

bw_err bw_batch_filter_run(bw_batch_filter *f, const uint8_t *batch, const bw_batch_header *h, size_t max_plain, int64_t horizon,
                           bw_filter_fn fn, void *opaque, const uint8_t **out, size_t *len)
{
    pass p = {.f = f, .newest = INT64_MIN};
    return run(&p, batch, h, max_plain, horizon, fn, opaque, out, len);
}

bw_err bw_batch_filter_horizon(bw_batch_filter *f, const uint8_t *batch, const bw_batch_header *h, int64_t horizon, const uint8_t **out,
                               size_t *len)
{
    pass p = {.f = f, .newest = INT64_MIN, .tombstone = true};
    return run(&p, batch, h, bw_batch_size(h), horizon, NULL, NULL, out, len);
}
