/* proto/message.h: requests and answers as structs, and their msgpack headers. Pure. Byte-level reference: proto/PROTOCOL.md.
 *
 * Every header is a msgpack map with short string keys; unknown keys are skipped (so that fields can be added); missing ones take
 * the default given here. Decoding is bounded: counts <= bytes left, depth <= 8, no allocation proportional to a claimed count.
 * Decoded strings and binaries are views into the frame, NOT NUL-terminated (bw_str). Arrays of structs are malloc'd and freed by
 * bw_request_fini / bw_answer_fini. Client and daemon use the same four functions. */
#ifndef BW_PROTO_MESSAGE_H
#define BW_PROTO_MESSAGE_H

#include "base/uuid.h"
#include "proto/frame.h"

#include <busway/record.h>

#define BW_PROTOCOL_VERSION 1 /* the newest spoken; HELLO carries the range */
#define BW_PROTOCOL_VERSION_MIN 1

typedef enum bw_api_key {
    BW_API_HELLO = 1,
    BW_API_METADATA = 2,
    BW_API_CREATE_TOPIC = 3,
    BW_API_DELETE_TOPIC = 4,
    BW_API_ALTER_TOPIC = 5,
    BW_API_DESCRIBE_TOPICS = 6,
    BW_API_PRODUCE = 7,
    BW_API_FETCH = 8,
    BW_API_SUBSCRIBE = 9,
    BW_API_CREDIT = 10,      /* one way */
    BW_API_UNSUBSCRIBE = 11,
    BW_API_DATA = 12,        /* pushed by the server */
    BW_API_LIST_OFFSETS = 13,
    BW_API_DELETE_RECORDS = 14,
    BW_API_INIT_PRODUCER_ID = 15,
    BW_API_ATTACH = 16,
    BW_API_DETACH = 17,
    BW_API_MAILBOX = 18,
    BW_API_RELEASE_MAILBOX = 19,
    BW_API_REPORT = 20,      /* one way */
    BW_API_STATUS = 21,
    /* groups: what they carry is in message_groups.h */
    BW_API_OFFSET_COMMIT = 22,
    BW_API_OFFSET_FETCH = 23,
    BW_API_OFFSET_DELETE = 24,
    BW_API_GROUP_JOIN = 25,       /* server-assigned groups */
    BW_API_GROUP_HEARTBEAT = 26,
    BW_API_GROUP_LEAVE = 27,
    BW_API_GROUP_ASSIGNMENT = 28, /* pushed by the server */
    BW_API_JOIN_GROUP = 29,       /* the classic protocol, from here */
    BW_API_SYNC_GROUP = 30,
    BW_API_HEARTBEAT = 31,
    BW_API_LEAVE_GROUP = 32,
    BW_API_LIST_GROUPS = 33,
    BW_API_DESCRIBE_GROUP = 34,
    BW_API_DELETE_GROUP = 35,
    /* transactions: what they carry is in message_txn.h */
    BW_API_TXN_OFFSET_COMMIT = 40,
    BW_API_END_TXN = 41,
    BW_API_LIST_TRANSACTIONS = 42,
    BW_API_DESCRIBE_TRANSACTION = 43,
    BW_API_ABORT_TRANSACTION = 44, /* by an administrator */
    BW_API_DESCRIBE_PRODUCERS = 45,
    BW_API_PRODUCER_LAST = 46,
    /* queue groups: message_queue.h */
    BW_API_QUEUE_JOIN = 50,
    BW_API_QUEUE_FETCH = 51,
    BW_API_QUEUE_ACK = 52,
    BW_API_QUEUE_LEAVE = 53,
    BW_API_QUEUE_DESCRIBE = 54,
    BW_API_QUEUE_PEEK = 55,
    BW_API_QUEUE_SETTLE = 56, /* by hand, whoever holds it */
    BW_API_QUEUE_DELETE = 57,
    /* quotas: message_quota.h */
    BW_API_SET_QUOTA = 60,
    BW_API_LIST_QUOTAS = 61,
    /* links between daemons: message_link.h */
    BW_API_LINK_ADD = 70,
    BW_API_LINK_LIST = 71,
    BW_API_LINK_DESCRIBE = 72,
    BW_API_LINK_ALTER = 73,
    BW_API_LINK_REMOVE = 74,
    BW_API_LINK_HELLO = 75,
    BW_API_LINK_TOPIC = 76,
    BW_API_LINK_APPEND = 77,
    BW_API_LINK_FETCH = 78,
    BW_API_LINK_POSITION = 79,
    /* peers that hold the same log: message_replica.h */
    BW_API_RANGE_HASHES = 80,
    BW_API_RANGE_BATCHES = 81,
    BW_API_REPLICA_ACK = 82,
    BW_API_EPOCHS = 83,
    BW_API_FENCE = 84,
    BW_API_MEND = 85,
    BW_API_PROMOTE = 86,
    BW_API_TAILS = 87,
    BW_API_REPLICA_STATE = 88,
    /* connections from other hosts: message_remote.h */
    BW_API_AUTHENTICATE = 90,
    BW_API_SET_USER = 91,
    BW_API_REMOVE_USER = 92,
    BW_API_LIST_USERS = 93,
    BW_API_PING = 94,
    BW_API_HANDOVER = 95,    /* to a private daemon: end, another one takes the folder */
    BW_API_KEY_COUNT
} bw_api_key;

