/* Members of groups with a real daemon, on both transports ($BUSWAY_TEST_TRANSPORT) and mixed: sharing, joining, dying, being stopped,
 * static members, patterns, and a daemon that is killed again and again under load. */
#include "support/bus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PARTITIONS = 6, RECORDS_MAX = 200000 };

/* What the members of one test did, together. Under `lock`. */
typedef struct tally {
    pthread_mutex_t lock;
    int owner[PARTITIONS];   /* member + 1; 0: nobody */
    uint8_t *seen[PARTITIONS];
    int64_t unique, again;
    int overlaps, lost;
} tally;

typedef struct member {
    int number;
    bw_bus *bus;
    bw_consumer *c;
    tally *tally;
    int parts;        /* that it has */
    char events[256];
} member;

static void tally_init(tally *t)
{
    memset(t, 0, sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    for (int i = 0; i < PARTITIONS; i++) t->seen[i] = calloc(1, RECORDS_MAX);
}

static void tally_fini(tally *t)
{
    for (int i = 0; i < PARTITIONS; i++) free(t->seen[i]);
    pthread_mutex_destroy(&t->lock);
}

static void rebalanced(bw_consumer *c, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)c;
    member *m = opaque;
    size_t at = strlen(m->events);
    snprintf(m->events + at, sizeof m->events - at, "%c%zu", "+-!"[event], count);
    m->parts += event == BW_REBALANCE_ASSIGNED ? (int)count : -(int)count;
    if (!m->tally) return;
    pthread_mutex_lock(&m->tally->lock);
    for (size_t i = 0; i < count; i++) {
        int *owner = &m->tally->owner[parts[i].partition];
        if (event == BW_REBALANCE_LOST) m->tally->lost++;
        if (event == BW_REBALANCE_ASSIGNED) {
            m->tally->overlaps += *owner != 0;
            *owner = m->number + 1;
        } else if (*owner == m->number + 1) {
            *owner = 0;
        }
    }
    pthread_mutex_unlock(&m->tally->lock);
}

static bw_consumer_options group_options(const char *group)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = group;
    o.auto_offset_reset = BW_RESET_EARLIEST;
    o.auto_commit_interval_ms = 50;
    return o;
}

static void member_open(member *m, int number, bw_bus *bus, bw_consumer_options o, const char *topic, tally *t)
{
    *m = (member){.number = number, .bus = bus, .tally = t};
    o.on_rebalance = rebalanced;
    o.rebalance_opaque = m;
    assert_ok(bw_consumer_open(m->bus, &o, &m->c));
    assert_ok(bw_consumer_subscribe(m->c, &topic, 1));
}

static void member_close(member *m)
{
    bw_consumer_close(m->c);
    bw_bus_close(m->bus);
}

static bw_err member_poll(member *m, int timeout_ms)
{
    bw_batch b;
    bw_record_view v;
    bw_err e = bw_consumer_poll(m->c, timeout_ms, &b);
    if (e || !m->tally) return e;
    pthread_mutex_lock(&m->tally->lock);
    while (bw_batch_next(&b, &v) == 1) {
        uint8_t *seen = &m->tally->seen[b.partition][v.offset];
        if (*seen) m->tally->again++;
        else m->tally->unique++;
        *seen = 1;
    }
    pthread_mutex_unlock(&m->tally->lock);
    return BW_OK;
}

/* Poll them all in turn until each has so many partitions. */
static void poll_until_shared(member *m, int count, const int *wanted)
{
    int64_t until = now_ms() + 10000;
    bool done = false;
    while (!done && now_ms() < until) {
        done = true;
        for (int i = 0; i < count; i++) {
            bw_err e = member_poll(&m[i], 1);
            if (e != BW_OK && e != BW_ERR_TIMED_OUT && e != BW_ERR_NOT_CONNECTED) assert_ok(e);
            done &= m[i].parts == wanted[i];
        }
    }
    for (int i = 0; i < count; i++)
        if (m[i].parts != wanted[i]) fail_msg("member %d has %d partitions, not %d; %s", i, m[i].parts, wanted[i], m[i].events);
}

static void poll_for(member *m, int count, int ms)
{
    int64_t until = now_ms() + ms;
    while (now_ms() < until)
        for (int i = 0; i < count; i++) member_poll(&m[i], 1);
}

static void poll_until_unique(member *m, int count, int64_t unique)
{
    int64_t until = now_ms() + 20000;
    while (m->tally->unique < unique && now_ms() < until)
        for (int i = 0; i < count; i++) member_poll(&m[i], 1);
    assert_int_equal(m->tally->unique, unique);
}

