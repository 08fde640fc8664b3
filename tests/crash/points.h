/* tests/crash/points.h: the named kill points: which process passes them, and what became of them. */
#ifndef CRASH_POINTS_H
#define CRASH_POINTS_H

#include "crash/crash.h"

typedef enum point_class { POINT_WRITER, POINT_RESERVE, POINT_DAEMON, POINT_COLD, POINT_STOP } point_class;

/* points_load: names, separated by blanks. */
void points_load(const char *names);
/* points_choose: "name:n" for a process of that class, into out. A daemon may get a writer's point: it appends too. */
void points_choose(crash_random *r, point_class cls, char *out, size_t size);
/* A process that was started with this specification was killed at it. */
void points_killed(const char *specification);
/* points_show: how many were reached (the file holds the names passed) and killed at; names those never reached. Returns how many
 * were killed at. */
int points_show(const char *passed_path);

#endif
