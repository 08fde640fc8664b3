/* tests/battery/callshim.c: LD_PRELOAD: the C library's calls, each of which can be made to fail at one call site (sites.h), for the
 * libraries (LMDB, nng, the C library itself where it allocates) as well as for Busway. Test-only; never linked.
 *
 * A call made while its own site is looked up, and those of the test program itself, pass through. A failed sync of a segment is
 * remembered: a later sync of any segment of the same partition by the same process is counted as a retry, which must not be. */
#include "battery/sites.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <unistd.h>
#include <unwind.h>

enum { MODULES_MAX = 64, FRAMES_MAX = 3 };

typedef struct module { uintptr_t from, to, base; char name[32]; bool is_libc, is_test, is_nng, is_self; } module;
static module modules[MODULES_MAX];
static size_t module_count;
static site_table *table;
static struct { uint64_t id; int error; unsigned at; bool forever; } fail;
static atomic_uint passes;
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));

static int add_module(struct dl_phdr_info *info, size_t size, void *opaque)
{
    (void)size;
    (void)opaque;
    const char *name = info->dlpi_name && *info->dlpi_name ? info->dlpi_name : program_invocation_name;
    const char *slash = strrchr(name, '/');
    name = slash ? slash + 1 : name;
    for (int i = 0; i < info->dlpi_phnum && module_count < MODULES_MAX; i++) {
        const ElfW(Phdr) *h = &info->dlpi_phdr[i];
        if (h->p_type != PT_LOAD || !(h->p_flags & PF_X)) continue;
        module *m = &modules[module_count++];
        *m = (module){.from = info->dlpi_addr + h->p_vaddr, .to = info->dlpi_addr + h->p_vaddr + h->p_memsz, .base = info->dlpi_addr};
        snprintf(m->name, sizeof m->name, "%s", name);
        m->is_libc = strncmp(name, "libc.so", 7) == 0 || strncmp(name, "ld-linux", 8) == 0 || strncmp(name, "libgcc_s", 8) == 0;
        m->is_self = strncmp(name, "libcallshim", 11) == 0;
        m->is_nng = strncmp(name, "libnng", 6) == 0;
        m->is_test = strcmp(name, "faults") == 0 || strncmp(name, "linux-vdso", 10) == 0;
    }
    return 0;
}

static void *real(const char *name)
{
    bool was = inside;
    inside = true;
    void *fn = dlsym(RTLD_NEXT, name);
    inside = was;
    if (!fn) _exit(126);
    return fn;
}

__attribute__((constructor)) static void start(void)
{
    inside = true;
    const char *path = getenv("FAULTS_SITES"), *spec = getenv("FAULTS_FAIL");
    char mode[16] = "";
    unsigned long long id = 0;
    dl_iterate_phdr(add_module, NULL);
    if (spec && sscanf(spec, "%llx:%d:%u:%15s", &id, &fail.error, &fail.at, mode) >= 3) fail.id = id;
    fail.forever = strcmp(mode, "forever") == 0;
    int fd = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *map = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (map != MAP_FAILED) table = map;
        close(fd);
    }
    inside = false;
}

/* ---- where a call comes from ---- */

typedef struct chain { const module *module[FRAMES_MAX]; uintptr_t offset[FRAMES_MAX]; size_t count, want; } chain;

static _Unwind_Reason_Code on_frame(struct _Unwind_Context *context, void *opaque)
{
    chain *c = opaque;
    uintptr_t ip = _Unwind_GetIP(context);
    const module *m = NULL;
    for (size_t i = 0; i < module_count && !m; i++)
        if (ip >= modules[i].from && ip < modules[i].to) m = &modules[i];
    if (!m) return c->count ? _URC_END_OF_STACK : _URC_NO_REASON;
    if (m->is_self || (m->is_libc && c->count == 0)) return _URC_NO_REASON;
    if (m->is_libc) return _URC_END_OF_STACK; /* a thread's or a callback's beginning */
    if (c->count == 0) c->want = m->is_nng ? 3 : 2;
    c->module[c->count] = m;
    c->offset[c->count++] = ip - m->base;
    return c->count == c->want ? _URC_END_OF_STACK : _URC_NO_REASON;
}

