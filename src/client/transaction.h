/* client/transaction.h: a producer's transactions inside.
 *
 * Owned by the thread that makes the calls; what senders and the library's thread look at is atomic. phase OPEN: sends are taken.
 * failed: something of it has failed: it can only be aborted, by which the epoch is raised, so that nothing late can get in. */
#ifndef BW_CLIENT_TRANSACTION_H
#define BW_CLIENT_TRANSACTION_H

#include "client/producer.h"

typedef enum bw_ptxn_phase {
    BW_PTXN_NEW = 0,
    BW_PTXN_READY = 1,
    BW_PTXN_OPEN = 2,
    BW_PTXN_COMMITTING = 3, /* asked for, outcome not known */
    BW_PTXN_ABORTING = 4,
    BW_PTXN_FENCED = 5,
} bw_ptxn_phase;

struct bw_ptxn {
    char *id;
    int32_t timeout_ms;
    bool durable;
    _Atomic uint32_t phase;
    _Atomic bool failed;
    _Atomic bool used;      /* a batch was sent or offsets were */
    pthread_mutex_t lock;   /* of why */
    bw_err why_error;
    char why[400];
};

/* bw_ptxn_check_send: may a record be sent now? INVALID_TXN_STATE, TRANSACTION_ABORTABLE, PRODUCER_FENCED. */
bw_err bw_ptxn_check_send(bw_ptxn *t);
/* bw_ptxn_fail: a batch of it, or what else belongs to it, came to this. Any thread. */
void bw_ptxn_fail(bw_ptxn *t, bw_err e, const char *message);
/* bw_ptxn_now_in: a phase begins, without what failed before. */
void bw_ptxn_now_in(bw_ptxn *t, bw_ptxn_phase phase);
bw_err bw_ptxn_open(const bw_producer_options *o, bw_ptxn **out);
void bw_ptxn_free(bw_ptxn *t);

#endif
