/* log/partition_segment.c: the segment list, segment files, seals, and the partition's small files. */
#include "log/segment.h"

#include "base/clock.h"
#include "base/killpoint.h"
#include "log/smallfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPOCH_FILE "leader-epoch-checkpoint"

enum { EPOCH_BYTES_MAX = 1 << 20, EPOCHS_MAX = 4096 };

bw_segment *bw_segment_new(bw_partition *p, int64_t base_offset)
{
    bw_segment *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->base_offset = s->next_offset = base_offset;
    s->fd = -1;
    s->open_files = p->open_files;
    s->max_timestamp = -1;
    s->seen_mono_ms = bw_clock_mono_ms();
    return s;
}

void bw_segment_free(bw_segment *s)
{
    if (!s) return;
    bw_segment_set_fd(s, -1);
    free(s->merkle);
    free(s);
}

void bw_segment_set_fd(bw_segment *s, int fd)
{
    int32_t more = (fd >= 0) - (s->fd >= 0);
    if (s->fd >= 0) bw_os_close(s->fd);
    s->fd = fd;
    if (s->open_files && more) atomic_fetch_add_explicit(&s->open_files->count, (uint32_t)more, memory_order_relaxed);
}

bw_err bw_partition_push(bw_partition *p, bw_segment *s)
{
    if (p->count == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 4;
        bw_segment **more = realloc(p->segments, cap * sizeof *more);
        if (!more) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the segment list");
        p->segments = more;
        p->cap = cap;
    }
    p->segments[p->count++] = s;
    return BW_OK;
}

void bw_partition_remove_at(bw_partition *p, size_t i)
{
    bw_segment *s = p->segments[i];
    memmove(&p->segments[i], &p->segments[i + 1], (p->count - i - 1) * sizeof *p->segments);
    p->count--;
    if (p->follow_at > i) p->follow_at--;
    if (s->users) s->dropped = true;
    else bw_segment_free(s);
}

static void file_name(const bw_segment *s, char out[BW_SEGMENT_NAME_MAX])
{
    if (s->linked) bw_segment_name(out, s->base_offset, ".log");
    else bw_spare_name(out, s->seq);
}

bw_err bw_segment_open_named(int dir, int64_t base_offset, uint32_t seq, int flags, int *fd)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, base_offset, ".log");
    *fd = bw_os_open_beneath(dir, name, flags, 0);
    if (*fd < 0 && errno == ENOENT && seq) {
        bw_spare_name(name, seq);
        *fd = bw_os_open_beneath(dir, name, flags, 0);
    }
    if (*fd >= 0) return BW_OK;
    return errno == ENOENT ? BW_ERR_EMPTY : bw_fail_errno(errno, "cannot open segment %s", name);
}

bw_err bw_segment_open(bw_partition *p, bw_segment *s)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    file_name(s, name);
    if (s->fd < 0) bw_segment_set_fd(s, bw_os_open_beneath(bw_partition_dir(p), name, O_RDWR, 0));
    if (s->fd < 0) return bw_fail_errno(errno, "cannot open segment %s", name);
    if (bw_os_fstat(s->fd, &st) != 0) return bw_fail_errno(errno, "cannot stat segment %s", name);
    if (!S_ISREG(st.st_mode)) return bw_fail(BW_ERR_CORRUPT, "segment %s is not a plain file", name);
    if (st.st_size > (off_t)BW_POSITION_MAX)
        return bw_fail(BW_ERR_UNSUPPORTED, "segment %s has %lld bytes; at most %u are supported", name, (long long)st.st_size,
                       BW_POSITION_MAX);
    s->file_bytes = (uint32_t)st.st_size;
    s->inode = (uint64_t)st.st_ino;
    s->mtime_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
    return BW_OK;
}

bw_err bw_segment_read_fd(bw_partition *p, const bw_segment *s, int *fd, bool *own)
{
    *own = s->fd < 0;
    *fd = s->fd;
    if (s->fd >= 0) return BW_OK;
    char name[BW_SEGMENT_NAME_MAX];
    file_name(s, name);
    *fd = bw_os_open_beneath(bw_partition_dir(p), name, O_RDONLY, 0);
    return *fd < 0 ? bw_fail_errno(errno, "cannot open segment %s", name) : BW_OK;
}

