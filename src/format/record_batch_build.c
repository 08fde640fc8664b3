/* format/record_batch_build.c: encode records one behind the other, then put a header before them.
 *
 * Hot path: bw_batch_builder_add_many writes runs of records of the common shape without a call; bw_batch_builder_add takes one
 * check of the arguments, one of the room and no call but memcpy for a record without headers; everything rare is out of line.
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

__attribute__((cold, noinline)) static bw_err record_refuse(const bw_record *r, int64_t timestamp_ms)
{
    if (timestamp_ms < 0)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a record's timestamp is %lld; give milliseconds since 1970",
                       (long long)timestamp_ms);
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
    if (b->fixed) return BW_ERR_RECORD_TOO_LARGE;
    size_t head = b->buf.len == 0 ? BW_BATCH_HEADER_BYTES : 0;
    if (need > (size_t)INT32_MAX - b->buf.len - head || b->count == INT32_MAX)
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a batch of %zu bytes cannot take %zu bytes more; send it first", b->buf.len,
                       need);
    bw_err err = bw_buf_reserve(&b->buf, need + head);
    if (!err) b->buf.len += head;
    return err;
}

/* Any record. */
static bw_err add_any(bw_batch_builder *b, const bw_record *r, int64_t timestamp_ms)
{
    size_t headers_size = 0;
    if (__builtin_expect(timestamp_ms < 0 || !bw_field_ok(r->key, r->key_len) || !bw_field_ok(r->value, r->value_len), 0))
        return record_refuse(r, timestamp_ms);
    if (r->header_count > 0) {
        headers_size = bw_headers_size(r->headers, r->header_count);
        if (headers_size == SIZE_MAX) return record_refuse(r, timestamp_ms);
    }
    size_t need = BW_RECORD_LENGTH_MAX + BW_RECORD_FIELDS_MAX + r->key_len + r->value_len + headers_size;
    if (__builtin_expect(b->buf.cap - b->buf.len < need || b->buf.len == 0 || b->buf.len + need > INT32_MAX, 0)) {
        bw_err err = builder_grow(b, need);
        if (err) return err;
    }
    if (b->count == 0)
        b->base_timestamp = b->max_timestamp = timestamp_ms;
    else if (timestamp_ms > b->max_timestamp)
        b->max_timestamp = timestamp_ms;
    uint64_t timestamp = bw_zigzag64(timestamp_ms - b->base_timestamp);
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

/* len bytes, at least 16, in pieces of 16 that may overlap: nothing outside of either is touched, and there is no call. */
static inline void copy_pieces(uint8_t *to, const uint8_t *from, size_t len)
{
    size_t last = len - 16;
    for (size_t i = 0; i < last; i += 16) memcpy(to + i, from + i, 16);
    memcpy(to + last, from + last, 16);
}

/* Bytes that a common record takes at most. */
#define COMMON_ROOM (BW_RECORD_LENGTH_MAX + BW_RECORD_FIELDS_MAX + 1024u)

/* Is it of the common shape: no key, no headers, a value of 16 to 1023 bytes? Asked together with what only the builder knows:
 * room, a timestamp less than 64 ms behind the first, not the first and one of the first 8192 records. */
static inline bool is_common(const bw_record *r)
{
    return !r->key && r->key_len == 0 && r->header_count == 0 && r->value && r->value_len - 16 < 1024 - 16;
}

/* Writes a common record at p, which has COMMON_ROOM; the byte behind it. Gives what add_any gives: every width is known from a
 * comparison, and a narrow number's second byte is overwritten by what follows it. */
static inline uint8_t *put_common(uint8_t *p, const bw_record *r, uint32_t index, uint32_t delta_ms)
{
    uint32_t offset = index << 1, len = (uint32_t)r->value_len, wide_offset = offset >= 0x80, wide_len = len >= 0x40;
    uint32_t body = (6 + wide_offset + wide_len + len) << 1, wide_body = body >= 0x80;
    p[0] = (uint8_t)(body | wide_body << 7);
    p[1] = (uint8_t)(body >> 7);
    p += 1 + wide_body;
    p[0] = 0; /* attributes */
    p[1] = (uint8_t)(delta_ms << 1);
    p[2] = (uint8_t)(offset | wide_offset << 7);
    p[3] = (uint8_t)(offset >> 7);
    p += 3 + wide_offset;
    p[0] = 1; /* key: null */
    p[1] = (uint8_t)(len << 1 | wide_len << 7);
    p[2] = (uint8_t)(len >> 6);
    p += 2 + wide_len;
    copy_pieces(p, r->value, len);
    p[len] = 0; /* headers: none */
    return p + len + 1;
}

/* As many common records as lie in front; how many. Everything that changes from record to record stays in registers. */
static size_t add_common_run(bw_batch_builder *b, const bw_record *records, size_t count, int64_t now_ms)
{
    uint8_t *start = b->buf.data, *p = start + b->buf.len, *end = start + b->buf.cap;
    int64_t base = b->base_timestamp, max = b->max_timestamp;
    uint32_t index = (uint32_t)b->count;
    size_t i = 0;
    if (b->buf.len == 0 || b->buf.cap > INT32_MAX) return 0;
    if (index == 0) {
        base = max = records[0].timestamp_ms == BW_NO_TIMESTAMP ? now_ms : records[0].timestamp_ms;
        if (base < 0 || !is_common(&records[0]) || (size_t)(end - p) < COMMON_ROOM) return 0;
        b->base_timestamp = base;
    }
    for (; i < count && index < 8192 && is_common(&records[i]) && (size_t)(end - p) >= COMMON_ROOM; i++, index++) {
        int64_t at = records[i].timestamp_ms == BW_NO_TIMESTAMP ? now_ms : records[i].timestamp_ms;
        if ((uint64_t)at - (uint64_t)base >= 64 || at < max) break;
        p = put_common(p, &records[i], index, (uint32_t)(at - base));
        max = at;
    }
    b->buf.len = (size_t)(p - start);
    b->count = (int32_t)index;
    b->max_timestamp = max;
    return i;
}

bw_err bw_batch_builder_add_many(bw_batch_builder *b, const bw_record *records, size_t count, int64_t now_ms, size_t max_bytes)
{
    for (size_t i = 0; i < count;) {
        size_t n = add_common_run(b, records + i, count - i, now_ms);
        i += n;
        if (i == count) break;
        bw_err err = add_any(b, &records[i], records[i].timestamp_ms == BW_NO_TIMESTAMP ? now_ms : records[i].timestamp_ms);
        if (__builtin_expect(err != BW_OK, 0)) return err;
        if (__builtin_expect(b->buf.len > max_bytes, 0)) break;
        i++;
    }
    if (__builtin_expect(b->buf.len > max_bytes, 0))
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "a batch of more than %zu bytes; send fewer records at once", max_bytes);
    return BW_OK;
}

bw_err bw_batch_builder_add(bw_batch_builder *b, const bw_record *r) { return add_any(b, r, r->timestamp_ms); }

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
