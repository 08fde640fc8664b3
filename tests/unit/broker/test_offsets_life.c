/* Committed offsets and what becomes of the log and of time: a log that was cut or restored from a copy, commits that wait for the disk,
 * expiry, a clock that jumped, a store that fails. */
#include "offsets_fixture.h"

#include "base/os.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* ---- the daemon is down ---- */

static bw_uuid topic_id(fixture *fx, const char *name)
{
    bw_store *s;
    bw_meta_topic *topics;
    size_t n;
    bw_uuid id = {{0}};
    assert_int_equal(bw_store_open(fx->config.data_dir, 1 << 20, &s), BW_OK);
    assert_int_equal(bw_store_topics(s, &topics, &n), BW_OK);
    for (size_t i = 0; i < n; i++)
        if (!strcmp(topics[i].name, name)) id = topics[i].id;
    bw_store_topics_free(topics, n);
    bw_store_close(s);
    return id;
}

static bw_recovery_point point_of(fixture *fx, const char *name, const bw_recovery_point *put)
{
    bw_uuid id = topic_id(fx, name);
    bw_meta_point p = {.topic = id, .partition = 0};
    bw_store *s;
    assert_int_equal(bw_store_open(fx->config.data_dir, 1 << 20, &s), BW_OK);
    if (put) p.point = *put;
    assert_int_equal(put ? bw_store_points_put(s, &p, 1) : bw_store_point_get(s, &id, 0, &p.point), BW_OK);
    bw_store_close(s);
    return p.point;
}

static void store_offset(fixture *fx, const char *group, const bw_uuid *topic, int64_t offset, int64_t commit_ms, int64_t idle_ms)
{
    uint8_t key[BW_OFFSET_KEY_MAX], value[BW_OFFSET_VALUE_HEAD], group_key[BW_OFFSET_KEY_MAX], idle[BW_OFFSET_IDLE_BYTES];
    bw_offset_key k = {.group = bw_str_of(group), .topic = *topic}, gk = {.group = bw_str_of(group), .of_group = true};
    bw_offset_stored v = {.offset = offset, .leader_epoch = -1, .commit_ms = commit_ms};
    bw_offset_value_encode(&v, value);
    bw_offset_idle_encode(idle_ms, idle);
    size_t key_len = bw_offset_key_encode(&k, key), group_len = bw_offset_key_encode(&gk, group_key);
    bw_meta_change c[2] = {{BW_TABLE_OFFSETS, key, key_len, value, sizeof value}, {BW_TABLE_OFFSETS, group_key, group_len, idle, sizeof idle}};
    bw_store *s;
    assert_int_equal(bw_store_open(fx->config.data_dir, 1 << 20, &s), BW_OK);
    assert_int_equal(bw_store_change(s, c, idle_ms ? 2 : 1), BW_OK);
    bw_store_close(s);
}

