/* msgpack: skip, JSON and records over any bytes stay within them and end; what skip takes and JSON takes agree. */
#include "fuzz/fuzz.h"

#include "format/record_batch.h"
#include "listen/busway/internal.h"
#include "proto/json.h"
#include "proto/msgpack_reader.h"

#include <jansson.h>

static void records(const uint8_t *data, size_t size)
{
    bw_buf batch = {NULL, 0, 0}, doc = {NULL, 0, 0}, again = {NULL, 0, 0}, doc_again = {NULL, 0, 0};
    bw_err err = bw_records_to_batch(data, size, 1000, &batch);
    FUZZ_CHECK(err == BW_OK || err == BW_ERR_PROTOCOL || err == BW_ERR_INVALID_ARGUMENT);
    FUZZ_CHECK(batch.len <= 2 * size + 65536 + 128);
    fuzz_pause();
    if (err == BW_OK) {
        bw_batch_header h;
        FUZZ_CHECK(bw_batch_validate(batch.data, batch.len, 1 << 20, true, &h) == BW_OK);
        FUZZ_CHECK(bw_records_from_batches(batch.data, batch.len, 0, 1 << 24, &doc) == BW_OK);
        FUZZ_CHECK(bw_records_to_batch(doc.data, doc.len, 1000, &again) == BW_OK);
        FUZZ_CHECK(bw_records_from_batches(again.data, again.len, 0, 1 << 24, &doc_again) == BW_OK);
        FUZZ_CHECK(doc.len == doc_again.len && memcmp(doc.data, doc_again.data, doc.len) == 0);
    }
    bw_buf_free(&doc);
    bw_buf_free(&again);
    bw_buf_free(&doc_again);
    fuzz_resume();
    bw_buf_free(&batch);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size > 65536) return 0;
    bw_msgpack_reader r = bw_msgpack_over(data, size);
    while (bw_msgpack_left(&r) > 0 && bw_msgpack_skip(&r)) {}
    FUZZ_CHECK(r.at >= data && r.at <= data + size);
    FUZZ_CHECK(!r.bad || r.why);
    bw_buf out = {NULL, 0, 0};
    fuzz_allow(2 * 26 * size); /* a nine-byte number is up to 26 characters; the room for them doubles */
    if (bw_json_from_msgpack(data, size, &out) == BW_OK) {
        json_error_t error;
        fuzz_pause();
        json_t *parsed = json_loadb((const char *)out.data, out.len, JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, &error);
        /* Whatever the document says, it is JSON. A NUL in a key is too, though jansson can't hold it. */
        FUZZ_CHECK(parsed || json_error_code(&error) == json_error_null_byte_in_key);
        json_decref(parsed);
        fuzz_resume();
        FUZZ_CHECK(out.len <= 26 * size + 2);
    } else {
        FUZZ_CHECK(out.len == 0);
    }
    bw_buf_free(&out);
    records(data, size);
    return 0;
}
