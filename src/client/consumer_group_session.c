/* client/consumer_group_session.c: the session of a member: joining, the lease, the connection, and noting what arrives. See
 * consumer_group.h.
 *
 * The lease. The daemon counts from when it heard of us, we count from when we sent what it answered, which is earlier. A poll that
 * comes later than that asks before it gives anything: a process that was stopped can't know what happened meanwhile. When there is no
 * daemon to ask, there is none either that could have given our partitions away. */
#include "base/killpoint.h"
#include "client/consumer_group.h"

#include "base/os.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    CONNECT_MS = 200,      /* for one try */
    PROBE_MS = 5000,       /* for the answer of a daemon that is starting */
    BACKOFF_LEAST_MS = 5, BACKOFF_MOST_MS = 100,
    JOIN_AGAIN_MS = 50, REFUSED_AGAIN_MS = 500,
    ASK_LEAST_MS = 50,     /* for a lease that may have ended, in a poll that does not wait */
    LEASE_DEFAULT_MS = 45000,
};

static void owe_look(bw_cgroup *g) { g->due_ms = 0; }

/* ---- what arrives ---- */

static bw_err keep_assignment(bw_cgroup *g, const bw_frame *frame, const bw_answer *a, bool push)
{
    uint8_t *copy = malloc(frame->header_len ? frame->header_len : 1);
    if (!copy) return BW_ERR_NO_MEMORY;
    if (frame->header_len) memcpy(copy, frame->header, frame->header_len);
    free(g->assigned);
    g->assigned = copy;
    g->assigned_len = frame->header_len;
    g->assigned_type = frame->type;
    g->owed |= push;
    g->doubtful = g->releasing;
    g->epoch = a->group.epoch;
    owe_look(g);
    return BW_OK;
}

void bw_group_fence(bw_cgroup *g, bw_err e, const char *message)
{
    if (g->state == BW_MEMBER_OUT || g->state == BW_MEMBER_FENCED) return;
    g->state = BW_MEMBER_FENCED;
    g->fenced = e;
    free(g->reason);
    g->reason = message ? strdup(message) : NULL;
    free(g->assigned);
    g->assigned = NULL;
    g->member[0] = 0;
    g->epoch = -1;
    owe_look(g);
    bw_group_fail_commits(g, e, g->reason);
}

static void fence_by(bw_cgroup *g, const bw_answer *a)
{
    char text[900];
    size_t n = a->message.len < sizeof text ? a->message.len : sizeof text - 1;
    if (n) memcpy(text, a->message.data, n);
    text[n] = 0;
    bw_group_fence(g, (bw_err)a->error, n ? text : NULL);
}

bool bw_group_pushed(bw_cgroup *g, const bw_frame *frame)
{
    bw_answer a;
    memset(&a, 0, sizeof a);
    if (frame->type != BW_API_GROUP_ASSIGNMENT) return true;
    if (bw_answer_decode(frame, &a) != BW_OK) return false;
    bool ours = g->state == BW_MEMBER_IN && bw_str_is(a.group.id, g->id) && (!a.group.member.len || bw_str_is(a.group.member, g->member));
    bw_err e = BW_OK;
    if (ours && a.error) fence_by(g, &a);
    else if (ours && a.group.epoch >= g->epoch) e = keep_assignment(g, frame, &a, true);
    bw_answer_fini(&a);
    return e == BW_OK;
}

/* ---- joining ---- */

static void refuse(bw_cgroup *g, const bw_answer *a)
{
    bw_err e = (bw_err)a->error;
    bool again = bw_err_is_retriable(e);
    g->state = BW_MEMBER_WANTS;
    g->join_at_ms = bw_clock_coarse_ms() + (again ? JOIN_AGAIN_MS : REFUSED_AGAIN_MS);
    owe_look(g);
    if (again) return;
    g->refused = e;
    free(g->reason);
    g->reason = a->message.len ? bw_text_copy(a->message.data, a->message.len) : NULL;
}

