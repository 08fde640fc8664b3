/* tests/battery/memfs.c: see memfs.h.
 *
 * Invariants: a descriptor is MEMFS_FD + an index of `handles`; DATA and FOLDER are the two directories; an inode lives while a
 * name or a descriptor leads to it; bytes of an inode behind its size are zero. */
#include "memfs.h"

#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { INODES = 1024, HANDLES = 1024, NAME_BYTES = 80 };
enum { FREE, DATA, FOLDER, OPEN };

typedef struct inode {
    uint8_t *data;          /* MEMFS_FILE_BYTES, kept for the next file */
    uint32_t size, touched; /* touched: bytes that may be other than zero */
    int names, opens;
} inode;

static struct {
    char folder[NAME_BYTES];
    inode inodes[INODES];
    struct {
        uint64_t key;
        char text[NAME_BYTES];
        int inode;
    } names[INODES];
    int name_count;
    uid_t uid;
    struct {
        int what, inode;
    } handles[HANDLES];
    int handles_used;
} fs;

static void must(bool good, const char *what)
{
    if (good) return;
    fprintf(stderr, "memfs: %s\n", what);
    abort();
}

static int fail(int error)
{
    errno = error;
    return -1;
}

static inline bool ours(int fd) { return fd >= MEMFS_FD; }

static int what_of(int fd)
{
    must(fd - MEMFS_FD < HANDLES && fs.handles[fd - MEMFS_FD].what != FREE, "a descriptor that is not open");
    return fs.handles[fd - MEMFS_FD].what;
}

static inode *inode_of(int fd)
{
    must(what_of(fd) == OPEN, "a descriptor of no file");
    return &fs.inodes[fs.handles[fd - MEMFS_FD].inode];
}

static int new_handle(int what, int number)
{
    for (int i = 0; i < HANDLES; i++) {
        if (fs.handles[i].what != FREE) continue;
        fs.handles[i].what = what;
        fs.handles[i].inode = number;
        if (what == OPEN) fs.inodes[number].opens++;
        if (i >= fs.handles_used) fs.handles_used = i + 1;
        return MEMFS_FD + i;
    }
    return fail(EMFILE);
}

static void set_size(inode *n, uint32_t size)
{
    must(size <= MEMFS_FILE_BYTES, "a file is too large");
    if (size < n->size && n->touched > size) {
        memset(n->data + size, 0, n->touched - size);
        n->touched = size;
    }
    n->size = size;
}

static int new_inode(void)
{
    for (int i = 0; i < INODES; i++) {
        inode *n = &fs.inodes[i];
        if (n->names || n->opens) continue;
        if (!n->data) n->data = calloc(1, MEMFS_FILE_BYTES);
        must(n->data != NULL, "no memory");
        set_size(n, 0);
        return i;
    }
    must(false, "too many files");
    return -1;
}

static int find_name(const char *text)
{
    uint64_t key = memfs_key(text);
    for (int i = 0; i < fs.name_count; i++)
        if (fs.names[i].key == key) return i;
    must(strchr(text, '/') == NULL, "a path of several parts");
    return -1;
}

static void add_name(const char *text, int number)
{
    must(fs.name_count < INODES && strlen(text) < NAME_BYTES, "too many names, or a long one");
    strcpy(fs.names[fs.name_count].text, text);
    fs.names[fs.name_count].key = memfs_key(text);
    fs.names[fs.name_count++].inode = number;
    fs.inodes[number].names++;
}

static void drop_name(int at)
{
    fs.inodes[fs.names[at].inode].names--;
    fs.names[at] = fs.names[--fs.name_count];
}

int memfs_reset(const char *folder)
{
    for (int i = 0; i < fs.handles_used; i++) {
        must(fs.handles[i].what != OPEN && fs.handles[i].what != FOLDER, "a descriptor was left open");
        fs.handles[i].what = FREE;
    }
    while (fs.name_count) drop_name(fs.name_count - 1);
    snprintf(fs.folder, sizeof fs.folder, "%s", folder);
    fs.handles_used = 0;
    fs.uid = geteuid();
    return new_handle(DATA, -1);
}

void memfs_put(const char *name, const void *bytes, uint32_t size)
{
    int number = new_inode();
    inode *n = &fs.inodes[number];
    set_size(n, size);
    memcpy(n->data, bytes, size);
    n->touched = size;
    add_name(name, number);
}

void memfs_link(const char *name, const char *more)
{
    int at = find_name(name);
    must(at >= 0, name);
    add_name(more, fs.names[at].inode);
}

/* ---- what is wrapped ---- */

#define WRAP(type, name, ...)        \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

