/* state/env.c: opening a store: its folder, who owns it, taking it over. See env.h. */
#include "state/internal.h"

#include "base/killpoint.h"
#include "log/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define OPENING_TRIES 200
#define OPENING_NAP_NS 5000000

bw_err bw_state_fail(int rc, const char *path, const char *what)
{
    switch (rc) {
    case MDB_PANIC: return bw_fail(BW_ERR_IO, "%s: %s: LMDB stopped after an input/output error", what, path);
    case MDB_MAP_FULL: return bw_fail(BW_ERR_BUSY, "%s: %s must grow", what, path);
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
        return bw_fail(BW_ERR_CORRUPT, "%s: %s is no sound store (%s); remove the folder to build the state anew from the log", what, path,
                       mdb_strerror(rc));
    case MDB_READERS_FULL:
    case MDB_TXN_FULL: return bw_fail(BW_ERR_BUSY, "%s: %s: %s", what, path, mdb_strerror(rc));
    default:
        if (rc > 0) return bw_fail_errno(rc, "%s: %s", what, path);
        return bw_fail(BW_ERR_INTERNAL, "%s: %s: %s", what, path, mdb_strerror(rc));
    }
}

/* ---- folders ---- */

static bw_err make_folders(const char *path, int *dir_fd)
{
    char at[PATH_MAX];
    if (snprintf(at, sizeof at, "%s", path) >= (int)sizeof at)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "the path of the state is too long: %.200s…", path);
    for (char *slash = strchr(at + 1, '/');; slash = strchr(slash + 1, '/')) {
        if (slash) *slash = 0;
        if (bw_os_mkdir(AT_FDCWD, at, 0700) && errno != EEXIST) return bw_fail_errno(errno, "cannot make the folder %s", at);
        if (!slash) break;
        *slash = '/';
    }
    *dir_fd = bw_os_open_named(path, O_RDONLY | O_DIRECTORY, 0);
    return *dir_fd < 0 ? bw_fail_errno(errno, "cannot open the folder %s", path) : BW_OK;
}

/* What is not current: of takeovers that were cut short or are done. */
struct sweep {
    int fd;
    uint64_t keep;
    char found[64];
};

static bool find_old(void *opaque, const char *name)
{
    struct sweep *s = opaque;
    char kept[32];
    snprintf(kept, sizeof kept, "env-%llu", (unsigned long long)s->keep);
    if (strncmp(name, "env-", 4) || !strcmp(name, kept) || strlen(name) >= sizeof s->found) return true;
    strcpy(s->found, name);
    return false;
}

static void sweep(int fd, uint64_t keep)
{
    struct sweep s = {fd, keep, ""};
    for (int i = 0; i < 100; i++) {
        s.found[0] = 0;
        if (bw_os_list_dir(fd, find_old, &s) || !s.found[0] || bw_folder_remove(fd, s.found)) return;
    }
}

static bw_err read_current(int fd, const char *path, uint64_t *n)
{
    char text[32];
    size_t len;
    bw_err err = bw_smallfile_read(fd, "current", text, sizeof text, &len);
    *n = 0;
    if (err == BW_ERR_NOT_FOUND) return BW_OK;
    if (err) return err;
    char *end;
    *n = strtoull(text, &end, 10);
    if (end == text || *end != '\n' || !*n) return bw_fail(BW_ERR_CORRUPT, "%s/current names no environment; remove the folder to begin anew", path);
    return BW_OK;
}

static bw_err write_current(int fd, uint64_t n)
{
    char text[32];
    int len = snprintf(text, sizeof text, "%llu\n", (unsigned long long)n);
    return bw_smallfile_replace(fd, "current", text, (size_t)len);
}

/* ---- one environment ---- */

static void env_free(bw_state_env *e)
{
    if (e->mdb) mdb_env_close(e->mdb);
    if (e->data_fd >= 0) bw_os_close(e->data_fd);
    if (e->lock_fd >= 0) bw_os_close(e->lock_fd);
    if (e->dir_fd >= 0) bw_os_close(e->dir_fd);
    free(e->path);
    free(e);
}

