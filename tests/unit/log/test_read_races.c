/* What the coordinator does between two looks of a reader, and what readers find between two steps of the coordinator: each such moment
 * is a named point (base/killpoint.h), and there the other one is run, in the same thread. Merges of a compaction; segments that were
 * rolled into and have no name in the folder yet. */
#include "compact_fixture.h"
#include "engine_fixture.h"

#include "base/killpoint.h"

#include <dlfcn.h>
#include <errno.h>

/* ---- merges ---- */

enum { PLACES = 9, PASSES_MAX = 160, KEYS = 24, BATCHES = 66 };
static const int places[PLACES] = {0, 5, 11, 12, 13, 24, 36, 37, 60}; /* batches read before; the first segments hold twelve */

typedef struct scene {
    log_fixture f;
    oracle *o;
    bw_reader *readers[PASSES_MAX][PLACES];
    seen *before[PLACES];
    int pass;
    const char *at;
    char folder[16];
} scene;

static bw_reader *reader_of(scene *s, bool use_pread)
{
    bw_reader *r;
    bw_reader_options o = {.control = s->f.control, .dir_fd = s->f.data_fd, .folder = s->folder, .check_crcs = true, .use_pread = use_pread};
    assert_int_equal(bw_reader_open(&o, &r), BW_OK);
    return r;
}

static seen *seen_new(void)
{
    seen *x = calloc(1, sizeof *x);
    assert_non_null(x);
    for (int i = 0; i < KEYS_MAX; i++) x->offset[i] = -1;
    x->last = -1;
    return x;
}

static seen *read_some(bw_reader *r, int batches)
{
    seen *x = seen_new();
    bw_batch_ref b;
    bw_reader_seek(r, 0);
    for (int i = 0; i < batches; i++) {
        assert_int_equal(bw_reader_next(r, &b), BW_OK);
        read_batch(x, &b);
    }
    return x;
}

/* To the end: nothing is wrong, and what was seen last of each key is what was written last. */
static void read_rest(scene *s, bw_reader *r, const seen *before)
{
    seen *x = malloc(sizeof *x);
    bw_batch_ref b;
    bw_err e;
    assert_non_null(x);
    *x = *before;
    while ((e = bw_reader_next(r, &b)) == BW_OK) read_batch(x, &b);
    if (e != BW_ERR_EMPTY) fail_msg("at %s: %s: %s", s->at, bw_err_name(e), bw_error_message());
    for (int i = 0; i < KEYS_MAX; i++)
        if (x->offset[i] != s->o->offset[i])
            fail_msg("at %s: of key %d offset %lld was seen last, not %lld", s->at, i, (long long)x->offset[i], (long long)s->o->offset[i]);
    free(x);
}

static void scene_begin(scene *s)
{
    shape plain = PLAIN_SHAPE;
    memset(s, 0, sizeof *s);
    s->o = begin(&s->f, 16 << 10);
    snprintf(s->folder, sizeof s->folder, LOG_TOPIC "-0");
    for (int i = 0, k = 0; i < BATCHES; i++) { /* some keys are written once: who skips one of them does not see it again */
        int keys[4];
        for (int j = 0; j < 4; j++) keys[j] = k++ % KEYS;
        if (i % 16 == 3) keys[2] = 100 + i;
        write_batch(&s->f, s->o, &plain, keys, NULL);
    }
    fill_active(&s->f, s->o);
}

static void write_more(scene *s)
{
    shape plain = PLAIN_SHAPE;
    write_round(&s->f, s->o, &plain, BATCHES / 2, KEYS);
    fill_active(&s->f, s->o);
}

static void readers_go_on(void *opaque, const char *name)
{
    scene *s = opaque;
    if (strncmp(name, "compact.", 8) != 0) return;
    s->at = name;
    assert_true(s->pass < PASSES_MAX);
    for (int i = 0; i < PLACES; i++) {
        bw_reader **r = &s->readers[s->pass][i];
        if (*r) read_rest(s, *r, s->before[i]);
        bw_reader_close(*r);
        *r = NULL;
    }
    s->pass++;
}

