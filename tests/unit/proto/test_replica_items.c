/* The lists that peers exchange of ranges, batches and leader epochs; where two logs part. */
#include "proto/replica_items.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static bw_str str_of(const bw_buf *b) { return (bw_str){(const char *)b->data, b->len}; }

static void test_items_come_back_as_they_were(void **state)
{
    (void)state;
    bw_range_item r = {1, UINT64_MAX, 3, 4}, r2;
    bw_batch_item b[2] = {{5, 10, 77, 100, 0}, {10, 11, 78, 61, BW_RANGE_DAMAGED}}, b2[BW_RANGE_BATCHES_MAX];
    bw_buf out = {0};
    uint32_t count;
    assert_int_equal(bw_range_item_put(&out, &r), BW_OK);
    assert_int_equal(bw_range_items(str_of(&out), 1, &r2, &count), BW_OK);
    assert_int_equal(count, 1);
    assert_memory_equal(&r, &r2, sizeof r);
    out.len = 0;
    for (int i = 0; i < 2; i++) assert_int_equal(bw_batch_item_put(&out, &b[i]), BW_OK);
    assert_int_equal(bw_batch_items(str_of(&out), 6, 11, b2, &count), BW_OK);
    assert_int_equal(count, 2);
    assert_memory_equal(b, b2, sizeof b);
    bw_buf_free(&out);
}

static void test_lists_that_contradict_themselves_are_refused(void **state)
{
    (void)state;
    static bw_batch_item out[BW_RANGE_BATCHES_MAX];
    bw_range_item range;
    uint32_t count;
    static const bw_batch_item wrong[][2] = {
        {{5, 10, 0, 0, 0}, {9, 12, 0, 0, 0}},  /* overlap */
        {{5, 5, 0, 0, 0}, {6, 7, 0, 0, 0}},    /* empty */
        {{-1, 5, 0, 0, 0}, {6, 7, 0, 0, 0}},   /* negative */
        {{1, 4, 0, 0, 0}, {6, 7, 0, 0, 0}},    /* ends before the range */
        {{5, 10, 0, 0, 0}, {10, 21, 0, 0, 0}}, /* ends behind it */
    };
    bw_buf text = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        text.len = 0;
        for (int k = 0; k < 2; k++) assert_int_equal(bw_batch_item_put(&text, &wrong[i][k]), BW_OK);
        assert_int_equal(bw_batch_items(str_of(&text), 4, 20, out, &count), BW_ERR_PROTOCOL);
    }
    text.len--;
    assert_int_equal(bw_batch_items(str_of(&text), 4, 21, out, &count), BW_ERR_PROTOCOL);
    assert_int_equal(bw_range_items((bw_str){NULL, 0}, 4, &range, &count), BW_ERR_PROTOCOL);
    bw_epoch_entry down[] = {{3, 0}, {2, 10}}, *list;
    size_t n;
    text.len = 0;
    for (int k = 0; k < 2; k++) assert_int_equal(bw_epoch_item_put(&text, &down[k]), BW_OK);
    assert_int_equal(bw_epoch_items(str_of(&text), &list, &n), BW_ERR_PROTOCOL);
    assert_null(list);
    bw_buf_free(&text);
}

static void test_logs_part_where_their_last_common_epoch_ends_first(void **state)
{
    (void)state;
    static const bw_epoch_entry mirror[] = {{0, 0}, {65536, 100}}, old[] = {{0, 0}}, restarted[] = {{0, 0}, {1, 90}},
                                again[] = {{0, 0}, {1, 40}, {2, 60}},
                                of_again[] = {{0, 0}, {1, 40}, {65536, 55}}, other[] = {{7, 0}};
    assert_int_equal(bw_epochs_part(mirror, 2, 500, old, 1, 120), 100);      /* the origin went on to 120 */
    assert_int_equal(bw_epochs_part(mirror, 2, 500, old, 1, 80), 80);        /* the origin lost its end */
    assert_int_equal(bw_epochs_part(mirror, 2, 500, restarted, 2, 300), 90); /* and wrote more in another life */
    assert_int_equal(bw_epochs_part(of_again, 3, 500, again, 3, 300), 55);
    assert_int_equal(bw_epochs_part(mirror, 2, 500, other, 1, 300), 0);
    assert_int_equal(bw_epochs_part(mirror, 0, 0, other, 0, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_items_come_back_as_they_were),
        cmocka_unit_test(test_lists_that_contradict_themselves_are_refused),
        cmocka_unit_test(test_logs_part_where_their_last_common_epoch_ends_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
