/* Configuration: units, messages with file and line, the reference, options that depend on each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "broker/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int setup(void **state)
{
    bw_daemon_config *c = calloc(1, sizeof *c);
    bw_daemon_config_init(c);
    *state = c;
    return 0;
}
static int teardown(void **state)
{
    bw_daemon_config_fini(*state);
    free(*state);
    return 0;
}

static bw_err parse(bw_daemon_config *c, const char *text) { return bw_daemon_config_parse(c, "x.ini", text, strlen(text)); }

static void test_config_defaults_are_kafkas(void **state)
{
    bw_daemon_config *c = *state;
    assert_int_equal(c->num_partitions, 1);
    assert_true(c->auto_create_topics);
    assert_int_equal(c->socket_request_max_bytes, 64 << 20);
    assert_int_equal(c->log_level, BW_LOG_INFO);
    assert_int_equal(c->topic_defaults->retention_ms, 604800000);
    assert_int_equal(c->topic_defaults->retention_bytes, -1);
    assert_int_equal(c->topic_defaults->segment_bytes, 1073741824);
    assert_int_equal(c->topic_defaults->max_message_bytes, 1048588);
    assert_string_equal(c->topic_defaults->timestamp_type, "CreateTime");
}

static void test_config_units_are_understood(void **state)
{
    bw_daemon_config *c = *state;
    static const struct { const char *text; int64_t bytes; } sizes[] = {
        {"65536", 65536}, {"64K", 65536}, {"64KiB", 65536}, {"1M", 1 << 20}, {"1.5MiB", 3 << 19}, {"128 KiB", 1 << 17}, {"100kB", 100000},
        {"1GB", 1000000000},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        assert_int_equal(bw_daemon_config_set(c, "socket.request.max.bytes", sizes[i].text), BW_OK);
        assert_int_equal(c->socket_request_max_bytes, sizes[i].bytes);
    }
    static const struct { const char *text; int64_t ms; } times[] = {
        {"30s", 30000}, {"0", 0}, {"250", 250}, {"250ms", 250}, {"2m", 120000}, {"2min", 120000}, {"1.5h", 5400000}, {"7d", 604800000},
    };
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        assert_int_equal(bw_daemon_config_set(c, "idle-exit", times[i].text), BW_OK);
        assert_int_equal(c->idle_exit_ms, times[i].ms);
    }
    static const char *const bad[] = {"", "s", "-5", "1x", "1 2", "9223372036854775808", "9223372036854775807h", "1..5s", "1.s",
                                      "0x10", "1.5", " 1", "1e3"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(bw_daemon_config_set(c, "idle-exit", bad[i]), BW_ERR_INVALID_CONFIG);
    assert_int_equal(c->idle_exit_ms, 604800000);
}

static void test_config_file_sets_daemon_and_topic_options(void **state)
{
    bw_daemon_config *c = *state;
    assert_int_equal(parse(c, "# all of it\n"
                              "data-dir = /var/lib/busway\n"
                              "listen = ipc:///run/a.sock\n"
                              "listen = ipc:///run/b.sock, ipc:///run/c.sock\n"
                              "[daemon]\n"
                              "log-json = yes ; really\n"
                              "log-level = debug\r\n"
                              "[topic-defaults]\n"
                              "retention.ms = 1h\n"
                              "compression.type = zstd"), BW_OK);
    assert_string_equal(c->data_dir, "/var/lib/busway");
    assert_int_equal(c->listen_count, 3);
    assert_string_equal(c->listen[2], "ipc:///run/c.sock");
    assert_true(c->log_json);
    assert_int_equal(c->log_level, BW_LOG_DEBUG);
    assert_int_equal(c->topic_defaults->retention_ms, 3600000);
    assert_string_equal(c->topic_defaults->compression_type, "zstd");
    assert_int_equal(bw_daemon_config_check(c), BW_OK);
    assert_string_equal(c->runtime_dir, "/var/lib/busway/run");
    bw_daemon_config copy;
    assert_int_equal(bw_daemon_config_copy(&copy, c), BW_OK);
    assert_string_equal(copy.listen[1], "ipc:///run/b.sock");
    assert_int_equal(copy.topic_defaults->retention_ms, 3600000);
    bw_daemon_config_fini(&copy);
}

static void test_config_mistakes_name_file_line_and_what_is_allowed(void **state)
{
    bw_daemon_config *c = *state;
    static const struct { const char *text, *line, *part; } cases[] = {
        {"num.partitions = 4\nnum.partitons = 4\n", "x.ini:2", "num.partitons"},
        {"\n\nnum.partitions = none\n", "x.ini:3", "from 1 to 16384"},
        {"num.partitions = 1\nnum.partitions = 2\n", "x.ini:2", "twice, first in line 1"},
        {"[topics]\nretention.ms = 1\n", "x.ini:2", "[topic-defaults]"},
        {"retention.ms = 1\n", "x.ini:1", "[topic-defaults]"},
        {"[topic-defaults]\n\nlog-json = true\n", "x.ini:3", "log-json"},
        {"[topic-defaults]\ncleanup.policy = keep\n", "x.ini:2", "compact,delete"},
        {"[topic-defaults]\nmin.cleanable.dirty.ratio = 1.5\n", "x.ini:2", "from 0 to 1"},
        {"log-json = maybe\n", "x.ini:1", "true or false"},
        {"log-level = loud\n", "x.ini:1", "error, warn, info, debug"},
        {"data-dir = /x\nhello world\n", "x.ini:2", "name = value"},
        {"data-dir = /x\n[daemon\n", "x.ini:2", "[section]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bw_daemon_config_fini(c);
        bw_daemon_config_init(c);
        assert_int_equal(parse(c, cases[i].text), BW_ERR_INVALID_CONFIG);
        if (!strstr(bw_error_message(), cases[i].line) || !strstr(bw_error_message(), cases[i].part))
            fail_msg("case %zu: message is: %s", i, bw_error_message());
    }
    char line[400];
    memset(line, 'x', sizeof line);
    memcpy(line, "\ndata-dir = /", 13);
    line[399] = 0;
    assert_int_equal(parse(c, line), BW_ERR_INVALID_CONFIG);
    assert_non_null(strstr(bw_error_message(), "x.ini:2"));
    assert_int_equal(bw_daemon_config_parse(c, "x.ini", "a\0b", 3), BW_ERR_INVALID_CONFIG);
}

static void test_config_load_of_missing_or_odd_files_fails_clearly(void **state)
{
    bw_daemon_config *c = *state;
    assert_int_equal(bw_daemon_config_load(c, "/nonexistent/busway.ini"), BW_ERR_NOT_FOUND);
    assert_non_null(strstr(bw_error_message(), "/nonexistent/busway.ini"));
    assert_int_equal(bw_daemon_config_load(c, "/tmp"), BW_ERR_INVALID_CONFIG);
    assert_int_equal(bw_daemon_config_load(c, "/dev/null"), BW_ERR_INVALID_CONFIG);
    char path[] = "/tmp/busway-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "num.partitions=9\n", 17), 17);
    close(fd);
    assert_int_equal(bw_daemon_config_load(c, path), BW_OK);
    assert_int_equal(c->num_partitions, 9);
    unlink(path);
}

static void test_config_check_demands_a_data_dir_and_room_for_messages(void **state)
{
    bw_daemon_config *c = *state;
    assert_int_equal(bw_daemon_config_check(c), BW_ERR_INVALID_CONFIG);
    assert_int_equal(bw_daemon_config_set(c, "data-dir", "relative"), BW_OK);
    assert_int_equal(bw_daemon_config_check(c), BW_OK);
    assert_int_equal(c->data_dir[0], '/');
    assert_int_equal(bw_daemon_config_set(c, "max.message.bytes", "64MiB"), BW_OK);
    assert_int_equal(bw_daemon_config_check(c), BW_ERR_INVALID_CONFIG);
    assert_non_null(strstr(bw_error_message(), "socket.request.max.bytes"));
    assert_int_equal(bw_daemon_config_set(c, "nosuch", "1"), BW_ERR_INVALID_CONFIG);
}

static void test_config_reference_names_every_option_with_its_default(void **state)
{
    (void)state;
    static const char *const names[] = {"data-dir", "idle-exit", "num.partitions", "auto.create.topics.enable", "retention.ms", "cleanup.policy"};
    for (int man = 0; man < 2; man++) {
        bw_buf out = {0};
        assert_int_equal(bw_daemon_config_reference(&out, man), BW_OK);
        assert_int_equal(bw_buf_append(&out, "", 1), BW_OK);
        for (size_t i = 0; !man && i < sizeof names / sizeof *names; i++) assert_non_null(strstr((char *)out.data, names[i]));
        assert_non_null(strstr((char *)out.data, "604800000"));
        if (!man) {
            size_t column = 0;
            for (size_t i = 0; i + 1 < out.len; i++) {
                column = out.data[i] == '\n' ? 0 : column + 1;
                assert_true(column < 200);
            }
        }
        bw_buf_free(&out);
    }
}

static void count(void *opaque, const char *name, const char *value, bool is_default)
{
    (void)name, (void)value;
    *(int *)opaque += !is_default;
}

static void test_topic_config_goes_back_to_the_default(void **state)
{
    bw_daemon_config *c = *state;
    bw_topic_config t = *c->topic_defaults;
    assert_int_equal(bw_topic_config_set(&t, c->topic_defaults, "segment.bytes", 13, "1MiB", 4), BW_OK);
    assert_int_equal(t.segment_bytes, 1 << 20);
    int n = 0;
    bw_topic_config_each(&t, c->topic_defaults, count, &n);
    assert_int_equal(n, 1);
    assert_int_equal(bw_topic_config_set(&t, c->topic_defaults, "segment.bytes", 13, NULL, 0), BW_OK);
    assert_int_equal(t.segment_bytes, 1 << 30);
    bw_partition_config p;
    bw_topic_config_partition(&t, &p);
    assert_int_equal(p.segment_bytes, 1 << 30);
    assert_false(p.log_append_time);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_config_defaults_are_kafkas),
        T(test_config_units_are_understood),
        T(test_config_file_sets_daemon_and_topic_options),
        T(test_config_mistakes_name_file_line_and_what_is_allowed),
        T(test_config_load_of_missing_or_odd_files_fails_clearly),
        T(test_config_check_demands_a_data_dir_and_room_for_messages),
        T(test_config_reference_names_every_option_with_its_default),
        T(test_topic_config_goes_back_to_the_default),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
