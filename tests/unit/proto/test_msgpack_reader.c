/* The msgpack reader: every form against msgpack-c's packer, every truncation, and bombs. */
#include "base/bytes.h"
#include "base/clock.h"
#include "proto/msgpack_reader.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <malloc.h>
#include <msgpack/pack.h>
#include <stdlib.h>

static int append(void *data, const char *bytes, size_t len) { return bw_buf_append((bw_buf *)data, bytes, len) == BW_OK ? 0 : -1; }

static msgpack_packer packer_over(bw_buf *b)
{
    msgpack_packer pk;
    b->len = 0;
    msgpack_packer_init(&pk, b, append);
    return pk;
}

static void test_reader_integers_of_all_sizes_come_back(void **state)
{
    (void)state;
    static const int64_t edges[] = {0, 1, 127, 128, 255, 256, 32767, 32768, 65535, 65536, INT32_MAX, INT64_C(2147483648), UINT32_MAX,
                                    INT64_C(4294967296), INT64_MAX, -1, -32, -33, -128, -129, -32768, -32769, INT32_MIN,
                                    INT64_C(-2147483649), INT64_MIN};
    bw_buf b = {0};
    for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
        msgpack_packer pk = packer_over(&b);
        msgpack_pack_int64(&pk, edges[i]);
        bw_msgpack_reader r = bw_msgpack_over(b.data, b.len);
        int64_t v;
        assert_true(bw_msgpack_read_int(&r, INT64_MIN, INT64_MAX, &v));
        assert_true(v == edges[i]);
        assert_int_equal(bw_msgpack_left(&r), 0);
        r = bw_msgpack_over(b.data, b.len);
        uint64_t u;
        assert_int_equal(bw_msgpack_read_uint(&r, UINT64_MAX, &u), edges[i] >= 0);
        /* the fixed-width forms, which a packer need not choose */
        pk = packer_over(&b);
        msgpack_pack_fix_int64(&pk, edges[i]);
        r = bw_msgpack_over(b.data, b.len);
        assert_true(bw_msgpack_read_int(&r, INT64_MIN, INT64_MAX, &v));
        assert_true(v == edges[i]);
    }
    msgpack_packer pk = packer_over(&b);
    msgpack_pack_uint64(&pk, UINT64_MAX);
    bw_msgpack_reader r = bw_msgpack_over(b.data, b.len);
    uint64_t u;
    assert_true(bw_msgpack_read_uint(&r, UINT64_MAX, &u));
    assert_true(u == UINT64_MAX);
    r = bw_msgpack_over(b.data, b.len);
    int64_t v;
    assert_false(bw_msgpack_read_int(&r, INT64_MIN, INT64_MAX, &v));
    assert_true(r.bad);
    bw_buf_free(&b);
}

static void test_reader_integer_out_of_range_is_refused(void **state)
{
    (void)state;
    const uint8_t bytes[] = {0xcd, 0x01, 0x00}; /* 256 */
    bw_msgpack_reader r = bw_msgpack_over(bytes, sizeof bytes);
    int64_t v;
    assert_false(bw_msgpack_read_int(&r, INT8_MIN, INT8_MAX, &v));
    assert_string_equal(r.why, "an integer is out of its range");
    assert_false(bw_msgpack_read_int(&r, INT64_MIN, INT64_MAX, &v)); /* stays bad */
}

