/* Files of deleted segments that are used again: when, and what readers, takeover and recovery make of what they still hold. */
#include "log_fixture.h"
#include "log/window.h"

enum { SEGMENT = 64 << 10, ROUNDS = 40, A_ROUND = 20 };

static void begin(log_fixture *f)
{
    log_init(f, SEGMENT);
    f->config.retention_bytes = 2 * SEGMENT;
    f->config.reuse_segments = true;
    log_open(f, true);
}

static int reused;

static void count_reuse(void *opaque, const bw_os_event *e)
{
    (void)opaque;
    if (e->done && e->call == BW_OS_rename && e->result == 0 && strstr(e->name, ".log.deleted") && strstr(e->name2, ".spare")) reused++;
}

static uint64_t active_inode(log_fixture *f)
{
    bw_tail_slot *s = &f->control->slots[0];
    return bw_ring_at(s, bw_position_seq(s->tail))->inode;
}

static bool unsynced;

/* Fills and syncs (unless unsynced), segment after segment; held: called with each file that is waiting to be used again. Returns how
 * often one was. */
static int run(log_fixture *f, void (*held)(log_fixture *f, const char *name))
{
    reused = 0;
    bw_os_observe(count_reuse, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        log_append_many(f, A_ROUND, 1, 1000);
        if (!unsynced) assert_int_equal(bw_partition_sync(f->p), BW_OK);
        assert_int_equal(bw_partition_tend(f->p, NULL), BW_OK);
        assert_int_equal(bw_partition_sync_folder(f->p), BW_OK);
        if (held) {
            char path[256];
            log_path(f, path, "");
            DIR *d = opendir(path);
            for (struct dirent *e; (e = readdir(d));)
                if (strstr(e->d_name, ".log.deleted")) held(f, e->d_name);
            closedir(d);
        }
    }
    bw_os_observe(NULL, NULL);
    return reused;
}

static void test_reuse_gives_deleted_files_to_new_segments(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f);
    assert_true(run(&f, NULL) >= 3);
    int64_t start = f.control->slots[0].log_start;
    assert_true(start > 0);
    assert_int_equal(log_read_from(&f, start, NULL), ROUNDS * A_ROUND);
    log_fini(&f);
}

/* A writer who is faster than the disk: what is deleted never was durable. */
static void test_reuse_of_what_never_was_durable(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f);
    unsynced = true;
    assert_true(run(&f, NULL) >= 3);
    unsynced = false;
    assert_int_equal(f.control->slots[0].durable_offset, 0);
    int64_t start = f.control->slots[0].log_start;
    assert_true(start > 0);
    log_crash(&f);
    log_open(&f, true);
    assert_false(f.report.foreign);
    assert_int_equal(log_read_from(&f, start, NULL), ROUNDS * A_ROUND);
    log_fini(&f);
}

static void test_reuse_off_leaves_them_alone(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f);
    f.config.reuse_segments = false;
    assert_int_equal(bw_partition_set_config(f.p, &f.config), BW_OK);
    assert_false(bw_partition_wants_folder(f.p));
    assert_int_equal(run(&f, NULL), 0);
    assert_false(bw_partition_wants_folder(f.p));
    assert_int_equal(log_count_files(&f, ".deleted", NULL), 0);
    log_fini(&f);
}

static int holders[64];
static int holder_count;

static void hold_open(log_fixture *f, const char *name)
{
    char path[256];
    log_path(f, path, name);
    if (holder_count < 64) holders[holder_count++] = open(path, O_RDONLY | O_CLOEXEC);
}

static void test_reuse_not_of_a_file_that_somebody_has_open(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f);
    holder_count = 0;
    (void)run(&f, hold_open);
    assert_true(holder_count > 0);
    for (int i = 0; i < holder_count; i++) { /* what he holds is what it was: the segment that was deleted */
        struct stat st;
        uint8_t head[8];
        assert_int_equal(fstat(holders[i], &st), 0);
        assert_int_equal(pread(holders[i], head, 8, 0), 8);
        assert_true((int64_t)bw_get_be64(head) < f.control->slots[0].log_start);
        assert_true(st.st_ino != active_inode(&f));
        close(holders[i]);
    }
    log_fini(&f);
}

static void link_it(log_fixture *f, const char *name)
{
    char path[256], other[300];
    log_path(f, path, name);
    snprintf(other, sizeof other, "%s/kept-%s", f->data, name);
    (void)!link(path, other);
}

static void test_reuse_not_of_a_file_with_a_second_name(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f);
    assert_int_equal(run(&f, link_it), 0);
    log_fini(&f);
}

/* The file of the active segment, when it holds bytes of its life before; false: it is new. */
static bool stale_behind_tail(log_fixture *f, uint8_t *clear, size_t len)
{
    bw_tail_slot *s = &f->control->slots[0];
    char name[64], path[256];
    snprintf(name, sizeof name, "%020lld.log", (long long)bw_ring_at(s, bw_position_seq(s->tail))->base_offset);
    log_path(f, path, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false; /* its other name still */
    uint8_t rest[4096];
    assert_int_equal(pread(fd, clear, len, bw_position_pos(s->tail)), (ssize_t)len);
    ssize_t n = pread(fd, rest, sizeof rest, bw_position_pos(s->tail) + (off_t)len);
    close(fd);
    for (ssize_t i = 0; i < n; i++)
        if (rest[i]) return true;
    return false;
}

static void test_reuse_leaves_zeros_behind_the_tail_and_recovery_ends_there(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f);
    (void)run(&f, NULL);
    uint8_t clear[BW_TAIL_CLEAR];
    static const uint8_t zeros[BW_TAIL_CLEAR];
    int found = 0;
    for (int i = 0; i < 400 && found < 5; i++) {
        log_append_many(&f, 3, 1, 1000);
        assert_int_equal(bw_partition_sync(f.p), BW_OK);
        assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
        assert_int_equal(bw_partition_sync_folder(f.p), BW_OK);
        if (!stale_behind_tail(&f, clear, sizeof clear)) continue;
        found++;
        assert_memory_equal(clear, zeros, sizeof zeros);
        int64_t end = bw_slot_end_offset(&f.control->slots[0]), start = f.control->slots[0].log_start;
        assert_int_equal(bw_partition_sync(f.p), BW_OK);
        bw_recovery_point point;
        if (bw_partition_recovery_point(f.p, &point, NULL)) f.point = point;
        log_crash(&f);
        log_open(&f, found % 2); /* from the files, or with the control data */
        assert_int_equal(bw_slot_end_offset(&f.control->slots[0]), end);
        assert_int_equal(f.report.quarantined, 0);
        assert_int_equal(log_read_from(&f, f.control->slots[0].log_start, NULL), end);
        assert_true(f.control->slots[0].log_start <= start || found % 2 == 0);
    }
    assert_int_equal(found, 5);
    log_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reuse_gives_deleted_files_to_new_segments),
        cmocka_unit_test(test_reuse_of_what_never_was_durable),
        cmocka_unit_test(test_reuse_off_leaves_them_alone),
        cmocka_unit_test(test_reuse_not_of_a_file_that_somebody_has_open),
        cmocka_unit_test(test_reuse_not_of_a_file_with_a_second_name),
        cmocka_unit_test(test_reuse_leaves_zeros_behind_the_tail_and_recovery_ends_there),
    };
    return cmocka_run_group_tests_name("partition_reuse", tests, NULL, NULL);
}
