/* tests/crash/lane.c: a lane's processes: start, kill, stop, and what their ends mean. See lane.h. */
#include "crash/lane.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READER_BACK = 200 };

static const char *const styles[WRITERS] = {"batch", "reserve", "async", "batch", "ipc", "durable"};
static const bool style_direct[WRITERS] = {true, true, true, true, false, false};

static int role_of(int slot) { return slot == DAEMON ? 0 : slot < FIRST_READER ? 1 : slot < ADMIN ? 2 : 3; }

void lane_command(lane *d, const char *format, const char *what)
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

void lane_empty_folder(const char *path)
{
    char command[200];
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir -m 700 '%s'", path, path);
    if (system(command) != 0) abort();
}

/* ---- starting ---- */

void lane_start_daemon(lane *d, const char *point, const char *fault, const char *const *extra)
{
    char listen[160];
    snprintf(listen, sizeof listen, "ipc://%s", d->socket);
    const char *argv[16] = {d->buswayd, "--data-dir", d->dirs.data, "--runtime-dir", d->dirs.runtime, "--listen", listen, "--ready-fd", "3"};
    for (size_t i = 9; extra && *extra && i < 15; i++) argv[i] = *extra++;
    child *c = &d->slots[DAEMON];
    c->is_daemon = true;
    snprintf(c->fault, sizeof c->fault, "%s", fault ? fault : "");
    child_start(c, &d->dirs, "daemon", point, argv);
}

/* Most live for some tens of milliseconds from their first word on, some longer; a few are killed while they come up. */
static void give_life(lane *d, int slot, bool with_point)
{
    static const struct { uint32_t least, span; } lives[4] = {{5, 60}, {50, 350}, {20, 150}, {100, 600}};
    child *c = &d->slots[slot];
    int role = role_of(slot);
    c->life_ms = lives[role].least + crash_below(&d->random, lives[role].span);
    if (with_point) c->life_ms = d->slow * (role ? 150 : crash_below(&d->random, 6) ? 500 : 2500); /* by then it should have met its point */
    else if (crash_below(&d->random, 8) == 0) c->life_ms += 300 + crash_below(&d->random, 700);
    else if (crash_below(&d->random, 10) == 0) c->kill_at_ms = crash_now_ms() + 1 + crash_below(&d->random, 12);
}

void lane_start_slot(lane *d, int slot, bool with_point)
{
    char number[16], seed[24], name[32], start[48], point[72] = "";
    child *c = &d->slots[slot];
    snprintf(seed, sizeof seed, "%u", crash_below(&d->random, 1u << 30));
    if (slot == DAEMON) {
        if (with_point) points_choose(&d->random, POINT_DAEMON, point, sizeof point);
        static const char *const few_files[] = {"--set", "log.open.segments.max=2", NULL}; /* partitions rest and wake all the while */
        lane_start_daemon(d, point, NULL, crash_below(&d->random, 3) == 0 ? few_files : NULL);
    } else if (slot < FIRST_READER) {
        int w = slot - FIRST_WRITER;
        if (with_point && style_direct[w])
            points_choose(&d->random, strcmp(styles[w], "reserve") == 0 ? POINT_RESERVE : POINT_WRITER, point, sizeof point);
        snprintf(number, sizeof number, "%u", d->next_producer++);
        snprintf(name, sizeof name, "writer-%d-%s", w, styles[w]);
        const char *argv[] = {d->self, "writer", d->url[style_direct[w]], styles[w], number, seed, NULL};
        child_start(c, &d->dirs, name, point, argv);
    } else if (slot < ADMIN) { /* from the beginning, or from what is known to be there */
        int r = slot - FIRST_READER;
        int64_t from[CRASH_PARTITIONS] = {0};
        for (int p = 0; crash_below(&d->random, 8) && p < CRASH_PARTITIONS; p++) {
            from[p] = oracle_end(d->oracle, p) - crash_below(&d->random, READER_BACK);
            if (from[p] < 0) from[p] = 0;
        }
        snprintf(start, sizeof start, "%lld,%lld", (long long)from[0], (long long)from[1]);
        snprintf(name, sizeof name, "reader-%s-%s", r & 1 ? "ipc" : "direct", r & 2 ? "durable" : "visible");
        const char *argv[] = {d->self, "reader", d->url[!(r & 1)], r & 2 ? "durable" : "visible", start, "0", NULL};
        child_start(c, &d->dirs, name, NULL, argv);
    } else {
        snprintf(number, sizeof number, "%u", d->next_topic);
        d->next_topic += 40;
        const char *argv[] = {d->self, "admin", d->url[0], seed, number, NULL};
        child_start(c, &d->dirs, "admin", NULL, argv);
    }
    give_life(d, slot, point[0] != 0);
}

