/* shim.h: what lies between Go and libbusway.
 *
 * Go may hand C only flat memory, and a crossing costs some 50 ns, so that everything here takes and gives many records at a time:
 * records to send come packed in three flat arrays; what is read is decoded into an array of views that belongs to C and is reused.
 * The text of an error is the calling thread's, and a goroutine changes threads: each call that can fail brings it back itself.
 * bwgo_result.message is NULL or to be freed. */
#ifndef BUSWAY_GO_SHIM_H
#define BUSWAY_GO_SHIM_H

#include <busway/busway.h>
#include <stdlib.h>
#include <string.h>

typedef struct bwgo_result {
    int32_t code;
    int32_t n; /* a count, or a partition */
    int64_t a; /* an offset, or the first number that the call gives */
    int64_t b; /* a timestamp, or the second */
    char *message;
} bwgo_result;

/* ---- records to send: three arrays, in order: keys, values and headers lie behind each other in `bytes` ---- */

typedef struct bwgo_packed {
    int64_t timestamp_ms;
    int32_t key_len;   /* -1: null */
    int32_t value_len; /* -1: null */
    int32_t header_count;
    int32_t unused;
} bwgo_packed;

typedef struct bwgo_packed_header {
    int32_t name_len;
    int32_t value_len; /* -1: null */
} bwgo_packed_header;

/* ---- bus ---- */

bwgo_result bwgo_bus_open(const char *url, int transport, int32_t connect_ms, int32_t request_ms, const char *client_id, const char *daemon,
                          int log_fd, void **out);
bwgo_result bwgo_json(int what, bw_bus *bus, const char *a, const char *b, const char *c, int32_t partition, int32_t max, char **json);
enum { BWGO_TOPICS, BWGO_GROUPS, BWGO_GROUP, BWGO_QUOTAS, BWGO_STATUS, BWGO_TXNS, BWGO_TXN, BWGO_PRODUCERS, BWGO_QUEUES, BWGO_PEEK,
       BWGO_LINKS, BWGO_LINK, BWGO_TAILS, BWGO_USERS };
bwgo_result bwgo_topic(int what, bw_bus *bus, const char *topic, int32_t partitions, bw_config_entry *config, size_t count);
enum { BWGO_CREATE, BWGO_ALTER, BWGO_DELETE, BWGO_PARTITIONS };
bwgo_result bwgo_link(int what, bw_bus *bus, const char *link, bw_config_entry *options, size_t count);
enum { BWGO_LINK_ADD, BWGO_LINK_ALTER, BWGO_LINK_REMOVE };
bwgo_result bwgo_promote(bw_bus *bus, const char *topic, bool force);
bwgo_result bwgo_user_set(bw_bus *bus, const char *name, int kind, const char *role, const char *secret);
bwgo_result bwgo_token_add(bw_bus *bus, const char *name, const char *role, char *token);
bwgo_result bwgo_user_remove(bw_bus *bus, const char *name);
bwgo_result bwgo_quota_set(bw_bus *bus, const char *user, const char *client, const char *pid, bw_config_entry *rates, size_t count);
bwgo_result bwgo_delete_records(bw_bus *bus, const char *topic, int32_t partition, int64_t before);
bwgo_result bwgo_offsets_range(bw_bus *bus, const char *topic, int32_t partition, bw_offset_range *out);
bwgo_result bwgo_offset_end(bw_bus *bus, const char *topic, int32_t partition, int limit);
bwgo_result bwgo_offset_for_time(bw_bus *bus, const char *topic, int32_t partition, int64_t ms);
bwgo_result bwgo_group_delete(bw_bus *bus, const char *group);
bwgo_result bwgo_group_offsets(bw_bus *bus, int alter, const char *group, bw_group_offset *offsets, size_t count);
bwgo_result bwgo_txn_abort_admin(bw_bus *bus, const char *id);
bwgo_result bwgo_queue_settle(bw_bus *bus, const char *group, const char *topic, int32_t partition, int64_t first, int64_t last, int outcome);
bwgo_result bwgo_queue_delete(bw_bus *bus, const char *group);
bwgo_result bwgo_queue_redrive(bw_bus *bus, const char *topic, int64_t max, uintptr_t handle);

/* ---- producer ---- */

