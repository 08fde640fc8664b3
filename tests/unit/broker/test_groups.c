/* Requests of groups before a real broker: the classic protocol, assigned members, what is pushed, who lies about who he is, and what is
 * left after a restart. */
#include "fixture.h"

typedef struct told {
    bw_err error;
    char member[200], leader[200], assignment[64];
    int32_t epoch;
    size_t members, parts;
    bool has_parts;
} told;

static void copy(char *out, size_t size, bw_str s) { snprintf(out, size, "%.*s", (int)s.len, s.data ? s.data : ""); }

static told told_of(answer *a)
{
    told t = {.error = (bw_err)a->a.error, .epoch = a->a.group.epoch, .members = a->a.group.member_count, .parts = a->a.group.part_count,
              .has_parts = a->a.group.has_parts};
    copy(t.member, sizeof t.member, a->a.group.member);
    copy(t.leader, sizeof t.leader, a->a.group.leader);
    copy(t.assignment, sizeof t.assignment, a->a.group.assignment);
    answer_free(a);
    return t;
}

static told hear(fake *f, int type)
{
    answer a;
    assert_true(fake_next(f, WAIT_MS, &a));
    assert_int_equal(a.a.type, type);
    return told_of(&a);
}

static told call(fixture *fx, fake *f, bw_request *r)
{
    answer a;
    fake_call(fx, f, r, &a);
    return told_of(&a);
}

static bw_request of_group(bw_api_key type, const char *group, const char *member, int32_t epoch)
{
    bw_request r = rq(type, NULL);
    r.group.id = bw_str_of(group);
    r.group.member = bw_str_of(member);
    r.group.epoch = epoch;
    return r;
}

static bw_request classic_join(const char *member, bool needs_id)
{
    bw_request r = of_group(BW_API_JOIN_GROUP, "g", member, -1);
    r.group.protocol_type = bw_str_of("consumer");
    r.group.session_timeout_ms = r.group.rebalance_timeout_ms = 10000;
    r.group.needs_member_id = needs_id;
    r.group.protocols = calloc(1, sizeof *r.group.protocols);
    r.group.protocols[0] = (bw_group_protocol){bw_str_of("range"), bw_str_of("what I want")};
    r.group.protocol_count = 1;
    return r;
}

static bw_request classic_sync(const char *member, int32_t generation, const char *const *ids, size_t count)
{
    bw_request r = of_group(BW_API_SYNC_GROUP, "g", member, generation);
    r.group.assignments = calloc(count + 1, sizeof *r.group.assignments);
    r.group.assignment_count = count;
    for (size_t i = 0; i < count; i++)
        r.group.assignments[i] = (bw_group_member){bw_str_of(ids[i]), {0}, bw_str_of(i ? "second half" : "first half")};
    return r;
}

