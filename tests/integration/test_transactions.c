/* Transactions through the public API: what committed readers see, errors and what they say, the daemon killed in the middle of one. */
#include "support/one_bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE = 20000 };

static bw_producer *open_with(const char *id, int32_t timeout_ms, bw_acks acks)
{
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    bw_producer *p;
    o.transactional_id = id;
    o.transaction_timeout_ms = timeout_ms;
    o.acks = acks;
    assert_ok(bw_producer_open(bus, &o, &p));
    return p;
}

static bw_producer *ready(const char *id)
{
    bw_producer *p = open_with(id, 60000, BW_ACKS_VISIBLE);
    assert_ok(bw_transactions_init(p, PATIENCE));
    return p;
}

static bw_err put(bw_producer *p, const char *topic, int32_t partition, const char *value)
{
    bw_record r = test_record(NULL, value);
    return bw_producer_send_sync(p, topic, partition, &r, PATIENCE, NULL);
}

/* All values of a partition that a reader of this isolation sees, each followed by a space. */
static void seen(const char *topic, int32_t partition, bw_isolation isolation, char *out, size_t size)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *c;
    bw_batch b;
    out[0] = 0;
    o.isolation = isolation;
    assert_ok(bw_consumer_open(bus, &o, &c));
    assert_ok(bw_consumer_assign(c, topic, partition, BW_OFFSET_BEGINNING));
    while (bw_consumer_poll(c, 300, &b) == BW_OK) {
        bw_record_view v;
        while (bw_batch_next(&b, &v) == 1)
            if (strlen(out) + v.value_len + 2 < size)
                snprintf(out + strlen(out), size - strlen(out), "%.*s ", (int)v.value_len, (const char *)v.value);
    }
    bw_consumer_close(c);
}

static void expect(const char *topic, int32_t partition, bw_isolation isolation, const char *values)
{
    char got[4096];
    seen(topic, partition, isolation, got, sizeof got);
    assert_string_equal(got, values);
}

static void test_committed_readers_see_whole_transactions_only(void **state)
{
    (void)state;
    assert_ok(bw_topic_create(bus, "whole", 2, NULL, 0));
    bw_producer *p = ready("whole");
    assert_ok(bw_transaction_begin(p));
    assert_ok(put(p, "whole", 0, "a"));
    assert_ok(put(p, "whole", 1, "b"));
    expect("whole", 0, BW_READ_COMMITTED, "");
    expect("whole", 0, BW_READ_UNCOMMITTED, "a ");
    assert_ok(bw_transaction_commit(p, PATIENCE));
    expect("whole", 0, BW_READ_COMMITTED, "a ");
    expect("whole", 1, BW_READ_COMMITTED, "b ");
    assert_ok(bw_transaction_begin(p));
    assert_ok(put(p, "whole", 0, "c"));
    assert_ok(put(p, "whole", 1, "d"));
    assert_ok(bw_transaction_abort(p, PATIENCE));
    assert_ok(bw_transaction_begin(p));
    bw_record r = test_record("key", "e");
    for (int i = 0; i < 2; i++) assert_ok(bw_producer_send(p, "whole", i, &r, NULL, NULL, PATIENCE)); /* asynchronous ones too */
    assert_ok(bw_transaction_commit(p, PATIENCE));
    expect("whole", 0, BW_READ_COMMITTED, "a e ");
    expect("whole", 1, BW_READ_COMMITTED, "b e ");
    expect("whole", 1, BW_READ_UNCOMMITTED, "b d e ");
    assert_ok(bw_transaction_begin(p));
    assert_ok(bw_transaction_commit(p, PATIENCE)); /* an empty one */
    assert_ok(bw_producer_close(p, PATIENCE));
}

static void test_what_is_buffered_is_aborted_too(void **state)
{
    (void)state;
    bw_producer *p = ready("buffered");
    bw_record r = test_record(NULL, "x");
    for (int round = 0; round < 20; round++) {
        assert_ok(bw_transaction_begin(p));
        for (int i = 0; i < 50; i++) assert_ok(bw_producer_send(p, "buffered", 0, &r, NULL, NULL, PATIENCE));
        assert_ok(bw_transaction_abort(p, PATIENCE));
    }
    assert_ok(bw_transaction_begin(p));
    assert_ok(put(p, "buffered", 0, "y"));
    assert_ok(bw_transaction_commit(p, PATIENCE));
    expect("buffered", 0, BW_READ_COMMITTED, "y ");
    assert_ok(bw_producer_close(p, PATIENCE));
}

