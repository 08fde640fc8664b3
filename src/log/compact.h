/* log/compact.h: cleanup.policy=compact: of each key only the last value stays. The coordinator's side; one pass at a time a partition.
 *
 * A pass (compact.c)
 *   1. range    Sealed segments below the first unstable offset, older than min.compaction.lag.ms, may be cleaned; never the active one.
 *               What lies behind the checkpoint ("first dirty offset") is dirty; a pass is due when dirty bytes are more than
 *               min.cleanable.dirty.ratio of all that may be cleaned, when the oldest dirty record is older than max.compaction.lag.ms, or
 *               when all tombstones of the last pass have passed their delete horizon.
 *   2. scan     Headers of the whole log: each producer's last batch, and which transactions were aborted (compact_scan.c).
 *   3. map      Dirty records, with their checksums: key -> last offset (offset_map.h). When the map is full, the pass ends there: `upto`.
 *   4. clean    From the log's start to `upto`, neighbours whose records together fit segment.bytes become one segment
 *               (compact_clean.c).
 *   5. swap     Each as soon as it is ready (compact_swap.c).
 *   6. checkpoint := upto. Lost or stale, it only means that records are looked at again.
 *
 * Which records stay: those at or above `upto`; those whose key has no later offset in the map; those without a key (refused when they are
 * produced; a direct writer's are kept). A tombstone (null value) stays until its batch's delete horizon, which the first pass that keeps
 * it sets to delete.retention.ms from then. Records of aborted transactions go. A marker goes when no batch of its transaction is left and
 * its horizon has passed. Of a batch without records the header stays where it is needed: the last batch of a producer that is still
 * active (its sequence is known from there), and the last batch of each segment: so every segment ends at the offset at which the next
 * begins, as before, and only batches inside a segment may skip offsets. Those lie below `gaps_below` (BW_GAPS_FILE), which is on the
 * disk, and in memory, before the first such segment can be seen. Readers hold the value that they last read of that file, and look again
 * when a gap is met above it: no plain read pays for it.
 *
 * The swap, killed anywhere (compact_swap.c): the new bytes are in "<base>.log.cleaned", with its seal in "<base>.seal.cleaned"; both are
 * read back, synced, and their names are on the disk. Then one rename decides: "<base>.seal.cleaned" -> "<base>.seal.swap". Before it, the
 * old segments are what there is; after it, whoever opens the partition next (start or takeover) finishes: checks that the cleaned file is
 * the one that the seal describes (length, root), puts it in the place of "<base>.log", and removes the other segments in
 * [base, next offset). If it is not, the seal.swap is dropped and everything else stays.
 *
 * Readers. The old files lose their names only; whoever has one mapped goes on in it to its end, and then looks for the segment that holds
 * the next offset: the one that begins there, or a merged one (its seal says how far it reaches). Order of the names, so that at each
 * moment any of them finds all offsets:   old seal gone -> new log in its place -> new indexes, new seal -> merged logs gone, the oldest first.
 * A reader that opens log and seal by name checks afterwards that the log's name still leads to what it has open; else it begins again.
 * Ring. Sealed segments that are still in the slot's ring are cleaned too. Before the swap, under the partition's shared lock, their
 * entry's inode becomes 0: from then on nobody opens that entry (no file has inode 0) but goes by name; and who has opened a file looks at
 * the entry again. Without that, an inode number that the file system gives out again could make the new file pass for the old one.
 * Sequence, base offset and final position stay: who has the old file mapped still learns from them where it ends.
 *
 * Others: retention and deletion of records do not touch files while a swap renames (`swapping`, under the mutex); look-ups by time and
 * header scans, which open files one after the other, hold `files_lock` shared, the swap exclusive. The cleaner reads without any lock: if
 * a segment of its group is gone when it comes to swap, its work is thrown away. Durability: cleaned data is synced before its rename; a
 * failed sync of it loses nothing but the pass.
 *
 * Cost: reading and writing goes through `go_on`, the caller's token bucket, which also stops the pass. Memory: the map (most: one and a
 * half times dedupe_bytes, while it grows), a producer table, and buffers for one batch, packed and plain. */
#ifndef BW_LOG_COMPACT_H
#define BW_LOG_COMPACT_H

#include "log/partition.h"

#define BW_CLEANER_CHECKPOINT_FILE "cleaner-offset-checkpoint" /* in the partition's folder, as bw_offset_file_write has it */

typedef struct bw_compact_options {
    double min_dirty_ratio;          /* min.cleanable.dirty.ratio */
    int64_t min_lag_ms;              /* min.compaction.lag.ms */
    int64_t max_lag_ms;              /* max.compaction.lag.ms; INT64_MAX: never */
    int64_t delete_retention_ms;     /* delete.retention.ms */
    int64_t producer_expiration_ms;  /* producers silent for longer need no batch */
    size_t dedupe_bytes;             /* log.cleaner.dedupe.buffer.size */
    int64_t now_ms;                  /* wall clock */
    size_t max_plain;                /* most bytes of one batch's decompressed records */
    bool force;                      /* although it is not due */
    /* Called after every 64 KiB or so that were read or written; may sleep. false: stop now. NULL: never. */
    bool (*go_on)(void *opaque, uint64_t bytes);
    void *opaque;
} bw_compact_options;

typedef struct bw_compact_report {
    bool due;                /* by the options, before the pass */
    double dirty_ratio;      /* before the pass */
    int64_t first_dirty;     /* before the pass */
    int64_t upto;            /* cleaned up to here */
    bool map_full;           /* there is more: call again */
    uint64_t keys;           /* in the map */
    uint64_t bytes_before, bytes_after, records_before, records_after;
    uint32_t segments_before, segments_after;
} bw_compact_report;

/* bw_partition_compact_options: what the topic says of them. false: it is not compacted. */
bool bw_partition_compact_options(bw_partition *p, bw_compact_options *options);
/* bw_partition_compact: a pass, if it is due. BW_OK: see the report. EMPTY: not due (due, ratio, first_dirty are set). WOKEN: go_on said
 * no. BUSY: segments were deleted meanwhile, or the partition's lock was not to be had: again later. DELETED. CORRUPT: a batch is broken;
 * nothing was changed behind it. DISK_FULL, IO, NO_MEMORY. One thread at a time. */
bw_err bw_partition_compact(bw_partition *p, const bw_compact_options *options, bw_compact_report *report);

#endif