static bw_err env_new(int fd, const bw_state_env_options *o, uint64_t n, bw_state_env **out)
{
    char name[32];
    bw_state_env *e = calloc(1, sizeof *e);
    if (!e) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a store");
    e->dir_fd = e->lock_fd = e->data_fd = -1;
    e->offset = -1;
    e->generation = o->generation;
    e->topic = o->topic;
    e->fast = o->fast;
    snprintf(name, sizeof name, "env-%llu", (unsigned long long)n);
    bw_err err = BW_OK;
    if (asprintf(&e->path, "%s/%s", o->path, name) < 0) {
        e->path = NULL;
        err = bw_fail(BW_ERR_NO_MEMORY, "no memory for a store");
    }
    if (!err && bw_os_uuid(e->owner)) err = bw_fail(BW_ERR_IO, "no random bytes");
    if (!err && bw_os_mkdir(fd, name, 0700) && errno != EEXIST) err = bw_fail_errno(errno, "cannot make %s", e->path);
    if (!err && (e->dir_fd = bw_os_open(fd, name, O_RDONLY | O_DIRECTORY, 0)) < 0) err = bw_fail_errno(errno, "cannot open %s", e->path);
    if (!err && (e->lock_fd = bw_os_open(e->dir_fd, "owner.lock", O_RDWR | O_CREAT, 0600)) < 0)
        err = bw_fail_errno(errno, "cannot open %s/owner.lock", e->path);
    if (err) env_free(e);
    else *out = e;
    return err;
}

/* BUSY: somebody has it; *holder: his pid, or 0. */
static bw_err take_lock(bw_state_env *e, long *holder)
{
    char text[32] = "";
    *holder = 0;
    if (bw_os_flock(e->lock_fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK) return bw_fail_errno(errno, "cannot lock %s", e->path);
        if (bw_os_pread(e->lock_fd, text, sizeof text - 1, 0) > 0) *holder = strtol(text, NULL, 10);
        return BW_ERR_BUSY;
    }
    int len = snprintf(text, sizeof text, "%ld\n", (long)getpid());
    if (bw_os_pwrite(e->lock_fd, text, (size_t)len, 0) < 0 || bw_os_ftruncate(e->lock_fd, len))
        return bw_fail_errno(errno, "cannot write %s/owner.lock", e->path);
    return BW_OK;
}

static bw_err boot_text(char out[40])
{
    bw_uuid id;
    if (bw_os_boot_id(id.b)) return bw_fail(BW_ERR_IO, "cannot read this boot's id");
    bw_uuid_hex(&id, out);
    return BW_OK;
}

/* A fast store of an earlier boot may have lost pages in any order. */
static bw_err check_synced(bw_state_env *e, bool *unsynced)
{
    char was[64], now[40];
    size_t len;
    bw_err err = bw_smallfile_read(e->dir_fd, "unsynced", was, sizeof was, &len);
    *unsynced = err == BW_OK;
    if (err == BW_ERR_NOT_FOUND) return BW_OK;
    if (!err) err = boot_text(now);
    if (!err && strcmp(was, now))
        err = bw_fail(BW_ERR_CORRUPT, "%s was kept with `fast`, and the machine stopped before it was closed; remove the folder to build the "
                      "state anew from the log", e->path);
    return err;
}

static bw_err note_unsynced(bw_state_env *e, bool unsynced)
{
    char now[40];
    if (e->fast) {
        bw_err err = boot_text(now);
        return err ? err : bw_smallfile_replace(e->dir_fd, "unsynced", now, strlen(now));
    }
    if (!unsynced) return BW_OK;
    int rc = mdb_env_sync(e->mdb, 1); /* what a fast owner before us left */
    if (rc) return bw_state_fail(rc, e->path, "cannot sync");
    bw_os_unlink(e->dir_fd, "unsynced", 0);
    return BW_OK;
}

