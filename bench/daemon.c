/* bench/daemon.c: the private buswayd of one benchmark: its own data folder on the disk to be measured, its own runtime folder.
 */
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 10000
#define STOP_MS  10000

static bool answers(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (snprintf(a.sun_path, sizeof a.sun_path, "%s", path) >= (int)sizeof a.sun_path) return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    if (fd >= 0) close(fd);
    return ok;
}

/* The child: stderr goes to a file that is shown when something fails. */
static void daemon_exec(const bench_daemon *d, const char *program, const char *data, const char *log)
{
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0) dup2(fd, 2);
    execl(program, program, "--data-dir", data, "--runtime-dir", d->runtime, "--listen", d->url, "--set",
          "log.retention.check.interval.ms=20", (char *)NULL);
    fprintf(stderr, "%s: %s\n", program, strerror(errno));
    _exit(127);
}

bool bench_daemon_start(bench_daemon *d, const char *program, const char *dir, char *why, size_t why_size)
{
    char data[PATH_MAX], log[PATH_MAX], socket_path[108];
    if (snprintf(data, sizeof data, "%s/data", dir) >= (int)sizeof data ||
        snprintf(log, sizeof log, "%s/daemon.log", dir) >= (int)sizeof log)
        return snprintf(why, why_size, "path too long: %s", dir), false;
    snprintf(d->runtime, sizeof d->runtime, "/dev/shm/busway-bench.XXXXXX");
    if (!mkdtemp(d->runtime)) return snprintf(why, why_size, "mkdtemp %s: %s", d->runtime, strerror(errno)), false;
    snprintf(socket_path, sizeof socket_path, "%s/bus.sock", d->runtime);
    snprintf(d->url, sizeof d->url, "ipc://%s", socket_path);
    fflush(NULL);
    d->pid = fork();
    if (d->pid == 0) daemon_exec(d, program, data, log);
    if (d->pid < 0) return snprintf(why, why_size, "fork: %s", strerror(errno)), false;
    for (int ms = 0; ms < START_MS; ms += 5) {
        if (waitpid(d->pid, NULL, WNOHANG) == d->pid) {
            d->pid = 0;
            return snprintf(why, why_size, "%s ended at once; its messages are in %s", program, log), false;
        }
        if (answers(socket_path)) return true;
        usleep(5000);
    }
    return snprintf(why, why_size, "%s does not answer on %s after %d ms; its messages are in %s", program, d->url, START_MS,
                    log),
           false;
}

void bench_daemon_pin(const bench_daemon *d, int core)
{
    char path[64];
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (core < 0 || i == core) CPU_SET(i, &set);
    snprintf(path, sizeof path, "/proc/%d/task", (int)d->pid);
    DIR *tasks = opendir(path);
    if (!tasks) return;
    for (struct dirent *e; (e = readdir(tasks));)
        if (e->d_name[0] != '.') sched_setaffinity(atoi(e->d_name), sizeof set, &set);
    closedir(tasks);
}

void bench_daemon_stop(bench_daemon *d)
{
    if (d->pid <= 0) return;
    kill(d->pid, SIGTERM);
    for (int ms = 0; ms < STOP_MS; ms += 5) {
        if (waitpid(d->pid, NULL, WNOHANG) == d->pid) {
            d->pid = 0;
            return;
        }
        usleep(5000);
    }
    kill(d->pid, SIGKILL);
    waitpid(d->pid, NULL, 0);
    d->pid = 0;
}
