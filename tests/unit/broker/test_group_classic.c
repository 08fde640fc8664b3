/* The classic group protocol: scripts of events as Kafka's coordinator answers them, and random lives with clients that do what Kafka's do. */
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

enum { CLIENTS = 10, SESSION = 1000, REBALANCE = 3000 };

typedef enum want { WANT_JOIN, IN_JOIN, WANT_SYNC, IN_SYNC, MEMBER } want;

/* A client, and what it was told last. */
typedef struct client {
    bool alive, asks_id;
    want state;
    char id[64], instance[16], leader[64], protocol[16], assignment[64];
    const char *protocols[2], *metadata;
    int32_t generation;
    bw_err error;       /* of the last answer */
    unsigned members;   /* that a leader was told */
    char ids[CLIENTS + 4][64];
    bool waits;         /* a request is on its way */
} client;

typedef struct world {
    bw_group *g;
    int64_t now;
    client clients[CLIENTS];
    int next_id;
    int32_t generation;
    unsigned removed, saved;
} world;

static bw_group_limits limits;

static void copy(char *out, size_t size, const char *text) { snprintf(out, size, "%s", text ? text : ""); }

static void on_save(void *context, bw_group *g, bw_member *m)
{
    (void)m;
    world *w = context;
    assert_true(g->epoch >= w->generation); /* generations never go back */
    w->generation = g->epoch;
    w->saved++;
}

static void on_removed(void *context, bw_group *g, bw_member *m, bw_err why, const char *reason)
{
    (void)g, (void)m, (void)why, (void)reason;
    ((world *)context)->removed++;
}

static void on_joined(void *context, bw_group *g, void *token, const bw_joined *a)
{
    client *c = token;
    (void)context;
    assert_true(c->waits && c->state == IN_JOIN); /* one answer a request */
    c->waits = false;
    c->error = a->error;
    copy(c->leader, sizeof c->leader, a->leader);
    copy(c->protocol, sizeof c->protocol, a->protocol);
    c->members = (unsigned)a->member_count;
    if (a->error == BW_ERR_MEMBER_ID_REQUIRED) copy(c->id, sizeof c->id, a->member);
    if (a->error) {
        c->state = WANT_JOIN;
        if (a->error == BW_ERR_UNKNOWN_MEMBER_ID) c->id[0] = 0;
        if (a->error == BW_ERR_FENCED_INSTANCE_ID) c->alive = false;
        return;
    }
    copy(c->id, sizeof c->id, a->member);
    c->generation = a->generation;
    c->state = WANT_SYNC;
    for (size_t i = 0; i < a->member_count; i++) {
        copy(c->ids[i], sizeof c->ids[i], a->members[i]->id);
        assert_true(bw_member_metadata(g, a->members[i]).len > 0);
    }
}

static void on_synced(void *context, bw_group *g, void *token, bw_err e, const bw_member *m)
{
    client *c = token;
    (void)context, (void)g;
    assert_true(c->waits && c->state == IN_SYNC);
    c->waits = false;
    c->error = e;
    if (e) {
        c->state = WANT_JOIN;
        if (e == BW_ERR_UNKNOWN_MEMBER_ID) c->id[0] = 0;
        if (e == BW_ERR_FENCED_INSTANCE_ID) c->alive = false;
        return;
    }
    assert_string_equal(m->id, c->id);
    c->state = MEMBER;
    size_t n = m->assignment.len < sizeof c->assignment - 1 ? m->assignment.len : sizeof c->assignment - 1;
    if (n) memcpy(c->assignment, m->assignment.data, n);
    c->assignment[n] = 0;
}

static const bw_group_ops ops = {.save = on_save, .removed = on_removed, .joined = on_joined, .synced = on_synced};

static world *world_new(void)
{
    world *w = calloc(1, sizeof *w);
    limits = (bw_group_limits){.max_members = CLIENTS, .max_bytes = 1 << 20, .min_session_ms = 10, .max_session_ms = 100000};
    w->now = 5;
    assert_int_equal(bw_group_create(bw_str_of("g"), &limits, &ops, w, w->now, &w->g), BW_OK);
    for (int i = 0; i < CLIENTS; i++) w->clients[i] = (client){.protocols = {"range", "sticky"}, .metadata = "topics", .generation = -1};
    return w;
}

