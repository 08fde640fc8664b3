/* meta/store.c: one transaction a call.
 *
 * Every change runs through `write_retry`: begin, do, journal, commit; when the map is full the transaction is dropped, the map doubled
 * with every other transaction kept out (mdb_env_set_mapsize demands it), and the change is done again. Changes must therefore
 * depend on nothing but their argument, and touch tables through table_put and table_del only, which keep the checksums, the digest
 * and the journal's record. The journal's record is durable before LMDB commits, so that LMDB is never ahead of it.
 * Readers use MDB_NOTLS, so that a slot belongs to a transaction and not to a thread. */
#include "meta/store_internal.h"

#include "base/err.h"
#include "base/killpoint.h"
#include "base/os.h"
#include "meta/record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#define PRODUCER_BLOCK 1000
#define JOURNAL_LIMIT (UINT64_C(4) << 20)

static bw_err meta_fail(bw_store *s, int rc, const char *what)
{
    if (rc == MDB_PANIC) atomic_store(&s->failed, true);
    return bw_env_fail(rc, s->path, what);
}

/* ---- entries ---- */

/* A change or a look: returns an LMDB code; BW_META_STOP when it has set an error of its own in *err. */
#define BW_META_STOP 1000000
typedef int (*change_fn)(bw_store *s, MDB_txn *txn, void *arg, bw_err *err);

static int rotten(const bw_store *s, int table, bw_err *err)
{
    *err = bw_fail(BW_ERR_CORRUPT, "an entry of table '%s' of the metadata in %s fails its checksum; it is not used. Start the daemon again: "
                   "it mends the file from its snapshot and journal", bw_table_name(table), s->path);
    return BW_META_STOP;
}

/* What LMDB found, without its checksum. */
static int table_check(const bw_store *s, int table, const MDB_val *key, MDB_val *value, uint64_t *hash, bw_err *err)
{
    if (!bw_entry_check(table, key->mv_data, key->mv_size, value->mv_data, value->mv_size, hash)) return rotten(s, table, err);
    value->mv_size -= BW_CRC_BYTES;
    return 0;
}

/* MDB_NOTFOUND when there is none. */
static int table_get(const bw_store *s, MDB_txn *txn, int table, MDB_val key, MDB_val *value, bw_err *err)
{
    uint64_t hash;
    int rc = mdb_get(txn, s->e.tables[table], &key, value);
    return rc ? rc : table_check(s, table, &key, value, &hash, err);
}

