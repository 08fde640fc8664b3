/* broker/loop.c: the turns of the broker.
 *
 * Two threads sleep, each on what can wake it, and take *turns* (the reactor's lock) at the same work, so that whoever is woken
 * does it himself and nothing is handed over (others may take a turn for a request of theirs: bw_broker_submit_here):
 *   the socket thread  in epoll, on connections: reads requests, handles and answers them in its turn
 *   the broker thread  on BW_MAILBOX_BROKER: appends of direct writers, events of other threads, timers
 * One round: events, notified partitions, timers, partitions to be served again. When a round finds nothing, interest is armed for
 * partitions on which something waits, a fence, one more look at each of them (the sleeper's side of the protocol in log/wait.c),
 * then the thread sleeps; the broker thread until the next timer. The 1 s tick runs only while something waits or a writer is watched,
 * and serves every partition that has waiters: a lost wake costs at most that. */
#include "broker/groups.h"
#include "broker/links.h"
#include "broker/offsets.h"
#include "broker/replica.h"
#include "broker/txn.h"

#include "log/wait.h"

#include <stdlib.h>

#define NOTIFIED_AT_ONCE 256
#define ROUNDS_AT_ONCE 8 /* of the socket thread, before it looks at the sockets again */

void bw_broker_push(bw_broker *b, bw_event *e)
{
    e->next = NULL;
    pthread_mutex_lock(&b->queue_lock);
    bool was_empty = !b->queue && !bw_reactor_is_mine(b->reactor); /* who has the turn looks into the queue himself */
    if (b->queue_last) b->queue_last->next = e;
    else b->queue = e;
    b->queue_last = e;
    bw_mailbox *box = was_empty && b->mail ? bw_mail_box(b->mail, BW_MAILBOX_BROKER) : NULL;
    if (was_empty && !box) pthread_cond_signal(&b->queue_cond);
    pthread_mutex_unlock(&b->queue_lock);
    if (box) bw_mailbox_poke(box);
}

static bw_event *take_events(bw_broker *b)
{
    pthread_mutex_lock(&b->queue_lock);
    bw_event *e = b->queue;
    b->queue = b->queue_last = NULL;
    pthread_mutex_unlock(&b->queue_lock);
    return e;
}

void bw_broker_again(bw_broker *b, bw_part *p)
{
    if (p->in_again) return;
    p->in_again = true;
    p->again_next = b->again;
    b->again = p;
}

static bool waits_for(const bw_part *p, bw_wait_class cls)
{
    return bw_fetch_waiting(p, cls) || bw_sub_waiting(p, cls) || bw_queue_waiting(p, cls) || (p->taps && bw_tap_waiting(p, cls)) ||
           (cls == BW_WAIT_STATE && (bw_produce_waiting(p) || p->holds || p->replica_waits || bw_txn_waiting(p) || bw_replica_waiting(p)));
}

void bw_part_serve(bw_broker *b, bw_part *p)
{
    if (p->replicas) bw_replica_settle(b, p);
    if (p->replica_waits) bw_replica_serve_waits(b, p);
    bw_produce_serve(b, p);
    if (p->holds) bw_offsets_serve(b, p);
    bw_txn_serve(b, p);
    bw_fetch_serve(b, p);
    bw_sub_serve(b, p);
    if (p->taps) bw_tap_serve(b, p);
    if (p->queues || p->deaths) bw_queue_serve_part(b, p);
    if (!p->armed && !p->in_unarmed && (waits_for(p, BW_WAIT_TAIL) || waits_for(p, BW_WAIT_STATE))) {
        p->in_unarmed = true;
        p->unarmed_next = b->unarmed;
        b->unarmed = p;
    }
}

void bw_broker_forget(bw_broker *b, bw_part *p)
{
    for (bw_part **at = &b->again; *at; at = &(*at)->again_next) {
        if (*at != p) continue;
        *at = p->again_next;
        break;
    }
    for (bw_part **at = &b->unarmed; *at; at = &(*at)->unarmed_next) {
        if (*at != p) continue;
        *at = p->unarmed_next;
        break;
    }
    p->in_again = p->in_unarmed = false;
}

static size_t serve_again(bw_broker *b)
{
    size_t n = 0;
    bw_part *list = b->again; /* no part is freed while it is served: frees come as events */
    b->again = NULL;
    while (list) {
        bw_part *p = list;
        list = p->again_next;
        p->in_again = false;
        bw_part_serve(b, p);
        n++;
    }
    return n;
}

static size_t serve_notified(bw_broker *b)
{
    uint32_t numbers[NOTIFIED_AT_ONCE];
    size_t n = b->mail ? bw_mailbox_drain(bw_mail_box(b->mail, BW_MAILBOX_BROKER), numbers, NOTIFIED_AT_ONCE) : 0;
    for (size_t i = 0; i < n; i++) {
        bw_part *p = bw_part_by_number(b, numbers[i]);
        if (!p) continue; /* hints may be nonsense */
        p->armed = false;
        bw_part_serve(b, p);
    }
    return n;
}

static size_t handle_events(bw_broker *b)
{
    size_t n = 0;
    for (bw_event *e = take_events(b), *next; e; e = next) {
        next = e->next;
        bw_session_dispatch(b, e); /* frees e */
        n++;
    }
    bw_produce_flush(b);
    return n;
}

