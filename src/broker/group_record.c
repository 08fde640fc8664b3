/* broker/group_record.c: what a restarted daemon must know of a group, and the group made from it again.
 *
 * Big-endian. str: u16 length and bytes; blob: u32 length and bytes.
 *   group   u8 version (1), u8 kind, u8 kind is fixed, u8 state, u8 assignor, i32 epoch, str protocol type, str protocol, str leader
 *   member  u8 version (1), str id, str instance, str client, str host, i64 pid, u64 start, 16 boot, i32 session, i32 rebalance, i32 lease,
 *           i32 epoch, blob subscription, blob assignment, u32 protocols × (str name, blob metadata),
 *           u32 topics × (str name, 16 id, u32 partitions × (u32 partition, i32 since, i32 revoked))
 * The partitions are those that the member owns, the ones that it was told to give up included: until it has, nobody else may have them,
 * across a restart too. Decoding is bounded by the bytes that are there. */
#include "broker/group_core.h"

#include "base/bytes.h"

#define VERSION 1u
#define PART_BYTES 12u

/* ---- out ---- */

static bw_err put(bw_buf *b, const void *data, size_t len) { return bw_buf_append(b, data, len); }

static bw_err put8(bw_buf *b, unsigned v)
{
    uint8_t byte = (uint8_t)v;
    return put(b, &byte, 1);
}

static bw_err put32(bw_buf *b, uint32_t v)
{
    uint8_t bytes[4];
    bw_put_be32(bytes, v);
    return put(b, bytes, 4);
}

static bw_err put64(bw_buf *b, uint64_t v)
{
    uint8_t bytes[8];
    bw_put_be64(bytes, v);
    return put(b, bytes, 8);
}

static bw_err put_str(bw_buf *b, const char *s)
{
    uint8_t bytes[2];
    size_t len = s ? strlen(s) : 0;
    if (len > UINT16_MAX) len = UINT16_MAX;
    bw_put_be16(bytes, (uint16_t)len);
    bw_err e = put(b, bytes, 2);
    return e || !len ? e : put(b, s, len);
}

static bw_err put_blob(bw_buf *b, const void *data, size_t len)
{
    bw_err e = put32(b, (uint32_t)len);
    return e || !len ? e : put(b, data, len);
}

bw_err bw_group_encode(const bw_group *g, bw_buf *out)
{
    bw_err e = put8(out, VERSION);
    if (!e) e = put8(out, g->kind);
    if (!e) e = put8(out, g->kind_fixed);
    if (!e) e = put8(out, g->state);
    if (!e) e = put8(out, g->assignor);
    if (!e) e = put32(out, (uint32_t)g->epoch);
    if (!e) e = put_str(out, g->protocol_type);
    if (!e) e = put_str(out, g->protocol);
    if (!e) e = put_str(out, g->leader);
    return e;
}

static int by_place(const void *a, const void *b)
{
    const bw_group_part *x = *(bw_group_part *const *)a, *y = *(bw_group_part *const *)b;
    if (x->topic != y->topic) return strcmp(x->topic->name, y->topic->name);
    return x < y ? -1 : x > y;
}

static bw_err put_parts(const bw_member *m, bw_buf *out)
{
    const bw_group_part **list = malloc(((size_t)m->part_count + 1) * sizeof *list);
    if (!list) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the record of member %s", m->id);
    uint32_t n = 0, topics = 0;
    for (const bw_group_part *p = m->parts; p; p = p->next) list[n++] = p;
    qsort(list, n, sizeof *list, by_place);
    for (uint32_t i = 0; i < n; i++) topics += i == 0 || list[i]->topic != list[i - 1]->topic;
    bw_err e = put32(out, topics);
    for (uint32_t i = 0; !e && i < n; i++) {
        const bw_group_topic *t = list[i]->topic;
        if (i == 0 || t != list[i - 1]->topic) {
            uint32_t run = i;
            while (run < n && list[run]->topic == t) run++;
            e = put_str(out, t->name);
            if (!e) e = put(out, t->id.b, sizeof t->id.b);
            if (!e) e = put32(out, run - i);
        }
        if (!e) e = put32(out, (uint32_t)(list[i] - t->parts));
        if (!e) e = put32(out, (uint32_t)list[i]->since);
        if (!e) e = put32(out, (uint32_t)list[i]->revoked);
    }
    free(list);
    return e;
}

