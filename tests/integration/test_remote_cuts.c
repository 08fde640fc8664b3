/* test: no-asan
 * A producer and a consumer on the other side of a bad line (netproxy: cut at random bytes, delayed, losing packets) and a daemon that is killed
 * meanwhile: what was acknowledged is there once and in order, over tcp and over TLS. And what an idle connection costs. */
#include "support/bus.h"
#include "support/lossy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECORDS = 4000, VALUE_BYTES = 200 };

typedef struct scene {
    test_daemon d;
    lossy line;
    char certs[300], config[320], url[700];
    int tcp, tls;
    atomic_int acknowledged, failed;
} scene;

static int setup(void **state)
{
    scene *x = calloc(1, sizeof *x);
    const char *daemon = getenv("BUSWAYD");
    daemon_make(&x->d);
    snprintf(x->certs, sizeof x->certs, "%s.certs", x->d.dir);
    snprintf(x->config, sizeof x->config, "%s.conf", x->d.dir);
    test_run("mkdir '%s' && '%.*s/makecerts' '%s'", x->certs, (int)(strrchr(daemon, '/') - daemon), daemon, x->certs);
    x->tcp = free_port();
    do x->tls = free_port();
    while (x->tls == x->tcp);
    FILE *f = fopen(x->config, "w");
    assert_non_null(f);
    fprintf(f, "listeners = tcp://127.0.0.1:%d, tls+tcp://127.0.0.1:%d\nanonymous.role = admin\ntls.certificate = %s/server.pem\n"
               "tls.key = %s/server.key\n", x->tcp, x->tls, x->certs, x->certs);
    fclose(f);
    x->d.arguments[0] = "--config";
    x->d.arguments[1] = x->config;
    daemon_start(&x->d);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    scene *x = *state;
    lossy_stop(&x->line);
    daemon_remove(&x->d);
    test_run("rm -rf '%s' '%s'", x->certs, x->config);
    free(x);
    return 0;
}

static void through(scene *x, bool tls, unsigned seed, const char *const *rules)
{
    char to[40];
    snprintf(to, sizeof to, "127.0.0.1:%d", tls ? x->tls : x->tcp);
    lossy_start(&x->line, to, seed, rules);
    if (tls) snprintf(x->url, sizeof x->url, "tls+tcp://127.0.0.1:%d?ca=%s/ca.pem", x->line.port, x->certs);
    else snprintf(x->url, sizeof x->url, "tcp://127.0.0.1:%d", x->line.port);
}

static bw_bus *open_bus(const scene *x)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    bw_err e = BW_OK;
    for (int64_t until = now_ms() + 60000; now_ms() < until && (e = bw_bus_open(x->url, &o, &bus)); usleep(20000)) {}
    assert_ok(e);
    return bus;
}

static void delivered(void *opaque, const bw_delivery *d)
{
    scene *x = opaque;
    if (d->error == BW_OK) x->acknowledged++;
    else if (x->failed++ == 0) print_error("delivery: %s: %s\n", bw_err_name(d->error), d->message);
}

static void *produce(void *opaque)
{
    scene *x = opaque;
    char value[VALUE_BYTES + 1];
    bw_bus *bus = open_bus(x);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < RECORDS; i++) {
        snprintf(value, sizeof value, "%-*d", VALUE_BYTES, i);
        bw_record r = test_record(NULL, value);
        assert_ok(bw_producer_send(p, "cuts", 0, &r, delivered, x, 120000));
        if (i % 50 == 0) usleep(15000);
    }
    assert_ok(bw_producer_flush(p, 120000));
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    return NULL;
}

static void check(void *opaque, const bw_batch *batch, const bw_record_view *r)
{
    int *next = opaque;
    int number = atoi((const char *)r->value);
    (void)batch;
    if (number != *next || r->offset != *next) fail_msg("offset %lld has record %d instead of %d", (long long)r->offset, number, *next);
    ++*next;
}

static void cut_and_kill(scene *x, bool tls, int kills)
{
    static const char *const rules[] = {"--delay-ms", "1", "--jitter-ms", "2", "--loss", "0.05", "--cut-bytes", "200000", "--cut-ms", "400", NULL};
    pthread_t producer;
    int next = 0;
    through(x, tls, tls ? 7 : 3, rules);
    bw_bus *local = test_bus_by(x->d.url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(local, "cuts", 1, NULL, 0));
    bw_bus_close(local);
    pthread_create(&producer, NULL, produce, x);
    bw_bus *bus = open_bus(x);
    bw_consumer *c = NULL;
    assert_ok(bw_consumer_open(bus, NULL, &c));
    bw_err e = BW_OK;
    for (int64_t until = now_ms() + 60000; now_ms() < until && (e = bw_consumer_assign(c, "cuts", 0, 0));) {}
    assert_ok(e);
    for (int k = 1; k <= kills; k++) {
        assert_true(test_read(c, (size_t)(RECORDS * k / (kills + 1) - next), 100000, check, &next) > 0);
        daemon_stop(&x->d, SIGKILL);
        daemon_start(&x->d);
    }
    test_read(c, (size_t)(RECORDS - next), 120000, check, &next);
    assert_int_equal(next, RECORDS);
    pthread_join(producer, NULL);
    assert_int_equal(x->failed, 0);
    assert_int_equal(x->acknowledged, RECORDS);
    assert_int_equal(test_read(c, 1, 300, check, &next), 0);
    bw_consumer_close(c);
    bw_bus_close(bus);
    lossy_stats s = lossy_read(&x->line);
    print_message("%llu connections, %llu cuts, %llu bytes up, %llu down\n", s.connections, s.cuts, s.up, s.down);
    assert_true(s.cuts >= 10);
}

