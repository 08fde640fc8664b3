/* tests/crash/damage.c: a round of damage: recoveries of folders that something happened to, killed on their way and begun again; and
 * syncs that fail, with a kill before anybody is told.
 *
 * A folder is filled, half of it on the disk, and everything is killed. Then, again and again, a copy of it is damaged in one place of
 * one partition and recovered at once: what that gives may lack what was damaged, and nothing else. The same damaged copy is then
 * recovered by daemons that are killed at the kill points of recovery: what the last one gives must be the same, record for record.
 *
 * A sync that fails: writers that wait for the disk are told POISONED, all of them, even when the daemon was killed between the
 * failure and the word; a daemon that takes over keeps the partition poisoned; the other partition goes on; a recovery that reads the
 * medium has every record that was acknowledged. */
#include "crash/lane.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SEGMENTS_MAX = 64, KILLED_RECOVERIES = 3, STARTS = 4, WAITERS = 3, PAGE = 4096, POINT_BEFORE = 65, KILLS_MOST = 90, POINT_WAIT_MS = 150 };
typedef enum damage_kind { PAGE_ABOVE, BYTE_BELOW, SEALED_CUT, STORE_LOST, STORE_BAD, COPY_BAD, DAMAGE_KINDS } damage_kind;
static const char *const kind_names[] = {"a lost page above the recovery point", "a bit below it in its segment",
                                         "a sealed segment that is too short", "a bit in the middle, and no store",
                                         "pages of the store", "a bit in the store's second copy"};

/* What may be missing afterwards. */
typedef struct loss { int partition; int64_t from, to; const char *name; } loss;

typedef struct scene {
    lane *d;
    char base[112], damaged[112];
    oracle *filled;                       /* what fill was told */
    int64_t durable[CRASH_PARTITIONS];
    int64_t segments[CRASH_PARTITIONS][SEGMENTS_MAX];
    int segment_count[CRASH_PARTITIONS];
    loss loss;
    uint64_t missing;
    oracle *seen, *first;                 /* a survey, and the one that it must be like */
} scene;

static const char *const no_flush[] = {"--set", "log.flush.interval.ms=3600000", NULL};

static void shell(const char *format, const char *a, const char *b)
{
    char command[400];
    snprintf(command, sizeof command, format, a, b);
    if (system(command) != 0) abort();
}

static void replace(const char *from, const char *to) { shell("rm -rf '%2$s' && cp -a '%1$s' '%2$s'", from, to); }

/* Runs a child of this suite's own to its end; false: it did not come to it. */
static bool run_role(scene *s, child *c, oracle *o, const char *const argv[])
{
    int status;
    int64_t until = crash_now_ms() + REST_MS;
    c->pipe_fd = -1;
    child_start(c, &s->d->dirs, argv[1], NULL, argv);
    while (!child_reap(c, o, false, &status)) {
        struct pollfd p = {c->pipe_fd, POLLIN, 0};
        (void)poll(&p, 1, 20);
        if (crash_now_ms() > until && !c->killed) child_kill(c, SIGKILL);
    }
    if (!c->done) {
        oracle_violation(s->d->oracle, "%s did not come to its end; its last words:", argv[1]);
        child_show_log(c, 8);
    }
    return c->done;
}

/* What a role's own oracle found counts for the round. */
static void add_violations(scene *s, const oracle *o)
{
    oracle_counts c;
    oracle_count(o, &c);
    if (c.violations) oracle_violation(s->d->oracle, "%llu in that", (unsigned long long)c.violations);
}

static void list_segments(scene *s, int partition)
{
    char path[160];
    snprintf(path, sizeof path, "%s/" CRASH_TOPIC "-%d", s->base, partition);
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);
    s->segment_count[partition] = 0;
    for (int i = 0; i < n; i++) {
        if (strlen(names[i]->d_name) == 24 && strcmp(names[i]->d_name + 20, ".log") == 0 && s->segment_count[partition] < SEGMENTS_MAX)
            s->segments[partition][s->segment_count[partition]++] = atoll(names[i]->d_name);
        free(names[i]);
    }
    if (n >= 0) free(names);
}

