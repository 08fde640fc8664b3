/* Partitions at rest: no descriptor while nobody writes; room again only when the descriptors are open. */
#include "log_fixture.h"

#include "log/segment.h"

static bw_open_files files;

static void open_counted(log_fixture *f, bool fresh)
{
    if (fresh) log_new_arenas(f);
    bw_partition_open_options o = {.data_fd = f->data_fd, .topic = LOG_TOPIC, .control = f->control, .bus_number = 3, .fresh_slot = fresh,
                                   .point = f->point, .just_created = f->created, .config = f->config, .open_files = &files};
    f->created = false;
    assert_int_equal(bw_partition_open(&o, &f->p, &f->report), BW_OK);
    bw_control_publish(f->control, 1);
}

static void begin(log_fixture *f, uint32_t segment_bytes)
{
    files = (bw_open_files){.most = 100};
    log_init(f, segment_bytes);
    open_counted(f, true);
}

static bw_err rest(log_fixture *f)
{
    bw_err e = bw_partition_rest_begin(f->p);
    if (!e) e = bw_partition_sync(f->p);
    return e ? e : bw_partition_rest_end(f->p);
}

static uint32_t open_files(void) { return atomic_load(&files.count); }
static bw_tail_slot *slot(log_fixture *f) { return &f->control->slots[0]; }

static void test_rest_closes_and_a_writer_wakes_it(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f, 1 << 20);
    log_append_many(&f, 10, 3, 100);
    assert_true(open_files() >= 1);
    assert_int_equal(rest(&f), BW_OK);
    assert_int_equal(open_files(), 0);
    assert_true(bw_partition_is_resting(f.p));
    assert_true(slot(&f)->capacity == slot(&f)->tail);
    assert_true(slot(&f)->durable == slot(&f)->tail);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK); /* nobody asked */
    assert_true(bw_partition_is_resting(f.p));
    assert_int_equal(log_read_from(&f, 0, NULL), 30);

    bw_appender *a = log_appender(&f, false);
    assert_int_equal(log_try_append(&f, a, 3, 100, 0, NULL), BW_ERR_NO_COORDINATOR);
    assert_int_equal(open_files(), 0);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_false(bw_partition_is_resting(f.p));
    assert_true(open_files() >= 1);
    assert_int_equal(log_try_append(&f, a, 3, 100, 0, NULL), BW_OK);
    bw_appender_close(a);
    assert_int_equal(log_read_from(&f, 0, NULL), 33);
    log_fini(&f);
    assert_int_equal(open_files(), 0);
}

static void test_rest_between_begin_and_end_yields_to_a_writer(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f, 1 << 20);
    log_append_many(&f, 1, 1, 100);
    bw_appender *a = log_appender(&f, false);
    assert_int_equal(bw_partition_rest_begin(f.p), BW_OK);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK); /* grants nothing by itself */
    assert_int_equal(log_try_append(&f, a, 1, 100, 0, NULL), BW_ERR_NO_COORDINATOR);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_int_equal(log_try_append(&f, a, 1, 100, 0, NULL), BW_OK);
    assert_int_equal(bw_partition_rest_end(f.p), BW_ERR_BUSY);
    assert_true(open_files() >= 1);
    bw_appender_close(a);
    assert_int_equal(log_read_from(&f, 0, NULL), 2);
    log_fini(&f);
}

static void test_rest_is_refused_while_something_is_not_durable(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f, 1 << 20);
    log_append_many(&f, 3, 1, 100);
    assert_int_equal(bw_partition_rest_begin(f.p), BW_OK);
    assert_int_equal(bw_partition_rest_end(f.p), BW_ERR_BUSY); /* nobody synced */
    assert_true(open_files() >= 1);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    log_append_many(&f, 3, 1, 100); /* it grants again */
    assert_int_equal(rest(&f), BW_OK);
    log_fini(&f);
}

