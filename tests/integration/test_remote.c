/* Clients of other hosts: tcp:// and tls+tcp://, what they may do, and which errors they see. Certificates are made for the run (makecerts). */
#include "support/far.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef far_daemon fixture;

static int setup(void **state)
{
    *state = calloc(1, sizeof(fixture));
    far_make(*state);
    return 0;
}

static int teardown(void **state)
{
    far_remove(*state);
    free(*state);
    return 0;
}

static char url_space[2000];

static const char *tcp_url(const fixture *x)
{
    snprintf(url_space, sizeof url_space, "tcp://127.0.0.1:%d", x->tcp);
    return url_space;
}

static const char *tls_url(const fixture *x, const char *host, const char *ca, const char *more)
{
    snprintf(url_space, sizeof url_space, "tls+tcp://%s:%d?ca=%s/%s.pem%s", host, x->tls, x->certs, ca, more);
    return url_space;
}

static bw_err ask(bw_bus *bus)
{
    char *json = NULL;
    bw_err e = bw_topics_describe(bus, NULL, &json);
    bw_free(json);
    return e;
}

/* What a first request through this URL ends with. */
static void refused(const char *url, bw_err wanted, const char *text)
{
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    o.connect_timeout_ms = 5000;
    o.request_timeout_ms = 5000;
    bw_err e = bw_bus_open(url, &o, &bus);
    if (!e) e = ask(bus);
    if (e != wanted || !strstr(bw_error_message(), text))
        fail_msg("%s: %s: %s; expected %s and '%s'", url, bw_err_name(e), e ? bw_error_message() : "", bw_err_name(wanted), text);
    bw_bus_close(bus);
}

static void works(const char *url)
{
    bw_bus *bus = far_bus(url);
    assert_ok(ask(bus));
    bw_bus_close(bus);
}

static void wait_logged(const fixture *x, const char *text)
{
    for (int64_t until = now_ms() + 10000; !far_logged(x, text); usleep(5000))
        if (now_ms() > until) fail_msg("the daemon does not say '%s'", text);
}

/* ---- tests ---- */

static void test_remote_listeners_are_off_until_they_are_named(void **state)
{
    fixture *x = *state;
    daemon_start(&x->d);
    assert_true(far_logged(x, "listening url=ipc://"));
    assert_false(far_logged(x, "tcp"));
}

static void compare(void *opaque, const bw_batch *batch, const bw_record_view *r)
{
    int64_t *next = opaque;
    (void)batch;
    assert_int_equal(r->offset, *next);
    assert_int_equal(r->value_len, 1 + (size_t)*next * 1777 % 200000);
    for (size_t i = 0; i < r->value_len; i++)
        if (((const uint8_t *)r->value)[i] != (uint8_t)((size_t)*next + i * 7)) fail_msg("record %lld differs at %zu", (long long)*next, i);
    ++*next;
}

/* Records of 1 byte to 200 kB there and back. */
static void carry(const char *url)
{
    enum { COUNT = 150 };
    static uint8_t value[200001];
    bw_bus *bus = far_bus(url);
    int64_t next = 0;
    assert_ok(bw_topic_create(bus, "there", 1, NULL, 0));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    for (int64_t n = 0; n < COUNT; n++) {
        bw_record r = {.value = value, .value_len = 1 + (size_t)n * 1777 % 200000, .timestamp_ms = BW_NO_TIMESTAMP};
        for (size_t i = 0; i < r.value_len; i++) value[i] = (uint8_t)((size_t)n + i * 7);
        assert_ok(bw_producer_send(p, "there", 0, &r, NULL, NULL, 10000));
    }
    assert_ok(bw_producer_flush(p, 20000));
    bw_consumer *c = test_consumer(bus, "there", 0, 0);
    assert_int_equal(test_read(c, COUNT, 20000, compare, &next), COUNT);
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
    assert_ok(bw_topic_delete(bus, "there"));
    bw_bus_close(bus);
}

