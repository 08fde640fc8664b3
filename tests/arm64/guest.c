/* tests/arm64/guest.c: preloaded into the emulated arm64 programs. What qemu-user leaves out and the tests need.
 *
 * 1. Robust mutexes. qemu answers set_robust_list with ENOSYS, so that a killed owner's lock would stay locked for ever. But guest and
 *    host are both 64-bit and little-endian and a guest address is a host address, so the kernel can walk the guest's list as it is.
 *    Each thread says where its list is by a prctl that qemu hands on; host.c, preloaded into qemu, makes the real call of it.
 *    glibc keeps the head of the list in the thread's descriptor: a robust mutex that is locked and alone points to it.
 * 2. exec. Without binfmt_misc (root, one for the machine) the kernel can't run an arm64 program: it is handed to $ARM64_RUN.
 * The preload is taken out of the environment again: a shell that is started from here is not an arm64 program. */
#include "robust.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { ARGUMENTS_MAX = 4096 };
static char run_path[4096];

static void list_announce(void)
{
    pthread_mutexattr_t a;
    pthread_mutex_t m;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&m, &a);
    pthread_mutex_lock(&m);
    prctl(PR_SET_TIMERSLACK, (unsigned long)(uintptr_t)m.__data.__list.__next, ROBUST_MARK, 0, 0);
    pthread_mutex_unlock(&m);
    pthread_mutex_destroy(&m);
    pthread_mutexattr_destroy(&a);
}

__attribute__((constructor)) static void begin(void)
{
    const char *run = getenv("ARM64_RUN");
    if (run) strncpy(run_path, run, sizeof run_path - 1);
    unsetenv("LD_PRELOAD");
    list_announce();
    pthread_atfork(NULL, NULL, list_announce);
}

/* ---- threads ---- */

typedef struct start {
    void *(*run)(void *);
    void *opaque;
} start;

static void *thread_begin(void *opaque)
{
    start s = *(start *)opaque;
    free(opaque);
    list_announce();
    return s.run(s.opaque);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *opaque)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "pthread_create");
    start *s = malloc(sizeof *s);
    if (!s) return EAGAIN;
    *s = (start){run, opaque};
    int e = real(thread, attributes, thread_begin, s);
    if (e) free(s);
    return e;
}

/* ---- exec ---- */

static int is_arm64(const char *path)
{
    Elf64_Ehdr h;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t n = read(fd, &h, sizeof h);
    close(fd);
    return n == (ssize_t)sizeof h && memcmp(h.e_ident, ELFMAG, SELFMAG) == 0 && h.e_machine == EM_AARCH64;
}

int execve(const char *path, char *const argv[], char *const envp[])
{
    const char *args[ARGUMENTS_MAX];
    size_t n = 0;
    if (!run_path[0] || !is_arm64(path)) return (int)syscall(SYS_execve, path, argv, envp);
    args[n++] = run_path;
    args[n++] = path;
    for (size_t i = 1; argv[0] && argv[i]; i++) {
        if (n == ARGUMENTS_MAX - 1) {
            errno = E2BIG;
            return -1;
        }
        args[n++] = argv[i];
    }
    args[n] = NULL;
    return (int)syscall(SYS_execve, run_path, args, envp);
}

int execv(const char *path, char *const argv[]) { return execve(path, argv, environ); }

int execl(const char *path, const char *first, ...)
{
    char *argv[64];
    size_t n = 0;
    va_list list;
    va_start(list, first);
    for (const char *a = first; a && n < sizeof argv / sizeof *argv - 1; a = va_arg(list, const char *)) argv[n++] = (char *)(uintptr_t)a;
    va_end(list);
    argv[n] = NULL;
    return execve(path, argv, environ);
}