static void test_groups_classic_members_join_sync_beat_and_survive_a_restart(void **state)
{
    fixture *fx = *state;
    fake one, two;
    fake_open(fx, &one);
    fake_open(fx, &two);
    bw_request r = classic_join("", true);
    told a = call(fx, &one, &r);
    assert_int_equal(a.error, BW_ERR_MEMBER_ID_REQUIRED);
    assert_true(strlen(a.member) > 30);
    r = classic_join(a.member, true);
    a = call(fx, &one, &r);
    assert_int_equal(a.error, BW_OK);
    assert_string_equal(a.leader, a.member);
    assert_int_equal(a.members, 1);
    r = classic_sync(a.member, a.epoch, (const char *[]){a.member}, 1);
    assert_int_equal(fake_ask(fx, &one, &r), BW_OK);
    /* Another comes: it waits until the first has heard of it and joined again. */
    r = classic_join("", false);
    fake_send(fx, &two, &r);
    r = of_group(BW_API_HEARTBEAT, "g", a.member, a.epoch);
    bw_err e;
    while ((e = fake_ask(fx, &one, &r)) == BW_OK) usleep(1000);
    assert_int_equal(e, BW_ERR_REBALANCE_IN_PROGRESS);
    r = classic_join(a.member, false);
    a = call(fx, &one, &r);
    told b = hear(&two, BW_API_JOIN_GROUP);
    assert_int_equal(b.error, BW_OK);
    assert_int_equal(a.epoch, b.epoch);
    assert_int_equal(a.members, 2);
    assert_int_equal(b.members, 0);
    r = classic_sync(b.member, b.epoch, NULL, 0);
    fake_send(fx, &two, &r);
    r = classic_sync(a.member, a.epoch, (const char *[]){a.member, b.member}, 2);
    assert_string_equal(call(fx, &one, &r).assignment, "first half");
    assert_string_equal(hear(&two, BW_API_SYNC_GROUP).assignment, "second half");
    /* The daemon is restarted: same generation, same assignment. */
    fx_down(fx);
    fake_free(&one);
    fake_free(&two);
    fx_up(fx);
    fake_open(fx, &one);
    r = of_group(BW_API_HEARTBEAT, "g", b.member, b.epoch);
    assert_int_equal(fake_ask(fx, &one, &r), BW_OK);
    r = classic_sync(b.member, b.epoch, NULL, 0);
    assert_string_equal(call(fx, &one, &r).assignment, "second half");
    r = of_group(BW_API_HEARTBEAT, "g", b.member, b.epoch - 1);
    assert_int_equal(fake_ask(fx, &one, &r), BW_ERR_ILLEGAL_GENERATION);
    r = of_group(BW_API_DELETE_GROUP, "g", "", -1);
    assert_int_equal(fake_ask(fx, &one, &r), BW_ERR_NON_EMPTY_GROUP);
    for (int i = 0; i < 2; i++) {
        r = of_group(BW_API_LEAVE_GROUP, "g", i ? a.member : b.member, -1);
        assert_int_equal(fake_ask(fx, &one, &r), BW_OK);
        assert_int_equal(fake_ask(fx, &one, &r), BW_ERR_UNKNOWN_MEMBER_ID);
    }
    r = of_group(BW_API_DELETE_GROUP, "g", "", -1);
    assert_int_equal(fake_ask(fx, &one, &r), BW_OK);
    r = of_group(BW_API_HEARTBEAT, "g", b.member, b.epoch);
    assert_int_equal(fake_ask(fx, &one, &r), BW_ERR_GROUP_ID_NOT_FOUND);
    fake_close(fx, &one);
}

static bw_request join(const char *member, int32_t epoch, const char *topic, bool pattern)
{
    bw_request r = of_group(BW_API_GROUP_JOIN, "team", member, epoch);
    r.group.topics = calloc(1, sizeof *r.group.topics);
    r.group.topics[0] = (bw_subscription){bw_str_of(topic), pattern};
    r.group.topic_count = 1;
    return r;
}

static bw_request beat(const char *member, int32_t epoch, int owned, const char *topic)
{
    bw_request r = of_group(BW_API_GROUP_HEARTBEAT, "team", member, epoch);
    r.group.has_owned = owned >= 0;
    r.group.parts = calloc((size_t)(owned > 0 ? owned : 1), sizeof *r.group.parts);
    for (int i = 0; i < owned; i++) r.group.parts[r.group.part_count++] = (bw_offset_part){.topic = bw_str_of(topic), .partition = i};
    return r;
}

static void test_groups_assigned_members_are_told_by_pushes_and_die_with_their_connection(void **state)
{
    fixture *fx = *state;
    fake one, two;
    fake_open(fx, &one);
    fake_open(fx, &two);
    assert_int_equal(rq_create(fx, &one, "t", 4, NULL, NULL), BW_OK);
    bw_request r = join("", -1, "t", false);
    told a = call(fx, &one, &r);
    assert_int_equal(a.error, BW_OK);
    assert_true(a.has_parts);
    assert_int_equal(a.parts, 4);
    r = join("mine", -1, "t", false);
    told b = call(fx, &two, &r);
    assert_string_equal(b.member, "mine");
    assert_int_equal(b.parts, 0);
    told push = hear(&one, BW_API_GROUP_ASSIGNMENT); /* two are to be given up */
    assert_int_equal(push.parts, 2);
    assert_true(push.epoch > a.epoch);
    r = beat(a.member, a.epoch, 0, "t"); /* an owned list from before the push frees nothing */
    answer x;
    assert_int_equal(fake_call(fx, &one, &r, &x), BW_OK);
    answer_free(&x);
    assert_false(fake_wait(&two, fake_has_heard, 50));
    r = beat(a.member, push.epoch, 0, "t");
    assert_int_equal(fake_call(fx, &one, &r, &x), BW_OK);
    answer_free(&x);
    push = hear(&two, BW_API_GROUP_ASSIGNMENT);
    assert_int_equal(push.parts, 2);
    r = beat("nobody", 1, -1, "t");
    assert_int_equal(fake_ask(fx, &two, &r), BW_ERR_UNKNOWN_MEMBER_ID);
    r = beat("mine", push.epoch + 100, -1, "t");
    assert_int_equal(fake_ask(fx, &two, &r), BW_ERR_FENCED_MEMBER_EPOCH);
    fake_close(fx, &two);
    push = hear(&one, BW_API_GROUP_ASSIGNMENT);
    assert_int_equal(push.parts, 4);
    fake_close(fx, &one);
}