static void test_remote_records_go_there_and_back(void **state)
{
    fixture *x = *state;
    far_start(x, "anonymous.role = admin\n");
    carry(tcp_url(x));
    carry(tls_url(x, "127.0.0.1", "ca", ""));
    carry(tls_url(x, "localhost", "ca", ""));
}

static void test_remote_transport_direct_is_refused(void **state)
{
    fixture *x = *state;
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    o.transport = BW_TRANSPORT_DIRECT;
    far_start(x, "anonymous.role = admin\n");
    assert_err(bw_bus_open(tcp_url(x), &o, &bus), BW_ERR_UNSUPPORTED);
}

static void test_remote_roles_say_what_may_be_done(void **state)
{
    fixture *x = *state;
    far_start(x, "");
    refused(tcp_url(x), BW_ERR_NOT_PERMITTED, "");
    daemon_stop(&x->d, SIGTERM);
    far_start(x, "anonymous.role = admin\n");
    bw_bus *bus = far_bus(tcp_url(x));
    assert_ok(bw_topic_create(bus, "t", 1, NULL, 0));
    bw_bus_close(bus);
    daemon_stop(&x->d, SIGTERM);
    far_start(x, "anonymous.role = reader\n");
    bus = far_bus(tcp_url(x));
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_record r = test_record(NULL, "v");
    bw_delivery d;
    assert_err(bw_producer_send_sync(p, "t", 0, &r, 5000, &d), BW_ERR_NOT_PERMITTED);
    assert_err(bw_topic_create(bus, "u", 1, NULL, 0), BW_ERR_NOT_PERMITTED);
    assert_ok(ask(bus));
    bw_producer_close(p, 0);
    bw_bus_close(bus);
}

static void test_remote_status_tells_readers_no_folder_and_no_other_connection(void **state)
{
    fixture *x = *state;
    static const char *const roles[] = {"reader", "client", "admin"};
    for (size_t i = 0; i < 3; i++) {
        char options[64], *json = NULL;
        snprintf(options, sizeof options, "anonymous.role = %s\n", roles[i]);
        far_start(x, options);
        bw_bus *local = test_bus_by(x->d.url, BW_TRANSPORT_IPC), *bus = far_bus(tcp_url(x));
        assert_ok(bw_status(local, &json));
        assert_non_null(strstr(json, x->d.dir));
        bw_free(json);
        assert_ok(bw_status(bus, &json));
        const char *one = strstr(json, "\"why_not_direct\"");
        bool told = strstr(json, x->d.dir) != NULL, others = one && strstr(one + 1, "\"why_not_direct\"");
        assert_non_null(strstr(json, "\"connections\""));
        bw_free(json);
        if (told != (i == 2) || others != (i == 2))
            fail_msg("%s: the folder is%s told, other connections are%s", roles[i], told ? "" : " not", others ? "" : " not");
        bw_bus_close(bus);
        bw_bus_close(local);
        daemon_stop(&x->d, SIGTERM);
    }
}

static void test_remote_tls_says_what_is_wrong(void **state)
{
    fixture *x = *state;
    far_start(x, "anonymous.role = admin\n");
    refused(tls_url(x, "127.0.0.1", "otherca", ""), BW_ERR_TLS_FAILED, "CA that is not known here");
    refused(tls_url(x, "127.0.0.1", "ca", "&server-name=foo.example"), BW_ERR_TLS_FAILED, "not for 'foo.example'");
    refused(tls_url(x, "127.0.0.1", "nothing", ""), BW_ERR_INVALID_CONFIG, "No such file");
    char url[500];
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", x->tls);
    refused(url, BW_ERR_TLS_FAILED, "use tls+tcp://");
    snprintf(url, sizeof url, "tls+tcp://127.0.0.1:%d?ca=%s/ca.pem", x->tcp, x->certs);
    refused(url, BW_ERR_TLS_FAILED, "use tcp://");
    works(tls_url(x, "127.0.0.1", "ca", ""));
    wait_logged(x, "the client does not speak TLS");
    daemon_stop(&x->d, SIGTERM);
    static const char *const others[][2] = {{"expired", "has expired"}, {"elsewhere", "is not for '127.0.0.1'"}, {"stranger", "not known here"}};
    for (size_t i = 0; i < 3; i++) {
        test_run("cp '%s/%s.pem' '%s/used.pem' && cp '%s/%s.key' '%s/used.key'", x->certs, others[i][0], x->certs, x->certs, others[i][0], x->certs);
        far_start(x, "anonymous.role = admin\n");
        refused(tls_url(x, "127.0.0.1", "ca", ""), BW_ERR_TLS_FAILED, others[i][1]);
        daemon_stop(&x->d, SIGTERM);
    }
}

