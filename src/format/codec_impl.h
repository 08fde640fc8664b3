/* format/codec_impl.h: what the codecs share. Private to format/codec*.c.
 *
 * Each *_decompress appends at most max bytes to out, which grows with what was really unpacked; on error the caller of
 * bw_codec_decompress finds out as long as it was. */
#ifndef BW_FORMAT_CODEC_IMPL_H
#define BW_FORMAT_CODEC_IMPL_H

#include "format/codec.h"

#include <stdlib.h>

#define BW_CODEC_STEP_MIN 1024u

bw_err bw_gzip_compress(const void *src, size_t len, bw_buf *out);
bw_err bw_gzip_decompress(const void *src, size_t len, size_t max, bw_buf *out);
bw_err bw_snappy_compress(const void *src, size_t len, bw_buf *out);
bw_err bw_snappy_decompress(const void *src, size_t len, size_t max, bw_buf *out);
bw_err bw_lz4_compress(const void *src, size_t len, bw_buf *out);
bw_err bw_lz4_decompress(const void *src, size_t len, size_t max, bw_buf *out);
bw_err bw_zstd_compress(const void *src, size_t len, bw_buf *out);
bw_err bw_zstd_decompress(const void *src, size_t len, size_t max, bw_buf *out);

/* RECORD_TOO_LARGE and CORRUPT with their messages. */
bw_err bw_codec_too_large(const char *name, size_t max);
bw_err bw_codec_corrupt(const char *name, size_t len, const char *why);
/* bw_codec_room: more room in out, of which the bytes from start were unpacked so far (fewer than max): as much again as these,
 * at least hint bytes, never more than max in all. NO_MEMORY. */
bw_err bw_codec_room(bw_buf *out, size_t start, size_t hint, size_t max);

#endif
