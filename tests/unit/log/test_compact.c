/* Compaction: the last value of each key stays, whatever the shape of the log, and nobody who reads is harmed. */
#include "compact_fixture.h"

#include "log/segment.h"
#include "log/txn_index.h"

static void test_compact_keeps_the_last_value_of_each_key(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = PLAIN_SHAPE;
    write_round(&f, o, &s, 500, 50);
    fill_active(&f, o);
    bw_compact_report r = compact(&f, NULL);
    assert_true(r.segments_before > 8);
    assert_int_equal(r.segments_after, 1);
    assert_int_equal(r.keys, 51);
    assert_true(r.bytes_after < r.bytes_before / 8);
    assert_int_equal(r.records_before, r.upto);
    assert_int_equal(r.records_after, 51);
    check_last_values(&f, o, r.upto);
    check_verify(&f);
    bw_partition_info i;
    bw_partition_info_get(f.p, &i);
    assert_int_equal(i.segments, 2);
    assert_int_equal(log_count_files(&f, ".log", NULL), 2);
    char path[256];
    bw_verify_totals t;
    log_path(&f, path, "00000000000000000000.log");
    assert_int_equal(bw_verify(path, NULL, NULL, NULL, &t), BW_OK);
    end(&f, o);
}

static void test_compact_is_due_by_its_dirty_ratio_and_lags(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = PLAIN_SHAPE;
    write_round(&f, o, &s, 400, 1000);
    fill_active(&f, o);
    bw_compact_options c = options();
    bw_compact_report r;
    c.force = false;
    c.min_lag_ms = 3600000;
    assert_int_equal(bw_partition_compact(f.p, &c, &r), BW_ERR_EMPTY); /* all of it is young */
    assert_false(r.due);
    c.min_lag_ms = 0;
    r = compact(&f, &c);
    assert_true(r.due);
    assert_true(r.dirty_ratio > 0.99);
    int64_t upto = r.upto;
    assert_int_equal(bw_partition_compact(f.p, &c, &r), BW_ERR_EMPTY);
    assert_true(r.dirty_ratio < 0.01);
    assert_int_equal(r.first_dirty, upto);
    write_round(&f, o, &s, 60, 1000);
    fill_active(&f, o);
    assert_int_equal(bw_partition_compact(f.p, &c, &r), BW_ERR_EMPTY); /* a fifth is dirty */
    assert_true(r.dirty_ratio > 0.05 && r.dirty_ratio < 0.5);
    c.max_lag_ms = 50000; /* it was written 100 s ago */
    r = compact(&f, &c);
    assert_true(r.upto > upto);
    check_last_values(&f, o, r.upto);
    end(&f, o);
}

static void test_compact_tombstones_go_after_their_horizon(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = PLAIN_SHAPE;
    write_round(&f, o, &s, 100, 40);
    static const int keys[] = {1, 2, 3, 4};
    static const bool dead[] = {true, false, true, false};
    write_batch(&f, o, &s, keys, dead);
    fill_active(&f, o);
    bw_compact_options c = options();
    c.delete_retention_ms = 5000;
    bw_compact_report r = compact(&f, &c);
    seen *x = read_log(&f, false, 0);
    assert_true(x->offset[1] == o->offset[1] && x->dead[1]); /* whoever reads from the start learns that it is gone */
    assert_true(x->dead[3] && !x->dead[2]);
    assert_int_equal(x->horizons, 1);
    free(x);
    check_last_values(&f, o, r.upto);
    c.force = false;
    c.now_ms += 4000;
    assert_int_equal(bw_partition_compact(f.p, &c, &r), BW_ERR_EMPTY);
    c.now_ms += 2000;
    r = compact(&f, &c); /* due by the horizon alone */
    x = read_log(&f, false, 0);
    assert_true(x->offset[1] < 0 && x->offset[3] < 0);
    assert_int_equal(x->offset[2], o->offset[2]);
    free(x);
    check_last_values(&f, o, r.upto);
    assert_int_equal(bw_partition_compact(f.p, &c, &r), BW_ERR_EMPTY);
    check_verify(&f);
    end(&f, o);
}

