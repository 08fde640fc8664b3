/* tests/crash/proc.c: see proc.h. */
#include "crash/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PIPE_BYTES = 1 << 20 };

static void run_child(const child *c, const run_dirs *d, int pipe_end, const char *const argv[])
{
    char text[128];
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int log = open(c->log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    int null = open("/dev/null", O_RDONLY);
    dup2(null, 0);
    dup2(log, 1);
    dup2(log, 2);
    if (pipe_end == CRASH_PIPE_FD) fcntl(pipe_end, F_SETFD, 0);
    else dup2(pipe_end, CRASH_PIPE_FD);
    for (int fd = CRASH_PIPE_FD + 1; fd < 256; fd++) close(fd);
    if (c->point[0]) setenv("BUSWAY_KILL", c->point, 1);
    if (c->fault[0]) setenv("BUSWAY_FAULT", c->fault, 1);
    setenv("BUSWAY_META_JOURNAL_BYTES", "3000", 1); /* a new snapshot of the metadata now and then */
    if (c->is_daemon && d->files_most) setrlimit(RLIMIT_NOFILE, &(struct rlimit){d->files_most, d->files_most});
    snprintf(text, sizeof text, "%s/points", d->root);
    setenv("BUSWAY_KILL_LOG", text, 1);
    sigset_t term; /* SIGTERM may come before the child is ready to take it */
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, NULL);
    char **args = (char **)(uintptr_t)argv; /* exec does not write them */
    execv(argv[0], args);
    _exit(127);
}

void child_start(child *c, const run_dirs *d, const char *name, const char *point, const char *const argv[])
{
    int ends[2] = {-1, -1};
    c->killed = c->done = c->bad = c->heard = false;
    c->kill_at_ms = 0;
    c->poisoned = 0;
    c->life_ms = INT64_MAX;
    c->have = 0;
    c->started_ms = crash_now_ms();
    c->pipe_fd = -1;
    snprintf(c->point, sizeof c->point, "%s", point ? point : "");
    snprintf(c->log, sizeof c->log, "%s/%s.log", d->root, name);
    if (pipe2(ends, O_CLOEXEC) != 0) abort();
    fcntl(ends[0], F_SETPIPE_SZ, PIPE_BYTES);
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    fflush(stdout);
    c->pid = fork();
    if (c->pid < 0) abort();
    if (c->pid == 0) run_child(c, d, ends[1], argv);
    close(ends[1]);
    c->pipe_fd = ends[0];
}

void child_kill(child *c, int sig)
{
    if (!c->pid) return;
    c->killed = true;
    kill(c->pid, sig);
}

static void take(child *c, oracle *o, const crash_message *m)
{
    if (m->kind == CRASH_DONE) {
        c->done = true;
        if (m->partition < CRASH_PARTITIONS) c->end[m->partition] = m->offset;
    } else if (m->kind == CRASH_POISONED) {
        c->poisoned |= 1 << m->partition;
    } else if (m->kind == CRASH_BAD) {
        oracle_violation(o, "told by a child; the end of %s:", c->log);
        if (!c->bad) child_show_log(c, 5);
        c->bad = true;
    } else {
        oracle_take(o, m);
    }
}

void child_drain(child *c, oracle *o)
{
    while (c->pipe_fd >= 0) {
        ssize_t n = read(c->pipe_fd, c->buffer + c->have, sizeof c->buffer - c->have);
        if (n <= 0) return;
        c->heard = true;
        if (c->is_daemon) continue;
        c->have += (size_t)n;
        size_t at = 0;
        for (; c->have - at >= sizeof(crash_message); at += sizeof(crash_message)) {
            crash_message m;
            memcpy(&m, c->buffer + at, sizeof m);
            take(c, o, &m);
        }
        memmove(c->buffer, c->buffer + at, c->have - at);
        c->have -= at;
    }
}

bool child_reap(child *c, oracle *o, bool block, int *status)
{
    if (!c->pid) return false;
    for (;;) {
        pid_t got = waitpid(c->pid, status, WNOHANG);
        child_drain(c, o);
        if (got == c->pid) break;
        if (got < 0 && errno != EINTR) abort();
        if (!block) return false;
        usleep(1000);
    }
    child_drain(c, o);
    if (c->pipe_fd >= 0) close(c->pipe_fd);
    c->pipe_fd = -1;
    c->pid = 0;
    return true;
}

void child_show_log(const child *c, int lines)
{
    char command[256];
    fflush(stdout);
    snprintf(command, sizeof command, "tail -n %d '%s' | cut -c1-300 | sed 's/^/    > /'", lines, c->log);
    if (system(command) != 0) printf("    (no log)\n");
    fflush(stdout);
}
