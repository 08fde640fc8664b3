/* tests/battery/bitrot_meta.c: every byte of the metadata rots, every file of it is cut at every length or goes: LMDB's file, its lock file,
 * snapshot and journal. `bitrot_meta SEED SECONDS [PROCESSES]`: changes in an order that follows from the seed, until the time is over; 0 SECONDS:
 * each byte (one bit of it, by the seed), each length; -1: each bit.
 *
 *   one change     The store opens, and all that it says is what was stored; then it is written to, closed and opened again: all is
 *                  there, and nothing is mended a second time. A change that nothing was told of is harmless: all is the same.
 *   two changes    in two files: all that is said is what was stored, or it is refused; less than that only when it was told.
 *   while it runs  a byte of LMDB's file changes under an open store: what is read is what was stored, or an error. (What isn't found
 *                  is counted apart, and crashes are: the next start, which must mend it, comes after them.)
 * Tried in processes that may crash; who crashes at the start, or hangs, is a violation. */
#include "base/bytes.h"
#include "base/clock.h"
#include "meta/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILES = 4, TOPICS = 5, POINTS = 60, PRODUCERS = 6, WORKERS_MAX = 16, RUNNING_TRIES = 8192, FAILURES_MAX = 20, STUCK_ROUNDS = 12000 };
typedef enum mode { ONE, TWO, RUNNING, MODES } mode;
static const char *const mode_names[MODES] = {"one change", "two changes", "while it runs"};

typedef struct file {
    char name[64];
    uint8_t *bytes;
    size_t len, dense;
} file;

typedef struct change {
    int file, bit; /* bit -1: cut to `at`; -2: gone */
    size_t at;
} change;

/* In memory that all processes share. */
typedef struct counts {
    _Atomic uint64_t tried[MODES], harmless[MODES], mended[MODES], refused[MODES], told_less, errors, not_found, crashed, contained;
    _Atomic uint32_t failures;
    _Atomic uint64_t at[WORKERS_MAX];
} counts;

typedef struct rot {
    char root[64], dir[WORKERS_MAX][96];
    file files[FILES];
    int file_count;
    uint64_t bytes, single; /* all bytes; number of single changes */
    int bits;               /* of each byte */
    int workers;
    uint64_t seed;
    bw_uuid bus;
    int64_t ids[PRODUCERS], next_id;
    counts *c;
} rot;

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "bitrot_meta: %s: %s; %s\n", what, strerror(errno), bw_error_message());
    exit(2);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* ---- what is stored ---- */

static void topic_of(int i, bw_meta_topic *t, bw_meta_config *configs)
{
    *t = (bw_meta_topic){.partitions = (uint32_t)i + 1, .created_ms = 1000 + i, .configs = configs, .config_count = i == 3 ? 20 : (size_t)i};
    snprintf(t->name, sizeof t->name, "topic-%d", i);
    memset(t->id.b, i + 1, sizeof t->id.b);
    for (size_t k = 0; k < t->config_count; k++) {
        snprintf(configs[k].name, sizeof configs[k].name, "name.%zu", k);
        memset(configs[k].value, 'a' + (int)k, 150);
        configs[k].value[150] = 0;
    }
}

static bw_meta_point point_of(int i, int64_t round)
{
    bw_meta_point p = {.partition = (uint32_t)i / TOPICS,
                       .point = {.leader_epoch = 3, .next_offset = 1000 * round + i, .segment_base = i, .position = 77, .last_crc = 0xabcdef01}};
    memset(p.topic.b, i % TOPICS + 1, sizeof p.topic.b);
    p.point.poisoned = i == 7;
    return p;
}

static bw_err put_points(bw_store *s, int64_t round)
{
    bw_meta_point all[POINTS];
    for (int i = 0; i < POINTS; i++) all[i] = point_of(i, round);
    return bw_store_points_put(s, all, POINTS);
}

static bw_err put_topics(bw_store *s)
{
    bw_err e = BW_OK;
    bw_meta_config configs[64];
    bw_meta_topic t;
    for (int i = 0; !e && i < TOPICS; i++) {
        topic_of(i, &t, configs);
        e = bw_store_topic_put(s, &t);
    }
    return e;
}

