/* support for tests on a cluster: $KAFKA_URL is the cluster; $KAFKA_REAL is set when it is a real one (a mock has no administration and
 * no times). With an argument only the tests that match it (* and ?) run. */
#ifndef BW_TESTS_KAFKA_CLUSTER_H
#define BW_TESTS_KAFKA_CLUSTER_H

#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static bw_bus *bus;
static char run[32]; /* topics and groups of this run */

static inline bool is_real(void) { return getenv("KAFKA_REAL") != NULL; }

static inline const char *name(const char *what)
{
    static char names[8][128];
    static int at;
    char *out = names[at++ % 8];
    snprintf(out, sizeof names[0], "%s-%s", what, run);
    return out;
}

static inline bw_bus *open_bus(const char *url)
{
    bw_bus *b = NULL;
    assert_ok(bw_bus_open(url, NULL, &b));
    return b;
}

static inline int set_up(void **state)
{
    (void)state;
    snprintf(run, sizeof run, "%ld-%d", (long)time(NULL), getpid());
    bus = open_bus(getenv("KAFKA_URL"));
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    bw_bus_close(bus);
    return 0;
}

/* A topic with four partitions: a mock makes it when it is written to. */
static inline void make_topic(const char *topic)
{
    if (is_real()) assert_ok(bw_topic_create(bus, topic, 4, NULL, 0));
}

static inline bw_producer *open_producer(const bw_producer_options *o)
{
    bw_producer *p = NULL;
    assert_ok(bw_producer_open(bus, o, &p));
    return p;
}

static inline bw_consumer *open_consumer(const bw_consumer_options *o)
{
    bw_consumer *c = NULL;
    assert_ok(bw_consumer_open(bus, o, &c));
    return c;
}

static inline void send_numbers(const char *topic, int32_t partition, int from, int count)
{
    bw_producer *p = open_producer(NULL);
    for (int i = from; i < from + count; i++) {
        char text[32];
        snprintf(text, sizeof text, "value %d", i);
        bw_record r = test_record(NULL, text);
        assert_ok(bw_producer_send(p, topic, partition, &r, NULL, NULL, -1));
    }
    assert_ok(bw_producer_close(p, 20000));
}

static inline void expect_numbers(bw_consumer *c, int from, int count)
{
    bw_batch b;
    bw_record_view v;
    int next = from;
    while (next < from + count) {
        assert_ok(bw_consumer_poll(c, 10000, &b));
        while (bw_batch_next(&b, &v) == 1) {
            char text[32];
            snprintf(text, sizeof text, "value %d", next++);
            assert_int_equal(v.value_len, strlen(text));
            assert_memory_equal(v.value, text, v.value_len);
        }
    }
    assert_int_equal(next, from + count);
}

static inline bw_consumer *open_member_telling(const char *group, bw_rebalance_fn fn, void *opaque)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = group;
    o.auto_offset_reset = BW_RESET_EARLIEST;
    o.enable_auto_commit = false;
    o.session_timeout_ms = is_real() ? 6000 : 3500; /* a mock waits for so long at each rebalance */
    o.on_rebalance = fn;
    o.rebalance_opaque = opaque;
    return open_consumer(&o);
}

#define RUN_TESTS(tests)                                              \
    do {                                                              \
        if (argc > 1) cmocka_set_test_filter(argv[1]);                \
        return cmocka_run_group_tests((tests), set_up, tear_down);    \
    } while (0)

#endif
