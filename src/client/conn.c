/* client/conn.c: making a connection, and waiting for answers on it. The pump is in conn_pump.c. */
#include "client/conn_pump.h"

#include "base/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

bw_err bw_conn_init(bw_conn *c, const bw_conn_options *options)
{
    *c = (bw_conn){.options = *options, .fd = -1, .handover_fd = -1, .lost_fd = -1, .next_correlation = 1};
    c->hello = calloc(1, sizeof *c->hello);
    if (!c->hello) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a connection");
    c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->wake_fd < 0) {
        bw_err e = bw_fail_errno(errno, "can't make an eventfd");
        free(c->hello);
        return e;
    }
    bw_cond_init(&c->changed);
    pthread_mutex_init(&c->mutex, NULL);
    return BW_OK;
}

void bw_conn_fini(bw_conn *c)
{
    bw_conn_drop(c);
    while (c->pool) {
        bw_rx *rx = c->pool;
        c->pool = rx->next;
        free(rx);
    }
    bw_buf_free(&c->out);
    bw_os_close(c->wake_fd);
    free(c->hello);
    pthread_mutex_destroy(&c->mutex);
    pthread_cond_destroy(&c->changed);
}

void bw_conn_abandon(bw_conn *c)
{
    int fd = atomic_exchange(&c->fd, -1);
    if (fd >= 0) bw_os_close(fd);
    bw_os_close(c->wake_fd);
}

void bw_conn_drop(bw_conn *c)
{
    pthread_mutex_lock(&c->mutex);
    bw_conn_take_pump(c, BW_DEADLINE_NEVER);
    bw_conn_lose(c);
    bw_conn_give_pump(c);
    pthread_mutex_unlock(&c->mutex);
}

uint32_t bw_conn_correlate(bw_conn *c)
{
    pthread_mutex_lock(&c->mutex);
    uint32_t n = c->next_correlation++;
    if (n == 0) n = c->next_correlation++;
    pthread_mutex_unlock(&c->mutex);
    return n;
}

bw_err bw_conn_submit(bw_conn *c, bw_pending *p, const bw_buf *frame, const void *payload, size_t payload_len)
{
    pthread_mutex_lock(&c->mutex);
    bw_err e = bw_conn_is_up(c) && !c->broken ? bw_conn_send_locked(c, p, frame, payload, payload_len)
                                              : bw_fail(BW_ERR_NOT_CONNECTED, "there is no connection to the daemon");
    pthread_mutex_unlock(&c->mutex);
    return e;
}

size_t bw_conn_backlog(bw_conn *c)
{
    pthread_mutex_lock(&c->mutex);
    size_t n = c->out.len - c->out_at;
    pthread_mutex_unlock(&c->mutex);
    return n;
}

void bw_conn_poke(bw_conn *c)
{
    pthread_mutex_lock(&c->mutex);
    if (c->waiters) pthread_cond_broadcast(&c->changed);
    uint64_t one = 1;
    if (c->pumping && !(c->calling && pthread_equal(c->caller, pthread_self())) && write(c->wake_fd, &one, sizeof one) < 0) {}
    pthread_mutex_unlock(&c->mutex);
}

bw_err bw_conn_wait(bw_conn *c, bool (*done)(void *), void *opaque, int extra_fd, bw_deadline deadline)
{
    bw_err e = BW_OK;
    pthread_mutex_lock(&c->mutex);
    while (!done(opaque)) {
        if (!bw_conn_is_up(c) && !c->pumping) {
            if (c->broken) {
                c->pumping = true;
                bw_conn_lose(c);
                bw_conn_give_pump(c);
                if (done(opaque)) break;
            }
            e = bw_fail(BW_ERR_NOT_CONNECTED, "the connection to the daemon was lost");
            break;
        }
        if (c->pumping) {
            c->waiters++;
            bool more = bw_conn_sleep(c, deadline);
            c->waiters--;
            if (!more && !done(opaque)) e = BW_ERR_TIMED_OUT;
            if (!more) break;
            continue;
        }
        c->pumping = true;
        e = bw_conn_pump(c, extra_fd, deadline);
        bw_conn_give_pump(c);
        /* A pump whose time is over reads what is there, and does not say that it was nothing. */
        if (!e && extra_fd < 0 && bw_deadline_left_ns(deadline) == 0) e = BW_ERR_TIMED_OUT;
        if (e == BW_ERR_TIMED_OUT && done(opaque)) e = BW_OK;
        if (e || extra_fd >= 0) break;
    }
    pthread_mutex_unlock(&c->mutex);
    if (e == BW_ERR_TIMED_OUT) return bw_fail(e, "no answer from the daemon in time");
    return e;
}

