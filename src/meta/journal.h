/* meta/journal.h: what transactions did since a snapshot: an append-only file, made durable before LMDB commits.
 *
 * "journal-<sequence of the snapshot it goes on from>":
 *    0  8   "BWJOURNL"
 *    8  32  state at the snapshot (entry.h)
 *   40  4   be32 CRC-32C of bytes 0..39; seed of every record's checksum: a record of another journal never verifies
 *   44  20  zero
 *   64      records, each: be32 n > 0 · state after it, 32 bytes, sequence one higher · n bytes of operations · be32 CRC-32C of all that
 *   then    zeros up to a multiple of BW_JOURNAL_CHUNK
 *
 * The zeros are written ahead, so that a record is an overwrite: its fdatasync has no metadata to wait for but once a chunk.
 * Reading ends at the first n of 0. Clean: nothing but zeros behind it, and the length is right. What follows a record that does not
 * verify is not believed: a torn last record was never acknowledged, but nothing here can tell it from one that rots. */
#ifndef BW_META_JOURNAL_H
#define BW_META_JOURNAL_H

#include "meta/entry.h"

#define BW_JOURNAL_KIND "journal"
#define BW_JOURNAL_HEADER_BYTES 64u
#define BW_RECORD_HEAD_BYTES (4u + BW_STATE_BYTES)
#define BW_JOURNAL_CHUNK ((uint64_t)128 * 1024)

typedef struct bw_journal {
    int fd;
    uint64_t base;   /* the sequence in its name */
    uint64_t at;     /* where the next record goes */
    uint64_t zeroed; /* the file's length; zero from `at` on */
    uint64_t last;   /* where the last record began */
    uint32_t seed;
    bool broken; /* a sync failed: nothing may be appended any more */
} bw_journal;

/* bw_journal_create: under its name, with no record, durable with its directory entry. */
bw_err bw_journal_create(int dir_fd, const bw_meta_state *base, bw_journal *out);
void bw_journal_close(bw_journal *j);

/* bw_journal_append: record holds BW_RECORD_HEAD_BYTES of room, then the operations; the rest is filled in. Durable when it returns.
 * DISK_FULL: nothing happened. IO: final (broken). */
bw_err bw_journal_append(bw_journal *j, const bw_meta_state *after, bw_buf *record);
/* bw_journal_undo: the last append must not count. IO: final. */
bw_err bw_journal_undo(bw_journal *j);

typedef struct bw_journal_end {
    bw_meta_state base, last; /* last: after the last record that verifies */
    uint64_t at, size;
    uint32_t seed;
    bool clean;
    char why[120]; /* when not clean */
} bw_journal_end;
typedef bw_err (*bw_journal_fn)(void *opaque, const bw_meta_state *before, const bw_meta_state *after, const uint8_t *ops, size_t len);
/* bw_journal_read: fn (or NULL) for each record. CORRUPT: not even the header is good. NOT_FOUND, IO, NO_MEMORY, NEWER_FORMAT. */
bw_err bw_journal_read(int dir_fd, uint64_t base, bw_journal_fn fn, void *opaque, bw_journal_end *end);
/* bw_journal_go_on: append to a clean journal where reading ended. */
bw_err bw_journal_go_on(int dir_fd, const bw_journal_end *end, bw_journal *out);

#endif
