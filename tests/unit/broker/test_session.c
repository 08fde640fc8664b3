/* Sessions: roles, HELLO, attachments, mailboxes, what happens when one ends, a second daemon, status. */
#include "fixture.h"

#include "log/datadir.h"
#include "proto/json.h"

static void test_hello_gives_the_version_and_refuses_others(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    bw_request r = rq(BW_API_HELLO, NULL);
    r.client_id = bw_str_of("tester");
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(a.a.version, BW_PROTOCOL_VERSION);
    assert_int_equal(a.a.server_pid, getpid());
    assert_int_equal(a.a.server_uid, geteuid());
    assert_true(a.a.arena_dir.len > 0);
    answer_free(&a);
    r.version_min = r.version_max = BW_PROTOCOL_VERSION + 1;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_ERR_UNSUPPORTED_VERSION);
    assert_int_equal(a.a.version_max, BW_PROTOCOL_VERSION);
    answer_free(&a);
    fake_close(fx, &f);
}

static void test_roles_group_produces_and_consumes_others_nothing(void **state)
{
    fixture *fx = *state;
    fake owner, member, stranger;
    fake_open(fx, &owner);
    assert_int_equal(rq_create(fx, &owner, "t", 1, NULL, NULL), BW_OK);
    fake_open_as(fx, &member, 54321, 4711);
    fake_open_as(fx, &stranger, 54321, 4712);
    batch_spec s = BATCH_SPEC;
    assert_int_equal(produce(fx, &member, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    bw_request r = rq_fetch("t", 0, 0, 0);
    assert_int_equal(fake_ask(fx, &member, &r), BW_OK);
    assert_int_equal(rq_create(fx, &member, "u", 1, NULL, NULL), BW_ERR_NOT_PERMITTED);
    r = rq(BW_API_DELETE_TOPIC, "t");
    assert_int_equal(fake_ask(fx, &member, &r), BW_ERR_NOT_PERMITTED);
    r = rq(BW_API_ATTACH, "t");
    assert_int_equal(fake_ask(fx, &member, &r), BW_OK);
    r.for_write = true;
    assert_int_equal(fake_ask(fx, &member, &r), BW_ERR_NOT_PERMITTED);
    static const bw_api_key all[] = {BW_API_HELLO, BW_API_METADATA, BW_API_STATUS, BW_API_MAILBOX, BW_API_INIT_PRODUCER_ID, BW_API_DESCRIBE_TOPICS};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        r = rq(all[i], NULL);
        assert_int_equal(fake_ask(fx, &stranger, &r), BW_ERR_NOT_PERMITTED);
    }
    assert_int_equal(produce(fx, &stranger, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_ERR_NOT_PERMITTED);
    fake_close(fx, &owner);
    fake_close(fx, &member);
    fake_close(fx, &stranger);
}
static int with_group(void **state)
{
    if (fx_make(state)) return -1;
    fixture *fx = *state;
    if (bw_daemon_config_set(&fx->config, "socket-group", "4711")) return -1;
    fx_up(fx);
    return 0;
}

static void test_unknown_request_is_answered_unsupported(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    bw_request r = rq(BW_API_STATUS, NULL);
    r.type = 4242;
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_UNSUPPORTED);
    r.type = BW_API_DATA;
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_UNSUPPORTED);
    fake_close(fx, &f);
}

static void test_mailboxes_are_distinct_and_come_back(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    bool seen[1024] = {false};
    bw_request r = rq(BW_API_MAILBOX, NULL);
    for (uint32_t i = BW_MAILBOX_SYNCER + 1; i < BW_MAILBOXES; i++) {
        answer a;
        assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
        assert_in_range(a.a.mailbox, BW_MAILBOX_SYNCER + 1, 1023);
        assert_false(seen[a.a.mailbox]);
        seen[a.a.mailbox] = true;
        answer_free(&a);
    }
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_BUSY);
    bw_request release = rq(BW_API_RELEASE_MAILBOX, NULL);
    release.mailbox = 77;
    assert_int_equal(fake_ask(fx, &f, &release), BW_OK);
    assert_int_equal(fake_ask(fx, &f, &release), BW_ERR_INVALID_ARGUMENT);
    release.mailbox = 0; /* the coordinator's */
    assert_int_equal(fake_ask(fx, &f, &release), BW_ERR_INVALID_ARGUMENT);
    release.mailbox = UINT32_MAX;
    assert_int_equal(fake_ask(fx, &f, &release), BW_ERR_INVALID_ARGUMENT);
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(a.a.mailbox, 77);
    answer_free(&a);
    fake_close(fx, &f);
}

static void test_close_gives_back_every_request_once(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 1, NULL, NULL), BW_OK);
    for (int i = 0; i < 20; i++) {
        bw_request r = rq_fetch("t", 0, 0, 60000);
        fake_send(fx, &f, &r);
    }
    bw_request sub = rq(BW_API_SUBSCRIBE, "t");
    sub.credit = 1;
    fake_send(fx, &f, &sub);
    bw_broker_session_closed(fx->broker, f.session);
    assert_true(fake_wait(&f, fake_is_gone, WAIT_MS));
    assert_int_equal(f.gone, 1);
    assert_int_equal(f.consumed, 22);
    fake g; /* and the broker lives */
    fake_open(fx, &g);
    batch_spec s = BATCH_SPEC;
    assert_int_equal(produce(fx, &g, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    fake_close(fx, &g);
    assert_int_equal(f.gone, 1);
    fake_free(&f);
}

static void test_stop_gives_back_sessions_that_are_open(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 1, NULL, NULL), BW_OK);
    bw_request r = rq_fetch("t", 0, 0, 60000);
    fake_send(fx, &f, &r);
    fx_down(fx);
    assert_int_equal(f.gone, 1);
    assert_int_equal(f.consumed, 2);
    fake_free(&f);
    fx_up(fx);
}

