/* The state of producers over restarts: snapshot and what lies behind it in the log; what retention deletes is not forgotten; what a
 * power cut takes is not known; transactions that a dead coordinator left half done. */
#include "txn_fixture.h"

#include "log/segment.h"

static bw_sequence check_sequence(txn_fixture *t, int64_t producer, int32_t sequence, int64_t *offset)
{
    bw_batch_header h = {.producer_id = producer, .base_sequence = sequence, .record_count = 1};
    bw_producer_batch before = {0};
    bw_err e;
    bw_sequence s = bw_producers_check(t->table, &h, &before, &e);
    *offset = before.base_offset;
    return s;
}

/* How a restart is made: 0 takeover, 1 control data lost, 2 clean stop. */
static void restart(txn_fixture *t, int how)
{
    if (how < 2) {
        txn_crash(t);
        txn_open(t, how == 1);
        return;
    }
    bw_buf snapshot = {0};
    txn_detach(t);
    assert_int_equal(bw_partition_close_keep(t->f.p, true, &t->f.point, &snapshot), BW_OK);
    if (snapshot.data) {
        bw_buf_free(&t->snapshot);
        t->snapshot = snapshot;
    }
    txn_open(t, true);
}

static void test_state_comes_back_after_each_kind_of_restart(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++)
        for (int stored = 0; stored < 2; stored++) {
            txn_fixture t;
            int64_t offset;
            txn_init(&t, 16 << 10);
            for (int i = 0; i < 100; i++) {
                txn_append(&t, 7, 0, i, 1, false);
                if (i == 60 && stored) txn_store(&t);
            }
            txn_append(&t, 9, 0, 0, 1, true);
            restart(&t, how);
            for (int i = 95; i < 100; i++) {
                assert_int_equal(check_sequence(&t, 7, i, &offset), BW_SEQUENCE_DUPLICATE);
                assert_int_equal(offset, i);
            }
            assert_int_equal(check_sequence(&t, 7, 94, &offset), BW_SEQUENCE_REFUSED);
            assert_int_equal(check_sequence(&t, 7, 100, &offset), BW_SEQUENCE_ACCEPT);
            assert_int_equal(bw_producers_first_unstable(t.table), 100);
            assert_int_equal(t.f.control->slots[0].first_unstable, 100);
            txn_end(&t, 9, 0, true);
            assert_int_equal(t.f.control->slots[0].first_unstable, INT64_MAX);
            txn_fini(&t);
        }
}

/* The hole that a snapshot closes: the first copy of a batch in doubt is gone from the log. */
static void test_state_outlives_the_batches_that_retention_deleted(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        txn_fixture t;
        int64_t offset;
        txn_init(&t, 16 << 10);
        for (int i = 0; i < 5; i++) txn_append(&t, 7, 0, i, 1, false);
        txn_append(&t, 8, 0, 0, 1, true); /* and a transaction that is older than all that is left */
        for (int i = 0; i < 300; i++) txn_append(&t, -1, 0, 0, 1, false);
        txn_store(&t);
        t.f.config.retention_bytes = 20000;
        assert_int_equal(bw_partition_set_config(t.f.p, &t.f.config), BW_OK);
        assert_int_equal(bw_partition_tend_files(t.f.p), BW_OK);
        uint32_t deleted;
        assert_int_equal(bw_partition_retain(t.f.p, bw_clock_wall_ms(), &deleted), BW_OK);
        assert_true(t.f.control->slots[0].log_start > 10);
        restart(&t, how);
        assert_int_equal(check_sequence(&t, 7, 4, &offset), BW_SEQUENCE_DUPLICATE);
        assert_int_equal(offset, 4);
        assert_int_equal(check_sequence(&t, 7, 6, &offset), BW_SEQUENCE_REFUSED);
        assert_int_equal(t.f.control->slots[0].first_unstable, 5);
        txn_end(&t, 8, 0, false);
        assert_int_equal(t.f.control->slots[0].first_unstable, INT64_MAX);
        txn_fini(&t);
    }
}

