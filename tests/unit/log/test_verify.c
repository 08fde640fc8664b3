/* bw_verify and bw_dump: a sound directory has no findings; each changed byte has. */
#include "log_fixture.h"

#include <busway/inspect.h>

#define LOG0 "00000000000000000000.log"

typedef struct seen { int errors, notes; char first[512]; } seen;

static void on_finding(void *opaque, const bw_finding *f)
{
    seen *s = opaque;
    if (!s->errors && !s->notes) snprintf(s->first, sizeof s->first, "%s@%llu: %s", f->path, (unsigned long long)f->position, f->message);
    if (f->is_error) s->errors++;
    else s->notes++;
}

static void on_progress(void *opaque, uint64_t done, uint64_t total)
{
    (void)opaque;
    assert_true(done <= total);
}

/* A data directory with a partition of some sealed segments and an active one, all cleanly stopped. */
static void make_log(log_fixture *f, int batches)
{
    log_init(f, 64 << 10);
    char path[256];
    snprintf(path, sizeof path, "%s/busway.format", f->data);
    FILE *file = fopen(path, "w");
    fputs("busway data format 1\n", file);
    fclose(file);
    log_open(f, true);
    log_append_many(f, batches, 2, 400);
    log_close(f, true);
}

static void test_verify_sound_directory_has_no_findings(void **state)
{
    (void)state;
    log_fixture f;
    make_log(&f, 400);
    bw_verify_totals t;
    seen s = {0};
    bw_err e = bw_verify(f.data, on_finding, on_progress, &s, &t);
    if (e || s.notes) fail_msg("%s; %s", bw_error_message(), s.first);
    assert_int_equal(t.topics, 1);
    assert_int_equal(t.partitions, 1);
    assert_true(t.segments >= 5);
    assert_int_equal(t.batches, 400);
    assert_int_equal(t.records, 800);
    assert_true(t.bytes > 400 * 800);
    char path[256];
    snprintf(path, sizeof path, "%s/%s-0", f.data, LOG_TOPIC);
    assert_int_equal(bw_verify(path, on_finding, NULL, &s, &t), BW_OK);
    assert_int_equal(t.batches, 400);
    log_path(&f, path, LOG0);
    assert_int_equal(bw_verify(path, on_finding, NULL, &s, &t), BW_OK);
    assert_int_equal(t.segments, 1);
    log_fini(&f);
}

static void test_verify_every_flipped_byte_is_found(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 6, 2, 30);
    log_close(&f, true);
    int64_t size = log_size(&f, LOG0);
    char path[256];
    snprintf(path, sizeof path, "%s/%s-0", f.data, LOG_TOPIC);
    for (int64_t at = 0; at < size; at++) {
        bw_verify_totals t;
        seen s = {0};
        log_flip(&f, LOG0, at);
        bw_err e = bw_verify(path, on_finding, NULL, &s, &t);
        if (e != BW_ERR_CORRUPT) fail_msg("byte %lld: %s, %d notes", (long long)at, bw_err_name(e), s.notes);
        assert_int_equal(s.errors, t.errors);
        log_flip(&f, LOG0, at);
    }
    bw_verify_totals t;
    assert_int_equal(bw_verify(path, NULL, NULL, NULL, &t), BW_OK);
    log_fini(&f);
}

static void test_verify_every_flipped_byte_of_the_small_files_is_noticed(void **state)
{
    (void)state;
    static const char *const names[] = {"00000000000000000000.seal", "00000000000000000000.index", "00000000000000000000.timeindex"};
    log_fixture f;
    make_log(&f, 100);
    char path[256];
    snprintf(path, sizeof path, "%s/%s-0", f.data, LOG_TOPIC);
    for (size_t n = 0; n < 3; n++) {
        int64_t size = log_size(&f, names[n]);
        for (int64_t at = 0; at < size; at++) {
            bw_verify_totals t;
            seen s = {0};
            log_flip(&f, names[n], at);
            (void)bw_verify(path, on_finding, NULL, &s, &t);
            if (s.errors + s.notes == 0) fail_msg("%s byte %lld: nothing said", names[n], (long long)at);
            if (n == 0) assert_true(s.errors > 0);
            log_flip(&f, names[n], at);
        }
    }
    log_fini(&f);
}

static void test_verify_every_cut_of_a_sealed_segment_is_found(void **state)
{
    (void)state;
    log_fixture f;
    make_log(&f, 100);
    char path[256], folder[256];
    log_path(&f, path, LOG0);
    snprintf(folder, sizeof folder, "%s/%s-0", f.data, LOG_TOPIC);
    for (int64_t size = log_size(&f, LOG0) - 1; size >= 0; size -= 97) {
        bw_verify_totals t;
        assert_int_equal(truncate(path, size), 0);
        assert_int_equal(bw_verify(folder, NULL, NULL, NULL, &t), BW_ERR_CORRUPT);
    }
    log_fini(&f);
}

