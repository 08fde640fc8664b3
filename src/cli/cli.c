/* cli/cli.c: error lines, exit codes, the connection, numbers. */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void line(const cli *c, const char *format, va_list args, const char *tail)
{
    char text[4096];
    vsnprintf(text, sizeof text, format, args);
    if (c->command)
        fprintf(stderr, "busway: %s: %s%s%s\n", c->command, text, tail && *tail ? ": " : "", tail ? tail : "");
    else
        fprintf(stderr, "busway: %s%s%s\n", text, tail && *tail ? ": " : "", tail ? tail : "");
}

int cli_error(const cli *c, int code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    line(c, format, args, NULL);
    va_end(args);
    return code;
}

int cli_error_bw(const cli *c, bw_err err, const char *format, ...)
{
    char message[2048];
    const char *text = bw_error_message();
    snprintf(message, sizeof message, "%s", *text ? text : bw_err_text(err));
    va_list args;
    va_start(args, format);
    line(c, format, args, message);
    va_end(args);
    return cli_exit_for(err);
}

void cli_note(const cli *c, const char *format, ...)
{
    if (c->quiet) return;
    va_list args;
    va_start(args, format);
    line(c, format, args, NULL);
    va_end(args);
}

int cli_usage(const cli *c, const char *format, ...)
{
    char help[128];
    snprintf(help, sizeof help, "see `busway help%s%s`", c->command ? " " : "", c->command ? c->command : "");
    char text[2048];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return cli_error(c, CLI_USAGE, "%s (%s)", text, help);
}

int cli_exit_for(bw_err err)
{
    switch (err) {
    case BW_OK:
        return CLI_OK;
    case BW_ERR_INVALID_ARGUMENT:
    case BW_ERR_INVALID_TOPIC:
    case BW_ERR_INVALID_CONFIG:
    case BW_ERR_INVALID_GROUP_ID:
    case BW_ERR_INVALID_QUOTA:
    case BW_ERR_UNSUPPORTED_ASSIGNOR:
        return CLI_USAGE;
    case BW_ERR_NOT_FOUND:
    case BW_ERR_UNKNOWN_TOPIC:
    case BW_ERR_UNKNOWN_PARTITION:
    case BW_ERR_GROUP_ID_NOT_FOUND:
    case BW_ERR_TRANSACTIONAL_ID_NOT_FOUND:
    case BW_ERR_UNKNOWN_LINK:
    case BW_ERR_DELETED:
        return CLI_NOT_FOUND;
    case BW_ERR_CORRUPT:
        return CLI_CORRUPT;
    case BW_ERR_TIMED_OUT:
    case BW_ERR_NO_COORDINATOR:
    case BW_ERR_NOT_CONNECTED:
    case BW_ERR_QUEUE_FULL:
    case BW_ERR_LOCK_HELD:
        return CLI_UNREACHABLE;
    case BW_ERR_NOT_PERMITTED:
    case BW_ERR_AUTHENTICATION_FAILED:
        return CLI_DENIED;
    default:
        return CLI_FAILURE;
    }
}

/* Runs in whichever thread hit the event: one write, no state. */
static void on_log(void *opaque, bw_log_level level, const char *message)
{
    const cli *c = opaque;
    if (level == BW_LOG_DEBUG && !c->verbose) return;
    if (level == BW_LOG_INFO && c->quiet) return;
    fprintf(stderr, "busway: %s\n", message);
}

/* The URL of a remote daemon without whom and what it may tell of us. */
static const char *url_place(const char *url, char *out, size_t size)
{
    const char *rest = strstr(url, "://"), *query = rest ? rest + strcspn(rest, "?") : NULL;
    const char *at = rest ? memchr(rest, '@', (size_t)(query - rest)) : NULL;
    if (!rest || (strncmp(url, "tcp://", 6) != 0 && strncmp(url, "tls+tcp://", 10) != 0)) return url;
    snprintf(out, size, "%.*s%.*s", (int)(rest + 3 - url), url, (int)(query - (at ? at + 1 : rest + 3)), at ? at + 1 : rest + 3);
    return out;
}

int cli_connect(cli *c, bw_bus **out)
{
    char place[400];
    bw_bus_options options = BW_BUS_OPTIONS_INIT;
    options.transport = c->transport;
    options.client_id = "busway";
    options.log = on_log;
    options.log_opaque = c;
    if (c->timeout_ms > 0) options.connect_timeout_ms = options.request_timeout_ms = c->timeout_ms;
    bw_err e = bw_bus_open(c->url, &options, out);
    if (e == BW_OK) return CLI_OK;
    const char *url = c->url ? c->url : getenv("BUSWAY_URL");
    return cli_error_bw(c, e, "cannot open %s", url ? url_place(url, place, sizeof place) : "the default bus");
}

bool cli_parse_int(const char *text, int64_t min, int64_t max, int64_t *out)
{
    char *end = NULL;
    errno = 0;
    if (!((*text >= '0' && *text <= '9') || (*text == '-' && text[1] >= '0' && text[1] <= '9'))) return false;
    long long v = strtoll(text, &end, 10);
    if (errno || *end || v < min || v > max) return false;
    *out = v;
    return true;
}

bool cli_parse_size(const char *text, int64_t min, int64_t max, int64_t *out)
{
    char digits[32];
    size_t n = strlen(text);
    if (n == 0 || n >= sizeof digits) return false;
    memcpy(digits, text, n + 1);
    int shift = 0;
    switch (digits[n - 1]) {
    case 'k':
    case 'K':
        shift = 10;
        break;
    case 'M':
        shift = 20;
        break;
    case 'G':
        shift = 30;
        break;
    default:
        break;
    }
    if (shift) digits[n - 1] = 0;
    int64_t v;
    if (!cli_parse_int(digits, 0, INT64_MAX >> shift, &v)) return false;
    v <<= shift;
    if (v < min || v > max) return false;
    *out = v;
    return true;
}

static const char *const codec_names[] = {"none", "gzip", "snappy", "lz4", "zstd"};

bool cli_parse_codec(const char *text, bw_codec *out)
{
    for (int i = 0; i < 5; i++)
        if (strcmp(text, codec_names[i]) == 0) return *out = (bw_codec)i, true;
    return false;
}

const char *cli_codec_name(bw_codec codec) { return (unsigned)codec < 5 ? codec_names[codec] : "unknown"; }

bool cli_parse_acks(const char *text, bw_acks *out)
{
    static const char *const names[] = {"none", "visible", "durable", "replicated"};
    for (int i = 0; i < 4; i++)
        if (strcmp(text, names[i]) == 0) return *out = (bw_acks)i, true;
    return false;
}

int64_t cli_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
