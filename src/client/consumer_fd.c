/* client/consumer_fd.c: a descriptor for event loops: an epoll set of the eventfd (wake-ups of the direct path, wake, what was read while
 * something else was asked), the socket, and a timer for trying to connect again.
 *
 * Wake-ups of the direct path come from the kernel itself, by a bell on the consumer's own mailbox (base/bell.h): no other thread runs
 * between a publisher and the event loop. Where there is no io_uring, or threads take turns in polling, the watch thread passes them on. With
 * a bell nobody audits but the polls: the timer sees to it that there is one each second. */
#include "client/consumer_group.h"

#include "client/backend.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { RETRY_MS = 100, BELL_MOVES_MAX = 4 };

void bw_consumer_ring(bw_consumer *c)
{
    uint64_t one = 1;
    if (write(c->event_fd, &one, sizeof one) < 0) {} /* full is as good */
}

void bw_consumer_unring(bw_consumer *c)
{
    uint64_t count;
    if (read(c->event_fd, &count, sizeof count) < 0) {} /* nothing there */
}

static bool watch_fd(int epoll_fd, int fd)
{
    struct epoll_event event = {.events = EPOLLIN};
    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 || errno == EEXIST;
}

/* In so many ms; 0: not at all. One that is set for earlier, and is still to come, stays. */
static void set_timer(bw_consumer *c, int64_t ms)
{
    if (ms == 0 && c->timer_at_ms == 0) return;
    int64_t now = bw_clock_mono_ms(), at = ms ? now + ms : 0;
    if (ms && c->timer_at_ms > now && c->timer_at_ms <= at) return;
    c->timer_at_ms = at;
    struct itimerspec t = {{0, 0}, {ms / 1000, ms % 1000 * 1000000L}};
    timerfd_settime(c->timer_fd, 0, &t, NULL);
}

/* The next audit that nobody else makes. */
static int64_t audit_ms(const bw_consumer *c)
{
    if (!c->direct_count || c->by_watch) return 0;
    if (!c->bell) return RETRY_MS; /* nobody rings: there was no descriptor or no thread to be had */
    int64_t left = (c->next_audit - bw_clock_mono_ns()) / 1000000 + 1;
    return left < 1 ? 1 : left;
}

void bw_consumer_fd_update(bw_consumer *c)
{
    if (c->epoll_fd < 0) return;
    bool down = c->ipc_count && !bw_conn_is_up(&c->conn);
    int fd = c->has_conn ? atomic_load(&c->conn.fd) : -1;
    uint32_t epoch = c->has_conn ? atomic_load(&c->conn.epoch) : 0;
    if (fd >= 0 && epoch != c->epoll_epoch && watch_fd(c->epoll_fd, fd)) c->epoll_epoch = epoch; /* a closed one leaves by itself */
    int64_t ms = down ? RETRY_MS : 0;
    if (c->group && c->group->state != BW_MEMBER_OUT) { /* its leases and commits come due without anything to read */
        int64_t left = c->group->alarm_ms - bw_clock_coarse_ms();
        ms = left < 1 ? 1 : down && left > RETRY_MS ? RETRY_MS : left;
    }
    int64_t audit = audit_ms(c);
    set_timer(c, ms && (ms < audit || !audit) ? ms : audit);
    if (c->items || c->ready) bw_consumer_ring(c);
}

bw_err bw_consumer_hear(bw_consumer *c)
{
    if (c->by_watch || c->bell) return BW_OK;
    c->bell_box = NULL;
    if (c->bell_moves < BELL_MOVES_MAX && (c->bell = bw_bell_open(c->event_fd)) != NULL) return BW_OK;
    c->bell_moves = BELL_MOVES_MAX;
    return bw_consumer_use_watch(c);
}

static void take_down(bw_consumer *c)
{
    bw_bell_close(c->bell);
    c->bell = NULL;
}

/* true: look again. */
static bool hang_bell(bw_consumer *c)
{
    bw_mailbox *box = atomic_load_explicit(&c->box, memory_order_relaxed);
    if (c->bell_box && c->bell_box != box) take_down(c); /* the daemon came back, and gave another mailbox */
    if (!box || bw_consumer_hear(c) != BW_OK) return false;
    if (!c->bell) return c->by_watch;
    uint32_t value;
    if (!bw_mailbox_lie_down(box, &value)) {
        c->seen_word = 1; /* like no word */
        bw_consumer_take_mail(c);
        if (c->group) c->group->due_ms = 0;
        return true;
    }
    int e = bw_bell_hang(c->bell, &box->word, value);
    c->bell_box = box;
    if (e == 0 || e == EAGAIN) return e != 0;
    c->bell_moves = e == EEXIST ? c->bell_moves + 1 : BELL_MOVES_MAX;
    take_down(c);
    return bw_consumer_hear(c) == BW_OK;
}

bool bw_consumer_listen(bw_consumer *c)
{
    if (bw_consumer_arm(c)) return true;
    return c->direct_count && !c->by_watch && hang_bell(c);
}

void bw_consumer_fd_close(bw_consumer *c)
{
    take_down(c);
    if (c->epoll_fd >= 0) close(c->epoll_fd);
    if (c->timer_fd >= 0) close(c->timer_fd);
    c->epoll_fd = c->timer_fd = -1;
}

int bw_consumer_fd(bw_consumer *c)
{
    if (!c) {
        bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no consumer");
        return -1;
    }
    if (bw_forked(&c->bus->guard)) {
        bw_bus_forked();
        return -1;
    }
    BW_DISPATCH(c->bus, consumer_fd(c));
    if (c->epoll_fd >= 0) return c->epoll_fd;
    if (c->direct_count && (c->ipc_count ? bw_consumer_use_watch(c) : bw_consumer_hear(c)) != BW_OK) return -1;
    c->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (c->timer_fd < 0 || epoll_fd < 0 || !watch_fd(epoll_fd, c->event_fd) || !watch_fd(epoll_fd, c->timer_fd)) {
        bw_fail_errno(errno, "can't make a descriptor for the consumer");
        if (epoll_fd >= 0) close(epoll_fd);
        bw_consumer_fd_close(c);
        return -1;
    }
    c->epoll_fd = epoll_fd;
    bw_consumer_ring(c); /* poll once: what is idle is armed then */
    bw_consumer_fd_update(c);
    return epoll_fd;
}
