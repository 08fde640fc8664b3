/* log/compact_pass.h: the inside of a compaction pass, shared by compact*.c. Not for others. See compact.h for how it works. */
#ifndef BW_LOG_COMPACT_PASS_H
#define BW_LOG_COMPACT_PASS_H

#include "format/batch_filter.h"
#include "log/compact.h"
#include "log/offset_map.h"
#include "log/segment.h"

/* A segment as it was when the pass began. */
typedef struct compact_span {
    int64_t base_offset, next_offset;
    uint32_t seq, length;
    uint64_t inode;
} compact_span;

/* A transaction that was aborted: offsets of its first batch and of its marker. */
typedef struct compact_aborted {
    int64_t producer_id, first, last;
    bool seen; /* the cleaning met a batch of it */
} compact_aborted;

typedef struct compact_producer compact_producer;

typedef struct compaction {
    bw_partition *p;
    const bw_compact_options *o;
    bw_compact_report *report;
    int dir_fd;
    compact_span *spans; /* the whole log; [0, cleanable) may be rewritten */
    size_t count, cleanable;
    uint32_t segment_bytes, index_interval; /* of the configuration, as it was when the pass began */
    int64_t disk_reserve_bytes;
    int64_t first_dirty, upto;
    int64_t past_ms;    /* what has a horizon at or before this may go: wall clock, or the steady one when that is behind */
    int64_t horizon_ms; /* a new horizon: delete.retention.ms after the later of the two */
    bool horizons;      /* one was set, or met and not passed */
    bw_offset_map map;
    compact_producer *producers; /* hash by id */
    size_t producer_count;
    bool keep_empty; /* more producers than the table holds: each batch may be somebody's last */
    compact_aborted *aborted; /* by producer, then offset */
    size_t aborted_count, aborted_cap;
    bw_batch_filter filter;
    bw_buf plain;
    uint64_t moved; /* bytes since go_on was asked */
} compaction;

/* compact.c */
/* compaction_step: bytes were read or written. WOKEN: go_on said no; DELETED. */
bw_err compaction_step(compaction *c, uint64_t bytes);
/* compaction_open: a span's file, for reading. BUSY: deleted meanwhile. */
bw_err compaction_open(compaction *c, const compact_span *s, int *fd);

/* compact_scan.c */
typedef enum compact_marker { MARKER_NONE, MARKER_ABORT, MARKER_COMMIT } compact_marker;
bw_err compaction_scan(compaction *c);
bw_err compaction_fill_map(compaction *c);
void compaction_forget(compaction *c); /* frees what the scan found */
/* compaction_is_last: the newest batch of a producer that is still active. */
bool compaction_is_last(const compaction *c, const bw_batch_header *h);
/* compaction_find_aborted: the aborted transaction that the batch belongs to; NULL: none. */
compact_aborted *compaction_find_aborted(const compaction *c, const bw_batch_header *h);
/* compaction_note_open / end: in the order of the log: a batch of a transaction was met; its marker: true: no batch was met since. */
void compaction_note_open(compaction *c, int64_t producer_id);
bool compaction_end_open(compaction *c, int64_t producer_id);
/* compaction_marker: what kind of control batch; empty ones are NONE. */
bw_err compaction_marker(compaction *c, const uint8_t *batch, const bw_batch_header *h, compact_marker *out);

/* compact_clean.c: spans [from, from + *n), as many as fit, as one segment, and the swap. */
bw_err compaction_clean(compaction *c, size_t from, size_t *n);

/* compact_swap.c */
#define COMPACT_CLEANED ".cleaned"
#define COMPACT_SWAP ".seal.swap"
typedef struct compact_new {
    bw_seal seal;
    int64_t max_timestamp;
} compact_new;
/* compaction_swap: "<base>.log.cleaned", its indexes and "<base>.seal.cleaned" are there and synced. BUSY: the old ones are not what they
 * were; nothing was done. */
bw_err compaction_swap(compaction *c, size_t from, size_t n, const compact_new *fresh);
void compaction_unlink_cleaned(int dir_fd, int64_t base_offset);

#endif
