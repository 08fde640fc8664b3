/* log/offset_map.h: key -> last offset, for the log cleaner. Bounded memory; single thread.
 *
 * A key is remembered as its 128-bit XXH3 hash under a seed that is drawn for each use, so that no producer can prepare keys that collide:
 * two keys of a billion share a hash with a chance of 2^-69. Open addressing, 24 bytes an entry, doubled as it fills; while it grows the
 * old and the new table are there, so that the most it ever takes is one and a half times `most_bytes`. */
#ifndef BW_LOG_OFFSET_MAP_H
#define BW_LOG_OFFSET_MAP_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bw_offset_entry {
    uint64_t hash[2];
    int64_t offset_plus_1; /* 0: free */
} bw_offset_entry;

typedef struct bw_offset_map {
    bw_offset_entry *slots;
    size_t slot_count, most_slots;
    size_t used;
    uint64_t seed;
} bw_offset_map;

#define BW_OFFSET_MAP_LEAST_BYTES (1u << 16)

/* bw_offset_map_init: at most most_bytes (at least BW_OFFSET_MAP_LEAST_BYTES); little is taken before it is needed. NO_MEMORY, IO. */
bw_err bw_offset_map_init(bw_offset_map *m, size_t most_bytes);
void bw_offset_map_fini(bw_offset_map *m);
/* bw_offset_map_put: offset for the key, which replaces the one before. false: full, and the key is new. */
bool bw_offset_map_put(bw_offset_map *m, const void *key, size_t len, int64_t offset);
/* bw_offset_map_get: -1: not there. */
int64_t bw_offset_map_get(const bw_offset_map *m, const void *key, size_t len);

#endif
