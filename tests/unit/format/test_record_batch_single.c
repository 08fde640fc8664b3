/* A batch of one record, composed in registers: the same bytes as the builder's. */
#include "format/record_batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void compare(const uint8_t *value, size_t len, int64_t timestamp, int64_t base, int32_t epoch)
{
    bw_record r = {.value = value, .value_len = len, .timestamp_ms = timestamp};
    size_t size = bw_batch_single_size(&r);
    if (size == 0) return; /* not here: the builder does it */
    bw_batch_builder b;
    uint8_t *batch;
    size_t whole;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    bw_batch_builder_init(&b);
    assert_int_equal(bw_batch_builder_add(&b, &r), BW_OK);
    assert_int_equal(bw_batch_builder_finish(&b, &o, &batch, &whole), BW_OK);
    bw_batch_patch(batch, base, epoch);
    uint8_t *place = malloc(size); /* a byte too many is found by the sanitizer */
    assert_non_null(place);
    memset(place, 0xee, size);
    assert_int_equal(size, whole);
    assert_int_equal(bw_batch_single_write(place, &r, timestamp, base, epoch), whole);
    assert_memory_equal(place, batch, whole);
    free(place);
    bw_batch_builder_fini(&b);
}

static void test_single_every_length_gives_what_the_builder_gives(void **state)
{
    uint8_t value[8200];
    unsigned seed = 7;
    for (size_t i = 0; i < sizeof value; i++) value[i] = (uint8_t)((seed = seed * 1103515245u + 12345u) >> 16);
    for (size_t len = 1; len < 700; len++) compare(value + len % 7, len, 1700000000000 + (int64_t)len, (int64_t)len << 20, (int32_t)len);
    for (size_t len = 700; len < 8100; len += 37) compare(value, len, 0, INT64_MAX / 2, INT32_MAX);
    compare(value, 8000, INT64_MAX, 0, 0);
    (void)state;
}

static void reserve(const uint8_t *value, size_t len, size_t max)
{
    bw_record meta = {.timestamp_ms = 1700000000123};
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    size_t room = bw_batch_reserved_size(&meta, max);
    uint8_t *a = malloc(room), *b = malloc(room);
    assert_non_null(a);
    assert_non_null(b);
    memset(a, 0xee, room);
    memset(b, 0xee, room);
    memcpy(bw_batch_reserve_begin(a, &meta, max), value, len);
    memcpy(bw_batch_reserve_begin(b, &meta, max), value, len);
    size_t used = bw_batch_reserve_finish(a, &meta, max, len, &o), same = bw_batch_single_finish(b, &meta, max, len, 77, 3);
    bw_batch_patch(a, 77, 3);
    if (same) {
        assert_int_equal(same, used);
        assert_memory_equal(a, b, room);
    } else if (bw_batch_single_size(&(bw_record){.value = value, .value_len = 100})) {
        assert_true(len < 16 || max > 8000); /* nothing else is refused */
    }
    free(a);
    free(b);
}

static void test_single_reserved_gives_what_the_general_one_gives(void **state)
{
    uint8_t value[8200];
    for (size_t i = 0; i < sizeof value; i++) value[i] = (uint8_t)(i * 37 + 1);
    for (size_t max = 0; max < 200; max++)
        for (size_t len = 0; len <= max; len++) reserve(value, len, max);
    for (size_t max = 200; max < 8100; max += 611)
        for (size_t len = max % 7; len <= max; len += 97) reserve(value, len, max);
    reserve(value, 8000, 8000);
    (void)state;
}

static void test_single_other_shapes_are_left_to_the_builder(void **state)
{
    uint8_t v[9000] = {0};
    bw_header h = {"n", 1, "v", 1};
    bw_record key = {.key = v, .key_len = 3, .value = v, .value_len = 100}, empty_key = {.key = v, .value = v, .value_len = 100};
    bw_record headers = {.value = v, .value_len = 100, .headers = &h, .header_count = 1}, null = {.value_len = 0};
    bw_record small = {.value = v, .value_len = 15}, large = {.value = v, .value_len = 8001};
    assert_int_equal(bw_batch_single_size(&key), 0);
    assert_int_equal(bw_batch_single_size(&empty_key), 0);
    assert_int_equal(bw_batch_single_size(&headers), 0);
    assert_int_equal(bw_batch_single_size(&null), 0);
    assert_int_equal(bw_batch_single_size(&small), 0);
    assert_int_equal(bw_batch_single_size(&large), 0);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_single_every_length_gives_what_the_builder_gives),
        cmocka_unit_test(test_single_reserved_gives_what_the_general_one_gives),
        cmocka_unit_test(test_single_other_shapes_are_left_to_the_builder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
