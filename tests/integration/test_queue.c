/* Queue groups: records one by one under a lease, acknowledged, given back, dead; delayed ones at their time. */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *const jobs[] = {"jobs"};

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bw_queue_options options_of(const char *group)
{
    bw_queue_options o = BW_QUEUE_OPTIONS_INIT;
    o.group = group;
    o.topics = jobs;
    o.topic_count = 1;
    return o;
}

static bw_queue *open_queue(bw_bus *bus, const bw_queue_options *o)
{
    bw_queue *q = NULL;
    assert_ok(bw_queue_open(bus, o, &q));
    return q;
}

typedef struct scene { test_daemon d; bw_bus *bus; } scene;

static void scene_open(scene *s, int partitions)
{
    daemon_make(&s->d);
    daemon_start(&s->d);
    s->bus = test_bus(s->d.url);
    assert_ok(bw_topic_create(s->bus, "jobs", partitions, NULL, 0));
}

static void scene_close(scene *s)
{
    bw_bus_close(s->bus);
    daemon_remove(&s->d);
}

static void send_numbers(bw_bus *bus, int partition, int from, int count)
{
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = from; i < from + count; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", i);
        test_send(p, "jobs", partition, text);
    }
    assert_ok(bw_producer_close(p, 5000));
}

static int number_of(const bw_message *m)
{
    char text[16] = "";
    memcpy(text, m->record.value, m->record.value_len < 15 ? m->record.value_len : 15);
    return atoi(text);
}

/* A number of the first partition of the group's description. */
static long long described(bw_bus *bus, const char *group, const char *name)
{
    char *json = NULL, key[64];
    assert_ok(bw_queue_describe(bus, group, &json));
    snprintf(key, sizeof key, "\"%s\":", name);
    char *at = strstr(json, key);
    if (!at) fail_msg("%s is not in %s", name, json);
    long long v = atoll(at + strlen(key));
    bw_free(json);
    return v;
}

static void send_delayed(bw_bus *bus, int64_t at_ms, bool text)
{
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    uint8_t room[8];
    char digits[24];
    bw_header h;
    bw_header_deliver_at(at_ms, room, &h);
    if (text) {
        snprintf(digits, sizeof digits, "%lld", (long long)at_ms);
        h.value = digits;
        h.value_len = strlen(digits);
    }
    bw_record r = test_record(NULL, "later");
    r.headers = &h;
    r.header_count = 1;
    assert_ok(bw_producer_send_sync(p, "jobs", 0, &r, 5000, NULL));
    assert_ok(bw_producer_close(p, 5000));
}

/* ---- tests ---- */

static void test_queue_records_are_shared_and_acknowledged_once(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    send_numbers(s.bus, 0, 0, 100);
    bw_queue_options o = options_of("g");
    o.max_records = 10;
    bw_queue *a = open_queue(s.bus, &o), *b = open_queue(s.bus, &o);
    int seen[100] = {0};
    for (int i = 0; i < 100; i++) {
        bw_queue *q = i % 2 ? a : b;
        bw_message m;
        assert_ok(bw_queue_poll(q, 5000, &m));
        assert_string_equal(m.topic, "jobs");
        assert_int_equal(m.deliveries, 1);
        seen[number_of(&m)]++;
        assert_ok(bw_queue_ack(q, &m));
    }
    for (int i = 0; i < 100; i++) assert_int_equal(seen[i], 1);
    bw_message m;
    assert_err(bw_queue_poll(a, 50, &m), BW_ERR_TIMED_OUT);
    assert_ok(bw_queue_flush(a, 5000));
    assert_ok(bw_queue_flush(b, 5000));
    assert_int_equal(described(s.bus, "g", "start_offset"), 100);
    assert_int_equal(described(s.bus, "g", "acknowledged"), 100);
    assert_ok(bw_queue_close(a));
    assert_ok(bw_queue_close(b));
    scene_close(&s);
}

static void test_queue_released_record_comes_again_and_counts(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    send_numbers(s.bus, 0, 0, 1);
    bw_queue_options o = options_of("g");
    bw_queue *q = open_queue(s.bus, &o);
    bw_message m;
    for (int i = 1; i <= 3; i++) {
        assert_ok(bw_queue_poll(q, 5000, &m));
        assert_int_equal(m.deliveries, i);
        if (i < 3) assert_ok(bw_queue_release(q, &m));
    }
    assert_ok(bw_queue_ack_sync(q, &m, 5000));
    assert_ok(bw_queue_ack(q, &m));
    assert_err(bw_queue_flush(q, 5000), BW_ERR_INVALID_RECORD_STATE);
    assert_ok(bw_queue_close(q));
    scene_close(&s);
}

