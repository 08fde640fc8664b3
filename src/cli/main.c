/* cli/main.c: finds the command and runs it. Options of the connection may stand before or behind the command's name. */
#include "cli/commands.h"
#include "cli/interrupt.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

const cli_command *const cli_commands[] = {
    &cli_topic_create,   &cli_topic_list,
    &cli_topic_describe, &cli_topic_alter,
    &cli_topic_delete,   &cli_topic_purge,
    &cli_produce,        &cli_consume,
    &cli_group_list,     &cli_group_describe,
    &cli_group_members,  &cli_group_reset_offsets,
    &cli_group_delete,   &cli_queue_list,
    &cli_queue_describe, &cli_queue_peek,
    &cli_queue_ack,      &cli_queue_redrive,
    &cli_queue_delete,   &cli_txn_list,
    &cli_txn_describe,   &cli_txn_producers,
    &cli_txn_abort,      &cli_quota_list,
    &cli_quota_set,      &cli_user_add,
    &cli_user_list,      &cli_user_remove,
    &cli_token_add,      &cli_token_list,
    &cli_token_remove,
    &cli_link_add,
    &cli_link_alter,
    &cli_link_list,
    &cli_link_describe,
    &cli_link_pause,
    &cli_link_resume,
    &cli_link_remove,
    &cli_status,         &cli_top,
    &cli_bench,          &cli_link_verify,
    &cli_link_promote,
    &cli_link_tails,
    &cli_migrate,
    &cli_verify,
    &cli_dump,           NULL,
};

/* "topic", "group"…: the first word of commands of two, so long; 0: a command of one word, or none. */
static size_t family_of(const char *word)
{
    size_t len = strcspn(word, " ");
    for (size_t i = 0; cli_commands[i]; i++)
        if (!strncmp(cli_commands[i]->name, word, len) && cli_commands[i]->name[len] == ' ') return len;
    return 0;
}

static bool is_of_family(const cli_command *command, const char *word, size_t len)
{
    return !strncmp(command->name, word, len) && command->name[len] == ' ';
}

static int unknown_command(const cli *c, const char *name)
{
    const char *words[64];
    size_t n = 0, family = family_of(name);
    for (size_t i = 0; cli_commands[i] && n < 64; i++)
        if (family ? is_of_family(cli_commands[i], name, family) : !strchr(cli_commands[i]->name, ' ')) words[n++] = cli_commands[i]->name;
    const char *near = cli_nearest(name, words, n);
    if (near) return cli_error(c, CLI_USAGE, "unknown command %s; did you mean %s?", name, near);
    return cli_error(c, CLI_USAGE, "unknown command %s; `busway help` lists them", name);
}

/* "topic" alone. */
static int which_of(const cli *c, const char *family)
{
    char list[256] = "";
    size_t len = strlen(family), at = 0, left = 0;
    for (size_t i = 0; cli_commands[i]; i++) left += is_of_family(cli_commands[i], family, len);
    for (size_t i = 0; cli_commands[i]; i++) {
        if (!is_of_family(cli_commands[i], family, len)) continue;
        left--;
        int n = snprintf(list + at, sizeof list - at, "%s%s", cli_commands[i]->name + len + 1, left > 1 ? ", " : left == 1 ? " or " : "");
        if (n > 0 && at + (size_t)n < sizeof list) at += (size_t)n;
    }
    return cli_error(c, CLI_USAGE, "%s: %s? (see `busway help %s`)", family, list, family);
}

/* The command that argv begins with, how many words its name took, and the name as typed. */
static const cli_command *find_command(int argc, char **argv, int *words, char name[64])
{
    *words = 1;
    snprintf(name, 64, "%s", argv[0]);
    if (!strchr(argv[0], ' ') && family_of(argv[0])) {
        if (argc < 2 || argv[1][0] == '-') return NULL;
        *words = 2;
        snprintf(name, 64, "%s %s", argv[0], argv[1]);
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
    } else if (family_of(argv[0]) && argc == 1) {
        for (size_t i = 0; cli_commands[i]; i++)
            if (is_of_family(cli_commands[i], argv[0], strlen(argv[0])))
                printf("  %-20s %s\n", cli_commands[i]->name, cli_commands[i]->summary);
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
        if (words == 1 && family_of(argv[0])) return which_of(&c, argv[0]);
        return unknown_command(&c, name);
    }
    c.command = command->name;
    cli_interrupt_install();
    return command->run(&c, argc - words, argv + words);
}
