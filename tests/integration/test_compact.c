/* A compacted topic on both transports ($BUSWAY_TEST_TRANSPORT: how it is read): records need keys, the last value of each stays, readers
 * go on across swaps, and a daemon killed in the middle of a compaction, at each of its steps again and again, loses nothing.
 * test: limit=240 no-asan */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOPIC "table"
enum { KEYS = 300, KILLS = 110 }; /* on each transport */

static const bw_config_entry config[] = {
    {"cleanup.policy", "compact"},        {"segment.bytes", "16384"},    {"min.cleanable.dirty.ratio", "0.2"},
    {"delete.retention.ms", "20"},        {"file.delete.delay.ms", "0"},
};
enum { CONFIGS = sizeof config / sizeof *config };

/* What was written: only the writer changes it. A version is odd for a value, even for a tombstone. */
typedef struct writer {
    const char *url;
    _Atomic bool stop;
    _Atomic int version[KEYS]; /* acknowledged */
    _Atomic int begun[KEYS];   /* sent */
    _Atomic long sent;
    _Atomic int failed;
} writer;

static bw_err write_one(bw_producer *p, writer *w, int key, uint32_t x)
{
    char name[16], value[200];
    bool gone = x % 7 == 0;
    int version = (w->begun[key] / 2 + 1) * 2 + !gone;
    memset(value, 'v', sizeof value);
    snprintf(name, sizeof name, "key-%d", key);
    snprintf(value, sizeof value, "%d ", version);
    bw_record r = test_record(name, NULL);
    if (!gone) {
        r.value = value;
        r.value_len = 60 + x % 100;
    }
    w->begun[key] = version;
    bw_err e = bw_producer_send_sync(p, TOPIC, 0, &r, 20000, NULL);
    if (!e) {
        w->version[key] = version;
        w->sent++;
    }
    return e;
}

static void *write_on(void *opaque)
{
    writer *w = opaque;
    bw_bus *bus = test_bus_by(w->url, BW_TRANSPORT_AUTO);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    uint32_t x = 1;
    while (!w->stop) {
        x = x * 1664525 + 1013904223;
        bw_err e = write_one(p, w, (int)((x >> 8) % KEYS), x >> 16);
        if (e) {
            print_error("send: %s: %s\n", bw_err_name(e), bw_error_message());
            w->failed++;
            break;
        }
        if (w->sent % 8 == 0) usleep(300);
    }
    bw_producer_close(p, 5000);
    bw_bus_close(bus);
    return NULL;
}

/* What a reader has seen. */
typedef struct table {
    int version[KEYS]; /* 0: nothing */
    int records[KEYS];
    int64_t last;
    long read;
} table;

static void take(void *opaque, const bw_batch *b, const bw_record_view *r)
{
    table *t = opaque;
    char key[16] = "", value[16] = "";
    (void)b;
    assert_true(r->offset > t->last);
    t->last = r->offset;
    memcpy(key, r->key, r->key_len < 15 ? r->key_len : 15);
    int k = -1, version;
    assert_int_equal(sscanf(key, "key-%d", &k), 1);
    assert_true(k >= 0 && k < KEYS);
    if (r->value) {
        memcpy(value, r->value, 15);
        version = atoi(value);
        assert_true(version > t->version[k]); /* of one key never an older one behind a newer one */
    } else version = (t->version[k] / 2 + 1) * 2; /* which one it was is not said */
    t->version[k] = version;
    t->records[k]++;
    t->read++;
}

static long long described(const char *url, const char *name)
{
    char *json, quoted[64];
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    assert_ok(bw_topics_describe(bus, TOPIC, &json));
    snprintf(quoted, sizeof quoted, "\"%s\":", name);
    char *at = strstr(json, quoted);
    long long v = at ? strtoll(at + strlen(quoted), NULL, 10) : -1;
    bw_free(json);
    bw_bus_close(bus);
    return v;
}

