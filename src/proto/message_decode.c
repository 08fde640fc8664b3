/* proto/message_decode.c: frames to structs, by the tables of message_fields.c.
 *
 * Invariants: no recursion; a list is allocated only after its count was judged by the bytes that are left and the least that one
 * item takes, and what a long one would take by them too, so that memory is at most four times the frame and a constant; strings and
 * binaries are views; a key that comes twice is refused (nothing can leak or be counted twice); what is unknown is skipped, at most
 * BW_MSGPACK_DEPTH_MAX deep. */
#include "proto/message_fields.h"

#include "base/err.h"
#include "proto/msgpack_reader.h"

#include <stdlib.h>

enum { LIST_BYTES_FREE = 262144 }; /* a list may take so much whatever its items say; about 4,000 of them */

static const char no_memory[] = "there is no memory for its list";

static bool read_integer(bw_msgpack_reader *r, const bw_field *f, uint8_t *at)
{
    int64_t v = 0;
    uint64_t u = 0;
    bool b = false, ok;
    switch ((bw_field_kind)f->kind) {
    case BW_FIELD_BOOL:
        ok = bw_msgpack_read_bool(r, &b);
        if (ok) { *(bool *)at = b; }
        return ok;
    case BW_FIELD_I8:
        ok = bw_msgpack_read_int(r, INT8_MIN, INT8_MAX, &v);
        if (ok) { *(int8_t *)at = (int8_t)v; }
        return ok;
    case BW_FIELD_I16:
        ok = bw_msgpack_read_int(r, INT16_MIN, INT16_MAX, &v);
        if (ok) { *(int16_t *)(void *)at = (int16_t)v; }
        return ok;
    case BW_FIELD_I32:
        ok = bw_msgpack_read_int(r, INT32_MIN, INT32_MAX, &v);
        if (ok) { *(int32_t *)(void *)at = (int32_t)v; }
        return ok;
    case BW_FIELD_I64:
        ok = bw_msgpack_read_int(r, INT64_MIN, INT64_MAX, &v);
        if (ok) { *(int64_t *)(void *)at = v; }
        return ok;
    case BW_FIELD_U32:
        ok = bw_msgpack_read_uint(r, UINT32_MAX, &u);
        if (ok) { *(uint32_t *)(void *)at = (uint32_t)u; }
        return ok;
    default: /* U64 */
        ok = bw_msgpack_read_uint(r, UINT64_MAX, &u);
        if (ok) { *(uint64_t *)(void *)at = u; }
        return ok;
    }
}

static bool read_scalar(bw_msgpack_reader *r, const bw_field *f, uint8_t *base)
{
    uint8_t *at = base + f->offset;
    const uint8_t *bytes;
    size_t len;
    switch ((bw_field_kind)f->kind) {
    case BW_FIELD_STR: {
        bw_str *s = (bw_str *)(void *)at;
        return bw_msgpack_read_str(r, &s->data, &s->len);
    }
    case BW_FIELD_BIN:
        if (!bw_msgpack_read_bytes(r, &bytes, &len)) { return false; }
        *(bw_str *)(void *)at = (bw_str){(const char *)bytes, len};
        return true;
    case BW_FIELD_BYTES16:
        if (!bw_msgpack_read_bytes(r, &bytes, &len)) { return false; }
        if (len != 16) { return bw_msgpack_fail(r, "a binary of 16 bytes was expected"); }
        memcpy(at, bytes, 16);
        return true;
    case BW_FIELD_DOC:
        bytes = r->at;
        if (!bw_msgpack_skip(r)) { return false; }
        *(const uint8_t **)(void *)at = bytes;
        *(size_t *)(void *)(base + f->count_offset) = (size_t)(r->at - bytes);
        return true;
    default: return read_integer(r, f, at);
    }
}

static bool read_configs(bw_msgpack_reader *r, bw_config_pair **out, size_t *out_count)
{
    uint32_t count;
    if (!bw_msgpack_read_map(r, &count)) { return false; }
    if (count > BW_CONFIGS_MAX) { return bw_msgpack_fail(r, "it has more than 1024 configuration entries"); }
    if (count == 0) { return true; }
    bw_config_pair *pairs = (bw_config_pair *)calloc(count, sizeof *pairs);
    if (!pairs) { return bw_msgpack_fail(r, no_memory); }
    *out = pairs; /* owned by the message from here on */
    for (uint32_t i = 0; i < count; i++) {
        if (!bw_msgpack_read_str(r, &pairs[i].name.data, &pairs[i].name.len)) { return false; }
        if (bw_msgpack_peek(r) == BW_MSGPACK_NIL) {
            bw_msgpack_read_nil(r);
        } else {
            if (!bw_msgpack_read_str(r, &pairs[i].value.data, &pairs[i].value.len)) { return false; }
            pairs[i].has_value = true;
        }
        *out_count = i + 1;
    }
    return true;
}

/* The field of a key; from: where to look first, as messages mostly have the table's order. */
static const bw_field *find_field(const bw_shape *s, const char *key, size_t len, unsigned from)
{
    for (unsigned n = 0; n < s->count; n++) {
        unsigned i = from + n < s->count ? from + n : from + n - s->count;
        const bw_field *f = &s->fields[i];
        if (f->key_len == len && memcmp(f->key, key, len) == 0) { return f; }
    }
    return NULL;
}

