/* test: limit=240 no-asan
 * Committed offsets while the daemon is killed, at any moment and in the middle of its steps: four clients commit ever higher offsets, two
 * of them one at a time, two with many on their way. What must hold, looked at after each second kill: what was acknowledged is
 * there, and nothing has gone back. */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS 4
#define BATCHES 60
#define BATCH_RECORDS 10000
#define END (BATCHES * BATCH_RECORDS)
#define KILLS 200

typedef struct shared {
    _Atomic int64_t sent[CLIENTS], acked[CLIENTS];
    _Atomic bool stop;
    _Atomic int strange;  /* outcomes that a death of the daemon does not explain */
    char why[300];
} shared;

static shared *s;

static void note(int i, bw_err e, const char *what)
{
    static const bw_err expected[] = {BW_ERR_NOT_CONNECTED, BW_ERR_NO_COORDINATOR, BW_ERR_TIMED_OUT, BW_ERR_CLOSED, BW_ERR_BUSY};
    for (size_t k = 0; k < sizeof expected / sizeof *expected; k++)
        if (e == expected[k]) return;
    if (!atomic_fetch_add(&s->strange, 1)) snprintf(s->why, sizeof s->why, "client %d, %s: %s: %s", i, what, bw_err_name(e), bw_error_message());
}

static void group_name(int i, char out[24]) { snprintf(out, 24, "group-%d", i); }

static bw_bus *open_bus(const char *url)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    while (bw_bus_open(url, &o, &bus) != BW_OK) usleep(2000);
    return bus;
}

/* One at a time. */
static void commit_one(int i, bw_bus *bus)
{
    char group[24];
    int64_t next = s->sent[i] < END ? s->sent[i] + 1 : END;
    bw_group_offset o = {.topic = "t", .partition = i, .offset = next};
    group_name(i, group);
    atomic_store(&s->sent[i], next);
    bw_err e = bw_group_offsets_alter(bus, group, &o, 1);
    if (!e) atomic_store(&s->acked[i], next);
    else note(i, e, "alter");
}

static int acks_of = -1;
static void on_commit(bw_consumer *c, bw_err e, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)c, (void)opaque;
    if (e) note(acks_of, e, "commit");
    else if (count == 1 && parts[0].offset > s->acked[acks_of]) atomic_store(&s->acked[acks_of], parts[0].offset);
}

/* Sixteen at once; what is on its way when the daemon dies is asked again by the library. */
static void commit_many(int i, bw_consumer *c)
{
    bw_batch b;
    for (int k = 0; k < 16 && s->sent[i] - s->acked[i] < 256; k++) {
        int64_t next = s->sent[i] < END ? s->sent[i] + 1 : END;
        bw_topic_partition p = {.topic = "t", .partition = i, .offset = next, .leader_epoch = -1};
        atomic_store(&s->sent[i], next);
        while (bw_consumer_commit_async(c, &p, 1, on_commit, NULL)) (void)bw_consumer_poll(c, 1, &b);
    }
    (void)bw_consumer_poll(c, 1, &b);
}

