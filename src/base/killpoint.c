/* base/killpoint.c: see killpoint.h. Empty without BW_TESTING. */
#include "base/killpoint.h"

#ifdef BW_TESTING
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAMES_MAX = 256 };

static struct {
    pthread_mutex_t lock;
    char name[64];
    char action[8];
    const char *seen[NAMES_MAX];
    size_t seen_count;
    int log_fd;
} point = {.lock = PTHREAD_MUTEX_INITIALIZER, .log_fd = -1};
static atomic_long passes_left;
static atomic_int read_by; /* the process whose environment was read: a child of fork reads its own */
static _Thread_local struct { bw_kill_point_watcher fn; void *opaque; } watcher;

void bw_kill_point_watch(bw_kill_point_watcher fn, void *opaque)
{
    watcher.fn = fn;
    watcher.opaque = opaque;
}

static void tell_watcher(const char *name)
{
    bw_kill_point_watcher fn = watcher.fn;
    watcher.fn = NULL;
    fn(watcher.opaque, name);
    watcher.fn = fn;
}

static void read_environment(void)
{
    const char *spec = getenv("BUSWAY_KILL");
    long n = 1;
    point.name[0] = point.action[0] = 0;
    point.seen_count = 0;
    if (spec && sscanf(spec, "%63[^:]:%ld:%7s", point.name, &n, point.action) >= 1) atomic_store(&passes_left, n);
    const char *log = getenv("BUSWAY_KILL_LOG");
    if (log) point.log_fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void log_line(const char *mark, const char *name)
{
    char line[80];
    int len = snprintf(line, sizeof line, "%s%s\n", mark, name);
    if (write(point.log_fd, line, (size_t)len) < 0) point.log_fd = -1;
}

static void log_first_pass(const char *name)
{
    pthread_mutex_lock(&point.lock);
    size_t i = 0;
    while (i < point.seen_count && point.seen[i] != name) i++;
    if (i == point.seen_count && i < NAMES_MAX) {
        point.seen[point.seen_count++] = name;
        log_line("", name);
    }
    pthread_mutex_unlock(&point.lock);
}

void bw_kill_point(const char *name)
{
    if (watcher.fn) tell_watcher(name);
    pid_t self = getpid();
    if (atomic_load(&read_by) != self) {
        pthread_mutex_lock(&point.lock);
        if (atomic_load(&read_by) != self) read_environment();
        atomic_store(&read_by, self);
        pthread_mutex_unlock(&point.lock);
    }
    if (point.log_fd >= 0) log_first_pass(name);
    if (!point.name[0] || strcmp(name, point.name) != 0) return;
    if (atomic_fetch_sub(&passes_left, 1) != 1) return;
    if (point.log_fd >= 0) log_line("!", name);
    if (strcmp(point.action, "stop") == 0) raise(SIGSTOP);
    else if (strcmp(point.action, "exit") == 0) _exit(42);
    else kill(getpid(), SIGKILL);
}
#else
typedef int bw_killpoint_is_empty; /* ISO C wants a declaration */
#endif
