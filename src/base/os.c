/* base/os.c: the one place that calls the operating system for files, memory and sleeping (sockets: os_socket.c).
 *
 * Each function counts itself (thread-local) and passes the fault seam before the real call. EINTR is retried wherever the
 * call did nothing; close is never retried (the descriptor is gone on Linux). */
#include "base/os_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <linux/membarrier.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

_Thread_local uint64_t bw_os_made[BW_OS_CALL_COUNT];

uint64_t bw_os_calls_made(bw_os_call call) { return bw_os_made[call]; }

#ifdef BW_TESTING
/* The fault seam: BUSWAY_FAULT="call:k:errno[:forever]". BUSWAY_FAULT_COUNTS=path: a file that this process counts in, through a map,
 * so that whoever runs it knows how many calls of each kind there were and how many were failed, however it ended. */
typedef struct fault_count {
    char name[16];
    atomic_ulong calls, failed;
} fault_count;
static fault_count *fault_counts;
static struct {
    int call; /* -1: any; -2: none */
    int error;
    int forever;
} fault = {.call = -2};
static atomic_long fault_left;
static pthread_once_t fault_once = PTHREAD_ONCE_INIT;

static const char *const fault_names[] = {
#define BW_OS_NAME(name) #name,
    BW_OS_CALLS(BW_OS_NAME)
#undef BW_OS_NAME
};

static void fault_count_into(const char *path)
{
    size_t bytes = BW_OS_CALL_COUNT * sizeof *fault_counts;
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd < 0) return;
    void *map = ftruncate(fd, (off_t)bytes) == 0 ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    close(fd);
    if (map == MAP_FAILED) return;
    fault_counts = map;
    for (int i = 0; i < BW_OS_CALL_COUNT; i++) strncpy(fault_counts[i].name, fault_names[i], sizeof fault_counts[i].name - 1);
}

static void fault_read(void)
{
    fault_count_into(getenv("BUSWAY_FAULT_COUNTS"));
    const char *spec = getenv("BUSWAY_FAULT");
    char name[32] = "", mode[16] = "";
    long k = 0;
    if (!spec || sscanf(spec, "%31[^:]:%ld:%d:%15s", name, &k, &fault.error, mode) < 3) return;
    if (strcmp(name, "*") == 0) fault.call = -1;
    for (int i = 0; i < BW_OS_CALL_COUNT; i++)
        if (strcmp(name, fault_names[i]) == 0) fault.call = i;
    fault.forever = strcmp(mode, "forever") == 0;
    atomic_store(&fault_left, k);
}

bool bw_os_fault_hits(bw_os_call call)
{
    pthread_once(&fault_once, fault_read);
    if (fault_counts) atomic_fetch_add_explicit(&fault_counts[call].calls, 1, memory_order_relaxed);
    if (fault.call != -1 && fault.call != (int)call) return false;
    long left = atomic_fetch_sub(&fault_left, 1);
    if (left == 1 || (left < 1 && fault.forever)) {
        if (fault_counts) atomic_fetch_add_explicit(&fault_counts[call].failed, 1, memory_order_relaxed);
        errno = fault.error;
        return true;
    }
    return false;
}

static _Thread_local struct { bw_os_observer fn; void *opaque; } observer;

void bw_os_observe(bw_os_observer fn, void *opaque)
{
    observer.fn = fn;
    observer.opaque = opaque;
}

static void observe(const bw_os_event *event)
{
    if (!observer.fn) return;
    int saved = errno;
    observer.fn(observer.opaque, event);
    errno = saved;
}
#define OBSERVE(...) observe(&(bw_os_event){__VA_ARGS__})
#else
#define OBSERVE(...) ((void)0)
#endif

/* Only what changes a folder or a file is worth telling. */
#define OBSERVE_OPEN(after, outcome)                                                                                           \
    do {                                                                                                                       \
        if (flags & (O_CREAT | O_TRUNC))                                                                                       \
            OBSERVE(.call = BW_OS_open, .done = (after), .fd = dir_fd, .name = path, .flags = flags, .result = (outcome));     \
    } while (0)

int bw_os_open(int dir_fd, const char *path, int flags, mode_t mode)
{
    if (bw_os_enter(BW_OS_open)) return -1;
    int fd;
    OBSERVE_OPEN(false, 0);
    do fd = openat(dir_fd, path, flags | O_CLOEXEC | O_NOFOLLOW, mode);
    while (fd < 0 && errno == EINTR);
    OBSERVE_OPEN(true, fd);
    return fd;
}

