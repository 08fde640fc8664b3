/* kafka:// through the public API: $KAFKA_URL is the cluster; $KAFKA_REAL is set when it is a real one (a mock has no administration). */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bw_bus *bus;
static char run[32]; /* topics and groups of this run */

static bool is_real(void) { return getenv("KAFKA_REAL") != NULL; }

static const char *name(const char *what)
{
    static char names[8][128];
    static int at;
    char *out = names[at++ % 8];
    snprintf(out, sizeof names[0], "%s-%s", what, run);
    return out;
}

static bw_bus *open_bus(const char *url)
{
    bw_bus *b = NULL;
    assert_ok(bw_bus_open(url, NULL, &b));
    return b;
}

static int set_up(void **state)
{
    (void)state;
    snprintf(run, sizeof run, "%ld-%d", (long)time(NULL), getpid());
    bus = open_bus(getenv("KAFKA_URL"));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    bw_bus_close(bus);
    return 0;
}

/* A topic with four partitions: a mock makes it when it is written to. */
static void make_topic(const char *topic)
{
    if (is_real()) assert_ok(bw_topic_create(bus, topic, 4, NULL, 0));
}

static bw_producer *open_producer(const bw_producer_options *o)
{
    bw_producer *p = NULL;
    assert_ok(bw_producer_open(bus, o, &p));
    return p;
}

static bw_consumer *open_consumer(const bw_consumer_options *o)
{
    bw_consumer *c = NULL;
    assert_ok(bw_consumer_open(bus, o, &c));
    return c;
}

static void send_numbers(const char *topic, int32_t partition, int from, int count)
{
    bw_producer *p = open_producer(NULL);
    for (int i = from; i < from + count; i++) {
        char text[32];
        snprintf(text, sizeof text, "value %d", i);
        bw_record r = test_record(NULL, text);
        assert_ok(bw_producer_send(p, topic, partition, &r, NULL, NULL, -1));
    }
    assert_ok(bw_producer_close(p, 20000));
}

static void expect_numbers(bw_consumer *c, int from, int count)
{
    bw_batch b;
    bw_record_view v;
    int next = from;
    while (next < from + count) {
        assert_ok(bw_consumer_poll(c, 10000, &b));
        while (bw_batch_next(&b, &v) == 1) {
            char text[32];
            snprintf(text, sizeof text, "value %d", next++);
            assert_int_equal(v.value_len, strlen(text));
            assert_memory_equal(v.value, text, v.value_len);
        }
    }
    assert_int_equal(next, from + count);
}

/* ---- producing and reading ---- */

static void test_send_sync_is_read_back_whole(void **state)
{
    (void)state;
    const char *topic = name("sync");
    make_topic(topic);
    bw_producer *p = open_producer(NULL);
    bw_header headers[] = {{"trace", 5, "abc", 3}, {"none", 4, NULL, 0}, {"trace", 5, "", 0}};
    bw_record records[] = {
        {"key", 3, "value", 5, headers, 3, 1700000000123},
        {NULL, 0, "", 0, NULL, 0, 1700000000124},
        {"", 0, NULL, 0, NULL, 0, 1700000000125},
    };
    bw_delivery d;
    for (int i = 0; i < 3; i++) {
        assert_ok(bw_producer_send_sync(p, topic, 2, &records[i], 10000, &d));
        assert_int_equal(d.offset, i);
        assert_int_equal(d.partition, 2);
        if (is_real()) assert_int_equal(d.timestamp_ms, records[i].timestamp_ms); /* a mock answers 1234 */
    }
    assert_ok(bw_producer_close(p, 10000));
    bw_consumer *c = open_consumer(NULL);
    assert_ok(bw_consumer_assign(c, topic, 2, BW_OFFSET_BEGINNING));
    int n = 0;
    while (n < 3) {
        bw_batch b;
        bw_record_view v;
        assert_ok(bw_consumer_poll(c, 10000, &b));
        assert_string_equal(b.topic, topic);
        assert_int_equal(b.partition, 2);
        while (bw_batch_next(&b, &v) == 1) {
            const bw_record *r = &records[n];
            assert_int_equal(v.offset, n);
            assert_int_equal(v.timestamp_ms, r->timestamp_ms);
            assert_true((v.key == NULL) == (r->key == NULL) && v.key_len == r->key_len);
            assert_true((v.value == NULL) == (r->value == NULL) && v.value_len == r->value_len);
            if (r->key_len) assert_memory_equal(v.key, r->key, r->key_len);
            if (r->value_len) assert_memory_equal(v.value, r->value, r->value_len);
            assert_int_equal(v.header_count, r->header_count);
            bw_header_iter it;
            bw_header h;
            bw_header_iter_init(&it, &v);
            for (size_t i = 0; i < r->header_count; i++) {
                assert_int_equal(bw_header_iter_next(&it, &h), 1);
                assert_int_equal(h.name_len, headers[i].name_len);
                assert_memory_equal(h.name, headers[i].name, h.name_len);
                assert_int_equal(h.value_len, headers[i].value_len);
                assert_true((h.value == NULL) == (headers[i].value == NULL));
            }
            n++;
        }
    }
    int64_t position;
    assert_ok(bw_consumer_position(c, topic, 2, &position));
    assert_int_equal(position, 3);
    bw_batch b;
    assert_err(bw_consumer_poll(c, 0, &b), BW_ERR_TIMED_OUT);
    bw_consumer_close(c);
}