static void test_misuse_is_named(void **state)
{
    (void)state;
    bw_producer *plain = test_producer(bus, BW_ACKS_VISIBLE);
    assert_err(bw_transactions_init(plain, PATIENCE), BW_ERR_INVALID_TXN_STATE);
    assert_err(bw_producer_last_sequence(plain, "misuse", 0, NULL, NULL), BW_ERR_INVALID_ARGUMENT);
    bw_producer_close(plain, 0);
    bw_producer *p = open_with("misuse", 900001, BW_ACKS_VISIBLE);
    assert_err(bw_transaction_begin(p), BW_ERR_INVALID_TXN_STATE);
    assert_err(put(p, "misuse", 0, "x"), BW_ERR_INVALID_TXN_STATE);
    assert_err(bw_transactions_init(p, PATIENCE), BW_ERR_INVALID_TRANSACTION_TIMEOUT);
    bw_producer_close(p, 0);
    p = ready("misuse");
    assert_err(bw_transactions_init(p, PATIENCE), BW_ERR_INVALID_TXN_STATE);
    assert_err(bw_transaction_commit(p, PATIENCE), BW_ERR_INVALID_TXN_STATE);
    assert_err(bw_transaction_abort(p, PATIENCE), BW_ERR_INVALID_TXN_STATE);
    assert_err(put(p, "misuse", 0, "x"), BW_ERR_INVALID_TXN_STATE);
    assert_ok(bw_transaction_begin(p));
    assert_err(bw_transaction_begin(p), BW_ERR_INVALID_TXN_STATE);
    assert_err(put(p, "misuse", 7, "x"), BW_ERR_UNKNOWN_PARTITION);
    assert_ok(bw_transaction_abort(p, PATIENCE));
    bw_producer_close(p, 0);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.transactional_id = "misuse";
    o.enable_idempotence = false;
    assert_err(bw_producer_open(bus, &o, &p), BW_ERR_INVALID_ARGUMENT);
    assert_err(bw_transaction_abort_admin(bus, "nobody"), BW_ERR_TRANSACTIONAL_ID_NOT_FOUND);
}

static void test_a_newer_producer_fences(void **state)
{
    (void)state;
    bw_producer *old = ready("fence");
    assert_ok(bw_transaction_begin(old));
    assert_ok(put(old, "fence", 0, "old"));
    bw_producer *new = ready("fence");
    assert_err(put(old, "fence", 0, "zombie"), BW_ERR_PRODUCER_FENCED);
    assert_err(bw_transaction_commit(old, PATIENCE), BW_ERR_TRANSACTION_ABORTABLE);
    assert_err(bw_transaction_abort(old, PATIENCE), BW_ERR_PRODUCER_FENCED);
    assert_err(bw_transaction_begin(old), BW_ERR_PRODUCER_FENCED);
    assert_ok(bw_transaction_begin(new));
    assert_ok(put(new, "fence", 0, "new"));
    assert_ok(bw_transaction_commit(new, PATIENCE));
    expect("fence", 0, BW_READ_COMMITTED, "new ");
    bw_producer_close(old, 0);
    bw_producer_close(new, 0);
}

static void test_after_its_time_a_producer_aborts_and_goes_on(void **state)
{
    (void)state;
    bw_producer *p = open_with("late", 100, BW_ACKS_VISIBLE);
    assert_ok(bw_transactions_init(p, PATIENCE));
    assert_ok(bw_transaction_begin(p));
    assert_ok(put(p, "late", 0, "late"));
    usleep(500000);
    assert_err(bw_transaction_commit(p, PATIENCE), BW_ERR_TRANSACTION_ABORTABLE);
    assert_err(put(p, "late", 0, "x"), BW_ERR_TRANSACTION_ABORTABLE);
    assert_ok(bw_transaction_abort(p, PATIENCE));
    assert_ok(bw_transaction_begin(p));
    assert_ok(put(p, "late", 0, "good"));
    assert_ok(bw_transaction_commit(p, PATIENCE));
    expect("late", 0, BW_READ_COMMITTED, "good ");
    bw_producer_close(p, 0);
}

