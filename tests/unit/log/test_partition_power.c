/* What power cuts and rotten bits found, one by one: each of these lost or changed something once. The battery (tests/battery) looks
 * for more of them. */
#include "log_fixture.h"

#include "format/index.h"
#include "log/segment.h"
#include "log/smallfile.h"

#include <busway/inspect.h>

#define LOG0 "00000000000000000000.log"

static int64_t end_offset(log_fixture *f) { return bw_slot_end_offset(&f->control->slots[0]); }

static void remove_file(log_fixture *f, const char *name)
{
    char path[256];
    log_path(f, path, name);
    assert_int_equal(unlink(path), 0);
}

/* A rolled segment lost its unsynced end before the first sync was ever noted: that is a cut, not corruption. */
static void test_power_cut_before_the_first_point_is_stored_cuts_and_quarantines_nothing(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    bw_recovery_point first;
    assert_true(bw_partition_recovery_point(f.p, &first, NULL));
    assert_true(first.known);
    assert_int_equal(first.next_offset, 0);
    log_append_many(&f, 10, 1, 1000);
    assert_int_equal(bw_partition_sync(f.p), BW_OK); /* told to producers; the point is stored a second later: too late */
    uint32_t durable = bw_position_pos(f.control->slots[0].tail);
    log_append_many(&f, 80, 1, 1000);
    assert_true(bw_position_seq(f.control->slots[0].tail) > 1);
    log_crash(&f);
    log_flip(&f, LOG0, durable + 500);
    f.point = first;
    log_open(&f, true);
    assert_int_equal(f.report.quarantined, 0);
    assert_false(f.report.foreign);
    assert_true(f.report.cut);
    assert_int_equal(end_offset(&f), 10);
    assert_int_equal(log_read_from(&f, 0, NULL), 10);
    log_fini(&f);
}

/* The newest records lie in a new segment that the cut took whole: the old one ends where the point says, exactly. */
static void test_power_cut_that_takes_a_whole_new_segment_raises_the_epoch(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    bw_appender *a = log_appender(&f, false);
    while (bw_position_seq(f.control->slots[0].tail) == 1) { /* batches that fill a segment to its last byte */
        uint32_t left = (64 << 10) - bw_position_pos(f.control->slots[0].tail);
        if (left == 0) break;
        size_t len, value = left > 3000 ? 1000 : left - 80;
        const uint8_t *batch = log_batch(&f, 1, value, BW_CODEC_NONE, &len);
        if (left <= 3000) batch = log_batch(&f, 1, value + left - len, BW_CODEC_NONE, &len);
        bw_append_result r;
        bw_err e = bw_append(a, batch, len, 1, f.next_ts++, bw_deadline_in_ms(0), &r);
        if (e == BW_ERR_NO_COORDINATOR) assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
        else assert_int_equal(e, BW_OK);
    }
    assert_int_equal(bw_position_pos(f.control->slots[0].tail), 64 << 10);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    assert_true(bw_partition_recovery_point(f.p, &f.point, NULL));
    int64_t end = end_offset(&f);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK); /* a spare */
    assert_int_equal(log_try_append(&f, a, 1, 100, 0, NULL), BW_OK);
    assert_int_equal(end_offset(&f), end + 1); /* seen, and lost now */
    bw_appender_close(a);
    log_crash(&f);
    char spare[64];
    while (log_count_files(&f, ".spare", spare) > 0) remove_file(&f, spare);
    assert_true(log_size(&f, LOG0) > 64 << 10); /* as long as it may be written to */
    log_open(&f, true);
    assert_int_equal(end_offset(&f), end);
    assert_int_equal(f.report.leader_epoch, 1);
    log_fini(&f);
}

/* The offset index survived, the time index did not, and the epoch rose within the segment. */
static void test_power_cut_between_the_indexes_still_opens(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 40, 1, 1000);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    assert_true(bw_partition_recovery_point(f.p, &f.point, NULL));
    log_crash(&f);
    log_open(&f, true);
    assert_int_equal(f.report.leader_epoch, 1);
    log_append_many(&f, 40, 1, 1000);
    log_close(&f, false); /* indexes written */
    log_open(&f, true);
    log_crash(&f);
    remove_file(&f, "00000000000000000000.timeindex");
    log_open(&f, true);
    assert_int_equal(end_offset(&f), 80);
    assert_int_equal(log_read_from(&f, 0, NULL), 80);
    log_fini(&f);
}

