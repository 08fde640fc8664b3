/* PRODUCE: acknowledgements, refusals, idempotence over restarts, what a topic changes about a batch. */
#include "fixture.h"

static void test_produce_visible_gets_dense_offsets(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec s = BATCH_SPEC;
    int64_t offset, expected = 0;
    for (int i = 0; i < 50; i++) {
        s.count = 1 + i % 7;
        assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, &offset), BW_OK);
        assert_int_equal(offset, expected);
        expected += s.count;
    }
    fake_close(fx, &f);
}

static void test_produce_durable_is_answered_after_the_watermark(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec s = BATCH_SPEC;
    int64_t offset;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_DURABLE, &offset), BW_OK);
        assert_int_equal(offset, i);
        bw_request r = rq(BW_API_LIST_OFFSETS, "t");
        answer a;
        assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
        assert_true(a.a.durable > offset);
        answer_free(&a);
    }
    fake_close(fx, &f);
}

static void test_produce_none_is_never_answered(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec s = BATCH_SPEC;
    bw_buf batch = {0};
    make_batch(&s, &batch);
    bw_request r = rq(BW_API_PRODUCE, "t");
    r.acks = BW_ACKS_NONE;
    r.payload = batch.data;
    r.payload_len = batch.len;
    fake_send(fx, &f, &r);
    r.partition = 9; /* an error is not answered either */
    fake_send(fx, &f, &r);
    bw_request ask = rq(BW_API_LIST_OFFSETS, "t");
    answer a;
    assert_int_equal(fake_call(fx, &f, &ask, &a), BW_OK); /* the first frame that comes is this one's */
    assert_int_equal(a.a.end, 1);
    answer_free(&a);
    bw_buf_free(&batch);
    fake_close(fx, &f);
}

static void test_produce_pipelined_keeps_order(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 1, "segment.bytes", "65536"), BW_OK); /* rolls on the way: some are parked */
    batch_spec s = BATCH_SPEC;
    s.value_bytes = 2000;
    bw_buf batch = {0};
    make_batch(&s, &batch);
    bw_request r = rq(BW_API_PRODUCE, "t");
    r.payload = batch.data;
    r.payload_len = batch.len;
    enum { N = 500 };
    uint32_t first = 0;
    for (int i = 0; i < N; i++) {
        uint32_t c = fake_send(fx, &f, &r);
        if (!i) first = c;
    }
    for (int i = 0; i < N; i++) {
        answer a;
        assert_true(fake_next(&f, WAIT_MS, &a));
        assert_int_equal(a.a.error, BW_OK);
        assert_int_equal(a.a.offset, a.a.correlation - first);
        answer_free(&a);
    }
    bw_buf_free(&batch);
    fake_close(fx, &f);
}

static bw_err send_raw(fixture *fx, fake *f, const void *data, size_t len)
{
    bw_request r = rq(BW_API_PRODUCE, "t");
    r.payload = data;
    r.payload_len = len;
    return fake_ask(fx, f, &r);
}

static void test_produce_corrupt_or_oversize_is_refused_and_nothing_is_lost(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 1, "max.message.bytes", "1000"), BW_OK);
    batch_spec s = BATCH_SPEC;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    bw_buf batch = {0};
    make_batch(&s, &batch);
    for (size_t i = 21; i < batch.len; i += 7) { /* what the checksum covers */
        batch.data[i] ^= 0x40;
        assert_int_not_equal(send_raw(fx, &f, batch.data, batch.len), BW_OK);
        batch.data[i] ^= 0x40;
    }
    assert_int_not_equal(send_raw(fx, &f, batch.data, batch.len - 1), BW_OK);
    assert_int_not_equal(send_raw(fx, &f, batch.data, 10), BW_OK);
    assert_int_not_equal(send_raw(fx, &f, NULL, 0), BW_OK);
    s.value_bytes = 1000;
    make_batch(&s, &batch);
    assert_int_equal(send_raw(fx, &f, batch.data, batch.len), BW_ERR_RECORD_TOO_LARGE);
    s.value_bytes = 10;
    int64_t offset;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, &offset), BW_OK);
    assert_int_equal(offset, 1);
    assert_int_equal(produce(fx, &f, "t", 1, &s, BW_ACKS_VISIBLE, NULL), BW_ERR_UNKNOWN_PARTITION);
    assert_int_equal(produce(fx, &f, "bad/name", 0, &s, BW_ACKS_VISIBLE, NULL), BW_ERR_INVALID_TOPIC);
    bw_buf_free(&batch);
    fake_close(fx, &f);
}

static void test_produce_unknown_topic_without_auto_create_is_refused(void **state)
{
    fixture *fx = *state;
    fx_down(fx);
    fx->config.auto_create_topics = false;
    fx_up(fx);
    fake f;
    fake_open(fx, &f);
    batch_spec s = BATCH_SPEC;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_ERR_UNKNOWN_TOPIC);
    fake_close(fx, &f);
}

