/* cli/cmd_queue.c: queue list | describe | peek | ack | redrive | delete: groups that hand out records one by one. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/interrupt.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct request {
    const char *words[64];
    size_t count;
    int64_t partition, max, first, last;
    bw_queue_outcome outcome;
} request;

enum { ID_MAX = 256, ID_OUTCOME };

static int parse_range(cli *c, request *r, const char *text)
{
    const char *dots = strstr(text, "..");
    char first[32] = "";
    if (dots && (size_t)(dots - text) < sizeof first) memcpy(first, text, (size_t)(dots - text));
    if (dots ? !cli_parse_int(first, 0, INT64_MAX, &r->first) || !cli_parse_int(dots + 2, r->first, INT64_MAX, &r->last)
             : !cli_parse_int(text, 0, INT64_MAX, &r->first))
        return cli_usage(c, "%s is neither an offset nor FIRST..LAST", text);
    if (!dots) r->last = r->first;
    return CLI_OK;
}

static int parse(cli *c, const cli_command *command, request *r, int argc, char **argv)
{
    cli_args a;
    *r = (request){.max = -1, .outcome = BW_QUEUE_DONE};
    cli_args_init(&a, c, command, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        switch (id) {
        case CLI_ARGS_STOP: return a.exit_code;
        case CLI_ARGS_OPERAND:
            if (r->count == 64) return cli_usage(c, "more than 64 operands");
            r->words[r->count++] = a.value;
            break;
        case 'p':
            if (!cli_parse_int(a.value, 0, INT32_MAX, &r->partition)) return cli_usage(c, "-p: %s is not a partition's number", a.value);
            break;
        case ID_MAX:
            if (!cli_parse_int(a.value, 1, INT32_MAX, &r->max)) return cli_usage(c, "--max: %s is not a number from 1", a.value);
            break;
        default:
            if (!strcmp(a.value, "done")) r->outcome = BW_QUEUE_DONE;
            else if (!strcmp(a.value, "again")) r->outcome = BW_QUEUE_AGAIN;
            else if (!strcmp(a.value, "dead")) r->outcome = BW_QUEUE_DEAD;
            else return cli_usage(c, "--as: %s is not one of done, again, dead", a.value);
            break;
        }
    }
    return -1;
}

/* ---- list, describe ---- */

static int64_t sum(const json_t *group, const char *name)
{
    int64_t n = 0;
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(group, "partitions"), i, p) n += cli_doc_int(p, name, 0);
    return n;
}

static void list_table(const json_t *groups)
{
    static const char *const headings[] = {"GROUP", ">WORKERS", ">WAITING", ">IN FLIGHT", ">DELAYED", ">ACKNOWLEDGED", ">DEAD", NULL};
    cli_table t;
    size_t i;
    json_t *g;
    cli_table_init(&t, headings);
    json_array_foreach(groups, i, g)
    {
        static const char *const sums[] = {"waiting", "in_flight", "delayed", "acknowledged", "dead_lettered"};
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(g, "group", "?"));
        cli_table_cell(&t, 1, "%zu", json_array_size(json_object_get(g, "members")));
        for (size_t k = 0; k < 5; k++) cli_table_cell(&t, 2 + k, "%" PRId64, sum(g, sums[k]));
    }
    cli_table_print(&t, stdout, "");
    cli_table_fini(&t);
}

static void describe(const json_t *g)
{
    static const char *const parts[] = {"TOPIC", ">PARTITION", ">START", ">NEXT", ">END", ">WAITING", ">IN FLIGHT", ">DELAYED", ">ACKNOWLEDGED",
                                        ">DEAD", ">RELEASED", ">LEASE ENDED", NULL};
    static const char *const members[] = {"WORKER", "CLIENT", ">PID", ">FETCHED", ">IN FLIGHT", NULL};
    static const char *const names[] = {"partition", "start_offset", "next_offset", "end_offset", "waiting", "in_flight", "delayed",
                                        "acknowledged", "dead_lettered", "released", "lease_ended"};
    char lease[24];
    cli_table t;
    size_t i;
    json_t *x;
    printf("%s: lease %s, at most %" PRId64 " deliveries, then %s; %s\n", cli_doc_text(g, "group", "?"),
           cli_human_ns(lease, (double)cli_doc_int(g, "lease_ms", 0) * 1e6), cli_doc_int(g, "max_deliveries", 0),
           *cli_doc_text(g, "dead_letters", "") ? cli_doc_text(g, "dead_letters", "") : "<topic>.dlq", cli_doc_text(g, "isolation", ""));
    cli_table_init(&t, parts);
    json_array_foreach(json_object_get(g, "partitions"), i, x)
    {
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(x, "topic", "?"));
        for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) cli_doc_cell_int(&t, k + 1, x, names[k]);
    }
    if (i > 0) cli_table_print(&t, stdout, "  ");
    cli_table_fini(&t);
    cli_table_init(&t, members);
    json_array_foreach(json_object_get(g, "members"), i, x)
    {
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(x, "member", "?"));
        cli_table_cell(&t, 1, "%s", cli_doc_text(x, "client", ""));
        cli_doc_cell_int(&t, 2, x, "pid");
        cli_doc_cell_int(&t, 3, x, "fetched");
        cli_doc_cell_int(&t, 4, x, "in_flight");
    }
    if (i > 0) cli_table_print(&t, stdout, "  ");
    else printf("  no workers\n");
    cli_table_fini(&t);
}