static void count_delivery(void *opaque, const bw_delivery *d)
{
    int *counts = opaque;
    counts[d->error == BW_OK]++;
    if (d->error == BW_OK) assert_true(d->offset >= 0 && d->partition >= 0);
}

static void test_send_async_tells_each_outcome_once_and_the_descriptor_says_when(void **state)
{
    (void)state;
    const char *topic = name("async");
    make_topic(topic);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.linger_ms = 5;
    bw_producer *p = open_producer(&o);
    int counts[2] = {0, 0};
    for (int i = 0; i < 5000; i++) {
        char text[32];
        snprintf(text, sizeof text, "value %d", i);
        bw_record r = test_record(NULL, text);
        assert_ok(bw_producer_send(p, topic, 0, &r, count_delivery, counts, -1));
    }
    struct pollfd fd = {.fd = bw_producer_fd(p), .events = POLLIN};
    assert_true(fd.fd >= 0);
    int64_t until = now_ms() + 20000;
    while (counts[1] < 5000 && now_ms() < until) {
        assert_int_equal(poll(&fd, 1, 10000), 1);
        while (bw_producer_poll(p, 0)) {}
    }
    assert_int_equal(counts[0], 0);
    assert_int_equal(counts[1], 5000);
    assert_int_equal(poll(&fd, 1, 50), 0);
    assert_ok(bw_producer_close(p, 1000));
    bw_consumer *c = open_consumer(NULL);
    assert_ok(bw_consumer_assign(c, topic, BW_PARTITION_ANY, BW_OFFSET_BEGINNING));
    expect_numbers(c, 0, 5000);
    bw_consumer_close(c);
}

static void test_send_many_and_batches_place_by_key_as_busway_does(void **state)
{
    (void)state;
    const char *topic = name("many");
    make_topic(topic);
    bw_producer *p = open_producer(NULL);
    enum { N = 400 };
    static bw_record records[N];
    static char keys[N][16];
    static bw_placed placed[N];
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "key-%d", i);
        records[i] = test_record(keys[i], "x");
    }
    assert_ok(bw_producer_send_many(p, topic, BW_PARTITION_ANY, records, N, 20000, placed));
    int64_t next[4] = {0};
    for (int i = 0; i < N; i++) {
        assert_int_equal(placed[i].error, BW_OK);
        assert_in_range(placed[i].partition, 0, 3);
        assert_int_equal(placed[i].offset, next[placed[i].partition]++);
    }
    assert_true(next[0] > 50 && next[1] > 50 && next[2] > 50 && next[3] > 50);
    /* murmur2 of "21" is -973932308 (Kafka's own test of its Java client). */
    bw_record known = test_record("21", "x");
    bw_delivery d;
    assert_ok(bw_producer_send_sync(p, topic, BW_PARTITION_ANY, &known, 10000, &d));
    assert_int_equal(d.partition, (int)((uint32_t)-973932308 & 0x7fffffff) % 4);
    assert_ok(bw_producer_send_batch(p, topic, 1, records, 50, 10000, &d));
    assert_int_equal(d.count, 50);
    assert_int_equal(d.partition, 1);
    assert_ok(bw_producer_close(p, 1000));
}

