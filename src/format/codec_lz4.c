/* format/codec_lz4.c: one lz4 frame; written as Kafka does: independent blocks of 64 KiB, no content size, no checksum of it. */
#include "format/codec_impl.h"

#include "base/err.h"

#include <lz4frame.h>

bw_err bw_lz4_compress(const void *src, size_t len, bw_buf *out)
{
    static const LZ4F_preferences_t preferences = {
        .frameInfo = {.blockSizeID = LZ4F_max64KB, .blockMode = LZ4F_blockIndependent},
    };
    size_t bound = LZ4F_compressFrameBound(len, &preferences);
    bw_err err = bw_buf_reserve(out, bound);
    if (err) return err;
    size_t made = LZ4F_compressFrame(out->data + out->len, bound, src, len, &preferences);
    if (LZ4F_isError(made)) return bw_fail(BW_ERR_INTERNAL, "lz4 cannot pack %zu bytes: %s", len, LZ4F_getErrorName(made));
    out->len += made;
    return BW_OK;
}

/* Until the frame ends. At the bound the room is one byte of scratch: a frame that only has to end needs none of it. */
static bw_err lz4_frame(LZ4F_dctx *ctx, const uint8_t *src, size_t len, size_t max, bw_buf *out)
{
    size_t start = out->len, at = 0, more = 1;
    while (more != 0) {
        uint8_t scratch;
        uint8_t *to = &scratch;
        size_t made = out->len - start, room = 1;
        if (made < max) {
            bw_err err = bw_codec_room(out, start, len * 4, max);
            if (err) return err;
            to = out->data + out->len;
            room = out->cap - out->len;
            if (room > max - made) room = max - made;
        }
        size_t used = len - at, wrote = room;
        more = LZ4F_decompress(ctx, to, &wrote, src + at, &used, NULL);
        if (LZ4F_isError(more)) return bw_codec_corrupt("lz4", len, LZ4F_getErrorName(more));
        if (made == max && wrote > 0) return bw_codec_too_large("lz4", max);
        at += used;
        out->len += wrote;
        if (more != 0 && used == 0 && wrote == 0) return bw_codec_corrupt("lz4", len, "it is cut off");
    }
    return at == len ? BW_OK : bw_codec_corrupt("lz4", len, "bytes are left over behind its frame");
}

bw_err bw_lz4_decompress(const void *src, size_t len, size_t max, bw_buf *out)
{
    LZ4F_dctx *ctx = NULL;
    if (LZ4F_isError(LZ4F_createDecompressionContext(&ctx, LZ4F_VERSION)))
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for an lz4 decompressor");
    bw_err err = lz4_frame(ctx, src, len, max, out);
    LZ4F_freeDecompressionContext(ctx);
    return err;
}
