/* format/record_headers.c: a record as read becomes one to produce. */
#include "samples.h"

/* h1=x, empty name with a null value, h2 empty */
static const uint8_t raw[] = {4, 'h', '1', 2, 'x', 0, 1, 4, 'h', '2', 0};

static bw_record_view view_of(const uint8_t *headers, size_t len, uint32_t count)
{
    return (bw_record_view){.offset = 41, .timestamp_ms = 1234, .key = (const uint8_t *)"key", .key_len = 3, .value = NULL,
                            .headers_raw = headers, .headers_len = (uint32_t)len, .header_count = count};
}

static void test_record_from_view_everything_is_there_in_order(void **state)
{
    (void)state;
    guard g = guard_open(sizeof raw);
    bw_record_view v = view_of(guard_copy(&g, raw, sizeof raw), sizeof raw, 3);
    bw_header headers[3];
    bw_record r;
    assert_int_equal(bw_record_from_view(&v, headers, 3, &r), BW_OK);
    assert_field("key", 3, r.key, r.key_len);
    assert_field(NULL, 0, r.value, r.value_len);
    assert_int_equal(r.timestamp_ms, 1234);
    assert_int_equal(r.header_count, 3);
    assert_ptr_equal(r.headers, headers);
    assert_field("h1", 2, headers[0].name, headers[0].name_len);
    assert_field("x", 1, headers[0].value, headers[0].value_len);
    assert_field("", 0, headers[1].name, headers[1].name_len);
    assert_field(NULL, 0, headers[1].value, headers[1].value_len);
    assert_field("h2", 2, headers[2].name, headers[2].name_len);
    assert_field("", 0, headers[2].value, headers[2].value_len);
    guard_close(&g);
}

static void test_record_from_view_without_headers_needs_no_room(void **state)
{
    (void)state;
    bw_record_view v = view_of(NULL, 0, 0);
    bw_record r;
    assert_int_equal(bw_record_from_view(&v, NULL, 0, &r), BW_OK);
    assert_int_equal(r.header_count, 0);
}

static void test_record_from_view_more_headers_than_room_is_refused(void **state)
{
    (void)state;
    bw_record_view v = view_of(raw, sizeof raw, 3);
    bw_header headers[3] = {{0}};
    bw_record r;
    assert_int_equal(bw_record_from_view(&v, headers, 2, &r), BW_ERR_INVALID_RECORD);
    assert_non_null(strstr(bw_error_message(), "offset 41 has 3 headers"));
    assert_null(headers[2].name);
}

static void test_record_from_view_broken_headers_are_corrupt(void **state)
{
    (void)state;
    guard g = guard_open(sizeof raw);
    bw_header headers[4];
    bw_record r;
    for (size_t cut = 0; cut < sizeof raw; cut++) { /* never fewer headers than the record had, without a word */
        bw_record_view v = view_of(guard_copy(&g, raw, cut), cut, 3);
        assert_int_equal(bw_record_from_view(&v, headers, 4, &r), BW_ERR_CORRUPT);
    }
    bw_record_view fewer = view_of(raw, sizeof raw, 4), none = view_of(NULL, 0, 1);
    assert_int_equal(bw_record_from_view(&fewer, headers, 4, &r), BW_ERR_CORRUPT);
    assert_int_equal(bw_record_from_view(&none, headers, 4, &r), BW_ERR_CORRUPT);
    guard_close(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_record_from_view_everything_is_there_in_order),
        cmocka_unit_test(test_record_from_view_without_headers_needs_no_room),
        cmocka_unit_test(test_record_from_view_more_headers_than_room_is_refused),
        cmocka_unit_test(test_record_from_view_broken_headers_are_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
