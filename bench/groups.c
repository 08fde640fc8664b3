/* bench/groups.c: `--case groups`, a run of its own: members of groups.
 *
 *   failover    two members, two partitions that are written all the time; one member is killed (SIGKILL): from the kill until the other
 *               one has a record of its partition
 *   restart     two members, four partitions that are written all the time; the daemon is killed and started again: from when it listens
 *               until a commit of each member was acknowledged as that of a member; and the longest poll meanwhile, which does not wait
 *               for records: so long was reading held up
 *   large       1,000 members and 10,000 partitions in one group, 100 groups of ten beside it: from the first join, and from a member's
 *               leaving or coming, until every member has acknowledged its share; and how many of the others were touched meanwhile
 *   isolation   the same log read to its end with isolation read_committed and read_uncommitted, in turn: the medians' ratio
 * The bounds are the project's. Everything runs in children; the process that reports opens no bus. */
#include "apart.h"

#include <busway/busway.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SAMPLES_MAX 512
#define RESTART_PARTITIONS 4
#define READ_BATCH 100u
#define VALUE 100u

typedef struct shared {
    apart a; /* first */
    _Atomic int victim_part; /* what the victim reads; -1: nothing yet */
    _Atomic uint64_t listens_ns;
    _Atomic bool stop;
} shared;

typedef struct scene {
    shared *s;
    char url[128], data[PATH_MAX], runtime[64];
    const char *program;
    pid_t daemon;
    bool quick;
} scene;

static void add(scene *c, const char *name, double value, const char *unit, double bound, bool at_least)
{
    apart_add(&c->s->a, name, value, unit, bound, at_least);
}

static bool failed(scene *c, const char *what) { return apart_failed(&c->s->a, what); }

static bw_bus *open_bus(scene *c)
{
    bw_bus *bus = NULL;
    if (bw_bus_open(c->url, NULL, &bus)) failed(c, "open");
    return bus;
}

/* ---- roles ---- */

typedef struct member { bw_consumer *c; int parts, events; _Atomic int committed; } member;

static void rebalanced(bw_consumer *consumer, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)consumer;
    (void)parts;
    member *m = opaque;
    m->events++;
    m->parts += event == BW_REBALANCE_ASSIGNED ? (int)count : -(int)count;
}

static bool join(scene *c, bw_bus *bus, member *m, const char *topic)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.group_id = topic;
    o.auto_offset_reset = BW_RESET_LATEST;
    o.auto_commit_interval_ms = 5;
    o.on_rebalance = rebalanced;
    o.rebalance_opaque = m;
    if (bw_consumer_open(bus, &o, &m->c) || bw_consumer_subscribe(m->c, &topic, 1)) return failed(c, "join");
    return true;
}

/* A process that writes a record to each partition five thousand times a second until it is stopped. */
static pid_t start_writer(scene *c, const char *topic, int partitions)
{
    c->s->stop = false;
    pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bw_bus *bus = open_bus(c);
    bw_producer *p = NULL;
    bw_record r = {.value = "v", .value_len = 1, .timestamp_ms = BW_NO_TIMESTAMP};
    if (!bus || bw_producer_open(bus, NULL, &p)) _exit(1);
    while (!c->s->stop) {
        for (int i = 0; i < partitions; i++) bw_producer_send_sync(p, topic, i, &r, 10000, NULL);
        bench_pause(200);
    }
    bw_producer_close(p, 5000);
    bw_bus_close(bus);
    _exit(0);
}

static void stop_writer(scene *c, pid_t pid)
{
    c->s->stop = true;
    waitpid(pid, NULL, 0);
}

static pid_t start_victim(scene *c, const char *topic)
{
    c->s->victim_part = -1;
    pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bw_bus *bus = open_bus(c);
    member m = {0};
    if (!bus || !join(c, bus, &m, topic)) _exit(1);
    for (;;) {
        bw_batch b;
        if (bw_consumer_poll(m.c, 100, &b) == BW_OK && m.parts == 1) c->s->victim_part = b.partition;
    }
}

/* ---- failover ---- */

/* ms until another has a record of what the victim had; < 0: not within ten seconds. */
static double one_failover(scene *c, member *m, const char *topic)
{
    pid_t victim = start_victim(c, topic);
    uint64_t until = bench_now_ns() + UINT64_C(10000000000), killed = 0;
    uint64_t ready = 0;
    double took = -1;
    while (took < 0 && bench_now_ns() < until) {
        bw_batch b;
        bw_err e = bw_consumer_poll(m->c, 10, &b);
        uint64_t now = bench_now_ns();
        if (killed && e == BW_OK && b.partition == c->s->victim_part) took = (double)(now - killed) / 1e6;
        if (!ready && m->parts == 1 && c->s->victim_part >= 0) ready = now;
        if (killed || !ready || now - ready < 30000000) continue; /* it has read for a while */
        killed = bench_now_ns();
        kill(victim, SIGKILL);
    }
    kill(victim, SIGKILL);
    waitpid(victim, NULL, 0);
    return took;
}

