/* broker/recode.c: change the codec of a whole, validated batch. The checksum covers the attributes on, so it is made anew; producer id,
 * sequence and timestamps stay. */
#include "broker/recode.h"

#include "base/crc32c.h"
#include "base/err.h"
#include "format/codec.h"

#define AT_LENGTH 8
#define AT_CRC 17
#define AT_ATTRIBUTES 21

bw_codec bw_recode_wanted(const char *compression_type, bw_codec have)
{
    bw_codec codec;
    if (!strcmp(compression_type, "uncompressed")) return BW_CODEC_NONE;
    return bw_codec_parse(compression_type, &codec) ? codec : have;
}

bw_err bw_recode(const uint8_t *batch, size_t len, bw_codec to, size_t max_plain, bw_buf *out)
{
    if (len < BW_BATCH_HEADER_BYTES) return bw_fail(BW_ERR_CORRUPT, "a batch of %zu bytes has no header", len);
    uint16_t attributes = bw_get_be16(batch + AT_ATTRIBUTES);
    bw_codec from = (bw_codec)(attributes & BW_ATTR_CODEC_MASK);
    bw_buf plain = {0};
    const uint8_t *records = batch + BW_BATCH_HEADER_BYTES;
    size_t records_len = len - BW_BATCH_HEADER_BYTES;
    bw_err e = BW_OK;
    if (from != BW_CODEC_NONE) {
        e = bw_codec_decompress(from, records, records_len, max_plain, &plain);
        records = plain.data;
        records_len = plain.len;
    }
    out->len = 0;
    if (!e) e = bw_buf_append(out, batch, BW_BATCH_HEADER_BYTES);
    if (!e) e = to == BW_CODEC_NONE ? bw_buf_append(out, records, records_len) : bw_codec_compress(to, records, records_len, out);
    bw_buf_free(&plain);
    if (e) return e;
    bw_put_be32(out->data + AT_LENGTH, (uint32_t)(out->len - 12));
    bw_put_be16(out->data + AT_ATTRIBUTES, (uint16_t)((attributes & ~BW_ATTR_CODEC_MASK) | (uint16_t)to));
    bw_put_be32(out->data + AT_CRC, bw_crc32c(out->data + BW_BATCH_CRC_FROM, out->len - BW_BATCH_CRC_FROM));
    return BW_OK;
}
