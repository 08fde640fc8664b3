/* The state machine of a transactional id, without a broker: who may do what in each state, what records make of it, their bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "broker/txn_state.h"

#include <stdio.h>
#include <stdlib.h>

static const bw_uuid topic_a = {{1}}, topic_b = {{2}};

static bw_txn_state fresh(void) { return (bw_txn_state){.producer_id = 7, .epoch = 3, .epoch_before = -1, .timeout_ms = 1000}; }

static bw_txn_record record(bw_txn_kind kind, const bw_txn_state *s, int64_t at_ms)
{
    return (bw_txn_record){.kind = kind, .producer_id = s->producer_id, .epoch = s->epoch, .at_ms = at_ms};
}

static void add(bw_txn_state *s, const bw_uuid *topic, uint32_t partition)
{
    bw_txn_part p = {.topic = *topic, .partition = partition, .end = -1};
    bw_txn_record r = record(BW_TXN_ADD, s, 10);
    r.parts = &p;
    r.part_count = 1;
    assert_int_equal(bw_txn_apply(s, &r), BW_OK);
}

static void put_offset(bw_txn_state *s, const char *group, uint32_t partition, int64_t offset)
{
    char text[4][16] = {"t", "", "m", "i"}, name[16];
    snprintf(name, sizeof name, "%s", group);
    bw_txn_offset o = {.group = name, .topic = text[0], .metadata = text[1], .member = text[2], .instance = text[3],
                       .topic_id = topic_a, .partition = partition, .offset = offset};
    bw_txn_record r = record(BW_TXN_OFFSETS, s, 11);
    r.offsets = &o;
    r.offset_count = 1;
    assert_int_equal(bw_txn_apply(s, &r), BW_OK);
}

static void prepare(bw_txn_state *s, bool commit, int raise, bool recoverable)
{
    bw_txn_record r = record(BW_TXN_PREPARE, s, 12);
    r.epoch = (int16_t)(s->epoch + raise);
    r.commit = commit;
    r.recoverable = recoverable;
    assert_int_equal(bw_txn_apply(s, &r), BW_OK);
}

static void complete(bw_txn_state *s, bool commit)
{
    bw_txn_record r = record(BW_TXN_COMPLETE, s, 13);
    r.commit = commit;
    assert_int_equal(bw_txn_apply(s, &r), BW_OK);
}

static bw_err end_error(const bw_txn_state *s, int16_t epoch, bool commit, bool early)
{
    bw_err e;
    assert_int_equal(bw_txn_state_end(s, "x", 7, epoch, commit, early, &e), BW_TXN_END_REFUSED);
    return e;
}

static void test_txn_state_only_its_producer_may_write(void **state)
{
    (void)state;
    bw_txn_state s = fresh();
    assert_int_equal(bw_txn_state_may_write(&s, "x", 7, 3), BW_OK);
    assert_int_equal(bw_txn_state_may_write(&s, "x", 8, 3), BW_ERR_INVALID_PRODUCER_ID_MAPPING);
    assert_int_equal(bw_txn_state_may_write(&s, "x", 7, 2), BW_ERR_PRODUCER_FENCED);
    assert_int_equal(bw_txn_state_may_write(&s, "x", 7, 4), BW_ERR_INVALID_PRODUCER_EPOCH);
    add(&s, &topic_a, 0);
    assert_int_equal(bw_txn_state_may_write(&s, "x", 7, 3), BW_OK);
    prepare(&s, true, 0, false);
    assert_int_equal(bw_txn_state_may_write(&s, "x", 7, 3), BW_ERR_CONCURRENT_TRANSACTIONS);
    complete(&s, true);
    assert_int_equal(bw_txn_state_may_write(&s, "x", 7, 3), BW_OK);
    bw_txn_state_fini(&s);
}

static void test_txn_state_end_in_each_phase(void **state)
{
    (void)state;
    bw_txn_state s = fresh();
    bw_err e;
    assert_int_equal(end_error(&s, 3, true, false), BW_ERR_INVALID_TXN_STATE);
    add(&s, &topic_a, 0);
    assert_int_equal(bw_txn_state_end(&s, "x", 7, 3, true, true, &e), BW_TXN_END_DECIDE);
    assert_int_equal(end_error(&s, 2, true, false), BW_ERR_PRODUCER_FENCED);
    prepare(&s, true, 0, false);
    assert_int_equal(end_error(&s, 3, true, false), BW_ERR_CONCURRENT_TRANSACTIONS);
    assert_int_equal(end_error(&s, 3, false, false), BW_ERR_INVALID_TXN_STATE);
    complete(&s, true);
    assert_int_equal(bw_txn_state_end(&s, "x", 7, 3, true, false, &e), BW_TXN_END_REPEAT);
    assert_int_equal(end_error(&s, 3, true, true), BW_ERR_CONCURRENT_TRANSACTIONS); /* sent early, it cannot mean the one before */
    assert_int_equal(end_error(&s, 3, false, false), BW_ERR_INVALID_TXN_STATE);
    bw_txn_state_fini(&s);
}

