/* log/compact_clean.c: neighbouring segments written anew, without what is superseded, as one.
 *
 * What is written is read back whole before it may take the old ones' place: the walk that builds its indexes and its seal checks each
 * checksum, each offset and where it ends. Writeback is kept bounded by a sync each SYNC_EACH bytes. */
#include "log/compact_pass.h"

#include "base/killpoint.h"
#include "log/smallfile.h"
#include "log/txn_index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

enum { WRITE_ROOM = 256 << 10, SYNC_EACH = 32 << 20 };

typedef struct cleaning {
    compaction *c;
    int64_t base, end; /* offsets of the group */
    int fd;
    uint8_t *room;
    size_t held;
    uint64_t at;       /* bytes in the file */
    uint32_t unsynced;
    bool changed;
    bool ends_empty;   /* the last batch of the span was dropped: as the group's last one it is written without records */
    bw_batch_header last;
    bw_aborted_list indexed; /* entries of the old .txnindex files */
    bool had_index;
    int64_t mtime_ms;  /* of the newest of the old files */
    const bw_batch_header *header; /* of the batch that is looked at */
} cleaning;

static void cleaned_name(char out[BW_SEGMENT_NAME_MAX + 8], int64_t base, const char *suffix)
{
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, base, suffix);
    snprintf(out, BW_SEGMENT_NAME_MAX + 8, "%.*s%s", BW_SEGMENT_NAME_MAX - 1, name, COMPACT_CLEANED);
}

void compaction_unlink_cleaned(int dir_fd, int64_t base_offset)
{
    static const char *const suffix[] = {".log", ".index", ".timeindex", ".txnindex", ".seal"};
    char name[BW_SEGMENT_NAME_MAX + 8];
    for (size_t i = 0; i < sizeof suffix / sizeof *suffix; i++) {
        cleaned_name(name, base_offset, suffix[i]);
        (void)bw_os_unlink(dir_fd, name, 0);
    }
}

/* ---- writing ---- */

static bw_err flush(cleaning *g)
{
    if (g->held == 0) return BW_OK;
    if (bw_os_pwrite(g->fd, g->room, g->held, (off_t)g->at) < 0) return bw_fail_errno(errno, "cannot write the cleaned segment");
    g->at += g->held;
    g->unsynced += (uint32_t)g->held;
    g->held = 0;
    if (g->unsynced < SYNC_EACH) return BW_OK;
    g->unsynced = 0;
    return bw_os_fdatasync(g->fd) == 0 ? BW_OK : bw_fail_errno(errno, "cannot sync the cleaned segment");
}

static bw_err emit(cleaning *g, const uint8_t *data, size_t len)
{
    if (g->at + g->held + len > BW_POSITION_MAX) return bw_fail(BW_ERR_RECORD_TOO_LARGE, "the cleaned segment would pass 2 GiB");
    while (len > 0) {
        size_t n = WRITE_ROOM - g->held < len ? WRITE_ROOM - g->held : len;
        memcpy(g->room + g->held, data, n);
        g->held += n;
        data += n;
        len -= n;
        bw_err e = g->held == WRITE_ROOM ? flush(g) : BW_OK;
        if (!e) e = compaction_step(g->c, n);
        if (e) return e;
    }
    return BW_OK;
}

/* ---- what stays ---- */

static bw_filter_verdict judge(void *opaque, const bw_record_view *r)
{
    cleaning *g = opaque;
    compaction *c = g->c;
    if (!r->key || r->offset >= c->upto) return BW_FILTER_KEEP;
    if (bw_offset_map_get(&c->map, r->key, r->key_len) > r->offset) return BW_FILTER_DROP;
    if (r->value) return BW_FILTER_KEEP;
    int64_t horizon = bw_batch_delete_horizon(g->header);
    if (horizon >= 0 && horizon <= c->past_ms) return BW_FILTER_DROP;
    c->horizons = true;
    return BW_FILTER_KEEP_TOMBSTONE;
}

