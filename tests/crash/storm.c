/* tests/crash/storm.c: a round of the storm: a fresh data folder, a daemon, six writers, four readers and an administrator, each
 * killed some tens of milliseconds after its first word, at a random moment or at a kill point, and started again at once.
 *
 * Now and then everything is killed at once and the runtime folder is removed (as after a reboot: recovery from the files, which is
 * killed too), or writers are killed and the daemon is stopped cleanly. At the end all is brought to rest, and the whole log is read
 * again on both paths, once more after a recovery, and verified offline. */
#include "crash/lane.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STUCK_MS = 20000, ROUND_MS = 120000, UNHEARD_MS = 3000 };

static bool points_for(lane *d) { return crash_below(&d->random, 10) < 8; }

static void start_all(lane *d)
{
    for (int i = 0; i < SLOTS; i++)
        if (!d->slots[i].pid) lane_start_slot(d, i, points_for(d));
}

/* ---- everything at once ---- */

static void cold_restart(lane *d)
{
    d->r.cold++;
    for (int i = 0; i < SLOTS; i++)
        if (d->slots[i].pid) child_kill(&d->slots[i], SIGKILL);
    for (int i = 0; i < SLOTS; i++) lane_kill_and_reap(d, i);
    lane_empty_folder(d->dirs.runtime);
    for (int i = 0; i < 4; i++) { /* recovery is killed too, and what it left recovered again */
        char point[72];
        points_choose(&d->random, POINT_COLD, point, sizeof point);
        lane_start_daemon(d, point, NULL, NULL);
        d->slots[DAEMON].life_ms = crash_below(&d->random, 300);
        if (lane_await_daemon(d)) break;
    }
    start_all(d);
}

static void clean_restart(lane *d)
{
    int status;
    char point[72] = "";
    d->r.clean++;
    lane_kill_and_reap(d, DAEMON);
    if (crash_below(&d->random, 2) == 0)
        for (int i = FIRST_WRITER; i < FIRST_READER; i++) lane_kill_and_reap(d, i);
    if (crash_below(&d->random, 4)) points_choose(&d->random, POINT_STOP, point, sizeof point);
    lane_start_daemon(d, point, NULL, NULL);
    if (!lane_await_daemon(d)) {
        start_all(d);
        return;
    }
    usleep(crash_below(&d->random, 60000));
    child *c = &d->slots[DAEMON];
    kill(c->pid, SIGTERM);
    int64_t until = crash_now_ms() + STUCK_MS * (int64_t)d->slow;
    while (!child_reap(c, d->oracle, false, &status)) {
        lane_drain(d);
        if (crash_now_ms() > until) {
            oracle_violation(d->oracle, "the daemon does not stop within %d s", STUCK_MS / 1000);
            child_show_log(c, 8);
            child_kill(c, SIGKILL);
            until = INT64_MAX;
        }
        usleep(500);
    }
    lane_account(d, DAEMON, status, true);
    start_all(d);
}

/* ---- one after the other ---- */

static void kill_those_due(lane *d)
{
    int64_t now = crash_now_ms();
    for (int i = 0; i < SLOTS; i++) {
        child *c = &d->slots[i];
        if (!c->pid || c->killed) continue;
        if (!c->kill_at_ms && c->heard) c->kill_at_ms = now + c->life_ms;
        if (c->kill_at_ms ? now >= c->kill_at_ms : now - c->started_ms > UNHEARD_MS * (int64_t)d->slow) child_kill(c, SIGKILL);
    }
}

static void reap_and_restart(lane *d)
{
    for (int i = 0; i < SLOTS; i++) {
        int status;
        if (!child_reap(&d->slots[i], d->oracle, false, &status)) continue;
        lane_account(d, i, status, false);
        lane_start_slot(d, i, points_for(d));
    }
}

