/* format/names.h: topic names, and the names and small text files of the data directory (Kafka's layout).
 *   <topic>-<partition>/                    partition folder
 *     <base offset, 20 digits>.log|.index|.timeindex|.txnindex|.seal
 *     <sequence, 10 digits>.spare           preallocated next segment
 *     partition.metadata                    "version: 0\ntopic_id: <22 base64 characters>\n"
 *     leader-epoch-checkpoint               "0\n<entries>\n<epoch> <start offset>\n…"
 *     log-start-offset-checkpoint           "0\n<offset>\n": only where the log starts inside its first segment
 *     gaps-offset-checkpoint                "0\n<offset>\n": only where Kafka had compacted the log before it came here: below this
 *                                           offset a batch or segment may skip offsets; from it on they are dense
 *     life-epoch-checkpoint                 "0\n<epoch>\n": only where the log was restored from a copy: the first epoch of its present life
 * .seal, 48 bytes, little-endian: magic "BWSEAL01", u32 format 1, u32 final length, i64 base offset, i64 next offset,
 *   u64 batches, u32 root, u32 crc32c of bytes 0..43. root: Merkle root (murmur2 of two nodes as 8 bytes, an odd one carried
 *   up) whose leaves are the CRC-32C of each batch's first 21 bytes (its own checksum vouches for the rest). A CRC would not do for
 *   the pairs: it is linear, so that the same change in two batches, or two batches swapped, could leave the root as it was. */
#ifndef BW_FORMAT_NAMES_H
#define BW_FORMAT_NAMES_H

#include "base/bytes.h"
#include "base/uuid.h"

#include <busway/record.h>

#define BW_PARTITION_DIR_MAX (BW_TOPIC_NAME_MAX + 12)
#define BW_SEGMENT_NAME_MAX 40
#define BW_SEAL_BYTES 48u

/* bw_topic_name_check: 1..249 of [A-Za-z0-9._-], not "." or "..". INVALID_TOPIC with what is wrong and where. */
bw_err bw_topic_name_check(const char *name, size_t len);
/* bw_topic_names_collide: equal when '.' and '_' are taken for the same (Kafka's metric names). */
bool bw_topic_names_collide(const char *a, const char *b);

void bw_partition_dir_name(char out[BW_PARTITION_DIR_MAX], const char *topic, int32_t partition);
/* bw_partition_dir_parse: "<topic>-<n>" -> topic (NUL-terminated copy) and n; false for anything else. */
bool bw_partition_dir_parse(const char *name, char topic[BW_TOPIC_NAME_MAX + 1], int32_t *partition);
/* suffix: ".log", ".index", … */
void bw_segment_name(char out[BW_SEGMENT_NAME_MAX], int64_t base_offset, const char *suffix);
bool bw_segment_name_parse(const char *name, const char *suffix, int64_t *base_offset);
void bw_spare_name(char out[BW_SEGMENT_NAME_MAX], uint32_t seq);
bool bw_spare_name_parse(const char *name, uint32_t *seq);

size_t bw_partition_metadata_encode(char out[64], const bw_uuid *topic_id);
bw_err bw_partition_metadata_decode(const char *data, size_t len, bw_uuid *topic_id);

typedef struct bw_epoch_entry { int32_t epoch; int64_t start_offset; } bw_epoch_entry;
bw_err bw_epoch_checkpoint_encode(const bw_epoch_entry *entries, size_t count, bw_buf *out);
/* entries: malloc'd, the caller frees. CORRUPT when it is not of this form; bounded by len. */
bw_err bw_epoch_checkpoint_decode(const char *data, size_t len, bw_epoch_entry **entries, size_t *count);

typedef struct bw_seal { uint32_t length; int64_t base_offset; int64_t next_offset; uint64_t batches; uint32_t root; } bw_seal;
void bw_seal_encode(uint8_t out[BW_SEAL_BYTES], const bw_seal *seal);
bw_err bw_seal_decode(const uint8_t *data, size_t len, bw_seal *seal);

/* The running Merkle root: O(log n) memory. Zero-initialised is empty. */
typedef struct bw_merkle { uint32_t level[64]; uint64_t count; } bw_merkle;
void bw_merkle_add(bw_merkle *m, const uint8_t first21[21]);
/* bw_merkle_add_many: the same for n of them, one behind the other; faster. */
void bw_merkle_add_many(bw_merkle *m, const uint8_t *const *first21, size_t n);
uint32_t bw_merkle_root(const bw_merkle *m);

#endif