static void world_free(world *w)
{
    bw_group_free(w->g);
    free(w);
}

static void poll(world *w)
{
    for (int i = 0; bw_group_next_ms(w->g) <= w->now; i++) {
        bw_group_poll(w->g, w->now);
        assert_true(i < 10);
    }
}

/* Time passes as it does in the daemon: polled whenever it asked for it. */
static void pass(world *w, int64_t ms)
{
    int64_t until = w->now + ms;
    while (bw_group_next_ms(w->g) <= until) {
        if (bw_group_next_ms(w->g) > w->now) w->now = bw_group_next_ms(w->g);
        bw_group_poll(w->g, w->now);
    }
    w->now = until;
}

static void join(world *w, client *c)
{
    char id[64];
    bw_group_protocol list[2];
    size_t n = 0;
    for (; n < 2 && c->protocols[n]; n++) list[n] = (bw_group_protocol){bw_str_of(c->protocols[n]), bw_str_of(c->metadata)};
    snprintf(id, sizeof id, "m%d", ++w->next_id);
    bw_classic_join j = {.member = bw_str_of(c->id), .instance = bw_str_of(c->instance), .protocol_type = bw_str_of("consumer"),
                         .new_id = bw_str_of(id), .needs_member_id = c->asks_id, .session_ms = SESSION, .rebalance_ms = REBALANCE,
                         .protocols = list, .protocol_count = n};
    assert_false(c->waits);
    c->alive = c->waits = true;
    c->state = IN_JOIN;
    bw_group_classic_join(w->g, &j, c, w->now);
}

/* A leader assigns "part of ID" to each. */
static void sync_group(world *w, client *c)
{
    bw_group_member list[CLIENTS + 4];
    char texts[CLIENTS + 4][80];
    bw_group_request r = {.member = bw_str_of(c->id), .instance = bw_str_of(c->instance), .epoch = c->generation, .assignments = list};
    if (strcmp(c->leader, c->id) == 0)
        for (; r.assignment_count < c->members; r.assignment_count++) {
            size_t i = r.assignment_count;
            snprintf(texts[i], sizeof texts[i], "part of %s", c->ids[i]);
            list[i] = (bw_group_member){.member = bw_str_of(c->ids[i]), .metadata = bw_str_of(texts[i])};
        }
    c->waits = true;
    c->state = IN_SYNC;
    bw_group_classic_sync(w->g, &r, c, w->now);
}

static bw_err beat(world *w, client *c)
{
    bw_err e = bw_group_classic_beat(w->g, bw_str_of(c->id), bw_str_of(c->instance), c->generation, w->now);
    if (e == BW_ERR_REBALANCE_IN_PROGRESS || e == BW_ERR_ILLEGAL_GENERATION) c->state = WANT_JOIN;
    if (e == BW_ERR_UNKNOWN_MEMBER_ID) {
        c->state = WANT_JOIN;
        c->id[0] = 0;
    }
    if (e == BW_ERR_FENCED_INSTANCE_ID) c->alive = false;
    return e;
}

/* Everybody does what a client does next. */
static void step(world *w, client *c)
{
    if (!c->alive || c->waits) return;
    if (c->state == WANT_JOIN) join(w, c);
    else if (c->state == WANT_SYNC) sync_group(w, c);
    else beat(w, c);
}

static void settle(world *w)
{
    for (int round = 0; round < 60; round++) {
        for (int i = 0; i < CLIENTS; i++) step(w, &w->clients[i]);
        poll(w);
        bool quiet = true;
        for (int i = 0; i < CLIENTS; i++) quiet &= !w->clients[i].alive || (w->clients[i].state == MEMBER && w->clients[i].generation == w->g->epoch);
        if (quiet && (w->g->state == BW_GROUP_STABLE || !w->g->member_count)) return;
        pass(w, 200); /* who does not answer is given up after a while */
    }
    fail_msg("the group does not come to rest: %s", bw_group_state_name(w->g->state, BW_GROUP_CLASSIC));
}

