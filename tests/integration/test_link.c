/* test: limit=120
 * Links between two and three daemons: mirrors with transactions, filters, names, gaps, groups' offsets and configuration; rings and meshes;
 * pause, resume, restart, removal; what cannot be. */
#include "support/links.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SITES = 3 };
static test_daemon sites[SITES];

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < SITES; i++) {
        daemon_make(&sites[i]);
        daemon_start(&sites[i]);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (int i = 0; i < SITES; i++) daemon_remove(&sites[i]);
    return 0;
}

static void create(int site, const char *topic, int32_t partitions, const bw_config_entry *config, size_t count)
{
    bw_bus *bus = test_bus(sites[site].url);
    assert_ok(bw_topic_create(bus, topic, partitions, config, count));
    bw_bus_close(bus);
}

/* `count` records "<tag><from>"… with that text as their key, ten a batch. */
static void write_some(int site, const char *topic, int32_t partition, const char *tag, int from, int count)
{
    bw_bus *bus = test_bus(sites[site].url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = from; i < from + count; i += 10) {
        char values[10][24];
        bw_record records[10];
        size_t n = 0;
        for (; n < 10 && i + (int)n < from + count; n++) {
            snprintf(values[n], sizeof values[n], "%s%d", tag, i + (int)n);
            records[n] = test_record(values[n], values[n]);
        }
        assert_ok(bw_producer_send_batch(p, topic, partition, records, n, 5000, NULL));
    }
    assert_ok(bw_producer_close(p, 5000));
    bw_bus_close(bus);
}

static char *url_of(int site)
{
    static char text[SITES][400];
    snprintf(text[site], sizeof text[site], "url=%s", sites[site].url);
    return text[site];
}

/* ---- mirrors ---- */

static void write_transactions(int site, const char *topic)
{
    bw_bus *bus = test_bus(sites[site].url);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.transactional_id = "tx";
    bw_producer *p = NULL;
    assert_ok(bw_producer_open(bus, &o, &p));
    assert_ok(bw_transactions_init(p, 5000));
    for (int i = 0; i < 6; i++) {
        char value[24];
        snprintf(value, sizeof value, "tx%d", i);
        bw_record r = test_record(value, value);
        assert_ok(bw_transaction_begin(p));
        assert_ok(bw_producer_send_sync(p, topic, 0, &r, 5000, NULL));
        if (i % 2) assert_ok(bw_transaction_abort(p, 5000));
        else assert_ok(bw_transaction_commit(p, 5000));
    }
    assert_ok(bw_producer_close(p, 5000));
    bw_bus_close(bus);
}

static void assert_committed_equal(int a, int b, const char *topic)
{
    seen_list x = read_whole(sites[a].url, topic, 0, BW_READ_COMMITTED), y = read_whole(sites[b].url, topic, 0, BW_READ_COMMITTED);
    assert_int_equal(x.count, y.count);
    for (size_t i = 0; i < x.count; i++) assert_int_equal(x.items[i].offset, y.items[i].offset);
    free(x.items);
    free(y.items);
}

static void test_link_mirror_with_transactions_is_equal_and_read_only(void **state)
{
    (void)state;
    create(0, "orders", 2, NULL, 0);
    write_some(0, "orders", 0, "a", 0, 500);
    link_add(sites[1].url, "pull", (const char *const[]){url_of(0), "topics=orders", NULL});
    write_some(0, "orders", 1, "b", 0, 500);
    write_transactions(0, "orders");
    for (int32_t i = 0; i < 2; i++) wait_for_end(sites[1].url, "orders", i, end_of(sites[0].url, "orders", i), 10000);
    for (int32_t i = 0; i < 2; i++) assert_mirrors(sites[0].url, "orders", sites[1].url, "orders", i);
    assert_committed_equal(0, 1, "orders");
    bw_bus *bus = test_bus_by(sites[1].url, BW_TRANSPORT_IPC);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_record r = test_record("k", "mine");
    assert_err(bw_producer_send_sync(p, "orders", 0, &r, 5000, NULL), BW_ERR_MIRROR_READ_ONLY);
    assert_ok(bw_producer_close(p, 5000));
    bw_bus_close(bus);
}