static void test_reader_scalars_come_back(void **state)
{
    (void)state;
    bw_buf b = {0};
    msgpack_packer pk = packer_over(&b);
    msgpack_pack_nil(&pk);
    msgpack_pack_true(&pk);
    msgpack_pack_false(&pk);
    msgpack_pack_float(&pk, 1.5f);
    msgpack_pack_double(&pk, -2.25);
    msgpack_pack_ext(&pk, 4, 9);
    msgpack_pack_ext_body(&pk, "abcd", 4);
    msgpack_pack_ext(&pk, 300, -3);
    char many[300] = {0};
    msgpack_pack_ext_body(&pk, many, 300);
    bw_msgpack_reader r = bw_msgpack_over(b.data, b.len);
    bool t, f;
    double one, two;
    int8_t type;
    const uint8_t *p;
    size_t len;
    assert_int_equal(bw_msgpack_peek(&r), BW_MSGPACK_NIL);
    assert_true(bw_msgpack_read_nil(&r));
    assert_true(bw_msgpack_read_bool(&r, &t) && t);
    assert_true(bw_msgpack_read_bool(&r, &f) && !f);
    assert_true(bw_msgpack_read_float(&r, &one) && one == 1.5);
    assert_true(bw_msgpack_read_float(&r, &two) && two == -2.25);
    assert_true(bw_msgpack_read_ext(&r, &type, &p, &len));
    assert_int_equal(type, 9);
    assert_int_equal(len, 4);
    assert_memory_equal(p, "abcd", 4);
    assert_true(bw_msgpack_read_ext(&r, &type, &p, &len));
    assert_int_equal(type, -3);
    assert_int_equal(len, 300);
    assert_int_equal(bw_msgpack_peek(&r), BW_MSGPACK_END);
    assert_false(bw_msgpack_read_nil(&r));
    bw_buf_free(&b);
}

static void test_reader_strings_of_all_sizes_come_back(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536};
    char *text = malloc(65536);
    assert_non_null(text);
    memset(text, 'x', 65536);
    bw_buf b = {0};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        msgpack_packer pk = packer_over(&b);
        msgpack_pack_str(&pk, sizes[i]);
        msgpack_pack_str_body(&pk, text, sizes[i]);
        msgpack_pack_bin(&pk, sizes[i]);
        msgpack_pack_bin_body(&pk, text, sizes[i]);
        bw_msgpack_reader r = bw_msgpack_over(b.data, b.len);
        const char *s;
        const uint8_t *bin;
        size_t len;
        assert_true(bw_msgpack_read_str(&r, &s, &len));
        assert_int_equal(len, sizes[i]);
        assert_true(bw_msgpack_read_bin(&r, &bin, &len));
        assert_int_equal(len, sizes[i]);
        r = bw_msgpack_over(b.data, b.len);
        assert_true(bw_msgpack_read_bytes(&r, &bin, &len));
        assert_true(bw_msgpack_read_bytes(&r, &bin, &len));
        r = bw_msgpack_over(b.data, b.len);
        assert_false(bw_msgpack_read_bin(&r, &bin, &len));
    }
    free(text);
    bw_buf_free(&b);
}

/* A document with every kind in it. */
static void pack_everything(msgpack_packer *pk)
{
    msgpack_pack_map(pk, 3);
    msgpack_pack_str(pk, 1);
    msgpack_pack_str_body(pk, "a", 1);
    msgpack_pack_array(pk, 20);
    for (int i = 0; i < 20; i++) { msgpack_pack_int64(pk, -(INT64_C(1) << (3 * i))); }
    msgpack_pack_str(pk, 40);
    msgpack_pack_str_body(pk, "0123456789012345678901234567890123456789", 40);
    msgpack_pack_map(pk, 1);
    msgpack_pack_nil(pk);
    msgpack_pack_double(pk, 3.0);
    msgpack_pack_true(pk);
    msgpack_pack_ext(pk, 3, 1);
    msgpack_pack_ext_body(pk, "xyz", 3);
}

static void test_reader_skip_cut_at_each_byte_fails(void **state)
{
    (void)state;
    bw_buf b = {0};
    msgpack_packer pk = packer_over(&b);
    pack_everything(&pk);
    bw_msgpack_reader r = bw_msgpack_over(b.data, b.len);
    assert_true(bw_msgpack_skip(&r));
    assert_int_equal(bw_msgpack_left(&r), 0);
    for (size_t len = 0; len < b.len; len++) {
        uint8_t *exact = malloc(len ? len : 1);
        assert_non_null(exact);
        memcpy(exact, b.data, len);
        r = bw_msgpack_over(exact, len);
        assert_false(bw_msgpack_skip(&r));
        assert_true(r.bad);
        assert_non_null(r.why);
        assert_true(r.at <= r.end);
        free(exact);
    }
    bw_buf_free(&b);
}

