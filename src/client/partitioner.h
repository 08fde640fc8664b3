/* client/partitioner.h: which partition a record goes to when the caller did not say. */
#ifndef BW_CLIENT_PARTITIONER_H
#define BW_CLIENT_PARTITIONER_H

#include <busway/record.h>
#include <stdatomic.h>

/* bw_partition_for_key: as Kafka's Java client: murmur2 of the key. */
int32_t bw_partition_for_key(const void *key, size_t key_len, int32_t partitions);
/* bw_sticky_get: the partition that keyless records go to at present; chosen at first use. Any thread. */
int32_t bw_sticky_get(_Atomic int32_t *sticky, int32_t partitions);
/* bw_sticky_next: a batch for `from` is full or gone: go on with another partition, unless another thread has already. */
void bw_sticky_next(_Atomic int32_t *sticky, int32_t from, int32_t partitions);

#endif