bool bw_conn_check(bw_conn *c)
{
    if (!bw_conn_is_up(c)) return false;
    bool up = true;
    pthread_mutex_lock(&c->mutex);
    if (!c->pumping) {
        char byte;
        ssize_t n = bw_os_recv(atomic_load_explicit(&c->fd, memory_order_relaxed), &byte, 1, MSG_PEEK);
        if (c->broken || n == 0 || (n < 0 && errno != EAGAIN)) {
            c->pumping = true;
            bw_conn_lose(c);
            bw_conn_give_pump(c);
            up = false;
        }
    }
    pthread_mutex_unlock(&c->mutex);
    return up;
}

static bool drained(void *opaque)
{
    bw_conn *c = opaque;
    return c->out.len == c->out_at && (!c->tls || bw_tls_unsent(c->tls) == 0);
}

bw_err bw_conn_drain(bw_conn *c, bw_deadline deadline)
{
    pthread_mutex_lock(&c->mutex);
    bool done = drained(c);
    pthread_mutex_unlock(&c->mutex);
    return done ? BW_OK : bw_conn_wait(c, drained, c, -1, deadline);
}

bool bw_conn_in_flight(bw_conn *c)
{
    pthread_mutex_lock(&c->mutex);
    bool any = c->in_flight > 0;
    pthread_mutex_unlock(&c->mutex);
    return any;
}

static bool parted(void *opaque) { return !bw_conn_is_up(opaque); }

/* A UNIX socket that is closed with unread bytes resets the other end, which may then lose what it has not read yet: so close the
 * one direction, and read until the daemon has closed the other. */
void bw_conn_part(bw_conn *c, bw_deadline deadline)
{
    if (!bw_conn_is_up(c) || bw_conn_drain(c, deadline) != BW_OK) return;
    if (c->options.remote) {
        pthread_mutex_lock(&c->mutex);
        if (c->tls) bw_tls_end(c->tls);
        pthread_mutex_unlock(&c->mutex);
    }
    shutdown(atomic_load(&c->fd), SHUT_WR);
    bw_conn_wait(c, parted, c, -1, deadline);
}

/* ---- requests ---- */

typedef struct waiting {
    bw_pending pending; /* first */
    bw_conn *conn;
    bw_reply *reply;
    bw_err error;
    bool finished; /* under the mutex */
    bw_frame frame;
} waiting;

static bool waiting_done(void *opaque) { return ((waiting *)opaque)->finished; }

static bw_err keep_frame(bw_reply *r, const bw_frame *f, bw_frame *copy)
{
    size_t len = f->header_len + f->payload_len;
    r->frame = len <= sizeof r->small ? r->small : malloc(len);
    if (!r->frame) return BW_ERR_NO_MEMORY;
    r->frame_len = len;
    if (f->header_len) memcpy(r->frame, f->header, f->header_len);
    if (f->payload_len) memcpy(r->frame + f->header_len, f->payload, f->payload_len);
    *copy = *f;
    copy->header = r->frame;
    copy->payload = r->frame + f->header_len;
    return BW_OK;
}

