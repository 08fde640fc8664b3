/* Producing on both transports ($BUSWAY_TEST_TRANSPORT): synchronous, batches, reserve, codecs, headers, errors, acks. */
#include "support/one_bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_send_sync_gives_dense_offsets_and_is_read_back(void **state)
{
    (void)state;
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < 100; i++) {
        char text[32];
        snprintf(text, sizeof text, "value %d", i);
        assert_int_equal(test_send(p, "sync", 0, text), i);
    }
    bw_consumer *c = test_consumer(bus, "sync", 0, BW_OFFSET_BEGINNING);
    int64_t next = 0;
    bw_batch b;
    while (next < 100) {
        assert_ok(bw_consumer_poll(c, 2000, &b));
        assert_string_equal(b.topic, "sync");
        bw_record_view v;
        while (bw_batch_next(&b, &v) == 1) {
            char text[32];
            snprintf(text, sizeof text, "value %d", (int)next);
            assert_int_equal(v.offset, next++);
            assert_int_equal(v.value_len, strlen(text));
            assert_memory_equal(v.value, text, v.value_len);
            assert_null(v.key);
        }
    }
    assert_err(bw_consumer_poll(c, 0, &b), BW_ERR_TIMED_OUT);
    bw_consumer_close(c);
    assert_ok(bw_producer_close(p, 1000));
}

static void test_transport_is_the_one_asked_for(void **state)
{
    (void)state;
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    test_send(p, "way", 0, "x");
    bw_consumer *c = test_consumer(bus, "way", 0, BW_OFFSET_BEGINNING);
    assert_int_equal(test_read(c, 1, 2000, NULL, NULL), 1);
    char *stats = bw_bus_stats(bus);
    assert_non_null(strstr(stats, test_is_direct() ? "\"transport\":\"direct\"" : "\"transport\":\"ipc\""));
    if (!test_is_direct()) assert_non_null(strstr(stats, "transport=ipc was asked for"));
    bw_free(stats);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
}

static void test_send_batch_is_one_batch(void **state)
{
    (void)state;
    enum { N = 500 };
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    static char texts[N][16];
    bw_record records[N];
    for (int i = 0; i < N; i++) {
        snprintf(texts[i], sizeof texts[i], "%d", i);
        records[i] = test_record("k", texts[i]);
        records[i].timestamp_ms = 1700000000000 + i;
    }
    bw_delivery d;
    assert_ok(bw_producer_send_batch(p, "batch", 0, records, N, 5000, &d));
    assert_int_equal(d.offset, 0);
    assert_int_equal(d.count, N);
    assert_int_equal(d.timestamp_ms, 1700000000000);
    assert_string_equal(d.topic, "batch");
    assert_err(bw_producer_send_batch(p, "batch", BW_PARTITION_ANY, records, 2, 5000, &d), BW_ERR_INVALID_ARGUMENT);
    assert_err(bw_producer_send_batch(p, "batch", 0, records, 0, 5000, &d), BW_ERR_INVALID_ARGUMENT);
    bw_consumer *c = test_consumer(bus, "batch", 0, 0);
    bw_batch b;
    assert_ok(bw_consumer_poll(c, 2000, &b));
    assert_int_equal(b.count, N);
    assert_int_equal(b.last_offset, N - 1);
    assert_int_equal(b.max_timestamp_ms, 1700000000000 + N - 1);
    bw_record_view v;
    for (int i = 0; i < N; i++) {
        assert_int_equal(bw_batch_next(&b, &v), 1);
        assert_int_equal(v.timestamp_ms, 1700000000000 + i);
        assert_int_equal(v.key_len, 1);
    }
    assert_int_equal(bw_batch_next(&b, &v), 0);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
}