static void test_the_daemon_is_killed_in_the_middle(void **state)
{
    (void)state;
    bw_producer *p = ready("killed");
    char values[4096] = "";
    for (int round = 0; round < 5; round++) {
        char text[32];
        assert_ok(bw_transaction_begin(p));
        for (int i = 0; i < 4; i++) {
            snprintf(text, sizeof text, "%d.%d", round, i);
            assert_ok(put(p, "killed", 0, text));
            snprintf(values + strlen(values), sizeof values - strlen(values), "%s ", text);
            if (i == round % 4) {
                daemon_stop(&the_daemon, SIGKILL);
                daemon_start(&the_daemon);
            }
        }
        assert_ok(bw_transaction_commit(p, PATIENCE));
    }
    expect("killed", 0, BW_READ_COMMITTED, values);
    bw_producer_close(p, 0);
}

static void test_offsets_move_with_the_commit(void **state)
{
    (void)state;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = "mover";
    o.enable_auto_commit = false;
    bw_consumer *c;
    bw_producer *p = ready("mover");
    assert_ok(bw_transaction_begin(p));
    for (int i = 0; i < 5; i++) assert_ok(put(p, "moves", 0, "in"));
    assert_ok(bw_transaction_commit(p, PATIENCE));
    assert_ok(bw_consumer_open(bus, &o, &c));
    bw_group_metadata group;
    assert_ok(bw_consumer_group_metadata(c, &group));
    for (int round = 0; round < 3; round++) { /* aborted, committed, committed durably */
        bw_topic_partition at = {.topic = "moves", .partition = 0, .offset = 1 + round, .leader_epoch = -1};
        assert_ok(bw_transaction_begin(p));
        assert_ok(bw_transaction_send_offsets(p, &group, &at, 1, PATIENCE));
        assert_ok(round ? bw_transaction_commit(p, PATIENCE) : bw_transaction_abort(p, PATIENCE));
        bw_topic_partition got = {.topic = "moves", .partition = 0};
        assert_ok(bw_consumer_committed(c, &got, 1, PATIENCE));
        assert_int_equal(got.offset, round ? 1 + round : BW_OFFSET_INVALID);
    }
    bw_topic_partition beyond = {.topic = "moves", .partition = 0, .offset = 4711, .leader_epoch = -1};
    assert_ok(bw_transaction_begin(p));
    assert_err(bw_transaction_send_offsets(p, &group, &beyond, 1, PATIENCE), BW_ERR_INVALID_COMMIT_OFFSET);
    assert_err(bw_transaction_commit(p, PATIENCE), BW_ERR_TRANSACTION_ABORTABLE);
    assert_ok(bw_transaction_abort(p, PATIENCE));
    bw_consumer_close(c);
    bw_producer_close(p, 0);
}

static void test_durable_commit(void **state)
{
    (void)state;
    bw_producer *p = open_with("durable", 60000, BW_ACKS_DURABLE);
    assert_ok(bw_transactions_init(p, PATIENCE));
    for (int i = 0; i < 5; i++) {
        assert_ok(bw_transaction_begin(p));
        assert_ok(put(p, "durable", 0, "x"));
        assert_ok(bw_transaction_commit(p, PATIENCE));
    }
    bw_offset_range range;
    assert_ok(bw_offsets_range(bus, "durable", 0, &range));
    assert_true(range.durable >= 9); /* five records, four markers; the last may be on its way */
    bw_producer_close(p, 0);
}

static void test_people_see_and_abort(void **state)
{
    (void)state;
    char *json;
    bw_producer *p = ready("seen");
    assert_ok(bw_transaction_begin(p));
    assert_ok(put(p, "people", 0, "x"));
    assert_ok(bw_transactions_list(bus, &json));
    assert_non_null(strstr(json, "\"Ongoing\""));
    bw_free(json);
    assert_ok(bw_transaction_describe(bus, "seen", &json));
    assert_non_null(strstr(json, "\"people\""));
    bw_free(json);
    assert_ok(bw_producers_describe(bus, "people", 0, &json));
    assert_non_null(strstr(json, "\"transaction_start_offset\":0"));
    bw_free(json);
    assert_ok(bw_transaction_abort_admin(bus, "seen"));
    assert_err(bw_transaction_commit(p, PATIENCE), BW_ERR_TRANSACTION_ABORTABLE);
    assert_ok(bw_transaction_abort(p, PATIENCE));
    expect("people", 0, BW_READ_COMMITTED, "");
    bw_producer_close(p, 0);
}

