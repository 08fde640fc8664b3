/* meta/store_internal.h: what store.c (reads and changes), open.c (start) and copier.c (snapshots in the background) share. */
#ifndef BW_META_STORE_INTERNAL_H
#define BW_META_STORE_INTERNAL_H

#include "meta/env.h"
#include "meta/store.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

/* Locks, in this order: map_lock, write_lock. */
struct bw_store {
    bw_env e;
    int dir_fd;                 /* of path */
    pthread_rwlock_t map_lock;  /* read: a transaction is open; write: the map is being resized */
    pthread_mutex_t write_lock; /* one change at a time: state, next, record, journal, copy_at, copier */
    pthread_mutex_t id_lock;    /* next_id, last_id */
    bw_meta_state state;        /* after the last transaction */
    bw_meta_state next;         /* of the one that runs */
    bw_buf record;              /* its operations, behind room for the journal's head */
    bw_journal journal;
    uint64_t copy_at;    /* a journal as long as this wants a new snapshot */
    uint64_t copy_bytes; /* journal_limit at least, and twice the last snapshot */
    uint64_t journal_limit;
    pthread_t copier;
    bool copier_started;  /* to be joined */
    _Atomic bool copying; /* it runs */
    _Atomic uint64_t snapshots, snapshot_failures;
    int64_t next_id, last_id; /* producer ids of the present block */
    bw_uuid bus_id;
    uint64_t map_bytes; /* under map_lock */
    _Atomic bool failed;
    bool alone; /* no child process may be made */
    bw_store_repair repair;
    char path[PATH_MAX];
};

/* store.c: changes and looks, each one transaction. fn returns an LMDB code; BW_META_STOP when it has set an error of its own in *err.
 * A change may be done twice (a full map grows): it depends on nothing but arg, and touches tables through bw_table_* only. */
#define BW_META_STOP 1000000
typedef int (*bw_change_fn)(bw_store *s, MDB_txn *txn, void *arg, bw_err *err);
bw_err bw_store_write(bw_store *s, const char *what, bw_change_fn fn, void *arg);
bw_err bw_store_read(bw_store *s, const char *what, bw_change_fn fn, void *arg);
/* bw_table_get: MDB_NOTFOUND when there is none. Values come without their checksum, and none that fails it. */
int bw_table_get(const bw_store *s, MDB_txn *txn, int table, MDB_val key, MDB_val *value, bw_err *err);
int bw_table_put(bw_store *s, MDB_txn *txn, int table, MDB_val key, MDB_val value, bw_err *err);
/* bw_table_leaves: found (what LMDB has under the key) goes; the caller deletes it. */
int bw_table_leaves(bw_store *s, int table, MDB_val key, MDB_val found, bw_err *err);
/* bw_table_check: what a cursor found: cuts the checksum off. */
int bw_table_check(const bw_store *s, int table, const MDB_val *key, MDB_val *value, uint64_t *hash, bw_err *err);

/* open.c: LMDB's file and its copy are made good, both agree, the journal is open. Fills e, state, journal, map_bytes, repair. */
bw_err bw_store_bring_up(bw_store *s, uint64_t map_bytes);

/* copier.c */
/* bw_copier_begin: a new copy from LMDB as it is now, in the foreground: journal, snapshot. Nothing of an old one may be in the way. */
bw_err bw_copier_begin(bw_store *s);
/* bw_copier_wake: under write_lock, after a change: a thread makes a new snapshot when the journal is long enough. */
void bw_copier_wake(bw_store *s);
void bw_copier_stop(bw_store *s); /* wait for it */

#endif
