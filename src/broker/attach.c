/* broker/attach.c: who maps what: direct writers, their death, and the mailboxes of direct consumers.
 *
 * A writer can die between publishing and waking. Its connection's end says so at once (the kernel closes it only after the last thread
 * has made its last store); where a forked child keeps the connection open, the pidfd does, looked at each second. Its wakes are then
 * done on every partition of the topics that it was attached to, into every mailbox.
 * A mailbox that a client had is given out again only after a while: a process that lost its connection may still use it. After a
 * takeover, boxes that were ever used are given out last: their owners went on. All of this is hints; a shared box costs a second. */
#include "broker/links.h"
#include "broker/quota_admit.h"

#include "base/os.h"
#include "log/wait.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define FIRST_MAILBOX (BW_MAILBOX_SYNCER + 1)
#define QUARANTINE_MS 10000
#define ATTACHED_MAX 4096

enum { BOX_FREE = 0, BOX_USED = 1, BOX_QUARANTINED = 2, BOX_FOREIGN = 3 /* used before the takeover */ };

struct bw_attachment {
    bw_uuid topic;
    bool for_write;
    bw_attachment *next;
};

/* ---- attach ---- */

static bw_attachment *find(const bw_session *s, const bw_uuid *topic)
{
    bw_attachment *a = s->attached;
    while (a && !bw_uuid_equal(&a->topic, topic)) a = a->next;
    return a;
}

uint32_t bw_attach_writers(const bw_session *s)
{
    uint32_t n = 0;
    for (const bw_attachment *a = s->attached; a; a = a->next) n += a->for_write;
    return n;
}

uint32_t bw_attach_readers(const bw_session *s)
{
    uint32_t n = 0;
    for (const bw_attachment *a = s->attached; a; a = a->next) n += !a->for_write;
    return n;
}

uint32_t bw_attach_fence_writers(bw_broker *b, const bw_session *s)
{
    uint32_t n = 0;
    for (const bw_attachment *a = s->attached; a; a = a->next) {
        bw_topic *t;
        HASH_FIND(by_id, b->topics_by_id, a->topic.b, 16, t);
        if (!t || t->deleting || !a->for_write) continue;
        for (uint32_t i = 0; i < t->part_count; i++) atomic_fetch_add_explicit(&t->control->slots[i].fence, 1, memory_order_release);
        n++;
    }
    return n;
}

/* A compacted topic's records are checked for their keys here, so its writers come through the socket; who was attached when the
 * policy was changed stays, and the cleaner keeps what has no key. */
static bw_err check_direct(bw_broker *b, const bw_op *op, const bw_topic *t)
{
    const bw_peer *peer = &op->session->peer;
    if (b->no_direct[0]) return bw_fail(BW_ERR_UNSUPPORTED, "%s", b->no_direct);
    if (op->request.for_write && bw_topic_is_mirror(t))
        return bw_fail(BW_ERR_UNSUPPORTED, "topic '%s' is the mirror of link '%s'", t->name, t->mirror->link);
    if (op->request.for_write && bw_topic_config_compacts(&t->config))
        return bw_fail(BW_ERR_UNSUPPORTED, "topic '%s' is compacted: each record must have a key, which the daemon checks; use transport=ipc",
                       t->name);
    if (op->request.for_write && (peer->uid < 0 || (uint64_t)peer->uid != b->uid))
        return bw_fail(BW_ERR_NOT_PERMITTED, "direct write needs the data owner's uid %llu, this is uid %lld; use transport=ipc",
                       (unsigned long long)b->uid, (long long)peer->uid);
    return bw_quota_check_attach(b, op->session, op->request.for_write);
}

/* A pid is reused: only when the process behind the descriptor began when the peer did, it is the peer. */
static void watch(bw_broker *b, bw_session *s)
{
    if (s->pid_fd >= 0 || s->peer.pid <= 0) return;
    s->pid_fd = (int)syscall(SYS_pidfd_open, s->peer.pid, 0);
    if (s->pid_fd >= 0 && s->peer.start_time && bw_os_process_start_time(s->peer.pid) != s->peer.start_time) {
        bw_os_close(s->pid_fd);
        s->pid_fd = -1;
    }
    bw_broker_tick_on(b);
}