static void test_compact_a_jump_of_the_clock_takes_no_tombstone(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = {1, 300, BW_CODEC_NONE, -1, 0, true};
    write_round(&f, o, &s, 100, 40);
    int key = 7;
    bool dead = true;
    write_batch(&f, o, &s, &key, &dead);
    fill_active(&f, o);
    bw_compact_options c = options();
    (void)compact(&f, &c);
    c.now_ms += 10LL * 365 * 86400 * 1000;
    (void)compact(&f, &c);
    seen *x = read_log(&f, false, 0);
    assert_int_equal(x->offset[7], o->offset[7]);
    free(x);
    end(&f, o);
}

static void test_compact_batches_keep_their_codec_and_their_times(void **state)
{
    (void)state;
    static const bw_codec codecs[] = {BW_CODEC_GZIP, BW_CODEC_SNAPPY, BW_CODEC_LZ4, BW_CODEC_ZSTD};
    for (int i = 0; i < 4; i++) {
        log_fixture f;
        oracle *o = begin(&f, 64 << 10);
        shape s = {16, 2000, codecs[i], -1, 0, true};
        int64_t first = f.next_ts;
        write_round(&f, o, &s, 300, 50); /* 50 is no multiple of 16: batches are kept in part */
        static const int keys[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        static const bool dead[16] = {[3] = true};
        write_batch(&f, o, &s, keys, dead);
        int64_t last = f.next_ts;
        fill_active(&f, o);
        bw_compact_report r = compact(&f, NULL);
        assert_true(r.records_after <= 51 && r.records_after < r.records_before / 20);
        check_last_values(&f, o, r.upto);
        check_verify(&f);
        int64_t offset, found;
        assert_int_equal(bw_partition_offset_for_time(f.p, first, &offset, &found), BW_OK);
        assert_true(found > first && found < last);
        assert_int_equal(found, first + offset / 16); /* batches went up by one each */
        bw_reader *reader;
        bw_batch_ref b;
        bw_reader_options ro = {.control = f.control, .dir_fd = bw_partition_dir_fd(f.p), .check_crcs = true};
        assert_int_equal(bw_reader_open(&ro, &reader), BW_OK);
        bw_reader_seek(reader, 0);
        int packed = 0;
        while (bw_reader_next(reader, &b) == BW_OK && b.header.base_offset < r.upto)
            if (b.header.record_count && (b.header.attributes & BW_ATTR_CODEC_MASK) == (int16_t)codecs[i]) packed++;
        assert_true(packed >= 4);
        bw_reader_close(reader);
        end(&f, o);
    }
}

static void test_compact_map_that_is_full_ends_the_pass_not_the_work(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 256 << 10);
    shape s = {4, 100, BW_CODEC_NONE, -1, 0, true};
    write_round(&f, o, &s, 3000, 4000);
    fill_active(&f, o);
    bw_compact_options c = options();
    c.dedupe_bytes = BW_OFFSET_MAP_LEAST_BYTES; /* 2,387 keys */
    bw_compact_report r = compact(&f, &c);
    assert_true(r.map_full);
    assert_true(r.upto > 0 && r.upto < 4000 && r.keys < 4000);
    check_last_values(&f, o, 0);
    int passes = 1;
    for (; r.map_full && passes < 20; passes++) r = compact(&f, &c);
    assert_true(passes > 3 && passes < 20);
    check_last_values(&f, o, r.upto);
    check_verify(&f);
    c.dedupe_bytes = 16 << 20;
    end(&f, o);
}

