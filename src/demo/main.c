/* demo/main.c: the conductor of the demonstration: folder, processes, live line, kill, verdict, cleaning up.
 *
 * The bus is dir:<temporary folder>/bus: nothing was installed or started before, and nothing is left behind. */
#include "demo/demo.h"
#include "demo/source.h"

#include <errno.h>
#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KILL_AT   0.4 /* of the schedule */
#define KILL_WORKER_AT 0.75
#define PAUSE_NS  700000000
#define READY_MS  15000
#define FINISH_MS 20000

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
    (void)number;
    interrupted = 1;
}

typedef struct stage {
    demo *d;
    bw_bus *bus;
    pid_t producer, readers[DEMO_READERS], workers[DEMO_WORKERS], daemon;
    int producer_status;
    bool producer_done;
    uint64_t shown_acks, shown_reads[DEMO_READERS];
    int64_t shown_ns;
} stage;

static pid_t spawn(demo *d, const char *role)
{
    pid_t parent = getpid(), pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* nothing outlives an interrupted demonstration */
    if (getppid() != parent) _exit(1);
    execl("/proc/self/exe", "busway-demo", "--role", role, d->folder, (char *)NULL);
    _exit(127);
}

static void say(const demo *d, const char *text)
{
    if (d->terminal) fputs("\r\033[K", stdout);
    if (d->colour)
        printf("\033[1m%s\033[0m\n", text);
    else
        printf("%s\n", text);
    fflush(stdout);
}

static void sleep_ms(int ms) { nanosleep(&(struct timespec){ms / 1000, (long)(ms % 1000) * 1000000}, NULL); }

static double live_p50(const demo_shared *s, int reader)
{
    uint64_t total = 0, sum = 0;
    for (int i = 0; i < DEMO_BUCKETS; i++) total += atomic_load_explicit(&s->reader[reader].histogram[i], memory_order_relaxed);
    for (int i = 0; i < DEMO_BUCKETS && total; i++) {
        sum += atomic_load_explicit(&s->reader[reader].histogram[i], memory_order_relaxed);
        if (sum * 2 >= total) return demo_bucket_ns((unsigned)i) / 1e3;
    }
    return 0;
}

/* The live line: every 200 ms in place on a terminal, else a line a second. */
static void show(stage *st)
{
    demo_shared *s = st->d->shared;
    int64_t now = demo_now_ns(), passed = now - st->shown_ns;
    if (passed < (st->d->terminal ? 200000000 : 1000000000)) return;
    uint64_t acks = atomic_load(&s->acknowledged), reads[DEMO_READERS];
    for (int i = 0; i < DEMO_READERS; i++) reads[i] = atomic_load(&s->reader[i].records);
    double seconds = (double)passed / 1e9;
    char text[256];
    double at = (double)(now - atomic_load(&s->begun_ns)) / 1e9;
    struct winsize size = {0};
    if (st->d->terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col < 130)
        snprintf(text, sizeof text,
                 "%4.1f s %6.0f/s acked %" PRIu64 "  direct %" PRIu64 " (p50 %.0f us)  socket %" PRIu64 " (p50 %.0f us)", at,
                 (double)(acks - st->shown_acks) / seconds, acks, reads[0], live_p50(s, 0), reads[1], live_p50(s, 1));
    else
        snprintf(text, sizeof text,
                 "%5.1f s  acknowledged %7" PRIu64 " (%6.0f/s)   direct %7" PRIu64 " (%6.0f/s, p50 %5.1f us)   socket %7" PRIu64
                 " (%6.0f/s, p50 %5.1f us)",
                 at, acks, (double)(acks - st->shown_acks) / seconds, reads[0], (double)(reads[0] - st->shown_reads[0]) / seconds,
                 live_p50(s, 0), reads[1], (double)(reads[1] - st->shown_reads[1]) / seconds, live_p50(s, 1));
    if (st->d->terminal)
        printf("\r\033[K%s", text);
    else
        printf("%s\n", text);
    fflush(stdout);
    st->shown_acks = acks;
    memcpy(st->shown_reads, reads, sizeof reads);
    st->shown_ns = now;
}

