/* cli/main.c: finds the command and runs it. Options of the connection may stand before or behind the command's name. */
#include "cli/commands.h"
#include "cli/interrupt.h"

#include <stdio.h>
#include <string.h>

const cli_command *const cli_commands[] = {
    &cli_topic_create,   &cli_topic_list,
    &cli_topic_describe, &cli_topic_alter,
    &cli_topic_delete,   &cli_topic_purge,
    &cli_produce,        &cli_consume,
    &cli_status,         &cli_top,
    &cli_bench,          &cli_verify,
    &cli_dump,           NULL,
};

static int unknown_command(const cli *c, const char *name)
{
    const char *words[32];
    size_t n = 0;
    for (size_t i = 0; cli_commands[i] && n < 32; i++)
        if (!strncmp(cli_commands[i]->name, "topic ", 6) == !strncmp(name, "topic ", 6)) words[n++] = cli_commands[i]->name;
    const char *near = cli_nearest(name, words, n);
    if (near) return cli_error(c, CLI_USAGE, "unknown command %s; did you mean %s?", name, near);
    return cli_error(c, CLI_USAGE, "unknown command %s; `busway help` lists them", name);
}

/* The command that argv begins with, how many words its name took, and the name as typed. */
static const cli_command *find_command(int argc, char **argv, int *words, char name[64])
{
    *words = 1;
    snprintf(name, 64, "%s", argv[0]);
    if (strcmp(argv[0], "topic") == 0) {
        if (argc < 2 || argv[1][0] == '-') return NULL;
        *words = 2;
        snprintf(name, 64, "topic %s", argv[1]);
    }
    return cli_command_find(name);
}

static int help(const cli *c, int argc, char **argv)
{
    bool words_only = argc > 0 && strcmp(argv[0], "--words") == 0;
    if (words_only) argc--, argv++;
    if (argc == 0) {
        if (words_only)
            cli_help_words(NULL);
        else
            cli_help_all();
        return CLI_OK;
    }
    int words;
    char name[64];
    const cli_command *command = find_command(argc, argv, &words, name);
    if (command && words_only) {
        cli_help_words(command);
    } else if (command) {
        cli_help_command(command);
    } else if (strcmp(argv[0], "topic") == 0 && argc == 1) {
        for (size_t i = 0; cli_commands[i]; i++)
            if (!strncmp(cli_commands[i]->name, "topic ", 6))
                printf("  %-16s %s\n", cli_commands[i]->name, cli_commands[i]->summary);
    } else {
        return unknown_command(c, name);
    }
    return CLI_OK;
}

int main(int argc, char **argv)
{
    cli c = {0};
    cli_args a;
    cli_args_init(&a, &c, NULL, argc - 1, argv + 1);
    for (int i = 1; i < argc && argv[i][0] == '-'; i++)
        if (strcmp(argv[i], "--version") == 0) {
            printf("busway %s (library %s)\n", BW_VERSION_STRING, bw_version());
            return CLI_OK;
        }
    int id = cli_args_next(&a);
    if (id == CLI_ARGS_STOP) return a.exit_code;
    if (id == CLI_ARGS_END) {
        cli_help_all();
        return CLI_USAGE;
    }
    argc = a.argc - (a.at - 1);
    argv = a.argv + (a.at - 1);
    if (strcmp(argv[0], "help") == 0) return help(&c, argc - 1, argv + 1);
    int words;
    char name[64];
    const cli_command *command = find_command(argc, argv, &words, name);
    if (!command) {
        if (strcmp(argv[0], "topic") == 0 && words == 1)
            return cli_error(&c, CLI_USAGE, "topic: create, list, describe, alter, delete or purge? (see `busway help topic`)");
        return unknown_command(&c, name);
    }
    c.command = command->name;
    cli_interrupt_install();
    return command->run(&c, argc - words, argv + words);
}
