/* test: limit=120 no-asan
 * Links while both daemons are killed at random moments: a mirror that is pulled, one that is pushed with compression, and a merge both
 * ways of a topic that both sides write to. What must hold at the end: the mirrors are equal, offset by offset; each side's records are once, and in
 * their order, on the other side. LINK_KILLS (50) kills from LINK_SEED (1). */
#include "support/links.h"

#include <busway/inspect.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static _Atomic bool stop;

typedef struct writer {
    const char *url, *topic;
    char tag;
    pthread_t thread;
    _Atomic uint64_t sent, acked;
} writer;

static bw_producer *open_again(const char *url, bw_bus **bus)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_producer_options po = BW_PRODUCER_OPTIONS_INIT;
    bw_producer *p = NULL;
    o.transport = test_is_direct() ? BW_TRANSPORT_AUTO : BW_TRANSPORT_IPC;
    po.acks = BW_ACKS_VISIBLE;
    while (!atomic_load(&stop) && bw_bus_open(url, &o, bus) != BW_OK) usleep(2000);
    while (!atomic_load(&stop) && bw_producer_open(*bus, &po, &p) != BW_OK) usleep(2000);
    return p;
}

/* Batches of one to eight records; what becomes of those under way when a daemon dies does not matter: the logs are compared. */
static void *write_main(void *opaque)
{
    writer *w = opaque;
    bw_bus *bus = NULL;
    bw_producer *p = open_again(w->url, &bus);
    unsigned dice = (unsigned)w->tag;
    while (p && !atomic_load(&stop)) {
        char values[8][32];
        bw_record records[8];
        size_t n = 1 + (size_t)rand_r(&dice) % 8;
        for (size_t i = 0; i < n; i++) {
            snprintf(values[i], sizeof values[i], "%c%llu", w->tag, (unsigned long long)atomic_fetch_add(&w->sent, 1));
            records[i] = test_record(values[i], values[i]);
        }
        if (bw_producer_send_batch(p, w->topic, (int32_t)(rand_r(&dice) % 2), records, n, 1000, NULL) == BW_OK) atomic_fetch_add(&w->acked, n);
        usleep(300 + (useconds_t)rand_r(&dice) % 1500);
    }
    if (p) (void)bw_producer_close(p, 2000);
    bw_bus_close(bus);
    return NULL;
}

/* What was written at `from` is at `to`, once each, in its order. */
static void assert_merged(const char *from, const char *to, char tag, int32_t partition)
{
    seen_list a = read_whole(from, "shared", partition, BW_READ_UNCOMMITTED), b = read_whole(to, "shared", partition, BW_READ_UNCOMMITTED);
    size_t at = 0, own = 0;
    for (size_t i = 0; i < a.count; i++) {
        if (a.items[i].foreign) continue;
        own++;
        while (at < b.count && !b.items[at].foreign) at++;
        if (at == b.count) fail_msg("writer %c: '%s' is missing at the other side", tag, a.items[i].value);
        if (strcmp(a.items[i].value, b.items[at].value))
            fail_msg("writer %c: '%s' is expected at the other side, there is '%s'", tag, a.items[i].value, b.items[at].value);
        at++;
    }
    for (; at < b.count; at++)
        if (b.items[at].foreign) fail_msg("writer %c: '%s' is there once too often", tag, b.items[at].value);
    assert_true(own > 0);
    free(a.items);
    free(b.items);
}

static size_t own_records(const char *url, int32_t partition)
{
    size_t n = 0;
    seen_list l = read_whole(url, "shared", partition, BW_READ_UNCOMMITTED);
    for (size_t i = 0; i < l.count; i++) n += !l.items[i].foreign;
    free(l.items);
    return n;
}

static void wait_for_all(test_daemon *a, test_daemon *b)
{
    for (int32_t i = 0; i < 2; i++) {
        wait_for_end(b->url, "pulled", i, end_of(a->url, "pulled", i), 20000);
        wait_for_end(b->url, "pushed", i, end_of(a->url, "pushed", i), 20000);
        int64_t all = (int64_t)(own_records(a->url, i) + own_records(b->url, i));
        wait_for_end(a->url, "shared", i, all, 20000);
        wait_for_end(b->url, "shared", i, all, 20000);
    }
    usleep(200000); /* what should not come would come now */
}

