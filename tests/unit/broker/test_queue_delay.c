/* Delayed records: the header's value, and the heap that holds the earliest of what is stored, beside a sorted list of all. */
#include "broker/queue_delay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>

static void check(const void *value, size_t len, bool ok, int64_t wanted)
{
    int64_t ms = -7;
    assert_int_equal(bw_deliver_at_parse(value, len, &ms), ok);
    if (ok) assert_int_equal(ms, wanted);
}

static void test_deliver_at_takes_digits_and_eight_bytes_only(void **state)
{
    (void)state;
    check("0", 1, true, 0);
    check("1732000000000", 13, true, 1732000000000);
    check("12345678", 8, true, 12345678); /* digits, not a number of 8 bytes */
    check("9223372036854775807", 19, true, INT64_MAX);
    check("9223372036854775808", 19, false, 0);
    check("17320000000000000000", 20, false, 0);
    check("\x00\x00\x01\x93\x41\x2f\x3c\x00", 8, true, INT64_C(0x193412f3c00));
    check("\x80\x00\x00\x00\x00\x00\x00\x00", 8, false, 0);
    check("-5", 2, false, 0);
    check("12 ", 3, false, 0);
    check("", 0, false, 0);
    check(NULL, 0, false, 0);
}

#define ALL 30000

static int by_time(const void *x, const void *y) { return bw_delay_before(x, y) ? -1 : bw_delay_before(y, x); }

static void refill(bw_delays *d, const bw_delay *stored, size_t n)
{
    bw_delay horizon;
    bw_delays_refill_begin(d, &horizon);
    for (size_t i = 0; i < n; i++)
        if (!bw_delays_refill_offer(d, &horizon, stored[i])) break;
}

static void test_delays_come_in_order_though_memory_holds_few(void **state)
{
    (void)state;
    bw_delay *stored = calloc(ALL, sizeof *stored), got = {0};
    bw_delays d;
    srand(1);
    bw_delays_init(&d, true);
    for (int i = 0; i < ALL; i++) {
        stored[i] = (bw_delay){rand() % 5000, i, 0, 0};
        assert_int_equal(bw_delays_add(&d, stored[i]), BW_OK);
        assert_true(d.count <= BW_DELAY_HEAP);
    }
    qsort(stored, ALL, sizeof *stored, by_time);
    for (int i = 0; i < ALL; i++) {
        if (bw_delays_wants(&d)) refill(&d, stored + i, (size_t)(ALL - i)); /* what was taken is not stored any more */
        const bw_delay *first = bw_delays_first(&d);
        assert_non_null(first);
        assert_true(i == 0 || bw_delay_before(&got, first));
        got = *first;
        assert_int_equal(got.offset, stored[i].offset);
        bw_delays_pop(&d);
    }
    assert_null(bw_delays_first(&d));
    assert_false(bw_delays_wants(&d));
    bw_delays_fini(&d);
    free(stored);
}

static void test_delays_read_back_are_all_there(void **state)
{
    (void)state;
    bw_delay stored[3] = {{5, 1, 0, 0}, {5, 2, 3, 0}, {9, 0, 0, 0}};
    bw_delays d;
    bw_delays_init(&d, false);
    assert_true(bw_delays_wants(&d));
    assert_int_equal(bw_delays_add(&d, (bw_delay){7, 9, 0, 0}), BW_OK); /* before it was filled: it is stored too, and comes then */
    assert_int_equal(d.count, 0);
    refill(&d, stored, 3);
    assert_false(bw_delays_wants(&d));
    assert_int_equal(d.count, 3);
    bw_delays_pop(&d);
    assert_int_equal(bw_delays_first(&d)->offset, 2);
    assert_int_equal(bw_delays_first(&d)->deliveries, 3);
    bw_delays_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_deliver_at_takes_digits_and_eight_bytes_only),
        cmocka_unit_test(test_delays_come_in_order_though_memory_holds_few),
        cmocka_unit_test(test_delays_read_back_are_all_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
