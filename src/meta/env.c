/* meta/env.c: see env.h.
 *
 * Building: in the folder "new" beside the old file, in one transaction, synced; then renamed over it and the folder synced. A death
 * in between leaves what was there. */
#include "meta/env.h"

#include "base/err.h"
#include "base/killpoint.h"
#include "base/os.h"
#include "meta/files.h"
#include "meta/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#define NEW_FOLDER "new"

bw_err bw_env_fail(int rc, const char *path, const char *what)
{
    switch (rc) {
    case MDB_PANIC:
        return bw_fail(BW_ERR_IO, "%s: LMDB in %s stopped after an input/output error and refuses everything until the daemon is "
                       "started again; look at the disk first", what, path);
    case MDB_MAP_FULL:
        return bw_fail(BW_ERR_DISK_FULL, "%s: the map of %s has reached its largest size, %llu bytes", what, path,
                       (unsigned long long)BW_MAP_MAX);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return bw_fail(BW_ERR_CORRUPT, "%s: %s is no sound LMDB store (%s); start the daemon again: it mends it from the snapshot beside it",
                       what, path, mdb_strerror(rc));
    case MDB_READERS_FULL:
    case MDB_TXN_FULL:
        return bw_fail(BW_ERR_BUSY, "%s: %s: %s", what, path, mdb_strerror(rc));
    default:
        if (rc > 0) return bw_fail_errno(rc, "%s: %s", what, path);
        return bw_fail(BW_ERR_INTERNAL, "%s: %s: %s", what, path, mdb_strerror(rc));
    }
}

static int open_tables(bw_env *e, bool create)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(e->env, NULL, create ? 0 : MDB_RDONLY, &txn);
    if (rc) return rc;
    rc = mdb_dbi_open(txn, NULL, 0, &e->main);
    for (int i = 0; !rc && i < BW_TABLE_COUNT; i++) {
        rc = mdb_dbi_open(txn, bw_table_name(i), create ? MDB_CREATE : 0, &e->tables[i]);
        if (rc != MDB_NOTFOUND) continue;
        e->tables[i] = BW_TABLE_ABSENT; /* of a store older than the table */
        rc = 0;
    }
    if (!rc) return mdb_txn_commit(txn);
    mdb_txn_abort(txn);
    return rc;
}

int bw_env_open(const char *path, unsigned flags, uint64_t map_bytes, bool create, bw_env *out)
{
    *out = (bw_env){0};
    int rc = mdb_env_create(&out->env);
    if (!rc) rc = mdb_env_set_maxdbs(out->env, BW_TABLE_COUNT + 4);
    if (!rc && map_bytes) rc = mdb_env_set_mapsize(out->env, map_bytes);
    if (!rc) rc = mdb_env_open(out->env, path, flags | MDB_NOTLS | MDB_NORDAHEAD, 0600);
    if (!rc) rc = open_tables(out, create);
    if (rc) bw_env_close(out);
    return rc;
}

void bw_env_close(bw_env *e)
{
    if (e->env) mdb_env_close(e->env);
    e->env = NULL;
}

/* ---- walking ---- */

static bw_err each_of(const bw_env *e, MDB_txn *txn, int table, bw_entry_fn fn, void *opaque)
{
    MDB_cursor *cursor;
    MDB_val k, v;
    bw_err err = BW_OK;
    if (e->tables[table] == BW_TABLE_ABSENT) return BW_OK;
    int rc = mdb_cursor_open(txn, e->tables[table], &cursor);
    if (rc) return bw_env_fail(rc, bw_table_name(table), "cannot read a table of the metadata");
    while (!err && !(rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT))) {
        bw_meta_op op = {.table = table, .key = k.mv_data, .key_len = k.mv_size, .stored = v.mv_data, .stored_len = v.mv_size};
        if (!bw_entry_check(table, op.key, op.key_len, op.stored, op.stored_len, &op.hash))
            err = bw_fail(BW_ERR_CORRUPT, "an entry of table '%s' fails its checksum", bw_table_name(table));
        else err = fn(opaque, &op);
    }
    mdb_cursor_close(cursor);
    if (!err && rc != MDB_NOTFOUND) err = bw_env_fail(rc, bw_table_name(table), "cannot read a table of the metadata");
    return err;
}

bw_err bw_env_each(const bw_env *e, MDB_txn *txn, bw_entry_fn fn, void *opaque)
{
    bw_err err = BW_OK;
    for (int i = 0; !err && i < BW_TABLE_COUNT; i++) err = each_of(e, txn, i, fn, opaque);
    return err;
}

static bw_err sum_up(void *opaque, const bw_meta_op *entry)
{
    bw_state_count(opaque, entry->hash, true);
    return BW_OK;
}

