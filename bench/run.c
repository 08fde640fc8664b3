/* bench/run.c: `make bench`. Runs each case beside its limit, in pairs, and prints a table and build/bench.json.
 *
 * A pair is one run of the limit and one of Busway, right after each other, in alternating order; the first pair is dropped.
 * Figures are medians of the pairs; the ratio is Busway's median over the limit's (rates: higher is better, 1 is the limit
 * itself; nanoseconds: lower is better). Spread is (highest - lowest) / median. Nothing here passes or fails. */
#include "bench.h"

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAIRS_MAX 64
#define MIB       (UINT64_C(1) << 20)

/* The cases. Bytes are of the log: 20 segments timed behind 5 that warm up (the fifth is the first that deletes one). */
static const bench_case cases[] = {
    {BENCH_E2E, "direct", 100, 100, 1, 1, 1280 * MIB, 320 * MIB, 0},
    {BENCH_E2E, "direct", 100, 1, 1, 1, 1280 * MIB, 320 * MIB, 0},
    {BENCH_E2E, "direct", 1024, 100, 1, 1, 1280 * MIB, 320 * MIB, 0},
    {BENCH_E2E, "direct", 65536, 1, 1, 1, 1280 * MIB, 320 * MIB, 0},
    {BENCH_E2E, "direct", 100, 100, 1, 4, 640 * MIB, 320 * MIB, 0},
    {BENCH_RTT_SPIN, "direct", 100, 1, 2, 1, 0, 0, 200000},
    {BENCH_RTT_SLEEP, "direct", 100, 1, 2, 1, 0, 0, 20000},
    {BENCH_E2E, "ipc", 100, 100, 1, 1, 96 * MIB, 32 * MIB, 0},
    {BENCH_REQUEST, "ipc", 100, 1, 1, 0, 0, 0, 10000},
    {BENCH_RTT_SLEEP, "ipc", 100, 1, 2, 1, 0, 0, 5000},
};
#define CASES (sizeof cases / sizeof cases[0])

/* The rows of the report: which figures each kind gives. */
typedef struct metric {
    bench_kind kind;
    const char *name;
    size_t field; /* in bench_figures */
} metric;
static const metric metrics[] = {
    {BENCH_E2E, "e2e", offsetof(bench_figures, rate)},
    {BENCH_RTT_SPIN, "rtt_spin_p50", offsetof(bench_figures, p50_ns)},
    {BENCH_RTT_SPIN, "rtt_spin_p99", offsetof(bench_figures, p99_ns)},
    {BENCH_RTT_SPIN, "rtt_spin_p999", offsetof(bench_figures, p999_ns)},
    {BENCH_RTT_SLEEP, "rtt_sleep_p50", offsetof(bench_figures, p50_ns)},
    {BENCH_RTT_SLEEP, "rtt_sleep_p99", offsetof(bench_figures, p99_ns)},
    {BENCH_REQUEST, "request_p50", offsetof(bench_figures, p50_ns)},
    {BENCH_REQUEST, "request_p99", offsetof(bench_figures, p99_ns)},
};
#define METRICS (sizeof metrics / sizeof metrics[0])

typedef struct options {
    unsigned pairs;
    bool quick, json, limit_only;
    const char *only, *dir, *output, *daemon;
} options;

typedef struct series {
    bench_figures of[PAIRS_MAX];
    unsigned count;
} series;

static volatile sig_atomic_t stopped; /* by a signal: clean up and leave */

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(const series *s, size_t field, double *spread)
{
    double v[PAIRS_MAX];
    for (unsigned i = 0; i < s->count; i++) memcpy(&v[i], (const char *)&s->of[i] + field, sizeof v[i]);
    if (!s->count) return 0;
    qsort(v, s->count, sizeof v[0], by_double);
    double m = s->count % 2 ? v[s->count / 2] : (v[s->count / 2 - 1] + v[s->count / 2]) / 2;
    *spread = m > 0 ? (v[s->count - 1] - v[0]) / m : 0;
    return m;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path) != 0 && errno != ENOENT;
}

static void remove_tree(const char *dir) { nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT); }

