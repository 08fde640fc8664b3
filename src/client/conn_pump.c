/* client/conn_pump.c: the pump: sending what is queued, receiving, and handing answers to their requests.
 *
 * Receive buffers: bytes are read into c->rx, frames are parsed where they lie. A buffer that somebody kept a reference to is never
 * moved or overwritten: the unparsed rest is copied to another one. */
#include "client/conn_pump.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

enum { RX_BYTES = 256 * 1024, RX_LEAST = 32 * 1024, POOL_MAX = 8, READS_PER_PUMP = 8 };

static struct timespec timespec_of(int64_t ns) { return (struct timespec){ns / 1000000000, ns % 1000000000}; }

bool bw_conn_sleep(bw_conn *c, bw_deadline deadline)
{
    if (deadline == BW_DEADLINE_NEVER) return pthread_cond_wait(&c->changed, &c->mutex) == 0;
    struct timespec until = timespec_of(deadline);
    return pthread_cond_timedwait(&c->changed, &c->mutex, &until) != ETIMEDOUT;
}

bool bw_conn_take_pump(bw_conn *c, bw_deadline deadline)
{
    while (c->pumping) {
        c->waiters++;
        bool more = bw_conn_sleep(c, deadline);
        c->waiters--;
        if (!more && c->pumping) return false;
    }
    c->pumping = true;
    return true;
}

void bw_conn_give_pump(bw_conn *c)
{
    c->pumping = false;
    if (c->waiters) pthread_cond_broadcast(&c->changed);
    if (c->handover_fd >= 0 && c->in_flight) {
        uint64_t one = 1;
        if (write(c->handover_fd, &one, sizeof one) < 0) {} /* full: it will wake anyway */
    }
}

/* ---- the table of pending requests ---- */

static void table_put(bw_conn *c, bw_pending *p)
{
    bw_pending **bucket = &c->buckets[p->correlation % BW_CONN_BUCKETS];
    p->next = *bucket;
    *bucket = p;
    c->in_flight++;
}

static bw_pending *table_take(bw_conn *c, uint32_t correlation)
{
    for (bw_pending **at = &c->buckets[correlation % BW_CONN_BUCKETS]; *at; at = &(*at)->next) {
        if ((*at)->correlation != correlation) continue;
        bw_pending *p = *at;
        *at = p->next;
        p->correlation = 0;
        c->in_flight--;
        return p;
    }
    return NULL;
}

bool bw_conn_cancel(bw_conn *c, bw_pending *p)
{
    pthread_mutex_lock(&c->mutex);
    bool mine = p->correlation != 0 && table_take(c, p->correlation);
    while (!mine && c->calling && !pthread_equal(c->caller, pthread_self())) {
        c->waiters++;
        pthread_cond_wait(&c->changed, &c->mutex);
        c->waiters--;
    }
    pthread_mutex_unlock(&c->mutex);
    return mine;
}

void bw_conn_quiesce(bw_conn *c)
{
    bw_pending none = {.correlation = 0};
    bw_conn_cancel(c, &none);
}

/* ---- the socket, or TLS where the socket stood ---- */

static ssize_t put_bytes(bw_conn *c, const struct iovec *pieces, int count)
{
    return c->tls ? bw_tls_sendv(c->tls, pieces, count) : bw_os_sendv(atomic_load_explicit(&c->fd, memory_order_relaxed), pieces, count);
}

static ssize_t take_bytes(bw_conn *c, void *space, size_t size)
{
    return c->tls ? bw_tls_recv(c->tls, space, size) : bw_os_recv(atomic_load_explicit(&c->fd, memory_order_relaxed), space, size, 0);
}

static bool unsent(bw_conn *c) { return c->out.len > c->out_at || (c->tls && bw_tls_unsent(c->tls) > 0); }

/* ---- sending ---- */

static void note_sent(bw_conn *c, size_t n)
{
    atomic_fetch_add_explicit(&c->sends, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&c->bytes_out, n, memory_order_relaxed);
}

static void break_off(bw_conn *c)
{
    c->broken = true; /* the pumper closes: it alone may; the next who waits or connects becomes it */
    atomic_store_explicit(&c->up, false, memory_order_release);
    uint64_t one = 1;
    if (c->pumping && write(c->wake_fd, &one, sizeof one) < 0) {}
}

