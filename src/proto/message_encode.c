/* proto/message_encode.c: structs to frames, by the tables of message_fields.c; the bytes by msgpack-c's header-only packer.
 *
 * Invariant: on an error out is as it was. A field that has its default is left out. */
#include "proto/message_fields.h"

#include "base/err.h"
#include "proto/msgpack_reader.h"

#include <msgpack/pack.h>

static int append(void *data, const char *bytes, size_t len)
{
    return bw_buf_append((bw_buf *)data, bytes, len) == BW_OK ? 0 : -1;
}

static int64_t integer_at(const bw_field *f, const uint8_t *at)
{
    switch ((bw_field_kind)f->kind) {
    case BW_FIELD_BOOL: return *(const bool *)at;
    case BW_FIELD_I8: return *(const int8_t *)at;
    case BW_FIELD_I16: return *(const int16_t *)(const void *)at;
    case BW_FIELD_I32: return *(const int32_t *)(const void *)at;
    case BW_FIELD_I64: return *(const int64_t *)(const void *)at;
    case BW_FIELD_U32: return *(const uint32_t *)(const void *)at;
    default: return (int64_t)*(const uint64_t *)(const void *)at; /* U64 */
    }
}

static bool is_default(const bw_field *f, const uint8_t *base)
{
    static const uint8_t zero[16];
    const uint8_t *at = base + f->offset;
    switch ((bw_field_kind)f->kind) {
    case BW_FIELD_STR:
    case BW_FIELD_BIN: return ((const bw_str *)(const void *)at)->len == 0;
    case BW_FIELD_BYTES16: return memcmp(at, zero, sizeof zero) == 0;
    case BW_FIELD_DOC:
    case BW_FIELD_CONFIGS:
    case BW_FIELD_LIST: return *(const size_t *)(const void *)(base + f->count_offset) == 0;
    default: return integer_at(f, at) == f->def;
    }
}

/* Which fields are sent: a bit each. */
static uint32_t choose(const bw_shape *s, const uint8_t *base, bool error, unsigned *count)
{
    uint32_t chosen = 0;
    for (unsigned i = 0; i < s->count; i++) {
        if ((error && !s->fields[i].on_error) || is_default(&s->fields[i], base)) { continue; }
        chosen |= 1u << i;
        ++*count;
    }
    return chosen;
}

static int pack_str(msgpack_packer *pk, bw_str s)
{
    return msgpack_pack_str(pk, s.len) | (s.len ? msgpack_pack_str_body(pk, s.data, s.len) : 0);
}

static int pack_bin(msgpack_packer *pk, bw_str s)
{
    return msgpack_pack_bin(pk, s.len) | (s.len ? msgpack_pack_bin_body(pk, s.data, s.len) : 0);
}

static int pack_configs(msgpack_packer *pk, const bw_config_pair *pairs, size_t count)
{
    int bad = msgpack_pack_map(pk, count);
    for (size_t i = 0; i < count; i++) {
        bad |= pack_str(pk, pairs[i].name);
        bad |= pairs[i].has_value ? pack_str(pk, pairs[i].value) : msgpack_pack_nil(pk);
    }
    return bad;
}

static int pack_scalar(msgpack_packer *pk, const bw_field *f, const uint8_t *base)
{
    const uint8_t *at = base + f->offset;
    switch ((bw_field_kind)f->kind) {
    case BW_FIELD_BOOL: return *(const bool *)at ? msgpack_pack_true(pk) : msgpack_pack_false(pk);
    case BW_FIELD_U64: return msgpack_pack_uint64(pk, *(const uint64_t *)(const void *)at);
    case BW_FIELD_STR: return pack_str(pk, *(const bw_str *)(const void *)at);
    case BW_FIELD_BIN: return pack_bin(pk, *(const bw_str *)(const void *)at);
    case BW_FIELD_BYTES16: return msgpack_pack_bin(pk, 16) | msgpack_pack_bin_body(pk, at, 16);
    case BW_FIELD_DOC:
        return append(pk->data, *(const char *const *)(const void *)at, *(const size_t *)(const void *)(base + f->count_offset));
    default: return msgpack_pack_int64(pk, integer_at(f, at));
    }
}

static int pack_key(msgpack_packer *pk, const bw_field *f)
{
    return msgpack_pack_str(pk, f->key_len) | msgpack_pack_str_body(pk, f->key, f->key_len);
}

