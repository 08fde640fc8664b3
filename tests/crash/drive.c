/* tests/crash/drive.c: the parent: hands out rounds to lanes (storm.c, damage.c) until enough was killed, and keeps the account.
 *
 * A round is a fresh bus; its number and the seed decide what is done to it. After each the account goes to the progress file, and a
 * run that finds one of the same programs and seed goes on from there.
 *
 * Environment: CRASH_KILLS, CRASH_SECONDS (no other round after them; 0: as many as it takes), CRASH_SEED, CRASH_ROUND_KILLS (400),
 * CRASH_LANES (processors + 1), CRASH_POINTS (names), CRASH_DIR (kept when something failed), CRASH_PROGRESS (a file; none: nothing is
 * kept), CRASH_BUILD (identifies the programs), CRASH_ROUND (only this round), CRASH_SLOW (1: so many times as long does everything take here).
 * After FULL_RUN kills or more, a declared kill point that was never reached is a failure; after LONG_RUN or more, one at which nothing
 * was killed. */
#include "crash/lane.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LANES_MAX = 16, FULL_RUN = 3000, LONG_RUN = 30000, FAILURES_MOST = 3 };

typedef struct account {
    uint64_t kills, kills_of[4], at_points, cold, clean, damaged, acked, reads, rounds, failed, seconds;
} account;

static struct {
    uint64_t kills, seed, share, seconds;
    const char *dir, *progress, *build;
    uint32_t next_round;
    account sum;
    int64_t begun_ms;
    uint64_t seconds_before;
    lane lane; /* a lane's process fills in its own */
    struct { pid_t pid; int fd; uint64_t kills; } lanes[LANES_MAX];
} t;

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* ---- the progress file ---- */

static void save_progress(void)
{
    char temporary[512];
    if (!t.progress) return;
    snprintf(temporary, sizeof temporary, "%s.tmp", t.progress);
    FILE *f = fopen(temporary, "w");
    if (!f) return;
    const account *a = &t.sum;
    fprintf(f, "crash %llu %s\n", (unsigned long long)t.seed, t.build);
    fprintf(f, "account %u %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu\n", t.next_round, (unsigned long long)a->kills,
            (unsigned long long)a->kills_of[0], (unsigned long long)a->kills_of[1], (unsigned long long)a->kills_of[2],
            (unsigned long long)a->kills_of[3], (unsigned long long)a->at_points, (unsigned long long)a->cold, (unsigned long long)a->clean,
            (unsigned long long)a->damaged, (unsigned long long)a->acked, (unsigned long long)a->reads, (unsigned long long)a->rounds,
            (unsigned long long)a->failed, (unsigned long long)a->seconds);
    points_save(f);
    if (fclose(f) == 0) (void)rename(temporary, t.progress);
}

static void load_progress(void)
{
    char line[512], want[256];
    FILE *f = t.progress ? fopen(t.progress, "r") : NULL;
    if (!f) return;
    snprintf(want, sizeof want, "crash %llu %s\n", (unsigned long long)t.seed, t.build);
    if (!fgets(line, sizeof line, f) || strcmp(line, want) != 0) {
        printf("%s is of another seed or of other programs: from the beginning\n", t.progress);
        fclose(f);
        return;
    }
    unsigned long long v[14];
    while (fgets(line, sizeof line, f)) {
        points_restore(line);
        if (sscanf(line, "account %u %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu %llu", &t.next_round, v, v + 1, v + 2,
                   v + 3, v + 4, v + 5, v + 6, v + 7, v + 8, v + 9, v + 10, v + 11, v + 12, v + 13) == 15)
            t.sum = (account){.kills = v[0], .kills_of = {v[1], v[2], v[3], v[4]}, .at_points = v[5], .cold = v[6], .clean = v[7],
                              .damaged = v[8], .acked = v[9], .reads = v[10], .rounds = v[11], .failed = v[12], .seconds = v[13]};
    }
    fclose(f);
    if (t.sum.kills >= t.kills && !t.sum.failed) { /* it was finished: this is another run */
        memset(&t.sum, 0, sizeof t.sum);
        t.next_round = 1;
    } else if (t.sum.kills) {
        printf("going on after %llu kills in %llu rounds\n", (unsigned long long)t.sum.kills, (unsigned long long)t.sum.rounds);
    }
    t.sum.failed = 0; /* what was found before is for its own run to say */
    t.seconds_before = t.sum.seconds;
}

/* ---- a lane's process ---- */

