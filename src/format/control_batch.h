/* format/control_batch.h: Kafka's end-of-transaction markers. Pure: no I/O.
 *
 * A marker is a batch of one record, attributes transactional and control, with the producer's id and epoch, base sequence -1, never
 * compressed:      key    int16 version 0 · int16 type (0 abort, 1 commit)
 *                  value  int16 version 0 · int32 epoch of the coordinator that decided
 * It takes an offset; nobody's records are in it. Control batches of other types (Kafka has some) are passed over. */
#ifndef BW_FORMAT_CONTROL_BATCH_H
#define BW_FORMAT_CONTROL_BATCH_H

#include "format/record_batch.h"

#define BW_MARKER_BYTES 78u

typedef struct bw_marker {
    int64_t producer_id;
    int16_t producer_epoch;
    bool commit;
    int32_t coordinator_epoch;
    int64_t timestamp_ms;
} bw_marker;

/* bw_marker_write: the whole batch, with its checksum; base offset 0, leader epoch 0 (bw_append patches them). BW_MARKER_BYTES. */
size_t bw_marker_write(uint8_t out[BW_MARKER_BYTES], const bw_marker *m);
/* bw_marker_read: a control batch whose header was decoded (data, bw_batch_size(h) bytes). NOT_FOUND: of another type; CORRUPT. */
bw_err bw_marker_read(const uint8_t *data, const bw_batch_header *h, bw_marker *out);

#endif