/* daemon NULL: the limit. */
static bool one_run(const options *o, bench_shared *shared, const bench_case *c, const bench_daemon *daemon, bench_figures *out)
{
    static unsigned runs;
    char dir[PATH_MAX], topic[32];
    uint32_t len;
    uint8_t *batch = bench_batch_build(c->batch, c->record_bytes, &len);
    free(batch);
    if (snprintf(dir, sizeof dir, "%s/limit", o->dir) >= (int)sizeof dir || !batch) return false;
    bench_run run = {.c = c, .shared = shared, .dir = dir, .encoded_bytes = len};
    run.warm_records = c->warm_bytes / len * c->batch;
    run.records = run.warm_records + c->bytes / len * c->batch;
    bench_shared_reset(shared);
    bench_touch_memory(c->kind == BENCH_E2E ? (BENCH_SEGMENTS_KEPT + 8) * (uint64_t)BENCH_SEGMENT_BYTES : 192 * MIB);
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) return bench_fail(shared, "mkdir %s: %s", dir, strerror(errno));
    bool ok;
    if (daemon) {
        run.bus_url = daemon->url;
        run.topic = topic;
        snprintf(topic, sizeof topic, "bench-%u", ++runs);
        bench_daemon_pin(daemon,
                         c->kind == BENCH_REQUEST || (c->kind == BENCH_RTT_SLEEP && strcmp(c->transport, "ipc") == 0) ? 0 : -1);
        ok = bench_bus_run(&run, out);
    } else {
        ok = c->kind == BENCH_REQUEST ? bench_echo_run(&run, out) : bench_limit_run(&run, out);
    }
    remove_tree(dir);
    return ok;
}

static const char *kind_name(bench_kind k)
{
    static const char *const names[] = {"e2e", "rtt_spin", "rtt_sleep", "request"};
    return names[k];
}

static void case_label(const bench_case *c, char *out, size_t size)
{
    snprintf(out, size, "%s/%s/%ux%u/r%u", kind_name(c->kind), c->transport, c->record_bytes, c->batch, c->readers);
}

static void print_figure(char out[32], bench_kind k, double v)
{
    if (v <= 0)
        snprintf(out, 32, "-");
    else if (k != BENCH_E2E)
        snprintf(out, 32, v < 10000 ? "%.0f ns" : "%.1f us", v < 10000 ? v : v / 1000);
    else if (v >= 1e6)
        snprintf(out, 32, "%.2f M/s", v / 1e6);
    else
        snprintf(out, 32, "%.1f k/s", v / 1e3);
}

static void report_case(const options *o, FILE *json, bool *first, const bench_case *c, const series *limit, const series *bus)
{
    for (size_t m = 0; m < METRICS; m++) {
        if (metrics[m].kind != c->kind) continue;
        double bus_spread = 0, limit_spread = 0;
        double b = median(bus, metrics[m].field, &bus_spread), l = median(limit, metrics[m].field, &limit_spread);
        char bt[32], lt[32], ratio[16] = "-";
        print_figure(bt, c->kind, b);
        print_figure(lt, c->kind, l);
        if (b > 0 && l > 0) snprintf(ratio, sizeof ratio, "%.2f", b / l);
        if (!o->json)
            printf("%-14s %-7s %6u x %-3u %u  %12s %4.0f %%  %12s %4.0f %%  %6s\n", metrics[m].name, c->transport,
                   c->record_bytes, c->batch, c->readers, bt, bus_spread * 100, lt, limit_spread * 100, ratio);
        fflush(stdout);
        if (b <= 0) continue;
        fprintf(json,
                "%s\n  {\"case\":\"%s\",\"transport\":\"%s\",\"record_bytes\":%u,\"batch\":%u,\"partitions\":%u,\"readers\":%u,"
                "\"value\":%.1f,\"unit\":\"%s\",\"limit\":%.1f,\"ratio\":%.4f}",
                *first ? "" : ",", metrics[m].name, c->transport, c->record_bytes, c->batch, c->partitions, c->readers, b,
                c->kind == BENCH_E2E ? "records/s" : "ns", l, l > 0 ? b / l : 0);
        *first = false;
    }
}

static void print_file(const char *path)
{
    char piece[4096];
    FILE *f = fopen(path, "r");
    for (size_t n; f && (n = fread(piece, 1, sizeof piece, f)) > 0;) fwrite(piece, 1, n, stdout);
    if (f) fclose(f);
}

static bool measure(const options *o, bench_shared *shared, const bench_case *c, const bench_daemon *daemon, series *limit,
                    series *bus)
{
    *limit = *bus = (series){0};
    for (unsigned pair = 0; pair <= o->pairs; pair++) {
        bench_figures of_limit = {0}, of_bus = {0};
        for (unsigned turn = 0; turn < 2; turn++) {
            bool is_limit = (turn == 0) == (pair % 2 == 0);
            if (!is_limit && o->limit_only) continue;
            if (!one_run(o, shared, c, is_limit ? NULL : daemon, is_limit ? &of_limit : &of_bus)) return false;
        }
        if (pair == 0) continue;
        limit->of[limit->count++] = of_limit;
        if (!o->limit_only) bus->of[bus->count++] = of_bus;
    }
    return true;
}

