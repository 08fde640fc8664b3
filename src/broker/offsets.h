/* broker/offsets.h: committed offsets: what the daemon's other files may ask of them, and the requests.
 *
 * All committed offsets are in memory, by group and partition; the store has them in table `offsets` (offsets_layout.h). A topic is meant
 * by its id: one that is deleted and made again has none.
 *
 * Changes are gathered into a *round*: one transaction of the committer. While one round is on its way to the disk the next gathers; of
 * several changes of the same key in it the newest wins, and all who wait are told when it is on the disk. So a transaction has each key
 * once, however many commits come, and changes take effect in the order in which they came.
 *
 * Life of a log. With each offset is kept the log's leader epoch at the time of the commit. The epoch rises whenever recovery may have
 * lost records, and the log keeps at which offset each began (leader-epoch-checkpoint): an offset beyond the begin of a later epoch than
 * its own refers to records that were cut: it is clamped to that begin, stored, and an event says so. A log that was restored from a copy
 * begins a new life (BW_LIFE_FILE): offsets of older epochs are answered with LOG_INCARNATION_MISMATCH until they are set anew.
 * Both are seen when the partition is opened and once more at the first use, whichever comes first; a crash in between changes nothing.
 *
 * Broker thread only. */
#ifndef BW_BROKER_OFFSETS_H
#define BW_BROKER_OFFSETS_H

#include "broker/committer.h"

/* bw_offsets_load: at the start, before any partition is opened. CORRUPT, NEWER_FORMAT, NO_MEMORY. */
bw_err bw_offsets_load(bw_broker *b);
void bw_offsets_free(bw_broker *b);

/* What is committed for one partition. */
typedef struct bw_committed {
    int64_t offset;       /* -1: none */
    int32_t leader_epoch; /* as the client gave it; -1 */
    int64_t commit_ms;    /* -1 */
    bw_str metadata;      /* valid until the next turn */
} bw_committed;
/* bw_offsets_get: the newest, be it on the disk yet or not: where a new owner of the partition is to begin. BUSY: the partition is not
 * open yet, what is stored may have to be clamped (it is being opened; requests that name it wait by bw_opener_park). LOG_INCARNATION_MISMATCH:
 * it is of another life of the log. With an error out->offset is -1. */
bw_err bw_offsets_get(bw_broker *b, bw_str group, bw_part *p, bw_committed *out);

/* Who waits for a round. done: once, when it is on the disk or failed (the thread's message says why). */
typedef struct bw_offsets_wait {
    struct bw_offsets_wait *next;
    void (*done)(bw_broker *b, struct bw_offsets_wait *w, bw_err e);
} bw_offsets_wait;

typedef struct bw_offset_put {
    bw_part *part;
    int64_t offset;       /* -1: what is committed goes */
    int32_t leader_epoch; /* -1: not known */
    bw_str metadata;
} bw_offset_put;

/* bw_offsets_check: may this be committed: the offset within the log, the epoch of this life of it, the metadata not too large.
 * INVALID_COMMIT_OFFSET, LOG_INCARNATION_MISMATCH, OFFSET_METADATA_TOO_LARGE. */
bw_err bw_offsets_check(bw_broker *b, const bw_offset_put *put);
/* bw_offsets_put: into the round that gathers; unchecked. LIMIT_REACHED, NO_MEMORY: those before the one that failed are in it. Who has to
 * know when it is on the disk calls bw_offsets_await after it. */
bw_err bw_offsets_put(bw_broker *b, bw_str group, const bw_offset_put *puts, size_t count);
/* bw_offsets_with: more entries for the store in the same transaction (c is moved: its entries are the round's then). */
bw_err bw_offsets_with(bw_broker *b, bw_commit *c);
void bw_offsets_await(bw_broker *b, bw_offsets_wait *w);
/* bw_offsets_flush: at the end of a round of the loop: what was gathered sets out if nothing is on its way. */
void bw_offsets_flush(bw_broker *b);

/* bw_offsets_group_known: it has committed offsets. */
bool bw_offsets_group_known(bw_broker *b, bw_str group);
/* bw_offsets_group_idle: its last member left, now: the time after which its offsets expire counts from here. Without the call it counts
 * from the next look at the group (offsets.retention.check.interval.ms). */
void bw_offsets_group_idle(bw_broker *b, bw_str group);
/* bw_group_id_check: INVALID_GROUP_ID: empty, longer than 249 bytes, or with a zero byte. */
bw_err bw_group_id_check(bw_str group);

/* bw_offsets_each_part: the partitions for which the group has committed offsets, in no order. */
void bw_offsets_each_part(bw_broker *b, bw_str group, void (*fn)(void *opaque, bw_part *p), void *opaque);

/* The registry's calls. */
/* bw_offsets_begin: the topics are known: offsets of those that are not there go; expiry begins. */
void bw_offsets_begin(bw_broker *b);
void bw_offsets_part_opened(bw_broker *b, bw_part *p);
void bw_offsets_topic_deleted(bw_broker *b, const bw_topic *t);
/* Commits that wait until the log is durable. */
void bw_offsets_serve(bw_broker *b, bw_part *p);
void bw_offsets_drop_session(bw_broker *b, bw_session *s);

typedef struct bw_offsets_counters {
    uint64_t groups, offsets, bytes; /* that there are */
    uint64_t commits, rounds;        /* since the start: requests' parts, transactions */
} bw_offsets_counters;
void bw_offsets_count(const bw_broker *b, bw_offsets_counters *out);

/* Requests. */
void bw_handle_offset_commit(bw_broker *b, bw_op *op);
void bw_handle_offset_fetch(bw_broker *b, bw_op *op);
void bw_handle_offset_delete(bw_broker *b, bw_op *op);
void bw_handle_list_groups(bw_broker *b, bw_op *op);
void bw_handle_describe_group(bw_broker *b, bw_op *op);
void bw_handle_delete_group(bw_broker *b, bw_op *op);

#endif