static void test_null_and_empty_and_headers_are_kept_apart(void **state)
{
    (void)state;
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_header headers[3] = {{"a", 1, "1", 1}, {"null", 4, NULL, 0}, {"empty", 5, "", 0}};
    bw_record records[3] = {test_record(NULL, NULL), test_record("", ""), test_record("key", "value")};
    records[2].headers = headers;
    records[2].header_count = 3;
    assert_ok(bw_producer_send_batch(p, "nulls", 0, records, 3, 5000, NULL));
    bw_consumer *c = test_consumer(bus, "nulls", 0, 0);
    bw_batch b;
    bw_record_view v;
    assert_ok(bw_consumer_poll(c, 2000, &b));
    assert_int_equal(bw_batch_next(&b, &v), 1);
    assert_null(v.key);
    assert_null(v.value);
    assert_int_equal(v.header_count, 0);
    assert_int_equal(bw_batch_next(&b, &v), 1);
    assert_non_null(v.key);
    assert_non_null(v.value);
    assert_int_equal(v.key_len + v.value_len, 0);
    assert_int_equal(bw_batch_next(&b, &v), 1);
    assert_int_equal(v.header_count, 3);
    bw_header_iter it;
    bw_header h;
    bw_header_iter_init(&it, &v);
    assert_int_equal(bw_header_iter_next(&it, &h), 1);
    assert_memory_equal(h.value, "1", 1);
    assert_int_equal(bw_header_iter_next(&it, &h), 1);
    assert_null(h.value);
    assert_int_equal(bw_header_iter_next(&it, &h), 1);
    assert_non_null(h.value);
    assert_int_equal(h.value_len, 0);
    assert_int_equal(bw_header_iter_next(&it, &h), 0);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
}

static void test_every_codec_round_trips(void **state)
{
    (void)state;
    for (int codec = BW_CODEC_NONE; codec <= BW_CODEC_ZSTD; codec++) {
        enum { N = 200 };
        char topic[32];
        snprintf(topic, sizeof topic, "codec-%d", codec);
        bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
        o.compression = (bw_codec)codec;
        bw_producer *p;
        assert_ok(bw_producer_open(bus, &o, &p));
        static char texts[N][64];
        bw_record records[N];
        for (int i = 0; i < N; i++) {
            snprintf(texts[i], sizeof texts[i], "the same words again and again, number %d", i);
            records[i] = test_record("key", texts[i]);
        }
        for (int round = 0; round < 3; round++) assert_ok(bw_producer_send_batch(p, topic, 0, records, N, 5000, NULL));
        bw_consumer *c = test_consumer(bus, topic, 0, 150); /* in the middle of the first batch */
        int64_t next = 150;
        while (next < 3 * N) {
            bw_batch b;
            bw_record_view v;
            int r;
            assert_ok(bw_consumer_poll(c, 2000, &b));
            while ((r = bw_batch_next(&b, &v)) == 1) {
                assert_int_equal(v.offset, next);
                assert_int_equal(v.value_len, strlen(texts[next % N]));
                assert_memory_equal(v.value, texts[next % N], v.value_len);
                next++;
            }
            assert_int_equal(r, 0);
        }
        bw_consumer_close(c);
        bw_producer_close(p, 1000);
    }
}

