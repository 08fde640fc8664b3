/* transport/socket_path.c: see the header. */
#include "transport/socket_path.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

/* Splits path into its folder and its name; name points into path. */
static bw_err split(const char *path, char dir[PATH_MAX], const char **name)
{
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    size_t dir_len = slash ? (size_t)(slash - path) : 1;
    if (**name == '\0' || path[0] != '/' || dir_len >= PATH_MAX) {
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "socket path '%s': an absolute path to a socket is needed, as in ipc:///run/busway/bus.sock",
                       path);
    }
    memcpy(dir, dir_len ? path : "/", dir_len ? dir_len : 1);
    dir[dir_len ? dir_len : 1] = '\0';
    return BW_OK;
}

static bw_err choose_path(const char *path, const char *dir, const char *name, bool allow_long, bw_socket_place *out)
{
    if (strlen(path) <= BW_SOCKET_PATH_MAX) {
        memcpy(out->listen_path, path, strlen(path) + 1);
        return BW_OK;
    }
    if (!allow_long) {
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "socket path of %zu bytes: a UNIX socket's has at most %u; choose a short one, as in "
                       "ipc:///run/busway/bus.sock: '%s'", strlen(path), BW_SOCKET_PATH_MAX, path);
    }
    out->dir_fd = bw_os_open(AT_FDCWD, dir, O_PATH | O_DIRECTORY, 0);
    if (out->dir_fd < 0) { return bw_fail_errno(errno, "socket folder '%s'", dir); }
    int n = snprintf(out->listen_path, sizeof out->listen_path, "/proc/thread-self/fd/%d/%s", out->dir_fd, name);
    if (n < 0 || (size_t)n >= sizeof out->listen_path) {
        bw_socket_place_release(out);
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "socket name of %zu bytes in '%s': use a short one, as bus.sock", strlen(name), path);
    }
    return BW_OK;
}

/* Is somebody listening there? */
static bw_err check_socket(const char *path, const bw_socket_place *place)
{
    int fd = bw_os_unix_socket();
    if (fd < 0) { return bw_fail_errno(errno, "socket '%s': no socket to try it with", path); }
    int rc = bw_os_unix_connect(fd, place->listen_path), err = errno;
    bw_os_close(fd);
    if (rc == 0 || err == EAGAIN || err == EINPROGRESS) {
        return bw_fail(BW_ERR_BUSY, "socket '%s': another process answers there; stop it or choose another path", path);
    }
    if (err == ENOENT) { return BW_OK; }
    if (err != ECONNREFUSED) { return bw_fail_errno(err, "socket '%s': is it in use?", path); }
    if (bw_os_unlink(AT_FDCWD, place->listen_path, 0) != 0 && errno != ENOENT) {
        return bw_fail_errno(errno, "socket '%s': it is stale, but it can't be removed", path);
    }
    return BW_OK;
}

bw_err bw_socket_place_prepare(const char *path, bool allow_long, bw_socket_place *out)
{
    char dir[PATH_MAX];
    const char *name;
    struct stat st;
    out->dir_fd = -1;
    bw_err err = split(path, dir, &name);
    if (err != BW_OK) { return err; }
    if (!allow_long && strlen(path) > BW_SOCKET_PATH_MAX) { return choose_path(path, dir, name, false, out); }
    if (bw_os_mkdir(AT_FDCWD, dir, 0750) != 0 && errno != EEXIST) { return bw_fail_errno(errno, "socket folder '%s'", dir); }
    err = choose_path(path, dir, name, allow_long, out);
    if (err != BW_OK) { return err; }
    if (bw_os_stat_at(AT_FDCWD, out->listen_path, &st) != 0) {
        err = errno == ENOENT ? BW_OK : bw_fail_errno(errno, "socket '%s'", path);
    } else if (!S_ISSOCK(st.st_mode)) {
        err = bw_fail(BW_ERR_INVALID_ARGUMENT, "socket '%s': a file lies there that is no socket; move it away or choose another path", path);
    } else {
        err = check_socket(path, out);
    }
    if (err != BW_OK) { bw_socket_place_release(out); }
    return err;
}

bw_err bw_socket_place_set_group(const bw_socket_place *place, const char *path, int64_t gid)
{
    if (gid < 0 || bw_os_chown_at(AT_FDCWD, place->listen_path, (uid_t)-1, (gid_t)gid) == 0) { return BW_OK; }
    return bw_fail_errno(errno, "socket '%s': it can't be given to group %lld; the daemon must be a member of it", path, (long long)gid);
}

void bw_socket_place_release(bw_socket_place *place)
{
    if (place->dir_fd >= 0) { bw_os_close(place->dir_fd); }
    place->dir_fd = -1;
}
