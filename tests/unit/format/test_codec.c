/* format/codec.h: every codec there and back; what is cut, damaged or blown up is refused within the bound. */
#include "samples.h"

#include "format/codec.h"

#include <snappy-c.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#define MIB (1u << 20)

static const bw_codec all_codecs[] = {BW_CODEC_NONE, BW_CODEC_GZIP, BW_CODEC_SNAPPY, BW_CODEC_LZ4, BW_CODEC_ZSTD};
static const bw_codec packing_codecs[] = {BW_CODEC_GZIP, BW_CODEC_SNAPPY, BW_CODEC_LZ4, BW_CODEC_ZSTD};

/* Text that packs some, noise that does not, or zeros. */
static uint8_t *payload(size_t len, int kind)
{
    uint8_t *data = malloc(len ? len : 1);
    assert_non_null(data);
    uint64_t seed = len + 1;
    for (size_t i = 0; i < len; i++)
        data[i] = kind == 0 ? 0 : kind == 1 ? (uint8_t)('a' + random_next(&seed) % 3) : (uint8_t)random_next(&seed);
    return data;
}

static void test_codec_any_length_and_content_reads_back(void **state)
{
    (void)state;
    static const size_t lens[] = {0, 1, 2, 100, 1023, 1024, 1025, 32767, 32768, 32769, 65536, 100000, 300000};
    for (size_t c = 0; c < 5; c++) {
        for (size_t l = 0; l < sizeof lens / sizeof lens[0]; l++) {
            for (int kind = 0; kind < 3; kind++) {
                uint8_t *data = payload(lens[l], kind);
                bw_buf packed = {NULL, 0, 0}, plain = {NULL, 0, 0};
                assert_int_equal(bw_buf_append(&packed, "before", 6), BW_OK); /* both append */
                assert_int_equal(bw_buf_append(&plain, "front", 5), BW_OK);
                assert_int_equal(bw_codec_compress(all_codecs[c], data, lens[l], &packed), BW_OK);
                assert_memory_equal(packed.data, "before", 6);
                guard g = guard_open(packed.len);
                const uint8_t *src = guard_copy(&g, packed.data + 6, packed.len - 6);
                assert_int_equal(bw_codec_decompress(all_codecs[c], src, packed.len - 6, lens[l], &plain), BW_OK);
                assert_int_equal(plain.len, 5 + lens[l]);
                assert_memory_equal(plain.data, "front", 5);
                assert_memory_equal(plain.data + 5, data, lens[l]);
                guard_close(&g);
                bw_buf_free(&packed);
                bw_buf_free(&plain);
                free(data);
            }
        }
    }
}

static void test_codec_one_byte_over_the_bound_is_too_large(void **state)
{
    (void)state;
    static const size_t lens[] = {1, 1000, 1024, 32768, 40000, 65536, 100000};
    for (size_t c = 0; c < 5; c++) {
        for (size_t l = 0; l < sizeof lens / sizeof lens[0]; l++) {
            uint8_t *data = payload(lens[l], 1);
            bw_buf packed = {NULL, 0, 0}, plain = {NULL, 0, 0};
            assert_int_equal(bw_codec_compress(all_codecs[c], data, lens[l], &packed), BW_OK);
            static const size_t fractions[] = {0, 1, 2, 3};
            for (size_t f = 0; f < 4; f++) {
                size_t max = f == 0 ? lens[l] - 1 : lens[l] * fractions[f] / 4;
                if (max >= lens[l]) continue;
                assert_int_equal(bw_codec_decompress(all_codecs[c], packed.data, packed.len, max, &plain),
                                 BW_ERR_RECORD_TOO_LARGE);
                assert_int_equal(plain.len, 0);
                assert_true(plain.cap <= max + 1);
                assert_true(strlen(bw_error_message()) > 10);
                bw_buf_free(&plain);
            }
            bw_buf_free(&packed);
            free(data);
        }
    }
}

static void test_codec_bomb_is_refused_within_the_bound(void **state)
{
    (void)state;
    const size_t big = 64 * MIB, max = MIB;
    uint8_t *zeros = calloc(1, big);
    assert_non_null(zeros);
    for (size_t c = 0; c < 4; c++) {
        bw_buf packed = {NULL, 0, 0}, plain = {NULL, 0, 0};
        assert_int_equal(bw_codec_compress(packing_codecs[c], zeros, big, &packed), BW_OK);
        assert_true(packed.len < big / 10);
        assert_int_equal(bw_codec_decompress(packing_codecs[c], packed.data, packed.len, max, &plain), BW_ERR_RECORD_TOO_LARGE);
        assert_true(plain.cap <= max);
        bw_buf_free(&packed);
        bw_buf_free(&plain);
    }
    free(zeros);
}