static void take_member(bw_cgroup *g, bw_str member)
{
    if (member.len == 0 || member.len >= sizeof g->member) return;
    memcpy(g->member, member.data, member.len);
    g->member[member.len] = 0;
}

static void joined_well(bw_cgroup *g, const bw_answer *a, const bw_frame *frame)
{
    take_member(g, a->group.member);
    g->epoch = a->group.epoch;
    g->lease_ms = a->group.lease_ms > 0 ? a->group.lease_ms : LEASE_DEFAULT_MS;
    g->renewed_ms = g->join.sent_ms;
    g->releasing = false;
    g->state = BW_MEMBER_IN;
    BW_KILL_POINT("member.joined");
    g->refused = BW_OK;
    owe_look(g);
    if (a->group.has_parts && keep_assignment(g, frame, a, false) != BW_OK) { /* ask again */
        g->state = BW_MEMBER_WANTS;
        g->join_at_ms = bw_clock_coarse_ms() + JOIN_AGAIN_MS;
    }
}

static void joined(bw_pending *pending, bw_err e, const bw_frame *frame)
{
    bw_cgroup *g = ((bw_group_ask *)pending)->group;
    bw_answer a;
    memset(&a, 0, sizeof a);
    if (g->state != BW_MEMBER_JOINING) return;
    if (!e) e = bw_answer_decode(frame, &a);
    if (!e && a.type != BW_API_GROUP_JOIN) e = BW_ERR_PROTOCOL;
    if (e) {
        g->state = BW_MEMBER_WANTS; /* the connection is gone, or no use */
        g->join_at_ms = bw_clock_coarse_ms() + (e == BW_ERR_NOT_CONNECTED ? 0 : REFUSED_AGAIN_MS);
    } else if (a.error == BW_ERR_MEMBER_ID_REQUIRED) {
        take_member(g, a.group.member);
        g->state = BW_MEMBER_WANTS;
    } else if (bw_group_is_fence((bw_err)a.error)) {
        fence_by(g, &a);
    } else if (a.error) {
        refuse(g, &a);
    } else {
        joined_well(g, &a, frame);
    }
    bw_answer_fini(&a);
    owe_look(g);
}

static bw_err ask(bw_cgroup *g, bw_request *q, bw_group_ask *ask_of, bw_pending_fn done)
{
    bw_conn *conn = &g->consumer->conn;
    bw_buf frame = {0};
    ask_of->group = g;
    ask_of->pending.done = done;
    ask_of->sent_ms = bw_clock_coarse_ms();
    q->correlation = ask_of->pending.correlation = bw_conn_correlate(conn);
    bw_err e = bw_request_encode(q, &frame, false);
    if (!e) e = bw_conn_submit(conn, &ask_of->pending, &frame, NULL, 0);
    if (e) ask_of->pending.correlation = 0;
    bw_buf_free(&frame);
    return e;
}

static void fill_topics(const bw_cgroup *g, bw_request *q, bw_subscription *list)
{
    for (size_t i = 0; i < g->topic_count; i++) list[i] = (bw_subscription){bw_str_of(g->topics[i]), g->topics[i][0] == '^'};
    q->group.topics = list;
    q->group.topic_count = g->topic_count;
    q->group.has_topics = true;
}

static bw_err fill_owned(const bw_cgroup *g, bw_request *q)
{
    size_t n = 0;
    for (const bw_cpart *p = g->consumer->parts; p; p = p->next_part) n++;
    q->group.has_owned = true;
    if (n == 0) return BW_OK;
    bw_offset_part *list = calloc(n, sizeof *list);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory to say which partitions are owned");
    q->group.parts = list;
    for (const bw_cpart *p = g->consumer->parts; p; p = p->next_part)
        list[q->group.part_count++] = (bw_offset_part){.topic = bw_str_of(p->topic), .partition = p->partition, .offset = p->position,
                                                       .leader_epoch = p->leader_epoch, .topic_id = p->topic_id, .timestamp = -1};
    return BW_OK;
}

