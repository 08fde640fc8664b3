/* format/codec_zstd.c: zstd frames.
 *
 * Unpacked in one go into room that grows until the data fits, rather than as a stream: a stream's decoder allocates the window
 * that the frame claims (up to 128 MiB), while this needs memory only for what is really unpacked, twice over at worst. */
#include "format/codec_impl.h"

#include "base/err.h"

#include <zstd.h>
#include <zstd_errors.h>

bw_err bw_zstd_compress(const void *src, size_t len, bw_buf *out)
{
    size_t bound = ZSTD_compressBound(len);
    bw_err err = bw_buf_reserve(out, bound);
    if (err) return err;
    size_t made = ZSTD_compress(out->data + out->len, bound, src, len, ZSTD_CLEVEL_DEFAULT);
    if (ZSTD_isError(made)) return bw_fail(BW_ERR_INTERNAL, "zstd cannot pack %zu bytes: %s", len, ZSTD_getErrorName(made));
    out->len += made;
    return BW_OK;
}

/* The room to try first: what the frame says when that is small, else some multiple of the input. */
static size_t zstd_first_room(const void *src, size_t len, size_t max)
{
    size_t guess = len * 8 > 65536 ? len * 8 : 65536;
    unsigned long long said = ZSTD_getFrameContentSize(src, len);
    if (said != ZSTD_CONTENTSIZE_UNKNOWN && said != ZSTD_CONTENTSIZE_ERROR && said < guess) guess = (size_t)said;
    return guess < max ? guess : max;
}

bw_err bw_zstd_decompress(const void *src, size_t len, size_t max, bw_buf *out)
{
    ZSTD_DCtx *ctx = ZSTD_createDCtx();
    if (!ctx) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a zstd decompressor");
    size_t room = zstd_first_room(src, len, max);
    bw_err err;
    for (;;) {
        if (out->cap - out->len < room || !out->data) {
            uint8_t *data = realloc(out->data, out->len + (room ? room : 1));
            if (!data) {
                err = bw_fail(BW_ERR_NO_MEMORY, "no memory to unpack %zu bytes", room);
                break;
            }
            out->data = data;
            out->cap = out->len + (room ? room : 1);
        }
        size_t made = ZSTD_decompressDCtx(ctx, out->data + out->len, room, src, len);
        if (!ZSTD_isError(made)) {
            out->len += made;
            err = len > 0 ? BW_OK : bw_codec_corrupt("zstd", len, "it is cut off");
            break;
        }
        if (ZSTD_getErrorCode(made) != ZSTD_error_dstSize_tooSmall) {
            err = bw_codec_corrupt("zstd", len, ZSTD_getErrorName(made));
            break;
        }
        if (room == max) {
            err = bw_codec_too_large("zstd", max);
            break;
        }
        room = room < max / 2 ? room * 2 : max;
        if (room == 0) room = max < BW_CODEC_STEP_MIN ? max : BW_CODEC_STEP_MIN;
    }
    ZSTD_freeDCtx(ctx);
    return err;
}
