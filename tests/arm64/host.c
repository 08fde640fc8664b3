/* tests/arm64/host.c: preloaded into qemu itself (x86-64): see guest.c.
 *
 * A prctl with guest.c's mark registers the guest's list of robust mutexes with the kernel in the place of qemu's own, which qemu does
 * not use. And membarrier(2) is answered with ENOSYS while ARM64_NO_MEMBARRIER is set: what is done without it is tried here. */
#include "robust.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static long (*real_syscall)(long, ...);

int prctl(int option, ...)
{
    unsigned long a[4];
    va_list list;
    va_start(list, option);
    for (int i = 0; i < 4; i++) a[i] = va_arg(list, unsigned long);
    va_end(list);
    if (!real_syscall) *(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
    if (option == PR_SET_TIMERSLACK && a[1] == ROBUST_MARK) return (int)real_syscall(SYS_set_robust_list, a[0], ROBUST_HEAD_BYTES);
    return (int)real_syscall(SYS_prctl, option, a[0], a[1], a[2], a[3]);
}

long syscall(long number, ...)
{
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    if (!real_syscall) *(void **)&real_syscall = dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_membarrier && getenv("ARM64_NO_MEMBARRIER")) {
        errno = ENOSYS;
        return -1;
    }
    return real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
