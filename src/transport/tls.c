/* transport/tls.c: see the header.
 *
 * Sending: mbedTLS wants a write that could not be finished repeated with the same bytes. So it writes into `out`, which always takes all,
 * and out goes to the socket; nothing more is encrypted while OUT_MAX of it wait.
 * Receiving: the socket is read into `in` in large pieces, since mbedTLS asks for a record's head and its body apart.
 * `lock` guards everything of a connection behind the handshake. */
#include "transport/tls.h"

#include "base/bytes.h"
#include "base/os.h"

#include <arpa/inet.h>
#include <errno.h>
#include <mbedtls/error.h>
#include <mbedtls/oid.h>
#include <mbedtls/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IN_BYTES = 32 << 10, RECORD_BYTES = 16 << 10, OUT_MAX = 64 << 10, SAN_IP = 7 };

struct bw_tls_context {
    atomic_uint refs;
    mbedtls_ssl_config config;
    mbedtls_x509_crt own, ca;
    mbedtls_pk_context key;
};

struct bw_tls {
    bw_tls_context *context;
    int fd;
    pthread_mutex_t lock;
    mbedtls_ssl_context ssl;
    bool done, broken;
    uint8_t address[16]; /* the server's, when it was named by one */
    size_t address_len;
    char peer[BW_TLS_NAME_MAX + 1], server_name[256];
    uint32_t flags; /* what is wrong with the peer's certificate or its chain, as found so far */
    bool shown;     /* it has one; until, from and subject are its */
    mbedtls_x509_time until, from;
    char subject[200];
    int first; /* byte that came; -1: none yet */
    bw_buf out;
    size_t out_at;
    size_t in_at, in_len;
    uint8_t in[IN_BYTES];
};

/* The best first; every one with forward secrecy. */
static const int suites[] = {
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, MBEDTLS_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, MBEDTLS_TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    MBEDTLS_TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, MBEDTLS_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, 0,
};

static int random_bytes(void *opaque, unsigned char *out, size_t len)
{
    (void)opaque;
    return bw_os_random(out, len) == 0 ? 0 : MBEDTLS_ERR_SSL_INTERNAL_ERROR;
}

/* ---- contexts ---- */

static bw_err bad_file(int rc, const char *what, const char *path)
{
    char text[160];
    if (rc == MBEDTLS_ERR_X509_FILE_IO_ERROR || rc == MBEDTLS_ERR_PK_FILE_IO_ERROR)
        return bw_fail(BW_ERR_INVALID_CONFIG, "%s '%s': %s", what, path, strerror(errno));
    mbedtls_strerror(rc, text, sizeof text);
    return bw_fail(BW_ERR_INVALID_CONFIG, "%s '%s': %s", what, path, rc > 0 ? "some of the certificates in it can't be read" : text);
}

static bw_err load(bw_tls_context *c, const bw_tls_options *o)
{
    int rc;
    if (o->ca && (rc = mbedtls_x509_crt_parse_file(&c->ca, o->ca)) != 0) return bad_file(rc, "CA certificates", o->ca);
    if (!o->ca && !o->server) mbedtls_x509_crt_parse_file(&c->ca, BW_TLS_SYSTEM_CA); /* none: nobody is trusted, and the handshake says so */
    if (!o->certificate != !o->key)
        return bw_fail(BW_ERR_INVALID_CONFIG, "a certificate and its key are given together: the %s is missing", o->key ? "certificate" : "key");
    if (!o->certificate) return BW_OK;
    if ((rc = mbedtls_x509_crt_parse_file(&c->own, o->certificate)) != 0) return bad_file(rc, "certificate", o->certificate);
    if ((rc = mbedtls_pk_parse_keyfile(&c->key, o->key, NULL)) != 0) return bad_file(rc, "key", o->key);
    if (mbedtls_pk_check_pair(&c->own.pk, &c->key) != 0)
        return bw_fail(BW_ERR_INVALID_CONFIG, "the key '%s' is not that of the certificate '%s'", o->key, o->certificate);
    if ((rc = mbedtls_ssl_conf_own_cert(&c->config, &c->own, &c->key)) != 0) return bad_file(rc, "certificate", o->certificate);
    return BW_OK;
}

