/* URLs: what is taken, what is refused and how it is said, the choice without a URL. */
#include "client/url.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bw_url u;

static void takes(const char *text, bool embedded, const char *path)
{
    if (bw_url_parse(text, &u) != BW_OK) fail_msg("%s: %s", text, bw_error_message());
    assert_int_equal(u.embedded, embedded);
    assert_string_equal(u.path, path);
}

static void refuses(const char *text, bw_err code, const char *says)
{
    assert_int_equal(bw_url_parse(text, &u), code);
    if (!strstr(bw_error_message(), says)) fail_msg("%s: \"%s\" does not say \"%s\"", text, bw_error_message(), says);
}

static void test_url_absolute_paths_are_taken_as_they_are(void **state)
{
    (void)state;
    takes("dir:/var/lib/x", true, "/var/lib/x");
    assert_string_equal(u.idle_exit, "30s");
    assert_false(u.transport_given);
    takes("ipc:///run/busway/bus.sock", false, "/run/busway/bus.sock");
    takes("dir:///var/lib/x", true, "/var/lib/x");
    takes("dir://var//lib/./x/", true, "/var/lib/x");
    takes("dir:/", true, "/");
    takes("dir:/a=b&c:d", true, "/a=b&c:d");
}

static void test_url_folder_options_say_mode_and_coordinator(void **state)
{
    (void)state;
    takes("dir:/x", true, "/x");
    assert_false(u.read_only || u.self_coordinator);
    takes("dir:/x?mode=ro", true, "/x");
    assert_true(u.read_only);
    takes("dir:/x?mode=rw&coordinator=daemon", true, "/x");
    assert_false(u.read_only || u.self_coordinator);
    takes("dir:/x?coordinator=self&idle-exit=5s", true, "/x");
    assert_true(u.self_coordinator);
    refuses("dir:/x?mode=r", BW_ERR_INVALID_ARGUMENT, "mode is ro");
    refuses("dir:/x?coordinator=me", BW_ERR_INVALID_ARGUMENT, "coordinator is daemon");
    refuses("dir:/x?mode=ro&coordinator=self", BW_ERR_INVALID_ARGUMENT, "no coordinator");
    refuses("dir:/x?transport=ipc&mode=ro", BW_ERR_INVALID_ARGUMENT, "no socket");
    refuses("ipc:///x?mode=ro", BW_ERR_INVALID_ARGUMENT, "unknown option");
}

static void test_url_relative_folder_is_of_the_working_directory(void **state)
{
    (void)state;
    char wd[PATH_MAX], wanted[PATH_MAX + 16];
    assert_non_null(getcwd(wd, sizeof wd));
    snprintf(wanted, sizeof wanted, "%s/x/y", strcmp(wd, "/") == 0 ? "" : wd);
    takes("dir:./x/y", true, wanted);
    takes("dir:x/y", true, wanted);
}

static void test_url_escapes_are_decoded_and_printed_again(void **state)
{
    (void)state;
    takes("dir:/a%3Fb%25c%20d", true, "/a?b%c d");
    char text[PATH_MAX];
    bw_url_print(&u, text, sizeof text);
    assert_string_equal(text, "dir:/a%3Fb%25c d");
    refuses("dir:/100%", BW_ERR_INVALID_ARGUMENT, "%25");
    refuses("dir:/a%4", BW_ERR_INVALID_ARGUMENT, "%25");
    refuses("dir:/a%00b", BW_ERR_INVALID_ARGUMENT, "%25");
    refuses("dir:/a%zzb", BW_ERR_INVALID_ARGUMENT, "%25");
}

