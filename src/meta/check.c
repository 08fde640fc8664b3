/* meta/check.c: see check.h. */
#include "meta/check.h"

#include "base/clock.h"
#include "base/err.h"
#include "base/os.h"
#include "meta/env.h"
#include "meta/files.h"
#include "meta/pages.h"
#include "meta/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define CPU_SECONDS 10u                              /* and one more for each of these: */
#define BYTES_A_SECOND (UINT64_C(64) * 1024 * 1024)
#define WALL_FACTOR 12u                              /* a slow disk; a machine that was stopped */

/* ---- the work ---- */

static void say(bw_check_verdict *v, bw_check_kind kind, bw_err e)
{
    v->kind = kind;
    v->error = e;
    snprintf(v->why, sizeof v->why, "%.290s", bw_error_message());
}

static void damaged(bw_check_verdict *v, bw_err e)
{
    if (e == BW_ERR_NEWER_FORMAT) say(v, BW_CHECK_NEWER, e);
    else if (e == BW_ERR_NO_MEMORY) say(v, BW_CHECK_UNABLE, e);
    else say(v, BW_CHECK_DAMAGED, e);
}

/* Format 1 had no state, and kept its number in a bare value of four bytes. */
static bool is_format1(const bw_env *env, MDB_txn *txn)
{
    MDB_val k = bw_val("format", 6), state = bw_val(BW_STATE_KEY, sizeof BW_STATE_KEY - 1), got;
    if (mdb_get(txn, env->main, &state, &got) != MDB_NOTFOUND) return false;
    return !mdb_get(txn, env->tables[BW_TABLE_INFO], &k, &got) && got.mv_size == 4 && bw_get_be32(got.mv_data) == 1;
}

static void read_entries(const char *path, bw_check_verdict *v)
{
    bw_env env;
    MDB_txn *txn;
    int rc = bw_env_open(path, MDB_RDONLY | MDB_NOLOCK, 0, false, &env);
    if (rc) {
        damaged(v, rc == ENOMEM ? bw_fail(BW_ERR_NO_MEMORY, "no memory to open the metadata")
                                : bw_fail(BW_ERR_CORRUPT, "LMDB does not open it: %s", mdb_strerror(rc)));
        return;
    }
    rc = mdb_txn_begin(env.env, NULL, MDB_RDONLY, &txn);
    if (rc) damaged(v, bw_fail(BW_ERR_CORRUPT, "LMDB does not read it: %s", mdb_strerror(rc)));
    else {
        bw_err e = bw_env_verify(&env, txn, &v->state);
        if (!e) v->kind = BW_CHECK_GOOD;
        else if (is_format1(&env, txn)) v->kind = BW_CHECK_FORMAT1;
        else damaged(v, e);
        mdb_txn_abort(txn);
    }
    bw_env_close(&env);
}

void bw_check_file(int dir_fd, const char *path, bw_check_verdict *out)
{
    struct stat st;
    *out = (bw_check_verdict){.kind = BW_CHECK_ABSENT};
    int fd = bw_os_open_beneath(dir_fd, BW_DATA_FILE, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0 && errno == ENOENT) return;
    if (fd < 0 || bw_os_fstat(fd, &st)) {
        bw_err e = bw_fail_errno(errno, "cannot open " BW_DATA_FILE);
        if (e == BW_ERR_IO) say(out, BW_CHECK_DAMAGED, e);
        else say(out, BW_CHECK_UNABLE, e);
    } else if (st.st_size) {
        void *map = bw_os_mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) say(out, BW_CHECK_UNABLE, bw_fail_errno(errno, "cannot map " BW_DATA_FILE));
        else {
            bw_err e = bw_pages_check(map, (size_t)st.st_size);
            bw_os_munmap(map, (size_t)st.st_size);
            if (e) damaged(out, e);
            else read_entries(path, out);
        }
    }
    if (fd >= 0) bw_os_close(fd);
}

/* ---- the child ---- */