static void test_remote_clients_show_their_certificates(void **state)
{
    fixture *x = *state;
    char options[500], more[700];
    snprintf(options, sizeof options, "anonymous.role = client\ntls.client.auth = required\ntls.client.ca = %s/ca.pem\n", x->certs);
    far_start(x, options);
    refused(tls_url(x, "127.0.0.1", "ca", ""), BW_ERR_TLS_FAILED, "refused our certificate");
    wait_logged(x, "shows no certificate");
    snprintf(more, sizeof more, "&certificate=%s/alice.pem&key=%s/alice.key", x->certs, x->certs);
    works(tls_url(x, "127.0.0.1", "ca", more));
    snprintf(more, sizeof more, "&certificate=%s/stranger.pem&key=%s/stranger.key", x->certs, x->certs);
    refused(tls_url(x, "127.0.0.1", "ca", more), BW_ERR_TLS_FAILED, "CA");
    snprintf(more, sizeof more, "&certificate=%s/expired.pem&key=%s/expired.key", x->certs, x->certs);
    refused(tls_url(x, "127.0.0.1", "ca", more), BW_ERR_TLS_FAILED, "");
    wait_logged(x, "has expired");
    snprintf(more, sizeof more, "&certificate=%s/alice.pem&key=%s/server.key", x->certs, x->certs);
    refused(tls_url(x, "127.0.0.1", "ca", more), BW_ERR_INVALID_CONFIG, "is not that of the certificate");
}

static void test_remote_certificates_are_reloaded_without_a_restart(void **state)
{
    fixture *x = *state;
    far_start(x, "anonymous.role = admin\n");
    bw_bus *bus = far_bus(tls_url(x, "127.0.0.1", "ca", ""));
    assert_ok(ask(bus));
    test_run("cp '%s/elsewhere.pem' '%s/used.pem' && cp '%s/elsewhere.key' '%s/used.key'", x->certs, x->certs, x->certs, x->certs);
    kill(x->d.pid, SIGHUP);
    wait_logged(x, "certificates-reloaded");
    refused(tls_url(x, "127.0.0.1", "ca", ""), BW_ERR_TLS_FAILED, "not for");
    assert_ok(ask(bus)); /* goes on with what it began with */
    test_run("echo broken > '%s/used.key'", x->certs);
    kill(x->d.pid, SIGHUP);
    wait_logged(x, "certificates-kept");
    test_run("cp '%s/renewed.pem' '%s/used.pem' && cp '%s/renewed.key' '%s/used.key'", x->certs, x->certs, x->certs, x->certs);
    for (int64_t until = now_ms() + 30000;;) { /* without a word: the daemon looks at the files from time to time */
        bw_bus *other = NULL;
        bw_err e = bw_bus_open(tls_url(x, "127.0.0.1", "ca", ""), NULL, &other);
        if (!e) e = ask(other);
        bw_bus_close(other);
        if (!e) break;
        if (now_ms() > until) fail_msg("the renewed certificate is not taken");
        usleep(200000);
    }
    assert_ok(ask(bus));
    bw_bus_close(bus);
}

