/* Groups seen from outside: workers are processes; what each owns is in memory that all share, so that a partition with two owners shows. */
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
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 40, PARTS = 12, PATIENCE_MS = 20000 };

typedef struct shared {
    _Atomic int owner[2][PARTS];      /* of topics jobs and late; worker + 1; 0: nobody */
    _Atomic int64_t owned_at_us[2][PARTS];
    _Atomic int gone[WORKERS];        /* it was killed, or hangs: it does not count as an owner */
    _Atomic int errors[WORKERS];      /* the last error of its polls but TIMED_OUT */
    _Atomic int lost[WORKERS];        /* partitions it was told are LOST */
    _Atomic long records[WORKERS];
    _Atomic int stop[WORKERS];
    _Atomic int hang[WORKERS];
    _Atomic int conflicts, changes;
} shared;

static shared *all;
static test_daemon d;
static pid_t pids[WORKERS];
static int me;

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* ---- a worker ---- */

static void on_rebalance(bw_consumer *c, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)c, (void)opaque;
    for (size_t i = 0; i < count; i++) {
        int topic = strcmp(parts[i].topic, "jobs") != 0, p = parts[i].partition;
        all->changes++;
        if (event == BW_REBALANCE_ASSIGNED) {
            int before = atomic_exchange(&all->owner[topic][p], me + 1);
            if (before && before != me + 1 && !all->gone[before - 1]) all->conflicts++;
            all->owned_at_us[topic][p] = now_us();
        } else {
            int mine = me + 1;
            if (event == BW_REBALANCE_LOST) all->lost[me]++;
            atomic_compare_exchange_strong(&all->owner[topic][p], &mine, 0);
        }
    }
}

typedef struct options { const char *topic, *instance, *assignor; int max_poll_ms; } options;

static void work(int number, options o)
{
    me = number;
    bw_bus *bus;
    bw_bus_options bo = BW_BUS_OPTIONS_INIT;
    bo.transport = test_is_direct() ? BW_TRANSPORT_DIRECT : BW_TRANSPORT_IPC;
    while (bw_bus_open(d.url, &bo, &bus)) usleep(1000); /* the daemon may have just died */
    bw_consumer_options co = BW_CONSUMER_OPTIONS_INIT;
    co.group_id = "team";
    co.group_instance_id = o.instance;
    co.assignor = o.assignor;
    co.auto_offset_reset = BW_RESET_EARLIEST;
    co.session_timeout_ms = 6000;
    if (o.max_poll_ms) co.max_poll_interval_ms = o.max_poll_ms;
    co.on_rebalance = on_rebalance;
    bw_consumer *c;
    if (bw_consumer_open(bus, &co, &c) || bw_consumer_subscribe(c, &o.topic, 1)) _exit(3);
    while (!all->stop[number]) {
        bw_batch batch;
        bw_record_view r;
        bw_err e = bw_consumer_poll(c, 20, &batch);
        if (e == BW_OK)
            while (bw_batch_next(&batch, &r)) all->records[number]++;
        else if (e != BW_ERR_TIMED_OUT && e != BW_ERR_EMPTY) all->errors[number] = e;
        while (all->hang[number]) usleep(1000);
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
    _exit(0);
}

static void start(int number, options o)
{
    pids[number] = fork();
    assert_true(pids[number] >= 0);
    if (!pids[number]) work(number, o);
}

static void end(int number, int signal_number)
{
    if (!pids[number]) return;
    if (signal_number) {
        all->gone[number] = 1;
        kill(pids[number], signal_number);
    } else all->stop[number] = 1;
    assert_int_equal(waitpid(pids[number], NULL, 0), pids[number]);
    pids[number] = 0;
}

/* ---- waiting ---- */

static bool is_spread(int topic, int count, const int *workers)
{
    int n[WORKERS + 1] = {0};
    for (int p = 0; p < PARTS; p++) n[all->owner[topic][p]]++;
    int sum = 0;
    for (int i = 0; i < count; i++) {
        int has = n[workers[i] + 1];
        if (has < PARTS / count || has > (PARTS + count - 1) / count) return false;
        sum += has;
    }
    return sum == PARTS;
}

static bool may_die; /* the daemon, at a kill point */
static int deaths;

static void wait_spread(int topic, int count, const int *workers)
{
    int64_t until = now_ms() + PATIENCE_MS;
    while (!is_spread(topic, count, workers)) {
        if (now_ms() > until) {
            for (int p = 0; p < PARTS; p++) print_error("partition %d: worker %d\n", p, all->owner[topic][p] - 1);
            for (int i = 0; i < WORKERS; i++)
                if (all->errors[i]) print_error("worker %d: %s\n", i, bw_err_name((bw_err)all->errors[i]));
            fail_msg("the partitions are not spread over %d workers", count);
        }
        if (waitpid(d.pid, NULL, WNOHANG) == d.pid) {
            d.pid = 0;
            deaths++;
            if (!may_die) fail_msg("the daemon ended by itself");
            daemon_start(&d);
        }
        usleep(300);
    }
}

static void make_topic(const char *name)
{
    bw_bus *bus = test_bus(d.url);
    assert_ok(bw_topic_create(bus, name, PARTS, NULL, 0));
    bw_bus_close(bus);
}

static int set_up(void **state)
{
    (void)state;
    all = mmap(NULL, sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) return -1;
    memset(pids, 0, sizeof pids);
    daemon_make(&d);
    daemon_start(&d);
    make_topic("jobs");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < WORKERS; i++)
        if (pids[i]) {
            kill(pids[i], SIGKILL);
            waitpid(pids[i], NULL, 0);
        }
    daemon_remove(&d);
    munmap(all, sizeof *all);
    return 0;
}