static void test_link_goes_on_after_pause_restart_and_ends_when_removed(void **state)
{
    (void)state;
    create(0, "t", 1, NULL, 0);
    link_add(sites[1].url, "pull", (const char *const[]){url_of(0), "topics=t", NULL});
    write_some(0, "t", 0, "a", 0, 20);
    wait_for_end(sites[1].url, "t", 0, 20, 10000);
    bw_bus *bus = test_bus_by(sites[1].url, BW_TRANSPORT_IPC);
    bw_config_entry pause = {"paused", "true"}, resume = {"paused", "false"};
    assert_ok(bw_link_alter(bus, "pull", &pause, 1));
    bw_bus_close(bus);
    daemon_stop(&sites[1], SIGTERM);
    daemon_start(&sites[1]);
    write_some(0, "t", 0, "b", 0, 20);
    usleep(150000);
    assert_int_equal(end_of(sites[1].url, "t", 0), 20);
    assert_string_equal(link_text(sites[1].url, "pull", "state"), "paused");
    bus = test_bus_by(sites[1].url, BW_TRANSPORT_IPC);
    assert_ok(bw_link_alter(bus, "pull", &resume, 1));
    wait_for_end(sites[1].url, "t", 0, 40, 10000);
    daemon_stop(&sites[0], SIGTERM); /* and the source */
    daemon_start(&sites[0]);
    write_some(0, "t", 0, "c", 0, 20);
    wait_for_end(sites[1].url, "t", 0, 60, 10000);
    assert_mirrors(sites[0].url, "t", sites[1].url, "t", 0);
    assert_ok(bw_link_remove(bus, "pull"));
    write_some(0, "t", 0, "d", 0, 20);
    usleep(150000);
    assert_int_equal(end_of(sites[1].url, "t", 0), 60);
    char *json = NULL;
    assert_err(bw_link_describe(bus, "pull", &json), BW_ERR_UNKNOWN_LINK);
    bw_bus_close(bus);
}

static void test_link_source_retention_overtakes_tells_gap(void **state)
{
    (void)state;
    create(0, "t", 1, NULL, 0);
    link_add(sites[1].url, "pull", (const char *const[]){url_of(0), "topics=t", NULL});
    write_some(0, "t", 0, "a", 0, 50);
    wait_for_end(sites[1].url, "t", 0, 50, 10000);
    daemon_stop(&sites[1], SIGTERM);
    write_some(0, "t", 0, "b", 50, 50);
    bw_bus *bus = test_bus_by(sites[0].url, BW_TRANSPORT_IPC);
    assert_ok(bw_delete_records(bus, "t", 0, 80, NULL));
    bw_bus_close(bus);
    daemon_start(&sites[1]);
    wait_for_end(sites[1].url, "t", 0, 100, 10000);
    seen_list l = read_whole(sites[1].url, "t", 0, BW_READ_UNCOMMITTED);
    assert_int_equal(l.count, 70);
    assert_int_equal(l.items[49].offset, 49);
    assert_int_equal(l.items[50].offset, 80);
    assert_string_equal(l.items[50].value, "b80");
    free(l.items);
    assert_int_equal(link_number(sites[1].url, "pull", "lost_records"), 30);
}