static void make_master(rot *r, const char *dir)
{
    bw_store *s;
    bw_meta_topic passing = {.name = "passing", .partitions = 1, .id = {{9}}};
    setenv("BUSWAY_META_JOURNAL_BYTES", "12000", 1); /* one snapshot on the way */
    if (bw_store_open(dir, 0, &s)) die("open");
    int16_t epoch;
    bw_err e = put_topics(s);
    for (int64_t round = 1; !e && round <= 3; round++) e = put_points(s, round);
    for (int i = 0; !e && i < PRODUCERS; i++) {
        char name[32];
        e = bw_store_producer_named(s, name, (size_t)snprintf(name, sizeof name, "producer-%d", i), &r->ids[i], &epoch);
    }
    if (!e) e = bw_store_producer_id(s, &r->next_id);
    if (!e) e = bw_store_topic_put(s, &passing);
    if (!e) e = bw_store_topic_remove(s, "passing");
    if (!e) e = put_points(s, 4);
    r->bus = bw_store_bus_id(s);
    bw_store_info info;
    bw_store_info_get(s, &info);
    bw_store_close(s);
    if (e || info.transactions < 10) die("master");
    unsetenv("BUSWAY_META_JOURNAL_BYTES");
}

/* ---- is it what was stored? ---- */

typedef enum finding { SAME, MISSING, REFUSED, WRONG } finding;
static const char *const finding_names[] = {"the same", "something is missing", "an error", "wrong"};

static finding found(bw_err e, bool equal) { return e == BW_ERR_NOT_FOUND ? MISSING : e ? REFUSED : equal ? SAME : WRONG; }

static finding worst(finding a, finding b) { return a > b ? a : b; }

static finding look_at_topics(bw_store *s)
{
    bw_meta_topic *all, want;
    bw_meta_config configs[64];
    size_t n;
    bw_err e = bw_store_topics(s, &all, &n);
    if (e) return found(e, false);
    finding f = n == TOPICS ? SAME : n < TOPICS ? MISSING : WRONG;
    for (size_t i = 0; i < n; i++) {
        const bw_meta_topic *t = &all[i];
        int number = -1;
        (void)sscanf(t->name, "topic-%d", &number);
        if (number < 0 || number >= TOPICS) {
            f = WRONG;
            continue;
        }
        topic_of(number, &want, configs);
        bool equal = !strcmp(t->name, want.name) && bw_uuid_equal(&t->id, &want.id) && t->partitions == want.partitions &&
                     t->created_ms == want.created_ms && t->state == want.state && t->config_count == want.config_count;
        for (size_t k = 0; equal && k < t->config_count; k++)
            equal = !strcmp(t->configs[k].name, configs[k].name) && !strcmp(t->configs[k].value, configs[k].value);
        if (!equal) f = WRONG;
    }
    bw_store_topics_free(all, n);
    return f;
}

/* round: of the points; older ones are MISSING, not WRONG (two changes may cost the last transactions). */
static finding look(const rot *r, bw_store *s, int64_t round)
{
    finding f = look_at_topics(s);
    bw_uuid bus = bw_store_bus_id(s);
    if (!bw_uuid_equal(&bus, &r->bus)) f = WRONG;
    for (int i = 0; i < POINTS; i++) {
        bw_recovery_point p;
        bw_meta_point want = point_of(i, round);
        bw_err e = bw_store_point_get(s, &want.topic, want.partition, &p);
        bool old = !e && p.next_offset < want.point.next_offset && p.next_offset % 1000 == i;
        if (old) want.point.next_offset = p.next_offset;
        bool equal = !e && p.leader_epoch == want.point.leader_epoch && p.next_offset == want.point.next_offset && p.known &&
                     p.segment_base == want.point.segment_base && p.position == want.point.position && p.last_crc == want.point.last_crc &&
                     p.poisoned == want.point.poisoned;
        f = worst(f, old && equal ? MISSING : found(e, equal));
    }
    return f;
}

