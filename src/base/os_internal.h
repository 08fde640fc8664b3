/* base/os_internal.h: what os.c and os_socket.c share: the count of calls and the fault seam. Nobody else includes it. */
#ifndef BW_BASE_OS_INTERNAL_H
#define BW_BASE_OS_INTERNAL_H

#include "base/os.h"

extern _Thread_local uint64_t bw_os_made[BW_OS_CALL_COUNT] __attribute__((visibility("hidden")));

#ifdef BW_TESTING
bool bw_os_fault_hits(bw_os_call call);
#else
static inline bool bw_os_fault_hits(bw_os_call call)
{
    (void)call;
    return false;
}
#endif

/* bw_os_enter: true: the call must fail, with errno as set. */
static inline bool bw_os_enter(bw_os_call call)
{
    bw_os_made[call]++;
    return bw_os_fault_hits(call);
}

/* The body of a function that is one call, made again after EINTR. */
#define BW_OS_RETRY(call_name, expression)                                                                                     \
    do {                                                                                                                       \
        if (bw_os_enter(BW_OS_##call_name)) return -1;                                                                         \
        int result;                                                                                                            \
        do result = (expression);                                                                                              \
        while (result < 0 && errno == EINTR);                                                                                  \
        return result;                                                                                                         \
    } while (0)

#endif
