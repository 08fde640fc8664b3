/* busway/consumer.h: read records of assigned partitions.
 *
 * A poll gives one batch at a time: a run of records of one partition, in order. On the direct path an uncompressed batch is a
 * view into the mapped log: nothing is copied. Its memory, and every pointer of its records, is valid until the next
 * bw_consumer_poll, bw_consumer_seek, bw_consumer_assign/unassign or bw_consumer_close of that consumer, whichever is first.
 *
 * Threads: one thread at a time uses a consumer; bw_consumer_wake may be called from any. */
#ifndef BUSWAY_CONSUMER_H
#define BUSWAY_CONSUMER_H

#include <busway/bus.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bw_consumer bw_consumer;

typedef enum bw_read_limit { BW_READ_VISIBLE = 0, BW_READ_DURABLE = 1 } bw_read_limit;

typedef enum bw_offset_reset { BW_RESET_ERROR = 0, BW_RESET_EARLIEST = 1, BW_RESET_LATEST = 2 } bw_offset_reset;

typedef struct bw_consumer_options {
    size_t size;              /* sizeof(bw_consumer_options) */
    bw_read_limit read_limit; /* default visible (read.limit) */
    bw_offset_reset auto_offset_reset; /* when the position is outside the log; default error: OFFSET_OUT_OF_RANGE + range */
    bool check_crcs;          /* default true (check.crcs) */
    uint32_t fetch_max_bytes; /* ipc: bytes in flight per partition; default 1 MiB (max.partition.fetch.bytes) */
} bw_consumer_options;

#define BW_CONSUMER_OPTIONS_INIT {sizeof(bw_consumer_options), BW_READ_VISIBLE, BW_RESET_ERROR, true, 1048576}

/* One batch of records of one partition. The iterator fields are the library's; iterate with bw_batch_next. */
typedef struct bw_batch {
    const char *topic; /* valid as long as the assignment */
    int32_t partition;
    int32_t leader_epoch;
    int64_t base_offset;
    int64_t last_offset;
    int32_t count;     /* records in the batch, including those before the position that iteration skips */
    bw_timestamp_type timestamp_type;
    int64_t base_timestamp_ms;
    int64_t max_timestamp_ms;
    const uint8_t *it_at; /* private from here on */
    const uint8_t *it_end;
    int64_t it_from;      /* the position: records before it are skipped */
    int32_t it_left;
} bw_batch;

/* bw_consumer_open: options NULL: the defaults. */
BW_API bw_err bw_consumer_open(bw_bus *bus, const bw_consumer_options *options, bw_consumer **out);
/* bw_consumer_close: NULL is allowed. */
BW_API void bw_consumer_close(bw_consumer *consumer);

/* bw_consumer_assign: add a partition, from an offset or BW_OFFSET_BEGINNING/END. partition BW_PARTITION_ANY: all of the topic.
 * Errors: UNKNOWN_TOPIC, UNKNOWN_PARTITION, NOT_PERMITTED. */
BW_API bw_err bw_consumer_assign(bw_consumer *consumer, const char *topic, int32_t partition, int64_t offset);
BW_API bw_err bw_consumer_unassign(bw_consumer *consumer, const char *topic, int32_t partition);
/* bw_consumer_seek: the next poll of that partition starts at offset (or BEGINNING/END). */
BW_API bw_err bw_consumer_seek(bw_consumer *consumer, const char *topic, int32_t partition, int64_t offset);
/* bw_consumer_seek_time: to the first record whose timestamp is >= timestamp_ms; to the end when there is none. */
BW_API bw_err bw_consumer_seek_time(bw_consumer *consumer, const char *topic, int32_t partition, int64_t timestamp_ms);
/* bw_consumer_position: the offset of the next record that a poll would give. */
BW_API bw_err bw_consumer_position(bw_consumer *consumer, const char *topic, int32_t partition, int64_t *offset);
/* bw_consumer_pause / resume: a paused partition gives nothing and keeps its position. */
BW_API bw_err bw_consumer_pause(bw_consumer *consumer, const char *topic, int32_t partition);
BW_API bw_err bw_consumer_resume(bw_consumer *consumer, const char *topic, int32_t partition);

/* bw_consumer_poll: the next batch of any assigned partition. timeout_ms 0: do not wait; -1: for ever.
 * Returns BW_OK with *batch filled; TIMED_OUT when there was nothing; WOKEN after bw_consumer_wake;
 * OFFSET_OUT_OF_RANGE (the range in the message; the partition is paused until seek), CORRUPT, DELETED, FORKED, NOT_CONNECTED:
 * batch->topic and batch->partition then name the partition. */
BW_API bw_err bw_consumer_poll(bw_consumer *consumer, int32_t timeout_ms, bw_batch *batch);
/* bw_batch_next: the next record of the batch at or after the position: 1 and *record filled, 0 at the end, -1: corrupt. */
BW_API int bw_batch_next(bw_batch *batch, bw_record_view *record);

/* bw_consumer_fd: a descriptor that polls readable when bw_consumer_poll(…, 0) may give something. The consumer owns it.
 * After it was readable call bw_consumer_poll with 0 until TIMED_OUT, then wait again. Starts one thread a process on the
 * direct path. -1 and the message on error. */
BW_API int bw_consumer_fd(bw_consumer *consumer);
/* bw_consumer_wake: make a poll that waits now, or the next one, return WOKEN. Any thread; async-signal-safe. */
BW_API void bw_consumer_wake(bw_consumer *consumer);

#ifdef __cplusplus
}
#endif
#endif