static void test_txn_state_init_raises_waits_or_aborts(void **state)
{
    (void)state;
    bw_txn_state s = fresh();
    bw_err e;
    assert_int_equal(bw_txn_state_init(&s, "x", -1, -1, &e), BW_TXN_INIT_RAISE);
    assert_int_equal(bw_txn_state_init(&s, "x", 7, 3, &e), BW_TXN_INIT_RAISE);
    assert_true(bw_txn_state_raise(&s, 3));
    assert_int_equal(s.epoch, 4);
    assert_int_equal(bw_txn_state_init(&s, "x", 7, 3, &e), BW_TXN_INIT_REPEAT); /* its answer was lost */
    assert_int_equal(bw_txn_state_init(&s, "x", 7, 2, &e), BW_TXN_INIT_REFUSED);
    assert_int_equal(e, BW_ERR_PRODUCER_FENCED);
    add(&s, &topic_a, 0);
    assert_int_equal(bw_txn_state_init(&s, "x", -1, -1, &e), BW_TXN_INIT_ABORT_FIRST);
    prepare(&s, false, 1, false);
    assert_int_equal(bw_txn_state_init(&s, "x", -1, -1, &e), BW_TXN_INIT_REFUSED);
    assert_int_equal(e, BW_ERR_CONCURRENT_TRANSACTIONS);
    complete(&s, false);
    assert_int_equal(s.epoch, 5);
    assert_int_equal(bw_txn_state_init(&s, "x", 7, 4, &e), BW_TXN_INIT_REFUSED); /* fenced for good */
    assert_int_equal(e, BW_ERR_PRODUCER_FENCED);
    bw_txn_state_fini(&s);
}

static void test_txn_state_after_a_timeout_its_producer_may_go_on(void **state)
{
    (void)state;
    bw_txn_state s = fresh();
    bw_err e;
    add(&s, &topic_a, 0);
    prepare(&s, false, 1, true);
    assert_int_equal(bw_txn_state_init(&s, "x", 7, 3, &e), BW_TXN_INIT_REFUSED);
    assert_int_equal(e, BW_ERR_CONCURRENT_TRANSACTIONS);
    complete(&s, false);
    assert_int_equal(bw_txn_state_may_write(&s, "x", 7, 3), BW_ERR_PRODUCER_FENCED);
    assert_int_equal(bw_txn_state_init(&s, "x", 7, 3, &e), BW_TXN_INIT_REPEAT);
    assert_int_equal(bw_txn_state_init(&s, "x", -1, -1, &e), BW_TXN_INIT_RAISE); /* another came first */
    assert_true(bw_txn_state_raise(&s, -1));
    assert_int_equal(bw_txn_state_init(&s, "x", 7, 3, &e), BW_TXN_INIT_REFUSED);
    assert_int_equal(e, BW_ERR_PRODUCER_FENCED);
    bw_txn_state_fini(&s);
}

static void test_txn_state_epochs_end(void **state)
{
    (void)state;
    bw_txn_state s = fresh();
    s.epoch = INT16_MAX - 1;
    assert_false(bw_txn_state_raise(&s, -1)); /* the last one is for an abort */
    assert_int_equal(s.epoch, INT16_MAX - 1);
    add(&s, &topic_a, 0);
    prepare(&s, false, 1, true);
    complete(&s, false);
    bw_err e;
    assert_int_equal(bw_txn_state_init(&s, "x", 7, INT16_MAX - 1, &e), BW_TXN_INIT_RAISE); /* to another producer id */
    bw_txn_state_fini(&s);
}

static void test_txn_state_next_transaction_begins_empty(void **state)
{
    (void)state;
    bw_txn_state s = fresh();
    add(&s, &topic_a, 0);
    add(&s, &topic_b, 0);
    add(&s, &topic_a, 0);
    assert_int_equal(s.part_count, 2);
    put_offset(&s, "g", 1, 5);
    put_offset(&s, "g", 1, 9);
    put_offset(&s, "h", 1, 2);
    assert_int_equal(s.offset_count, 2);
    assert_int_equal(s.offsets[0].offset, 9);
    assert_int_equal(s.serial, 1);
    prepare(&s, true, 0, false);
    assert_int_equal(s.part_count, 2); /* until all of it is done */
    assert_int_equal(s.offset_count, 2);
    complete(&s, true);
    assert_int_equal(s.part_count + s.offset_count, 0);
    put_offset(&s, "g", 0, 1); /* offsets alone begin one too */
    assert_int_equal(s.phase, BW_TXN_ONGOING);
    assert_int_equal(s.serial, 2);
    bw_txn_state_fini(&s);
}

