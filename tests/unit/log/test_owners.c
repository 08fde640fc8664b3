/* Biased partition locks: giving and taking away, whoever is alive, stopped or dead. */
#include "engine_fixture.h"

#include <pthread.h>
#include <signal.h>

enum { APPENDS_TO_BIAS = 12, ROOM = 1 << 20 };

typedef struct biased {
    engine g;
    bw_batch_builder b;
    bw_owners *owners;
} biased;

/* Where locks can't be biased the test is skipped. */
static void biased_init(biased *f)
{
    engine_init(&f->g, ROOM, ROOM);
    bw_batch_builder_init(&f->b);
    bw_err e = bw_owners_open(f->g.mail, &f->owners);
    if (e == BW_ERR_UNSUPPORTED) {
        print_message("SKIP: %s\n", bw_error_message());
        skip();
    }
    assert_int_equal(e, BW_OK);
}

static void biased_fini(biased *f)
{
    bw_batch_builder_fini(&f->b);
    bw_owners_close(f->owners);
    engine_fini(&f->g);
}

static bw_appender *open_with(bw_control *control, int dir_fd, bw_owners *owners)
{
    bw_appender *a;
    bw_appender_options o = {.control = control, .dir_fd = dir_fd, .owners = owners};
    assert_int_equal(bw_appender_open(&o, &a), BW_OK);
    return a;
}

static bw_err append(biased *f, bw_appender *a, int timeout_ms, bw_append_result *r)
{
    return engine_append(a, &f->b, 1, 20, 'x', timeout_ms, r);
}

static bool append_now(biased *f, bw_appender *a, bw_append_result *r)
{
    size_t len;
    const uint8_t *batch = engine_batch(&f->b, 1, 20, 'n', &len);
    return bw_append_now(a, batch, len, 1, 1000, r);
}

/* By the mutex until the lock is biased to `a`. */
static void get_bias(biased *f, bw_appender *a, const bw_tail_slot *s)
{
    bw_append_result r;
    for (int i = 0; i < APPENDS_TO_BIAS && (i == 0 || s->bias == 0); i++) assert_int_equal(append(f, a, 1000, &r), BW_OK);
    assert_int_not_equal(s->bias, 0);
    assert_int_equal(s->bias & BW_BIAS_REVOKED, 0);
}

static int records_in_use(const bw_mail *m)
{
    int n = 0;
    for (uint32_t i = 0; i < BW_BIASES; i++) n += m->biases[i].owner != 0;
    return n;
}

/* Does nothing but what an attached process would: its own maps, its own owners. */
static bw_appender *child_gets_bias(biased *f, bw_control **attached)
{
    bw_mail *mail;
    bw_control *control;
    bw_owners *owners;
    if (bw_mail_attach(f->g.shm_fd, f->g.generation, &mail) != BW_OK) _exit(101);
    if (bw_control_attach(f->g.shm_fd, f->g.generation, &f->g.topic, BW_CONTROL_WRITE, mail, &control) != BW_OK) _exit(102);
    if (bw_owners_open(mail, &owners) != BW_OK) _exit(103);
    bw_appender *a = open_with(control, f->g.dir_fd, owners);
    bw_append_result r;
    for (int i = 0; i < APPENDS_TO_BIAS && (i == 0 || control->slots[0].bias == 0); i++)
        if (append(f, a, 1000, &r) != BW_OK) _exit(104);
    if (control->slots[0].bias == 0) _exit(105);
    *attached = control;
    return a;
}

static void child_appends_by_bias(biased *f)
{
    bw_control *control;
    bw_append_result r;
    bw_appender *a = child_gets_bias(f, &control);
    (void)append_now(f, a, &r);
    _exit(106);
}

static pid_t start_child(biased *f, const char *kill, const char *action)
{
    pid_t pid = fork();
    if (pid) return pid;
    char spec[64];
    snprintf(spec, sizeof spec, "%s:1%s", kill, action);
    setenv("BUSWAY_KILL", spec, 1);
    child_appends_by_bias(f);
    _exit(107);
}

