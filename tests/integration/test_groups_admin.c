/* Groups from outside: list, describe, delete, alter and delete offsets, with members and without. */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t wall_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static json_t *describe(bw_bus *bus, const char *group)
{
    char *text = NULL;
    assert_ok(bw_group_describe(bus, group, &text));
    json_t *j = json_loads(text, 0, NULL);
    if (!j) fail_msg("not JSON: %s", text);
    bw_free(text);
    return j;
}

static const char *text_of(json_t *j, const char *key) { return json_string_value(json_object_get(j, key)); }
static json_int_t number_of(json_t *j, const char *key) { return json_integer_value(json_object_get(j, key)); }

static bw_consumer *member_of(bw_bus *bus, const char *group, const char *topic)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = group;
    o.enable_auto_commit = false;
    o.auto_offset_reset = BW_RESET_EARLIEST;
    bw_consumer *c = NULL;
    bw_batch b;
    assert_ok(bw_consumer_open(bus, &o, &c));
    assert_ok(bw_consumer_subscribe(c, &topic, 1));
    int64_t until = now_ms() + 10000;
    for (size_t n = 0; n == 0 && now_ms() < until;) {
        bw_topic_partition *parts = NULL;
        (void)bw_consumer_poll(c, 20, &b);
        assert_ok(bw_consumer_assignment(c, &parts, &n));
        bw_free(parts);
    }
    return c;
}

static void test_groups_are_described_with_their_members_and_lag(void **state)
{
    (void)state;
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    bw_bus *bus = test_bus(d.url);
    assert_ok(bw_topic_create(bus, "orders", 2, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < 5; i++) test_send(p, "orders", 0, "x");
    bw_consumer *c = member_of(bus, "billing", "orders");
    bw_topic_partition two = {.topic = "orders", .partition = 0, .offset = 2, .leader_epoch = -1, .metadata = "here"};
    assert_ok(bw_consumer_commit(c, &two, 1, 5000));
    json_t *g = describe(bus, "billing");
    assert_string_equal(text_of(g, "state"), "Stable");
    assert_string_equal(text_of(g, "kind"), "consumer");
    assert_true(strlen(text_of(g, "assignor")) > 0);
    assert_true(number_of(g, "epoch") > 0);
    json_t *m = json_array_get(json_object_get(g, "members"), 0);
    assert_int_equal(json_array_size(json_object_get(g, "members")), 1);
    assert_int_equal(number_of(m, "pid"), getpid());
    assert_int_equal(number_of(m, "uid"), geteuid());
    assert_true(number_of(m, "since_ms") > wall_ms() - 60000 && number_of(m, "since_ms") <= wall_ms());
    assert_int_equal(json_array_size(json_object_get(m, "partitions")), 2);
    json_t *parts = json_object_get(g, "partitions");
    assert_int_equal(json_array_size(parts), 2); /* one with a commit, one only owned */
    json_t *first = json_array_get(parts, 0), *second = json_array_get(parts, 1);
    assert_string_equal(text_of(first, "member"), text_of(m, "member"));
    assert_int_equal(number_of(first, "committed_offset"), 2);
    assert_string_equal(text_of(first, "metadata"), "here");
    assert_int_equal(number_of(first, "end_offset"), 5);
    assert_int_equal(number_of(first, "lag"), 3);
    assert_true(json_is_integer(json_object_get(first, "lag_ms")) && number_of(first, "lag_ms") < 60000);
    assert_string_equal(text_of(second, "member"), text_of(m, "member"));
    assert_true(json_is_null(json_object_get(second, "committed_offset")));
    assert_true(json_is_null(json_object_get(second, "lag")));
    json_decref(g);
    char *list = NULL;
    assert_ok(bw_groups_list(bus, &list));
    assert_string_equal(list, "[{\"group\":\"billing\",\"state\":\"Stable\",\"kind\":\"consumer\",\"members\":1,\"partitions\":1}]");
    bw_free(list);
    bw_consumer_close(c);
    assert_ok(bw_producer_close(p, 5000));
    bw_bus_close(bus);
    daemon_remove(&d);
}

static void test_groups_with_members_are_left_alone(void **state)
{
    (void)state;
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    bw_bus *bus = test_bus(d.url);
    assert_ok(bw_topic_create(bus, "orders", 2, NULL, 0));
    assert_ok(bw_topic_create(bus, "others", 1, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < 5; i++) test_send(p, "orders", 0, "x");
    bw_group_offset o[2] = {{.topic = "orders", .partition = 0, .offset = 3, .metadata = "m"}, {.topic = "others", .partition = 0, .offset = 0}};
    assert_ok(bw_group_offsets_alter(bus, "g", o, 2)); /* makes it */
    bw_consumer *c = member_of(bus, "g", "orders");
    assert_err(bw_group_offsets_alter(bus, "g", o, 1), BW_ERR_NON_EMPTY_GROUP);
    assert_int_equal(o[0].error, BW_ERR_NON_EMPTY_GROUP);
    assert_non_null(strstr(bw_error_message(), "stop them first"));
    assert_err(bw_group_offsets_delete(bus, "g", o, 2), BW_ERR_NON_EMPTY_GROUP);
    assert_int_equal(o[0].error, BW_ERR_NON_EMPTY_GROUP);
    assert_int_equal(o[1].error, BW_OK); /* nobody is subscribed to it */
    assert_err(bw_group_delete(bus, "g"), BW_ERR_NON_EMPTY_GROUP);
    bw_consumer_close(c);
    int64_t until = now_ms() + 10000; /* the leave is on its way */
    bw_err e;
    while ((e = bw_group_offsets_alter(bus, "g", o, 1)) == BW_ERR_NON_EMPTY_GROUP && now_ms() < until) usleep(5000);
    assert_ok(e);
    bw_group_offset bad[3] = {{.topic = "orders", .partition = 0, .offset = 9}, {.topic = "orders", .partition = 1}, {.topic = "nowhere"}};
    assert_err(bw_group_offsets_alter(bus, "g", bad, 3), BW_ERR_INVALID_COMMIT_OFFSET);
    assert_non_null(strstr(bw_error_message(), "0 to 5"));
    assert_int_equal(bad[1].error, BW_OK);
    assert_int_equal(bad[2].error, BW_ERR_UNKNOWN_TOPIC);
    assert_ok(bw_group_delete(bus, "g"));
    assert_err(bw_group_delete(bus, "g"), BW_ERR_GROUP_ID_NOT_FOUND);
    char *json = NULL;
    assert_err(bw_group_describe(bus, "g", &json), BW_ERR_GROUP_ID_NOT_FOUND);
    assert_null(json);
    assert_err(bw_group_offsets_delete(bus, "g", o, 1), BW_ERR_GROUP_ID_NOT_FOUND);
    assert_err(bw_group_offsets_alter(bus, "", o, 1), BW_ERR_INVALID_GROUP_ID);
    assert_err(bw_group_offsets_alter(bus, "g", NULL, 0), BW_ERR_INVALID_ARGUMENT);
    assert_ok(bw_producer_close(p, 5000));
    daemon_stop(&d, SIGKILL);
    daemon_start(&d);
    bw_bus_close(bus);
    bus = test_bus(d.url);
    assert_ok(bw_groups_list(bus, &json));
    assert_string_equal(json, "[]");
    bw_free(json);
    bw_bus_close(bus);
    daemon_remove(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_are_described_with_their_members_and_lag),
        cmocka_unit_test(test_groups_with_members_are_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
