/* log/datadir.c: the data directory's own files: format version, generation, locks.
 *
 * Invariants. Whoever holds daemon.lock is the coordinator. The generation changes only under the exclusive writers.lock, so that
 * no direct writer is ever attached to two lives of the control data. Small files are replaced whole, by renaming;
 * a reader sees the old or the new content. What counts only while control data lives, generation and clock, is not synced. */
#include "log/datadir.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "base/os.h"
#include "format/names.h"
#include "log/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define FORMAT_FILE "busway.format"
#define GENERATION_FILE "generation"
#define META_FOLDER "meta" /* made here only so that the folder's first sync is enough for its name, too */
#define DAEMON_LOCK "daemon.lock"
#define WRITERS_LOCK "writers.lock"

enum { LOCK_NAP_NS = 2000000, DYING_MS = 250, HOLDERS_MAX = 16, LOCKS_TEXT_MAX = 1 << 20 };

/* mkdir -p: existing folders are left as they are. */
static int make_path(const char *path)
{
    char *copy = strdup(path);
    if (!copy) return -1;
    int result = 0;
    for (char *p = copy + 1; result == 0; p++) {
        if (*p != '/' && *p != '\0') continue;
        char kept = *p;
        *p = '\0';
        if (bw_os_mkdir(AT_FDCWD, copy, 0750) != 0 && errno != EEXIST) result = -1;
        *p = kept;
        if (kept == '\0') break;
    }
    int saved = errno;
    free(copy);
    errno = saved;
    return result;
}

static bw_err open_folder(const char *path, bool create, bw_datadir **out)
{
    if (!path || !*path) return bw_fail(BW_ERR_INVALID_ARGUMENT, "no data directory given");
    bw_datadir *d = calloc(1, sizeof *d);
    if (!d) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the data directory");
    d->daemon_lock_fd = d->writers_lock_fd = -1;
    d->fd = bw_os_open_named(path, O_RDONLY | O_DIRECTORY, 0);
    if (d->fd < 0 && errno == ENOENT && create && make_path(path) == 0) d->fd = bw_os_open_named(path, O_RDONLY | O_DIRECTORY, 0);
    if (d->fd < 0) {
        bw_err e = bw_fail_errno(errno, "cannot open data directory %s", path);
        free(d);
        return e;
    }
    d->path = realpath(path, NULL);
    if (!d->path) d->path = strdup(path);
    if (!d->path) {
        bw_datadir_close(d);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for the data directory's name");
    }
    *out = d;
    return BW_OK;
}

static bw_err check_owner(const bw_datadir *d)
{
    struct stat st;
    if (bw_os_fstat(d->fd, &st) != 0) return bw_fail_errno(errno, "cannot stat data directory %s", d->path);
    if (st.st_uid != geteuid())
        return bw_fail(BW_ERR_NOT_PERMITTED, "data directory %s belongs to uid %u, this daemon runs as uid %u; run it as the owner",
                       d->path, (unsigned)st.st_uid, (unsigned)geteuid());
    if (st.st_mode & S_IWOTH)
        return bw_fail(BW_ERR_NOT_PERMITTED, "data directory %s may be written by everybody; chmod o-w it", d->path);
    return BW_OK;
}

/* Two hosts that share a folder would each find its locks free, and neither what the other has mapped. */
static bw_err check_file_system(const bw_datadir *d)
{
    const char *name;
    if (bw_os_fs_kind(d->fd, &name) != BW_FS_NETWORK) return BW_OK;
    return bw_fail(BW_ERR_UNSUPPORTED, "data directory %s lies on %s, a network file system, where neither locks nor shared maps can be relied "
                   "on; move it to a local disk (reading it is possible: dir:%s?mode=ro)", d->path, name, d->path);
}

