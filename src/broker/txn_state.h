/* broker/txn_state.h: one transactional id as a state machine: what it may do next, and what each record of the coordinator's log makes
 * of it. Pure: no I/O, no clock, no threads; times come in as arguments.
 *
 *            first batch or offsets          END_TXN, time-out, new INIT        all markers and offsets are there
 *   EMPTY ------------------------> ONGOING ----------------------------> PREPARE_x ------------------------------> COMPLETE_x
 *     ^                                ^                                                                               |   |
 *     |                                +------------------------- first batch or offsets ------------------------------+   |
 *     +------------------------------------------ INIT_PRODUCER_ID raises the epoch ---------------------------------------+
 * DEAD: the id has expired; its entry goes.
 *
 * Every change but that of INIT is a record in the log, made first, and *applied*: the running coordinator and the one that reads the
 * log at its start go through the same function. INIT is stored in LMDB (epochs never go back), with the log's offset at that time:
 * records below it are in the stored state already.
 *
 * Layout of a record's value, big-endian; its key is the transactional id:
 *   u8 version 1 · u8 kind · i64 producer id · i16 epoch · i64 ms since 1970 · what the kind has:
 *     ADD       u32 n · n times { uuid 16 · u32 partition }
 *     OFFSETS   u32 n · n times { str group · str topic · uuid 16 · u32 partition · i64 offset · i32 epoch · str metadata ·
 *                               str member · str instance · i32 member epoch or generation }
 *     PREPARE   u8 flags (1 commit, 2 recoverable) · u32 n · n times { uuid 16 · u32 partition · i64 end offset }: the decision
 *     COMPLETE  u8 flags
 *   str: u16 length · bytes. A stored state: u8 version 1 · i64 producer id · i16 epoch · i16 epoch before · i32 time-out · u8 phase ·
 *   i64 began · i64 changed · i64 offset of the log · u64 serial · u32 n partitions as in PREPARE · u32 n offsets as in OFFSETS.
 * Decoding is bounded by the bytes that are there. */
#ifndef BW_BROKER_TXN_STATE_H
#define BW_BROKER_TXN_STATE_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/uuid.h"

#define BW_TXN_ID_MAX 249u
#define BW_TXN_PARTS_MAX 16384u  /* of one transaction */
#define BW_TXN_OFFSETS_MAX 4096u

typedef enum bw_txn_phase {
    BW_TXN_EMPTY = 0,
    BW_TXN_ONGOING = 1,
    BW_TXN_PREPARE_COMMIT = 2,
    BW_TXN_PREPARE_ABORT = 3,
    BW_TXN_COMPLETE_COMMIT = 4,
    BW_TXN_COMPLETE_ABORT = 5,
    BW_TXN_DEAD = 6,
} bw_txn_phase;

typedef struct bw_txn_part {
    bw_uuid topic;
    uint32_t partition;
    int64_t end; /* decided: the log's end at that time; before: -1 */
    bool marked; /* in memory only: its marker is in the log, or it needs none */
} bw_txn_part;

typedef struct bw_txn_offset {
    char *group, *topic, *metadata; /* malloc'd in a state; never NULL */
    char *member, *instance;        /* who read: must still own the partition when the transaction is committed */
    int32_t member_epoch;
    bw_uuid topic_id;
    uint32_t partition;
    int64_t offset;
    int32_t leader_epoch;
} bw_txn_offset;

typedef struct bw_txn_state {
    int64_t producer_id;
    int16_t epoch, epoch_before; /* before: the one whose producer may go on with the present one, if it asks; -1: nobody's */
    int32_t timeout_ms;
    bw_txn_phase phase;
    int64_t began_ms, changed_ms; /* wall */
    int64_t log_offset;           /* records below it are in here */
    uint64_t serial;              /* of the transaction: counts them */
    bw_txn_part *parts;
    uint32_t part_count, part_cap;
    bw_txn_offset *offsets;
    uint32_t offset_count, offset_cap;
} bw_txn_state;

