/* proto/message_queue.h: what the requests of queue groups and their answers carry; a part of bw_request and bw_answer (message.h).
 *
 * A worker joins (QUEUE_JOIN) and gets a member number that is good for this connection; when the connection ends, all that it holds is
 * released. QUEUE_FETCH acquires records for it: the answer's runs name them, and its payload has them, one behind the other in the
 * order of the runs, `count` of each:
 *   be32 bytes that follow · be64 offset · be64 timestamp, ms · be32 key length (-1: null) · key · be32 value length (-1: null) · value ·
 *   be32 header count · the headers as a record batch has them
 * With `direct` there is no payload: the worker reads the records from the log itself. QUEUE_ACK says what became of records; it is
 * answered when that is on the disk. Its answer names the items of which something was refused. */
#ifndef BW_PROTO_MESSAGE_QUEUE_H
#define BW_PROTO_MESSAGE_QUEUE_H

#include <busway/queue.h>

typedef enum bw_queue_verb {
    BW_QUEUE_ACCEPT = 1,  /* done */
    BW_QUEUE_RELEASE = 2, /* to be delivered again, now */
    BW_QUEUE_REJECT = 3,  /* to the dead-letter topic, or archived */
    BW_QUEUE_RENEW = 4,   /* the lease begins anew */
    BW_QUEUE_RETURN = 5,  /* as release, and this delivery does not count: it was never looked at */
} bw_queue_verb;

typedef struct bw_queue_topic { bw_str topic; } bw_queue_topic;

/* Records of one partition with the same number of deliveries: [first, last], each one there. */
typedef struct bw_queue_run {
    bw_str topic;
    int32_t partition;
    int64_t first, last;
    uint32_t deliveries; /* this one included */
} bw_queue_run;

/* Records [first, last] of one partition. In the answer: how many of them were refused, and why. */
typedef struct bw_queue_item {
    bw_str topic;
    int32_t partition;
    int64_t first, last;
    int8_t verb;
    int32_t error;
    uint32_t refused;
} bw_queue_item;

typedef struct bw_queue_request {
    bw_str group;               /* all; QUEUE_DESCRIBE: empty for all groups */
    uint32_t member;            /* QUEUE_FETCH, QUEUE_ACK, QUEUE_LEAVE */
    bw_queue_topic *topics;     /* QUEUE_JOIN */
    size_t topic_count;
    int32_t lease_ms;           /* QUEUE_JOIN from here; 0: the group's, or 30000 */
    int32_t max_deliveries;     /* 0: the group's, or 5 */
    int32_t max_in_flight;      /* records of a partition that are held at a time; 0: the group's, or 2000 */
    bw_str dead_letter;         /* topic; empty: <topic>.dlq */
    int8_t dead_letters;        /* bw_queue_dead; 0: the group's, or to the topic */
    int8_t isolation;           /* bw_queue_isolation; 0: the group's, or uncommitted */
    int8_t reset;               /* where a partition begins that the group has not seen: bw_offset_reset; 0: earliest */
    uint32_t max_records;       /* QUEUE_FETCH, QUEUE_PEEK */
    uint32_t max_bytes;
    int32_t max_wait_ms;
    bool direct;
    bw_queue_item *items;       /* QUEUE_ACK, QUEUE_SETTLE */
    size_t item_count;
    bw_str topic;               /* QUEUE_PEEK */
    int32_t partition;
} bw_queue_request;

typedef enum bw_queue_dead { BW_QUEUE_DEAD_DEFAULT = 0, BW_QUEUE_DEAD_TOPIC = 1, BW_QUEUE_DEAD_ARCHIVE = 2 } bw_queue_dead;

typedef struct bw_queue_answer {
    uint32_t member;            /* QUEUE_JOIN, with what holds for the group */
    int32_t lease_ms, max_deliveries;
    bw_queue_run *runs;         /* QUEUE_FETCH */
    size_t run_count;
    bw_queue_item *items;       /* QUEUE_ACK, QUEUE_SETTLE: those of which something was refused */
    size_t item_count;
} bw_queue_answer;

#endif
