/* busway/replica.h: copies of a topic on several hosts: compare a mirror with its origin and mend it; promote a mirror; fence an old origin.
 *
 * All calls wait for the daemons; they may be called from any thread, with the buses in use elsewhere. Errors as of every request
 * (TIMED_OUT, NO_COORDINATOR, NOT_CONNECTED: again later; NOT_PERMITTED, UNKNOWN_TOPIC, …: final), and what is named. */
#ifndef BUSWAY_REPLICA_H
#define BUSWAY_REPLICA_H

#include <busway/bus.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum bw_difference_kind {
    BW_DIFFERENCE_BYTES = 0,   /* sound on both sides, but not the same */
    BW_DIFFERENCE_DAMAGED = 1, /* of the mirror: checksums fail, or nothing readable is there */
    BW_DIFFERENCE_MISSING = 2, /* of the mirror: it has no such batches */
    BW_DIFFERENCE_ORIGIN = 3,  /* the origin's are damaged or missing; nothing is mended from it */
    BW_DIFFERENCE_BEYOND = 4,  /* the mirror has records behind the origin's end */
} bw_difference_kind;

typedef struct bw_difference {
    const char *topic; /* the mirror's */
    int32_t partition;
    int64_t from, upto; /* offsets [from, upto) */
    bw_difference_kind kind;
    bool mended;
    const char *message; /* for people: why it was not mended */
} bw_difference;

/* In offsets, over all partitions. */
typedef void (*bw_compare_progress_fn)(void *opaque, uint64_t done, uint64_t total);
typedef void (*bw_difference_fn)(void *opaque, const bw_difference *difference);

typedef struct bw_compare_options {
    size_t size;
    bool quick;            /* compare the heads of batches as they are stored: fast, but blind for bytes that rot behind them; default: all
                              bytes are read and checked on both sides */
    bool repair;           /* mend the mirror from the origin; needs an administrator's right on the mirror */
    uint32_t most;         /* stop after so many differences; 0: 1000 */
    bw_difference_fn difference; /* may be NULL, as progress */
    bw_compare_progress_fn progress;
    void *opaque;
    bool force;            /* repair even a topic that is no mirror, an origin from its mirror say; default: INVALID_ARGUMENT in the difference */
} bw_compare_options;
#define BW_COMPARE_OPTIONS_INIT {.size = sizeof(bw_compare_options)}

typedef struct bw_compare_totals {
    uint64_t partitions, batches, bytes; /* of the mirror, compared */
    uint64_t differences, mended;
    uint64_t behind;                     /* offsets that the mirror does not have yet */
    uint64_t sent_bytes, received_bytes; /* to and from the origin */
} bw_compare_totals;

/* bw_compare: is `topic` on the bus `mirror` what `origin_topic` (NULL: the same name) is on `origin`? Ranges of offsets are compared by
 * their hashes, and only what differs is looked at closer. BW_OK: all that both have is equal, or was mended. LOGS_DIVERGED: differences are
 * left. What the origin does not have any more (retention), and what the mirror does not have yet, is not compared. Since 0.2. */
BW_API bw_err bw_compare(bw_bus *mirror, const char *topic, bw_bus *origin, const char *origin_topic, const bw_compare_options *options,
                         bw_compare_totals *totals);

/* bw_promote: the mirror `topic` becomes an origin: it takes writes, under a new leader epoch; its link copies it no more, and fences the old
 * origin when it reaches it: from then on that refuses writes (ORIGIN_FENCED), and keeps aside what it has beyond the mirror. On the disk when it
 * returns; OK also when it was promoted before. Which mirror is promoted, and when, is a person's decision: of a topic with replicas = N and
 * more than N mirrors, one that is up to date. LOGS_DIVERGED: records that were acknowledged as replicated are not in this mirror; `force`
 * promotes it all the same. INVALID_ARGUMENT: it is no mirror. Since 0.2. */
BW_API bw_err bw_promote(bw_bus *bus, const char *topic, bool force);
/* bw_tails: JSON array of what was kept aside of origins that were fenced: {"topic","partition","from","upto","bytes","epoch","file"}; topic NULL:
 * all. The files are segments (bw_dump); a person deletes them. Freed with bw_free. Since 0.2. */
BW_API bw_err bw_tails(bw_bus *bus, const char *topic, char **json);

#ifdef __cplusplus
}
#endif
#endif
