/* transport/stream_socket.c: connections over sockets (UNIX, tcp, tls over tcp), served by a reactor. How they come: stream_accept.c.
 *
 * Receiving belongs to the reactor's waiting thread, within its turn: one recv at a time into the chunk, then its frames are given out,
 * then (bw_reactor_wait's `served`) they are handled, so that the next recv finds the chunk free again.
 * Sending is possible from any thread, under the lock. Within a turn small frames gather in `out` and leave with one call at the next
 * flush; a large one takes along what has gathered. What the socket does not take stays in `out` (blocked) until it is writable.
 * Order: bytes leave in the order of bw_stream_send, since everything passes through `out` as soon as anything is in it.
 * The end: whoever finds the connection broken, or closes it, sets `closed` (nothing is sent from then on) and calls the waiting thread,
 * which alone takes the socket off the reactor, closes it and tells the user. A TCP socket that is closed with unread bytes resets the
 * other end, which may lose what it has not read yet: so one that is finished shuts its sending half and reads on for a moment.
 * TLS: first hands are shaken (stream_tls.c); the user learns of the connection when that is done. Behind it TLS stands where the socket
 * stood; what it has encrypted and the socket did not take counts as blocked, what it has read and not given out is read in a chore. */
#include "transport/stream_internal.h"

#include "base/err.h"
#include "base/os.h"
#include "transport/tcp.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    GATHER_FRAME_MAX = 2048,   /* a frame up to this may wait for the flush */
    GATHER_MAX = 32 << 10,     /* as much may gather */
    OUT_KEEP_MAX = 64 << 10,
    LINGER_TICKS = 2,
    IDLE_TICKS = BW_STREAM_IDLE_MS / 1000,
};

#define OF(type, member, pointer) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

static bw_reactor *reactor_of(const bw_stream *s) { return s->listener->reactor; }

/* ---- the end ---- */

/* The waiting thread. s may be gone behind it. */
static void end(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool tell = !s->told;
    s->closed = s->told = true;
    pthread_mutex_unlock(&s->lock);
    if (!tell) { return; }
    bw_shake_end(s);
    bw_reactor_remove(reactor_of(s), &s->source);
    bw_reactor_untick(&s->ticker);
    bw_os_close(s->source.fd);
    bw_stream_tell_closed(s);
}

/* Have the waiting thread look at what changed. Holds a reference until then. */
static void call(bw_stream *s)
{
    bw_stream_ref(s);
    if (!bw_reactor_call(reactor_of(s), &s->chore)) { bw_stream_release(s); } /* it was called already: that one has its own */
}

static ssize_t take_bytes(bw_stream *s, void *space, size_t size)
{
    return s->tls ? bw_tls_recv(s->tls, space, size) : bw_os_recv(s->source.fd, space, size, 0);
}

static ssize_t put_bytes(bw_stream *s, const struct iovec *pieces, int count)
{
    if (s->tls) { return bw_tls_sendv(s->tls, pieces, count); }
    return count > 0 ? bw_os_sendv(s->source.fd, pieces, count) : 0;
}

static void close_locked(bw_stream *s)
{
    if (s->closed) { return; }
    s->closed = true;
    call(s);
}

/* Everything was sent. */
static void finish_locked(bw_stream *s)
{
    if (!s->closed) { s->lingering = s->remote; }
    close_locked(s);
}

static void socket_close(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->lingering) {
        s->lingering = false;
        call(s);
    }
    close_locked(s);
    pthread_mutex_unlock(&s->lock);
}

/* ---- sending; all under the lock ---- */

static void ask(bw_stream *s)
{
    uint32_t events = (s->paused || s->finishing ? 0u : (uint32_t)EPOLLIN) | (s->blocked ? (uint32_t)EPOLLOUT : 0u);
    if (!s->closed && bw_reactor_ask(reactor_of(s), &s->source, events) != BW_OK) { close_locked(s); }
}

static bw_err keep(bw_stream *s, const uint8_t *data, size_t len)
{
    if (s->out_at > OUT_KEEP_MAX && s->out_at * 2 > s->out.len) {
        memmove(s->out.data, s->out.data + s->out_at, s->out.len - s->out_at);
        s->out.len -= s->out_at;
        s->out_at = 0;
    }
    return len ? bw_buf_append(&s->out, data, len) : BW_OK;
}

