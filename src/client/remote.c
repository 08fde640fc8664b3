/* client/remote.c: see remote.h. */
#include "client/remote.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { LEAST_MS = 50, MOST_MS = 5000 };

void bw_backoff_failed(bw_backoff *b)
{
    uint32_t random = 0;
    int64_t ms = b->fails < 8 ? (int64_t)LEAST_MS << b->fails : MOST_MS;
    if (ms > MOST_MS) ms = MOST_MS;
    bw_os_random(&random, sizeof random); /* where there is none all come at once: no harm but to the daemon */
    ms = ms / 2 + (int64_t)(random % (uint32_t)(ms / 2 + 1));
    b->fails++;
    b->next = bw_deadline_in_ms(ms);
}

void bw_backoff_worked(bw_backoff *b) { *b = (bw_backoff){0}; }

static bw_err shake_hands(bw_tls *tls, int fd, const bw_stop *stop, bw_deadline deadline)
{
    for (;;) {
        short events;
        bw_err e = bw_tls_handshake(tls, &events);
        if (e != BW_ERR_EMPTY) return e;
        e = bw_stop_poll(stop, fd, &events, deadline);
        if (e == BW_ERR_TIMED_OUT) return bw_fail(BW_ERR_NO_COORDINATOR, "no answer to the TLS handshake in time: is it a port for tls+tcp://?");
        if (e) return e;
    }
}

static const char *given(const char *text) { return *text ? text : NULL; }

static bw_err open_tls(const bw_remote *r, int fd, const bw_stop *stop, bw_deadline deadline, bw_tls **out)
{
    bw_tls_options o = {.ca = given(r->ca), .certificate = given(r->certificate), .key = given(r->key)};
    bw_tls_context *context;
    bw_err e = bw_tls_context_open(&o, &context);
    if (e) return e;
    e = bw_tls_open(context, fd, *r->server_name ? r->server_name : r->place.host, out);
    bw_tls_context_unref(context);
    if (!e) e = shake_hands(*out, fd, stop, deadline);
    if (!e) return BW_OK;
    bw_tls_close(*out);
    *out = NULL;
    char text[BW_TCP_TEXT_MAX];
    return bw_error_context(e, "%s", bw_tcp_place_print(&r->place, text));
}

bw_err bw_remote_connect(const bw_remote *r, const bw_stop *stop, bw_deadline deadline, int *fd, bw_tls **tls, bool *refused)
{
    *tls = NULL;
    bw_err e = bw_tcp_connect(&r->place, stop, deadline, fd, refused);
    if (e || !r->tls) return e;
    e = open_tls(r, *fd, stop, deadline, tls);
    if (!e) return BW_OK;
    bw_os_close(*fd);
    *fd = -1;
    return e;
}

static bool is_loopback(const char *host) { return !strncmp(host, "127.", 4) || !strcmp(host, "::1") || !strcmp(host, "localhost"); }

static bw_err read_secret_file(const char *path, char out[256])
{
    int fd = bw_os_open(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) return bw_fail(BW_ERR_INVALID_CONFIG, "the secret's file '%s': %s", path, strerror(errno));
    ssize_t n = bw_os_pread(fd, out, 255, 0);
    bw_os_close(fd);
    if (n < 0) return bw_fail(BW_ERR_INVALID_CONFIG, "the secret's file '%s' can't be read", path);
    out[n] = 0;
    out[strcspn(out, "\r\n")] = 0;
    return *out ? BW_OK : bw_fail(BW_ERR_INVALID_CONFIG, "the secret's file '%s' has an empty first line", path);
}

bw_err bw_remote_secret(const bw_remote *r, char out[256], bool *given)
{
    char text[BW_TCP_TEXT_MAX];
    const char *found = *r->secret_variable ? getenv(r->secret_variable) : r->secret;
    *given = *r->secret_file || (found && *found);
    if (!*given) {
        if (*r->user) return bw_fail(BW_ERR_INVALID_CONFIG, "%s@%s: there is no password: password-file= or $BUSWAY_PASSWORD", r->user,
                                     bw_tcp_place_print(&r->place, text));
        return BW_OK;
    }
    if (!r->tls && !r->insecure && !is_loopback(r->place.host))
        return bw_fail(BW_ERR_NOT_PERMITTED, "%s: the secret would go in the clear over the network; use tls+tcp://, or allow it by insecure=yes",
                       bw_tcp_place_print(&r->place, text));
    if (*r->secret_file) return read_secret_file(r->secret_file, out);
    if (strlen(found) > 255) return bw_fail(BW_ERR_INVALID_CONFIG, "the secret is longer than 255 bytes");
    memcpy(out, found, strlen(found) + 1);
    return BW_OK;
}
