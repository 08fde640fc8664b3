/* meta/store.c: one transaction a call.
 *
 * Every change runs through `bw_store_write`: begin, do, journal, commit; when the map is full the transaction is dropped, the map doubled
 * with every other transaction kept out (mdb_env_set_mapsize demands it), and the change is done again. Changes must therefore
 * depend on nothing but their argument, and touch tables through bw_table_put and bw_table_leaves only, which keep the checksums, the digest
 * and the journal's record. The journal's record is durable before LMDB commits, so that LMDB is never ahead of it.
 * Readers use MDB_NOTLS, so that a slot belongs to a transaction and not to a thread. */
#include "meta/store_internal.h"

#include "base/err.h"
#include "base/killpoint.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#define JOURNAL_LIMIT (UINT64_C(4) << 20)

static bw_err meta_fail(bw_store *s, int rc, const char *what)
{
    if (rc == MDB_PANIC) atomic_store(&s->failed, true);
    return bw_env_fail(rc, s->path, what);
}

/* ---- entries ---- */

static int rotten(const bw_store *s, int table, bw_err *err)
{
    *err = bw_fail(BW_ERR_CORRUPT, "an entry of table '%s' of the metadata in %s fails its checksum; it is not used. Start the daemon again: "
                   "it mends the file from its snapshot and journal", bw_table_name(table), s->path);
    return BW_META_STOP;
}

int bw_table_check(const bw_store *s, int table, const MDB_val *key, MDB_val *value, uint64_t *hash, bw_err *err)
{
    if (!bw_entry_check(table, key->mv_data, key->mv_size, value->mv_data, value->mv_size, hash)) return rotten(s, table, err);
    value->mv_size -= BW_CRC_BYTES;
    return 0;
}

int bw_table_get(const bw_store *s, MDB_txn *txn, int table, MDB_val key, MDB_val *value, bw_err *err)
{
    uint64_t hash;
    int rc = mdb_get(txn, s->e.tables[table], &key, value);
    return rc ? rc : bw_table_check(s, table, &key, value, &hash, err);
}

int bw_table_put(bw_store *s, MDB_txn *txn, int table, MDB_val key, MDB_val value, bw_err *err)
{
    MDB_val old, room = {value.mv_size + BW_CRC_BYTES, NULL};
    uint64_t hash;
    int rc = mdb_get(txn, s->e.tables[table], &key, &old);
    if (rc && rc != MDB_NOTFOUND) return rc;
    if (!rc) {
        if ((rc = bw_table_check(s, table, &key, &old, &hash, err))) return rc;
        if (old.mv_size == value.mv_size && !memcmp(old.mv_data, value.mv_data, value.mv_size)) return 0;
        bw_state_count(&s->next, hash, false);
    }
    if ((rc = mdb_put(txn, s->e.tables[table], &key, &room, MDB_RESERVE))) return rc;
    uint32_t crc = bw_entry_crc(table, key.mv_data, key.mv_size, value.mv_data, value.mv_size);
    memcpy(room.mv_data, value.mv_data, value.mv_size);
    bw_put_be32((uint8_t *)room.mv_data + value.mv_size, crc);
    bw_state_count(&s->next, bw_entry_hash(table, key.mv_data, key.mv_size, crc), true);
    *err = bw_op_append(&s->record, table, key.mv_data, key.mv_size, room.mv_data, room.mv_size, false);
    return *err ? BW_META_STOP : 0;
}

int bw_table_leaves(bw_store *s, int table, MDB_val key, MDB_val found, bw_err *err)
{
    uint64_t hash;
    int rc = bw_table_check(s, table, &key, &found, &hash, err);
    if (rc) return rc;
    bw_state_count(&s->next, hash, false);
    *err = bw_op_append(&s->record, table, key.mv_data, key.mv_size, NULL, 0, true);
    return *err ? BW_META_STOP : 0;
}

/* ---- transactions ---- */

