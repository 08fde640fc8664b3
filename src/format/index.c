/* format/index.c: encode, check and search the two sparse indexes of a segment.
 *
 * Invariant: only a prefix that bw_index_entries / bw_timeindex_entries vouched for is searched. A first entry of nothing but
 * zeros is padding: Kafka indexes no batch at position 0, and a look-up without an entry starts there anyway. */
#include "format/index.h"

size_t bw_index_entries(const uint8_t *data, size_t len, uint64_t log_bytes)
{
    size_t room = len / BW_INDEX_ENTRY_BYTES;
    uint32_t last_offset = 0, last_position = 0;
    for (size_t i = 0; i < room; i++) {
        uint32_t offset = bw_get_be32(data + i * BW_INDEX_ENTRY_BYTES);
        uint32_t position = bw_get_be32(data + i * BW_INDEX_ENTRY_BYTES + 4);
        if (offset > INT32_MAX || position > INT32_MAX || position >= log_bytes) return i;
        if (i == 0 ? position == 0 : offset <= last_offset || position <= last_position) return i;
        last_offset = offset;
        last_position = position;
    }
    return room;
}

size_t bw_timeindex_entries(const uint8_t *data, size_t len)
{
    size_t room = len / BW_TIMEINDEX_ENTRY_BYTES;
    uint64_t last_timestamp = 0;
    uint32_t last_offset = 0;
    for (size_t i = 0; i < room; i++) {
        uint64_t timestamp = bw_get_be64(data + i * BW_TIMEINDEX_ENTRY_BYTES);
        uint32_t offset = bw_get_be32(data + i * BW_TIMEINDEX_ENTRY_BYTES + 8);
        if (timestamp > INT64_MAX || offset > INT32_MAX) return i;
        if (i == 0 ? timestamp == 0 : timestamp <= last_timestamp || offset < last_offset) return i;
        last_timestamp = timestamp;
        last_offset = offset;
    }
    return room;
}

uint32_t bw_index_floor(const uint8_t *data, size_t entries, int64_t base_offset, int64_t target)
{
    if (target < base_offset) return 0;
    uint64_t wanted = (uint64_t)target - (uint64_t)base_offset;
    size_t low = 0, high = entries; /* entries below low are <= wanted, from high on they are greater */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (bw_get_be32(data + mid * BW_INDEX_ENTRY_BYTES) <= wanted)
            low = mid + 1;
        else
            high = mid;
    }
    return low == 0 ? 0 : bw_get_be32(data + (low - 1) * BW_INDEX_ENTRY_BYTES + 4);
}

int64_t bw_timeindex_floor(const uint8_t *data, size_t entries, int64_t base_offset, int64_t target_ms)
{
    size_t low = 0, high = entries; /* entries below low are < target, from high on they are not */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if ((int64_t)bw_get_be64(data + mid * BW_TIMEINDEX_ENTRY_BYTES) < target_ms)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == 0) return base_offset;
    uint32_t delta = bw_get_be32(data + (low - 1) * BW_TIMEINDEX_ENTRY_BYTES + 8);
    int64_t offset;
    return __builtin_add_overflow(base_offset, (int64_t)delta, &offset) ? base_offset : offset;
}

void bw_index_put(uint8_t out[8], int64_t base_offset, int64_t offset, uint32_t position)
{
    bw_put_be32(out, (uint32_t)(offset - base_offset));
    bw_put_be32(out + 4, position);
}

void bw_timeindex_put(uint8_t out[12], int64_t base_offset, int64_t timestamp_ms, int64_t offset)
{
    bw_put_be64(out, (uint64_t)timestamp_ms);
    bw_put_be32(out + 8, (uint32_t)(offset - base_offset));
}
