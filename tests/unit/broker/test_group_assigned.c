/* Groups that the daemon assigns: scripts of events. */
#include "group_world.h"

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
        cmocka_unit_test(test_group_asks_to_be_called_at_the_right_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