static void test_compact_reader_goes_on_across_a_swap(void **state)
{
    (void)state;
    for (int mode = 0; mode < 8; mode++) {
        log_fixture f;
        oracle *o = begin(&f, 64 << 10);
        shape s = PLAIN_SHAPE;
        write_round(&f, o, &s, 500, 50);
        fill_active(&f, o);
        bw_reader *r;
        bw_reader_options ro = {.control = f.control, .dir_fd = bw_partition_dir_fd(f.p), .check_crcs = true, .use_pread = mode & 1};
        assert_int_equal(bw_reader_open(&ro, &r), BW_OK);
        bw_reader_seek(r, 0);
        seen *x = calloc(1, sizeof *x);
        x->last = -1;
        for (int i = 0; i < KEYS_MAX; i++) x->offset[i] = -1;
        bw_batch_ref b;
        int stop = mode < 2 ? 3 : mode < 4 ? 170 : mode < 6 ? 480 : 0;
        for (int i = 0; i < stop; i++) {
            assert_int_equal(bw_reader_next(r, &b), BW_OK);
            read_batch(x, &b);
        }
        bw_compact_report done = compact(&f, NULL);
        bw_err e;
        int more = 0;
        while ((e = bw_reader_next(r, &b)) == BW_OK) {
            read_batch(x, &b);
            if (++more == 2) { /* and again, while it is in between */
                write_round(&f, o, &s, 300, 50);
                fill_active(&f, o);
                done = compact(&f, NULL);
            }
        }
        if (e != BW_ERR_EMPTY) fail_msg("mode %d: %s: %s", mode, bw_err_name(e), bw_error_message());
        assert_true(more > 2);
        for (int i = 0; i < KEYS_MAX; i++) assert_int_equal(x->offset[i], o->offset[i]);
        free(x);
        bw_reader_close(r);
        check_last_values(&f, o, done.upto);
        end(&f, o);
    }
}

static void test_compact_offset_that_went_leads_to_the_next(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = PLAIN_SHAPE;
    write_round(&f, o, &s, 500, 50);
    fill_active(&f, o);
    bw_compact_report done = compact(&f, NULL);
    bw_reader *r;
    bw_batch_ref b;
    bw_reader_options ro = {.control = f.control, .dir_fd = bw_partition_dir_fd(f.p), .check_crcs = true};
    assert_int_equal(bw_reader_open(&ro, &r), BW_OK);
    for (int64_t at = 0; at < done.upto; at += 37) {
        bw_reader_seek(r, at);
        assert_int_equal(bw_reader_next(r, &b), BW_OK);
        assert_true(bw_batch_last_offset(&b.header) >= at);
        assert_true(at >= 1948 || b.header.base_offset > at);
    }
    bw_reader_close(r);
    end(&f, o);
}

static void test_compact_log_opens_again(void **state)
{
    (void)state;
    for (int fresh = 0; fresh < 3; fresh++) {
        log_fixture f;
        oracle *o = begin(&f, 64 << 10);
        shape s = PLAIN_SHAPE;
        write_round(&f, o, &s, 300, 50);
        fill_active(&f, o);
        bw_partition_recovery_point(f.p, &f.point, NULL); /* of a segment that will be merged, and not kept again */
        write_round(&f, o, &s, 300, 50);
        fill_active(&f, o);
        bw_compact_report r = compact(&f, NULL);
        if (fresh == 2) log_close(&f, true);
        else log_crash(&f);
        log_open(&f, fresh > 0);
        if (fresh == 1) assert_false(f.report.cut || f.report.foreign || f.report.quarantined);
        check_last_values(&f, o, r.upto);
        check_verify(&f);
        write_round(&f, o, &s, 100, 50);
        fill_active(&f, o);
        bw_compact_report again = compact(&f, NULL);
        assert_int_equal(again.first_dirty, r.upto); /* the checkpoint was kept */
        check_last_values(&f, o, again.upto);
        check_verify(&f);
        end(&f, o);
    }
}

static void test_compact_without_a_point_or_checkpoint_reads_it_all(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = PLAIN_SHAPE;
    write_round(&f, o, &s, 300, 50);
    fill_active(&f, o);
    (void)compact(&f, NULL);
    log_crash(&f);
    memset(&f.point, 0, sizeof f.point);
    assert_int_equal(unlinkat(f.data_fd, LOG_TOPIC "-0/" BW_CLEANER_CHECKPOINT_FILE, 0), 0);
    log_open(&f, true);
    assert_int_equal(f.report.quarantined, 0);
    check_last_values(&f, o, 0);
    bw_compact_report r = compact(&f, NULL);
    assert_int_equal(r.first_dirty, 0);
    check_last_values(&f, o, r.upto);
    end(&f, o);
}

