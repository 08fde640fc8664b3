/* broker/queue_codec.c: the state of a queue group's partition, as bytes.
 *
 *   u8 1 · be64 start · be64 delayed records that are stored beside it · be32 leader epoch · runs up to the end
 *   run: varint length > 0 · varint code
 *   code 0: settled; else 1 + (deliveries * 4 + reason): reason 0: available, else dying (bw_queue_reason)
 * Varints are unsigned, seven bits a byte, the low ones first. Late records have entries of their own (queue_store.c). */
#include "broker/queue_state.h"

#include "base/err.h"

#include <stdlib.h>

#define VERSION 1
#define HEAD_BYTES 21u
#define RUN_MAX 10u

static uint8_t *put(uint8_t *p, uint32_t v)
{
    for (; v >= 0x80; v >>= 7) *p++ = (uint8_t)(v | 0x80);
    *p++ = (uint8_t)v;
    return p;
}

static uint32_t get(bw_cursor *c)
{
    uint32_t v = 0;
    for (unsigned shift = 0; shift < 32; shift += 7) {
        uint8_t b = bw_cursor_u8(c);
        if (shift == 28 && b > 0x0f) break;
        v |= (uint32_t)(b & 0x7f) << shift;
        if (b < 0x80) return v;
    }
    c->bad = true;
    return 0;
}

static uint32_t code_of(const bw_queue_entry *e)
{
    if (e->mark == BW_QUEUE_SETTLED) return 0;
    return 1 + e->deliveries * 4u + (e->mark == BW_QUEUE_DYING ? e->reason : 0u);
}

bw_err bw_queue_state_encode(const bw_queue_state *s, uint64_t put_off, bw_buf *out)
{
    bw_err e = bw_buf_reserve(out, HEAD_BYTES);
    if (e) return e;
    uint8_t *p = out->data + out->len;
    p[0] = VERSION;
    bw_put_be64(p + 1, (uint64_t)s->start);
    bw_put_be64(p + 9, put_off);
    bw_put_be32(p + 17, s->leader_epoch);
    out->len += HEAD_BYTES;
    for (int64_t o = s->start; o < s->end;) {
        uint32_t code = code_of(&s->ring[(uint64_t)o & (s->cap - 1)]), length = 1;
        while (o + length < s->end && code_of(&s->ring[(uint64_t)(o + length) & (s->cap - 1)]) == code) length++;
        if ((e = bw_buf_reserve(out, RUN_MAX))) return e;
        p = put(put(out->data + out->len, length), code);
        out->len = (size_t)(p - out->data);
        o += length;
    }
    return BW_OK;
}

static bw_err decode_run(bw_queue_state *s, uint32_t length, uint32_t code)
{
    if (code == 0) return bw_queue_state_skip(s, s->end + length);
    uint32_t deliveries = (code - 1) / 4, reason = (code - 1) % 4;
    if (deliveries > UINT16_MAX || reason > BW_QUEUE_REJECTED) return BW_ERR_CORRUPT;
    for (uint32_t i = 0; i < length; i++) {
        int64_t offset = s->end;
        bw_err e = bw_queue_state_admit(s, offset);
        if (e) return e;
        bw_queue_entry *entry = bw_queue_state_find(s, offset, NULL);
        entry->deliveries = (uint16_t)deliveries;
        if (!reason) continue;
        entry->mark = BW_QUEUE_DYING;
        entry->reason = (uint8_t)reason & 0xf;
        s->available--;
        s->dying++;
        s->untaken++;
    }
    return BW_OK;
}

bw_err bw_queue_state_decode(const void *data, size_t len, bw_queue_state *out, uint64_t *put_off)
{
    bw_cursor c = bw_cursor_over(data, len);
    uint8_t version = bw_cursor_u8(&c);
    if (!c.bad && version > VERSION)
        return bw_fail(BW_ERR_NEWER_FORMAT, "a queue's state has layout %u; this version knows %d: use a newer daemon", version, VERSION);
    uint64_t start = bw_cursor_be64(&c);
    *put_off = bw_cursor_be64(&c);
    uint32_t epoch = bw_cursor_be32(&c);
    if (c.bad || version != VERSION || start > INT64_MAX - BW_QUEUE_SPAN_MAX)
        return bw_fail(BW_ERR_CORRUPT, "a queue's state of %zu bytes is none", len);
    bw_queue_state_init(out, (int64_t)start);
    out->leader_epoch = epoch;
    bw_err e = BW_OK;
    uint64_t span = 0;
    while (!e && bw_cursor_left(&c)) {
        uint32_t length = get(&c), code = get(&c);
        span += length;
        if (c.bad || !length || span > BW_QUEUE_SPAN_MAX) e = BW_ERR_CORRUPT;
        else e = decode_run(out, length, code);
    }
    if (!e) return BW_OK;
    bw_queue_state_fini(out);
    return e == BW_ERR_NO_MEMORY ? e : bw_fail(BW_ERR_CORRUPT, "a queue's state of %zu bytes has a run that cannot be", len);
}
