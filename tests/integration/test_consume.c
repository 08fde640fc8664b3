/* Consuming on both transports ($BUSWAY_TEST_TRANSPORT): positions, pause, wake, descriptor, ranges, many partitions. */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static test_daemon the_daemon;
static bw_bus *bus;
static bw_producer *producer;

static int set_up(void **state)
{
    (void)state;
    daemon_make(&the_daemon);
    daemon_start(&the_daemon);
    bus = test_bus(the_daemon.url);
    producer = test_producer(bus, BW_ACKS_VISIBLE);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    bw_producer_close(producer, 1000);
    bw_bus_close(bus);
    daemon_remove(&the_daemon);
    return 0;
}

static void fill(const char *topic, int32_t partition, int count)
{
    for (int i = 0; i < count; i++) {
        char text[32];
        snprintf(text, sizeof text, "%d", i);
        bw_record r = test_record(NULL, text);
        r.timestamp_ms = 1700000000000 + i * 10;
        assert_ok(bw_producer_send_sync(producer, topic, partition, &r, 5000, NULL));
    }
}

static int64_t first_offset(bw_consumer *c)
{
    bw_batch b;
    bw_record_view v;
    assert_ok(bw_consumer_poll(c, 2000, &b));
    assert_int_equal(bw_batch_next(&b, &v), 1);
    return v.offset;
}

static void test_seek_position_and_time(void **state)
{
    (void)state;
    fill("seek", 0, 100);
    bw_consumer *c = test_consumer(bus, "seek", 0, 10);
    assert_int_equal(first_offset(c), 10);
    int64_t at = 0;
    assert_ok(bw_consumer_position(c, "seek", 0, &at));
    assert_int_equal(at, 11);
    assert_ok(bw_consumer_seek(c, "seek", 0, 50));
    assert_ok(bw_consumer_position(c, "seek", 0, &at));
    assert_int_equal(at, 50);
    assert_int_equal(first_offset(c), 50);
    assert_ok(bw_consumer_seek(c, "seek", 0, BW_OFFSET_BEGINNING));
    assert_int_equal(first_offset(c), 0);
    assert_ok(bw_consumer_seek_time(c, "seek", 0, 1700000000000 + 335));
    assert_int_equal(first_offset(c), 34);
    assert_ok(bw_consumer_seek_time(c, "seek", 0, 1800000000000));
    bw_batch b;
    assert_err(bw_consumer_poll(c, 50, &b), BW_ERR_TIMED_OUT);
    assert_ok(bw_consumer_position(c, "seek", 0, &at));
    assert_int_equal(at, 100);
    assert_ok(bw_consumer_seek(c, "seek", 0, BW_OFFSET_END));
    test_send(producer, "seek", 0, "new");
    assert_int_equal(first_offset(c), 100);
    assert_err(bw_consumer_seek(c, "seek", 1, 0), BW_ERR_NOT_FOUND);
    assert_err(bw_consumer_seek(c, "seek", 0, -7), BW_ERR_INVALID_ARGUMENT);
    assert_err(bw_consumer_assign(c, "seek", 3, 0), BW_ERR_UNKNOWN_PARTITION);
    int64_t found = 0;
    assert_ok(bw_offset_for_time(bus, "seek", 0, 1700000000000, &at, &found));
    assert_int_equal(at, 0);
    assert_int_equal(found, 1700000000000);
    bw_consumer_close(c);
}

static void test_seek_into_the_middle_of_a_batch(void **state)
{
    (void)state;
    bw_record records[100];
    for (int i = 0; i < 100; i++) records[i] = test_record(NULL, "x");
    for (int i = 0; i < 5; i++) assert_ok(bw_producer_send_batch(producer, "middle", 0, records, 100, 5000, NULL));
    bw_consumer *c = test_consumer(bus, "middle", 0, 250);
    assert_int_equal(first_offset(c), 250);
    assert_int_equal(test_read(c, 200, 2000, NULL, NULL), 200);
    bw_consumer_close(c);
}