/* The outcome of one record that was sent without waiting. */
typedef struct bwgo_done {
    uint64_t call; /* of which SendAsync or SendMany */
    int32_t index; /* the record in it */
    int32_t code;
    int32_t partition;
    int32_t unused;
    int64_t offset;
    int64_t timestamp_ms;
    char *message;
} bwgo_done;

typedef struct bwgo_producer bwgo_producer;
bwgo_result bwgo_producer_open(bw_bus *bus, bw_producer_options *options, bwgo_producer **out);
bwgo_result bwgo_producer_close(bwgo_producer *p, int32_t timeout_ms); /* the outcomes stay until bwgo_producer_free */
void bwgo_producer_free(bwgo_producer *p);
bw_producer *bwgo_producer_handle(bwgo_producer *p);
bwgo_result bwgo_send_batch(bwgo_producer *p, const char *topic, int32_t partition, const bwgo_packed *records, int32_t count,
                            const bwgo_packed_header *headers, const uint8_t *bytes, int32_t timeout_ms);
enum { BWGO_NOW = -2 }; /* as a time-out: bw_producer_send_now; BUSY without a message */
/* Synchronous, in as few batches as possible; placed: NULL, or where each record is. */
bwgo_result bwgo_send_all(bwgo_producer *p, const char *topic, int32_t partition, const bwgo_packed *records, int32_t count,
                          const bwgo_packed_header *headers, const uint8_t *bytes, int32_t timeout_ms, bw_placed *placed);
/* n: how many were taken, in order; the code is of the first that was not. quiet: successes are not told. */
bwgo_result bwgo_send_many(bwgo_producer *p, const char *topic, int32_t partition, const bwgo_packed *records, int32_t count,
                           const bwgo_packed_header *headers, const uint8_t *bytes, int32_t timeout_ms, uint64_t call, int32_t first,
                           int quiet);
/* n: outcomes that wait to be taken. */
bwgo_result bwgo_producer_poll(bwgo_producer *p, int32_t timeout_ms);
bwgo_result bwgo_producer_flush(bwgo_producer *p, int32_t timeout_ms);
/* Up to max outcomes, oldest first; their messages are to be freed. */
int32_t bwgo_producer_take(bwgo_producer *p, bwgo_done *out, int32_t max);
bwgo_result bwgo_reserve(bwgo_producer *p, const char *topic, int32_t partition, const bwgo_packed *meta, const bwgo_packed_header *headers,
                         const uint8_t *bytes, size_t value_max, int32_t timeout_ms, bw_reservation *out);
bwgo_result bwgo_reservation_commit(bwgo_producer *p, bw_reservation *r, size_t value_len, int32_t timeout_ms);
bwgo_result bwgo_transaction(int what, bwgo_producer *p, int32_t timeout_ms);
enum { BWGO_TXN_INIT, BWGO_TXN_BEGIN, BWGO_TXN_COMMIT, BWGO_TXN_ABORT };
bwgo_result bwgo_txn_offsets(bwgo_producer *p, bw_group_metadata *group, bw_topic_partition *offsets, size_t count, int32_t timeout_ms);
bwgo_result bwgo_last_sequence(bwgo_producer *p, const char *topic, int32_t partition);
bwgo_result bwgo_producer_fd(bwgo_producer *p);

/* ---- consumer ---- */

typedef struct bwgo_commit { /* the outcome of an asynchronous commit */
    struct bwgo_commit *next;
    uint64_t call;
    int32_t code;
    int32_t count;
    char *message;
    bw_topic_partition parts[];
} bwgo_commit;

static inline bw_topic_partition *bwgo_commit_parts(bwgo_commit *c) { return c->parts; }

/* One goroutine at a time, but for bw_consumer_wake. */
typedef struct bwgo_reader {
    bw_consumer *consumer;
    uintptr_t handle; /* of the Go side, for callbacks; 0: none */
    bw_batch batch;
    bw_record_view *views; /* the records of the batch */
    int32_t count, capacity;
    int32_t broken;        /* the batch ends in bytes that make no sense */
    int32_t topic_changed; /* the batch's topic is another than the last one's */
    char topic[BW_TOPIC_NAME_MAX + 1];
    bwgo_commit *commits, *commits_last; /* to be taken */
    char message[1024];
} bwgo_reader;

