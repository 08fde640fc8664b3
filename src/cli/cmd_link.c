/* cli/cmd_link.c: link add | list | describe | pause | resume | alter | remove. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/link.h"
#include "cli/table.h"

#include <busway/link.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OPTIONS_MAX = 64 };

typedef struct request {
    const char *name;
    bw_config_entry options[OPTIONS_MAX];
    char *texts[OPTIONS_MAX];
    size_t count;
} request;

static int set_option(cli *c, request *r, const char *name, size_t name_len, const char *value)
{
    if (r->count == OPTIONS_MAX) return cli_usage(c, "more than %d options", OPTIONS_MAX);
    char *copy = malloc(name_len + 1);
    if (!copy) return cli_error(c, CLI_FAILURE, "out of memory");
    memcpy(copy, name, name_len);
    copy[name_len] = 0;
    r->texts[r->count] = copy;
    r->options[r->count++] = (bw_config_entry){copy, value};
    return CLI_OK;
}

static int operand(cli *c, request *r, const char *text)
{
    const char *equals = strchr(text, '=');
    if (!r->name) {
        r->name = text;
        return CLI_OK;
    }
    if (!equals && strstr(text, ":/")) return set_option(c, r, "url", 3, text);
    if (!equals || equals == text) return cli_usage(c, "%s is not of the form OPTION=VALUE", text);
    return set_option(c, r, text, (size_t)(equals - text), equals[1] ? equals + 1 : NULL);
}

/* Options that have a name of their own go by it: --topics LIST is topics=LIST. */
static int parse(cli *c, const cli_command *command, request *r, int argc, char **argv)
{
    cli_args a;
    int rc;
    *r = (request){0};
    cli_args_init(&a, c, command, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        if (id == CLI_ARGS_OPERAND) rc = operand(c, r, a.value);
        else if (!strcmp(a.option->name, "push")) rc = set_option(c, r, "direction", 9, "push");
        else if (!strcmp(a.option->name, "merge")) rc = set_option(c, r, "mode", 4, "merge");
        else if (!strcmp(a.option->name, "configs")) rc = set_option(c, r, "configs", 7, "true");
        else rc = set_option(c, r, a.option->name, strlen(a.option->name), a.value);
        if (rc != CLI_OK) return rc;
    }
    return -1;
}

static void request_fini(request *r)
{
    for (size_t i = 0; i < r->count; i++) free(r->texts[i]);
}

typedef bw_err (*change_fn)(bw_bus *bus, const request *r);

static int change(cli *c, const cli_command *command, int argc, char **argv, bool takes_options, change_fn fn, const char *what)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, command, &r, argc, argv);
    if (rc < 0 && !r.name) rc = cli_usage(c, "which link?");
    if (rc < 0 && r.count && !takes_options) rc = cli_usage(c, "takes a link's name alone");
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? fn(bus, &r) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "the link was not %s", what);
    else if (bus) cli_note(c, "link %s: %s", r.name, what);
    bw_bus_close(bus);
    request_fini(&r);
    return rc;
}

static bw_err do_add(bw_bus *bus, const request *r) { return bw_link_add(bus, r->name, r->options, r->count); }
static bw_err do_alter(bw_bus *bus, const request *r) { return bw_link_alter(bus, r->name, r->options, r->count); }
static bw_err do_remove(bw_bus *bus, const request *r) { return bw_link_remove(bus, r->name); }
static bw_err do_pause(bw_bus *bus, const request *r) { return bw_link_alter(bus, r->name, &(bw_config_entry){"paused", "true"}, 1); }
static bw_err do_resume(bw_bus *bus, const request *r) { return bw_link_alter(bus, r->name, &(bw_config_entry){"paused", "false"}, 1); }

static int link_add(cli *c, int argc, char **argv) { return change(c, &cli_link_add, argc, argv, true, do_add, "added"); }
static int link_alter(cli *c, int argc, char **argv) { return change(c, &cli_link_alter, argc, argv, true, do_alter, "altered"); }
static int link_remove(cli *c, int argc, char **argv) { return change(c, &cli_link_remove, argc, argv, false, do_remove, "removed"); }
static int link_pause(cli *c, int argc, char **argv) { return change(c, &cli_link_pause, argc, argv, false, do_pause, "paused"); }
static int link_resume(cli *c, int argc, char **argv) { return change(c, &cli_link_resume, argc, argv, false, do_resume, "resumed"); }

