/* bench/run.c: `make bench`. Runs each case beside what it is compared with, in pairs, and prints a table and build/bench.json.
 *
 * A pair is one run of the other (the bare limit, the bare echo, or Busway with one reader or one writer) and one of Busway,
 * right after each other, in alternating order; the first pair is dropped. Figures are medians of the pairs; the ratio is
 * Busway's median over the other's (rates: higher is better, 1 is the limit itself; nanoseconds: lower is better). Spread is
 * (highest - lowest) / median. A row that has a bound says whether it was met; a bound missed is no failure of the run. */
#include "bench.h"

#include <errno.h>
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

typedef struct options {
    unsigned pairs;
    bool quick, json, limit_only;
    const char *only, *dir, *output, *daemon, *single;
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

static uint64_t memory_of(const bench_case *c)
{
    uint64_t all = c->bytes + c->warm_bytes + (c->partitions + 2) * (uint64_t)BENCH_SEGMENT_BYTES;
    uint64_t kept = (BENCH_SEGMENTS_KEPT + 8) * (uint64_t)BENCH_SEGMENT_BYTES;
    if (c->kind == BENCH_E2E) return all < kept ? all : kept;
    if (c->kind == BENCH_FAN || c->kind == BENCH_WRITERS) return all;
    return 192 * MIB;
}

/* The same for Busway with one of everything: what fans and writers are compared with. */
static bench_case alone(const bench_case *c)
{
    bench_case one = *c;
    one.readers = c->readers ? 1 : 0;
    one.writers = one.partitions = 1;
    if (c->kind == BENCH_IDEMPOTENT) one.way = BENCH_BATCH; /* without */
    if (c->kind == BENCH_DURABLE_MANY) { /* one batch at a time: a sixteenth takes long enough */
        one.kind = BENCH_DURABLE;
        one.round_trips = c->round_trips / 16;
    }
    return one;
}

static bool one_run(const options *o, bench_shared *shared, const bench_case *given, bool beside, const bench_daemon *daemon,
                    const bench_single *single, bench_figures *out)
{
    static unsigned runs;
    bench_case c = beside && given->beside == BENCH_BESIDE_ONE ? alone(given) : *given;
    char dir[PATH_MAX], topic[32];
    uint32_t len;
    uint8_t *batch = bench_batch_build(c.batch, c.record_bytes, &len);
    free(batch);
    if (snprintf(dir, sizeof dir, "%s/limit", o->dir) >= (int)sizeof dir || !batch) return false;
    bench_run run = {.c = &c, .shared = shared, .dir = dir, .encoded_bytes = len};
    run.warm_records = c.warm_bytes / len * c.batch;
    run.records = run.warm_records + c.bytes / len * c.batch;
    if (single) run.keep = single->keep;
    if (single && single->points) run.point_records = (run.records - run.warm_records) / single->points;
    bench_shared_reset(shared);
    bench_touch_memory(run.keep ? c.bytes + c.warm_bytes + BENCH_SEGMENT_BYTES : memory_of(given));
    if (mkdir(dir, 0700) != 0 && errno != EEXIST) return bench_fail(shared, "mkdir %s: %s", dir, strerror(errno));
    bool ok;
    if (beside && c.beside == BENCH_BESIDE_ECHO) {
        ok = bench_echo_run(&run, out);
    } else if (beside && c.beside == BENCH_BESIDE_LIMIT) {
        ok = bench_limit_run(&run, out);
    } else {
        run.bus_url = daemon->url;
        run.topic = topic;
        snprintf(topic, sizeof topic, "bench-%u", ++runs);
        bool one_core = c.kind == BENCH_REQUEST || (c.kind == BENCH_RTT_SLEEP && strcmp(c.transport, "ipc") == 0);
        bench_daemon_pin(daemon, one_core ? 0 : -1);
        ok = bench_bus_run(&run, out);
    }
    bench_remove_tree(dir);
    return ok;
}

static const char *beside_name(bench_beside b)
{
    static const char *const names[] = {"limit", "echo", "one", ""};
    return names[b];
}

static void print_figure(char out[32], const char *unit, double v)
{
    if (strcmp(unit, "calls") == 0)
        snprintf(out, 32, "%.0f calls", v);
    else if (v <= 0)
        snprintf(out, 32, "-");
    else if (strcmp(unit, "bytes") == 0)
        snprintf(out, 32, "%.1f MB", v / 1e6);
    else if (strcmp(unit, "ns") == 0)
        snprintf(out, 32, v < 10000 ? "%.0f ns" : "%.1f us", v < 10000 ? v : v / 1000);
    else if (v >= 1e6)
        snprintf(out, 32, "%.2f M/s", v / 1e6);
    else
        snprintf(out, 32, "%.1f k/s", v / 1e3);
}

/* What the row's bound is, and whether it was met: "" when it has none or what it needs was not measured. */
static const char *judge(const bench_row *row, double value, double other, char bound[32])
{
    const char *sign = row->at_least ? ">=" : "<=";
    char v[32];
    bound[0] = 0;
    if (row->ratio_bound > 0) {
        snprintf(bound, 32, "%s %.2f x", sign, row->ratio_bound);
        if (value <= 0 || other <= 0) return "";
        return (row->at_least ? value / other >= row->ratio_bound : value / other <= row->ratio_bound) ? "met" : "MISSED";
    }
    if (row->value_bound < 0) return "";
    print_figure(v, row->unit, row->value_bound);
    snprintf(bound, 32, "%s %.28s", sign, v);
    return (row->at_least ? value >= row->value_bound : value <= row->value_bound) ? "met" : "MISSED";
}

static void report_case(const options *o, FILE *json, bool *first, const bench_entry *e, const series *beside, const series *bus)
{
    const bench_case *c = &e->c;
    char id[96];
    bench_case_id(c, id, sizeof id);
    for (const bench_row *row = e->row; row < e->row + BENCH_ROWS_MAX && row->name; row++) {
        double spread = 0, other_spread = 0;
        double b = median(bus, row->field, &spread), l = median(beside, row->field, &other_spread);
        char bt[32], lt[32] = "", bound[32], ratio[16] = "-";
        print_figure(bt, row->unit, b);
        if (c->beside != BENCH_BESIDE_NONE) print_figure(lt, row->unit, l);
        if (b > 0 && l > 0) snprintf(ratio, sizeof ratio, "%.2f", b / l);
        const char *met = bus->count ? judge(row, b, l, bound) : (bound[0] = 0, "");
        if (!o->json)
            printf("%-38s %-6s %-16s %11s %4.0f%%  %-5s %11s %4.0f%%  %6s  %-12s %s\n", e->title, c->transport, row->name, bt,
                   spread * 100, beside_name(c->beside), lt, other_spread * 100, ratio, bound, met);
        fflush(stdout);
        if (!bus->count && !beside->count) continue;
        fprintf(
            json,
            "%s\n  {\"case\":\"%s\",\"title\":\"%s\",\"figure\":\"%s\",\"transport\":\"%s\",\"record_bytes\":%u,\"batch\":%u,"
            "\"partitions\":%u,\"readers\":%u,\"writers\":%u,\"unit\":\"%s\",\"value\":%.1f,\"spread\":%.3f,\"beside\":\"%s\","
            "\"limit\":%.1f,\"limit_spread\":%.3f,\"ratio\":%.4f,\"runs\":%u,\"bound\":\"%s\",\"met\":%s}",
            *first ? "" : ",", id, e->title, row->name, c->transport, c->record_bytes, c->batch, c->partitions, c->readers,
            c->writers, row->unit, b, spread, beside_name(c->beside), l, other_spread, b > 0 && l > 0 ? b / l : 0, bus->count,
            bound,
            !met[0]         ? "null"
            : met[0] == 'm' ? "true"
                            : "false");
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

static bool measure(const options *o, bench_shared *shared, const bench_case *c, const bench_daemon *daemon, series *beside,
                    series *bus)
{
    *beside = *bus = (series){0};
    for (unsigned pair = 0; pair <= o->pairs && !stopped; pair++) {
        bench_figures of_beside = {0}, of_bus = {0};
        for (unsigned turn = 0; turn < 2; turn++) {
            bool is_beside = (turn == 0) == (pair % 2 == 0);
            if (is_beside ? c->beside == BENCH_BESIDE_NONE : o->limit_only) continue;
            if (!one_run(o, shared, c, is_beside, daemon, NULL, is_beside ? &of_beside : &of_bus)) return false;
        }
        if (pair == 0) continue;
        if (c->beside != BENCH_BESIDE_NONE) beside->of[beside->count++] = of_beside;
        if (!o->limit_only) bus->of[bus->count++] = of_bus;
    }
    return true;
}

static int run_single(const options *o, bench_shared *shared, const bench_daemon *daemon, const bench_single *single)
{
    bench_figures figures = {0};
    if (!one_run(o, shared, &single->c, single->limit, daemon, single, &figures)) {
        fprintf(stderr, "busway-bench: %s: %s\n", o->single, shared->error);
        return 1;
    }
    bench_single_report(single, &figures, shared);
    return 0;
}

static void usage(FILE *to)
{
    fputs("usage: busway-bench [--quick] [--pairs N] [--case NAME] [--list] [--limit-only] [--json] [--dir D] [--output FILE]\n"
          "                    [--daemon FILE]\n"
          "  --quick        a quarter of the work a case and three pairs\n"
          "  --pairs N      counted pairs of runs (default 5); one more is run first and dropped\n"
          "  --case NAME    only cases whose name contains NAME, e.g. e2e/direct/100x100, writers or rtt (comma: several)\n"
          "                 scale: many partitions, a long log, bytes to the disk (not among the others)\n"
          "                 groups: a member killed, the daemon killed, read committed (likewise)\n"
          "                 queue: acknowledgements, redelivery, delayed delivery of queue groups (likewise)\n"
          "                 state: state mode, and quotas (likewise)\n"
          "  --list         the names of the cases\n"
          "  --single SPEC  one run of one case, one line of JSON; see bench/single.c\n"
          "  --limit-only   only the bare limit and the bare echo\n"
          "  --json         print the JSON instead of the table\n"
          "  --dir D        work in a new folder below D (default: build), on the disk to be measured\n"
          "  --daemon FILE  the buswayd to start (default: build/release/buswayd)\n"
          "  --output FILE  where the JSON goes (default: build/bench.json)\n",
          to);
}

static void list_cases(void)
{
    char id[96];
    for (size_t i = 0; i < bench_entry_count; i++) {
        bench_case_id(&bench_entries[i].c, id, sizeof id);
        printf("%-44s %s\n", id, bench_entries[i].title);
    }
}

/* Whether the case is among those asked for: any of the names between the commas is part of its own. */
static bool wanted(const options *o, const bench_case *c)
{
    char id[96], name[96];
    if (!o->only) return true;
    bench_case_id(c, id, sizeof id);
    for (const char *at = o->only; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        snprintf(name, sizeof name, "%.*s", (int)strcspn(at, ","), at);
        if (name[0] && strstr(id, name)) return true;
    }
    return false;
}

static bool parse(options *o, int argc, char **argv)
{
    static const struct option longs[] = {
        {"quick", no_argument, 0, 'q'},        {"pairs", required_argument, 0, 'n'},  {"case", required_argument, 0, 'c'},
        {"limit-only", no_argument, 0, 'l'},   {"json", no_argument, 0, 'j'},         {"dir", required_argument, 0, 'd'},
        {"output", required_argument, 0, 'o'}, {"daemon", required_argument, 0, 'D'}, {"help", no_argument, 0, 'h'},
        {"list", no_argument, 0, 'L'},         {"single", required_argument, 0, 's'}, {0, 0, 0, 0}};
    for (int k; (k = getopt_long(argc, argv, "", longs, NULL)) != -1;) {
        if (k == 'q')
            o->quick = true, o->pairs = 3;
        else if (k == 'n')
            o->pairs = (unsigned)strtoul(optarg, NULL, 10);
        else if (k == 'c')
            o->only = optarg;
        else if (k == 'l')
            o->limit_only = true;
        else if (k == 's')
            o->single = optarg;
        else if (k == 'L')
            return list_cases(), exit(0), true;
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

static int run_cases(const options *o, bench_shared *shared, const bench_daemon *daemon, FILE *json)
{
    int status = 0;
    bool first = true;
    fprintf(json, "[");
    if (!o->json)
        printf(
            "Medians of %u runs, spread (highest - lowest) / median; ratios of this run.%s\n%-38s %-6s %-16s %11s %5s  %-17s %5s "
            " %6s  %-12s\n",
            o->pairs, o->quick ? " Quick: a quarter of the work, fewer runs, not yet steady." : "", "what", "path", "figure", "Busway", "sprd",
            "beside it", "sprd", "ratio", "bound");
    for (size_t i = 0; i < bench_entry_count && !stopped; i++) {
        bench_entry e = bench_entries[i];
        series beside, bus;
        if (!wanted(o, &e.c)) continue;
        if (o->quick) {
            e.c.bytes /= 4;
            e.c.warm_bytes /= 4;
            e.c.round_trips /= e.c.kind == BENCH_CALLS ? 1 : 4;
        }
        if (o->limit_only && e.c.beside != BENCH_BESIDE_LIMIT && e.c.beside != BENCH_BESIDE_ECHO) continue;
        if (!measure(o, shared, &e.c, daemon, &beside, &bus)) {
            if (stopped) break;
            fprintf(stderr, "busway-bench: %s: %s\n", e.title, shared->error);
            status = 1;
        }
        report_case(o, json, &first, &e, &beside, &bus);
    }
    fprintf(json, "\n]\n");
    return status;
}

/* --case cache: no pairs, no bounds in the table; see cache.c. */
static int run_cache(const options *o)
{
    bench_shared *shared = bench_shared_make();
    bool ok = shared && bench_cache_run(shared, o->dir, o->daemon, o->quick ? UINT64_C(2000000000) : UINT64_C(20000000000));
    if (!ok) fprintf(stderr, "busway-bench: cache: %s\n", shared ? shared->error : "out of memory");
    bench_remove_tree(o->dir);
    return ok ? 0 : 1;
}

int main(int argc, char **argv)
{
    options o = {.pairs = 5, .dir = "build", .output = "build/bench.json", .daemon = "build/release/buswayd"};
    bench_single single;
    if (!parse(&o, argc, argv)) return 2;
    if (o.single && !bench_single_parse(o.single, &single)) {
        fprintf(stderr, "busway-bench: not a case: %s (bench/single.c says what is)\n", o.single);
        return 2;
    }
    char dir[PATH_MAX], resolved[PATH_MAX];
    if (!realpath(o.dir, resolved) || snprintf(dir, sizeof dir, "%s/bench.XXXXXX", resolved) >= (int)sizeof dir ||
        !mkdtemp(dir)) {
        fprintf(stderr, "busway-bench: can't make a folder below %s: %s\n", o.dir, strerror(errno));
        return 1;
    }
    o.dir = dir;
    if (o.only && strcmp(o.only, "cache") == 0) return run_cache(&o);
    bench_shared *shared = bench_shared_make();
    FILE *json = fopen(o.single ? "/dev/null" : o.output, "w");
    if (!shared || !json) {
        fprintf(stderr, "busway-bench: %s: %s\n", o.output, strerror(errno));
        return 1;
    }
    bool queue = o.only && strcmp(o.only, "queue") == 0, state = o.only && strcmp(o.only, "state") == 0;
    bool groups = o.only && strcmp(o.only, "groups") == 0, links = o.only && strcmp(o.only, "link") == 0;
    bool far = o.only && strcmp(o.only, "remote") == 0;
    if (queue || state || groups || links || far || (o.only && strncmp(o.only, "scale", 5) == 0)) {
        bool good = queue    ? bench_queue_run(o.daemon, dir, o.quick, json, !o.json)
                    : state  ? bench_state_run(o.daemon, dir, o.quick, json, !o.json)
                    : links  ? bench_link_run(o.daemon, dir, o.quick, json, !o.json)
                    : far    ? bench_remote_run(o.daemon, dir, o.quick, json, !o.json)
                    : groups ? bench_groups_run(o.daemon, dir, o.quick, json, !o.json)
                          : bench_scale_run(o.daemon, dir, o.only[5] == '/' ? o.only + 6 : "", o.quick, json, !o.json);
        if (fclose(json) != 0) good = false;
        if (o.json) print_file(o.output);
        if (good) bench_remove_tree(dir);
        return good ? 0 : 1;
    }
    bench_daemon daemon = {0};
    char why[512];
    bool needs_daemon = o.single ? !single.limit : !o.limit_only;
    if (needs_daemon && !bench_daemon_start(&daemon, o.daemon, dir, why, sizeof why)) {
        fprintf(stderr, "busway-bench: %s\n", why);
        bench_daemon_stop(&daemon);
        return 1;
    }
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    int status = o.single ? run_single(&o, shared, &daemon, &single) : run_cases(&o, shared, &daemon, json);
    if (fclose(json) != 0) status = 1;
    if (o.json && !o.single) print_file(o.output);
    bench_daemon_stop(&daemon);
    if (daemon.runtime[0]) bench_remove_tree(daemon.runtime);
    if (status == 0 || stopped || o.single) bench_remove_tree(dir);
    return stopped ? 130 : status;
}
