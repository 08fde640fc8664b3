/* client/async.c: the library's one thread of a bus.
 *
 * Going to sleep: sleeps is set, then work is looked at again; who has work raises it, then looks at sleeps. One of the two sees
 * the other (both sequentially consistent). While requests are in flight the thread pumps the connection, if no other thread does. */
#include "client/async.h"

#include "client/producer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { IDLE_LOOK_MS = 1000 };

static void ring(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) < 0) {} /* full is as good */
}

void bw_async_wake(bw_bus *bus)
{
    atomic_fetch_add(&bus->thread_work, 1);
    if (atomic_load(&bus->thread_sleeps) && atomic_exchange(&bus->thread_sleeps, 0)) ring(bus->thread_fd);
}

static bw_deadline serve_all(bw_bus *bus, bw_deadline now)
{
    bw_deadline next = BW_DEADLINE_NEVER;
    pthread_mutex_lock(&bus->mutex);
    for (bw_producer *p = bus->producers; p; p = p->next) {
        bus->serving = p;
        pthread_mutex_unlock(&bus->mutex);
        next = bw_deadline_first(next, bw_producer_serve(p, now));
        pthread_mutex_lock(&bus->mutex);
        bus->serving = NULL;
        pthread_cond_broadcast(&bus->idle);
    }
    pthread_mutex_unlock(&bus->mutex);
    return next;
}

static void sleep_until(bw_bus *bus, bw_deadline until)
{
    if (bw_conn_is_up(&bus->conn) && bw_conn_try_pump(&bus->conn, bus->thread_fd, until) != BW_ERR_BUSY) return;
    int64_t left = bw_deadline_left_ns(until);
    struct timespec t = {left / 1000000000, left % 1000000000};
    struct pollfd p = {.fd = bus->thread_fd, .events = POLLIN};
    ppoll(&p, 1, &t, NULL);
}

static void *run(void *opaque)
{
    bw_bus *bus = opaque;
    for (;;) {
        uint32_t work = atomic_load(&bus->thread_work);
        bw_deadline now = bw_clock_mono_ns();
        bw_deadline next = serve_all(bus, now);
        pthread_mutex_lock(&bus->mutex);
        bool stop = bus->thread_stop;
        pthread_mutex_unlock(&bus->mutex);
        if (stop) return NULL;
        int64_t wall = bw_clock_wall_ms();
        if (bw_bus_look_due(bus, wall)) bw_bus_look(bus, wall);
        atomic_store(&bus->thread_sleeps, 1);
        if (atomic_load(&bus->thread_work) == work) sleep_until(bus, bw_deadline_first(next, now + IDLE_LOOK_MS * INT64_C(1000000)));
        atomic_store(&bus->thread_sleeps, 0);
        uint64_t count;
        if (read(bus->thread_fd, &count, sizeof count) < 0) {} /* EAGAIN: it was something else */
    }
}

bw_err bw_async_start(bw_bus *bus)
{
    bw_err e = BW_OK;
    pthread_mutex_lock(&bus->mutex);
    if (!bus->thread_runs) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fd < 0) e = bw_fail_errno(errno, "can't make the library's thread");
        if (!e) {
            bus->thread_fd = fd;
            sigset_t all, before; /* signals are the program's business */
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &before);
            int r = pthread_create(&bus->thread, NULL, run, bus);
            pthread_sigmask(SIG_SETMASK, &before, NULL);
            if (r) {
                e = bw_fail_errno(r, "can't start the library's thread");
                close(fd);
                bus->thread_fd = -1;
            }
        }
        if (!e) {
            pthread_setname_np(bus->thread, "busway");
            pthread_mutex_lock(&bus->conn.mutex);
            bus->conn.handover_fd = bus->thread_fd;
            pthread_mutex_unlock(&bus->conn.mutex);
            bus->thread_runs = true;
        }
    }
    pthread_mutex_unlock(&bus->mutex);
    return e;
}

void bw_async_stop(bw_bus *bus)
{
    pthread_mutex_lock(&bus->mutex);
    bool runs = bus->thread_runs;
    bus->thread_stop = true;
    pthread_mutex_unlock(&bus->mutex);
    if (!runs) return;
    ring(bus->thread_fd);
    atomic_fetch_add(&bus->thread_work, 1);
    pthread_join(bus->thread, NULL);
    pthread_mutex_lock(&bus->conn.mutex);
    bus->conn.handover_fd = -1;
    pthread_mutex_unlock(&bus->conn.mutex);
    close(bus->thread_fd);
    bus->thread_fd = -1;
}
