/* The start of the metadata store: either copy may be damaged, missing, behind or torn; what was stored is there, and it is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "meta/env.h"
#include "meta/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    char dir[64];
    bw_store *store;
} fixture;

static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/busway-open-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    *state = f;
    return bw_store_open(f->dir, 0, &f->store) ? -1 : 0;
}
static int teardown(void **state)
{
    fixture *f = *state;
    char command[128];
    bw_store_close(f->store);
    unsetenv("BUSWAY_META_CHECK");
    unsetenv("BUSWAY_META_JOURNAL_BYTES");
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    free(f);
    return system(command);
}

static bw_uuid id_of(uint32_t topic) { return (bw_uuid){{(uint8_t)topic, 7}}; }

static void put(fixture *f, uint32_t topic, int64_t offset)
{
    bw_meta_point points[30];
    for (uint32_t i = 0; i < 30; i++) points[i] = (bw_meta_point){.topic = id_of(topic), .partition = i, .point = {.next_offset = offset + i}};
    assert_int_equal(bw_store_points_put(f->store, points, 30), BW_OK);
}
static int64_t get(fixture *f, uint32_t topic, uint32_t partition)
{
    bw_recovery_point p;
    bw_uuid id = id_of(topic);
    bw_err e = bw_store_point_get(f->store, &id, partition, &p);
    assert_true(e == BW_OK || e == BW_ERR_NOT_FOUND);
    return e ? -1 : p.next_offset;
}
static void expect_all(fixture *f, uint32_t topics)
{
    for (uint32_t t = 0; t < topics; t++)
        for (uint32_t i = 0; i < 30; i++) assert_int_equal(get(f, t, i), 1000 * t + i);
}
static void fill_and_close(fixture *f, uint32_t topics)
{
    for (uint32_t t = 0; t < topics; t++) put(f, t, 1000 * t);
    bw_store_close(f->store);
    f->store = NULL;
}
static void open_again(fixture *f) { assert_int_equal(bw_store_open(f->dir, 0, &f->store), BW_OK); }

/* The file whose name begins so; the only one. */
static const char *path_of(const fixture *f, const char *begins)
{
    static char path[400];
    char meta[128];
    int found = 0;
    snprintf(meta, sizeof meta, "%s/meta", f->dir);
    DIR *d = opendir(meta);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) {
        if (strncmp(e->d_name, begins, strlen(begins)) != 0 || strstr(e->d_name, "damaged")) continue;
        snprintf(path, sizeof path, "%s/%s", meta, e->d_name);
        found++;
    }
    closedir(d);
    assert_int_equal(found, 1);
    return path;
}
static int count_of(const fixture *f, const char *contains)
{
    char meta[128];
    int found = 0;
    snprintf(meta, sizeof meta, "%s/meta", f->dir);
    DIR *d = opendir(meta);
    assert_non_null(d);
    for (const struct dirent *e; (e = readdir(d));) found += strstr(e->d_name, contains) != NULL;
    closedir(d);
    return found;
}
static void flip(const char *path, long at)
{
    FILE *file = fopen(path, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int c = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    fputc(c ^ 0x10, file);
    fclose(file);
}
static void shell(const char *format, const char *a, const char *b)
{
    char command[900];
    snprintf(command, sizeof command, format, a, b);
    assert_int_equal(system(command), 0);
}
static void save(const fixture *f, const char *as) { shell("cp -a %s/meta %s", f->dir, as); }

static void expect_told(const fixture *f, bool damaged, const char *what)
{
    const bw_store_repair *r = bw_store_repair_get(f->store);
    assert_true(r->repaired);
    assert_int_equal(r->damaged, damaged);
    assert_non_null(strstr(r->what, what));
}
static void expect_quiet(const fixture *f)
{
    const bw_store_repair *r = bw_store_repair_get(f->store);
    if (r->repaired) fail_msg("%s", r->what);
}

static void test_open_damaged_lmdb_is_built_anew_from_the_copy(void **state)
{
    fixture *f = *state;
    fill_and_close(f, 5);
    FILE *file = fopen(path_of(f, "data.mdb"), "r+");
    assert_non_null(file);
    for (int i = 0; i < 8192; i++) fputc(0x5a, file);
    fclose(file);
    open_again(f);
    expect_told(f, true, "data.mdb");
    expect_told(f, true, "data.mdb.damaged-1");
    assert_int_equal(count_of(f, "data.mdb.damaged-1"), 1);
    expect_all(f, 5);
    put(f, 5, 5000);
    bw_store_close(f->store);
    open_again(f);
    expect_quiet(f);
    expect_all(f, 6);
}

static void test_open_lost_lmdb_is_built_anew(void **state)
{
    fixture *f = *state;
    bw_uuid bus = bw_store_bus_id(f->store), again;
    fill_and_close(f, 5);
    assert_int_equal(unlink(path_of(f, "data.mdb")), 0);
    open_again(f);
    expect_told(f, true, "missing");
    expect_all(f, 5);
    again = bw_store_bus_id(f->store);
    assert_true(bw_uuid_equal(&bus, &again));
}

static void test_open_damaged_snapshot_is_made_anew_from_lmdb(void **state)
{
    fixture *f = *state;
    fill_and_close(f, 5);
    flip(path_of(f, "snapshot-"), 45);
    open_again(f);
    expect_told(f, true, "snapshot-");
    assert_true(count_of(f, "damaged") >= 2);
    expect_all(f, 5);
    bw_store_close(f->store);
    open_again(f);
    expect_quiet(f);
    expect_all(f, 5);
}

static void test_open_damaged_journal_is_made_anew_from_lmdb(void **state)
{
    fixture *f = *state;
    fill_and_close(f, 5);
    flip(path_of(f, "journal-"), 400);
    open_again(f);
    expect_told(f, true, "checksum");
    expect_all(f, 5);
    bw_store_close(f->store);
    open_again(f);
    expect_quiet(f);
}

static void test_open_lost_copy_is_made_anew(void **state)
{
    fixture *f = *state;
    fill_and_close(f, 5);
    assert_int_equal(unlink(path_of(f, "snapshot-")), 0);
    assert_int_equal(unlink(path_of(f, "journal-")), 0);
    open_again(f);
    expect_told(f, true, "missing");
    expect_all(f, 5);
}

static void test_open_both_damaged_is_refused_and_nothing_changes(void **state)
{
    fixture *f = *state;
    char kept[80];
    fill_and_close(f, 5);
    snprintf(kept, sizeof kept, "%s/kept", f->dir);
    flip(path_of(f, "data.mdb"), 20);
    flip(path_of(f, "journal-"), 400);
    save(f, kept);
    assert_int_equal(bw_store_open(f->dir, 0, &f->store), BW_ERR_CORRUPT);
    assert_non_null(strstr(bw_error_message(), "backup"));
    assert_non_null(strstr(bw_error_message(), f->dir));
    shell("diff -r -x lock.mdb %s %s/meta >/dev/null", kept, f->dir);
    /* As the message says: without data.mdb it goes on with what the copy has, and says it. */
    assert_int_equal(unlink(path_of(f, "data.mdb")), 0);
    open_again(f);
    expect_told(f, true, "up to transaction");
    int64_t there = 0;
    for (uint32_t t = 0; t < 5; t++) there += get(f, t, 0) >= 0;
    assert_true(there < 5);
}

static void test_open_lmdb_that_is_one_behind_catches_up_in_silence(void **state)
{
    fixture *f = *state;
    char kept[80];
    snprintf(kept, sizeof kept, "%s/kept", f->dir);
    fill_and_close(f, 4);
    save(f, kept);
    open_again(f);
    put(f, 4, 4000);
    bw_store_close(f->store);
    shell("cp %s/data.mdb %s", kept, path_of(f, "data.mdb"));
    open_again(f);
    expect_quiet(f);
    expect_all(f, 5);
    put(f, 5, 5000);
    bw_store_close(f->store);
    open_again(f);
    expect_quiet(f);
    expect_all(f, 6);
}

static void test_open_lmdb_from_an_older_copy_catches_up_and_tells(void **state)
{
    fixture *f = *state;
    char kept[80];
    snprintf(kept, sizeof kept, "%s/kept", f->dir);
    fill_and_close(f, 2);
    save(f, kept);
    open_again(f);
    for (uint32_t t = 2; t < 6; t++) put(f, t, 1000 * t);
    bw_store_close(f->store);
    shell("cp %s/data.mdb %s", kept, path_of(f, "data.mdb"));
    open_again(f);
    expect_told(f, false, "4 transactions behind");
    expect_all(f, 6);
}

static void test_open_journal_from_an_older_copy_is_made_anew(void **state)
{
    fixture *f = *state;
    char kept[80];
    snprintf(kept, sizeof kept, "%s/kept", f->dir);
    fill_and_close(f, 2);
    save(f, kept);
    open_again(f);
    for (uint32_t t = 2; t < 6; t++) put(f, t, 1000 * t);
    bw_store_close(f->store);
    shell("cp %s/journal-* %s", kept, path_of(f, "journal-"));
    open_again(f);
    expect_told(f, true, "they end at transaction");
    expect_all(f, 6);
}

static void test_open_torn_last_record_is_dropped(void **state)
{
    fixture *f = *state;
    fill_and_close(f, 3);
    FILE *file = fopen(path_of(f, "journal-"), "r+");
    uint8_t n[4];
    long at = 64;
    assert_non_null(file);
    while (fseek(file, at, SEEK_SET) == 0 && fread(n, 4, 1, file) == 1 && bw_get_be32(n)) at += 4 + 32 + (long)bw_get_be32(n) + 4;
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_equal(fwrite("\0\0\1\0torn", 8, 1, file), 1);
    fclose(file);
    open_again(f);
    expect_told(f, false, "snapshot and journal");
    expect_all(f, 3);
    bw_store_close(f->store);
    open_again(f);
    expect_quiet(f);
}

static void expect_rebuilt_when_the_check(fixture *f, const char *does, const char *told)
{
    fill_and_close(f, 5);
    setenv("BUSWAY_META_CHECK", does, 1);
    open_again(f);
    unsetenv("BUSWAY_META_CHECK");
    expect_told(f, true, told);
    expect_all(f, 5);
}
static void test_open_crashed_check_counts_as_damage(void **state)
{
    expect_rebuilt_when_the_check(*state, "crash", "signal 11");
}
static void test_open_check_that_hangs_counts_as_damage(void **state)
{
    expect_rebuilt_when_the_check(*state, "hang", "signal"); /* its processor time is over */
}

static void test_open_format_1_is_brought_to_the_present_one(void **state)
{
    fixture *f = *state;
    bw_store_close(f->store);
    f->store = NULL;
    char meta[128];
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi info, recovery, dbi;
    uint8_t format[4] = {0, 0, 0, 1}, bus[16] = {1, 2, 3}, key[20] = {0, 7}, point[30] = {1};
    snprintf(meta, sizeof meta, "%s/meta", f->dir);
    shell("rm -rf %s && mkdir %s", meta, meta);
    point[12] = 42;
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 8), 0);
    assert_int_equal(mdb_env_open(env, meta, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, "info", MDB_CREATE, &info), 0);
    assert_int_equal(mdb_dbi_open(txn, "recovery", MDB_CREATE, &recovery), 0);
    assert_int_equal(mdb_dbi_open(txn, "topics", MDB_CREATE, &dbi), 0);
    assert_int_equal(mdb_dbi_open(txn, "producers", MDB_CREATE, &dbi), 0);
    MDB_val k = {6, "format"}, v = {4, format};
    assert_int_equal(mdb_put(txn, info, &k, &v, 0), 0);
    k = (MDB_val){3, "bus"}, v = (MDB_val){16, bus};
    assert_int_equal(mdb_put(txn, info, &k, &v, 0), 0);
    k = (MDB_val){20, key}, v = (MDB_val){30, point};
    assert_int_equal(mdb_put(txn, recovery, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    open_again(f);
    expect_told(f, false, "format 1");
    assert_int_equal(get(f, 0, 0), 42);
    assert_memory_equal(bw_store_bus_id(f->store).b, bus, 16);
    bw_store_close(f->store);
    open_again(f);
    expect_quiet(f);
    assert_int_equal(get(f, 0, 0), 42);
}

/* A value that rots under the running store: LMDB's map is the file. */
static void test_read_of_a_rotten_value_is_an_error_that_names_the_table(void **state)
{
    fixture *f = *state;
    put(f, 1, 0x77665544332211);
    FILE *file = fopen(path_of(f, "data.mdb"), "r+");
    assert_non_null(file);
    static uint8_t all[1 << 20];
    size_t n = fread(all, 1, sizeof all, file);
    uint8_t want[8];
    bw_put_be64(want, 0x77665544332211 + 3);
    for (uint8_t *p = all; (p = memmem(p, n - (size_t)(p - all), want, 8)); p++) {
        assert_int_equal(fseek(file, p - all + 7, SEEK_SET), 0);
        fputc(0x99, file);
    }
    fclose(file);
    bw_recovery_point point;
    bw_uuid id = id_of(1);
    assert_int_equal(bw_store_point_get(f->store, &id, 2, &point), BW_OK);
    assert_int_equal(bw_store_point_get(f->store, &id, 3, &point), BW_ERR_CORRUPT);
    assert_non_null(strstr(bw_error_message(), "recovery"));
    bw_store_close(f->store);
    open_again(f);
    expect_told(f, true, "recovery");
    assert_int_equal(get(f, 1, 3), 0x77665544332211 + 3);
}

static void test_snapshots_follow_each_other_while_changes_go_on(void **state)
{
    fixture *f = *state;
    bw_store_info info;
    bw_store_close(f->store);
    setenv("BUSWAY_META_JOURNAL_BYTES", "20000", 1);
    open_again(f);
    for (int round = 0; round < 200; round++) put(f, (uint32_t)round % 7, 1000 * (round % 7));
    for (uint32_t t = 0; t < 200; t++) put(f, t % 7, 5 + t);
    for (uint32_t t = 0; t < 7; t++) put(f, t, 1000 * t);
    bw_store_info_get(f->store, &info);
    assert_true(info.snapshots >= 2);
    assert_int_equal(info.snapshot_failures, 0);
    bw_store_close(f->store);
    assert_int_equal(count_of(f, "snapshot-"), 1);
    assert_int_equal(unlink(path_of(f, "data.mdb")), 0);
    open_again(f);
    expect_all(f, 7);
}

/* A death after the new journal was begun: two journals lead on from the old snapshot. */
static void test_open_chain_of_journals_is_followed(void **state)
{
    fixture *f = *state;
    fill_and_close(f, 2);
    int fd = open(f->dir, O_RDONLY | O_DIRECTORY);
    char meta[128];
    snprintf(meta, sizeof meta, "%s/meta", f->dir);
    int dir_fd = open(meta, O_RDONLY | O_DIRECTORY);
    bw_copy c;
    bw_journal j;
    assert_true(fd >= 0 && dir_fd >= 0);
    assert_int_equal(bw_copy_look(dir_fd, &c), BW_OK);
    assert_true(c.whole);
    assert_int_equal(bw_journal_create(dir_fd, &c.last, &j), BW_OK);
    bw_journal_close(&j);
    open_again(f);
    expect_quiet(f);
    put(f, 2, 2000);
    bw_store_close(f->store);
    assert_int_equal(count_of(f, "journal-"), 2);
    assert_int_equal(unlink(path_of(f, "data.mdb")), 0);
    open_again(f);
    expect_all(f, 3);
    bw_store_close(f->store);
    f->store = NULL;
    /* and without the first of them nothing is believed that came after */
    char name[BW_COPY_FILES_MAX + 200], file[64];
    snprintf(file, sizeof file, "journal-%016llx", (unsigned long long)c.first.sequence);
    snprintf(name, sizeof name, "%s/%s", meta, file);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(bw_copy_look(dir_fd, &c), BW_OK);
    assert_false(c.whole);
    close(dir_fd);
    close(fd);
    open_again(f);
    expect_told(f, true, "snapshot and journal");
    expect_all(f, 3);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_open_damaged_lmdb_is_built_anew_from_the_copy),
        T(test_open_lost_lmdb_is_built_anew),
        T(test_open_damaged_snapshot_is_made_anew_from_lmdb),
        T(test_open_damaged_journal_is_made_anew_from_lmdb),
        T(test_open_lost_copy_is_made_anew),
        T(test_open_both_damaged_is_refused_and_nothing_changes),
        T(test_open_lmdb_that_is_one_behind_catches_up_in_silence),
        T(test_open_lmdb_from_an_older_copy_catches_up_and_tells),
        T(test_open_journal_from_an_older_copy_is_made_anew),
        T(test_open_torn_last_record_is_dropped),
        T(test_open_crashed_check_counts_as_damage),
        T(test_open_check_that_hangs_counts_as_damage),
        T(test_open_format_1_is_brought_to_the_present_one),
        T(test_read_of_a_rotten_value_is_an_error_that_names_the_table),
        T(test_snapshots_follow_each_other_while_changes_go_on),
        T(test_open_chain_of_journals_is_followed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
