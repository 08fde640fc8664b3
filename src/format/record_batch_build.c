/* format/record_batch_build.c: encode records one behind the other, then put a header before them.
 *
 * Hot path: bw_batch_builder_add takes one check of the arguments, one of the room and no call but memcpy for a record without
 * headers; everything rare is out of line.
 * Invariant: buf.len is 0 (no memory yet) or at least BW_BATCH_HEADER_BYTES, whose first 61 bytes are the header's room; a failed
 * add leaves the batch as it was. Offset deltas count up in the order of adding; the first record's time is the base time.
 */
#include "format/record_batch.h"

#include "base/err.h"
#include "format/codec.h"
#include "format/record_encode.h"

void bw_batch_builder_init(bw_batch_builder *b) { *b = (bw_batch_builder){.count = 0}; }

void bw_batch_builder_fini(bw_batch_builder *b)
{
    bw_buf_free(&b->buf);
    bw_buf_free(&b->packed);
    bw_batch_builder_init(b);
}

void bw_batch_builder_reset(bw_batch_builder *b)
{
    b->buf.len = b->buf.cap ? BW_BATCH_HEADER_BYTES : 0;
    b->packed.len = 0;
    b->count = 0;
    b->base_timestamp = 0;
    b->max_timestamp = 0;
}

size_t bw_headers_size(const bw_header *headers, size_t count)
{
    size_t size = 0;
    if (count > 0 && (!headers || count > INT32_MAX / 2)) return SIZE_MAX;
    for (size_t i = 0; i < count; i++) {
        const bw_header *h = &headers[i];
        if (!bw_field_ok(h->value, h->value_len) || !bw_field_ok(h->name, h->name_len)) return SIZE_MAX;
        size += bw_varint_size_fast((uint32_t)h->name_len << 1) + h->name_len + bw_field_size(h->value, h->value_len);
    }
    return size;
}

uint8_t *bw_headers_write(uint8_t *p, const bw_header *headers, size_t count)
{
    p = bw_varint_write(p, (uint64_t)count << 1);
    for (size_t i = 0; i < count; i++) {
        const bw_header *h = &headers[i];
        p = bw_field_write(p, h->name ? h->name : "", h->name_len); /* a name is never null */
        p = bw_field_write(p, h->value, h->value_len);
    }
    return p;
}

__attribute__((cold, noinline)) static bw_err record_refuse(const bw_record *r)
{
    if (r->timestamp_ms < 0)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a record's timestamp is %lld; give milliseconds since 1970",
                       (long long)r->timestamp_ms);
    if ((!r->key && r->key_len) || (!r->value && r->value_len))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a record's %s is NULL but has a length; null has length 0",
                       !r->key && r->key_len ? "key" : "value");
    if (bw_headers_size(r->headers, r->header_count) == SIZE_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a record's headers cannot be encoded: NULL with a length, or over %d bytes",
                       INT32_MAX / 2);
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "a record of %zu + %zu bytes is too long; at most %d bytes each for key and value",
                   r->key_len, r->value_len, INT32_MAX / 2);
}

/* Room for `need` bytes, and the header's room in a new buffer. */
__attribute__((cold, noinline)) static bw_err builder_grow(bw_batch_builder *b, size_t need)
{
    size_t head = b->buf.len == 0 ? BW_BATCH_HEADER_BYTES : 0;
    if (need > (size_t)INT32_MAX - b->buf.len - head || b->count == INT32_MAX)
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a batch of %zu bytes cannot take %zu bytes more; send it first", b->buf.len,
                       need);
    bw_err err = bw_buf_reserve(&b->buf, need + head);
    if (!err) b->buf.len += head;
    return err;
}

