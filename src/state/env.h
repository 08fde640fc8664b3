/* state/env.h: the store of one partition's state: an LMDB environment, and who owns it.
 *
 * Why not meta/: that store is the daemon's, with a journal and a snapshot beside it, one open a data directory; these are the applications',
 * many, opened by who owns a partition, and what they lose is built anew from the log.
 *
 * Folder:  current        text: the number n of the environment that counts; replaced whole
 *          opening.lock   flock, while somebody opens
 *          env-<n>/       data.mdb, lock.mdb; owner.lock (flock while it is open; text: the owner's pid);
 *                         unsynced (text: a boot's id): opened `fast` in that boot and not closed cleanly
 * Tree:    key 0 -> position: u8 1, be64 generation, owner 16, topic 16, be64 offset    ·    key 1 + the application's key -> its value
 *
 * An environment has one writer in its life at a time, who holds owner.lock. Who finds it held by another process and is of a
 * higher generation copies the last commit (compacting: a mere reader, it waits for no writer) to env-<n+1>, makes that current, and
 * removes the old one. So nobody ever waits for a stopped process, and what such a one commits later goes into a file that is gone: it looks
 * for that before and after each commit (FENCED). Whoever holds the lock needs no generation: the former owner is dead or has closed.
 * Steps and deaths: a copy without `current` pointing to it is removed by the next who opens. */
#ifndef BW_STATE_ENV_H
#define BW_STATE_ENV_H

#include "base/uuid.h"

#include <busway/state.h>

typedef struct bw_state_env bw_state_env;

typedef struct bw_state_env_options {
    const char *path;   /* of the folder; it and those above it are made */
    int64_t generation; /* of the group; 0: assigned by hand */
    bw_uuid topic;
    bool fast;
    uint64_t map_bytes;
} bw_state_env_options;

/* bw_state_env_open: FENCED: a newer owner has it; BUSY: it is open in this process, or by one assigned by hand, or somebody opens it just
 * now; LOG_INCARNATION_MISMATCH; CORRUPT; NOT_PERMITTED, DISK_FULL, IO, NO_MEMORY. */
bw_err bw_state_env_open(const bw_state_env_options *options, bw_state_env **out);
/* bw_state_env_close: no transaction is open. NULL is allowed. */
void bw_state_env_close(bw_state_env *e);
int64_t bw_state_env_offset(const bw_state_env *e); /* -1: none yet */
/* bw_state_env_check: FENCED when another owner has taken the store. */
bw_err bw_state_env_check(const bw_state_env *e);

/* bw_state_env_begin: one for writing at a time. user: for bw_state_txn_user. */
bw_err bw_state_env_begin(bw_state_env *e, bool write, void *user, bw_state_txn **out);
/* bw_state_env_commit: with the offset. FENCED; BUSY: the map has grown, begin anew. The transaction is gone. */
bw_err bw_state_env_commit(bw_state_txn *t, int64_t offset);
void bw_state_env_abort(bw_state_txn *t);
void *bw_state_txn_user(const bw_state_txn *t);
bw_state_env *bw_state_txn_env(const bw_state_txn *t);
bool bw_state_txn_writes(const bw_state_txn *t);
/* bw_state_txn_is_lost: the map was full: it can only be aborted, which makes it grow, and begun anew. */
bool bw_state_txn_is_lost(const bw_state_txn *t);

#endif
