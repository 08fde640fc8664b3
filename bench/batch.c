/* bench/batch.c: Kafka v2 record batches for the bare limit, written down here once more so that the limit owes nothing to the
 * library but the format. The only thing borrowed is CRC-32C from ISA-L.
 *
 * Reading does for each batch: the header's length, magic, base offset, counts; the checksum over all bytes from 21; then for
 * each record every field (length, attributes, timestamp delta, offset delta, key, value, header count), each bounds-checked and
 * put into a view, and the view's value is touched at both ends. That is what iterating with the library gives its caller. */
#include "bench.h"

#include <isa-l/crc.h>
#include <stdlib.h>
#include <string.h>

void bench_put_be32(uint8_t *p, uint32_t v)
{
    v = __builtin_bswap32(v);
    memcpy(p, &v, 4);
}

void bench_put_be64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, 8);
}

static uint32_t get_be32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return __builtin_bswap32(v);
}

static uint64_t get_be64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return __builtin_bswap64(v);
}

/* ISA-L's AVX-512 code leaves the upper halves of the vector registers in use, which slows what comes after it down. */
#if defined(__x86_64__)
__attribute__((target("avx"))) static void vectors_clear(void) { __builtin_ia32_vzeroupper(); }
#else
static void vectors_clear(void) {}
#endif

uint32_t bench_batch_crc(const uint8_t *batch, uint32_t len)
{
    uint32_t state =
        crc32_iscsi((unsigned char *)(uintptr_t)(batch + BENCH_BATCH_CRC_FROM), (int)(len - BENCH_BATCH_CRC_FROM), 0xFFFFFFFFu);
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx"))
#endif
        vectors_clear();
    return ~state;
}

void bench_value_fill(uint8_t *value, uint32_t len, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1;
    for (uint32_t i = 0; i < len; i++) {
        x = x * 1664525u + 1013904223u;
        value[i] = (uint8_t)(x >> 24);
    }
}

static uint8_t *put_varint(uint8_t *p, int64_t value)
{
    uint64_t v = ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
    while (v >= 0x80) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

uint8_t *bench_batch_build(uint32_t count, uint32_t value_len, uint32_t *len)
{
    uint8_t *b = malloc(BENCH_BATCH_HEADER + (size_t)count * (value_len + 32));
    if (!b) return NULL;
    uint8_t *p = b + BENCH_BATCH_HEADER;
    for (uint32_t i = 0; i < count; i++) {
        uint8_t fields[32], *f = fields;
        *f++ = 0;              /* attributes */
        f = put_varint(f, 0);  /* timestamp delta */
        f = put_varint(f, i);  /* offset delta */
        f = put_varint(f, -1); /* key: null */
        f = put_varint(f, value_len);
        p = put_varint(p, (f - fields) + value_len + 1);
        memcpy(p, fields, (size_t)(f - fields));
        p += f - fields;
        bench_value_fill(p, value_len, i);
        p += value_len;
        *p++ = 0; /* headers */
    }
    *len = (uint32_t)(p - b);
    memset(b, 0, BENCH_BATCH_HEADER);
    bench_put_be32(b + 8, *len - 12);
    b[16] = 2;
    bench_put_be32(b + 23, count - 1);
    bench_put_be64(b + 27, 1700000000000u);
    bench_put_be64(b + 35, 1700000000000u);
    memset(b + 43, 0xFF, 14); /* producer id, epoch, sequence: none */
    bench_put_be32(b + 57, count);
    bench_put_be32(b + BENCH_BATCH_CRC_AT, bench_batch_crc(b, *len));
    return b;
}

typedef struct view {
    int64_t offset, timestamp;
    const uint8_t *key, *value;
    uint32_t key_len, value_len, headers;
} view;

static inline bool get_varint(const uint8_t **p, const uint8_t *end, int64_t *out)
{
    if (*p >= end) return false;
    uint64_t v = **p & 0x7Fu;
    unsigned shift = 7;
    while (*(*p)++ & 0x80) {
        if (*p >= end || shift > 63) return false;
        v |= (uint64_t)(**p & 0x7Fu) << shift;
        shift += 7;
    }
    *out = (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
    return true;
}

static inline const uint8_t *read_record(const uint8_t *p, const uint8_t *end, int64_t base, int64_t base_timestamp, view *out)
{
    int64_t len, timestamp, delta, key, value, headers;
    if (!get_varint(&p, end, &len) || len < 6 || len > end - p) return NULL;
    const uint8_t *stop = p + len;
    p++; /* attributes */
    if (!get_varint(&p, stop, &timestamp) || !get_varint(&p, stop, &delta) || !get_varint(&p, stop, &key)) return NULL;
    if (key < -1 || key > stop - p) return NULL;
    out->key = key < 0 ? NULL : p;
    out->key_len = key < 0 ? 0 : (uint32_t)key;
    p += out->key_len;
    if (!get_varint(&p, stop, &value) || value < -1 || value > stop - p) return NULL;
    out->value = value < 0 ? NULL : p;
    out->value_len = value < 0 ? 0 : (uint32_t)value;
    p += out->value_len;
    if (!get_varint(&p, stop, &headers) || headers != 0 || p != stop) return NULL; /* these batches have none */
    out->headers = 0;
    out->offset = base + delta;
    out->timestamp = base_timestamp + timestamp;
    return p;
}

uint32_t bench_batch_read(const uint8_t *at, uint32_t left, int64_t expected_base, uint32_t *count, uint64_t *sum)
{
    if (left < BENCH_BATCH_HEADER || at[16] != 2) return 0;
    uint32_t len = get_be32(at + 8) + 12, n = get_be32(at + 57);
    int64_t base = (int64_t)get_be64(at), base_timestamp = (int64_t)get_be64(at + 27);
    if (len < BENCH_BATCH_HEADER || len > left || base != expected_base || get_be32(at + 23) + 1 != n) return 0;
    if (bench_batch_crc(at, len) != get_be32(at + BENCH_BATCH_CRC_AT)) return 0;
    const uint8_t *p = at + BENCH_BATCH_HEADER, *end = at + len;
    uint64_t seen = 0;
    for (uint32_t i = 0; i < n; i++) {
        view v;
        p = read_record(p, end, base, base_timestamp, &v);
        if (!p || v.offset != base + i) return 0;
        if (v.value_len) seen += v.value[0] + v.value[v.value_len - 1];
        seen += v.value_len + v.key_len + (uint64_t)v.timestamp;
    }
    if (p != end) return 0;
    *count = n;
    *sum += seen;
    return len;
}