static void test_url_options_are_checked(void **state)
{
    (void)state;
    takes("dir:/x?idle-exit=5m&transport=ipc", true, "/x");
    assert_string_equal(u.idle_exit, "5m");
    assert_true(u.transport_given);
    assert_int_equal(u.transport, BW_TRANSPORT_IPC);
    takes("ipc:///x?transport=direct", false, "/x");
    assert_int_equal(u.transport, BW_TRANSPORT_DIRECT);
    takes("ipc:///x?", false, "/x");
    takes("ipc:///x?&transport=auto&", false, "/x");
    refuses("ipc:///x?transport=fast", BW_ERR_INVALID_ARGUMENT, "auto, direct or ipc");
    refuses("ipc:///x?idle-exit=3s", BW_ERR_INVALID_ARGUMENT, "dir:");
    refuses("dir:/x?idle-exit=soon", BW_ERR_INVALID_ARGUMENT, "soon");
    refuses("dir:/x?idle-exit=", BW_ERR_INVALID_ARGUMENT, "duration");
    refuses("dir:/x?idle-exit=5x", BW_ERR_INVALID_ARGUMENT, "duration");
    refuses("dir:/x?idle-exit=99999999999999s", BW_ERR_INVALID_ARGUMENT, "duration");
    refuses("dir:/x?idle-exit=888888888880d", BW_ERR_INVALID_ARGUMENT, "duration");
    refuses("dir:/x?colour=red", BW_ERR_INVALID_ARGUMENT, "colour");
}

static void takes_remote(const char *text, const char *host, uint16_t port)
{
    char printed[600];
    assert_int_equal(bw_url_parse(text, &u), BW_OK);
    assert_true(u.remote && !u.embedded);
    assert_string_equal(u.at.place.host, host);
    assert_int_equal(u.at.place.port, port);
    bw_url_print(&u, printed, sizeof printed);
    assert_int_equal(bw_url_parse(printed, &u), BW_OK);
    assert_string_equal(u.at.place.host, host);
    assert_int_equal(u.at.place.port, port);
}

static void test_url_remote_daemons_are_named_by_host_and_port(void **state)
{
    (void)state;
    takes_remote("tcp://h:1", "h", 1);
    takes_remote("tcp://a.b.example", "a.b.example", 7290);
    takes_remote("tcp://192.0.2.1:65535?heartbeat=1s", "192.0.2.1", 65535);
    takes_remote("tcp://[2001:db8::1]:4", "2001:db8::1", 4);
    takes_remote("tcp://[::1]", "::1", 7290);
    refuses("tcp://", BW_ERR_INVALID_ARGUMENT, "no host");
    refuses("tcp://:7", BW_ERR_INVALID_ARGUMENT, "no host");
    refuses("tcp://h:", BW_ERR_INVALID_ARGUMENT, "port");
    refuses("tcp://h:0", BW_ERR_INVALID_ARGUMENT, "port 0");
    refuses("tcp://h:65536", BW_ERR_INVALID_ARGUMENT, "65535");
    refuses("tcp://h:7x", BW_ERR_INVALID_ARGUMENT, "port");
    refuses("tcp://::1:7", BW_ERR_INVALID_ARGUMENT, "brackets");
    refuses("tcp://[::1", BW_ERR_INVALID_ARGUMENT, "]");
    refuses("tcp://[::1]7", BW_ERR_INVALID_ARGUMENT, "colon");
    refuses("tcp://user@@h:7", BW_ERR_INVALID_ARGUMENT, "character");
    refuses("tcp://@h:7", BW_ERR_INVALID_ARGUMENT, "user's name");
    refuses("tcp://u:pass@h:7?token=x", BW_ERR_INVALID_ARGUMENT, "u:***@h:7?token=***");
    refuses("tcp://h:7?password-file=x", BW_ERR_INVALID_ARGUMENT, "password-file");
    refuses("tcp://h:7?token=a&token-file=b", BW_ERR_INVALID_ARGUMENT, "more than one");
    refuses("tcp://h:7?ca=x", BW_ERR_INVALID_ARGUMENT, "tls+tcp://");
    refuses("tls+tcp://h:7?key=x", BW_ERR_INVALID_ARGUMENT, "together");
    assert_int_equal(bw_url_parse("tls+tcp://a%40b:c%3Ad@h?server-name=n&ca=%2Fx", &u), BW_OK);
    assert_string_equal(u.at.user, "a@b");
    assert_string_equal(u.at.secret, "c:d");
    assert_string_equal(u.at.server_name, "n");
    assert_string_equal(u.at.ca, "/x");
    assert_true(u.at.tls);
    char printed[600];
    bw_url_print(&u, printed, sizeof printed);
    assert_string_equal(printed, "tls+tcp://h:7290");
    refuses("tcp://h/x", BW_ERR_INVALID_ARGUMENT, "character");
    refuses("tcp://h?heartbeat=1ms", BW_ERR_INVALID_ARGUMENT, "100ms");
    refuses("tcp://h?idle-exit=1s", BW_ERR_INVALID_ARGUMENT, "idle-exit");
}