static void test_key_decides_the_partition(void **state)
{
    (void)state;
    assert_ok(bw_topic_create(bus, "keys", 8, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    int32_t first = -1;
    for (int i = 0; i < 5; i++) {
        bw_record r = test_record("some key", "v");
        bw_delivery d;
        assert_ok(bw_producer_send_sync(p, "keys", BW_PARTITION_ANY, &r, 5000, &d));
        if (first < 0) first = d.partition;
        assert_int_equal(d.partition, first);
    }
    bool seen[8] = {false};
    for (int i = 0; i < 64; i++) {
        char key[16];
        snprintf(key, sizeof key, "key-%d", i);
        bw_record r = test_record(key, "v");
        bw_delivery d;
        assert_ok(bw_producer_send_sync(p, "keys", BW_PARTITION_ANY, &r, 5000, &d));
        seen[d.partition] = true;
    }
    for (int i = 0; i < 8; i++) assert_true(seen[i]);
    bw_record r = test_record(NULL, "v");
    bw_delivery d;
    assert_err(bw_producer_send_sync(p, "keys", 8, &r, 5000, &d), BW_ERR_UNKNOWN_PARTITION);
    assert_int_equal(d.error, BW_ERR_UNKNOWN_PARTITION);
    assert_non_null(strstr(d.message, "8"));
    bw_producer_close(p, 1000);
}

static void test_partitions_added_later_are_found(void **state)
{
    (void)state;
    assert_ok(bw_topic_create(bus, "grow", 1, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    assert_int_equal(test_send(p, "grow", 0, "a"), 0);
    assert_ok(bw_topic_alter(bus, "grow", 3, NULL, 0));
    assert_int_equal(test_send(p, "grow", 2, "b"), 0);
    assert_int_equal(test_send(p, "grow", 0, "c"), 1);
    int32_t n = 0;
    assert_ok(bw_topic_partitions(bus, "grow", &n));
    assert_int_equal(n, 3);
    bw_producer_close(p, 1000);
}

static void test_configuration_change_is_followed(void **state)
{
    (void)state;
    bw_config_entry small[] = {{"max.message.bytes", "2000"}};
    assert_ok(bw_topic_create(bus, "limits", 1, small, 1));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    static char big[4000];
    memset(big, 'x', sizeof big - 1);
    bw_record r = test_record(NULL, big);
    assert_err(bw_producer_send_sync(p, "limits", 0, &r, 5000, NULL), BW_ERR_RECORD_TOO_LARGE);
    assert_non_null(strstr(bw_error_message(), "2000"));
    assert_err(bw_producer_send(p, "limits", 0, &r, NULL, NULL, 0), BW_ERR_RECORD_TOO_LARGE);
    bw_config_entry large[] = {{"max.message.bytes", "100000"}};
    assert_ok(bw_topic_alter(bus, "limits", 0, large, 1));
    assert_ok(bw_producer_send_sync(p, "limits", 0, &r, 5000, NULL));
    bw_config_entry append_time[] = {{"message.timestamp.type", "LogAppendTime"}};
    assert_ok(bw_topic_alter(bus, "limits", 0, append_time, 1));
    r = test_record(NULL, "x");
    r.timestamp_ms = 1000;
    bw_delivery d = {0};
    for (int i = 0; i < 20 && d.timestamp_ms <= 1000; i++) assert_ok(bw_producer_send_sync(p, "limits", 0, &r, 5000, &d));
    assert_true(d.timestamp_ms > 1600000000000);
    bw_producer_close(p, 1000);
}

static void test_bad_topics_are_refused(void **state)
{
    (void)state;
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_record r = test_record(NULL, "x");
    assert_err(bw_producer_send_sync(p, "no spaces", 0, &r, 2000, NULL), BW_ERR_INVALID_TOPIC);
    assert_err(bw_producer_send_sync(p, "..", 0, &r, 2000, NULL), BW_ERR_INVALID_TOPIC);
    assert_err(bw_producer_send(p, "", 0, &r, NULL, NULL, 0), BW_ERR_INVALID_TOPIC);
    assert_err(bw_producer_send_sync(p, NULL, 0, &r, 2000, NULL), BW_ERR_INVALID_ARGUMENT);
    assert_err(bw_producer_send_sync(p, "t", 0, NULL, 2000, NULL), BW_ERR_INVALID_ARGUMENT);
    bw_consumer *c;
    assert_ok(bw_consumer_open(bus, NULL, &c));
    assert_err(bw_consumer_assign(c, "never-made", 0, 0), BW_ERR_UNKNOWN_TOPIC);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
}

static void test_reserve_commit_and_abort(void **state)
{
    (void)state;
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_header header = {"h", 1, "1", 1};
    bw_record meta = test_record("key", NULL);
    meta.headers = &header;
    meta.header_count = 1;
    for (int i = 0; i < 10; i++) {
        bw_reservation r;
        assert_ok(bw_producer_reserve(p, "reserve", 0, &meta, 1000, 2000, &r));
        assert_int_equal(r.value_max, 1000);
        memset(r.value, 'a' + i, 1000);
        bw_delivery d;
        if (i % 2) {
            bw_producer_abort(p, &r);
        } else {
            assert_ok(bw_producer_commit(p, &r, (size_t)i * 100, 2000, &d));
            assert_int_equal(d.offset, i / 2);
        }
        assert_null(r.internal);
    }
    test_send(p, "reserve", 0, "after");
    bw_consumer *c = test_consumer(bus, "reserve", 0, 0);
    int i = 0;
    while (i < 6) {
        bw_batch b;
        bw_record_view v;
        assert_ok(bw_consumer_poll(c, 2000, &b));
        while (bw_batch_next(&b, &v) == 1) {
            if (i < 5) {
                assert_int_equal(v.value_len, i * 200);
                assert_int_equal(v.key_len, 3);
                assert_int_equal(v.header_count, 1);
                for (uint32_t k = 0; k < v.value_len; k++) assert_int_equal(v.value[k], 'a' + 2 * i);
            }
            i++;
        }
    }
    bw_consumer_close(c);
    bw_reservation r;
    assert_err(bw_producer_reserve(p, "reserve", 0, NULL, 200u << 20, 1000, &r), BW_ERR_RECORD_TOO_LARGE);
    bw_producer_close(p, 1000);
}

static void test_reservation_makes_others_time_out_with_the_holder(void **state)
{
    (void)state;
    if (!test_is_direct()) return; /* through the socket a reservation is a buffer: nobody waits */
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_bus *second = test_bus(the_daemon.url);
    bw_producer *q = test_producer(second, BW_ACKS_VISIBLE);
    test_send(q, "held", 0, "before");
    bw_reservation r;
    assert_ok(bw_producer_reserve(p, "held", 0, NULL, 100, 2000, &r));
    bw_record record = test_record(NULL, "x");
    pid_t child = fork(); /* another process, since the lock knows its thread */
    if (child == 0) {
        bw_bus *own = NULL;
        bw_producer *mine = NULL;
        bw_bus_options o = BW_BUS_OPTIONS_INIT;
        o.transport = BW_TRANSPORT_DIRECT;
        if (bw_bus_open(the_daemon.url, &o, &own) || bw_producer_open(own, NULL, &mine)) _exit(2);
        int64_t begun = now_ms();
        bw_err e = bw_producer_send_sync(mine, "held", 0, &record, 300, NULL);
        int64_t took = now_ms() - begun;
        char pid[16];
        snprintf(pid, sizeof pid, "%d", (int)getppid());
        bool good = e == BW_ERR_LOCK_HELD && strstr(bw_error_message(), pid) && took >= 280 && took < 1000;
        if (!good) fprintf(stderr, "%s after %lld ms: %s\n", bw_err_name(e), (long long)took, bw_error_message());
        _exit(good ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    r.value[0] = 'v';
    bw_delivery d;
    assert_ok(bw_producer_commit(p, &r, 1, 1000, &d));
    assert_int_equal(d.offset, 1);
    assert_int_equal(test_send(q, "held", 0, "after"), 2);
    bw_producer_close(q, 1000);
    bw_bus_close(second);
    bw_producer_close(p, 1000);
}

/* Two threads on one producer and partition, now in turns of some length, now at once. */
enum { SENDERS = 2, SENDS = 6000, TURN = 97 };
typedef struct sender {
    bw_producer *p;
    uint32_t number;
    const char *topic;
    int64_t last;
    int failed;
} sender;

static void *send_many(void *arg)
{
    sender *s = arg;
    s->last = -1;
    for (uint32_t i = 0; i < SENDS; i++) {
        uint32_t value[2] = {s->number, i};
        bw_record r = {.value = value, .value_len = sizeof value, .timestamp_ms = BW_NO_TIMESTAMP};
        bw_delivery d;
        bw_err e = bw_producer_send_sync(s->p, s->topic, 0, &r, 10000, &d);
        if (e || d.offset <= s->last) s->failed++;
        s->last = d.offset;
        if (i % TURN == TURN - 1 && i / TURN % 3 == s->number) usleep(500); /* the other one has it for itself for a while */
    }
    return NULL;
}

typedef struct order { uint32_t next[SENDERS]; int wrong; } order;
static void check_order(void *opaque, const bw_batch *batch, const bw_record_view *record)
{
    (void)batch;
    order *o = opaque;
    uint32_t value[2] = {SENDERS, 0};
    if (record->value_len == sizeof value) memcpy(value, record->value, sizeof value);
    if (value[0] >= SENDERS || o->next[value[0]]++ != value[1]) o->wrong++;
}

static void test_producer_shared_by_threads_keeps_each_ones_order(void **state)
{
    (void)state;
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    sender s[SENDERS];
    pthread_t threads[SENDERS];
    for (uint32_t i = 0; i < SENDERS; i++) {
        s[i] = (sender){.p = p, .number = i, .topic = "threads"};
        assert_int_equal(pthread_create(&threads[i], NULL, send_many, &s[i]), 0);
    }
    for (uint32_t i = 0; i < SENDERS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(s[i].failed, 0);
    }
    order o = {.wrong = 0};
    bw_consumer *c = test_consumer(bus, "threads", 0, 0);
    assert_int_equal(test_read(c, SENDERS * SENDS, 10000, check_order, &o), SENDERS * SENDS);
    assert_int_equal(o.wrong, 0);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
}

typedef struct late { bw_producer *p; bw_err first, second; char message[256]; atomic_int step; } late;
static void *send_late(void *arg)
{
    late *l = arg;
    bw_record r = test_record(NULL, "late");
    l->first = bw_producer_send_sync(l->p, "seat", 0, &r, 100, NULL);
    snprintf(l->message, sizeof l->message, "%s", bw_error_message());
    atomic_store(&l->step, 1);
    l->second = bw_producer_send_sync(l->p, "seat", 0, &r, 10000, NULL);
    return NULL;
}

static void test_reservation_of_a_seated_thread_holds_up_the_others_and_itself(void **state)
{
    (void)state;
    if (!test_is_direct()) return;
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    int64_t next = 0;
    while (next < 100) assert_int_equal(test_send(p, "seat", 0, "x"), next++);
    bw_reservation r;
    assert_ok(bw_producer_reserve(p, "seat", 0, NULL, 100, 2000, &r));
    bw_record record = test_record(NULL, "mine");
    int64_t begun = now_ms();
    assert_err(bw_producer_send_sync(p, "seat", 0, &record, 5000, NULL), BW_ERR_BUSY);
    assert_true(now_ms() - begun < 2000); /* at once: waiting would not help */
    assert_non_null(strstr(bw_error_message(), "this thread holds a reservation"));
    bw_reservation again;
    assert_err(bw_producer_reserve(p, "seat", 0, NULL, 100, 100, &again), BW_ERR_BUSY);
    late l = {.p = p};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, send_late, &l), 0);
    while (!atomic_load(&l.step)) usleep(1000);
    assert_int_equal(l.first, BW_ERR_LOCK_HELD);
    assert_non_null(strstr(l.message, "another thread"));
    r.value[0] = 'v';
    bw_delivery d;
    assert_ok(bw_producer_commit(p, &r, 1, 1000, &d));
    assert_int_equal(d.offset, next++);
    pthread_join(thread, NULL);
    assert_int_equal(l.second, BW_OK);
    next++;
    assert_int_equal(test_send(p, "seat", 0, "after"), next++);
    bw_consumer *c = test_consumer(bus, "seat", 0, 0);
    assert_int_equal(test_read(c, (size_t)next, 5000, NULL, NULL), next);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
}

static void test_durable_acknowledgement_means_durable(void **state)
{
    (void)state;
    bw_producer *p = test_producer(bus, BW_ACKS_DURABLE);
    for (int i = 0; i < 5; i++) {
        int64_t offset = test_send(p, "durable", 0, "x");
        bw_offset_range range;
        assert_ok(bw_offsets_range(bus, "durable", 0, &range));
        assert_true(range.durable > offset);
    }
    bw_reservation r;
    assert_ok(bw_producer_reserve(p, "durable", 0, NULL, 10, 1000, &r));
    bw_delivery d;
    assert_ok(bw_producer_commit(p, &r, 10, 5000, &d));
    assert_int_equal(d.offset, 5);
    bw_producer_close(p, 1000);
}

static void test_acks_none_hands_over_everything(void **state)
{
    (void)state;
    bw_bus *other = test_bus(the_daemon.url);
    bw_producer *p = test_producer(other, BW_ACKS_NONE);
    bw_record r = test_record(NULL, "handed over");
    bw_delivery d;
    for (int i = 0; i < 2000; i++) {
        assert_ok(bw_producer_send_sync(p, "none", 0, &r, 5000, &d));
        assert_int_equal(d.offset, -1);
    }
    assert_ok(bw_producer_close(p, 5000));
    bw_bus_close(other);
    bw_consumer *c = test_consumer(bus, "none", 0, 0);
    assert_int_equal(test_read(c, 2000, 5000, NULL, NULL), 2000);
    bw_consumer_close(c);
}

static void test_wrong_options_are_refused(void **state)
{
    (void)state;
    bw_producer *p;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.size = 0;
    assert_err(bw_producer_open(bus, &o, &p), BW_ERR_INVALID_ARGUMENT);
    o = (bw_producer_options)BW_PRODUCER_OPTIONS_INIT;
    o.compression = (bw_codec)9;
    assert_err(bw_producer_open(bus, &o, &p), BW_ERR_UNKNOWN_CODEC);
    o = (bw_producer_options)BW_PRODUCER_OPTIONS_INIT;
    o.size = offsetof(bw_producer_options, batch_size); /* an older program: only acks */
    o.batch_size = 0;
    assert_ok(bw_producer_open(bus, &o, &p));
    bw_producer_close(p, 0);
    bw_bus *b;
    assert_err(bw_bus_open("gopher://x:1", NULL, &b), BW_ERR_INVALID_ARGUMENT);
    assert_err(bw_bus_open("/tmp/x", NULL, &b), BW_ERR_INVALID_ARGUMENT);
    assert_err(bw_bus_open("ipc:///nowhere/bus.sock", NULL, &b), BW_ERR_NO_COORDINATOR);
    assert_non_null(strstr(bw_error_message(), "/nowhere/bus.sock"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_send_sync_gives_dense_offsets_and_is_read_back),
        cmocka_unit_test(test_transport_is_the_one_asked_for),
        cmocka_unit_test(test_send_batch_is_one_batch),
        cmocka_unit_test(test_null_and_empty_and_headers_are_kept_apart),
        cmocka_unit_test(test_every_codec_round_trips),
        cmocka_unit_test(test_key_decides_the_partition),
        cmocka_unit_test(test_partitions_added_later_are_found),
        cmocka_unit_test(test_configuration_change_is_followed),
        cmocka_unit_test(test_bad_topics_are_refused),
        cmocka_unit_test(test_reserve_commit_and_abort),
        cmocka_unit_test(test_reservation_makes_others_time_out_with_the_holder),
        cmocka_unit_test(test_producer_shared_by_threads_keeps_each_ones_order),
        cmocka_unit_test(test_reservation_of_a_seated_thread_holds_up_the_others_and_itself),
        cmocka_unit_test(test_durable_acknowledgement_means_durable),
        cmocka_unit_test(test_acks_none_hands_over_everything),
        cmocka_unit_test(test_wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
