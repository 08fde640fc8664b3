/* Transactions through the broker: what is written where and when, who is refused, what a restart finds. */
#include "fixture.h"

#include "format/control_batch.h"

typedef struct tx {
    const char *id;
    int64_t pid;
    int16_t epoch;
    int32_t sequence[8]; /* of partitions of "t" */
} tx;

static bw_err init(fixture *fx, fake *f, tx *t, int32_t timeout_ms, bool again)
{
    bw_request r = rq(BW_API_INIT_PRODUCER_ID, NULL);
    r.txn.id = bw_str_of(t->id);
    r.txn.timeout_ms = timeout_ms;
    if (again) r.txn.producer_id = t->pid, r.txn.producer_epoch = t->epoch;
    for (int i = 0; i < 2000; i++) {
        answer a;
        bw_err e = fake_call(fx, f, &r, &a);
        if (!e) {
            t->pid = a.a.producer_id;
            t->epoch = a.a.producer_epoch;
            memset(t->sequence, 0, sizeof t->sequence);
        }
        answer_free(&a);
        if (e != BW_ERR_CONCURRENT_TRANSACTIONS) return e;
        usleep(1000);
    }
    return BW_ERR_TIMED_OUT;
}

static bw_err put(fixture *fx, fake *f, tx *t, int partition, int count)
{
    batch_spec s = BATCH_SPEC;
    s.count = count;
    s.producer_id = t->pid;
    s.epoch = t->epoch;
    s.sequence = t->sequence[partition];
    s.transactional = true;
    bw_err e;
    for (int i = 0; i < 2000; i++) {
        e = produce(fx, f, "t", partition, &s, BW_ACKS_VISIBLE, NULL);
        if (e != BW_ERR_CONCURRENT_TRANSACTIONS) break;
        usleep(1000);
    }
    if (!e) t->sequence[partition] += count;
    return e;
}

static bw_request rq_end(const tx *t, bool commit)
{
    bw_request r = rq(BW_API_END_TXN, NULL);
    r.txn.id = bw_str_of(t->id);
    r.txn.producer_id = t->pid;
    r.txn.producer_epoch = t->epoch;
    r.txn.commit = commit;
    return r;
}

static bw_err end(fixture *fx, fake *f, const tx *t, bool commit, bool durable)
{
    bw_request r = rq_end(t, commit);
    r.txn.durable = durable;
    for (int i = 0; i < 2000; i++) {
        bw_err e = fake_ask(fx, f, &r);
        if (e != BW_ERR_CONCURRENT_TRANSACTIONS) return e;
        usleep(1000);
    }
    return BW_ERR_TIMED_OUT;
}

typedef struct seen {
    int records, commits, aborts;
    char order[64]; /* d: a batch, C, A: a marker */
} seen;

/* What lies in a partition. */
static seen look(fixture *fx, fake *f, int partition)
{
    seen s = {0};
    bw_request r = rq_fetch("t", partition, BW_OFFSET_BEGINNING, 0);
    answer a;
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    const uint8_t *at = a.a.payload, *last = at + a.a.payload_len;
    size_t n = 0;
    while (at < last) {
        bw_batch_header h;
        bw_marker m;
        assert_int_equal(bw_batch_header_decode(at, (size_t)(last - at), false, &h), BW_OK);
        char c = 'd';
        if (h.attributes & BW_ATTR_CONTROL) {
            assert_int_equal(bw_marker_read(at, &h, &m), BW_OK);
            c = m.commit ? 'C' : 'A';
            s.commits += m.commit;
            s.aborts += !m.commit;
        } else s.records += h.record_count;
        if (n + 1 < sizeof s.order) s.order[n++] = c;
        at += bw_batch_size(&h);
    }
    answer_free(&a);
    return s;
}

