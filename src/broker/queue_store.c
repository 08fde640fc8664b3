/* broker/queue_store.c: what is stored of queue groups, in the table `queues`.
 *
 *   'g' u8 length, name                                              -> u8 1 · be32 lease ms · be16 max deliveries · be32 in flight ·
 *                                                                       u8 archive · u8 committed · u8 latest · u8 length, dead letter
 *   'p' u8 length, name · topic's uuid 16 · be32 partition           -> queue_codec.c
 *   'd' u8 length, name · uuid 16 · be32 partition · be64 due + 2^63 · be64 offset   -> u8 1 · be16 deliveries · u8 reason (it dies)
 * A 'd' entry is written in the transaction that lets the state pass its record, and goes in the one that settles it. The keys of one
 * part come in the order of their time. */
#include "broker/queue.h"

#include "base/killpoint.h"

#include <stdlib.h>

#define VERSION 1
#define SWEPT_AT_ONCE 4096u

/* ---- keys ---- */

static uint8_t *put_name(uint8_t *p, char kind, const char *name)
{
    size_t len = strlen(name);
    *p++ = (uint8_t)kind;
    *p++ = (uint8_t)len;
    memcpy(p, name, len);
    return p + len;
}

size_t bw_queue_key_group(const bw_queue_group *g, uint8_t out[BW_QUEUE_KEY_MAX]) { return (size_t)(put_name(out, 'g', g->name) - out); }

size_t bw_queue_key_part(const bw_queue_part *q, char kind, uint8_t out[BW_QUEUE_KEY_MAX])
{
    uint8_t *p = put_name(out, kind, q->group->name);
    memcpy(p, q->topic.b, 16);
    bw_put_be32(p + 16, q->index);
    return (size_t)(p + 20 - out);
}

size_t bw_queue_key_delay(const bw_queue_part *q, int64_t due_ms, int64_t offset, uint8_t out[BW_QUEUE_KEY_MAX])
{
    size_t n = bw_queue_key_part(q, 'd', out);
    bw_put_be64(out + n, (uint64_t)due_ms ^ UINT64_C(1) << 63);
    bw_put_be64(out + n + 8, (uint64_t)offset);
    return n + 16;
}

/* ---- writing ---- */

bw_err bw_queue_put_group(bw_commit *c, const bw_queue_group *g, const bw_queue_settings *s)
{
    uint8_t key[BW_QUEUE_KEY_MAX], v[16 + BW_TOPIC_NAME_MAX];
    size_t len = strlen(s->dead_letter);
    v[0] = VERSION;
    bw_put_be32(v + 1, (uint32_t)s->lease_ms);
    bw_put_be16(v + 5, s->max_deliveries);
    bw_put_be32(v + 7, s->max_in_flight);
    v[11] = s->archive;
    v[12] = s->committed;
    v[13] = s->latest;
    v[14] = (uint8_t)len;
    memcpy(v + 15, s->dead_letter, len);
    return bw_commit_put(c, BW_TABLE_QUEUES, key, bw_queue_key_group(g, key), v, 15 + len);
}

bw_err bw_queue_put_part(bw_commit *c, const bw_queue_part *q)
{
    uint8_t key[BW_QUEUE_KEY_MAX];
    bw_buf v = {0};
    bw_err e = bw_queue_state_encode(&q->state, q->put_off + q->park_count - q->state.gone_count, &v);
    if (!e) e = bw_commit_put(c, BW_TABLE_QUEUES, key, bw_queue_key_part(q, 'p', key), v.data, v.len);
    bw_buf_free(&v);
    return e;
}

bw_err bw_queue_put_delay(bw_commit *c, const bw_queue_part *q, bw_delay d)
{
    uint8_t key[BW_QUEUE_KEY_MAX], v[4] = {VERSION};
    bw_put_be16(v + 1, d.deliveries);
    v[3] = d.reason;
    return bw_commit_put(c, BW_TABLE_QUEUES, key, bw_queue_key_delay(q, d.due_ms, d.offset, key), v, sizeof v);
}

