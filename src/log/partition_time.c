/* log/partition_time.c: look-up by time, and the scan over batch headers that producer state is rebuilt from.
 *
 * Look-up: segments in order; the first whose largest timestamp reaches the wanted one is scanned from where its time index says
 * that nothing before can be it. The files are read with descriptors of our own and without the partition's mutex held, so that a
 * long scan keeps nobody waiting; a segment that is deleted meanwhile keeps its bytes until it is closed. Only the cleaner waits with the
 * names that it swaps (files_lock): between the list and the opening of a file its records must not move into another one. */
#include "log/segment.h"

#include "base/clock.h"
#include "format/codec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

enum { PLAIN_MAX = 256 << 20, TIMEINDEX_MAX = 32 << 20 };

typedef struct span {
    int64_t base_offset;
    uint32_t seq, length;
    bool exact;
    int64_t max_timestamp, mtime_ms;
} span;

/* A copy of the list, followed up to the tail of now. */
/* *dir: a descriptor of the folder, the caller's. */
static bw_err copy_spans(bw_partition *p, span **out, size_t *count, int64_t *start, int64_t *end, int *dir)
{
    *dir = bw_partition_open_folder(p);
    if (*dir < 0) return bw_fail_errno(errno, "cannot open partition folder %s", p->dir_name);
    bw_partition_lock(p);
    bw_position tail = atomic_load_explicit(&p->slot->tail, memory_order_acquire);
    bw_partition_adopt_rolls(p, tail);
    bw_err e = bw_partition_follow(p, tail);
    span *s = e ? NULL : malloc(p->count * sizeof *s);
    if (!e && !s) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for the segment list");
    for (size_t i = 0; !e && i < p->count; i++) {
        const bw_segment *g = p->segments[i];
        s[i] = (span){g->base_offset, g->seq, g->length, g->exact || i + 1 == p->count, g->max_timestamp,
                      g->sealed ? g->mtime_ms : INT64_MAX};
    }
    *out = s;
    *count = p->count;
    *start = atomic_load_explicit(&p->slot->log_start, memory_order_acquire);
    *end = e ? 0 : bw_partition_active(p)->next_offset;
    bw_partition_unlock(p);
    if (e) bw_os_close(*dir);
    return e;
}

/* The first record of the batch given last with timestamp >= ts and offset >= start; plain is room for what has to be decompressed. EMPTY:
 * none. */
static bw_err record_at_time(bw_walk *w, int64_t ts, int64_t start, bw_buf *plain, int64_t *offset, int64_t *found)
{
    const bw_batch_header *h = &w->header;
    const uint8_t *data;
    bw_err e = bw_walk_batch(w, &data);
    if (e) return e;
    const uint8_t *records = data + BW_BATCH_HEADER_BYTES;
    size_t len = w->size - BW_BATCH_HEADER_BYTES;
    bw_codec codec = (bw_codec)(h->attributes & BW_ATTR_CODEC_MASK);
    if (codec != BW_CODEC_NONE) {
        plain->len = 0;
        e = bw_codec_decompress(codec, records, len, PLAIN_MAX, plain);
        if (e) return e;
        records = plain->data;
        len = plain->len;
    }
    bw_record_iter it;
    bw_record_view r;
    bw_record_iter_init(&it, h, records, len);
    int more;
    while ((more = bw_record_iter_next(&it, &r)) == 1) {
        if (r.timestamp_ms < ts || r.offset < start) continue;
        *offset = r.offset;
        *found = r.timestamp_ms;
        return BW_OK;
    }
    return more < 0 ? BW_ERR_CORRUPT : BW_ERR_EMPTY;
}

static bool read_hint(int dir, int64_t base, const char *suffix, bw_buf *out)
{
    char name[BW_SEGMENT_NAME_MAX];
    struct stat st;
    bw_segment_name(name, base, suffix);
    int fd = bw_os_open_beneath(dir, name, O_RDONLY, 0);
    bool good = fd >= 0 && bw_os_fstat(fd, &st) == 0 && st.st_size > 0 && st.st_size <= TIMEINDEX_MAX &&
                bw_buf_reserve(out, (size_t)st.st_size) == BW_OK;
    if (good) {
        ssize_t n = bw_os_pread(fd, out->data, (size_t)st.st_size, 0);
        out->len = n > 0 ? (size_t)n : 0;
    }
    bw_os_close(fd);
    return good && out->len > 0;
}

/* A time index entry is to be believed when the batch it names has just that largest timestamp, and that is not past the wanted one (as
 * when a rotten entry leads to where a later one leads). w: at a batch at or before it. */
