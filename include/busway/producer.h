/* busway/producer.h: append records to topics.
 *
 * Two ways to send:
 *   - asynchronous: bw_producer_send copies the record, returns at once, and the outcome reaches the delivery callback inside
 *     bw_producer_poll or bw_producer_flush. Batching by batch.size and linger.ms; the library's one thread sends.
 *   - synchronous: bw_producer_send_sync, _send_batch and _send_many return the outcome; no thread, nothing buffered. On the
 *     direct path that is a store into the mapped log.
 * Order: records of one partition sent through one producer from one thread keep their order, across both ways as long as the
 * caller flushes between them.
 *
 * What an acknowledgement means (acks): none: handed over; visible: in the page cache, every reader sees it, survives the death
 * of any process; durable: on the disk, survives power loss; replicated: as many linked peers as the topic asks for (replicas) have
 * acknowledged it: with replicas.acks=durable, the default, it is on the disk here and on theirs; with visible, in their page caches and in
 * the one here: it survives the loss of this host when a peer is promoted, not a power cut of all of them at once. Such sends go through the
 * daemon; when the time is over first the error is TIMED_OUT, and the record is there and may become replicated later.
 *
 * Threads: a producer may be used from any thread; delivery callbacks run in the thread that polls or flushes. */
#ifndef BUSWAY_PRODUCER_H
#define BUSWAY_PRODUCER_H

#include <busway/bus.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bw_producer bw_producer;

typedef enum bw_acks { BW_ACKS_NONE = 0, BW_ACKS_VISIBLE = 1, BW_ACKS_DURABLE = 2, BW_ACKS_REPLICATED = 3 } bw_acks;

typedef struct bw_producer_options {
    size_t size;               /* sizeof(bw_producer_options) */
    bw_acks acks;              /* default visible */
    uint32_t batch_size;       /* bytes; default 16384 (batch.size) */
    uint32_t linger_ms;        /* default 0 (linger.ms) */
    uint64_t buffer_memory;    /* bytes of records not yet acknowledged; default 32 MiB (buffer.memory) */
    int32_t delivery_timeout_ms; /* default 120000 (delivery.timeout.ms) */
    bw_codec compression;      /* default none; the topic's compression.type overrides unless it is "producer" */
    const char *name;          /* stable producer name (bw_producer_last_sequence); NULL: none */
    bool enable_idempotence;   /* default true: what is sent again after a lost answer is in the log once (enable.idempotence). It decides
                                  no path: direct appends have it anyway */
    const char *transactional_id; /* NULL: none; else see busway/transaction.h: all sends go through the daemon (transactional.id) */
    int32_t transaction_timeout_ms; /* default 60000, at most the daemon's 900000 (transaction.timeout.ms) */
} bw_producer_options;

#define BW_PRODUCER_OPTIONS_INIT                                                                                               \
    {sizeof(bw_producer_options), BW_ACKS_VISIBLE, 16384, 0, UINT64_C(33554432), 120000, BW_CODEC_NONE, NULL, true, NULL, 60000}

/* The outcome of one record (or of a batch: offset is the first, count how many). */
typedef struct bw_delivery {
    bw_err error;
    int32_t partition;
    int64_t offset;       /* -1 with acks none or on error */
    int64_t timestamp_ms; /* as stored */
    int32_t count;
    const char *topic;   /* valid during the callback, or as long as the producer for the synchronous calls */
    const char *message; /* text of the error, or NULL; valid likewise until the thread's next call */
} bw_delivery;

typedef void (*bw_delivery_fn)(void *opaque, const bw_delivery *delivery);

/* bw_producer_open: options NULL: the defaults. Errors: INVALID_ARGUMENT, NO_MEMORY, NOT_CONNECTED. */
BW_API bw_err bw_producer_open(bw_bus *bus, const bw_producer_options *options, bw_producer **out);

/* bw_producer_send: asynchronous. partition BW_PARTITION_ANY: murmur2 of the key as Kafka's Java client does it; without a
 * key, sticky per batch. Waits at most timeout_ms (-1: for ever, 0: not at all) for buffer.memory.
 * callback may be NULL. Errors at once: QUEUE_FULL (retriable), RECORD_TOO_LARGE, UNKNOWN_TOPIC, INVALID_TOPIC,
 * UNKNOWN_PARTITION, NOT_PERMITTED, CLOSED, FORKED. Everything later comes through the callback, exactly once. */
