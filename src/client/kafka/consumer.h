/* client/kafka/consumer.h: a consumer on a cluster, inside.
 *
 * One librdkafka instance with all of its partitions' messages in one queue, which gives events: messages, rebalances, errors. They are taken
 * in the program's thread within bw_consumer_poll alone (poll.c); librdkafka's threads only write into `event_fd` when the queue got
 * something. A run of messages of one partition becomes one batch in `builder`; what ends the run is `held` until the next poll.
 *
 * Positions are kept here: librdkafka is always told where to start, and a message that is not the next of its partition (an older
 * fetch's, from before a seek) is dropped. A partition whose message was dropped though it is the next (paused) must `restart`.
 * A consumer without a group is one of group "busway" to librdkafka, which needs a name; nothing is ever committed under it.
 * Threads: everything belongs to the one that uses the consumer, but `woken` and event_fd. */
#ifndef BW_CLIENT_KAFKA_CONSUMER_H
#define BW_CLIENT_KAFKA_CONSUMER_H

#include "client/consumer_group.h"
#include "client/kafka/kafka.h"
#include "format/record_batch.h"

#ifndef HASH_NONFATAL_OOM
#define HASH_NONFATAL_OOM 1
#endif
#include <uthash.h>

enum { BW_KPART_KEY_MAX = BW_TOPIC_NAME_MAX + 1 + sizeof(int32_t) };

typedef struct bw_kpart {
    UT_hash_handle hh; /* in the order of their coming */
    int64_t position;  /* of the next record to be given; BW_OFFSET_INVALID: librdkafka finds it */
    int32_t partition;
    bool live;    /* librdkafka has it */
    bool paused;
    bool stopped; /* an error was told; until a seek */
    bool restart; /* what librdkafka has is not what comes next */
    bool untold;  /* nothing is committed and auto_offset_reset is error: to be told */
    uint32_t key_len;
    char topic[BW_KPART_KEY_MAX]; /* name, NUL, the partition's bytes: the hash's key */
} bw_kpart;

/* An asynchronous commit on its way. */
typedef struct bw_kcommit {
    bw_commit_fn callback;
    void *opaque;
} bw_kcommit;

typedef struct bw_kconsumer {
    bw_consumer *consumer;
    bw_kbus *bus;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    rd_kafka_queue_t *answers; /* of asynchronous commits */
    int event_fd;
    _Atomic int woken;
    bw_kpart *parts;
    bw_kpart *given;  /* of the batch given last: its position is to be stored */
    rd_kafka_event_t *held;
    const rd_kafka_message_t *held_message; /* NULL: held is no message */
    bw_batch_builder builder;
    char *group, *instance; /* NULL: none */
    char **topics;          /* subscribed to, as given; NULL: not subscribed */
    size_t topic_count;
    bool auto_commit, calling, closing;
    uint32_t commits; /* asynchronous ones without an outcome */
    bw_err lost;      /* everything was lost: for the next poll */
    char lost_topic[BW_TOPIC_NAME_MAX + 1];
    int32_t lost_partition;
    char **fetched; /* metadata of bw_consumer_committed */
    size_t fetched_count;
    char *member; /* for bw_group_metadata */
} bw_kconsumer;

static inline bw_kconsumer *bw_kconsumer_of(const bw_consumer *c) { return c->foreign; }

/* ---- consumer.c ---- */
bw_err bw_kafka_consumer_open(bw_consumer *c);
void bw_kafka_consumer_close(bw_consumer *c);
int bw_kafka_consumer_fd(bw_consumer *c);
void bw_kafka_wake(bw_consumer *c);
bw_kpart *bw_kpart_find(const bw_kconsumer *k, const char *topic, int32_t partition);
bw_kpart *bw_kpart_add(bw_kconsumer *k, const char *topic, int32_t partition); /* NULL: no memory */
void bw_kpart_remove(bw_kconsumer *k, bw_kpart *p);
/* bw_kpart_list: one, or with p NULL all that have a position (positions) or all. */
rd_kafka_topic_partition_list_t *bw_kpart_list(const bw_kconsumer *k, const bw_kpart *p, bool positions);
/* bw_kpart_restart: librdkafka begins anew at the position. */
bw_err bw_kpart_restart(bw_kconsumer *k, bw_kpart *p);
/* bw_kconsumer_drop: what was held back comes again by a restart. p NULL: whatever it is. */
void bw_kconsumer_drop(bw_kconsumer *k, const bw_kpart *p);
/* bw_kconsumer_check_call: inside a callback of the same consumer? */
bw_err bw_kconsumer_check_call(const bw_kconsumer *k, const char *what);
/* ---- assign.c ---- */
bw_err bw_kafka_assign(bw_consumer *c, const char *topic, int32_t partition, int64_t offset);
bw_err bw_kafka_unassign(bw_consumer *c, const char *topic, int32_t partition);
bw_err bw_kafka_seek(bw_consumer *c, const char *topic, int32_t partition, int64_t offset);
bw_err bw_kafka_seek_time(bw_consumer *c, const char *topic, int32_t partition, int64_t timestamp_ms);
bw_err bw_kafka_position(bw_consumer *c, const char *topic, int32_t partition, int64_t *offset);
bw_err bw_kafka_pause(bw_consumer *c, const char *topic, int32_t partition, bool paused);
bw_err bw_kafka_assignment(bw_consumer *c, bw_topic_partition **parts, size_t *count);
/* ---- poll.c ---- */
bw_err bw_kafka_poll(bw_consumer *c, int32_t timeout_ms, bw_batch *batch);
/* ---- group.c ---- */
bw_err bw_kafka_subscribe(bw_consumer *c, const char *const *topics, size_t count);
bw_err bw_kafka_unsubscribe(bw_consumer *c);
bw_err bw_kafka_subscription(bw_consumer *c, const char ***topics, size_t *count);
bw_err bw_kafka_group_metadata(bw_consumer *c, bw_group_metadata *out);
/* bw_kgroup_rebalance: an event of librdkafka's; the program's callback runs. */
void bw_kgroup_rebalance(bw_kconsumer *k, rd_kafka_event_t *event);
/* bw_kgroup_store: positions for librdkafka's commits by interval: of the batch given last, or (all) of every partition. */
void bw_kgroup_store(bw_kconsumer *k, bool all);
/* bw_kgroup_leave: REVOKED is told, commits are waited for. */
void bw_kgroup_leave(bw_kconsumer *k, bw_deadline deadline);
/* ---- commit.c ---- */
bw_err bw_kafka_commit(bw_consumer *c, bw_topic_partition *parts, size_t count, int32_t timeout_ms);
bw_err bw_kafka_commit_async(bw_consumer *c, const bw_topic_partition *parts, size_t count, bw_commit_fn callback, void *opaque);
bw_err bw_kafka_committed(bw_consumer *c, bw_topic_partition *parts, size_t count, int32_t timeout_ms);
/* bw_kcommits_serve: callbacks of commits that were answered; waits for all of them until the deadline (0: not). */
void bw_kcommits_serve(bw_kconsumer *k, bw_deadline deadline);

#endif