static void fill_who(const bw_cgroup *g, bw_request *q)
{
    q->group.id = bw_str_of(g->id);
    q->group.member = bw_str_of(g->member);
    q->group.instance = bw_str_of(g->instance);
    q->group.epoch = g->epoch;
    q->group.mailbox = bw_group_mailbox(g->consumer);
}

/* Our own choice, so that a join whose answer was lost with the daemon or the connection is known by it when it comes again. */
static bw_err choose_id(bw_cgroup *g)
{
    bw_uuid id;
    char hex[33];
    if (g->member[0]) return BW_OK;
    if (bw_os_uuid(id.b)) return bw_fail(BW_ERR_IO, "no random bytes for a member id");
    bw_uuid_hex(&id, hex);
    snprintf(g->member, sizeof g->member, "%.64s-%s", g->consumer->bus->client_id, hex);
    return BW_OK;
}

static bw_err send_join(bw_cgroup *g)
{
    const bw_consumer_options *o = &g->consumer->options;
    bw_err e = choose_id(g);
    if (e) return e;
    bw_subscription *list = calloc(g->topic_count ? g->topic_count : 1, sizeof *list);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory to join group %s", g->id);
    bw_request q;
    bw_request_init(&q, BW_API_GROUP_JOIN);
    fill_who(g, &q);
    q.group.kind = BW_GROUP_CONSUMER;
    q.group.assignor = bw_str_of(g->assignor);
    q.group.session_timeout_ms = o->session_timeout_ms;
    q.group.rebalance_timeout_ms = o->rebalance_timeout_ms;
    q.group.max_poll_interval_ms = o->max_poll_interval_ms;
    fill_topics(g, &q, list);
    e = fill_owned(g, &q);
    g->state = BW_MEMBER_JOINING;
    g->topics_changed = false;
    g->told_mailbox = q.group.mailbox;
    if (!e) e = ask(g, &q, &g->join, joined);
    if (e) g->state = BW_MEMBER_WANTS;
    BW_KILL_POINT("member.joining");
    free(q.group.parts);
    free(list);
    return e;
}

/* ---- the lease ---- */

static void beaten(bw_pending *pending, bw_err e, const bw_frame *frame)
{
    bw_group_ask *of = (bw_group_ask *)pending;
    bw_cgroup *g = of->group;
    bw_answer a;
    memset(&a, 0, sizeof a);
    if (e || g->state != BW_MEMBER_IN || bw_answer_decode(frame, &a) != BW_OK) return;
    if (bw_group_is_fence((bw_err)a.error) || a.error == BW_ERR_GROUP_ID_NOT_FOUND) {
        fence_by(g, &a);
    } else if (!a.error) {
        g->renewed_ms = of->sent_ms;
        if (of->owned) g->releasing = false;
        if (a.group.lease_ms > 0) g->lease_ms = a.group.lease_ms;
        if (a.group.has_parts && a.group.epoch >= g->epoch) keep_assignment(g, frame, &a, a.group.epoch > g->epoch);
    } else if (a.error == BW_ERR_STALE_MEMBER_EPOCH) {
        g->renewed_ms = of->sent_ms; /* heard of; the assignment that we have not seen yet lies in front of this answer */
        g->owed = true;
    }
    owe_look(g);
    bw_answer_fini(&a);
}

