/* Quotas seen from outside: rates are kept and told, a direct writer goes to the socket and comes back, bad ones are refused;
 * on both transports ($BUSWAY_TEST_TRANSPORT).
 * Rates are asserted from above only: never more than rate x time, a second's worth and one request. */
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
#include <unistd.h>

enum { RATE = 400000, BATCH_BYTES = 10000 };

static test_daemon d;

static int setup(void **state)
{
    (void)state;
    daemon_make(&d);
    daemon_start(&d);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    daemon_remove(&d);
    return 0;
}

static bw_bus *bus_of(const char *client)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus;
    o.client_id = client;
    if (!test_is_direct()) o.transport = BW_TRANSPORT_IPC;
    assert_ok(bw_bus_open(d.url, &o, &bus));
    return bus;
}

static bw_err set(bw_bus *bus, const char *user, const char *client, const char *rate, const char *value)
{
    bw_config_entry e = {rate, value};
    return bw_quota_set(bus, user, client, NULL, &e, 1);
}

static void send_one(bw_producer *p, const char *topic)
{
    static char value[BATCH_BYTES];
    memset(value, 'v', sizeof value);
    bw_record r = {.value = value, .value_len = sizeof value, .timestamp_ms = BW_NO_TIMESTAMP};
    assert_ok(bw_producer_send_batch(p, topic, 0, &r, 1, 20000, NULL));
}

/* How the bus writes to the topic now. */
static const char *write_way(bw_bus *bus, const char *topic)
{
    static char way[16];
    char *text = bw_bus_stats(bus);
    json_t *o = json_loads(text, 0, NULL), *list = json_object_get(o, "topics"), *each;
    size_t i;
    way[0] = 0;
    json_array_foreach(list, i, each)
    {
        if (strcmp(json_string_value(json_object_get(each, "topic")), topic)) continue;
        if (strcmp(json_string_value(json_object_get(each, "for")), "write")) continue;
        snprintf(way, sizeof way, "%s", json_string_value(json_object_get(each, "transport")));
    }
    json_decref(o);
    bw_free(text);
    return way;
}

static void test_throttled_producer_and_consumer_keep_their_rates(void **state)
{
    (void)state;
    bw_bus *admin = bus_of("admin"), *bus = bus_of("slow");
    assert_ok(bw_topic_create(admin, "t", 1, NULL, 0));
    assert_ok(set(admin, NULL, "slow", "producer_byte_rate", "400000"));
    assert_ok(set(admin, NULL, "slow", "consumer_byte_rate", "400000"));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    int64_t begin = now_ms();
    int sent = 0;
    while (now_ms() - begin < 1500) {
        send_one(p, "t");
        sent++;
        assert_true((double)(sent - 2) * BATCH_BYTES <= RATE * (double)(now_ms() - begin + 1000 + 1) / 1000.0);
    }
    assert_true(test_stat(bus, "throttled_ms") > 0);
    /* Another one feels nothing of it; and has the topic full for the reader. */
    bw_producer *quick = test_producer(admin, BW_ACKS_VISIBLE);
    for (int i = 0; i < 400; i++) send_one(quick, "t");
    bw_consumer *c = test_consumer(bus, "t", 0, BW_OFFSET_BEGINNING);
    begin = now_ms();
    int64_t bytes = 0;
    while (now_ms() - begin < 1500) {
        bw_batch b;
        bw_record_view v;
        bw_err e = bw_consumer_poll(c, 100, &b);
        if (e == BW_ERR_TIMED_OUT) continue;
        assert_ok(e);
        while (bw_batch_next(&b, &v) == 1) bytes += (int64_t)v.value_len;
        /* What one push brings may be a run of 256 KiB. */
        assert_true((double)(bytes - 262144 - BATCH_BYTES) <= RATE * (double)(now_ms() - begin + 1000 + 1) / 1000.0);
    }
    assert_true(bytes > 0 && bytes < 400 * BATCH_BYTES);
    char *json;
    assert_ok(bw_status(admin, &json));
    assert_non_null(strstr(json, "\"quotas\":[{\"client\":\"slow\""));
    assert_non_null(strstr(json, "\"throttled_ms\":"));
    bw_free(json);
    bw_consumer_close(c);
    bw_producer_close(quick, 1000);
    bw_producer_close(p, 5000);
    bw_bus_close(bus);
    bw_bus_close(admin);
}

