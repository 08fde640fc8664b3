/* format/record_batch.h: Kafka's RecordBatch v2 (magic 2). Pure: no I/O.
 *
 * Source: https://kafka.apache.org/documentation/#recordbatch. All fields big-endian.
 *   byte  0 int64 baseOffset            12 int32 partitionLeaderEpoch   23 int32 lastOffsetDelta   43 int64 producerId
 *         8 int32 batchLength (from 12)  16 int8  magic = 2               27 int64 baseTimestamp     51 int16 producerEpoch
 *                                        17 uint32 crc (CRC-32C from 21)  35 int64 maxTimestamp      53 int32 baseSequence
 *                                        21 int16 attributes                                          57 int32 recordCount
 *        61 records (compressed as a whole when attributes say so)
 *   attributes: bits 0-2 codec, 3 timestamp type (1 = log append), 4 transactional, 5 control, 6 delete horizon.
 * Record: varint length, int8 attributes, varlong timestampDelta, varint offsetDelta, varint keyLength (-1 null), key,
 *   varint valueLength (-1 null), value, varint headerCount, headers { varint nameLength, name, varint valueLength, value }.
 * Bytes 0 to 15 lie outside the checksum and are patched in place when the batch is appended. */
#ifndef BW_FORMAT_RECORD_BATCH_H
#define BW_FORMAT_RECORD_BATCH_H

#include "base/bytes.h"

#include <busway/record.h>

#define BW_BATCH_HEADER_BYTES 61u
#define BW_BATCH_MAGIC 2
#define BW_BATCH_CRC_AT 17u
#define BW_BATCH_CRC_FROM 21u
#define BW_RECORD_BYTES_MIN 7 /* length, attributes, four one-byte fields, header count */

enum {
    BW_ATTR_CODEC_MASK = 0x07,
    BW_ATTR_LOG_APPEND_TIME = 0x08,
    BW_ATTR_TRANSACTIONAL = 0x10,
    BW_ATTR_CONTROL = 0x20,
};

typedef struct bw_batch_header {
    int64_t base_offset;
    int32_t batch_length; /* bytes after this field: whole size - 12 */
    int32_t leader_epoch;
    int8_t magic;
    uint32_t crc;
    int16_t attributes;
    int32_t last_offset_delta;
    int64_t base_timestamp;
    int64_t max_timestamp;
    int64_t producer_id;
    int16_t producer_epoch;
    int32_t base_sequence;
    int32_t record_count;
} bw_batch_header;

static inline uint32_t bw_batch_size(const bw_batch_header *h) { return (uint32_t)h->batch_length + 12u; }
static inline int64_t bw_batch_last_offset(const bw_batch_header *h) { return h->base_offset + h->last_offset_delta; }

/* bw_batch_header_decode: decode and check the structure of the header at data (len bytes are there, at least 12 + as much of
 * the header as there is). Checks: magic 2, batchLength >= 49, whole size <= len unless allow_partial, lastOffsetDelta >= 0,
 * recordCount >= 0, base offset >= 0, known codec. Not the checksum.
 * BW_OK; EMPTY when the size field is 0 (fresh bytes: the end of what was written) or fewer than 61 bytes are left;
 * CORRUPT with a message otherwise. */
bw_err bw_batch_header_decode(const uint8_t *data, size_t len, bool allow_partial, bw_batch_header *out);
/* bw_batch_header_encode: write the header of a batch whose records lie behind it, with its checksum (h->crc is ignored). */
void bw_batch_header_encode(uint8_t *batch, const bw_batch_header *h);
/* bw_batch_seal_crc: the checksum anew, over size = bw_batch_size bytes. */
void bw_batch_seal_crc(uint8_t *batch, size_t size);
/* bw_batch_crc_ok: the stored checksum against the bytes from 21; size = bw_batch_size. */
bool bw_batch_crc_ok(const uint8_t *data, size_t size);
/* bw_batch_patch: base offset and leader epoch, outside the checksum. */
void bw_batch_patch(uint8_t *batch, int64_t base_offset, int32_t leader_epoch);
/* bw_batch_set_log_append_time: attribute bit 3, maxTimestamp, and the checksum anew. */
void bw_batch_set_log_append_time(uint8_t *batch, size_t size, int64_t timestamp_ms);
/* bw_batch_set_producer: producer id, epoch and sequence, and the checksum anew. */
void bw_batch_set_producer(uint8_t *batch, size_t size, int64_t producer_id, int16_t producer_epoch, int32_t base_sequence);

/* bw_batch_validate: everything a broker must check before it stores a batch from outside: header, size == len, checksum,
 * recordCount == lastOffsetDelta + 1, not control, every record decodes exactly (decompressing, output-bounded by max_plain
 * bytes). RECORD_TOO_LARGE, CORRUPT, UNKNOWN_CODEC. deep false skips the records. */
bw_err bw_batch_validate(const uint8_t *data, size_t len, size_t max_plain, bool deep, bw_batch_header *out);
/* bw_batch_check_records: every record of a batch whose header was decoded (data, bw_batch_size(h) bytes): as many as announced,
 * each decodes exactly with its headers, offset deltas increase and stay within lastOffsetDelta. Compacted, transactional and
 * control batches pass too (for verify and recovery). As bw_batch_validate for max_plain and errors. */
bw_err bw_batch_check_records(const uint8_t *data, const bw_batch_header *h, size_t max_plain);

/* ---- building ---- */

/* A batch under construction. Reused from batch to batch: the buffer keeps its memory. Offsets are 0-based deltas. */
typedef struct bw_batch_builder {
    bw_buf buf;      /* header room of 61 bytes, then the records, plain */
    bw_buf packed;   /* compressed result */
    int64_t base_timestamp;
    int64_t max_timestamp;
    int32_t count;
    bool fixed; /* buf is somebody else's memory (bw_batch_builder_place): it never grows */
} bw_batch_builder;

