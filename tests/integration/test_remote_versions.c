/* Peers of another version of the protocol, over tcp: clients and links are told, both numbers are named, and nothing is lost by it. The peer is
 * made of bytes (support/wire.h). */
#include "support/bus.h"
#include "support/links.h"
#include "support/wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HELLO = 1, ANSWER = 1, CLOSING = 2 };

/* Says to every HELLO that it speaks another version: as a daemon that knows ours does (refuses), or as one that does not look. */
typedef struct stranger {
    pthread_t thread;
    int fd, port;
    bool refuses;
    atomic_int asked;
} stranger;

static void answer_hello(stranger *x, int fd, uint32_t correlation)
{
    wire_buf h = {0}, f = {0};
    atomic_fetch_add(&x->asked, 1);
    if (x->refuses) {
        wire_map(&h, 4);
        wire_key_int(&h, "error", BW_ERR_UNSUPPORTED_VERSION);
        wire_key_str(&h, "message", "the client speaks protocol versions 1 to 1, this daemon 7 to 9");
        wire_key_int(&h, "min", 7);
        wire_key_int(&h, "max", 9);
    } else {
        wire_map(&h, 1);
        wire_key_int(&h, "version", 77);
    }
    wire_frame(&f, HELLO, correlation, &h, NULL, 0);
    f.data[7] |= (uint8_t)(x->refuses ? ANSWER | CLOSING : ANSWER);
    wire_send(fd, f.data, f.len);
    wire_free(&h);
    wire_free(&f);
}

static void *serve(void *opaque)
{
    stranger *x = opaque;
    for (int fd; (fd = accept(x->fd, NULL, NULL)) >= 0; close(fd)) {
        wire_buf a = {0};
        bool timed_out;
        if (wire_receive(fd, &a, 5000, &timed_out) && wire_type(&a) == HELLO) answer_hello(x, fd, wire_correlation(&a));
        (void)wire_receive(fd, &a, 200, &timed_out); /* until the other side goes */
        wire_free(&a);
    }
    return NULL;
}

static void start_stranger(stranger *x, bool refuses)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof at;
    *x = (stranger){.refuses = refuses};
    x->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(x->fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(x->fd, 16), 0);
    assert_int_equal(getsockname(x->fd, (struct sockaddr *)&at, &size), 0);
    x->port = ntohs(at.sin_port);
    assert_int_equal(pthread_create(&x->thread, NULL, serve, x), 0);
}

static void stop_stranger(stranger *x)
{
    shutdown(x->fd, SHUT_RDWR);
    pthread_join(x->thread, NULL);
    close(x->fd);
}

static void test_client_of_another_version_is_told_both_numbers(void **state)
{
    (void)state;
    static const char *const says[] = {"speaks protocol version 77, this library 1 to 1", "versions 1 to 1, this daemon 7 to 9"};
    for (int refuses = 0; refuses < 2; refuses++) {
        stranger x;
        char url[64];
        bw_bus *bus = NULL;
        start_stranger(&x, refuses);
        snprintf(url, sizeof url, "tcp://127.0.0.1:%d", x.port);
        assert_err(bw_bus_open(url, NULL, &bus), BW_ERR_UNSUPPORTED_VERSION);
        if (!strstr(bw_error_message(), says[refuses])) fail_msg("%s", bw_error_message());
        assert_null(bus);
        assert_int_equal(atomic_load(&x.asked), 1);
        stop_stranger(&x);
    }
}

static void test_link_to_another_version_says_so_and_keeps_what_is_there(void **state)
{
    (void)state;
    test_daemon d;
    stranger x;
    char url[80];
    daemon_make(&d);
    daemon_start(&d);
    start_stranger(&x, true);
    bw_bus *bus = test_bus_by(d.url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(bus, "t", 1, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < 5; i++) test_send(p, "t", 0, "v");
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    snprintf(url, sizeof url, "url=tcp://127.0.0.1:%d", x.port);
    link_add(d.url, "away", (const char *const[]){url, "topics=t", "direction=push", NULL});
    for (int i = 0; i < 1000 && strcmp(link_text(d.url, "away", "error"), "UNSUPPORTED_VERSION"); i++) usleep(10000);
    assert_string_equal(link_text(d.url, "away", "error"), "UNSUPPORTED_VERSION");
    if (!strstr(link_text(d.url, "away", "message"), "7 to 9")) fail_msg("%s", link_text(d.url, "away", "message"));
    assert_int_equal(end_of(d.url, "t", 0), 5);
    daemon_remove(&d);
    stop_stranger(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_client_of_another_version_is_told_both_numbers),
        cmocka_unit_test(test_link_to_another_version_says_so_and_keeps_what_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
