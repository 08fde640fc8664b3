/* Committed offsets: commit, fetch, delete, checks, limits, restarts, logs that were cut or restored, expiry. */
#include "offsets_fixture.h"

#include "proto/json.h"

/* ---- commit and fetch ---- */

static void test_commit_is_fetched_and_survives_a_restart(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 2, 5);
    bw_request r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
    r.group.parts[0].offset = 3;
    r.group.parts[0].leader_epoch = 0;
    r.group.parts[0].metadata = bw_str_of("half way");
    assert_int_equal(ask_part(fx, &f, &r).error, BW_OK);
    assert_int_equal(commit(fx, &f, "g", "t", 1, 0), BW_OK);
    for (int i = 0; i < 2; i++) {
        outcome o = committed(fx, &f, "g", "t", 0);
        assert_int_equal(o.error, BW_OK);
        assert_int_equal(o.offset, 3);
        assert_int_equal(o.epoch, 0);
        assert_string_equal(o.metadata, "half way");
        assert_true(o.timestamp > bw_clock_wall_ms() - 60000 && o.timestamp <= bw_clock_wall_ms() + 1000);
        assert_int_equal(committed(fx, &f, "g", "t", 1).offset, 0);
        assert_int_equal(committed(fx, &f, "other", "t", 0).offset, -1);
        assert_int_equal(committed(fx, &f, "g", "nowhere", 0).offset, -1);
        if (i) break;
        fake_close(fx, &f);
        fx_down(fx);
        fx_up(fx);
        fake_open(fx, &f);
    }
    /* Newer ones replace it, lower ones too: the client decides. */
    assert_int_equal(commit(fx, &f, "g", "t", 0, 5), BW_OK);
    assert_int_equal(commit(fx, &f, "g", "t", 0, 1), BW_OK);
    outcome o = committed(fx, &f, "g", "t", 0);
    assert_int_equal(o.offset, 1);
    assert_string_equal(o.metadata, "");
    assert_int_equal(o.epoch, -1);
    fake_close(fx, &f);
}

static void test_fetch_without_parts_gives_all_of_the_group(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 3, 2);
    for (int i = 0; i < 3; i++) assert_int_equal(commit(fx, &f, "g", "t", i, i ? 0 : 2), BW_OK);
    assert_int_equal(commit(fx, &f, "g2", "t", 1, 0), BW_OK);
    bw_request r = rq_part(BW_API_OFFSET_FETCH, "g", NULL, 0);
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(a.a.group.part_count, 3);
    int seen = 0;
    for (size_t i = 0; i < 3; i++) {
        assert_true(bw_str_is(a.a.group.parts[i].topic, "t"));
        assert_int_equal(a.a.group.parts[i].offset, a.a.group.parts[i].partition ? 0 : 2);
        seen |= 1 << a.a.group.parts[i].partition;
    }
    assert_int_equal(seen, 7);
    answer_free(&a);
    r = rq_part(BW_API_OFFSET_FETCH, "nobody", NULL, 0);
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(a.a.group.part_count, 0);
    answer_free(&a);
    fake_close(fx, &f);
}

static void test_commits_sent_at_once_are_all_answered_and_the_last_one_holds(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 1, 1);
    batch_spec s = BATCH_SPEC;
    s.count = 3000;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    uint32_t first = f.correlation + 1;
    for (int i = 1; i <= 3000; i++) {
        bw_request r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
        r.group.parts[0].offset = i;
        fake_send(fx, &f, &r);
    }
    bw_request r = rq_part(BW_API_OFFSET_FETCH, "g", "t", 0); /* waits for what came before it */
    fake_send(fx, &f, &r);
    for (uint32_t i = 0; i < 3000; i++) {
        answer a;
        assert_true(fake_next(&f, WAIT_MS, &a));
        assert_int_equal(a.a.correlation, first + i);
        assert_int_equal(a.a.error, BW_OK);
        assert_int_equal(a.a.group.part_count, 1);
        assert_int_equal(a.a.group.parts[0].error, BW_OK);
        answer_free(&a);
    }
    answer a;
    assert_true(fake_next(&f, WAIT_MS, &a));
    assert_int_equal(a.a.group.parts[0].offset, 3000);
    answer_free(&a);
    fake_close(fx, &f);
}

