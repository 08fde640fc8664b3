/* bench/echo.c: the bare echo. What one request and its answer cost on the daemon's transport when nobody does anything with
 * them.
 *
 * The server is an nng stream listener on ipc:// with aio callbacks, as the daemon is; it sends back each frame whole. The client
 * is a plain UNIX socket, as the library is. A frame is as large as one produce request of one record (a prefix of 16 bytes, a
 * msgpack header, one record batch). Both sides are on one core, as in Busway's runs: waking an idle virtual core costs more than
 * all that is measured here. nng lives in the server's process only. */
#include "bench.h"

#include <errno.h>
#include <limits.h>
#include <nng/nng.h>
#include <nng/supplemental/util/platform.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ECHO_HEADER_BYTES 80u /* frame prefix and msgpack header of a produce request */

typedef struct echo_server { /* owned by nng's callbacks, one at a time: a connection either receives or sends */
    nng_stream *stream;
    nng_aio *aio;
    bool sending;
    size_t have, frame_bytes;
    uint8_t *frame;
} echo_server;

static void echo_next(echo_server *e)
{
    nng_iov iov = {.iov_buf = e->frame + e->have, .iov_len = e->frame_bytes - e->have};
    nng_aio_set_iov(e->aio, 1, &iov);
    if (e->sending)
        nng_stream_send(e->stream, e->aio);
    else
        nng_stream_recv(e->stream, e->aio);
}

static void echo_done(void *arg)
{
    echo_server *e = arg;
    if (nng_aio_result(e->aio) != 0) return; /* the client closed: the parent ends this process */
    e->have += nng_aio_count(e->aio);
    if (e->have == e->frame_bytes) {
        e->have = 0;
        e->sending = !e->sending;
    }
    echo_next(e);
}

static bool socket_path(const bench_run *run, char out[sizeof(((struct sockaddr_un *)0)->sun_path)])
{
    int n = snprintf(out, sizeof(((struct sockaddr_un *)0)->sun_path), "%s/echo.sock", run->dir);
    if (n < 0 || (size_t)n >= sizeof(((struct sockaddr_un *)0)->sun_path))
        return bench_fail(run->shared, "socket path too long: %s/echo.sock", run->dir);
    return true;
}

static bool serve(const bench_run *run)
{
    char path[108], url[128];
    nng_stream_listener *listener;
    nng_aio *accept;
    echo_server e = {.frame_bytes = run->encoded_bytes + ECHO_HEADER_BYTES};
    if (!socket_path(run, path)) return false;
    snprintf(url, sizeof url, "ipc://%s", path);
    e.frame = calloc(1, e.frame_bytes);
    if (!e.frame) return bench_fail(run->shared, "out of memory");
    int rc = nng_stream_listener_alloc(&listener, url);
    if (rc == 0) rc = nng_stream_listener_listen(listener);
    if (rc == 0) rc = nng_aio_alloc(&accept, NULL, NULL);
    if (rc == 0) rc = nng_aio_alloc(&e.aio, echo_done, &e);
    if (rc != 0) return bench_fail(run->shared, "bare echo: nng: %s", nng_strerror(rc));
    nng_stream_listener_accept(listener, accept);
    if (!bench_arrive(run->shared)) return false;
    nng_aio_wait(accept);
    if ((rc = nng_aio_result(accept)) != 0) return bench_fail(run->shared, "bare echo: accept: %s", nng_strerror(rc));
    e.stream = nng_aio_get_output(accept, 0);
    echo_next(&e);
    while (!atomic_load(&run->shared->failed) && !atomic_load(&run->shared->reader[0].records)) nng_msleep(20);
    return true;
}

static bool transfer(int fd, uint8_t *frame, size_t len, bool out)
{
    for (size_t done = 0; done < len;) {
        ssize_t n = out ? send(fd, frame + done, len - done, MSG_NOSIGNAL) : recv(fd, frame + done, len - done, 0);
        if (n == 0 || (n < 0 && errno != EINTR)) return false;
        if (n > 0) done += (size_t)n;
    }
    return true;
}

static bool ask(const bench_run *run)
{
    size_t len = run->encoded_bytes + ECHO_HEADER_BYTES;
    uint32_t warm = run->c->round_trips / 10;
    uint8_t *frame = calloc(1, len);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!frame || fd < 0 || !socket_path(run, address.sun_path) || !bench_arrive(run->shared)) return false;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        return bench_fail(run->shared, "bare echo: connect %s: %s", address.sun_path, strerror(errno));
    uint64_t before = bench_now_ns();
    for (uint32_t i = 0; i < warm + run->c->round_trips; i++) {
        if (!transfer(fd, frame, len, true) || !transfer(fd, frame, len, false))
            return bench_fail(run->shared, "bare echo: connection lost: %s", strerror(errno));
        uint64_t now = bench_now_ns();
        if (i >= warm) run->shared->sample_ns[run->shared->samples++] = now - before;
        before = now;
    }
    atomic_store(&run->shared->reader[0].records, 1);
    return true;
}

static bool echo_role(const bench_run *run, uint32_t index)
{
    bool ok = index == 0 ? serve(run) : ask(run);
    fflush(NULL);
    _exit(ok ? 0 : 1); /* nng's threads need no farewell */
}

bool bench_echo_run(bench_run *run, bench_figures *out)
{
    bench_role roles[2] = {{echo_role, 0}, {echo_role, 0}};
    bool ok = bench_roles_run(run, roles, 2, 60);
    if (ok) bench_figures_take(run, out);
    return ok;
}
