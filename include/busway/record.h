/* busway/record.h: a record as the producer gives it and as the consumer sees it.
 *
 * Terms are Kafka's. A NULL pointer with length 0 is *null*; a non-NULL pointer with length 0 is *empty*; they are kept apart
 * on disk and on the wire. Timestamps are milliseconds since the Unix epoch. */
#ifndef BUSWAY_RECORD_H
#define BUSWAY_RECORD_H

#include <busway/error.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define BW_NO_TIMESTAMP INT64_C(-1)
#define BW_PARTITION_ANY INT32_C(-1)
#define BW_TOPIC_NAME_MAX 249 /* characters, of [A-Za-z0-9._-] */

/* Special offsets for seek, assign and admin look-ups (Kafka's numbers for beginning and end). */
#define BW_OFFSET_END INT64_C(-1)
#define BW_OFFSET_BEGINNING INT64_C(-2)
#define BW_OFFSET_INVALID INT64_C(-1001)

typedef struct bw_header {
    const char *name; /* UTF-8, need not end with NUL */
    size_t name_len;
    const void *value; /* NULL: null */
    size_t value_len;
} bw_header;

typedef enum bw_timestamp_type {
    BW_TIMESTAMP_NONE = -1,
    BW_TIMESTAMP_CREATE = 0,     /* set by the producer */
    BW_TIMESTAMP_LOG_APPEND = 1, /* set when appended */
} bw_timestamp_type;

typedef enum bw_codec {
    BW_CODEC_NONE = 0,
    BW_CODEC_GZIP = 1,
    BW_CODEC_SNAPPY = 2,
    BW_CODEC_LZ4 = 3,
    BW_CODEC_ZSTD = 4,
} bw_codec;

/* A record to produce. All memory stays the caller's; it is copied before the call that takes it returns. */
typedef struct bw_record {
    const void *key;
    size_t key_len;
    const void *value;
    size_t value_len;
    const bw_header *headers;
    size_t header_count;
    int64_t timestamp_ms; /* BW_NO_TIMESTAMP: now */
} bw_record;

/* A record as read. Pointers lead into the consumer's current batch and are valid as long as that batch is
 * (busway/consumer.h says until when). Headers are decoded on demand: bw_record_header_next. */
typedef struct bw_record_view {
    int64_t offset;
    int64_t timestamp_ms;
    const uint8_t *key;
    const uint8_t *value;
    const uint8_t *headers_raw; /* encoded headers, header_count of them, headers_len bytes */
    uint32_t key_len;
    uint32_t value_len;
    uint32_t header_count;
    uint32_t headers_len;
} bw_record_view;

typedef struct bw_header_iter {
    const uint8_t *at;
    const uint8_t *end;
    uint32_t left;
} bw_header_iter;

/* bw_header_iter_init: start on a record's headers. Cannot fail. */
BW_API void bw_header_iter_init(bw_header_iter *it, const bw_record_view *record);
/* bw_header_iter_next: 1 and *out filled, 0 at the end, -1 when the encoding is broken. Memory as for the record. */
BW_API int bw_header_iter_next(bw_header_iter *it, bw_header *out);
/* bw_record_from_view: a record that was read as one to produce: its headers are listed in `headers`, which has room for max; *out leads to
 * them and into the view, and has its timestamp. Errors: INVALID_RECORD (more than max headers), CORRUPT. Since 0.2. */
BW_API bw_err bw_record_from_view(const bw_record_view *view, bw_header *headers, size_t max, bw_record *out);

#ifdef __cplusplus
}
#endif
#endif
