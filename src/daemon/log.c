/* daemon/log.c: lines are made whole and written by one call, so that lines of several threads do not mix.
 *
 * fields are "key=value" separated by blanks; a value is a bare word or a JSON string. As JSON, bare numbers and true/false stay what
 * they are, other bare words become strings. A line that does not fit is cut at a field. */
#include "daemon/log.h"

#include "base/clock.h"

#include <ctype.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *level_name(bw_log_level level)
{
    return level <= BW_LOG_ERROR ? "error" : level <= BW_LOG_WARN ? "warn" : level <= BW_LOG_INFO ? "info" : "debug";
}

static void format_time(int64_t wall_ms, char *out, size_t size)
{
    time_t s = (time_t)(wall_ms / 1000);
    struct tm tm;
    gmtime_r(&s, &tm);
    size_t n = strftime(out, size, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, size - n, ".%03dZ", (int)(wall_ms % 1000));
}

/* Length of one value at p: a quoted string or a bare word. */
static size_t value_length(const char *p)
{
    if (*p != '"') return strcspn(p, " ");
    size_t n = 1;
    while (p[n] && p[n] != '"') n += p[n] == '\\' && p[n + 1] ? 2 : 1;
    return p[n] ? n + 1 : n;
}

static bool is_json_literal(const char *p, size_t n)
{
    if ((n == 4 && !memcmp(p, "true", 4)) || (n == 5 && !memcmp(p, "false", 5))) return true;
    size_t i = *p == '-';
    if (i == n || n > 18 || (p[i] == '0' && n > i + 1)) return false;
    for (; i < n; i++)
        if (!isdigit((unsigned char)p[i])) return false;
    return true;
}

static size_t json_fields(const char *fields, char *out, size_t size)
{
    size_t at = 0;
    while (*fields) {
        size_t key = strcspn(fields, "= ");
        if (fields[key] != '=') break;
        const char *value = fields + key + 1;
        size_t len = value_length(value);
        if (at + key + len + 8 > size) break;
        bool as_is = (*value == '"' && len > 1 && value[len - 1] == '"') || is_json_literal(value, len);
        int n = as_is ? snprintf(out + at, size - at, ",\"%.*s\":%.*s", (int)key, fields, (int)len, value)
                      : snprintf(out + at, size - at, ",\"%.*s\":\"%.*s\"", (int)key, fields, (int)len, value + (*value == '"'));
        at += (size_t)n;
        fields = value + len;
        while (*fields == ' ') fields++;
    }
    return at;
}

size_t bw_daemon_log_format(bool json, int64_t wall_ms, bw_log_level level, const char *event, const char *fields, char *out, size_t size)
{
    char when[40];
    format_time(wall_ms, when, sizeof when);
    int n;
    if (!json) {
        n = snprintf(out, size - 1, "%s %s %s%s%s", when, level_name(level), event, *fields ? " " : "", fields);
        if ((size_t)n > size - 2) n = (int)size - 2;
        out[n++] = '\n';
        return (size_t)n;
    }
    n = snprintf(out, size, "{\"time\":\"%s\",\"level\":\"%s\",\"event\":\"%.100s\"", when, level_name(level), event);
    size_t at = (size_t)n;
    at += json_fields(fields, out + at, size - at - 3);
    out[at++] = '}';
    out[at++] = '\n';
    return at;
}

void bw_daemon_log(void *opaque, bw_log_level level, const char *event, const char *fields)
{
    const bw_daemon_config *c = opaque;
    if (level > c->log_level) return;
    char line[4096];
    size_t n = bw_daemon_log_format(c->log_json, bw_clock_wall_ms(), level, event, fields, line, sizeof line);
    ssize_t ignored = write(STDERR_FILENO, line, n);
    (void)ignored;
}
