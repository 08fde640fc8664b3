/* bench/cache.c: a log much larger than the page cache. `--case cache` alone runs it: 20 GB, with --quick 2 GB.
 *
 * A memory cgroup (v1 or v2) of CACHE_BYTES holds all that takes part: the daemon, one writer, a reader at the tail, and a reader that
 * stays LAG_BYTES behind, whose pages are therefore gone when it comes: it reads from the disk. The log keeps KEEP_BYTES, so that
 * segments are deleted all the time. Beside it, in a cgroup of the same size, the bare way: one process that does pwrite of the same
 * bytes into fallocated segments, and two that pread them.
 *
 * A call is one send, or one poll that gave a batch and the walk over its records (a poll that gave nothing counts when it took over a
 * millisecond). What a writer waits because its readers are too far behind is not in it. While a call takes longer than STALL_NS a
 * process outside of the cgroup looks each millisecond at where in the kernel its caller is (/proc/PID/stack): that is the explanation
 * which is printed with the figures. Needs root, or a cgroup that may be written to. */
#include "bus.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB         (UINT64_C(1) << 20)
#define CACHE_BYTES (256 * MIB)
#define KEEP_BYTES  (2048 * MIB)
#define LAG_BYTES   (1024 * MIB)
#define LEAD_BYTES  (96 * MIB) /* most that the writer is ahead of the reader at the tail */
#define STALL_NS    UINT64_C(10000000)
#define BUCKETS     1024u /* sixteen to each doubling */
#define PLACES      64u
#define PLACE_BYTES 160u

enum { WRITER, TAIL_READER, LATE_READER, ROLES };
static const char *const role_names[] = {"writer", "reader at the tail", "reader 1 GiB behind"};

typedef struct cache_place { /* where in the kernel somebody stood during a stall */
    uint32_t role, times;
    char frames[PLACE_BYTES];
} cache_place;

typedef struct cache_role {
    _Alignas(BENCH_CACHE_LINE) _Atomic uint64_t bytes;   /* written or read so far */
    _Alignas(BENCH_CACHE_LINE) _Atomic uint64_t busy_ns; /* since when it has been in a call; 0: it is in none */
    _Atomic pid_t pid;
    uint64_t start_ns, end_ns, calls, stalls, stall_ns, longest_ns;
    uint32_t bucket[BUCKETS];
} cache_role;

typedef struct cache_shared {
    cache_role role[ROLES];
    _Atomic bool done;
    uint32_t places;
    cache_place place[PLACES];
} cache_shared;

static cache_shared *cache; /* of this run; shared with the forked roles */

/* ---- times ---- */

static uint32_t bucket_of(uint64_t ns)
{
    if (ns < 16) return (uint32_t)ns;
    uint32_t log = 63u - (uint32_t)__builtin_clzll(ns);
    return (log - 3) * 16 + (uint32_t)((ns >> (log - 4)) & 15);
}

static double bucket_ns(uint32_t b) /* its upper end */
{
    return b < 16 ? b : (double)((UINT64_C(16) + b % 16 + 1) << (b / 16 - 1));
}

static void call_begins(cache_role *r) { atomic_store_explicit(&r->busy_ns, bench_now_ns(), memory_order_relaxed); }

static void call_ends(cache_role *r, bool counts)
{
    uint64_t ns = bench_now_ns() - atomic_load_explicit(&r->busy_ns, memory_order_relaxed);
    atomic_store_explicit(&r->busy_ns, 0, memory_order_relaxed);
    if (!counts && ns < 1000000) return;
    r->calls++;
    r->bucket[bucket_of(ns)]++;
    if (ns > r->longest_ns) r->longest_ns = ns;
    if (ns < STALL_NS) return;
    r->stalls++;
    r->stall_ns += ns;
}

static double quantile_ms(const cache_role *r, double q)
{
    uint64_t below = 0, want = (uint64_t)((double)r->calls * q);
    for (uint32_t b = 0; b < BUCKETS; b++)
        if ((below += r->bucket[b]) > want) return bucket_ns(b) / 1e6;
    return (double)r->longest_ns / 1e6;
}

