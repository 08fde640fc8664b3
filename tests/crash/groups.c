/* tests/crash/groups.c: the storm of groups: crash groups. Members of one group, in processes of their own, and the daemon are killed with
 * SIGKILL, at random moments and at kill points, and started again; now and then a member ends in peace. A thread produces on the direct
 * path, whatever happens to the others; another looks at what is committed.
 *
 * Everybody writes what he does into one shared mapping, so that what a killed process did last is known. What must hold:
 *   - each record that was acknowledged is processed;
 *   - it is processed again only after the member that processed it was killed, or the daemon was meanwhile;
 *   - no committed offset goes back;
 *   - no partition has two owners at one time: a member owns it from the moment that it was told ASSIGNED until REVOKED has returned, or
 *     until the last thing that it did with it;
 *   - in the end everything is committed. */
#include "crash/crash.h"

#include <busway/busway.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    MEMBERS = 4, PARTS = 6, RECORDS = 300000, LIVES = 40000, SPANS = 200000, TWICE = 2000000, SHARED_FD = 5,
    MEMBER_LIFE_MS = 110, DAEMON_LIFE_MS = 160, SETTLE_MS = 30000, PEACE = 8 /* one of so many members ends by SIGTERM */
};
#define TOPIC "work"
#define GROUP "storm"

typedef struct span { _Atomic int64_t from, last, to; uint32_t life; int32_t part; } span; /* ns; to 0: it did not end by itself */
typedef struct twice { int64_t before, now, offset; int32_t part; uint32_t by, again; } twice; /* a record that was processed again */
typedef struct seen { _Atomic int64_t at; _Atomic uint32_t life, count; } seen;

typedef struct shared {
    _Atomic uint32_t spans, lives, bad;
    _Atomic int64_t sent[PARTS], processed, again;
    _Atomic bool killed[LIVES];  /* a member's life ended by SIGKILL */
    _Atomic int64_t last[LIVES]; /* when it did something last, ns */
    _Atomic uint32_t daemon_kills;
    _Atomic int64_t daemon_killed_at[LIVES];
    span span[SPANS];
    twice twice[TWICE];
    seen seen[PARTS][RECORDS];
} shared;

static int64_t mono_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static shared *map_shared(int fd)
{
    void *p = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED) return p;
    perror("mmap");
    exit(2);
}

static void violation(shared *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "VIOLATION: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    s->bad++;
}

/* ---- a member ---- */

typedef struct member { shared *s; uint32_t life; span *span[PARTS]; } member;

static void rebalanced(bw_consumer *c, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)c;
    member *m = opaque;
    for (size_t i = 0; i < count; i++) {
        int32_t part = parts[i].partition;
        if (getenv("GROUPS_TRACE"))
            fprintf(stderr, "%lld life %u %c %d@%lld\n", (long long)mono_ns() / 1000, m->life, "+-!"[event], part, (long long)parts[i].offset);
        if (event == BW_REBALANCE_ASSIGNED) {
            uint32_t n = atomic_fetch_add(&m->s->spans, 1);
            if (n >= SPANS) _exit(4);
            m->span[part] = &m->s->span[n];
            m->span[part]->life = m->life;
            m->span[part]->part = part;
            m->span[part]->last = mono_ns();
            m->span[part]->from = m->span[part]->last;
        } else if (m->span[part]) {
            m->span[part]->to = event == BW_REBALANCE_REVOKED ? mono_ns() : (int64_t)m->span[part]->last;
            m->span[part] = NULL;
        }
    }
}

static void process(member *m, int32_t part, int64_t offset)
{
    seen *r = &m->s->seen[part][offset];
    int64_t now = mono_ns(), before = r->at;
    uint32_t by = r->life;
    m->s->last[m->life] = now;
    r->life = m->life;
    r->at = now;
    if (r->count++ == 0) {
        m->s->processed++;
    } else {
        uint32_t n = m->s->again++;
        if (n >= TWICE) _exit(4);
        m->s->twice[n] = (twice){before, now, offset, part, by, m->life}; /* judged in the end, when it is known who was killed */
    }
}

