/* log/txn.h: appends that belong to transactions. For the broker thread: one thread at a time for a partition, which owns the appender
 * and the broker's table of producers (log/producers.h).
 *
 * The order that keeps a committed reader from seeing what is not decided, and from missing what is (tests/model/txn.pml):
 *   begin   first_unstable := a lower bound of where the batch will be          bw_txn_begin
 *   publish the batch (bw_append…); note it in the table                        the broker
 *   settle  first_unstable := the first offset of all that are open, wake       bw_txn_settle
 *   ...
 *   end     publish the marker; abort: its entry in .txnindex, then slot.aborts += 1; only then settle     bw_txn_end
 * Readers load the tail first, then first_unstable, then aborts. Killed anywhere in between, first_unstable is too low at worst; the
 * takeover makes table, index and first_unstable from the log again.
 *
 * Who waits: settle wakes the classes TAIL and STATE when first_unstable rises, so a committed reader arms what it would arm anyway (TAIL
 * for visible, STATE for durable). */
#ifndef BW_LOG_TXN_H
#define BW_LOG_TXN_H

#include "log/append.h"
#include "log/partition.h"
#include "log/producers.h"

/* bw_txn_begin: before a batch with BW_ATTR_TRANSACTIONAL is appended (for several that are appended as one: for each): its producer has
 * an entry in the table from now on, so that noting it cannot fail, and first_unstable lies at or below where it will be. Cheap when the
 * producer's transaction is open already. NO_MEMORY. */
bw_err bw_txn_begin(bw_partition *log, bw_producers *table, int64_t producer_id, int64_t now_ms);
/* bw_txn_settle: after the append was noted, or failed: first_unstable is what the table says. */
void bw_txn_settle(bw_partition *log, const bw_producers *table);

/* bw_txn_end: append the markers as one (their producers' transactions in this partition are decided), note them in the table, index the
 * aborted ones, and settle. Each is checked first (bw_producers_check_marker); after an error nothing was appended, and the same call may
 * be made again. Errors as bw_append. *out: the first's offset, and an end: all are durable when slot.durable >= end (raise sync_request
 * and wait as for any append). A marker that is in the log but could not be indexed (DISK_FULL) keeps first_unstable where it is: the
 * call succeeds, and the index is tried again at each later one of the partition, and by bw_txn_tend.
 * n <= BW_TXN_MARKERS_MAX. */
#define BW_TXN_MARKERS_MAX 64u
bw_err bw_txn_end(bw_partition *log, bw_appender *a, bw_producers *table, const bw_marker *markers, size_t n, int64_t now_ms,
                  bw_deadline deadline, bw_append_result *out);
/* bw_txn_tend: true: nothing is left to be indexed. Now and then, while it says false. */
bool bw_txn_tend(bw_partition *log, const bw_producers *table);

#endif
