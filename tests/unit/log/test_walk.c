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

/* ---- runs of plain batches ---- */

/* Batches of one and two records, some with a producer's id, one compressed, one of a later epoch; each of another size. */
static void build_mixed(void)
{
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    segment_len = 0;
    int64_t offset = 40;
    for (int i = 0; i < 30; i++) {
        static const char value[128];
        uint8_t *batch;
        size_t len;
        int records = 1 + i % 2;
        bw_batch_options o = BW_BATCH_OPTIONS_INIT;
        if (i == 13 || i == 14) o.producer_id = 7, o.producer_epoch = 0, o.base_sequence = i;
        if (i == 20) o.codec = BW_CODEC_LZ4;
        bw_record r = {.value = value, .value_len = 5 + (size_t)i, .timestamp_ms = 1000 + i * 7 % 5};
        bw_batch_builder_reset(&b);
        for (int k = 0; k < records; k++) assert_int_equal(bw_batch_builder_add(&b, &r), BW_OK);
        assert_int_equal(bw_batch_builder_finish(&b, &o, &batch, &len), BW_OK);
        bw_batch_patch(batch, offset, i < 25 ? 3 : 4);
        offset += records;
        memcpy(segment + segment_len, batch, len);
        segment_len += len;
    }
    bw_batch_builder_fini(&b);
}

typedef struct step { uint64_t at; uint32_t size; int64_t last_offset, max_timestamp; uint8_t first[BW_BATCH_HEADER_BYTES]; } step;

/* All that is walked, one by one or in runs; how many of the steps came in runs. */
static int steps_of(bool runs, step *steps, int *in_runs, bw_walk *w)
{
    bw_err e;
    int n = 0;
    *in_runs = 0;
    bw_walk_init_memory(w, segment, segment_len);
    w->next_offset = 40;
    w->check_crc = false;
    for (;;) {
        bw_walk_run run = {.count = 0};
        if (runs && bw_walk_plain(w, &run) > 0) {
            for (size_t i = 0; i < run.count; i++, n++) {
                steps[n] = (step){run.of[i].at, run.of[i].size, run.of[i].last_offset, run.of[i].max_timestamp, {0}};
                memcpy(steps[n].first, run.first[i], sizeof steps[n].first);
            }
            *in_runs += (int)run.count;
            continue;
        }
        if ((e = bw_walk_next(w)) != BW_OK) break;
        steps[n] = (step){w->at, w->size, bw_batch_last_offset(&w->header), w->header.max_timestamp, {0}};
        memcpy(steps[n++].first, w->first, sizeof steps[n].first);
    }
    return n;
}

static void assert_runs_as_one_by_one(int *in_runs)
{
    static step ones[64], some[64];
    bw_walk one, run;
    int none, n = steps_of(false, ones, &none, &one);
    assert_int_equal(steps_of(true, some, in_runs, &run), n);
    for (int i = 0; i < n; i++) {
        assert_true(ones[i].at == some[i].at && ones[i].size == some[i].size && ones[i].last_offset == some[i].last_offset &&
                    ones[i].max_timestamp == some[i].max_timestamp);
        assert_memory_equal(ones[i].first, some[i].first, sizeof some[i].first);
    }
    assert_true(one.position == run.position && one.next_offset == run.next_offset && one.leader_epoch == run.leader_epoch);
    if (n > 0) assert_true(one.at == run.at && one.size == run.size);
}

static void test_walk_runs_give_what_one_by_one_gives(void **state)
{
    int in_runs;
    (void)state;
    build_mixed();
    assert_runs_as_one_by_one(&in_runs);
    assert_int_equal(in_runs, 30 - 5); /* not the first of each epoch, the two of the producer, the compressed one */
    size_t whole = segment_len;
    for (segment_len = whole - 1; segment_len > whole - 200; segment_len--) assert_runs_as_one_by_one(&in_runs);
}

/* Whatever a header says: a run takes nothing that one by one is refused, and the other way round. */
static void test_walk_runs_any_changed_header_byte_ends_as_one_by_one(void **state)
{
    static const uint8_t values[] = {0, 1, 2, 3, 6, 7, 0x31, 0x3d, 0x7f, 0x80, 0xff};
    int in_runs;
    (void)state;
    build_mixed();
    bw_walk w;
    bw_walk_init_memory(&w, segment, segment_len);
    w.check_crc = false;
    while (bw_walk_next(&w) == BW_OK) {
        if (w.at > 1200 && w.position < segment_len) continue;
        for (size_t i = 0; i < BW_BATCH_HEADER_BYTES; i++) {
            uint8_t was = segment[w.at + i];
            for (size_t k = 0; k < sizeof values; k++) {
                segment[w.at + i] = values[k];
                assert_runs_as_one_by_one(&in_runs);
            }
            for (int bit = 0; bit < 8; bit++) {
                segment[w.at + i] = (uint8_t)(was ^ 1u << bit);
                assert_runs_as_one_by_one(&in_runs);
            }
            segment[w.at + i] = was;
        }
    }
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
        cmocka_unit_test(test_walk_runs_give_what_one_by_one_gives),
        cmocka_unit_test(test_walk_runs_any_changed_header_byte_ends_as_one_by_one),
        cmocka_unit_test(test_verify_header_that_was_changed_since_the_seal_is_found),
    };
    return cmocka_run_group_tests_name("walk", tests, NULL, NULL);
}