static void make_places(lane *d, uint32_t number)
{
    /* Most rounds' data lie in memory, so that the disk's pace is not the suite's; each fourth round's are on the disk. */
    bool on_disk = number % 4 == 2 || number % 16 == 11;
    snprintf(d->dirs.root, sizeof d->dirs.root, "%s/round-%u", t.dir, number);
    const char *name = strrchr(t.dir, '/');
    snprintf(d->dirs.runtime, sizeof d->dirs.runtime, "/dev/shm/%.40s.%u", name ? name + 1 : t.dir, number);
    if (on_disk) snprintf(d->dirs.data, sizeof d->dirs.data, "%s/data", d->dirs.root);
    else snprintf(d->dirs.data, sizeof d->dirs.data, "%s.data", d->dirs.runtime);
    snprintf(d->socket, sizeof d->socket, "%s/bus.sock", d->dirs.runtime);
    snprintf(d->url[0], sizeof d->url[0], "ipc://%s?transport=ipc", d->socket);
    snprintf(d->url[1], sizeof d->url[1], "ipc://%s?transport=direct", d->socket);
    d->dirs.files_most = (unsigned)number_of("CRASH_FILES", 0);
    lane_empty_folder(d->dirs.root);
    lane_empty_folder(d->dirs.runtime);
    lane_empty_folder(d->dirs.data);
}

static void clear_places(const lane *d, bool keep)
{
    char command[512];
    if (keep) snprintf(command, sizeof command, "cp -a '%s' '%s/data' 2>/dev/null; rm -rf '%s' '%s.data'", d->dirs.data, d->dirs.root,
                       d->dirs.runtime, d->dirs.runtime);
    else snprintf(command, sizeof command, "rm -rf '%s' '%s' '%s'", d->dirs.root, d->dirs.runtime, d->dirs.data);
    (void)!system(command);
}

static void say(const round_result *r)
{
    if (r->damage)
        printf("%s round %u: %llu kills in recoveries of %llu damaged folders and in failing syncs; %.1f s\n", r->violations ? "FAIL" : "ok  ",
               r->number, (unsigned long long)r->kills, (unsigned long long)r->damaged, (double)r->took_ms / 1000);
    else
        printf("%s round %u: %llu kills; %llu records tried, %llu acknowledged, %llu refused, %llu in the log, %llu read; %llu topics made, "
               "%llu deleted; %.1f s\n",
               r->violations ? "FAIL" : "ok  ", r->number, (unsigned long long)r->kills, (unsigned long long)r->tried,
               (unsigned long long)r->acked, (unsigned long long)r->refused, (unsigned long long)r->in_log, (unsigned long long)r->reads,
               (unsigned long long)r->topics_made, (unsigned long long)r->topics_deleted, (double)r->took_ms / 1000);
    fflush(stdout);
}

static void run_round(uint32_t number, uint64_t kills, int result_fd)
{
    lane *d = &t.lane;
    char passed[100];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int64_t begun = crash_now_ms();
    make_places(d, number);
    crash_seed(&d->random, t.seed * UINT64_C(1000003) + number);
    d->oracle = oracle_new();
    d->next_producer = d->next_topic = 1;
    for (int i = 0; i < SLOTS; i++) d->slots[i].pipe_fd = -1;
    d->r = (round_result){.number = number, .damage = number % 8 == 3};
    if (d->r.damage) damage_round(d, kills);
    else storm_round(d, kills);
    oracle_counts c;
    oracle_count(d->oracle, &c);
    d->r.tried = c.tried;
    d->r.acked = c.acked;
    d->r.refused = c.refused;
    d->r.in_log = c.in_log;
    d->r.reads = c.reads;
    d->r.topics_made = c.topics_made;
    d->r.topics_deleted = c.topics_deleted;
    d->r.violations = c.violations;
    d->r.took_ms = crash_now_ms() - begun;
    snprintf(passed, sizeof passed, "%s/points", d->dirs.root);
    points_passed(passed);
    clear_places(d, c.violations > 0);
    say(&d->r);
    _exit(write(result_fd, &d->r, sizeof d->r) == sizeof d->r ? 0 : 1);
}

/* ---- the account ---- */

static void take(const round_result *r)
{
    account *a = &t.sum;
    a->kills += r->kills;
    for (int i = 0; i < 4; i++) a->kills_of[i] += r->kills_of[i];
    a->at_points += r->at_points;
    a->cold += r->cold;
    a->clean += r->clean;
    a->damaged += r->damaged;
    a->acked += r->acked;
    a->reads += r->reads;
    a->rounds++;
    a->failed += r->violations > 0;
    a->seconds = t.seconds_before + (uint64_t)(crash_now_ms() - t.begun_ms) / 1000;
    save_progress();
}

static void start_lane(int i, uint64_t kills)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) abort();
    fflush(stdout);
    uint32_t number = t.next_round++;
    t.lanes[i].kills = kills;
    t.lanes[i].pid = fork();
    if (t.lanes[i].pid < 0) abort();
    if (t.lanes[i].pid == 0) {
        close(ends[0]);
        run_round(number, kills, ends[1]);
    }
    close(ends[1]);
    t.lanes[i].fd = ends[0];
}

static void end_lane(int i)
{
    round_result r;
    int status;
    ssize_t n = read(t.lanes[i].fd, &r, sizeof r);
    close(t.lanes[i].fd);
    waitpid(t.lanes[i].pid, &status, 0);
    t.lanes[i].pid = 0;
    if (n == sizeof r) {
        take(&r);
    } else {
        printf("FAIL a lane of this suite ended by itself (status %d)\n", status);
        t.sum.failed++;
    }
}

