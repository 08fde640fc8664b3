/* format/record_batch_single.c: a batch of one record, written where it will stay.
 *
 * What a general encoder does, it does too slowly here: it stores the batch and reads it back for the checksum. The stores of an
 * append stand in line behind the tail of the append before, whose line a reader holds, and a load that needs parts of several
 * waiting stores waits with them. So everything is composed in registers, the checksum takes it from there and from the caller's
 * value, and nothing that was written is read. Gives byte for byte what the builder gives. */
#include "base/crc32c.h"
#include "base/err.h"
#include "format/record_batch.h"

#include <string.h>

#ifdef BW_CRC32C_TARGET

enum { VALUE_MIN = 16, VALUE_MAX = 8000 };

static inline void put32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }
static inline void put64(uint8_t *p, uint64_t v) { memcpy(p, &v, 8); }

static inline uint64_t get64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* A varint of at most two bytes, in `wide` + 1 of them. */
static inline uint64_t varint_in(uint32_t z, uint32_t wide) { return wide ? ((z & 0x7f) | 0x80 | (z >> 7) << 8) : z; }

/* The record in front of its value: lengths (as wide as those of value_max are), attributes, deltas, no key; in byte order. */
static inline uint64_t record_front(uint32_t value_len, uint32_t value_max, unsigned *bytes)
{
    uint32_t wide_len = value_max >= 0x40, body = 6 + wide_len + value_len, wide_body = (6 + wide_len + value_max) << 1 >= 0x80;
    uint64_t front = varint_in(body << 1, wide_body);
    unsigned n = 1 + wide_body + 3; /* attributes, timestamp delta and offset delta are 0 */
    front |= UINT64_C(1) << (8 * n++); /* key: null */
    front |= varint_in(value_len << 1, wide_len) << (8 * n);
    *bytes = n + 1 + wide_len;
    return front;
}

static inline void copy_value(uint8_t *to, const uint8_t *from, size_t len)
{
    size_t last = len - 16;
    for (size_t i = 0; i < last; i += 16) memcpy(to + i, from + i, 16);
    memcpy(to + last, from + last, 16);
}

/* front (n bytes, at most 8), the value, a byte 0. */
BW_CRC32C_TARGET static inline uint32_t record_crc(uint32_t crc, uint64_t front, unsigned n, const uint8_t *value, size_t len)
{
    size_t at = 8 - n; /* bytes of the value that go with the front */
    crc = BW_CRC32C_U64(crc, n == 8 ? front : front | get64(value) << (8 * n));
    if (len - at >= 256) {
        crc = ~bw_crc32c_extend(~crc, value + at, len - at);
    } else {
        for (; at + 8 <= len; at += 8) crc = BW_CRC32C_U64(crc, get64(value + at));
        if (at < len) { /* the last bytes and the 0 behind them, from the end of the value */
            unsigned left = (unsigned)(len - at);
            uint64_t end = get64(value + len - 8) >> (8 * (8 - left));
            for (; left > 0; left--, end >>= 8) crc = BW_CRC32C_U8(crc, (uint8_t)end);
        }
    }
    return BW_CRC32C_U8(crc, 0);
}

/* Everything but the value's bytes, which lie at `value`. */
BW_CRC32C_TARGET static inline size_t put_around(uint8_t *p, const uint8_t *value, size_t value_len, uint64_t front, unsigned n,
                                                 int64_t timestamp_ms, int64_t base_offset, int32_t leader_epoch)
{
    uint32_t records = n + (uint32_t)value_len + 1, length = BW_BATCH_HEADER_BYTES - 12 + records;
    uint64_t time = __builtin_bswap64((uint64_t)timestamp_ms);
    /* attributes, last offset delta 0, base and newest timestamp, producer id, epoch and sequence -1, one record: 40 bytes */
    uint64_t w0 = time << 48, w1 = time >> 16 | time << 48, w2 = time >> 16 | UINT64_C(0xffff) << 48, w3 = UINT64_MAX;
    uint64_t w4 = UINT64_C(0xffffffff) | UINT64_C(1) << 56;
    uint32_t crc = UINT32_MAX;
    crc = BW_CRC32C_U64(crc, w0);
    crc = BW_CRC32C_U64(crc, w1);
    crc = BW_CRC32C_U64(crc, w2);
    crc = BW_CRC32C_U64(crc, w3);
    crc = BW_CRC32C_U64(crc, w4);
    crc = ~record_crc(crc, front, n, value, value_len);
    put64(p, __builtin_bswap64((uint64_t)base_offset));
    put64(p + 8, __builtin_bswap32(length) | (uint64_t)__builtin_bswap32((uint32_t)leader_epoch) << 32);
    put64(p + 16, BW_BATCH_MAGIC | (uint64_t)__builtin_bswap32(crc) << 8);
    put64(p + 21, w0);
    put64(p + 29, w1);
    put64(p + 37, w2);
    put64(p + 45, w3);
    put64(p + 53, w4);
    put32(p + 61, (uint32_t)front); /* n is 6 to 8: not a byte of the value, which may lie there */
    put32(p + 61 + n - 4, (uint32_t)(front >> (8 * (n - 4))));
    p[61 + n + value_len] = 0; /* headers: none */
    return 12 + (size_t)length;
}

static bool common_shape(const bw_record *r, size_t value_len)
{
    return !r->key && r->key_len == 0 && r->header_count == 0 && value_len >= VALUE_MIN && value_len <= VALUE_MAX && BW_CRC32C_READY();
}

size_t bw_batch_single_size(const bw_record *r)
{
    unsigned n;
    if (!r->value || !common_shape(r, r->value_len)) return 0;
    (void)record_front((uint32_t)r->value_len, (uint32_t)r->value_len, &n);
    return BW_BATCH_HEADER_BYTES + n + r->value_len + 1;
}

BW_CRC32C_TARGET size_t bw_batch_single_write(uint8_t *place, const bw_record *r, int64_t timestamp_ms, int64_t base_offset,
                                              int32_t leader_epoch)
{
    unsigned n;
    uint64_t front = record_front((uint32_t)r->value_len, (uint32_t)r->value_len, &n);
    copy_value(place + BW_BATCH_HEADER_BYTES + n, r->value, r->value_len);
    return put_around(place, r->value, r->value_len, front, n, timestamp_ms, base_offset, leader_epoch);
}

BW_CRC32C_TARGET size_t bw_batch_single_finish(uint8_t *place, const bw_record *meta, size_t value_max, size_t value_len,
                                               int64_t base_offset, int32_t leader_epoch)
{
    unsigned n;
    if (!common_shape(meta, value_len) || value_max > VALUE_MAX) return 0;
    uint64_t front = record_front((uint32_t)value_len, (uint32_t)value_max, &n);
    return put_around(place, place + BW_BATCH_HEADER_BYTES + n, value_len, front, n, meta->timestamp_ms, base_offset, leader_epoch);
}

#else

size_t bw_batch_single_size(const bw_record *r)
{
    (void)r;
    return 0;
}

size_t bw_batch_single_write(uint8_t *place, const bw_record *r, int64_t timestamp_ms, int64_t base_offset, int32_t leader_epoch)
{
    (void)place, (void)r, (void)timestamp_ms, (void)base_offset, (void)leader_epoch;
    return 0;
}

size_t bw_batch_single_finish(uint8_t *place, const bw_record *meta, size_t value_max, size_t value_len, int64_t base_offset,
                              int32_t leader_epoch)
{
    (void)place, (void)meta, (void)value_max, (void)value_len, (void)base_offset, (void)leader_epoch;
    return 0;
}

#endif