static void test_compact_respects_transactions(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = PLAIN_SHAPE, good = {4, 300, BW_CODEC_NONE, 11, BW_ATTR_TRANSACTIONAL, true}, bad = {4, 300, BW_CODEC_NONE, 12,
                                                                                                     BW_ATTR_TRANSACTIONAL, false};
    write_round(&f, o, &s, 20, 40);
    for (int i = 0; i < 30; i++) { /* interleaved; the aborted values are newer */
        write_round(&f, o, &good, 2, 8);
        write_round(&f, o, &bad, 3, 40);
        write_marker(&f, o, 11, true);
        write_round(&f, o, &bad, 1, 40);
        write_marker(&f, o, 12, false);
    }
    fill_active(&f, o);
    bw_compact_options c = options();
    c.delete_retention_ms = 1000;
    c.producer_expiration_ms = 1; /* their sequences need not be known */
    bw_compact_report r = compact(&f, &c);
    check_last_values(&f, o, r.upto);
    seen *x = read_log(&f, false, 0);
    assert_true(x->control > 30); /* of aborted ones all: their batches were there until now */
    free(x);
    c.now_ms += 2000;
    r = compact(&f, &c); /* now no batch of the aborted is left: horizons */
    x = read_log(&f, false, 0);
    assert_true(x->control > 30);
    free(x);
    c.now_ms += 2000;
    r = compact(&f, &c);
    x = read_log(&f, false, 0);
    assert_int_equal(x->control, 1); /* of the last committed one, whose records are alive */
    free(x);
    check_last_values(&f, o, r.upto);
    check_verify(&f);
    /* An open one: nothing from its first offset on is cleaned. */
    int64_t from = o->next;
    f.control->slots[0].first_unstable = from;
    write_round(&f, o, &bad, 30, 40);
    fill_active(&f, o);
    r = compact(&f, &c);
    assert_true(r.upto <= from);
    f.control->slots[0].first_unstable = INT64_MAX;
    end(&f, o);
}

/* As the broker writes the index entry of an abort. */
static void index_aborted(log_fixture *f, int64_t producer_id, int64_t first, int64_t marker)
{
    bw_partition_info info;
    bool created;
    bw_partition_info_get(f->p, &info);
    const bw_segment *s = NULL;
    for (size_t i = 0; i < f->p->count; i++)
        if (f->p->segments[i]->base_offset <= marker) s = f->p->segments[i];
    bw_aborted a = {producer_id, first, marker, marker + 1};
    assert_int_equal(bw_txn_index_append(bw_partition_dir_fd(f->p), s->base_offset, &a, 1, &created), BW_OK);
    atomic_fetch_add(&f->control->slots[0].aborts, 1);
}

/* Committed readers, at different places when segments and their indexes are merged under them, see no aborted record. */
static void test_compact_committed_readers_see_no_aborted_record(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = PLAIN_SHAPE, bad = {4, 300, BW_CODEC_NONE, 12, BW_ATTR_TRANSACTIONAL, false};
    for (int i = 0; i < 60; i++) {
        write_round(&f, o, &s, 6, 40);
        int64_t first = o->next;
        write_round(&f, o, &bad, 2, 40);
        write_marker(&f, o, 12, false);
        assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
        index_aborted(&f, 12, first, o->next - 1);
    }
    fill_active(&f, o);
    enum { READERS = 24 };
    bw_reader *readers[READERS];
    seen *x[READERS];
    bw_batch_ref b;
    bw_reader_options ro = {.control = f.control, .dir_fd = bw_partition_dir_fd(f.p), .check_crcs = true, .committed = true};
    for (int i = 0; i < READERS; i++) {
        x[i] = calloc(1, sizeof *x[i]);
        x[i]->last = -1;
        for (int k = 0; k < KEYS_MAX; k++) x[i]->offset[k] = -1;
        ro.use_pread = i % 2;
        assert_int_equal(bw_reader_open(&ro, &readers[i]), BW_OK);
        bool late = i % 3; /* in front of plain batches: it has not looked at any index yet */
        bw_reader_seek(readers[i], late ? 33 * 2 * i : 0);
        for (int k = 0; k < (late ? 1 : i * 17); k++) {
            assert_int_equal(bw_reader_next(readers[i], &b), BW_OK);
            assert_true(b.header.producer_id < 0 || (b.header.attributes & BW_ATTR_CONTROL));
            read_batch(x[i], &b);
        }
    }
    assert_true(log_count_files(&f, ".txnindex", NULL) > 4);
    f.config.segment_bytes = 1 << 20; /* so that all become one */
    assert_int_equal(bw_partition_set_config(f.p, &f.config), BW_OK);
    (void)compact(&f, NULL);
    assert_true(log_count_files(&f, ".txnindex", NULL) <= 3);
    int64_t first = o->next; /* one more: everybody looks at the indexes again */
    write_round(&f, o, &bad, 1, 40);
    write_marker(&f, o, 12, false);
    assert_int_equal(bw_partition_tend(f.p, NULL), BW_OK);
    index_aborted(&f, 12, first, o->next - 1);
    for (int i = 0; i < READERS; i++) {
        bw_err e;
        while ((e = bw_reader_next(readers[i], &b)) == BW_OK) {
            if (b.header.producer_id >= 0 && !(b.header.attributes & BW_ATTR_CONTROL)) assert_int_equal(b.header.record_count, 0);
            read_batch(x[i], &b);
        }
        if (e != BW_ERR_EMPTY) fail_msg("reader %d: %s: %s", i, bw_err_name(e), bw_error_message());
        for (int k = 0; k < 40; k++) assert_int_equal(x[i]->offset[k], o->offset[k]);
        bw_reader_close(readers[i]);
        free(x[i]);
    }
    end(&f, o);
}

