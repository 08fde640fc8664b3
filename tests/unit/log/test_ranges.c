/* Two copies of one log compare their ranges; what differs is found and mended. */
#include "log/ranges.h"
#include "log_fixture.h"

#include <busway/inspect.h>

enum { BATCHES = 400, PER_BATCH = 5, RECORDS = BATCHES * PER_BATCH, SMALL = 64 << 10, LARGE = 256 << 10 };

/* The same records in segments of another size. */
static void copies(log_fixture *a, log_fixture *b)
{
    log_fixture *both[] = {a, b};
    for (int i = 0; i < 2; i++) {
        log_init(both[i], i ? LARGE : SMALL);
        log_open(both[i], true);
        log_append_many(both[i], BATCHES, PER_BATCH, 300);
        assert_int_equal(bw_partition_sync(both[i]->p), BW_OK);
        assert_int_equal(bw_partition_tend(both[i]->p, NULL), BW_OK);
    }
}

static uint32_t hashes(log_fixture *f, int64_t from, int64_t upto, uint32_t parts, bool whole, uint64_t scan_max, bw_range_hash *out)
{
    uint32_t total = 0, count;
    int64_t step = (upto - from + parts - 1) / parts;
    while (from < upto) {
        bw_range_query q = {.from = from, .upto = upto, .step = step, .whole = whole, .scan_max = scan_max};
        uint64_t bytes;
        int64_t next;
        assert_int_equal(bw_partition_range_hashes(f->p, &q, out + total, &count, &next, &bytes), BW_OK);
        assert_true(count > 0 && next > from && next <= upto);
        total += count;
        from = next;
    }
    return total;
}

static int differing(log_fixture *a, log_fixture *b, uint32_t parts, bool whole, bw_range_hash *last)
{
    bw_range_hash x[1024], y[1024];
    uint32_t n = hashes(a, 0, RECORDS, parts, whole, UINT64_MAX, x);
    assert_int_equal(hashes(b, 0, RECORDS, parts, whole, UINT64_MAX, y), n);
    int found = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (x[i].hash == y[i].hash && x[i].batches == y[i].batches && x[i].bytes == y[i].bytes) continue;
        if (last) *last = y[i];
        found++;
    }
    return found;
}

/* The file and position of the batch with base offset `offset`. */
static int64_t find_batch(log_fixture *f, int64_t offset, char *path, size_t size, uint32_t *bytes)
{
    DIR *d = fdopendir(dup(bw_partition_dir_fd(f->p)));
    struct dirent *entry;
    int64_t best = -1;
    rewinddir(d);
    while ((entry = readdir(d))) {
        int64_t base;
        if (bw_segment_name_parse(entry->d_name, ".log", &base) && base <= offset && base > best) best = base;
    }
    closedir(d);
    char name[BW_SEGMENT_NAME_MAX];
    bw_segment_name(name, best, ".log");
    snprintf(path, size, "%s/%s-0/%s", f->data, LOG_TOPIC, name);
    int fd = open(path, O_RDONLY);
    int64_t at = 0;
    for (;;) {
        uint8_t head[12];
        assert_int_equal(pread(fd, head, sizeof head, at), sizeof head);
        *bytes = bw_get_be32(head + 8) + 12;
        if ((int64_t)bw_get_be64(head) == offset) break;
        assert_true((int64_t)bw_get_be64(head) < offset);
        at += *bytes;
    }
    close(fd);
    return at;
}

static void flip(const char *path, int64_t at, uint8_t mask)
{
    int fd = open(path, O_RDWR);
    uint8_t byte;
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= mask;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static void mend_from(log_fixture *good, log_fixture *bad, int64_t offset, bw_err expected)
{
    char path[256];
    uint32_t bytes;
    int64_t at = find_batch(good, offset, path, sizeof path, &bytes);
    uint8_t *batch = malloc(bytes);
    int fd = open(path, O_RDONLY);
    assert_int_equal(pread(fd, batch, bytes, at), bytes);
    close(fd);
    assert_int_equal(bw_partition_mend(bad->p, offset, offset + PER_BATCH, batch, bytes), expected);
    free(batch);
}

static void test_ranges_of_equal_logs_are_equal_whatever_their_segments(void **state)
{
    (void)state;
    log_fixture a, b;
    copies(&a, &b);
    static const uint32_t parts[] = {1, 2, 7, 64, 1000};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        for (int whole = 0; whole < 2; whole++) assert_int_equal(differing(&a, &b, parts[i], whole, NULL), 0);
    bw_range_hash all[8];
    hashes(&a, 0, RECORDS, 1, true, UINT64_MAX, all);
    assert_int_equal(all[0].batches, BATCHES);
    assert_int_equal(all[0].damaged, 0);
    assert_true(all[0].hash != 0);
    log_fini(&a);
    log_fini(&b);
}

static void test_ranges_asked_in_pieces_are_those_asked_at_once(void **state)
{
    (void)state;
    log_fixture a, b;
    copies(&a, &b);
    bw_range_hash once[1024], pieces[1024];
    for (uint32_t parts = 1; parts < 300; parts += 37) {
        uint32_t n = hashes(&a, 3, RECORDS - 2, parts, true, UINT64_MAX, once);
        assert_int_equal(hashes(&a, 3, RECORDS - 2, parts, true, 5000, pieces), n);
        for (uint32_t i = 0; i < n; i++) {
            assert_int_equal(once[i].hash, pieces[i].hash);
            assert_int_equal(once[i].batches, pieces[i].batches);
        }
    }
    log_fini(&a);
    log_fini(&b);
}

static void test_one_rotten_byte_is_found_in_one_range_and_mended(void **state)
{
    (void)state;
    log_fixture a, b;
    copies(&a, &b);
    bw_range_hash bad;
    char path[256];
    uint32_t size;
    int64_t at = find_batch(&b, 700, path, sizeof path, &size);
    flip(path, at + 200, 0x10);
    assert_int_equal(differing(&a, &b, 1000, true, &bad), 1);
    assert_int_equal(bad.damaged, 1);
    assert_int_equal(differing(&a, &b, 1000, false, NULL), 0); /* the heads are the same */
    bw_range_query q = {.from = 650, .upto = 800, .step = 150, .whole = true, .scan_max = UINT64_MAX};
    bw_range_batch list[64];
    uint32_t count;
    int64_t next;
    uint64_t bytes;
    assert_int_equal(bw_partition_range_batches(b.p, &q, list, 64, &count, &next, &bytes), BW_OK);
    assert_int_equal(count, 30);
    assert_int_equal(next, 800);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(list[i].base_offset, 650 + (int64_t)i * PER_BATCH);
        assert_int_equal(list[i].damaged, list[i].base_offset == 700);
    }
    mend_from(&a, &b, 700, BW_OK);
    assert_int_equal(differing(&a, &b, 1000, true, NULL), 0);
    log_fini(&a);
    log_fini(&b);
}

