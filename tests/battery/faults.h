/* tests/battery/faults.h: the fault battery: its cases and the roles of its clients. See faults.c for the whole. */
#ifndef BATTERY_FAULTS_H
#define BATTERY_FAULTS_H

#include "battery/sites.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FAULTS_A_PARTITIONS = 2, FAULTS_VALUE_MAX = 256 };

/* A record's value is text, "topic/partition/number", and a filling that follows from the number. Returns its length. */
size_t faults_value(char *out, const char *topic, int partition, uint32_t number);

/* faults_scenario: url acknowledgements-file: topics, records on both paths with each kind of acknowledgement, reads, look-ups,
 * deletions. Goes on after errors; each acknowledged record is a line in the file. Exit code 1 when it saw a promise broken. */
int faults_scenario(const char *url, const char *acks_path);
/* faults_verify: url acknowledgements-file: everything that was acknowledged is there, and every partition takes records. */
int faults_verify(const char *url, const char *acks_path);

/* ---- one case (faults_case.c) ---- */

/* Whose calls fail: the daemon of an empty folder; one that takes over after a kill -9; one that recovers from the files after it
 * (the runtime folder is gone); the client. */
typedef enum who { FRESH, AGAIN, COLD, CLIENT, WHO_COUNT } who;
extern const char *const who_names[WHO_COUNT];

typedef struct bench {
    char dir[64], run[80], data[80], log[80], acks[80], table_path[80], url[128], self[256];
    const char *buswayd, *preload;
    site_table *table;
    char why[512]; /* what was wrong in the last case; "": nothing */
    /* The call that fails is a library's own (nng): it may take the daemon with it, which is then like a kill -9: nothing is lost by
     * that. */
    bool may_take_daemon;
    char taken[160]; /* it did: how */
} bench;

/* bench_open: a folder in memory of its own. */
void bench_open(bench *b, int number);
void bench_close(bench *b, bool keep);
/* bench_run: fault: FAULTS_FAIL's text; "call:k:errno…" (BUSWAY_FAULT: the seam of base/os.h) when seam; "" none, sites are counted.
 * false: b->why. */
bool bench_run(bench *b, who w, const char *fault, bool seam);
/* bench_show_log: the last lines that matter. */
void bench_show_log(const bench *b);
int64_t bench_now_ms(void); /* monotonic, without the time in which the machine stood still */

#endif
