/* base/os.h: the one place that calls the operating system for files, memory and sleeping.
 *
 * Each function behaves as the call it is named after (-1 and errno), retries EINTR where that is right, and passes through
 * one seam, bw_os_fault(), which in BW_TESTING builds can fail the k-th call, once or for ever:
 * BUSWAY_FAULT="call:k:errno[:forever]" (call "*" is any; names as in BW_OS_CALLS); BUSWAY_FAULT_COUNTS=path counts
 * the calls of each kind there. All descriptors are O_CLOEXEC. */
#ifndef BW_BASE_OS_H
#define BW_BASE_OS_H

#include "base/fs_kind.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#define BW_OS_CALLS(X)                                                                                                         \
    X(open) X(close) X(pread) X(pwrite) X(fallocate) X(ftruncate) X(fdatasync) X(fsync) X(mmap) X(munmap) X(madvise) X(fstat)  \
    X(mkdir) X(link) X(rename) X(unlink) X(opendir) X(statfs) X(flock) X(futex) X(socket) X(connect) X(send) X(recv)       \
    X(chown) X(chmod) X(bind) X(accept) X(epoll) X(membarrier) X(futimens) X(lease) X(cachestat) X(ring)

typedef enum bw_os_call {
#define BW_OS_ENUM(name) BW_OS_##name,
    BW_OS_CALLS(BW_OS_ENUM)
#undef BW_OS_ENUM
    BW_OS_CALL_COUNT
} bw_os_call;

#ifdef BW_TESTING
/* What this thread does to files, told to a test before (done false) and after each call: the seam of the power-loss battery, which
 * keeps a model of what the disk holds. fd: the file, or the folder of name; fd2, name2: where link and rename lead to. Calls that
 * failed are told as well (result -1). errno is kept. Thread-local. */
typedef struct bw_os_event {
    bw_os_call call; /* open (with O_CREAT or O_TRUNC), pwrite, fallocate, ftruncate, fdatasync, fsync, mkdir, link, rename, unlink */
    bool done;
    int fd, fd2;
    const char *name, *name2;
    int flags;       /* of open, fallocate, unlink */
    int64_t at, len; /* pwrite, fallocate, ftruncate (at: the length) */
    int64_t result;
} bw_os_event;
typedef void (*bw_os_observer)(void *opaque, const bw_os_event *event);
void bw_os_observe(bw_os_observer fn, void *opaque); /* NULL: none */
#endif

/* Counts of real system calls made by this thread through this file, for `bw_bus_stats` and tests ("no system call when nobody
 * sleeps"). Thread-local. */
uint64_t bw_os_calls_made(bw_os_call call);

int bw_os_open(int dir_fd, const char *path, int flags, mode_t mode); /* openat + O_CLOEXEC + O_NOFOLLOW */
/* bw_os_open_named: openat of a path that a person gave or that the system owns: its links are followed. */
int bw_os_open_named(const char *path, int flags, mode_t mode);
/* bw_os_open_beneath: openat2 with RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS; falls back to openat + O_NOFOLLOW of a single
 * component where openat2 is missing. For everything inside the data directory. */
int bw_os_open_beneath(int dir_fd, const char *path, int flags, mode_t mode);
int bw_os_close(int fd);
/* Whole transfers: fewer bytes only at the end of the file (pread) or with an error (pwrite: -1, bytes may be written). */
ssize_t bw_os_pread(int fd, void *buf, size_t len, off_t at);
ssize_t bw_os_pwrite(int fd, const void *buf, size_t len, off_t at);
int bw_os_fallocate(int fd, int mode, off_t at, off_t len);
int bw_os_ftruncate(int fd, off_t len);
int bw_os_fdatasync(int fd);
int bw_os_fsync(int fd);
int bw_os_sync_dir(int dir_fd); /* fsync of a directory */
void *bw_os_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t at);
int bw_os_munmap(void *addr, size_t len);
int bw_os_madvise(void *addr, size_t len, int advice);
int bw_os_fstat(int fd, struct stat *st);
/* bw_os_set_mtime: the file's time of last change; that of last access stays. */
int bw_os_set_mtime(int fd, int64_t ms);
int bw_os_mkdir(int dir_fd, const char *path, mode_t mode);
int bw_os_link(int old_dir, const char *old_path, int new_dir, const char *new_path);
int bw_os_rename(int old_dir, const char *old_path, int new_dir, const char *new_path);
int bw_os_unlink(int dir_fd, const char *path, int flags);
int bw_os_flock(int fd, int operation);
/* A non-blocking UNIX stream socket; connect to a path of at most 107 bytes; send and receive what fits now (EAGAIN otherwise;
 * a vanished peer is EPIPE, never a signal). */