static void test_txn_commit_marks_each_partition_once(void **state)
{
    fixture *fx = *state;
    fake f;
    tx t = {.id = "a"};
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 4, NULL, NULL), BW_OK);
    assert_int_equal(init(fx, &f, &t, 60000, false), BW_OK);
    assert_int_equal(t.epoch, 0);
    for (int i = 0; i < 3; i++) assert_int_equal(put(fx, &f, &t, i, 5), BW_OK);
    assert_int_equal(put(fx, &f, &t, 0, 2), BW_OK);
    assert_int_equal(end(fx, &f, &t, true, false), BW_OK);
    assert_string_equal(look(fx, &f, 0).order, "ddC");
    assert_string_equal(look(fx, &f, 1).order, "dC");
    assert_string_equal(look(fx, &f, 2).order, "dC");
    assert_string_equal(look(fx, &f, 3).order, "");
    assert_int_equal(end(fx, &f, &t, true, false), BW_OK); /* asked again: the same outcome, nothing new */
    assert_string_equal(look(fx, &f, 1).order, "dC");
    assert_int_equal(end(fx, &f, &t, false, false), BW_ERR_INVALID_TXN_STATE);
    assert_int_equal(put(fx, &f, &t, 1, 1), BW_OK);
    assert_int_equal(end(fx, &f, &t, false, false), BW_OK);
    assert_string_equal(look(fx, &f, 1).order, "dCdA");
    assert_string_equal(look(fx, &f, 0).order, "ddC");
    fake_close(fx, &f);
}

static void test_txn_committed_fetch_waits_for_the_commit_and_skips_the_aborted(void **state)
{
    fixture *fx = *state;
    fake f, reader;
    tx t = {.id = "a"};
    answer a;
    fake_open(fx, &f);
    fake_open(fx, &reader);
    assert_int_equal(rq_create(fx, &f, "t", 1, NULL, NULL), BW_OK);
    assert_int_equal(init(fx, &f, &t, 60000, false), BW_OK);
    assert_int_equal(put(fx, &f, &t, 0, 5), BW_OK); /* 0 to 4, marker 5 */
    assert_int_equal(end(fx, &f, &t, false, false), BW_OK);
    assert_int_equal(put(fx, &f, &t, 0, 3), BW_OK); /* 6 to 8 */
    bw_request r = rq_fetch("t", 0, 6, 30000);
    r.isolation = BW_READ_COMMITTED;
    fake_send(fx, &reader, &r);
    assert_false(fake_next(&reader, 50, &a));
    assert_int_equal(put(fx, &f, &t, 0, 1), BW_OK); /* more that is open */
    assert_false(fake_next(&reader, 50, &a));
    assert_int_equal(end(fx, &f, &t, true, false), BW_OK);
    assert_true(fake_next(&reader, WAIT_MS, &a));
    int64_t next = 6;
    assert_int_equal(a.a.parts[0].error, BW_OK);
    assert_int_equal(count_records(a.a.payload, a.a.payload_len, &next), 5); /* four, and the marker */
    answer_free(&a);
    r = rq_fetch("t", 0, 0, 0);
    r.isolation = BW_READ_COMMITTED;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    bw_batch_header h;
    assert_int_equal(bw_batch_header_decode(a.a.payload, a.a.payload_len, false, &h), BW_OK);
    assert_int_equal(h.base_offset, 5); /* the aborted are not there, their marker is */
    answer_free(&a);
    r = rq_fetch("t", 0, 0, 0);
    r.isolation = 2;
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_ARGUMENT);
    fake_close(fx, &reader);
    fake_close(fx, &f);
}

