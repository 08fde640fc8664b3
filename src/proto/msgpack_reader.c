/* proto/msgpack_reader.c: see the header for the invariants.
 *
 *   00-7f fixint     80-8f fixmap    90-9f fixarray  a0-bf fixstr   c0 nil  c1 (never used)  c2 false  c3 true
 *   c4-c6 bin 8/16/32    c7-c9 ext 8/16/32    ca float  cb double   cc-cf uint 8..64   d0-d3 int 8..64
 *   d4-d8 fixext 1..16   d9-db str 8/16/32    dc-dd array 16/32     de-df map 16/32    e0-ff negative fixint */
#include "proto/msgpack_reader.h"

#include "base/bytes.h"

bool bw_msgpack_fail(bw_msgpack_reader *r, const char *why)
{
    if (!r->bad) {
        r->bad = true;
        r->why = why;
    }
    return false;
}

/* How each byte from c0 to df begins a value: its kind and how many bytes of number (or length) follow. */
static const struct { uint8_t kind; uint8_t width; } form[32] = {
    {BW_MSGPACK_NIL, 0},   {BW_MSGPACK_INVALID, 0}, {BW_MSGPACK_BOOL, 0},  {BW_MSGPACK_BOOL, 0}, /* c0 */
    {BW_MSGPACK_BIN, 1},   {BW_MSGPACK_BIN, 2},     {BW_MSGPACK_BIN, 4},   {BW_MSGPACK_EXT, 1},  /* c4 */
    {BW_MSGPACK_EXT, 2},   {BW_MSGPACK_EXT, 4},     {BW_MSGPACK_FLOAT, 4}, {BW_MSGPACK_FLOAT, 8}, /* c8 */
    {BW_MSGPACK_INT, 1},   {BW_MSGPACK_INT, 2},     {BW_MSGPACK_INT, 4},   {BW_MSGPACK_INT, 8},  /* cc */
    {BW_MSGPACK_INT, 1},   {BW_MSGPACK_INT, 2},     {BW_MSGPACK_INT, 4},   {BW_MSGPACK_INT, 8},  /* d0 */
    {BW_MSGPACK_EXT, 0},   {BW_MSGPACK_EXT, 0},     {BW_MSGPACK_EXT, 0},   {BW_MSGPACK_EXT, 0},  /* d4 */
    {BW_MSGPACK_EXT, 0},   {BW_MSGPACK_STR, 1},     {BW_MSGPACK_STR, 2},   {BW_MSGPACK_STR, 4},  /* d8 */
    {BW_MSGPACK_ARRAY, 2}, {BW_MSGPACK_ARRAY, 4},   {BW_MSGPACK_MAP, 2},   {BW_MSGPACK_MAP, 4},  /* dc */
};

static bw_msgpack_kind kind_of(uint8_t b)
{
    if (b < 0x80 || b >= 0xe0) { return BW_MSGPACK_INT; }
    if (b < 0x90) { return BW_MSGPACK_MAP; }
    if (b < 0xa0) { return BW_MSGPACK_ARRAY; }
    if (b < 0xc0) { return BW_MSGPACK_STR; }
    return (bw_msgpack_kind)form[b - 0xc0].kind;
}

bw_msgpack_kind bw_msgpack_peek(const bw_msgpack_reader *r)
{
    if (r->bad || r->at == r->end) { return BW_MSGPACK_END; }
    return kind_of(*r->at);
}

/* The first byte of a value of the kind wanted; false and bad when there is another or none. */
static bool begin(bw_msgpack_reader *r, bw_msgpack_kind kind, const char *why, uint8_t *first)
{
    if (r->bad) { return false; }
    if (r->at == r->end) { return bw_msgpack_fail(r, "it ends too early"); }
    if (kind_of(*r->at) != kind) { return bw_msgpack_fail(r, why); }
    *first = *r->at++;
    return true;
}

static bool take(bw_msgpack_reader *r, size_t len, const uint8_t **out)
{
    if (bw_msgpack_left(r) < len) { return bw_msgpack_fail(r, "a value is longer than what is left"); }
    *out = r->at;
    r->at += len;
    return true;
}

