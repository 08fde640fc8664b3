/* A world for tests of groups that the daemon assigns: clients that do what clients do, a disk that has what was saved, the restart of the
 * daemon, and the invariants of group.h as checks. */
#ifndef BW_TEST_GROUP_WORLD_H
#define BW_TEST_GROUP_WORLD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bytes.h"
#include "broker/group.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOPICS = 5, PARTS = 24, CLIENTS = 24, PUSHES = 64, LEASE = 1000, REBALANCE = 400, SESSION = 300 };

typedef struct push {
    int32_t epoch;
    bool has[TOPICS][PARTS];
} push;

/* What a consumer knows. `member`: it believes to be one. */
typedef struct client {
    bool alive, member, stuck;
    bool cut; /* its connection was: it has to come back with a join */
    char id[64], instance[16];
    unsigned wanted; /* topics, a bit each */
    int32_t epoch;
    bool reads[TOPICS][PARTS];
    push pushes[PUSHES];
    int push_first, push_count;
    bw_err fenced; /* told, not read yet */
} client;

typedef struct record { char id[64]; bw_buf bytes; } record;

typedef struct world {
    bw_group *g;
    int64_t now;
    uint32_t partitions[TOPICS];
    bw_uuid topic_ids[TOPICS];
    client clients[CLIENTS];
    int next_id;
    int32_t epoch;       /* the highest seen */
    record disk[CLIENTS * 4];
    int disk_count;
    bw_buf group_record;
    unsigned assigned, removed;
    bw_assignor_kind assignor;
} world;

static const char *const names[TOPICS] = {"alpha", "beta", "gamma", "delta", "epsilon"};
static bw_group_limits limits = {.max_members = CLIENTS, .max_bytes = 1 << 20, .min_session_ms = 10, .max_session_ms = 1000000};

static inline int topic_number(const char *name)
{
    for (int t = 0; t < TOPICS; t++)
        if (strcmp(names[t], name) == 0) return t;
    fail_msg("unknown topic %s", name);
    return -1;
}

static inline client *client_of(world *w, const char *id)
{
    for (int i = 0; i < CLIENTS; i++)
        if (w->clients[i].member && strcmp(w->clients[i].id, id) == 0) return &w->clients[i];
    return NULL;
}

/* ---- what the group asks for ---- */

static inline void on_save(void *context, bw_group *g, bw_member *m)
{
    world *w = context;
    assert_true(g->epoch >= w->epoch);
    w->epoch = g->epoch;
    if (!m) {
        w->group_record.len = 0;
        assert_int_equal(bw_group_encode(g, &w->group_record), BW_OK);
        return;
    }
    int i = 0;
    while (i < w->disk_count && strcmp(w->disk[i].id, m->id)) i++;
    assert_true(i < CLIENTS * 4);
    if (i == w->disk_count) snprintf(w->disk[w->disk_count++].id, sizeof w->disk[0].id, "%s", m->id);
    w->disk[i].bytes.len = 0;
    assert_int_equal(bw_member_encode(g, m, &w->disk[i].bytes), BW_OK);
}

static inline void put_part(void *opaque, const bw_group_topic *topic, uint32_t partition)
{
    push *p = opaque;
    bool *has = &p->has[topic_number(topic->name)][partition];
    assert_false(*has);
    *has = true;
}

static inline void on_assigned(void *context, bw_group *g, bw_member *m)
{
    world *w = context;
    w->assigned++;
    client *c = client_of(w, m->id);
    assert_int_equal(m->epoch, g->epoch);
    if (!c || c->push_count == PUSHES) return;
    push *p = &c->pushes[(c->push_first + c->push_count++) % PUSHES];
    *p = (push){.epoch = m->epoch};
    bw_member_each_part(g, m, put_part, p);
}

static inline void on_removed(void *context, bw_group *g, bw_member *m, bw_err why, const char *reason)
{
    world *w = context;
    (void)g;
    assert_non_null(reason);
    assert_int_equal(m->part_count, 0);
    w->removed++;
    client *c = client_of(w, m->id);
    if (c && why) c->fenced = why;
    for (int i = 0; i < w->disk_count; i++)
        if (strcmp(w->disk[i].id, m->id) == 0) {
            bw_buf_free(&w->disk[i].bytes);
            w->disk[i] = w->disk[--w->disk_count];
            w->disk[w->disk_count] = (record){0};
        }
}

