/* log/offset_map.c: see offset_map.h. Linear probing; the home slot is the hash's high word scaled to the number of slots, so that any
 * number of slots will do and a table can use all that it may. */
#include "log/offset_map.h"

#include "base/os.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { FILL_OF_8 = 7 }; /* full at 7 eighths */

static bw_offset_entry *table_new(size_t slots)
{
    void *p = bw_os_mmap(NULL, slots * sizeof(bw_offset_entry), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

bw_err bw_offset_map_init(bw_offset_map *m, size_t most_bytes)
{
    if (most_bytes < BW_OFFSET_MAP_LEAST_BYTES) most_bytes = BW_OFFSET_MAP_LEAST_BYTES;
    *m = (bw_offset_map){.most_slots = most_bytes / sizeof(bw_offset_entry),
                         .slot_count = BW_OFFSET_MAP_LEAST_BYTES / sizeof(bw_offset_entry)};
    if (bw_os_random(&m->seed, sizeof m->seed) != 0) return bw_fail_errno(errno, "no random numbers");
    m->slots = table_new(m->slot_count);
    return m->slots ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for the cleaner's map");
}

void bw_offset_map_fini(bw_offset_map *m)
{
    if (m->slots) bw_os_munmap(m->slots, m->slot_count * sizeof *m->slots);
    m->slots = NULL;
}

static bw_offset_entry *find(bw_offset_entry *slots, size_t count, const uint64_t hash[2])
{
    size_t i = (size_t)(((unsigned __int128)hash[0] * count) >> 64);
    while (slots[i].offset_plus_1 && (slots[i].hash[0] != hash[0] || slots[i].hash[1] != hash[1]))
        if (++i == count) i = 0;
    return &slots[i];
}

static void hash_of(const bw_offset_map *m, const void *key, size_t len, uint64_t hash[2])
{
    XXH128_hash_t h = XXH3_128bits_withSeed(key, len, m->seed);
    hash[0] = h.high64;
    hash[1] = h.low64;
}

/* false: it is as large as it may be, or there is no memory. */
static bool grow(bw_offset_map *m)
{
    size_t more = m->slot_count * 2 > m->most_slots ? m->most_slots : m->slot_count * 2;
    bw_offset_entry *slots = more > m->slot_count ? table_new(more) : NULL;
    if (!slots) return false;
    for (size_t i = 0; i < m->slot_count; i++)
        if (m->slots[i].offset_plus_1) *find(slots, more, m->slots[i].hash) = m->slots[i];
    bw_os_munmap(m->slots, m->slot_count * sizeof *m->slots);
    m->slots = slots;
    m->slot_count = more;
    return true;
}

bool bw_offset_map_put(bw_offset_map *m, const void *key, size_t len, int64_t offset)
{
    uint64_t hash[2];
    hash_of(m, key, len, hash);
    bw_offset_entry *e = find(m->slots, m->slot_count, hash);
    if (!e->offset_plus_1) {
        if (m->used >= m->slot_count / 8 * FILL_OF_8) {
            if (!grow(m)) return false;
            e = find(m->slots, m->slot_count, hash);
        }
        e->hash[0] = hash[0];
        e->hash[1] = hash[1];
        m->used++;
    }
    e->offset_plus_1 = offset + 1;
    return true;
}

int64_t bw_offset_map_get(const bw_offset_map *m, const void *key, size_t len)
{
    uint64_t hash[2];
    hash_of(m, key, len, hash);
    return find(m->slots, m->slot_count, hash)->offset_plus_1 - 1;
}
