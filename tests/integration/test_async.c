/* Asynchronous producing on both transports ($BUSWAY_TEST_TRANSPORT): callbacks, batching, memory, time-outs, closing. */
#include "support/one_bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct outcome { int calls; bw_err error; int64_t offset; int32_t partition; pthread_t thread; } outcome;

static void delivered(void *opaque, const bw_delivery *d)
{
    outcome *o = opaque;
    o->calls++;
    o->error = d->error;
    o->offset = d->offset;
    o->partition = d->partition;
    o->thread = pthread_self();
}

static void test_every_record_gets_its_callback_once_in_order(void **state)
{
    (void)state;
    enum { N = 20000 };
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    outcome *outcomes = calloc(N, sizeof *outcomes);
    int ran = 0;
    for (int i = 0; i < N; i++) {
        char text[32];
        snprintf(text, sizeof text, "%d", i);
        bw_record r = test_record("k", text);
        assert_ok(bw_producer_send(p, "async", 0, &r, delivered, &outcomes[i], 5000));
        if (i % 100 == 0) ran += bw_producer_poll(p, 0);
        assert_true(ran <= i + 1);
    }
    assert_ok(bw_producer_flush(p, 20000));
    assert_int_equal(bw_producer_poll(p, 0), 0);
    for (int i = 0; i < N; i++) {
        assert_int_equal(outcomes[i].calls, 1);
        assert_int_equal(outcomes[i].error, BW_OK);
        assert_int_equal(outcomes[i].offset, i);
        assert_true(pthread_equal(outcomes[i].thread, pthread_self()));
    }
    bw_consumer *c = test_consumer(bus, "async", 0, 0);
    int64_t next = 0;
    bw_batch b;
    while (next < N) {
        assert_ok(bw_consumer_poll(c, 2000, &b));
        bw_record_view v;
        while (bw_batch_next(&b, &v) == 1) {
            char text[32];
            snprintf(text, sizeof text, "%d", (int)next);
            assert_int_equal(v.offset, next++);
            assert_memory_equal(v.value, text, v.value_len);
        }
    }
    bw_consumer_close(c);
    assert_ok(bw_producer_close(p, 1000));
    free(outcomes);
}

static void test_linger_gathers_records_into_batches(void **state)
{
    (void)state;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.linger_ms = 150;
    bw_producer *p;
    assert_ok(bw_producer_open(bus, &o, &p));
    bw_record r = test_record(NULL, "gathered");
    outcome out = {0};
    int64_t begun = now_ms();
    for (int i = 0; i < 50; i++) assert_ok(bw_producer_send(p, "linger", 0, &r, delivered, &out, 1000));
    while (out.calls < 50 && now_ms() - begun < 3000) bw_producer_poll(p, 100);
    assert_int_equal(out.calls, 50);
    assert_in_range(now_ms() - begun, 140, 1000);
    bw_consumer *c = test_consumer(bus, "linger", 0, 0);
    bw_batch b;
    assert_ok(bw_consumer_poll(c, 1000, &b));
    assert_int_equal(b.count, 50);
    bw_consumer_close(c);
    begun = now_ms();
    assert_ok(bw_producer_send(p, "linger", 0, &r, delivered, &out, 1000));
    assert_ok(bw_producer_flush(p, 5000)); /* does not linger */
    assert_true(now_ms() - begun < 100);
    assert_ok(bw_producer_close(p, 1000));
}

static void test_batch_size_bounds_batches(void **state)
{
    (void)state;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.linger_ms = 1000;
    o.batch_size = 2000;
    o.compression = BW_CODEC_LZ4;
    bw_producer *p;
    assert_ok(bw_producer_open(bus, &o, &p));
    static char value[400];
    memset(value, 'x', sizeof value - 1);
    bw_record r = test_record(NULL, value);
    for (int i = 0; i < 40; i++) assert_ok(bw_producer_send(p, "sized", 0, &r, NULL, NULL, 1000));
    assert_ok(bw_producer_flush(p, 5000));
    bw_consumer *c = test_consumer(bus, "sized", 0, 0);
    int n = 0;
    bw_batch b;
    while (n < 40) {
        assert_ok(bw_consumer_poll(c, 1000, &b));
        assert_in_range(b.count, 1, 5);
        n += b.count;
    }
    bw_consumer_close(c);
    assert_ok(bw_producer_close(p, 1000));
}

