/* test: limit=120
 * Links at their edges: peers that never answer, offsets beyond 32 bits, a log's start that follows the origin's, filters that differ. */
#include "support/links.h"
#include "support/lossy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static test_daemon a, b;

static int setup(void **state)
{
    (void)state;
    daemon_make(&a);
    daemon_make(&b);
    daemon_start(&a);
    daemon_start(&b);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    daemon_remove(&a);
    daemon_remove(&b);
    return 0;
}

static void create(const char *url, const char *topic)
{
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(bus, topic, 1, NULL, 0));
    bw_bus_close(bus);
}

static void write_some(const char *url, const char *topic, int count)
{
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < count; i++) test_send(p, topic, 0, "some value");
    assert_ok(bw_producer_close(p, 5000));
    bw_bus_close(bus);
}

static char *option(const char *name, const char *value)
{
    static char text[4][400];
    static int at;
    at = (at + 1) % 4;
    snprintf(text[at], sizeof text[at], "%s=%s", name, value);
    return text[at];
}

/* ---- peers that never answer ---- */

enum { HOLES = 3 };
typedef struct hole {
    int listener, fillers[8];
    char url[200];
} hole;

/* It listens, and its queue of connections is full: whoever connects waits for ever. */
static void fill_queue(hole *h, const struct sockaddr *address, socklen_t len)
{
    for (int i = 0; i < 8; i++) {
        h->fillers[i] = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        assert_true(h->fillers[i] >= 0);
        (void)connect(h->fillers[i], address, len);
    }
}

/* tcp: connections are made, and nobody reads from them, or (full) not even that. */
static void dig_tcp(hole *h, bool full)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof in;
    h->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(h->listener, (struct sockaddr *)&in, len), 0);
    assert_int_equal(getsockname(h->listener, (struct sockaddr *)&in, &len), 0);
    assert_int_equal(listen(h->listener, full ? 0 : 8), 0);
    if (full) fill_queue(h, (struct sockaddr *)&in, len);
    snprintf(h->url, sizeof h->url, "tcp://127.0.0.1:%d", ntohs(in.sin_port));
}

static void dig_unix(hole *h)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int n = snprintf(un.sun_path, sizeof un.sun_path, "%s/hole", a.dir);
    assert_true(n > 0 && (size_t)n < sizeof un.sun_path);
    h->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(h->listener, (struct sockaddr *)&un, sizeof un), 0);
    assert_int_equal(listen(h->listener, 0), 0);
    fill_queue(h, (struct sockaddr *)&un, sizeof un);
    snprintf(h->url, sizeof h->url, "ipc://%s", un.sun_path);
}

static void close_hole(hole *h)
{
    for (int i = 0; i < 8; i++)
        if (h->fillers[i] > 0) close(h->fillers[i]);
    close(h->listener);
}

/* Whatever a link waits for: paused and removed it rests at once, and the daemon stops as if there was none. */
static void test_link_to_a_peer_that_never_answers_stops_at_once(void **state)
{
    (void)state;
    hole holes[HOLES] = {0};
    dig_tcp(&holes[0], true);
    dig_tcp(&holes[1], false);
    dig_unix(&holes[2]);
    for (int i = 0; i < HOLES; i++) {
        char name[16];
        snprintf(name, sizeof name, "hole%d", i);
        link_add(b.url, name, (const char *const[]){option("url", holes[i].url), "topics=t", NULL});
    }
    create(a.url, "t");
    link_add(b.url, "frozen", (const char *const[]){option("url", a.url), "topics=t", NULL});
    wait_for_end(b.url, "t", 0, 0, 10000);
    kill(a.pid, SIGSTOP); /* a peer that was there */
    usleep(300000);
    bw_bus *bus = test_bus_by(b.url, BW_TRANSPORT_IPC);
    bw_config_entry pause = {"paused", "true"};
    assert_ok(bw_link_alter(bus, "hole1", &pause, 1));
    int64_t began = now_ms();
    while (now_ms() < began + 5000 && link_number(b.url, "hole1", "since_ms") == 0) usleep(1000);
    assert_string_equal(link_text(b.url, "hole1", "state"), "paused");
    assert_ok(bw_link_remove(bus, "hole0"));
    bw_bus_close(bus);
    began = now_ms();
    daemon_stop(&b, SIGTERM);
    int64_t took = now_ms() - began;
    kill(a.pid, SIGCONT);
    for (int i = 0; i < HOLES; i++) close_hole(&holes[i]);
    print_message("stopped in %lld ms\n", (long long)took);
    if (took > 1000) fail_msg("the daemon took %lld ms to stop", (long long)took);
}

/* ---- offsets ---- */

#define FAR INT64_C(5000000000000)

/* An origin whose log begins at FAR: its first segment is named so. */
static void begin_far(const char *topic)
{
    create(a.url, topic);
    daemon_stop(&a, SIGTERM);
    test_run("cd %s/%s-0 && mv 00000000000000000000.log %020lld.log && rm -f *.index *.timeindex", a.dir, topic, (long long)FAR);
    daemon_start(&a);
    write_some(a.url, topic, 30);
    assert_int_equal(end_of(a.url, topic, 0), FAR + 30);
}

