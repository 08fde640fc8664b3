/* test: limit=150 no-asan
 * A link over a bad line, a week of it in small: 256 kbit/s with 600 ms there and back are 2.5 Mbit/s with 60 ms here, 5 % of the packets are
 * lost, the connection is cut at random and both daemons are killed. Each record is once and in order at the other side; what went over the
 * line is at most 1.05 times the same batches, each compressed alone. Then the link is idle: nothing goes over the line.
 * LINK_WEEK_S (5) seconds from LINK_SEED (1): a longer week by make link-week. */
#include "support/links.h"
#include "support/lossy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 20, IDLE_MS = 8000 };

static void create(const char *url, const char *topic)
{
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(bus, topic, 1, NULL, 0));
    bw_bus_close(bus);
}

/* What a gateway sends: text that compresses as such text does. */
static void fill(char *text, size_t size, unsigned *dice, int n)
{
    snprintf(text, size, "{\"n\":%d,\"sensor\":\"boiler-%d\",\"temperature\":%d.%d,\"pressure\":%d,\"state\":\"%s\"}", n, rand_r(dice) % 40,
             rand_r(dice) % 90, rand_r(dice) % 100, rand_r(dice) % 5000, rand_r(dice) % 4 ? "running" : "idle");
}

/* The same batches into both topics; in "alone" each is compressed. Whatever dies meanwhile, both get them or the test ends. */
static void write_batch(const char *url, unsigned *dice, int from)
{
    static const char *const topics[] = {"week", "alone"};
    char values[BATCH][160];
    bw_record records[BATCH];
    for (int i = 0; i < BATCH; i++) {
        fill(values[i], sizeof values[i], dice, from + i);
        records[i] = test_record(NULL, values[i]);
    }
    for (int t = 0; t < 2; t++) {
        bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
        bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
        bw_producer *p = NULL;
        o.acks = BW_ACKS_VISIBLE;
        o.compression = t ? BW_CODEC_ZSTD : BW_CODEC_NONE;
        assert_ok(bw_producer_open(bus, &o, &p));
        assert_ok(bw_producer_send_batch(p, topics[t], 0, records, BATCH, 10000, NULL));
        assert_ok(bw_producer_close(p, 5000));
        bw_bus_close(bus);
    }
}

static long long size_of(const char *url, const char *topic)
{
    char *json = NULL;
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    assert_ok(bw_topics_describe(bus, topic, &json));
    const char *at = strstr(json, "\"size_bytes\":");
    long long n = at ? atoll(at + 13) : -1;
    bw_free(json);
    bw_bus_close(bus);
    return n;
}

static void one_week(test_daemon *a, test_daemon *b, unsigned dice, int64_t ms)
{
    int64_t until = now_ms() + ms, death = now_ms() + 1000;
    for (int n = 0; now_ms() < until; n += BATCH) {
        write_batch(a->url, &dice, n);
        usleep(1000);
        if (now_ms() < death) continue;
        test_daemon *d = rand_r(&dice) % 2 ? a : b;
        death = now_ms() + 500 + rand_r(&dice) % 2000;
        daemon_stop(d, SIGKILL);
        daemon_start(d);
    }
}

static void assert_once_and_in_order(const char *url)
{
    seen_list l = read_whole(url, "week", 0, BW_READ_UNCOMMITTED);
    for (size_t i = 0; i < l.count; i++) {
        if (l.items[i].offset != (int64_t)i || atoi(l.items[i].value + 5) != (int)i)
            fail_msg("at offset %lld of the copy lies %s", (long long)l.items[i].offset, l.items[i].value);
    }
    free(l.items);
}

static void test_link_bad_line_and_deaths_deliver_once_for_few_bytes(void **state)
{
    (void)state;
    test_daemon a, b;
    lossy line;
    char to[320], url[64];
    static const char *const rules[] = {"--delay-ms", "30", "--rate-kbit", "2560", "--loss", "5", "--cut-ms", "2000", "--down-ms", "100", NULL};
    unsigned seed = getenv("LINK_SEED") ? (unsigned)atoi(getenv("LINK_SEED")) : 1;
    int64_t week = getenv("LINK_WEEK_S") ? atoi(getenv("LINK_WEEK_S")) * 1000 : 5000;
    daemon_make(&a);
    daemon_make(&b);
    daemon_start(&a);
    daemon_start(&b);
    snprintf(to, sizeof to, "%s/run/bus.sock", a.dir);
    lossy_start(&line, to, seed, rules);
    create(a.url, "week");
    create(a.url, "alone");
    snprintf(url, sizeof url, "url=tcp://127.0.0.1:%d", line.port);
    link_add(b.url, "line", (const char *const[]){url, "topics=week", "compression=zstd", NULL});
    one_week(&a, &b, seed, week);
    wait_for_end(b.url, "week", 0, end_of(a.url, "week", 0), 60000 + (int)week * 2);
    assert_mirrors(a.url, "week", b.url, "week", 0);
    assert_once_and_in_order(b.url);
    lossy_stats s = lossy_read(&line);
    long long alone = size_of(a.url, "alone"), sent = (long long)(s.up + s.down);
    print_message("%lld records, %llu connections, %llu cuts, %llu packets lost; %lld bytes sent (%llu of them asking), alone %lld: %.3f\n",
                  (long long)end_of(b.url, "week", 0), s.connections, s.cuts, s.lost, sent, s.up, alone, (double)sent / (double)alone);
    assert_true(s.connections > 2 && s.lost > 0);
    assert_true((double)sent <= 1.05 * (double)alone);
    lossy_tell(&line, "set cut-ms 0"); /* of connections to come */
    lossy_tell(&line, "set down-ms 0");
    lossy_tell(&line, "cut");
    usleep(2000000); /* it is connected again */
    s = lossy_read(&line);
    usleep(IDLE_MS * 1000);
    lossy_stats later = lossy_read(&line);
    assert_int_equal(later.up_packets + later.down_packets, s.up_packets + s.down_packets);
    daemon_remove(&a);
    daemon_remove(&b);
    lossy_stop(&line);
}

int main(void)
{
    if (test_is_direct()) { /* the line is the same */
        print_message("SKIP: once is enough\n");
        return 77;
    }
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_link_bad_line_and_deaths_deliver_once_for_few_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
