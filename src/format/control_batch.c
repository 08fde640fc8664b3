/* format/control_batch.c: write and read end-of-transaction markers. */
#include "format/control_batch.h"

#include "base/err.h"

enum { KEY_BYTES = 4, VALUE_BYTES = 6, RECORD_BYTES = 17, TYPE_ABORT = 0, TYPE_COMMIT = 1 };

size_t bw_marker_write(uint8_t out[BW_MARKER_BYTES], const bw_marker *m)
{
    uint8_t *p = bw_put_varint(out + BW_BATCH_HEADER_BYTES, RECORD_BYTES - 1);
    *p++ = 0;                   /* attributes */
    p = bw_put_varlong(p, 0);   /* timestamp */
    p = bw_put_varint(p, 0);    /* offset */
    p = bw_put_varint(p, KEY_BYTES);
    bw_put_be16(p, 0);
    bw_put_be16(p + 2, m->commit ? TYPE_COMMIT : TYPE_ABORT);
    p = bw_put_varint(p + KEY_BYTES, VALUE_BYTES);
    bw_put_be16(p, 0);
    bw_put_be32(p + 2, (uint32_t)m->coordinator_epoch);
    p = bw_put_varint(p + VALUE_BYTES, 0);
    size_t size = (size_t)(p - out);
    bw_batch_header h = {
        .batch_length = (int32_t)size - 12, .magic = BW_BATCH_MAGIC, .attributes = BW_ATTR_TRANSACTIONAL | BW_ATTR_CONTROL,
        .base_timestamp = m->timestamp_ms, .max_timestamp = m->timestamp_ms, .producer_id = m->producer_id,
        .producer_epoch = m->producer_epoch, .base_sequence = -1, .record_count = 1,
    };
    bw_batch_header_encode(out, &h);
    return size;
}

static bw_err broken(const bw_batch_header *h, const char *what)
{
    return bw_fail(BW_ERR_CORRUPT, "the control batch at offset %lld is broken: %s", (long long)h->base_offset, what);
}

bw_err bw_marker_read(const uint8_t *data, const bw_batch_header *h, bw_marker *out)
{
    if (!(h->attributes & BW_ATTR_CONTROL)) return broken(h, "it is not one");
    if (h->attributes & BW_ATTR_CODEC_MASK) return broken(h, "it is compressed");
    if (h->record_count != 1 || h->last_offset_delta != 0) return broken(h, "it has not one record");
    bw_record_iter it;
    bw_record_view r;
    bw_record_iter_init(&it, h, data + BW_BATCH_HEADER_BYTES, bw_batch_size(h) - BW_BATCH_HEADER_BYTES);
    if (bw_record_iter_next(&it, &r) != 1) return broken(h, "its record does not decode");
    if (!r.key || r.key_len < KEY_BYTES) return broken(h, "its key is too short");
    const uint8_t *key = r.key, *value = r.value;
    if (bw_get_be16(key) > INT16_MAX) return broken(h, "its version is negative");
    uint16_t type = bw_get_be16(key + 2);
    if (type != TYPE_ABORT && type != TYPE_COMMIT)
        return bw_fail(BW_ERR_NOT_FOUND, "the control batch at offset %lld is of type %u, not the end of a transaction",
                       (long long)h->base_offset, type);
    if (!(h->attributes & BW_ATTR_TRANSACTIONAL)) return broken(h, "it is not transactional");
    if (h->producer_id < 0 || h->producer_epoch < 0) return broken(h, "it has no producer");
    if (!value || r.value_len < VALUE_BYTES) return broken(h, "its value is too short");
    *out = (bw_marker){
        .producer_id = h->producer_id, .producer_epoch = h->producer_epoch, .commit = type == TYPE_COMMIT,
        .coordinator_epoch = (int32_t)bw_get_be32(value + 2), .timestamp_ms = h->max_timestamp,
    };
    return BW_OK;
}