/* Reads all that is there now. */
static void read_all(const char *url, table *t)
{
    *t = (table){.last = -1};
    long long end = described(url, "end_offset");
    int64_t at = 0, until = now_ms() + 20000;
    bw_bus *bus = test_bus_by(url, test_is_direct() ? BW_TRANSPORT_AUTO : BW_TRANSPORT_IPC);
    bw_consumer *c = test_consumer(bus, TOPIC, 0, 0);
    bw_batch b;
    while (at < end && now_ms() < until) {
        bw_err e = bw_consumer_poll(c, 100, &b);
        if (e == BW_ERR_TIMED_OUT) continue;
        assert_ok(e);
        bw_record_view v;
        int r;
        while ((r = bw_batch_next(&b, &v)) == 1) take(t, &b, &v);
        assert_int_equal(r, 0);
        assert_ok(bw_consumer_position(c, TOPIC, 0, &at));
    }
    assert_true(at >= end);
    bw_consumer_close(c);
    bw_bus_close(bus);
}

/* acked: as it was before reading began. */
static void check_table(const table *t, const int *acked, const writer *w)
{
    for (int k = 0; k < KEYS; k++) {
        bool gone = t->version[k] == 0 || t->version[k] % 2 == 0;
        bool may_be_gone = acked[k] % 2 == 0 || w->begun[k] > acked[k];
        if (gone && may_be_gone) continue;
        if (!gone && t->version[k] >= acked[k] && t->version[k] <= w->begun[k]) continue;
        fail_msg("key-%d: version %d was acknowledged, %d begun, %d is read", k, acked[k], w->begun[k], t->version[k]);
    }
}

static void snapshot(const writer *w, int *acked)
{
    for (int k = 0; k < KEYS; k++) acked[k] = w->version[k];
}

/* Nobody writes any more: the cleaner comes to its end. */
static void wait_until_clean(const char *url)
{
    int64_t until = now_ms() + 20000;
    long long runs = -2;
    for (int same = 0; same < 3 && now_ms() < until;) {
        usleep(60000);
        long long now = described(url, "runs");
        same = now == runs ? same + 1 : 0;
        runs = now;
    }
    assert_true(runs > 0);
}

static void make(test_daemon *d)
{
    static const char *const arguments[] = {"--set", "log.cleaner.backoff.ms=3", "--set", "log.flush.interval.ms=10"};
    daemon_make(d);
    for (int i = 0; i < 4; i++) d->arguments[i] = arguments[i];
    daemon_start(d);
    bw_bus *bus = test_bus_by(d->url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(bus, TOPIC, 1, config, CONFIGS));
    bw_bus_close(bus);
}

static void test_compact_topic_refuses_records_without_a_key(void **state)
{
    (void)state;
    test_daemon d;
    make(&d);
    bw_bus *bus = test_bus_by(d.url, BW_TRANSPORT_AUTO);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_record r = test_record(NULL, "x");
    assert_err(bw_producer_send_sync(p, TOPIC, 0, &r, 5000, NULL), BW_ERR_INVALID_RECORD);
    assert_non_null(strstr(bw_error_message(), "key"));
    r = test_record("k", NULL);
    assert_ok(bw_producer_send_sync(p, TOPIC, 0, &r, 5000, NULL));
    bw_producer_close(p, 1000);
    bw_config_entry wrong = {"cleanup.policy", "compact,keep"}, both = {"cleanup.policy", "delete,compact"};
    assert_err(bw_topic_alter(bus, TOPIC, 0, &wrong, 1), BW_ERR_INVALID_CONFIG);
    assert_ok(bw_topic_alter(bus, TOPIC, 0, &both, 1));
    char *json;
    assert_ok(bw_topics_describe(bus, TOPIC, &json));
    assert_non_null(strstr(json, "compact,delete"));
    bw_free(json);
    bw_bus_close(bus);
    daemon_remove(&d);
}

/* A reader that stays: from the start to the end, across all swaps. */
typedef struct follower { const char *url; _Atomic bool stop; table t; } follower;

static void *follow(void *opaque)
{
    follower *f = opaque;
    bw_bus *bus = test_bus_by(f->url, test_is_direct() ? BW_TRANSPORT_AUTO : BW_TRANSPORT_IPC);
    bw_consumer *c = test_consumer(bus, TOPIC, 0, 0);
    f->t.last = -1;
    while (!f->stop) (void)test_read(c, 1000, 20, take, &f->t);
    (void)test_read(c, 1000000, 300, take, &f->t);
    bw_consumer_close(c);
    bw_bus_close(bus);
    return NULL;
}