bw_err bw_segment_create_log(bw_partition *p, int64_t base_offset, uint32_t bytes, bw_segment **out)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment *s = bw_segment_new(p, base_offset);
    if (!s) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a segment");
    bw_segment_name(name, base_offset, ".log");
    s->linked = true;
    bw_segment_set_fd(s, bw_os_open_beneath(bw_partition_dir(p), name, O_RDWR | O_CREAT | O_EXCL, 0644));
    bw_err e = BW_OK;
    if (s->fd < 0) e = bw_fail_errno(errno, "cannot create segment %s", name);
    else if (bytes > 0 && bw_os_fallocate(s->fd, 0, 0, bytes) != 0) e = bw_fail_errno(errno, "cannot allocate segment %s", name);
    else if (bw_os_fsync(s->fd) != 0 || bw_os_sync_dir(bw_partition_dir(p)) != 0) e = bw_fail_errno(errno, "cannot sync segment %s", name);
    if (!e) e = bw_segment_open(p, s);
    if (e) {
        bw_segment_free(s);
        return e;
    }
    *out = s;
    return BW_OK;
}

bw_err bw_segment_write_seal(bw_partition *p, const bw_segment *s, const bw_merkle *m)
{
    uint8_t bytes[BW_SEAL_BYTES];
    char name[BW_SEGMENT_NAME_MAX];
    bw_seal seal = {.length = s->final_length, .base_offset = s->base_offset, .next_offset = s->next_offset,
                    .batches = m->count, .root = bw_merkle_root(m)};
    bw_seal_encode(bytes, &seal);
    bw_segment_name(name, s->base_offset, ".seal");
    int fd = bw_os_open_beneath(bw_partition_dir(p), name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) return bw_fail_errno(errno, "cannot create %s", name);
    BW_KILL_POINT("seal.created");
    ssize_t n = bw_os_pwrite(fd, bytes, sizeof bytes, 0);
    int saved = errno;
    bw_os_close(fd);
    p->dir_dirty = true;
    BW_KILL_POINT("seal.written");
    if (n >= 0) return BW_OK;
    (void)bw_os_unlink(bw_partition_dir(p), name, 0); /* none is better than half of one */
    return bw_fail_errno(saved, "cannot write %s", name);
}

bw_err bw_segment_seal(bw_partition *p, bw_segment *s)
{
    if (s->merkle) return bw_segment_write_seal(p, s, s->merkle);
    int fd;
    bool own;
    bw_err e = bw_segment_read_fd(p, s, &fd, &own);
    if (e) return e;
    bw_walk w;
    bw_merkle m = {0};
    int64_t max_timestamp = -1;
    e = bw_walk_init_fd(&w, fd, false, s->final_length, NULL, 0);
    if (!e) {
        w.check_crc = false;
        w.next_offset = s->base_offset;
        w.gaps_below = p->gaps_below;
        bw_walk_run run;
        while (!e && w.position < s->final_length) {
            if (bw_walk_plain(&w, &run) > 0) {
                bw_merkle_add_many(&m, run.first, run.count);
                for (size_t i = 0; i < run.count; i++)
                    if (run.of[i].max_timestamp > max_timestamp) max_timestamp = run.of[i].max_timestamp;
                continue;
            }
            e = bw_walk_next(&w);
            if (e == BW_ERR_EMPTY) e = bw_fail(BW_ERR_CORRUPT, "byte %llu: no batch", (unsigned long long)w.position);
            if (e) break;
            bw_merkle_add(&m, w.first);
            if (w.header.max_timestamp > max_timestamp) max_timestamp = w.header.max_timestamp;
        }
        bw_walk_fini(&w);
    }
    if (own) bw_os_close(fd);
    if (e) return e;
    s->max_timestamp = max_timestamp;
    s->exact = true;
    return bw_segment_write_seal(p, s, &m);
}