static inline bool bw_txn_is_prepared(const bw_txn_state *s) { return s->phase == BW_TXN_PREPARE_COMMIT || s->phase == BW_TXN_PREPARE_ABORT; }
const char *bw_txn_phase_name(bw_txn_phase phase); /* Kafka's: "Ongoing", "PrepareCommit" */

void bw_txn_state_fini(bw_txn_state *s);

/* ---- what may be done ---- id is for messages ---- */

typedef enum bw_txn_init {
    BW_TXN_INIT_RAISE = 0,       /* raise the epoch, store, answer */
    BW_TXN_INIT_REPEAT = 1,      /* was done already: answer with the present epoch */
    BW_TXN_INIT_ABORT_FIRST = 2, /* a transaction is going on: abort it with a raised epoch, then again */
    BW_TXN_INIT_REFUSED = 3,     /* *e; CONCURRENT_TRANSACTIONS: later */
} bw_txn_init;
/* bw_txn_state_init: producer_id -1: a new instance; else that one wants its epoch raised. */
bw_txn_init bw_txn_state_init(const bw_txn_state *s, const char *id, int64_t producer_id, int16_t epoch, bw_err *e);
/* bw_txn_state_raise: what RAISE does. The epochs are used up: false; give it another producer id and epoch 0. */
bool bw_txn_state_raise(bw_txn_state *s, int16_t asked_epoch);

/* bw_txn_state_check: is it the producer's? INVALID_PRODUCER_ID_MAPPING, PRODUCER_FENCED, INVALID_PRODUCER_EPOCH. */
bw_err bw_txn_state_check(const bw_txn_state *s, const char *id, int64_t producer_id, int16_t epoch);
/* bw_txn_state_may_write: a batch, or offsets. As above; CONCURRENT_TRANSACTIONS. */
bw_err bw_txn_state_may_write(const bw_txn_state *s, const char *id, int64_t producer_id, int16_t epoch);

typedef enum bw_txn_end { BW_TXN_END_DECIDE = 0, BW_TXN_END_REPEAT = 1, BW_TXN_END_REFUSED = 2 } bw_txn_end_outcome;
/* bw_txn_state_end: early: the client has not waited for its batches' answers, so that an end from before cannot be meant. */
bw_txn_end_outcome bw_txn_state_end(const bw_txn_state *s, const char *id, int64_t producer_id, int16_t epoch, bool commit, bool early, bw_err *e);

/* ---- records ---- */

typedef enum bw_txn_kind { BW_TXN_ADD = 1, BW_TXN_OFFSETS = 2, BW_TXN_PREPARE = 3, BW_TXN_COMPLETE = 4 } bw_txn_kind;

typedef struct bw_txn_record {
    bw_txn_kind kind;
    int64_t producer_id;
    int16_t epoch;
    int64_t at_ms;
    bool commit;
    bool recoverable; /* PREPARE with a raised epoch: who had the one before may have this one */
    bw_txn_part *parts;
    uint32_t part_count;
    bw_txn_offset *offsets;
    uint32_t offset_count;
} bw_txn_record;

/* bw_txn_apply: NO_MEMORY: the state is as before. LIMIT_REACHED: too many partitions or offsets. */
bw_err bw_txn_apply(bw_txn_state *s, const bw_txn_record *r);
bool bw_txn_has_part(const bw_txn_state *s, const bw_uuid *topic, uint32_t partition);

/* Appended to out. NO_MEMORY. */
bw_err bw_txn_record_encode(const bw_txn_record *r, bw_buf *out);
/* CORRUPT, NEWER_FORMAT, NO_MEMORY. The record owns its lists: bw_txn_record_fini, also after an error. */
bw_err bw_txn_record_decode(const void *data, size_t len, bw_txn_record *out);
void bw_txn_record_fini(bw_txn_record *r);
bw_err bw_txn_state_encode(const bw_txn_state *s, bw_buf *out);
bw_err bw_txn_state_decode(const void *data, size_t len, bw_txn_state *out);

#endif