static void test_produce_resend_gets_its_first_offset(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    bw_request r = rq(BW_API_INIT_PRODUCER_ID, NULL);
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    batch_spec s = BATCH_SPEC;
    s.producer_id = a.a.producer_id;
    s.epoch = a.a.producer_epoch;
    answer_free(&a);
    s.count = 3;
    int64_t offset;
    for (int i = 0; i < 8; i++) {
        s.sequence = 3 * i;
        assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, &offset), BW_OK);
        assert_int_equal(offset, 3 * i);
    }
    for (int round = 0; round < 2; round++) { /* as it is, and after a restart that must read the log */
        for (int i = 3; i < 8; i++) {
            s.sequence = 3 * i;
            assert_int_equal(produce(fx, &f, "t", 0, &s, round ? BW_ACKS_DURABLE : BW_ACKS_VISIBLE, &offset), BW_OK);
            assert_int_equal(offset, 3 * i);
        }
        s.sequence = 27; /* a gap */
        assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_ERR_OUT_OF_ORDER_SEQUENCE);
        fake_close(fx, &f);
        fx_down(fx);
        fx_up(fx);
        fake_open(fx, &f);
    }
    s.sequence = 24;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, &offset), BW_OK);
    assert_int_equal(offset, 24);
    fake_close(fx, &f);
}

static batch_spec numbered(fixture *fx, fake *f)
{
    bw_request r = rq(BW_API_INIT_PRODUCER_ID, NULL);
    answer a;
    batch_spec s = BATCH_SPEC;
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    s.producer_id = a.a.producer_id;
    s.epoch = a.a.producer_epoch;
    s.count = 3;
    answer_free(&a);
    return s;
}

/* A batch in doubt whose first copy is not in the log any more: the snapshot beside the recovery point knows it. */
static void test_produce_resend_is_known_when_its_first_copy_was_deleted(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "small", 1, "segment.bytes", "4096"), BW_OK);
    batch_spec s = numbered(fx, &f), plain = BATCH_SPEC;
    int64_t offset;
    s.sequence = 0;
    assert_int_equal(produce(fx, &f, "small", 0, &s, BW_ACKS_VISIBLE, &offset), BW_OK);
    plain.value_bytes = 500;
    for (int i = 0; i < 40; i++) assert_int_equal(produce(fx, &f, "small", 0, &plain, BW_ACKS_DURABLE, &offset), BW_OK);
    bw_request r = rq(BW_API_DELETE_RECORDS, "small");
    r.offset = offset;
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(produce(fx, &f, "small", 0, &s, BW_ACKS_VISIBLE, &offset), BW_OK);
        assert_int_equal(offset, 0);
        fake_close(fx, &f);
        fx_down(fx);
        char path[300];
        snprintf(path, sizeof path, "%s/data/small-0/00000000000000000000.log", fx->dir);
        assert_int_equal(access(path, F_OK), -1);
        fx_up(fx);
        fake_open(fx, &f);
    }
    assert_int_equal(produce(fx, &f, "small", 0, &s, BW_ACKS_VISIBLE, &offset), BW_OK);
    assert_int_equal(offset, 0);
    fake_close(fx, &f);
}

/* Batches that the broker finds in one turn are appended together; each has the outcome that it would have alone. */
static void test_produce_in_one_turn_each_has_its_own_outcome(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec a = numbered(fx, &f), b = numbered(fx, &f), first_of_all = numbered(fx, &f), none = BATCH_SPEC;
    first_of_all.count = 1;
    first_of_all.sequence = 0;
    assert_int_equal(produce(fx, &f, "t", 0, &first_of_all, BW_ACKS_VISIBLE, NULL), BW_OK); /* the table of producers is there from now on */
    none.count = 2;
    struct { batch_spec *s; int32_t sequence; int32_t error; int64_t offset; } step[] = {
        {&a, 0, BW_OK, 1},
        {&a, 3, BW_OK, 4},
        {&none, -1, BW_OK, 7},
        {&b, 0, BW_OK, 9},
        {&a, 6, BW_OK, 12},
        {&a, 3, BW_OK, 4},                             /* again */
        {&a, 12, BW_ERR_OUT_OF_ORDER_SEQUENCE, -1},    /* a gap */
        {&b, 3, BW_OK, 15},
        {&none, -1, BW_OK, 18},
        {&a, 9, BW_OK, 20},
        {&b, 3, BW_OK, 15},
    };
    enum { STEPS = sizeof step / sizeof step[0] };
    bw_reactor *turn = bw_broker_reactor(fx->broker);
    for (int round = 0; round < 2; round++) { /* the second is all resends, but for those without numbers and what was too early */
        uint32_t first = 0;
        bw_reactor_enter(turn);
        for (int i = 0; i < STEPS; i++) {
            bw_buf batch = {0};
            step[i].s->sequence = step[i].sequence;
            make_batch(step[i].s, &batch);
            bw_request r = rq(BW_API_PRODUCE, "t");
            r.payload = batch.data;
            r.payload_len = batch.len;
            uint32_t c = fake_send(fx, &f, &r);
            if (!i) first = c;
            bw_buf_free(&batch);
        }
        bw_request ask = rq(BW_API_LIST_OFFSETS, "t"); /* sees all that came before it */
        fake_send(fx, &f, &ask);
        bw_reactor_leave(turn);
        bw_reactor_wake(turn);
        for (int i = 0; i <= STEPS; i++) {
            answer got;
            assert_true(fake_next(&f, WAIT_MS, &got));
            uint32_t n = got.a.correlation - first;
            assert_int_equal(n, i);
            if (i == STEPS) {
                assert_int_equal(got.a.end, round ? 30 : 23);
            } else if (!round || step[i].s != &none) {
                int32_t expected = round && i == 6 ? BW_OK : step[i].error;
                assert_int_equal(got.a.error, expected);
                if (!step[i].error) assert_int_equal(got.a.offset, step[i].offset);
            }
            answer_free(&got);
        }
    }
    fake_close(fx, &f);
}