static bool failover(scene *c, uint32_t samples)
{
    static double took[SAMPLES_MAX];
    bw_bus *bus = open_bus(c);
    member m = {0};
    if (!bus || bw_topic_create(bus, "failover", 2, NULL, 0)) return failed(c, "create");
    pid_t writer = start_writer(c, "failover", 2);
    if (!join(c, bus, &m, "failover")) return false;
    for (uint32_t i = 0; i < samples; i++)
        if ((took[i] = one_failover(c, &m, "failover")) < 0) return failed(c, "a killed member's partition was read by nobody within 10 s");
    stop_writer(c, writer);
    bw_consumer_close(m.c);
    bw_bus_close(bus);
    qsort(took, samples, sizeof *took, apart_by_value);
    add(c, "member killed, its partition read again: p50", took[samples / 2], "ms", 5, false);
    add(c, "member killed, its partition read again: p99", took[samples * 99 / 100], "ms", 20, false);
    return true;
}

/* ---- restart ---- */

static void start_daemon(scene *c)
{
    c->daemon = fork();
    if (c->daemon != 0) return;
    char log[PATH_MAX + 8];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(log, sizeof log, "%s.log", c->data);
    if (!freopen(log, "a", stderr)) _exit(127);
    execl(c->program, c->program, "--data-dir", c->data, "--runtime-dir", c->runtime, "--listen", c->url, (char *)NULL);
    _exit(127);
}

/* A process that notes when the daemon takes connections. */
static pid_t start_watch(scene *c)
{
    c->s->listens_ns = 0;
    pid_t pid = fork();
    if (pid != 0) return pid;
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", c->url + strlen("ipc://"));
    for (int i = 0; i < 100000; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0) {
            c->s->listens_ns = bench_now_ns();
            _exit(0);
        }
        close(fd);
        bench_pause(100);
    }
    _exit(1);
}

static void committed(bw_consumer *consumer, bw_err e, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)consumer;
    (void)parts;
    (void)count;
    member *m = opaque;
    m->committed = e ? -1 : 1;
}

static bool one_restart(scene *c, member m[2], double *back_ms, double *poll_ms)
{
    uint64_t now = bench_now_ns(), until = now + UINT64_C(20000000000), worst = 0;
    kill(c->daemon, SIGKILL);
    waitpid(c->daemon, NULL, 0);
    pid_t watch = start_watch(c);
    start_daemon(c);
    for (int i = 0; i < 2; i++) {
        m[i].committed = 0;
        if (bw_consumer_commit_async(m[i].c, NULL, 0, committed, &m[i])) return failed(c, "commit");
    }
    while ((m[0].committed != 1 || m[1].committed != 1 || !c->s->listens_ns) && now < until) {
        for (int i = 0; i < 2; i++) {
            bw_batch b;
            uint64_t before = bench_now_ns();
            bw_consumer_poll(m[i].c, 0, &b);
            now = bench_now_ns();
            if (now - before > worst) worst = now - before;
            if (m[i].committed < 0) return failed(c, "a commit over a restart");
        }
    }
    waitpid(watch, NULL, 0);
    if (now >= until) return failed(c, "members did not come back within 20 s");
    *back_ms = now > c->s->listens_ns ? (double)(now - c->s->listens_ns) / 1e6 : 0;
    *poll_ms = (double)worst / 1e6;
    return true;
}

/* The reporter's daemon gives way to one whose end can be waited for here. */
static void own_daemon(scene *c)
{
    kill(c->daemon, SIGKILL);
    bench_pause(200000);
    start_daemon(c);
    waitpid(start_watch(c), NULL, 0);
}

