/* kafka:// through the public API: producing, reading, transactions, what is refused. */
#include "kafka/cluster.h"

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
    bw_consumer *c = open_member_telling(name("txn-group"), NULL, NULL);
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

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_send_sync_is_read_back_whole),
        cmocka_unit_test(test_send_async_tells_each_outcome_once_and_the_descriptor_says_when),
        cmocka_unit_test(test_send_many_and_batches_place_by_key_as_busway_does),
        cmocka_unit_test(test_positions_follow_seeks_pauses_and_times),
        cmocka_unit_test(test_waiting_polls_are_woken_and_the_descriptor_is_readable_in_time),
        cmocka_unit_test(test_out_of_range_is_told_or_reset),
        cmocka_unit_test(test_transactions_are_seen_whole_or_not_at_all),
        cmocka_unit_test(test_what_a_cluster_cannot_do_is_unsupported_by_name),
        cmocka_unit_test(test_urls_are_refused_with_a_reason),
        cmocka_unit_test(test_unknown_topics_and_partitions_are_said_at_once),
        cmocka_unit_test(test_status_and_statistics),
    };
    RUN_TESTS(tests);
}