static void test_txn_durable_commit_is_on_the_disk(void **state)
{
    fixture *fx = *state;
    fake f;
    tx t = {.id = "a"};
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 2, NULL, NULL), BW_OK);
    assert_int_equal(init(fx, &f, &t, 60000, false), BW_OK);
    assert_int_equal(put(fx, &f, &t, 0, 5), BW_OK);
    assert_int_equal(put(fx, &f, &t, 1, 5), BW_OK);
    assert_int_equal(end(fx, &f, &t, true, true), BW_OK);
    for (int i = 0; i < 2; i++) {
        bw_request r = rq(BW_API_LIST_OFFSETS, "t");
        r.partition = i;
        answer a;
        assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
        assert_true(a.a.durable >= 5);
        answer_free(&a);
    }
    bw_request r = rq(BW_API_LIST_OFFSETS, "__transaction_state");
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_true(a.a.durable >= 3); /* two partitions were added, one decision */
    answer_free(&a);
    fake_close(fx, &f);
}

static void test_txn_stale_producers_are_fenced(void **state)
{
    fixture *fx = *state;
    fake f;
    tx old = {.id = "a"}, new = {.id = "a"}, other = {.id = "b"};
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 2, NULL, NULL), BW_OK);
    assert_int_equal(init(fx, &f, &old, 60000, false), BW_OK);
    assert_int_equal(init(fx, &f, &other, 60000, false), BW_OK);
    assert_true(other.pid != old.pid);
    assert_int_equal(put(fx, &f, &old, 0, 3), BW_OK);
    assert_int_equal(init(fx, &f, &new, 60000, false), BW_OK); /* aborts what the old one began */
    assert_true(new.pid == old.pid && new.epoch > old.epoch);
    assert_string_equal(look(fx, &f, 0).order, "dA");
    assert_int_equal(put(fx, &f, &old, 0, 1), BW_ERR_PRODUCER_FENCED);
    assert_int_equal(put(fx, &f, &old, 1, 1), BW_ERR_PRODUCER_FENCED); /* a partition that has not seen it */
    assert_int_equal(end(fx, &f, &old, true, false), BW_ERR_PRODUCER_FENCED);
    tx again = old;
    assert_int_equal(init(fx, &f, &again, 60000, true), BW_ERR_PRODUCER_FENCED);
    tx thief = {.id = "b", .pid = new.pid, .epoch = new.epoch};
    assert_int_equal(end(fx, &f, &thief, true, false), BW_ERR_INVALID_PRODUCER_ID_MAPPING);
    tx ahead = new;
    ahead.epoch++;
    assert_int_equal(end(fx, &f, &ahead, true, false), BW_ERR_INVALID_PRODUCER_EPOCH);
    tx nobody = {.id = "c"};
    assert_int_equal(end(fx, &f, &nobody, true, false), BW_ERR_TRANSACTIONAL_ID_NOT_FOUND);
    nobody.pid = 4711;
    assert_int_equal(put(fx, &f, &nobody, 1, 1), BW_ERR_INVALID_PRODUCER_ID_MAPPING);
    assert_int_equal(end(fx, &f, &new, true, false), BW_ERR_INVALID_TXN_STATE); /* nothing was begun */
    assert_int_equal(put(fx, &f, &new, 0, 1), BW_OK);
    assert_int_equal(end(fx, &f, &new, true, false), BW_OK);
    assert_int_equal(init(fx, &f, &new, 60000, true), BW_OK); /* asks for a higher epoch itself */
    assert_int_equal(put(fx, &f, &new, 0, 1), BW_OK);
    fake_close(fx, &f);
}

static void test_txn_timeout_aborts_and_fences(void **state)
{
    fixture *fx = *state;
    fake f;
    tx t = {.id = "a"};
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 1, NULL, NULL), BW_OK);
    assert_int_equal(init(fx, &f, &t, 0, false), BW_ERR_INVALID_TRANSACTION_TIMEOUT);
    assert_int_equal(init(fx, &f, &t, 900001, false), BW_ERR_INVALID_TRANSACTION_TIMEOUT);
    assert_int_equal(init(fx, &f, &t, 50, false), BW_OK);
    assert_int_equal(put(fx, &f, &t, 0, 3), BW_OK);
    for (int i = 0; i < 500 && !look(fx, &f, 0).aborts; i++) usleep(10000);
    assert_string_equal(look(fx, &f, 0).order, "dA");
    tx late = t;
    assert_int_equal(put(fx, &f, &late, 0, 1), BW_ERR_PRODUCER_FENCED);
    assert_int_equal(end(fx, &f, &late, true, false), BW_ERR_PRODUCER_FENCED);
    assert_int_equal(init(fx, &f, &t, 60000, true), BW_OK); /* nobody else came: it may go on */
    assert_true(t.epoch > late.epoch);
    assert_int_equal(put(fx, &f, &t, 0, 1), BW_OK);
    assert_int_equal(end(fx, &f, &t, true, false), BW_OK);
    assert_string_equal(look(fx, &f, 0).order, "dAdC");
    fake_close(fx, &f);
}