/* Arms what waits and is not armed yet; true when something was armed, so that one must look again before sleeping. */
static bool arm_waiters(bw_broker *b)
{
    bool fresh = false;
    bw_part *list = b->unarmed;
    b->unarmed = NULL;
    while (list) {
        bw_part *p = list;
        list = p->unarmed_next;
        p->in_unarmed = false;
        bool tail = waits_for(p, BW_WAIT_TAIL), state = waits_for(p, BW_WAIT_STATE);
        if (tail) bw_arm(p->topic->control, p->index, BW_WAIT_TAIL, BW_MAILBOX_BROKER);
        if (state) bw_arm(p->topic->control, p->index, BW_WAIT_STATE, BW_MAILBOX_BROKER);
        if (!tail && !state) continue;
        p->armed = true;
        fresh = true;
        bw_broker_again(b, p);
    }
    if (!fresh) return false;
    bw_arm_fence(b->mail->header->asymmetric);
    bw_broker_tick_on(b);
    return true;
}

void bw_broker_tick_on(bw_broker *b)
{
    if (!b->tick.index) bw_timers_set(&b->timers, &b->tick, bw_deadline_in_ms(BW_TICK_MS));
}

/* Once a second while something waits: the audit of every wait, dead writers, readers that nobody used for a while. */
void bw_broker_on_tick(void *broker, bw_timer *timer)
{
    (void)timer;
    bw_broker *b = broker;
    bool needed = bw_attach_tick(b);
    for (uint32_t i = 0; i < b->parts_count; i++) {
        bw_part *p = b->parts[i];
        if (!p) continue;
        needed |= bw_part_close_idle_readers(p);
        needed |= bw_queue_close_idle(p);
        if (!waits_for(p, BW_WAIT_TAIL) && !waits_for(p, BW_WAIT_STATE)) continue;
        needed = true;
        p->armed = false;
        bw_part_serve(b, p);
    }
    if (needed) bw_broker_tick_on(b);
}

/* One round; what was done in it. What it sent is on its way behind it. */
static size_t round_once(bw_broker *b)
{
    size_t work = handle_events(b);
    work += serve_notified(b);
    work += bw_timers_run(&b->timers, b, bw_clock_mono_ns());
    work += serve_again(b);
    bw_groups_turn(b);
    bw_offsets_flush(b);
    bw_reactor_flush(b->reactor);
    return work;
}

/* ---- the broker thread ---- */

void bw_broker_wake(bw_broker *b)
{
    pthread_mutex_lock(&b->queue_lock);
    pthread_cond_signal(&b->queue_cond);
    bw_mail *mail = b->mail;
    pthread_mutex_unlock(&b->queue_lock);
    if (mail) bw_mailbox_poke(bw_mail_box(mail, BW_MAILBOX_BROKER));
}

static void rest(bw_broker *b, bw_deadline next)
{
    pthread_mutex_lock(&b->queue_lock);
    bw_mail *mail = b->mail;
    if (!mail && !b->queue && !atomic_load(&b->stopping)) { /* no control data yet: bring_up tries again by its timer */
        struct timespec until;
        int64_t ns = next == BW_DEADLINE_NEVER ? bw_clock_mono_ns() + INT64_C(1000000000) : next;
        until.tv_sec = ns / 1000000000;
        until.tv_nsec = ns % 1000000000;
        pthread_cond_timedwait(&b->queue_cond, &b->queue_lock, &until);
    }
    pthread_mutex_unlock(&b->queue_lock);
    if (mail) bw_mailbox_sleep(bw_mail_box(mail, BW_MAILBOX_BROKER), next);
}

void *bw_broker_thread_main(void *broker)
{
    bw_broker *b = broker;
    for (;;) {
        bw_reactor_enter(b->reactor);
        bool stopping = atomic_load(&b->stopping);
        size_t work = round_once(b);
        bool again = work || arm_waiters(b);
        bw_deadline next = b->rest_until = bw_timers_next(&b->timers);
        bw_reactor_leave(b->reactor);
        if (stopping && !work) break; /* what was queued before the stop is answered */
        if (!again) rest(b, next);
    }
    return NULL;
}

/* ---- the socket thread ---- */

/* Behind work that another thread than the broker's did in its turn: what follows from it. true: there is more. */
static bool rounds(bw_broker *b)
{
    int n = 0;
    while (n < ROUNDS_AT_ONCE && (round_once(b) || arm_waiters(b))) n++;
    return n == ROUNDS_AT_ONCE;
}

/* Timers are the broker thread's: does it sleep too long? */
static bool sleeps_too_long(bw_broker *b)
{
    bw_deadline next = bw_timers_next(&b->timers);
    if (next >= b->rest_until) return false;
    b->rest_until = next;
    return true;
}

void bw_broker_submit_here(bw_broker *b, bw_session *s, const bw_request *request, void *token)
{
    bw_reactor_enter(b->reactor);
    bw_broker_submit(b, s, request, token); /* wakes nobody: we have the turn */
    bool left = rounds(b), late = sleeps_too_long(b);
    bw_reactor_leave(b->reactor);
    if (left || late) bw_broker_wake(b);
}

static void after_source(void *broker)
{
    bw_broker *b = broker;
    handle_events(b);
    bw_reactor_flush(b->reactor);
}

void *bw_broker_socket_main(void *broker)
{
    bw_broker *b = broker;
    bool more = false;
    while (!atomic_load(&b->stopping)) {
        bw_reactor_wait(b->reactor, more ? 0 : -1, after_source, b);
        more = rounds(b);
        bool wake = !more && sleeps_too_long(b);
        bw_reactor_leave(b->reactor);
        if (wake) bw_broker_wake(b);
    }
    return NULL;
}

bw_reactor *bw_broker_reactor(bw_broker *b) { return b->reactor; }
