/* Groups that the daemon assigns: scripts of events, and long random lives of groups with clients that do what clients do, die, sleep,
 * lose messages, and daemons that are killed; after each event the invariants of group.h. */
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

static int topic_number(const char *name)
{
    for (int t = 0; t < TOPICS; t++)
        if (strcmp(names[t], name) == 0) return t;
    fail_msg("unknown topic %s", name);
    return -1;
}

static client *client_of(world *w, const char *id)
{
    for (int i = 0; i < CLIENTS; i++)
        if (w->clients[i].member && strcmp(w->clients[i].id, id) == 0) return &w->clients[i];
    return NULL;
}

/* ---- what the group asks for ---- */

static void on_save(void *context, bw_group *g, bw_member *m)
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

static void put_part(void *opaque, const bw_group_topic *topic, uint32_t partition)
{
    push *p = opaque;
    bool *has = &p->has[topic_number(topic->name)][partition];
    assert_false(*has);
    *has = true;
}

static void on_assigned(void *context, bw_group *g, bw_member *m)
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

static void on_removed(void *context, bw_group *g, bw_member *m, bw_err why, const char *reason)
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

static world *world_new(bw_assignor_kind assignor)
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

static void world_free(world *w)
{
    bw_group_free(w->g);
    for (int i = 0; i < w->disk_count; i++) bw_buf_free(&w->disk[i].bytes);
    bw_buf_free(&w->group_record);
    free(w);
}

static size_t views(const world *w, unsigned wanted, bw_topic_view *out)
{
    size_t n = 0;
    for (int t = 0; t < TOPICS; t++)
        if (wanted & 1u << t) out[n++] = (bw_topic_view){w->topic_ids[t], names[t], w->partitions[t]};
    return n;
}

static size_t owned_list(const client *c, bw_offset_part *out)
{
    size_t n = 0;
    for (int t = 0; t < TOPICS; t++)
        for (int p = 0; p < PARTS; p++)
            if (c->reads[t][p]) out[n++] = (bw_offset_part){.topic = bw_str_of(names[t]), .partition = p};
    return n;
}

static void lose_all(client *c)
{
    memset(c->reads, 0, sizeof c->reads);
    c->push_count = 0;
    c->member = false;
    c->fenced = BW_OK;
    c->epoch = -1;
}

static bw_err join(world *w, client *c)
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
    return BW_OK;
}

static void poll(world *w)
{
    for (int i = 0; bw_group_next_ms(w->g) <= w->now; i++) {
        bw_group_poll(w->g, w->now);
        assert_true(i < 10); /* it comes to rest */
    }
}

/* Take the next assignment (or a number of them at once: the newest counts). */
static void take_pushes(client *c, int most)
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

static bw_err beat(world *w, client *c, bool with_owned)
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

static void check(world *w)
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
static void settle(world *w)
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
static void check_complete(world *w)
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

static unsigned reads(const client *c)
{
    unsigned n = 0;
    for (int t = 0; t < TOPICS; t++)
        for (int p = 0; p < PARTS; p++) n += c->reads[t][p];
    return n;
}

static client *start(world *w, int i, unsigned wanted, const char *instance)
{
    client *c = &w->clients[i];
    *c = (client){.alive = true, .wanted = wanted, .epoch = -1};
    if (instance) snprintf(c->instance, sizeof c->instance, "%s", instance);
    assert_int_equal(join(w, c), BW_OK);
    return c;
}

static void die(world *w, client *c)
{
    bw_member *m = c->member ? bw_group_with_id(w->g, bw_str_of(c->id)) : NULL;
    c->alive = false;
    if (m) bw_group_gone(w->g, m, true, w->now);
    lose_all(c);
}

/* ---- scripts ---- */

static void test_group_one_member_joins_owns_everything(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    client *a = start(w, 0, 3, NULL);
    poll(w);
    assert_int_equal(a->push_count, 1); /* one push, with everything */
    take_pushes(a, 1);
    assert_int_equal(reads(a), 12);
    assert_int_equal(w->g->state, BW_GROUP_STABLE);
    check(w);
    world_free(w);
}