/* Renew the lease, and say what has changed with us. One at a time. */
bw_err bw_cgroup_beat(bw_cgroup *g)
{
    if (g->beat.pending.correlation) return BW_OK;
    bw_subscription *list = g->topics_changed ? calloc(g->topic_count ? g->topic_count : 1, sizeof *list) : NULL;
    if (g->topics_changed && !list) return bw_fail(BW_ERR_NO_MEMORY, "no memory to tell group %s of the topics", g->id);
    bw_request q;
    bw_request_init(&q, BW_API_GROUP_HEARTBEAT);
    fill_who(g, &q);
    if (g->topics_changed) fill_topics(g, &q, list);
    bw_err e = g->owed ? fill_owned(g, &q) : BW_OK;
    g->beat.owned = g->owed;
    if (!e) e = ask(g, &q, &g->beat, beaten);
    if (!e) {
        g->owed = g->topics_changed = false;
        g->told_mailbox = q.group.mailbox;
    }
    free(q.group.parts);
    free(list);
    return e;
}

static bool answered_or_fenced(void *opaque)
{
    bw_cgroup *g = opaque;
    return g->beat.pending.correlation == 0 || g->state != BW_MEMBER_IN;
}

/* OK: nothing may be given before the daemon was asked, and it was; or there is no daemon. TIMED_OUT: no answer yet. */
bw_err bw_group_verify_lease(bw_cgroup *g, int32_t timeout_ms)
{
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms >= 0 && timeout_ms < ASK_LEAST_MS ? ASK_LEAST_MS : timeout_ms);
    while (g->state == BW_MEMBER_IN && bw_group_lease_is_over(g)) {
        if (bw_cgroup_beat(g) != BW_OK) break;
        bw_err e = bw_conn_wait(&g->consumer->conn, answered_or_fenced, g, g->consumer->event_fd, deadline);
        if (e == BW_ERR_NOT_CONNECTED) break;
        if (e == BW_ERR_TIMED_OUT || bw_deadline_left_ns(deadline) == 0) return bw_group_lease_is_over(g) ? BW_ERR_TIMED_OUT : BW_OK;
        if (atomic_load(&g->consumer->woken)) return BW_OK; /* poll says so, and gives nothing */
        bw_consumer_unring(g->consumer);
    }
    return BW_OK;
}

/* ---- the connection ---- */

/* The daemon's mailboxes are all free again after its restart: ours is asked for first. */
static void refresh_bus(bw_consumer *c)
{
    if (!bw_conn_check(&c->bus->conn)) bw_bus_connect(c->bus, false, bw_deadline_in_ms(CONNECT_MS));
    bw_consumer_renew_mailbox(c);
}

static void back_off(bw_cgroup *g)
{
    int64_t pause = BACKOFF_LEAST_MS << (g->conn_tries < 5 ? g->conn_tries : 5);
    g->conn_tries++;
    g->conn_at_ms = bw_clock_coarse_ms() + (pause < BACKOFF_MOST_MS ? pause : BACKOFF_MOST_MS);
}

void bw_group_end_probe(bw_cgroup *g)
{
    if (g->probe_fd >= 0) bw_os_close(g->probe_fd);
    g->probe_fd = -1;
}

/* A first HELLO over a socket of its own, whose answer is not waited for. EMPTY: none yet. NOT_CONNECTED. OK also where that is not how to
 * find out. */
static bw_err probe(bw_cgroup *g)
{
    bw_bus *bus = g->consumer->bus;
    if (bus->url.remote || strlen(bus->socket_path) >= sizeof((struct sockaddr_un *)0)->sun_path) return BW_OK;
    if (g->probe_fd < 0) {
        bw_request q;
        bw_buf frame = {0};
        int fd = bw_os_unix_socket();
        if (fd < 0) return BW_OK;
        bool up = bw_os_unix_connect(fd, bus->socket_path) == 0;
        bw_request_init(&q, BW_API_HELLO);
        q.client_id = bw_str_of(bus->client_id);
        q.client_pid = (int32_t)getpid();
        if (up && bw_request_encode(&q, &frame, false) == BW_OK) {
            struct iovec piece = {frame.data, frame.len};
            up = bw_os_sendv(fd, &piece, 1) == (ssize_t)frame.len;
        }
        bw_buf_free(&frame);
        if (!up) bw_os_close(fd);
        if (!up) return bus->url.embedded ? BW_OK : BW_ERR_NOT_CONNECTED; /* an embedded daemon is to be started */
        g->probe_fd = fd;
        g->probe_until_ms = bw_clock_coarse_ms() + PROBE_MS;
    }
    char byte;
    ssize_t n = bw_os_recv(g->probe_fd, &byte, 1, MSG_PEEK);
    if (n < 0 && errno == EAGAIN && bw_clock_coarse_ms() < g->probe_until_ms) return BW_ERR_EMPTY;
    bw_group_end_probe(g);
    return n > 0 ? BW_OK : BW_ERR_NOT_CONNECTED;
}

