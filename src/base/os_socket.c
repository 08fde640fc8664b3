/* base/os_socket.c: the one place that calls the operating system for sockets and for waiting on them. As os.c: each function counts itself,
 * passes the fault seam, and retries EINTR where the call did nothing. Nothing here blocks but bw_os_epoll_wait. */
#include "base/os_internal.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

int bw_os_unix_socket(void)
{
    BW_OS_RETRY(socket, socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

static int unix_address(const char *path, struct sockaddr_un *out)
{
    size_t len = strlen(path);
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (len < sizeof out->sun_path) {
        memcpy(out->sun_path, path, len + 1);
        return 0;
    }
    errno = ENAMETOOLONG;
    return -1;
}

int bw_os_unix_connect(int fd, const char *path)
{
    struct sockaddr_un address;
    if (unix_address(path, &address)) return -1;
    BW_OS_RETRY(connect, connect(fd, (const struct sockaddr *)&address, sizeof address));
}

ssize_t bw_os_sendv(int fd, const struct iovec *pieces, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = (size_t)count};
    if (bw_os_enter(BW_OS_send)) return -1;
    ssize_t n;
    do n = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n;
}

ssize_t bw_os_recv(int fd, void *buf, size_t len, int flags)
{
    if (bw_os_enter(BW_OS_recv)) return -1;
    ssize_t n;
    do n = recv(fd, buf, len, flags | MSG_DONTWAIT);
    while (n < 0 && errno == EINTR);
    return n;
}

int bw_os_unix_listen(int fd, const char *path, mode_t mode)
{
    struct sockaddr_un address;
    if (unix_address(path, &address)) return -1;
    if (bw_os_enter(BW_OS_bind)) return -1;
    /* The inode takes its mode from the socket's; the umask, which is the whole process's, could only take from it. */
    if (fchmod(fd, mode) || bind(fd, (const struct sockaddr *)&address, sizeof address)) return -1;
    if (chmod(path, mode) || listen(fd, SOMAXCONN)) {
        int saved = errno;
        unlink(path);
        errno = saved;
        return -1;
    }
    return 0;
}

int bw_os_stream_socket(int family)
{
    BW_OS_RETRY(socket, socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

int bw_os_connect(int fd, const struct sockaddr *address, unsigned length)
{
    if (bw_os_enter(BW_OS_connect)) return -1;
    return connect(fd, address, length); /* not again after EINTR: it goes on by itself */
}

int bw_os_listen(int fd, const struct sockaddr *address, unsigned length)
{
    int yes = 1, no = 0;
    if (bw_os_enter(BW_OS_bind)) return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes)) return -1;
    if (address->sa_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no)) return -1;
    return bind(fd, address, length) || listen(fd, SOMAXCONN) ? -1 : 0;
}

void bw_os_tcp_tune(int fd, int keep_alive_s, int dead_ms)
{
    int yes = 1, between_s = 10, times = 3;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &keep_alive_s, sizeof keep_alive_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &between_s, sizeof between_s);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof times);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &dead_ms, sizeof dead_ms);
}

int bw_os_accept(int fd)
{
    BW_OS_RETRY(accept, accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC));
}

void bw_os_set_send_room(int fd, int bytes)
{
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes)) {} /* as it was, then */
}

void bw_os_unix_peer(int fd, int64_t *uid, int64_t *gid, int64_t *pid)
{
    struct ucred c;
    socklen_t size = sizeof c;
    bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &c, &size) == 0;
    *uid = known ? (int64_t)c.uid : -1;
    *gid = known ? (int64_t)c.gid : -1;
    *pid = known ? (int64_t)c.pid : -1;
}

int bw_os_epoll_create(void)
{
    BW_OS_RETRY(epoll, epoll_create1(EPOLL_CLOEXEC));
}

int bw_os_epoll_ctl(int epoll_fd, int operation, int fd, uint32_t events, void *data)
{
    struct epoll_event e = {.events = events, .data.ptr = data};
    BW_OS_RETRY(epoll, epoll_ctl(epoll_fd, operation, fd, &e));
}

int bw_os_epoll_wait(int epoll_fd, struct epoll_event *events, int count, int timeout_ms)
{
    if (bw_os_enter(BW_OS_epoll)) return -1;
    int n = epoll_wait(epoll_fd, events, count, timeout_ms);
    return n < 0 && errno == EINTR ? 0 : n;
}
