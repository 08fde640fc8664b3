/* cli/cmd_status.c: the daemon's state and this command's own connection.
 *
 * The document is the daemon's, which may be newer: known members are laid out, unknown scalars are printed as they are. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/group.h"
#include "cli/link.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static void print_duration(int64_t ms)
{
    int64_t s = ms / 1000;
    if (s >= 86400) printf("%" PRId64 " d ", s / 86400);
    if (s >= 3600) printf("%" PRId64 " h ", s / 3600 % 24);
    if (s >= 60) printf("%" PRId64 " min ", s / 60 % 60);
    printf("%.1f s\n", (double)(ms % 60000) / 1000);
}

/* A scalar with its name; what its name says it is (bytes, a time, a duration) for people. Empty texts are left out. */
static void print_value(const char *name, const json_t *value)
{
    char text[512], label[64];
    int64_t n = json_is_integer(value) ? json_integer_value(value) : 0;
    cli_doc_scalar(value, text, sizeof text);
    if (!*text) return;
    snprintf(label, sizeof label, "%s", name);
    if (ends_with(label, "_ms")) label[strlen(label) - 3] = 0;
    for (char *s = label; *s; s++)
        if (*s == '_') *s = ' ';
    printf("  %-22s ", label);
    if (ends_with(name, "_bytes")) {
        printf("%s\n", cli_human_bytes(text, (double)n));
    } else if (strcmp(name, "uptime_ms") == 0) {
        print_duration(n);
    } else if (ends_with(name, "_ms")) {
        time_t t = (time_t)(n / 1000);
        struct tm tm;
        localtime_r(&t, &tm);
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
        printf("%s\n", text);
    } else {
        printf("%s\n", text);
    }
}

static void print_connections(const json_t *list)
{
    static const char *const headings[] = {"CLIENT", ">PID", ">UID", "ADDRESS", "TRANSPORT", "WHY NOT DIRECT", NULL};
    cli_table t;
    char text[512];
    size_t i;
    json_t *conn;
    cli_table_init(&t, headings);
    json_array_foreach(list, i, conn)
    {
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(conn, "client", "?"));
        cli_table_cell(&t, 1, "%s", cli_doc_scalar(json_object_get(conn, "pid"), text, sizeof text));
        cli_table_cell(&t, 2, "%s", cli_doc_scalar(json_object_get(conn, "uid"), text, sizeof text));
        cli_table_cell(&t, 3, "%s", cli_doc_text(conn, "address", ""));
        cli_table_cell(&t, 4, "%s", cli_doc_text(conn, "transport", ""));
        cli_table_cell(&t, 5, "%s", cli_doc_text(conn, "why_not_direct", ""));
    }
    printf("\nconnections: %zu\n", json_array_size(list));
    if (json_array_size(list)) cli_table_print(&t, stdout, "  ");
    cli_table_fini(&t);
}

static void print_status(const json_t *doc)
{
    const char *name, *inner;
    json_t *value, *member;
    printf("daemon\n");
    json_object_foreach((json_t *)doc, name, value)
    {
        if (!json_is_object(value) && !json_is_array(value)) print_value(name, value);
    }
    json_object_foreach((json_t *)doc, name, value)
    {
        if (!json_is_object(value)) continue;
        printf("\n%s\n", name);
        json_object_foreach(value, inner, member)
        {
            if (!json_is_object(member) && !json_is_array(member)) print_value(inner, member);
        }
    }
    const json_t *groups = json_object_get(doc, "consumer_groups");
    if (json_array_size(groups)) {
        putchar('\n');
        cli_group_summary_print(groups);
    }
    if (json_array_size(json_object_get(doc, "links"))) {
        printf("\nlinks: %zu\n", json_array_size(json_object_get(doc, "links")));
        cli_links_print(json_object_get(doc, "links"), "  ");
    }
    if (json_object_get(doc, "connections")) print_connections(json_object_get(doc, "connections"));
}

static int run(cli *c, int argc, char **argv)
{
    cli_args a;
    cli_args_init(&a, c, &cli_status, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        return cli_usage(c, "takes no operand (%s)", a.value);
    }
    bw_bus *bus = NULL;
    int rc = cli_connect(c, &bus);
    if (rc != CLI_OK) return rc;
    char *text = NULL;
    bw_err e = bw_status(bus, &text);
    json_t *doc = e == BW_OK ? cli_doc_parse(c, text) : NULL, *groups = doc ? cli_group_summary(c, bus) : NULL;
    if (groups) json_object_set_new(doc, "consumer_groups", groups);
    if (e != BW_OK)
        rc = cli_error_bw(c, e, "no status");
    else if (!doc)
        rc = CLI_FAILURE;
    else if (c->json)
        cli_doc_print(doc);
    else
        print_status(doc);
    json_decref(doc);
    bw_bus_close(bus);
    return rc;
}

const cli_command cli_status = {
    "status", "",   "Show the daemon: version, folders, disk, connections (and why one is not direct).", NULL,
    NULL,     true, "  busway status\n  busway -b dir:./bus status --json | jq .connections\n",          run,
};
