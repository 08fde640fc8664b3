/* broker/quota_admit.c: what quotas and limits do to sessions: over a real broker, never more than rate × time. */
#include "fixture.h"

#include <busway/admin.h>

/* Without a burst to be saved, so that it does not matter when this process is stopped for a while. */
static int setup(void **state)
{
    if (fx_make(state)) return -1;
    fixture *fx = *state;
    assert_int_equal(bw_daemon_config_set(&fx->config, "quota.window.ms", "1"), BW_OK);
    fx_up(fx);
    return 0;
}

static bw_err set_quota(fixture *fx, fake *f, const char *client, const char *rate, const char *value)
{
    bw_request r = rq(BW_API_SET_QUOTA, NULL);
    r.quota.client = bw_str_of(client);
    r.configs = calloc(1, sizeof *r.configs);
    r.configs[0] = (bw_config_pair){bw_str_of(rate), bw_str_of(value), value != NULL};
    r.config_count = 1;
    return fake_ask(fx, f, &r);
}

static void hello(fixture *fx, fake *f, const char *client)
{
    bw_request r = rq(BW_API_HELLO, NULL);
    r.client_id = bw_str_of(client);
    assert_int_equal(fake_ask(fx, f, &r), BW_OK);
}

static void send_batch(fixture *fx, fake *f, const bw_buf *batch)
{
    bw_request r = rq(BW_API_PRODUCE, "t");
    r.acks = 1;
    r.payload = batch->data;
    r.payload_len = batch->len;
    fake_send(fx, f, &r);
}

static void test_produce_over_its_rate_is_held_in_order_and_told(void **state)
{
    fixture *fx = *state;
    fake admin, slow, other;
    fake_open(fx, &admin);
    fake_open(fx, &slow);
    fake_open(fx, &other);
    assert_int_equal(rq_create(fx, &admin, "t", 1, NULL, NULL), BW_OK);
    hello(fx, &slow, "slow");
    hello(fx, &other, "other");
    assert_int_equal(set_quota(fx, &admin, "slow", "producer_byte_rate", "100000"), BW_OK);
    batch_spec spec = BATCH_SPEC;
    spec.value_bytes = 5000;
    bw_buf batch = {0};
    make_batch(&spec, &batch);
    int64_t begin = bw_clock_mono_ns();
    for (int i = 0; i < 12; i++) send_batch(fx, &slow, &batch);
    /* The other one is answered while they are held. */
    assert_int_equal(produce(fx, &other, "t", 0, &spec, 1, NULL), BW_OK);
    int64_t last = -1;
    int32_t told = 0;
    for (int i = 0; i < 12; i++) {
        answer a;
        assert_true(fake_next(&slow, WAIT_MS, &a));
        assert_int_equal(a.a.error, BW_OK);
        assert_int_equal(a.a.correlation, 2 + i);
        assert_true(a.a.offset > last);
        last = a.a.offset;
        int64_t elapsed = bw_clock_mono_ns() - begin;
        assert_true((double)i * (double)batch.len <= 100000.0 * (double)elapsed / 1e9 + 400); /* those before it are paid */
        assert_true(a.a.throttle_ms >= told);
        told = a.a.throttle_ms;
        answer_free(&a);
    }
    assert_true(told > 0);
    bw_buf_free(&batch);
    fake_close(fx, &slow);
    fake_close(fx, &other);
    fake_close(fx, &admin);
}