/* Deleted records were not on the disk yet: if they were lost, new ones would get their offsets and count as deleted. */
static void test_deletion_of_unsynced_records_makes_them_durable_first(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 10, 1, 100);
    int64_t start;
    assert_int_equal(f.control->slots[0].durable_offset, 0);
    assert_int_equal(bw_partition_delete_records(f.p, 7, &start), BW_OK);
    assert_int_equal(start, 7);
    assert_int_equal(f.control->slots[0].durable_offset, 10);
    log_append_many(&f, 5, 1, 100);
    assert_int_equal(bw_partition_delete_records(f.p, BW_OFFSET_END, &start), BW_OK);
    assert_int_equal(start, 15);
    assert_int_equal(f.control->slots[0].durable_offset, 15);
    log_fini(&f);
}

static void test_log_start_behind_the_end_is_taken_back(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 10, 1, 100);
    assert_int_equal(bw_offset_file_write(bw_partition_dir_fd(f.p), BW_LOG_START_FILE, 100), BW_OK);
    log_crash(&f);
    for (int i = 0; i < 2; i++) {
        log_open(&f, true);
        assert_int_equal(end_offset(&f), 10 + i);
        assert_int_equal(f.control->slots[0].log_start, 10);
        log_append_many(&f, 1, 1, 100); /* not deleted at the second start */
        log_crash(&f);
    }
    log_open(&f, true);
    assert_int_equal(log_read_from(&f, 10, NULL), 12);
    log_fini(&f);
}

/* A batch reserved in a new segment, complete and never committed, has base offset 0: it must not become segment 0 again. */
static void test_uncommitted_batch_in_a_spare_does_not_come_back_as_the_first_segment(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    log_append_many(&f, 150, 1, 1000);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    assert_true(bw_partition_recovery_point(f.p, &f.point, NULL));
    f.config.retention_bytes = 1000;
    assert_int_equal(bw_partition_set_config(f.p, &f.config), BW_OK);
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), NULL), BW_OK);
    assert_false(log_exists(&f, LOG0));
    int64_t start = f.control->slots[0].log_start, end = end_offset(&f);
    size_t len;
    const uint8_t *batch = log_batch(&f, 3, 100, BW_CODEC_NONE, &len);
    char path[256];
    log_crash(&f);
    log_path(&f, path, "0000000099.spare");
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    assert_int_equal(pwrite(fd, batch, len, 0), len);
    close(fd);
    log_open(&f, true);
    assert_false(log_exists(&f, LOG0));
    assert_int_equal(f.control->slots[0].log_start, start);
    assert_int_equal(end_offset(&f), end);
    assert_int_equal(log_read_from(&f, start, NULL), end);
    log_fini(&f);
}

/* ---- rotten bits ---- */

static void test_rotten_log_start_is_reported_and_not_believed(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 30, 1, 100);
    int64_t start;
    assert_int_equal(bw_partition_delete_records(f.p, 20, &start), BW_OK);
    assert_true(bw_partition_recovery_point(f.p, &f.point, NULL));
    log_crash(&f);
    bw_verify_totals totals;
    assert_int_equal(bw_verify(f.data, NULL, NULL, NULL, &totals), BW_OK);
    for (off_t at = 0; at < log_size(&f, BW_LOG_START_FILE); at++) {
        log_flip(&f, BW_LOG_START_FILE, at);
        assert_int_equal(bw_verify(f.data, NULL, NULL, NULL, &totals), BW_ERR_CORRUPT);
        log_flip(&f, BW_LOG_START_FILE, at);
    }
    log_flip(&f, BW_LOG_START_FILE, 2);
    log_open(&f, true);
    assert_int_equal(f.control->slots[0].log_start, 0);
    assert_non_null(strstr(f.report.detail, "checksum"));
    log_fini(&f);
}

