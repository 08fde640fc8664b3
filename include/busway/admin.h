/* busway/admin.h: topics, configuration, offsets, status. All calls are synchronous, bounded by request_timeout_ms of the bus,
 * and safe from any thread. JSON results are freed with bw_free. */
#ifndef BUSWAY_ADMIN_H
#define BUSWAY_ADMIN_H

#include <busway/bus.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bw_config_entry {
    const char *name; /* Kafka's name where the thing is Kafka's: "retention.ms" */
    const char *value; /* NULL in alter: back to the default */
} bw_config_entry;

/* bw_topic_create: partitions 0: the daemon's num.partitions. Errors: TOPIC_EXISTS, INVALID_TOPIC, INVALID_CONFIG,
 * NOT_PERMITTED, DISK_FULL. The topic survives power loss when this returns. */
BW_API bw_err bw_topic_create(bw_bus *bus, const char *topic, int32_t partitions, const bw_config_entry *config, size_t config_count);
BW_API bw_err bw_topic_delete(bw_bus *bus, const char *topic);
/* bw_topic_alter: change configuration; partitions > 0 raises the number of partitions (it never shrinks). */
BW_API bw_err bw_topic_alter(bw_bus *bus, const char *topic, int32_t partitions, const bw_config_entry *config, size_t config_count);
/* bw_topic_partitions: how many partitions the topic has. */
BW_API bw_err bw_topic_partitions(bw_bus *bus, const char *topic, int32_t *count);
/* bw_topics_describe: topic NULL: all. JSON array of {"name","id","partitions":[{"partition","log_start_offset",
 * "end_offset","durable_offset","size_bytes","segments","leader_epoch","state",
 * "compaction":{"runs","last_ms","took_ms","dirty_per_mille","clean_offset","bytes_before","bytes_after","records_before","records_after"}:
 * only once it was compacted, of the last time}],"config":{name:{"value","default":bool}}}. */
BW_API bw_err bw_topics_describe(bw_bus *bus, const char *topic, char **json);
/* bw_delete_records: what lies before offset (BW_OFFSET_END: everything) is gone for readers at once; whole segments are
 * removed. *log_start is the new start. Errors: OFFSET_OUT_OF_RANGE. */
BW_API bw_err bw_delete_records(bw_bus *bus, const char *topic, int32_t partition, int64_t before_offset, int64_t *log_start);

typedef struct bw_offset_range {
    int64_t log_start;  /* first offset there */
    int64_t end;        /* next offset to be written */
    int64_t durable;    /* next offset not yet known to be on the disk */
} bw_offset_range;
BW_API bw_err bw_offsets_range(bw_bus *bus, const char *topic, int32_t partition, bw_offset_range *out);
/* bw_offset_for_time: the first record with timestamp >= timestamp_ms; *offset is the end and *found_ms -1 when none. */
BW_API bw_err bw_offset_for_time(bw_bus *bus, const char *topic, int32_t partition, int64_t timestamp_ms, int64_t *offset,
                                 int64_t *found_ms);
/* Quotas: bytes and requests a second. An entity is a user (a name, or a uid in decimal), a client id (bw_bus_options.client_id), a user and a
 * client id, or a process (pid in decimal, alone); NULL: does not matter; BW_QUOTA_DEFAULT: each that has no quota of his own. For each
 * rate the most specific entity holds: pid, user + client, user + default client, user, default user + client, default user + default
 * client, default user, client, default client, default pid; those for whom one entity holds share its rate. Who is over his rate is slowed: the
 * answers come later and say by how much (bw_bus_stats: throttled_ms). A producer_byte_rate or consumer_byte_rate sends who has it
 * through the socket; who reads directly when it is set goes on until it assigns anew. Kept in the daemon's store.
 * bw_quota_set: rates are producer_byte_rate, consumer_byte_rate (bytes a second), request_rate, each a whole number from 1; value NULL:
 * no longer; what is not named stays. On the disk when it returns. INVALID_QUOTA says what is allowed, NOT_PERMITTED, LIMIT_REACHED.
 * bw_quotas_list: JSON array of {"user","client","pid" (those that matter), and its rates}; each argument that is not NULL must match. */
#define BW_QUOTA_DEFAULT "<default>"
BW_API bw_err bw_quota_set(bw_bus *bus, const char *user, const char *client_id, const char *pid, const bw_config_entry *rates, size_t rate_count);
BW_API bw_err bw_quotas_list(bw_bus *bus, const char *user, const char *client_id, const char *pid, char **json);

/* bw_status: the daemon's state as one JSON object: version, pid, uptime, data and runtime directory, generation,
 * connections with their transports and why not direct, partitions, disk space, memory. */
BW_API bw_err bw_status(bw_bus *bus, char **json);

#ifdef __cplusplus
}
#endif
#endif
