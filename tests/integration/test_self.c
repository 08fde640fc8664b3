/* dir:…?coordinator=self: the coordinator in the program's own process. No daemon may be started in these tests.
 * The library finds libbusway-coordinator.so beside itself. */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char base[200];
static int made;

static void folder(char url[400])
{
    snprintf(url, 400, "dir:%s/d%d?coordinator=self", base, made++);
}

static int set_up(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(base, sizeof base, "%s/bws.XXXXXX", tmp ? tmp : "/tmp");
    setenv("BUSWAYD", "/nonexistent/no-daemon-may-be-started", 1);
    return mkdtemp(base) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    return system(command);
}

static int count_entries(const char *path)
{
    int n = 0;
    DIR *d = opendir(path);
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

static void test_self_serves_direct_and_socket_in_this_process(void **state)
{
    (void)state;
    char url[400];
    folder(url);
    for (int i = 0; i < 2; i++) {
        bw_bus *bus = test_bus_by(url, i ? BW_TRANSPORT_IPC : BW_TRANSPORT_DIRECT);
        assert_int_equal(test_server_pid(bus), getpid());
        bw_producer *p = test_producer(bus, i ? BW_ACKS_DURABLE : BW_ACKS_VISIBLE);
        assert_int_equal(test_send(p, "t", 0, "x"), i);
        bw_consumer *c = test_consumer(bus, "t", 0, 0);
        assert_int_equal(test_read(c, (size_t)i + 1, 5000, NULL, NULL), i + 1);
        bw_consumer_close(c);
        assert_ok(bw_producer_close(p, 1000));
        bw_bus_close(bus);
    }
}

static void test_self_opened_and_closed_many_times_leaves_nothing(void **state)
{
    (void)state;
    char url[400];
    folder(url);
    int threads = 0, fds = 0;
    for (int i = 0; i < 40; i++) {
        bw_bus *bus = test_bus_by(url, BW_TRANSPORT_AUTO);
        bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
        assert_int_equal(test_send(p, "t", 0, "x"), i);
        assert_ok(bw_producer_close(p, 1000));
        bw_bus_close(bus);
        if (i == 4) threads = count_entries("/proc/self/task"), fds = count_entries("/proc/self/fd");
    }
    for (int i = 0; i < 200 && count_entries("/proc/self/task") > threads; i++) usleep(10000); /* a thread that was joined may still be listed */
    assert_true(count_entries("/proc/self/task") <= threads);
    assert_true(count_entries("/proc/self/fd") <= fds);
}

static void test_self_keeps_no_descriptor_in_the_programs_table(void **state)
{
    (void)state;
    char url[400], path[64], target[400];
    folder(url);
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    test_send(p, "t", 0, "x");
    for (int fd = 3; fd < 256; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof target - 1);
        target[n > 0 ? n : 0] = 0;
        if (strstr(target, "daemon.lock") || strstr(target, "data.mdb")) fail_msg("descriptor %d is %s", fd, target);
    }
    assert_ok(bw_producer_close(p, 1000));
    bw_bus_close(bus);
}

/* Another process finds it; when the carrier closes, the other carries it on. */
static void test_self_second_process_attaches_and_takes_over(void **state)
{
    (void)state;
    char url[400];
    folder(url);
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_DIRECT);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    assert_int_equal(test_send(p, "t", 0, "first"), 0);
    int go[2], told[2];
    assert_int_equal(pipe(go) | pipe(told), 0);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        bw_bus *mine = NULL;
        bw_producer *q = NULL;
        bw_record r = test_record(NULL, "x");
        bw_delivery d;
        int bad = bw_bus_open(url, NULL, &mine) != BW_OK || bw_producer_open(mine, NULL, &q) != BW_OK;
        bad = bad || bw_producer_send_sync(q, "t", 0, &r, 5000, &d) != BW_OK || d.offset != 1 || test_server_pid(mine) != getppid();
        if (write(told[1], &bad, sizeof bad) < 0 || read(go[0], &byte, 1) < 0) bad = 1;
        bad = bad || bw_producer_send_sync(q, "t", 0, &r, 5000, &d) != BW_OK || d.offset != 2; /* the parent's bus is closed */
        bad = bad || test_server_pid(mine) != getpid();
        if (write(told[1], &bad, sizeof bad) < 0 || read(go[0], &byte, 1) < 0) bad = 1;
        _exit(bad); /* as if killed: nothing is closed */
    }
    int bad = -1;
    assert_int_equal(read(told[0], &bad, sizeof bad), sizeof bad);
    assert_int_equal(bad, 0);
    assert_ok(bw_producer_close(p, 1000));
    bw_bus_close(bus);
    assert_int_equal(write(go[1], "x", 1), 1);
    assert_int_equal(read(told[0], &bad, sizeof bad), sizeof bad);
    assert_int_equal(bad, 0);
    bus = test_bus_by(url, BW_TRANSPORT_DIRECT); /* the child serves us */
    assert_int_equal(test_server_pid(bus), child);
    bw_consumer *c = test_consumer(bus, "t", 0, 0);
    assert_int_equal(test_read(c, 3, 5000, NULL, NULL), 3);
    assert_int_equal(write(go[1], "x", 1), 1);
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    for (int i = 0; i < 500 && test_server_pid(bus) != getpid(); i++) usleep(10000);
    assert_int_equal(test_server_pid(bus), getpid()); /* and now we carry it */
    p = test_producer(bus, BW_ACKS_DURABLE);
    assert_int_equal(test_send(p, "t", 0, "last"), 3);
    bw_consumer_close(c);
    assert_ok(bw_producer_close(p, 1000));
    bw_bus_close(bus);
    close(go[0]), close(go[1]), close(told[0]), close(told[1]);
}

