/* Partitions while they run: create, open, capacity, rolls, indexes, seals, sync, takeover, clean stop. */
#include "log_fixture.h"

#include "log/segment.h"

#include "format/index.h"

static void test_partition_create_twice_is_busy(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    assert_int_equal(bw_partition_create_files(f.data_fd, LOG_TOPIC, 0, &f.topic), BW_ERR_BUSY);
    assert_true(log_exists(&f, "00000000000000000000.log"));
    assert_true(log_exists(&f, "partition.metadata"));
    assert_true(log_exists(&f, "leader-epoch-checkpoint"));
    log_fini(&f);
}

static void test_partition_fresh_is_empty_and_open(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    bw_partition_info i;
    bw_partition_info_get(f.p, &i);
    assert_int_equal(i.end_offset, 0);
    assert_int_equal(i.log_start, 0);
    assert_int_equal(i.segments, 1);
    assert_int_equal(i.leader_epoch, 0);
    assert_int_equal(i.state, BW_SLOT_OPEN);
    assert_true(f.report.recovered);
    assert_false(f.report.cut);
    assert_int_equal(bw_position_pos(f.control->slots[0].capacity), 65536 - BW_GRANT_MARGIN);
    log_fini(&f);
}

static void test_partition_append_grows_capacity_and_rolls(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 256 << 10);
    log_open(&f, true);
    log_start_keeper(&f);
    log_append_many(&f, 2000, 3, 200);
    assert_int_equal(log_read_from(&f, 0, NULL), 6000);
    assert_int_equal(log_read_from(&f, 3001, NULL), 6000);
    log_stop_keeper(&f);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    bw_partition_info i;
    bw_partition_info_get(f.p, &i);
    assert_int_equal(i.end_offset, 6000);
    assert_int_equal(i.durable_offset, 6000);
    assert_true(i.segments >= 5);
    assert_int_equal(log_count_files(&f, ".log", NULL), i.segments);
    assert_int_equal(log_count_files(&f, ".seal", NULL), i.segments - 1);
    assert_true(log_count_files(&f, ".index", NULL) >= (int)i.segments - 1);
    assert_true(log_count_files(&f, ".spare", NULL) <= 1);
    log_fini(&f);
}

static void test_partition_batch_larger_than_first_grant_is_granted(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 4 << 20);
    log_open(&f, true);
    log_start_keeper(&f);
    bw_appender *a = log_appender(&f, false);
    assert_int_equal(log_try_append(&f, a, 1, 1000000, 5000, NULL), BW_OK);
    assert_int_equal(log_try_append(&f, a, 1, 3000000, 5000, NULL), BW_OK);
    assert_int_equal(log_try_append(&f, a, 1, 4000000, 5000, NULL), BW_OK); /* rolls, with most of the old one unused */
    assert_int_equal(log_try_append(&f, a, 1, 5000000, 5000, NULL), BW_ERR_RECORD_TOO_LARGE);
    bw_appender_close(a);
    assert_int_equal(log_read_from(&f, 0, NULL), 3);
    log_fini(&f);
}

static void test_partition_sealed_segment_is_cut_to_its_length(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 128 << 10);
    log_open(&f, true);
    log_append_many(&f, 400, 1, 500);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    uint8_t bytes[BW_SEAL_BYTES];
    bw_seal seal;
    char path[256];
    log_path(&f, path, "00000000000000000000.seal");
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, bytes, sizeof bytes), sizeof bytes);
    close(fd);
    assert_int_equal(bw_seal_decode(bytes, sizeof bytes, &seal), BW_OK);
    assert_int_equal(seal.length, log_size(&f, "00000000000000000000.log"));
    assert_int_equal(seal.batches, seal.next_offset);
    log_fini(&f);
}

