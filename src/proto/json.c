/* proto/json.c: msgpack to JSON without recursion: a stack of at most BW_JSON_DEPTH_MAX open arrays and maps. */
#include "proto/json.h"

#include "base/err.h"
#include "proto/msgpack_reader.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

/* An open array or map: items still to come (a pair counts one). */
typedef struct json_level {
    uint32_t left;
    bool map;
    bool first;
} json_level;

typedef struct json_writer {
    bw_buf *out;
    bw_msgpack_reader in;
    json_level levels[BW_JSON_DEPTH_MAX];
    unsigned depth;
    bw_err err; /* NO_MEMORY */
} json_writer;

static bool put(json_writer *w, const void *text, size_t len)
{
    w->err = bw_buf_append(w->out, text, len);
    return w->err == BW_OK;
}

static bool put_text(json_writer *w, const char *text) { return put(w, text, strlen(text)); }

/* Length of the UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates); 0 when it is none. */
static size_t utf8_length(const uint8_t *p, size_t left)
{
    if (p[0] < 0x80) { return 1; }
    size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || left < n) { return 0; }
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) { return 0; }
    }
    if (p[0] == 0xe0 && p[1] < 0xa0) { return 0; }
    if (p[0] == 0xed && p[1] > 0x9f) { return 0; }
    if (p[0] == 0xf0 && p[1] < 0x90) { return 0; }
    if (p[0] == 0xf4 && p[1] > 0x8f) { return 0; }
    return n;
}

static bool put_escaped(json_writer *w, uint8_t c)
{
    char escape[8];
    switch (c) {
    case '"': return put_text(w, "\\\"");
    case '\\': return put_text(w, "\\\\");
    case '\n': return put_text(w, "\\n");
    case '\r': return put_text(w, "\\r");
    case '\t': return put_text(w, "\\t");
    default: break;
    }
    snprintf(escape, sizeof escape, "\\u%04x", c);
    return put_text(w, escape);
}

static bool put_string(json_writer *w, const char *text, size_t len)
{
    const uint8_t *p = (const uint8_t *)text, *end = p ? p + len : p, *plain = p;
    if (!put_text(w, "\"")) { return false; }
    while (p < end) {
        size_t n = utf8_length(p, (size_t)(end - p));
        if (n != 0 && *p >= 0x20 && *p != '"' && *p != '\\' && *p != 0x7f) {
            p += n;
            continue;
        }
        if (p > plain && !put(w, plain, (size_t)(p - plain))) { return false; }
        if (!(n == 0 ? put_text(w, "\xef\xbf\xbd") : put_escaped(w, *p))) { return false; }
        plain = ++p;
    }
    return (p == plain || put(w, plain, (size_t)(p - plain))) && put_text(w, "\"");
}

static bool put_hex(json_writer *w, const uint8_t *bytes, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    if (!put_text(w, "\"")) { return false; }
    for (size_t i = 0; i < len; i++) {
        char pair[2] = {digits[bytes[i] >> 4], digits[bytes[i] & 15]};
        if (!put(w, pair, 2)) { return false; }
    }
    return put_text(w, "\"");
}

static bool put_number(json_writer *w)
{
    char text[40];
    if (bw_msgpack_peek(&w->in) == BW_MSGPACK_FLOAT) {
        double d;
        if (!bw_msgpack_read_float(&w->in, &d)) { return false; }
        if (!isfinite(d)) { return put_text(w, "null"); }
        snprintf(text, sizeof text, "%.17g", d);
        for (char *c = text; *c; c++) { /* whatever the locale says */
            if (*c == ',') { *c = '.'; }
        }
        return put_text(w, text);
    }
    uint64_t v;
    bool negative;
    if (!bw_msgpack_read_any_int(&w->in, &v, &negative)) { return false; }
    snprintf(text, sizeof text, negative ? "%" PRId64 : "%" PRIu64, v);
    return put_text(w, text);
}

static bool open_level(json_writer *w, bool map)
{
    uint32_t count;
    if (!(map ? bw_msgpack_read_map(&w->in, &count) : bw_msgpack_read_array(&w->in, &count))) { return false; }
    if (w->depth == BW_JSON_DEPTH_MAX) { return bw_msgpack_fail(&w->in, "it is nested too deeply"); }
    w->levels[w->depth++] = (json_level){count, map, true};
    return put_text(w, map ? "{" : "[");
}

static bool put_value(json_writer *w)
{
    const char *text;
    const uint8_t *bytes;
    size_t len;
    bool b;
    switch (bw_msgpack_peek(&w->in)) {
    case BW_MSGPACK_NIL: return bw_msgpack_read_nil(&w->in) && put_text(w, "null");
    case BW_MSGPACK_BOOL: return bw_msgpack_read_bool(&w->in, &b) && put_text(w, b ? "true" : "false");
    case BW_MSGPACK_INT:
    case BW_MSGPACK_FLOAT: return put_number(w);
    case BW_MSGPACK_STR: return bw_msgpack_read_str(&w->in, &text, &len) && put_string(w, text, len);
    case BW_MSGPACK_BIN: return bw_msgpack_read_bin(&w->in, &bytes, &len) && put_hex(w, bytes, len);
    case BW_MSGPACK_ARRAY: return open_level(w, false);
    case BW_MSGPACK_MAP: return open_level(w, true);
    case BW_MSGPACK_EXT: return bw_msgpack_fail(&w->in, "JSON has no extensions");
    case BW_MSGPACK_INVALID: return bw_msgpack_fail(&w->in, "byte 0xc1 begins no value");
    case BW_MSGPACK_END: break;
    }
    return bw_msgpack_fail(&w->in, "it ends too early");
}

static bool put_key(json_writer *w)
{
    const char *text;
    size_t len;
    if (!bw_msgpack_read_str(&w->in, &text, &len)) { return false; }
    return put_string(w, text, len) && put_text(w, ":");
}

static bool write_document(json_writer *w)
{
    if (!put_value(w)) { return false; }
    while (w->depth > 0) {
        json_level *level = &w->levels[w->depth - 1];
        if (level->left == 0) {
            w->depth--;
            if (!put_text(w, level->map ? "}" : "]")) { return false; }
            continue;
        }
        level->left--;
        if (!level->first && !put_text(w, ",")) { return false; }
        level->first = false;
        if (level->map && !put_key(w)) { return false; }
        if (!put_value(w)) { return false; }
    }
    return bw_msgpack_left(&w->in) == 0 || bw_msgpack_fail(&w->in, "bytes follow it");
}

bw_err bw_json_from_msgpack(const uint8_t *doc, size_t len, bw_buf *out)
{
    size_t before = out->len;
    json_writer w = {.out = out, .in = bw_msgpack_over(doc, len)};
    if (write_document(&w)) { return BW_OK; }
    out->len = before;
    if (w.err != BW_OK) { return w.err; }
    return bw_fail(BW_ERR_PROTOCOL, "byte %zu of a msgpack document: %s", bw_msgpack_position(&w.in), w.in.why);
}
