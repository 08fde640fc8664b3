/* listen/busway/listener.c: which sockets there are; starting and stopping them. */
#include "listen/busway/internal.h"

#include "base/err.h"
#include "base/os.h"

#include <errno.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>

#define STOP_GRACE_MS 500
#define STOP_WAIT_MS 10000

/* The group that may use the socket; -1: the daemon's own. */
static bw_err socket_gid(const bw_daemon_config *config, int64_t *gid)
{
    *gid = -1;
    if (!config->socket_group || !*config->socket_group) { return BW_OK; }
    char *end;
    long number = strtol(config->socket_group, &end, 10);
    if (*end == '\0') {
        *gid = number;
        return BW_OK;
    }
    struct group entry, *found = NULL;
    char space[4096];
    int rc = getgrnam_r(config->socket_group, &entry, space, sizeof space, &found);
    if (!found) {
        return bw_fail(BW_ERR_INVALID_CONFIG, "socket group '%s': %s; make it (groupadd) or name another", config->socket_group,
                       rc ? strerror(rc) : "there is no such group");
    }
    *gid = (int64_t)found->gr_gid;
    return BW_OK;
}

static bool has_scheme(const char *url, const char *scheme) { return strncmp(url, scheme, strlen(scheme)) == 0; }

static bw_err check_url(const char *url)
{
    if (has_scheme(url, "ipc:///")) { return BW_OK; }
    if (has_scheme(url, "tcp://") || has_scheme(url, "tls+tcp://")) {
        return bw_fail(BW_ERR_UNSUPPORTED, "listen URL '%s': what other hosts connect to is named by the option listeners", url);
    }
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "listen URL '%s': expected ipc:///absolute/path, as in ipc:///run/busway/bus.sock", url);
}

static bw_err listen_stream(bw_listener *l, const char *url, bool allow_long_path, int64_t gid, bw_tls_context *tls)
{
    if (l->stream_count == BW_LISTEN_URLS_MAX) {
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "listen URL '%s': at most %u are possible", url, BW_LISTEN_URLS_MAX);
    }
    bw_stream_listen_options o = {
        .url = url,
        .allow_long_path = allow_long_path,
        .gid = gid,
        .frame_max = l->frame_max,
        .credit = (size_t)l->config->connection_memory_max_bytes,
        .hello_timeout_ms = BW_HELLO_TIMEOUT_MS,
        .reactor = bw_broker_reactor(l->broker),
        .ops = &bw_connection_ops,
        .owner = l,
        .tls = tls,
    };
    bw_err err = bw_stream_listen(&o, &l->streams[l->stream_count]);
    if (err == BW_OK && tls) { l->tls_streams |= 1u << l->stream_count; }
    l->stream_count += err == BW_OK;
    return err;
}

/* What other hosts connect to. */
static bw_err listen_remote(bw_listener *l, const char *url)
{
    bw_tls_context *tls = NULL;
    bw_err err = bw_remote_check(l->config, url);
    if (err == BW_OK && bw_remote_is_tls(url)) { err = bw_remote_open_tls(l, &tls); }
    if (err == BW_OK) { err = listen_stream(l, url, false, -1, tls); }
    bw_tls_context_unref(tls);
    return err;
}

static bw_err listen_rep(bw_listener *l)
{
    const bw_daemon_config *config = l->config;
    const char *url = config->listen_rep;
    char *beside = NULL;
    if (url && strcmp(url, "none") == 0) { return BW_OK; }
    if (!url) {
        const char *first = config->listen[0], *slash = strrchr(first, '/');
        size_t dir_len = (size_t)(slash - first) + 1;
        beside = (char *)malloc(dir_len + sizeof "rep.sock");
        if (!beside) { return bw_fail(BW_ERR_NO_MEMORY, "no memory for the REP socket's URL"); }
        memcpy(beside, first, dir_len);
        memcpy(beside + dir_len, "rep.sock", sizeof "rep.sock");
        url = beside;
    }
    bw_rep_options o = {
        .url = url,
        .allow_long_path = l->allow_long_path,
        .gid = l->gid,
        .frame_max = l->frame_max,
        .ops = &bw_exchange_ops,
        .owner = l,
    };
    bw_err err = check_url(url);
    if (err == BW_OK) { err = bw_rep_listen(&o, &l->rep); }
    free(beside);
    return err;
}

