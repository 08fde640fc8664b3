/* tests/crash/drive.c: the parent. Rounds; each has a fresh data folder, a daemon, five writers, four readers and an administrator.
 *
 * A round kills until its share is reached: at random moments, or by starting a process with a kill point. Now and then everything
 * is killed at once and the runtime folder is removed (as after a reboot: recovery from the files), or the writers are killed and
 * the daemon is stopped cleanly. At the end all is brought to rest, and the whole log is read again on both paths, once more after
 * a recovery, and verified offline.
 *
 * Environment: CRASH_KILLS, CRASH_SEED, CRASH_ROUND_KILLS, CRASH_POINTS (names), CRASH_DIR (kept when something failed). */
#include "crash/points.h"
#include "crash/proc.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WRITERS = 5, READERS = 4, SLOTS = 2 + WRITERS + READERS, STUCK_MS = 20000, REST_MS = 90000, ROUND_MS = 120000 };
enum { DAEMON = 0, FIRST_WRITER = 1, FIRST_READER = FIRST_WRITER + WRITERS, ADMIN = FIRST_READER + READERS };

static const char *const styles[WRITERS] = {"batch", "reserve", "async", "ipc", "durable"};
static const bool style_direct[WRITERS] = {true, true, true, false, false};

typedef struct drive {
    run_dirs dirs;
    char self[256], busway[256], buswayd[256], socket[96], url[2][160]; /* url[direct] */
    oracle *oracle;
    crash_random random;
    child slots[SLOTS];
    uint32_t next_producer, next_topic;
    uint64_t kills, kills_of[4], at_points, cold, clean; /* of: daemon, writers, readers, administrator */
    oracle_counts total;
} drive;

static int role_of(int slot) { return slot == DAEMON ? 0 : slot < FIRST_READER ? 1 : slot < ADMIN ? 2 : 3; }

static void run_command(drive *d, const char *format, const char *what)
{
    char command[512];
    snprintf(command, sizeof command, format, d->busway, d->url[0], d->dirs.data, d->dirs.root);
    fflush(stdout);
    int status = system(command);
    if (status != 0) {
        char show[200];
        oracle_violation(d->oracle, "%s: exit status %d", what, status);
        snprintf(show, sizeof show, "tail -20 %s/command.log | sed 's/^/    > /'", d->dirs.root);
        (void)!system(show);
    }
}

/* ---- starting ---- */

static void start_daemon(drive *d, point_class cls, bool with_point)
{
    char listen[160], point[72] = "";
    snprintf(listen, sizeof listen, "ipc://%s", d->socket);
    if (with_point) points_choose(&d->random, cls, point, sizeof point);
    const char *argv[] = {d->buswayd, "--data-dir", d->dirs.data, "--runtime-dir", d->dirs.runtime, "--listen", listen, NULL};
    child_start(&d->slots[DAEMON], &d->dirs, "daemon", point, false, argv);
}

/* Until it answers, or the time is up: what comes next says what is wrong then. */
static void await_daemon(drive *d)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, d->socket, sizeof d->socket);
    for (int64_t until = crash_now_ms() + STUCK_MS; crash_now_ms() < until; usleep(5000)) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool answers = fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
        if (fd >= 0) close(fd);
        if (answers) return;
    }
}

static void start_slot(drive *d, int slot, bool with_point)
{
    char number[16], seed[24], name[24], start[16] = "0", point[72] = "";
    child *c = &d->slots[slot];
    if (slot == DAEMON) {
        start_daemon(d, POINT_DAEMON, with_point);
        return;
    }
    snprintf(seed, sizeof seed, "%u", crash_below(&d->random, 1u << 30));
    if (slot < FIRST_READER) {
        int w = slot - FIRST_WRITER;
        if (with_point && style_direct[w])
            points_choose(&d->random, strcmp(styles[w], "reserve") == 0 ? POINT_RESERVE : POINT_WRITER, point, sizeof point);
        snprintf(number, sizeof number, "%u", d->next_producer++);
        snprintf(name, sizeof name, "writer-%s", styles[w]);
        const char *argv[] = {d->self, "writer", d->url[style_direct[w]], styles[w], number, seed, NULL};
        child_start(c, &d->dirs, name, point, true, argv);
    } else if (slot < ADMIN) {
        int r = slot - FIRST_READER;
        snprintf(name, sizeof name, "reader-%s-%s", r & 1 ? "ipc" : "direct", r & 2 ? "durable" : "visible");
        const char *argv[] = {d->self, "reader", d->url[!(r & 1)], r & 2 ? "durable" : "visible", start, "0", NULL};
        child_start(c, &d->dirs, name, NULL, true, argv);
    } else {
        snprintf(number, sizeof number, "%u", d->next_topic);
        d->next_topic += 40;
        const char *argv[] = {d->self, "admin", d->url[0], seed, number, NULL};
        child_start(c, &d->dirs, "admin", NULL, true, argv);
    }
}

