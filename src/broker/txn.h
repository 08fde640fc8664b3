/* broker/txn.h: the coordinator of transactions.
 *
 * A *transactional id* has a producer id, an epoch and at most one transaction (txn_state.h). What is decided about transactions is in a
 * log of its own, topic __transaction_state, one partition, written by the daemon alone, by the order of these steps:
 *   1  "added"     before the first transactional batch of a partition is appended (part of PRODUCE: no request of its own), and before
 *                  offsets are taken into the transaction
 *   2  "prepare"   the decision, with all partitions. From here on the transaction is committed, or aborted, whatever dies
 *   3  the offsets into the groups' committed offsets, in one transaction of the store with a note that they were; a marker in each
 *      partition (log/txn.h)
 *   4  "complete"  then the answer
 * All of it goes in batches: what came in one turn of the broker is one append a step, and one append of markers a partition.
 *
 * Visible transactions (END_TXN without `durable`): step 2 is in the page cache. The death of any process, at any point, ends it whole or
 * not at all: with the decision in the log a restarted daemon goes on with 3 (markers and offsets are there or not: it looks); without
 * it the transaction stays as it was, until its client goes on, its time is over, or its id is initialised anew.
 * Durable ones: all records are on the disk before 2, the decision is on the disk before 3. Whole or not at all after a power cut, too.
 * A visible one after a power cut: what was not decided on the disk is aborted. What was decided there is finished as it was decided, but
 * a partition that lost records of it has lost them: only then it is torn, which is what durable is for.
 * After a power cut markers may be missing of transactions that were complete. So the log is kept from the last checkpoint on before
 * which all markers are durable, and who opens a partition with an open transaction looks for its decision there: the first one of that
 * producer and partition whose end lies behind the transaction's first record. None: aborted.
 *
 * LMDB (table transactions): "id:<id>" the state of an id, "log" where the log's reading begins, "done:<id>" the decision whose
 * offsets were stored. Written when an id is initialised (epochs never go back; about 0.3 ms, shared), and as a checkpoint every
 * transaction.state.checkpoint.bytes of the log, after which the log before it is deleted.
 *
 * Zombies among readers: offsets are taken from, and committed for, a member that owns the partition, looked at when they come and when the
 * transaction is to be committed. From the decision on the group's committed offset is the new one. So a new owner need not wait for what
 * an old one has left open: either its commit was decided before, and the new owner begins behind it, or it never will be.
 *
 * The broker thread is never blocked: what must wait (a partition that is being opened, a lock, a full disk, a sync) is tried again when
 * that changes or after a few milliseconds; the client sees CONCURRENT_TRANSACTIONS at most.
 *
 * A transaction that is open for longer than its time-out is aborted and its producer fenced: the abort raises the epoch. So do an
 * administrator's abort, and INIT_PRODUCER_ID for an id whose transaction is going on. Broker thread only. */
#ifndef BW_BROKER_TXN_H
#define BW_BROKER_TXN_H

#include "broker/core.h"

#define BW_TXN_TOPIC "__transaction_state"

/* bw_txns_start: when the partitions are registered: reads the log if there is one. Until that is done: CONCURRENT_TRANSACTIONS. */
bw_err bw_txns_start(bw_broker *b);
/* bw_txns_stop: after the broker thread's end: what waits is let go unanswered. */
void bw_txns_stop(bw_broker *b);

/* bw_txn_check_request: may this request name that topic? The coordinator's log is read by administrators alone, and written by nobody. */
bw_err bw_txn_check_request(const bw_op *op);

/* For PRODUCE. bw_txn_admit: the batch is transactional: is its transaction going on, or can it begin? Its "added" is written by
 * bw_txn_flush, before the batch is appended. INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, INVALID_PRODUCER_EPOCH,
 * CONCURRENT_TRANSACTIONS, LIMIT_REACHED, NO_MEMORY. */
bw_err bw_txn_admit(bw_broker *b, bw_part *p, int64_t producer_id, int16_t epoch);
/* bw_txn_flush: what has to be in the log first, is. false: not now, with a message; it is tried again soon. */
bool bw_txn_flush(bw_broker *b);
bool bw_txn_unwritten(const bw_broker *b);
/* bw_txn_is_ending: a request to end its transaction is gathered. */
bool bw_txn_is_ending(const bw_broker *b, int64_t producer_id);
/* bw_txn_count: records of a transactional batch were appended. */
void bw_txn_count(bw_broker *b, int64_t producer_id, int32_t records);
/* bw_txn_gathered, bw_txn_end_gathered: requests to end that came in this turn; after the batches that came with them. */
bool bw_txn_gathered(const bw_broker *b);
void bw_txn_end_gathered(bw_broker *b);

/* bw_txn_serve: a partition's durable watermark moved, or it was opened. */
void bw_txn_serve(bw_broker *b, bw_part *p);
bool bw_txn_waiting(const bw_part *p);
/* bw_txn_part_opened: are its open transactions known? */
void bw_txn_part_opened(bw_broker *b, bw_part *p);

/* Requests. */
void bw_handle_init_producer(bw_broker *b, bw_op *op);
void bw_handle_txn_offset_commit(bw_broker *b, bw_op *op);
void bw_handle_end_txn(bw_broker *b, bw_op *op);
void bw_handle_list_transactions(bw_broker *b, bw_op *op);
void bw_handle_describe_transaction(bw_broker *b, bw_op *op);
void bw_handle_abort_transaction(bw_broker *b, bw_op *op);
void bw_handle_describe_producers(bw_broker *b, bw_op *op);
void bw_handle_producer_last(bw_broker *b, bw_op *op);

#endif
