/* busway/group.h: consumer groups from outside: which there are, who is in them, what they have committed, and how to change that. All
 * calls are synchronous, bounded by request_timeout_ms of the bus, and safe from any thread. JSON results are freed with bw_free. */
#ifndef BUSWAY_GROUP_H
#define BUSWAY_GROUP_H

#include <busway/bus.h>

#ifdef __cplusplus
extern "C" {
#endif

/* bw_groups_list: JSON array of {"group","state","kind","members","partitions"}: state as Kafka names it ("Empty" for one that has
 * nothing but committed offsets), kind "consumer", "queue", "classic" or "simple", members and partitions with a committed offset counted. */
BW_API bw_err bw_groups_list(bw_bus *bus, char **json);
/* bw_group_describe: JSON object {"group","state","kind","assignor","epoch","members":[{"member","instance","client","pid","uid","since_ms",
 * "partitions":[{"topic","partition"}]}],"partitions":[{"topic","partition","member","committed_offset","metadata","committed_ms",
 * "log_start_offset","end_offset","lag","lag_ms","error"}]}.
 * lag: records from the committed offset to the log's end; null where nothing is committed. lag_ms: how long the first of them has been
 * waiting, by its timestamp; 0: none waits; null: not known. error: null, or why the committed offset can't be used, as text.
 * Errors: GROUP_ID_NOT_FOUND, INVALID_GROUP_ID. */
BW_API bw_err bw_group_describe(bw_bus *bus, const char *group, char **json);
/* bw_group_delete: with all that it has committed, on the disk when this returns. Errors: GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP: it has
 * members; stop them first. */
BW_API bw_err bw_group_delete(bw_bus *bus, const char *group);

/* One partition's committed offset. */
typedef struct bw_group_offset {
    const char *topic;
    int32_t partition;
    int64_t offset;       /* the next record to be read: log start to end */
    const char *metadata; /* free text beside it; NULL: none */
    bw_err error;         /* set by the call, for this partition: BW_OK, or what kept it from being done */
} bw_group_offset;

/* bw_group_offsets_alter: set what the group has committed (it is made when it is not there), on the disk when this returns. Each
 * partition is done or not by itself: the result is BW_OK when all are, else the first one's error, and `error` says of each. Errors:
 * NON_EMPTY_GROUP: the group has members, which would go on from where they are; stop them first. INVALID_COMMIT_OFFSET (the message says
 * the range), UNKNOWN_TOPIC, UNKNOWN_PARTITION, LIMIT_REACHED (the message names the option). */
BW_API bw_err bw_group_offsets_alter(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count);
/* bw_group_offsets_delete: forget what the group has committed for these partitions (offset and metadata do not count). Results as above.
 * Errors: GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP, UNKNOWN_TOPIC, UNKNOWN_PARTITION. */
BW_API bw_err bw_group_offsets_delete(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count);

#ifdef __cplusplus
}
#endif
#endif
