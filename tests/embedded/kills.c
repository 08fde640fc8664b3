/* embedded/kills.c: the coordinator ends again and again, at any moment, while processes work with its folder: a private daemon that is
 * killed (kills), a system's daemon that takes the folder and ends or is killed (over), a worker that carries it and is killed (self).
 *
 * After a kill this process only looks: others must bring up another daemon. A quarter of the kills hit one that is still starting. */
#include "embedded/embedded.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS = 6, WAIT_LOOKS = 200000 };

static const em_work works[WORKERS] = {em_work_direct, em_work_durable, em_work_socket, em_work_reader, em_work_commits, em_work_control};

typedef struct run {
    em_place place;
    em_shared *shared;
    bw_bus *bus;
    uint64_t random;
    em_times listens, answers, earlies;
    int kills, early;
    bool figures;
    pid_t pids[WORKERS], system;
} run;

/* Something took long: what the daemons said. */
static void show_log(const run *r)
{
    char command[400];
    snprintf(command, sizeof command, "cd '%s' && tail -n 20 run/buswayd.log; [ ! -e system.log ] || tail -n 20 system.log", r->place.dir);
    if (system(command) != 0) puts("no log");
}

static pid_t await_listener(const run *r, pid_t not_this)
{
    for (int looks = 0; looks < WAIT_LOOKS; looks++, em_sleep_ns(100000)) { /* not by the clock: the machine may stand still for a while */
        pid_t pid = em_listener(&r->place);
        if (pid && pid != not_this) return pid;
    }
    char command[600];
    snprintf(command, sizeof command, "head -3 '%s/daemon.lock'; ps -eLo pid,lwp,stat,wchan:24,args | "
             "grep -e '%s' -e '%s' | grep -v grep | cut -c1-150 | head -40",
             r->place.dir, r->place.dir, program_invocation_short_name);
    if (system(command) != 0) puts("no ps");
    show_log(r);
    em_die("long after the end of %d nobody listens in %s; who did last: %d", (int)not_this, r->place.dir, (int)em_listener(&r->place));
}

/* One that has the folder but may not have come up. */
static void kill_early(run *r, pid_t before)
{
    em_sleep_ns((int64_t)(em_random(&r->random) % 12000) * 1000);
    pid_t pid = em_coordinator(&r->place);
    if (pid && pid != before && em_kill(&r->place, pid) == 0) r->early++;
}

static void kill_once(run *r)
{
    em_sleep_ns((int64_t)(em_random(&r->random) % 40000) * 1000);
    pid_t pid = em_listener(&r->place);
    if (!pid) pid = await_listener(r, 0);
    int64_t at = em_now_ns();
    atomic_store(&r->shared->killed_ns, at);
    if (em_kill(&r->place, pid)) return;
    r->kills++;
    if (em_random(&r->random) % 4 == 0) {
        kill_early(r, pid);
        int64_t early_ns = em_now_ns();
        await_listener(r, pid);
        em_times_add(&r->earlies, em_now_ns() - early_ns);
        if (em_now_ns() - early_ns > 1000000000) show_log(r);
        return;
    }
    await_listener(r, pid);
    em_times_add(&r->listens, em_now_ns() - at);
    char *json = NULL;
    if (bw_status(r->bus, &json)) em_die("after a kill: %s", bw_error_message());
    bw_free(json);
    em_times_add(&r->answers, em_now_ns() - at);
}

static void await_start(const run *r)
{
    const em_shared *s = r->shared;
    for (int64_t until = em_now_ns() + 20000000000;; em_sleep_ns(1000000)) {
        if (atomic_load(&s->direct.acked) && atomic_load(&s->durable.acked) && atomic_load(&s->socket.acked) && atomic_load(&s->reader.acked) &&
            atomic_load(&s->commits.acked))
            return;
        if (em_now_ns() > until) {
            em_check_reports(r->shared);
            em_die("not every worker had begun after 20 s");
        }
    }
}

