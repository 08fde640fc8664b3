/* meta/store.h: what the daemon must remember beside the logs, in LMDB and in a copy beside it. The only folder that knows LMDB.
 *
 * Files, all in <data>/meta (0600): data.mdb, lock.mdb; snapshot-<n>, journal-<n>: the copy (copy.h); "<name>.damaged-<n>".
 * Tables. Every value begins with one byte, the version of its layout, and is stored with a checksum over its key and itself (entry.h).
 *   info       essential   "bus" -> uuid · "producer-ids" -> be64 first id not yet given out in blocks
 *   topics     essential   name -> topic (record.c)
 *   producers  essential   name -> be64 id, be16 epoch
 *   recovery   derivable   uuid 16, be32 partition -> be32 epoch, be64 next offset, be64 segment base, be32 position, be32 crc,
 *                          u8 poisoned. One that is missing means that the whole log is scanned, and that a damaged end of it
 *                          can't be told from one that was never synced
 *   offsets, groups, transactions, queues, quotas   essential   whose keys and values belong to the files of broker/ that write them
 *   producer-snapshots   derivable
 *
 * Durability. A transaction is first a record in the journal (one fdatasync), then committed in LMDB (another; its meta page goes to
 * the disk with the next one: MDB_NOMETASYNC keeps the file whole, and what it may lose of the last transaction the journal has). So
 * what a call put is on the disk when it returns, twice, for the two syncs that LMDB alone takes: measured side by side, a commit
 * by LMDB's default 320 us, this way 283 to 347 us, a default commit and a third sync 485 us. No WRITEMAP, no NOSYNC.
 * Reads check the value's checksum: CORRUPT names the table; nothing that fails is given out. At the start each copy is checked and a
 * damaged one made anew from the other (open.c); of what was answered OK nothing is lost by damage of one of them.
 *
 * A full map grows by itself, by doubling, with no transaction open (a lock of this store keeps them out). One open a process and a
 * data directory: the caller holds daemon.lock. Not for use after fork. After an I/O error LMDB answers MDB_PANIC to everything: so
 * does the store (IO), until the daemon is started again; so too after a journal that could not be synced.
 * bw_store_open forks (check.h): call it while the process has no other thread that may hold a lock of the C library for ever.
 * Any thread may call any function; none may be called from a network callback. */
#ifndef BW_META_STORE_H
#define BW_META_STORE_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/uuid.h"
#include "log/partition.h"
#include "meta/entry.h"

#define BW_META_FORMAT 2u /* 1: without checksums, read once and brought to 2 */
#define BW_META_NAME_MAX 249u /* bytes of a topic's or a producer's name */
#define BW_META_CONFIGS_MAX 64u

typedef struct bw_store bw_store;

typedef enum bw_meta_topic_state {
    BW_META_TOPIC_LIVE = 0,
    BW_META_TOPIC_DELETING = 1, /* deletion was promised; its files may still be there */
} bw_meta_topic_state;

typedef struct bw_meta_config {
    char name[64];
    char value[192];
} bw_meta_config;

typedef struct bw_meta_topic {
    char name[BW_META_NAME_MAX + 1];
    bw_uuid id;
    uint32_t partitions;
    bw_meta_topic_state state;
    int64_t created_ms;
    bw_meta_config *configs; /* what differs from the defaults */
    size_t config_count;
} bw_meta_topic;

/* bw_store_open: data_dir/meta is made when it is missing; damage is mended (bw_store_repair_get says so). NEWER_FORMAT names both numbers;
 * CORRUPT: both copies are damaged, the message says what can be done, and nothing was changed; IO, NOT_PERMITTED, DISK_FULL, NO_MEMORY. */
bw_err bw_store_open(const char *data_dir, uint64_t map_bytes, bw_store **out);
/* bw_store_open_alone: the same within a process that may make no other. */
bw_err bw_store_open_alone(const char *data_dir, uint64_t map_bytes, bw_store **out);
void bw_store_close(bw_store *s);

typedef struct bw_store_repair {
    bool repaired; /* there is something to tell */
    bool damaged;  /* and it is no mere remainder of a death or a power cut */
    char what[900];
} bw_store_repair;
/* bw_store_repair_get: what the start had to mend; valid until close. */
const bw_store_repair *bw_store_repair_get(const bw_store *s);

/* bw_store_bus_id: made once, with the store. */
bw_uuid bw_store_bus_id(const bw_store *s);

bw_err bw_store_topic_put(bw_store *s, const bw_meta_topic *t);
/* bw_store_topic_remove: with its recovery points and snapshots, in one transaction. NOT_FOUND. */
bw_err bw_store_topic_remove(bw_store *s, const char *name);
/* bw_store_topics: all, malloc'd; freed by bw_store_topics_free. */
bw_err bw_store_topics(bw_store *s, bw_meta_topic **topics, size_t *count);
void bw_store_topics_free(bw_meta_topic *topics, size_t count);

typedef struct bw_meta_point {
    bw_uuid topic;
    uint32_t partition;
    bw_recovery_point point;
    const uint8_t *snapshot; /* of producers: to be kept beside it from now on; NULL: the one that is there stays */
    size_t snapshot_len;
} bw_meta_point;
/* bw_store_points_put: many in one transaction. */
bw_err bw_store_points_put(bw_store *s, const bw_meta_point *points, size_t count);
/* bw_store_point_get: NOT_FOUND when there is none. */
bw_err bw_store_point_get(bw_store *s, const bw_uuid *topic, uint32_t partition, bw_recovery_point *out);
/* bw_store_snapshot_get: beside the point; appended to out. NOT_FOUND. */
bw_err bw_store_snapshot_get(bw_store *s, const bw_uuid *topic, uint32_t partition, bw_buf *out);

/* bw_store_producer_id: an id never given out before. */
bw_err bw_store_producer_id(bw_store *s, int64_t *id);
/* bw_store_producer_named: the name's id with its epoch raised; a new id with epoch 0 for a name not seen. When the epochs are
 * used up the name gets a new id. */
bw_err bw_store_producer_named(bw_store *s, const char *name, size_t len, int64_t *id, int16_t *epoch);

/* Any table, for those who keep their own layouts (a value begins with its version). */
typedef struct bw_meta_change {
    int table; /* bw_meta_table */
    const void *key;
    size_t key_len; /* 1 to BW_META_KEY_MAX */
    const void *value; /* NULL: the entry goes, if it is there */
    size_t value_len;
} bw_meta_change;
/* bw_store_change: all of them, in their order, in one transaction; on the disk when it returns. */
bw_err bw_store_change(bw_store *s, const bw_meta_change *changes, size_t count);
/* bw_store_each: entries whose keys begin with prefix, ascending, until fn returns false. In fn no call of this store. */
typedef bool (*bw_meta_entry_fn)(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len);
bw_err bw_store_each(bw_store *s, int table, const void *prefix, size_t prefix_len, bw_meta_entry_fn fn, void *opaque);

/* bw_store_maintain: drop reader slots of dead processes (mdb_reader_check). Call now and then. */
void bw_store_maintain(bw_store *s);
typedef struct bw_store_info {
    uint64_t map_bytes, used_bytes;
    uint64_t transactions;                 /* in the store's life */
    uint64_t snapshots, snapshot_failures; /* in this process */
    bool failed;
} bw_store_info;
void bw_store_info_get(bw_store *s, bw_store_info *out);

#endif
