/* log/ranges.h: a partition's batches as a Merkle tree over ranges of offsets, so that two copies of a log find where they differ; and the
 * repair of what differs.
 *
 * A batch belongs to the range [from, upto) that its last offset lies in, so that it does not depend on where segments begin. Its *leaf* is
 *   quick   XXH3-64 of its first 21 bytes (base offset, length, leader epoch, magic, CRC-32C), as they are stored: the bytes behind them
 *           are not read; the same bytes that the root in a segment's .seal is made of (format/seal.c)
 *   whole   XXH3-64 of all its bytes, which are read and checked: a batch whose checksum fails is *damaged*
 * The range's hash is the root of the binary tree over its leaves in the order of offsets: node = XXH3-64 of left and right, little-endian
 * u64 each; an odd node is carried up; 0 for a range without batches. What is damaged has the leaf 0 and is counted.
 *
 * Files are read with descriptors of our own, without the partition's mutex; any thread. Where a batch's header can't be believed, the scan
 * goes on at the next one that can: behind the length it claims, or where the index says that a batch begins; what lies between is one
 * damaged item. Errors: NO_MEMORY, IO, POISONED. */
#ifndef BW_LOG_RANGES_H
#define BW_LOG_RANGES_H

#include "log/partition.h"

typedef struct bw_tree {
    uint64_t level[64]; /* as bw_merkle */
    uint64_t count;
} bw_tree;
void bw_tree_add(bw_tree *t, uint64_t leaf);
uint64_t bw_tree_root(const bw_tree *t);

typedef struct bw_range_hash {
    uint64_t hash, bytes;
    uint32_t batches, damaged;
} bw_range_hash;

typedef struct bw_range_batch {
    int64_t base_offset, next_offset;
    uint64_t hash;
    uint32_t bytes;
    bool damaged;
} bw_range_batch;

typedef struct bw_range_query {
    int64_t from, upto; /* 0 <= from < upto */
    int64_t step;       /* hashes: the range is looked at in parts of so many offsets each, the last one perhaps fewer; at least 1 */
    bool whole;         /* which leaf */
    uint64_t scan_max;  /* stop at the end of a part, or of a batch, when about so many bytes were looked at */
} bw_range_query;

static inline int64_t bw_range_parts(const bw_range_query *q) { return (q->upto - q->from - 1) / q->step + 1; }

/* bw_partition_range_hashes: out has room for all parts. Of the first *count parts; they end at *next, which is upto or the end of a part:
 * ask for the rest. *bytes: of the log that were looked at. */
bw_err bw_partition_range_hashes(bw_partition *p, const bw_range_query *q, bw_range_hash *out, uint32_t *count, int64_t *next, uint64_t *bytes);
/* bw_partition_range_batches: the range's batches, at most max; *next: as above. */
bw_err bw_partition_range_batches(bw_partition *p, const bw_range_query *q, bw_range_batch *out, uint32_t max, uint32_t *count, int64_t *next,
                                  uint64_t *bytes);

/* bw_partition_mend: `data`, whole and right batches of [from, upto), in the place of what lies there now, byte for byte; on the disk when it
 * returns. A seal that does not fit any more is made anew. Readers see either, or for a moment something in between that fails its checksum.
 * INVALID_ARGUMENT: data are not just these batches. LOGS_DIVERGED: what is there has another length, or begins or ends elsewhere. BUSY: the
 * files were changed meanwhile. */
bw_err bw_partition_mend(bw_partition *p, int64_t from, int64_t upto, const uint8_t *data, size_t len);

#endif