static uint64_t mix(uint64_t h, const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * UINT64_C(1099511628211);
    return h;
}

static site *site_of(const char *call, const chain *c)
{
    uint64_t id = mix(UINT64_C(14695981039346656037), call, strlen(call));
    for (size_t i = 0; i < c->count; i++) {
        id = mix(id, c->module[i]->name, strlen(c->module[i]->name));
        id = mix(id, &c->offset[i], sizeof c->offset[i]);
    }
    if (id == 0) id = 1;
    for (size_t i = 0; i < SITES_MAX; i++) {
        site *s = &table->sites[(id + i) % SITES_MAX];
        uint64_t there = 0;
        if (atomic_load(&s->id) == id) return s;
        if (!atomic_compare_exchange_strong(&s->id, &there, id)) {
            if (there == id) return s;
            continue;
        }
        size_t n = 0;
        snprintf(s->call, sizeof s->call, "%s", call);
        for (size_t k = 0; k < c->count && n < sizeof s->where; k++)
            n += (size_t)snprintf(s->where + n, sizeof s->where - n, "%s%s+0x%zx", k ? "<" : "", c->module[k]->name, (size_t)c->offset[k]);
        return s;
    }
    atomic_fetch_add(&table->overflow, 1);
    return NULL;
}

/* Does this call fail? Then *error is why. errno is kept otherwise. */
static bool hits(const char *call, int *error)
{
    if (inside || !table) return false;
    inside = true;
    int saved = errno;
    chain c = {.want = FRAMES_MAX};
    _Unwind_Backtrace(on_frame, &c);
    bool fails = false;
    site *s = c.count && !c.module[0]->is_test ? site_of(call, &c) : NULL;
    if (s) {
        atomic_fetch_add_explicit(&s->passed, 1, memory_order_relaxed);
        if (fail.id && atomic_load(&s->id) == fail.id) {
            unsigned n = atomic_fetch_add(&passes, 1) + 1;
            fails = n == fail.at || (fail.forever && n > fail.at);
        }
        if (fails) {
            atomic_fetch_add(&s->failed, 1);
            *error = fail.error;
        }
    }
    errno = saved;
    inside = false;
    return fails;
}

/* ---- syncs are never tried again ---- */

static struct { dev_t dev; ino_t ino; } failed_sync;
static atomic_bool sync_failed;

/* The folder of a segment; false: fd is something else. */
static bool folder_of(int fd, char *path, size_t size, struct stat *st)
{
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    if (n <= 4) return false;
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (!slash || strcmp(path + n - 4, ".log") != 0) return false;
    *slash = 0;
    int result = (int)syscall(SYS_newfstatat, AT_FDCWD, path, st, 0);
    *slash = '/';
    return result == 0;
}

static void note_sync(int fd, bool fails)
{
    char path[256];
    struct stat st;
    if (!table || (!fails && !atomic_load(&sync_failed)) || !folder_of(fd, path, sizeof path, &st)) return;
    if (fails) {
        failed_sync.dev = st.st_dev;
        failed_sync.ino = st.st_ino;
        atomic_store(&sync_failed, true);
    } else if (st.st_dev == failed_sync.dev && st.st_ino == failed_sync.ino) {
        if (atomic_fetch_add(&table->sync_retries, 1) == 0) {
            size_t n = strlen(path), most = sizeof table->sync_retried - 1;
            memcpy(table->sync_retried, n > most ? path + n - most : path, n > most ? most : n);
        }
    }
}

/* ---- the calls ---- */

