/* What no client of ours would send: each is a clear error, nothing is lost, the daemon lives, and a good client is served meanwhile.
 * Frames on the stream socket, and nng's own wire form on the REP socket, both made by hand. test: limit=120 */
#include "support/hostile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- batches ---- */

static void test_badinput_corrupt_batch_is_refused_wherever_it_is_broken(void **state)
{
    (void)state;
    uint8_t batch[4096], bad[4096];
    assert_int_equal(test_send(hostile_good, "pattern", 0, "a value with some bytes"), 0);
    size_t len = hostile_sound_batch("pattern", batch, sizeof batch);
    int fd = hostile_hello();
    uint32_t correlation = 10;
    wire_buf a = {0};
    int64_t taken = 0;
    for (size_t at = 0; at < len; at++) {
        if (at < 8 || (at >= 12 && at < 16)) continue; /* base offset and leader epoch are the daemon's to write */
        memcpy(bad, batch, len);
        bad[at] ^= 0x41;
        wire_buf h = hostile_produce_header("flipped", 0, true);
        hostile_send(fd, PRODUCE, correlation, &h, bad, len);
        hostile_receive(fd, &a);
        int64_t error = wire_answer_int(&a, "error", 0);
        if (error == 0) fail_msg("a batch with byte %zu flipped was taken", at);
        if (error != BW_ERR_CORRUPT && error != BW_ERR_UNSUPPORTED && error != BW_ERR_INVALID_ARGUMENT && error != BW_ERR_RECORD_TOO_LARGE)
            fail_msg("byte %zu flipped: error %d", at, (int)error);
        assert_int_equal(wire_correlation(&a), correlation++);
    }
    for (size_t cut = 0; cut < len; cut++) { /* cut anywhere, and with something behind it */
        wire_buf h = hostile_produce_header("flipped", 0, true);
        hostile_send(fd, PRODUCE, correlation, &h, batch, cut);
        hostile_receive(fd, &a);
        assert_int_not_equal(wire_answer_int(&a, "error", 0), 0);
        assert_int_equal(wire_correlation(&a), correlation++);
    }
    memcpy(bad, batch, len);
    memcpy(bad + len, batch, len);
    wire_buf h = hostile_produce_header("flipped", 0, true);
    hostile_send(fd, PRODUCE, correlation, &h, bad, 2 * len);
    hostile_expect_error(fd, BW_ERR_CORRUPT, correlation++, false, NULL);
    h = hostile_produce_header("flipped", 0, true);
    hostile_send(fd, PRODUCE, correlation, &h, batch, len); /* the connection is as good as before */
    hostile_receive(fd, &a);
    assert_int_equal(wire_answer_int(&a, "error", 0), 0);
    assert_int_equal(wire_answer_int(&a, "offset", -1), taken);
    assert_int_equal(hostile_end_of("flipped"), 1);
    wire_free(&a);
    close(fd);
}

static void test_badinput_oversize_batch_is_refused(void **state)
{
    (void)state;
    char *large = malloc(400001);
    assert_non_null(large);
    memset(large, 'x', 400000);
    large[400000] = 0;
    assert_int_equal(test_send(hostile_good, "large", 0, large), 0);
    uint8_t *batch = malloc(500000);
    assert_non_null(batch);
    size_t len = hostile_sound_batch("large", batch, 500000);
    bw_config_entry small = {"max.message.bytes", "1000"};
    assert_ok(bw_topic_create(hostile_bus, "small", 1, &small, 1));
    int fd = hostile_hello();
    wire_buf h = hostile_produce_header("small", 0, true);
    hostile_send(fd, PRODUCE, 5, &h, batch, len);
    hostile_expect_error(fd, BW_ERR_RECORD_TOO_LARGE, 5, false, "max.message.bytes");
    assert_int_equal(hostile_end_of("small"), 0);
    bw_record r = test_record(NULL, large);
    assert_err(bw_producer_send_sync(hostile_good, "small", 0, &r, 5000, NULL), BW_ERR_RECORD_TOO_LARGE);
    assert_int_equal(hostile_end_of("small"), 0);
    close(fd);
    free(large);
    free(batch);
}