static void test_link_patterns_prefix_new_topics_configs_and_groups_travel(void **state)
{
    (void)state;
    bw_config_entry config = {"retention.ms", "12345678"};
    create(0, "m.one", 1, &config, 1);
    create(0, "other", 1, NULL, 0);
    write_some(0, "m.one", 0, "a", 0, 30);
    bw_bus *bus = test_bus_by(sites[0].url, BW_TRANSPORT_IPC);
    bw_group_offset o = {.topic = "m.one", .partition = 0, .offset = 20};
    assert_ok(bw_group_offsets_alter(bus, "readers", &o, 1));
    bw_bus_close(bus);
    link_add(sites[0].url, "push",
             (const char *const[]){url_of(1), "direction=push", "topics=^m\\..*", "prefix=from0.", "configs=true", "groups=readers",
                                   "compression=lz4", NULL});
    wait_for_end(sites[1].url, "from0.m.one", 0, 30, 10000);
    create(0, "m.two", 3, NULL, 0); /* later */
    write_some(0, "m.two", 2, "b", 0, 30);
    wait_for_end(sites[1].url, "from0.m.two", 2, 30, 10000);
    assert_int_equal(end_of(sites[1].url, "from0.other", 0), -1);
    bus = test_bus_by(sites[1].url, BW_TRANSPORT_IPC);
    char *json = NULL;
    assert_ok(bw_topics_describe(bus, "from0.m.one", &json));
    assert_non_null(strstr(json, "12345678"));
    bw_free(json);
    bool there = false;
    for (int i = 0; i < 500 && !there; i++) {
        if (bw_group_describe(bus, "readers", &json) == BW_OK) {
            there = strstr(json, "\"committed_offset\":20") && strstr(json, "from0.m.one");
            bw_free(json);
        }
        usleep(10000);
    }
    assert_true(there);
    bw_bus_close(bus);
}

static void test_link_filters_bring_only_what_matches(void **state)
{
    (void)state;
    create(0, "t", 1, NULL, 0);
    bw_bus *bus = test_bus(sites[0].url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < 100; i++) {
        char value[24];
        bw_header h = {"kind", 4, i % 3 ? "x" : "alarm", i % 3 ? 1 : 5};
        snprintf(value, sizeof value, "%s%d", i % 2 ? "odd" : "even", i);
        bw_record r = test_record(value, value);
        r.headers = &h;
        r.header_count = 1;
        assert_ok(bw_producer_send_sync(p, "t", 0, &r, 5000, NULL));
    }
    assert_ok(bw_producer_close(p, 5000));
    bw_bus_close(bus);
    link_add(sites[1].url, "keys", (const char *const[]){url_of(0), "topics=t", "key-prefix=even", "prefix=even.", NULL});
    link_add(sites[1].url, "heads", (const char *const[]){url_of(0), "topics=t", "header=kind=alarm", "mode=merge", "rename=alarms", NULL});
    wait_for_end(sites[1].url, "even.t", 0, 99, 10000);
    wait_for_end(sites[1].url, "alarms", 0, 34, 10000);
    seen_list l = read_whole(sites[1].url, "even.t", 0, BW_READ_UNCOMMITTED);
    assert_int_equal(l.count, 50);
    for (size_t i = 0; i < l.count; i++) assert_int_equal(l.items[i].offset, 2 * i); /* at their offsets */
    free(l.items);
    l = read_whole(sites[1].url, "alarms", 0, BW_READ_UNCOMMITTED);
    assert_int_equal(l.count, 34);
    free(l.items);
}

static void test_link_with_a_rate_sends_what_matters_first(void **state)
{
    (void)state;
    enum { BATCHES = 150, BYTES = 1000 };
    static const char *const topics[] = {"low", "high"};
    static char value[BYTES];
    memset(value, 'x', sizeof value);
    for (int t = 0; t < 2; t++) {
        create(0, topics[t], 1, NULL, 0);
        bw_bus *bus = test_bus(sites[0].url);
        bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
        bw_record r = {.value = value, .value_len = BYTES, .timestamp_ms = BW_NO_TIMESTAMP};
        for (int i = 0; i < BATCHES; i++) assert_ok(bw_producer_send_sync(p, topics[t], 0, &r, 5000, NULL));
        assert_ok(bw_producer_close(p, 5000));
        bw_bus_close(bus);
    }
    int64_t began = now_ms();
    link_add(sites[1].url, "slow", (const char *const[]){url_of(0), "topics=low:1,high:5", "rate=200K", NULL});
    wait_for_end(sites[1].url, "high", 0, BATCHES, 10000);
    assert_true(end_of(sites[1].url, "low", 0) < BATCHES / 2);
    assert_string_equal(link_text(sites[1].url, "slow", "state"), "copying");
    assert_true(link_number(sites[1].url, "slow", "lag_records") > BATCHES / 2);
    wait_for_end(sites[1].url, "low", 0, BATCHES, 10000);
    int64_t took = now_ms() - began;
    if (took < 1000) fail_msg("300 kB at 200 KiB/s took %lld ms", (long long)took);
}

