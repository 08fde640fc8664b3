/* broker/vector.h: which records of which logs a merged partition has: for each log that records come from, the next offset wanted. Pure.
 *
 * A record's *mark* says where it was written first: data directory, its incarnation, topic and partition there, offset. It travels with
 * the record in its header "busway.origin", through any number of daemons:
 *   <id of the data directory, 22>.<incarnation, hex>/<id of the topic, 22>.<partition>@<offset>
 * A record is admitted when its offset is not below what the vector has for its log; so rings and meshes deliver it once.
 *
 * Layout of a vector, big-endian: u8 version 1 · u64 valid: what the log has from this offset on is not in it · u32 count · count times
 * { u8 kind · 16 data directory · u64 incarnation · 16 topic · u32 partition · u64 next }. Kind 0: records that were admitted. Kind 1: how
 * far a link has come in that log, whoever wrote the records there first: a hint, never too far. */
#ifndef BW_BROKER_VECTOR_H
#define BW_BROKER_VECTOR_H

#include "base/bytes.h"
#include "base/uuid.h"

#include <busway/record.h>

#define BW_ORIGIN_HEADER "busway.origin"
#define BW_MARK_TEXT_MAX 112u
#define BW_VECTOR_MAX 4096u /* entries */
#define BW_VECTOR_ENTRY_BYTES 53u

typedef struct bw_log_id {
    bw_uuid origin;
    uint64_t incarnation;
    bw_uuid topic;
    int32_t partition;
} bw_log_id;

typedef struct bw_mark {
    bw_log_id log;
    int64_t offset;
} bw_mark;

/* bw_mark_print: the length. bw_mark_parse: false: it is none. */
size_t bw_mark_print(const bw_mark *m, char out[BW_MARK_TEXT_MAX]);
bool bw_mark_parse(const void *text, size_t len, bw_mark *out);

typedef enum bw_vector_kind { BW_VECTOR_RECORDS = 0, BW_VECTOR_LINK = 1 } bw_vector_kind;
typedef struct bw_vector_entry {
    bw_log_id log;
    bw_vector_kind kind;
    int64_t next;
} bw_vector_entry;

/* Zero-initialised is empty. */
typedef struct bw_vector {
    bw_vector_entry *items;
    size_t count, cap;
    size_t last; /* found last */
    int64_t valid;
} bw_vector;

/* bw_vector_next: 0 when the log is not known. */
int64_t bw_vector_next(bw_vector *v, bw_vector_kind kind, const bw_log_id *log);
/* bw_vector_raise: never goes back. NO_MEMORY; LIMIT_REACHED. */
bw_err bw_vector_raise(bw_vector *v, bw_vector_kind kind, const bw_log_id *log, int64_t next);
bw_err bw_vector_copy(const bw_vector *from, bw_vector *to);
void bw_vector_free(bw_vector *v);
bw_err bw_vector_encode(const bw_vector *v, bw_buf *out);
/* bw_vector_decode: CORRUPT, NEWER_FORMAT, NO_MEMORY; bounded by len. */
bw_err bw_vector_decode(const void *data, size_t len, bw_vector *out);

#endif
