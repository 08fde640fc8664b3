/* cli/opt.c: the option tables: parsing, help, words for the completion. */
#include "cli/opt.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_TRANSPORT = 900, ID_TIMEOUT, ID_JSON };
enum { HELP_LEFT = 27, HELP_RIGHT = 70 };

static const cli_opt connection_options[] = {
    {'b', 'b', "bus", "URL",
     "the bus: dir:FOLDER or ipc://SOCKET (default: $BUSWAY_URL, /run/busway/bus.sock, a folder of your own)"},
    {ID_TRANSPORT, 0, "transport", "HOW", "auto, direct (shared memory or an error) or ipc (the socket); default auto"},
    {ID_TIMEOUT, 0, "timeout", "SECONDS", "give up on the daemon after so long"},
    {0, 0, NULL, NULL, NULL},
};
static const cli_opt common_options[] = {
    {ID_JSON, 0, "json", NULL, "print JSON"},
    {'q', 'q', "quiet", NULL, "no notes on stderr, only errors"},
    {'v', 'v', "verbose", NULL, "more notes on stderr"},
    {'h', 'h', "help", NULL, "this text"},
    {0, 0, NULL, NULL, NULL},
};

static const char exit_codes[] =
    "Exit codes: 0 success, 1 failure, 2 wrong usage or name or value, 3 not found, 4 corrupt data,\n"
    "            5 timed out or nobody answers, 6 permission denied, 130 interrupted\n";

void cli_args_init(cli_args *a, cli *c, const cli_command *command, int argc, char **argv)
{
    *a = (cli_args){.c = c, .command = command, .argc = argc, .argv = argv};
}

/* The tables that apply, in order; NULL after the last. */
static void tables_of(const cli_command *command, const cli_opt *out[4])
{
    int n = 0;
    if (command && command->options) out[n++] = command->options;
    if (!command || command->connects) out[n++] = connection_options;
    out[n++] = common_options;
    out[n] = NULL;
}

static const cli_opt *find(const cli_command *command, char letter, const char *name, size_t name_len)
{
    const cli_opt *tables[4];
    tables_of(command, tables);
    for (int t = 0; tables[t]; t++)
        for (const cli_opt *o = tables[t]; o->id; o++) {
            if (letter && o->letter == letter) return o;
            if (name && o->name && strlen(o->name) == name_len && memcmp(o->name, name, name_len) == 0) return o;
        }
    return NULL;
}

static int stop(cli_args *a, int code) { return a->exit_code = code, CLI_ARGS_STOP; }

static int unknown(cli_args *a, const char *shown, const char *name)
{
    const char *words[128];
    size_t n = 0;
    const cli_opt *tables[4];
    tables_of(a->command, tables);
    for (int t = 0; tables[t]; t++)
        for (const cli_opt *o = tables[t]; o->id; o++)
            if (o->name && n < 128) words[n++] = o->name;
    const char *near = name ? cli_nearest(name, words, n) : NULL;
    if (near) return stop(a, cli_usage(a->c, "unknown option %s; did you mean --%s?", shown, near));
    return stop(a, cli_usage(a->c, "unknown option %s", shown));
}

/* A common option is acted on here: 0 to go on, or CLI_ARGS_STOP. Everything else is the command's: its id. */
static int take(cli_args *a, const cli_opt *o)
{
    cli *c = a->c;
    int64_t n;
    a->option = o;
    for (const cli_opt *mine = a->command ? a->command->options : NULL; mine && mine->id; mine++)
        if (mine == o) return o->id;
    switch (o->id) {
    case 'b':
        c->url = a->value;
        return 0;
    case ID_JSON:
        c->json = true;
        return 0;
    case 'q':
        c->quiet = true;
        return 0;
    case 'v':
        c->verbose = true;
        return 0;
    case 'h':
        if (a->command)
            cli_help_command(a->command);
        else
            cli_help_all();
        return stop(a, CLI_OK);
    case ID_TIMEOUT:
        if (!cli_parse_int(a->value, 1, 86400, &n))
            return stop(a, cli_usage(c, "--timeout: %s is not a number of seconds", a->value));
        c->timeout_ms = (int32_t)(n * 1000);
        return 0;
    default:
        break;
    }
    if (strcmp(a->value, "auto") == 0)
        c->transport = BW_TRANSPORT_AUTO;
    else if (strcmp(a->value, "direct") == 0)
        c->transport = BW_TRANSPORT_DIRECT;
    else if (strcmp(a->value, "ipc") == 0)
        c->transport = BW_TRANSPORT_IPC;
    else
        return stop(a, cli_usage(c, "--transport: %s is not one of auto, direct, ipc", a->value));
    return 0;
}

static int next_long(cli_args *a, const char *word)
{
    const char *name = word + 2, *equals = strchr(name, '=');
    size_t len = equals ? (size_t)(equals - name) : strlen(name);
    char shown[128];
    snprintf(shown, sizeof shown, "--%.*s", (int)(len > 100 ? 100 : len), name);
    const cli_opt *o = find(a->command, 0, name, len);
    if (!o) return unknown(a, shown, shown + 2);
    a->value = NULL;
    if (!o->argument) {
        if (equals) return stop(a, cli_usage(a->c, "%s takes no value", shown));
    } else if (equals) {
        a->value = equals + 1;
    } else if (a->at < a->argc) {
        a->value = a->argv[a->at++];
    } else {
        return stop(a, cli_usage(a->c, "%s needs a value: %s %s", shown, shown, o->argument));
    }
    return take(a, o);
}