static void test_txn_state_and_records_survive_their_bytes(void **state)
{
    (void)state;
    bw_txn_state s = fresh(), back;
    bw_buf b = {0}, again = {0};
    add(&s, &topic_a, 4);
    add(&s, &topic_b, 5);
    put_offset(&s, "group", 1, INT64_C(1) << 40);
    s.log_offset = 99;
    assert_int_equal(bw_txn_state_encode(&s, &b), BW_OK);
    assert_int_equal(bw_txn_state_decode(b.data, b.len, &back), BW_OK);
    assert_int_equal(bw_txn_state_encode(&back, &again), BW_OK);
    assert_int_equal(again.len, b.len);
    assert_memory_equal(again.data, b.data, b.len);
    assert_string_equal(back.offsets[0].group, "group");
    assert_int_equal(back.serial, 1);
    bw_txn_state_fini(&back);
    for (size_t len = 0; len < b.len; len++) { /* cut anywhere: refused, nothing leaks */
        uint8_t *exact = malloc(len + 1);
        memcpy(exact, b.data, len);
        assert_int_equal(bw_txn_state_decode(exact, len, &back), BW_ERR_CORRUPT);
        bw_txn_state_fini(&back);
        free(exact);
    }
    for (int kind = BW_TXN_ADD; kind <= BW_TXN_COMPLETE; kind++) {
        bw_txn_record r = record((bw_txn_kind)kind, &s, 5), got;
        r.commit = true;
        r.recoverable = kind == BW_TXN_PREPARE;
        if (kind == BW_TXN_ADD || kind == BW_TXN_PREPARE) r.parts = s.parts, r.part_count = s.part_count;
        if (kind == BW_TXN_OFFSETS) r.offsets = s.offsets, r.offset_count = s.offset_count;
        b.len = again.len = 0;
        assert_int_equal(bw_txn_record_encode(&r, &b), BW_OK);
        for (size_t len = 0; len <= b.len; len++) {
            assert_int_equal(bw_txn_record_decode(b.data, len, &got), len < b.len ? BW_ERR_CORRUPT : BW_OK);
            if (len == b.len) assert_int_equal(bw_txn_record_encode(&got, &again), BW_OK);
            bw_txn_record_fini(&got);
        }
        assert_int_equal(again.len, b.len);
        assert_memory_equal(again.data, b.data, b.len);
    }
    b.data[0] = 2;
    bw_txn_record got;
    assert_int_equal(bw_txn_record_decode(b.data, b.len, &got), BW_ERR_NEWER_FORMAT);
    bw_buf_free(&b);
    bw_buf_free(&again);
    bw_txn_state_fini(&s);
}

static void test_txn_state_lists_are_bounded(void **state)
{
    (void)state;
    bw_txn_state s = fresh();
    bw_txn_part *parts = calloc(BW_TXN_PARTS_MAX + 1, sizeof *parts);
    bw_txn_record r = record(BW_TXN_ADD, &s, 1);
    r.parts = parts;
    r.part_count = BW_TXN_PARTS_MAX + 1;
    assert_int_equal(bw_txn_apply(&s, &r), BW_ERR_LIMIT_REACHED);
    assert_int_equal(s.phase, BW_TXN_EMPTY); /* as before */
    uint8_t bytes[24] = {1, BW_TXN_ADD};
    bw_put_be32(bytes + 20, UINT32_MAX); /* a count that nothing is behind */
    assert_int_equal(bw_txn_record_decode(bytes, sizeof bytes, &r), BW_ERR_CORRUPT);
    bw_txn_record_fini(&r);
    free(parts);
    bw_txn_state_fini(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_txn_state_only_its_producer_may_write),
        cmocka_unit_test(test_txn_state_end_in_each_phase),
        cmocka_unit_test(test_txn_state_init_raises_waits_or_aborts),
        cmocka_unit_test(test_txn_state_after_a_timeout_its_producer_may_go_on),
        cmocka_unit_test(test_txn_state_epochs_end),
        cmocka_unit_test(test_txn_state_next_transaction_begins_empty),
        cmocka_unit_test(test_txn_state_and_records_survive_their_bytes),
        cmocka_unit_test(test_txn_state_lists_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
