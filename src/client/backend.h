/* client/backend.h: what stands behind a bus that is no Busway daemon: an Apache Kafka cluster.
 *
 * Such a bus has bus->backend, and its handles are ordinary structs with `foreign` set; what the daemon's code keeps in them stays empty.
 * Each public call looks once: after its arguments were checked, the bus not forked. The hot paths of direct producers and consumers
 * look in a branch that they take rarely anyway: a foreign producer has no `last` topic, a foreign consumer has a `group` that nobody reads.
 * What is not in the table goes through bw_bus_request or a connection, which refuse it by name (bw_backend_refuse). */
#ifndef BW_CLIENT_BACKEND_H
#define BW_CLIENT_BACKEND_H

#include "client/bus.h"
#include "client/cluster.h"

#include <busway/admin.h>
#include <busway/consumer.h>
#include <busway/group.h>
#include <busway/producer.h>
#include <busway/transaction.h>

typedef struct bw_backend {
    /* bus: options are copied, url parsed; the backend keeps its own in bus->foreign */
    bw_err (*bus_open)(bw_bus *bus, bw_deadline deadline);
    void (*bus_close)(bw_bus *bus);
    char *(*bus_stats)(bw_bus *bus);

    /* producer: the struct is there with its checked options; open fills p->foreign, close frees what open made */
    bw_err (*producer_open)(bw_producer *p);
    bw_err (*send)(bw_producer *p, const char *topic, int32_t partition, const bw_record *record, bw_delivery_fn callback, void *opaque,
                   int32_t timeout_ms);
    bw_err (*send_batch)(bw_producer *p, const char *topic, int32_t partition, const bw_record *records, size_t count, int32_t timeout_ms,
                         bw_delivery *out);
    bw_err (*send_many)(bw_producer *p, const char *topic, int32_t partition, const bw_record *records, size_t count, int32_t timeout_ms,
                        bw_placed *placed);
    int (*producer_poll)(bw_producer *p, int32_t timeout_ms);
    int (*producer_fd)(bw_producer *p);
    bw_err (*flush)(bw_producer *p, int32_t timeout_ms);
    bw_err (*producer_close)(bw_producer *p, int32_t timeout_ms);
    bw_err (*txn_init)(bw_producer *p, int32_t timeout_ms);
    bw_err (*txn_begin)(bw_producer *p);
    bw_err (*txn_send_offsets)(bw_producer *p, const bw_group_metadata *group, const bw_topic_partition *offsets, size_t count,
                               int32_t timeout_ms);
    bw_err (*txn_commit)(bw_producer *p, int32_t timeout_ms);
    bw_err (*txn_abort)(bw_producer *p, int32_t timeout_ms);

    /* consumer: likewise */
    bw_err (*consumer_open)(bw_consumer *c);
    void (*consumer_close)(bw_consumer *c);
    bw_err (*assign)(bw_consumer *c, const char *topic, int32_t partition, int64_t offset);
    bw_err (*unassign)(bw_consumer *c, const char *topic, int32_t partition);
    bw_err (*seek)(bw_consumer *c, const char *topic, int32_t partition, int64_t offset);
    bw_err (*seek_time)(bw_consumer *c, const char *topic, int32_t partition, int64_t timestamp_ms);
    bw_err (*position)(bw_consumer *c, const char *topic, int32_t partition, int64_t *offset);
    bw_err (*pause)(bw_consumer *c, const char *topic, int32_t partition, bool paused);
    bw_err (*subscribe)(bw_consumer *c, const char *const *topics, size_t count);
    bw_err (*unsubscribe)(bw_consumer *c);
    bw_err (*assignment)(bw_consumer *c, bw_topic_partition **parts, size_t *count);
    bw_err (*subscription)(bw_consumer *c, const char ***topics, size_t *count);
    bw_err (*commit)(bw_consumer *c, bw_topic_partition *parts, size_t count, int32_t timeout_ms);
    bw_err (*commit_async)(bw_consumer *c, const bw_topic_partition *parts, size_t count, bw_commit_fn callback, void *opaque);
    bw_err (*committed)(bw_consumer *c, bw_topic_partition *parts, size_t count, int32_t timeout_ms);
    bw_err (*group_metadata)(bw_consumer *c, bw_group_metadata *out);
    bw_err (*poll)(bw_consumer *c, int32_t timeout_ms, bw_batch *batch);
    int (*consumer_fd)(bw_consumer *c);
    void (*wake)(bw_consumer *c);

    /* administration */
    bw_err (*topic_create)(bw_bus *bus, const char *topic, int32_t partitions, const bw_config_entry *config, size_t count);
    bw_err (*topic_alter)(bw_bus *bus, const char *topic, int32_t partitions, const bw_config_entry *config, size_t count);
    bw_err (*topic_delete)(bw_bus *bus, const char *topic);
    bw_err (*topic_partitions)(bw_bus *bus, const char *topic, int32_t *count);
    bw_err (*topics_describe)(bw_bus *bus, const char *topic, char **json);
    bw_err (*delete_records)(bw_bus *bus, const char *topic, int32_t partition, int64_t before_offset, int64_t *log_start);
    bw_err (*offsets_range)(bw_bus *bus, const char *topic, int32_t partition, bw_offset_range *out);
    bw_err (*offset_for_time)(bw_bus *bus, const char *topic, int32_t partition, int64_t timestamp_ms, int64_t *offset, int64_t *found_ms);
    bw_err (*status)(bw_bus *bus, char **json);
    bw_err (*groups_list)(bw_bus *bus, char **json);
    bw_err (*group_describe)(bw_bus *bus, const char *group, char **json);
    bw_err (*group_delete)(bw_bus *bus, const char *group);
    bw_err (*group_offsets_alter)(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count);
    bw_err (*group_offsets_delete)(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count);

    /* links: all topics, malloc'd; the cluster's own name of itself */
    bw_err (*topics)(bw_bus *bus, bw_backend_topic **out, size_t *count);
    bw_err (*cluster_id)(bw_bus *bus, char *out, size_t size);
} bw_backend;

/* bw_kafka_backend: the table for kafka:// (kafka/backend.c). Without librdkafka at build time: bw_backend_kafka says so. */
extern const bw_backend bw_kafka_backend;
/* bw_backend_kafka: the backend of kafka:// URLs, ready for use. UNSUPPORTED names the package that is missing. */
bw_err bw_backend_kafka(const bw_backend **out);
/* bw_backend_refuse: UNSUPPORTED: what, and why a cluster can't do it. */
bw_err bw_backend_refuse(const char *what, const char *why);
/* bw_backend_refuse_request: the same for a request to a daemon that there is none of. */
bw_err bw_backend_refuse_request(uint16_t type);

/* In a public call: hand it to the bus's backend if there is one. */
#define BW_DISPATCH(bus, call)                                                                                                 \
    do {                                                                                                                       \
        if (__builtin_expect((bus)->backend != NULL, 0)) return (bus)->backend->call;                                          \
    } while (0)

#endif
