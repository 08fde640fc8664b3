/* tests/battery/block_disk.c: memory served as a file by FUSE, and the loop device on it.
 *
 * The server is one thread: a write is in the log before it is answered, a flush is logged when it is served, so that the log's
 * order is one in which the disk may have seen them. The file is opened for direct input and output: nothing is cached between
 * the loop device and this process. */
#define FUSE_USE_VERSION 31
#include "block.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { FILE_INODE = 2, UNMOUNT_TRIES = 400 };
#define FILE_NAME "disk"

int64_t block_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

void *block_shared_memory(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) {
        perror("shared memory");
        abort();
    }
    return p;
}

/* ---- the server ---- */

static void fill_stat(fuse_ino_t inode, struct stat *st)
{
    *st = (struct stat){.st_ino = inode, .st_nlink = 1, .st_mode = S_IFDIR | 0700};
    if (inode != FILE_INODE) return;
    st->st_mode = S_IFREG | 0600;
    st->st_size = BLOCK_DISK_BYTES;
    st->st_blksize = BLOCK_PAGE;
    st->st_blocks = BLOCK_DISK_BYTES / 512;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e = {.ino = FILE_INODE, .attr_timeout = 3600, .entry_timeout = 3600};
    if (parent != FUSE_ROOT_ID || strcmp(name, FILE_NAME) != 0) {
        fuse_reply_err(req, ENOENT);
        return;
    }
    fill_stat(FILE_INODE, &e.attr);
    fuse_reply_entry(req, &e);
}

static void on_getattr(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    struct stat st;
    (void)info;
    fill_stat(inode, &st);
    fuse_reply_attr(req, &st, 3600);
}

static void on_open(fuse_req_t req, fuse_ino_t inode, struct fuse_file_info *info)
{
    if (inode != FILE_INODE) {
        fuse_reply_err(req, EISDIR);
        return;
    }
    info->direct_io = 1;
    fuse_reply_open(req, info);
}

static void on_read(fuse_req_t req, fuse_ino_t inode, size_t size, off_t at, struct fuse_file_info *info)
{
    const block_disk *d = fuse_req_userdata(req);
    (void)inode;
    (void)info;
    if (at >= BLOCK_DISK_BYTES)
        size = 0;
    else if (size > (size_t)(BLOCK_DISK_BYTES - at))
        size = (size_t)(BLOCK_DISK_BYTES - at);
    fuse_reply_buf(req, (const char *)d->bytes + at, size);
}

static void log_write(block_log *log, const void *data, uint64_t at, uint32_t len)
{
    uint64_t n = atomic_load(&log->count), used = atomic_load(&log->bytes);
    if (n == BLOCK_WRITES_MAX || used + len > BLOCK_LOG_BYTES) {
        atomic_store(&log->full, true);
        return;
    }
    log->writes[n] = (block_write){.data = used, .at = at, .len = len};
    if (len) memcpy(log->data + used, data, len);
    atomic_store(&log->bytes, used + len);
    atomic_store(&log->count, n + 1);
}

static void on_write(fuse_req_t req, fuse_ino_t inode, const char *data, size_t size, off_t at, struct fuse_file_info *info)
{
    const block_disk *d = fuse_req_userdata(req);
    (void)inode;
    (void)info;
    if (at < 0 || at + (off_t)size > BLOCK_DISK_BYTES) {
        fuse_reply_err(req, ENOSPC);
        return;
    }
    if (size) {
        log_write(d->log, data, (uint64_t)at, (uint32_t)size);
        memcpy(d->bytes + at, data, size);
        memset(d->touched + at / BLOCK_PAGE, 1, (size_t)((at + (off_t)size + BLOCK_PAGE - 1) / BLOCK_PAGE - at / BLOCK_PAGE));
    }
    fuse_reply_write(req, size);
}

static void on_fsync(fuse_req_t req, fuse_ino_t inode, int data_only, struct fuse_file_info *info)
{
    const block_disk *d = fuse_req_userdata(req);
    (void)inode;
    (void)data_only;
    (void)info;
    log_write(d->log, NULL, 0, 0);
    fuse_reply_err(req, 0);
}