static void test_queue_worker_that_waits_is_woken_by_an_append(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 3);
    bw_queue_options o = options_of("g");
    bw_queue *q = open_queue(s.bus, &o);
    pid_t child = fork();
    if (child == 0) {
        bw_bus *bus = test_bus(s.d.url);
        usleep(200000);
        send_numbers(bus, 2, 7, 1);
        bw_bus_close(bus);
        _exit(0);
    }
    bw_message m;
    int64_t began = now_ms();
    assert_ok(bw_queue_poll(q, 10000, &m));
    assert_int_equal(number_of(&m), 7);
    assert_true(now_ms() - began < 5000);
    assert_ok(bw_queue_ack_sync(q, &m, 5000));
    assert_ok(bw_queue_close(q));
    waitpid(child, NULL, 0);
    scene_close(&s);
}

static void test_queue_lease_that_ends_gives_the_record_to_another(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    send_numbers(s.bus, 0, 0, 2);
    bw_queue_options o = options_of("g");
    o.lease_ms = 300;
    bw_queue *a = open_queue(s.bus, &o), *b = open_queue(s.bus, &o);
    bw_message m[2], again[2];
    size_t n;
    assert_ok(bw_queue_poll_batch(a, 5000, m, 2, &n));
    assert_int_equal(n, 2);
    usleep(150000);
    assert_ok(bw_queue_renew(a, &m[1]));
    assert_ok(bw_queue_poll_batch(b, 5000, again, 2, &n)); /* the other was renewed */
    assert_int_equal(n, 1);
    assert_int_equal(number_of(&again[0]), 0);
    assert_int_equal(again[0].deliveries, 2);
    assert_ok(bw_queue_ack(a, &m[1]));
    assert_ok(bw_queue_flush(a, 5000));
    assert_ok(bw_queue_ack(a, &m[0]));
    assert_err(bw_queue_flush(a, 5000), BW_ERR_INVALID_RECORD_STATE);
    assert_ok(bw_queue_ack_sync(b, &again[0], 5000));
    assert_ok(bw_queue_close(a));
    assert_ok(bw_queue_close(b));
    scene_close(&s);
}

static bool header_is(const bw_record_view *v, const char *name, const char *value)
{
    bw_header_iter it;
    bw_header h;
    bw_header_iter_init(&it, v);
    while (bw_header_iter_next(&it, &h) == 1)
        if (h.name_len == strlen(name) && !memcmp(h.name, name, h.name_len))
            return h.value_len == strlen(value) && !memcmp(h.value, value, h.value_len);
    return false;
}

static void test_queue_worn_out_and_rejected_records_go_to_the_dead_letter_topic(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    send_numbers(s.bus, 0, 0, 2);
    bw_queue_options o = options_of("g");
    o.max_deliveries = 3;
    o.max_records = 1;
    bw_queue *q = open_queue(s.bus, &o);
    bw_message m;
    int deliveries = 0;
    bool rejected = false;
    while (bw_queue_poll(q, 300, &m) == BW_OK) {
        if (number_of(&m) == 1) rejected = true;
        else deliveries++;
        assert_ok(number_of(&m) == 1 ? bw_queue_reject(q, &m) : bw_queue_release(q, &m));
        assert_ok(bw_queue_flush(q, 5000));
    }
    assert_int_equal(deliveries, 3);
    assert_true(rejected);
    bw_consumer *c = test_consumer(s.bus, "jobs.dlq", 0, 0);
    int found = 0;
    while (found < 2) {
        bw_batch batch;
        bw_record_view v;
        assert_ok(bw_consumer_poll(c, 5000, &batch));
        while (bw_batch_next(&batch, &v) == 1) {
            bool first = v.value[0] == '0';
            assert_true(header_is(&v, "__dlq.errors.topic", "jobs"));
            assert_true(header_is(&v, "__dlq.errors.partition", "0"));
            assert_true(header_is(&v, "__dlq.errors.offset", first ? "0" : "1"));
            assert_true(header_is(&v, "__dlq.errors.group", "g"));
            assert_true(header_is(&v, "__dlq.errors.delivery.count", first ? "3" : "1"));
            found++;
        }
    }
    bw_consumer_close(c);
    for (int i = 0; i < 200 && described(s.bus, "g", "start_offset") < 2; i++) usleep(10000);
    assert_int_equal(described(s.bus, "g", "start_offset"), 2);
    assert_int_equal(described(s.bus, "g", "dead_lettered"), 2);
    assert_ok(bw_queue_close(q));
    int64_t moved, skipped;
    assert_ok(bw_queue_redrive(s.bus, "jobs.dlq", 0, NULL, NULL, &moved, &skipped));
    assert_int_equal(moved, 2);
    assert_int_equal(skipped, 0);
    q = open_queue(s.bus, &o);
    for (int i = 0; i < 2; i++) {
        assert_ok(bw_queue_poll(q, 5000, &m));
        assert_int_equal(m.deliveries, 1);
        assert_int_equal(m.record.header_count, 0);
        assert_true(m.record.offset >= 2);
        assert_ok(bw_queue_ack_sync(q, &m, 5000));
    }
    assert_ok(bw_queue_close(q));
    scene_close(&s);
}

