/* format/record_batch.h against bytes that are cut, flipped or made up. All input lies before a guard page: one byte read too far
 * kills the test. The inlined decoder and the full one must agree on every input. */
#include "samples.h"

#include "base/err.h"

#include <stdlib.h>

static bool views_equal(const bw_record_view *a, const bw_record_view *b)
{
    return a->offset == b->offset && a->timestamp_ms == b->timestamp_ms && a->key == b->key && a->value == b->value &&
           a->headers_raw == b->headers_raw && a->key_len == b->key_len && a->value_len == b->value_len &&
           a->header_count == b->header_count && a->headers_len == b->headers_len;
}

static bool within(const uint8_t *field, uint32_t len, const uint8_t *data, size_t data_len)
{
    return !field || (field >= data && len <= data_len && (size_t)(field - data) <= data_len - len);
}

/* Iterates to the end with both decoders; the outcome of the last call. */
static int iterate(const bw_batch_header *h, const uint8_t *records, size_t len)
{
    bw_record_iter fast, any;
    bw_record_iter_init(&fast, h, records, len);
    bw_record_iter_init(&any, h, records, len);
    for (int32_t i = 0;; i++) {
        bw_record_view a, b;
        int x = bw_record_iter_next(&fast, &a), y = bw_record_iter_next_any(&any, &b);
        assert_int_equal(x, y);
        if (x <= 0) {
            if (x == 0) assert_int_equal(i, h->record_count);
            assert_int_equal(bw_record_iter_next(&fast, &a), x);
            return x;
        }
        assert_true(views_equal(&a, &b));
        assert_ptr_equal(fast.at.at, any.at.at);
        assert_true(within(a.key, a.key_len, records, len));
        assert_true(within(a.value, a.value_len, records, len));
        assert_true(within(a.headers_raw, a.headers_len, records, len));
        bw_header_iter headers;
        bw_header header;
        uint32_t seen = 0;
        int more;
        bw_header_iter_init(&headers, &a);
        while ((more = bw_header_iter_next(&headers, &header)) > 0) {
            seen++;
            assert_true(within((const uint8_t *)header.name, (uint32_t)header.name_len, a.headers_raw, a.headers_len));
            assert_true(within(header.value, (uint32_t)header.value_len, a.headers_raw, a.headers_len));
        }
        if (more == 0) assert_int_equal(seen, a.header_count);
    }
}

static void test_decoders_agree_on_every_sample(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    bw_batch_header h;
    uint8_t *batch;
    size_t len;
    sample_batch(&b, 0, 9000, &options, &batch, &len); /* offsets of one to three bytes */
    assert_int_equal(bw_batch_header_decode(batch, len, false, &h), BW_OK);
    assert_int_equal(iterate(&h, batch + BW_BATCH_HEADER_BYTES, len - BW_BATCH_HEADER_BYTES), 0);
    bw_batch_builder_fini(&b);
}

/* Small records, so that every byte's role is met: null, empty, one and two byte lengths, headers. */
static void small_batch(bw_batch_builder *b, bw_codec codec, uint8_t **batch, size_t *len)
{
    static char text[200];
    memset(text, 'v', sizeof text);
    bw_header headers[] = {{"h1", 2, "x", 1}, {"h2", 2, NULL, 0}};
    bw_record records[] = {
        {.key = "key", .key_len = 3, .value = text, .value_len = 5, .timestamp_ms = SAMPLE_TIME},
        {.value = text, .value_len = 100, .timestamp_ms = SAMPLE_TIME + 70},
        {.key = "", .timestamp_ms = SAMPLE_TIME - 9000},
        {.key = text, .key_len = 70, .value = "", .headers = headers, .header_count = 2, .timestamp_ms = SAMPLE_TIME + 3000000},
        {.timestamp_ms = SAMPLE_TIME},
    };
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    options.codec = codec;
    bw_batch_builder_reset(b);
    for (size_t i = 0; i < sizeof records / sizeof records[0]; i++) assert_int_equal(bw_batch_builder_add(b, &records[i]), BW_OK);
    assert_int_equal(bw_batch_builder_finish(b, &options, batch, len), BW_OK);
}

static void test_batch_cut_at_each_byte_is_never_valid(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    for (int codec = BW_CODEC_NONE; codec <= BW_CODEC_ZSTD; codec++) {
        uint8_t *batch;
        size_t len;
        bw_batch_header h;
        small_batch(&b, (bw_codec)codec, &batch, &len);
        guard g = guard_open(len);
        for (size_t cut = 0; cut < len; cut++)
            assert_int_equal(bw_batch_validate(guard_copy(&g, batch, cut), cut, 1 << 20, true, &h), BW_ERR_CORRUPT);
        assert_int_equal(bw_batch_validate(guard_copy(&g, batch, len), len, 1 << 20, true, &h), BW_OK);
        guard_close(&g);
    }
    bw_batch_builder_fini(&b);
}

