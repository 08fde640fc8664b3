/* daemon/handover.h: a daemon that comes to a folder which a program's private one serves.
 *
 *   the newcomer   takes the folder's start lock, so that nobody starts a private daemon in between
 *   the newcomer   HANDOVER, through the socket that daemon.lock names
 *   the private    answers what is under way, ends, and frees daemon.lock; direct writers and readers go on all the while
 *   the newcomer   takes daemon.lock and the control data over, as after a death; listens; frees the start lock
 *   programs       lost their connection, wait for the start lock, and find the newcomer by daemon.lock
 * The other way round nothing has to be asked for: when a daemon ends, the programs that need one start a private one. */
#ifndef BW_DAEMON_HANDOVER_H
#define BW_DAEMON_HANDOVER_H

#include "broker/config.h"

/* bw_handover_begin: by a daemon that is not private, before it takes the folder. *start_lock: to be given back, or -1. BW_OK also when
 * there is nothing to take over, or nobody who would give it away: taking the folder then says so. NO_COORDINATOR, TIMED_OUT: who
 * has it does not answer, or does not end. */
bw_err bw_handover_begin(const bw_daemon_config *config, int *start_lock);
/* bw_handover_end: it listens, or has failed. */
void bw_handover_end(int start_lock);

#endif