static int show(cli *c, const cli_command *command, int argc, char **argv, bool whole)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, command, &r, argc, argv);
    if (rc < 0 && !whole && r.count) rc = cli_usage(c, "takes no group; `busway queue describe %s` shows one", r.words[0]);
    if (rc < 0) rc = cli_connect(c, &bus);
    json_t *all = c->json ? json_array() : NULL, *g;
    for (size_t i = 0, k; bus && (i < r.count || (i == 0 && r.count == 0)); i++) {
        char *text = NULL;
        bw_err e = bw_queue_describe(bus, r.count ? r.words[i] : NULL, &text);
        if (e && rc == CLI_OK) rc = cli_error_bw(c, e, "%s", r.count ? r.words[i] : "cannot list the queues");
        json_t *doc = text ? cli_doc_parse(c, text) : NULL;
        if (doc && all) json_array_extend(all, doc);
        else if (doc && json_array_size(doc) == 0) cli_note(c, "no queue groups; a worker that opens one (busway/queue.h) makes it");
        else if (doc && !whole) list_table(doc);
        else json_array_foreach(doc, k, g) describe(g);
        json_decref(doc);
    }
    if (all && bus && (rc == CLI_OK || json_array_size(all))) cli_doc_print(all);
    json_decref(all);
    bw_bus_close(bus);
    return rc;
}

static int queue_list(cli *c, int argc, char **argv) { return show(c, &cli_queue_list, argc, argv, false); }

static int queue_describe(cli *c, int argc, char **argv) { return show(c, &cli_queue_describe, argc, argv, true); }

/* ---- peek, ack ---- */

static void records_table(const json_t *doc)
{
    static const char *const headings[] = {">OFFSET", "STATE", ">DELIVERIES", ">LEASE LEFT", ">DELIVER AT (ms)", "WORKER", NULL};
    static const char *const lists[] = {"records", "delayed"};
    cli_table t;
    size_t i;
    json_t *x;
    printf("settled below %" PRId64 ", not looked at from %" PRId64 "\n", cli_doc_int(doc, "start_offset", 0), cli_doc_int(doc, "next_offset", 0));
    cli_table_init(&t, headings);
    for (int list = 0; list < 2; list++)
        json_array_foreach(json_object_get(doc, lists[list]), i, x)
        {
            cli_table_row(&t);
            cli_doc_cell_int(&t, 0, x, "offset");
            cli_table_cell(&t, 1, "%s", cli_doc_text(x, "state", lists[list]));
            cli_doc_cell_int(&t, 2, x, "deliveries");
            cli_doc_cell_ms(&t, 3, x, "lease_left_ms");
            cli_doc_cell_int(&t, 4, x, "deliver_at");
            cli_table_cell(&t, 5, "%s", cli_doc_text(x, "member", ""));
        }
    cli_table_print(&t, stdout, "  ");
    cli_table_fini(&t);
}

static int queue_peek(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    char *text = NULL;
    int rc = parse(c, &cli_queue_peek, &r, argc, argv);
    if (rc < 0 && r.count != 2) rc = cli_usage(c, "into which? busway queue peek GROUP TOPIC [-p PARTITION]");
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? bw_queue_peek(bus, r.words[0], r.words[1], (int32_t)r.partition, r.max < 0 ? 100 : (int32_t)r.max, &text) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "%s, %s partition %" PRId64, r.words[0], r.words[1], r.partition);
    json_t *doc = text ? cli_doc_parse(c, text) : NULL;
    if (doc && c->json) cli_doc_print(doc);
    else if (doc) records_table(doc);
    json_decref(doc);
    bw_bus_close(bus);
    return rc;
}

