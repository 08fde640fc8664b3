/* state/txn.c: transactions on a store: the application's keys, and the offset that moves with them. See env.h.
 *
 * A map that is full is found by a put or the commit: the transaction is lost then, grows the map when it is aborted, and its user begins
 * anew. So that this is rare, a transaction is begun with at least half of the map free. */
#include "state/internal.h"

#include <errno.h>
#include <stdlib.h>

#define KEY_ROOM (BW_STATE_KEY_MAX + 1)

struct bw_state_txn {
    bw_state_env *env;
    MDB_txn *mdb;
    void *user;
    bool write, lost;
    bw_err broken; /* a call failed in a way that leaves the transaction unusable */
};

static const uint8_t position_key[1] = {0};

/* ---- the position ---- */

void bw_state_position_encode(const bw_state_position *p, uint8_t out[BW_STATE_POSITION_BYTES])
{
    out[0] = 1;
    bw_put_be64(out + 1, (uint64_t)p->generation);
    memcpy(out + 9, p->owner, 16);
    memcpy(out + 25, p->topic.b, 16);
    bw_put_be64(out + 41, (uint64_t)p->offset);
}

bw_err bw_state_position_get(bw_state_env *e, MDB_txn *txn, bw_state_position *out)
{
    MDB_val k = {sizeof position_key, (void *)(uintptr_t)position_key}, v;
    int rc = mdb_get(txn, e->dbi, &k, &v);
    if (rc == MDB_NOTFOUND) return BW_ERR_NOT_FOUND;
    if (rc) return bw_state_fail(rc, e->path, "cannot read the position");
    const uint8_t *p = v.mv_data;
    if (v.mv_size != BW_STATE_POSITION_BYTES || p[0] != 1)
        return bw_fail(BW_ERR_CORRUPT, "%s: its position is not one of this version; remove the folder to begin anew", e->path);
    out->generation = (int64_t)bw_get_be64(p + 1);
    memcpy(out->owner, p + 9, 16);
    memcpy(out->topic.b, p + 25, 16);
    out->offset = (int64_t)bw_get_be64(p + 41);
    return BW_OK;
}

bw_err bw_state_position_put(bw_state_env *e, MDB_txn *txn, int64_t offset)
{
    uint8_t bytes[BW_STATE_POSITION_BYTES];
    bw_state_position p = {.generation = e->generation, .offset = offset, .topic = e->topic};
    memcpy(p.owner, e->owner, 16);
    bw_state_position_encode(&p, bytes);
    MDB_val k = {sizeof position_key, (void *)(uintptr_t)position_key}, v = {sizeof bytes, bytes};
    int rc = mdb_put(txn, e->dbi, &k, &v, 0);
    return rc ? bw_state_fail(rc, e->path, "cannot store the position") : BW_OK;
}

/* ---- begin and end ---- */

static bw_err grow(bw_state_env *e)
{
    if (e->map_bytes >= BW_STATE_MAP_MAX) return bw_fail(BW_ERR_DISK_FULL, "%s has reached its largest size", e->path);
    int rc = mdb_env_set_mapsize(e->mdb, (size_t)(e->map_bytes * 2));
    if (rc) return bw_state_fail(rc, e->path, "cannot grow");
    e->map_bytes *= 2;
    return BW_OK;
}

bw_err bw_state_begin_txn(bw_state_env *e, unsigned flags, MDB_txn **out)
{
    for (int tries = 0;; tries++) {
        int rc = mdb_txn_begin(e->mdb, NULL, flags, out);
        if (rc == MDB_READERS_FULL && tries == 0) {
            int dead;
            mdb_reader_check(e->mdb, &dead);
            continue;
        }
        if (rc == MDB_MAP_RESIZED && tries < 2) { /* as large as the file says */
            MDB_envinfo info;
            if ((rc = mdb_env_set_mapsize(e->mdb, 0)) == 0 && (rc = mdb_env_info(e->mdb, &info)) == 0) {
                e->map_bytes = info.me_mapsize;
                continue;
            }
        }
        return rc ? bw_state_fail(rc, e->path, "cannot begin a transaction") : BW_OK;
    }
}

