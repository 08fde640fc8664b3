/* format/record_encode.h: how one record is laid out, shared by the builder and by reservations. Private to format/.
 *
 * Sizes are computed before anything is written, so that a record's length goes in front in its shortest form and one check of
 * the room covers the whole record. */
#ifndef BW_FORMAT_RECORD_ENCODE_H
#define BW_FORMAT_RECORD_ENCODE_H

#include "format/record_batch.h"

/* Attributes, and at most: timestamp delta 10, offset delta 5, three lengths of 5. */
#define BW_RECORD_FIELDS_MAX (1u + 10u + 5u + 3u * 5u)
#define BW_RECORD_LENGTH_MAX 5u

static inline uint32_t bw_varint_size_fast(uint32_t z)
{
    if (__builtin_expect(z < 0x80, 1)) return 1;
    return (38u - (uint32_t)__builtin_clz(z)) / 7;
}

static inline uint32_t bw_varlong_size_fast(uint64_t z)
{
    if (__builtin_expect(z < 0x4000, 1)) return z < 0x80 ? 1 : 2;
    return (70u - (uint32_t)__builtin_clzll(z)) / 7;
}

/* A raw (zigzag) number in its shortest form. */
static inline uint8_t *bw_varint_write(uint8_t *p, uint64_t z)
{
    if (__builtin_expect(z < 0x80, 1)) {
        *p = (uint8_t)z;
        return p + 1;
    }
    if (__builtin_expect(z < 0x4000, 1)) {
        p[0] = (uint8_t)(z | 0x80);
        p[1] = (uint8_t)(z >> 7);
        return p + 2;
    }
    for (; z >= 0x80; z >>= 7) *p++ = (uint8_t)(z | 0x80);
    *p = (uint8_t)z;
    return p + 1;
}

/* Length and bytes; NULL is null. */
static inline uint8_t *bw_field_write(uint8_t *p, const void *data, size_t len)
{
    if (!data) {
        *p = 1; /* zigzag for -1 */
        return p + 1;
    }
    p = bw_varint_write(p, (uint64_t)len << 1);
    memcpy(p, data, len);
    return p + len;
}

static inline size_t bw_field_size(const void *data, size_t len)
{
    return data ? bw_varint_size_fast((uint32_t)len << 1) + len : 1;
}

/* Lengths within int32 and no NULL with a length. */
static inline bool bw_field_ok(const void *data, size_t len) { return len <= INT32_MAX / 2 && (data || len == 0); }

/* bw_headers_size: bytes of the headers behind the count; SIZE_MAX when one of them cannot be encoded. */
size_t bw_headers_size(const bw_header *headers, size_t count);
/* bw_headers_write: the count and the headers; the caller made room. */
uint8_t *bw_headers_write(uint8_t *p, const bw_header *headers, size_t count);

#endif
