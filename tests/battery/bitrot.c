/* tests/battery/bitrot.c: every byte of a small data directory rots, every file is cut at every length. `bitrot SEED BITS [SECONDS]`: of
 * each byte BITS bits (1 to 8), chosen by the seed, are flipped, one at a time; with SECONDS as many of these changes as there is time for,
 * from all over the directory.
 *
 * The directory: sealed segments with indexes, an unsealed one with room behind its end (8 KiB of it), a spare (8 KiB of it; 512 bytes in
 * a short run), the partition's small files, the data format and the generation. (LMDB's are bitrot_meta.c's.) For each change:
 *   verify    `busway verify` (bw_verify) reports it, or the next start does (a newest segment cut between two batches looks like any
 *             log to verify; the recovery point knows better), or it lies in a hint and all that is served is the same;
 *   serve     after a start (recovery with the last recovery point, or without one) a reader gets only records that were written,
 *             at their offsets, and the log ends at most where it ended; look-ups by offset and by time agree;
 *   keep      every batch whose bytes did not change is still in some file of the partition. */
#include "world.h"

#include "base/clock.h"
#include "format/names.h"
#include "log/datadir.h"
#include "log/read.h"

#include <busway/inspect.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FILES_MAX = 64, SEGMENT = 4096 };

typedef struct rotten {
    char path[96]; /* below the data directory */
    uint8_t *bytes;
    size_t len;
    bool in_partition;
} rotten;

typedef struct rot {
    char master[96], copy[96];
    int copy_fd;
    rotten files[FILES_MAX];
    int count;
    memory memory;
    model m;
    int64_t end;
    bw_recovery_point point;
    bw_partition_config config;
    size_t spare_bytes; /* of a spare so many are enough */
    uint64_t changes, noticed, harmless, refused, starts, quarantined;
    uint32_t failures;
    uint64_t told_at_start;
    bool told; /* a start told of it */
    /* the change being tried */
    const rotten *file;
    size_t at;
    int bit; /* -1: cut at `at` */
} rot;

static void complain(rot *r, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    fprintf(stderr, "VIOLATION %s %s %zu", r->file->path, r->bit < 0 ? "cut to" : "byte", r->at);
    if (r->bit >= 0) fprintf(stderr, " bit %d", r->bit);
    fprintf(stderr, ": ");
    vfprintf(stderr, format, list);
    fprintf(stderr, "\n");
    va_end(list);
    r->failures++;
}

/* ---- the directory ---- */

static bw_partition *open_log(rot *r, int data_fd, const bw_recovery_point *point, bool created, bw_recovery_report *report, bw_err *e)
{
    bw_partition *p = NULL;
    bw_partition_open_options o = {.data_fd = data_fd, .topic = WORLD_TOPIC, .control = r->memory.control, .bus_number = 1,
                                   .fresh_slot = true, .point = *point, .just_created = created, .config = r->config};
    memory_forget(&r->memory);
    *e = bw_partition_open(&o, &p, report);
    return p;
}

static void abandon(rot *r, bw_partition *p)
{
    if (!p) return;
    r->memory.slot->state = BW_SLOT_DELETED;
    bw_partition_close(p, false, NULL);
}

static void write_log(rot *r, bw_partition *p, int batches, int value_bytes)
{
    bw_batch_builder b;
    bw_appender *a;
    bw_append_result result;
    bw_appender_options ao = {.control = r->memory.control, .dir_fd = bw_partition_dir_fd(p)};
    static uint8_t value[1024];
    rng g = {.state = 7};
    bw_batch_builder_init(&b);
    if (bw_appender_open(&ao, &a)) world_die("appender");
    for (int i = 0; i < batches; i++) {
        bw_batch_options o = BW_BATCH_OPTIONS_INIT;
        uint8_t *bytes;
        size_t len;
        if (i % 3 == 1) o.codec = BW_CODEC_LZ4;
        for (size_t k = 0; k < sizeof value; k++) value[k] = (uint8_t)rng_next(&g);
        bw_batch_builder_reset(&b);
        for (int k = 0; k < 2; k++) {
            bw_record record = {.key = "key", .key_len = 3, .value = value, .value_len = (size_t)value_bytes,
                                .timestamp_ms = 1000000 + r->end + k};
            if (bw_batch_builder_add(&b, &record)) world_die("batch");
        }
        if (bw_batch_builder_finish(&b, &o, &bytes, &len)) world_die("batch");
        (void)bw_partition_tend(p, NULL);
        model_add(&r->m, bytes, len, r->end, r->end + 2, (int32_t)r->memory.slot->leader_epoch);
        if (bw_append(a, bytes, len, 2, 1000000 + r->end + 1, bw_deadline_in_ms(1000), &result)) world_die("append");
        r->end += 2;
    }
    bw_appender_close(a);
    bw_batch_builder_fini(&b);
}

