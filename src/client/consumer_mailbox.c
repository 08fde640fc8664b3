/* client/consumer_mailbox.c: the mailbox on which a consumer of the direct path sleeps: given by the daemon, renewed by the next one.
 *
 * A daemon that took over gives away boxes of its predecessor's clients only when it has no others, so an old box still wakes. It is
 * exchanged without haste, and without waiting for the answer: a poll that finds data must not stand still because a daemon comes up or
 * goes. The request is sent by one audit; a later one, about a second on, finds the answer. */
#include "client/consumer.h"

#include "client/readonly.h"

static void env_ref(bw_bus *bus, bw_env *env, int by)
{
    pthread_mutex_lock(&bus->direct.mutex);
    bw_direct_env_ref(env, by);
    pthread_mutex_unlock(&bus->direct.mutex);
}

static void use_box(bw_consumer *c, uint32_t number, uint32_t epoch)
{
    c->mailbox = number;
    c->mail_epoch = epoch;
    bw_mailbox *box = bw_mail_box(c->env->mail, number);
    c->seen_word = atomic_load_explicit(&box->word, memory_order_acquire) & ~1u;
    atomic_store(&c->box, box);
}

bw_err bw_consumer_take_mailbox(bw_consumer *c, bw_env *env)
{
    if (c->env == env && atomic_load(&c->box)) return BW_OK;
    uint32_t number = 0;
    uint32_t epoch = atomic_load(&c->bus->conn.epoch);
    bw_err e = bw_bus_mailbox(c->bus, &number);
    if (e) return e;
    bw_consumer_drop_mailbox(c);
    env_ref(c->bus, env, 1);
    c->env = env;
    use_box(c, number, epoch);
    return BW_OK;
}

static void give_back(bw_consumer *c, uint32_t number, uint32_t epoch)
{
    if (epoch != atomic_load(&c->bus->conn.epoch) || !bw_conn_is_up(&c->bus->conn)) return;
    bw_request q;
    bw_request_init(&q, BW_API_RELEASE_MAILBOX);
    q.mailbox = number;
    bw_conn_tell(&c->bus->conn, &q);
}

void bw_consumer_drop_mailbox(bw_consumer *c)
{
    if (!c->env) return;
    bw_renewal *r = &c->renewal;
    if (!bw_conn_cancel(&c->bus->conn, &r->pending) && atomic_load(&r->state) == BW_RENEWAL_CAME) give_back(c, r->number, r->epoch);
    atomic_store(&r->state, BW_RENEWAL_NONE);
    if (c->env->readonly) bw_readonly_release_mailbox(c->bus, c->mailbox);
    give_back(c, c->mailbox, c->mail_epoch);
    atomic_store(&c->box, NULL);
    env_ref(c->bus, c->env, -1);
    c->env = NULL;
}

/* ---- after the daemon came back ---- */

static void box_came(bw_pending *p, bw_err e, const bw_frame *frame)
{
    bw_renewal *r = (bw_renewal *)p;
    bw_answer a;
    bool good = false;
    if (!e && bw_answer_decode(frame, &a) == BW_OK) {
        good = !a.error && a.type == BW_API_MAILBOX && a.mailbox > BW_MAILBOX_SYNCER && a.mailbox < BW_MAILBOXES;
        r->number = good ? a.mailbox : 0;
        bw_answer_fini(&a);
    }
    atomic_store(&r->state, good ? BW_RENEWAL_CAME : BW_RENEWAL_NONE);
}

static void ask(bw_consumer *c, uint32_t epoch)
{
    bw_conn *conn = &c->bus->conn;
    bw_renewal *r = &c->renewal;
    bw_request q;
    bw_buf frame = {0};
    bw_request_init(&q, BW_API_MAILBOX);
    r->epoch = epoch;
    r->pending = (bw_pending){.done = box_came, .correlation = bw_conn_correlate(conn)};
    q.correlation = r->pending.correlation;
    atomic_store(&r->state, BW_RENEWAL_ASKED);
    bw_err e = bw_request_encode(&q, &frame, true);
    if (!e) e = bw_conn_submit(conn, &r->pending, &frame, NULL, 0);
    bw_buf_free(&frame);
    if (!e) return;
    r->pending.correlation = 0;
    atomic_store(&r->state, BW_RENEWAL_NONE);
}

static void change_over(bw_consumer *c)
{
    for (bw_cpart *p = c->parts; p; p = p->next_part) {
        if (!p->direct || p->where != BW_AT_ARMED) continue;
        if (!c->by_watch) bw_disarm(p->attach->control, (uint32_t)p->partition, bw_limit_wait_class(p->limit), c->mailbox);
        bw_cpart_make_ready(p);
    }
    use_box(c, c->renewal.number, c->renewal.epoch);
    atomic_store(&c->renewal.state, BW_RENEWAL_NONE);
}

void bw_consumer_renew_mailbox(bw_consumer *c)
{
    bw_conn *conn = &c->bus->conn;
    bw_renewal *r = &c->renewal;
    uint32_t epoch = atomic_load(&conn->epoch);
    if (!c->env || epoch == c->mail_epoch || !bw_conn_is_up(conn)) return;
    if (atomic_load(&r->state) == BW_RENEWAL_ASKED) (void)bw_conn_try_pump(conn, -1, bw_clock_mono_ns()); /* what has come */
    if (atomic_load(&r->state) == BW_RENEWAL_CAME && r->epoch != epoch) atomic_store(&r->state, BW_RENEWAL_NONE);
    if (atomic_load(&r->state) == BW_RENEWAL_CAME) change_over(c);
    else if (atomic_load(&r->state) == BW_RENEWAL_NONE) ask(c, epoch);
}