static void test_queue_acknowledged_is_forgotten_never_over_restarts(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    send_numbers(s.bus, 0, 0, 50);
    bw_queue_options o = options_of("g");
    bw_queue *q = open_queue(s.bus, &o);
    bool acked[50] = {false};
    bw_message m;
    for (int i = 0; i < 50; i++) {
        assert_ok(bw_queue_poll(q, 5000, &m));
        if (i % 3) continue;
        acked[number_of(&m)] = true;
        assert_ok(bw_queue_ack(q, &m));
    }
    assert_ok(bw_queue_flush(q, 5000));
    daemon_stop(&s.d, SIGKILL);
    daemon_start(&s.d);
    int again = 0;
    while (again < 33) {
        assert_ok(bw_queue_poll(q, 5000, &m));
        assert_false(acked[number_of(&m)]);
        acked[number_of(&m)] = true;
        again++;
        assert_ok(bw_queue_ack(q, &m));
    }
    assert_err(bw_queue_poll(q, 100, &m), BW_ERR_TIMED_OUT);
    assert_ok(bw_queue_close(q));
    scene_close(&s);
}

static void test_queue_delayed_record_is_never_early_and_survives_a_restart(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    int64_t at = wall_ms() + 1500;
    send_delayed(s.bus, at + 3600000, false); /* holds nothing up */
    send_delayed(s.bus, at, true);
    send_numbers(s.bus, 0, 5, 1);
    bw_queue_options o = options_of("g");
    bw_queue *q = open_queue(s.bus, &o);
    bw_message m;
    assert_ok(bw_queue_poll(q, 5000, &m));
    assert_int_equal(number_of(&m), 5);
    assert_ok(bw_queue_ack_sync(q, &m, 5000));
    assert_int_equal(described(s.bus, "g", "start_offset"), 3);
    assert_int_equal(described(s.bus, "g", "delayed"), 2);
    daemon_stop(&s.d, SIGKILL);
    daemon_start(&s.d);
    assert_ok(bw_queue_poll(q, 10000, &m));
    int64_t now = wall_ms();
    assert_true(now >= at);
    print_message("delayed: %lld ms late\n", (long long)(now - at));
    assert_int_equal(m.record.offset, 1);
    assert_ok(bw_queue_ack_sync(q, &m, 5000));
    assert_err(bw_queue_poll(q, 100, &m), BW_ERR_TIMED_OUT);
    assert_int_equal(described(s.bus, "g", "delayed"), 1);
    assert_ok(bw_queue_close(q));
    scene_close(&s);
}

/* More than memory holds at a time, and a daemon that dies in between. */
static void test_queue_many_delayed_records_come_once_each(void **state)
{
    (void)state;
    enum { MANY = 20000 };
    scene s;
    scene_open(&s, 1);
    bw_queue_options o = options_of("g");
    bw_queue *q = open_queue(s.bus, &o);
    bw_producer *p = test_producer(s.bus, BW_ACKS_VISIBLE);
    int64_t at = wall_ms() + 6000;
    static int64_t due[MANY], seen[MANY];
    static bw_record r[500];
    static bw_header h[500];
    static uint8_t room[500][8];
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < MANY; i++) {
        due[i] = at + (i * 7919) % 1000;
        bw_header_deliver_at(due[i], room[i % 500], &h[i % 500]);
        r[i % 500] = (bw_record){.value = "x", .value_len = 1, .headers = &h[i % 500], .header_count = 1, .timestamp_ms = BW_NO_TIMESTAMP};
        if (i % 500 == 499) assert_ok(bw_producer_send_batch(p, "jobs", 0, r, 500, 5000, NULL));
    }
    assert_ok(bw_producer_close(p, 5000));
    bw_message m[500];
    size_t n;
    for (int i = 0; i < 15 && described(s.bus, "g", "delayed") < MANY; i++) assert_err(bw_queue_poll_batch(q, 300, m, 500, &n), BW_ERR_TIMED_OUT);
    assert_int_equal(described(s.bus, "g", "delayed"), MANY);
    assert_int_equal(described(s.bus, "g", "start_offset"), MANY);
    daemon_stop(&s.d, SIGKILL);
    daemon_start(&s.d);
    for (int got = 0; got < MANY; got += (int)n) {
        assert_ok(bw_queue_poll_batch(q, 10000, m, 500, &n));
        int64_t now = wall_ms();
        for (size_t i = 0; i < n; i++) {
            assert_true(now >= due[m[i].record.offset]);
            assert_int_equal(seen[m[i].record.offset]++, 0);
        }
        assert_ok(bw_queue_ack_batch(q, m, n));
    }
    print_message("the last of %d delayed records: %lld ms after its second\n", MANY, (long long)(wall_ms() - at - 1000));
    assert_ok(bw_queue_flush(q, 5000));
    assert_int_equal(described(s.bus, "g", "delayed"), 0);
    assert_err(bw_queue_poll_batch(q, 100, m, 500, &n), BW_ERR_TIMED_OUT);
    assert_ok(bw_queue_close(q));
    scene_close(&s);
}

