/* A power cut by hand: the daemon is killed, its control data goes, and the ends of logs that were not synced are taken away. What the
 * coordinator's log says was decided is finished in partitions that lost their markers; what it does not know is aborted. */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATIENCE = 20000 };

static test_daemon the_daemon;
static char runtime[64];
static bw_bus *bus;

static int set_up(void **state)
{
    (void)state;
    daemon_make(&the_daemon);
    strcpy(runtime, "/dev/shm/bw-txn-XXXXXX");
    if (!mkdtemp(runtime)) return -1;
    /* nothing is synced by itself */
    const char *arguments[] = {"--runtime-dir", runtime, "--listen", the_daemon.url, "--set", "log.flush.interval.ms=3600000"};
    memcpy(the_daemon.arguments, arguments, sizeof arguments);
    char folder[400];
    snprintf(folder, sizeof folder, "%s/run", the_daemon.dir);
    char command[500];
    snprintf(command, sizeof command, "mkdir -p -m 0750 '%s'", folder);
    if (system(command) != 0) return -1;
    daemon_start(&the_daemon);
    bus = test_bus(the_daemon.url);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    char command[200];
    bw_bus_close(bus);
    daemon_remove(&the_daemon);
    snprintf(command, sizeof command, "rm -rf '%s'", runtime);
    return system(command);
}

/* Zeroes the last n batches of a partition's first segment, as if they had never reached the disk. */
static void lose(const char *topic, int n)
{
    char path[600];
    uint8_t head[61];
    off_t at[64], end = 0;
    int count = 0;
    snprintf(path, sizeof path, "%s/%s-0/00000000000000000000.log", the_daemon.dir, topic);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    while (pread(fd, head, sizeof head, end) == (ssize_t)sizeof head) {
        uint32_t length = (uint32_t)head[8] << 24 | (uint32_t)head[9] << 16 | (uint32_t)head[10] << 8 | head[11];
        if (length == 0) break;
        if (count == 64) memmove(at, at + 1, sizeof at - sizeof at[0]), count--;
        at[count++] = end;
        end += 12 + (off_t)length;
    }
    assert_true(count >= n);
    off_t from = at[count - n];
    uint8_t *zero = calloc(1, (size_t)(end - from));
    assert_int_equal(pwrite(fd, zero, (size_t)(end - from), from), end - from);
    free(zero);
    close(fd);
}

/* Between the two: what the disk has lost. */
static void power_off(void)
{
    char command[200];
    bw_bus_close(bus);
    daemon_stop(&the_daemon, SIGKILL);
    snprintf(command, sizeof command, "rm -rf '%s'", runtime);
    assert_int_equal(system(command), 0);
}

static void power_on(void)
{
    daemon_start(&the_daemon);
    bus = test_bus(the_daemon.url);
}

static bw_producer *ready(const char *id)
{
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    bw_producer *p;
    o.transactional_id = id;
    assert_ok(bw_producer_open(bus, &o, &p));
    assert_ok(bw_transactions_init(p, PATIENCE));
    return p;
}

static void put(bw_producer *p, const char *topic, const char *value)
{
    bw_record r = test_record(NULL, value);
    assert_ok(bw_producer_send_sync(p, topic, 0, &r, PATIENCE, NULL));
}

static void expect(const char *topic, const char *values)
{
    char got[1024] = "";
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *c;
    bw_batch b;
    bw_record_view v;
    o.isolation = BW_READ_COMMITTED;
    assert_ok(bw_consumer_open(bus, &o, &c));
    assert_ok(bw_consumer_assign(c, topic, 0, BW_OFFSET_BEGINNING));
    int64_t until = now_ms() + (*values ? PATIENCE : 500); /* partitions are looked through as they are opened */
    while (strlen(got) < strlen(values) + (*values == 0) && now_ms() < until)
        while (bw_consumer_poll(c, 100, &b) == BW_OK)
            while (bw_batch_next(&b, &v) == 1)
                snprintf(got + strlen(got), sizeof got - strlen(got), "%.*s ", (int)v.value_len, (const char *)v.value);
    bw_consumer_close(c);
    assert_string_equal(got, values);
}

static void test_a_lost_marker_is_written_as_it_was_decided(void **state)
{
    (void)state;
    bw_producer *p = ready("lost");
    const char *const topics[] = {"lost-a", "lost-b"};
    for (int round = 0; round < 3; round++) { /* committed, aborted, committed */
        assert_ok(bw_transaction_begin(p));
        for (int i = 0; i < 2; i++) put(p, topics[i], round == 0 ? "one" : round == 1 ? "no" : "two");
        assert_ok(round == 1 ? bw_transaction_abort(p, PATIENCE) : bw_transaction_commit(p, PATIENCE));
    }
    bw_producer_close(p, PATIENCE);
    power_off();
    lose("lost-a", 1); /* the last commit's marker */
    power_on();
    expect("lost-a", "one two ");
    expect("lost-b", "one two ");
}

static void test_what_was_not_decided_is_aborted(void **state)
{
    (void)state;
    bw_producer *p = ready("open");
    assert_ok(bw_transaction_begin(p));
    put(p, "open-a", "one");
    assert_ok(bw_transaction_commit(p, PATIENCE));
    assert_ok(bw_transaction_begin(p));
    put(p, "open-a", "two");
    assert_ok(bw_transaction_commit(p, PATIENCE));
    bw_producer_close(p, PATIENCE);
    power_off();
    lose("open-a", 1);              /* the second's marker */
    lose("__transaction_state", 3); /* its "complete", its decision, and that it was begun */
    power_on();
    expect("open-a", "one ");
    p = ready("open"); /* the id goes on */
    assert_ok(bw_transaction_begin(p));
    put(p, "open-a", "three");
    assert_ok(bw_transaction_commit(p, PATIENCE));
    expect("open-a", "one three ");
    bw_producer_close(p, PATIENCE);
}

static void test_what_goes_on_is_aborted_by_the_next_run(void **state)
{
    (void)state;
    bw_producer *p = ready("next");
    assert_ok(bw_transaction_begin(p));
    put(p, "next-a", "one");
    bw_producer_close(p, 0); /* neither committed nor aborted */
    power_off();
    power_on();
    expect("next-a", "");
    bw_producer *q = ready("next");
    assert_ok(bw_transaction_begin(q));
    put(q, "next-a", "two");
    assert_ok(bw_transaction_commit(q, PATIENCE));
    expect("next-a", "two ");
    bw_producer_close(q, PATIENCE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_lost_marker_is_written_as_it_was_decided, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_was_not_decided_is_aborted, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_goes_on_is_aborted_by_the_next_run, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
