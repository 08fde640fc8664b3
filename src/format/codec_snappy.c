/* format/codec_snappy.c: snappy in the xerial framing that Kafka's Java client writes:
 *   0x82 'S' 'N' 'A' 'P' 'P' 'Y' 0x00, int32 version, int32 oldest compatible version,
 *   then blocks of int32 length (big-endian) and as many bytes of raw snappy.
 * Raw snappy without a frame, as some clients send it, is read too; the frame's first bytes tell them apart, as for Kafka.
 *
 * A raw block claims its plain size in front. The claim is believed only as far as the block can honestly hold: a copy element of
 * three bytes makes at most 64. */
#include "format/codec_impl.h"

#include "base/err.h"

#include <snappy-c.h>

#define XERIAL_HEADER_BYTES  16u
#define XERIAL_VERSION       1
#define XERIAL_BLOCK_BYTES   32768u
#define SNAPPY_EXPANSION_MAX 22u

static const uint8_t xerial_magic[8] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0};

bw_err bw_snappy_compress(const void *src, size_t len, bw_buf *out)
{
    const uint8_t *p = src;
    size_t blocks = (len + XERIAL_BLOCK_BYTES - 1) / XERIAL_BLOCK_BYTES;
    bw_err err = bw_buf_reserve(out, XERIAL_HEADER_BYTES + blocks * (4 + snappy_max_compressed_length(XERIAL_BLOCK_BYTES)));
    if (err) return err;
    memcpy(out->data + out->len, xerial_magic, sizeof xerial_magic);
    bw_put_be32(out->data + out->len + 8, XERIAL_VERSION);
    bw_put_be32(out->data + out->len + 12, XERIAL_VERSION);
    out->len += XERIAL_HEADER_BYTES;
    while (len > 0) {
        size_t take = len < XERIAL_BLOCK_BYTES ? len : XERIAL_BLOCK_BYTES;
        size_t made = out->cap - out->len - 4;
        if (snappy_compress((const char *)p, take, (char *)out->data + out->len + 4, &made) != SNAPPY_OK)
            return bw_fail(BW_ERR_INTERNAL, "snappy needs more than the %zu bytes it asked for", out->cap - out->len - 4);
        bw_put_be32(out->data + out->len, (uint32_t)made);
        out->len += 4 + made;
        p += take;
        len -= take;
    }
    return BW_OK;
}

/* One raw block behind what out got from start on. */
static bw_err snappy_block(const uint8_t *src, size_t len, size_t start, size_t max, bw_buf *out)
{
    size_t plain;
    if (snappy_uncompressed_length((const char *)src, len, &plain) != SNAPPY_OK)
        return bw_codec_corrupt("snappy", len, "a block has no length");
    if (plain / SNAPPY_EXPANSION_MAX > len) return bw_codec_corrupt("snappy", len, "a block claims more than it can hold");
    if (plain > max - (out->len - start)) return bw_codec_too_large("snappy", max);
    bw_err err = plain > 0 ? bw_codec_room(out, start, plain, max) : BW_OK;
    if (err) return err;
    size_t made = plain;
    /* An empty buffer has no memory, and the library wants a place even for nothing. */
    char nothing = 0;
    char *to = plain > 0 ? (char *)out->data + out->len : &nothing;
    if (snappy_uncompress((const char *)src, len, to, &made) != SNAPPY_OK || made != plain)
        return bw_codec_corrupt("snappy", len, "a block is damaged");
    out->len += plain;
    return BW_OK;
}

bw_err bw_snappy_decompress(const void *src, size_t len, size_t max, bw_buf *out)
{
    size_t start = out->len;
    bw_cursor c = bw_cursor_over(src, len);
    if (len < sizeof xerial_magic || memcmp(src, xerial_magic, sizeof xerial_magic) != 0)
        return snappy_block(src, len, start, max, out);
    bw_cursor_take(&c, sizeof xerial_magic);
    bw_cursor_be32(&c); /* version */
    uint32_t compatible = bw_cursor_be32(&c);
    if (c.bad || compatible > XERIAL_VERSION)
        return bw_codec_corrupt("snappy", len, "its frame is cut off or of a later version");
    while (bw_cursor_left(&c) > 0) {
        uint32_t size = bw_cursor_be32(&c);
        const uint8_t *block = bw_cursor_take(&c, size);
        if (!block) return bw_codec_corrupt("snappy", len, "a block is cut off");
        bw_err err = snappy_block(block, size, start, max, out);
        if (err) return err;
    }
    return BW_OK;
}