static void make_topic(const char *url, const char *name, int partitions)
{
    bw_bus *bus = test_bus(url);
    assert_ok(bw_topic_create(bus, name, partitions, NULL, 0));
    bw_bus_close(bus);
}

static void produce(const char *url, const char *topic, int partitions, int each)
{
    bw_bus *bus = test_bus(url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; i < each; i++)
        for (int k = 0; k < partitions; k++) test_send(p, topic, k, "x");
    assert_ok(bw_producer_close(p, 10000));
    bw_bus_close(bus);
}

static void check_committed(const char *url, const char *group, const char *topic, int partitions, int64_t each)
{
    bw_bus *bus = test_bus(url);
    bw_consumer_options o = group_options(group);
    bw_consumer *c;
    assert_ok(bw_consumer_open(bus, &o, &c));
    for (int i = 0; i < partitions; i++) {
        bw_topic_partition p = {.topic = topic, .partition = i};
        assert_ok(bw_consumer_committed(c, &p, 1, 5000));
        assert_int_equal(p.error, BW_OK);
        assert_int_equal(p.offset, each);
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
}

/* ---- tests ---- */

static void test_members_share_and_records_are_read_once_while_they_come_and_go(void **state)
{
    (void)state;
    test_daemon d;
    tally t;
    member m[3];
    daemon_make(&d);
    daemon_start(&d);
    make_topic(d.url, "work", PARTITIONS);
    tally_init(&t);
    bw_transport mixed = test_is_direct() ? BW_TRANSPORT_IPC : BW_TRANSPORT_DIRECT;
    member_open(&m[0], 0, test_bus(d.url), group_options("g"), "work", &t);
    poll_until_shared(m, 1, (int[]){6});
    produce(d.url, "work", PARTITIONS, 20);
    poll_until_unique(m, 1, 120);
    assert_ok(bw_consumer_pause(m[0].c, "work", 0));
    member_open(&m[1], 1, test_bus_by(d.url, mixed), group_options("g"), "work", &t);
    poll_until_shared(m, 2, (int[]){3, 3});
    produce(d.url, "work", PARTITIONS, 20);
    bw_topic_partition *parts;
    size_t count;
    assert_ok(bw_consumer_assignment(m[0].c, &parts, &count));
    bool kept = false;
    for (size_t i = 0; i < count; i++) kept |= parts[i].partition == 0;
    bw_free(parts);
    poll_until_unique(m, 2, kept ? 220 : 240); /* a pause stays with the partition that stays */
    if (kept) assert_ok(bw_consumer_resume(m[0].c, "work", 0));
    poll_until_unique(m, 2, 240);
    member_open(&m[2], 2, test_bus(d.url), group_options("g"), "work", &t);
    poll_until_shared(m, 3, (int[]){2, 2, 2});
    produce(d.url, "work", PARTITIONS, 20);
    poll_until_unique(m, 3, 360);
    member_close(&m[2]);
    poll_until_shared(m, 2, (int[]){3, 3});
    produce(d.url, "work", PARTITIONS, 20);
    poll_until_unique(m, 2, 480);
    assert_int_equal(t.again, 0);
    assert_int_equal(t.overlaps, 0);
    assert_int_equal(t.lost, 0);
    assert_ok(bw_consumer_unsubscribe(m[0].c));
    assert_int_equal(m[0].parts, 0);
    poll_until_shared(&m[1], 1, (int[]){6});
    member_close(&m[0]);
    member_close(&m[1]);
    check_committed(d.url, "g", "work", PARTITIONS, 80);
    tally_fini(&t);
    daemon_remove(&d);
}

/* A member in a process of its own: it tells what it does, a line each, through a pipe. */
typedef struct child { pid_t pid; FILE *out; int go; } child;

static void child_run(const char *url, int out, int go, int max_poll_ms)
{
    bw_bus *bus = test_bus(url);
    bw_consumer_options o = group_options("g");
    o.max_poll_interval_ms = max_poll_ms;
    bw_consumer *c;
    const char *topic = "work";
    if (bw_consumer_open(bus, &o, &c) || bw_consumer_subscribe(c, &topic, 1)) _exit(3);
    for (;;) {
        bw_batch b;
        bw_err e = bw_consumer_poll(c, 10, &b);
        if (e == BW_OK) dprintf(out, "read %d %lld\n", b.partition, (long long)b.base_offset);
        else if (e != BW_ERR_TIMED_OUT) dprintf(out, "error %s %d\n", bw_err_name(e), b.partition);
        struct pollfd p = {.fd = go, .events = POLLIN};
        char word;
        if (poll(&p, 1, 0) != 1 || read(go, &word, 1) != 1) continue;
        raise(SIGSTOP); /* between two polls, in the middle of its work */
        bw_topic_partition part = {.topic = topic, .partition = b.topic ? b.partition : 0, .offset = 1, .leader_epoch = -1};
        e = bw_consumer_commit(c, &part, 1, 5000);
        dprintf(out, "commit %s\n", bw_err_name(e));
    }
}

static child child_start(const char *url, int max_poll_ms)
{
    int out[2], go[2];
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(go), 0);
    child k = {.pid = fork()};
    if (k.pid == 0) {
        close(out[0]);
        close(go[1]);
        child_run(url, out[1], go[0], max_poll_ms);
        _exit(0);
    }
    close(out[1]);
    close(go[0]);
    k.out = fdopen(out[0], "r");
    k.go = go[1];
    return k;
}

