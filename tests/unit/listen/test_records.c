/* listen/busway/records.c: what a hostile document of records may cost. */
#include "base/err.h"
#include "format/record_batch.h"
#include "listen/busway/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* An array of count times item. */
static uint8_t *array_of(uint32_t count, const void *item, size_t item_len, size_t *len)
{
    uint8_t *doc = malloc(5 + count * item_len);
    assert_non_null(doc);
    doc[0] = 0xdd;
    bw_put_be32(doc + 1, count);
    for (uint32_t i = 0; i < count; i++) memcpy(doc + 5 + i * item_len, item, item_len);
    *len = 5 + count * item_len;
    return doc;
}

static bw_err convert(uint32_t count, const void *item, size_t item_len, size_t *batch_len)
{
    size_t len;
    bw_buf batch = {0};
    uint8_t *doc = array_of(count, item, item_len, &len);
    bw_err e = bw_records_to_batch(doc, len, 1000, &batch);
    *batch_len = batch.len;
    if (e == BW_OK) {
        bw_batch_header h;
        assert_int_equal(bw_batch_validate(batch.data, batch.len, 1 << 26, true, &h), BW_OK);
        assert_int_equal(h.record_count, count);
    }
    bw_buf_free(&batch);
    free(doc);
    return e;
}

static void test_records_empty_maps_in_numbers_are_refused(void **state)
{
    size_t len;
    (void)state;
    assert_int_equal(convert(1000000, "\x80", 1, &len), BW_ERR_PROTOCOL);
    assert_non_null(strstr(bw_error_message(), "say nothing"));
    assert_int_equal(len, 0);
}

static void test_records_few_empty_maps_are_records(void **state)
{
    size_t len;
    (void)state;
    assert_int_equal(convert(1000, "\x80", 1, &len), BW_OK);
    assert_true(len > 1000);
}

static void test_records_small_values_in_numbers_are_taken(void **state)
{
    size_t len;
    (void)state;
    assert_int_equal(convert(200000, "\x81\xa5value\xa1x", 9, &len), BW_OK);
    assert_true(len < 2 * 200000 * 9);
}

static void test_records_count_without_records_is_refused(void **state)
{
    bw_buf batch = {0};
    (void)state;
    assert_int_equal(bw_records_to_batch((const uint8_t *)"\xdd\xff\xff\xff\xff\x80", 6, 1000, &batch), BW_ERR_PROTOCOL);
    assert_int_equal(batch.len, 0);
    bw_buf_free(&batch);
}

static void test_records_headers_beyond_the_limit_are_refused(void **state)
{
    size_t at = 0;
    bw_buf batch = {0};
    static uint8_t doc[8192];
    (void)state;
    memcpy(doc, "\x91\x81\xa7headers\xdc\x04\x01", 13); /* 1,025 of them */
    at = 13;
    for (int i = 0; i < 1025; i++, at += 4) memcpy(doc + at, "\x92\xa1h\xc0", 4);
    assert_int_equal(bw_records_to_batch(doc, at, 1000, &batch), BW_ERR_PROTOCOL);
    doc[12] = 0; /* 1,024 */
    assert_int_equal(bw_records_to_batch(doc, at - 4, 1000, &batch), BW_OK);
    bw_buf_free(&batch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_records_empty_maps_in_numbers_are_refused),
        cmocka_unit_test(test_records_few_empty_maps_are_records),
        cmocka_unit_test(test_records_small_values_in_numbers_are_taken),
        cmocka_unit_test(test_records_count_without_records_is_refused),
        cmocka_unit_test(test_records_headers_beyond_the_limit_are_refused),
    };
    return cmocka_run_group_tests_name("records", tests, NULL, NULL);
}