BW_API bw_err bw_producer_send(bw_producer *producer, const char *topic, int32_t partition, const bw_record *record,
                               bw_delivery_fn callback, void *opaque, int32_t timeout_ms);

/* bw_producer_send_sync: append one record and return its outcome in *out (may be NULL). */
BW_API bw_err bw_producer_send_sync(bw_producer *producer, const char *topic, int32_t partition, const bw_record *record,
                                    int32_t timeout_ms, bw_delivery *out);

/* bw_producer_send_batch: append count records as one batch, whole or not at all, to one partition (partition must be given
 * when count > 1). Errors: RECORD_TOO_LARGE when the batch exceeds max.message.bytes. */
BW_API bw_err bw_producer_send_batch(bw_producer *producer, const char *topic, int32_t partition, const bw_record *records,
                                     size_t count, int32_t timeout_ms, bw_delivery *out);

/* bw_producer_send_now: as bw_producer_send_batch when that has to wait for nothing at all: on the direct path, to a topic and partition
 * that this producer has sent to before, with acks none or visible, and room there. BW_ERR_BUSY: it would have to wait; nothing was done
 * (bw_producer_send_batch then). For callers that have something to give up before they wait, as an interpreter's lock. Since 0.2. */
BW_API bw_err bw_producer_send_now(bw_producer *producer, const char *topic, int32_t partition, const bw_record *records,
                                   size_t count, bw_delivery *out);

/* What became of one record of bw_producer_send_many. */
typedef struct bw_placed {
    int64_t offset;    /* -1 with acks none, or when it was not appended */
    int32_t partition; /* -1 when it was not appended */
    bw_err error;
} bw_placed;

/* bw_producer_send_many: append any number of records of one topic, each to the partition given or, with BW_PARTITION_ANY, to the one
 * that bw_producer_send would choose; synchronous, in as few batches as batch.size allows, in the order given within each partition.
 * placed: NULL, or count of them to be filled in. timeout_ms bounds the whole call. The first error ends it: what was appended before
 * it stays (placed says which); records that were not tried have TIMED_OUT's, or that error. Memory: 128 KiB of the heap for several
 * partitions. Errors as bw_producer_send_batch. Since 0.2. */
BW_API bw_err bw_producer_send_many(bw_producer *producer, const char *topic, int32_t partition, const bw_record *records, size_t count,
                                    int32_t timeout_ms, bw_placed *placed);

/* A record written in place. Only value may be written, up to value_max bytes. */
typedef struct bw_reservation {
    uint8_t *value;
    size_t value_max;
    void *internal;
} bw_reservation;

/* bw_producer_reserve: take the partition's lock, record the intent and return a pointer into the log (direct), or into a
 * buffer (ipc). key, headers and timestamp are those of `meta` (its value is ignored; NULL: none). The same thread must
 * commit or abort, soon: other writers of the partition wait and time out with LOCK_HELD naming this process. */
BW_API bw_err bw_producer_reserve(bw_producer *producer, const char *topic, int32_t partition, const bw_record *meta,
                                  size_t value_max, int32_t timeout_ms, bw_reservation *out);
/* bw_producer_commit: the first value_len bytes become the record's value. */
BW_API bw_err bw_producer_commit(bw_producer *producer, bw_reservation *reservation, size_t value_len, int32_t timeout_ms,
                                 bw_delivery *out);
/* bw_producer_abort: nothing was written. */
BW_API void bw_producer_abort(bw_producer *producer, bw_reservation *reservation);

/* bw_producer_poll: run delivery callbacks in this thread; waits at most timeout_ms for the first. Returns how many ran. */
BW_API int bw_producer_poll(bw_producer *producer, int32_t timeout_ms);
/* bw_producer_fd: a descriptor for event loops that polls readable when bw_producer_poll(…, 0) may have callbacks to run; poll until it
 * returns 0. The producer owns it. -1 and the message on error. Since 0.2. */
BW_API int bw_producer_fd(bw_producer *producer);
/* bw_producer_flush: send what is buffered, run callbacks until nothing is outstanding. TIMED_OUT: some still are. */
BW_API bw_err bw_producer_flush(bw_producer *producer, int32_t timeout_ms);
/* bw_producer_close: flush (bounded by timeout_ms), then free, always. What could not be delivered in time gets its callback
 * with TIMED_OUT, and the call returns TIMED_OUT. NULL is allowed. */
BW_API bw_err bw_producer_close(bw_producer *producer, int32_t timeout_ms);

#ifdef __cplusplus
}
#endif
#endif