static int table_put(bw_store *s, MDB_txn *txn, int table, MDB_val key, MDB_val value, bw_err *err)
{
    MDB_val old, room = {value.mv_size + BW_CRC_BYTES, NULL};
    uint64_t hash;
    int rc = mdb_get(txn, s->e.tables[table], &key, &old);
    if (rc && rc != MDB_NOTFOUND) return rc;
    if (!rc) {
        if ((rc = table_check(s, table, &key, &old, &hash, err))) return rc;
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

/* found: what LMDB has under the key. The caller deletes it. */
static int table_leaves(bw_store *s, int table, MDB_val key, MDB_val found, bw_err *err)
{
    uint64_t hash;
    int rc = table_check(s, table, &key, &found, &hash, err);
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
static int write_once(bw_store *s, change_fn fn, void *arg, bw_err *err)
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

static bw_err write_retry(bw_store *s, const char *what, change_fn fn, void *arg)
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

/* A look: fn gets a read transaction. */
static bw_err read_once(bw_store *s, const char *what, change_fn fn, void *arg)
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
    int rc = table_get(s, txn, BW_TABLE_INFO, bw_val("bus", 3), &v, err);
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
    return table_put(s, txn, BW_TABLE_INFO, bw_val("bus", 3), bw_val(s->bus_id.b, sizeof s->bus_id.b), err);
}

static uint64_t journal_limit(void)
{
#ifdef BW_TESTING
    const char *text = getenv("BUSWAY_META_JOURNAL_BYTES"); /* so that tests need not write megabytes before a snapshot is due */
    if (text) return strtoull(text, NULL, 10);
#endif
    return JOURNAL_LIMIT;
}

bw_err bw_store_open(const char *data_dir, uint64_t map_bytes, bw_store **out)
{
    *out = NULL;
    bw_store *s = calloc(1, sizeof *s);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the metadata store");
    pthread_rwlock_init(&s->map_lock, NULL);
    pthread_mutex_init(&s->write_lock, NULL);
    pthread_mutex_init(&s->id_lock, NULL);
    s->dir_fd = s->journal.fd = -1;
    s->journal_limit = s->copy_bytes = journal_limit();
    bw_err e = BW_OK;
    if (snprintf(s->path, sizeof s->path, "%s/meta", data_dir) >= (int)sizeof s->path - 64)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "data directory '%s': the path is too long", data_dir);
    else if (bw_os_mkdir(AT_FDCWD, s->path, 0700) && errno != EEXIST) e = bw_fail_errno(errno, "cannot make folder %s", s->path);
    else if ((s->dir_fd = bw_os_open(AT_FDCWD, s->path, O_RDONLY | O_DIRECTORY, 0)) < 0) e = bw_fail_errno(errno, "cannot open folder %s", s->path);
    if (!e) e = bw_store_bring_up(s, map_bytes);
    if (!e) e = write_retry(s, "cannot open the metadata", make_bus, NULL);
    if (e) {
        bw_store_close(s);
        return e;
    }
    *out = s;
    return BW_OK;
}

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

/* ---- topics ---- */

struct put_arg {
    MDB_val key, value;
};

static int do_topic_put(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    struct put_arg *a = arg;
    return table_put(s, txn, BW_TABLE_TOPICS, a->key, a->value, err);
}

bw_err bw_store_topic_put(bw_store *s, const bw_meta_topic *t)
{
    if (t->config_count > BW_META_CONFIGS_MAX)
        return bw_fail(BW_ERR_INVALID_CONFIG, "topic '%s': %zu configurations; at most %u are kept", t->name, t->config_count, BW_META_CONFIGS_MAX);
    bw_buf value = {0};
    bw_err e = bw_meta_topic_encode(t, &value);
    if (!e) {
        struct put_arg a = {bw_val(t->name, strlen(t->name)), bw_val(value.data, value.len)};
        e = write_retry(s, "cannot store the topic", do_topic_put, &a);
    }
    bw_buf_free(&value);
    return e;
}

static int remove_points(bw_store *s, MDB_txn *txn, const bw_uuid *id, bw_err *err)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, s->e.tables[BW_TABLE_RECOVERY], &cursor);
    if (rc) return rc;
    MDB_val k = bw_val(id->b, 16), v;
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (!rc && k.mv_size == 20 && !memcmp(k.mv_data, id->b, 16)) {
        if ((rc = table_leaves(s, BW_TABLE_RECOVERY, k, v, err)) || (rc = mdb_cursor_del(cursor, 0))) break;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int do_topic_remove(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    const char *name = arg;
    MDB_val k = bw_val(name, strlen(name)), v;
    int rc = mdb_get(txn, s->e.tables[BW_TABLE_TOPICS], &k, &v);
    if (rc == MDB_NOTFOUND) {
        *err = bw_fail(BW_ERR_NOT_FOUND, "topic '%s' is not stored", name);
        return BW_META_STOP;
    }
    if (rc || (rc = table_leaves(s, BW_TABLE_TOPICS, k, v, err))) return rc;
    bw_meta_topic t;
    if ((*err = bw_meta_topic_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size - BW_CRC_BYTES, &t))) return BW_META_STOP;
    bw_uuid id = t.id;
    bw_meta_topic_fini(&t);
    if ((rc = mdb_del(txn, s->e.tables[BW_TABLE_TOPICS], &k, NULL))) return rc;
    return remove_points(s, txn, &id, err);
}

bw_err bw_store_topic_remove(bw_store *s, const char *name)
{
    return write_retry(s, "cannot remove the topic", do_topic_remove, (void *)(uintptr_t)name);
}

struct list_arg {
    bw_meta_topic *topics;
    size_t count, cap;
};

static int do_topics(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    struct list_arg *l = arg;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, s->e.tables[BW_TABLE_TOPICS], &cursor);
    if (rc) return rc;
    MDB_val k, v;
    while (!(rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT))) {
        uint64_t hash;
        if ((rc = table_check(s, BW_TABLE_TOPICS, &k, &v, &hash, err))) break;
        if (l->count == l->cap) {
            size_t cap = l->cap ? l->cap * 2 : 16;
            bw_meta_topic *grown = realloc(l->topics, cap * sizeof *grown);
            if (!grown) {
                rc = ENOMEM;
                break;
            }
            l->topics = grown;
            l->cap = cap;
        }
        if ((*err = bw_meta_topic_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size, &l->topics[l->count]))) {
            rc = BW_META_STOP;
            break;
        }
        l->count++;
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

bw_err bw_store_topics(bw_store *s, bw_meta_topic **topics, size_t *count)
{
    struct list_arg l = {0};
    bw_err e = read_once(s, "cannot read the topics", do_topics, &l);
    if (e) {
        bw_store_topics_free(l.topics, l.count);
        l = (struct list_arg){0};
    }
    *topics = l.topics;
    *count = l.count;
    return e;
}

void bw_store_topics_free(bw_meta_topic *topics, size_t count)
{
    for (size_t i = 0; i < count; i++) bw_meta_topic_fini(&topics[i]);
    free(topics);
}

/* ---- recovery points ---- */

static void point_key(uint8_t key[20], const bw_uuid *topic, uint32_t partition)
{
    memcpy(key, topic->b, 16);
    bw_put_be32(key + 16, partition);
}

