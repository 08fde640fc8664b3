/* cli/format.c: kcat's format string. */
#include "cli/format.h"

#include <stdlib.h>
#include <string.h>

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

/* One character, or one escape, from *at; moves *at behind it. */
static char unescape_one(const char **at)
{
    const char *s = *at;
    if (s[0] != '\\' || !s[1]) return *at = s + 1, s[0];
    char c = s[1];
    s += 2;
    switch (c) {
    case 'n':
        c = '\n';
        break;
    case 't':
        c = '\t';
        break;
    case 'r':
        c = '\r';
        break;
    case 'x': {
        int v = 0, n = 0;
        while (n < 2 && hex_digit(s[n]) >= 0) v = v * 16 + hex_digit(s[n++]);
        if (n == 0) break; /* "\x" alone is an x, as any other escaped letter is itself */
        s += n;
        c = (char)v;
        break;
    }
    default:
        if (c >= '0' && c <= '7') {
            int v = c - '0';
            for (int n = 0; n < 2 && *s >= '0' && *s <= '7'; n++) v = v * 8 + (*s++ - '0');
            c = (char)v;
        }
    }
    *at = s;
    return c;
}

size_t cli_unescape(char *text)
{
    char *to = text;
    for (const char *at = text; *at;) *to++ = unescape_one(&at);
    *to = 0;
    return (size_t)(to - text);
}

bool cli_format_compile(cli_format *f, const char *string, const char **error, size_t *error_at)
{
    size_t n = strlen(string), used = 0;
    *f = (cli_format){.parts = malloc((n + 1) * sizeof(cli_format_part)), .text = malloc(n + 1), .null_text = ""};
    *error = NULL;
    if (!f->parts || !f->text) goto fail;
    for (const char *s = string; *s;) {
        bool literal = *s != '%' || s[1] == '%';
        if (!literal) {
            if (!s[1] || !strchr("sSRkKhTtpo", s[1])) {
                *error = s[1] ? "unknown letter after %; known are s S R k K h T t p o and %%"
                              : "% at the end; write %% for a percent sign";
                *error_at = (size_t)(s - string);
                goto fail;
            }
            f->parts[f->count++] = (cli_format_part){.what = s[1]};
            s += 2;
            continue;
        }
        if (f->count == 0 || f->parts[f->count - 1].what) f->parts[f->count++] = (cli_format_part){.from = used};
        if (*s == '%') {
            f->text[used++] = '%';
            s += 2;
        } else {
            f->text[used++] = unescape_one(&s);
        }
        f->parts[f->count - 1].len++;
    }
    return true;
fail:
    cli_format_fini(f);
    return false;
}

void cli_format_fini(cli_format *f)
{
    free(f->parts);
    free(f->text);
    f->parts = NULL;
    f->text = NULL;
    f->count = 0;
}

static void put_headers(cli_out *o, const bw_record_view *record)
{
    bw_header_iter it;
    bw_header h;
    bool first = true;
    bw_header_iter_init(&it, record);
    while (bw_header_iter_next(&it, &h) == 1) {
        if (!first) cli_out_char(o, ',');
        first = false;
        cli_out_put(o, h.name, h.name_len);
        cli_out_char(o, '=');
        if (h.value)
            cli_out_put(o, h.value, h.value_len);
        else
            cli_out_text(o, "NULL");
    }
}

static void put_or_null(const cli_format *f, cli_out *o, const uint8_t *data, size_t len)
{
    if (data)
        cli_out_put(o, data, len);
    else
        cli_out_text(o, f->null_text);
}

void cli_format_run(const cli_format *f, cli_out *o, const char *topic, int32_t partition, const bw_record_view *record)
{
    for (size_t i = 0; i < f->count; i++) {
        const cli_format_part *p = &f->parts[i];
        uint32_t n;
        switch (p->what) {
        case 0:
            cli_out_put(o, f->text + p->from, p->len);
            break;
        case 's':
            put_or_null(f, o, record->value, record->value_len);
            break;
        case 'k':
            put_or_null(f, o, record->key, record->key_len);
            break;
        case 'S':
            cli_out_int(o, record->value ? (int64_t)record->value_len : -1);
            break;
        case 'K':
            cli_out_int(o, record->key ? (int64_t)record->key_len : -1);
            break;
        case 'R':
            n = record->value ? record->value_len : UINT32_MAX;
            cli_out_put(o, (const uint8_t[4]){(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n}, 4);
            break;
        case 'h':
            put_headers(o, record);
            break;
        case 'T':
            cli_out_int(o, record->timestamp_ms);
            break;
        case 't':
            cli_out_text(o, topic);
            break;
        case 'p':
            cli_out_int(o, partition);
            break;
        case 'o':
            cli_out_int(o, record->offset);
            break;
        default:
            break;
        }
    }
}
