/* FETCH and SUBSCRIBE: long poll, bounds, watermarks, credit and backlog. */
#include "fixture.h"

static void fill(fixture *fx, fake *f, const char *topic, int batches, int records, size_t value_bytes)
{
    batch_spec s = BATCH_SPEC;
    s.count = records;
    s.value_bytes = value_bytes;
    for (int i = 0; i < batches; i++) assert_int_equal(produce(fx, f, topic, 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
}

static void test_fetch_reads_everything_over_many_segments(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 1, "segment.bytes", "4096"), BW_OK);
    fill(fx, &f, "t", 100, 3, 200);
    int64_t next = 0;
    int total = 0;
    while (total < 300) {
        bw_request r = rq_fetch("t", 0, next, 0);
        answer a;
        assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
        assert_int_equal(a.a.parts[0].error, BW_OK);
        assert_int_equal(a.a.parts[0].end, 300);
        int n = count_records(a.a.payload, a.a.payload_len, &next);
        assert_true(n > 0);
        total += n;
        answer_free(&a);
    }
    assert_int_equal(next, 300);
    fake_close(fx, &f);
}

static void test_fetch_at_the_end_waits_for_max_wait(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    fill(fx, &f, "t", 1, 1, 10);
    int64_t began = bw_clock_mono_ms();
    bw_request r = rq_fetch("t", 0, 1, 100);
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_in_range(bw_clock_mono_ms() - began, 95, 2000);
    assert_int_equal(a.a.payload_len, 0);
    assert_int_equal(a.a.parts[0].error, BW_OK);
    answer_free(&a);
    fake_close(fx, &f);
}

static void test_fetch_waiting_is_answered_when_data_comes(void **state)
{
    fixture *fx = *state;
    fake reader, writer;
    fake_open(fx, &reader);
    fake_open(fx, &writer);
    fill(fx, &writer, "t", 1, 1, 10);
    bw_request r = rq_fetch("t", 0, 1, 30000);
    fake_send(fx, &reader, &r);
    answer a;
    assert_false(fake_next(&reader, 50, &a));
    int64_t began = bw_clock_mono_ms();
    fill(fx, &writer, "t", 1, 1, 10);
    assert_true(fake_next(&reader, WAIT_MS, &a));
    assert_true(bw_clock_mono_ms() - began < 500); /* by a wake, not by the audit */
    int64_t next = 1;
    assert_int_equal(count_records(a.a.payload, a.a.payload_len, &next), 1);
    answer_free(&a);
    fake_close(fx, &reader);
    fake_close(fx, &writer);
}

static void test_fetch_min_bytes_waits_for_enough(void **state)
{
    fixture *fx = *state;
    fake reader, writer;
    fake_open(fx, &reader);
    fake_open(fx, &writer);
    fill(fx, &writer, "t", 1, 1, 1000);
    bw_request r = rq_fetch("t", 0, 0, 30000);
    r.min_bytes = 3000;
    fake_send(fx, &reader, &r);
    answer a;
    fill(fx, &writer, "t", 1, 1, 1000);
    assert_false(fake_next(&reader, 50, &a));
    fill(fx, &writer, "t", 1, 1, 1000);
    assert_true(fake_next(&reader, WAIT_MS, &a));
    assert_true(a.a.payload_len >= 3000);
    answer_free(&a);
    fake_close(fx, &reader);
    fake_close(fx, &writer);
}

static void test_fetch_outside_the_log_names_the_range(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    fill(fx, &f, "t", 5, 1, 10);
    static const int64_t bad[] = {6, 1000000, -7};
    for (size_t i = 0; i < 3; i++) {
        bw_request r = rq_fetch("t", 0, bad[i], 30000);
        answer a;
        assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
        assert_int_equal(a.a.parts[0].error, BW_ERR_OFFSET_OUT_OF_RANGE);
        assert_true(a.a.parts[0].message.len > 0);
        assert_int_equal(a.a.parts[0].log_start, 0);
        assert_int_equal(a.a.parts[0].end, 5);
        answer_free(&a);
    }
    bw_request r = rq_fetch("nosuch", 0, 0, 30000);
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(a.a.parts[0].error, BW_ERR_UNKNOWN_TOPIC);
    answer_free(&a);
    fake_close(fx, &f);
}

static void test_fetch_gives_one_batch_larger_than_max_bytes(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    fill(fx, &f, "t", 3, 1, 5000);
    bw_request r = rq_fetch("t", 0, 0, 0);
    r.max_bytes = 100;
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    int64_t next = 0;
    assert_int_equal(count_records(a.a.payload, a.a.payload_len, &next), 1);
    answer_free(&a);
    r = rq_fetch("t", 0, 0, 0);
    r.max_bytes = 11000;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    next = 0;
    assert_int_equal(count_records(a.a.payload, a.a.payload_len, &next), 2);
    answer_free(&a);
    fake_close(fx, &f);
}

