/* cli/commands.h: every command: one file each (cmd_<name>.c). */
#ifndef BW_CLI_COMMANDS_H
#define BW_CLI_COMMANDS_H

#include "cli/opt.h"

extern const cli_command cli_topic_create, cli_topic_list, cli_topic_describe, cli_topic_alter, cli_topic_delete, cli_topic_purge;
extern const cli_command cli_group_list, cli_group_describe, cli_group_members, cli_group_reset_offsets, cli_group_delete;
extern const cli_command cli_queue_list, cli_queue_describe, cli_queue_peek, cli_queue_ack, cli_queue_redrive, cli_queue_delete;
extern const cli_command cli_txn_list, cli_txn_describe, cli_txn_producers, cli_txn_abort, cli_quota_list, cli_quota_set;
extern const cli_command cli_link_add, cli_link_alter, cli_link_list, cli_link_describe, cli_link_pause, cli_link_resume, cli_link_remove;
extern const cli_command cli_link_verify, cli_link_promote, cli_link_tails;
extern const cli_command cli_user_add, cli_user_list, cli_user_remove, cli_token_add, cli_token_list, cli_token_remove;
extern const cli_command cli_migrate;
extern const cli_command cli_produce, cli_consume, cli_status, cli_top, cli_bench, cli_verify, cli_dump;

#endif