bw_err bw_member_encode(const bw_group *g, const bw_member *m, bw_buf *out)
{
    (void)g;
    bw_err e = put8(out, VERSION);
    if (!e) e = put_str(out, m->id);
    if (!e) e = put_str(out, m->instance);
    if (!e) e = put_str(out, m->client);
    if (!e) e = put_str(out, m->host);
    if (!e) e = put64(out, (uint64_t)m->process.pid);
    if (!e) e = put64(out, m->process.start_ticks);
    if (!e) e = put(out, m->process.boot, sizeof m->process.boot);
    if (!e) e = put32(out, (uint32_t)m->session_ms);
    if (!e) e = put32(out, (uint32_t)m->rebalance_ms);
    if (!e) e = put32(out, (uint32_t)m->lease_ms);
    if (!e) e = put32(out, (uint32_t)m->epoch);
    if (!e) e = put_blob(out, m->subscription.data, m->subscription.len);
    if (!e) e = put_blob(out, m->assignment.data, m->assignment.len);
    if (!e) e = put32(out, (uint32_t)m->protocol_count);
    for (size_t i = 0; !e && i < m->protocol_count; i++) {
        e = put_str(out, m->protocols[i].name);
        if (!e) e = put_blob(out, m->protocols[i].metadata.data, m->protocols[i].metadata.len);
    }
    return e ? e : put_parts(m, out);
}

/* ---- in ---- */

static bw_str take_bytes(bw_cursor *c, size_t len)
{
    const uint8_t *p = bw_cursor_take(c, len);
    return (bw_str){(const char *)p, p ? len : 0};
}
static bw_str take_str(bw_cursor *c) { return take_bytes(c, bw_cursor_be16(c)); }
static bw_str take_blob(bw_cursor *c) { return take_bytes(c, bw_cursor_be32(c)); }

static bw_err version_of(uint8_t version, const char *what)
{
    if (version > VERSION)
        return bw_fail(BW_ERR_NEWER_FORMAT, "the record of a %s has version %u, this daemon reads up to %u: run the newer one", what,
                       version, VERSION);
    return version == VERSION ? BW_OK : bw_fail(BW_ERR_CORRUPT, "the record of a %s has version %u", what, version);
}

bw_err bw_group_decode(bw_group *g, const void *data, size_t len)
{
    bw_cursor c = bw_cursor_over(data, len);
    bw_err e = version_of(bw_cursor_u8(&c), "group");
    if (e) return e;
    uint8_t kind = bw_cursor_u8(&c), fixed = bw_cursor_u8(&c), state = bw_cursor_u8(&c), assignor = bw_cursor_u8(&c);
    int32_t epoch = (int32_t)bw_cursor_be32(&c);
    bw_str type = take_str(&c), protocol = take_str(&c), leader = take_str(&c);
    if (c.bad || kind > BW_GROUP_CLASSIC || state >= BW_GROUP_DEAD || assignor > BW_ASSIGNOR_COOPERATIVE_STICKY || epoch < 0)
        return bw_fail(BW_ERR_CORRUPT, "the record of group %s is damaged", g->id);
    g->kind = (bw_group_kind)kind;
    g->kind_fixed = fixed != 0;
    g->assignor = (bw_assignor_kind)assignor;
    g->epoch = epoch;
    /* Members come with their own records. A classic rebalance that was under way begins anew: all have to join again. */
    if (kind == BW_GROUP_CLASSIC && (state == BW_GROUP_PREPARING || state == BW_GROUP_COMPLETING)) {
        g->state = BW_GROUP_PREPARING;
        g->join_until_ms = g->next_ms = INT64_MIN; /* over at once, unless a member is restored */
    }
    if (type.len && !(g->protocol_type = bw_group_dup(type))) return BW_ERR_NO_MEMORY;
    if (protocol.len && !(g->protocol = bw_group_dup(protocol))) return BW_ERR_NO_MEMORY;
    if (leader.len && !(g->leader = bw_group_dup(leader))) return BW_ERR_NO_MEMORY;
    return BW_OK;
}

