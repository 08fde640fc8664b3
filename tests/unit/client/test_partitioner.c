/* The partitioner: Kafka's choice for keys, sticky without. */
#include "client/partitioner.h"

#include "base/murmur2.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

/* Values of org.apache.kafka.common.utils.Utils.murmur2, from Kafka's own UtilsTest. */
static void test_partitioner_key_agrees_with_kafkas_client(void **state)
{
    (void)state;
    static const struct { const char *key; int32_t murmur2; } known[] = {
        {"21", -973932308}, {"foobar", -790332482}, {"a-little-bit-long-string", -985981536},
        {"a-little-bit-longer-string", -1486304829}, {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
        {"abc", 479470107},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        int32_t wanted = (known[i].murmur2 & 0x7fffffff) % 12;
        assert_int_equal(bw_partition_for_key(known[i].key, strlen(known[i].key), 12), wanted);
        assert_int_equal(bw_partition_for_key(known[i].key, strlen(known[i].key), 1), 0);
    }
}

static void test_partitioner_empty_key_is_a_key(void **state)
{
    (void)state;
    int32_t p = bw_partition_for_key("", 0, 7);
    assert_in_range(p, 0, 6);
    assert_int_equal(bw_partition_for_key("", 0, 7), p);
}

static void test_partitioner_sticky_stays_until_it_is_moved(void **state)
{
    (void)state;
    _Atomic int32_t sticky = -1;
    int32_t first = bw_sticky_get(&sticky, 5);
    assert_in_range(first, 0, 4);
    for (int i = 0; i < 100; i++) assert_int_equal(bw_sticky_get(&sticky, 5), first);
    bw_sticky_next(&sticky, first, 5);
    int32_t second = bw_sticky_get(&sticky, 5);
    assert_int_not_equal(second, first);
    bw_sticky_next(&sticky, first, 5); /* another thread's late news about the first batch */
    assert_int_equal(bw_sticky_get(&sticky, 5), second);
    bool seen[5] = {false};
    for (int i = 0; i < 5; i++) {
        int32_t p = bw_sticky_get(&sticky, 5);
        seen[p] = true;
        bw_sticky_next(&sticky, p, 5);
    }
    for (int i = 0; i < 5; i++) assert_true(seen[i]);
}

static void test_partitioner_sticky_follows_the_number_of_partitions(void **state)
{
    (void)state;
    _Atomic int32_t sticky = 9;
    assert_in_range(bw_sticky_get(&sticky, 3), 0, 2);
    sticky = -1;
    assert_int_equal(bw_sticky_get(&sticky, 1), 0);
    bw_sticky_next(&sticky, 0, 1);
    assert_int_equal(bw_sticky_get(&sticky, 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_partitioner_key_agrees_with_kafkas_client),
        cmocka_unit_test(test_partitioner_empty_key_is_a_key),
        cmocka_unit_test(test_partitioner_sticky_stays_until_it_is_moved),
        cmocka_unit_test(test_partitioner_sticky_follows_the_number_of_partitions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