/* The big-endian number of 0, 1, 2, 4 or 8 bytes that follows `first`. */
static bool number(bw_msgpack_reader *r, uint8_t first, uint64_t *out)
{
    const uint8_t *p;
    uint8_t width = form[first - 0xc0].width;
    if (!take(r, width, &p)) { return false; }
    *out = width == 8 ? bw_get_be64(p) : width == 4 ? bw_get_be32(p) : width == 2 ? bw_get_be16(p) : width == 1 ? *p : 0;
    return true;
}

bool bw_msgpack_read_nil(bw_msgpack_reader *r)
{
    uint8_t first;
    return begin(r, BW_MSGPACK_NIL, "nil was expected", &first);
}

bool bw_msgpack_read_bool(bw_msgpack_reader *r, bool *out)
{
    uint8_t first;
    if (!begin(r, BW_MSGPACK_BOOL, "a boolean was expected", &first)) { return false; }
    *out = first == 0xc3;
    return true;
}

bool bw_msgpack_read_any_int(bw_msgpack_reader *r, uint64_t *out, bool *negative)
{
    uint8_t first;
    uint64_t v;
    if (!begin(r, BW_MSGPACK_INT, "an integer was expected", &first)) { return false; }
    if (first < 0x80 || first >= 0xe0) {
        v = (uint64_t)(int64_t)(int8_t)first;
        *negative = first >= 0xe0;
    } else {
        if (!number(r, first, &v)) { return false; }
        switch (first) {
        case 0xd0: v = (uint64_t)(int64_t)(int8_t)v; break;
        case 0xd1: v = (uint64_t)(int64_t)(int16_t)v; break;
        case 0xd2: v = (uint64_t)(int64_t)(int32_t)v; break;
        default: break;
        }
        *negative = first >= 0xd0 && (int64_t)v < 0;
    }
    *out = v;
    return true;
}

bool bw_msgpack_read_int(bw_msgpack_reader *r, int64_t min, int64_t max, int64_t *out)
{
    uint64_t v;
    bool negative;
    if (!bw_msgpack_read_any_int(r, &v, &negative)) { return false; }
    if ((!negative && v > INT64_MAX) || (int64_t)v < min || (int64_t)v > max) {
        return bw_msgpack_fail(r, "an integer is out of its range");
    }
    *out = (int64_t)v;
    return true;
}

bool bw_msgpack_read_uint(bw_msgpack_reader *r, uint64_t max, uint64_t *out)
{
    uint64_t v;
    bool negative;
    if (!bw_msgpack_read_any_int(r, &v, &negative)) { return false; }
    if (negative || v > max) { return bw_msgpack_fail(r, "an integer is out of its range"); }
    *out = v;
    return true;
}

bool bw_msgpack_read_float(bw_msgpack_reader *r, double *out)
{
    uint8_t first;
    uint64_t bits;
    if (!begin(r, BW_MSGPACK_FLOAT, "a floating-point number was expected", &first) || !number(r, first, &bits)) { return false; }
    if (first == 0xca) {
        uint32_t bits32 = (uint32_t)bits;
        float f;
        memcpy(&f, &bits32, sizeof f);
        *out = (double)f;
    } else {
        memcpy(out, &bits, sizeof *out);
    }
    return true;
}

/* A string or binary whose first byte has been read. */
static bool bytes_after(bw_msgpack_reader *r, uint8_t first, const uint8_t **out, size_t *len)
{
    uint64_t n = first & 0x1f;
    if (first >= 0xc0 && !number(r, first, &n)) { return false; }
    if (!take(r, (size_t)n, out)) { return false; }
    *len = (size_t)n;
    return true;
}

bool bw_msgpack_read_str(bw_msgpack_reader *r, const char **out, size_t *len)
{
    uint8_t first;
    const uint8_t *p;
    if (!begin(r, BW_MSGPACK_STR, "a string was expected", &first) || !bytes_after(r, first, &p, len)) { return false; }
    *out = (const char *)p;
    return true;
}

bool bw_msgpack_read_bin(bw_msgpack_reader *r, const uint8_t **out, size_t *len)
{
    uint8_t first;
    return begin(r, BW_MSGPACK_BIN, "a binary was expected", &first) && bytes_after(r, first, out, len);
}