/* Changes every table, and takes pages from the free list. */
static finding write_on(const rot *r, bw_store *s, int16_t epoch_wanted)
{
    bw_meta_topic passing = {.name = "other", .partitions = 2, .id = {{8}}};
    bw_err e = put_topics(s);
    finding f = SAME;
    for (int64_t round = 5; !e && round <= 7; round++) e = put_points(s, round);
    if (!e) e = bw_store_topic_put(s, &passing);
    if (!e) e = bw_store_topic_remove(s, "other");
    for (int i = 0; !e && i < PRODUCERS; i++) {
        char name[32];
        int64_t id;
        int16_t epoch;
        e = bw_store_producer_named(s, name, (size_t)snprintf(name, sizeof name, "producer-%d", i), &id, &epoch);
        if (!e && (id != r->ids[i] || epoch != epoch_wanted)) f = WRONG;
    }
    int64_t id;
    if (!e) e = bw_store_producer_id(s, &id);
    if (!e && id <= r->next_id) f = WRONG;
    return worst(f, found(e, true));
}

/* ---- changes ---- */

static change nth(const rot *r, uint64_t n)
{
    change c = {.bit = -2};
    uint64_t per_byte = (uint64_t)r->bits + 1;
    for (c.file = 0; c.file < r->file_count; c.file++) {
        uint64_t here = r->files[c.file].len * per_byte + 1;
        if (n >= here) {
            n -= here;
            continue;
        }
        if (n == here - 1) return c;
        c.at = (size_t)(n / per_byte);
        uint64_t k = n % per_byte;
        c.bit = k == (uint64_t)r->bits ? -1 : (int)((mix(r->seed + c.at) + k) % 8);
        return c;
    }
    return (change){.file = 0, .bit = -2};
}

static const char *text_of(const rot *r, const change *c)
{
    static char text[128];
    if (c->bit == -2) snprintf(text, sizeof text, "%s gone", r->files[c->file].name);
    else if (c->bit == -1) snprintf(text, sizeof text, "%s cut to %zu", r->files[c->file].name, c->at);
    else snprintf(text, sizeof text, "%s byte %zu bit %d", r->files[c->file].name, c->at, c->bit);
    return text;
}

static void complain(rot *r, mode m, const change *c, const char *format, ...) __attribute__((format(printf, 4, 5)));
static void complain(rot *r, mode m, const change *c, const char *format, ...)
{
    char line[800];
    va_list list;
    int n = snprintf(line, sizeof line, "VIOLATION (%s) %s", mode_names[m], text_of(r, &c[0]));
    if (m == TWO) n += snprintf(line + n, sizeof line - (size_t)n, ", %s", text_of(r, &c[1]));
    n += snprintf(line + n, sizeof line - (size_t)n, ": ");
    va_start(list, format);
    n += vsnprintf(line + n, sizeof line - (size_t)n, format, list);
    va_end(list);
    if (n > (int)sizeof line - 2) n = sizeof line - 2;
    line[n++] = '\n';
    (void)!write(2, line, (size_t)n);
    r->c->failures++;
}

static int open_meta(const char *dir)
{
    char path[128];
    snprintf(path, sizeof path, "%s/meta", dir);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) die(path);
    return fd;
}