static const bw_group_ops ops = {.save = on_save, .assigned = on_assigned, .removed = on_removed};

/* ---- the world ---- */

static inline world *world_new(bw_assignor_kind assignor)
{
    world *w = calloc(1, sizeof *w);
    w->now = 1000;
    w->assignor = assignor;
    for (int t = 0; t < TOPICS; t++) {
        w->partitions[t] = 6;
        w->topic_ids[t].b[0] = (uint8_t)(t + 1);
    }
    assert_int_equal(bw_group_create(bw_str_of("g"), &limits, &ops, w, w->now, &w->g), BW_OK);
    return w;
}

static inline void world_free(world *w)
{
    bw_group_free(w->g);
    for (int i = 0; i < w->disk_count; i++) bw_buf_free(&w->disk[i].bytes);
    bw_buf_free(&w->group_record);
    free(w);
}

static inline size_t views(const world *w, unsigned wanted, bw_topic_view *out)
{
    size_t n = 0;
    for (int t = 0; t < TOPICS; t++)
        if (wanted & 1u << t) out[n++] = (bw_topic_view){w->topic_ids[t], names[t], w->partitions[t]};
    return n;
}

static inline size_t owned_list(const client *c, bw_offset_part *out)
{
    size_t n = 0;
    for (int t = 0; t < TOPICS; t++)
        for (int p = 0; p < PARTS; p++)
            if (c->reads[t][p]) out[n++] = (bw_offset_part){.topic = bw_str_of(names[t]), .partition = p};
    return n;
}

static inline void lose_all(client *c)
{
    memset(c->reads, 0, sizeof c->reads);
    c->push_count = 0;
    c->member = false;
    c->fenced = BW_OK;
    c->epoch = -1;
}

static inline bw_err join(world *w, client *c)
{
    bw_topic_view topics[TOPICS];
    bw_offset_part owned[TOPICS * PARTS];
    char id[64];
    bool back = c->member;
    uint8_t subscription[1] = {(uint8_t)c->wanted};
    snprintf(id, sizeof id, "m%d", ++w->next_id);
    if (!back) lose_all(c);
    bw_member_join j = {.member = back ? bw_str_of(c->id) : (bw_str){0}, .instance = bw_str_of(c->instance), .epoch = c->epoch,
                        .kind = BW_GROUP_CONSUMER, .session_ms = SESSION, .rebalance_ms = REBALANCE, .lease_ms = LEASE,
                        .assignor = bw_str_of(bw_assignor_name(w->assignor)), .subscription = {(const char *)subscription, 1},
                        .topics = topics, .topic_count = views(w, c->wanted, topics), .owned = owned, .owned_count = owned_list(c, owned),
                        .new_id = bw_str_of(id)};
    bw_member *m;
    bw_err e = bw_group_admit(w->g, &j, w->now, &m);
    if (e) {
        if (e == BW_ERR_FENCED_INSTANCE_ID) c->alive = false;
        if (back) lose_all(c);
        return e;
    }
    snprintf(c->id, sizeof c->id, "%s", m->id);
    c->member = true;
    c->cut = false;
    c->fenced = BW_OK; /* what was said before the join's answer is of a membership before it, or said again */
    c->push_count = 0;
    return BW_OK;
}

static inline void poll(world *w)
{
    for (int i = 0; bw_group_next_ms(w->g) <= w->now; i++) {
        bw_group_poll(w->g, w->now);
        assert_true(i < 10); /* it comes to rest */
    }
}

/* Take the next assignment (or a number of them at once: the newest counts). */
static inline void take_pushes(client *c, int most)
{
    for (; c->push_count && most > 0; most--) {
        push *p = &c->pushes[c->push_first];
        c->push_first = (c->push_first + 1) % PUSHES;
        c->push_count--;
        c->epoch = p->epoch;
        memcpy(c->reads, p->has, sizeof c->reads);
    }
    if (!c->fenced || c->push_count) return;
    if (c->fenced == BW_ERR_FENCED_INSTANCE_ID) c->alive = false; /* another has its name: it ends */
    lose_all(c);
}

