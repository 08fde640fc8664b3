/* The daemon dies and comes back, on both transports ($BUSWAY_TEST_TRANSPORT): nothing acknowledged is lost, nothing is doubled. */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct run { const char *url; _Atomic int stop; _Atomic int acked; int sent; bool async; } run;

static void count_ack(void *opaque, const bw_delivery *d)
{
    run *r = opaque;
    if (d->error == BW_OK) r->acked++;
    else print_error("delivery: %s: %s\n", bw_err_name(d->error), d->message);
}

static void *produce(void *opaque)
{
    run *r = opaque;
    bw_bus *bus = test_bus(r->url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    while (!r->stop) {
        char text[32];
        snprintf(text, sizeof text, "%d", r->sent);
        bw_record record = test_record(NULL, text);
        if (r->async) {
            bw_err e = bw_producer_send(p, "restart", 0, &record, count_ack, r, 10000);
            if (e) print_error("send: %s: %s\n", bw_err_name(e), bw_error_message());
            if (!e) r->sent++;
            if (r->sent % 16 == 0) usleep(500);
            bw_producer_poll(p, 0);
        } else {
            bw_err e = bw_producer_send_sync(p, "restart", 0, &record, 20000, NULL);
            if (e) print_error("send: %s: %s\n", bw_err_name(e), bw_error_message());
            if (!e) r->acked++;
            r->sent++;
            if (e) break;
        }
    }
    bw_err e = bw_producer_close(p, 20000);
    if (e) print_error("close: %s: %s\n", bw_err_name(e), bw_error_message());
    bw_bus_close(bus);
    return NULL;
}

static void each_value_is_there_once(const char *url, int sent)
{
    bw_bus *bus = test_bus(url);
    bw_consumer *c = test_consumer(bus, "restart", 0, 0);
    int next = 0;
    bw_batch b;
    while (next < sent) {
        assert_ok(bw_consumer_poll(c, 5000, &b));
        bw_record_view v;
        while (bw_batch_next(&b, &v) == 1) {
            char text[32] = "", wanted[32];
            memcpy(text, v.value, v.value_len < 31 ? v.value_len : 31);
            snprintf(wanted, sizeof wanted, "%d", next);
            assert_string_equal(text, wanted);
            assert_int_equal(v.offset, next);
            next++;
        }
    }
    assert_err(bw_consumer_poll(c, 100, &b), BW_ERR_TIMED_OUT);
    bw_consumer_close(c);
    bw_bus_close(bus);
}

static void kill_in_the_middle(bool async)
{
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    run r = {.url = d.url, .async = async};
    pthread_t thread;
    pthread_create(&thread, NULL, produce, &r);
    for (int i = 0; i < 4; i++) {
        usleep(150000);
        daemon_stop(&d, i % 2 ? SIGTERM : SIGKILL);
        usleep(30000);
        daemon_start(&d);
    }
    usleep(150000);
    r.stop = 1;
    pthread_join(thread, NULL);
    assert_true(r.sent > 100);
    assert_int_equal(r.acked, r.sent);
    each_value_is_there_once(d.url, r.sent);
    daemon_remove(&d);
}

static void test_synchronous_producer_survives_the_daemon(void **state)
{
    (void)state;
    kill_in_the_middle(false);
}

static void test_asynchronous_producer_survives_the_daemon(void **state)
{
    (void)state;
    kill_in_the_middle(true);
}

static bool has_ended(const test_daemon *d)
{
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)d->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == d->pid;
}

