/* cli/cmd_top.c: rates and sizes, topic by topic, again and again. On a terminal the table stays in place; else it is repeated.
 */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/group.h"
#include "cli/interrupt.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

typedef struct row {
    char name[256];
    int64_t partition; /* -1: the whole topic */
    int64_t start, end, not_durable, bytes, segments, partitions;
    double records_per_s, bytes_per_s;
    char state[32];
} row;

typedef struct sample {
    row *rows;
    size_t count;
    int64_t at_ns;
} sample;

static void add(row *r, const json_t *p)
{
    int64_t end = cli_doc_int(p, "end_offset", 0);
    r->partitions++;
    r->start += cli_doc_int(p, "log_start_offset", 0);
    r->end += end;
    r->not_durable += end - cli_doc_int(p, "durable_offset", end);
    r->bytes += cli_doc_int(p, "size_bytes", 0);
    r->segments += cli_doc_int(p, "segments", 0);
    const char *state = cli_doc_text(p, "state", "");
    if (*state && strcmp(state, "open") != 0) snprintf(r->state, sizeof r->state, "%s", state);
}

/* rows from the topics' document, by topic or by partition. */
static bool sample_make(sample *s, const json_t *topics, bool each_partition)
{
    size_t i, k, room = 0;
    json_t *topic, *p;
    json_array_foreach(topics, i, topic) room += each_partition ? json_array_size(json_object_get(topic, "partitions")) : 1;
    *s = (sample){.rows = calloc(room + 1, sizeof(row)), .at_ns = cli_now_ns()};
    if (!s->rows) return false;
    json_array_foreach(topics, i, topic)
    {
        json_array_foreach(json_object_get(topic, "partitions"), k, p)
        {
            if (each_partition || k == 0) {
                if (s->count == room) return true;
                row *r = &s->rows[s->count++];
                snprintf(r->name, sizeof r->name, "%s", cli_doc_text(topic, "name", "?"));
                r->partition = each_partition ? cli_doc_int(p, "partition", 0) : -1;
            }
            add(&s->rows[s->count - 1], p);
        }
    }
    return true;
}

static int by_identity(const void *a, const void *b)
{
    const row *x = a, *y = b;
    int n = strcmp(x->name, y->name);
    return n ? n : (x->partition > y->partition) - (x->partition < y->partition);
}

static int by_rate(const void *a, const void *b)
{
    const row *x = a, *y = b;
    if (x->records_per_s != y->records_per_s) return x->records_per_s < y->records_per_s ? 1 : -1;
    return by_identity(a, b);
}

/* Rates against the sample before. Bytes come from the mean size of what is there: retention deletes whole segments in between,
 * so that a difference of sizes would lie. */
static void rates(sample *now, sample *before)
{
    qsort(now->rows, now->count, sizeof(row), by_identity);
    qsort(before->rows, before->count, sizeof(row), by_identity);
    double seconds = (double)(now->at_ns - before->at_ns) / 1e9;
    for (size_t i = 0, k = 0; i < now->count; i++) {
        row *r = &now->rows[i];
        while (k < before->count && by_identity(&before->rows[k], r) < 0) k++;
        bool known = k < before->count && by_identity(&before->rows[k], r) == 0;
        int64_t grown = r->end - (known ? before->rows[k].end : r->start);
        if (grown < 0) grown = r->end - r->start; /* deleted and made again */
        r->records_per_s = seconds > 0 ? (double)grown / seconds : 0;
        int64_t there = r->end - r->start;
        r->bytes_per_s = there > 0 ? r->records_per_s * (double)r->bytes / (double)there : 0;
    }
}

static void clock_text(char out[16])
{
    time_t t = time(NULL);
    struct tm tm;
    localtime_r(&t, &tm);
    strftime(out, 16, "%H:%M:%S", &tm);
}

static void print(const cli *c, sample *s, const json_t *groups, bool terminal, bool each_partition)
{
    static const char *const headings[] = {"TOPIC",  ">PART",     ">RECORDS/S",   ">BYTES/S", ">END", ">RECORDS",
                                           ">BYTES", ">SEGMENTS", ">NOT DURABLE", "STATE",    NULL};
    char a[24], now[16];
    struct winsize size = {0};
    size_t show = s->count, hidden;
    double records = 0, bytes = 0;
    for (size_t i = 0; i < s->count; i++) {
        records += s->rows[i].records_per_s;
        bytes += s->rows[i].bytes_per_s;
    }
    qsort(s->rows, s->count, sizeof(row), by_rate);
    size_t rows = 1, other = 4 + (json_array_size(groups) ? json_array_size(groups) + 2 : 0);
    if (terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 5) {
        if (size.ws_row > other) rows = size.ws_row - other;
        if (show > rows) show = rows;
    }
    hidden = s->count - show;
    cli_table t;
    cli_table_init(&t, headings);
    for (size_t i = 0; i < show; i++) {
        const row *r = &s->rows[i];
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", r->name);
        cli_table_cell(&t, 1, "%" PRId64, each_partition ? r->partition : r->partitions);
        cli_table_cell(&t, 2, "%s", cli_human_count(a, r->records_per_s));
        cli_table_cell(&t, 3, "%s", cli_human_bytes(a, r->bytes_per_s));
        cli_table_cell(&t, 4, "%" PRId64, r->end);
        cli_table_cell(&t, 5, "%" PRId64, r->end - r->start);
        cli_table_cell(&t, 6, "%s", cli_human_bytes(a, (double)r->bytes));
        cli_table_cell(&t, 7, "%" PRId64, r->segments);
        cli_table_cell(&t, 8, "%" PRId64, r->not_durable);
        cli_table_cell(&t, 9, "%s", r->state);
    }
    if (terminal) fputs("\033[H\033[J", stdout);
    clock_text(now);
    char rate[24];
    printf("%s  %zu %s, %s records/s, %s/s\n", now, s->count, each_partition ? "partitions" : "topics",
           cli_human_count(rate, records), cli_human_bytes(a, bytes));
    cli_table_print(&t, stdout, "");
    if (hidden) printf("… and %zu more\n", hidden);
    if (json_array_size(groups)) {
        putchar('\n');
        cli_group_summary_print(groups);
    }
    if (!terminal) putchar('\n');
    if (terminal && !c->quiet) printf("(Ctrl-C ends it)\n");
    fflush(stdout);
    cli_table_fini(&t);
}