static void test_badinput_names_and_partitions_are_refused(void **state)
{
    (void)state;
    uint8_t batch[4096];
    char long_name[251];
    memset(long_name, 'a', 250);
    long_name[250] = 0;
    size_t len = hostile_sound_batch("good", batch, sizeof batch);
    const char *const names[] = {"", ".", "..", "../good", "a/b", "a b", "\xc3\xa9", long_name};
    int fd = hostile_hello();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        wire_buf h = hostile_produce_header(names[i], 0, true);
        hostile_send(fd, PRODUCE, 20, &h, batch, len);
        wire_buf a = {0};
        hostile_receive(fd, &a);
        int64_t error = wire_answer_int(&a, "error", 0);
        if (error != BW_ERR_INVALID_TOPIC && error != BW_ERR_INVALID_ARGUMENT) fail_msg("topic '%.20s': error %d", names[i], (int)error);
        wire_free(&a);
    }
    wire_buf h = hostile_produce_header("never.made", 0, false);
    hostile_send(fd, PRODUCE, 21, &h, batch, len);
    hostile_expect_error(fd, BW_ERR_UNKNOWN_TOPIC, 21, false, "never.made");
    static const int64_t partitions[] = {-1, 1, 99, INT32_MAX};
    for (size_t i = 0; i < sizeof partitions / sizeof *partitions; i++) {
        h = hostile_produce_header("good", partitions[i], true);
        hostile_send(fd, PRODUCE, 22, &h, batch, len);
        hostile_expect_error(fd, BW_ERR_UNKNOWN_PARTITION, 22, false, NULL);
    }
    h = hostile_produce_header("good", INT64_MAX, true); /* not even an i32 */
    hostile_send(fd, PRODUCE, 23, &h, batch, len);
    hostile_expect_error(fd, BW_ERR_PROTOCOL, 23, true, "out of its range");
    close(fd);
}

/* ---- frames ---- */

static void expect_refused_frame(const uint8_t *bytes, size_t len, bool after_hello)
{
    int fd = after_hello ? hostile_hello() : hostile_dial();
    wire_buf a = {0};
    bool timed_out;
    (void)wire_send(fd, bytes, len);
    if (!wire_receive(fd, &a, PATIENCE_MS, &timed_out)) fail_msg("%s", timed_out ? "a bad frame was not answered" : "closed without a word");
    assert_int_equal(wire_answer_int(&a, "error", 0), BW_ERR_PROTOCOL);
    assert_int_equal(wire_flags(&a) & CLOSING, CLOSING);
    assert_false(wire_receive(fd, &a, PATIENCE_MS, &timed_out));
    assert_false(timed_out);
    wire_free(&a);
    close(fd);
}

static void test_badinput_lying_lengths_close_with_a_reason(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {0, 1, 11, (64u << 20) + 1, 0x7fffffff, 0xffffffff};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (int after = 0; after < 2; after++) {
            wire_buf f = {0};
            wire_be32(&f, lengths[i]);
            wire_be32(&f, METADATA << 16);
            wire_be32(&f, 7);
            wire_be32(&f, 0);
            expect_refused_frame(f.data, f.len, after);
            wire_free(&f);
        }
    static const uint32_t headers[] = {1, 1000, 0x80000000, 0xffffffff}; /* longer than the frame */
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        wire_buf f = {0};
        wire_be32(&f, 12);
        wire_be32(&f, METADATA << 16);
        wire_be32(&f, 7);
        wire_be32(&f, headers[i]);
        expect_refused_frame(f.data, f.len, true);
        wire_free(&f);
    }
    hostile_good_client_is_served();
}

static void test_badinput_truncated_frames_harm_nobody(void **state)
{
    (void)state;
    uint8_t batch[4096];
    size_t len = hostile_sound_batch("good", batch, sizeof batch);
    int64_t before = hostile_end_of("good");
    wire_buf f = {0}, h = hostile_produce_header("good", 0, true);
    wire_frame(&f, PRODUCE, 3, &h, batch, len);
    for (size_t cut = 0; cut < f.len; cut++) {
        int fd = hostile_hello();
        assert_true(wire_send(fd, f.data, cut));
        close(fd);
    }
    assert_int_equal(hostile_end_of("good"), before);
    wire_free(&f);
    wire_free(&h);
    hostile_good_client_is_served();
}

