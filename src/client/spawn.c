/* client/spawn.c: start the private daemon of a dir: bus.
 *
 * Two children that share our memory (as vfork's do, but on stacks of their own): the first only makes the second one and ends, so
 * that the daemon is adopted by init and this process never owes it a wait. Until the exec only system calls are made on memory
 * prepared before; all signals are blocked meanwhile, for a handler would run in the parent's memory.
 * The daemon writes one line to its ready descriptor: "READY", or "ERROR <code> <text>"; end of file without either means that
 * it died, and the last line of its log is the reason. */
#include "client/spawn.h"

#include "base/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum { READY_FD = 3, STACK_BYTES = 64 * 1024 };

static bw_err make_folders(const char *path)
{
    char part[PATH_MAX];
    size_t len = strlen(path);
    if (len >= sizeof part) return bw_fail(BW_ERR_INVALID_ARGUMENT, "the data directory's path is too long");
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != 0) continue;
        char keep = part[i];
        part[i] = 0;
        if (bw_os_mkdir(AT_FDCWD, part, keep ? 0755 : 0750) < 0 && errno != EEXIST) {
            int saved = errno;
            struct stat st;
            if (stat(part, &st) < 0) return bw_fail_errno(saved, "can't make the data directory %s", path);
        }
        part[i] = keep;
    }
    return BW_OK;
}

bw_err bw_start_lock(const char *data_dir, bw_deadline deadline, int *lock_fd)
{
    int fd = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        bw_err e = make_folders(data_dir);
        if (e) return e;
        fd = open(data_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    if (fd < 0) return bw_fail_errno(errno, "can't open the data directory %s", data_dir);
    for (int64_t nap_ns = 1000000;; nap_ns = nap_ns < 20000000 ? nap_ns * 2 : nap_ns) {
        if (bw_os_flock(fd, LOCK_EX | LOCK_NB) == 0) break;
        if (errno != EWOULDBLOCK) {
            bw_err e = bw_fail_errno(errno, "can't lock the data directory %s", data_dir);
            bw_os_close(fd);
            return e;
        }
        int64_t left = bw_deadline_left_ns(deadline);
        if (left == 0) {
            bw_os_close(fd);
            return bw_fail(BW_ERR_TIMED_OUT, "another process has been starting the daemon of %s for too long", data_dir);
        }
        if (nap_ns < left) left = nap_ns;
        nanosleep(&(struct timespec){.tv_nsec = (long)left}, NULL);
    }
    *lock_fd = fd;
    return BW_OK;
}

void bw_start_unlock(int lock_fd)
{
    bw_os_flock(lock_fd, LOCK_UN);
    bw_os_close(lock_fd);
}

/* ---- finding the program ---- */

static bool runnable(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* <folder of `of`>/<middle>buswayd */
static bool beside(const char *of, const char *middle, char out[PATH_MAX])
{
    const char *slash = of ? strrchr(of, '/') : NULL;
    if (!slash) return false;
    int n = snprintf(out, PATH_MAX, "%.*s/%sbuswayd", (int)(slash - of), of, middle);
    return n > 0 && n < PATH_MAX && runnable(out);
}

static bool in_path(char out[PATH_MAX])
{
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t len = strcspn(path, ":");
        if (len > 0 && path[0] == '/') {
            int n = snprintf(out, PATH_MAX, "%.*s/buswayd", (int)len, path);
            if (n > 0 && n < PATH_MAX && runnable(out)) return true;
        }
        path += len;
        if (*path) path++;
    }
    return false;
}

static bw_err find_daemon(const char *given, char out[PATH_MAX])
{
    const char *origin = given && *given ? "the bus's option daemon_path" : "$BUSWAYD";
    if (!given || !*given) given = getenv("BUSWAYD");
    if (given && *given) {
        if (!realpath(given, out) || !runnable(out))
            return bw_fail(BW_ERR_NOT_FOUND, "%s says %s, which is not a program that can be run", origin, given);
        return BW_OK;
    }
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    program[n > 0 ? n : 0] = 0;
    if (beside(program, "", out)) return BW_OK;
    Dl_info info;
    char library[PATH_MAX] = "";
    if (dladdr((void *)(uintptr_t)&bw_spawn_daemon, &info) && info.dli_fname && realpath(info.dli_fname, library)) {
        static const char *const middles[] = {"", "../bin/", "../sbin/", "../libexec/busway/", "../../bin/", "../../sbin/"};
        for (size_t i = 0; i < sizeof middles / sizeof middles[0]; i++)
            if (beside(library, middles[i], out)) return BW_OK;
    }
    if (in_path(out)) return BW_OK;
    return bw_fail(BW_ERR_NOT_FOUND,
                   "buswayd was not found beside this program (%s), beside the library (%s) or in $PATH; set $BUSWAYD to its path",
                   program, library);
}

/* ---- starting it ---- */

typedef struct spawn_plan {
    const char *program;
    char *const *argv;
    int null_fd, log_fd, ready_fd;
    uint8_t *stacks;    /* of the two children */
    volatile int error; /* errno of the exec; written by the child in this memory */
} spawn_plan;

/* Signals back to their defaults and unblocked, past every wrapper: what wrappers remember is the parent's memory. */
static void reset_signals(void)
{
    static const struct { void *handler; unsigned long flags; void *restorer; uint64_t mask; } by_default;
    static const uint64_t none;
    for (int s = 1; s < NSIG; s++) syscall(SYS_rt_sigaction, s, &by_default, NULL, sizeof(uint64_t));
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof(uint64_t));
}

