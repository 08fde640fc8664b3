/* transport/socket_path.h: where a UNIX socket may be put.
 *
 * nng removes whatever lies at the path when nobody answers there, a plain file too; so the path is looked at first: nothing there,
 * or a socket that nobody answers at (which is removed), else an error. */
#ifndef BW_TRANSPORT_SOCKET_PATH_H
#define BW_TRANSPORT_SOCKET_PATH_H

#include "base/err.h"

#include <stdint.h>

#define BW_SOCKET_PATH_MAX 107u

typedef struct bw_socket_place {
    char listen_path[BW_SOCKET_PATH_MAX + 1]; /* what bind is given; /proc/self/fd/<n>/<name> when the path is long */
    int dir_fd;                               /* keeps listen_path alive; -1 when it is the path itself */
} bw_socket_place;

/* bw_socket_place_prepare: make the folder (0750, the last component only) and clear a stale socket. BUSY: somebody answers there;
 * INVALID_ARGUMENT: another kind of file, or longer than 107 bytes without allow_long; NOT_PERMITTED; NOT_FOUND; IO. */
bw_err bw_socket_place_prepare(const char *path, bool allow_long, bw_socket_place *out);
/* bw_socket_place_set_group: hand the socket that was bound to a group; gid -1: leave it. */
bw_err bw_socket_place_set_group(const bw_socket_place *place, const char *path, int64_t gid);
/* bw_socket_place_release: after the listener was closed. */
void bw_socket_place_release(bw_socket_place *place);

#endif
