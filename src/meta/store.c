/* meta/store.c: the LMDB environment, and one transaction a call.
 *
 * Every change runs through `write_retry`: begin, do, commit; when the map is full the transaction is dropped, the map doubled with
 * every other transaction kept out (mdb_env_set_mapsize demands it), and the change is done again. Changes must therefore depend on
 * nothing but their argument. Readers use MDB_NOTLS, so that a slot belongs to a transaction and not to a thread. */
#include "meta/store.h"

#include "base/os.h"
#include "meta/record.h"

#include <lmdb.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define MAP_MIN (UINT64_C(1) << 20)
#define MAP_MAX (UINT64_C(1) << 36)
#define PRODUCER_BLOCK 1000

struct bw_store {
    MDB_env *env;
    MDB_dbi info, topics, recovery, producers;
    pthread_rwlock_t map_lock; /* read: a transaction is open; write: the map is being resized */
    pthread_mutex_t id_lock;   /* next_id, last_id */
    int64_t next_id, last_id;  /* producer ids of the present block */
    bw_uuid bus_id;
    uint64_t map_bytes; /* under map_lock */
    _Atomic bool failed;
    char path[PATH_MAX];
};

static MDB_val val_of(const void *data, size_t len) { return (MDB_val){len, (void *)(uintptr_t)data}; }

static bw_err meta_fail(bw_store *s, int rc, const char *what)
{
    switch (rc) {
    case MDB_PANIC:
        atomic_store(&s->failed, true);
        return bw_fail(BW_ERR_IO, "%s: LMDB in %s stopped after an input/output error and refuses everything until the daemon is "
                       "started again; look at the disk first", what, s->path);
    case MDB_MAP_FULL:
        return bw_fail(BW_ERR_DISK_FULL, "%s: the map of %s has reached its largest size, %llu bytes", what, s->path,
                       (unsigned long long)MAP_MAX);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return bw_fail(BW_ERR_CORRUPT, "%s: %s is no sound LMDB store (%s); restore it from a backup, or move it away: topics are then "
                       "adopted from their folders", what, s->path, mdb_strerror(rc));
    case MDB_READERS_FULL:
    case MDB_TXN_FULL:
        return bw_fail(BW_ERR_BUSY, "%s: %s: %s", what, s->path, mdb_strerror(rc));
    default:
        if (rc > 0) return bw_fail_errno(rc, "%s: %s", what, s->path);
        return bw_fail(BW_ERR_INTERNAL, "%s: %s: %s", what, s->path, mdb_strerror(rc));
    }
}

/* A change: returns an LMDB code; BW_META_STOP when it has set an error of its own in *err. */
#define BW_META_STOP 1000000
typedef int (*change_fn)(bw_store *s, MDB_txn *txn, void *arg, bw_err *err);

static int write_once(bw_store *s, change_fn fn, void *arg, bw_err *err)
{
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, 0, &txn);
    if (rc) return rc;
    rc = fn(s, txn, arg, err);
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    return mdb_txn_commit(txn);
}

static int grow_map(bw_store *s, uint64_t seen_bytes)
{
    int rc = 0;
    pthread_rwlock_wrlock(&s->map_lock);
    if (s->map_bytes == seen_bytes) {
        if (s->map_bytes >= MAP_MAX) rc = MDB_MAP_FULL;
        else if (!(rc = mdb_env_set_mapsize(s->env, s->map_bytes * 2))) s->map_bytes *= 2;
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
        int rc = write_once(s, fn, arg, &err);
        pthread_rwlock_unlock(&s->map_lock);
        if (rc == MDB_MAP_FULL) rc = grow_map(s, seen);
        else if (rc == BW_META_STOP) return err;
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
    int rc = mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn);
    if (!rc) {
        rc = fn(s, txn, arg, &err);
        mdb_txn_abort(txn);
    }
    pthread_rwlock_unlock(&s->map_lock);
    if (rc == BW_META_STOP) return err;
    return rc ? meta_fail(s, rc, what) : BW_OK;
}

/* ---- open ---- */

