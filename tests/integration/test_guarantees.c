/* The promises of the examples (src/examples): exactly once, at least once, at most once, while processor and daemon are killed at
 * random, the daemon at the steps of a commit too. $BUSWAY_KILLS: how many for exactly once; default 300.
 * test: limit=300 no-asan */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PER_BATCH = 3, PAUSE_US = 500, DRAIN_MS = 60000 };

/* Every step of a commit in the daemon, the log's too. */
static const char *const points[] = {
    "txn.begun",      "txn.settled",   "txn.flushing",   "txn.flushed",       "txn.offsets_taken", "txn.deciding",
    "txn.decided",    "txn.marking",   "txn.marked",     "txn.marked_all",    "txn.offsets_stored", "txn.completing",
    "txn.answered",   "txn.init_stored", "txn.offsets_put",
};
enum { POINTS = sizeof points / sizeof points[0] };

static test_daemon the_daemon;
static unsigned seed = 7;
static unsigned below(unsigned n) { return (unsigned)rand_r(&seed) % n; }

/* ---- the input: numbers, in small batches, until it is told to stop ---- */

typedef struct feed {
    const char *topic;
    _Atomic bool stop;
    _Atomic int64_t sent;
    pthread_t thread;
} feed;

static void *feed_main(void *opaque)
{
    feed *f = opaque;
    bw_bus *bus = test_bus_by(the_daemon.url, BW_TRANSPORT_AUTO);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    while (!atomic_load(&f->stop)) {
        char text[PER_BATCH][24];
        bw_record r[PER_BATCH];
        int64_t n = atomic_load(&f->sent);
        for (int i = 0; i < PER_BATCH; i++) {
            snprintf(text[i], sizeof text[i], "%lld", (long long)n + i);
            r[i] = test_record(NULL, text[i]);
        }
        if (bw_producer_send_batch(p, f->topic, 0, r, PER_BATCH, 60000, NULL) != BW_OK) continue; /* direct: it is there or it is not */
        atomic_store(&f->sent, n + PER_BATCH);
        usleep(PAUSE_US);
    }
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    return NULL;
}

/* ---- processes ---- */

static pid_t spawn(char *const *arguments)
{
    pid_t pid = fork();
    if (pid) return pid;
    char log[300];
    snprintf(log, sizeof log, "%s.log", the_daemon.dir); /* removed with the folder */
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(fd, 1);
    dup2(fd, 2);
    execv(arguments[0], arguments);
    _exit(127);
}

static pid_t start_processor(const char *example, const char *in, const char *out)
{
    char path[600];
    const char *daemon = getenv("BUSWAYD"), *slash = strrchr(daemon, '/');
    snprintf(path, sizeof path, "%.*s/examples/%s", (int)(slash - daemon), daemon, example);
    assert_int_equal(access(path, X_OK), 0);
    char *arguments[] = {path, the_daemon.url, (char *)(uintptr_t)example,
                         (char *)(uintptr_t)in, (char *)(uintptr_t)out, (char *)(uintptr_t)"0", NULL};
    return spawn(arguments);
}

static void end_process(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void start_daemon_killing(const char *point, unsigned pass)
{
    char value[100];
    snprintf(value, sizeof value, "%s:%u", point, pass);
    daemon_start_doomed(&the_daemon, value);
}

static bool daemon_died(void) { return waitpid(the_daemon.pid, NULL, WNOHANG) == the_daemon.pid; }

/* ---- the output ---- */

typedef struct tally {
    uint8_t *times;
    int64_t most, doubles;
} tally;

static void count_one(void *opaque, const bw_batch *batch, const bw_record_view *r)
{
    (void)batch;
    tally *t = opaque;
    char text[24] = "";
    assert_true(r->value_len < sizeof text);
    memcpy(text, r->value, r->value_len);
    int64_t n = atoll(text);
    assert_true(n >= 0 && n < t->most);
    t->doubles += t->times[n] != 0;
    t->times[n]++;
}

/* Until `wanted` different ones are there, or nothing more comes for `quiet_ms`. Returns how many are missing. */
static int64_t drain(const char *topic, int64_t sent, bw_isolation isolation, int quiet_ms, tally *t)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_bus *bus = test_bus_by(the_daemon.url, BW_TRANSPORT_AUTO);
    bw_consumer *c;
    o.isolation = isolation;
    assert_ok(bw_consumer_open(bus, &o, &c));
    assert_ok(bw_consumer_assign(c, topic, 0, BW_OFFSET_BEGINNING));
    *t = (tally){calloc((size_t)sent + 1, 1), sent, 0};
    int64_t read = 0, until = now_ms() + DRAIN_MS, quiet = now_ms() + quiet_ms;
    while (read - t->doubles < sent && now_ms() < until && now_ms() < quiet) {
        size_t n = test_read(c, 1, 200, count_one, t);
        read += (int64_t)n;
        if (n) quiet = now_ms() + quiet_ms;
    }
    read += (int64_t)test_read(c, SIZE_MAX, 300, count_one, t); /* more than there may be? */
    bw_consumer_close(c);
    bw_bus_close(bus);
    int64_t missing = 0;
    for (int64_t i = 0; i < sent; i++) missing += t->times[i] == 0;
    free(t->times);
    return missing;
}

static void begin_feed(feed *f, const char *topic)
{
    *f = (feed){.topic = topic};
    assert_int_equal(pthread_create(&f->thread, NULL, feed_main, f), 0);
    while (atomic_load(&f->sent) == 0) usleep(1000);
}

