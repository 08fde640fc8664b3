/* base/killpoint.h: named places where tests kill or stop the process, or do what another might do at that very moment.
 *
 * Compiled in only with -DBW_TESTING. Environment: BUSWAY_KILL="name:n[:action]": at the n-th pass (1 = first) of the point,
 * action is "kill" (SIGKILL, default), "stop" (SIGSTOP) or "exit". BUSWAY_KILL_LOG=path: appends each name at its first pass,
 * and "!name" just before the action, so that a test can prove that a point was reached, and acted at. Names are "<area>.<step>": "append.copied". */
#ifndef BW_BASE_KILLPOINT_H
#define BW_BASE_KILLPOINT_H

#ifdef BW_TESTING
void bw_kill_point(const char *name);
/* bw_kill_point_watch: fn is called at each point that this thread passes, but not at those that it passes itself. Thread-local; NULL: none. */
typedef void (*bw_kill_point_watcher)(void *opaque, const char *name);
void bw_kill_point_watch(bw_kill_point_watcher fn, void *opaque);
#define BW_KILL_POINT(name) bw_kill_point(name)
#else
#define BW_KILL_POINT(name) ((void)0)
#endif

#endif