static void test_verify_missing_segment_is_found(void **state)
{
    (void)state;
    log_fixture f;
    make_log(&f, 300);
    char command[400], folder[256];
    snprintf(folder, sizeof folder, "%s/%s-0", f.data, LOG_TOPIC);
    snprintf(command, sizeof command, "cd %s && rm -f $(ls *.log | sed -n 2p)", folder);
    assert_int_equal(system(command), 0);
    bw_verify_totals t;
    assert_int_equal(bw_verify(folder, NULL, NULL, NULL, &t), BW_ERR_CORRUPT);
    assert_int_equal(t.errors, 1);
    log_fini(&f);
}

static void test_verify_unclean_end_is_a_note(void **state)
{
    (void)state;
    log_fixture f;
    log_init(&f, 1 << 20);
    log_open(&f, true);
    log_append_many(&f, 5, 2, 400);
    uint32_t tail = bw_position_pos(f.control->slots[0].tail);
    log_crash(&f);
    char path[256], folder[256];
    log_path(&f, path, LOG0);
    snprintf(folder, sizeof folder, "%s/%s-0", f.data, LOG_TOPIC);
    bw_verify_totals t;
    assert_int_equal(bw_verify(folder, NULL, NULL, NULL, &t), BW_OK); /* room allocated ahead is no finding */
    assert_int_equal(t.notes, 0);
    int fd = open(path, O_RDWR);
    static const char zeros[200];
    assert_int_equal(pwrite(fd, zeros, sizeof zeros, tail - sizeof zeros), sizeof zeros);
    close(fd);
    assert_int_equal(bw_verify(folder, NULL, NULL, NULL, &t), BW_OK);
    assert_int_equal(t.notes, 1);
    assert_int_equal(t.batches, 4);
    log_fini(&f);
}

static void test_verify_bad_paths_are_clear_errors(void **state)
{
    (void)state;
    bw_verify_totals t;
    assert_int_equal(bw_verify("/nonexistent/x", NULL, NULL, NULL, &t), BW_ERR_NOT_FOUND);
    assert_int_equal(bw_verify("/dev/null", NULL, NULL, NULL, &t), BW_ERR_INVALID_ARGUMENT);
    log_fixture f;
    make_log(&f, 1);
    char path[256];
    snprintf(path, sizeof path, "%s/busway.format", f.data);
    FILE *file = fopen(path, "w");
    fputs("busway data format 9\n", file);
    fclose(file);
    assert_int_equal(bw_verify(f.data, NULL, NULL, NULL, &t), BW_ERR_NEWER_FORMAT);
    log_fini(&f);
}

typedef struct dumped { int batches, records, stop_after, broken; int64_t next; } dumped;

static bool on_dump(void *opaque, const bw_dump_batch *b, const bw_record_view *r)
{
    dumped *d = opaque;
    if (r) {
        assert_int_equal(r->offset, d->next++);
        d->records++;
    } else {
        if (!b->crc_ok) d->broken++;
        d->batches++;
        d->next = b->base_offset;
    }
    return d->stop_after == 0 || d->batches < d->stop_after;
}

static void test_dump_shows_batches_and_records(void **state)
{
    (void)state;
    log_fixture f;
    make_log(&f, 50);
    char path[256];
    log_path(&f, path, LOG0);
    dumped d = {0};
    assert_int_equal(bw_dump(path, true, on_dump, &d), BW_OK);
    assert_int_equal(d.batches, 50);
    assert_int_equal(d.records, 100);
    dumped e = {0};
    assert_int_equal(bw_dump(path, false, on_dump, &e), BW_OK);
    assert_int_equal(e.batches, 50);
    assert_int_equal(e.records, 0);
    dumped s = {.stop_after = 7};
    assert_int_equal(bw_dump(path, true, on_dump, &s), BW_OK);
    assert_int_equal(s.batches, 7);
    log_flip(&f, LOG0, 20000);
    dumped b = {0};
    assert_int_equal(bw_dump(path, true, on_dump, &b), BW_ERR_CORRUPT);
    assert_int_equal(b.broken, 1);
    assert_true(b.batches > 10 && b.batches < 50);
    assert_non_null(strstr(bw_error_message(), "byte "));
    assert_int_equal(bw_dump("/nonexistent", true, on_dump, &b), BW_ERR_NOT_FOUND);
    log_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verify_sound_directory_has_no_findings),
        cmocka_unit_test(test_verify_every_flipped_byte_is_found),
        cmocka_unit_test(test_verify_every_flipped_byte_of_the_small_files_is_noticed),
        cmocka_unit_test(test_verify_every_cut_of_a_sealed_segment_is_found),
        cmocka_unit_test(test_verify_missing_segment_is_found),
        cmocka_unit_test(test_verify_unclean_end_is_a_note),
        cmocka_unit_test(test_verify_bad_paths_are_clear_errors),
        cmocka_unit_test(test_dump_shows_batches_and_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
