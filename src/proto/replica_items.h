/* proto/replica_items.h: the lists in the `ranges` of RANGE_HASHES, RANGE_BATCHES and EPOCHS (message_replica.h): items of fixed length, as
 * little-endian numbers. Pure. What is decoded came from a peer: nothing of it is believed beyond what is checked here. */
#ifndef BW_PROTO_REPLICA_ITEMS_H
#define BW_PROTO_REPLICA_ITEMS_H

#include "format/names.h"
#include "proto/message.h"

typedef struct bw_range_item {
    uint64_t hash, bytes;
    uint32_t batches, damaged;
} bw_range_item;

typedef struct bw_batch_item {
    int64_t base, next; /* offsets [base, next) */
    uint64_t hash;
    uint32_t bytes;
    uint32_t flags;     /* BW_RANGE_DAMAGED */
} bw_batch_item;

/* put: appended to out. NO_MEMORY. */
bw_err bw_range_item_put(bw_buf *out, const bw_range_item *item);
bw_err bw_batch_item_put(bw_buf *out, const bw_batch_item *item);
bw_err bw_epoch_item_put(bw_buf *out, const bw_epoch_entry *item);

/* bw_range_items: 1 to `most` items. PROTOCOL: another number, or a broken one. */
bw_err bw_range_items(bw_str in, uint32_t most, bw_range_item *out, uint32_t *count);
/* bw_batch_items: at most BW_RANGE_BATCHES_MAX, which out has room for; ascending, none overlaps another, each with its end in (from, next]. */
bw_err bw_batch_items(bw_str in, int64_t from, int64_t next, bw_batch_item *out, uint32_t *count);
/* bw_epoch_items: at most BW_EPOCH_ITEMS_MAX, epochs and offsets not negative, epochs ascending, offsets not descending; malloc'd. */
#define BW_EPOCH_ITEMS_MAX 4096u
bw_err bw_epoch_items(bw_str in, bw_epoch_entry **out, size_t *count);
/* bw_epochs_part: where two logs part, of which one was a copy of the other: the newest epoch that both have ends on each side where its next
 * one begins, or at the log's end; the smaller of these. 0: they have none in common. */
int64_t bw_epochs_part(const bw_epoch_entry *x, size_t x_count, int64_t x_end, const bw_epoch_entry *y, size_t y_count, int64_t y_end);

#endif
