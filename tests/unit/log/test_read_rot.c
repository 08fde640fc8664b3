/* log/read.c: bytes that rotted after they were written are not given out, whether they are read through a map or by pread. */
#include "log_fixture.h"

static void read_rotten(bool use_pread, off_t at, int good)
{
    log_fixture f;
    char name[BW_SEGMENT_NAME_MAX];
    bw_reader *r;
    bw_batch_ref b;
    bw_err e;
    int got = 0;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 3, 1, 100);
    bw_segment_name(name, 0, ".log");
    log_flip(&f, name, at);
    bw_reader_options o = {.control = f.control, .dir_fd = bw_partition_dir_fd(f.p), .check_crcs = true, .use_pread = use_pread};
    assert_int_equal(bw_reader_open(&o, &r), BW_OK);
    bw_reader_seek(r, 0);
    while ((e = bw_reader_next(r, &b)) == BW_OK) got++;
    assert_int_equal(e, BW_ERR_CORRUPT);
    assert_int_equal(got, good);
    assert_int_equal(bw_reader_next(r, &b), BW_ERR_CORRUPT); /* and it stays in front of it */
    bw_reader_close(r);
    log_crash(&f); /* a clean end would find it too */
    log_fini(&f);
}

/* Where a batch begins: all three are of one size. */
static off_t batch_at(int i)
{
    log_fixture f;
    size_t len;
    memset(&f, 0, sizeof f);
    bw_batch_builder_init(&f.builder);
    f.next_ts = 1000000;
    (void)log_batch(&f, 1, 100, BW_CODEC_NONE, &len);
    bw_batch_builder_fini(&f.builder);
    return (off_t)len * i;
}

static void test_read_rotten_record_is_an_error(void **state)
{
    (void)state;
    for (int use_pread = 0; use_pread < 2; use_pread++) {
        read_rotten(use_pread, batch_at(0) + 90, 0);
        read_rotten(use_pread, batch_at(2) - 3, 1);
        read_rotten(use_pread, batch_at(3) - 1, 2);
    }
}

static void test_read_rotten_base_offset_is_an_error(void **state)
{
    (void)state;
    for (int use_pread = 0; use_pread < 2; use_pread++) read_rotten(use_pread, batch_at(1) + 7, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_rotten_record_is_an_error),
        cmocka_unit_test(test_read_rotten_base_offset_is_an_error),
    };
    return cmocka_run_group_tests_name("read_rot", tests, NULL, NULL);
}
