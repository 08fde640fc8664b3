/* Who waits with a stop gives up when it is raised, from another thread too, and can wait again when it was lowered. */
#include "base/stop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

static void test_stop_lowered_waits_for_the_descriptor_or_the_deadline(void **state)
{
    (void)state;
    int ends[2];
    bw_stop s;
    short events = POLLIN;
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(bw_stop_init(&s), BW_OK);
    assert_int_equal(bw_stop_poll(&s, ends[0], &events, bw_deadline_in_ms(5)), BW_ERR_TIMED_OUT);
    assert_int_equal(write(ends[1], "x", 1), 1);
    events = POLLIN;
    assert_int_equal(bw_stop_poll(&s, ends[0], &events, BW_DEADLINE_NEVER), BW_OK);
    assert_int_equal(events, POLLIN);
    bw_stop_raise(&s);
    bw_stop_raise(&s);
    assert_int_equal(bw_stop_poll(&s, ends[0], &events, BW_DEADLINE_NEVER), BW_ERR_CLOSED); /* before what is there */
    bw_stop_lower(&s);
    assert_int_equal(bw_stop_poll(&s, ends[0], &events, BW_DEADLINE_NEVER), BW_OK);
    assert_int_equal(bw_stop_poll(NULL, ends[0], &events, BW_DEADLINE_NEVER), BW_OK);
    bw_stop_fini(&s);
    close(ends[0]);
    close(ends[1]);
}

static void *raise_soon(void *stop)
{
    usleep(10000);
    bw_stop_raise(stop);
    return NULL;
}

static void test_stop_raised_by_another_thread_ends_the_wait(void **state)
{
    (void)state;
    bw_stop s;
    pthread_t thread;
    assert_int_equal(bw_stop_init(&s), BW_OK);
    assert_int_equal(pthread_create(&thread, NULL, raise_soon, &s), 0);
    assert_int_equal(bw_stop_poll(&s, -1, NULL, bw_deadline_in_ms(60000)), BW_ERR_CLOSED);
    pthread_join(thread, NULL);
    bw_stop_fini(&s);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_lowered_waits_for_the_descriptor_or_the_deadline),
        cmocka_unit_test(test_stop_raised_by_another_thread_ends_the_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