static void test_fetch_durable_never_passes_the_watermark(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    fill(fx, &f, "t", 20, 1, 10);
    int64_t next = 0;
    while (next < 20) {
        bw_request r = rq_fetch("t", 0, next, 5000); /* the background sync brings it */
        r.read_limit = BW_READ_DURABLE;
        answer a;
        assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
        assert_int_equal(a.a.parts[0].error, BW_OK);
        count_records(a.a.payload, a.a.payload_len, &next);
        assert_true(next <= a.a.parts[0].durable);
        answer_free(&a);
    }
    fake_close(fx, &f);
}

/* ---- subscriptions ---- */

static bw_request rq_subscribe(const char *topic, uint32_t id, int64_t offset, uint64_t credit)
{
    bw_request r = rq(BW_API_SUBSCRIBE, topic);
    r.subscription = id;
    r.offset = offset;
    r.credit = credit;
    return r;
}

static void subscribe(fixture *fx, fake *f, const char *topic, uint32_t id, int64_t offset, uint64_t credit)
{
    bw_request r = rq_subscribe(topic, id, offset, credit);
    answer a;
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    answer_free(&a);
}

static void give_credit(fixture *fx, fake *f, uint32_t id, uint64_t credit)
{
    bw_request r = rq(BW_API_CREDIT, NULL);
    r.subscription = id;
    r.credit = credit;
    fake_send(fx, f, &r);
}

static void test_subscribe_pushes_within_credit(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    fill(fx, &f, "t", 10, 1, 1000);
    subscribe(fx, &f, "t", 7, 0, 2500);
    int64_t next = 0;
    size_t pushed = 0;
    answer a;
    while (fake_next(&f, 100, &a)) {
        assert_int_equal(a.a.type, BW_API_DATA);
        assert_int_equal(a.a.subscription, 7);
        pushed += a.a.payload_len;
        count_records(a.a.payload, a.a.payload_len, &next);
        answer_free(&a);
    }
    assert_int_equal(next, 3); /* two fit, the third begins within the credit */
    assert_true(pushed < 2500 + 1100);
    give_credit(fx, &f, 7, 1 << 20);
    while (next < 10) {
        assert_true(fake_next(&f, WAIT_MS, &a));
        count_records(a.a.payload, a.a.payload_len, &next);
        answer_free(&a);
    }
    fake writer;
    fake_open(fx, &writer);
    int64_t began = bw_clock_mono_ms();
    fill(fx, &writer, "t", 1, 1, 10);
    assert_true(fake_next(&f, WAIT_MS, &a)); /* what comes later is pushed as it comes */
    assert_true(bw_clock_mono_ms() - began < 800);
    assert_int_equal(a.a.offset, 10);
    answer_free(&a);
    fake_close(fx, &writer);
    fake_close(fx, &f);
}

static void test_subscribe_stops_at_a_full_backlog_and_goes_on_when_writable(void **state)
{
    fixture *fx = *state;
    fake f, writer;
    fake_open(fx, &f);
    fake_open(fx, &writer);
    fill(fx, &writer, "t", 20, 1, 1000);
    f.backlog = 64 << 20; /* nobody reads at the other end */
    subscribe(fx, &f, "t", 1, 0, 1 << 30);
    answer a;
    assert_false(fake_next(&f, 100, &a));
    pthread_mutex_lock(&f.lock);
    f.backlog = 0;
    pthread_mutex_unlock(&f.lock);
    bw_broker_writable(fx->broker, f.session);
    int64_t next = 0;
    while (next < 20) {
        assert_true(fake_next(&f, WAIT_MS, &a));
        count_records(a.a.payload, a.a.payload_len, &next);
        answer_free(&a);
    }
    fake_close(fx, &f);
    fake_close(fx, &writer);
}