struct points_arg {
    const bw_meta_point *points;
    size_t count;
};

static int do_points_put(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    struct points_arg *a = arg;
    for (size_t i = 0; i < a->count; i++) {
        uint8_t key[20], value[BW_META_POINT_BYTES];
        point_key(key, &a->points[i].topic, a->points[i].partition);
        bw_meta_point_encode(&a->points[i].point, value);
        int rc = table_put(s, txn, BW_TABLE_RECOVERY, bw_val(key, sizeof key), bw_val(value, sizeof value), err);
        if (rc) return rc;
    }
    return 0;
}

bw_err bw_store_points_put(bw_store *s, const bw_meta_point *points, size_t count)
{
    struct points_arg a = {points, count};
    return count ? write_retry(s, "cannot store recovery points", do_points_put, &a) : BW_OK;
}

struct point_arg {
    uint8_t key[20];
    bw_recovery_point *out;
};

static int do_point_get(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    struct point_arg *a = arg;
    MDB_val v;
    int rc = table_get(s, txn, BW_TABLE_RECOVERY, bw_val(a->key, sizeof a->key), &v, err);
    if (rc == MDB_NOTFOUND) {
        *err = bw_fail(BW_ERR_NOT_FOUND, "no recovery point is stored for this partition");
        return BW_META_STOP;
    }
    if (rc) return rc;
    *err = bw_meta_point_decode(v.mv_data, v.mv_size, a->out);
    return *err ? BW_META_STOP : 0;
}

bw_err bw_store_point_get(bw_store *s, const bw_uuid *topic, uint32_t partition, bw_recovery_point *out)
{
    struct point_arg a = {.out = out};
    point_key(a.key, topic, partition);
    return read_once(s, "cannot read a recovery point", do_point_get, &a);
}

/* ---- producers ---- */

/* Takes `count` ids that nobody had: *first. */
static int take_ids(bw_store *s, MDB_txn *txn, int64_t count, int64_t *first, bw_err *err)
{
    MDB_val k = bw_val("producer-ids", 12), v;
    int rc = table_get(s, txn, BW_TABLE_INFO, k, &v, err);
    if (rc && rc != MDB_NOTFOUND) return rc;
    if (!rc && v.mv_size != 8) return MDB_CORRUPTED;
    *first = rc ? 0 : (int64_t)bw_get_be64(v.mv_data);
    uint8_t next[8];
    bw_put_be64(next, (uint64_t)(*first + count));
    return table_put(s, txn, BW_TABLE_INFO, k, bw_val(next, 8), err);
}

static int do_take_block(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    return take_ids(s, txn, PRODUCER_BLOCK, arg, err);
}

bw_err bw_store_producer_id(bw_store *s, int64_t *id)
{
    bw_err e = BW_OK;
    pthread_mutex_lock(&s->id_lock);
    if (s->next_id == s->last_id) {
        int64_t first;
        e = write_retry(s, "cannot give out a producer id", do_take_block, &first);
        if (!e) {
            s->next_id = first;
            s->last_id = first + PRODUCER_BLOCK;
        }
    }
    if (!e) *id = s->next_id++;
    pthread_mutex_unlock(&s->id_lock);
    return e;
}

struct named_arg {
    const char *name;
    size_t len;
    int64_t id;
    int16_t epoch;
};

static int do_named(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    struct named_arg *a = arg;
    uint8_t value[11] = {1};
    MDB_val k = bw_val(a->name, a->len), v;
    int rc = table_get(s, txn, BW_TABLE_PRODUCERS, k, &v, err);
    if (rc && rc != MDB_NOTFOUND) return rc;
    if (!rc && (v.mv_size != sizeof value || *(const uint8_t *)v.mv_data != 1)) return MDB_CORRUPTED;
    bool known = !rc;
    a->id = known ? (int64_t)bw_get_be64((const uint8_t *)v.mv_data + 1) : 0;
    a->epoch = known ? (int16_t)bw_get_be16((const uint8_t *)v.mv_data + 9) : 0;
    if (!known || a->epoch == INT16_MAX) {
        a->epoch = 0;
        if ((rc = take_ids(s, txn, 1, &a->id, err))) return rc;
    } else a->epoch++;
    bw_put_be64(value + 1, (uint64_t)a->id);
    bw_put_be16(value + 9, (uint16_t)a->epoch);
    return table_put(s, txn, BW_TABLE_PRODUCERS, k, bw_val(value, sizeof value), err);
}

bw_err bw_store_producer_named(bw_store *s, const char *name, size_t len, int64_t *id, int16_t *epoch)
{
    if (!len || len > BW_META_NAME_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a producer name has 1 to %u bytes, not %zu", BW_META_NAME_MAX, len);
    struct named_arg a = {.name = name, .len = len};
    bw_err e = write_retry(s, "cannot store the producer's epoch", do_named, &a);
    *id = a.id;
    *epoch = a.epoch;
    return e;
}

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