static void test_txn_pipelined_end_counts_what_came(void **state)
{
    fixture *fx = *state;
    fake f;
    tx t = {.id = "a"};
    answer a;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 4, NULL, NULL), BW_OK);
    assert_int_equal(init(fx, &f, &t, 60000, false), BW_OK);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            batch_spec s = {5, 10, BW_CODEC_NONE, t.pid, t.epoch, t.sequence[i] + (round == 2 && i == 3), 1000, true}; /* a gap */
            bw_buf batch = {0};
            make_batch(&s, &batch);
            bw_request r = rq(BW_API_PRODUCE, "t");
            r.partition = i;
            r.payload = batch.data;
            r.payload_len = batch.len;
            fake_send(fx, &f, &r);
            bw_buf_free(&batch);
            t.sequence[i] += 5;
        }
        bw_request e = rq_end(&t, true);
        e.txn.records = 20;
        fake_send(fx, &f, &e);
        for (int i = 0; i < 5; i++) {
            assert_true(fake_next(&f, WAIT_MS, &a));
            int32_t expected = BW_OK;
            if (round == 2 && a.a.type == BW_API_END_TXN) expected = BW_ERR_CONCURRENT_TRANSACTIONS;
            else if (a.a.error) expected = BW_ERR_OUT_OF_ORDER_SEQUENCE, assert_int_equal(round, 2);
            assert_int_equal(a.a.error, expected);
            answer_free(&a);
        }
    }
    assert_string_equal(look(fx, &f, 0).order, "dCdCd"); /* nothing was decided */
    assert_string_equal(look(fx, &f, 3).order, "dCdC");
    assert_int_equal(end(fx, &f, &t, false, false), BW_OK);
    assert_string_equal(look(fx, &f, 0).order, "dCdCdA");
    bw_request e = rq_end(&t, false);
    e.txn.records = 3;
    assert_int_equal(fake_ask(fx, &f, &e), BW_ERR_CONCURRENT_TRANSACTIONS); /* cannot mean the one before */
    fake_close(fx, &f);
}

static void test_txn_restart_keeps_what_goes_on(void **state)
{
    fixture *fx = *state;
    fake f;
    tx t = {.id = "a"}, done = {.id = "b"};
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 2, NULL, NULL), BW_OK);
    assert_int_equal(init(fx, &f, &t, 60000, false), BW_OK);
    assert_int_equal(init(fx, &f, &done, 60000, false), BW_OK);
    assert_int_equal(put(fx, &f, &t, 0, 3), BW_OK);
    assert_int_equal(put(fx, &f, &done, 1, 3), BW_OK);
    assert_int_equal(end(fx, &f, &done, true, false), BW_OK);
    fake_close(fx, &f);
    fx_down(fx);
    fx_up(fx);
    fake_open(fx, &f);
    assert_int_equal(put(fx, &f, &t, 1, 3), BW_OK);
    assert_int_equal(end(fx, &f, &t, true, false), BW_OK);
    assert_int_equal(end(fx, &f, &done, true, false), BW_OK); /* its answer may have been lost */
    assert_string_equal(look(fx, &f, 0).order, "dC");
    assert_string_equal(look(fx, &f, 1).order, "dCdC");
    int16_t before = t.epoch;
    assert_int_equal(init(fx, &f, &t, 60000, false), BW_OK);
    assert_int_equal(t.epoch, before + 1);
    fake_close(fx, &f);
}

