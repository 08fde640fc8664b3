/* tests/battery/faults_case.c: one case of the fault battery: processes in a folder of their own, and what must hold. See faults.c. */
#include "battery/faults.h"

#include <busway/busway.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_MS = 20000, CLIENT_MS = 90000, STOP_MS = 20000, STOOD_STILL_MS = 3000 };
const char *const who_names[WHO_COUNT] = {"fresh", "again", "cold", "client"};

int64_t bench_now_ms(void)
{
    static int64_t last, still;
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    int64_t now = (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
    if (last && now - last > STOOD_STILL_MS) still += now - last;
    last = now;
    return now - still;
}

static void wrong(bench *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void wrong(bench *b, const char *format, ...)
{
    if (b->why[0]) return; /* the first says it */
    va_list args;
    va_start(args, format);
    vsnprintf(b->why, sizeof b->why, format, args);
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

void bench_show_log(const bench *b)
{
    run_shell("tail -n 400 %s | grep -vE 'level=info|^$' | tail -n 14 | cut -c1-260 | sed 's/^/      | /'", b->log);
}

void bench_open(bench *b, int number)
{
    snprintf(b->dir, sizeof b->dir, "/dev/shm/bwf.%d.%d", (int)getpid(), number);
    snprintf(b->run, sizeof b->run, "%s/run", b->dir);
    snprintf(b->data, sizeof b->data, "%s/data", b->dir);
    snprintf(b->log, sizeof b->log, "%s/log", b->dir);
    snprintf(b->acks, sizeof b->acks, "%s/acks", b->dir);
    snprintf(b->url, sizeof b->url, "ipc://%s/bus.sock", b->run);
    snprintf(b->table_path, sizeof b->table_path, "%s.sites", b->dir);
    if (readlink("/proc/self/exe", b->self, sizeof b->self - 1) < 0) abort();
    int fd = open(b->table_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, sizeof *b->table) != 0) abort();
    b->table = mmap(NULL, sizeof *b->table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (b->table == MAP_FAILED) abort();
    close(fd);
}

void bench_close(bench *b, bool keep)
{
    munmap(b->table, sizeof *b->table);
    if (keep) printf("kept: %s\n", b->dir);
    else run_shell("rm -rf %s %s", b->dir, b->table_path);
}

/* ---- processes ---- */

static void set_fault(const bench *b, const char *fault, bool seam)
{
    if (seam) {
        setenv("BUSWAY_FAULT", fault, 1);
        return;
    }
    if (*fault) setenv("FAULTS_FAIL", fault, 1);
    setenv("FAULTS_SITES", b->table_path, 1);
    setenv("LD_PRELOAD", b->preload, 1);
}

/* fault: NULL for none at all. */
static pid_t spawn(const bench *b, const char *fault, bool seam, int ready_fd, const char *const argv[])
{
    pid_t pid = fork();
    if (pid != 0) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int log = open(b->log, O_WRONLY | O_CREAT | O_APPEND, 0600), null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    if (ready_fd == 3) fcntl(3, F_SETFD, 0);
    else if (ready_fd >= 0) dup2(ready_fd, 3);
    for (int fd = ready_fd >= 0 ? 4 : 3; fd < 64; fd++) close(fd);
    if (fault) set_fault(b, fault, seam);
    execv(argv[0], (char **)(uintptr_t)argv);
    _exit(127);
}

/* As wrong(), unless the fault is in a library that may take the daemon with it. */
static void daemon_wrong(bench *b, const char *what, const char *how, int number)
{
    if (!b->may_take_daemon) wrong(b, "%s %s %d", what, how, number);
    else if (!b->taken[0]) snprintf(b->taken, sizeof b->taken, "%s %s %d", what, how, number);
}

/* Its end within the time; otherwise it hangs, and is killed. */
static int reap(bench *b, pid_t pid, int ms, const char *what)
{
    int status = 0;
    for (int64_t end = bench_now_ms() + ms; bench_now_ms() < end; usleep(1000))
        if (waitpid(pid, &status, WNOHANG) == pid) {
            bool daemon = strncmp(what, "the daemon", 10) == 0;
            if (WIFSIGNALED(status) && daemon) daemon_wrong(b, what, "died of signal", WTERMSIG(status));
            else if (WIFSIGNALED(status)) wrong(b, "%s died of signal %d", what, WTERMSIG(status));
            else if (WEXITSTATUS(status) == 70 && daemon) daemon_wrong(b, what, "ended with an internal error,", 70);
            else if (WEXITSTATUS(status) == 70) wrong(b, "%s ended with an internal error", what);
            return status;
        }
    if (strncmp(what, "the daemon", 10) == 0) daemon_wrong(b, what, "hangs: no end within ms:", ms);
    else wrong(b, "%s hangs: no end within %d ms", what, ms);
    run_shell("for s in /proc/%d/task/*; do echo $(cat $s/comm): $(cat $s/wchan); done >>%s", (int)pid, b->log);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return -1;
}

static bool clean(int status) { return status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0; }

static off_t log_bytes(const bench *b)
{
    struct stat st;
    return stat(b->log, &st) == 0 ? st.st_size : 0;
}

/* Who does not come up says why: "buswayd: …" is the last it wrote. */
static bool said_why(const bench *b, off_t from)
{
    char text[4096] = "";
    int fd = open(b->log, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, from);
    if (fd >= 0) close(fd);
    const char *at = n > 0 ? strstr(text, "buswayd: ") : NULL;
    return at && strlen(at) > 20;
}

static bool answers(const bench *b)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", b->url + strlen("ipc://"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool yes = fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof address) == 0;
    if (fd >= 0) close(fd);
    return yes;
}

/* 0 when it ended instead of coming up; *status then. */
static pid_t start_daemon(bench *b, const char *fault, bool seam, int *status)
{
    const char *const argv[] = {b->buswayd, "--data-dir", b->data, "--runtime-dir", b->run, "--ready-fd", "3", "--set",
                                "log.flush.interval.ms=40", "--set", "disk.reserve.bytes=0", "--set", "meta.map.bytes=1MiB", NULL};
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) abort();
    off_t before = log_bytes(b);
    pid_t pid = spawn(b, fault, seam, ends[1], argv);
    close(ends[1]);
    char word[8] = "";
    struct pollfd p = {.fd = ends[0], .events = POLLIN};
    int polled = 0;
    for (int64_t until = bench_now_ms() + START_MS; !polled && bench_now_ms() < until;) polled = poll(&p, 1, 500);
    bool ready = polled == 1 && read(ends[0], word, sizeof word) > 0;
    if (polled == 1 && !ready) ready = answers(b); /* that it could not be told is no reason not to come up */
    close(ends[0]);
    if (ready) return pid;
    *status = reap(b, pid, 2000, "the daemon, coming up,");
    if (clean(*status)) wrong(b, "the daemon did not come up and calls that a success");
    else if (*status != -1 && WIFEXITED(*status) && !said_why(b, before)) wrong(b, "the daemon did not come up and does not say why");
    return 0;
}

static void stop_daemon(bench *b, pid_t pid, bool faulty)
{
    kill(pid, SIGTERM);
    int status = reap(b, pid, STOP_MS, "the daemon, told to stop,");
    if (!faulty && !clean(status)) wrong(b, "the daemon without faults did not stop cleanly (status %d)", status);
}

static void client(bench *b, const char *role, const char *fault, bool seam)
{
    const char *const argv[] = {b->self, role, b->url, b->acks, NULL};
    int status = reap(b, spawn(b, fault, seam, -1, argv), CLIENT_MS, role);
    if (status == -1 || clean(status)) return;
    wrong(b, "%s: see VIOLATION in its output", role);
}

/* ---- a case ---- */

static void on_finding(void *opaque, const bw_finding *f)
{
    if (f->is_error) wrong(opaque, "verify: %s byte %llu: %s", f->path, (unsigned long long)f->position, f->message);
}

static void look_afterwards(bench *b)
{
    int status = 0;
    pid_t daemon = start_daemon(b, NULL, false, &status);
    if (!daemon) {
        wrong(b, "the daemon does not come up again, without faults (status %d)", status);
        return;
    }
    client(b, "verify", NULL, false);
    stop_daemon(b, daemon, false);
    bw_verify_totals totals;
    bw_err e = bw_verify(b->data, on_finding, NULL, b, &totals);
    if (e) wrong(b, "verify: %s: %s", bw_err_name(e), bw_error_message());
}

bool bench_run(bench *b, who w, const char *fault, bool seam)
{
    int status = 0;
    b->why[0] = b->taken[0] = 0;
    memset(b->table, 0, sizeof *b->table);
    run_shell("rm -rf %s && mkdir -m 700 %s %s", b->dir, b->dir, b->run);
    pid_t daemon = start_daemon(b, w == FRESH ? fault : NULL, seam, &status);
    if ((w == AGAIN || w == COLD) && daemon) {
        client(b, "scenario", NULL, false);
        kill(daemon, SIGKILL);
        waitpid(daemon, &status, 0);
        if (w == COLD) run_shell("rm -rf %s && mkdir -m 700 %s", b->run, b->run);
        daemon = start_daemon(b, fault, seam, &status);
    }
    if (daemon) {
        client(b, "scenario", w == CLIENT ? fault : NULL, seam);
        stop_daemon(b, daemon, w != CLIENT && *fault);
    } else if (w == CLIENT || !*fault) {
        wrong(b, "the daemon does not come up, without faults (status %d)", status);
    }
    b->may_take_daemon = false; /* from here on nothing fails */
    look_afterwards(b);
    if (atomic_load(&b->table->sync_retries)) wrong(b, "%.150s was synced after a sync of its partition had failed", b->table->sync_retried);
    return !b->why[0];
}
