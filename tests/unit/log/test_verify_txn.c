/* bw_verify and bw_dump of transactions: sound ones have no findings; an index that says something else than the log has. */
#include "txn_fixture.h"

#include <busway/inspect.h>

#define INDEX "00000000000000000000.txnindex"

typedef struct found { int errors, notes; char first[300]; } found;

static void on_finding(void *opaque, const bw_finding *f)
{
    found *s = opaque;
    if (!s->errors && !s->notes) snprintf(s->first, sizeof s->first, "%.299s", f->message);
    if (f->is_error) s->errors++;
    else s->notes++;
}

static found verify(txn_fixture *t)
{
    found s = {0};
    char path[256];
    bw_verify_totals totals;
    snprintf(path, sizeof path, "%s/%s-0", t->f.data, LOG_TOPIC);
    (void)bw_verify(path, on_finding, NULL, &s, &totals);
    return s;
}

/* Two aborted, one committed, one left open, over more than one segment; cleanly stopped. */
static void make_log(txn_fixture *t)
{
    txn_init(t, 8 << 10);
    txn_append(t, 7, 0, 0, 1, true); /* 0 */
    txn_append(t, 8, 0, 0, 1, true); /* 1 */
    txn_end(t, 7, 0, false);         /* 2 */
    txn_append(t, 7, 0, 1, 1, true); /* 3 */
    txn_end(t, 7, 0, false);         /* 4 */
    for (int i = 0; i < 60; i++) txn_append(t, -1, 0, 0, 1, false);
    txn_end(t, 8, 0, true);
    txn_end(t, 8, 0, false);         /* ends nothing */
    txn_append(t, 9, 0, 0, 1, true);
    txn_store(t);
    txn_detach(t);
    assert_int_equal(bw_partition_close(t->f.p, true, NULL), BW_OK);
    t->f.p = NULL;
}

static void test_verify_sound_transactions_have_no_findings(void **state)
{
    (void)state;
    txn_fixture t;
    make_log(&t);
    found s = verify(&t);
    if (s.errors || s.notes) fail_msg("%s", s.first);
    txn_fini(&t);
}

static void expect_error(txn_fixture *t, const char *text)
{
    found s = verify(t);
    if (!s.errors || !strstr(s.first, text)) fail_msg("%d errors; %s", s.errors, s.first);
}

static void test_verify_index_that_differs_from_the_log_is_an_error(void **state)
{
    (void)state;
    txn_fixture t;
    char path[256];
    bw_aborted right[2] = {{7, 0, 2, 1}, {7, 3, 4, 1}};
    bool changed;
    make_log(&t);
    log_path(&t.f, path, INDEX);
    int dir = openat(t.f.data_fd, LOG_TOPIC "-0", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(bw_txn_index_restore(dir, 0, 0, right, 2, &changed), BW_OK);
    assert_false(changed);
    assert_int_equal(truncate(path, BW_TXN_ENTRY_BYTES), 0);
    expect_error(&t, "is not in the index");
    static const struct { bw_aborted wrong; const char *text; } cases[] = {
        {{6, 3, 4, 1}, "was aborted here"},
        {{7, 3, 5, 1}, "is not in the index"},
        {{7, 3, 70, 1}, "is not in the index"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bw_aborted some[2] = {right[0], cases[i].wrong};
        assert_int_equal(bw_txn_index_restore(dir, 0, 0, some, 2, &changed), BW_OK);
        expect_error(&t, cases[i].text);
    }
    bw_aborted three[3] = {right[0], right[1], {7, 5, 6, 1}};
    assert_int_equal(bw_txn_index_restore(dir, 0, 0, three, 3, &changed), BW_OK);
    expect_error(&t, "there is no marker");
    assert_int_equal(bw_txn_index_restore(dir, 0, 0, right, 2, &changed), BW_OK);
    found s = verify(&t);
    assert_int_equal(s.errors, 0);
    log_flip(&t.f, INDEX, BW_TXN_ENTRY_BYTES); /* the version */
    expect_error(&t, "no entry");
    close(dir);
    txn_fini(&t);
}

static void test_verify_malformed_marker_is_an_error(void **state)
{
    (void)state;
    txn_fixture t;
    txn_init(&t, 64 << 10);
    assert_int_equal(bw_partition_tend(t.f.p, NULL), BW_OK);
    bw_marker m = {7, 0, false, 5, 0};
    uint8_t marker[BW_MARKER_BYTES];
    bw_append_result r;
    size_t len = bw_marker_write(marker, &m);
    marker[22] = 0x20; /* not transactional */
    bw_batch_seal_crc(marker, len);
    assert_int_equal(bw_append(t.a, marker, len, 1, 0, 0, &r), BW_OK);
    txn_store(&t);
    expect_error(&t, "not transactional");
    txn_fini(&t);
}

static bool on_dump(void *opaque, const bw_dump_batch *b, const bw_record_view *r)
{
    char *text = opaque;
    if (!r && b->base_offset < 5) sprintf(text + strlen(text), "%d%s", b->marker, b->is_transactional ? "t " : " ");
    return true;
}

static void test_dump_shows_markers(void **state)
{
    (void)state;
    txn_fixture t;
    char path[256], text[64] = "";
    make_log(&t);
    log_path(&t.f, path, "00000000000000000000.log");
    assert_int_equal(bw_dump(path, true, on_dump, text), BW_OK);
    assert_string_equal(text, "0t 0t 1t 0t 1t ");
    txn_fini(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verify_sound_transactions_have_no_findings),
        cmocka_unit_test(test_verify_index_that_differs_from_the_log_is_an_error),
        cmocka_unit_test(test_verify_malformed_marker_is_an_error),
        cmocka_unit_test(test_dump_shows_markers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