static void test_broken_head_hides_nothing_behind_it(void **state)
{
    (void)state;
    static const uint32_t where[] = {3, 9, 11, 16, 18, 26}; /* base offset, length twice, magic, checksum, last offset delta */
    log_fixture a, b;
    copies(&a, &b);
    for (size_t i = 0; i < sizeof where / sizeof *where; i++)
        for (int64_t offset = 0; offset < RECORDS; offset += RECORDS / 2 - PER_BATCH) {
            bw_range_hash bad;
            char path[256];
            uint32_t size;
            int64_t at = find_batch(&b, offset, path, sizeof path, &size) + where[i];
            flip(path, at, 0x41);
            int n = differing(&a, &b, 200, true, &bad);
            if (n < 1 || n > 12) fail_msg("byte %u of the batch at %lld: %d ranges differ", where[i], (long long)offset, n);
            flip(path, at, 0x41);
            assert_int_equal(differing(&a, &b, 200, true, NULL), 0);
        }
    log_fini(&a);
    log_fini(&b);
}

static void test_mend_of_sound_but_other_bytes_makes_the_seal_anew(void **state)
{
    (void)state;
    log_fixture a, b;
    copies(&a, &b);
    /* Another batch of the same length and offsets, in the sealed first segment of b. */
    b.next_ts = 5000000;
    size_t len;
    uint8_t *other = malloc(65536);
    const uint8_t *batch = log_batch(&b, PER_BATCH, 300, BW_CODEC_NONE, &len);
    memcpy(other, batch, len);
    bw_put_be64(other, 10);
    assert_int_equal(bw_partition_mend(b.p, 10, 15, other, len), BW_OK);
    free(other);
    assert_int_equal(differing(&a, &b, 1000, false, NULL), 1);
    char path[256];
    snprintf(path, sizeof path, "%s/%s-0", b.data, LOG_TOPIC);
    bw_verify_totals totals = {0};
    assert_int_equal(bw_verify(path, NULL, NULL, NULL, &totals), BW_OK); /* the seal fits */
    mend_from(&a, &b, 10, BW_OK);
    assert_int_equal(differing(&a, &b, 1000, true, NULL), 0);
    totals = (bw_verify_totals){0};
    assert_int_equal(bw_verify(path, NULL, NULL, NULL, &totals), BW_OK);
    assert_int_equal(totals.errors, 0);
    log_fini(&a);
    log_fini(&b);
}

static void test_mend_refuses_what_does_not_fit(void **state)
{
    (void)state;
    log_fixture a, b;
    copies(&a, &b);
    size_t len;
    uint8_t other[65536];
    b.next_ts = 5000000;
    const uint8_t *batch = log_batch(&b, PER_BATCH, 301, BW_CODEC_NONE, &len); /* longer */
    memcpy(other, batch, len);
    bw_put_be64(other, 10);
    assert_int_equal(bw_partition_mend(b.p, 10, 15, other, len), BW_ERR_LOGS_DIVERGED);
    assert_int_equal(bw_partition_mend(b.p, 10, 20, other, len), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_partition_mend(b.p, 10, 15, other, len - 1), BW_ERR_INVALID_ARGUMENT);
    other[100] ^= 1;
    assert_int_equal(bw_partition_mend(b.p, 10, 15, other, len), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(bw_partition_mend(b.p, 10, 15, other, 0), BW_ERR_INVALID_ARGUMENT);
    assert_int_equal(differing(&a, &b, 1000, true, NULL), 0);
    log_fini(&a);
    log_fini(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges_of_equal_logs_are_equal_whatever_their_segments),
        cmocka_unit_test(test_ranges_asked_in_pieces_are_those_asked_at_once),
        cmocka_unit_test(test_one_rotten_byte_is_found_in_one_range_and_mended),
        cmocka_unit_test(test_broken_head_hides_nothing_behind_it),
        cmocka_unit_test(test_mend_of_sound_but_other_bytes_makes_the_seal_anew),
        cmocka_unit_test(test_mend_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
