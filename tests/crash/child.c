/* tests/crash/child.c: what the children share, and the program's entry: crash drive|writer|reader|survey|admin|topics … */
#include "crash/crash.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stopping;
static void on_term(int sig) { (void)sig; stopping = 1; }
bool crash_stopping(void) { return stopping != 0; }

/* Whoever waits here looks often. A long time between two looks: the whole machine stood still (a suspended virtual machine, a
 * stopped process group), which is nobody's fault: that time does not count. */
enum { STOOD_STILL_MS = 5000 };
static int64_t stood_still_ms;

int64_t crash_now_ms(void)
{
    static int64_t last;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    int64_t now = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    if (last && now - last > STOOD_STILL_MS) stood_still_ms += now - last;
    last = now;
    return now - stood_still_ms;
}

bool crash_stood_still(void)
{
    (void)crash_now_ms();
    return stood_still_ms > 0;
}

static size_t filling_len(uint32_t producer, uint32_t sequence)
{
    return (producer * 2654435761u ^ sequence * 40503u) % CRASH_FILLING_MAX;
}

size_t crash_value_make(uint8_t *out, uint32_t producer, uint32_t sequence)
{
    size_t n = filling_len(producer, sequence);
    memcpy(out, &producer, 4);
    memcpy(out + 4, &sequence, 4);
    for (size_t i = 0; i < n; i++) out[8 + i] = (uint8_t)(producer + sequence * 7 + i);
    return 8 + n;
}

bool crash_value_check(const uint8_t *value, size_t len, uint32_t *producer, uint32_t *sequence)
{
    if (len < 8) return false;
    memcpy(producer, value, 4);
    memcpy(sequence, value + 4, 4);
    uint8_t expected[8 + CRASH_FILLING_MAX];
    return len == crash_value_make(expected, *producer, *sequence) && memcmp(value, expected, len) == 0;
}

void crash_report(const crash_message *m)
{
    while (write(CRASH_PIPE_FD, m, sizeof *m) != sizeof *m) {
        if (errno != EINTR) _exit(0); /* the parent is gone */
    }
}

void crash_bad(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fprintf(stderr, "VIOLATION: ");
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    crash_report(&(crash_message){.kind = CRASH_BAD});
}

int main(int argc, char **argv)
{
    static const struct { const char *name; int (*run)(int, char **); } roles[] = {
        {"drive", crash_drive}, {"groups", crash_groups}, {"writer", crash_writer}, {"reader", crash_reader}, {"admin", crash_admin},
        {"topics", crash_topics}, {"survey", crash_survey}, {"group-member", crash_group_member},
        {"fill", crash_fill}, {"poison", crash_poison}, {"poisoned", crash_poisoned}};
    for (size_t i = 0; argc > 1 && i < sizeof roles / sizeof *roles; i++) {
        if (strcmp(argv[1], roles[i].name) != 0) continue;
        if (i > 0 && roles[i].run != crash_groups) {
            signal(SIGTERM, on_term);
            signal(SIGPIPE, SIG_IGN);
            sigset_t term; /* blocked by the parent until here */
            sigemptyset(&term);
            sigaddset(&term, SIGTERM);
            sigprocmask(SIG_UNBLOCK, &term, NULL);
        }
        return roles[i].run(argc - 2, argv + 2);
    }
    fprintf(stderr, "usage: crash drive; see tests/crash/run.sh\n");
    return 2;
}
