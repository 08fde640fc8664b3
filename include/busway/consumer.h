/* busway/consumer.h: read records: of partitions that the program chose (assign), or of those that its group gives it (subscribe).
 *
 * A poll gives one batch at a time: a run of records of one partition, in order. On the direct path an uncompressed batch is a
 * view into the mapped log: nothing is copied. Its memory, and every pointer of its records, is valid until the next
 * bw_consumer_poll, bw_consumer_seek, bw_consumer_assign/unassign, bw_consumer_unsubscribe or bw_consumer_close of that consumer,
 * whichever is first.
 *
 * Groups. Consumers with the same group_id divide the partitions of what they subscribe to among them; the daemon assigns. A member
 * keeps reading what it keeps while others come and go. Everything of the group happens inside bw_consumer_poll: joining, leases,
 * commits by interval, callbacks. A member whose process is killed loses its partitions to the others within milliseconds; one that
 * does not poll for longer than its lease (max_poll_interval_ms) is fenced: its commits fail with FENCED_MEMBER_EPOCH, and so does, once,
 * its next poll, before it gives any record. Without a daemon members go on reading what they hold (direct path), and join again by
 * themselves when it is back; what was to be committed meanwhile is committed then.
 *
 * Threads: one thread at a time uses a consumer; bw_consumer_wake may be called from any. */
#ifndef BUSWAY_CONSUMER_H
#define BUSWAY_CONSUMER_H

#include <busway/bus.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bw_consumer bw_consumer;

/* What a reader may see: all that is there; what is on the disk; what as many linked peers have as the topic asks for (replicas). A topic's
 * read.limit is the least that its readers get, whatever they ask for. */
typedef enum bw_read_limit { BW_READ_VISIBLE = 0, BW_READ_DURABLE = 1, BW_READ_REPLICATED = 2 } bw_read_limit;

typedef enum bw_offset_reset { BW_RESET_ERROR = 0, BW_RESET_EARLIEST = 1, BW_RESET_LATEST = 2 } bw_offset_reset;

/* What of transactions may be seen (isolation.level). */
typedef enum bw_isolation {
    BW_READ_UNCOMMITTED = 0, /* everything */
    BW_READ_COMMITTED = 1,   /* nothing of open or aborted ones; reading stops in front of the first that is open */
} bw_isolation;

/* A partition and what belongs to it: an offset to commit, that was committed, or where reading starts. */
typedef struct bw_topic_partition {
    const char *topic;
    int32_t partition;
    int64_t offset;       /* of the next record to read; BW_OFFSET_INVALID: none */
    int32_t leader_epoch; /* of the last record before it; -1: not known */
    const char *metadata; /* kept with a committed offset, for people; may be NULL */
    bw_err error;         /* results: the outcome for this partition */
} bw_topic_partition;

typedef enum bw_rebalance {
    BW_REBALANCE_ASSIGNED = 0, /* more to read, from the offset given; the callback may seek */
    BW_REBALANCE_REVOKED = 1,  /* to be given up when the callback returns; it may commit. Nobody else has them yet */
    BW_REBALANCE_LOST = 2,     /* gone, somebody else may have them: nothing can be committed */
} bw_rebalance;

/* Runs inside bw_consumer_poll, _unsubscribe or _close, in their thread. `parts` is valid during the call. It may call everything of the
 * consumer but these three, bw_consumer_subscribe, _assign and _unassign (INVALID_ARGUMENT). */
typedef void (*bw_rebalance_fn)(bw_consumer *consumer, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque);
/* The outcome of bw_consumer_commit_async; error's text is in bw_error_message(). Runs inside bw_consumer_poll, _commit, _unsubscribe or
 * _close, in the order of the commits; may call what a bw_rebalance_fn may. */
typedef void (*bw_commit_fn)(bw_consumer *consumer, bw_err error, const bw_topic_partition *parts, size_t count, void *opaque);

typedef struct bw_consumer_options {
    size_t size;              /* sizeof(bw_consumer_options) */
    bw_read_limit read_limit; /* default visible (read.limit) */
    bw_offset_reset auto_offset_reset; /* when the position is outside the log; default error: OFFSET_OUT_OF_RANGE + range */
    bool check_crcs;          /* default true (check.crcs) */
    uint32_t fetch_max_bytes; /* ipc: bytes in flight per partition; default 1 MiB (max.partition.fetch.bytes) */
    bw_isolation isolation;   /* default uncommitted (isolation.level) */
    /* groups; strings are copied */
    const char *group_id;          /* NULL: none, and nothing below counts (group.id) */
    const char *group_instance_id; /* NULL: dynamic. A static member keeps its partitions while it is away for less than the session
                                    * time-out (group.instance.id) */
    bool enable_auto_commit;          /* default true (enable.auto.commit) */
    int32_t auto_commit_interval_ms;  /* default 5000 (auto.commit.interval.ms) */
    const char *assignor;             /* "range", "roundrobin", "sticky", "cooperative-sticky"; NULL: the group's own, or the last of them
                                       * (partition.assignment.strategy) */
    int32_t session_timeout_ms;       /* how long a static member may be away; default 45000 (session.timeout.ms) */
    int32_t max_poll_interval_ms;     /* between two polls at most; default 300000 (max.poll.interval.ms) */
    int32_t rebalance_timeout_ms;     /* to give up what was revoked; default 60000 */
    bool commit_durable;              /* a commit waits until the records before it and then itself are on the disk; default false */
    bw_rebalance_fn on_rebalance;     /* default NULL */
    void *rebalance_opaque;
} bw_consumer_options;

