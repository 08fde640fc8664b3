/* meta/store_tables.c: what the store's tables hold, and the calls that read and change them; how a change is done is store.c's. */
#include "meta/store_internal.h"

#include "base/err.h"
#include "meta/record.h"

#include <errno.h>
#include <stdlib.h>

/* ---- topics ---- */

struct put_arg {
    MDB_val key, value;
};

static int do_topic_put(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    struct put_arg *a = arg;
    return bw_table_put(s, txn, BW_TABLE_TOPICS, a->key, a->value, err);
}

bw_err bw_store_topic_put(bw_store *s, const bw_meta_topic *t)
{
    if (t->config_count > BW_META_CONFIGS_MAX)
        return bw_fail(BW_ERR_INVALID_CONFIG, "topic '%s': %zu configurations; at most %u are kept", t->name, t->config_count, BW_META_CONFIGS_MAX);
    bw_buf value = {0};
    bw_err e = bw_meta_topic_encode(t, &value);
    if (!e) {
        struct put_arg a = {bw_val(t->name, strlen(t->name)), bw_val(value.data, value.len)};
        e = bw_store_write(s, "cannot store the topic", do_topic_put, &a);
    }
    bw_buf_free(&value);
    return e;
}

/* All entries of a topic in a table whose key is uuid, partition. */
static int remove_points(bw_store *s, MDB_txn *txn, int table, const bw_uuid *id, bw_err *err)
{
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, s->e.tables[table], &cursor);
    if (rc) return rc;
    MDB_val k = bw_val(id->b, 16), v;
    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);
    while (!rc && k.mv_size == 20 && !memcmp(k.mv_data, id->b, 16)) {
        if ((rc = bw_table_leaves(s, table, k, v, err)) || (rc = mdb_cursor_del(cursor, 0))) break;
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
    if (rc || (rc = bw_table_leaves(s, BW_TABLE_TOPICS, k, v, err))) return rc;
    bw_meta_topic t;
    if ((*err = bw_meta_topic_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size - BW_CRC_BYTES, &t))) return BW_META_STOP;
    bw_uuid id = t.id;
    bw_meta_topic_fini(&t);
    if ((rc = mdb_del(txn, s->e.tables[BW_TABLE_TOPICS], &k, NULL))) return rc;
    rc = remove_points(s, txn, BW_TABLE_RECOVERY, &id, err);
    return rc ? rc : remove_points(s, txn, BW_TABLE_SNAPSHOTS, &id, err);
}

bw_err bw_store_topic_remove(bw_store *s, const char *name)
{
    return bw_store_write(s, "cannot remove the topic", do_topic_remove, (void *)(uintptr_t)name);
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
        if ((rc = bw_table_check(s, BW_TABLE_TOPICS, &k, &v, &hash, err))) break;
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
    bw_err e = bw_store_read(s, "cannot read the topics", do_topics, &l);
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
        int rc = bw_table_put(s, txn, BW_TABLE_RECOVERY, bw_val(key, sizeof key), bw_val(value, sizeof value), err);
        if (!rc && a->points[i].snapshot)
            rc = bw_table_put(s, txn, BW_TABLE_SNAPSHOTS, bw_val(key, sizeof key), bw_val(a->points[i].snapshot, a->points[i].snapshot_len), err);
        if (rc) return rc;
    }
    return 0;
}

bw_err bw_store_points_put(bw_store *s, const bw_meta_point *points, size_t count)
{
    struct points_arg a = {points, count};
    return count ? bw_store_write(s, "cannot store recovery points", do_points_put, &a) : BW_OK;
}

struct point_arg {
    uint8_t key[20];
    bw_recovery_point *out;
};

static int do_point_get(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    struct point_arg *a = arg;
    MDB_val v;
    int rc = bw_table_get(s, txn, BW_TABLE_RECOVERY, bw_val(a->key, sizeof a->key), &v, err);
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
    return bw_store_read(s, "cannot read a recovery point", do_point_get, &a);
}

struct snapshot_arg {
    uint8_t key[20];
    bw_buf *out;
};

static int do_snapshot_get(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    struct snapshot_arg *a = arg;
    MDB_val v;
    int rc = bw_table_get(s, txn, BW_TABLE_SNAPSHOTS, bw_val(a->key, sizeof a->key), &v, err);
    if (rc == MDB_NOTFOUND) {
        *err = bw_fail(BW_ERR_NOT_FOUND, "no snapshot of producers is stored for this partition");
        return BW_META_STOP;
    }
    if (rc) return rc;
    *err = bw_buf_append(a->out, v.mv_data, v.mv_size);
    return *err ? BW_META_STOP : 0;
}