static int check_format(bw_store *s, MDB_txn *txn, bool *fresh, bw_err *err)
{
    MDB_val key = val_of("format", 6), v;
    int rc = mdb_get(txn, s->info, &key, &v);
    *fresh = rc == MDB_NOTFOUND;
    if (rc) return *fresh ? 0 : rc;
    uint32_t format = v.mv_size == 4 ? bw_get_be32(v.mv_data) : 0;
    if (format > BW_META_FORMAT)
        *err = bw_fail(BW_ERR_NEWER_FORMAT, "%s has format %u; this program knows formats up to %u: use a newer buswayd", s->path, format,
                       BW_META_FORMAT);
    else if (!format) *err = bw_fail(BW_ERR_CORRUPT, "%s has no readable format number; restore it from a backup", s->path);
    if (*err) return BW_META_STOP;
    key = val_of("bus", 3);
    if ((rc = mdb_get(txn, s->info, &key, &v))) return rc;
    if (v.mv_size != 16) return MDB_CORRUPTED;
    memcpy(s->bus_id.b, v.mv_data, 16);
    return 0;
}

static int open_databases(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    (void)arg;
    static const char *const names[] = {"info", "topics", "recovery", "producers"};
    MDB_dbi *const dbis[] = {&s->info, &s->topics, &s->recovery, &s->producers};
    for (int i = 0; i < 4; i++) {
        int rc = mdb_dbi_open(txn, names[i], MDB_CREATE, dbis[i]);
        if (rc) return rc;
    }
    bool fresh;
    int rc = check_format(s, txn, &fresh, err);
    if (rc || !fresh) return rc;
    uint8_t format[4];
    bw_put_be32(format, BW_META_FORMAT);
    if (bw_os_uuid(s->bus_id.b)) return errno;
    MDB_val key = val_of("format", 6), v = val_of(format, 4);
    if ((rc = mdb_put(txn, s->info, &key, &v, 0))) return rc;
    key = val_of("bus", 3);
    v = val_of(s->bus_id.b, 16);
    return mdb_put(txn, s->info, &key, &v, 0);
}

static bw_err open_env(bw_store *s, uint64_t map_bytes)
{
    int rc = mdb_env_create(&s->env);
    if (rc) return meta_fail(s, rc, "cannot make an LMDB environment");
    mdb_env_set_maxdbs(s->env, 8);
    if ((rc = mdb_env_open(s->env, s->path, MDB_NOTLS | MDB_NORDAHEAD, 0600))) return meta_fail(s, rc, "cannot open the metadata");
    /* The stored size counts when it is larger: LMDB keeps it in its meta page and takes it on open. */
    MDB_envinfo info;
    mdb_env_info(s->env, &info);
    uint64_t want = map_bytes < MAP_MIN ? MAP_MIN : map_bytes > MAP_MAX ? MAP_MAX : map_bytes;
    s->map_bytes = info.me_mapsize;
    if (want > s->map_bytes) {
        if ((rc = mdb_env_set_mapsize(s->env, want))) return meta_fail(s, rc, "cannot map the metadata");
        s->map_bytes = want;
    }
    return BW_OK;
}

bw_err bw_store_open(const char *data_dir, uint64_t map_bytes, bw_store **out)
{
    *out = NULL;
    bw_store *s = calloc(1, sizeof *s);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the metadata store");
    pthread_rwlock_init(&s->map_lock, NULL);
    pthread_mutex_init(&s->id_lock, NULL);
    bw_err e;
    if (snprintf(s->path, sizeof s->path, "%s/meta", data_dir) >= (int)sizeof s->path)
        e = bw_fail(BW_ERR_INVALID_ARGUMENT, "data directory '%s': the path is too long", data_dir);
    else if (bw_os_mkdir(AT_FDCWD, s->path, 0700) && errno != EEXIST) e = bw_fail_errno(errno, "cannot make folder %s", s->path);
    else e = open_env(s, map_bytes);
    if (!e) e = write_retry(s, "cannot open the metadata", open_databases, NULL);
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
    if (s->env) mdb_env_close(s->env);
    pthread_rwlock_destroy(&s->map_lock);
    pthread_mutex_destroy(&s->id_lock);
    free(s);
}

bw_uuid bw_store_bus_id(const bw_store *s) { return s->bus_id; }

/* ---- topics ---- */

struct put_arg {
    MDB_val key, value;
};

static int do_topic_put(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    (void)err;
    struct put_arg *a = arg;
    MDB_val k = a->key, v = a->value;
    return mdb_put(txn, s->topics, &k, &v, 0);
}

bw_err bw_store_topic_put(bw_store *s, const bw_meta_topic *t)
{
    if (t->config_count > BW_META_CONFIGS_MAX)
        return bw_fail(BW_ERR_INVALID_CONFIG, "topic '%s': %zu configurations; at most %u are kept", t->name, t->config_count, BW_META_CONFIGS_MAX);
    bw_buf value = {0};
    bw_err e = bw_meta_topic_encode(t, &value);
    if (!e) {
        struct put_arg a = {val_of(t->name, strlen(t->name)), val_of(value.data, value.len)};
        e = write_retry(s, "cannot store the topic", do_topic_put, &a);
    }
    bw_buf_free(&value);
    return e;
}

