/* A connection against a scripted peer: frames cut anywhere, garbage, silence, death with requests in flight, many threads. */
#include "client/conn.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct peer {
    char path[128];
    int listener;
    size_t piece;        /* answers are written in pieces of so many bytes */
    int die_after;       /* close after so many requests; -1: never */
    int32_t version;     /* said in HELLO */
    bool silent;         /* answers HELLO only */
    bool garbage;        /* answers with rubbish */
    size_t push_bytes;   /* DATA payload pushed before each answer */
    pthread_t thread;
} peer;

static void write_pieces(int fd, const bw_buf *b, size_t piece)
{
    for (size_t at = 0; at < b->len; at += piece) {
        size_t n = b->len - at < piece ? b->len - at : piece;
        if (send(fd, b->data + at, n, MSG_NOSIGNAL) < 0) return;
        if (piece < 64) usleep(10);
    }
}

static void answer_one(peer *p, int fd, const bw_frame *f)
{
    bw_request q;
    assert_int_equal(bw_request_decode(f, &q), BW_OK);
    bw_answer a;
    bw_buf out = {0};
    if (p->push_bytes && q.type != BW_API_HELLO) {
        uint8_t *payload = calloc(1, p->push_bytes);
        bw_answer_init(&a, NULL);
        a.subscription = 7;
        a.payload = payload;
        a.payload_len = p->push_bytes;
        assert_int_equal(bw_answer_encode(&a, &out, false), BW_OK);
        free(payload);
    }
    bw_answer_init(&a, &q);
    a.version = p->version;
    a.data_dir = bw_str_of("/data");
    a.server_version = bw_str_of("test");
    a.producer_id = q.correlation;
    assert_int_equal(bw_answer_encode(&a, &out, false), BW_OK);
    if (p->garbage && q.type != BW_API_HELLO) memset(out.data, 0xee, out.len);
    write_pieces(fd, &out, p->piece);
    bw_buf_free(&out);
    bw_request_fini(&q);
}

static void serve(peer *p, int fd)
{
    bw_buf in = {0};
    int count = 0;
    for (;;) {
        assert_int_equal(bw_buf_reserve(&in, 65536), BW_OK);
        ssize_t n = recv(fd, in.data + in.len, 65536, 0);
        if (n <= 0) break;
        in.len += (size_t)n;
        bw_frame f;
        size_t used, need;
        while (bw_frame_parse(in.data, in.len, BW_FRAME_MAX_DEFAULT, &f, &used, &need) == BW_OK) {
            bool hello = f.type == BW_API_HELLO;
            if (!hello && p->die_after >= 0 && count++ >= p->die_after) goto out;
            if (hello || !p->silent) answer_one(p, fd, &f);
            bw_buf_consume(&in, used);
        }
    }
out:
    bw_buf_free(&in);
    close(fd);
}

static void *run_peer(void *opaque)
{
    peer *p = opaque;
    int fd;
    while ((fd = accept(p->listener, NULL, NULL)) >= 0) serve(p, fd);
    return NULL;
}

static void peer_start(peer *p)
{
    static int number;
    const char *tmp = getenv("TMPDIR");
    snprintf(p->path, sizeof p->path, "%s/conn-%d-%d.sock", tmp ? tmp : "/tmp", (int)getpid(), number++);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    memcpy(a.sun_path, p->path, strlen(p->path));
    p->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(p->listener, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(p->listener, 8), 0);
    pthread_create(&p->thread, NULL, run_peer, p);
}

static void peer_stop(peer *p)
{
    shutdown(p->listener, SHUT_RDWR);
    pthread_join(p->thread, NULL);
    close(p->listener);
    unlink(p->path);
}

#define PEER {.piece = 1 << 20, .die_after = -1, .version = BW_PROTOCOL_VERSION}

static void conn_open(bw_conn *c, const peer *p, bool (*push)(void *, const bw_frame *, bw_rx *), void *opaque)
{
    bw_conn_options o = {.client_id = "test", .push = push, .opaque = opaque};
    bool refused;
    assert_int_equal(bw_conn_init(c, &o), BW_OK);
    bw_err e = bw_conn_connect(c, p->path, bw_deadline_in_ms(5000), &refused);
    if (e) fail_msg("%s", bw_error_message());
}

