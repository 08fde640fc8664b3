/* format/batch_filter.h: a record batch again without some of its records, as Kafka's log cleaner makes it. Pure: memory to memory.
 *
 * What stays as it was: base offset, last offset delta (so that the batch still spans the same offsets), leader epoch, producer id, epoch
 * and base sequence, codec, timestamp type, transactional and control bits, and every kept record's offset, timestamp, key, value and
 * headers. What is made anew: record count, largest timestamp (of create time batches), checksum.
 * A batch of which nothing is kept has a header only, no codec, and its largest timestamp as base timestamp.
 * Delete horizon (attribute bit 6): the base timestamp field holds the time from which the batch's tombstones may go; timestamps are
 * deltas to it as to any base, so that no reader need know. */
#ifndef BW_FORMAT_BATCH_FILTER_H
#define BW_FORMAT_BATCH_FILTER_H

#include "format/record_batch.h"

enum { BW_ATTR_DELETE_HORIZON = 0x40 };

/* bw_batch_delete_horizon: -1: none was set. */
static inline int64_t bw_batch_delete_horizon(const bw_batch_header *h)
{
    return h->attributes & BW_ATTR_DELETE_HORIZON ? h->base_timestamp : -1;
}

typedef enum bw_filter_verdict {
    BW_FILTER_DROP = 0,
    BW_FILTER_KEEP = 1,
    BW_FILTER_KEEP_TOMBSTONE = 2, /* kept for now: the batch is to have a delete horizon */
} bw_filter_verdict;

typedef bw_filter_verdict (*bw_filter_fn)(void *opaque, const bw_record_view *record);

/* Reused from batch to batch; zero-initialised is empty. */
typedef struct bw_batch_filter {
    bw_buf plain; /* decompressed records */
    bw_buf kept;  /* those that stay, plain */
    bw_buf out;
    /* of the last batch */
    uint32_t records, records_kept;
    bool horizon_set; /* it has a horizon now and had none */
} bw_batch_filter;

void bw_batch_filter_fini(bw_batch_filter *f);
/* bw_batch_filter_run: batch: bw_batch_size(h) bytes with a right checksum. horizon: what to set when a tombstone is kept and the batch
 * has no horizon yet. *out is `batch` itself when nothing changed, else it points into f until its next use. CORRUPT, RECORD_TOO_LARGE
 * (plain records over max_plain), NO_MEMORY. */
bw_err bw_batch_filter_run(bw_batch_filter *f, const uint8_t *batch, const bw_batch_header *h, size_t max_plain, int64_t horizon,
                           bw_filter_fn fn, void *opaque, const uint8_t **out, size_t *len);
/* bw_batch_filter_horizon: the batch with a delete horizon, all records kept (for a control batch); else as run. */
bw_err bw_batch_filter_horizon(bw_batch_filter *f, const uint8_t *batch, const bw_batch_header *h, int64_t horizon, const uint8_t **out,
                               size_t *len);
/* bw_batch_filter_empty: a batch's header alone, no records. */
bw_err bw_batch_filter_empty(bw_batch_filter *f, const bw_batch_header *h, const uint8_t **out, size_t *len);

/* bw_batch_each: fn for each record, decompressed into *plain; false stops. CORRUPT, RECORD_TOO_LARGE, NO_MEMORY. */
typedef bool (*bw_record_fn)(void *opaque, const bw_record_view *record);
bw_err bw_batch_each(const uint8_t *batch, const bw_batch_header *h, size_t max_plain, bw_buf *plain, bw_record_fn fn, void *opaque);
/* bw_batch_check_keys: every record has a key. INVALID_RECORD names the first that has none; errors as bw_batch_each. */
bw_err bw_batch_check_keys(const uint8_t *batch, const bw_batch_header *h, size_t max_plain);

#endif