static void test_direct_writer_goes_to_the_socket_and_comes_back(void **state)
{
    (void)state;
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *admin = bus_of("admin"), *bus;
    o.client_id = "writer"; /* whatever the transport under test */
    assert_ok(bw_bus_open(d.url, &o, &bus));
    assert_ok(bw_topic_create(admin, "t", 1, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    int sent = 0;
    for (; sent < 20; sent++) test_send(p, "t", 0, "v");
    assert_string_equal(write_way(bus, "t"), "direct");
    assert_ok(set(admin, NULL, "writer", "producer_byte_rate", "100000000"));
    for (; sent < 40; sent++) test_send(p, "t", 0, "v");
    assert_string_equal(write_way(bus, "t"), "ipc");
    assert_ok(set(admin, NULL, "writer", "producer_byte_rate", NULL));
    int64_t until = now_ms() + 20000;
    for (; strcmp(write_way(bus, "t"), "direct") && now_ms() < until; sent++) {
        test_send(p, "t", 0, "v");
        usleep(10000);
    }
    assert_string_equal(write_way(bus, "t"), "direct");
    for (int i = 0; i < 20; i++, sent++) assert_int_equal(test_send(p, "t", 0, "v"), sent); /* nothing lost, nothing doubled */
    bw_offset_range r;
    assert_ok(bw_offsets_range(admin, "t", 0, &r));
    assert_int_equal(r.end, sent);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    bw_bus_close(admin);
}

static void test_quotas_are_listed_kept_and_checked(void **state)
{
    (void)state;
    bw_bus *bus = bus_of("admin");
    char *json;
    assert_err(set(bus, NULL, NULL, "request_rate", "5"), BW_ERR_INVALID_QUOTA);
    assert_err(set(bus, NULL, "c", "request_rate", "0"), BW_ERR_INVALID_QUOTA);
    assert_err(set(bus, NULL, "c", "request_rate", "-5"), BW_ERR_INVALID_QUOTA);
    assert_non_null(strstr(bw_error_message(), "allowed"));
    assert_err(set(bus, NULL, "c", "rate", "5"), BW_ERR_INVALID_QUOTA);
    assert_err(set(bus, "no-such-user-here", NULL, "request_rate", "5"), BW_ERR_INVALID_QUOTA);
    assert_ok(set(bus, "root", BW_QUOTA_DEFAULT, "request_rate", "500000"));
    assert_ok(set(bus, NULL, "c", "producer_byte_rate", "1000"));
    bw_bus_close(bus);
    daemon_stop(&d, SIGKILL);
    daemon_start(&d);
    bus = bus_of("admin");
    assert_ok(bw_quotas_list(bus, "root", NULL, NULL, &json));
    assert_string_equal(json, "[{\"user\":\"0\",\"client\":\"<default>\",\"request_rate\":500000}]");
    bw_free(json);
    assert_ok(set(bus, NULL, "c", "producer_byte_rate", NULL));
    assert_ok(bw_quotas_list(bus, NULL, "c", NULL, &json));
    assert_string_equal(json, "[]");
    bw_free(json);
    bw_bus_close(bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_throttled_producer_and_consumer_keep_their_rates, setup, teardown),
        cmocka_unit_test_setup_teardown(test_direct_writer_goes_to_the_socket_and_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quotas_are_listed_kept_and_checked, setup, teardown),
    };
    return cmocka_run_group_tests_name("quota", tests, NULL, NULL);
}