/* ---- tests ---- */

static const options plain = {.topic = "jobs"};

static void test_workers_members_come_and_go_each_partition_has_one_owner(void **state)
{
    (void)state;
    int workers[] = {0, 1, 2};
    start(0, plain);
    wait_spread(0, 1, workers);
    start(1, plain);
    wait_spread(0, 2, workers);
    int changes = all->changes;
    start(2, plain);
    wait_spread(0, 3, workers);
    assert_true(all->changes - changes <= 2 * PARTS / 3); /* what moved was revoked once and assigned once */
    end(1, 0);
    wait_spread(0, 2, (int[]){0, 2});
    assert_int_equal(all->conflicts, 0);
    for (int i = 0; i < 3; i++) assert_int_equal(all->lost[i], 0);
}

static int by_value(const void *a, const void *b) { return *(const int64_t *)a < *(const int64_t *)b ? -1 : 1; }

static void test_workers_killed_members_partitions_move_at_once(void **state)
{
    (void)state;
    enum { KILLS = 15 };
    int64_t took[KILLS];
    int workers[] = {0, 1, 2};
    for (int i = 0; i < 3; i++) start(i, plain);
    wait_spread(0, 3, workers);
    for (int i = 0; i < KILLS; i++) {
        int victim = workers[i % 3], slot = i % 3;
        bool had[PARTS];
        for (int p = 0; p < PARTS; p++) had[p] = all->owner[0][p] == victim + 1;
        int64_t killed = now_us(), last = killed;
        end(victim, SIGKILL);
        int rest[2] = {workers[(slot + 1) % 3], workers[(slot + 2) % 3]};
        wait_spread(0, 2, rest);
        for (int p = 0; p < PARTS; p++)
            if (had[p] && all->owned_at_us[0][p] > last) last = all->owned_at_us[0][p];
        took[i] = last - killed;
        workers[slot] = 3 + i;
        start(3 + i, plain);
        wait_spread(0, 3, workers);
    }
    assert_int_equal(all->conflicts, 0);
    qsort(took, KILLS, sizeof *took, by_value);
    print_message("SIGKILL to assigned: p50 %lld us, worst %lld us\n", (long long)took[KILLS / 2], (long long)took[KILLS - 1]);
    assert_true(took[KILLS / 2] < 500000); /* the machine may be busy: a session time-out is what this must not be */
}

static void test_workers_daemon_killed_and_restarted_members_keep_what_they_have(void **state)
{
    (void)state;
    int workers[] = {0, 1, 2};
    for (int i = 0; i < 3; i++) start(i, plain);
    wait_spread(0, 3, workers);
    for (int round = 0; round < 4; round++) {
        int owner[PARTS], changes = all->changes;
        for (int p = 0; p < PARTS; p++) owner[p] = all->owner[0][p];
        daemon_stop(&d, SIGKILL);
        daemon_start(&d);
        int64_t up = now_us();
        /* They are a group again: one more joins, and gets its share. */
        bool waits = round % 2 == 0;
        if (waits) usleep(200000);
        assert_int_equal(all->changes, changes);
        for (int p = 0; p < PARTS; p++) assert_int_equal(all->owner[0][p], owner[p]);
        int more = 3 + round;
        start(more, plain);
        wait_spread(0, 4, (int[]){0, 1, 2, more});
        if (!waits) print_message("daemon back, a fourth member has its share after %lld us\n", (long long)(now_us() - up));
        end(more, round % 2 ? SIGKILL : 0);
        wait_spread(0, 3, workers);
        for (int i = 0; i < 3; i++) assert_int_equal(all->lost[i], 0);
    }
    assert_int_equal(all->conflicts, 0);
}

static void test_workers_member_dies_while_the_daemon_is_down_others_get_its_partitions(void **state)
{
    (void)state;
    int workers[] = {0, 1, 2};
    for (int i = 0; i < 3; i++) start(i, plain);
    wait_spread(0, 3, workers);
    daemon_stop(&d, SIGKILL);
    end(1, SIGKILL);
    daemon_start(&d);
    wait_spread(0, 2, (int[]){0, 2});
    assert_int_equal(all->conflicts, 0);
}