static bw_err open_mdb(bw_state_env *e, const bw_state_env_options *o)
{
    struct stat st;
    uint64_t least = bw_os_stat_at(e->dir_fd, "data.mdb", &st) == 0 ? (uint64_t)st.st_size : 0;
    e->map_bytes = o->map_bytes < (1 << 20) ? 1 << 20 : o->map_bytes;
    while (e->map_bytes < least) e->map_bytes *= 2;
    int rc = mdb_env_create(&e->mdb);
    if (!rc) rc = mdb_env_set_mapsize(e->mdb, (size_t)e->map_bytes);
    if (!rc) rc = mdb_env_open(e->mdb, e->path, MDB_NOTLS | (o->fast ? MDB_NOSYNC : 0), 0600);
    if (rc) return bw_state_fail(rc, e->path, "cannot open the store");
    int dead;
    mdb_reader_check(e->mdb, &dead);
    if ((e->data_fd = bw_os_open(e->dir_fd, "data.mdb", O_RDONLY, 0)) < 0) return bw_fail_errno(errno, "cannot open %s/data.mdb", e->path);
    return BW_OK;
}

static bw_err open_dbi(bw_state_env *e)
{
    MDB_txn *txn;
    bw_err err = bw_state_begin_txn(e, MDB_RDONLY, &txn);
    if (err) return err;
    int rc = mdb_dbi_open(txn, NULL, 0, &e->dbi);
    if (rc) {
        mdb_txn_abort(txn);
        return bw_state_fail(rc, e->path, "cannot open the store");
    }
    mdb_txn_commit(txn);
    return BW_OK;
}

static bw_err check_topic(const bw_state_env *e, const bw_state_position *p)
{
    if (bw_uuid_equal(&p->topic, &e->topic)) return BW_OK;
    return bw_fail(BW_ERR_LOG_INCARNATION_MISMATCH, "%s holds the state of another life of the topic, which was deleted since; remove the folder "
                   "to begin anew", e->path);
}

/* From now on it is ours. */
static bw_err claim(bw_state_env *e)
{
    MDB_txn *txn;
    bw_state_position before = {.offset = -1};
    bw_err err = bw_state_begin_txn(e, 0, &txn);
    if (err) return err;
    err = bw_state_position_get(e, txn, &before);
    if (!err) err = check_topic(e, &before);
    if (!err || err == BW_ERR_NOT_FOUND) err = bw_state_position_put(e, txn, before.offset);
    if (err) {
        mdb_txn_abort(txn);
        return err;
    }
    int rc = mdb_txn_commit(txn);
    if (rc) return bw_state_fail(rc, e->path, "cannot take the store");
    e->offset = before.offset;
    return BW_OK;
}

/* ---- taking over from a live owner ---- */

/* What its last commit says, read beside it. */
static bw_err look(bw_state_env *e, const bw_state_env_options *o, bw_state_position *out)
{
    bw_err err = open_mdb(e, o);
    if (!err) err = open_dbi(e);
    MDB_txn *txn;
    if (!err) err = bw_state_begin_txn(e, MDB_RDONLY, &txn);
    if (err) return err;
    err = bw_state_position_get(e, txn, out);
    mdb_txn_abort(txn);
    return err;
}

static bw_err copy_to(bw_state_env *from, bw_state_env *to)
{
    int fd = bw_os_open(to->dir_fd, "data.mdb", O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0) return bw_fail_errno(errno, "cannot make %s/data.mdb", to->path);
    int rc = mdb_env_copyfd2(from->mdb, fd, MDB_CP_COMPACT); /* the other way takes the writers' lock */
    bw_err err = rc ? bw_state_fail(rc, from->path, "cannot copy the state") : BW_OK;
    if (!err && (bw_os_fsync(fd) || bw_os_sync_dir(to->dir_fd))) err = bw_fail_errno(errno, "cannot sync %s", to->path);
    bw_os_close(fd);
    return err;
}

static bw_err may_take(const bw_state_env *held, const bw_state_position *p, long holder)
{
    if (held->generation > p->generation) return check_topic(held, p);
    if (held->generation == 0)
        return bw_fail(BW_ERR_BUSY, "%s is open in process %ld; a partition that is assigned by hand has one owner", held->path, holder);
    return bw_fail(BW_ERR_FENCED, "%s belongs to process %ld of generation %lld; this is generation %lld", held->path, holder,
                   (long long)p->generation, (long long)held->generation);
}