static void note_backlog(bw_stream *s)
{
    atomic_store_explicit(&s->backlog, s->blocked ? s->out.len - s->out_at : 0, memory_order_relaxed);
}

/* As much as the socket takes of what has gathered, of head and of payload; the rest is kept. */
static bw_err write_out(bw_stream *s, const void *head, size_t head_len, const void *payload, size_t payload_len)
{
    size_t out_len = s->out.len - s->out_at;
    struct iovec pieces[3];
    int count = 0;
    if (out_len > 0) { pieces[count++] = (struct iovec){s->out.data + s->out_at, out_len}; }
    if (head_len > 0) { pieces[count++] = (struct iovec){(void *)(uintptr_t)head, head_len}; }
    if (payload_len > 0) { pieces[count++] = (struct iovec){(void *)(uintptr_t)payload, payload_len}; }
    ssize_t n = put_bytes(s, pieces, count);
    if (n < 0 && errno != EAGAIN && errno != ENOBUFS) { return BW_ERR_NOT_CONNECTED; }
    size_t sent = n > 0 ? (size_t)n : 0;
    bool was_blocked = s->blocked;
    s->blocked = sent < out_len + head_len + payload_len || (s->tls && bw_tls_unsent(s->tls) > 0);
    s->out_at += sent < out_len ? sent : out_len;
    sent -= sent < out_len ? sent : out_len;
    if (s->out_at == s->out.len) {
        s->out.len = s->out_at = 0;
        if (s->out.cap > OUT_KEEP_MAX && !s->blocked) { bw_buf_free(&s->out); }
    }
    bw_err err = BW_OK;
    if (sent < head_len) { err = keep(s, (const uint8_t *)head + sent, head_len - sent); }
    sent -= sent < head_len ? sent : head_len;
    if (err == BW_OK && sent < payload_len) { err = keep(s, (const uint8_t *)payload + sent, payload_len - sent); }
    if (err != BW_OK) { return err; }
    note_backlog(s);
    if (s->blocked != was_blocked) { ask(s); }
    if (s->finishing && !s->blocked) { finish_locked(s); }
    return BW_OK;
}

static void flush_gathered(bw_flusher *f)
{
    bw_stream *s = OF(bw_stream, gathered, f);
    pthread_mutex_lock(&s->lock);
    if (!s->closed && !s->blocked && write_out(s, NULL, 0, NULL, 0) != BW_OK) { close_locked(s); }
    pthread_mutex_unlock(&s->lock);
    bw_stream_release(s);
}

static bw_err gather(bw_stream *s, const void *head, size_t head_len, const void *payload, size_t payload_len)
{
    bw_err err = keep(s, head, head_len);
    if (err == BW_OK) { err = keep(s, payload, payload_len); }
    if (err != BW_OK || s->gathered.queued) { return err; }
    s->gathered.fn = flush_gathered;
    bw_stream_ref(s);
    bw_reactor_gather(reactor_of(s), &s->gathered);
    return BW_OK;
}

static bw_err socket_send(bw_stream *s, const void *head, size_t head_len, const void *payload, size_t payload_len)
{
    size_t total = head_len + payload_len;
    bw_err err;
    pthread_mutex_lock(&s->lock);
    if (s->closed) {
        err = BW_ERR_NOT_CONNECTED;
    } else if (s->blocked) {
        err = keep(s, head, head_len);
        if (err == BW_OK) { err = keep(s, payload, payload_len); }
        note_backlog(s);
    } else if (total <= GATHER_FRAME_MAX && s->out.len - s->out_at + total <= GATHER_MAX && bw_reactor_is_mine(reactor_of(s))) {
        err = gather(s, head, head_len, payload, payload_len);
    } else {
        err = write_out(s, head, head_len, payload, payload_len);
    }
    if (err != BW_OK) { close_locked(s); }
    pthread_mutex_unlock(&s->lock);
    return err;
}

