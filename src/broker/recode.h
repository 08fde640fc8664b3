/* broker/recode.h: a batch as a topic's compression.type wants it. */
#ifndef BW_BROKER_RECODE_H
#define BW_BROKER_RECODE_H

#include "base/bytes.h"
#include "format/record_batch.h"

/* bw_recode_wanted: the codec that the topic wants for a batch that comes in `have`; the same for "producer". */
bw_codec bw_recode_wanted(const char *compression_type, bw_codec have);
/* bw_recode: out becomes the batch with its records in codec `to`; header and checksum made anew. max_plain bounds the plain records.
 * RECORD_TOO_LARGE, CORRUPT, NO_MEMORY. */
bw_err bw_recode(const uint8_t *batch, size_t len, bw_codec to, size_t max_plain, bw_buf *out);

#endif
