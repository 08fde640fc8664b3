/* bench/scale.c: `--case scale`, or one of its steps, `--case scale/many`: many partitions, a long log, and what reaches the
 * disk. Each figure stands beside its bound.
 *
 * The steps, each on a daemon and a data folder of their own below the benchmark's folder:
 *   many    10,000 partitions made; descriptors and memory; written all at once, 100,000 records of 100 B a second in batches of 100 for
 *           each partition in turn of a shuffled order; the daemon killed and started again; stopped and started again
 *   wake    one consumer of 1,000 partitions: at how many it looks for each record that comes on one of them
 *   long    a log of 10 GB in segments of 64 MiB, written as fast as it goes; everything killed; first read and first append again,
 *           with the control data that lives, and, killed once more, without (as after a reboot)
 *   disk    bytes written to the disk for 2 GB in batches of 100 x 100 B: what daemon and writer have made dirty, of data, indexes,
 *           seals and metadata (/proc/<pid>/io, less what was taken back), over the bytes of the records' values
 * "First answer" is counted from the daemon's exec to the first answered request. Everything runs in a child of the benchmark, the
 * writer of the long log in a child of that. */
#include "bench.h"

#include <busway/busway.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROWS_MAX 32
#define WAIT_MS 60000
#define BATCH 100u
#define VALUE 100u
#define MIB (UINT64_C(1) << 20)

typedef struct row {
    char name[96], unit[16];
    double value, bound; /* bound 0: none */
    bool at_least;
} row;

typedef struct scale {
    row rows[ROWS_MAX];
    size_t count;
    char error[600];
    char dir[PATH_MAX], runtime[64], url[128];
    const char *program, *only; /* a step's name; "": all */
    bool quick;
    pid_t daemon;
    bw_bus *bus;
    bw_record records[BATCH];
    uint8_t values[BATCH][VALUE];
} scale;

static void add(scale *s, const char *name, double value, const char *unit, double bound, bool at_least)
{
    if (s->count == ROWS_MAX) return;
    row *r = &s->rows[s->count++];
    *r = (row){.value = value, .bound = bound, .at_least = at_least};
    snprintf(r->name, sizeof r->name, "%s", name);
    snprintf(r->unit, sizeof r->unit, "%s", unit);
}

static bool fail(scale *s, const char *what)
{
    if (!s->error[0]) snprintf(s->error, sizeof s->error, "%.80s: %.400s", what, bw_error_message());
    return false;
}

static double ms_since(uint64_t then) { return (double)(bench_now_ns() - then) / 1e6; }

/* ---- the daemon ---- */

static void launch(scale *s)
{
    char data[PATH_MAX + 8], log[PATH_MAX + 16];
    snprintf(data, sizeof data, "%s/data", s->dir);
    snprintf(log, sizeof log, "%s/daemon.log", s->dir);
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0) {
        s->daemon = pid;
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) dup2(fd, 2);
    execl(s->program, s->program, "--data-dir", data, "--runtime-dir", s->runtime, "--listen", s->url, (char *)NULL);
    _exit(127);
}

/* Until it answers; how long from its start. */
static bool start(scale *s, double *ms)
{
    uint64_t begun = bench_now_ns();
    launch(s);
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    o.client_id = "busway-bench-scale";
    char *status = NULL;
    for (;;) {
        s->bus = NULL;
        if (bw_bus_open(s->url, &o, &s->bus) == BW_OK && bw_status(s->bus, &status) == BW_OK) break;
        bw_bus_close(s->bus);
        s->bus = NULL;
        if (waitpid(s->daemon, NULL, WNOHANG) == s->daemon || ms_since(begun) > WAIT_MS) return fail(s, "the daemon does not answer");
        usleep(500);
    }
    *ms = ms_since(begun);
    bw_free(status);
    return true;
}

static void end(scale *s, int sig)
{
    bw_bus_close(s->bus);
    s->bus = NULL;
    if (s->daemon > 0) {
        kill(s->daemon, sig);
        waitpid(s->daemon, NULL, 0);
    }
    s->daemon = 0;
}

static double descriptors(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    double n = 0;
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d));) n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

/* A line "name: number" of a file of /proc/<pid>. */
static double proc_number(pid_t pid, const char *file, const char *name)
{
    char path[64], line[256];
    double v = 0;
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0 && line[strlen(name)] == ':') v = atof(line + strlen(name) + 1);
    if (f) fclose(f);
    return v;
}

