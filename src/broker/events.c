/* broker/events.c: what the daemon logs: an event's name and "key=value" fields. The program decides where it goes. */
#include "broker/core.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>

void bw_broker_event(bw_broker *b, bw_log_level level, const char *event, const char *format, ...)
{
    if (!b->config.event || level > b->config.log_level) return;
    char fields[2048];
    va_list ap;
    va_start(ap, format);
    vsnprintf(fields, sizeof fields, format, ap);
    va_end(ap);
    b->config.event(b->config.event_opaque, level, event, fields);
}

static bool is_bare(const char *text)
{
    if (!*text) return false;
    for (; *text; text++)
        if (!isalnum((unsigned char)*text) && !strchr("._-/:+@%", *text)) return false;
    return true;
}

const char *bw_event_text(const char *text, char *out, size_t size)
{
    if (is_bare(text)) {
        snprintf(out, size, "%s", text);
        return out;
    }
    size_t at = 0;
    out[at++] = '"';
    for (; *text && at + 8 < size; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\') {
            out[at++] = '\\';
            out[at++] = (char)c;
        } else if (c < 0x20 || c == 0x7f) at += (size_t)snprintf(out + at, size - at, "\\u%04x", c);
        else out[at++] = (char)c;
    }
    out[at++] = '"';
    out[at] = 0;
    return out;
}