static void test_codec_claimed_sizes_are_not_believed(void **state)
{
    (void)state;
    static const struct {
        bw_codec codec;
        size_t len;
        uint8_t bytes[40];
    } claims[] = {
        /* raw snappy of 4 GiB - 1, of 1 GiB */
        {BW_CODEC_SNAPPY, 8, {0xff, 0xff, 0xff, 0xff, 0x0f, 0x00, 0x61, 0x00}},
        {BW_CODEC_SNAPPY, 7, {0x80, 0x80, 0x80, 0x80, 0x04, 0x00, 0x61}},
        /* a framed block of 2 GiB; one that claims 1 GiB plain */
        {BW_CODEC_SNAPPY, 22, {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff, 0, 0}},
        {BW_CODEC_SNAPPY, 27, {0x82, 'S', 'N', 'A', 'P', 'P', 'Y',  0,    0,    0,    0,    1,    0,   0,
                               0,    1,   0,   0,   0,   7,   0x80, 0x80, 0x80, 0x80, 0x04, 0x00, 0x61}},
        /* an lz4 frame of 4 MiB blocks that says 2^60 bytes and is cut in its first block */
        {BW_CODEC_LZ4, 19, {0x04, 0x22, 0x4d, 0x18, 0x68, 0x70, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x6d, 0x00, 0x00, 0x40, 0x00}},
        /* a zstd frame that says 2^60 bytes, window 128 MiB */
        {BW_CODEC_ZSTD, 16, {0x28, 0xb5, 0x2f, 0xfd, 0xc0, 0x88, 0, 0, 0, 0, 0, 0, 0, 0x10, 0x01, 0x00}},
    };
    for (size_t i = 0; i < sizeof claims / sizeof claims[0]; i++) {
        bw_buf plain = {NULL, 0, 0};
        bw_err err = bw_codec_decompress(claims[i].codec, claims[i].bytes, claims[i].len, 512 * MIB, &plain);
        assert_int_equal(err, BW_ERR_CORRUPT);
        assert_true(plain.cap <= 128 * 1024);
        bw_buf_free(&plain);
    }
}

static void test_codec_cut_at_each_byte_is_refused_or_a_shorter_whole(void **state)
{
    (void)state;
    uint8_t *data = payload(70000, 1);
    for (size_t c = 0; c < 4; c++) {
        bw_buf packed = {NULL, 0, 0}, plain = {NULL, 0, 0};
        assert_int_equal(bw_codec_compress(packing_codecs[c], data, 70000, &packed), BW_OK);
        guard g = guard_open(packed.len);
        size_t step = 1, whole = 0;
        for (size_t cut = 0; cut < packed.len; cut += step) {
            bw_err err = bw_codec_decompress(packing_codecs[c], guard_copy(&g, packed.data, cut), cut, MIB, &plain);
            /* Snappy's frame has no end mark: cut between blocks it is a shorter one. The batch's checksum sees that. */
            if (err == BW_OK) {
                assert_int_equal(packing_codecs[c], BW_CODEC_SNAPPY);
                assert_true(plain.len % 32768 == 0 && plain.len < 70000);
                assert_memory_equal(plain.data, data, plain.len);
                plain.len = 0;
                whole++;
            } else {
                assert_int_equal(err, BW_ERR_CORRUPT);
                assert_int_equal(plain.len, 0);
            }
            step = cut > 200 && cut + 200 < packed.len ? 37 : 1;
        }
        if (packing_codecs[c] != BW_CODEC_SNAPPY) assert_int_equal(whole, 0);
        guard_close(&g);
        bw_buf_free(&packed);
        bw_buf_free(&plain);
    }
    free(data);
}