static void say(void *opaque, bw_log_level level, const char *message)
{
    if (level <= BW_LOG_WARN) fprintf(stderr, "%lld %s: %s\n", (long long)mono_ns() / 1000, (const char *)opaque, message);
}

static bw_bus *open_bus(const char *url, bw_transport transport)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    static char who[32];
    snprintf(who, sizeof who, "pid %d", (int)getpid());
    o.transport = transport;
    o.log = say;
    o.log_opaque = who;
    while (bw_bus_open(url, &o, &bus) != BW_OK && !crash_stopping()) usleep(1000);
    return bus;
}

int crash_group_member(int argc, char **argv)
{
    if (argc < 2) return 2;
    member m = {.s = map_shared(SHARED_FD), .life = (uint32_t)atoi(argv[1])};
    bw_bus *bus = open_bus(argv[0], m.life % 3 == 2 ? BW_TRANSPORT_IPC : BW_TRANSPORT_DIRECT);
    if (!bus) return 0;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = GROUP;
    o.auto_offset_reset = BW_RESET_EARLIEST;
    o.auto_commit_interval_ms = 5 + (int)(m.life % 40);
    o.on_rebalance = rebalanced;
    o.rebalance_opaque = &m;
    bw_consumer *c;
    const char *topic = TOPIC;
    if (bw_consumer_open(bus, &o, &c) || bw_consumer_subscribe(c, &topic, 1)) return 3;
    while (!crash_stopping()) {
        bw_batch b;
        bw_record_view v;
        bw_err e = bw_consumer_poll(c, 20, &b);
        if (e == BW_OK) {
            m.span[b.partition]->last = mono_ns();
            while (bw_batch_next(&b, &v) == 1) process(&m, b.partition, v.offset);
            m.span[b.partition]->last = mono_ns();
            if (m.life % 5 == 1) bw_consumer_commit_async(c, NULL, 0, NULL, NULL);
        } else if (e != BW_ERR_TIMED_OUT && e != BW_ERR_NOT_CONNECTED) {
            fprintf(stderr, "life %u: %s: %s\n", m.life, bw_err_name(e), bw_error_message());
        }
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
    return 0;
}

/* ---- the driver's threads ---- */

typedef struct storm {
    shared *s;
    char url[160], dir[128];
    const char *daemon;
    int fd;
    bool calm;        /* no kill points any more */
    _Atomic int stop; /* 1: producing; 2: looking at commits */
    _Atomic int64_t committed[PARTS];
} storm;

static void *produce(void *opaque)
{
    storm *st = opaque;
    bw_bus *bus = open_bus(st->url, BW_TRANSPORT_DIRECT);
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    bw_producer *p = NULL;
    if (!bus || bw_producer_open(bus, &o, &p)) violation(st->s, "no producer: %s", bw_error_message());
    bw_record r = {.value = "v", .value_len = 1, .timestamp_ms = BW_NO_TIMESTAMP};
    for (uint32_t i = 0; p && st->stop == 0; i++) {
        bw_delivery d;
        int part = (int)(i % PARTS);
        if (bw_producer_send_sync(p, TOPIC, part, &r, 10000, &d) == BW_OK && d.offset < RECORDS) st->s->sent[part] = d.offset + 1;
        if (i % 8 == 0) usleep(500);
        if (d.offset >= RECORDS - PARTS) break;
    }
    if (p) bw_producer_close(p, 10000);
    bw_bus_close(bus);
    return NULL;
}

static void *watch_commits(void *opaque)
{
    storm *st = opaque;
    bw_bus *bus = open_bus(st->url, BW_TRANSPORT_IPC);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *c = NULL;
    int64_t best[PARTS] = {0};
    o.group_id = GROUP;
    if (!bus || bw_consumer_open(bus, &o, &c)) violation(st->s, "no consumer: %s", bw_error_message());
    while (c && st->stop < 2) {
        bw_topic_partition parts[PARTS];
        for (int i = 0; i < PARTS; i++) parts[i] = (bw_topic_partition){.topic = TOPIC, .partition = i};
        if (bw_consumer_committed(c, parts, PARTS, 2000) != BW_OK) continue;
        for (int i = 0; i < PARTS; i++) {
            if (parts[i].error || parts[i].offset < 0) continue;
            if (parts[i].offset < best[i])
                violation(st->s, "partition %d: committed %lld after %lld", i, (long long)parts[i].offset, (long long)best[i]);
            st->committed[i] = best[i] = parts[i].offset;
        }
        usleep(2000);
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
    return NULL;
}

/* ---- processes ---- */

typedef struct proc { pid_t pid; uint32_t life; int64_t kill_at; bool peaceful; int ready; } proc;

static void launch(storm *st, proc *p, char *const argv[], const char *point, int ready_end)
{
    char log[180];
    snprintf(log, sizeof log, "%s.log", st->dir);
    p->pid = fork();
    if (p->pid != 0) return;
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    if (ready_end >= 0) fcntl(ready_end, F_SETFD, 0);
    else if (st->fd == SHARED_FD) fcntl(SHARED_FD, F_SETFD, 0);
    if (point && *point) setenv("BUSWAY_KILL", point, 1);
    else unsetenv("BUSWAY_KILL");
    execv(argv[0], argv);
    _exit(127);
}

/* "name:n" for one process of three. */
static const char *choose_point(const storm *st, const char *const *names, size_t count, char *out, size_t size)
{
    if (st->calm || rand() % 3) return "";
    snprintf(out, size, "%s:%d", names[(size_t)rand() % count], 1 + rand() % 6);
    return out;
}

static void start_member(storm *st, proc *p)
{
    static const char *const points[] = {"member.joining", "member.joined", "member.revoked", "member.settled", "member.released",
                                         "member.taken", "member.committing"};
    char point[64], life[16], self[256];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    p->life = atomic_fetch_add(&st->s->lives, 1);
    p->peaceful = rand() % PEACE == 0;
    snprintf(life, sizeof life, "%u", p->life);
    char *argv[] = {self, (char *)(uintptr_t)"group-member", st->url, life, NULL};
    launch(st, p, argv, p->peaceful ? "" : choose_point(st, points, sizeof points / sizeof *points, point, sizeof point), -1);
    p->kill_at = mono_ns() + (20 + rand() % MEMBER_LIFE_MS) * INT64_C(1000000);
}

static void start_daemon(storm *st, proc *p, bool may_die)
{
    static const char *const points[] = {"group.push", "group.saved", "group.saving", "commit.answered", "commit.applied", "meta.committed",
                                         "bringup.opened"};
    char point[64], number[16], word[8] = "";
    for (;;) {
        int ready[2];
        if (pipe2(ready, O_CLOEXEC) < 0) exit(2);
        snprintf(number, sizeof number, "%d", ready[1]);
        char *argv[] = {(char *)(uintptr_t)st->daemon, (char *)(uintptr_t)"--data-dir", st->dir, (char *)(uintptr_t)"--ready-fd", number, NULL};
        launch(st, p, argv, may_die ? choose_point(st, points, sizeof points / sizeof *points, point, sizeof point) : "", ready[1]);
        close(ready[1]);
        bool up = read(ready[0], word, 5) == 5 && memcmp(word, "READY", 5) == 0;
        close(ready[0]);
        if (up) break;
        waitpid(p->pid, NULL, 0); /* a kill point on its way up */
        uint32_t k = st->s->daemon_kills;
        st->s->daemon_killed_at[k] = mono_ns();
        st->s->daemon_kills = k + 1;
        may_die = false;
    }
    p->kill_at = mono_ns() + (20 + rand() % DAEMON_LIFE_MS) * INT64_C(1000000);
}

static void note_daemon_death(shared *s)
{
    uint32_t k = s->daemon_kills;
    s->daemon_killed_at[k] = mono_ns();
    s->daemon_kills = k + 1;
}

/* What has ended by itself (a kill point), or is to be ended now. true: it was killed. */
static bool end_member(storm *st, proc *p, int64_t now)
{
    int status;
    bool due = now >= p->kill_at;
    if (!due && waitpid(p->pid, &status, WNOHANG) == 0) return false;
    bool killed = !p->peaceful;
    if (killed) st->s->killed[p->life] = true; /* before it is, so that whoever takes over knows */
    if (due) {
        kill(p->pid, p->peaceful ? SIGTERM : SIGKILL);
        if (p->peaceful) { /* it takes its time, and may need the daemon */
            p->kill_at = INT64_MAX;
            return false;
        }
        waitpid(p->pid, &status, 0);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) != 0) violation(st->s, "life %u ended with %d", p->life, WEXITSTATUS(status));
    start_member(st, p);
    return killed;
}

static bool end_daemon(storm *st, proc *p, int64_t now)
{
    if (now < p->kill_at && waitpid(p->pid, NULL, WNOHANG) == 0) return false;
    note_daemon_death(st->s);
    if (now >= p->kill_at) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, NULL, 0);
    }
    note_daemon_death(st->s);
    start_daemon(st, p, true);
    return true;
}