static void test_positions_follow_seeks_pauses_and_times(void **state)
{
    (void)state;
    const char *topic = name("seek");
    make_topic(topic);
    bw_producer *p = open_producer(NULL);
    for (int i = 0; i < 100; i++) {
        char text[32];
        snprintf(text, sizeof text, "value %d", i);
        bw_record r = test_record(NULL, text);
        r.timestamp_ms = 1700000000000 + i * 1000;
        assert_ok(bw_producer_send_sync(p, topic, i < 50 ? 0 : 1, &r, 10000, NULL));
    }
    bw_producer_close(p, 1000);
    bw_consumer *c = open_consumer(NULL);
    bw_batch b;
    assert_ok(bw_consumer_assign(c, topic, 0, 40));
    expect_numbers(c, 40, 10);
    assert_ok(bw_consumer_seek(c, topic, 0, 5));
    expect_numbers(c, 5, 45);
    assert_ok(bw_consumer_seek(c, topic, 0, BW_OFFSET_END));
    assert_err(bw_consumer_poll(c, 200, &b), BW_ERR_TIMED_OUT);
    assert_ok(bw_consumer_assign(c, topic, 1, BW_OFFSET_BEGINNING));
    assert_ok(bw_consumer_pause(c, topic, 1));
    assert_err(bw_consumer_poll(c, 300, &b), BW_ERR_TIMED_OUT);
    assert_ok(bw_consumer_resume(c, topic, 1));
    expect_numbers(c, 50, 50);
    assert_err(bw_consumer_seek(c, topic, 3, 0), BW_ERR_NOT_FOUND);
    if (is_real()) { /* the mock has no times */
        assert_ok(bw_consumer_seek_time(c, topic, 0, 1700000000000 + 30500));
        expect_numbers(c, 31, 19);
        int64_t offset, found;
        assert_ok(bw_offset_for_time(bus, topic, 1, 1700000000000 + 60000, &offset, &found));
        assert_int_equal(offset, 10);
        assert_int_equal(found, 1700000000000 + 60000);
        assert_ok(bw_offset_for_time(bus, topic, 1, 1800000000000, &offset, &found));
        assert_int_equal(offset, 50);
        assert_int_equal(found, -1);
    }
    bw_topic_partition *parts;
    size_t count;
    assert_ok(bw_consumer_assignment(c, &parts, &count));
    assert_int_equal(count, 2);
    bw_free(parts);
    assert_ok(bw_consumer_unassign(c, topic, BW_PARTITION_ANY));
    assert_err(bw_consumer_unassign(c, topic, 0), BW_ERR_NOT_FOUND);
    assert_err(bw_consumer_poll(c, 0, &b), BW_ERR_TIMED_OUT);
    bw_consumer_close(c);
    bw_offset_range range;
    assert_ok(bw_offsets_range(bus, topic, 1, &range));
    assert_int_equal(range.log_start, 0);
    assert_int_equal(range.end, 50);
}

static void *wake_soon(void *consumer)
{
    usleep(100000);
    bw_consumer_wake(consumer);
    return NULL;
}

static void test_waiting_polls_are_woken_and_the_descriptor_is_readable_in_time(void **state)
{
    (void)state;
    const char *topic = name("wake");
    make_topic(topic);
    send_numbers(topic, 0, 0, 1);
    bw_consumer *c = open_consumer(NULL);
    assert_ok(bw_consumer_assign(c, topic, 0, BW_OFFSET_BEGINNING));
    expect_numbers(c, 0, 1);
    bw_batch b;
    pthread_t thread;
    int64_t begin = now_ms();
    pthread_create(&thread, NULL, wake_soon, c);
    assert_err(bw_consumer_poll(c, 20000, &b), BW_ERR_WOKEN);
    assert_true(now_ms() - begin < 5000);
    pthread_join(thread, NULL);
    struct pollfd fd = {.fd = bw_consumer_fd(c), .events = POLLIN};
    while (bw_consumer_poll(c, 0, &b) != BW_ERR_TIMED_OUT) {}
    while (poll(&fd, 1, 600) == 1)
        while (bw_consumer_poll(c, 0, &b) != BW_ERR_TIMED_OUT) {}
    send_numbers(topic, 0, 1, 1);
    assert_int_equal(poll(&fd, 1, 10000), 1);
    expect_numbers(c, 1, 1);
    bw_consumer_close(c);
}

static void test_out_of_range_is_told_or_reset(void **state)
{
    (void)state;
    const char *topic = name("range");
    make_topic(topic);
    send_numbers(topic, 0, 0, 10);
    bw_batch b;
    bw_consumer *c = open_consumer(NULL);
    assert_ok(bw_consumer_assign(c, topic, 0, 1000));
    assert_err(bw_consumer_poll(c, 10000, &b), BW_ERR_OFFSET_OUT_OF_RANGE);
    assert_string_equal(b.topic, topic);
    assert_non_null(strstr(bw_error_message(), "0 to 10"));
    assert_err(bw_consumer_poll(c, 200, &b), BW_ERR_TIMED_OUT);
    assert_ok(bw_consumer_seek(c, topic, 0, 3));
    expect_numbers(c, 3, 7);
    bw_consumer_close(c);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.auto_offset_reset = BW_RESET_EARLIEST;
    c = open_consumer(&o);
    assert_ok(bw_consumer_assign(c, topic, 0, 1000));
    bw_record_view v;
    assert_ok(bw_consumer_poll(c, 10000, &b));
    assert_int_equal(bw_batch_next(&b, &v), 1);
    bw_consumer_close(c);
}