static void end_feed(feed *f)
{
    atomic_store(&f->stop, true);
    pthread_join(f->thread, NULL);
}

static void make_topics(const char *in, const char *out)
{
    bw_bus *bus = test_bus_by(the_daemon.url, BW_TRANSPORT_AUTO);
    assert_ok(bw_topic_create(bus, in, 1, NULL, 0));
    assert_ok(bw_topic_create(bus, out, 1, NULL, 0));
    bw_bus_close(bus);
}

static int count_acted(const char *path, const char *point)
{
    char line[200];
    int n = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        n += line[0] == '!' && !strcmp(line + 1, point);
    }
    if (f) fclose(f);
    return n;
}

static void test_exactly_once_each_input_once_whatever_is_killed(void **state)
{
    (void)state;
    const char *given = getenv("BUSWAY_KILLS");
    int kills = given ? atoi(given) : 300, of_processor = 0, of_daemon = 0;
    char log[300];
    feed f;
    tally t;
    make_topics("eo-in", "eo-out");
    snprintf(log, sizeof log, "%s.points", the_daemon.dir);
    setenv("BUSWAY_KILL_LOG", log, 1);
    begin_feed(&f, "eo-in");
    pid_t processor = start_processor("exactly_once", "eo-in", "eo-out");
    daemon_stop(&the_daemon, SIGKILL);
    start_daemon_killing(points[0], 3);
    while (of_processor + of_daemon < kills) {
        usleep(5000 + below(40000));
        if (below(3)) {
            end_process(processor);
            processor = start_processor("exactly_once", "eo-in", "eo-out");
            of_processor++;
        }
        bool died = daemon_died();
        if (!died && below(8) == 0) {
            daemon_stop(&the_daemon, SIGKILL);
            died = true;
        }
        if (waitpid(processor, NULL, WNOHANG) == processor) processor = start_processor("exactly_once", "eo-in", "eo-out"); /* it gave up */
        if (!died) continue;
        const char *point = points[(unsigned)of_daemon % POINTS];
        start_daemon_killing(point, strcmp(point, "txn.init_stored") ? 1 + below(40) : 1);
        of_daemon++;
    }
    end_feed(&f);
    if (daemon_died()) the_daemon.pid = 0;
    else daemon_stop(&the_daemon, SIGKILL);
    unsetenv("BUSWAY_KILL_LOG");
    daemon_start(&the_daemon);
    end_process(processor); /* it may have given up */
    processor = start_processor("exactly_once", "eo-in", "eo-out");
    int64_t missing = drain("eo-out", atomic_load(&f.sent), BW_READ_COMMITTED, DRAIN_MS, &t);
    print_message("  %d kills of the processor, %d of the daemon, %lld inputs: %lld missing, %lld twice\n", of_processor, of_daemon,
                  (long long)atomic_load(&f.sent), (long long)missing, (long long)t.doubles);
    int acted = 0;
    for (int i = 0; i < POINTS; i++) {
        int n = count_acted(log, points[i]);
        if (!n) print_message("  no death at %s\n", points[i]);
        acted += n > 0;
    }
    end_process(processor);
    unlink(log);
    assert_int_equal(missing, 0);
    assert_int_equal(t.doubles, 0);
    assert_true(kills < 300 || acted >= POINTS / 2);
}

static void kill_some(const char *example, const char *in, const char *out, feed *f, int kills)
{
    make_topics(in, out);
    begin_feed(f, in);
    for (int i = 0; i < kills; i++) {
        pid_t processor = start_processor(example, in, out);
        usleep(5000 + below(30000));
        end_process(processor);
    }
    end_feed(f);
}

static void test_at_least_once_loses_nothing(void **state)
{
    (void)state;
    feed f;
    tally t;
    kill_some("at_least_once", "al-in", "al-out", &f, 40);
    pid_t processor = start_processor("at_least_once", "al-in", "al-out");
    int64_t missing = drain("al-out", atomic_load(&f.sent), BW_READ_UNCOMMITTED, DRAIN_MS, &t);
    end_process(processor);
    print_message("  %lld inputs: %lld missing, %lld twice\n", (long long)atomic_load(&f.sent), (long long)missing, (long long)t.doubles);
    assert_int_equal(missing, 0);
}

static void test_at_most_once_does_nothing_twice(void **state)
{
    (void)state;
    feed f;
    tally t;
    kill_some("at_most_once", "am-in", "am-out", &f, 40);
    pid_t processor = start_processor("at_most_once", "am-in", "am-out");
    int64_t missing = drain("am-out", atomic_load(&f.sent), BW_READ_UNCOMMITTED, 1500, &t);
    end_process(processor);
    print_message("  %lld inputs: %lld missing, %lld twice\n", (long long)atomic_load(&f.sent), (long long)missing, (long long)t.doubles);
    assert_int_equal(t.doubles, 0);
    assert_true(missing < atomic_load(&f.sent));
}

static int set_up(void **state)
{
    (void)state;
    daemon_make(&the_daemon);
    daemon_start(&the_daemon);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    daemon_remove(&the_daemon);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exactly_once_each_input_once_whatever_is_killed),
        cmocka_unit_test(test_at_least_once_loses_nothing),
        cmocka_unit_test(test_at_most_once_does_nothing_twice),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
