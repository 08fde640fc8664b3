/* base/bell.c: an eventfd rings when a futex word is woken, once a hanging, from any process; not when it is not. Where the kernel or the
 * sandbox has no io_uring that can do it, there is no bell, and these tests say that they are skipped. */
#include "base/bell.h"

#include "base/os.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct hung {
    int fd;
    bw_bell *bell;
    _Atomic uint32_t *word; /* shared with children */
} hung;

static int setup(void **state)
{
    static hung h;
    h.word = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    h.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (h.word == MAP_FAILED || h.fd < 0) return -1;
    h.bell = bw_bell_open(h.fd);
    *state = &h;
    return 0;
}

static int teardown(void **state)
{
    hung *h = *state;
    bw_bell_close(h->bell);
    close(h->fd);
    return munmap((void *)h->word, 4096);
}

static bool rings(const hung *h, int ms)
{
    struct pollfd p = {.fd = h->fd, .events = POLLIN};
    uint64_t count;
    return poll(&p, 1, ms) == 1 && read(h->fd, &count, sizeof count) == sizeof count;
}

#define NEEDS_BELL(h)                                                       \
    if (!(h)->bell) {                                                       \
        fprintf(stderr, "no bell on this machine (errno %d)\n", errno);     \
        skip();                                                             \
    }

static void test_rings_once_for_each_hanging(void **state)
{
    hung *h = *state;
    NEEDS_BELL(h);
    for (uint32_t i = 0; i < 100; i++) {
        atomic_store(h->word, i);
        assert_int_equal(bw_bell_hang(h->bell, h->word, i), 0);
        assert_int_equal(bw_bell_hang(h->bell, h->word, i), 0); /* it hangs already */
        assert_false(rings(h, i == 0 ? 20 : 0));
        assert_int_equal(bw_os_futex_wake(h->word, 1000), 1);
        assert_true(rings(h, 1000));
        assert_int_equal(bw_os_futex_wake(h->word, 1000), 0); /* until it is hung again nobody waits */
        assert_false(rings(h, 0));
    }
    assert_int_equal(bw_bell_hang(h->bell, h->word, 99), 0);
    assert_false(rings(h, 20)); /* taking the former end does not ring */
}

static void test_hanging_again_makes_no_system_call(void **state)
{
    hung *h = *state;
    NEEDS_BELL(h);
    assert_int_equal(bw_bell_hang(h->bell, h->word, 0), 0);
    uint64_t before = bw_os_calls_made(BW_OS_ring);
    for (int i = 0; i < 100; i++) assert_int_equal(bw_bell_hang(h->bell, h->word, 0), 0);
    assert_int_equal(bw_os_calls_made(BW_OS_ring), before);
    assert_int_equal(bw_os_futex_wake(h->word, 1), 1);
    assert_true(rings(h, 1000));
    assert_int_equal(bw_bell_hang(h->bell, h->word, 0), 0);
    assert_int_equal(bw_os_calls_made(BW_OS_ring), before + 1); /* the former end and the new wait in one */
}

static void test_another_value_says_look_again(void **state)
{
    hung *h = *state;
    NEEDS_BELL(h);
    atomic_store(h->word, 5);
    assert_int_equal(bw_bell_hang(h->bell, h->word, 4), EAGAIN);
    assert_int_equal(bw_bell_hang(h->bell, h->word, 5), 0);
    assert_int_equal(bw_os_futex_wake(h->word, 1), 1);
    assert_true(rings(h, 1000));
}

static void *hang_elsewhere(void *arg)
{
    hung *h = arg;
    return (void *)(intptr_t)bw_bell_hang(h->bell, h->word, 0);
}

static void test_belongs_to_the_thread_that_hung_it_first(void **state)
{
    hung *h = *state;
    NEEDS_BELL(h);
    pthread_t t;
    void *result;
    assert_int_equal(bw_bell_hang(h->bell, h->word, 0), 0);
    pthread_create(&t, NULL, hang_elsewhere, h);
    pthread_join(t, &result);
    assert_int_equal((intptr_t)result, 0); /* it hangs still */
    assert_int_equal(bw_os_futex_wake(h->word, 1), 1);
    assert_true(rings(h, 1000));
    pthread_create(&t, NULL, hang_elsewhere, h);
    pthread_join(t, &result);
    assert_int_equal((intptr_t)result, EEXIST);
    assert_int_equal(bw_bell_hang(h->bell, h->word, 0), 0);
}

/* Two processes, each woken by the other: a wake that is lost stops both. */
static void test_no_wake_between_processes_is_lost(void **state)
{
    hung *h = *state;
    NEEDS_BELL(h);
    enum { ROUNDS = 20000 };
    pid_t child = fork();
    if (child == 0) {
        for (uint32_t i = 0; i < ROUNDS; i++) {
            while (atomic_load(h->word) != 2 * i) bw_os_futex_wait(h->word, 2 * i - 1, 1000000000);
            atomic_store(h->word, 2 * i + 1);
            bw_os_futex_wake(h->word, 1000);
        }
        _exit(0);
    }
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t seen;
        while ((seen = atomic_load(h->word)) != 2 * i + 1) {
            if (bw_bell_hang(h->bell, h->word, seen) == EAGAIN) continue;
            if (atomic_load(h->word) == seen && !rings(h, 5000)) fail_msg("a wake was lost after %u", i);
            rings(h, 0);
        }
        atomic_store(h->word, 2 * i + 2);
        bw_os_futex_wake(h->word, 1000);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_closing_while_it_hangs_leaves_nothing(void **state)
{
    hung *h = *state;
    NEEDS_BELL(h);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(bw_bell_hang(h->bell, h->word, 0), 0);
        bw_bell_close(h->bell);
        assert_non_null(h->bell = bw_bell_open(h->fd));
    }
    struct timespec pause = {0, 50000000}; /* the kernel takes the waits away by and by */
    for (int i = 0; i < 100 && bw_os_futex_wake(h->word, 1000) > 0; i++) nanosleep(&pause, NULL);
    assert_int_equal(bw_os_futex_wake(h->word, 1000), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rings_once_for_each_hanging, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hanging_again_makes_no_system_call, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_value_says_look_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_belongs_to_the_thread_that_hung_it_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_wake_between_processes_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_while_it_hangs_leaves_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
