/* log/verify_txn.c: transactions of one partition, in step with the walk of its segments: markers are well formed, and the index of aborted
 * transactions says what the log says. A marker without a transaction is nothing unusual, nor is an entry without a marker where
 * the log was compacted. */
#include "log/inspect.h"

#include "base/err.h"

#include <inttypes.h>

enum { MARKER_MOST = 4096 };

static const bw_aborted *entry_at(bw_inspection *in, const bw_walk *w, bw_txn_facts *t)
{
    int64_t offset = w->header.base_offset;
    for (; t->at < t->aborted.count && t->aborted.items[t->at].last < offset; t->at++)
        if (t->aborted.items[t->at].last >= w->gaps_below)
            bw_inspection_report(in, w->at, t->aborted.items[t->at].last, true, "the index of aborted transactions names offset %" PRId64
                                 ", where there is no marker", t->aborted.items[t->at].last);
    return t->at < t->aborted.count && t->aborted.items[t->at].last == offset ? &t->aborted.items[t->at++] : NULL;
}

static void check_marker(bw_inspection *in, const bw_walk *w, bw_txn_facts *t, const bw_marker *m, bool lags)
{
    int64_t first = -1, offset = w->header.base_offset;
    bool open = bw_producers_note_marker(t->producers, m, offset, 0, &first);
    const bw_aborted *a = entry_at(in, w, t);
    if (m->commit) {
        if (a) bw_inspection_report(in, w->at, offset, true, "the index of aborted transactions names one that was committed");
    } else if (!a) {
        if (open)
            bw_inspection_report(in, w->at, offset, !lags, "the transaction of producer %" PRId64 " that was aborted here is not in the index",
                                 m->producer_id);
    } else if (a->producer_id != m->producer_id || (open && a->first > first)) {
        bw_inspection_report(in, w->at, offset, true, "the index has producer %" PRId64 " from offset %" PRId64 " for the transaction of producer %"
                             PRId64 " that was aborted here", a->producer_id, a->first, m->producer_id);
    }
}

void bw_inspect_transaction(bw_inspection *in, bw_walk *w, bw_txn_facts *t, bool lags)
{
    const bw_batch_header *h = &w->header;
    const uint8_t *data;
    bw_marker m;
    if (!t->producers || h->producer_id < 0) return;
    if (!(h->attributes & BW_ATTR_CONTROL)) {
        if (h->attributes & BW_ATTR_TRANSACTIONAL) (void)bw_producers_note(t->producers, h, h->base_offset, -1, 0, 0);
        return;
    }
    bw_err e = w->size > MARKER_MOST ? BW_ERR_NOT_FOUND : bw_walk_batch(w, &data);
    if (!e) e = bw_marker_read(data, h, &m);
    if (!e) check_marker(in, w, t, &m, lags);
    else if (e == BW_ERR_CORRUPT) bw_inspection_report(in, w->at, h->base_offset, true, "%s", bw_error_message());
}

void bw_inspect_txn_end(bw_inspection *in, const bw_walk *w, bw_txn_facts *t)
{
    for (; t->at < t->aborted.count; t->at++)
        if (t->aborted.items[t->at].last >= w->gaps_below)
            bw_inspection_report(in, w->position, t->aborted.items[t->at].last, true, "the index of aborted transactions names offset %" PRId64
                                 ", where there is no marker", t->aborted.items[t->at].last);
}
