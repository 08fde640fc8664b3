/* log/verify.c: bw_verify: a data directory, a partition folder or a segment file, offline. Nothing is changed, no lock is taken;
 * a directory that is in use shows, at most, an unclean end. */
#include "log/inspect.h"

#include "base/err.h"
#include "base/os.h"
#include "log/datadir.h"
#include "log/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLAIN_MAX = 1 << 30, HINT_MAX = 64 << 20, EPOCHS_MAX_BYTES = 1 << 20 };

/* The names in a folder, sorted. */
typedef struct names { char **items; size_t count, cap; bool failed; } names;

static bool names_add(void *opaque, const char *name)
{
    names *n = opaque;
    if (n->count == n->cap) {
        size_t cap = n->cap ? 2 * n->cap : 32;
        char **more = realloc(n->items, cap * sizeof *more);
        if (!more) return !(n->failed = true);
        n->items = more;
        n->cap = cap;
    }
    n->items[n->count] = strdup(name);
    if (!n->items[n->count]) return !(n->failed = true);
    n->count++;
    return true;
}

static int compare_names(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void names_free(names *n)
{
    for (size_t i = 0; i < n->count; i++) free(n->items[i]);
    free(n->items);
}

static bw_err names_list(int fd, const char *path, names *out)
{
    *out = (names){0};
    if (bw_os_list_dir(fd, names_add, out) != 0) return bw_fail_errno(errno, "cannot list %s", path);
    if (out->failed) return bw_fail(BW_ERR_NO_MEMORY, "no memory to list %s", path);
    if (out->count) qsort(out->items, out->count, sizeof *out->items, compare_names);
    return BW_OK;
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n >= m && strcmp(name + n - m, suffix) == 0;
}

/* The whole file, at most HINT_MAX bytes. NOT_FOUND; CORRUPT: too large. */
static bw_err read_whole(int dir_fd, const char *name, bw_buf *out)
{
    struct stat st;
    int fd = bw_os_open_beneath(dir_fd, name, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s", name);
    bw_err e = BW_OK;
    if (bw_os_fstat(fd, &st) != 0) e = bw_fail_errno(errno, "cannot stat %s", name);
    else if (st.st_size > HINT_MAX) e = bw_fail(BW_ERR_CORRUPT, "%s has %lld bytes", name, (long long)st.st_size);
    if (!e) e = bw_buf_reserve(out, (size_t)st.st_size + 1);
    if (!e) {
        ssize_t n = bw_os_pread(fd, out->data, (size_t)st.st_size, 0);
        if (n < 0) e = bw_fail_errno(errno, "cannot read %s", name);
        else out->len = (size_t)n;
    }
    bw_os_close(fd);
    return e;
}

typedef struct partition_check {
    bw_inspection *in;
    int fd;
    char path[PATH_MAX];
    bw_epoch_entry *epochs;
    size_t epoch_count;
    int64_t expected; /* base offset of the next segment, -1: any */
    int64_t gaps_below;
    bw_txn_facts txn;
    int64_t swap_base, swap_next; /* a compaction that was cut short (log/compact.h): segments in between may be there still; -1: none */
} partition_check;

static void set_path(partition_check *c, char out[PATH_MAX], const char *name)
{
    int n = snprintf(out, PATH_MAX, "%s/%s", c->path, name);
    if (n < 0 || n >= PATH_MAX) snprintf(out, PATH_MAX, "%s", name);
    c->in->path = out;
}

/* false: there is a seal file and it is broken. */
static bool load_seal(partition_check *c, int64_t base, bw_seal *seal, bool *there)
{
    char name[BW_SEGMENT_NAME_MAX], path[PATH_MAX];
    bw_buf data = {0};
    bw_segment_name(name, base, ".seal");
    set_path(c, path, name);
    bw_err e = read_whole(c->fd, name, &data);
    *there = e != BW_ERR_NOT_FOUND;
    if (!e) e = bw_seal_decode(data.data, data.len, seal);
    if (!e && seal->base_offset != base) e = bw_fail(BW_ERR_CORRUPT, "the seal is of another segment");
    bw_buf_free(&data);
    if (e && *there) bw_inspection_report(c->in, 0, -1, true, "%s", bw_error_message());
    return e == BW_OK || !*there;
}

static int64_t next_base_of(const names *n, size_t i)
{
    int64_t base;
    while (++i < n->count)
        if (bw_segment_name_parse(n->items[i], ".log", &base)) return base;
    return -1;
}

/* The segment's .txnindex. One that is broken is reported, and markers are not held against it. */
static void load_aborted(partition_check *c, int64_t base)
{
    char name[BW_SEGMENT_NAME_MAX], path[PATH_MAX];
    uint64_t end;
    c->txn.aborted.count = c->txn.at = 0;
    bw_segment_name(name, base, BW_TXN_INDEX_SUFFIX);
    set_path(c, path, name);
    bw_err e = bw_txn_index_read(c->fd, base, 0, base - 1, &c->txn.aborted, &end);
    if (e && e != BW_ERR_NOT_FOUND) bw_inspection_report(c->in, 0, -1, true, "%s", bw_error_message());
}

/* next_base: of the segment behind it; -1: it is the last. */
static bw_err check_segment(partition_check *c, int64_t base, int64_t next_base)
{
    char name[BW_SEGMENT_NAME_MAX], path[PATH_MAX];
    bw_buf index = {0}, times = {0};
    bw_seal seal;
    bool sealed;
    bw_segment_facts facts = {.epochs = c->epochs, .epoch_count = c->epoch_count, .is_last = next_base < 0, .next_base = next_base,
                              .txn = &c->txn};
    load_aborted(c, base);
    if (load_seal(c, base, &seal, &sealed) && sealed) facts.seal = &seal;
    bw_segment_name(name, base, ".index");
    if (read_whole(c->fd, name, &index) == BW_OK && index.len) facts.index = index.data;
    facts.index_len = index.len;
    bw_segment_name(name, base, ".timeindex");
    if (read_whole(c->fd, name, &times) == BW_OK && times.len) facts.timeindex = times.data;
    facts.timeindex_len = times.len;
    bw_segment_name(name, base, ".log");
    set_path(c, path, name);
    if (c->expected >= 0 && base != c->expected && !(base > c->expected && base < c->gaps_below))
        bw_inspection_report(c->in, 0, base, true, "the segment begins at offset %" PRId64 ", the one before ends at %" PRId64, base,
                             c->expected);
    struct stat st;
    bw_walk w;
    int fd = bw_os_open_beneath(c->fd, name, O_RDONLY, 0);
    bw_err e = fd < 0 ? bw_fail_errno(errno, "cannot open %s", path) : BW_OK;
    if (!e && bw_os_fstat(fd, &st) != 0) e = bw_fail_errno(errno, "cannot stat %s", path);
    if (!e) e = bw_walk_init_fd(&w, fd, false, (uint64_t)st.st_size, NULL, 0);
    if (!e) {
        if (facts.seal && (uint64_t)st.st_size < seal.length)
            bw_inspection_report(c->in, (uint64_t)st.st_size, -1, true, "the file has %lld bytes, its seal says %u", (long long)st.st_size,
                                 seal.length);
        w.next_offset = base;
        w.gaps_below = c->gaps_below;
        e = bw_inspect_segment(c->in, &w, &facts, &c->expected);
        bw_walk_fini(&w);
    }
    bw_os_close(fd);
    bw_buf_free(&index);
    bw_buf_free(&times);
    return e;
}

static bw_err check_small_files(partition_check *c)
{
    char path[PATH_MAX];
    bw_buf data = {0};
    bw_uuid id;
    set_path(c, path, "partition.metadata");
    bw_err e = read_whole(c->fd, "partition.metadata", &data);
    if (e == BW_ERR_NOT_FOUND) bw_inspection_report(c->in, 0, -1, false, "there is no topic id; a new one is made when it is opened");
    else if (e || bw_partition_metadata_decode((const char *)data.data, data.len, &id) != BW_OK)
        bw_inspection_report(c->in, 0, -1, true, "%s", bw_error_message());
    data.len = 0;
    set_path(c, path, "leader-epoch-checkpoint");
    e = read_whole(c->fd, "leader-epoch-checkpoint", &data);
    if (!e && data.len <= EPOCHS_MAX_BYTES) {
        e = bw_epoch_checkpoint_decode((const char *)data.data, data.len, &c->epochs, &c->epoch_count);
        if (e) bw_inspection_report(c->in, 0, -1, true, "%s", bw_error_message());
    }
    static const char *const offset_files[] = {BW_LOG_START_FILE, BW_GAPS_FILE, BW_LIFE_FILE};
    for (size_t i = 0; i < 3; i++) {
        int64_t offset;
        set_path(c, path, offset_files[i]);
        if (bw_offset_file_check(c->fd, offset_files[i], &offset) == BW_ERR_CORRUPT)
            bw_inspection_report(c->in, 0, -1, true, "%s", bw_error_message());
    }
    bw_buf_free(&data);
    return BW_OK;
}

/* "<base>.seal.swap": the next start finishes it. */
static void note_swap(partition_check *c, const char *name, int64_t base)
{
    char path[PATH_MAX];
    bw_buf data = {0};
    bw_seal seal;
    set_path(c, path, name);
    if (read_whole(c->fd, name, &data) == BW_OK && bw_seal_decode(data.data, data.len, &seal) == BW_OK && seal.base_offset == base) {
        c->swap_base = base;
        c->swap_next = seal.next_offset;
    }
    bw_inspection_report(c->in, 0, -1, false, "a compaction was cut short here; the next start finishes it");
    bw_buf_free(&data);
}

static bool was_merged(const partition_check *c, int64_t base)
{
    return c->swap_base >= 0 && base > c->swap_base && base < c->swap_next && c->expected == c->swap_next;
}

static bw_err check_partition(bw_inspection *in, int fd, const char *path)
{
    partition_check c = {.in = in, .fd = fd, .expected = -1, .swap_base = -1, .gaps_below = bw_offset_file_read(fd, BW_GAPS_FILE)};
    names n;
    snprintf(c.path, sizeof c.path, "%s", path);
    c.txn.producers = bw_producers_new();
    if (!c.txn.producers) return bw_fail(BW_ERR_NO_MEMORY, "no memory to follow transactions");
    in->totals->partitions++;
    bw_err e = names_list(fd, path, &n);
    if (!e) e = check_small_files(&c);
    int64_t base;
    for (size_t i = 0; !e && i < n.count; i++)
        if (bw_segment_name_parse(n.items[i], ".seal.swap", &base)) note_swap(&c, n.items[i], base);
    for (size_t i = 0; !e && i < n.count; i++) {
        char file[PATH_MAX];
        if (bw_segment_name_parse(n.items[i], ".log", &base)) {
            if (!was_merged(&c, base)) e = check_segment(&c, base, next_base_of(&n, i));
        } else if (strstr(n.items[i], ".log.corrupt")) {
            set_path(&c, file, n.items[i]);
            bw_inspection_report(in, 0, -1, false, "a corrupt segment that was set aside; its records are missing from the log");
        } else if (strcmp(n.items[i], "poisoned") == 0) {
            set_path(&c, file, n.items[i]);
            bw_inspection_report(in, 0, -1, true, "a sync of this partition failed; it is checked from the disk at the next start");
        }
    }
    free(c.epochs);
    bw_producers_free(c.txn.producers);
    bw_aborted_list_free(&c.txn.aborted);
    names_free(&n);
    in->path = path;
    return e;
}

/* ---- folders ---- */

static uint64_t log_bytes(int fd)
{
    names n;
    uint64_t bytes = 0;
    struct stat st;
    if (names_list(fd, "", &n) == BW_OK)
        for (size_t i = 0; i < n.count; i++)
            if (has_suffix(n.items[i], ".log") && bw_os_stat_at(fd, n.items[i], &st) == 0) bytes += (uint64_t)st.st_size;
    names_free(&n);
    return bytes;
}

static int open_partition(int fd, const char *name)
{
    char topic[BW_TOPIC_NAME_MAX + 1];
    int32_t partition;
    if (!bw_partition_dir_parse(name, topic, &partition)) return -1;
    return bw_os_open_beneath(fd, name, O_RDONLY | O_DIRECTORY, 0);
}

static bw_err check_format(bw_inspection *in, int fd, const char *path)
{
    char text[64], file[PATH_MAX + 16];
    size_t len;
    unsigned long number;
    snprintf(file, sizeof file, "%s/busway.format", path);
    in->path = file;
    bw_err e = bw_smallfile_read(fd, "busway.format", text, sizeof text, &len);
    if (e == BW_ERR_NOT_FOUND) bw_inspection_report(in, 0, -1, false, "no format version: not a Busway data directory, or Kafka's own");
    else if (e || sscanf(text, "busway data format %lu", &number) != 1 || text[len - 1] != '\n')
        bw_inspection_report(in, 0, -1, true, "the format file is not readable");
    else if (number > BW_DATA_FORMAT)
        return bw_fail(BW_ERR_NEWER_FORMAT, "%s has data format %lu, this version knows up to %d; use a newer Busway", path, number,
                       BW_DATA_FORMAT);
    in->path = path;
    return BW_OK;
}

static void count_topic(bw_inspection *in, const char *name, char last[BW_TOPIC_NAME_MAX + 1])
{
    char topic[BW_TOPIC_NAME_MAX + 1];
    int32_t partition;
    if (!bw_partition_dir_parse(name, topic, &partition)) return;
    if (strcmp(topic, last) != 0) in->totals->topics++;
    memcpy(last, topic, sizeof topic);
}

static bw_err check_data_dir(bw_inspection *in, int fd, const char *path)
{
    names n;
    char last[BW_TOPIC_NAME_MAX + 1] = "";
    bw_err e = check_format(in, fd, path);
    if (e) return e;
    e = names_list(fd, path, &n);
    for (size_t i = 0; !e && i < n.count; i++) {
        int sub = open_partition(fd, n.items[i]);
        if (sub < 0) continue;
        in->total_bytes += log_bytes(sub);
        bw_os_close(sub);
    }
    for (size_t i = 0; !e && i < n.count; i++) {
        char folder[PATH_MAX];
        int sub = open_partition(fd, n.items[i]);
        if (sub < 0) continue;
        if (snprintf(folder, sizeof folder, "%s/%s", path, n.items[i]) >= (int)sizeof folder) folder[0] = '\0';
        count_topic(in, n.items[i], last);
        e = check_partition(in, sub, folder);
        bw_os_close(sub);
    }
    names_free(&n);
    return e;
}

/* As the file beside it says: below which offset batches may skip some. */
static int64_t gaps_beside(const char *path)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    if (snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".") >= (int)sizeof folder) return 0;
    int fd = bw_os_open_named(folder, O_RDONLY | O_DIRECTORY, 0);
    int64_t gaps = fd >= 0 ? bw_offset_file_read(fd, BW_GAPS_FILE) : 0;
    if (fd >= 0) bw_os_close(fd);
    return gaps;
}