static void test_produce_named_producer_fences_its_predecessor(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec s[2] = {BATCH_SPEC, BATCH_SPEC};
    for (int i = 0; i < 2; i++) {
        bw_request r = rq(BW_API_INIT_PRODUCER_ID, NULL);
        r.producer_name = bw_str_of("billing");
        answer a;
        assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
        s[i].producer_id = a.a.producer_id;
        s[i].epoch = a.a.producer_epoch;
        s[i].sequence = 0;
        answer_free(&a);
        assert_int_equal(produce(fx, &f, "t", 0, &s[i], BW_ACKS_VISIBLE, NULL), BW_OK);
    }
    assert_int_equal(s[0].producer_id, s[1].producer_id);
    assert_int_equal(s[1].epoch, s[0].epoch + 1);
    s[0].sequence = 1;
    assert_int_equal(produce(fx, &f, "t", 0, &s[0], BW_ACKS_VISIBLE, NULL), BW_ERR_INVALID_PRODUCER_EPOCH);
    fake_close(fx, &f);
}

static void fetch_header(fixture *fx, fake *f, int64_t offset, bw_batch_header *h, size_t *size)
{
    bw_request r = rq_fetch("t", 0, offset, 0);
    answer a;
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    assert_int_equal(bw_batch_validate(a.a.payload, a.a.payload_len, 1 << 20, true, h), BW_OK);
    *size = a.a.payload_len;
    answer_free(&a);
}

static void test_produce_log_append_time_stamps_the_batch(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 1, "message.timestamp.type", "LogAppendTime"), BW_OK);
    batch_spec s = BATCH_SPEC;
    int64_t before = bw_clock_wall_ms();
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    bw_batch_header h;
    size_t size;
    fetch_header(fx, &f, 0, &h, &size);
    assert_true(h.attributes & BW_ATTR_LOG_APPEND_TIME);
    assert_in_range(h.max_timestamp, before, bw_clock_wall_ms());
    fake_close(fx, &f);
}

static void test_produce_compression_type_recodes_the_batch(void **state)
{
    fixture *fx = *state;
    static const struct { const char *type; bw_codec send, kept; } cases[] = {
        {"zstd", BW_CODEC_NONE, BW_CODEC_ZSTD},  {"lz4", BW_CODEC_GZIP, BW_CODEC_LZ4}, {"uncompressed", BW_CODEC_SNAPPY, BW_CODEC_NONE},
        {"producer", BW_CODEC_LZ4, BW_CODEC_LZ4}, {"gzip", BW_CODEC_GZIP, BW_CODEC_GZIP},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fake f;
        fake_open(fx, &f);
        assert_int_equal(rq_create(fx, &f, "t", 1, "compression.type", cases[i].type), BW_OK);
        batch_spec s = BATCH_SPEC;
        s.count = 20;
        s.value_bytes = 100;
        s.codec = cases[i].send;
        assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
        bw_batch_header h;
        size_t size;
        fetch_header(fx, &f, 0, &h, &size);
        assert_int_equal(h.attributes & BW_ATTR_CODEC_MASK, cases[i].kept);
        assert_int_equal(h.record_count, 20);
        bw_request del = rq(BW_API_DELETE_TOPIC, "t");
        assert_int_equal(fake_ask(fx, &f, &del), BW_OK);
        fake_close(fx, &f);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)
    const struct CMUnitTest tests[] = {
        T(test_produce_visible_gets_dense_offsets),
        T(test_produce_durable_is_answered_after_the_watermark),
        T(test_produce_none_is_never_answered),
        T(test_produce_pipelined_keeps_order),
        T(test_produce_corrupt_or_oversize_is_refused_and_nothing_is_lost),
        T(test_produce_unknown_topic_without_auto_create_is_refused),
        T(test_produce_resend_gets_its_first_offset),
        T(test_produce_resend_is_known_when_its_first_copy_was_deleted),
        T(test_produce_in_one_turn_each_has_its_own_outcome),
        T(test_produce_named_producer_fences_its_predecessor),
        T(test_produce_log_append_time_stamps_the_batch),
        T(test_produce_compression_type_recodes_the_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
