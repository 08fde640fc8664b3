/* Shared by the tests of format/: bytes before a guard page, seeded random numbers, records of many shapes. */
#ifndef TESTS_UNIT_FORMAT_SAMPLES_H
#define TESTS_UNIT_FORMAT_SAMPLES_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "format/record_batch.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A place whose end touches a page that may not be read: a decoder that reads one byte too far dies. */
typedef struct guard {
    uint8_t *map;
    size_t room; /* bytes before the forbidden page */
} guard;

static inline guard guard_open(size_t room)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    guard g = {NULL, (room + page - 1) / page * page};
    void *map = mmap(NULL, g.room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(map != MAP_FAILED);
    g.map = map;
    assert_int_equal(mprotect(g.map + g.room, page, PROT_NONE), 0);
    return g;
}

static inline uint8_t *guard_copy(const guard *g, const void *data, size_t len)
{
    assert_true(len <= g->room);
    uint8_t *to = g->map + g->room - len;
    if (len > 0) memcpy(to, data, len);
    return to;
}

static inline void guard_close(guard *g) { munmap(g->map, g->room + (size_t)sysconf(_SC_PAGESIZE)); }

static inline uint32_t random_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

#define SAMPLE_TIME INT64_C(1700000000000)

/* The i-th sample record: null and empty keys and values, lengths around the varints' widths, up to four headers. The record
 * points into *s. */
typedef struct sample {
    char key[48];
    char value[20000];
    bw_header headers[4];
    bw_record record;
} sample;

static inline const bw_record *sample_record(sample *s, int i)
{
    static const size_t value_lens[] = {0, 1, 5, 62, 63, 64, 65, 127, 128, 1000, 8190, 8191, 8192, 8193, 19999};
    uint64_t seed = (uint64_t)i * 977 + 5;
    int n = snprintf(s->key, sizeof s->key, "key-%d-%u", i, random_next(&seed));
    size_t value_len = value_lens[(size_t)i % (sizeof value_lens / sizeof value_lens[0])];
    for (size_t at = 0; at < value_len; at++) s->value[at] = (char)('a' + random_next(&seed) % 4);
    s->headers[0] = (bw_header){"trace", 5, "00-abc", 6};
    s->headers[1] = (bw_header){"null", 4, NULL, 0};
    s->headers[2] = (bw_header){"empty", 5, "", 0};
    s->headers[3] = (bw_header){"", 0, s->value, value_len / 3};
    bool key_null = i % 3 == 0, value_null = i % 7 == 3;
    s->record = (bw_record){
        .key = key_null ? NULL : s->key,
        .key_len = key_null || i % 5 == 1 ? 0 : (size_t)n,
        .value = value_null ? NULL : s->value,
        .value_len = value_null ? 0 : value_len,
        .headers = s->headers,
        .header_count = i % 4 == 2 ? (size_t)i % 5 : 0,
        .timestamp_ms = SAMPLE_TIME + (i % 2 ? -1 : 1) * (int64_t)(i % 11) * 300 * i,
    };
    return &s->record;
}

static inline void assert_field(const void *want, size_t want_len, const void *got, size_t got_len)
{
    assert_int_equal(want == NULL, got == NULL);
    assert_int_equal(want_len, got_len);
    if (want_len > 0) assert_memory_equal(want, got, want_len);
}

static inline void assert_record(const bw_record *want, const bw_record_view *got)
{
    assert_field(want->key, want->key_len, got->key, got->key_len);
    assert_field(want->value, want->value_len, got->value, got->value_len);
    assert_int_equal(want->header_count, got->header_count);
    bw_header_iter it;
    bw_header h;
    bw_header_iter_init(&it, got);
    for (size_t i = 0; i < want->header_count; i++) {
        assert_int_equal(bw_header_iter_next(&it, &h), 1);
        assert_field(want->headers[i].name, want->headers[i].name_len, h.name, h.name_len);
        assert_field(want->headers[i].value, want->headers[i].value_len, h.value, h.value_len);
    }
    assert_int_equal(bw_header_iter_next(&it, &h), 0);
}

/* Builds a batch of `count` samples from number `first` on. */
static inline void sample_batch(bw_batch_builder *b, int first, int count, const bw_batch_options *options, uint8_t **batch,
                                size_t *len)
{
    static sample s;
    bw_batch_builder_reset(b);
    for (int i = 0; i < count; i++) assert_int_equal(bw_batch_builder_add(b, sample_record(&s, first + i)), BW_OK);
    assert_int_equal(bw_batch_builder_finish(b, options, batch, len), BW_OK);
}

#endif