static void wait_for_messages(lane *d)
{
    struct pollfd p[SLOTS];
    nfds_t n = 0;
    int64_t now = crash_now_ms(), least = 20;
    for (int i = 0; i < SLOTS; i++) {
        const child *c = &d->slots[i];
        if (c->pipe_fd >= 0) p[n++] = (struct pollfd){c->pipe_fd, POLLIN, 0};
        if (c->kill_at_ms && !c->killed && c->kill_at_ms - now < least) least = c->kill_at_ms - now;
    }
    if (least > 2) usleep(2000); /* several messages at a time */
    (void)poll(p, n, least > 2 ? (int)least - 2 : 0);
    lane_drain(d);
}

static void storm(lane *d, uint64_t kills)
{
    int64_t begun = crash_now_ms(), next = begun + 1000, progress_ms = begun;
    uint64_t acked = 0, target = d->r.kills + kills;
    start_all(d);
    while (d->r.kills < target) {
        wait_for_messages(d);
        reap_and_restart(d);
        kill_those_due(d);
        int64_t now = crash_now_ms();
        oracle_counts c;
        oracle_count(d->oracle, &c);
        if (c.acked != acked) {
            acked = c.acked;
            progress_ms = now;
        } else if (now - progress_ms > STUCK_MS * (int64_t)d->slow) {
            oracle_violation(d->oracle, "nothing was acknowledged for %d s", STUCK_MS / 1000);
            for (int i = 0; i < FIRST_READER; i++) child_show_log(&d->slots[i], 4);
            return;
        }
        if (c.violations > 20 || now - begun > ROUND_MS * (int64_t)d->slow) return;
        if (now < next) continue;
        if (crash_below(&d->random, 2)) cold_restart(d);
        else clean_restart(d);
        next = crash_now_ms() + d->slow * (400 + crash_below(&d->random, 1600));
    }
}

/* ---- the end of a round ---- */

static void list_topics(lane *d)
{
    child c = {.pipe_fd = -1};
    int status;
    const char *argv[] = {d->self, "topics", d->url[0], NULL};
    child_start(&c, &d->dirs, "topics", NULL, argv);
    child_reap(&c, d->oracle, true, &status);
    if (c.done) oracle_check_topics(d->oracle);
    else oracle_violation(d->oracle, "the topics could not be listed");
}

static void bring_to_rest(lane *d)
{
    lane_kill_and_reap(d, DAEMON);
    lane_start_daemon(d, NULL, NULL, NULL);
    (void)lane_await_daemon(d);
    for (int i = FIRST_WRITER; i < SLOTS; i++)
        if (d->slots[i].pid) kill(d->slots[i].pid, SIGTERM);
    for (int i = FIRST_WRITER; i < SLOTS; i++) lane_stop_and_reap(d, i);
    lane_read_everything(d, true, "at rest");
    lane_read_everything(d, false, "at rest");
    list_topics(d);
    lane_stop_and_reap(d, DAEMON);
    lane_command(d, "'%1$s' verify '%3$s' >'%4$s/command.log' 2>&1", "busway verify after a clean stop");
    lane_empty_folder(d->dirs.runtime);
    lane_start_daemon(d, NULL, NULL, NULL);
    (void)lane_await_daemon(d);
    lane_read_everything(d, crash_below(&d->random, 2), "after recovery");
    list_topics(d);
    lane_stop_and_reap(d, DAEMON);
    lane_command(d, "'%1$s' verify '%3$s' >'%4$s/command.log' 2>&1", "busway verify after recovery");
}

void storm_round(lane *d, uint64_t kills)
{
    lane_start_daemon(d, NULL, NULL, NULL);
    (void)lane_await_daemon(d);
    lane_command(d, "'%1$s' -b '%2$s' topic create " CRASH_TOPIC " --partitions 2 -c segment.bytes=65536 >'%4$s/command.log' 2>&1",
                 "creating the topic");
    storm(d, kills);
    bring_to_rest(d);
}