static client *start(world *w, int i)
{
    join(w, &w->clients[i]);
    return &w->clients[i];
}

/* ---- scripts ---- */

static void test_classic_two_members_leader_assigns_all_are_told(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = start(w, 0), *b = start(w, 1);
    assert_int_equal(w->g->state, BW_GROUP_PREPARING);
    poll(w); /* no delay: the first round ends at once, with who is there */
    assert_int_equal(a->state, WANT_SYNC);
    assert_int_equal(a->generation, 1);
    assert_string_equal(a->leader, a->id);
    assert_string_equal(b->leader, a->id);
    assert_int_equal(a->members, 2);
    assert_int_equal(b->members, 0);
    sync_group(w, b);
    assert_true(b->waits);
    sync_group(w, a);
    assert_false(b->waits);
    assert_int_equal(w->g->state, BW_GROUP_STABLE);
    char text[80];
    snprintf(text, sizeof text, "part of %s", b->id);
    assert_string_equal(b->assignment, text);
    assert_int_equal(beat(w, a), BW_OK);
    assert_int_equal(bw_group_classic_beat(w->g, bw_str_of(a->id), (bw_str){0}, 0, w->now), BW_ERR_ILLEGAL_GENERATION);
    assert_int_equal(bw_group_classic_beat(w->g, bw_str_of("x"), (bw_str){0}, 1, w->now), BW_ERR_UNKNOWN_MEMBER_ID);
    world_free(w);
}

static void test_classic_member_id_required_is_a_pending_member_until_it_joins(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = &w->clients[0];
    a->asks_id = true;
    join(w, a);
    assert_int_equal(a->error, BW_ERR_MEMBER_ID_REQUIRED);
    assert_true(a->id[0] != 0);
    assert_int_equal(w->g->member_count, 0);
    assert_int_equal(bw_group_bury(w->g), BW_ERR_NON_EMPTY_GROUP);
    char first[64];
    copy(first, sizeof first, a->id);
    join(w, a);
    poll(w);
    assert_int_equal(a->state, WANT_SYNC);
    assert_string_equal(a->id, first);
    client *b = &w->clients[1]; /* one that never comes with its id holds nobody up for longer than its session */
    b->asks_id = true;
    join(w, b);
    pass(w, SESSION + 1);
    assert_null(w->g->pending);
    join(w, b);
    assert_int_equal(b->error, BW_ERR_UNKNOWN_MEMBER_ID);
    world_free(w);
}

static void test_classic_newcomer_others_are_told_to_join_again(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = start(w, 0);
    settle(w);
    client *b = start(w, 1);
    poll(w);
    assert_true(b->waits);
    assert_int_equal(bw_group_may_commit(w->g, bw_str_of(a->id), (bw_str){0}, 1, bw_str_of("t"), 0, w->now), BW_OK); /* what it still had */
    assert_int_equal(beat(w, a), BW_ERR_REBALANCE_IN_PROGRESS);
    join(w, a);
    assert_int_equal(a->generation, 2);
    assert_int_equal(b->generation, 2);
    assert_string_equal(b->leader, a->id);
    assert_int_equal(bw_group_may_commit(w->g, bw_str_of(a->id), (bw_str){0}, 2, bw_str_of("t"), 0, w->now), BW_ERR_REBALANCE_IN_PROGRESS);
    assert_int_equal(bw_group_may_commit(w->g, bw_str_of(a->id), (bw_str){0}, 1, bw_str_of("t"), 0, w->now), BW_ERR_ILLEGAL_GENERATION);
    sync_group(w, a);
    sync_group(w, b);
    assert_int_equal(b->state, MEMBER);
    world_free(w);
}

