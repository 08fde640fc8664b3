/* log/partition_scan.c: what recovery and takeover need: list the folder, scan a segment (from the page cache or, with O_DIRECT,
 * from the medium), read seals, clean a tail. */
#include "log/segment.h"

#include "base/killpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { ZERO_PIECE = 256 << 10 };

static bool grow_list(void **list, size_t count, size_t *cap, size_t item)
{
    if (count < *cap) return true;
    size_t more = *cap ? 2 * *cap : 16;
    void *bigger = realloc(*list, more * item);
    if (!bigger) return false;
    *list = bigger;
    *cap = more;
    return true;
}

typedef struct list_job { bw_partition *p; bw_found *found; bool half_swapped; } list_job;

static bool ends_with(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcmp(name + n - m, suffix) == 0;
}

static bool list_entry(void *opaque, const char *name)
{
    list_job *j = opaque;
    bw_found *f = j->found;
    int64_t base;
    uint32_t seq;
    if (bw_segment_name_parse(name, ".log", &base)) {
        f->failed = !grow_list((void **)&f->logs, f->log_count, &f->log_cap, sizeof *f->logs);
        if (!f->failed) f->logs[f->log_count++] = base;
    } else if (bw_spare_name_parse(name, &seq)) {
        f->failed = !grow_list((void **)&f->spares, f->spare_count, &f->spare_cap, sizeof *f->spares);
        if (!f->failed) f->spares[f->spare_count++] = seq;
    } else if (ends_with(name, BW_TXN_INDEX_SUFFIX)) {
        j->p->has_indexes = true;
    } else if (ends_with(name, ".seal")) {
        f->seals++;
    } else if (ends_with(name, ".cleaned") || ends_with(name, ".seal.swap")) {
        j->half_swapped = true;
    } else if (ends_with(name, ".deleted") || ends_with(name, ".tmp")) {
        (void)bw_os_unlink(bw_partition_dir(j->p), name, 0); /* left by a deletion or replacement that was cut short */
    }
    return !f->failed;
}

static int compare_base(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static int compare_seq(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

bw_err bw_partition_list(bw_partition *p, bw_found *out)
{
    *out = (bw_found){0};
    list_job j = {p, out, false};
    if (bw_os_list_dir(bw_partition_dir(p), list_entry, &j) != 0) return bw_fail_errno(errno, "cannot list the partition's folder");
    if (j.half_swapped) { /* the cleaner died: its work first, then what there is */
        bw_err e = bw_compact_recover(p);
        bw_found_free(out);
        *out = (bw_found){0};
        if (e) return e;
        if (bw_os_list_dir(bw_partition_dir(p), list_entry, &j) != 0) return bw_fail_errno(errno, "cannot list the partition's folder");
    }
    if (out->failed) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the segment list");
    if (out->log_count) qsort(out->logs, out->log_count, sizeof *out->logs, compare_base);
    if (out->spare_count) qsort(out->spares, out->spare_count, sizeof *out->spares, compare_seq);
    return BW_OK;
}

void bw_found_free(bw_found *f)
{
    free(f->logs);
    free(f->spares);
}

/* A descriptor that reads past the page cache where the file system can (*direct says so). */
static int open_direct(bw_partition *p, const bw_segment *s, bool *direct)
{
    char name[BW_SEGMENT_NAME_MAX];
    if (s->linked) bw_segment_name(name, s->base_offset, ".log");
    else bw_spare_name(name, s->seq);
    int fd = bw_os_open_beneath(bw_partition_dir(p), name, O_RDONLY | O_DIRECT, 0);
    *direct = fd >= 0;
    return fd >= 0 || errno != EINVAL ? fd : bw_os_open_beneath(bw_partition_dir(p), name, O_RDONLY, 0);
}

bw_err bw_segment_scan(bw_partition *p, const bw_segment *s, bw_scan *scan)
{
    int fd = s->fd;
    bool own = scan->direct, direct = false;
    bw_err e = BW_OK;
    if (scan->direct) {
        fd = open_direct(p, s, &direct);
        if (fd < 0) e = bw_fail_errno(errno, "cannot open segment %020lld.log", (long long)s->base_offset);
    } else {
        e = bw_segment_read_fd(p, s, &fd, &own);
    }
    if (e) return e;
    bw_walk w;
    e = bw_walk_init_fd(&w, fd, direct, scan->until, NULL, 0);
    w.position = scan->from;
    w.next_offset = scan->next_offset;
    w.leader_epoch = scan->leader_epoch;
    w.gaps_below = p->gaps_below;
    scan->max_timestamp = -1;
    scan->batches = 0;
    while (!e) {
        e = bw_walk_next(&w);
        if (e) break;
        scan->last_crc = w.header.crc;
        scan->batches++;
        if (w.header.max_timestamp > scan->max_timestamp) scan->max_timestamp = w.header.max_timestamp;
        if (scan->indexer) e = bw_indexer_add(scan->indexer, &w);
    }
    scan->end = e;
    scan->position = (uint32_t)w.position;
    scan->gap = w.gap_seen;
    scan->next_offset = w.next_offset;
    scan->leader_epoch = w.leader_epoch;
    bw_walk_fini(&w);
    if (own) bw_os_close(fd);
    if (e == BW_ERR_CORRUPT) (void)bw_error_context(e, "segment %020lld.log", (long long)s->base_offset);
    return e == BW_ERR_EMPTY || e == BW_ERR_CORRUPT ? BW_OK : e;
}

bool bw_segment_read_seal(bw_partition *p, int64_t base_offset, bw_seal *seal)
{
    uint8_t bytes[BW_SEAL_BYTES + 1];
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, base_offset, ".seal");
    int fd = bw_os_open_beneath(bw_partition_dir(p), name, O_RDONLY, 0);
    if (fd < 0) return false;
    ssize_t n = bw_os_pread(fd, bytes, sizeof bytes, 0);
    bw_os_close(fd);
    return n == (ssize_t)BW_SEAL_BYTES && bw_seal_decode(bytes, (size_t)n, seal) == BW_OK && seal->base_offset == base_offset;
}

/* The largest timestamp as the time index has it: a hint, good for look-ups, never the reason to delete. */
static int64_t hinted_timestamp(bw_partition *p, int64_t base_offset)
{
    uint8_t entry[BW_TIMEINDEX_ENTRY_BYTES];
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    int64_t ts = -1;
    bw_segment_name(name, base_offset, ".timeindex");
    int fd = bw_os_open_beneath(bw_partition_dir(p), name, O_RDONLY, 0);
    if (fd < 0) return -1;
    if (bw_os_fstat(fd, &st) == 0 && st.st_size >= (off_t)sizeof entry && st.st_size % (off_t)sizeof entry == 0 &&
        bw_os_pread(fd, entry, sizeof entry, st.st_size - (off_t)sizeof entry) == (ssize_t)sizeof entry)
        ts = (int64_t)bw_get_be64(entry);
    bw_os_close(fd);
    return ts > 0 ? ts : -1;
}

bw_err bw_segment_load_sealed(bw_partition *p, bw_segment *s, const bw_seal *seal)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    bw_segment_name(name, s->base_offset, ".log");
    if (bw_os_stat_at(bw_partition_dir(p), name, &st) != 0) return bw_fail_errno(errno, "cannot stat segment %s", name);
    if (!S_ISREG(st.st_mode) || st.st_size < (off_t)seal->length || seal->length > BW_POSITION_MAX ||
        seal->next_offset < s->base_offset)
        return bw_fail(BW_ERR_CORRUPT, "segment %s has %lld bytes, its seal says %u", name, (long long)st.st_size, seal->length);
    s->inode = (uint64_t)st.st_ino;
    s->file_bytes = bw_u32_min((uint64_t)st.st_size, BW_POSITION_MAX);
    s->mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    s->length = s->final_length = s->limit = seal->length;
    s->next_offset = seal->next_offset;
    s->rolled = s->sealed = true;
    s->max_timestamp = hinted_timestamp(p, s->base_offset);
    return BW_OK;
}