#define BW_REMOTE_FIRST 90u

/* bw_api_is_push: sent by the server alone, unasked. */
static inline bool bw_api_is_push(uint16_t type) { return type == BW_API_DATA || type == BW_API_GROUP_ASSIGNMENT; }

typedef struct bw_str { const char *data; size_t len; } bw_str;
static inline bool bw_str_is(bw_str s, const char *text) { return s.len == strlen(text) && (s.len == 0 || memcmp(s.data, text, s.len) == 0); }
static inline bw_str bw_str_of(const char *text) { return (bw_str){text, text ? strlen(text) : 0}; }

#include "proto/message_groups.h"
#include "proto/message_queue.h"
#include "proto/message_txn.h"
#include "proto/message_quota.h"
#include "proto/message_link.h"
#include "proto/message_replica.h"
#include "proto/message_remote.h"

typedef struct bw_config_pair { bw_str name; bw_str value; bool has_value; } bw_config_pair;

typedef struct bw_fetch_part { bw_str topic; int32_t partition; int64_t offset; uint32_t max_bytes; } bw_fetch_part;

/* One struct for all requests: `type` says which fields count (listed beside each). */
typedef struct bw_request {
    uint16_t type;
    uint32_t correlation;
    /* HELLO */
    int32_t version_min, version_max;
    bw_str client_id;   /* program name */
    int32_t client_pid; /* informative; the kernel's answer counts */
    /* METADATA (topic empty: all), CREATE/DELETE/ALTER_TOPIC, DESCRIBE_TOPICS (empty: all), PRODUCE, SUBSCRIBE, LIST_OFFSETS,
     * DELETE_RECORDS, ATTACH, DETACH, REPORT */
    bw_str topic;
    int32_t partition;
    int32_t partitions;      /* CREATE, ALTER: 0 = default / unchanged */
    bw_config_pair *configs; /* CREATE, ALTER */
    size_t config_count;
    bool allow_auto_create;  /* METADATA, PRODUCE; default true */
    int8_t acks;             /* PRODUCE: bw_acks */
    int32_t timeout_ms;      /* PRODUCE (durable) */
    const uint8_t *payload;  /* PRODUCE: exactly one record batch */
    size_t payload_len;
    bool records;            /* PRODUCE, FETCH over REP: msgpack records instead of batches. The listener translates: the broker
                              * sees record batches only */
    int64_t offset;          /* SUBSCRIBE; DELETE_RECORDS: before */
    int64_t timestamp;       /* LIST_OFFSETS: ms, or BW_OFFSET_END / BW_OFFSET_BEGINNING */
    int8_t read_limit;       /* FETCH, SUBSCRIBE, LIST_OFFSETS: bw_read_limit */
    int8_t isolation;        /* FETCH, SUBSCRIBE: bw_isolation */
    int32_t max_wait_ms;     /* FETCH */
    uint32_t min_bytes, max_bytes; /* FETCH */
    bw_fetch_part *parts;    /* FETCH */
    size_t part_count;
    uint32_t subscription;   /* SUBSCRIBE, CREDIT, UNSUBSCRIBE: chosen by the client, unique in the connection */
    uint64_t credit;         /* SUBSCRIBE, CREDIT: bytes that may be pushed further */
    bw_str producer_name;    /* INIT_PRODUCER_ID; empty: none */
    bool for_write;          /* ATTACH */
    uint32_t mailbox;        /* RELEASE_MAILBOX */
    bw_str transport;        /* REPORT: "direct" or "ipc" */
    bw_str reason;           /* REPORT: why not direct */
    bw_group_request group;  /* OFFSET_COMMIT to DELETE_GROUP, TXN_OFFSET_COMMIT */
    bw_queue_request queue;  /* QUEUE_JOIN to QUEUE_DELETE */
    bw_txn_request txn;      /* INIT_PRODUCER_ID, TXN_OFFSET_COMMIT to PRODUCER_LAST */
    bw_quota_entity quota;   /* SET_QUOTA (rates: configs), LIST_QUOTAS */
    bw_link_request link;    /* LINK_ADD (options: configs) to LINK_POSITION */
    bw_replica_request replica; /* RANGE_HASHES to SET_ASIDE */
    bw_user_request user; /* AUTHENTICATE, SET_USER, REMOVE_USER */
} bw_request;