static bool make_base(scene *s)
{
    lane *d = s->d;
    child c = {.pipe_fd = -1};
    lane_start_daemon(d, NULL, NULL, no_flush);
    if (!lane_await_daemon(d)) return false;
    lane_command(d, "'%1$s' -b '%2$s' topic create " CRASH_TOPIC " --partitions 2 -c segment.bytes=16384 -c max.message.bytes=8192"
                    " >'%4$s/command.log' 2>&1", "creating the topic");
    const char *argv[] = {d->self, "fill", d->url[1], "1", NULL};
    bool good = run_role(s, &c, s->filled, argv);
    lane_kill_and_reap(d, DAEMON);
    memcpy(s->durable, c.end, sizeof s->durable);
    shell("mv '%s' '%s'", d->dirs.data, s->base);
    for (int p = 0; p < CRASH_PARTITIONS; p++) list_segments(s, p);
    add_violations(s, s->filled);
    return good;
}

/* ---- damage ---- */

static void write_at(const char *path, off_t at, const void *bytes, size_t len)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || pwrite(fd, bytes, len, at) != (ssize_t)len) abort();
    close(fd);
}

static void flip_at(const char *path, off_t at)
{
    uint8_t byte;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || pread(fd, &byte, 1, at) != 1) abort();
    close(fd);
    byte ^= 0x10;
    write_at(path, at, &byte, 1);
}

/* The index of the segment that holds the recovery point. */
static int point_segment(const scene *s, int p)
{
    int i = 0;
    while (i + 1 < s->segment_count[p] && s->segments[p][i + 1] < s->durable[p]) i++;
    return i;
}

/* The metadata, of which there are two copies: nothing may be missing. */
static bool damage_store(scene *s, damage_kind kind)
{
    char command[400];
    s->loss = (loss){-1, 0, 0, kind_names[kind]};
    if (kind == STORE_BAD)
        snprintf(command, sizeof command, "test -f '%1$s/meta/data.mdb' && dd if=/dev/urandom of='%1$s/meta/data.mdb' bs=%2$d count=3 seek=%3$u "
                 "conv=notrunc status=none", s->damaged, PAGE, 2 * crash_below(&s->d->random, 2));
    else
        snprintf(command, sizeof command, "f=$(ls '%s'/meta/snapshot-* | head -1) && printf '\\377\\125\\252' | dd of=\"$f\" bs=1 seek=%u "
                 "conv=notrunc status=none", s->damaged, 20 + crash_below(&s->d->random, 60));
    if (system(command) == 0) return true;
    oracle_violation(s->d->oracle, "%s cannot be damaged", kind_names[kind]);
    return false;
}

static bool do_damage(scene *s, damage_kind kind)
{
    static const uint8_t zeros[PAGE];
    if (kind == STORE_BAD || kind == COPY_BAD) return damage_store(s, kind);
    int p = (int)crash_below(&s->d->random, CRASH_PARTITIONS), n = s->segment_count[p], at = point_segment(s, p);
    int64_t end = INT64_MAX;
    char path[200];
    struct stat st;
    if (n < 5 || at < 2 || at + 2 >= n || s->segments[p][at + 1] == s->durable[p]) {
        oracle_violation(s->d->oracle, "partition %d has %d segments, the point is in number %d: no good scene", p, n, at);
        return false;
    }
    int k = kind == PAGE_ABOVE ? at + 1 + (int)crash_below(&s->d->random, (uint32_t)(n - at - 2)) : kind == BYTE_BELOW ? at
          : (int)crash_below(&s->d->random, (uint32_t)at);
    snprintf(path, sizeof path, "%s/" CRASH_TOPIC "-%d/%020lld.log", s->damaged, p, (long long)s->segments[p][k]);
    if (stat(path, &st) != 0) abort();
    if (kind != PAGE_ABOVE) end = kind == BYTE_BELOW ? s->durable[p] : s->segments[p][k + 1];
    s->loss = (loss){p, s->segments[p][k], end, kind_names[kind]};
    if (kind == PAGE_ABOVE) write_at(path, (off_t)crash_below(&s->d->random, 2) * PAGE, zeros, PAGE);
    else if (kind == SEALED_CUT) shell("truncate -s %2$s '%1$s'", path, crash_below(&s->d->random, 2) ? "5000" : "0");
    else flip_at(path, POINT_BEFORE);
    if (kind == STORE_LOST) shell("rm -rf '%s/meta'%s", s->damaged, "");
    return true;
}