/* ---- groups ---- */

typedef struct told {
    int assigned, revoked, lost;
} told;

static void on_rebalance(bw_consumer *c, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)parts;
    told *t = opaque;
    if (event == BW_REBALANCE_ASSIGNED) t->assigned += (int)count;
    if (event == BW_REBALANCE_REVOKED) t->revoked += (int)count;
    if (event == BW_REBALANCE_LOST) t->lost += (int)count;
    bw_batch b;
    assert_err(bw_consumer_poll(c, 0, &b), BW_ERR_INVALID_ARGUMENT);
}

static bw_consumer *open_member(const char *group, told *t)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = group;
    o.auto_offset_reset = BW_RESET_EARLIEST;
    o.enable_auto_commit = false;
    o.session_timeout_ms = 6000;
    o.on_rebalance = t ? on_rebalance : NULL;
    o.rebalance_opaque = t;
    return open_consumer(&o);
}

/* Polls both until each has this many partitions; what is read is counted. */
static int balance(bw_consumer *a, bw_consumer *b, size_t want_a, size_t want_b)
{
    int records = 0;
    for (int64_t until = now_ms() + 30000; now_ms() < until;) {
        bw_consumer *both[] = {a, b};
        size_t have[2] = {0, 0};
        for (int i = 0; i < 2; i++) {
            bw_batch batch;
            bw_topic_partition *parts;
            if (!both[i]) continue;
            if (bw_consumer_poll(both[i], 20, &batch) == BW_OK) records += batch.count;
            assert_ok(bw_consumer_assignment(both[i], &parts, &have[i]));
            bw_free(parts);
        }
        if (have[0] == want_a && have[1] == want_b) return records;
    }
    fail_msg("the group did not settle: %s", bw_error_message());
    return records;
}

static void test_group_divides_commits_and_goes_on(void **state)
{
    (void)state;
    const char *topic = name("group"), *group = name("members");
    make_topic(topic);
    for (int p = 0; p < 4; p++) send_numbers(topic, p, 0, 100);
    told one = {0, 0, 0}, two = {0, 0, 0};
    bw_consumer *a = open_member(group, &one), *b = open_member(group, &two);
    assert_ok(bw_consumer_subscribe(a, &topic, 1));
    assert_err(bw_consumer_assign(a, topic, 0, 0), BW_ERR_INVALID_ARGUMENT);
    int records = balance(a, NULL, 4, 0);
    assert_int_equal(one.assigned, 4);
    for (int64_t until = now_ms() + 20000; records < 400 && now_ms() < until;) {
        bw_batch batch;
        if (bw_consumer_poll(a, 100, &batch) == BW_OK) records += batch.count;
    }
    assert_int_equal(records, 400);
    assert_ok(bw_consumer_commit(a, NULL, 0, 10000));
    bw_group_metadata who;
    assert_ok(bw_consumer_group_metadata(a, &who));
    assert_string_equal(who.group_id, group);
    assert_true(*who.member_id && who.member_epoch >= 1);
    assert_ok(bw_consumer_subscribe(b, &topic, 1));
    assert_int_equal(balance(a, b, 2, 2), 0);
    assert_int_equal(one.revoked, 2);
    assert_int_equal(two.assigned, 2);
    bw_topic_partition parts[4];
    for (int p = 0; p < 4; p++) parts[p] = (bw_topic_partition){.topic = topic, .partition = p, .leader_epoch = -1};
    assert_ok(bw_consumer_committed(b, parts, 4, 10000));
    for (int p = 0; p < 4; p++) assert_int_equal(parts[p].offset, 100);
    bw_consumer_close(a);
    assert_int_equal(one.revoked, 4);
    balance(b, NULL, 4, 0);
    assert_int_equal(two.lost + one.lost, 0);
    assert_ok(bw_consumer_unsubscribe(b));
    assert_err(bw_consumer_unsubscribe(b), BW_ERR_NOT_SUBSCRIBED);
    assert_ok(bw_consumer_assign(b, topic, 0, 0));
    expect_numbers(b, 0, 100);
    bw_consumer_close(b);
}

static void commit_told(bw_consumer *c, bw_err e, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)c;
    int *called = opaque;
    assert_ok(e);
    assert_int_equal(count, 1);
    assert_int_equal(parts[0].offset, 7);
    ++*called;
}

