/* base/bias.h: passing a lock that is biased to one user, without an atomic read-modify-write and without a fence.
 *
 *   user                                    revoker (holds the lock that guards `word`)
 *   B1 store busy = 1                       B3 store word = id | BW_BIAS_REVOKED
 *      (compiler barrier only)              B4 membarrier(2) on all registered processes
 *   B2 load word: still mine? inside        B5 until busy == 0: wait; then word = 0
 *      not: busy = 0, take the lock
 *   … B6 store busy = 0 (release)
 *
 * B1/B2 and B3/B5 are a Dekker pair whose fence is paid by the revoker alone: B4 makes every running thread drain its stores (one
 * that is not running has done so), so that either the user sees B3 or the revoker sees B1. Busy is written by nobody but its user;
 * a user that was revoked may still pass through B1, busy = 0 at any later time, so that a `busy` must never have two users.
 * An id is never given twice for the same busy, and 0 is none. Model: tests/model. */
#ifndef BW_BASE_BIAS_H
#define BW_BASE_BIAS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define BW_BIAS_REVOKED (UINT64_C(1) << 63)

static inline bool bw_bias_enter(const _Atomic uint64_t *word, uint64_t id, _Atomic uint32_t *busy)
{
    atomic_store_explicit(busy, 1, memory_order_relaxed); /* B1 */
    atomic_signal_fence(memory_order_seq_cst);
    if (__builtin_expect(atomic_load_explicit(word, memory_order_relaxed) == id, 1)) return true; /* B2 */
    atomic_store_explicit(busy, 0, memory_order_release);
    return false;
}

static inline void bw_bias_leave(_Atomic uint32_t *busy) { atomic_store_explicit(busy, 0, memory_order_release); /* B6 */ }

#endif