/* All batches have the same size, and the file was cut to its length. */
static void damage_record(fixture *fx, const char *folder, int record, int of)
{
    char path[256];
    struct stat st;
    uint8_t byte;
    snprintf(path, sizeof path, "%s/%s/00000000000000000000.log", fx->config.data_dir, folder);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    off_t at = st.st_size / of * record + 65;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 0x55;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

/* With the data folder in place of each of the format's three. */
static void shell(fixture *fx, const char *format)
{
    char command[512];
    snprintf(command, sizeof command, format, fx->config.data_dir, fx->config.data_dir, fx->config.data_dir);
    assert_int_equal(system(command), 0);
}

/* ---- a log that was cut ---- */

static char clamped[512];
static int clamps;
static void note_clamp(void *opaque, bw_log_level level, const char *event, const char *fields)
{
    fx_event(opaque, level, event, fields);
    if (strcmp(event, "offset_clamped")) return;
    snprintf(clamped, sizeof clamped, "%s", fields);
    clamps++;
}

/* Ten records; the log's file is damaged at record 7, and what is known to be on the disk ends at 5: it is cut at 7. */
static void cut_at_seven(fixture *fx, fake *f)
{
    make_topic(fx, f, "t", 1, 5);
    fake_close(fx, f);
    fx_down(fx);
    bw_recovery_point five = point_of(fx, "t", NULL);
    assert_int_equal(five.next_offset, 5);
    fx_up(fx);
    fake_open(fx, f);
    fill(fx, f, "t", 0, 5);
    bw_request r = rq_part(BW_API_OFFSET_COMMIT, "behind", "t", 0);
    r.group.parts[0].offset = 8;
    r.group.parts[0].metadata = bw_str_of("kept");
    assert_int_equal(ask_part(fx, f, &r).error, BW_OK);
    assert_int_equal(commit(fx, f, "before", "t", 0, 7), BW_OK);
    fake_close(fx, f);
    fx_down(fx);
    point_of(fx, "t", &five);
    damage_record(fx, "t-0", 7, 10);
}

static void test_offset_behind_a_cut_is_clamped_to_it_once(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    cut_at_seven(fx, &f);
    clamps = 0;
    fx->config.event = note_clamp;
    for (int i = 0; i < 2; i++) {
        fx_up(fx);
        fake_open(fx, &f);
        outcome o = committed(fx, &f, "behind", "t", 0);
        assert_int_equal(o.offset, 7);
        assert_string_equal(o.metadata, "kept");
        assert_int_equal(committed(fx, &f, "before", "t", 0).offset, 7);
        if (i == 0) {
            /* What is written now is not what was committed: the clamp holds, and commits of what was lost are refused. */
            fill(fx, &f, "t", 0, 5);
            bw_request r = rq_part(BW_API_OFFSET_COMMIT, "late", "t", 0);
            r.group.parts[0].offset = 8;
            r.group.parts[0].leader_epoch = 0;
            o = ask_part(fx, &f, &r);
            assert_int_equal(o.error, BW_ERR_LOG_INCARNATION_MISMATCH);
            assert_non_null(strstr(o.message, "ended at 7"));
            r = rq_part(BW_API_OFFSET_COMMIT, "late", "t", 0);
            r.group.parts[0].offset = 7;
            r.group.parts[0].leader_epoch = 0;
            assert_int_equal(ask_part(fx, &f, &r).error, BW_OK);
            r = rq_part(BW_API_OFFSET_COMMIT, "late", "t", 0);
            r.group.parts[0].offset = 9;
            r.group.parts[0].leader_epoch = 1;
            assert_int_equal(ask_part(fx, &f, &r).error, BW_OK);
        } else assert_int_equal(committed(fx, &f, "late", "t", 0).offset, 9);
        fake_close(fx, &f);
        fx_down(fx);
        assert_int_equal(clamps, 1);
    }
    assert_string_equal(clamped, "group=behind topic=t partition=0 from=8 to=7");
    fx_up(fx);
}

/* The daemon that cut the log died before it could clamp: the next one finds a sound log, in which others have written since. */
static void test_offset_behind_a_cut_is_clamped_by_a_later_start_too(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    cut_at_seven(fx, &f);
    bw_uuid id = topic_id(fx, "t");
    fx_up(fx);
    fake_open(fx, &f);
    fill(fx, &f, "t", 0, 20);
    fake_close(fx, &f);
    fx_down(fx);
    store_offset(fx, "behind", &id, 8, bw_clock_wall_ms(), 0); /* as it was before: of the log's epoch 0 */
    fx_up(fx);
    fake_open(fx, &f);
    assert_int_equal(committed(fx, &f, "behind", "t", 0).offset, 7);
    fake_close(fx, &f);
}

/* ---- a log that was restored from a copy ---- */

static void test_offsets_of_a_log_before_it_was_restored_are_refused_until_set_anew(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 1, 5);
    fake_close(fx, &f);
    fx_down(fx);
    shell(fx, "cp -a %s/t-0 %s.copy && test -d %s.copy");
    fx_up(fx);
    fake_open(fx, &f);
    fill(fx, &f, "t", 0, 5);
    assert_int_equal(commit(fx, &f, "behind", "t", 0, 8), BW_OK);
    assert_int_equal(commit(fx, &f, "before", "t", 0, 3), BW_OK);
    fake_close(fx, &f);
    fx_down(fx);
    shell(fx, "rm -r %s/t-0 && cp -a %s.copy %s/t-0");
    for (int i = 0; i < 2; i++) {
        fx_up(fx);
        fake_open(fx, &f);
        outcome o = committed(fx, &f, "behind", "t", 0);
        assert_int_equal(o.error, BW_ERR_LOG_INCARNATION_MISMATCH);
        assert_non_null(strstr(o.message, "reset-offsets"));
        o = committed(fx, &f, "before", "t", 0);
        assert_int_equal(o.error, i ? BW_OK : BW_ERR_LOG_INCARNATION_MISMATCH);
        if (i) assert_int_equal(o.offset, 4);
        else assert_int_equal(commit(fx, &f, "before", "t", 0, 4), BW_OK);
        if (!i) fill(fx, &f, "t", 0, 20); /* offsets that were committed are there again, and are others */
        fake_close(fx, &f);
        fx_down(fx);
    }
    fx_up(fx);
}