bw_err bw_tls_context_open(const bw_tls_options *o, bw_tls_context **out)
{
    static const int demands[] = {MBEDTLS_SSL_VERIFY_NONE, MBEDTLS_SSL_VERIFY_OPTIONAL, MBEDTLS_SSL_VERIFY_REQUIRED};
    bw_tls_context *c = calloc(1, sizeof *c);
    if (!c) return bw_fail(BW_ERR_NO_MEMORY, "no memory for TLS");
    atomic_init(&c->refs, 1);
    mbedtls_ssl_config_init(&c->config);
    mbedtls_x509_crt_init(&c->own);
    mbedtls_x509_crt_init(&c->ca);
    mbedtls_pk_init(&c->key);
    int side = o->server ? MBEDTLS_SSL_IS_SERVER : MBEDTLS_SSL_IS_CLIENT;
    bw_err e = BW_OK;
    if (mbedtls_ssl_config_defaults(&c->config, side, MBEDTLS_SSL_TRANSPORT_STREAM, MBEDTLS_SSL_PRESET_DEFAULT) != 0)
        e = bw_fail(BW_ERR_NO_MEMORY, "no memory for TLS");
    if (!e) e = load(c, o);
    if (e) {
        bw_tls_context_unref(c);
        return e;
    }
    mbedtls_ssl_conf_rng(&c->config, random_bytes, NULL);
    mbedtls_ssl_conf_min_version(&c->config, MBEDTLS_SSL_MAJOR_VERSION_3, MBEDTLS_SSL_MINOR_VERSION_3);
    mbedtls_ssl_conf_ciphersuites(&c->config, suites);
    mbedtls_ssl_conf_ca_chain(&c->config, &c->ca, NULL);
    mbedtls_ssl_conf_authmode(&c->config, o->server ? demands[o->client] : MBEDTLS_SSL_VERIFY_REQUIRED);
    *out = c;
    return BW_OK;
}

void bw_tls_context_ref(bw_tls_context *c) { atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed); }

void bw_tls_context_unref(bw_tls_context *c)
{
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1) return;
    mbedtls_ssl_config_free(&c->config);
    mbedtls_x509_crt_free(&c->own);
    mbedtls_x509_crt_free(&c->ca);
    mbedtls_pk_free(&c->key);
    free(c);
}

/* ---- the socket below ---- */

static int read_socket(void *opaque, unsigned char *out, size_t len)
{
    bw_tls *t = opaque;
    if (t->in_at == t->in_len) {
        ssize_t n = bw_os_recv(t->fd, t->in, sizeof t->in, 0);
        if (n < 0) return errno == EAGAIN ? MBEDTLS_ERR_SSL_WANT_READ : MBEDTLS_ERR_SSL_CONN_EOF;
        if (n == 0) return 0;
        if (t->first < 0) t->first = t->in[0];
        t->in_at = 0;
        t->in_len = (size_t)n;
    }
    if (len > t->in_len - t->in_at) len = t->in_len - t->in_at;
    memcpy(out, t->in + t->in_at, len);
    t->in_at += len;
    return (int)len;
}

static int write_socket(void *opaque, const unsigned char *data, size_t len)
{
    bw_tls *t = opaque;
    return bw_buf_append(&t->out, data, len) == BW_OK ? (int)len : MBEDTLS_ERR_SSL_ALLOC_FAILED;
}

/* 0: all is out, or EAGAIN for the rest; an errno: it is broken. */
static int flush(bw_tls *t)
{
    while (t->out_at < t->out.len) {
        struct iovec piece = {t->out.data + t->out_at, t->out.len - t->out_at};
        ssize_t n = bw_os_sendv(t->fd, &piece, 1);
        if (n < 0) return errno == ENOBUFS ? EAGAIN : errno;
        t->out_at += (size_t)n;
    }
    t->out.len = t->out_at = 0;
    if (t->out.cap > 2 * OUT_MAX) bw_buf_free(&t->out);
    return 0;
}

/* ---- connections ---- */