bw_err bw_listener_check(const bw_daemon_config *config)
{
    int64_t gid;
    bw_err err = socket_gid(config, &gid);
    for (size_t i = 0; err == BW_OK && i < config->listen_count; i++) { err = check_url(config->listen[i]); }
    for (size_t i = 0; err == BW_OK && i < config->listeners_count; i++) { err = bw_remote_check(config, config->listeners[i]); }
    if (err == BW_OK && config->listen_rep && strcmp(config->listen_rep, "none") != 0) { err = check_url(config->listen_rep); }
    return err;
}

bw_err bw_listener_start(bw_broker *b, const bw_daemon_config *config, const bw_listener_options *options, bw_listener **out)
{
    if (config->listen_count == 0) { return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no URL to listen on; give --listen ipc:///…"); }
    bw_listener *l = (bw_listener *)calloc(1, sizeof *l);
    if (!l) { return bw_fail(BW_ERR_NO_MEMORY, "no memory for the listener"); }
    l->broker = b;
    l->config = config;
    l->frame_max = config->socket_request_max_bytes ? config->socket_request_max_bytes : BW_FRAME_MAX_DEFAULT;
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE); /* bw_broker_submit may call `consumed` at once */
    pthread_mutex_init(&l->lock, &attr);
    pthread_mutexattr_destroy(&attr);
    l->allow_long_path = options && options->allow_long_path;
    bw_err err = socket_gid(config, &l->gid);
    for (size_t i = 0; err == BW_OK && i < config->listen_count; i++) {
        err = check_url(config->listen[i]);
        if (err == BW_OK) { err = listen_stream(l, config->listen[i], l->allow_long_path, l->gid, NULL); }
    }
    for (size_t i = 0; err == BW_OK && i < config->listeners_count; i++) { err = listen_remote(l, config->listeners[i]); }
    if (err == BW_OK && !(options && options->rep_later)) { err = listen_rep(l); }
    if (err != BW_OK) {
        char message[512];
        snprintf(message, sizeof message, "%s", bw_error_message());
        bw_listener_stop(l);
        return bw_error_set_message(err, message);
    }
    *out = l;
    return BW_OK;
}

bw_err bw_listener_start_rep(bw_listener *l) { return l->rep ? BW_OK : listen_rep(l); }

static size_t busy(bw_listener *l)
{
    size_t n = l->rep ? bw_rep_busy(l->rep) : 0;
    for (size_t i = 0; i < l->stream_count; i++) { n += bw_stream_listener_busy(l->streams[i]); }
    return n;
}

void bw_listener_stop(bw_listener *l)
{
    for (size_t i = 0; i < l->stream_count; i++) { bw_stream_listener_close(l->streams[i]); }
    static const _Atomic uint32_t never = 0;
    for (int waited_ms = 0; waited_ms < STOP_GRACE_MS && busy(l) > 0; waited_ms += 5) { bw_os_futex_wait(&never, 0, 5000000); }
    bw_exchanges_close(l);
    bool all = true;
    for (size_t i = 0; i < l->stream_count; i++) { all = bw_stream_listener_destroy(l->streams[i], STOP_WAIT_MS) && all; }
    if (l->rep) { all = bw_rep_destroy(l->rep, STOP_WAIT_MS) && all; }
    /* A session that the broker still holds would come back to freed memory: rather keep it. */
    if (!all) { return; }
    bw_buf_free(&l->scratch);
    pthread_mutex_destroy(&l->lock);
    free(l);
}