/* May the marker go, because no batch of its transaction is left? */
static bw_err marker_is_alone(cleaning *g, const uint8_t *batch, const bw_batch_header *h, bool *alone)
{
    *alone = h->record_count == 0;
    compact_marker kind;
    bw_err e = *alone ? BW_OK : compaction_marker(g->c, batch, h, &kind);
    if (e || *alone) return e;
    if (kind == MARKER_COMMIT) *alone = compaction_end_open(g->c, h->producer_id);
    else if (kind == MARKER_ABORT) {
        const compact_aborted *a = compaction_find_aborted(g->c, h);
        *alone = !(a && a->last == h->base_offset && a->seen);
    }
    return BW_OK;
}

static bw_err clean_marker(cleaning *g, const uint8_t *batch, const bw_batch_header *h, bool needed)
{
    compaction *c = g->c;
    bool alone;
    int64_t horizon = bw_batch_delete_horizon(h);
    const uint8_t *out = batch;
    size_t len = bw_batch_size(h);
    bw_err e = marker_is_alone(g, batch, h, &alone);
    if (e) return e;
    bool goes = alone && !needed && (h->record_count == 0 || (horizon >= 0 && horizon <= c->past_ms));
    if (alone && !needed && !goes) c->horizons = true;
    if (alone && h->record_count > 0 && horizon < 0) e = bw_batch_filter_horizon(&c->filter, batch, h, c->horizon_ms, &out, &len);
    c->report->records_before += (uint64_t)h->record_count;
    c->report->records_after += goes ? 0 : (uint64_t)h->record_count;
    g->ends_empty = goes;
    g->changed |= out != batch || g->ends_empty;
    return e || g->ends_empty ? e : emit(g, out, len);
}

static bw_err clean_data(cleaning *g, const uint8_t *batch, const bw_batch_header *h, bool needed)
{
    compaction *c = g->c;
    const uint8_t *out = batch;
    size_t len = bw_batch_size(h);
    bw_err e = BW_OK;
    compact_aborted *aborted = NULL;
    if (h->attributes & BW_ATTR_TRANSACTIONAL) {
        aborted = compaction_find_aborted(c, h);
        if (aborted) aborted->seen = true;
        else compaction_note_open(c, h->producer_id);
    }
    uint32_t kept = 0;
    c->report->records_before += (uint64_t)h->record_count;
    if (h->record_count > 0 && aborted) {
        e = bw_batch_filter_empty(&c->filter, h, &out, &len);
    } else if (h->record_count > 0) {
        e = bw_batch_filter_run(&c->filter, batch, h, c->o->max_plain, c->horizon_ms, judge, g, &out, &len);
        kept = c->filter.records_kept;
    }
    if (e) return e;
    c->report->records_after += kept;
    g->ends_empty = kept == 0 && !needed;
    g->changed |= out != batch || g->ends_empty;
    return g->ends_empty ? BW_OK : emit(g, out, len);
}

static bw_err clean_batch(cleaning *g, bw_walk *w)
{
    const bw_batch_header *h = &w->header;
    const uint8_t *batch;
    bw_err e = bw_walk_batch(w, &batch);
    if (e) return e;
    g->header = h;
    bool needed = compaction_is_last(g->c, h);
    g->last = *h;
    g->ends_empty = false;
    return h->attributes & BW_ATTR_CONTROL ? clean_marker(g, batch, h, needed) : clean_data(g, batch, h, needed);
}

static bw_err read_index(cleaning *g, int64_t base)
{
    uint64_t end;
    bw_err e = bw_txn_index_read(g->c->dir_fd, base, 0, base - 1, &g->indexed, &end);
    if (e == BW_ERR_NOT_FOUND) return BW_OK;
    g->had_index = true;
    return e;
}