static void test_group_second_member_gets_its_share_only_after_the_first_gave_it_up(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    client *a = start(w, 0, 1, NULL);
    settle(w);
    client *b = start(w, 1, 1, NULL);
    poll(w);
    take_pushes(b, 9);
    assert_int_equal(reads(b), 0);
    assert_int_equal(w->g->state, BW_GROUP_COMPLETING);
    assert_int_equal(beat(w, a, true), BW_OK); /* before it has heard: an older epoch, with all it reads */
    poll(w);
    take_pushes(b, 9);
    assert_int_equal(reads(b), 0);
    bool before[TOPICS][PARTS];
    memcpy(before, a->reads, sizeof before);
    int32_t old_epoch = a->epoch;
    take_pushes(a, 9);
    assert_int_equal(reads(a), 3);
    for (int p = 0; p < 6; p++) { /* until it says so it may commit what it had, in the old epoch and the new one */
        if (a->reads[0][p]) assert_true(before[0][p]);
        assert_int_equal(bw_group_may_commit(w->g, bw_str_of(a->id), (bw_str){0}, old_epoch, bw_str_of("alpha"), p, w->now), BW_OK);
        assert_int_equal(bw_group_may_commit(w->g, bw_str_of(a->id), (bw_str){0}, a->epoch, bw_str_of("alpha"), p, w->now), BW_OK);
        assert_int_equal(bw_group_may_commit(w->g, bw_str_of(b->id), (bw_str){0}, b->epoch, bw_str_of("alpha"), p, w->now),
                         BW_ERR_FENCED_MEMBER_EPOCH);
    }
    unsigned pushes_to_a = (unsigned)a->push_count;
    assert_int_equal(beat(w, a, true), BW_OK);
    poll(w);
    assert_int_equal(a->push_count, pushes_to_a); /* it keeps reading what it keeps and hears nothing */
    int32_t early = b->epoch;
    take_pushes(b, 9);
    assert_int_equal(reads(b), 3);
    assert_int_equal(w->g->state, BW_GROUP_STABLE);
    for (int p = 0; p < 6; p++) {
        const client *owner = a->reads[0][p] ? a : b, *other = owner == a ? b : a;
        assert_int_equal(bw_group_may_commit(w->g, bw_str_of(owner->id), (bw_str){0}, owner->epoch, bw_str_of("alpha"), p, w->now), BW_OK);
        assert_int_equal(bw_group_may_commit(w->g, bw_str_of(other->id), (bw_str){0}, other->epoch, bw_str_of("alpha"), p, w->now),
                         BW_ERR_FENCED_MEMBER_EPOCH);
        if (owner == b)
            assert_int_equal(bw_group_may_commit(w->g, bw_str_of(b->id), (bw_str){0}, early, bw_str_of("alpha"), p, w->now),
                             BW_ERR_STALE_MEMBER_EPOCH);
    }
    check(w);
    world_free(w);
}

static void test_group_member_dies_its_partitions_move_in_the_same_poll(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_STICKY);
    client *a = start(w, 0, 1, NULL), *b = start(w, 1, 1, NULL);
    settle(w);
    assert_int_equal(reads(a), 3);
    die(w, b);
    poll(w);
    take_pushes(a, 9);
    assert_int_equal(reads(a), 6);
    die(w, a);
    poll(w);
    assert_int_equal(w->g->state, BW_GROUP_EMPTY);
    assert_int_equal(w->g->topic_count, 0);
    assert_int_equal(w->g->bytes, 0);
    world_free(w);
}

static void test_group_lease_ends_member_is_fenced_and_others_get_its_partitions(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    client *a = start(w, 0, 1, NULL), *b = start(w, 1, 1, NULL);
    settle(w);
    char hung[64];
    snprintf(hung, sizeof hung, "%s", b->id);
    int partition = 0;
    while (!b->reads[0][partition]) partition++;
    for (int i = 0; i < 4; i++) { /* a beats and commits, b sleeps */
        w->now += LEASE / 4 + 1;
        beat(w, a, false);
        poll(w);
    }
    assert_null(bw_group_with_id(w->g, bw_str_of(hung)));
    assert_int_equal(b->fenced, BW_ERR_FENCED_MEMBER_EPOCH);
    assert_int_equal(bw_group_may_commit(w->g, bw_str_of(hung), (bw_str){0}, b->epoch, bw_str_of("alpha"), partition, w->now),
                     BW_ERR_UNKNOWN_MEMBER_ID);
    take_pushes(a, 9);
    assert_int_equal(reads(a), 6);
    assert_int_equal(join(w, b), BW_ERR_UNKNOWN_MEMBER_ID); /* with the id it had */
    assert_int_equal(join(w, b), BW_OK);
    settle(w);
    assert_int_equal(reads(a), 3);
    world_free(w);
}

