/* tests/crash/points.h: the named kill points: which process passes them, and what became of them. The table is shared by all
 * lanes (it lies in memory that is mapped before they are forked). */
#ifndef CRASH_POINTS_H
#define CRASH_POINTS_H

#include "crash/crash.h"

#include <stdio.h>

typedef enum point_class { POINT_WRITER, POINT_RESERVE, POINT_DAEMON, POINT_COLD, POINT_STOP, POINT_DAMAGE, POINT_SYNC } point_class;

/* points_load: names, separated by blanks. */
void points_load(const char *names);
/* points_choose: "name:n" for a process of that class, into out. A daemon may get a writer's point: it appends too. */
void points_choose(crash_random *r, point_class cls, char *out, size_t size);
/* points_passed: takes the names that a round's processes passed and were killed at from a file, and removes it. */
void points_passed(const char *path);
/* What is known goes to a file and comes from it: "point name passed killed". */
void points_save(FILE *f);
void points_restore(const char *line);
/* points_show: prints how many were reached and killed at, and names those that were not. Returns how many there are. */
int points_show(int *passed, int *killed);

#endif
