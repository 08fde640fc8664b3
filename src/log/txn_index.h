/* log/txn_index.h: "<base>.txnindex", Kafka's list of aborted transactions of a segment: those whose abort marker lies in it.
 *
 *   entry, 34 bytes, big-endian: int16 version 0 · int64 producer id · int64 first offset · int64 last offset (of the marker) ·
 *   int64 last stable offset (when this one had been aborted: whatever lies below it was decided)          last offsets ascend
 *
 * The daemon appends; whoever reads committed records reads it. Entries are in the file, for all processes, before first_unstable
 * passes them. It is synced with the segment, before the producer state that covers the marker is stored; entries above that state are
 * made again from the log at each start. Every entry is bounds-checked; of a file that is odd nothing is believed: readers get CORRUPT, and the
 * next start makes it anew from the log. */
#ifndef BW_LOG_TXN_INDEX_H
#define BW_LOG_TXN_INDEX_H

#include "base/bytes.h"
#include "base/err.h"

#define BW_TXN_ENTRY_BYTES 34u
#define BW_TXN_INDEX_SUFFIX ".txnindex"

typedef struct bw_aborted {
    int64_t producer_id;
    int64_t first, last; /* offsets; last: of the marker */
    int64_t stable;      /* last stable offset behind it */
} bw_aborted;

void bw_aborted_put(uint8_t out[BW_TXN_ENTRY_BYTES], const bw_aborted *a);
/* bw_aborted_take: entry i of len bytes; `before` is the last offset of the entry before it, or base offset - 1. false: no entry, or an
 * odd one. */
bool bw_aborted_take(const uint8_t *data, size_t len, size_t i, int64_t before, bw_aborted *out);

/* bw_txn_index_read: the entries of one file from byte `from` (a multiple of 34) on, appended to *list (realloc'd). *end: behind the last
 * entry. NOT_FOUND: no file; CORRUPT: an entry is not sound, or does not fit `before`; IO, NO_MEMORY. */
typedef struct bw_aborted_list {
    bw_aborted *items;
    size_t count, cap;
} bw_aborted_list;
bw_err bw_txn_index_read(int dir_fd, int64_t base_offset, uint64_t from, int64_t before, bw_aborted_list *list, uint64_t *end);
void bw_aborted_list_free(bw_aborted_list *l);
bw_err bw_aborted_list_add(bw_aborted_list *l, const bw_aborted *a);
/* bw_txn_index_append: behind the sound entries of the file; it is made when it is missing (*created). Not synced. DISK_FULL, IO. */
bw_err bw_txn_index_append(int dir_fd, int64_t base_offset, const bw_aborted *entries, size_t n, bool *created);
/* bw_txn_index_restore: entries with last >= from give way to these, which replace them; nothing is written when they are the same. */
bw_err bw_txn_index_restore(int dir_fd, int64_t base_offset, int64_t from, const bw_aborted *entries, size_t n, bool *changed);
bw_err bw_txn_index_sync(int dir_fd, int64_t base_offset); /* a file that is gone is no error */

#endif