static void test_second_daemon_is_refused_with_the_pid(void **state)
{
    fixture *fx = *state;
    bw_broker *second;
    char pid[32];
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    assert_int_equal(bw_broker_start(&fx->config, &second), BW_ERR_ALREADY_RUNNING);
    assert_non_null(strstr(bw_error_message(), pid));
}

static void test_status_tells_connections_and_why_not_direct(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    bw_request r = rq(BW_API_HELLO, NULL);
    r.client_id = bw_str_of("prog \"x\"");
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    r = rq(BW_API_REPORT, "t");
    r.transport = bw_str_of("ipc");
    r.reason = bw_str_of("another PID namespace");
    fake_send(fx, &f, &r);
    r = rq(BW_API_STATUS, NULL);
    answer a;
    bw_buf json = {0};
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(bw_json_from_msgpack(a.a.doc, a.a.doc_len, &json), BW_OK);
    assert_int_equal(bw_buf_append(&json, "", 1), BW_OK);
    assert_non_null(strstr((char *)json.data, "\"why_not_direct\":\"another PID namespace\""));
    assert_non_null(strstr((char *)json.data, "\"client\":\"prog \\\"x\\\"\""));
    assert_non_null(strstr((char *)json.data, "\"ready\":true"));
    bw_buf_free(&json);
    answer_free(&a);
    fake_close(fx, &f);
}

/* Another process's shared lock, as a direct writer holds it. */
static bw_datadir *hold_as_writer(fixture *fx)
{
    bw_datadir *d;
    assert_int_equal(bw_datadir_open_client(fx->config.data_dir, &d), BW_OK);
    assert_int_equal(bw_datadir_lock_writers_shared(d, 1000), BW_OK);
    return d;
}

static void test_stop_with_a_direct_writer_leaves_the_control_data_to_the_next_start(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec s = BATCH_SPEC;
    for (int i = 0; i < 5; i++) assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    fake_close(fx, &f);
    bw_datadir *writer = hold_as_writer(fx);
    uint8_t generation[16];
    memcpy(generation, writer->generation, 16);
    fx_down(fx);
    fx_up(fx); /* takes over */
    fake_open(fx, &f);
    bw_request r = rq(BW_API_HELLO, NULL);
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_memory_equal(a.a.generation, generation, 16);
    answer_free(&a);
    int64_t offset;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_DURABLE, &offset), BW_OK);
    assert_int_equal(offset, 5);
    assert_int_equal(rq_create(fx, &f, "made-later", 2, NULL, NULL), BW_OK);
    assert_int_equal(produce(fx, &f, "made-later", 1, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    fake_close(fx, &f);
    bw_datadir_close(writer);
}

static void test_start_without_control_data_waits_for_direct_writers(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec s = BATCH_SPEC;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    fake_close(fx, &f);
    fx_down(fx); /* cleanly: the control data is gone */
    bw_datadir *writer = hold_as_writer(fx);
    fx_up(fx);
    fake_open(fx, &f);
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_ERR_BUSY); /* names the holder */
    bw_request r = rq(BW_API_STATUS, NULL);
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    assert_int_equal(rq_create(fx, &f, "u", 1, NULL, NULL), BW_ERR_BUSY);
    bw_datadir_close(writer);
    int64_t offset = -1, until = bw_clock_mono_ms() + WAIT_MS;
    while (produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, &offset) && bw_clock_mono_ms() < until) usleep(50000);
    assert_int_equal(offset, 1);
    fake_close(fx, &f);
}

static void test_idle_time_counts_without_sessions(void **state)
{
    fixture *fx = *state;
    usleep(20000);
    assert_true(bw_broker_idle_ms(fx->broker) >= 15);
    fake f;
    fake_open(fx, &f);
    assert_int_equal(bw_broker_idle_ms(fx->broker), 0);
    fake_close(fx, &f);
    usleep(20000);
    assert_in_range(bw_broker_idle_ms(fx->broker), 15, 5000);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)
    const struct CMUnitTest tests[] = {
        T(test_hello_gives_the_version_and_refuses_others),
        cmocka_unit_test_setup_teardown(test_roles_group_produces_and_consumes_others_nothing, with_group, fx_teardown),
        T(test_unknown_request_is_answered_unsupported),
        T(test_mailboxes_are_distinct_and_come_back),
        T(test_close_gives_back_every_request_once),
        T(test_stop_gives_back_sessions_that_are_open),
        T(test_second_daemon_is_refused_with_the_pid),
        T(test_status_tells_connections_and_why_not_direct),
        T(test_stop_with_a_direct_writer_leaves_the_control_data_to_the_next_start),
        T(test_start_without_control_data_waits_for_direct_writers),
        T(test_idle_time_counts_without_sessions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