int bw_os_unix_socket(void);
int bw_os_unix_connect(int fd, const char *path);
struct iovec;
ssize_t bw_os_sendv(int fd, const struct iovec *pieces, int count);
ssize_t bw_os_recv(int fd, void *buf, size_t len, int flags);
/* The server's side: bind (umask set aside: the socket has exactly this mode) and listen; accept a non-blocking connection; how much
 * the kernel may hold of what is sent (asked for; it gives what it allows); who is at the other end, -1 where that is unknown. */
int bw_os_unix_listen(int fd, const char *path, mode_t mode);
int bw_os_accept(int fd);
void bw_os_set_send_room(int fd, int bytes);
void bw_os_unix_peer(int fd, int64_t *uid, int64_t *gid, int64_t *pid);
/* Internet sockets: a non-blocking stream socket of a family; connect (EINPROGRESS is normal); bind and listen (a port that a dead
 * process left behind is taken again; an IPv6 wildcard takes IPv4 too); how a connection shall be: no gathering of small pieces, and how
 * long nothing may be heard before the peer is asked (keep-alive), or taken for dead. */
struct sockaddr;
int bw_os_stream_socket(int family);
int bw_os_connect(int fd, const struct sockaddr *address, unsigned length);
int bw_os_listen(int fd, const struct sockaddr *address, unsigned length);
void bw_os_tcp_tune(int fd, int keep_alive_s, int dead_ms);
/* epoll: create, add (EPOLL_CTL_ADD), change, remove; wait at most timeout_ms (-1: for ever), 0 on EINTR. */
struct epoll_event;
int bw_os_epoll_create(void);
int bw_os_epoll_ctl(int epoll_fd, int operation, int fd, uint32_t events, void *data);
int bw_os_epoll_wait(int epoll_fd, struct epoll_event *events, int count, int timeout_ms);
/* bw_os_stat_at: fstatat without following links. */
int bw_os_stat_at(int dir_fd, const char *path, struct stat *st);
/* bw_os_chown_at: fchownat without following links; (uid_t)-1, (gid_t)-1: leave as it is. */
int bw_os_chown_at(int dir_fd, const char *path, uid_t uid, gid_t gid);
int bw_os_chmod_at(int dir_fd, const char *path, mode_t mode); /* follows links: no symbolic link may lie there */
/* bw_os_list_dir: fn for each entry but "." and ".."; false stops. 0, or -1 and errno. dir_fd is not consumed. */
int bw_os_list_dir(int dir_fd, bool (*fn)(void *opaque, const char *name), void *opaque);
/* bw_os_free_bytes: what an ordinary user may still allocate on the file system of fd; -1 and errno. */
int64_t bw_os_free_bytes(int fd);
/* bw_os_total_bytes: the size of the file system of fd; -1 and errno. */
int64_t bw_os_total_bytes(int fd);

/* bw_os_populate: MADV_POPULATE_WRITE/READ over [addr, addr+len), page-aligned outward; 0, or an errno (ENOSPC, EFAULT for
 * past the end of file, EIO). Where the kernel lacks it (EINVAL) returns EOPNOTSUPP. */