bw_err bw_conn_send_locked(bw_conn *c, bw_pending *p, const bw_buf *frame, const void *payload, size_t payload_len)
{
    struct iovec pieces[2] = {{frame->data, frame->len}, {(void *)(uintptr_t)payload, payload_len}};
    size_t total = frame->len + payload_len, sent = 0;
    if (c->out.len == c->out_at) {
        ssize_t n = put_bytes(c, pieces, payload_len ? 2 : 1);
        if (n > 0) {
            sent = (size_t)n;
            note_sent(c, sent);
        } else if (n < 0 && errno != EAGAIN && errno != ENOBUFS) {
            break_off(c);
            return bw_fail_errno(EPIPE, "the connection to the daemon was lost");
        }
    }
    if (sent < total) {
        size_t head = sent < frame->len ? frame->len - sent : 0;
        size_t tail_from = sent > frame->len ? sent - frame->len : 0;
        if (bw_buf_reserve(&c->out, total - sent) != BW_OK) {
            if (sent) break_off(c); /* half a frame is out: nothing else may follow */
            return BW_ERR_NO_MEMORY;
        }
        bw_buf_append(&c->out, frame->data + frame->len - head, head);
        if (payload_len) bw_buf_append(&c->out, (const uint8_t *)payload + tail_from, payload_len - tail_from);
    }
    uint64_t one = 1;
    if (unsent(c) && c->pumping && write(c->wake_fd, &one, sizeof one) < 0) {}
    if (p) table_put(c, p);
    return BW_OK;
}

static bool flush_out(bw_conn *c)
{
    while (c->out_at < c->out.len) {
        struct iovec piece = {c->out.data + c->out_at, c->out.len - c->out_at};
        ssize_t n = put_bytes(c, &piece, 1);
        if (n < 0) return errno == EAGAIN || errno == ENOBUFS;
        note_sent(c, (size_t)n);
        c->out_at += (size_t)n;
    }
    c->out.len = c->out_at = 0;
    if (c->out.cap > 4u * RX_BYTES) bw_buf_free(&c->out);
    return !c->tls || bw_tls_sendv(c->tls, NULL, 0) >= 0 || errno == EAGAIN;
}

/* ---- receiving ---- */

void bw_rx_unref(bw_conn *c, bw_rx *rx)
{
    if (--rx->refs) return;
    if (c->pool_count >= POOL_MAX) {
        free(rx);
        return;
    }
    rx->next = c->pool;
    c->pool = rx;
    c->pool_count++;
}

static bw_rx *rx_get(bw_conn *c, size_t cap)
{
    if (cap < RX_BYTES) cap = RX_BYTES;
    for (bw_rx **at = &c->pool; *at; at = &(*at)->next) {
        if ((*at)->cap < cap) continue;
        bw_rx *rx = *at;
        *at = rx->next;
        c->pool_count--;
        rx->refs = 1;
        rx->len = rx->at = 0;
        return rx;
    }
    bw_rx *rx = malloc(sizeof *rx + cap);
    if (rx) *rx = (bw_rx){.refs = 1, .cap = cap};
    return rx;
}

/* Room for `need` more bytes behind what is there. */
static bool rx_make_room(bw_conn *c, size_t need)
{
    bw_rx *rx = c->rx;
    if (rx && rx->refs == 1) {
        if (rx->at == rx->len) rx->at = rx->len = 0;
        if (rx->cap - rx->len >= need) return true;
        if (rx->cap - (rx->len - rx->at) >= need) {
            memmove(rx->data, rx->data + rx->at, rx->len - rx->at);
            rx->len -= rx->at;
            rx->at = 0;
            return true;
        }
    } else if (rx && rx->cap - rx->len >= need) {
        return true;
    }
    size_t left = rx ? rx->len - rx->at : 0;
    bw_rx *fresh = rx_get(c, left + need);
    if (!fresh) return false;
    if (rx) {
        memcpy(fresh->data, rx->data + rx->at, left);
        fresh->len = left;
        bw_rx_unref(c, rx);
    }
    c->rx = fresh;
    return true;
}

static void begin_call(bw_conn *c)
{
    c->calling = true;
    c->caller = pthread_self();
}

static void end_call(bw_conn *c)
{
    c->calling = false;
    if (c->waiters) pthread_cond_broadcast(&c->changed);
}

static bool hand_over(bw_conn *c, const bw_frame *f)
{
    if (!(f->flags & BW_FRAME_ANSWER)) return !c->options.push || c->options.push(c->options.opaque, f, c->rx);
    pthread_mutex_lock(&c->mutex);
    bw_pending *p = table_take(c, f->correlation);
    if (p) {
        begin_call(c);
        pthread_mutex_unlock(&c->mutex);
        p->done(p, BW_OK, f);
        pthread_mutex_lock(&c->mutex);
        end_call(c);
    } /* else: nobody waits for it any more */
    pthread_mutex_unlock(&c->mutex);
    return true;
}

/* A plain connection that came to a port for TLS is told so by an alert of TLS. */
static bool is_alert(const bw_conn *c)
{
    const bw_rx *rx = c->rx;
    if (!c->options.remote || c->tls || !rx || rx->at != 0 || rx->len < 2 || rx->data[0] != 21 || rx->data[1] != 3) return false;
    bw_fail(BW_ERR_TLS_FAILED, "the daemon speaks TLS on this port: use tls+tcp://");
    return true;
}

