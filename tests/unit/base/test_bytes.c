/* base/bytes.h: varints as Kafka encodes them, the bounded cursor, the growable buffer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/bytes.h"

#include <stdlib.h>

static const struct {
    int64_t value;
    size_t len;
    uint8_t bytes[10];
} known[] = {
    {0, 1, {0x00}},
    {-1, 1, {0x01}},
    {1, 1, {0x02}},
    {63, 1, {0x7e}},
    {-64, 1, {0x7f}},
    {64, 2, {0x80, 0x01}},
    {-65, 2, {0x81, 0x01}},
    {8191, 2, {0xfe, 0x7f}},
    {-8192, 2, {0xff, 0x7f}},
    {8192, 3, {0x80, 0x80, 0x01}},
    {1048575, 3, {0xfe, 0xff, 0x7f}},
    {1048576, 4, {0x80, 0x80, 0x80, 0x01}},
    {134217728, 5, {0x80, 0x80, 0x80, 0x80, 0x01}},
    {INT32_MAX, 5, {0xfe, 0xff, 0xff, 0xff, 0x0f}},
    {INT32_MIN, 5, {0xff, 0xff, 0xff, 0xff, 0x0f}},
    {INT64_MAX, 10, {0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}},
    {INT64_MIN, 10, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}},
};

static void test_varint_known_values_encode_and_decode_as_kafka(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        uint8_t out[16];
        assert_int_equal(bw_varlong_size(known[i].value), known[i].len);
        assert_ptr_equal(bw_put_varlong(out, known[i].value), out + known[i].len);
        assert_memory_equal(out, known[i].bytes, known[i].len);
        bw_cursor c = bw_cursor_over(known[i].bytes, known[i].len);
        assert_true(bw_cursor_varlong(&c) == known[i].value);
        assert_false(c.bad);
        assert_int_equal(bw_cursor_left(&c), 0);
        if (known[i].value < INT32_MIN || known[i].value > INT32_MAX) continue;
        int32_t narrow = (int32_t)known[i].value;
        assert_int_equal(bw_varint_size(narrow), known[i].len);
        assert_ptr_equal(bw_put_varint(out, narrow), out + known[i].len);
        assert_memory_equal(out, known[i].bytes, known[i].len);
        c = bw_cursor_over(known[i].bytes, known[i].len);
        assert_int_equal(bw_cursor_varint(&c), narrow);
        assert_false(c.bad);
    }
}

static void test_varint_cut_at_each_byte_is_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        for (size_t cut = 0; cut < known[i].len; cut++) {
            bw_cursor c = bw_cursor_over(known[i].bytes, cut);
            assert_true(bw_cursor_varlong(&c) == 0);
            assert_true(c.bad);
            assert_ptr_equal(c.at, known[i].bytes);
        }
    }
}

static void test_varint_too_long_is_bad(void **state)
{
    (void)state;
    uint8_t endless[16];
    memset(endless, 0x80, sizeof endless);
    bw_cursor c = bw_cursor_over(endless, sizeof endless);
    assert_int_equal(bw_cursor_varint(&c), 0);
    assert_true(c.bad);
    c = bw_cursor_over(endless, sizeof endless);
    assert_true(bw_cursor_varlong(&c) == 0);
    assert_true(c.bad);
    endless[5] = 0; /* six bytes: fine for a varlong, one too many for a varint */
    c = bw_cursor_over(endless, sizeof endless);
    bw_cursor_varint(&c);
    assert_true(c.bad);
    c = bw_cursor_over(endless, sizeof endless);
    bw_cursor_varlong(&c);
    assert_false(c.bad);
}

static void test_varint_padded_reads_back_at_every_width(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].value < INT32_MIN || known[i].value > INT32_MAX) continue;
        for (size_t width = known[i].len; width <= 5; width++) {
            uint8_t out[8];
            assert_ptr_equal(bw_put_varint_padded(out, (int32_t)known[i].value, width), out + width);
            bw_cursor c = bw_cursor_over(out, width);
            assert_int_equal(bw_cursor_varint(&c), (int32_t)known[i].value);
            assert_false(c.bad);
            assert_int_equal(bw_cursor_left(&c), 0);
        }
    }
}

