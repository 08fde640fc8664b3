/* tests/unit/log/txn_fixture.h: on log_fixture: the daemon's side of transactions, played by the test, and what a committed reader sees.
 * The snapshot is kept beside the point as LMDB would. */
#ifndef TXN_FIXTURE_H
#define TXN_FIXTURE_H

#include "log_fixture.h"

#include "base/killpoint.h"
#include "log/txn.h"
#include "log/txn_index.h"

typedef struct txn_fixture {
    log_fixture f;
    bw_appender *a;
    bw_producers *table; /* the broker's */
    bw_buf snapshot;
} txn_fixture;

/* The broker's turn begins: its table is a copy of the log's. */
static inline void txn_attach(txn_fixture *t)
{
    bw_appender_close(t->a);
    bw_producers_free(t->table);
    t->a = log_appender(&t->f, true);
    assert_int_equal(bw_partition_producers(t->f.p, &t->table), BW_OK);
}

static inline void txn_detach(txn_fixture *t)
{
    bw_appender_close(t->a);
    bw_producers_free(t->table);
    t->a = NULL;
    t->table = NULL;
}

static inline void txn_open(txn_fixture *t, bool fresh)
{
    log_fixture *f = &t->f;
    if (fresh) log_new_arenas(f);
    bw_partition_open_options o = {.data_fd = f->data_fd, .topic = LOG_TOPIC, .partition = 0, .control = f->control, .bus_number = 3,
                                   .fresh_slot = fresh, .point = f->point, .just_created = f->created, .config = f->config,
                                   .snapshot = t->snapshot.data, .snapshot_len = t->snapshot.len};
    f->created = false;
    bw_err e = bw_partition_open(&o, &f->p, &f->report);
    if (e) fail_msg("open: %s: %s", bw_err_name(e), bw_error_message());
    bw_control_publish(f->control, 1);
    txn_attach(t);
}

static inline void txn_init(txn_fixture *t, uint32_t segment_bytes)
{
    memset(t, 0, sizeof *t);
    log_init(&t->f, segment_bytes);
    t->f.point.known = true; /* as the broker stores for a new partition */
    txn_open(t, true);
}

static inline void txn_fini(txn_fixture *t)
{
    txn_detach(t);
    bw_buf_free(&t->snapshot);
    log_fini(&t->f);
}

/* A sync, and what it says stored. */
static inline void txn_store(txn_fixture *t)
{
    bw_buf snapshot = {0};
    assert_int_equal(bw_partition_tend_files(t->f.p), BW_OK);
    assert_int_equal(bw_partition_sync(t->f.p), BW_OK);
    if (!bw_partition_recovery_point(t->f.p, &t->f.point, &snapshot) || !snapshot.data) return;
    bw_buf_free(&t->snapshot);
    t->snapshot = snapshot;
}

/* The daemon dies; what was stored stays. */
static inline void txn_crash(txn_fixture *t)
{
    txn_detach(t);
    log_crash(&t->f);
}

/* A batch of `count` records, whose values are the producer's id and the record's sequence. producer -1: plain. */
static inline const uint8_t *txn_batch(txn_fixture *t, int64_t producer, int16_t epoch, int32_t sequence, int count, bool transactional,
                                       size_t *len)
{
    bw_batch_builder *b = &t->f.builder;
    bw_batch_builder_reset(b);
    for (int i = 0; i < count; i++) {
        char value[400];
        int n = snprintf(value, sizeof value, "%lld:%d:%0300d", (long long)producer, sequence + i, 0);
        bw_record r = {.value = value, .value_len = (size_t)n, .timestamp_ms = t->f.next_ts};
        assert_int_equal(bw_batch_builder_add(b, &r), BW_OK);
    }
    uint8_t *out;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    if (producer >= 0) {
        o.producer_id = producer;
        o.producer_epoch = epoch;
        o.base_sequence = sequence;
        o.transactional = transactional;
    }
    assert_int_equal(bw_batch_builder_finish(b, &o, &out, len), BW_OK);
    t->f.next_ts++;
    return out;
}

/* As the broker appends: its offset. */
static inline int64_t txn_append(txn_fixture *t, int64_t producer, int16_t epoch, int32_t sequence, int count, bool transactional)
{
    size_t len;
    bw_batch_header h;
    bw_append_result r;
    const uint8_t *batch = txn_batch(t, producer, epoch, sequence, count, transactional, &len);
    assert_int_equal(bw_batch_header_decode(batch, len, false, &h), BW_OK);
    if (transactional) assert_int_equal(bw_txn_begin(t->f.p, t->table, producer, bw_clock_mono_ms()), BW_OK);
    bw_err e = BW_ERR_NO_COORDINATOR;
    for (int tries = 0; e == BW_ERR_NO_COORDINATOR && tries < 100; tries++) {
        assert_int_equal(bw_partition_tend(t->f.p, NULL), BW_OK);
        e = bw_append(t->a, batch, len, count, h.max_timestamp, 0, &r);
    }
    if (e) fail_msg("append: %s: %s", bw_err_name(e), bw_error_message());
    if (producer >= 0) assert_int_equal(bw_producers_note(t->table, &h, r.base_offset, -1, r.end, bw_clock_mono_ms()), BW_OK);
    if (transactional) bw_txn_settle(t->f.p, t->table);
    return r.base_offset;
}

static inline int64_t txn_end(txn_fixture *t, int64_t producer, int16_t epoch, bool commit)
{
    bw_marker m = {producer, epoch, commit, 5, t->f.next_ts++};
    bw_append_result r;
    bw_err e = BW_ERR_NO_COORDINATOR;
    for (int tries = 0; e == BW_ERR_NO_COORDINATOR && tries < 100; tries++) {
        assert_int_equal(bw_partition_tend(t->f.p, NULL), BW_OK);
        e = bw_txn_end(t->f.p, t->a, t->table, &m, 1, bw_clock_mono_ms(), 0, &r);
    }
    if (e) fail_msg("marker: %s: %s", bw_err_name(e), bw_error_message());
    return r.base_offset;
}

static inline bw_reader *txn_reader(txn_fixture *t, bool use_pread, bw_reader_limit limit)
{
    bw_reader *r;
    bw_reader_options o = {.control = t->f.control, .dir_fd = bw_partition_dir_fd(t->f.p), .use_pread = use_pread, .limit = limit,
                           .committed = true, .check_crcs = true};
    assert_int_equal(bw_reader_open(&o, &r), BW_OK);
    return r;
}

/* The base offsets of the data batches that the reader gives until it is EMPTY, as text: "0 5 7". */
static inline void txn_seen(bw_reader *r, char out[512])
{
    bw_batch_ref b;
    size_t n = 0;
    bw_err e;
    out[0] = 0;
    while ((e = bw_reader_next(r, &b)) == BW_OK)
        if (!(b.header.attributes & BW_ATTR_CONTROL) && n < 500)
            n += (size_t)snprintf(out + n, 512 - n, n ? " %lld" : "%lld", (long long)b.header.base_offset);
    if (e != BW_ERR_EMPTY) fail_msg("read: %s: %s", bw_err_name(e), bw_error_message());
}

#endif
