/* format/index.h: look-ups over sound indexes; padding, damage and cuts shorten an index, never mislead. */
#include "samples.h"

#include "format/index.h"

#define BASE INT64_C(5000000000)

/* Entry i: offset base + 10 (i + 1), position 4096 (i + 1). */
static size_t offset_index(uint8_t *out, size_t entries)
{
    for (size_t i = 0; i < entries; i++)
        bw_index_put(out + 8 * i, BASE, BASE + 10 * (int64_t)(i + 1), (uint32_t)(4096 * (i + 1)));
    return 8 * entries;
}

/* Entry i: time t + 100 (i + 1), offset base + 10 i. */
static size_t time_index(uint8_t *out, size_t entries)
{
    for (size_t i = 0; i < entries; i++)
        bw_timeindex_put(out + 12 * i, BASE, SAMPLE_TIME + 100 * (int64_t)(i + 1), BASE + 10 * (int64_t)i);
    return 12 * entries;
}

static void test_index_put_gives_kafkas_bytes(void **state)
{
    (void)state;
    uint8_t entry[12];
    static const uint8_t want[] = {0, 0, 0, 10, 0, 0, 0x10, 0};
    static const uint8_t want_time[] = {0, 0, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00, 0, 0, 0, 7};
    bw_index_put(entry, BASE, BASE + 10, 4096);
    assert_memory_equal(entry, want, 8);
    bw_timeindex_put(entry, BASE, SAMPLE_TIME, BASE + 7);
    assert_memory_equal(entry, want_time, 12);
}

static void test_index_floor_every_target_finds_the_last_entry_not_above(void **state)
{
    (void)state;
    uint8_t data[8 * 100];
    for (size_t entries = 0; entries <= 100; entries++) {
        size_t len = offset_index(data, entries);
        assert_int_equal(bw_index_entries(data, len, INT32_MAX), entries);
        for (int64_t delta = -5; delta < 1020; delta++) {
            int64_t at = delta < 0 ? 0 : delta / 10;
            if (at > (int64_t)entries) at = (int64_t)entries;
            assert_int_equal(bw_index_floor(data, entries, BASE, BASE + delta), 4096 * at);
        }
        assert_int_equal(bw_index_floor(data, entries, BASE, INT64_MAX), 4096 * entries);
        assert_int_equal(bw_index_floor(data, entries, BASE, INT64_MIN), 0);
        assert_int_equal(bw_index_floor(data, entries, BASE, 0), 0);
    }
}

static void test_timeindex_floor_never_skips_a_record_of_the_time(void **state)
{
    (void)state;
    uint8_t data[12 * 50];
    for (size_t entries = 0; entries <= 50; entries++) {
        size_t len = time_index(data, entries);
        assert_int_equal(bw_timeindex_entries(data, len), entries);
        for (int64_t ms = -10; ms < 5300; ms += 10) {
            int64_t want = BASE; /* the last entry whose time is below the target */
            for (size_t i = 0; i < entries; i++)
                if (100 * (int64_t)(i + 1) < ms) want = BASE + 10 * (int64_t)i;
            assert_true(bw_timeindex_floor(data, entries, BASE, SAMPLE_TIME + ms) == want);
        }
        assert_true(bw_timeindex_floor(data, entries, BASE, INT64_MIN) == BASE);
    }
}

static void test_index_zero_padding_is_no_entry(void **state)
{
    (void)state;
    uint8_t data[12 * 64];
    for (size_t entries = 0; entries < 40; entries++) {
        memset(data, 0, sizeof data);
        offset_index(data, entries);
        assert_int_equal(bw_index_entries(data, sizeof data, INT32_MAX), entries);
        memset(data, 0, sizeof data);
        time_index(data, entries);
        assert_int_equal(bw_timeindex_entries(data, sizeof data), entries);
    }
}

static void test_index_cut_inside_an_entry_drops_it(void **state)
{
    (void)state;
    uint8_t data[12 * 10];
    size_t len = offset_index(data, 10);
    guard g = guard_open(sizeof data);
    for (size_t cut = 0; cut <= len; cut++)
        assert_int_equal(bw_index_entries(guard_copy(&g, data, cut), cut, INT32_MAX), cut / 8);
    len = time_index(data, 10);
    for (size_t cut = 0; cut <= len; cut++) assert_int_equal(bw_timeindex_entries(guard_copy(&g, data, cut), cut), cut / 12);
    guard_close(&g);
}

static void test_index_positions_past_the_log_end_it(void **state)
{
    (void)state;
    uint8_t data[8 * 10];
    size_t len = offset_index(data, 10);
    assert_int_equal(bw_index_entries(data, len, 4096 * 5), 4); /* the fifth begins at the log's end: nothing is there */
    assert_int_equal(bw_index_entries(data, len, 4096 * 5 + 1), 5);
    assert_int_equal(bw_index_entries(data, len, 0), 0);
}

static void test_index_every_bit_flipped_leaves_a_sound_prefix(void **state)
{
    (void)state;
    uint8_t data[12 * 10], copy[12 * 10];
    size_t len = offset_index(data, 10);
    for (size_t bit = 0; bit < len * 8; bit++) {
        memcpy(copy, data, len);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        size_t entries = bw_index_entries(copy, len, 1 << 20);
        assert_true(entries >= bit / 64); /* those before it stay */
        for (size_t i = 1; i < entries; i++) {
            assert_true(bw_get_be32(copy + 8 * i) > bw_get_be32(copy + 8 * i - 8));
            assert_true(bw_get_be32(copy + 8 * i + 4) > bw_get_be32(copy + 8 * i - 4));
        }
        assert_true(bw_index_floor(copy, entries, BASE, BASE + 55) < 1 << 20);
    }
    len = time_index(data, 10);
    for (size_t bit = 0; bit < len * 8; bit++) {
        memcpy(copy, data, len);
        copy[bit / 8] ^= (uint8_t)(1u << bit % 8);
        size_t entries = bw_timeindex_entries(copy, len);
        assert_true(entries >= bit / 96);
        for (size_t i = 1; i < entries; i++) assert_true(bw_get_be64(copy + 12 * i) > bw_get_be64(copy + 12 * i - 12));
        int64_t offset = bw_timeindex_floor(copy, entries, BASE, SAMPLE_TIME + 550);
        assert_true(offset >= BASE && offset <= BASE + INT32_MAX);
    }
}

static void test_timeindex_floor_of_a_huge_base_does_not_overflow(void **state)
{
    (void)state;
    uint8_t data[12];
    bw_timeindex_put(data, INT64_MAX - 5, SAMPLE_TIME, INT64_MAX - 5);
    bw_put_be32(data + 8, 100);
    assert_true(bw_timeindex_floor(data, 1, INT64_MAX - 5, SAMPLE_TIME + 1) == INT64_MAX - 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_index_put_gives_kafkas_bytes),
        cmocka_unit_test(test_index_floor_every_target_finds_the_last_entry_not_above),
        cmocka_unit_test(test_timeindex_floor_never_skips_a_record_of_the_time),
        cmocka_unit_test(test_index_zero_padding_is_no_entry),
        cmocka_unit_test(test_index_cut_inside_an_entry_drops_it),
        cmocka_unit_test(test_index_positions_past_the_log_end_it),
        cmocka_unit_test(test_index_every_bit_flipped_leaves_a_sound_prefix),
        cmocka_unit_test(test_timeindex_floor_of_a_huge_base_does_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
