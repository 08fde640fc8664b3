/* log/owners.h: partition locks that are biased to the one appender that uses them, and the proof that its thread lives.
 *
 * A robust mutex costs an append four locked instructions, each of which waits until the stores before it (the tail, on a line that
 * a polling reader holds) have reached the cache. A partition that one appender has had for itself for a while is therefore *biased*
 * to it: slot.bias names the appender's bias record, and the appender passes by base/bias.h. Everybody else takes the mutex and
 * revokes the bias before touching anything; an appender that lost it goes back to the mutex.
 *
 * Death. The slot's mutex tells nobody when a biased appender is killed inside. So a thread that gets a bias holds the robust mutex
 * of an owner record from then on: whoever can lock that one knows that the thread has ended, and that it runs no more. (A thread
 * beside it could not prove that: of a process that is killed, it may be gone while the other still stores.) Then the bias record's
 * busy word says whether it died inside, and REPAIR does what it does for the mutex. A false "died inside" is harmless: REPAIR is
 * idempotent.
 *
 * A slot may stay biased to one that has died outside, or closed, after its bias record was given to somebody else, who is in another
 * slot. So an id names the record and the how manieth use of it (record.given): an id that is not the record's present one is of somebody
 * who is not inside, and the record tells, and is told, nothing about that slot any more. */
#ifndef BW_LOG_OWNERS_H
#define BW_LOG_OWNERS_H

#include "base/bias.h"
#include "base/clock.h"
#include "log/control.h"

/* The owner records of this process's threads in one generation. Any thread. */
typedef struct bw_owners bw_owners;

/* bw_owners_open: UNSUPPORTED where locks are not biased (no membarrier). The mail outlives it. */
bw_err bw_owners_open(bw_mail *mail, bw_owners **out);
/* bw_owners_close: no appender uses it any more. A thread that still runs keeps its record, which only it could unlock: the file
 * then stays mapped (80 KiB) until the process ends. */
void bw_owners_close(bw_owners *o);

/* One appender's bias; to be used by the thread that got it. */
typedef struct bw_bias {
    bw_bias_record *record; /* NULL: none */
    uintptr_t thread;       /* pthread_self() of who got it */
    uint64_t id;            /* what slot.bias is while it holds; 0: never had it */
} bw_bias;

/* bw_bias_give: under the slot's mutex, with slot.bias 0: bias it to this appender and thread from now on. false: no record is free. */
bool bw_bias_give(bw_tail_slot *s, bw_owners *o, bw_bias *b);
/* bw_bias_drop: the appender closes; it is not inside. */
void bw_bias_drop(bw_tail_slot *s, bw_bias *b);

typedef enum bw_revoked { BW_REVOKED = 0, BW_REVOKED_DEAD, BW_REVOKE_TIMED_OUT } bw_revoked;
/* bw_bias_revoke: under the slot's mutex, with slot.bias not 0: afterwards nobody is inside. DEAD: its owner died inside; the caller
 * notes that a repair is due and then calls bw_bias_bury. TIMED_OUT: it is inside and lives (stopped?); *pid is its process. */
bw_revoked bw_bias_revoke(bw_tail_slot *s, bw_mail *mail, bw_deadline deadline, uint32_t *pid);
void bw_bias_bury(bw_tail_slot *s, bw_mail *mail);

#endif