/* NOT_FOUND when there is no format file. */
static bw_err check_format(const bw_datadir *d)
{
    char text[64];
    size_t len;
    bw_err e = bw_smallfile_read(d->fd, FORMAT_FILE, text, sizeof text, &len);
    if (e) return e;
    unsigned long number = 0;
    char newline = 0;
    if (sscanf(text, "busway data format %lu%c", &number, &newline) != 2 || newline != '\n' || number == 0)
        return bw_fail(BW_ERR_CORRUPT, "%s/%s is not a Busway format file", d->path, FORMAT_FILE);
    if (number > BW_DATA_FORMAT)
        return bw_fail(BW_ERR_NEWER_FORMAT, "data directory %s has format %lu, this version knows up to %d; use a newer Busway",
                       d->path, number, BW_DATA_FORMAT);
    return BW_OK;
}

static bw_err read_generation(bw_datadir *d)
{
    char text[40];
    size_t len;
    bw_uuid id;
    bw_err e = bw_smallfile_read(d->fd, GENERATION_FILE, text, sizeof text, &len);
    if (e) return e;
    if (len != 33 || text[32] != '\n') return bw_fail(BW_ERR_CORRUPT, "%s/%s is not 32 hex digits", d->path, GENERATION_FILE);
    text[32] = '\0';
    if (!bw_uuid_from_hex(text, &id)) return bw_fail(BW_ERR_CORRUPT, "%s/%s is not 32 hex digits", d->path, GENERATION_FILE);
    memcpy(d->generation, id.b, sizeof d->generation);
    return BW_OK;
}