static void test_link_mirror_of_an_origin_that_begins_far_is_equal(void **state)
{
    (void)state;
    begin_far("t");
    link_add(b.url, "pull", (const char *const[]){option("url", a.url), "topics=t", NULL});
    wait_for_end(b.url, "t", 0, FAR + 30, 10000);
    assert_mirrors(a.url, "t", b.url, "t", 0);
    write_some(a.url, "t", 20);
    wait_for_end(b.url, "t", 0, FAR + 50, 10000);
    daemon_stop(&b, SIGKILL);
    test_run("rm -rf %s/run /dev/shm/busway-$(id -u)/$(cat %s/generation)", b.dir, b.dir); /* as behind a reboot */
    daemon_start(&b);
    write_some(a.url, "t", 20);
    wait_for_end(b.url, "t", 0, FAR + 70, 10000);
    assert_mirrors(a.url, "t", b.url, "t", 0);
    bw_bus *bus = test_bus_by(b.url, BW_TRANSPORT_IPC); /* and it is found by its offset */
    bw_consumer *c = test_consumer(bus, "t", 0, FAR + 60);
    assert_int_equal(test_read(c, 10, 5000, NULL, NULL), 10);
    bw_consumer_close(c);
    bw_bus_close(bus);
}

static int64_t start_of(const char *url, const char *topic)
{
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    bw_offset_range range = {0};
    assert_ok(bw_offsets_range(bus, topic, 0, &range));
    bw_bus_close(bus);
    return range.log_start;
}

static void test_link_log_start_follows_when_asked(void **state)
{
    (void)state;
    create(a.url, "t");
    write_some(a.url, "t", 50);
    link_add(b.url, "follows", (const char *const[]){option("url", a.url), "topics=t", "log-start=follow", NULL});
    link_add(b.url, "keeps", (const char *const[]){option("url", a.url), "topics=t", "prefix=kept.", NULL});
    wait_for_end(b.url, "t", 0, 50, 10000);
    wait_for_end(b.url, "kept.t", 0, 50, 10000);
    bw_bus *bus = test_bus_by(a.url, BW_TRANSPORT_IPC);
    assert_ok(bw_delete_records(bus, "t", 0, 20, NULL)); /* nothing else is said meanwhile */
    bw_bus_close(bus);
    for (int i = 0; i < 500 && start_of(b.url, "t") != 20; i++) usleep(10000);
    assert_int_equal(start_of(b.url, "t"), 20);
    assert_int_equal(start_of(b.url, "kept.t"), 0);
    bus = test_bus_by(b.url, BW_TRANSPORT_IPC);
    bw_config_entry merge[] = {{"url", a.url}, {"topics", "t"}, {"mode", "merge"}, {"log-start", "follow"}};
    assert_err(bw_link_add(bus, "no", merge, 4), BW_ERR_INVALID_ARGUMENT);
    bw_bus_close(bus);
}

/* ---- filters ---- */

static void test_link_that_filters_otherwise_into_the_same_merge_is_refused(void **state)
{
    (void)state;
    create(a.url, "t");
    create(b.url, "all");
    write_some(a.url, "t", 10);
    link_add(b.url, "every", (const char *const[]){option("url", a.url), "topics=t", "mode=merge", "rename=all", NULL});
    wait_for_end(b.url, "all", 0, 10, 10000);
    bw_bus *bus = test_bus_by(b.url, BW_TRANSPORT_IPC);
    bw_config_entry some[] = {{"url", a.url}, {"topics", "t"}, {"mode", "merge"}, {"rename", "all"}, {"key-prefix", "x"}};
    assert_err(bw_link_add(bus, "some", some, 5), BW_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(bw_error_message(), "every"));
    bw_bus_close(bus);
    /* By a link of the other daemon, which is seen when it comes. */
    link_add(a.url, "some", (const char *const[]){option("url", b.url), "topics=t", "mode=merge", "rename=all", "key-prefix=x", "direction=push",
                                                  NULL});
    for (int i = 0; i < 500 && link_number(a.url, "some", "stopped") != 1; i++) usleep(10000);
    assert_int_equal(link_number(a.url, "some", "stopped"), 1);
    char *json = NULL;
    bus = test_bus_by(a.url, BW_TRANSPORT_IPC);
    assert_ok(bw_link_describe(bus, "some", &json));
    assert_non_null(strstr(json, "different targets"));
    bw_free(json);
    bw_bus_close(bus);
}

int main(void)
{
#define SCENE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        SCENE(test_link_to_a_peer_that_never_answers_stops_at_once),
        SCENE(test_link_mirror_of_an_origin_that_begins_far_is_equal),
        SCENE(test_link_log_start_follows_when_asked),
        SCENE(test_link_that_filters_otherwise_into_the_same_merge_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
