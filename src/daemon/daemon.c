/* daemon/daemon.c: the order of things: signals blocked, broker (takes the data directory), listener, "ready", sleep, then back.
 *
 * The main thread sleeps in sigwaitinfo; with --idle-exit it looks at the broker a few times in that period. */
#include "daemon/daemon.h"

#include "broker/broker.h"
#include "daemon/handover.h"
#include "daemon/log.h"
#include "daemon/notify.h"
#include "link/links.h"
#include "listen/busway/listener.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

enum { CERTIFICATE_LOOK_S = 5 };

int bw_daemon_exit_status(bw_err e)
{
    switch (e) {
    case BW_OK: return EX_OK;
    case BW_ERR_INVALID_ARGUMENT: return EX_USAGE;
    case BW_ERR_INVALID_CONFIG:
    case BW_ERR_UNSUPPORTED: return EX_CONFIG;
    case BW_ERR_NEWER_FORMAT:
    case BW_ERR_CORRUPT: return EX_DATAERR;
    case BW_ERR_BUSY: return EX_UNAVAILABLE;
    case BW_ERR_NO_MEMORY: return EX_OSERR;
    case BW_ERR_DISK_FULL: return EX_CANTCREAT;
    case BW_ERR_IO:
    case BW_ERR_NOT_FOUND: return EX_IOERR;
    case BW_ERR_ALREADY_RUNNING: return EX_TEMPFAIL;
    case BW_ERR_NOT_PERMITTED: return EX_NOPERM;
    default: return EX_SOFTWARE;
    }
}

static void log_event(const bw_daemon_config *c, bw_log_level level, const char *event, const char *fields)
{
    if (c->event) c->event(c->event_opaque, level, event, fields);
}

/* Certificates that were renewed. */
static void reload(const bw_daemon_config *c, bw_listener *l, bool always)
{
    char fields[700], text[600];
    bool changed;
    bw_err e = bw_listener_reload(l, always, &changed);
    if (e) {
        snprintf(fields, sizeof fields, "error=%s", bw_event_text(bw_error_message(), text, sizeof text));
        log_event(c, BW_LOG_ERROR, "certificates-kept", fields);
    } else if (changed) {
        log_event(c, BW_LOG_INFO, "certificates-reloaded", "");
    }
}

/* Until a signal says stop, or nobody was connected for long enough. Returns why. */
static const char *wait_for_end(bw_broker *b, const bw_daemon_config *c, bw_listener *l, const sigset_t *set)
{
    bool tls = bw_listener_has_tls(l);
    for (;;) {
        int64_t look_ms = c->idle_exit_ms / 4 < 1000 ? c->idle_exit_ms / 4 + 1 : 1000;
        struct timespec t = {look_ms / 1000, look_ms % 1000 * 1000000};
        if (tls && !c->idle_exit_ms) t = (struct timespec){CERTIFICATE_LOOK_S, 0};
        int got = c->idle_exit_ms || tls ? sigtimedwait(set, NULL, &t) : sigwaitinfo(set, NULL);
        if (got == SIGTERM) return "SIGTERM";
        if (got == SIGINT) return "SIGINT";
        if (tls) reload(c, l, got == SIGHUP);
        else if (got == SIGHUP) log_event(c, BW_LOG_INFO, "hangup_ignored", "reason=\"the configuration is read at the start only\"");
        if (c->idle_exit_ms && bw_broker_idle_ms(b) >= c->idle_exit_ms) return "idle";
    }
}

static void say_listening(const bw_daemon_config *c)
{
    char fields[2048];
    for (size_t i = 0; i < c->listen_count + c->listeners_count; i++) {
        const char *url = i < c->listen_count ? c->listen[i] : c->listeners[i - c->listen_count];
        snprintf(fields, sizeof fields, "url=%s pid=%d version=%s", url, (int)getpid(), BW_VERSION_STRING);
        log_event(c, BW_LOG_INFO, "listening", fields);
    }
}

/* The main thread sleeps for signals. */
static void asked_for_folder(void *opaque)
{
    (void)opaque;
    kill(getpid(), SIGTERM);
}

static bw_err serve(bw_daemon_options *o, bw_broker *b, const sigset_t *set, int *start_lock)
{
    const bw_daemon_config *c = &o->config;
    /* A private daemon is waited for by the program that needs it; nobody waits for its REP endpoint. */
    bool later = o->listen_is_default && c->idle_exit_ms && !c->listen_rep;
    bw_listener_options lo = {.allow_long_path = o->listen_is_default, .rep_later = later};
    bw_listener *listener;
    bw_err e = bw_listener_start(b, c, &lo, &listener);
    if (e) return e;
    bw_links *links;
    if ((e = bw_links_start(b, c, &links))) {
        bw_listener_stop(listener);
        return e;
    }
    bw_handover_end(*start_lock);
    *start_lock = -1;
    say_listening(c);
    bw_notify_service("READY=1");
    bw_notify_ready_fd(o->ready_fd);
    o->ready_fd = -1;
    char fields[64];
    bw_err late = later ? bw_listener_start_rep(listener) : BW_OK;
    if (late) {
        snprintf(fields, sizeof fields, "endpoint=rep error=%s", bw_err_name(late));
        log_event(c, BW_LOG_ERROR, "listening_failed", fields);
    }
    snprintf(fields, sizeof fields, "reason=%s", wait_for_end(b, c, listener, set));
    log_event(c, BW_LOG_INFO, "stopping", fields);
    bw_notify_service("STOPPING=1");
    bw_links_stop(links);
    bw_listener_stop(listener);
    return BW_OK;
}

bw_err bw_daemon_run(bw_daemon_options *o)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    mallopt(M_ARENA_MAX, 2); /* one heap a thread would cost more memory than the daemon needs */
    o->config.event = bw_daemon_log;
    o->config.event_opaque = &o->config;
    bw_broker *b;
    bw_err e = bw_listener_check(&o->config);
    o->config.handover = asked_for_folder;
    int start_lock = -1;
    if (!e) e = bw_handover_begin(&o->config, &start_lock);
    if (!e) e = bw_broker_start(&o->config, &b);
    if (e) {
        bw_handover_end(start_lock);
        return e;
    }
    e = serve(o, b, &set, &start_lock);
    bw_handover_end(start_lock);
    char why[1024];
    snprintf(why, sizeof why, "%s", bw_error_message());
    bw_broker_stop(b);
    if (e) return bw_error_set_message(e, why);
    log_event(&o->config, BW_LOG_INFO, "stopped", "");
    return BW_OK;
}
