/* cli/cmd_group.c: group list | describe | members | delete. Offsets are set in cmd_group_offsets.c. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/group.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

json_t *cli_group_doc(const cli *c, bw_bus *bus, const char *group, int *exit_code)
{
    char *text;
    bw_err e = bw_group_describe(bus, group, &text);
    json_t *doc = e == BW_OK ? cli_doc_parse(c, text) : NULL;
    *exit_code = doc ? CLI_OK : e ? cli_error_bw(c, e, "%s", group) : CLI_FAILURE;
    return doc;
}

int cli_group_names(cli *c, const cli_command *command, int argc, char **argv, const char **names, size_t *count)
{
    cli_args a;
    *count = 0;
    cli_args_init(&a, c, command, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        if (*count == CLI_GROUPS_MAX) return cli_usage(c, "more than %d groups", CLI_GROUPS_MAX);
        names[(*count)++] = a.value;
    }
    return -1;
}

/* ---- list ---- */

static int group_list(cli *c, int argc, char **argv)
{
    const char *names[CLI_GROUPS_MAX];
    size_t count;
    bw_bus *bus = NULL;
    int rc = cli_group_names(c, &cli_group_list, argc, argv, names, &count);
    if (rc < 0 && count) rc = cli_usage(c, "takes no group; `busway group describe %s` shows one", names[0]);
    if (rc < 0) rc = cli_connect(c, &bus);
    char *text = NULL;
    bw_err e = bus ? bw_groups_list(bus, &text) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "cannot list the groups");
    json_t *groups = text ? cli_doc_parse(c, text) : NULL;
    if (groups && c->json) {
        cli_doc_print(groups);
    } else if (groups) {
        static const char *const headings[] = {"GROUP", "STATE", "KIND", ">MEMBERS", ">PARTITIONS", NULL};
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
        }
        if (json_array_size(groups)) cli_table_print(&t, stdout, "");
        else cli_note(c, "no groups yet; `busway consume -G NAME TOPIC` makes one");
        cli_table_fini(&t);
    }
    json_decref(groups);
    bw_bus_close(bus);
    return rc;
}

/* ---- describe, members ---- */

static void print_head(const json_t *doc)
{
    int64_t lag = 0, unknown = 0;
    size_t i;
    json_t *p;
    json_array_foreach(json_object_get(doc, "partitions"), i, p)
    {
        if (json_is_integer(json_object_get(p, "lag"))) lag += cli_doc_int(p, "lag", 0);
        else unknown++;
    }
    printf("%s: %s, %s", cli_doc_text(doc, "group", "?"), cli_doc_text(doc, "state", "?"), cli_doc_text(doc, "kind", "?"));
    if (*cli_doc_text(doc, "assignor", "")) printf(", %s", cli_doc_text(doc, "assignor", ""));
    printf(", epoch %" PRId64 ", %zu member%s, lag %" PRId64 " record%s", cli_doc_int(doc, "epoch", 0),
           json_array_size(json_object_get(doc, "members")), json_array_size(json_object_get(doc, "members")) == 1 ? "" : "s", lag,
           lag == 1 ? "" : "s");
    if (unknown) printf(" and %" PRId64 " partition%s without a committed offset", unknown, unknown == 1 ? "" : "s");
    putchar('\n');
}

static void print_partitions(const json_t *doc)
{
    static const char *const headings[] = {"TOPIC", ">PARTITION", ">COMMITTED", ">END", ">LAG", ">BEHIND", "MEMBER", "METADATA", NULL};
    cli_table t;
    size_t i;
    json_t *p;
    cli_table_init(&t, headings);
    json_array_foreach(json_object_get(doc, "partitions"), i, p)
    {
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(p, "topic", "?"));
        cli_doc_cell_int(&t, 1, p, "partition");
        cli_doc_cell_int(&t, 2, p, "committed_offset");
        cli_doc_cell_int(&t, 3, p, "end_offset");
        cli_doc_cell_int(&t, 4, p, "lag");
        cli_doc_cell_ms(&t, 5, p, "lag_ms");
        cli_table_cell(&t, 6, "%s", cli_doc_text(p, "member", "-"));
        const char *error = cli_doc_text(p, "error", "");
        cli_table_cell(&t, 7, "%s", *error ? error : cli_doc_text(p, "metadata", ""));
    }
    if (i > 0) cli_table_print(&t, stdout, "  ");
    cli_table_fini(&t);
}

