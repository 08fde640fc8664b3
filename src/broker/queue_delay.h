/* broker/queue_delay.h: records that a queue group puts off until their time. Pure: no I/O, no clock.
 *
 * A record with a header `deliver-at` (busway/queue.h says how it is written) that is not due is *put off*: its (time, offset) goes into
 * the metadata, in one transaction with the state that says that the window has passed it, and the key orders them by time. So the disk
 * holds any number of them, and memory only the earliest: a heap of at most BW_DELAY_HEAP entries, which has all that come before
 * `horizon`; what lies behind is read when the heap runs low. A record of next year costs its entry in the metadata and nothing else. */
#ifndef BW_BROKER_QUEUE_DELAY_H
#define BW_BROKER_QUEUE_DELAY_H

#include "base/bytes.h"

#include <busway/record.h>

#define BW_DELAY_HEADER "deliver-at"
#define BW_DELAY_HEAP 8192u
#define BW_DELAY_FULL ((BW_DELAY_HEAP * 3) / 4) /* a refill stops here: what comes meanwhile finds room */

typedef struct bw_delay { int64_t due_ms, offset; uint16_t deliveries; uint8_t reason; /* bw_queue_reason: it was dying */ } bw_delay;

typedef struct bw_delays {
    bw_delay *heap; /* BW_DELAY_HEAP of them once it is used */
    uint32_t count;
    bw_delay horizon; /* everything stored that comes before it is in the heap, or was taken from it; due_ms INT64_MAX: everything is */
} bw_delays;

/* bw_deliver_at_parse: the header's value: 1 to 19 decimal digits, or 8 bytes big-endian, ms since the epoch. false: neither. */
bool bw_deliver_at_parse(const void *value, size_t len, int64_t *ms);
/* bw_deliver_at: of a record; the first such header counts. false: it has none, or one that is nothing (it is delivered at once). */
bool bw_deliver_at(const bw_record_view *record, int64_t *ms);

/* bw_delay_before: by time, then by offset: the order of the keys. */
static inline bool bw_delay_before(const bw_delay *a, const bw_delay *b)
{
    return a->due_ms != b->due_ms ? a->due_ms < b->due_ms : a->offset < b->offset;
}

/* all: nothing is stored, so the heap has everything; else it must be filled first. */
void bw_delays_init(bw_delays *d, bool all);
void bw_delays_fini(bw_delays *d);
/* bw_delays_add: one that is (to be) stored. Kept when it comes before the horizon; a full heap gives up its later half and lowers the
 * horizon. NO_MEMORY: neither. */
bw_err bw_delays_add(bw_delays *d, bw_delay item);
/* bw_delays_first: the earliest; NULL: the heap is empty. bw_delays_pop: it is taken. */
const bw_delay *bw_delays_first(const bw_delays *d);
void bw_delays_pop(bw_delays *d);
/* bw_delays_wants: there is more on the disk and little here. */
static inline bool bw_delays_wants(const bw_delays *d) { return d->horizon.due_ms != INT64_MAX && d->count < BW_DELAY_HEAP / 4; }
/* A refill: what is stored is walked in its order: begin, `offer` each until it says no, end. offer: what comes before the old horizon is
 * passed over; false: that is enough. */
void bw_delays_refill_begin(bw_delays *d, bw_delay *old_horizon);
bool bw_delays_refill_offer(bw_delays *d, const bw_delay *old_horizon, bw_delay item);

#endif