/* Any child that ended before its time? */
static bool children_well(stage *st)
{
    int status;
    for (int i = 0; i < DEMO_READERS; i++)
        if (st->readers[i] > 0 && waitpid(st->readers[i], &status, WNOHANG) == st->readers[i]) {
            st->readers[i] = 0;
            return demo_fail("the %s reader ended early (%s %d)", demo_reader_names[i],
                             WIFSIGNALED(status) ? "signal" : "exit code",
                             WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status)),
                   false;
        }
    for (int i = 0; i < DEMO_WORKERS; i++)
        if (st->workers[i] > 0 && waitpid(st->workers[i], &status, WNOHANG) == st->workers[i]) {
            st->workers[i] = 0;
            return demo_fail("worker %d of the group ended early", i + 1), false;
        }
    if (st->producer > 0 && waitpid(st->producer, &status, WNOHANG) == st->producer) {
        st->producer = 0;
        st->producer_done = true;
        st->producer_status = status;
    }
    return true;
}

static bool wait_ready(stage *st, _Atomic int *flag, const char *who)
{
    for (int ms = 0; ms < READY_MS && !interrupted; ms += 5) {
        if (atomic_load(flag)) return true;
        if (!children_well(st) || st->producer_done) return demo_fail("%s did not start", who), false;
        sleep_ms(5);
    }
    return demo_fail("%s is not ready after %d s", who, READY_MS / 1000), false;
}

static bool open_stage(stage *st)
{
    demo *d = st->d;
    bw_bus_options options = BW_BUS_OPTIONS_INIT;
    options.client_id = "demo";
    int64_t begun = demo_now_ns();
    if (bw_bus_open(d->url, &options, &st->bus) != BW_OK) return demo_fail_bw("cannot open the bus"), false;
    for (int t = 0; t < DEMO_TOPICS; t++)
        if (bw_topic_create(st->bus, demo_topic_names[t], DEMO_PARTITIONS, NULL, 0) != BW_OK)
            return demo_fail_bw("cannot create a topic"), false;
    char text[512], *status = NULL;
    if (bw_status(st->bus, &status) == BW_OK) {
        json_t *doc = json_loads(status, 0, NULL);
        st->daemon = (pid_t)json_integer_value(json_object_get(doc, "pid"));
        json_decref(doc);
    }
    bw_free(status);
    snprintf(text, sizeof text, "A bus in an empty folder: %s, with two topics after %.0f ms", d->url,
             (double)(demo_now_ns() - begun) / 1e6);
    say(d, text);
    return true;
}

static bool start_all(stage *st)
{
    demo *d = st->d;
    char text[768];
    for (int i = 0; i < DEMO_READERS; i++) st->readers[i] = spawn(d, demo_reader_names[i]);
    for (int i = 0; i < DEMO_READERS; i++)
        if (!wait_ready(st, &d->shared->reader[i].ready, "a reader")) return false;
    if (atomic_load(&d->shared->reader[DEMO_DIRECT].fell_back)) {
        snprintf(text, sizeof text, "Shared memory is refused here, so both readers use the socket: %s",
                 d->shared->reader[DEMO_DIRECT].why_not);
        say(d, text);
    }
    snprintf(text, sizeof text, "Two readers: pid %d on shared memory (direct), pid %d through the socket", (int)st->readers[0],
             (int)st->readers[1]);
    say(d, text);
    for (int i = 0; i < DEMO_WORKERS; i++) {
        snprintf(text, sizeof text, "worker%d", i);
        st->workers[i] = spawn(d, text);
    }
    for (int i = 0; i < DEMO_WORKERS; i++)
        if (!wait_ready(st, &d->shared->worker_ready[i], "a worker")) return false;
    snprintf(text, sizeof text, "A group of three workers: pids %d, %d and %d divide the partitions and count the records", (int)st->workers[0],
             (int)st->workers[1], (int)st->workers[2]);
    say(d, text);
    atomic_store(&d->shared->begun_ns, demo_now_ns());
    atomic_store(&d->shared->length_ns, (int64_t)d->seconds * 1000000000);
    st->shown_ns = demo_now_ns();
    st->producer = spawn(d, "producer");
    if (!wait_ready(st, &d->shared->producer_ready, "the producer")) return false;
    demo_lines lines;
    if (demo_lines_load(&lines)) {
        if (lines.count)
            snprintf(text, sizeof text, "A producer: pid %d sends %zu lines of %s, keyed by package, and samples of /proc",
                     (int)st->producer, lines.count, lines.from);
        else
            snprintf(text, sizeof text, "A producer: pid %d sends samples of /proc (no package manager's log on this machine)",
                     (int)st->producer);
        demo_lines_free(&lines);
        say(d, text);
    }
    return true;
}

