/* log/verify_segment.c: check every byte of one segment: batches, their records, the indexes and the seal beside it.
 *
 * Indexes are compared in one pass with the walk: an entry must name a batch that begins at its position. They are hints, so that
 * what is odd there is a note; a seal is a promise, so that a broken one is an error. */
#include "log/inspect.h"

#include "base/err.h"
#include "format/codec.h"
#include "format/index.h"

#include <stdarg.h>
#include <stdio.h>

enum { LAST_PAGE = 4096 };

void bw_inspection_report(bw_inspection *in, uint64_t position, int64_t offset, bool is_error, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (is_error) in->totals->errors++;
    else in->totals->notes++;
    bw_finding f = {.path = in->path, .position = position, .offset = offset, .is_error = is_error, .message = text};
    if (in->finding) in->finding(in->opaque, &f);
}

bw_err bw_inspect_records(bw_walk *w, size_t plain_max, bw_buf *plain, bw_inspect_record_fn fn, void *opaque, uint64_t *count)
{
    const bw_batch_header *h = &w->header;
    const uint8_t *data;
    bw_err e = bw_walk_batch(w, &data);
    if (e) return e;
    const uint8_t *records = data + BW_BATCH_HEADER_BYTES;
    size_t len = w->size - BW_BATCH_HEADER_BYTES;
    bw_codec codec = (bw_codec)(h->attributes & BW_ATTR_CODEC_MASK);
    if (codec != BW_CODEC_NONE && len > 0) {
        plain->len = 0;
        e = bw_codec_decompress(codec, records, len, plain_max, plain);
        if (e) return e;
        records = plain->data;
        len = plain->len;
    }
    bw_record_iter it;
    bw_record_view r;
    bw_record_iter_init(&it, h, records, len);
    int64_t before = h->base_offset - 1, last = bw_batch_last_offset(h);
    int more;
    *count = 0;
    while ((more = bw_record_iter_next(&it, &r)) == 1) {
        if (r.offset <= before || r.offset > last)
            return bw_fail(BW_ERR_CORRUPT, "record offset %lld is out of order or outside its batch", (long long)r.offset);
        bw_header_iter headers;
        bw_header header;
        int next;
        bw_header_iter_init(&headers, &r);
        while ((next = bw_header_iter_next(&headers, &header)) == 1) {}
        if (next < 0) return bw_fail(BW_ERR_CORRUPT, "the headers of the record at offset %lld are broken", (long long)r.offset);
        before = r.offset;
        (*count)++;
        if (fn && !fn(opaque, &r)) return BW_OK;
    }
    return more < 0 ? BW_ERR_CORRUPT : BW_OK;
}

/* ---- indexes, in step with the walk ---- */

typedef struct hints {
    const bw_segment_facts *facts;
    int64_t base;
    size_t index_count, index_at, time_count, time_at;
    bool index_odd, time_odd;
} hints;

static bool padding_only(const uint8_t *data, size_t from, size_t len)
{
    while (from < len && data[from] == 0) from++;
    return from >= len;
}

static void hints_init(hints *h, const bw_segment_facts *facts, int64_t base, uint64_t log_bytes)
{
    *h = (hints){.facts = facts, .base = base};
    if (facts->index) {
        h->index_count = bw_index_entries(facts->index, facts->index_len, log_bytes);
        h->index_odd = !padding_only(facts->index, h->index_count * BW_INDEX_ENTRY_BYTES, facts->index_len);
    }
    if (facts->timeindex) {
        h->time_count = bw_timeindex_entries(facts->timeindex, facts->timeindex_len);
        h->time_odd = !padding_only(facts->timeindex, h->time_count * BW_TIMEINDEX_ENTRY_BYTES, facts->timeindex_len);
    }
}

static void hints_batch(hints *h, const bw_walk *w)
{
    int64_t first = w->header.base_offset, last = bw_batch_last_offset(&w->header);
    while (h->index_at < h->index_count) {
        const uint8_t *e = h->facts->index + h->index_at * BW_INDEX_ENTRY_BYTES;
        uint32_t position = bw_get_be32(e + 4);
        int64_t offset = h->base + (int32_t)bw_get_be32(e);
        if (position > w->at) break;
        if (position < w->at || offset < first || offset > last) h->index_odd = true;
        h->index_at++;
    }
    while (h->time_at < h->time_count) {
        const uint8_t *e = h->facts->timeindex + h->time_at * BW_TIMEINDEX_ENTRY_BYTES;
        int64_t offset = h->base + (int32_t)bw_get_be32(e + 8);
        if (offset > last) break;
        if (offset < first || (int64_t)bw_get_be64(e) != w->header.max_timestamp) h->time_odd = true;
        h->time_at++;
    }
}

static void hints_finish(bw_inspection *in, hints *h)
{
    if (h->index_odd || h->index_at < h->index_count)
        bw_inspection_report(in, 0, -1, false, "the offset index does not fit the segment; it is a hint and will be made anew");
    if (h->time_odd || h->time_at < h->time_count)
        bw_inspection_report(in, 0, -1, false, "the time index does not fit the segment; it is a hint and will be made anew");
}

/* ---- the walk ---- */

static void check_epoch(bw_inspection *in, const bw_walk *w, const bw_segment_facts *facts)
{
    size_t i = facts->epoch_count;
    while (i > 0 && facts->epochs[i - 1].start_offset > w->header.base_offset) i--;
    if (i == 0) return;
    if (w->header.leader_epoch != facts->epochs[i - 1].epoch)
        bw_inspection_report(in, w->at, w->header.base_offset, true, "the batch has leader epoch %d, the checkpoint says %d",
                             w->header.leader_epoch, facts->epochs[i - 1].epoch);
}

