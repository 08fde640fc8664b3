/* A member of a group against a scripted daemon, over the socket: what it says and in which order; assignments taken and given up; commits
 * whose answers are lost, late or refused; a lease that ended. */
#include "group_fake.h"

/* ---- a consumer ---- */

typedef struct scene {
    fake fake;
    bw_bus *bus;
    bw_consumer *c;
    char events[512];  /* the rebalances that the program was told */
    bool commit_in_revoked, seek_in_assigned;
    int told; /* commits */
    bw_err outcomes[32];
    int64_t offsets[32];
} scene;

static void rebalanced(bw_consumer *c, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    scene *s = opaque;
    size_t at = strlen(s->events);
    at += (size_t)snprintf(s->events + at, sizeof s->events - at, "%c", "+-!"[event]);
    for (size_t i = 0; i < count; i++)
        at += (size_t)snprintf(s->events + at, sizeof s->events - at, "%s/%d@%lld ", parts[i].topic, parts[i].partition, (long long)parts[i].offset);
    bw_batch b;
    assert_int_equal(bw_consumer_poll(c, 0, &b), BW_ERR_INVALID_ARGUMENT); /* not from in here */
    if (event == BW_REBALANCE_REVOKED && s->commit_in_revoked) assert_int_equal(bw_consumer_commit(c, NULL, 0, 2000), BW_OK);
    if (event == BW_REBALANCE_ASSIGNED && s->seek_in_assigned)
        assert_int_equal(bw_consumer_seek(c, parts[0].topic, parts[0].partition, 60), BW_OK);
}

static void committed(bw_consumer *c, bw_err e, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)c;
    scene *s = opaque;
    assert_int_equal(count, 1);
    s->outcomes[s->told] = e;
    s->offsets[s->told++] = parts[0].offset;
}

static void scene_open(scene *s, const char *assign, bw_consumer_options *o)
{
    memset(s, 0, sizeof *s);
    fake_start(&s->fake);
    snprintf(s->fake.assign, sizeof s->fake.assign, "%s", assign);
    char url[160];
    snprintf(url, sizeof url, "ipc://%s", s->fake.path);
    bw_bus_options bo = BW_BUS_OPTIONS_INIT;
    bo.transport = BW_TRANSPORT_IPC;
    assert_int_equal(bw_bus_open(url, &bo, &s->bus), BW_OK);
    o->group_id = "g";
    o->on_rebalance = rebalanced;
    o->rebalance_opaque = s;
    assert_int_equal(bw_consumer_open(s->bus, o, &s->c), BW_OK);
}

static void scene_close(scene *s)
{
    bw_consumer_close(s->c);
    bw_bus_close(s->bus);
    fake_stop(&s->fake);
}

static const char *const topics[] = {"t"};

/* Poll until n batches came; the last one's offset. */
static int64_t take(scene *s, int n)
{
    int64_t last = -1;
    bw_deadline until = bw_deadline_in_ms(5000);
    while (n > 0 && bw_deadline_left_ns(until)) {
        bw_batch b;
        bw_err e = bw_consumer_poll(s->c, 20, &b);
        if (e == BW_ERR_TIMED_OUT || e == BW_ERR_NOT_CONNECTED) continue;
        if (e) fail_msg("%s: %s", bw_err_name(e), bw_error_message());
        last = b.last_offset;
        n--;
    }
    assert_int_equal(n, 0);
    return last;
}

/* Poll until the daemon heard it. */
static void poll_until(scene *s, const char *what)
{
    bw_deadline until = bw_deadline_in_ms(5000);
    bw_batch b;
    while (!heard(&s->fake, what) && bw_deadline_left_ns(until)) {
        usleep(1000); /* the daemon's turn: not all records while it wakes up */
        if (!heard(&s->fake, what)) bw_consumer_poll(s->c, 10, &b);
    }
    assert_heard(&s->fake, what, NULL);
}

static void poll_until_told(scene *s, int n)
{
    bw_deadline until = bw_deadline_in_ms(5000);
    bw_batch b;
    while (s->told < n && bw_deadline_left_ns(until)) bw_consumer_poll(s->c, 10, &b);
    assert_int_equal(s->told, n);
}

static bw_err poll_for_error(scene *s, bw_batch *b)
{
    bw_deadline until = bw_deadline_in_ms(5000);
    bw_err e = BW_OK;
    while ((e == BW_OK || e == BW_ERR_TIMED_OUT || e == BW_ERR_NOT_CONNECTED) && bw_deadline_left_ns(until)) e = bw_consumer_poll(s->c, 10, b);
    return e;
}

