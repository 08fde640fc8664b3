/* tests/crash/lane.h: a lane: one bus, and the processes that live and die on it. Several lanes run side by side, each a process of
 * its own forked from drive.c, so that the waiting of one is the work of another. A lane runs one round after another. */
#ifndef CRASH_LANE_H
#define CRASH_LANE_H

#include "crash/points.h"
#include "crash/proc.h"

enum { WRITERS = 6, READERS = 4, SLOTS = 2 + WRITERS + READERS };
enum { DAEMON = 0, FIRST_WRITER = 1, FIRST_READER = FIRST_WRITER + WRITERS, ADMIN = FIRST_READER + READERS };
enum { REST_MS = 90000 };

/* What a round tells the parent. */
typedef struct round_result {
    uint32_t number;
    bool damage;
    uint64_t kills, kills_of[4], at_points, cold, clean; /* of: daemon, writers, readers, administrator */
    uint64_t damaged;                                    /* damaged folders recovered */
    uint64_t tried, acked, refused, in_log, reads, topics_made, topics_deleted, violations;
    int64_t took_ms;
} round_result;

typedef struct lane {
    run_dirs dirs;
    char self[256], busway[256], buswayd[256], socket[96], url[2][160]; /* url[direct] */
    oracle *oracle;
    crash_random random;
    child slots[SLOTS];
    uint32_t next_producer, next_topic;
    uint32_t slow; /* so many times as long does everything take (an emulator), and live they */
    round_result r;
} lane;

/* ---- lane.c: processes ---- */
/* lane_start_daemon: fault: BUSWAY_FAULT or NULL; extra: further arguments up to NULL, or NULL. */
void lane_start_daemon(lane *d, const char *point, const char *fault, const char *const *extra);
void lane_start_slot(lane *d, int slot, bool with_point);
/* lane_await_daemon: until it has said that it is ready (true) or ended (false; reaped and accounted for). */
bool lane_await_daemon(lane *d);
void lane_account(lane *d, int slot, int status, bool expected);
void lane_drain(lane *d);
void lane_kill_and_reap(lane *d, int slot);
void lane_stop_and_reap(lane *d, int slot);
void lane_read_everything(lane *d, bool direct, const char *when);
void lane_command(lane *d, const char *format, const char *what);
void lane_empty_folder(const char *path);

/* ---- the two kinds of rounds ---- */
void storm_round(lane *d, uint64_t kills);
void damage_round(lane *d, uint64_t kills);

#endif