static bool is_for_address(const bw_tls *t, const mbedtls_x509_crt *crt)
{
    for (const mbedtls_x509_sequence *s = &crt->subject_alt_names; s && s->buf.p; s = s->next)
        if ((s->buf.tag & 0x1f) == SAN_IP && s->buf.len == t->address_len && !memcmp(s->buf.p, t->address, t->address_len)) return true;
    return false;
}

/* Each certificate of the chain. What is wrong is kept for the message: mbedTLS forgets the certificate with the handshake. A server that is
 * named by its address is looked for here: mbedTLS looks at names only. */
static int verify(void *opaque, mbedtls_x509_crt *crt, int depth, uint32_t *flags)
{
    bw_tls *t = opaque;
    if (depth == 0 && t->address_len && !is_for_address(t, crt)) *flags |= MBEDTLS_X509_BADCERT_CN_MISMATCH;
    if (depth == 0 || *flags) { /* the one to be named: the peer's, unless one above it is bad */
        if (depth == 0 && t->shown && t->flags) goto known;
        t->shown = true;
        t->until = crt->valid_to;
        t->from = crt->valid_from;
        mbedtls_x509_dn_gets(t->subject, sizeof t->subject, &crt->subject);
    }
known:
    t->flags |= *flags;
    return 0;
}

bw_err bw_tls_open(bw_tls_context *c, int fd, const char *server_name, bw_tls **out)
{
    bw_tls *t = calloc(1, sizeof *t);
    if (!t) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a TLS connection");
    t->fd = fd;
    t->first = -1;
    t->context = c;
    bw_tls_context_ref(c);
    pthread_mutex_init(&t->lock, NULL);
    mbedtls_ssl_init(&t->ssl);
    int rc = mbedtls_ssl_setup(&t->ssl, &c->config);
    if (server_name) {
        snprintf(t->server_name, sizeof t->server_name, "%s", server_name);
        if (inet_pton(AF_INET, server_name, t->address) == 1) t->address_len = 4;
        else if (inet_pton(AF_INET6, server_name, t->address) == 1) t->address_len = 16;
        else if (rc == 0) rc = mbedtls_ssl_set_hostname(&t->ssl, server_name);
    }
    mbedtls_ssl_set_verify(&t->ssl, verify, t);
    if (rc != 0) {
        bw_tls_close(t);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for a TLS connection");
    }
    mbedtls_ssl_set_bio(&t->ssl, t, write_socket, read_socket, NULL);
    *out = t;
    return BW_OK;
}

void bw_tls_close(bw_tls *t)
{
    if (!t) return;
    mbedtls_ssl_free(&t->ssl);
    bw_tls_context_unref(t->context);
    pthread_mutex_destroy(&t->lock);
    bw_buf_free(&t->out);
    free(t);
}

static void keep_peer(bw_tls *t)
{
    const mbedtls_x509_crt *crt = mbedtls_ssl_get_peer_cert(&t->ssl);
    if (!crt || mbedtls_ssl_get_verify_result(&t->ssl) != 0) return;
    for (const mbedtls_x509_name *n = &crt->subject; n; n = n->next) {
        if (MBEDTLS_OID_CMP(MBEDTLS_OID_AT_CN, &n->oid) != 0 || n->val.len > BW_TLS_NAME_MAX || memchr(n->val.p, 0, n->val.len)) continue;
        memcpy(t->peer, n->val.p, n->val.len);
        t->peer[n->val.len] = 0;
    }
}

/* ---- the handshake ---- */