static bw_consumer_options plain(void)
{
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.auto_offset_reset = BW_RESET_EARLIEST;
    return o;
}

/* ---- tests ---- */

static void test_member_joins_reads_from_committed_and_leaves_with_a_commit(void **state)
{
    (void)state;
    scene s;
    bw_consumer_options o = plain();
    scene_open(&s, "t/1@-1,t/0@97", &o);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    assert_int_equal(bw_consumer_assign(s.c, "t", 0, 0), BW_ERR_INVALID_ARGUMENT);
    take(&s, 103);
    assert_heard(&s.fake, "join(,-1,) read(t/0@97)", "read(t/1@-2)");
    assert_string_equal(s.events, "+t/0@97 t/1@0 ");
    bw_group_metadata m;
    assert_int_equal(bw_consumer_group_metadata(s.c, &m), BW_OK);
    assert_string_equal(m.member_id, "m1");
    assert_int_equal(m.member_epoch, 5);
    bw_topic_partition *parts;
    size_t count;
    assert_int_equal(bw_consumer_assignment(s.c, &parts, &count), BW_OK);
    assert_int_equal(count, 2);
    assert_int_equal(parts[0].offset, 100);
    assert_int_equal(parts[0].leader_epoch, 3);
    bw_free(parts);
    assert_int_equal(bw_consumer_unsubscribe(s.c), BW_OK);
    assert_heard(&s.fake, "commit(t/0@100,t/1@100)5 ", "leave(m1)");
    assert_string_equal(s.events, "+t/0@97 t/1@0 -t/0@100 t/1@100 ");
    assert_int_equal(bw_consumer_unsubscribe(s.c), BW_ERR_NOT_SUBSCRIBED);
    scene_close(&s);
}

static void test_revoked_partition_is_committed_then_told_then_released_and_pause_stays(void **state)
{
    (void)state;
    scene s;
    bw_consumer_options o = plain();
    scene_open(&s, "t/0@90,t/1@99", &o);
    s.commit_in_revoked = true;
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    assert_int_equal(take(&s, 1), 90);
    assert_int_equal(bw_consumer_pause(s.c, "t", 0), BW_OK);
    assert_int_equal(take(&s, 1), 99);
    fake_push(&s.fake, "t/0@90,t/2@95", BW_OK);
    poll_until(&s, ",t/2@");
    assert_heard(&s.fake, "commit(t/1@", "commit(t/0@"); /* by itself, then by the program */
    assert_heard(&s.fake, "commit(t/0@", "read(t/2@95) owns(t/0@");
    assert_non_null(strstr(s.events, "-t/1@"));
    assert_non_null(strstr(s.events, "+t/2@95 "));
    bw_deadline until = bw_deadline_in_ms(200);
    bw_batch b;
    while (bw_deadline_left_ns(until))
        if (bw_consumer_poll(s.c, 10, &b) == BW_OK) assert_int_equal(b.partition, 2); /* 0 is paused still */
    scene_close(&s);
}

static void test_assigned_callback_may_seek(void **state)
{
    (void)state;
    scene s;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT; /* no reset */
    scene_open(&s, "t/0@-1", &o);
    s.seek_in_assigned = true;
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    assert_int_equal(take(&s, 1), 60);
    scene_close(&s);
}

static void test_no_committed_offset_and_no_reset_is_told_once_and_seek_goes_on(void **state)
{
    (void)state;
    scene s;
    bw_batch b;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    scene_open(&s, "t/0@-1", &o);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    assert_int_equal(poll_for_error(&s, &b), BW_ERR_NO_OFFSET);
    assert_string_equal(b.topic, "t");
    assert_int_equal(b.partition, 0);
    for (int i = 0; i < 5; i++) assert_int_equal(bw_consumer_poll(s.c, 10, &b), BW_ERR_TIMED_OUT);
    assert_int_equal(bw_consumer_seek(s.c, "t", 0, 98), BW_OK);
    assert_int_equal(take(&s, 2), 99);
    scene_close(&s);
}

static bw_topic_partition at(int32_t partition, int64_t offset)
{
    return (bw_topic_partition){.topic = "t", .partition = partition, .offset = offset, .leader_epoch = -1};
}

static void commit_at(scene *s, int32_t partition, int64_t offset)
{
    bw_topic_partition p = at(partition, offset);
    assert_int_equal(bw_consumer_commit_async(s->c, &p, 1, committed, s), BW_OK);
}