static void test_commits_by_hand_with_metadata(void **state)
{
    (void)state;
    const char *topic = name("commit");
    make_topic(topic);
    send_numbers(topic, 1, 0, 10);
    bw_consumer *c = open_member(name("by-hand"), NULL);
    assert_ok(bw_consumer_assign(c, topic, 1, 0));
    bw_topic_partition part = {topic, 1, 7, -1, "seven", BW_OK};
    int called = 0;
    assert_ok(bw_consumer_commit_async(c, &part, 1, commit_told, &called));
    bw_batch b;
    for (int64_t until = now_ms() + 10000; !called && now_ms() < until;) (void)bw_consumer_poll(c, 20, &b);
    assert_int_equal(called, 1);
    bw_topic_partition asked[2] = {{topic, 1, 0, 0, NULL, BW_OK}, {topic, 0, 0, 0, NULL, BW_OK}};
    assert_ok(bw_consumer_committed(c, asked, 2, 10000));
    assert_int_equal(asked[0].offset, 7);
    assert_string_equal(asked[0].metadata, "seven");
    assert_int_equal(asked[1].offset, BW_OFFSET_INVALID);
    part.offset = -5;
    assert_err(bw_consumer_commit(c, &part, 1, 1000), BW_ERR_INVALID_COMMIT_OFFSET);
    bw_consumer_close(c);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    c = open_consumer(&o);
    assert_err(bw_consumer_commit(c, NULL, 0, 1000), BW_ERR_INVALID_ARGUMENT);
    bw_consumer_close(c);
}

static void test_auto_commit_is_of_what_was_given_before(void **state)
{
    (void)state;
    const char *topic = name("auto"), *group = name("auto-members");
    make_topic(topic);
    send_numbers(topic, 0, 0, 30);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = group;
    o.auto_offset_reset = BW_RESET_EARLIEST;
    bw_consumer *c = open_consumer(&o);
    assert_ok(bw_consumer_subscribe(c, &topic, 1));
    bw_batch b;
    int records = 0;
    for (int64_t until = now_ms() + 20000; records < 30 && now_ms() < until;)
        if (bw_consumer_poll(c, 100, &b) == BW_OK) records += b.count;
    assert_int_equal(records, 30);
    bw_consumer_close(c);
    c = open_member(group, NULL);
    bw_topic_partition part = {topic, 0, 0, 0, NULL, BW_OK};
    assert_ok(bw_consumer_committed(c, &part, 1, 10000));
    assert_int_equal(part.offset, 30);
    bw_consumer_close(c);
}

static void test_no_offset_is_told_when_there_is_no_reset(void **state)
{
    (void)state;
    const char *topic = name("none");
    make_topic(topic);
    send_numbers(topic, 0, 0, 5);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = name("no-offset");
    o.enable_auto_commit = false;
    bw_consumer *c = open_consumer(&o);
    assert_ok(bw_consumer_subscribe(c, &topic, 1));
    bw_batch b;
    bw_err e;
    int64_t until = now_ms() + 20000;
    do e = bw_consumer_poll(c, 1000, &b);
    while (e == BW_ERR_TIMED_OUT && now_ms() < until);
    assert_err(e, BW_ERR_NO_OFFSET);
    for (int i = 0; i < 3; i++) assert_err(bw_consumer_poll(c, 1000, &b), BW_ERR_NO_OFFSET);
    assert_err(bw_consumer_poll(c, 300, &b), BW_ERR_TIMED_OUT);
    assert_ok(bw_consumer_seek(c, topic, 0, 2));
    expect_numbers(c, 2, 3);
    bw_consumer_close(c);
}

/* ---- transactions ---- */

