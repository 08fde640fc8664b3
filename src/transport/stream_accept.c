/* transport/stream_accept.c: accepting connections on sockets that a reactor watches: UNIX and tcp. */
#include "transport/stream_internal.h"

#include "base/err.h"
#include "base/os.h"
#include "transport/tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

enum {
    ACCEPTS_AT_ONCE = 32,
    SEND_ROOM = 1 << 20, /* asked of the kernel for each UNIX connection; it gives what net.core.wmem_max allows */
};

#define OF(type, member, pointer) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

static bw_err open_tls(bw_stream_listener *l, int fd, bw_stream *s)
{
    pthread_mutex_lock(&l->lock);
    bw_tls_context *context = l->tls;
    if (context) { bw_tls_context_ref(context); }
    pthread_mutex_unlock(&l->lock);
    if (!context) { return BW_OK; }
    bw_err err = bw_shake_begin(s, context, fd);
    bw_tls_context_unref(context);
    return err;
}

static void take_connection(bw_stream_listener *l, int fd, bw_stream *s)
{
    bw_stream_peer peer = {.uid = -1, .gid = -1, .pid = -1};
    if (l->kind == BW_LISTEN_UNIX) {
        bw_os_unix_peer(fd, &peer.uid, &peer.gid, &peer.pid);
        bw_os_set_send_room(fd, SEND_ROOM);
    } else {
        peer.remote = true;
        bw_tcp_tune_server(fd);
        bw_tcp_peer(fd, peer.address, sizeof peer.address);
    }
    bw_err err = l->kind == BW_LISTEN_TCP ? open_tls(l, fd, s) : BW_OK;
    if (err != BW_OK) {
        if (l->ops->refused) { l->ops->refused(l->owner, peer.address, err); }
        bw_stream_listener_add(l, s);
        bw_stream_release(s);
        bw_os_close(fd);
        return;
    }
    bw_socket_begin(s, fd, &peer);
}

static void trouble(bw_stream_listener *l)
{
    if (l->ops->trouble) { l->ops->trouble(l->owner, BW_ERR_IO); }
    bw_reactor_ask(l->reactor, &l->source, 0);
    bw_reactor_tick(l->reactor, &l->nap);
}

static void accept_ready(bw_source *source, uint32_t events)
{
    bw_stream_listener *l = OF(bw_stream_listener, source, source);
    (void)events;
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        int fd = bw_os_accept(source->fd);
        if (fd < 0 && errno == ECONNABORTED) { continue; }
        if (fd < 0 && errno == EAGAIN) { return; }
        bw_stream *s = fd >= 0 ? bw_stream_create(l, &bw_socket_wire) : NULL;
        if (!s) {
            if (fd < 0) {
                bw_fail_errno(errno, "a connection can't be accepted (more descriptors: ulimit -n, LimitNOFILE=)");
            } else {
                bw_fail(BW_ERR_NO_MEMORY, "no memory for another connection");
                bw_os_close(fd);
            }
            trouble(l);
            return;
        }
        take_connection(l, fd, s);
    }
}

static bool nap_over(bw_ticker *t, int64_t now_ms)
{
    bw_stream_listener *l = OF(bw_stream_listener, nap, t);
    (void)now_ms;
    return bw_reactor_ask(l->reactor, &l->source, EPOLLIN) != BW_OK;
}

static void stop_accepting(bw_call *c)
{
    bw_stream_listener *l = OF(bw_stream_listener, closing, c);
    bw_reactor_untick(&l->nap);
    bw_reactor_remove(l->reactor, &l->source);
    bw_socket_free(l);
    bw_stream_listener_stopped(l);
}

static bw_err listen_unix(bw_stream_listener *l, int *out)
{
    int fd = bw_os_unix_socket();
    if (fd < 0 || bw_os_unix_listen(fd, l->place.listen_path, 0660) < 0) {
        int saved = errno;
        bw_os_close(fd);
        return bw_fail_errno(saved, "can't listen on socket '%s'", l->place.listen_path);
    }
    *out = fd;
    return BW_OK;
}

bw_err bw_socket_listen(bw_stream_listener *l, const char *url)
{
    int fd = -1;
    bw_err err;
    if (l->kind == BW_LISTEN_UNIX) {
        err = listen_unix(l, &fd);
    } else {
        bw_tcp_place place;
        const char *at = strstr(url, "://") + 3;
        err = bw_tcp_place_parse(at, strlen(at), &place);
        if (err == BW_OK) { err = bw_tcp_listen(&place, &fd); }
    }
    l->source = (bw_source){.ready = accept_ready, .fd = fd};
    l->closing.fn = stop_accepting;
    l->nap.fn = nap_over;
    return err;
}

bw_err bw_socket_start(bw_stream_listener *l) { return bw_reactor_ask(l->reactor, &l->source, EPOLLIN); }

void bw_socket_stop(bw_stream_listener *l) { (void)bw_reactor_call(l->reactor, &l->closing); }

void bw_socket_free(bw_stream_listener *l)
{
    if (l->kind == BW_LISTEN_NNG || l->source.fd < 0) { return; }
    if (l->kind == BW_LISTEN_UNIX) { bw_os_unlink(AT_FDCWD, l->place.listen_path, 0); }
    bw_os_close(l->source.fd);
    l->source.fd = -1;
}