static void test_out_of_range_is_told_once_with_the_range(void **state)
{
    (void)state;
    fill("range", 0, 20);
    int64_t start = 0;
    assert_ok(bw_delete_records(bus, "range", 0, 5, &start));
    assert_int_equal(start, 5);
    bw_consumer *c = test_consumer(bus, "range", 0, 2);
    bw_batch b;
    assert_err(bw_consumer_poll(c, 2000, &b), BW_ERR_OFFSET_OUT_OF_RANGE);
    assert_string_equal(b.topic, "range");
    assert_int_equal(b.partition, 0);
    assert_non_null(strstr(bw_error_message(), "5"));
    assert_non_null(strstr(bw_error_message(), "20"));
    assert_err(bw_consumer_poll(c, 50, &b), BW_ERR_TIMED_OUT); /* paused until a seek */
    assert_ok(bw_consumer_seek(c, "range", 0, 5));
    assert_int_equal(first_offset(c), 5);
    assert_ok(bw_consumer_seek(c, "range", 0, 1000));
    assert_err(bw_consumer_poll(c, 2000, &b), BW_ERR_OFFSET_OUT_OF_RANGE);
    assert_ok(bw_consumer_seek(c, "range", 0, BW_OFFSET_BEGINNING));
    assert_int_equal(first_offset(c), 5);
    bw_consumer_close(c);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    for (int reset = BW_RESET_EARLIEST; reset <= BW_RESET_LATEST; reset++) {
        o.auto_offset_reset = (bw_offset_reset)reset;
        assert_ok(bw_consumer_open(bus, &o, &c));
        assert_ok(bw_consumer_assign(c, "range", 0, 0));
        if (reset == BW_RESET_EARLIEST) {
            assert_int_equal(first_offset(c), 5);
        } else {
            assert_err(bw_consumer_poll(c, 100, &b), BW_ERR_TIMED_OUT);
            int64_t end = test_send(producer, "range", 0, "late");
            assert_int_equal(first_offset(c), end);
        }
        bw_consumer_close(c);
    }
}

static void test_pause_keeps_the_position(void **state)
{
    (void)state;
    assert_ok(bw_topic_create(bus, "pause", 2, NULL, 0));
    fill("pause", 0, 5);
    fill("pause", 1, 5);
    bw_consumer *c = test_consumer(bus, "pause", BW_PARTITION_ANY, 0);
    assert_ok(bw_consumer_pause(c, "pause", 0));
    bw_batch b;
    int n = 0;
    while (bw_consumer_poll(c, 200, &b) == BW_OK) {
        assert_int_equal(b.partition, 1);
        n += b.count;
    }
    assert_int_equal(n, 5);
    fill("pause", 0, 1);
    assert_err(bw_consumer_poll(c, 100, &b), BW_ERR_TIMED_OUT);
    int64_t at = -1;
    assert_ok(bw_consumer_position(c, "pause", 0, &at));
    assert_int_equal(at, 0);
    assert_ok(bw_consumer_resume(c, "pause", 0));
    assert_int_equal(test_read(c, 6, 2000, NULL, NULL), 6);
    assert_ok(bw_consumer_unassign(c, "pause", 1));
    fill("pause", 1, 1);
    assert_err(bw_consumer_poll(c, 100, &b), BW_ERR_TIMED_OUT);
    assert_err(bw_consumer_pause(c, "pause", 1), BW_ERR_NOT_FOUND);
    bw_consumer_close(c);
}

typedef struct waker { bw_consumer *c; int delay_ms; } waker;

static void *wake_later(void *opaque)
{
    waker *w = opaque;
    usleep((useconds_t)w->delay_ms * 1000);
    bw_consumer_wake(w->c);
    return NULL;
}

static void test_wake_ends_a_wait(void **state)
{
    (void)state;
    fill("wake", 0, 1);
    bw_consumer *c = test_consumer(bus, "wake", 0, BW_OFFSET_END);
    waker w = {c, 100};
    pthread_t thread;
    pthread_create(&thread, NULL, wake_later, &w);
    bw_batch b;
    int64_t begun = now_ms();
    assert_err(bw_consumer_poll(c, 10000, &b), BW_ERR_WOKEN);
    assert_in_range(now_ms() - begun, 80, 1000);
    pthread_join(thread, NULL);
    bw_consumer_wake(c); /* the next poll */
    assert_err(bw_consumer_poll(c, 10000, &b), BW_ERR_WOKEN);
    begun = now_ms();
    assert_err(bw_consumer_poll(c, 120, &b), BW_ERR_TIMED_OUT);
    assert_in_range(now_ms() - begun, 115, 400);
    bw_consumer_close(c);
}

typedef struct sender { bw_bus *bus; const char *topic; int partitions, count, gap_us; } sender;

static void *send_some(void *opaque)
{
    sender *s = opaque;
    bw_producer *p = test_producer(s->bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < s->count; i++) {
        if (s->gap_us) usleep((useconds_t)s->gap_us);
        test_send(p, s->topic, i % s->partitions, "x");
    }
    bw_producer_close(p, 1000);
    return NULL;
}