bool bw_msgpack_read_bytes(bw_msgpack_reader *r, const uint8_t **out, size_t *len)
{
    uint8_t first;
    bw_msgpack_kind kind = bw_msgpack_peek(r) == BW_MSGPACK_STR ? BW_MSGPACK_STR : BW_MSGPACK_BIN;
    return begin(r, kind, "bytes were expected", &first) && bytes_after(r, first, out, len);
}

bool bw_msgpack_read_ext(bw_msgpack_reader *r, int8_t *type, const uint8_t **out, size_t *len)
{
    uint8_t first;
    uint64_t n;
    const uint8_t *p;
    if (!begin(r, BW_MSGPACK_EXT, "an extension was expected", &first)) { return false; }
    if (first >= 0xd4) {
        n = UINT64_C(1) << (first - 0xd4);
    } else if (!number(r, first, &n)) {
        return false;
    }
    if (!take(r, 1, &p) || !take(r, (size_t)n, out)) { return false; }
    *type = (int8_t)*p;
    *len = (size_t)n;
    return true;
}

/* The count of an array or map; per: the least bytes that one of its items takes. */
static bool count_after(bw_msgpack_reader *r, uint8_t first, size_t per, uint32_t *count)
{
    uint64_t n = first & 0x0f;
    if (first >= 0xc0 && !number(r, first, &n)) { return false; }
    if (n > bw_msgpack_left(r) / per) { return bw_msgpack_fail(r, "a count is larger than what is left can hold"); }
    *count = (uint32_t)n;
    return true;
}

bool bw_msgpack_read_array(bw_msgpack_reader *r, uint32_t *count)
{
    uint8_t first;
    return begin(r, BW_MSGPACK_ARRAY, "an array was expected", &first) && count_after(r, first, 1, count);
}

bool bw_msgpack_read_map(bw_msgpack_reader *r, uint32_t *pairs)
{
    uint8_t first;
    return begin(r, BW_MSGPACK_MAP, "a map was expected", &first) && count_after(r, first, 2, pairs);
}

/* One value without what is in it: *inside is how many values follow that belong to it. */
static bool skip_one(bw_msgpack_reader *r, uint64_t *inside)
{
    uint32_t count;
    uint64_t u;
    double d;
    bool b;
    int8_t type;
    size_t len;
    const uint8_t *p;
    *inside = 0;
    switch (bw_msgpack_peek(r)) {
    case BW_MSGPACK_NIL: return bw_msgpack_read_nil(r);
    case BW_MSGPACK_BOOL: return bw_msgpack_read_bool(r, &b);
    case BW_MSGPACK_INT: return bw_msgpack_read_any_int(r, &u, &b);
    case BW_MSGPACK_FLOAT: return bw_msgpack_read_float(r, &d);
    case BW_MSGPACK_STR:
    case BW_MSGPACK_BIN: return bw_msgpack_read_bytes(r, &p, &len);
    case BW_MSGPACK_EXT: return bw_msgpack_read_ext(r, &type, &p, &len);
    case BW_MSGPACK_ARRAY:
        if (!bw_msgpack_read_array(r, &count)) { return false; }
        *inside = count;
        return true;
    case BW_MSGPACK_MAP:
        if (!bw_msgpack_read_map(r, &count)) { return false; }
        *inside = 2 * (uint64_t)count;
        return true;
    case BW_MSGPACK_INVALID: return bw_msgpack_fail(r, "byte 0xc1 begins no value");
    case BW_MSGPACK_END: break;
    }
    return bw_msgpack_fail(r, "it ends too early");
}

bool bw_msgpack_skip(bw_msgpack_reader *r)
{
    uint64_t left[BW_MSGPACK_DEPTH_MAX + 1] = {1}; /* values still to skip at each depth */
    unsigned depth = 0;
    for (;;) {
        while (left[depth] == 0) {
            if (depth == 0) { return true; }
            depth--;
        }
        left[depth]--;
        uint64_t inside;
        if (!skip_one(r, &inside)) { return false; }
        if (inside == 0) { continue; }
        if (depth == BW_MSGPACK_DEPTH_MAX) { return bw_msgpack_fail(r, "it is nested too deeply"); }
        left[++depth] = inside;
    }
}