static void serve(block_disk *d, int ready_fd)
{
    static const struct fuse_lowlevel_ops ops = {
        .lookup = on_lookup,
        .getattr = on_getattr,
        .open = on_open,
        .read = on_read,
        .write = on_write,
        .fsync = on_fsync,
    };
    char name[] = "block";
    char *argv[] = {name, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)setpriority(PRIO_PROCESS, 0, -10); /* little work, and everybody waits for it */
    struct fuse_session *s = fuse_session_new(&args, &ops, sizeof ops, d);
    if (!s || fuse_session_mount(s, d->folder) != 0) _exit(1);
    if (write(ready_fd, "r", 1) != 1) _exit(1);
    close(ready_fd);
    _exit(fuse_session_loop(s) == 0 ? 0 : 1);
}

/* ---- the loop device ---- */

static bool attach(block_disk *d, int file)
{
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    for (int i = 0; control >= 0 && i < 50; i++) {
        int n = ioctl(control, LOOP_CTL_GET_FREE);
        if (n < 0) break;
        snprintf(d->device, sizeof d->device, "/dev/loop%d", n);
        (void)mknod(d->device, S_IFBLK | 0600, makedev(7, (unsigned)n));
        d->device_fd = open(d->device, O_RDWR | O_CLOEXEC);
        if (d->device_fd < 0) break;
        struct loop_config c = {.fd = (uint32_t)file, .block_size = 512, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
        if (ioctl(d->device_fd, LOOP_CONFIGURE, &c) == 0) {
            close(control);
            return true;
        }
        close(d->device_fd); /* somebody else was faster */
        d->device_fd = -1;
        if (errno != EBUSY) break;
    }
    if (control >= 0) close(control);
    return false;
}

bool block_disk_start(block_disk *d, const char *folder, const char **why)
{
    char path[160];
    int ready[2], status;
    *why = "/dev/fuse cannot be opened, or FUSE may not be mounted";
    snprintf(d->folder, sizeof d->folder, "%s", folder);
    d->device_fd = -1;
    if (access("/dev/fuse", R_OK | W_OK) || pipe2(ready, O_CLOEXEC)) return false;
    fflush(NULL);
    d->server = fork();
    if (d->server == 0) {
        close(ready[0]);
        serve(d, ready[1]);
    }
    close(ready[1]);
    char byte;
    bool up = d->server > 0 && read(ready[0], &byte, 1) == 1;
    close(ready[0]);
    if (!up) {
        if (d->server > 0) waitpid(d->server, &status, 0);
        return false;
    }
    snprintf(path, sizeof path, "%s/" FILE_NAME, d->folder);
    int file = open(path, O_RDWR | O_CLOEXEC);
    *why = "no loop device can be had on a FUSE file";
    bool good = file >= 0 && attach(d, file);
    if (file >= 0) close(file);
    if (!good) block_disk_stop(d);
    return good;
}

void block_disk_stop(block_disk *d)
{
    int status;
    if (d->device_fd >= 0) close(d->device_fd); /* the last one: the device clears itself */
    d->device_fd = -1;
    (void)umount2(d->folder, MNT_DETACH);
    kill(d->server, SIGKILL);
    waitpid(d->server, &status, 0);
}

bool block_mount(const block_disk *d, const char *where, const char *options)
{
    if (ioctl(d->device_fd, BLKFLSBUF, 0) != 0) return false; /* what the device's cache keeps is of another image */
    return mount(d->device, where, "ext4", MS_NODEV | MS_NOSUID, options) == 0;
}

static int remove_one(const char *path, const struct stat *st, int what, struct FTW *at)
{
    (void)st;
    (void)what;
    (void)at;
    return remove(path);
}

void block_empty_folder(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    if (mkdir(path, 0700) != 0) {
        perror(path);
        abort();
    }
}

bool block_unmount(const char *where)
{
    for (int i = 0; i < UNMOUNT_TRIES; i++) { /* a process that just ended may still hold it for a moment */
        if (umount(where) == 0) return true;
        if (errno != EBUSY) return false;
        usleep(2000);
    }
    return false;
}
