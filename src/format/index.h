/* format/index.h: Kafka's sparse segment indexes. Hints: every look-up is bounds-checked and a broken index is the same as none.
 *   .index      entries of 8 bytes:  int32 offset - base, int32 position of a batch in the .log         (increasing)
 *   .timeindex  entries of 12 bytes: int64 largest timestamp so far, int32 offset - base of that record  (increasing)
 * The offset of an .index entry is the *last* one of the batch at that position, that of a .timeindex entry lies in the batch with
 * that timestamp (its last offset will do): Kafka's dump tool checks both. There is no entry for position 0.
 * Files may have zero padding at their end (Kafka preallocates); it is not an entry (KAFKA-10207). */
#ifndef BW_FORMAT_INDEX_H
#define BW_FORMAT_INDEX_H

#include "base/bytes.h"

#define BW_INDEX_ENTRY_BYTES 8u
#define BW_TIMEINDEX_ENTRY_BYTES 12u
#define BW_INDEX_INTERVAL_BYTES 4096u /* index.interval.bytes */

/* bw_index_entries: how many leading entries are valid (strictly increasing offsets and positions, positions < log_bytes). */
size_t bw_index_entries(const uint8_t *data, size_t len, uint64_t log_bytes);
size_t bw_timeindex_entries(const uint8_t *data, size_t len);
/* bw_index_floor: position of the last entry with offset <= target; 0 when there is none. */
uint32_t bw_index_floor(const uint8_t *data, size_t entries, int64_t base_offset, int64_t target);
/* bw_timeindex_floor: offset to start scanning from so that the first record with timestamp >= target is not missed:
 * the offset of the last entry with timestamp < target, or base_offset. */
int64_t bw_timeindex_floor(const uint8_t *data, size_t entries, int64_t base_offset, int64_t target_ms);
void bw_index_put(uint8_t out[8], int64_t base_offset, int64_t offset, uint32_t position);
void bw_timeindex_put(uint8_t out[12], int64_t base_offset, int64_t timestamp_ms, int64_t offset);

#endif
