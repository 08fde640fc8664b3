/* client/spawn.h: start the private daemon of a dir: bus.
 *
 * The folder itself carries the start lock (flock on the directory), so that of many processes one starts the daemon and the
 * others find it. The daemon is nobody's child, has a session of its own, no descriptor of this process, and writes to
 * <data>/run/buswayd.log. */
#ifndef BW_CLIENT_SPAWN_H
#define BW_CLIENT_SPAWN_H

#include "base/clock.h"
#include "base/err.h"

typedef struct bw_spawn_options {
    const char *data_dir;
    const char *idle_exit;
    const char *daemon_path; /* NULL: $BUSWAYD, beside the program, beside the library, $PATH */
} bw_spawn_options;

/* bw_start_lock: make the data directory if it is missing and take its start lock; *lock_fd is given back to bw_start_unlock.
 * TIMED_OUT, NOT_PERMITTED, DISK_FULL, IO. */
bw_err bw_start_lock(const char *data_dir, bw_deadline deadline, int *lock_fd);
void bw_start_unlock(int lock_fd);

/* bw_spawn_daemon: start it and wait until it says that it is ready. Call with the start lock held. NOT_FOUND (no buswayd; the
 * message says where it was looked for); else what the daemon said; ALREADY_RUNNING when another one owns the folder. */
bw_err bw_spawn_daemon(const bw_spawn_options *options, bw_deadline deadline);

#endif
