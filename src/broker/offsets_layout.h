/* broker/offsets_layout.h: keys and values of the store's table `offsets`. Pure; decoding is bounded by the bytes that are there.
 *
 *   group id · 0x00 · topic id 16 · be32 partition   ->  u8 1 · be64 offset · be32 leader epoch · be32 log's epoch · be64 committed, ms ·
 *                                                         be16 length · metadata
 *   group id · 0x00                                  ->  u8 1 · be64 idle since, ms; -1: it had members when this was written
 * The log's epoch is what the log had when the offset was committed; it says to which life of the log the offset belongs (offsets.h). The
 * second entry is there for groups that had members once; a group without it is one of simple consumers. */
#ifndef BW_BROKER_OFFSETS_LAYOUT_H
#define BW_BROKER_OFFSETS_LAYOUT_H

#include "base/bytes.h"
#include "base/uuid.h"
#include "proto/message.h"

#define BW_OFFSET_GROUP_MAX 249u /* bytes of a group's id */
#define BW_OFFSET_KEY_MAX (BW_OFFSET_GROUP_MAX + 1 + 20)
#define BW_OFFSET_METADATA_MAX 65535u
#define BW_OFFSET_VALUE_HEAD 27u
#define BW_OFFSET_IDLE_BYTES 9u

typedef struct bw_offset_key {
    bw_str group;
    bool of_group; /* the group's own entry: topic and partition do not count */
    bw_uuid topic;
    uint32_t partition;
} bw_offset_key;

typedef struct bw_offset_stored {
    int64_t offset;
    int32_t leader_epoch, log_epoch;
    int64_t commit_ms;
    bw_str metadata;
} bw_offset_stored;

/* bw_offset_key_encode: its length; group.len is at most BW_OFFSET_GROUP_MAX. */
size_t bw_offset_key_encode(const bw_offset_key *k, uint8_t out[BW_OFFSET_KEY_MAX]);
/* bw_offset_key_decode, _value_decode, _idle_decode: CORRUPT; NEWER_FORMAT. Views into data. */
bw_err bw_offset_key_decode(const void *data, size_t len, bw_offset_key *out);
/* bw_offset_value_encode: without the metadata, which follows. */
void bw_offset_value_encode(const bw_offset_stored *v, uint8_t out[BW_OFFSET_VALUE_HEAD]);
bw_err bw_offset_value_decode(const void *data, size_t len, bw_offset_stored *out);
void bw_offset_idle_encode(int64_t idle_ms, uint8_t out[BW_OFFSET_IDLE_BYTES]);
bw_err bw_offset_idle_decode(const void *data, size_t len, int64_t *idle_ms);

#endif