/* The daemon dies when the n-th batch is in the log and its producer has not been told: it is sent again, and is there once. */
static void test_batch_whose_answer_is_lost_with_the_daemon_is_there_once(void **state)
{
    (void)state;
    enum { N = 6 };
    if (test_is_direct()) return; /* then it is the producer that appends */
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    bw_bus *bus = test_bus(d.url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    run r = {.url = d.url};
    for (int n = 1; n <= 4; n++) {
        char point[40];
        snprintf(point, sizeof point, "append.cleared:%d:kill", n);
        daemon_stop(&d, SIGTERM);
        daemon_start_doomed(&d, point);
        bool died = false;
        for (int i = 0; i < N; i++) {
            char text[32];
            snprintf(text, sizeof text, "%d", r.sent);
            bw_record record = test_record(NULL, text);
            assert_ok(bw_producer_send(p, "restart", 0, &record, count_ack, &r, 20000));
            r.sent++;
            for (int64_t until = now_ms() + 30000; r.acked < r.sent && now_ms() < until;) {
                bw_producer_poll(p, 5);
                if (!has_ended(&d)) continue;
                died = true;
                daemon_stop(&d, SIGKILL);
                daemon_start(&d);
            }
            assert_int_equal(r.acked, r.sent);
        }
        assert_true(died);
    }
    assert_ok(bw_producer_close(p, 20000));
    bw_bus_close(bus);
    each_value_is_there_once(d.url, r.sent);
    daemon_remove(&d);
}

static void test_consumer_goes_on_where_it_was(void **state)
{
    (void)state;
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    bw_bus *bus = test_bus(d.url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < 10; i++) test_send(p, "on", 0, "x");
    bw_consumer *c = test_consumer(bus, "on", 0, 0);
    assert_int_equal(test_read(c, 10, 2000, NULL, NULL), 10);
    for (int round = 0; round < 3; round++) {
        daemon_stop(&d, round == 1 ? SIGTERM : SIGKILL);
        bw_batch b;
        int64_t begun = now_ms();
        bw_err e = bw_consumer_poll(c, 100, &b); /* nobody there: bounded, and no more than an error */
        assert_true(e == BW_ERR_TIMED_OUT || e == BW_ERR_NOT_CONNECTED);
        assert_in_range(now_ms() - begun, 0, 600);
        daemon_start(&d);
        for (int i = 0; i < 10; i++) assert_int_equal(test_send(p, "on", 0, "y"), 10 + round * 10 + i);
        int64_t at = 0;
        assert_int_equal(test_read(c, 10, 5000, NULL, NULL), 10);
        assert_ok(bw_consumer_position(c, "on", 0, &at));
        assert_int_equal(at, 20 + round * 10);
    }
    /* A sleeper is woken by a writer after all this, not only by its audit. */
    for (int i = 0; i < 3; i++) {
        bw_batch b;
        assert_err(bw_consumer_poll(c, 1200, &b), BW_ERR_TIMED_OUT);
        test_send(p, "on", 0, "z");
        assert_ok(bw_consumer_poll(c, 1200, &b));
    }
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    daemon_remove(&d);
}

static void test_descriptor_survives_the_daemon(void **state)
{
    (void)state;
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    bw_bus *bus = test_bus(d.url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    test_send(p, "fd", 0, "x");
    bw_consumer *c = test_consumer(bus, "fd", 0, 0);
    struct pollfd fd = {.fd = bw_consumer_fd(c), .events = POLLIN};
    bw_batch b;
    int n = 0;
    for (int round = 0; round < 3; round++) {
        int64_t until = now_ms() + 5000;
        while (n < round + 1 && now_ms() < until) {
            poll(&fd, 1, 1000);
            while (bw_consumer_poll(c, 0, &b) == BW_OK) n += b.count;
        }
        assert_int_equal(n, round + 1);
        daemon_stop(&d, SIGKILL);
        for (int i = 0; i < 3; i++) {
            poll(&fd, 1, 20);
            assert_int_not_equal(bw_consumer_poll(c, 0, &b), BW_OK);
        }
        daemon_start(&d);
        test_send(p, "fd", 0, "x");
    }
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    daemon_remove(&d);
}

static void test_direct_path_goes_on_without_a_daemon(void **state)
{
    (void)state;
    if (!test_is_direct()) return;
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    bw_bus *bus = test_bus(d.url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    test_send(p, "alone", 0, "x");
    bw_consumer *c = test_consumer(bus, "alone", 0, 0);
    daemon_stop(&d, SIGKILL);
    for (int i = 1; i < 50; i++) assert_int_equal(test_send(p, "alone", 0, "x"), i);
    assert_int_equal(test_read(c, 50, 2000, NULL, NULL), 50);
    /* Until its space is used up: then an error within the time-out, that names what is missing. */
    static char value[100000];
    memset(value, 'x', sizeof value - 1);
    bw_record r = test_record(NULL, value);
    bw_err e = BW_OK;
    int64_t begun = now_ms();
    int sent = 50;
    for (; sent < 5000 && !e; sent++) {
        begun = now_ms();
        e = bw_producer_send_sync(p, "alone", 0, &r, 300, NULL);
    }
    sent--;
    assert_err(e, BW_ERR_NO_COORDINATOR);
    assert_in_range(now_ms() - begun, 250, 1000);
    daemon_start(&d);
    bw_delivery out;
    assert_ok(bw_producer_send_sync(p, "alone", 0, &r, 5000, &out));
    assert_int_equal(out.offset, sent);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    daemon_remove(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_synchronous_producer_survives_the_daemon),
        cmocka_unit_test(test_asynchronous_producer_survives_the_daemon),
        cmocka_unit_test(test_batch_whose_answer_is_lost_with_the_daemon_is_there_once),
        cmocka_unit_test(test_consumer_goes_on_where_it_was),
        cmocka_unit_test(test_descriptor_survives_the_daemon),
        cmocka_unit_test(test_direct_path_goes_on_without_a_daemon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