/* ---- judging ---- */

static void check_kept(void *opaque, int partition, int64_t offset, uint32_t producer, uint32_t sequence)
{
    scene *s = opaque;
    uint32_t was, number;
    if (oracle_at(s->seen, partition, offset, &was, &number)) {
        if (was != producer || number != sequence)
            oracle_violation(s->d->oracle, "%s: %d/%lld was acknowledged for %u/%u, it is %u/%u", s->loss.name, partition, (long long)offset,
                             producer, sequence, was, number);
    } else if (partition != s->loss.partition || offset < s->loss.from || offset >= s->loss.to) {
        oracle_violation(s->d->oracle, "%s in %d/[%lld, %lld): %d/%lld is lost too", s->loss.name, s->loss.partition, (long long)s->loss.from,
                         (long long)s->loss.to, partition, (long long)offset);
    }
}

static void count_missing(void *opaque, int partition, int64_t offset, uint32_t producer, uint32_t sequence)
{
    scene *s = opaque;
    s->missing += !oracle_at(s->seen, partition, offset, &producer, &sequence);
}

static void check_same(scene *s, const char *how)
{
    for (int p = 0; p < CRASH_PARTITIONS; p++) {
        int64_t a = oracle_end(s->first, p), b = oracle_end(s->seen, p);
        for (int64_t i = 0; i < (a > b ? a : b); i++) {
            uint32_t x[2] = {0, 0}, y[2] = {0, 0};
            bool here = oracle_at(s->first, p, i, &x[0], &x[1]), there = oracle_at(s->seen, p, i, &y[0], &y[1]);
            if (here == there && x[0] == y[0] && x[1] == y[1]) continue;
            oracle_violation(s->d->oracle, "%s, %s: %d/%lld is %u/%u, recovered at once it was %u/%u (0/0: not there)", s->loss.name, how, p,
                             (long long)i, y[0], y[1], x[0], x[1]);
            return;
        }
    }
}

/* The daemon runs: looks at everything and stops it. */
static void survey(scene *s, bool verify)
{
    child c = {.pipe_fd = -1};
    const char *argv[] = {s->d->self, "survey", s->d->url[1], NULL};
    s->seen = oracle_new();
    if (run_role(s, &c, s->seen, argv)) oracle_each_acked(s->filled, check_kept, s);
    add_violations(s, s->seen);
    lane_stop_and_reap(s->d, DAEMON);
    if (verify) lane_command(s->d, "'%1$s' verify '%3$s' >'%4$s/command.log' 2>&1", "busway verify");
}

/* ---- damaged folders ---- */

/* The daemon gets a moment to come to its kill point; then it is killed anyway. */
static void end_soon(lane *d)
{
    int status;
    for (int64_t until = crash_now_ms() + 20 + crash_below(&d->random, POINT_WAIT_MS); d->slots[DAEMON].pid && crash_now_ms() < until;) {
        usleep(1000);
        if (!child_reap(&d->slots[DAEMON], d->oracle, false, &status)) continue;
        lane_account(d, DAEMON, status, false);
        return;
    }
    lane_kill_and_reap(d, DAEMON);
}

