/* base/lock.h: the robust, process-shared, error-checking mutex of a partition.
 *
 * A locked robust mutex must never be unmapped. Nobody steals it on time-out. After BW_LOCK_OWNER_DIED the caller holds it and
 * it has been made consistent: the caller must see to the repair (the repair_pending flag of the slot is set by the caller
 * before anything else). */
#ifndef BW_BASE_LOCK_H
#define BW_BASE_LOCK_H

#include "base/clock.h"

#include <pthread.h>

typedef enum bw_lock_result {
    BW_LOCK_OK = 0,
    BW_LOCK_OWNER_DIED = 1, /* held; repair */
    BW_LOCK_TIMED_OUT = 2,
    BW_LOCK_LOST = 3,      /* ENOTRECOVERABLE or nonsense in the memory */
    BW_LOCK_RECURSION = 4, /* this thread holds it already */
} bw_lock_result;

int bw_lock_init(pthread_mutex_t *m); /* 0 or errno */
/* bw_lock: the fast path is one compare-and-swap in user space. On OWNER_DIED it has NOT called pthread_mutex_consistent;
 * the caller first sets repair_pending, then calls bw_lock_make_consistent. */
bw_lock_result bw_lock(pthread_mutex_t *m, bw_deadline deadline);
void bw_lock_make_consistent(pthread_mutex_t *m);
void bw_unlock(pthread_mutex_t *m);

/* bw_cond_init: an ordinary condition variable whose timed waits go by CLOCK_MONOTONIC, as bw_deadline does. */
void bw_cond_init(pthread_cond_t *c);

#endif
