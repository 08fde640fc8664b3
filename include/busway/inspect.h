/* busway/inspect.h: look into data directories and segment files offline; no daemon, nothing is changed. */
#ifndef BUSWAY_INSPECT_H
#define BUSWAY_INSPECT_H

#include <busway/error.h>
#include <busway/record.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One finding of bw_verify. */
typedef struct bw_finding {
    const char *path;      /* file or folder */
    uint64_t position;     /* byte in the file */
    int64_t offset;        /* record offset where known, else -1 */
    bool is_error;         /* false: a note (a hint file that will be rebuilt, an unclean end) */
    const char *message;
} bw_finding;

typedef struct bw_verify_totals {
    uint64_t topics, partitions, segments, batches, records, bytes, errors, notes;
} bw_verify_totals;

typedef void (*bw_finding_fn)(void *opaque, const bw_finding *finding);
typedef void (*bw_progress_fn)(void *opaque, uint64_t done_bytes, uint64_t total_bytes);

/* bw_verify: check every byte of a data directory, partition folder or segment file: checksums, order and continuity of
 * offsets, epochs, record encoding (decompressed), indexes, seals. BW_OK: nothing wrong; CORRUPT: totals->errors > 0;
 * NEWER_FORMAT, NOT_FOUND, NOT_PERMITTED, IO. Callbacks may be NULL. */
BW_API bw_err bw_verify(const char *path, bw_finding_fn finding, bw_progress_fn progress, void *opaque, bw_verify_totals *totals);

/* What a control batch says of its producer's transaction. */
typedef enum bw_dump_marker { BW_DUMP_NO_MARKER = 0, BW_DUMP_ABORT = 1, BW_DUMP_COMMIT = 2 } bw_dump_marker;

/* A batch header as found on disk, for bw_dump. */
typedef struct bw_dump_batch {
    uint64_t position;
    uint32_t size; /* bytes, whole */
    int64_t base_offset, last_offset;
    int32_t count, leader_epoch;
    int16_t attributes;
    bw_codec codec;
    bw_timestamp_type timestamp_type;
    int64_t base_timestamp_ms, max_timestamp_ms;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    uint32_t crc;
    bool crc_ok, is_transactional, is_control;
    bw_dump_marker marker;
} bw_dump_batch;

/* Return false to stop. record is NULL when records were not asked for or the batch ended. */
typedef bool (*bw_dump_fn)(void *opaque, const bw_dump_batch *batch, const bw_record_view *record);

/* bw_dump: walk one segment file; fn is called once a batch with record NULL, then, with records true, once a record.
 * Stops at the end of data (zero header or end of file). CORRUPT with position in the message at the first broken batch. */
BW_API bw_err bw_dump(const char *segment_path, bool records, bw_dump_fn fn, void *opaque);

#ifdef __cplusplus
}
#endif
#endif
