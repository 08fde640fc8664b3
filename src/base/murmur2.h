/* base/murmur2.h: the 32-bit murmur2 of Kafka's Java client (org.apache.kafka.common.utils.Utils.murmur2, seed 0x9747b28c). */
#ifndef BW_BASE_MURMUR2_H
#define BW_BASE_MURMUR2_H

#include <stddef.h>
#include <stdint.h>

uint32_t bw_murmur2(const void *data, size_t len);
/* Java's default partitioner: (murmur2(key) & 0x7fffffff) % partitions. partitions > 0. */
int32_t bw_murmur2_partition(const void *key, size_t len, int32_t partitions);

#endif
