/* transport/reactor.c: see the header.
 *
 * Invariants: `turn` guards flushers, tickers and the batch of events being served; `calls` has a lock of its own, so that any thread
 * may call from anywhere. epoll is level-triggered: what is not read now is told again. */
#include "transport/reactor.h"

#include "base/os.h"
#include "base/spin.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { EVENTS_AT_ONCE = 64, TICK_MS = 1000, TROUBLE_NAP_NS = 10000000 };

struct bw_reactor {
    int epoll_fd;
    bw_source wake; /* an eventfd */
    pthread_mutex_t turn;
    _Atomic uintptr_t holder; /* of the turn; 0: nobody */
    struct epoll_event events[EVENTS_AT_ONCE];
    int count, at; /* of the batch being served */
    bw_spin spin;
    bw_flusher *flushers;
    bw_ticker *tickers;
    _Atomic bool ticking; /* there may be tickers */
    int64_t ticked_ms;
    pthread_mutex_t calls_lock;
    bw_call *calls, *calls_last;
};

/* Who this thread is, as a number that no other has at the same time. */
static uintptr_t myself(void) { return (uintptr_t)pthread_self(); }

static void woken(bw_source *s, uint32_t events)
{
    uint64_t count;
    (void)events;
    if (read(s->fd, &count, sizeof count) < 0) {} /* EAGAIN: somebody was faster */
}