static void figure(bool met, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void figure(bool met, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs(met ? "met   " : "NOT MET  ", stdout);
    vprintf(format, args);
    va_end(args);
    puts("");
}

/* What is asked of dir: buses, beside what this run says of it. The control did nothing but read the clock on the same processors: what it
 * was kept waiting for is the scheduler's and the machine's. A gap in which the thread went to sleep by itself, or read a page, is ours. */
static void print_figures(run *r)
{
    const em_shared *s = r->shared;
    int64_t limit = 50000000, gap = 1000000;
    const struct { const char *what; em_times *t; } ends[] = {{"killed", &r->listens}, {"killed while it started", &r->earlies}};
    for (size_t k = 0; k < 2; k++) {
        em_times *t = ends[k].t;
        size_t within = 0;
        for (size_t i = 0; i < t->count; i++) within += t->at[i] <= limit;
        figure(within == t->count, "coordinator %s, another serves within 50 ms: %zu of %zu times (median %.1f, p99 %.1f, longest %.1f ms)",
               ends[k].what, within, t->count, (double)em_times_part(t, 0.5) / 1e6, (double)em_times_part(t, 0.99) / 1e6,
               (double)em_times_part(t, 1) / 1e6);
    }
    const struct { const char *who; const em_report *r; } direct[] = {{"writer", &s->direct}, {"reader", &s->reader}};
    int64_t own = atomic_load(&s->control.beyond_ns), allowed = own > gap ? own : gap;
    for (size_t i = 0; i < 2; i++) {
        int64_t longest = atomic_load(&direct[i].r->beyond_ns);
        figure(longest <= allowed && atomic_load(&direct[i].r->asleep) == 0,
               "direct %s: longest gap beyond the scheduler's %.3f ms of %lld calls; %lld over 1 ms, it slept in %lld of them "
               "(the control's longest: %.3f ms, %lld of %lld over 1 ms)", direct[i].who, (double)longest / 1e6,
               (long long)atomic_load(&direct[i].r->calls), (long long)atomic_load(&direct[i].r->over),
               (long long)atomic_load(&direct[i].r->asleep), (double)own / 1e6, (long long)atomic_load(&s->control.over),
               (long long)atomic_load(&s->control.calls));
    }
}

static bool judge(run *r)
{
    em_shared *s = r->shared;
    bool good = em_check_reports(s);
    bw_bus *bus = em_bus(r->place.url, BW_TRANSPORT_AUTO);
    good &= em_check_log(bus, "direct", &s->direct, "direct writer");
    good &= em_check_log(bus, "durable", &s->durable, "durable writer");
    good &= em_check_log(bus, "socket", &s->socket, "writer through the socket");
    good &= em_check_commit(bus, &s->commits);
    bw_bus_close(bus);
    em_times_print(&r->listens, "end of one coordinator to the next's listening");
    if (r->answers.count) em_times_print(&r->answers, "to its first answer");
    if (r->earlies.count) em_times_print(&r->earlies, "a starting one killed, to listening");
    em_print_gaps(&s->direct, "direct writer", true);
    em_print_gaps(&s->reader, "direct reader", true);
    em_print_gaps(&s->control, "control: no bus at all", r->figures);
    em_print_gaps(&s->durable, "durable writer", false);
    em_print_gaps(&s->socket, "writer through the socket", false);
    em_print_gaps(&s->commits, "commits", false);
    if (r->figures) print_figures(r);
    return good;
}

/* ---- a daemon of the system comes and goes ---- */

static void start_system(run *r)
{
    const char *program = getenv("BUSWAYD");
    char runtime[260], log[260];
    if (!program) em_die("$BUSWAYD must name the daemon");
    snprintf(runtime, sizeof runtime, "%s/system", r->place.dir);
    snprintf(log, sizeof log, "%s/system.log", r->place.dir);
    fflush(stdout);
    r->system = fork();
    if (r->system == 0) {
        if (!freopen(log, "a", stderr)) _exit(126);
        execl(program, "buswayd", "--data-dir", r->place.dir, "--runtime-dir", runtime, (char *)NULL);
        _exit(127);
    }
    if (r->system < 0) em_die("fork");
}

static void end_system(run *r, int signal_number)
{
    kill(r->system, signal_number);
    waitpid(r->system, NULL, 0);
    r->system = 0;
}

/* One round: it takes the folder, or is killed while it does; works a while; ends or is killed; programs start a private one. */
static void change_once(run *r)
{
    int64_t at = em_now_ns();
    start_system(r);
    r->kills++;
    if (em_random(&r->random) % 5 == 0) {
        em_sleep_ns((int64_t)(em_random(&r->random) % 30000) * 1000);
        end_system(r, SIGKILL);
        r->early++;
    } else {
        for (int64_t until = at + 20000000000; em_coordinator(&r->place) != r->system; em_sleep_ns(100000))
            if (em_now_ns() > until || waitpid(r->system, NULL, WNOHANG) != 0) {
                show_log(r);
                em_die("the system's daemon did not take the folder");
            }
        em_times_add(&r->listens, em_now_ns() - at);
        em_sleep_ns((int64_t)(em_random(&r->random) % 60000) * 1000);
        at = em_now_ns();
        atomic_store(&r->shared->killed_ns, at);
        end_system(r, em_random(&r->random) % 2 ? SIGTERM : SIGKILL);
    }
    await_listener(r, 0);
    if (em_now_ns() - at > 1000000000) show_log(r);
    em_times_add(&r->answers, em_now_ns() - at);
}

/* ---- the coordinator is one of the workers ---- */

static void kill_carrier(run *r)
{
    em_sleep_ns((int64_t)(em_random(&r->random) % 60000) * 1000);
    pid_t pid = await_listener(r, 0);
    int which = 0;
    while (which < WORKERS && r->pids[which] != pid) which++;
    if (which == WORKERS) return; /* it has just gone */
    int64_t at = em_now_ns();
    atomic_store(&r->shared->killed_ns, at);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    r->kills++;
    await_listener(r, pid);
    em_times_add(&r->listens, em_now_ns() - at);
    r->pids[which] = em_start(works[which], &r->place, r->shared);
}

/* ---- */

static int work_through(int argc, char **argv, const char *options, void (*once)(run *r), bool self, bool figures)
{
    static run r;
    r.figures = figures;
    int kills = argc > 0 ? atoi(argv[0]) : 100;
    r.random = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    em_place_make(&r.place, options);
    r.shared = mmap(NULL, sizeof *r.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (r.shared == MAP_FAILED) em_die("no memory");
    for (int i = 0; i < WORKERS; i++) r.pids[i] = em_start(works[i], &r.place, r.shared);
    if (!self) r.bus = em_bus(r.place.url, BW_TRANSPORT_IPC); /* it has no standby: it waits for what others start */
    await_start(&r);
    bool good = true;
    while (good && r.kills + r.early < kills) {
        once(&r);
        int status;
        for (int i = 0; i < WORKERS && good; i++)
            if (waitpid(r.pids[i], &status, WNOHANG) != 0) good = em_verdict(false, "worker %d ended before its time", i);
    }
    em_sleep_ns(100000000);
    atomic_store(&r.shared->stop, true);
    for (int i = 0; i < WORKERS; i++) {
        int status = 0;
        if (waitpid(r.pids[i], &status, 0) > 0) good &= status == 0 || em_verdict(false, "worker %d: status %d", i, status);
    }
    bw_bus_close(r.bus);
    printf("      %d rounds, %d of them ended before it served\n", r.kills + r.early, r.early);
    good &= judge(&r);
    em_place_remove(&r.place);
    em_times_free(&r.listens);
    em_times_free(&r.answers);
    em_times_free(&r.earlies);
    return good ? 0 : 1;
}

int em_case_kills(int argc, char **argv) { return work_through(argc, argv, "?idle-exit=2s", kill_once, false, false); }
int em_case_over(int argc, char **argv) { return work_through(argc, argv, "?idle-exit=2s", change_once, false, false); }
int em_case_self(int argc, char **argv)
{
    setenv("BUSWAYD", "/nonexistent/no-daemon-may-be-started", 1);
    return work_through(argc, argv, "?coordinator=self", kill_carrier, true, false);
}

int em_case_figures(int argc, char **argv)
{
    em_times opened = {0}, sent = {0};
    em_first_times(argc > 2 ? atoi(argv[2]) : 20, &opened, &sent);
    int status = work_through(argc, argv, "?idle-exit=2s", kill_once, false, true);
    int64_t first = em_times_part(&sent, 0.5);
    figure(first <= 20000000, "first record from nothing: median %.1f, p99 %.1f ms of %zu times (wanted: 20 ms)", (double)first / 1e6,
           (double)em_times_part(&sent, 0.99) / 1e6, sent.count);
    figure(status == 0, "nothing acknowledged was lost");
    em_times_free(&opened);
    em_times_free(&sent);
    return status;
}
