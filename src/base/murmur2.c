/* base/murmur2.c: murmur2 as Kafka's Java client computes it, so that a key falls into the same partition from any client.
 *
 * Source: org.apache.kafka.common.utils.Utils.murmur2 (words are read little-endian, the tail bytes sign-free). */
#include "base/murmur2.h"

#include <string.h>

uint32_t bw_murmur2(const void *data, size_t len)
{
    const uint8_t *p = data;
    uint32_t h = BW_MURMUR2_SEED ^ (uint32_t)len;
    for (; len >= 4; p += 4, len -= 4) {
        uint32_t k;
        memcpy(&k, p, 4);
        k *= BW_MURMUR2_M;
        k ^= k >> BW_MURMUR2_R;
        k *= BW_MURMUR2_M;
        h *= BW_MURMUR2_M;
        h ^= k;
    }
    if (len >= 3) h ^= (uint32_t)p[2] << 16;
    if (len >= 2) h ^= (uint32_t)p[1] << 8;
    if (len >= 1) {
        h ^= p[0];
        h *= BW_MURMUR2_M;
    }
    h ^= h >> 13;
    h *= BW_MURMUR2_M;
    h ^= h >> 15;
    return h;
}

int32_t bw_murmur2_partition(const void *key, size_t len, int32_t partitions)
{
    return (int32_t)(bw_murmur2(key, len) & 0x7fffffffu) % partitions;
}