/* SIGKILL in the middle of its work, a pause, a new life. */
static bool kill_and_restart(stage *st, uint64_t *killed_after)
{
    demo *d = st->d;
    char text[256];
    int status;
    size_t entries;
    pid_t old = st->producer;
    if (old <= 0 || kill(old, SIGKILL) != 0 || waitpid(old, &status, 0) != old)
        return demo_fail("the producer was gone before it was killed"), false;
    st->producer = 0;
    free(demo_journal_load(d, "acks", &entries));
    *killed_after = entries;
    snprintf(text, sizeof text, "Producer %d killed with SIGKILL after %zu acknowledged records", (int)old, entries);
    say(d, text);
    for (int64_t until = demo_now_ns() + PAUSE_NS; demo_now_ns() < until && !interrupted; sleep_ms(20)) {
        show(st);
        if (!children_well(st)) return false;
    }
    atomic_store(&d->shared->producer_ready, 0);
    st->producer = spawn(d, "producer");
    if (!wait_ready(st, &d->shared->producer_ready, "the new producer")) return false;
    snprintf(text, sizeof text,
             "Producer %d started: found %" PRIu64 " lines and %" PRIu64 " samples in the log, goes on behind them",
             (int)st->producer, atomic_load(&d->shared->found_lines), atomic_load(&d->shared->found_sensors));
    say(d, text);
    return true;
}

/* SIGKILL of the worker with the most partitions; how long they stood still. */
static bool kill_worker(stage *st)
{
    demo_shared *s = st->d->shared;
    char text[256];
    int victim = 0, status, moved;
    int64_t first, last;
    for (int i = 1; i < DEMO_WORKERS; i++)
        if (demo_group_partitions(s, i) > demo_group_partitions(s, victim)) victim = i;
    if (demo_group_partitions(s, victim) == 0) return demo_fail("the group gave no worker a partition"), false;
    pid_t old = st->workers[victim];
    int64_t killed_ns = demo_now_ns();
    if (old <= 0 || kill(old, SIGKILL) != 0 || waitpid(old, &status, 0) != old) return demo_fail("the worker was gone before it was killed"), false;
    st->workers[victim] = 0;
    for (int ms = 0; !demo_group_moved(s, victim, killed_ns, &moved, &first, &last); ms++) {
        if (ms == READY_MS || interrupted) return demo_fail("the dead worker's partitions were given to nobody in %d s", READY_MS / 1000), false;
        sleep_ms(1);
    }
    snprintf(text, sizeof text, "Worker %d killed with SIGKILL: its %d partition%s stood still for %.1f to %.1f ms", (int)old, moved,
             moved == 1 ? "" : "s", (double)first / 1e6, (double)last / 1e6);
    say(st->d, text);
    return true;
}

static bool run_stage(stage *st, uint64_t *killed_after)
{
    demo_shared *s = st->d->shared;
    bool killed = false, worker_killed = false;
    while (!st->producer_done && !interrupted) {
        show(st);
        if (!children_well(st)) return false;
        int64_t passed = demo_now_ns() - atomic_load(&s->begun_ns);
        if (!killed && (double)passed > KILL_AT * (double)atomic_load(&s->length_ns) && !st->producer_done) {
            if (!kill_and_restart(st, killed_after)) return false;
            killed = true;
        }
        if (!worker_killed && (double)passed > KILL_WORKER_AT * (double)atomic_load(&s->length_ns) && !st->producer_done) {
            if (!kill_worker(st)) return false;
            worker_killed = true;
        }
        sleep_ms(10);
    }
    if (interrupted) return demo_fail("interrupted"), false;
    if (!killed || !worker_killed) return demo_fail("the producer ended before %s could be killed", killed ? "a worker" : "it"), false;
    if (!WIFEXITED(st->producer_status) || WEXITSTATUS(st->producer_status) != 0) return demo_fail("the producer failed"), false;
    return true;
}

