/* cli/cmd_quota.c: quota set | list. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RATES_MAX 16

typedef struct request {
    const char *user, *client, *pid;
    bw_config_entry rates[RATES_MAX];
    char *texts[RATES_MAX];
    size_t count;
} request;

enum { ID_USER = 256, ID_CLIENT, ID_PID };

/* NAME=RATE, with K, M or G behind it, or NAME= to lift it. */
static int add_rate(cli *c, request *r, const char *text)
{
    const char *equals = strchr(text, '=');
    int64_t n = 0;
    if (r->count == RATES_MAX) return cli_usage(c, "more than %d rates", RATES_MAX);
    if (!equals || equals == text) return cli_usage(c, "%s is not of the form NAME=RATE", text);
    if (equals[1] && !cli_parse_size(equals + 1, INT64_MIN, INT64_MAX, &n))
        return cli_usage(c, "%s: the rate is a whole number, with K, M or G (1024) behind it if you like", text);
    size_t name = (size_t)(equals - text), room = name + 32;
    char *copy = malloc(room);
    if (!copy) return cli_error(c, CLI_FAILURE, "out of memory");
    snprintf(copy, room, "%.*s%c%lld", (int)name, text, 0, (long long)n);
    r->texts[r->count] = copy;
    r->rates[r->count++] = (bw_config_entry){copy, equals[1] ? copy + name + 1 : NULL};
    return CLI_OK;
}

static int parse(cli *c, const cli_command *command, request *r, int argc, char **argv)
{
    cli_args a;
    int rc;
    *r = (request){0};
    cli_args_init(&a, c, command, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        switch (id) {
        case CLI_ARGS_STOP: return a.exit_code;
        case CLI_ARGS_OPERAND:
            if ((rc = add_rate(c, r, a.value)) != CLI_OK) return rc;
            break;
        case ID_USER: r->user = a.value; break;
        case ID_CLIENT: r->client = a.value; break;
        default: r->pid = a.value; break;
        }
    }
    return -1;
}

static void request_fini(request *r)
{
    for (size_t i = 0; i < r->count; i++) free(r->texts[i]);
}

static int quota_set(cli *c, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_quota_set, &r, argc, argv);
    if (rc < 0 && !r.user && !r.client && !r.pid)
        rc = cli_usage(c, "whose? --user, --client or --pid; \"%s\" for all that have none", BW_QUOTA_DEFAULT);
    if (rc < 0 && r.count == 0) rc = cli_usage(c, "how much? producer_byte_rate=RATE, consumer_byte_rate=RATE or request_rate=RATE");
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? bw_quota_set(bus, r.user, r.client, r.pid, r.rates, r.count) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "the quota was not set");
    bw_bus_close(bus);
    request_fini(&r);
    return rc;
}

static int quota_list(cli *c, int argc, char **argv)
{
    static const char *const headings[] = {"USER", "CLIENT", "PID", ">PRODUCE/S", ">CONSUME/S", ">REQUESTS/S", NULL};
    request r;
    bw_bus *bus = NULL;
    char *text = NULL;
    int rc = parse(c, &cli_quota_list, &r, argc, argv);
    if (rc < 0 && r.count) rc = cli_usage(c, "takes no rates; `busway quota set` sets them");
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? bw_quotas_list(bus, r.user, r.client, r.pid, &text) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "cannot list the quotas");
    json_t *list = text ? cli_doc_parse(c, text) : NULL, *q;
    size_t i;
    if (list && c->json) {
        cli_doc_print(list);
    } else if (list) {
        cli_table t;
        char value[300];
        cli_table_init(&t, headings);
        json_array_foreach(list, i, q)
        {
            static const char *const who[] = {"user", "client", "pid"};
            cli_table_row(&t);
            for (size_t k = 0; k < 3; k++) {
                const char *v = cli_doc_scalar(json_object_get(q, who[k]), value, sizeof value);
                cli_table_cell(&t, k, "%s", *v ? v : "-");
            }
            cli_doc_cell_bytes(&t, 3, q, "producer_byte_rate");
            cli_doc_cell_bytes(&t, 4, q, "consumer_byte_rate");
            cli_doc_cell_int(&t, 5, q, "request_rate");
        }
        if (i > 0) cli_table_print(&t, stdout, "");
        else cli_note(c, "no quotas");
        cli_table_fini(&t);
    }
    json_decref(list);
    bw_bus_close(bus);
    request_fini(&r);
    return rc;
}

static const cli_opt options[] = {
    {ID_USER, 0, "user", "NAME", "of a user (a name or a uid), or <default>"},
    {ID_CLIENT, 0, "client", "ID", "of a client id, or <default>; with --user: of that client of that user"},
    {ID_PID, 0, "pid", "PID", "of one process, or <default>"},
    {0, 0, NULL, NULL, NULL},
};

const cli_command cli_quota_set = {
    "quota set",
    "NAME=RATE…",
    "Limit what a user, a client or a process may do a second.",
    "NAME is producer_byte_rate, consumer_byte_rate or request_rate; NAME= lifts it. Who is over his rate is slowed, not refused; whoever has "
    "a quota of bytes goes through the socket.",
    options,
    true,
    "  busway quota set --client loader producer_byte_rate=20M\n"
    "  busway quota set --user nobody producer_byte_rate=1M request_rate=500\n"
    "  busway quota set --client loader producer_byte_rate=\n",
    quota_set,
};
const cli_command cli_quota_list = {"quota list",
                                    "",
                                    "List the quotas.",
                                    NULL,
                                    options,
                                    true,
                                    "  busway quota list\n  busway quota list --user nobody\n",
                                    quota_list};