/* A single file: its base offset is in its name; without that the first batch says it. */
static bw_err check_file(bw_inspection *in, int fd, const char *path, uint64_t bytes)
{
    const char *slash = strrchr(path, '/');
    int64_t base = -1, next;
    bw_walk w;
    bw_segment_facts facts = {.is_last = true, .next_base = -1};
    (void)bw_segment_name_parse(slash ? slash + 1 : path, ".log", &base);
    in->total_bytes = bytes;
    bw_err e = bw_walk_init_fd(&w, fd, false, bytes, NULL, 0);
    if (e) return e;
    w.next_offset = base;
    w.gaps_below = gaps_beside(path);
    e = bw_inspect_segment(in, &w, &facts, &next);
    bw_walk_fini(&w);
    return e;
}

static bool is_partition(int fd)
{
    names n;
    bool found = false;
    if (names_list(fd, "", &n) == BW_OK)
        for (size_t i = 0; i < n.count; i++) found |= has_suffix(n.items[i], ".log") || strcmp(n.items[i], "partition.metadata") == 0;
    names_free(&n);
    return found;
}

bw_err bw_verify(const char *path, bw_finding_fn finding, bw_progress_fn progress, void *opaque, bw_verify_totals *totals)
{
    if (!path || !totals) return bw_fail(BW_ERR_INVALID_ARGUMENT, "bw_verify needs a path and totals");
    *totals = (bw_verify_totals){0};
    bw_inspection in = {.finding = finding, .progress = progress, .opaque = opaque, .totals = totals, .plain_max = PLAIN_MAX,
                        .path = path};
    int fd = bw_os_open_named(path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0) return bw_fail_errno(errno, "cannot open %s", path);
    struct stat st;
    bw_err e;
    if (bw_os_fstat(fd, &st) != 0) e = bw_fail_errno(errno, "cannot stat %s", path);
    else if (S_ISREG(st.st_mode)) e = check_file(&in, fd, path, (uint64_t)st.st_size);
    else if (!S_ISDIR(st.st_mode)) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "%s is neither a folder nor a plain file", path);
    else if (is_partition(fd)) {
        in.total_bytes = log_bytes(fd);
        e = check_partition(&in, fd, path);
    } else e = check_data_dir(&in, fd, path);
    bw_os_close(fd);
    if (e) return e;
    if (totals->errors)
        return bw_fail(BW_ERR_CORRUPT, "%s: %llu errors found", path, (unsigned long long)totals->errors);
    return BW_OK;
}