static bool failed_elsewhere(const bench_run *run) { return atomic_load_explicit(&run->shared->failed, memory_order_relaxed); }

/* The writer may go on: neither reader is too far behind. */
static bool may_write(const bench_run *run)
{
    uint64_t at = atomic_load_explicit(&cache->role[WRITER].bytes, memory_order_relaxed);
    while (at > atomic_load(&cache->role[TAIL_READER].bytes) + LEAD_BYTES ||
           at > atomic_load(&cache->role[LATE_READER].bytes) + (LAG_BYTES + KEEP_BYTES) / 2) {
        if (failed_elsewhere(run)) return false;
        usleep(200);
    }
    return true;
}

/* The late reader may go on: the writer is far enough ahead, or at its end. */
static bool may_read(const bench_run *run, uint32_t index, uint64_t total)
{
    while (index == LATE_READER) {
        uint64_t written = atomic_load(&cache->role[WRITER].bytes), at = atomic_load(&cache->role[LATE_READER].bytes);
        if (written >= at + LAG_BYTES || written >= total) return true;
        if (failed_elsewhere(run)) return false;
        usleep(200);
    }
    return !failed_elsewhere(run);
}

static cache_role *role_begins(uint32_t index)
{
    cache_role *r = &cache->role[index];
    r->start_ns = bench_now_ns();
    atomic_store(&r->pid, getpid());
    return r;
}

/* ---- bare ---- */

static int bare_open(const bench_run *run, uint64_t segment, bool for_write)
{
    char name[PATH_MAX];
    if (snprintf(name, sizeof name, "%s/%06llu.log", run->dir, (unsigned long long)segment) >= (int)sizeof name) return -1;
    int fd = open(name, (for_write ? O_RDWR | O_CREAT | O_EXCL : O_RDONLY) | O_CLOEXEC, 0600);
    if (fd >= 0 && for_write && fallocate(fd, 0, 0, BENCH_SEGMENT_BYTES) != 0) return -1;
    if (for_write && segment >= KEEP_BYTES / BENCH_SEGMENT_BYTES) {
        snprintf(name, sizeof name, "%s/%06llu.log", run->dir, (unsigned long long)(segment - KEEP_BYTES / BENCH_SEGMENT_BYTES));
        unlink(name);
    }
    return fd;
}

static bool bare_role(const bench_run *run, uint32_t index)
{
    cache_role *r = role_begins(index);
    uint32_t len;
    uint8_t *batch = bench_batch_build(run->c->batch, run->c->record_bytes, &len);
    uint64_t in_segment = BENCH_SEGMENT_BYTES / len, done = 0, count = run->records / run->c->batch;
    int fd = -1;
    if (!batch || !bench_arrive(run->shared)) return false;
    for (uint64_t i = 0; i < count; i++, done += len) {
        if (index == WRITER ? !may_write(run) : !may_read(run, index, count * len)) return false;
        while (index != WRITER && atomic_load_explicit(&cache->role[WRITER].bytes, memory_order_acquire) <= done)
            if (usleep(100), failed_elsewhere(run)) return false;
        call_begins(r);
        if (i % in_segment == 0) {
            if (fd >= 0) close(fd);
            fd = bare_open(run, i / in_segment, index == WRITER);
        }
        off_t at = (off_t)(i % in_segment * len);
        ssize_t n = index == WRITER ? pwrite(fd, batch, len, at) : pread(fd, batch, len, at);
        call_ends(r, true);
        if (n != (ssize_t)len) return bench_fail(run->shared, "bare %s: %s", role_names[index], strerror(errno));
        atomic_store_explicit(&r->bytes, done + len, memory_order_release);
    }
    r->end_ns = bench_now_ns();
    return true;
}

/* ---- Busway ---- */