static void test_workers_daemon_dies_at_each_step_of_a_rebalance_no_partition_has_two_owners(void **state)
{
    (void)state;
    static const char *const points[] = {"group.saving", "group.saved", "group.push"};
    int workers[] = {0, 1}, next = 2;
    may_die = true;
    start(0, plain);
    start(1, plain);
    wait_spread(0, 2, workers);
    for (int i = 0; i < 9; i++) {
        char kill_at[40];
        snprintf(kill_at, sizeof kill_at, "%s:%d", points[i % 3], 1 + i / 3 * 2);
        daemon_stop(&d, SIGKILL);
        daemon_start_doomed(&d, kill_at); /* members that come back may lead it to the point before it says that it is ready */
        start(next, plain); /* a rebalance, in the middle of which it dies; or when the others come back */
        wait_spread(0, 3, (int[]){0, 1, next});
        end(next, i % 2 ? SIGKILL : 0);
        wait_spread(0, 2, workers);
        next++;
        assert_int_equal(all->conflicts, 0);
        assert_int_equal(all->lost[0] + all->lost[1], 0);
    }
    may_die = false;
    print_message("the daemon died %d times in a rebalance\n", deaths); /* none where kill points are not compiled in */
}

static void test_workers_hung_member_is_fenced_and_told_so(void **state)
{
    (void)state;
    options o = {.topic = "jobs", .max_poll_ms = 700};
    start(0, o);
    start(1, o);
    wait_spread(0, 2, (int[]){0, 1});
    all->gone[1] = 1;
    all->hang[1] = 1;
    wait_spread(0, 1, (int[]){0});
    all->hang[1] = 0; /* it wakes: its first poll tells it, then it joins anew */
    int64_t until = now_ms() + PATIENCE_MS;
    while (!all->lost[1] && now_ms() < until) usleep(1000);
    assert_true(all->lost[1] > 0);
    all->gone[1] = 0;
    wait_spread(0, 2, (int[]){0, 1});
    assert_true(all->errors[1] == BW_ERR_FENCED_MEMBER_EPOCH || all->errors[1] == BW_ERR_UNKNOWN_MEMBER_ID);
}

static void test_workers_static_member_back_in_time_nothing_moves(void **state)
{
    (void)state;
    options o = {.topic = "jobs", .instance = "left"};
    start(0, plain);
    start(1, o);
    wait_spread(0, 2, (int[]){0, 1});
    int changes = all->changes;
    end(1, SIGKILL);
    usleep(300000);
    assert_int_equal(all->changes, changes);
    start(2, o);
    wait_spread(0, 2, (int[]){0, 2});
    assert_int_equal(all->changes, changes + PARTS / 2); /* the new one's, and nobody else's */
    assert_int_equal(all->conflicts, 0);
}

static void test_workers_pattern_takes_in_a_topic_that_comes_later(void **state)
{
    (void)state;
    options o = {.topic = "^(jobs|l.te)"};
    start(0, o);
    start(1, o);
    wait_spread(0, 2, (int[]){0, 1});
    make_topic("late");
    wait_spread(1, 2, (int[]){0, 1});
    make_topic("later"); /* patterns are matched whole */
    usleep(100000);
    assert_int_equal(all->conflicts, 0);
    bw_bus *bus = test_bus(d.url);
    assert_ok(bw_topic_delete(bus, "late"));
    int64_t until = now_ms() + PATIENCE_MS;
    for (int p = 0; p < PARTS; p++)
        while (all->owner[1][p] && now_ms() < until) usleep(1000);
    for (int p = 0; p < PARTS; p++) assert_int_equal(all->owner[1][p], 0);
    bw_bus_close(bus);
}

static void test_workers_assignors_that_differ_are_refused(void **state)
{
    (void)state;
    start(0, (options){.topic = "jobs", .assignor = "range"});
    wait_spread(0, 1, (int[]){0});
    start(1, (options){.topic = "jobs", .assignor = "sticky"});
    int64_t until = now_ms() + PATIENCE_MS;
    while (!all->errors[1] && now_ms() < until) usleep(1000);
    assert_int_equal(all->errors[1], BW_ERR_INCONSISTENT_GROUP_PROTOCOL);
    assert_true(is_spread(0, 1, (int[]){0}));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_workers_members_come_and_go_each_partition_has_one_owner, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_killed_members_partitions_move_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_daemon_killed_and_restarted_members_keep_what_they_have, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_member_dies_while_the_daemon_is_down_others_get_its_partitions, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_daemon_dies_at_each_step_of_a_rebalance_no_partition_has_two_owners, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_hung_member_is_fenced_and_told_so, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_static_member_back_in_time_nothing_moves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_pattern_takes_in_a_topic_that_comes_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_workers_assignors_that_differ_are_refused, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