/* Everything as it was, but for the changes. Returns how many of the files that are there were put aside by the try before. */
static void lay_out(const rot *r, const char *dir, const change *c, int count)
{
    int fd = open_meta(dir);
    DIR *d = fdopendir(dup(fd));
    const struct dirent *entry;
    while ((entry = readdir(d)))
        if (entry->d_name[0] != '.') (void)unlinkat(fd, entry->d_name, 0);
    closedir(d);
    for (int i = 0; i < r->file_count; i++) {
        const file *f = &r->files[i];
        size_t len = f->len;
        bool there = true;
        for (int k = 0; k < count; k++) {
            if (c[k].file != i) continue;
            if (c[k].bit == -2) there = false;
            if (c[k].bit == -1) len = c[k].at;
        }
        if (!there) continue;
        int out = openat(fd, f->name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        size_t dense = len < f->dense ? len : f->dense; /* zeros behind it are a hole */
        if (out < 0 || pwrite(out, f->bytes, dense, 0) != (ssize_t)dense || ftruncate(out, (off_t)len)) die(f->name);
        for (int k = 0; k < count; k++) {
            if (c[k].file != i || c[k].bit < 0) continue;
            uint8_t byte = f->bytes[c[k].at] ^ (uint8_t)(1u << c[k].bit);
            if (pwrite(out, &byte, 1, (off_t)c[k].at) != 1) die(f->name);
        }
        close(out);
    }
    close(fd);
}

/* ---- the tries ---- */

static void try_one(rot *r, const char *dir, const change *c)
{
    bw_store *s;
    lay_out(r, dir, c, 1);
    if (bw_store_open(dir, 0, &s)) {
        complain(r, ONE, c, "refused: %s", bw_error_message());
        return;
    }
    bool mended = bw_store_repair_get(s)->repaired;
    finding f = look(r, s, 4);
    if (f == SAME) f = write_on(r, s, 1);
    if (f == SAME) f = look(r, s, 7);
    bw_store_close(s);
    if (f != SAME) {
        complain(r, ONE, c, "%s after the start: %s", finding_names[f], bw_error_message());
        return;
    }
    if (mended) r->c->mended[ONE]++;
    else r->c->harmless[ONE]++;
    if (bw_store_open(dir, 0, &s)) {
        complain(r, ONE, c, "refused at the second start: %s", bw_error_message());
        return;
    }
    if (bw_store_repair_get(s)->repaired) complain(r, ONE, c, "mended twice: %s", bw_store_repair_get(s)->what);
    if (look(r, s, 7) != SAME) complain(r, ONE, c, "not the same at the second start");
    bw_store_close(s);
}

static void try_two(rot *r, const char *dir, const change *c)
{
    bw_store *s;
    lay_out(r, dir, c, 2);
    bw_err e = bw_store_open(dir, 0, &s);
    if (e) {
        if (e != BW_ERR_CORRUPT || !strstr(bw_error_message(), "backup"))
            complain(r, TWO, c, "refused, but not as it should: %s", bw_error_message());
        r->c->refused[TWO]++;
        return;
    }
    bw_store_repair told = *bw_store_repair_get(s);
    finding f = look(r, s, 4);
    if (f == SAME) f = write_on(r, s, 1);
    bw_store_close(s);
    if (f == SAME && told.repaired) r->c->mended[TWO]++;
    else if (f == SAME) r->c->harmless[TWO]++;
    else if (f == MISSING && told.repaired) r->c->told_less++;
    else complain(r, TWO, c, "%s: %s", f == MISSING ? "something is missing and nobody was told" : "wrong", bw_error_message());
}

/* Reads in a process of its own, under which LMDB's file has changed. */
static void try_running(rot *r, const char *dir, const change *c)
{
    bw_store *s;
    if (c->file != 0 || c->bit < 0) return;
    lay_out(r, dir, c, 0);
    int fd = open_meta(dir), status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        if (bw_store_open(dir, 0, &s)) _exit(99);
        int out = openat(fd, r->files[0].name, O_WRONLY | O_CLOEXEC);
        uint8_t byte = r->files[0].bytes[c->at] ^ (uint8_t)(1u << c->bit);
        if (out < 0 || pwrite(out, &byte, 1, (off_t)c->at) != 1) _exit(98);
        alarm(20);
        _exit((int)look(r, s, 4)); /* as a crash: nothing is closed */
    }
    close(fd);
    if (pid < 0 || waitpid(pid, &status, 0) != pid) die("fork");
    if (WIFSIGNALED(status)) r->c->crashed++;
    else if (WEXITSTATUS(status) == MISSING) r->c->not_found++;
    else if (WEXITSTATUS(status) == REFUSED) r->c->errors++;
    else if (WEXITSTATUS(status) == SAME) r->c->harmless[RUNNING]++;
    else complain(r, RUNNING, c, "served a wrong value (exit status %d)", WEXITSTATUS(status));
    if (bw_store_open(dir, 0, &s)) {
        complain(r, RUNNING, c, "the next start is refused: %s", bw_error_message());
        return;
    }
    if (look(r, s, 4) != SAME) complain(r, RUNNING, c, "the next start does not mend it");
    bw_store_close(s);
}

/* ---- who tries ---- */

typedef struct plan {
    mode m;
    uint64_t count, of, step; /* the i-th try, of the first `count`, is number i * step % of */
    int64_t until_ms;         /* 0: all */
    bool inline_check;        /* in the worker itself, which may crash */
} plan;