static bw_err check_batch(bw_inspection *in, bw_walk *w, const bw_segment_facts *facts, bw_buf *plain)
{
    uint64_t count = 0;
    in->totals->batches++;
    check_epoch(in, w, facts);
    bw_err e = bw_inspect_records(w, in->plain_max, plain, NULL, NULL, &count);
    in->totals->records += count;
    if (e == BW_OK && facts->txn) bw_inspect_transaction(in, w, facts->txn, facts->is_last);
    if (e == BW_OK || e == BW_ERR_IO || e == BW_ERR_NO_MEMORY) return e;
    bw_inspection_report(in, w->at, w->header.base_offset, true, "%s", bw_error_message());
    return BW_OK;
}

/* After a bad batch: past it, if its length is believable. */
static bool pass_over(bw_walk *w)
{
    bw_walk probe = *w;
    probe.check_crc = false;
    probe.next_offset = -1;
    probe.leader_epoch = INT32_MIN;
    bool believable = bw_walk_next(&probe) == BW_OK && probe.size > 0;
    w->buf_at = probe.buf_at;
    w->buf_len = probe.buf_len;
    if (!believable) return false;
    bool same = w->next_offset < 0 || probe.header.base_offset == w->next_offset;
    w->position = probe.position;
    w->next_offset = same ? probe.next_offset : -1;
    return true;
}

/* Does nothing but room allocated ahead follow? From w's position on when that is behind the bad batch (known); else the last page
 * of the file decides. */
static bool only_room_follows(bw_walk *w, bool known)
{
    bool zero = false;
    uint64_t at, from = known ? w->position : w->end > LAST_PAGE ? w->end - LAST_PAGE : 0;
    return from < w->end && from >= w->position && bw_walk_zero_from(w, from, &zero, &at) == BW_OK && zero;
}

/* The walk stopped with CORRUPT. true: it goes on behind the bad batch. */
static bool bad_batch(bw_inspection *in, bw_walk *w, const bw_segment_facts *facts)
{
    char why[400];
    uint64_t at = w->position;
    int64_t offset = w->next_offset;
    snprintf(why, sizeof why, "%s", bw_error_message());
    bool more = pass_over(w);
    if (offset >= 0 && offset == facts->next_base) {
        bw_inspection_report(in, at, offset, false, "what the file held before it was used again follows the last batch");
        w->position = w->end;
        return false;
    }
    bool unclean = facts->is_last && !facts->seal && only_room_follows(w, more);
    if (unclean) {
        bw_inspection_report(in, at, offset, false, "the log ends uncleanly here and will be cut at the next start: %s", why);
        w->position = w->end;
        return false;
    }
    bw_inspection_report(in, at, offset, true, "%s", why);
    return more;
}

static bw_err check_end(bw_inspection *in, bw_walk *w, const bw_segment_facts *facts)
{
    bool zero;
    uint64_t at;
    bw_err e = bw_walk_zero_from(w, w->position, &zero, &at);
    if (e || zero) return e;
    bool joins = facts->next_base >= 0 && w->next_offset == facts->next_base;
    bool is_error = !joins && (!facts->is_last || facts->seal != NULL);
    bw_inspection_report(in, at, w->next_offset, is_error,
                         "stray bytes behind the last batch, which ends at byte %llu", (unsigned long long)w->position);
    return BW_OK;
}

static void check_seal(bw_inspection *in, const bw_walk *w, const bw_seal *seal, const bw_merkle *m)
{
    if (w->position != seal->length)
        bw_inspection_report(in, w->position, w->next_offset, true, "the batches end at byte %llu, the seal says %u",
                             (unsigned long long)w->position, seal->length);
    else if (w->next_offset != seal->next_offset || m->count != seal->batches)
        bw_inspection_report(in, w->position, w->next_offset, true, "%llu batches up to offset %lld, the seal says %llu up to %lld",
                             (unsigned long long)m->count, (long long)w->next_offset, (unsigned long long)seal->batches,
                             (long long)seal->next_offset);
    else if (bw_merkle_root(m) != seal->root)
        bw_inspection_report(in, 0, -1, true, "the batch headers do not give the seal's root: a header was changed");
}

bw_err bw_inspect_segment(bw_inspection *in, bw_walk *w, const bw_segment_facts *facts, int64_t *next_offset)
{
    bw_merkle merkle = {0};
    bw_buf plain = {0};
    hints h;
    bool good = true;
    uint64_t counted = w->position;
    hints_init(&h, facts, w->next_offset, w->end);
    in->totals->segments++;
    bw_err e;
    for (;;) {
        e = bw_walk_next(w);
        if (e == BW_OK) {
            bw_merkle_add(&merkle, w->first);
            hints_batch(&h, w);
            e = check_batch(in, w, facts, &plain);
        } else if (e == BW_ERR_CORRUPT) {
            e = BW_OK;
            good = false;
            if (!bad_batch(in, w, facts)) break;
        }
        if (e) break;
        in->totals->bytes += w->position - counted;
        in->done_bytes += w->position - counted;
        counted = w->position;
        if (in->progress) in->progress(in->opaque, in->done_bytes, in->total_bytes);
    }
    if (e == BW_ERR_EMPTY) e = check_end(in, w, facts);
    if (!e && good) {
        hints_finish(in, &h);
        if (facts->seal) check_seal(in, w, facts->seal, &merkle);
        if (facts->txn) bw_inspect_txn_end(in, w, facts->txn);
    }
    if (w->end > counted) in->done_bytes += w->end - counted;
    *next_offset = good ? w->next_offset : -1;
    bw_buf_free(&plain);
    return e;
}