static inline bw_err beat(world *w, client *c, bool with_owned)
{
    bw_offset_part owned[TOPICS * PARTS];
    bw_member *m;
    if (c->cut) return join(w, c);
    bw_err e = bw_group_beat(w->g, bw_str_of(c->id), bw_str_of(c->instance), c->epoch < 0 ? 0 : c->epoch, owned, owned_list(c, owned), with_owned,
                             w->now, &m);
    if (e == BW_ERR_FENCED_INSTANCE_ID) c->alive = false;
    if (e) lose_all(c);
    return e;
}

/* ---- invariants ---- */

static inline void check(world *w)
{
    const bw_group *g = w->g;
    uint32_t revoking = 0, dirty = 0;
    int64_t due = BW_GROUP_NEVER;
    assert_true(g->epoch >= w->epoch);
    for (uint32_t i = 0; i < g->member_count; i++) {
        const bw_member *m = g->members[i];
        uint32_t parts = 0, mine = 0;
        assert_int_equal(m->index, i);
        assert_ptr_equal(bw_group_with_id(g, bw_str_of(m->id)), m);
        for (const bw_group_part *p = m->parts; p; p = p->next) {
            assert_ptr_equal(p->owner, m);
            assert_true(!p->next || p->next->previous == p);
            assert_true(p->since <= m->epoch || m->unpushed);
            assert_true((p->target != m) == (p->revoked != 0) || g->assign_at_ms != BW_GROUP_NEVER);
            parts++;
            mine += p->revoked != 0;
        }
        assert_int_equal(parts, m->part_count);
        assert_int_equal(mine, m->revoking);
        assert_true(!mine == !m->revoke_until_ms || m->unsaved || m->unpushed);
        revoking += mine;
        dirty += m->unsaved || m->unpushed;
        if (m->deadline_ms < due) due = m->deadline_ms;
        if (m->revoke_until_ms && m->revoke_until_ms < due) due = m->revoke_until_ms;
    }
    assert_int_equal(revoking, g->revoking);
    assert_int_equal(dirty, g->dirty);
    if (g->assign_at_ms < due) due = g->assign_at_ms;
    assert_true(bw_group_next_ms(g) <= due); /* it asks to be called in time */
    bw_group_topic *t, *next;
    HASH_ITER(hh, g->topics, t, next) {
        uint32_t owned = 0;
        for (uint32_t p = 0; p < t->partitions; p++) {
            owned += t->parts[p].owner != NULL;
            assert_true(!t->parts[p].owner || t->parts[p].owner->index < g->member_count);
        }
        assert_int_equal(owned, t->owned);
    }
    /* Nobody who is a member reads what another member reads; all that is read is owned, and may be committed. */
    for (int i = 0; i < CLIENTS; i++) {
        client *c = &w->clients[i];
        bw_member *m = c->alive && c->member ? bw_group_with_id(g, bw_str_of(c->id)) : NULL;
        if (!m) continue;
        for (int k = 0; k < TOPICS; k++)
            for (int p = 0; p < PARTS; p++) {
                if (!c->reads[k][p]) continue;
                bw_group_topic *topic = NULL;
                HASH_FIND(hh, g->topics, names[k], strlen(names[k]), topic);
                if (!topic || !bw_uuid_equal(&topic->id, &w->topic_ids[k])) continue; /* it was deleted; the push is on its way */
                if (topic->parts[p].owner != m && c->push_count == 0) fail_msg("%s reads %s-%d which is not its own", m->id, names[k], p);
                if (topic->parts[p].owner == m)
                    assert_true(c->epoch >= topic->parts[p].since);
            }
    }
    for (int a = 0; a < CLIENTS; a++)
        for (int b = a + 1; b < CLIENTS; b++) {
            client *x = &w->clients[a], *y = &w->clients[b];
            if (!x->alive || !y->alive || !bw_group_with_id(g, bw_str_of(x->member ? x->id : "")) ||
                !bw_group_with_id(g, bw_str_of(y->member ? y->id : "")))
                continue;
            for (int k = 0; k < TOPICS; k++)
                for (int p = 0; p < PARTS; p++)
                    if (x->reads[k][p] && y->reads[k][p]) fail_msg("%s and %s both read %s-%d", x->id, y->id, names[k], p);
        }
}

