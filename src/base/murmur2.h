/* base/murmur2.h: the 32-bit murmur2 of Kafka's Java client (org.apache.kafka.common.utils.Utils.murmur2, seed 0x9747b28c). */
#ifndef BW_BASE_MURMUR2_H
#define BW_BASE_MURMUR2_H

#include <stddef.h>
#include <stdint.h>

uint32_t bw_murmur2(const void *data, size_t len);

#define BW_MURMUR2_SEED UINT32_C(0x9747b28c)
#define BW_MURMUR2_M    UINT32_C(0x5bd1e995)
#define BW_MURMUR2_R    24
/* bw_murmur2_pair: bw_murmur2 of the 8 bytes that two little-endian words are. */
static inline uint32_t bw_murmur2_pair(uint32_t first, uint32_t second)
{
    uint32_t h = (BW_MURMUR2_SEED ^ 8u) * BW_MURMUR2_M;
    first *= BW_MURMUR2_M;
    second *= BW_MURMUR2_M;
    h ^= (first ^ first >> BW_MURMUR2_R) * BW_MURMUR2_M;
    h = h * BW_MURMUR2_M ^ (second ^ second >> BW_MURMUR2_R) * BW_MURMUR2_M;
    h = (h ^ h >> 13) * BW_MURMUR2_M;
    return h ^ h >> 15;
}
/* Java's default partitioner: (murmur2(key) & 0x7fffffff) % partitions. partitions > 0. */
int32_t bw_murmur2_partition(const void *key, size_t len, int32_t partitions);

#endif
