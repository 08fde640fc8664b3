/* The reactor: turns exclude each other, calls come once, a source that was removed is not called, tickers come and go. */
#include "unit/transport/reactor_thread.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { ROUNDS = 20000 };

typedef struct counter {
    bw_reactor *reactor;
    long value, shared; /* shared: only within a turn */
} counter;

static void *count_in_turns(void *arg)
{
    counter *c = arg;
    for (int i = 0; i < ROUNDS; i++) {
        bw_reactor_enter(c->reactor);
        assert_true(bw_reactor_is_mine(c->reactor));
        c->shared++;
        bw_reactor_leave(c->reactor);
        assert_false(bw_reactor_is_mine(c->reactor));
    }
    return NULL;
}

static void test_reactor_turns_exclude_each_other(void **state)
{
    (void)state;
    reactor_thread t;
    assert_true(reactor_thread_start(&t));
    counter c = {.reactor = t.reactor};
    pthread_t other;
    assert_int_equal(pthread_create(&other, NULL, count_in_turns, &c), 0);
    count_in_turns(&c);
    pthread_join(other, NULL);
    assert_int_equal(c.shared, 2 * ROUNDS);
    reactor_thread_stop(&t);
}

typedef struct called {
    bw_call call;
    bw_reactor *reactor;
    atomic_int times;
    atomic_bool in_turn;
} called;

static void on_call(bw_call *c)
{
    called *k = (called *)c;
    atomic_store(&k->in_turn, bw_reactor_is_mine(k->reactor));
    atomic_fetch_add(&k->times, 1);
}

static void test_reactor_call_is_made_once_by_the_waiting_thread(void **state)
{
    (void)state;
    bw_reactor *r;
    assert_int_equal(bw_reactor_open(&r), BW_OK);
    called k = {.call.fn = on_call, .reactor = r};
    assert_true(bw_reactor_call(r, &k.call));
    assert_false(bw_reactor_call(r, &k.call));
    assert_int_equal(atomic_load(&k.times), 0);
    bw_reactor_wait(r, 1000, NULL, NULL);
    bw_reactor_leave(r);
    assert_int_equal(atomic_load(&k.times), 1);
    assert_true(atomic_load(&k.in_turn));
    assert_true(bw_reactor_call(r, &k.call)); /* it may be called anew; a close does what is still queued */
    bw_reactor_close(r);
    assert_int_equal(atomic_load(&k.times), 2);
}

static bw_source pair[2];
static bw_reactor *pair_reactor;
static int pair_ready;

static void remove_the_other(bw_source *s, uint32_t events)
{
    assert_true(events & EPOLLIN);
    pair_ready++;
    bw_reactor_remove(pair_reactor, s == &pair[0] ? &pair[1] : &pair[0]);
}

static void test_reactor_source_removed_in_the_same_batch_is_not_called(void **state)
{
    (void)state;
    assert_int_equal(bw_reactor_open(&pair_reactor), BW_OK);
    pair_ready = 0;
    for (int i = 0; i < 2; i++) {
        pair[i] = (bw_source){.ready = remove_the_other, .fd = eventfd(1, EFD_CLOEXEC)};
        assert_int_equal(bw_reactor_ask(pair_reactor, &pair[i], EPOLLIN), BW_OK);
    }
    bw_reactor_wait(pair_reactor, 1000, NULL, NULL);
    bw_reactor_leave(pair_reactor);
    assert_int_equal(pair_ready, 1);
    for (int i = 0; i < 2; i++) close(pair[i].fd);
    bw_reactor_close(pair_reactor);
}

typedef struct ticked { bw_ticker ticker; int times; } ticked;

static bool on_tick(bw_ticker *t, int64_t now_ms)
{
    ticked *k = (ticked *)t;
    assert_true(now_ms > 0);
    return ++k->times < 2;
}

static void test_reactor_ticker_ends_by_itself(void **state)
{
    (void)state;
    bw_reactor *r;
    assert_int_equal(bw_reactor_open(&r), BW_OK);
    ticked k = {.ticker.fn = on_tick}, off = {.ticker.fn = on_tick};
    bw_reactor_enter(r);
    bw_reactor_tick(r, &k.ticker);
    bw_reactor_tick(r, &k.ticker);
    bw_reactor_tick(r, &off.ticker);
    bw_reactor_untick(&off.ticker);
    bw_reactor_untick(&off.ticker);
    bw_reactor_leave(r);
    for (int i = 0; i < 3; i++) { /* the first look is at once */
        bw_reactor_wait(r, i < 2 ? -1 : 10, NULL, NULL);
        bw_reactor_leave(r);
    }
    assert_int_equal(k.times, 2);
    assert_int_equal(off.times, 0);
    bw_reactor_close(r);
}

static char order[8];

typedef struct flushed { bw_flusher flusher; char name; } flushed;

static void on_flush(bw_flusher *f)
{
    flushed *k = (flushed *)f;
    size_t n = strlen(order);
    order[n] = k->name;
    order[n + 1] = 0;
}

static void test_reactor_gathered_leaves_at_the_end_of_the_turn(void **state)
{
    (void)state;
    bw_reactor *r;
    assert_int_equal(bw_reactor_open(&r), BW_OK);
    flushed a = {.flusher.fn = on_flush, .name = 'a'};
    bw_reactor_enter(r);
    bw_reactor_gather(r, &a.flusher);
    bw_reactor_gather(r, &a.flusher);
    assert_int_equal(strlen(order), 0);
    bw_reactor_leave(r);
    assert_string_equal(order, "a");
    bw_reactor_close(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reactor_turns_exclude_each_other),
        cmocka_unit_test(test_reactor_call_is_made_once_by_the_waiting_thread),
        cmocka_unit_test(test_reactor_source_removed_in_the_same_batch_is_not_called),
        cmocka_unit_test(test_reactor_ticker_ends_by_itself),
        cmocka_unit_test(test_reactor_gathered_leaves_at_the_end_of_the_turn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
