/* listen/busway/records.c: records as msgpack, so that a program needs nothing but nng and msgpack to produce and fetch.
 *
 * Invariants: output is bounded (max), also while decompressing; counts are judged before memory is taken; null and empty are kept
 * apart (nil, and zero bytes). */
#include "listen/busway/internal.h"

#include "base/err.h"
#include "format/codec.h"
#include "format/record_batch.h"
#include "proto/msgpack_reader.h"

#include <msgpack/pack.h>
#include <stdlib.h>

#define HEADERS_MAX 1024u
#define BATCH_BYTES_FREE 65536u /* an empty map is one byte, and a record of up to twelve */

/* ---- msgpack to a batch ---- */

/* Bytes or nil: nil is null. */
static bool read_nullable(bw_msgpack_reader *r, const void **data, size_t *len)
{
    const uint8_t *p = NULL;
    *len = 0;
    if (bw_msgpack_peek(r) == BW_MSGPACK_NIL) {
        *data = NULL;
        return bw_msgpack_read_nil(r);
    }
    bool ok = bw_msgpack_read_bytes(r, &p, len);
    *data = p;
    return ok;
}

/* A map of name to value, or an array of [name, value] where names repeat or their order counts. */
static bool read_headers(bw_msgpack_reader *r, bw_header *headers, size_t *count)
{
    uint32_t items, two;
    bool map = bw_msgpack_peek(r) == BW_MSGPACK_MAP;
    *count = 0;
    if (!(map ? bw_msgpack_read_map(r, &items) : bw_msgpack_read_array(r, &items))) { return false; }
    if (items > HEADERS_MAX) { return bw_msgpack_fail(r, "a record has more than 1024 headers"); }
    for (uint32_t i = 0; i < items; i++) {
        if (!map && !(bw_msgpack_read_array(r, &two) && two == 2)) { return bw_msgpack_fail(r, "a header is no [name, value]"); }
        if (!bw_msgpack_read_str(r, &headers[i].name, &headers[i].name_len)) { return false; }
        if (!read_nullable(r, &headers[i].value, &headers[i].value_len)) { return false; }
    }
    *count = items;
    return true;
}

static bool read_record(bw_msgpack_reader *r, bw_record *out, bw_header *headers)
{
    uint32_t pairs;
    if (!bw_msgpack_read_map(r, &pairs)) { return false; }
    for (uint32_t i = 0; i < pairs && !r->bad; i++) {
        const char *key;
        size_t len;
        if (!bw_msgpack_read_str(r, &key, &len)) { return false; }
        bw_str k = {key, len};
        if (bw_str_is(k, "key")) {
            read_nullable(r, &out->key, &out->key_len);
        } else if (bw_str_is(k, "value")) {
            read_nullable(r, &out->value, &out->value_len);
        } else if (bw_str_is(k, "timestamp")) {
            bw_msgpack_read_int(r, 0, INT64_MAX, &out->timestamp_ms);
        } else if (bw_str_is(k, "headers")) {
            read_headers(r, headers, &out->header_count);
        } else {
            bw_msgpack_skip(r);
        }
    }
    return !r->bad;
}

static bw_err add_records(bw_msgpack_reader *r, int64_t now_ms, bw_batch_builder *builder, bw_header *headers)
{
    uint32_t count;
    size_t most = 2 * bw_msgpack_left(r) + BATCH_BYTES_FREE;
    if (!bw_msgpack_read_array(r, &count)) { return BW_ERR_PROTOCOL; }
    if (count == 0) { return bw_fail(BW_ERR_INVALID_ARGUMENT, "PRODUCE without a record: the payload is an empty array"); }
    for (uint32_t i = 0; i < count; i++) {
        bw_record record = {.timestamp_ms = now_ms, .headers = headers};
        if (!read_record(r, &record, headers)) { return BW_ERR_PROTOCOL; }
        bw_err err = bw_batch_builder_add(builder, &record);
        if (err != BW_OK) { return err; }
        if (bw_batch_builder_size(builder) > most) {
            return bw_msgpack_fail(r, "records that say nothing: their batch would be more than twice the request") ? BW_OK : BW_ERR_PROTOCOL;
        }
    }
    return bw_msgpack_left(r) == 0 || bw_msgpack_fail(r, "bytes follow the array") ? BW_OK : BW_ERR_PROTOCOL;
}

bw_err bw_records_to_batch(const uint8_t *doc, size_t len, int64_t now_ms, bw_buf *out)
{
    bw_msgpack_reader r = bw_msgpack_over(doc, len);
    bw_header *headers = (bw_header *)malloc(HEADERS_MAX * sizeof *headers);
    if (!headers) { return bw_fail(BW_ERR_NO_MEMORY, "no memory for records"); }
    bw_batch_builder builder;
    bw_batch_builder_init(&builder);
    bw_err err = add_records(&r, now_ms, &builder, headers);
    if (r.bad) {
        err = bw_fail(BW_ERR_PROTOCOL, "PRODUCE request: byte %zu of its records: %s; expected an array of maps {key, value, headers, "
                      "timestamp}", bw_msgpack_position(&r), r.why);
    }
    if (err == BW_OK) {
        bw_batch_options options = BW_BATCH_OPTIONS_INIT;
        uint8_t *batch;
        size_t batch_len;
        err = bw_batch_builder_finish(&builder, &options, &batch, &batch_len);
        if (err == BW_OK) { err = bw_buf_append(out, batch, batch_len); }
    }
    bw_batch_builder_fini(&builder);
    free(headers);
    return err;
}