/* ---- the oracle ---- */

static int by_begin(const void *a, const void *b)
{
    const span *x = *(span *const *)a, *y = *(span *const *)b;
    if (x->part != y->part) return x->part - y->part;
    return x->from < y->from ? -1 : x->from > y->from;
}

static void check_spans(shared *s)
{
    uint32_t n = 0;
    span **list = malloc((s->spans + 1) * sizeof *list);
    for (uint32_t i = 0; i < s->spans; i++)
        if (s->span[i].from) list[n++] = &s->span[i]; /* else it was killed before it had begun */
    qsort(list, n, sizeof *list, by_begin);
    for (uint32_t i = 1; i < n; i++) {
        const span *a = list[i - 1], *b = list[i];
        int64_t end = a->to ? a->to : a->last;
        if (a->part == b->part && end > b->from)
            violation(s, "partition %d: life %u had it until %lld us after life %u got it", a->part, a->life,
                      (long long)(end - b->from) / 1000, b->life);
    }
    free(list);
}

static bool daemon_died_between(shared *s, int64_t from, int64_t to)
{
    for (uint32_t i = s->daemon_kills; i-- > 0;) {
        int64_t at = s->daemon_killed_at[i];
        if (at >= from && at <= to) return true;
    }
    return false;
}

/* Again only after a kill: of who had processed it, before it was done again; or of the daemon in between. */
static void check_twice(shared *s)
{
    for (int64_t i = 0; i < s->again; i++) {
        const twice *t = &s->twice[i];
        if (!t->before || !t->now) continue; /* killed while it wrote this */
        if ((s->killed[t->by] && s->last[t->by] <= t->now) || daemon_died_between(s, t->before, t->now)) continue;
        violation(s, "record %d/%lld was processed by life %u and %lld us later by %u (at %lld); neither it nor the daemon was killed", t->part,
                  (long long)t->offset, t->by, (long long)(t->now - t->before) / 1000, t->again, (long long)t->now / 1000);
        if (s->bad > 20) return;
    }
}

