/* Many records in one call, sending without waiting, and the producer's descriptor, on both transports ($BUSWAY_TEST_TRANSPORT). */
#include "support/one_bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORDS = 5000, PARTITIONS = 4 };

typedef struct seen {
    int64_t offset[RECORDS]; /* by the number in the value; -1: not seen */
    int32_t partition[RECORDS];
    int32_t last[PARTITIONS];
    bool ordered;
} seen;

static void note(void *opaque, const bw_batch *batch, const bw_record_view *record)
{
    seen *s = opaque;
    int32_t number;
    memcpy(&number, record->value, sizeof number);
    assert_in_range(number, 0, RECORDS - 1);
    assert_int_equal(s->offset[number], -1);
    s->offset[number] = record->offset;
    s->partition[number] = batch->partition;
    if (number <= s->last[batch->partition]) s->ordered = false;
    s->last[batch->partition] = number;
}

static void send_and_read(const char *topic, int32_t partitions, bool keys)
{
    static bw_record records[RECORDS];
    static bw_placed placed[RECORDS];
    static int32_t numbers[RECORDS];
    static char names[RECORDS][16];
    static seen s;
    memset(&s, 0xff, sizeof s);
    s.ordered = true;
    for (int32_t i = 0; i < RECORDS; i++) {
        numbers[i] = i;
        snprintf(names[i], sizeof names[i], "key%d", i % 37);
        records[i] = (bw_record){.value = &numbers[i], .value_len = sizeof numbers[i], .timestamp_ms = BW_NO_TIMESTAMP};
        if (keys && i % 5) records[i].key = names[i], records[i].key_len = strlen(names[i]);
    }
    assert_ok(bw_topic_create(bus, topic, partitions, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    assert_ok(bw_producer_send_many(p, topic, BW_PARTITION_ANY, records, RECORDS, 10000, placed));
    bw_consumer *c = test_consumer(bus, topic, BW_PARTITION_ANY, BW_OFFSET_BEGINNING);
    assert_int_equal(test_read(c, RECORDS, 5000, note, &s), RECORDS);
    int32_t of_key[37];
    memset(of_key, 0xff, sizeof of_key);
    for (int32_t i = 0; i < RECORDS; i++) {
        assert_int_equal(placed[i].error, BW_OK);
        assert_int_equal(placed[i].offset, s.offset[i]);
        assert_int_equal(placed[i].partition, s.partition[i]);
        if (!records[i].key) continue;
        if (of_key[i % 37] < 0) of_key[i % 37] = s.partition[i];
        assert_int_equal(of_key[i % 37], s.partition[i]);
    }
    if (partitions == 1) assert_true(s.ordered);
    bw_consumer_close(c);
    assert_ok(bw_producer_close(p, 1000));
}

static void test_many_records_of_one_partition_keep_their_order(void **state)
{
    (void)state;
    send_and_read("one", 1, true);
}

static void test_many_records_go_where_their_keys_say(void **state)
{
    (void)state;
    send_and_read("several", PARTITIONS, true);
}

static void test_many_records_without_keys_spread_by_batches(void **state)
{
    (void)state;
    send_and_read("keyless", PARTITIONS, false);
}

static void test_a_record_too_large_ends_the_call_and_is_placed_so(void **state)
{
    (void)state;
    static char large[2 << 20];
    bw_record records[3] = {test_record(NULL, "first"), {.value = large, .value_len = sizeof large, .timestamp_ms = 1}, test_record(NULL, "third")};
    bw_placed placed[3];
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    assert_err(bw_producer_send_many(p, "large", 0, records, 3, 5000, placed), BW_ERR_RECORD_TOO_LARGE);
    assert_int_equal(placed[0].error, BW_OK);
    assert_int_equal(placed[0].offset, 0);
    assert_int_equal(placed[1].error, BW_ERR_RECORD_TOO_LARGE);
    assert_int_equal(placed[2].error, BW_ERR_TIMED_OUT);
    assert_int_equal(placed[2].offset, -1);
    assert_ok(bw_producer_send_many(p, "large", 0, records, 0, 0, NULL));
    assert_ok(bw_producer_close(p, 1000));
}

static void test_send_now_is_done_or_has_done_nothing(void **state)
{
    (void)state;
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_record r = test_record("k", "v");
    bw_delivery d;
    assert_int_equal(bw_producer_send_now(p, "now", 0, &r, 1, &d), BW_ERR_BUSY); /* not known yet */
    assert_int_equal(test_send(p, "now", 0, "first"), 0);
    int64_t next = 1;
    for (int i = 0; i < 1000; i++) {
        bw_err e = bw_producer_send_now(p, "now", 0, &r, 1, &d);
        if (!e) assert_int_equal(d.offset, next++);
        else assert_int_equal(e, BW_ERR_BUSY);
    }
    if (test_is_direct()) assert_true(next > 900);
    else assert_int_equal(next, 1);
    assert_int_equal(test_send(p, "now", 0, "last"), next);
    assert_ok(bw_producer_close(p, 1000));
}

static void count_one(void *opaque, const bw_delivery *d)
{
    assert_int_equal(d->error, BW_OK);
    ++*(int *)opaque;
}

static bool readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, ms) == 1;
}

static void test_descriptor_is_readable_while_deliveries_wait(void **state)
{
    (void)state;
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    int fd = bw_producer_fd(p), told = 0;
    assert_true(fd >= 0);
    assert_int_equal(bw_producer_fd(p), fd);
    assert_false(readable(fd, 0));
    bw_record r = test_record(NULL, "v");
    for (int i = 1; i <= 50; i++) {
        assert_ok(bw_producer_send(p, "fd", 0, &r, count_one, &told, 1000));
        while (told < i) {
            assert_true(readable(fd, 5000));
            bw_producer_poll(p, 0);
        }
        assert_false(readable(fd, 0));
    }
    assert_ok(bw_producer_close(p, 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_records_of_one_partition_keep_their_order),
        cmocka_unit_test(test_many_records_go_where_their_keys_say),
        cmocka_unit_test(test_many_records_without_keys_spread_by_batches),
        cmocka_unit_test(test_a_record_too_large_ends_the_call_and_is_placed_so),
        cmocka_unit_test(test_send_now_is_done_or_has_done_nothing),
        cmocka_unit_test(test_descriptor_is_readable_while_deliveries_wait),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
