/* Retention by bytes and by time, clock jumps, deletion of records. */
#include "log_fixture.h"

static int64_t end_offset(log_fixture *f) { return bw_slot_end_offset(&f->control->slots[0]); }

static int64_t log_start(log_fixture *f) { return f->control->slots[0].log_start; }

/* Everything on the disk and sealed. */
static void settle(log_fixture *f)
{
    assert_int_equal(bw_partition_sync(f->p), BW_OK);
    assert_int_equal(bw_partition_tend(f->p, NULL), BW_OK);
}

static void test_retain_bytes_keeps_the_newest_segments(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    log_append_many(&f, 600, 1, 1000);
    settle(&f);
    f.config.retention_bytes = 200000;
    assert_int_equal(bw_partition_set_config(f.p, &f.config), BW_OK);
    uint32_t deleted;
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), &deleted), BW_OK);
    assert_true(deleted >= 5);
    bw_partition_info i;
    bw_partition_info_get(f.p, &i);
    assert_true(i.size_bytes >= 200000);
    assert_true(i.size_bytes < 200000 + 65536);
    assert_true(i.log_start > 0);
    assert_int_equal(log_count_files(&f, ".log", NULL), i.segments);
    assert_int_equal(log_read_from(&f, i.log_start, NULL), 600);
    bw_err e;
    (void)log_read_from(&f, 0, &e);
    assert_int_equal(e, BW_ERR_OFFSET_OUT_OF_RANGE);
    char range[32];
    snprintf(range, sizeof range, "%lld", (long long)i.log_start);
    assert_non_null(strstr(bw_error_message(), range));
    log_fini(&f);
}

static void test_retain_bytes_is_kept_by_tend_while_writers_run(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    f.config.retention_bytes = 4 * 65536;
    log_open(&f, true);
    log_start_keeper(&f);
    log_append_many(&f, 3000, 1, 1000);
    log_stop_keeper(&f);
    bw_partition_info i;
    bw_partition_info_get(f.p, &i);
    assert_true(i.segments <= 8);
    assert_int_equal(log_read_from(&f, i.log_start, NULL), 3000);
    log_fini(&f);
}

static void test_retain_time_deletes_what_is_old_and_rolls_the_last(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    f.config.retention_ms = 3600 * 1000;
    log_open(&f, true);
    f.next_ts = bw_clock_wall_ms() - 7200 * 1000; /* two hours old */
    log_append_many(&f, 200, 1, 1000);
    settle(&f);
    int64_t end = end_offset(&f);
    uint32_t deleted;
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), &deleted), BW_OK);
    assert_true(deleted >= 2);
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), &deleted), BW_OK);
    assert_int_equal(log_start(&f), end);
    assert_int_equal(end_offset(&f), end);
    log_append_many(&f, 3, 1, 1000);
    assert_int_equal(log_read_from(&f, end, NULL), end + 3);
    log_fini(&f);
}

static void test_retain_time_keeps_what_is_young(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    f.config.retention_ms = 3600 * 1000;
    log_open(&f, true);
    f.next_ts = bw_clock_wall_ms();
    log_append_many(&f, 200, 1, 1000);
    settle(&f);
    uint32_t deleted;
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), &deleted), BW_OK);
    assert_int_equal(deleted, 0);
    assert_int_equal(log_start(&f), 0);
    log_fini(&f);
}

static void test_retain_time_jump_of_the_wall_clock_purges_nothing(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    f.config.retention_ms = 3600 * 1000;
    log_open(&f, true);
    f.next_ts = bw_clock_wall_ms();
    log_append_many(&f, 200, 1, 1000);
    settle(&f);
    static const int64_t jumps[] = {7200 * 1000LL, 86400 * 1000LL, 10LL * 365 * 86400 * 1000, -10LL * 365 * 86400 * 1000};
    for (size_t i = 0; i < sizeof jumps / sizeof *jumps; i++) {
        uint32_t deleted;
        assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms() + jumps[i], &deleted), BW_OK);
        assert_int_equal(deleted, 0);
    }
    assert_int_equal(log_read_from(&f, 0, NULL), 200);
    log_fini(&f);
}

static void test_retain_time_timestamps_from_the_future_do_not_live_for_ever(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    f.config.retention_ms = 50;
    log_open(&f, true);
    f.next_ts = bw_clock_wall_ms() + 86400 * 1000LL;
    log_append_many(&f, 200, 1, 1000);
    settle(&f);
    usleep(200000);
    uint32_t deleted;
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), &deleted), BW_OK);
    assert_true(deleted >= 2);
    log_fini(&f);
}

