/* client/standby.c: see standby.h.
 *
 * The socket is watched by its number, for nothing but its end. Whoever closes it rings lost_fd, after the number was taken out of the
 * connection: so a poll on a number that was closed, or is another file's by now, ends at once, and the next look finds the truth. */
#include "client/standby.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { STACK_BYTES = 192 * 1024, NAP_MS = 2, NAP_MAX_MS = 250 };

struct bw_standby {
    bw_bus *bus;
    pthread_t thread;
    int ring_fd; /* the connection's lost_fd */
    _Atomic bool stop;
    pthread_mutex_t mutex; /* error, why */
    bw_err error;          /* of the last attempt */
    char why[512];
};

/* Until something rings, the socket's end comes (true), or the time is over (-1: never). */
static bool watch(const bw_standby *s, int fd, int timeout_ms)
{
    struct pollfd fds[2] = {{.fd = s->ring_fd, .events = POLLIN}, {.fd = fd, .events = POLLRDHUP}};
    (void)poll(fds, 2, timeout_ms);
    uint64_t count;
    if (fds[0].revents && read(s->ring_fd, &count, sizeof count) < 0) {}
    return !fds[0].revents && fds[1].revents;
}

/* The other end is closed: take what it still said, up to that end; where another thread is at it, leave it that moment. */
static void run_dry(const bw_standby *s, bw_conn *c)
{
    if (bw_conn_is_up(c) && bw_conn_try_pump(c, -1, bw_clock_mono_ns()) == BW_ERR_BUSY) watch(s, -1, NAP_MS);
}

static void note(bw_standby *s, bw_err e)
{
    pthread_mutex_lock(&s->mutex);
    s->error = e;
    snprintf(s->why, sizeof s->why, "%s", e ? bw_error_message() : "");
    pthread_mutex_unlock(&s->mutex);
}

bw_err bw_standby_explain(bw_bus *bus, bw_err e)
{
    char why[sizeof(((bw_standby *)NULL)->why)];
    bw_standby *s = atomic_load(&bus->standby);
    if (!s) return e;
    pthread_mutex_lock(&s->mutex);
    if (s->error) e = s->error;
    memcpy(why, s->why, sizeof why);
    pthread_mutex_unlock(&s->mutex);
    return why[0] ? bw_error_set_message(e, why) : e;
}

static void *run(void *opaque)
{
    bw_standby *s = opaque;
    bw_conn *c = &s->bus->conn;
    int nap_ms = 0; /* after a failure */
    while (!atomic_load(&s->stop)) {
        if (bw_conn_check(c)) {
            nap_ms = 0;
            if (watch(s, atomic_load(&c->fd), -1)) run_dry(s, c);
            continue;
        }
        bw_err e = bw_bus_bring_up(s->bus, bw_deadline_in_ms(s->bus->connect_timeout_ms));
        note(s, e);
        if (!e) continue;
        nap_ms = nap_ms ? nap_ms * 2 : NAP_MS;
        if (nap_ms > NAP_MAX_MS) nap_ms = NAP_MAX_MS;
        watch(s, -1, nap_ms);
    }
    return NULL;
}

static bool start(bw_standby *s)
{
    sigset_t all, before; /* signals are the program's business */
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&s->thread, &attributes, run, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (r == 0) pthread_setname_np(s->thread, "busway-standby");
    return r == 0;
}

void bw_standby_start(bw_bus *bus)
{
    if (!bus->url.embedded || bus->readonly) return;
    (void)bw_os_membarrier_register(); /* quick while there is one thread, not with two; the direct path is going to need it */
    pthread_mutex_lock(&bus->mutex);
    bw_standby *s = atomic_load(&bus->standby) ? NULL : calloc(1, sizeof *s);
    if (s) {
        s->bus = bus;
        pthread_mutex_init(&s->mutex, NULL);
        s->ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (s->ring_fd >= 0) {
            pthread_mutex_lock(&bus->conn.mutex);
            bus->conn.lost_fd = s->ring_fd;
            pthread_mutex_unlock(&bus->conn.mutex);
            atomic_store(&bus->standby, s);
            if (!start(s)) atomic_store(&bus->standby, NULL);
        }
        if (!atomic_load(&bus->standby)) {
            pthread_mutex_lock(&bus->conn.mutex);
            bus->conn.lost_fd = -1;
            pthread_mutex_unlock(&bus->conn.mutex);
            if (s->ring_fd >= 0) bw_os_close(s->ring_fd);
            free(s);
        }
    }
    pthread_mutex_unlock(&bus->mutex);
}

void bw_standby_stop(bw_bus *bus)
{
    bw_standby *s = atomic_load(&bus->standby);
    if (!s) return;
    atomic_store(&s->stop, true);
    uint64_t one = 1;
    if (write(s->ring_fd, &one, sizeof one) < 0) {}
    pthread_join(s->thread, NULL);
    pthread_mutex_lock(&bus->conn.mutex);
    bus->conn.lost_fd = -1;
    pthread_mutex_unlock(&bus->conn.mutex);
    bw_os_close(s->ring_fd);
    pthread_mutex_destroy(&s->mutex);
    free(s);
    atomic_store(&bus->standby, NULL);
}
