/* link/kafka.h: a Kafka cluster as the end of a link, through the client's kafka:// (busway/bus.h).
 *
 * As a sink (kafka_sink.c) each step is one transaction: the records, and with them, as offsets that a group of the link's own has committed
 * for the target's partitions, how far the source was read. Whoever dies at whatever time: the next one's bw_transactions_init ends what was
 * left open, and what the group has committed then is exactly what the cluster has (kafka_position.c). A group's offsets expire when nothing
 * was sent for a week; then the last record's mark (header busway.origin, broker/vector.h) says where to go on.
 * As a source (kafka_source.c): committed records, as batches at the cluster's offsets; how far the sink has come only the sink knows.
 * Everything happens in the link's thread within wait and dispatch; answers are handed out there alone. */
#ifndef BW_LINK_KAFKA_H
#define BW_LINK_KAFKA_H

#include "base/bytes.h"
#include "client/cluster.h"
#include "format/record_batch.h"
#include "link/endpoint.h"
#include "link/spec.h"

#include <busway/admin.h>
#include <busway/consumer.h>
#include <busway/producer.h>
#include <busway/transaction.h>

#include <uthash.h>

#define BW_KEND_LINK_HEADER "busway.link"
enum { BW_KEND_HEADERS_MAX = 4096 }; /* of a record that goes up or down */

typedef struct bw_kend_key {
    char topic[BW_TOPIC_NAME_MAX + 1]; /* zeroed behind the name's end */
    int32_t partition;
} bw_kend_key;

/* A partition of the cluster's. */
typedef struct bw_kend_part {
    UT_hash_handle hh;
    bw_kend_key key;
    int64_t next;      /* sink: of the source, when the open transaction is committed; source: what was given */
    int64_t committed; /* sink: what the group has */
    bw_uuid id;        /* sink: the source's topic */
    int64_t log_start, end, end_ns; /* source: as last asked */
    bw_err failed;     /* sink: a record of it was refused in the open transaction; source: to be told */
    char message[200];
    bool not_hashed;   /* no memory to register it */
} bw_kend_part;

/* A fetch or an append under way, in the order of the calls. */
typedef struct bw_kend_transfer {
    struct bw_kend_transfer *next;
    bw_transfer *t;
    bw_chunk chunk; /* append: pieces are ours */
    uint32_t max_bytes;
    bw_deadline until;
} bw_kend_transfer;

typedef struct bw_kend {
    bw_endpoint base; /* first */
    char *url;        /* with the options of the link */
    bw_bus *bus;      /* NULL: not connected */
    bw_consumer *consumer;
    bw_producer *producer;
    bw_origin self, other;
    bw_kend_part *parts;
    bw_kend_transfer *transfers, **tail;
    bool lost;           /* an answer said so: is_up is false */
    char group[BW_GROUP_ID_MAX + 1];
    bw_buf plain, records; /* the sink's payload, a batch's records */
    bool open;           /* sink: a transaction */
    bw_buf payload;      /* the source's chunk */
    bw_batch_builder builder;
    bw_piece *pieces;    /* likewise */
    size_t piece_count, piece_cap;
    uint64_t topics_seen; /* hash of the topics' names, for `changed` */
    bw_deadline look_at;
} bw_kend;

static inline bw_kend *bw_kend_of(bw_endpoint *ep) { return (bw_kend *)(void *)ep; }

/* bw_endpoint_open_kafka: of the spec's URL; nothing is connected yet. NO_MEMORY. */
bw_err bw_endpoint_open_kafka(const bw_link_spec *spec, bw_endpoint **out);

/* ---- kafka_end.c ---- */
bw_kend_part *bw_kend_part_of(bw_kend *k, const char *topic, int32_t partition, bool make);
/* bw_kend_submit: a transfer joins those under way. */
bw_err bw_kend_submit(bw_kend *k, bw_transfer *t, bw_kend_transfer **out);
/* bw_kend_finish: the first one is told, and freed. */
void bw_kend_finish(bw_kend *k, bw_err e, const bw_chunk *chunk);
/* bw_kend_topic_id: the cluster tells none: one that stays the same for a cluster's topic. */
bw_uuid bw_kend_topic_id(const bw_kend *k, const char *topic);
/* bw_kend_left_ms: of a deadline: 1 to 60000. */
int32_t bw_kend_left_ms(bw_deadline deadline);
/* ---- kafka_topics.c ---- */
bw_err bw_kend_list(bw_endpoint *ep, bw_source_topic **out, size_t *count, bw_deadline deadline);
bw_err bw_kend_configs(bw_endpoint *ep, const char *topic, bw_config_pair **out, size_t *count, bw_deadline deadline);
/* bw_kend_topics_changed: since they were listed; looks now and then. */
bool bw_kend_topics_changed(bw_kend *k);
/* bw_kend_make_target: the topic of that name, with at least as many partitions; made when it is not there. */
bw_err bw_kend_make_target(bw_kend *k, const char *target, int32_t partitions, const bw_config_pair *configs, size_t count);
/* ---- kafka_position.c ---- */
bw_err bw_kend_prepare(bw_endpoint *ep, const char *target, const bw_source_topic *from, const bw_origin *origin, const bw_config_pair *configs,
                       size_t config_count, bw_sink_part **parts, bw_deadline deadline);
/* ---- kafka_sink.c ---- */
bw_err bw_kend_start_sink(bw_kend *k, bw_deadline deadline);
bw_err bw_kend_append(bw_endpoint *ep, const bw_chunk *chunk, bw_transfer *t);
/* bw_kend_commit: what was appended; the transfers are told. */
void bw_kend_commit(bw_kend *k);
/* ---- kafka_source.c ---- */
bw_err bw_kend_begin(bw_endpoint *ep, const bw_piece *pieces, size_t count);
bw_err bw_kend_fetch(bw_endpoint *ep, bw_transfer *t, uint32_t max_bytes, int32_t max_wait_ms);
/* bw_kend_give: chunks for the fetches under way, as far as there are records; true: one was told. */
bool bw_kend_give(bw_kend *k);

#endif
