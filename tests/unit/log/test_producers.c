/* The producer table: duplicates, gaps, epochs, wrap, expiry, transactions, snapshots. */
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

/* ---- transactions ---- */

static bw_batch_header in_transaction(int64_t id, int16_t epoch, int32_t sequence)
{
    bw_batch_header h = header(id, epoch, sequence, 1);
    h.attributes = BW_ATTR_TRANSACTIONAL;
    return h;
}

static bool end(bw_producers *p, int64_t id, int16_t epoch, int64_t offset, int64_t *first)
{
    bw_marker m = {id, epoch, true, 3, 0};
    *first = -1;
    return bw_producers_note_marker(p, &m, offset, 0, first);
}

static void test_producers_first_unstable_is_the_oldest_open_transaction(void **state)
{
    (void)state;
    int64_t first;
    bw_producers *p = bw_producers_new();
    assert_int_equal(bw_producers_first_unstable(p), INT64_MAX);
    note(p, in_transaction(1, 0, 0), 10, 0);
    note(p, in_transaction(2, 0, 0), 11, 0);
    note(p, in_transaction(1, 0, 1), 12, 0);
    note(p, header(3, 0, 0, 1), 13, 0);
    assert_int_equal(bw_producers_first_unstable(p), 10);
    assert_int_equal(bw_producers_transaction(p, 1), 10);
    assert_int_equal(bw_producers_transaction(p, 3), -1);
    assert_true(end(p, 1, 0, 14, &first));
    assert_int_equal(first, 10);
    assert_int_equal(bw_producers_first_unstable(p), 11);
    note(p, in_transaction(1, 0, 2), 15, 0);
    assert_true(end(p, 2, 0, 16, &first));
    assert_int_equal(bw_producers_first_unstable(p), 15);
    assert_false(end(p, 2, 0, 17, &first)); /* one that ends nothing */
    assert_true(end(p, 1, 0, 18, &first));
    assert_int_equal(bw_producers_first_unstable(p), INT64_MAX);
    bw_producers_free(p);
}

static void test_producers_plain_batch_inside_a_transaction_is_refused(void **state)
{
    (void)state;
    int64_t first;
    bw_err e;
    bw_producers *p = bw_producers_new();
    note(p, in_transaction(1, 0, 0), 10, 0);
    assert_int_equal(check(p, header(1, 0, 1, 1), NULL, &e), BW_SEQUENCE_REFUSED);
    assert_int_equal(e, BW_ERR_INVALID_TXN_STATE);
    assert_int_equal(check(p, in_transaction(1, 0, 1), NULL, &e), BW_SEQUENCE_ACCEPT);
    assert_int_equal(check(p, in_transaction(1, 0, 0), NULL, &e), BW_SEQUENCE_DUPLICATE);
    end(p, 1, 0, 11, &first);
    assert_int_equal(check(p, header(1, 0, 1, 1), NULL, &e), BW_SEQUENCE_ACCEPT);
    bw_producers_free(p);
}

static void test_producers_marker_of_a_new_epoch_fences_and_begins_at_zero(void **state)
{
    (void)state;
    int64_t first;
    bw_err e;
    bw_producers *p = bw_producers_new();
    note(p, in_transaction(1, 4, 7), 10, 0);
    bw_marker old = {1, 3, false, 3, 0}, same = {1, 4, false, 3, 0};
    assert_int_equal(bw_producers_check_marker(p, &old), BW_ERR_INVALID_PRODUCER_EPOCH);
    assert_int_equal(bw_producers_check_marker(p, &same), BW_OK);
    assert_true(end(p, 1, 5, 11, &first)); /* the coordinator fenced it */
    assert_int_equal(first, 10);
    assert_int_equal(check(p, in_transaction(1, 4, 8), NULL, &e), BW_SEQUENCE_REFUSED);
    assert_int_equal(e, BW_ERR_INVALID_PRODUCER_EPOCH);
    assert_int_equal(check(p, in_transaction(1, 5, 8), NULL, &e), BW_SEQUENCE_REFUSED);
    assert_int_equal(e, BW_ERR_OUT_OF_ORDER_SEQUENCE);
    assert_int_equal(check(p, in_transaction(1, 5, 0), NULL, &e), BW_SEQUENCE_ACCEPT);
    bw_marker zombie = {1, 5, true, 2, 0};
    assert_int_equal(bw_producers_check_marker(p, &zombie), BW_ERR_FENCED); /* an older coordinator */
    bw_producers_free(p);
}

static void test_producers_open_transaction_is_never_forgotten(void **state)
{
    (void)state;
    bw_producers *p = bw_producers_new();
    note(p, in_transaction(1, 0, 0), 10, 0);
    note(p, header(2, 0, 0, 1), 11, 0);
    bw_producers_expire(p, 1000);
    assert_int_equal(bw_producers_count(p), 1);
    for (int i = 0; i < (int)BW_PRODUCERS_MAX + 10; i++) note(p, header(100 + i, 0, 0, 1), 20 + i, 2000);
    assert_int_equal(bw_producers_count(p), BW_PRODUCERS_MAX);
    assert_int_equal(bw_producers_first_unstable(p), 10);
    bw_producers_free(p);
}

