/* log/owners.c, append_now.c: a partition whose lock is biased to one appender: others revoke that before they touch anything, and what
 * its owner left when it died inside is repaired. Skipped where there is no membarrier(2). */
#include "log_fixture.h"

#include <signal.h>

enum { TRIES = 100000 };

static bw_appender *biased_appender(bw_control *control, int dir_fd, bw_owners *owners)
{
    bw_appender *a;
    bw_appender_options o = {.control = control, .dir_fd = dir_fd, .owners = owners};
    return bw_appender_open(&o, &a) == BW_OK ? a : NULL;
}

/* Appends until the lock is biased; how many batches of one record that took, or -1. */
static int until_biased(log_fixture *f, bw_control *control, bw_appender *a)
{
    for (int n = 0; n < TRIES; n++) {
        if (atomic_load(&control->slots[0].bias)) return n;
        if (log_try_append(f, a, 1, 20, 1000, NULL) != BW_OK) return -1;
    }
    return -1;
}

/* false: not here. */
static bool begin(log_fixture *f, bw_owners **owners)
{
    log_init(f, 8 << 20);
    log_open(f, true);
    log_start_keeper(f);
    if (bw_owners_open(f->mail, owners) == BW_OK) return true;
    print_message("SKIP: %s\n", bw_error_message());
    log_fini(f);
    return false;
}

static bool append_now(log_fixture *f, bw_appender *a, bw_append_result *r)
{
    size_t len;
    const uint8_t *batch = log_batch(f, 1, 20, BW_CODEC_NONE, &len);
    return bw_append_now(a, batch, len, 1, f->next_ts++, r);
}

static void test_bias_is_revoked_by_whoever_else_appends(void **state)
{
    log_fixture f;
    bw_owners *owners;
    bw_append_result r;
    (void)state;
    if (!begin(&f, &owners)) skip();
    bw_appender *first = biased_appender(f.control, bw_partition_dir_fd(f.p), owners), *second = log_appender(&f, false);
    assert_non_null(first);
    int64_t next = until_biased(&f, f.control, first);
    assert_true(next > 0);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 3 && append_now(&f, first, &r); i++) assert_int_equal(r.base_offset, next++);
        assert_int_equal(log_try_append(&f, second, 1, 20, 1000, &r), BW_OK);
        assert_int_equal(r.base_offset, next++);
        assert_int_equal(atomic_load(&f.control->slots[0].bias), 0);
        assert_false(append_now(&f, first, &r)); /* it was taken away */
        assert_int_equal(log_try_append(&f, first, 1, 20, 1000, &r), BW_OK);
        assert_int_equal(r.base_offset, next++);
        int more = until_biased(&f, f.control, first);
        assert_true(more >= 0);
        next += more;
    }
    assert_int_equal(log_read_from(&f, 0, NULL), next);
    bw_appender_close(second);
    bw_appender_close(first);
    bw_owners_close(owners);
    log_close(&f, false);
    log_fini(&f);
}

/* A process that gets the bias and dies at `point` in an append by it. */
static void die_inside(log_fixture *f, const char *point)
{
    pid_t child = fork();
    if (child == 0) {
        bw_mail *mail;
        bw_control *control;
        bw_owners *owners;
        bw_append_result r;
        setenv("BUSWAY_KILL", point, 1);
        if (bw_mail_attach(f->shm_fd, f->generation, &mail) != BW_OK) _exit(2);
        if (bw_control_attach(f->shm_fd, f->generation, &f->topic, BW_CONTROL_WRITE, mail, &control) != BW_OK) _exit(3);
        if (bw_owners_open(mail, &owners) != BW_OK) _exit(4);
        bw_appender *a = biased_appender(control, bw_partition_dir_fd(f->p), owners);
        if (!a || until_biased(f, control, a) < 0) _exit(5);
        for (int i = 0; i < TRIES; i++)
            if (!append_now(f, a, &r) && log_try_append(f, a, 1, 20, 1000, NULL) != BW_OK) _exit(6);
        _exit(7);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status)) fail_msg("%s: the child was not killed: status %x", point, (unsigned)status);
}

static void death_inside_at(const char *point)
{
    log_fixture f;
    bw_owners *owners;
    bw_append_result r;
    if (!begin(&f, &owners)) skip();
    die_inside(&f, point);
    int64_t before = log_read_from(&f, 0, NULL);
    bw_appender *a = log_appender(&f, false);
    assert_int_equal(log_try_append(&f, a, 1, 20, 5000, &r), BW_OK);
    assert_int_equal(r.base_offset, before);
    assert_int_equal(atomic_load(&f.control->slots[0].bias), 0);
    assert_int_equal(atomic_load(&f.control->slots[0].intent_end), 0);
    assert_int_equal(log_read_from(&f, 0, NULL), before + 1);
    bw_appender_close(a);
    bw_owners_close(owners);
    log_close(&f, false);
    log_fini(&f);
}

static void test_bias_owner_that_dies_inside_is_repaired_for(void **state)
{
    static const char *const points[] = {"append.inside:1", "append.copied:5000", "append.published:5000", "append.left:1"};
    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) death_inside_at(points[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bias_is_revoked_by_whoever_else_appends),
        cmocka_unit_test(test_bias_owner_that_dies_inside_is_repaired_for),
    };
    return cmocka_run_group_tests_name("bias", tests, NULL, NULL);
}