static void socket_finish(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->finishing = true;
    if (s->out.len == s->out_at && !s->blocked) {
        finish_locked(s);
    } else {
        ask(s);
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- the waiting thread ---- */

static void writable(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool was_blocked = s->blocked && !s->closed;
    if (was_blocked && write_out(s, NULL, 0, NULL, 0) != BW_OK) { close_locked(s); }
    bool drained = was_blocked && !s->closed && bw_stream_backlog(s) < BW_STREAM_LOW_WATER;
    pthread_mutex_unlock(&s->lock);
    if (!drained) { return; }
    s->wire->resume(s);
    s->listener->ops->drained(s->user);
}

/* Give out what is there; pause when the connection is over its limits. */
static void give(bw_stream *s)
{
    while (bw_stream_give_frames(s)) {
        pthread_mutex_lock(&s->lock);
        s->paused = bw_stream_over_limits(s); /* whoever takes it below them later finds `paused` and calls */
        bool paused = s->paused;
        if (paused) { ask(s); }
        pthread_mutex_unlock(&s->lock);
        if (paused) { return; }
    }
    if (s->finishing) {
        pthread_mutex_lock(&s->lock);
        ask(s);
        pthread_mutex_unlock(&s->lock);
    }
}

/* TLS has taken more from the socket than it gave out: no poll tells of it. While paused it waits. */
static void read_later(bw_stream *s)
{
    if (!s->tls || !bw_tls_has_more(s->tls)) { return; }
    pthread_mutex_lock(&s->lock);
    s->rereads = !s->closed && !s->paused && !s->finishing;
    if (s->rereads) { call(s); }
    pthread_mutex_unlock(&s->lock);
}

static void readable(bw_stream *s)
{
    if (!bw_stream_make_room(s)) {
        end(s);
        return;
    }
    ssize_t n = take_bytes(s, s->chunk->data + s->chunk->len, s->chunk->cap - s->chunk->len);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN) { end(s); }
        return;
    }
    s->idle_ticks = 0;
    bw_stream_took(s, (size_t)n);
    if (s->chunk->cap > BW_CHUNK_MIN || s->want > BW_CHUNK_MIN) { bw_reactor_tick(reactor_of(s), &s->ticker); }
    give(s);
    read_later(s);
}

/* The sending half is shut; until the peer has closed, too, what it sends is thrown away. false: it can't be waited for. */
static bool begin_linger(bw_stream *s)
{
    s->idle_ticks = 0;
    if (s->tls) { bw_tls_end(s->tls); }
    if (shutdown(s->source.fd, SHUT_WR) != 0 || bw_reactor_ask(reactor_of(s), &s->source, EPOLLIN) != BW_OK) { return false; }
    s->lingers = true;
    bw_reactor_tick(reactor_of(s), &s->ticker);
    return true;
}

static void throw_away(bw_stream *s)
{
    uint8_t space[BW_CHUNK_MIN];
    ssize_t n = bw_os_recv(s->source.fd, space, sizeof space, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) { end(s); }
}

/* A step of the handshake is done. true: the last one; the user knows of the connection, and what came behind it is to be read. */
static bool shake_hands(bw_stream *s)
{
    bw_stream_listener *l = s->listener;
    short events = 0;
    bw_err err;
    if (!bw_shake_outcome(s, &err, &events)) { return false; }
    bw_stream_peer peer = {.uid = -1, .gid = -1, .pid = -1, .remote = true, .tls = true};
    bw_tcp_peer(s->source.fd, peer.address, sizeof peer.address);
    if (err == BW_ERR_EMPTY) {
        uint32_t asked = (events & POLLIN ? (uint32_t)EPOLLIN : 0u) | (events & POLLOUT ? (uint32_t)EPOLLOUT : 0u);
        if (bw_reactor_ask(reactor_of(s), &s->source, asked) != BW_OK) { end(s); }
        return false;
    }
    bw_shake_end(s);
    if (err != BW_OK) {
        if (l->ops->refused) { l->ops->refused(l->owner, peer.address, err); }
        s->finishing = true;
        if (!begin_linger(s)) { end(s); } /* so that the alert is read */
        return false;
    }
    snprintf(peer.subject, sizeof peer.subject, "%s", bw_tls_peer(s->tls));
    s->secured = true;
    if (!bw_stream_listener_introduce(l, s, &peer)) {
        end(s);
        return false;
    }
    pthread_mutex_lock(&s->lock);
    ask(s);
    pthread_mutex_unlock(&s->lock);
    return true;
}