/* A child that the program forks and forgets keeps neither the folder nor its clients. */
static void test_self_forked_child_that_lives_on_keeps_nothing(void **state)
{
    (void)state;
    char url[400];
    folder(url);
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_DIRECT);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_record r = test_record(NULL, "x");
    test_send(p, "t", 0, "x");
    pid_t child = fork();
    if (child == 0) {
        bool refused = bw_producer_send_sync(p, "t", 0, &r, 100, NULL) == BW_ERR_FORKED;
        if (!refused) _exit(1);
        for (;;) pause();
    }
    assert_ok(bw_producer_close(p, 1000));
    bw_bus_close(bus);
    int64_t begun = now_ms();
    bus = test_bus_by(url, BW_TRANSPORT_DIRECT);
    assert_int_equal(test_server_pid(bus), getpid());
    assert_true(now_ms() - begun < 2000);
    p = test_producer(bus, BW_ACKS_VISIBLE);
    assert_int_equal(test_send(p, "t", 0, "x"), 1);
    assert_int_equal(waitpid(child, NULL, WNOHANG), 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    assert_ok(bw_producer_close(p, 1000));
    bw_bus_close(bus);
}

static void test_self_without_its_object_is_explained(void **state)
{
    (void)state;
    char url[400];
    folder(url);
    bw_bus *bus = NULL;
    setenv("BUSWAY_COORDINATOR", "/nonexistent/libbusway-coordinator.so.0", 1);
    assert_err(bw_bus_open(url, NULL, &bus), BW_ERR_NOT_FOUND);
    assert_non_null(strstr(bw_error_message(), "libbusway-coordinator.so"));
    setenv("BUSWAY_COORDINATOR", "libc.so.6", 1); /* something else */
    assert_err(bw_bus_open(url, NULL, &bus), BW_ERR_UNSUPPORTED_VERSION);
    unsetenv("BUSWAY_COORDINATOR");
    bus = test_bus_by(url, BW_TRANSPORT_AUTO);
    bw_bus_close(bus);
}

static void test_self_errors_of_the_folder_come_as_they_are(void **state)
{
    (void)state;
    char url[400], path[300];
    folder(url);
    snprintf(path, sizeof path, "%s/d%d", base, made - 1);
    assert_int_equal(mkdir(path, 0750), 0);
    strcat(path, "/busway.format");
    FILE *f = fopen(path, "w");
    fputs("busway data format 9\n", f);
    fclose(f);
    bw_bus *bus = NULL;
    assert_err(bw_bus_open(url, NULL, &bus), BW_ERR_NEWER_FORMAT);
    assert_non_null(strstr(bw_error_message(), "format 9"));
}

/* Two buses of one process: the second uses the first's coordinator, and carries its own when that goes. */
static void test_self_two_buses_of_one_process_share_and_succeed(void **state)
{
    (void)state;
    char url[400];
    folder(url);
    bw_bus *one = test_bus_by(url, BW_TRANSPORT_DIRECT), *two = test_bus_by(url, BW_TRANSPORT_DIRECT);
    bw_producer *p = test_producer(one, BW_ACKS_VISIBLE), *q = test_producer(two, BW_ACKS_VISIBLE);
    assert_int_equal(test_send(p, "t", 0, "x"), 0);
    assert_int_equal(test_send(q, "t", 0, "x"), 1);
    assert_ok(bw_producer_close(p, 1000));
    bw_bus_close(one);
    assert_int_equal(test_send(q, "t", 0, "x"), 2);
    assert_int_equal(test_server_pid(two), getpid());
    assert_ok(bw_producer_close(q, 1000));
    bw_bus_close(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_self_serves_direct_and_socket_in_this_process),
        cmocka_unit_test(test_self_opened_and_closed_many_times_leaves_nothing),
        cmocka_unit_test(test_self_keeps_no_descriptor_in_the_programs_table),
        cmocka_unit_test(test_self_second_process_attaches_and_takes_over),
        cmocka_unit_test(test_self_forked_child_that_lives_on_keeps_nothing),
        cmocka_unit_test(test_self_without_its_object_is_explained),
        cmocka_unit_test(test_self_errors_of_the_folder_come_as_they_are),
        cmocka_unit_test(test_self_two_buses_of_one_process_share_and_succeed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
