/* broker/queue_state.h: what a queue group knows of one partition: which records are settled, who holds which. Pure: no I/O, no clock.
 *
 *            start                                   end
 *   settled  | window: an entry a record               | not looked at yet
 *
 * Everything below `start` is settled. An entry is AVAILABLE, ACQUIRED (by a member until its lease ends), DYING (on its way to the
 * dead-letter topic) or SETTLED; those at the window's lower end are settled at once by raising `start`. Beside the window are *late*
 * records: delayed ones that have become due (queue_delay.h). Their window entry was settled when they were put off, so that a record
 * for next year holds nothing up.
 * Invariants, which the unit test walks at random beside an oracle: a record has at most one holder; SETTLED is never left; each
 * acquisition raises `deliveries`, except one that is returned; nothing with `max` deliveries becomes AVAILABLE again.
 *
 * Persisted (queue_codec.c) are start, end and the window by runs. What was acquired is available again when it is read back, with its
 * deliveries; leases and holders are not kept. */
#ifndef BW_BROKER_QUEUE_STATE_H
#define BW_BROKER_QUEUE_STATE_H

#include "base/bytes.h"
#include "proto/message.h"

#define BW_QUEUE_SPAN_MAX 65536u /* records between start and end */

typedef enum bw_queue_mark { BW_QUEUE_AVAILABLE = 0, BW_QUEUE_ACQUIRED = 1, BW_QUEUE_DYING = 2, BW_QUEUE_SETTLED = 3 } bw_queue_mark;
/* Why a record dies. */
typedef enum bw_queue_reason { BW_QUEUE_NO_REASON = 0, BW_QUEUE_WORN_OUT = 1 /* max deliveries */, BW_QUEUE_REJECTED = 2 } bw_queue_reason;

typedef struct bw_queue_entry {
    int64_t lease_ns; /* while ACQUIRED: its end */
    uint32_t member;
    uint16_t deliveries;
    uint8_t mark;
    uint8_t reason : 4, taken : 1, changed : 1; /* taken: somebody is burying it; changed: late, and what is new of it is not stored */
} bw_queue_entry;

typedef struct bw_queue_late {
    int64_t offset, due_ms;
    bw_queue_entry entry;
} bw_queue_late;

/* A late record that was settled: what was stored of it is to be removed. */
typedef struct bw_queue_gone { int64_t due_ms, offset; } bw_queue_gone;

typedef struct bw_queue_state {
    int64_t start, end;
    uint32_t leader_epoch; /* of the log when it was stored: what recovery cut since then is found by it */
    bw_queue_entry *ring; /* of offset o: ring[o & (cap - 1)] */
    uint32_t cap;         /* 0, or a power of two */
    int64_t available_from; /* no AVAILABLE in the window below */
    bw_queue_late *late;  /* ascending offsets */
    uint32_t late_count, late_cap, late_from; /* from: no AVAILABLE among those before it */
    bw_queue_gone *gone;
    uint32_t gone_count, gone_cap;
    uint32_t available, acquired, dying, untaken; /* window and late together; untaken: dying, and nobody buries it yet */
    uint64_t acknowledged, archived, released, expired, lost /* to retention */; /* since it was made or read back */
} bw_queue_state;

void bw_queue_state_init(bw_queue_state *s, int64_t start);
void bw_queue_state_fini(bw_queue_state *s);

/* bw_queue_state_skip: what is not looked at yet below `upto` is not there (gaps, retention), or not wanted. LIMIT_REACHED: the window is
 * full; NO_MEMORY. Nothing then. */
bw_err bw_queue_state_skip(bw_queue_state *s, int64_t upto);
/* bw_queue_state_admit: the record at offset >= end, and no other in between, is AVAILABLE. Errors as above. */
bw_err bw_queue_state_admit(bw_queue_state *s, int64_t offset);
/* bw_queue_state_admit_late: a delayed record is due; reason: it was dying when it was stored, and goes on with that. NO_MEMORY;
 * INVALID_ARGUMENT: it is there already. */
bw_err bw_queue_state_admit_late(bw_queue_state *s, int64_t offset, int64_t due_ms, uint16_t deliveries, uint8_t reason);
/* bw_queue_state_trim: the log begins at log_start: what is AVAILABLE below is lost. bw_queue_state_cut: the log ends at `end`: what lies
 * behind never was. */
void bw_queue_state_trim(bw_queue_state *s, int64_t log_start);
void bw_queue_state_cut(bw_queue_state *s, int64_t end);

/* bw_queue_state_find: NULL: not in the window and not late. *late may be NULL. */
bw_queue_entry *bw_queue_state_find(const bw_queue_state *s, int64_t offset, bool *late);
/* bw_queue_state_next: the lowest AVAILABLE record, late ones first. false: there is none. */
bool bw_queue_state_next(bw_queue_state *s, int64_t *offset, const bw_queue_entry **entry);
/* bw_queue_state_acquire: AVAILABLE, to a member. false: it is not AVAILABLE. With max deliveries behind it, it dies instead. */
bool bw_queue_state_acquire(bw_queue_state *s, int64_t offset, uint32_t member, int64_t lease_ns, uint16_t max);
/* bw_queue_state_lose: it is not in the log any more. */
void bw_queue_state_lose(bw_queue_state *s, int64_t offset);

/* bw_queue_state_ack: what a member says of a record. archive: rejected and worn out ones are settled, not dying. false: not its to say.
 * member 0: by hand, whoever has it, if it is not settled. lease_ns: of RENEW. */
typedef struct bw_queue_rules { uint16_t max_deliveries; bool archive; } bw_queue_rules;
bool bw_queue_state_ack(bw_queue_state *s, int64_t offset, uint32_t member, bw_queue_verb verb, int64_t lease_ns, bw_queue_rules rules);
/* bw_queue_state_drop: a member is gone. How many records it held. */
uint32_t bw_queue_state_drop(bw_queue_state *s, uint32_t member, bw_queue_rules rules);
/* bw_queue_state_expire: leases that ended. *next: the earliest end that is left, INT64_MAX. How many. */
uint32_t bw_queue_state_expire(bw_queue_state *s, int64_t now_ns, bw_queue_rules rules, int64_t *next);

/* bw_queue_state_dying: the lowest DYING record that is not taken; the caller sets entry->taken and lowers `untaken` by bw_queue_state_take.
 * bw_queue_state_bury: it is in the dead-letter topic: settled. bw_queue_state_untake: not yet, try again. */
bool bw_queue_state_dying(const bw_queue_state *s, int64_t from, int64_t *offset, const bw_queue_entry **entry);
void bw_queue_state_take(bw_queue_state *s, int64_t offset);
void bw_queue_state_bury(bw_queue_state *s, int64_t offset);
void bw_queue_state_untake(bw_queue_state *s, int64_t offset);

/* queue_codec.c: byte layout there. `put_off`: how many delayed records are stored beside it. Decoding is bounded: CORRUPT. */
bw_err bw_queue_state_encode(const bw_queue_state *s, uint64_t put_off, bw_buf *out);
bw_err bw_queue_state_decode(const void *data, size_t len, bw_queue_state *out, uint64_t *put_off);

#endif
