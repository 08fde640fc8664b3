/* log/partition_index.c: follow the visible log and write Kafka's sparse indexes and, at the end of a segment, its seal's root.
 *
 * As Kafka does it: when more than index.interval.bytes lie since the last entry, a batch adds (its last offset, its position) to
 * .index and (largest timestamp so far, last offset of that batch) to .timeindex; a roll adds the last time entry. The files are
 * hints, appended to without sync; after an unclean stop they are made anew. */
#include "log/segment.h"

#include "base/killpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum { PENDING_ENTRIES_BYTES = 4096, INDEX_FILE_MAX = 32 << 20 };

void bw_indexer_begin(bw_indexer *ix, int64_t base_offset, uint32_t interval)
{
    bw_indexer_free(ix);
    *ix = (bw_indexer){.base_offset = base_offset, .interval = interval, .whole = true, .max_timestamp = -1,
                       .max_timestamp_offset = -1, .last_time_entry = -1};
}

void bw_indexer_free(bw_indexer *ix)
{
    bw_buf_free(&ix->index);
    bw_buf_free(&ix->times);
}

void bw_indexer_trim(bw_indexer *ix)
{
    if (ix->index.len == 0) bw_buf_free(&ix->index);
    if (ix->times.len == 0) bw_buf_free(&ix->times);
}

bw_err bw_indexer_last_time(bw_indexer *ix)
{
    if (ix->max_timestamp <= ix->last_time_entry) return BW_OK;
    uint8_t entry[BW_TIMEINDEX_ENTRY_BYTES];
    bw_timeindex_put(entry, ix->base_offset, ix->max_timestamp, ix->max_timestamp_offset);
    ix->last_time_entry = ix->max_timestamp;
    return bw_buf_append(&ix->times, entry, sizeof entry);
}

/* Room for the entries of n batches of so many bytes: when there is none, nothing of them is noted, and it can be tried again. */
static bw_err room_for(bw_indexer *ix, size_t n, uint64_t bytes)
{
    if (ix->bytes_since + bytes <= ix->interval) return BW_OK;
    bw_err e = bw_buf_reserve(&ix->index, n * BW_INDEX_ENTRY_BYTES);
    return e ? e : bw_buf_reserve(&ix->times, n * BW_TIMEINDEX_ENTRY_BYTES);
}

static inline void add_one(bw_indexer *ix, int64_t last_offset, int64_t max_timestamp, uint32_t at, uint32_t size)
{
    if (max_timestamp > ix->max_timestamp) {
        ix->max_timestamp = max_timestamp;
        ix->max_timestamp_offset = last_offset;
    }
    if (__builtin_expect(ix->bytes_since > ix->interval && last_offset - ix->base_offset <= INT32_MAX, 0)) {
        uint8_t entry[BW_INDEX_ENTRY_BYTES];
        bw_index_put(entry, ix->base_offset, last_offset, at);
        (void)bw_buf_append(&ix->index, entry, sizeof entry); /* there is room */
        (void)bw_indexer_last_time(ix);
        ix->bytes_since = 0;
    }
    ix->bytes_since += size;
}

bw_err bw_indexer_add(bw_indexer *ix, const bw_walk *w)
{
    bw_err e = room_for(ix, 1, w->size);
    if (e) return e;
    bw_merkle_add(&ix->merkle, w->first);
    add_one(ix, bw_batch_last_offset(&w->header), w->header.max_timestamp, (uint32_t)w->at, w->size);
    ix->last_crc = w->header.crc;
    return BW_OK;
}

bw_err bw_indexer_add_run(bw_indexer *ix, const bw_walk_run *run)
{
    if (run->count == 0) return BW_OK;
    bw_err e = room_for(ix, run->count, (uint64_t)run->of[run->count - 1].at + run->of[run->count - 1].size - run->of[0].at);
    if (e) return e;
    for (size_t i = 0; i < run->count; i++)
        add_one(ix, run->of[i].last_offset, run->of[i].max_timestamp, run->of[i].at, run->of[i].size);
    bw_merkle_add_many(&ix->merkle, run->first, run->count);
    ix->last_crc = bw_get_be32(run->first[run->count - 1] + BW_BATCH_CRC_AT);
    return BW_OK;
}

static bw_err flush_file(int dir_fd, int64_t base, const char *suffix, bw_buf *pending, uint64_t *written)
{
    if (pending->len == 0) return BW_OK;
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, base, suffix);
    int fd = bw_os_open_beneath(dir_fd, name, O_WRONLY | O_CREAT | (*written == 0 ? O_TRUNC : 0), 0644);
    if (fd < 0) return bw_fail_errno(errno, "cannot open index %s", name);
    ssize_t n = bw_os_pwrite(fd, pending->data, pending->len, (off_t)*written);
    int saved = errno;
    bw_os_close(fd);
    if (n < 0) return bw_fail_errno(saved, "cannot write index %s", name);
    *written += pending->len;
    pending->len = 0;
    return BW_OK;
}

