/* client/url.c: bus URLs.
 *
 *   dir:PATH[?idle-exit=30s][&coordinator=self|daemon][&transport=auto|direct|ipc]
 *   dir:PATH?mode=ro
 *   ipc:///PATH[?transport=…]
 *   tcp://…, tls+tcp://…: see url_remote.c
 *   kafka://HOST:PORT[,HOST:PORT]…[?NAME=VALUE[&…]]  (kafka/config.c)
 * PATH takes %XX for bytes that a URL gives a meaning to ('?' and '%'); every other byte stands for itself. */
#include "client/url.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

bw_err bw_url_unescape(const char *url, const char *from, size_t len, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int c = (unsigned char)from[i];
        if (c == '%') {
            int high = i + 2 < len ? hex_digit(from[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(from[i + 2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": '%%' must be followed by two hex digits; write %%25 for '%%' itself",
                               url);
            c = high * 16 + low;
            i += 2;
        }
        if (n + 1 >= size) return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL: what stands there is longer than %zu bytes", size - 1);
        out[n++] = (char)c;
    }
    out[n] = 0;
    return BW_OK;
}

/* Lexical: no "." components, single slashes; ".." is left to the file system. */
static void tidy(char *path)
{
    char *to = path;
    for (const char *from = path; *from;) {
        if (from[0] == '/' && from[1] == '/') {
            from++;
        } else if (from[0] == '/' && from[1] == '.' && (from[2] == '/' || from[2] == 0)) {
            from += 2;
        } else {
            *to++ = *from++;
        }
    }
    while (to > path + 1 && to[-1] == '/') to--;
    if (to == path) *to++ = '/';
    *to = 0;
}

static bw_err make_absolute(const char *url, const char *raw, char out[PATH_MAX])
{
    if (raw[0] == '/') {
        memcpy(out, raw, strlen(raw) + 1);
    } else {
        if (!getcwd(out, PATH_MAX)) return bw_fail_errno(errno, "URL \"%s\": can't tell the working directory", url);
        size_t n = strlen(out);
        int w = snprintf(out + n, PATH_MAX - n, "/%s", raw);
        if (w < 0 || (size_t)w >= PATH_MAX - n)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL: the path is longer than %d bytes", PATH_MAX - 1);
    }
    tidy(out);
    return BW_OK;
}

/* In ms; -1: it is none. A plain number is ms. */
int64_t bw_url_duration(const char *value, size_t len)
{
    static const struct { const char *name; int64_t ms; } units[] = {{"", 1}, {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
    size_t digits = 0;
    int64_t number = 0;
    while (digits < len && isdigit((unsigned char)value[digits])) {
        if (digits == 12) return -1;
        number = number * 10 + (value[digits++] - '0');
    }
    for (size_t i = 0; digits && i < sizeof units / sizeof *units; i++)
        if (strlen(units[i].name) == len - digits && memcmp(units[i].name, value + digits, len - digits) == 0)
            return number <= INT64_MAX / units[i].ms ? number * units[i].ms : -1;
    return -1;
}

static bool is_text(const char *s, size_t len, const char *text) { return strlen(text) == len && memcmp(s, text, len) == 0; }

static bw_err parse_option(const char *url, const char *option, size_t len, bw_url *out)
{
    const char *equals = memchr(option, '=', len);
    size_t name_len = equals ? (size_t)(equals - option) : len;
    const char *value = equals ? equals + 1 : option + len;
    size_t value_len = len - (size_t)(value - option);
    if (out->remote) return bw_url_remote_option(url, (bw_str){option, name_len}, (bw_str){value, value_len}, &out->at);
    if (is_text(option, name_len, "transport")) {
        out->transport_given = true;
        if (is_text(value, value_len, "auto")) out->transport = BW_TRANSPORT_AUTO;
        else if (is_text(value, value_len, "direct")) out->transport = BW_TRANSPORT_DIRECT;
        else if (is_text(value, value_len, "ipc")) out->transport = BW_TRANSPORT_IPC;
        else
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": transport is auto, direct or ipc, not \"%.*s\"", url, (int)value_len,
                           value);
        return BW_OK;
    }
    if (out->embedded && is_text(option, name_len, "mode")) {
        out->read_only = is_text(value, value_len, "ro");
        if (out->read_only || is_text(value, value_len, "rw")) return BW_OK;
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": mode is ro (read what is there, write nothing) or rw, not \"%.*s\"", url,
                       (int)value_len, value);
    }
    if (out->embedded && is_text(option, name_len, "coordinator")) {
        out->self_coordinator = is_text(value, value_len, "self");
        if (out->self_coordinator || is_text(value, value_len, "daemon")) return BW_OK;
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": coordinator is daemon (a process of its own) or self (in this one), not \"%.*s\"",
                       url, (int)value_len, value);
    }
    if (is_text(option, name_len, "idle-exit")) {
        if (!out->embedded)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": idle-exit is for dir: URLs; this daemon is not the library's", url);
        if (bw_url_duration(value, value_len) < 0 || value_len >= sizeof out->idle_exit)
            return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": idle-exit is a duration such as 30s, 500ms or 5m, not \"%.*s\"", url,
                           (int)value_len, value);
        memcpy(out->idle_exit, value, value_len);
        out->idle_exit[value_len] = 0;
        return BW_OK;
    }
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": unknown option \"%.*s\"; there are transport%s", url, (int)name_len, option,
                   out->embedded ? ", idle-exit, coordinator and mode" : "");
}