static void test_sleeping_consumer_is_woken_by_each_append(void **state)
{
    (void)state;
    enum { N = 50 };
    fill("sleepy", 0, 1);
    bw_consumer *c = test_consumer(bus, "sleepy", 0, BW_OFFSET_END);
    sender s = {bus, "sleepy", 1, N, 4000};
    pthread_t thread;
    pthread_create(&thread, NULL, send_some, &s);
    int64_t begun = now_ms();
    int n = 0;
    bw_batch b;
    while (n < N) {
        assert_ok(bw_consumer_poll(c, 5000, &b));
        n += b.count;
    }
    pthread_join(thread, NULL);
    assert_true(now_ms() - begun < 3000); /* lost wakes would cost up to a second each */
    bw_consumer_close(c);
}

static void test_descriptor_is_readable_when_there_is_something(void **state)
{
    (void)state;
    enum { N = 40 };
    assert_ok(bw_topic_create(bus, "loop", 3, NULL, 0));
    bw_consumer *c = test_consumer(bus, "loop", BW_PARTITION_ANY, 0);
    int fd = bw_consumer_fd(c);
    assert_true(fd >= 0);
    assert_int_equal(bw_consumer_fd(c), fd);
    bw_batch b;
    while (bw_consumer_poll(c, 0, &b) != BW_ERR_TIMED_OUT) {}
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, 50) == 1) assert_err(bw_consumer_poll(c, 0, &b), BW_ERR_TIMED_OUT);
    assert_int_equal(poll(&p, 1, 100), 0); /* nothing: it sleeps */
    sender s = {bus, "loop", 3, N, 3000};
    pthread_t thread;
    pthread_create(&thread, NULL, send_some, &s);
    int n = 0, waits = 0;
    int64_t begun = now_ms();
    while (n < N) {
        assert_int_equal(poll(&p, 1, 5000), 1);
        waits++;
        while (bw_consumer_poll(c, 0, &b) == BW_OK) n += b.count;
    }
    pthread_join(thread, NULL);
    assert_true(waits < 20 * N); /* it is not readable for ever */
    assert_true(now_ms() - begun < 3000);
    while (bw_consumer_poll(c, 0, &b) != BW_ERR_TIMED_OUT) {}
    bw_consumer_wake(c);
    assert_int_equal(poll(&p, 1, 1000), 1);
    assert_err(bw_consumer_poll(c, 0, &b), BW_ERR_WOKEN);
    bw_consumer_close(c);
}

/* What rang for a partition while it was not asleep (it was moved) rings no more: the next record must ring by itself. */
static void test_descriptor_rings_again_after_a_ring_that_came_too_late(void **state)
{
    (void)state;
    assert_ok(bw_topic_create(bus, "late", 1, NULL, 0));
    bw_consumer *c = test_consumer(bus, "late", 0, 0);
    struct pollfd p = {.fd = bw_consumer_fd(c), .events = POLLIN};
    assert_true(p.fd >= 0);
    bw_batch b;
    for (int i = 0; i < 3; i++) {
        int64_t at;
        while (bw_consumer_poll(c, 0, &b) != BW_ERR_TIMED_OUT) {}
        test_send(producer, "late", 0, "rings");
        assert_int_equal(poll(&p, 1, 10000), 1); /* the ring is there, and nobody has taken it */
        assert_ok(bw_consumer_position(c, "late", 0, &at));
        assert_ok(bw_consumer_seek(c, "late", 0, at));
        assert_ok(bw_consumer_poll(c, 0, &b));
        assert_err(bw_consumer_poll(c, 0, &b), BW_ERR_TIMED_OUT);
        while (poll(&p, 1, 50) == 1) assert_err(bw_consumer_poll(c, 0, &b), BW_ERR_TIMED_OUT); /* a ring too many is no harm */
        test_send(producer, "late", 0, "must ring");
        assert_int_equal(poll(&p, 1, 10000), 1);
        assert_ok(bw_consumer_poll(c, 0, &b));
    }
    bw_consumer_close(c);
}