static void test_subscribe_error_ends_it_with_a_last_data(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    fill(fx, &f, "t", 2, 1, 10);
    subscribe(fx, &f, "t", 3, 99, 1000);
    answer a;
    assert_true(fake_next(&f, WAIT_MS, &a));
    assert_int_equal(a.a.type, BW_API_DATA);
    assert_int_equal(a.a.error, BW_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(a.a.subscription, 3);
    answer_free(&a);
    subscribe(fx, &f, "t", 3, 0, 1000); /* its number is free again */
    assert_true(fake_next(&f, WAIT_MS, &a));
    assert_int_equal(a.a.error, BW_OK);
    answer_free(&a);
    bw_request dup = rq_subscribe("t", 3, 0, 1);
    assert_int_equal(fake_ask(fx, &f, &dup), BW_ERR_INVALID_ARGUMENT);
    bw_request end = rq(BW_API_UNSUBSCRIBE, NULL);
    end.subscription = 3;
    assert_int_equal(fake_ask(fx, &f, &end), BW_OK);
    fill(fx, &f, "t", 1, 1, 10);
    assert_false(fake_next(&f, 50, &a));
    fake_close(fx, &f);
}

static void test_subscribe_deleted_topic_ends_it(void **state)
{
    fixture *fx = *state;
    fake f, admin;
    fake_open(fx, &f);
    fake_open(fx, &admin);
    fill(fx, &f, "t", 1, 1, 10);
    subscribe(fx, &f, "t", 1, 1, 1000);
    bw_request wait = rq_fetch("t", 0, 1, 30000);
    fake_send(fx, &f, &wait);
    bw_request del = rq(BW_API_DELETE_TOPIC, "t");
    assert_int_equal(fake_ask(fx, &admin, &del), BW_OK);
    int deleted = 0;
    for (int i = 0; i < 2; i++) {
        answer a;
        assert_true(fake_next(&f, WAIT_MS, &a));
        deleted += (a.a.type == BW_API_DATA ? a.a.error : a.a.parts[0].error) == BW_ERR_DELETED;
        answer_free(&a);
    }
    assert_int_equal(deleted, 2);
    fake_close(fx, &f);
    fake_close(fx, &admin);
}

static void set_backlog(fake *f, size_t bytes)
{
    pthread_mutex_lock(&f->lock);
    f->backlog = bytes;
    pthread_mutex_unlock(&f->lock);
}

/* Whether it would wait or not: with much to read already a client gets no more until it has read. */
static void test_fetch_waits_while_the_backlog_is_full(void **state)
{
    fixture *fx = *state;
    fake f, writer;
    fake_open(fx, &f);
    fake_open(fx, &writer);
    fill(fx, &writer, "t", 1, 1, 10);
    set_backlog(&f, 64 << 20);
    bw_request now = rq_fetch("t", 0, 0, 0), later = rq_fetch("t", 0, 1, 50), unknown = rq_fetch("unknown", 0, 0, 0);
    uint32_t first = fake_send(fx, &f, &now);
    fake_send(fx, &f, &later);
    fake_send(fx, &f, &unknown);
    answer a;
    assert_false(fake_next(&f, 200, &a));
    fill(fx, &writer, "t", 1, 1, 10);
    assert_false(fake_next(&f, 50, &a));
    set_backlog(&f, 0);
    bw_broker_writable(fx->broker, f.session);
    bool seen[3] = {false};
    for (int i = 0; i < 3; i++) {
        assert_true(fake_next(&f, WAIT_MS, &a));
        uint32_t n = a.a.correlation - first;
        assert_true(n < 3 && !seen[n]);
        seen[n] = true;
        assert_int_equal(a.a.parts[0].error, n == 2 ? BW_ERR_UNKNOWN_TOPIC : BW_OK);
        if (n < 2) assert_true(a.a.payload_len > 0);
        answer_free(&a);
    }
    set_backlog(&f, 64 << 20); /* one that is blocked when its connection ends leaves nothing behind */
    bw_request left = rq_fetch("t", 0, 0, 0);
    fake_send(fx, &f, &left);
    fake_close(fx, &f);
    fake_close(fx, &writer);
}

/* Those that could not be told anything at the time: by the backlog, or without credit. */
static void test_subscribe_blocked_is_told_of_the_deletion(void **state)
{
    fixture *fx = *state;
    fake f, admin;
    fake_open(fx, &f);
    fake_open(fx, &admin);
    fill(fx, &f, "t", 5, 1, 1000);
    subscribe(fx, &f, "t", 1, 0, 1); /* one batch, and the credit is used up */
    answer a;
    assert_true(fake_next(&f, WAIT_MS, &a));
    answer_free(&a);
    set_backlog(&f, 64 << 20);
    subscribe(fx, &f, "t", 2, 0, 100000);
    bw_request fetch = rq_fetch("t", 0, 0, 0);
    fake_send(fx, &f, &fetch);
    bw_request del = rq(BW_API_DELETE_TOPIC, "t");
    assert_int_equal(fake_ask(fx, &admin, &del), BW_OK);
    int deleted = 0;
    for (int i = 0; i < 3; i++) {
        assert_true(fake_next(&f, WAIT_MS, &a));
        deleted += (a.a.type == BW_API_DATA ? a.a.error : a.a.parts[0].error) == BW_ERR_DELETED;
        answer_free(&a);
    }
    assert_int_equal(deleted, 3);
    set_backlog(&f, 0);
    for (uint32_t id = 1; id <= 2; id++) { /* they are over: credit for them is for nobody */
        bw_request credit = rq(BW_API_CREDIT, NULL);
        credit.subscription = id;
        credit.credit = 100000;
        fake_send(fx, &f, &credit);
    }
    bw_broker_writable(fx->broker, f.session);
    assert_false(fake_next(&f, 100, &a));
    fake_close(fx, &f);
    fake_close(fx, &admin);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)
    const struct CMUnitTest tests[] = {
        T(test_fetch_reads_everything_over_many_segments),
        T(test_fetch_at_the_end_waits_for_max_wait),
        T(test_fetch_waiting_is_answered_when_data_comes),
        T(test_fetch_min_bytes_waits_for_enough),
        T(test_fetch_outside_the_log_names_the_range),
        T(test_fetch_gives_one_batch_larger_than_max_bytes),
        T(test_fetch_durable_never_passes_the_watermark),
        T(test_subscribe_pushes_within_credit),
        T(test_subscribe_stops_at_a_full_backlog_and_goes_on_when_writable),
        T(test_subscribe_error_ends_it_with_a_last_data),
        T(test_subscribe_deleted_topic_ends_it),
        T(test_fetch_waits_while_the_backlog_is_full),
        T(test_subscribe_blocked_is_told_of_the_deletion),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
