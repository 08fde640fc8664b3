/* dir: buses: nothing to start, whoever needs the daemon starts it; fork; other users. $BUSWAYD is found by the library itself. */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <grp.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char base[256];
static int made;

static void folder(char url[400], char path[300], const char *options)
{
    snprintf(path, 300, "%s/d%d", base, made++);
    snprintf(url, 400, "dir:%s%s", path, options);
}

static int set_up(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(base, sizeof base, "%s/bwe.XXXXXX", tmp ? tmp : "/tmp");
    return mkdtemp(base) ? chmod(base, 0755) : -1;
}

static int tear_down(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", base);
    return system(command);
}

static void end_daemon(pid_t pid)
{
    kill(pid, SIGTERM);
    for (int i = 0; i < 500 && kill(pid, 0) == 0; i++) usleep(10000);
    assert_int_not_equal(kill(pid, 0), 0);
}

static void test_first_record_in_an_empty_folder(void **state)
{
    (void)state;
    char url[400], path[300];
    folder(url, path, "");
    int64_t begun = now_ms();
    bw_bus *bus = test_bus(url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    assert_int_equal(test_send(p, "t", 0, "x"), 0);
    int64_t took = now_ms() - begun;
    print_message("first acknowledgement after %lld ms\n", (long long)took);
    assert_true(took < 2000);
    pid_t pid = test_server_pid(bus);
    assert_int_not_equal(getpgid(pid), getpgid(0)); /* detached */
    char fds[64], target[300];
    snprintf(fds, sizeof fds, "/proc/%d/fd/0", (int)pid);
    ssize_t n = readlink(fds, target, sizeof target - 1);
    assert_true(n > 0);
    target[n] = 0;
    assert_string_equal(target, "/dev/null");
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    end_daemon(pid);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* it was nobody's child: nothing is left to reap */
    assert_int_equal(errno, ECHILD);
}

static void test_two_processes_start_one_daemon(void **state)
{
    (void)state;
    enum { PROCESSES = 6 };
    char url[400], path[300];
    folder(url, path, "?idle-exit=2s");
    int out[2];
    assert_int_equal(pipe(out), 0);
    for (int i = 0; i < PROCESSES; i++) {
        if (fork() == 0) {
            bw_bus *bus = test_bus(url);
            bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
            test_send(p, "t", 0, "x");
            pid_t pid = test_server_pid(bus);
            if (write(out[1], &pid, sizeof pid) != sizeof pid) _exit(1);
            bw_producer_close(p, 1000);
            bw_bus_close(bus);
            _exit(0);
        }
    }
    pid_t first = 0;
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_int_equal(status, 0);
        pid_t pid;
        assert_int_equal(read(out[0], &pid, sizeof pid), sizeof pid);
        if (!first) first = pid;
        assert_int_equal(pid, first);
    }
    close(out[0]);
    close(out[1]);
    for (int i = 0; i < 800 && kill(first, 0) == 0; i++) usleep(10000); /* idle: it goes by itself */
    assert_int_not_equal(kill(first, 0), 0);
    bw_bus *bus = test_bus(url); /* and is started again */
    bw_consumer *c = test_consumer(bus, "t", 0, 0);
    assert_int_equal(test_read(c, PROCESSES, 3000, NULL, NULL), PROCESSES);
    bw_consumer_close(c);
    first = test_server_pid(bus);
    bw_bus_close(bus);
    end_daemon(first);
}

