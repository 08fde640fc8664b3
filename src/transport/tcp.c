/* transport/tcp.c: see the header.
 *
 * An idle connection shall cost next to nothing, and a dead one be noticed. Clients send a heartbeat of their own after 60 s of
 * silence (client/conn_pump.c), so that neither side's keep-alive ever speaks on a connection that is in use: the daemon's asks after
 * 120 s, for clients that send none. Data that nobody acknowledges ends a connection after DEAD_MS. */
#include "transport/tcp.h"

#include "base/os.h"
#include "transport/resolve.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { KEEP_ALIVE_S = 120, DEAD_MS = 60000 };

bw_err bw_tcp_place_parse(const char *text, size_t len, bw_tcp_place *out)
{
    memset(out, 0, sizeof *out);
    out->port = BW_TCP_PORT;
    const char *end = text + len, *host = text, *host_end, *port = NULL;
    if (len && *text == '[') {
        host++;
        host_end = memchr(text, ']', len);
        if (!host_end) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no ']' behind the address");
        if (host_end + 1 < end && host_end[1] != ':') return bw_fail(BW_ERR_INVALID_ARGUMENT, "behind ']' comes a colon and the port");
        if (host_end + 1 < end) port = host_end + 2;
    } else {
        const char *colon = memchr(text, ':', len);
        host_end = colon ? colon : end;
        if (colon) port = colon + 1;
        if (colon && memchr(port, ':', (size_t)(end - port)))
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "an IPv6 address stands in brackets: [::1]:%u", BW_TCP_PORT);
    }
    size_t n = (size_t)(host_end - host);
    if (n == 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no host");
    if (n > BW_TCP_HOST_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "the host's name is longer than %u bytes", BW_TCP_HOST_MAX);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)host[i] <= ' ' || strchr("/@#\"\\[]", host[i]))
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "the host's name has a character that no name has");
    memcpy(out->host, host, n);
    if (!port) return BW_OK;
    uint32_t number = 0;
    bool digits = port < end;
    for (const char *p = port; digits && p < end; p++) {
        digits = *p >= '0' && *p <= '9' && number < 65536;
        number = number * 10 + (uint32_t)(*p - '0');
    }
    if (!digits || number > 65535) return bw_fail(BW_ERR_INVALID_ARGUMENT, "the port is a number from 0 to 65535");
    out->port = (uint16_t)number;
    return BW_OK;
}

const char *bw_tcp_place_print(const bw_tcp_place *place, char out[BW_TCP_TEXT_MAX])
{
    bool brackets = strchr(place->host, ':') != NULL;
    snprintf(out, BW_TCP_TEXT_MAX, "%s%s%s:%u", brackets ? "[" : "", place->host, brackets ? "]" : "", (unsigned)place->port);
    return out;
}