static double resident_mib(pid_t pid) { return proc_number(pid, "status", "VmRSS") / 1024; }
static double dirtied(pid_t pid) { return proc_number(pid, "io", "write_bytes") - proc_number(pid, "io", "cancelled_write_bytes"); }

/* ---- writing and reading ---- */

static bool topic_make(scale *s, const char *topic, int32_t partitions, const bw_config_entry *config, size_t count)
{
    return bw_topic_create(s->bus, topic, partitions, config, count) == BW_OK || fail(s, "make a topic");
}

static bool append(scale *s, bw_producer *p, const char *topic, int32_t partition)
{
    return bw_producer_send_batch(p, topic, partition, s->records, BATCH, WAIT_MS, NULL) == BW_OK || fail(s, "append");
}

/* The first record that comes of the partition. */
static bool read_one(scale *s, const char *topic, int32_t partition, int64_t offset)
{
    bw_consumer *c = NULL;
    bw_batch b;
    bool ok = bw_consumer_open(s->bus, NULL, &c) == BW_OK && bw_consumer_assign(c, topic, partition, offset) == BW_OK &&
              bw_consumer_poll(c, WAIT_MS, &b) == BW_OK;
    if (!ok) fail(s, "read");
    bw_consumer_close(c);
    return ok;
}

static bool first_uses(scale *s, const char *what, const char *topic, int32_t partition, double start_ms)
{
    char name[96];
    bw_producer *p = NULL;
    uint64_t begun = bench_now_ns();
    if (!read_one(s, topic, partition, BW_OFFSET_BEGINNING)) return false;
    double read_ms = start_ms + ms_since(begun);
    begun = bench_now_ns();
    bool ok = bw_producer_open(s->bus, NULL, &p) == BW_OK && append(s, p, topic, partition);
    double append_ms = start_ms + ms_since(begun);
    bw_producer_close(p, WAIT_MS);
    if (!ok) return fail(s, "append");
    snprintf(name, sizeof name, "%s, first answer", what);
    add(s, name, start_ms, "ms", 1000, false);
    snprintf(name, sizeof name, "%s, first read", what);
    add(s, name, read_ms, "ms", 1000, false);
    snprintf(name, sizeof name, "%s, first append", what);
    add(s, name, append_ms, "ms", 1000, false);
    return true;
}

/* ---- many partitions ---- */

static bool write_all(scale *s, int32_t partitions)
{
    const double batches_s = 1000;
    uint64_t total = (uint64_t)partitions * 2;
    uint32_t at = 0, step = 7919; /* a prime: every partition in turn, neighbours far apart */
    bw_producer *p = NULL;
    double most_files = 0, most_mib = 0;
    if (bw_producer_open(s->bus, NULL, &p) != BW_OK) return fail(s, "open a producer");
    uint64_t begun = bench_now_ns();
    for (uint64_t i = 0; i < total; i++) {
        double due_ms = (double)i / batches_s * 1000, now_ms = ms_since(begun);
        if (now_ms < due_ms) usleep((useconds_t)((due_ms - now_ms) * 1000));
        if (!append(s, p, "many", (int32_t)at)) return false;
        at = (at + step) % (uint32_t)partitions;
        if (i % 200) continue;
        double files = descriptors(s->daemon), mib = resident_mib(s->daemon);
        if (files > most_files) most_files = files;
        if (mib > most_mib) most_mib = mib;
    }
    double rate = (double)total * BATCH / (ms_since(begun) / 1000);
    bw_producer_close(p, WAIT_MS);
    add(s, "all written in turn, offered 100,000/s", rate, "records/s", 99000, true);
    add(s, "all written in turn, descriptors", most_files, "", 1024, false);
    add(s, "all written in turn, memory", most_mib, "MiB", 64, false);
    return true;
}

static bool many(scale *s)
{
    int32_t partitions = s->quick ? 2000 : 10000;
    double ms;
    if (!start(s, &ms)) return false;
    uint64_t begun = bench_now_ns();
    if (!topic_make(s, "many", partitions, NULL, 0)) return false;
    add(s, "partitions", partitions, "", 0, false);
    add(s, "made", ms_since(begun), "ms", 10000, false);
    sleep(s->quick ? 1 : 4);
    add(s, "idle, descriptors", descriptors(s->daemon), "", 1024, false);
    add(s, "idle, memory", resident_mib(s->daemon), "MiB", 64, false);
    if (!write_all(s, partitions)) return false;
    end(s, SIGKILL);
    if (!start(s, &ms) || !first_uses(s, "killed", "many", partitions / 2, ms)) return false;
    end(s, SIGTERM);
    if (!start(s, &ms) || !first_uses(s, "stopped", "many", partitions / 2, ms)) return false;
    end(s, SIGKILL);
    return true;
}

