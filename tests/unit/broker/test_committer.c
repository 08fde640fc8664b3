/* The committer: many changes in one transaction, in their order, whole or not at all; stop; a store that fails. Calls are made in a turn of
 * the broker's, as its own files do. */
#include "fixture.h"

#include "broker/committer.h"
#include "transport/reactor.h"

#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum { MANY = 2000 };

typedef struct numbered {
    bw_commit commit; /* first */
    int number;
} numbered;

static _Atomic int done_count, out_of_order, failed;
static int next_number;
static bw_err last_error;
static char last_message[300];

static void on_done(bw_broker *b, bw_commit *c, bw_err e)
{
    (void)b;
    numbered *n = (numbered *)(void *)c;
    if (n->number != next_number++) atomic_fetch_add(&out_of_order, 1);
    if (e) {
        last_error = e;
        snprintf(last_message, sizeof last_message, "%s", bw_error_message());
        atomic_fetch_add(&failed, 1);
    }
    bw_commit_fini(c);
    free(n);
    atomic_fetch_add(&done_count, 1);
}

static void begin(void)
{
    atomic_store(&done_count, 0);
    atomic_store(&out_of_order, 0);
    atomic_store(&failed, 0);
    next_number = 0;
    last_error = BW_OK;
}

static numbered *make(int number)
{
    numbered *n = calloc(1, sizeof *n);
    assert_non_null(n);
    n->number = number;
    n->commit.done = on_done;
    return n;
}

static void submit(fixture *fx, numbered *n)
{
    bw_reactor_enter(bw_broker_reactor(fx->broker));
    assert_int_equal(bw_committer_submit(fx->broker, &n->commit), BW_OK);
    bw_reactor_leave(bw_broker_reactor(fx->broker));
}

static void wait_for(int count)
{
    int64_t until = bw_clock_mono_ms() + WAIT_MS;
    while (atomic_load(&done_count) < count && bw_clock_mono_ms() < until) usleep(1000);
    assert_int_equal(atomic_load(&done_count), count);
    assert_int_equal(atomic_load(&out_of_order), 0);
}

/* ---- what is stored ---- */

typedef struct found { char text[256]; } found;
static bool collect(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    found *f = opaque;
    size_t n = strlen(f->text);
    snprintf(f->text + n, sizeof f->text - n, "%.*s=%.*s ", (int)key_len, (const char *)key, (int)value_len - 1, (const char *)value + 1);
    return true;
}
static found stored(fixture *fx)
{
    found f = {""};
    assert_int_equal(bw_store_each(fx->broker->store, BW_TABLE_QUOTAS, "k", 1, collect, &f), BW_OK);
    return f;
}
static void put(numbered *n, const char *key, const char *value)
{
    char text[64];
    int len = snprintf(text, sizeof text, "\1%s", value);
    assert_int_equal(bw_commit_put(&n->commit, BW_TABLE_QUOTAS, key, strlen(key), text, (size_t)len), BW_OK);
}

static void test_committer_takes_effect_in_the_order_of_submission(void **state)
{
    fixture *fx = *state;
    begin();
    for (int i = 0; i < MANY; i++) {
        numbered *n = make(i);
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        put(n, "k1", value);
        if (i % 3 == 0) put(n, "k2", value);
        if (i % 3 == 1) assert_int_equal(bw_commit_remove(&n->commit, BW_TABLE_QUOTAS, "k2", 2), BW_OK);
        submit(fx, n);
    }
    wait_for(MANY);
    assert_int_equal(atomic_load(&failed), 0);
    assert_string_equal(stored(fx).text, "k1=1999 "); /* 1999 % 3 is 1: the last word on k2 was its removal */
    assert_int_equal(bw_committer_backlog(fx->broker), 0);
}

static void test_committer_shares_transactions(void **state)
{
    fixture *fx = *state;
    bw_store_info before, after;
    begin();
    bw_store_info_get(fx->broker->store, &before);
    bw_reactor_enter(bw_broker_reactor(fx->broker)); /* all of them before any is answered */
    for (int i = 0; i < MANY; i++) {
        numbered *n = make(i);
        put(n, "k", "v");
        assert_int_equal(bw_committer_submit(fx->broker, &n->commit), BW_OK);
    }
    bw_reactor_leave(bw_broker_reactor(fx->broker));
    wait_for(MANY);
    bw_store_info_get(fx->broker->store, &after);
    assert_true(after.transactions - before.transactions < MANY / 4);
}

static void test_committer_refuses_keys_that_can_not_be(void **state)
{
    (void)state;
    bw_commit c = {0};
    char key[BW_META_KEY_MAX + 1];
    memset(key, 'k', sizeof key);
    assert_int_equal(bw_commit_put(&c, BW_TABLE_QUOTAS, key, 0, "\1", 1), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_commit_put(&c, BW_TABLE_QUOTAS, key, sizeof key, "\1", 1), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_commit_remove(&c, BW_TABLE_QUOTAS, key, sizeof key), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(c.count, 0);
    assert_int_equal(bw_commit_put(&c, BW_TABLE_QUOTAS, key, sizeof key - 1, "\1", 1), BW_OK);
    assert_int_equal(c.count, 1);
    bw_commit_fini(&c);
}

static void test_committer_does_what_was_submitted_before_a_stop(void **state)
{
    fixture *fx = *state;
    begin();
    bw_reactor_enter(bw_broker_reactor(fx->broker));
    for (int i = 0; i < 50; i++) {
        numbered *n = make(i);
        char value[16];
        snprintf(value, sizeof value, "%d", i);
        put(n, "k", value);
        assert_int_equal(bw_committer_submit(fx->broker, &n->commit), BW_OK);
    }
    bw_reactor_leave(bw_broker_reactor(fx->broker));
    fx_down(fx);
    assert_int_equal(atomic_load(&done_count), 50);
    assert_int_equal(atomic_load(&failed), 0);
    fx_up(fx);
    assert_string_equal(stored(fx).text, "k=49 ");
}

static void limit_files(rlim_t bytes)
{
    struct rlimit l;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
    l.rlim_cur = bytes;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

static void test_committer_says_why_a_transaction_failed_and_lives_on(void **state)
{
    fixture *fx = *state;
    begin();
    numbered *n = make(0);
    put(n, "k", "before");
    submit(fx, n);
    wait_for(1);
    signal(SIGXFSZ, SIG_IGN);
    limit_files(1);
    for (int i = 1; i < 4; i++) {
        n = make(i);
        put(n, "k", "never");
        submit(fx, n);
    }
    wait_for(4);
    limit_files(RLIM_INFINITY);
    assert_int_equal(atomic_load(&failed), 3);
    assert_int_not_equal(last_error, BW_OK);
    assert_true(strlen(last_message) > 0);
    fx_down(fx);
    fx_up(fx);
    n = make(4);
    put(n, "k", "after");
    submit(fx, n);
    wait_for(5);
    assert_string_equal(stored(fx).text, "k=after ");
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, fx_setup, fx_teardown)
    const struct CMUnitTest tests[] = {
        T(test_committer_takes_effect_in_the_order_of_submission),
        T(test_committer_shares_transactions),
        T(test_committer_refuses_keys_that_can_not_be),
        T(test_committer_does_what_was_submitted_before_a_stop),
        T(test_committer_says_why_a_transaction_failed_and_lives_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
