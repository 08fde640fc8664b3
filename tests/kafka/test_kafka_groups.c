/* kafka:// through the public API: groups, commits, administration. */
#include "kafka/cluster.h"

/* ---- groups ---- */

typedef struct told {
    int assigned, revoked, lost;
} told;

static void on_rebalance(bw_consumer *c, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)parts;
    told *t = opaque;
    if (event == BW_REBALANCE_ASSIGNED) t->assigned += (int)count;
    if (event == BW_REBALANCE_REVOKED) t->revoked += (int)count;
    if (event == BW_REBALANCE_LOST) t->lost += (int)count;
    bw_batch b;
    assert_err(bw_consumer_poll(c, 0, &b), BW_ERR_INVALID_ARGUMENT);
}

static bw_consumer *open_member(const char *group, told *t) { return open_member_telling(group, t ? on_rebalance : NULL, t); }

/* Polls both until each has this many partitions; what is read is counted. */
static int balance(bw_consumer *a, bw_consumer *b, size_t want_a, size_t want_b)
{
    int records = 0;
    for (int64_t until = now_ms() + 30000; now_ms() < until;) {
        bw_consumer *both[] = {a, b};
        size_t have[2] = {0, 0};
        for (int i = 0; i < 2; i++) {
            bw_batch batch;
            bw_topic_partition *parts;
            if (!both[i]) continue;
            if (bw_consumer_poll(both[i], 20, &batch) == BW_OK) records += batch.count;
            assert_ok(bw_consumer_assignment(both[i], &parts, &have[i]));
            bw_free(parts);
        }
        if (have[0] == want_a && have[1] == want_b) return records;
    }
    fail_msg("the group did not settle: %s", bw_error_message());
    return records;
}

static void test_group_divides_commits_and_goes_on(void **state)
{
    (void)state;
    const char *topic = name("group"), *group = name("members");
    make_topic(topic);
    for (int p = 0; p < 4; p++) send_numbers(topic, p, 0, 100);
    told one = {0, 0, 0}, two = {0, 0, 0};
    bw_consumer *a = open_member(group, &one), *b = open_member(group, &two);
    assert_ok(bw_consumer_subscribe(a, &topic, 1));
    assert_err(bw_consumer_assign(a, topic, 0, 0), BW_ERR_INVALID_ARGUMENT);
    int records = balance(a, NULL, 4, 0);
    assert_int_equal(one.assigned, 4);
    for (int64_t until = now_ms() + 20000; records < 400 && now_ms() < until;) {
        bw_batch batch;
        if (bw_consumer_poll(a, 100, &batch) == BW_OK) records += batch.count;
    }
    assert_int_equal(records, 400);
    assert_ok(bw_consumer_commit(a, NULL, 0, 10000));
    bw_group_metadata who;
    assert_ok(bw_consumer_group_metadata(a, &who));
    assert_string_equal(who.group_id, group);
    assert_true(*who.member_id && who.member_epoch >= 1);
    assert_ok(bw_consumer_subscribe(b, &topic, 1));
    assert_int_equal(balance(a, b, 2, 2), 0);
    assert_int_equal(one.revoked, 2);
    assert_int_equal(two.assigned, 2);
    bw_topic_partition parts[4];
    for (int p = 0; p < 4; p++) parts[p] = (bw_topic_partition){.topic = topic, .partition = p, .leader_epoch = -1};
    assert_ok(bw_consumer_committed(b, parts, 4, 10000));
    for (int p = 0; p < 4; p++) assert_int_equal(parts[p].offset, 100);
    bw_consumer_close(a);
    assert_int_equal(one.revoked, 4);
    balance(b, NULL, 4, 0);
    assert_int_equal(two.lost + one.lost, 0);
    assert_ok(bw_consumer_unsubscribe(b));
    assert_err(bw_consumer_unsubscribe(b), BW_ERR_NOT_SUBSCRIBED);
    assert_ok(bw_consumer_assign(b, topic, 0, 0));
    expect_numbers(b, 0, 100);
    bw_consumer_close(b);
}

static void commit_told(bw_consumer *c, bw_err e, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)c;
    int *called = opaque;
    assert_ok(e);
    assert_int_equal(count, 1);
    assert_int_equal(parts[0].offset, 7);
    ++*called;
}

