/* format/record_batch.h: batches built and read back; golden bytes; what header, patch and checksum do. */
#include "samples.h"

#include "base/crc32c.h"
#include "format/codec.h"

#include <stdlib.h>

/* Written out by hand, its checksum by a bit-by-bit CRC-32C: key "k" value "hi" at t; null key, empty value, header a=null at
 * t+3. */
static const uint8_t golden[81] = {
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,             /* base offset 0 */
    0x00, 0x00, 0x00, 0x45,                                     /* length 69 */
    0x00, 0x00, 0x00, 0x00,                                     /* leader epoch 0 */
    0x02,                                                       /* magic */
    0xb6, 0xc6, 0x94, 0x78,                                     /* checksum */
    0x00, 0x00,                                                 /* attributes */
    0x00, 0x00, 0x00, 0x01,                                     /* last offset delta 1 */
    0x00, 0x00, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x00,             /* base timestamp 1700000000000 */
    0x00, 0x00, 0x01, 0x8b, 0xcf, 0xe5, 0x68, 0x03,             /* max timestamp */
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,             /* producer id -1 */
    0xff, 0xff,                                                 /* producer epoch -1 */
    0xff, 0xff, 0xff, 0xff,                                     /* base sequence -1 */
    0x00, 0x00, 0x00, 0x02,                                     /* records */
    0x12, 0x00, 0x00, 0x00, 0x02, 0x6b, 0x04, 0x68, 0x69, 0x00, /* length 9, …, "k", "hi", no headers */
    0x12, 0x00, 0x06, 0x02, 0x01, 0x00, 0x02, 0x02, 0x61, 0x01, /* length 9, +3 ms, offset 1, null, empty, a=null */
};

static void golden_records(bw_header *header, bw_record out[2])
{
    *header = (bw_header){"a", 1, NULL, 0};
    out[0] = (bw_record){.key = "k", .key_len = 1, .value = "hi", .value_len = 2, .timestamp_ms = SAMPLE_TIME};
    out[1] = (bw_record){.value = "", .headers = header, .header_count = 1, .timestamp_ms = SAMPLE_TIME + 3};
}

static void test_builder_golden_records_give_golden_bytes(void **state)
{
    (void)state;
    bw_header header;
    bw_record records[2];
    bw_batch_builder b;
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    uint8_t *batch;
    size_t len;
    golden_records(&header, records);
    bw_batch_builder_init(&b);
    for (int i = 0; i < 2; i++) assert_int_equal(bw_batch_builder_add(&b, &records[i]), BW_OK);
    assert_int_equal(bw_batch_builder_size(&b), sizeof golden);
    assert_int_equal(bw_batch_builder_finish(&b, &options, &batch, &len), BW_OK);
    assert_int_equal(len, sizeof golden);
    assert_memory_equal(batch, golden, sizeof golden);
    bw_batch_builder_fini(&b);
}

/* Mostly the common shape, with every value length from 0 to 1100 at the edge of forbidden memory, and everything else between.
 */
static void test_builder_many_gives_what_one_by_one_gives(void **state)
{
    (void)state;
    enum { RECORDS = 9000, VALUE_MAX = 1101 };
    guard g = guard_open(VALUE_MAX);
    memset(g.map, 'v', g.room);
    bw_record *records = calloc(RECORDS, sizeof *records);
    assert_non_null(records);
    bw_header header = {"h", 1, "x", 1};
    for (uint64_t seed = 1; seed <= 6; seed++) {
        uint64_t random = seed;
        int64_t at = SAMPLE_TIME;
        for (size_t i = 0; i < RECORDS; i++) {
            uint32_t r = random_next(&random), len = random_next(&random) % VALUE_MAX;
            if (seed % 2 && r % 200 == 0) at += (int64_t)(r % 90) - 20;
            records[i] =
                (bw_record){.value = g.map + g.room - len, .value_len = len, .timestamp_ms = r % 3 ? at : BW_NO_TIMESTAMP};
            if (r % 101 == 1) records[i].key = "key", records[i].key_len = 3;
            if (r % 103 == 1) records[i].headers = &header, records[i].header_count = 1;
            if (r % 107 == 1) records[i].value = NULL, records[i].value_len = 0;
        }
        bw_batch_builder one, many;
        bw_batch_options options = BW_BATCH_OPTIONS_INIT;
        uint8_t *of_one, *of_many;
        size_t one_len, many_len;
        bw_batch_builder_init(&one);
        bw_batch_builder_init(&many);
        for (size_t i = 0; i < RECORDS; i++) {
            bw_record r = records[i];
            if (r.timestamp_ms == BW_NO_TIMESTAMP) r.timestamp_ms = SAMPLE_TIME + 7;
            assert_int_equal(bw_batch_builder_add(&one, &r), BW_OK);
        }
        assert_int_equal(bw_batch_builder_add_many(&many, records, RECORDS, SAMPLE_TIME + 7, INT32_MAX), BW_OK);
        assert_int_equal(bw_batch_builder_finish(&one, &options, &of_one, &one_len), BW_OK);
        assert_int_equal(bw_batch_builder_finish(&many, &options, &of_many, &many_len), BW_OK);
        assert_int_equal(one_len, many_len);
        assert_memory_equal(of_one, of_many, one_len);
        bw_batch_builder_fini(&one);
        bw_batch_builder_fini(&many);
    }
    free(records);
    guard_close(&g);
}

