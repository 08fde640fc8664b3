/* cli/group.h: what the commands about groups share. */
#ifndef BW_CLI_GROUP_H
#define BW_CLI_GROUP_H

#include "cli/doc.h"
#include "cli/opt.h"

#define CLI_GROUPS_MAX 256

/* cli_group_doc: the group's document; NULL: printed, *exit_code says what to return. */
json_t *cli_group_doc(const cli *c, bw_bus *bus, const char *group, int *exit_code);
/* cli_group_names: the operands of a command without options. -1: go on; else the exit code. */
int cli_group_names(cli *c, const cli_command *command, int argc, char **argv, const char **names, size_t *count);

/* cli_group_summary: the list of groups, each with "lag" and "lag_ms"; NULL: it can't be had. _print: as a table on stdout. */
json_t *cli_group_summary(const cli *c, bw_bus *bus);
void cli_group_summary_print(const json_t *groups);

#endif
