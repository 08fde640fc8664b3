/* test: no-asan
 * Clients of other hosts that stall, and daemons that do: a client that begins a TLS handshake and does not go on, and one that begins
 * them without an end, delay nobody; a call with a time-out ends by it when the daemon stands still. */
#include "support/far.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STALLED = 50, CROWD = 150, TRIPS = 300, HAMMERS = 3 };

static int setup(void **state)
{
    *state = calloc(1, sizeof(far_daemon));
    far_make(*state);
    far_start(*state, "anonymous.role = admin\n");
    return 0;
}

static int teardown(void **state)
{
    far_remove(*state);
    free(*state);
    return 0;
}

static bw_bus *secure_bus(const far_daemon *f)
{
    char url[700];
    snprintf(url, sizeof url, "tls+tcp://127.0.0.1:%d?ca=%s/ca.pem", f->tls, f->certs);
    return far_bus(url);
}

/* A connection to the TLS port, on which one byte is sent. */
static int stall(const far_daemon *f)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)f->tls), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(send(fd, "\x16", 1, MSG_NOSIGNAL), 1);
    return fd;
}

static bool is_closed(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte;
    return poll(&p, 1, 5000) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) <= 0;
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Records sent and acknowledged one at a time: sorted, in us. */
static void trips(bw_producer *p, int64_t us[TRIPS])
{
    bw_record r = test_record(NULL, "v");
    for (int i = 0; i < TRIPS; i++) {
        int64_t at = now_us();
        assert_ok(bw_producer_send_sync(p, "t", 0, &r, 20000, NULL));
        us[i] = now_us() - at;
    }
    qsort(us, TRIPS, sizeof us[0], ascending);
}

static void print_trips(const char *when, const int64_t us[TRIPS])
{
    print_message("%-40s median %lld us, p90 %lld, longest %lld\n", when,
                  (long long)us[TRIPS / 2], (long long)us[TRIPS * 9 / 10], (long long)us[TRIPS - 1]);
}

static void test_stalled_handshakes_delay_nobody_and_keep_nobody_out(void **state)
{
    const far_daemon *f = *state;
    int fds[STALLED + CROWD];
    int64_t alone[TRIPS], beside[TRIPS];
    bw_bus *bus = secure_bus(f);
    assert_ok(bw_topic_create(bus, "t", 1, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    trips(p, alone);
    for (int i = 0; i < STALLED; i++) fds[i] = stall(f);
    trips(p, beside);
    print_trips("alone", alone);
    print_trips("beside 50 that stall", beside);
    assert_true(beside[TRIPS / 2] < 10 * alone[TRIPS / 2] + 5000);
    for (int i = STALLED; i < STALLED + CROWD; i++) fds[i] = stall(f);
    bw_bus *late = secure_bus(f); /* more than the daemon lets into the handshake at once: the oldest of them give way */
    char *json = NULL;
    assert_ok(bw_topics_describe(late, NULL, &json));
    bw_free(json);
    assert_true(is_closed(fds[0]));
    assert_true(far_logged(f, "clients are in the TLS handshake"));
    bw_bus_close(late);
    for (int i = 0; i < STALLED + CROWD; i++) close(fds[i]);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
}

/* A process that connects, shakes hands and goes, again and again, until it is killed. */
static pid_t hammer(const far_daemon *f)
{
    pid_t pid = fork();
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char url[700];
    snprintf(url, sizeof url, "tls+tcp://127.0.0.1:%d?ca=%s/ca.pem", f->tls, f->certs);
    for (;;) {
        bw_bus *bus = NULL;
        if (bw_bus_open(url, NULL, &bus) == BW_OK) bw_bus_close(bus);
    }
}

static void test_handshakes_without_an_end_delay_nobody_who_is_connected(void **state)
{
    const far_daemon *f = *state;
    int64_t alone[TRIPS], beside[TRIPS];
    pid_t hammers[HAMMERS];
    bw_bus *bus = test_bus_by(f->d.url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(bus, "t", 1, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    trips(p, alone);
    for (int i = 0; i < HAMMERS; i++) hammers[i] = hammer(f);
    usleep(200000);
    trips(p, beside);
    for (int i = 0; i < HAMMERS; i++) {
        kill(hammers[i], SIGKILL);
        waitpid(hammers[i], NULL, 0);
    }
    print_trips("alone", alone);
    print_trips("beside handshakes without an end", beside);
    assert_true(beside[TRIPS - 1] < 2000000);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
}

/* ---- the daemon stands still ---- */

static void ends_in_time(const char *url, pid_t daemon)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_bus_options bo = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    bw_consumer *c = NULL;
    bw_topic_partition at = {.topic = "t", .partition = 0, .offset = 1, .leader_epoch = -1};
    bo.connect_timeout_ms = 20000;
    bo.transport = BW_TRANSPORT_IPC;
    o.group_id = "g";
    o.enable_auto_commit = false;
    assert_ok(bw_bus_open(url, &bo, &bus));
    assert_ok(bw_consumer_open(bus, &o, &c)); /* its own connection is made by its first call that needs one */
    kill(daemon, SIGSTOP);
    int64_t begun = now_ms();
    bw_err e = bw_consumer_commit(c, &at, 1, 300);
    int64_t commit_ms = now_ms() - begun;
    begun = now_ms();
    bw_err f = bw_consumer_committed(c, &at, 1, 300);
    int64_t committed_ms = now_ms() - begun;
    kill(daemon, SIGCONT);
    if (e != BW_ERR_TIMED_OUT || commit_ms < 250 || commit_ms > 5000) fail_msg("commit: %s after %lld ms", bw_err_name(e), (long long)commit_ms);
    if (!f || committed_ms > 5000) fail_msg("committed: %s after %lld ms", bw_err_name(f), (long long)committed_ms);
    at.offset = 1;
    for (int64_t until = now_ms() + 20000; (e = bw_consumer_commit(c, &at, 1, 5000)) && now_ms() < until;) {}
    assert_ok(e);
    bw_consumer_close(c);
    bw_bus_close(bus);
}

static void test_commit_of_a_daemon_that_stands_still_ends_by_its_timeout(void **state)
{
    const far_daemon *f = *state;
    char url[64];
    bw_bus *bus = test_bus_by(f->d.url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(bus, "t", 1, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < 3; i++) test_send(p, "t", 0, "v");
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    ends_in_time(f->d.url, f->d.pid);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", f->tcp);
    ends_in_time(url, f->d.pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_stalled_handshakes_delay_nobody_and_keep_nobody_out, setup, teardown),
        cmocka_unit_test_setup_teardown(test_handshakes_without_an_end_delay_nobody_who_is_connected, setup, teardown),
        cmocka_unit_test_setup_teardown(test_commit_of_a_daemon_that_stands_still_ends_by_its_timeout, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