static bool restart(scene *c, uint32_t samples)
{
    static double back[SAMPLES_MAX], longest[SAMPLES_MAX];
    own_daemon(c);
    bw_bus *bus[2] = {open_bus(c), open_bus(c)};
    member m[2] = {0};
    if (!bus[0] || !bus[1] || bw_topic_create(bus[0], "restart", RESTART_PARTITIONS, NULL, 0)) return failed(c, "create");
    pid_t writer = start_writer(c, "restart", RESTART_PARTITIONS);
    if (!join(c, bus[0], &m[0], "restart") || !join(c, bus[1], &m[1], "restart")) return false;
    for (uint32_t i = 0; i < samples; i++) {
        uint64_t begin = bench_now_ns();
        while (m[0].parts != 2 || m[1].parts != 2 || bench_now_ns() - begin < 200000000) {
            bw_batch b;
            for (int k = 0; k < 2; k++) bw_consumer_poll(m[k].c, 1, &b);
            if (bench_now_ns() - begin > UINT64_C(20000000000)) return failed(c, "two members do not share");
        }
        if (!one_restart(c, m, &back[i], &longest[i])) return false;
    }
    stop_writer(c, writer);
    for (int i = 0; i < 2; i++) {
        bw_consumer_close(m[i].c);
        bw_bus_close(bus[i]);
    }
    qsort(back, samples, sizeof *back, apart_by_value);
    qsort(longest, samples, sizeof *longest, apart_by_value);
    add(c, "daemon killed, listens again, members back: p50", back[samples / 2], "ms", -1, false);
    add(c, "daemon killed, listens again, members back: most", back[samples - 1], "ms", 200, false);
    add(c, "longest poll that does not wait, meanwhile: p50", longest[samples / 2], "ms", -1, false);
    add(c, "longest poll that does not wait, meanwhile: most", longest[samples - 1], "ms", -1, false);
    return true;
}

/* ---- large ---- */

enum { LARGE_MEMBERS = 1000, LARGE_PARTITIONS = 10000, SMALL_GROUPS = 100, SMALL_MEMBERS = 10, SMALL_PARTITIONS = 20, SWEEP_MOST_S = 60 };

static bool join_group(scene *c, bw_bus *bus, member *m, const char *group, const char *topic)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    *m = (member){0};
    o.group_id = group;
    o.auto_offset_reset = BW_RESET_LATEST;
    o.enable_auto_commit = false;
    o.on_rebalance = rebalanced;
    o.rebalance_opaque = m;
    if (bw_consumer_open(bus, &o, &m->c) || bw_consumer_subscribe(m->c, &topic, 1)) return failed(c, "join");
    return true;
}

/* Polls all until each of m[0..n) has its share of `partitions` and all together have them all. Seconds; negative: not in time. */
static double settle(scene *c, member *m, int n, int partitions, uint64_t begun)
{
    uint64_t until = begun + UINT64_C(1000000000) * SWEEP_MOST_S;
    for (;;) {
        int sum = 0, least = partitions, most = 0;
        for (int i = 0; i < n; i++) {
            bw_batch b;
            bw_err e = bw_consumer_poll(m[i].c, 0, &b);
            if (e && e != BW_ERR_TIMED_OUT && !bw_err_is_retriable(e)) return failed(c, "a member's poll"), -1;
            sum += m[i].parts;
            if (m[i].parts < least) least = m[i].parts;
            if (m[i].parts > most) most = m[i].parts;
        }
        uint64_t now = bench_now_ns();
        if (sum == partitions && most - least <= 1) return (double)(now - begun) / 1e9;
        if (now > until) return snprintf(c->s->a.error, sizeof c->s->a.error, "%d of %d partitions after %d s", sum, partitions, SWEEP_MOST_S), -1;
    }
}

static bool large(scene *c)
{
    static member big[LARGE_MEMBERS], small[SMALL_GROUPS][SMALL_MEMBERS];
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) { /* the daemon that is started here has it too */
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    own_daemon(c);
    bw_bus *bus = open_bus(c);
    if (!bus || bw_topic_create(bus, "large", LARGE_PARTITIONS, NULL, 0) || bw_topic_create(bus, "small", SMALL_PARTITIONS, NULL, 0))
        return failed(c, "create");
    for (int g = 0; g < SMALL_GROUPS; g++) {
        char name[32];
        snprintf(name, sizeof name, "small-%d", g);
        for (int i = 0; i < SMALL_MEMBERS; i++)
            if (!join_group(c, bus, &small[g][i], name, "small")) return false;
        if (settle(c, small[g], SMALL_MEMBERS, SMALL_PARTITIONS, bench_now_ns()) < 0) return false;
        for (int i = 0; i < SMALL_MEMBERS; i++) small[g][i].events = 0;
    }
    uint64_t begun = bench_now_ns();
    for (int i = 0; i < LARGE_MEMBERS; i++)
        if (!join_group(c, bus, &big[i], "large", "large")) return false;
    double all = settle(c, big, LARGE_MEMBERS, LARGE_PARTITIONS, begun);
    if (all < 0) return false;
    begun = bench_now_ns();
    bw_consumer_close(big[LARGE_MEMBERS - 1].c);
    double leave = settle(c, big, LARGE_MEMBERS - 1, LARGE_PARTITIONS, begun);
    begun = bench_now_ns();
    if (leave < 0 || !join_group(c, bus, &big[LARGE_MEMBERS - 1], "large", "large")) return false;
    double come = settle(c, big, LARGE_MEMBERS, LARGE_PARTITIONS, begun);
    if (come < 0) return false;
    int touched = 0;
    for (int g = 0; g < SMALL_GROUPS; g++) {
        if (settle(c, small[g], SMALL_MEMBERS, SMALL_PARTITIONS, bench_now_ns()) < 0) return false;
        for (int i = 0; i < SMALL_MEMBERS; i++) touched += small[g][i].events > 0;
    }
    add(c, "1,000 members join, 10,000 partitions: balanced", all, "s", -1, false);
    add(c, "one of the 1,000 leaves: balanced again", leave * 1000, "ms", 1000, false);
    add(c, "one comes: balanced again", come * 1000, "ms", 1000, false);
    add(c, "members of 100 groups beside it that were touched", touched, "", 0, false);
    for (int i = 0; i < LARGE_MEMBERS; i++) bw_consumer_close(big[i].c);
    for (int g = 0; g < SMALL_GROUPS; g++)
        for (int i = 0; i < SMALL_MEMBERS; i++) bw_consumer_close(small[g][i].c);
    bw_bus_close(bus);
    return true;
}