static void test_commits_are_one_request_each_and_told_in_order(void **state)
{
    (void)state;
    scene s;
    bw_consumer_options o = plain();
    o.enable_auto_commit = false;
    scene_open(&s, "t/0@0", &o);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    bw_topic_partition sync = at(0, 30), bad = at(0, -4);
    assert_int_equal(bw_consumer_commit(s.c, &sync, 1, 1000), BW_ERR_UNKNOWN_MEMBER_ID); /* not joined yet */
    take(&s, 1);
    for (int i = 0; i < 20; i++) commit_at(&s, 0, 10 + i);
    assert_int_equal(bw_consumer_commit(s.c, &bad, 1, 1000), BW_ERR_INVALID_COMMIT_OFFSET);
    assert_int_equal(bw_consumer_commit(s.c, &sync, 1, 5000), BW_OK);
    assert_int_equal(s.told, 20); /* those before it were told first */
    for (int i = 0; i < 20; i++) assert_int_equal(s.offsets[i], 10 + i);
    assert_int_equal(s.fake.commits, 21);
    assert_int_equal(bw_consumer_committed(s.c, &sync, 1, 1000), BW_OK);
    assert_int_equal(sync.offset, 40);
    assert_string_equal(sync.metadata, "noted");
    scene_close(&s);
}

static void test_commits_in_flight_are_asked_again_and_never_go_back(void **state)
{
    (void)state;
    scene s;
    bw_consumer_options o = plain();
    o.enable_auto_commit = false;
    scene_open(&s, "t/0@0,t/1@0", &o);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    take(&s, 2);
    poll_until(&s, "owns(");
    s.fake.swallow = true;
    commit_at(&s, 0, 10);
    commit_at(&s, 1, 50);
    commit_at(&s, 0, 20);
    poll_until(&s, "commit(t/0@20)");
    pthread_mutex_lock(&s.fake.lock);
    s.fake.log[0] = 0;
    s.fake.swallow = false;
    pthread_mutex_unlock(&s.fake.lock);
    fake_hang_up(&s.fake);
    poll_until_told(&s, 3);
    assert_heard(&s.fake, "join(m1,5,t/0@", "commit(t/1@50)6 commit(t/0@20)6 ");
    assert_false(heard(&s.fake, "commit(t/0@10)")); /* 20 may be committed already */
    for (int i = 0; i < 3; i++) assert_int_equal(s.outcomes[i], BW_OK);
    assert_int_equal(s.offsets[0], 10);
    assert_null(strchr(s.events, '!'));
    assert_null(strchr(s.events, '-'));
    scene_close(&s);
}

static void test_commit_of_a_partition_given_up_while_away_is_not_asked_again(void **state)
{
    (void)state;
    scene s;
    bw_consumer_options o = plain();
    o.enable_auto_commit = false;
    scene_open(&s, "t/0@0,t/1@0", &o);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    take(&s, 2);
    poll_until(&s, "owns(");
    s.fake.swallow = true;
    commit_at(&s, 1, 50);
    poll_until(&s, "commit(t/1@50)");
    fake_push(&s.fake, "t/0@0", BW_OK); /* it will be given up, and no answer to the commit comes */
    bw_deadline until = bw_deadline_in_ms(300);
    bw_batch b;
    while (bw_deadline_left_ns(until) && !strchr(s.events, '-')) bw_consumer_poll(s.c, 0, &b);
    scene_close(&s);
}

static void test_stale_epoch_is_asked_again_in_the_new_one(void **state)
{
    (void)state;
    scene s;
    bw_consumer_options o = plain();
    o.enable_auto_commit = false;
    scene_open(&s, "t/0@0", &o);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    take(&s, 1);
    pthread_mutex_lock(&s.fake.lock);
    s.fake.commit_error = BW_ERR_STALE_MEMBER_EPOCH;
    s.fake.commit_errors = 1;
    pthread_mutex_unlock(&s.fake.lock);
    fake_push(&s.fake, "t/0@0,t/1@0", BW_OK); /* lies in the socket unread */
    bw_topic_partition p = at(0, 33);
    assert_int_equal(bw_consumer_commit(s.c, &p, 1, 5000), BW_OK);
    assert_heard(&s.fake, "commit(t/0@33)5 ", "commit(t/0@33)6 ");
    pthread_mutex_lock(&s.fake.lock);
    s.fake.commit_errors = 1;
    pthread_mutex_unlock(&s.fake.lock);
    assert_int_equal(bw_consumer_commit(s.c, &p, 1, 5000), BW_ERR_STALE_MEMBER_EPOCH); /* there is no newer one */
    scene_close(&s);
}