static void test_group_commits_alone_keep_the_lease(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    client *a = start(w, 0, 1, NULL);
    settle(w);
    for (int i = 0; i < 10; i++) {
        w->now += LEASE - 2;
        poll(w);
        assert_int_equal(bw_group_may_commit(w->g, bw_str_of(a->id), (bw_str){0}, a->epoch, bw_str_of("alpha"), 0, w->now), BW_OK);
    }
    world_free(w);
}

static void test_group_revocation_not_answered_in_time_ends_membership(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    client *a = start(w, 0, 1, NULL);
    settle(w);
    client *b = start(w, 1, 1, NULL);
    poll(w);
    for (int64_t end = w->now + REBALANCE + 1; w->now < end; w->now += 50) { /* it beats, but gives up nothing */
        assert_int_equal(beat(w, a, true), BW_OK);
        poll(w);
    }
    poll(w);
    assert_int_equal(a->fenced, BW_ERR_FENCED_MEMBER_EPOCH);
    take_pushes(b, 9);
    assert_int_equal(reads(b), 6);
    world_free(w);
}

static void test_group_static_member_back_in_time_moves_nothing(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    client *a = start(w, 0, 1, NULL), *s = start(w, 1, 1, "worker-1");
    settle(w);
    bool had[TOPICS][PARTS];
    memcpy(had, s->reads, sizeof had);
    unsigned told = w->assigned;
    die(w, s);
    w->now += SESSION - 10;
    poll(w);
    assert_int_equal(w->assigned, told);
    s = start(w, 1, 1, "worker-1");
    poll(w);
    take_pushes(s, 9);
    assert_memory_equal(s->reads, had, sizeof had);
    assert_int_equal(w->assigned, told + 1); /* itself alone */
    assert_int_equal(reads(a), 3);
    die(w, s);
    beat(w, a, false);
    w->now += SESSION + 1;
    poll(w);
    take_pushes(a, 9);
    assert_int_equal(reads(a), 6);
    world_free(w);
}

static void test_group_second_process_with_an_instance_id_fences_the_first(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    client *old = start(w, 0, 1, "one"), *fresh;
    settle(w);
    char former[64];
    snprintf(former, sizeof former, "%s", old->id);
    int32_t epoch = old->epoch;
    fresh = start(w, 1, 1, "one");
    poll(w);
    assert_int_equal(old->fenced, BW_ERR_FENCED_INSTANCE_ID);
    take_pushes(fresh, 9);
    assert_int_equal(reads(fresh), 6);
    assert_int_equal(bw_group_may_commit(w->g, bw_str_of(former), bw_str_of("one"), epoch, bw_str_of("alpha"), 0, w->now),
                     BW_ERR_FENCED_INSTANCE_ID);
    bw_member *m;
    assert_int_equal(bw_group_beat(w->g, bw_str_of(former), bw_str_of("one"), epoch, NULL, 0, false, w->now, &m), BW_ERR_FENCED_INSTANCE_ID);
    assert_int_equal(w->g->member_count, 1);
    world_free(w);
}