static void answered(bw_pending *p, bw_err e, const bw_frame *frame)
{
    waiting *w = (waiting *)p;
    bw_conn *c = w->conn;
    if (!e) e = keep_frame(w->reply, frame, &w->frame);
    pthread_mutex_lock(&c->mutex);
    w->error = e;
    w->finished = true;
    if (c->waiters) pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
}

static bw_err read_answer(const bw_frame *frame, uint16_t type, bw_reply *r)
{
    bw_err e = bw_answer_decode(frame, &r->answer);
    if (e) return bw_error_context(e, "the answer to %s", bw_api_name(type));
    if (r->answer.type != type)
        return bw_fail(BW_ERR_PROTOCOL, "%s was answered with message type %u", bw_api_name(type), (unsigned)r->answer.type);
    if (r->answer.error) {
        bw_err code = (bw_err)r->answer.error;
        bw_str m = r->answer.message;
        return m.len ? bw_fail(code, "%.*s", (int)(m.len < 900 ? m.len : 900), m.data) : bw_fail(code, "%s", bw_err_text(code));
    }
    return BW_OK;
}

void bw_reply_fini(bw_reply *r)
{
    bw_answer_fini(&r->answer);
    if (r->frame != r->small) free(r->frame);
    r->frame = NULL;
}

static void reply_init(bw_reply *r)
{
    memset(&r->answer, 0, sizeof r->answer);
    r->frame = NULL;
    r->frame_len = 0;
}

bw_err bw_conn_request(bw_conn *c, bw_request *request, bw_deadline deadline, bw_reply *r)
{
    reply_init(r);
    waiting w = {.pending = {.done = answered}, .conn = c, .reply = r};
    request->correlation = w.pending.correlation = bw_conn_correlate(c);
    bw_buf frame = {0};
    bw_err e = bw_request_encode(request, &frame, true);
    if (!e) e = bw_conn_submit(c, &w.pending, &frame, request->payload, request->payload_len);
    bw_buf_free(&frame);
    if (e) return e;
    e = bw_conn_wait(c, waiting_done, &w, -1, deadline);
    if (!w.finished && bw_conn_cancel(c, &w.pending)) return bw_error_context(e, "%s", bw_api_name(request->type));
    if (w.error) return bw_fail(w.error, "%s: the connection to the daemon was lost", bw_api_name(request->type));
    e = read_answer(&w.frame, request->type, r);
    bw_conn_throttled(c, r->answer.throttle_ms);
    return e;
}

bw_err bw_conn_tell(bw_conn *c, bw_request *request)
{
    bw_buf frame = {0};
    request->correlation = bw_conn_correlate(c);
    bw_err e = bw_request_encode(request, &frame, true);
    if (!e) e = bw_conn_submit(c, NULL, &frame, request->payload, request->payload_len);
    bw_buf_free(&frame);
    return e;
}

/* ---- connecting ---- */

/* A path that does not fit a socket address is reached through a descriptor of its folder. */
static int connect_path(int fd, const char *path)
{
    struct sockaddr_un address;
    if (strlen(path) < sizeof address.sun_path) return bw_os_unix_connect(fd, path);
    char folder[PATH_MAX], by_fd[sizeof address.sun_path];
    const char *slash = strrchr(path, '/');
    int n = snprintf(folder, sizeof folder, "%.*s", (int)(slash - path), path);
    if (n < 0 || (size_t)n >= sizeof folder) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) return -1;
    n = snprintf(by_fd, sizeof by_fd, "/proc/self/fd/%d%s", dir, slash);
    int r = -1;
    if (n > 0 && (size_t)n < sizeof by_fd) r = bw_os_unix_connect(fd, by_fd);
    else errno = ENAMETOOLONG;
    int saved = errno;
    bw_os_close(dir);
    errno = saved;
    return r;
}