static int64_t log_start(fixture *fx, fake *f)
{
    bw_request r = rq(BW_API_LIST_OFFSETS, "__transaction_state");
    answer a;
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    int64_t start = a.a.log_start;
    answer_free(&a);
    return start;
}

/* Its log does not grow with the number of transactions, and what it forgot is in the store. */
static void test_txn_checkpoints_let_the_log_go(void **state)
{
    fixture *fx = *state;
    fake f;
    tx t = {.id = "a"}, idle = {.id = "idle"}, open = {.id = "open"};
    fx_down(fx);
    assert_int_equal(bw_daemon_config_set(&fx->config, "transaction.state.checkpoint.bytes", "8192"), BW_OK);
    fx_up(fx);
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 2, NULL, NULL), BW_OK);
    assert_int_equal(init(fx, &f, &idle, 60000, false), BW_OK);
    assert_int_equal(init(fx, &f, &open, 60000, false), BW_OK);
    assert_int_equal(put(fx, &f, &open, 1, 1), BW_OK);
    assert_int_equal(init(fx, &f, &t, 60000, false), BW_OK);
    for (int round = 0; round < 2; round++) {
        int64_t before = log_start(fx, &f);
        int64_t until = bw_clock_mono_ms() + 30000; /* a checkpoint waits for the disk */
        while (log_start(fx, &f) == before && bw_clock_mono_ms() < until) {
            assert_int_equal(put(fx, &f, &t, 0, 1), BW_OK);
            assert_int_equal(end(fx, &f, &t, true, false), BW_OK);
        }
        assert_true(log_start(fx, &f) > before);
        assert_int_equal(put(fx, &f, &t, 0, 1), BW_OK);
        fake_close(fx, &f);
        fx_down(fx);
        fx_up(fx);
        fake_open(fx, &f);
        assert_int_equal(end(fx, &f, &t, true, false), BW_OK);
    }
    assert_int_equal(put(fx, &f, &open, 1, 1), BW_OK); /* of before all of them */
    assert_int_equal(end(fx, &f, &open, true, false), BW_OK);
    assert_string_equal(look(fx, &f, 1).order, "ddC");
    int16_t epoch = idle.epoch;
    assert_int_equal(init(fx, &f, &idle, 60000, false), BW_OK);
    assert_int_equal(idle.epoch, epoch + 1);
    fake_close(fx, &f);
}

static void test_txn_unused_ids_expire(void **state)
{
    fixture *fx = *state;
    fake f;
    tx t = {.id = "a"}, idle = {.id = "idle"};
    fx_down(fx);
    assert_int_equal(bw_daemon_config_set(&fx->config, "transaction.state.checkpoint.bytes", "4096"), BW_OK);
    assert_int_equal(bw_daemon_config_set(&fx->config, "transactional.id.expiration.ms", "200"), BW_OK);
    fx_up(fx);
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 1, NULL, NULL), BW_OK);
    assert_int_equal(init(fx, &f, &idle, 60000, false), BW_OK);
    assert_int_equal(init(fx, &f, &t, 60000, false), BW_OK);
    bw_err e = BW_OK;
    for (int64_t until = bw_clock_mono_ms() + 30000; !e && bw_clock_mono_ms() < until;) {
        assert_int_equal(put(fx, &f, &t, 0, 1), BW_OK);
        assert_int_equal(end(fx, &f, &t, true, false), BW_OK);
        bw_request r = rq(BW_API_DESCRIBE_TRANSACTION, NULL);
        r.txn.id = bw_str_of("idle");
        answer a;
        e = fake_call(fx, &f, &r, &a);
        answer_free(&a);
    }
    assert_int_equal(e, BW_ERR_TRANSACTIONAL_ID_NOT_FOUND);
    fake_close(fx, &f);
    fx_down(fx);
    fx_up(fx);
    fake_open(fx, &f);
    int64_t pid = idle.pid;
    assert_int_equal(init(fx, &f, &idle, 60000, false), BW_OK);
    assert_true(idle.pid != pid && idle.epoch == 0); /* a new one */
    fake_close(fx, &f);
}