bw_err bw_indexer_flush(bw_indexer *ix, int dir_fd)
{
    bw_err e = flush_file(dir_fd, ix->base_offset, ".index", &ix->index, &ix->index_bytes);
    /* A time index beside no offset index is of no use, and Kafka's tools refuse it: a segment of few batches has neither. */
    if (!e && ix->index_bytes > 0) e = flush_file(dir_fd, ix->base_offset, ".timeindex", &ix->times, &ix->time_bytes);
    return e;
}

void bw_indexer_restart(bw_indexer *ix, int dir_fd, int64_t base_offset, uint32_t interval)
{
    static const char *const suffix[] = {".index", ".timeindex"};
    char name[BW_SEGMENT_NAME_MAX];
    bw_indexer_begin(ix, base_offset, interval);
    for (int i = 0; i < 2; i++) {
        bw_segment_name(name, base_offset, suffix[i]);
        (void)bw_os_unlink(dir_fd, name, 0);
    }
}

void bw_indexer_complete(bw_indexer *ix, int dir_fd)
{
    if (bw_indexer_last_time(ix) == BW_OK && bw_indexer_flush(ix, dir_fd) == BW_OK) return;
    bw_indexer_restart(ix, dir_fd, ix->base_offset, ix->interval); /* no index is better than half of one */
}

/* The batches from where the walk is: a run of plain ones, or one of another kind. */
static bw_err follow_some(bw_partition *p, bw_segment *s, bw_walk *w)
{
    bw_walk_run run;
    uint64_t from = w->position;
    bw_err e = BW_OK;
    if (bw_walk_plain(w, &run) > 0) {
        e = bw_indexer_add_run(&p->indexer, &run);
    } else {
        e = bw_walk_next(w);
        if (e == BW_ERR_EMPTY)
            e = bw_fail(BW_ERR_CORRUPT, "byte %llu: no batch below the log's end", (unsigned long long)w->position);
        if (!e && w->header.producer_id >= 0) e = bw_partition_note_batch(p, w);
        if (!e) e = bw_indexer_add(&p->indexer, w);
    }
    if (e) return e;
    p->snapshot_log_bytes += w->position - from;
    s->length = (uint32_t)w->position;
    s->next_offset = w->next_offset;
    if (p->indexer.max_timestamp > s->max_timestamp) s->max_timestamp = p->indexer.max_timestamp;
    return BW_OK;
}

/* One segment up to `until`. */
static bw_err follow_segment(bw_partition *p, bw_segment *s, uint32_t until)
{
    _Alignas(16) uint8_t room[BW_WALK_ROOM];
    if (s->length >= until) return BW_OK;
    int fd;
    bool own;
    bw_walk w;
    bw_err e = bw_segment_read_fd(p, s, &fd, &own);
    if (e) return e;
    (void)bw_walk_init_fd(&w, fd, false, until, room, sizeof room);
    w.check_crc = false;
    w.position = s->length;
    w.next_offset = s->next_offset;
    w.gaps_below = p->gaps_below;
    while (!e && w.position < until) {
        e = follow_some(p, s, &w);
        if (e) break;
        if (s->born_mono_ms == 0) s->born_mono_ms = bw_clock_mono_ms();
        if (p->indexer.index.len >= PENDING_ENTRIES_BYTES) (void)bw_indexer_flush(&p->indexer, bw_partition_dir(p));
    }
    if (own) bw_os_close(fd);
    return e ? bw_error_context(e, "segment %020lld.log", (long long)s->base_offset) : BW_OK;
}

static bw_err follow(bw_partition *p, bw_position tail)
{
    for (;;) {
        bw_segment *s = p->segments[p->follow_at];
        if (!s->rolled) return bw_position_seq(tail) == s->seq ? follow_segment(p, s, bw_position_pos(tail)) : BW_OK;
        bw_err e = follow_segment(p, s, s->final_length);
        if (e) return e;
        bw_segment *next = p->segments[p->follow_at + 1];
        if (s->next_offset != next->base_offset)
            return bw_fail(BW_ERR_CORRUPT, "segment %020lld.log ends at offset %lld, the next one begins at %lld",
                           (long long)s->base_offset, (long long)s->next_offset, (long long)next->base_offset);
        s->exact = p->indexer.whole;
        if (p->indexer.whole) { /* the root is complete now; the seal itself waits until the segment is durable */
            s->merkle = malloc(sizeof *s->merkle);
            if (s->merkle) *s->merkle = p->indexer.merkle;
        }
        bw_indexer_complete(&p->indexer, bw_partition_dir(p));
        BW_KILL_POINT("index.finished");
        p->follow_at++;
        bw_indexer_begin(&p->indexer, next->base_offset, p->config.index_interval_bytes);
    }
}