static bool points_for(drive *d, int slot)
{
    return crash_below(&d->random, 10) < (slot == DAEMON ? 8 : 9);
}

static void start_all(drive *d)
{
    for (int i = 0; i < SLOTS; i++)
        if (!d->slots[i].pid) start_slot(d, i, points_for(d, i));
}

/* ---- ends ---- */

static void account(drive *d, int slot, int status, bool expected)
{
    child *c = &d->slots[slot];
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
        d->kills++;
        d->kills_of[role_of(slot)]++;
        if (!c->killed) {
            d->at_points++;
            points_killed(c->point);
            if (!c->point[0]) oracle_violation(d->oracle, "%s was killed, and not by this suite", c->log);
        }
    } else if (!(expected && WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
        oracle_violation(d->oracle, "%s ended by itself: %s %d; its last words:", c->log, WIFSIGNALED(status) ? "signal" : "exit code",
                         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        child_show_log(c, 12);
    }
}

static void reap_and_restart(drive *d)
{
    for (int i = 0; i < SLOTS; i++) {
        int status;
        if (!child_reap(&d->slots[i], d->oracle, false, &status)) continue;
        account(d, i, status, false);
        start_slot(d, i, points_for(d, i));
    }
}

static void kill_and_reap(drive *d, int slot)
{
    int status;
    if (!d->slots[slot].pid) return;
    child_kill(&d->slots[slot], SIGKILL);
    if (child_reap(&d->slots[slot], d->oracle, true, &status)) account(d, slot, status, false);
}

/* SIGTERM, and wait for a clean end. */
static void stop_and_reap(drive *d, int slot)
{
    child *c = &d->slots[slot];
    int status;
    int64_t until = crash_now_ms() + REST_MS;
    if (!c->pid) return;
    kill(c->pid, SIGTERM);
    while (!child_reap(c, d->oracle, false, &status)) {
        for (int i = 0; i < SLOTS; i++) child_drain(&d->slots[i], d->oracle);
        if (crash_now_ms() > until) {
            oracle_violation(d->oracle, "%s does not stop within %d s; its last words:", c->log, REST_MS / 1000);
            child_show_log(c, 8);
            kill_and_reap(d, slot);
            return;
        }
        usleep(1000);
    }
    account(d, slot, status, true);
}

static void empty_folder(const char *path)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir -m 700 '%s'", path, path);
    if (system(command) != 0) abort();
}

/* ---- what is done to them ---- */

static void cold_restart(drive *d)
{
    d->cold++;
    for (int i = 0; i < SLOTS; i++) kill_and_reap(d, i);
    empty_folder(d->dirs.runtime);
    for (int i = 0; i < 3; i++) { /* recovery is killed too, and what it left recovered again */
        start_daemon(d, POINT_COLD, true);
        int64_t until = crash_now_ms() + 300;
        int status;
        while (crash_now_ms() < until && !child_reap(&d->slots[DAEMON], d->oracle, false, &status)) usleep(1000);
        if (d->slots[DAEMON].pid) break;
        account(d, DAEMON, status, false);
    }
    start_all(d);
}

static void clean_restart(drive *d)
{
    int status;
    d->clean++;
    bool without_writers = crash_below(&d->random, 2) == 0;
    kill_and_reap(d, DAEMON);
    for (int i = FIRST_WRITER; without_writers && i < FIRST_READER; i++) kill_and_reap(d, i);
    start_daemon(d, POINT_STOP, crash_below(&d->random, 4) > 0);
    usleep(150000);
    child *c = &d->slots[DAEMON];
    if (c->pid) kill(c->pid, SIGTERM);
    int64_t until = crash_now_ms() + STUCK_MS;
    while (!child_reap(c, d->oracle, false, &status)) {
        for (int i = 0; i < SLOTS; i++) child_drain(&d->slots[i], d->oracle);
        if (crash_now_ms() > until) {
            oracle_violation(d->oracle, "the daemon does not stop within %d s", STUCK_MS / 1000);
            child_show_log(c, 8);
            child_kill(c, SIGKILL);
            until = INT64_MAX;
        }
        usleep(1000);
    }
    account(d, DAEMON, status, true);
    start_all(d);
}

