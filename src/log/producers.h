/* log/producers.h: what is known of each producer id in one partition: its epoch, its last five batches, and its open transaction, so
 * that a resend gets its first offset, a gap is refused, and nobody who reads committed passes an undecided record. A pure table: no
 * I/O, no lock; whoever owns it takes care that one thread at a time has it.
 *
 * Two of them live for a partition. The *log's* (struct bw_partition, under its mutex) is fed by following the log: at any time exactly
 * the state of all batches below the offset that was followed, whoever wrote them. It is what snapshots, recovery and questions use
 * (partition.h). The *broker's* (broker thread) is a copy of it, kept up by the broker as it appends: what a batch is checked against.
 *
 * Rules (Kafka's): a batch that is one of the last five, same epoch: DUPLICATE. The sequence after the last: ACCEPT. Anything else:
 * OUT_OF_ORDER_SEQUENCE. A higher epoch must begin at sequence 0, also when the marker of a transaction brought it; a lower one is
 * INVALID_PRODUCER_EPOCH. A producer id that is not known: any sequence. A plain batch while its producer has a transaction open:
 * INVALID_TXN_STATE. Sequences run from 0 to INT32_MAX and wrap to 0.
 * A transaction of a producer in this partition: from its first transactional batch to the next marker with its id. */
#ifndef BW_LOG_PRODUCERS_H
#define BW_LOG_PRODUCERS_H

#include "base/bytes.h"
#include "base/err.h"
#include "format/control_batch.h"
#include "format/control_page.h"

#define BW_PRODUCER_BATCHES 5
#define BW_PRODUCERS_MAX 65536u /* of one partition; the one that was silent the longest and has no transaction open is forgotten */

typedef struct bw_producers bw_producers;

typedef struct bw_producer_batch {
    int32_t first, last; /* sequences */
    int64_t base_offset;
    int64_t timestamp;
    bw_position end; /* 0: older than this start: on the disk or not, it has a sync behind it */
} bw_producer_batch;

typedef enum bw_sequence { BW_SEQUENCE_ACCEPT = 0, BW_SEQUENCE_DUPLICATE = 1, BW_SEQUENCE_REFUSED = 2 } bw_sequence;

bw_producers *bw_producers_new(void);                       /* NULL: no memory */
bw_producers *bw_producers_copy(const bw_producers *p);     /* NULL: no memory */
void bw_producers_free(bw_producers *p);
/* bw_producers_check: *before is filled for DUPLICATE; *error, with the message, for REFUSED. */
bw_sequence bw_producers_check(const bw_producers *p, const bw_batch_header *h, bw_producer_batch *before, bw_err *error);
/* bw_producers_reserve: an entry for the id, so that the next note of it cannot fail. NO_MEMORY. */
bw_err bw_producers_reserve(bw_producers *p, int64_t producer_id, int64_t now_ms);
/* bw_producers_note: the batch (not a control batch) is in the log. With BW_ATTR_TRANSACTIONAL it begins the producer's transaction,
 * if none is open. NO_MEMORY: nothing was noted: for a plain batch that means that any sequence may come next; for a transactional one
 * reserve first. now_ms: any clock, the same for all calls on the table. */
bw_err bw_producers_note(bw_producers *p, const bw_batch_header *h, int64_t base_offset, int64_t timestamp, bw_position end, int64_t now_ms);
/* bw_producers_forget: who was silent since before_ms (the clock of note's now_ms); never one with an open transaction. */
void bw_producers_expire(bw_producers *p, int64_t before_ms);
size_t bw_producers_count(const bw_producers *p);
/* bw_producers_changes: raised by whatever changes the state. */
uint64_t bw_producers_changes(const bw_producers *p);

/* ---- transactions ---- */

/* bw_producers_check_marker: may this marker be written? INVALID_PRODUCER_EPOCH: of an older epoch of the producer; FENCED: of an older
 * epoch of the coordinator. One without an open transaction may be written: it changes nothing but epochs. */
bw_err bw_producers_check_marker(const bw_producers *p, const bw_marker *m);
/* bw_producers_note_marker: the marker is in the log at `offset`. true: it ended a transaction, whose first offset is *first. NO_MEMORY
 * is no trouble: then nothing was open. */
bool bw_producers_note_marker(bw_producers *p, const bw_marker *m, int64_t offset, int64_t now_ms, int64_t *first);
/* bw_producers_transaction: the first offset of the producer's open transaction; -1: none. */
int64_t bw_producers_transaction(const bw_producers *p, int64_t producer_id);
/* bw_producers_first_unstable: the first offset of all open transactions; INT64_MAX: none is open. */
int64_t bw_producers_first_unstable(const bw_producers *p);

typedef struct bw_producer_info {
    int64_t id;
    int16_t epoch;
    int32_t coordinator_epoch; /* of the newest marker; -1: none was seen */
    int32_t last_sequence;     /* -1: none in this epoch */
    int64_t last_offset;       /* of its newest batch or marker; -1 */
    int64_t transaction;       /* first offset of the open one; -1 */
    int64_t silent_ms;         /* since then, by the clock of now_ms */
} bw_producer_info;
/* bw_producers_get: false: not known. */
bool bw_producers_get(const bw_producers *p, int64_t producer_id, int64_t now_ms, bw_producer_info *out);
/* bw_producers_each: all, or only those with an open transaction (in order of its first offset); until fn says false. fn must not change
 * the table. */
typedef bool (*bw_producer_fn)(void *opaque, const bw_producer_info *info);
void bw_producers_each(const bw_producers *p, bool open_only, int64_t now_ms, bw_producer_fn fn, void *opaque);

/* ---- snapshots ---- */

/* Layout, big-endian: u8 version 1 · u64 offset up to which it holds · u32 count · count times { i64 id · i16 epoch · i32 coordinator
 * epoch · i64 first offset of the open transaction · i64 last offset · u64 silent for ms · u8 n <= 5 · n times { i32 first · i32 last ·
 * i64 base offset · i64 timestamp } }, the one that was silent the longest first. */
/* bw_producers_encode: appended to out. NO_MEMORY. */
bw_err bw_producers_encode(const bw_producers *p, int64_t offset, int64_t now_ms, bw_buf *out);
/* bw_producers_decode: bounded by len. CORRUPT; NEWER_FORMAT; NO_MEMORY. */
bw_err bw_producers_decode(const void *data, size_t len, int64_t now_ms, bw_producers **out, int64_t *offset);

/* bw_sequence_after: the sequence n after `first`, wrapping. */
static inline int32_t bw_sequence_after(int32_t first, int32_t n) { return (int32_t)(((uint32_t)first + (uint32_t)n) & 0x7fffffffu); }

#endif