static void test_groups_member_that_lies_about_its_process_is_refused(void **state)
{
    fixture *fx = *state;
    fake one, liar;
    fake_open(fx, &one);
    assert_int_equal(rq_create(fx, &one, "t", 2, NULL, NULL), BW_OK);
    bw_request r = join("mine", -1, "t", false);
    told a = call(fx, &one, &r);
    assert_int_equal(a.parts, 2);
    fake_open(fx, &liar);
    bw_peer other = {.uid = geteuid(), .gid = getegid(), .pid = 1, .start_time = 0};
    bw_broker_session_closed(fx->broker, liar.session);
    assert_true(fake_wait(&liar, fake_is_gone, WAIT_MS));
    liar.gone = 0;
    liar.session = bw_broker_session_open(fx->broker, &fake_ops, &liar, &other);
    r = beat("mine", a.epoch, -1, "t");
    assert_int_equal(fake_ask(fx, &liar, &r), BW_ERR_UNKNOWN_MEMBER_ID);
    r = join("mine", a.epoch, "t", false);
    assert_int_equal(fake_ask(fx, &liar, &r), BW_ERR_UNKNOWN_MEMBER_ID);
    r = beat("mine", a.epoch, -1, "t");
    assert_int_equal(fake_ask(fx, &one, &r), BW_OK); /* nothing has happened to the real one */
    fake_close(fx, &liar);
    fake_close(fx, &one);
}

static void test_groups_bad_requests_are_named(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    bw_request r = join("", -1, "(unclosed", true);
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_ARGUMENT);
    static const char *const bad[] = {"(a)\\1",   "x{5000}",  "((((a+)+)+)+)+{200}", "w++++++++++++++++++++++++++++++",
                                      "a*+++++",   "(a*|b)+",  "((a?)*)*",            "K***********************************",
                                      "*all",      "(a|){3}",  "([]*]?)*"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        r = join("", -1, bad[i], true);
        assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_ARGUMENT);
    }
    r = join("", -1, "no/topic", false);
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_TOPIC);
    r = join("", -1, "t", false);
    r.group.session_timeout_ms = 1;
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_SESSION_TIMEOUT);
    r = join("", -1, "t", false);
    r.group.assignor = bw_str_of("best");
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_UNSUPPORTED_ASSIGNOR);
    r = join("", -1, "t", false);
    r.group.id = bw_str_of("");
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_GROUP_ID);
    static char longest[200];
    memset(longest, 'm', sizeof longest - 1);
    r = join(longest, -1, "t", false);
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_ARGUMENT);
    r = beat("x", 1, -1, "t"); /* none of these made a group */
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_GROUP_ID_NOT_FOUND);
    r = join("", -1, "nothing yet", false);
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_TOPIC);
    r = join("", -1, "later", false); /* a topic that is not there yet */
    assert_int_equal(call(fx, &f, &r).parts, 0);
    assert_int_equal(rq_create(fx, &f, "later", 3, NULL, NULL), BW_OK);
    assert_int_equal(hear(&f, BW_API_GROUP_ASSIGNMENT).parts, 3);
    r = classic_join("", false);
    r.group.id = bw_str_of("team");
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INCONSISTENT_GROUP_PROTOCOL);
    fake_close(fx, &f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_groups_classic_members_join_sync_beat_and_survive_a_restart, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_groups_assigned_members_are_told_by_pushes_and_die_with_their_connection, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_groups_member_that_lies_about_its_process_is_refused, fx_setup, fx_teardown),
        cmocka_unit_test_setup_teardown(test_groups_bad_requests_are_named, fx_setup, fx_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