static bool bus_write(const bench_run *run)
{
    cache_role *r = role_begins(WRITER);
    bench_writer w;
    if (!bench_writer_open(&w, run) || !bench_arrive(run->shared)) return false;
    for (uint64_t done = 0; done < run->records; done += w.count) {
        if (!may_write(run)) return false;
        call_begins(r);
        if (!bench_writer_write(&w, run, 0)) return false;
        call_ends(r, true);
        atomic_fetch_add(&r->bytes, run->encoded_bytes);
    }
    r->end_ns = bench_now_ns();
    return bench_writer_close(&w, run);
}

static bool bus_read(const bench_run *run, uint32_t index)
{
    cache_role *r = role_begins(index);
    bench_reader reader;
    uint64_t sum = 0, total = run->records / run->c->batch * run->encoded_bytes;
    if (!bench_reader_open(&reader, run, 0) || !bench_arrive(run->shared)) return false;
    while ((uint64_t)reader.next[0] < run->records) {
        bw_batch batch;
        bw_record_view v;
        int more;
        if (!may_read(run, index, total)) return false;
        call_begins(r);
        bw_err e = bw_consumer_poll(reader.consumer, 0, &batch);
        if (e == BW_ERR_TIMED_OUT) {
            call_ends(r, false);
            usleep(100); /* not a poll that waits: only what is not waiting for the writer is to be timed */
            continue;
        }
        if (e) return bench_bus_failed(run, "poll");
        while ((more = bw_batch_next(&batch, &v)) == 1) {
            if (v.offset != reader.next[0])
                return bench_fail(run->shared, "offset %lld came, %lld was next", (long long)v.offset, (long long)reader.next[0]);
            sum += v.value[0] + v.value[v.value_len - 1];
            reader.next[0]++;
        }
        call_ends(r, true);
        if (more < 0) return bench_bus_failed(run, "iterate");
        atomic_fetch_add(&r->bytes, run->encoded_bytes);
    }
    r->end_ns = bench_now_ns();
    run->shared->reader[index].checksum = sum;
    bench_reader_close(&reader);
    return true;
}

static bool bus_role(const bench_run *run, uint32_t index) { return index == WRITER ? bus_write(run) : bus_read(run, index); }

static bool topic_role(const bench_run *run, uint32_t index)
{
    (void)index;
    bw_bus *bus;
    char segment[24], retention[24];
    snprintf(segment, sizeof segment, "%u", BENCH_SEGMENT_BYTES);
    snprintf(retention, sizeof retention, "%llu", (unsigned long long)KEEP_BYTES);
    bw_config_entry config[] = {{"segment.bytes", segment}, {"retention.bytes", retention}, {"file.delete.delay.ms", "0"}};
    if (!bench_bus_open(run, &bus)) return false;
    if (bw_topic_create(bus, run->topic, 1, config, sizeof config / sizeof config[0]) != BW_OK) return bench_bus_failed(run, "create");
    bw_bus_close(bus);
    return true;
}

/* ---- where they stand ---- */

/* The innermost functions of /proc/PID/stack: "a < b < c". */
static bool kernel_place(pid_t pid, char out[PLACE_BYTES])
{
    char path[64], line[256];
    size_t used = 0;
    snprintf(path, sizeof path, "/proc/%d/stack", (int)pid);
    FILE *f = fopen(path, "r");
    out[0] = 0;
    for (int i = 0; f && i < 7 && fgets(line, sizeof line, f);) {
        char *name = strchr(line, ' '), *plus = strchr(line, '+');
        if (!name || !plus) continue;
        *plus = 0;
        int n = snprintf(out + used, PLACE_BYTES - used, "%s%s", used ? " < " : "", name + 1);
        if (n < 0 || used + (size_t)n >= PLACE_BYTES) break;
        used += (size_t)n;
        i++;
    }
    if (f) fclose(f);
    return used > 0;
}