/* ---- wakes ---- */

static double looked_at(bw_bus *bus)
{
    char *text = bw_bus_stats(bus);
    const char *at = text ? strstr(text, "\"partitions_looked_at\":") : NULL;
    double v = at ? atof(at + 23) : -1;
    bw_free(text);
    return v;
}

static bool wake(scale *s)
{
    enum { PARTITIONS = 1000, RECORDS = 200 };
    double ms;
    bw_producer *p = NULL;
    bw_consumer *c = NULL;
    bw_batch b;
    if (!start(s, &ms) || !topic_make(s, "wake", PARTITIONS, NULL, 0)) return false;
    if (bw_producer_open(s->bus, NULL, &p) != BW_OK || bw_consumer_open(s->bus, NULL, &c) != BW_OK ||
        bw_consumer_assign(c, "wake", BW_PARTITION_ANY, BW_OFFSET_END) != BW_OK)
        return fail(s, "open");
    while (bw_consumer_poll(c, 100, &b) == BW_OK) {}
    double before = looked_at(s->bus);
    for (uint32_t i = 0; i < RECORDS; i++) {
        int32_t partition = (int32_t)(i * 7919 % PARTITIONS);
        if (!append(s, p, "wake", partition)) return false;
        if (bw_consumer_poll(c, WAIT_MS, &b) != BW_OK || b.partition != partition) return fail(s, "poll");
        (void)bw_consumer_poll(c, 1, &b); /* asleep again */
    }
    add(s, "1,000 partitions, one has data: looked at", (looked_at(s->bus) - before) / RECORDS, "", 3, false);
    bw_consumer_close(c);
    bw_producer_close(p, WAIT_MS);
    end(s, SIGTERM);
    return true;
}

/* ---- a long log ---- */

/* A writer in a process of its own. Told: how many batches it wrote. */
static pid_t writer(scale *s, const char *topic, uint64_t batches, uint64_t gap_ns, _Atomic uint64_t *told)
{
    fflush(NULL);
    pid_t pid = fork();
    if (pid) return pid;
    bw_bus *bus;
    bw_producer *p;
    if (bw_bus_open(s->url, NULL, &bus) || bw_producer_open(bus, NULL, &p)) _exit(1);
    uint64_t begun = bench_now_ns();
    for (uint64_t i = 0; i < batches; i++) {
        while (gap_ns && bench_now_ns() - begun < i * gap_ns) usleep(200);
        if (bw_producer_send_batch(p, topic, 0, s->records, BATCH, WAIT_MS, NULL) != BW_OK) _exit(2);
        atomic_store_explicit(told, i + 1, memory_order_release);
    }
    for (;;) pause();
}

