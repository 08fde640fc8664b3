/* REPLICA_ACK and what follows from it: acks = replicated, readers of what is replicated, the watermark over restarts. */
#include "fixture.h"

static const char peer_a[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", peer_b[] = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

static void create(fixture *fx, fake *f, const char *topic, const char *const *configs, size_t count)
{
    bw_request r = rq(BW_API_CREATE_TOPIC, topic);
    r.partitions = 1;
    r.configs = calloc(count, sizeof *r.configs);
    for (size_t i = 0; i < count; i++) r.configs[i] = (bw_config_pair){bw_str_of(configs[2 * i]), bw_str_of(configs[2 * i + 1]), true};
    r.config_count = count;
    assert_int_equal(fake_ask(fx, f, &r), BW_OK);
}
#define CREATE(fx, f, topic, ...)                                                         \
    do {                                                                                  \
        const char *const list[] = {__VA_ARGS__};                                         \
        create(fx, f, topic, list, sizeof list / sizeof *list / 2);                       \
    } while (0)

static bw_err ack(fixture *fx, fake *f, const char *peer, int32_t epoch, int64_t visible, int64_t durable, int64_t *replicated)
{
    bw_request r = rq(BW_API_REPLICA_ACK, "t");
    r.replica = (bw_replica_request){.peer = bw_str_of(peer), .epoch = epoch, .visible = visible, .durable = durable};
    answer a;
    bw_err e = fake_call(fx, f, &r, &a);
    if (replicated) *replicated = a.a.replica.replicated;
    answer_free(&a);
    return e;
}

static uint32_t send_batch(fixture *fx, fake *f, int8_t acks, int32_t timeout_ms)
{
    batch_spec s = BATCH_SPEC;
    bw_buf batch = {0};
    make_batch(&s, &batch);
    bw_request r = rq(BW_API_PRODUCE, "t");
    r.acks = acks;
    r.timeout_ms = timeout_ms;
    r.payload = batch.data;
    r.payload_len = batch.len;
    uint32_t c = fake_send(fx, f, &r);
    bw_buf_free(&batch);
    return c;
}

static int64_t end_for(fixture *fx, fake *f, int8_t limit)
{
    bw_request r = rq(BW_API_LIST_OFFSETS, "t");
    r.timestamp = BW_OFFSET_END;
    r.read_limit = limit;
    answer a;
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    int64_t end = a.a.offset;
    answer_free(&a);
    return end;
}

static size_t fetched(fixture *fx, fake *f, int8_t limit)
{
    bw_request r = rq(BW_API_FETCH, "");
    r.read_limit = limit;
    r.parts = calloc(1, sizeof *r.parts);
    r.parts[0] = (bw_fetch_part){.topic = bw_str_of("t"), .max_bytes = 1 << 20};
    r.part_count = 1;
    answer a;
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    assert_int_equal(a.a.parts[0].error, BW_OK);
    size_t n = a.a.payload_len;
    answer_free(&a);
    return n;
}

static void test_produce_replicated_is_answered_after_enough_peers(void **state)
{
    fixture *fx = *state;
    fake f, peer;
    answer a;
    int64_t replicated;
    fake_open(fx, &f);
    fake_open(fx, &peer);
    CREATE(fx, &f, "t", "replicas", "2");
    uint32_t first = send_batch(fx, &f, BW_ACKS_REPLICATED, 30000), second = send_batch(fx, &f, BW_ACKS_REPLICATED, 30000);
    assert_false(fake_next(&f, 200, &a));
    assert_int_equal(ack(fx, &peer, peer_a, 0, 2, 2, &replicated), BW_OK);
    assert_int_equal(replicated, 0); /* one of two */
    assert_int_equal(ack(fx, &peer, peer_b, 0, 2, 1, NULL), BW_OK); /* the second is not on its disk */
    assert_true(fake_next(&f, WAIT_MS, &a));
    assert_int_equal(a.a.correlation, first);
    assert_int_equal(a.a.error, BW_OK);
    assert_true(a.a.durable >= 1); /* replicas.acks = durable: here, too */
    answer_free(&a);
    assert_false(fake_next(&f, 200, &a));
    assert_int_equal(end_for(fx, &peer, BW_READ_REPLICATED), 1);
    assert_int_equal(ack(fx, &peer, peer_b, 0, 2, 2, NULL), BW_OK);
    assert_true(fake_next(&f, WAIT_MS, &a));
    assert_int_equal(a.a.correlation, second);
    answer_free(&a);
    assert_int_equal(end_for(fx, &peer, BW_READ_REPLICATED), 2);
    fake_close(fx, &peer);
    fake_close(fx, &f);
}

static void test_produce_replicated_is_late_and_says_so(void **state)
{
    fixture *fx = *state;
    fake f;
    answer a;
    fake_open(fx, &f);
    CREATE(fx, &f, "t", "replicas", "1");
    send_batch(fx, &f, BW_ACKS_REPLICATED, 100);
    assert_true(fake_next(&f, WAIT_MS, &a));
    assert_int_equal(a.a.error, BW_ERR_TIMED_OUT);
    answer_free(&a);
    assert_int_equal(end_for(fx, &f, BW_READ_VISIBLE), 1);
    fake_close(fx, &f);
}

static void test_produce_replicated_without_replicas_is_refused(void **state)
{
    fixture *fx = *state;
    fake f;
    answer a;
    fake_open(fx, &f);
    CREATE(fx, &f, "t", "replicas", "0");
    send_batch(fx, &f, BW_ACKS_REPLICATED, 30000);
    assert_true(fake_next(&f, WAIT_MS, &a));
    assert_int_equal(a.a.error, BW_ERR_INVALID_CONFIG);
    answer_free(&a);
    assert_int_equal(end_for(fx, &f, BW_READ_VISIBLE), 0);
    fake_close(fx, &f);
}

static void test_visible_acks_do_not_wait_for_any_disk(void **state)
{
    fixture *fx = *state;
    fake f, peer;
    answer a;
    int64_t replicated;
    fake_open(fx, &f);
    fake_open(fx, &peer);
    CREATE(fx, &f, "t", "replicas", "1", "replicas.acks", "visible");
    send_batch(fx, &f, BW_ACKS_REPLICATED, 30000);
    assert_int_equal(ack(fx, &peer, peer_a, 0, 1, 0, &replicated), BW_OK);
    assert_int_equal(replicated, 1);
    assert_true(fake_next(&f, WAIT_MS, &a));
    assert_int_equal(a.a.error, BW_OK);
    answer_free(&a);
    fake_close(fx, &peer);
    fake_close(fx, &f);
}

static void test_read_limit_of_the_topic_holds_for_every_fetch_but_a_links(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    CREATE(fx, &f, "t", "replicas", "1", "read.limit", "replicated");
    batch_spec s = BATCH_SPEC;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_DURABLE, NULL), BW_OK);
    size_t all = fetched(fx, &f, 3);
    assert_true(all > 0);
    assert_int_equal(fetched(fx, &f, BW_READ_VISIBLE), 0);
    assert_int_equal(fetched(fx, &f, BW_READ_REPLICATED), 0);
    assert_int_equal(end_for(fx, &f, BW_READ_VISIBLE), 0);
    assert_int_equal(ack(fx, &f, peer_a, 0, 2, 1, NULL), BW_OK);
    assert_int_equal(fetched(fx, &f, BW_READ_VISIBLE), all / 2);
    assert_int_equal(fetched(fx, &f, BW_READ_REPLICATED), all / 2);
    assert_int_equal(ack(fx, &f, peer_a, 0, 2, 2, NULL), BW_OK);
    assert_int_equal(fetched(fx, &f, BW_READ_VISIBLE), all);
    fake_close(fx, &f);
}

