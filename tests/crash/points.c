/* tests/crash/points.c: see points.h. The names come from the sources, so that a new kill point is tried without being registered. */
#include "crash/points.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS_MAX = 256 };

static struct {
    char name[64];
    point_class cls;
    uint32_t killed;
    bool passed;
} points[POINTS_MAX];
static size_t count;

static bool of_area(const char *name, const char *area)
{
    size_t n = strlen(area);
    return strncmp(name, area, n) == 0 && name[n] == '.';
}

static point_class class_of(const char *name)
{
    static const char *const writer[] = {"append", "repair", "lock", "wake"}, *const cold[] = {"recover", "bringup", "datadir"};
    static const char *const roll[] = {"roll.final", "roll.entry", "roll.seq", "roll.capacity", "roll.tail"};
    for (size_t i = 0; i < sizeof writer / sizeof *writer; i++)
        if (of_area(name, writer[i])) return POINT_WRITER;
    for (size_t i = 0; i < sizeof roll / sizeof *roll; i++)
        if (strcmp(name, roll[i]) == 0) return POINT_WRITER;
    for (size_t i = 0; i < sizeof cold / sizeof *cold; i++)
        if (of_area(name, cold[i])) return POINT_COLD;
    if (of_area(name, "reserve")) return POINT_RESERVE;
    if (of_area(name, "close") || of_area(name, "stop")) return POINT_STOP;
    return POINT_DAEMON;
}

void points_load(const char *names)
{
    char name[64];
    int used;
    for (; sscanf(names, "%63s%n", name, &used) == 1 && count < POINTS_MAX; names += used) {
        snprintf(points[count].name, sizeof points[count].name, "%s", name);
        points[count++].cls = class_of(name);
    }
}

/* At which pass: so that early and late ones are met, within the life of a process here. */
static uint32_t pass_of(crash_random *r, const char *name)
{
    if (of_area(name, "append")) return 1 + crash_below(r, crash_below(r, 2) ? 200 : 20);
    if (of_area(name, "reserve")) return 1 + crash_below(r, 50);
    if (of_area(name, "wake")) return 1 + crash_below(r, 30);
    if (of_area(name, "sync") || of_area(name, "roll")) return 1 + crash_below(r, 4);
    return 1 + crash_below(r, 2);
}

void points_choose(crash_random *r, point_class cls, char *out, size_t size)
{
    out[0] = 0;
    if (cls == POINT_DAEMON && crash_below(r, 4) == 0) cls = POINT_WRITER;
    if (cls == POINT_RESERVE && crash_below(r, 2) == 0) cls = POINT_WRITER;
    if (cls == POINT_COLD && crash_below(r, 5) == 0) cls = POINT_DAEMON;
    /* Of the class, one that was killed at least often so far: the first of a random start. */
    size_t start = count ? crash_below(r, (uint32_t)count) : 0, best = POINTS_MAX;
    for (size_t i = 0; i < count; i++) {
        size_t k = (start + i) % count;
        if (points[k].cls != cls) continue;
        if (best == POINTS_MAX || (points[k].killed < points[best].killed && crash_below(r, 3) > 0)) best = k;
    }
    if (best < POINTS_MAX) snprintf(out, size, "%s:%u", points[best].name, pass_of(r, points[best].name));
}

void points_killed(const char *specification)
{
    size_t n = strcspn(specification, ":");
    for (size_t i = 0; i < count; i++)
        if (strlen(points[i].name) == n && strncmp(points[i].name, specification, n) == 0) points[i].killed++;
}

int points_show(const char *passed_path)
{
    char name[64];
    FILE *f = fopen(passed_path, "r");
    while (f && fscanf(f, "%63s", name) == 1)
        for (size_t i = 0; i < count; i++)
            if (strcmp(points[i].name, name) == 0) points[i].passed = true;
    if (f) fclose(f);
    int passed = 0, killed = 0;
    for (size_t i = 0; i < count; i++) {
        passed += points[i].passed || points[i].killed;
        killed += points[i].killed > 0;
    }
    printf("kill points: %zu, passed %d, killed at %d\n", count, passed, killed);
    printf("never passed:");
    for (size_t i = 0; i < count; i++)
        if (!points[i].passed && !points[i].killed) printf(" %s", points[i].name);
    printf("\n");
    return killed;
}
