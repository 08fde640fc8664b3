/* broker/vector.c: see vector.h. */
#include "broker/vector.h"

#include "base/err.h"

#include <stdio.h>
#include <stdlib.h>

size_t bw_mark_print(const bw_mark *m, char out[BW_MARK_TEXT_MAX])
{
    char origin[23], topic[23];
    bw_uuid_base64(&m->log.origin, origin);
    bw_uuid_base64(&m->log.topic, topic);
    return (size_t)snprintf(out, BW_MARK_TEXT_MAX, "%s.%llx/%s.%d@%lld", origin, (unsigned long long)m->log.incarnation, topic, m->log.partition,
                            (long long)m->offset);
}

static bool take_number(const char **at, int base, uint64_t most, uint64_t *out)
{
    char *end;
    if (**at == '-' || **at == '+' || **at == ' ' || **at == 0) return false;
    unsigned long long v = strtoull(*at, &end, base);
    if (end == *at || end - *at > 20 || v > most) return false;
    *at = end;
    *out = v;
    return true;
}

static bool take_uuid(const char **at, char behind, bw_uuid *out)
{
    char text[23];
    if (strlen(*at) < 23 || (*at)[22] != behind) return false;
    memcpy(text, *at, 22);
    text[22] = 0;
    *at += 23;
    return bw_uuid_from_base64(text, out);
}

bool bw_mark_parse(const void *data, size_t len, bw_mark *out)
{
    char text[BW_MARK_TEXT_MAX];
    const char *at = text;
    uint64_t n;
    if (len >= sizeof text || (len && memchr(data, 0, len))) return false;
    if (len) memcpy(text, data, len);
    text[len] = 0;
    if (!take_uuid(&at, '.', &out->log.origin) || !take_number(&at, 16, UINT64_MAX, &out->log.incarnation) || *at++ != '/') return false;
    if (!take_uuid(&at, '.', &out->log.topic) || !take_number(&at, 10, INT32_MAX, &n) || *at++ != '@') return false;
    out->log.partition = (int32_t)n;
    if (!take_number(&at, 10, INT64_MAX - 1, &n) || *at) return false;
    out->offset = (int64_t)n;
    return true;
}

static bool same_log(const bw_log_id *a, const bw_log_id *b)
{
    return a->partition == b->partition && a->incarnation == b->incarnation && bw_uuid_equal(&a->topic, &b->topic) &&
           bw_uuid_equal(&a->origin, &b->origin);
}

static bw_vector_entry *find(bw_vector *v, bw_vector_kind kind, const bw_log_id *log)
{
    if (v->last < v->count && v->items[v->last].kind == kind && same_log(&v->items[v->last].log, log)) return &v->items[v->last];
    for (size_t i = 0; i < v->count; i++) {
        if (v->items[i].kind != kind || !same_log(&v->items[i].log, log)) continue;
        v->last = i;
        return &v->items[i];
    }
    return NULL;
}

int64_t bw_vector_next(bw_vector *v, bw_vector_kind kind, const bw_log_id *log)
{
    const bw_vector_entry *e = find(v, kind, log);
    return e ? e->next : 0;
}

bw_err bw_vector_raise(bw_vector *v, bw_vector_kind kind, const bw_log_id *log, int64_t next)
{
    bw_vector_entry *e = find(v, kind, log);
    if (e) {
        if (next > e->next) e->next = next;
        return BW_OK;
    }
    if (v->count >= BW_VECTOR_MAX) return bw_fail(BW_ERR_LIMIT_REACHED, "a merged partition takes records of at most %u logs", BW_VECTOR_MAX);
    if (v->count == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 8;
        bw_vector_entry *grown = realloc(v->items, cap * sizeof *grown);
        if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a version vector");
        v->items = grown;
        v->cap = cap;
    }
    v->last = v->count;
    v->items[v->count++] = (bw_vector_entry){*log, kind, next};
    return BW_OK;
}

bw_err bw_vector_copy(const bw_vector *from, bw_vector *to)
{
    *to = (bw_vector){.valid = from->valid};
    if (!from->count) return BW_OK;
    to->items = malloc(from->count * sizeof *to->items);
    if (!to->items) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a version vector");
    memcpy(to->items, from->items, from->count * sizeof *to->items);
    to->count = to->cap = from->count;
    return BW_OK;
}

void bw_vector_free(bw_vector *v)
{
    free(v->items);
    *v = (bw_vector){0};
}

bw_err bw_vector_encode(const bw_vector *v, bw_buf *out)
{
    bw_err e = bw_buf_reserve(out, 13 + v->count * BW_VECTOR_ENTRY_BYTES);
    if (e) return e;
    uint8_t *p = out->data + out->len;
    *p = 1;
    bw_put_be64(p + 1, (uint64_t)v->valid);
    bw_put_be32(p + 9, (uint32_t)v->count);
    p += 13;
    for (size_t i = 0; i < v->count; i++, p += BW_VECTOR_ENTRY_BYTES) {
        const bw_vector_entry *x = &v->items[i];
        p[0] = (uint8_t)x->kind;
        memcpy(p + 1, x->log.origin.b, 16);
        bw_put_be64(p + 17, x->log.incarnation);
        memcpy(p + 25, x->log.topic.b, 16);
        bw_put_be32(p + 41, (uint32_t)x->log.partition);
        bw_put_be64(p + 45, (uint64_t)x->next);
    }
    out->len += 13 + v->count * BW_VECTOR_ENTRY_BYTES;
    return BW_OK;
}

static bw_err decode_entry(const uint8_t *p, bw_vector *out)
{
    bw_log_id log;
    memcpy(log.origin.b, p + 1, 16);
    log.incarnation = bw_get_be64(p + 17);
    memcpy(log.topic.b, p + 25, 16);
    log.partition = (int32_t)bw_get_be32(p + 41);
    int64_t next = (int64_t)bw_get_be64(p + 45);
    if (p[0] > BW_VECTOR_LINK || log.partition < 0 || next < 0) return bw_fail(BW_ERR_CORRUPT, "an entry of a version vector is none");
    return bw_vector_raise(out, (bw_vector_kind)p[0], &log, next);
}

bw_err bw_vector_decode(const void *data, size_t len, bw_vector *out)
{
    bw_cursor c = bw_cursor_over(data, len);
    *out = (bw_vector){0};
    uint8_t version = bw_cursor_u8(&c);
    int64_t valid = (int64_t)bw_cursor_be64(&c);
    uint32_t count = bw_cursor_be32(&c);
    if (!c.bad && version > 1) return bw_fail(BW_ERR_NEWER_FORMAT, "a version vector of layout %u, this release knows 1", version);
    if (c.bad || version != 1 || valid < 0 || bw_cursor_left(&c) != (size_t)count * BW_VECTOR_ENTRY_BYTES)
        return bw_fail(BW_ERR_CORRUPT, "a version vector of %zu bytes is not whole", len);
    bw_err e = BW_OK;
    for (uint32_t i = 0; !e && i < count; i++) e = decode_entry(bw_cursor_take(&c, BW_VECTOR_ENTRY_BYTES), out);
    out->valid = valid;
    if (e) bw_vector_free(out);
    return e;
}
