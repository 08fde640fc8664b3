/* log/append.h: append batches to one partition, from any permitted process, under the partition's robust lock.
 *
 * An appender belongs to one thread at a time. Nothing under the lock does I/O or can fault: pages are populated before it is
 * taken, in chunks; capacity and the next segment come from the coordinator. The daemon's appender uses one pwrite instead of
 * stores (use_pwrite), so that no client's truncation kills it. */
#ifndef BW_LOG_APPEND_H
#define BW_LOG_APPEND_H

#include "base/os.h"
#include "log/control.h"
#include "log/owners.h"
#include "log/wait.h"

typedef struct bw_appender bw_appender;

typedef struct bw_appender_options {
    bw_control *control; /* attached for writing; outlives the appender */
    uint32_t partition;
    int dir_fd;          /* the partition's folder; the appender keeps a duplicate. With `folder`: the folder that it lies in */
    bool use_pwrite;
    const bw_fork_guard *guard;
    const char *folder;  /* NULL, or the folder's name in dir_fd, which outlives the appender and is kept by nobody: a mapped window then
                            needs no descriptor */
    _Atomic uint32_t *windows; /* NULL, or counts the windows that are open */
    bw_owners *owners;   /* lets the partition's lock be biased to this appender (log/owners.h); NULL: never */
} bw_appender_options;

typedef struct bw_append_result {
    int64_t base_offset;
    bw_position end; /* durable when slot.durable >= end */
} bw_append_result;

bw_err bw_appender_open(const bw_appender_options *options, bw_appender **out);
void bw_appender_close(bw_appender *a);
/* bw_appender_rest: give back the window; the next append opens it again. Not while a reservation is held. */
void bw_appender_rest(bw_appender *a);

/* bw_append: one encoded, timestamped, checksummed batch of `count` offsets; base offset and leader epoch are patched in the log,
 * not in `batch`. Visible when it returns BW_OK, with its offset; on any error nothing was appended.
 * RECORD_TOO_LARGE, DISK_FULL, POISONED, FENCED (attach again), DELETED, RETIRED, LOCK_HELD (names the holder), LOCK_LOST,
 * NO_COORDINATOR (capacity and spare used up and nobody grants more within the deadline), FORKED. */
bw_err bw_append(bw_appender *a, const uint8_t *batch, size_t len, int32_t count, int64_t max_timestamp, bw_deadline deadline,
                 bw_append_result *out);

/* What a batch that is built in the log must have. */
typedef struct bw_append_place {
    uint32_t room;
    int32_t leader_epoch;
    int64_t base_offset;
} bw_append_place;

/* bw_append_now: as bw_append, while the lock is biased to this appender and thread and everything is at hand: no lock, no fence, no system
 * call. false: not so, nothing was done; call bw_append, which also gives the bias to who has the partition for itself. */
bool bw_append_now(bw_appender *a, const uint8_t *batch, size_t len, int32_t count, int64_t max_timestamp, bw_append_result *out);

/* bw_append_begin_now: the same in two steps, for a batch of `count` offsets that is built in the log itself: the place behind the
 * tail, where out->room >= least bytes may be written; NULL: not now. Then, soon and on the same thread, without another call on this
 * appender: bw_append_end_now (a whole batch of `used` bytes lies there, with base offset and leader epoch as out says; nothing was
 * written behind it) or bw_append_cancel_now (zeroes the `dirty` bytes that were written). */
uint8_t *bw_append_begin_now(bw_appender *a, size_t least, int32_t count, bw_append_place *out);
void bw_append_end_now(bw_appender *a, size_t used, int64_t max_timestamp, bw_append_result *out);
void bw_append_cancel_now(bw_appender *a, size_t dirty);
/* bw_append_many: batches one behind the other, published at once: all of them or none. len together: what fits a segment. out: the first's
 * base offset, the last's end. Errors as above. */
typedef struct bw_append_piece {
    const uint8_t *batch;
    size_t len;
    int32_t count;
} bw_append_piece;
bw_err bw_append_many(bw_appender *a, const bw_append_piece *pieces, size_t n, int64_t max_timestamp, bw_deadline deadline,
                      bw_append_result *out);

/* bw_append_copy: batches of another log, as they are, base offsets and leader epochs too (what the caller has checked: they ascend, and lie
 * in [from, next)); published at once. Only if the log ends at `from`: else OUT_OF_ORDER_SEQUENCE, out->base_offset is its end, and nothing
 * was appended. It then ends at `next`, and its leader epoch is `epoch`. Offsets may be missing at the start, between batches and at the end:
 * not before bw_partition_allow_gaps. next - from: at most UINT32_MAX, or INVALID_ARGUMENT. Errors as bw_append. */
typedef struct bw_append_span {
    int64_t from, next;
    int32_t epoch;
    int64_t max_timestamp;
} bw_append_span;
bw_err bw_append_copy(bw_appender *a, const bw_append_piece *pieces, size_t n, const bw_append_span *span, bw_deadline deadline,
                      bw_append_result *out);

/* bw_append_reserve: as above but returns the place in the log, locked, with the intent recorded; len is the most that will be
 * used. Same thread: commit or abort. Not with use_pwrite (UNSUPPORTED). */
bw_err bw_append_reserve(bw_appender *a, size_t len, int32_t count, bw_deadline deadline, uint8_t **place);
/* bw_append_commit: a whole batch of `used` <= len bytes lies at place (base offset is patched here); what the caller may have
 * written behind it is zeroed. */
void bw_append_commit(bw_appender *a, size_t used, int64_t max_timestamp, bw_append_result *out);
void bw_append_abort(bw_appender *a);

/* bw_appender_lock / unlock: the partition's lock with repair, for the coordinator's few stores under it. window: where repair
 * zeroes; the appender maps what it needs. LOCK_HELD, LOCK_LOST. */
bw_err bw_appender_lock(bw_appender *a, bw_deadline deadline);
void bw_appender_unlock(bw_appender *a);
/* bw_appender_roll_locked: roll to the published spare now (segment.ms, coordinator). false: no spare, or the tail is at 0. */
bool bw_appender_roll_locked(bw_appender *a);

#endif
