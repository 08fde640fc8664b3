/* base/uuid.h: both text forms, and what they refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/uuid.h"

#include <string.h>

static const bw_uuid sample = {{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}};
static const bw_uuid all_ones = {{255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}};

static void test_uuid_known_texts_match(void **state)
{
    (void)state;
    char hex[33], base64[23];
    bw_uuid_hex(&sample, hex);
    assert_string_equal(hex, "00112233445566778899aabbccddeeff");
    bw_uuid_base64(&sample, base64);
    assert_string_equal(base64, "ABEiM0RVZneImaq7zN3u_w");
    bw_uuid_base64(&all_ones, base64);
    assert_string_equal(base64, "_____________________w");
}

static void test_uuid_random_ids_read_back(void **state)
{
    (void)state;
    uint32_t seed = 1;
    for (int round = 0; round < 1000; round++) {
        bw_uuid id, got;
        char hex[33], base64[23];
        for (size_t i = 0; i < 16; i++) id.b[i] = (uint8_t)((seed = seed * 1664525 + 1013904223) >> 24);
        bw_uuid_hex(&id, hex);
        bw_uuid_base64(&id, base64);
        assert_true(bw_uuid_from_hex(hex, &got) && bw_uuid_equal(&id, &got));
        assert_true(bw_uuid_from_base64(base64, &got) && bw_uuid_equal(&id, &got));
        got.b[round % 16] ^= 1;
        assert_false(bw_uuid_equal(&id, &got));
    }
}

static void test_uuid_foreign_texts_are_refused_and_leave_the_output(void **state)
{
    (void)state;
    const char *bad_hex[] = {"",
                             "0",
                             "00112233445566778899aabbccddeef",
                             "00112233445566778899aabbccddeeff0",
                             "00112233445566778899aabbccddeefg",
                             "00112233445566778899AABBCCDDEEFF",
                             "0011223344556677-8899aabbccddeef"};
    const char *bad_base64[] = {"",
                                "A",
                                "ABEiM0RVZneImaq7zN3u_",
                                "ABEiM0RVZneImaq7zN3u_wA",
                                "ABEiM0RVZneImaq7zN3u/w",
                                "ABEiM0RVZneImaq7zN3u_x",
                                "ABEiM0RVZneImaq7zN3u_==",
                                "ABEiM0RVZneImaq7 N3u_w"};
    bw_uuid got = all_ones;
    for (size_t i = 0; i < sizeof bad_hex / sizeof bad_hex[0]; i++) assert_false(bw_uuid_from_hex(bad_hex[i], &got));
    for (size_t i = 0; i < sizeof bad_base64 / sizeof bad_base64[0]; i++) assert_false(bw_uuid_from_base64(bad_base64[i], &got));
    assert_true(bw_uuid_equal(&got, &all_ones));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uuid_known_texts_match),
        cmocka_unit_test(test_uuid_random_ids_read_back),
        cmocka_unit_test(test_uuid_foreign_texts_are_refused_and_leave_the_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
