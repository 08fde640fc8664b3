/* bench/apart.h: cases that are runs of their own (`--case groups`, `queue`, `state`): rows of one figure and its bound, measured in a
 * child beside a daemon; the process that reports opens no bus. */
#ifndef BENCH_APART_H
#define BENCH_APART_H

#include "bench.h"

enum { APART_ROWS_MAX = 16 };

typedef struct apart_row {
    char name[64], unit[12];
    double value, bound; /* bound < 0: none */
    bool at_least;
} apart_row;

/* In memory that the child shares; what a case shares besides begins with it. */
typedef struct apart {
    apart_row rows[APART_ROWS_MAX];
    size_t count;
    char error[600];
} apart;

typedef struct apart_case {
    const char *name, *title;                                             /* `--case NAME`, the table's heading */
    size_t shared_bytes;                                                  /* of what begins with the apart */
    bool (*run)(apart *shared, const bench_daemon *d, const char *program, const char *dir, bool quick); /* in the child */
} apart_case;

void apart_add(apart *a, const char *name, double value, const char *unit, double bound, bool at_least);
/* apart_failed: false; the first reason is kept, with the thread's last error. */
bool apart_failed(apart *a, const char *what);
/* apart_run: false after an error, which it prints; the rows measured until then are reported. */
bool apart_run(const apart_case *k, const char *program, const char *dir, bool quick, FILE *json, bool table);
/* apart_by_value: for qsort of doubles. */
int apart_by_value(const void *a, const void *b);

#endif