static void test_keyless_records_stick_and_move_on(void **state)
{
    (void)state;
    assert_ok(bw_topic_create(bus, "sticky", 4, NULL, 0));
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.linger_ms = 50;
    o.batch_size = 1000;
    bw_producer *p;
    assert_ok(bw_producer_open(bus, &o, &p));
    int per[4] = {0};
    static outcome outs[400];
    memset(outs, 0, sizeof outs);
    bw_record r = test_record(NULL, "0123456789012345678901234567890123456789");
    for (int i = 0; i < 400; i++) assert_ok(bw_producer_send(p, "sticky", BW_PARTITION_ANY, &r, delivered, &outs[i], 1000));
    assert_ok(bw_producer_flush(p, 5000));
    for (int i = 0; i < 400; i++) {
        assert_int_equal(outs[i].error, BW_OK);
        per[outs[i].partition]++;
    }
    int changes = 0;
    for (int i = 1; i < 400; i++) changes += outs[i].partition != outs[i - 1].partition;
    for (int i = 0; i < 4; i++) assert_true(per[i] > 40);
    assert_true(changes < 60); /* by batches, not record by record */
    assert_ok(bw_producer_close(p, 1000));
}

static void test_full_memory_waits_or_says_so(void **state)
{
    (void)state;
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.linger_ms = 60000;
    o.buffer_memory = 20000;
    o.batch_size = 1000000;
    bw_producer *p;
    assert_ok(bw_producer_open(bus, &o, &p));
    static char value[1000];
    memset(value, 'x', sizeof value - 1);
    bw_record r = test_record(NULL, value);
    int sent = 0;
    bw_err e;
    while ((e = bw_producer_send(p, "memory", 0, &r, NULL, NULL, 0)) == BW_OK) sent++;
    assert_err(e, BW_ERR_QUEUE_FULL);
    assert_true(bw_err_is_retriable(e));
    assert_in_range(sent, 15, 20);
    assert_ok(bw_producer_send(p, "memory", 0, &r, NULL, NULL, 5000)); /* waiting sends what lingers */
    static char huge[30000];
    memset(huge, 'x', sizeof huge - 1);
    bw_record too_big = test_record(NULL, huge);
    assert_err(bw_producer_send(p, "memory", 0, &too_big, NULL, NULL, 1000), BW_ERR_RECORD_TOO_LARGE);
    assert_ok(bw_producer_flush(p, 5000));
    /* Outcomes that nobody fetches hold memory too, and say so instead of waiting for ever. */
    outcome out = {0};
    int64_t until = now_ms() + 10000;
    bw_record small = test_record(NULL, "x");
    while ((e = bw_producer_send(p, "memory", 0, &small, delivered, &out, -1)) == BW_OK && now_ms() < until) {}
    assert_err(e, BW_ERR_QUEUE_FULL);
    assert_non_null(strstr(bw_error_message(), "bw_producer_poll"));
    assert_true(bw_producer_poll(p, 0) > 0);
    assert_ok(bw_producer_send(p, "memory", 0, &small, delivered, &out, 1000));
    assert_ok(bw_producer_close(p, 5000));
}

static void test_unreachable_daemon_ends_in_timed_out(void **state)
{
    (void)state;
    if (test_is_direct()) return; /* direct appends go on without a daemon */
    test_daemon other;
    daemon_make(&other);
    daemon_start(&other);
    bw_bus *b = test_bus(other.url);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.delivery_timeout_ms = 300;
    bw_producer *p;
    assert_ok(bw_producer_open(b, &o, &p));
    test_send(p, "t", 0, "x");
    daemon_stop(&other, SIGKILL);
    bw_record r = test_record(NULL, "x");
    outcome out = {0};
    int64_t begun = now_ms();
    assert_ok(bw_producer_send(p, "t", 0, &r, delivered, &out, 0));
    while (out.calls == 0 && now_ms() - begun < 5000) bw_producer_poll(p, 100);
    assert_int_equal(out.calls, 1);
    assert_int_equal(out.error, BW_ERR_TIMED_OUT);
    assert_in_range(now_ms() - begun, 280, 2000);
    begun = now_ms();
    bw_err e = bw_producer_send_sync(p, "t", 0, &r, 200, NULL);
    assert_err(e, BW_ERR_TIMED_OUT);
    assert_in_range(now_ms() - begun, 180, 1000);
    outcome late = {0};
    assert_ok(bw_producer_send(p, "t", 0, &r, delivered, &late, 0));
    assert_err(bw_producer_close(p, 50), BW_ERR_TIMED_OUT); /* its callback comes before close returns */
    assert_int_equal(late.calls, 1);
    assert_int_equal(late.error, BW_ERR_TIMED_OUT);
    bw_bus_close(b);
    daemon_remove(&other);
}