bw_err bw_batch_builder_add(bw_batch_builder *b, const bw_record *r)
{
    size_t headers_size = 0;
    if (__builtin_expect(r->timestamp_ms < 0 || !bw_field_ok(r->key, r->key_len) || !bw_field_ok(r->value, r->value_len), 0))
        return record_refuse(r);
    if (r->header_count > 0) {
        headers_size = bw_headers_size(r->headers, r->header_count);
        if (headers_size == SIZE_MAX) return record_refuse(r);
    }
    size_t need = BW_RECORD_LENGTH_MAX + BW_RECORD_FIELDS_MAX + r->key_len + r->value_len + headers_size;
    if (__builtin_expect(b->buf.cap - b->buf.len < need || b->buf.len == 0 || b->buf.len + need > INT32_MAX, 0)) {
        bw_err err = builder_grow(b, need);
        if (err) return err;
    }
    if (b->count == 0)
        b->base_timestamp = b->max_timestamp = r->timestamp_ms;
    else if (r->timestamp_ms > b->max_timestamp)
        b->max_timestamp = r->timestamp_ms;
    uint64_t timestamp = bw_zigzag64(r->timestamp_ms - b->base_timestamp);
    uint32_t offset = (uint32_t)b->count << 1;
    size_t body = 1 + bw_varlong_size_fast(timestamp) + bw_varint_size_fast(offset) + bw_field_size(r->key, r->key_len) +
                  bw_field_size(r->value, r->value_len) + bw_varint_size_fast((uint32_t)r->header_count << 1) + headers_size;

    uint8_t *p = b->buf.data + b->buf.len;
    p = bw_varint_write(p, (uint64_t)body << 1);
    *p++ = 0; /* attributes */
    p = bw_varint_write(p, timestamp);
    p = bw_varint_write(p, offset);
    p = bw_field_write(p, r->key, r->key_len);
    p = bw_field_write(p, r->value, r->value_len);
    if (r->header_count == 0)
        *p++ = 0;
    else
        p = bw_headers_write(p, r->headers, r->header_count);
    b->buf.len = (size_t)(p - b->buf.data);
    b->count++;
    return BW_OK;
}

size_t bw_batch_builder_size(const bw_batch_builder *b) { return b->buf.len ? b->buf.len : BW_BATCH_HEADER_BYTES; }

size_t bw_record_encoded_size(const bw_record *r)
{
    size_t headers = r->header_count ? bw_headers_size(r->headers, r->header_count) : 0;
    if (headers == SIZE_MAX || !bw_field_ok(r->key, r->key_len) || !bw_field_ok(r->value, r->value_len)) return SIZE_MAX;
    size_t body = 1 + 10 + 5 + bw_field_size(r->key, r->key_len) + bw_field_size(r->value, r->value_len) +
                  bw_varint_size_fast((uint32_t)r->header_count << 1) + headers;
    return body + (body <= INT32_MAX ? bw_varint_size_fast((uint32_t)body << 1) : BW_RECORD_LENGTH_MAX);
}

bw_err bw_batch_builder_finish(bw_batch_builder *b, const bw_batch_options *options, uint8_t **batch, size_t *len)
{
    if (b->count == 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a batch without records cannot be finished; add one first");
    bw_buf *whole = &b->buf;
    if (options->codec != BW_CODEC_NONE) {
        whole = &b->packed;
        whole->len = 0;
        bw_err err = bw_buf_reserve(whole, BW_BATCH_HEADER_BYTES);
        if (err) return err;
        whole->len = BW_BATCH_HEADER_BYTES;
        err = bw_codec_compress(options->codec, b->buf.data + BW_BATCH_HEADER_BYTES, b->buf.len - BW_BATCH_HEADER_BYTES, whole);
        if (err) return bw_error_context(err, "batch of %d records", b->count);
        if (whole->len > INT32_MAX)
            return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a batch of %d records has %zu bytes compressed", b->count, whole->len);
    }
    bool append_time = options->log_append_time != BW_NO_TIMESTAMP;
    bw_batch_header h = {
        .base_offset = 0,
        .batch_length = (int32_t)(whole->len - 12),
        .leader_epoch = 0,
        .magic = BW_BATCH_MAGIC,
        .attributes = (int16_t)((unsigned)options->codec | (append_time ? BW_ATTR_LOG_APPEND_TIME : 0u) |
                                (options->transactional ? BW_ATTR_TRANSACTIONAL : 0u)),
        .last_offset_delta = b->count - 1,
        .base_timestamp = b->base_timestamp,
        .max_timestamp = append_time ? options->log_append_time : b->max_timestamp,
        .producer_id = options->producer_id,
        .producer_epoch = options->producer_epoch,
        .base_sequence = options->base_sequence,
        .record_count = b->count,
    };
    bw_batch_header_encode(whole->data, &h);
    *batch = whole->data;
    *len = whole->len;
    return BW_OK;
}