static void child_end(child *k)
{
    kill(k->pid, SIGKILL);
    waitpid(k->pid, NULL, 0);
    fclose(k->out);
    close(k->go);
}

/* The next line that begins so. */
static void child_says(child *k, const char *what, char *line, size_t size)
{
    while (fgets(line, (int)size, k->out))
        if (strncmp(line, what, strlen(what)) == 0) return;
    fail_msg("the member ended without saying '%s'", what);
}

static void test_killed_member_is_replaced_at_once(void **state)
{
    (void)state;
    test_daemon d;
    tally t;
    member m;
    char line[128];
    daemon_make(&d);
    daemon_start(&d);
    make_topic(d.url, "work", 2);
    produce(d.url, "work", 2, 5);
    child k = child_start(d.url, 300000);
    child_says(&k, "read 0", line, sizeof line);
    tally_init(&t);
    member_open(&m, 0, test_bus(d.url), group_options("g"), "work", &t);
    poll_until_shared(&m, 1, (int[]){1});
    kill(k.pid, SIGKILL);
    int64_t begin = now_ms();
    poll_until_shared(&m, 1, (int[]){2});
    assert_true(now_ms() - begin < 2000); /* not a session time-out; how long it is bench/groups.c says */
    poll_for(&m, 1, 20);
    child_end(&k);
    member_close(&m);
    check_committed(d.url, "g", "work", 2, 5);
    tally_fini(&t);
    daemon_remove(&d);
}

static void test_stopped_member_is_fenced_and_its_commit_and_its_poll_say_so(void **state)
{
    (void)state;
    test_daemon d;
    member m;
    char line[128];
    daemon_make(&d);
    daemon_start(&d);
    make_topic(d.url, "work", 2);
    produce(d.url, "work", 2, 2000);
    child k = child_start(d.url, 500);
    child_says(&k, "read", line, sizeof line);
    bw_consumer_options o = group_options("g");
    o.max_poll_interval_ms = 500;
    member_open(&m, 0, test_bus(d.url), o, "work", NULL);
    poll_until_shared(&m, 1, (int[]){1});
    assert_int_equal(write(k.go, "s", 1), 1);
    int status;
    assert_int_equal(waitpid(k.pid, &status, WUNTRACED), k.pid);
    assert_true(WIFSTOPPED(status));
    poll_until_shared(&m, 1, (int[]){2}); /* its lease is over */
    kill(k.pid, SIGCONT);
    child_says(&k, "commit", line, sizeof line);
    if (!strstr(line, "FENCED_MEMBER_EPOCH") && !strstr(line, "UNKNOWN_MEMBER_ID")) fail_msg("%s", line);
    char *next = fgets(line, sizeof line, k.out); /* nothing is read before it is told */
    assert_non_null(next);
    if (!strstr(line, "error FENCED_MEMBER_EPOCH") && !strstr(line, "error UNKNOWN_MEMBER_ID")) fail_msg("%s", line);
    poll_until_shared(&m, 1, (int[]){1}); /* it joins anew */
    child_end(&k);
    member_close(&m);
    daemon_remove(&d);
}

static void test_pattern_takes_topics_that_come_later(void **state)
{
    (void)state;
    test_daemon d;
    member m;
    daemon_make(&d);
    daemon_start(&d);
    make_topic(d.url, "in.a", 2);
    make_topic(d.url, "other", 2);
    member_open(&m, 0, test_bus(d.url), group_options("g"), "^in\\.[a-z]+", NULL);
    poll_until_shared(&m, 1, (int[]){2});
    make_topic(d.url, "in.b", 3);
    make_topic(d.url, "in.9", 3);
    poll_until_shared(&m, 1, (int[]){5});
    bw_bus *bus = test_bus(d.url);
    assert_ok(bw_topic_delete(bus, "in.a"));
    bw_bus_close(bus);
    poll_until_shared(&m, 1, (int[]){3});
    member_close(&m);
    daemon_remove(&d);
}