/* ---- showing ---- */

static void cell_seconds(cli_table *t, size_t column, const json_t *o)
{
    int64_t ms = cli_doc_int(o, "lag_ms", 0);
    cli_table_cell(t, column, ms ? "%.1f s" : "0", (double)ms / 1000);
}

void cli_links_print(const json_t *list, const char *indent)
{
    static const char *const headings[] = {"LINK", "STATE", "WHAT", "PEER", ">TOPICS' PARTS", ">LAG", ">BYTES", ">TIME", ">COPIED", ">LOST", NULL};
    cli_table t;
    size_t i;
    json_t *k;
    cli_table_init(&t, headings);
    json_array_foreach(list, i, k)
    {
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(k, "name", "?"));
        cli_table_cell(&t, 1, "%s", cli_doc_text(k, "state", "?"));
        cli_table_cell(&t, 2, "%s %s", cli_doc_text(k, "mode", "?"), strcmp(cli_doc_text(k, "direction", ""), "push") ? "from" : "to");
        cli_table_cell(&t, 3, "%s", cli_doc_text(k, "url", "?"));
        cli_doc_cell_int(&t, 4, k, "partitions");
        cli_doc_cell_int(&t, 5, k, "lag_records");
        cli_doc_cell_bytes(&t, 6, k, "lag_bytes");
        cell_seconds(&t, 7, k);
        cli_doc_cell_int(&t, 8, k, "records");
        cli_doc_cell_int(&t, 9, k, "lost_records");
    }
    cli_table_print(&t, stdout, indent);
    cli_table_fini(&t);
}

static void print_reasons(const json_t *list)
{
    size_t i;
    json_t *k;
    json_array_foreach(list, i, k)
    {
        const char *why = cli_doc_text(k, "message", "");
        if (*why) printf("%s: %s\n", cli_doc_text(k, "name", "?"), why);
    }
}

static void print_link(const json_t *k)
{
    static const char *const headings[] = {"TOPIC", "TARGET", ">PART", ">NEXT", ">END", ">LAG", ">BYTES", ">TIME", ">COPIED", ">LOST", "ERROR", NULL};
    const char *name;
    json_t *value, *p;
    size_t i;
    char text[512], bytes[24];
    printf("link %s: %s\n", cli_doc_text(k, "name", "?"), cli_doc_text(k, "state", "?"));
    if (*cli_doc_text(k, "message", "")) printf("  why                    %s\n", cli_doc_text(k, "message", ""));
    json_object_foreach(json_object_get(k, "options"), name, value) printf("  %-22s %s\n", name, cli_doc_scalar(value, text, sizeof text));
    if (*cli_doc_text(k, "peer_id", "")) printf("  %-22s %s\n", "peer id", cli_doc_text(k, "peer_id", ""));
    printf("  %-22s %" PRId64 "\n", "connected, times", cli_doc_int(k, "connects", 0));
    printf("  %-22s %s\n", "on the wire", cli_human_bytes(bytes, (double)cli_doc_int(k, "wire_bytes", 0)));
    printf("  %-22s %" PRId64 " records, %s, %.1f s\n", "lag", cli_doc_int(k, "lag_records", 0),
           cli_human_bytes(bytes, (double)cli_doc_int(k, "lag_bytes", 0)), (double)cli_doc_int(k, "lag_ms", 0) / 1000);
    cli_table t;
    cli_table_init(&t, headings);
    json_array_foreach(json_object_get(k, "parts"), i, p)
    {
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(p, "topic", "?"));
        cli_table_cell(&t, 1, "%s", cli_doc_text(p, "target", "?"));
        cli_doc_cell_int(&t, 2, p, "partition");
        cli_doc_cell_int(&t, 3, p, "next_offset");
        cli_doc_cell_int(&t, 4, p, "end_offset");
        cli_doc_cell_int(&t, 5, p, "lag_records");
        cli_doc_cell_bytes(&t, 6, p, "lag_bytes");
        cell_seconds(&t, 7, p);
        cli_doc_cell_int(&t, 8, p, "records");
        cli_doc_cell_int(&t, 9, p, "lost_records");
        cli_table_cell(&t, 10, "%s", cli_doc_text(p, "message", ""));
    }
    if (i) cli_table_print(&t, stdout, "");
    cli_table_fini(&t);
}