/* A ring for a partition that is paused before it is taken: the consumer, which has nothing else, sleeps all the same. */
static void test_paused_consumer_sleeps_through_a_ring_that_came_before(void **state)
{
    (void)state;
    assert_ok(bw_topic_create(bus, "still", 1, NULL, 0));
    bw_consumer *c = test_consumer(bus, "still", 0, 0);
    bw_batch b;
    struct timespec before, after;
    assert_err(bw_consumer_poll(c, 20, &b), BW_ERR_TIMED_OUT);
    test_send(producer, "still", 0, "rings");
    assert_ok(bw_consumer_pause(c, "still", 0));
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before);
    assert_err(bw_consumer_poll(c, 400, &b), BW_ERR_TIMED_OUT);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after);
    int64_t used_ms = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
    assert_in_range(used_ms, 0, 200); /* of processor time; one that looks again and again needs all of the 400 */
    assert_ok(bw_consumer_resume(c, "still", 0));
    assert_ok(bw_consumer_poll(c, 5000, &b));
    bw_consumer_close(c);
}

/* The thread that polls changes: each time the descriptor goes on to show what comes (by a bell of the new thread's, at last by the watch). */
static void *take_one(void *arg)
{
    bw_consumer *c = arg;
    struct pollfd p = {.fd = bw_consumer_fd(c), .events = POLLIN};
    bw_batch b;
    int64_t begun = now_ms();
    while (now_ms() - begun < 5000) {
        bw_err e = bw_consumer_poll(c, 0, &b);
        if (e == BW_OK) return (void *)(intptr_t)(b.count + 1000 * (now_ms() - begun > 800)); /* a lost ring is found by the audit, after a second */
        if (e != BW_ERR_TIMED_OUT) break;
        (void)poll(&p, 1, 5000);
    }
    return NULL;
}

static void test_descriptor_serves_threads_in_turn(void **state)
{
    (void)state;
    assert_ok(bw_topic_create(bus, "turns", 1, NULL, 0));
    bw_consumer *c = test_consumer(bus, "turns", BW_PARTITION_ANY, 0);
    bw_producer *p;
    assert_ok(bw_producer_open(bus, NULL, &p));
    bw_record one = {.value = "v", .value_len = 1, .timestamp_ms = BW_NO_TIMESTAMP};
    for (int i = 0; i < 12; i++) {
        pthread_t t;
        void *got;
        pthread_create(&t, NULL, take_one, c);
        usleep(20000);
        assert_ok(bw_producer_send_sync(p, "turns", 0, &one, 1000, NULL));
        pthread_join(t, &got);
        assert_int_equal((intptr_t)got, 1);
    }
    bw_consumer_close(c);
    assert_ok(bw_producer_close(p, 1000));
}

static void test_many_partitions_are_all_read(void **state)
{
    (void)state;
    enum { PARTS = 60, EACH = 5 };
    assert_ok(bw_topic_create(bus, "many", PARTS, NULL, 0));
    bw_consumer *c = test_consumer(bus, "many", BW_PARTITION_ANY, 0);
    bw_batch b;
    assert_err(bw_consumer_poll(c, 10, &b), BW_ERR_TIMED_OUT);
    sender s = {bus, "many", PARTS, PARTS * EACH, 0};
    pthread_t thread;
    pthread_create(&thread, NULL, send_some, &s);
    int seen[PARTS] = {0};
    int n = 0;
    int64_t until = now_ms() + 10000;
    while (n < PARTS * EACH && now_ms() < until) {
        bw_err e = bw_consumer_poll(c, n % 2 ? 100 : 0, &b);
        if (e == BW_ERR_TIMED_OUT) continue;
        assert_ok(e);
        assert_int_equal(b.base_offset, seen[b.partition]);
        seen[b.partition] += b.count;
        n += b.count;
    }
    pthread_join(thread, NULL);
    assert_int_equal(n, PARTS * EACH);
    bw_consumer_close(c);
}

static void test_durable_reader_never_passes_the_watermark(void **state)
{
    (void)state;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.read_limit = BW_READ_DURABLE;
    fill("limit", 0, 1);
    bw_consumer *c;
    assert_ok(bw_consumer_open(bus, &o, &c));
    assert_ok(bw_consumer_assign(c, "limit", 0, 0));
    for (int i = 1; i < 20; i++) test_send(producer, "limit", 0, "x");
    int n = 0;
    int64_t until = now_ms() + 10000;
    while (n < 20 && now_ms() < until) { /* the background sync makes them durable */
        bw_batch b;
        bw_err e = bw_consumer_poll(c, 1000, &b);
        if (e == BW_ERR_TIMED_OUT) continue;
        assert_ok(e);
        bw_offset_range range;
        assert_ok(bw_offsets_range(bus, "limit", 0, &range));
        assert_true(b.last_offset < range.durable);
        n += b.count;
    }
    assert_int_equal(n, 20);
    bw_consumer_close(c);
}

