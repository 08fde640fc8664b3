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
    X(NOT_CONNECTED, 39, "connection lost", R)

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
