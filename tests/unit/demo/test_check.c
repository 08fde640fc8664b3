/* tests/unit/demo/test_check.c: the demonstration's verdict must be able to fail. Journals of a good run are written, then one
 * thing is wrong at a time. The demonstration's objects are no part of the core library: their sources are compiled in here. */
#include "demo/check.c"
#include "demo/shared.c"

#include <setjmp.h>
#include <stdarg.h>
/* cmocka wants those above first */
#include <cmocka.h>

#define PER_PARTITION 10
#define RECORDS       (DEMO_PARTITIONS * PER_PARTITION)

typedef struct run {
    demo d;
    demo_shared shared;
    demo_entry acks[RECORDS], reads[DEMO_READERS][RECORDS + 1];
    size_t ack_count, read_count[DEMO_READERS];
} run;

static void write_journal(const demo *d, const char *who, const demo_entry *entries, size_t count)
{
    char path[320];
    demo_journal_path(d, who, path, sizeof path);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(entries, sizeof *entries, count, f), count);
    assert_int_equal(fclose(f), 0);
}

static bool verdict(run *r)
{
    write_journal(&r->d, "acks", r->acks, r->ack_count);
    for (int i = 0; i < DEMO_READERS; i++) write_journal(&r->d, demo_reader_names[i], r->reads[i], r->read_count[i]);
    return demo_check(&r->d, 5);
}

/* A good run: line n lies in partition n % 4, everything is acknowledged and read. */
static int set_up(void **state)
{
    run *r = calloc(1, sizeof *r);
    assert_non_null(r);
    snprintf(r->d.folder, sizeof r->d.folder, "/tmp/busway-check.XXXXXX");
    assert_non_null(mkdtemp(r->d.folder));
    r->d.shared = &r->shared;
    atomic_store(&r->shared.lines, RECORDS);
    for (int n = 0; n < RECORDS; n++) {
        demo_entry e = {DEMO_PACKAGES, n % DEMO_PARTITIONS, n / DEMO_PARTITIONS, n, (uint64_t)n * 7919, 1000 + n};
        r->acks[n] = r->reads[0][n] = r->reads[1][n] = e;
    }
    r->ack_count = r->read_count[0] = r->read_count[1] = RECORDS;
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    run *r = *state;
    char path[320];
    static const char *const who[] = {"acks", "direct", "socket"};
    for (int i = 0; i < 3; i++) {
        demo_journal_path(&r->d, who[i], path, sizeof path);
        unlink(path);
    }
    rmdir(r->d.folder);
    free(r);
    return 0;
}

static void test_check_good_run_passes(void **state) { assert_true(verdict(*state)); }

static void test_check_unacknowledged_record_in_the_log_passes(void **state)
{
    run *r = *state;
    r->ack_count--;
    assert_true(verdict(r));
}

static void test_check_acknowledged_record_not_read_fails(void **state)
{
    run *r = *state;
    r->read_count[DEMO_SOCKET]--;
    assert_false(verdict(r));
}

static void test_check_lost_by_both_readers_fails(void **state)
{
    run *r = *state;
    r->read_count[0]--;
    r->read_count[1]--;
    assert_false(verdict(r));
}

static void test_check_changed_content_fails(void **state)
{
    run *r = *state;
    r->reads[0][7].hash ^= 1;
    r->reads[1][7].hash ^= 1;
    assert_false(verdict(r));
}

static void test_check_record_acknowledged_elsewhere_fails(void **state)
{
    run *r = *state;
    r->acks[3].offset++;
    assert_false(verdict(r));
}

static void test_check_gap_fails(void **state)
{
    run *r = *state;
    for (int i = 0; i < DEMO_READERS; i++) r->reads[i][RECORDS - 1].offset++;
    r->acks[RECORDS - 1].offset++;
    assert_false(verdict(r));
}

static void test_check_record_read_twice_fails(void **state)
{
    run *r = *state;
    r->reads[DEMO_DIRECT][RECORDS] = r->reads[DEMO_DIRECT][4];
    r->read_count[DEMO_DIRECT]++;
    assert_false(verdict(r));
}

static void test_check_line_sent_again_after_the_kill_fails(void **state)
{
    run *r = *state;
    for (int i = 0; i < DEMO_READERS; i++) {
        r->reads[i][RECORDS] = (demo_entry){DEMO_PACKAGES, 0, PER_PARTITION, RECORDS - 1, 1, 1};
        r->read_count[i]++;
    }
    assert_false(verdict(r));
}

static void test_check_line_never_sent_fails(void **state)
{
    run *r = *state;
    atomic_store(&r->shared.lines, RECORDS + 1);
    assert_false(verdict(r));
}

static void test_check_order_changed_fails(void **state)
{
    run *r = *state;
    for (int i = 0; i < DEMO_READERS; i++) {
        r->reads[i][0].seq = 4;
        r->reads[i][4].seq = 0;
    }
    r->acks[0].seq = 4;
    r->acks[4].seq = 0;
    assert_false(verdict(r));
}

static void test_check_nothing_acknowledged_fails(void **state)
{
    run *r = *state;
    r->ack_count = 0;
    assert_false(verdict(r));
}

static void test_bucket_is_monotonic_and_near(void **state)
{
    (void)state;
    for (int64_t ns = 1; ns < INT64_C(1) << 40; ns += ns / 7 + 1) {
        double back = demo_bucket_ns(demo_bucket(ns));
        assert_true(back <= (double)ns && back * 1.07 + 1 >= (double)ns);
        assert_true(demo_bucket(ns) < DEMO_BUCKETS);
        assert_true(demo_bucket(ns + 1) >= demo_bucket(ns));
    }
    assert_true(demo_bucket(INT64_MAX) < DEMO_BUCKETS);
    assert_int_equal(demo_bucket(-5), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_check_good_run_passes),
        TEST(test_check_unacknowledged_record_in_the_log_passes),
        TEST(test_check_acknowledged_record_not_read_fails),
        TEST(test_check_lost_by_both_readers_fails),
        TEST(test_check_changed_content_fails),
        TEST(test_check_record_acknowledged_elsewhere_fails),
        TEST(test_check_gap_fails),
        TEST(test_check_record_read_twice_fails),
        TEST(test_check_line_sent_again_after_the_kill_fails),
        TEST(test_check_line_never_sent_fails),
        TEST(test_check_order_changed_fails),
        TEST(test_check_nothing_acknowledged_fails),
        cmocka_unit_test(test_bucket_is_monotonic_and_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
