/* Clients that are many, slow or deaf: nobody else waits for them, what they make the daemon hold is bounded, and nothing that was
 * taken from them or promised to them is lost. test: limit=120 */
#include "support/hostile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void test_overload_half_frames_hold_nobody_up_and_are_ended(void **state)
{
    (void)state;
    enum { SLOW = 60 };
    int fds[SLOW];
    wire_buf f = {0}, h = {0};
    wire_map(&h, 1);
    wire_key_str(&h, "client", "slow");
    wire_frame(&f, HELLO, 1, &h, NULL, 0);
    for (int i = 0; i < SLOW; i++) {
        fds[i] = hostile_dial();
        assert_true(wire_send(fds[i], f.data, (size_t)i % f.len));
    }
    int64_t begin = now_ms();
    hostile_good_client_is_served();
    assert_true(now_ms() - begin < 5000);
    int open_ones = SLOW;
    while (open_ones && now_ms() - begin < 20000) { /* a connection without HELLO is closed after 10 s, however it drips */
        open_ones = 0;
        for (int i = 0; i < SLOW; i++) {
            if (fds[i] < 0) continue;
            char room[4096];
            ssize_t n = recv(fds[i], room, sizeof room, MSG_DONTWAIT);
            if (n == 0 || (n < 0 && errno != EAGAIN)) {
                close(fds[i]);
                fds[i] = -1;
            } else open_ones++;
        }
        usleep(50000);
    }
    assert_int_equal(open_ones, 0);
    assert_true(now_ms() - begin > 5000);
    wire_free(&f);
    wire_free(&h);
    hostile_good_client_is_served();
}

static void test_overload_two_hundred_connections_are_all_answered(void **state)
{
    (void)state;
    enum { MANY = 200 };
    int fds[MANY];
    for (int i = 0; i < MANY; i++) fds[i] = hostile_dial();
    for (int i = 0; i < MANY; i++) {
        wire_buf h = {0};
        wire_map(&h, 0);
        hostile_send(fds[i], HELLO, 1, &h, NULL, 0);
        wire_map(&h, 0);
        hostile_send(fds[i], METADATA, 2, &h, NULL, 0);
    }
    hostile_good_client_is_served();
    wire_buf a = {0};
    for (int i = 0; i < MANY; i++)
        for (uint32_t c = 1; c <= 2; c++) {
            hostile_receive(fds[i], &a);
            assert_int_equal(wire_correlation(&a), c);
            assert_int_equal(wire_answer_int(&a, "error", 0), 0);
        }
    for (int i = 0; i < MANY; i++) close(fds[i]);
    wire_free(&a);
    hostile_good_client_is_served();
}

/* Sends without waiting until nothing more is taken; how many whole frames went. *rest: bytes of the last one still to be sent. */
static int stuff(int fd, const wire_buf *f, int most, size_t *rest)
{
    int count = 0;
    size_t at = 0;
    int64_t quiet_since = now_ms();
    while (count < most && now_ms() - quiet_since < 700) {
        ssize_t n = send(fd, f->data + at, f->len - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno != EAGAIN) fail_msg("send: %s", strerror(errno));
        if (n <= 0) {
            usleep(2000);
            continue;
        }
        quiet_since = now_ms();
        at += (size_t)n;
        if (at == f->len) {
            at = 0;
            count++;
        }
    }
    *rest = at ? f->len - at : 0;
    return count;
}

static void test_overload_client_that_never_reads_is_bounded_and_loses_nothing(void **state)
{
    (void)state;
    char value[1001];
    memset(value, 'v', 1000);
    value[1000] = 0;
    for (int i = 0; i < 3000; i++) (void)test_send(hostile_good, "bulk", 0, value);
    int fd = hostile_hello();
    wire_buf f = {0}, a = {0}, h = hostile_fetch_header("bulk", 1 << 20);
    wire_frame(&f, FETCH, 77, &h, NULL, 0);
    size_t rest;
    int requests = stuff(fd, &f, 100000, &rest); /* would be 100 GB of answers */
    assert_true(requests < 100000);
    hostile_good_client_is_served();
    long rss = hostile_rss_kib();
    if (rss > hostile_rss_before + RSS_ROOM_KIB) fail_msg("resident memory went from %ld to %ld KiB", hostile_rss_before, rss);
    print_message("%d requests were taken before the daemon read no more; resident %ld KiB, %ld before\n", requests, rss, hostile_rss_before);
    for (int i = 0; i < requests; i++) { /* none is lost */
        hostile_receive(fd, &a);
        assert_int_equal(wire_correlation(&a), 77);
        assert_int_equal(wire_answer_int(&a, "error", 0), 0);
        size_t len;
        (void)wire_payload(&a, &len);
        assert_true(len > 900000);
    }
    (void)wire_send(fd, f.data + f.len - rest, rest);
    if (rest) hostile_receive(fd, &a);
    close(fd);
    wire_free(&f);
    wire_free(&h);
    wire_free(&a);
}

static void test_overload_subscription_with_endless_credit_is_bounded(void **state)
{
    (void)state;
    enum { DEAF = 20 };
    int fds[DEAF];
    for (int i = 0; i < DEAF; i++) {
        fds[i] = hostile_hello();
        wire_buf h = {0};
        wire_map(&h, 4);
        wire_key_str(&h, "topic", "bulk");
        wire_key_int(&h, "offset", -2);
        wire_key_int(&h, "credit", INT64_MAX);
        wire_key_int(&h, "subscription", 1);
        hostile_send(fds[i], SUBSCRIBE, 3, &h, NULL, 0);
    }
    usleep(300000);
    hostile_good_client_is_served();
    long rss = hostile_rss_kib();
    if (rss > hostile_rss_before + 3 * RSS_ROOM_KIB) fail_msg("resident memory went from %ld to %ld KiB", hostile_rss_before, rss);
    wire_buf a = {0};
    hostile_receive(fds[0], &a); /* one of them reads after all: everything comes, in order */
    assert_int_equal(wire_answer_int(&a, "error", 0), 0);
    size_t bytes = 0;
    while (bytes < 3000u * 1000) {
        hostile_receive(fds[0], &a);
        assert_int_equal(wire_type(&a), 12);
        size_t len;
        (void)wire_payload(&a, &len);
        bytes += len;
    }
    for (int i = 0; i < DEAF; i++) close(fds[i]);
    wire_free(&a);
    hostile_good_client_is_served();
}

#define HOSTILE(name) cmocka_unit_test_teardown(test_overload_##name, hostile_nothing_is_lost)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE(half_frames_hold_nobody_up_and_are_ended),
        HOSTILE(two_hundred_connections_are_all_answered),
        HOSTILE(client_that_never_reads_is_bounded_and_loses_nothing),
        HOSTILE(subscription_with_endless_credit_is_bounded),
    };
    return cmocka_run_group_tests(tests, hostile_start, hostile_stop);
}