static bw_err attach(bw_broker *b, bw_op *op, bw_topic **out)
{
    bw_session *s = op->session;
    bw_err e = bw_topic_of(b, op->request.topic, false, out);
    if (!e) e = check_direct(b, op, *out);
    if (e) return e;
    bw_attachment *a = find(s, &(*out)->id);
    size_t count = 0;
    for (bw_attachment *each = s->attached; each; each = each->next) count++;
    if (!a) {
        if (count >= ATTACHED_MAX) return bw_fail(BW_ERR_BUSY, "a connection attaches to at most %d topics", ATTACHED_MAX);
        if (!(a = calloc(1, sizeof *a))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an attachment");
        a->topic = (*out)->id;
        a->next = s->attached;
        s->attached = a;
    }
    a->for_write |= op->request.for_write;
    if (a->for_write) watch(b, s);
    if (a->for_write && !b->fresh) /* it may be waiting for room there: before those that nobody uses */
        for (uint32_t i = 0; i < (*out)->part_count; i++) bw_opener_want(b, (*out)->parts[i]);
    return BW_OK;
}

void bw_handle_attach(bw_broker *b, bw_op *op)
{
    bw_topic *t;
    bw_err e = attach(b, op, &t);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.topic_id = t->id;
    a.partitions = (int32_t)t->part_count;
    bw_op_finish(op, &a);
}

static void drop(bw_session *s, const bw_uuid *topic)
{
    for (bw_attachment **at = &s->attached; *at; at = &(*at)->next) {
        if (!bw_uuid_equal(&(*at)->topic, topic)) continue;
        bw_attachment *gone = *at;
        *at = gone->next;
        free(gone);
        return;
    }
}

void bw_handle_detach(bw_broker *b, bw_op *op)
{
    bw_topic *t = bw_topic_find(b, op->request.topic);
    if (t) drop(op->session, &t->id);
    bw_op_ok(op);
}

void bw_attach_forget_topic(bw_broker *b, const bw_uuid *id)
{
    for (bw_session *s = b->sessions; s; s = s->next) drop(s, id);
}

/* ---- death ---- */

static void wake_for(bw_broker *b, const bw_uuid *id)
{
    bw_topic *t;
    HASH_FIND(by_id, b->topics_by_id, id->b, 16, t);
    if (!t || t->deleting) return;
    uint32_t boxes = atomic_load(&b->mail->header->slots);
    for (uint32_t i = 0; i < t->part_count; i++) {
        bw_wake_all_boxes(b->mail, boxes, t->parts[i]->bus_number);
        bw_wake(t->control, i, BW_WAIT_STATE);
    }
}

static void writer_gone(bw_broker *b, bw_session *s)
{
    uint32_t writers = 0;
    for (bw_attachment *a = s->attached; a; a = a->next) {
        if (!a->for_write) continue;
        if (b->mail) wake_for(b, &a->topic);
        a->for_write = false;
        writers++;
    }
    if (!writers) return;
    bw_broker_event(b, BW_LOG_DEBUG, "writer_gone", "session=%llu pid=%d topics=%u", (unsigned long long)s->number, (int)s->peer.pid, writers);
}

/* ---- mailboxes ---- */

void bw_attach_mail_taken_over(bw_broker *b, bw_mail *mail)
{
    uint32_t boxes = atomic_load(&mail->header->slots);
    for (uint32_t i = FIRST_MAILBOX; i < boxes && i < BW_MAILBOXES; i++)
        if (atomic_load(&bw_mail_box(mail, i)->word)) b->mailbox_state[i] = BOX_FOREIGN;
}

static uint32_t choose_box(bw_broker *b)
{
    int64_t now = bw_clock_mono_ms();
    uint32_t foreign = 0;
    for (uint32_t i = FIRST_MAILBOX; i < BW_MAILBOXES; i++) {
        if (b->mailbox_state[i] == BOX_QUARANTINED && now >= b->mailbox_free_at_ms[i]) b->mailbox_state[i] = BOX_FREE;
        if (b->mailbox_state[i] == BOX_FREE) return i;
        if (b->mailbox_state[i] == BOX_FOREIGN && !foreign) foreign = i;
    }
    return foreign;
}

/* A box may hold what its last owner never fetched. */
static void clean_box(bw_mailbox *box)
{
    for (size_t i = 0; i < sizeof box->l1 / sizeof box->l1[0]; i++) {
        uint64_t words = atomic_exchange(&box->l1[i], 0);
        for (; words; words &= words - 1) atomic_store(&box->l0[i * 64 + (size_t)__builtin_ctzll(words)], 0);
    }
}

void bw_handle_mailbox(bw_broker *b, bw_op *op)
{
    bw_err e = BW_OK;
    uint32_t n = 0;
    if (b->no_direct[0]) e = bw_fail(BW_ERR_UNSUPPORTED, "%s", b->no_direct);
    else if (!(n = choose_box(b))) e = bw_fail(BW_ERR_BUSY, "all %u mailboxes are in use; use transport=ipc", BW_MAILBOXES - FIRST_MAILBOX);
    else e = bw_mail_allocate(b->arena_fd, b->mail, n);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    clean_box(bw_mail_box(b->mail, n));
    b->mailbox_state[n] = BOX_USED;
    op->session->mailboxes[n / 64] |= UINT64_C(1) << (n % 64);
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.mailbox = n;
    bw_op_finish(op, &a);
}

void bw_handle_release_mailbox(bw_broker *b, bw_op *op)
{
    uint32_t n = op->request.mailbox;
    if (n >= BW_MAILBOXES || !(op->session->mailboxes[n / 64] >> (n % 64) & 1)) {
        bw_op_fail(op, bw_fail(BW_ERR_INVALID_ARGUMENT, "mailbox %u is not this connection's", n));
        return;
    }
    op->session->mailboxes[n / 64] &= ~(UINT64_C(1) << (n % 64));
    b->mailbox_state[n] = BOX_FREE;
    bw_op_ok(op);
}

/* ---- the end of a session, and the tick ---- */

void bw_attach_session_closed(bw_broker *b, bw_session *s)
{
    writer_gone(b, s);
    while (s->attached) {
        bw_attachment *next = s->attached->next;
        free(s->attached);
        s->attached = next;
    }
    for (uint32_t n = FIRST_MAILBOX; n < BW_MAILBOXES; n++) {
        if (!(s->mailboxes[n / 64] >> (n % 64) & 1)) continue;
        b->mailbox_state[n] = BOX_QUARANTINED;
        b->mailbox_free_at_ms[n] = bw_clock_mono_ms() + QUARANTINE_MS;
    }
}

bool bw_attach_tick(bw_broker *b)
{
    bool watching = false;
    for (bw_session *s = b->sessions; s; s = s->next) {
        if (!bw_attach_writers(s)) continue;
        struct pollfd p = {.fd = s->pid_fd, .events = POLLIN};
        if (s->pid_fd >= 0 && poll(&p, 1, 0) == 1) writer_gone(b, s);
        else watching |= s->pid_fd >= 0;
    }
    return watching;
}