/* A snapshot never knows of a batch that the disk may not have. */
static void test_state_of_what_a_power_cut_took_is_gone(void **state)
{
    (void)state;
    txn_fixture t;
    int64_t offset;
    char path[256];
    txn_init(&t, 1 << 20);
    for (int i = 0; i < 10; i++) txn_append(&t, 7, 0, i, 1, false);
    txn_store(&t);
    off_t end = (off_t)bw_position_pos(t.f.control->slots[0].tail);
    for (int i = 10; i < 20; i++) txn_append(&t, 7, 0, i, 1, false);
    txn_append(&t, 8, 0, 0, 1, true);
    bw_buf snapshot = {0};
    bw_recovery_point point; /* asked for when more is visible than is durable */
    (void)bw_partition_recovery_point(t.f.p, &point, &snapshot);
    assert_null(snapshot.data);
    assert_int_equal(point.state_offset, 10);
    txn_crash(&t);
    log_path(&t.f, path, "00000000000000000000.log");
    uint8_t zeros[8192] = {0};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, end), sizeof zeros);
    close(fd);
    txn_open(&t, true);
    assert_int_equal(t.f.report.end_offset, 10);
    assert_int_equal(check_sequence(&t, 7, 9, &offset), BW_SEQUENCE_DUPLICATE);
    assert_int_equal(check_sequence(&t, 7, 10, &offset), BW_SEQUENCE_ACCEPT);
    assert_int_equal(t.f.control->slots[0].first_unstable, INT64_MAX);
    txn_fini(&t);
}

static void test_snapshot_that_is_lost_or_of_another_point_is_made_up_for_by_the_log(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        txn_fixture t;
        int64_t offset;
        txn_init(&t, 16 << 10);
        for (int i = 0; i < 100; i++) txn_append(&t, 7, 0, i, 1, i >= 50);
        txn_store(&t);
        assert_true(t.f.point.state_crc != 0 && t.snapshot.len > 13);
        for (int i = 0; i < 100; i++) txn_append(&t, -1, 0, 0, 1, false);
        txn_end(&t, 7, 0, false);
        if (how == 0) bw_buf_free(&t.snapshot);
        if (how == 1) t.snapshot.data[20] ^= 1;
        if (how == 2) t.f.point.state_offset = -1; /* as a version before this one stored it */
        if (how == 3) t.f.point = (bw_recovery_point){0};
        restart(&t, 1);
        assert_int_equal(check_sequence(&t, 7, 98, &offset), BW_SEQUENCE_DUPLICATE);
        assert_int_equal(offset, 98);
        assert_int_equal(t.f.control->slots[0].first_unstable, INT64_MAX);
        char seen[512];
        bw_reader *r = txn_reader(&t, true, BW_LIMIT_VISIBLE);
        bw_reader_seek(r, 49);
        bw_batch_ref b;
        assert_int_equal(bw_reader_next(r, &b), BW_OK);
        assert_int_equal(b.header.base_offset, 49);
        assert_int_equal(bw_reader_next(r, &b), BW_OK);
        assert_int_equal(b.header.base_offset, 100); /* the aborted ones are left out */
        bw_reader_seek(r, 200);
        txn_seen(r, seen);
        bw_reader_close(r);
        txn_store(&t);
        assert_true(t.f.point.state_offset == 201 && t.f.point.state_crc != 0);
        txn_fini(&t);
    }
}

static void test_partition_without_producers_stores_no_snapshot(void **state)
{
    (void)state;
    txn_fixture t;
    txn_init(&t, 16 << 10);
    for (int round = 1; round <= 3; round++) {
        for (int i = 0; i < 50; i++) txn_append(&t, -1, 0, 0, 1, false);
        txn_store(&t);
        assert_null(t.snapshot.data);
        assert_int_equal(t.f.point.state_offset, 50 * round);
        assert_int_equal(t.f.point.state_crc, 0);
        restart(&t, round - 1);
    }
    txn_append(&t, 7, 0, 0, 1, false);
    txn_store(&t);
    uint32_t crc = t.f.point.state_crc;
    assert_true(crc != 0);
    for (int i = 0; i < 50; i++) txn_append(&t, -1, 0, 0, 1, false); /* nothing new about producers: the snapshot that is there holds on */
    bw_buf snapshot = {0};
    assert_int_equal(bw_partition_sync(t.f.p), BW_OK);
    assert_true(bw_partition_recovery_point(t.f.p, &t.f.point, &snapshot));
    assert_null(snapshot.data);
    assert_int_equal(t.f.point.state_crc, crc);
    assert_int_equal(t.f.point.state_offset, t.f.point.next_offset);
    int64_t offset;
    restart(&t, 1);
    assert_int_equal(check_sequence(&t, 7, 0, &offset), BW_SEQUENCE_DUPLICATE);
    txn_fini(&t);
}