static void usage(FILE *to)
{
    fputs("usage: busway-bench [--quick] [--pairs N] [--case NAME] [--limit-only] [--json] [--dir D] [--output FILE] [--daemon "
          "FILE]\n"
          "  --quick        a quarter of the work a case and three pairs\n"
          "  --pairs N      counted pairs of runs (default 5); one more is run first and dropped\n"
          "  --case NAME    only cases whose name contains NAME, e.g. e2e/direct/100x100 or rtt\n"
          "  --limit-only   only the bare limit and the bare echo\n"
          "  --json         print the JSON instead of the table\n"
          "  --dir D        work in a new folder below D (default: build), on the disk to be measured\n"
          "  --daemon FILE  the buswayd to start (default: build/release/buswayd)\n"
          "  --output FILE  where the JSON goes (default: build/bench.json)\n",
          to);
}

static bool parse(options *o, int argc, char **argv)
{
    static const struct option longs[] = {{"quick", no_argument, 0, 'q'},        {"pairs", required_argument, 0, 'n'},
                                          {"case", required_argument, 0, 'c'},   {"limit-only", no_argument, 0, 'l'},
                                          {"json", no_argument, 0, 'j'},         {"dir", required_argument, 0, 'd'},
                                          {"output", required_argument, 0, 'o'}, {"daemon", required_argument, 0, 'D'},
                                          {"help", no_argument, 0, 'h'},         {0, 0, 0, 0}};
    for (int k; (k = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        if (k == 'q')
            o->quick = true, o->pairs = 3;
        else if (k == 'n')
            o->pairs = (unsigned)strtoul(optarg, NULL, 10);
        else if (k == 'c')
            o->only = optarg;
        else if (k == 'l')
            o->limit_only = true;
        else if (k == 'j')
            o->json = true;
        else if (k == 'd')
            o->dir = optarg;
        else if (k == 'o')
            o->output = optarg;
        else if (k == 'D')
            o->daemon = optarg;
        else
            return usage(k == 'h' ? stdout : stderr), k == 'h' ? exit(0) : (void)0, false;
    }
    if (optind < argc || o->pairs < 1 || o->pairs > PAIRS_MAX) return usage(stderr), false;
    return true;
}

int main(int argc, char **argv)
{
    options o = {.pairs = 5, .dir = "build", .output = "build/bench.json", .daemon = "build/release/buswayd"};
    if (!parse(&o, argc, argv)) return 2;
    char dir[PATH_MAX], resolved[PATH_MAX];
    if (!realpath(o.dir, resolved) || snprintf(dir, sizeof dir, "%s/bench.XXXXXX", resolved) >= (int)sizeof dir ||
        !mkdtemp(dir)) {
        fprintf(stderr, "busway-bench: can't make a folder below %s: %s\n", o.dir, strerror(errno));
        return 1;
    }
    o.dir = dir;
    bench_shared *shared = bench_shared_make();
    FILE *json = fopen(o.output, "w");
    if (!shared || !json) {
        fprintf(stderr, "busway-bench: %s: %s\n", o.output, strerror(errno));
        return 1;
    }
    bench_daemon daemon = {0};
    char why[512];
    if (!o.limit_only && !bench_daemon_start(&daemon, o.daemon, dir, why, sizeof why)) {
        fprintf(stderr, "busway-bench: %s\n", why);
        bench_daemon_stop(&daemon);
        return 1;
    }
    int status = 0;
    bool first = true;
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    fprintf(json, "[");
    if (!o.json)
        printf("%-14s %-7s %6s   %-3s %s  %12s %6s  %12s %6s  %6s\n", "case", "path", "bytes", "batch", "r", "Busway", "spread",
               "limit", "spread", "ratio");
    for (size_t i = 0; i < CASES && !stopped; i++) {
        char label[96];
        bench_case c = cases[i];
        series limit, bus;
        case_label(&c, label, sizeof label);
        if (o.only && !strstr(label, o.only)) continue;
        if (o.quick) c.bytes /= 4, c.round_trips /= 4;
        if (!measure(&o, shared, &c, &daemon, &limit, &bus)) {
            fprintf(stderr, "busway-bench: %s: %s\n", label, shared->error);
            status = 1;
        }
        report_case(&o, json, &first, &c, &limit, &bus);
    }
    fprintf(json, "\n]\n");
    if (fclose(json) != 0) status = 1;
    if (o.json) print_file(o.output);
    bench_daemon_stop(&daemon);
    if (daemon.runtime[0]) remove_tree(daemon.runtime);
    if (status == 0 || stopped) remove_tree(dir);
    return stopped ? 130 : status;
}