static bw_err decode_protocols(bw_cursor *c, bw_saved_member *out)
{
    uint32_t n = bw_cursor_be32(c);
    if (c->bad || n > bw_cursor_left(c) / 6) return bw_fail(BW_ERR_CORRUPT, "the record of a member is damaged: %u protocols", n);
    out->protocols = calloc((size_t)n + 1, sizeof *out->protocols);
    if (!out->protocols) return bw_fail(BW_ERR_NO_MEMORY, "no memory for %u protocols", n);
    for (; out->protocol_count < n; out->protocol_count++) {
        bw_group_protocol *p = &out->protocols[out->protocol_count];
        p->name = take_str(c);
        p->metadata = take_blob(c);
    }
    return BW_OK;
}

static bw_err decode_parts(bw_cursor *c, bw_saved_member *out)
{
    uint32_t topics = bw_cursor_be32(c);
    if (c->bad || topics > bw_cursor_left(c) / 22) return bw_fail(BW_ERR_CORRUPT, "the record of a member is damaged: %u topics", topics);
    out->parts = calloc(bw_cursor_left(c) / PART_BYTES + 1, sizeof *out->parts);
    if (!out->parts) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the partitions of a member");
    for (uint32_t i = 0; i < topics && !c->bad; i++) {
        bw_saved_part part = {.topic = take_str(c)};
        const uint8_t *id = bw_cursor_take(c, sizeof part.id.b);
        uint32_t n = bw_cursor_be32(c);
        if (c->bad || n > bw_cursor_left(c) / PART_BYTES) return bw_fail(BW_ERR_CORRUPT, "the record of a member is damaged: %u partitions", n);
        memcpy(part.id.b, id, sizeof part.id.b);
        for (uint32_t k = 0; k < n; k++) {
            part.partition = bw_cursor_be32(c);
            part.since = (int32_t)bw_cursor_be32(c);
            part.revoked = (int32_t)bw_cursor_be32(c);
            out->parts[out->part_count++] = part;
        }
    }
    return BW_OK;
}

bw_err bw_saved_member_decode(const void *data, size_t len, bw_saved_member *out)
{
    *out = (bw_saved_member){0};
    bw_cursor c = bw_cursor_over(data, len);
    bw_err e = version_of(bw_cursor_u8(&c), "member");
    if (e) return e;
    out->id = take_str(&c);
    out->instance = take_str(&c);
    out->client = take_str(&c);
    out->host = take_str(&c);
    out->process.pid = (int64_t)bw_cursor_be64(&c);
    out->process.start_ticks = bw_cursor_be64(&c);
    const uint8_t *boot = bw_cursor_take(&c, sizeof out->process.boot);
    if (boot) memcpy(out->process.boot, boot, sizeof out->process.boot);
    out->session_ms = (int32_t)bw_cursor_be32(&c);
    out->rebalance_ms = (int32_t)bw_cursor_be32(&c);
    out->lease_ms = (int32_t)bw_cursor_be32(&c);
    out->epoch = (int32_t)bw_cursor_be32(&c);
    out->subscription = take_blob(&c);
    out->assignment = take_blob(&c);
    e = decode_protocols(&c, out);
    if (!e) e = decode_parts(&c, out);
    if (!e && (c.bad || !out->id.len || out->session_ms < 0 || out->rebalance_ms < 0 || out->lease_ms < 0 || out->epoch < 0))
        e = bw_fail(BW_ERR_CORRUPT, "the record of a member is damaged");
    if (e) bw_saved_member_fini(out);
    return e;
}

void bw_saved_member_fini(bw_saved_member *s)
{
    free(s->protocols);
    free(s->parts);
    *s = (bw_saved_member){0};
}

/* ---- the group made again ---- */

static bw_err restore_part(bw_group *g, bw_member *m, const bw_saved_part *s)
{
    bw_group_topic *t = bw_group_topic_named(g, s->topic);
    if (t && !bw_uuid_equal(&t->id, &s->id)) return BW_OK; /* of a topic that was deleted */
    if (s->partition >= INT32_MAX) return bw_fail(BW_ERR_CORRUPT, "group %s: partition %u of member %s", g->id, s->partition, m->id);
    bw_err e = !t || s->partition >= t->partitions ? bw_group_topic_intern(g, s->id, s->topic, s->partition + 1, &t) : BW_OK;
    if (e) return e;
    bw_group_part *p = &t->parts[s->partition];
    if (p->owner)
        return bw_fail(BW_ERR_CORRUPT, "group %s: partition %u of %s belongs to member %s and to member %s", g->id, s->partition, t->name,
                       p->owner->id, m->id);
    bw_part_give(g, p, m);
    p->target = s->revoked ? NULL : m;
    p->since = s->since;
    p->revoked = s->revoked;
    if (p->revoked) {
        m->revoking++;
        g->revoking++;
    }
    return BW_OK;
}

