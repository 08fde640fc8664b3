/* meta/entry.h: one entry of the store: which table, its checksum, its part of the whole's digest, and its form in snapshot and journal.
 *
 * Value as stored, in LMDB and in the files beside it:   value · be32 CRC-32C of (u8 table · be16 key length · key · value)
 * so a value under another key, in another table, cut or flipped is none. The store's state says what all entries together are:
 *   be32 format · be64 sequence · be64 entries · be64 digest · be32 CRC-32C of these            BW_STATE_BYTES
 * sequence: of the last transaction; digest: the sum of every entry's hash, so that one that is missing, there twice or old shows.
 *
 * An operation (journal: what a transaction did; snapshot: one an entry, put only):
 *   u8 table (0x80: deletion, no value) · be16 key length · be32 length of the stored value · key · stored value
 * Pure; decoding is bounded by the bytes that are there. */
#ifndef BW_META_ENTRY_H
#define BW_META_ENTRY_H

#include "base/bytes.h"

/* The tables: number on disk, name, and what the loss of an entry would mean: essential ones say what nothing else knows; a derivable
 * one is found again from the logs, by a longer scan. */
#define BW_META_TABLES(X)                                                                                                      \
    X(INFO, 0, "info", true) X(TOPICS, 1, "topics", true) X(RECOVERY, 2, "recovery", false) X(PRODUCERS, 3, "producers", true) \
    X(OFFSETS, 4, "offsets", true) X(GROUPS, 5, "groups", true) X(TRANSACTIONS, 6, "transactions", true)                       \
    X(QUEUES, 7, "queues", true) X(QUOTAS, 8, "quotas", true) X(SNAPSHOTS, 9, "producer-snapshots", false)                      \
    X(LINKS, 10, "links", true) X(MERGES, 11, "merges", true) X(USERS, 12, "users", true)

typedef enum bw_meta_table {
#define BW_TABLE_ENUM(id, number, name, essential) BW_TABLE_##id = number,
    BW_META_TABLES(BW_TABLE_ENUM)
#undef BW_TABLE_ENUM
    BW_TABLE_COUNT
} bw_meta_table;

/* bw_table_name: for messages too; "?" for a number that is none. */
const char *bw_table_name(int table);

#define BW_META_KEY_MAX 511u /* LMDB's */
#define BW_VALUE_MAX ((uint32_t)1 << 28)
#define BW_CRC_BYTES 4u
#define BW_STATE_BYTES 32u
#define BW_OP_HEAD_BYTES 7u
#define BW_OP_DELETE 0x80u

typedef struct bw_meta_state {
    uint64_t sequence, entries, digest;
} bw_meta_state;

void bw_state_encode(const bw_meta_state *s, uint8_t out[BW_STATE_BYTES]);
/* bw_state_decode: CORRUPT; NEWER_FORMAT. */
bw_err bw_state_decode(const void *data, size_t len, bw_meta_state *out);
/* bw_state_count: an entry with this hash comes (or goes). */
static inline void bw_state_count(bw_meta_state *s, uint64_t hash, bool comes)
{
    s->digest += comes ? hash : 0 - hash;
    s->entries += comes ? 1 : UINT64_MAX;
}
static inline bool bw_state_same(const bw_meta_state *a, const bw_meta_state *b)
{
    return a->sequence == b->sequence && a->entries == b->entries && a->digest == b->digest;
}

uint32_t bw_entry_crc(int table, const void *key, size_t key_len, const void *value, size_t value_len);
/* bw_entry_check: a stored value is whole and of this key: its hash. */
bool bw_entry_check(int table, const void *key, size_t key_len, const void *stored, size_t stored_len, uint64_t *hash);
uint64_t bw_entry_hash(int table, const void *key, size_t key_len, uint32_t crc);

typedef struct bw_meta_op {
    int table;
    bool remove;
    const uint8_t *key, *stored;
    size_t key_len, stored_len;
    uint64_t hash; /* of a put */
} bw_meta_op;
bw_err bw_op_append(bw_buf *out, int table, const void *key, size_t key_len, const void *stored, size_t stored_len, bool remove);
/* bw_op_take: the next; false and c->bad when it is cut or broken, false alone at the end. */
bool bw_op_take(bw_cursor *c, bw_meta_op *out);

#endif