static void test_cursor_past_the_end_stays_bad(void **state)
{
    (void)state;
    const uint8_t data[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
    bw_cursor c = bw_cursor_over(data, sizeof data);
    assert_int_equal(bw_cursor_u8(&c), 1);
    assert_int_equal(bw_cursor_be16(&c), 0x0203);
    assert_int_equal(bw_cursor_be32(&c), 0x04050607);
    assert_true(bw_cursor_be64(&c) == UINT64_C(0x08090a0b0c0d0e0f));
    assert_int_equal(bw_cursor_be16(&c), 0);
    assert_true(c.bad);
    assert_int_equal(bw_cursor_u8(&c), 0); /* one byte is there, but the cursor has failed */
    assert_null(bw_cursor_take(&c, 0));
    c = bw_cursor_over(NULL, 0);
    assert_int_equal(bw_cursor_left(&c), 0);
    assert_int_equal(bw_cursor_varint(&c), 0);
    assert_true(c.bad);
}

static void test_big_endian_put_and_get_agree(void **state)
{
    (void)state;
    uint8_t out[8];
    bw_put_be64(out, UINT64_C(0x0102030405060708));
    for (uint8_t i = 0; i < 8; i++) assert_int_equal(out[i], i + 1);
    assert_true(bw_get_be64(out) == UINT64_C(0x0102030405060708));
    bw_put_be32(out, 0xa1b2c3d4);
    assert_int_equal(out[0], 0xa1);
    assert_true(bw_get_be32(out) == 0xa1b2c3d4);
    bw_put_be16(out, 0xfe01);
    assert_int_equal(out[0], 0xfe);
    assert_int_equal(bw_get_be16(out), 0xfe01);
}

static void test_buf_append_grows_and_keeps_content(void **state)
{
    (void)state;
    bw_buf b = {NULL, 0, 0};
    for (uint32_t i = 0; i < 10000; i++) assert_int_equal(bw_buf_append(&b, &i, sizeof i), BW_OK);
    assert_int_equal(b.len, 40000);
    assert_true(b.cap >= b.len && b.cap < 3 * b.len);
    bw_buf_consume(&b, 4 * 100);
    for (uint32_t i = 100; i < 10000; i++) {
        uint32_t got;
        memcpy(&got, b.data + (i - 100) * 4, 4);
        assert_int_equal(got, i);
    }
    bw_buf_consume(&b, 0);
    assert_int_equal(b.len, 39600);
    bw_buf_consume(&b, SIZE_MAX);
    assert_int_equal(b.len, 0);
    assert_int_equal(bw_buf_append(&b, NULL, 0), BW_OK);
    bw_buf_free(&b);
    assert_null(b.data);
    assert_int_equal(b.cap, 0);
}

static void test_buf_reserve_impossible_size_is_no_memory(void **state)
{
    (void)state;
    bw_buf b = {NULL, 0, 0};
    assert_int_equal(bw_buf_append(&b, "abc", 3), BW_OK);
    assert_int_equal(bw_buf_reserve(&b, SIZE_MAX), BW_ERR_NO_MEMORY);
    assert_int_equal(bw_buf_reserve(&b, SIZE_MAX - 2), BW_ERR_NO_MEMORY);
    assert_true(strlen(bw_error_message()) > 0);
    assert_int_equal(b.len, 3);
    assert_memory_equal(b.data, "abc", 3);
    bw_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_varint_known_values_encode_and_decode_as_kafka),
        cmocka_unit_test(test_varint_cut_at_each_byte_is_bad),
        cmocka_unit_test(test_varint_too_long_is_bad),
        cmocka_unit_test(test_varint_padded_reads_back_at_every_width),
        cmocka_unit_test(test_cursor_past_the_end_stays_bad),
        cmocka_unit_test(test_big_endian_put_and_get_agree),
        cmocka_unit_test(test_buf_append_grows_and_keeps_content),
        cmocka_unit_test(test_buf_reserve_impossible_size_is_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