static int commit(bw_store *s, MDB_txn *txn, bw_err *err)
{
    s->next.sequence++;
    int rc = bw_env_put_state(&s->e, txn, &s->next);
    if (!rc && (*err = bw_journal_append(&s->journal, &s->next, &s->record))) rc = BW_META_STOP;
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    if ((rc = mdb_txn_commit(txn))) { /* it did not happen: the journal must not say so */
        if (bw_journal_undo(&s->journal)) atomic_store(&s->failed, true);
        return rc;
    }
    BW_KILL_POINT("meta.committed");
    s->state = s->next;
    bw_copier_wake(s);
    return 0;
}

/* Under map_lock and write_lock. */
static int write_once(bw_store *s, bw_change_fn fn, void *arg, bw_err *err)
{
    MDB_txn *txn;
    s->record.len = 0;
    if ((*err = bw_buf_reserve(&s->record, BW_RECORD_HEAD_BYTES))) return BW_META_STOP;
    s->record.len = BW_RECORD_HEAD_BYTES;
    s->next = s->state;
    int rc = mdb_txn_begin(s->e.env, NULL, 0, &txn);
    if (rc) return rc;
    rc = fn(s, txn, arg, err);
    if (!rc && s->record.len > BW_RECORD_HEAD_BYTES) return commit(s, txn, err);
    mdb_txn_abort(txn);
    return rc;
}

static int grow_map(bw_store *s, uint64_t seen_bytes)
{
    int rc = 0;
    pthread_rwlock_wrlock(&s->map_lock);
    if (s->map_bytes == seen_bytes) {
        if (s->map_bytes >= BW_MAP_MAX) rc = MDB_MAP_FULL;
        else if (!(rc = mdb_env_set_mapsize(s->e.env, s->map_bytes * 2))) s->map_bytes *= 2;
    }
    pthread_rwlock_unlock(&s->map_lock);
    return rc;
}

bw_err bw_store_write(bw_store *s, const char *what, bw_change_fn fn, void *arg)
{
    for (;;) {
        bw_err err = BW_OK;
        pthread_rwlock_rdlock(&s->map_lock);
        uint64_t seen = s->map_bytes;
        pthread_mutex_lock(&s->write_lock);
        int rc = write_once(s, fn, arg, &err);
        pthread_mutex_unlock(&s->write_lock);
        pthread_rwlock_unlock(&s->map_lock);
        if (rc == MDB_MAP_FULL) rc = grow_map(s, seen);
        else if (rc == BW_META_STOP) return bw_error_context(err, "%s", what);
        else if (!rc) return BW_OK;
        if (rc) return meta_fail(s, rc, what);
    }
}

bw_err bw_store_read(bw_store *s, const char *what, bw_change_fn fn, void *arg)
{
    bw_err err = BW_OK;
    MDB_txn *txn;
    pthread_rwlock_rdlock(&s->map_lock);
    int rc = mdb_txn_begin(s->e.env, NULL, MDB_RDONLY, &txn);
    if (!rc) {
        rc = fn(s, txn, arg, &err);
        mdb_txn_abort(txn);
    }
    pthread_rwlock_unlock(&s->map_lock);
    if (rc == BW_META_STOP) return err;
    return rc ? meta_fail(s, rc, what) : BW_OK;
}

/* ---- open ---- */

static int load_bus(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    (void)arg;
    MDB_val v;
    int rc = bw_table_get(s, txn, BW_TABLE_INFO, bw_val("bus", 3), &v, err);
    if (rc) return rc;
    if (v.mv_size != sizeof s->bus_id.b) return MDB_CORRUPTED;
    memcpy(s->bus_id.b, v.mv_data, sizeof s->bus_id.b);
    return 0;
}

static int make_bus(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    int rc = load_bus(s, txn, arg, err);
    if (rc != MDB_NOTFOUND) return rc;
    if (bw_os_uuid(s->bus_id.b)) return errno;
    return bw_table_put(s, txn, BW_TABLE_INFO, bw_val("bus", 3), bw_val(s->bus_id.b, sizeof s->bus_id.b), err);
}

static uint64_t journal_limit(void)
{
#ifdef BW_TESTING
    const char *text = getenv("BUSWAY_META_JOURNAL_BYTES"); /* so that tests need not write megabytes before a snapshot is due */
    if (text) return strtoull(text, NULL, 10);
#endif
    return JOURNAL_LIMIT;
}

