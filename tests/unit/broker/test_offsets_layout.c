/* Layouts of committed offsets in the store: there and back, cut anywhere, newer ones, nonsense. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "broker/offsets_layout.h"

#include <stdlib.h>

/* In memory of just its size, so that a byte too far is found under AddressSanitizer. */
static bw_err key_of(const uint8_t *data, size_t len, bw_offset_key *k, uint8_t **room)
{
    *room = malloc(len ? len : 1);
    assert_non_null(*room);
    memcpy(*room, data, len);
    return bw_offset_key_decode(*room, len, k);
}

static void test_key_is_read_as_written(void **state)
{
    (void)state;
    char longest[BW_OFFSET_GROUP_MAX];
    memset(longest, 'g', sizeof longest);
    const bw_str groups[] = {{"a", 1}, {"with spaces and \xff", 17}, {longest, sizeof longest}};
    for (size_t i = 0; i < 3; i++) {
        bw_offset_key k = {.group = groups[i], .partition = 0x80000001u}, back;
        memset(k.topic.b, 0, 16); /* zeros behind the zero */
        uint8_t out[BW_OFFSET_KEY_MAX], *room;
        size_t len = bw_offset_key_encode(&k, out);
        assert_int_equal(len, groups[i].len + 21);
        assert_int_equal(key_of(out, len, &back, &room), BW_OK);
        assert_false(back.of_group);
        assert_int_equal(back.group.len, groups[i].len);
        assert_memory_equal(back.group.data, groups[i].data, groups[i].len);
        assert_memory_equal(back.topic.b, k.topic.b, 16);
        assert_int_equal(back.partition, k.partition);
        free(room);
        k.of_group = true;
        len = bw_offset_key_encode(&k, out);
        assert_int_equal(key_of(out, len, &back, &room), BW_OK);
        assert_true(back.of_group);
        free(room);
    }
}

static void test_key_that_is_cut_or_too_long_is_refused(void **state)
{
    (void)state;
    bw_offset_key k = {.group = {"group", 5}, .partition = 3}, back;
    uint8_t out[2 * BW_OFFSET_KEY_MAX] = {0}, *room;
    size_t len = bw_offset_key_encode(&k, out);
    for (size_t cut = 0; cut <= len + 3; cut++) {
        bw_err e = key_of(out, cut, &back, &room);
        assert_int_equal(e, cut == len || cut == 6 ? BW_OK : BW_ERR_CORRUPT);
        free(room);
    }
    memset(out, 'g', sizeof out);
    out[BW_OFFSET_GROUP_MAX + 1] = 0;
    assert_int_equal(key_of(out, BW_OFFSET_GROUP_MAX + 2, &back, &room), BW_ERR_CORRUPT);
    free(room);
    assert_int_equal(key_of((const uint8_t *)"\0", 1, &back, &room), BW_ERR_CORRUPT);
    free(room);
}

static void test_value_is_read_as_written_and_refused_when_cut_or_newer(void **state)
{
    (void)state;
    bw_offset_stored v = {.offset = INT64_MAX, .leader_epoch = -1, .log_epoch = INT32_MAX, .commit_ms = -7, .metadata = {"meta", 4}}, back;
    uint8_t out[BW_OFFSET_VALUE_HEAD + 4];
    bw_offset_value_encode(&v, out);
    memcpy(out + BW_OFFSET_VALUE_HEAD, "meta", 4);
    for (size_t cut = 0; cut <= sizeof out; cut++) {
        uint8_t *room = malloc(cut ? cut : 1);
        memcpy(room, out, cut);
        bw_err e = bw_offset_value_decode(room, cut, &back);
        assert_int_equal(e, cut == sizeof out ? BW_OK : BW_ERR_CORRUPT);
        if (!e) {
            assert_true(back.offset == v.offset && back.leader_epoch == -1 && back.log_epoch == INT32_MAX && back.commit_ms == -7);
            assert_int_equal(back.metadata.len, 4);
            assert_memory_equal(back.metadata.data, "meta", 4);
        }
        free(room);
    }
    out[0] = 2;
    assert_int_equal(bw_offset_value_decode(out, sizeof out, &back), BW_ERR_NEWER_FORMAT);
    v.offset = -1;
    v.metadata.len = 0;
    bw_offset_value_encode(&v, out);
    assert_int_equal(bw_offset_value_decode(out, BW_OFFSET_VALUE_HEAD, &back), BW_ERR_CORRUPT);
}

static void test_idle_time_is_read_as_written_and_refused_when_cut_or_newer(void **state)
{
    (void)state;
    uint8_t out[BW_OFFSET_IDLE_BYTES];
    int64_t back;
    for (int64_t ms = -1; ms < 3; ms++) {
        bw_offset_idle_encode(ms, out);
        assert_int_equal(bw_offset_idle_decode(out, sizeof out, &back), BW_OK);
        assert_int_equal(back, ms);
    }
    for (size_t cut = 0; cut < sizeof out; cut++) assert_int_equal(bw_offset_idle_decode(out, cut, &back), BW_ERR_CORRUPT);
    out[0] = 9;
    assert_int_equal(bw_offset_idle_decode(out, sizeof out, &back), BW_ERR_NEWER_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_key_is_read_as_written),
        cmocka_unit_test(test_key_that_is_cut_or_too_long_is_refused),
        cmocka_unit_test(test_value_is_read_as_written_and_refused_when_cut_or_newer),
        cmocka_unit_test(test_idle_time_is_read_as_written_and_refused_when_cut_or_newer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
