/* meta/snapshot.h: all entries of the store at one moment, in a file that says itself whether it is whole.
 *
 * "snapshot-<sequence>":
 *    0  8   "BWSNAPSH"
 *    8  32  state (entry.h)
 *   40      operations (entry.h), one put an entry, tables ascending, keys ascending
 *   end 4   be32 CRC-32C of all before
 * It counts when the checksum is right and the entries add up to the state. Written under another name, synced, renamed, folder synced. */
#ifndef BW_META_SNAPSHOT_H
#define BW_META_SNAPSHOT_H

#include "meta/entry.h"

#define BW_SNAPSHOT_KIND "snapshot"

typedef struct bw_snapshot_writer {
    int dir_fd, fd;
    bw_meta_state state;
    uint64_t at;
    uint32_t crc;
    bw_buf buf;
} bw_snapshot_writer;

/* begin, add each entry, finish: only then it exists. finish and abandon end the writer. */
bw_err bw_snapshot_begin(int dir_fd, const bw_meta_state *state, bw_snapshot_writer *w);
bw_err bw_snapshot_add(bw_snapshot_writer *w, int table, const void *key, size_t key_len, const void *stored, size_t stored_len);
bw_err bw_snapshot_finish(bw_snapshot_writer *w);
void bw_snapshot_abandon(bw_snapshot_writer *w);

typedef bw_err (*bw_entry_fn)(void *opaque, const bw_meta_op *entry);
/* bw_snapshot_read: fn (or NULL) for each entry; only when the whole returns OK were they the snapshot's. CORRUPT, NEWER_FORMAT, NOT_FOUND,
 * IO, NO_MEMORY. */
bw_err bw_snapshot_read(int dir_fd, uint64_t sequence, bw_entry_fn fn, void *opaque, bw_meta_state *state, uint64_t *bytes);

#endif
