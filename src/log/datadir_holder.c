/* log/datadir_holder.c: who has the data directory: daemon.lock's text.
 *
 * It is written in place, by its holder alone; a reader may meet half of it, and then finds a socket where nobody answers. What it says
 * is a hint: the lock is what counts, and who connects asks whose daemon it is. */
#include "log/datadir.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#define DAEMON_LOCK "daemon.lock"

enum { TEXT_MAX = PATH_MAX + 64 };

bw_err bw_datadir_say_holder(bw_datadir *d, bool is_private, const char *socket)
{
    char text[TEXT_MAX];
    int n = snprintf(text, sizeof text, "%d\n%s\n%s\n", (int)getpid(), is_private ? "private" : "system", socket);
    if (n < 0 || n >= (int)sizeof text) return bw_fail(BW_ERR_INVALID_ARGUMENT, "the socket's path is too long");
    if (bw_os_pwrite(d->daemon_lock_fd, text, (size_t)n, 0) < 0 || bw_os_ftruncate(d->daemon_lock_fd, n) != 0)
        return bw_fail_errno(errno, "cannot write %s/" DAEMON_LOCK, d->path);
    return BW_OK;
}

static void read_text(char *text, bw_datadir_holder *out)
{
    char *save = NULL, *line = strtok_r(text, "\n", &save);
    out->pid = line ? atoi(line) : 0;
    line = strtok_r(NULL, "\n", &save);
    out->is_private = line && strcmp(line, "private") == 0;
    line = strtok_r(NULL, "\n", &save);
    if (line && line[0] == '/') snprintf(out->socket, sizeof out->socket, "%s", line);
}

static int open_lock(const char *path)
{
    int dir = bw_os_open_named(path, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0) return -1;
    int fd = bw_os_open_beneath(dir, DAEMON_LOCK, O_RDONLY, 0), saved = errno;
    bw_os_close(dir);
    errno = saved;
    return fd;
}

bw_err bw_datadir_ask_holder(const char *path, bw_datadir_holder *out)
{
    char text[TEXT_MAX];
    memset(out, 0, sizeof *out);
    int fd = open_lock(path);
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s/" DAEMON_LOCK, path);
    ssize_t n = bw_os_pread(fd, text, sizeof text - 1, 0);
    bw_os_close(fd);
    if (n < 0) return bw_fail(BW_ERR_IO, "cannot read %s/" DAEMON_LOCK, path);
    text[n] = 0;
    read_text(text, out);
    return BW_OK;
}

bool bw_datadir_is_held(const char *path)
{
    int fd = open_lock(path);
    bool held = fd >= 0 && bw_os_flock(fd, LOCK_SH | LOCK_NB) != 0;
    bw_os_close(fd); /* and with it the lock, if it was free */
    return held;
}