static bw_err clean_span(cleaning *g, const compact_span *s)
{
    int fd;
    bw_walk w;
    struct stat st;
    bw_err e = read_index(g, s->base_offset);
    if (!e) e = compaction_open(g->c, s, &fd);
    if (e) return e;
    if (bw_os_fstat(fd, &st) == 0) {
        int64_t mtime = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
        if (mtime > g->mtime_ms) g->mtime_ms = mtime;
    }
    e = bw_walk_init_fd(&w, fd, false, s->length, NULL, 0);
    w.next_offset = s->base_offset;
    w.gaps_below = g->c->p->gaps_below;
    while (!e && w.position < s->length) {
        e = bw_walk_next(&w);
        if (e == BW_ERR_EMPTY) e = bw_fail(BW_ERR_CORRUPT, "byte %llu: no batch", (unsigned long long)w.position);
        if (!e) e = compaction_step(g->c, w.size);
        if (!e) e = clean_batch(g, &w);
    }
    if (!e && w.next_offset != s->next_offset)
        e = bw_fail(BW_ERR_CORRUPT, "it ends at offset %lld, not at %lld", (long long)w.next_offset, (long long)s->next_offset);
    bw_walk_fini(&w);
    bw_os_close(fd);
    return e ? bw_error_context(e, "segment %020lld.log", (long long)s->base_offset) : BW_OK;
}

/* ---- the result ---- */

static bw_err write_hint(cleaning *g, const char *suffix, const bw_buf *entries)
{
    char name[BW_SEGMENT_NAME_MAX + 8];
    if (entries->len == 0) return BW_OK;
    cleaned_name(name, g->base, suffix);
    return bw_smallfile_write(g->c->dir_fd, name, entries->data, entries->len, true);
}

/* Those aborted transactions of which the old files held batches: for committed readers that have them open still. They are gone from
 * the new file, and from its index at the next cleaning. A segment that had an index keeps one, so that the old one is replaced. */
static bw_err write_aborted(cleaning *g)
{
    bw_buf out = {0};
    char name[BW_SEGMENT_NAME_MAX + 8];
    bw_err e = bw_buf_reserve(&out, BW_TXN_ENTRY_BYTES);
    for (size_t i = 0; !e && g->had_index && i < g->indexed.count; i++) {
        const bw_aborted *a = &g->indexed.items[i];
        bw_batch_header marker = {.producer_id = a->producer_id, .base_offset = a->last};
        const compact_aborted *found = compaction_find_aborted(g->c, &marker);
        uint8_t entry[BW_TXN_ENTRY_BYTES];
        if (!found || !found->seen || found->last != a->last) continue;
        bw_aborted_put(entry, a);
        e = bw_buf_append(&out, entry, sizeof entry);
    }
    cleaned_name(name, g->base, BW_TXN_INDEX_SUFFIX);
    if (!e && g->had_index) e = bw_smallfile_write(g->c->dir_fd, name, out.data, out.len, true);
    bw_buf_free(&out);
    return e;
}

/* Reads it back; makes indexes and seal. */
static bw_err read_back(cleaning *g, bw_indexer *ix, compact_new *fresh)
{
    bw_walk w;
    bw_err e = bw_walk_init_fd(&w, g->fd, false, g->at, NULL, 0);
    w.next_offset = g->base;
    w.gaps_below = g->end;
    fresh->max_timestamp = -1;
    while (!e && w.position < g->at) {
        e = bw_walk_next(&w);
        if (e == BW_ERR_EMPTY) e = bw_fail(BW_ERR_CORRUPT, "the cleaned segment has no batch at byte %llu", (unsigned long long)w.position);
        if (!e) e = bw_indexer_add(ix, &w);
        if (!e) e = compaction_step(g->c, w.size);
        if (!e && w.header.max_timestamp > fresh->max_timestamp) fresh->max_timestamp = w.header.max_timestamp;
    }
    if (!e && w.next_offset != g->end)
        e = bw_fail(BW_ERR_CORRUPT, "the cleaned segment ends at offset %lld, not at %lld", (long long)w.next_offset, (long long)g->end);
    bw_walk_fini(&w);
    if (!e) e = bw_indexer_last_time(ix);
    if (!e) e = write_hint(g, ".index", &ix->index);
    if (!e && ix->index.len) e = write_hint(g, ".timeindex", &ix->times);
    if (!e) e = write_aborted(g);
    fresh->seal = (bw_seal){.length = (uint32_t)g->at, .base_offset = g->base, .next_offset = g->end, .batches = ix->merkle.count,
                            .root = bw_merkle_root(&ix->merkle)};
    return e;
}

