/* client/url_remote.c: the URLs of daemons of other hosts.
 *
 *   tcp://[USER[:PASSWORD]@]HOST[:PORT][?OPTION=VALUE&…]         tls+tcp:// likewise
 *   heartbeat=40s         after so long a silence the daemon is asked for a sign of life
 *   ca=FILE               tls: whose signature counts; without it the system's
 *   certificate=FILE, key=FILE   tls: what we show
 *   server-name=NAME      tls: of the daemon's certificate, when it is not HOST
 *   token=…, token-file=FILE, $BUSWAY_TOKEN                      a token
 *   USER@ and password-file=FILE, USER@ and $BUSWAY_PASSWORD     a password, kept out of the URL
 *   insecure=yes          a secret may go over a network that is not encrypted
 * Values take %XX, as USER and PASSWORD do. What is secret is shown as *** in messages. */
#include "client/url.h"

#include <stdio.h>
#include <string.h>

/* The text without what is secret in it. */
static void redact(const char *text, char *out, size_t size)
{
    static const char *const secrets[] = {"token=", "password="};
    size_t n = 0;
    const char *userinfo = strstr(text, "://") + 3, *query = text + strcspn(text, "?");
    const char *at = memchr(userinfo, '@', (size_t)(query - userinfo)), *colon = at ? memchr(userinfo, ':', (size_t)(at - userinfo)) : NULL;
    for (const char *p = text; *p && n + 5 < size;) {
        bool hide = colon && p == colon + 1;
        const char *end = hide ? at : NULL;
        for (size_t i = 0; !hide && p > text && (p[-1] == '?' || p[-1] == '&') && i < 2; i++) {
            size_t len = strlen(secrets[i]);
            if (strncmp(p, secrets[i], len) != 0 || n + len + 5 >= size) continue;
            memcpy(out + n, p, len);
            n += len;
            hide = true;
            end = p + strcspn(p, "&");
        }
        if (hide) {
            memcpy(out + n, "***", 3);
            n += 3;
            p = end;
        } else {
            out[n++] = *p++;
        }
    }
    out[n] = 0;
}

/* The value, with %XX decoded, into out. */
static bw_err take_text(const char *url, bw_str name, bw_str value, char *out, size_t size)
{
    if (!value.len) return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": %.*s is empty", url, (int)name.len, name.data);
    return bw_url_unescape(url, value.data, value.len, out, size);
}

/* What TLS takes. NOT_FOUND: it is no such option. */
static bw_err parse_tls_option(const char *url, bw_str name, bw_str value, bw_remote *at)
{
    const struct { const char *name; char *out; size_t size; } texts[] = {
        {"ca", at->ca, sizeof at->ca}, {"certificate", at->certificate, sizeof at->certificate}, {"key", at->key, sizeof at->key},
        {"server-name", at->server_name, sizeof at->server_name},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (!bw_str_is(name, texts[i].name)) continue;
        if (!at->tls) return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": %s is for tls+tcp://", url, texts[i].name);
        return take_text(url, name, value, texts[i].out, texts[i].size);
    }
    return BW_ERR_NOT_FOUND;
}

/* Who we are. NOT_FOUND: it is no such option. */
static bw_err parse_secret_option(const char *url, bw_str name, bw_str value, bw_remote *at)
{
    bool token = bw_str_is(name, "token"), file = bw_str_is(name, "token-file"), password = bw_str_is(name, "password-file");
    if (bw_str_is(name, "insecure")) {
        at->insecure = bw_str_is(value, "yes");
        if (at->insecure || bw_str_is(value, "no")) return BW_OK;
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": insecure is yes or no", url);
    }
    if (!token && !file && !password) return BW_ERR_NOT_FOUND;
    if (password != (*at->user != 0))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": password-file belongs to a user (USER@HOST), a token to none", url);
    if (*at->secret || *at->secret_file) return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": there is more than one secret", url);
    return token ? take_text(url, name, value, at->secret, sizeof at->secret) : take_text(url, name, value, at->secret_file, sizeof at->secret_file);
}

bw_err bw_url_remote_option(const char *url, bw_str name, bw_str value, bw_remote *at)
{
    if (bw_str_is(name, "heartbeat")) {
        int64_t ms = bw_url_duration(value.data, value.len);
        if (ms < 100 || ms > 3600000)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": heartbeat is a duration from 100ms to 1h, not \"%.*s\"", url, (int)value.len,
                           value.data);
        at->heartbeat_ms = (int32_t)ms;
        return BW_OK;
    }
    bw_err e = parse_tls_option(url, name, value, at);
    if (e == BW_ERR_NOT_FOUND) e = parse_secret_option(url, name, value, at);
    if (e != BW_ERR_NOT_FOUND) return e;
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": unknown option \"%.*s\"; there are heartbeat, ca, certificate, key, server-name, token, "
                   "token-file, password-file and insecure", url, (int)name.len, name.data);
}

/* USER[:PASSWORD] */
static bw_err parse_user(const char *shown, const char *text, size_t len, bw_remote *at)
{
    const char *colon = memchr(text, ':', len);
    size_t name_len = colon ? (size_t)(colon - text) : len;
    if (!name_len) return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": there is no user's name before '@'", shown);
    bw_err e = bw_url_unescape(shown, text, name_len, at->user, sizeof at->user);
    if (!e && colon) e = bw_url_unescape(shown, colon + 1, len - name_len - 1, at->secret, sizeof at->secret);
    return e;
}


bw_err bw_url_remote(const char *text, const char *rest, bw_url *out)
{
    char shown[2048], place[BW_TCP_TEXT_MAX];
    bw_err e = BW_OK;
    redact(text, shown, sizeof shown);
    size_t len = strcspn(rest, "?");
    const char *query = rest + len, *at = memchr(rest, '@', len);
    out->remote = true;
    out->at.heartbeat_ms = BW_REMOTE_HEARTBEAT_MS;
    out->at.tls = text[1] == 'l';
    if (at) {
        e = parse_user(shown, rest, (size_t)(at - rest), &out->at);
        len -= (size_t)(at + 1 - rest);
        rest = at + 1;
    }
    if (e) return e;
    e = bw_tcp_place_parse(rest, len, &out->at.place);
    if (!e && !out->at.place.port) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "nobody can listen on port 0");
    if (e) return bw_error_context(e, "URL \"%s\"", shown);
    snprintf(out->path, sizeof out->path, "%s", bw_tcp_place_print(&out->at.place, place));
    e = *query ? bw_url_options(shown, query + 1, out) : BW_OK;
    if (!e && !*out->at.certificate != !*out->at.key)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": certificate and key are given together", shown);
    if (!*out->at.secret && !*out->at.secret_file)
        snprintf(out->at.secret_variable, sizeof out->at.secret_variable, "%s", *out->at.user ? "BUSWAY_PASSWORD" : "BUSWAY_TOKEN");
    return e;
}
