/* busway/queue.h: records handed out one by one to any number of workers.
 *
 * A queue group shares the records of its topics among its workers, of which there may be more than partitions. A worker gets records under
 * a lease and says of each what became of it: acknowledged (done), released (again, now), rejected (to the dead-letter topic). What a
 * worker held when its process ended is given to others at once; what one holds too long when its lease ends. After max_deliveries a
 * record goes to the dead-letter topic. Order is that of the log as long as nothing comes back.
 *
 * Promises. An acknowledgement that was answered OK (bw_queue_flush, or a synchronous one) is on the disk: its record is never delivered
 * again. Whatever else happens, a record is delivered at least once. The number of deliveries survives the daemon's death but for
 * the first one and what came within the last tenth of a second.
 *
 * Delay. A record with a header "deliver-at" is not handed out before that time: its value is the time in ms since the epoch, as decimal
 * text or as 8 bytes big-endian (bw_header_deliver_at makes one). Anything else in it counts as no header. The daemon's wall clock
 * decides; when it is set back, delayed records come later, and none comes twice. A delayed record lies in the topic all the time: it
 * must be retained long enough (retention.ms); one that is gone by then is counted as lost (bw_queue_describe). A group delays at most
 * 10 million records a partition.
 *
 * Dead letters have the record's key, value and headers and, behind them, __dlq.errors.topic, .partition, .offset, .group,
 * .delivery.count and .message (KIP-1191's names). A daemon that dies while it writes one may write it twice, never not at all.
 *
 * Threads: one thread at a time uses a queue; bw_queue_wake may be called from any. Since 0.2. */
#ifndef BUSWAY_QUEUE_H
#define BUSWAY_QUEUE_H

#include <busway/bus.h>
#include <busway/consumer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct bw_queue bw_queue;

typedef enum bw_queue_isolation { BW_QUEUE_DEFAULT = 0, BW_QUEUE_UNCOMMITTED = 1, BW_QUEUE_COMMITTED = 2 } bw_queue_isolation;

/* What is given counts for the whole group, for all its workers, from then on; 0 and NULL leave it as it is. */
typedef struct bw_queue_options {
    size_t size;             /* sizeof(bw_queue_options) */
    const char *group;       /* must be given */
    const char *const *topics; /* at least one; they must exist */
    size_t topic_count;
    int32_t lease_ms;        /* of a group that is new: 30000; 100 to 86400000 */
    int32_t max_deliveries;  /* new: 5; to 1000 */
    int32_t max_in_flight;   /* records of a partition that are out at a time; new: 2000; to 50000 */
    const char *dead_letter_topic; /* new: <topic>.dlq; made when it is needed */
    bool archive;            /* no dead-letter topic: such records are just not delivered again */
    bw_queue_isolation isolation; /* new: uncommitted */
    bw_offset_reset start;   /* where a partition begins that the group has not seen yet; new: earliest */
    int32_t max_records;     /* of this worker: fetched at a time; default 500. 1: nothing is held back from others */
    int32_t ack_records;     /* of this worker: so many acknowledgements in one request at most; default 500 */
} bw_queue_options;

#define BW_QUEUE_OPTIONS_INIT {sizeof(bw_queue_options), NULL, NULL, 0, 0, 0, 0, NULL, false, BW_QUEUE_DEFAULT, BW_RESET_ERROR, 500, 500}

/* A record under lease. The record's pointers are good until the next poll; topic, partition and offset name it as long as the queue
 * is open, so that a copy of this struct can be acknowledged later. */
typedef struct bw_message {
    const char *topic;
    int32_t partition;
    int32_t deliveries;      /* this one included: 1 the first time */
    bw_record_view record;
} bw_message;

/* bw_queue_open: join the group; it is made when it is not there. UNKNOWN_TOPIC, INVALID_GROUP_ID, INVALID_ARGUMENT,
 * INCONSISTENT_GROUP_PROTOCOL (another kind of group has the name), GROUP_MAX_SIZE_REACHED, LIMIT_REACHED, NOT_PERMITTED. */
BW_API bw_err bw_queue_open(bw_bus *bus, const bw_queue_options *options, bw_queue **out);
/* bw_queue_close: sends what was acknowledged and waits for its answer (at most the bus's request_timeout_ms), then gives back what is
 * held; what was never polled does not count as delivered. The first error of an acknowledgement. NULL is allowed. */
BW_API bw_err bw_queue_close(bw_queue *queue);

/* bw_queue_poll: the next record. timeout_ms 0: do not wait for one (only for the daemon's answer); -1: for ever. TIMED_OUT: there was
 * none; WOKEN; NOT_CONNECTED and NO_COORDINATOR when the daemon does not come back in time: poll again (everything held was released);
 * FORKED; CORRUPT. */
