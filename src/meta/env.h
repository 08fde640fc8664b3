/* meta/env.h: LMDB as the store uses it: its tables, opening, walking, and building a file from the copy. Internal to meta/.
 *
 * The unnamed database holds the tables and, under "state", the state of all of them (entry.h). */
#ifndef BW_META_ENV_H
#define BW_META_ENV_H

#include "meta/copy.h"

#include <lmdb.h>

#define BW_MAP_MIN (UINT64_C(1) << 20)
#define BW_MAP_MAX (UINT64_C(1) << 36)
#define BW_STATE_KEY "state"
#define BW_TABLE_ABSENT ((MDB_dbi)-1)

typedef struct bw_env {
    MDB_env *env;
    MDB_dbi main, tables[BW_TABLE_COUNT]; /* BW_TABLE_ABSENT: opened for reading only, and older than the table: empty */
} bw_env;

static inline MDB_val bw_val(const void *data, size_t len) { return (MDB_val){len, (void *)(uintptr_t)data}; }

/* bw_env_open: LMDB codes. flags: MDB_RDONLY … With create, the tables are made. */
int bw_env_open(const char *path, unsigned flags, uint64_t map_bytes, bool create, bw_env *out);
void bw_env_close(bw_env *e);

/* bw_env_each: every entry, tables and keys ascending: checked, then given to fn. CORRUPT names the table; IO and what fn returned. */
bw_err bw_env_each(const bw_env *e, MDB_txn *txn, bw_entry_fn fn, void *opaque);
/* bw_env_verify: the entries add up to the stored state: *out. CORRUPT, NEWER_FORMAT. */
bw_err bw_env_verify(const bw_env *e, MDB_txn *txn, bw_meta_state *out);
int bw_env_put_state(const bw_env *e, MDB_txn *txn, const bw_meta_state *s);
/* bw_env_apply: operations as the journal has them, to LMDB alone. */
bw_err bw_env_apply(const bw_env *e, MDB_txn *txn, const uint8_t *ops, size_t len);

/* bw_env_build: a new data.mdb with what the copy holds (c NULL: nothing at all) takes the place of the one there, whole or not at all;
 * dir_fd and path are the metadata's folder. */
bw_err bw_env_build(int dir_fd, const char *path, const bw_copy *c, uint64_t map_bytes);
/* bw_env_convert: the same with what data.mdb holds in format 1, which had no checksums. */
bw_err bw_env_convert(int dir_fd, const char *path, uint64_t map_bytes);

/* bw_env_fail: an LMDB code as an error. */
bw_err bw_env_fail(int rc, const char *path, const char *what);

#endif