static bw_err make_room(bw_state_env *e)
{
    MDB_envinfo info;
    MDB_stat stat;
    if (mdb_env_info(e->mdb, &info) || mdb_env_stat(e->mdb, &stat)) return BW_OK; /* a put will find out */
    return (uint64_t)(info.me_last_pgno + 1) * stat.ms_psize > e->map_bytes / 2 ? grow(e) : BW_OK;
}

bw_err bw_state_env_begin(bw_state_env *e, bool write, void *user, bw_state_txn **out)
{
    if (e->failed) return bw_fail(BW_ERR_IO, "%s stopped after an input/output error; look at the disk, then open it again", e->path);
    bw_err err = write ? make_room(e) : BW_OK;
    if (err) return err;
    bw_state_txn *t = calloc(1, sizeof *t);
    if (!t) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a transaction");
    *t = (bw_state_txn){.env = e, .user = user, .write = write};
    if ((err = bw_state_begin_txn(e, write ? 0 : MDB_RDONLY, &t->mdb))) {
        free(t);
        return err;
    }
    *out = t;
    return BW_OK;
}

void bw_state_env_abort(bw_state_txn *t)
{
    bw_state_env *e = t->env;
    bool lost = t->lost;
    if (t->mdb) mdb_txn_abort(t->mdb);
    free(t);
    if (lost) grow(e); /* what fails here fails again at the next begin */
}

bw_err bw_state_env_check(const bw_state_env *e)
{
    struct stat st;
    if (bw_os_fstat(e->data_fd, &st) == 0 && st.st_nlink > 0) return BW_OK;
    return bw_fail(BW_ERR_FENCED, "%s: a newer owner of the partition has taken the state over", e->path);
}

/* In the transaction itself: the store is still this owner's. */
static bw_err check_owner(bw_state_txn *t)
{
    bw_state_env *e = t->env;
    bw_state_position now;
    bw_err err = bw_state_position_get(e, t->mdb, &now);
    if (err) return err;
    if (now.generation == e->generation && !memcmp(now.owner, e->owner, 16)) return BW_OK;
    return bw_fail(BW_ERR_FENCED, "%s: it belongs to generation %lld, this is generation %lld", e->path, (long long)now.generation,
                   (long long)e->generation);
}

static bw_err commit(bw_state_txn *t, int64_t offset)
{
    bw_state_env *e = t->env;
    bw_err err = t->broken;
    if (err) bw_fail(err, "%s: a change in the transaction failed before; it is dropped", e->path);
    if (!err && !t->lost) err = bw_state_env_check(e);
    if (!err && !t->lost) err = check_owner(t);
    if (!err && !t->lost) err = bw_state_position_put(e, t->mdb, offset);
    if (err && err != BW_ERR_BUSY) return err;
    if (err || t->lost) {
        t->lost = true;
        return bw_fail(BW_ERR_BUSY, "%s grows; the transaction is begun anew", e->path);
    }
    int rc = mdb_txn_commit(t->mdb);
    t->mdb = NULL;
    if (rc == MDB_MAP_FULL) {
        t->lost = true;
        return bw_fail(BW_ERR_BUSY, "%s grows; the transaction is begun anew", e->path);
    }
    if (rc) {
        e->failed = rc == MDB_PANIC || rc == EIO;
        return bw_state_fail(rc, e->path, "cannot commit");
    }
    if ((err = bw_state_env_check(e))) return err; /* it went into what nobody reads any more */
    e->offset = offset;
    return BW_OK;
}

bw_err bw_state_env_commit(bw_state_txn *t, int64_t offset)
{
    bw_err err = commit(t, offset);
    bw_state_env_abort(t);
    return err;
}

void *bw_state_txn_user(const bw_state_txn *t) { return t->user; }
bw_state_env *bw_state_txn_env(const bw_state_txn *t) { return t->env; }
bool bw_state_txn_writes(const bw_state_txn *t) { return t->write; }
bool bw_state_txn_is_lost(const bw_state_txn *t) { return t->lost; }
int64_t bw_state_offset(const bw_state_txn *t) { return t->env->offset; }

/* ---- keys ---- */

