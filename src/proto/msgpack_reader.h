/* proto/msgpack_reader.h: a bounded pull reader for msgpack. Pure: no allocation, no recursion.
 *
 * Source: https://github.com/msgpack/msgpack/blob/master/spec.md.
 * Invariants: at <= end always. A claimed count or length is checked against the bytes that are left before it is believed (each
 * element takes at least one byte, each pair two). The first thing that is wrong sets `bad` and `why`; every later call fails
 * likewise, so that a decoder may check once at the end of each unit. Strings and binaries are views into the input. */
#ifndef BW_PROTO_MSGPACK_READER_H
#define BW_PROTO_MSGPACK_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BW_MSGPACK_DEPTH_MAX 8u /* nesting that skip accepts */

typedef enum bw_msgpack_kind {
    BW_MSGPACK_END = 0, /* no bytes left */
    BW_MSGPACK_NIL,
    BW_MSGPACK_BOOL,
    BW_MSGPACK_INT, /* signed or not */
    BW_MSGPACK_FLOAT,
    BW_MSGPACK_STR,
    BW_MSGPACK_BIN,
    BW_MSGPACK_ARRAY,
    BW_MSGPACK_MAP,
    BW_MSGPACK_EXT,
    BW_MSGPACK_INVALID /* 0xc1 */
} bw_msgpack_kind;

typedef struct bw_msgpack_reader {
    const uint8_t *start;
    const uint8_t *at;
    const uint8_t *end;
    const char *why; /* static text of what is wrong; NULL when good */
    bool bad;
} bw_msgpack_reader;

static inline bw_msgpack_reader bw_msgpack_over(const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    return (bw_msgpack_reader){p, p, p ? p + len : p, NULL, false};
}
static inline size_t bw_msgpack_left(const bw_msgpack_reader *r) { return (size_t)(r->end - r->at); }
/* Where the reader stands, for messages. */
static inline size_t bw_msgpack_position(const bw_msgpack_reader *r) { return (size_t)(r->at - r->start); }

/* bw_msgpack_peek: the kind of the next value; nothing is consumed. */
bw_msgpack_kind bw_msgpack_peek(const bw_msgpack_reader *r);
/* bw_msgpack_fail: mark the reader bad; always false. why is static text. */
bool bw_msgpack_fail(bw_msgpack_reader *r, const char *why);

/* Each takes one value of its kind; false and bad otherwise. */
bool bw_msgpack_read_nil(bw_msgpack_reader *r);
bool bw_msgpack_read_bool(bw_msgpack_reader *r, bool *out);
/* An integer in any of msgpack's forms, within [min, max]. */
bool bw_msgpack_read_int(bw_msgpack_reader *r, int64_t min, int64_t max, int64_t *out);
bool bw_msgpack_read_uint(bw_msgpack_reader *r, uint64_t max, uint64_t *out);
/* An integer of either sign: *negative says that *out is the two's complement of a negative one. */
bool bw_msgpack_read_any_int(bw_msgpack_reader *r, uint64_t *out, bool *negative);
bool bw_msgpack_read_float(bw_msgpack_reader *r, double *out); /* float 32 and 64 */
bool bw_msgpack_read_str(bw_msgpack_reader *r, const char **out, size_t *len);
bool bw_msgpack_read_bin(bw_msgpack_reader *r, const uint8_t **out, size_t *len);
/* String or binary: for what is bytes, from languages that do not tell them apart. */
bool bw_msgpack_read_bytes(bw_msgpack_reader *r, const uint8_t **out, size_t *len);
bool bw_msgpack_read_ext(bw_msgpack_reader *r, int8_t *type, const uint8_t **out, size_t *len);
/* Heads: the elements follow. *count <= bytes left (pairs: half of it). */
bool bw_msgpack_read_array(bw_msgpack_reader *r, uint32_t *count);
bool bw_msgpack_read_map(bw_msgpack_reader *r, uint32_t *pairs);
/* bw_msgpack_skip: one value with all that is in it; at most BW_MSGPACK_DEPTH_MAX deep. */
bool bw_msgpack_skip(bw_msgpack_reader *r);

#endif