/* The next pair's field, its value not yet read; NULL with good r: it was unknown and is skipped. */
static const bw_field *next_field(bw_msgpack_reader *r, const bw_shape *s, uint32_t *seen, unsigned *from)
{
    const char *key;
    size_t len;
    if (!bw_msgpack_read_str(r, &key, &len)) { return NULL; }
    const bw_field *f = find_field(s, key, len, *from);
    if (!f) {
        bw_msgpack_skip(r);
        return NULL;
    }
    unsigned i = (unsigned)(f - s->fields);
    if (*seen & (1u << i)) {
        bw_msgpack_fail(r, "a key comes twice");
        return NULL;
    }
    *seen |= 1u << i;
    *from = i + 1 < s->count ? i + 1 : 0;
    return f;
}

static bool read_item(bw_msgpack_reader *r, const bw_shape *s, uint8_t *base)
{
    uint32_t pairs, seen = 0;
    unsigned from = 0;
    bw_shape_defaults(s, base);
    if (!bw_msgpack_read_map(r, &pairs)) { return false; }
    for (uint32_t i = 0; i < pairs; i++) {
        const bw_field *f = next_field(r, s, &seen, &from);
        if (f) { read_scalar(r, f, base); }
        if (r->bad) { return false; }
    }
    /* The first field of every item names it. */
    return (seen & 1u) != 0 || bw_msgpack_fail(r, "a list's item has no topic");
}

static bool read_list(bw_msgpack_reader *r, const bw_field *f, uint8_t *base)
{
    uint32_t count;
    if (!bw_msgpack_read_array(r, &count)) { return false; }
    if (count > BW_LIST_MAX || count > bw_msgpack_left(r) / f->item->min_bytes) {
        return bw_msgpack_fail(r, "a list's count is larger than what is left can hold");
    }
    if ((uint64_t)count * f->item->size > 4 * (uint64_t)bw_msgpack_left(r) + LIST_BYTES_FREE) {
        return bw_msgpack_fail(r, "a long list has items that say too little");
    }
    if (count == 0) { return true; }
    uint8_t *items = (uint8_t *)calloc(count, f->item->size);
    if (!items) { return bw_msgpack_fail(r, no_memory); }
    *(uint8_t **)(void *)(base + f->offset) = items; /* owned by the message from here on */
    for (uint32_t i = 0; i < count; i++) {
        if (!read_item(r, f->item, items + (size_t)i * f->item->size)) { return false; }
        *(size_t *)(void *)(base + f->count_offset) = (size_t)i + 1;
    }
    return true;
}

static bool read_header(bw_msgpack_reader *r, const bw_shape *s, uint8_t *base)
{
    uint32_t pairs, seen = 0;
    unsigned from = 0;
    if (bw_msgpack_left(r) == 0) { return true; } /* no header at all: all defaults */
    if (!bw_msgpack_read_map(r, &pairs)) { return false; }
    for (uint32_t i = 0; i < pairs; i++) {
        const bw_field *f = next_field(r, s, &seen, &from);
        if (f && f->kind == BW_FIELD_CONFIGS) {
            read_configs(r, (bw_config_pair **)(void *)(base + f->offset), (size_t *)(void *)(base + f->count_offset));
        } else if (f && f->kind == BW_FIELD_LIST) {
            read_list(r, f, base);
        } else if (f) {
            read_scalar(r, f, base);
        }
        if (r->bad) { return false; }
    }
    return bw_msgpack_left(r) == 0 || bw_msgpack_fail(r, "bytes follow the map");
}

static bw_err refuse(const bw_shape *s, const char *what, const bw_msgpack_reader *r)
{
    bw_err err = r->why == no_memory ? BW_ERR_NO_MEMORY : BW_ERR_PROTOCOL;
    return bw_fail(err, "%s %s: byte %zu of its header: %s", s->name, what, bw_msgpack_position(r), r->why);
}

bw_err bw_request_decode(const bw_frame *f, bw_request *out)
{
    bw_request_init(out, (bw_api_key)f->type);
    out->type = f->type;
    out->correlation = f->correlation;
    out->payload = f->payload;
    out->payload_len = f->payload_len;
    const bw_shape *s = bw_request_shape(f->type);
    if (!s) { return BW_OK; }
    bw_msgpack_reader r = bw_msgpack_over(f->header, f->header_len);
    if (!read_header(&r, s, (uint8_t *)out)) {
        bw_request_fini(out);
        return refuse(s, "request", &r);
    }
    return BW_OK;
}

bw_err bw_answer_decode(const bw_frame *f, bw_answer *out)
{
    bw_request to = {.type = f->type, .correlation = f->correlation};
    bw_answer_init(out, &to);
    out->flags = f->flags & (uint16_t)~BW_FRAME_ANSWER;
    out->payload = f->payload;
    out->payload_len = f->payload_len;
    const bw_shape *s = bw_answer_shape(f->type);
    if (!s) { s = bw_answer_shape(BW_API_CREDIT); }
    bw_msgpack_reader r = bw_msgpack_over(f->header, f->header_len);
    if (!read_header(&r, s, (uint8_t *)out)) {
        bw_answer_fini(out);
        return refuse(s, "answer", &r);
    }
    size_t left = out->payload_len;
    for (size_t i = 0; i < out->part_count; i++) {
        if (out->parts[i].size > left) {
            bw_answer_fini(out);
            return bw_fail(BW_ERR_PROTOCOL, "%s answer: part %zu claims more bytes than its payload has", s->name, i);
        }
        left -= out->parts[i].size;
    }
    return BW_OK;
}
