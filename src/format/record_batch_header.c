/* format/record_batch_header.c: the 61 bytes before a batch's records (byte table in format/record_batch.h).
 *
 * Invariant: a header that was accepted describes a size of 61 bytes to 2 GiB that lies within what is there (unless partial),
 * and offsets that do not overflow. The checksum is looked at apart, since a reader may have done it before. */
#include "format/record_batch.h"

#include "base/crc32c.h"
#include "base/err.h"

#define BATCH_LENGTH_MIN ((int32_t)BW_BATCH_HEADER_BYTES - 12)

enum {
    AT_BASE_OFFSET = 0,
    AT_LENGTH = 8,
    AT_LEADER_EPOCH = 12,
    AT_MAGIC = 16,
    AT_CRC = 17,
    AT_ATTRIBUTES = 21,
    AT_LAST_OFFSET_DELTA = 23,
    AT_BASE_TIMESTAMP = 27,
    AT_MAX_TIMESTAMP = 35,
    AT_PRODUCER_ID = 43,
    AT_PRODUCER_EPOCH = 51,
    AT_BASE_SEQUENCE = 53,
    AT_RECORD_COUNT = 57,
};
_Static_assert(AT_RECORD_COUNT + 4 == BW_BATCH_HEADER_BYTES, "layout");
_Static_assert(AT_ATTRIBUTES == BW_BATCH_CRC_FROM, "layout");

static bw_err header_check(const bw_batch_header *h)
{
    long long base = h->base_offset;
    if (h->magic != BW_BATCH_MAGIC)
        return bw_fail(BW_ERR_CORRUPT, "batch at offset %lld has message format %d, only format %d is supported", base, h->magic,
                       BW_BATCH_MAGIC);
    if (base < 0 || h->last_offset_delta < 0 || base > INT64_MAX - h->last_offset_delta)
        return bw_fail(BW_ERR_CORRUPT, "batch header has base offset %lld and last offset delta %d", base, h->last_offset_delta);
    if (h->record_count < 0 || h->record_count - 1 > h->last_offset_delta)
        return bw_fail(BW_ERR_CORRUPT, "batch at offset %lld announces %d records for %lld offsets", base, h->record_count,
                       (long long)h->last_offset_delta + 1);
    int codec = h->attributes & BW_ATTR_CODEC_MASK;
    if (codec > BW_CODEC_ZSTD)
        return bw_fail(BW_ERR_CORRUPT, "batch at offset %lld has compression codec %d, which does not exist", base, codec);
    if (codec == BW_CODEC_NONE && h->record_count > (h->batch_length - BATCH_LENGTH_MIN) / BW_RECORD_BYTES_MIN)
        return bw_fail(BW_ERR_CORRUPT, "batch at offset %lld announces %d records in %d bytes", base, h->record_count,
                       h->batch_length - BATCH_LENGTH_MIN);
    return BW_OK;
}

bw_err bw_batch_header_decode(const uint8_t *data, size_t len, bool allow_partial, bw_batch_header *out)
{
    if (len < BW_BATCH_HEADER_BYTES) return BW_ERR_EMPTY;
    int32_t length = (int32_t)bw_get_be32(data + AT_LENGTH);
    if (length == 0) return BW_ERR_EMPTY;
    if (length < BATCH_LENGTH_MIN || length > INT32_MAX - 12)
        return bw_fail(BW_ERR_CORRUPT, "batch header has length %d, at least %d is needed", length, BATCH_LENGTH_MIN);
    if (!allow_partial && (size_t)length + 12 > len)
        return bw_fail(BW_ERR_CORRUPT, "batch of %d bytes is cut off after %zu bytes", length + 12, len);
    *out = (bw_batch_header){
        .base_offset = (int64_t)bw_get_be64(data + AT_BASE_OFFSET),
        .batch_length = length,
        .leader_epoch = (int32_t)bw_get_be32(data + AT_LEADER_EPOCH),
        .magic = (int8_t)data[AT_MAGIC],
        .crc = bw_get_be32(data + AT_CRC),
        .attributes = (int16_t)bw_get_be16(data + AT_ATTRIBUTES),
        .last_offset_delta = (int32_t)bw_get_be32(data + AT_LAST_OFFSET_DELTA),
        .base_timestamp = (int64_t)bw_get_be64(data + AT_BASE_TIMESTAMP),
        .max_timestamp = (int64_t)bw_get_be64(data + AT_MAX_TIMESTAMP),
        .producer_id = (int64_t)bw_get_be64(data + AT_PRODUCER_ID),
        .producer_epoch = (int16_t)bw_get_be16(data + AT_PRODUCER_EPOCH),
        .base_sequence = (int32_t)bw_get_be32(data + AT_BASE_SEQUENCE),
        .record_count = (int32_t)bw_get_be32(data + AT_RECORD_COUNT),
    };
    return header_check(out);
}