static void strike(drive *d)
{
    uint32_t dice = crash_below(&d->random, 100);
    int slot = DAEMON;
    if (dice < 50) slot = FIRST_WRITER + (int)crash_below(&d->random, WRITERS);
    else if (dice < 68) slot = FIRST_READER + (int)crash_below(&d->random, READERS);
    else if (dice < 72) slot = ADMIN;
    else if (dice >= 94) {
        if (dice < 98) cold_restart(d);
        else clean_restart(d);
        return;
    }
    if (crash_now_ms() - d->slots[slot].started_ms < 30) return; /* it has hardly begun */
    child_kill(&d->slots[slot], SIGKILL);
}

static void wait_for_messages(drive *d, int timeout_ms)
{
    struct pollfd p[SLOTS];
    nfds_t n = 0;
    for (int i = 0; i < SLOTS; i++)
        if (d->slots[i].pipe_fd >= 0) p[n++] = (struct pollfd){d->slots[i].pipe_fd, POLLIN, 0};
    (void)poll(p, n, timeout_ms);
    for (int i = 0; i < SLOTS; i++) child_drain(&d->slots[i], d->oracle);
}

static void storm(drive *d, uint64_t kills)
{
    int64_t now = crash_now_ms(), next = now + 300, begun = now, progress_ms = now;
    uint64_t acked = 0, target = d->kills + kills;
    while (d->kills < target) {
        wait_for_messages(d, 5);
        reap_and_restart(d);
        now = crash_now_ms();
        oracle_counts c;
        oracle_count(d->oracle, &c);
        if (c.acked != acked) {
            acked = c.acked;
            progress_ms = now;
        } else if (now - progress_ms > STUCK_MS) {
            oracle_violation(d->oracle, "nothing was acknowledged for %d s", STUCK_MS / 1000);
            for (int i = 0; i < FIRST_READER; i++) child_show_log(&d->slots[i], 4);
            return;
        }
        if (c.violations > 20 || now - begun > ROUND_MS) return;
        if (now < next) continue;
        strike(d);
        next = crash_now_ms() + 40 + crash_below(&d->random, 400);
    }
}

/* ---- the end of a round ---- */

static void read_everything(drive *d, bool direct, const char *when)
{
    child c = {.pipe_fd = -1};
    int status;
    int64_t until = crash_now_ms() + REST_MS;
    const char *argv[] = {d->self, "reader", d->url[direct], "visible", "0", "1", NULL};
    oracle_begin_complete(d->oracle);
    child_start(&c, &d->dirs, "reader-complete", NULL, true, argv);
    while (!child_reap(&c, d->oracle, false, &status)) {
        struct pollfd p = {c.pipe_fd, POLLIN, 0};
        (void)poll(&p, 1, 20);
        child_drain(&c, d->oracle);
        if (crash_now_ms() > until && !c.killed) child_kill(&c, SIGKILL);
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !c.done) {
        oracle_violation(d->oracle, "the complete reading %s (%s) did not end", when, direct ? "direct" : "ipc");
        child_show_log(&c, 10);
    }
    oracle_complete(d->oracle, c.end);
}

static void list_topics(drive *d)
{
    child c = {.pipe_fd = -1};
    int status;
    const char *argv[] = {d->self, "topics", d->url[0], NULL};
    child_start(&c, &d->dirs, "topics", NULL, true, argv);
    child_reap(&c, d->oracle, true, &status);
    if (c.done) oracle_check_topics(d->oracle);
    else oracle_violation(d->oracle, "the topics could not be listed");
}

static void rest(drive *d)
{
    kill_and_reap(d, DAEMON);
    start_daemon(d, POINT_DAEMON, false);
    await_daemon(d);
    for (int i = FIRST_WRITER; i < SLOTS; i++) stop_and_reap(d, i);
    read_everything(d, true, "at rest");
    read_everything(d, false, "at rest");
    list_topics(d);
    stop_and_reap(d, DAEMON);
    run_command(d, "'%1$s' verify '%3$s' >'%4$s/command.log' 2>&1", "busway verify after a clean stop");
    empty_folder(d->dirs.runtime);
    start_daemon(d, POINT_DAEMON, false);
    await_daemon(d);
    read_everything(d, crash_below(&d->random, 2), "after recovery");
    list_topics(d);
    stop_and_reap(d, DAEMON);
    run_command(d, "'%1$s' verify '%3$s' >'%4$s/command.log' 2>&1", "busway verify after recovery");
}

