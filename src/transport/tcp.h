/* transport/tcp.h: internet addresses and sockets, for the daemon and the client; knows no nng.
 *
 * Nothing is resolved before it is used, and nothing resolved is kept: a name is asked for anew at each connection. */
#ifndef BW_TRANSPORT_TCP_H
#define BW_TRANSPORT_TCP_H

#include "base/clock.h"
#include "base/err.h"
#include "base/stop.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BW_TCP_PORT 7290u
#define BW_TCP_HOST_MAX 255u
#define BW_TCP_TEXT_MAX 300u

typedef struct bw_tcp_place {
    char host[BW_TCP_HOST_MAX + 1]; /* a name, an IPv4 or an IPv6 address (without brackets) */
    uint16_t port;
} bw_tcp_place;

/* bw_tcp_place_parse: "host", "host:port", "[::1]:port"; without a port BW_TCP_PORT. INVALID_ARGUMENT: what is wrong, without the text. */
bw_err bw_tcp_place_parse(const char *text, size_t len, bw_tcp_place *out);
/* bw_tcp_place_print: what bw_tcp_place_parse takes. Returns out. */
const char *bw_tcp_place_print(const bw_tcp_place *place, char out[BW_TCP_TEXT_MAX]);

/* bw_tcp_connect: a non-blocking, connected socket: the name's addresses are tried in the system's order, each for its part of the time that
 * is left. stop: NULL, or what ends it early. NO_COORDINATOR: the name is unknown, or nobody answers (*refused: somebody said so at once);
 * CLOSED: stopped; IO. */
bw_err bw_tcp_connect(const bw_tcp_place *place, const bw_stop *stop, bw_deadline deadline, int *fd, bool *refused);
/* bw_tcp_listen: on the name's first address that can be had; "*": all. Non-blocking. BUSY (in use), NOT_PERMITTED, INVALID_ARGUMENT (no such
 * address here), IO. */
bw_err bw_tcp_listen(const bw_tcp_place *place, int *fd);
/* bw_tcp_peer: "192.0.2.1:4711", "[2001:db8::1]:4711"; "" when it is gone. */
void bw_tcp_peer(int fd, char *out, size_t size);
/* bw_tcp_unacknowledged: bytes that were sent and that the other end's kernel has not taken yet. */
size_t bw_tcp_unacknowledged(int fd);
/* bw_tcp_tune_server: how the daemon keeps a connection: see tcp.c. */
void bw_tcp_tune_server(int fd);

#endif