static void test_rest_waits_for_a_free_descriptor(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f, 1 << 20);
    assert_int_equal(rest(&f), BW_OK);
    files.most = 0;
    bw_appender *a = log_appender(&f, false);
    assert_int_equal(log_try_append(&f, a, 1, 100, 0, NULL), BW_ERR_NO_COORDINATOR);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_true(bw_partition_is_resting(f.p));
    assert_true(bw_partition_is_starved(f.p));
    files.most = 1;
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_false(bw_partition_is_starved(f.p));
    assert_int_equal(log_try_append(&f, a, 1, 100, 0, NULL), BW_OK);
    bw_appender_close(a);
    log_fini(&f);
}

static void test_rest_with_a_spare_rolls_on_after_waking(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f, 64 << 10);
    log_append_many(&f, 40, 1, 1000); /* more than half of the segment: there is a spare */
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_int_equal(slot(&f)->spare_seq, 2);
    assert_int_equal(rest(&f), BW_OK);
    assert_int_equal(open_files(), 0);
    assert_int_equal(slot(&f)->spare_seq, 0);
    log_append_many(&f, 200, 1, 1000);
    assert_int_equal(log_read_from(&f, 0, NULL), 240);
    for (int i = 0; i < 3; i++) assert_int_equal(rest(&f), i ? BW_ERR_BUSY : BW_OK); /* resting already */
    assert_int_equal(open_files(), 0);
    assert_true(log_count_files(&f, ".seal", NULL) >= 2);
    log_fini(&f);
}

static void test_rest_survives_a_takeover_and_a_recovery(void **state)
{
    (void)state;
    for (int fresh = 0; fresh < 2; fresh++) {
        log_fixture f;
        begin(&f, 64 << 10);
        log_append_many(&f, 40, 1, 1000);
        assert_int_equal(rest(&f), BW_OK);
        (void)bw_partition_recovery_point(f.p, &f.point, NULL);
        log_crash(&f);
        open_counted(&f, fresh);
        assert_int_equal(log_read_from(&f, 0, NULL), 40);
        log_append_many(&f, 60, 1, 1000);
        assert_int_equal(log_read_from(&f, 0, NULL), 100);
        log_fini(&f);
    }
}

static void test_rest_then_a_clean_stop_needs_no_new_epoch(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f, 1 << 20);
    log_append_many(&f, 5, 1, 1000);
    assert_int_equal(rest(&f), BW_OK);
    log_close(&f, true);
    assert_int_equal(open_files(), 0);
    open_counted(&f, true);
    assert_int_equal(f.report.leader_epoch, 0);
    assert_int_equal(log_read_from(&f, 0, NULL), 5);
    log_fini(&f);
}

static void *rester_main(void *arg)
{
    log_fixture *f = arg;
    uintptr_t rested = 0;
    while (!atomic_load(&f->stop)) rested += rest(f) == BW_OK;
    return (void *)rested;
}

static void test_rest_beside_a_writer_loses_nothing(void **state)
{
    (void)state;
    log_fixture f;
    pthread_t rester;
    void *rested;
    begin(&f, 128 << 10);
    log_start_keeper(&f);
    assert_int_equal(pthread_create(&rester, NULL, rester_main, &f), 0);
    for (int i = 0; i < 20; i++) {
        log_append_many(&f, 20, 2, 500);
        usleep(2000);
    }
    atomic_store(&f.stop, true);
    pthread_join(rester, &rested);
    log_stop_keeper(&f);
    assert_true((uintptr_t)rested >= 2);
    assert_int_equal(log_read_from(&f, 0, NULL), 800);
    assert_true(slot(&f)->state == BW_SLOT_OPEN);
    log_close(&f, false);
    open_counted(&f, true);
    assert_int_equal(log_read_from(&f, 0, NULL), 800);
    log_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rest_closes_and_a_writer_wakes_it),
        cmocka_unit_test(test_rest_between_begin_and_end_yields_to_a_writer),
        cmocka_unit_test(test_rest_is_refused_while_something_is_not_durable),
        cmocka_unit_test(test_rest_waits_for_a_free_descriptor),
        cmocka_unit_test(test_rest_with_a_spare_rolls_on_after_waking),
        cmocka_unit_test(test_rest_survives_a_takeover_and_a_recovery),
        cmocka_unit_test(test_rest_then_a_clean_stop_needs_no_new_epoch),
        cmocka_unit_test(test_rest_beside_a_writer_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