static void test_reader_golden_bytes_give_golden_records(void **state)
{
    (void)state;
    bw_header header;
    bw_record records[2];
    bw_batch_header h;
    golden_records(&header, records);
    assert_int_equal(bw_batch_validate(golden, sizeof golden, 1024, true, &h), BW_OK);
    assert_int_equal(bw_batch_size(&h), sizeof golden);
    assert_int_equal(h.batch_length, 69);
    assert_int_equal(h.record_count, 2);
    assert_true(h.crc == 0xb6c69478);
    assert_true(h.base_timestamp == SAMPLE_TIME && h.max_timestamp == SAMPLE_TIME + 3);
    assert_true(h.producer_id == -1 && h.producer_epoch == -1 && h.base_sequence == -1);
    bw_record_iter it;
    bw_record_view v;
    bw_record_iter_init(&it, &h, golden + BW_BATCH_HEADER_BYTES, sizeof golden - BW_BATCH_HEADER_BYTES);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(bw_record_iter_next(&it, &v), 1);
        assert_true(v.offset == i && v.timestamp_ms == records[i].timestamp_ms);
        assert_record(&records[i], &v);
    }
    assert_int_equal(bw_record_iter_next(&it, &v), 0);
    assert_int_equal(bw_record_iter_next(&it, &v), 0);
}

static void read_back(const uint8_t *batch, size_t len, int first, int count, int64_t base_offset, int64_t append_time)
{
    static sample s;
    bw_batch_header h;
    bw_buf plain = {NULL, 0, 0};
    assert_int_equal(bw_batch_header_decode(batch, len, false, &h), BW_OK);
    assert_int_equal(h.record_count, count);
    assert_true(bw_batch_last_offset(&h) == base_offset + count - 1);
    assert_int_equal(bw_codec_decompress((bw_codec)(h.attributes & BW_ATTR_CODEC_MASK), batch + BW_BATCH_HEADER_BYTES,
                                         len - BW_BATCH_HEADER_BYTES, 16 << 20, &plain),
                     BW_OK);
    guard g = guard_open(plain.len);
    bw_record_iter it;
    bw_record_view v;
    bw_record_iter_init(&it, &h, guard_copy(&g, plain.data, plain.len), plain.len);
    int64_t largest = INT64_MIN;
    for (int i = 0; i < count; i++) {
        assert_int_equal(bw_record_iter_next(&it, &v), 1);
        const bw_record *want = sample_record(&s, first + i);
        assert_record(want, &v);
        assert_true(v.offset == base_offset + i);
        assert_true(v.timestamp_ms == (append_time == BW_NO_TIMESTAMP ? want->timestamp_ms : append_time));
        if (v.timestamp_ms > largest) largest = v.timestamp_ms;
    }
    assert_int_equal(bw_record_iter_next(&it, &v), 0);
    assert_true(h.max_timestamp == largest);
    guard_close(&g);
    bw_buf_free(&plain);
}

static void test_batch_every_codec_and_count_reads_back(void **state)
{
    (void)state;
    static const int counts[] = {1, 2, 3, 63, 64, 100, 500};
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    for (int codec = BW_CODEC_NONE; codec <= BW_CODEC_ZSTD; codec++) {
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            bw_batch_options options = BW_BATCH_OPTIONS_INIT;
            bw_batch_header h;
            uint8_t *batch;
            size_t len;
            options.codec = (bw_codec)codec;
            sample_batch(&b, (int)c, counts[c], &options, &batch, &len);
            assert_int_equal(bw_batch_validate(batch, len, 16 << 20, true, &h), BW_OK);
            assert_int_equal(h.attributes, codec);
            bw_batch_patch(batch, 1234567890123, 7);
            assert_int_equal(bw_batch_validate(batch, len, 16 << 20, true, &h), BW_OK);
            assert_int_equal(h.leader_epoch, 7);
            read_back(batch, len, (int)c, counts[c], 1234567890123, BW_NO_TIMESTAMP);
        }
    }
    bw_batch_builder_fini(&b);
}