bw_err bw_env_verify(const bw_env *e, MDB_txn *txn, bw_meta_state *out)
{
    MDB_val k = bw_val(BW_STATE_KEY, sizeof BW_STATE_KEY - 1), v;
    int rc = mdb_get(txn, e->main, &k, &v);
    if (rc) return bw_fail(BW_ERR_CORRUPT, "there is no state (%s)", mdb_strerror(rc));
    bw_err err = bw_state_decode(v.mv_data, v.mv_size, out);
    bw_meta_state sum = {0};
    if (!err) err = bw_env_each(e, txn, sum_up, &sum);
    sum.sequence = out->sequence;
    if (!err && !bw_state_same(&sum, out)) err = bw_fail(BW_ERR_CORRUPT, "the entries do not add up to the state");
    return err;
}

int bw_env_put_state(const bw_env *e, MDB_txn *txn, const bw_meta_state *s)
{
    uint8_t value[BW_STATE_BYTES];
    bw_state_encode(s, value);
    MDB_val k = bw_val(BW_STATE_KEY, sizeof BW_STATE_KEY - 1), v = bw_val(value, sizeof value);
    return mdb_put(txn, e->main, &k, &v, 0);
}

bw_err bw_env_apply(const bw_env *e, MDB_txn *txn, const uint8_t *ops, size_t len)
{
    bw_cursor c = bw_cursor_over(ops, len);
    bw_meta_op op;
    while (bw_op_take(&c, &op)) {
        MDB_val k = bw_val(op.key, op.key_len), v = bw_val(op.stored, op.stored_len);
        int rc = op.remove ? mdb_del(txn, e->tables[op.table], &k, NULL) : mdb_put(txn, e->tables[op.table], &k, &v, 0);
        if (rc == MDB_MAP_FULL) return bw_fail(BW_ERR_DISK_FULL, "the map is full");
        if (rc && rc != MDB_NOTFOUND) return bw_env_fail(rc, bw_table_name(op.table), "cannot apply the journal");
    }
    return c.bad ? bw_fail(BW_ERR_CORRUPT, "an operation in the journal is broken") : BW_OK;
}

/* ---- building ---- */

typedef struct building {
    bw_env env;
    MDB_txn *txn;
    bool full;
} building;

static bw_err add_entry(void *opaque, const bw_meta_op *op)
{
    building *b = opaque;
    MDB_val k = bw_val(op->key, op->key_len), v = bw_val(op->stored, op->stored_len);
    int rc = mdb_put(b->txn, b->env.tables[op->table], &k, &v, MDB_NOOVERWRITE);
    if (rc == MDB_KEYEXIST) return bw_fail(BW_ERR_CORRUPT, "the snapshot has an entry twice");
    b->full |= rc == MDB_MAP_FULL;
    return rc ? bw_env_fail(rc, bw_table_name(op->table), "cannot build the metadata anew") : BW_OK;
}

static bw_err add_transaction(void *opaque, const bw_meta_state *before, const bw_meta_state *after, const uint8_t *ops, size_t len)
{
    building *b = opaque;
    (void)before;
    (void)after;
    bw_err e = bw_env_apply(&b->env, b->txn, ops, len);
    b->full |= e == BW_ERR_DISK_FULL;
    return e;
}

/* Format 1: the same tables and values, without checksums; keys of the old "format" entry are left out. */
static bw_err add_format1(building *b, const char *path)
{
    bw_env old;
    MDB_txn *txn;
    bw_err err = BW_OK;
    int rc = bw_env_open(path, MDB_RDONLY | MDB_NOLOCK, 0, false, &old);
    if (rc) return bw_env_fail(rc, path, "cannot read the metadata of format 1");
    rc = mdb_txn_begin(old.env, NULL, MDB_RDONLY, &txn);
    bool begun = rc == 0;
    bw_buf stored = {0};
    for (int i = 0; !rc && !err && i < BW_TABLE_COUNT; i++) {
        MDB_cursor *cursor;
        MDB_val k, v;
        if (old.tables[i] == BW_TABLE_ABSENT) continue;
        if ((rc = mdb_cursor_open(txn, old.tables[i], &cursor))) break;
        while (!err && !(rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT))) {
            uint8_t crc[BW_CRC_BYTES];
            if (i == BW_TABLE_INFO && k.mv_size == 6 && !memcmp(k.mv_data, "format", 6)) continue;
            stored.len = 0;
            bw_put_be32(crc, bw_entry_crc(i, k.mv_data, k.mv_size, v.mv_data, v.mv_size));
            err = bw_buf_append(&stored, v.mv_data, v.mv_size);
            if (!err) err = bw_buf_append(&stored, crc, sizeof crc);
            bw_meta_op op = {.table = i, .key = k.mv_data, .key_len = k.mv_size, .stored = stored.data, .stored_len = stored.len};
            if (!err) err = add_entry(b, &op);
        }
        mdb_cursor_close(cursor);
        if (rc == MDB_NOTFOUND) rc = 0;
    }
    if (rc && !err) err = bw_env_fail(rc, path, "cannot read the metadata of format 1");
    bw_buf_free(&stored);
    if (begun) mdb_txn_abort(txn);
    bw_env_close(&old);
    return err;
}

