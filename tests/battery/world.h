/* tests/battery/world.h: one partition that is worked on and whose machine loses power again and again, and the oracle's record of it.
 *
 * A life goes from a start (recovery) to a power cut. The record (struct model) holds every batch that was ever appended in this life
 * or came out of recovery, as its bytes must lie in the log, and what was promised: the durable offset, deletions, the epoch. */
#ifndef BATTERY_WORLD_H
#define BATTERY_WORLD_H

#include "disk.h"
#include "format/record_batch.h"
#include "log/partition.h"

typedef struct batch {
    int64_t base, next;
    uint32_t len;
    uint8_t *bytes;
} batch;

typedef struct model {
    batch *batches;
    size_t count, cap;
    bool in_flight;      /* the last one is not visible yet */
    int64_t durable;     /* reported durable */
    int64_t visible;     /* readers may have seen everything below */
    int64_t deleted;     /* deletion acknowledged: nothing below comes back */
    int64_t start;       /* the highest log start that was ever true, or is being made so */
    int32_t epoch;
} model;

/* A machine's memory: arenas for one partition. */
typedef struct memory {
    char path[96];
    int fd;
    bw_mail *mail;
    bw_control *control;
    bw_tail_slot *slot;
} memory;

typedef struct points { bw_recovery_point item[2]; int count; } points; /* what the metadata store holds, the newest last */

typedef struct tally {
    uint64_t worlds, lives, cuts, images, exhaustive_cuts, exhaustive_images, lost_records, raised, second, recovery_cuts, deletions,
        rolls, reused, compactions, clean_stops, takeovers;
    uint32_t failures;
} tally;

typedef struct world {
    rng r;
    uint64_t seed;
    char root[96], folders[3][128]; /* two that are lived in by turns, one for images */
    int data_fds[3];
    int at;
    memory own, image;
    disk *disk;
    bw_partition *p;
    bw_partition_config config;
    bw_appender *mapped, *plain;
    bw_batch_builder builder, image_builder;
    model m;
    points points;
    tally *tally;
    uint64_t image_budget;
    int64_t next_ts;
    bool syncing;      /* appends may happen while a sync runs */
    bool recovering;
    bool trace;
    uint64_t lives_before;
    bool busy;         /* inside an append: no other one may begin */
} world;

enum { WORLD_IMAGE = 2 };
#define WORLD_TOPIC "t"

void world_die(const char *what);
void memory_init(memory *m, const char *root, const char *name);
void memory_fini(memory *m);
void memory_forget(memory *m); /* as a reboot does */

/* -- the record -- */
batch *model_add(model *m, const uint8_t *bytes, size_t len, int64_t base, int64_t next, int32_t epoch);
void model_drop_last(model *m);
/* model_cut: only what lies below `end` is left. */
void model_cut(model *m, int64_t end);
void model_free(model *m);

/* -- power cuts and the oracle (oracle.c) -- */
/* world_cut: the power fails now: tries images of what may be on the disk. */
void world_cut(world *w);
/* world_reboot: one more image, which becomes the folder that is lived in. The caller closed everything. */
void world_reboot(world *w);
void world_note(world *w); /* takes what the slot reports now into the record */

#endif