static void test_rotten_time_index_misleads_no_look_up(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    int64_t first = f.next_ts;
    log_append_many(&f, 100, 1, 1000);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_true(bw_partition_recovery_point(f.p, &f.point, NULL));
    log_crash(&f);
    const char *name = "00000000000000000000.timeindex";
    for (off_t at = 0; at < log_size(&f, name); at += 5) {
        log_flip(&f, name, at);
        log_open(&f, true);
        for (int64_t i = 0; i < 100; i += 9) {
            int64_t offset, found;
            assert_int_equal(bw_partition_offset_for_time(f.p, first + i, &offset, &found), BW_OK);
            assert_int_equal(offset, i);
        }
        log_crash(&f);
        log_flip(&f, name, at);
    }
    log_fini(&f);
}

/* The base offset lies outside a batch's checksum; a reader that jumps by the index compares it with the entry. */
static void test_rotten_base_offset_of_an_indexed_batch_is_not_served(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    log_append_many(&f, 120, 1, 1000);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_true(bw_partition_recovery_point(f.p, &f.point, NULL));
    log_crash(&f);
    uint8_t entry[BW_INDEX_ENTRY_BYTES], low;
    char path[256];
    log_path(&f, path, "00000000000000000000.index");
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, entry, sizeof entry, 2 * BW_INDEX_ENTRY_BYTES), sizeof entry);
    close(fd);
    uint32_t position = bw_get_be32(entry + 4);
    int64_t offset = bw_get_be32(entry);
    log_path(&f, path, LOG0);
    fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, &low, 1, position + 7), 1);
    low++;
    assert_int_equal(pwrite(fd, &low, 1, position + 7), 1);
    close(fd);
    log_open(&f, true);
    bw_err e;
    assert_int_equal(log_read_from(&f, offset + 1, &e), offset + 1);
    assert_int_equal(e, BW_ERR_CORRUPT);
    log_fini(&f);
}

/* Without a recovery point nobody knows whether what follows a bad batch was promised: it is kept. */
static void test_rotten_batch_without_a_point_destroys_nothing_behind_it(void **state)
{
    (void)state;
    for (int at = 0; at < 2; at++) { /* the first batch, and one in the middle */
        log_fixture f;
        log_init(&f, 64 << 10);
        log_open(&f, true);
        log_append_many(&f, 20, 1, 1000);
        assert_int_equal(bw_partition_sync(f.p), BW_OK);
        uint32_t tail = bw_position_pos(f.control->slots[0].tail);
        log_crash(&f);
        log_flip(&f, LOG0, at * (tail / 2) + 100);
        f.point = (bw_recovery_point){0};
        log_open(&f, true);
        assert_int_equal(end_offset(&f), at == 0 ? 0 : log_read_from(&f, 0, NULL));
        log_append_many(&f, 3, 1, 100);
        char kept[64], path[256], last[1000];
        if (at == 0) assert_int_equal(log_count_files(&f, ".corrupt", kept), 1);
        log_path(&f, path, at == 0 ? kept : LOG0);
        int fd = open(path, O_RDONLY);
        assert_int_equal(pread(fd, last, sizeof last, tail - (off_t)sizeof last), sizeof last);
        close(fd);
        assert_int_equal(last[500], 'a' + (int)((f.next_ts - 4) % 26)); /* the last record's value */
        log_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_power_cut_before_the_first_point_is_stored_cuts_and_quarantines_nothing),
        cmocka_unit_test(test_power_cut_that_takes_a_whole_new_segment_raises_the_epoch),
        cmocka_unit_test(test_power_cut_between_the_indexes_still_opens),
        cmocka_unit_test(test_deletion_of_unsynced_records_makes_them_durable_first),
        cmocka_unit_test(test_log_start_behind_the_end_is_taken_back),
        cmocka_unit_test(test_uncommitted_batch_in_a_spare_does_not_come_back_as_the_first_segment),
        cmocka_unit_test(test_rotten_log_start_is_reported_and_not_believed),
        cmocka_unit_test(test_rotten_time_index_misleads_no_look_up),
        cmocka_unit_test(test_rotten_base_offset_of_an_indexed_batch_is_not_served),
        cmocka_unit_test(test_rotten_batch_without_a_point_destroys_nothing_behind_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