static bw_err open_whole(bw_state_env *e, const bw_state_env_options *o)
{
    bool unsynced;
    bw_err err = check_synced(e, &unsynced);
    if (!err) err = open_mdb(e, o);
    if (!err) err = note_unsynced(e, unsynced);
    if (!err) err = open_dbi(e);
    return err ? err : claim(e);
}

/* `held` is another's: a copy of it, which nobody else has. *fd, *n: the folder and the number of what is current. */
static bw_err take_over(int fd, uint64_t n, bw_state_env *held, const bw_state_env_options *o, long holder, bw_state_env **out)
{
    bw_state_position p;
    bw_state_env *mine = NULL;
    bool unsynced;
    bw_err err = check_synced(held, &unsynced);
    if (!err) err = look(held, o, &p);
    if (err == BW_ERR_NOT_FOUND) err = bw_fail(BW_ERR_BUSY, "%s is being opened by process %ld", held->path, holder);
    if (!err) err = may_take(held, &p, holder);
    if (err) return err;
    sweep(fd, n);
    if ((err = env_new(fd, o, n + 1, &mine))) return err;
    long other;
    err = take_lock(mine, &other);
    if (!err) err = copy_to(held, mine);
    BW_KILL_POINT("state.copied");
    if (!err) err = open_whole(mine, o);
    if (!err) err = write_current(fd, n + 1);
    BW_KILL_POINT("state.switched");
    if (err) {
        env_free(mine);
        return err;
    }
    sweep(fd, n + 1);
    *out = mine;
    return BW_OK;
}

static bw_err open_locked(int fd, const bw_state_env_options *o, bw_state_env **out)
{
    uint64_t n;
    bw_state_env *e = NULL;
    long holder;
    bw_err err = read_current(fd, o->path, &n);
    if (err) return err;
    bool fresh = !n;
    if (fresh) sweep(fd, n = 1); /* one that never became current may be half made */
    if ((err = env_new(fd, o, n, &e))) return err;
    err = take_lock(e, &holder);
    if (err == BW_ERR_BUSY && holder == (long)getpid())
        err = bw_fail(BW_ERR_BUSY, "%s is open in this process already, by another consumer", e->path);
    else if (err == BW_ERR_BUSY) {
        err = take_over(fd, n, e, o, holder, out);
        env_free(e);
        return err;
    }
    if (!err) err = open_whole(e, o);
    if (!err && fresh) err = write_current(fd, n);
    if (err) {
        env_free(e);
        return err;
    }
    sweep(fd, n);
    *out = e;
    return BW_OK;
}

bw_err bw_state_env_open(const bw_state_env_options *o, bw_state_env **out)
{
    int fd, lock = -1;
    bw_err err = make_folders(o->path, &fd);
    *out = NULL;
    if (err) return err;
    if ((lock = bw_os_open(fd, "opening.lock", O_RDWR | O_CREAT, 0600)) < 0) err = bw_fail_errno(errno, "cannot open %s/opening.lock", o->path);
    for (int i = 0; !err && bw_os_flock(lock, LOCK_EX | LOCK_NB); i++) {
        if (errno != EWOULDBLOCK) err = bw_fail_errno(errno, "cannot lock %s", o->path);
        else if (i == OPENING_TRIES) err = bw_fail(BW_ERR_BUSY, "%s: another process is opening it; try again", o->path);
        else nanosleep(&(struct timespec){.tv_nsec = OPENING_NAP_NS}, NULL);
    }
    if (!err) err = open_locked(fd, o, out);
    if (lock >= 0) bw_os_close(lock);
    bw_os_close(fd);
    return err;
}

void bw_state_env_close(bw_state_env *e)
{
    if (!e) return;
    if (e->fast && !e->failed && bw_state_env_check(e) == BW_OK && !mdb_env_sync(e->mdb, 1)) bw_os_unlink(e->dir_fd, "unsynced", 0);
    env_free(e);
}

int64_t bw_state_env_offset(const bw_state_env *e) { return e->offset; }