void bw_segment_unlink_hints(bw_partition *p, int64_t base_offset)
{
    static const char *const suffix[] = {".index", ".timeindex", ".seal", ".txnindex", ".snapshot"};
    char name[BW_SEGMENT_NAME_MAX];
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++) {
        bw_segment_name(name, base_offset, suffix[i]);
        (void)bw_os_unlink(bw_partition_dir(p), name, 0);
    }
    p->dir_dirty = true;
}

/* ---- the folder ---- */

int bw_partition_open_folder(const bw_partition *p)
{
    return bw_os_open_beneath(p->data_fd, p->dir_name, O_RDONLY | O_DIRECTORY, 0);
}

int bw_partition_dir(bw_partition *p)
{
    if (p->dir_fd < 0) p->dir_fd = bw_partition_open_folder(p);
    return p->dir_fd;
}

void bw_partition_lock(bw_partition *p) { pthread_mutex_lock(&p->mutex); }

void bw_partition_unlock(bw_partition *p)
{
    if (p->dir_fd >= 0 && !p->dir_kept) {
        bw_os_close(p->dir_fd);
        p->dir_fd = -1;
    }
    pthread_mutex_unlock(&p->mutex);
}

/* ---- small files ---- */

static bw_err read_epochs(bw_partition *p, bw_epoch_entry **entries, size_t *count)
{
    *entries = NULL;
    *count = 0;
    char *text = malloc(EPOCH_BYTES_MAX);
    size_t len;
    if (!text) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the leader epochs");
    bw_err e = bw_smallfile_read(bw_partition_dir(p), EPOCH_FILE, text, EPOCH_BYTES_MAX, &len);
    if (!e) e = bw_epoch_checkpoint_decode(text, len, entries, count);
    free(text);
    return e == BW_ERR_NOT_FOUND || e == BW_ERR_CORRUPT ? BW_OK : e; /* made anew from the log */
}

bw_err bw_partition_read_epoch(bw_partition *p, int32_t *epoch, bool *lost)
{
    bw_epoch_entry *entries;
    size_t count;
    *epoch = 0;
    bw_err e = read_epochs(p, &entries, &count);
    *lost = !e && count == 0;
    if (!e && count > 0 && entries[count - 1].epoch > 0) *epoch = entries[count - 1].epoch;
    free(entries);
    return e;
}

bw_err bw_partition_history_get(bw_partition *p, bw_partition_history *out)
{
    bw_partition_lock(p);
    bw_err e = read_epochs(p, &out->epochs, &out->count);
    out->life_epoch = (int32_t)bw_offset_file_read(bw_partition_dir(p), BW_LIFE_FILE);
    bw_partition_unlock(p);
    return e;
}

/* Kafka's rule: entries from start_offset on are forgotten, the new one follows. */
bw_err bw_partition_write_epochs(bw_partition *p, int32_t epoch, int64_t start_offset)
{
    bw_epoch_entry *entries;
    size_t count, keep = 0;
    bw_err e = read_epochs(p, &entries, &count);
    if (e) return e;
    while (keep < count && entries[keep].start_offset < start_offset && entries[keep].epoch < epoch) keep++;
    size_t from = keep >= EPOCHS_MAX ? keep - EPOCHS_MAX + 1 : 0;
    bw_epoch_entry *more = realloc(entries, (keep + 1) * sizeof *entries);
    if (!more) {
        free(entries);
        return bw_fail(BW_ERR_NO_MEMORY, "no memory for the leader epochs");
    }
    more[keep] = (bw_epoch_entry){epoch, start_offset};
    bw_buf text = {0};
    e = bw_epoch_checkpoint_encode(more + from, keep + 1 - from, &text);
    free(more);
    if (!e) e = bw_smallfile_replace(bw_partition_dir(p), EPOCH_FILE, text.data, text.len);
    bw_buf_free(&text);
    return e;
}

bw_err bw_partition_write_log_start(bw_partition *p, int64_t log_start)
{
    return bw_offset_file_write(bw_partition_dir(p), BW_LOG_START_FILE, log_start);
}

int64_t bw_partition_read_log_start(bw_partition *p) { return bw_offset_file_read(bw_partition_dir(p), BW_LOG_START_FILE); }
