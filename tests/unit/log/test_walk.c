/* log/walk.c and verify_segment.c: what lies outside a batch's checksum is checked by what is around it. */
#include "format/record_batch.h"
#include "log/inspect.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static uint8_t segment[16384];
static size_t segment_len, starts[8];

/* `count` batches of two records each, from offset 0 on, with these leader epochs. */
static void build(const int32_t *epochs, int count)
{
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    segment_len = 0;
    for (int i = 0; i < count; i++) {
        uint8_t *batch;
        size_t len;
        bw_batch_options o = BW_BATCH_OPTIONS_INIT;
        bw_record r = {.value = "value", .value_len = 5, .timestamp_ms = 1000 + i};
        bw_batch_builder_reset(&b);
        for (int k = 0; k < 2; k++) assert_int_equal(bw_batch_builder_add(&b, &r), BW_OK);
        assert_int_equal(bw_batch_builder_finish(&b, &o, &batch, &len), BW_OK);
        bw_batch_patch(batch, 2 * i, epochs[i]);
        starts[i] = segment_len;
        memcpy(segment + segment_len, batch, len);
        segment_len += len;
    }
    bw_batch_builder_fini(&b);
}

/* How many batches are walked before it ends; *end: how. */
static int walk_with(bool check_crc, bw_err *end)
{
    bw_walk w;
    int n = 0;
    bw_walk_init_memory(&w, segment, segment_len);
    w.next_offset = 0;
    w.check_crc = check_crc;
    while ((*end = bw_walk_next(&w)) == BW_OK) n++;
    return n;
}

static int walk(bw_err *end) { return walk_with(true, end); }

static void test_walk_leader_epoch_that_goes_back_is_corrupt(void **state)
{
    bw_err end;
    (void)state;
    build((const int32_t[]){3, 3, 4, 4}, 4);
    assert_int_equal(walk(&end), 4);
    assert_int_equal(end, BW_ERR_EMPTY);
    build((const int32_t[]){3, 4, 3, 4}, 4); /* the third is of an older life of the file */
    assert_int_equal(walk(&end), 2);
    assert_int_equal(end, BW_ERR_CORRUPT);
}

static void test_walk_batch_beyond_the_end_is_corrupt(void **state)
{
    bw_err end;
    (void)state;
    build((const int32_t[]){1, 1}, 2);
    segment_len--;
    for (int check = 0; check < 2; check++) {
        assert_int_equal(walk_with(check, &end), 1);
        assert_int_equal(end, BW_ERR_CORRUPT);
    }
    build((const int32_t[]){1, 1}, 2);
    bw_put_be32(segment + starts[1] + 8, 0x7ffffff0);
    assert_int_equal(walk(&end), 1);
    assert_int_equal(end, BW_ERR_CORRUPT);
}

static void test_walk_wrong_checksum_is_corrupt(void **state)
{
    bw_err end;
    (void)state;
    build((const int32_t[]){1, 1, 1}, 3);
    segment[starts[2] - 1] ^= 1;
    assert_int_equal(walk(&end), 1);
    assert_int_equal(end, BW_ERR_CORRUPT);
}

static void on_finding(void *opaque, const bw_finding *f)
{
    (void)f;
    (*(int *)opaque)++;
}

static int findings_with(const bw_seal *seal)
{
    int findings = 0;
    int64_t next;
    bw_walk w;
    bw_verify_totals totals = {0};
    bw_inspection in = {.finding = on_finding, .opaque = &findings, .totals = &totals, .plain_max = 1 << 20, .path = "x"};
    bw_segment_facts facts = {.seal = seal};
    bw_walk_init_memory(&w, segment, segment_len);
    w.next_offset = 0;
    assert_int_equal(bw_inspect_segment(&in, &w, &facts, &next), BW_OK);
    return findings;
}

static void test_verify_header_that_was_changed_since_the_seal_is_found(void **state)
{
    bw_merkle m = {0};
    (void)state;
    build((const int32_t[]){1, 1, 2}, 3);
    for (int i = 0; i < 3; i++) bw_merkle_add(&m, segment + starts[i]);
    bw_seal seal = {.length = (uint32_t)segment_len, .base_offset = 0, .next_offset = 6, .batches = 3, .root = bw_merkle_root(&m)};
    assert_int_equal(findings_with(&seal), 0);
    bw_batch_patch(segment + starts[1], 2, 2); /* an epoch that does not go back: only the seal knows */
    assert_int_equal(findings_with(&seal), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk_leader_epoch_that_goes_back_is_corrupt),
        cmocka_unit_test(test_walk_batch_beyond_the_end_is_corrupt),
        cmocka_unit_test(test_walk_wrong_checksum_is_corrupt),
        cmocka_unit_test(test_verify_header_that_was_changed_since_the_seal_is_found),
    };
    return cmocka_run_group_tests_name("walk", tests, NULL, NULL);
}