static void test_queue_deleted_group_leaves_nothing(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    send_delayed(s.bus, wall_ms() + 3600000, false);
    send_numbers(s.bus, 0, 1, 1);
    bw_queue_options o = options_of("g");
    bw_message m;
    for (int i = 0; i < 3; i++) { /* each life begins at the beginning */
        bw_queue *q = open_queue(s.bus, &o);
        assert_ok(bw_queue_poll(q, 5000, &m));
        assert_int_equal(m.record.offset, 1);
        assert_ok(bw_queue_ack_sync(q, &m, 5000));
        assert_int_equal(described(s.bus, "g", "delayed"), 1);
        assert_ok(bw_queue_close(q));
        assert_ok(bw_queue_delete(s.bus, "g"));
        if (i == 1) {
            daemon_stop(&s.d, SIGKILL);
            daemon_start(&s.d);
            char *json = NULL;
            assert_err(bw_queue_describe(s.bus, "g", &json), BW_ERR_GROUP_ID_NOT_FOUND);
        }
    }
    bw_queue *q = open_queue(s.bus, &o);
    assert_ok(bw_queue_poll(q, 5000, &m));
    assert_ok(bw_queue_ack_sync(q, &m, 5000));
    assert_ok(bw_topic_delete(s.bus, "jobs"));
    assert_ok(bw_topic_create(s.bus, "jobs", 1, NULL, 0));
    send_numbers(s.bus, 0, 3, 1);
    assert_ok(bw_queue_close(q));
    q = open_queue(s.bus, &o); /* of the new topic */
    assert_ok(bw_queue_poll(q, 5000, &m));
    assert_int_equal(number_of(&m), 3);
    assert_int_equal(m.record.offset, 0);
    assert_ok(bw_queue_close(q));
    scene_close(&s);
}

static void send_in_transaction(bw_producer *p, int number, bool commit)
{
    char text[16];
    snprintf(text, sizeof text, "%d", number);
    assert_ok(bw_transaction_begin(p));
    test_send(p, "jobs", 0, text);
    assert_ok(commit ? bw_transaction_commit(p, 5000) : bw_transaction_abort(p, 5000));
}

