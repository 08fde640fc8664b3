/* Recovery from files: torn tails, corruption below and above the recovery point, foreign logs, spares, clean and unclean stops. */
#include "log_fixture.h"

#define LOG0 "00000000000000000000.log"

/* A copy of one file's bytes, to be restored between cases. */
typedef struct saved { uint8_t *data; size_t len; } saved;

static saved save(log_fixture *f, const char *name)
{
    char path[256];
    log_path(f, path, name);
    saved s = {.len = (size_t)log_size(f, name)};
    s.data = malloc(s.len + 1);
    int fd = open(path, O_RDONLY);
    assert_int_equal(read(fd, s.data, s.len), s.len);
    close(fd);
    return s;
}

static void put(log_fixture *f, const char *name, const uint8_t *data, size_t len)
{
    char path[256];
    log_path(f, path, name);
    unlink(path);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
}

static void remove_hints(log_fixture *f)
{
    char command[256];
    snprintf(command, sizeof command, "cd %s/%s-0 && rm -f *.index *.timeindex *.seal *.corrupt*", f->data, LOG_TOPIC);
    assert_int_equal(system(command), 0);
}

static int64_t end_offset(log_fixture *f) { return bw_slot_end_offset(&f->control->slots[0]); }

static void test_recover_tail_torn_at_each_byte_keeps_whole_batches(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 4, 2, 20);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    bw_recovery_point pt;
    assert_true(bw_partition_recovery_point(f.p, &pt, NULL));
    uint32_t before = bw_position_pos(f.control->slots[0].tail);
    log_append_many(&f, 1, 2, 20);
    uint32_t after = bw_position_pos(f.control->slots[0].tail);
    log_crash(&f);
    saved s = save(&f, LOG0);
    for (uint32_t cut = before; cut <= after; cut++) {
        for (int zero = 0; zero < 2; zero++) { /* the rest is missing, or was never written */
            uint8_t *image = malloc(s.len);
            memcpy(image, s.data, s.len);
            memset(image + cut, 0, s.len - cut);
            put(&f, LOG0, image, zero ? s.len : cut);
            free(image);
            remove_hints(&f);
            f.point = pt;
            log_open(&f, true);
            bool whole = true; /* the last bytes of a batch may be zeros themselves */
            for (uint32_t i = cut; i < after; i++) whole = whole && zero && s.data[i] == 0;
            assert_int_equal(end_offset(&f), whole ? 10 : 8);
            assert_false(f.report.foreign);
            assert_int_equal(f.report.quarantined, 0);
            assert_int_equal(log_read_from(&f, 0, NULL), whole ? 10 : 8);
            assert_int_equal(f.report.leader_epoch, cut == before && !zero ? 0 : 1);
            log_append_many(&f, 2, 2, 20);
            assert_int_equal(log_read_from(&f, 0, NULL), whole ? 14 : 12);
            log_crash(&f);
            put(&f, "leader-epoch-checkpoint", (const uint8_t *)"0\n1\n0 0\n", 8);
        }
    }
    free(s.data);
    log_fini(&f);
}

static void test_recover_flipped_byte_above_the_point_cuts_there(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 3, 1, 50);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    bw_recovery_point pt;
    assert_true(bw_partition_recovery_point(f.p, &pt, NULL));
    uint32_t from = bw_position_pos(f.control->slots[0].tail);
    log_append_many(&f, 1, 1, 50);
    uint32_t to = bw_position_pos(f.control->slots[0].tail);
    log_append_many(&f, 3, 1, 50);
    log_crash(&f);
    saved s = save(&f, LOG0);
    for (uint32_t at = from; at < to; at++) {
        put(&f, LOG0, s.data, s.len);
        remove_hints(&f);
        log_flip(&f, LOG0, at);
        f.point = pt;
        log_open(&f, true);
        /* Bytes 8 to 11 hold the length: one that gives 0 reads as the end; everything else as a bad batch. The leader epoch may
         * go up (bytes 12 to 15): that batch is then good, and those behind it are not. */
        int64_t end = end_offset(&f);
        assert_true(end == 3 || (end == 4 && at >= from + 12 && at < from + 16));
        assert_true(f.report.cut);
        assert_true(f.report.cut_from_bytes > 0);
        assert_int_equal(log_read_from(&f, 0, NULL), end);
        assert_true(f.report.leader_epoch >= 1);
        log_crash(&f);
        put(&f, "leader-epoch-checkpoint", (const uint8_t *)"0\n1\n0 0\n", 8);
    }
    free(s.data);
    log_fini(&f);
}

