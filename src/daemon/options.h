/* daemon/options.h: buswayd's command line. */
#ifndef BW_DAEMON_OPTIONS_H
#define BW_DAEMON_OPTIONS_H

#include "broker/config.h"

typedef enum bw_daemon_task {
    BW_DAEMON_RUN = 0,
    BW_DAEMON_CHECK_CONFIG,
    BW_DAEMON_HELP,
    BW_DAEMON_HELP_CONFIG,
    BW_DAEMON_HELP_CONFIG_MAN,
    BW_DAEMON_VERSION,
} bw_daemon_task;

typedef struct bw_daemon_options {
    bw_daemon_config config;
    bw_daemon_task task;
    int ready_fd;           /* -1: none */
    bool listen_is_default; /* nobody named a socket: a long path is no mistake of theirs */
} bw_daemon_options;

/* bw_daemon_options_parse: the configuration file first, then the command line over it. INVALID_ARGUMENT: the command line;
 * INVALID_CONFIG: an option's value. Always to be ended by bw_daemon_options_fini. */
bw_err bw_daemon_options_parse(bw_daemon_options *o, int argc, char **argv);
void bw_daemon_options_fini(bw_daemon_options *o);
/* The text of --help. */
extern const char bw_daemon_help[];

#endif