static void expect_killed(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFSIGNALED(status)) fail_msg("the child ended by itself: %d", WEXITSTATUS(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void assert_whole(biased *f, int64_t end)
{
    bw_tail_slot *s = f->g.slot;
    assert_int_equal(s->next_offset, end);
    assert_int_equal(s->intent_end, 0);
    assert_int_equal(s->repair_pending, 0);
    int batches;
    assert_int_equal(engine_read_all(&f->g, false, &batches), end);
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, 0, ".log");
    int fd = openat(f->g.dir_fd, name, O_RDONLY | O_CLOEXEC);
    uint8_t *all = malloc(ROOM);
    assert_true(fd >= 0 && all && pread(fd, all, ROOM, 0) == ROOM);
    for (size_t i = bw_position_pos(s->tail); i < ROOM; i++)
        if (all[i]) fail_msg("byte %zu behind the tail is not zero", i);
    free(all);
    close(fd);
}

static void test_bias_goes_to_who_is_alone_and_is_lost_to_another(void **state)
{
    (void)state;
    biased f;
    biased_init(&f);
    bw_appender *a = open_with(f.g.control, f.g.dir_fd, f.owners), *b = open_with(f.g.control, f.g.dir_fd, f.owners);
    bw_append_result r;
    assert_false(append_now(&f, a, &r));
    get_bias(&f, a, f.g.slot);
    int64_t next = f.g.slot->next_offset;
    for (int round = 0; round < 200; round++) { /* order kept, whoever it is and whichever way it goes */
        bw_appender *who = round / 7 % 2 ? b : a;
        if (!append_now(&f, who, &r)) assert_int_equal(append(&f, who, 1000, &r), BW_OK);
        assert_int_equal(r.base_offset, next++);
    }
    assert_false(append_now(&f, f.g.slot->bias ? a : b, &r) && append_now(&f, f.g.slot->bias ? b : a, &r));
    int64_t end = f.g.slot->next_offset;
    bw_append_result last;
    assert_int_equal(append(&f, a, 1000, &last), BW_OK);
    assert_whole(&f, end + 1);
    bw_appender_close(a);
    bw_appender_close(b);
    assert_int_equal(records_in_use(f.g.mail), 0);
    assert_int_equal(f.g.slot->bias, 0);
    biased_fini(&f);
}

static void test_bias_owner_killed_inside_is_repaired_by_the_next(void **state)
{
    (void)state;
    static const char *const points[] = {"append.inside", "append.left", "bias.given"};
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        biased f;
        biased_init(&f);
        expect_killed(start_child(&f, points[i], ""));
        int64_t end = f.g.slot->next_offset;
        assert_true(end >= 3);
        bw_appender *a = open_with(f.g.control, f.g.dir_fd, f.owners);
        bw_append_result r;
        assert_int_equal(append(&f, a, 2000, &r), BW_OK);
        assert_int_equal(r.base_offset, end);
        assert_whole(&f, end + 1);
        bw_appender_close(a);
        assert_int_equal(records_in_use(f.g.mail) <= 1, 1);
        biased_fini(&f);
    }
}

/* The points that both ways of appending pass: which pass of the child's is its first biased one is counted here. */
static void test_bias_owner_killed_at_each_store_is_repaired(void **state)
{
    (void)state;
    static const char *const points[] = {"append.intent", "append.copied", "append.published", "append.offset", "append.cleared"};
    for (size_t p = 0; p < sizeof points / sizeof *points; p++)
        for (int pass = 3; pass <= 5; pass++) {
            biased f;
            biased_init(&f);
            pid_t pid = fork();
            if (pid == 0) {
                char spec[64];
                snprintf(spec, sizeof spec, "%s:%d", points[p], pass);
                setenv("BUSWAY_KILL", spec, 1);
                child_appends_by_bias(&f);
            }
            expect_killed(pid);
            bool moved = p >= 2;
            bw_appender *a = open_with(f.g.control, f.g.dir_fd, f.owners);
            bw_append_result r;
            assert_int_equal(append(&f, a, 2000, &r), BW_OK);
            assert_int_equal(r.base_offset, moved ? pass : pass - 1);
            assert_whole(&f, r.base_offset + 1);
            bw_appender_close(a);
            biased_fini(&f);
        }
}

static void test_bias_owner_stopped_inside_is_named_and_waited_for(void **state)
{
    (void)state;
    biased f;
    biased_init(&f);
    pid_t pid = start_child(&f, "append.inside", ":stop");
    int status;
    assert_int_equal(waitpid(pid, &status, WUNTRACED), pid);
    assert_true(WIFSTOPPED(status));
    int64_t end = f.g.slot->next_offset;
    bw_appender *a = open_with(f.g.control, f.g.dir_fd, f.owners);
    bw_append_result r;
    char text[32];
    for (int i = 0; i < 2; i++) { /* the second finds it revoked already */
        assert_int_equal(append(&f, a, 50, &r), BW_ERR_LOCK_HELD);
        snprintf(text, sizeof text, "process %d ", (int)pid);
        assert_non_null(strstr(bw_error_message(), text));
        assert_int_not_equal(f.g.slot->bias & BW_BIAS_REVOKED, 0);
    }
    kill(pid, SIGCONT);
    assert_int_equal(append(&f, a, 5000, &r), BW_OK);
    assert_int_equal(r.base_offset, end + 1); /* its append went through */
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 106);
    assert_whole(&f, end + 2);
    bw_appender_close(a);
    biased_fini(&f);
}