static void test_deleted_topic_is_told(void **state)
{
    (void)state;
    fill("doomed", 0, 3);
    bw_consumer *c = test_consumer(bus, "doomed", 0, 0);
    assert_int_equal(test_read(c, 3, 2000, NULL, NULL), 3);
    assert_ok(bw_topic_delete(bus, "doomed"));
    bw_batch b;
    bw_err e = BW_ERR_TIMED_OUT;
    for (int i = 0; i < 30 && e == BW_ERR_TIMED_OUT; i++) e = bw_consumer_poll(c, 100, &b);
    assert_err(e, BW_ERR_DELETED);
    assert_string_equal(b.topic, "doomed");
    assert_err(bw_consumer_poll(c, 20, &b), BW_ERR_TIMED_OUT);
    bw_consumer_close(c);
    /* The producer makes it anew, at the latest at its second try. */
    bw_record r = test_record(NULL, "again");
    bw_delivery d = {0};
    e = bw_producer_send_sync(producer, "doomed", 0, &r, 5000, &d);
    if (e) assert_ok(bw_producer_send_sync(producer, "doomed", 0, &r, 5000, &d));
    assert_int_equal(d.offset, 0);
}

static void test_slow_reader_loses_nothing_in_bounded_memory(void **state)
{
    (void)state;
    enum { N = 300000, BATCH = 100 };
    static char value[100];
    memset(value, 'v', sizeof value);
    bw_record records[BATCH];
    fill("slow", 0, 1);
    bw_consumer *c = test_consumer(bus, "slow", 0, 1);
    bw_batch b;
    bw_record_view v;
    long before = test_rss_kib();
    int64_t next = 1, sent = 0;
    while (next < N + 1) {
        if (sent < N) {
            for (int i = 0; i < BATCH; i++) {
                records[i] = test_record(NULL, NULL);
                records[i].value = value;
                records[i].value_len = sizeof value;
            }
            assert_ok(bw_producer_send_batch(producer, "slow", 0, records, BATCH, 10000, NULL));
            sent += BATCH;
            if (sent % 10000) continue; /* the reader looks seldom, and at one batch: far behind */
        }
        assert_ok(bw_consumer_poll(c, 5000, &b));
        int r;
        while ((r = bw_batch_next(&b, &v)) == 1) assert_int_equal(v.offset, next++);
        assert_int_equal(r, 0);
    }
    if (!test_is_direct()) assert_true(test_rss_kib() - before < 48 * 1024); /* direct: the mapped log counts */
    bw_consumer_close(c);
}

static void test_assigned_again_moves_and_close_is_clean(void **state)
{
    (void)state;
    fill("again", 0, 10);
    bw_consumer *c = test_consumer(bus, "again", 0, 0);
    assert_int_equal(first_offset(c), 0);
    assert_ok(bw_consumer_assign(c, "again", 0, 7));
    assert_int_equal(first_offset(c), 7);
    bw_consumer_close(c);
    bw_consumer_close(NULL);
    assert_ok(bw_consumer_open(bus, NULL, &c));
    bw_batch b;
    assert_err(bw_consumer_poll(c, 30, &b), BW_ERR_TIMED_OUT); /* nothing assigned */
    bw_consumer_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seek_position_and_time),
        cmocka_unit_test(test_seek_into_the_middle_of_a_batch),
        cmocka_unit_test(test_out_of_range_is_told_once_with_the_range),
        cmocka_unit_test(test_pause_keeps_the_position),
        cmocka_unit_test(test_wake_ends_a_wait),
        cmocka_unit_test(test_sleeping_consumer_is_woken_by_each_append),
        cmocka_unit_test(test_descriptor_is_readable_when_there_is_something),
        cmocka_unit_test(test_descriptor_rings_again_after_a_ring_that_came_too_late),
        cmocka_unit_test(test_paused_consumer_sleeps_through_a_ring_that_came_before),
        cmocka_unit_test(test_descriptor_serves_threads_in_turn),
        cmocka_unit_test(test_many_partitions_are_all_read),
        cmocka_unit_test(test_durable_reader_never_passes_the_watermark),
        cmocka_unit_test(test_deleted_topic_is_told),
        cmocka_unit_test(test_slow_reader_loses_nothing_in_bounded_memory),
        cmocka_unit_test(test_assigned_again_moves_and_close_is_clean),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
