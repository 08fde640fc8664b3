/* base/stop.c: see stop.h. An eventfd: raised twice is raised. */
#include "base/stop.h"

#include "base/os.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>

bw_err bw_stop_init(bw_stop *s)
{
    s->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return s->fd < 0 ? bw_fail_errno(errno, "can't make an eventfd") : BW_OK;
}

void bw_stop_fini(bw_stop *s)
{
    if (s->fd >= 0) bw_os_close(s->fd);
    s->fd = -1;
}

void bw_stop_raise(bw_stop *s) { (void)eventfd_write(s->fd, 1); }

void bw_stop_lower(bw_stop *s)
{
    eventfd_t count;
    (void)eventfd_read(s->fd, &count); /* EAGAIN: it was lowered */
}

bw_err bw_stop_poll(const bw_stop *s, int fd, short *events, bw_deadline deadline)
{
    struct pollfd fds[2] = {{.fd = s ? s->fd : -1, .events = POLLIN}, {.fd = fd, .events = events ? *events : 0}};
    for (;;) {
        int64_t left = bw_deadline_left_ns(deadline);
        struct timespec t = {left / 1000000000, left % 1000000000};
        int n = ppoll(fds, 2, left == INT64_MAX ? NULL : &t, NULL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return bw_fail_errno(errno, "poll");
        if (fds[0].revents) return bw_fail(BW_ERR_CLOSED, "it was told to stop");
        if (n == 0) return BW_ERR_TIMED_OUT;
        *events = fds[1].revents;
        return BW_OK;
    }
}
