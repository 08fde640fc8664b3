/* client/async.c: the library's one thread of a bus.
 *
 * Going to sleep: sleeps is set, then work is looked at again; who has work raises it, then looks at sleeps. One of the two sees
 * the other (both sequentially consistent). It sleeps in a poll on its eventfd, or, while all that it waits for is the disk, on the
 * futexes of those partitions and on sleeps itself. While requests are in flight the thread pumps the connection, if no other thread does. */
#include "client/async.h"

#include "client/producer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { IDLE_LOOK_MS = 1000, DISK_LOOK_NS = 200000, DISK_NAP_NS = 5000000 };

static void ring(int fd)
{
    uint64_t one = 1;
    if (write(fd, &one, sizeof one) < 0) {} /* full is as good */
}

void bw_async_wake(bw_bus *bus)
{
    atomic_fetch_add(&bus->thread_work, 1);
    if (!atomic_load(&bus->thread_sleeps)) return;
    uint32_t how = atomic_exchange(&bus->thread_sleeps, BW_THREAD_AWAKE);
    if (how == BW_THREAD_POLLS) ring(bus->thread_fd);
    else if (how == BW_THREAD_WAITS) bw_os_futex_wake(&bus->thread_sleeps, 1);
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

/* Batches wait for the disk and nothing for the daemon: whoever finishes a sync wakes the thread, without a look in between. Short,
 * because others may leave requests of theirs in flight meanwhile. false: not so, or the kernel can't. */
static bool sleep_for_disk(bw_bus *bus, uint32_t work, bw_deadline until)
{
    if (bus->disk_wait_count == 0 || bus->disk_wait_count > BW_DISK_WAITS_MAX) return false;
    if (bw_conn_in_flight(&bus->conn)) return false;
    bw_os_futex words[BW_DISK_WAITS_MAX + 1];
    memcpy(words, bus->disk_waits, bus->disk_wait_count * sizeof *words);
    words[bus->disk_wait_count] = (bw_os_futex){&bus->thread_sleeps, BW_THREAD_WAITS};
    atomic_store(&bus->thread_sleeps, BW_THREAD_WAITS);
    if (atomic_load(&bus->thread_work) != work) return true;
    int64_t left = bw_deadline_left_ns(until);
    return bw_os_futex_wait_any(words, bus->disk_wait_count + 1, left < DISK_NAP_NS ? left : DISK_NAP_NS) != ENOSYS;
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
        bus->disk_wait_count = 0;
        bw_deadline next = serve_all(bus, now);
        pthread_mutex_lock(&bus->mutex);
        bool stop = bus->thread_stop;
        pthread_mutex_unlock(&bus->mutex);
        if (stop) return NULL;
        int64_t wall = bw_clock_wall_ms();
        if (bw_bus_look_due(bus, wall)) bw_bus_look(bus, wall);
        next = bw_deadline_first(next, now + IDLE_LOOK_MS * INT64_C(1000000));
        if (!sleep_for_disk(bus, work, next)) {
            if (bus->disk_wait_count) next = bw_deadline_first(next, now + DISK_LOOK_NS);
            atomic_store(&bus->thread_sleeps, BW_THREAD_POLLS);
            if (atomic_load(&bus->thread_work) == work) sleep_until(bus, next);
        }
        atomic_store(&bus->thread_sleeps, BW_THREAD_AWAKE);
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
    bw_async_wake(bus);
    ring(bus->thread_fd);
    pthread_join(bus->thread, NULL);
    pthread_mutex_lock(&bus->conn.mutex);
    bus->conn.handover_fd = -1;
    pthread_mutex_unlock(&bus->conn.mutex);
    close(bus->thread_fd);
    bus->thread_fd = -1;
}