static void test_compact_topic_keeps_the_last_value_under_readers(void **state)
{
    (void)state;
    test_daemon d;
    make(&d);
    static writer w;
    static follower f;
    w = (writer){.url = d.url};
    f = (follower){.url = d.url};
    pthread_t writing, following;
    pthread_create(&writing, NULL, write_on, &w);
    pthread_create(&following, NULL, follow, &f);
    static table t;
    int acked[KEYS];
    for (int i = 0; i < 8; i++) {
        usleep(100000);
        snapshot(&w, acked);
        read_all(d.url, &t);
        check_table(&t, acked, &w);
    }
    w.stop = true;
    pthread_join(writing, NULL);
    assert_int_equal(w.failed, 0);
    f.stop = true;
    pthread_join(following, NULL);
    snapshot(&w, acked);
    check_table(&f.t, acked, &w);
    wait_until_clean(d.url);
    read_all(d.url, &t);
    check_table(&t, acked, &w);
    assert_true(described(d.url, "bytes_after") > 0);
    assert_true(t.read < w.sent / 2);
    daemon_remove(&d);
}

/* ---- kills ---- */

static const char *const points[] = {
    "compact.begin",   "compact.scanned",  "compact.mapped",  "compact.created", "compact.written",  "compact.synced",   "compact.indexed",
    "compact.sealed",  "compact.gaps",     "compact.named",   "compact.renamed", "compact.decided",  "compact.unsealed", "compact.replaced",
    "compact.hints",   "compact.resealed", "compact.covered", "compact.settled", "compact.done",     "compact.checkpoint",
};
enum { POINTS = sizeof points / sizeof *points };

/* Waits for its death at the point; true: there. Else it is killed where it is. */
static bool await_death(test_daemon *d)
{
    for (int64_t until = now_ms() + 3000; now_ms() < until; usleep(1000)) {
        if (waitpid(d->pid, NULL, WNOHANG) != d->pid) continue;
        d->pid = 0;
        return true;
    }
    daemon_stop(d, SIGKILL);
    return false;
}

static void test_compact_daemon_killed_at_each_step_loses_no_key(void **state)
{
    (void)state;
    test_daemon d;
    make(&d);
    static writer w;
    w = (writer){.url = d.url};
    pthread_t writing;
    pthread_create(&writing, NULL, write_on, &w);
    usleep(50000);
    daemon_stop(&d, SIGKILL);
    int there = 0, acked[KEYS];
    static table t;
    for (int i = 0; i < KILLS; i++) {
        char spec[64];
        snprintf(spec, sizeof spec, "%s:%d", points[i % POINTS], 1 + i / POINTS % 3);
        daemon_start_doomed(&d, spec);
        there += await_death(&d);
        if (i % 10 != 9) continue;
        daemon_start(&d);
        snapshot(&w, acked);
        read_all(d.url, &t);
        check_table(&t, acked, &w);
        daemon_stop(&d, SIGKILL); /* anywhere */
    }
    daemon_start(&d);
    for (int64_t until = now_ms() + 10000; described(d.url, "runs") < 1 && now_ms() < until;) usleep(20000);
    w.stop = true;
    pthread_join(writing, NULL);
    assert_int_equal(w.failed, 0);
    print_message("%d kills in the middle of a compaction, %ld records\n", there, (long)w.sent);
    assert_true(there >= KILLS * 9 / 10);
    snapshot(&w, acked);
    wait_until_clean(d.url);
    read_all(d.url, &t);
    check_table(&t, acked, &w);
    assert_true(t.read < w.sent / 2);
    daemon_stop(&d, SIGTERM);
    bw_verify_totals totals;
    assert_ok(bw_verify(d.dir, NULL, NULL, NULL, &totals));
    daemon_remove(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compact_topic_refuses_records_without_a_key),
        cmocka_unit_test(test_compact_topic_keeps_the_last_value_under_readers),
        cmocka_unit_test(test_compact_daemon_killed_at_each_step_loses_no_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
