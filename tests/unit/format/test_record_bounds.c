/* format/record_batch_read.c: what a record announces is compared with what is there before anybody takes memory for it. */
#include "format/record_batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* One record of nulls that announces `headers` headers, with `behind` bytes for them. The bytes have no room behind them. */
static int read_one(uint32_t headers, size_t behind, bw_record_view *view)
{
    uint8_t body[64] = {0, 0, 0, 1, 1}; /* attributes, timestamp, offset, key null, value null */
    size_t len = 5;
    for (uint32_t z = headers << 1; ; z >>= 7) {
        body[len++] = (uint8_t)(z < 0x80 ? z : (z & 0x7f) | 0x80);
        if (z < 0x80) break;
    }
    len += behind; /* zeros: headers with an empty name and an empty value */
    uint8_t *record = malloc(len + 1);
    assert_non_null(record);
    record[0] = (uint8_t)(len << 1);
    memcpy(record + 1, body, len);
    bw_batch_header h = {.record_count = 1};
    bw_record_iter it;
    bw_record_iter_init(&it, &h, record, len + 1);
    int got = bw_record_iter_next(&it, view);
    bw_record_iter any;
    bw_record_view same;
    bw_record_iter_init(&any, &h, record, len + 1);
    assert_int_equal(bw_record_iter_next_any(&any, &same), got);
    free(record);
    return got;
}

static void test_record_that_announces_more_headers_than_bytes_is_broken(void **state)
{
    bw_record_view v;
    (void)state;
    assert_int_equal(read_one(0, 0, &v), 1);
    assert_int_equal(read_one(2, 4, &v), 1);
    assert_int_equal(v.header_count, 2);
    assert_int_equal(read_one(3, 4, &v), -1);
    assert_int_equal(read_one(1, 0, &v), -1);
    assert_int_equal(read_one(1000000, 8, &v), -1);
    assert_int_equal(read_one(0x3fffffff, 8, &v), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_that_announces_more_headers_than_bytes_is_broken),
    };
    return cmocka_run_group_tests_name("record_bounds", tests, NULL, NULL);
}