static void test_txn_log_is_the_daemons_own(void **state)
{
    fixture *fx = *state;
    fake f;
    tx t = {.id = "a"};
    batch_spec s = BATCH_SPEC;
    fake_open(fx, &f);
    assert_int_equal(init(fx, &f, &t, 60000, false), BW_OK);
    assert_int_equal(produce(fx, &f, "__transaction_state", 0, &s, BW_ACKS_VISIBLE, NULL), BW_ERR_INVALID_TOPIC);
    bw_request r = rq(BW_API_DELETE_TOPIC, "__transaction_state");
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_TOPIC);
    r = rq(BW_API_ATTACH, "__transaction_state");
    r.for_write = true;
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_TOPIC);
    assert_int_equal(rq_create(fx, &f, "__transaction_state", 1, NULL, NULL), BW_ERR_INVALID_TOPIC);
    r = rq(BW_API_LIST_OFFSETS, "__transaction_state");
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    fake_close(fx, &f);
}

static void test_txn_admin_lists_and_aborts(void **state)
{
    fixture *fx = *state;
    fake f;
    tx t = {.id = "a"};
    answer a;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 1, NULL, NULL), BW_OK);
    bw_request abort = rq(BW_API_ABORT_TRANSACTION, NULL);
    abort.txn.id = bw_str_of("a");
    assert_int_equal(fake_ask(fx, &f, &abort), BW_ERR_TRANSACTIONAL_ID_NOT_FOUND);
    assert_int_equal(init(fx, &f, &t, 60000, false), BW_OK);
    assert_int_equal(fake_ask(fx, &f, &abort), BW_ERR_INVALID_TXN_STATE);
    assert_int_equal(put(fx, &f, &t, 0, 3), BW_OK);
    bw_request list = rq(BW_API_LIST_TRANSACTIONS, NULL);
    assert_int_equal(fake_call(fx, &f, &list, &a), BW_OK);
    assert_non_null(memmem(a.a.doc, a.a.doc_len, "Ongoing", 7));
    answer_free(&a);
    bw_request describe = rq(BW_API_DESCRIBE_TRANSACTION, NULL);
    describe.txn.id = bw_str_of("a");
    assert_int_equal(fake_call(fx, &f, &describe, &a), BW_OK);
    assert_non_null(memmem(a.a.doc, a.a.doc_len, "partitions\x91", 11));
    answer_free(&a);
    assert_int_equal(fake_ask(fx, &f, &abort), BW_OK);
    assert_string_equal(look(fx, &f, 0).order, "dA");
    assert_int_equal(put(fx, &f, &t, 0, 1), BW_ERR_PRODUCER_FENCED);
    bw_request producers = rq(BW_API_DESCRIBE_PRODUCERS, "t");
    assert_int_equal(fake_call(fx, &f, &producers, &a), BW_OK);
    assert_non_null(memmem(a.a.doc, a.a.doc_len, "transaction_start_offset\xff", 25)); /* none is open */
    answer_free(&a);
    fake_close(fx, &f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_txn_commit_marks_each_partition_once, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_txn_committed_fetch_waits_for_the_commit_and_skips_the_aborted, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_txn_durable_commit_is_on_the_disk, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_txn_stale_producers_are_fenced, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_txn_timeout_aborts_and_fences, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_txn_pipelined_end_counts_what_came, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_txn_restart_keeps_what_goes_on, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_txn_checkpoints_let_the_log_go, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_txn_unused_ids_expire, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_txn_log_is_the_daemons_own, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_txn_admin_lists_and_aborts, fx_setup, fx_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
