/* busway/transaction.h: records to several partitions and topics, and a group's offsets, whole or not at all.
 *
 *     options.transactional_id = "billing-1";      the same at each start; two that run at once under one id fence each other
 *     bw_transactions_init(producer, -1);          ends what an earlier run of this id left, and fences it
 *     for (;;) {
 *         bw_transaction_begin(producer);
 *         bw_producer_send(producer, …);           any call that sends
 *         bw_transaction_send_offsets(…);          read, process, write: what was read goes with it
 *         bw_err e = bw_transaction_commit(producer, 10000);
 *         if (e) bw_transaction_abort(producer, 10000);   and again from where the group's offsets are
 *     }
 *
 * Readers with isolation committed see a transaction when it was committed, and nothing of one that was aborted.
 * What a commit means is the producer's acks: visible (default): decided in the page cache: whole or not at all whatever process dies at
 * whatever time; after a power cut it may be torn where a partition lost records. Durable: records, then decision are on the disk when
 * the call returns: whole or not at all after a power cut, too. (The sends in it are answered when they are visible, either way.)
 *
 * Errors, by Kafka's rules. A send that fails, or its callback, or the daemon's refusal of offsets: the transaction can only be aborted
 * (TRANSACTION_ABORTABLE, from every call but abort); after the abort the producer is as good as new. PRODUCER_FENCED from abort or
 * init: another producer uses this id: close this one. CONCURRENT_TRANSACTIONS never comes out: the library asks again.
 * The connection lost, or the daemon killed and restarted: calls go on within their time-outs; what was sent is sent again and is in the
 * log once; a commit whose answer was lost is asked again and has the same outcome.
 * A transaction of over transaction_timeout_ms is aborted by the daemon; the next call says TRANSACTION_ABORTABLE.
 *
 * Threads: one thread at a time for the calls below; others may send meanwhile, but not during commit and abort. */
#ifndef BUSWAY_TRANSACTION_H
#define BUSWAY_TRANSACTION_H

#include <busway/consumer.h>
#include <busway/producer.h>

#ifdef __cplusplus
extern "C" {
#endif

/* bw_transactions_init: once, before the first transaction. Waits until a transaction that an earlier run left has been ended.
 * INVALID_TXN_STATE: no transactional_id, or done already; INVALID_TRANSACTION_TIMEOUT; TIMED_OUT, NO_COORDINATOR: may be called again. */
BW_API bw_err bw_transactions_init(bw_producer *producer, int32_t timeout_ms);
/* bw_transaction_begin: local. INVALID_TXN_STATE: not initialised, or one is open. */
BW_API bw_err bw_transaction_begin(bw_producer *producer);
/* bw_transaction_send_offsets: offsets[i].offset (the next to be read) of each partition becomes the group's committed offset with the
 * commit. group: bw_consumer_group_metadata of the consumer that read; a member that was fenced cannot (FENCED_MEMBER_EPOCH,
 * UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, …). All of them are taken or none. After an error the transaction can only be aborted. */
BW_API bw_err bw_transaction_send_offsets(bw_producer *producer, const bw_group_metadata *group, const bw_topic_partition *offsets,
                                          size_t count, int32_t timeout_ms);
/* bw_transaction_commit: sends what is buffered, waits for every outcome, commits; runs delivery callbacks. OK: committed.
 * TRANSACTION_ABORTABLE (the message names the reason): abort. TIMED_OUT: call it again; abort is not possible until the outcome is known.
 * INVALID_TXN_STATE: none was begun. */
BW_API bw_err bw_transaction_commit(bw_producer *producer, int32_t timeout_ms);
/* bw_transaction_abort: what is buffered gets its callback with TRANSACTION_ABORTABLE, at the next poll. OK: nothing of it will be seen.
 * PRODUCER_FENCED; TIMED_OUT: call it again. INVALID_TXN_STATE. */
BW_API bw_err bw_transaction_abort(bw_producer *producer, int32_t timeout_ms);

/* bw_producer_last_sequence: of a producer with a name (direct or not): the last record in the partition's log that was sent under this
 * name, by this or an earlier run: its sequence number (each run of the name begins at 0; -1: there is none) and its offset (-1), so that a
 * program that was killed knows, by reading it, where it was. INVALID_ARGUMENT: no name; UNKNOWN_PRODUCER_ID: the name was never used. */
BW_API bw_err bw_producer_last_sequence(bw_producer *producer, const char *topic, int32_t partition, int32_t *sequence, int64_t *offset);

/* For people. JSON, freed with bw_free. list: array of {"id","state","producer_id","epoch","timeout_ms","age_ms" (-1: none is going on),
 * "changed_ms"}; describe: one of these with "partitions":[{"topic","partition"}] and "offsets":[{"group","topic","partition","offset"}].
 * States: Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort. */
BW_API bw_err bw_transactions_list(bw_bus *bus, char **json);
BW_API bw_err bw_transaction_describe(bw_bus *bus, const char *transactional_id, char **json);
/* bw_transaction_abort_admin: of any producer, which is told TRANSACTION_ABORTABLE. An administrator's. INVALID_TXN_STATE: none is going on;
 * TRANSACTIONAL_ID_NOT_FOUND, NOT_PERMITTED. */
BW_API bw_err bw_transaction_abort_admin(bw_bus *bus, const char *transactional_id);
/* bw_producers_describe: who wrote to a partition: array of {"producer_id","epoch","last_sequence","last_offset",
 * "transaction_start_offset" (-1: none is open),"silent_ms"}. */
BW_API bw_err bw_producers_describe(bw_bus *bus, const char *topic, int32_t partition, char **json);

#ifdef __cplusplus
}
#endif
#endif