typedef struct bw_topic_meta {
    bw_str name;
    bw_uuid id;
    int32_t partitions;
    bool log_append_time;
    bw_str compression; /* compression.type: "producer" or a codec's name */
    uint32_t message_max;
    int32_t error; /* bw_err; for this topic */
} bw_topic_meta;

typedef struct bw_fetched_part {
    int32_t error; /* bw_err */
    bw_str message;
    bw_str topic;
    int32_t partition;
    int64_t log_start, end, durable;
    uint32_t size; /* its bytes in the payload, in order of parts */
} bw_fetched_part;

/* One struct for all answers and for DATA. error != 0: only error and message count (and log_start, end where known). */
typedef struct bw_answer {
    uint16_t type;
    uint32_t correlation;
    uint16_t flags; /* frame flags besides BW_FRAME_ANSWER, which is set for everything but DATA */
    int32_t error;  /* bw_err */
    bw_str message;
    int32_t throttle_ms; /* how long a quota has held the request, or what is pushed, back; 0: not */
    /* HELLO */
    int32_t version;
    int32_t version_min, version_max; /* also with UNSUPPORTED_VERSION */
    bw_str server_version;
    bw_str data_dir, arena_dir; /* absolute paths */
    uint8_t generation[16];
    int32_t server_pid;
    uint64_t server_uid;
    uint32_t frame_max;
    /* METADATA */
    bw_topic_meta *topics;
    size_t topic_count;
    /* PRODUCE, SUBSCRIBE (offset: resolved start), LIST_OFFSETS, DELETE_RECORDS (log_start) */
    int64_t offset;
    int64_t timestamp;
    int64_t log_start, end, durable; /* also DATA */
    /* FETCH, DATA */
    bw_fetched_part *parts;
    size_t part_count;
    uint32_t subscription; /* DATA */
    const uint8_t *payload;
    size_t payload_len;
    /* INIT_PRODUCER_ID, PRODUCER_LAST */
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t sequence; /* PRODUCER_LAST: of the last record by the name, -1 when none is known; offset: where it is */
    /* ATTACH */
    bw_uuid topic_id;
    int32_t partitions;
    /* MAILBOX */
    uint32_t mailbox;
    /* STATUS, LIST_GROUPS, LIST_TRANSACTIONS, DESCRIBE_*: a msgpack document of its own (map or array), view into the frame */
    const uint8_t *doc;
    size_t doc_len;
    bw_group_answer group; /* OFFSET_COMMIT to LEAVE_GROUP */
    bw_queue_answer queue; /* QUEUE_JOIN to QUEUE_SETTLE */
    bw_link_answer link;   /* LINK_HELLO to LINK_POSITION */
    bw_replica_answer replica; /* RANGE_HASHES to SET_ASIDE */
} bw_answer;

/* bw_request_init: all defaults of `type` (numbers 0, -1 where that means none, allow_auto_create true). */
void bw_request_init(bw_request *r, bw_api_key type);
void bw_request_fini(bw_request *r);
void bw_answer_init(bw_answer *a, const bw_request *to); /* to may be NULL (DATA) */
void bw_answer_init_push(bw_answer *a, bw_api_key type);
void bw_answer_fini(bw_answer *a);

/* Encode a whole frame, appended to out; payload is appended too unless payload_elsewhere (then only its length is counted in). */
bw_err bw_request_encode(const bw_request *r, bw_buf *out, bool payload_elsewhere);
bw_err bw_answer_encode(const bw_answer *a, bw_buf *out, bool payload_elsewhere);
/* Decode. PROTOCOL with what and where. An unknown type decodes to that type with no fields (the server answers UNSUPPORTED). */
bw_err bw_request_decode(const bw_frame *f, bw_request *out);
bw_err bw_answer_decode(const bw_frame *f, bw_answer *out);

/* bw_api_name: "PRODUCE"; NULL when unknown. */
const char *bw_api_name(uint16_t type);

#endif