/* The metadata's folder is there, also after a loss of power. */
static bw_err sync_name(const char *data_dir)
{
    int fd = bw_os_open_named(data_dir, O_RDONLY | O_DIRECTORY, 0);
    bool good = fd >= 0 && bw_os_sync_dir(fd) == 0;
    int saved = errno;
    if (fd >= 0) bw_os_close(fd);
    return good ? BW_OK : bw_fail_errno(saved, "cannot sync folder %s", data_dir);
}

static bw_err open_store(const char *data_dir, uint64_t map_bytes, bool alone, bw_store **out)
{
    *out = NULL;
    bw_store *s = calloc(1, sizeof *s);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the metadata store");
    pthread_rwlock_init(&s->map_lock, NULL);
    pthread_mutex_init(&s->write_lock, NULL);
    pthread_mutex_init(&s->id_lock, NULL);
    s->dir_fd = s->journal.fd = -1;
    s->journal_limit = s->copy_bytes = journal_limit();
    s->alone = alone;
    bw_err e = BW_OK;
    bool made = false;
    if (snprintf(s->path, sizeof s->path, "%s/meta", data_dir) >= (int)sizeof s->path - 64)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "data directory '%s': the path is too long", data_dir);
    else if (!(made = bw_os_mkdir(AT_FDCWD, s->path, 0700) == 0) && errno != EEXIST) e = bw_fail_errno(errno, "cannot make folder %s", s->path);
    else if ((s->dir_fd = bw_os_open(AT_FDCWD, s->path, O_RDONLY | O_DIRECTORY, 0)) < 0) e = bw_fail_errno(errno, "cannot open folder %s", s->path);
    if (!e && made) e = sync_name(data_dir);
    if (!e) e = bw_store_bring_up(s, map_bytes);
    if (!e) e = bw_store_write(s, "cannot open the metadata", make_bus, NULL);
    if (e) {
        bw_store_close(s);
        return e;
    }
    *out = s;
    return BW_OK;
}

bw_err bw_store_open(const char *data_dir, uint64_t map_bytes, bw_store **out) { return open_store(data_dir, map_bytes, false, out); }

bw_err bw_store_open_alone(const char *data_dir, uint64_t map_bytes, bw_store **out) { return open_store(data_dir, map_bytes, true, out); }

void bw_store_close(bw_store *s)
{
    if (!s) return;
    bw_copier_stop(s);
    if (s->e.env) (void)mdb_env_sync(s->e.env, 1); /* the last meta page; the journal has what it says */
    bw_env_close(&s->e);
    bw_journal_close(&s->journal);
    if (s->dir_fd >= 0) bw_os_close(s->dir_fd);
    bw_buf_free(&s->record);
    pthread_rwlock_destroy(&s->map_lock);
    pthread_mutex_destroy(&s->write_lock);
    pthread_mutex_destroy(&s->id_lock);
    free(s);
}

bw_uuid bw_store_bus_id(const bw_store *s) { return s->bus_id; }

const bw_store_repair *bw_store_repair_get(const bw_store *s) { return &s->repair; }

/* ---- care ---- */

void bw_store_maintain(bw_store *s)
{
    int dead;
    pthread_rwlock_rdlock(&s->map_lock);
    mdb_reader_check(s->e.env, &dead);
    pthread_rwlock_unlock(&s->map_lock);
}

void bw_store_info_get(bw_store *s, bw_store_info *out)
{
    MDB_envinfo info;
    MDB_stat st;
    pthread_rwlock_rdlock(&s->map_lock);
    mdb_env_info(s->e.env, &info);
    mdb_env_stat(s->e.env, &st);
    pthread_rwlock_unlock(&s->map_lock);
    out->map_bytes = info.me_mapsize;
    out->used_bytes = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
    out->failed = atomic_load(&s->failed);
    out->snapshots = atomic_load(&s->snapshots);
    out->snapshot_failures = atomic_load(&s->snapshot_failures);
    pthread_mutex_lock(&s->write_lock);
    out->transactions = s->state.sequence;
    pthread_mutex_unlock(&s->write_lock);
}
