/* bench/bench.c: clock, process control, memory and percentiles of the benchmarks. */
#include "bench.h"

#include <errno.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

uint64_t bench_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

bool bench_fail(bench_shared *s, const char *fmt, ...)
{
    uint32_t none = 0;
    if (!atomic_compare_exchange_strong(&s->failed, &none, 1)) return false;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(s->error, sizeof s->error, fmt, ap);
    va_end(ap);
    return false;
}

bool bench_arrive(bench_shared *s)
{
    atomic_fetch_add(&s->arrived, 1);
    while (atomic_load_explicit(&s->arrived, memory_order_acquire) < s->roles) {
        if (atomic_load_explicit(&s->failed, memory_order_relaxed)) return false;
        sched_yield();
    }
    return true;
}

void bench_pause(uint32_t us)
{
    struct timespec t = {0, (long)us * 1000};
    prctl(PR_SET_TIMERSLACK, 1);
    nanosleep(&t, NULL);
}

/* A long wait gives the core away, at once when several readers share it; a short one of a reader with a core of its own never
 * enters the kernel. */
bool bench_relax(bench_shared *s, uint32_t *turns)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
    if ((++*turns & 63u) != 0) return true;
    if (atomic_load_explicit(&s->failed, memory_order_relaxed)) return false;
    if (s->roles > 2 || (*turns & 1023u) == 0) sched_yield();
    return true;
}

uint64_t bench_step_records(const bench_run *run)
{
    uint64_t batches = BENCH_STEP_BYTES / run->encoded_bytes;
    return (batches ? batches : 1) * run->c->batch;
}

bool bench_hold(const bench_run *run, uint64_t records_written)
{
    uint64_t lead = (uint64_t)BENCH_LEAD_BYTES / run->encoded_bytes * run->c->batch;
    uint32_t turns = 0;
    for (uint32_t i = 0; i < run->c->readers; i++)
        while (atomic_load_explicit(&run->shared->reader[i].records, memory_order_acquire) + lead < records_written)
            if (!bench_relax(run->shared, &turns)) return false;
    return true;
}

bench_shared *bench_shared_make(void)
{
    void *p = mmap(NULL, sizeof(bench_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

void bench_shared_reset(bench_shared *s) { memset(s, 0, offsetof(bench_shared, sample_ns)); }

void bench_touch_memory(uint64_t bytes)
{
    char *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return;
    madvise(p, bytes, MADV_HUGEPAGE); /* large blocks serve large and small pages alike afterwards */
    for (uint64_t i = 0; i < bytes; i += 4096) *(volatile char *)(p + i) = 1;
    munmap(p, bytes);
}

#define FALL_ASLEEP_US 60

bool bench_one_way_pause(const bench_run *run, uint32_t i)
{
    do {
        if (atomic_load_explicit(&run->shared->failed, memory_order_relaxed)) return false;
        bench_pause(FALL_ASLEEP_US);
    } while (atomic_load_explicit(&run->shared->reader[0].records, memory_order_acquire) < i);
    bench_pause(FALL_ASLEEP_US);
    return true;
}

void bench_one_way_note(const bench_run *run, uint32_t i, uint64_t ns)
{
    if (i >= run->c->round_trips / 10) run->shared->sample_ns[run->shared->samples++] = ns;
    atomic_store_explicit(&run->shared->reader[0].records, i + 1, memory_order_release);
}

bool bench_one_way_check(const bench_run *run)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    if ((uint64_t)u.ru_nvcsw >= run->c->round_trips) return true;
    return bench_fail(run->shared, "the reader slept %ld times for %u records", u.ru_nvcsw, run->c->round_trips);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path) != 0 && errno != ENOENT;
}

void bench_remove_tree(const char *dir) { nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT); }

static void role_process(const bench_run *run, const bench_role *role, uint32_t index)
{
    char name[16];
    snprintf(name, sizeof name, "bench-%s%u", run->bus_url ? "bus-" : "", index); /* seen by top and perf */
    prctl(PR_SET_NAME, name);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    if (role->core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(role->core, &set);
        if (sched_setaffinity(0, sizeof set, &set) != 0)
            _exit(bench_fail(run->shared, "pin to core %d: %s", role->core, strerror(errno)));
    }
    _exit(role->fn(run, index) ? 0 : 1);
}

