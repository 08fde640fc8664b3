/* client/cluster.h: what links ask of a bus that is a Kafka cluster, beside the public calls. */
#ifndef BW_CLIENT_CLUSTER_H
#define BW_CLIENT_CLUSTER_H

#include <busway/bus.h>

typedef struct bw_backend_topic {
    char name[BW_TOPIC_NAME_MAX + 1];
    int32_t partitions;
} bw_backend_topic;

/* bw_cluster_topics: all of them, malloc'd. UNSUPPORTED: the bus is no cluster. */
bw_err bw_cluster_topics(bw_bus *bus, bw_backend_topic **out, size_t *count);
/* bw_cluster_id: the cluster's own name of itself. UNSUPPORTED likewise, or it does not tell. */
bw_err bw_cluster_id(bw_bus *bus, char *out, size_t size);

#endif
