/* .txnindex files: Kafka's bytes, reading on, what is odd, restoring. */
#include "engine_fixture.h"

#include "log/txn_index.h"

static void path_of(engine *g, char out[128]) { snprintf(out, 128, "%s/00000000000000000100.txnindex", g->data); }

static bw_aborted entry(int64_t id, int64_t first, int64_t last) { return (bw_aborted){id, first, last, last + 1}; }

static size_t read_all(engine *g, bw_aborted_list *l)
{
    uint64_t end;
    bw_aborted_list_free(l);
    bw_err e = bw_txn_index_read(g->dir_fd, 100, 0, 99, l, &end);
    if (e == BW_ERR_NOT_FOUND) return 0;
    assert_int_equal(e, BW_OK);
    assert_int_equal(end, l->count * BW_TXN_ENTRY_BYTES);
    return l->count;
}

static void test_txn_index_entry_has_kafkas_layout(void **state)
{
    (void)state;
    static const uint8_t wanted[BW_TXN_ENTRY_BYTES] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0, 1, 0,
                                                       0, 0, 0, 0, 0, 0, 0, 99};
    uint8_t bytes[BW_TXN_ENTRY_BYTES];
    bw_aborted in = {7, 100, 256, 99}, out;
    bw_aborted_put(bytes, &in);
    assert_memory_equal(bytes, wanted, sizeof wanted);
    assert_true(bw_aborted_take(bytes, sizeof bytes, 0, 255, &out));
    assert_int_equal(out.stable, 99);
    assert_false(bw_aborted_take(bytes, sizeof bytes, 0, 256, &out)); /* does not ascend */
    assert_false(bw_aborted_take(bytes, sizeof bytes - 1, 0, 255, &out));
    assert_false(bw_aborted_take(bytes, sizeof bytes, 1, 0, &out));
}

static void test_txn_index_that_grows_is_read_on(void **state)
{
    (void)state;
    engine g;
    bool created;
    bw_aborted_list l = {0};
    engine_init(&g, 4096, 4096);
    assert_int_equal(read_all(&g, &l), 0);
    bw_aborted some[200];
    for (int i = 0; i < 200; i++) some[i] = entry(i, 100 + 10 * i, 105 + 10 * i);
    assert_int_equal(bw_txn_index_append(g.dir_fd, 100, some, 130, &created), BW_OK);
    assert_true(created);
    assert_int_equal(read_all(&g, &l), 130);
    assert_int_equal(bw_txn_index_append(g.dir_fd, 100, some + 130, 70, &created), BW_OK);
    assert_false(created);
    uint64_t end = 130 * BW_TXN_ENTRY_BYTES;
    assert_int_equal(bw_txn_index_read(g.dir_fd, 100, end, some[129].last, &l, &end), BW_OK);
    assert_int_equal(l.count, 200);
    assert_int_equal(end, 200 * BW_TXN_ENTRY_BYTES);
    for (int i = 0; i < 200; i++) assert_memory_equal(&l.items[i], &some[i], sizeof some[i]);
    assert_int_equal(bw_txn_index_read(g.dir_fd, 100, end + 34, some[199].last, &l, &end), BW_ERR_CORRUPT); /* it was longer */
    bw_aborted_list_free(&l);
    engine_fini(&g);
}

static void test_txn_index_with_an_odd_entry_is_corrupt_and_half_of_one_is_written_over(void **state)
{
    (void)state;
    engine g;
    bool created;
    char path[128];
    bw_aborted_list l = {0};
    uint64_t end;
    engine_init(&g, 4096, 4096);
    path_of(&g, path);
    bw_aborted some[3] = {entry(1, 100, 105), entry(1, 110, 115), entry(1, 120, 125)};
    assert_int_equal(bw_txn_index_append(g.dir_fd, 100, some, 2, &created), BW_OK);
    assert_int_equal(truncate(path, 2 * BW_TXN_ENTRY_BYTES - 5), 0); /* a full disk */
    assert_int_equal(read_all(&g, &l), 1);
    assert_int_equal(bw_txn_index_append(g.dir_fd, 100, some + 1, 2, &created), BW_OK);
    assert_int_equal(read_all(&g, &l), 3);
    static const size_t at[] = {0, 1, 2, 10, 18, 26};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        uint8_t byte, bad = 0x80;
        assert_int_equal(pread(fd, &byte, 1, (off_t)(BW_TXN_ENTRY_BYTES + at[i])), 1);
        assert_int_equal(pwrite(fd, &bad, 1, (off_t)(BW_TXN_ENTRY_BYTES + at[i])), 1);
        bw_aborted_list_free(&l);
        assert_int_equal(bw_txn_index_read(g.dir_fd, 100, 0, 99, &l, &end), BW_ERR_CORRUPT);
        assert_int_equal(pwrite(fd, &byte, 1, (off_t)(BW_TXN_ENTRY_BYTES + at[i])), 1);
        close(fd);
    }
    bw_aborted_list_free(&l);
    engine_fini(&g);
}

static void test_txn_index_is_restored_from_an_offset_on(void **state)
{
    (void)state;
    engine g;
    bool created, changed;
    char path[128];
    bw_aborted_list l = {0};
    engine_init(&g, 4096, 4096);
    path_of(&g, path);
    bw_aborted some[4] = {entry(1, 100, 105), entry(1, 110, 115), entry(1, 120, 125), entry(2, 112, 130)};
    assert_int_equal(bw_txn_index_restore(g.dir_fd, 100, 100, NULL, 0, &changed), BW_OK); /* nothing to say, no file */
    assert_false(changed);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(bw_txn_index_append(g.dir_fd, 100, some, 3, &created), BW_OK);
    assert_int_equal(bw_txn_index_restore(g.dir_fd, 100, 115, some + 1, 2, &changed), BW_OK);
    assert_false(changed);
    assert_int_equal(bw_txn_index_restore(g.dir_fd, 100, 115, some + 1, 3, &changed), BW_OK); /* one was missing */
    assert_true(changed);
    assert_int_equal(read_all(&g, &l), 4);
    assert_int_equal(bw_txn_index_restore(g.dir_fd, 100, 116, some + 3, 1, &changed), BW_OK); /* one too many */
    assert_true(changed);
    assert_int_equal(read_all(&g, &l), 3);
    assert_memory_equal(&l.items[2], &some[3], sizeof some[3]);
    assert_int_equal(truncate(path, 2 * BW_TXN_ENTRY_BYTES + 3), 0);
    assert_int_equal(bw_txn_index_restore(g.dir_fd, 100, 116, NULL, 0, &changed), BW_OK);
    assert_true(changed);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 2 * BW_TXN_ENTRY_BYTES);
    bw_aborted_list_free(&l);
    engine_fini(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_txn_index_entry_has_kafkas_layout),
        cmocka_unit_test(test_txn_index_that_grows_is_read_on),
        cmocka_unit_test(test_txn_index_with_an_odd_entry_is_corrupt_and_half_of_one_is_written_over),
        cmocka_unit_test(test_txn_index_is_restored_from_an_offset_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