static void test_recover_bad_batch_below_the_point_is_quarantined_and_the_rest_kept(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 20, 1, 50);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    bw_recovery_point pt;
    assert_true(bw_partition_recovery_point(f.p, &pt, NULL));
    f.point = pt;
    log_append_many(&f, 7, 1, 50); /* visible, not yet under the point */
    log_crash(&f);
    log_flip(&f, LOG0, pt.position / 2);
    log_open(&f, true);
    assert_int_equal(f.report.quarantined, 1);
    assert_true(f.report.detail[0] != '\0');
    assert_true(log_exists(&f, LOG0 ".corrupt"));
    assert_false(log_exists(&f, LOG0));
    assert_int_equal(end_offset(&f), 27);
    assert_int_equal(f.control->slots[0].log_start, 20);
    assert_int_equal(log_read_from(&f, 20, NULL), 27);
    bw_err e;
    (void)log_read_from(&f, 5, &e);
    assert_int_equal(e, BW_ERR_OFFSET_OUT_OF_RANGE);
    assert_true(f.report.leader_epoch >= 1);
    log_append_many(&f, 3, 1, 50);
    assert_int_equal(log_read_from(&f, 20, NULL), 30);
    log_close(&f, true);
    log_open(&f, true); /* and stays so */
    assert_int_equal(f.report.quarantined, 0);
    assert_int_equal(log_read_from(&f, 20, NULL), 30);
    log_fini(&f);
}

static void test_recover_corrupt_middle_segment_is_an_error_to_its_readers_only(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    log_append_many(&f, 300, 1, 1000);
    int64_t end = end_offset(&f);
    log_close(&f, true);
    remove_hints(&f); /* without seals: all of it is scanned */
    int64_t bases[16];
    int n = 0;
    char path[256];
    snprintf(path, sizeof path, "%s/%s-0", f.data, LOG_TOPIC);
    DIR *d = opendir(path);
    struct dirent *entry;
    while ((entry = readdir(d)))
        if (bw_segment_name_parse(entry->d_name, ".log", &bases[n])) n++;
    closedir(d);
    assert_true(n >= 4);
    int64_t first = INT64_MAX, second = INT64_MAX;
    for (int i = 0; i < n; i++)
        if (bases[i] > 0 && bases[i] < first) first = bases[i];
    for (int i = 0; i < n; i++)
        if (bases[i] > first && bases[i] < second) second = bases[i];
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, first, ".log");
    log_flip(&f, name, 5000);
    log_open(&f, true);
    assert_int_equal(f.report.quarantined, 1);
    assert_int_equal(end_offset(&f), end);
    assert_int_equal(f.control->slots[0].log_start, 0);
    bw_err e;
    assert_int_equal(log_read_from(&f, 0, &e), first);
    assert_int_equal(e, BW_ERR_CORRUPT);
    assert_int_equal(log_read_from(&f, second, NULL), end);
    log_fini(&f);
}

static void test_recover_log_that_ends_below_its_point_is_foreign_and_kept(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 10, 1, 50);
    uint32_t early = bw_position_pos(f.control->slots[0].tail);
    log_append_many(&f, 10, 1, 50);
    log_close(&f, true);
    assert_int_equal(f.point.next_offset, 20);
    char path[256];
    log_path(&f, path, LOG0);
    assert_int_equal(truncate(path, early), 0); /* as restored from an older copy */
    log_open(&f, true);
    assert_true(f.report.foreign);
    assert_false(f.report.cut);
    assert_int_equal(f.report.quarantined, 0);
    assert_int_equal(end_offset(&f), 10);
    assert_true(f.report.leader_epoch >= 1);
    assert_int_equal(log_read_from(&f, 0, NULL), 10);
    log_fini(&f);
}