/* In the second child. Descriptors: 0 /dev/null, 1 and 2 the log, 3 ready; the sources are all above 9. */
static int become_daemon(void *opaque)
{
    spawn_plan *plan = opaque;
    if (dup2(plan->null_fd, 0) >= 0 && dup2(plan->log_fd, 1) >= 0 && dup2(plan->log_fd, 2) >= 0 &&
        dup2(plan->ready_fd, READY_FD) >= 0 && chdir("/") == 0) {
        if (syscall(SYS_close_range, READY_FD + 1, ~0U, 0) != 0)
            for (int fd = READY_FD + 1; fd < 4096; fd++) close(fd);
        reset_signals();
        execve(plan->program, plan->argv, environ);
    }
    plan->error = errno;
    return 127;
}

/* A child that shares our memory on a stack of its own, while we stand still until it has become another program or ended. It has
 * no signal for its end, so that the host program's SIGCHLD handler and wait calls do not see it. */
static pid_t borrow_memory(int (*run)(void *), spawn_plan *plan, uint8_t *stack)
{
    return clone(run, stack + STACK_BYTES, CLONE_VM | CLONE_VFORK, plan);
}

static int first_child(void *opaque)
{
    spawn_plan *plan = opaque;
    setsid();
    if (borrow_memory(become_daemon, plan, plan->stacks) < 0) plan->error = errno;
    return 0;
}

static void spawn_detached(spawn_plan *plan)
{
    pid_t first = borrow_memory(first_child, plan, plan->stacks + STACK_BYTES);
    if (first < 0) {
        plan->error = errno;
        return;
    }
    while (waitpid(first, NULL, __WCLONE) < 0 && errno == EINTR) {}
}

static int above_stdio(int fd)
{
    if (fd < 0) return fd;
    int up = fcntl(fd, F_DUPFD_CLOEXEC, 10);
    bw_os_close(fd);
    return up;
}

static int open_log(const char *data_dir, char path[PATH_MAX])
{
    int n = snprintf(path, PATH_MAX, "%s/run", data_dir);
    if (n < 0 || n >= PATH_MAX - 16) return -1;
    if (bw_os_mkdir(AT_FDCWD, path, 0750) < 0 && errno != EEXIST) return -1;
    memcpy(path + n, "/buswayd.log", 13);
    return bw_os_open(AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND, 0640);
}

static void last_log_line(const char *path, off_t from, char *out, size_t size)
{
    char text[2048];
    out[0] = 0;
    int fd = bw_os_open(AT_FDCWD, path, O_RDONLY, 0);
    struct stat st;
    if (fd < 0) return;
    if (bw_os_fstat(fd, &st) == 0 && st.st_size > from) {
        off_t at = st.st_size - (off_t)sizeof text + 1 > from ? st.st_size - (off_t)sizeof text + 1 : from;
        ssize_t n = bw_os_pread(fd, text, sizeof text - 1, at);
        while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' ')) n--;
        if (n > 0) {
            text[n] = 0;
            char *line = strrchr(text, '\n');
            snprintf(out, size, "%.480s", line ? line + 1 : text);
        }
    }
    bw_os_close(fd);
}