static _Noreturn void child(int dir_fd, const char *path, int out_fd, pid_t parent, uint64_t bytes)
{
    static bw_check_verdict v;
    rlim_t seconds = CPU_SECONDS + bytes / BYTES_A_SECOND;
    struct rlimit core = {0, 0}, cpu = {seconds, seconds + 1};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    /* Nothing of the parent's may stay open here: a lock would outlive it. */
    if (dup2(out_fd, 0) < 0 || dup2(dir_fd, 1) < 0) _exit(1);
    if (close_range(2, ~0u, 0))
        for (int fd = 2; fd < 65536; fd++) close(fd);
    setrlimit(RLIMIT_CORE, &core);
    setrlimit(RLIMIT_CPU, &cpu);
    for (int s = 1; s < NSIG; s++)
        if (s == SIGSEGV || s == SIGBUS || s == SIGABRT || s == SIGFPE || s == SIGILL || s == SIGXCPU) signal(s, SIG_DFL);
#ifdef BW_TESTING
    const char *how = getenv("BUSWAY_META_CHECK");
    if (how && strcmp(how, "crash") == 0) raise(SIGSEGV);
    if (how && strcmp(how, "hang") == 0) setrlimit(RLIMIT_CPU, &(struct rlimit){1, 1});
    while (how && strcmp(how, "hang") == 0) {}
#endif
    bw_check_file(1, path, &v);
    _exit(write(0, &v, sizeof v) == (ssize_t)sizeof v ? 0 : 1);
}

/* Tests that open a store hundreds of thousands of times, and may crash themselves, say BUSWAY_META_CHECK=inline. */
static bool check_alone(bool alone)
{
#ifdef BW_TESTING
    const char *how = getenv("BUSWAY_META_CHECK");
    if (how && strcmp(how, "inline") == 0) return true;
#endif
    return alone;
}

bw_err bw_check_start(int dir_fd, const char *path, bool alone, bw_check *c)
{
    struct stat st = {0};
    int ends[2];
    *c = (bw_check){-1, -1, NULL};
    bool absent = bw_os_stat_at(dir_fd, BW_DATA_FILE, &st) != 0 && errno == ENOENT; /* nothing that could kill who looks */
    if (check_alone(alone) || absent) {
        c->own = malloc(sizeof *c->own);
        if (!c->own) return bw_fail(BW_ERR_NO_MEMORY, "no memory to check the metadata");
        bw_check_file(dir_fd, path, c->own);
        return BW_OK;
    }
    if (pipe2(ends, O_CLOEXEC)) return bw_fail_errno(errno, "cannot check the metadata: no pipe");
    pid_t self = getpid();
    c->pid = fork();
    if (c->pid == 0) child(dir_fd, path, ends[1], self, (uint64_t)st.st_size);
    int saved = errno;
    bw_os_close(ends[1]);
    c->fd = ends[0];
    if (c->pid > 0) return BW_OK;
    bw_os_close(ends[0]);
    return bw_fail_errno(saved, "cannot check the metadata: no process");
}

/* The whole verdict, or false: the child ended without one, or had its time. */
static bool receive(int fd, bw_check_verdict *out, int64_t until_ms)
{
    size_t have = 0;
    while (have < sizeof *out) {
        struct pollfd p = {fd, POLLIN, 0};
        int64_t left = until_ms - bw_clock_mono_ms();
        int ready = poll(&p, 1, left > 0 ? (int)left : 0);
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) return false;
        ssize_t n = read(fd, (char *)out + have, sizeof *out - have);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        have += (size_t)n;
    }
    return true;
}

void bw_check_end(bw_check *c, bw_check_verdict *out)
{
    int status = 0;
    int64_t limit_ms = (int64_t)CPU_SECONDS * WALL_FACTOR * 1000;
    if (c->own) {
        *out = *c->own;
        free(c->own);
        c->own = NULL;
        return;
    }
    bool told = receive(c->fd, out, bw_clock_mono_ms() + limit_ms);
    bw_os_close(c->fd);
    if (!told) kill(c->pid, SIGKILL);
    pid_t got;
    do got = waitpid(c->pid, &status, 0);
    while (got < 0 && errno == EINTR);
    *c = (bw_check){-1, -1, NULL};
    if (told) return;
    *out = (bw_check_verdict){.kind = BW_CHECK_DAMAGED, .error = BW_ERR_CORRUPT};
    if (got > 0 && WIFSIGNALED(status))
        snprintf(out->why, sizeof out->why, "the process that read it was ended by signal %d", WTERMSIG(status));
    else {
        out->kind = BW_CHECK_UNABLE;
        out->error = BW_ERR_IO;
        snprintf(out->why, sizeof out->why, "the process that was to read it could not");
    }
}