BW_API bw_err bw_queue_poll(bw_queue *queue, int32_t timeout_ms, bw_message *message);
/* bw_queue_poll_batch: up to max, *count of them; at least one when BW_OK. All are good until the next poll. */
BW_API bw_err bw_queue_poll_batch(bw_queue *queue, int32_t timeout_ms, bw_message *messages, size_t max, size_t *count);

/* What became of a record: asynchronous. Sent when ack_records have gathered, by the next poll that waits, by flush and close; a refusal
 * (INVALID_RECORD_STATE: the lease had ended, or it was said before) is told by the next flush. */
BW_API bw_err bw_queue_ack(bw_queue *queue, const bw_message *message);
BW_API bw_err bw_queue_release(bw_queue *queue, const bw_message *message);
BW_API bw_err bw_queue_reject(bw_queue *queue, const bw_message *message);
/* bw_queue_renew: its lease begins anew. Sent at once, answered as the others. */
BW_API bw_err bw_queue_renew(bw_queue *queue, const bw_message *message);
BW_API bw_err bw_queue_ack_batch(bw_queue *queue, const bw_message *messages, size_t count);
BW_API bw_err bw_queue_release_batch(bw_queue *queue, const bw_message *messages, size_t count);
BW_API bw_err bw_queue_reject_batch(bw_queue *queue, const bw_message *messages, size_t count);
/* bw_queue_flush: send, and wait until everything was answered: it is on the disk. INVALID_RECORD_STATE and how many, when some since the
 * last flush were refused; NOT_CONNECTED: some have no answer and may be delivered again; TIMED_OUT: still under way. */
BW_API bw_err bw_queue_flush(bw_queue *queue, int32_t timeout_ms);
/* bw_queue_ack_sync: acknowledge one and flush. */
BW_API bw_err bw_queue_ack_sync(bw_queue *queue, const bw_message *message, int32_t timeout_ms);

/* bw_queue_wake: make a poll that waits now, or the next one, return WOKEN. Any thread. */
BW_API void bw_queue_wake(bw_queue *queue);

/* bw_header_deliver_at: fills *header with the delay header for a time in ms since the epoch; room has its value (at least 8 bytes) and must
 * live as long as the header. */
BW_API void bw_header_deliver_at(int64_t at_ms, uint8_t room[8], bw_header *header);

/* ---- administration ---- JSON results are freed with bw_free. GROUP_ID_NOT_FOUND, UNKNOWN_PARTITION, NOT_PERMITTED. */

/* bw_queue_describe: group NULL: all. JSON array of {"group","type","lease_ms","max_deliveries","max_in_flight","dead_letters",
 * "isolation","fetches_waiting","partitions":[{"topic","partition","start_offset","next_offset","end_offset","waiting","available",
 * "in_flight","dying","delayed","delayed_limit_reached","acknowledged","archived","dead_lettered","released","lease_ended","lost"}],
 * "members":[{"member","client","pid","since_ms","fetched","in_flight"}]}. Counters are of the daemon's present life. */
BW_API bw_err bw_queue_describe(bw_bus *bus, const char *group, char **json);
/* bw_queue_peek: up to max records that the group holds or knows of: {"start_offset","next_offset","records":[{"offset","state",
 * "deliveries","member","lease_left_ms","deliver_at"}],"delayed":[{"offset","deliver_at"}]}. Nothing is changed. */
BW_API bw_err bw_queue_peek(bw_bus *bus, const char *group, const char *topic, int32_t partition, int32_t max, char **json);

typedef enum bw_queue_outcome { BW_QUEUE_DONE = 1, BW_QUEUE_AGAIN = 2, BW_QUEUE_DEAD = 3 } bw_queue_outcome;
/* bw_queue_settle: by hand, whoever holds them: records [first, last] of a partition. *settled: how many; the others were settled before, or
 * were not looked at yet. Administrators. */
BW_API bw_err bw_queue_settle(bw_bus *bus, const char *group, const char *topic, int32_t partition, int64_t first, int64_t last,
                              bw_queue_outcome outcome, int64_t *settled);
/* bw_queue_delete: a group without workers, and all that is stored of it. NON_EMPTY_GROUP. Administrators. */
BW_API bw_err bw_queue_delete(bw_bus *bus, const char *group);
/* bw_queue_redrive: dead letters of a topic go back to the topic and partition that they came from, without the headers that say so, at most
 * max (0: all that are there when it begins). Each is on the disk there before it is done with here; one may come twice when this
 * program dies in between. progress (may be NULL) is called after each batch; false ends it. Records that say no origin are released
 * and counted in *skipped. The group "redrive.<topic>" remembers what was done. */
typedef bool (*bw_redrive_fn)(void *opaque, int64_t moved, int64_t skipped);
BW_API bw_err bw_queue_redrive(bw_bus *bus, const char *dead_letter_topic, int64_t max, bw_redrive_fn progress, void *opaque, int64_t *moved,
                               int64_t *skipped);

#ifdef __cplusplus
}
#endif
#endif