static void test_transactions_are_seen_whole_or_not_at_all(void **state)
{
    (void)state;
    const char *topic = name("txn"), *id = name("txn-id");
    make_topic(topic);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.transactional_id = id;
    bw_producer *p = open_producer(&o);
    bw_record r = test_record(NULL, "value 0");
    assert_err(bw_transaction_begin(p), BW_ERR_INVALID_TXN_STATE);
    assert_ok(bw_transactions_init(p, 20000));
    assert_ok(bw_transaction_begin(p));
    assert_ok(bw_producer_send(p, topic, 0, &r, NULL, NULL, 1000));
    bw_consumer *c = open_member(name("txn-group"), NULL);
    bw_group_metadata who;
    assert_ok(bw_consumer_group_metadata(c, &who));
    bw_topic_partition part = {topic, 0, 1, -1, NULL, BW_OK};
    assert_ok(bw_transaction_send_offsets(p, &who, &part, 1, 10000));
    assert_ok(bw_transaction_commit(p, 20000));
    assert_ok(bw_transaction_begin(p));
    r = test_record(NULL, "lost");
    assert_ok(bw_producer_send_sync(p, topic, 0, &r, 10000, NULL));
    assert_ok(bw_transaction_abort(p, 20000));
    assert_ok(bw_transaction_begin(p));
    r = test_record(NULL, "value 1");
    assert_ok(bw_producer_send_sync(p, topic, 0, &r, 10000, NULL));
    assert_ok(bw_transaction_commit(p, 20000));
    part.offset = -7;
    assert_ok(bw_consumer_committed(c, &part, 1, 10000));
    if (is_real()) assert_int_equal(part.offset, 1); /* the mock forgets it */
    bw_consumer_close(c);
    if (is_real()) { /* the mock gives aborted ones, too */
        bw_consumer_options co = BW_CONSUMER_OPTIONS_INIT;
        co.isolation = BW_READ_COMMITTED;
        c = open_consumer(&co);
        assert_ok(bw_consumer_assign(c, topic, 0, BW_OFFSET_BEGINNING));
        expect_numbers(c, 0, 2);
        bw_batch b;
        assert_err(bw_consumer_poll(c, 1000, &b), BW_ERR_TIMED_OUT);
        int64_t position;
        bw_offset_range range;
        assert_ok(bw_consumer_position(c, topic, 0, &position));
        assert_ok(bw_offsets_range(bus, topic, 0, &range));
        assert_int_equal(position, range.end); /* over the marker at the end */
        bw_consumer_close(c);
        bw_producer *other = open_producer(&o);
        assert_ok(bw_transactions_init(other, 20000));
        assert_ok(bw_transaction_begin(p));
        bw_err e = bw_producer_send_sync(p, topic, 0, &r, 20000, NULL);
        assert_true(e == BW_ERR_PRODUCER_FENCED || e == BW_ERR_TRANSACTION_ABORTABLE || e == BW_ERR_INVALID_PRODUCER_EPOCH);
        assert_err(bw_transaction_abort(p, 20000), BW_ERR_PRODUCER_FENCED);
        bw_producer_close(other, 1000);
    }
    bw_producer_close(p, 1000);
}

/* ---- refusals ---- */

static void test_what_a_cluster_cannot_do_is_unsupported_by_name(void **state)
{
    (void)state;
    bw_producer *p = open_producer(NULL);
    bw_reservation r;
    assert_err(bw_producer_reserve(p, name("sync"), 0, NULL, 100, 1000, &r), BW_ERR_UNSUPPORTED);
    assert_non_null(strstr(bw_error_message(), "Kafka cluster"));
    bw_record record = test_record(NULL, "x");
    assert_err(bw_producer_send_now(p, name("sync"), 0, &record, 1, NULL), BW_ERR_BUSY);
    int32_t sequence;
    int64_t offset;
    bw_err e = bw_producer_last_sequence(p, name("sync"), 0, &sequence, &offset);
    assert_true(e == BW_ERR_UNSUPPORTED || e == BW_ERR_INVALID_ARGUMENT);
    bw_producer_close(p, 1000);
    bw_queue_options qo = BW_QUEUE_OPTIONS_INIT;
    const char *topics[] = {"x"};
    qo.group = "g";
    qo.topics = topics;
    qo.topic_count = 1;
    bw_queue *q = NULL;
    assert_err(bw_queue_open(bus, &qo, &q), BW_ERR_UNSUPPORTED);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = "g";
    bw_consumer *c = open_consumer(&o);
    bw_state *s = NULL;
    bw_state_options so = BW_STATE_OPTIONS_INIT;
    assert_err(bw_state_open(c, &so, &s), BW_ERR_UNSUPPORTED);
    bw_consumer_close(c);
    char *json = NULL;
    assert_err(bw_quotas_list(bus, NULL, NULL, NULL, &json), BW_ERR_UNSUPPORTED);
    assert_err(bw_transactions_list(bus, &json), BW_ERR_UNSUPPORTED);
}

static void expect_open(const char *url, bw_err wanted, const char *says)
{
    bw_bus *b = NULL;
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.connect_timeout_ms = 1500;
    assert_err(bw_bus_open(url, &o, &b), wanted);
    if (!strstr(bw_error_message(), says)) fail_msg("%s: \"%s\" does not say \"%s\"", url, bw_error_message(), says);
}