static void test_batch_log_append_time_replaces_every_timestamp(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    bw_batch_header h;
    uint8_t *batch;
    size_t len;
    options.log_append_time = SAMPLE_TIME + 999;
    sample_batch(&b, 0, 20, &options, &batch, &len);
    assert_int_equal(bw_batch_validate(batch, len, 1 << 20, true, &h), BW_OK);
    assert_int_equal(h.attributes, BW_ATTR_LOG_APPEND_TIME);
    read_back(batch, len, 0, 20, 0, SAMPLE_TIME + 999);

    options.log_append_time = BW_NO_TIMESTAMP;
    options.codec = BW_CODEC_ZSTD;
    sample_batch(&b, 0, 20, &options, &batch, &len);
    bw_batch_set_log_append_time(batch, len, SAMPLE_TIME + 5);
    assert_int_equal(bw_batch_validate(batch, len, 1 << 20, true, &h), BW_OK);
    assert_int_equal(h.attributes, BW_ATTR_LOG_APPEND_TIME | BW_CODEC_ZSTD);
    read_back(batch, len, 0, 20, 0, SAMPLE_TIME + 5);
    bw_batch_builder_fini(&b);
}

static void test_batch_producer_fields_are_kept_and_replaced(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    bw_batch_options options = {
        .log_append_time = BW_NO_TIMESTAMP, .producer_id = 4000, .producer_epoch = 3, .base_sequence = 77, .transactional = true};
    bw_batch_header h;
    uint8_t *batch;
    size_t len;
    sample_batch(&b, 0, 5, &options, &batch, &len);
    assert_int_equal(bw_batch_validate(batch, len, 1 << 20, true, &h), BW_OK);
    assert_true(h.producer_id == 4000 && h.producer_epoch == 3 && h.base_sequence == 77);
    assert_int_equal(h.attributes, BW_ATTR_TRANSACTIONAL);
    bw_batch_set_producer(batch, len, INT64_MAX, INT16_MAX, INT32_MAX);
    assert_int_equal(bw_batch_validate(batch, len, 1 << 20, true, &h), BW_OK);
    assert_true(h.producer_id == INT64_MAX && h.producer_epoch == INT16_MAX && h.base_sequence == INT32_MAX);
    read_back(batch, len, 0, 5, 0, BW_NO_TIMESTAMP);
    bw_batch_builder_fini(&b);
}

static void test_builder_reused_for_many_batches_keeps_its_memory(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    assert_int_equal(bw_batch_builder_size(&b), BW_BATCH_HEADER_BYTES);
    bw_batch_options options = BW_BATCH_OPTIONS_INIT;
    uint8_t *batch, *first = NULL;
    size_t len;
    for (int round = 0; round < 5; round++) {
        sample_batch(&b, 3, 50, &options, &batch, &len);
        if (round == 0) first = batch;
        assert_ptr_equal(batch, first);
        read_back(batch, len, 3, 50, 0, BW_NO_TIMESTAMP);
    }
    bw_batch_builder_reset(&b);
    assert_int_equal(bw_batch_builder_size(&b), BW_BATCH_HEADER_BYTES);
    assert_int_equal(bw_batch_builder_finish(&b, &options, &batch, &len), BW_ERR_INVALID_ARGUMENT);
    bw_batch_builder_fini(&b);
    assert_null(b.buf.data);
}

static void test_builder_size_is_exact_and_encoded_size_is_its_bound(void **state)
{
    (void)state;
    static sample s;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    for (int i = 0; i < 300; i++) {
        const bw_record *r = sample_record(&s, i);
        size_t before = bw_batch_builder_size(&b), bound = bw_record_encoded_size(r);
        assert_int_equal(bw_batch_builder_add(&b, r), BW_OK);
        size_t added = bw_batch_builder_size(&b) - before;
        assert_true(added <= bound && bound - added <= 17);
    }
    bw_batch_builder_fini(&b);
}

