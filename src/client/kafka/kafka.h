/* client/kafka/kafka.h: a bus, producers and consumers on an Apache Kafka cluster, inside.
 *
 * One librdkafka instance for the bus (administration, metadata) and one for each producer and consumer. librdkafka's threads call only
 * the log and error callbacks, which touch nothing but `trouble` under its lock; everything else happens in the caller's threads.
 * What librdkafka's errors are to Busway: error.c. What the URL says: config.c. */
#ifndef BW_CLIENT_KAFKA_KAFKA_H
#define BW_CLIENT_KAFKA_KAFKA_H

#include "client/backend.h"
#include "client/kafka/rdkafka.h"

#include <stdio.h>
#include <time.h>

typedef struct bw_kafka_option {
    char *name, *value;
} bw_kafka_option;

/* What librdkafka said last of its connections, for the message of what fails by it. */
typedef struct bw_ktrouble {
    pthread_mutex_t mutex;
    rd_kafka_resp_err_t error; /* the last one that ends waiting: credentials or TLS; else NO_ERROR */
    char text[512];            /* "" : nothing */
} bw_ktrouble;

/* bus->foreign */
typedef struct bw_kbus {
    bw_bus *bus;
    char *brokers;
    bw_kafka_option *options;
    size_t option_count;
    rd_kafka_t *rk; /* administration */
    bw_ktrouble trouble;
} bw_kbus;

static inline void bw_kafka_nap(int64_t ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL); }
static inline bw_kbus *bw_kbus_of(const bw_bus *bus) { return bus->foreign; }

/* ---- error.c ---- */
/* bw_kafka_error: Busway's error for librdkafka's. */
bw_err bw_kafka_error(rd_kafka_resp_err_t error);
/* bw_kafka_fail: that error, with the message "format: librdkafka's text". text NULL: the code's own. */
bw_err bw_kafka_fail(rd_kafka_resp_err_t error, const char *text, const char *format, ...) BW_PRINTF(3, 4);
/* bw_kafka_fail_object: the same, and the object is destroyed. error NULL: OK. */
bw_err bw_kafka_fail_object(rd_kafka_error_t *error, const char *format, ...) BW_PRINTF(2, 3);
/* bw_kafka_fail_wait: an error for a call whose time is over: what librdkafka last said of its connections is the reason. */
bw_err bw_kafka_fail_wait(bw_kbus *k, rd_kafka_resp_err_t error, const char *what);
/* bw_kafka_left_ms: of a deadline, rounded up; -1: never; at most INT_MAX. */
int bw_kafka_left_ms(bw_deadline deadline);

/* ---- config.c ---- */
/* bw_kafka_config_parse: what is behind kafka://. INVALID_ARGUMENT; NOT_FOUND, NOT_PERMITTED (?config=). */
bw_err bw_kafka_config_parse(bw_kbus *k, const char *rest);
void bw_kafka_config_free(bw_kbus *k);
/* bw_kafka_conf_new: a configuration with the URL's options, callbacks and opaque set. */
bw_err bw_kafka_conf_new(bw_kbus *k, rd_kafka_conf_t **out);
/* bw_kafka_conf_set, _set_int: one of ours, unless *e has an error already. */
void bw_kafka_conf_set(rd_kafka_conf_t *conf, bw_err *e, const char *name, const char *value);
void bw_kafka_conf_set_int(rd_kafka_conf_t *conf, bw_err *e, const char *name, int64_t value);
/* bw_kafka_conf_is_given: does the URL say it? */
bool bw_kafka_conf_is_given(const bw_kbus *k, const char *name);
/* bw_kafka_new: conf is consumed either way. */
bw_err bw_kafka_new(bw_kbus *k, rd_kafka_type_t type, rd_kafka_conf_t *conf, rd_kafka_t **out);

/* ---- destroy.c ---- */
/* bw_kafka_destroy: ends an instance; waits for seconds at most. Nothing may be called back any more. */
void bw_kafka_destroy(rd_kafka_t *rk, int flags);

/* bw_kafka_note: what librdkafka said of its connections; any thread. */
void bw_kafka_note(bw_kbus *k, rd_kafka_resp_err_t error, const char *text);