/* At each step of a compaction readers that had stopped at several places read on, past what was merged before and what is being merged.
 * They had stopped before the first compaction, or (second) before the second. */
static void readers_within_merges(bool second, bool use_pread)
{
    scene *s = malloc(sizeof *s);
    scene_begin(s);
    bw_compact_report first = {0};
    if (second) first = compact(&s->f, NULL);
    for (int i = 0; i < PLACES; i++) {
        int at = second && places[i] > 6 ? 6 : places[i]; /* that many are left of the first */
        for (int k = 0; k < (use_pread ? 40 : PASSES_MAX); k++) { /* whose files stay open */
            s->readers[k][i] = reader_of(s, use_pread);
            seen *x = read_some(s->readers[k][i], at);
            if (s->before[i]) free(x);
            else s->before[i] = x;
        }
    }
    if (!second) first = compact(&s->f, NULL);
    write_more(s);
    bw_kill_point_watch(readers_go_on, s);
    bw_compact_report again = compact(&s->f, NULL);
    bw_kill_point_watch(NULL, NULL);
    assert_true(first.segments_after < first.segments_before && again.segments_after < again.segments_before);
    assert_true(s->pass > 12);
    for (int k = 0; k < PASSES_MAX; k++)
        for (int i = 0; i < PLACES; i++) {
            if (!s->readers[k][i]) continue;
            s->at = "the end";
            if (k % 8 == 0) read_rest(s, s->readers[k][i], s->before[i]);
            bw_reader_close(s->readers[k][i]);
        }
    for (int i = 0; i < PLACES; i++) free(s->before[i]);
    check_last_values(&s->f, s->o, again.upto);
    end(&s->f, s->o);
    free(s);
}

static void test_reader_within_the_second_of_two_merges_skips_nothing(void **state)
{
    (void)state;
    readers_within_merges(false, false);
    readers_within_merges(false, true);
}

static void test_reader_of_merged_segments_within_a_merge_skips_nothing(void **state)
{
    (void)state;
    readers_within_merges(true, false);
    readers_within_merges(true, true);
}

typedef struct meanwhile {
    scene *s;
    int left; /* points until it is time */
    const char *at;
} meanwhile;

static void merge_now(void *opaque, const char *name)
{
    meanwhile *m = opaque;
    if (strncmp(name, "read.", 5) != 0 || m->left-- != 1) return;
    m->at = name;
    (void)compact(&m->s->f, NULL);
}

/* The other way round: at each gap in a reader's search for what comes next, the log is merged. */
static void test_reader_whose_log_is_merged_between_two_looks_skips_nothing(void **state)
{
    (void)state;
    int met = 0;
    for (int second = 0; second < 2; second++) {
        bool more = true;
        for (int left = 1; more; left++) {
            scene *s = malloc(sizeof *s);
            scene_begin(s);
            bw_reader *r = reader_of(s, left % 2);
            seen *x = read_some(r, 12 * (1 + left % 3));
            if (second) {
                (void)compact(&s->f, NULL);
                write_more(s);
            }
            meanwhile m = {.s = s, .left = left};
            s->at = "none";
            bw_kill_point_watch(merge_now, &m);
            read_rest(s, r, x);
            bw_kill_point_watch(NULL, NULL);
            met += m.at != NULL;
            more = m.at != NULL && left < 24;
            free(x);
            bw_reader_close(r);
            end(&s->f, s->o);
            free(s);
        }
    }
    assert_true(met >= 20);
}

/* ---- segments without a name ---- */

enum { NEWEST = BW_RING + 3, OLDEST_IN_RING = NEWEST - BW_RING + 1 };

static void names_of(uint32_t seq, int64_t base, char spare[BW_SEGMENT_NAME_MAX], char log[BW_SEGMENT_NAME_MAX])
{
    bw_spare_name(spare, seq);
    bw_segment_name(log, base, ".log");
}