static void test_recover_foreign_log_with_a_torn_end_loses_no_byte(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 20, 1, 50);
    log_close(&f, true);
    char path[256];
    log_path(&f, path, LOG0);
    uint32_t cut = f.point.position - 40; /* inside the last batch */
    assert_int_equal(truncate(path, cut), 0);
    log_open(&f, true);
    assert_true(f.report.foreign);
    assert_int_equal(end_offset(&f), 19);
    assert_int_equal(log_size(&f, LOG0), cut);
    log_append_many(&f, 5, 1, 50);
    assert_int_equal(log_read_from(&f, 0, NULL), 24);
    log_close(&f, true);
    log_open(&f, true);
    assert_int_equal(log_read_from(&f, 0, NULL), 24);
    assert_int_equal(log_size(&f, LOG0), cut);
    log_fini(&f);
}

static void test_recover_log_with_other_bytes_at_the_point_is_foreign(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 10, 1, 50);
    log_close(&f, true);
    f.point.last_crc ^= 1;
    log_open(&f, true);
    assert_true(f.report.foreign);
    assert_int_equal(end_offset(&f), 10);
    assert_int_equal(log_read_from(&f, 0, NULL), 10);
    log_fini(&f);
}

static void test_recover_empty_folder_with_a_point_is_foreign_and_goes_on_behind_it(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 10, 1, 50);
    log_close(&f, true);
    char path[256];
    log_path(&f, path, LOG0);
    assert_int_equal(unlink(path), 0);
    log_open(&f, true);
    assert_true(f.report.foreign);
    assert_int_equal(end_offset(&f), 10);
    assert_int_equal(f.control->slots[0].log_start, 10);
    log_append_many(&f, 1, 1, 50);
    assert_int_equal(log_read_from(&f, 10, NULL), 11);
    log_fini(&f);
}

static void fill_and_roll_unlinked(log_fixture *f, int64_t *end)
{
    bw_appender *a = log_appender(f, false);
    while (bw_position_pos(f->control->slots[0].tail) < 50000) assert_int_equal(log_try_append(f, a, 1, 1000, 0, NULL), BW_OK);
    assert_int_equal(bw_partition_tend(f->p, NULL), BW_OK);
    while (bw_position_seq(f->control->slots[0].tail) == 1) assert_int_equal(log_try_append(f, a, 1, 1000, 0, NULL), BW_OK);
    for (int i = 0; i < 5; i++) assert_int_equal(log_try_append(f, a, 1, 1000, 0, NULL), BW_OK);
    bw_appender_close(a);
    *end = end_offset(f);
}

static void test_recover_spare_with_data_continues_the_log(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    int64_t end;
    fill_and_roll_unlinked(&f, &end);
    log_crash(&f);
    assert_int_equal(log_count_files(&f, ".spare", NULL), 1);
    log_open(&f, true);
    assert_int_equal(end_offset(&f), end);
    assert_int_equal(log_count_files(&f, ".spare", NULL), 0);
    assert_int_equal(log_count_files(&f, ".log", NULL), 2);
    assert_int_equal(log_read_from(&f, 0, NULL), end);
    log_append_many(&f, 100, 1, 1000);
    assert_int_equal(log_read_from(&f, 0, NULL), end + 100);
    log_fini(&f);
}

static void test_recover_spare_behind_a_cut_is_dropped(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    log_append_many(&f, 1, 1, 100);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    bw_recovery_point pt;
    assert_true(bw_partition_recovery_point(f.p, &pt, NULL));
    int64_t end;
    fill_and_roll_unlinked(&f, &end);
    log_crash(&f);
    log_flip(&f, LOG0, 40000); /* above the point */
    f.point = pt;
    log_open(&f, true);
    assert_true(f.report.cut);
    assert_true(end_offset(&f) < end);
    assert_int_equal(log_count_files(&f, ".log", NULL), 1);
    assert_int_equal(log_count_files(&f, ".spare", NULL), 0);
    assert_int_equal(log_read_from(&f, 0, NULL), end_offset(&f));
    log_fini(&f);
}

static void test_recover_empty_spare_is_removed(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    bw_appender *a = log_appender(&f, false);
    while (bw_position_pos(f.control->slots[0].tail) < 50000) assert_int_equal(log_try_append(&f, a, 1, 1000, 0, NULL), BW_OK);
    bw_appender_close(a);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    assert_int_equal(log_count_files(&f, ".spare", NULL), 1);
    int64_t end = end_offset(&f);
    log_crash(&f);
    log_open(&f, true);
    assert_int_equal(log_count_files(&f, ".spare", NULL), 0);
    assert_int_equal(log_read_from(&f, 0, NULL), end);
    log_fini(&f);
}