/* ---- bus.c ---- */
bw_err bw_kafka_bus_open(bw_bus *bus, bw_deadline deadline);
void bw_kafka_bus_close(bw_bus *bus);
char *bw_kafka_bus_stats(bw_bus *bus);
/* bw_kafka_partitions: how many partitions a topic has, asked now. create: the cluster may make it. */
bw_err bw_kafka_partitions(bw_kbus *k, rd_kafka_t *rk, const char *topic, bool create, bw_deadline deadline, int32_t *count);
/* bw_kafka_metadata: of one topic, which must be there, or of all (NULL). */
bw_err bw_kafka_metadata(bw_kbus *k, const char *topic, bw_deadline deadline, const struct rd_kafka_metadata **out);
bw_err bw_kafka_topic_partitions(bw_bus *bus, const char *topic, int32_t *count);
bw_err bw_kafka_status(bw_bus *bus, char **json);
bw_err bw_kafka_topics(bw_bus *bus, bw_backend_topic **out, size_t *count);
bw_err bw_kafka_cluster_id(bw_bus *bus, char *out, size_t size);

/* ---- offsets.c ---- */
/* bw_kafka_offsets: in place: each partition's offset by its `offset`: a time, or BW_OFFSET_END, BW_OFFSET_BEGINNING. err of each is set. */
bw_err bw_kafka_offsets(bw_kbus *k, rd_kafka_t *rk, rd_kafka_topic_partition_list_t *list, bw_deadline deadline);
/* bw_kafka_log_range: where a partition's log begins and ends. */
bw_err bw_kafka_log_range(bw_kbus *k, rd_kafka_t *rk, const char *topic, int32_t partition, bw_deadline deadline, int64_t *start, int64_t *end);
bw_err bw_kafka_offsets_range(bw_bus *bus, const char *topic, int32_t partition, bw_offset_range *out);
bw_err bw_kafka_offset_for_time(bw_bus *bus, const char *topic, int32_t partition, int64_t timestamp_ms, int64_t *offset, int64_t *found_ms);
bw_err bw_kafka_delete_records(bw_bus *bus, const char *topic, int32_t partition, int64_t before_offset, int64_t *log_start);

/* ---- admin.c, configs.c ---- */
/* bw_kafka_ask: what every administrative call has: options, a queue of its own; and its event, or why there is none. */
typedef struct bw_kafka_ask {
    rd_kafka_AdminOptions_t *options;
    rd_kafka_queue_t *queue;
    rd_kafka_event_t *event;
} bw_kafka_ask;
bw_err bw_kafka_ask_init(bw_kbus *k, rd_kafka_admin_op_t op, bw_kafka_ask *a);
/* bw_kafka_ask_wait: for the event. what: for the message. */
bw_err bw_kafka_ask_wait(bw_kbus *k, bw_kafka_ask *a, const char *what);
void bw_kafka_ask_fini(bw_kafka_ask *a);
bw_err bw_kafka_topic_create(bw_bus *bus, const char *topic, int32_t partitions, const bw_config_entry *config, size_t count);
bw_err bw_kafka_topic_alter(bw_bus *bus, const char *topic, int32_t partitions, const bw_config_entry *config, size_t count);
bw_err bw_kafka_topic_delete(bw_bus *bus, const char *topic);
bw_err bw_kafka_topics_describe(bw_bus *bus, const char *topic, char **json);
bw_err bw_kafka_configs_alter(bw_kbus *k, const char *topic, const bw_config_entry *config, size_t count);
struct json_t;
/* bw_kafka_configs_describe: a JSON object {name: {"value","default"}} for each of the topics, in their order; NULL where it failed. */
bw_err bw_kafka_configs_describe(bw_kbus *k, const char *const *topics, size_t count, struct json_t **out);

/* ---- groups.c ---- */
/* bw_kafka_group_committed: what a group has committed (of NULL: everything); the list is librdkafka's, to be destroyed. stable: a partition
 * whose offset goes with a transaction that is not ended yet has the error UNSTABLE_OFFSET_COMMIT. */
bw_err bw_kafka_group_committed(bw_kbus *k, const char *group, const rd_kafka_topic_partition_list_t *of, bool stable,
                                rd_kafka_topic_partition_list_t **out);
bw_err bw_kafka_groups_list(bw_bus *bus, char **json);
bw_err bw_kafka_group_describe(bw_bus *bus, const char *group, char **json);
bw_err bw_kafka_group_delete(bw_bus *bus, const char *group);
bw_err bw_kafka_group_offsets_alter(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count);
bw_err bw_kafka_group_offsets_delete(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count);

#endif
