/* link/channel.c: see channel.h.
 *
 * The local one is a session of the broker without a socket. A request is encoded and decoded again, so that it owns its memory until
 * the broker is done with it, and goes through the same bounds as one that came over a wire; answers are encoded by the broker thread,
 * queued under the mutex, and decoded by the link's thread. What is small is done in a turn of the link's own thread, which costs less than
 * to wake the broker's; large pieces are handed over, so that the next one is received meanwhile. */
#include "link/channel.h"

#include "base/os.h"
#include "client/url.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { WRITABLE_BELOW = 1 << 20, PATIENCE_MS = 10000, HERE_MAX = 64 << 10 };
#define FRAME_MAX (256u << 20)

struct arrived {
    struct arrived *next;
    bw_buf frame;
};

struct bw_channel {
    bool local;
    const bw_stop *stop;
    size_t handed; /* answers that were handed out */
    /* local */
    bw_broker *broker;
    bw_session *session;
    int event_fd;
    uint32_t next_correlation;
    bw_ask *asks; /* under way */
    pthread_mutex_t mutex; /* what follows */
    pthread_cond_t left;
    struct arrived *first, *last;
    bool gone, poked;
    _Atomic size_t backlog;
    /* remote */
    bw_url url;
    char path[PATH_MAX];
    char *client_id;
    bw_conn conn;
};

/* ---- answers ---- */

static bw_err outcome(const bw_answer *a, uint16_t type)
{
    if (a->type != type) return bw_fail(BW_ERR_PROTOCOL, "%s was answered with message type %u", bw_api_name(type), (unsigned)a->type);
    if (!a->error) return BW_OK;
    bw_str m = a->message;
    return m.len ? bw_fail((bw_err)a->error, "%.*s", (int)(m.len < 900 ? m.len : 900), m.data)
                 : bw_fail((bw_err)a->error, "%s", bw_err_text((bw_err)a->error));
}

static void hand_out(bw_channel *c, bw_ask *ask, bw_err e, const bw_frame *frame)
{
    bw_answer a;
    bool decoded = false;
    ask->wire_bytes = 0;
    if (!e) {
        ask->wire_bytes = c->local ? 0 : BW_FRAME_PREFIX + frame->header_len + frame->payload_len;
        e = bw_answer_decode(frame, &a);
        decoded = e == BW_OK;
        if (!e) e = outcome(&a, ask->type);
    }
    c->handed++;
    ask->done(ask, e, decoded ? &a : NULL);
    if (decoded) bw_answer_fini(&a);
}

static void on_remote(bw_pending *p, bw_err e, const bw_frame *frame)
{
    bw_ask *ask = p->opaque;
    if (e) e = bw_fail(e, "%s: the connection to the peer was lost", bw_api_name(ask->type));
    hand_out(ask->channel, ask, e, frame);
}

/* ---- local: the broker's side ---- */

static void on_reply(void *opaque, const bw_answer *a)
{
    bw_channel *c = opaque;
    struct arrived *x = calloc(1, sizeof *x);
    if (x && bw_answer_encode(a, &x->frame, false) != BW_OK) {
        bw_buf_free(&x->frame);
        free(x);
        x = NULL;
    }
    pthread_mutex_lock(&c->mutex);
    if (x) {
        if (c->last) c->last->next = x;
        else c->first = x;
        c->last = x;
        atomic_fetch_add(&c->backlog, x->frame.len);
    } else c->gone = true; /* an answer is missing: as if the connection was lost */
    bool poke = !c->poked;
    c->poked = true;
    pthread_mutex_unlock(&c->mutex);
    if (poke) eventfd_write(c->event_fd, 1);
}

static void on_consumed(void *opaque, void *token)
{
    (void)opaque;
    free(token);
}

static size_t on_backlog(void *opaque) { return atomic_load(&((bw_channel *)opaque)->backlog); }

static void on_gone(void *opaque)
{
    bw_channel *c = opaque;
    pthread_mutex_lock(&c->mutex);
    c->session = NULL;
    pthread_cond_signal(&c->left);
    pthread_mutex_unlock(&c->mutex);
}

static const bw_session_ops local_ops = {on_reply, on_consumed, on_backlog, on_gone};

bw_err bw_channel_open_local(bw_broker *b, const char *name, const bw_stop *stop, bw_channel **out)
{
    bw_channel *c = calloc(1, sizeof *c);
    if (!c) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    c->local = true;
    c->stop = stop;
    c->broker = b;
    c->next_correlation = 1;
    c->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (c->event_fd < 0) {
        free(c);
        return bw_fail_errno(errno, "can't make an eventfd");
    }
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->left, NULL);
    bw_peer peer = {.uid = (int64_t)geteuid(), .gid = (int64_t)getegid(), .pid = getpid()};
    snprintf(peer.address, sizeof peer.address, "%s", name);
    if (!(c->session = bw_broker_session_open(b, &local_ops, c, &peer))) {
        bw_channel_close(c);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    }
    *out = c;
    return BW_OK;
}

