/* base/murmur2.h: against the values of Kafka's own UtilsTest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/murmur2.h"

#include <string.h>

static const struct {
    const char *key;
    int32_t hash;
} known[] = {
    {"21", -973932308},
    {"foobar", -790332482},
    {"a-little-bit-long-string", -985981536},
    {"a-little-bit-longer-string", -1486304829},
    {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
    {"abc", 479470107},
};

static void test_murmur2_kafkas_vectors_match(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        assert_int_equal((int32_t)bw_murmur2(known[i].key, strlen(known[i].key)), known[i].hash);
}

static void test_murmur2_partition_is_the_positive_remainder(void **state)
{
    (void)state;
    assert_int_equal(bw_murmur2_partition("21", 2, 1000), (-973932308 & 0x7fffffff) % 1000);
    assert_int_equal(bw_murmur2_partition("abc", 3, 7), 479470107 % 7);
    assert_int_equal(bw_murmur2_partition("foobar", 6, 1), 0);
    for (int i = 0; i < 1000; i++) {
        int32_t partition = bw_murmur2_partition(&i, sizeof i, 12);
        assert_in_range(partition, 0, 11);
    }
}

static void test_murmur2_does_not_depend_on_alignment(void **state)
{
    (void)state;
    char room[64];
    for (size_t shift = 0; shift < 8; shift++) {
        memcpy(room + shift, known[3].key, strlen(known[3].key));
        assert_int_equal((int32_t)bw_murmur2(room + shift, strlen(known[3].key)), known[3].hash);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_murmur2_kafkas_vectors_match),
        cmocka_unit_test(test_murmur2_partition_is_the_positive_remainder),
        cmocka_unit_test(test_murmur2_does_not_depend_on_alignment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
