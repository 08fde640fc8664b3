/* The metadata store: what was put is there after reopening; formats; growth; ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/crc32c.h"
#include "meta/env.h"
#include "meta/record.h"
#include "meta/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct fixture {
    char dir[64];
    bw_store *store;
} fixture;

static void reopen(fixture *f)
{
    bw_store_close(f->store);
    f->store = NULL;
    assert_int_equal(bw_store_open(f->dir, 0, &f->store), BW_OK);
}
static int setup(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    strcpy(f->dir, "/tmp/busway-store-XXXXXX");
    if (!mkdtemp(f->dir)) return -1;
    *state = f;
    return bw_store_open(f->dir, 0, &f->store) ? -1 : 0;
}
static int teardown(void **state)
{
    fixture *f = *state;
    char command[128];
    bw_store_close(f->store);
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    free(f);
    return system(command);
}

static bw_meta_topic topic(const char *name, uint8_t id, uint32_t partitions)
{
    bw_meta_topic t = {.partitions = partitions, .created_ms = 1234567890123};
    snprintf(t.name, sizeof t.name, "%s", name);
    memset(t.id.b, id, 16);
    return t;
}

static void test_store_keeps_topics_over_reopening(void **state)
{
    fixture *f = *state;
    bw_meta_config configs[2] = {{"retention.ms", "3600000"}, {"segment.bytes", ""}};
    bw_meta_topic t = topic("orders", 1, 3), *all;
    t.configs = configs;
    t.config_count = 2;
    size_t n;
    assert_int_equal(bw_store_topic_put(f->store, &t), BW_OK);
    t = topic("zeta", 2, 1);
    t.state = BW_META_TOPIC_DELETING;
    assert_int_equal(bw_store_topic_put(f->store, &t), BW_OK);
    bw_uuid bus = bw_store_bus_id(f->store), again;
    reopen(f);
    again = bw_store_bus_id(f->store);
    assert_true(bw_uuid_equal(&bus, &again));
    assert_int_equal(bw_store_topics(f->store, &all, &n), BW_OK);
    assert_int_equal(n, 2);
    assert_string_equal(all[0].name, "orders");
    assert_int_equal(all[0].partitions, 3);
    assert_int_equal(all[0].created_ms, 1234567890123);
    assert_int_equal(all[0].config_count, 2);
    assert_string_equal(all[0].configs[0].value, "3600000");
    assert_string_equal(all[0].configs[1].value, "");
    assert_int_equal(all[1].state, BW_META_TOPIC_DELETING);
    bw_store_topics_free(all, n);
    struct stat st;
    char path[128];
    snprintf(path, sizeof path, "%s/meta/data.mdb", f->dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_store_remove_takes_the_recovery_points_along(void **state)
{
    fixture *f = *state;
    bw_meta_topic a = topic("a", 1, 3), b = topic("b", 2, 3);
    assert_int_equal(bw_store_topic_put(f->store, &a), BW_OK);
    assert_int_equal(bw_store_topic_put(f->store, &b), BW_OK);
    bw_meta_point points[600];
    for (uint32_t i = 0; i < 600; i++) {
        points[i] = (bw_meta_point){
            .topic = i % 2 ? a.id : b.id, .partition = i / 2,
            .point = {.leader_epoch = 7, .next_offset = 100 + i, .segment_base = 5, .position = 9, .last_crc = 11, .state_offset = 50 + i,
                      .state_crc = i}};
        points[i].point.poisoned = i == 4;
    }
    assert_int_equal(bw_store_points_put(f->store, points, 600), BW_OK);
    bw_meta_point with = points[1];
    with.snapshot = (const uint8_t *)"five!";
    with.snapshot_len = 5;
    assert_int_equal(bw_store_points_put(f->store, &with, 1), BW_OK);
    assert_int_equal(bw_store_points_put(f->store, &points[1], 1), BW_OK); /* the one that is there stays */
    reopen(f);
    bw_recovery_point p;
    assert_int_equal(bw_store_point_get(f->store, &b.id, 2, &p), BW_OK);
    assert_int_equal(p.next_offset, 104);
    assert_int_equal(p.leader_epoch, 7);
    assert_int_equal(p.position, 9);
    assert_int_equal(p.last_crc, 11);
    assert_true(p.poisoned);
    bw_buf snapshot = {0};
    assert_int_equal(bw_store_snapshot_get(f->store, &a.id, 0, &snapshot), BW_OK);
    assert_int_equal(snapshot.len, 5);
    assert_memory_equal(snapshot.data, "five!", 5);
    bw_buf_free(&snapshot);
    assert_int_equal(bw_store_snapshot_get(f->store, &a.id, 1, &snapshot), BW_ERR_NOT_FOUND);
    assert_int_equal(bw_store_topic_remove(f->store, "a"), BW_OK);
    assert_int_equal(bw_store_snapshot_get(f->store, &a.id, 0, &snapshot), BW_ERR_NOT_FOUND);
    for (uint32_t i = 0; i < 300; i++) {
        assert_int_equal(bw_store_point_get(f->store, &a.id, i, &p), BW_ERR_NOT_FOUND);
        assert_int_equal(bw_store_point_get(f->store, &b.id, i, &p), BW_OK);
    }
    assert_int_equal(bw_store_topic_remove(f->store, "b"), BW_OK);
    assert_int_equal(bw_store_point_get(f->store, &b.id, 299, &p), BW_ERR_NOT_FOUND);
    assert_int_equal(bw_store_topic_remove(f->store, "b"), BW_ERR_NOT_FOUND);
}