static void test_queue_committed_group_sees_no_open_and_no_aborted_transaction(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    bw_producer_options po = BW_PRODUCER_OPTIONS_INIT;
    po.transactional_id = "t";
    bw_producer *p = NULL;
    assert_ok(bw_producer_open(s.bus, &po, &p));
    assert_ok(bw_transactions_init(p, 5000));
    bw_queue_options o = options_of("g");
    o.isolation = BW_QUEUE_COMMITTED;
    bw_queue *q = open_queue(s.bus, &o);
    bw_message m;
    send_in_transaction(p, 1, false);
    assert_ok(bw_transaction_begin(p));
    test_send(p, "jobs", 0, "2");
    assert_err(bw_queue_poll(q, 200, &m), BW_ERR_TIMED_OUT);
    pid_t child = fork();
    if (child == 0) { /* another writer, behind the open one */
        bw_bus *bus = test_bus(s.d.url);
        send_numbers(bus, 0, 3, 1);
        bw_bus_close(bus);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    assert_err(bw_queue_poll(q, 200, &m), BW_ERR_TIMED_OUT);
    assert_ok(bw_transaction_commit(p, 5000));
    for (int i = 2; i <= 3; i++) {
        assert_ok(bw_queue_poll(q, 5000, &m));
        assert_int_equal(number_of(&m), i);
        assert_ok(bw_queue_ack_sync(q, &m, 5000));
    }
    assert_err(bw_queue_poll(q, 100, &m), BW_ERR_TIMED_OUT);
    assert_ok(bw_queue_close(q));
    assert_ok(bw_producer_close(p, 5000));
    scene_close(&s);
}

static void test_queue_name_of_another_kind_of_group_is_refused(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    bw_queue_options o = options_of("g");
    bw_queue *q = open_queue(s.bus, &o);
    bw_consumer *c = NULL;
    bw_consumer_options co = BW_CONSUMER_OPTIONS_INIT;
    bw_batch b;
    co.group_id = "g";
    assert_ok(bw_consumer_open(s.bus, &co, &c));
    bw_err e = bw_consumer_subscribe(c, jobs, 1);
    if (!e) e = bw_consumer_poll(c, 5000, &b);
    assert_int_equal(e, BW_ERR_INCONSISTENT_GROUP_PROTOCOL);
    bw_consumer_close(c);
    assert_ok(bw_queue_close(q));
    scene_close(&s);
}

static void test_queue_bad_input_is_answered_with_names(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    bw_queue *q = NULL;
    bw_queue_options o = options_of("");
    assert_err(bw_queue_open(s.bus, &o, &q), BW_ERR_INVALID_GROUP_ID);
    o = options_of("a\nb");
    assert_err(bw_queue_open(s.bus, &o, &q), BW_ERR_INVALID_GROUP_ID);
    static const char *const nowhere[] = {"nowhere"};
    o = options_of("g");
    o.topics = nowhere;
    assert_err(bw_queue_open(s.bus, &o, &q), BW_ERR_UNKNOWN_TOPIC);
    o = options_of("g");
    o.lease_ms = 1;
    assert_err(bw_queue_open(s.bus, &o, &q), BW_ERR_INVALID_ARGUMENT);
    char *json = NULL;
    assert_err(bw_queue_describe(s.bus, "g", &json), BW_ERR_GROUP_ID_NOT_FOUND);
    o = options_of("g");
    q = open_queue(s.bus, &o);
    assert_err(bw_queue_peek(s.bus, "g", "jobs", 9, 10, &json), BW_ERR_UNKNOWN_PARTITION);
    assert_err(bw_queue_delete(s.bus, "g"), BW_ERR_NON_EMPTY_GROUP);
    assert_ok(bw_queue_close(q));
    assert_ok(bw_queue_delete(s.bus, "g"));
    assert_err(bw_queue_delete(s.bus, "g"), BW_ERR_GROUP_ID_NOT_FOUND);
    scene_close(&s);
}

static void test_queue_by_hand_peek_and_settle(void **state)
{
    (void)state;
    scene s;
    scene_open(&s, 1);
    send_numbers(s.bus, 0, 0, 10);
    bw_queue_options o = options_of("g");
    bw_queue *q = open_queue(s.bus, &o);
    bw_message m;
    assert_ok(bw_queue_poll(q, 0, &m)); /* what is there needs no waiting */
    char *json = NULL;
    assert_ok(bw_queue_peek(s.bus, "g", "jobs", 0, 3, &json));
    assert_non_null(strstr(json, "\"acquired\""));
    bw_free(json);
    int64_t settled;
    assert_ok(bw_queue_settle(s.bus, "g", "jobs", 0, 0, 400000, BW_QUEUE_DONE, &settled));
    assert_int_equal(settled, 10);
    assert_int_equal(described(s.bus, "g", "start_offset"), 10);
    assert_ok(bw_queue_close(q));
    scene_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue_records_are_shared_and_acknowledged_once),
        cmocka_unit_test(test_queue_released_record_comes_again_and_counts),
        cmocka_unit_test(test_queue_worker_that_waits_is_woken_by_an_append),
        cmocka_unit_test(test_queue_lease_that_ends_gives_the_record_to_another),
        cmocka_unit_test(test_queue_worn_out_and_rejected_records_go_to_the_dead_letter_topic),
        cmocka_unit_test(test_queue_acknowledged_is_forgotten_never_over_restarts),
        cmocka_unit_test(test_queue_delayed_record_is_never_early_and_survives_a_restart),
        cmocka_unit_test(test_queue_many_delayed_records_come_once_each),
        cmocka_unit_test(test_queue_deleted_group_leaves_nothing),
        cmocka_unit_test(test_queue_committed_group_sees_no_open_and_no_aborted_transaction),
        cmocka_unit_test(test_queue_name_of_another_kind_of_group_is_refused),
        cmocka_unit_test(test_queue_bad_input_is_answered_with_names),
        cmocka_unit_test(test_queue_by_hand_peek_and_settle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