/* ---- durable ---- */

static int64_t durable_of(fixture *fx, fake *f, const char *topic)
{
    bw_request r = rq(BW_API_LIST_OFFSETS, topic);
    r.timestamp = BW_OFFSET_END;
    answer a;
    assert_int_equal(fake_call(fx, f, &r, &a), BW_OK);
    int64_t durable = a.a.durable;
    answer_free(&a);
    return durable;
}

static void test_durable_commit_waits_for_the_log(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 1, 0);
    batch_spec s = BATCH_SPEC;
    for (int i = 1; i <= 20; i++) {
        assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
        bw_request r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
        r.group.parts[0].offset = i;
        r.group.durable = true;
        assert_int_equal(ask_part(fx, &f, &r).error, BW_OK);
        assert_true(durable_of(fx, &f, "t") >= i);
    }
    assert_int_equal(committed(fx, &f, "g", "t", 0).offset, 20);
    fake_close(fx, &f);
}

static void test_durable_commit_that_a_later_one_overtook_changes_nothing(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 2, 0);
    batch_spec s = BATCH_SPEC;
    for (int i = 1; i <= 20; i++) {
        assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
        bw_request r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
        r.group.parts[0].offset = i;
        r.group.durable = true;
        fake_send(fx, &f, &r);
        r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
        r.group.parts[0].offset = 0;
        fake_send(fx, &f, &r);
        for (int k = 0; k < 2; k++) {
            answer a;
            assert_true(fake_next(&f, WAIT_MS, &a));
            assert_int_equal(a.a.error, BW_OK);
            assert_int_equal(a.a.group.parts[0].error, BW_OK);
            answer_free(&a);
        }
        assert_int_equal(committed(fx, &f, "g", "t", 0).offset, 0);
    }
    fake_close(fx, &f);
}

static void test_durable_commits_of_a_closed_session_and_of_a_deleted_topic_end(void **state)
{
    fixture *fx = *state;
    fake f, g;
    fake_open(fx, &f);
    fake_open(fx, &g);
    make_topic(fx, &f, "t", 1, 0);
    batch_spec s = BATCH_SPEC;
    s.count = 50;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
        bw_request r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
        r.group.parts[0].offset = 50 * (i + 1);
        r.group.durable = true;
        fake_send(fx, &g, &r);
        fake_close(fx, &g);
        fake_open(fx, &g);
    }
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_VISIBLE, NULL), BW_OK);
    bw_request r = rq_part(BW_API_OFFSET_COMMIT, "g", "t", 0);
    r.group.parts[0].offset = 1;
    r.group.durable = true;
    fake_send(fx, &g, &r);
    r = rq(BW_API_DELETE_TOPIC, "t");
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    answer a;
    assert_true(fake_next(&g, WAIT_MS, &a)); /* done, or DELETED: whichever was first */
    assert_int_equal(a.a.error, BW_OK);
    assert_true(a.a.group.parts[0].error == BW_OK || a.a.group.parts[0].error == BW_ERR_DELETED ||
                a.a.group.parts[0].error == BW_ERR_UNKNOWN_TOPIC);
    answer_free(&a);
    fake_close(fx, &g);
    fake_close(fx, &f);
}

