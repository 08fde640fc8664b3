/* cli/opt.h: options from one table a command: the table parses, makes `--help` and feeds the shell completion.
 *
 * Conventions: -x VALUE, -xVALUE, -xyz for flags, --name VALUE, --name=VALUE, `--` ends options, options and operands in any
 * order. A value that begins with '-' is taken as it is ("-o -5"). */
#ifndef BW_CLI_OPT_H
#define BW_CLI_OPT_H

#include "cli/cli.h"

typedef struct cli_opt {
    int id;               /* what cli_args_next returns: the short letter, or from 256 when there is only a name */
    char letter;          /* 0: none */
    const char *name;     /* NULL: none */
    const char *argument; /* NULL: a flag; else how the help calls it */
    const char *help;
} cli_opt;

typedef struct cli_command {
    const char *name; /* "produce", "topic create" */
    const char *operands;
    const char *summary;    /* one line, for the list of commands */
    const char *about;      /* paragraph of the help; NULL: none */
    const cli_opt *options; /* ends with an entry of id 0; NULL: none */
    bool connects;          /* takes the connection's options too */
    const char *examples;
    int (*run)(cli *c, int argc, char **argv); /* argv[0] is the first word after the command's name */
} cli_command;

enum { CLI_ARGS_END = 0, CLI_ARGS_OPERAND = -1, CLI_ARGS_STOP = -2 };

typedef struct cli_args {
    cli *c;
    const cli_command *command;
    int argc, at;
    char **argv;
    const char *cluster; /* rest of a group of short flags */
    bool only_operands;
    const char *value;     /* the option's value, or the operand */
    const cli_opt *option; /* the option that was returned last */
    int exit_code;         /* with CLI_ARGS_STOP */
} cli_args;

void cli_args_init(cli_args *a, cli *c, const cli_command *command, int argc, char **argv);
/* cli_args_next: the next option's id with a->value, CLI_ARGS_OPERAND, CLI_ARGS_END, or CLI_ARGS_STOP: return a->exit_code
 * (the help was printed, or what is wrong). Common options (-b, --json, …) are taken into *c and not reported. */
int cli_args_next(cli_args *a);

/* The commands, in the order of the help; ends with a NULL name. */
extern const cli_command *const cli_commands[];
const cli_command *cli_command_find(const char *name);

void cli_help_command(const cli_command *command);
void cli_help_all(void);
/* cli_help_words: every option of the command, one a line, for the shell completion; NULL: the commands' names. */
void cli_help_words(const cli_command *command);
/* cli_nearest: the closest of count words, or NULL when none is near. */
const char *cli_nearest(const char *word, const char *const *words, size_t count);

#endif