static int queue_ack(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int64_t settled = 0;
    int rc = parse(c, &cli_queue_ack, &r, argc, argv);
    if (rc < 0 && r.count != 3) rc = cli_usage(c, "which? busway queue ack GROUP TOPIC FIRST..LAST [-p PARTITION]");
    if (rc < 0) {
        int bad = parse_range(c, &r, r.words[2]);
        if (bad) rc = bad;
    }
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? bw_queue_settle(bus, r.words[0], r.words[1], (int32_t)r.partition, r.first, r.last, r.outcome, &settled) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "%s, %s partition %" PRId64, r.words[0], r.words[1], r.partition);
    else if (bus && c->json) printf("{\"settled\":%" PRId64 "}\n", settled);
    else if (bus && !c->quiet)
        printf("%" PRId64 " of %" PRId64 " records; the others were settled before or not handed out yet\n", settled, r.last - r.first + 1);
    bw_bus_close(bus);
    return rc;
}

/* ---- redrive, delete ---- */

static bool on_moved(void *opaque, int64_t moved, int64_t skipped)
{
    const cli *c = opaque;
    if (!c->quiet && !c->json && isatty(STDERR_FILENO)) fprintf(stderr, "\r%" PRId64 " records moved, %" PRId64 " skipped ", moved, skipped);
    return !cli_interrupted();
}

static int queue_redrive(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int64_t moved = 0, skipped = 0;
    int rc = parse(c, &cli_queue_redrive, &r, argc, argv);
    if (rc < 0 && r.count != 1) rc = cli_usage(c, "from where? busway queue redrive TOPIC.dlq");
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? bw_queue_redrive(bus, r.words[0], r.max < 0 ? 0 : r.max, on_moved, c, &moved, &skipped) : BW_OK;
    if (bus && !c->quiet && !c->json && isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
    if (e) rc = cli_error_bw(c, e, "%s", r.words[0]);
    if (bus && c->json) printf("{\"moved\":%" PRId64 ",\"skipped\":%" PRId64 "}\n", moved, skipped);
    else if (bus && !e && !c->quiet)
        printf("%" PRId64 " records went back to where they came from; %" PRId64 " say no origin and stay\n", moved, skipped);
    bw_bus_close(bus);
    return rc;
}

static int queue_delete(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_queue_delete, &r, argc, argv);
    if (rc < 0 && r.count == 0) rc = cli_usage(c, "which group? busway queue delete GROUP");
    if (rc < 0) rc = cli_connect(c, &bus);
    for (size_t i = 0; bus && i < r.count; i++) {
        bw_err e = bw_queue_delete(bus, r.words[i]);
        if (e == BW_OK) continue;
        int failed = cli_error_bw(c, e, "%s", r.words[i]);
        if (rc == CLI_OK) rc = failed;
    }
    bw_bus_close(bus);
    return rc;
}

#define PARTITION_OPTION {'p', 'p', "partition", "N", "which partition (default 0)"}
static const cli_opt peek_options[] = {
    PARTITION_OPTION,
    {ID_MAX, 0, "max", "N", "at most so many records (default 100)"},
    {0, 0, NULL, NULL, NULL},
};
static const cli_opt ack_options[] = {
    PARTITION_OPTION,
    {ID_OUTCOME, 0, "as", "WHAT", "done (default), again: deliver it anew, or dead: to the dead letters"},
    {0, 0, NULL, NULL, NULL},
};
static const cli_opt redrive_options[] = {
    {ID_MAX, 0, "max", "N", "at most so many records (default: all there are now)"},
    {0, 0, NULL, NULL, NULL},
};

const cli_command cli_queue_list = {"queue list", "", "List queue groups: records handed out one by one, under a lease.", NULL, NULL, true,
                                    "  busway queue list\n", queue_list};
const cli_command cli_queue_describe = {"queue describe", "[GROUP…]", "Show a queue's partitions, counters and workers.",
                                        "WAITING was not handed out yet; counters are of the daemon's present life.", NULL, true,
                                        "  busway queue describe mail\n", queue_describe};
const cli_command cli_queue_peek = {"queue peek", "GROUP TOPIC", "Show the records that a queue holds, without taking any.", NULL, peek_options, true,
                                    "  busway queue peek mail letters -p 0 --max 20\n", queue_peek};
const cli_command cli_queue_ack = {"queue ack", "GROUP TOPIC FIRST[..LAST]", "Settle records by hand, whoever holds them.", NULL, ack_options, true,
                                   "  busway queue ack mail letters 117\n  busway queue ack mail letters 100..199 -p 2 --as dead\n", queue_ack};
const cli_command cli_queue_redrive = {"queue redrive", "TOPIC", "Send dead letters back to where they came from.", NULL, redrive_options, true,
                                       "  busway queue redrive letters.dlq --max 1000\n", queue_redrive};
const cli_command cli_queue_delete = {"queue delete", "GROUP…", "Delete queue groups without workers, with all that is kept of them.",
                                      NULL, NULL, true, "  busway queue delete mail\n", queue_delete};
