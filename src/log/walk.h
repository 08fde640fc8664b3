/* log/walk.h: walk the record batches of one segment, from a descriptor (pread, plain or O_DIRECT) or from memory.
 *
 * The walker trusts nothing: every length is bounded by `end`, memory by the buffer (a batch is checksummed in pieces; it is held
 * whole only when asked for, after its checksum was right). Internal to log/. */
#ifndef BW_LOG_WALK_H
#define BW_LOG_WALK_H

#include "format/record_batch.h"

typedef struct bw_walk {
    /* set by init; may be changed between steps */
    int fd;                /* -1: memory */
    const uint8_t *memory;
    uint64_t end;          /* bytes that may be looked at */
    bool direct;           /* the descriptor is O_DIRECT: reads are aligned to 4096 bytes */
    bool check_crc;
    int64_t gaps_below;    /* batches with a base offset below this may skip offsets (compacted before the log came here); 0: none */
    bool gap_seen;         /* one did */
    /* where the walk is */
    uint64_t position;     /* of the next batch */
    int64_t next_offset;   /* the base offset that the next batch must have; -1: any */
    int32_t leader_epoch;  /* of the batch before; it never goes back */
    /* the batch given last */
    uint64_t at;
    uint32_t size;
    bw_batch_header header;
    uint8_t first[BW_BATCH_HEADER_BYTES];
    /* buffer */
    uint8_t *buf;
    size_t cap;
    uint64_t buf_at;
    size_t buf_len;
    bool owns_buf;
} bw_walk;

/* bw_walk_init_fd: room (of at least 8192 bytes, aligned to 4096 with direct) is the caller's and stays in use until fini; NULL:
 * allocated (256 KiB). NO_MEMORY. */
bw_err bw_walk_init_fd(bw_walk *w, int fd, bool direct, uint64_t end, void *room, size_t room_bytes);
void bw_walk_init_memory(bw_walk *w, const void *data, size_t len);
void bw_walk_fini(bw_walk *w);

/* bw_walk_next: BW_OK: at, size, header, first describe the batch; position, next_offset and epoch moved behind it.
 * EMPTY: fresh bytes (size field 0) or too few bytes for a header: the end. CORRUPT: broken structure, past the end, offset or
 * epoch not as expected, wrong checksum; the walk does not move. IO. */
bw_err bw_walk_next(bw_walk *w);
/* bw_walk_plain: many plain batches at once: as many as lie in the buffer from where the walk is, up to BW_WALK_RUN, each of which
 * bw_walk_next would have given, in the same order, and which are neither compressed nor of a producer with an id. The walk moves behind
 * them; at and size are the last one's, header and first are not touched. 0: the next batch is none of these, or lies elsewhere, or the
 * walk checks checksums: it has not moved, bw_walk_next says what is there. first: the batch's first BW_BATCH_HEADER_BYTES, valid until
 * the next call. */
#define BW_WALK_RUN 64u
typedef struct bw_walk_run {
    size_t count;
    const uint8_t *first[BW_WALK_RUN];
    struct { int64_t last_offset, max_timestamp; uint32_t at, size; } of[BW_WALK_RUN];
} bw_walk_run;
size_t bw_walk_plain(bw_walk *w, bw_walk_run *run);
/* bw_walk_batch: all bytes of the batch given last; valid until the next call. */
bw_err bw_walk_batch(bw_walk *w, const uint8_t **data);
/* bw_walk_find_time: from where the walk is: the first record with timestamp >= ts and offset >= start. EMPTY: none (or the end). */
bw_err bw_walk_find_time(bw_walk *w, int64_t ts, int64_t start, int64_t *offset, int64_t *found);
/* bw_walk_zero_from: is everything in [from, end) zero? *at: the first byte that is not. */
bw_err bw_walk_zero_from(bw_walk *w, uint64_t from, bool *zero, uint64_t *at);

#endif