static void read_if_open(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    bool reading = !s->paused && !s->finishing && !s->closed;
    pthread_mutex_unlock(&s->lock);
    if (reading) { readable(s); }
}

static void ready(bw_source *source, uint32_t events)
{
    bw_stream *s = OF(bw_stream, source, source);
    if (s->lingers) {
        throw_away(s);
        return;
    }
    if (s->shake) {
        if (bw_shake_step(s) && shake_hands(s)) { read_if_open(s); } /* TLS may have read on */
        return;
    }
    if (events & EPOLLOUT) { writable(s); }
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) { read_if_open(s); }
}

static void chore(bw_call *c)
{
    bw_stream *s = OF(bw_stream, chore, c);
    if (bw_shake_is_busy(s)) { /* it comes again */
        bw_stream_release(s);
        return;
    }
    pthread_mutex_lock(&s->lock);
    bool open = !s->closed;
    pthread_mutex_unlock(&s->lock);
    bool secured = s->shake && open && shake_hands(s);
    pthread_mutex_lock(&s->lock);
    bool reread = (s->rereads || secured) && !s->closed;
    s->rereads = false;
    bool closed = s->closed, linger = s->lingering && !s->told, resume = s->paused && !closed && !s->finishing && !bw_stream_over_limits(s);
    if (resume) {
        s->paused = false;
        ask(s);
    }
    pthread_mutex_unlock(&s->lock);
    if (closed && !(linger && (s->lingers || begin_linger(s)))) {
        end(s);
    } else if (resume) {
        give(s);
        read_later(s);
    } else if (reread) {
        readable(s);
    }
    bw_stream_release(s);
}

static void socket_resume(bw_stream *s)
{
    pthread_mutex_lock(&s->lock);
    if (s->paused && !s->closed && !bw_stream_over_limits(s)) { call(s); }
    pthread_mutex_unlock(&s->lock);
}

/* Once a second: a connection that does not introduce itself; large buffers of one that has been idle. */
static bool tick(bw_ticker *t, int64_t now_ms)
{
    bw_stream *s = OF(bw_stream, ticker, t);
    if (s->lingers) {
        if (++s->idle_ticks > LINGER_TICKS) { end(s); }
        return true;
    }
    if (!s->established && s->listener->hello_timeout_ms > 0) {
        if (now_ms - s->accepted_ms >= s->listener->hello_timeout_ms && !bw_shake_is_busy(s)) { end(s); }
        return true;
    }
    if (++s->idle_ticks <= IDLE_TICKS) { return true; }
    s->want = BW_CHUNK_MIN;
    if (!bw_stream_make_room(s)) { return true; }
    return s->chunk->cap > BW_CHUNK_MIN && atomic_load_explicit(&s->chunk->refs, memory_order_relaxed) > 1;
}

static void socket_fini(bw_stream *s)
{
    bw_tls_close(s->tls);
    bw_buf_free(&s->out);
}

const bw_wire bw_socket_wire = {socket_send, socket_close, socket_finish, socket_resume, socket_fini};

bool bw_socket_begin(bw_stream *s, int fd, const bw_stream_peer *peer)
{
    bw_stream_listener *l = s->listener;
    s->source = (bw_source){.ready = ready, .fd = fd};
    s->chore.fn = chore;
    s->ticker.fn = tick;
    s->accepted_ms = bw_clock_mono_ms();
    s->remote = peer->remote;
    bw_stream_ref(s);
    bool taken;
    if (s->tls) {
        bw_stream_listener_add(l, s);
        taken = !bw_stream_listener_is_stopping(l);
        if (!taken) {
            bw_shake_end(s);
            bw_stream_release(s);
        }
    } else {
        taken = bw_stream_listener_take(l, s, peer);
    }
    if (!taken) {
        bw_os_close(fd);
    } else {
        pthread_mutex_lock(&s->lock);
        ask(s);
        pthread_mutex_unlock(&s->lock);
        if (l->hello_timeout_ms > 0) { bw_reactor_tick(l->reactor, &s->ticker); }
    }
    bw_stream_release(s);
    return taken;
}
