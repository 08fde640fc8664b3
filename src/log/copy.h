/* log/copy.h: a log that is filled with the batches of another one (a mirror), transactions and all. For the broker thread, as log/txn.h;
 * what syncs a file says so and is for other threads.
 *
 * A mirror has its origin's offsets, gaps, leader epochs and markers. So its own recovery raises no epoch (bw_partition_config.mirror), and
 * what it does not have yet is not lost but still to come. */
#ifndef BW_LOG_COPY_H
#define BW_LOG_COPY_H

#include "log/txn.h"

/* bw_txn_copy: bw_append_copy, and what the batches say of producers and transactions into `table` and the .txnindex, in the order of
 * log/txn.h: no committed reader sees what is not decided at the origin. table may be NULL when no batch has a producer id. */
bw_err bw_txn_copy(bw_partition *log, bw_appender *a, bw_producers *table, const bw_append_piece *pieces, size_t n,
                   const bw_append_span *span, int64_t now_ms, bw_deadline deadline, bw_append_result *out);

/* bw_partition_gaps_below: batches below it may skip offsets. */
int64_t bw_partition_gaps_below(const bw_partition *p);
/* bw_partition_allow_gaps: from now on they may below `upto` (and somewhat further, so that this is rare). Syncs. IO, DISK_FULL. */
bw_err bw_partition_allow_gaps(bw_partition *p, int64_t upto);
/* bw_partition_make_way: what comes next is a batch at `offset`, far behind the end, `from`. When it returns the log's end is near enough for it
 * (bw_append_copy), and offsets in the newest segment are near enough to its base for an index, if that can be: a segment that has records is
 * rolled, an empty one's end is moved. BUSY: not at this moment. IO, DISK_FULL, OUT_OF_ORDER_SEQUENCE (it does not end at `from`). */
bw_err bw_partition_make_way(bw_partition *p, int64_t from, int64_t offset);
/* bw_partition_is_far: must it be called for a batch whose last offset is `last`? Any thread. */
bool bw_partition_is_far(bw_partition *p, int64_t from, int64_t last);
/* bw_partition_copy_epoch: the origin began `epoch` at `offset`, the end of the log. Syncs. */
bw_err bw_partition_copy_epoch(bw_partition *p, int32_t epoch, int64_t offset);
/* bw_partition_set_mirror: recovery raises its epoch, or not. */
void bw_partition_set_mirror(bw_partition *p, bool mirror);

#endif