static bw_err certificate_failed(bw_tls *t)
{
    uint32_t flags = t->flags;
    const char *whose = t->server_name[0] ? "the daemon's" : "the client's";
    if (!t->shown) return bw_fail(BW_ERR_TLS_FAILED, "%s certificate was not shown, or can't be verified", whose);
    const mbedtls_x509_time *until = &t->until, *from = &t->from;
    if (flags & MBEDTLS_X509_BADCERT_EXPIRED)
        return bw_fail(BW_ERR_TLS_FAILED, "%s certificate (%s) has expired, on %04d-%02d-%02d; it must be renewed", whose, t->subject, until->year,
                       until->mon, until->day);
    if (flags & MBEDTLS_X509_BADCERT_FUTURE)
        return bw_fail(BW_ERR_TLS_FAILED, "%s certificate is valid from %04d-%02d-%02d only; is this machine's clock right?", whose, from->year,
                       from->mon, from->day);
    if (flags & MBEDTLS_X509_BADCERT_NOT_TRUSTED)
        return bw_fail(BW_ERR_TLS_FAILED, "%s certificate (%s) is signed by a CA that is not known here; %s", whose, t->subject,
                       t->server_name[0] ? "name the file of its CA by ca=" : "tls.client.ca names those that are");
    if (flags & MBEDTLS_X509_BADCERT_CN_MISMATCH)
        return bw_fail(BW_ERR_TLS_FAILED, "%s certificate (%s) is not for '%s'; connect by a name that it has, or give it by server-name=",
                       whose, t->subject, t->server_name);
    char text[200] = "";
    mbedtls_x509_crt_verify_info(text, sizeof text, "", flags);
    text[strcspn(text, "\n")] = 0;
    return bw_fail(BW_ERR_TLS_FAILED, "%s certificate can't be trusted: %s", whose, text);
}

static bw_err handshake_failed(bw_tls *t, int rc)
{
    static const uint8_t not_tls[] = {21, 3, 3, 0, 2, 2, MBEDTLS_SSL_ALERT_MSG_PROTOCOL_VERSION}; /* what a plain client can know us by */
    bool client = t->server_name[0] != 0;
    bool stranger = t->first >= 0 && (t->first < 20 || t->first > 23);
    if (stranger && !client && bw_buf_append(&t->out, not_tls, sizeof not_tls) == BW_OK) flush(t);
    if (stranger)
        return bw_fail(BW_ERR_TLS_FAILED, client ? "the other end does not speak TLS: this port takes plain connections; use tcp://"
                                                 : "the client does not speak TLS; it should use tls+tcp://");
    if (rc == MBEDTLS_ERR_X509_CERT_VERIFY_FAILED) return certificate_failed(t);
    if (rc == MBEDTLS_ERR_SSL_CONN_EOF) return bw_fail(BW_ERR_NOT_CONNECTED, "the other end closed the connection during the TLS handshake");
    if (rc == MBEDTLS_ERR_SSL_NO_CLIENT_CERTIFICATE) {
        mbedtls_ssl_send_alert_message(&t->ssl, MBEDTLS_SSL_ALERT_LEVEL_FATAL, MBEDTLS_SSL_ALERT_MSG_NO_CERT);
        flush(t);
        return bw_fail(BW_ERR_TLS_FAILED, "the client shows no certificate, and must");
    }
    if (rc == MBEDTLS_ERR_SSL_FATAL_ALERT_MESSAGE) {
        int alert = t->ssl.in_msg ? t->ssl.in_msg[1] : 0;
        if (alert == MBEDTLS_SSL_ALERT_MSG_UNKNOWN_CA)
            return bw_fail(BW_ERR_TLS_FAILED, "the other end does not know the CA that signed our certificate");
        if (alert == MBEDTLS_SSL_ALERT_MSG_CERT_EXPIRED) return bw_fail(BW_ERR_TLS_FAILED, "the other end says that our certificate has expired");
        if (alert == MBEDTLS_SSL_ALERT_MSG_BAD_CERT || alert == MBEDTLS_SSL_ALERT_MSG_NO_CERT || alert == MBEDTLS_SSL_ALERT_MSG_HANDSHAKE_FAILURE)
            return bw_fail(BW_ERR_TLS_FAILED, "the other end refused our certificate, or that we showed none (alert %d)", alert);
        return bw_fail(BW_ERR_TLS_FAILED, "the other end broke off the TLS handshake (alert %d)", alert);
    }
    char text[160];
    mbedtls_strerror(rc, text, sizeof text);
    return bw_fail(BW_ERR_TLS_FAILED, "the TLS handshake failed: %s", text);
}

bw_err bw_tls_handshake(bw_tls *t, short *events)
{
    int rc = t->done ? 0 : mbedtls_ssl_handshake(&t->ssl);
    int sent = flush(t);
    if (rc == MBEDTLS_ERR_SSL_WANT_READ || (rc == 0 && sent == EAGAIN)) {
        *events = (short)((rc ? POLLIN : 0) | (sent == EAGAIN ? POLLOUT : 0));
        t->done = rc == 0;
        return BW_ERR_EMPTY;
    }
    if (rc != 0) return handshake_failed(t, rc);
    if (sent != 0) return bw_fail(BW_ERR_NOT_CONNECTED, "the connection was lost during the TLS handshake");
    t->done = true;
    keep_peer(t);
    return BW_OK;
}