static const char *as(const fixture *x, const char *user, const char *more)
{
    snprintf(url_space, sizeof url_space, "tls+tcp://%s127.0.0.1:%d?ca=%s/ca.pem%s", user, x->tls, x->certs, more);
    return url_space;
}

static void cannot_produce(const char *url)
{
    bw_bus *bus = far_bus(url);
    bw_producer *p = test_producer(bus, BW_ACKS_VISIBLE);
    bw_record r = test_record(NULL, "v");
    bw_delivery d;
    assert_err(bw_producer_send_sync(p, "t", 0, &r, 5000, &d), BW_ERR_NOT_PERMITTED);
    assert_ok(bw_producer_send(p, "t", 0, &r, NULL, NULL, 60000));
    int64_t begun = now_ms();
    bw_producer_flush(p, 10000);
    assert_true(now_ms() - begun < 9000); /* it is told at once, not when its time is over */
    bw_producer_close(p, 0);
    bw_bus_close(bus);
}

static void test_remote_users_prove_who_they_are(void **state)
{
    fixture *x = *state;
    char token[BW_TOKEN_MAX], more[700], options[500];
    snprintf(options, sizeof options, "tls.client.auth = requested\ntls.client.ca = %s/ca.pem\n", x->certs);
    far_start(x, options);
    bw_bus *local = test_bus_by(x->d.url, BW_TRANSPORT_IPC);
    assert_ok(bw_topic_create(local, "t", 1, NULL, 0));
    assert_ok(bw_user_set(local, "bob", BW_USER_PASSWORD, "client", "correct horse"));
    assert_ok(bw_user_set(local, "alice", BW_USER_CERTIFICATE, "reader", NULL));
    assert_ok(bw_token_add(local, "sensor", "reader", token));
    assert_err(bw_user_set(local, "carol", BW_USER_PASSWORD, "client", "short"), BW_ERR_INVALID_ARGUMENT);
    assert_err(bw_user_set(local, "carol", BW_USER_PASSWORD, "king", "correct horse"), BW_ERR_INVALID_ARGUMENT);
    assert_err(bw_user_set(local, "ca rol", BW_USER_PASSWORD, "client", "correct horse"), BW_ERR_INVALID_ARGUMENT);
    assert_err(bw_user_remove(local, "nobody"), BW_ERR_NOT_FOUND);
    for (int round = 0; round < 2; round++) { /* the same behind a restart */
        works(as(x, "bob:correct%20horse@", ""));
        refused(as(x, "bob:correct%20house@", ""), BW_ERR_AUTHENTICATION_FAILED, "password is wrong");
        refused(as(x, "rob:correct%20horse@", ""), BW_ERR_AUTHENTICATION_FAILED, "not known");
        refused(as(x, "sensor:correct%20horse@", ""), BW_ERR_AUTHENTICATION_FAILED, "not known");
        refused(as(x, "", ""), BW_ERR_NOT_PERMITTED, "role is none");
        snprintf(more, sizeof more, "&token=%s", token);
        works(as(x, "", more));
        cannot_produce(as(x, "", more));
        more[strlen(more) - 1] ^= 1;
        refused(as(x, "", more), BW_ERR_AUTHENTICATION_FAILED, "token is not known");
        refused(as(x, "", "&token=sensor"), BW_ERR_AUTHENTICATION_FAILED, "token is not known");
        snprintf(more, sizeof more, "&certificate=%s/alice.pem&key=%s/alice.key", x->certs, x->certs);
        works(as(x, "", more));
        cannot_produce(as(x, "", more));
        if (round == 1) break;
        bw_bus_close(local);
        daemon_stop(&x->d, SIGTERM);
        far_start(x, options);
        local = test_bus_by(x->d.url, BW_TRANSPORT_IPC);
    }
    test_run("printf 'correct horse\\n' > '%s/password'", x->certs);
    snprintf(more, sizeof more, "&password-file=%s/password", x->certs);
    works(as(x, "bob@", more));
    setenv("BUSWAY_PASSWORD", "correct horse", 1);
    works(as(x, "bob@", ""));
    unsetenv("BUSWAY_PASSWORD");
    setenv("BUSWAY_TOKEN", token, 1);
    works(as(x, "", ""));
    unsetenv("BUSWAY_TOKEN");
    refused(as(x, "bob@", ""), BW_ERR_INVALID_CONFIG, "no password");
    char *json = NULL;
    assert_ok(bw_users_list(local, &json));
    assert_non_null(strstr(json, "\"bob\""));
    assert_null(strstr(json, "$y$"));
    assert_null(strstr(json, token));
    bw_free(json);
    bw_bus_close(local);
}