static bw_err restore_classic(bw_group *g, bw_member *m, const bw_saved_member *s)
{
    size_t bytes = 0, n = 0;
    for (size_t i = 0; i < s->protocol_count; i++) bytes += sizeof(bw_member_protocol) + s->protocols[i].name.len + s->protocols[i].metadata.len;
    bw_err e = bw_member_account(g, m, m->bytes + bytes);
    if (e) return e;
    m->protocols = calloc(s->protocol_count + 1, sizeof *m->protocols);
    if (!m->protocols) return bw_fail(BW_ERR_NO_MEMORY, "no memory for member %s", m->id);
    for (; !e && n < s->protocol_count; n++) {
        m->protocol_count = n + 1;
        m->protocols[n].name = bw_group_dup(s->protocols[n].name);
        e = m->protocols[n].name ? bw_blob_set(&m->protocols[n].metadata, s->protocols[n].metadata) : BW_ERR_NO_MEMORY;
    }
    return e ? e : bw_blob_set(&m->assignment, s->assignment);
}

bw_err bw_group_restore(bw_group *g, const bw_saved_member *s, const bw_topic_view *topics, size_t topic_count, int64_t now_ms)
{
    bw_member_new n = {s->id, s->instance, s->client, s->host, s->process, s->session_ms, s->rebalance_ms, s->lease_ms,
                       g->kind == BW_GROUP_CLASSIC ? 0 : s->subscription.len + topic_count * 16};
    bw_member *m;
    if (bw_group_with_id(g, s->id)) return bw_fail(BW_ERR_CORRUPT, "group %s has member %.*s twice", g->id, BW_STR_ARG(s->id));
    if (s->instance.len && bw_group_with_instance(g, s->instance))
        return bw_fail(BW_ERR_CORRUPT, "group %s has instance %.*s twice", g->id, BW_STR_ARG(s->instance));
    bw_err e = bw_member_add(g, &n, now_ms, &m);
    if (e) return e;
    m->epoch = s->epoch;
    m->expected = true;
    if (s->epoch > g->epoch) g->epoch = s->epoch;
    if (g->kind == BW_GROUP_CLASSIC) {
        e = restore_classic(g, m, s);
        if (g->state == BW_GROUP_EMPTY) g->state = BW_GROUP_STABLE;
        else if (g->state == BW_GROUP_PREPARING) {
            int64_t until = bw_group_after(now_ms, m->rebalance_ms);
            if (g->join_until_ms < until) g->join_until_ms = until;
            bw_group_wake_at(g, g->join_until_ms);
        }
    } else {
        bool changed;
        e = bw_blob_set(&m->subscription, s->subscription);
        if (!e) e = bw_group_topics_set(g, m, topics, topic_count, &changed, now_ms);
        for (size_t i = 0; !e && i < s->part_count; i++) e = restore_part(g, m, &s->parts[i]);
        bw_group_assign_soon(g, now_ms); /* what others gave up, topics that have grown */
        if (m->revoking) m->revoke_until_ms = bw_group_after(now_ms, m->rebalance_ms);
        if (m->revoking) bw_group_wake_at(g, m->revoke_until_ms);
    }
    if (m->unsaved || m->unpushed) g->dirty--; /* it is what is on the disk */
    m->unsaved = m->unpushed = false;
    if (!e) return BW_OK;
    while (m->parts) {
        m->parts->target = NULL;
        bw_part_free_owner(g, m->parts);
    }
    bw_group_topics_leave(g, m);
    bw_member_drop(g, m, now_ms);
    bw_group_topic *t, *next;
    HASH_ITER(hh, g->topics, t, next) bw_group_topic_drop_unused(g, t);
    return e;
}