void bw_batch_header_encode(uint8_t *batch, const bw_batch_header *h)
{
    bw_put_be64(batch + AT_BASE_OFFSET, (uint64_t)h->base_offset);
    bw_put_be32(batch + AT_LENGTH, (uint32_t)h->batch_length);
    bw_put_be32(batch + AT_LEADER_EPOCH, (uint32_t)h->leader_epoch);
    batch[AT_MAGIC] = (uint8_t)h->magic;
    bw_put_be16(batch + AT_ATTRIBUTES, (uint16_t)h->attributes);
    bw_put_be32(batch + AT_LAST_OFFSET_DELTA, (uint32_t)h->last_offset_delta);
    bw_put_be64(batch + AT_BASE_TIMESTAMP, (uint64_t)h->base_timestamp);
    bw_put_be64(batch + AT_MAX_TIMESTAMP, (uint64_t)h->max_timestamp);
    bw_put_be64(batch + AT_PRODUCER_ID, (uint64_t)h->producer_id);
    bw_put_be16(batch + AT_PRODUCER_EPOCH, (uint16_t)h->producer_epoch);
    bw_put_be32(batch + AT_BASE_SEQUENCE, (uint32_t)h->base_sequence);
    bw_put_be32(batch + AT_RECORD_COUNT, (uint32_t)h->record_count);
    bw_batch_seal_crc(batch, bw_batch_size(h));
}

void bw_batch_seal_crc(uint8_t *batch, size_t size)
{
    bw_put_be32(batch + AT_CRC, bw_crc32c(batch + BW_BATCH_CRC_FROM, size - BW_BATCH_CRC_FROM));
}

bool bw_batch_crc_ok(const uint8_t *data, size_t size)
{
    return size >= BW_BATCH_HEADER_BYTES &&
           bw_get_be32(data + AT_CRC) == bw_crc32c(data + BW_BATCH_CRC_FROM, size - BW_BATCH_CRC_FROM);
}

void bw_batch_patch(uint8_t *batch, int64_t base_offset, int32_t leader_epoch)
{
    bw_put_be64(batch + AT_BASE_OFFSET, (uint64_t)base_offset);
    bw_put_be32(batch + AT_LEADER_EPOCH, (uint32_t)leader_epoch);
}

void bw_batch_set_log_append_time(uint8_t *batch, size_t size, int64_t timestamp_ms)
{
    uint16_t attributes = bw_get_be16(batch + AT_ATTRIBUTES);
    bw_put_be16(batch + AT_ATTRIBUTES, (uint16_t)(attributes | BW_ATTR_LOG_APPEND_TIME));
    bw_put_be64(batch + AT_MAX_TIMESTAMP, (uint64_t)timestamp_ms);
    bw_batch_seal_crc(batch, size);
}

void bw_batch_set_producer(uint8_t *batch, size_t size, int64_t producer_id, int16_t producer_epoch, int32_t base_sequence)
{
    bw_put_be64(batch + AT_PRODUCER_ID, (uint64_t)producer_id);
    bw_put_be16(batch + AT_PRODUCER_EPOCH, (uint16_t)producer_epoch);
    bw_put_be32(batch + AT_BASE_SEQUENCE, (uint32_t)base_sequence);
    bw_batch_seal_crc(batch, size);
}
