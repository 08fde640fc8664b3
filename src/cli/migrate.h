/* cli/migrate.h: `busway migrate`: topics from one bus to another, whatever they are: folders, daemons, Kafka clusters.
 *
 * Records go partition by partition, in transactions of the target, and in each transaction also how far the source was read: as the
 * metadata of an offset that the migration's own group commits ("next=N first=N records=N"). So one that was killed at whatever time goes
 * on where the target is, and nothing is there twice. Afterwards both sides are read again, record beside record: what is proved is that
 * they are equal, and it shows where each group's offset lies in the target. */
#ifndef BW_CLI_MIGRATE_H
#define BW_CLI_MIGRATE_H

#include "cli/cli.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* How far a partition is. */
typedef struct migrate_position {
    int64_t first;   /* offset of the source where the migration began; -1: it has not */
    int64_t next;    /* of the source */
    int64_t records; /* that are in the target */
} migrate_position;

/* An offset of a group at the source, and where it is in the target. */
typedef struct migrate_offset {
    const char *group; /* of the document that names it */
    const char *metadata;
    const char *topic;
    int32_t partition;
    int64_t source, target; /* target -1: not found yet */
} migrate_offset;

typedef struct migrate {
    cli *c;
    const char *from_url, *to_url;
    bw_bus *from, *to;
    bw_producer *producer;
    bw_consumer *positions; /* of the group at the target */
    char group[64];
    bool to_cluster; /* a timestamp of 0 can't be there: 1 is */
    bw_isolation isolation;
    /* what a person sees */
    bool terminal, bar_shown;
    int64_t begun_ns, shown_ns;
    const char *what;
    uint64_t done, total; /* records of all partitions, about */
    uint64_t copied;      /* by this run */
} migrate;

/* migrate_bar: show how far it is, now and then; clear: away with it. */
void migrate_bar(migrate *m);
void migrate_bar_clear(migrate *m);

/* migrate_position_read: CLI_OK or an exit code; the error was printed. */
int migrate_position_read(migrate *m, const char *topic, int32_t partition, migrate_position *out);
/* migrate_copy: a partition, up to where its end is now. */
int migrate_copy(migrate *m, const char *topic, int32_t partition, migrate_position *p);
/* migrate_check: both sides of a partition, record beside record; each group's offset of it is found. *equal: how many are. offsets are this
 * partition's, ascending by `source`. */
int migrate_check(migrate *m, const char *topic, int32_t partition, const migrate_position *p, migrate_offset *offsets, size_t count,
                  uint64_t *equal);
/* migrate_groups: what groups have committed at the source, as a document that owns the texts; offsets malloc'd. NULL and *exit_code OK:
 * the source tells none. */
json_t *migrate_groups(migrate *m, migrate_offset **out, size_t *count, int *exit_code);
/* migrate_groups_commit: all of those that were found; *groups: how many groups. */
int migrate_groups_commit(migrate *m, migrate_offset *offsets, size_t count, size_t *groups);

#endif
