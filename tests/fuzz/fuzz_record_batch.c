/* Record batches: any bytes as a batch, any bytes as the records of a well-summed batch, any records there and back.
 * First byte: what to do with the rest (see fuzz_input), or its codec. */
#include "fuzz/fuzz.h"

#include "format/batch_filter.h"
#include "format/codec.h"
#include "format/record_batch.h"

#define PLAIN_MAX (256u * 1024u)

static bool within(const uint8_t *field, uint32_t len, const uint8_t *data, size_t data_len)
{
    return !field || (field >= data && len <= data_len && (size_t)(field - data) <= data_len - len);
}

/* Every record by both decoders, which must agree; every header. */
static void read_section(const bw_batch_header *h, const uint8_t *records, size_t len)
{
    bw_record_iter fast, any;
    bw_record_view a, b;
    bw_record_iter_init(&fast, h, records, len);
    bw_record_iter_init(&any, h, records, len);
    for (;;) {
        int x = bw_record_iter_next(&fast, &a), y = bw_record_iter_next_any(&any, &b);
        FUZZ_CHECK(x == y && fast.at.at == any.at.at && fast.left == any.left);
        if (x <= 0) return;
        FUZZ_CHECK(a.offset == b.offset && a.timestamp_ms == b.timestamp_ms && a.key == b.key && a.value == b.value &&
                   a.headers_raw == b.headers_raw && a.key_len == b.key_len && a.value_len == b.value_len &&
                   a.header_count == b.header_count && a.headers_len == b.headers_len);
        FUZZ_CHECK(within(a.key, a.key_len, records, len) && within(a.value, a.value_len, records, len) &&
                   within(a.headers_raw, a.headers_len, records, len));
        bw_header_iter it;
        bw_header header;
        bw_header_iter_init(&it, &a);
        while (bw_header_iter_next(&it, &header) > 0)
            FUZZ_CHECK(within((const uint8_t *)header.name, (uint32_t)header.name_len, a.headers_raw, a.headers_len) &&
                       within(header.value, (uint32_t)header.value_len, a.headers_raw, a.headers_len));
    }
}

static bw_filter_verdict every_other(void *opaque, const bw_record_view *r)
{
    (void)opaque;
    return r->offset % 2 ? BW_FILTER_DROP : r->value ? BW_FILTER_KEEP : BW_FILTER_KEEP_TOMBSTONE;
}

/* A batch without some records: whatever comes out is a sound batch that spans the same offsets. */
static void filter_batch(const uint8_t *data, const bw_batch_header *h)
{
    bw_batch_filter f = {0};
    bw_batch_header out_header;
    const uint8_t *out = NULL;
    size_t len = 0;
    fuzz_allow(4 * PLAIN_MAX);
    bool sound = bw_batch_check_records(data, h, PLAIN_MAX) == BW_OK;
    bw_err e = bw_batch_filter_run(&f, data, h, PLAIN_MAX, 1, every_other, NULL, &out, &len);
    if (sound && e == BW_OK) {
        FUZZ_CHECK(bw_batch_header_decode(out, len, false, &out_header) == BW_OK && bw_batch_size(&out_header) == len);
        FUZZ_CHECK(out_header.base_offset == h->base_offset && out_header.last_offset_delta == h->last_offset_delta);
        FUZZ_CHECK(out_header.record_count <= h->record_count);
        FUZZ_CHECK(bw_batch_check_records(out, &out_header, 2 * PLAIN_MAX) == BW_OK);
    }
    bw_batch_filter_fini(&f);
}

static void read_batch(const uint8_t *data, size_t size)
{
    bw_batch_header h;
    fuzz_allow(2 * PLAIN_MAX);
    if (size > 22 && (data[22] & BW_ATTR_CODEC_MASK) == BW_CODEC_LZ4) fuzz_allow(FUZZ_LZ4_BLOCKS);
    bw_err whole = bw_batch_validate(data, size, PLAIN_MAX, true, &h);
    if (whole == BW_OK) FUZZ_CHECK(bw_batch_size(&h) == size && bw_batch_crc_ok(data, size));
    if (bw_batch_header_decode(data, size, true, &h) != BW_OK) return;
    size_t len = bw_batch_size(&h) < size ? bw_batch_size(&h) : size;
    bw_batch_crc_ok(data, len);
    if (bw_batch_size(&h) <= size) bw_batch_check_records(data, &h, PLAIN_MAX);
    if (bw_batch_size(&h) <= size) filter_batch(data, &h);
    bw_buf plain = {NULL, 0, 0};
    bw_codec codec = (bw_codec)(h.attributes & BW_ATTR_CODEC_MASK);
    if (bw_codec_decompress(codec, data + BW_BATCH_HEADER_BYTES, len - BW_BATCH_HEADER_BYTES, PLAIN_MAX, &plain) == BW_OK)
        read_section(&h, plain.data, plain.len);
    bw_buf_free(&plain);
}

