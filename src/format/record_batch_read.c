/* format/record_batch_read.c: records of any shape, and the check of a whole batch. The hot path is format/record_decode.h.
 *
 * Invariants: a record's fields lie within its length, its length within the section; a failed iterator stays where it was, so
 * that it fails again. Lengths and counts are compared with what is left before they are used. */
#include "format/record_batch.h"

#include "base/err.h"
#include "format/codec.h"

void bw_record_iter_init(bw_record_iter *it, const bw_batch_header *h, const uint8_t *records, size_t len)
{
    it->at = bw_cursor_over(records, len);
    it->base_offset = h->base_offset;
    it->base_timestamp = h->base_timestamp;
    it->append_time = h->attributes & BW_ATTR_LOG_APPEND_TIME ? h->max_timestamp : BW_NO_TIMESTAMP;
    it->left = h->record_count;
}

static int iter_broken(const bw_record_iter *it, const char *what)
{
    bw_fail(BW_ERR_CORRUPT, "batch at offset %lld: %s (%d records before its end)", (long long)it->base_offset, what, it->left);
    return -1;
}

/* A length-prefixed field: -1 is null. false when it does not fit. */
static bool field_decode(bw_cursor *c, const uint8_t **data, uint32_t *len)
{
    int32_t n = bw_cursor_varint(c);
    if (c->bad || n < -1) return false;
    *len = n < 0 ? 0 : (uint32_t)n;
    *data = n < 0 ? NULL : bw_cursor_take(c, *len);
    return !c->bad;
}

int bw_record_iter_next_any(bw_record_iter *it, bw_record_view *out)
{
    if (it->left <= 0) return it->at.at == it->at.end ? 0 : iter_broken(it, "bytes are left over behind the last record");
    bw_cursor c = it->at;
    int32_t len = bw_cursor_varint(&c);
    if (c.bad || len < 0 || (size_t)len > bw_cursor_left(&c))
        return iter_broken(it, "a record's length passes the end of the batch");
    c.end = c.at + len;
    bw_cursor_u8(&c); /* attributes: Kafka defines none */
    int64_t timestamp_delta = bw_cursor_varlong(&c);
    int32_t offset_delta = bw_cursor_varint(&c);
    if (c.bad || offset_delta < 0) return iter_broken(it, "a record has a cut timestamp or a negative offset");
    bw_record_view v;
    if (!field_decode(&c, &v.key, &v.key_len)) return iter_broken(it, "a record's key passes its end");
    if (!field_decode(&c, &v.value, &v.value_len)) return iter_broken(it, "a record's value passes its end");
    int32_t headers = bw_cursor_varint(&c);
    size_t rest = bw_cursor_left(&c);
    if (c.bad || headers < 0 || (size_t)headers > rest / 2)
        return iter_broken(it, "a record announces more headers than it can hold");
    if (headers == 0 && rest > 0) return iter_broken(it, "a record has bytes behind its last field");
    v.header_count = (uint32_t)headers;
    v.headers_raw = c.at;
    v.headers_len = (uint32_t)rest;
    v.offset = (int64_t)((uint64_t)it->base_offset + (uint64_t)offset_delta);
    v.timestamp_ms = it->append_time != BW_NO_TIMESTAMP ? it->append_time
                                                        : (int64_t)((uint64_t)it->base_timestamp + (uint64_t)timestamp_delta);
    *out = v;
    it->at.at = c.end;
    it->left--;
    return 1;
}

static bool headers_ok(const bw_record_view *v)
{
    bw_header_iter it;
    bw_header h;
    bw_header_iter_init(&it, v);
    int more;
    do more = bw_header_iter_next(&it, &h);
    while (more > 0);
    return more == 0;
}

static bw_err records_check(const bw_batch_header *h, const uint8_t *records, size_t len)
{
    bw_record_iter it;
    bw_record_view v;
    int64_t next = h->base_offset, last = bw_batch_last_offset(h);
    int more;
    bw_record_iter_init(&it, h, records, len);
    while ((more = bw_record_iter_next(&it, &v)) > 0) {
        if (v.offset < next || v.offset > last)
            return bw_fail(BW_ERR_CORRUPT, "batch at offset %lld has a record at offset %lld, expected %lld to %lld",
                           (long long)h->base_offset, (long long)v.offset, (long long)next, (long long)last);
        if (v.header_count > 0 && !headers_ok(&v))
            return bw_fail(BW_ERR_CORRUPT, "record at offset %lld has headers that do not fill their place", (long long)v.offset);
        next = v.offset + (v.offset < last);
        if (v.offset == last && it.left > 0)
            return bw_fail(BW_ERR_CORRUPT, "batch at offset %lld has %d records behind its last offset",
                           (long long)h->base_offset, it.left);
    }
    return more < 0 ? BW_ERR_CORRUPT : BW_OK;
}

bw_err bw_batch_check_records(const uint8_t *data, const bw_batch_header *h, size_t max_plain)
{
    const uint8_t *records = data + BW_BATCH_HEADER_BYTES;
    size_t len = bw_batch_size(h) - BW_BATCH_HEADER_BYTES;
    bw_codec codec = (bw_codec)(h->attributes & BW_ATTR_CODEC_MASK);
    /* A batch whose records were all compacted away keeps its header and codec, with nothing behind it. */
    if (codec == BW_CODEC_NONE || (h->record_count == 0 && len == 0)) return records_check(h, records, len);
    bw_buf plain = {NULL, 0, 0};
    bw_err err = bw_codec_decompress(codec, records, len, max_plain, &plain);
    if (err)
        err = bw_error_context(err, "batch at offset %lld", (long long)h->base_offset);
    else
        err = records_check(h, plain.data, plain.len);
    bw_buf_free(&plain);
    return err;
}

bw_err bw_batch_validate(const uint8_t *data, size_t len, size_t max_plain, bool deep, bw_batch_header *out)
{
    *out = (bw_batch_header){.base_offset = 0}; /* decode leaves it alone when not even a header is there */
    bw_err err = bw_batch_header_decode(data, len, false, out);
    if (err == BW_ERR_EMPTY)
        return bw_fail(BW_ERR_CORRUPT, "%zu bytes are no record batch: a header of %u bytes with a length is needed", len,
                       BW_BATCH_HEADER_BYTES);
    if (err && out->magic == BW_BATCH_MAGIC && (out->attributes & BW_ATTR_CODEC_MASK) > BW_CODEC_ZSTD)
        return BW_ERR_UNKNOWN_CODEC;
    if (err) return err;
    if (bw_batch_size(out) != len)
        return bw_fail(BW_ERR_CORRUPT, "batch of %u bytes has %zu bytes behind it; send one batch", bw_batch_size(out),
                       len - bw_batch_size(out));
    if (!bw_batch_crc_ok(data, len))
        return bw_fail(BW_ERR_CORRUPT, "batch of %zu bytes fails its checksum; it was damaged on the way, send it again", len);
    if (out->attributes & BW_ATTR_CONTROL) return bw_fail(BW_ERR_CORRUPT, "a client may not send a control batch");
    if (out->record_count - 1 != out->last_offset_delta)
        return bw_fail(BW_ERR_CORRUPT, "batch announces %d records but spans %lld offsets", out->record_count,
                       (long long)out->last_offset_delta + 1);
    return deep ? bw_batch_check_records(data, out, max_plain) : BW_OK;
}
