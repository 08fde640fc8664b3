/* bench/calls.c: what waking costs: one way to a sleeping reader, and the writer's system calls when nobody sleeps.
 *
 * One way: the writer takes the time, puts it into the record and appends; the reader, woken, reads it and takes the time again
 * (CLOCK_MONOTONIC is one clock for both). Before each record the writer waits until the reader has had time to fall asleep; the
 * reader's voluntary context switches tell whether it did.
 *
 * Calls: the kernel counts, not the library. When all is open the writer's only thread puts itself under a seccomp filter that
 * announces every system call whatever its number; a thread that the filter does not bind receives the announcements, counts them
 * and lets them pass. A call that it did not count would never return. Then come `round_trips` appends before a polling reader,
 * and a few more before one that sleeps: there the count must not be zero, or it does not count. */
#include "bus.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WINDOW         1000u /* appends */
#define ASLEEP_APPENDS 200u

bool bench_one_way_role(const bench_run *run, uint32_t index)
{
    bench_shared *shared = run->shared;
    uint32_t all = run->c->round_trips + run->c->round_trips / 10;
    uint64_t sum = 0, sent;
    if (index == 0) {
        bench_writer w;
        if (!bench_writer_open(&w, run) || !bench_arrive(shared)) return false;
        for (uint32_t i = 0; i < all; i++) {
            if (!bench_one_way_pause(run, i)) return false;
            sent = bench_now_ns();
            memcpy(w.values, &sent, sizeof sent);
            if (bw_producer_send_sync(w.producer, run->topic, 0, &w.records[0], BENCH_WAIT_MS, NULL) != BW_OK)
                return bench_bus_failed(run, "send");
        }
        return bench_writer_close(&w, run);
    }
    bench_reader r;
    if (!bench_reader_open(&r, run, 0) || !bench_arrive(shared)) return false;
    for (uint32_t i = 0; i < all; i++) {
        if (!bench_reader_read(&r, run, true, &sum)) return false;
        uint64_t now = bench_now_ns();
        memcpy(&sent, r.first, sizeof sent);
        bench_one_way_note(run, i, now - sent);
    }
    shared->reader[0].checksum = sum;
    bench_reader_close(&r);
    return bench_one_way_check(run);
}

/* Where the writer is: its appends so far; what is not between two appends is not counted. */
enum { PHASE_POLLING = 1, PHASE_ASLEEP = 2 };
static _Atomic int phase;
static _Atomic int listener = -1;
static _Atomic uint32_t appends, calls_asleep;

static void count_call(bench_calls *calls, int number)
{
    int now = atomic_load(&phase);
    if (now == PHASE_ASLEEP) atomic_fetch_add(&calls_asleep, 1);
    if (now != PHASE_POLLING) return;
    calls->all++;
    calls->window[atomic_load(&appends) / WINDOW]++;
    if (number >= 0 && number < (int)BENCH_CALL_NUMBERS) calls->of[number]++;
}

static void *counter_thread(void *arg)
{
    const bench_run *run = arg;
    int fd;
    while ((fd = atomic_load(&listener)) < 0) bench_pause(100);
    for (;;) {
        struct seccomp_notif call;
        struct seccomp_notif_resp answer = {.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE};
        memset(&call, 0, sizeof call);
        if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) {
            if (errno == EINTR || errno == ENOENT) continue;
            return NULL;
        }
        count_call(&run->shared->calls, call.data.nr);
        answer.id = call.id;
        ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

/* From here on every system call of this thread is announced. */
static bool announce_calls(const bench_run *run)
{
    struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF);
    struct sock_fprog program = {1, &all};
    pthread_t thread;
    int rc = pthread_create(&thread, NULL, counter_thread, (void *)(uintptr_t)run);
    if (rc != 0) return bench_fail(run->shared, "count system calls: thread: %s", strerror(rc));
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return bench_fail(run->shared, "no_new_privs: %s", strerror(errno));
    long fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (fd < 0) return bench_fail(run->shared, "count system calls: seccomp: %s", strerror(errno));
    atomic_store(&listener, (int)fd);
    return true;
}

static bool append_one(bench_writer *w, const bench_run *run)
{
    return bw_producer_send_sync(w->producer, run->topic, 0, &w->records[0], BENCH_WAIT_MS, NULL) == BW_OK ||
           bench_bus_failed(run, "send");
}

static bool count_writer(const bench_run *run)
{
    bench_shared *shared = run->shared;
    bench_writer w;
    if (!bench_writer_open(&w, run)) return false;
    for (uint32_t i = 0; i < WINDOW; i++) /* what the first append opens and maps is not what is asked here */
        if (!append_one(&w, run)) return false;
    if (!announce_calls(run) || !bench_arrive(shared)) return false;
    uint32_t turns = 0;
    while (atomic_load_explicit(&shared->reader[0].records, memory_order_acquire) < WINDOW)
        if (!bench_relax(shared, &turns)) return false;
    atomic_store(&phase, PHASE_POLLING);
    for (uint32_t i = 0; i < run->c->round_trips; i++) {
        atomic_store_explicit(&appends, i, memory_order_relaxed);
        if (!append_one(&w, run)) return false;
    }
    atomic_store(&phase, 0);
    for (uint32_t i = 0; i < ASLEEP_APPENDS; i++) {
        while (atomic_load_explicit(&shared->reader[0].records, memory_order_acquire) < WINDOW + run->c->round_trips + i)
            bench_pause(50);
        bench_pause(300);
        atomic_store(&phase, PHASE_ASLEEP);
        if (!append_one(&w, run)) return false;
        atomic_store(&phase, 0);
    }
    shared->writer[0].calls_asleep = atomic_load(&calls_asleep);
    return bench_writer_close(&w, run);
}

bool bench_calls_role(const bench_run *run, uint32_t index)
{
    if (index == 0) return count_writer(run);
    bench_reader r;
    bench_reader_slot *slot = &run->shared->reader[0];
    uint32_t polled = WINDOW + run->c->round_trips;
    if (!bench_reader_open(&r, run, 0) || !bench_arrive(run->shared)) return false;
    for (uint32_t done = 0; done < polled + ASLEEP_APPENDS;) {
        uint32_t n = bench_reader_read(&r, run, done >= polled, &slot->checksum);
        if (!n) return false;
        done += n;
        atomic_store_explicit(&slot->records, done, memory_order_release);
    }
    bench_reader_close(&r);
    return true;
}

static int by_count(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

void bench_calls_take(const bench_run *run, bench_figures *out)
{
    bench_calls *calls = &run->shared->calls;
    uint32_t windows = run->c->round_trips / WINDOW;
    qsort(calls->window, windows, sizeof calls->window[0], by_count);
    out->futex_calls = calls->of[SYS_futex];
    out->calls_per_1000 = calls->window[windows / 2];
    out->calls = calls->all;
    out->calls_asleep_per_1000 = (double)run->shared->writer[0].calls_asleep * 1000 / ASLEEP_APPENDS;
}
