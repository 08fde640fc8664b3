/* format/record_batch.h, reserve in place: the value's place does not depend on its length, the batch is a legal one. */
#include "samples.h"

#include <stdlib.h>

/* One reservation of value_max, of which value_len are used; everything about it checked. */
static void reserve_and_check(const bw_record *meta, size_t value_max, size_t value_len, const bw_batch_options *options)
{
    size_t size = bw_batch_reserved_size(meta, value_max);
    assert_true(size != SIZE_MAX);
    guard g = guard_open(size);
    uint8_t *dst = g.map + g.room - size; /* a byte past the size dies */
    memset(dst, 0xee, size);
    uint8_t *value = bw_batch_reserve_begin(dst, meta, value_max);
    assert_true(value > dst && (size_t)(value - dst) + value_max < size);
    for (size_t i = 0; i < value_len; i++) value[i] = (uint8_t)(i * 7);
    size_t len = bw_batch_reserve_finish(dst, meta, value_max, value_len, options);
    assert_true(len <= size && size - len == value_max - value_len);

    bw_batch_header h;
    bw_record_iter it;
    bw_record_view v;
    assert_int_equal(bw_batch_validate(dst, len, 1 << 20, true, &h), BW_OK);
    assert_true(h.base_timestamp == meta->timestamp_ms && h.record_count == 1);
    bw_record_iter_init(&it, &h, dst + BW_BATCH_HEADER_BYTES, len - BW_BATCH_HEADER_BYTES);
    assert_int_equal(bw_record_iter_next(&it, &v), 1);
    assert_ptr_equal(v.value, value);
    bw_record want = *meta;
    want.value = value;
    want.value_len = value_len;
    assert_record(&want, &v);
    assert_true(v.timestamp_ms == (options->log_append_time == BW_NO_TIMESTAMP ? meta->timestamp_ms : options->log_append_time));
    assert_int_equal(bw_record_iter_next(&it, &v), 0);
    guard_close(&g);
}

static void test_reserve_any_key_headers_and_lengths_read_back(void **state)
{
    (void)state;
    static const size_t maxima[] = {0, 1, 30, 63, 64, 1000, 8191, 8192, 20000, 1100000};
    static const size_t key_lens[] = {0, 1, 63, 64, 100};
    static char key[100];
    bw_header headers[] = {{"trace", 5, "abc", 3}, {"null", 4, NULL, 0}};
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    memset(key, 'k', sizeof key);
    for (size_t m = 0; m < sizeof maxima / sizeof maxima[0]; m++) {
        for (size_t k = 0; k <= sizeof key_lens / sizeof key_lens[0]; k++) {
            bool null_key = k == sizeof key_lens / sizeof key_lens[0];
            bw_record meta = {.key = null_key ? NULL : key,
                              .key_len = null_key ? 0 : key_lens[k],
                              .headers = headers,
                              .header_count = k % 3,
                              .timestamp_ms = SAMPLE_TIME};
            reserve_and_check(&meta, maxima[m], 0, &options);
            reserve_and_check(&meta, maxima[m], maxima[m] / 2, &options);
            reserve_and_check(&meta, maxima[m], maxima[m], &options);
        }
    }
    for (size_t used = 0; used <= 200; used++) {
        bw_record meta = {.key = key, .key_len = 3, .timestamp_ms = 0};
        reserve_and_check(&meta, 200, used, &options);
    }
}

static void test_reserve_options_reach_the_header(void **state)
{
    (void)state;
    bw_record meta = {.timestamp_ms = SAMPLE_TIME};
    bw_batch_options options = {
        .log_append_time = SAMPLE_TIME + 9, .producer_id = 12, .producer_epoch = 3, .base_sequence = 4, .transactional = true};
    reserve_and_check(&meta, 100, 50, &options);
    uint8_t dst[256];
    bw_batch_header h;
    assert_true(bw_batch_reserved_size(&meta, 100) <= sizeof dst);
    memset(bw_batch_reserve_begin(dst, &meta, 100), 'v', 5);
    size_t len = bw_batch_reserve_finish(dst, &meta, 100, 5, &options);
    assert_int_equal(bw_batch_header_decode(dst, len, false, &h), BW_OK);
    assert_int_equal(h.attributes, BW_ATTR_LOG_APPEND_TIME | BW_ATTR_TRANSACTIONAL);
    assert_true(h.max_timestamp == SAMPLE_TIME + 9 && h.producer_id == 12 && h.producer_epoch == 3 && h.base_sequence == 4);
}

static void test_reserve_impossible_ones_have_no_size(void **state)
{
    (void)state;
    bw_header bad_header = {"h", 1, NULL, 3};
    bw_record good = {.timestamp_ms = SAMPLE_TIME};
    bw_record bad[] = {
        {.timestamp_ms = BW_NO_TIMESTAMP},
        {.key = NULL, .key_len = 3, .timestamp_ms = SAMPLE_TIME},
        {.headers = &bad_header, .header_count = 1, .timestamp_ms = SAMPLE_TIME},
        {.headers = NULL, .header_count = 1, .timestamp_ms = SAMPLE_TIME},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) assert_true(bw_batch_reserved_size(&bad[i], 10) == SIZE_MAX);
    assert_true(bw_batch_reserved_size(&good, INT32_MAX) == SIZE_MAX);
    assert_true(bw_batch_reserved_size(&good, SIZE_MAX) == SIZE_MAX);
    assert_true(bw_batch_reserved_size(&good, 10) < 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reserve_any_key_headers_and_lengths_read_back),
        cmocka_unit_test(test_reserve_options_reach_the_header),
        cmocka_unit_test(test_reserve_impossible_ones_have_no_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
