/* log/txn.c: the daemon's appends of transactions. The order is in txn.h. Proof: tests/model/txn.pml.
 *
 * An abort is announced (aborting) before its marker can be seen and until its entry is in the index and remembered to be synced: in
 * between no state of producers is stored that would hold the marker for dealt with (partition_producers.c). What a full disk keeps
 * from the index waits in `unindexed`, and first_unstable with it. */
#include "log/copy.h"

#include "base/err.h"
#include "base/killpoint.h"
#include "log/segment.h"

#include <errno.h>
#include <stdlib.h>

int64_t bw_slot_last_stable(const bw_tail_slot *s)
{
    int64_t end = bw_slot_end_offset(s);
    int64_t unstable = atomic_load_explicit(&s->first_unstable, memory_order_acquire);
    return unstable < end ? unstable : end;
}

static int64_t first_unstable(const bw_partition *log, const bw_producers *table)
{
    int64_t first = bw_producers_first_unstable(table);
    for (size_t i = 0; i < log->unindexed.count; i++)
        if (log->unindexed.items[i].first < first) first = log->unindexed.items[i].first;
    return first;
}

bw_err bw_txn_begin(bw_partition *log, bw_producers *table, int64_t producer_id, int64_t now_ms)
{
    if (bw_producers_transaction(table, producer_id) >= 0) return BW_OK;
    bw_err e = bw_producers_reserve(table, producer_id, now_ms);
    if (e) return e;
    bw_tail_slot *s = log->slot;
    int64_t end = bw_slot_end_offset(s);
    if (atomic_load_explicit(&s->first_unstable, memory_order_relaxed) > end)
        atomic_store_explicit(&s->first_unstable, end, memory_order_seq_cst); /* before P1 of the batch */
    BW_KILL_POINT("txn.begun");
    return BW_OK;
}

void bw_txn_settle(bw_partition *log, const bw_producers *table)
{
    bw_tail_slot *s = log->slot;
    int64_t first = first_unstable(log, table), was = atomic_load_explicit(&s->first_unstable, memory_order_relaxed);
    if (first == was) return;
    atomic_store_explicit(&s->first_unstable, first, memory_order_release);
    BW_KILL_POINT("txn.settled");
    if (first < was) return;
    bw_wake(log->control, (uint32_t)log->number, BW_WAIT_TAIL);
    bw_wake(log->control, (uint32_t)log->number, BW_WAIT_STATE);
}

/* ---- the index ---- */

/* The base offset of the segment that `end` lies in: of the ring, or, when that has moved on, of the list. */
static int64_t base_of(bw_partition *log, bw_position end, int64_t offset)
{
    const bw_ring_entry *e = bw_ring_at(log->slot, bw_position_seq(end));
    int64_t base = (int64_t)atomic_load_explicit(&e->base_offset, memory_order_acquire);
    if (atomic_load_explicit(&e->seq, memory_order_acquire) == bw_position_seq(end)) return base;
    bw_partition_lock(log);
    bw_partition_adopt_rolls(log, atomic_load_explicit(&log->slot->tail, memory_order_acquire));
    for (size_t i = 0; i < log->count; i++)
        if (i == 0 || log->segments[i]->base_offset <= offset) base = log->segments[i]->base_offset;
    bw_partition_unlock(log);
    return base;
}

/* true: nothing is left. */
static bool write_index(bw_partition *log)
{
    bw_aborted_list *l = &log->unindexed;
    if (l->count == 0) return true;
    int dir = bw_partition_open_folder(log);
    if (dir < 0) return false;
    bool created;
    bw_err e = bw_txn_index_append(dir, log->unindexed_base, l->items, l->count, &created);
    BW_KILL_POINT("txn.indexed");
    /* Not remembered: to the disk at once. */
    if (!e && !bw_partition_unsynced_index(log, log->unindexed_base, created)) {
        e = bw_txn_index_sync(dir, log->unindexed_base);
        if (!e && bw_os_sync_dir(dir) != 0) e = BW_ERR_IO;
    }
    bw_os_close(dir);
    if (e) return false;
    l->count = 0;
    atomic_fetch_add_explicit(&log->slot->aborts, 1, memory_order_release);
    BW_KILL_POINT("txn.counted");
    atomic_store_explicit(&log->aborting, false, memory_order_release);
    return true;
}

bool bw_txn_tend(bw_partition *log, const bw_producers *table)
{
    if (log->unindexed.count == 0) return true;
    if (!write_index(log)) return false;
    bw_txn_settle(log, table);
    return true;
}

/* ---- the end ---- */

/* Room for the entries of n aborts. Those that still wait must go first: they belong to one segment. */
static bw_err prepare_index(bw_partition *log, size_t n)
{
    static const bw_aborted none;
    if (!write_index(log)) return bw_fail(BW_ERR_DISK_FULL, "%s: the index of aborted transactions cannot be written", log->dir_name);
    bw_err e = BW_OK;
    while (!e && log->unindexed.cap < n) e = bw_aborted_list_add(&log->unindexed, &none);
    log->unindexed.count = 0;
    return e;
}

static bw_err check(bw_partition *log, const bw_producers *table, const bw_marker *markers, size_t n, bool *aborts)
{
    *aborts = false;
    if (n == 0 || n > BW_TXN_MARKERS_MAX) return bw_fail(BW_ERR_INVALID_ARGUMENT, "%zu markers to append", n);
    for (size_t i = 0; i < n; i++) {
        bw_err e = bw_producers_check_marker(table, &markers[i]);
        if (e) return e;
        *aborts |= !markers[i].commit;
    }
    return *aborts ? prepare_index(log, n) : BW_OK;
}

