/* cli/group_summary.c: all groups in a line each, for status and top: members, lag in records and in time. */
#include "cli/group.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>

#define DESCRIBED_MAX 64 /* groups that are looked into; of the others only the list's words are known */

static void add_lag(const cli *c, bw_bus *bus, json_t *group)
{
    char *text;
    size_t i;
    json_t *p;
    int64_t lag = 0, lag_ms = 0;
    if (bw_group_describe(bus, cli_doc_text(group, "group", ""), &text) != BW_OK) return; /* gone meanwhile */
    json_t *doc = cli_doc_parse(c, text);
    json_array_foreach(json_object_get(doc, "partitions"), i, p)
    {
        lag += cli_doc_int(p, "lag", 0);
        if (cli_doc_int(p, "lag_ms", 0) > lag_ms) lag_ms = cli_doc_int(p, "lag_ms", 0);
    }
    if (doc) {
        json_object_set_new(group, "lag", json_integer(lag));
        json_object_set_new(group, "lag_ms", json_integer(lag_ms));
    }
    json_decref(doc);
}

json_t *cli_group_summary(const cli *c, bw_bus *bus)
{
    char *text;
    size_t i;
    json_t *g;
    if (bw_groups_list(bus, &text) != BW_OK) return NULL; /* an older daemon, or none at the moment */
    json_t *groups = cli_doc_parse(c, text);
    json_array_foreach(groups, i, g)
    {
        if (i < DESCRIBED_MAX) add_lag(c, bus, g);
    }
    return groups;
}

void cli_group_summary_print(const json_t *groups)
{
    static const char *const headings[] = {"GROUP", "STATE", "KIND", ">MEMBERS", ">PARTITIONS", ">LAG", ">BEHIND", NULL};
    cli_table t;
    size_t i;
    json_t *g;
    cli_table_init(&t, headings);
    json_array_foreach(groups, i, g)
    {
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(g, "group", "?"));
        cli_table_cell(&t, 1, "%s", cli_doc_text(g, "state", ""));
        cli_table_cell(&t, 2, "%s", cli_doc_text(g, "kind", ""));
        cli_doc_cell_int(&t, 3, g, "members");
        cli_doc_cell_int(&t, 4, g, "partitions");
        cli_doc_cell_int(&t, 5, g, "lag");
        cli_doc_cell_ms(&t, 6, g, "lag_ms");
    }
    cli_table_print(&t, stdout, "");
    cli_table_fini(&t);
}