/* The daemon's one line, without its end. TIMED_OUT; NOT_CONNECTED: it closed the pipe without a word. */
static bw_err read_ready(int fd, bw_deadline deadline, char *line, size_t size)
{
    size_t n = 0;
    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int64_t left = bw_deadline_left_ns(deadline);
        int wait_ms = left == INT64_MAX ? -1 : (int)((left + 999999) / 1000000 > INT_MAX ? INT_MAX : (left + 999999) / 1000000);
        int r = poll(&p, 1, wait_ms);
        if (r < 0 && errno != EINTR) return bw_fail_errno(errno, "can't wait for the daemon");
        if (r == 0) return bw_fail(BW_ERR_TIMED_OUT, "the daemon did not come up in time");
        ssize_t got = read(fd, line + n, size - 1 - n);
        if (got < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (got <= 0) break;
        n += (size_t)got;
        line[n] = 0;
        char *end = strchr(line, '\n');
        if (end) {
            *end = 0;
            return BW_OK;
        }
        if (n + 1 == size) return BW_OK;
    }
    line[n] = 0;
    return n ? BW_OK : BW_ERR_NOT_CONNECTED;
}

static bw_err await_ready(const spawn_plan *plan, int fd, const char *log_path, off_t log_from, bw_deadline deadline)
{
    char line[1024] = "", said[512];
    bw_err e = read_ready(fd, deadline, line, sizeof line);
    if (e == BW_OK && strcmp(line, "READY") == 0) return BW_OK;
    int code = 0, at = 0;
    if (e == BW_OK && sscanf(line, "ERROR %d %n", &code, &at) == 1 && code > 0 && at > 0)
        return bw_fail((bw_err)code, "%s did not start: %s", plan->program, line + at);
    last_log_line(log_path, log_from, said, sizeof said);
    if (e == BW_ERR_TIMED_OUT) return bw_error_context(e, "%s", plan->program);
    return bw_fail(BW_ERR_NO_COORDINATOR, "%s did not start: %s (its log: %s)", plan->program,
                   said[0] ? said : line[0] ? line : "it ended without a word", log_path);
}

/* The first write in the folder failed. */
static bw_err cannot_write(const char *data_dir, int error)
{
    struct stat st;
    if (error != EROFS && error != EACCES && error != EPERM) return bw_fail_errno(error, "can't open the daemon's log in %s/run", data_dir);
    if (error != EROFS && stat(data_dir, &st) == 0 && st.st_uid != geteuid())
        return bw_fail_errno(error, "%s belongs to uid %u, who alone can have it served (this is uid %u; mode=ro reads it)", data_dir,
                             (unsigned)st.st_uid, (unsigned)geteuid());
    return bw_fail_errno(error, "%s can't be written to, so it can't be served (mode=ro reads it)", data_dir);
}

static bw_err start_and_wait(spawn_plan *plan, const char *data_dir, bw_deadline deadline)
{
    char log_path[PATH_MAX];
    int pipe_fds[2];
    struct stat st = {0};
    plan->log_fd = above_stdio(open_log(data_dir, log_path));
    if (plan->log_fd < 0) return cannot_write(data_dir, errno);
    bw_os_fstat(plan->log_fd, &st);
    plan->null_fd = above_stdio(open("/dev/null", O_RDWR | O_CLOEXEC));
    plan->stacks = malloc(2 * STACK_BYTES);
    bw_err e = BW_OK;
    if (plan->null_fd < 0 || !plan->stacks || pipe2(pipe_fds, O_CLOEXEC) < 0) {
        e = bw_fail_errno(errno, "can't start the daemon");
    } else {
        plan->ready_fd = above_stdio(pipe_fds[1]);
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        spawn_detached(plan);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        bw_os_close(plan->ready_fd);
        (void)bw_os_membarrier_register(); /* for the direct path; takes milliseconds where there are threads: while the daemon starts */
        if (plan->error) e = bw_fail_errno(plan->error, "can't run %s", plan->program);
        else e = await_ready(plan, pipe_fds[0], log_path, st.st_size, deadline);
        bw_os_close(pipe_fds[0]);
    }
    if (plan->null_fd >= 0) bw_os_close(plan->null_fd);
    bw_os_close(plan->log_fd);
    free(plan->stacks);
    return e;
}

bw_err bw_spawn_daemon(const bw_spawn_options *o, bw_deadline deadline)
{
    char program[PATH_MAX];
    bw_err e = find_daemon(o->daemon_path, program);
    if (e) return e;
    const char *argv[] = {program, "--data-dir", o->data_dir, "--private", "--idle-exit", o->idle_exit, "--ready-fd", "3", NULL};
    spawn_plan plan = {.program = program, .argv = (char *const *)(uintptr_t)argv};
    return start_and_wait(&plan, o->data_dir, deadline);
}