static void test_store_map_grows_by_itself(void **state)
{
    fixture *f = *state;
    bw_store_info before, after;
    bw_store_info_get(f->store, &before);
    assert_int_equal(before.map_bytes, 1 << 20);
    bw_meta_point *points = calloc(20000, sizeof *points);
    for (int round = 0; round < 4; round++) {
        for (uint32_t i = 0; i < 20000; i++)
            points[i] = (bw_meta_point){.topic = {{(uint8_t)round}}, .partition = i, .point = {.next_offset = i}};
        assert_int_equal(bw_store_points_put(f->store, points, 20000), BW_OK);
    }
    free(points);
    bw_store_info_get(f->store, &after);
    assert_true(after.map_bytes >= 4 * before.map_bytes);
    assert_true(after.used_bytes > before.map_bytes);
    reopen(f);
    bw_recovery_point p;
    bw_uuid third = {{3}};
    assert_int_equal(bw_store_point_get(f->store, &third, 19999, &p), BW_OK);
    assert_int_equal(p.next_offset, 19999);
}

static void test_store_newer_format_is_refused_with_both_numbers(void **state)
{
    fixture *f = *state;
    bw_store_close(f->store);
    f->store = NULL;
    char path[128];
    snprintf(path, sizeof path, "%s/meta", f->dir);
    MDB_env *env;
    MDB_txn *txn;
    MDB_dbi dbi;
    uint8_t bytes[BW_STATE_BYTES] = {0};
    bw_put_be32(bytes, 99);
    bw_put_be32(bytes + 28, bw_crc32c(bytes, 28));
    MDB_val k = {sizeof BW_STATE_KEY - 1, BW_STATE_KEY}, v = {sizeof bytes, bytes};
    assert_int_equal(mdb_env_create(&env), 0);
    assert_int_equal(mdb_env_set_maxdbs(env, 8), 0);
    assert_int_equal(mdb_env_open(env, path, 0, 0600), 0);
    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_dbi_open(txn, NULL, 0, &dbi), 0);
    assert_int_equal(mdb_put(txn, dbi, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mdb_env_close(env);
    assert_int_equal(bw_store_open(f->dir, 0, &f->store), BW_ERR_NEWER_FORMAT);
    assert_non_null(strstr(bw_error_message(), "99"));
    assert_non_null(strstr(bw_error_message(), "up to 2"));
}

static void test_store_unreadable_folder_is_an_error(void **state)
{
    fixture *f = *state;
    bw_store *other;
    assert_int_equal(bw_store_open("/nonexistent/folder", 0, &other), BW_ERR_NOT_FOUND);
    assert_null(other);
    (void)f;
}

static void test_store_producer_ids_are_never_given_twice(void **state)
{
    fixture *f = *state;
    int64_t last = -1, id;
    int16_t epoch;
    for (int i = 0; i < 3000; i++) {
        if (i % 1000 == 999) reopen(f);
        assert_int_equal(bw_store_producer_id(f->store, &id), BW_OK);
        assert_true(id > last);
        last = id;
    }
    assert_int_equal(bw_store_producer_named(f->store, "n", 1, &id, &epoch), BW_OK);
    assert_true(id > last);
    assert_int_equal(epoch, 0);
    int64_t named = id;
    reopen(f);
    assert_int_equal(bw_store_producer_named(f->store, "n", 1, &id, &epoch), BW_OK);
    assert_int_equal(id, named);
    assert_int_equal(epoch, 1);
    assert_int_equal(bw_store_producer_named(f->store, "m", 1, &id, &epoch), BW_OK);
    assert_int_not_equal(id, named);
    assert_int_equal(bw_store_producer_named(f->store, "", 0, &id, &epoch), BW_ERR_INVALID_ARGUMENT);
    char longest[300] = {'x'};
    assert_int_equal(bw_store_producer_named(f->store, longest, 250, &id, &epoch), BW_ERR_INVALID_ARGUMENT);
}

static void test_record_cut_or_flipped_bytes_are_refused_or_decode(void **state)
{
    (void)state;
    bw_meta_config configs[2] = {{"a", "1"}, {"bb", "22"}};
    bw_meta_topic t = topic("t", 9, 2), out;
    t.configs = configs;
    t.config_count = 2;
    bw_buf buf = {0};
    assert_int_equal(bw_meta_topic_encode(&t, &buf), BW_OK);
    for (size_t i = 0; i < buf.len; i++) assert_int_not_equal(bw_meta_topic_decode("t", 1, buf.data, i, &out), BW_OK);
    for (size_t i = 0; i < buf.len * 8; i++) { /* bounded, whatever comes of it */
        buf.data[i / 8] ^= (uint8_t)(1u << (i % 8));
        if (!bw_meta_topic_decode("t", 1, buf.data, buf.len, &out)) bw_meta_topic_fini(&out);
        buf.data[i / 8] ^= (uint8_t)(1u << (i % 8));
    }
    buf.data[0] = 2;
    assert_int_equal(bw_meta_topic_decode("t", 1, buf.data, buf.len, &out), BW_ERR_NEWER_FORMAT);
    bw_buf_free(&buf);
    uint8_t point[BW_META_POINT_BYTES];
    bw_recovery_point p = {.next_offset = 5, .state_offset = 3, .state_crc = 9}, q;
    bw_meta_point_encode(&p, point);
    assert_int_equal(bw_meta_point_decode(point, sizeof point, &q), BW_OK);
    assert_int_equal(q.next_offset, 5);
    assert_int_equal(q.state_offset, 3);
    assert_int_equal(q.state_crc, 9);
    point[0] = 1; /* as a version before this one wrote it: nothing is known of producers */
    assert_int_equal(bw_meta_point_decode(point, 30, &q), BW_OK);
    assert_int_equal(q.next_offset, 5);
    assert_int_equal(q.state_offset, -1);
    assert_int_equal(q.state_crc, 0);
    point[0] = 2;
    p.state_offset = 6; /* beyond the point */
    bw_meta_point_encode(&p, point);
    assert_int_equal(bw_meta_point_decode(point, sizeof point, &q), BW_ERR_CORRUPT);
    assert_int_equal(bw_meta_point_decode(point, sizeof point - 1, &q), BW_ERR_CORRUPT);
    point[5] = 0x80;
    assert_int_equal(bw_meta_point_decode(point, sizeof point, &q), BW_ERR_CORRUPT);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_store_keeps_topics_over_reopening),
        T(test_store_remove_takes_the_recovery_points_along),
        T(test_store_map_grows_by_itself),
        T(test_store_newer_format_is_refused_with_both_numbers),
        T(test_store_unreadable_folder_is_an_error),
        T(test_store_producer_ids_are_never_given_twice),
        cmocka_unit_test(test_record_cut_or_flipped_bytes_are_refused_or_decode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