static void test_codec_damaged_streams_stay_in_bounds(void **state)
{
    (void)state;
    uint8_t *data = payload(5000, 1);
    uint64_t seed = 7;
    for (size_t c = 0; c < 4; c++) {
        bw_buf packed = {NULL, 0, 0}, plain = {NULL, 0, 0};
        assert_int_equal(bw_codec_compress(packing_codecs[c], data, 5000, &packed), BW_OK);
        guard g = guard_open(packed.len);
        for (int round = 0; round < 3000; round++) {
            uint8_t *copy = guard_copy(&g, packed.data, packed.len);
            for (uint32_t hits = 1 + random_next(&seed) % 3; hits > 0; hits--)
                copy[random_next(&seed) % packed.len] = (uint8_t)random_next(&seed);
            bw_err err = bw_codec_decompress(packing_codecs[c], copy, packed.len, 20000, &plain);
            assert_true(err == BW_OK || err == BW_ERR_CORRUPT || err == BW_ERR_RECORD_TOO_LARGE);
            assert_true(plain.len <= 20000 && plain.cap <= 20001);
            if (err) assert_int_equal(plain.len, 0);
            plain.len = 0;
        }
        guard_close(&g);
        bw_buf_free(&packed);
        bw_buf_free(&plain);
    }
    free(data);
}

static void test_snappy_frame_is_kafkas(void **state)
{
    (void)state;
    static const uint8_t head[] = {0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1};
    uint8_t *data = payload(70000, 1);
    bw_buf packed = {NULL, 0, 0};
    assert_int_equal(bw_codec_compress(BW_CODEC_SNAPPY, data, 70000, &packed), BW_OK);
    assert_memory_equal(packed.data, head, sizeof head);
    bw_cursor c = bw_cursor_over(packed.data + sizeof head, packed.len - sizeof head);
    for (size_t at = 0; at < 70000;) {
        uint32_t size = bw_cursor_be32(&c);
        const uint8_t *block = bw_cursor_take(&c, size);
        size_t plain;
        assert_non_null(block);
        assert_int_equal(snappy_uncompressed_length((const char *)block, size, &plain), SNAPPY_OK);
        assert_int_equal(plain, 70000 - at < 32768 ? 70000 - at : 32768);
        at += plain;
    }
    assert_int_equal(bw_cursor_left(&c), 0);
    bw_buf_free(&packed);
    free(data);
}

static void test_snappy_without_a_frame_is_read(void **state)
{
    (void)state;
    uint8_t *data = payload(70000, 1);
    char *raw = malloc(snappy_max_compressed_length(70000));
    size_t raw_len = snappy_max_compressed_length(70000);
    bw_buf plain = {NULL, 0, 0};
    assert_non_null(raw);
    assert_int_equal(snappy_compress((const char *)data, 70000, raw, &raw_len), SNAPPY_OK);
    assert_int_equal(bw_codec_decompress(BW_CODEC_SNAPPY, raw, raw_len, 70000, &plain), BW_OK);
    assert_int_equal(plain.len, 70000);
    assert_memory_equal(plain.data, data, 70000);
    plain.len = 0;
    assert_int_equal(bw_codec_decompress(BW_CODEC_SNAPPY, raw, raw_len, 69999, &plain), BW_ERR_RECORD_TOO_LARGE);
    bw_buf_free(&plain);
    free(raw);
    free(data);
}

static void test_lz4_frame_is_kafkas(void **state)
{
    (void)state;
    uint8_t *data = payload(200000, 1);
    bw_buf packed = {NULL, 0, 0};
    assert_int_equal(bw_codec_compress(BW_CODEC_LZ4, data, 200000, &packed), BW_OK);
    static const uint8_t magic[] = {0x04, 0x22, 0x4d, 0x18};
    assert_memory_equal(packed.data, magic, 4);
    assert_int_equal(packed.data[4], 0x60); /* version 1, independent blocks, no checksums, no content size */
    assert_int_equal(packed.data[5], 0x40); /* blocks of 64 KiB */
    bw_buf_free(&packed);
    free(data);
}

static void test_gzip_of_several_members_is_one_stream(void **state)
{
    (void)state;
    bw_buf packed = {NULL, 0, 0}, plain = {NULL, 0, 0};
    assert_int_equal(bw_codec_compress(BW_CODEC_GZIP, "one ", 4, &packed), BW_OK);
    assert_int_equal(bw_codec_compress(BW_CODEC_GZIP, "two", 3, &packed), BW_OK);
    assert_int_equal(bw_codec_decompress(BW_CODEC_GZIP, packed.data, packed.len, 7, &plain), BW_OK);
    assert_int_equal(plain.len, 7);
    assert_memory_equal(plain.data, "one two", 7);
    plain.len = 0;
    assert_int_equal(bw_codec_decompress(BW_CODEC_GZIP, packed.data, packed.len, 6, &plain), BW_ERR_RECORD_TOO_LARGE);
    bw_buf_free(&packed);
    bw_buf_free(&plain);
}