static void test_large_snapshot_is_stored_only_when_the_log_has_grown_by_much(void **state)
{
    (void)state;
    txn_fixture t;
    txn_init(&t, 1 << 20);
    for (int i = 0; i < 300; i++) txn_append(&t, i, 0, 0, 1, false);
    txn_store(&t);
    size_t large = t.snapshot.len;
    assert_true(large > 300 * 39);
    int stored = 0;
    int64_t before = t.f.point.state_offset;
    for (int i = 1; i <= 300; i++) {
        txn_append(&t, 5, 0, i, 1, false);
        txn_store(&t);
        stored += t.f.point.state_offset != before;
        before = t.f.point.state_offset;
    }
    assert_int_equal(stored, 0); /* 300 batches of less than 500 bytes: not yet sixteen times its size */
    assert_int_equal(t.f.point.next_offset, 600);
    for (int i = 301; i <= 900; i++) txn_append(&t, 5, 0, i, 1, false);
    txn_store(&t);
    assert_int_equal(t.f.point.state_offset, 1200);
    int64_t offset;
    for (int i = 901; i < 910; i++) txn_append(&t, 5, 0, i, 1, false);
    restart(&t, 1);
    assert_int_equal(check_sequence(&t, 5, 909, &offset), BW_SEQUENCE_DUPLICATE);
    assert_int_equal(check_sequence(&t, 299, 0, &offset), BW_SEQUENCE_DUPLICATE);
    txn_fini(&t);
}

static void test_point_that_was_not_stored_is_made_up_for(void **state)
{
    (void)state;
    txn_fixture t;
    int64_t offset;
    bw_recovery_point lost;
    bw_buf snapshot = {0};
    txn_init(&t, 1 << 20);
    txn_append(&t, 7, 0, 0, 1, false);
    assert_int_equal(bw_partition_sync(t.f.p), BW_OK);
    assert_true(bw_partition_recovery_point(t.f.p, &lost, &snapshot));
    assert_non_null(snapshot.data);
    bw_buf_free(&snapshot); /* LMDB failed */
    bw_partition_point_lost(t.f.p);
    assert_true(bw_partition_recovery_point(t.f.p, &t.f.point, &snapshot));
    assert_int_equal(t.f.point.state_offset, -1);
    txn_append(&t, -1, 0, 0, 1, false);
    txn_store(&t);
    assert_int_equal(t.f.point.state_offset, 2);
    assert_true(t.f.point.state_crc != 0 && t.snapshot.data);
    restart(&t, 1);
    assert_int_equal(check_sequence(&t, 7, 0, &offset), BW_SEQUENCE_DUPLICATE);
    txn_fini(&t);
}

/* Between an abort's marker and its entry in the index the state may not be stored: whoever took it up would never index that marker. */
static void test_state_is_not_stored_while_an_abort_is_not_indexed(void **state)
{
    (void)state;
    txn_fixture t;
    char seen[512];
    txn_init(&t, 1 << 20);
    txn_append(&t, 7, 0, 0, 1, true);
    txn_store(&t);
    assert_int_equal(t.f.point.state_offset, 1);
    atomic_store(&t.f.p->aborting, true); /* as bw_txn_end does, and then only the marker */
    bw_marker m = {7, 0, false, 5, 0};
    uint8_t marker[BW_MARKER_BYTES];
    bw_append_result r;
    assert_int_equal(bw_append(t.a, marker, bw_marker_write(marker, &m), 1, 0, 0, &r), BW_OK);
    txn_store(&t);
    assert_int_equal(t.f.point.next_offset, 2);
    assert_int_equal(t.f.point.state_offset, 1);
    txn_crash(&t);
    txn_open(&t, false);
    assert_int_equal(t.f.control->slots[0].first_unstable, INT64_MAX);
    bw_reader *reader = txn_reader(&t, true, BW_LIMIT_VISIBLE);
    txn_seen(reader, seen);
    assert_string_equal(seen, "");
    bw_reader_close(reader);
    txn_fini(&t);
}

/* A rotten index is made anew at the next start, also where the stored state lies far behind it; what it takes to be known of producers stays. */
static void test_rotten_index_is_made_anew_at_a_start(void **state)
{
    (void)state;
    for (int how = 0; how < 2; how++) {
        txn_fixture t;
        char first[64];
        int64_t offset;
        txn_init(&t, 8 << 10);
        txn_append(&t, 7, 0, 0, 1, true);
        for (int i = 0; i < 40; i++) txn_append(&t, -1, 0, 0, 1, false);
        txn_append(&t, 7, 0, 1, 1, true);
        txn_end(&t, 7, 0, false);
        for (int i = 0; i < 40; i++) txn_append(&t, -1, 0, 0, 1, false);
        txn_store(&t);
        assert_int_equal(log_count_files(&t.f, ".txnindex", first), 1);
        assert_string_not_equal(first, "00000000000000000000.txnindex");
        log_flip(&t.f, first, 0);
        restart(&t, how);
        assert_int_equal(check_sequence(&t, 7, 1, &offset), BW_SEQUENCE_DUPLICATE);
        bw_reader *r = txn_reader(&t, true, BW_LIMIT_VISIBLE);
        bw_batch_ref b;
        int n = 0;
        while (bw_reader_next(r, &b) == BW_OK) {
            if (b.header.attributes & BW_ATTR_CONTROL) continue;
            assert_int_equal(b.header.producer_id, -1);
            n++;
        }
        assert_int_equal(n, 80);
        bw_reader_close(r);
        txn_fini(&t);
    }
}