bw_err bw_reactor_open(bw_reactor **out)
{
    bw_reactor *r = calloc(1, sizeof *r);
    if (!r) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the sockets' loop");
    pthread_mutex_init(&r->turn, NULL);
    pthread_mutex_init(&r->calls_lock, NULL);
    r->wake = (bw_source){.ready = woken, .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    r->epoll_fd = bw_os_epoll_create();
    bw_err e = BW_OK;
    if (r->wake.fd < 0 || r->epoll_fd < 0) e = bw_fail_errno(errno, "can't make the sockets' loop");
    if (!e) e = bw_reactor_ask(r, &r->wake, EPOLLIN);
    if (e) {
        bw_reactor_close(r);
        return e;
    }
    *out = r;
    return BW_OK;
}

static size_t run_calls(bw_reactor *r)
{
    size_t n = 0;
    for (;; n++) {
        pthread_mutex_lock(&r->calls_lock);
        bw_call *c = r->calls;
        if (c) {
            r->calls = c->next;
            if (!r->calls) r->calls_last = NULL;
            c->queued = false;
        }
        pthread_mutex_unlock(&r->calls_lock);
        if (!c) return n;
        c->fn(c);
    }
}

void bw_reactor_close(bw_reactor *r)
{
    if (!r) return;
    if (r->epoll_fd >= 0) {
        bw_reactor_enter(r);
        run_calls(r);
        bw_reactor_leave(r);
        bw_os_close(r->epoll_fd);
    }
    if (r->wake.fd >= 0) bw_os_close(r->wake.fd);
    pthread_mutex_destroy(&r->turn);
    pthread_mutex_destroy(&r->calls_lock);
    free(r);
}

/* ---- the turn ---- */

void bw_reactor_enter(bw_reactor *r)
{
    pthread_mutex_lock(&r->turn);
    atomic_store_explicit(&r->holder, myself(), memory_order_relaxed);
}

bool bw_reactor_is_mine(const bw_reactor *r)
{
    /* Only this thread writes its own number there, so that reading it needs no order. */
    return atomic_load_explicit(&r->holder, memory_order_relaxed) == myself();
}

void bw_reactor_flush(bw_reactor *r)
{
    while (r->flushers) {
        bw_flusher *f = r->flushers;
        r->flushers = f->next;
        f->queued = false;
        f->fn(f);
    }
}

void bw_reactor_leave(bw_reactor *r)
{
    bw_reactor_flush(r);
    atomic_store_explicit(&r->holder, 0, memory_order_relaxed);
    pthread_mutex_unlock(&r->turn);
}

void bw_reactor_gather(bw_reactor *r, bw_flusher *f)
{
    if (f->queued) return;
    f->queued = true;
    f->next = r->flushers;
    r->flushers = f;
}

/* ---- sources ---- */

bw_err bw_reactor_ask(bw_reactor *r, bw_source *s, uint32_t events)
{
    if (events == s->events) return BW_OK;
    int operation = !events ? EPOLL_CTL_DEL : s->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (bw_os_epoll_ctl(r->epoll_fd, operation, s->fd, events, s) && events) return bw_fail_errno(errno, "a socket can't be watched");
    s->events = events;
    return BW_OK;
}

void bw_reactor_remove(bw_reactor *r, bw_source *s)
{
    bw_reactor_ask(r, s, 0);
    for (int i = r->at; i < r->count; i++)
        if (r->events[i].data.ptr == s) r->events[i].data.ptr = NULL;
}

void bw_reactor_wake(bw_reactor *r)
{
    uint64_t one = 1;
    if (write(r->wake.fd, &one, sizeof one) < 0) {} /* full is as good */
}

bool bw_reactor_call(bw_reactor *r, bw_call *c)
{
    pthread_mutex_lock(&r->calls_lock);
    bool fresh = !c->queued;
    if (fresh) {
        c->queued = true;
        c->next = NULL;
        if (r->calls) r->calls_last->next = c;
        else r->calls = c;
        r->calls_last = c;
    }
    pthread_mutex_unlock(&r->calls_lock);
    if (fresh) bw_reactor_wake(r);
    return fresh;
}

/* ---- time ---- */

void bw_reactor_tick(bw_reactor *r, bw_ticker *t)
{
    if (t->at) return;
    t->next = r->tickers;
    t->at = &r->tickers;
    if (t->next) t->next->at = &t->next;
    r->tickers = t;
    atomic_store_explicit(&r->ticking, true, memory_order_relaxed);
}

void bw_reactor_untick(bw_ticker *t)
{
    if (!t->at) return;
    *t->at = t->next;
    if (t->next) t->next->at = t->at;
    t->at = NULL;
}

static void run_tickers(bw_reactor *r)
{
    if (!r->tickers) return;
    int64_t now = bw_clock_mono_ms();
    if (now - r->ticked_ms < TICK_MS) return;
    r->ticked_ms = now;
    for (bw_ticker *t = r->tickers, *next; t; t = next) {
        next = t->next; /* fn takes off nobody but t */
        if (!t->fn(t, now)) bw_reactor_untick(t);
    }
    if (!r->tickers) atomic_store_explicit(&r->ticking, false, memory_order_relaxed);
}

/* ---- waiting ---- */

static bool look(void *reactor)
{
    bw_reactor *r = reactor;
    r->count = bw_os_epoll_wait(r->epoll_fd, r->events, EVENTS_AT_ONCE, 0);
    return r->count != 0;
}

/* What is ready, into r->events; the count, or -1. */
static int sleep_for(bw_reactor *r, int timeout)
{
    if (timeout == 0 || bw_spin_for(&r->spin, look, r)) return timeout == 0 && !look(r) ? 0 : r->count;
    return bw_os_epoll_wait(r->epoll_fd, r->events, EVENTS_AT_ONCE, timeout);
}

size_t bw_reactor_wait(bw_reactor *r, int max_ms, void (*served)(void *opaque), void *opaque)
{
    int timeout = max_ms;
    if (atomic_load_explicit(&r->ticking, memory_order_relaxed) && (timeout < 0 || timeout > TICK_MS)) timeout = TICK_MS;
    int n = sleep_for(r, timeout);
    if (n < 0) {
        static const _Atomic uint32_t never = 0;
        bw_os_futex_wait(&never, 0, TROUBLE_NAP_NS);
        n = 0;
    }
    bw_reactor_enter(r);
    r->count = n;
    size_t done = 0;
    for (r->at = 0; r->at < r->count;) {
        const struct epoll_event *e = &r->events[r->at++];
        bw_source *s = e->data.ptr;
        if (!s) continue;
        s->ready(s, e->events);
        if (served && s != &r->wake) served(opaque);
        done++;
    }
    r->count = 0;
    done += run_calls(r);
    run_tickers(r);
    return done;
}
