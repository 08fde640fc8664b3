/* base/bytes.h: big-endian fields, a bounded read cursor, a growable buffer, zigzag varints as Kafka encodes them.
 *
 * Invariant of the cursor: at <= end always; a read that would pass the end sets `bad`, returns 0, and every later read does the
 * same, so that a decoder checks once at the end of each unit. */
#ifndef BW_BASE_BYTES_H
#define BW_BASE_BYTES_H

#include <busway/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Busway supports little-endian hosts only"
#endif

static inline uint16_t bw_get_be16(const void *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static inline uint32_t bw_get_be32(const void *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint64_t bw_get_be64(const void *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
static inline void bw_put_be16(void *p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
static inline void bw_put_be32(void *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static inline void bw_put_be64(void *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }

typedef struct bw_cursor {
    const uint8_t *at;
    const uint8_t *end;
    bool bad;
} bw_cursor;

static inline bw_cursor bw_cursor_over(const void *data, size_t len)
{
    const uint8_t *p = (const uint8_t *)data;
    return (bw_cursor){p, p ? p + len : p, false};
}
static inline size_t bw_cursor_left(const bw_cursor *c) { return (size_t)(c->end - c->at); }
/* bw_cursor_take: the next len bytes, or NULL and bad. */
static inline const uint8_t *bw_cursor_take(bw_cursor *c, size_t len)
{
    if (c->bad || bw_cursor_left(c) < len) { c->bad = true; return NULL; }
    const uint8_t *p = c->at;
    c->at += len;
    return p;
}
static inline uint8_t bw_cursor_u8(bw_cursor *c) { const uint8_t *p = bw_cursor_take(c, 1); return p ? *p : 0; }
static inline uint16_t bw_cursor_be16(bw_cursor *c) { const uint8_t *p = bw_cursor_take(c, 2); return p ? bw_get_be16(p) : 0; }
static inline uint32_t bw_cursor_be32(bw_cursor *c) { const uint8_t *p = bw_cursor_take(c, 4); return p ? bw_get_be32(p) : 0; }
static inline uint64_t bw_cursor_be64(bw_cursor *c) { const uint8_t *p = bw_cursor_take(c, 8); return p ? bw_get_be64(p) : 0; }
/* Zigzag varints of at most 5 / 10 bytes; longer or cut ones set bad. Non-minimal encodings are accepted, as Kafka does. */
int32_t bw_cursor_varint(bw_cursor *c);
int64_t bw_cursor_varlong(bw_cursor *c);

static inline uint32_t bw_zigzag32(int32_t v) { return ((uint32_t)v << 1) ^ (uint32_t)(v >> 31); }
static inline uint64_t bw_zigzag64(int64_t v) { return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63); }
/* Bytes that the zigzag varint takes, 1..5 / 1..10. */
size_t bw_varint_size(int32_t v);
size_t bw_varlong_size(int64_t v);
/* Write at p, return the byte after. The caller made room. */
uint8_t *bw_put_varint(uint8_t *p, int32_t v);
uint8_t *bw_put_varlong(uint8_t *p, int64_t v);
/* bw_put_varint_padded: exactly width bytes (1..5, at least bw_varint_size(v)), padded with non-minimal groups. */
uint8_t *bw_put_varint_padded(uint8_t *p, int32_t v, size_t width);

/* A growable buffer. Zero-initialised is empty. Not thread-safe. */
typedef struct bw_buf {
    uint8_t *data;
    size_t len;
    size_t cap;
} bw_buf;

/* bw_buf_reserve: room for extra more bytes. NO_MEMORY. */
bw_err bw_buf_reserve(bw_buf *b, size_t extra);
bw_err bw_buf_append(bw_buf *b, const void *data, size_t len);
/* bw_buf_consume: drop the first len bytes. */
void bw_buf_consume(bw_buf *b, size_t len);
void bw_buf_free(bw_buf *b);

/* bw_text_copy: malloc'd, with a NUL behind it; the text itself needs none (strndup looks for one). NULL: no memory. */
char *bw_text_copy(const void *text, size_t len);

#endif
