/* tests/battery/faults.c: every k-th call of the operating system fails, once or for ever, in the daemon or in its client.
 *
 * A case is (who, call, k, errno, once or for ever). Who: "fresh" the daemon of an empty folder, "again" the daemon that comes up
 * after a kill -9 of one that was busy, "client" the client. First each runs without faults, so that the calls of each kind are
 * counted. Then a case: the scenario (faults_client.c) runs against the daemon; nobody may crash or hang; what fails says why. Then
 * the daemon starts without faults: everything acknowledged is there, every partition takes records, the folder verifies clean.
 *
 * Environment: FAULTS_SECONDS (50; 0: every case), FAULTS_SEED (1), FAULTS_CASE="who call:k:errno[:forever]" one case, FAULTS_KEEP=1
 * keeps the folder. The seam is that of base/os.h; with FAULTS_PRELOAD=libcfault.so it is that of the C library, for the libraries'
 * calls too. */
#include "battery/faults.h"

#include <busway/busway.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KINDS = 64, START_MS = 8000, CLIENT_MS = 60000, STOP_MS = 12000 };
typedef enum who { FRESH, AGAIN, CLIENT, WHO_COUNT } who;
static const char *const who_names[] = {"fresh", "again", "client"};

/* As base/os.c lays it out. */
typedef struct kind_count { char name[16]; unsigned long calls, failed; } kind_count;

typedef struct fault_case { who who; char call[16]; unsigned long k; int error; bool forever; } fault_case;

static struct {
    char dir[64], self[256], log[96], acks[96], counts[96], url[128], data[96];
    const char *buswayd, *preload;
    kind_count kinds[WHO_COUNT][KINDS];
    unsigned long cases, hit, violations;
    char why[512];
} t;