static void print_members(const json_t *doc)
{
    static const char *const headings[] = {"MEMBER", "INSTANCE", "CLIENT", ">PID", ">UID", ">PARTITIONS", "WHICH", NULL};
    cli_table t;
    size_t i, k;
    json_t *m, *p;
    cli_table_init(&t, headings);
    json_array_foreach(json_object_get(doc, "members"), i, m)
    {
        char which[160] = "";
        size_t at = 0;
        const json_t *parts = json_object_get(m, "partitions");
        json_array_foreach(parts, k, p)
        {
            int n = snprintf(which + at, sizeof which - at, "%s%s/%" PRId64, k ? " " : "", cli_doc_text(p, "topic", "?"),
                             cli_doc_int(p, "partition", 0));
            if (n < 0 || at + (size_t)n >= sizeof which) {
                memcpy(which + sizeof which - 4, "…", 4); /* 3 bytes and the end */
                break;
            }
            at += (size_t)n;
        }
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(m, "member", "?"));
        cli_table_cell(&t, 1, "%s", *cli_doc_text(m, "instance", "") ? cli_doc_text(m, "instance", "") : "-");
        cli_table_cell(&t, 2, "%s", cli_doc_text(m, "client", ""));
        cli_doc_cell_int(&t, 3, m, "pid");
        cli_doc_cell_int(&t, 4, m, "uid");
        cli_table_cell(&t, 5, "%zu", json_array_size(parts));
        cli_table_cell(&t, 6, "%s", which);
    }
    if (i > 0) cli_table_print(&t, stdout, "  ");
    else printf("  no members\n");
    cli_table_fini(&t);
}

/* For each group: its document, printed by show; with --json one array of what `member` names of it (NULL: all of it). */
static int each_group(cli *c, const cli_command *command, int argc, char **argv, void (*show)(const json_t *), const char *member)
{
    const char *names[CLI_GROUPS_MAX];
    size_t count;
    bw_bus *bus = NULL;
    int rc = cli_group_names(c, command, argc, argv, names, &count);
    if (rc < 0 && count == 0) rc = cli_usage(c, "which group? busway %s GROUP (`busway group list` lists them)", command->name);
    if (rc < 0) rc = cli_connect(c, &bus);
    json_t *all = c->json ? json_array() : NULL;
    for (size_t i = 0; bus && i < count; i++) {
        int failed;
        json_t *doc = cli_group_doc(c, bus, names[i], &failed);
        if (rc == CLI_OK) rc = failed;
        if (doc && all) json_array_append(all, member ? json_object_get(doc, member) : doc);
        else if (doc) show(doc);
        json_decref(doc);
    }
    if (all && bus && (rc == CLI_OK || json_array_size(all))) cli_doc_print(all);
    json_decref(all);
    bw_bus_close(bus);
    return rc;
}

static void show_group(const json_t *doc)
{
    print_head(doc);
    print_partitions(doc);
}

static void show_members(const json_t *doc)
{
    print_head(doc);
    print_members(doc);
}

static int group_describe(cli *c, int argc, char **argv) { return each_group(c, &cli_group_describe, argc, argv, show_group, NULL); }

static int group_members(cli *c, int argc, char **argv) { return each_group(c, &cli_group_members, argc, argv, show_members, "members"); }

/* ---- delete ---- */

static int group_delete(cli *c, int argc, char **argv)
{
    const char *names[CLI_GROUPS_MAX];
    size_t count;
    bw_bus *bus = NULL;
    int rc = cli_group_names(c, &cli_group_delete, argc, argv, names, &count);
    if (rc < 0 && count == 0) rc = cli_usage(c, "which group? busway group delete GROUP");
    if (rc < 0) rc = cli_connect(c, &bus);
    for (size_t i = 0; bus && i < count; i++) {
        bw_err e = bw_group_delete(bus, names[i]);
        if (e == BW_OK) continue;
        int failed = cli_error_bw(c, e, "%s", names[i]);
        if (rc == CLI_OK) rc = failed;
    }
    bw_bus_close(bus);
    return rc;
}

const cli_command cli_group_list = {"group list",
                                    "",
                                    "List consumer groups.",
                                    NULL,
                                    NULL,
                                    true,
                                    "  busway group list\n",
                                    group_list};
const cli_command cli_group_describe = {"group describe",
                                        "GROUP…",
                                        "Show a group's committed offsets and how far it is behind.",
                                        "LAG is in records; BEHIND is how long the first record that was not consumed has been waiting.",
                                        NULL,
                                        true,
                                        "  busway group describe billing\n"
                                        "  busway group describe billing --json | jq '[.[0].partitions[].lag] | add'\n",
                                        group_describe};
const cli_command cli_group_members = {"group members",
                                       "GROUP…",
                                       "Show who is in a group and what each reads.",
                                       NULL,
                                       NULL,
                                       true,
                                       "  busway group members billing\n",
                                       group_members};
const cli_command cli_group_delete = {"group delete",
                                      "GROUP…",
                                      "Delete groups without members, with all they have committed.",
                                      NULL,
                                      NULL,
                                      true,
                                      "  busway group delete billing\n",
                                      group_delete};