static void print_json(const sample *s, json_t *groups)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < s->count; i++) {
        const row *r = &s->rows[i];
        json_t *o =
            json_pack("{s:s,s:f,s:f,s:I,s:I,s:I,s:I,s:I}", "topic", r->name, "records_per_s", r->records_per_s, "bytes_per_s",
                      r->bytes_per_s, "log_start_offset", (json_int_t)r->start, "end_offset", (json_int_t)r->end, "size_bytes",
                      (json_int_t)r->bytes, "segments", (json_int_t)r->segments, "not_durable", (json_int_t)r->not_durable);
        json_object_set_new(o, r->partition >= 0 ? "partition" : "partitions",
                            json_integer(r->partition >= 0 ? r->partition : r->partitions));
        json_array_append_new(rows, o);
    }
    json_t *doc = json_pack("{s:I,s:o}", "time_ms", (json_int_t)time(NULL) * 1000, "rows", rows);
    if (groups) json_object_set(doc, "groups", groups);
    json_dumpf(doc, stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(doc);
}

enum { ID_INTERVAL = 256, ID_PARTITIONS };

static const cli_opt options[] = {
    {ID_INTERVAL, 0, "interval", "SECONDS", "time between two tables (default 1; may be a fraction)"},
    {'n', 'n', "count", "N", "exit after N tables"},
    {ID_PARTITIONS, 0, "partitions", NULL, "a row a partition instead of a row a topic"},
    {0, 0, NULL, NULL, NULL},
};

typedef struct top {
    double interval_s;
    int64_t count;
    bool each_partition;
} top;

static int parse(cli *c, top *t, int argc, char **argv)
{
    cli_args a;
    cli_args_init(&a, c, &cli_top, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        char *end = NULL;
        switch (id) {
        case CLI_ARGS_STOP:
            return a.exit_code;
        case CLI_ARGS_OPERAND:
            return cli_usage(c, "takes no operand (%s)", a.value);
        case ID_PARTITIONS:
            t->each_partition = true;
            break;
        case 'n':
            if (!cli_parse_int(a.value, 1, INT64_MAX, &t->count)) return cli_usage(c, "-n: %s is not a number from 1", a.value);
            break;
        default:
            t->interval_s = strtod(a.value, &end);
            if (end == a.value || *end || !(t->interval_s >= 0.05 && t->interval_s <= 86400))
                return cli_usage(c, "--interval: %s is not a number of seconds from 0.05", a.value);
        }
    }
    return -1;
}

static int run(cli *c, int argc, char **argv)
{
    top t = {.interval_s = 1, .count = -1};
    bw_bus *bus = NULL;
    int rc = parse(c, &t, argc, argv);
    if (rc >= 0 || (rc = cli_connect(c, &bus)) != CLI_OK) return rc;
    bool terminal = isatty(STDOUT_FILENO) && !c->json;
    sample before = {0};
    /* The first sample is only there to make rates; `count` tables follow. */
    for (int64_t i = 0; !cli_interrupted() && rc == CLI_OK && !ferror(stdout) && (t.count < 0 || i <= t.count); i++) {
        if (i > 0) {
            struct timespec ts = {(time_t)t.interval_s, (long)((t.interval_s - (double)(time_t)t.interval_s) * 1e9)};
            if (nanosleep(&ts, NULL) != 0) break;
        }
        json_t *topics = cli_doc_topics(c, bus, NULL, &rc);
        if (!topics) break;
        json_t *groups = i > 0 ? cli_group_summary(c, bus) : NULL;
        sample now;
        if (!sample_make(&now, topics, t.each_partition)) rc = cli_error(c, CLI_FAILURE, "out of memory");
        json_decref(topics);
        if (rc == CLI_OK && i > 0) {
            rates(&now, &before);
            if (c->json)
                print_json(&now, groups);
            else
                print(c, &now, groups, terminal, t.each_partition);
        }
        json_decref(groups);
        free(before.rows);
        before = now;
    }
    free(before.rows);
    bw_bus_close(bus);
    return rc;
}

const cli_command cli_top = {
    "top",
    "",
    "Show live rates and sizes of topics, and how far groups are behind.",
    NULL,
    options,
    true,
    "  busway top\n  busway top --partitions --interval 0.5\n  busway top -n 1 --json | jq '.rows[] | select(.records_per_s > "
    "0)'\n",
    run,
};
