/* format/record_batch_reserve.c: a batch of one record whose value is written in place, its length known only at the end.
 *
 * Everything before the value has a width that does not depend on the value's length: the record's length and the value's length
 * are varints padded to the width of their largest value (non-minimal varints are legal, Kafka reads them). So the value's place
 * never moves; headers are written behind it at the end. */
#include "format/record_batch.h"

#include "format/record_encode.h"

typedef struct bw_reserve_layout {
    size_t length_width; /* of the record's length */
    size_t value_width;  /* of the value's length */
    size_t before;       /* body bytes before the value */
    size_t after;        /* body bytes behind the value */
} bw_reserve_layout;

static bool reserve_layout(const bw_record *meta, size_t value_max, bw_reserve_layout *out)
{
    size_t headers = bw_headers_size(meta->headers, meta->header_count);
    if (headers == SIZE_MAX || meta->timestamp_ms < 0 || !bw_field_ok(meta->key, meta->key_len) || value_max > INT32_MAX / 2)
        return false;
    out->value_width = bw_varint_size_fast((uint32_t)value_max << 1);
    out->before = 1 + 1 + 1 + bw_field_size(meta->key, meta->key_len) + out->value_width;
    out->after = bw_varint_size_fast((uint32_t)meta->header_count << 1) + headers;
    size_t body = out->before + value_max + out->after;
    if (body > INT32_MAX - BW_BATCH_HEADER_BYTES - BW_RECORD_LENGTH_MAX) return false;
    out->length_width = bw_varint_size_fast((uint32_t)body << 1);
    return true;
}

size_t bw_batch_reserved_size(const bw_record *meta, size_t value_max)
{
    bw_reserve_layout l;
    if (!reserve_layout(meta, value_max, &l)) return SIZE_MAX;
    return BW_BATCH_HEADER_BYTES + l.length_width + l.before + value_max + l.after;
}

uint8_t *bw_batch_reserve_begin(uint8_t *dst, const bw_record *meta, size_t value_max)
{
    bw_reserve_layout l;
    if (!reserve_layout(meta, value_max, &l)) return NULL;
    uint8_t *p = dst + BW_BATCH_HEADER_BYTES + l.length_width;
    *p++ = 0; /* attributes */
    *p++ = 0; /* timestamp delta: the record's time is the base time */
    *p++ = 0; /* offset delta */
    p = bw_field_write(p, meta->key, meta->key_len);
    return p + l.value_width;
}

size_t bw_batch_reserve_finish(uint8_t *dst, const bw_record *meta, size_t value_max, size_t value_len,
                               const bw_batch_options *options)
{
    bw_reserve_layout l;
    if (!reserve_layout(meta, value_max, &l) || value_len > value_max) return 0;
    size_t body = l.before + value_len + l.after;
    uint8_t *record = dst + BW_BATCH_HEADER_BYTES;
    bw_put_varint_padded(record, (int32_t)body, l.length_width);
    uint8_t *value = record + l.length_width + l.before;
    bw_put_varint_padded(value - l.value_width, (int32_t)value_len, l.value_width);
    uint8_t *end = bw_headers_write(value + value_len, meta->headers, meta->header_count);
    bool append_time = options->log_append_time != BW_NO_TIMESTAMP;
    bw_batch_header h = {
        .base_offset = 0,
        .batch_length = (int32_t)(end - dst) - 12,
        .leader_epoch = 0,
        .magic = BW_BATCH_MAGIC,
        .attributes =
            (int16_t)((append_time ? BW_ATTR_LOG_APPEND_TIME : 0u) | (options->transactional ? BW_ATTR_TRANSACTIONAL : 0u)),
        .last_offset_delta = 0,
        .base_timestamp = meta->timestamp_ms,
        .max_timestamp = append_time ? options->log_append_time : meta->timestamp_ms,
        .producer_id = options->producer_id,
        .producer_epoch = options->producer_epoch,
        .base_sequence = options->base_sequence,
        .record_count = 1,
    };
    bw_batch_header_encode(dst, &h);
    return (size_t)(end - dst);
}