static void make_master(rot *r)
{
    bw_datadir *d;
    bw_recovery_report report;
    bw_err e;
    bw_uuid id;
    int64_t start;
    bw_recovery_point none = {0};
    if (bw_datadir_open_coordinator(r->master, true, &d)) world_die("data directory");
    bw_os_uuid(id.b);
    if (bw_datadir_set_generation(d, id.b)) world_die("generation");
    if (bw_partition_create_files(d->fd, WORLD_TOPIC, 0, &id)) world_die("partition");
    r->config = (bw_partition_config){.segment_bytes = SEGMENT, .segment_ms = -1, .retention_bytes = -1, .retention_ms = -1,
                                      .max_message_bytes = 1 << 20, .index_interval_bytes = 512};
    bw_partition *p = open_log(r, d->fd, &none, true, &report, &e);
    if (!p) world_die("open");
    write_log(r, p, 10, 250);
    if (bw_partition_sync(p)) world_die("sync");
    bw_partition_recovery_point(p, &r->point, NULL);
    abandon(r, p);
    p = open_log(r, d->fd, &r->point, false, &report, &e); /* a second leader epoch */
    if (!p) world_die("open");
    write_log(r, p, 12, 250);
    if (bw_partition_sync(p) || bw_partition_tend(p, NULL) || bw_partition_delete_records(p, 1, &start)) world_die("sync");
    bw_partition_recovery_point(p, &r->point, NULL);
    r->m.start = r->m.deleted = start;
    if (bw_partition_retain(p, bw_clock_wall_ms(), NULL)) world_die("retain");
    abandon(r, p);
    bw_datadir_close(d);
}

static void load_folder(rot *r, const char *prefix, const char *path)
{
    DIR *dir = opendir(path);
    const struct dirent *entry;
    struct stat st;
    if (!dir) world_die(path);
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] == '.' || strstr(entry->d_name, ".lock")) continue; /* (which is empty) */
        if (fstatat(dirfd(dir), entry->d_name, &st, 0) != 0 || !S_ISREG(st.st_mode)) continue;
        if (r->count == FILES_MAX) world_die("too many files");
        rotten *f = &r->files[r->count++];
        snprintf(f->path, sizeof f->path, "%.16s%.70s", prefix, entry->d_name);
        f->in_partition = prefix[0] != 0;
        f->len = (size_t)st.st_size;
        f->bytes = malloc(f->len + 1);
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
        if (!f->bytes || fd < 0 || pread(fd, f->bytes, f->len, 0) != (ssize_t)f->len) world_die(f->path);
        close(fd);
        const char *dot = strrchr(f->path, '.'); /* the room behind the newest segment's end is long: the first 8 KiB are enough */
        if (dot && strcmp(dot, ".log") == 0 && f->len > 2 * SEGMENT) f->len = 2 * SEGMENT;
        if (dot && strcmp(dot, ".spare") == 0 && f->len > r->spare_bytes) f->len = r->spare_bytes;
    }
    closedir(dir);
}

static void write_copy(rot *r)
{
    for (int i = 0; i < r->count; i++) {
        const rotten *f = &r->files[i];
        size_t len = f == r->file && r->bit < 0 ? r->at : f->len;
        int fd = openat(r->copy_fd, f->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0 || pwrite(fd, f->bytes, len, 0) != (ssize_t)len) world_die(f->path);
        uint8_t byte = f == r->file && r->bit >= 0 ? f->bytes[r->at] ^ (uint8_t)(1u << r->bit) : 0;
        if (f == r->file && r->bit >= 0 && pwrite(fd, &byte, 1, (off_t)r->at) != 1) world_die(f->path);
        close(fd);
    }
}

