/* cli/cmd_txn.c: txn list | describe | producers | abort. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/table.h"

#include <inttypes.h>
#include <stdio.h>

#define IDS_MAX 256

/* The operands of a command without options. -1: go on; else the exit code. */
static int operands(cli *c, const cli_command *command, int argc, char **argv, const char **ids, size_t *count)
{
    cli_args a;
    *count = 0;
    cli_args_init(&a, c, command, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        if (id == CLI_ARGS_STOP) return a.exit_code;
        if (*count == IDS_MAX) return cli_usage(c, "more than %d transactional ids", IDS_MAX);
        ids[(*count)++] = a.value;
    }
    return -1;
}

static void transactions_table(const json_t *list)
{
    static const char *const headings[] = {"TRANSACTIONAL ID", "STATE", ">PRODUCER", ">EPOCH", ">OPEN FOR", ">TIME-OUT", NULL};
    cli_table t;
    size_t i;
    json_t *x;
    cli_table_init(&t, headings);
    json_array_foreach(list, i, x)
    {
        cli_table_row(&t);
        cli_table_cell(&t, 0, "%s", cli_doc_text(x, "id", "?"));
        cli_table_cell(&t, 1, "%s", cli_doc_text(x, "state", "?"));
        cli_doc_cell_int(&t, 2, x, "producer_id");
        cli_doc_cell_int(&t, 3, x, "epoch");
        cli_doc_cell_ms(&t, 4, x, "age_ms");
        cli_doc_cell_ms(&t, 5, x, "timeout_ms");
    }
    cli_table_print(&t, stdout, "");
    cli_table_fini(&t);
}

static int txn_list(cli *c, int argc, char **argv)
{
    const char *ids[IDS_MAX];
    size_t count;
    bw_bus *bus = NULL;
    char *text = NULL;
    int rc = operands(c, &cli_txn_list, argc, argv, ids, &count);
    if (rc < 0 && count) rc = cli_usage(c, "takes no id; `busway txn describe %s` shows one", ids[0]);
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? bw_transactions_list(bus, &text) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "cannot list the transactions");
    json_t *list = text ? cli_doc_parse(c, text) : NULL;
    if (list && c->json) cli_doc_print(list);
    else if (list && json_array_size(list)) transactions_table(list);
    else if (list) cli_note(c, "nobody has used a transactional.id yet");
    json_decref(list);
    bw_bus_close(bus);
    return rc;
}

static void show(json_t *doc)
{
    size_t i;
    json_t *p, *one = json_array();
    json_array_append(one, doc);
    transactions_table(one);
    json_decref(one);
    json_array_foreach(json_object_get(doc, "partitions"), i, p)
        printf("  writes to %s partition %" PRId64 "\n", cli_doc_text(p, "topic", "?"), cli_doc_int(p, "partition", 0));
    json_array_foreach(json_object_get(doc, "offsets"), i, p)
        printf("  commits offset %" PRId64 " of %s partition %" PRId64 " for group %s\n", cli_doc_int(p, "offset", 0), cli_doc_text(p, "topic", "?"),
               cli_doc_int(p, "partition", 0), cli_doc_text(p, "group", "?"));
}

static int txn_describe(cli *c, int argc, char **argv)
{
    const char *ids[IDS_MAX];
    size_t count;
    bw_bus *bus = NULL;
    int rc = operands(c, &cli_txn_describe, argc, argv, ids, &count);
    if (rc < 0 && count == 0) rc = cli_usage(c, "which one? busway txn describe ID (`busway txn list` lists them)");
    if (rc < 0) rc = cli_connect(c, &bus);
    json_t *all = c->json ? json_array() : NULL;
    for (size_t i = 0; bus && i < count; i++) {
        char *text = NULL;
        bw_err e = bw_transaction_describe(bus, ids[i], &text);
        if (e && rc == CLI_OK) rc = cli_error_bw(c, e, "%s", ids[i]);
        json_t *doc = text ? cli_doc_parse(c, text) : NULL;
        if (doc && all) json_array_append(all, doc);
        else if (doc) show(doc);
        json_decref(doc);
    }
    if (all && bus && (rc == CLI_OK || json_array_size(all))) cli_doc_print(all);
    json_decref(all);
    bw_bus_close(bus);
    return rc;
}

