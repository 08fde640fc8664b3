/* cli/cmd_user.c: user add | list | remove, token add | list | remove. */
#include "cli/commands.h"
#include "cli/doc.h"
#include "cli/table.h"

#include <busway/user.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { ID_ROLE = 256, ID_FILE, ID_CERTIFICATE };

typedef struct request {
    const char *name, *role, *file;
    bool certificate;
} request;

static int parse(cli *c, const cli_command *command, request *r, bool with_name, int argc, char **argv)
{
    cli_args a;
    *r = (request){.role = "client"};
    cli_args_init(&a, c, command, argc, argv);
    for (int id; (id = cli_args_next(&a)) != CLI_ARGS_END;) {
        switch (id) {
        case CLI_ARGS_STOP: return a.exit_code;
        case CLI_ARGS_OPERAND:
            if (r->name || !with_name) return cli_usage(c, "%s is one too many", a.value);
            r->name = a.value;
            break;
        case ID_ROLE: r->role = a.value; break;
        case ID_FILE: r->file = a.value; break;
        default: r->certificate = true; break;
        }
    }
    if (with_name && !r->name) return cli_usage(c, "which user?");
    return -1;
}

/* The first line of a file, or of standard input: without an echo when that is a terminal. */
static int read_password(cli *c, const char *file, char *out, size_t size)
{
    FILE *f = file ? fopen(file, "r") : stdin;
    struct termios before, quiet;
    if (!f) return cli_error(c, CLI_NOT_FOUND, "cannot read %s", file);
    bool terminal = !file && tcgetattr(0, &before) == 0;
    if (terminal) {
        quiet = before;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        fputs("password: ", stderr);
        tcsetattr(0, TCSAFLUSH, &quiet);
    }
    char *line = fgets(out, (int)size, f);
    if (terminal) {
        tcsetattr(0, TCSAFLUSH, &before);
        fputc('\n', stderr);
    }
    if (file) fclose(f);
    if (!line) return cli_usage(c, "there is no password on standard input or in --password-file");
    out[strcspn(out, "\r\n")] = 0;
    return -1;
}

static int user_add(cli *c, int argc, char **argv)
{
    request r;
    char password[BW_USER_SECRET_MAX + 2];
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_user_add, &r, true, argc, argv);
    if (rc < 0 && !r.certificate) rc = read_password(c, r.file, password, sizeof password);
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = BW_OK;
    if (bus) e = bw_user_set(bus, r.name, r.certificate ? BW_USER_CERTIFICATE : BW_USER_PASSWORD, r.role, r.certificate ? NULL : password);
    explicit_bzero(password, sizeof password);
    if (e) rc = cli_error_bw(c, e, "the user was not added");
    bw_bus_close(bus);
    return rc;
}

static int token_add(cli *c, int argc, char **argv)
{
    request r;
    char token[BW_TOKEN_MAX];
    bw_bus *bus = NULL;
    int rc = parse(c, &cli_token_add, &r, true, argc, argv);
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? bw_token_add(bus, r.name, r.role, token) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "the token was not made");
    else if (bus) {
        puts(token);
        cli_note(c, "this is the only time that the token is shown");
    }
    bw_bus_close(bus);
    return rc;
}

static int remove_it(cli *c, const cli_command *command, int argc, char **argv)
{
    request r;
    bw_bus *bus = NULL;
    int rc = parse(c, command, &r, true, argc, argv);
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? bw_user_remove(bus, r.name) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "%s was not removed", r.name);
    bw_bus_close(bus);
    return rc;
}

static int user_remove(cli *c, int argc, char **argv) { return remove_it(c, &cli_user_remove, argc, argv); }
static int token_remove(cli *c, int argc, char **argv) { return remove_it(c, &cli_token_remove, argc, argv); }

static int list(cli *c, const cli_command *command, bool tokens, int argc, char **argv)
{
    static const char *const headings[] = {"NAME", "KIND", "ROLE", NULL};
    request r;
    bw_bus *bus = NULL;
    char *text = NULL;
    int rc = parse(c, command, &r, false, argc, argv);
    if (rc < 0) rc = cli_connect(c, &bus);
    bw_err e = bus ? bw_users_list(bus, &text) : BW_OK;
    if (e) rc = cli_error_bw(c, e, "cannot list the users");
    json_t *all = text ? cli_doc_parse(c, text) : NULL, *wanted = json_array(), *u;
    size_t i;
    json_array_foreach(all, i, u)
    {
        const char *kind = json_string_value(json_object_get(u, "kind"));
        if (kind && (strcmp(kind, "token") == 0) == tokens) json_array_append(wanted, u);
    }
    if (all && c->json) {
        cli_doc_print(wanted);
    } else if (all) {
        static const char *const cells[] = {"name", "kind", "role"};
        cli_table t;
        char value[300];
        cli_table_init(&t, headings);
        json_array_foreach(wanted, i, u)
        {
            cli_table_row(&t);
            for (size_t k = 0; k < 3; k++) cli_table_cell(&t, k, "%s", cli_doc_scalar(json_object_get(u, cells[k]), value, sizeof value));
        }
        if (i > 0) cli_table_print(&t, stdout, "");
        else cli_note(c, tokens ? "no tokens" : "no users");
        cli_table_fini(&t);
    }
    json_decref(wanted);
    json_decref(all);
    bw_bus_close(bus);
    return rc;
}

static int user_list(cli *c, int argc, char **argv) { return list(c, &cli_user_list, false, argc, argv); }
static int token_list(cli *c, int argc, char **argv) { return list(c, &cli_token_list, true, argc, argv); }

#define ROLE {ID_ROLE, 0, "role", "ROLE", "reader (consume), client (and produce; default), admin, or none"}
static const cli_opt user_options[] = {
    ROLE,
    {ID_FILE, 0, "password-file", "FILE", "its first line; default: standard input"},
    {ID_CERTIFICATE, 0, "certificate", NULL, "no password: whoever shows a client certificate of this common name"},
    {0, 0, NULL, NULL, NULL},
};
static const cli_opt token_options[] = {ROLE, {0, 0, NULL, NULL, NULL}};
static const cli_opt no_options[] = {{0, 0, NULL, NULL, NULL}};

const cli_command cli_user_add = {"user add", "NAME", "Let somebody in from other hosts, or change how.",
                                  "The daemon keeps a yescrypt hash of the password. Connections of a user that was there are closed.",
                                  user_options, true,
                                  "  busway user add alice < password.txt\n  busway user add gateway7 --certificate --role reader\n", user_add};
const cli_command cli_user_list = {"user list", "", "List who may come from other hosts.", NULL, no_options, true, "  busway user list\n",
                                   user_list};
const cli_command cli_user_remove = {"user remove", "NAME", "Take a user's right away; its connections are closed.", NULL, no_options, true,
                                     "  busway user remove alice\n", user_remove};
const cli_command cli_token_add = {"token add", "NAME", "Make a token for a program of another host, and print it: once.",
                                   "Given by token-file= in the URL, or in $BUSWAY_TOKEN.", token_options, true,
                                   "  busway token add sensor7 --role client > sensor7.token\n", token_add};
const cli_command cli_token_list = {"token list", "", "List the tokens by their names.", NULL, no_options, true, "  busway token list\n", token_list};
const cli_command cli_token_remove = {"token remove", "NAME", "Make a token worthless; its connections are closed.", NULL, no_options, true,
                                      "  busway token remove sensor7\n", token_remove};