static void test_compact_keeps_an_active_producers_last_batch(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape one = {4, 300, BW_CODEC_NONE, 5, 0, true}, plain = PLAIN_SHAPE;
    write_round(&f, o, &one, 20, 50);
    int64_t last = o->next - 1;
    write_round(&f, o, &plain, 200, 50);
    fill_active(&f, o);
    bw_compact_options c = options();
    (void)compact(&f, &c);
    bw_reader *r;
    bw_batch_ref b;
    bw_reader_options ro = {.control = f.control, .dir_fd = bw_partition_dir_fd(f.p), .check_crcs = true};
    assert_int_equal(bw_reader_open(&ro, &r), BW_OK);
    bw_reader_seek(r, 0);
    assert_int_equal(bw_reader_next(r, &b), BW_OK);
    assert_int_equal(b.header.producer_id, 5);
    assert_int_equal(bw_batch_last_offset(&b.header), last);
    assert_int_equal(b.header.record_count, 0);
    assert_int_equal(b.size, BW_BATCH_HEADER_BYTES);
    c.producer_expiration_ms = 10; /* now it is not */
    write_round(&f, o, &plain, 100, 50);
    fill_active(&f, o);
    (void)compact(&f, &c);
    bw_reader_seek(r, 0);
    assert_int_equal(bw_reader_next(r, &b), BW_OK);
    assert_int_equal(b.header.producer_id, -1);
    bw_reader_close(r);
    end(&f, o);
}

static void test_compact_records_without_a_key_stay(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = PLAIN_SHAPE;
    static const int keys[] = {1, -1, 2, -1};
    for (int i = 0; i < 100; i++) write_batch(&f, o, &s, keys, NULL);
    fill_active(&f, o);
    bw_compact_report r = compact(&f, NULL);
    seen *x = read_log(&f, false, 0);
    assert_int_equal(x->keyless, 200);
    free(x);
    check_last_values(&f, o, r.upto);
    end(&f, o);
}

typedef struct meddler {
    log_fixture *f;
    int calls, at;
    int64_t delete_before; /* -1: stop the pass */
} meddler;

static bool meddle(void *opaque, uint64_t bytes)
{
    meddler *m = opaque;
    (void)bytes;
    if (++m->calls != m->at) return true;
    if (m->delete_before < 0) return false;
    int64_t start;
    assert_int_equal(bw_partition_delete_records(m->f->p, m->delete_before, &start), BW_OK);
    return true;
}