static void test_group_limits_and_kinds_are_refused_by_name(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_RANGE);
    bw_group *other;
    assert_int_equal(bw_group_create(bw_str_of(""), &limits, &ops, w, 0, &other), BW_ERR_INVALID_GROUP_ID);
    for (int i = 0; i < CLIENTS; i++) start(w, i, 1, NULL);
    bw_member *m;
    bw_member_join j = {.kind = BW_GROUP_CONSUMER, .new_id = bw_str_of("x"), .lease_ms = LEASE};
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_ERR_GROUP_MAX_SIZE_REACHED);
    die(w, &w->clients[0]);
    j.kind = BW_GROUP_QUEUE;
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_ERR_INCONSISTENT_GROUP_PROTOCOL);
    j.kind = BW_GROUP_CONSUMER;
    j.assignor = bw_str_of("sticky");
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_ERR_INCONSISTENT_GROUP_PROTOCOL);
    j.assignor = bw_str_of("fair");
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_ERR_UNSUPPORTED_ASSIGNOR);
    j.assignor = bw_str_of("range");
    j.session_ms = 9;
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_ERR_INVALID_SESSION_TIMEOUT);
    j.session_ms = 0;
    static char blob[1 << 20];
    j.subscription = (bw_str){blob, sizeof blob};
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_ERR_LIMIT_REACHED);
    j.subscription.len = 10;
    j.member = bw_str_of("nobody");
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_ERR_UNKNOWN_MEMBER_ID);
    j.member = (bw_str){0};
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_OK);
    assert_int_equal(bw_group_bury(w->g), BW_ERR_NON_EMPTY_GROUP);
    assert_int_equal(bw_group_beat(w->g, bw_str_of("x"), (bw_str){0}, 1000, NULL, 0, false, w->now, &m), BW_ERR_FENCED_MEMBER_EPOCH);
    assert_int_equal(bw_group_may_commit(w->g, (bw_str){0}, (bw_str){0}, -1, bw_str_of("alpha"), 0, w->now), BW_ERR_UNKNOWN_MEMBER_ID);
    check(w);
    world_free(w);
}

static void test_group_member_with_another_process_identity_is_refused(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_RANGE);
    bw_topic_view topics[TOPICS];
    bw_member *m;
    bw_member_join j = {.kind = BW_GROUP_CONSUMER, .new_id = bw_str_of("x"), .lease_ms = LEASE, .process = {.pid = 7, .start_ticks = 3},
                        .topics = topics, .topic_count = views(w, 1, topics)};
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_OK);
    j.member = bw_str_of("x");
    j.process.start_ticks = 4;
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_ERR_UNKNOWN_MEMBER_ID);
    j.process.start_ticks = 3;
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &m), BW_OK);
    world_free(w);
}

static void test_group_queue_members_all_have_every_partition(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_RANGE);
    bw_topic_view topics[TOPICS];
    bw_member *a, *b;
    bw_member_join j = {.kind = BW_GROUP_QUEUE, .new_id = bw_str_of("a"), .lease_ms = LEASE, .topics = topics, .topic_count = views(w, 3, topics)};
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &a), BW_OK);
    j.new_id = bw_str_of("b");
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &b), BW_OK);
    poll(w);
    assert_int_equal(bw_member_part_count(w->g, a), 12);
    assert_int_equal(bw_member_part_count(w->g, b), 12);
    unsigned told = w->assigned;
    assert_int_equal(bw_group_topic_grown(w->g, &w->topic_ids[0], 8, w->now), BW_OK);
    poll(w);
    assert_int_equal(w->assigned, told + 2);
    assert_int_equal(bw_member_part_count(w->g, a), 14);
    bw_group_topic_gone(w->g, &w->topic_ids[1], w->now);
    poll(w);
    assert_int_equal(bw_member_part_count(w->g, b), 8);
    world_free(w);
}

/* ---- restart ---- */

/* The daemon is killed: what was saved is all there is. Messages that were not read yet are lost. */
static void restart(world *w)
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

static void test_group_restored_members_keep_what_they_have(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    client *a = start(w, 0, 3, NULL), *b = start(w, 1, 3, NULL);
    settle(w);
    bool had[2][TOPICS][PARTS];
    memcpy(had[0], a->reads, sizeof had[0]);
    memcpy(had[1], b->reads, sizeof had[1]);
    int32_t epoch = w->g->epoch;
    restart(w);
    poll(w);
    check(w);
    assert_true(w->g->epoch >= epoch);
    for (int p = 0; p < 6; p++) /* commits of members that have not joined again yet */
        if (a->reads[0][p])
            assert_int_equal(bw_group_may_commit(w->g, bw_str_of(a->id), (bw_str){0}, a->epoch, bw_str_of("alpha"), p, w->now), BW_OK);
    for (int p = 0; p < 6; p++) /* in an epoch before it had it */
        if (a->reads[0][p])
            assert_int_equal(bw_group_may_commit(w->g, bw_str_of(a->id), (bw_str){0}, 0, bw_str_of("alpha"), p, w->now), BW_ERR_STALE_MEMBER_EPOCH);
    assert_int_equal(join(w, a), BW_OK);
    settle(w);
    assert_memory_equal(a->reads, had[0], sizeof had[0]);
    assert_memory_equal(b->reads, had[1], sizeof had[1]);
    /* One does not come back. */
    restart(w);
    assert_int_equal(join(w, a), BW_OK);
    poll(w);
    for (int i = 0; i < 4; i++) {
        w->now += LEASE / 4 + 1;
        take_pushes(a, 9);
        beat(w, a, true);
        poll(w);
    }
    take_pushes(a, 9);
    assert_int_equal(reads(a), 12);
    world_free(w);
}

