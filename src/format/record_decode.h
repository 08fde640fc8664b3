/* format/record_decode.h: the hot path of reading, inlined into its callers. Included by format/record_batch.h only.
 *
 * Common records (record length, timestamp and offset of up to three bytes, key and value length of up to two, a header count of
 * one) are decoded here; whatever is longer, cut or broken is left untouched to bw_record_iter_next_any, which decodes everything
 * and makes the errors. Both give the same answer for every record that this one accepts (a test and a fuzzer compare them).
 * Invariant: nothing outside [at, at.end) is read. One check makes room for all fields before the key (3 + 1 + 3 + 3 + 2 bytes);
 * from the key on each field is checked against the record's own end, which lies within. */
#ifndef BW_FORMAT_RECORD_DECODE_H
#define BW_FORMAT_RECORD_DECODE_H

#define BW_RECORD_PREFIX_MAX 12

/* The raw (zigzag) varint at p into z, p moved behind it; up to two (three) bytes, all readable. Longer: to the label any. */
#define BW_VARINT_FAST2(p, z)                                 \
    do {                                                      \
        (z) = *(p)++;                                         \
        if ((z) >= 0x80) {                                    \
            uint32_t high_ = *(p)++;                          \
            if (__builtin_expect(high_ >= 0x80, 0)) goto any; \
            (z) = ((z) & 0x7f) | high_ << 7;                    \
        }                                                     \
    } while (0)
#define BW_VARINT_FAST3(p, z)                         \
    do {                                              \
        (z) = *(p)++;                                 \
        if ((z) >= 0x80) {                            \
            uint32_t high_ = *(p)++;                  \
            (z) = ((z) & 0x7f) | (high_ & 0x7f) << 7;   \
            if (__builtin_expect(high_ >= 0x80, 0)) { \
                high_ = *(p)++;                       \
                if (high_ >= 0x80) goto any;          \
                (z) |= high_ << 14;                   \
            }                                         \
        }                                             \
    } while (0)

static inline int bw_record_iter_next(bw_record_iter *it, bw_record_view *out)
{
    const uint8_t *p = it->at.at;
    uint32_t z, timestamp, offset;

    if (__builtin_expect(it->left <= 0 || it->at.end - p < BW_RECORD_PREFIX_MAX, 0)) goto any;
    BW_VARINT_FAST3(p, z);
    if (__builtin_expect((z & 1) || (ptrdiff_t)(z >> 1) > it->at.end - p, 0)) goto any;
    const uint8_t *end = p + (z >> 1);
    p++; /* attributes: Kafka defines none */
    BW_VARINT_FAST3(p, timestamp);
    BW_VARINT_FAST3(p, offset);
    if (__builtin_expect(offset & 1, 0)) goto any;

    BW_VARINT_FAST2(p, z); /* key length; 1 is zigzag for -1: null */
    const uint8_t *key = p;
    if (z & 1) {
        if (__builtin_expect(z != 1, 0)) goto any;
        key = NULL;
        z = 0;
    }
    uint32_t key_len = z >> 1;
    if (__builtin_expect((ptrdiff_t)key_len > end - p - 2, 0)) goto any; /* a value length of two bytes stays readable */
    p += key_len;

    BW_VARINT_FAST2(p, z);
    const uint8_t *value = p;
    if (z & 1) {
        if (__builtin_expect(z != 1, 0)) goto any;
        value = NULL;
        z = 0;
    }
    uint32_t value_len = z >> 1;
    if (__builtin_expect((ptrdiff_t)value_len > end - p - 1, 0)) goto any; /* the header count stays readable */
    p += value_len;

    z = *p++;
    /* One byte, not negative; two bytes at least for each header; nothing behind the value when there is none. */
    if (__builtin_expect((z & 0x81) || (ptrdiff_t)z > end - p || (z == 0 && p != end), 0)) goto any;

    out->offset = (int64_t)((uint64_t)it->base_offset + (offset >> 1));
    uint64_t delta = (uint64_t)(timestamp >> 1) ^ (UINT64_C(0) - (timestamp & 1));
    out->timestamp_ms = it->append_time != BW_NO_TIMESTAMP ? it->append_time : (int64_t)((uint64_t)it->base_timestamp + delta);
    out->key = key;
    out->value = value;
    out->headers_raw = p;
    out->key_len = key_len;
    out->value_len = value_len;
    out->header_count = z >> 1;
    out->headers_len = (uint32_t)(end - p);
    it->at.at = end;
    it->left--;
    return 1;
any:
    return bw_record_iter_next_any(it, out);
}

#endif
