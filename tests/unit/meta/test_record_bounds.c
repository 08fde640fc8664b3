/* meta/record.c: a stored topic's texts are never longer than the places for them. */
#include "base/err.h"
#include "meta/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A topic with one configuration whose name and value have these lengths. */
static bw_err decode(size_t name_len, size_t value_len)
{
    bw_meta_topic t = {.name = "t", .id = {{1}}, .partitions = 1};
    bw_meta_config config = {.name = "n", .value = "v"};
    bw_buf encoded = {0};
    t.configs = &config;
    t.config_count = 1;
    assert_int_equal(bw_meta_topic_encode(&t, &encoded), BW_OK);
    encoded.len -= 4; /* u8 1 'n' u8 1 'v' */
    uint8_t text[512];
    memset(text, 'x', sizeof text);
    uint8_t len = (uint8_t)name_len;
    assert_int_equal(bw_buf_append(&encoded, &len, 1), BW_OK);
    assert_int_equal(bw_buf_append(&encoded, text, name_len), BW_OK);
    len = (uint8_t)value_len;
    assert_int_equal(bw_buf_append(&encoded, &len, 1), BW_OK);
    assert_int_equal(bw_buf_append(&encoded, text, value_len), BW_OK);
    bw_meta_topic out;
    bw_err e = bw_meta_topic_decode("t", 1, encoded.data, encoded.len, &out);
    if (e == BW_OK) {
        assert_int_equal(strlen(out.configs[0].name), name_len);
        assert_int_equal(strlen(out.configs[0].value), value_len);
        bw_meta_topic_fini(&out);
    }
    bw_buf_free(&encoded);
    return e;
}

static void test_record_longest_texts_are_read(void **state)
{
    (void)state;
    assert_int_equal(decode(1, 1), BW_OK);
    assert_int_equal(decode(63, 191), BW_OK);
}

static void test_record_texts_without_a_place_are_corrupt(void **state)
{
    (void)state;
    assert_int_equal(decode(64, 1), BW_ERR_CORRUPT);
    assert_int_equal(decode(1, 192), BW_ERR_CORRUPT);
    assert_int_equal(decode(255, 255), BW_ERR_CORRUPT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_longest_texts_are_read),
        cmocka_unit_test(test_record_texts_without_a_place_are_corrupt),
    };
    return cmocka_run_group_tests_name("record_bounds", tests, NULL, NULL);
}
