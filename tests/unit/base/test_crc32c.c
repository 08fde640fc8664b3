/* base/crc32c.h: against RFC 3720's vectors and a bit-by-bit reference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/crc32c.h"

#include <stdlib.h>
#include <string.h>

static uint32_t crc32c_reference(const uint8_t *data, size_t len)
{
    uint32_t crc = 0xffffffff;
    for (size_t i = 0; i < len; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
    }
    return ~crc;
}

static void test_crc32c_rfc3720_vectors_match(void **state)
{
    (void)state;
    uint8_t data[32];
    assert_true(bw_crc32c("123456789", 9) == 0xE3069283);
    assert_true(bw_crc32c("", 0) == 0);
    assert_true(bw_crc32c(NULL, 0) == 0);
    memset(data, 0, sizeof data);
    assert_true(bw_crc32c(data, 32) == 0x8a9136aa);
    memset(data, 0xff, sizeof data);
    assert_true(bw_crc32c(data, 32) == 0x62a8ab43);
    for (uint8_t i = 0; i < 32; i++) data[i] = i;
    assert_true(bw_crc32c(data, 32) == 0x46dd794e);
}

static void test_crc32c_every_length_and_alignment_matches_reference(void **state)
{
    (void)state;
    uint8_t data[1200];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 167 + (i >> 3));
    for (size_t start = 0; start < 16; start++)
        for (size_t len = 0; len < 600; len++) assert_true(bw_crc32c(data + start, len) == crc32c_reference(data + start, len));
    assert_true(bw_crc32c(data, sizeof data) == crc32c_reference(data, sizeof data));
}

static void test_crc32c_extended_over_any_split_is_the_same(void **state)
{
    (void)state;
    const uint8_t data[] = "a batch may be summed in pieces, wherever it is cut";
    uint32_t whole = bw_crc32c(data, sizeof data);
    for (size_t cut = 0; cut <= sizeof data; cut++)
        assert_true(bw_crc32c_extend(bw_crc32c(data, cut), data + cut, sizeof data - cut) == whole);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_rfc3720_vectors_match),
        cmocka_unit_test(test_crc32c_every_length_and_alignment_matches_reference),
        cmocka_unit_test(test_crc32c_extended_over_any_split_is_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
