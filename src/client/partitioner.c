/* client/partitioner.c: murmur2 for keys, sticky for the rest. *sticky is -1 until the first use. */
#include "client/partitioner.h"

#include "base/murmur2.h"
#include "base/os.h"

int32_t bw_partition_for_key(const void *key, size_t key_len, int32_t partitions)
{
    return partitions == 1 ? 0 : bw_murmur2_partition(key, key_len, partitions);
}

static int32_t pick(int32_t partitions)
{
    uint32_t r = 0;
    if (bw_os_random(&r, sizeof r) < 0) r = 0;
    return (int32_t)(r % (uint32_t)partitions);
}

int32_t bw_sticky_get(_Atomic int32_t *sticky, int32_t partitions)
{
    int32_t p = atomic_load_explicit(sticky, memory_order_relaxed);
    if (p >= 0 && p < partitions) return p;
    int32_t fresh = pick(partitions);
    if (atomic_compare_exchange_strong(sticky, &p, fresh)) return fresh;
    return p >= 0 && p < partitions ? p : fresh;
}

void bw_sticky_next(_Atomic int32_t *sticky, int32_t from, int32_t partitions)
{
    /* A walk in a step of its own spreads as evenly as a random choice, and costs no system call. */
    int32_t next = partitions > 1 ? (from + 1) % partitions : 0;
    atomic_compare_exchange_strong(sticky, &from, next);
}
