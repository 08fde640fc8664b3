/* The cleaner's map: the last offset of each key, until it is full; and within its memory. */
#include "log/offset_map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void test_offset_map_gives_the_last_offset(void **state)
{
    (void)state;
    bw_offset_map m;
    assert_int_equal(bw_offset_map_init(&m, 8 << 20), BW_OK);
    for (uint32_t round = 0; round < 3; round++)
        for (uint32_t k = 0; k < 200000; k += 1 + round) assert_true(bw_offset_map_put(&m, &k, sizeof k, round * 1000000 + k));
    assert_int_equal(m.used, 200000);
    for (uint32_t k = 0; k < 200000; k++) {
        int64_t last = k % 3 == 0 ? 2000000 : k % 2 == 0 ? 1000000 : 0;
        assert_int_equal(bw_offset_map_get(&m, &k, sizeof k), last + k);
    }
    uint32_t other = 200000;
    assert_int_equal(bw_offset_map_get(&m, &other, sizeof other), -1);
    assert_int_equal(bw_offset_map_get(&m, &other, 0), -1);
    assert_true(bw_offset_map_put(&m, "", 0, 0)); /* the empty key, offset 0 */
    assert_int_equal(bw_offset_map_get(&m, "", 0), 0);
    bw_offset_map_fini(&m);
}

static void test_offset_map_full_takes_no_new_key_but_newer_offsets(void **state)
{
    (void)state;
    bw_offset_map m;
    assert_int_equal(bw_offset_map_init(&m, 1 << 20), BW_OK);
    uint32_t n = 0;
    while (bw_offset_map_put(&m, &n, sizeof n, n)) n++;
    assert_true(n > (1 << 20) / 24 * 8 / 10); /* at least 4 fifths of the memory hold keys */
    assert_true(m.slot_count * sizeof *m.slots <= 1 << 20);
    uint32_t first = 0;
    assert_true(bw_offset_map_put(&m, &first, sizeof first, 99));
    assert_int_equal(bw_offset_map_get(&m, &first, sizeof first), 99);
    for (uint32_t k = 1; k < n; k++) assert_int_equal(bw_offset_map_get(&m, &k, sizeof k), k);
    assert_int_equal(bw_offset_map_get(&m, &n, sizeof n), -1);
    bw_offset_map_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offset_map_gives_the_last_offset),
        cmocka_unit_test(test_offset_map_full_takes_no_new_key_but_newer_offsets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