static void test_url_of_a_cluster_is_the_backends_and_printed_without_its_options(void **state)
{
    (void)state;
    takes("kafka://b1:9092,b2:9092?sasl.username=u&sasl.password=p%26w", false, "b1:9092,b2:9092?sasl.username=u&sasl.password=p%26w");
    assert_true(u.kafka);
    char text[128];
    bw_url_print(&u, text, sizeof text);
    assert_string_equal(text, "kafka://b1:9092,b2:9092");
}

static void test_url_other_forms_are_refused_with_advice(void **state)
{
    (void)state;
    refuses("", BW_ERR_INVALID_ARGUMENT, "dir:");
    refuses("/var/lib/x", BW_ERR_INVALID_ARGUMENT, "dir:/var/lib/x");
    refuses("./x", BW_ERR_INVALID_ARGUMENT, "dir:./x");
    refuses("ipc://run/bus.sock", BW_ERR_INVALID_ARGUMENT, "ipc:///run/bus.sock");
    refuses("ipc://", BW_ERR_INVALID_ARGUMENT, "no path");
    refuses("dir:", BW_ERR_INVALID_ARGUMENT, "no path");
    refuses("dir:?transport=ipc", BW_ERR_INVALID_ARGUMENT, "no path");
}

static void test_url_too_long_is_refused(void **state)
{
    (void)state;
    static char text[PATH_MAX + 100];
    memset(text, 'x', sizeof text - 1);
    memcpy(text, "dir:/", 5);
    refuses(text, BW_ERR_INVALID_ARGUMENT, "longer");
    text[PATH_MAX + 3] = 0; /* PATH_MAX - 1 characters of path: the longest that fits */
    assert_int_equal(bw_url_parse(text, &u), BW_OK);
    assert_int_equal(strlen(u.path), PATH_MAX - 1);
}

static void test_url_without_one_is_chosen_from_the_environment(void **state)
{
    (void)state;
    bool own = true;
    setenv("BUSWAY_URL", "dir:/from/environment", 1);
    assert_int_equal(bw_url_choose(&u, &own), BW_OK);
    assert_false(own);
    assert_string_equal(u.path, "/from/environment");
    setenv("BUSWAY_URL", "nonsense", 1);
    assert_int_equal(bw_url_choose(&u, &own), BW_ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(bw_error_message(), "$BUSWAY_URL"));
    unsetenv("BUSWAY_URL");
    if (access(BW_URL_SYSTEM_RUNTIME, F_OK) == 0) {
        assert_int_equal(bw_url_choose(&u, &own), BW_OK);
        assert_string_equal(u.path, BW_URL_SYSTEM_RUNTIME "/bus.sock");
        return;
    }
    setenv("XDG_DATA_HOME", "/data/home", 1);
    assert_int_equal(bw_url_choose(&u, &own), BW_OK);
    assert_true(own);
    assert_true(u.embedded);
    assert_string_equal(u.path, "/data/home/busway");
    setenv("XDG_DATA_HOME", "relative", 1); /* the specification says: ignore */
    setenv("HOME", "/home/me", 1);
    assert_int_equal(bw_url_choose(&u, &own), BW_OK);
    assert_string_equal(u.path, "/home/me/.local/share/busway");
    unsetenv("XDG_DATA_HOME");
    unsetenv("HOME");
    assert_int_equal(bw_url_choose(&u, &own), BW_ERR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_url_absolute_paths_are_taken_as_they_are),
        cmocka_unit_test(test_url_folder_options_say_mode_and_coordinator),
        cmocka_unit_test(test_url_relative_folder_is_of_the_working_directory),
        cmocka_unit_test(test_url_escapes_are_decoded_and_printed_again),
        cmocka_unit_test(test_url_options_are_checked),
        cmocka_unit_test(test_url_remote_daemons_are_named_by_host_and_port),
        cmocka_unit_test(test_url_of_a_cluster_is_the_backends_and_printed_without_its_options),
        cmocka_unit_test(test_url_other_forms_are_refused_with_advice),
        cmocka_unit_test(test_url_too_long_is_refused),
        cmocka_unit_test(test_url_without_one_is_chosen_from_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
