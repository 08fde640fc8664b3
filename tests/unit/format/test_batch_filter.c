/* A batch without some of its records: what stays is as it was, whatever the codec; horizons; keys. */
#include "format/batch_filter.h"

#include "base/err.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { RECORDS = 20, BASE = 1000, EPOCH = 7 };

/* Record i: key "k<i>", value of i * 10 bytes (null for i % 5 == 4), one header, times that go up and down. */
static bw_err build(bw_batch_builder *b, bw_codec codec, uint8_t **batch, size_t *len)
{
    bw_batch_builder_reset(b);
    for (int i = 0; i < RECORDS; i++) {
        char key[16], value[RECORDS * 10];
        memset(value, 'a' + i, sizeof value);
        snprintf(key, sizeof key, "k%d", i);
        bw_header h = {"h", 1, "x", 1};
        bw_record r = {.key = key, .key_len = strlen(key), .value = i % 5 == 4 ? NULL : value, .value_len = i % 5 == 4 ? 0 : (size_t)i * 10,
                       .timestamp_ms = 5000 + (i % 7) * 100000, .headers = &h, .header_count = 1};
        bw_err e = bw_batch_builder_add(b, &r);
        if (e) return e;
    }
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    o.codec = codec;
    o.producer_id = 42;
    o.producer_epoch = 3;
    o.base_sequence = 77;
    bw_err e = bw_batch_builder_finish(b, &o, batch, len);
    if (!e) bw_batch_patch(*batch, BASE, EPOCH);
    return e;
}

static bw_filter_verdict keep_some(void *opaque, const bw_record_view *r)
{
    uint32_t mask = *(uint32_t *)opaque;
    if (!(mask >> (r->offset - BASE) & 1)) return BW_FILTER_DROP;
    return r->value ? BW_FILTER_KEEP : BW_FILTER_KEEP_TOMBSTONE;
}

typedef struct check { uint32_t mask; int seen; } check;

static bool is_as_it_was(void *opaque, const bw_record_view *r)
{
    check *c = opaque;
    int i = (int)(r->offset - BASE);
    char key[8];
    snprintf(key, sizeof key, "k%d", i);
    assert_true(c->mask >> i & 1);
    assert_int_equal(r->key_len, strlen(key));
    assert_memory_equal(r->key, key, r->key_len);
    assert_int_equal(r->timestamp_ms, 5000 + (i % 7) * 100000);
    assert_int_equal(r->header_count, 1);
    if (i % 5 == 4) assert_null(r->value);
    else {
        assert_int_equal(r->value_len, i * 10);
        for (uint32_t k = 0; k < r->value_len; k++) assert_int_equal(r->value[k], 'a' + i);
    }
    c->seen++;
    return true;
}

static void check_batch(const uint8_t *out, size_t len, uint32_t mask, bw_codec codec, int64_t horizon)
{
    bw_batch_header h;
    bw_buf plain = {0};
    assert_int_equal(bw_batch_header_decode(out, len, false, &h), BW_OK);
    assert_int_equal(bw_batch_size(&h), len);
    assert_true(bw_batch_crc_ok(out, len));
    assert_int_equal(h.base_offset, BASE);
    assert_int_equal(h.last_offset_delta, RECORDS - 1);
    assert_int_equal(h.leader_epoch, EPOCH);
    assert_int_equal(h.producer_id, 42);
    assert_int_equal(h.producer_epoch, 3);
    assert_int_equal(h.base_sequence, 77);
    assert_int_equal(h.record_count, __builtin_popcount(mask));
    assert_int_equal(h.attributes & BW_ATTR_CODEC_MASK, mask ? (int)codec : BW_CODEC_NONE);
    assert_int_equal(bw_batch_delete_horizon(&h), horizon);
    assert_int_equal(bw_batch_check_records(out, &h, 1 << 20), BW_OK);
    check c = {.mask = mask};
    assert_int_equal(bw_batch_each(out, &h, 1 << 20, &plain, is_as_it_was, &c), BW_OK);
    assert_int_equal(c.seen, h.record_count);
    int64_t newest = 0;
    for (int i = 0; i < RECORDS; i++)
        if (mask >> i & 1 && 5000 + (i % 7) * 100000 > newest) newest = 5000 + (i % 7) * 100000;
    assert_int_equal(h.max_timestamp, mask ? newest : 5000 + 600000);
    bw_buf_free(&plain);
}