static void run_lanes(int lanes)
{
    int running = 0;
    uint64_t given = t.sum.kills; /* killed, or asked of a lane that runs */
    for (;;) {
        for (int i = 0; i < lanes && t.sum.failed < FAILURES_MOST; i++) {
            if (t.lanes[i].pid || given >= t.kills || (t.seconds && crash_now_ms() - t.begun_ms >= (int64_t)t.seconds * 1000)) continue;
            uint64_t left = t.kills - given, kills = left < t.share ? left : t.share;
            start_lane(i, kills);
            given += kills;
            running++;
        }
        if (!running) return;
        struct pollfd p[LANES_MAX];
        int at[LANES_MAX];
        nfds_t n = 0;
        for (int i = 0; i < lanes; i++)
            if (t.lanes[i].pid) {
                at[n] = i;
                p[n++] = (struct pollfd){t.lanes[i].fd, POLLIN, 0};
            }
        if (poll(p, n, 1000) < 0 && errno != EINTR) abort();
        (void)crash_now_ms();
        for (nfds_t k = 0; k < n; k++) {
            if (!p[k].revents) continue;
            uint64_t before = t.sum.kills;
            end_lane(at[k]);
            given = given - t.lanes[at[k]].kills + (t.sum.kills - before);
            running--;
        }
    }
}

static void show(void)
{
    const account *a = &t.sum;
    printf("seed %llu: %llu kills in %llu s (daemon %llu, writers %llu, readers %llu, administrator %llu), %llu of them at kill points; "
           "%llu recoveries from the files, %llu clean stops, %llu damaged folders; %llu records acknowledged, %llu read\n",
           (unsigned long long)t.seed, (unsigned long long)a->kills, (unsigned long long)a->seconds, (unsigned long long)a->kills_of[0],
           (unsigned long long)a->kills_of[1], (unsigned long long)a->kills_of[2], (unsigned long long)a->kills_of[3],
           (unsigned long long)a->at_points, (unsigned long long)a->cold, (unsigned long long)a->clean, (unsigned long long)a->damaged,
           (unsigned long long)a->acked, (unsigned long long)a->reads);
    int passed, killed, points = points_show(&passed, &killed);
    if (killed == 0) {
        printf("FAIL no kill point was met: is this a build with kill points?\n");
        t.sum.failed++;
    } else if (a->kills >= FULL_RUN && passed < points) {
        printf("FAIL %d declared kill points were never reached\n", points - passed);
        t.sum.failed++;
    } else if (a->kills >= LONG_RUN && killed < points) {
        printf("FAIL at %d declared kill points nothing was killed\n", points - killed);
        t.sum.failed++;
    }
}

int crash_drive(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    lane *d = &t.lane;
    const char *busway = getenv("BUSWAY"), *buswayd = getenv("BUSWAYD"), *points = getenv("CRASH_POINTS");
    ssize_t n = readlink("/proc/self/exe", d->self, sizeof d->self - 1);
    t.dir = getenv("CRASH_DIR");
    t.progress = getenv("CRASH_PROGRESS") && *getenv("CRASH_PROGRESS") ? getenv("CRASH_PROGRESS") : NULL;
    t.build = getenv("CRASH_BUILD") ? getenv("CRASH_BUILD") : "";
    if (!t.dir || !busway || !buswayd || !points || n <= 0) return 2;
    t.kills = number_of("CRASH_KILLS", 300);
    t.seed = number_of("CRASH_SEED", 1);
    t.share = number_of("CRASH_ROUND_KILLS", 400);
    t.seconds = number_of("CRASH_SECONDS", 0);
    d->slow = (uint32_t)number_of("CRASH_SLOW", 1);
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    uint64_t lanes = number_of("CRASH_LANES", (uint64_t)(processors < 4 ? processors + 1 : 4)), only = number_of("CRASH_ROUND", 0);
    snprintf(d->busway, sizeof d->busway, "%s", busway);
    snprintf(d->buswayd, sizeof d->buswayd, "%s", buswayd);
    points_load(points);
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    t.next_round = 1;
    t.begun_ms = crash_now_ms();
    load_progress();
    if (only) {
        t.next_round = (uint32_t)only;
        t.kills = t.share;
        t.progress = NULL;
        t.sum = (account){0};
    }
    run_lanes(lanes < 1 ? 1 : lanes > LANES_MAX ? LANES_MAX : (int)lanes);
    t.sum.rounds = t.sum.rounds ? t.sum.rounds : 1;
    show();
    printf("%llu passed, %llu failed\n", (unsigned long long)(t.sum.rounds > t.sum.failed ? t.sum.rounds - t.sum.failed : 0),
           (unsigned long long)t.sum.failed);
    return t.sum.failed ? 1 : 0;
}