/* ---- reading back ---- */

typedef struct loading {
    bw_broker *broker;
    bw_err error;
} loading;

static bool load_group(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    loading *l = opaque;
    const uint8_t *k = key;
    bw_cursor c = bw_cursor_over(value, value_len);
    bw_queue_group *g;
    if (key_len < 3 || key_len != 2u + k[1]) return true;
    if ((l->error = bw_queue_group_new(l->broker, (bw_str){(const char *)k + 2, k[1]}, &g))) return false;
    uint8_t version = bw_cursor_u8(&c);
    bw_queue_settings s = {.lease_ms = (int32_t)bw_cursor_be32(&c)};
    s.max_deliveries = bw_cursor_be16(&c);
    s.max_in_flight = bw_cursor_be32(&c);
    s.archive = bw_cursor_u8(&c);
    s.committed = bw_cursor_u8(&c);
    s.latest = bw_cursor_u8(&c);
    uint8_t len = bw_cursor_u8(&c);
    const uint8_t *name = bw_cursor_take(&c, len);
    if (c.bad || version != VERSION || len > BW_TOPIC_NAME_MAX) {
        l->error = bw_fail(BW_ERR_CORRUPT, "the stored settings of queue group '%s' are none", g->name);
        return false;
    }
    memcpy(s.dead_letter, name, len);
    g->settings = s;
    return true;
}

static bool load_part(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    loading *l = opaque;
    const uint8_t *k = key;
    if (key_len < 3 || key_len != 2u + k[1] + 20u) return true;
    bw_queue_group *g = bw_queue_group_find(l->broker, (bw_str){(const char *)k + 2, k[1]});
    if (!g) return true;
    bw_uuid id;
    memcpy(id.b, k + 2 + k[1], 16);
    uint32_t index = bw_get_be32(k + 18 + k[1]);
    bw_topic *t = NULL;
    HASH_FIND(by_id, l->broker->topics_by_id, id.b, 16, t);
    bool there = t && !t->deleting && index < t->part_count;
    bw_queue_part *q;
    if ((l->error = bw_queue_part_new(g, &id, index, there ? t->parts[index] : NULL, 0, &q))) return false;
    bw_queue_state_fini(&q->state);
    if ((l->error = bw_queue_state_decode(value, value_len, &q->state, &q->put_off))) {
        bw_error_context(l->error, "queue group '%s' partition %u", g->name, index);
        return false;
    }
    bw_delays_fini(&q->delays);
    bw_delays_init(&q->delays, q->put_off == 0);
    return true;
}

bw_err bw_queues_load(bw_broker *b)
{
    loading l = {.broker = b};
    bw_err e = bw_store_each(b->store, BW_TABLE_QUEUES, "g", 1, load_group, &l);
    if (!e && !(e = l.error)) e = bw_store_each(b->store, BW_TABLE_QUEUES, "p", 1, load_part, &l);
    if (!e) e = l.error;
    if (e) return e;
    bw_queue_group *g, *tmp;
    HASH_ITER(hh, b->queues->groups, g, tmp)
    {
        for (bw_queue_part *q = g->parts, *next; q; q = next) {
            next = q->next;
            if (q->part) continue;
            bw_queue_sweep(b, q, NULL); /* of a topic that was deleted */
            bw_queue_part_remove(b, q);
        }
    }
    return BW_OK;
}

/* ---- what was put off ---- */

typedef struct refilling {
    bw_queue_part *part;
    bw_delay old_horizon;
} refilling;

static bool is_gone(const bw_queue_part *q, int64_t due_ms, int64_t offset)
{
    for (uint32_t i = 0; i < q->state.gone_count; i++)
        if (q->state.gone[i].offset == offset && q->state.gone[i].due_ms == due_ms) return true;
    return false;
}