static void drop_arrived(bw_channel *c)
{
    while (c->first) {
        struct arrived *x = c->first;
        c->first = x->next;
        bw_buf_free(&x->frame);
        free(x);
    }
    c->last = NULL;
    atomic_store(&c->backlog, 0);
}

static void fail_asks(bw_channel *c)
{
    while (c->asks) {
        bw_ask *ask = c->asks;
        c->asks = ask->next;
        hand_out(c, ask, bw_fail(BW_ERR_NOT_CONNECTED, "the link was closed"), NULL);
    }
}

static void close_local(bw_channel *c)
{
    if (c->session) {
        bw_broker_session_closed(c->broker, c->session);
        pthread_mutex_lock(&c->mutex);
        while (c->session) pthread_cond_wait(&c->left, &c->mutex);
        pthread_mutex_unlock(&c->mutex);
    }
    fail_asks(c);
    drop_arrived(c);
    pthread_mutex_destroy(&c->mutex);
    pthread_cond_destroy(&c->left);
    bw_os_close(c->event_fd);
}

/* ---- remote ---- */

bw_err bw_channel_open_remote(const char *url, const char *client_id, const bw_stop *stop, bw_channel **out)
{
    bw_channel *c = calloc(1, sizeof *c);
    if (!c) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    bw_err e = bw_url_parse(url, &c->url);
    if (!e && c->url.read_only) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "%s: a link needs the daemon of a folder, not its files", url);
    char path[PATH_MAX + 16];
    int n = snprintf(path, sizeof path, "%s%s", c->url.path, c->url.embedded ? "/run/bus.sock" : "");
    if (!e && (n < 0 || (size_t)n >= sizeof c->path)) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "%s: the path is too long", url);
    if (!e) memcpy(c->path, path, (size_t)n + 1);
    if (!e && !(c->client_id = strdup(client_id))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a link");
    bw_conn_options o = {.client_id = c->client_id, .remote = c->url.remote ? &c->url.at : NULL, .patience_ms = PATIENCE_MS, .stop = stop};
    if (!e) e = bw_conn_init(&c->conn, &o);
    if (e) {
        free(c->client_id);
        free(c);
        return e;
    }
    c->event_fd = -1;
    *out = c;
    return BW_OK;
}

void bw_channel_close(bw_channel *c)
{
    if (!c) return;
    if (c->local) close_local(c);
    else {
        bw_conn_fini(&c->conn);
        free(c->client_id);
    }
    free(c);
}

bool bw_channel_is_local(const bw_channel *c) { return c->local; }

bw_err bw_channel_connect(bw_channel *c, bw_deadline deadline)
{
    bool refused;
    return c->local || bw_conn_is_up(&c->conn) ? BW_OK : bw_conn_connect(&c->conn, c->path, deadline, &refused);
}

bool bw_channel_is_up(bw_channel *c) { return c->local ? !c->gone : bw_conn_is_up(&c->conn); }

void bw_channel_drop(bw_channel *c)
{
    if (!c->local) bw_conn_drop(&c->conn);
}

/* ---- requests ---- */

static bw_err submit_local(bw_channel *c, bw_request *r, bw_ask *ask)
{
    bw_buf text = {0};
    r->correlation = c->next_correlation++;
    bw_err e = bw_request_encode(r, &text, false);
    bw_frame frame;
    bw_request own;
    size_t used, need;
    if (!e) e = bw_frame_parse(text.data, text.len, FRAME_MAX, &frame, &used, &need);
    if (!e) e = bw_request_decode(&frame, &own);
    if (e) {
        bw_buf_free(&text);
        return e == BW_ERR_EMPTY ? bw_fail(BW_ERR_INTERNAL, "%s: a frame that is not whole", bw_api_name(r->type)) : e;
    }
    ask->pending.correlation = r->correlation;
    ask->next = c->asks;
    c->asks = ask;
    if (text.len <= HERE_MAX) bw_broker_submit_here(c->broker, c->session, &own, text.data);
    else bw_broker_submit(c->broker, c->session, &own, text.data);
    return BW_OK;
}

bw_err bw_channel_submit(bw_channel *c, bw_request *r, bw_ask *ask)
{
    ask->channel = c;
    ask->type = r->type;
    if (c->local) return submit_local(c, r, ask);
    bw_buf frame = {0};
    ask->pending = (bw_pending){.done = on_remote, .opaque = ask};
    r->correlation = ask->pending.correlation = bw_conn_correlate(&c->conn);
    bw_err e = bw_request_encode(r, &frame, true);
    if (!e) e = bw_conn_submit(&c->conn, &ask->pending, &frame, r->payload, r->payload_len);
    bw_buf_free(&frame);
    return e;
}

