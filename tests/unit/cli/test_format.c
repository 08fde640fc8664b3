/* tests/unit/cli/test_format.c: kcat's format string, the JSON envelope, cutting input. The command's objects are no part of the
 * core library, so their sources are compiled in here. */
#include "cli/format.c"
#include "cli/input.c"
#include "cli/json.c"
#include "cli/out.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
/* cmocka wants the four above first */
#include <cmocka.h>

/* Two headers as they are encoded in a record: "n" = "v", "e" = null. */
static const uint8_t two_headers[] = {2, 'n', 2, 'v', 2, 'e', 1};

static bw_record_view record(const char *key, const char *value, size_t value_len)
{
    return (bw_record_view){.offset = 42,
                            .timestamp_ms = 1700000000123,
                            .key = (const uint8_t *)key,
                            .key_len = key ? (uint32_t)strlen(key) : 0,
                            .value = (const uint8_t *)value,
                            .value_len = (uint32_t)value_len};
}

/* What o collected, as a string with a NUL behind it. */
static const char *text(cli_out *o)
{
    cli_out_char(o, 0);
    return o->data;
}

static const char *run_format(cli_out *o, const char *string, const bw_record_view *r, const char *null_text)
{
    cli_format f;
    const char *error;
    size_t at;
    o->len = 0;
    assert_true(cli_format_compile(&f, string, &error, &at));
    f.null_text = null_text;
    cli_format_run(&f, o, "orders", 7, r);
    cli_format_fini(&f);
    return text(o);
}

static void test_format_every_letter_is_printed(void **state)
{
    (void)state;
    cli_out o;
    bw_record_view r = record("k1", "value", 5);
    r.headers_raw = two_headers;
    r.headers_len = sizeof two_headers;
    r.header_count = 2;
    assert_true(cli_out_init(&o, -1, 4096));
    assert_string_equal(run_format(&o, "%t %p %o %k %K %s %S %T %h %%|", &r, ""),
                        "orders 7 42 k1 2 value 5 1700000000123 n=v,e=NULL %|");
    cli_out_fini(&o);
}

static void test_format_null_and_empty_are_told_apart(void **state)
{
    (void)state;
    cli_out o;
    bw_record_view null = record(NULL, NULL, 0), empty = record("", "", 0);
    assert_true(cli_out_init(&o, -1, 4096));
    assert_string_equal(run_format(&o, "%S %K %s|%k", &null, ""), "-1 -1 |");
    assert_string_equal(run_format(&o, "%s|%k", &null, "NULL"), "NULL|NULL");
    assert_string_equal(run_format(&o, "%S %K %s|%k", &empty, "NULL"), "0 0 |");
    run_format(&o, "%R", &null, "");
    assert_memory_equal(o.data, "\xff\xff\xff\xff", 4);
    bw_record_view five = record(NULL, "12345", 5);
    run_format(&o, "%R", &five, "");
    assert_memory_equal(o.data, "\0\0\0\5", 4);
    cli_out_fini(&o);
}

static void test_format_escapes_are_bytes(void **state)
{
    (void)state;
    cli_out o;
    bw_record_view r = record(NULL, NULL, 0);
    assert_true(cli_out_init(&o, -1, 4096));
    assert_string_equal(run_format(&o, "\\n\\t\\r\\\\\\x41\\x4g\\101\\q\\", &r, ""), "\n\t\r\\A\4gAq\\");
    run_format(&o, "a\\x00b\\0c", &r, "");
    assert_memory_equal(o.data, "a\0b\0c", 5);
    cli_out_fini(&o);
}

static void test_format_wrong_letter_is_named_with_its_place(void **state)
{
    (void)state;
    cli_format f;
    const char *error = NULL;
    size_t at = 0;
    assert_false(cli_format_compile(&f, "ab%y", &error, &at));
    assert_non_null(error);
    assert_int_equal(at, 2);
    assert_false(cli_format_compile(&f, "abc%", &error, &at));
    assert_non_null(error);
    assert_int_equal(at, 3);
}