static int64_t now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void wrong(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void wrong(const char *format, ...)
{
    if (t.why[0]) return; /* the first says it */
    va_list args;
    va_start(args, format);
    vsnprintf(t.why, sizeof t.why, format, args);
    va_end(args);
}

static void run_shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void run_shell(const char *format, ...)
{
    char command[512];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    fflush(stdout);
    if (system(command) != 0) printf("(failed: %s)\n", command);
}

/* ---- processes ---- */

/* fault: NULL for none, "" only to count. */
static pid_t spawn(const char *fault, int ready_fd, const char *const argv[])
{
    pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int log = open(t.log, O_WRONLY | O_CREAT | O_APPEND, 0600), null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    if (ready_fd >= 0) dup2(ready_fd, 3);
    for (int fd = ready_fd >= 0 ? 4 : 3; fd < 64; fd++) close(fd);
    if (fault) {
        setenv("BUSWAY_FAULT_COUNTS", t.counts, 1);
        if (*fault) setenv("BUSWAY_FAULT", fault, 1);
        if (t.preload) setenv("LD_PRELOAD", t.preload, 1);
    }
    execv(argv[0], (char **)(uintptr_t)argv);
    _exit(127);
}

/* Its end within the time; otherwise it hangs, and is killed. */
static int reap(pid_t pid, int ms, const char *what)
{
    int status = 0;
    for (int64_t end = now_ms() + ms; now_ms() < end; usleep(1000))
        if (waitpid(pid, &status, WNOHANG) == pid) {
            if (WIFSIGNALED(status)) wrong("%s died of signal %d", what, WTERMSIG(status));
            else if (WEXITSTATUS(status) == 70) wrong("%s ended with an internal error", what);
            return status;
        }
    wrong("%s hangs: no end within %d ms", what, ms);
    run_shell("for s in /proc/%d/task/*; do echo $(cat $s/comm): $(cat $s/wchan); done >>%s", (int)pid, t.log);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

static bool clean(int status) { return status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0; }

/* 0 when it ended instead of coming up; *status then. */
static pid_t start_daemon(const char *fault, int *status)
{
    const char *const argv[] = {t.buswayd, "--data-dir", t.data, "--runtime-dir", t.dir, "--ready-fd", "3", "--set",
                                "log.flush.interval.ms=40", "--set", "disk.reserve.bytes=0", "--set", "meta.map.bytes=1MiB", NULL};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) abort();
    pid_t pid = spawn(fault, ends[1], argv);
    close(ends[1]);
    char word[8] = "";
    struct pollfd p = {.fd = ends[0], .events = POLLIN};
    bool ready = poll(&p, 1, START_MS) == 1 && read(ends[0], word, sizeof word) > 0;
    close(ends[0]);
    if (ready) return pid;
    *status = reap(pid, 1000, "the daemon, coming up,");
    if (clean(*status) && !t.why[0]) wrong("the daemon did not come up and calls that a success");
    return 0;
}

static void stop_daemon(pid_t pid, bool faulty)
{
    kill(pid, SIGTERM);
    int status = reap(pid, STOP_MS, "the daemon, told to stop,");
    if (!faulty && !clean(status)) wrong("the daemon without faults did not stop cleanly (status %d)", status);
}

static void client(const char *role, const char *fault)
{
    const char *const argv[] = {t.self, role, t.url, t.acks, NULL};
    int status = reap(spawn(fault, -1, argv), CLIENT_MS, role);
    if (status == -1 || clean(status)) return;
    wrong("%s: see VIOLATION in its output", role);
}

/* ---- one case ---- */

static void on_finding(void *opaque, const bw_finding *f)
{
    (void)opaque;
    if (f->is_error) wrong("verify: %s byte %llu: %s", f->path, (unsigned long long)f->position, f->message);
}

static void look_afterwards(void)
{
    int status = 0;
    pid_t daemon = start_daemon(NULL, &status);
    if (!daemon) {
        wrong("the daemon does not come up again, without faults (status %d)", status);
        return;
    }
    client("verify", NULL);
    stop_daemon(daemon, false);
    bw_verify_totals totals;
    bw_err e = bw_verify(t.data, on_finding, NULL, NULL, &totals);
    if (e) wrong("verify: %s: %s", bw_err_name(e), bw_error_message());
}

static void run_one(who w, const char *fault)
{
    int status = 0;
    t.why[0] = 0;
    run_shell("rm -rf %s && mkdir -m 700 %s", t.dir, t.dir);
    pid_t daemon = start_daemon(w == FRESH ? fault : NULL, &status);
    if (w == AGAIN && daemon) {
        client("scenario", NULL);
        kill(daemon, SIGKILL);
        waitpid(daemon, &status, 0);
        daemon = start_daemon(fault, &status);
    }
    if (daemon) {
        client("scenario", w == CLIENT ? fault : NULL);
        stop_daemon(daemon, w != CLIENT && *fault);
    } else if (w == CLIENT || !*fault) {
        wrong("the daemon does not come up, without faults (status %d)", status);
    }
    look_afterwards();
}

static void read_counts(kind_count *out)
{
    memset(out, 0, KINDS * sizeof *out);
    int fd = open(t.counts, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    if (read(fd, out, KINDS * sizeof *out) < 0) memset(out, 0, KINDS * sizeof *out);
    close(fd);
}

static bool run_case(const fault_case *c)
{
    char fault[64];
    kind_count counts[KINDS];
    snprintf(fault, sizeof fault, "%s:%lu:%d%s", c->call, c->k, c->error, c->forever ? ":forever" : "");
    run_one(c->who, fault);
    read_counts(counts);
    unsigned long failed = 0;
    for (int i = 0; i < KINDS; i++) failed += counts[i].failed;
    t.cases++;
    t.hit += failed > 0;
    if (!t.why[0]) return true;
    t.violations++;
    printf("FAIL  %s %s (%s, failed %lu): %s\n", who_names[c->who], fault, strerror(c->error), failed, t.why);
    run_shell("tail -n 400 %s | grep -vE 'level=info|^$' | tail -n 14 | cut -c1-260 | sed 's/^/      | /'", t.log);
    return false;
}

/* ---- which cases ---- */

/* What the call may plausibly say; 0 ends. Never waits and never-failing calls are left alone. */
static const int *errors_of(const char *call)
{
    static const struct { const char *call; int errors[4]; } table[] = {
        {"open", {EMFILE, EIO, ENOSPC}}, {"openat", {EMFILE, EIO, ENOSPC}}, {"pread", {EIO, ENOMEM}}, {"pwrite", {EIO, ENOSPC}},
        {"pwritev", {EIO, ENOSPC}}, {"write", {EIO, ENOSPC}}, {"fallocate", {ENOSPC, EIO}}, {"ftruncate", {EIO, EACCES}},
        {"fdatasync", {EIO, ENOSPC}}, {"fsync", {EIO}}, {"mmap", {ENOMEM, EACCES}}, {"madvise", {ENOMEM, EIO, EOPNOTSUPP}},
        {"fstat", {EIO}}, {"mkdir", {ENOSPC, EACCES}}, {"link", {EIO, EACCES, ENOSPC}}, {"rename", {EIO, ENOSPC}},
        {"unlink", {EIO, EACCES}}, {"opendir", {EMFILE, EIO}}, {"statfs", {EIO}}, {"flock", {EIO}}, {"socket", {EMFILE, ENOMEM}},
        {"connect", {ECONNREFUSED, EACCES}}, {"send", {EPIPE, ENOMEM}}, {"recv", {ECONNRESET, ENOMEM}}, {"chown", {EACCES}},
        {"malloc", {ENOMEM}}, {"calloc", {ENOMEM}}, {"realloc", {ENOMEM}}, {"accept", {EMFILE}}, {"fcntl", {EMFILE}},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(table[i].call, call) == 0) return table[i].errors;
    return NULL;
}

static uint64_t random_state;
static unsigned long below(unsigned long n)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (unsigned long)(random_state >> 11) % n;
}

static void every_case(void)
{
    for (int w = 0; w < WHO_COUNT; w++)
        for (int i = 0; i < KINDS; i++) {
            const kind_count *c = &t.kinds[w][i];
            const int *errors = errors_of(c->name);
            for (unsigned long k = 1; errors && k <= c->calls; k++)
                for (int mode = 0; mode < 2; mode++) /* each errno by turns: what differs by it is the message, mostly */
                    for (int e = 0; errors[e]; e++) {
                        if (k > 12 && e != (int)(k % 2) % (errors[1] ? 2 : 1)) continue;
                        fault_case f = {.who = (who)w, .k = k, .error = errors[e], .forever = mode};
                        memcpy(f.call, c->name, sizeof f.call);
                        run_case(&f);
                    }
        }
}

static void sampled_cases(int64_t until)
{
    while (now_ms() < until) {
        who w = (who)below(WHO_COUNT);
        const kind_count *c = &t.kinds[w][below(KINDS)];
        const int *errors = errors_of(c->name);
        if (!errors || !c->calls) continue;
        int n = 0;
        while (errors[n]) n++;
        fault_case f = {.who = w, .k = 1 + below(below(2) ? c->calls : c->calls < 8 ? c->calls : 8), .error = errors[below((unsigned long)n)],
                        .forever = below(2)};
        memcpy(f.call, c->name, sizeof f.call);
        run_case(&f);
    }
}

static void given_case(const char *text)
{
    fault_case f = {.who = FRESH};
    char name[8], mode[8] = "";
    if (sscanf(text, "%7s %15[^:]:%lu:%d:%7s", name, f.call, &f.k, &f.error, mode) < 4) abort();
    for (int w = 0; w < WHO_COUNT; w++)
        if (strcmp(who_names[w], name) == 0) f.who = (who)w;
    f.forever = mode[0] != 0;
    run_case(&f);
}

static bool count_calls(void)
{
    for (int w = 0; w < WHO_COUNT; w++) {
        run_one((who)w, "");
        if (t.why[0]) {
            printf("FAIL  %s, without any fault: %s\n", who_names[w], t.why);
            run_shell("tail -n 14 %s | cut -c1-260 | sed 's/^/      | /'", t.log);
            t.violations++;
            return false;
        }
        read_counts(t.kinds[w]);
        unsigned long all = 0;
        printf("calls of %s:", who_names[w]);
        for (int i = 0; i < KINDS; i++) {
            if (t.kinds[w][i].calls) printf(" %s %lu", t.kinds[w][i].name, t.kinds[w][i].calls);
            all += t.kinds[w][i].calls;
        }
        printf("; all %lu\n", all);
    }
    return true;
}

/* Met before, and mended: first in every run. */
static void known_cases(void)
{
    static const char *const known[] = {
        "client mmap:8:13",           /* a segment that could not be mapped was taken for one that is written by pwrite */
        "client madvise:1:95:forever" /* a kernel without MADV_POPULATE_WRITE: no buffer for what pwrite is to write */
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) given_case(known[i]);
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "scenario") == 0) return faults_scenario(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "verify") == 0) return faults_verify(argv[2], argv[3]);
    const char *seconds = getenv("FAULTS_SECONDS"), *seed = getenv("FAULTS_SEED"), *one = getenv("FAULTS_CASE");
    int64_t begun = now_ms();
    t.buswayd = getenv("BUSWAYD");
    t.preload = getenv("FAULTS_PRELOAD");
    if (!t.buswayd || readlink("/proc/self/exe", t.self, sizeof t.self - 1) < 0) return fprintf(stderr, "BUSWAYD is not set\n"), 2;
    snprintf(t.dir, sizeof t.dir, "/dev/shm/bwf.%d", (int)getpid());
    snprintf(t.data, sizeof t.data, "%s/data", t.dir);
    snprintf(t.log, sizeof t.log, "%s/log", t.dir);
    snprintf(t.acks, sizeof t.acks, "%s/acks", t.dir);
    snprintf(t.counts, sizeof t.counts, "%s/counts", t.dir);
    snprintf(t.url, sizeof t.url, "ipc://%s/bus.sock", t.dir);
    random_state = (uint64_t)(seed ? atoll(seed) : 1) * UINT64_C(0x9e3779b97f4a7c15) + 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    int limit = seconds ? atoi(seconds) : 50;
    if (one) given_case(one);
    else if (count_calls()) {
        known_cases();
        if (limit) sampled_cases(begun + limit * 1000LL);
        else every_case();
    }
    if (getenv("FAULTS_KEEP")) printf("kept: %s\n", t.dir);
    else run_shell("rm -rf %s", t.dir);
    printf("%lu cases of failing system calls, seed %s; the fault was met in %lu; %lld s\n", t.cases, seed ? seed : "1", t.hit,
           (long long)(now_ms() - begun) / 1000);
    printf("%lu passed, %lu failed\n", t.cases - (t.violations < t.cases ? t.violations : t.cases), t.violations);
    return t.violations != 0;
}