bw_err bw_partition_follow(bw_partition *p, bw_position tail)
{
    if (p->broken) return bw_fail(BW_ERR_POISONED, "the log cannot be followed; see the daemon's log");
    bw_err e = follow(p, tail);
    if (e == BW_ERR_CORRUPT) {
        p->broken = true; /* someone with write access scribbled over the log: no offset behind it can be trusted */
        bw_partition_poison(p);
    }
    return e;
}

/* ---- taking up an index that is there ---- */

static bw_err read_file(int dir_fd, int64_t base, const char *suffix, bw_buf *out)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    bw_segment_name(name, base, suffix);
    int fd = bw_os_open_beneath(dir_fd, name, O_RDONLY, 0);
    if (fd < 0) return BW_ERR_NOT_FOUND;
    bw_err e = BW_ERR_NOT_FOUND;
    if (bw_os_fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= INDEX_FILE_MAX) e = bw_buf_reserve(out, (size_t)st.st_size);
    if (!e) {
        ssize_t n = bw_os_pread(fd, out->data, (size_t)st.st_size, 0);
        out->len = n > 0 ? (size_t)n : 0;
    }
    bw_os_close(fd);
    return e;
}

/* The offset in the last index entry must be that of the batch it points to. Leaves the walk behind that batch. */
static bool entry_holds(bw_walk *w, const bw_segment *s, const uint8_t *entry)
{
    int64_t offset = s->base_offset + (int32_t)bw_get_be32(entry);
    w->position = bw_get_be32(entry + 4);
    w->next_offset = -1;
    w->check_crc = true;
    return bw_walk_next(w) == BW_OK && bw_batch_last_offset(&w->header) == offset;
}

/* Both indexes are whole multiples without padding, and their last entries hold: go on behind them. */
static bool resume_from_files(bw_partition *p, bw_segment *s, bw_walk *w)
{
    bw_buf index = {0}, times = {0};
    bool good = read_file(bw_partition_dir(p), s->base_offset, ".index", &index) == BW_OK;
    size_t n = good ? bw_index_entries(index.data, index.len, s->length) : 0;
    good = n > 0 && n * BW_INDEX_ENTRY_BYTES == index.len &&
           entry_holds(w, s, index.data + (n - 1) * BW_INDEX_ENTRY_BYTES) && (s->next_offset < 0 || w->next_offset <= s->next_offset) &&
           read_file(bw_partition_dir(p), s->base_offset, ".timeindex", &times) == BW_OK;
    size_t t = good ? bw_timeindex_entries(times.data, times.len) : 0;
    good = good && t > 0 && t * BW_TIMEINDEX_ENTRY_BYTES == times.len;
    if (good) {
        const uint8_t *last = times.data + (t - 1) * BW_TIMEINDEX_ENTRY_BYTES;
        bw_indexer *ix = &p->indexer;
        ix->whole = false;
        ix->index_bytes = index.len;
        ix->time_bytes = times.len;
        ix->max_timestamp = ix->last_time_entry = (int64_t)bw_get_be64(last);
        ix->max_timestamp_offset = s->base_offset + (int32_t)bw_get_be32(last + 8);
        ix->bytes_since = w->size;
        ix->last_crc = w->header.crc;
    }
    bw_buf_free(&index);
    bw_buf_free(&times);
    return good;
}

bw_err bw_partition_resume_index(bw_partition *p)
{
    bw_segment *s = bw_partition_active(p);
    p->follow_at = p->count - 1;
    bw_indexer_begin(&p->indexer, s->base_offset, p->config.index_interval_bytes);
    if (s->length == 0) return BW_OK;
    bw_walk w;
    bw_err e = bw_walk_init_fd(&w, s->fd, false, s->length, NULL, 0);
    if (e) return e;
    w.gaps_below = p->gaps_below;
    if (!resume_from_files(p, s, &w)) {
        bw_indexer_restart(&p->indexer, bw_partition_dir(p), s->base_offset, p->config.index_interval_bytes);
        w.position = 0;
        w.next_offset = s->base_offset;
        w.leader_epoch = INT32_MIN; /* a look at the index's last entry may have raised it */
    }
    w.check_crc = false;
    bw_walk_run run;
    while (!e && w.position < s->length) {
        if (bw_walk_plain(&w, &run) > 0) {
            e = bw_indexer_add_run(&p->indexer, &run);
            continue;
        }
        e = bw_walk_next(&w);
        if (e == BW_ERR_EMPTY) e = bw_fail(BW_ERR_CORRUPT, "byte %llu: no batch", (unsigned long long)w.position);
        if (!e) e = bw_indexer_add(&p->indexer, &w);
    }
    if (!e && s->next_offset < 0) s->next_offset = w.next_offset;
    if (!e && w.next_offset != s->next_offset)
        e = bw_fail(BW_ERR_CORRUPT, "segment %020lld.log ends at offset %lld, not at %lld", (long long)s->base_offset,
                    (long long)w.next_offset, (long long)s->next_offset);
    bw_walk_fini(&w);
    if (p->indexer.max_timestamp > s->max_timestamp) s->max_timestamp = p->indexer.max_timestamp;
    return e;
}
