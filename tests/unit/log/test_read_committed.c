/* Committed readers: they stop in front of what is undecided, are not given what was aborted, and are woken when that changes; by maps
 * and by pread, batch by batch and in runs. */
#include "txn_fixture.h"

#include "log/wait.h"

static bw_tail_slot *slot_of(txn_fixture *t) { return &t->f.control->slots[0]; }

static void expect_seen(txn_fixture *t, int64_t from, const char *wanted)
{
    for (int use_pread = 0; use_pread < 2; use_pread++) {
        char seen[512];
        bw_reader *r = txn_reader(t, use_pread, BW_LIMIT_VISIBLE);
        bw_reader_seek(r, from);
        txn_seen(r, seen);
        assert_string_equal(seen, wanted);
        bw_reader_close(r);
    }
}

/* The same by runs: bases of all data batches in them. */
static void expect_runs(txn_fixture *t, size_t max_bytes, const char *wanted)
{
    char seen[512] = "";
    size_t n = 0;
    bw_reader *r = txn_reader(t, true, BW_LIMIT_VISIBLE);
    bw_run run;
    while (bw_reader_run(r, max_bytes, &run) == BW_OK) {
        size_t at = 0;
        for (uint32_t i = 0; i < run.batches; i++) {
            bw_batch_header h;
            assert_int_equal(bw_batch_header_decode(run.data + at, run.len - at, false, &h), BW_OK);
            if (!(h.attributes & BW_ATTR_CONTROL)) n += (size_t)snprintf(seen + n, sizeof seen - n, n ? " %lld" : "%lld", (long long)h.base_offset);
            at += bw_batch_size(&h);
        }
        assert_int_equal(at, run.len);
    }
    assert_string_equal(seen, wanted);
    bw_reader_close(r);
}

static void test_committed_reader_stops_at_an_open_transaction_and_goes_on_after_it(void **state)
{
    (void)state;
    txn_fixture t;
    txn_init(&t, 64 << 10);
    txn_append(&t, -1, 0, 0, 2, false);   /* 0, 1 */
    txn_append(&t, 7, 0, 0, 3, true);     /* 2 to 4 */
    txn_append(&t, -1, 0, 0, 1, false);   /* 5 */
    assert_int_equal(slot_of(&t)->first_unstable, 2);
    assert_int_equal(bw_slot_last_stable(slot_of(&t)), 2);
    expect_seen(&t, 0, "0");
    char seen[512];
    bw_reader *r = txn_reader(&t, false, BW_LIMIT_VISIBLE);
    txn_seen(r, seen);
    assert_false(bw_reader_ready(r));
    txn_append(&t, 7, 0, 3, 2, true);     /* 6, 7 */
    assert_false(bw_reader_ready(r));
    assert_int_equal(txn_end(&t, 7, 0, true), 8);
    assert_int_equal(slot_of(&t)->first_unstable, INT64_MAX);
    assert_true(bw_reader_ready(r));
    txn_seen(r, seen);
    assert_string_equal(seen, "2 5 6");
    assert_int_equal(bw_reader_position(r), 9);
    assert_false(bw_reader_ready(r));
    bw_reader_close(r);
    expect_seen(&t, 0, "0 2 5 6");
    expect_runs(&t, 1 << 20, "0 2 5 6");
    expect_runs(&t, 1, "0 2 5 6");
    txn_fini(&t);
}

