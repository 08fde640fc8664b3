/* state/internal.h: shared by env.c and txn.c. */
#ifndef BW_STATE_INTERNAL_H
#define BW_STATE_INTERNAL_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/os.h"
#include "state/env.h"

#include <lmdb.h>

#define BW_STATE_POSITION_BYTES 49u
#define BW_STATE_MAP_MAX ((uint64_t)1 << 42)

struct bw_state_env {
    char *path;       /* of env-<n>, for messages */
    int dir_fd;       /* of env-<n> */
    int lock_fd;      /* owner.lock */
    int data_fd;      /* data.mdb: is it still there? */
    MDB_env *mdb;
    MDB_dbi dbi;
    bool fast;
    uint64_t map_bytes;
    int64_t generation;
    uint8_t owner[16];
    bw_uuid topic;
    int64_t offset;
    bool failed; /* an I/O error: everything is refused */
};

typedef struct bw_state_position {
    int64_t generation, offset;
    uint8_t owner[16];
    bw_uuid topic;
} bw_state_position;

/* bw_state_fail: LMDB's rc as an error with its place. */
bw_err bw_state_fail(int rc, const char *path, const char *what);
void bw_state_position_encode(const bw_state_position *p, uint8_t out[BW_STATE_POSITION_BYTES]);
/* bw_state_position_get: NOT_FOUND: a new store; CORRUPT. */
bw_err bw_state_position_get(bw_state_env *e, MDB_txn *txn, bw_state_position *out);
bw_err bw_state_position_put(bw_state_env *e, MDB_txn *txn, int64_t offset);
/* bw_state_begin_txn: with the map as large as another process may have made it. */
bw_err bw_state_begin_txn(bw_state_env *e, unsigned flags, MDB_txn **out);

#endif