/* ---- what is refused ---- */

static void test_commit_out_of_the_log_is_refused_with_the_range(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 1, 5);
    assert_int_equal(commit(fx, &f, "g", "t", 0, 5), BW_OK);
    assert_int_equal(commit(fx, &f, "g", "t", 0, 6), BW_ERR_INVALID_COMMIT_OFFSET);
    assert_int_equal(commit(fx, &f, "g", "t", 0, -1), BW_ERR_INVALID_COMMIT_OFFSET);
    assert_int_equal(commit(fx, &f, "g", "t", 0, INT64_MIN), BW_ERR_INVALID_COMMIT_OFFSET);
    bw_request r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
    r.group.parts[0].offset = INT64_MAX;
    outcome o = ask_part(fx, &f, &r);
    assert_int_equal(o.error, BW_ERR_INVALID_COMMIT_OFFSET);
    assert_non_null(strstr(o.message, "the log has 0 to 5"));
    assert_int_equal(commit(fx, &f, "g", "t", 1, 0), BW_ERR_UNKNOWN_PARTITION);
    assert_int_equal(commit(fx, &f, "g", "t", -1, 0), BW_ERR_UNKNOWN_PARTITION);
    assert_int_equal(commit(fx, &f, "g", "nowhere", 0, 0), BW_ERR_UNKNOWN_TOPIC);
    assert_int_equal(committed(fx, &f, "g", "t", 0).offset, 5);
    /* Below the log's start: allowed, as retention may have been quicker. */
    r = rq(BW_API_DELETE_RECORDS, "t");
    r.offset = 4;
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    assert_int_equal(commit(fx, &f, "g", "t", 0, 2), BW_OK);
    fake_close(fx, &f);
}

static void test_commit_with_a_bad_group_epoch_topic_id_or_metadata_is_refused(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 1, 1);
    char longest[251];
    memset(longest, 'g', sizeof longest);
    longest[250] = 0;
    assert_int_equal(commit(fx, &f, longest, "t", 0, 1), BW_ERR_INVALID_GROUP_ID);
    assert_int_equal(commit(fx, &f, "", "t", 0, 1), BW_ERR_INVALID_GROUP_ID);
    longest[249] = 0;
    assert_int_equal(commit(fx, &f, longest, "t", 0, 1), BW_OK);
    bw_request r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
    r.group.id = (bw_str){"a\0b", 3};
    r.group.parts[0].offset = 1;
    assert_int_equal(ask_part(fx, &f, &r).error, BW_ERR_INVALID_GROUP_ID);

    r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
    r.group.parts[0].offset = 1;
    r.group.parts[0].leader_epoch = 7;
    assert_int_equal(ask_part(fx, &f, &r).error, BW_ERR_LOG_INCARNATION_MISMATCH);

    r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
    r.group.parts[0].offset = 1;
    memset(r.group.parts[0].topic_id.b, 5, 16);
    assert_int_equal(ask_part(fx, &f, &r).error, BW_ERR_LOG_INCARNATION_MISMATCH);

    static char big[4097];
    memset(big, 'm', sizeof big);
    for (size_t len = 4096; len <= 4097; len++) {
        r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
        r.group.parts[0].offset = 1;
        r.group.parts[0].metadata = (bw_str){big, len};
        assert_int_equal(ask_part(fx, &f, &r).error, len == 4096 ? BW_OK : BW_ERR_OFFSET_METADATA_TOO_LARGE);
    }
    assert_int_equal(committed(fx, &f, "g", "t", 0).offset, 1);
    fake_close(fx, &f);
}

/* A client may send what only answers carry. */
static void test_commit_with_an_error_and_a_message_of_its_own_is_as_without(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 1, 1);
    static const bw_api_key types[] = {BW_API_OFFSET_COMMIT, BW_API_OFFSET_FETCH, BW_API_OFFSET_DELETE};
    for (int i = 0; i < 3; i++) {
        bw_request r = rq_part(types[i], "g", "t", 0);
        r.group.parts[0].offset = 1;
        r.group.parts[0].error = 5;
        r.group.parts[0].message = bw_str_of("not malloc'd");
        outcome o = ask_part(fx, &f, &r);
        assert_int_equal(o.error, BW_OK);
        assert_string_equal(o.message, "");
    }
    fake_close(fx, &f);
}