int bw_os_open_named(const char *path, int flags, mode_t mode)
{
    if (bw_os_enter(BW_OS_open)) return -1;
    int fd;
    do fd = openat(AT_FDCWD, path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

/* Without openat2 (before Linux 5.6, or forbidden by a container's filter): folder by folder, none of them a link or "..". */
static int open_by_steps(int dir_fd, const char *path, int flags, mode_t mode)
{
    char part[NAME_MAX + 1];
    int at = dir_fd, fd;
    for (;;) {
        size_t len = strcspn(path, "/");
        bool last = path[len] == 0;
        if (len == 0 || len > NAME_MAX || (len == 2 && memcmp(path, "..", 2) == 0)) {
            fd = -1;
            errno = len > NAME_MAX ? ENAMETOOLONG : EXDEV;
        } else {
            memcpy(part, path, len);
            part[len] = 0;
            int how = last ? flags | O_CLOEXEC | O_NOFOLLOW : O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
            do fd = openat(at, part, how, mode);
            while (fd < 0 && errno == EINTR);
        }
        int saved = errno;
        if (at != dir_fd) close(at);
        errno = saved;
        if (fd < 0 || last) return fd;
        at = fd;
        path += len + 1;
    }
}

int bw_os_open_beneath(int dir_fd, const char *path, int flags, mode_t mode)
{
    if (bw_os_enter(BW_OS_open)) return -1;
    struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
                           .mode = (flags & (O_CREAT | O_TMPFILE)) ? mode : 0,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
    long fd;
    OBSERVE_OPEN(false, 0);
    do fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM)) {
        OBSERVE_OPEN(true, fd);
        return (int)fd;
    }
    fd = open_by_steps(dir_fd, path, flags, mode);
    OBSERVE_OPEN(true, fd);
    return (int)fd;
}

int bw_os_close(int fd)
{
    if (fd < 0) return 0;
    bw_os_made[BW_OS_close]++;
    return close(fd);
}

