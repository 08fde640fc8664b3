/* broker/produce_internal.h: one PRODUCE on its way; shared by produce*.c only. */
#ifndef BW_BROKER_PRODUCE_INTERNAL_H
#define BW_BROKER_PRODUCE_INTERNAL_H

#include "broker/core.h"

#include <busway/producer.h>

#define BW_PRODUCE_PATIENCE_NS 500000 /* of an append: what a contended lock can cost */

struct bw_produce {
    bw_op *op;
    bw_part *part;
    bw_batch_header header;
    uint8_t *owned; /* the batch when it was changed on its way; else it lies in the request */
    const uint8_t *batch;
    size_t len;
    int64_t timestamp; /* as stored: the append time, or -1 */
    int8_t acks;
    bw_deadline deadline;
    bw_timer timer; /* durable, replicated: the answer is due */
    int64_t base_offset;
    bw_position end;
    bw_produce *next;
};

typedef enum bw_produce_outcome { BW_PRODUCE_FINISHED, BW_PRODUCE_PARK } bw_produce_outcome;

static inline bool bw_produce_is_transactional(const bw_produce *pr) { return pr->header.attributes & BW_ATTR_TRANSACTIONAL; }

/* produce_try.c */
/* bw_produce_answer: and free it. */
void bw_produce_answer(bw_broker *b, bw_produce *pr, bw_err e);
/* bw_produce_try: alone. PARK: not now. */
bw_produce_outcome bw_produce_try(bw_broker *b, bw_produce *pr);
void bw_produce_park(bw_broker *b, bw_produce *pr);
/* bw_produce_appended: it is in the log: note, answer, or wait for the disk or the peers. */
void bw_produce_appended(bw_broker *b, bw_produce *pr);
/* bw_produce_before_append: what waits for this append is served in this turn: no need to be woken for it. */
void bw_produce_before_append(bw_broker *b, bw_part *p);

#endif