static bw_err open_socket(const char *path, const bw_stop *stop, bw_deadline deadline, int *out, bool *refused)
{
    *refused = false;
    int fd = bw_os_unix_socket();
    if (fd < 0) return bw_fail_errno(errno, "can't make a socket");
    while (connect_path(fd, path) < 0) {
        int saved = errno;
        bool full = saved == EAGAIN && bw_deadline_left_ns(deadline) > 0; /* its queue of connections */
        bw_err waited = full ? bw_stop_poll(stop, -1, NULL, bw_deadline_in_ms(1)) : BW_OK;
        if (waited == BW_ERR_TIMED_OUT) continue;
        bw_os_close(fd);
        if (waited) return waited;
        *refused = saved == ENOENT || saved == ECONNREFUSED || saved == ENOTDIR;
        if (*refused) return bw_fail(BW_ERR_NO_COORDINATOR, "no daemon answers at %s: %s", path, strerror(saved));
        if (saved == EACCES || saved == EPERM)
            return bw_fail(BW_ERR_NOT_PERMITTED, "may not connect to %s: the user must be of the socket's group", path);
        bw_err e = bw_fail_errno(saved, "can't connect to %s", path);
        return saved == EAGAIN ? BW_ERR_NO_COORDINATOR : e;
    }
    *out = fd;
    return BW_OK;
}

static void copy_text(char *out, size_t size, bw_str s)
{
    size_t n = s.len < size - 1 ? s.len : size - 1;
    if (n) memcpy(out, s.data, n);
    out[n] = 0;
}

static bw_err keep_hello(bw_conn *c, const bw_answer *a, const char *path)
{
    if (a->version < BW_PROTOCOL_VERSION_MIN || a->version > BW_PROTOCOL_VERSION)
        return bw_fail(BW_ERR_UNSUPPORTED_VERSION, "the daemon at %s speaks protocol version %d, this library %d to %d; update the older one", path,
                       a->version, BW_PROTOCOL_VERSION_MIN, BW_PROTOCOL_VERSION);
    bw_conn_hello *h = c->hello;
    copy_text(h->data_dir, sizeof h->data_dir, a->data_dir);
    copy_text(h->arena_dir, sizeof h->arena_dir, a->arena_dir);
    copy_text(h->server_version, sizeof h->server_version, a->server_version);
    memcpy(h->generation, a->generation, sizeof h->generation);
    h->server_pid = a->server_pid;
    h->server_uid = a->server_uid;
    h->frame_max = a->frame_max;
    return BW_OK;
}

/* One request of the handshake. With the mutex, as the pumper, before anybody else may submit. */
static bw_err ask_first(bw_conn *c, bw_request *q, const char *path, bw_deadline deadline, bw_reply *reply)
{
    reply_init(reply);
    waiting w = {.pending = {.done = answered, .correlation = c->next_correlation++}, .conn = c, .reply = reply};
    if (w.pending.correlation == 0) w.pending.correlation = c->next_correlation++;
    q->correlation = w.pending.correlation;
    bw_buf frame = {0};
    bw_err e = bw_request_encode(q, &frame, false);
    if (!e) e = bw_conn_send_locked(c, &w.pending, &frame, NULL, 0);
    if (frame.data) explicit_bzero(frame.data, frame.len);
    bw_buf_free(&frame);
    while (!e && !w.finished) e = bw_conn_pump(c, -1, deadline);
    bool in_time = w.finished;
    if (!in_time) bw_conn_lose(c); /* nothing may point at this frame any more; it finishes w, too late to count */
    if (in_time && e != BW_ERR_TLS_FAILED) e = w.error ? w.error : read_answer(&w.frame, q->type, reply);
    if (e == BW_ERR_NOT_CONNECTED)
        e = bw_fail(BW_ERR_NO_COORDINATOR, "the daemon at %s closed the connection before it had answered", path);
    if (e == BW_ERR_TIMED_OUT) e = bw_fail(BW_ERR_NO_COORDINATOR, "the daemon at %s does not answer", path);
    return e;
}

