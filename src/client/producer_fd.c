/* client/producer_fd.c: deliveries for event loops: an eventfd that is readable while callbacks wait for bw_producer_poll. Changed under
 * the producer's mutex together with the list of deliveries, so that it is never unreadable while the list has some. */
#include "client/producer.h"

#include "client/backend.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

void bw_producer_ring(bw_producer *p)
{
    uint64_t one = 1;
    if (write(p->event_fd, &one, sizeof one) < 0) {} /* full is as good */
}

void bw_producer_unring(bw_producer *p)
{
    uint64_t count;
    if (read(p->event_fd, &count, sizeof count) < 0) {} /* nothing there */
}

int bw_producer_fd(bw_producer *p)
{
    if (!p) {
        bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no producer");
        return -1;
    }
    if (bw_forked(&p->bus->guard)) {
        bw_bus_forked();
        return -1;
    }
    BW_DISPATCH(p->bus, producer_fd(p));
    pthread_mutex_lock(&p->mutex);
    if (p->event_fd < 0) {
        p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (p->event_fd < 0) bw_fail_errno(errno, "can't make a producer's eventfd");
        else if (p->done_head) bw_producer_ring(p);
    }
    int fd = p->event_fd;
    pthread_mutex_unlock(&p->mutex);
    return fd;
}