#define BW_CONSUMER_OPTIONS_INIT                                                                                               \
    {sizeof(bw_consumer_options), BW_READ_VISIBLE, BW_RESET_ERROR, true, 1048576, BW_READ_UNCOMMITTED, NULL, NULL, true, 5000, \
     NULL, 45000, 300000, 60000, false, NULL, NULL}

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

/* bw_consumer_open: options NULL: the defaults. INVALID_ARGUMENT, INVALID_GROUP_ID, UNSUPPORTED_ASSIGNOR, NO_MEMORY. */
BW_API bw_err bw_consumer_open(bw_bus *bus, const bw_consumer_options *options, bw_consumer **out);
/* bw_consumer_close: NULL is allowed. A member commits its positions (enable_auto_commit), tells REVOKED, waits for its commits and leaves
 * its group, a static one without saying so; all within two seconds. */
BW_API void bw_consumer_close(bw_consumer *consumer);

/* bw_consumer_assign: add a partition, from an offset or BW_OFFSET_BEGINNING/END. partition BW_PARTITION_ANY: all of the topic.
 * Assigning by hand and subscribing exclude each other. With a group_id positions can be committed, without membership.
 * Errors: UNKNOWN_TOPIC, UNKNOWN_PARTITION, NOT_PERMITTED, INVALID_ARGUMENT (subscribed: unsubscribe first). */
BW_API bw_err bw_consumer_assign(bw_consumer *consumer, const char *topic, int32_t partition, int64_t offset);
BW_API bw_err bw_consumer_unassign(bw_consumer *consumer, const char *topic, int32_t partition);
/* bw_consumer_seek: the next poll of that partition starts at offset (or BEGINNING/END). */
BW_API bw_err bw_consumer_seek(bw_consumer *consumer, const char *topic, int32_t partition, int64_t offset);
/* bw_consumer_seek_time: to the first record whose timestamp is >= timestamp_ms; to the end when there is none. */
BW_API bw_err bw_consumer_seek_time(bw_consumer *consumer, const char *topic, int32_t partition, int64_t timestamp_ms);
/* bw_consumer_position: the offset of the next record that a poll would give. */
BW_API bw_err bw_consumer_position(bw_consumer *consumer, const char *topic, int32_t partition, int64_t *offset);
/* bw_consumer_pause / resume: a paused partition gives nothing and keeps its position, also over a rebalance in which it stays; one that
 * was revoked or lost and comes back is not paused. */
BW_API bw_err bw_consumer_pause(bw_consumer *consumer, const char *topic, int32_t partition);
BW_API bw_err bw_consumer_resume(bw_consumer *consumer, const char *topic, int32_t partition);

/* bw_consumer_subscribe: be a member of the group for these topics, instead of those subscribed to before; takes effect in the next poll.
 * A name that begins with '^' is a POSIX extended regular expression, matched against whole names; topics that come later count, too.
 * Errors: INVALID_ARGUMENT (no group_id; partitions are assigned by hand: unassign them; a bad expression), INVALID_TOPIC, NO_MEMORY. */
BW_API bw_err bw_consumer_subscribe(bw_consumer *consumer, const char *const *topics, size_t count);
/* bw_consumer_unsubscribe: what bw_consumer_close does for a member, and the consumer may subscribe or assign anew. NOT_SUBSCRIBED;
 * INVALID_ARGUMENT: there is no group_id. */
BW_API bw_err bw_consumer_unsubscribe(bw_consumer *consumer);
/* bw_consumer_assignment: the partitions it reads, offset: the position. One block of memory; free it with bw_free. NO_MEMORY. */
BW_API bw_err bw_consumer_assignment(bw_consumer *consumer, bw_topic_partition **parts, size_t *count);
/* bw_consumer_subscription: what it is subscribed to, as it was given. One block of memory; free it with bw_free. NO_MEMORY. */
BW_API bw_err bw_consumer_subscription(bw_consumer *consumer, const char ***topics, size_t *count);

