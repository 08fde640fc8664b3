/* meta/copy.h: the second copy of the metadata: the newest good snapshot and the journals that go on from it.
 *
 * A new copy is begun with an empty journal and only then gets its snapshot; the files of the old one go after that. So there is
 * always a chain: snapshot-A, journal-A, journal-B (begins where A ended) …, and what is there is all: a chain whose last journal's name
 * does not follow, or that misses one, is damaged. */
#ifndef BW_META_COPY_H
#define BW_META_COPY_H

#include "meta/journal.h"
#include "meta/snapshot.h"

#define BW_COPY_FILES_MAX 32u

typedef struct bw_copy {
    uint64_t snapshots[BW_COPY_FILES_MAX], journals[BW_COPY_FILES_MAX]; /* sequences, ascending */
    uint32_t snapshot_count, journal_count;
    bool some;           /* a snapshot is good */
    bool whole;          /* and so is everything else */
    bool spare;          /* files that the chain does not need are there */
    bw_meta_state first; /* at the snapshot */
    bw_meta_state last;  /* as far as it is good */
    bw_journal_end end;  /* of the last journal of the chain */
    uint64_t bytes, snapshot_bytes;
    char why[300];       /* not whole: the first thing that is wrong */
} bw_copy;

/* bw_copy_look: read and verify all of it. Damage is no error: it is in *out. NEWER_FORMAT, IO (the folder cannot be listed). */
bw_err bw_copy_look(int dir_fd, bw_copy *out);
/* bw_copy_replay: entries of the snapshot, then the journals' transactions in order (ops may be NULL). since: only the transactions
 * after that state, which must have been one of the history, else CORRUPT. */
bw_err bw_copy_replay(int dir_fd, const bw_copy *c, const bw_meta_state *since, bw_entry_fn entry, bw_journal_fn transaction, void *opaque);
/* bw_copy_drop: unlink all files of the copy but those of `keep` (a sequence; UINT64_MAX: none). Best effort. */
void bw_copy_drop(int dir_fd, uint64_t keep);
/* bw_copy_aside: rename all files of the copy out of the way; *first_aside names one. */
bw_err bw_copy_aside(int dir_fd, const bw_copy *c, char first_aside[64]);

#endif
