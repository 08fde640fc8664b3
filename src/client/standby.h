/* client/standby.h: the thread of a dir: bus that brings up another coordinator when the one it is connected to has gone.
 *
 * Who works directly never asks the daemon for anything, and should not be the one who waits for a new one, either: that takes
 * milliseconds. So, while producers, consumers or queues are open, a thread sleeps until the connection is lost, without any wake-up of its
 * own, then connects again, starting a daemon if no other process does, and tells it what is attached here. Threads that need the daemon at
 * that moment wait for it, as long as they have time. */
#ifndef BW_CLIENT_STANDBY_H
#define BW_CLIENT_STANDBY_H

#include "client/bus.h"

typedef struct bw_standby bw_standby;

/* bw_standby_start: of a dir: bus; does nothing for others, and when it runs. Without a thread, whoever needs the daemon still starts it. */
void bw_standby_start(bw_bus *bus);
/* bw_standby_explain: e, with what kept the thread from bringing up a coordinator, when it failed last. */
bw_err bw_standby_explain(bw_bus *bus, bw_err e);
/* bw_standby_stop: no handle is open any more. */
void bw_standby_stop(bw_bus *bus);

#endif