/* Rolls on until `upto` is the newest; what leaves the ring has its name, and the others have it when `named`. bases: of each sequence. */
static int64_t roll_on(engine *g, bw_appender *a, bw_batch_builder *b, uint32_t upto, bool named, int64_t *bases)
{
    bw_append_result r;
    int64_t next = (int64_t)g->slot->next_offset;
    for (uint32_t seq = bw_position_seq(g->slot->tail); seq < upto; seq++) {
        char spare[BW_SEGMENT_NAME_MAX], log[BW_SEGMENT_NAME_MAX];
        engine_spare(g, 8192, 8192);
        while (bw_position_seq(g->slot->tail) == seq) {
            assert_int_equal(engine_append(a, b, 1, 2500, 'y', 50, &r), BW_OK);
            assert_int_equal(r.base_offset, next);
            next++;
        }
        bases[seq + 1] = (int64_t)bw_ring_at(g->slot, seq + 1)->base_offset;
        names_of(seq + 1, bases[seq + 1], spare, log);
        if (named) assert_int_equal(bw_os_rename(g->dir_fd, spare, g->dir_fd, log), 0);
    }
    return next;
}

static void read_whole(engine *g, bool use_pread, int64_t upto, const char *what, unsigned which)
{
    bw_reader *r = engine_reader(g, use_pread, BW_LIMIT_VISIBLE);
    bw_batch_ref b;
    bw_err e;
    int64_t next = 0;
    bw_reader_seek(r, 0);
    while ((e = bw_reader_next(r, &b)) == BW_OK) {
        if (b.header.base_offset != next) fail_msg("%s %u: %lld came, not %lld", what, which, (long long)b.header.base_offset, (long long)next);
        next = bw_batch_last_offset(&b.header) + 1;
    }
    if (e != BW_ERR_EMPTY) fail_msg("%s %u: at %lld: %s: %s", what, which, (long long)next, bw_err_name(e), bw_error_message());
    if (next < upto) fail_msg("%s %u: the end was taken for %lld, not %lld", what, which, (long long)next, (long long)upto);
    bw_reader_close(r);
}

/* A reader that comes from a segment behind the ring goes by names; those of the ring may have theirs or not, in any combination. */
static void test_rolled_segments_without_a_name_are_found_in_the_ring(void **state)
{
    (void)state;
    engine g;
    engine_init(&g, 8192, 8192);
    bw_appender *a = engine_appender(&g, false);
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    int64_t bases[NEWEST + 1] = {0}, next = roll_on(&g, a, &b, NEWEST, true, bases);
    assert_true(bw_ring_at(g.slot, OLDEST_IN_RING)->seq == OLDEST_IN_RING && bw_ring_at(g.slot, OLDEST_IN_RING - 1)->seq == NEWEST);
    unsigned unnamed = 0;
    for (unsigned mask = 0; mask < 1u << BW_RING; mask++) {
        for (unsigned i = 0; i < BW_RING; i++) {
            char spare[BW_SEGMENT_NAME_MAX], log[BW_SEGMENT_NAME_MAX];
            names_of(OLDEST_IN_RING + i, bases[OLDEST_IN_RING + i], spare, log);
            bool is = unnamed >> i & 1, shall = mask >> i & 1;
            if (is != shall) assert_int_equal(bw_os_rename(g.dir_fd, is ? spare : log, g.dir_fd, is ? log : spare), 0);
        }
        unnamed = mask;
        for (int use_pread = 0; use_pread < 2; use_pread++) read_whole(&g, use_pread, next, "without a name, by bits:", mask);
    }
    bw_appender_close(a);
    bw_batch_builder_fini(&b);
    engine_fini(&g);
}

typedef struct naming {
    engine *g;
    bw_appender *a;
    bw_batch_builder *b;
    int64_t *bases;
    int left;
    uint32_t rolls;
    bool met;
} naming;

/* All get their names, the oldest first, and the log rolls on: by one segment, or until none of those is in the ring. */
static void name_now(void *opaque, const char *name)
{
    naming *n = opaque;
    if (strncmp(name, "read.", 5) != 0 || n->left-- != 1) return;
    n->met = true;
    for (uint32_t seq = OLDEST_IN_RING; seq <= NEWEST; seq++) {
        char spare[BW_SEGMENT_NAME_MAX], log[BW_SEGMENT_NAME_MAX];
        names_of(seq, n->bases[seq], spare, log);
        assert_int_equal(bw_os_rename(n->g->dir_fd, spare, n->g->dir_fd, log), 0);
    }
    (void)roll_on(n->g, n->a, n->b, NEWEST + n->rolls, true, n->bases);
}