static void test_killed_daemon_is_started_again_by_who_needs_it(void **state)
{
    (void)state;
    char url[400], path[300];
    folder(url, path, "");
    bw_bus *bus = test_bus(url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    test_send(p, "t", 0, "x");
    bw_consumer *c = test_consumer(bus, "t", 0, 0);
    pid_t pid = test_server_pid(bus);
    for (int round = 0; round < 3; round++) {
        kill(pid, SIGKILL);
        assert_int_equal(test_send(p, "t", 0, "x"), round + 1);
        assert_int_equal(test_read(c, round ? 1 : 2, 5000, NULL, NULL), round ? 1 : 2);
        pid_t now = test_server_pid(bus); /* an administrative request needs it */
        assert_int_not_equal(now, pid);
        pid = now;
    }
    kill(pid, SIGKILL); /* space runs out: who needs more starts it too */
    static char value[100000];
    memset(value, 'x', sizeof value - 1);
    bw_record r = test_record(NULL, value);
    for (int i = 0; i < 400; i++) assert_ok(bw_producer_send_sync(p, "t", 0, &r, 5000, NULL));
    pid = test_server_pid(bus);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    end_daemon(pid);
}

/* Who works directly asks the daemon for nothing; it comes back all the same. */
static void test_killed_daemon_is_replaced_though_nobody_asks(void **state)
{
    (void)state;
    char url[400], path[300], lock[400], text[64];
    folder(url, path, "");
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_DIRECT);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    test_send(p, "t", 0, "x");
    pid_t pid = test_server_pid(bus), now = pid;
    kill(pid, SIGKILL);
    snprintf(lock, sizeof lock, "%s/daemon.lock", path);
    for (int i = 0; i < 1000 && (now == pid || now <= 0); i++) {
        usleep(10000);
        int fd = open(lock, O_RDONLY);
        ssize_t n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = 0;
        now = (pid_t)atol(text);
    }
    assert_int_not_equal(now, pid);
    assert_true(now > 0);
    assert_int_equal(test_server_pid(bus), now);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    end_daemon(now);
}

static void test_failures_to_start_are_explained(void **state)
{
    (void)state;
    char url[400], path[300];
    folder(url, path, "");
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    o.daemon_path = "/nonexistent/buswayd";
    assert_err(bw_bus_open(url, &o, &bus), BW_ERR_NOT_FOUND);
    assert_non_null(strstr(bw_error_message(), "/nonexistent/buswayd"));
    assert_null(bus);
    o.daemon_path = "/bin/false";
    assert_err(bw_bus_open(url, &o, &bus), BW_ERR_NO_COORDINATOR);
    assert_non_null(strstr(bw_error_message(), "/bin/false"));
    FILE *f = fopen(path, "a");
    if (f) fclose(f); /* the folder is there by now; a file of that name elsewhere: */
    char file_url[500];
    snprintf(file_url, sizeof file_url, "dir:%s/file", base);
    snprintf(path, sizeof path, "%s/file", base);
    f = fopen(path, "w");
    fputs("x", f);
    fclose(f);
    assert_int_not_equal(bw_bus_open(file_url, NULL, &bus), BW_OK);
    assert_non_null(strstr(bw_error_message(), path));
}

static void test_long_paths_work(void **state)
{
    (void)state;
    char url[800], name[120];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    snprintf(url, sizeof url, "dir:%s/%s", base, name);
    bw_bus *bus = NULL;
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_err e = bw_bus_open(url, &o, &bus);
    if (e) { /* not every daemon can listen there; but then it is said so, with the path */
        assert_non_null(strstr(bw_error_message(), "107"));
        return;
    }
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    assert_int_equal(test_send(p, "t", 0, "x"), 0);
    pid_t pid = test_server_pid(bus);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    end_daemon(pid);
}

