/* Topics: create, alter, delete, adoption, restart, deletions that were cut short. */
#include "fixture.h"

#include "format/names.h"
#include "log/partition.h"
#include "meta/store.h"
#include "proto/json.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

static bool folder_exists(fixture *fx, const char *name)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/data/%s", fx->dir, name);
    return !stat(path, &st);
}

static int32_t partitions_of(fixture *fx, fake *f, const char *topic, bw_uuid *id)
{
    bw_request r = rq(BW_API_METADATA, topic);
    r.allow_auto_create = false;
    answer a;
    bw_err e = fake_call(fx, f, &r, &a);
    int32_t n = e ? -(int32_t)e : a.a.topics[0].partitions;
    if (!e && id) *id = a.a.topics[0].id;
    answer_free(&a);
    return n;
}

static char *describe(fixture *fx, fake *f, bw_api_key type, const char *topic)
{
    bw_request r = rq(type, topic);
    answer a;
    bw_buf json = {0};
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    assert_int_equal(bw_json_from_msgpack(a.a.doc, a.a.doc_len, &json), BW_OK);
    assert_int_equal(bw_buf_append(&json, "", 1), BW_OK);
    answer_free(&a);
    return (char *)json.data;
}

static void test_create_survives_restart_with_id_and_config(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "orders", 3, "retention.ms", "1h"), BW_OK);
    bw_uuid before, after;
    assert_int_equal(partitions_of(fx, &f, "orders", &before), 3);
    assert_true(folder_exists(fx, "orders-2"));
    fake_close(fx, &f);
    fx_down(fx);
    fx_up(fx);
    fake_open(fx, &f);
    assert_int_equal(partitions_of(fx, &f, "orders", &after), 3);
    assert_true(bw_uuid_equal(&before, &after));
    char *json = describe(fx, &f, BW_API_DESCRIBE_TOPICS, "orders");
    assert_non_null(strstr(json, "\"retention.ms\":{\"value\":\"3600000\",\"default\":false}"));
    assert_non_null(strstr(json, "\"segment.bytes\":{\"value\":\"1073741824\",\"default\":true}"));
    assert_non_null(strstr(json, "\"state\":\"open\""));
    free(json);
    fake_close(fx, &f);
}

static void test_create_refuses_bad_names_configs_and_numbers(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    char longest[252];
    memset(longest, 'x', sizeof longest);
    longest[250] = 0;
    static const char *const bad[] = {"", ".", "..", "a/b", "a b", "ä", "a\nb"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(rq_create(fx, &f, bad[i], 1, NULL, NULL), BW_ERR_INVALID_TOPIC);
    assert_int_equal(rq_create(fx, &f, longest, 1, NULL, NULL), BW_ERR_INVALID_TOPIC);
    longest[249] = 0;
    assert_int_equal(rq_create(fx, &f, longest, 1, NULL, NULL), BW_OK);
    assert_int_equal(rq_create(fx, &f, "a.b", 1, NULL, NULL), BW_OK);
    assert_int_equal(rq_create(fx, &f, "a.b", 1, NULL, NULL), BW_ERR_TOPIC_EXISTS);
    assert_int_equal(rq_create(fx, &f, "a_b", 1, NULL, NULL), BW_ERR_INVALID_TOPIC);
    assert_int_equal(rq_create(fx, &f, "c", -1, NULL, NULL), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(rq_create(fx, &f, "c", 1 << 20, NULL, NULL), BW_ERR_INVALID_ARGUMENT);
    static const struct { const char *name, *value; } configs[] = {
        {"retention.msec", "1"}, {"retention.ms", "soon"}, {"retention.ms", "-2"}, {"segment.bytes", "12"}, {"segment.bytes", "3G"},
        {"cleanup.policy", "compacted"},
        {"min.cleanable.dirty.ratio", "0,5"}, {"compression.type", "brotli"}, {"max.message.bytes", "1G"}, {"message.timestamp.type", "Never"},
        {"", "1"}, {"retention.ms", ""},
    };
    for (size_t i = 0; i < sizeof configs / sizeof *configs; i++)
        assert_int_equal(rq_create(fx, &f, "c", 1, configs[i].name, configs[i].value), BW_ERR_INVALID_CONFIG);
    assert_false(folder_exists(fx, "c-0"));
    fake_close(fx, &f);
}

static void test_alter_changes_config_and_adds_partitions(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 2, NULL, NULL), BW_OK);
    batch_spec s = BATCH_SPEC;
    s.value_bytes = 2000;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    bw_request r = rq(BW_API_ALTER_TOPIC, "t");
    r.partitions = 4;
    r.configs = calloc(1, sizeof *r.configs);
    r.configs[0] = (bw_config_pair){bw_str_of("max.message.bytes"), bw_str_of("1000"), true};
    r.config_count = 1;
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    assert_int_equal(partitions_of(fx, &f, "t", NULL), 4);
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_ERR_RECORD_TOO_LARGE);
    s.value_bytes = 10;
    assert_int_equal(produce(fx, &f, "t", 3, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    r = rq(BW_API_ALTER_TOPIC, "t");
    r.partitions = 3;
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_INVALID_ARGUMENT);
    r = rq(BW_API_ALTER_TOPIC, "t");
    r.configs = calloc(1, sizeof *r.configs);
    r.configs[0] = (bw_config_pair){bw_str_of("max.message.bytes"), bw_str_of(NULL), false};
    r.config_count = 1;
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    fake_close(fx, &f);
    fx_down(fx);
    fx_up(fx);
    fake_open(fx, &f);
    assert_int_equal(partitions_of(fx, &f, "t", NULL), 4);
    char *json = describe(fx, &f, BW_API_DESCRIBE_TOPICS, "t");
    assert_non_null(strstr(json, "\"max.message.bytes\":{\"value\":\"1048588\",\"default\":true}"));
    free(json);
    fake_close(fx, &f);
}

