/* Handshakes of a TLS listener: who stalls keeps nobody out and ends in time, who speaks no TLS is told so, and a listener that closes meanwhile
 * waits for the thread that does them. The listener has no certificate: no handshake here comes to its end (tests/integration/test_remote.c). */
#include "base/clock.h"
#include "base/err.h"
#include "transport/stream_internal.h"
#include "unit/transport/reactor_thread.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct scene {
    reactor_thread reactor;
    bw_stream_listener *listener;
    bw_tls_context *context;
    struct sockaddr_in at;
    atomic_int accepted, crowded, strangers, others;
} scene;

static void *on_accepted(void *owner, bw_stream *stream, const bw_stream_peer *peer)
{
    (void)stream, (void)peer;
    atomic_fetch_add(&((scene *)owner)->accepted, 1);
    return NULL;
}

static void on_refused(void *owner, const char *address, bw_err err)
{
    scene *x = owner;
    if (!strstr(address, "127.0.0.1")) atomic_fetch_add(&x->others, 1);
    else if (err == BW_ERR_BUSY) atomic_fetch_add(&x->crowded, 1);
    else if (strstr(bw_error_message(), "does not speak TLS")) atomic_fetch_add(&x->strangers, 1);
    else atomic_fetch_add(&x->others, 1);
}

static const bw_stream_ops ops = {.accepted = on_accepted, .refused = on_refused};

static void start(scene *x, int32_t hello_timeout_ms)
{
    char url[64];
    socklen_t size = sizeof x->at;
    memset(x, 0, sizeof *x);
    reactor_thread_start(&x->reactor);
    bw_tls_options o = {.server = true};
    assert_int_equal(bw_tls_context_open(&o, &x->context), BW_OK);
    int probe = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    x->at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(bind(probe, (struct sockaddr *)&x->at, sizeof x->at), 0);
    assert_int_equal(getsockname(probe, (struct sockaddr *)&x->at, &size), 0);
    close(probe);
    snprintf(url, sizeof url, "tls+tcp://127.0.0.1:%d", ntohs(x->at.sin_port));
    bw_stream_listen_options l = {.url = url, .gid = -1, .frame_max = 1000, .hello_timeout_ms = hello_timeout_ms, .tls = x->context, .ops = &ops,
                                  .owner = x, .reactor = x->reactor.reactor};
    bw_err e = bw_stream_listen(&l, &x->listener);
    if (e) fail_msg("%s", bw_error_message());
}

static void stop(scene *x)
{
    assert_true(bw_stream_listener_destroy(x->listener, 5000));
    reactor_thread_stop(&x->reactor);
    bw_tls_context_unref(x->context);
}

static int dial(const scene *x)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&x->at, sizeof x->at), 0);
    return fd;
}

static bool is_closed(int fd, int wait_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    char byte;
    return poll(&p, 1, wait_ms) == 1 && recv(fd, &byte, 1, MSG_DONTWAIT) <= 0;
}

static void test_tls_stalled_handshakes_make_room_for_others_and_end_in_time(void **state)
{
    (void)state;
    enum { MORE = 8, ALL = BW_HANDSHAKES_MAX + MORE };
    static scene x;
    int fds[ALL];
    start(&x, 1500);
    for (int i = 0; i < ALL; i++) {
        fds[i] = dial(&x);
        assert_int_equal(send(fds[i], "\x16", 1, MSG_NOSIGNAL), 1); /* as a handshake begins */
        if (i == BW_HANDSHAKES_MAX - 1) usleep(100000); /* the first ones are in it */
    }
    for (int i = 0; i < MORE; i++) assert_true(is_closed(fds[i], 3000));
    assert_int_equal(atomic_load(&x.crowded), MORE);
    assert_false(is_closed(fds[MORE], 0));
    assert_false(is_closed(fds[ALL - 1], 0));
    for (int i = MORE; i < ALL; i++) assert_true(is_closed(fds[i], 5000)); /* their time is over */
    assert_int_equal(atomic_load(&x.accepted), 0);
    for (int i = 0; i < ALL; i++) close(fds[i]);
    stop(&x);
}

static void test_tls_stranger_is_told_what_is_spoken_here(void **state)
{
    (void)state;
    static scene x;
    uint8_t alert[16];
    start(&x, 0);
    int fd = dial(&x);
    assert_int_equal(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, MSG_NOSIGNAL), 18);
    assert_int_equal(recv(fd, alert, 7, MSG_WAITALL), 7);
    assert_int_equal(alert[0], 21);
    assert_true(is_closed(fd, 5000));
    assert_int_equal(atomic_load(&x.strangers), 1);
    close(fd);
    stop(&x);
}

/* A client's first message, sent; what comes back is not read. */
static void begin_handshake(bw_tls_context *context, int fd, bw_tls **tls)
{
    short events;
    assert_int_equal(bw_tls_open(context, fd, "localhost", tls), BW_OK);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    assert_int_equal(bw_tls_handshake(*tls, &events), BW_ERR_EMPTY);
}

static void test_tls_listener_closes_in_the_middle_of_handshakes(void **state)
{
    (void)state;
    enum { CLIENTS = 40 };
    static scene x;
    bw_tls *tls[CLIENTS];
    int fds[CLIENTS];
    bw_tls_context *context;
    bw_tls_options o = {.server = false};
    assert_int_equal(bw_tls_context_open(&o, &context), BW_OK);
    for (int round = 0; round < 5; round++) {
        start(&x, 0);
        for (int i = 0; i < CLIENTS; i++) fds[i] = dial(&x);
        for (int i = 0; i < CLIENTS; i++) begin_handshake(context, fds[i], &tls[i]);
        for (int i = 0; i < CLIENTS; i += 3) shutdown(fds[i], SHUT_RDWR);
        if (round) usleep(1000u << round);
        stop(&x);
        assert_int_equal(atomic_load(&x.accepted), 0);
        for (int i = 0; i < CLIENTS; i++) {
            bw_tls_close(tls[i]);
            close(fds[i]);
        }
    }
    bw_tls_context_unref(context);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls_stalled_handshakes_make_room_for_others_and_end_in_time),
        cmocka_unit_test(test_tls_stranger_is_told_what_is_spoken_here),
        cmocka_unit_test(test_tls_listener_closes_in_the_middle_of_handshakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