static void clear_copy(rot *r)
{
    char path[128];
    snprintf(path, sizeof path, "%s/" WORLD_TOPIC "-0", r->copy);
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.') (void)unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

/* ---- the checks ---- */

/* What a reader gets from `from` on: only what was written. Counts the batches; *lost: something of the log is missing. */
static void read_from(rot *r, bw_partition *p, int64_t from, bool *lost)
{
    bw_reader *reader;
    bw_reader_options o = {.control = r->memory.control, .dir_fd = bw_partition_dir_fd(p), .check_crcs = true, .use_pread = true};
    bw_batch_ref b;
    bw_err e;
    size_t at = 0;
    if (bw_reader_open(&o, &reader)) world_die("reader");
    bw_reader_seek(reader, from);
    int64_t expected = from;
    while ((e = bw_reader_next(reader, &b)) == BW_OK) {
        while (at < r->m.count && r->m.batches[at].base < b.header.base_offset) at++;
        const batch *want = at < r->m.count && r->m.batches[at].base == b.header.base_offset ? &r->m.batches[at] : NULL;
        if (!want) complain(r, "served a batch at offset %lld that was never written", (long long)b.header.base_offset);
        else if (want->len != b.size || memcmp(want->bytes + 16, b.data + 16, b.size - 16) != 0)
            complain(r, "served changed records at offset %lld", (long long)b.header.base_offset);
        else if (b.header.base_offset > expected) complain(r, "skipped from %lld to %lld without an error", (long long)expected,
                                                          (long long)b.header.base_offset);
        expected = bw_batch_last_offset(&b.header) + 1;
    }
    *lost |= e != BW_ERR_EMPTY || expected < r->end;
    if (e == BW_ERR_EMPTY && expected > r->end) complain(r, "the log goes on to %lld", (long long)expected);
    bw_reader_close(reader);
}

static void check_times(rot *r, bw_partition *p)
{
    for (int64_t want = r->m.start; want < r->end; want += 5) {
        int64_t offset, found;
        bw_err e = bw_partition_offset_for_time(p, 1000000 + want / 2 * 2, &offset, &found);
        if (!e && offset != want / 2 * 2 && !(want / 2 * 2 < r->m.start && offset == r->m.start))
            complain(r, "time of offset %lld leads to offset %lld", (long long)(want / 2 * 2), (long long)offset);
    }
}

/* Every batch that the change did not touch is in some file. */
static void check_kept(rot *r)
{
    static uint8_t all[1 << 20];
    size_t len = 0;
    char path[128];
    snprintf(path, sizeof path, "%s/" WORLD_TOPIC "-0", r->copy);
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while ((entry = readdir(dir))) {
        if (!strstr(entry->d_name, ".log")) continue;
        int fd = openat(dirfd(dir), entry->d_name, O_RDONLY | O_CLOEXEC);
        ssize_t n = pread(fd, all + len, sizeof all - len, 0);
        close(fd);
        if (n > 0) len += (size_t)n;
    }
    closedir(dir);
    const char *dot = strrchr(r->file->path, '.');
    bool in_log = dot && strcmp(dot, ".log") == 0;
    for (size_t i = 0; i < r->m.count; i++) {
        const batch *b = &r->m.batches[i];
        const uint8_t *here = in_log ? memmem(r->file->bytes, r->file->len, b->bytes, b->len) : NULL;
        if (here) {
            size_t from = (size_t)(here - r->file->bytes);
            if (r->bit < 0 ? r->at < from + b->len : r->at >= from && r->at < from + b->len) continue;
        }
        if (!memmem(all, len, b->bytes, b->len)) complain(r, "the sound batch at offset %lld is gone", (long long)b->base);
    }
}

static void start_on(rot *r, const bw_recovery_point *point, bool *same)
{
    bw_recovery_report report;
    bw_err e;
    bool lost = false;
    clear_copy(r);
    write_copy(r);
    bw_partition *p = open_log(r, r->copy_fd, point, false, &report, &e);
    r->starts++;
    if (!p) {
        if (getenv("BATTERY_TRACE")) fprintf(stderr, "%s %zu %d: %s\n", r->file->path, r->at, r->bit, bw_error_message());
        r->refused++;
        *same = false;
        check_kept(r);
        return;
    }
    r->quarantined += report.quarantined;
    r->told |= report.foreign || report.quarantined || report.detail[0];
    int64_t start = r->memory.slot->log_start;
    read_from(r, p, start, &lost);
    for (size_t i = 0; i < r->m.count; i += 3)
        if (r->m.batches[i].base >= start) read_from(r, p, r->m.batches[i].base + 1, &lost);
    if (!lost && start == r->m.start) check_times(r, p);
    *same &= !lost && start == r->m.start;
    abandon(r, p);
    check_kept(r);
}

static void try_change(rot *r)
{
    bw_verify_totals totals;
    char path[128];
    bw_recovery_point none = {0};
    bool same = true;
    r->changes++;
    r->told = false;
    clear_copy(r);
    write_copy(r);
    snprintf(path, sizeof path, "%s", r->copy);
    bw_err e = bw_verify(path, NULL, NULL, NULL, &totals);
    bool noticed = e != BW_OK || totals.errors > 0 || totals.notes > 0;
    if (r->file->in_partition) {
        start_on(r, &r->point, &same);
        bool ignored = true;
        if (r->changes % 4 == 0) start_on(r, &none, &ignored);
    }
    if (noticed) r->noticed++;
    else if (same) r->harmless++;
    else if (r->told) r->told_at_start++;
    else complain(r, "verify finds nothing, but not all is served");
    if (!noticed && strstr(r->file->path, ".log") && r->bit >= 0 && r->at < r->file->len) {
        const uint8_t *zero = r->file->bytes + r->at;
        if (*zero) complain(r, "verify does not see a flipped bit in a segment");
    }
}

/* The n-th change: file by file, byte by byte: its bits, then the cut. */
static void choose(rot *r, uint64_t n, uint64_t seed, int bits)
{
    int i = 0;
    for (; n >= r->files[i].len * ((uint64_t)bits + 1); i++) n -= r->files[i].len * ((uint64_t)bits + 1);
    r->file = &r->files[i];
    r->at = (size_t)(n / ((uint64_t)bits + 1));
    int k = (int)(n % ((uint64_t)bits + 1));
    rng g = {.state = seed * 1000003 + (uint64_t)i * 65537 + r->at};
    (void)rng_next(&g);
    r->bit = k < bits ? (int)(rng_below(&g, 8) + (uint32_t)k) % 8 : -1;
}

static void try_all(rot *r, uint64_t seed, int bits, uint64_t count)
{
    for (uint64_t n = 0; n < count && r->failures < 10; n++) {
        choose(r, n, seed, bits);
        if (bits < 8 && r->bit < 0 && r->file->len > 256 && r->at % 8 != 0) continue; /* short run: every eighth length of the large files */
        try_change(r);
    }
}

static void try_some(rot *r, uint64_t seed, int bits, uint64_t count, int64_t until_ms)
{
    rng g = {.state = seed};
    (void)rng_next(&g);
    while (bw_clock_mono_ms() < until_ms && r->failures < 10) {
        choose(r, rng_next(&g) % count, seed, bits);
        try_change(r);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: bitrot SEED BITS [SECONDS]\n");
        return 2;
    }
    static rot r;
    char root[] = "/dev/shm/bw-rot-XXXXXX", command[128], folder[128];
    uint64_t seed = strtoull(argv[1], NULL, 10);
    int bits = atoi(argv[2]);
    int64_t begun = bw_clock_mono_ms();
    r.spare_bytes = bits < 8 && argc < 4 ? 512 : 2 * SEGMENT;
    if (!mkdtemp(root)) world_die(root);
    memory_init(&r.memory, root, "memory");
    snprintf(r.master, sizeof r.master, "%s/master", root);
    snprintf(r.copy, sizeof r.copy, "%s/copy", root);
    make_master(&r);
    load_folder(&r, "", r.master);
    snprintf(folder, sizeof folder, "%s/" WORLD_TOPIC "-0", r.master);
    load_folder(&r, WORLD_TOPIC "-0/", folder);
    snprintf(folder, sizeof folder, "%s/" WORLD_TOPIC "-0", r.copy);
    if (mkdir(r.copy, 0700) || mkdir(folder, 0755)) world_die(r.copy);
    r.copy_fd = open(r.copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    size_t bytes = 0;
    for (int i = 0; i < r.count; i++) bytes += r.files[i].len;
    uint64_t count = bytes * ((uint64_t)bits + 1);
    if (argc > 3) try_some(&r, seed, bits, count, begun + atoll(argv[3]) * 1000);
    else try_all(&r, seed, bits, count);
    close(r.copy_fd);
    memory_fini(&r.memory);
    model_free(&r.m);
    for (int i = 0; i < r.count; i++) free(r.files[i].bytes);
    snprintf(command, sizeof command, "rm -rf %s", root);
    if (system(command)) world_die(command);
    printf("bitrot: seed %llu: %llu changes (of %llu: every byte, %d of its bits; every length) of %zu bytes in %d files\n",
           (unsigned long long)seed, (unsigned long long)r.changes, (unsigned long long)count, bits, bytes, r.count);
    printf("bitrot: verify noticed %llu, the start %llu, %llu were harmless\n", (unsigned long long)r.noticed,
           (unsigned long long)r.told_at_start, (unsigned long long)r.harmless);
    printf("bitrot: %llu starts, %llu refused, %llu segments set aside; %lld ms\n%d passed, %u failed\n", (unsigned long long)r.starts,
           (unsigned long long)r.refused, (unsigned long long)r.quarantined, (long long)(bw_clock_mono_ms() - begun), r.failures ? 0 : 1,
           r.failures);
    return r.failures ? 1 : 0;
}