/* The readers read up to the end of the log, write their journals and end. */
static bool finish_readers(stage *st)
{
    demo_shared *s = st->d->shared;
    uint64_t target = 0;
    for (int t = 0; t < DEMO_TOPICS; t++)
        for (int32_t p = 0; p < DEMO_PARTITIONS; p++) {
            bw_offset_range range;
            if (bw_offsets_range(st->bus, demo_topic_names[t], p, &range) != BW_OK)
                return demo_fail_bw("cannot ask for the end"), false;
            target += (uint64_t)(range.end - range.log_start);
        }
    atomic_store(&s->target, target);
    atomic_store(&s->stop, 1);
    bool good = true;
    int64_t give_up = demo_now_ns() + (int64_t)FINISH_MS * 1000000;
    for (int left = DEMO_READERS; left > 0 && !interrupted;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid == 0) {
            if (demo_now_ns() > give_up) atomic_store(&s->stop, 2);
            sleep_ms(2);
            continue;
        }
        for (int i = 0; i < DEMO_READERS; i++)
            if (pid == st->readers[i]) {
                st->readers[i] = 0;
                left--;
                if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) good = false;
            }
        if (pid < 0) break;
    }
    st->shown_ns = 0;
    st->shown_acks = atomic_load(&s->acknowledged);
    for (int i = 0; i < DEMO_READERS; i++) st->shown_reads[i] = atomic_load(&s->reader[i].records);
    if (st->d->terminal) fputs("\r\033[K", stdout);
    printf("%5.1f s  the log holds %" PRIu64 " records\n", (double)(demo_now_ns() - atomic_load(&s->begun_ns)) / 1e9, target);
    return good && !interrupted;
}

/* Each record of the log is counted once. */
static bool finish_workers(stage *st)
{
    demo_shared *s = st->d->shared;
    uint64_t target = atomic_load(&s->target), counted = 0;
    int status;
    for (int ms = 0; ms < FINISH_MS && !interrupted && (counted = demo_group_counted(s)) < target; ms += 5) {
        if (!children_well(st)) return false;
        sleep_ms(5);
    }
    sleep_ms(100); /* one that would be counted twice */
    counted = demo_group_counted(s);
    atomic_store(&s->workers_stop, 1);
    bool good = true;
    for (int i = 0; i < DEMO_WORKERS; i++) {
        if (st->workers[i] <= 0) continue;
        good = waitpid(st->workers[i], &status, 0) == st->workers[i] && WIFEXITED(status) && WEXITSTATUS(status) == 0 && good;
        st->workers[i] = 0;
    }
    if (counted != target) return demo_fail("the group counted %" PRIu64 " records of %" PRIu64, counted, target), false;
    printf("         the group counted %" PRIu64 " records: each exactly once, one worker of three killed on the way\n", counted);
    return good;
}