static void test_limits_are_named(void **state)
{
    fixture *fx = *state;
    fake f;
    fx_down(fx);
    assert_int_equal(bw_daemon_config_set(&fx->config, "offsets.groups.max", "2"), BW_OK);
    assert_int_equal(bw_daemon_config_set(&fx->config, "offsets.per.group.max", "3"), BW_OK);
    fx_up(fx);
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 4, 1);
    for (int i = 0; i < 3; i++) assert_int_equal(commit(fx, &f, "a", "t", i, 0), BW_OK);
    bw_request r = rq_part(BW_API_OFFSET_COMMIT, "a", "t", 3);
    r.group.parts[0].offset = 0;
    outcome o = ask_part(fx, &f, &r);
    assert_int_equal(o.error, BW_ERR_LIMIT_REACHED);
    assert_non_null(strstr(o.message, "offsets.per.group.max"));
    assert_int_equal(commit(fx, &f, "b", "t", 0, 0), BW_OK);
    r = rq_part(BW_API_OFFSET_COMMIT, "c", "t", 0);
    r.group.parts[0].offset = 0;
    o = ask_part(fx, &f, &r);
    assert_int_equal(o.error, BW_ERR_LIMIT_REACHED);
    assert_non_null(strstr(o.message, "offsets.groups.max"));
    r = rq_part(BW_API_OFFSET_DELETE, "b", "t", 0);
    assert_int_equal(ask_part(fx, &f, &r).error, BW_OK);
    assert_int_equal(commit(fx, &f, "c", "t", 0, 0), BW_OK);
    fake_close(fx, &f);
}

/* ---- delete ---- */

static void test_deleted_offset_is_gone_after_a_restart_too(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 2, 5);
    assert_int_equal(commit(fx, &f, "g", "t", 0, 3), BW_OK);
    assert_int_equal(commit(fx, &f, "g", "t", 1, 0), BW_OK);
    bw_request r = rq_part(BW_API_OFFSET_DELETE, "g", "t", 0);
    assert_int_equal(ask_part(fx, &f, &r).error, BW_OK);
    r = rq_part(BW_API_OFFSET_DELETE, "nobody", "t", 0);
    assert_int_equal(ask_part(fx, &f, &r).error, BW_ERR_GROUP_ID_NOT_FOUND);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(committed(fx, &f, "g", "t", 0).offset, -1);
        assert_int_equal(committed(fx, &f, "g", "t", 1).offset, 0);
        fake_close(fx, &f);
        fx_down(fx);
        fx_up(fx);
        fake_open(fx, &f);
    }
    fake_close(fx, &f);
}

static void test_topic_that_is_made_again_has_no_committed_offsets(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 1, 5);
    assert_int_equal(commit(fx, &f, "g", "t", 0, 3), BW_OK);
    bw_request r = rq(BW_API_DELETE_TOPIC, "t");
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    assert_int_equal(committed(fx, &f, "g", "t", 0).offset, -1);
    make_topic(fx, &f, "t", 1, 5);
    assert_int_equal(committed(fx, &f, "g", "t", 0).offset, -1);
    assert_int_equal(commit(fx, &f, "g", "t", 0, 2), BW_OK);
    fake_close(fx, &f);
    fx_down(fx);
    assert_int_equal(stored_offsets(fx), 1);
    fx_up(fx);
    fake_open(fx, &f);
    assert_int_equal(committed(fx, &f, "g", "t", 0).offset, 2);
    fake_close(fx, &f);
}

/* ---- list, describe, delete ---- */

static char *document(fixture *fx, fake *f, bw_request *r)
{
    answer a;
    bw_buf json = {0};
    assert_int_equal(fake_call(fx, f, r, &a), BW_OK);
    assert_int_equal(bw_json_from_msgpack(a.a.doc, a.a.doc_len, &json), BW_OK);
    assert_int_equal(bw_buf_append(&json, "", 1), BW_OK);
    answer_free(&a);
    return (char *)json.data;
}

static void assert_has(const char *json, const char *text)
{
    if (!strstr(json, text)) print_message("%s is not in %s\n", text, json);
    assert_non_null(strstr(json, text));
}