/* As an event loop does: sleep on the descriptor alone, then take all there is. How often it woke up. */
static int loop_for(member *m, int ms, int wanted_parts)
{
    int fd = bw_consumer_fd(m->c), wakes = 0;
    assert_true(fd >= 0);
    int64_t until = now_ms() + ms;
    while (now_ms() < until && m->parts != wanted_parts) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, (int)(until - now_ms())) == 1) wakes++;
        bw_err e;
        do e = member_poll(m, 0);
        while (e == BW_OK);
        if (e != BW_ERR_TIMED_OUT) assert_ok(e);
    }
    return wakes;
}

static void test_member_in_an_event_loop_is_woken_by_assignments_and_records(void **state)
{
    (void)state;
    test_daemon d;
    tally t;
    member m;
    char line[128];
    daemon_make(&d);
    daemon_start(&d);
    make_topic(d.url, "work", 2);
    tally_init(&t);
    member_open(&m, 0, test_bus(d.url), group_options("g"), "work", &t);
    loop_for(&m, 10000, 2);
    assert_int_equal(m.parts, 2);
    child k = child_start(d.url, 300000);
    loop_for(&m, 10000, 1);
    assert_int_equal(m.parts, 1);
    loop_for(&m, 200, -1);
    produce(d.url, "work", 2, 50);
    child_says(&k, "read", line, sizeof line);
    loop_for(&m, 300, -1);
    assert_int_equal(t.unique, 50);
    kill(k.pid, SIGKILL);
    loop_for(&m, 10000, 2);
    assert_int_equal(m.parts, 2);
    assert_in_range(loop_for(&m, 1000, -1), 0, 60); /* nothing to do: commits by interval have nothing either */
    child_end(&k);
    member_close(&m);
    tally_fini(&t);
    daemon_remove(&d);
}

static void test_static_member_finds_its_partitions_again(void **state)
{
    (void)state;
    test_daemon d;
    member m[2];
    daemon_make(&d);
    daemon_start(&d);
    make_topic(d.url, "work", 4);
    bw_consumer_options o = group_options("g");
    o.group_instance_id = "left";
    member_open(&m[0], 0, test_bus(d.url), o, "work", NULL);
    poll_until_shared(m, 1, (int[]){4});
    member_open(&m[1], 1, test_bus(d.url), group_options("g"), "work", NULL);
    poll_until_shared(m, 2, (int[]){2, 2});
    bw_topic_partition *parts, *later;
    size_t count, later_count;
    assert_ok(bw_consumer_assignment(m[0].c, &parts, &count));
    member_close(&m[0]);
    poll_for(&m[1], 1, 300);
    assert_int_equal(m[1].parts, 2); /* nobody takes them meanwhile */
    member_open(&m[0], 0, test_bus(d.url), o, "work", NULL);
    poll_until_shared(m, 2, (int[]){2, 2});
    assert_ok(bw_consumer_assignment(m[0].c, &later, &later_count));
    assert_int_equal(later_count, count);
    for (size_t i = 0; i < count; i++) assert_int_equal(parts[i].partition, later[i].partition);
    bw_free(parts);
    bw_free(later);
    assert_string_equal(m[1].events + strlen(m[1].events) - 2, "+2");
    member twin; /* who takes the instance id fences the one that has it */
    member_open(&twin, 2, test_bus(d.url), o, "work", NULL);
    int64_t until = now_ms() + 10000;
    bw_err e = BW_OK;
    while ((e == BW_OK || e == BW_ERR_TIMED_OUT) && now_ms() < until) {
        member_poll(&twin, 1);
        e = member_poll(&m[0], 1);
    }
    assert_int_equal(e, BW_ERR_FENCED_INSTANCE_ID);
    member_close(&twin);
    member_close(&m[0]);
    member_close(&m[1]);
    daemon_remove(&d);
}

/* ---- the daemon is killed again and again ---- */

typedef struct storm { tally tally; const char *url; _Atomic int stop, joined; _Atomic int64_t sent; _Atomic int back; } storm;
typedef struct storm_member { storm *storm; int number; bw_transport transport; } storm_member;