/* The kill points that this damage leads to, most often; else any of a recovery. */
static void choose_point(lane *d, damage_kind kind, char *out, size_t size)
{
    static const char *const leads_to[DAMAGE_KINDS][7] = {
        {"recover.dropped", "recover.segment", "recover.zeroed"},
        {"recover.copied", "recover.salvaged", "recover.quarantined"},
        {"recover.quarantined", "recover.segment"},
        {"recover.quarantined", "recover.spare_kept", "recover.spare_gone"},
        {"meta.rebuild.aside", "meta.rebuild.filled", "meta.rebuild.renamed"},
        {"meta.snapshot.aside", "meta.snapshot.begun", "meta.snapshot.written", "meta.snapshot.synced", "meta.snapshot.renamed",
         "meta.snapshot.dropped"}};
    size_t n = 0;
    while (n < 7 && leads_to[kind][n]) n++;
    if (crash_below(&d->random, 4) == 0) points_choose(&d->random, POINT_DAMAGE, out, size);
    else snprintf(out, size, "%s:%u", leads_to[kind][crash_below(&d->random, (uint32_t)n)], 1 + crash_below(&d->random, 4) / 3);
}

static void recover_damaged(scene *s, damage_kind kind, uint64_t target)
{
    lane *d = s->d;
    char point[72] = "";
    replace(s->base, s->damaged);
    if (!do_damage(s, kind)) return;
    d->r.damaged++;
    for (int i = 0; i <= KILLED_RECOVERIES && (i == 0 || d->r.kills < target); i++) {
        replace(s->damaged, d->dirs.data);
        lane_empty_folder(d->dirs.runtime);
        for (int start = 0; start < STARTS; start++) {
            if (i > 0 && start + 1 < STARTS) choose_point(d, kind, point, sizeof point);
            else point[0] = 0;
            lane_start_daemon(d, point, NULL, no_flush);
            if (lane_await_daemon(d) && !point[0]) break;
            end_soon(d); /* partitions are recovered after it has come up, too */
            lane_empty_folder(d->dirs.runtime);
        }
        if (!d->slots[DAEMON].pid) return; /* said already */
        survey(s, false);
        if (i == 0) {
            s->first = s->seen;
            s->missing = 0;
            oracle_each_acked(s->filled, count_missing, s);
            if (!s->missing && s->loss.partition >= 0) oracle_violation(d->oracle, "%s: nothing is missing: was that damage?", s->loss.name);
            continue;
        }
        check_same(s, "recovered by daemons that were killed");
        oracle_free(s->seen);
    }
    oracle_free(s->first);
    s->first = NULL;
}

/* ---- a sync that fails ---- */

static bool exists(const char *folder, int partition, const char *name)
{
    char path[200];
    struct stat st;
    snprintf(path, sizeof path, "%s/" CRASH_TOPIC "-%d/%s", folder, partition, name);
    return stat(path, &st) == 0;
}

/* Writers that wait for the disk until they are told that it failed. A daemon that is killed meanwhile is started again. Returns the
 * poisoned partitions. */
static int wait_for_poison(scene *s, oracle *o)
{
    lane *d = s->d;
    child waiters[WAITERS];
    char numbers[WAITERS][16];
    int running = WAITERS, mask = 0, status;
    int64_t until = crash_now_ms() + REST_MS;
    for (int i = 0; i < WAITERS; i++) {
        waiters[i] = (child){.pipe_fd = -1};
        snprintf(numbers[i], sizeof numbers[i], "%d", 2 + i);
        const char *argv[] = {d->self, "poison", d->url[i & 1], numbers[i], NULL};
        child_start(&waiters[i], &d->dirs, "poison", NULL, argv);
    }
    while (running) {
        usleep(1000);
        for (int i = 0; i < WAITERS; i++) {
            child *w = &waiters[i];
            if (w->pid && !w->killed && crash_now_ms() > until) child_kill(w, SIGKILL);
            if (!child_reap(w, o, false, &status)) continue;
            running--;
            mask |= w->poisoned;
            if (w->done) continue;
            oracle_violation(d->oracle, "a writer that waits for a sync that fails is never told; its last words:");
            child_show_log(w, 5);
        }
        if (d->slots[DAEMON].pid && child_reap(&d->slots[DAEMON], o, false, &status)) {
            lane_account(d, DAEMON, status, false);
            lane_start_daemon(d, NULL, NULL, NULL);
            (void)lane_await_daemon(d);
        }
    }
    return mask;
}