static void test_urls_are_refused_with_a_reason(void **state)
{
    (void)state;
    expect_open("kafka://", BW_ERR_INVALID_ARGUMENT, "no broker");
    expect_open("kafka://127.0.0.1:1", BW_ERR_NO_COORDINATOR, "127.0.0.1:1");
    expect_open("kafka://127.0.0.1:9092/topic", BW_ERR_INVALID_ARGUMENT, "no path");
    expect_open("kafka://127.0.0.1:9092?no.such.option=1", BW_ERR_INVALID_ARGUMENT, "no.such.option");
    expect_open("kafka://127.0.0.1:9092?acks=1", BW_ERR_INVALID_ARGUMENT, "producer options");
    expect_open("kafka://127.0.0.1:9092?x", BW_ERR_INVALID_ARGUMENT, "NAME=VALUE");
    expect_open("kafka://user:secret@127.0.0.1:9092", BW_ERR_INVALID_ARGUMENT, "sasl.username");
    expect_open("kafka://127.0.0.1:9092?transport=direct", BW_ERR_UNSUPPORTED, "own protocol");
    expect_open("kafka://127.0.0.1:9092?config=/nowhere/x", BW_ERR_NOT_FOUND, "/nowhere/x");
    expect_open("kafka://127.0.0.1:9092?ssl.ca.location=/nowhere/ca&security.protocol=ssl", BW_ERR_INVALID_ARGUMENT, "ssl.ca.location");
    assert_null(strstr(bw_error_message(), "secret"));
}

static void test_unknown_topics_and_partitions_are_said_at_once(void **state)
{
    (void)state;
    bw_consumer *c = open_consumer(NULL);
    int64_t begin = now_ms();
    const char *topic = name("sync");
    int32_t count = 0;
    assert_ok(bw_topic_partitions(bus, topic, &count));
    assert_int_equal(count, 4);
    assert_err(bw_consumer_assign(c, topic, 17, 0), BW_ERR_UNKNOWN_PARTITION);
    if (is_real()) {
        assert_err(bw_consumer_assign(c, name("nowhere"), 0, 0), BW_ERR_UNKNOWN_TOPIC);
        assert_err(bw_topic_partitions(bus, name("nowhere"), &count), BW_ERR_UNKNOWN_TOPIC);
    }
    bw_producer *p = open_producer(NULL);
    bw_record r = test_record(NULL, "x");
    assert_err(bw_producer_send_sync(p, topic, 17, &r, 5000, NULL), BW_ERR_UNKNOWN_PARTITION);
    assert_err(bw_producer_send_sync(p, "bad/name", 0, &r, 5000, NULL), BW_ERR_INVALID_TOPIC);
    assert_true(now_ms() - begin < 5000);
    bw_producer_close(p, 1000);
    bw_consumer_close(c);
}

static void test_status_and_statistics(void **state)
{
    (void)state;
    char *json = NULL;
    assert_ok(bw_status(bus, &json));
    assert_non_null(strstr(json, "Apache Kafka"));
    bw_free(json);
    json = bw_bus_stats(bus);
    assert_non_null(strstr(json, "\"transport\":\"kafka\""));
    assert_true(test_stat(bus, "records_out") > 5000);
    assert_true(test_stat(bus, "records_in") > 5000);
    bw_free(json);
}

/* ---- administration: a real cluster's ---- */

static void test_topics_are_made_described_changed_and_deleted(void **state)
{
    (void)state;
    if (!is_real()) skip();
    const char *topic = name("admin");
    bw_config_entry config[] = {{"retention.ms", "3600000"}, {"cleanup.policy", "compact"}};
    assert_ok(bw_topic_create(bus, topic, 2, config, 2));
    assert_err(bw_topic_create(bus, topic, 2, NULL, 0), BW_ERR_TOPIC_EXISTS);
    bw_config_entry bad = {"no.such.option", "1"};
    assert_err(bw_topic_create(bus, name("bad"), 1, &bad, 1), BW_ERR_INVALID_CONFIG);
    char *json = NULL;
    assert_ok(bw_topics_describe(bus, topic, &json));
    assert_non_null(strstr(json, "\"retention.ms\":{\"value\":\"3600000\",\"default\":false}"));
    bw_free(json);
    bw_config_entry change[] = {{"retention.ms", "7200000"}, {"max.message.bytes", "100000"}};
    assert_ok(bw_topic_alter(bus, topic, 3, change, 2));
    int32_t count = 0;
    for (int64_t until = now_ms() + 10000; count != 3 && now_ms() < until;) assert_ok(bw_topic_partitions(bus, topic, &count));
    assert_int_equal(count, 3);
    bw_config_entry back = {"max.message.bytes", NULL};
    assert_ok(bw_topic_alter(bus, topic, 0, &back, 1));
    bool seen = false;
    for (int64_t until = now_ms() + 10000; !seen && now_ms() < until;) {
        assert_ok(bw_topics_describe(bus, topic, &json));
        seen = strstr(json, "\"retention.ms\":{\"value\":\"7200000\",\"default\":false}") &&
               strstr(json, "\"cleanup.policy\":{\"value\":\"compact\",\"default\":false}") && !strstr(json, "100000");
        bw_free(json);
    }
    assert_true(seen);
    assert_ok(bw_topics_describe(bus, NULL, &json));
    assert_non_null(strstr(json, topic));
    bw_free(json);
    assert_ok(bw_topic_delete(bus, topic));
    assert_err(bw_topic_delete(bus, topic), BW_ERR_UNKNOWN_TOPIC);
}

