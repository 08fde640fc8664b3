/* format/codec.h: the compression codecs of Kafka's record batch: gzip (RFC 1952), snappy (xerial framing; plain snappy is
 * accepted on decode), lz4 (frame format), zstd. Pure: memory to memory. Decompression never writes more than `max` bytes. */
#ifndef BW_FORMAT_CODEC_H
#define BW_FORMAT_CODEC_H

#include "base/bytes.h"

#include <busway/record.h>

/* bw_codec_compress: append the compressed form of src to out. NO_MEMORY, UNKNOWN_CODEC, INTERNAL. */
bw_err bw_codec_compress(bw_codec codec, const void *src, size_t len, bw_buf *out);
/* bw_codec_decompress: append the plain form to out; RECORD_TOO_LARGE when it would exceed max bytes (nothing is allocated
 * beyond min(max, what the input can honestly hold)); CORRUPT. */
bw_err bw_codec_decompress(bw_codec codec, const void *src, size_t len, size_t max, bw_buf *out);
/* "none", "gzip", "snappy", "lz4", "zstd"; NULL for others. */
const char *bw_codec_name(bw_codec codec);
/* Parses a name; false when unknown. */
bool bw_codec_parse(const char *name, bw_codec *out);

#endif