/* bw_consumer_commit: commit these offsets, or (parts NULL) the positions of all partitions, in the group; waits for the outcome, at most
 * timeout_ms (-1: for ever). On BW_OK the commit survives the death of any process, and with commit_durable the loss of power.
 * parts[i].error is the outcome of each. Errors: TIMED_OUT (the outcome is not known), FENCED_MEMBER_EPOCH, UNKNOWN_MEMBER_ID,
 * INVALID_COMMIT_OFFSET, LOG_INCARNATION_MISMATCH, OFFSET_METADATA_TOO_LARGE, UNKNOWN_TOPIC, UNKNOWN_PARTITION, INVALID_ARGUMENT (no
 * group_id): the first of a partition when several differ. */
BW_API bw_err bw_consumer_commit(bw_consumer *consumer, bw_topic_partition *parts, size_t count, int32_t timeout_ms);
/* bw_consumer_commit_async: the same without waiting: one request each, sent in order. callback may be NULL. What is on its way when the
 * daemon dies is asked again. BW_OK: the callback will be called. QUEUE_FULL: too many are on their way; poll. */
BW_API bw_err bw_consumer_commit_async(bw_consumer *consumer, const bw_topic_partition *parts, size_t count, bw_commit_fn callback, void *opaque);
/* bw_consumer_committed: fill in the group's committed offset (BW_OFFSET_INVALID: none), its leader epoch and metadata (valid until the
 * next call of this function or close) for each of these partitions. parts[i].error is each one's. TIMED_OUT, NO_COORDINATOR. */
BW_API bw_err bw_consumer_committed(bw_consumer *consumer, bw_topic_partition *parts, size_t count, int32_t timeout_ms);

/* Who a consumer is in its group, for a transaction that commits its offsets. Memory of the consumer, valid until its next call. */
typedef struct bw_group_metadata {
    const char *group_id;
    const char *member_id;         /* "": not a member (assigned by hand, or not joined yet) */
    const char *group_instance_id; /* NULL: dynamic */
    int32_t member_epoch;          /* -1: not a member */
} bw_group_metadata;
/* bw_consumer_group_metadata: INVALID_ARGUMENT: there is no group_id. */
BW_API bw_err bw_consumer_group_metadata(bw_consumer *consumer, bw_group_metadata *out);

/* bw_consumer_poll: the next batch of any assigned partition. timeout_ms 0: do not wait; -1: for ever.
 * Returns BW_OK with *batch filled; TIMED_OUT when there was nothing; WOKEN after bw_consumer_wake;
 * OFFSET_OUT_OF_RANGE (the range in the message; the partition is paused until seek), CORRUPT, DELETED, FORKED, NOT_CONNECTED:
 * batch->topic and batch->partition then name the partition. Of a group: NO_OFFSET (nothing is committed and auto_offset_reset is error;
 * seek goes on) names its partition; FENCED_MEMBER_EPOCH, UNKNOWN_MEMBER_ID (everything was lost, LOST has been told, one of the lost ones
 * is named; the next poll joins anew); FENCED_INSTANCE_ID (another member took the instance id; unsubscribe or close); and what a join can
 * be refused with (GROUP_MAX_SIZE_REACHED, INCONSISTENT_GROUP_PROTOCOL, UNSUPPORTED_ASSIGNOR, …; batch->topic is NULL; a later poll asks
 * again). */
BW_API bw_err bw_consumer_poll(bw_consumer *consumer, int32_t timeout_ms, bw_batch *batch);
/* bw_batch_next: the next record of the batch at or after the position: 1 and *record filled, 0 at the end, -1: corrupt. */
BW_API int bw_batch_next(bw_batch *batch, bw_record_view *record);

/* bw_batch_records: the same for up to max records at once, into out[0..]: how many, 0 at the end, -1: the next one is corrupt (those
 * before it were given by the call before). For bindings and loops over many small records. Since 0.2. */
BW_API int32_t bw_batch_records(bw_batch *batch, bw_record_view *out, int32_t max);

/* bw_consumer_fd: a descriptor that polls readable when bw_consumer_poll(…, 0) may give something. The consumer owns it.
 * After it was readable call bw_consumer_poll with 0 until TIMED_OUT, then wait again. On the direct path the kernel makes it readable by
 * itself (io_uring, Linux 6.7), as long as the same thread polls; otherwise one thread a process does. -1 and the message on error. */
BW_API int bw_consumer_fd(bw_consumer *consumer);
/* bw_consumer_wake: make a poll that waits now, or the next one, return WOKEN. Any thread; async-signal-safe. */
BW_API void bw_consumer_wake(bw_consumer *consumer);
/* bw_offset_end: the offset behind the last record that a reader with this limit may see now, by the topic's read.limit, too. INVALID_CONFIG:
 * replicated, and the topic asks for no replicas. Any thread. */
BW_API bw_err bw_offset_end(bw_bus *bus, const char *topic, int32_t partition, bw_read_limit read_limit, int64_t *end);

#ifdef __cplusplus
}
#endif
#endif