bw_err bw_url_options(const char *url, const char *options, bw_url *out)
{
    while (*options) {
        size_t len = strcspn(options, "&");
        if (len) {
            bw_err e = parse_option(url, options, len, out);
            if (e) return e;
        }
        options += len;
        if (*options == '&') options++;
    }
    return BW_OK;
}

static bw_err refuse_scheme(const char *text)
{
    if (text[0] == '/' || text[0] == '.')
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\" is a plain path: write dir:%s for a folder or ipc://%s for a socket", text,
                       text, text[0] == '/' ? text : "/…");
    return bw_fail(BW_ERR_INVALID_ARGUMENT,
                   "URL \"%s\": a bus is dir:/folder, ipc:///folder/bus.sock, tcp://host:port, tls+tcp://host:port "
                   "or kafka://host:port", text);
}

bw_err bw_url_parse(const char *text, bw_url *out)
{
    memset(out, 0, sizeof *out);
    memcpy(out->idle_exit, "30s", 4);
    const char *rest;
    if (strncmp(text, "dir:", 4) == 0) {
        out->embedded = true;
        rest = text + 4;
        if (strncmp(rest, "//", 2) == 0 && rest[2] == '/') rest += 2; /* dir:///path */
    } else if (strncmp(text, "ipc://", 6) == 0) {
        rest = text + 6;
    } else if (strncmp(text, "tcp://", 6) == 0 || strncmp(text, "tls+tcp://", 10) == 0) {
        return bw_url_remote(text, strstr(text, "://") + 3, out);
    } else if (strncmp(text, "kafka://", 8) == 0) {
        out->kafka = true;
        if (strlen(text + 8) >= sizeof out->path) return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL: longer than %d bytes", PATH_MAX - 1);
        memcpy(out->path, text + 8, strlen(text + 8) + 1);
        return BW_OK;
    } else {
        return refuse_scheme(text);
    }
    size_t path_len = strcspn(rest, "?");
    if (path_len == 0) return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": there is no path", text);
    if (!out->embedded && rest[0] != '/')
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": the socket's path must be absolute: ipc:///%s", text, rest);
    char raw[PATH_MAX];
    bw_err e = bw_url_unescape(text, rest, path_len, raw, sizeof raw);
    if (!e) e = make_absolute(text, raw, out->path);
    if (!e && rest[path_len] == '?') e = bw_url_options(text, rest + path_len + 1, out);
    if (!e && out->read_only && (out->self_coordinator || (out->transport_given && out->transport == BW_TRANSPORT_IPC)))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "URL \"%s\": mode=ro reads the files itself: there is no coordinator and no socket", text);
    return e;
}

bw_err bw_url_choose(bw_url *out, bool *own_folder)
{
    *own_folder = false;
    const char *given = getenv("BUSWAY_URL");
    if (given && *given) {
        bw_err e = bw_url_parse(given, out);
        return e ? bw_error_context(e, "$BUSWAY_URL") : BW_OK;
    }
    struct stat st;
    if (stat(BW_URL_SYSTEM_RUNTIME, &st) == 0 && S_ISDIR(st.st_mode))
        return bw_url_parse("ipc://" BW_URL_SYSTEM_RUNTIME "/bus.sock", out);
    memset(out, 0, sizeof *out);
    out->embedded = true;
    memcpy(out->idle_exit, "30s", 4);
    *own_folder = true;
    const char *data_home = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int n;
    if (data_home && data_home[0] == '/') n = snprintf(out->path, sizeof out->path, "%s/busway", data_home);
    else if (home && home[0] == '/') n = snprintf(out->path, sizeof out->path, "%s/.local/share/busway", home);
    else return bw_fail(BW_ERR_INVALID_ARGUMENT, "no URL was given, and neither $BUSWAY_URL, $XDG_DATA_HOME nor $HOME is set");
    if (n < 0 || (size_t)n >= sizeof out->path) return bw_fail(BW_ERR_INVALID_ARGUMENT, "the default folder's path is too long");
    tidy(out->path);
    return BW_OK;
}

void bw_url_print(const bw_url *url, char *out, size_t size)
{
    if (url->kafka) { /* its options may hold a password */
        snprintf(out, size, "kafka://%.*s", (int)strcspn(url->path, "/?"), url->path);
        return;
    }
    if (url->remote) {
        snprintf(out, size, "%s://%s", url->at.tls ? "tls+tcp" : "tcp", url->path);
        return;
    }
    size_t n = (size_t)snprintf(out, size, "%s", url->embedded ? "dir:" : "ipc://");
    for (const char *p = url->path; *p && n + 4 < size; p++) {
        if (*p == '%' || *p == '?') n += (size_t)snprintf(out + n, size - n, "%%%02X", (unsigned char)*p);
        else out[n++] = *p;
    }
    if (n < size) out[n] = 0;
}
