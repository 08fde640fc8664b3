/* format/codec_gzip.c: gzip (RFC 1952) by zlib. Several members one behind the other are one stream, as for Java's reader. */
#include "format/codec_impl.h"

#include "base/err.h"

#include <zlib.h>

#define GZIP_WINDOW_BITS (15 + 16) /* 16: gzip wrapper, not zlib's */
#define GZIP_MEM_LEVEL   8

bw_err bw_gzip_compress(const void *src, size_t len, bw_buf *out)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)src, .avail_in = (uInt)len};
    if (deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW_BITS, GZIP_MEM_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK)
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a gzip compressor");
    size_t bound = deflateBound(&z, (uLong)len);
    bw_err err = bw_buf_reserve(out, bound);
    if (!err) {
        z.next_out = out->data + out->len;
        z.avail_out = (uInt)bound;
        if (deflate(&z, Z_FINISH) == Z_STREAM_END)
            out->len += z.total_out;
        else
            err = bw_fail(BW_ERR_INTERNAL, "gzip needs more than the %zu bytes it asked for", bound);
    }
    deflateEnd(&z);
    return err;
}

/* One step of inflate into out. At the bound the room is one byte of scratch: a stream that only has to end needs none of it. */
static bw_err gzip_step(z_stream *z, size_t start, size_t max, bw_buf *out, int *result)
{
    uint8_t scratch;
    size_t made = out->len - start;
    if (made < max) {
        bw_err err = bw_codec_room(out, start, (size_t)z->avail_in * 4, max);
        if (err) return err;
        size_t room = out->cap - out->len;
        if (room > max - made) room = max - made;
        z->next_out = out->data + out->len;
        z->avail_out = (uInt)room;
        *result = inflate(z, Z_NO_FLUSH);
        out->len += room - z->avail_out;
        return BW_OK;
    }
    z->next_out = &scratch;
    z->avail_out = 1;
    *result = inflate(z, Z_NO_FLUSH);
    return z->avail_out == 0 ? bw_codec_too_large("gzip", max) : BW_OK;
}

bw_err bw_gzip_decompress(const void *src, size_t len, size_t max, bw_buf *out)
{
    z_stream z = {.next_in = (Bytef *)(uintptr_t)src, .avail_in = (uInt)len};
    size_t start = out->len;
    if (inflateInit2(&z, GZIP_WINDOW_BITS) != Z_OK) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a gzip decompressor");
    bw_err err;
    for (;;) {
        int result = Z_OK;
        uInt before = z.avail_in;
        size_t made = out->len;
        err = gzip_step(&z, start, max, out, &result);
        if (err) break;
        if (result == Z_STREAM_END) {
            if (z.avail_in == 0) break;
            inflateReset(&z);
        } else if (result == Z_MEM_ERROR) {
            err = bw_fail(BW_ERR_NO_MEMORY, "no memory for a gzip decompressor");
            break;
        } else if (result != Z_OK && result != Z_BUF_ERROR) {
            err = bw_codec_corrupt("gzip", len, z.msg ? z.msg : "it is no gzip stream");
            break;
        } else if (z.avail_in == before && out->len == made) {
            err = bw_codec_corrupt("gzip", len, "it is cut off");
            break;
        }
    }
    inflateEnd(&z);
    return err;
}
