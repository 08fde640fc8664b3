/* broker/config_reference.c: the reference of all options, printed from the tables. */
#include "broker/config_tables.h"

#include <stdarg.h>
#include <stdio.h>

static bw_err say(bw_buf *out, const char *format, ...) BW_PRINTF(2, 3);
static bw_err say(bw_buf *out, const char *format, ...)
{
    char text[2048];
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    if (n < 0 || n >= (int)sizeof text) return bw_fail(BW_ERR_INTERNAL, "the help of an option is too long");
    return bw_buf_append(out, text, (size_t)n);
}

/* Words of `text`, filled to 78 columns and indented. */
static bw_err fill(bw_buf *out, const char *text)
{
    bw_err e = BW_OK;
    size_t column = 0;
    while (!e && *text) {
        size_t word = strcspn(text, " ");
        if (!column) e = say(out, "    %.*s", (int)word, text), column = 4 + word;
        else if (column + 1 + word > 78) e = say(out, "\n    %.*s", (int)word, text), column = 4 + word;
        else e = say(out, " %.*s", (int)word, text), column += 1 + word;
        text += word;
        while (*text == ' ') text++;
    }
    return e ? e : say(out, "\n");
}

/* For roff: a hyphen is a minus, a leading dot is guarded. */
static bw_err roff(bw_buf *out, const char *text)
{
    bw_err e = BW_OK;
    for (; !e && *text; text++)
        e = *text == '-' ? say(out, "\\-") : *text == '\\' ? say(out, "\\e") : say(out, "%c", *text);
    return e;
}

static bw_err one_option(bw_buf *out, const bw_option *o, bool man)
{
    char allowed[256];
    bw_option_allowed(o, allowed, sizeof allowed);
    const char *preset = *o->preset ? o->preset : "none";
    bw_err e;
    if (!man) {
        e = say(out, "%s\n", o->name);
        if (!e) e = fill(out, o->help);
        if (!e) e = say(out, "    Allowed: %s.\n    Default: %s\n\n", allowed, preset);
        return e;
    }
    e = say(out, ".TP\n.B ");
    if (!e) e = roff(out, o->name);
    if (!e) e = say(out, "\n");
    if (!e) e = roff(out, o->help);
    if (!e) e = say(out, "\nAllowed: ");
    if (!e) e = roff(out, allowed);
    if (!e) e = say(out, ".\nDefault: ");
    if (!e) e = roff(out, preset);
    return e ? e : say(out, ".\n");
}

static bw_err table(bw_buf *out, const char *title, const char *intro, const bw_option *options, size_t count, bool man)
{
    bw_err e = man ? say(out, ".SS %s\n%s\n", title, intro) : say(out, "%s\n\n", title);
    if (!e && !man) e = fill(out, intro);
    if (!e && !man) e = say(out, "\n");
    for (size_t i = 0; !e && i < count; i++) e = one_option(out, &options[i], man);
    return e;
}

bw_err bw_daemon_config_reference(bw_buf *out, bool man)
{
    bw_err e = table(out, "[daemon]", "Options of the daemon, before any section or under this one; on the command line: --set name=value.",
                     bw_daemon_options, bw_daemon_option_count, man);
    if (e) return e;
    return table(out, "[topic-defaults]", "What holds for topics that do not say otherwise. The same names configure one topic: busway topic create "
                 "-c name=value.", bw_topic_options, bw_topic_option_count, man);
}