static void test_delete_removes_everything_and_frees_the_name(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec s = BATCH_SPEC;
    for (int i = 0; i < 5; i++) {
        bw_uuid id;
        assert_int_equal(rq_create(fx, &f, "t", 3, NULL, NULL), BW_OK);
        assert_int_equal(partitions_of(fx, &f, "t", &id), 3);
        int64_t offset;
        assert_int_equal(produce(fx, &f, "t", 2, &s, BW_ACKS_DURABLE, &offset), BW_OK);
        assert_int_equal(offset, 0);
        bw_request r = rq(BW_API_DELETE_TOPIC, "t");
        assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
        assert_false(folder_exists(fx, "t-0"));
        assert_int_equal(partitions_of(fx, &f, "t", NULL), -BW_ERR_UNKNOWN_TOPIC);
    }
    bw_request r = rq(BW_API_DELETE_TOPIC, "t");
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_UNKNOWN_TOPIC);
    fake_close(fx, &f);
}

static void test_delete_cut_short_is_ended_by_the_next_start(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    assert_int_equal(rq_create(fx, &f, "t", 2, NULL, NULL), BW_OK);
    fake_close(fx, &f);
    fx_down(fx);
    bw_store *store; /* as a crash right after the promise leaves it */
    bw_meta_topic *topics;
    size_t n;
    char path[128];
    snprintf(path, sizeof path, "%s/data", fx->dir);
    assert_int_equal(bw_store_open(path, 0, &store), BW_OK);
    assert_int_equal(bw_store_topics(store, &topics, &n), BW_OK);
    assert_int_equal(n, 1);
    topics[0].state = BW_META_TOPIC_DELETING;
    assert_int_equal(bw_store_topic_put(store, &topics[0]), BW_OK);
    bw_store_topics_free(topics, n);
    bw_store_close(store);
    fx_up(fx);
    fake_open(fx, &f);
    assert_int_equal(partitions_of(fx, &f, "t", NULL), -BW_ERR_UNKNOWN_TOPIC);
    assert_false(folder_exists(fx, "t-0"));
    assert_false(folder_exists(fx, "t-1"));
    fake_close(fx, &f);
}