/* A subscription that is drained at the watermark goes on when the watermark does, not when the tail does. */
static void test_subscription_follows_the_replicated_watermark(void **state)
{
    fixture *fx = *state;
    fake f, other;
    answer a;
    fake_open(fx, &f);
    fake_open(fx, &other);
    CREATE(fx, &f, "t", "replicas", "1");
    bw_request r = rq(BW_API_SUBSCRIBE, "t");
    r.subscription = 1;
    r.offset = 0;
    r.credit = 1 << 20;
    r.read_limit = BW_READ_REPLICATED;
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    batch_spec s = BATCH_SPEC;
    assert_int_equal(produce(fx, &other, "t", 0, &s, BW_ACKS_DURABLE, NULL), BW_OK);
    assert_false(fake_next(&f, 200, &a));
    assert_int_equal(ack(fx, &other, peer_a, 0, 1, 1, NULL), BW_OK);
    assert_true(fake_next(&f, WAIT_MS, &a));
    assert_int_equal(a.a.type, BW_API_DATA);
    assert_true(a.a.payload_len > 0);
    answer_free(&a);
    fake_close(fx, &other);
    fake_close(fx, &f);
}

static void test_acknowledgement_of_another_log_counts_for_nothing(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    CREATE(fx, &f, "t", "replicas", "1");
    batch_spec s = BATCH_SPEC;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_DURABLE, NULL), BW_OK);
    assert_int_equal(ack(fx, &f, peer_a, 1, 1, 1, NULL), BW_ERR_ORIGIN_FENCED); /* of a newer epoch */
    assert_int_equal(ack(fx, &f, peer_a, 0, 2, 2, NULL), BW_ERR_LOGS_DIVERGED); /* more than there is */
    assert_int_equal(ack(fx, &f, peer_a, 0, 1, 2, NULL), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(ack(fx, &f, "no hex", 0, 1, 1, NULL), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(end_for(fx, &f, BW_READ_REPLICATED), 0);
    assert_int_equal(ack(fx, &f, peer_a, 0, 1, 1, NULL), BW_OK);
    assert_int_equal(end_for(fx, &f, BW_READ_REPLICATED), 1);
    assert_int_equal(ack(fx, &f, peer_a, 0, 0, 0, NULL), BW_OK); /* the peer lost it: who has read it was right to */
    assert_int_equal(end_for(fx, &f, BW_READ_REPLICATED), 1);
    fake_close(fx, &f);
}

static void test_watermark_is_there_after_a_restart_and_no_higher(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    CREATE(fx, &f, "t", "replicas", "1");
    batch_spec s = BATCH_SPEC;
    for (int i = 0; i < 3; i++) assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_DURABLE, NULL), BW_OK);
    assert_int_equal(ack(fx, &f, peer_a, 0, 2, 2, NULL), BW_OK);
    fake_close(fx, &f);
    fx_down(fx);
    fx_up(fx);
    fake_open(fx, &f);
    assert_int_equal(end_for(fx, &f, BW_READ_VISIBLE), 3);
    assert_int_equal(end_for(fx, &f, BW_READ_REPLICATED), 2);
    fake_close(fx, &f);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)
    const struct CMUnitTest tests[] = {
        T(test_produce_replicated_is_answered_after_enough_peers),
        T(test_produce_replicated_is_late_and_says_so),
        T(test_produce_replicated_without_replicas_is_refused),
        T(test_visible_acks_do_not_wait_for_any_disk),
        T(test_read_limit_of_the_topic_holds_for_every_fetch_but_a_links),
        T(test_subscription_follows_the_replicated_watermark),
        T(test_acknowledgement_of_another_log_counts_for_nothing),
        T(test_watermark_is_there_after_a_restart_and_no_higher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
