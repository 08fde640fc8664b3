/* tests/crash/points.c: see points.h. The names come from the sources, so that a new kill point is tried without being registered. */
#include "crash/points.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { POINTS_MAX = 256 };

typedef struct point {
    char name[64];
    point_class cls;
    atomic_uint chosen, killed, passed;
} point;
static point *points; /* shared between the lanes */
static size_t count;

static bool of_area(const char *name, const char *area)
{
    size_t n = strlen(area);
    return strncmp(name, area, n) == 0 && name[n] == '.';
}

static point_class class_of(const char *name)
{
    static const char *const writer[] = {"append", "repair", "lock", "wake", "bias", "owner"};
    static const char *const cold[] = {"recover", "bringup", "datadir", "meta"};
    /* Only a damaged folder leads there. */
    static const char *const damage[] = {"recover.copied", "recover.dropped", "recover.quarantined", "recover.salvaged",
                                         "meta.rebuild.aside", "meta.rebuild.filled", "meta.rebuild.renamed", "meta.snapshot.aside"};
    static const char *const roll[] = {"roll.final", "roll.entry", "roll.seq", "roll.capacity", "roll.tail"};
    for (size_t i = 0; i < sizeof writer / sizeof *writer; i++)
        if (of_area(name, writer[i])) return POINT_WRITER;
    for (size_t i = 0; i < sizeof roll / sizeof *roll; i++)
        if (strcmp(name, roll[i]) == 0) return POINT_WRITER;
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++)
        if (strcmp(name, damage[i]) == 0) return POINT_DAMAGE;
    for (size_t i = 0; i < sizeof cold / sizeof *cold; i++)
        if (of_area(name, cold[i])) return POINT_COLD;
    if (of_area(name, "reserve")) return POINT_RESERVE;
    if (of_area(name, "close") || of_area(name, "stop")) return POINT_STOP;
    if (strcmp(name, "sync.poisoned") == 0) return POINT_SYNC;
    return POINT_DAEMON;
}

void points_load(const char *names)
{
    char name[64];
    int used;
    points = mmap(NULL, POINTS_MAX * sizeof *points, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (points == MAP_FAILED) abort();
    for (; sscanf(names, "%63s%n", name, &used) == 1 && count < POINTS_MAX; names += used) {
        memcpy(points[count].name, name, sizeof name);
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

/* The one that was killed at and tried least; among such, any. */
static uint32_t weight(const point *p) { return 3 * atomic_load(&p->killed) + atomic_load(&p->chosen); }

void points_choose(crash_random *r, point_class cls, char *out, size_t size)
{
    out[0] = 0;
    if (cls == POINT_DAEMON && crash_below(r, 4) == 0) cls = POINT_WRITER;
    if (cls == POINT_RESERVE && crash_below(r, 2) == 0) cls = POINT_WRITER;
    if (cls == POINT_COLD && crash_below(r, 5) == 0) cls = POINT_DAEMON;
    if (cls == POINT_DAMAGE && crash_below(r, 3) == 0) cls = POINT_COLD;
    size_t start = count ? crash_below(r, (uint32_t)count) : 0, best = POINTS_MAX;
    for (size_t i = 0; i < count; i++) {
        size_t k = (start + i) % count;
        if (points[k].cls != cls) continue;
        if (best == POINTS_MAX || (weight(&points[k]) < weight(&points[best]) && crash_below(r, 4) > 0)) best = k;
    }
    if (best == POINTS_MAX) return;
    atomic_fetch_add(&points[best].chosen, 1);
    snprintf(out, size, "%s:%u", points[best].name, pass_of(r, points[best].name));
}

static point *find(const char *name, size_t n)
{
    for (size_t i = 0; i < count; i++)
        if (strlen(points[i].name) == n && strncmp(points[i].name, name, n) == 0) return &points[i];
    return NULL;
}

void points_passed(const char *path)
{
    char name[64];
    FILE *f = fopen(path, "r");
    if (!f) return;
    while (fscanf(f, "%63s", name) == 1) {
        bool killed = name[0] == '!';
        point *p = find(name + killed, strlen(name + killed));
        if (p) atomic_store(&p->passed, 1);
        if (p && killed) atomic_fetch_add(&p->killed, 1);
    }
    fclose(f);
    unlink(path);
}

void points_save(FILE *f)
{
    for (size_t i = 0; i < count; i++)
        fprintf(f, "point %s %u %u\n", points[i].name, atomic_load(&points[i].passed), atomic_load(&points[i].killed));
}

void points_restore(const char *line)
{
    char name[64];
    unsigned passed, killed;
    if (sscanf(line, "point %63s %u %u", name, &passed, &killed) != 3) return;
    point *p = find(name, strlen(name));
    if (!p) return;
    atomic_store(&p->passed, passed);
    atomic_store(&p->killed, killed);
}

static void name_those(const char *what, bool by_kill)
{
    printf("%s:", what);
    int n = 0;
    for (size_t i = 0; i < count; i++) {
        bool killed = atomic_load(&points[i].killed) > 0;
        if (killed || (!by_kill && atomic_load(&points[i].passed))) continue;
        printf(" %s", points[i].name);
        n++;
    }
    printf(n ? "\n" : " none\n");
}

int points_show(int *passed, int *killed)
{
    *passed = *killed = 0;
    for (size_t i = 0; i < count; i++) {
        bool at = atomic_load(&points[i].killed) > 0;
        *killed += at;
        *passed += at || atomic_load(&points[i].passed);
    }
    printf("kill points: %zu, passed %d, killed at %d\n", count, *passed, *killed);
    name_those("never passed", false);
    name_those("never killed at", true);
    return (int)count;
}