/* ---- isolation ---- */

static bool write_log(scene *c, bw_bus *bus, uint32_t records)
{
    static bw_record r[READ_BATCH];
    static char value[VALUE];
    bw_producer *p;
    for (uint32_t i = 0; i < READ_BATCH; i++) r[i] = (bw_record){.value = value, .value_len = VALUE, .timestamp_ms = BW_NO_TIMESTAMP};
    if (bw_topic_create(bus, "isolation", 1, NULL, 0) || bw_producer_open(bus, NULL, &p)) return failed(c, "create");
    for (uint32_t i = 0; i < records; i += READ_BATCH)
        if (bw_producer_send_batch(p, "isolation", 0, r, READ_BATCH, 10000, NULL)) return failed(c, "send");
    return bw_producer_close(p, 10000) == BW_OK || failed(c, "close");
}

static double read_log(scene *c, bw_bus *bus, bw_isolation isolation, uint32_t records)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *consumer;
    o.isolation = isolation;
    if (bw_consumer_open(bus, &o, &consumer) || bw_consumer_assign(consumer, "isolation", 0, 0)) return failed(c, "assign"), -1;
    uint64_t begin = bench_now_ns(), n = 0, sum = 0;
    while (n < records) {
        bw_batch b;
        bw_record_view v;
        if (bw_consumer_poll(consumer, 5000, &b)) return failed(c, "poll"), -1;
        while (bw_batch_next(&b, &v) == 1) {
            sum += v.value[0];
            n++;
        }
    }
    uint64_t end = bench_now_ns();
    bw_consumer_close(consumer);
    return sum == 0 ? (double)n * 1e9 / (double)(end - begin) : -1;
}

static bool isolation(scene *c, uint32_t records, uint32_t rounds)
{
    static double rate[2][SAMPLES_MAX];
    bw_bus *bus = open_bus(c);
    if (!bus || !write_log(c, bus, records)) return false;
    for (uint32_t i = 0; i < rounds + 1; i++)
        for (int k = 0; k < 2; k++)
            if ((rate[k][i ? i - 1 : 0] = read_log(c, bus, k ? BW_READ_COMMITTED : BW_READ_UNCOMMITTED, records)) < 0) return false;
    bw_bus_close(bus);
    for (int k = 0; k < 2; k++) qsort(rate[k], rounds, sizeof **rate, apart_by_value);
    add(c, "read uncommitted", rate[0][rounds / 2] / 1e6, "M/s", -1, true);
    add(c, "read committed beside read uncommitted", rate[1][rounds / 2] / rate[0][rounds / 2], "x", 0.95, true);
    return true;
}

/* ---- all of it ---- */

static bool run_all(scene *c)
{
    bool good = isolation(c, c->quick ? 500000 : 2000000, c->quick ? 5 : 15) && failover(c, c->quick ? 20 : 100) &&
                restart(c, c->quick ? 5 : 20) && large(c);
    kill(c->daemon, SIGTERM);
    waitpid(c->daemon, NULL, 0);
    return good;
}

static bool run(apart *shared_, const bench_daemon *d, const char *program, const char *dir, bool quick)
{
    scene c = {.s = (shared *)shared_, .quick = quick, .program = program, .daemon = d->pid};
    snprintf(c.url, sizeof c.url, "%s", d->url);
    snprintf(c.runtime, sizeof c.runtime, "%s", d->runtime);
    snprintf(c.data, sizeof c.data, "%s/data", dir);
    return run_all(&c);
}

bool bench_groups_run(const char *program, const char *dir, bool quick, FILE *json, bool table)
{
    static const apart_case apart_groups = {"groups", "members of groups", sizeof(shared), run};
    return apart_run(&apart_groups, program, dir, quick, json, table);
}
