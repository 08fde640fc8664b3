/* cli/json.c: records as JSON lines. Written straight into the output buffer: a JSON library would cost a tree a record. */
#include "cli/json.h"

#include <string.h>

/* Length of the well-formed UTF-8 sequence at s (n bytes left), 0 when it is none (overlong, surrogate, out of range, cut). */
static size_t utf8_length(const uint8_t *s, size_t n)
{
    uint8_t c = s[0];
    size_t len;
    uint8_t low = 0x80, high = 0xBF;
    if (c < 0x80) return 1;
    if (c >= 0xC2 && c <= 0xDF)
        len = 2;
    else if (c >= 0xE0 && c <= 0xEF) {
        len = 3;
        if (c == 0xE0) low = 0xA0;
        if (c == 0xED) high = 0x9F;
    } else if (c >= 0xF0 && c <= 0xF4) {
        len = 4;
        if (c == 0xF0) low = 0x90;
        if (c == 0xF4) high = 0x8F;
    } else
        return 0;
    if (n < len || s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < len; i++)
        if ((s[i] & 0xC0) != 0x80) return 0;
    return len;
}

static void escape(cli_out *o, uint8_t c)
{
    static const char hex[] = "0123456789abcdef";
    char u[6] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};
    switch (c) {
    case '"':
        cli_out_put(o, "\\\"", 2);
        return;
    case '\\':
        cli_out_put(o, "\\\\", 2);
        return;
    case '\n':
        cli_out_put(o, "\\n", 2);
        return;
    case '\r':
        cli_out_put(o, "\\r", 2);
        return;
    case '\t':
        cli_out_put(o, "\\t", 2);
        return;
    case '\b':
        cli_out_put(o, "\\b", 2);
        return;
    case '\f':
        cli_out_put(o, "\\f", 2);
        return;
    default:
        cli_out_put(o, u, 6);
        return;
    }
}

bool cli_json_string(cli_out *o, const void *data, size_t len)
{
    const uint8_t *s = data;
    bool good = true;
    size_t run = 0; /* bytes before i that go as they are */
    cli_out_char(o, '"');
    for (size_t i = 0; i < len;) {
        size_t n = s[i] < 0x80 ? 1 : utf8_length(s + i, len - i);
        if (n == 0 || s[i] < 0x20 || s[i] == '"' || s[i] == '\\' || s[i] == 0x7f) {
            cli_out_put(o, s + i - run, run);
            run = 0;
            if (n == 0) {
                good = false;
                cli_out_put(o, "\xEF\xBF\xBD", 3);
            } else {
                escape(o, s[i]);
            }
            i++;
            continue;
        }
        i += n;
        run += n;
    }
    if (run) cli_out_put(o, s + len - run, run);
    cli_out_char(o, '"');
    return good;
}

void cli_json_base64(cli_out *o, const void *data, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *s = data;
    cli_out_char(o, '"');
    for (size_t i = 0; i < len; i += 3) {
        size_t n = len - i < 3 ? len - i : 3;
        uint32_t v = (uint32_t)s[i] << 16 | (n > 1 ? (uint32_t)s[i + 1] << 8 : 0) | (n > 2 ? s[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63], n > 1 ? digits[v >> 6 & 63] : '=', n > 2 ? digits[v & 63] : '='};
        cli_out_put(o, four, 4);
    }
    cli_out_char(o, '"');
}

/* One pass over the headers: as text (base64 false) or exact. Returns false when a text was not UTF-8. */
static bool headers(cli_out *o, const bw_record_view *record, bool base64)
{
    bw_header_iter it;
    bw_header h;
    bool good = true, first = true;
    cli_out_char(o, '[');
    bw_header_iter_init(&it, record);
    while (bw_header_iter_next(&it, &h) == 1) {
        if (!first) cli_out_char(o, ',');
        first = false;
        if (base64)
            cli_json_base64(o, h.name, h.name_len);
        else
            good &= cli_json_string(o, h.name, h.name_len);
        cli_out_char(o, ',');
        if (!h.value)
            cli_out_text(o, "null");
        else if (base64)
            cli_json_base64(o, h.value, h.value_len);
        else
            good &= cli_json_string(o, h.value, h.value_len);
    }
    cli_out_char(o, ']');
    return good;
}

static void field(cli_out *o, const char *name, const uint8_t *data, size_t len)
{
    cli_out_put(o, ",\"", 2);
    cli_out_text(o, name);
    cli_out_put(o, "\":", 2);
    if (!data) {
        cli_out_text(o, "null");
    } else if (!cli_json_string(o, data, len)) {
        cli_out_put(o, ",\"", 2);
        cli_out_text(o, name);
        cli_out_text(o, "_base64\":");
        cli_json_base64(o, data, len);
    }
}

void cli_json_fields(cli_out *o, const bw_record_view *record)
{
    if (record->header_count) {
        cli_out_text(o, ",\"headers\":");
        if (!headers(o, record, false)) {
            cli_out_text(o, ",\"headers_base64\":");
            headers(o, record, true);
        }
    }
    field(o, "key", record->key, record->key_len);
    field(o, "payload", record->value, record->value_len);
}

void cli_json_envelope(cli_out *o, const char *topic, int32_t partition, bw_timestamp_type type, const bw_record_view *record)
{
    cli_out_text(o, "{\"topic\":");
    cli_json_string(o, topic, strlen(topic));
    cli_out_text(o, ",\"partition\":");
    cli_out_int(o, partition);
    cli_out_text(o, ",\"offset\":");
    cli_out_int(o, record->offset);
    if (type != BW_TIMESTAMP_NONE) {
        cli_out_text(o, type == BW_TIMESTAMP_LOG_APPEND ? ",\"tstype\":\"logappend\",\"ts\":" : ",\"tstype\":\"create\",\"ts\":");
        cli_out_int(o, record->timestamp_ms);
    }
    cli_out_text(o, ",\"broker\":0");
    cli_json_fields(o, record);
    cli_out_char(o, '}');
}