bw_err bw_store_snapshot_get(bw_store *s, const bw_uuid *topic, uint32_t partition, bw_buf *out)
{
    struct snapshot_arg a = {.out = out};
    point_key(a.key, topic, partition);
    return bw_store_read(s, "cannot read a snapshot of producers", do_snapshot_get, &a);
}

/* ---- producers ---- */

#define PRODUCER_BLOCK 1000

/* Takes `count` ids that nobody had: *first. */
static int take_ids(bw_store *s, MDB_txn *txn, int64_t count, int64_t *first, bw_err *err)
{
    MDB_val k = bw_val("producer-ids", 12), v;
    int rc = bw_table_get(s, txn, BW_TABLE_INFO, k, &v, err);
    if (rc && rc != MDB_NOTFOUND) return rc;
    if (!rc && v.mv_size != 8) return MDB_CORRUPTED;
    *first = rc ? 0 : (int64_t)bw_get_be64(v.mv_data);
    uint8_t next[8];
    bw_put_be64(next, (uint64_t)(*first + count));
    return bw_table_put(s, txn, BW_TABLE_INFO, k, bw_val(next, 8), err);
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
        e = bw_store_write(s, "cannot give out a producer id", do_take_block, &first);
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
    int rc = bw_table_get(s, txn, BW_TABLE_PRODUCERS, k, &v, err);
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
    return bw_table_put(s, txn, BW_TABLE_PRODUCERS, k, bw_val(value, sizeof value), err);
}

bw_err bw_store_producer_named(bw_store *s, const char *name, size_t len, int64_t *id, int16_t *epoch)
{
    if (!len || len > BW_META_NAME_MAX)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a producer name has 1 to %u bytes, not %zu", BW_META_NAME_MAX, len);
    struct named_arg a = {.name = name, .len = len};
    bw_err e = bw_store_write(s, "cannot store the producer's epoch", do_named, &a);
    *id = a.id;
    *epoch = a.epoch;
    return e;
}

/* ---- any table ---- */

struct changes_arg {
    const bw_meta_change *changes;
    size_t count;
};

static int remove_key(bw_store *s, MDB_txn *txn, int table, MDB_val key, bw_err *err)
{
    MDB_val old;
    int rc = mdb_get(txn, s->e.tables[table], &key, &old);
    if (rc == MDB_NOTFOUND) return 0;
    if (rc || (rc = bw_table_leaves(s, table, key, old, err))) return rc;
    return mdb_del(txn, s->e.tables[table], &key, NULL);
}

static int do_changes(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    const struct changes_arg *a = arg;
    for (size_t i = 0; i < a->count; i++) {
        const bw_meta_change *c = &a->changes[i];
        MDB_val key = bw_val(c->key, c->key_len);
        int rc = c->value ? bw_table_put(s, txn, c->table, key, bw_val(c->value, c->value_len), err) : remove_key(s, txn, c->table, key, err);
        if (rc) return rc;
    }
    return 0;
}

bw_err bw_store_change(bw_store *s, const bw_meta_change *changes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const bw_meta_change *c = &changes[i];
        if (c->table < 0 || c->table >= BW_TABLE_COUNT || !c->key_len || c->key_len > BW_META_KEY_MAX || c->value_len > BW_VALUE_MAX)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "metadata: an entry of table %d with a key of %zu and a value of %zu bytes", c->table,
                           c->key_len, c->value_len);
    }
    struct changes_arg a = {changes, count};
    return count ? bw_store_write(s, "cannot change the metadata", do_changes, &a) : BW_OK;
}

struct each_arg {
    int table;
    const void *prefix;
    size_t prefix_len;
    bw_meta_entry_fn fn;
    void *opaque;
};

static int do_each(bw_store *s, MDB_txn *txn, void *arg, bw_err *err)
{
    const struct each_arg *a = arg;
    MDB_cursor *cursor;
    int rc = mdb_cursor_open(txn, s->e.tables[a->table], &cursor);
    if (rc) return rc;
    MDB_val k = bw_val(a->prefix, a->prefix_len), v;
    rc = mdb_cursor_get(cursor, &k, &v, a->prefix_len ? MDB_SET_RANGE : MDB_FIRST);
    while (!rc && k.mv_size >= a->prefix_len && (!a->prefix_len || !memcmp(k.mv_data, a->prefix, a->prefix_len))) {
        uint64_t hash;
        if ((rc = bw_table_check(s, a->table, &k, &v, &hash, err))) break;
        if (!a->fn(a->opaque, k.mv_data, k.mv_size, v.mv_data, v.mv_size)) break;
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

bw_err bw_store_each(bw_store *s, int table, const void *prefix, size_t prefix_len, bw_meta_entry_fn fn, void *opaque)
{
    struct each_arg a = {table, prefix, prefix_len, fn, opaque};
    return bw_store_read(s, "cannot read the metadata", do_each, &a);
}