int bw_os_populate(void *addr, size_t len, bool for_write);

/* Futexes, shared between processes. wait: 0 woken or value differed, ETIMEDOUT, EINTR (as positive return). timeout in ns, -1: none. */
int bw_os_futex_wait(const _Atomic uint32_t *word, uint32_t expected, int64_t timeout_ns);
int bw_os_futex_wake(_Atomic uint32_t *word, int count);
/* bw_os_futex_wait_any: as futex_wait, on up to 128 words at once; ENOSYS where the kernel (< 5.16) can't. */
typedef struct bw_os_futex { const _Atomic uint32_t *word; uint32_t expected; } bw_os_futex;
int bw_os_futex_wait_any(const bw_os_futex *words, uint32_t count, int64_t timeout_ns);

/* io_uring: set up a ring of so many entries (its descriptor, and *params filled in; ENOSYS, EPERM: there is none here); hand over count
 * entries without waiting for anything; register. knows: the kernel does this operation. */
struct io_uring_params;
int bw_os_ring_setup(uint32_t entries, struct io_uring_params *params);
int bw_os_ring_enter(int fd, uint32_t count, uint32_t flags);
int bw_os_ring_register(int fd, uint32_t what, const void *arg, uint32_t count);
bool bw_os_ring_knows(int fd, uint8_t operation);

/* bw_os_yield: whoever waits for this processor goes first. */
void bw_os_yield(void);
/* membarrier(2), GLOBAL_EXPEDITED. register: this process's threads answer to barriers of others; false: the kernel (< 4.16) or a
 * sandbox does not allow it, or BUSWAY_NO_MEMBARRIER is set. barrier: when it returns true every running thread of every registered
 * process has executed a full barrier since the call. */
bool bw_os_membarrier_register(void);
bool bw_os_membarrier(void);

/* bw_os_is_unshared: nobody but this descriptor has the file open or mapped, in any process: the kernel would grant a lease for writing.
 * false also where that can't be told (another's file, no leases). bw_os_is_cached: nearly all of its first len bytes are in the page
 * cache; false where that can't be told. */
bool bw_os_is_unshared(int fd);
bool bw_os_is_cached(int fd, off_t len);

/* bw_os_memory_limit: the memory that this process may use: the machine's, or what the nearest cgroup (v1 or v2) above it allows. */
int64_t bw_os_memory_limit(void);

/* Identity of a process: pid alone is reused. start_time is field 22 of /proc/pid/stat; 0 when there is none. */
uint64_t bw_os_process_start_time(pid_t pid);
/* Inode of this process's PID namespace (/proc/self/ns/pid), 0 when unknown. */
uint64_t bw_os_pid_namespace(void);
/* The machine's boot id, 16 bytes. */
int bw_os_boot_id(uint8_t out[16]);
/* 16 random bytes (getrandom), as a version 4 UUID. */
int bw_os_uuid(uint8_t out[16]);
int bw_os_random(void *out, size_t len);

/* fork guard: a page that reads as 0 in a forked child (MADV_WIPEONFORK). NULL when memory is short. */
typedef struct bw_fork_guard { uint32_t *word; } bw_fork_guard;
int bw_fork_guard_init(bw_fork_guard *g);
void bw_fork_guard_fini(bw_fork_guard *g);
static inline bool bw_forked(const bw_fork_guard *g) { return __builtin_expect(*(volatile uint32_t *)g->word == 0, 0); }

/* bw_os_fs_kind: what the file system of fd allows (base/fs_kind.h); DOUBTFUL when it can't be told. */
bw_fs_kind bw_os_fs_kind(int fd, const char **name);
/* Is the file system of fd one that keeps a shared map coherent and local (not NFS, CIFS, 9p, virtiofs, FUSE)? name, if given,
 * gets a static text ("ext4", "tmpfs", "fuse"…). */
bool bw_os_fs_is_local(int fd, const char **name);
bool bw_os_fs_is_tmpfs(int fd);

#endif