static void test_committed_reader_is_not_given_what_was_aborted(void **state)
{
    (void)state;
    txn_fixture t;
    txn_init(&t, 64 << 10);
    txn_append(&t, 7, 0, 0, 1, true);    /* 0 aborted */
    txn_append(&t, 8, 0, 0, 1, true);    /* 1 committed */
    txn_append(&t, -1, 0, 0, 1, false);  /* 2 */
    txn_append(&t, 7, 0, 1, 1, true);    /* 3 aborted */
    assert_int_equal(txn_end(&t, 7, 0, false), 4);
    assert_int_equal(slot_of(&t)->first_unstable, 1);
    expect_seen(&t, 0, "");
    txn_append(&t, 7, 0, 2, 1, true);    /* 5 committed: of the same producer, and its next transaction */
    assert_int_equal(txn_end(&t, 8, 0, true), 6);
    assert_int_equal(slot_of(&t)->first_unstable, 5);
    expect_seen(&t, 0, "1 2");
    assert_int_equal(txn_end(&t, 7, 0, true), 7);
    expect_seen(&t, 0, "1 2 5");
    expect_seen(&t, 3, "5");
    expect_runs(&t, 1 << 20, "1 2 5");
    uint64_t aborts = slot_of(&t)->aborts;
    txn_append(&t, 9, 0, 0, 1, true);    /* 8 */
    txn_end(&t, 9, 0, false);
    assert_int_equal(slot_of(&t)->aborts, aborts + 1);
    expect_seen(&t, 0, "1 2 5");
    bw_aborted_list l = {0};
    uint64_t end;
    assert_int_equal(bw_txn_index_read(bw_partition_dir_fd(t.f.p), 0, 0, -1, &l, &end), BW_OK);
    assert_int_equal(l.count, 2);
    assert_int_equal(l.items[0].producer_id, 7);
    assert_int_equal(l.items[0].first, 0);
    assert_int_equal(l.items[0].last, 4);
    assert_int_equal(l.items[0].stable, 1);
    assert_int_equal(l.items[1].stable, 10);
    bw_aborted_list_free(&l);
    txn_fini(&t);
}

/* One reader follows, all the while transactions of several producers end either way, over many segments. */
static void test_committed_reader_that_follows_sees_each_committed_batch_once(void **state)
{
    (void)state;
    enum { PRODUCERS = 5, ROUNDS = 400 };
    txn_fixture t;
    txn_init(&t, 16 << 10);
    unsigned seed = 1;
    int32_t sequence[PRODUCERS] = {0};
    int open[PRODUCERS] = {0};
    int64_t bases[ROUNDS * 2], wanted[ROUNDS * 2];
    int owner[ROUNDS * 2], fate[ROUNDS * 2]; /* fate: 0 open, 1 given, 2 aborted */
    size_t n = 0, w = 0, got = 0;
    bw_reader *readers[2] = {txn_reader(&t, false, BW_LIMIT_VISIBLE), txn_reader(&t, true, BW_LIMIT_VISIBLE)};
    size_t given[2] = {0};
    for (int i = 0; i < ROUNDS || got < PRODUCERS; i++) {
        int p = (int)(rand_r(&seed) % PRODUCERS), plain = rand_r(&seed) % 8 == 0;
        if (i >= ROUNDS) p = (int)got++;
        else if (plain || rand_r(&seed) % 3) {
            owner[n] = plain ? -1 : p;
            fate[n] = plain;
            bases[n++] = plain ? txn_append(&t, -1, 0, 0, 1, false) : txn_append(&t, p, 0, sequence[p]++, 1, true);
            if (!plain) open[p] = 1;
            continue;
        }
        if (open[p]) {
            bool commit = rand_r(&seed) % 2;
            txn_end(&t, p, 0, commit);
            for (size_t k = 0; k < n; k++)
                if (owner[k] == p && fate[k] == 0) fate[k] = commit ? 1 : 2;
            open[p] = 0;
        }
        for (int k = 0; k < 2; k++) { /* what may be given now: all before the first undecided */
            w = 0;
            for (size_t m = 0; m < n && fate[m]; m++)
                if (fate[m] == 1) wanted[w++] = bases[m];
            bw_batch_ref b;
            while (bw_reader_next(readers[k], &b) == BW_OK) {
                if (b.header.attributes & BW_ATTR_CONTROL) continue;
                assert_true(given[k] < w);
                assert_int_equal(b.header.base_offset, wanted[given[k]++]);
            }
            assert_int_equal(given[k], w);
            if (rand_r(&seed) % 16 == 0) bw_reader_rest(readers[k]);
        }
    }
    assert_int_equal(slot_of(&t)->first_unstable, INT64_MAX);
    assert_true(w > 100 && w < n);
    assert_true(log_count_files(&t.f, ".txnindex", NULL) > 2);
    for (int k = 0; k < 2; k++) bw_reader_close(readers[k]);
    bw_reader *r = txn_reader(&t, false, BW_LIMIT_VISIBLE); /* and one that comes late, from each offset */
    for (size_t from = 0; from < w; from += 17) {
        bw_reader_seek(r, wanted[from]);
        bw_batch_ref b;
        size_t k = from;
        while (bw_reader_next(r, &b) == BW_OK)
            if (!(b.header.attributes & BW_ATTR_CONTROL)) assert_int_equal(b.header.base_offset, wanted[k++]);
        assert_int_equal(k, w);
    }
    bw_reader_close(r);
    txn_fini(&t);
}