void bw_batch_builder_init(bw_batch_builder *b);
void bw_batch_builder_fini(bw_batch_builder *b);
void bw_batch_builder_reset(bw_batch_builder *b);
/* bw_batch_builder_place: as reset, and the batch is built in `room` bytes (at least 61) at `place`, which stay the caller's: a record
 * that does not fit is RECORD_TOO_LARGE, without a message. The builder must never have had memory of its own. */
static inline void bw_batch_builder_place(bw_batch_builder *b, uint8_t *place, size_t room)
{
    b->buf = (bw_buf){.data = place, .len = BW_BATCH_HEADER_BYTES, .cap = room < INT32_MAX ? room : INT32_MAX};
    b->count = 0;
    b->base_timestamp = b->max_timestamp = 0;
    b->fixed = true;
}
/* bw_batch_builder_add: encode one record. r->timestamp_ms must be set (not negative). NO_MEMORY, INVALID_ARGUMENT (lengths over
 * INT32_MAX, a NULL pointer with a length), RECORD_TOO_LARGE (the batch would pass INT32_MAX bytes). On error it is as before. */
bw_err bw_batch_builder_add(bw_batch_builder *b, const bw_record *r);
/* bw_batch_builder_add_many: the same for several, now_ms for those without a timestamp; faster. A failed one leaves those before it.
 * RECORD_TOO_LARGE also when the batch grows over max_bytes. */
bw_err bw_batch_builder_add_many(bw_batch_builder *b, const bw_record *records, size_t count, int64_t now_ms, size_t max_bytes);
/* bw_batch_single_size: bytes of a batch with this one record, if bw_batch_single_write can write it: no key, no headers, a value of
 * 16 to 8000 bytes, a processor with CRC-32C instructions; else 0. */
size_t bw_batch_single_size(const bw_record *r);
/* bw_batch_single_write: the whole batch, as a builder with only this record would give it, with base offset and leader epoch. Reads
 * nothing of place. */
size_t bw_batch_single_write(uint8_t *place, const bw_record *r, int64_t timestamp_ms, int64_t base_offset, int32_t leader_epoch);

/* bw_batch_single_finish: as bw_batch_reserve_finish with plain options, with base offset and leader epoch, for the shape above; 0 for
 * any other: nothing was done. */
size_t bw_batch_single_finish(uint8_t *place, const bw_record *meta, size_t value_max, size_t value_len, int64_t base_offset,
                              int32_t leader_epoch);

/* bw_batch_builder_size: bytes of the batch if it were finished now without compression. */
size_t bw_batch_builder_size(const bw_batch_builder *b);
/* bw_record_encoded_size: bytes that the record would add (upper bound; real size is at most 17 bytes less). */
size_t bw_record_encoded_size(const bw_record *r);

typedef struct bw_batch_options {
    bw_codec codec;
    int64_t log_append_time;  /* BW_NO_TIMESTAMP: create time */
    int64_t producer_id;      /* -1: none */
    int16_t producer_epoch;   /* -1 */
    int32_t base_sequence;    /* -1 */
    bool transactional;
} bw_batch_options;
#define BW_BATCH_OPTIONS_INIT {BW_CODEC_NONE, BW_NO_TIMESTAMP, -1, -1, -1, false}

/* bw_batch_builder_finish: header, compression (kept plain when that is not smaller is NOT done: the codec is what was asked),
 * checksum. *batch points into the builder until its next use. Base offset 0, leader epoch 0. */
bw_err bw_batch_builder_finish(bw_batch_builder *b, const bw_batch_options *options, uint8_t **batch, size_t *len);

/* ---- reserve in place ---- one record batch of one record whose value is written later, straight into the log. */

/* bw_batch_reserved_size: bytes of a batch of one record with meta's key and headers and a value of at most value_max; SIZE_MAX
 * when there is no such batch (over INT32_MAX bytes, NULL with a length, a negative timestamp). meta's value is not read.
 * The two calls below are only for what this one gave a size for. */
size_t bw_batch_reserved_size(const bw_record *meta, size_t value_max);
/* bw_batch_reserve_begin: lay out everything before the value at dst; returns where the value goes. */
uint8_t *bw_batch_reserve_begin(uint8_t *dst, const bw_record *meta, size_t value_max);
/* bw_batch_reserve_finish: value_len bytes are there: write lengths (padded varints), headers behind it, batch header and
 * checksum. Returns the whole size. */
size_t bw_batch_reserve_finish(uint8_t *dst, const bw_record *meta, size_t value_max, size_t value_len,
                               const bw_batch_options *options);

/* ---- reading ---- */

/* Iterates the records of a plain (or decompressed) record section. */
typedef struct bw_record_iter {
    bw_cursor at;
    int64_t base_offset;
    int64_t base_timestamp;
    int64_t append_time; /* BW_NO_TIMESTAMP: create time */
    int32_t left;
} bw_record_iter;

/* bw_record_iter_init: records/len is the plain record section (bytes from 61, or what the codec gave). */
void bw_record_iter_init(bw_record_iter *it, const bw_batch_header *h, const uint8_t *records, size_t len);
/* bw_record_iter_next: 1, 0 at the end, -1 broken (message set; also when bytes are left over after the last record). A record's
 * headers are decoded by bw_header_iter only; here they are bounded by the record. */
static inline int bw_record_iter_next(bw_record_iter *it, bw_record_view *out);

/* Any record, all lengths and all errors. Out of line. */
int bw_record_iter_next_any(bw_record_iter *it, bw_record_view *out);

#include "format/record_decode.h"

#endif
