/* Indexes: whatever prefix is called valid is ordered, and each look-up in it equals a walk from the front.
 * First eight bytes: base offset; then the size of the log (4); then targets and entries share the rest. */
#include "fuzz/fuzz.h"

#include "format/index.h"

static uint32_t index_walk(const uint8_t *data, size_t entries, int64_t base, int64_t target)
{
    uint32_t position = 0;
    for (size_t i = 0; i < entries; i++)
        if (target >= base && bw_get_be32(data + 8 * i) <= (uint64_t)target - (uint64_t)base)
            position = bw_get_be32(data + 8 * i + 4);
    return position;
}

static int64_t timeindex_walk(const uint8_t *data, size_t entries, int64_t base, int64_t target)
{
    int64_t offset = base;
    for (size_t i = 0; i < entries; i++)
        if ((int64_t)bw_get_be64(data + 12 * i) < target) offset = base + bw_get_be32(data + 12 * i + 8);
    return offset;
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size < 20 || size > 8192) return 0;
    int64_t base = (int64_t)(bw_get_be64(data) >> 2); /* leaves room for a 32-bit offset on top */
    uint32_t log_bytes = bw_get_be32(data + 8);
    int64_t target = (int64_t)bw_get_be64(data + 12);
    const uint8_t *entries_at = data + 20;
    size_t len = size - 20;

    size_t entries = bw_index_entries(entries_at, len, log_bytes);
    FUZZ_CHECK(entries <= len / 8);
    for (size_t i = 0; i < entries; i++) {
        uint32_t offset = bw_get_be32(entries_at + 8 * i), position = bw_get_be32(entries_at + 8 * i + 4);
        FUZZ_CHECK(position > 0 && position < log_bytes && offset <= INT32_MAX);
        if (i > 0) FUZZ_CHECK(offset > bw_get_be32(entries_at + 8 * i - 8) && position > bw_get_be32(entries_at + 8 * i - 4));
        int64_t at = base + offset;
        for (int64_t t = at - 1; t <= at + 1; t++)
            FUZZ_CHECK(bw_index_floor(entries_at, entries, base, t) == index_walk(entries_at, entries, base, t));
    }
    FUZZ_CHECK(bw_index_floor(entries_at, entries, base, target) == index_walk(entries_at, entries, base, target));

    size_t times = bw_timeindex_entries(entries_at, len);
    FUZZ_CHECK(times <= len / 12);
    for (size_t i = 0; i < times; i++) {
        int64_t at = (int64_t)bw_get_be64(entries_at + 12 * i);
        FUZZ_CHECK(at > 0 && bw_get_be32(entries_at + 12 * i + 8) <= INT32_MAX);
        FUZZ_CHECK(bw_timeindex_floor(entries_at, times, base, at) == timeindex_walk(entries_at, times, base, at));
    }
    FUZZ_CHECK(bw_timeindex_floor(entries_at, times, base, target) == timeindex_walk(entries_at, times, base, target));
    return 0;
}