static void test_describe_says_lag_in_records_and_time(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 3, NULL, NULL), BW_OK);
    batch_spec s = BATCH_SPEC;
    s.timestamp = bw_clock_wall_ms() - 100000;
    assert_int_equal(produce(fx, &f, "t", 0, &s, 1, NULL), BW_OK);
    s.timestamp += 50000;
    for (int i = 0; i < 4; i++) assert_int_equal(produce(fx, &f, "t", 0, &s, 1, NULL), BW_OK);
    bw_request r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
    r.group.parts[0].offset = 1;
    r.group.parts[0].metadata = bw_str_of("\"quoted\"");
    assert_int_equal(ask_part(fx, &f, &r).error, BW_OK);
    assert_int_equal(commit(fx, &f, "g", "t", 2, 0), BW_OK);
    r = rq_part(BW_API_DESCRIBE_GROUP, "g", NULL, 0);
    char *json = document(fx, &f, &r);
    assert_has(json, "{\"group\":\"g\",\"state\":\"Empty\",\"kind\":\"simple\",\"assignor\":\"\",\"epoch\":0,\"members\":[],\"partitions\":[");
    assert_has(json, "\"topic\":\"t\",\"partition\":0,\"member\":null,\"committed_offset\":1,\"metadata\":\"\\\"quoted\\\"\",");
    assert_has(json, "\"log_start_offset\":0,\"end_offset\":5,\"lag\":4,\"lag_ms\":5");
    assert_has(json, "\"end_offset\":0,\"lag\":0,\"lag_ms\":0,\"error\":null}]}");
    const char *lag = strstr(json, "\"lag_ms\":");
    assert_in_range(strtol(lag + 9, NULL, 10), 50000, 60000);
    free(json);
    r = rq_part(BW_API_LIST_GROUPS, "", NULL, 0);
    json = document(fx, &f, &r);
    assert_string_equal(json, "[{\"group\":\"g\",\"state\":\"Empty\",\"kind\":\"simple\",\"members\":0,\"partitions\":2}]");
    free(json);
    r = rq_part(BW_API_DESCRIBE_GROUP, "nobody", NULL, 0);
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_GROUP_ID_NOT_FOUND);
    r = rq_part(BW_API_DESCRIBE_GROUP, "", NULL, 0);
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_GROUP_ID);
    r = rq(BW_API_STATUS, "");
    json = document(fx, &f, &r);
    assert_has(json, "\"offsets\":{\"groups\":1,\"committed\":2,");
    assert_has(json, "\"commits\":2,\"transactions\":2}");
    free(json);
    fake_close(fx, &f);
}

static void test_delete_group_is_whole_and_stays(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 3, 1);
    for (int i = 0; i < 3; i++) assert_int_equal(commit(fx, &f, "g", "t", i, 0), BW_OK);
    assert_int_equal(commit(fx, &f, "h", "t", 0, 1), BW_OK);
    bw_request r = rq_part(BW_API_DELETE_GROUP, "g", NULL, 0);
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    r = rq_part(BW_API_DELETE_GROUP, "g", NULL, 0);
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_GROUP_ID_NOT_FOUND);
    r = rq_part(BW_API_LIST_GROUPS, "", NULL, 0);
    char *json = document(fx, &f, &r);
    assert_string_equal(json, "[{\"group\":\"h\",\"state\":\"Empty\",\"kind\":\"simple\",\"members\":0,\"partitions\":1}]");
    free(json);
    fake_close(fx, &f);
    fx_down(fx);
    assert_int_equal(stored_offsets(fx), 1);
    fx_up(fx);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, fx_setup, fx_teardown)
    const struct CMUnitTest tests[] = {
        T(test_commit_is_fetched_and_survives_a_restart),
        T(test_fetch_without_parts_gives_all_of_the_group),
        T(test_commits_sent_at_once_are_all_answered_and_the_last_one_holds),
        T(test_commit_out_of_the_log_is_refused_with_the_range),
        T(test_commit_with_a_bad_group_epoch_topic_id_or_metadata_is_refused),
        T(test_commit_with_an_error_and_a_message_of_its_own_is_as_without),
        T(test_limits_are_named),
        T(test_deleted_offset_is_gone_after_a_restart_too),
        T(test_topic_that_is_made_again_has_no_committed_offsets),
        T(test_describe_says_lag_in_records_and_time),
        T(test_delete_group_is_whole_and_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
