/* test: limit=120 no-asan
 * Links while both daemons are killed at random moments: a mirror that is pulled, one that is pushed with compression, and a merge both
 * ways of a topic that both sides write to. What must hold at the end: the mirrors are equal, offset by offset; each side's records are once, and in
 * their order, on the other side. LINK_KILLS (50) kills from LINK_SEED (1). Then the same with a death at each step of a link, on either side. */
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
#include <sys/wait.h>
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

static void wait_for_all(const test_daemon *a_side, const test_daemon *b_side)
{
    for (int32_t i = 0; i < 2; i++) {
        wait_for_end(b_side->url, "pulled", i, end_of(a_side->url, "pulled", i), 20000);
        wait_for_end(b_side->url, "pushed", i, end_of(a_side->url, "pushed", i), 20000);
        int64_t all = (int64_t)(own_records(a_side->url, i) + own_records(b_side->url, i));
        wait_for_end(a_side->url, "shared", i, all, 20000);
        wait_for_end(b_side->url, "shared", i, all, 20000);
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

/* ---- the scene: two daemons, a mirror each way, a merge both ways, a writer for each ---- */

static test_daemon a, b;
static writer writers[4];

static void set_scene(void)
{
    char from_a[400], from_b[400], to_b[400];
    atomic_store(&stop, false);
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
    link_add(b.url, "pull", (const char *const[]){from_a, "topics=^pulled.*", NULL});
    link_add(a.url, "push", (const char *const[]){to_b, "topics=pushed", "direction=push", "compression=zstd", NULL});
    link_add(b.url, "merge-a", (const char *const[]){from_a, "topics=shared", "mode=merge", NULL});
    link_add(a.url, "merge-b", (const char *const[]){from_b, "topics=shared", "mode=merge", NULL});
    writers[0] = (writer){.url = a.url, .topic = "pulled", .tag = 'p'};
    writers[1] = (writer){.url = a.url, .topic = "pushed", .tag = 'q'};
    writers[2] = (writer){.url = a.url, .topic = "shared", .tag = 'a'};
    writers[3] = (writer){.url = b.url, .topic = "shared", .tag = 'b'};
    for (int i = 0; i < 4; i++) pthread_create(&writers[i].thread, NULL, write_main, &writers[i]);
}

/* What must hold, then the curtain. */
static void end_scene(int kills)
{
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

static void test_links_both_sides_killed_deliver_once_and_in_order(void **state)
{
    (void)state;
    int kills = getenv("LINK_KILLS") ? atoi(getenv("LINK_KILLS")) : 50;
    unsigned dice = getenv("LINK_SEED") ? (unsigned)atoi(getenv("LINK_SEED")) : 1;
    set_scene();
    for (int k = 0; k < kills; k++) {
        usleep(20000 + (useconds_t)rand_r(&dice) % 120000);
        int which = rand_r(&dice) % 3; /* one, the other, both */
        if (which != 1) daemon_stop(&a, SIGKILL);
        if (which != 0) daemon_stop(&b, SIGKILL);
        if (which != 1) daemon_start(&a);
        if (which != 0) daemon_start(&b);
    }
    end_scene(kills);
}

/* ---- step by step ---- */

typedef struct step {
    const char *point;
    test_daemon *at;
    void (*prepare)(void); /* while `at` is down; may be NULL, as trigger */
    void (*trigger)(void); /* when it is up */
} step;

/* The origin's log goes on in a new leader epoch: as behind a reboot, its control data is gone (direct writers would have a hold on it). */
static void raise_epoch(void)
{
    daemon_stop(&a, SIGKILL);
    test_run("rm -rf %s/run /dev/shm/busway-$(id -u)/$(cat %s/generation)", a.dir, a.dir);
    daemon_start(&a);
}

static int made; /* topics */

static void make_topic(void)
{
    char name[24];
    snprintf(name, sizeof name, "pulled.%d", made++);
    bw_bus *bus = test_bus_by(a.url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(bus, name, 1, NULL, 0));
    bw_bus_close(bus);
}

static void write_ten(const char *topic)
{
    bw_bus *bus = test_bus_by(a.url, BW_TRANSPORT_IPC);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < 10; i++) test_send(p, topic, 0, "x");
    assert_ok(bw_producer_close(p, 5000));
    bw_bus_close(bus);
}

/* Retention takes what the mirror does not have: it goes on behind it. */
static void make_gap(void)
{
    char name[24];
    make_topic();
    snprintf(name, sizeof name, "pulled.%d", made - 1);
    write_ten(name);
    bw_bus *bus = test_bus_by(a.url, BW_TRANSPORT_IPC);
    assert_ok(bw_delete_records(bus, name, 0, 5, NULL));
    bw_bus_close(bus);
}

static void add_link_at(test_daemon *d, const test_daemon *peer)
{
    bw_bus *bus = NULL;
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.transport = BW_TRANSPORT_IPC;
    bw_config_entry options[] = {{"url", peer->url}, {"topics", "nothing"}};
    if (bw_bus_open(d->url, &o, &bus) != BW_OK) return;
    (void)bw_link_add(bus, "late", options, 2);
    bw_bus_close(bus);
}
static void add_link_at_a(void) { add_link_at(&a, &b); }
static void add_link_at_b(void) { add_link_at(&b, &a); }

static const step steps[] = {
    {"link.copied", &b, NULL, NULL},     {"link.copied", &a, NULL, NULL},       {"link.prepared", &b, NULL, NULL},
    {"link.prepared", &a, NULL, NULL},   {"link.appended", &b, NULL, NULL},     {"copy.appended", &b, NULL, NULL},
    {"link.merged", &b, NULL, NULL},     {"link.merged", &a, NULL, NULL},       {"merge.loaded", &b, NULL, NULL},
    {"merge.loaded", &a, NULL, NULL},    {"merge.storing", &b, NULL, NULL},     {"merge.storing", &a, NULL, NULL},
    {"mirror.stored", &b, NULL, make_topic}, {"copy.epoch", &b, raise_epoch, NULL}, {"copy.gaps", &b, make_gap, NULL},
    {"links.stored", &a, NULL, add_link_at_a}, {"links.stored", &b, NULL, add_link_at_b},
};
enum { STEPS = sizeof steps / sizeof *steps };

static bool dies(test_daemon *d, int ms)
{
    for (int64_t until = now_ms() + ms; now_ms() < until; usleep(2000))
        if (waitpid(d->pid, NULL, WNOHANG) == d->pid) return d->pid = 0, true;
    return false;
}

/* Everything that a link does is cut at each step, on either side, while everybody writes. */
static void test_links_killed_at_each_step_deliver_once_and_in_order(void **state)
{
    (void)state;
    int kills = 0;
    if (test_is_direct()) skip(); /* once is enough */
    set_scene();
    usleep(200000);
    for (int i = 0; i < STEPS; i++) {
        const step *s = &steps[i];
        char spec[64];
        snprintf(spec, sizeof spec, "%s:%d", s->point, s->prepare || s->trigger || !strncmp(s->point, "merge.", 6) ? 1 : 1 + i % 3);
        daemon_stop(s->at, SIGKILL);
        if (s->prepare) s->prepare();
        daemon_start_doomed(s->at, spec);
        if (s->trigger) s->trigger();
        bool dead = dies(s->at, 5000);
        kills += dead;
        if (!dead && kills) fail_msg("nobody came to %s", s->point);
        if (!dead) break; /* kill points are not compiled in */
        daemon_start(s->at);
    }
    for (int i = 0; kills && i < made; i++) { /* what was made meanwhile is mirrored too */
        char name[24];
        snprintf(name, sizeof name, "pulled.%d", i);
        wait_for_end(b.url, name, 0, end_of(a.url, name, 0), 20000);
        assert_mirrors(a.url, name, b.url, name, 0);
    }
    if (kills) assert_string_not_equal(link_text(a.url, "late", "url"), "");
    if (kills) assert_string_not_equal(link_text(b.url, "late", "url"), "");
    if (!a.pid) daemon_start(&a);
    if (!b.pid) daemon_start(&b);
    end_scene(kills);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_links_both_sides_killed_deliver_once_and_in_order),
        cmocka_unit_test(test_links_killed_at_each_step_deliver_once_and_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