static void test_handles_refuse_in_a_forked_child(void **state)
{
    (void)state;
    char url[400], path[300];
    folder(url, path, "");
    bw_bus *bus = test_bus(url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    test_send(p, "t", 0, "x");
    bw_record r = test_record(NULL, "x");
    assert_ok(bw_producer_send(p, "t", 0, &r, NULL, NULL, 1000)); /* the library's thread runs */
    assert_ok(bw_producer_flush(p, 1000));
    bw_consumer *c = test_consumer(bus, "t", 0, 0);
    pid_t child = fork();
    if (child == 0) {
        bw_batch b;
        bw_reservation v;
        char *json;
        int32_t n;
        int bad = 0;
        bad += bw_producer_send_sync(p, "t", 0, &r, 100, NULL) != BW_ERR_FORKED;
        bad += bw_producer_send(p, "t", 0, &r, NULL, NULL, 100) != BW_ERR_FORKED;
        bad += bw_producer_flush(p, 100) != BW_ERR_FORKED;
        bad += bw_producer_reserve(p, "t", 0, NULL, 10, 100, &v) != BW_ERR_FORKED;
        bad += bw_producer_poll(p, 0) != 0;
        bad += bw_consumer_poll(c, 0, &b) != BW_ERR_FORKED;
        bad += bw_consumer_seek(c, "t", 0, 0) != BW_ERR_FORKED;
        bad += bw_consumer_fd(c) != -1;
        bad += bw_status(bus, &json) != BW_ERR_FORKED;
        bad += bw_topic_partitions(bus, "t", &n) != BW_ERR_FORKED;
        bad += bw_bus_stats(bus) != NULL;
        bw_consumer_wake(c);
        bw_consumer_close(c);
        bad += bw_producer_close(p, 100) != BW_ERR_FORKED;
        bw_bus_close(bus);
        bw_bus *own = NULL; /* a bus opened in the child works */
        bw_producer *mine = NULL;
        bad += bw_bus_open(url, NULL, &own) != BW_OK;
        bad += bw_producer_open(own, NULL, &mine) != BW_OK;
        bad += bw_producer_send_sync(mine, "t", 0, &r, 5000, NULL) != BW_OK;
        bad += bw_producer_close(mine, 1000) != BW_OK;
        bw_bus_close(own);
        _exit(bad);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    test_send(p, "t", 0, "the parent goes on");
    assert_int_equal(test_read(c, 4, 2000, NULL, NULL), 4);
    pid_t pid = test_server_pid(bus);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    end_daemon(pid);
}

/* In a child of another uid. mode: the socket's folder is opened to everybody before. */
static void test_another_user_is_refused_or_goes_through_the_socket(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("SKIP: needs root to become another user\n");
        skip();
    }
    char url[400], path[300];
    folder(url, path, "");
    bw_bus *bus = test_bus(url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    test_send(p, "t", 0, "x");
    pid_t pid = test_server_pid(bus);
    pid_t child = fork();
    if (child == 0) { /* no right to anything */
        if (setgid(65534) || setuid(65534)) _exit(10);
        bw_bus *other = NULL;
        bw_err e = bw_bus_open(url, NULL, &other);
        fprintf(stderr, "as nobody: %s: %s\n", bw_err_name(e), bw_error_message());
        _exit(e == BW_ERR_NOT_PERMITTED && other == NULL ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    child = fork();
    if (child == 0) { /* of the socket's group, but not the owner: through the socket */
        if (setgroups(0, NULL) || setgid(0) || setuid(65534)) _exit(10);
        bw_bus_options o = BW_BUS_OPTIONS_INIT;
        bw_bus *other = NULL;
        bw_producer *mine = NULL;
        bw_record r = test_record(NULL, "x");
        bw_delivery d = {0};
        char ipc[500];
        snprintf(ipc, sizeof ipc, "ipc://%s/run/bus.sock", path);
        bw_err e = bw_bus_open(ipc, &o, &other);
        if (!e) e = bw_producer_open(other, NULL, &mine);
        if (!e) e = bw_producer_send_sync(mine, "t", 0, &r, 5000, &d);
        char *stats = other ? bw_bus_stats(other) : NULL;
        fprintf(stderr, "%s: %s\n%s\n", bw_err_name(e), bw_error_message(), stats ? stats : "");
        bool good = !e && d.offset == 1 && stats && strstr(stats, "\"transport\":\"ipc\"") && strstr(stats, "uid");
        if (other) {
            bw_producer_close(mine, 1000);
            bw_bus_close(other);
            o.transport = BW_TRANSPORT_DIRECT; /* direct or an error that says why not */
            e = bw_bus_open(ipc, &o, &other);
            if (!e) e = bw_producer_open(other, NULL, &mine);
            if (!e) e = bw_producer_send_sync(mine, "t", 0, &r, 5000, &d);
            fprintf(stderr, "%s: %s\n", bw_err_name(e), bw_error_message());
            good &= e == BW_ERR_NOT_PERMITTED;
        }
        _exit(good ? 0 : 1);
    }
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    end_daemon(pid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_record_in_an_empty_folder),
        cmocka_unit_test(test_two_processes_start_one_daemon),
        cmocka_unit_test(test_killed_daemon_is_started_again_by_who_needs_it),
        cmocka_unit_test(test_killed_daemon_is_replaced_though_nobody_asks),
        cmocka_unit_test(test_failures_to_start_are_explained),
        cmocka_unit_test(test_long_paths_work),
        cmocka_unit_test(test_handles_refuse_in_a_forked_child),
        cmocka_unit_test(test_another_user_is_refused_or_goes_through_the_socket),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