static bool refill_one(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    refilling *r = opaque;
    const uint8_t *k = (const uint8_t *)key + key_len - 16, *v = value;
    if (key_len < 38 || value_len < 4 || v[0] != VERSION) return true;
    bw_delay d = {(int64_t)(bw_get_be64(k) ^ UINT64_C(1) << 63), (int64_t)bw_get_be64(k + 8), bw_get_be16(v + 1), v[3]};
    if (d.reason > BW_QUEUE_REJECTED) d.reason = BW_QUEUE_REJECTED;
    bool late;
    bw_queue_state_find(&r->part->state, d.offset, &late);
    if (late || is_gone(r->part, d.due_ms, d.offset)) return true; /* was taken from the heap already */
    return bw_delays_refill_offer(&r->part->delays, &r->old_horizon, d);
}

void bw_queue_refill(bw_broker *b, bw_queue_part *q)
{
    uint8_t key[BW_QUEUE_KEY_MAX];
    refilling r = {.part = q};
    if (q->committing) return; /* what is in it may be there or not: when it is done */
    bw_delays_refill_begin(&q->delays, &r.old_horizon);
    bw_err e = bw_store_each(b->store, BW_TABLE_QUEUES, key, bw_queue_key_part(q, 'd', key), refill_one, &r);
    if (e) { /* tried again, from the beginning */
        bw_delays_fini(&q->delays);
        bw_delays_init(&q->delays, false);
        return;
    }
    for (uint32_t i = 0; i < q->park_count; i++)
        if (!bw_delay_before(&q->parks[i], &r.old_horizon)) (void)bw_delays_add(&q->delays, q->parks[i]);
}

/* ---- removing ---- */

typedef struct sweeping {
    bw_commit commit; /* first */
    uint8_t key[BW_QUEUE_KEY_MAX];
    size_t key_len;
    bw_queue_group *group;
    bw_err error;
    bool again, last;
} sweeping;

static bool sweep_one(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    sweeping *s = opaque;
    (void)value, (void)value_len;
    s->error = bw_commit_remove(&s->commit, BW_TABLE_QUEUES, key, key_len);
    return !s->error && s->commit.count < SWEPT_AT_ONCE;
}

static void sweep_end(bw_broker *b, sweeping *s, bw_err e)
{
    bw_queue_group *g = s->group;
    bw_commit_fini(&s->commit);
    free(s);
    if (g) bw_queue_swept(b, g, e);
}

/* What is delayed goes first. The state, by which a restart would find the rest, goes when a commit of ours was done and nothing delayed is
 * left: what the part had under way was stored before that. */
static void sweep_step(bw_broker *b, bw_commit *c, bw_err e)
{
    sweeping *s = (sweeping *)c;
    bw_commit_fini(c);
    BW_KILL_POINT("queue.swept");
    if (e || s->last) {
        sweep_end(b, s, e);
        return;
    }
    s->error = BW_OK;
    s->key[0] = 'd';
    e = bw_store_each(b->store, BW_TABLE_QUEUES, s->key, s->key_len, sweep_one, s);
    if (!e) e = s->error;
    if (!e && !c->count) {
        s->last = s->again;
        if (s->last) s->key[0] = 'p';
        e = bw_commit_remove(c, BW_TABLE_QUEUES, s->key, s->key_len); /* the first time of a key that is none: it only waits */
    }
    s->again = true;
    if (!e) e = bw_committer_submit(b, c);
    if (e) sweep_end(b, s, e);
}

void bw_queue_sweep(bw_broker *b, const bw_queue_part *q, bw_queue_group *group)
{
    sweeping *s = calloc(1, sizeof *s);
    if (!s) { /* the next start finds it */
        if (group) bw_queue_swept(b, group, bw_fail(BW_ERR_NO_MEMORY, "no memory to delete a queue's state"));
        return;
    }
    s->commit.done = sweep_step;
    s->group = group;
    s->key_len = bw_queue_key_part(q, 'd', s->key);
    sweep_step(b, &s->commit, BW_OK);
}