/* ---- data ---- */

ssize_t bw_tls_recv(bw_tls *t, void *buf, size_t len)
{
    size_t got = 0;
    int rc = 0;
    pthread_mutex_lock(&t->lock);
    while (!t->broken && got < len) {
        rc = mbedtls_ssl_read(&t->ssl, (unsigned char *)buf + got, len - got);
        if (rc <= 0) break;
        got += (size_t)rc;
    }
    bool closed = rc == 0 || rc == MBEDTLS_ERR_SSL_PEER_CLOSE_NOTIFY || rc == MBEDTLS_ERR_SSL_CONN_EOF;
    bool empty = rc == MBEDTLS_ERR_SSL_WANT_READ || rc == MBEDTLS_ERR_SSL_WANT_WRITE;
    if (got < len && !closed && !empty) t->broken = true;
    bool broken = t->broken;
    if (t->out_at < t->out.len) flush(t); /* an alert */
    pthread_mutex_unlock(&t->lock);
    if (got > 0) return (ssize_t)got;
    if (closed && !broken) return 0;
    errno = empty && !broken ? EAGAIN : ECONNRESET;
    return -1;
}

/* The next bytes of the pieces, past `at`, as one run of at most `size`; copied when they lie in two. */
static size_t gather(const struct iovec *pieces, int count, size_t at, uint8_t *space, size_t size)
{
    size_t n = 0;
    for (int i = 0; i < count && n < size; i++) {
        if (at >= pieces[i].iov_len) {
            at -= pieces[i].iov_len;
            continue;
        }
        size_t part = pieces[i].iov_len - at < size - n ? pieces[i].iov_len - at : size - n;
        memcpy(space + n, (const uint8_t *)pieces[i].iov_base + at, part);
        n += part;
        at = 0;
    }
    return n;
}

ssize_t bw_tls_sendv(bw_tls *t, const struct iovec *pieces, int count)
{
    uint8_t space[RECORD_BYTES];
    size_t taken = 0, n = 0;
    pthread_mutex_lock(&t->lock);
    int error = t->broken ? EPIPE : flush(t);
    while (!error && (n = gather(pieces, count, taken, space, sizeof space)) > 0) {
        int rc = mbedtls_ssl_write(&t->ssl, space, n);
        if (rc <= 0) {
            error = rc == MBEDTLS_ERR_SSL_ALLOC_FAILED ? ENOMEM : EPIPE;
            break;
        }
        taken += (size_t)rc;
        if (t->out.len - t->out_at >= OUT_MAX) error = flush(t);
    }
    if (!error && t->out_at < t->out.len) error = flush(t);
    if (error && error != EAGAIN) t->broken = true;
    bool broken = t->broken;
    pthread_mutex_unlock(&t->lock);
    if (!broken && (taken > 0 || count == 0)) return (ssize_t)taken;
    errno = broken ? (error == EAGAIN ? EPIPE : error) : EAGAIN;
    if (!broken && !error) return 0;
    return -1;
}

size_t bw_tls_unsent(bw_tls *t)
{
    pthread_mutex_lock(&t->lock);
    size_t n = t->out.len - t->out_at;
    pthread_mutex_unlock(&t->lock);
    return n;
}

bool bw_tls_has_more(bw_tls *t)
{
    pthread_mutex_lock(&t->lock);
    bool more = t->in_at < t->in_len || mbedtls_ssl_get_bytes_avail(&t->ssl) > 0;
    pthread_mutex_unlock(&t->lock);
    return more;
}

void bw_tls_end(bw_tls *t)
{
    pthread_mutex_lock(&t->lock);
    if (t->done && !t->broken) {
        mbedtls_ssl_close_notify(&t->ssl);
        flush(t);
    }
    pthread_mutex_unlock(&t->lock);
}

const char *bw_tls_peer(const bw_tls *t) { return t->peer; }