static void test_recover_stray_bytes_behind_the_end_are_zeroed(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    f.point.known = true; /* as the broker has it from the start: behind the point nothing was promised */
    log_append_many(&f, 3, 1, 50);
    uint32_t tail = bw_position_pos(f.control->slots[0].tail);
    log_crash(&f);
    char path[256];
    log_path(&f, path, LOG0);
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, "stray", 5, tail + 5000), 5);
    close(fd);
    log_open(&f, true);
    assert_true(f.report.cut);
    assert_int_equal(end_offset(&f), 3);
    saved s = save(&f, LOG0);
    for (size_t i = tail; i < s.len; i++) assert_int_equal(s.data[i], 0);
    free(s.data);
    log_fini(&f);
}

static void test_recover_unclean_end_raises_the_epoch_though_nothing_is_cut(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 3, 1, 50);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    bw_recovery_point pt;
    assert_true(bw_partition_recovery_point(f.p, &pt, NULL));
    f.point = pt;
    log_crash(&f);
    log_open(&f, true);
    assert_false(f.report.cut);
    assert_int_equal(f.report.leader_epoch, 1);
    log_append_many(&f, 1, 1, 50);
    assert_int_equal(log_read_from(&f, 0, NULL), 4);
    char text[64] = "", path[256];
    log_path(&f, path, "leader-epoch-checkpoint");
    int fd = open(path, O_RDONLY);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    assert_string_equal(text, "0\n2\n0 0\n1 3\n");
    log_fini(&f);
}

static void test_recover_without_a_point_keeps_sealed_and_active(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    log_append_many(&f, 300, 2, 500);
    int64_t end = end_offset(&f);
    log_close(&f, true);
    f.point = (bw_recovery_point){0};
    log_open(&f, true);
    assert_int_equal(end_offset(&f), end);
    assert_int_equal(f.report.quarantined, 0);
    assert_false(f.report.foreign);
    assert_int_equal(log_read_from(&f, 0, NULL), end);
    remove_hints(&f);
    log_crash(&f);
    log_open(&f, true);
    assert_int_equal(end_offset(&f), end);
    assert_true(log_count_files(&f, ".seal", NULL) >= 3); /* made anew */
    log_fini(&f);
}

static void test_recover_folder_without_busways_files_is_adopted(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    log_append_many(&f, 200, 2, 500);
    int64_t end = end_offset(&f);
    log_close(&f, true);
    /* As Kafka leaves it: indexes padded with zeros, a snapshot, no seals, no recovery point. */
    char command[512];
    snprintf(command, sizeof command, "cd %s/%s-0 && rm -f *.seal && for i in *.index; do truncate -s 1048576 $i; done && "
             "for i in *.timeindex; do truncate -s 1048572 $i; done && touch 00000000000000000000.snapshot", f.data, LOG_TOPIC);
    assert_int_equal(system(command), 0);
    f.point = (bw_recovery_point){0};
    log_open(&f, true);
    assert_int_equal(end_offset(&f), end);
    assert_int_equal(f.report.leader_epoch, 0);
    assert_int_equal(log_read_from(&f, 0, NULL), end);
    assert_int_equal(log_read_from(&f, end / 2, NULL), end);
    log_append_many(&f, 300, 2, 500);
    assert_int_equal(log_read_from(&f, end - 3, NULL), end + 600);
    log_fini(&f);
}

static void test_recover_poisoned_log_is_checked_from_the_medium(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 5, 1, 50);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    bw_recovery_point pt;
    assert_true(bw_partition_recovery_point(f.p, &pt, NULL));
    log_append_many(&f, 5, 1, 50);
    log_crash(&f);
    assert_int_equal(syncfs(f.data_fd), 0); /* not sync: another file system may be in trouble */
    pt.poisoned = true;
    f.point = pt;
    put(&f, "poisoned", (const uint8_t *)"x", 1);
    log_open(&f, true);
    assert_int_equal(end_offset(&f), 10);
    assert_int_equal(f.control->slots[0].state, BW_SLOT_OPEN);
    assert_false(log_exists(&f, "poisoned"));
    assert_true(bw_partition_recovery_point(f.p, &pt, NULL));
    assert_false(pt.poisoned);
    log_append_many(&f, 5, 1, 50);
    assert_int_equal(log_read_from(&f, 0, NULL), 15);
    log_fini(&f);
}