static void test_zstd_streamed_without_a_size_is_read(void **state)
{
    (void)state;
    uint8_t *data = payload(3 * MIB, 0); /* packs a thousandfold, so that the room must grow several times */
    ZSTD_CCtx *ctx = ZSTD_createCCtx();
    size_t bound = ZSTD_compressBound(3 * MIB);
    uint8_t *packed = malloc(bound);
    assert_non_null(ctx);
    assert_non_null(packed);
    ZSTD_inBuffer in = {data, 3 * MIB, 0};
    ZSTD_outBuffer out = {packed, bound, 0};
    assert_int_equal(ZSTD_compressStream2(ctx, &out, &in, ZSTD_e_flush), 0);
    assert_int_equal(ZSTD_compressStream2(ctx, &out, &in, ZSTD_e_end), 0);
    assert_true(ZSTD_getFrameContentSize(packed, out.pos) == ZSTD_CONTENTSIZE_UNKNOWN);
    bw_buf plain = {NULL, 0, 0};
    assert_int_equal(bw_codec_decompress(BW_CODEC_ZSTD, packed, out.pos, 3 * MIB, &plain), BW_OK);
    assert_int_equal(plain.len, 3 * MIB);
    assert_memory_equal(plain.data, data, 3 * MIB);
    plain.len = 0;
    assert_int_equal(bw_codec_decompress(BW_CODEC_ZSTD, packed, out.pos, 3 * MIB - 1, &plain), BW_ERR_RECORD_TOO_LARGE);
    bw_buf_free(&plain);
    ZSTD_freeCCtx(ctx);
    free(packed);
    free(data);
}

static void test_codec_names_parse_back(void **state)
{
    (void)state;
    static const char *const names[] = {"none", "gzip", "snappy", "lz4", "zstd"};
    for (int i = 0; i < 5; i++) {
        bw_codec codec = BW_CODEC_NONE;
        assert_string_equal(bw_codec_name((bw_codec)i), names[i]);
        assert_true(bw_codec_parse(names[i], &codec));
        assert_int_equal(codec, i);
    }
    bw_codec untouched = BW_CODEC_LZ4;
    assert_null(bw_codec_name((bw_codec)5));
    assert_null(bw_codec_name((bw_codec)-1));
    assert_false(bw_codec_parse("brotli", &untouched));
    assert_false(bw_codec_parse("", &untouched));
    assert_false(bw_codec_parse("GZIP", &untouched));
    assert_int_equal(untouched, BW_CODEC_LZ4);
}

static void test_codec_unknown_number_is_refused(void **state)
{
    (void)state;
    bw_buf out = {NULL, 0, 0};
    assert_int_equal(bw_codec_compress((bw_codec)5, "x", 1, &out), BW_ERR_UNKNOWN_CODEC);
    assert_int_equal(bw_codec_decompress((bw_codec)7, "x", 1, 10, &out), BW_ERR_UNKNOWN_CODEC);
    assert_int_equal(out.len, 0);
    bw_buf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codec_any_length_and_content_reads_back),
        cmocka_unit_test(test_codec_one_byte_over_the_bound_is_too_large),
        cmocka_unit_test(test_codec_bomb_is_refused_within_the_bound),
        cmocka_unit_test(test_codec_claimed_sizes_are_not_believed),
        cmocka_unit_test(test_codec_cut_at_each_byte_is_refused_or_a_shorter_whole),
        cmocka_unit_test(test_codec_damaged_streams_stay_in_bounds),
        cmocka_unit_test(test_snappy_frame_is_kafkas),
        cmocka_unit_test(test_snappy_without_a_frame_is_read),
        cmocka_unit_test(test_lz4_frame_is_kafkas),
        cmocka_unit_test(test_gzip_of_several_members_is_one_stream),
        cmocka_unit_test(test_zstd_streamed_without_a_size_is_read),
        cmocka_unit_test(test_codec_names_parse_back),
        cmocka_unit_test(test_codec_unknown_number_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
