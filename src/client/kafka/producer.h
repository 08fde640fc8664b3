/* client/kafka/producer.h: a producer on a cluster, inside.
 *
 * librdkafka gives outcomes to whoever polls it. One thread polls at a time (`polling`), the others wait for `changed`; the callback that
 * librdkafka runs there (bw_kmsg_done) only files outcomes: of a synchronous call into its bw_kwait, others into `done`, whose
 * callbacks run in bw_producer_poll and bw_producer_flush with no lock held. `mutex` guards everything but rk. */
#ifndef BW_CLIENT_KAFKA_PRODUCER_H
#define BW_CLIENT_KAFKA_PRODUCER_H

#include "client/kafka/kafka.h"
#include "client/transaction.h"

#ifndef HASH_NONFATAL_OOM
#define HASH_NONFATAL_OOM 1
#endif
#include <uthash.h>

/* A topic that was asked for once; kept until the producer closes. */
typedef struct bw_ktopic {
    UT_hash_handle hh;
    rd_kafka_topic_t *rkt;
    _Atomic int32_t partitions; /* 0: ask again */
    char name[BW_TOPIC_NAME_MAX + 1];
} bw_ktopic;

/* What one synchronous call waits for. */
typedef struct bw_kwait {
    size_t left;
    bool abandoned; /* its caller has gone: the last outcome frees it */
    bw_err error; /* the first */
    char message[320];
    int32_t partition;
    int64_t offset, timestamp_ms; /* of the first record */
    bw_placed *placed; /* of each record; NULL: not asked for */
} bw_kwait;

/* One record between its send and its outcome. */
typedef struct bw_kmsg {
    struct bw_kmsg *next;
    struct bw_kproducer *producer;
    bw_ktopic *topic;
    bw_kwait *wait;      /* synchronous; NULL: asynchronous */
    size_t index;        /* in its batch */
    bw_delivery_fn callback;
    void *opaque;
    bw_err error;
    char *message;       /* malloc'd, or NULL */
    int32_t partition;
    int64_t offset, timestamp_ms;
} bw_kmsg;

typedef struct bw_kproducer {
    bw_producer *producer;
    bw_kbus *bus;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue; /* outcomes, once bw_producer_fd was called */
    int event_fd;            /* likewise; -1 */
    pthread_mutex_t mutex;
    pthread_cond_t changed; /* monotonic: outcomes came, or nobody polls any more */
    bool polling;
    bw_ktopic *topics;
    bw_kmsg *done, **done_tail;
    rd_kafka_topic_partition_list_t *offsets; /* that went with the last transaction, or go with the open one; of offsets_group */
    char *offsets_group;
    bool offsets_former; /* they went with the last one */
    uint64_t outstanding; /* records without an outcome, and outcomes without their callback */
} bw_kproducer;

/* bw_kproducer_serve: let librdkafka give outcomes, by this thread or by the one that is at it; until something came, at most until the
 * deadline. hurry: nothing lingers. mutex is held, and dropped meanwhile. */
void bw_kproducer_serve(bw_kproducer *p, bool hurry, bw_deadline deadline);
/* bw_kproducer_deliver: run the callbacks that are due; mutex is held, and dropped meanwhile. How many ran. */
int bw_kproducer_deliver(bw_kproducer *p);

/* ---- producer.c ---- */
bw_err bw_kafka_producer_open(bw_producer *p);
bw_err bw_kafka_producer_close(bw_producer *p, int32_t timeout_ms);
int bw_kafka_producer_poll(bw_producer *p, int32_t timeout_ms);
bw_err bw_kafka_flush(bw_producer *p, int32_t timeout_ms);
int bw_kafka_producer_fd(bw_producer *p);
/* ---- send.c ---- */
/* bw_kmsg_done: librdkafka's delivery callback. */
void bw_kmsg_done(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque);
bw_err bw_kafka_send(bw_producer *p, const char *topic, int32_t partition, const bw_record *record, bw_delivery_fn callback, void *opaque,
                     int32_t timeout_ms);
bw_err bw_kafka_send_batch(bw_producer *p, const char *topic, int32_t partition, const bw_record *records, size_t count, int32_t timeout_ms,
                           bw_delivery *out);
bw_err bw_kafka_send_many(bw_producer *p, const char *topic, int32_t partition, const bw_record *records, size_t count, int32_t timeout_ms,
                          bw_placed *placed);
/* ---- transaction.c ---- */
bw_err bw_kafka_txn_init(bw_producer *p, int32_t timeout_ms);
bw_err bw_kafka_txn_begin(bw_producer *p);
bw_err bw_kafka_txn_send_offsets(bw_producer *p, const bw_group_metadata *group, const bw_topic_partition *offsets, size_t count,
                                 int32_t timeout_ms);
bw_err bw_kafka_txn_commit(bw_producer *p, int32_t timeout_ms);
bw_err bw_kafka_txn_abort(bw_producer *p, int32_t timeout_ms);

#endif