static void test_batch_every_bit_flipped_is_never_valid_with_other_content(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    for (int codec = BW_CODEC_NONE; codec <= BW_CODEC_ZSTD; codec++) {
        uint8_t *batch;
        size_t len, accepted = 0;
        bw_batch_header h;
        small_batch(&b, (bw_codec)codec, &batch, &len);
        guard g = guard_open(len);
        for (size_t bit = 0; bit < len * 8; bit++) {
            uint8_t *copy = guard_copy(&g, batch, len);
            copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
            bw_err err = bw_batch_validate(copy, len, 1 << 20, true, &h);
            /* Base offset and leader epoch lie outside the checksum: they are the log's to know. */
            if (bit / 8 < 8 || (bit / 8 >= 12 && bit / 8 < 16))
                accepted += err == BW_OK;
            else
                assert_int_not_equal(err, BW_OK);
        }
        assert_int_equal(accepted, 63 + 32); /* all but the base offset's sign */
        guard_close(&g);
    }
    bw_batch_builder_fini(&b);
}

static void test_records_cut_at_each_byte_are_broken(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    uint8_t *batch;
    size_t len;
    bw_batch_header h;
    small_batch(&b, BW_CODEC_NONE, &batch, &len);
    assert_int_equal(bw_batch_header_decode(batch, len, false, &h), BW_OK);
    len -= BW_BATCH_HEADER_BYTES;
    guard g = guard_open(len);
    for (size_t cut = 0; cut < len; cut++)
        assert_int_equal(iterate(&h, guard_copy(&g, batch + BW_BATCH_HEADER_BYTES, cut), cut), -1);
    assert_int_equal(iterate(&h, guard_copy(&g, batch + BW_BATCH_HEADER_BYTES, len), len), 0);
    assert_true(strlen(bw_error_message()) > 10);
    guard_close(&g);
    bw_batch_builder_fini(&b);
}

static void test_records_every_byte_replaced_stay_in_bounds(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    uint8_t *batch;
    size_t len;
    bw_batch_header h;
    small_batch(&b, BW_CODEC_NONE, &batch, &len);
    assert_int_equal(bw_batch_header_decode(batch, len, false, &h), BW_OK);
    len -= BW_BATCH_HEADER_BYTES;
    guard g = guard_open(len);
    for (size_t at = 0; at < len; at++) {
        for (unsigned value = 0; value < 256; value++) {
            uint8_t *copy = guard_copy(&g, batch + BW_BATCH_HEADER_BYTES, len);
            copy[at] = (uint8_t)value;
            iterate(&h, copy, len);
        }
    }
    guard_close(&g);
    bw_batch_builder_fini(&b);
}

static void test_records_random_bytes_stay_in_bounds(void **state)
{
    (void)state;
    uint64_t seed = 42;
    guard g = guard_open(4096);
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[64];
        size_t len = random_next(&seed) % sizeof bytes;
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)(random_next(&seed) % 4 ? random_next(&seed) % 24 : random_next(&seed));
        bw_batch_header h = {.base_offset = INT64_MAX - 5, .base_timestamp = INT64_MIN + 3, .record_count = (int32_t)(round % 5)};
        iterate(&h, guard_copy(&g, bytes, len), len);
    }
    guard_close(&g);
}

static void test_iterator_more_records_announced_than_there_are_is_broken(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    uint8_t *batch;
    size_t len;
    bw_batch_header h;
    small_batch(&b, BW_CODEC_NONE, &batch, &len);
    assert_int_equal(bw_batch_header_decode(batch, len, false, &h), BW_OK);
    for (int32_t count = 0; count < 10; count++) {
        h.record_count = count;
        assert_int_equal(iterate(&h, batch + BW_BATCH_HEADER_BYTES, len - BW_BATCH_HEADER_BYTES), count == 5 ? 0 : -1);
    }
    h.record_count = INT32_MAX;
    assert_int_equal(iterate(&h, batch + BW_BATCH_HEADER_BYTES, len - BW_BATCH_HEADER_BYTES), -1);
    bw_batch_builder_fini(&b);
}

