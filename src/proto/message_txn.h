/* proto/message_txn.h: what the requests of transactions carry; a part of bw_request (message.h).
 *
 * A transaction of a transactional id is begun by its first PRODUCE of a transactional batch, or by TXN_OFFSET_COMMIT; there is no
 * request for it. END_TXN may be sent behind the PRODUCEs without waiting for their answers, with `records`: how many the client has
 * put into the transaction. When that is not what the daemon counted (a batch was refused, or the daemon is a new one) the answer is
 * CONCURRENT_TRANSACTIONS and nothing was decided: the client learns the outcome of each batch, then asks with records -1. */
#ifndef BW_PROTO_MESSAGE_TXN_H
#define BW_PROTO_MESSAGE_TXN_H

typedef struct bw_txn_request {
    bw_str id;              /* all but DESCRIBE_PRODUCERS, PRODUCER_LAST: transactional.id */
    int32_t timeout_ms;     /* INIT_PRODUCER_ID */
    int64_t producer_id;    /* INIT_PRODUCER_ID: what it had, -1 none; TXN_OFFSET_COMMIT, END_TXN */
    int16_t producer_epoch; /* likewise */
    bool commit;            /* END_TXN */
    bool durable;           /* END_TXN: the records, then the decision, are on the disk when it is answered */
    int64_t records;        /* END_TXN: -1: each batch has its outcome already */
} bw_txn_request;

#endif
