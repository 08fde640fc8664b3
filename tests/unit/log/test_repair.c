/* log/append.c: REPAIR ends a roll that was begun, and leaves nothing of a dead writer's batch behind the tail: a recovery takes whole
 * batches that lie there for records that were appended. */
#include "log_fixture.h"

#include <signal.h>

/* A process that dies at `point` in the middle of appending a record of len bytes. */
static void die_appending(log_fixture *f, const char *point, size_t len)
{
    pid_t child = fork();
    if (child == 0) { /* arenas are not inherited: it attaches as any writer */
        bw_mail *mail;
        bw_control *control;
        bw_appender *a;
        setenv("BUSWAY_KILL", point, 1);
        if (bw_mail_attach(f->shm_fd, f->generation, &mail) != BW_OK) _exit(2);
        if (bw_control_attach(f->shm_fd, f->generation, &f->topic, BW_CONTROL_WRITE, mail, &control) != BW_OK) _exit(3);
        bw_appender_options o = {.control = control, .dir_fd = bw_partition_dir_fd(f->p)};
        if (bw_appender_open(&o, &a) != BW_OK) _exit(4);
        (void)log_try_append(f, a, 1, len, 1000, NULL);
        _exit(5);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (!WIFSIGNALED(status)) fail_msg("the child was not killed: status %x", (unsigned)status);
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void check_zero_behind_tail(log_fixture *f, size_t bytes)
{
    char path[256], name[BW_SEGMENT_NAME_MAX];
    static uint8_t data[65536];
    uint32_t tail = bw_position_pos(atomic_load(&bw_partition_slot(f->p)->tail));
    bw_segment_name(name, 0, ".log");
    log_path(f, path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && bytes <= sizeof data);
    ssize_t n = pread(fd, data, bytes, tail);
    close(fd);
    for (ssize_t i = 0; i < n; i++)
        if (data[i]) fail_msg("byte %zd behind the tail at %u is %02x", i, tail, data[i]);
}

static void death_at(const char *point, bool in_log)
{
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 2, 1, 100);
    die_appending(&f, point, 9000);
    log_append_many(&f, 1, 1, 10); /* whoever locks next repairs */
    check_zero_behind_tail(&f, 16384);
    assert_int_equal(log_read_from(&f, 0, NULL), in_log ? 4 : 3);
    log_append_many(&f, 2, 1, 100);
    assert_int_equal(log_read_from(&f, 0, NULL), in_log ? 6 : 5);
    log_close(&f, false);
    log_fini(&f);
}

static void test_repair_of_a_batch_that_was_not_published_zeroes_it(void **state)
{
    (void)state;
    death_at("append.intent:1", false);
    death_at("append.copied:1", false);
}

static void test_repair_of_a_published_batch_keeps_it(void **state)
{
    (void)state;
    death_at("append.published:1", true);
    death_at("append.cleared:1", true);
}

/* The writer dies while it turns the log to the spare; the next batch would still fit the old segment. */
static void death_in_roll_at(const char *point)
{
    log_fixture f;
    log_init(&f, 65536);
    log_open(&f, true);
    const bw_tail_slot *s = bw_partition_slot(f.p);
    log_append_many(&f, 7, 1, 8000);
    for (int i = 0; i < 10 && atomic_load(&s->spare_seq) != 2; i++) assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_int_equal(atomic_load(&s->spare_seq), 2);
    assert_int_equal(bw_position_seq(atomic_load(&s->tail)), 1);
    die_appending(&f, point, 9000);
    bw_appender *a = log_appender(&f, false);
    bw_err e = log_try_append(&f, a, 1, 10, 1000, NULL);
    if (e) fail_msg("%s: %s: %s", point, bw_err_name(e), bw_error_message());
    bw_appender_close(a);
    assert_int_equal(bw_position_seq(atomic_load(&s->tail)), strcmp(point, "roll.final:1") == 0 ? 1 : 2);
    log_append_many(&f, 3, 1, 8000);
    assert_int_equal(log_read_from(&f, 0, NULL), 11);
    log_close(&f, false);
    log_fini(&f);
}

static void test_repair_of_a_roll_that_was_begun_ends_it(void **state)
{
    static const char *const points[] = {"roll.final:1", "roll.seq:1", "roll.capacity:1", "roll.tail:1"};
    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) death_in_roll_at(points[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repair_of_a_batch_that_was_not_published_zeroes_it),
        cmocka_unit_test(test_repair_of_a_published_batch_keeps_it),
        cmocka_unit_test(test_repair_of_a_roll_that_was_begun_ends_it),
    };
    return cmocka_run_group_tests_name("repair", tests, NULL, NULL);
}