/* Hand out the whole frames that lie in the buffer. *need: bytes still missing of the next one, as far as known. */
static bw_err parse_frames(bw_conn *c, size_t *need)
{
    size_t max = c->hello->frame_max > BW_FRAME_MAX_DEFAULT ? c->hello->frame_max : BW_FRAME_MAX_DEFAULT;
    for (;;) {
        bw_rx *rx = c->rx;
        size_t left = rx->len - rx->at, used = 0, whole = BW_FRAME_PREFIX;
        bw_frame f;
        if (left == 0) break;
        bw_err e = bw_frame_parse(rx->data + rx->at, left, max, &f, &used, &whole);
        if (e == BW_ERR_EMPTY) {
            *need = whole > left ? whole - left : RX_LEAST;
            return BW_OK;
        }
        if (e && is_alert(c)) return BW_ERR_TLS_FAILED;
        if (e) return bw_error_context(e, "what the daemon sent can't be understood");
        rx->at += used;
        if (!hand_over(c, &f)) return bw_fail(BW_ERR_NO_MEMORY, "no memory for what the daemon sends; the connection is made anew");
    }
    *need = RX_LEAST;
    return BW_OK;
}

/* BW_OK: all that was there was read. */
static bw_err receive(bw_conn *c)
{
    size_t need = RX_LEAST;
    for (int i = 0; i < READS_PER_PUMP || (c->tls && bw_tls_has_more(c->tls)); i++) { /* no poll tells of what TLS has read */
        if (!rx_make_room(c, need < RX_LEAST ? RX_LEAST : need)) return bw_fail(BW_ERR_NO_MEMORY, "no memory to receive");
        bw_rx *rx = c->rx;
        size_t room = rx->cap - rx->len;
        ssize_t n = take_bytes(c, rx->data + rx->len, room);
        if (n < 0 && errno == EAGAIN) return BW_OK;
        if (n < 0) return bw_fail_errno(errno, "the connection to the daemon was lost");
        if (n == 0 && is_alert(c)) return BW_ERR_TLS_FAILED;
        if (n == 0) return bw_fail(BW_ERR_NOT_CONNECTED, "the daemon closed the connection");
        atomic_fetch_add_explicit(&c->receives, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&c->bytes_in, (uint64_t)n, memory_order_relaxed);
        rx->len += (size_t)n;
        if (c->options.remote) c->heard_ms = bw_clock_mono_ms();
        bw_err e = parse_frames(c, &need);
        if (e) return e;
        if ((size_t)n < room) return BW_OK;
    }
    return BW_OK;
}

void bw_conn_lose(bw_conn *c)
{
    bw_pending *lost = NULL;
    for (size_t i = 0; i < BW_CONN_BUCKETS; i++) {
        while (c->buckets[i]) {
            bw_pending *p = c->buckets[i];
            c->buckets[i] = p->next;
            p->correlation = 0;
            p->next = lost;
            lost = p;
        }
    }
    c->in_flight = 0;
    atomic_store_explicit(&c->up, false, memory_order_release);
    int fd = atomic_exchange_explicit(&c->fd, -1, memory_order_acq_rel);
    if (c->tls) bw_tls_end(c->tls);
    bw_tls_close(c->tls);
    c->tls = NULL;
    if (fd >= 0) bw_os_close(fd);
    uint64_t one = 1;
    if (c->lost_fd >= 0 && write(c->lost_fd, &one, sizeof one) < 0) {}
    c->broken = false;
    c->out.len = c->out_at = 0;
    if (c->rx) {
        bw_rx_unref(c, c->rx);
        c->rx = NULL;
    }
    begin_call(c);
    pthread_mutex_unlock(&c->mutex);
    while (lost) {
        bw_pending *p = lost;
        lost = p->next;
        p->done(p, BW_ERR_NOT_CONNECTED, NULL);
    }
    pthread_mutex_lock(&c->mutex);
    end_call(c);
}

/* ---- the heartbeat of a remote connection ----
 *
 * After heartbeat_ms in which nothing came the daemon is asked for a sign of life, and when still nothing comes the connection is lost: the
 * other host may have gone without a word. While the kernel has bytes that were not acknowledged, it is the kernel's to judge. */

static void beaten(bw_pending *p, bw_err e, const bw_frame *frame)
{
    (void)p;
    (void)e;
    (void)frame; /* that it came is all */
}

/* When the pump must look again, for the heartbeat's sake. */
static bw_deadline heartbeat_at(const bw_conn *c)
{
    return (c->heard_ms + (c->heartbeat.correlation ? bw_remote_answer_ms(c->options.remote) : c->options.remote->heartbeat_ms)) * 1000000;
}

