/* log/arena_dir.c: the folder on tmpfs that holds the control data of one generation.
 *
 * <runtime>/<generation> when the runtime folder is on tmpfs, else /dev/shm/busway-<uid>/<generation>, where <uid> owns the
 * runtime folder. Several daemons may share either, so each generation's folder says in its file "data" (device and inode of the
 * data directory) whose it is, and only one's own are removed.
 * What nobody will ever use again, because its data directory is gone or has another generation, is swept by whichever daemon shares the
 * place. Its file "folder" says where that directory was. Who uses the control data, coordinators and direct clients, holds a shared flock
 * on the folder: where a path may mean something else here than there (mount namespaces), that keeps it. */
#include "log/datadir.h"

#include "base/os.h"
#include "format/control_page.h"
#include "log/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define OWNER_FILE "data"
#define PLACE_FILE "folder"
#define NOTE_FILE "arena"
#define GENERATION_FILE "generation"
#define GOING "-delete" /* behind the name of one that is being removed */

/* A folder that belongs to uid and that nobody else may write. */
static bw_err open_checked(const char *path, uid_t uid, bool create, mode_t mode, int *out)
{
    if (create && bw_os_mkdir(AT_FDCWD, path, mode) != 0 && errno != EEXIST) return bw_fail_errno(errno, "cannot make %s", path);
    int fd = bw_os_open(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s", path);
    struct stat st;
    bw_err e = BW_OK;
    if (bw_os_fstat(fd, &st) != 0) e = bw_fail_errno(errno, "cannot stat %s", path);
    else if (st.st_uid != uid)
        e = bw_fail(BW_ERR_NOT_PERMITTED, "%s belongs to uid %u, not to uid %u; remove it", path, (unsigned)st.st_uid, (unsigned)uid);
    else if (st.st_mode & S_IWOTH) e = bw_fail(BW_ERR_NOT_PERMITTED, "%s may be written by everybody; chmod o-w it", path);
    if (e) {
        bw_os_close(fd);
        return e;
    }
    *out = fd;
    return BW_OK;
}

static bw_err parent_of(const char *runtime_dir, bool create, char *parent, size_t size, struct stat *runtime)
{
    if (create && bw_os_mkdir(AT_FDCWD, runtime_dir, 0750) != 0 && errno != EEXIST)
        return bw_fail_errno(errno, "cannot make runtime folder %s", runtime_dir);
    int fd = bw_os_open_named(runtime_dir, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open runtime folder %s", runtime_dir);
    bool here = bw_os_fs_is_tmpfs(fd);
    int failed = bw_os_fstat(fd, runtime), saved = errno;
    bw_os_close(fd);
    if (failed) return bw_fail_errno(saved, "cannot stat runtime folder %s", runtime_dir);
    int n = here ? snprintf(parent, size, "%s", runtime_dir)
                 : snprintf(parent, size, "/dev/shm/busway-%u", (unsigned)runtime->st_uid);
    if (n < 0 || (size_t)n >= size) return bw_fail(BW_ERR_INVALID_ARGUMENT, "the runtime folder's name is too long");
    if (here) return BW_OK;
    fd = bw_os_open_named("/dev/shm", O_RDONLY | O_DIRECTORY, 0);
    bool shm = fd >= 0 && bw_os_fs_is_tmpfs(fd);
    bw_os_close(fd);
    if (!shm)
        return bw_fail(BW_ERR_UNSUPPORTED, "neither %s nor /dev/shm is on tmpfs: no direct path; clients use the socket", runtime_dir);
    bw_err e = open_checked(parent, runtime->st_uid, create, 0700, &fd);
    if (!e) bw_os_close(fd);
    return e;
}

void bw_arena_dir_hold(int fd) { (void)bw_os_flock(fd, LOCK_SH | LOCK_NB); }

bw_err bw_arena_dir_open(const char *runtime_dir, const bw_datadir *d, bool create, char *path, size_t path_size, int *fd)
{
    char parent[PATH_MAX];
    struct stat runtime, data;
    bw_err e = parent_of(runtime_dir, create, parent, sizeof parent, &runtime);
    if (e) return e;
    bw_uuid id;
    char hex[33], owner[64];
    memcpy(id.b, d->generation, sizeof id.b);
    bw_uuid_hex(&id, hex);
    int n = snprintf(path, path_size, "%s/%s", parent, hex);
    if (n < 0 || (size_t)n >= path_size) return bw_fail(BW_ERR_INVALID_ARGUMENT, "the runtime folder's name is too long");
    if (bw_os_fstat(d->fd, &data) != 0) return bw_fail_errno(errno, "cannot stat data directory %s", d->path);
    e = open_checked(path, runtime.st_uid, create, 0750, fd);
    if (e) return e;
    bw_arena_dir_hold(*fd);
    if (!create) return BW_OK;
    n = snprintf(owner, sizeof owner, "%" PRIu64 " %" PRIu64 "\n", (uint64_t)data.st_dev, (uint64_t)data.st_ino);
    e = bw_smallfile_put(*fd, OWNER_FILE, owner, (size_t)n); /* tmpfs: a sync would do nothing */
    if (!e && d->path && strlen(d->path) < PATH_MAX) e = bw_smallfile_put(*fd, PLACE_FILE, d->path, strlen(d->path));
    if (e) bw_os_close(*fd);
    return e;
}

bw_err bw_arena_dir_note(const bw_datadir *d, const char *path)
{
    char text[PATH_MAX + 1];
    int n = snprintf(text, sizeof text, "%s\n", path);
    if (n < 0 || n >= (int)sizeof text) return bw_fail(BW_ERR_INVALID_ARGUMENT, "the runtime folder's name is too long");
    return bw_smallfile_put(d->fd, NOTE_FILE, text, (size_t)n); /* not synced: what it names does not survive a loss of power */
}

bw_err bw_arena_dir_open_noted(const bw_datadir *d, char *path, size_t path_size, int *fd)
{
    char text[PATH_MAX + 2], hex[33];
    size_t len;
    bw_uuid id;
    struct stat st;
    memcpy(id.b, d->generation, sizeof id.b);
    bw_uuid_hex(&id, hex);
    bw_err e = bw_smallfile_read(d->fd, NOTE_FILE, text, sizeof text, &len);
    if (e) return e;
    text[strcspn(text, "\n")] = '\0';
    len = strlen(text);
    if (text[0] != '/' || len < 34 || text[len - 33] != '/' || strcmp(text + len - 32, hex) != 0 || len >= path_size)
        return bw_fail(BW_ERR_NOT_FOUND, "no control data of this generation was noted in %s", d->path);
    if (bw_os_fstat(d->fd, &st) != 0) return bw_fail_errno(errno, "cannot stat data directory %s", d->path);
    memcpy(path, text, len + 1);
    e = open_checked(path, st.st_uid, false, 0750, fd);
    if (!e) bw_arena_dir_hold(*fd);
    return e;
}

/* Readers that still look at it learn that it is over: header.retired, which every mapping sees. */
static bool retire_entry(void *opaque, const char *name)
{
    size_t len = strlen(name);
    if (strcmp(name, "mail") != 0 && (len < 5 || strcmp(name + len - 5, ".tail") != 0)) return true;
    int fd = bw_os_open_beneath(*(const int *)opaque, name, O_RDWR, 0);
    struct stat st;
    uint32_t one = 1;
    if (fd >= 0 && bw_os_fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof(bw_control_header))
        (void)bw_os_pwrite(fd, &one, sizeof one, offsetof(bw_control_header, retired));
    bw_os_close(fd);
    return true;
}

static void remove_generation(int parent_fd, const char *name)
{
    int fd = bw_os_open_beneath(parent_fd, name, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return;
    (void)bw_os_list_dir(fd, retire_entry, &fd);
    bw_os_close(fd);
    (void)bw_folder_remove(parent_fd, name);
}

typedef struct other_scan {
    int parent_fd;
    const char *own;
    char owner[64];
} other_scan;

static bool read_owner(int parent_fd, const char *generation, char out[64])
{
    size_t len;
    int fd = bw_os_open_beneath(parent_fd, generation, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return false;
    bw_err e = bw_smallfile_read(fd, OWNER_FILE, out, 64, &len);
    bw_os_close(fd);
    return e == BW_OK;
}

static bool remove_other(void *opaque, const char *name)
{
    const other_scan *s = opaque;
    bw_uuid id;
    char owner[64];
    if (strlen(name) != 32 || !bw_uuid_from_hex(name, &id) || strcmp(name, s->own) == 0) return true;
    if (read_owner(s->parent_fd, name, owner) && strcmp(owner, s->owner) == 0) remove_generation(s->parent_fd, name);
    return true;
}

static int open_parent(const char *arena_path, const char **own)
{
    const char *slash = strrchr(arena_path, '/');
    char parent[PATH_MAX];
    if (!slash || slash == arena_path || (size_t)(slash - arena_path) >= sizeof parent) return -1;
    memcpy(parent, arena_path, (size_t)(slash - arena_path));
    parent[slash - arena_path] = '\0';
    *own = slash + 1;
    return bw_os_open_named(parent, O_RDONLY | O_DIRECTORY, 0);
}

void bw_arena_dir_remove_others(const char *arena_path)
{
    other_scan s;
    s.parent_fd = open_parent(arena_path, &s.own);
    if (s.parent_fd < 0) return;
    if (read_owner(s.parent_fd, s.own, s.owner)) (void)bw_os_list_dir(s.parent_fd, remove_other, &s);
    bw_os_close(s.parent_fd);
}

void bw_arena_dir_remove(const char *arena_path)
{
    const char *own;
    int fd = open_parent(arena_path, &own);
    if (fd < 0) return;
    remove_generation(fd, own);
    bw_os_close(fd);
}

/* ---- what nobody will use again ---- */

/* Nobody can come to the control data `name` of the folder at `place` any more. What can't be told is not gone. */
static bool is_gone(const char *place, const char *name)
{
    char text[40];
    size_t len;
    if (place[0] != '/') return false;
    int fd = bw_os_open_named(place, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return errno == ENOENT || errno == ENOTDIR;
    bw_err e = bw_smallfile_read(fd, GENERATION_FILE, text, sizeof text, &len);
    bw_os_close(fd);
    if (e) return e == BW_ERR_NOT_FOUND;
    return len >= 32 && strncmp(text, name, 32) != 0;
}

typedef struct sweep {
    int parent_fd;
    const char *own;
    uint32_t removed;
} sweep;

static bool sweep_one(void *opaque, const char *name)
{
    sweep *s = opaque;
    char hex[33] = "", place[PATH_MAX], going[48];
    size_t len;
    bw_uuid id;
    struct stat st;
    bool half = strlen(name) == 32 + strlen(GOING) && strcmp(name + 32, GOING) == 0;
    if (!half && strlen(name) != 32) return true;
    memcpy(hex, name, 32);
    if (!bw_uuid_from_hex(hex, &id) || strcmp(name, s->own) == 0) return true;
    int fd = bw_os_open_beneath(s->parent_fd, name, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0) return true;
    bool gone = bw_os_fstat(fd, &st) == 0 && st.st_uid == geteuid();
    if (gone && !half) gone = bw_smallfile_read(fd, PLACE_FILE, place, sizeof place, &len) == BW_OK && is_gone(place, hex);
    if (gone && bw_os_flock(fd, LOCK_EX | LOCK_NB) == 0) {
        snprintf(going, sizeof going, "%s%s", hex, GOING);
        (void)bw_os_list_dir(fd, retire_entry, &fd);
        if (half || bw_os_rename(s->parent_fd, name, s->parent_fd, going) == 0) s->removed += bw_folder_remove(s->parent_fd, going) == BW_OK;
    }
    bw_os_close(fd);
    return true;
}

uint32_t bw_arena_dir_sweep(const char *arena_path)
{
    sweep s = {.removed = 0};
    s.parent_fd = open_parent(arena_path, &s.own);
    if (s.parent_fd < 0) return 0;
    (void)bw_os_list_dir(s.parent_fd, sweep_one, &s);
    bw_os_close(s.parent_fd);
    return s.removed;
}
