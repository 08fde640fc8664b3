/* tests/support/one_bus.h: for programs whose tests share one daemon and one bus: cmocka_run_group_tests(tests, set_up, tear_down). */
#ifndef BW_TESTS_ONE_BUS_H
#define BW_TESTS_ONE_BUS_H

#include "support/bus.h"

static test_daemon the_daemon;
static bw_bus *bus;

static int set_up(void **state)
{
    (void)state;
    daemon_make(&the_daemon);
    daemon_start(&the_daemon);
    bus = test_bus(the_daemon.url);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    bw_bus_close(bus);
    daemon_remove(&the_daemon);
    return 0;
}

#endif