static void test_create_cut_short_is_ended_by_the_next_start(void **state)
{
    fixture *fx = *state;
    fx_down(fx);
    bw_store *store;
    char path[128];
    snprintf(path, sizeof path, "%s/data", fx->dir);
    assert_int_equal(bw_store_open(path, 0, &store), BW_OK);
    bw_meta_topic t = {.name = "half", .id = {{1, 2, 3}}, .partitions = 2};
    assert_int_equal(bw_store_topic_put(store, &t), BW_OK);
    bw_store_close(store);
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    assert_int_equal(bw_partition_create_files(fd, "half", 0, &t.id), BW_OK); /* the first folder was made, the second not */
    close(fd);
    fx_up(fx);
    fake f;
    fake_open(fx, &f);
    bw_uuid id;
    assert_int_equal(partitions_of(fx, &f, "half", &id), 2);
    assert_true(bw_uuid_equal(&id, &t.id));
    batch_spec s = BATCH_SPEC;
    assert_int_equal(produce(fx, &f, "half", 1, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    fake_close(fx, &f);
}

static void test_adopt_takes_unknown_folders_with_their_id_and_records(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec s = BATCH_SPEC;
    assert_int_equal(rq_create(fx, &f, "t", 2, NULL, NULL), BW_OK);
    for (int i = 0; i < 10; i++) assert_int_equal(produce(fx, &f, "t", 1, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    bw_uuid before, after;
    partitions_of(fx, &f, "t", &before);
    fake_close(fx, &f);
    fx_down(fx);
    char command[512];
    snprintf(command, sizeof command, "rm -rf %s/data/meta && mkdir %s/data/a_b-0 %s/data/nonsense && touch %s/data/file-0",
             fx->dir, fx->dir, fx->dir,
             fx->dir);
    assert_int_equal(system(command), 0);
    for (int i = 0; i < 2; i++) { /* the second start knows it from the store */
        fx_up(fx);
        fake_open(fx, &f);
        assert_int_equal(partitions_of(fx, &f, "t", &after), 2);
        assert_true(bw_uuid_equal(&before, &after));
        bw_request r = rq_fetch("t", 1, 0, 0);
        answer a;
        assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
        int64_t next = 0;
        assert_int_equal(count_records(a.a.payload, a.a.payload_len, &next), 10);
        answer_free(&a);
        fake_close(fx, &f);
        fx_down(fx);
    }
    fx_up(fx);
}

static void test_metadata_lists_all_and_creates_only_where_allowed(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    bw_request r = rq(BW_API_METADATA, "auto");
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    r = rq(BW_API_METADATA, "other");
    r.allow_auto_create = false;
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_UNKNOWN_TOPIC);
    assert_int_equal(rq_create(fx, &f, "second", 5, NULL, NULL), BW_OK);
    r = rq(BW_API_METADATA, NULL);
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(a.a.topic_count, 2);
    assert_int_equal(a.a.topics[0].partitions + a.a.topics[1].partitions, 6);
    answer_free(&a);
    fake_close(fx, &f);
}

static void test_delete_records_moves_the_start(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec s = BATCH_SPEC;
    for (int i = 0; i < 10; i++) assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    bw_request r = rq(BW_API_DELETE_RECORDS, "t");
    r.offset = 4;
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(a.a.log_start, 4);
    answer_free(&a);
    r.offset = 11;
    assert_int_equal(fake_ask(fx, &f, &r), BW_ERR_OFFSET_OUT_OF_RANGE);
    r.offset = BW_OFFSET_END;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(a.a.log_start, 10);
    assert_int_equal(a.a.end, 10);
    answer_free(&a);
    fake_close(fx, &f);
    fx_down(fx);
    fx_up(fx);
    fake_open(fx, &f);
    r = rq(BW_API_LIST_OFFSETS, "t");
    r.timestamp = BW_OFFSET_BEGINNING;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(a.a.offset, 10);
    answer_free(&a);
    fake_close(fx, &f);
}

static void test_list_offsets_by_time_finds_the_first_at_or_after(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    batch_spec s = BATCH_SPEC;
    for (int i = 0; i < 10; i++) {
        s.timestamp = 1000 * (i + 1);
        assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    }
    static const struct { int64_t ts, offset, found; } cases[] = {{0, 0, 1000}, {3000, 2, 3000}, {3001, 3, 4000}, {10000, 9, 10000}, {10001, 10, -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bw_request r = rq(BW_API_LIST_OFFSETS, "t");
        r.timestamp = cases[i].ts;
        answer a;
        assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
        assert_int_equal(a.a.offset, cases[i].offset);
        assert_int_equal(a.a.timestamp, cases[i].found);
        answer_free(&a);
    }
    fake_close(fx, &f);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)
    const struct CMUnitTest tests[] = {
        T(test_create_survives_restart_with_id_and_config),
        T(test_create_refuses_bad_names_configs_and_numbers),
        T(test_alter_changes_config_and_adds_partitions),
        T(test_delete_removes_everything_and_frees_the_name),
        T(test_delete_cut_short_is_ended_by_the_next_start),
        T(test_create_cut_short_is_ended_by_the_next_start),
        T(test_adopt_takes_unknown_folders_with_their_id_and_records),
        T(test_metadata_lists_all_and_creates_only_where_allowed),
        T(test_delete_records_moves_the_start),
        T(test_list_offsets_by_time_finds_the_first_at_or_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