static bw_err ask(bw_conn *c, int timeout_ms)
{
    bw_request q;
    bw_request_init(&q, BW_API_INIT_PRODUCER_ID);
    bw_reply r;
    bw_err e = bw_conn_request(c, &q, bw_deadline_in_ms(timeout_ms), &r);
    if (!e) assert_int_equal(r.answer.producer_id, q.correlation); /* the right answer for this question */
    bw_reply_fini(&r);
    return e;
}

static void test_conn_answers_cut_into_single_bytes_are_joined(void **state)
{
    (void)state;
    peer p = PEER;
    p.piece = 1;
    peer_start(&p);
    bw_conn c;
    conn_open(&c, &p, NULL, NULL);
    assert_string_equal(c.hello->data_dir, "/data");
    for (int i = 0; i < 20; i++) assert_int_equal(ask(&c, 2000), BW_OK);
    bw_conn_fini(&c);
    peer_stop(&p);
}

static void test_conn_silence_ends_at_the_deadline_and_the_late_answer_hurts_nobody(void **state)
{
    (void)state;
    peer p = PEER;
    p.silent = true;
    peer_start(&p);
    bw_conn c;
    conn_open(&c, &p, NULL, NULL);
    int64_t begun = bw_clock_mono_ms();
    assert_int_equal(ask(&c, 100), BW_ERR_TIMED_OUT);
    assert_in_range(bw_clock_mono_ms() - begun, 95, 600);
    assert_int_equal(c.in_flight, 0);
    p.silent = false;
    assert_int_equal(ask(&c, 2000), BW_OK);
    bw_conn_fini(&c);
    peer_stop(&p);
}

static void test_conn_death_fails_what_is_in_flight_and_a_new_connection_works(void **state)
{
    (void)state;
    peer p = PEER;
    p.die_after = 3;
    peer_start(&p);
    bw_conn c;
    conn_open(&c, &p, NULL, NULL);
    for (int i = 0; i < 3; i++) assert_int_equal(ask(&c, 2000), BW_OK);
    assert_int_equal(ask(&c, 2000), BW_ERR_NOT_CONNECTED);
    assert_false(bw_conn_is_up(&c));
    assert_int_equal(ask(&c, 2000), BW_ERR_NOT_CONNECTED);
    bool refused;
    assert_int_equal(bw_conn_connect(&c, p.path, bw_deadline_in_ms(2000), &refused), BW_OK);
    assert_int_equal(atomic_load(&c.epoch), 2);
    assert_int_equal(ask(&c, 2000), BW_OK);
    bw_conn_fini(&c);
    peer_stop(&p);
}

static void test_conn_garbage_is_a_lost_connection(void **state)
{
    (void)state;
    peer p = PEER;
    p.garbage = true;
    peer_start(&p);
    bw_conn c;
    conn_open(&c, &p, NULL, NULL);
    assert_int_not_equal(ask(&c, 2000), BW_OK);
    assert_false(bw_conn_is_up(&c));
    bw_conn_fini(&c);
    peer_stop(&p);
}

static void test_conn_other_protocol_version_is_refused_with_both_numbers(void **state)
{
    (void)state;
    peer p = PEER;
    p.version = 77;
    peer_start(&p);
    bw_conn c;
    bw_conn_options o = {.client_id = "test"};
    bool refused;
    assert_int_equal(bw_conn_init(&c, &o), BW_OK);
    assert_int_equal(bw_conn_connect(&c, p.path, bw_deadline_in_ms(2000), &refused), BW_ERR_UNSUPPORTED_VERSION);
    assert_non_null(strstr(bw_error_message(), "77"));
    assert_false(refused);
    assert_int_equal(bw_conn_connect(&c, "/nowhere/at.all", bw_deadline_in_ms(2000), &refused), BW_ERR_NO_COORDINATOR);
    assert_true(refused);
    bw_conn_fini(&c);
    peer_stop(&p);
}

typedef struct kept { bw_rx *rx[64]; const uint8_t *data[64]; size_t len[64]; int count; } kept;