static void test_groups_are_listed_described_moved_and_deleted(void **state)
{
    (void)state;
    if (!is_real()) skip();
    const char *topic = name("watched"), *group = name("watched-group");
    make_topic(topic);
    send_numbers(topic, 0, 0, 10);
    char *json = NULL;
    assert_err(bw_group_describe(bus, name("unheard-of"), &json), BW_ERR_GROUP_ID_NOT_FOUND);
    bw_consumer *c = open_member(group, NULL);
    assert_ok(bw_consumer_subscribe(c, &topic, 1));
    balance(c, NULL, 4, 0);
    bw_topic_partition part = {topic, 0, 4, -1, NULL, BW_OK};
    assert_ok(bw_consumer_commit(c, &part, 1, 10000));
    assert_ok(bw_groups_list(bus, &json));
    assert_non_null(strstr(json, group));
    bw_free(json);
    assert_ok(bw_group_describe(bus, group, &json));
    assert_non_null(strstr(json, "\"committed_offset\":4"));
    assert_non_null(strstr(json, "\"lag\":6"));
    assert_non_null(strstr(json, "\"state\":\"Stable\""));
    bw_free(json);
    bw_group_offset move[] = {{topic, 0, 8, NULL, BW_OK}, {topic, 1, 99, NULL, BW_OK}};
    assert_err(bw_group_offsets_alter(bus, group, move, 1), BW_ERR_NON_EMPTY_GROUP);
    assert_err(bw_group_delete(bus, group), BW_ERR_NON_EMPTY_GROUP);
    bw_consumer_close(c);
    assert_err(bw_group_offsets_alter(bus, group, move, 2), BW_ERR_INVALID_COMMIT_OFFSET);
    assert_int_equal(move[0].error, BW_OK);
    assert_int_equal(move[1].error, BW_ERR_INVALID_COMMIT_OFFSET);
    assert_ok(bw_group_describe(bus, group, &json));
    assert_non_null(strstr(json, "\"committed_offset\":8"));
    bw_free(json);
    assert_ok(bw_group_offsets_delete(bus, group, move, 1));
    bw_err e = bw_group_delete(bus, group); /* the last of its offsets may have taken it along */
    assert_true(e == BW_OK || e == BW_ERR_GROUP_ID_NOT_FOUND);
    assert_err(bw_group_delete(bus, group), BW_ERR_GROUP_ID_NOT_FOUND);
    int64_t start = 0;
    assert_ok(bw_delete_records(bus, topic, 0, 6, &start));
    assert_int_equal(start, 6);
    assert_err(bw_delete_records(bus, topic, 0, 600, &start), BW_ERR_OFFSET_OUT_OF_RANGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_send_sync_is_read_back_whole),
        cmocka_unit_test(test_send_async_tells_each_outcome_once_and_the_descriptor_says_when),
        cmocka_unit_test(test_send_many_and_batches_place_by_key_as_busway_does),
        cmocka_unit_test(test_positions_follow_seeks_pauses_and_times),
        cmocka_unit_test(test_waiting_polls_are_woken_and_the_descriptor_is_readable_in_time),
        cmocka_unit_test(test_out_of_range_is_told_or_reset),
        cmocka_unit_test(test_group_divides_commits_and_goes_on),
        cmocka_unit_test(test_commits_by_hand_with_metadata),
        cmocka_unit_test(test_auto_commit_is_of_what_was_given_before),
        cmocka_unit_test(test_no_offset_is_told_when_there_is_no_reset),
        cmocka_unit_test(test_transactions_are_seen_whole_or_not_at_all),
        cmocka_unit_test(test_what_a_cluster_cannot_do_is_unsupported_by_name),
        cmocka_unit_test(test_urls_are_refused_with_a_reason),
        cmocka_unit_test(test_unknown_topics_and_partitions_are_said_at_once),
        cmocka_unit_test(test_status_and_statistics),
        cmocka_unit_test(test_topics_are_made_described_changed_and_deleted),
        cmocka_unit_test(test_groups_are_listed_described_moved_and_deleted),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