/* A daemon that is starting takes connections before it answers: who has records to give meanwhile does not wait for it. */
static bw_err connect_now(bw_cgroup *g, bw_deadline deadline)
{
    bw_consumer *c = g->consumer;
    int64_t now = bw_clock_coarse_ms();
    bw_err e = now < g->conn_at_ms ? BW_ERR_EMPTY : BW_OK;
    bool first = g->conn_epoch == 0;
    if (!e && !first && c->direct_count) e = probe(g);
    if (e == BW_ERR_NOT_CONNECTED) back_off(g);
    else if (e && now >= g->conn_at_ms) g->conn_at_ms = now + 1;
    if (e) return bw_fail(BW_ERR_NOT_CONNECTED, "group %s: there is no connection to the daemon; it is tried again", g->id);
    int32_t patience_ms = c->conn.options.patience_ms; /* also over a network: who gave a time-out is not kept longer */
    int64_t left_ms = deadline == BW_DEADLINE_NEVER ? INT64_MAX : bw_deadline_left_ns(deadline) / 1000000;
    if (left_ms < patience_ms) c->conn.options.patience_ms = (int32_t)left_ms;
    e = bw_consumer_reconnect(c, bw_deadline_first(deadline, bw_deadline_in_ms(first ? c->bus->connect_timeout_ms : CONNECT_MS)));
    c->conn.options.patience_ms = patience_ms;
    if (e) {
        back_off(g);
        return e == BW_ERR_NO_COORDINATOR || e == BW_ERR_TIMED_OUT ? bw_error_context(BW_ERR_NOT_CONNECTED, "group %s", g->id) : e;
    }
    g->conn_tries = 0;
    if (!first) refresh_bus(c);
    return BW_OK;
}

/* A session ended with its connection. */
void bw_group_note_connection(bw_cgroup *g)
{
    uint32_t epoch = atomic_load(&g->consumer->conn.epoch);
    if (g->conn_epoch == epoch && bw_conn_is_up(&g->consumer->conn)) return;
    if (g->state == BW_MEMBER_IN || g->state == BW_MEMBER_JOINING) {
        g->state = BW_MEMBER_WANTS;
        g->join_at_ms = 0;
    }
}

bw_err bw_group_advance_until(bw_cgroup *g, bw_deadline deadline)
{
    bw_consumer *c = g->consumer;
    bw_err e = bw_consumer_ensure_conn(c);
    bw_group_note_connection(g);
    if (!e && !bw_conn_is_up(&c->conn)) e = connect_now(g, deadline);
    if (e) return e;
    uint32_t epoch = atomic_load(&c->conn.epoch);
    if (epoch != g->conn_epoch) {
        bw_group_note_connection(g);
        g->conn_epoch = epoch;
    }
    bool may_join = !g->closing || (*g->member && g->unsent); /* who closes comes back only to commit */
    if (g->state == BW_MEMBER_WANTS && may_join && !g->join.pending.correlation && bw_clock_coarse_ms() >= g->join_at_ms) e = send_join(g);
    if (!e) bw_group_send_commits(g);
    return e;
}

bw_err bw_group_advance(bw_cgroup *g) { return bw_group_advance_until(g, BW_DEADLINE_NEVER); }