/* A program with a name, started three times: each learns where the one before it was. */
static void test_a_name_knows_where_it_was(void **state)
{
    (void)state;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    int32_t sequence;
    int64_t offset, last = -1;
    o.name = "resumer";
    for (int run = 0; run < 3; run++) {
        bw_producer *p;
        bw_delivery d;
        bw_record r = test_record(NULL, "x"), many[3] = {r, r, r};
        assert_ok(bw_producer_open(bus, &o, &p));
        bw_err e = bw_producer_last_sequence(p, "named", 0, &sequence, &offset);
        if (run == 0) assert_int_equal(e, e == BW_ERR_UNKNOWN_TOPIC ? e : BW_ERR_UNKNOWN_PRODUCER_ID);
        else assert_int_equal(e, BW_OK);
        if (run > 0) assert_int_equal(offset, last);
        if (run > 0) assert_int_equal(sequence, 44);
        for (int i = 0; i < 40; i++) assert_ok(bw_producer_send_sync(p, "named", 0, &r, PATIENCE, NULL));
        assert_ok(bw_producer_send(p, "named", 0, &r, NULL, NULL, PATIENCE));
        assert_ok(bw_producer_flush(p, PATIENCE));
        bw_reservation place;
        assert_ok(bw_producer_reserve(p, "named", 0, NULL, 10, PATIENCE, &place));
        memcpy(place.value, "0123456789", 10);
        assert_ok(bw_producer_commit(p, &place, 10, PATIENCE, NULL));
        assert_ok(bw_producer_send_batch(p, "named", 0, many, 3, PATIENCE, &d));
        last = d.offset + 2;
        assert_ok(bw_producer_last_sequence(p, "named", 0, &sequence, &offset));
        assert_int_equal(sequence, 44);
        assert_int_equal(offset, last);
        if (run == 1) {
            daemon_stop(&the_daemon, SIGKILL);
            daemon_start(&the_daemon);
        }
        bw_producer_close(p, PATIENCE);
        bw_producer *other = test_producer(bus, BW_ACKS_VISIBLE); /* between: not by this name */
        test_send(other, "named", 0, "y");
        bw_producer_close(other, PATIENCE);
    }
}

/* Without idempotence records go through the socket without a number. */
static void test_without_idempotence(void **state)
{
    (void)state;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    bw_producer *p;
    char *json;
    o.enable_idempotence = false;
    assert_ok(bw_producer_open(bus, &o, &p));
    bw_record r = test_record(NULL, "x");
    for (int i = 0; i < 20; i++) assert_ok(bw_producer_send(p, "plain", 0, &r, NULL, NULL, PATIENCE));
    assert_ok(bw_producer_flush(p, PATIENCE));
    for (int i = 0; i < 20; i++) assert_ok(put(p, "plain", 0, "x"));
    assert_ok(bw_producers_describe(bus, "plain", 0, &json));
    assert_string_equal(json, "[]");
    bw_free(json);
    bw_producer_close(p, PATIENCE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_committed_readers_see_whole_transactions_only),
        cmocka_unit_test(test_what_is_buffered_is_aborted_too),
        cmocka_unit_test(test_misuse_is_named),
        cmocka_unit_test(test_a_newer_producer_fences),
        cmocka_unit_test(test_after_its_time_a_producer_aborts_and_goes_on),
        cmocka_unit_test(test_the_daemon_is_killed_in_the_middle),
        cmocka_unit_test(test_offsets_move_with_the_commit),
        cmocka_unit_test(test_durable_commit),
        cmocka_unit_test(test_people_see_and_abort),
        cmocka_unit_test(test_a_name_knows_where_it_was),
        cmocka_unit_test(test_without_idempotence),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