static void test_classic_who_does_not_join_again_is_removed_after_the_rebalance_timeout(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = start(w, 0), *b = start(w, 1);
    settle(w);
    client *c = start(w, 2);
    for (int64_t t = 0; t < REBALANCE; t += 500) { /* b beats, but does not join */
        bw_group_classic_beat(w->g, bw_str_of(b->id), (bw_str){0}, b->generation, w->now);
        if (t == 0) join(w, a);
        assert_true(c->waits);
        pass(w, 500);
    }
    pass(w, 1);
    assert_int_equal(c->state, WANT_SYNC);
    assert_int_equal(w->g->member_count, 2);
    assert_null(bw_group_with_id(w->g, bw_str_of(b->id)));
    world_free(w);
}

static void test_classic_session_ends_without_heartbeats(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = start(w, 0), *b = start(w, 1);
    settle(w);
    for (int i = 0; i < 4; i++) {
        pass(w, SESSION / 3);
        beat(w, a);
    }
    assert_int_equal(a->state, WANT_JOIN); /* b is gone, the group rebalances */
    assert_null(bw_group_with_id(w->g, bw_str_of(b->id)));
    b->alive = false;
    settle(w);
    assert_int_equal(a->members, 1);
    world_free(w);
}

static void test_classic_sync_errors_by_name(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = start(w, 0), *b = start(w, 1);
    poll(w);
    bw_group_request r = {.member = bw_str_of(b->id), .epoch = 7};
    b->waits = true, b->state = IN_SYNC;
    bw_group_classic_sync(w->g, &r, b, w->now);
    assert_int_equal(b->error, BW_ERR_ILLEGAL_GENERATION);
    r = (bw_group_request){.member = bw_str_of("nobody"), .epoch = 1};
    b->waits = true, b->state = IN_SYNC;
    bw_group_classic_sync(w->g, &r, b, w->now);
    assert_int_equal(b->error, BW_ERR_UNKNOWN_MEMBER_ID);
    copy(b->id, sizeof b->id, w->g->members[1]->id);
    r = (bw_group_request){.member = bw_str_of(b->id), .epoch = 1, .protocol = bw_str_of("sticky")};
    b->waits = true, b->state = IN_SYNC;
    bw_group_classic_sync(w->g, &r, b, w->now);
    assert_int_equal(b->error, BW_ERR_INCONSISTENT_GROUP_PROTOCOL);
    b->generation = 1;
    sync_group(w, b);
    assert_true(b->waits);
    client *c = start(w, 2); /* who waits in a sync is told when somebody comes */
    (void)c;
    assert_int_equal(b->error, BW_ERR_REBALANCE_IN_PROGRESS);
    sync_group(w, a);
    assert_int_equal(a->error, BW_ERR_REBALANCE_IN_PROGRESS);
    world_free(w);
}

static void test_classic_leader_that_never_syncs_is_removed(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = start(w, 0), *b = start(w, 1);
    poll(w);
    sync_group(w, b);
    for (int i = 0; i < 8 && b->waits; i++) {
        bw_group_classic_beat(w->g, bw_str_of(a->id), (bw_str){0}, a->generation, w->now);
        pass(w, 500);
    }
    assert_int_equal(b->error, BW_ERR_REBALANCE_IN_PROGRESS);
    assert_null(bw_group_with_id(w->g, bw_str_of(a->id)));
    a->alive = false;
    settle(w);
    assert_string_equal(b->leader, b->id);
    world_free(w);
}

static void test_classic_protocol_is_voted_and_must_be_common(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = &w->clients[0], *b = &w->clients[1], *c = &w->clients[2];
    b->protocols[0] = c->protocols[0] = "sticky";
    b->protocols[1] = c->protocols[1] = "range";
    join(w, a);
    join(w, b);
    join(w, c);
    poll(w);
    assert_string_equal(a->protocol, "sticky"); /* two votes to one */
    client *d = &w->clients[3];
    d->protocols[0] = "other";
    d->protocols[1] = NULL;
    join(w, d);
    assert_int_equal(d->error, BW_ERR_INCONSISTENT_GROUP_PROTOCOL);
    bw_classic_join none = {.protocol_type = bw_str_of("connect"), .session_ms = SESSION, .new_id = bw_str_of("x")};
    d->waits = true, d->state = IN_JOIN;
    bw_group_classic_join(w->g, &none, d, w->now);
    assert_int_equal(d->error, BW_ERR_INCONSISTENT_GROUP_PROTOCOL);
    none.session_ms = 1;
    d->waits = true, d->state = IN_JOIN;
    bw_group_classic_join(w->g, &none, d, w->now);
    assert_int_equal(d->error, BW_ERR_INVALID_SESSION_TIMEOUT);
    bw_member *m;
    bw_member_join other = {.kind = BW_GROUP_CONSUMER, .new_id = bw_str_of("y")};
    assert_int_equal(bw_group_admit(w->g, &other, w->now, &m), BW_ERR_INCONSISTENT_GROUP_PROTOCOL);
    world_free(w);
}

