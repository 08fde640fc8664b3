/* listen/busway/remote.c: the listeners for other hosts: what may be opened, and their certificates.
 *
 * A certificate is read at the start and when bw_listener_reload finds other files; connections that are keep what they began with. */
#include "listen/busway/internal.h"

#include "base/err.h"
#include "base/os.h"
#include "transport/tcp.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool has_scheme(const char *url, const char *scheme) { return strncmp(url, scheme, strlen(scheme)) == 0; }

bool bw_remote_is_tls(const char *url) { return has_scheme(url, "tls+tcp://"); }

static bool is_loopback(const char *host) { return !strncmp(host, "127.", 4) || !strcmp(host, "::1") || !strcmp(host, "localhost"); }

bw_err bw_remote_check(const bw_daemon_config *c, const char *url)
{
    bw_tcp_place place;
    bool tls = bw_remote_is_tls(url);
    if (!tls && !has_scheme(url, "tcp://"))
        return bw_fail(BW_ERR_INVALID_CONFIG, "listeners: '%s': expected tcp://address:port or tls+tcp://address:port, as in tls+tcp://0.0.0.0:%u",
                       url, BW_TCP_PORT);
    const char *at = strstr(url, "://") + 3;
    if (bw_tcp_place_parse(at, strlen(at), &place) != BW_OK) return bw_error_context(BW_ERR_INVALID_CONFIG, "listeners: '%s'", url);
    if (tls && (!c->tls_certificate || !c->tls_key))
        return bw_fail(BW_ERR_INVALID_CONFIG, "listeners: '%s' needs tls.certificate and tls.key", url);
    if (strcmp(c->tls_client_auth, "none") != 0 && !c->tls_client_ca)
        return bw_fail(BW_ERR_INVALID_CONFIG, "tls.client.auth is %s: tls.client.ca names the file of the CA that signs clients' certificates",
                       c->tls_client_auth);
    if (c->listeners_insecure || is_loopback(place.host)) return BW_OK;
    if (!tls)
        return bw_fail(BW_ERR_INVALID_CONFIG, "listeners: '%s': everybody on the way could read records and passwords; use tls+tcp://, a loopback "
                       "address, or allow it by listeners.insecure=true", url);
    if (strcmp(c->anonymous_role, "none") != 0 && strcmp(c->tls_client_auth, "required") != 0)
        return bw_fail(BW_ERR_INVALID_CONFIG, "listeners: '%s': anonymous.role=%s lets in everybody who reaches it; use none, "
                       "tls.client.auth=required, or allow it by listeners.insecure=true", url, c->anonymous_role);
    return BW_OK;
}

/* What the files look like now: a number that differs when one of them is another. */
static uint64_t look_of(const bw_daemon_config *c)
{
    const char *const paths[] = {c->tls_certificate, c->tls_key, c->tls_client_ca};
    uint64_t look = 1469598103934665603u;
    for (size_t i = 0; i < 3; i++) {
        struct stat s;
        if (!paths[i] || stat(paths[i], &s) != 0) continue;
        const uint64_t parts[] = {(uint64_t)s.st_ino, (uint64_t)s.st_size, (uint64_t)s.st_mtim.tv_sec, (uint64_t)s.st_mtim.tv_nsec};
        for (size_t k = 0; k < 4; k++) look = (look ^ parts[k]) * 1099511628211u;
    }
    return look;
}

bw_err bw_remote_open_tls(bw_listener *l, bw_tls_context **out)
{
    const bw_daemon_config *c = l->config;
    bw_tls_options o = {.server = true, .certificate = c->tls_certificate, .key = c->tls_key, .ca = c->tls_client_ca};
    if (!strcmp(c->tls_client_auth, "required")) o.client = BW_TLS_REQUIRED;
    if (!strcmp(c->tls_client_auth, "requested")) o.client = BW_TLS_REQUESTED;
    l->tls_look = look_of(c);
    return bw_tls_context_open(&o, out);
}

bw_err bw_listener_reload(bw_listener *l, bool always, bool *changed)
{
    *changed = false;
    if (!l->tls_streams || (!always && look_of(l->config) == l->tls_look)) return BW_OK;
    bw_tls_context *tls;
    bw_err e = bw_remote_open_tls(l, &tls);
    if (e) return e;
    for (size_t i = 0; i < l->stream_count; i++)
        if (l->tls_streams & 1u << i) bw_stream_listener_set_tls(l->streams[i], tls);
    bw_tls_context_unref(tls);
    *changed = true;
    return BW_OK;
}

bool bw_listener_has_tls(const bw_listener *l) { return l->tls_streams != 0; }