static _Atomic uint64_t *shared_counter(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static bool wait_for(scale *s, pid_t pid, _Atomic uint64_t *told, uint64_t batches)
{
    while (atomic_load_explicit(told, memory_order_acquire) < batches) {
        if (waitpid(pid, NULL, WNOHANG) == pid) return fail(s, "the writer ended");
        usleep(1000);
    }
    return true;
}

static const bw_config_entry segments[] = {{"segment.bytes", "67108864"}};

static bool long_log(scale *s)
{
    uint64_t bytes = s->quick ? UINT64_C(2) << 30 : UINT64_C(10) << 30, batches = bytes / (BATCH * VALUE);
    _Atomic uint64_t *told = shared_counter();
    double ms;
    if (!told || !start(s, &ms) || !topic_make(s, "long", 1, segments, 1)) return fail(s, "begin");
    pid_t pid = writer(s, "long", batches, 0, told);
    bool ok = wait_for(s, pid, told, batches - batches / 50); /* killed while it writes */
    kill(pid, SIGKILL);
    end(s, SIGKILL);
    waitpid(pid, NULL, 0);
    add(s, "a log of", (double)atomic_load(told) * BATCH * VALUE / (double)(1 << 30), "GiB", 0, false);
    if (!ok || !start(s, &ms) || !first_uses(s, "long log, all killed", "long", 0, ms)) return false;
    end(s, SIGKILL);
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'", s->runtime);
    if (system(command) != 0) return fail(s, command);
    if (!start(s, &ms) || !first_uses(s, "long log, control data lost", "long", 0, ms)) return false;
    end(s, SIGTERM);
    return true;
}

/* ---- the disk ---- */

static bool disk(scale *s)
{
    uint64_t bytes = s->quick ? 512 * MIB : 2048 * MIB, batches = bytes / (BATCH * VALUE), warm = batches / 8;
    _Atomic uint64_t *told = shared_counter();
    double ms;
    if (!told || !start(s, &ms) || !topic_make(s, "disk", 1, segments, 1)) return fail(s, "begin");
    pid_t pid = writer(s, "disk", batches + warm, 100000, told); /* 1,000,000 records a second */
    if (!wait_for(s, pid, told, warm)) return false;
    double before = dirtied(pid) + dirtied(s->daemon);
    uint64_t first = atomic_load(told);
    bool ok = wait_for(s, pid, told, batches + warm);
    sleep(2);
    double payload = (double)(atomic_load(told) - first) * BATCH * VALUE;
    add(s, "bytes to the disk / payload, batches of 100", (dirtied(pid) + dirtied(s->daemon) - before) / payload, "", 1.2, false);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    end(s, SIGTERM);
    return ok;
}

/* ---- all of it ---- */

static bool step(scale *s, const char *name, const char *dir, bool (*fn)(scale *s))
{
    if (s->only[0] && strcmp(s->only, name) != 0) return true;
    char command[PATH_MAX + 64];
    snprintf(s->dir, sizeof s->dir, "%s/%s", dir, name);
    snprintf(s->runtime, sizeof s->runtime, "/dev/shm/busway-bench.%d.%s", (int)getpid(), name);
    snprintf(s->url, sizeof s->url, "ipc://%s/bus.sock", s->runtime);
    snprintf(command, sizeof command, "mkdir -p '%.3900s'", s->dir);
    bool ok = system(command) == 0 && fn(s);
    if (!ok) fail(s, name);
    end(s, SIGKILL);
    if (!ok) return false; /* what lies there may say why */
    snprintf(command, sizeof command, "rm -rf '%.3900s' '%s'", s->dir, s->runtime);
    return system(command) == 0;
}

static void run_all(scale *s, const char *dir)
{
    for (uint32_t i = 0; i < BATCH; i++) {
        bench_value_fill(s->values[i], VALUE, i);
        s->records[i] = (bw_record){.value = s->values[i], .value_len = VALUE, .timestamp_ms = BW_NO_TIMESTAMP};
    }
    (void)(step(s, "many", dir, many) && step(s, "wake", dir, wake) && step(s, "disk", dir, disk) && step(s, "long", dir, long_log));
}

static void report(const scale *s, FILE *json, bool table)
{
    if (table) printf("%-46s %14s %-10s %s\n", "scale", "Busway", "", "bound");
    fprintf(json, "[");
    for (size_t i = 0; i < s->count; i++) {
        const row *r = &s->rows[i];
        bool met = r->at_least ? r->value >= r->bound : r->value <= r->bound;
        char bound[160] = "";
        if (r->bound > 0) snprintf(bound, sizeof bound, "%s %g  %s", r->at_least ? ">=" : "<=", r->bound, met ? "met" : "MISSED");
        if (table) printf("%-46s %14.*f %-10s %s\n", r->name, r->value < 100 ? 2 : 0, r->value, r->unit, bound);
        fprintf(json, "%s\n  {\"case\":\"scale\",\"figure\":\"%s\",\"value\":%.3f,\"unit\":\"%s\",\"bound\":%g,\"met\":%s}", i ? "," : "", r->name,
                r->value, r->unit, r->bound, r->bound <= 0 ? "null" : met ? "true" : "false");
    }
    fprintf(json, "\n]\n");
    fflush(stdout);
}

bool bench_scale_run(const char *program, const char *dir, const char *only, bool quick, FILE *json, bool table)
{
    scale *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (s == MAP_FAILED) return false;
    s->program = program;
    s->only = only;
    s->quick = quick;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_all(s, dir);
        _exit(0);
    }
    int status = 0;
    bool ok = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0 && !s->error[0];
    report(s, json, table);
    if (!ok) fprintf(stderr, "busway-bench: scale: %s\n", s->error[0] ? s->error : "it was killed");
    munmap(s, sizeof *s);
    return ok;
}