bwgo_result bwgo_reader_open(bw_bus *bus, bw_consumer_options *options, uintptr_t handle, bwgo_reader **out);
void bwgo_reader_close(bwgo_reader *r); /* the outcomes of commits stay until bwgo_reader_free */
void bwgo_reader_free(bwgo_reader *r);
/* The next batch and all its records, in one call. message is in the reader. */
int32_t bwgo_reader_poll(bwgo_reader *r, int32_t timeout_ms);
/* Looks again and again for ns, without sleeping. */
int32_t bwgo_reader_spin(bwgo_reader *r, int64_t ns);
/* Without waiting, for a poller that is told of changes alone: TIMED_OUT only when the descriptor is not readable any more. */
int32_t bwgo_reader_poll_edge(bwgo_reader *r, int fd);
bwgo_result bwgo_reader_place(int what, bwgo_reader *r, const char *topic, int32_t partition, int64_t at);
enum { BWGO_ASSIGN, BWGO_UNASSIGN, BWGO_SEEK, BWGO_SEEK_TIME, BWGO_POSITION, BWGO_PAUSE, BWGO_RESUME };
bwgo_result bwgo_reader_subscribe(bwgo_reader *r, char **topics, size_t count);
bwgo_result bwgo_reader_unsubscribe(bwgo_reader *r);
bwgo_result bwgo_reader_assignment(bwgo_reader *r, bw_topic_partition **parts, size_t *count);
bwgo_result bwgo_reader_subscription(bwgo_reader *r, char ***topics, size_t *count);
bwgo_result bwgo_reader_commit(bwgo_reader *r, bw_topic_partition *parts, size_t count, int32_t timeout_ms);
bwgo_result bwgo_reader_commit_async(bwgo_reader *r, bw_topic_partition *parts, size_t count, uint64_t call);
bwgo_result bwgo_reader_committed(bwgo_reader *r, bw_topic_partition *parts, size_t count, int32_t timeout_ms);
bwgo_result bwgo_reader_group(bwgo_reader *r, bw_group_metadata *out);
bwgo_result bwgo_reader_fd(bwgo_reader *r);

/* ---- state ---- */

bwgo_result bwgo_state_open(bwgo_reader *r, const char *dir, int fast, uint64_t map_bytes, bw_state **out);
int32_t bwgo_state_begin(bwgo_reader *r, bw_state *s, int32_t timeout_ms, bw_state_txn **txn);
bwgo_result bwgo_state_commit(bw_state_txn *txn);
bwgo_result bwgo_state_read(bw_state *s, const char *topic, int32_t partition, bw_state_txn **txn);
bwgo_result bwgo_state_process(bw_state *s, int32_t timeout_ms, int32_t max, uintptr_t handle);
bwgo_result bwgo_state_get(bw_state_txn *txn, const void *key, size_t key_len, const void **value, size_t *value_len);
bwgo_result bwgo_state_put(bw_state_txn *txn, const void *key, size_t key_len, const void *value, size_t value_len);
bwgo_result bwgo_state_del(bw_state_txn *txn, const void *key, size_t key_len);
typedef struct bwgo_entry {
    const void *key, *value;
    size_t key_len, value_len;
} bwgo_entry;
/* All entries with the prefix, as pointers into the store; n of them, *out is to be freed. */
bwgo_result bwgo_state_each(bw_state_txn *txn, const void *prefix, size_t prefix_len, bwgo_entry **out);

/* ---- queue ---- */

bwgo_result bwgo_queue_open(bw_bus *bus, bw_queue_options *options, bw_queue **out);
bwgo_result bwgo_queue_close(bw_queue *q);
bwgo_result bwgo_queue_poll(bw_queue *q, int32_t timeout_ms, bw_message *messages, size_t max);
bwgo_result bwgo_queue_settle_batch(int what, bw_queue *q, bw_message *messages, size_t count);
enum { BWGO_ACK, BWGO_RELEASE, BWGO_REJECT, BWGO_RENEW };
bwgo_result bwgo_queue_flush(bw_queue *q, int32_t timeout_ms);
bwgo_result bwgo_queue_ack_sync(bw_queue *q, bw_message *message, int32_t timeout_ms);
int64_t bwgo_deliver_at(int64_t at_ms, uint8_t room[8], char name[64]);

/* ---- offline ---- */

bwgo_result bwgo_verify(const char *path, uintptr_t handle, bw_verify_totals *totals);
bwgo_result bwgo_dump(const char *path, int records, uintptr_t handle);

#endif
