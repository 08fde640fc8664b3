/* The budget of dirty bytes: who is granted room when, what counts, what a sync gives back. And a log that is on the disk only. */
#include "log_fixture.h"

#include <fcntl.h>

enum { MOST = 256 << 10, BATCH = 4 << 10 };

static bw_dirty_budget budget;

static void begin(log_fixture *f, uint32_t segment_bytes)
{
    log_init(f, segment_bytes);
    budget = (bw_dirty_budget){.most = MOST};
    f->config.dirty = &budget;
    log_open(f, true);
}

/* Batches of BATCH bytes until no room is granted any more, without a sync; how many. */
static int fill(log_fixture *f)
{
    bw_appender *a = log_appender(f, false);
    int n = 0;
    for (; n < 1000; n++) {
        assert_int_equal(bw_partition_tend_files(f->p), BW_OK);
        bw_err e = log_try_append(f, a, 1, BATCH, 0, NULL);
        for (int again = 0; e == BW_ERR_NO_COORDINATOR && again < 3; again++) { /* the failed one has said what it needs */
            assert_int_equal(bw_partition_tend_files(f->p), BW_OK);
            f->next_ts--;
            e = log_try_append(f, a, 1, BATCH, 1, NULL);
        }
        if (e == BW_ERR_NO_COORDINATOR) break;
        assert_int_equal(e, BW_OK);
    }
    bw_appender_close(a);
    return n;
}

static void test_dirty_budget_used_up_grants_nothing_until_a_sync(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f, 8 << 20);
    int first = fill(&f);
    assert_in_range(first, MOST / BATCH / 2, MOST / BATCH);
    assert_true(budget.bytes <= MOST);
    assert_true(bw_partition_wants_sync(f.p));
    assert_int_equal(bw_partition_sync(f.p), BW_OK);
    assert_int_equal(budget.bytes, 0);
    assert_false(bw_partition_wants_sync(f.p));
    assert_in_range(fill(&f), MOST / BATCH / 2, MOST / BATCH);
    assert_true(bw_partition_wants_sync(f.p)); /* although a sync has just been: no rest */
    log_close(&f, false);
    assert_int_equal(budget.bytes, 0);
    log_fini(&f);
}

static void test_dirty_bytes_of_other_partitions_count(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f, 8 << 20);
    atomic_store(&budget.bytes, MOST - 1); /* theirs */
    int first = fill(&f);
    assert_in_range(first, 1, (64 << 10) / BATCH); /* what an empty log has */
    atomic_fetch_sub(&budget.bytes, MOST - 1);
    assert_true(fill(&f) > 0);
    log_fini(&f);
    assert_int_equal(budget.bytes, 0);
}

static void test_dirty_budget_lets_a_batch_beyond_a_piece_through(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f, 8 << 20);
    for (int i = 0; i < 6; i++) {
        bw_appender *a = log_appender(&f, false);
        bw_err e = log_try_append(&f, a, 1, MOST * 3 / 4, 0, NULL);
        for (int again = 0; e == BW_ERR_NO_COORDINATOR && again < 4; again++) {
            assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
            e = log_try_append(&f, a, 1, MOST * 3 / 4, 1, NULL);
        }
        assert_int_equal(e, BW_OK);
        bw_appender_close(a);
    }
    assert_int_equal(log_read_from(&f, 0, NULL), 6);
    log_fini(&f);
}

static void test_dirty_budget_bounds_a_log_that_rolls(void **state)
{
    (void)state;
    log_fixture f;
    begin(&f, 128 << 10);
    log_start_keeper(&f);
    for (int i = 0; i < 20; i++) {
        log_append_many(&f, 20, 1, BATCH);
        assert_true(atomic_load(&budget.bytes) <= MOST + 2 * (64 << 10)); /* and what spares begin with */
    }
    log_stop_keeper(&f);
    assert_int_equal(log_read_from(&f, 0, NULL), 400);
    log_close(&f, false);
    assert_int_equal(budget.bytes, 0);
    log_open(&f, true);
    assert_int_equal(log_read_from(&f, 0, NULL), 400);
    log_fini(&f);
}

static void test_read_of_a_log_that_left_the_page_cache_gives_all_of_it(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 7 << 20);
    log_open(&f, true);
    log_append_many(&f, 200, 1, 100 << 10);
    log_close(&f, true);
    char path[256];
    snprintf(path, sizeof path, "%s/%s-0", f.data, LOG_TOPIC);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        int fd = e->d_type == DT_REG ? openat(dirfd(d), e->d_name, O_RDONLY) : -1;
        if (fd < 0) continue;
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        close(fd);
    }
    closedir(d);
    log_open(&f, true);
    assert_int_equal(log_read_from(&f, 0, NULL), 200);
    log_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dirty_budget_used_up_grants_nothing_until_a_sync),
        cmocka_unit_test(test_dirty_bytes_of_other_partitions_count),
        cmocka_unit_test(test_dirty_budget_lets_a_batch_beyond_a_piece_through),
        cmocka_unit_test(test_dirty_budget_bounds_a_log_that_rolls),
        cmocka_unit_test(test_read_of_a_log_that_left_the_page_cache_gives_all_of_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