static void test_takeover_of_a_poisoned_partition_stays_poisoned(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 5, 1, 50);
    log_crash(&f);
    f.control->slots[0].state = BW_SLOT_POISONED;
    log_open(&f, false);
    assert_int_equal(f.control->slots[0].state, BW_SLOT_POISONED);
    bw_recovery_point pt;
    assert_true(bw_partition_recovery_point(f.p, &pt, NULL));
    assert_true(pt.poisoned);
    assert_int_equal(bw_partition_sync(f.p), BW_ERR_POISONED);
    assert_int_equal(log_read_from(&f, 0, NULL), 5);
    log_fini(&f);
}

/* A reservation rolled and was given up: the log ends at the beginning of a file that nobody has linked. */
static void test_takeover_at_an_unlinked_empty_segment_notes_a_point_that_recovery_finds(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 64 << 10);
    log_open(&f, true);
    bw_appender *a = log_appender(&f, false);
    while (bw_position_pos(f.control->slots[0].tail) < 62000) assert_int_equal(log_try_append(&f, a, 1, 1000, 0, NULL), BW_OK);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    uint8_t *place;
    assert_int_equal(bw_append_reserve(a, 8000, 1, bw_deadline_in_ms(0), &place), BW_OK);
    bw_append_abort(a);
    bw_appender_close(a);
    int64_t end = end_offset(&f);
    assert_int_equal(bw_position_seq(f.control->slots[0].tail), 2);
    assert_int_equal(bw_position_pos(f.control->slots[0].tail), 0);
    log_crash(&f);
    log_open(&f, false);
    assert_int_equal(f.control->slots[0].durable, f.control->slots[0].tail);
    (void)bw_partition_recovery_point(f.p, &f.point, NULL);
    assert_int_equal(f.point.next_offset, end);
    log_crash(&f);
    log_open(&f, true);
    assert_false(f.report.foreign);
    assert_int_equal(end_offset(&f), end);
    assert_int_equal(log_read_from(&f, 0, NULL), end);
    log_fini(&f);
}

static void test_takeover_finds_what_the_medium_does_not_have(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 5, 1, 50);
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    uint32_t from = bw_position_pos(f.control->slots[0].tail);
    log_append_many(&f, 5, 1, 50);
    log_crash(&f);
    log_flip(&f, LOG0, from + 100); /* what a lost page would read like */
    log_open(&f, false);
    assert_int_equal(f.control->slots[0].state, BW_SLOT_POISONED);
    assert_int_equal(bw_position_pos(f.control->slots[0].durable), from);
    log_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recover_tail_torn_at_each_byte_keeps_whole_batches),
        cmocka_unit_test(test_recover_flipped_byte_above_the_point_cuts_there),
        cmocka_unit_test(test_recover_bad_batch_below_the_point_is_quarantined_and_the_rest_kept),
        cmocka_unit_test(test_recover_corrupt_middle_segment_is_an_error_to_its_readers_only),
        cmocka_unit_test(test_recover_log_that_ends_below_its_point_is_foreign_and_kept),
        cmocka_unit_test(test_recover_foreign_log_with_a_torn_end_loses_no_byte),
        cmocka_unit_test(test_recover_log_with_other_bytes_at_the_point_is_foreign),
        cmocka_unit_test(test_recover_empty_folder_with_a_point_is_foreign_and_goes_on_behind_it),
        cmocka_unit_test(test_recover_spare_with_data_continues_the_log),
        cmocka_unit_test(test_recover_spare_behind_a_cut_is_dropped),
        cmocka_unit_test(test_recover_empty_spare_is_removed),
        cmocka_unit_test(test_recover_stray_bytes_behind_the_end_are_zeroed),
        cmocka_unit_test(test_recover_unclean_end_raises_the_epoch_though_nothing_is_cut),
        cmocka_unit_test(test_recover_without_a_point_keeps_sealed_and_active),
        cmocka_unit_test(test_recover_folder_without_busways_files_is_adopted),
        cmocka_unit_test(test_recover_poisoned_log_is_checked_from_the_medium),
        cmocka_unit_test(test_takeover_of_a_poisoned_partition_stays_poisoned),
        cmocka_unit_test(test_takeover_at_an_unlinked_empty_segment_notes_a_point_that_recovery_finds),
        cmocka_unit_test(test_takeover_finds_what_the_medium_does_not_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
