/* log/append.c: nothing is written behind what the coordinator has allocated: on a full disk that would be a SIGBUS. */
#include "log_fixture.h"

static void test_append_never_passes_the_capacity(void **state)
{
    log_fixture f;
    bw_err e = BW_OK;
    (void)state;
    for (int use_pwrite = 0; use_pwrite < 2; use_pwrite++) {
        log_init(&f, 1 << 20);
        log_open(&f, true);
        const bw_tail_slot *s = bw_partition_slot(f.p);
        bw_appender *a = log_appender(&f, use_pwrite);
        for (int i = 0; i < 2000; i++) { /* nobody grants more */
            e = log_try_append(&f, a, 1, 1000, 0, NULL);
            bw_position tail = atomic_load(&s->tail), capacity = atomic_load(&s->capacity);
            assert_int_equal(bw_position_seq(tail), bw_position_seq(capacity));
            assert_true(bw_position_pos(tail) <= bw_position_pos(capacity));
            if (e) break;
        }
        assert_int_equal(e, BW_ERR_NO_COORDINATOR);
        bw_appender_close(a);
        log_close(&f, false);
        log_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_append_never_passes_the_capacity),
    };
    return cmocka_run_group_tests_name("capacity", tests, NULL, NULL);
}
