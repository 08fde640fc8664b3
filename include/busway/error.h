/* busway/error.h: every outcome of every call.
 *
 * One table makes the codes, their names and their texts. A call that can fail returns a bw_err: BW_OK is 0, everything else
 * is positive and stable across versions (codes are appended, never renumbered). What happened, where, and what to do is in
 * the calling thread's message, bw_error_message(), which the next failing call of the same thread overwrites.
 *
 * Columns: name, number, text, class. R: retriable (the same call may succeed later). F: final. A: the handle is unusable. */
#ifndef BUSWAY_ERROR_H
#define BUSWAY_ERROR_H

#include <busway/version.h>
#include <stdbool.h>

#define BW_ERR_MAP(X)                                                                                                          \
    X(OK, 0, "success", F)                                                                                                     \
    X(INVALID_ARGUMENT, 1, "invalid argument", F)                                                                              \
    X(NO_MEMORY, 2, "out of memory", R)                                                                                        \
    X(IO, 3, "input/output error", F)                                                                                          \
    X(DISK_FULL, 4, "disk full", R)                                                                                            \
    X(CORRUPT, 5, "corrupt data", F)                                                                                           \
    X(TIMED_OUT, 6, "timed out", R)                                                                                            \
    X(EMPTY, 7, "nothing there yet", R)                                                                                        \
    X(WOKEN, 8, "woken by another thread", R)                                                                                  \
    X(CLOSED, 9, "handle is closed", A)                                                                                        \
    X(FORKED, 10, "handle belongs to the parent process", A)                                                                   \
    X(UNSUPPORTED, 11, "not supported here", F)                                                                                \
    X(NOT_PERMITTED, 12, "permission denied", F)                                                                               \
    X(UNKNOWN_TOPIC, 13, "unknown topic", F)                                                                                   \
    X(TOPIC_EXISTS, 14, "topic already exists", F)                                                                             \
    X(INVALID_TOPIC, 15, "invalid topic name", F)                                                                              \
    X(UNKNOWN_PARTITION, 16, "unknown partition", F)                                                                           \
    X(INVALID_CONFIG, 17, "invalid configuration", F)                                                                          \
    X(RECORD_TOO_LARGE, 18, "record or batch too large", F)                                                                    \
    X(OFFSET_OUT_OF_RANGE, 19, "offset out of range", F)                                                                       \
    X(POISONED, 20, "partition is read-only after a failed sync", F)                                                           \
    X(FENCED, 21, "fenced by a newer owner or configuration", R)                                                               \
    X(DELETED, 22, "topic was deleted", F)                                                                                     \
    X(LOCK_HELD, 23, "partition lock held by another writer", R)                                                               \
    X(LOCK_LOST, 24, "partition lock is unrecoverable", A)                                                                     \
    X(NO_COORDINATOR, 25, "the daemon does not answer", R)                                                                     \
    X(NEWER_FORMAT, 26, "written by a newer version", F)                                                                       \
    X(PROTOCOL, 27, "protocol violation", A)                                                                                   \
    X(QUEUE_FULL, 28, "producer queue is full", R)                                                                             \
    X(OUT_OF_ORDER_SEQUENCE, 29, "out of order sequence number", F)                                                            \
    X(INVALID_PRODUCER_EPOCH, 30, "stale producer epoch", F)                                                                   \
    X(ALREADY_RUNNING, 31, "another daemon owns the data directory", F)                                                        \
    X(UNKNOWN_CODEC, 32, "unknown or unavailable compression codec", F)                                                        \
    X(NOT_FOUND, 33, "not found", F)                                                                                           \
    X(BUSY, 34, "in use", R)                                                                                                   \
    X(UNSUPPORTED_VERSION, 35, "protocol version not supported", F)                                                            \
    X(RETIRED, 36, "control data was replaced; attach again", R)                                                               \
    X(INTERNAL, 37, "internal error", F)                                                                                       \
    X(UNKNOWN_PRODUCER_ID, 38, "unknown producer id", F)                                                                       \
    X(NOT_CONNECTED, 39, "connection lost", R)                                                                                 \
    X(ILLEGAL_GENERATION, 40, "stale group generation", F)                                                                     \
    X(INCONSISTENT_GROUP_PROTOCOL, 41, "the group uses another protocol", F)                                                   \
    X(UNKNOWN_MEMBER_ID, 42, "unknown group member", F)                                                                        \
    X(INVALID_SESSION_TIMEOUT, 43, "session time-out outside the allowed range", F)                                            \
    X(REBALANCE_IN_PROGRESS, 44, "the group is rebalancing", R)                                                                \
    X(MEMBER_ID_REQUIRED, 45, "join again with the given member id", R)                                                        \
    X(FENCED_INSTANCE_ID, 46, "another member uses this group.instance.id", A)                                                 \
    X(FENCED_MEMBER_EPOCH, 47, "the member was fenced; join the group anew", F)                                                \
    X(STALE_MEMBER_EPOCH, 48, "stale member epoch", R)                                                                         \
    X(GROUP_MAX_SIZE_REACHED, 49, "the group is full", F)                                                                      \
    X(GROUP_ID_NOT_FOUND, 50, "unknown group", F)                                                                              \
    X(NON_EMPTY_GROUP, 51, "the group has members", F)                                                                         \
    X(INVALID_GROUP_ID, 52, "invalid group id", F)                                                                             \
    X(UNSUPPORTED_ASSIGNOR, 53, "unknown assignor", F)                                                                         \
    X(OFFSET_METADATA_TOO_LARGE, 54, "commit metadata too large", F)                                                           \
    X(INVALID_COMMIT_OFFSET, 55, "offset cannot be committed", F)                                                              \
    X(LOG_INCARNATION_MISMATCH, 56, "the offset is of another life of the log", F)                                             \
    X(NO_OFFSET, 57, "no committed offset and no reset policy", F)                                                             \
    X(NOT_SUBSCRIBED, 58, "not subscribed, or assigned by hand", F)                                                            \
    X(INVALID_RECORD, 59, "record refused by the topic", F)                                                                    \
    X(INVALID_PRODUCER_ID_MAPPING, 60, "the producer id is not the transactional id's", F)                                     \
    X(INVALID_TXN_STATE, 61, "not possible in this state of the transaction", F)                                               \
    X(INVALID_TRANSACTION_TIMEOUT, 62, "transaction time-out outside the allowed range", F)                                    \
    X(CONCURRENT_TRANSACTIONS, 63, "the transaction before is still being ended", R)                                           \
    X(PRODUCER_FENCED, 64, "fenced by a newer producer of this transactional id", A)                                           \
    X(TRANSACTION_ABORTABLE, 65, "the transaction can only be aborted", F)                                                     \
    X(TRANSACTIONAL_ID_NOT_FOUND, 66, "unknown transactional id", F)                                                           \
    X(THROTTLED, 67, "slowed by a quota", R)                                                                                   \
    X(INVALID_QUOTA, 68, "invalid quota", F)                                                                                   \
    X(LIMIT_REACHED, 69, "a limit of the daemon is reached", R)                                                                \
    X(INVALID_RECORD_STATE, 70, "the record is not this worker's to acknowledge", F)                                           \
    X(MIRROR_READ_ONLY, 71, "the topic is a mirror: only its link writes to it", F)                                            \
    X(LOGS_DIVERGED, 72, "two copies of a log differ", F)                                                                      \
    X(UNKNOWN_LINK, 73, "unknown link", F)                                                                                     \
    X(LINK_EXISTS, 74, "link already exists", F)                                                                               \
    X(LINK_LOOP, 75, "a link to itself", F)                                                                                    \
    X(READ_ONLY, 76, "opened for reading only", F)                                                                             \
    X(AUTHENTICATION_FAILED, 77, "authentication failed", F)                                                                   \
    X(TLS_FAILED, 78, "TLS connection failed", F)                                                                              \
    X(ORIGIN_FENCED, 79, "another copy of the topic was promoted", F)

#ifdef __cplusplus
extern "C" {
#endif

typedef enum bw_err {
#define BW_ERR_ENUM(name, number, text, cls) BW_ERR_##name = number,
    BW_ERR_MAP(BW_ERR_ENUM)
#undef BW_ERR_ENUM
} bw_err;

#define BW_OK BW_ERR_OK

/* bw_err_name: "DISK_FULL" for BW_ERR_DISK_FULL; "UNKNOWN" for a number this library does not know. Static memory; any thread. */
BW_API const char *bw_err_name(bw_err code);
/* bw_err_text: the one-line text of the code. Static memory; any thread. */
BW_API const char *bw_err_text(bw_err code);
/* bw_err_is_retriable: true when the same call may succeed later without any change by the caller. */
BW_API bool bw_err_is_retriable(bw_err code);
/* bw_err_is_fatal: true when the handle that returned it can only be closed. */
BW_API bool bw_err_is_fatal(bw_err code);
/* bw_error_message: what happened, where and what to do, for this thread's last failed call; "" when none has failed.
 * Valid until the thread's next call into the library. */
BW_API const char *bw_error_message(void);

#ifdef __cplusplus
}
#endif
#endif
