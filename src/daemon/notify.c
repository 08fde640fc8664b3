/* daemon/notify.c: see sd_notify(3): the socket's name in the environment, one datagram a message. */
#include "daemon/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void bw_notify_service(const char *text)
{
    const char *name = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = name ? strlen(name) : 0;
    if (len < 2 || len >= sizeof addr.sun_path || (*name != '/' && *name != '@')) return;
    memcpy(addr.sun_path, name, len);
    if (*name == '@') addr.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return;
    sendto(fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&addr, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}

void bw_notify_failed_fd(int fd, bw_err e)
{
    if (fd < 0) return;
    char line[1100];
    int n = snprintf(line, sizeof line, "ERROR %d %.1000s", (int)e, bw_error_message());
    for (char *p = line; *p; p++)
        if (*p == '\n') *p = ' ';
    line[n++] = '\n';
    while (write(fd, line, (size_t)n) < 0 && errno == EINTR) {}
    close(fd);
}

void bw_notify_ready_fd(int fd)
{
    if (fd < 0) return;
    while (write(fd, "READY\n", 6) < 0 && errno == EINTR) {}
    close(fd);
}