/* An index that cannot be written keeps the last stable offset where it is, and nothing else. */
static void test_abort_that_cannot_be_indexed_is_indexed_later(void **state)
{
    (void)state;
    txn_fixture t;
    char path[256], seen[512];
    txn_init(&t, 1 << 20);
    bw_reader *r = txn_reader(&t, true, BW_LIMIT_VISIBLE);
    txn_append(&t, 7, 0, 0, 1, true);   /* 0 */
    txn_append(&t, 8, 0, 0, 1, true);   /* 1 */
    txn_append(&t, -1, 0, 0, 1, false); /* 2 */
    txn_store(&t);
    int64_t stored = t.f.point.state_offset;
    log_path(&t.f, path, "00000000000000000000.txnindex");
    assert_int_equal(mkdir(path, 0755), 0);
    txn_end(&t, 7, 0, false); /* 3 */
    txn_end(&t, 8, 0, true);  /* 4 */
    assert_int_equal(t.f.control->slots[0].first_unstable, 0);
    assert_false(bw_txn_tend(t.f.p, t.table));
    txn_seen(r, seen);
    assert_string_equal(seen, "");
    txn_append(&t, 8, 0, 1, 1, true); /* 5 */
    bw_marker m = {8, 0, false, 5, 0};
    bw_append_result out;
    assert_int_equal(bw_txn_end(t.f.p, t.a, t.table, &m, 1, 0, 0, &out), BW_ERR_DISK_FULL); /* one at a time */
    txn_store(&t);
    assert_int_equal(t.f.point.state_offset, stored);
    assert_int_equal(rmdir(path), 0);
    assert_true(bw_txn_tend(t.f.p, t.table));
    assert_int_equal(t.f.control->slots[0].first_unstable, 5);
    txn_seen(r, seen);
    assert_string_equal(seen, "1 2");
    txn_end(&t, 8, 0, false);
    txn_store(&t);
    assert_int_equal(t.f.point.state_offset, 7);
    txn_seen(r, seen);
    assert_string_equal(seen, "");
    bw_reader_close(r);
    txn_fini(&t);
}

/* Who appends directly may stamp a producer id: the log knows it, the broker's table need not. */
static void test_last_of_a_producer_is_right_for_direct_ones(void **state)
{
    (void)state;
    txn_fixture t;
    bw_producer_info info;
    size_t len;
    bw_append_result r;
    txn_init(&t, 1 << 20);
    assert_int_equal(bw_partition_tend(t.f.p, NULL), BW_OK);
    assert_int_equal(bw_partition_producer_last(t.f.p, 70, &info), BW_ERR_NOT_FOUND);
    bw_appender *direct = log_appender(&t.f, false);
    for (int i = 0; i < 4; i++) {
        const uint8_t *batch = txn_batch(&t, 70, 2, 3 * i, 3, false, &len);
        assert_int_equal(bw_append(direct, batch, len, 3, t.f.next_ts, bw_deadline_in_ms(1000), &r), BW_OK);
    }
    assert_int_equal(bw_partition_producer_last(t.f.p, 70, &info), BW_OK);
    assert_int_equal(info.epoch, 2);
    assert_int_equal(info.last_sequence, 11);
    assert_int_equal(info.last_offset, 11);
    bw_appender_close(direct);
    txn_store(&t);
    restart(&t, 1);
    assert_int_equal(bw_partition_producer_last(t.f.p, 70, &info), BW_OK);
    assert_int_equal(info.last_sequence, 11);
    bw_partition_expire_producers(t.f.p, -1000);
    assert_int_equal(bw_partition_producer_last(t.f.p, 70, &info), BW_ERR_NOT_FOUND);
    txn_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_state_comes_back_after_each_kind_of_restart),
        cmocka_unit_test(test_state_outlives_the_batches_that_retention_deleted),
        cmocka_unit_test(test_state_of_what_a_power_cut_took_is_gone),
        cmocka_unit_test(test_snapshot_that_is_lost_or_of_another_point_is_made_up_for_by_the_log),
        cmocka_unit_test(test_partition_without_producers_stores_no_snapshot),
        cmocka_unit_test(test_large_snapshot_is_stored_only_when_the_log_has_grown_by_much),
        cmocka_unit_test(test_point_that_was_not_stored_is_made_up_for),
        cmocka_unit_test(test_state_is_not_stored_while_an_abort_is_not_indexed),
        cmocka_unit_test(test_rotten_index_is_made_anew_at_a_start),
        cmocka_unit_test(test_abort_that_cannot_be_indexed_is_indexed_later),
        cmocka_unit_test(test_last_of_a_producer_is_right_for_direct_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