#define CALL(type, name, params, args, failure)                                                                                \
    type name params                                                                                                           \
    {                                                                                                                          \
        static __typeof__(&name) fn;                                                                                           \
        int error;                                                                                                             \
        if (hits(#name, &error)) {                                                                                             \
            errno = error;                                                                                                     \
            return failure;                                                                                                    \
        }                                                                                                                      \
        if (!fn) fn = (__typeof__(&name))(uintptr_t)real(#name);                                                               \
        return fn args;                                                                                                        \
    }
#define SYNC(name)                                                                                                             \
    int name(int fd)                                                                                                           \
    {                                                                                                                          \
        int error = 0;                                                                                                         \
        bool fails = hits(#name, &error);                                                                                      \
        int saved = errno;                                                                                                     \
        note_sync(fd, fails);                                                                                                  \
        errno = fails ? error : saved;                                                                                         \
        return fails ? -1 : (int)syscall(SYS_##name, fd);                                                                      \
    }

SYNC(fsync)
SYNC(fdatasync)
CALL(ssize_t, read, (int fd, void *b, size_t n), (fd, b, n), -1)
CALL(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n), -1)
CALL(ssize_t, pread, (int fd, void *b, size_t n, off_t at), (fd, b, n, at), -1)
CALL(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t at), (fd, b, n, at), -1)
CALL(ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n), -1)
CALL(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), -1)
CALL(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t at), (fd, v, n, at), -1)
CALL(ssize_t, recv, (int fd, void *b, size_t n, int flags), (fd, b, n, flags), -1)
CALL(ssize_t, recvmsg, (int fd, struct msghdr *m, int flags), (fd, m, flags), -1)
CALL(ssize_t, sendmsg, (int fd, const struct msghdr *m, int flags), (fd, m, flags), -1)
CALL(ssize_t, sendto, (int fd, const void *b, size_t n, int flags, const struct sockaddr *a, socklen_t l), (fd, b, n, flags, a, l), -1)
CALL(ssize_t, getrandom, (void *b, size_t n, unsigned flags), (b, n, flags), -1)
CALL(int, msync, (void *a, size_t n, int flags), (a, n, flags), -1)
CALL(int, ftruncate, (int fd, off_t n), (fd, n), -1)
CALL(int, fallocate, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n), -1)
CALL(void *, mmap, (void *a, size_t n, int prot, int flags, int fd, off_t at), (a, n, prot, flags, fd, at), MAP_FAILED)
CALL(int, madvise, (void *a, size_t n, int advice), (a, n, advice), -1)
CALL(int, fstat, (int fd, struct stat *st), (fd, st), -1)
CALL(int, stat, (const char *path, struct stat *st), (path, st), -1)
CALL(int, fstatat, (int dir, const char *path, struct stat *st, int flags), (dir, path, st, flags), -1)
CALL(int, fstatfs, (int fd, struct statfs *st), (fd, st), -1)
CALL(int, fstatvfs, (int fd, struct statvfs *st), (fd, st), -1)
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), -1)
CALL(int, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode), -1)
CALL(int, linkat, (int a, const char *old, int b, const char *new, int flags), (a, old, b, new, flags), -1)
CALL(int, renameat, (int a, const char *old, int b, const char *new), (a, old, b, new), -1)
CALL(int, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), -1)
CALL(int, unlink, (const char *path), (path), -1)
CALL(int, flock, (int fd, int operation), (fd, operation), -1)
CALL(int, lockf, (int fd, int operation, off_t n), (fd, operation, n), -1)
CALL(int, fchmod, (int fd, mode_t mode), (fd, mode), -1)
CALL(int, chmod, (const char *path, mode_t mode), (path, mode), -1)
CALL(int, fchmodat, (int dir, const char *path, mode_t mode, int flags), (dir, path, mode, flags), -1)
CALL(int, fchownat, (int dir, const char *path, uid_t u, gid_t g, int flags), (dir, path, u, g, flags), -1)
CALL(DIR *, opendir, (const char *path), (path), NULL)
CALL(DIR *, fdopendir, (int fd), (fd), NULL)
CALL(struct dirent *, readdir, (DIR *d), (d), NULL)
CALL(FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL)
CALL(char *, realpath, (const char *path, char *out), (path, out), NULL)
CALL(char *, getcwd, (char *out, size_t n), (out, n), NULL)
CALL(ssize_t, readlink, (const char *path, char *out, size_t n), (path, out, n), -1)
CALL(int, socket, (int domain, int type, int protocol), (domain, type, protocol), -1)
CALL(int, bind, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1)
CALL(int, listen, (int fd, int n), (fd, n), -1)
CALL(int, accept, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)
CALL(int, connect, (int fd, const struct sockaddr *a, socklen_t n), (fd, a, n), -1)
CALL(int, getsockopt, (int fd, int level, int name, void *v, socklen_t *n), (fd, level, name, v, n), -1)
CALL(int, setsockopt, (int fd, int level, int name, const void *v, socklen_t n), (fd, level, name, v, n), -1)
CALL(int, getsockname, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)
CALL(int, getpeername, (int fd, struct sockaddr *a, socklen_t *n), (fd, a, n), -1)
CALL(int, pipe, (int ends[2]), (ends), -1)
CALL(int, pipe2, (int ends[2], int flags), (ends, flags), -1)
CALL(int, eventfd, (unsigned start_at, int flags), (start_at, flags), -1)
CALL(int, epoll_create1, (int flags), (flags), -1)
CALL(int, epoll_ctl, (int e, int operation, int fd, struct epoll_event *event), (e, operation, fd, event), -1)
CALL(int, epoll_wait, (int e, struct epoll_event *events, int n, int ms), (e, events, n, ms), -1)
CALL(int, poll, (struct pollfd *p, nfds_t n, int ms), (p, n, ms), -1)
CALL(int, ppoll, (struct pollfd *p, nfds_t n, const struct timespec *t, const sigset_t *s), (p, n, t, s), -1)
CALL(int, timerfd_create, (clockid_t c, int flags), (c, flags), -1)
CALL(int, timerfd_settime, (int fd, int flags, const struct itimerspec *n, struct itimerspec *o), (fd, flags, n, o), -1)

