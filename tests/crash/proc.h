/* tests/crash/proc.h: the parent's children: start one with a pipe and a log file, kill it, learn of its end. */
#ifndef CRASH_PROC_H
#define CRASH_PROC_H

#include "crash/oracle.h"

#include <stdio.h>
#include <sys/types.h>

typedef struct child {
    pid_t pid;        /* 0: not running */
    int pipe_fd;      /* -1: none */
    char log[128];    /* path of its output */
    char point[72];   /* BUSWAY_KILL it was started with, "" for none */
    char fault[64];   /* BUSWAY_FAULT it is to be started with, "" for none */
    int64_t started_ms;
    int64_t life_ms;  /* how long it may go on after its first word */
    int64_t kill_at_ms; /* 0: it has not said anything yet */
    bool heard;       /* it said something: READY, or a message */
    bool is_daemon;   /* what comes through the pipe is READY, no messages */
    bool killed;      /* by the parent */
    uint8_t buffer[8192];
    size_t have;
    bool bad;         /* CRASH_BAD came */
    bool done;        /* CRASH_DONE came */
    int poisoned;     /* partitions of which CRASH_POISONED came, as bits */
    int64_t end[CRASH_PARTITIONS];
} child;

typedef struct run_dirs {
    char root[64];    /* work folder: logs */
    char data[96];
    char runtime[64]; /* on tmpfs, short: it holds the socket */
    unsigned files_most; /* descriptors that a daemon may have, 0: as many as it likes */
} run_dirs;

/* child_start: argv ends with NULL; descriptor 3 is the pipe. point NULL or "": none. */
void child_start(child *c, const run_dirs *d, const char *name, const char *point, const char *const argv[]);
void child_kill(child *c, int sig);
/* child_drain: take what is in the pipe. */
void child_drain(child *c, oracle *o);
/* child_reap: true when it has ended (what it had told is taken first); *status as of waitpid. block: wait for it. */
bool child_reap(child *c, oracle *o, bool block, int *status);
void child_show_log(const child *c, int lines);

#endif
