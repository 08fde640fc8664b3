/* proto/message_replica.h: what is carried between peers that hold the same log, types 80 to 89; a part of bw_request and bw_answer.
 *
 * Offsets ranges are [from, upto). A range's hash covers the batches whose last offset lies in it (log/ranges.h), so that it does not
 * depend on where segments begin. See PROTOCOL.md, "Replicas". */
#ifndef BW_PROTO_MESSAGE_REPLICA_H
#define BW_PROTO_MESSAGE_REPLICA_H

#define BW_RANGE_HASHES_MAX 1024u  /* ranges of one RANGE_HASHES */
#define BW_RANGE_BATCHES_MAX 1024u /* batches of one answer of RANGE_BATCHES */

/* RANGE_HASHES: an item of `ranges`, little-endian: u64 hash, u64 bytes, u32 batches, u32 damaged ones. RANGE_BATCHES: an item of `ranges`:
 * i64 base offset, i64 next offset, u64 hash, u32 bytes, u32 flags. EPOCHS: i64 start offset, i32 leader epoch, u32 0. */
#define BW_RANGE_HASH_BYTES 24u
#define BW_RANGE_BATCH_BYTES 32u
#define BW_EPOCH_ITEM_BYTES 16u
enum { BW_RANGE_DAMAGED = 1u /* flags: its checksum does not fit, or nothing readable is there */ };

typedef struct bw_replica_request {
    bw_str peer;      /* REPLICA_ACK: who has the records: a data directory's id, hexadecimal. FENCE: who is the origin now, for people */
    int32_t epoch;    /* REPLICA_ACK: leader epoch of the last batch there. FENCE: of the new origin */
    int64_t visible;  /* REPLICA_ACK: its log's end. REPLICA_STATE: of a mirror: what its origin says is replicated */
    int64_t durable;  /* REPLICA_ACK: all below it is on its disk. REPLICA_STATE: to be answered when all below it is durable */
    int64_t from, upto; /* RANGE_HASHES, RANGE_BATCHES, MEND. FENCE: `from` is where the new epoch began */
    int64_t step;     /* RANGE_HASHES: in parts of so many offsets, the last one perhaps fewer */
    uint64_t scan_max; /* RANGE_HASHES, RANGE_BATCHES: bytes that may be read for it, roughly */
    bool force;       /* PROMOTE: even if another mirror has more that was acknowledged as replicated. MEND: even if the topic is no mirror */
    bool check;       /* RANGE_*: of all bytes, which are read and checked; else of the heads */
} bw_replica_request;

typedef struct bw_replica_answer {
    int64_t replicated; /* REPLICA_ACK: all below it counts as replicated */
    int32_t epoch;      /* REPLICA_ACK, REPLICA_STATE, FENCE, PROMOTE: the leader epoch */
    int32_t wanted;     /* REPLICA_ACK: what counts: 0 nothing (replicas = 0), 1 what is visible at the peer, 2 what is on its disk */
    int64_t next;       /* RANGE_*: how far it came; `upto`, or less: ask for the rest */
    bw_str ranges;      /* RANGE_*, EPOCHS: items as above */
    uint64_t bytes;     /* RANGE_*: read. FENCE: kept */
    bw_str path;        /* FENCE: where, in the data directory; empty: there was nothing, or it was kept before */
} bw_replica_answer;

#endif
