/* format/codec.c: names of the codecs, and the way to each (codec_*.c). */
#include "format/codec.h"

#include "base/err.h"
#include "format/codec_impl.h"

static const char *const codec_names[] = {
    [BW_CODEC_NONE] = "none", [BW_CODEC_GZIP] = "gzip", [BW_CODEC_SNAPPY] = "snappy",
    [BW_CODEC_LZ4] = "lz4",   [BW_CODEC_ZSTD] = "zstd",
};
#define CODEC_COUNT (sizeof codec_names / sizeof codec_names[0])

const char *bw_codec_name(bw_codec codec) { return (size_t)codec < CODEC_COUNT ? codec_names[codec] : NULL; }

bool bw_codec_parse(const char *name, bw_codec *out)
{
    for (size_t i = 0; i < CODEC_COUNT; i++) {
        if (strcmp(name, codec_names[i]) != 0) continue;
        *out = (bw_codec)i;
        return true;
    }
    return false;
}

static bw_err codec_unknown(bw_codec codec)
{
    return bw_fail(BW_ERR_UNKNOWN_CODEC, "compression codec %d does not exist; use none, gzip, snappy, lz4 or zstd", (int)codec);
}

bw_err bw_codec_compress(bw_codec codec, const void *src, size_t len, bw_buf *out)
{
    if (len > INT32_MAX)
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "%zu bytes are too many for one batch; at most %d", len, INT32_MAX);
    switch (codec) {
    case BW_CODEC_NONE:
        return bw_buf_append(out, src, len);
    case BW_CODEC_GZIP:
        return bw_gzip_compress(src, len, out);
    case BW_CODEC_SNAPPY:
        return bw_snappy_compress(src, len, out);
    case BW_CODEC_LZ4:
        return bw_lz4_compress(src, len, out);
    case BW_CODEC_ZSTD:
        return bw_zstd_compress(src, len, out);
    default:
        return codec_unknown(codec);
    }
}

bw_err bw_codec_decompress(bw_codec codec, const void *src, size_t len, size_t max, bw_buf *out)
{
    size_t before = out->len;
    bw_err err;
    if (max > INT32_MAX) max = INT32_MAX; /* a batch holds no more */
    if (len > INT32_MAX)
        return bw_fail(BW_ERR_RECORD_TOO_LARGE, "%zu bytes are too many for one batch; at most %d", len, INT32_MAX);
    switch (codec) {
    case BW_CODEC_NONE:
        if (len > max) return bw_codec_too_large("none", max);
        return bw_buf_append(out, src, len);
    case BW_CODEC_GZIP:
        err = bw_gzip_decompress(src, len, max, out);
        break;
    case BW_CODEC_SNAPPY:
        err = bw_snappy_decompress(src, len, max, out);
        break;
    case BW_CODEC_LZ4:
        err = bw_lz4_decompress(src, len, max, out);
        break;
    case BW_CODEC_ZSTD:
        err = bw_zstd_decompress(src, len, max, out);
        break;
    default:
        return codec_unknown(codec);
    }
    if (err) out->len = before;
    return err;
}

bw_err bw_codec_too_large(const char *name, size_t max)
{
    return bw_fail(BW_ERR_RECORD_TOO_LARGE,
                   "%s data is larger than %zu bytes when unpacked; raise max.message.bytes or send less", name, max);
}

bw_err bw_codec_corrupt(const char *name, size_t len, const char *why)
{
    return bw_fail(BW_ERR_CORRUPT, "%zu bytes of %s data cannot be unpacked: %s", len, name, why);
}

bw_err bw_codec_room(bw_buf *out, size_t start, size_t hint, size_t max)
{
    size_t made = out->len - start;
    size_t want = made > hint ? made : hint; /* double what is really there, so that memory follows the data and not a claim */
    if (want < BW_CODEC_STEP_MIN) want = BW_CODEC_STEP_MIN;
    if (want > max - made) want = max - made;
    if (out->cap - out->len >= want) return BW_OK;
    uint8_t *data = realloc(out->data, out->len + want);
    if (!data) return bw_fail(BW_ERR_NO_MEMORY, "no memory to unpack %zu bytes", made + want);
    out->data = data;
    out->cap = out->len + want;
    return BW_OK;
}
