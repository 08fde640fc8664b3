/* daemon/daemon.h: the daemon as a library: main only calls these. */
#ifndef BW_DAEMON_DAEMON_H
#define BW_DAEMON_DAEMON_H

#include "daemon/options.h"

/* bw_daemon_run: start broker and listener, say so, wait for SIGTERM, SIGINT or idleness, stop. Blocks those signals in the calling
 * thread before any other thread exists. */
bw_err bw_daemon_run(bw_daemon_options *o);
/* bw_daemon_exit_status: the exit status (sysexits.h) for an outcome; documented in --help. */
int bw_daemon_exit_status(bw_err e);

#endif