static int open_here(int dir, const char *path, int flags)
{
    if (what_of(dir) == DATA) {
        if (strcmp(path, fs.folder) != 0) return fail(ENOENT);
        must((flags & (O_CREAT | O_TRUNC)) == 0, "a folder is opened as a file");
        return new_handle(FOLDER, -1);
    }
    if (strcmp(path, ".") == 0) return new_handle(FOLDER, -1);
    int at = find_name(path);
    if (at >= 0 && (flags & O_CREAT) && (flags & O_EXCL)) return fail(EEXIST);
    if (at >= 0 && (flags & O_DIRECTORY)) return fail(ENOTDIR);
    if (at < 0 && !(flags & O_CREAT)) return fail(ENOENT);
    int number = at < 0 ? new_inode() : fs.names[at].inode;
    if (at < 0) add_name(path, number);
    if (flags & O_TRUNC) set_size(&fs.inodes[number], 0);
    return new_handle(OPEN, number);
}

WRAP(int, bw_os_open, int dir_fd, const char *path, int flags, mode_t mode)
{
    return ours(dir_fd) ? open_here(dir_fd, path, flags) : __real_bw_os_open(dir_fd, path, flags, mode);
}

WRAP(int, bw_os_open_beneath, int dir_fd, const char *path, int flags, mode_t mode)
{
    return ours(dir_fd) ? open_here(dir_fd, path, flags) : __real_bw_os_open_beneath(dir_fd, path, flags, mode);
}

WRAP(int, bw_os_close, int fd)
{
    if (!ours(fd)) return __real_bw_os_close(fd);
    if (what_of(fd) == OPEN) inode_of(fd)->opens--;
    fs.handles[fd - MEMFS_FD].what = FREE;
    return 0;
}

/* The engine keeps copies of the folder's descriptor. */
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    int arg = va_arg(list, int);
    va_end(list);
    if (!ours(fd)) return __real_fcntl(fd, command, arg);
    must(command == F_DUPFD_CLOEXEC, "fcntl");
    return new_handle(what_of(fd), fs.handles[fd - MEMFS_FD].inode);
}

WRAP(ssize_t, bw_os_pread, int fd, void *buf, size_t len, off_t at)
{
    if (!ours(fd)) return __real_bw_os_pread(fd, buf, len, at);
    const inode *n = inode_of(fd);
    if (at >= (off_t)n->size) return 0;
    size_t most = n->size - (size_t)at;
    if (len > most) len = most;
    memcpy(buf, n->data + at, len);
    return (ssize_t)len;
}

WRAP(ssize_t, bw_os_pwrite, int fd, const void *buf, size_t len, off_t at)
{
    if (!ours(fd)) return __real_bw_os_pwrite(fd, buf, len, at);
    inode *n = inode_of(fd);
    uint32_t end = (uint32_t)((size_t)at + len);
    if (end > n->size) set_size(n, end);
    memcpy(n->data + at, buf, len);
    if (end > n->touched) n->touched = end;
    return (ssize_t)len;
}

WRAP(int, bw_os_fallocate, int fd, int mode, off_t at, off_t len)
{
    if (!ours(fd)) return __real_bw_os_fallocate(fd, mode, at, len);
    inode *n = inode_of(fd);
    uint32_t end = (uint32_t)(at + len);
    must((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) == 0, "fallocate");
    if (!(mode & FALLOC_FL_KEEP_SIZE) && end > n->size) set_size(n, end);
    uint32_t zero_to = end < n->touched ? end : n->touched;
    if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && at < (off_t)zero_to)
        memset(n->data + at, 0, zero_to - (size_t)at);
    return 0;
}

WRAP(int, bw_os_ftruncate, int fd, off_t len)
{
    if (!ours(fd)) return __real_bw_os_ftruncate(fd, len);
    set_size(inode_of(fd), (uint32_t)len);
    return 0;
}

WRAP(int, bw_os_fdatasync, int fd) { return ours(fd) ? 0 : __real_bw_os_fdatasync(fd); }
WRAP(int, bw_os_fsync, int fd) { return ours(fd) ? 0 : __real_bw_os_fsync(fd); }
/* The world that is lived in: its shadow has every file open and mapped, and would keep the engine from using one again. */
WRAP(bool, bw_os_is_unshared, int fd) { return fd >= 0; }
WRAP(bool, bw_os_is_cached, int fd, off_t len) { return fd >= 0 && len > 0; }
WRAP(int, bw_os_sync_dir, int dir_fd) { return ours(dir_fd) ? 0 : __real_bw_os_sync_dir(dir_fd); }