static int txn_producers(cli *c, int argc, char **argv)
{
    static const char *const headings[] = {">PRODUCER", ">EPOCH", ">LAST SEQUENCE", ">LAST OFFSET", ">TRANSACTION FROM", ">SILENT", NULL};
    const char *words[IDS_MAX];
    size_t count;
    int64_t partition = 0;
    bw_bus *bus = NULL;
    char *text = NULL;
    int rc = operands(c, &cli_txn_producers, argc, argv, words, &count);
    if (rc < 0 && (count == 0 || count > 2)) rc = cli_usage(c, "of which partition? busway txn producers TOPIC [PARTITION]");
    if (rc < 0 && count == 2 && !cli_parse_int(words[1], 0, INT32_MAX, &partition)) rc = cli_usage(c, "%s is not a partition's number", words[1]);
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? bw_producers_describe(bus, words[0], (int32_t)partition, &text) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "%s partition %" PRId64, words[0], partition);
    json_t *list = text ? cli_doc_parse(c, text) : NULL, *x;
    size_t i;
    if (list && c->json) {
        cli_doc_print(list);
    } else if (list) {
        cli_table t;
        cli_table_init(&t, headings);
        json_array_foreach(list, i, x)
        {
            cli_table_row(&t);
            cli_doc_cell_int(&t, 0, x, "producer_id");
            cli_doc_cell_int(&t, 1, x, "epoch");
            cli_doc_cell_int(&t, 2, x, "last_sequence");
            cli_doc_cell_int(&t, 3, x, "last_offset");
            if (cli_doc_int(x, "transaction_start_offset", -1) < 0) cli_table_cell(&t, 4, "-");
            else cli_doc_cell_int(&t, 4, x, "transaction_start_offset");
            cli_doc_cell_ms(&t, 5, x, "silent_ms");
        }
        if (i > 0) cli_table_print(&t, stdout, "");
        else cli_note(c, "no producer with an id has written to it (direct ones have none unless they have a name)");
        cli_table_fini(&t);
    }
    json_decref(list);
    bw_bus_close(bus);
    return rc;
}

static int txn_abort(cli *c, int argc, char **argv)
{
    const char *ids[IDS_MAX];
    size_t count;
    bw_bus *bus = NULL;
    int rc = operands(c, &cli_txn_abort, argc, argv, ids, &count);
    if (rc < 0 && count == 0) rc = cli_usage(c, "which one? busway txn abort ID");
    if (rc < 0) rc = cli_connect(c, &bus);
    for (size_t i = 0; bus && i < count; i++) {
        bw_err e = bw_transaction_abort_admin(bus, ids[i]);
        if (e == BW_OK) continue;
        int failed = cli_error_bw(c, e, "%s", ids[i]);
        if (rc == CLI_OK) rc = failed;
    }
    bw_bus_close(bus);
    return rc;
}

const cli_command cli_txn_list = {"txn list", "", "List transactional ids and what each is doing.", NULL, NULL, true,
                                  "  busway txn list\n  busway txn list --json | jq -r '.[] | select(.age_ms > 60000) | .id'\n", txn_list};
const cli_command cli_txn_describe = {"txn describe", "ID…", "Show a transaction: its partitions and offsets.", NULL, NULL, true,
                                      "  busway txn describe billing-1\n", txn_describe};
const cli_command cli_txn_producers = {"txn producers", "TOPIC [PARTITION]", "Show who wrote to a partition, and whose transaction is open.",
                                       "An open transaction keeps committed readers from what lies behind its first offset.", NULL, true,
                                       "  busway txn producers orders 0\n", txn_producers};
const cli_command cli_txn_abort = {"txn abort", "ID…", "Abort the transaction of a producer that hangs.",
                                   "Its producer is told with its next call, and can begin another one.", NULL, true,
                                   "  busway txn abort billing-1\n", txn_abort};