static void test_cuts_lose_and_double_nothing_over_tcp(void **state) { cut_and_kill(*state, false, 2); }

static void test_cuts_lose_and_double_nothing_over_tls(void **state) { cut_and_kill(*state, true, 1); }

static void any(void *opaque, const bw_batch *batch, const bw_record_view *r)
{
    int64_t *next = opaque;
    (void)batch;
    assert_int_equal(r->offset, *next);
    ++*next;
}

/* A frame that is not whole was sent for nothing: over a line that is cut every 60 kB few may be longer. */
static void test_reading_over_a_line_that_is_cut_often_sends_little_twice(void **state)
{
    enum { COUNT = 1200, BYTES = 1000 };
    static const char *const rules[] = {"--cut-bytes", "60000", NULL};
    scene *x = *state;
    char value[BYTES + 1];
    int64_t next = 0;
    memset(value, 'v', BYTES);
    value[BYTES] = 0;
    bw_bus *local = test_bus_by(x->d.url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(local, "often", 1, NULL, 0));
    bw_producer *p = test_producer(local, BW_ACKS_VISIBLE);
    for (int i = 0; i < COUNT; i++) {
        bw_record r = test_record(NULL, value);
        assert_ok(bw_producer_send(p, "often", 0, &r, NULL, NULL, 10000));
    }
    assert_ok(bw_producer_flush(p, 20000));
    bw_producer_close(p, 1000);
    through(x, false, 5, rules);
    bw_bus *bus = open_bus(x);
    bw_consumer *c = NULL;
    bw_err e = BW_OK;
    assert_ok(bw_consumer_open(bus, NULL, &c));
    for (int64_t until = now_ms() + 20000; now_ms() < until && (e = bw_consumer_assign(c, "often", 0, 0));) {}
    assert_ok(e);
    test_read(c, COUNT, 100000, any, &next);
    assert_int_equal(next, COUNT);
    lossy_stats s = lossy_read(&x->line);
    print_message("%d bytes read: %llu connections, %llu cuts, %llu bytes down\n", COUNT * BYTES, s.connections, s.cuts, s.down);
    assert_true(s.cuts >= 10);
    assert_true(s.down < 5 * COUNT * BYTES);
    bw_consumer_close(c);
    bw_bus_close(bus);
    bw_bus_close(local);
}

static void test_idle_connection_is_asked_and_a_dead_one_noticed(void **state)
{
    scene *x = *state;
    through(x, false, 1, NULL);
    snprintf(x->url + strlen(x->url), sizeof x->url - strlen(x->url), "?heartbeat=300ms");
    bw_bus *local = test_bus_by(x->d.url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(local, "idle", 1, NULL, 0));
    bw_bus *bus = open_bus(x);
    bw_consumer *c = test_consumer(bus, "idle", 0, 0);
    bw_batch b;
    for (int64_t until = now_ms() + 500; now_ms() < until;) bw_consumer_poll(c, 100, &b);
    lossy_stats before = lossy_read(&x->line);
    for (int64_t until = now_ms() + 3000; now_ms() < until;) bw_consumer_poll(c, 100, &b);
    lossy_stats after = lossy_read(&x->line);
    unsigned long long up = after.up_packets - before.up_packets;
    if (up < 3 || up > 12) fail_msg("%llu packets in 3 s with a heartbeat each 0.3 s", up);
    lossy_tell(&x->line, "stall"); /* nothing comes any more, nothing is closed */
    bw_producer *p = test_producer(local, BW_ACKS_VISIBLE);
    test_send(p, "idle", 0, "later");
    assert_int_equal(test_read(c, 1, 500, NULL, NULL), 0);
    for (int64_t until = now_ms() + 10000; bw_consumer_poll(c, 100, &b) != BW_ERR_NOT_CONNECTED;) /* 1 s behind the heartbeat */
        if (now_ms() > until) fail_msg("a dead connection is not noticed");
    lossy_tell(&x->line, "go");
    assert_int_equal(test_read(c, 1, 20000, NULL, NULL), 1);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    bw_bus_close(local);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_cuts_lose_and_double_nothing_over_tcp, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cuts_lose_and_double_nothing_over_tls, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reading_over_a_line_that_is_cut_often_sends_little_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_connection_is_asked_and_a_dead_one_noticed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