static void test_builder_impossible_records_are_refused_and_leave_the_batch(void **state)
{
    (void)state;
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    bw_record good = {.value = "x", .value_len = 1, .timestamp_ms = SAMPLE_TIME};
    assert_int_equal(bw_batch_builder_add(&b, &good), BW_OK);
    size_t size = bw_batch_builder_size(&b);
    bw_header bad_header = {"h", 1, NULL, 3};
    bw_record bad[] = {
        {.key = NULL, .key_len = 1, .timestamp_ms = SAMPLE_TIME},
        {.value = NULL, .value_len = 1, .timestamp_ms = SAMPLE_TIME},
        {.value = "x", .value_len = (size_t)INT32_MAX + 1, .timestamp_ms = SAMPLE_TIME},
        {.key = "x", .key_len = SIZE_MAX, .timestamp_ms = SAMPLE_TIME},
        {.value = "x", .value_len = 1, .timestamp_ms = BW_NO_TIMESTAMP},
        {.value = "x", .value_len = 1, .headers = &bad_header, .header_count = 1, .timestamp_ms = SAMPLE_TIME},
        {.value = "x", .value_len = 1, .headers = NULL, .header_count = 1, .timestamp_ms = SAMPLE_TIME},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(bw_batch_builder_add(&b, &bad[i]), BW_ERR_INVALID_ARGUMENT);
        assert_true(strlen(bw_error_message()) > 10);
        assert_int_equal(bw_batch_builder_size(&b), size);
        assert_int_equal(b.count, 1);
    }
    bw_batch_builder_fini(&b);
}

static void test_header_fresh_and_short_bytes_are_empty(void **state)
{
    (void)state;
    uint8_t zeros[256] = {0};
    bw_batch_header h;
    for (size_t len = 0; len <= sizeof zeros; len++)
        assert_int_equal(bw_batch_header_decode(zeros, len, false, &h), BW_ERR_EMPTY);
    for (size_t len = 0; len < BW_BATCH_HEADER_BYTES; len++)
        assert_int_equal(bw_batch_header_decode(golden, len, true, &h), BW_ERR_EMPTY);
}

static void test_header_partial_batch_is_accepted_only_when_allowed(void **state)
{
    (void)state;
    bw_batch_header h;
    for (size_t len = BW_BATCH_HEADER_BYTES; len < sizeof golden; len++) {
        assert_int_equal(bw_batch_header_decode(golden, len, false, &h), BW_ERR_CORRUPT);
        assert_int_equal(bw_batch_header_decode(golden, len, true, &h), BW_OK);
        assert_int_equal(bw_batch_size(&h), sizeof golden);
    }
}

/* One field of the golden batch overwritten, the checksum made right again. */
static bw_err decode_with(size_t at, const void *field, size_t field_len)
{
    uint8_t copy[sizeof golden];
    bw_batch_header h;
    memcpy(copy, golden, sizeof copy);
    memcpy(copy + at, field, field_len);
    bw_batch_seal_crc(copy, sizeof copy);
    return bw_batch_header_decode(copy, sizeof copy, false, &h);
}