ssize_t bw_os_pread(int fd, void *buf, size_t len, off_t at)
{
    if (bw_os_enter(BW_OS_pread)) return -1;
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, (char *)buf + done, len - done, at + (off_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t bw_os_pwrite(int fd, const void *buf, size_t len, off_t at)
{
    if (bw_os_enter(BW_OS_pwrite)) return -1;
    OBSERVE(.call = BW_OS_pwrite, .fd = fd, .at = at, .len = (int64_t)len);
    size_t done = 0;
    ssize_t n = 0;
    while (done < len) {
        n = pwrite(fd, (const char *)buf + done, len - done, at + (off_t)done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        done += (size_t)n;
    }
    if (done < len && n == 0) errno = ENOSPC;
    OBSERVE(.call = BW_OS_pwrite, .done = true, .fd = fd, .at = at, .len = (int64_t)len, .result = done < len ? -1 : 0);
    return done < len ? -1 : (ssize_t)done;
}

/* BW_OS_RETRY, and tell the observer. */
#define RETRY_OBSERVED(call_name, expression, ...)                                                                             \
    do {                                                                                                                       \
        if (bw_os_enter(BW_OS_##call_name)) return -1;                                                                         \
        OBSERVE(.call = BW_OS_##call_name, __VA_ARGS__);                                                                       \
        int result_;                                                                                                           \
        do result_ = (expression);                                                                                             \
        while (result_ < 0 && errno == EINTR);                                                                                 \
        OBSERVE(.call = BW_OS_##call_name, .done = true, .result = result_, __VA_ARGS__);                                      \
        return result_;                                                                                                        \
    } while (0)

int bw_os_fallocate(int fd, int mode, off_t at, off_t len)
{
    RETRY_OBSERVED(fallocate, fallocate(fd, mode, at, len), .fd = fd, .flags = mode, .at = at, .len = len);
}
int bw_os_ftruncate(int fd, off_t len) { RETRY_OBSERVED(ftruncate, ftruncate(fd, len), .fd = fd, .at = len); }
int bw_os_fdatasync(int fd) { RETRY_OBSERVED(fdatasync, fdatasync(fd), .fd = fd); }
int bw_os_fsync(int fd) { RETRY_OBSERVED(fsync, fsync(fd), .fd = fd); }
int bw_os_sync_dir(int dir_fd) { RETRY_OBSERVED(fsync, fsync(dir_fd), .fd = dir_fd); }
int bw_os_fstat(int fd, struct stat *st) { BW_OS_RETRY(fstat, fstat(fd, st)); }
int bw_os_set_mtime(int fd, int64_t ms)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}};
    BW_OS_RETRY(futimens, futimens(fd, times));
}

int bw_os_mkdir(int dir_fd, const char *path, mode_t mode)
{
    RETRY_OBSERVED(mkdir, mkdirat(dir_fd, path, mode), .fd = dir_fd, .name = path);
}
int bw_os_unlink(int dir_fd, const char *path, int flags)
{
    RETRY_OBSERVED(unlink, unlinkat(dir_fd, path, flags), .fd = dir_fd, .name = path, .flags = flags);
}
int bw_os_flock(int fd, int operation) { BW_OS_RETRY(flock, flock(fd, operation)); }

int bw_os_stat_at(int dir_fd, const char *path, struct stat *st)
{
    BW_OS_RETRY(fstat, fstatat(dir_fd, path, st, AT_SYMLINK_NOFOLLOW));
}

int bw_os_chown_at(int dir_fd, const char *path, uid_t uid, gid_t gid)
{
    BW_OS_RETRY(chown, fchownat(dir_fd, path, uid, gid, AT_SYMLINK_NOFOLLOW));
}

int bw_os_chmod_at(int dir_fd, const char *path, mode_t mode)
{
    BW_OS_RETRY(chmod, fchmodat(dir_fd, path, mode, 0));
}

int bw_os_list_dir(int dir_fd, bool (*fn)(void *opaque, const char *name), void *opaque)
{
    if (bw_os_enter(BW_OS_opendir)) return -1;
    int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        int saved = errno;
        if (fd >= 0) close(fd);
        errno = saved;
        return -1;
    }
    const struct dirent *entry;
    bool more = true;
    errno = 0;
    while (more && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) more = fn(opaque, entry->d_name);
        errno = 0;
    }
    int saved = errno;
    closedir(dir);
    errno = saved;
    return saved == 0 ? 0 : -1;
}

int64_t bw_os_free_bytes(int fd)
{
    if (bw_os_enter(BW_OS_statfs)) return -1;
    struct statvfs st;
    if (fstatvfs(fd, &st) != 0) return -1;
    return (int64_t)st.f_bavail * (int64_t)st.f_frsize;
}

int64_t bw_os_total_bytes(int fd)
{
    if (bw_os_enter(BW_OS_statfs)) return -1;
    struct statvfs st;
    if (fstatvfs(fd, &st) != 0) return -1;
    return (int64_t)st.f_blocks * (int64_t)st.f_frsize;
}

int bw_os_link(int old_dir, const char *old_path, int new_dir, const char *new_path)
{
    RETRY_OBSERVED(link, linkat(old_dir, old_path, new_dir, new_path, 0), .fd = old_dir, .name = old_path, .fd2 = new_dir,
                   .name2 = new_path);
}

int bw_os_rename(int old_dir, const char *old_path, int new_dir, const char *new_path)
{
    RETRY_OBSERVED(rename, renameat(old_dir, old_path, new_dir, new_path), .fd = old_dir, .name = old_path, .fd2 = new_dir,
                   .name2 = new_path);
}

void *bw_os_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at)
{
    if (bw_os_enter(BW_OS_mmap)) return MAP_FAILED;
    return mmap(addr, len, prot, flags, fd, at);
}

int bw_os_munmap(void *addr, size_t len)
{
    bw_os_made[BW_OS_munmap]++;
    return munmap(addr, len);
}

int bw_os_madvise(void *addr, size_t len, int advice)
{
    if (bw_os_enter(BW_OS_madvise)) return -1;
    return madvise(addr, len, advice);
}

int bw_os_populate(void *addr, size_t len, bool for_write)
{
    if (len == 0) return 0;
    if (bw_os_enter(BW_OS_madvise)) return errno;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = (uintptr_t)addr & ~(page - 1);
    uintptr_t to = ((uintptr_t)addr + len + page - 1) & ~(page - 1);
    int result;
    do result = madvise((void *)from, to - from, for_write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    while (result < 0 && (errno == EINTR || errno == EAGAIN));
    if (result == 0) return 0;
    return errno == EINVAL ? EOPNOTSUPP : errno;
}

int bw_os_futex_wait(const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns)
{
    if (bw_os_enter(BW_OS_futex)) return errno;
    struct timespec t, *tp = NULL;
    if (timeout_ns >= 0 && timeout_ns != INT64_MAX) {
        t = (struct timespec){.tv_sec = timeout_ns / 1000000000, .tv_nsec = timeout_ns % 1000000000};
        tp = &t;
    }
    if (syscall(SYS_futex, word, FUTEX_WAIT, expected, tp, NULL, 0) == 0) return 0;
    return errno == EAGAIN ? 0 : errno;
}

int bw_os_futex_wait_any(const bw_os_futex *words, uint32_t count, int64_t timeout_ns)
{
    struct { uint64_t expected, word; uint32_t flags, pad; } waiters[128]; /* struct futex_waitv, for older headers */
    enum { WORD_32 = 2, CALL_WAITV = 449 };
    if (bw_os_enter(BW_OS_futex)) return errno;
    if (count > 128) return EINVAL;
    for (uint32_t i = 0; i < count; i++) {
        waiters[i].expected = words[i].expected;
        waiters[i].word = (uint64_t)(uintptr_t)words[i].word;
        waiters[i].flags = WORD_32;
        waiters[i].pad = 0;
    }
    struct timespec until, *tp = NULL; /* absolute here */
    if (timeout_ns >= 0 && timeout_ns != INT64_MAX) {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += timeout_ns / 1000000000;
        until.tv_nsec += timeout_ns % 1000000000;
        if (until.tv_nsec >= 1000000000) until.tv_nsec -= 1000000000, until.tv_sec++;
        tp = &until;
    }
    if (syscall(CALL_WAITV, waiters, count, 0, tp, CLOCK_MONOTONIC) >= 0) return 0;
    return errno == EAGAIN ? 0 : errno;
}

int bw_os_futex_wake(_Atomic uint32_t *word, int count)
{
    if (bw_os_enter(BW_OS_futex)) return -1;
    return (int)syscall(SYS_futex, word, FUTEX_WAKE, count, NULL, NULL, 0);
}

int bw_os_ring_setup(uint32_t entries, struct io_uring_params *params)
{
    BW_OS_RETRY(ring, (int)syscall(SYS_io_uring_setup, entries, params));
}

int bw_os_ring_enter(int fd, uint32_t count, uint32_t flags)
{
    BW_OS_RETRY(ring, (int)syscall(SYS_io_uring_enter, fd, count, 0, flags, NULL, 0));
}

int bw_os_ring_register(int fd, uint32_t what, const void *arg, uint32_t count)
{
    BW_OS_RETRY(ring, (int)syscall(SYS_io_uring_register, fd, what, arg, count));
}

bool bw_os_ring_knows(int fd, uint8_t operation)
{
    enum { MOST = 256 };
    struct io_uring_probe *probe = calloc(1, sizeof *probe + MOST * sizeof probe->ops[0]);
    bool knows = probe && bw_os_ring_register(fd, IORING_REGISTER_PROBE, probe, MOST) == 0 && operation <= probe->last_op &&
                 (probe->ops[operation].flags & IO_URING_OP_SUPPORTED);
    free(probe);
    if (!knows) errno = ENOSYS;
    return knows;
}

void bw_os_yield(void) { (void)sched_yield(); }

bool bw_os_membarrier_register(void)
{
    if (getenv("BUSWAY_NO_MEMBARRIER") || bw_os_enter(BW_OS_membarrier)) return false;
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
}

bool bw_os_membarrier(void)
{
    if (bw_os_enter(BW_OS_membarrier)) return false;
    return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}

bool bw_os_is_unshared(int fd)
{
    if (bw_os_enter(BW_OS_lease) || fcntl(fd, F_SETLEASE, F_WRLCK)) return false;
    return fcntl(fd, F_SETLEASE, F_UNLCK) == 0;
}

/* Before Linux 6.5 there is no cachestat(2). */
static uint64_t pages_mapped_in(int fd, uint64_t len, uint64_t page)
{
    uint64_t cached = 0, pages = (len + page - 1) / page;
    void *map = mmap(NULL, len, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) return 0;
    unsigned char *in = malloc(pages);
    if (in && mincore(map, len, in) == 0)
        for (uint64_t i = 0; i < pages; i++) cached += in[i] & 1;
    free(in);
    munmap(map, len);
    return cached;
}

bool bw_os_is_cached(int fd, off_t len)
{
    enum { CALL_CACHESTAT = 451, LACKING = 64 }; /* one of so many pages may be missing */
    struct { uint64_t at, len; } range = {0, (uint64_t)len};
    struct { uint64_t cache, dirty, writeback, evicted, recently_evicted; } stat = {0};
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), pages = (uint64_t)len / page;
    if (len <= 0) return false;
    if (bw_os_enter(BW_OS_cachestat) || syscall(CALL_CACHESTAT, fd, &range, &stat, 0)) {
        if (errno != ENOSYS) return false;
        stat.cache = pages_mapped_in(fd, (uint64_t)len, page);
    }
    return stat.cache + pages / LACKING >= pages;
}