static void test_filter_keeps_what_is_kept_as_it_was(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_filter f = {0};
    bw_batch_builder_init(&b);
    uint32_t x = 12345;
    for (int codec = BW_CODEC_NONE; codec <= BW_CODEC_ZSTD; codec++) {
        for (int i = 0; i < 200; i++) {
            uint8_t *batch;
            const uint8_t *out;
            size_t len, size;
            bw_batch_header h;
            x = x * 1664525 + 1013904223;
            uint32_t all = (1u << RECORDS) - 1, mask = i == 0 ? 0 : i == 1 ? all : x >> 12 & all;
            assert_int_equal(build(&b, (bw_codec)codec, &batch, &len), BW_OK);
            assert_int_equal(bw_batch_header_decode(batch, len, false, &h), BW_OK);
            bool tombstones = mask & 0x84210; /* records 4, 9, 14, 19 */
            int64_t horizon = i % 2 ? 2000000000000 : 1;
            assert_int_equal(bw_batch_filter_run(&f, batch, &h, 1 << 20, horizon, keep_some, &mask, &out, &size), BW_OK);
            assert_int_equal(f.records, RECORDS);
            check_batch(out, size, mask, (bw_codec)codec, tombstones ? horizon : -1);
            assert_int_equal(f.horizon_set, tombstones);
            if (!tombstones) continue;
            uint8_t *again = malloc(size); /* with a horizon it is left as it is */
            memcpy(again, out, size);
            assert_int_equal(bw_batch_header_decode(again, size, false, &h), BW_OK);
            assert_int_equal(bw_batch_filter_run(&f, again, &h, 1 << 20, horizon + 99, keep_some, &mask, &out, &size), BW_OK);
            assert_ptr_equal(out, again);
            uint32_t fewer = mask & (mask - 1);
            assert_int_equal(bw_batch_filter_run(&f, again, &h, 1 << 20, horizon + 99, keep_some, &fewer, &out, &size), BW_OK);
            check_batch(out, size, fewer, (bw_codec)codec, fewer ? horizon : -1);
            free(again);
        }
    }
    bw_batch_filter_fini(&f);
    bw_batch_builder_fini(&b);
}

static void test_filter_broken_batch_is_an_error(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_filter f = {0};
    bw_batch_builder_init(&b);
    uint8_t *batch;
    const uint8_t *out;
    size_t len, size;
    bw_batch_header h;
    uint32_t mask = 3;
    assert_int_equal(build(&b, BW_CODEC_NONE, &batch, &len), BW_OK);
    batch[BW_BATCH_HEADER_BYTES] = 0xfe; /* the first record's length */
    assert_int_equal(bw_batch_header_decode(batch, len, false, &h), BW_OK);
    assert_int_equal(bw_batch_filter_run(&f, batch, &h, 1 << 20, 1, keep_some, &mask, &out, &size), BW_ERR_CORRUPT);
    assert_int_equal(build(&b, BW_CODEC_LZ4, &batch, &len), BW_OK);
    assert_int_equal(bw_batch_header_decode(batch, len, false, &h), BW_OK);
    assert_int_equal(bw_batch_filter_run(&f, batch, &h, 100, 1, keep_some, &mask, &out, &size), BW_ERR_RECORD_TOO_LARGE);
    bw_batch_filter_fini(&f);
    bw_batch_builder_fini(&b);
}

static void test_check_keys_names_the_record_without_one(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    for (int missing = 0; missing < 2; missing++) {
        bw_batch_builder_reset(&b);
        for (int i = 0; i < 3; i++) {
            bool none = missing && i == 1;
            bw_record r = {.key = none ? NULL : "", .value = "v", .value_len = 1, .timestamp_ms = 1};
            assert_int_equal(bw_batch_builder_add(&b, &r), BW_OK);
        }
        uint8_t *batch;
        size_t len;
        bw_batch_header h;
        bw_batch_options o = BW_BATCH_OPTIONS_INIT;
        o.codec = BW_CODEC_ZSTD;
        assert_int_equal(bw_batch_builder_finish(&b, &o, &batch, &len), BW_OK);
        assert_int_equal(bw_batch_header_decode(batch, len, false, &h), BW_OK);
        assert_int_equal(bw_batch_check_keys(batch, &h, 1 << 20), missing ? BW_ERR_INVALID_RECORD : BW_OK);
        if (missing) assert_non_null(strstr(bw_error_message(), "record 1"));
    }
    bw_batch_builder_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filter_keeps_what_is_kept_as_it_was),
        cmocka_unit_test(test_filter_broken_batch_is_an_error),
        cmocka_unit_test(test_check_keys_names_the_record_without_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