static void test_retain_time_wrong_index_deletes_nothing(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    f.config.retention_ms = 3600 * 1000;
    log_open(&f, true);
    f.next_ts = bw_clock_wall_ms();
    log_append_many(&f, 200, 1, 1000);
    log_close(&f, true);
    char path[256];
    static const uint8_t old[12] = {0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1}; /* claims that all is from 1970 */
    log_path(&f, path, "00000000000000000000.timeindex");
    int fd = open(path, O_RDWR | O_TRUNC);
    assert_int_equal(write(fd, old, sizeof old), sizeof old);
    close(fd);
    log_open(&f, true);
    uint32_t deleted;
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), &deleted), BW_OK);
    assert_int_equal(deleted, 0);
    assert_int_equal(log_start(&f), 0);
    log_fini(&f);
}

static void test_retain_delay_keeps_files_aside(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    f.config.retention_ms = 1000;
    f.config.file_delete_delay_ms = 300;
    log_open(&f, true);
    log_append_many(&f, 200, 1, 1000); /* timestamps of 1970 */
    settle(&f);
    uint32_t deleted;
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), &deleted), BW_OK);
    assert_true(deleted >= 2);
    assert_true(log_count_files(&f, ".log.deleted", NULL) == (int)deleted);
    usleep(400000);
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), NULL), BW_OK);
    assert_true(log_count_files(&f, ".log.deleted", NULL) <= 1); /* the last one may just have been rolled and put aside */
    log_fini(&f);
}

static void test_retain_reader_with_a_map_is_not_disturbed(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    log_append_many(&f, 300, 1, 1000);
    settle(&f);
    bw_reader *r;
    bw_reader_options o = {.control = f.control, .dir_fd = bw_partition_dir_fd(f.p), .check_crcs = true};
    assert_int_equal(bw_reader_open(&o, &r), BW_OK);
    bw_reader_seek(r, 0);
    bw_batch_ref b;
    assert_int_equal(bw_reader_next(r, &b), BW_OK);
    f.config.retention_bytes = 1;
    assert_int_equal(bw_partition_set_config(f.p, &f.config), BW_OK);
    uint32_t deleted;
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), &deleted), BW_OK);
    assert_true(deleted >= 3);
    assert_true(bw_batch_crc_ok(b.data, b.size)); /* the bytes are still there */
    bw_reader_close(r);
    log_fini(&f);
}

static void test_delete_records_in_the_middle_of_a_segment_survives_a_restart(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    log_append_many(&f, 300, 1, 1000);
    settle(&f);
    int64_t start;
    assert_int_equal(bw_partition_delete_records(f.p, 100, &start), BW_OK);
    assert_int_equal(start, 100);
    assert_int_equal(log_start(&f), 100);
    assert_false(log_exists(&f, "00000000000000000000.log"));
    assert_int_equal(bw_partition_delete_records(f.p, 50, &start), BW_OK); /* nothing to do */
    assert_int_equal(start, 100);
    assert_int_equal(bw_partition_delete_records(f.p, 301, &start), BW_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(log_read_from(&f, 100, NULL), 300);
    log_close(&f, true);
    log_open(&f, true);
    assert_int_equal(log_start(&f), 100);
    bw_err e;
    (void)log_read_from(&f, 99, &e);
    assert_int_equal(e, BW_ERR_OFFSET_OUT_OF_RANGE);
    assert_int_equal(log_read_from(&f, 100, NULL), 300);
    assert_int_equal(bw_partition_delete_records(f.p, BW_OFFSET_END, &start), BW_OK);
    assert_int_equal(start, 300);
    log_append_many(&f, 3, 1, 1000);
    assert_int_equal(log_read_from(&f, 300, NULL), 303);
    log_fini(&f);
}

static void test_delete_records_time_lookup_starts_behind_them(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    int64_t first = f.next_ts, start, offset, found;
    log_append_many(&f, 50, 2, 100);
    assert_int_equal(bw_partition_delete_records(f.p, 31, &start), BW_OK);
    assert_int_equal(bw_partition_offset_for_time(f.p, 0, &offset, &found), BW_OK);
    assert_int_equal(offset, 31);
    assert_int_equal(found, first + 15);
    log_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_retain_bytes_keeps_the_newest_segments),
        cmocka_unit_test(test_retain_bytes_is_kept_by_tend_while_writers_run),
        cmocka_unit_test(test_retain_time_deletes_what_is_old_and_rolls_the_last),
        cmocka_unit_test(test_retain_time_keeps_what_is_young),
        cmocka_unit_test(test_retain_time_jump_of_the_wall_clock_purges_nothing),
        cmocka_unit_test(test_retain_time_timestamps_from_the_future_do_not_live_for_ever),
        cmocka_unit_test(test_retain_time_wrong_index_deletes_nothing),
        cmocka_unit_test(test_retain_delay_keeps_files_aside),
        cmocka_unit_test(test_retain_reader_with_a_map_is_not_disturbed),
        cmocka_unit_test(test_delete_records_in_the_middle_of_a_segment_survives_a_restart),
        cmocka_unit_test(test_delete_records_time_lookup_starts_behind_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