static void test_compact_stops_when_told_and_when_segments_go(void **state)
{
    (void)state;
    int outcomes[2] = {0};
    for (int at = 1; at < 24; at++) {
        log_fixture f;
        oracle *o = begin(&f, 64 << 10);
        shape s = PLAIN_SHAPE;
        write_round(&f, o, &s, 300, 50);
        fill_active(&f, o);
        bw_compact_options c = options();
        meddler m = {&f, 0, at, at % 2 ? -1 : 700};
        bw_compact_report r;
        c.go_on = meddle;
        c.opaque = &m;
        bw_err e = bw_partition_compact(f.p, &c, &r);
        if (m.calls < at) assert_int_equal(e, BW_OK);
        else if (at % 2) assert_int_equal(e, BW_ERR_WOKEN);
        else assert_true(e == BW_ERR_BUSY || e == BW_OK); /* OK: where the deleted ones were done with */
        outcomes[at % 2] += e != BW_OK;
        assert_int_equal(log_count_files(&f, ".cleaned", NULL) + log_count_files(&f, ".swap", NULL), 0);
        seen *x = read_log(&f, false, at % 2 ? 0 : f.control->slots[0].log_start);
        for (int i = 0; i < 50; i++) assert_int_equal(x->offset[i], o->offset[i]);
        free(x);
        c.go_on = NULL;
        r = compact(&f, &c);
        check_verify(&f);
        end(&f, o);
    }
    assert_true(outcomes[0] > 5 && outcomes[1] > 5);
}

static void test_compact_with_retention_deletes_what_is_old(void **state)
{
    (void)state;
    log_fixture f;
    oracle *o = begin(&f, 64 << 10);
    shape s = PLAIN_SHAPE;
    f.next_ts = bw_clock_wall_ms() - 7200000; /* two hours old */
    write_round(&f, o, &s, 300, 50);
    fill_active(&f, o);
    bw_compact_report r = compact(&f, NULL);
    f.next_ts = bw_clock_wall_ms();
    write_round(&f, o, &s, 60, 30);
    fill_active(&f, o);
    f.config.retention_ms = 3600000;
    assert_int_equal(bw_partition_set_config(f.p, &f.config), BW_OK);
    static const int64_t jumps[] = {-10LL * 365 * 86400 * 1000, 0, 10LL * 365 * 86400 * 1000};
    uint32_t deleted;
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms() + jumps[0], &deleted), BW_OK);
    assert_int_equal(deleted, 0);
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms(), &deleted), BW_OK);
    assert_true(deleted > 0); /* the cleaned ones: their age is that of their records, not of their files */
    assert_int_equal(f.control->slots[0].log_start, r.upto);
    assert_int_equal(bw_partition_retain(f.p, bw_clock_wall_ms() + jumps[2], &deleted), BW_OK);
    assert_int_equal(deleted, 0); /* a jump purges nothing */
    seen *x = read_log(&f, false, r.upto);
    for (int i = 0; i < 30; i++) assert_int_equal(x->offset[i], o->offset[i]);
    free(x);
    end(&f, o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compact_keeps_the_last_value_of_each_key),
        cmocka_unit_test(test_compact_is_due_by_its_dirty_ratio_and_lags),
        cmocka_unit_test(test_compact_tombstones_go_after_their_horizon),
        cmocka_unit_test(test_compact_a_jump_of_the_clock_takes_no_tombstone),
        cmocka_unit_test(test_compact_batches_keep_their_codec_and_their_times),
        cmocka_unit_test(test_compact_map_that_is_full_ends_the_pass_not_the_work),
        cmocka_unit_test(test_compact_reader_goes_on_across_a_swap),
        cmocka_unit_test(test_compact_offset_that_went_leads_to_the_next),
        cmocka_unit_test(test_compact_log_opens_again),
        cmocka_unit_test(test_compact_without_a_point_or_checkpoint_reads_it_all),
        cmocka_unit_test(test_compact_respects_transactions),
        cmocka_unit_test(test_compact_committed_readers_see_no_aborted_record),
        cmocka_unit_test(test_compact_keeps_an_active_producers_last_batch),
        cmocka_unit_test(test_compact_records_without_a_key_stay),
        cmocka_unit_test(test_compact_stops_when_told_and_when_segments_go),
        cmocka_unit_test(test_compact_with_retention_deletes_what_is_old),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
