/* client/consumer_fd.c: a descriptor for event loops: an epoll set of the eventfd (wake-ups of the watch thread, wake, what was read
 * while something else was asked), the socket, and a timer for trying to connect again. */
#include "client/consumer_group.h"

#include "client/backend.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { RETRY_MS = 100 };

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

/* In so many ms; 0: not at all. */
static void set_timer(bw_consumer *c, int64_t ms)
{
    if (ms == 0 && !c->timer_on) return;
    c->timer_on = ms != 0;
    struct itimerspec t = {{0, 0}, {ms / 1000, ms % 1000 * 1000000L}};
    timerfd_settime(c->timer_fd, 0, &t, NULL);
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
    set_timer(c, ms);
    if (c->items || c->ready) bw_consumer_ring(c);
}

void bw_consumer_fd_close(bw_consumer *c)
{
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
    if (c->direct_count && bw_consumer_use_watch(c) != BW_OK) return -1;
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