static void test_badinput_msgpack_bombs_are_refused_in_little_memory(void **state)
{
    (void)state;
    static const struct { const char *what; uint8_t bytes[16]; size_t len; } bombs[] = {
        {"a map of 4 billion", {0xdf, 0xff, 0xff, 0xff, 0xff}, 5},
        {"an array of 4 billion parts", {0x81, 0xa5, 'p', 'a', 'r', 't', 's', 0xdd, 0xff, 0xff, 0xff, 0xff}, 12},
        {"a map of 65535 configs", {0x81, 0xa7, 'c', 'o', 'n', 'f', 'i', 'g', 's', 0xde, 0xff, 0xff}, 12},
        {"a bin of 4 GiB", {0x81, 0xa1, 'x', 0xc6, 0xff, 0xff, 0xff, 0xff}, 8},
        {"a str of 4 GiB", {0x81, 0xa5, 't', 'o', 'p', 'i', 'c', 0xdb, 0xff, 0xff, 0xff, 0xff}, 12},
        {"an ext of 4 GiB", {0x81, 0xa1, 'x', 0xc9, 0xff, 0xff, 0xff, 0xff, 1}, 9},
        {"no map", {0x93, 1, 2, 3}, 4},
        {"two maps", {0x80, 0x80}, 2},
        {"the same key twice", {0x82, 0xa5, 't', 'o', 'p', 'i', 'c', 0xa1, 'a', 0xa5, 't', 'o', 'p', 'i', 'c', 0xa0}, 16},
        {"a key that is no text", {0x81, 0x01, 0x02}, 3},
        {"a byte that msgpack never uses", {0x81, 0xa1, 'x', 0xc1}, 4},
        {"the wrong kind", {0x81, 0xa5, 't', 'o', 'p', 'i', 'c', 0x05}, 8},
        {"half a value", {0x81, 0xa5, 't', 'o', 'p', 'i', 'c'}, 7},
    };
    static const uint16_t types[] = {CREATE, PRODUCE, FETCH, METADATA};
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            wire_buf h = {0}, f = {0};
            wire_bytes(&h, bombs[i].bytes, bombs[i].len);
            wire_frame(&f, types[t], 9, &h, NULL, 0);
            /* FETCH alone knows parts, CREATE configs, and FETCH no topic: unknown keys are skipped, but as bounded. */
            bool skipped = (strstr(bombs[i].what, "wrong kind") || strstr(bombs[i].what, "twice")) && types[t] == FETCH;
            if (!skipped) expect_refused_frame(f.data, f.len, true);
            wire_free(&h);
            wire_free(&f);
        }
    hostile_good_client_is_served();
}

static void test_badinput_deep_nesting_is_refused_without_recursion(void **state)
{
    (void)state;
    static const size_t depths[] = {9, 1000, 1000000, 30000000};
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        wire_buf h = {0}, f = {0};
        wire_map(&h, 1);
        wire_str(&h, "unknown");
        size_t at = h.len;
        uint8_t *room = malloc(depths[i]);
        assert_non_null(room);
        memset(room, 0x91, depths[i]);
        wire_bytes(&h, room, depths[i]);
        free(room);
        wire_u8(&h, 1);
        assert_int_equal(h.len, at + depths[i] + 1);
        wire_frame(&f, METADATA, 9, &h, NULL, 0);
        expect_refused_frame(f.data, f.len, true);
        wire_free(&h);
        wire_free(&f);
    }
    int fd = hostile_hello(); /* what is not that deep is skipped */
    wire_buf h = {0}, a = {0};
    wire_map(&h, 1);
    wire_str(&h, "unknown");
    for (int i = 0; i < 5; i++) wire_array(&h, 1);
    wire_u8(&h, 1);
    hostile_send(fd, METADATA, 9, &h, NULL, 0);
    hostile_receive(fd, &a);
    assert_int_equal(wire_answer_int(&a, "error", 0), 0);
    wire_free(&a);
    close(fd);
}

/* ---- conversation ---- */

static void test_badinput_other_version_is_answered_with_both_numbers(void **state)
{
    (void)state;
    int fd = hostile_dial();
    wire_buf h = {0}, a = {0};
    wire_map(&h, 2);
    wire_key_int(&h, "min", 7);
    wire_key_int(&h, "max", 9);
    hostile_send(fd, HELLO, 1, &h, NULL, 0);
    hostile_receive(fd, &a);
    assert_int_equal(wire_answer_int(&a, "error", 0), BW_ERR_UNSUPPORTED_VERSION);
    assert_int_equal(wire_answer_int(&a, "min", -1), 1);
    assert_int_equal(wire_answer_int(&a, "max", -1), 1);
    assert_true(wire_answer_says(&a, "7 to 9") && wire_answer_says(&a, "1 to 1"));
    wire_map(&h, 2);
    wire_key_int(&h, "min", 1);
    wire_key_int(&h, "max", 9);
    hostile_send(fd, HELLO, 2, &h, NULL, 0);
    hostile_receive(fd, &a);
    assert_int_equal(wire_answer_int(&a, "error", 0), 0);
    assert_int_equal(wire_answer_int(&a, "version", -1), 1);
    wire_free(&a);
    close(fd);
}