static void test_fenced_member_loses_all_is_told_once_and_joins_anew(void **state)
{
    (void)state;
    scene s;
    bw_batch b;
    bw_consumer_options o = plain();
    scene_open(&s, "t/0@0", &o);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    take(&s, 1);
    fake_push(&s.fake, "t/0@0", BW_ERR_FENCED_MEMBER_EPOCH);
    usleep(20000);
    bw_topic_partition p = at(0, 33);
    s.fake.commit_error = BW_ERR_FENCED_MEMBER_EPOCH;
    s.fake.commit_errors = 1;
    assert_int_equal(bw_consumer_commit(s.c, &p, 1, 5000), BW_ERR_FENCED_MEMBER_EPOCH);
    assert_null(strchr(s.events, '!'));
    assert_int_equal(bw_consumer_poll(s.c, 0, &b), BW_ERR_FENCED_MEMBER_EPOCH);
    assert_non_null(strstr(bw_error_message(), "said the fake"));
    assert_string_equal(b.topic, "t");
    assert_non_null(strstr(s.events, "!t/0@"));
    take(&s, 1);
    assert_heard(&s.fake, "join(,-1,)", "join(,-1,)");
    assert_false(heard(&s.fake, "leave"));
    scene_close(&s);
}

static void test_lease_that_ended_is_verified_before_a_record_is_given(void **state)
{
    (void)state;
    scene s;
    bw_batch b;
    bw_consumer_options o = plain();
    scene_open(&s, "t/0@0", &o);
    s.fake.lease_ms = 60;
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    take(&s, 1);
    poll_until(&s, "owns(");
    usleep(100000);
    int beats = s.fake.beats;
    assert_int_equal(bw_consumer_poll(s.c, 0, &b), BW_OK); /* the daemon says that all is well: records go on */
    assert_true(s.fake.beats > beats);
    s.fake.beat_error = BW_ERR_FENCED_MEMBER_EPOCH;
    usleep(100000);
    assert_int_equal(bw_consumer_poll(s.c, 0, &b), BW_ERR_FENCED_MEMBER_EPOCH);
    scene_close(&s);
}

static void test_lease_is_renewed_by_polls(void **state)
{
    (void)state;
    scene s;
    bw_batch b;
    bw_consumer_options o = plain();
    o.enable_auto_commit = false;
    scene_open(&s, "t/0@100", &o);
    s.fake.lease_ms = 90;
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    poll_until(&s, "owns(");
    bw_deadline until = bw_deadline_in_ms(400);
    while (bw_deadline_left_ns(until)) assert_int_equal(bw_consumer_poll(s.c, 50, &b), BW_ERR_TIMED_OUT);
    assert_in_range(s.fake.beats, 6, 40); /* each 30 ms, also in a poll that sleeps longer */
    scene_close(&s);
}

static void test_positions_are_committed_by_interval_and_not_before_they_were_processed(void **state)
{
    (void)state;
    scene s;
    bw_batch b;
    bw_consumer_options o = plain();
    o.auto_commit_interval_ms = 50;
    scene_open(&s, "t/0@0", &o);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    take(&s, 1);
    usleep(80000);
    take(&s, 1); /* offset 1 is being processed: 1 is committed, which is what comes next after 0 */
    bw_deadline until = bw_deadline_in_ms(5000);
    while (!heard(&s.fake, "commit(t/0@1)") && bw_deadline_left_ns(until)) usleep(1000);
    assert_heard(&s.fake, "commit(t/0@1)", NULL);
    take(&s, 90);
    usleep(80000);
    bw_consumer_poll(s.c, 0, &b);
    poll_until(&s, "commit(t/0@92)");
    scene_close(&s);
}

static void test_refused_join_is_told_and_asked_again(void **state)
{
    (void)state;
    scene s;
    bw_batch b;
    bw_consumer_options o = plain();
    scene_open(&s, "t/0@0", &o);
    s.fake.join_error = BW_ERR_GROUP_MAX_SIZE_REACHED;
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    assert_int_equal(poll_for_error(&s, &b), BW_ERR_GROUP_MAX_SIZE_REACHED);
    assert_null(b.topic);
    take(&s, 1);
    assert_int_equal(s.fake.joins, 2);
    scene_close(&s);
}

