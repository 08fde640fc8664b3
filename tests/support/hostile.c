/* support/hostile.c: see hostile.h. */
#include "support/hostile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

test_daemon hostile_daemon;
bw_bus *hostile_bus;
bw_producer *hostile_good;
static int64_t sent; /* by the good client, all acknowledged */
char hostile_stream_path[400], hostile_rep_path[420];
long hostile_rss_before;

long hostile_rss_kib(void)
{
    char path[64], line[128];
    long kib = -1;
    snprintf(path, sizeof path, "/proc/%d/status", (int)hostile_daemon.pid);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmRSS: %ld", &kib) == 1) break;
    if (f) fclose(f);
    return kib;
}

void hostile_good_client_is_served(void)
{
    assert_int_equal(test_send(hostile_good, "good", 0, "good"), sent);
    sent++;
}

int hostile_dial(void)
{
    int fd = wire_dial(hostile_stream_path);
    assert_true(fd >= 0);
    return fd;
}

void hostile_send(int fd, uint16_t type, uint32_t correlation, wire_buf *header, const void *payload, size_t len)
{
    wire_buf f = {0};
    wire_frame(&f, type, correlation, header, payload, len);
    (void)wire_send(fd, f.data, f.len);
    wire_free(&f);
    wire_free(header);
}

/* The next answer; ends the test when there is none. */
void hostile_receive(int fd, wire_buf *answer)
{
    bool timed_out;
    if (!wire_receive(fd, answer, PATIENCE_MS, &timed_out)) fail_msg("%s", timed_out ? "no answer" : "closed without an answer");
}

void hostile_expect_error(int fd, int error, uint32_t correlation, bool closing, const char *says)
{
    wire_buf a = {0};
    hostile_receive(fd, &a);
    if (wire_answer_int(&a, "error", 0) != error) fail_msg("error %d, expected %d", (int)wire_answer_int(&a, "error", 0), error);
    assert_int_equal(wire_correlation(&a), correlation);
    assert_int_equal(wire_flags(&a) & CLOSING, closing ? CLOSING : 0);
    if (says && !wire_answer_says(&a, says)) fail_msg("the message does not say '%s': %.*s", says, (int)a.len - 12, (const char *)a.data + 12);
    if (closing) {
        bool timed_out;
        assert_false(wire_receive(fd, &a, PATIENCE_MS, &timed_out));
        assert_false(timed_out);
    }
    wire_free(&a);
}

int hostile_hello(void)
{
    int fd = hostile_dial();
    wire_buf h = {0}, a = {0};
    wire_map(&h, 1);
    wire_key_str(&h, "client", "bad input");
    hostile_send(fd, HELLO, 1, &h, NULL, 0);
    hostile_receive(fd, &a);
    assert_int_equal(wire_answer_int(&a, "error", 0), 0);
    wire_free(&a);
    return fd;
}

wire_buf hostile_produce_header(const char *topic, int64_t partition, bool create)
{
    wire_buf h = {0};
    wire_map(&h, 3);
    wire_key_str(&h, "topic", topic);
    wire_key_int(&h, "partition", partition);
    wire_str(&h, "create");
    wire_u8(&h, create ? 0xc3 : 0xc2);
    return h;
}

int64_t hostile_end_of(const char *topic)
{
    bw_offset_range r;
    assert_ok(bw_offsets_range(hostile_bus, topic, 0, &r));
    return r.end;
}

wire_buf hostile_fetch_header(const char *topic, int64_t max_bytes)
{
    wire_buf h = {0};
    wire_map(&h, 2);
    wire_str(&h, "parts");
    wire_array(&h, 1);
    wire_map(&h, 2);
    wire_key_str(&h, "topic", topic);
    wire_key_int(&h, "max_bytes", max_bytes);
    wire_key_int(&h, "max_bytes", max_bytes);
    return h;
}

/* A sound batch: one that the library made, as it lies in the log. */
size_t hostile_sound_batch(const char *topic, uint8_t *out, size_t size)
{
    int fd = hostile_hello();
    wire_buf h = hostile_fetch_header(topic, 1), a = {0};
    hostile_send(fd, FETCH, 2, &h, NULL, 0);
    hostile_receive(fd, &a);
    size_t len;
    const uint8_t *p = wire_payload(&a, &len);
    assert_true(len > 61);
    size_t first = 12 + ((size_t)p[8] << 24 | (size_t)p[9] << 16 | (size_t)p[10] << 8 | p[11]);
    assert_true(first <= len && first <= size);
    memcpy(out, p, first);
    wire_free(&a);
    close(fd);
    return first;
}

int hostile_start(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    daemon_make(&hostile_daemon);
    daemon_start(&hostile_daemon);
    snprintf(hostile_stream_path, sizeof hostile_stream_path, "%s", hostile_daemon.url + 6);
    snprintf(hostile_rep_path, sizeof hostile_rep_path,
             "%.*srep.sock", (int)(strrchr(hostile_stream_path, '/') + 1 - hostile_stream_path), hostile_stream_path);
    hostile_bus = test_bus_by(hostile_daemon.url, BW_TRANSPORT_IPC);
    hostile_good = test_producer(hostile_bus, BW_ACKS_VISIBLE);
    hostile_good_client_is_served();
    hostile_rss_before = hostile_rss_kib();
    return 0;
}

int hostile_stop(void **state)
{
    (void)state;
    bw_producer_close(hostile_good, 1000);
    bw_bus_close(hostile_bus);
    daemon_remove(&hostile_daemon);
    return 0;
}

int hostile_nothing_is_lost(void **state)
{
    (void)state;
    hostile_good_client_is_served();
    assert_int_equal(kill(hostile_daemon.pid, 0), 0);
    bw_consumer *c = test_consumer(hostile_bus, "good", 0, BW_OFFSET_BEGINNING);
    assert_int_equal(test_read(c, (size_t)sent, 10000, NULL, NULL), sent);
    bw_consumer_close(c);
    for (int tries = 0; tries < 100 && hostile_rss_kib() > hostile_rss_before + RSS_ROOM_KIB; tries++) usleep(20000);
    if (hostile_rss_kib() > hostile_rss_before + RSS_ROOM_KIB)
        print_error("resident memory: %ld KiB, %ld at first\n", hostile_rss_kib(), hostile_rss_before);
    return hostile_rss_kib() > hostile_rss_before + RSS_ROOM_KIB;
}
