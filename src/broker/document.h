/* broker/document.h: helpers for the documents of answers (STATUS, DESCRIBE_TOPICS, DESCRIBE_GROUP, …): msgpack into the broker's `doc`. They
 * return 0, or not 0 when there was no memory; a document is built with these or-ed together. */
#ifndef BW_BROKER_DOCUMENT_H
#define BW_BROKER_DOCUMENT_H

#include "broker/core.h"

#include <msgpack/pack.h>

static inline int bw_doc_append(void *data, const char *bytes, size_t len) { return bw_buf_append(data, bytes, len) ? -1 : 0; }

static inline int put_text(msgpack_packer *pk, const char *text)
{
    size_t len = strlen(text);
    return msgpack_pack_str(pk, len) | (len ? msgpack_pack_str_body(pk, text, len) : 0);
}
static inline int key_text(msgpack_packer *pk, const char *key, const char *text) { return put_text(pk, key) | put_text(pk, text); }
static inline int put_str(msgpack_packer *pk, bw_str s)
{
    return msgpack_pack_str(pk, s.len) | (s.len ? msgpack_pack_str_body(pk, s.data, s.len) : 0);
}
static inline int key_str(msgpack_packer *pk, const char *key, bw_str s) { return put_text(pk, key) | put_str(pk, s); }
static inline int key_nil(msgpack_packer *pk, const char *key) { return put_text(pk, key) | msgpack_pack_nil(pk); }
static inline int key_int(msgpack_packer *pk, const char *key, int64_t v) { return put_text(pk, key) | msgpack_pack_int64(pk, v); }
static inline int put_bool(msgpack_packer *pk, bool v) { return v ? msgpack_pack_true(pk) : msgpack_pack_false(pk); }
static inline int key_bool(msgpack_packer *pk, const char *key, bool v) { return put_text(pk, key) | put_bool(pk, v); }

/* bw_doc_begin: an empty document. bw_doc_send: op is answered with it. */
static inline void bw_doc_begin(bw_broker *b, msgpack_packer *pk)
{
    b->doc.len = 0;
    msgpack_packer_init(pk, &b->doc, bw_doc_append);
}

static inline void bw_doc_send(bw_broker *b, bw_op *op, int bad)
{
    if (bad) {
        bw_op_fail(op, bw_fail(BW_ERR_NO_MEMORY, "no memory for the answer"));
        return;
    }
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.doc = b->doc.data;
    a.doc_len = b->doc.len;
    bw_op_finish(op, &a);
    if (b->doc.cap > (256u << 10)) bw_buf_free(&b->doc);
}

#endif