static void test_commits_by_hand_with_metadata(void **state)
{
    (void)state;
    const char *topic = name("commit");
    make_topic(topic);
    send_numbers(topic, 1, 0, 10);
    bw_consumer *c = open_member(name("by-hand"), NULL);
    assert_ok(bw_consumer_assign(c, topic, 1, 0));
    bw_topic_partition part = {topic, 1, 7, -1, "seven", BW_OK};
    int called = 0;
    assert_ok(bw_consumer_commit_async(c, &part, 1, commit_told, &called));
    bw_batch b;
    for (int64_t until = now_ms() + 10000; !called && now_ms() < until;) (void)bw_consumer_poll(c, 20, &b);
    assert_int_equal(called, 1);
    bw_topic_partition asked[2] = {{topic, 1, 0, 0, NULL, BW_OK}, {topic, 0, 0, 0, NULL, BW_OK}};
    assert_ok(bw_consumer_committed(c, asked, 2, 10000));
    assert_int_equal(asked[0].offset, 7);
    assert_string_equal(asked[0].metadata, "seven");
    assert_int_equal(asked[1].offset, BW_OFFSET_INVALID);
    part.offset = -5;
    assert_err(bw_consumer_commit(c, &part, 1, 1000), BW_ERR_INVALID_COMMIT_OFFSET);
    bw_consumer_close(c);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    c = open_consumer(&o);
    assert_err(bw_consumer_commit(c, NULL, 0, 1000), BW_ERR_INVALID_ARGUMENT);
    bw_consumer_close(c);
}

static void test_auto_commit_is_of_what_was_given_before(void **state)
{
    (void)state;
    const char *topic = name("auto"), *group = name("auto-members");
    make_topic(topic);
    send_numbers(topic, 0, 0, 30);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = group;
    o.auto_offset_reset = BW_RESET_EARLIEST;
    bw_consumer *c = open_consumer(&o);
    assert_ok(bw_consumer_subscribe(c, &topic, 1));
    bw_batch b;
    int records = 0;
    for (int64_t until = now_ms() + 20000; records < 30 && now_ms() < until;)
        if (bw_consumer_poll(c, 100, &b) == BW_OK) records += b.count;
    assert_int_equal(records, 30);
    bw_consumer_close(c);
    c = open_member(group, NULL);
    bw_topic_partition part = {topic, 0, 0, 0, NULL, BW_OK};
    assert_ok(bw_consumer_committed(c, &part, 1, 10000));
    assert_int_equal(part.offset, 30);
    bw_consumer_close(c);
}

static void test_no_offset_is_told_when_there_is_no_reset(void **state)
{
    (void)state;
    const char *topic = name("none");
    make_topic(topic);
    send_numbers(topic, 0, 0, 5);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = name("no-offset");
    o.enable_auto_commit = false;
    bw_consumer *c = open_consumer(&o);
    assert_ok(bw_consumer_subscribe(c, &topic, 1));
    bw_batch b;
    bw_err e;
    int64_t until = now_ms() + 20000;
    do e = bw_consumer_poll(c, 1000, &b);
    while (e == BW_ERR_TIMED_OUT && now_ms() < until);
    assert_err(e, BW_ERR_NO_OFFSET);
    for (int i = 0; i < 3; i++) assert_err(bw_consumer_poll(c, 1000, &b), BW_ERR_NO_OFFSET);
    assert_err(bw_consumer_poll(c, 300, &b), BW_ERR_TIMED_OUT);
    assert_ok(bw_consumer_seek(c, topic, 0, 2));
    expect_numbers(c, 2, 3);
    bw_consumer_close(c);
}

/* ---- administration: a real cluster's ---- */

