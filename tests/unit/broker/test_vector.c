/* vector.c: marks as text, and version vectors. */
#include "broker/vector.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdlib.h>

static bw_log_id log_of(uint8_t origin, int32_t partition)
{
    bw_log_id id = {.incarnation = 0xfedcba9876543210u, .partition = partition};
    id.origin.b[3] = origin;
    id.topic.b[7] = 0xff;
    return id;
}

static void test_mark_printed_and_parsed_is_the_same(void **state)
{
    (void)state;
    char text[BW_MARK_TEXT_MAX];
    bw_mark m = {log_of(9, INT32_MAX), INT64_MAX - 1}, back;
    size_t n = bw_mark_print(&m, text);
    assert_true(n < sizeof text && bw_mark_parse(text, n, &back));
    assert_memory_equal(&m.log.origin, &back.log.origin, 16);
    assert_memory_equal(&m.log.topic, &back.log.topic, 16);
    assert_true(m.log.incarnation == back.log.incarnation && m.log.partition == back.log.partition && m.offset == back.offset);
    for (size_t i = 0; i < n; i++) assert_false(bw_mark_parse(text, i, &back) && back.offset == m.offset); /* cut */
}

static void test_mark_that_is_none_is_refused(void **state)
{
    (void)state;
    char text[BW_MARK_TEXT_MAX + 8];
    bw_mark m = {log_of(1, 2), 3}, back;
    size_t n = bw_mark_print(&m, text);
    assert_false(bw_mark_parse("", 0, &back));
    memcpy(text + n, "x", 1);
    assert_false(bw_mark_parse(text, n + 1, &back));
    text[n] = 0;
    assert_false(bw_mark_parse(text, n + 1, &back)); /* a NUL */
    char *at = strchr(text, '@');
    at[1] = '-';
    assert_false(bw_mark_parse(text, n, &back));
}

static void test_vector_raise_never_goes_back_and_keeps_logs_apart(void **state)
{
    (void)state;
    bw_vector v = {0};
    bw_log_id a = log_of(1, 0), b = log_of(1, 1);
    assert_int_equal(bw_vector_next(&v, BW_VECTOR_RECORDS, &a), 0);
    assert_int_equal(bw_vector_raise(&v, BW_VECTOR_RECORDS, &a, 10), BW_OK);
    assert_int_equal(bw_vector_raise(&v, BW_VECTOR_RECORDS, &a, 5), BW_OK);
    assert_int_equal(bw_vector_raise(&v, BW_VECTOR_LINK, &a, 7), BW_OK);
    assert_int_equal(bw_vector_raise(&v, BW_VECTOR_RECORDS, &b, 3), BW_OK);
    assert_int_equal(bw_vector_next(&v, BW_VECTOR_RECORDS, &a), 10);
    assert_int_equal(bw_vector_next(&v, BW_VECTOR_LINK, &a), 7);
    assert_int_equal(bw_vector_next(&v, BW_VECTOR_RECORDS, &b), 3);
    a.incarnation++;
    assert_int_equal(bw_vector_next(&v, BW_VECTOR_RECORDS, &a), 0);
    bw_vector_free(&v);
}

static void test_vector_full_is_a_limit(void **state)
{
    (void)state;
    bw_vector v = {0};
    for (uint32_t i = 0; i < BW_VECTOR_MAX; i++) {
        bw_log_id id = log_of(1, (int32_t)i);
        assert_int_equal(bw_vector_raise(&v, BW_VECTOR_RECORDS, &id, 1), BW_OK);
    }
    bw_log_id more = log_of(2, 0), known = log_of(1, 5);
    assert_int_equal(bw_vector_raise(&v, BW_VECTOR_RECORDS, &more, 1), BW_ERR_LIMIT_REACHED);
    assert_int_equal(bw_vector_raise(&v, BW_VECTOR_RECORDS, &known, 2), BW_OK);
    bw_vector_free(&v);
}

static void test_vector_stored_and_read_is_the_same_and_cut_is_corrupt(void **state)
{
    (void)state;
    bw_vector v = {.valid = 77}, back;
    bw_buf text = {0};
    for (int i = 0; i < 20; i++) {
        bw_log_id id = log_of((uint8_t)i, i);
        assert_int_equal(bw_vector_raise(&v, i % 2 ? BW_VECTOR_LINK : BW_VECTOR_RECORDS, &id, 100 + i), BW_OK);
    }
    assert_int_equal(bw_vector_encode(&v, &text), BW_OK);
    assert_int_equal(bw_vector_decode(text.data, text.len, &back), BW_OK);
    assert_int_equal(back.valid, 77);
    assert_int_equal(back.count, 20);
    for (int i = 0; i < 20; i++) {
        bw_log_id id = log_of((uint8_t)i, i);
        assert_int_equal(bw_vector_next(&back, i % 2 ? BW_VECTOR_LINK : BW_VECTOR_RECORDS, &id), 100 + i);
    }
    bw_vector_free(&back);
    for (size_t n = 0; n < text.len; n++) assert_int_equal(bw_vector_decode(text.data, n, &back), BW_ERR_CORRUPT);
    text.data[0] = 2;
    assert_int_equal(bw_vector_decode(text.data, text.len, &back), BW_ERR_NEWER_FORMAT);
    bw_buf_free(&text);
    bw_vector_free(&v);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mark_printed_and_parsed_is_the_same),
        cmocka_unit_test(test_mark_that_is_none_is_refused),
        cmocka_unit_test(test_vector_raise_never_goes_back_and_keeps_logs_apart),
        cmocka_unit_test(test_vector_full_is_a_limit),
        cmocka_unit_test(test_vector_stored_and_read_is_the_same_and_cut_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