static int next_short(cli_args *a)
{
    char shown[3] = {'-', *a->cluster++, 0};
    const cli_opt *o = find(a->command, shown[1], NULL, 0);
    if (!o) return unknown(a, shown, NULL);
    a->value = NULL;
    if (o->argument) {
        if (*a->cluster)
            a->value = a->cluster;
        else if (a->at < a->argc)
            a->value = a->argv[a->at++];
        else
            return stop(a, cli_usage(a->c, "%s needs a value: %s %s", shown, shown, o->argument));
        a->cluster = NULL;
    } else if (!*a->cluster) {
        a->cluster = NULL;
    }
    return take(a, o);
}

int cli_args_next(cli_args *a)
{
    for (;;) {
        int id;
        if (a->cluster) {
            id = next_short(a);
        } else {
            if (a->at >= a->argc) return CLI_ARGS_END;
            const char *word = a->argv[a->at++];
            if (a->only_operands || word[0] != '-' || !word[1]) {
                a->value = word;
                return CLI_ARGS_OPERAND;
            }
            if (strcmp(word, "--") == 0) {
                a->only_operands = true;
                continue;
            }
            if (word[1] == '-') {
                id = next_long(a, word);
            } else {
                a->cluster = word + 1;
                id = next_short(a);
            }
        }
        if (id) return id;
    }
}

const cli_command *cli_command_find(const char *name)
{
    for (size_t i = 0; cli_commands[i]; i++)
        if (strcmp(cli_commands[i]->name, name) == 0) return cli_commands[i];
    return NULL;
}

/* "  left   text", the text filled up to HELP_RIGHT columns, its next lines below its first. */
static void print_filled(const char *left, const char *text)
{
    while (*text) {
        size_t len = strlen(text);
        if (len > HELP_RIGHT) {
            len = HELP_RIGHT;
            while (len > 1 && text[len] != ' ') len--;
        }
        printf("  %-*s %.*s\n", HELP_LEFT, left, (int)len, text);
        text += len;
        while (*text == ' ') text++;
        left = "";
    }
}

static void print_options(const cli_opt *o)
{
    for (; o->id; o++) {
        char left[64];
        snprintf(left, sizeof left, "%s%c%s%s%s%s%s", o->letter ? "-" : "   ", o->letter ? o->letter : ' ',
                 o->letter && o->name ? ", " : "", o->name ? "--" : "", o->name ? o->name : "", o->argument ? " " : "",
                 o->argument ? o->argument : "");
        bool own_line = strlen(left) > HELP_LEFT;
        if (own_line) printf("  %s\n", left);
        print_filled(own_line ? "" : left, o->help);
    }
}

void cli_help_command(const cli_command *command)
{
    printf("Usage: busway %s%s%s [options]\n\n%s\n", command->name, *command->operands ? " " : "", command->operands,
           command->summary);
    if (command->about) printf("\n%s\n", command->about);
    if (command->options) {
        printf("\nOptions:\n");
        print_options(command->options);
    }
    printf("\n%s:\n", command->options ? "Common options" : "Options");
    if (command->connects) print_options(connection_options);
    print_options(common_options);
    if (command->examples) printf("\nExamples:\n%s", command->examples);
    printf("\n%s", exit_codes);
}

void cli_help_all(void)
{
    printf("Usage: busway [-b URL] COMMAND [options]\n\nBusway, a local event bus: topics, partitions and offsets at "
           "shared-memory speed, on disk.\n\n"
           "Commands:\n");
    for (size_t i = 0; cli_commands[i]; i++) printf("  %-16s %s\n", cli_commands[i]->name, cli_commands[i]->summary);
    printf("  %-16s %s\n", "help COMMAND", "a command's options, with examples");
    printf("\nOptions (before or after the command):\n");
    print_options(connection_options);
    print_options(common_options);
    printf("      --version               the version of command and library\n");
    printf("\nTry it, nothing needs to be started:\n"
           "  echo hello | busway -b dir:./bus produce greetings\n"
           "  busway -b dir:./bus consume greetings -e\n\n%s",
           exit_codes);
}

void cli_help_words(const cli_command *command)
{
    if (!command) {
        for (size_t i = 0; cli_commands[i]; i++) printf("%s\n", cli_commands[i]->name);
        return;
    }
    const cli_opt *tables[4];
    tables_of(command, tables);
    for (int t = 0; tables[t]; t++)
        for (const cli_opt *o = tables[t]; o->id; o++) {
            if (o->letter) printf("-%c%s\n", o->letter, o->argument ? "=" : "");
            if (o->name) printf("--%s%s\n", o->name, o->argument ? "=" : "");
        }
}

/* Edit distance (insert, delete, replace), bounded by 32 characters. */
static unsigned distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    unsigned row[33];
    if (n > 32 || m > 32) return 99;
    for (size_t j = 0; j <= m; j++) row[j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[m];
}

const char *cli_nearest(const char *word, const char *const *words, size_t count)
{
    const char *best = NULL;
    unsigned least = 3;
    for (size_t i = 0; i < count; i++) {
        unsigned d = distance(word, words[i]);
        if (d < least && d < strlen(word)) {
            least = d;
            best = words[i];
        }
    }
    return best;
}