static void test_topics_are_made_described_changed_and_deleted(void **state)
{
    (void)state;
    if (!is_real()) skip();
    const char *topic = name("admin");
    bw_config_entry config[] = {{"retention.ms", "3600000"}, {"cleanup.policy", "compact"}};
    assert_ok(bw_topic_create(bus, topic, 2, config, 2));
    assert_err(bw_topic_create(bus, topic, 2, NULL, 0), BW_ERR_TOPIC_EXISTS);
    bw_config_entry bad = {"no.such.option", "1"};
    assert_err(bw_topic_create(bus, name("bad"), 1, &bad, 1), BW_ERR_INVALID_CONFIG);
    char *json = NULL;
    assert_ok(bw_topics_describe(bus, topic, &json));
    assert_non_null(strstr(json, "\"retention.ms\":{\"value\":\"3600000\",\"default\":false}"));
    bw_free(json);
    bw_config_entry change[] = {{"retention.ms", "7200000"}, {"max.message.bytes", "100000"}};
    assert_ok(bw_topic_alter(bus, topic, 3, change, 2));
    int32_t count = 0;
    for (int64_t until = now_ms() + 10000; count != 3 && now_ms() < until;) assert_ok(bw_topic_partitions(bus, topic, &count));
    assert_int_equal(count, 3);
    bw_config_entry back = {"max.message.bytes", NULL};
    assert_ok(bw_topic_alter(bus, topic, 0, &back, 1));
    bool seen = false;
    for (int64_t until = now_ms() + 10000; !seen && now_ms() < until;) {
        assert_ok(bw_topics_describe(bus, topic, &json));
        seen = strstr(json, "\"retention.ms\":{\"value\":\"7200000\",\"default\":false}") &&
               strstr(json, "\"cleanup.policy\":{\"value\":\"compact\",\"default\":false}") && !strstr(json, "100000");
        bw_free(json);
    }
    assert_true(seen);
    assert_ok(bw_topics_describe(bus, NULL, &json));
    assert_non_null(strstr(json, topic));
    bw_free(json);
    assert_ok(bw_topic_delete(bus, topic));
    assert_err(bw_topic_delete(bus, topic), BW_ERR_UNKNOWN_TOPIC);
}

static void test_groups_are_listed_described_moved_and_deleted(void **state)
{
    (void)state;
    if (!is_real()) skip();
    const char *topic = name("watched"), *group = name("watched-group");
    make_topic(topic);
    send_numbers(topic, 0, 0, 10);
    char *json = NULL;
    assert_err(bw_group_describe(bus, name("unheard-of"), &json), BW_ERR_GROUP_ID_NOT_FOUND);
    bw_consumer *c = open_member(group, NULL);
    assert_ok(bw_consumer_subscribe(c, &topic, 1));
    balance(c, NULL, 4, 0);
    bw_topic_partition part = {topic, 0, 4, -1, NULL, BW_OK};
    assert_ok(bw_consumer_commit(c, &part, 1, 10000));
    assert_ok(bw_groups_list(bus, &json));
    assert_non_null(strstr(json, group));
    bw_free(json);
    assert_ok(bw_group_describe(bus, group, &json));
    assert_non_null(strstr(json, "\"committed_offset\":4"));
    assert_non_null(strstr(json, "\"lag\":6"));
    assert_non_null(strstr(json, "\"state\":\"Stable\""));
    bw_free(json);
    bw_group_offset move[] = {{topic, 0, 8, NULL, BW_OK}, {topic, 1, 99, NULL, BW_OK}};
    assert_err(bw_group_offsets_alter(bus, group, move, 1), BW_ERR_NON_EMPTY_GROUP);
    assert_err(bw_group_delete(bus, group), BW_ERR_NON_EMPTY_GROUP);
    bw_consumer_close(c);
    assert_err(bw_group_offsets_alter(bus, group, move, 2), BW_ERR_INVALID_COMMIT_OFFSET);
    assert_int_equal(move[0].error, BW_OK);
    assert_int_equal(move[1].error, BW_ERR_INVALID_COMMIT_OFFSET);
    assert_ok(bw_group_describe(bus, group, &json));
    assert_non_null(strstr(json, "\"committed_offset\":8"));
    bw_free(json);
    assert_ok(bw_group_offsets_delete(bus, group, move, 1));
    bw_err e = bw_group_delete(bus, group); /* the last of its offsets may have taken it along */
    assert_true(e == BW_OK || e == BW_ERR_GROUP_ID_NOT_FOUND);
    assert_err(bw_group_delete(bus, group), BW_ERR_GROUP_ID_NOT_FOUND);
    int64_t start = 0;
    assert_ok(bw_delete_records(bus, topic, 0, 6, &start));
    assert_int_equal(start, 6);
    assert_err(bw_delete_records(bus, topic, 0, 600, &start), BW_ERR_OFFSET_OUT_OF_RANGE);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_divides_commits_and_goes_on),
        cmocka_unit_test(test_commits_by_hand_with_metadata),
        cmocka_unit_test(test_auto_commit_is_of_what_was_given_before),
        cmocka_unit_test(test_no_offset_is_told_when_there_is_no_reset),
        cmocka_unit_test(test_topics_are_made_described_changed_and_deleted),
        cmocka_unit_test(test_groups_are_listed_described_moved_and_deleted),
    };
    RUN_TESTS(tests);
}