static void test_unescape_in_place_keeps_nul_bytes(void **state)
{
    (void)state;
    char s[] = "\\0x\\x7c\\t";
    assert_int_equal(cli_unescape(s), 4);
    assert_memory_equal(s, "\0x|\t", 4);
    char whole[] = "::";
    assert_int_equal(cli_unescape(whole), 2);
}

static bool string(cli_out *o, const char *in, size_t len, const char *expected)
{
    o->len = 0;
    bool good = cli_json_string(o, in, len);
    assert_string_equal(text(o), expected);
    return good;
}

static void test_json_string_is_always_valid(void **state)
{
    (void)state;
    cli_out o;
    assert_true(cli_out_init(&o, -1, 4096));
    assert_true(string(&o, "a\"b\\c\n\x01", 7, "\"a\\\"b\\\\c\\n\\u0001\""));
    assert_true(string(&o, "\0x", 2, "\"\\u0000x\""));
    assert_true(string(&o, "gr\xC3\xBC\xE2\x82\xAC\xF0\x9F\x9A\x8C", 11, "\"gr\xC3\xBC\xE2\x82\xAC\xF0\x9F\x9A\x8C\""));
    assert_false(string(&o, "\xC3", 1, "\"\xEF\xBF\xBD\""));                                                 /* cut */
    assert_false(string(&o, "\xC0\xAF", 2, "\"\xEF\xBF\xBD\xEF\xBF\xBD\""));                                 /* overlong */
    assert_false(string(&o, "\xED\xA0\x80", 3, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\""));                 /* surrogate */
    assert_false(string(&o, "\xF4\x90\x80\x80", 4, "\"\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\"")); /* too high */
    assert_false(string(&o, "ok\xFFok", 5, "\"ok\xEF\xBF\xBDok\""));
    cli_out_fini(&o);
}

static void test_json_base64_of_each_length(void **state)
{
    (void)state;
    static const char *const expected[] = {"\"\"",         "\"Zg==\"",     "\"Zm8=\"",    "\"Zm9v\"",
                                           "\"Zm9vYg==\"", "\"Zm9vYmE=\"", "\"Zm9vYmFy\""};
    cli_out o;
    assert_true(cli_out_init(&o, -1, 4096));
    for (size_t n = 0; n <= 6; n++) {
        o.len = 0;
        cli_json_base64(&o, "foobar", n);
        assert_string_equal(text(&o), expected[n]);
    }
    cli_out_fini(&o);
}

static void test_json_envelope_has_kcats_members(void **state)
{
    (void)state;
    cli_out o;
    bw_record_view r = record(NULL, "hi\xFF", 3);
    r.headers_raw = two_headers;
    r.headers_len = sizeof two_headers;
    r.header_count = 2;
    assert_true(cli_out_init(&o, -1, 4096));
    cli_json_envelope(&o, "t", 3, BW_TIMESTAMP_CREATE, &r);
    assert_string_equal(
        text(&o),
        "{\"topic\":\"t\",\"partition\":3,\"offset\":42,\"tstype\":\"create\",\"ts\":1700000000123,\"broker\":0,"
        "\"headers\":[\"n\",\"v\",\"e\",null],\"key\":null,\"payload\":\"hi\xEF\xBF\xBD\",\"payload_base64\":\"aGn/\"}");
    cli_out_fini(&o);
}

/* Feed bytes through a pipe and compare the pieces. */
static void expect_pieces(const char *bytes, size_t len, const char *delimiter, size_t delimiter_len, const char *const *pieces)
{
    int fds[2];
    cli_input in;
    const char *piece;
    size_t piece_len;
    assert_int_equal(pipe(fds), 0);
    assert_int_equal(write(fds[1], bytes, len), (ssize_t)len);
    close(fds[1]);
    assert_true(cli_input_init(&in, fds[0], delimiter, delimiter_len));
    for (; *pieces; pieces++) {
        assert_int_equal(cli_input_next(&in, -1, &piece, &piece_len), CLI_INPUT_PIECE);
        assert_int_equal(piece_len, strlen(*pieces));
        assert_memory_equal(piece, *pieces, piece_len);
    }
    assert_int_equal(cli_input_next(&in, -1, &piece, &piece_len), CLI_INPUT_END);
    cli_input_fini(&in);
    close(fds[0]);
}

