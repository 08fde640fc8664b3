/* Frames: cut at every byte, lengths that lie, the REP form, writing. */
#include "proto/frame.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdlib.h>

static void make_frame(bw_buf *out, uint16_t type, uint32_t correlation, const char *header, const char *payload)
{
    size_t mark;
    assert_int_equal(bw_frame_begin(out, type, 0, correlation, &mark), BW_OK);
    assert_int_equal(bw_buf_append(out, header, strlen(header)), BW_OK);
    bw_frame_header_done(out, mark);
    assert_int_equal(bw_buf_append(out, payload, strlen(payload)), BW_OK);
    bw_frame_end(out, mark, 0);
}

static void test_frame_whole_is_given_out(void **state)
{
    (void)state;
    bw_buf b = {0};
    make_frame(&b, 7, 0xcafe, "head", "payload");
    make_frame(&b, 8, 2, "", "");
    bw_frame f;
    size_t used, need;
    assert_int_equal(bw_frame_parse(b.data, b.len, 1000, &f, &used, &need), BW_OK);
    assert_int_equal(used, 16 + 4 + 7);
    assert_int_equal(f.type, 7);
    assert_int_equal(f.correlation, 0xcafe);
    assert_int_equal(f.header_len, 4);
    assert_memory_equal(f.header, "head", 4);
    assert_int_equal(f.payload_len, 7);
    assert_memory_equal(f.payload, "payload", 7);
    assert_int_equal(bw_frame_parse(b.data + used, b.len - used, 1000, &f, &used, &need), BW_OK);
    assert_int_equal(used, 16);
    assert_int_equal(f.header_len + f.payload_len, 0);
    bw_buf_free(&b);
}

static void test_frame_bytes_are_as_documented(void **state)
{
    (void)state;
    static const uint8_t expected[] = {0, 0, 0, 15, 0, 7, 0, 1, 0, 0, 0, 9, 0, 0, 0, 2, 'h', 'h', 'p'};
    bw_buf b = {0};
    size_t mark;
    assert_int_equal(bw_frame_begin(&b, 7, BW_FRAME_ANSWER, 9, &mark), BW_OK);
    assert_int_equal(bw_buf_append(&b, "hh", 2), BW_OK);
    bw_frame_header_done(&b, mark);
    bw_frame_end(&b, mark, 1);
    assert_int_equal(bw_buf_append(&b, "p", 1), BW_OK);
    assert_int_equal(b.len, sizeof expected);
    assert_memory_equal(b.data, expected, sizeof expected);
    bw_buf_free(&b);
}

static void test_frame_cut_at_each_byte_asks_for_more(void **state)
{
    (void)state;
    bw_buf b = {0};
    make_frame(&b, 7, 1, "head", "payload");
    for (size_t len = 0; len < b.len; len++) {
        uint8_t *exact = malloc(len ? len : 1); /* so that the address sanitizer sees a read past the end */
        assert_non_null(exact);
        memcpy(exact, b.data, len);
        bw_frame f;
        size_t used, need;
        assert_int_equal(bw_frame_parse(exact, len, 1000, &f, &used, &need), BW_ERR_EMPTY);
        assert_int_equal(used, 0);
        assert_int_equal(need, len < 4 ? BW_FRAME_PREFIX : b.len);
        free(exact);
    }
    bw_buf_free(&b);
}

static void test_frame_length_over_limit_is_refused_by_its_first_bytes(void **state)
{
    (void)state;
    const uint8_t huge[4] = {0xff, 0xff, 0xff, 0xff}, over[4] = {0, 0, 0x03, 0xe9}, small[4] = {0, 0, 0, 11};
    bw_frame f;
    size_t used, need;
    assert_int_equal(bw_frame_parse(huge, 4, 1000, &f, &used, &need), BW_ERR_PROTOCOL);
    assert_int_equal(bw_frame_parse(over, 4, 1000, &f, &used, &need), BW_ERR_PROTOCOL);
    assert_non_null(strstr(bw_error_message(), "1001"));
    assert_non_null(strstr(bw_error_message(), "socket.request.max.bytes"));
    assert_int_equal(bw_frame_parse(small, 4, 1000, &f, &used, &need), BW_ERR_PROTOCOL);
    const uint8_t allowed[4] = {0, 0, 0x03, 0xe8};
    assert_int_equal(bw_frame_parse(allowed, 4, 1000, &f, &used, &need), BW_ERR_EMPTY);
    assert_int_equal(need, 1004);
}

static void test_frame_header_longer_than_frame_is_refused_at_once(void **state)
{
    (void)state;
    const uint8_t lie[16] = {0, 0, 0, 20, 0, 7, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9};
    bw_frame f;
    size_t used, need;
    assert_int_equal(bw_frame_parse(lie, sizeof lie, 1000, &f, &used, &need), BW_ERR_PROTOCOL);
    const uint8_t wrap[16] = {0, 0, 0, 20, 0, 7, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff};
    assert_int_equal(bw_frame_parse(wrap, sizeof wrap, 1000, &f, &used, &need), BW_ERR_PROTOCOL);
}

static void test_frame_message_is_the_frame_without_its_length(void **state)
{
    (void)state;
    bw_buf b = {0};
    make_frame(&b, 21, 5, "h", "pp");
    bw_frame f;
    assert_int_equal(bw_frame_parse_message(b.data + 4, b.len - 4, 1000, &f), BW_OK);
    assert_int_equal(f.type, 21);
    assert_int_equal(f.payload_len, 2);
    for (size_t len = 0; len < BW_FRAME_MIN; len++) {
        assert_int_equal(bw_frame_parse_message(b.data + 4, len, 1000, &f), BW_ERR_PROTOCOL);
    }
    assert_int_equal(bw_frame_parse_message(b.data + 4, 12, 1000, &f), BW_ERR_PROTOCOL); /* its header is missing */
    assert_int_equal(bw_frame_parse_message(b.data + 4, b.len - 4, 14, &f), BW_ERR_PROTOCOL);
    bw_buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_whole_is_given_out),
        cmocka_unit_test(test_frame_bytes_are_as_documented),
        cmocka_unit_test(test_frame_cut_at_each_byte_asks_for_more),
        cmocka_unit_test(test_frame_length_over_limit_is_refused_by_its_first_bytes),
        cmocka_unit_test(test_frame_header_longer_than_frame_is_refused_at_once),
        cmocka_unit_test(test_frame_message_is_the_frame_without_its_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
