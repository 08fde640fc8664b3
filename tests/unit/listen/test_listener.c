/* The Busway listener's connections, with a broker that is made for it: handshake, refusals, order, back-pressure, stopping. */
#include "unit/listen/fake_broker.h"

static int dial(const fixture *x)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s/bus.sock", x->folder);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    struct timeval patience = {5, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    return fd;
}

static void send_all(int fd, const bw_buf *b)
{
    for (size_t at = 0; at < b->len;) {
        ssize_t n = send(fd, b->data + at, b->len - at, MSG_NOSIGNAL);
        assert_true(n > 0);
        at += (size_t)n;
    }
}

static void send_request(int fd, const bw_request *r)
{
    bw_buf b = {0};
    assert_int_equal(bw_request_encode(r, &b, false), BW_OK);
    send_all(fd, &b);
    bw_buf_free(&b);
}

/* The next answer; its memory is in b. */
static void receive(int fd, bw_buf *b, bw_answer *a)
{
    bw_frame f;
    size_t used, need;
    b->len = 0;
    for (;;) {
        bw_err err = bw_frame_parse(b->data, b->len, 1 << 24, &f, &used, &need);
        if (err == BW_OK) { break; }
        assert_int_equal(err, BW_ERR_EMPTY);
        assert_int_equal(bw_buf_reserve(b, need), BW_OK);
        ssize_t n = recv(fd, b->data + b->len, need - b->len, 0);
        assert_true(n > 0);
        b->len += (size_t)n;
    }
    assert_int_equal(bw_answer_decode(&f, a), BW_OK);
}

static void send_simple(int fd, bw_api_key type, uint32_t correlation)
{
    bw_request r;
    bw_request_init(&r, type);
    r.correlation = correlation;
    send_request(fd, &r);
}

static void introduce(int fd)
{
    bw_buf b = {0};
    bw_answer a;
    send_simple(fd, BW_API_HELLO, 1);
    receive(fd, &b, &a);
    assert_int_equal(a.error, BW_OK);
    assert_int_equal(a.version, BW_PROTOCOL_VERSION);
    assert_int_equal(a.frame_max, 1 << 20);
    assert_true(bw_str_is(a.data_dir, "/data"));
    assert_true(bw_str_is(a.server_version, BW_VERSION_STRING));
    bw_answer_fini(&a);
    bw_buf_free(&b);
}

/* Expects one answer with this error, and then the end of the connection if so. */
static void expect_error(int fd, int32_t error, uint32_t correlation, bool closing, const char *text)
{
    bw_buf b = {0};
    bw_answer a;
    char c;
    receive(fd, &b, &a);
    assert_int_equal(a.error, error);
    assert_int_equal(a.correlation, correlation);
    assert_int_equal(a.flags & BW_FRAME_CLOSING, closing ? BW_FRAME_CLOSING : 0);
    assert_true(a.message.len > 0);
    assert_non_null(memmem(a.message.data, a.message.len, text, strlen(text)));
    if (closing) { assert_int_equal(recv(fd, &c, 1, 0), 0); }
    bw_answer_fini(&a);
    bw_buf_free(&b);
}

static void test_listener_hello_tells_the_versions(void **state)
{
    fixture *x = *state;
    int fd = dial(x);
    introduce(fd);
    wait_for(&x->broker, &x->broker.requests, 1);
    assert_true(x->broker.peer.uid == (int64_t)getuid() && x->broker.peer.pid == getpid() && x->broker.peer.start_time > 0);
    close(fd);
    wait_for(&x->broker, &x->broker.gone, 1);
}

static void test_listener_request_before_hello_is_refused(void **state)
{
    fixture *x = *state;
    int fd = dial(x);
    send_simple(fd, BW_API_METADATA, 5);
    expect_error(fd, BW_ERR_PROTOCOL, 5, true, "HELLO");
    close(fd);
}

static void test_listener_other_version_is_answered_with_both(void **state)
{
    fixture *x = *state;
    int fd = dial(x);
    bw_request r;
    bw_buf b = {0};
    bw_answer a;
    bw_request_init(&r, BW_API_HELLO);
    r.version_min = 7;
    r.version_max = 9;
    r.correlation = 3;
    send_request(fd, &r);
    receive(fd, &b, &a);
    assert_int_equal(a.error, BW_ERR_UNSUPPORTED_VERSION);
    assert_int_equal(a.version_min, BW_PROTOCOL_VERSION_MIN);
    assert_int_equal(a.version_max, BW_PROTOCOL_VERSION);
    assert_non_null(memmem(a.message.data, a.message.len, "7 to 9", 6));
    introduce(fd); /* it may try again */
    close(fd);
    bw_buf_free(&b);
}

