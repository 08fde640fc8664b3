/* Producers' snapshots, indexes of aborted transactions, end-of-transaction markers: what is accepted encodes to the same again, and what
 * is said of it agrees with a second look. First byte: which of them. */
#include "fuzz/fuzz.h"

#include "format/control_batch.h"
#include "log/producers.h"
#include "log/txn_index.h"

typedef struct oldest { int64_t transaction; size_t open; } oldest;

static bool look(void *opaque, const bw_producer_info *info)
{
    oldest *o = opaque;
    FUZZ_CHECK(info->transaction < 0 || info->transaction <= info->last_offset);
    if (info->transaction >= 0 && info->transaction < o->transaction) o->transaction = info->transaction;
    o->open += info->transaction >= 0;
    return true;
}

static void fuzz_snapshot(const uint8_t *data, size_t size)
{
    bw_producers *p, *q;
    int64_t offset;
    bw_buf again = {0};
    fuzz_allow(12 * size); /* an entry of 39 bytes is one of the table, with room for five batches and its place in the hash */
    if (bw_producers_decode(data, size, 0, &p, &offset) != BW_OK) return;
    fuzz_pause();
    FUZZ_CHECK(offset >= 0 && bw_producers_count(p) <= size / 39);
    FUZZ_CHECK(bw_producers_encode(p, offset, 0, &again) == BW_OK);
    FUZZ_CHECK(again.len == size && memcmp(again.data, data, size) == 0);
    oldest o = {INT64_MAX, 0}, open = {INT64_MAX, 0};
    bw_producers_each(p, false, 0, look, &o);
    bw_producers_each(p, true, 0, look, &open);
    FUZZ_CHECK(bw_producers_first_unstable(p) == o.transaction && open.open == o.open);
    again.len = 0;
    FUZZ_CHECK((q = bw_producers_copy(p)) != NULL);
    FUZZ_CHECK(bw_producers_encode(q, offset, 0, &again) == BW_OK);
    FUZZ_CHECK(again.len == size && memcmp(again.data, data, size) == 0);
    bw_producers_free(q);
    bw_buf_free(&again);
    fuzz_resume();
    bw_producers_expire(p, INT64_MAX);
    FUZZ_CHECK(bw_producers_count(p) == o.open);
    bw_producers_free(p);
}

static void fuzz_index(const uint8_t *data, size_t size)
{
    bw_aborted a;
    int64_t before = -1;
    for (size_t i = 0; bw_aborted_take(data, size, i, before, &a); i++) {
        uint8_t again[BW_TXN_ENTRY_BYTES];
        FUZZ_CHECK((i + 1) * BW_TXN_ENTRY_BYTES <= size);
        FUZZ_CHECK(a.first >= 0 && a.first < a.last && a.last > before && a.stable <= a.last + 1);
        bw_aborted_put(again, &a);
        FUZZ_CHECK(memcmp(again, data + i * BW_TXN_ENTRY_BYTES, sizeof again) == 0);
        before = a.last;
    }
}

static void fuzz_marker(const uint8_t *data, size_t size)
{
    bw_batch_header h;
    bw_marker m, again;
    uint8_t bytes[BW_MARKER_BYTES];
    if (bw_batch_header_decode(data, size, false, &h) != BW_OK || bw_marker_read(data, &h, &m) != BW_OK) return;
    FUZZ_CHECK(m.producer_id >= 0 && m.producer_epoch >= 0);
    FUZZ_CHECK(bw_marker_write(bytes, &m) == BW_MARKER_BYTES);
    FUZZ_CHECK(bw_batch_header_decode(bytes, sizeof bytes, false, &h) == BW_OK && bw_marker_read(bytes, &h, &again) == BW_OK);
    FUZZ_CHECK(again.producer_id == m.producer_id && again.producer_epoch == m.producer_epoch && again.commit == m.commit &&
               again.coordinator_epoch == m.coordinator_epoch && again.timestamp_ms == m.timestamp_ms);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    if (data[0] % 3 == 0) fuzz_snapshot(data + 1, size - 1);
    else if (data[0] % 3 == 1) fuzz_index(data + 1, size - 1);
    else fuzz_marker(data + 1, size - 1);
    return 0;
}