/* A batch with a right checksum around any record section. */
static bw_err validate_section(bw_codec codec, int32_t count, const void *section, size_t section_len)
{
    uint8_t *batch = malloc(BW_BATCH_HEADER_BYTES + section_len);
    assert_non_null(batch);
    memcpy(batch + BW_BATCH_HEADER_BYTES, section, section_len);
    bw_batch_header h = {.batch_length = (int32_t)(BW_BATCH_HEADER_BYTES - 12 + section_len),
                         .magic = BW_BATCH_MAGIC,
                         .attributes = (int16_t)codec,
                         .last_offset_delta = count - 1,
                         .producer_id = -1,
                         .record_count = count};
    bw_batch_header_encode(batch, &h);
    bw_err err = bw_batch_validate(batch, BW_BATCH_HEADER_BYTES + section_len, 1 << 20, true, &h);
    free(batch);
    return err;
}

static void test_validate_well_summed_nonsense_is_corrupt(void **state)
{
    (void)state;
    static const uint8_t good[] = {0x0c, 0, 0, 0, 1, 1, 0};
    static const struct {
        size_t len;
        uint8_t bytes[16];
    } bad[] = {
        {7, {0x0e, 0, 0, 0, 1, 1, 0}},                          /* length passes the end */
        {7, {0x0a, 0, 0, 0, 1, 1, 0}},                          /* length too short for its fields */
        {8, {0x0c, 0, 0, 0, 1, 1, 0, 0}},                       /* a byte behind the record */
        {8, {0x0e, 0, 0, 0, 1, 1, 0, 0}},                       /* a byte behind the last field */
        {7, {0x0c, 0, 0, 0, 3, 1, 0}},                          /* key length -2 */
        {7, {0x0c, 0, 0, 0, 1, 3, 0}},                          /* value length -2 */
        {7, {0x0c, 0, 0, 0, 4, 1, 0}},                          /* key passes the end */
        {7, {0x0c, 0, 0, 0, 1, 2, 0}},                          /* value takes the header count */
        {7, {0x0c, 0, 0, 0, 1, 1, 2}},                          /* a header, but no bytes for it */
        {7, {0x0c, 0, 0, 0, 1, 1, 1}},                          /* header count -1 */
        {9, {0x10, 0, 0, 0, 1, 1, 2, 1, 1}},                    /* header name length -1 */
        {10, {0x12, 0, 0, 0, 1, 1, 2, 0, 1, 0}},                /* a byte behind the last header */
        {7, {0x0c, 0, 0, 1, 1, 1, 0}},                          /* offset delta -1 */
        {12, {0x16, 0, 0, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 0}}, /* key length over int32 */
        {1, {0x01}},                                            /* length -1 */
    };
    assert_int_equal(validate_section(BW_CODEC_NONE, 1, good, sizeof good), BW_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(validate_section(BW_CODEC_NONE, 1, bad[i].bytes, bad[i].len), BW_ERR_CORRUPT);
    for (int codec = BW_CODEC_GZIP; codec <= BW_CODEC_ZSTD; codec++)
        assert_int_equal(validate_section((bw_codec)codec, 1, good, sizeof good), BW_ERR_CORRUPT);
}

static void test_header_iterator_cut_headers_are_broken(void **state)
{
    (void)state;
    static const uint8_t raw[] = {4, 'h', '1', 2, 'x', 4, 'h', '2', 1};
    guard g = guard_open(sizeof raw);
    for (size_t cut = 0; cut <= sizeof raw; cut++) {
        bw_record_view v = {.headers_raw = guard_copy(&g, raw, cut), .header_count = 2, .headers_len = (uint32_t)cut};
        bw_header_iter it;
        bw_header h;
        int more;
        bw_header_iter_init(&it, &v);
        while ((more = bw_header_iter_next(&it, &h)) > 0) assert_int_equal(h.name_len, 2);
        assert_int_equal(more, cut == sizeof raw ? 0 : -1);
    }
    guard_close(&g);
    bw_record_view none = {.header_count = 0};
    bw_header_iter it;
    bw_header h;
    bw_header_iter_init(&it, &none);
    assert_int_equal(bw_header_iter_next(&it, &h), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoders_agree_on_every_sample),
        cmocka_unit_test(test_batch_cut_at_each_byte_is_never_valid),
        cmocka_unit_test(test_batch_every_bit_flipped_is_never_valid_with_other_content),
        cmocka_unit_test(test_records_cut_at_each_byte_are_broken),
        cmocka_unit_test(test_records_every_byte_replaced_stay_in_bounds),
        cmocka_unit_test(test_records_random_bytes_stay_in_bounds),
        cmocka_unit_test(test_iterator_more_records_announced_than_there_are_is_broken),
        cmocka_unit_test(test_validate_well_summed_nonsense_is_corrupt),
        cmocka_unit_test(test_header_iterator_cut_headers_are_broken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