/* 0, or an errno; ECANCELED: stopped. */
static int connect_one(int fd, const struct addrinfo *a, const bw_stop *stop, bw_deadline until)
{
    if (bw_os_connect(fd, a->ai_addr, a->ai_addrlen) == 0) return 0;
    if (errno != EINPROGRESS && errno != EINTR) return errno;
    short events = POLLOUT;
    bw_err e = bw_stop_poll(stop, fd, &events, until);
    if (e) return e == BW_ERR_TIMED_OUT ? ETIMEDOUT : e == BW_ERR_CLOSED ? ECANCELED : EIO;
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

bw_err bw_tcp_connect(const bw_tcp_place *place, const bw_stop *stop, bw_deadline deadline, int *out, bool *refused)
{
    struct addrinfo *all;
    char text[BW_TCP_TEXT_MAX];
    *refused = false;
    bw_err e = bw_resolve(place, 0, stop, deadline, &all);
    if (e) return e;
    int64_t count = 0;
    int last = EADDRNOTAVAIL;
    for (const struct addrinfo *a = all; a; a = a->ai_next) count++;
    for (const struct addrinfo *a = all; a; a = a->ai_next, count--) {
        int64_t left = bw_deadline_left_ns(deadline);
        bw_deadline until = left == INT64_MAX ? deadline : bw_clock_mono_ns() + left / count;
        int fd = bw_os_stream_socket(a->ai_family);
        if (fd < 0) {
            last = errno;
            continue;
        }
        last = connect_one(fd, a, stop, until);
        if (last == 0) {
            bw_os_tcp_tune(fd, KEEP_ALIVE_S, DEAD_MS);
            *out = fd;
            break;
        }
        bw_os_close(fd);
        if (last == ECANCELED) break;
    }
    freeaddrinfo(all);
    if (last == 0) return BW_OK;
    if (last == ECANCELED) return bw_fail(BW_ERR_CLOSED, "%s: told to stop while it was being connected to", bw_tcp_place_print(place, text));
    *refused = last == ECONNREFUSED;
    if (last == EMFILE || last == ENFILE || last == ENOMEM || last == ENOBUFS) return bw_fail_errno(last, "can't make a socket");
    return bw_fail(BW_ERR_NO_COORDINATOR, "no daemon answers at %s: %s", bw_tcp_place_print(place, text), strerror(last));
}

bw_err bw_tcp_listen(const bw_tcp_place *place, int *out)
{
    struct addrinfo *all;
    char text[BW_TCP_TEXT_MAX];
    bw_tcp_place_print(place, text);
    if (bw_resolve(place, AI_PASSIVE, NULL, BW_DEADLINE_NEVER, &all)) return BW_ERR_INVALID_ARGUMENT;
    int last = EADDRNOTAVAIL, fd = -1;
    for (int round = 0; round < 2 && fd < 0; round++) /* an IPv6 wildcard takes IPv4 too: first */
        for (const struct addrinfo *a = all; a && fd < 0; a = a->ai_next) {
            if ((a->ai_family == AF_INET6) == (round == 1)) continue;
            fd = bw_os_stream_socket(a->ai_family);
            if (fd >= 0 && bw_os_listen(fd, a->ai_addr, a->ai_addrlen) == 0) break;
            last = errno;
            if (fd >= 0) bw_os_close(fd);
            fd = -1;
        }
    freeaddrinfo(all);
    *out = fd;
    if (fd >= 0) return BW_OK;
    if (last == EADDRINUSE) return bw_fail(BW_ERR_BUSY, "can't listen on %s: another program has the port", text);
    if (last == EADDRNOTAVAIL) return bw_fail(BW_ERR_INVALID_ARGUMENT, "can't listen on %s: this machine has no such address", text);
    return bw_fail_errno(last, "can't listen on %s", text);
}

void bw_tcp_peer(int fd, char *out, size_t size)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char host[64], port[16];
    out[0] = 0;
    if (getpeername(fd, (struct sockaddr *)&address, &length) < 0) return;
    if (address.ss_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&((struct sockaddr_in6 *)&address)->sin6_addr)) {
        struct sockaddr_in6 from = *(struct sockaddr_in6 *)&address;
        struct sockaddr_in plain = {.sin_family = AF_INET, .sin_port = from.sin6_port};
        memcpy(&plain.sin_addr, from.sin6_addr.s6_addr + 12, 4);
        memcpy(&address, &plain, sizeof plain);
        length = sizeof plain;
    }
    if (getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV)) return;
    bool brackets = strchr(host, ':') != NULL;
    snprintf(out, size, "%s%s%s:%s", brackets ? "[" : "", host, brackets ? "]" : "", port);
}

void bw_tcp_tune_server(int fd) { bw_os_tcp_tune(fd, KEEP_ALIVE_S, DEAD_MS); }

size_t bw_tcp_unacknowledged(int fd)
{
    int n = 0;
    return ioctl(fd, SIOCOUTQ, &n) == 0 && n > 0 ? (size_t)n : 0;
}