/* Magic, length and checksum made right, so that what lies behind them is reached. */
static void read_mended_batch(const uint8_t *data, size_t size)
{
    if (size < BW_BATCH_HEADER_BYTES) return;
    uint8_t *copy = malloc(size);
    FUZZ_CHECK(copy);
    memcpy(copy, data, size);
    bw_put_be32(copy + 8, (uint32_t)size - 12);
    copy[16] = BW_BATCH_MAGIC;
    copy[0] &= 0x7f;
    bw_batch_seal_crc(copy, size);
    FUZZ_CHECK(bw_batch_crc_ok(copy, size));
    read_batch(copy, size);
    free(copy);
}

static bw_record next_record(const uint8_t **at, const uint8_t *end, bw_header *header)
{
    const uint8_t *p = *at;
    uint8_t shape = *p++;
    size_t left = (size_t)(end - p), key = shape & 0x1f, value = left > 0 ? *p : 0;
    if (key > left) key = left;
    if (value > left - key) value = left - key;
    bw_record r = {
        .key = shape & 0x20 ? NULL : p,
        .key_len = shape & 0x20 ? 0 : key,
        .value = shape & 0x40 ? NULL : p + key,
        .value_len = shape & 0x40 ? 0 : value,
        .headers = header,
        .header_count = shape >> 7,
        .timestamp_ms = (int64_t)((uint64_t)(shape ^ value) << (value % 55)),
    };
    *header = (bw_header){(const char *)p, key, r.value, r.value_len};
    *at = p + key + value;
    return r;
}

static void build_and_read_back(bw_codec codec, const uint8_t *data, size_t size)
{
    bw_batch_builder b;
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    bw_batch_header h;
    uint8_t *batch;
    size_t len;
    int32_t count = 0;
    options.codec = codec;
    bw_batch_builder_init(&b);
    for (const uint8_t *at = data; at < data + size; count++) {
        bw_header header;
        bw_record r = next_record(&at, data + size, &header);
        size_t before = bw_batch_builder_size(&b);
        FUZZ_CHECK(bw_batch_builder_add(&b, &r) == BW_OK);
        FUZZ_CHECK(bw_batch_builder_size(&b) - before <= bw_record_encoded_size(&r));
    }
    if (count > 0) {
        FUZZ_CHECK(bw_batch_builder_finish(&b, &options, &batch, &len) == BW_OK);
        FUZZ_CHECK(bw_batch_validate(batch, len, 64u << 20, true, &h) == BW_OK && h.record_count == count);
        bw_buf plain = {NULL, 0, 0};
        FUZZ_CHECK(bw_codec_decompress(codec, batch + BW_BATCH_HEADER_BYTES, len - BW_BATCH_HEADER_BYTES, 64u << 20, &plain) ==
                   BW_OK);
        bw_record_iter it;
        bw_record_view v;
        bw_record_iter_init(&it, &h, plain.data, plain.len);
        for (const uint8_t *at = data; at < data + size;) {
            bw_header header, got;
            bw_header_iter headers;
            bw_record r = next_record(&at, data + size, &header);
            FUZZ_CHECK(bw_record_iter_next(&it, &v) == 1);
            FUZZ_CHECK(!r.key == !v.key && r.key_len == v.key_len && (!r.key_len || !memcmp(r.key, v.key, r.key_len)));
            FUZZ_CHECK(!r.value == !v.value && r.value_len == v.value_len &&
                       (!r.value_len || !memcmp(r.value, v.value, r.value_len)));
            FUZZ_CHECK(r.timestamp_ms == v.timestamp_ms && r.header_count == v.header_count);
            bw_header_iter_init(&headers, &v);
            if (r.header_count) FUZZ_CHECK(bw_header_iter_next(&headers, &got) == 1 && got.name_len == header.name_len);
            FUZZ_CHECK(bw_header_iter_next(&headers, &got) == 0);
        }
        FUZZ_CHECK(bw_record_iter_next(&it, &v) == 0);
        bw_buf_free(&plain);
    }
    bw_batch_builder_fini(&b);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 65536) return 0;
    uint8_t mode = data[0];
    data++;
    size--;
    switch (mode % 8) {
    case 0:
        read_batch(data, size);
        break;
    case 1:
        read_mended_batch(data, size);
        break;
    case 2: {
        bw_batch_header h = {.base_offset = INT64_MAX - 9, .base_timestamp = INT64_MAX, .record_count = mode / 8};
        read_section(&h, data, size);
        break;
    }
    default:
        fuzz_pause();
        build_and_read_back((bw_codec)(mode % 8 - 3), data, size);
        fuzz_resume();
    }
    return 0;
}