/* ---- rings and meshes ---- */

static int by_value(const void *x, const void *y) { return strcmp(((const seen *)x)->value, ((const seen *)y)->value); }

/* Everybody writes, before and while the links run; at the end everybody has each record once. */
static void everybody_has_each_record_once(void)
{
    enum { EACH = 200 };
    static const char *const tags[] = {"a", "b", "c"};
    for (int round = 1; round < 3; round++)
        for (int i = 0; i < SITES; i++) write_some(i, "events", 0, tags[i], round * EACH, EACH);
    for (int i = 0; i < SITES; i++) wait_for_end(sites[i].url, "events", 0, 3 * 3 * EACH, 10000);
    usleep(100000); /* what should not come would come now */
    for (int i = 0; i < SITES; i++) {
        seen_list l = read_whole(sites[i].url, "events", 0, BW_READ_UNCOMMITTED);
        assert_int_equal(l.count, 3 * 3 * EACH);
        int last[3] = {-1, -1, -1};
        for (size_t k = 0; k < l.count; k++) { /* of each origin in its order */
            int who = l.items[k].value[0] - 'a', n = atoi(l.items[k].value + 1);
            assert_true(n > last[who]);
            last[who] = n;
        }
        qsort(l.items, l.count, sizeof *l.items, by_value);
        for (size_t k = 1; k < l.count; k++) assert_string_not_equal(l.items[k - 1].value, l.items[k].value);
        free(l.items);
    }
}

static void begin_events(void)
{
    static const char *const tags[] = {"a", "b", "c"};
    for (int i = 0; i < SITES; i++) {
        create(i, "events", 1, NULL, 0);
        write_some(i, "events", 0, tags[i], 0, 200);
    }
}

static void link_pair(int from, int to, bool push)
{
    char name[16];
    snprintf(name, sizeof name, "l%d%d", from, to);
    if (push) link_add(sites[from].url, name, (const char *const[]){url_of(to), "topics=events", "mode=merge", "direction=push",
                                                                    "compression=zstd", NULL});
    else link_add(sites[to].url, name, (const char *const[]){url_of(from), "topics=events", "mode=merge", NULL});
}

static void test_link_ring_of_three_delivers_each_record_once(void **state)
{
    (void)state;
    begin_events();
    for (int i = 0; i < SITES; i++) link_pair(i, (i + 1) % SITES, i == 1);
    everybody_has_each_record_once();
}

static void test_link_full_mesh_of_three_delivers_each_record_once(void **state)
{
    (void)state;
    begin_events();
    for (int i = 0; i < SITES; i++)
        for (int k = 0; k < SITES; k++)
            if (i != k) link_pair(i, k, i > k);
    everybody_has_each_record_once();
    daemon_stop(&sites[2], SIGKILL); /* and what they know of each other outlives them */
    daemon_start(&sites[2]);
    write_some(0, "events", 0, "a", 5000, 10);
    for (int i = 0; i < SITES; i++) wait_for_end(sites[i].url, "events", 0, 1810, 10000);
    usleep(100000);
    for (int i = 0; i < SITES; i++) assert_int_equal(end_of(sites[i].url, "events", 0), 1810);
}

/* ---- what cannot be ---- */