static void test_partition_index_points_to_batches(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 500, 2, 300);
    log_close(&f, true);
    char path[256];
    static uint8_t log[1 << 20], index[65536];
    log_path(&f, path, "00000000000000000000.log");
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, log, sizeof log);
    close(fd);
    log_path(&f, path, "00000000000000000000.index");
    fd = open(path, O_RDONLY);
    ssize_t m = read(fd, index, sizeof index);
    close(fd);
    size_t entries = bw_index_entries(index, (size_t)m, (uint64_t)n);
    assert_true(entries > 50);
    assert_int_equal(entries * BW_INDEX_ENTRY_BYTES, m);
    for (size_t i = 0; i < entries; i++) {
        bw_batch_header h;
        uint32_t position = bw_get_be32(index + i * 8 + 4);
        assert_int_equal(bw_batch_header_decode(log + position, (size_t)n - position, false, &h), BW_OK);
        assert_int_equal(bw_batch_last_offset(&h), bw_get_be32(index + i * 8));
    }
    f.p = NULL;
    log_fini(&f);
}

static void test_partition_clean_stop_trims_and_reopens_without_new_epoch(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 10, 1, 100);
    bw_position tail = f.control->slots[0].tail;
    log_close(&f, true);
    assert_int_equal(log_size(&f, "00000000000000000000.log"), bw_position_pos(tail));
    assert_int_equal(f.point.next_offset, 10);
    assert_int_equal(f.point.position, bw_position_pos(tail));
    assert_int_equal(log_count_files(&f, ".spare", NULL), 0);
    log_open(&f, true);
    assert_int_equal(f.report.leader_epoch, 0);
    assert_false(f.report.cut);
    assert_false(f.report.foreign);
    assert_int_equal(log_read_from(&f, 0, NULL), 10);
    log_append_many(&f, 10, 1, 100);
    assert_int_equal(log_read_from(&f, 0, NULL), 20);
    log_fini(&f);
}

static void test_partition_takeover_keeps_everything(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 128 << 10);
    log_open(&f, true);
    log_append_many(&f, 500, 2, 300);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    log_append_many(&f, 500, 2, 300);
    int64_t end = bw_slot_end_offset(&f.control->slots[0]);
    log_crash(&f);
    log_open(&f, false);
    assert_false(f.report.recovered);
    assert_int_equal(f.report.end_offset, end);
    assert_int_equal(f.control->slots[0].durable, f.control->slots[0].tail);
    assert_int_equal(f.control->slots[0].durable_offset, end);
    assert_int_equal(log_read_from(&f, 0, NULL), end);
    log_append_many(&f, 1000, 2, 300);
    assert_int_equal(log_read_from(&f, 0, NULL), end + 2000);
    log_close(&f, true);
    log_open(&f, false);
    log_append_many(&f, 10, 2, 300);
    assert_int_equal(log_read_from(&f, 0, NULL), end + 2020);
    log_fini(&f);
}

static uint32_t capacity_of(const log_fixture *f) { return bw_position_pos(atomic_load(&f->control->slots[0].capacity)); }
static uint32_t tail_of(const log_fixture *f) { return bw_position_pos(atomic_load(&f->control->slots[0].tail)); }

/* A writer that stood at the end of its room when the coordinator died goes on as soon as there is another, before that has time for
 * anything else; and one that writes steadily has as much in hand as it writes in half a second. */
static void test_partition_takeover_grants_what_a_writer_waits_for(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 20);
    log_open(&f, true);
    bw_appender *a = log_appender(&f, false);
    bw_append_result r;
    size_t len;
    const uint8_t *batch = log_batch(&f, 1, 4000, BW_CODEC_NONE, &len);
    bw_err e;
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    while (!(e = bw_append(a, batch, len, 1, 1000000, bw_clock_mono_ns() + 1000000, &r))) {}
    assert_int_equal(e, BW_ERR_NO_COORDINATOR); /* it has asked, and nobody answers */
    uint32_t before = capacity_of(&f);
    log_crash(&f);
    log_open(&f, false);
    assert_true(capacity_of(&f) > before);
    assert_int_equal(bw_append(a, batch, len, 1, 1000000, bw_clock_mono_ns(), &r), BW_OK);
    f.p->segments[0]->born_mono_ms = bw_clock_mono_ms() - 100; /* as if the log had been written within a tenth of a second */
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_true(capacity_of(&f) - tail_of(&f) >= tail_of(&f));
    assert_true(capacity_of(&f) < 5 * tail_of(&f));
    bw_appender_close(a);
    log_fini(&f);
}

