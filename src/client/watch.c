/* client/watch.c: the watch thread of a bus. See watch.h. `mutex` guards the table, every entry's `queued` and every inbox. */
#include "client/watch.h"

#include "log/wait.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { BUCKETS = 1024, SLEEP_MS = 1000, SLEEP_ALONE_MS = 100 };

struct bw_fd_watch {
    bw_bus *bus;
    bw_env *env;
    pthread_t thread;
    pthread_mutex_t mutex;
    _Atomic bool stop;
    _Atomic uint32_t mailbox;
    uint32_t epoch; /* of the connection when the mailbox was given; the thread's */
    bw_watch_entry *table[BUCKETS];
};

static void deliver(bw_watch_entry *e)
{
    if (e->queued || !atomic_load(&e->armed)) return;
    e->queued = true;
    atomic_store(&e->armed, false);
    e->next_ready = e->inbox->ready;
    e->inbox->ready = e;
    if (atomic_exchange(&e->inbox->has_news, true)) return;
    uint64_t one = 1;
    if (write(e->inbox->event_fd, &one, sizeof one) < 0) {} /* full is as good */
}

static bool moved(const bw_watch_entry *e)
{
    uint64_t now = atomic_load_explicit(e->word, memory_order_acquire);
    return now != atomic_load(&e->seen) || atomic_load_explicit(&e->slot->state, memory_order_acquire) >= BW_SLOT_DELETED;
}

static void audit(bw_fd_watch *w, bool all)
{
    for (size_t i = 0; i < BUCKETS; i++)
        for (bw_watch_entry *e = w->table[i]; e; e = e->next)
            if (all || moved(e)) deliver(e);
}

static void take_mail(bw_fd_watch *w, bw_mailbox *box)
{
    uint32_t numbers[256];
    size_t n;
    while ((n = bw_mailbox_drain(box, numbers, sizeof numbers / sizeof numbers[0])) > 0)
        for (size_t i = 0; i < n; i++)
            for (bw_watch_entry *e = w->table[numbers[i] % BUCKETS]; e; e = e->next)
                if (e->number == numbers[i]) deliver(e);
}

/* The daemon came back and does not know our mailbox: take another; whoever armed the old one must arm again. */
static bool renew(bw_fd_watch *w)
{
    int64_t wall = bw_clock_wall_ms();
    if (bw_bus_look_due(w->bus, wall)) bw_bus_look(w->bus, wall);
    uint32_t epoch = atomic_load(&w->bus->conn.epoch), number = 0;
    if (epoch == w->epoch || !bw_conn_is_up(&w->bus->conn) || bw_bus_mailbox(w->bus, &number) != BW_OK) return false;
    atomic_store(&w->mailbox, number);
    w->epoch = epoch;
    return true;
}

static void *run(void *opaque)
{
    bw_fd_watch *w = opaque;
    while (!atomic_load(&w->stop)) {
        bw_mailbox *box = bw_mail_box(w->env->mail, atomic_load(&w->mailbox));
        bool rung = bw_mailbox_sleep(box, bw_deadline_in_ms(bw_conn_is_up(&w->bus->conn) ? SLEEP_MS : SLEEP_ALONE_MS));
        bool renewed = !rung && renew(w);
        pthread_mutex_lock(&w->mutex);
        take_mail(w, box);
        if (!rung) audit(w, renewed);
        pthread_mutex_unlock(&w->mutex);
    }
    return NULL;
}

bw_err bw_watch_check(bw_bus *bus, const bw_env *env)
{
    if (!bus->watch || bus->watch->env == env) return BW_OK;
    return bw_fail(BW_ERR_UNSUPPORTED, "the control data was replaced while an event loop watches the former; open the bus anew");
}

bw_err bw_watch_start(bw_bus *bus, bw_env *env)
{
    pthread_mutex_lock(&bus->mutex);
    bw_fd_watch *w = bus->watch;
    pthread_mutex_unlock(&bus->mutex);
    if (w) return bw_watch_check(bus, env);
    uint32_t epoch = atomic_load(&bus->conn.epoch), number = 0;
    bw_err e = bw_bus_mailbox(bus, &number);
    if (e) return e;
    w = calloc(1, sizeof *w);
    if (!w) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the watch thread");
    w->bus = bus;
    w->env = env;
    w->epoch = epoch;
    atomic_store(&w->mailbox, number);
    pthread_mutex_init(&w->mutex, NULL);
    pthread_mutex_lock(&bus->direct.mutex);
    bw_direct_env_ref(env, 1);
    pthread_mutex_unlock(&bus->direct.mutex);
    sigset_t all, before; /* signals are the program's business */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = 0;
    pthread_mutex_lock(&bus->mutex);
    bool first = !bus->watch;
    if (first) {
        r = pthread_create(&w->thread, NULL, run, w);
        if (r == 0) bus->watch = w;
    }
    pthread_mutex_unlock(&bus->mutex);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (first && r == 0) {
        pthread_setname_np(w->thread, "busway-watch");
        return BW_OK;
    }
    pthread_mutex_lock(&bus->direct.mutex);
    bw_direct_env_ref(env, -1);
    pthread_mutex_unlock(&bus->direct.mutex);
    free(w);
    return first ? bw_fail_errno(r, "can't start the watch thread") : bw_watch_check(bus, env);
}

uint32_t bw_watch_mailbox(bw_bus *bus) { return atomic_load(&bus->watch->mailbox); }

void bw_watch_stop(bw_bus *bus)
{
    bw_fd_watch *w = bus->watch;
    if (!w) return;
    atomic_store(&w->stop, true);
    bw_mailbox_poke(bw_mail_box(w->env->mail, atomic_load(&w->mailbox)));
    pthread_join(w->thread, NULL);
    pthread_mutex_lock(&bus->direct.mutex);
    bw_direct_env_ref(w->env, -1);
    pthread_mutex_unlock(&bus->direct.mutex);
    pthread_mutex_destroy(&w->mutex);
    free(w);
    bus->watch = NULL;
}

void bw_watch_add(bw_bus *bus, bw_watch_entry *e)
{
    bw_fd_watch *w = bus->watch;
    pthread_mutex_lock(&w->mutex);
    e->next = w->table[e->number % BUCKETS];
    w->table[e->number % BUCKETS] = e;
    pthread_mutex_unlock(&w->mutex);
}

static void take_out(bw_watch_entry **at, bw_watch_entry *e, bool inbox)
{
    while (*at) {
        if (*at == e) {
            *at = inbox ? e->next_ready : e->next;
            return;
        }
        at = inbox ? &(*at)->next_ready : &(*at)->next;
    }
}

void bw_watch_remove(bw_bus *bus, bw_watch_entry *e)
{
    bw_fd_watch *w = bus->watch;
    pthread_mutex_lock(&w->mutex);
    take_out(&w->table[e->number % BUCKETS], e, false);
    if (e->queued) take_out(&e->inbox->ready, e, true);
    e->queued = false;
    pthread_mutex_unlock(&w->mutex);
}

bw_watch_entry *bw_watch_take(bw_bus *bus, bw_inbox *inbox)
{
    bw_fd_watch *w = bus->watch;
    pthread_mutex_lock(&w->mutex);
    bw_watch_entry *list = inbox->ready;
    inbox->ready = NULL;
    atomic_store(&inbox->has_news, false);
    for (bw_watch_entry *e = list; e; e = e->next_ready) e->queued = false;
    pthread_mutex_unlock(&w->mutex);
    return list;
}