/* With the mutex. false: the connection is dead. */
static bool keep_beating(bw_conn *c)
{
    if (!bw_conn_is_up(c) || bw_deadline_left_ns(heartbeat_at(c)) > 0) return true;
    bool sending = unsent(c) || bw_tcp_unacknowledged(atomic_load_explicit(&c->fd, memory_order_relaxed)) > 0;
    c->heard_ms = bw_clock_mono_ms();
    if (sending) return true;
    if (c->heartbeat.correlation) return false;
    bw_request q;
    bw_buf frame = {0};
    bw_request_init(&q, BW_API_PING);
    q.correlation = c->heartbeat.correlation = c->next_correlation++;
    c->heartbeat.done = beaten;
    bool sent = q.correlation && bw_request_encode(&q, &frame, true) == BW_OK && bw_conn_send_locked(c, &c->heartbeat, &frame, NULL, 0) == BW_OK;
    if (!sent) c->heartbeat.correlation = 0;
    bw_buf_free(&frame);
    return true;
}

static bool readable(void *opaque)
{
    struct pollfd *p = opaque;
    struct timespec none = {0, 0};
    return ppoll(p, 1, &none, NULL) != 0;
}

bw_err bw_conn_pump(bw_conn *c, int extra_fd, bw_deadline deadline)
{
    const bw_stop *stop = c->options.stop;
    struct pollfd fds[4] = {
        {.fd = atomic_load_explicit(&c->fd, memory_order_relaxed), .events = (short)(POLLIN | (unsent(c) ? POLLOUT : 0))},
        {.fd = c->wake_fd, .events = POLLIN},
        {.fd = extra_fd, .events = POLLIN},
        {.fd = stop ? stop->fd : -1, .events = POLLIN},
    };
    if (fds[0].fd < 0 || c->broken) {
        if (fds[0].fd >= 0) bw_conn_lose(c);
        return bw_fail(BW_ERR_NOT_CONNECTED, "there is no connection to the daemon");
    }
    bw_deadline until = deadline;
    if (c->options.remote && bw_conn_is_up(c)) until = bw_deadline_first(deadline, heartbeat_at(c));
    pthread_mutex_unlock(&c->mutex);
    int64_t left = bw_deadline_left_ns(until);
    struct timespec t = timespec_of(left);
    bw_err e = BW_OK;
    int r = 1;
    if (left == 0 && extra_fd < 0 && !(fds[0].events & POLLOUT)) { /* no wait: reading says as much as asking first */
        fds[0].revents = POLLIN;
    } else if (left == 0 || !bw_spin_for(&c->spin, readable, fds)) {
        r = ppoll(fds, stop ? 4 : extra_fd >= 0 ? 3 : 2, left == INT64_MAX ? NULL : &t, NULL);
        atomic_fetch_add_explicit(&c->polls, 1, memory_order_relaxed);
    }
    if (r == 0 && until == deadline) e = BW_ERR_TIMED_OUT;
    bool stopped = r > 0 && fds[3].revents;
    if (r > 0 && fds[1].revents) {
        uint64_t count;
        if (read(c->wake_fd, &count, sizeof count) < 0) {}
    }
    bool lost = false;
    if (r > 0 && (fds[0].revents & (POLLIN | POLLHUP | POLLERR))) {
        e = receive(c);
        lost = e != BW_OK;
    }
    pthread_mutex_lock(&c->mutex);
    if (!lost && (fds[0].revents & POLLOUT || c->broken) && (c->broken || !flush_out(c))) {
        e = bw_fail(BW_ERR_NOT_CONNECTED, "the connection to the daemon was lost");
        lost = true;
    }
    if (!lost && c->options.remote && !keep_beating(c)) {
        e = bw_fail(BW_ERR_NOT_CONNECTED, "the daemon has not said anything for %d s: the connection is given up",
                    bw_remote_answer_ms(c->options.remote) / 1000);
        lost = true;
    }
    if (lost) {
        bw_conn_lose(c);
        return e == BW_ERR_PROTOCOL || e == BW_ERR_NO_MEMORY || e == BW_ERR_TLS_FAILED ? e : BW_ERR_NOT_CONNECTED;
    }
    return stopped ? bw_fail(BW_ERR_CLOSED, "it was told to stop") : e;
}

bw_err bw_conn_try_pump(bw_conn *c, int extra_fd, bw_deadline deadline)
{
    pthread_mutex_lock(&c->mutex);
    bw_err e = BW_ERR_BUSY;
    if (!c->pumping) {
        c->pumping = true;
        e = bw_conn_pump(c, extra_fd, deadline);
        c->pumping = false;
        if (c->waiters) pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->mutex);
    return e;
}