/* ---- batches to msgpack ---- */

static int append(void *data, const char *bytes, size_t len) { return bw_buf_append((bw_buf *)data, bytes, len) == BW_OK ? 0 : -1; }

static int pack_key(msgpack_packer *pk, const char *key)
{
    return msgpack_pack_str(pk, strlen(key)) | msgpack_pack_str_body(pk, key, strlen(key));
}

static int pack_nullable(msgpack_packer *pk, const void *data, size_t len)
{
    if (!data) { return msgpack_pack_nil(pk); }
    return msgpack_pack_bin(pk, len) | (len ? msgpack_pack_bin_body(pk, data, len) : 0);
}

/* 0; -1: no memory; 1: its headers are broken. */
static int pack_record(msgpack_packer *pk, const bw_record_view *v)
{
    int bad = msgpack_pack_map(pk, v->header_count ? 5 : 4);
    bad |= pack_key(pk, "offset") | msgpack_pack_int64(pk, v->offset);
    bad |= pack_key(pk, "timestamp") | msgpack_pack_int64(pk, v->timestamp_ms);
    bad |= pack_key(pk, "key") | pack_nullable(pk, v->key, v->key_len);
    bad |= pack_key(pk, "value") | pack_nullable(pk, v->value, v->value_len);
    if (v->header_count == 0 || bad) { return bad; }
    bad |= pack_key(pk, "headers") | msgpack_pack_array(pk, v->header_count);
    bw_header_iter it;
    bw_header h;
    int more;
    bw_header_iter_init(&it, v);
    while ((more = bw_header_iter_next(&it, &h)) == 1) {
        bad |= msgpack_pack_array(pk, 2);
        bad |= msgpack_pack_str(pk, h.name_len) | (h.name_len ? msgpack_pack_str_body(pk, h.name, h.name_len) : 0);
        bad |= pack_nullable(pk, h.value, h.value_len);
    }
    return more < 0 ? 1 : bad;
}

/* The records of one batch at or after `from`, appended to body. */
static bw_err unpack_batch(const uint8_t *data, const bw_batch_header *h, int64_t from, size_t max, bw_buf *body, uint32_t *count)
{
    const uint8_t *records = data + BW_BATCH_HEADER_BYTES;
    size_t len = bw_batch_size(h) - BW_BATCH_HEADER_BYTES;
    bw_codec codec = (bw_codec)(h->attributes & BW_ATTR_CODEC_MASK);
    bw_buf plain = {0};
    bw_err err = BW_OK;
    if (h->attributes & BW_ATTR_CONTROL) { return BW_OK; }
    if (codec != BW_CODEC_NONE) {
        err = bw_codec_decompress(codec, records, len, max, &plain);
        records = plain.data;
        len = plain.len;
    }
    bw_record_iter it;
    bw_record_view v;
    msgpack_packer pk;
    msgpack_packer_init(&pk, body, append);
    int more = 0;
    if (err == BW_OK) { bw_record_iter_init(&it, h, records, len); }
    while (err == BW_OK && (more = bw_record_iter_next(&it, &v)) == 1) {
        if (v.offset < from) { continue; }
        int bad = pack_record(&pk, &v);
        if (bad) { err = bad < 0 ? bw_fail(BW_ERR_NO_MEMORY, "no memory for records") : BW_ERR_CORRUPT; }
        ++*count;
    }
    if (err == BW_OK && more < 0) { err = BW_ERR_CORRUPT; }
    bw_buf_free(&plain);
    return err;
}

bw_err bw_records_from_batches(const uint8_t *batches, size_t len, int64_t from, size_t max, bw_buf *out)
{
    bw_buf body = {0};
    uint32_t count = 0;
    size_t at = 0, before = out->len;
    bw_err err = BW_OK;
    while (err == BW_OK && at < len) {
        bw_batch_header h;
        err = bw_batch_header_decode(batches + at, len - at, false, &h);
        if (err != BW_OK) { break; }
        size_t batch_len = bw_batch_size(&h), body_before = body.len;
        uint32_t count_before = count;
        err = unpack_batch(batches + at, &h, from, max, &body, &count);
        if ((err == BW_ERR_RECORD_TOO_LARGE || body.len > max) && count_before > 0) {
            body.len = body_before; /* the next request gets it */
            count = count_before;
            err = BW_OK;
            break;
        }
        at += batch_len;
    }
    msgpack_packer pk;
    msgpack_packer_init(&pk, out, append);
    if (err == BW_OK && msgpack_pack_array(&pk, count) != 0) { err = BW_ERR_NO_MEMORY; }
    if (err == BW_OK && body.len > 0) { err = bw_buf_append(out, body.data, body.len); }
    if (err != BW_OK) { out->len = before; }
    bw_buf_free(&body);
    return err == BW_ERR_EMPTY ? bw_fail(BW_ERR_CORRUPT, "a batch ends too early") : err;
}
