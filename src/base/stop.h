/* base/stop.h: whoever waits can be told to give up. A *stop* is raised by any thread and seen by all that wait with it, until it is lowered.
 *
 * Its descriptor is readable while it is raised, so that it is one more in a poll; whoever is not waiting meets it at the next wait. */
#ifndef BW_BASE_STOP_H
#define BW_BASE_STOP_H

#include "base/clock.h"
#include "base/err.h"

typedef struct bw_stop { int fd; } bw_stop;

/* bw_stop_init: lowered. IO. */
bw_err bw_stop_init(bw_stop *s);
void bw_stop_fini(bw_stop *s);
void bw_stop_raise(bw_stop *s); /* any thread */
void bw_stop_lower(bw_stop *s);

/* bw_stop_poll: until fd (-1: none) has one of *events, which are then those that it has: OK. TIMED_OUT: the deadline. CLOSED: it is raised.
 * s may be NULL: nobody stops it. IO. */
bw_err bw_stop_poll(const bw_stop *s, int fd, short *events, bw_deadline deadline);

#endif