static bw_err take_daemon_lock(bw_datadir *d)
{
    int fd = bw_os_open_beneath(d->fd, DAEMON_LOCK, O_RDWR | O_CREAT, 0640);
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s/%s", d->path, DAEMON_LOCK);
    char text[32] = "";
    /* A daemon that was killed may leave a child for a moment, which dies with it, but after it, and holds the lock until then. */
    int failed;
    bw_deadline deadline = bw_deadline_in_ms(DYING_MS);
    while ((failed = bw_os_flock(fd, LOCK_EX | LOCK_NB)) != 0 && errno == EWOULDBLOCK && bw_deadline_left_ns(deadline) > 0) {
        _Atomic uint32_t nap = 0;
        (void)bw_os_futex_wait(&nap, 0, LOCK_NAP_NS);
    }
    if (failed) {
        int saved = errno;
        ssize_t n = bw_os_pread(fd, text, sizeof text - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        text[strcspn(text, "\n")] = '\0';
        bw_os_close(fd);
        if (saved == EWOULDBLOCK)
            return bw_fail(BW_ERR_ALREADY_RUNNING, "data directory %s is in use by the daemon with pid %s; use that one, or stop it first",
                           d->path, text[0] ? text : "(unknown)");
        return bw_fail(BW_ERR_UNSUPPORTED, "data directory %s is on a file system without flock: %s", d->path, strerror(saved));
    }
    int n = snprintf(text, sizeof text, "%d\n", (int)getpid());
    if (bw_os_ftruncate(fd, 0) != 0 || bw_os_pwrite(fd, text, (size_t)n, 0) < 0) {
        bw_err e = bw_fail_errno(errno, "cannot write %s/%s", d->path, DAEMON_LOCK);
        bw_os_close(fd);
        return e;
    }
    d->daemon_lock_fd = fd;
    return BW_OK;
}

/* "….<32 hex digits>-delete" or "-new": partition folders on their way out, or in and never named (log/partition.c). */
static bool is_left_over(const char *name)
{
    char hex[33];
    bw_uuid id;
    const char *what = strrchr(name, '-');
    if (!what || what - name < 33 || what[-33] != '.' || (strcmp(what, "-delete") != 0 && strcmp(what, "-new") != 0)) return false;
    memcpy(hex, what - 32, 32);
    hex[32] = '\0';
    return bw_uuid_from_hex(hex, &id);
}

static bool remove_left_over(void *opaque, const char *name)
{
    const bw_datadir *d = opaque;
    if (is_left_over(name)) (void)bw_folder_remove(d->fd, name);
    return true;
}

bw_err bw_datadir_open_coordinator(const char *path, bool create, bw_datadir **out)
{
    bw_datadir *d;
    bw_err e = open_folder(path, create, &d);
    if (e) return e;
    e = check_owner(d);
    if (!e) e = check_file_system(d);
    if (!e) e = check_format(d);
    bool fresh = e == BW_ERR_NOT_FOUND && create;
    if (!e || fresh) e = take_daemon_lock(d);
    if (!e && fresh && bw_os_mkdir(d->fd, META_FOLDER, 0700) != 0 && errno != EEXIST)
        e = bw_fail_errno(errno, "cannot make %s/%s", d->path, META_FOLDER);
    if (!e && fresh) e = bw_smallfile_replace(d->fd, FORMAT_FILE, "busway data format 1\n", 21);
    BW_KILL_POINT("datadir.format");
    if (!e) {
        int fd = bw_os_open_beneath(d->fd, WRITERS_LOCK, O_RDWR | O_CREAT, 0600);
        if (fd < 0) e = bw_fail_errno(errno, "cannot open %s/%s", d->path, WRITERS_LOCK);
        bw_os_close(fd);
    }
    if (!e) {
        e = read_generation(d);
        if (e == BW_ERR_NOT_FOUND || e == BW_ERR_CORRUPT) {
            uint8_t generation[16];
            e = bw_os_uuid(generation) == 0 ? bw_datadir_set_generation(d, generation)
                                            : bw_fail_errno(errno, "no random numbers for a generation id");
            d->generation_is_new = !e;
        }
    }
    if (!e) (void)bw_os_list_dir(d->fd, remove_left_over, d);
    if (e) {
        bw_datadir_close(d);
        return e;
    }
    *out = d;
    return BW_OK;
}

bw_err bw_datadir_open_client(const char *path, bw_datadir **out)
{
    bw_datadir *d;
    bw_err e = open_folder(path, false, &d);
    if (e) return e;
    e = check_format(d);
    if (!e) e = read_generation(d);
    if (e) {
        bw_datadir_close(d);
        return e;
    }
    *out = d;
    return BW_OK;
}

static bool is_partition(void *opaque, const char *name)
{
    char topic[BW_TOPIC_NAME_MAX + 1];
    int32_t partition;
    *(bool *)opaque = bw_partition_dir_parse(name, topic, &partition);
    return !*(bool *)opaque;
}

bw_err bw_datadir_open_readonly(const char *path, bw_datadir **out)
{
    bw_datadir *d;
    bw_err e = open_folder(path, false, &d);
    if (e) return e;
    e = check_format(d);
    if (e == BW_ERR_NOT_FOUND) { /* of Kafka, or a part of a copy */
        bool found = false;
        if (bw_os_list_dir(d->fd, is_partition, &found)) e = bw_fail_errno(errno, "cannot list folder %s", d->path);
        else if (found) e = BW_OK;
        else e = bw_fail(BW_ERR_NOT_FOUND, "%s is no data directory: neither %s nor a partition's folder lies there", d->path, FORMAT_FILE);
    }
    if (e) {
        bw_datadir_close(d);
        return e;
    }
    *out = d;
    return BW_OK;
}

void bw_datadir_close(bw_datadir *d)
{
    if (!d) return;
    bw_datadir_unlock_writers(d);
    bw_os_close(d->daemon_lock_fd);
    bw_os_close(d->fd);
    free(d->path);
    free(d);
}

bw_err bw_datadir_set_generation(bw_datadir *d, const uint8_t generation[16])
{
    bw_uuid id;
    char text[34];
    memcpy(id.b, generation, sizeof id.b);
    bw_uuid_hex(&id, text);
    text[32] = '\n';
    /* Without a sync: it names control data in memory, which no loss of power survives; what it leaves reads as a new one. */
    bw_err e = bw_smallfile_put(d->fd, GENERATION_FILE, text, 33);
    if (!e) memcpy(d->generation, generation, sizeof d->generation);
    return e;
}

/* ---- writers.lock ---- */

static bw_err open_writers_lock(bw_datadir *d, int *fd)
{
    *fd = bw_os_open_beneath(d->fd, WRITERS_LOCK, O_RDONLY, 0);
    return *fd < 0 ? bw_fail_errno(errno, "cannot open %s/%s", d->path, WRITERS_LOCK) : BW_OK;
}

bw_err bw_datadir_lock_writers_shared(bw_datadir *d, int timeout_ms)
{
    if (d->writers_lock_fd >= 0) return BW_OK;
    int fd;
    bw_err e = open_writers_lock(d, &fd);
    if (e) return e;
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    while (bw_os_flock(fd, LOCK_SH | LOCK_NB) != 0) {
        int saved = errno;
        if (saved == EWOULDBLOCK && bw_deadline_left_ns(deadline) > 0) {
            _Atomic uint32_t nap = 0;
            (void)bw_os_futex_wait(&nap, 0, LOCK_NAP_NS);
            continue;
        }
        bw_os_close(fd);
        if (saved != EWOULDBLOCK) return bw_fail_errno(saved, "cannot lock %s/%s", d->path, WRITERS_LOCK);
        return bw_fail(BW_ERR_BUSY, "the daemon is making the control data of %s anew; try again", d->path);
    }
    d->writers_lock_fd = fd;
    return BW_OK;
}

/* Reads a file of /proc whole, at most `most` bytes; NULL on any trouble. */
static char *read_proc(const char *path, size_t most)
{
    int fd = bw_os_open(AT_FDCWD, path, O_RDONLY, 0);
    char *text = fd < 0 ? NULL : malloc(most + 1);
    ssize_t n = text ? bw_os_pread(fd, text, most, 0) : -1;
    bw_os_close(fd);
    if (n < 0) {
        free(text);
        return NULL;
    }
    text[n] = '\0';
    return text;
}

/* Who holds a flock on fd, as "12, 34"; from /proc/locks: "1: FLOCK ADVISORY READ <pid> <major>:<minor>:<inode> 0 EOF". */
static void lock_holders(int fd, char *out, size_t size)
{
    snprintf(out, size, "unknown");
    struct stat st;
    char *text = read_proc("/proc/locks", LOCKS_TEXT_MAX);
    if (!text || bw_os_fstat(fd, &st) != 0) {
        free(text);
        return;
    }
    size_t used = 0;
    int found = 0;
    for (char *line = text, *save = NULL; (line = strtok_r(line, "\n", &save)) != NULL && found < HOLDERS_MAX; line = NULL) {
        int pid;
        unsigned major_number, minor_number;
        uint64_t inode;
        if (sscanf(line, "%*s FLOCK %*s %*s %d %x:%x:%" SCNu64, &pid, &major_number, &minor_number, &inode) != 4) continue;
        if (inode != (uint64_t)st.st_ino) continue;
        int n = snprintf(out + used, size - used, "%s%d", found ? ", " : "", pid);
        if (n < 0 || (size_t)n >= size - used) break;
        used += (size_t)n;
        found++;
    }
    free(text);
}

bw_err bw_datadir_lock_writers_exclusive(bw_datadir *d)
{
    int fd = d->writers_lock_fd;
    if (fd < 0) {
        bw_err e = open_writers_lock(d, &fd);
        if (e) return e;
    }
    if (bw_os_flock(fd, LOCK_EX | LOCK_NB) == 0) {
        d->writers_lock_fd = fd;
        return BW_OK;
    }
    int saved = errno;
    char holders[256];
    lock_holders(fd, holders, sizeof holders);
    if (fd != d->writers_lock_fd) bw_os_close(fd);
    if (saved != EWOULDBLOCK) return bw_fail_errno(saved, "cannot lock %s/%s", d->path, WRITERS_LOCK);
    return bw_fail(BW_ERR_BUSY, "%s has direct writers attached (pid %s); stop them first", d->path, holders);
}

void bw_datadir_unlock_writers(bw_datadir *d)
{
    if (d->writers_lock_fd < 0) return;
    bw_os_close(d->writers_lock_fd); /* the lock goes with its only descriptor */
    d->writers_lock_fd = -1;
}
