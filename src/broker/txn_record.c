/* broker/txn_record.c: records of the coordinator's log and stored states as bytes; the layout is in txn_state.h. */
#include "broker/txn_state.h"

#include <stdlib.h>

enum { VERSION = 1, PART_BYTES = 20, OFFSET_LEAST_BYTES = 46 };

/* ---- out; a failure is kept and told at the end ---- */

typedef struct writer {
    bw_buf *out;
    bw_err e;
} writer;

static void put(writer *w, const void *data, size_t len)
{
    if (!w->e && len) w->e = bw_buf_append(w->out, data, len);
}
static void put8(writer *w, uint8_t v) { put(w, &v, 1); }
static void put16(writer *w, uint16_t v)
{
    uint8_t b[2];
    bw_put_be16(b, v);
    put(w, b, 2);
}
static void put32(writer *w, uint32_t v)
{
    uint8_t b[4];
    bw_put_be32(b, v);
    put(w, b, 4);
}
static void put64(writer *w, uint64_t v)
{
    uint8_t b[8];
    bw_put_be64(b, v);
    put(w, b, 8);
}
static void put_str(writer *w, const char *s)
{
    size_t len = strlen(s) < UINT16_MAX ? strlen(s) : UINT16_MAX;
    put16(w, (uint16_t)len);
    put(w, s, len);
}

static void put_parts(writer *w, const bw_txn_part *parts, uint32_t n, bool ends)
{
    put32(w, n);
    for (uint32_t i = 0; i < n; i++) {
        put(w, parts[i].topic.b, 16);
        put32(w, parts[i].partition);
        if (ends) put64(w, (uint64_t)parts[i].end);
    }
}

static void put_offsets(writer *w, const bw_txn_offset *offsets, uint32_t n)
{
    put32(w, n);
    for (uint32_t i = 0; i < n; i++) {
        const bw_txn_offset *o = &offsets[i];
        put_str(w, o->group);
        put_str(w, o->topic);
        put(w, o->topic_id.b, 16);
        put32(w, o->partition);
        put64(w, (uint64_t)o->offset);
        put32(w, (uint32_t)o->leader_epoch);
        put_str(w, o->metadata);
        put_str(w, o->member);
        put_str(w, o->instance);
        put32(w, (uint32_t)o->member_epoch);
    }
}

bw_err bw_txn_record_encode(const bw_txn_record *r, bw_buf *out)
{
    writer w = {out, BW_OK};
    put8(&w, VERSION);
    put8(&w, (uint8_t)r->kind);
    put64(&w, (uint64_t)r->producer_id);
    put16(&w, (uint16_t)r->epoch);
    put64(&w, (uint64_t)r->at_ms);
    if (r->kind == BW_TXN_PREPARE || r->kind == BW_TXN_COMPLETE) put8(&w, (uint8_t)(r->commit | r->recoverable << 1));
    if (r->kind == BW_TXN_ADD || r->kind == BW_TXN_PREPARE) put_parts(&w, r->parts, r->part_count, r->kind == BW_TXN_PREPARE);
    if (r->kind == BW_TXN_OFFSETS) put_offsets(&w, r->offsets, r->offset_count);
    return w.e;
}

bw_err bw_txn_state_encode(const bw_txn_state *s, bw_buf *out)
{
    writer w = {out, BW_OK};
    put8(&w, VERSION);
    put64(&w, (uint64_t)s->producer_id);
    put16(&w, (uint16_t)s->epoch);
    put16(&w, (uint16_t)s->epoch_before);
    put32(&w, (uint32_t)s->timeout_ms);
    put8(&w, (uint8_t)s->phase);
    put64(&w, (uint64_t)s->began_ms);
    put64(&w, (uint64_t)s->changed_ms);
    put64(&w, (uint64_t)s->log_offset);
    put64(&w, s->serial);
    put_parts(&w, s->parts, s->part_count, true);
    put_offsets(&w, s->offsets, s->offset_count);
    return w.e;
}

/* ---- in ---- */

static bw_err corrupt(const char *what) { return bw_fail(BW_ERR_CORRUPT, "a record of a transaction: %s", what); }

static bw_err take_parts(bw_cursor *c, bool ends, bw_txn_part **out, uint32_t *count)
{
    uint32_t n = bw_cursor_be32(c);
    if (c->bad || n > BW_TXN_PARTS_MAX || n > bw_cursor_left(c) / PART_BYTES) return corrupt("its count of partitions is not to be believed");
    if (n == 0) return BW_OK;
    bw_txn_part *parts = calloc(n, sizeof *parts);
    if (!parts) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a transaction's partitions");
    *out = parts;
    *count = n;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *id = bw_cursor_take(c, 16);
        if (id) memcpy(parts[i].topic.b, id, 16);
        parts[i].partition = bw_cursor_be32(c);
        parts[i].end = ends ? (int64_t)bw_cursor_be64(c) : -1;
    }
    return c->bad ? corrupt("it is cut in its partitions") : BW_OK;
}