static void test_badinput_unknown_request_is_answered_and_the_next_served(void **state)
{
    (void)state;
    static const uint16_t types[] = {0, 36, 999, 65535};
    int fd = hostile_hello();
    wire_buf a = {0}, data = {0};
    hostile_send(fd, 12, 30, &data, NULL, 0); /* DATA is the daemon's to send: no client speaks like that */
    hostile_expect_error(fd, BW_ERR_PROTOCOL, 30, true, "DATA");
    close(fd);
    fd = hostile_hello();
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        wire_buf h = {0};
        wire_map(&h, 0);
        hostile_send(fd, types[i], 40 + (uint32_t)i, &h, "payload", 7);
        hostile_expect_error(fd, BW_ERR_UNSUPPORTED, 40 + (uint32_t)i, false, NULL);
    }
    wire_buf h = {0};
    wire_map(&h, 0);
    hostile_send(fd, STATUS, 50, &h, NULL, 0);
    hostile_receive(fd, &a);
    assert_int_equal(wire_answer_int(&a, "error", 0), 0);
    wire_free(&a);
    close(fd);
}

static void test_badinput_request_before_hello_is_refused(void **state)
{
    (void)state;
    uint8_t batch[4096];
    size_t len = hostile_sound_batch("good", batch, sizeof batch);
    int64_t before = hostile_end_of("good");
    int fd = hostile_dial();
    wire_buf h = hostile_produce_header("good", 0, true);
    hostile_send(fd, PRODUCE, 3, &h, batch, len);
    hostile_expect_error(fd, BW_ERR_PROTOCOL, 3, true, "HELLO");
    close(fd);
    assert_int_equal(hostile_end_of("good"), before);
}

static void test_badinput_garbage_harms_nobody(void **state)
{
    (void)state;
    uint32_t seed = 12345;
    for (int round = 0; round < 300; round++) {
        int fd = round % 2 ? hostile_hello() : hostile_dial();
        uint8_t bytes[2048];
        size_t len = 1 + seed % sizeof bytes;
        for (size_t i = 0; i < len; i++) {
            seed = seed * 1664525 + 1013904223;
            bytes[i] = (uint8_t)(seed >> 24);
        }
        if (round % 3 == 0 && len > 16) { /* a frame whose outside is right */
            wire_buf f = {0}, h = {0};
            wire_bytes(&h, bytes, len);
            wire_frame(&f, (uint16_t)(1 + seed % 21), 1, &h, NULL, 0);
            (void)wire_send(fd, f.data, f.len);
            wire_free(&f);
            wire_free(&h);
        } else (void)wire_send(fd, bytes, len);
        close(fd);
        if (round % 50 == 0) hostile_good_client_is_served();
    }
    hostile_good_client_is_served();
}

/* ---- REP: nng's wire form: 8 bytes of greeting each way, then 1, u64 length, body; REQ's body begins with a request id ---- */

static int dial_rep(bool greet)
{
    static const uint8_t req[8] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    uint8_t theirs[8];
    int fd = wire_dial(hostile_rep_path);
    assert_true(fd >= 0);
    if (!greet) return fd;
    assert_true(wire_send(fd, req, 8));
    assert_int_equal(recv(fd, theirs, 8, MSG_WAITALL), 8);
    assert_int_equal(theirs[5], 0x31);
    return fd;
}

static void rep_send(int fd, uint64_t claimed, const void *body, size_t len)
{
    wire_buf m = {0};
    wire_u8(&m, 1);
    wire_be32(&m, (uint32_t)(claimed >> 32));
    wire_be32(&m, (uint32_t)claimed);
    wire_be32(&m, 0x80000001);
    wire_bytes(&m, body, len);
    (void)wire_send(fd, m.data, m.len);
    wire_free(&m);
}

/* The answer's error; -1: the connection was closed, -2: nothing came. */
static int64_t rep_error(int fd)
{
    uint8_t head[13];
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, PATIENCE_MS) != 1) return -2;
    ssize_t n = recv(fd, head, sizeof head, MSG_WAITALL);
    if (n < (ssize_t)sizeof head) return -1;
    size_t len = ((size_t)head[5] << 24 | (size_t)head[6] << 16 | (size_t)head[7] << 8 | head[8]) - 4;
    wire_buf a = {.data = malloc(len), .len = len, .cap = len};
    assert_non_null(a.data);
    assert_int_equal(recv(fd, a.data, len, MSG_WAITALL), (ssize_t)len);
    int64_t error = wire_answer_int(&a, "error", 0);
    wire_free(&a);
    return error;
}

