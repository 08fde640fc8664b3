/* support/bus.c: see bus.h. */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void check_ok(bw_err e, const char *what, const char *file, int line)
{
    if (e == BW_OK) return;
    print_error("%s:%d: %s: %s: %s\n", file, line, what, bw_err_name(e), bw_error_message());
    _fail(file, line);
}

void check_err(bw_err e, bw_err wanted, const char *what, const char *file, int line)
{
    if (e == wanted) return;
    print_error("%s:%d: %s: %s, not %s: %s\n", file, line, what, bw_err_name(e), bw_err_name(wanted), bw_error_message());
    _fail(file, line);
}

void daemon_make(test_daemon *d)
{
    const char *tmp = getenv("TMPDIR");
    memset(d, 0, sizeof *d);
    snprintf(d->dir, sizeof d->dir, "%s/bwi.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(d->dir)) fail_msg("mkdtemp %s: %s", d->dir, strerror(errno));
    snprintf(d->url, sizeof d->url, "ipc://%s/run/bus.sock", d->dir);
}

/* Until it answers (true) or has died (false). kill_point: NULL, or its BUSWAY_KILL. */
static bool start(test_daemon *d, const char *kill_point)
{
    const char *program = getenv("BUSWAYD");
    if (!program) fail_msg("$BUSWAYD must name the daemon");
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) fail_msg("pipe: %s", strerror(errno));
    d->pid = fork();
    if (d->pid == 0) {
        char number[16], log[300];
        snprintf(log, sizeof log, "%s.log", d->dir);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        dup2(fd, 1);
        dup2(fd, 2);
        fcntl(ready[1], F_SETFD, 0);
        if (kill_point) setenv("BUSWAY_KILL", kill_point, 1);
        snprintf(number, sizeof number, "%d", ready[1]);
        const char *argv[20] = {program, "--data-dir", d->dir, "--ready-fd", number};
        for (int i = 0; i < 8 && d->arguments[i]; i++) argv[5 + i] = d->arguments[i];
        execv(program, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    close(ready[1]);
    struct pollfd p = {.fd = ready[0], .events = POLLIN};
    char word[8] = "";
    bool answers = poll(&p, 1, 10000) == 1 && read(ready[0], word, 5) == 5 && memcmp(word, "READY", 5) == 0;
    close(ready[0]);
    return answers;
}

void daemon_start(test_daemon *d)
{
    if (!start(d, NULL)) fail_msg("the daemon did not come up; see %s.log", d->dir);
}

void daemon_start_doomed(test_daemon *d, const char *kill_point) { (void)start(d, kill_point); }

void daemon_stop(test_daemon *d, int signal_number)
{
    if (!d->pid) return;
    kill(d->pid, signal_number);
    int64_t until = now_ms() + 10000;
    while (waitpid(d->pid, NULL, WNOHANG) == 0) {
        if (now_ms() > until) {
            kill(d->pid, SIGKILL);
            waitpid(d->pid, NULL, 0);
            d->pid = 0;
            fail_msg("the daemon did not end within 10 s of signal %d", signal_number);
        }
        usleep(1000);
    }
    d->pid = 0;
}

void daemon_remove(test_daemon *d)
{
    daemon_stop(d, SIGTERM);
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s' '%s.log'", d->dir, d->dir);
    if (system(command) != 0) print_error("can't remove %s\n", d->dir);
}

bool test_is_direct(void)
{
    const char *t = getenv("BUSWAY_TEST_TRANSPORT");
    return !t || strcmp(t, "ipc") != 0;
}

bw_bus *test_bus_by(const char *url, bw_transport transport)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.transport = transport;
    o.client_id = "test";
    bw_bus *bus = NULL;
    assert_ok(bw_bus_open(url, &o, &bus));
    return bus;
}

bw_bus *test_bus(const char *url) { return test_bus_by(url, test_is_direct() ? BW_TRANSPORT_DIRECT : BW_TRANSPORT_IPC); }

bw_producer *test_producer(bw_bus *bus, bw_acks acks)
{
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    o.acks = acks;
    bw_producer *p = NULL;
    assert_ok(bw_producer_open(bus, &o, &p));
    return p;
}

bw_consumer *test_consumer(bw_bus *bus, const char *topic, int32_t partition, int64_t offset)
{
    bw_consumer *c = NULL;
    assert_ok(bw_consumer_open(bus, NULL, &c));
    assert_ok(bw_consumer_assign(c, topic, partition, offset));
    return c;
}

bw_record test_record(const char *key, const char *value)
{
    return (bw_record){.key = key, .key_len = key ? strlen(key) : 0, .value = value, .value_len = value ? strlen(value) : 0,
                       .timestamp_ms = BW_NO_TIMESTAMP};
}

int64_t test_send(bw_producer *p, const char *topic, int32_t partition, const char *value)
{
    bw_record r = test_record(NULL, value);
    bw_delivery d;
    assert_ok(bw_producer_send_sync(p, topic, partition, &r, 5000, &d));
    return d.offset;
}

size_t test_read(bw_consumer *c, size_t count, int timeout_ms, test_record_fn fn, void *opaque)
{
    size_t n = 0;
    int64_t until = now_ms() + timeout_ms;
    while (n < count && now_ms() < until) {
        bw_batch b;
        bw_err e = bw_consumer_poll(c, 50, &b);
        if (e == BW_ERR_TIMED_OUT || e == BW_ERR_NOT_CONNECTED) continue;
        assert_ok(e);
        bw_record_view v;
        int r;
        while ((r = bw_batch_next(&b, &v)) == 1) {
            if (fn) fn(opaque, &b, &v);
            n++;
        }
        assert_int_equal(r, 0);
    }
    return n;
}

long long test_stat(bw_bus *bus, const char *name)
{
    char *json = bw_bus_stats(bus), quoted[64];
    assert_non_null(json);
    snprintf(quoted, sizeof quoted, "\"%s\":", name);
    char *at = strstr(json, quoted);
    if (!at) fail_msg("no %s in %s", name, json);
    long long v = strtoll(at + strlen(quoted), NULL, 10);
    bw_free(json);
    return v;
}

long test_rss_kib(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long pages = 0, rss = 0;
    if (!f || fscanf(f, "%ld %ld", &pages, &rss) != 2) rss = -1;
    if (f) fclose(f);
    return rss * (sysconf(_SC_PAGESIZE) / 1024);
}

pid_t test_server_pid(bw_bus *bus)
{
    char *json = NULL;
    assert_ok(bw_status(bus, &json));
    char *at = strstr(json, "\"pid\":");
    if (!at) fail_msg("no pid in %s", json);
    pid_t pid = (pid_t)atol(at + 6);
    bw_free(json);
    return pid;
}

void test_run(const char *format, ...)
{
    char command[2000];
    va_list list;
    va_start(list, format);
    vsnprintf(command, sizeof command, format, list);
    va_end(list);
    if (system(command) != 0) fail_msg("failed: %s", command);
}
