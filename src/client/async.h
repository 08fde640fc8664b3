/* client/async.h: the library's one thread of a bus: it sends what bw_producer_send left, and keeps its promises about time. */
#ifndef BW_CLIENT_ASYNC_H
#define BW_CLIENT_ASYNC_H

#include "client/bus.h"

/* bw_async_start: start the thread if it does not run. NO_MEMORY. */
bw_err bw_async_start(bw_bus *bus);
/* bw_async_stop: stop and join it. No producer is open any more. */
void bw_async_stop(bw_bus *bus);
/* bw_async_wake: there is something for it. Free when it is awake. */
void bw_async_wake(bw_bus *bus);

#endif