static int show(cli *c, const cli_command *command, int argc, char **argv, bool one)
{
    request r;
    bw_bus *bus = NULL;
    char *text = NULL;
    int rc = parse(c, command, &r, argc, argv);
    if (rc < 0 && one && !r.name) rc = cli_usage(c, "which link?");
    if (rc < 0 && !one && r.name) rc = cli_usage(c, "takes no operand (%s)", r.name);
    if (rc < 0 && r.count) rc = cli_usage(c, "takes no options of a link");
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = !bus ? BW_OK : one ? bw_link_describe(bus, r.name, &text) : bw_links_list(bus, &text);
    if (e) rc = cli_error_bw(c, e, one ? "cannot describe the link" : "cannot list the links");
    json_t *doc = text ? cli_doc_parse(c, text) : NULL;
    if (doc && c->json) cli_doc_print(doc);
    else if (doc && one) print_link(doc);
    else if (doc && json_array_size(doc)) {
        cli_links_print(doc, "");
        print_reasons(doc);
    } else if (doc) cli_note(c, "no links");
    json_decref(doc);
    bw_bus_close(bus);
    request_fini(&r);
    return rc;
}

static int link_list(cli *c, int argc, char **argv) { return show(c, &cli_link_list, argc, argv, false); }
static int link_describe(cli *c, int argc, char **argv) { return show(c, &cli_link_describe, argc, argv, true); }

static const cli_opt options[] = {
    {256, 't', "topics", "LIST", "names and '^patterns' of the source, separated by commas; NAME:N gives a priority, higher goes first"},
    {257, 0, "push", NULL, "from here to the peer, instead of from the peer"},
    {258, 0, "merge", NULL, "into a topic that others write to, too, each record once; instead of a read-only mirror with equal offsets"},
    {259, 0, "prefix", "TEXT", "in front of the target's name"},
    {260, 0, "rename", "NAME", "the target's name, of a link with one topic"},
    {261, 0, "key-prefix", "TEXT", "only records whose key begins so"},
    {262, 0, "header", "NAME[=VALUE]", "only records with this header"},
    {263, 0, "rate", "BYTES", "a second on the wire, with K, M or G"},
    {264, 'z', "compression", "CODEC", "on the wire: zstd, lz4, gzip, snappy"},
    {265, 0, "configs", NULL, "the topics' configuration travels, too"},
    {266, 0, "groups", "LIST", "groups whose committed offsets travel (mirrors); names and '^patterns'"},
    {0, 0, NULL, NULL, NULL},
};

const cli_command cli_link_add = {
    "link add",
    "NAME URL [OPTION=VALUE…]",
    "Copy topics from or to another daemon, for good.",
    "The link is kept by this daemon and goes on where it stopped, whatever happens to either side. A mirror is a read-only copy with equal "
    "offsets; a merge puts each record once into a topic that may have other sources, too.",
    options,
    true,
    "  busway link add berlin tcp://berlin:7070 --topics 'orders,^metrics\\.'\n"
    "  busway link add up tcp://hq:7070 --push --topics alarms:10,telemetry -z zstd --rate 30K\n"
    "  busway link add all ipc:///run/busway/bus.sock --merge --topics events\n",
    link_add,
};
const cli_command cli_link_alter = {"link alter", "NAME OPTION=VALUE…", "Change a link's options; OPTION= goes back to the default.",
                                    NULL, options, true,
                                    "  busway link alter up rate=100K\n", link_alter};
const cli_command cli_link_list = {"link list", "", "List the links, how they go, and how far they lag behind.", NULL, NULL, true,
                                   "  busway link list\n  busway link list --json\n", link_list};
const cli_command cli_link_describe = {"link describe", "NAME", "Show a link's options and each of its partitions.", NULL, NULL, true,
                                       "  busway link describe berlin\n", link_describe};
const cli_command cli_link_pause = {"link pause", "NAME", "Let a link rest until it is resumed.", NULL, NULL, true,
                                    "  busway link pause up\n", link_pause};
const cli_command cli_link_resume = {"link resume", "NAME", "Let a paused link go on.", NULL, NULL, true, "  busway link resume up\n", link_resume};
const cli_command cli_link_remove = {"link remove", "NAME", "Forget a link; what it has copied stays.", NULL, NULL, true,
                                     "  busway link remove up\n", link_remove};
