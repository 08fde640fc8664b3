/* Groups and restarts of the daemon; and long random lives of groups, with the invariants of group.h after each event. */
#include "group_world.h"

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

/* The daemon saved a join and died before it answered: the client asks again, with the id that it chose, and there is one member. */
static void test_group_join_whose_answer_was_lost_is_found_again(void **state)
{
    (void)state;
    world *w = world_new(BW_ASSIGNOR_COOPERATIVE_STICKY);
    bw_topic_view topics[TOPICS];
    bw_member *first, *second;
    uint8_t subscription[1] = {1};
    bw_member_join j = {.member = bw_str_of("mine-1"), .epoch = -1, .kind = BW_GROUP_CONSUMER, .lease_ms = LEASE, .topics = topics,
                        .topic_count = views(w, 1, topics), .subscription = {(const char *)subscription, 1}, .new_id = bw_str_of("yours")};
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &first), BW_OK);
    assert_string_equal(first->id, "mine-1");
    poll(w);
    restart(w);
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &second), BW_OK);
    assert_int_equal(w->g->member_count, 1);
    assert_int_equal(second->part_count, 6);
    j.epoch = 0; /* that epoch it can only have from us */
    j.member = bw_str_of("theirs");
    assert_int_equal(bw_group_admit(w->g, &j, w->now, &second), BW_ERR_UNKNOWN_MEMBER_ID);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_group_restored_members_keep_what_they_have),
        cmocka_unit_test(test_group_join_whose_answer_was_lost_is_found_again),
        cmocka_unit_test(test_group_restored_member_claims_are_believed_only_if_saved),
        cmocka_unit_test(test_group_damaged_records_are_errors),
        cmocka_unit_test(test_group_random_lives_keep_the_invariants),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
