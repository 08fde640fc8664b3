/* Records of a batch, many at once: the same as one by one. */
#include "format/record_batch.h"

#include <busway/consumer.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { RECORDS = 10 };

typedef struct scene {
    bw_batch_builder builder;
    bw_batch batch;
    uint8_t *data;
    size_t len;
} scene;

static void make(scene *s, int64_t from)
{
    bw_batch_builder_init(&s->builder);
    for (int i = 0; i < RECORDS; i++) {
        char value[300];
        memset(value, 'a' + i, sizeof value);
        bw_record r = {.value = value, .value_len = (size_t)i * 30, .timestamp_ms = 1000 + i, .key = i % 2 ? "k" : NULL, .key_len = i % 2};
        assert_int_equal(bw_batch_builder_add(&s->builder, &r), BW_OK);
    }
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    assert_int_equal(bw_batch_builder_finish(&s->builder, &o, &s->data, &s->len), BW_OK);
    s->batch = (bw_batch){.topic = "t", .base_offset = 100, .last_offset = 109, .count = RECORDS, .base_timestamp_ms = 1000,
                          .it_at = s->data + BW_BATCH_HEADER_BYTES, .it_end = s->data + s->len, .it_from = from, .it_left = RECORDS};
}

static void test_batch_records_equal_those_one_by_one(void **state)
{
    (void)state;
    for (int32_t most = 1; most <= RECORDS + 1; most++) {
        scene s;
        make(&s, 0);
        bw_batch one = s.batch, many = s.batch;
        bw_record_view a, b[RECORDS + 1];
        int32_t n, seen = 0;
        while ((n = bw_batch_records(&many, b, most)) > 0) {
            assert_true(n <= most);
            for (int32_t i = 0; i < n; i++, seen++) {
                assert_int_equal(bw_batch_next(&one, &a), 1);
                assert_int_equal(a.offset, b[i].offset);
                assert_int_equal(a.timestamp_ms, b[i].timestamp_ms);
                assert_ptr_equal(a.value, b[i].value);
                assert_int_equal(a.value_len, b[i].value_len);
                assert_ptr_equal(a.key, b[i].key);
            }
        }
        assert_int_equal(n, 0);
        assert_int_equal(seen, RECORDS);
        assert_int_equal(bw_batch_records(&many, b, most), 0);
        bw_batch_builder_fini(&s.builder);
    }
}

static void test_batch_records_before_the_position_are_skipped(void **state)
{
    (void)state;
    scene s;
    make(&s, 107);
    bw_record_view out[RECORDS];
    assert_int_equal(bw_batch_records(&s.batch, out, 2), 2);
    assert_int_equal(out[0].offset, 107);
    assert_int_equal(out[1].offset, 108);
    assert_int_equal(bw_batch_records(&s.batch, out, RECORDS), 1);
    assert_int_equal(out[0].offset, 109);
    assert_int_equal(bw_batch_records(&s.batch, out, RECORDS), 0);
    bw_batch_builder_fini(&s.builder);
}

static void test_batch_records_broken_one_is_told_after_the_good_ones(void **state)
{
    (void)state;
    scene s;
    make(&s, 0);
    bw_batch walk = s.batch;
    bw_record_view out[RECORDS];
    assert_int_equal(bw_batch_records(&walk, out, 4), 4);
    s.data[walk.it_at - s.data] = 0x01; /* a negative length where the fifth begins */
    assert_int_equal(bw_batch_records(&s.batch, out, RECORDS), 4);
    assert_int_equal(out[3].offset, 103);
    assert_int_equal(bw_batch_records(&s.batch, out, RECORDS), -1);
    assert_int_equal(bw_batch_records(&s.batch, out, RECORDS), -1);
    bw_batch_builder_fini(&s.builder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batch_records_equal_those_one_by_one),
        cmocka_unit_test(test_batch_records_before_the_position_are_skipped),
        cmocka_unit_test(test_batch_records_broken_one_is_told_after_the_good_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