static void test_segments_that_get_their_names_between_two_looks_are_found(void **state)
{
    (void)state;
    int met = 0;
    for (uint32_t rolls = 0; rolls <= BW_RING + 1; rolls += BW_RING + 1) {
        bool more = true;
        for (int left = 1; more; left++) {
            engine g;
            engine_init(&g, 8192, 8192);
            bw_appender *a = engine_appender(&g, false);
            bw_batch_builder b;
            bw_batch_builder_init(&b);
            int64_t bases[NEWEST + BW_RING + 2] = {0};
            (void)roll_on(&g, a, &b, OLDEST_IN_RING - 1, true, bases);
            int64_t next = roll_on(&g, a, &b, NEWEST, false, bases);
            naming n = {.g = &g, .a = a, .b = &b, .bases = bases, .left = left, .rolls = rolls};
            bw_kill_point_watch(name_now, &n);
            read_whole(&g, left % 2, next, "named at look", (unsigned)left);
            bw_kill_point_watch(NULL, NULL);
            more = n.met;
            met += n.met;
            bw_appender_close(a);
            bw_batch_builder_fini(&b);
            engine_fini(&g);
        }
    }
    assert_true(met >= 20);
}

/* ---- a folder that can't be read to its end ---- */

static int fails_in; /* calls of readdir until one fails; 0: none */

struct dirent *readdir(DIR *dir) /* in the place of the C library's */
{
    static struct dirent *(*real)(DIR *);
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "readdir");
    if (fails_in && --fails_in == 0) {
        errno = EIO;
        return NULL;
    }
    return real(dir);
}

/* What was not seen of the folder is not missing: readers say that it can't be read, and go on when it can. */
static void test_folder_that_is_not_read_to_its_end_is_an_error_and_no_gap(void **state)
{
    (void)state;
    engine g;
    engine_init(&g, 8192, 8192);
    bw_appender *a = engine_appender(&g, false);
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    int64_t bases[NEWEST + 1] = {0}, next = roll_on(&g, a, &b, NEWEST, true, bases);
    int failed = 0;
    for (int at = 1; at <= 60; at++) {
        bw_reader *r = engine_reader(&g, at % 2, BW_LIMIT_VISIBLE);
        bw_batch_ref ref;
        bw_err e;
        int64_t expect = 0;
        bw_reader_seek(r, 0);
        fails_in = at;
        while ((e = bw_reader_next(r, &ref)) == BW_OK || (e == BW_ERR_IO && fails_in == 0 && failed++ < 60)) {
            if (e) continue;
            assert_int_equal(ref.header.base_offset, expect);
            expect = bw_batch_last_offset(&ref.header) + 1;
        }
        fails_in = 0;
        if (e != BW_ERR_EMPTY) fail_msg("entry %d: %s: %s", at, bw_err_name(e), bw_error_message());
        assert_int_equal(expect, next);
        bw_reader_close(r);
    }
    assert_true(failed >= 20);
    bw_appender_close(a);
    bw_batch_builder_fini(&b);
    engine_fini(&g);
}

int main(void)
{
    log_data_place = "/dev/shm/bw-log-data-XXXXXX";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_within_the_second_of_two_merges_skips_nothing),
        cmocka_unit_test(test_reader_of_merged_segments_within_a_merge_skips_nothing),
        cmocka_unit_test(test_reader_whose_log_is_merged_between_two_looks_skips_nothing),
        cmocka_unit_test(test_rolled_segments_without_a_name_are_found_in_the_ring),
        cmocka_unit_test(test_segments_that_get_their_names_between_two_looks_are_found),
        cmocka_unit_test(test_folder_that_is_not_read_to_its_end_is_an_error_and_no_gap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