/* An item of a list: scalars only, so that there is no recursion. */
static int pack_item(msgpack_packer *pk, const bw_shape *s, const uint8_t *base)
{
    unsigned count = 0;
    uint32_t chosen = choose(s, base, false, &count);
    int bad = msgpack_pack_map(pk, count);
    for (unsigned i = 0; i < s->count; i++) {
        if (chosen & (1u << i)) { bad |= pack_key(pk, &s->fields[i]) | pack_scalar(pk, &s->fields[i], base); }
    }
    return bad;
}

static int pack_field(msgpack_packer *pk, const bw_field *f, const uint8_t *base)
{
    int bad = pack_key(pk, f);
    if (f->kind != BW_FIELD_CONFIGS && f->kind != BW_FIELD_LIST) { return bad | pack_scalar(pk, f, base); }
    const void *items = *(const void *const *)(const void *)(base + f->offset);
    size_t count = *(const size_t *)(const void *)(base + f->count_offset);
    if (f->kind == BW_FIELD_CONFIGS) { return bad | pack_configs(pk, (const bw_config_pair *)items, count); }
    bad |= msgpack_pack_array(pk, count);
    for (size_t i = 0; i < count; i++) { bad |= pack_item(pk, f->item, (const uint8_t *)items + i * f->item->size); }
    return bad;
}

static int pack_header(bw_buf *out, const bw_shape *s, const void *base, bool error)
{
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, append);
    unsigned count = 0;
    uint32_t chosen = choose(s, (const uint8_t *)base, error, &count);
    int bad = msgpack_pack_map(&pk, count);
    for (unsigned i = 0; i < s->count; i++) {
        if (chosen & (1u << i)) { bad |= pack_field(&pk, &s->fields[i], (const uint8_t *)base); }
    }
    return bad;
}

/* Everything of a frame but its payload; header_done and end follow. */
typedef struct frame_plan {
    uint16_t type, flags;
    uint32_t correlation;
    const bw_shape *shape;
    const void *base;
    bool error;
    const uint8_t *payload;
    size_t payload_len;
} frame_plan;

static bw_err encode(const frame_plan *p, bw_buf *out, bool payload_elsewhere)
{
    size_t mark, before = out->len;
    bw_err err = bw_frame_begin(out, p->type, p->flags, p->correlation, &mark);
    if (err != BW_OK) { return err; }
    if (pack_header(out, p->shape, p->base, p->error) != 0) {
        err = bw_fail(BW_ERR_NO_MEMORY, "no memory to encode a %s message", p->shape->name);
        goto undo;
    }
    bw_frame_header_done(out, mark);
    if (out->len - mark + p->payload_len > UINT32_MAX) {
        err = bw_fail(BW_ERR_RECORD_TOO_LARGE, "%s message of over 4 GiB: send less at once", p->shape->name);
        goto undo;
    }
    if (!payload_elsewhere && p->payload_len > 0) {
        err = bw_buf_append(out, p->payload, p->payload_len);
        if (err != BW_OK) { goto undo; }
    }
    bw_frame_end(out, mark, payload_elsewhere ? p->payload_len : 0);
    return BW_OK;
undo:
    out->len = before;
    return err;
}

bw_err bw_request_encode(const bw_request *r, bw_buf *out, bool payload_elsewhere)
{
    const bw_shape *s = bw_request_shape(r->type);
    if (!s || bw_api_is_push(r->type)) { return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no request of type %u", r->type); }
    frame_plan p = {r->type, 0, r->correlation, s, r, false, r->payload, r->payload_len};
    return encode(&p, out, payload_elsewhere);
}

bw_err bw_answer_encode(const bw_answer *a, bw_buf *out, bool payload_elsewhere)
{
    /* An answer to a request of unknown type carries an error and nothing else: the shape of CREDIT, which has just that. */
    const bw_shape *s = bw_answer_shape(a->type);
    if (!s) { s = bw_answer_shape(BW_API_CREDIT); }
    if (a->error == BW_OK && a->doc_len > 0) {
        bw_msgpack_reader r = bw_msgpack_over(a->doc, a->doc_len);
        if (!bw_msgpack_skip(&r) || bw_msgpack_left(&r) > 0) {
            return bw_fail(BW_ERR_INTERNAL, "%s answer: its document is not one msgpack value: %s", s->name, r.why ? r.why : "bytes follow it");
        }
    }
    bool error = a->error != BW_OK;
    uint16_t flags = (uint16_t)((a->flags & ~BW_FRAME_ANSWER) | (bw_api_is_push(a->type) ? 0u : (unsigned)BW_FRAME_ANSWER));
    frame_plan p = {a->type, flags, a->correlation, s, a, error, error ? NULL : a->payload, error ? 0 : a->payload_len};
    return encode(&p, out, payload_elsewhere);
}