static bw_err append(bw_appender *a, const bw_marker *markers, size_t n, bw_deadline deadline, bw_append_result *out)
{
    uint8_t bytes[BW_TXN_MARKERS_MAX][BW_MARKER_BYTES];
    bw_append_piece pieces[BW_TXN_MARKERS_MAX];
    int64_t newest = INT64_MIN;
    for (size_t i = 0; i < n; i++) {
        size_t len = bw_marker_write(bytes[i], &markers[i]);
        pieces[i] = (bw_append_piece){bytes[i], len, 1};
        if (markers[i].timestamp_ms > newest) newest = markers[i].timestamp_ms;
    }
    return bw_append_many(a, pieces, n, newest, deadline, out);
}

bw_err bw_txn_end(bw_partition *log, bw_appender *a, bw_producers *table, const bw_marker *markers, size_t n, int64_t now_ms,
                  bw_deadline deadline, bw_append_result *out)
{
    bool aborts;
    bw_err e = check(log, table, markers, n, &aborts);
    if (e) return e;
    if (aborts) atomic_store_explicit(&log->aborting, true, memory_order_seq_cst); /* before P1 of the marker */
    e = append(a, markers, n, deadline, out);
    BW_KILL_POINT("txn.marked");
    for (size_t i = 0; !e && i < n; i++) {
        int64_t first, offset = out->base_offset + (int64_t)i;
        if (!bw_producers_note_marker(table, &markers[i], offset, now_ms, &first) || markers[i].commit) continue;
        int64_t stable = bw_producers_first_unstable(table);
        bw_aborted one = {markers[i].producer_id, first, offset, stable < offset + 1 ? stable : offset + 1};
        (void)bw_aborted_list_add(&log->unindexed, &one); /* there is room */
    }
    if (aborts && log->unindexed.count == 0) atomic_store_explicit(&log->aborting, false, memory_order_release);
    if (e) return e;
    if (aborts && log->unindexed.count > 0) {
        log->unindexed_base = base_of(log, out->end, out->base_offset);
        (void)write_index(log);
    }
    bw_txn_settle(log, table);
    return BW_OK;
}

/* ---- a copy of another log ---- */

static void note_copied(bw_partition *log, bw_producers *table, const uint8_t *batch, const bw_batch_header *h, bw_position end, int64_t now_ms)
{
    bw_marker m;
    int64_t first;
    if (h->attributes & BW_ATTR_CONTROL) {
        if (bw_marker_read(batch, h, &m) != BW_OK || !bw_producers_note_marker(table, &m, h->base_offset, now_ms, &first) || m.commit) return;
        int64_t stable = bw_producers_first_unstable(table), after = h->base_offset + 1;
        bw_aborted one = {m.producer_id, first, h->base_offset, stable < after ? stable : after};
        (void)bw_aborted_list_add(&log->unindexed, &one); /* there is room */
    } else if (h->base_sequence >= 0 && h->producer_epoch >= 0) {
        int64_t timestamp = h->attributes & BW_ATTR_LOG_APPEND_TIME ? h->max_timestamp : -1;
        (void)bw_producers_note(table, h, h->base_offset, timestamp, end, now_ms); /* a transaction's has its entry */
    }
}

/* Before anything can be seen: entries for transactions, room for what aborts. *noted: there is something to note. */
static bw_err prepare_copy(bw_partition *log, bw_producers *table, const bw_append_piece *pieces, size_t n, int64_t now_ms, bool *noted,
                           bool *aborts)
{
    size_t marks = 0;
    bw_err e = BW_OK;
    *noted = *aborts = false;
    for (size_t i = 0; !e && i < n; i++) {
        bw_batch_header h;
        bw_marker m;
        if ((e = bw_batch_header_decode(pieces[i].batch, pieces[i].len, false, &h))) break;
        if (h.producer_id < 0 || !table) continue;
        *noted = true;
        if (h.attributes & BW_ATTR_CONTROL) marks += bw_marker_read(pieces[i].batch, &h, &m) == BW_OK && !m.commit;
        else if (h.attributes & BW_ATTR_TRANSACTIONAL) e = bw_txn_begin(log, table, h.producer_id, now_ms);
    }
    if (!e && marks > 0) e = prepare_index(log, marks);
    *aborts = marks > 0;
    return e;
}

bw_err bw_txn_copy(bw_partition *log, bw_appender *a, bw_producers *table, const bw_append_piece *pieces, size_t n,
                   const bw_append_span *span, int64_t now_ms, bw_deadline deadline, bw_append_result *out)
{
    bool noted, aborts;
    bw_err e = prepare_copy(log, table, pieces, n, now_ms, &noted, &aborts);
    if (!e && aborts) atomic_store_explicit(&log->aborting, true, memory_order_seq_cst); /* before P1 of the marker */
    if (!e) e = bw_append_copy(a, pieces, n, span, deadline, out);
    BW_KILL_POINT("copy.appended");
    bw_position end = e ? 0 : out->end;
    for (size_t i = n; !e && i-- > 0;) end -= pieces[i].len;
    for (size_t i = 0; !e && noted && i < n; i++) {
        bw_batch_header h;
        end += pieces[i].len;
        if (bw_batch_header_decode(pieces[i].batch, pieces[i].len, false, &h) || h.producer_id < 0) continue;
        note_copied(log, table, pieces[i].batch, &h, end, now_ms);
    }
    if (aborts && log->unindexed.count == 0) atomic_store_explicit(&log->aborting, false, memory_order_release);
    if (!e && aborts && log->unindexed.count > 0) {
        log->unindexed_base = base_of(log, out->end, span->from);
        (void)write_index(log);
    }
    if (noted) bw_txn_settle(log, table);
    return e;
}