static void test_durable_asynchronous_sends(void **state)
{
    (void)state;
    bw_producer *p = test_producer(bus, BW_ACKS_DURABLE);
    static outcome outs[200];
    memset(outs, 0, sizeof outs);
    bw_record r = test_record(NULL, "x");
    for (int i = 0; i < 200; i++) assert_ok(bw_producer_send(p, "async-durable", 0, &r, delivered, &outs[i], 1000));
    assert_ok(bw_producer_flush(p, 10000));
    bw_offset_range range;
    assert_ok(bw_offsets_range(bus, "async-durable", 0, &range));
    assert_int_equal(range.durable, 200);
    for (int i = 0; i < 200; i++) assert_int_equal(outs[i].offset, i);
    assert_ok(bw_producer_close(p, 1000));
}

typedef struct crew { bw_producer *p; int number; _Atomic int acked; } crew;

static void count_ack(void *opaque, const bw_delivery *d)
{
    crew *c = opaque;
    if (d->error == BW_OK) c->acked++;
}

static void *send_mixed(void *opaque)
{
    crew *c = opaque;
    for (int i = 0; i < 2000; i++) {
        char text[32];
        snprintf(text, sizeof text, "%d %d", c->number, i);
        bw_record r = test_record(NULL, text);
        if (i % 50 == 49) assert_ok(bw_producer_send_sync(c->p, "threads", c->number % 2, &r, 5000, NULL));
        else assert_ok(bw_producer_send(c->p, "threads", c->number % 2, &r, count_ack, c, 5000));
    }
    return NULL;
}

static void test_one_producer_from_many_threads(void **state)
{
    (void)state;
    enum { THREADS = 4 };
    assert_ok(bw_topic_create(bus, "threads", 2, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    crew crews[THREADS];
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        crews[i].p = p;
        crews[i].number = i;
        crews[i].acked = 0;
        pthread_create(&threads[i], NULL, send_mixed, &crews[i]);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    assert_ok(bw_producer_flush(p, 10000));
    for (int i = 0; i < THREADS; i++) assert_int_equal(crews[i].acked, 2000 - 40);
    bw_consumer *c = test_consumer(bus, "threads", BW_PARTITION_ANY, 0);
    int last[THREADS] = {-1, -1, -1, -1}, n = 0;
    bw_batch b;
    while (n < THREADS * 2000) {
        assert_ok(bw_consumer_poll(c, 3000, &b));
        bw_record_view v;
        while (bw_batch_next(&b, &v) == 1) {
            int who, what;
            char text[32] = "";
            memcpy(text, v.value, v.value_len);
            assert_int_equal(sscanf(text, "%d %d", &who, &what), 2);
            if (what % 50 != 49) { /* in order; synchronous ones may overtake what was not flushed */
                assert_true(what > last[who]);
                last[who] = what;
            }
            n++;
        }
    }
    assert_int_equal(n, THREADS * 2000);
    bw_consumer_close(c);
    assert_ok(bw_producer_close(p, 1000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_record_gets_its_callback_once_in_order),
        cmocka_unit_test(test_linger_gathers_records_into_batches),
        cmocka_unit_test(test_batch_size_bounds_batches),
        cmocka_unit_test(test_keyless_records_stick_and_move_on),
        cmocka_unit_test(test_full_memory_waits_or_says_so),
        cmocka_unit_test(test_unreachable_daemon_ends_in_timed_out),
        cmocka_unit_test(test_durable_asynchronous_sends),
        cmocka_unit_test(test_one_producer_from_many_threads),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
