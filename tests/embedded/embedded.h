/* embedded/embedded.h: the program that tests dir: buses from outside, with processes that are killed. Public API only.
 *
 * Each case is a subcommand that prints what it measured and "ok" or "FAIL" lines, and fails when it found something wrong. */
#ifndef BW_TESTS_EMBEDDED_H
#define BW_TESTS_EMBEDDED_H

#include <busway/busway.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

typedef struct em_place {
    char dir[200], url[300]; /* the folder; dir:… with options */
} em_place;

/* util.c */
int64_t em_now_ns(void);
void em_sleep_ns(int64_t ns);
uint32_t em_random(uint64_t *state);
/* em_delay_ns: how long this thread has waited for a processor in all, as the scheduler counts. */
int64_t em_delay_ns(void);
void em_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
bool em_verdict(bool good, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* em_place_make: a folder of its own below $TMPDIR; options as "?…" or "". em_place_remove: ends its daemon, too. */
void em_place_make(em_place *p, const char *options);
void em_place_remove(const em_place *p);
bw_bus *em_bus(const char *url, bw_transport transport);
/* em_listener: the pid of who listens on the folder's socket, as the kernel says; 0: nobody does. */
pid_t em_listener(const em_place *p);
/* em_coordinator: the pid in daemon.lock, if that is a live daemon of this folder; 0: none. It may still be starting. */
pid_t em_coordinator(const em_place *p);
int em_kill(const em_place *p, pid_t pid); /* SIGKILL, if it is this folder's daemon; -1 */

/* Times in ns, sorted at the end. */
typedef struct em_times {
    int64_t *at;
    size_t count, cap;
} em_times;
void em_times_add(em_times *t, int64_t ns);
int64_t em_times_part(em_times *t, double part); /* 0.5: the median; 1: the longest */
void em_times_print(em_times *t, const char *what);
void em_times_free(em_times *t);
/* em_first_times: of so many processes, from their start to an open bus and to their first acknowledged record, each in a new folder. */
void em_first_times(int times, em_times *opened, em_times *sent);

/* work.c: the processes that go on meanwhile. What they tell lies in memory that all share. */
enum { EM_OVER_MAX = 40 };
typedef struct em_slow {
    int64_t beyond_ns, took_ns, after_ns; /* after_ns: how long after a kill it began */
    long sleeps, faults, reads;           /* the thread went to sleep by itself; pages that were mapped, and read from the disk, meanwhile */
    char where[600];                      /* $EMBEDDED_WATCH: where it was in the kernel at the end of the first ms */
} em_slow;
typedef struct em_report {
    _Atomic int64_t acked;          /* records, or commits */
    _Atomic int64_t longest_ns;     /* of one call */
    _Atomic int64_t beyond_ns;      /* of one call, without the time that the thread waited for a processor */
    _Atomic int64_t over, asleep;   /* calls over 1 ms beyond it; those of them in which the thread went to sleep by itself */
    _Atomic int64_t calls, inside_ns;
    em_slow slow[EM_OVER_MAX];      /* the first of them */
    _Atomic int failed;
    char why[400];
} em_report;
typedef struct em_shared {
    _Atomic bool stop;
    _Atomic int64_t killed_ns; /* when, last */
    em_report direct, durable, socket, reader, commits, control; /* control: reads the clock, and nothing else */
} em_shared;
typedef void (*em_work)(const em_place *p, em_shared *shared);
pid_t em_start(em_work work, const em_place *p, em_shared *shared);
void em_work_direct(const em_place *p, em_shared *s);
void em_work_durable(const em_place *p, em_shared *s);
void em_work_socket(const em_place *p, em_shared *s);
void em_work_reader(const em_place *p, em_shared *s);
void em_work_commits(const em_place *p, em_shared *s);
void em_work_control(const em_place *p, em_shared *s);
/* em_check_log: every acknowledged record of a writer is there once, in order; at most one more, whose answer was under way. */
bool em_check_log(bw_bus *bus, const char *topic, const em_report *r, const char *who);
bool em_check_commit(bw_bus *bus, const em_report *r);
bool em_check_reports(em_shared *s);
void em_print_gaps(const em_report *r, const char *who, bool each);

/* cases: argc, argv behind the subcommand's name; the exit status */
int em_case_kills(int argc, char **argv);
int em_case_over(int argc, char **argv);
int em_case_self(int argc, char **argv);
int em_case_first(int argc, char **argv);
int em_case_race(int argc, char **argv);
int em_case_figures(int argc, char **argv);

#endif