static void test_committed_durable_reader_keeps_both_limits(void **state)
{
    (void)state;
    txn_fixture t;
    char seen[512];
    txn_init(&t, 64 << 10);
    bw_reader *r = txn_reader(&t, true, BW_LIMIT_DURABLE);
    txn_append(&t, -1, 0, 0, 1, false); /* 0 */
    txn_append(&t, 7, 0, 0, 1, true);   /* 1 */
    txn_seen(r, seen);
    assert_string_equal(seen, "");
    txn_store(&t);
    txn_seen(r, seen);
    assert_string_equal(seen, "0");
    txn_end(&t, 7, 0, true);            /* 2, not durable */
    txn_append(&t, -1, 0, 0, 1, false); /* 3 */
    txn_seen(r, seen);
    assert_string_equal(seen, "1");
    txn_store(&t);
    txn_seen(r, seen);
    assert_string_equal(seen, "3");
    bw_reader_close(r);
    txn_fini(&t);
}

static void test_committed_reader_is_woken_when_the_transaction_ends(void **state)
{
    (void)state;
    txn_fixture t;
    txn_init(&t, 64 << 10);
    txn_append(&t, 7, 0, 0, 1, true);
    bw_mailbox *box = bw_mail_box(t.f.mail, BW_MAILBOX_BROKER);
    uint32_t number;
    for (int cls = 0; cls < 2; cls++) {
        txn_append(&t, -1, 0, 0, 1, false);
        while (bw_mailbox_drain(box, &number, 1)) {}
        bw_arm(t.f.control, 0, (bw_wait_class)cls, BW_MAILBOX_BROKER);
        bw_arm_fence(true);
        txn_end(&t, 7, 0, cls == 0);
        assert_int_equal(bw_mailbox_drain(box, &number, 1), 1);
        assert_int_equal(number, 3);
        txn_append(&t, 7, 0, cls + 1, 1, true);
    }
    txn_fini(&t);
}

/* A transaction may be published between a reader's two loads: what it saw first must not let it pass. */
static void test_committed_reader_never_passes_a_bound_that_was_lowered(void **state)
{
    (void)state;
    txn_fixture t;
    char seen[512];
    txn_init(&t, 64 << 10);
    bw_reader *r = txn_reader(&t, false, BW_LIMIT_VISIBLE);
    bw_batch_ref b;
    bw_run run;
    txn_append(&t, -1, 0, 0, 1, false);
    txn_append(&t, -1, 0, 0, 1, false);
    assert_int_equal(bw_reader_next(r, &b), BW_OK); /* the watermark is kept, and the bound with it */
    txn_append(&t, 7, 0, 0, 1, true);
    assert_int_equal(bw_reader_run(r, 1 << 20, &run), BW_OK); /* looks at the watermark again */
    assert_int_equal(run.next_offset, 2);
    txn_seen(r, seen);
    assert_string_equal(seen, "");
    bw_reader_close(r);
    txn_fini(&t);
}

static void test_committed_reader_refuses_a_broken_index(void **state)
{
    (void)state;
    txn_fixture t;
    char path[256];
    txn_init(&t, 64 << 10);
    txn_append(&t, 7, 0, 0, 1, true);
    txn_end(&t, 7, 0, false);
    log_path(&t.f, path, "00000000000000000000.txnindex");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "\xff", 1, 18), 1); /* the last offset is negative now */
    close(fd);
    bw_reader *r = txn_reader(&t, true, BW_LIMIT_VISIBLE);
    bw_batch_ref b;
    assert_int_equal(bw_reader_next(r, &b), BW_ERR_CORRUPT);
    bw_reader_close(r);
    txn_crash(&t);
    txn_open(&t, false); /* the next start makes it anew */
    expect_seen(&t, 0, "");
    txn_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_committed_reader_stops_at_an_open_transaction_and_goes_on_after_it),
        cmocka_unit_test(test_committed_reader_is_not_given_what_was_aborted),
        cmocka_unit_test(test_committed_reader_that_follows_sees_each_committed_batch_once),
        cmocka_unit_test(test_committed_durable_reader_keeps_both_limits),
        cmocka_unit_test(test_committed_reader_is_woken_when_the_transaction_ends),
        cmocka_unit_test(test_committed_reader_never_passes_a_bound_that_was_lowered),
        cmocka_unit_test(test_committed_reader_refuses_a_broken_index),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
