/* spec.c: a link's options. */
#include "link/spec.h"

#include "format/names.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

static bw_err set(bw_link_spec *s, const char *name, const char *value)
{
    return bw_link_spec_set(s, name, strlen(name), value, value ? strlen(value) : 0);
}

static void make(bw_link_spec *s)
{
    static const char *const options[][2] = {
        {"url", "tcp://berlin:7070"}, {"topics", "alarms:10,^m\\..*:3,plain"}, {"direction", "push"}, {"prefix", "from."}, {"key-prefix", "k"},
        {"header", "kind=alarm"}, {"rate", "30K"}, {"compression", "zstd"}, {"configs", "true"}, {"groups", "^g.*"}, {"kafka.sasl.username", "u"},
    };
    assert_int_equal(bw_link_spec_init(s, bw_str_of("berlin")), BW_OK);
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) assert_int_equal(set(s, options[i][0], options[i][1]), BW_OK);
    assert_int_equal(bw_link_spec_check(s), BW_OK);
}

static void test_spec_options_are_taken(void **state)
{
    (void)state;
    bw_link_spec s;
    make(&s);
    assert_string_equal(s.url, "tcp://berlin:7070");
    assert_true(s.push && s.topic_configs && s.mode == BW_LINK_MIRROR && s.codec == BW_CODEC_ZSTD && s.rate == 30 * 1024);
    assert_string_equal(s.header, "kind");
    assert_string_equal(s.header_value, "alarm");
    assert_int_equal(s.extra_count, 1);
    bw_link_spec_fini(&s);
}

static void test_spec_patterns_match_whole_names_with_their_priority(void **state)
{
    (void)state;
    bw_link_spec s;
    int32_t priority = -1;
    make(&s);
    assert_true(bw_patterns_match(&s.topics, "alarms", &priority));
    assert_int_equal(priority, 10);
    assert_true(bw_patterns_match(&s.topics, "m.x", &priority));
    assert_int_equal(priority, 3);
    assert_true(bw_patterns_match(&s.topics, "plain", &priority));
    assert_int_equal(priority, 0);
    assert_false(bw_patterns_match(&s.topics, "alarms2", NULL));
    assert_false(bw_patterns_match(&s.topics, "xm.x", NULL));
    assert_int_equal(set(&s, "topics", "^.*"), BW_OK);
    assert_false(bw_patterns_match(&s.topics, "__own", NULL)); /* the daemon's own by name only */
    assert_int_equal(set(&s, "topics", "__own"), BW_OK);
    assert_true(bw_patterns_match(&s.topics, "__own", NULL));
    bw_link_spec_fini(&s);
}

static void test_spec_wrong_options_are_refused_and_named(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {{"colour", "red"}, {"mode", "mirr"}, {"direction", "up"}, {"rate", "-1"}, {"rate", "1T"},
                                           {"topics", "a,,b"},
                                           {"topics", "a:1001"}, {"topics", "^("}, {"compression", "rar"}, {"configs", "yes"}, {"header", "=x"}};
    bw_link_spec s;
    make(&s);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(set(&s, wrong[i][0], wrong[i][1]), BW_ERR_INVALID_ARGUMENT);
        assert_true(strstr(bw_error_message(), wrong[i][0]) || strstr(bw_error_message(), wrong[i][1]));
    }
    assert_string_equal(s.topics.items[0].text, "alarms"); /* as it was */
    assert_int_equal(set(&s, "mode", "merge"), BW_OK);
    assert_int_equal(bw_link_spec_check(&s), BW_ERR_INVALID_ARGUMENT); /* groups' offsets with a merge */
    assert_int_equal(set(&s, "groups", NULL), BW_OK);
    assert_int_equal(bw_link_spec_check(&s), BW_OK);
    assert_int_equal(set(&s, "url", NULL), BW_OK);
    assert_int_equal(bw_link_spec_check(&s), BW_ERR_INVALID_ARGUMENT);
    bw_link_spec_fini(&s);
    assert_int_equal(bw_link_spec_init(&s, bw_str_of("a/b")), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_link_spec_init(&s, bw_str_of("")), BW_ERR_INVALID_ARGUMENT);
}

struct text {
    char all[2000];
};
static void print(void *opaque, const char *name, const char *value)
{
    struct text *t = opaque;
    size_t n = strlen(t->all);
    snprintf(t->all + n, sizeof t->all - n, "%s=%s;", name, value);
}

static void test_spec_record_brings_back_the_same_and_cut_is_corrupt(void **state)
{
    (void)state;
    bw_link_spec s, back;
    bw_buf record = {0};
    struct text before = {""}, after = {""};
    make(&s);
    assert_int_equal(bw_link_spec_encode(&s, &record), BW_OK);
    assert_int_equal(bw_link_spec_decode(bw_str_of("berlin"), record.data, record.len, &back), BW_OK);
    bw_link_spec_each(&s, print, &before);
    bw_link_spec_each(&back, print, &after);
    assert_string_equal(before.all, after.all);
    assert_non_null(strstr(before.all, "topics=alarms:10,^m\\..*:3,plain;"));
    bw_link_spec_fini(&back);
    for (size_t n = 0; n < record.len; n++) assert_int_equal(bw_link_spec_decode(bw_str_of("berlin"), record.data, n, &back), BW_ERR_CORRUPT);
    record.data[0] = 9;
    assert_int_equal(bw_link_spec_decode(bw_str_of("berlin"), record.data, record.len, &back), BW_ERR_NEWER_FORMAT);
    bw_buf_free(&record);
    bw_link_spec_fini(&s);
}

static void test_spec_target_has_prefix_or_new_name_and_a_bound(void **state)
{
    (void)state;
    bw_link_spec s;
    char out[BW_TOPIC_NAME_MAX + 1], longest[BW_TOPIC_NAME_MAX + 1];
    make(&s);
    assert_int_equal(bw_link_spec_target(&s, "alarms", out, sizeof out), BW_OK);
    assert_string_equal(out, "from.alarms");
    memset(longest, 'x', BW_TOPIC_NAME_MAX);
    longest[BW_TOPIC_NAME_MAX] = 0;
    assert_int_equal(bw_link_spec_target(&s, longest, out, sizeof out), BW_ERR_INVALID_TOPIC);
    bw_link_spec_fini(&s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spec_options_are_taken),
        cmocka_unit_test(test_spec_patterns_match_whole_names_with_their_priority),
        cmocka_unit_test(test_spec_wrong_options_are_refused_and_named),
        cmocka_unit_test(test_spec_record_brings_back_the_same_and_cut_is_corrupt),
        cmocka_unit_test(test_spec_target_has_prefix_or_new_name_and_a_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