static void test_remote_user_that_is_removed_is_cut_off(void **state)
{
    fixture *x = *state;
    far_start(x, "");
    bw_bus *local = test_bus_by(x->d.url, BW_TRANSPORT_IPC);
    assert_ok(bw_user_set(local, "bob", BW_USER_PASSWORD, "reader", "correct horse"));
    assert_ok(bw_topic_create(local, "t", 1, NULL, 0));
    bw_bus *bus = far_bus(as(x, "bob:correct%20horse@", ""));
    bw_consumer *c = test_consumer(bus, "t", 0, 0);
    bw_producer *p = test_producer(local, BW_ACKS_VISIBLE);
    test_send(p, "t", 0, "one");
    assert_int_equal(test_read(c, 1, 10000, NULL, NULL), 1);
    assert_ok(bw_user_remove(local, "bob"));
    assert_err(ask(bus), BW_ERR_AUTHENTICATION_FAILED);
    test_send(p, "t", 0, "two");
    bw_batch b;
    bw_err e = BW_ERR_TIMED_OUT;
    for (int64_t until = now_ms() + 10000; (e == BW_ERR_TIMED_OUT || e == BW_ERR_NOT_CONNECTED) && now_ms() < until;)
        e = bw_consumer_poll(c, 100, &b);
    if (e != BW_ERR_AUTHENTICATION_FAILED) fail_msg("the consumer of a removed user: %s", bw_err_name(e));
    bw_consumer_close(c);
    bw_producer_close(p, 1000);
    bw_bus_close(bus);
    bw_bus_close(local);
}

static void config_refused(fixture *x, const char *options, const char *text)
{
    char command[1000];
    FILE *f = fopen(x->config, "w");
    assert_non_null(f);
    fputs(options, f);
    fclose(f);
    snprintf(command, sizeof command, "'%s' --data-dir '%s' --config '%s' --check-config 2>&1 | grep -q -- '%s'", getenv("BUSWAYD"), x->d.dir,
             x->config, text);
    test_run("%s", command);
}

static void test_remote_open_doors_need_a_word(void **state)
{
    fixture *x = *state;
    config_refused(x, "listeners = tcp://0.0.0.0:7290\n", "listeners.insecure");
    config_refused(x, "listeners = tls+tcp://0.0.0.0:7290\n", "needs tls.certificate");
    config_refused(x, "listeners = tls+tcp://0.0.0.0:7290\ntls.certificate = a\ntls.key = b\nanonymous.role = client\n", "lets in everybody");
    config_refused(x, "listeners = tls+tcp://0.0.0.0:7290\ntls.certificate = a\ntls.key = b\ntls.client.auth = required\n", "tls.client.ca names");
    config_refused(x, "listeners = udp://0.0.0.0:7290\n", "expected tcp://");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_remote_listeners_are_off_until_they_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_records_go_there_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_transport_direct_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_roles_say_what_may_be_done, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_status_tells_readers_no_folder_and_no_other_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_tls_says_what_is_wrong, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_clients_show_their_certificates, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_certificates_are_reloaded_without_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_users_prove_who_they_are, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_user_that_is_removed_is_cut_off, setup, teardown),
        cmocka_unit_test_setup_teardown(test_remote_open_doors_need_a_word, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