static bw_err prove(bw_conn *c, const char *path, bw_deadline deadline)
{
    char secret[256];
    bool given;
    bw_reply reply;
    bw_request q;
    bw_err e = bw_remote_secret(c->options.remote, secret, &given);
    if (e || !given) return e;
    bw_request_init(&q, BW_API_AUTHENTICATE);
    q.user.name = bw_str_of(c->options.remote->user);
    q.user.secret = bw_str_of(secret);
    e = ask_first(c, &q, path, deadline, &reply);
    explicit_bzero(secret, sizeof secret);
    bw_reply_fini(&reply);
    return e == BW_ERR_AUTHENTICATION_FAILED ? bw_error_context(e, "%s", path) : e;
}

static bw_err shake_hands(bw_conn *c, const char *path, bw_deadline deadline)
{
    bw_reply reply;
    bw_request q;
    bw_request_init(&q, BW_API_HELLO);
    q.version_min = BW_PROTOCOL_VERSION_MIN;
    q.version_max = BW_PROTOCOL_VERSION;
    q.client_id = bw_str_of(c->options.client_id);
    q.client_pid = (int32_t)getpid();
    bw_err e = ask_first(c, &q, path, deadline, &reply);
    if (!e) e = keep_hello(c, &reply.answer, path);
    bw_reply_fini(&reply);
    return !e && c->options.remote ? prove(c, path, deadline) : e;
}

static bw_err open_way(bw_conn *c, const char *path, bw_deadline deadline, int *fd, bw_tls **tls, bool *refused)
{
    *tls = NULL;
    return c->options.remote ? bw_remote_connect(c->options.remote, c->options.stop, deadline, fd, tls, refused)
                             : open_socket(path, c->options.stop, deadline, fd, refused);
}

/* With the mutex, as the pumper. BW_OK: it may be tried now. */
static bw_err wait_for_turn(bw_conn *c, const char *path, bw_deadline deadline)
{
    while (c->backoff.next && bw_deadline_left_ns(c->backoff.next) > 0) {
        if (c->backoff.next > deadline)
            return bw_fail(BW_ERR_NO_COORDINATOR, "the daemon at %s could not be reached %u times; it is tried again soon", path, c->backoff.fails);
        c->waiters++;
        bw_conn_sleep(c, c->backoff.next);
        c->waiters--;
    }
    return BW_OK;
}

bw_err bw_conn_connect(bw_conn *c, const char *path, bw_deadline deadline, bool *refused)
{
    bw_err e = BW_OK;
    *refused = false;
    pthread_mutex_lock(&c->mutex);
    if (!bw_conn_take_pump(c, deadline)) {
        bool up = bw_conn_is_up(c);
        pthread_mutex_unlock(&c->mutex);
        return up ? BW_OK : bw_fail(BW_ERR_TIMED_OUT, "another thread has been connecting for too long");
    }
    if (c->broken) bw_conn_lose(c);
    if (!bw_conn_is_up(c) && c->options.remote) e = wait_for_turn(c, path, deadline);
    if (!e && !bw_conn_is_up(c)) {
        int fd = -1;
        deadline = bw_conn_patience(c, deadline);
        pthread_mutex_unlock(&c->mutex);
        bw_tls *tls;
        e = open_way(c, path, deadline, &fd, &tls, refused);
        pthread_mutex_lock(&c->mutex);
        if (!e) {
            c->tls = tls;
            atomic_store_explicit(&c->fd, fd, memory_order_release);
            c->heard_ms = bw_clock_mono_ms();
            e = shake_hands(c, path, deadline);
            if (e) {
                bw_conn_lose(c); /* leaves the message alone: nothing else is pending */
            } else {
                atomic_fetch_add(&c->epoch, 1);
                atomic_store_explicit(&c->up, true, memory_order_release);
            }
        }
        if (e && c->options.remote) bw_backoff_failed(&c->backoff);
        else bw_backoff_worked(&c->backoff);
    }
    bw_conn_give_pump(c);
    pthread_mutex_unlock(&c->mutex);
    return e;
}
