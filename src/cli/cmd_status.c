/* cli/cmd_status.c: the daemon's state and this command's own connection.
 *
 * The document is the daemon's, which may be newer: known members are laid out, unknown scalars are printed as they are. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void print_value(const char *name, const json_t *value)
{
    char text[512], human[24];
    size_t n = strlen(name);
    bool bytes = json_is_integer(value) && n > 5 && strcmp(name + n - 5, "bytes") == 0;
    char label[64];
    snprintf(label, sizeof label, "%s", name);
    for (char *s = label; *s; s++)
        if (*s == '_') *s = ' ';
    if (bytes)
        printf("  %-22s %s\n", label, cli_human_bytes(human, (double)json_integer_value(value)));
    else
        printf("  %-22s %s\n", label, cli_doc_scalar(value, text, sizeof text));
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
        cli_table_cell(&t, 0, "%s", cli_doc_text(conn, "client_id", cli_doc_text(conn, "client", "?")));
        cli_table_cell(&t, 1, "%s", cli_doc_scalar(json_object_get(conn, "pid"), text, sizeof text));
        cli_table_cell(&t, 2, "%s", cli_doc_scalar(json_object_get(conn, "uid"), text, sizeof text));
        cli_table_cell(&t, 3, "%s", cli_doc_text(conn, "address", ""));
        cli_table_cell(&t, 4, "%s", cli_doc_text(conn, "transport", ""));
        cli_table_cell(&t, 5, "%s", cli_doc_text(conn, "reason", cli_doc_text(conn, "why_not_direct", "")));
    }
    printf("\nconnections: %zu\n", json_array_size(list));
    if (json_array_size(list)) cli_table_print(&t, stdout, "  ");
    cli_table_fini(&t);
}

static void print_partitions(const json_t *list)
{
    static const char *const headings[] = {"TOPIC", ">PARTITION", ">START", ">END", ">DURABLE", ">BYTES", "STATE", NULL};
    cli_table t;
    char human[24];
    size_t i;
    json_t *p;
    cli_table_init(&t, headings);
    json_array_foreach(list, i, p)
    {
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(p, "topic", "?"));
        cli_table_cell(&t, 1, "%" PRId64, cli_doc_int(p, "partition", 0));
        cli_table_cell(&t, 2, "%" PRId64, cli_doc_int(p, "log_start_offset", 0));
        cli_table_cell(&t, 3, "%" PRId64, cli_doc_int(p, "end_offset", 0));
        cli_table_cell(&t, 4, "%" PRId64, cli_doc_int(p, "durable_offset", 0));
        cli_table_cell(&t, 5, "%s", cli_human_bytes(human, (double)cli_doc_int(p, "size_bytes", 0)));
        cli_table_cell(&t, 6, "%s", cli_doc_text(p, "state", ""));
    }
    printf("\npartitions: %zu\n", json_array_size(list));
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
    if (json_object_get(doc, "connections")) print_connections(json_object_get(doc, "connections"));
    if (json_is_array(json_object_get(doc, "partitions"))) print_partitions(json_object_get(doc, "partitions"));
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
    json_t *doc = e == BW_OK ? cli_doc_parse(c, text) : NULL;
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
    "status",
    "",
    "Show the daemon: version, folders, connections (and why one is not direct), partitions.",
    NULL,
    NULL,
    true,
    "  busway status\n  busway -b dir:./bus status --json | jq .connections\n",
    run,
};