/* Gone, or a zombie that its new parent has not buried yet. */
static bool is_gone(pid_t pid)
{
    char path[64], state = 0;
    if (kill(pid, 0) != 0) return true;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f) return true;
    if (fscanf(f, "%*d (%*[^)]) %c", &state) != 1) state = 0;
    fclose(f);
    return state == 'Z';
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* End whoever is left, stop the folder's daemon, check every byte it wrote, remove the folder. */
static bool close_stage(stage *st, bool verify)
{
    demo *d = st->d;
    bool good = true;
    pid_t rest[] = {st->producer, st->readers[0], st->readers[1], st->workers[0], st->workers[1], st->workers[2]};
    for (size_t i = 0; i < sizeof rest / sizeof rest[0]; i++)
        if (rest[i] > 0) {
            kill(rest[i], SIGKILL);
            waitpid(rest[i], NULL, 0);
        }
    bw_bus_close(st->bus);
    if (st->daemon > 0) {
        kill(st->daemon, SIGTERM);
        for (int ms = 0; ms < 5000 && !is_gone(st->daemon); ms += 10) sleep_ms(10);
        if (!is_gone(st->daemon)) good = !demo_fail("the daemon (pid %d) does not stop", (int)st->daemon);
    }
    if (verify) {
        bw_verify_totals totals = {0};
        char path[320];
        snprintf(path, sizeof path, "%s/bus", d->folder);
        bw_err e = bw_verify(path, NULL, NULL, NULL, &totals);
        if (e != BW_OK) demo_fail("verify: %s", bw_error_message());
        printf("\nThe daemon is stopped; every byte on the disk checked: %" PRIu64 " batches, %" PRIu64
               " records, %.1f MB, %" PRIu64 " errors\n",
               totals.batches, totals.records, (double)totals.bytes / 1e6, totals.errors);
        good = good && e == BW_OK;
    }
    if (d->keep)
        printf("Left in %s (busway -b dir:%s/bus consume packages -e)\n", d->folder, d->folder);
    else if (nftw(d->folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0)
        good = !demo_fail("cannot remove %s: %s", d->folder, strerror(errno));
    return good;
}

static int conduct(demo *d)
{
    stage st = {.d = d};
    uint64_t killed_after = 0;
    const char *tmp = getenv("TMPDIR");
    snprintf(d->folder, sizeof d->folder, "%.200s/busway-demo.XXXXXX", tmp && *tmp == '/' ? tmp : "/tmp");
    if (!mkdtemp(d->folder)) return demo_fail("cannot make a folder like %s: %s", d->folder, strerror(errno));
    snprintf(d->url, sizeof d->url, "dir:%s/bus?idle-exit=5s", d->folder);
    struct sigaction action = {.sa_handler = on_signal};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    int64_t begun = demo_now_ns();
    bool good =
        demo_shared_map(d, true) && open_stage(&st) && start_all(&st) && run_stage(&st, &killed_after) && finish_readers(&st) &&
        finish_workers(&st);
    if (good) good = demo_check(d, killed_after);
    good = close_stage(&st, good) && good;
    const char *mark = good ? "\033[1;32m" : "\033[1;31m";
    printf("\n%s%s%s (%.1f s)\n", d->colour ? mark : "",
           good ? "DEMO PASSED: what was acknowledged was read, in its place, on both paths, and counted once, through kills of producer and worker"
                : "DEMO FAILED: see above",
           d->colour ? "\033[0m" : "", (double)(demo_now_ns() - begun) / 1e9);
    return good ? 0 : interrupted ? 130 : 1;
}

static int role(demo *d, const char *name, const char *folder)
{
    if (strlen(folder) >= sizeof d->folder) return demo_fail("folder name too long");
    snprintf(d->folder, sizeof d->folder, "%s", folder);
    snprintf(d->url, sizeof d->url, "dir:%s/bus?idle-exit=5s", d->folder);
    if (!demo_shared_map(d, false)) return 1;
    if (strcmp(name, "producer") == 0) return demo_producer_run(d);
    for (int i = 0; i < DEMO_READERS; i++)
        if (strcmp(name, demo_reader_names[i]) == 0) return demo_reader_run(d, i);
    for (int i = 0; i < DEMO_WORKERS; i++)
        if (strncmp(name, "worker", 6) == 0 && name[6] == '0' + i && !name[7]) return demo_worker_run(d, i);
    return demo_fail("no such role: %s", name);
}

int main(int argc, char **argv)
{
    demo d = {.seconds = 10, .terminal = isatty(STDOUT_FILENO)};
    const char *term = getenv("TERM");
    if (term && strcmp(term, "dumb") == 0) d.terminal = false;
    d.colour = d.terminal && !getenv("NO_COLOR");
    if (argc == 4 && strcmp(argv[1], "--role") == 0) return role(&d, argv[2], argv[3]);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--keep") == 0)
            d.keep = true;
        else if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc && atoi(argv[i + 1]) >= 3 && atoi(argv[i + 1]) <= 3600)
            d.seconds = atoi(argv[++i]);
        else {
            bool help = strcmp(argv[i], "--help") == 0;
            fprintf(
                help ? stdout : stderr,
                "Usage: busway-demo [--seconds N (3 to 3600)] [--keep]\n"
                "This machine's own events through a bus in a temporary folder, with a producer that is killed on the way.\n");
            return help ? 0 : 2;
        }
    }
    return conduct(&d);
}