/* Everybody does what he is told until nothing happens any more. */
static inline void settle(world *w)
{
    for (int round = 0; round < 50; round++) {
        unsigned before = w->assigned;
        poll(w);
        for (int i = 0; i < CLIENTS; i++) {
            client *c = &w->clients[i];
            if (!c->alive) continue;
            take_pushes(c, PUSHES);
            if (!c->alive) continue;
            if (!c->member) join(w, c);
            else beat(w, c, true);
        }
        w->now++;
        poll(w);
        check(w);
        if (before == w->assigned && round > 3 && w->g->state != BW_GROUP_PREPARING) return;
    }
    fail_msg("the group does not come to rest: state %d, %u revoking", w->g->state, w->g->revoking);
}

/* After settle: all of each subscribed topic is read, by somebody who subscribes. */
static inline void check_complete(world *w)
{
    unsigned wanted = 0;
    for (int i = 0; i < CLIENTS; i++)
        if (w->clients[i].alive) wanted |= w->clients[i].wanted;
    for (int t = 0; t < TOPICS; t++)
        for (uint32_t p = 0; p < w->partitions[t]; p++) {
            int readers = 0;
            for (int i = 0; i < CLIENTS; i++) {
                client *c = &w->clients[i];
                if (!c->alive || !c->reads[t][p]) continue;
                readers++;
                assert_true(c->wanted & 1u << t);
                assert_int_equal(bw_group_may_commit(w->g, bw_str_of(c->id), bw_str_of(c->instance), c->epoch, bw_str_of(names[t]), (int32_t)p,
                                                     w->now), BW_OK);
            }
            bool away = false; /* a static member that is away may hold it */
            for (uint32_t i = 0; i < w->g->member_count; i++) away |= w->g->members[i]->away || w->g->members[i]->expected;
            if (!away && readers != (wanted & 1u << t ? 1 : 0)) fail_msg("%s-%u is read by %d members", names[t], p, readers);
        }
}

static inline unsigned reads(const client *c)
{
    unsigned n = 0;
    for (int t = 0; t < TOPICS; t++)
        for (int p = 0; p < PARTS; p++) n += c->reads[t][p];
    return n;
}

static inline client *start(world *w, int i, unsigned wanted, const char *instance)
{
    client *c = &w->clients[i];
    *c = (client){.alive = true, .wanted = wanted, .epoch = -1};
    if (instance) snprintf(c->instance, sizeof c->instance, "%s", instance);
    assert_int_equal(join(w, c), BW_OK);
    return c;
}

static inline void die(world *w, client *c)
{
    bw_member *m = c->member ? bw_group_with_id(w->g, bw_str_of(c->id)) : NULL;
    c->alive = false;
    if (m) bw_group_gone(w->g, m, true, w->now);
    lose_all(c);
}
/* ---- restart ---- */

/* The daemon is killed: what was saved is all there is. Messages that were not read yet are lost. */
static inline void restart(world *w)
{
    bw_group *old = w->g;
    assert_int_equal(bw_group_create(bw_str_of("g"), &limits, &ops, w, w->now, &w->g), BW_OK);
    if (w->group_record.len) assert_int_equal(bw_group_decode(w->g, w->group_record.data, w->group_record.len), BW_OK);
    for (int i = 0; i < w->disk_count; i++) {
        bw_saved_member s;
        bw_topic_view topics[TOPICS];
        assert_int_equal(bw_saved_member_decode(w->disk[i].bytes.data, w->disk[i].bytes.len, &s), BW_OK);
        assert_int_equal(s.subscription.len, 1);
        size_t n = views(w, (unsigned)s.subscription.data[0], topics);
        bw_err e = bw_group_restore(w->g, &s, topics, n, w->now);
        if (e) fail_msg("%s", bw_error_message());
        bw_saved_member_fini(&s);
    }
    bw_group_free(old);
    for (int i = 0; i < CLIENTS; i++) {
        client *c = &w->clients[i];
        c->push_count = 0;
        c->fenced = BW_OK;
        c->cut = true;
        if (!c->member || c->alive) continue;
        bw_member *m = bw_group_with_id(w->g, bw_str_of(c->id));
        if (m) bw_group_gone(w->g, m, true, w->now); /* found dead */
        lose_all(c);
    }
}

#endif