static void on_finding(void *opaque, const bw_finding *f)
{
    (void)opaque;
    if (f->is_error) print_message("verify: %s: %s\n", f->path, f->message);
}

/* Offsets, epochs, checksums, indexes and seals of the copies are as sound as any log's. */
static void assert_verifies(test_daemon *d)
{
    bw_verify_totals totals;
    daemon_stop(d, SIGTERM);
    assert_ok(bw_verify(d->dir, on_finding, NULL, NULL, &totals));
}

static void test_links_both_sides_killed_deliver_once_and_in_order(void **state)
{
    (void)state;
    test_daemon a, b;
    char from_a[400], from_b[400], to_b[400];
    int kills = getenv("LINK_KILLS") ? atoi(getenv("LINK_KILLS")) : 50;
    unsigned dice = getenv("LINK_SEED") ? (unsigned)atoi(getenv("LINK_SEED")) : 1;
    daemon_make(&a);
    daemon_make(&b);
    daemon_start(&a);
    daemon_start(&b);
    bw_bus *bus_a = test_bus_by(a.url, BW_TRANSPORT_IPC), *bus_b = test_bus_by(b.url, BW_TRANSPORT_IPC);
    static const char *const topics[] = {"pulled", "pushed", "shared"};
    for (int i = 0; i < 3; i++) assert_ok(bw_topic_create(bus_a, topics[i], 2, NULL, 0));
    assert_ok(bw_topic_create(bus_b, "shared", 2, NULL, 0));
    bw_bus_close(bus_a);
    bw_bus_close(bus_b);
    snprintf(from_a, sizeof from_a, "url=%s", a.url);
    snprintf(from_b, sizeof from_b, "url=%s", b.url);
    snprintf(to_b, sizeof to_b, "url=%s", b.url);
    link_add(b.url, "pull", (const char *const[]){from_a, "topics=pulled", NULL});
    link_add(a.url, "push", (const char *const[]){to_b, "topics=pushed", "direction=push", "compression=zstd", NULL});
    link_add(b.url, "merge-a", (const char *const[]){from_a, "topics=shared", "mode=merge", NULL});
    link_add(a.url, "merge-b", (const char *const[]){from_b, "topics=shared", "mode=merge", NULL});
    writer writers[] = {{.url = a.url, .topic = "pulled", .tag = 'p'}, {.url = a.url, .topic = "pushed", .tag = 'q'},
                        {.url = a.url, .topic = "shared", .tag = 'a'}, {.url = b.url, .topic = "shared", .tag = 'b'}};
    for (int i = 0; i < 4; i++) pthread_create(&writers[i].thread, NULL, write_main, &writers[i]);
    for (int k = 0; k < kills; k++) {
        usleep(20000 + (useconds_t)rand_r(&dice) % 120000);
        int which = rand_r(&dice) % 3; /* one, the other, both */
        if (which != 1) daemon_stop(&a, SIGKILL);
        if (which != 0) daemon_stop(&b, SIGKILL);
        if (which != 1) daemon_start(&a);
        if (which != 0) daemon_start(&b);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 4; i++) pthread_join(writers[i].thread, NULL);
    wait_for_all(&a, &b);
    for (int32_t i = 0; i < 2; i++) {
        assert_mirrors(a.url, "pulled", b.url, "pulled", i);
        assert_mirrors(a.url, "pushed", b.url, "pushed", i);
        assert_merged(a.url, b.url, 'a', i);
        assert_merged(b.url, a.url, 'b', i);
    }
    print_message("%d kills; records acknowledged: %llu %llu %llu %llu\n", kills, (unsigned long long)writers[0].acked,
                  (unsigned long long)writers[1].acked, (unsigned long long)writers[2].acked, (unsigned long long)writers[3].acked);
    assert_verifies(&a);
    assert_verifies(&b);
    daemon_remove(&a);
    daemon_remove(&b);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {cmocka_unit_test(test_links_both_sides_killed_deliver_once_and_in_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