static int stat_inode(int number, struct stat *st)
{
    const inode *n = &fs.inodes[number];
    *st = (struct stat){.st_ino = (ino_t)number + 1,
                        .st_mode = S_IFREG | 0644,
                        .st_nlink = (nlink_t)n->names,
                        .st_size = n->size,
                        .st_uid = fs.uid,
                        .st_blocks = (n->size + 4095) / 4096 * 8};
    clock_gettime(CLOCK_REALTIME, &st->st_mtim);
    return 0;
}

WRAP(int, bw_os_fstat, int fd, struct stat *st)
{
    return ours(fd) ? stat_inode((inode_of(fd), fs.handles[fd - MEMFS_FD].inode), st) : __real_bw_os_fstat(fd, st);
}

WRAP(int, bw_os_stat_at, int dir_fd, const char *path, struct stat *st)
{
    if (!ours(dir_fd)) return __real_bw_os_stat_at(dir_fd, path, st);
    must(what_of(dir_fd) == FOLDER, "stat in the data directory");
    int at = find_name(path);
    return at < 0 ? fail(ENOENT) : stat_inode(fs.names[at].inode, st);
}

WRAP(int, bw_os_unlink, int dir_fd, const char *path, int flags)
{
    if (!ours(dir_fd)) return __real_bw_os_unlink(dir_fd, path, flags);
    must(what_of(dir_fd) == FOLDER && flags == 0, "unlink");
    int at = find_name(path);
    if (at < 0) return fail(ENOENT);
    drop_name(at);
    return 0;
}

WRAP(int, bw_os_link, int old_dir, const char *old_path, int new_dir, const char *new_path)
{
    if (!ours(old_dir)) return __real_bw_os_link(old_dir, old_path, new_dir, new_path);
    int at = find_name(old_path);
    if (at < 0) return fail(ENOENT);
    if (find_name(new_path) >= 0) return fail(EEXIST);
    add_name(new_path, fs.names[at].inode);
    return 0;
}

WRAP(int, bw_os_rename, int old_dir, const char *old_path, int new_dir, const char *new_path)
{
    if (!ours(old_dir)) return __real_bw_os_rename(old_dir, old_path, new_dir, new_path);
    int at = find_name(old_path), over = find_name(new_path);
    if (at < 0) return fail(ENOENT);
    if (over >= 0 && fs.names[over].inode == fs.names[at].inode) return 0; /* as the kernel does: both names stay */
    int number = fs.names[at].inode;
    fs.inodes[number].names++;
    if (over >= 0) drop_name(over);
    drop_name(find_name(old_path));
    add_name(new_path, number);
    fs.inodes[number].names--;
    return 0;
}

WRAP(int, bw_os_list_dir, int dir_fd, bool (*fn)(void *opaque, const char *name), void *opaque)
{
    if (!ours(dir_fd)) return __real_bw_os_list_dir(dir_fd, fn, opaque);
    static char copy[INODES][NAME_BYTES];
    int count = fs.name_count;
    must(what_of(dir_fd) == FOLDER, "the data directory is listed");
    for (int i = 0; i < count; i++) strcpy(copy[i], fs.names[i].text);
    for (int i = 0; i < count && fn(opaque, copy[i]); i++) {
    }
    return 0;
}

/* Readers look through the folder by hand. */
static struct listing {
    int fd, at;
    struct dirent entry;
} listing = {.fd = -1};

WRAP(DIR *, fdopendir, int fd)
{
    if (!ours(fd)) return __real_fdopendir(fd);
    must(listing.fd < 0 && what_of(fd) == FOLDER, "fdopendir");
    listing = (struct listing){.fd = fd};
    return (DIR *)&listing;
}

WRAP(struct dirent *, readdir, DIR *dir)
{
    if (dir != (DIR *)&listing) return __real_readdir(dir);
    if (listing.at == fs.name_count) return NULL;
    strcpy(listing.entry.d_name, fs.names[listing.at++].text);
    return &listing.entry;
}

WRAP(int, closedir, DIR *dir)
{
    if (dir != (DIR *)&listing) return __real_closedir(dir);
    int fd = listing.fd;
    listing.fd = -1;
    return __wrap_bw_os_close(fd);
}

WRAP(int64_t, bw_os_free_bytes, int fd) { return ours(fd) ? INT64_C(1) << 40 : __real_bw_os_free_bytes(fd); }

/* Never reached with a descriptor of ours: a trial reads and writes with pread and pwrite. */
WRAP(void *, bw_os_mmap, void *addr, size_t len, int prot, int flags, int fd, off_t at)
{
    must(!ours(fd), "mmap");
    return __real_bw_os_mmap(addr, len, prot, flags, fd, at);
}