static void test_partition_takeover_of_an_unlinked_spare_links_it(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    bw_appender *a = log_appender(&f, false);
    while (bw_position_pos(f.control->slots[0].tail) < 50000) assert_int_equal(log_try_append(&f, a, 1, 1000, 0, NULL), BW_OK);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK); /* makes the spare */
    assert_int_equal(log_count_files(&f, ".spare", NULL), 1);
    while (bw_position_seq(f.control->slots[0].tail) == 1) assert_int_equal(log_try_append(&f, a, 1, 1000, 0, NULL), BW_OK);
    assert_int_equal(log_count_files(&f, ".log", NULL), 1); /* nobody linked it yet */
    int64_t end = bw_slot_end_offset(&f.control->slots[0]);
    log_crash(&f);
    log_open(&f, false);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_int_equal(log_count_files(&f, ".log", NULL), 2);
    assert_int_equal(log_read_from(&f, 0, NULL), end);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
        assert_int_equal(log_try_append(&f, a, 1, 1000, 0, NULL), BW_OK);
    }
    bw_appender_close(a);
    assert_int_equal(log_read_from(&f, 0, NULL), end + 30);
    log_fini(&f);
}

static void test_partition_sync_moves_durable_and_the_point(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    bw_recovery_point pt;
    (void)bw_partition_recovery_point(f.p, &pt, NULL);
    assert_false(bw_partition_recovery_point(f.p, &pt, NULL));
    log_append_many(&f, 10, 5, 100);
    bw_tail_slot *s = &f.control->slots[0];
    assert_true(bw_partition_has_unsynced(f.p));
    assert_false(bw_partition_wants_sync(f.p));
    atomic_store(&s->sync_request, s->tail);
    assert_true(bw_partition_wants_sync(f.p));
    bool synced;
    assert_int_equal(bw_partition_tend(f.p, &synced), BW_OK);
    assert_true(synced);
    assert_int_equal(s->durable, s->tail);
    assert_int_equal(s->durable_offset, 50);
    assert_false(bw_partition_has_unsynced(f.p));
    assert_true(bw_partition_recovery_point(f.p, &pt, NULL));
    assert_int_equal(pt.next_offset, 50);
    assert_int_equal(pt.position, bw_position_pos(s->tail));
    log_fini(&f);
}

static void test_partition_tend_with_nothing_wanted_makes_no_system_call(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 10, 5, 100);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    usleep(950000); /* past a tick: whatever was still to be written is written now */
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    uint64_t before = 0, after = 0;
    for (int c = 0; c < BW_OS_CALL_COUNT; c++) before += bw_os_calls_made((bw_os_call)c);
    usleep(950000);
    for (int i = 0; i < 1000; i++) assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    for (int c = 0; c < BW_OS_CALL_COUNT; c++) after += bw_os_calls_made((bw_os_call)c);
    assert_int_equal(before, after);
    log_fini(&f);
}

static void test_partition_segment_ms_rolls_a_segment_that_is_not_empty(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    f.config.segment_ms = 50;
    log_open(&f, true);
    usleep(100000);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_int_equal(bw_position_seq(f.control->slots[0].tail), 1);
    log_append_many(&f, 1, 1, 100);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    usleep(100000);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_int_equal(bw_position_seq(f.control->slots[0].tail), 2);
    log_append_many(&f, 1, 1, 100);
    assert_int_equal(log_read_from(&f, 0, NULL), 2);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_true(log_exists(&f, "00000000000000000001.log"));
    log_fini(&f);
}

