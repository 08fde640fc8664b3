/* base/lock.c: robust process-shared mutexes. */
#include "base/lock.h"

#include <errno.h>
#include <time.h>

int bw_lock_init(pthread_mutex_t *m)
{
    pthread_mutexattr_t a;
    int e = pthread_mutexattr_init(&a);
    if (e) return e;
    e = pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    if (!e) e = pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    if (!e) e = pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
    if (!e) e = pthread_mutex_init(m, &a);
    pthread_mutexattr_destroy(&a);
    return e;
}

static bw_lock_result result_of(int e)
{
    switch (e) {
    case 0:
        return BW_LOCK_OK;
    case EOWNERDEAD:
        return BW_LOCK_OWNER_DIED;
    case EDEADLK:
        return BW_LOCK_RECURSION;
    case ETIMEDOUT:
    case EBUSY:
        return BW_LOCK_TIMED_OUT;
    default:
        return BW_LOCK_LOST;
    }
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BW_LOCK_BY_WALL_CLOCK 1
#endif
#endif

static int lock_until(pthread_mutex_t *m, bw_deadline deadline)
{
#ifdef BW_LOCK_BY_WALL_CLOCK /* ThreadSanitizer does not know pthread_mutex_clocklock and would see no lock taken */
    int64_t ns = bw_deadline_left_ns(deadline);
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    ns += at.tv_nsec;
    at.tv_sec += ns / 1000000000;
    at.tv_nsec = ns % 1000000000;
    return pthread_mutex_timedlock(m, &at);
#else
    struct timespec at = {.tv_sec = deadline / 1000000000, .tv_nsec = deadline % 1000000000};
    return pthread_mutex_clocklock(m, CLOCK_MONOTONIC, &at);
#endif
}

bw_lock_result bw_lock(pthread_mutex_t *m, bw_deadline deadline)
{
    int e = pthread_mutex_trylock(m);
    if (e != EBUSY) return result_of(e);
    if (deadline == BW_DEADLINE_NEVER) return result_of(pthread_mutex_lock(m));
    return result_of(lock_until(m, deadline));
}

void bw_lock_make_consistent(pthread_mutex_t *m) { pthread_mutex_consistent(m); }

void bw_unlock(pthread_mutex_t *m) { pthread_mutex_unlock(m); }

void bw_cond_init(pthread_cond_t *c)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(c, &attributes);
    pthread_condattr_destroy(&attributes);
}