static int64_t rep_ask(uint16_t type, const wire_buf *header, const void *payload, size_t len)
{
    int fd = dial_rep(true);
    wire_buf f = {0};
    wire_frame(&f, type, 5, header, payload, len);
    rep_send(fd, f.len - 4 + 4, f.data + 4, f.len - 4);
    int64_t error = rep_error(fd);
    wire_free(&f);
    close(fd);
    return error;
}

static void test_badinput_rep_messages_are_answered_or_the_pipe_is_closed(void **state)
{
    (void)state;
    wire_buf h = {0};
    wire_map(&h, 0);
    assert_int_equal(rep_ask(METADATA, &h, NULL, 0), 0);
    assert_int_equal(rep_ask(999, &h, NULL, 0), BW_ERR_UNSUPPORTED);
    assert_int_equal(rep_ask(SUBSCRIBE, &h, NULL, 0), BW_ERR_UNSUPPORTED);
    wire_free(&h);
    wire_bytes(&h, "\xdf\xff\xff\xff\xff", 5);
    assert_int_equal(rep_ask(METADATA, &h, NULL, 0), BW_ERR_PROTOCOL);
    wire_free(&h);
    /* records as msgpack: bombs and nonsense */
    static const struct { const char *bytes; size_t len; } records[] = {
        {"", 0}, {"\xdd\xff\xff\xff\xff", 5}, {"\x91\x81\xa3key\xc6\xff\xff\xff\xff", 10}, {"\x91\x05", 2},
        {"\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x91\x90", 13},
        {"\x91\x80\x80", 3}, {"garbage", 7},
    };
    for (size_t i = 0; i < sizeof records / sizeof *records; i++) {
        wire_map(&h, 2);
        wire_key_str(&h, "topic", "rep");
        wire_str(&h, "records");
        wire_u8(&h, 0xc3);
        int64_t error = rep_ask(PRODUCE, &h, records[i].bytes, records[i].len);
        if (error != BW_ERR_PROTOCOL && error != BW_ERR_INVALID_ARGUMENT && error != BW_ERR_CORRUPT)
            fail_msg("records %zu: error %d", i, (int)error);
        wire_free(&h);
    }
    int fd = dial_rep(true); /* shorter than a frame's prefix */
    rep_send(fd, 7, "abc", 3);
    assert_int_equal(rep_error(fd), BW_ERR_PROTOCOL);
    close(fd);
    static const uint64_t claims[] = {(64u << 20) + 100, UINT64_C(1) << 40, UINT64_MAX};
    for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
        fd = dial_rep(true);
        rep_send(fd, claims[i], "abc", 3);
        assert_int_equal(rep_error(fd), -1);
        close(fd);
    }
    for (int i = 0; i < 100; i++) { /* no greeting, half a greeting, nonsense, half a message */
        fd = dial_rep(i % 4 == 3);
        if (i % 4 == 1) (void)wire_send(fd, "\0SP", 3);
        if (i % 4 == 2) (void)wire_send(fd, "GET / HTTP/1.1\r\n\r\n", 18);
        if (i % 4 == 3) rep_send(fd, 1000, "abc", 3);
        close(fd);
    }
    hostile_good_client_is_served();
}

#define HOSTILE(name) cmocka_unit_test_teardown(test_badinput_##name, hostile_nothing_is_lost)

int main(void)
{
    const struct CMUnitTest tests[] = {
        HOSTILE(corrupt_batch_is_refused_wherever_it_is_broken),
        HOSTILE(oversize_batch_is_refused),
        HOSTILE(names_and_partitions_are_refused),
        HOSTILE(lying_lengths_close_with_a_reason),
        HOSTILE(truncated_frames_harm_nobody),
        HOSTILE(msgpack_bombs_are_refused_in_little_memory),
        HOSTILE(deep_nesting_is_refused_without_recursion),
        HOSTILE(other_version_is_answered_with_both_numbers),
        HOSTILE(unknown_request_is_answered_and_the_next_served),
        HOSTILE(request_before_hello_is_refused),
        HOSTILE(garbage_harms_nobody),
        HOSTILE(rep_messages_are_answered_or_the_pipe_is_closed),
    };
    return cmocka_run_group_tests(tests, hostile_start, hostile_stop);
}