static void work(rot *r, const plan *p, int worker, uint64_t from)
{
    for (uint64_t i = from; i < p->count && r->c->failures < FAILURES_MAX; i += (uint64_t)r->workers) {
        int64_t now = bw_clock_mono_ms();
        if (p->until_ms && now >= p->until_ms) break;
        r->c->at[worker] = i;
        change c[2] = {nth(r, i * p->step % p->of)};
        if (p->m == TWO) {
            uint64_t dice = mix(r->seed * 31 + i);
            c[0] = nth(r, dice % r->single);
            for (int k = 1; k == 1 || c[1].file == c[0].file; k++) c[1] = nth(r, mix(dice + (uint64_t)k) % r->single);
        }
        r->c->tried[p->m]++;
        if (p->m == ONE) try_one(r, r->dir[worker], c);
        else if (p->m == TWO) try_two(r, r->dir[worker], c);
        else try_running(r, r->dir[worker], c);
    }
}

static pid_t start_worker(rot *r, const plan *p, int worker, uint64_t from)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        work(r, p, worker, from);
        _exit(0);
    }
    return pid;
}

static void run(rot *r, const plan *p)
{
    pid_t pids[WORKERS_MAX];
    uint64_t seen[WORKERS_MAX] = {0}, rounds[WORKERS_MAX] = {0}; /* of this loop in which a worker did not come on: who is paused waits too */
    int left = r->workers;
    for (int w = 0; w < r->workers; w++) pids[w] = start_worker(r, p, w, (uint64_t)w);
    while (left) {
        usleep(5000);
        for (int w = 0; w < r->workers; w++) {
            int status;
            if (!pids[w]) continue;
            rounds[w] = seen[w] == r->c->at[w] ? rounds[w] + 1 : 0;
            seen[w] = r->c->at[w];
            if (rounds[w] > STUCK_ROUNDS) kill(pids[w], SIGKILL);
            if (waitpid(pids[w], &status, WNOHANG) != pids[w]) continue;
            pids[w] = 0;
            left--;
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
            change c[2] = {nth(r, r->c->at[w] * p->step % p->of)};
            if (p->inline_check) { /* again, as a daemon does it: with a child that may crash */
                unsetenv("BUSWAY_META_CHECK");
                pids[w] = start_worker(r, &(plan){.m = p->m, .count = r->c->at[w] + 1, .step = p->step, .of = p->of}, w, r->c->at[w]);
                waitpid(pids[w], &status, 0);
                setenv("BUSWAY_META_CHECK", "inline", 1);
                r->c->contained++;
            }
            if (!WIFEXITED(status) || WEXITSTATUS(status)) complain(r, p->m, c, "who tried it crashed or hung (status %#x)", (unsigned)status);
            if (r->c->failures >= FAILURES_MAX) continue;
            pids[w] = start_worker(r, p, w, r->c->at[w] + (uint64_t)r->workers);
            left++;
        }
    }
}

static void load(rot *r, const char *dir)
{
    static const char *const kinds[] = {"data.mdb", "snapshot-", "journal-", "lock.mdb"};
    int fd = open_meta(dir);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        DIR *d = fdopendir(dup(fd));
        const struct dirent *entry;
        struct stat st;
        rewinddir(d);
        while ((entry = readdir(d))) {
            if (strncmp(entry->d_name, kinds[k], strlen(kinds[k])) != 0 || r->file_count == FILES) continue;
            file *f = &r->files[r->file_count++];
            snprintf(f->name, sizeof f->name, "%.60s", entry->d_name);
            int in = openat(fd, f->name, O_RDONLY | O_CLOEXEC);
            if (in < 0 || fstat(in, &st)) die(f->name);
            f->len = (size_t)st.st_size;
            f->bytes = malloc(f->len + 1);
            if (!f->bytes || pread(in, f->bytes, f->len, 0) != (ssize_t)f->len) die(f->name);
            close(in);
            for (f->dense = f->len; f->dense && !f->bytes[f->dense - 1];) f->dense--;
            r->bytes += f->len;
            r->single += f->len * ((uint64_t)r->bits + 1) + 1;
            printf("bitrot_meta: %s: %zu bytes\n", f->name, f->len);
        }
        closedir(d);
    }
    close(fd);
    if (r->file_count != FILES) die("files are missing, or there is one too many");
}

/* A step without a common factor with the count, by the seed. */
static uint64_t step_for(uint64_t count, uint64_t seed)
{
    for (uint64_t step = mix(seed) % count | 1;; step += 2) {
        uint64_t a = count, b = step;
        while (b) {
            uint64_t t = a % b;
            a = b;
            b = t;
        }
        if (a == 1) return step % count;
    }
}

