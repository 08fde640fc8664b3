/* broker/txn_internal.h: the coordinator inside: shared by txn*.c only. */
#ifndef BW_BROKER_TXN_INTERNAL_H
#define BW_BROKER_TXN_INTERNAL_H

#include "broker/committer.h"
#include "broker/offsets.h"
#include "broker/txn.h"
#include "broker/txn_state.h"
#include "format/record_batch.h"

enum {
    BW_TXN_RETRY_MS = 5,
    BW_TXN_IDS_MAX = 65536,
};

/* How far the end of a transaction has come; it is in the list `ending` from SYNC on. */
typedef enum bw_txn_stage {
    BW_TXN_STAGE_NONE = 0,
    BW_TXN_STAGE_SYNC = 1,     /* until all partitions are open and, durable, on the disk */
    BW_TXN_STAGE_WRITE = 2,    /* the decision is in the buffer */
    BW_TXN_STAGE_DECIDED = 3,  /* durable: until the decision is on the disk */
    BW_TXN_STAGE_OFFSETS = 4,  /* are put; others see them from here on */
    BW_TXN_STAGE_MARK = 5,
    BW_TXN_STAGE_STORING = 6,  /* until the offsets are on the disk */
    BW_TXN_STAGE_COMPLETE = 7,
    BW_TXN_STAGE_WRITTEN = 8,  /* "complete" is in the buffer */
} bw_txn_stage;

/* What an end does to the epoch: FENCE: raised, and who had it is out; RECOVER: raised, and who had it may have the new one. */
typedef enum bw_txn_raise { BW_TXN_KEEP = 0, BW_TXN_FENCE = 1, BW_TXN_RECOVER = 2 } bw_txn_raise;

typedef struct bw_txn {
    bw_txn_state state;
    char id[BW_TXN_ID_MAX + 1];
    bw_timer timer;       /* of the transaction that is going on */
    int64_t records;      /* appended in it by this daemon */
    bool dirty;           /* changed since the last checkpoint */
    bool gathered;        /* an END_TXN of it is */
    bool storing;         /* INIT is on its way to the disk */
    bool not_hashed;
    bw_txn_stage stage;
    bool commit, durable; /* of the end */
    bw_txn_raise raise;
    bw_op *op;            /* waits for the end */
    bw_position *needs;   /* SYNC, durable: the tails that must be on the disk, as state.parts */
    bw_position decided_at;
    bool offsets_done;    /* its offsets were stored before this start */
    struct bw_txn *next_ending;
    bw_offsets_wait stored;
    bool storing_offsets;
    bw_broker *broker;
    UT_hash_handle by_id, by_producer;
} bw_txn;

/* A decision of the log that is kept: for partitions whose marker may have been lost. */
typedef struct bw_txn_decision {
    int64_t producer_id;
    bw_uuid topic;
    uint32_t partition;
    int64_t end;
    bool commit;
} bw_txn_decision;

typedef struct bw_txn_mark {
    bw_part *part;
    bw_txn *txn;
    uint32_t index; /* of the partition in it */
} bw_txn_mark;

typedef struct bw_txn_touched {
    bw_uuid topic;
    uint32_t partition;
    bw_position end; /* of the newest marker; 0: not known, its tail when it is open */
} bw_txn_touched;

struct bw_txns {
    bool ready, loading;
    char why[256];       /* not ready and not loading: why */
    bw_txn *by_id, *by_producer;
    bw_part *log;        /* the partition of the log; NULL: not made yet */
    bw_batch_builder buffer; /* records that are applied and not in the log yet */
    bw_buf scratch;
    bw_position log_end;
    int64_t log_next;    /* offset of the next record */
    uint64_t log_bytes;  /* since the last checkpoint */
    bw_op *gathered, *gathered_last; /* END_TXN */
    bw_txn *ending;
    bool running;        /* bw_txn_run is at it */
    bw_timer retry, load_timer;
    bw_txn_mark *marks;
    size_t marks_cap;
    bw_txn_decision *decisions;
    size_t decision_count, decision_cap;
    bw_txn_touched *touched; /* since the last checkpoint began */
    size_t touched_count, touched_cap;
    /* a checkpoint under way */
    bool checkpointing, checkpoint_stored;
    int64_t checkpoint_offset;
    bw_txn_touched *awaited;
    size_t awaited_count;
    uint64_t commits, aborts, timeouts; /* for status */
};

/* txn.c */
bw_txn *bw_txn_find(const bw_txns *x, bw_str id);
bw_txn *bw_txn_by_producer(const bw_txns *x, int64_t producer_id);
/* bw_txn_new: without a producer id yet. NO_MEMORY, LIMIT_REACHED. */
bw_err bw_txn_new(bw_broker *b, bw_str id, bw_txn **out);
void bw_txn_index_producer(bw_txns *x, bw_txn *t);
void bw_txn_free(bw_broker *b, bw_txn *t);
void bw_txn_arm_timeout(bw_broker *b, bw_txn *t);
/* bw_txns_need: the coordinator can work; makes its log at the first call. CONCURRENT_TRANSACTIONS, and what making a topic may fail with. */
bw_err bw_txns_need(bw_broker *b);
/* bw_txn_topic_part: NULL: it is gone. */
bw_part *bw_txn_topic_part(bw_broker *b, const bw_uuid *topic, uint32_t partition);

/* txn_end.c */
/* bw_txn_begin_end: the transaction is to end so; op (may be NULL) is answered when it has. */
void bw_txn_begin_end(bw_broker *b, bw_txn *t, bool commit, bool durable, bw_txn_raise raise, bw_op *op);
/* bw_txn_run: as far as it goes now. */
void bw_txn_run(bw_broker *b);
/* bw_txn_resume: a decision that was found in the log at the start. */
void bw_txn_resume(bw_broker *b, bw_txn *t);
/* bw_txn_ended: txn.c: what has been waiting for it. */
void bw_txn_ended(bw_broker *b, bw_txn *t, bw_op *op);

/* txn_log.c */
/* bw_txn_put: apply a record and put it into the buffer. An error: nothing was changed. */
bw_err bw_txn_put(bw_broker *b, bw_txn *t, const bw_txn_record *r);
void bw_txn_retry_later(bw_broker *b);
void bw_txn_checkpoint_look(bw_broker *b);
void bw_txn_touch(bw_txns *x, const bw_part *p, bw_position end);
bw_err bw_txn_store_put(bw_commit *c, const bw_txn *t);
enum { BW_TXN_KEY_MAX = BW_TXN_ID_MAX + 8 };
size_t bw_txn_key(char out[BW_TXN_KEY_MAX], const char *what, const char *id);

/* txn_load.c */
void bw_txn_load(bw_broker *b);
/* bw_txn_reconcile: end the partition's open transactions of which the coordinator knows nothing. */
void bw_txn_reconcile(bw_broker *b, bw_part *p);

#endif
