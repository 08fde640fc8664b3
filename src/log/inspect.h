/* log/inspect.h: offline checks of one segment, on a walk over a file or over memory. Internal to log/ (and its fuzzer). */
#ifndef BW_LOG_INSPECT_H
#define BW_LOG_INSPECT_H

#include "format/names.h"
#include "log/producers.h"
#include "log/txn_index.h"
#include "log/walk.h"

#include <busway/inspect.h>

typedef struct bw_inspection {
    bw_finding_fn finding;
    bw_progress_fn progress;
    void *opaque;
    bw_verify_totals *totals;
    uint64_t done_bytes, total_bytes;
    size_t plain_max; /* most bytes of one batch's decompressed records */
    const char *path; /* of what is being looked at */
} bw_inspection;

void bw_inspection_report(bw_inspection *in, uint64_t position, int64_t offset, bool is_error, const char *format, ...)
    BW_PRINTF(5, 6);

/* Transactions: the table goes on from segment to segment, the list is of one. */
typedef struct bw_txn_facts {
    bw_producers *producers; /* NULL: they are not looked at */
    bw_aborted_list aborted; /* the segment's .txnindex */
    size_t at;               /* of its entries that the walk has passed */
} bw_txn_facts;

/* What is known about a segment beside its bytes. Zero or NULL: not there. */
typedef struct bw_segment_facts {
    const bw_seal *seal;
    const uint8_t *index, *timeindex; /* whole files */
    size_t index_len, timeindex_len;
    const bw_epoch_entry *epochs;
    size_t epoch_count;
    bw_txn_facts *txn; /* may be NULL */
    bool is_last; /* the newest: it may end in allocated zeros, or uncleanly */
    int64_t next_base; /* where the next one begins; what follows a last batch that ends there means nothing. -1: not known */
} bw_segment_facts;

/* bw_inspect_segment: walks w (set up with base offset and end; a batch that is not as expected is reported and, if its length is
 * believable, passed over). *next_offset: behind the last good batch, -1 when that is not known. IO, NO_MEMORY. */
bw_err bw_inspect_segment(bw_inspection *in, bw_walk *w, const bw_segment_facts *facts, int64_t *next_offset);

/* bw_inspect_records: all records of the batch given last by w; for each one fn (may be NULL). CORRUPT with a message. */
typedef bool (*bw_inspect_record_fn)(void *opaque, const bw_record_view *record);
bw_err bw_inspect_records(bw_walk *w, size_t plain_max, bw_buf *plain, bw_inspect_record_fn fn, void *opaque, uint64_t *count);

/* bw_inspect_transaction: the sound batch given last by w. lags: the index may be behind the log, that is no error (verify_txn.c). */
void bw_inspect_transaction(bw_inspection *in, bw_walk *w, bw_txn_facts *t, bool lags);
void bw_inspect_txn_end(bw_inspection *in, const bw_walk *w, bw_txn_facts *t);

/* bw_inspect_dump: the walk behind bw_dump. */
bw_err bw_inspect_dump(bw_walk *w, bool records, size_t plain_max, bw_dump_fn fn, void *opaque);

#endif
