/* base/bytes.c: zigzag varints and the growable buffer.
 *
 * Invariants: bw_buf keeps len <= cap, and data is NULL exactly when cap is 0. A cursor that failed stays failed. */
#include "base/bytes.h"

#include "base/err.h"

#include <stdlib.h>

#define BUF_CAP_MIN 64u

/* An unsigned LEB128 number of at most max_bytes bytes. Bits past the 64th are dropped, as Kafka's decoder does. */
static uint64_t cursor_leb128(bw_cursor *c, unsigned max_bytes)
{
    uint64_t value = 0;
    if (c->bad) return 0;
    const uint8_t *p = c->at;
    for (unsigned i = 0; i < max_bytes && p < c->end; i++) {
        uint8_t byte = *p++;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            c->at = p;
            return value;
        }
    }
    c->bad = true;
    return 0;
}

int32_t bw_cursor_varint(bw_cursor *c)
{
    uint32_t z = (uint32_t)cursor_leb128(c, 5);
    return (int32_t)((z >> 1) ^ (0u - (z & 1)));
}

int64_t bw_cursor_varlong(bw_cursor *c)
{
    uint64_t z = cursor_leb128(c, 10);
    return (int64_t)((z >> 1) ^ (UINT64_C(0) - (z & 1)));
}

size_t bw_varint_size(int32_t v)
{
    uint32_t bits = 32u - (uint32_t)__builtin_clz(bw_zigzag32(v) | 1);
    return (bits + 6) / 7;
}

size_t bw_varlong_size(int64_t v)
{
    uint32_t bits = 64u - (uint32_t)__builtin_clzll(bw_zigzag64(v) | 1);
    return (bits + 6) / 7;
}

static uint8_t *put_leb128(uint8_t *p, uint64_t z)
{
    while (z >= 0x80) {
        *p++ = (uint8_t)(z | 0x80);
        z >>= 7;
    }
    *p++ = (uint8_t)z;
    return p;
}

uint8_t *bw_put_varint(uint8_t *p, int32_t v) { return put_leb128(p, bw_zigzag32(v)); }

uint8_t *bw_put_varlong(uint8_t *p, int64_t v) { return put_leb128(p, bw_zigzag64(v)); }

uint8_t *bw_put_varint_padded(uint8_t *p, int32_t v, size_t width)
{
    uint32_t z = bw_zigzag32(v);
    for (size_t i = 1; i < width; i++) {
        *p++ = (uint8_t)(z | 0x80);
        z >>= 7;
    }
    *p++ = (uint8_t)z;
    return p;
}

bw_err bw_buf_reserve(bw_buf *b, size_t extra)
{
    if (b->cap - b->len >= extra) return BW_OK;
    if (extra > PTRDIFF_MAX - b->len)
        return bw_fail(BW_ERR_NO_MEMORY, "a buffer of %zu bytes cannot grow by %zu bytes: no such size exists", b->len, extra);
    size_t need = b->len + extra;
    size_t cap = b->cap <= PTRDIFF_MAX / 2 ? b->cap * 2 : need;
    if (cap < need) cap = need;
    if (cap < BUF_CAP_MIN) cap = BUF_CAP_MIN;
    uint8_t *data = realloc(b->data, cap);
    if (!data) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a buffer of %zu bytes; free some or lower the limits", cap);
    b->data = data;
    b->cap = cap;
    return BW_OK;
}

bw_err bw_buf_append(bw_buf *b, const void *data, size_t len)
{
    if (len == 0) return BW_OK;
    bw_err err = bw_buf_reserve(b, len);
    if (err) return err;
    memcpy(b->data + b->len, data, len);
    b->len += len;
    return BW_OK;
}

void bw_buf_consume(bw_buf *b, size_t len)
{
    if (len >= b->len) {
        b->len = 0;
        return;
    }
    if (len == 0) return;
    memmove(b->data, b->data + len, b->len - len);
    b->len -= len;
}

void bw_buf_free(bw_buf *b)
{
    free(b->data);
    *b = (bw_buf){NULL, 0, 0};
}

char *bw_text_copy(const void *text, size_t len)
{
    char *copy = malloc(len + 1);
    if (!copy) return NULL;
    if (len) memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}