static void test_header_impossible_fields_are_corrupt(void **state)
{
    (void)state;
    static const struct {
        size_t at, len;
        uint8_t bytes[8];
    } bad[] = {
        {0, 8, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}, /* base offset -1 */
        {0, 8, {0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}, /* base offset + delta overflows */
        {8, 4, {0x00, 0x00, 0x00, 0x30}},                         /* length 48: no room for the header */
        {8, 4, {0xff, 0xff, 0xff, 0xff}},                         /* length -1 */
        {8, 4, {0x7f, 0xff, 0xff, 0xff}},                         /* length + 12 overflows */
        {8, 4, {0x00, 0x00, 0x00, 0x46}},                         /* one byte more than there is */
        {16, 1, {0x00}},                                          /* magic 0, 1, 3 */
        {16, 1, {0x01}},
        {16, 1, {0x03}},
        {21, 2, {0x00, 0x05}},             /* codec 5 */
        {23, 4, {0xff, 0xff, 0xff, 0xff}}, /* last offset delta -1 */
        {57, 4, {0xff, 0xff, 0xff, 0xff}}, /* record count -1 */
        {57, 4, {0x00, 0x00, 0x00, 0x03}}, /* more records than offsets */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(decode_with(bad[i].at, bad[i].bytes, bad[i].len), BW_ERR_CORRUPT);
        assert_true(strlen(bw_error_message()) > 10);
    }
}

static void test_validate_what_a_client_may_not_send_is_refused(void **state)
{
    (void)state;
    uint8_t copy[sizeof golden + 1] = {0};
    bw_batch_header h;
    memcpy(copy, golden, sizeof golden);
    assert_int_equal(bw_batch_validate(copy, sizeof copy, 1024, true, &h), BW_ERR_CORRUPT); /* a byte behind it */
    copy[22] = BW_ATTR_CONTROL;
    bw_batch_seal_crc(copy, sizeof golden);
    assert_int_equal(bw_batch_validate(copy, sizeof golden, 1024, true, &h), BW_ERR_CORRUPT);
    copy[22] = 6;
    bw_batch_seal_crc(copy, sizeof golden);
    assert_int_equal(bw_batch_validate(copy, sizeof golden, 1024, true, &h), BW_ERR_UNKNOWN_CODEC);
    copy[22] = 0;
    bw_put_be32(copy + 23, 2); /* compacted: three offsets, two records */
    bw_batch_seal_crc(copy, sizeof golden);
    assert_int_equal(bw_batch_validate(copy, sizeof golden, 1024, false, &h), BW_ERR_CORRUPT);
    assert_int_equal(bw_batch_header_decode(copy, sizeof golden, false, &h), BW_OK);
    assert_int_equal(bw_batch_check_records(copy, &h, 1024), BW_OK); /* but it may lie in a log */
    assert_int_equal(bw_batch_validate(copy, 0, 1024, true, &h), BW_ERR_CORRUPT);
    assert_int_equal(bw_batch_validate(copy, 60, 1024, true, &h), BW_ERR_CORRUPT);
}

static void test_check_records_offsets_that_go_back_or_pass_the_last_are_corrupt(void **state)
{
    (void)state;
    uint8_t copy[sizeof golden];
    bw_batch_header h;
    static const uint8_t deltas[] = {0x00, 0x01, 0x04, 0x7e}; /* 0 again, -1, 2, 63 */
    for (size_t i = 0; i < sizeof deltas; i++) {
        memcpy(copy, golden, sizeof copy);
        copy[74] = deltas[i];
        bw_batch_seal_crc(copy, sizeof copy);
        assert_int_equal(bw_batch_validate(copy, sizeof copy, 1024, true, &h), BW_ERR_CORRUPT);
    }
    memcpy(copy, golden, sizeof copy);
    copy[64] = 0x02; /* the first record at the last offset: the second has none left */
    bw_batch_seal_crc(copy, sizeof copy);
    assert_int_equal(bw_batch_validate(copy, sizeof copy, 1024, true, &h), BW_ERR_CORRUPT);
}

static void test_check_records_emptied_batch_is_fine(void **state)
{
    (void)state;
    uint8_t copy[BW_BATCH_HEADER_BYTES];
    bw_batch_header h;
    for (uint8_t codec = BW_CODEC_NONE; codec <= BW_CODEC_ZSTD; codec++) { /* compaction keeps the header of an empty batch */
        memcpy(copy, golden, sizeof copy);
        bw_put_be32(copy + 8, BW_BATCH_HEADER_BYTES - 12);
        bw_put_be32(copy + 57, 0);
        copy[22] = codec;
        bw_batch_seal_crc(copy, sizeof copy);
        assert_int_equal(bw_batch_header_decode(copy, sizeof copy, false, &h), BW_OK);
        assert_true(bw_batch_crc_ok(copy, sizeof copy));
        assert_int_equal(bw_batch_check_records(copy, &h, 1024), BW_OK);
    }
}

static void test_crc_ok_is_false_below_a_header(void **state)
{
    (void)state;
    for (size_t len = 0; len < sizeof golden; len++) assert_false(bw_batch_crc_ok(golden, len));
    assert_true(bw_batch_crc_ok(golden, sizeof golden));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builder_golden_records_give_golden_bytes),
        cmocka_unit_test(test_builder_many_gives_what_one_by_one_gives),
        cmocka_unit_test(test_reader_golden_bytes_give_golden_records),
        cmocka_unit_test(test_batch_every_codec_and_count_reads_back),
        cmocka_unit_test(test_batch_log_append_time_replaces_every_timestamp),
        cmocka_unit_test(test_batch_producer_fields_are_kept_and_replaced),
        cmocka_unit_test(test_builder_reused_for_many_batches_keeps_its_memory),
        cmocka_unit_test(test_builder_size_is_exact_and_encoded_size_is_its_bound),
        cmocka_unit_test(test_builder_impossible_records_are_refused_and_leave_the_batch),
        cmocka_unit_test(test_header_fresh_and_short_bytes_are_empty),
        cmocka_unit_test(test_header_partial_batch_is_accepted_only_when_allowed),
        cmocka_unit_test(test_header_impossible_fields_are_corrupt),
        cmocka_unit_test(test_validate_what_a_client_may_not_send_is_refused),
        cmocka_unit_test(test_check_records_offsets_that_go_back_or_pass_the_last_are_corrupt),
        cmocka_unit_test(test_check_records_emptied_batch_is_fine),
        cmocka_unit_test(test_crc_ok_is_false_below_a_header),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