static void test_fetch_over_its_rate_waits_and_removed_quota_lets_go(void **state)
{
    fixture *fx = *state;
    fake admin, slow;
    fake_open(fx, &admin);
    fake_open(fx, &slow);
    assert_int_equal(rq_create(fx, &admin, "t", 1, NULL, NULL), BW_OK);
    hello(fx, &slow, "slow");
    batch_spec spec = BATCH_SPEC;
    spec.value_bytes = 20000;
    for (int i = 0; i < 8; i++) assert_int_equal(produce(fx, &admin, "t", 0, &spec, 1, NULL), BW_OK);
    assert_int_equal(set_quota(fx, &admin, "slow", "consumer_byte_rate", "100000"), BW_OK);
    int64_t begin = bw_clock_mono_ns(), got = 0, before = 0, next = 0;
    for (int i = 0; i < 4; i++) {
        bw_request r = rq_fetch("t", 0, next, 5000);
        r.parts[0].max_bytes = 1;
        answer a;
        assert_int_equal(fake_call(fx, &slow, &r, &a), BW_OK);
        int64_t elapsed = bw_clock_mono_ns() - begin;
        assert_true((double)before <= 100000.0 * (double)elapsed / 1e9 + 400);
        if (i) assert_true(a.a.throttle_ms > 0);
        got += (int64_t)a.a.payload_len;
        before = got;
        next++;
        answer_free(&a);
    }
    /* What is owed takes minutes at the lower rate (the first may have been paid already); removed, it goes at once. */
    answer a;
    assert_int_equal(set_quota(fx, &admin, "slow", "consumer_byte_rate", "100"), BW_OK);
    for (int i = 0; i < 2; i++) {
        bw_request r = rq_fetch("t", 0, next + i, 100);
        r.parts[0].max_bytes = 1;
        fake_send(fx, &slow, &r);
    }
    if (fake_next(&slow, 300, &a)) answer_free(&a);
    assert_false(fake_next(&slow, 300, &a));
    assert_int_equal(set_quota(fx, &admin, "slow", "consumer_byte_rate", NULL), BW_OK);
    assert_true(fake_next(&slow, 5000, &a));
    assert_true(a.a.payload_len > 0);
    answer_free(&a);
    fake_close(fx, &slow);
    fake_close(fx, &admin);
}

static void test_pushes_keep_the_rate(void **state)
{
    fixture *fx = *state;
    fake admin, slow;
    fake_open(fx, &admin);
    fake_open(fx, &slow);
    assert_int_equal(rq_create(fx, &admin, "t", 1, NULL, NULL), BW_OK);
    hello(fx, &slow, "slow");
    assert_int_equal(set_quota(fx, &admin, "slow", "consumer_byte_rate", "200000"), BW_OK);
    bw_request r = rq(BW_API_SUBSCRIBE, "t");
    r.subscription = 1;
    r.credit = 1 << 30;
    assert_int_equal(fake_ask(fx, &slow, &r), BW_OK);
    batch_spec spec = BATCH_SPEC;
    spec.value_bytes = 20000;
    int64_t begin = bw_clock_mono_ns(), before = 0, next = 0;
    for (int i = 0; i < 10; i++) assert_int_equal(produce(fx, &admin, "t", 0, &spec, 1, NULL), BW_OK);
    bool told = false;
    while (next < 10) {
        answer a;
        assert_true(fake_next(&slow, WAIT_MS, &a));
        assert_int_equal(a.a.type, BW_API_DATA);
        int64_t elapsed = bw_clock_mono_ns() - begin;
        assert_true((double)before <= 200000.0 * (double)elapsed / 1e9 + 400);
        before += (int64_t)a.a.payload_len;
        told |= a.a.throttle_ms > 0;
        count_records(a.a.payload, a.a.payload_len, &next);
        answer_free(&a);
    }
    assert_true(told);
    fake_close(fx, &slow);
    fake_close(fx, &admin);
}

static void test_request_rate_spares_heartbeats_and_a_close_lets_go_of_what_is_held(void **state)
{
    fixture *fx = *state;
    fake admin, slow;
    fake_open(fx, &admin);
    fake_open(fx, &slow);
    hello(fx, &slow, "slow");
    assert_int_equal(set_quota(fx, &admin, "slow", "request_rate", "1"), BW_OK);
    for (int i = 0; i < 20; i++) {
        bw_request r = rq(BW_API_METADATA, NULL);
        fake_send(fx, &slow, &r);
    }
    bw_request s = rq(BW_API_STATUS, NULL);
    uint32_t wanted = fake_send(fx, &slow, &s);
    answer a;
    bool seen = false;
    for (int i = 0; i < 4 && !seen; i++) {
        assert_true(fake_next(&slow, WAIT_MS, &a));
        seen = a.a.correlation == wanted;
        answer_free(&a);
    }
    assert_true(seen);
    bw_broker_session_closed(fx->broker, slow.session);
    assert_true(fake_wait(&slow, fake_is_gone, WAIT_MS));
    assert_int_equal(slow.consumed, 22);
    fake_free(&slow);
    fake_close(fx, &admin);
}

