/* End-of-transaction markers: their bytes, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "format/control_batch.h"

static bw_err read_it(uint8_t *batch, size_t size, bw_marker *m)
{
    bw_batch_header h;
    assert_int_equal(bw_batch_header_decode(batch, size, false, &h), BW_OK);
    return bw_marker_read(batch, &h, m);
}

static void test_marker_comes_back_as_it_was_written(void **state)
{
    (void)state;
    for (int commit = 0; commit < 2; commit++) {
        bw_marker in = {INT64_MAX, 3, commit, 77, 1234567}, out;
        uint8_t batch[BW_MARKER_BYTES];
        bw_batch_header h;
        assert_int_equal(bw_marker_write(batch, &in), BW_MARKER_BYTES);
        assert_int_equal(bw_batch_header_decode(batch, sizeof batch, false, &h), BW_OK);
        assert_true(bw_batch_crc_ok(batch, sizeof batch));
        assert_int_equal(bw_batch_check_records(batch, &h, 1000), BW_OK);
        assert_int_equal(h.attributes, 0x30);
        assert_int_equal(h.base_sequence, -1);
        assert_int_equal(h.record_count, 1);
        assert_int_equal(h.last_offset_delta, 0);
        assert_int_equal(bw_marker_read(batch, &h, &out), BW_OK);
        assert_int_equal(out.producer_id, in.producer_id);
        assert_int_equal(out.producer_epoch, in.producer_epoch);
        assert_int_equal(out.commit, commit);
        assert_int_equal(out.coordinator_epoch, 77);
        assert_int_equal(out.timestamp_ms, 1234567);
    }
}

/* The record of a commit marker as Kafka 3.9 writes it. */
static void test_marker_has_kafkas_bytes(void **state)
{
    (void)state;
    static const uint8_t kafka[] = {0x20, 0, 0, 0, 8, 0, 0, 0, 1, 12, 0, 0, 0, 0, 0, 9, 0};
    bw_marker m = {5, 0, true, 9, 100};
    uint8_t batch[BW_MARKER_BYTES];
    bw_marker_write(batch, &m);
    assert_memory_equal(batch + BW_BATCH_HEADER_BYTES, kafka, sizeof kafka);
    assert_int_equal(sizeof kafka + BW_BATCH_HEADER_BYTES, BW_MARKER_BYTES);
}

static void test_marker_that_is_malformed_is_corrupt(void **state)
{
    (void)state;
    static const struct { size_t at; uint8_t value; bw_err wanted; } cases[] = {
        {22, 0x31, BW_ERR_CORRUPT},  /* compressed */
        {22, 0x10, BW_ERR_CORRUPT},  /* no control batch */
        {22, 0x20, BW_ERR_CORRUPT},  /* not transactional */
        {43, 0x80, BW_ERR_CORRUPT},  /* no producer */
        {51, 0x80, BW_ERR_CORRUPT},  /* no epoch */
        {61, 0x22, BW_ERR_CORRUPT},  /* the record is longer than the batch */
        {65, 4, BW_ERR_CORRUPT},     /* a key of two bytes */
        {66, 0x80, BW_ERR_CORRUPT},  /* version */
        {69, 2, BW_ERR_NOT_FOUND},   /* another type */
        {70, 8, BW_ERR_CORRUPT},     /* a value of four bytes */
        {70, 1, BW_ERR_CORRUPT},     /* none */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bw_marker m = {5, 0, true, 9, 100}, out;
        uint8_t batch[BW_MARKER_BYTES];
        bw_marker_write(batch, &m);
        batch[cases[i].at] = cases[i].value;
        if (read_it(batch, sizeof batch, &out) != cases[i].wanted) fail_msg("byte %zu", cases[i].at);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marker_comes_back_as_it_was_written),
        cmocka_unit_test(test_marker_has_kafkas_bytes),
        cmocka_unit_test(test_marker_that_is_malformed_is_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