/* ---- time ---- */

/* Old enough to expire, by the wall clock. */
static void make_old_groups(fixture *fx)
{
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 1, 5);
    fake_close(fx, &f);
    fx_down(fx);
    bw_uuid id = topic_id(fx, "t");
    int64_t now = bw_clock_wall_ms(), old = now - 120000;
    store_offset(fx, "simple-old", &id, 1, old, 0);
    store_offset(fx, "simple-new", &id, 2, now, 0);
    store_offset(fx, "empty-for-long", &id, 3, old, old);
    store_offset(fx, "just-emptied", &id, 4, old, now);
    store_offset(fx, "had-members", &id, 5, old, -1); /* when the daemon ended */
    assert_int_equal(bw_daemon_config_set(&fx->config, "offsets.retention.minutes", "1"), BW_OK);
    assert_int_equal(bw_daemon_config_set(&fx->config, "offsets.retention.check.interval.ms", "20"), BW_OK);
}

static void test_offsets_of_groups_that_nobody_uses_expire(void **state)
{
    fixture *fx = *state;
    fake f;
    make_old_groups(fx);
    fx_up(fx);
    fake_open(fx, &f);
    int64_t until = bw_clock_mono_ms() + WAIT_MS;
    while ((committed(fx, &f, "simple-old", "t", 0).offset >= 0 || committed(fx, &f, "empty-for-long", "t", 0).offset >= 0) &&
           bw_clock_mono_ms() < until)
        usleep(10000);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(committed(fx, &f, "simple-old", "t", 0).offset, -1);
        assert_int_equal(committed(fx, &f, "empty-for-long", "t", 0).offset, -1);
        assert_int_equal(committed(fx, &f, "simple-new", "t", 0).offset, 2);
        assert_int_equal(committed(fx, &f, "just-emptied", "t", 0).offset, 4);
        assert_int_equal(committed(fx, &f, "had-members", "t", 0).offset, 5);
        usleep(100000);
    }
    fake_close(fx, &f);
    fx_down(fx);
    assert_int_equal(stored_offsets(fx), 3 + 2); /* and what is known of the two groups that had members */
    fx_up(fx);
}

static void test_clock_that_jumped_ahead_expires_nothing(void **state)
{
    fixture *fx = *state;
    fake f;
    make_old_groups(fx);
    /* As if the first daemon of this boot had seen a wall clock that was an hour behind this one. */
    char path[256], text[128], hex[33];
    bw_uuid boot;
    assert_int_equal(bw_os_boot_id(boot.b), 0);
    bw_uuid_hex(&boot, hex);
    snprintf(path, sizeof path, "%s/clock", fx->config.data_dir);
    int n = snprintf(text, sizeof text, "0\n%s %lld %lld\n", hex, (long long)bw_clock_wall_ms() - 3600000, (long long)bw_clock_boot_ms());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, (size_t)n), n);
    close(fd);
    fx_up(fx);
    fake_open(fx, &f);
    usleep(300000);
    assert_int_equal(committed(fx, &f, "simple-old", "t", 0).offset, 1);
    assert_int_equal(committed(fx, &f, "empty-for-long", "t", 0).offset, 3);
    fake_close(fx, &f);
}

/* ---- many ---- */