static void test_bias_owner_that_became_another_program_is_gone(void **state)
{
    (void)state;
    biased f;
    biased_init(&f);
    pid_t pid = fork();
    if (pid == 0) {
        bw_control *control;
        (void)child_gets_bias(&f, &control);
        control->mail->biases[(control->slots[0].bias & 0xffff) - 1].busy = 1; /* as a signal handler that execs in the middle would leave it */
        execl("/bin/sleep", "sleep", "5", (char *)NULL);
        _exit(108);
    }
    for (int i = 0; i < 2000 && f.g.slot->bias == 0; i++) usleep(1000);
    assert_int_not_equal(f.g.slot->bias, 0);
    bw_appender *a = open_with(f.g.control, f.g.dir_fd, f.owners);
    bw_append_result r;
    bw_err e = append(&f, a, 4000, &r);
    kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0);
    if (e) fail_msg("%s", bw_error_message());
    assert_whole(&f, r.base_offset + 1);
    bw_appender_close(a);
    biased_fini(&f);
}

/* A record whose user died outside is used again, by one that dies inside another slot: that is not lost when the first slot's
 * bias, which still names the record, is taken away. */
static void test_bias_record_used_again_vouches_for_its_new_user_only(void **state)
{
    (void)state;
    biased f;
    biased_init(&f);
    bw_mail *m = f.g.mail;
    bw_tail_slot other = {.bias = 0}, *s = f.g.slot;
    bw_bias first = {0};
    assert_true(bw_bias_give(s, f.owners, &first));
    uint64_t stale = s->bias;
    atomic_store(&first.record->owner, 0); /* its thread ended outside, and another one's owner record was looked through */
    bw_bias second = {0};
    assert_true(bw_bias_give(&other, f.owners, &second));
    assert_ptr_equal(second.record, first.record);
    assert_int_not_equal(second.id, stale);
    atomic_store(&second.record->busy, 1); /* dies inside */
    atomic_store(&second.record->owner, BW_BIAS_DEAD);
    uint32_t pid;
    assert_int_equal(bw_bias_revoke(s, m, bw_deadline_in_ms(100), &pid), BW_REVOKED);
    assert_int_equal(s->bias, 0);
    assert_int_equal(second.record->busy, 1);
    assert_int_equal(bw_bias_revoke(&other, m, bw_deadline_in_ms(100), &pid), BW_REVOKED_DEAD);
    bw_bias_bury(&other, m);
    assert_int_equal(other.bias, 0);
    assert_int_equal(second.record->busy, 0);
    assert_int_equal(records_in_use(m), 0);
    biased_fini(&f);
}

static void test_bias_records_used_up_leaves_the_mutex(void **state)
{
    (void)state;
    biased f;
    biased_init(&f);
    for (uint32_t i = 0; i < BW_BIASES; i++) atomic_store(&f.g.mail->biases[i].owner, BW_OWNERS);
    bw_appender *a = open_with(f.g.control, f.g.dir_fd, f.owners);
    bw_append_result r;
    for (int i = 0; i < 3 * APPENDS_TO_BIAS; i++) {
        assert_int_equal(append(&f, a, 1000, &r), BW_OK);
        assert_int_equal(f.g.slot->bias, 0);
        assert_false(append_now(&f, a, &r));
    }
    assert_whole(&f, 3 * APPENDS_TO_BIAS);
    bw_appender_close(a);
    for (uint32_t i = 0; i < BW_BIASES; i++) atomic_store(&f.g.mail->biases[i].owner, 0);
    biased_fini(&f);
}

static void test_bias_without_membarrier_is_never_given(void **state)
{
    (void)state;
    pid_t pid = fork(); /* in a process of its own: whether it works is found out once */
    if (pid == 0) {
        setenv("BUSWAY_NO_MEMBARRIER", "1", 1);
        engine g;
        engine_init(&g, ROOM, ROOM);
        bw_owners *owners = NULL;
        if (g.mail->header->asymmetric || g.control->asymmetric) _exit(1);
        if (bw_owners_open(g.mail, &owners) != BW_ERR_UNSUPPORTED) _exit(2);
        bw_batch_builder b;
        bw_batch_builder_init(&b);
        bw_appender *a = open_with(g.control, g.dir_fd, NULL);
        bw_append_result r;
        for (int i = 0; i < 2 * APPENDS_TO_BIAS; i++)
            if (engine_append(a, &b, 1, 20, 'x', 1000, &r) != BW_OK || g.slot->bias) _exit(3);
        bw_appender_close(a);
        engine_fini(&g);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bias_goes_to_who_is_alone_and_is_lost_to_another),
        cmocka_unit_test(test_bias_owner_killed_inside_is_repaired_by_the_next),
        cmocka_unit_test(test_bias_owner_killed_at_each_store_is_repaired),
        cmocka_unit_test(test_bias_owner_stopped_inside_is_named_and_waited_for),
        cmocka_unit_test(test_bias_owner_that_became_another_program_is_gone),
        cmocka_unit_test(test_bias_record_used_again_vouches_for_its_new_user_only),
        cmocka_unit_test(test_bias_records_used_up_leaves_the_mutex),
        cmocka_unit_test(test_bias_without_membarrier_is_never_given),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