static void fail_a_sync(scene *s)
{
    lane *d = s->d;
    char fault[40], point[72] = "", mask_text[8];
    child c = {.pipe_fd = -1};
    oracle *o = oracle_new();
    s->loss = (loss){-1, 0, 0, "a sync failed"};
    replace(s->base, d->dirs.data);
    lane_empty_folder(d->dirs.runtime);
    /* Every partition recovered, and killed: a daemon that comes up now takes over, and syncs little by itself. */
    child looker = {.pipe_fd = -1};
    const char *look[] = {d->self, "survey", d->url[1], NULL};
    oracle *before = oracle_new();
    lane_start_daemon(d, NULL, NULL, NULL);
    if (lane_await_daemon(d)) (void)run_role(s, &looker, before, look);
    add_violations(s, before);
    oracle_free(before);
    lane_kill_and_reap(d, DAEMON);
    snprintf(fault, sizeof fault, "fdatasync:%u:5", 4 + crash_below(&d->random, 60));
    if (crash_below(&d->random, 4)) points_choose(&d->random, POINT_SYNC, point, sizeof point);
    lane_start_daemon(d, point, fault, NULL);
    (void)lane_await_daemon(d);
    if (!d->slots[DAEMON].pid) { /* killed while it came up: it is poisoned from the start */
        lane_start_daemon(d, NULL, NULL, NULL);
        (void)lane_await_daemon(d);
    }
    int mask = wait_for_poison(s, o);
    lane_kill_and_reap(d, DAEMON);
    lane_start_daemon(d, NULL, NULL, NULL); /* takes over: poisoned it stays */
    if (mask && lane_await_daemon(d)) {
        snprintf(mask_text, sizeof mask_text, "%d", mask);
        const char *argv[] = {d->self, "poisoned", d->url[0], d->url[1], "20", mask_text, NULL};
        (void)run_role(s, &c, o, argv);
        for (int p = 0; p < CRASH_PARTITIONS; p++)
            if ((mask >> p & 1) && !exists(d->dirs.data, p, "poisoned")) oracle_violation(d->oracle, "the poison of %d is not on the disk", p);
    }
    lane_kill_and_reap(d, DAEMON);
    lane_empty_folder(d->dirs.runtime);
    lane_start_daemon(d, NULL, NULL, NULL);
    if (lane_await_daemon(d)) {
        survey(s, true);
        oracle *filled = s->filled;
        s->filled = o;
        oracle_each_acked(s->filled, check_kept, s);
        s->filled = filled;
        oracle_free(s->seen);
    }
    for (int p = 0; p < CRASH_PARTITIONS; p++)
        if (exists(d->dirs.data, p, "poisoned")) oracle_violation(d->oracle, "%d was checked from the disk and is poisoned still", p);
    add_violations(s, o);
    oracle_free(o);
}

void damage_round(lane *d, uint64_t kills)
{
    scene s = {.d = d, .filled = oracle_new()};
    uint64_t target = d->r.kills + kills;
    snprintf(s.base, sizeof s.base, "%s.base", d->dirs.data);
    snprintf(s.damaged, sizeof s.damaged, "%s.damaged", d->dirs.data);
    bool good = make_base(&s);
    uint32_t first = crash_below(&d->random, DAMAGE_KINDS);
    if (kills > KILLS_MOST) target = d->r.kills + KILLS_MOST; /* each takes longer than one of the storm */
    for (uint32_t i = 0; good && d->r.kills < target; i++) {
        oracle_counts c;
        oracle_count(d->oracle, &c);
        if (c.violations > 5) break;
        if (i % 3 == 2) fail_a_sync(&s);
        recover_damaged(&s, (damage_kind)((first + i) % DAMAGE_KINDS), target);
    }
    shell("rm -rf '%s' '%s'", s.base, s.damaged);
    oracle_free(s.filled);
}
