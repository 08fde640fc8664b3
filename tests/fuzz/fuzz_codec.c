/* Codecs: any bytes as packed data never unpack to more than the bound, in content or memory; any bytes packed unpack to
 * themselves. First byte: codec (low three bits) and bound (the rest). */
#include "fuzz/fuzz.h"

#include "format/codec.h"

#define MAX_STEP 1021u

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 65536) return 0;
    bw_codec codec = (bw_codec)(data[0] & 7);
    size_t max = (size_t)(data[0] >> 3) * (data[0] >> 3) * MAX_STEP;
    data++;
    size--;
    bw_buf plain = {NULL, 0, 0}, packed = {NULL, 0, 0};
    fuzz_allow(2 * max + (codec == BW_CODEC_LZ4 ? FUZZ_LZ4_BLOCKS : 0)); /* the room that holds it grows */
    bw_err err = bw_codec_decompress(codec, data, size, max, &plain);
    FUZZ_CHECK(plain.len <= max && plain.cap <= max + 64);
    FUZZ_CHECK(err == BW_OK || plain.len == 0);
    bw_buf_free(&plain);
    if (codec > BW_CODEC_ZSTD) {
        FUZZ_CHECK(err == BW_ERR_UNKNOWN_CODEC);
        return 0;
    }
    FUZZ_CHECK(err == BW_OK || err == BW_ERR_CORRUPT || err == BW_ERR_RECORD_TOO_LARGE);
    fuzz_pause();
    FUZZ_CHECK(bw_codec_compress(codec, data, size, &packed) == BW_OK);
    FUZZ_CHECK(bw_codec_decompress(codec, packed.data, packed.len, size, &plain) == BW_OK);
    FUZZ_CHECK(plain.len == size && (size == 0 || memcmp(plain.data, data, size) == 0));
    plain.len = 0;
    if (size > 0) FUZZ_CHECK(bw_codec_decompress(codec, packed.data, packed.len, size - 1, &plain) == BW_ERR_RECORD_TOO_LARGE);
    bw_buf_free(&plain);
    bw_buf_free(&packed);
    fuzz_resume();
    return 0;
}