static pid_t start_client(int i, const char *url)
{
    pid_t pid = fork();
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bw_bus *bus = open_bus(url);
    bw_consumer *c = NULL;
    char group[24];
    group_name(i, group);
    acks_of = i;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = group;
    o.enable_auto_commit = false;
    while (i % 2 && bw_consumer_open(bus, &o, &c) != BW_OK) usleep(2000);
    while (i % 2 && bw_consumer_assign(c, "t", i, BW_OFFSET_END) != BW_OK) usleep(2000);
    while (!atomic_load(&s->stop)) {
        if (c) commit_many(i, c);
        else commit_one(i, bus);
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
    _exit(0);
}

static int64_t committed(bw_bus *bus, int i)
{
    char group[24], *json = NULL;
    group_name(i, group);
    bw_err e;
    while ((e = bw_group_describe(bus, group, &json)) == BW_ERR_NOT_CONNECTED) usleep(1000);
    if (e == BW_ERR_GROUP_ID_NOT_FOUND) return -1;
    if (e) fail_msg("describe %s: %s: %s", group, bw_err_name(e), bw_error_message());
    const char *at = strstr(json, "\"committed_offset\":");
    int64_t offset = at ? atoll(at + 19) : -1;
    bw_free(json);
    return offset;
}

static void make_log(const char *url)
{
    bw_bus *bus = test_bus(url);
    static bw_record records[BATCH_RECORDS];
    for (int i = 0; i < BATCH_RECORDS; i++) records[i] = (bw_record){.value = "x", .value_len = 1, .timestamp_ms = 0};
    assert_ok(bw_topic_create(bus, "t", CLIENTS, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < CLIENTS; i++)
        for (int k = 0; k < BATCHES; k++) assert_ok(bw_producer_send_batch(p, "t", i, records, BATCH_RECORDS, 10000, NULL));
    assert_ok(bw_producer_close(p, 10000));
    bw_bus_close(bus);
}

/* true: at its kill point. */
static bool kill_daemon(test_daemon *d, bool doomed)
{
    usleep((useconds_t)(1000 + rand() % 40000));
    for (int i = 0; doomed && i < 20; i++) {
        if (waitpid(d->pid, NULL, WNOHANG) == d->pid) return d->pid = 0, true;
        usleep(2000);
    }
    if (waitpid(d->pid, NULL, WNOHANG) == d->pid) return d->pid = 0, true;
    daemon_stop(d, SIGKILL);
    return false;
}

static void test_offsets_nothing_acknowledged_is_lost_and_nothing_goes_back_through_kills(void **state)
{
    (void)state;
    static const char *const points[] = {"commit.taken", "commit.stored", "commit.applied", "commit.answered"};
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(s != MAP_FAILED);
    for (int i = 0; i < CLIENTS; i++) s->acked[i] = -1;
    make_log(d.url);
    pid_t clients[CLIENTS];
    int64_t last[CLIENTS] = {-1, -1, -1, -1}, began = now_ms();
    for (int i = 0; i < CLIENTS; i++) clients[i] = start_client(i, d.url);
    int by_point = 0;
    srand(1);
    for (int round = 0; round < KILLS; round++) {
        by_point += kill_daemon(&d, round > 0 && (round - 1) % 2);
        char point[64];
        snprintf(point, sizeof point, "%s:%d", points[round / 2 % 4], 1 + rand() % 8);
        bool doomed = round % 2;
        int64_t acked[CLIENTS];
        for (int i = 0; i < CLIENTS; i++) acked[i] = atomic_load(&s->acked[i]);
        if (doomed) daemon_start_doomed(&d, point);
        else daemon_start(&d);
        if (doomed) continue; /* a daemon that is to die at a point can't be asked */
        bw_bus *bus = open_bus(d.url);
        for (int i = 0; i < CLIENTS; i++) {
            int64_t now = committed(bus, i), sent = atomic_load(&s->sent[i]);
            if (now < acked[i] || now < last[i] || now > sent)
                fail_msg("kill %d, client %d: %lld is committed; acknowledged before %lld, seen before %lld, sent %lld; %s", round, i,
                         (long long)now, (long long)acked[i], (long long)last[i], (long long)sent, s->why);
            last[i] = now;
        }
        bw_bus_close(bus);
    }
    atomic_store(&s->stop, true);
    for (int i = 0; i < CLIENTS; i++) waitpid(clients[i], NULL, 0);
    int64_t all = 0;
    for (int i = 0; i < CLIENTS; i++) all += s->acked[i];
    print_message("%d kills (%d at a point) in %lld ms: %lld commits acknowledged; by client %lld %lld %lld %lld\n", KILLS, by_point,
                  (long long)(now_ms() - began), (long long)all, (long long)s->acked[0], (long long)s->acked[1], (long long)s->acked[2],
                  (long long)s->acked[3]);
    if (s->strange) fail_msg("%d strange outcomes; the first: %s", s->strange, s->why);
    assert_true(by_point > KILLS / 8);
    for (int i = 0; i < CLIENTS; i++) assert_true(s->acked[i] > KILLS / 2);
    munmap(s, sizeof *s);
    daemon_remove(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_offsets_nothing_acknowledged_is_lost_and_nothing_goes_back_through_kills),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
