/* meta/record.h: the values of the store, to and from bytes. Pure; decoding is bounded by the bytes that are there. */
#ifndef BW_META_RECORD_H
#define BW_META_RECORD_H

#include "meta/store.h"

#define BW_META_POINT_BYTES 42u

bw_err bw_meta_topic_encode(const bw_meta_topic *t, bw_buf *out);
/* bw_meta_topic_decode: name is the key. CORRUPT, NEWER_FORMAT, NO_MEMORY. bw_meta_topic_fini frees. */
bw_err bw_meta_topic_decode(const void *name, size_t name_len, const void *data, size_t len, bw_meta_topic *out);
void bw_meta_topic_fini(bw_meta_topic *t);

void bw_meta_point_encode(const bw_recovery_point *p, uint8_t out[BW_META_POINT_BYTES]);
bw_err bw_meta_point_decode(const void *data, size_t len, bw_recovery_point *out);

#endif
