/* client/self.h: coordinator=self: the bus carries its folder's coordinator in this process, for programs that may not start others.
 *
 * It is in an object of its own, libbusway-coordinator.so, which is loaded when the first such bus finds nobody serving the folder. Its
 * threads have a table of descriptors of their own, so that a child that the program forks keeps none of its locks and connections. It
 * ends with the bus; others that use the folder then start the next. */
#ifndef BW_CLIENT_SELF_H
#define BW_CLIENT_SELF_H

#include "client/bus.h"

/* bw_self_start: with the folder's start lock held. NOT_FOUND: no libbusway-coordinator.so, or UNSUPPORTED_VERSION: of another version;
 * else what buswayd would say: ALREADY_RUNNING, NOT_PERMITTED, NEWER_FORMAT, DISK_FULL, … */
bw_err bw_self_start(bw_bus *bus);
/* bw_self_stop: if it carries one. */
void bw_self_stop(bw_bus *bus);

#endif
