/* msgpack documents as JSON: each kind, escapes, bytes that are not UTF-8, bounds; jansson is the judge. */
#include "proto/json.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <msgpack/pack.h>
#include <stdlib.h>

static int append(void *data, const char *bytes, size_t len) { return bw_buf_append((bw_buf *)data, bytes, len) == BW_OK ? 0 : -1; }

static void assert_json(const bw_buf *doc, const char *expected)
{
    bw_buf out = {0};
    assert_int_equal(bw_json_from_msgpack(doc->data, doc->len, &out), BW_OK);
    assert_int_equal(bw_buf_append(&out, "", 1), BW_OK);
    assert_string_equal((char *)out.data, expected);
    bw_buf_free(&out);
}

static void pack_text(msgpack_packer *pk, const char *text, size_t len)
{
    msgpack_pack_str(pk, len);
    msgpack_pack_str_body(pk, text, len);
}

static void test_json_of_every_kind(void **state)
{
    (void)state;
    bw_buf b = {0};
    msgpack_packer pk;
    msgpack_packer_init(&pk, &b, append);
    msgpack_pack_map(&pk, 9);
    pack_text(&pk, "nil", 3), msgpack_pack_nil(&pk);
    pack_text(&pk, "t", 1), msgpack_pack_true(&pk);
    pack_text(&pk, "f", 1), msgpack_pack_false(&pk);
    pack_text(&pk, "min", 3), msgpack_pack_int64(&pk, INT64_MIN);
    pack_text(&pk, "max", 3), msgpack_pack_uint64(&pk, UINT64_MAX);
    pack_text(&pk, "x", 1), msgpack_pack_double(&pk, 0.5);
    pack_text(&pk, "nan", 3), msgpack_pack_double(&pk, NAN);
    pack_text(&pk, "bin", 3), msgpack_pack_bin(&pk, 3), msgpack_pack_bin_body(&pk, "\x00\xfe\x7f", 3);
    pack_text(&pk, "list", 4), msgpack_pack_array(&pk, 3);
    msgpack_pack_array(&pk, 0), msgpack_pack_map(&pk, 0), msgpack_pack_int(&pk, -1);
    assert_json(&b, "{\"nil\":null,\"t\":true,\"f\":false,\"min\":-9223372036854775808,\"max\":18446744073709551615,\"x\":0.5,"
                    "\"nan\":null,\"bin\":\"00fe7f\",\"list\":[[],{},-1]}");
    bw_buf_free(&b);
}

static void test_json_escapes_what_must_be(void **state)
{
    (void)state;
    bw_buf b = {0};
    msgpack_packer pk;
    msgpack_packer_init(&pk, &b, append);
    pack_text(&pk, "a\"b\\c\n\r\t\x01\x7f\xc3\xa9\xe2\x82\xac\xf0\x9f\x9a\x8c", 19);
    assert_json(&b, "\"a\\\"b\\\\c\\n\\r\\t\\u0001\\u007f\xc3\xa9\xe2\x82\xac\xf0\x9f\x9a\x8c\"");
    bw_buf_free(&b);
}

static void test_json_of_broken_utf8_is_valid_json(void **state)
{
    (void)state;
    static const char *const broken[] = {"\xff", "a\xc3", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                         "\xe2\x82", "\x80z", "\xf8\x88\x80\x80\x80"};
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++) {
        bw_buf b = {0}, out = {0};
        msgpack_packer pk;
        msgpack_packer_init(&pk, &b, append);
        msgpack_pack_array(&pk, 1);
        pack_text(&pk, broken[i], strlen(broken[i]));
        assert_int_equal(bw_json_from_msgpack(b.data, b.len, &out), BW_OK);
        json_error_t error;
        json_t *parsed = json_loadb((char *)out.data, out.len, 0, &error);
        assert_non_null(parsed);
        assert_non_null(strstr(json_string_value(json_array_get(parsed, 0)), "\xef\xbf\xbd"));
        json_decref(parsed);
        bw_buf_free(&b);
        bw_buf_free(&out);
    }
}

static void assert_refused(const void *doc, size_t len)
{
    bw_buf out = {0};
    assert_int_equal(bw_buf_append(&out, "kept", 4), BW_OK);
    assert_int_equal(bw_json_from_msgpack(doc, len, &out), BW_ERR_PROTOCOL);
    assert_int_equal(out.len, 4);
    bw_buf_free(&out);
}

static void test_json_of_malformed_documents_is_refused(void **state)
{
    (void)state;
    assert_refused("", 0);
    assert_refused("\xc1", 1);
    assert_refused("\xc0\xc0", 2);             /* two values */
    assert_refused("\x81\x01\x02", 3);         /* a key that is no string */
    assert_refused("\xd4\x01\x02", 3);         /* an extension */
    assert_refused("\xdd\xff\xff\xff\xff", 5); /* a bomb */
    uint8_t *nested = malloc(100000);
    assert_non_null(nested);
    memset(nested, 0x91, 100000);
    assert_refused(nested, 100000);
    nested[BW_JSON_DEPTH_MAX] = 0xc0;
    bw_buf out = {0};
    assert_int_equal(bw_json_from_msgpack(nested, BW_JSON_DEPTH_MAX + 1, &out), BW_OK);
    bw_buf_free(&out);
    free(nested);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json_of_every_kind),
        cmocka_unit_test(test_json_escapes_what_must_be),
        cmocka_unit_test(test_json_of_broken_utf8_is_valid_json),
        cmocka_unit_test(test_json_of_malformed_documents_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