static void test_group_restored_member_claims_are_believed_only_if_saved(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    client *a = start(w, 0, 1, NULL), *b = start(w, 1, 1, NULL);
    settle(w);
    restart(w);
    client liar = *a;
    memset(liar.reads[0], 1, 6);
    assert_int_equal(join(w, &liar), BW_OK);
    poll(w);
    take_pushes(a, 9);
    assert_int_equal(reads(a), 3);
    for (int p = 0; p < 6; p++)
        assert_int_equal(bw_group_may_commit(w->g, bw_str_of(a->id), (bw_str){0}, a->epoch, bw_str_of("alpha"), p, w->now),
                         a->reads[0][p] ? BW_OK : BW_ERR_FENCED_MEMBER_EPOCH);
    (void)b;
    world_free(w);
}

static void test_group_damaged_records_are_errors(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    start(w, 0, 3, "i");
    settle(w);
    const bw_buf *b = &w->disk[0].bytes;
    bw_saved_member s;
    for (size_t len = 0; len < b->len; len++) {
        uint8_t *cut = malloc(len + 1);
        memcpy(cut, b->data, len);
        assert_int_not_equal(bw_saved_member_decode(cut, len, &s), BW_OK);
        free(cut);
    }
    b->data[0] = 9;
    assert_int_equal(bw_saved_member_decode(b->data, b->len, &s), BW_ERR_NEWER_FORMAT);
    b->data[0] = 1;
    for (size_t i = 1; i < b->len; i++) { /* any byte may be anything: no crash, no endless memory */
        uint8_t was = b->data[i];
        b->data[i] ^= 0xff;
        if (bw_saved_member_decode(b->data, b->len, &s) == BW_OK) bw_saved_member_fini(&s);
        b->data[i] = was;
    }
    bw_group *g;
    assert_int_equal(bw_group_create(bw_str_of("h"), &limits, &ops, w, 0, &g), BW_OK);
    assert_int_equal(bw_group_decode(g, w->group_record.data, w->group_record.len - 1), BW_ERR_CORRUPT);
    bw_group_free(g);
    world_free(w);
}

/* ---- random lives ---- */

static uint64_t seed;
static unsigned below(unsigned n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (unsigned)(seed >> 33) % n;
}