/* ---- ends ---- */

void lane_account(lane *d, int slot, int status, bool expected)
{
    child *c = &d->slots[slot];
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
        d->r.kills++;
        d->r.kills_of[role_of(slot)]++;
        if (!c->killed) {
            d->r.at_points++;
            if (!c->point[0]) oracle_violation(d->oracle, "%s was killed, and not by this suite", c->log);
        }
    } else if (!(expected && WIFEXITED(status) && WEXITSTATUS(status) == 0)) {
        oracle_violation(d->oracle, "%s ended by itself: %s %d; its last words:", c->log, WIFSIGNALED(status) ? "signal" : "exit code",
                         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        child_show_log(c, 12);
    }
}

void lane_drain(lane *d)
{
    for (int i = 0; i < SLOTS; i++) child_drain(&d->slots[i], d->oracle);
}

bool lane_await_daemon(lane *d)
{
    child *c = &d->slots[DAEMON];
    int64_t until = crash_now_ms() + REST_MS * (int64_t)d->slow;
    for (;;) {
        int status;
        struct pollfd p = {c->pipe_fd, POLLIN, 0};
        if (!c->pid) return false;
        (void)poll(&p, 1, 20);
        lane_drain(d);
        if (c->heard) return true;
        if (child_reap(c, d->oracle, false, &status)) {
            lane_account(d, DAEMON, status, false);
            return false;
        }
        if (crash_now_ms() > until) {
            oracle_violation(d->oracle, "the daemon does not come up within %d s; its last words:", REST_MS / 1000);
            child_show_log(c, 8);
            lane_kill_and_reap(d, DAEMON);
            return false;
        }
    }
}

void lane_kill_and_reap(lane *d, int slot)
{
    int status;
    if (!d->slots[slot].pid) return;
    child_kill(&d->slots[slot], SIGKILL);
    if (child_reap(&d->slots[slot], d->oracle, true, &status)) lane_account(d, slot, status, false);
}

void lane_stop_and_reap(lane *d, int slot)
{
    child *c = &d->slots[slot];
    int status;
    int64_t until = crash_now_ms() + REST_MS * (int64_t)d->slow;
    if (!c->pid) return;
    kill(c->pid, SIGTERM);
    while (!child_reap(c, d->oracle, false, &status)) {
        lane_drain(d);
        if (crash_now_ms() > until) {
            oracle_violation(d->oracle, "%s does not stop within %d s; its last words:", c->log, REST_MS / 1000);
            child_show_log(c, 8);
            lane_kill_and_reap(d, slot);
            return;
        }
        usleep(500);
    }
    lane_account(d, slot, status, true);
}

void lane_read_everything(lane *d, bool direct, const char *when)
{
    child c = {.pipe_fd = -1};
    int status;
    int64_t until = crash_now_ms() + REST_MS * (int64_t)d->slow;
    const char *argv[] = {d->self, "reader", d->url[direct], "visible", "0,0", "1", NULL};
    oracle_begin_complete(d->oracle);
    child_start(&c, &d->dirs, "reader-complete", NULL, argv);
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
