/* bench/apart.c: rows with bounds, and a child beside a daemon; see apart.h. */
#include "apart.h"

#include <busway/busway.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

void apart_add(apart *a, const char *name, double value, const char *unit, double bound, bool at_least)
{
    if (a->count == APART_ROWS_MAX) return;
    apart_row *r = &a->rows[a->count++];
    *r = (apart_row){.value = value, .bound = bound, .at_least = at_least};
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->unit, sizeof r->unit, "%s", unit);
}

bool apart_failed(apart *a, const char *what)
{
    if (!a->error[0]) snprintf(a->error, sizeof a->error, "%.80s: %.400s", what, bw_error_message());
    return false;
}

int apart_by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void report(const apart_case *k, const apart *a, FILE *json, bool table)
{
    if (table) printf("%-52s %14s %-10s %s\n", k->title, "Busway", "", "bound");
    fprintf(json, "[");
    for (size_t i = 0; i < a->count; i++) {
        const apart_row *r = &a->rows[i];
        bool met = r->at_least ? r->value >= r->bound : r->value <= r->bound;
        char bound[64] = "";
        if (r->bound >= 0) snprintf(bound, sizeof bound, "%s %g  %s", r->at_least ? ">=" : "<=", r->bound, met ? "met" : "MISSED");
        if (table) printf("%-52s %14.*f %-10s %s\n", r->name, r->value < 1000 ? 2 : 0, r->value, r->unit, bound);
        fprintf(json, "%s\n  {\"case\":\"%s\",\"figure\":\"%s\",\"value\":%.3f,\"unit\":\"%s\",\"bound\":%g,\"met\":%s}", i ? "," : "",
                k->name, r->name, r->value, r->unit, r->bound, r->bound < 0 ? "null" : met ? "true" : "false");
    }
    fprintf(json, "\n]\n");
    fflush(stdout);
}

bool apart_run(const apart_case *k, const char *program, const char *dir, bool quick, FILE *json, bool table)
{
    apart *a = mmap(NULL, k->shared_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (a == MAP_FAILED) return false;
    bench_daemon d = {0};
    bool ok = bench_daemon_start(&d, program, dir, a->error, sizeof a->error);
    fflush(NULL);
    pid_t pid = ok ? fork() : -1;
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(k->run(a, &d, program, dir, quick) ? 0 : 1);
    }
    int status = 0;
    ok = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
    if (d.pid) bench_daemon_stop(&d);
    if (d.runtime[0]) bench_remove_tree(d.runtime);
    report(k, a, json, table);
    if (!ok) fprintf(stderr, "busway-bench: %s: %s\n", k->name, a->error[0] ? a->error : "it was killed");
    munmap(a, k->shared_bytes);
    return ok;
}
