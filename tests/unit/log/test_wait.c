/* Waiting and waking: marks, draining, sleeping, pokes. */
#include "engine_fixture.h"

#include <pthread.h>

static void test_wake_marks_only_who_is_armed(void **state)
{
    engine g;
    engine_init(&g, 4096, 4096);
    assert_int_equal(bw_mail_allocate(g.shm_fd, g.mail, 70), BW_OK);
    uint32_t numbers[8];
    bw_arm(g.control, 0, BW_WAIT_TAIL, 70);
    bw_arm_fence(g.control->asymmetric);
    bw_wake(g.control, 0, BW_WAIT_STATE);
    assert_int_equal(bw_mailbox_drain(bw_mail_box(g.mail, 70), numbers, 8), 0);
    bw_wake(g.control, 0, BW_WAIT_TAIL);
    assert_int_equal(bw_mailbox_drain(bw_mail_box(g.mail, 70), numbers, 8), 1);
    assert_int_equal(numbers[0], 7);
    bw_wake(g.control, 0, BW_WAIT_TAIL); /* one wake an arming */
    assert_int_equal(bw_mailbox_drain(bw_mail_box(g.mail, 70), numbers, 8), 0);
    bw_arm(g.control, 0, BW_WAIT_TAIL, 70);
    bw_disarm(g.control, 0, BW_WAIT_TAIL, 70);
    bw_wake(g.control, 0, BW_WAIT_TAIL);
    assert_int_equal(bw_mailbox_drain(bw_mail_box(g.mail, 70), numbers, 8), 0);
    engine_fini(&g);
    (void)state;
}

static void test_drain_gives_each_number_once_whatever_the_room(void **state)
{
    engine g;
    engine_init(&g, 4096, 4096);
    for (size_t room = 1; room <= 200; room = room * 3 + 1) {
        for (uint32_t i = 0; i < 1000; i++) bw_notify(g.mail, 1, i * 131);
        uint32_t numbers[200];
        size_t total = 0, n;
        uint64_t sum = 0;
        while ((n = bw_mailbox_drain(bw_mail_box(g.mail, 1), numbers, room)) > 0) {
            assert_true(n <= room);
            total += n;
            for (size_t i = 0; i < n; i++) sum += numbers[i];
        }
        assert_int_equal(total, 1000);
        assert_int_equal(sum, UINT64_C(131) * 999 * 1000 / 2);
    }
    bw_notify(g.mail, 1, BW_BUS_PARTITIONS_MAX); /* out of range is ignored */
    uint32_t one;
    assert_int_equal(bw_mailbox_drain(bw_mail_box(g.mail, 1), &one, 1), 0);
    engine_fini(&g);
    (void)state;
}

static void *poke_soon(void *box)
{
    usleep(20000);
    bw_mailbox_poke(box);
    return NULL;
}

static void test_sleep_ends_by_poke_news_or_deadline(void **state)
{
    engine g;
    engine_init(&g, 4096, 4096);
    bw_mailbox *box = bw_mail_box(g.mail, 1);
    assert_false(bw_mailbox_sleep(box, bw_deadline_in_ms(10)));
    bw_mailbox_poke(box); /* before the sleep: not lost */
    assert_true(bw_mailbox_sleep(box, bw_deadline_in_ms(5000)));
    assert_false(bw_mailbox_sleep(box, bw_deadline_in_ms(1)));
    pthread_t t;
    pthread_create(&t, NULL, poke_soon, box);
    assert_true(bw_mailbox_sleep(box, bw_deadline_in_ms(5000)));
    pthread_join(t, NULL);
    bw_notify(g.mail, 1, 3);
    assert_true(bw_mailbox_sleep(box, bw_deadline_in_ms(5000)));
    engine_fini(&g);
    (void)state;
}

typedef struct pair {
    engine *g;
    long rounds;
} pair;

static void *publish_many(void *arg)
{
    pair *p = arg;
    for (long i = 1; i <= p->rounds; i++) {
        while (atomic_load_explicit(&p->g->slot->durable, memory_order_acquire) + 1 < (uint64_t)i) sched_yield();
        atomic_store_explicit(&p->g->slot->tail, (uint64_t)i, memory_order_release);
        bw_wake(p->g->control, 0, BW_WAIT_TAIL);
    }
    return NULL;
}

static void test_no_wake_is_lost_between_arm_and_sleep(void **state)
{
    engine g;
    engine_init(&g, 4096, 4096);
    g.slot->tail = g.slot->durable = 0;
    pair p = {&g, 20000};
    pthread_t t;
    pthread_create(&t, NULL, publish_many, &p);
    uint64_t seen = 0;
    bw_mailbox *box = bw_mail_box(g.mail, 1);
    while (seen < (uint64_t)p.rounds) {
        bw_arm(g.control, 0, BW_WAIT_TAIL, 1);
        bw_arm_fence(g.control->asymmetric);
        if (atomic_load_explicit(&g.slot->tail, memory_order_acquire) == seen) {
            if (!bw_mailbox_sleep(box, bw_deadline_in_ms(5000))) fail_msg("lost wake after %lu", (unsigned long)seen);
        }
        uint32_t number;
        while (bw_mailbox_drain(box, &number, 1)) {}
        seen = atomic_load_explicit(&g.slot->tail, memory_order_acquire);
        atomic_store_explicit(&g.slot->durable, seen, memory_order_release); /* lets the publisher go on */
    }
    pthread_join(t, NULL);
    engine_fini(&g);
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wake_marks_only_who_is_armed),
        cmocka_unit_test(test_drain_gives_each_number_once_whatever_the_room),
        cmocka_unit_test(test_sleep_ends_by_poke_news_or_deadline),
        cmocka_unit_test(test_no_wake_is_lost_between_arm_and_sleep),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