static bool entry_holds(bw_walk *w, const uint8_t *times, size_t entries, int64_t base_offset, int64_t offset, int64_t ts)
{
    while (bw_walk_next(w) == BW_OK) {
        if (w->next_offset <= offset) continue;
        if (w->header.max_timestamp > ts) return false;
        for (size_t i = 0; i < entries; i++)
            if (base_offset + (int64_t)bw_get_be32(times + i * BW_TIMEINDEX_ENTRY_BYTES + 8) == offset &&
                (int64_t)bw_get_be64(times + i * BW_TIMEINDEX_ENTRY_BYTES) == w->header.max_timestamp)
                return true;
        return false;
    }
    return false;
}

/* Puts the walk where the indexes say that the scan may begin; at the segment's start when they are not to be believed. */
static void jump(int dir, const span *s, int64_t ts, bw_walk *w)
{
    bw_buf times = {0}, index = {0};
    if (read_hint(dir, s->base_offset, ".timeindex", &times) && read_hint(dir, s->base_offset, ".index", &index)) {
        size_t entries = bw_timeindex_entries(times.data, times.len);
        int64_t from = bw_timeindex_floor(times.data, entries, s->base_offset, ts);
        uint32_t position = bw_index_floor(index.data, bw_index_entries(index.data, index.len, s->length), s->base_offset, from);
        bw_walk probe = *w;
        probe.position = position;
        probe.next_offset = -1;
        probe.check_crc = true;
        if (position > 0 && bw_walk_next(&probe) == BW_OK && probe.header.base_offset >= s->base_offset &&
            probe.header.base_offset <= from) {
            probe.position = position;
            probe.next_offset = -1;
            if (entry_holds(&probe, times.data, entries, s->base_offset, from, ts)) w->next_offset = -1;
        }
        if (w->next_offset < 0) w->position = position;
        w->buf_at = probe.buf_at;
        w->buf_len = probe.buf_len;
    }
    bw_buf_free(&times);
    bw_buf_free(&index);
}

bw_err bw_walk_find_time(bw_walk *w, int64_t ts, int64_t start, int64_t *offset, int64_t *found)
{
    bw_buf plain = {0};
    bw_err e = BW_OK;
    while (!e) {
        e = bw_walk_next(w);
        if (e || w->header.max_timestamp < ts || w->next_offset <= start) continue;
        e = record_at_time(w, ts, start, &plain, offset, found);
        if (e == BW_OK) break;
        if (e == BW_ERR_EMPTY) e = BW_OK;
    }
    bw_buf_free(&plain);
    return e;
}

/* EMPTY: nothing in this segment. */
static bw_err search_span(bw_partition *p, int dir, const span *s, int64_t ts, int64_t start, int64_t *offset, int64_t *found)
{
    int fd;
    bw_walk w;
    bw_err e = bw_segment_open_named(dir, s->base_offset, s->seq, O_RDONLY, &fd);
    if (e) return e;
    e = bw_walk_init_fd(&w, fd, false, s->length, NULL, 0);
    w.check_crc = false;
    w.next_offset = s->base_offset;
    w.gaps_below = p->gaps_below;
    if (!e) jump(dir, s, ts, &w);
    if (!e) e = bw_walk_find_time(&w, ts, start, offset, found);
    bw_walk_fini(&w);
    bw_os_close(fd);
    return e == BW_OK || e == BW_ERR_EMPTY ? e : bw_error_context(e, "segment %020lld.log", (long long)s->base_offset);
}

bw_err bw_partition_offset_for_time(bw_partition *p, int64_t ts, int64_t *offset, int64_t *found)
{
    span *spans = NULL;
    size_t count = 0;
    int64_t start = 0, end = 0;
    int dir = -1;
    pthread_rwlock_rdlock(&p->files_lock);
    bw_err e = copy_spans(p, &spans, &count, &start, &end, &dir);
    if (e) {
        pthread_rwlock_unlock(&p->files_lock);
        return e;
    }
    e = BW_ERR_EMPTY;
    for (size_t i = 0; e == BW_ERR_EMPTY && i < count; i++) {
        if (spans[i].max_timestamp < ts && spans[i].exact) continue; /* from an index it is a hint: too low when that rots */
        if (spans[i].length > 0) e = search_span(p, dir, &spans[i], ts, start, offset, found);
    }
    pthread_rwlock_unlock(&p->files_lock);
    free(spans);
    bw_os_close(dir);
    if (e == BW_ERR_EMPTY) {
        *offset = end;
        *found = -1;
        e = BW_OK;
    }
    return e;
}