static void test_listener_unknown_type_is_answered(void **state)
{
    fixture *x = *state;
    int fd = dial(x);
    introduce(fd);
    bw_buf b = {0};
    size_t mark;
    assert_int_equal(bw_frame_begin(&b, 999, 0, 77, &mark), BW_OK);
    bw_frame_header_done(&b, mark);
    bw_frame_end(&b, mark, 0);
    send_all(fd, &b);
    expect_error(fd, BW_ERR_UNSUPPORTED, 77, false, "999");
    send_simple(fd, BW_API_METADATA, 78); /* the connection goes on */
    bw_answer a;
    receive(fd, &b, &a);
    assert_int_equal(a.correlation, 78);
    assert_int_equal(a.error, BW_OK);
    close(fd);
    bw_buf_free(&b);
}

static void test_listener_malformed_input_closes_with_a_reason(void **state)
{
    fixture *x = *state;
    static const struct { const char *bytes; size_t len; const char *text; } bad[] = {
        {"\x00\x00\x00\x01", 4, "smallest"},
        {"\xff\xff\xff\xff", 4, "limit"},
        {"GET / HTTP/1.1\r\n", 16, "limit"},
        {"\x00\x00\x00\x0d\x00\x02\x00\x00\x00\x00\x00\x05\x00\x00\x00\x01\xc1", 17, "METADATA"},
        {"\x00\x00\x00\x11\x00\x08\x00\x00\x00\x00\x00\x05\x00\x00\x00\x05\xdd\xff\xff\xff\xff", 21, "FETCH"},
        {"\x00\x00\x00\x0c\x00\x02\x00\x01\x00\x00\x00\x05\x00\x00\x00\x00", 16, "answer"},
        {"\x00\x00\x00\x0c\x00\x0c\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00", 16, "DATA"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int fd = dial(x);
        introduce(fd);
        bw_buf b = {(uint8_t *)(uintptr_t)bad[i].bytes, bad[i].len, bad[i].len};
        send_all(fd, &b);
        expect_error(fd, BW_ERR_PROTOCOL, i < 3 ? 0 : 5, true, bad[i].text);
        close(fd);
    }
    int fd = dial(x); /* the daemon lives */
    introduce(fd);
    close(fd);
}

static void test_listener_pipelined_requests_are_answered_in_order(void **state)
{
    enum { N = 5000 };
    fixture *x = *state;
    int fd = dial(x);
    introduce(fd);
    bw_buf out = {0}, in = {0};
    bw_request r;
    bw_answer a;
    bw_request_init(&r, BW_API_PRODUCE);
    r.topic = bw_str_of("t");
    char payload[200] = {0};
    r.payload = (uint8_t *)payload;
    r.payload_len = sizeof payload;
    for (uint32_t sent = 0, got = 0; got < N;) {
        out.len = 0;
        for (int i = 0; i < 100 && sent < N; i++) {
            r.correlation = ++sent;
            assert_int_equal(bw_request_encode(&r, &out, false), BW_OK);
        }
        send_all(fd, &out);
        while (got < sent) {
            receive(fd, &in, &a);
            assert_int_equal(a.correlation, ++got);
            assert_int_equal(a.offset, got);
        }
    }
    close(fd);
    bw_buf_free(&out);
    bw_buf_free(&in);
}

/* A client that asks for much and reads nothing: what the daemon holds for it stays bounded, and nothing is lost. */
static void test_listener_fetches_of_a_client_that_does_not_read_are_bounded(void **state)
{
    enum { N = 400, SIZE = 1000000 };
    fixture *x = *state;
    int fd = dial(x);
    introduce(fd);
    assert_int_equal(bw_buf_reserve(&x->broker.stored, SIZE), BW_OK);
    memset(x->broker.stored.data, 7, SIZE);
    x->broker.stored.len = SIZE;
    bw_request r;
    bw_fetch_part part = {bw_str_of("t"), 0, 0, SIZE};
    bw_request_init(&r, BW_API_FETCH);
    r.parts = &part;
    r.part_count = 1;
    bw_buf out = {0}, in = {0};
    for (int i = 0; i < N; i++) {
        r.correlation = (uint32_t)i;
        assert_int_equal(bw_request_encode(&r, &out, false), BW_OK);
    }
    send_all(fd, &out);
    wait_for(&x->broker, &x->broker.requests, 10);
    usleep(300000);
    pthread_mutex_lock(&x->broker.lock);
    int served = x->broker.requests;
    pthread_mutex_unlock(&x->broker.lock);
    assert_true(served < 60); /* of 400: tens of MB, not 400 */
    for (int i = 0; i < N; i++) {
        bw_answer a;
        receive(fd, &in, &a);
        assert_int_equal(a.correlation, i);
        assert_int_equal(a.payload_len, SIZE);
        assert_int_equal(a.payload[SIZE - 1], 7);
        bw_answer_fini(&a);
    }
    close(fd);
    bw_buf_free(&out);
    bw_buf_free(&in);
}

static void test_listener_one_way_requests_have_no_answer(void **state)
{
    fixture *x = *state;
    int fd = dial(x);
    introduce(fd);
    send_simple(fd, BW_API_REPORT, 5);
    send_simple(fd, BW_API_STATUS, 6);
    bw_buf b = {0};
    bw_answer a;
    receive(fd, &b, &a);
    assert_int_equal(a.correlation, 6);
    close(fd);
    bw_buf_free(&b);
}

static void test_listener_stop_ends_parked_requests(void **state)
{
    fixture *x = *state;
    int fd = dial(x);
    introduce(fd);
    bw_request r;
    bw_fetch_part part = {bw_str_of("t"), 0, 0, 1000};
    bw_request_init(&r, BW_API_FETCH);
    r.max_wait_ms = 60000;
    r.parts = &part;
    r.part_count = 1;
    send_request(fd, &r);
    wait_for(&x->broker, &x->broker.requests, 2);
    int64_t start = bw_clock_mono_ms();
    bw_listener_stop(x->listener);
    x->listener = NULL;
    assert_true(bw_clock_mono_ms() - start < 3000);
    char c;
    assert_int_equal(recv(fd, &c, 1, 0), 0);
    wait_for(&x->broker, &x->broker.gone, 1);
    close(fd);
}

/* ---- what may be listened on ---- */

static void assert_start_fails(fixture *x, const char *url, const char *rep, const char *group, bw_err expected, const char *text)
{
    bw_daemon_config config = x->config;
    char *urls[1] = {(char *)(uintptr_t)url};
    bw_listener *l = NULL;
    config.listen = urls;
    config.listen_rep = (char *)(uintptr_t)rep;
    config.socket_group = (char *)(uintptr_t)group;
    assert_int_equal(bw_listener_start(&x->broker, &config, NULL, &l), expected);
    assert_null(l);
    assert_non_null(strstr(bw_error_message(), text));
}

static void test_listener_start_explains_what_it_cannot_do(void **state)
{
    fixture *x = *state;
    assert_start_fails(x, "tcp://127.0.0.1:1", "none", NULL, BW_ERR_UNSUPPORTED, "listeners");
    assert_start_fails(x, "/run/bus.sock", "none", NULL, BW_ERR_INVALID_ARGUMENT, "ipc:///");
    assert_start_fails(x, x->url, "none", NULL, BW_ERR_BUSY, "another process");
    char other[128];
    snprintf(other, sizeof other, "ipc://%s/other.sock", x->folder);
    assert_start_fails(x, other, NULL, NULL, BW_ERR_BUSY, "rep.sock"); /* the stream socket that was made goes again */
    assert_int_equal(access(other + 6, F_OK), -1);
    assert_start_fails(x, other, "none", "no-such-group-here", BW_ERR_INVALID_CONFIG, "no-such-group-here");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
        T(test_listener_hello_tells_the_versions),
        T(test_listener_request_before_hello_is_refused),
        T(test_listener_other_version_is_answered_with_both),
        T(test_listener_unknown_type_is_answered),
        T(test_listener_malformed_input_closes_with_a_reason),
        T(test_listener_pipelined_requests_are_answered_in_order),
        T(test_listener_fetches_of_a_client_that_does_not_read_are_bounded),
        T(test_listener_one_way_requests_have_no_answer),
        T(test_listener_stop_ends_parked_requests),
        T(test_listener_start_explains_what_it_cannot_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