static bw_err fill(building *b, int dir_fd, const char *path, const bw_copy *c, bool format1)
{
    bw_meta_state state = {.sequence = 1}, sum = {0};
    int rc = mdb_txn_begin(b->env.env, NULL, 0, &b->txn);
    if (rc) return bw_env_fail(rc, path, "cannot build the metadata anew");
    bw_err e = c        ? bw_copy_replay(dir_fd, c, NULL, add_entry, add_transaction, b)
               : format1 ? add_format1(b, path)
                         : BW_OK;
    if (!e) e = bw_env_each(&b->env, b->txn, sum_up, &sum);
    if (c) state = c->last;
    else {
        sum.sequence = state.sequence;
        state = sum;
    }
    sum.sequence = state.sequence;
    if (!e && !bw_state_same(&sum, &state)) e = bw_fail(BW_ERR_CORRUPT, "snapshot and journal do not add up to what they say");
    if (!e && (rc = bw_env_put_state(&b->env, b->txn, &state))) {
        b->full |= rc == MDB_MAP_FULL;
        e = bw_env_fail(rc, path, "cannot build the metadata anew");
    }
    if (e) {
        mdb_txn_abort(b->txn);
        return e;
    }
    rc = mdb_txn_commit(b->txn);
    b->full |= rc == MDB_MAP_FULL;
    return rc ? bw_env_fail(rc, path, "cannot build the metadata anew") : BW_OK;
}

static void remove_new(int dir_fd)
{
    (void)bw_os_unlink(dir_fd, NEW_FOLDER "/" BW_DATA_FILE, 0);
    (void)bw_os_unlink(dir_fd, NEW_FOLDER, AT_REMOVEDIR);
}

static bw_err build_once(int dir_fd, const char *path, const bw_copy *c, bool format1, uint64_t map_bytes, bool *full)
{
    char folder[PATH_MAX];
    building b = {0};
    remove_new(dir_fd);
    if (snprintf(folder, sizeof folder, "%s/" NEW_FOLDER, path) >= (int)sizeof folder)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "%s: the path is too long", path);
    if (bw_os_mkdir(dir_fd, NEW_FOLDER, 0700)) return bw_fail_errno(errno, "cannot make folder %s", folder);
    int rc = bw_env_open(folder, MDB_NOLOCK | MDB_NOSYNC, map_bytes, true, &b.env);
    if (rc) return bw_env_fail(rc, folder, "cannot build the metadata anew");
    bw_err e = fill(&b, dir_fd, path, c, format1);
    *full = b.full;
    BW_KILL_POINT("meta.rebuild.filled");
    if (!e && (rc = mdb_env_sync(b.env.env, 1))) e = bw_env_fail(rc, folder, "cannot sync the metadata");
    bw_env_close(&b.env);
    return e;
}

static bw_err build(int dir_fd, const char *path, const bw_copy *c, bool format1, uint64_t map_bytes)
{
    bool full = true;
    bw_err e = BW_OK;
    uint64_t size = map_bytes < BW_MAP_MIN ? BW_MAP_MIN : map_bytes;
    while (c && size < c->bytes * 2) size *= 2;
    for (; full && size <= BW_MAP_MAX; size *= 2) {
        full = false;
        e = build_once(dir_fd, path, c, format1, size, &full);
    }
    if (!e && bw_os_rename(dir_fd, NEW_FOLDER "/" BW_DATA_FILE, dir_fd, BW_DATA_FILE))
        e = bw_fail_errno(errno, "cannot rename the new " BW_DATA_FILE " in %s", path);
    BW_KILL_POINT("meta.rebuild.renamed");
    if (!e && bw_os_sync_dir(dir_fd)) e = bw_fail_errno(errno, "cannot sync folder %s", path);
    remove_new(dir_fd);
    return e;
}

bw_err bw_env_build(int dir_fd, const char *path, const bw_copy *c, uint64_t map_bytes) { return build(dir_fd, path, c, false, map_bytes); }

bw_err bw_env_convert(int dir_fd, const char *path, uint64_t map_bytes) { return build(dir_fd, path, NULL, true, map_bytes); }