static void test_classic_static_member_comes_back_without_a_rebalance_and_fences_the_former(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = &w->clients[0], *s = &w->clients[1], *again = &w->clients[2];
    copy(s->instance, sizeof s->instance, "s1");
    copy(again->instance, sizeof again->instance, "s1");
    join(w, a);
    join(w, s);
    settle(w);
    char former[64], had[64];
    copy(former, sizeof former, s->id);
    copy(had, sizeof had, s->assignment);
    join(w, again);
    assert_int_equal(again->error, BW_OK);
    assert_int_equal(again->generation, 1); /* no rebalance */
    assert_string_not_equal(again->id, former);
    sync_group(w, again);
    assert_string_equal(again->assignment, had);
    assert_int_equal(beat(w, a), BW_OK);
    assert_int_equal(bw_group_classic_beat(w->g, bw_str_of(former), bw_str_of("s1"), 1, w->now), BW_ERR_FENCED_INSTANCE_ID);
    assert_int_equal(bw_group_may_commit(w->g, bw_str_of(former), bw_str_of("s1"), 1, bw_str_of("t"), 0, w->now), BW_ERR_FENCED_INSTANCE_ID);
    join(w, s);
    assert_int_equal(s->error, BW_ERR_FENCED_INSTANCE_ID);
    world_free(w);
}

static void test_classic_static_leader_back_assigns_nothing_while_stable(void **state)
{
    (void)state;
    world *w = world_new();
    client *s = &w->clients[0], *again = &w->clients[2];
    copy(s->instance, sizeof s->instance, "s1");
    copy(again->instance, sizeof again->instance, "s1");
    join(w, s);
    join(w, &w->clients[1]);
    settle(w);
    char former[64];
    copy(former, sizeof former, s->id);
    s->alive = false;
    join(w, again);
    assert_string_equal(again->leader, former); /* so it does not think that it leads */
    assert_int_equal(again->members, 0);
    assert_string_equal(w->g->leader, again->id);
    world_free(w);
}

static void test_classic_initial_delay_waits_for_more(void **state)
{
    (void)state;
    world *w = world_new();
    limits.initial_delay_ms = 500;
    client *a = start(w, 0);
    pass(w, 400);
    assert_true(a->waits);
    client *b = start(w, 1);
    pass(w, 300); /* somebody came meanwhile: once more as long */
    assert_true(a->waits && b->waits);
    pass(w, 301);
    assert_false(a->waits || b->waits);
    assert_int_equal(a->members, 2);
    assert_int_equal(a->generation, 1);
    world_free(w);
}

static void test_classic_full_group_refuses_more(void **state)
{
    (void)state;
    world *w = world_new();
    limits.max_members = 2;
    start(w, 0);
    start(w, 1);
    client *c = start(w, 2);
    assert_int_equal(c->error, BW_ERR_GROUP_MAX_SIZE_REACHED);
    c->alive = false;
    settle(w);
    join(w, c);
    assert_int_equal(c->error, BW_ERR_GROUP_MAX_SIZE_REACHED);
    assert_int_equal(w->g->member_count, 2);
    world_free(w);
}