static void test_partition_two_writers_and_a_syncer_keep_the_order(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 512 << 10);
    log_open(&f, true);
    int dir_fd = bw_partition_dir_fd(f.p); /* before there is a keeper, who may hold the partition's mutex while we fork */
    log_start_keeper(&f);
    pid_t child[2];
    for (int c = 0; c < 2; c++) {
        child[c] = fork();
        if (child[c] == 0) {
            bw_control *control;
            bw_mail *mail;
            bw_appender *a;
            if (bw_mail_attach(f.shm_fd, f.generation, &mail) != BW_OK) _exit(10);
            if (bw_control_attach(f.shm_fd, f.generation, &f.topic, BW_CONTROL_WRITE, mail, &control) != BW_OK) _exit(11);
            bw_appender_options o = {.control = control, .dir_fd = dir_fd, .use_pwrite = c == 1};
            if (bw_appender_open(&o, &a) != BW_OK) _exit(12);
            bw_append_result r = {0};
            for (int i = 0; i < 3000; i++)
                if (log_try_append(&f, a, 2, 250, 10000, &r) != BW_OK) _exit(13);
            bw_tail_slot *slot = &control->slots[0];
            bw_position_raise(&slot->sync_request, r.end);
            bw_notify(mail, BW_MAILBOX_SYNCER, atomic_load(&slot->bus_number));
            bool settled = bw_slot_wait(slot, bw_slot_is_settled, r.end, bw_deadline_in_ms(10000));
            _exit(settled && atomic_load(&slot->durable) >= r.end ? 0 : 14);
        }
    }
    for (int c = 0; c < 2; c++) {
        int status;
        assert_int_equal(waitpid(child[c], &status, 0), child[c]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    assert_int_equal(log_read_from(&f, 0, NULL), 12000);
    log_fini(&f);
}

static void test_partition_time_lookup_is_exact(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 128 << 10);
    log_open(&f, true);
    int64_t first = f.next_ts;
    log_append_many(&f, 1500, 2, 150); /* batch i: offsets 2i, 2i+1, timestamp first+i */
    int64_t offset, found;
    for (int i = 0; i < 1500; i += 37) {
        assert_int_equal(bw_partition_offset_for_time(f.p, first + i, &offset, &found), BW_OK);
        assert_int_equal(offset, 2 * i);
        assert_int_equal(found, first + i);
    }
    assert_int_equal(bw_partition_offset_for_time(f.p, 0, &offset, &found), BW_OK);
    assert_int_equal(offset, 0);
    assert_int_equal(found, first);
    assert_int_equal(bw_partition_offset_for_time(f.p, first + 1500, &offset, &found), BW_OK);
    assert_int_equal(offset, 3000);
    assert_int_equal(found, -1);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_int_equal(bw_partition_offset_for_time(f.p, first + 700, &offset, &found), BW_OK);
    assert_int_equal(offset, 1400);
    log_fini(&f);
}

static void test_partition_delete_files_leaves_nothing(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    log_append_many(&f, 200, 2, 250);
    atomic_store(&f.control->slots[0].state, BW_SLOT_DELETED);
    bw_partition_close(f.p, false, NULL);
    f.p = NULL;
    assert_int_equal(bw_partition_delete_files(f.data_fd, LOG_TOPIC, 0), BW_OK);
    DIR *d = opendir(f.data);
    struct dirent *e;
    int n = 0;
    while ((e = readdir(d))) n += e->d_name[0] != '.';
    closedir(d);
    assert_int_equal(n, 0);
    log_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partition_create_twice_is_busy),
        cmocka_unit_test(test_partition_fresh_is_empty_and_open),
        cmocka_unit_test(test_partition_append_grows_capacity_and_rolls),
        cmocka_unit_test(test_partition_batch_larger_than_first_grant_is_granted),
        cmocka_unit_test(test_partition_sealed_segment_is_cut_to_its_length),
        cmocka_unit_test(test_partition_index_points_to_batches),
        cmocka_unit_test(test_partition_clean_stop_trims_and_reopens_without_new_epoch),
        cmocka_unit_test(test_partition_takeover_keeps_everything),
        cmocka_unit_test(test_partition_takeover_grants_what_a_writer_waits_for),
        cmocka_unit_test(test_partition_takeover_of_an_unlinked_spare_links_it),
        cmocka_unit_test(test_partition_sync_moves_durable_and_the_point),
        cmocka_unit_test(test_partition_tend_with_nothing_wanted_makes_no_system_call),
        cmocka_unit_test(test_partition_segment_ms_rolls_a_segment_that_is_not_empty),
        cmocka_unit_test(test_partition_two_writers_and_a_syncer_keep_the_order),
        cmocka_unit_test(test_partition_time_lookup_is_exact),
        cmocka_unit_test(test_partition_delete_files_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