static void test_many_offsets_are_loaded_by_the_start_and_described(void **state)
{
    enum { GROUPS = 100, PARTS = 1000 };
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", PARTS, 1);
    fake_close(fx, &f);
    fx_down(fx);
    bw_uuid id = topic_id(fx, "t");
    static uint8_t keys[GROUPS * PARTS][40], value[BW_OFFSET_VALUE_HEAD];
    static bw_meta_change changes[GROUPS * PARTS];
    bw_offset_stored v = {.offset = 0, .leader_epoch = -1, .commit_ms = bw_clock_wall_ms()};
    bw_offset_value_encode(&v, value);
    for (int g = 0; g < GROUPS; g++)
        for (int i = 0; i < PARTS; i++) {
            char group[24];
            snprintf(group, sizeof group, "group-%02d", g);
            bw_offset_key k = {.group = bw_str_of(group), .topic = id, .partition = (uint32_t)i};
            uint8_t *key = keys[g * PARTS + i];
            size_t len = bw_offset_key_encode(&k, key);
            assert_true(len <= sizeof keys[0]);
            changes[g * PARTS + i] = (bw_meta_change){BW_TABLE_OFFSETS, key, len, value, sizeof value};
        }
    bw_store *s;
    assert_int_equal(bw_store_open(fx->config.data_dir, 1 << 20, &s), BW_OK);
    assert_int_equal(bw_store_change(s, changes, GROUPS * PARTS), BW_OK);
    bw_store_close(s);
    int64_t before = bw_clock_mono_ns();
    fx_up(fx);
    int64_t up = bw_clock_mono_ns() - before;
    fake_open(fx, &f);
    bw_request r = rq_part(BW_API_OFFSET_FETCH, "group-77", NULL, 0);
    answer a;
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    assert_int_equal(a.a.group.part_count, PARTS);
    answer_free(&a);
    before = bw_clock_mono_ns();
    r = rq_part(BW_API_DESCRIBE_GROUP, "group-42", NULL, 0);
    assert_int_equal(fake_call(fx, &f, &r, &a), BW_OK);
    print_message("  a start with %d committed offsets: %lld ms; %d partitions described in %lld ms\n", GROUPS * PARTS, (long long)up / 1000000,
                  PARTS, (long long)(bw_clock_mono_ns() - before) / 1000000);
    answer_free(&a);
    fake_close(fx, &f);
}

/* ---- a store that fails ---- */

static void limit_files(rlim_t bytes)
{
    struct rlimit l;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
    l.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

static void test_commits_to_a_store_that_fails_are_refused_and_the_daemon_goes_on(void **state)
{
    fixture *fx = *state;
    fake f;
    fake_open(fx, &f);
    make_topic(fx, &f, "t", 1, 5);
    assert_int_equal(commit(fx, &f, "g", "t", 0, 2), BW_OK);
    signal(SIGXFSZ, SIG_IGN);
    limit_files(1); /* no file can grow: neither the journal nor LMDB's */
    bw_err e = BW_OK;
    for (int i = 0; i < 3; i++) {
        e = commit(fx, &f, "g", "t", 0, 4);
        assert_int_not_equal(e, BW_OK);
    }
    limit_files(RLIM_INFINITY);
    assert_int_equal(committed(fx, &f, "g", "t", 0).offset, 2);
    bw_request r = rq(BW_API_METADATA, "t");
    assert_int_equal(fake_ask(fx, &f, &r), BW_OK);
    batch_spec s = BATCH_SPEC;
    assert_int_equal(produce(fx, &f, "t", 0, &s, BW_ACKS_DURABLE, NULL), BW_OK);
    fake_close(fx, &f);
    fx_down(fx);
    fx_up(fx);
    fake_open(fx, &f);
    int64_t offset = committed(fx, &f, "g", "t", 0).offset;
    assert_true(offset == 2 || offset == 4); /* it was not said that it was not done, but it failed */
    assert_int_equal(commit(fx, &f, "g", "t", 0, 5), BW_OK);
    assert_int_equal(committed(fx, &f, "g", "t", 0).offset, 5);
    fake_close(fx, &f);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, fx_setup, fx_teardown)
    const struct CMUnitTest tests[] = {
        T(test_offset_behind_a_cut_is_clamped_to_it_once),
        T(test_offset_behind_a_cut_is_clamped_by_a_later_start_too),
        T(test_offsets_of_a_log_before_it_was_restored_are_refused_until_set_anew),
        T(test_durable_commit_waits_for_the_log),
        T(test_durable_commit_that_a_later_one_overtook_changes_nothing),
        T(test_durable_commits_of_a_closed_session_and_of_a_deleted_topic_end),
        T(test_offsets_of_groups_that_nobody_uses_expire),
        T(test_clock_that_jumped_ahead_expires_nothing),
        T(test_many_offsets_are_loaded_by_the_start_and_described),
        T(test_commits_to_a_store_that_fails_are_refused_and_the_daemon_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