static void test_classic_leave_empties_the_group_and_offsets_are_anybodys(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = start(w, 0);
    settle(w);
    assert_int_equal(bw_group_may_commit(w->g, (bw_str){0}, (bw_str){0}, -1, bw_str_of("t"), 0, w->now), BW_ERR_UNKNOWN_MEMBER_ID);
    assert_int_equal(bw_group_leave(w->g, bw_str_of("x"), (bw_str){0}, 0, "", w->now), BW_ERR_UNKNOWN_MEMBER_ID);
    assert_int_equal(bw_group_leave(w->g, bw_str_of(a->id), (bw_str){0}, 0, "done", w->now), BW_OK);
    poll(w);
    assert_int_equal(w->g->state, BW_GROUP_EMPTY);
    assert_int_equal(w->g->bytes, 0);
    assert_int_equal(bw_group_may_commit(w->g, (bw_str){0}, (bw_str){0}, -1, bw_str_of("t"), 0, w->now), BW_OK);
    assert_int_equal(bw_group_bury(w->g), BW_OK);
    a->state = WANT_JOIN;
    join(w, a);
    assert_int_not_equal(a->error, BW_OK);
    world_free(w);
}

static void test_classic_restored_group_goes_on_in_its_generation(void **state)
{
    (void)state;
    world *w = world_new();
    client *a = start(w, 0), *b = start(w, 1);
    copy(b->instance, sizeof b->instance, ""); /* dynamic */
    settle(w);
    bw_buf group = {0}, member[2] = {{0}, {0}};
    assert_int_equal(bw_group_encode(w->g, &group), BW_OK);
    for (int i = 0; i < 2; i++) assert_int_equal(bw_member_encode(w->g, w->g->members[i], &member[i]), BW_OK);
    bw_group_free(w->g);
    assert_int_equal(bw_group_create(bw_str_of("g"), &limits, &ops, w, w->now, &w->g), BW_OK);
    assert_int_equal(bw_group_decode(w->g, group.data, group.len), BW_OK);
    for (int i = 0; i < 2; i++) {
        bw_saved_member s;
        assert_int_equal(bw_saved_member_decode(member[i].data, member[i].len, &s), BW_OK);
        assert_int_equal(bw_group_restore(w->g, &s, NULL, 0, w->now), BW_OK);
        assert_int_equal(bw_group_restore(w->g, &s, NULL, 0, w->now), BW_ERR_CORRUPT); /* twice */
        bw_saved_member_fini(&s);
        bw_buf_free(&member[i]);
    }
    bw_buf_free(&group);
    poll(w);
    assert_int_equal(w->g->state, BW_GROUP_STABLE);
    assert_int_equal(beat(w, a), BW_OK);
    assert_int_equal(beat(w, b), BW_OK);
    sync_group(w, b); /* its assignment is there */
    assert_int_equal(b->error, BW_OK);
    assert_true(strlen(b->assignment) > 0);
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

static void check(const world *w)
{
    const bw_group *g = w->g;
    uint32_t joins = 0, syncs = 0;
    int64_t due = g->join_until_ms < g->sync_until_ms ? g->join_until_ms : g->sync_until_ms;
    bool leader = !g->member_count;
    for (uint32_t i = 0; i < g->member_count; i++) {
        const bw_member *m = g->members[i];
        joins += m->join_token != NULL;
        syncs += m->owes_sync;
        assert_false(m->join_token && m->sync_token);
        if (m->join_token) assert_int_equal(g->state, BW_GROUP_PREPARING);
        if (m->sync_token) assert_int_equal(g->state, BW_GROUP_COMPLETING);
        leader |= g->leader && strcmp(g->leader, m->id) == 0;
        if (m->deadline_ms < due && !m->join_token && !m->sync_token) due = m->deadline_ms;
    }
    assert_true(leader);
    assert_int_equal(joins, g->awaiting_join);
    assert_int_equal(syncs, g->owing_sync);
    assert_true(bw_group_next_ms(g) <= due || due <= w->now);
    /* Whoever waits is known to the group: nobody is forgotten. */
    unsigned waiting = 0, tokens = 0;
    for (int i = 0; i < CLIENTS; i++) waiting += w->clients[i].waits;
    for (uint32_t i = 0; i < g->member_count; i++) tokens += (g->members[i]->join_token != NULL) + (g->members[i]->sync_token != NULL);
    assert_int_equal(waiting, tokens);
    /* Two members of one generation have different ids, and nobody believes in a generation that was not. */
    for (int i = 0; i < CLIENTS; i++)
        if (w->clients[i].alive && w->clients[i].state == MEMBER) assert_true(w->clients[i].generation <= g->epoch);
}

static void random_event(world *w)
{
    client *c = &w->clients[below(CLIENTS)];
    switch (below(12)) {
    case 0:
        if (c->alive || c->waits) break;
        *c = (client){.protocols = {below(2) ? "range" : "sticky", "range"}, .metadata = below(2) ? "topics" : "others", .generation = -1,
                      .asks_id = below(2), .alive = true};
        if (strcmp(c->protocols[0], "range") == 0) c->protocols[1] = "sticky";
        if (below(4) == 0) snprintf(c->instance, sizeof c->instance, "i%u", below(3));
        break;
    case 1: /* dies: its connection's end tells, or nobody does */
        if (!c->alive || c->waits || below(3)) break;
        c->alive = false;
        if (below(2)) {
            bw_member *m = bw_group_with_id(w->g, bw_str_of(c->id));
            if (m) bw_group_gone(w->g, m, true, w->now);
        }
        break;
    case 2:
        if (!c->alive || c->waits || below(3)) break;
        bw_group_leave(w->g, bw_str_of(c->id), bw_str_of(c->instance), 0, "", w->now);
        c->alive = false;
        break;
    case 3:
        if (c->alive && !c->waits) c->metadata = below(2) ? "topics" : "others", c->state = WANT_JOIN; /* it subscribes to something else */
        break;
    case 4:
    case 5: pass(w, below(300)); break;
    case 6:
        if (below(10) == 0) pass(w, below(REBALANCE));
        break;
    default: step(w, c);
    }
}

static void test_classic_random_lives_keep_the_invariants(void **state)
{
    (void)state;
    unsigned generations = 0;
    for (unsigned life = 0; life < 40; life++) {
        seed = 0x9e3779b97f4a7c15u * (life + 1);
        world *w = world_new();
        limits.initial_delay_ms = life % 3 ? 0 : 100;
        for (int event = 0; event < 1500; event++) {
            random_event(w);
            if (below(3)) poll(w);
            check(w);
            if (event % 300 == 299) {
                settle(w);
                check(w);
                for (int i = 0; i < CLIENTS; i++) /* everybody has what the leader of this generation gave him */
                    if (w->clients[i].alive) {
                        char text[80];
                        snprintf(text, sizeof text, "part of %s", w->clients[i].id);
                        bool renamed = w->clients[i].instance[0]; /* a static one may have its former id's part */
                        if (!renamed) assert_string_equal(w->clients[i].assignment, text);
                    }
            }
        }
        generations += (unsigned)w->g->epoch;
        world_free(w);
    }
    assert_true(generations > 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classic_two_members_leader_assigns_all_are_told),
        cmocka_unit_test(test_classic_member_id_required_is_a_pending_member_until_it_joins),
        cmocka_unit_test(test_classic_newcomer_others_are_told_to_join_again),
        cmocka_unit_test(test_classic_who_does_not_join_again_is_removed_after_the_rebalance_timeout),
        cmocka_unit_test(test_classic_session_ends_without_heartbeats),
        cmocka_unit_test(test_classic_sync_errors_by_name),
        cmocka_unit_test(test_classic_leader_that_never_syncs_is_removed),
        cmocka_unit_test(test_classic_protocol_is_voted_and_must_be_common),
        cmocka_unit_test(test_classic_static_member_comes_back_without_a_rebalance_and_fences_the_former),
        cmocka_unit_test(test_classic_static_leader_back_assigns_nothing_while_stable),
        cmocka_unit_test(test_classic_initial_delay_waits_for_more),
        cmocka_unit_test(test_classic_full_group_refuses_more),
        cmocka_unit_test(test_classic_leave_empties_the_group_and_offsets_are_anybodys),
        cmocka_unit_test(test_classic_restored_group_goes_on_in_its_generation),
        cmocka_unit_test(test_classic_random_lives_keep_the_invariants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