static bw_err finish(cleaning *g, compact_new *fresh)
{
    uint8_t bytes[BW_SEAL_BYTES];
    char name[BW_SEGMENT_NAME_MAX + 8];
    bw_indexer ix = {0};
    bw_err e = flush(g);
    BW_KILL_POINT("compact.written");
    if (!e) (void)bw_os_set_mtime(g->fd, g->mtime_ms); /* its age is that of the data; if not, it lives longer */
    if (!e && bw_os_fsync(g->fd) != 0) e = bw_fail_errno(errno, "cannot sync the cleaned segment");
    BW_KILL_POINT("compact.synced");
    if (e) return e;
    bw_indexer_begin(&ix, g->base, g->c->index_interval);
    e = read_back(g, &ix, fresh);
    bw_indexer_free(&ix);
    BW_KILL_POINT("compact.indexed");
    if (e) return e;
    bw_seal_encode(bytes, &fresh->seal);
    cleaned_name(name, g->base, ".seal");
    e = bw_smallfile_write(g->c->dir_fd, name, bytes, sizeof bytes, true);
    BW_KILL_POINT("compact.sealed");
    return e;
}

static bw_err check_room(const compaction *c, uint64_t bytes)
{
    int64_t left = bw_os_free_bytes(c->p->data_fd), reserve = c->disk_reserve_bytes;
    if (left < 0 || left >= reserve + (int64_t)bytes) return BW_OK;
    return bw_fail(BW_ERR_DISK_FULL, "cleaning needs %llu bytes for a moment, %lld are free", (unsigned long long)bytes, (long long)left);
}

/* Spans from `from` on, as long as what is written and the next of them together fit a segment. */
static bw_err clean_group(cleaning *g, size_t from, size_t *n, uint64_t *bytes)
{
    compaction *c = g->c;
    bw_err e = BW_OK;
    for (*n = 0; !e && from + *n < c->cleanable; (*n)++) {
        const compact_span *s = &c->spans[from + *n];
        uint64_t most = g->at + g->held + s->length;
        bool fits = most + BW_BATCH_HEADER_BYTES <= c->segment_bytes && s->next_offset - g->base <= INT32_MAX;
        if (*n > 0 && (!fits || s->base_offset >= c->upto)) break;
        e = check_room(c, most);
        if (!e) e = clean_span(g, s);
        g->end = s->next_offset;
        *bytes += s->length;
    }
    if (e || !g->ends_empty) return e;
    const uint8_t *out;
    size_t len;
    e = bw_batch_filter_empty(&c->filter, &g->last, &out, &len);
    return e ? e : emit(g, out, len);
}

bw_err compaction_clean(compaction *c, size_t from, size_t *n)
{
    char name[BW_SEGMENT_NAME_MAX + 8];
    cleaning g = {.c = c, .base = c->spans[from].base_offset, .fd = -1};
    uint64_t bytes = 0;
    compact_new fresh = {0};
    bw_err e = BW_OK;
    *n = 1;
    g.room = malloc(WRITE_ROOM);
    if (!g.room) return bw_fail(BW_ERR_NO_MEMORY, "no memory for the cleaner");
    cleaned_name(name, g.base, ".log");
    g.fd = bw_os_open_beneath(c->dir_fd, name, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (g.fd < 0) e = bw_fail_errno(errno, "cannot create %s", name);
    BW_KILL_POINT("compact.created");
    if (!e) e = clean_group(&g, from, n, &bytes);
    bool swap = !e && (*n > 1 || g.changed);
    if (swap) e = finish(&g, &fresh);
    if (g.fd >= 0) bw_os_close(g.fd);
    free(g.room);
    bw_aborted_list_free(&g.indexed);
    if (swap && !e) e = compaction_swap(c, from, *n, &fresh);
    if (!swap || e) compaction_unlink_cleaned(c->dir_fd, g.base);
    if (e) return e;
    c->report->bytes_before += bytes;
    c->report->bytes_after += swap ? fresh.seal.length : bytes;
    c->report->segments_before += (uint32_t)*n;
    c->report->segments_after += swap ? 1 : (uint32_t)*n;
    return BW_OK;
}