static bw_err make_key(const void *key, size_t len, size_t least, uint8_t room[KEY_ROOM], MDB_val *out)
{
    if (len < least || len > BW_STATE_KEY_MAX || (len && !key))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a key of %zu bytes; allowed: 1 to %u", len, BW_STATE_KEY_MAX);
    room[0] = 1;
    if (len) memcpy(room + 1, key, len);
    *out = (MDB_val){len + 1, room};
    return BW_OK;
}

static bw_err check_write(bw_state_txn *t)
{
    if (!t->write) return bw_fail(BW_ERR_INVALID_ARGUMENT, "this transaction is for reading");
    if (t->lost) return bw_fail(BW_ERR_BUSY, "%s grows; return, and the records come again", t->env->path);
    return t->broken ? bw_fail(t->broken, "%s: a change in the transaction failed before", t->env->path) : BW_OK;
}

static bw_err changed(bw_state_txn *t, int rc, const char *what)
{
    if (!rc) return BW_OK;
    bw_err err = bw_state_fail(rc, t->env->path, what);
    if (rc == MDB_MAP_FULL) t->lost = true;
    else t->broken = err;
    return err;
}

bw_err bw_state_get(bw_state_txn *t, const void *key, size_t key_len, const void **value, size_t *value_len)
{
    uint8_t room[KEY_ROOM];
    MDB_val k, v;
    if (!t) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no transaction");
    bw_err err = make_key(key, key_len, 1, room, &k);
    if (!err && t->lost) err = check_write(t);
    if (err) return err;
    int rc = mdb_get(t->mdb, t->env->dbi, &k, &v);
    if (rc == MDB_NOTFOUND) return BW_ERR_NOT_FOUND; /* common, and no trouble: without a message */
    if (rc) return bw_state_fail(rc, t->env->path, "cannot read a key");
    if (value) *value = v.mv_data;
    if (value_len) *value_len = v.mv_size;
    return BW_OK;
}

bw_err bw_state_put(bw_state_txn *t, const void *key, size_t key_len, const void *value, size_t value_len)
{
    uint8_t room[KEY_ROOM];
    MDB_val k;
    if (!t) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no transaction");
    bw_err err = make_key(key, key_len, 1, room, &k);
    if (!err && ((value_len && !value) || value_len > UINT32_MAX - 1)) err = bw_fail(BW_ERR_INVALID_ARGUMENT, "a value of %zu bytes", value_len);
    if (!err) err = check_write(t);
    if (err) return err;
    MDB_val v = {value_len, (void *)(uintptr_t)(value ? value : "")};
    return changed(t, mdb_put(t->mdb, t->env->dbi, &k, &v, 0), "cannot put a key");
}

bw_err bw_state_del(bw_state_txn *t, const void *key, size_t key_len)
{
    uint8_t room[KEY_ROOM];
    MDB_val k;
    if (!t) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no transaction");
    bw_err err = make_key(key, key_len, 1, room, &k);
    if (!err) err = check_write(t);
    if (err) return err;
    int rc = mdb_del(t->mdb, t->env->dbi, &k, NULL);
    return changed(t, rc == MDB_NOTFOUND ? 0 : rc, "cannot remove a key");
}

bw_err bw_state_each(bw_state_txn *t, const void *prefix, size_t prefix_len, bw_state_entry_fn fn, void *opaque)
{
    uint8_t room[KEY_ROOM];
    MDB_val from, k, v;
    if (!t || !fn) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no transaction, or nobody to tell");
    bw_err err = make_key(prefix, prefix_len, 0, room, &from);
    if (!err && t->lost) err = check_write(t);
    if (err) return err;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(t->mdb, t->env->dbi, &cursor);
    if (rc) return bw_state_fail(rc, t->env->path, "cannot read keys");
    k = from;
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (!rc && k.mv_size >= from.mv_size && !memcmp(k.mv_data, room, from.mv_size)) {
        if (!fn(opaque, (const uint8_t *)k.mv_data + 1, k.mv_size - 1, v.mv_data, v.mv_size)) break;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc && rc != MDB_NOTFOUND ? bw_state_fail(rc, t->env->path, "cannot read keys") : BW_OK;
}