static void random_event(world *w)
{
    client *c = &w->clients[below(CLIENTS)];
    char instance[16] = "";
    switch (below(17)) {
    case 0: case 1:
        if (c->alive) break;
        if (below(3) == 0) snprintf(instance, sizeof instance, "i%u", below(5));
        *c = (client){.alive = true, .wanted = below(3) ? 3 : 1 + below((1u << TOPICS) - 1), .epoch = -1};
        snprintf(c->instance, sizeof c->instance, "%s", instance);
        join(w, c);
        break;
    case 2:
        if (c->alive && below(2)) die(w, c);
        break;
    case 3:
        if (!c->alive || !c->member) break;
        bw_group_leave(w->g, bw_str_of(c->id), bw_str_of(c->instance), below(2) ? BW_EPOCH_LEAVES_FOR_NOW : c->epoch, "done", w->now);
        lose_all(c);
        c->alive = false;
        break;
    case 4: /* it wants other topics */
        if (!c->alive || !c->member) break;
        c->wanted = 1 + below((1u << TOPICS) - 1);
        join(w, c);
        break;
    case 5: {
        int t = (int)below(TOPICS);
        if (w->partitions[t] < PARTS && below(4) == 0) {
            w->partitions[t] += 1 + below(2);
            if (w->partitions[t] > PARTS) w->partitions[t] = PARTS;
            assert_int_equal(bw_group_topic_grown(w->g, &w->topic_ids[t], w->partitions[t], w->now), BW_OK);
        }
        break;
    }
    case 6: { /* deleted; and made again under the same name */
        int t = (int)below(TOPICS);
        if (below(12)) break;
        bw_group_topic_gone(w->g, &w->topic_ids[t], w->now);
        w->topic_ids[t].b[1]++;
        w->partitions[t] = 1 + below(PARTS);
        for (int i = 0; i < CLIENTS; i++) memset(w->clients[i].reads[t], 0, PARTS); /* its reads fail */
        for (int i = 0; i < CLIENTS; i++)
            for (int k = 0; k < w->clients[i].push_count; k++)
                memset(w->clients[i].pushes[(w->clients[i].push_first + k) % PUSHES].has[t], 0, PARTS);
        for (uint32_t i = 0; i < w->g->member_count; i++) { /* as the registry does when a topic comes */
            bw_member *m = w->g->members[i];
            bw_topic_view topics[TOPICS];
            size_t n = views(w, m->subscription.data[0], topics);
            assert_int_equal(bw_group_resubscribe(w->g, m, (bw_str){0}, topics, n, w->now), BW_OK);
        }
        break;
    }
    case 7: case 8:
        w->now += below(below(10) ? 20 : LEASE);
        break;
    case 9:
        if (below(20) == 0) restart(w);
        break;
    case 10:
        c->stuck = below(4) == 0;
        break;
    case 11: /* the connection of one breaks, remote: it comes back, or its time runs out */
        if (c->alive && c->member && below(4) == 0) {
            bw_member *m = bw_group_with_id(w->g, bw_str_of(c->id));
            if (m) bw_group_gone(w->g, m, false, w->now);
            c->push_count = 0;
            c->cut = true;
        }
        break;
    default:
        if (!c->alive || c->stuck) break;
        take_pushes(c, 1 + (int)below(3));
        if (!c->alive) break;
        if (!c->member) join(w, c);
        else if (below(6) == 0) join(w, c);
        else beat(w, c, below(3) != 0);
    }
}

static void test_group_random_lives_keep_the_invariants(void **state)
{
    (void)state;
    for (unsigned life = 0; life < 60; life++) {
        seed = 0x9e3779b97f4a7c15u * (life + 1);
        world *w = world_new((bw_assignor_kind)(life % 4));
        for (int event = 0; event < 1000; event++) {
            random_event(w);
            if (below(3)) poll(w);
            check(w);
            if (event % 250 == 249) {
                for (int i = 0; i < CLIENTS; i++) w->clients[i].stuck = false;
                settle(w);
                check_complete(w);
            }
        }
        world_free(w);
    }
}

/* A lease is never ended early, and never later than it asked to be called. */
static void test_group_asks_to_be_called_at_the_right_time(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_RANGE);
    client *a = start(w, 0, 1, NULL);
    settle(w);
    int64_t heard = w->now;
    beat(w, a, false);
    while (w->g->member_count) {
        int64_t next = bw_group_next_ms(w->g);
        assert_true(next > w->now && next <= heard + LEASE);
        w->now = next;
        bw_group_poll(w->g, w->now);
        assert_true((w->g->member_count == 0) == (w->now >= heard + LEASE));
    }
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_one_member_joins_owns_everything),
        cmocka_unit_test(test_group_second_member_gets_its_share_only_after_the_first_gave_it_up),
        cmocka_unit_test(test_group_member_dies_its_partitions_move_in_the_same_poll),
        cmocka_unit_test(test_group_lease_ends_member_is_fenced_and_others_get_its_partitions),
        cmocka_unit_test(test_group_commits_alone_keep_the_lease),
        cmocka_unit_test(test_group_revocation_not_answered_in_time_ends_membership),
        cmocka_unit_test(test_group_static_member_back_in_time_moves_nothing),
        cmocka_unit_test(test_group_second_process_with_an_instance_id_fences_the_first),
        cmocka_unit_test(test_group_limits_and_kinds_are_refused_by_name),
        cmocka_unit_test(test_group_member_with_another_process_identity_is_refused),
        cmocka_unit_test(test_group_queue_members_all_have_every_partition),
        cmocka_unit_test(test_group_restored_members_keep_what_they_have),
        cmocka_unit_test(test_group_restored_member_claims_are_believed_only_if_saved),
        cmocka_unit_test(test_group_damaged_records_are_errors),
        cmocka_unit_test(test_group_random_lives_keep_the_invariants),
        cmocka_unit_test(test_group_asks_to_be_called_at_the_right_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