static void test_quota_refuses_direct_writers_and_readers_and_outlives_the_daemon(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 1, NULL, NULL), BW_OK);
    hello(fx, &f, "me");
    assert_int_equal(set_quota(fx, &f, "me", "producer_byte_rate", "1000000"), BW_OK);
    assert_int_equal(set_quota(fx, &f, "me", "producer_byte_rate", "0"), BW_ERR_INVALID_QUOTA);
    fake_close(fx, &f);
    fx_down(fx);
    fx_up(fx);
    fake_open(fx, &f);
    hello(fx, &f, "me");
    bw_request r = rq(BW_API_ATTACH, "t");
    r.for_write = true;
    bw_err e = fake_ask(fx, &f, &r);
    if (e == BW_ERR_UNSUPPORTED) skip(); /* no direct path here */
    assert_int_equal(e, BW_ERR_THROTTLED);
    r.for_write = false;
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    assert_int_equal(set_quota(fx, &f, "me", "consumer_byte_rate", "1000000"), BW_OK);
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_THROTTLED);
    assert_int_equal(set_quota(fx, &f, "me", "producer_byte_rate", NULL), BW_OK);
    r.for_write = true;
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    fake_close(fx, &f);
}

static void test_limits_say_their_name(void **state)
{
    fixture *fx = *state;
    static const char *const set[][2] = {{"max.topics", "2"}, {"max.partitions", "5"}, {"max.connections", "2"}};
    for (size_t i = 0; i < 3; i++) assert_int_equal(bw_daemon_config_set(&fx->config, set[i][0], set[i][1]), BW_OK);
    fx_up(fx);
    fake f, g, h;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "a", 3, NULL, NULL), BW_OK);
    assert_int_equal(rq_create(fx, &f, "b", 3, NULL, NULL), BW_ERR_LIMIT_REACHED);
    assert_int_equal(rq_create(fx, &f, "b", 2, NULL, NULL), BW_OK);
    assert_int_equal(rq_create(fx, &f, "c", 1, NULL, NULL), BW_ERR_LIMIT_REACHED);
    bw_request r = rq(BW_API_ALTER_TOPIC, "b");
    r.partitions = 3;
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_LIMIT_REACHED);
    fake_open(fx, &g);
    hello(fx, &g, "g");
    fake_open(fx, &h);
    r = rq(BW_API_HELLO, NULL);
    answer a;
    assert_int_equal(fake_call(fx, &h, &r, &a), BW_ERR_LIMIT_REACHED);
    assert_true(a.a.flags & BW_FRAME_CLOSING);
    assert_non_null(memmem(a.a.message.data, a.a.message.len, "max.connections = 2", 19));
    answer_free(&a);
    fake_close(fx, &g);
    fake_close(fx, &h);
    fake_open(fx, &h);
    hello(fx, &h, "h");
    fake_close(fx, &h);
    fake_close(fx, &f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_produce_over_its_rate_is_held_in_order_and_told, setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_fetch_over_its_rate_waits_and_removed_quota_lets_go, setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_pushes_keep_the_rate, setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_request_rate_spares_heartbeats_and_a_close_lets_go_of_what_is_held, setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_quota_refuses_direct_writers_and_readers_and_outlives_the_daemon, setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_limits_say_their_name, fx_make, fx_teardown),
    };
    return cmocka_run_group_tests_name("quota_admit", tests, NULL, NULL);
}