/* These say why by their result. */
#define RESULT(name, params, args)                                                                                             \
    int name params                                                                                                            \
    {                                                                                                                          \
        static __typeof__(&name) fn;                                                                                           \
        int error;                                                                                                             \
        if (hits(#name, &error)) return error;                                                                                 \
        if (!fn) fn = (__typeof__(&name))(uintptr_t)real(#name);                                                               \
        return fn args;                                                                                                        \
    }
RESULT(pthread_create, (pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *o), (t, a, f, o))
RESULT(pthread_key_create, (pthread_key_t *k, void (*f)(void *)), (k, f))

/* ---- those with optional arguments ---- */

int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    int error;
    if (hits("open", &error)) return errno = error, -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int openat(int dir, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    int error;
    if (hits("openat", &error)) return errno = error, -1;
    return (int)syscall(SYS_openat, dir, path, flags, mode);
}

/* Locks only: the rest of fcntl does not fail. */
int fcntl(int fd, int command, ...)
{
    static int (*fn)(int, int, ...);
    va_list args;
    va_start(args, command);
    void *argument = va_arg(args, void *);
    va_end(args);
    int error;
    bool lock = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
    if ((lock || command == F_DUPFD_CLOEXEC) && hits("fcntl", &error)) return errno = error, -1;
    if (!fn) fn = (int (*)(int, int, ...))(uintptr_t)real("fcntl");
    return fn(fd, command, argument);
}

long syscall(long number, ...)
{
    static long (*fn)(long, ...);
    long a[6];
    va_list args;
    va_start(args, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(args, long);
    va_end(args);
    int error;
    bool sleeps = number == SYS_futex && (a[1] & 127) == 0; /* FUTEX_WAIT; a wake cannot fail */
    const char *name = number == SYS_openat2 ? "openat2" : number == SYS_pidfd_open ? "pidfd_open" : sleeps ? "futex" : NULL;
    if (name && hits(name, &error)) return errno = error, -1;
    if (!fn) fn = (long (*)(long, ...))(uintptr_t)real("syscall");
    return fn(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- memory: the C library's own entry points, since finding the next one allocates ---- */

extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t), *__libc_memalign(size_t, size_t);

void *malloc(size_t n)
{
    int error;
    if (hits("malloc", &error)) return errno = ENOMEM, NULL;
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size)
{
    int error;
    if (hits("calloc", &error)) return errno = ENOMEM, NULL;
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n)
{
    int error;
    if (n > 0 && hits("realloc", &error)) return errno = ENOMEM, NULL;
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
    int error;
    if (hits("aligned_alloc", &error)) return errno = ENOMEM, NULL;
    return __libc_memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
    int error;
    if (hits("posix_memalign", &error)) return ENOMEM;
    void *p = __libc_memalign(align, n);
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}