static int remove_points(bw_store *s, MDB_txn *txn, const bw_uuid *id)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, s->recovery, &cursor);
    if (rc) return rc;
    MDB_val k = val_of(id->b, 16), v;
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (!rc && k.mv_size == 20 && !memcmp(k.mv_data, id->b, 16)) {
        if ((rc = mdb_cursor_del(cursor, 0))) break;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int do_topic_remove(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    const char *name = arg;
    MDB_val k = val_of(name, strlen(name)), v;
    int rc = mdb_get(txn, s->topics, &k, &v);
    if (rc == MDB_NOTFOUND) {
        *err = bw_fail(BW_ERR_NOT_FOUND, "topic '%s' is not stored", name);
        return BW_META_STOP;
    }
    if (rc) return rc;
    bw_meta_topic t;
    if ((*err = bw_meta_topic_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size, &t))) return BW_META_STOP;
    bw_uuid id = t.id;
    bw_meta_topic_fini(&t);
    if ((rc = mdb_del(txn, s->topics, &k, NULL))) return rc;
    return remove_points(s, txn, &id);
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
    int rc = mdb_cursor_open(txn, s->topics, &cursor);
    if (rc) return rc;
    MDB_val k, v;
    while (!(rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT))) {
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
    (void)err;
    struct points_arg *a = arg;
    for (size_t i = 0; i < a->count; i++) {
        uint8_t key[20], value[BW_META_POINT_BYTES];
        point_key(key, &a->points[i].topic, a->points[i].partition);
        bw_meta_point_encode(&a->points[i].point, value);
        MDB_val k = val_of(key, sizeof key), v = val_of(value, sizeof value);
        int rc = mdb_put(txn, s->recovery, &k, &v, 0);
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
    MDB_val k = val_of(a->key, sizeof a->key), v;
    int rc = mdb_get(txn, s->recovery, &k, &v);
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
static int take_ids(bw_store *s, MDB_txn *txn, int64_t count, int64_t *first)
{
    MDB_val k = val_of("producer-ids", 12), v;
    int rc = mdb_get(txn, s->info, &k, &v);
    if (rc && rc != MDB_NOTFOUND) return rc;
    if (!rc && v.mv_size != 8) return MDB_CORRUPTED;
    *first = rc ? 0 : (int64_t)bw_get_be64(v.mv_data);
    uint8_t next[8];
    bw_put_be64(next, (uint64_t)(*first + count));
    v = val_of(next, 8);
    return mdb_put(txn, s->info, &k, &v, 0);
}

static int do_take_block(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    (void)err;
    return take_ids(s, txn, PRODUCER_BLOCK, arg);
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
    (void)err;
    struct named_arg *a = arg;
    uint8_t value[11] = {1};
    MDB_val k = val_of(a->name, a->len), v;
    int rc = mdb_get(txn, s->producers, &k, &v);
    if (rc && rc != MDB_NOTFOUND) return rc;
    if (!rc && (v.mv_size != sizeof value || *(const uint8_t *)v.mv_data != 1)) return MDB_CORRUPTED;
    bool known = !rc;
    a->id = known ? (int64_t)bw_get_be64((const uint8_t *)v.mv_data + 1) : 0;
    a->epoch = known ? (int16_t)bw_get_be16((const uint8_t *)v.mv_data + 9) : 0;
    if (!known || a->epoch == INT16_MAX) {
        a->epoch = 0;
        if ((rc = take_ids(s, txn, 1, &a->id))) return rc;
    } else a->epoch++;
    bw_put_be64(value + 1, (uint64_t)a->id);
    bw_put_be16(value + 9, (uint16_t)a->epoch);
    v = val_of(value, sizeof value);
    return mdb_put(txn, s->producers, &k, &v, 0);
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
    mdb_reader_check(s->env, &dead);
    pthread_rwlock_unlock(&s->map_lock);
}

void bw_store_info_get(bw_store *s, bw_store_info *out)
{
    MDB_envinfo info;
    MDB_stat st;
    pthread_rwlock_rdlock(&s->map_lock);
    mdb_env_info(s->env, &info);
    mdb_env_stat(s->env, &st);
    pthread_rwlock_unlock(&s->map_lock);
    out->map_bytes = info.me_mapsize;
    out->used_bytes = (uint64_t)(info.me_last_pgno + 1) * st.ms_psize;
    out->failed = atomic_load(&s->failed);
}
