/* embedded/util.c: times, folders, and whose daemon is whose. */
#include "embedded/embedded.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int64_t em_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void em_sleep_ns(int64_t ns)
{
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    if (ns > 0) nanosleep(&t, NULL);
}

uint32_t em_random(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

int64_t em_delay_ns(void)
{
    static _Thread_local int fd = -1;
    static _Thread_local pid_t of;
    char text[96];
    if (fd < 0 || of != getpid()) {
        fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
        of = getpid();
    }
    ssize_t n = pread(fd, text, sizeof text - 1, 0);
    if (n <= 0) return 0;
    text[n] = 0;
    const char *second = strchr(text, ' ');
    return second ? strtoll(second, NULL, 10) : 0;
}

void em_die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("FAIL  ", stdout);
    vprintf(format, args);
    va_end(args);
    puts("");
    exit(1);
}

bool em_verdict(bool good, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs(good ? "ok    " : "FAIL  ", stdout);
    vprintf(format, args);
    va_end(args);
    puts("");
    fflush(stdout);
    return good;
}

void em_place_make(em_place *p, const char *options)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(p->dir, sizeof p->dir, "%s/bwem.XXXXXX", tmp && strlen(tmp) < 150 ? tmp : "/tmp");
    if (!mkdtemp(p->dir)) em_die("mkdtemp %s: %s", p->dir, strerror(errno));
    snprintf(p->url, sizeof p->url, "dir:%s%s", p->dir, options);
}

void em_place_remove(const em_place *p)
{
    char command[300];
    for (int i = 0; i < 200; i++) {
        pid_t pid = em_coordinator(p);
        if (pid == 0) break;
        kill(pid, i < 100 ? SIGTERM : SIGKILL);
        em_sleep_ns(20000000);
    }
    snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    if (system(command) != 0) printf("can't remove %s\n", p->dir);
}

bw_bus *em_bus(const char *url, bw_transport transport)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    o.transport = transport;
    if (bw_bus_open(url, &o, &bus)) em_die("%s: %s", url, bw_error_message());
    return bus;
}

pid_t em_listener(const em_place *p)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct ucred who = {0};
    socklen_t len = sizeof who;
    snprintf(a.sun_path, sizeof a.sun_path, "%.90s/run/bus.sock", p->dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool up = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (!up || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0) who.pid = 0;
    if (fd >= 0) close(fd);
    return who.pid;
}

static bool is_ours(const em_place *p, pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0) close(fd);
    if (n <= 0) return false;
    for (ssize_t i = 0; i < n; i++)
        if (!text[i]) text[i] = ' ';
    text[n] = 0;
    return strstr(text, "buswayd") && strstr(text, p->dir);
}

pid_t em_coordinator(const em_place *p)
{
    char path[300], text[32] = "";
    snprintf(path, sizeof path, "%s/daemon.lock", p->dir);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    pid_t pid = n > 0 ? (pid_t)atoi(text) : 0;
    return pid > 1 && is_ours(p, pid) ? pid : 0;
}

int em_kill(const em_place *p, pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    int r = fd >= 0 && is_ours(p, pid) ? (int)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) : -1;
    if (fd >= 0) close(fd);
    return r;
}

/* ---- times ---- */

void em_times_add(em_times *t, int64_t ns)
{
    if (t->count == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 256;
        t->at = realloc(t->at, t->cap * sizeof *t->at);
        if (!t->at) em_die("no memory");
    }
    t->at[t->count++] = ns;
}

static int ascending(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

int64_t em_times_part(em_times *t, double part)
{
    if (t->count == 0) return 0;
    qsort(t->at, t->count, sizeof *t->at, ascending);
    size_t i = (size_t)(part * (double)t->count);
    return t->at[i < t->count ? i : t->count - 1];
}

void em_times_print(em_times *t, const char *what)
{
    printf("      %-44s %6zu times: median %.1f, p90 %.1f, p99 %.1f, longest %.1f ms\n", what, t->count, (double)em_times_part(t, 0.5) / 1e6,
           (double)em_times_part(t, 0.9) / 1e6, (double)em_times_part(t, 0.99) / 1e6, (double)em_times_part(t, 1) / 1e6);
}

void em_times_free(em_times *t)
{
    free(t->at);
    *t = (em_times){0};
}