size_t bw_channel_dispatch(bw_channel *c)
{
    if (!c->local) return 0;
    size_t n = 0;
    pthread_mutex_lock(&c->mutex);
    struct arrived *list = c->first;
    c->first = c->last = NULL;
    if (c->poked) {
        eventfd_t v;
        c->poked = false;
        (void)eventfd_read(c->event_fd, &v);
    }
    pthread_mutex_unlock(&c->mutex);
    while (list) {
        struct arrived *x = list;
        list = x->next;
        bw_frame frame;
        size_t used, need, len = x->frame.len;
        bw_err e = bw_frame_parse(x->frame.data, len, FRAME_MAX, &frame, &used, &need);
        bw_ask **at = &c->asks;
        while (!e && *at && (*at)->pending.correlation != frame.correlation) at = &(*at)->next;
        bw_ask *ask = e ? NULL : *at;
        if (ask) *at = ask->next;
        if (ask) hand_out(c, ask, BW_OK, &frame);
        bool was_full = atomic_fetch_sub(&c->backlog, len) >= WRITABLE_BELOW;
        bw_buf_free(&x->frame);
        free(x);
        if (was_full && atomic_load(&c->backlog) < WRITABLE_BELOW) bw_broker_writable(c->broker, c->session);
        n++;
    }
    return n;
}

int bw_channel_fd(const bw_channel *c) { return c->local ? c->event_fd : -1; }

struct handed_since {
    bw_channel *channel;
    size_t then;
};
static bool has_handed(void *opaque) { return ((struct handed_since *)opaque)->channel->handed != ((struct handed_since *)opaque)->then; }

static bw_err wait_local(bw_channel *c, int extra_fd, bw_deadline deadline)
{
    struct pollfd fds[3] = {{.fd = c->event_fd, .events = POLLIN}, {.fd = extra_fd, .events = POLLIN},
                            {.fd = c->stop ? c->stop->fd : -1, .events = POLLIN}};
    int64_t left = bw_deadline_left_ns(deadline);
    struct timespec t = {left / 1000000000, left % 1000000000};
    int r = ppoll(fds, 3, left == INT64_MAX ? NULL : &t, NULL);
    bw_channel_dispatch(c);
    if (r > 0 && fds[2].revents) return bw_fail(BW_ERR_CLOSED, "it was told to stop");
    if (c->gone) return bw_fail(BW_ERR_NOT_CONNECTED, "no memory for an answer");
    return r == 0 ? bw_fail(BW_ERR_TIMED_OUT, "nothing was answered in time") : BW_OK;
}

bw_err bw_channel_wait(bw_channel *c, int extra_fd, bw_deadline deadline)
{
    if (c->local) return wait_local(c, extra_fd, deadline);
    struct handed_since since = {c, c->handed};
    return bw_conn_wait(&c->conn, has_handed, &since, extra_fd, deadline);
}

struct sync {
    bw_ask ask;
    bw_reply *reply;
    bw_err error;
    bool done;
    char message[1024];
};

/* The answer's views lead into the frame, which goes: the whole answer once more. */
static void sync_done(bw_ask *ask, bw_err e, const bw_answer *a)
{
    struct sync *s = (struct sync *)(void *)ask;
    s->done = true;
    s->error = e;
    if (e) snprintf(s->message, sizeof s->message, "%s", bw_error_message());
    if (!a) return;
    bw_buf text = {0};
    bw_frame frame;
    size_t used, need;
    bw_err c = bw_answer_encode(a, &text, false);
    if (!c) c = bw_frame_parse(text.data, text.len, FRAME_MAX, &frame, &used, &need);
    if (!c) c = bw_answer_decode(&frame, &s->reply->answer);
    if (c) {
        bw_buf_free(&text);
        if (!s->error) s->error = c;
        return;
    }
    s->reply->frame = text.data;
    s->reply->frame_len = text.len;
}

bw_err bw_channel_request(bw_channel *c, bw_request *r, bw_deadline deadline, bw_reply *reply)
{
    memset(&reply->answer, 0, sizeof reply->answer);
    reply->frame = NULL;
    reply->frame_len = 0;
    if (!c->local) return bw_conn_request(&c->conn, r, deadline, reply);
    struct sync s = {.ask = {.done = sync_done}, .reply = reply};
    bw_err e = bw_channel_submit(c, r, &s.ask);
    while (!e && !s.done) {
        e = wait_local(c, -1, deadline);
        if (e == BW_ERR_TIMED_OUT && bw_deadline_left_ns(deadline) > 0) e = BW_OK;
    }
    if (s.done) return s.error ? bw_error_set_message(s.error, s.message) : BW_OK;
    for (bw_ask **at = &c->asks; *at; at = &(*at)->next) {
        if (*at != &s.ask) continue;
        *at = s.ask.next;
        break;
    }
    return e;
}

void bw_channel_bytes(bw_channel *c, uint64_t *out, uint64_t *in)
{
    *out = c->local ? 0 : atomic_load(&c->conn.bytes_out);
    *in = c->local ? 0 : atomic_load(&c->conn.bytes_in);
}
