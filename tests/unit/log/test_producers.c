/* The producer table: duplicates, gaps, epochs, wrap, expiry. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "log/producers.h"

static bw_batch_header header(int64_t id, int16_t epoch, int32_t sequence, int32_t count)
{
    return (bw_batch_header){.producer_id = id, .producer_epoch = epoch, .base_sequence = sequence, .last_offset_delta = count - 1,
                             .record_count = count};
}

static bw_sequence check(bw_producers *p, bw_batch_header h, int64_t *offset, bw_err *e)
{
    bw_producer_batch before = {0};
    bw_err ignored;
    bw_sequence s = bw_producers_check(p, &h, &before, e ? e : &ignored);
    if (offset) *offset = before.base_offset;
    return s;
}

static void note(bw_producers *p, bw_batch_header h, int64_t offset, int64_t now) { (void)bw_producers_note(p, &h, offset, -1, 0, now); }

static void test_producers_unknown_id_accepts_any_sequence(void **state)
{
    (void)state;
    bw_producers *p = bw_producers_new();
    assert_int_equal(check(p, header(1, 0, 12345, 3), NULL, NULL), BW_SEQUENCE_ACCEPT);
    bw_producers_free(p);
}

static void test_producers_last_five_are_duplicates_older_are_refused(void **state)
{
    (void)state;
    bw_producers *p = bw_producers_new();
    for (int i = 0; i < 9; i++) note(p, header(1, 0, 10 * i, 10), 100 + 10 * i, 0);
    int64_t offset;
    bw_err e;
    for (int i = 4; i < 9; i++) {
        assert_int_equal(check(p, header(1, 0, 10 * i, 10), &offset, &e), BW_SEQUENCE_DUPLICATE);
        assert_int_equal(offset, 100 + 10 * i);
    }
    assert_int_equal(check(p, header(1, 0, 30, 10), NULL, &e), BW_SEQUENCE_REFUSED);
    assert_int_equal(e, BW_ERR_OUT_OF_ORDER_SEQUENCE);
    assert_int_equal(check(p, header(1, 0, 80, 9), NULL, &e), BW_SEQUENCE_REFUSED); /* same first, other length */
    assert_int_equal(check(p, header(1, 0, 90, 10), NULL, &e), BW_SEQUENCE_ACCEPT);
    assert_int_equal(check(p, header(1, 0, 91, 10), NULL, &e), BW_SEQUENCE_REFUSED);
    assert_int_equal(check(p, header(2, 0, 91, 10), NULL, &e), BW_SEQUENCE_ACCEPT); /* another producer */
    bw_producers_free(p);
}

static void test_producers_epoch_rises_from_zero_and_fences(void **state)
{
    (void)state;
    bw_producers *p = bw_producers_new();
    bw_err e;
    note(p, header(1, 3, 7, 1), 0, 0);
    assert_int_equal(check(p, header(1, 2, 8, 1), NULL, &e), BW_SEQUENCE_REFUSED);
    assert_int_equal(e, BW_ERR_INVALID_PRODUCER_EPOCH);
    assert_int_equal(check(p, header(1, 4, 8, 1), NULL, &e), BW_SEQUENCE_REFUSED);
    assert_int_equal(e, BW_ERR_OUT_OF_ORDER_SEQUENCE);
    assert_int_equal(check(p, header(1, 4, 0, 1), NULL, &e), BW_SEQUENCE_ACCEPT);
    note(p, header(1, 4, 0, 1), 1, 0);
    assert_int_equal(check(p, header(1, 4, 7, 1), NULL, &e), BW_SEQUENCE_REFUSED); /* epoch 3's batch is no duplicate of epoch 4 */
    assert_int_equal(check(p, header(1, 3, 8, 1), NULL, &e), BW_SEQUENCE_REFUSED);
    bw_producers_free(p);
}

static void test_producers_sequence_wraps_to_zero(void **state)
{
    (void)state;
    bw_producers *p = bw_producers_new();
    note(p, header(1, 0, INT32_MAX - 1, 2), 5, 0); /* INT32_MAX - 1, INT32_MAX */
    assert_int_equal(check(p, header(1, 0, 0, 4), NULL, NULL), BW_SEQUENCE_ACCEPT);
    note(p, header(1, 0, 0, 4), 7, 0);
    note(p, header(1, 0, 4, 1), 11, 0);
    bw_producers_free(p);
    p = bw_producers_new();
    note(p, header(1, 0, INT32_MAX, 3), 5, 0); /* INT32_MAX, 0, 1 */
    assert_int_equal(check(p, header(1, 0, 2, 1), NULL, NULL), BW_SEQUENCE_ACCEPT);
    int64_t offset;
    assert_int_equal(check(p, header(1, 0, INT32_MAX, 3), &offset, NULL), BW_SEQUENCE_DUPLICATE);
    assert_int_equal(offset, 5);
    bw_producers_free(p);
}

static void test_producers_silent_ones_expire_and_the_table_is_bounded(void **state)
{
    (void)state;
    bw_producers *p = bw_producers_new();
    for (int i = 0; i < 10; i++) note(p, header(i, 0, 0, 1), i, i);
    note(p, header(0, 0, 1, 1), 10, 10); /* the oldest speaks again */
    bw_producers_expire(p, 5);
    assert_int_equal(bw_producers_count(p), 6);
    assert_int_equal(check(p, header(0, 0, 5, 1), NULL, NULL), BW_SEQUENCE_REFUSED);
    assert_int_equal(check(p, header(4, 0, 5, 1), NULL, NULL), BW_SEQUENCE_ACCEPT);
    for (int i = 0; i < (int)BW_PRODUCERS_MAX + 100; i++) note(p, header(1000 + i, 0, 0, 1), i, 20);
    assert_int_equal(bw_producers_count(p), BW_PRODUCERS_MAX);
    bw_producers_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_producers_unknown_id_accepts_any_sequence),
        cmocka_unit_test(test_producers_last_five_are_duplicates_older_are_refused),
        cmocka_unit_test(test_producers_epoch_rises_from_zero_and_fences),
        cmocka_unit_test(test_producers_sequence_wraps_to_zero),
        cmocka_unit_test(test_producers_silent_ones_expire_and_the_table_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