static void report(const rot *r, int64_t ms)
{
    const counts *c = r->c;
    printf("bitrot_meta: seed %llu; %llu bytes in %d files; %lld ms\n", (unsigned long long)r->seed, (unsigned long long)r->bytes,
           r->file_count, (long long)ms);
    printf("bitrot_meta: one change: %llu of %llu tried: %llu mended, %llu harmless\n", (unsigned long long)c->tried[ONE],
           (unsigned long long)r->single, (unsigned long long)c->mended[ONE], (unsigned long long)c->harmless[ONE]);
    if (c->contained)
        printf("bitrot_meta: %llu crashes of who looked, which a child would have kept away\n", (unsigned long long)c->contained);
    printf("bitrot_meta: two changes: %llu tried: %llu refused, %llu mended, %llu harmless, %llu mended with a loss that was told\n",
           (unsigned long long)c->tried[TWO], (unsigned long long)c->refused[TWO], (unsigned long long)c->mended[TWO],
           (unsigned long long)c->harmless[TWO], (unsigned long long)c->told_less);
    printf("bitrot_meta: while it runs: %llu tried: 0 wrong values, %llu the same, %llu errors, %llu not found, %llu crashes; all mended after\n",
           (unsigned long long)(c->harmless[RUNNING] + c->errors + c->not_found + c->crashed), (unsigned long long)c->harmless[RUNNING],
           (unsigned long long)c->errors, (unsigned long long)c->not_found, (unsigned long long)c->crashed);
    printf("%d passed, %u failed\n", c->failures ? 0 : 1, (unsigned)c->failures);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: bitrot_meta SEED SECONDS [PROCESSES]\n");
        return 2;
    }
    static rot r;
    char command[128];
    int64_t seconds = atoll(argv[2]), begun = bw_clock_mono_ms();
    r.seed = strtoull(argv[1], NULL, 10);
    r.bits = seconds < 0 ? 8 : 1;
    r.workers = argc > 3 ? atoi(argv[3]) : 2;
    if (r.workers < 1 || r.workers > WORKERS_MAX) r.workers = 2;
    r.c = mmap(NULL, sizeof *r.c, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    snprintf(r.root, sizeof r.root, "/dev/shm/bw-rotmeta-XXXXXX");
    if (r.c == MAP_FAILED || !mkdtemp(r.root)) die(r.root);
    char master[96];
    snprintf(master, sizeof master, "%s/master", r.root);
    if (mkdir(master, 0700)) die(master);
    make_master(&r, master);
    load(&r, master);
    for (int w = 0; w < r.workers; w++) {
        char path[128];
        snprintf(r.dir[w], sizeof r.dir[w], "%s/copy%d", r.root, w);
        snprintf(path, sizeof path, "%s/meta", r.dir[w]);
        if (mkdir(r.dir[w], 0700) || mkdir(path, 0700)) die(path);
    }
    static const int share[MODES] = {70, 15, 15};
    bool in_line = seconds <= 0 || getenv("BUSWAY_META_CHECK");
    uint64_t running = r.files[0].len * ((uint64_t)r.bits + 1);
    for (int m = 0; m < MODES; m++) {
        uint64_t count = m == ONE ? r.single : m == TWO ? r.single / 4 : running;
        uint64_t tries = m == RUNNING && count > RUNNING_TRIES * 2 ? RUNNING_TRIES * 2 : count; /* half of them are cuts, and skipped */
        plan p = {.m = (mode)m, .count = tries, .of = count, .step = step_for(count, r.seed + (uint64_t)m),
                  .until_ms = seconds > 0 ? bw_clock_mono_ms() + seconds * 10 * share[m] : 0,
                  .inline_check = in_line && m != RUNNING};
        if (p.inline_check) setenv("BUSWAY_META_CHECK", "inline", 1);
        else unsetenv("BUSWAY_META_CHECK");
        run(&r, &p);
    }
    report(&r, bw_clock_mono_ms() - begun);
    for (int i = 0; i < r.file_count; i++) free(r.files[i].bytes);
    snprintf(command, sizeof command, "rm -rf %s", r.root);
    if (system(command)) die(command);
    return r.c->failures ? 1 : 0;
}