static bool run_round(drive *d, int number, uint64_t kills)
{
    int64_t begun = crash_now_ms();
    uint64_t before = d->kills;
    snprintf(d->dirs.data, sizeof d->dirs.data, "%s/data-%d", d->dirs.root, number);
    mkdir(d->dirs.data, 0700);
    empty_folder(d->dirs.runtime);
    d->oracle = oracle_new();
    d->next_producer = 1;
    d->next_topic = 1;
    start_daemon(d, POINT_DAEMON, false);
    await_daemon(d);
    run_command(d, "'%1$s' -b '%2$s' topic create " CRASH_TOPIC " --partitions 2 -c segment.bytes=65536 >'%4$s/command.log' 2>&1",
                "creating the topic");
    start_all(d);
    storm(d, kills);
    rest(d);
    oracle_counts c;
    oracle_count(d->oracle, &c);
    printf("%s round %d: %llu kills; %llu records tried, %llu acknowledged, %llu refused, %llu in the log, %llu read; %llu topics made, "
           "%llu deleted; %.1f s\n",
           c.violations ? "FAIL" : "ok  ", number, (unsigned long long)(d->kills - before), (unsigned long long)c.tried,
           (unsigned long long)c.acked, (unsigned long long)c.refused, (unsigned long long)c.in_log, (unsigned long long)c.reads,
           (unsigned long long)c.topics_made, (unsigned long long)c.topics_deleted, (double)(crash_now_ms() - begun) / 1000);
    fflush(stdout);
    d->total.acked += c.acked;
    d->total.reads += c.reads;
    oracle_free(d->oracle);
    if (!c.violations) {
        char command[160];
        snprintf(command, sizeof command, "rm -rf '%s'", d->dirs.data);
        (void)!system(command);
    }
    return c.violations == 0;
}

static uint64_t number_of(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

int crash_drive(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    static drive d;
    const char *dir = getenv("CRASH_DIR"), *busway = getenv("BUSWAY"), *buswayd = getenv("BUSWAYD"), *points = getenv("CRASH_POINTS");
    ssize_t n = readlink("/proc/self/exe", d.self, sizeof d.self - 1);
    if (!dir || !busway || !buswayd || !points || n <= 0) return 2;
    uint64_t kills = number_of("CRASH_KILLS", 300), seed = number_of("CRASH_SEED", 1), share = number_of("CRASH_ROUND_KILLS", 60);
    snprintf(d.busway, sizeof d.busway, "%s", busway);
    snprintf(d.buswayd, sizeof d.buswayd, "%s", buswayd);
    snprintf(d.dirs.root, sizeof d.dirs.root, "%s", dir);
    snprintf(d.dirs.runtime, sizeof d.dirs.runtime, "/dev/shm/bwc.%d", (int)getpid());
    snprintf(d.socket, sizeof d.socket, "%s/bus.sock", d.dirs.runtime);
    snprintf(d.url[0], sizeof d.url[0], "ipc://%s?transport=ipc", d.socket);
    snprintf(d.url[1], sizeof d.url[1], "ipc://%s?transport=direct", d.socket);
    for (int i = 0; i < SLOTS; i++) d.slots[i].pipe_fd = -1;
    crash_seed(&d.random, seed);
    points_load(points);
    signal(SIGPIPE, SIG_IGN);
    int passed = 0, failed = 0;
    for (int round = 1; d.kills < kills && failed < 3; round++) {
        uint64_t left = kills - d.kills;
        if (run_round(&d, round, left < share ? left : share)) passed++;
        else failed++;
    }
    char path[100];
    snprintf(path, sizeof path, "%s/points", d.dirs.root);
    printf("seed %llu: %llu kills (daemon %llu, writers %llu, readers %llu, administrator %llu), %llu of them at kill points; "
           "%llu recoveries from the files, %llu clean stops; %llu records acknowledged, %llu read\n",
           (unsigned long long)seed, (unsigned long long)d.kills, (unsigned long long)d.kills_of[0], (unsigned long long)d.kills_of[1],
           (unsigned long long)d.kills_of[2], (unsigned long long)d.kills_of[3], (unsigned long long)d.at_points,
           (unsigned long long)d.cold, (unsigned long long)d.clean, (unsigned long long)d.total.acked, (unsigned long long)d.total.reads);
    if (points_show(path) == 0) {
        printf("FAIL no kill point was met: is this a build with kill points?\n");
        failed++;
    }
    empty_folder(d.dirs.runtime);
    rmdir(d.dirs.runtime);
    printf("%d passed, %d failed\n", passed, failed);
    return failed ? 1 : 0;
}
