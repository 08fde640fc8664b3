/* Many partitions in small: 2,000 in one daemon, by counts and sizes, never by times. `make bench BENCH_ARGS='--case scale'` measures 10,000.
 * test: limit=300 no-asan */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PARTITIONS = 2000, DAEMON_FILES = 1024, OWN_FILES = 100, OWN_MAPS = 1100, DAEMON_KIB = 64 << 10 };

static int files_of(pid_t pid)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static int lines_with(const char *path, const char *what, long *number)
{
    char line[4352];
    int n = 0;
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (strstr(line, what)) {
            n++;
            if (number) *number = atol(strchr(line, ':') + 1);
        }
    fclose(f);
    return n;
}

static void daemon_is_small(const test_daemon *d)
{
    char path[64];
    long kib = 0;
    int files = files_of(d->pid);
    snprintf(path, sizeof path, "/proc/%d/status", (int)d->pid);
    assert_int_equal(lines_with(path, "VmRSS:", &kib), 1);
    if (files > DAEMON_FILES || kib > DAEMON_KIB) fail_msg("the daemon has %d files open, and %ld KiB", files, kib);
}

static void write_one_to_each(const test_daemon *d, bw_bus *bus)
{
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < PARTITIONS; i++) {
        char text[16];
        int32_t partition = (int32_t)((i * 787L) % PARTITIONS);
        snprintf(text, sizeof text, "%d", partition);
        test_send(p, "many", partition, text);
        if (i % 250 == 0) daemon_is_small(d);
    }
    assert_true(files_of(getpid()) <= OWN_FILES);
    assert_true(lines_with("/proc/self/maps", ".log", NULL) <= OWN_MAPS);
    assert_ok(bw_producer_close(p, 20000));
}

static void count_of_partition(void *opaque, const bw_batch *b, const bw_record_view *r)
{
    char text[16] = "";
    assert_true(r->value_len < sizeof text);
    memcpy(text, r->value, r->value_len);
    assert_int_equal(atoi(text), b->partition);
    ((uint8_t *)opaque)[b->partition]++;
}

static void each_has(const test_daemon *d, bw_bus *bus, int records)
{
    static uint8_t counts[PARTITIONS];
    memset(counts, 0, sizeof counts);
    bw_consumer *c = test_consumer(bus, "many", BW_PARTITION_ANY, BW_OFFSET_BEGINNING);
    assert_int_equal(test_read(c, (size_t)PARTITIONS * (size_t)records, 120000, count_of_partition, counts), PARTITIONS * records);
    for (int i = 0; i < PARTITIONS; i++) assert_int_equal(counts[i], records);
    daemon_is_small(d);
    assert_true(files_of(getpid()) <= OWN_FILES);
    assert_true(lines_with("/proc/self/maps", ".log", NULL) <= OWN_MAPS);
    bw_consumer_close(c);
}

/* Without a limit of time: a clean stop cuts and syncs 2,000 files. */
static void end_of(test_daemon *d, int signal_number)
{
    assert_int_equal(kill(d->pid, signal_number), 0);
    assert_int_equal(waitpid(d->pid, NULL, 0), d->pid);
    d->pid = 0;
}

static void test_two_thousand_partitions_need_few_files_and_survive(void **state)
{
    (void)state;
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    bw_bus *bus = test_bus(d.url);
    assert_ok(bw_topic_create(bus, "many", PARTITIONS, NULL, 0));
    daemon_is_small(&d);
    write_one_to_each(&d, bus);
    each_has(&d, bus, 1);
    bw_bus_close(bus);
    static const int signals[] = {SIGKILL, SIGTERM};
    for (int i = 0; i < 2; i++) {
        end_of(&d, signals[i]);
        daemon_start(&d);
        bus = test_bus(d.url);
        if (i == 0) write_one_to_each(&d, bus); /* each is opened because it is written to */
        each_has(&d, bus, 2);
        bw_bus_close(bus);
    }
    end_of(&d, SIGKILL);
    daemon_remove(&d);
}

static void test_one_of_a_thousand_wakes_without_a_look_at_the_others(void **state)
{
    (void)state;
    if (!test_is_direct()) return; /* through the socket the daemon looks */
    enum { ASSIGNED = 1000, RECORDS = 50 };
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    bw_bus *bus = test_bus(d.url);
    assert_ok(bw_topic_create(bus, "wake", ASSIGNED, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_consumer *c = test_consumer(bus, "wake", BW_PARTITION_ANY, BW_OFFSET_BEGINNING);
    bw_batch b;
    assert_err(bw_consumer_poll(c, 50, &b), BW_ERR_TIMED_OUT); /* every one was looked at, and armed */
    long long before = test_stat(bus, "partitions_looked_at");
    assert_true(before >= ASSIGNED);
    for (int i = 0; i < RECORDS; i++) {
        int32_t partition = i * 787 % ASSIGNED;
        test_send(p, "wake", partition, "x");
        assert_ok(bw_consumer_poll(c, 20000, &b));
        assert_int_equal(b.partition, partition);
        assert_err(bw_consumer_poll(c, 1, &b), BW_ERR_TIMED_OUT);
    }
    assert_true(test_stat(bus, "partitions_looked_at") - before <= 3 * RECORDS);
    bw_consumer_close(c);
    assert_ok(bw_producer_close(p, 20000));
    bw_bus_close(bus);
    daemon_remove(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_thousand_partitions_need_few_files_and_survive),
        cmocka_unit_test(test_one_of_a_thousand_wakes_without_a_look_at_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