static void note_place(uint32_t role, const char *frames)
{
    uint32_t i = 0;
    while (i < cache->places && (cache->place[i].role != role || strcmp(cache->place[i].frames, frames) != 0)) i++;
    if (i == PLACES) return;
    if (i == cache->places) {
        cache->place[i] = (cache_place){.role = role};
        snprintf(cache->place[i].frames, PLACE_BYTES, "%s", frames);
        cache->places++;
    }
    cache->place[i].times++;
}

static void look_on(void)
{
    char frames[PLACE_BYTES];
    while (!atomic_load(&cache->done)) {
        usleep(1000);
        for (uint32_t i = 0; i < ROLES; i++) {
            uint64_t since = atomic_load(&cache->role[i].busy_ns);
            if (!since || bench_now_ns() < since + STALL_NS) continue;
            if (kernel_place(atomic_load(&cache->role[i].pid), frames)) note_place(i, frames);
        }
    }
}

/* ---- the cgroup ---- */

typedef struct cgroup {
    char path[PATH_MAX], back[PATH_MAX]; /* its folder; the cgroup.procs that this process came from */
} cgroup;

static bool put_text(const char *dir, const char *name, const char *text)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path) return false;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) close(fd);
    return ok;
}

/* The cgroup of this process: of the v1 memory controller, or the unified one. */
static bool cgroup_here(bool v1, char *out, size_t size)
{
    char line[PATH_MAX];
    bool found = false;
    FILE *f = fopen("/proc/self/cgroup", "r");
    while (f && !found && fgets(line, sizeof line, f)) {
        char *at = strstr(line, v1 ? ":memory:" : "0::");
        if (!at || (!v1 && at != line)) continue;
        at = strchr(at + 1, ':') + 1;
        if (!v1) at = strrchr(line, ':') + 1;
        at[strcspn(at, "\n")] = 0;
        found = snprintf(out, size, "%s%s", v1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup", at) < (int)size;
    }
    if (f) fclose(f);
    return found;
}

static bool cgroup_enter(const bench_run *run, cgroup *g)
{
    char bytes[32];
    bool v1 = access("/sys/fs/cgroup/memory/memory.limit_in_bytes", F_OK) == 0;
    snprintf(bytes, sizeof bytes, "%llu", (unsigned long long)CACHE_BYTES);
    snprintf(g->path, sizeof g->path, "%s/busway-bench.%d", v1 ? "/sys/fs/cgroup/memory" : "/sys/fs/cgroup", (int)getpid());
    if (!cgroup_here(v1, g->back, sizeof g->back)) return bench_fail(run->shared, "this process is in no memory cgroup");
    if (!v1) put_text("/sys/fs/cgroup", "cgroup.subtree_control", "+memory");
    if ((mkdir(g->path, 0755) != 0 && errno != EEXIST) || !put_text(g->path, v1 ? "memory.limit_in_bytes" : "memory.max", bytes) ||
        !put_text(g->path, "cgroup.procs", "0"))
        return bench_fail(run->shared, "cannot make a memory cgroup at %s: %s (root is needed)", g->path, strerror(errno));
    return true;
}

static void cgroup_leave(const cgroup *g) { put_text(g->back, "cgroup.procs", "0"); }

static void cgroup_remove(const cgroup *g)
{
    put_text(g->path, "memory.force_empty", "0");
    for (int i = 0; i < 50 && rmdir(g->path) != 0 && errno == EBUSY; i++) usleep(100000);
}

/* ---- one side ---- */

static bool run_inside(bench_run *run, const char *program, bench_daemon *daemon)
{
    char why[512];
    bench_role one = {topic_role, -1}, roles[ROLES];
    for (uint32_t i = 0; i < ROLES; i++) roles[i] = (bench_role){program ? bus_role : bare_role, -1};
    if (program) {
        if (!bench_daemon_start(daemon, program, run->dir, why, sizeof why)) return bench_fail(run->shared, "%s", why);
        run->bus_url = daemon->url;
        run->topic = "cache";
        if (!bench_roles_run(run, &one, 1, 20)) return false;
        atomic_store(&run->shared->arrived, 0);
    }
    return bench_roles_run(run, roles, ROLES, 3600);
}

static void report(const bench_run *run, const char *side)
{
    printf("%-7s %-20s %8s %9s %9s %9s %9s %9s %8s %9s\n", side, "who", "MB/s", "calls", "p50 ms", "p99 ms", "p99.9 ms", "max ms", "> 10 ms",
           "in all s");
    for (uint32_t i = 0; i < ROLES; i++) {
        const cache_role *r = &cache->role[i];
        double seconds = (double)(r->end_ns - r->start_ns) / 1e9;
        printf("%-7s %-20s %8.0f %9llu %9.3f %9.3f %9.3f %9.1f %8llu %9.2f\n", "", role_names[i],
               seconds > 0 ? (double)atomic_load(&r->bytes) / 1e6 / seconds : 0, (unsigned long long)r->calls, quantile_ms(r, 0.5),
               quantile_ms(r, 0.99), quantile_ms(r, 0.999), (double)r->longest_ns / 1e6, (unsigned long long)r->stalls,
               (double)r->stall_ns / 1e9);
    }
    for (uint32_t n = 0; n < 8; n++) { /* the places of the longest stay */
        cache_place *most = NULL;
        for (uint32_t i = 0; i < cache->places; i++)
            if (cache->place[i].times && (!most || cache->place[i].times > most->times)) most = &cache->place[i];
        if (!most) break;
        printf("        %6u ms  %-20s %s\n", most->times, role_names[most->role], most->frames);
        most->times = 0;
    }
    fflush(stdout);
    (void)run;
}

static bool one_side(bench_run *run, const char *program)
{
    cgroup g;
    bench_daemon daemon = {0};
    memset(cache, 0, sizeof *cache);
    bench_shared_reset(run->shared);
    fflush(NULL);
    pid_t watcher = fork();
    if (watcher == 0) {
        look_on();
        _exit(0);
    }
    bool ok = watcher > 0 && cgroup_enter(run, &g);
    if (ok) {
        ok = run_inside(run, program, &daemon);
        cgroup_leave(&g);
    }
    atomic_store(&cache->done, true);
    if (watcher > 0) waitpid(watcher, NULL, 0);
    bench_daemon_stop(&daemon);
    if (daemon.runtime[0]) bench_remove_tree(daemon.runtime);
    cgroup_remove(&g);
    if (ok) report(run, program ? "Busway" : "bare");
    return ok;
}

bool bench_cache_run(bench_shared *shared, const char *dir, const char *program, uint64_t bytes)
{
    static const bench_case c = {BENCH_FAN, "direct", BENCH_BATCH, 1024, 100, 1, 2, 1, false, BENCH_BESIDE_LIMIT, 0, 0, 0};
    char place[PATH_MAX];
    uint32_t len;
    free(bench_batch_build(c.batch, c.record_bytes, &len));
    bench_run run = {.c = &c, .shared = shared, .dir = place, .encoded_bytes = len, .records = bytes / len * c.batch};
    cache = mmap(NULL, sizeof *cache, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (cache == MAP_FAILED) return bench_fail(shared, "out of memory");
    printf("A log of %.1f GB through a page cache of %llu MiB, %llu MiB kept; batches of %u x %u bytes.\n", (double)bytes / 1e9,
           (unsigned long long)(CACHE_BYTES / MIB), (unsigned long long)(KEEP_BYTES / MIB), c.batch, c.record_bytes);
    bool ok = true;
    for (int side = 0; ok && side < 2; side++) {
        if (snprintf(place, sizeof place, "%s/cache", dir) >= (int)sizeof place) return bench_fail(shared, "path too long: %s", dir);
        if (mkdir(place, 0700) != 0) return bench_fail(shared, "mkdir %s: %s", place, strerror(errno));
        ok = one_side(&run, side == 0 ? program : NULL);
        bench_remove_tree(place);
    }
    munmap(cache, sizeof *cache);
    return ok;
}
