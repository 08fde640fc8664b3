/* broker/producers.h: what the daemon knows of each producer id in one partition: its epoch and its last five batches, so that a
 * resend gets its first offset and a gap is refused. Broker thread only, but for a table that is being filled from the log.
 *
 * Rules (Kafka's): a batch that is one of the last five, same epoch: DUPLICATE. The sequence after the last: ACCEPT. Anything else:
 * OUT_OF_ORDER_SEQUENCE. A higher epoch must begin at sequence 0; a lower one is INVALID_PRODUCER_EPOCH. A producer id that is not
 * known: any sequence. Sequences run from 0 to INT32_MAX and wrap to 0. */
#ifndef BW_BROKER_PRODUCERS_H
#define BW_BROKER_PRODUCERS_H

#include "base/err.h"
#include "format/control_page.h"
#include "format/record_batch.h"

#define BW_PRODUCER_BATCHES 5
#define BW_PRODUCERS_MAX 65536u /* of one partition; the one that was silent the longest is forgotten */

typedef struct bw_producers bw_producers;

typedef struct bw_producer_batch {
    int32_t first, last; /* sequences */
    int64_t base_offset;
    int64_t timestamp;
    bw_position end; /* 0: older than this start: on the disk or not, it has a sync behind it */
} bw_producer_batch;

typedef enum bw_sequence { BW_SEQUENCE_ACCEPT = 0, BW_SEQUENCE_DUPLICATE = 1, BW_SEQUENCE_REFUSED = 2 } bw_sequence;

bw_producers *bw_producers_new(void); /* NULL: no memory */
void bw_producers_free(bw_producers *p);
/* bw_producers_check: *before is filled for DUPLICATE; *error, with the message, for REFUSED. */
bw_sequence bw_producers_check(const bw_producers *p, const bw_batch_header *h, bw_producer_batch *before, bw_err *error);
/* bw_producers_note: the batch is in the log. Never fails outright: without memory the producer is forgotten (any sequence). */
void bw_producers_note(bw_producers *p, const bw_batch_header *h, int64_t base_offset, int64_t timestamp, bw_position end, int64_t now_ms);
/* bw_producers_expire: forget who was silent since before_ms (the clock of note's now_ms). */
void bw_producers_expire(bw_producers *p, int64_t before_ms);
size_t bw_producers_count(const bw_producers *p);

/* bw_sequence_after: the sequence n after `first`, wrapping. */
static inline int32_t bw_sequence_after(int32_t first, int32_t n) { return (int32_t)(((uint32_t)first + (uint32_t)n) & 0x7fffffffu); }

#endif