static void wait_for_error(int site, const char *link, const char *error)
{
    for (int i = 0; i < 500 && strcmp(link_text(sites[site].url, link, "error"), error); i++) usleep(10000);
    assert_string_equal(link_text(sites[site].url, link, "error"), error);
}

static void test_link_that_cannot_be_says_why(void **state)
{
    (void)state;
    bw_bus *bus = test_bus_by(sites[0].url, BW_TRANSPORT_IPC);
    bw_config_entry good[] = {{"url", sites[1].url}, {"topics", "t"}}, self[] = {{"url", sites[0].url}, {"topics", "t"}};
    bw_config_entry bad_url[] = {{"url", "gopher://x"}, {"topics", "t"}}, bad_option[] = {{"url", sites[1].url}, {"topics", "t"}, {"colour", "red"}};
    assert_err(bw_link_add(bus, "x", good, 1), BW_ERR_INVALID_ARGUMENT); /* no topics */
    assert_non_null(strstr(bw_error_message(), "topics"));
    assert_err(bw_link_add(bus, "x", bad_option, 3), BW_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(bw_error_message(), "colour"));
    assert_true(bw_link_add(bus, "x", bad_url, 2) != BW_OK);
    assert_err(bw_link_add(bus, "bad/name", good, 2), BW_ERR_INVALID_ARGUMENT);
    assert_ok(bw_link_add(bus, "x", good, 2));
    assert_err(bw_link_add(bus, "x", good, 2), BW_ERR_LINK_EXISTS);
    assert_err(bw_link_remove(bus, "y"), BW_ERR_UNKNOWN_LINK);
    wait_for_error(0, "x", "UNKNOWN_TOPIC"); /* it is not there yet */
    assert_ok(bw_link_add(bus, "loop", self, 2));
    wait_for_error(0, "loop", "LINK_LOOP");
    create(0, "t", 1, NULL, 0); /* a topic of that name is there and nobody's mirror */
    create(1, "t", 1, NULL, 0);
    for (int i = 0; i < 500 && link_number(sites[0].url, "x", "stopped") != 1; i++) usleep(10000);
    assert_int_equal(link_number(sites[0].url, "x", "stopped"), 1);
    bw_bus_close(bus);
}

static void test_link_of_the_configuration_file_runs_and_is_not_altered(void **state)
{
    (void)state;
    char conf[300];
    daemon_stop(&sites[1], SIGTERM);
    snprintf(conf, sizeof conf, "%s/link.conf", sites[1].dir);
    FILE *f = fopen(conf, "w");
    assert_non_null(f);
    fprintf(f, "[link home]\nurl = %s\ntopics = t\n", sites[0].url);
    fclose(f);
    sites[1].arguments[0] = "--config";
    sites[1].arguments[1] = conf;
    daemon_start(&sites[1]);
    create(0, "t", 1, NULL, 0);
    write_some(0, "t", 0, "a", 0, 10);
    wait_for_end(sites[1].url, "t", 0, 10, 10000);
    bw_bus *bus = test_bus_by(sites[1].url, BW_TRANSPORT_IPC);
    assert_err(bw_link_remove(bus, "home"), BW_ERR_INVALID_ARGUMENT);
    bw_bus_close(bus);
    daemon_stop(&sites[1], SIGTERM);
}

int main(void)
{
#define SCENE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        SCENE(test_link_mirror_with_transactions_is_equal_and_read_only),
        SCENE(test_link_goes_on_after_pause_restart_and_ends_when_removed),
        SCENE(test_link_source_retention_overtakes_tells_gap),
        SCENE(test_link_patterns_prefix_new_topics_configs_and_groups_travel),
        SCENE(test_link_filters_bring_only_what_matches),
        SCENE(test_link_with_a_rate_sends_what_matters_first),
        SCENE(test_link_ring_of_three_delivers_each_record_once),
        SCENE(test_link_full_mesh_of_three_delivers_each_record_once),
        SCENE(test_link_that_cannot_be_says_why),
        SCENE(test_link_of_the_configuration_file_runs_and_is_not_altered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