/* Refused within 50 us (the best of some tries: the machine has other things to do), without memory. */
static void assert_bomb_refused(const uint8_t *bytes, size_t len)
{
    int64_t best = INT64_MAX;
    struct mallinfo2 before = mallinfo2();
    for (int i = 0; i < 20; i++) {
        int64_t start = bw_clock_mono_ns();
        bw_msgpack_reader r = bw_msgpack_over(bytes, len);
        bool ok = bw_msgpack_skip(&r);
        int64_t took = bw_clock_mono_ns() - start;
        assert_false(ok);
        if (took < best) { best = took; }
    }
    struct mallinfo2 after = mallinfo2();
    assert_int_equal(before.uordblks + before.hblkhd, after.uordblks + after.hblkhd);
    assert_true(best < 50000);
}

static void test_reader_bombs_are_refused_at_once(void **state)
{
    (void)state;
    assert_bomb_refused((const uint8_t[]){0xdd, 0xff, 0xff, 0xff, 0xff}, 5);              /* array of 2^32-1 */
    assert_bomb_refused((const uint8_t[]){0xdf, 0xff, 0xff, 0xff, 0xff, 0xc0, 0xc0}, 7);  /* map of 2^32-1 */
    assert_bomb_refused((const uint8_t[]){0xdf, 0x80, 0x00, 0x00, 0x00, 0xc0, 0xc0}, 7);  /* twice the count wraps */
    assert_bomb_refused((const uint8_t[]){0xdb, 0xff, 0xff, 0xff, 0xff, 'x'}, 6);         /* string */
    assert_bomb_refused((const uint8_t[]){0xc6, 0xff, 0xff, 0xff, 0xff, 'x'}, 6);         /* binary */
    assert_bomb_refused((const uint8_t[]){0xc9, 0xff, 0xff, 0xff, 0xff, 1, 'x'}, 7);      /* extension */
    assert_bomb_refused((const uint8_t[]){0xc1}, 1);
    uint8_t *nested = malloc(100000);
    assert_non_null(nested);
    memset(nested, 0x91, 100000); /* [[[[… */
    assert_bomb_refused(nested, 100000);
    memset(nested, 0x81, 100000); /* {{{{… : the keys are maps */
    assert_bomb_refused(nested, 100000);
    for (int i = 0; i < 100000; i += 5) { memcpy(nested + i, "\xdd\x00\x00\x00\x01", 5); }
    assert_bomb_refused(nested, 100000);
    free(nested);
}

static void test_reader_depth_up_to_the_limit_is_skipped(void **state)
{
    (void)state;
    uint8_t bytes[BW_MSGPACK_DEPTH_MAX + 2];
    memset(bytes, 0x91, sizeof bytes);
    bytes[BW_MSGPACK_DEPTH_MAX] = 0xc0;
    bw_msgpack_reader r = bw_msgpack_over(bytes, BW_MSGPACK_DEPTH_MAX + 1);
    assert_true(bw_msgpack_skip(&r));
    bytes[BW_MSGPACK_DEPTH_MAX] = 0x91;
    bytes[BW_MSGPACK_DEPTH_MAX + 1] = 0xc0;
    r = bw_msgpack_over(bytes, BW_MSGPACK_DEPTH_MAX + 2);
    assert_false(bw_msgpack_skip(&r));
    assert_string_equal(r.why, "it is nested too deeply");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_integers_of_all_sizes_come_back),
        cmocka_unit_test(test_reader_integer_out_of_range_is_refused),
        cmocka_unit_test(test_reader_scalars_come_back),
        cmocka_unit_test(test_reader_strings_of_all_sizes_come_back),
        cmocka_unit_test(test_reader_skip_cut_at_each_byte_fails),
        cmocka_unit_test(test_reader_bombs_are_refused_at_once),
        cmocka_unit_test(test_reader_depth_up_to_the_limit_is_skipped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