static bool roles_wait(const bench_run *run, pid_t *pids, uint32_t count, unsigned timeout_s)
{
    uint64_t deadline = bench_now_ns() + (uint64_t)timeout_s * 1000000000u;
    uint32_t alive = count;
    while (alive) {
        for (uint32_t i = 0; i < count; i++) {
            int status;
            if (pids[i] <= 0 || waitpid(pids[i], &status, WNOHANG) != pids[i]) continue;
            pids[i] = 0;
            alive--;
            if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                bench_fail(run->shared, "process %u of the run ended with wait status 0x%x", i, (unsigned)status);
        }
        if (bench_now_ns() > deadline) bench_fail(run->shared, "not finished after %u s", timeout_s);
        if (atomic_load(&run->shared->failed) && bench_now_ns() + 1000000000u > deadline) break;
        if (atomic_load(&run->shared->failed) && deadline > bench_now_ns() + 2000000000u) deadline = bench_now_ns() + 2000000000u;
        usleep(2000);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (pids[i] <= 0) continue;
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    return !atomic_load(&run->shared->failed);
}

bool bench_roles_run(const bench_run *run, const bench_role *roles, uint32_t count, unsigned timeout_s)
{
    pid_t pids[BENCH_READERS_MAX + BENCH_WRITERS_MAX] = {0};
    run->shared->roles = count;
    fflush(NULL);
    for (uint32_t i = 0; i < count; i++) {
        pids[i] = fork();
        if (pids[i] == 0) role_process(run, &roles[i], i);
        if (pids[i] < 0) bench_fail(run->shared, "fork: %s", strerror(errno));
    }
    return roles_wait(run, pids, count, timeout_s);
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static double rate_of(uint64_t records, uint64_t start_ns, uint64_t end_ns)
{
    return end_ns > start_ns ? (double)records * 1e9 / (double)(end_ns - start_ns) : 0;
}

static void take_rates(const bench_run *run, bench_figures *out)
{
    const bench_shared *s = run->shared;
    uint64_t timed = run->records - run->warm_records, first = UINT64_MAX, last = 0;
    for (uint32_t i = 0; i < run->c->readers; i++) out->rate += rate_of(timed, s->reader[i].start_ns, s->reader[i].end_ns);
    out->writer_rate = rate_of(timed, s->writer[0].start_ns, s->writer[0].end_ns);
    if (run->c->kind != BENCH_WRITERS && run->c->kind != BENCH_COMMIT_MANY && run->c->kind < BENCH_TXN) return;
    for (uint32_t i = 0; i < run->c->writers; i++) {
        if (s->writer[i].start_ns && s->writer[i].start_ns < first) first = s->writer[i].start_ns;
        if (s->writer[i].end_ns > last) last = s->writer[i].end_ns;
    }
    out->rate = rate_of(run->c->kind == BENCH_WRITERS ? timed : run->c->round_trips, first, last);
}

void bench_figures_take(const bench_run *run, bench_figures *out)
{
    bench_shared *s = run->shared;
    if (run->c->kind == BENCH_E2E || run->c->kind == BENCH_FAN || run->c->kind == BENCH_WRITERS ||
        run->c->kind == BENCH_COMMIT_MANY || run->c->kind >= BENCH_TXN)
        take_rates(run, out);
    if (run->c->kind == BENCH_DURABLE_MANY) out->rate = rate_of(run->c->round_trips, s->writer[0].start_ns, s->writer[0].end_ns);
    if (run->c->kind == BENCH_COMPACT) {
        out->rate = rate_of(s->compact_records, 0, s->compact_ns);
        out->peak_bytes = (double)s->compact_peak_bytes;
    }
    out->samples = s->samples;
    out->samples_every = run->point_records;
    if (!s->samples) return;
    double sum = 0;
    for (uint32_t i = 0; i < s->samples; i++) sum += (double)s->sample_ns[i];
    out->mean_ns = sum / s->samples;
    if (run->c->kind == BENCH_DURABLE || run->c->kind == BENCH_COMMIT) out->rate = 1e9 / out->mean_ns;
    qsort(s->sample_ns, s->samples, sizeof s->sample_ns[0], by_value);
    out->p50_ns = (double)s->sample_ns[s->samples / 2];
    out->p99_ns = (double)s->sample_ns[(uint64_t)s->samples * 99 / 100];
    out->p999_ns = (double)s->sample_ns[(uint64_t)s->samples * 999 / 1000];
}