static void test_instance_taken_over_is_final_until_unsubscribed(void **state)
{
    (void)state;
    scene s;
    bw_batch b;
    bw_consumer_options o = plain();
    o.group_instance_id = "i";
    scene_open(&s, "t/0@0", &o);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    take(&s, 1);
    fake_push(&s.fake, "", BW_ERR_FENCED_INSTANCE_ID);
    assert_int_equal(poll_for_error(&s, &b), BW_ERR_FENCED_INSTANCE_ID);
    for (int i = 0; i < 3; i++) assert_int_equal(bw_consumer_poll(s.c, 10, &b), BW_ERR_FENCED_INSTANCE_ID);
    assert_int_equal(s.fake.joins, 1);
    assert_int_equal(bw_consumer_unsubscribe(s.c), BW_OK);
    scene_close(&s);
    assert_false(heard(&s.fake, "leave"));
}

static void test_subscription_is_checked_and_told_when_it_changes(void **state)
{
    (void)state;
    scene s;
    bw_consumer_options o = plain();
    scene_open(&s, "t/0@0", &o);
    const char *const broken[] = {"^(t"}, *const names[] = {"t", "^u.*"}, *const bad[] = {"no spaces"};
    assert_int_equal(bw_consumer_subscribe(s.c, broken, 1), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_consumer_subscribe(s.c, bad, 1), BW_ERR_INVALID_TOPIC);
    assert_int_equal(bw_consumer_subscribe(s.c, names, 0), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    take(&s, 1);
    assert_int_equal(bw_consumer_subscribe(s.c, names, 2), BW_OK);
    const char **list;
    size_t count;
    assert_int_equal(bw_consumer_subscription(s.c, &list, &count), BW_OK);
    assert_int_equal(count, 2);
    assert_string_equal(list[1], "^u.*");
    bw_free(list);
    int beats = s.fake.beats;
    take(&s, 1);
    bw_deadline until = bw_deadline_in_ms(5000);
    while (s.fake.beats == beats && bw_deadline_left_ns(until)) usleep(1000);
    assert_true(s.fake.beats > beats);
    bw_consumer_options none = BW_CONSUMER_OPTIONS_INIT;
    bw_consumer *hand;
    assert_int_equal(bw_consumer_open(s.bus, &none, &hand), BW_OK);
    assert_int_equal(bw_consumer_subscribe(hand, topics, 1), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_consumer_commit(hand, NULL, 0, 10), BW_ERR_INVALID_ARGUMENT);
    bw_consumer_close(hand);
    none.group_id = "g";
    none.assignor = "mine";
    assert_int_equal(bw_consumer_open(s.bus, &none, &hand), BW_ERR_UNSUPPORTED_ASSIGNOR);
    none.group_id = "";
    assert_int_equal(bw_consumer_open(s.bus, &none, &hand), BW_ERR_INVALID_GROUP_ID);
    scene_close(&s);
}

static void test_close_without_a_daemon_is_bounded(void **state)
{
    (void)state;
    scene s;
    bw_consumer_options o = plain();
    scene_open(&s, "t/0@0", &o);
    assert_int_equal(bw_consumer_subscribe(s.c, topics, 1), BW_OK);
    take(&s, 3);
    fake_stop(&s.fake);
    commit_at(&s, 0, 2);
    int64_t begin = bw_clock_mono_ms();
    bw_consumer_close(s.c);
    assert_true(bw_clock_mono_ms() - begin < 3000);
    assert_int_equal(s.told, 1); /* every callback is called */
    assert_int_not_equal(s.outcomes[0], BW_OK);
    bw_bus_close(s.bus);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_member_joins_reads_from_committed_and_leaves_with_a_commit),
        cmocka_unit_test(test_revoked_partition_is_committed_then_told_then_released_and_pause_stays),
        cmocka_unit_test(test_assigned_callback_may_seek),
        cmocka_unit_test(test_no_committed_offset_and_no_reset_is_told_once_and_seek_goes_on),
        cmocka_unit_test(test_commits_are_one_request_each_and_told_in_order),
        cmocka_unit_test(test_commits_in_flight_are_asked_again_and_never_go_back),
        cmocka_unit_test(test_commit_of_a_partition_given_up_while_away_is_not_asked_again),
        cmocka_unit_test(test_stale_epoch_is_asked_again_in_the_new_one),
        cmocka_unit_test(test_fenced_member_loses_all_is_told_once_and_joins_anew),
        cmocka_unit_test(test_lease_that_ended_is_verified_before_a_record_is_given),
        cmocka_unit_test(test_lease_is_renewed_by_polls),
        cmocka_unit_test(test_positions_are_committed_by_interval_and_not_before_they_were_processed),
        cmocka_unit_test(test_refused_join_is_told_and_asked_again),
        cmocka_unit_test(test_instance_taken_over_is_final_until_unsubscribed),
        cmocka_unit_test(test_subscription_is_checked_and_told_when_it_changes),
        cmocka_unit_test(test_close_without_a_daemon_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