static char *take_str(bw_cursor *c)
{
    size_t len = bw_cursor_be16(c);
    const uint8_t *p = bw_cursor_take(c, len);
    return p ? bw_text_copy(p, len) : NULL;
}

static bw_err take_offsets(bw_cursor *c, bw_txn_offset **out, uint32_t *count)
{
    uint32_t n = bw_cursor_be32(c);
    if (c->bad || n > BW_TXN_OFFSETS_MAX || n > bw_cursor_left(c) / OFFSET_LEAST_BYTES)
        return corrupt("its count of offsets is not to be believed");
    if (n == 0) return BW_OK;
    bw_txn_offset *list = calloc(n, sizeof *list);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a transaction's offsets");
    *out = list;
    *count = n;
    for (uint32_t i = 0; i < n; i++) {
        bw_txn_offset *o = &list[i];
        o->group = take_str(c);
        o->topic = take_str(c);
        const uint8_t *id = bw_cursor_take(c, 16);
        if (id) memcpy(o->topic_id.b, id, 16);
        o->partition = bw_cursor_be32(c);
        o->offset = (int64_t)bw_cursor_be64(c);
        o->leader_epoch = (int32_t)bw_cursor_be32(c);
        o->metadata = take_str(c);
        o->member = take_str(c);
        o->instance = take_str(c);
        o->member_epoch = (int32_t)bw_cursor_be32(c);
        if (c->bad) return corrupt("it is cut in its offsets");
        if (!o->group || !o->topic || !o->metadata || !o->member || !o->instance)
            return bw_fail(BW_ERR_NO_MEMORY, "no memory for a transaction's offsets");
    }
    return BW_OK;
}

static bw_err check_version(bw_cursor *c)
{
    uint8_t version = bw_cursor_u8(c);
    if (c->bad || version == 0) return corrupt("it has no version");
    if (version <= VERSION) return BW_OK;
    return bw_fail(BW_ERR_NEWER_FORMAT, "a record of a transaction has version %u, this daemon knows %d", version, VERSION);
}

bw_err bw_txn_record_decode(const void *data, size_t len, bw_txn_record *out)
{
    bw_cursor c = bw_cursor_over(data, len);
    memset(out, 0, sizeof *out);
    bw_err e = check_version(&c);
    if (e) return e;
    uint8_t kind = bw_cursor_u8(&c);
    out->kind = (bw_txn_kind)kind;
    out->producer_id = (int64_t)bw_cursor_be64(&c);
    out->epoch = (int16_t)bw_cursor_be16(&c);
    out->at_ms = (int64_t)bw_cursor_be64(&c);
    if (c.bad || kind < BW_TXN_ADD || kind > BW_TXN_COMPLETE) return corrupt("it is cut, or of no known kind");
    if (kind == BW_TXN_PREPARE || kind == BW_TXN_COMPLETE) {
        uint8_t flags = bw_cursor_u8(&c);
        out->commit = flags & 1;
        out->recoverable = flags & 2;
    }
    if (kind == BW_TXN_ADD || kind == BW_TXN_PREPARE) e = take_parts(&c, kind == BW_TXN_PREPARE, &out->parts, &out->part_count);
    if (kind == BW_TXN_OFFSETS) e = take_offsets(&c, &out->offsets, &out->offset_count);
    if (!e && (c.bad || bw_cursor_left(&c))) e = corrupt("its length is not that of its contents");
    return e;
}

bw_err bw_txn_state_decode(const void *data, size_t len, bw_txn_state *out)
{
    bw_cursor c = bw_cursor_over(data, len);
    memset(out, 0, sizeof *out);
    bw_err e = check_version(&c);
    if (e) return e;
    out->producer_id = (int64_t)bw_cursor_be64(&c);
    out->epoch = (int16_t)bw_cursor_be16(&c);
    out->epoch_before = (int16_t)bw_cursor_be16(&c);
    out->timeout_ms = (int32_t)bw_cursor_be32(&c);
    uint8_t phase = bw_cursor_u8(&c);
    out->phase = (bw_txn_phase)phase;
    out->began_ms = (int64_t)bw_cursor_be64(&c);
    out->changed_ms = (int64_t)bw_cursor_be64(&c);
    out->log_offset = (int64_t)bw_cursor_be64(&c);
    out->serial = bw_cursor_be64(&c);
    if (c.bad || phase > BW_TXN_DEAD) return corrupt("a stored state is cut, or of no known phase");
    e = take_parts(&c, true, &out->parts, &out->part_count);
    out->part_cap = out->part_count;
    if (!e) e = take_offsets(&c, &out->offsets, &out->offset_count);
    out->offset_cap = out->offset_count;
    if (!e && (c.bad || bw_cursor_left(&c))) e = corrupt("a stored state is longer than what is in it");
    return e;
}