static void *storm_consume(void *opaque)
{
    storm_member *sm = opaque;
    storm *s = sm->storm;
    member m;
    bw_consumer_options o = group_options("storm");
    o.auto_commit_interval_ms = 20;
    member_open(&m, sm->number, test_bus_by(s->url, sm->transport), o, "work", &s->tally);
    while (s->stop < 2) {
        bw_err e = member_poll(&m, 20);
        if (e != BW_OK && e != BW_ERR_TIMED_OUT && e != BW_ERR_NOT_CONNECTED)
            print_error("member %d: %s: %s\n", sm->number, bw_err_name(e), bw_error_message());
    }
    member_close(&m);
    return NULL;
}

static void *storm_produce(void *opaque)
{
    storm *s = opaque;
    bw_bus *bus = test_bus(s->url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int i = 0; !s->stop && i < RECORDS_MAX; i++) {
        bw_record r = test_record(NULL, "x");
        if (bw_producer_send_sync(p, "work", i % PARTITIONS, &r, 20000, NULL) == BW_OK) s->sent++;
        if (i % 50 == 0) usleep(2000);
    }
    bw_producer_close(p, 20000);
    bw_bus_close(bus);
    return NULL;
}

/* What is committed never goes back. */
static void *storm_watch(void *opaque)
{
    storm *s = opaque;
    bw_bus *bus = test_bus(s->url);
    bw_consumer_options o = group_options("storm");
    bw_consumer *c;
    int64_t best[PARTITIONS] = {0};
    assert_ok(bw_consumer_open(bus, &o, &c));
    while (s->stop < 2) {
        bw_topic_partition parts[PARTITIONS];
        for (int i = 0; i < PARTITIONS; i++) parts[i] = (bw_topic_partition){.topic = "work", .partition = i};
        if (bw_consumer_committed(c, parts, PARTITIONS, 5000) != BW_OK) continue;
        for (int i = 0; i < PARTITIONS; i++) {
            if (parts[i].error || parts[i].offset < 0) continue;
            if (parts[i].offset < best[i]) {
                print_error("partition %d: committed %lld after %lld\n", i, (long long)parts[i].offset, (long long)best[i]);
                s->back++;
            }
            best[i] = parts[i].offset;
        }
        usleep(1000);
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
    return NULL;
}

static void test_daemon_killed_under_load_loses_nothing_and_no_partition_has_two_owners(void **state)
{
    (void)state;
    test_daemon d;
    daemon_make(&d);
    daemon_start(&d);
    make_topic(d.url, "work", PARTITIONS);
    storm s = {.url = d.url};
    tally_init(&s.tally);
    pthread_t threads[6];
    storm_member members[4];
    for (int i = 0; i < 4; i++) {
        members[i] = (storm_member){&s, i, test_is_direct() == (i != 3) ? BW_TRANSPORT_DIRECT : BW_TRANSPORT_IPC}; /* one the other way */
        pthread_create(&threads[i], NULL, storm_consume, &members[i]);
    }
    pthread_create(&threads[4], NULL, storm_produce, &s);
    pthread_create(&threads[5], NULL, storm_watch, &s);
    usleep(300000);
    for (int i = 0; i < 20; i++) {
        daemon_stop(&d, SIGKILL);
        usleep((useconds_t)(rand() % 30000));
        daemon_start(&d);
        usleep((useconds_t)(20000 + rand() % 100000));
    }
    s.stop = 1;
    pthread_join(threads[4], NULL);
    int64_t until = now_ms() + 20000;
    while (now_ms() < until) {
        pthread_mutex_lock(&s.tally.lock);
        bool all = s.tally.unique >= s.sent;
        pthread_mutex_unlock(&s.tally.lock);
        if (all) break;
        usleep(1000);
    }
    s.stop = 2;
    for (int i = 0; i < 6; i++)
        if (i != 4) pthread_join(threads[i], NULL);
    print_message("%lld records, %lld of them again, %d lost partitions\n", (long long)s.sent, (long long)s.tally.again, s.tally.lost);
    assert_true(s.tally.unique >= s.sent);
    assert_int_equal(s.tally.overlaps, 0);
    assert_int_equal(s.back, 0);
    assert_true(s.sent > 1000);
    tally_fini(&s.tally);
    daemon_remove(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_members_share_and_records_are_read_once_while_they_come_and_go),
        cmocka_unit_test(test_killed_member_is_replaced_at_once),
        cmocka_unit_test(test_stopped_member_is_fenced_and_its_commit_and_its_poll_say_so),
        cmocka_unit_test(test_pattern_takes_topics_that_come_later),
        cmocka_unit_test(test_member_in_an_event_loop_is_woken_by_assignments_and_records),
        cmocka_unit_test(test_static_member_finds_its_partitions_again),
        cmocka_unit_test(test_daemon_killed_under_load_loses_nothing_and_no_partition_has_two_owners),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
