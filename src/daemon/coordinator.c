/* daemon/coordinator.c: a coordinator carried in a program's process: the one name that libbusway-coordinator.so exports. See
 * proto/coordinator.h.
 *
 * One thread of it starts everything, waits for the end, and ends everything. Before it opens anything it leaves the process's table of
 * descriptors for an empty one of its own, which all threads that it starts share: what the program forks or execs keeps no lock and no
 * connection of the coordinator alive, and the coordinator keeps nothing of the program's. Where the kernel can't (before 5.9, or a
 * filter forbids it) the table is shared; a forked child that lives on then keeps the folder until it execs or ends.
 * All signals are blocked in its threads. It starts no process: the check of the metadata is done within this one. */
#include "base/os.h"
#include "broker/broker.h"
#include "listen/busway/listener.h"
#include "proto/coordinator.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { STARTING = 0, SERVING = 1, FAILED = 2 };

typedef struct coordinator {
    bw_coordinator_options options;
    bw_daemon_config config;
    pthread_t thread;
    _Atomic uint32_t state; /* futex: the starter waits for it to change */
    _Atomic uint32_t end;   /* futex: 1: end */
    bw_err error;           /* with FAILED */
    char why[1024];
} coordinator;

static void wake_up(_Atomic uint32_t *word, uint32_t value)
{
    atomic_store(word, value);
    bw_os_futex_wake(word, 1);
}

static void asked_to_end(void *opaque) { wake_up(&((coordinator *)opaque)->end, 1); }

static void on_event(void *opaque, bw_log_level level, const char *event, const char *fields)
{
    const coordinator *c = opaque;
    if (c->options.event) c->options.event(c->options.opaque, (int)level, event, fields);
}

static void leave_descriptors(void)
{
    if (syscall(SYS_close_range, 3, ~0U, CLOSE_RANGE_UNSHARE) != 0) return;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC); /* of our own table now: 0 to 2 are still the program's */
    for (int fd = 0; fd < 3 && null >= 0; fd++) dup2(null, fd);
    if (null > 2) close(null);
}

static bw_err configure(coordinator *c)
{
    bw_daemon_config_init(&c->config);
    bw_err e = bw_daemon_config_set(&c->config, "data-dir", c->options.data_dir);
    if (!e) e = bw_daemon_config_set(&c->config, "listen-rep", "none"); /* nng's threads are not for a guest */
    c->config.event = on_event;
    c->config.event_opaque = c;
    c->config.is_private = c->config.in_process = true;
    c->config.handover = asked_to_end;
    c->config.handover_opaque = c;
    return e ? e : bw_daemon_config_check(&c->config);
}

static void failed(coordinator *c, bw_err e)
{
    c->error = e;
    snprintf(c->why, sizeof c->why, "%s", bw_error_message());
    wake_up(&c->state, FAILED);
}

static void *run(void *opaque)
{
    coordinator *c = opaque;
    bw_broker *broker = NULL;
    bw_listener *listener = NULL;
    bw_listener_options lo = {.allow_long_path = true};
    leave_descriptors();
    bw_err e = bw_broker_start(&c->config, &broker);
    if (!e && (e = bw_listener_start(broker, &c->config, &lo, &listener))) {
        char why[sizeof c->why];
        snprintf(why, sizeof why, "%s", bw_error_message());
        bw_broker_stop(broker);
        bw_error_set_message(e, why);
    }
    if (e) {
        failed(c, e);
        return NULL;
    }
    wake_up(&c->state, SERVING);
    while (!atomic_load(&c->end)) (void)bw_os_futex_wait(&c->end, 0, -1);
    bw_listener_stop(listener);
    bw_broker_stop(broker);
    return NULL;
}

static bw_err launch(coordinator *c)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&c->thread, NULL, run, c);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r) return bw_fail_errno(r, "can't start the coordinator's thread");
    pthread_setname_np(c->thread, "busway-coord");
    while (atomic_load(&c->state) == STARTING) (void)bw_os_futex_wait(&c->state, STARTING, -1);
    if (atomic_load(&c->state) == SERVING) return BW_OK;
    pthread_join(c->thread, NULL);
    return bw_error_set_message(c->error, c->why);
}

static void destroy(coordinator *c)
{
    bw_daemon_config_fini(&c->config);
    free((char *)(uintptr_t)c->options.data_dir);
    free(c);
}

static bw_err start(const bw_coordinator_options *options, void **out, char *why, size_t size)
{
    coordinator *c = calloc(1, sizeof *c);
    bw_err e = c ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for a coordinator");
    if (!e) {
        c->options = *options;
        c->options.data_dir = strdup(options->data_dir);
        if (!c->options.data_dir) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a coordinator");
        if (!e) e = configure(c);
        if (!e) e = launch(c);
    }
    if (!e) {
        *out = c;
        return BW_OK;
    }
    snprintf(why, size, "%s", bw_error_message());
    if (c) destroy(c);
    return e;
}

static void stop(void *opaque)
{
    coordinator *c = opaque;
    asked_to_end(c);
    pthread_join(c->thread, NULL);
    destroy(c);
}

__attribute__((visibility("default"))) const bw_coordinator_api *bw_coordinator_entry(void);
const bw_coordinator_api *bw_coordinator_entry(void)
{
    static const bw_coordinator_api api = {BW_COORDINATOR_ABI, BW_VERSION_STRING, start, stop};
    return &api;
}