static void check_committed(storm *st)
{
    bw_bus *bus = open_bus(st->url, BW_TRANSPORT_IPC);
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *c;
    o.group_id = GROUP;
    if (bw_consumer_open(bus, &o, &c)) exit(2);
    for (int i = 0; i < PARTS; i++) {
        bw_topic_partition p = {.topic = TOPIC, .partition = i};
        bw_err e = bw_consumer_committed(c, &p, 1, 5000);
        if (e || p.offset != st->s->sent[i])
            violation(st->s, "partition %d: in the end %lld is committed, %lld were sent", i, (long long)p.offset, (long long)st->s->sent[i]);
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
}

static int64_t missing(shared *s)
{
    int64_t n = 0;
    for (int i = 0; i < PARTS; i++)
        for (int64_t o = 0; o < s->sent[i]; o++) n += s->seen[i][o].count == 0;
    return n;
}

static bool all_committed(const storm *st)
{
    for (int i = 0; i < PARTS; i++)
        if (st->committed[i] != st->s->sent[i]) return false;
    return true;
}

/* Nobody is at a kill point any more. */
static void calm(storm *st, proc *members, proc *daemon)
{
    st->calm = true;
    kill(daemon->pid, SIGKILL);
    waitpid(daemon->pid, NULL, 0);
    note_daemon_death(st->s);
    for (int i = 0; i < MEMBERS; i++) {
        st->s->killed[members[i].life] = true;
        kill(members[i].pid, SIGKILL);
        waitpid(members[i].pid, NULL, 0);
    }
    start_daemon(st, daemon, false);
    for (int i = 0; i < MEMBERS; i++) start_member(st, &members[i]);
}

static void settle(storm *st, proc *members)
{
    int64_t until = mono_ns() + SETTLE_MS * INT64_C(1000000);
    while (!all_committed(st) && mono_ns() < until) usleep(5000);
    if (missing(st->s)) violation(st->s, "%lld records were never processed", (long long)missing(st->s));
    for (int i = 0; i < MEMBERS; i++) kill(members[i].pid, SIGTERM);
    for (int i = 0; i < MEMBERS; i++) waitpid(members[i].pid, NULL, 0);
}

static void make_storm(storm *st)
{
    const char *dir = getenv("GROUPS_DIR");
    st->daemon = getenv("BUSWAYD");
    if (!dir || !st->daemon) exit(2);
    snprintf(st->dir, sizeof st->dir, "%s/data", dir);
    snprintf(st->url, sizeof st->url, "ipc://%s/run/bus.sock", st->dir);
    int fd = memfd_create("groups", 0);
    if (fd < 0 || ftruncate(fd, sizeof(shared)) < 0 || dup2(fd, SHARED_FD) < 0) exit(2);
    if (fd != SHARED_FD) close(fd);
    fcntl(SHARED_FD, F_SETFD, FD_CLOEXEC);
    st->fd = SHARED_FD;
    st->s = map_shared(SHARED_FD);
}

/* crash groups KILLS SEED */
int crash_groups(int argc, char **argv)
{
    int kills = argc > 0 ? atoi(argv[0]) : 500, done = 0, of_daemon = 0;
    srand(argc > 1 ? (unsigned)atoi(argv[1]) : 1);
    storm st = {.stop = 0};
    proc members[MEMBERS] = {0}, daemon = {0};
    pthread_t threads[2];
    make_storm(&st);
    start_daemon(&st, &daemon, false);
    bw_bus *bus = open_bus(st.url, BW_TRANSPORT_AUTO);
    if (bw_topic_create(bus, TOPIC, PARTS, NULL, 0)) exit(2);
    bw_bus_close(bus);
    pthread_create(&threads[0], NULL, produce, &st);
    pthread_create(&threads[1], NULL, watch_commits, &st);
    for (int i = 0; i < MEMBERS; i++) start_member(&st, &members[i]);
    int64_t begin = mono_ns();
    while (done < kills && !st.s->bad) {
        usleep(2000);
        for (int i = 0; i < MEMBERS; i++) done += end_member(&st, &members[i], mono_ns());
        bool one = end_daemon(&st, &daemon, mono_ns());
        done += one;
        of_daemon += one;
    }
    double seconds = (double)(mono_ns() - begin) / 1e9;
    st.stop = 1;
    pthread_join(threads[0], NULL);
    calm(&st, members, &daemon);
    settle(&st, members);
    st.stop = 2;
    pthread_join(threads[1], NULL);
    check_committed(&st);
    check_spans(st.s);
    check_twice(st.s);
    kill(daemon.pid, SIGTERM);
    waitpid(daemon.pid, NULL, 0);
    int64_t sent = 0;
    for (int i = 0; i < PARTS; i++) sent += st.s->sent[i];
    printf("%d kills in %.1f s, %d of them of the daemon; %u lives, %u spans of ownership, %lld records, %lld of them again; %u violations\n",
           done, seconds, of_daemon, (unsigned)st.s->lives, (unsigned)st.s->spans, (long long)sent, (long long)st.s->again, (unsigned)st.s->bad);
    printf("%d passed, %u failed\n", st.s->bad ? 0 : done, (unsigned)st.s->bad);
    return st.s->bad != 0;
}