static void test_producers_reserved_entry_is_as_if_unknown(void **state)
{
    (void)state;
    bw_producer_info info;
    bw_producers *p = bw_producers_new();
    assert_int_equal(bw_producers_reserve(p, 1, 0), BW_OK);
    assert_int_equal(check(p, header(1, 0, 77, 1), NULL, NULL), BW_SEQUENCE_ACCEPT);
    assert_false(bw_producers_get(p, 1, 0, &info));
    bw_buf b = {0};
    assert_int_equal(bw_producers_encode(p, 0, 0, &b), BW_OK);
    assert_int_equal(b.len, 13);
    bw_buf_free(&b);
    bw_producers_free(p);
}

/* ---- copies and snapshots ---- */

static bw_producers *some(void)
{
    int64_t first;
    bw_producers *p = bw_producers_new();
    for (int i = 0; i < 8; i++) note(p, header(5, 1, i * 2, 2), 100 + 2 * i, 10);
    note(p, in_transaction(9, 0, 3), 116, 20);
    note(p, in_transaction(8, 2, 0), 117, 30);
    note(p, header(4, 0, INT32_MAX, 2), 118, 40);
    note(p, in_transaction(3, 0, 0), 120, 45);
    end(p, 3, 1, 121, &first);
    return p;
}

static void expect_some(bw_producers *p, int64_t now, int64_t age)
{
    bw_producer_info info;
    bw_err e;
    int64_t offset, first;
    assert_int_equal(bw_producers_count(p), 5);
    assert_true(bw_producers_get(p, 5, now, &info));
    assert_int_equal(info.epoch, 1);
    assert_int_equal(info.last_sequence, 15);
    assert_int_equal(info.last_offset, 115);
    assert_int_equal(info.transaction, -1);
    assert_int_equal(info.silent_ms, age);
    assert_int_equal(check(p, header(5, 1, 6, 2), &offset, &e), BW_SEQUENCE_DUPLICATE);
    assert_int_equal(offset, 106);
    assert_int_equal(check(p, header(5, 1, 4, 2), &offset, &e), BW_SEQUENCE_REFUSED);
    assert_int_equal(check(p, header(5, 1, 16, 2), &offset, &e), BW_SEQUENCE_ACCEPT);
    assert_int_equal(check(p, header(4, 0, 1, 2), &offset, &e), BW_SEQUENCE_ACCEPT);
    assert_true(bw_producers_get(p, 3, now, &info));
    assert_int_equal(info.epoch, 1);
    assert_int_equal(info.coordinator_epoch, 3);
    assert_int_equal(info.last_sequence, -1);
    assert_int_equal(bw_producers_first_unstable(p), 116);
    assert_true(end(p, 9, 0, 122, &first));
    assert_int_equal(bw_producers_first_unstable(p), 117);
    bw_producers_expire(p, now - age + 5); /* 5 is the one that was silent the longest */
    assert_false(bw_producers_get(p, 5, now, &info));
    assert_true(bw_producers_get(p, 4, now, &info));
}

static void test_producers_copy_and_snapshot_hold_all(void **state)
{
    (void)state;
    bw_producers *p = some(), *q = bw_producers_copy(p);
    expect_some(q, 100, 90);
    bw_producers_free(q);
    bw_buf b = {0};
    int64_t offset;
    assert_int_equal(bw_producers_encode(p, 1234, 100, &b), BW_OK);
    assert_int_equal(bw_producers_decode(b.data, b.len, 5000, &q, &offset), BW_OK);
    assert_int_equal(offset, 1234);
    bw_buf again = {0};
    assert_int_equal(bw_producers_encode(q, 1234, 5000, &again), BW_OK);
    assert_int_equal(again.len, b.len);
    assert_memory_equal(again.data, b.data, b.len);
    expect_some(q, 5000, 90); /* the time in between does not count */
    bw_producers_free(q);
    for (size_t len = 0; len < b.len; len++) assert_int_equal(bw_producers_decode(b.data, len, 0, &q, &offset), BW_ERR_CORRUPT);
    b.data[0] = 2;
    assert_int_equal(bw_producers_decode(b.data, b.len, 0, &q, &offset), BW_ERR_NEWER_FORMAT);
    b.data[0] = 1;
    assert_int_equal(bw_producers_encode(p, 121, 100, &again), BW_OK); /* of a batch behind its own offset */
    assert_int_equal(bw_producers_decode(again.data + b.len, again.len - b.len, 0, &q, &offset), BW_ERR_CORRUPT);
    bw_buf_free(&again);
    bw_buf_free(&b);
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
        cmocka_unit_test(test_producers_first_unstable_is_the_oldest_open_transaction),
        cmocka_unit_test(test_producers_plain_batch_inside_a_transaction_is_refused),
        cmocka_unit_test(test_producers_marker_of_a_new_epoch_fences_and_begins_at_zero),
        cmocka_unit_test(test_producers_open_transaction_is_never_forgotten),
        cmocka_unit_test(test_producers_reserved_entry_is_as_if_unknown),
        cmocka_unit_test(test_producers_copy_and_snapshot_hold_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