static bool keep(void *opaque, const bw_frame *f, bw_rx *rx)
{
    kept *k = opaque;
    bw_answer a;
    assert_int_equal(bw_answer_decode(f, &a), BW_OK);
    assert_int_equal(a.subscription, 7);
    bw_rx_ref(rx);
    k->rx[k->count] = rx;
    k->data[k->count] = a.payload;
    k->len[k->count++] = a.payload_len;
    bw_answer_fini(&a);
    return true;
}

static void test_conn_pushed_payloads_stay_where_they_are_while_referenced(void **state)
{
    (void)state;
    peer p = PEER;
    p.push_bytes = 100000;
    p.piece = 30011;
    peer_start(&p);
    bw_conn c;
    kept k = {.count = 0};
    conn_open(&c, &p, keep, &k);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(ask(&c, 2000), BW_OK);
        memset((uint8_t *)(uintptr_t)k.data[i], i, k.len[i]); /* ours: nobody else may write there */
    }
    assert_int_equal(k.count, 30);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(k.len[i], 100000);
        for (size_t j = 0; j < k.len[i]; j++) assert_int_equal(k.data[i][j], i);
        bw_rx_unref(&c, k.rx[i]);
    }
    bw_conn_fini(&c);
    peer_stop(&p);
}

static bool keep_none(void *opaque, const bw_frame *f, bw_rx *rx)
{
    (void)f;
    (void)rx;
    ++*(int *)opaque;
    return false;
}

static void test_conn_push_that_cannot_be_kept_loses_the_connection(void **state)
{
    (void)state;
    peer p = PEER;
    p.push_bytes = 1000;
    peer_start(&p);
    bw_conn c;
    int offered = 0;
    conn_open(&c, &p, keep_none, &offered);
    assert_int_not_equal(ask(&c, 2000), BW_OK);
    assert_int_equal(offered, 1);
    assert_false(bw_conn_is_up(&c));
    bw_conn_fini(&c);
    peer_stop(&p);
}

static bool never_done(void *opaque)
{
    (void)opaque;
    return false;
}

static void test_conn_wait_whose_time_is_over_ends_at_an_idle_connection(void **state)
{
    (void)state;
    peer p = PEER;
    peer_start(&p);
    bw_conn c;
    conn_open(&c, &p, NULL, NULL);
    assert_int_equal(bw_conn_wait(&c, never_done, NULL, -1, bw_deadline_in_ms(0)), BW_ERR_TIMED_OUT);
    assert_true(bw_conn_is_up(&c));
    bw_conn_fini(&c);
    peer_stop(&p);
}

static void *ask_many(void *opaque)
{
    bw_conn *c = opaque;
    for (int i = 0; i < 200; i++) assert_int_equal(ask(c, 5000), BW_OK);
    return NULL;
}

static void test_conn_many_threads_get_their_own_answers(void **state)
{
    (void)state;
    peer p = PEER;
    p.piece = 700;
    peer_start(&p);
    bw_conn c;
    conn_open(&c, &p, NULL, NULL);
    pthread_t threads[6];
    for (int i = 0; i < 6; i++) pthread_create(&threads[i], NULL, ask_many, &c);
    for (int i = 0; i < 6; i++) pthread_join(threads[i], NULL);
    assert_int_equal(c.in_flight, 0);
    bw_conn_fini(&c);
    peer_stop(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conn_answers_cut_into_single_bytes_are_joined),
        cmocka_unit_test(test_conn_silence_ends_at_the_deadline_and_the_late_answer_hurts_nobody),
        cmocka_unit_test(test_conn_death_fails_what_is_in_flight_and_a_new_connection_works),
        cmocka_unit_test(test_conn_garbage_is_a_lost_connection),
        cmocka_unit_test(test_conn_other_protocol_version_is_refused_with_both_numbers),
        cmocka_unit_test(test_conn_pushed_payloads_stay_where_they_are_while_referenced),
        cmocka_unit_test(test_conn_push_that_cannot_be_kept_loses_the_connection),
        cmocka_unit_test(test_conn_wait_whose_time_is_over_ends_at_an_idle_connection),
        cmocka_unit_test(test_conn_many_threads_get_their_own_answers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