void bw_segment_estimate_age(bw_partition *p, bw_segment *s)
{
    uint8_t first[BW_BATCH_HEADER_BYTES];
    bw_batch_header h;
    if (s->length < sizeof first || bw_os_pread(s->fd, first, sizeof first, 0) != (ssize_t)sizeof first ||
        bw_batch_header_decode(first, sizeof first, true, &h) != BW_OK)
        return;
    int64_t born = h.base_timestamp >= 0 && h.base_timestamp < s->mtime_ms ? h.base_timestamp : s->mtime_ms;
    int64_t age = p->open_wall_ms - born;
    s->born_mono_ms = p->open_mono_ms - (age > 0 ? age : 0);
    if (s->born_mono_ms == 0) s->born_mono_ms = 1;
}

bw_err bw_segment_zero_tail(const bw_segment *s)
{
    if (s->file_bytes <= s->length) return BW_OK;
    off_t at = s->length, len = (off_t)s->file_bytes - s->length;
    if (bw_os_fallocate(s->fd, FALLOC_FL_ZERO_RANGE, at, len) == 0) return BW_OK;
    if (errno != EOPNOTSUPP && errno != ENOSYS) return bw_fail_errno(errno, "cannot clean the end of the newest segment");
    uint8_t *zeros = calloc(1, ZERO_PIECE);
    if (!zeros) return bw_fail(BW_ERR_NO_MEMORY, "no memory to clean the end of the newest segment");
    bw_err e = BW_OK;
    while (!e && len > 0) {
        size_t n = len < ZERO_PIECE ? (size_t)len : ZERO_PIECE;
        if (bw_os_pwrite(s->fd, zeros, n, at) < 0) e = bw_fail_errno(errno, "cannot clean the end of the newest segment");
        at += (off_t)n;
        len -= (off_t)n;
    }
    free(zeros);
    return e;
}

bw_err bw_segment_cut(bw_partition *p, bw_segment *s)
{
    if (s->file_bytes <= s->length) return BW_OK;
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, s->base_offset, ".log");
    int fd = bw_os_open_beneath(bw_partition_dir(p), name, O_RDWR, 0);
    bw_err e = fd < 0 || bw_os_ftruncate(fd, s->length) != 0 ? bw_fail_errno(errno, "cannot cut segment %s to its length", name) : BW_OK;
    bw_os_close(fd);
    if (!e) s->file_bytes = s->length;
    return e;
}

bw_err bw_segment_close_rolled(bw_partition *p, bw_segment *s)
{
    s->rolled = true;
    s->final_length = s->limit = s->length;
    if (bw_os_fdatasync(s->fd) != 0) return bw_fail_errno(errno, "cannot sync segment %020lld.log", (long long)s->base_offset);
    BW_KILL_POINT("recover.synced_rolled");
    bw_err e = bw_segment_seal(p, s);
    if (e == BW_ERR_CORRUPT || e == BW_ERR_NO_MEMORY) return e;
    s->sealed = e == BW_OK; /* a full disk does not keep a partition from opening: sealed at a later start */
    bw_segment_set_fd(s, -1);
    free(s->merkle);
    s->merkle = NULL;
    return BW_OK;
}