static void test_input_is_cut_at_delimiters(void **state)
{
    (void)state;
    expect_pieces("a\n\nbc\n", 6, "\n", 1, (const char *const[]){"a", "", "bc", NULL});
    expect_pieces("a\nlast", 6, "\n", 1, (const char *const[]){"a", "last", NULL});
    expect_pieces("", 0, "\n", 1, (const char *const[]){NULL});
    expect_pieces("x\0y\0", 4, "\0", 1, (const char *const[]){"x", "y", NULL});
    expect_pieces("one::two:three::", 16, "::", 2, (const char *const[]){"one", "two:three", NULL});
}

static void test_input_delimiter_across_two_reads_is_found(void **state)
{
    (void)state;
    int fds[2];
    cli_input in;
    const char *piece;
    size_t len;
    assert_int_equal(pipe(fds), 0);
    assert_true(cli_input_init(&in, fds[0], "--", 2));
    assert_int_equal(cli_input_next(&in, 0, &piece, &len), CLI_INPUT_WAIT);
    assert_int_equal(write(fds[1], "abc-", 4), 4);
    assert_int_equal(cli_input_next(&in, 0, &piece, &len), CLI_INPUT_WAIT);
    assert_int_equal(write(fds[1], "-d", 2), 2);
    assert_int_equal(cli_input_next(&in, 0, &piece, &len), CLI_INPUT_PIECE);
    assert_int_equal(len, 3);
    assert_memory_equal(piece, "abc", 3);
    cli_input_fini(&in);
    close(fds[0]);
    close(fds[1]);
}

static void test_input_piece_longer_than_the_buffer_is_whole(void **state)
{
    (void)state;
    size_t n = (size_t)3 << 20;
    char path[] = "/tmp/busway-input.XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    char *big = malloc(n);
    assert_non_null(big);
    memset(big, 'x', n);
    assert_int_equal(write(fd, big, n), (ssize_t)n);
    assert_int_equal(write(fd, "\ny", 2), 2);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    cli_input in;
    const char *piece;
    size_t len;
    assert_true(cli_input_init(&in, fd, "\n", 1));
    assert_int_equal(cli_input_next(&in, 0, &piece, &len), CLI_INPUT_PIECE);
    assert_int_equal(len, n);
    assert_memory_equal(piece, big, n);
    assert_int_equal(cli_input_next(&in, 0, &piece, &len), CLI_INPUT_PIECE);
    assert_int_equal(len, 1);
    cli_input_fini(&in);
    free(big);
    close(fd);
}

static void test_out_larger_than_its_buffer_arrives_whole(void **state)
{
    (void)state;
    int fds[2];
    cli_out o;
    char got[64] = {0};
    assert_int_equal(pipe(fds), 0);
    assert_true(cli_out_init(&o, fds[1], 8));
    cli_out_text(&o, "abc");
    cli_out_text(&o, "0123456789");
    cli_out_int(&o, INT64_MIN);
    assert_true(cli_out_flush(&o));
    assert_int_equal(read(fds[0], got, sizeof got), 33);
    assert_string_equal(got, "abc0123456789-9223372036854775808");
    cli_out_fini(&o);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_format_every_letter_is_printed),
        cmocka_unit_test(test_format_null_and_empty_are_told_apart),
        cmocka_unit_test(test_format_escapes_are_bytes),
        cmocka_unit_test(test_format_wrong_letter_is_named_with_its_place),
        cmocka_unit_test(test_unescape_in_place_keeps_nul_bytes),
        cmocka_unit_test(test_json_string_is_always_valid),
        cmocka_unit_test(test_json_base64_of_each_length),
        cmocka_unit_test(test_json_envelope_has_kcats_members),
        cmocka_unit_test(test_input_is_cut_at_delimiters),
        cmocka_unit_test(test_input_delimiter_across_two_reads_is_found),
        cmocka_unit_test(test_input_piece_longer_than_the_buffer_is_whole),
        cmocka_unit_test(test_out_larger_than_its_buffer_arrives_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
