/* What a peer, or the store, hands to links: marks, version vectors, link records; and batches through filter and merge: whatever they
 * are, they are refused or make what reads back. First byte: which. */
#include "fuzz/fuzz.h"

#include "broker/link_stream.h"
#include "format/batch_filter.h"
#include "link/spec.h"

enum { PLAIN_MAX = 1 << 18 };

static void mark(const uint8_t *data, size_t size)
{
    bw_mark m, again;
    char text[BW_MARK_TEXT_MAX];
    if (!bw_mark_parse(data, size, &m)) return;
    FUZZ_CHECK(bw_mark_parse(text, bw_mark_print(&m, text), &again) && again.offset == m.offset && again.log.partition == m.log.partition);
}

static void vector(const uint8_t *data, size_t size)
{
    bw_vector v, again;
    bw_buf text = {0};
    if (bw_vector_decode(data, size, &v) != BW_OK) return;
    FUZZ_CHECK(v.count <= size / BW_VECTOR_ENTRY_BYTES);
    fuzz_pause();
    if (bw_vector_encode(&v, &text) == BW_OK) {
        FUZZ_CHECK(bw_vector_decode(text.data, text.len, &again) == BW_OK && again.count == v.count);
        bw_vector_free(&again);
    }
    bw_buf_free(&text);
    fuzz_resume();
    bw_vector_free(&v);
}

static void record(const uint8_t *data, size_t size)
{
    bw_link_spec s, again;
    bw_buf text = {0};
    if (size > 600 || memchr(data, '^', size)) return; /* regular expressions are the C library's */
    if (bw_link_spec_decode(bw_str_of("name"), data, size, &s) != BW_OK) return;
    fuzz_pause();
    FUZZ_CHECK(bw_link_spec_encode(&s, &text) == BW_OK);
    FUZZ_CHECK(bw_link_spec_decode(bw_str_of("name"), text.data, text.len, &again) == BW_OK);
    bw_link_spec_fini(&again);
    bw_buf_free(&text);
    fuzz_resume();
    bw_link_spec_fini(&s);
}

static void whole_batches(const uint8_t *data, size_t len)
{
    bw_batch_header h;
    for (size_t at = 0; at < len; at += bw_batch_size(&h)) FUZZ_CHECK(bw_batch_header_decode(data + at, len - at, false, &h) == BW_OK);
}

static void filter(const uint8_t *data, size_t size)
{
    bw_buf out = {0};
    bw_link_text key = {(char *)(uintptr_t)"a", 1}, none = {0};
    char header[] = "h";
    bw_link_filter f = {.key_prefix = size % 2 ? &key : &none, .header_value = &none, .header = size % 3 ? NULL : header, .mirror = size % 5 == 0};
    if (bw_link_filter_run(&f, data, size, PLAIN_MAX, &out) == BW_OK) whole_batches(out.data, out.len);
    bw_buf_free(&out);
}

static void merge(const uint8_t *data, size_t size)
{
    bw_vector v = {0};
    bw_merged *list = NULL;
    size_t n = 0;
    bw_merge_input in = {.data = data, .len = size, .max_plain = PLAIN_MAX};
    if (bw_merge_encode(&in, &v, &list, &n) == BW_OK) {
        for (size_t i = 0; i < n; i++) {
            whole_batches(list[i].batch, list[i].len);
            FUZZ_CHECK(bw_batch_crc_ok(list[i].batch, list[i].len));
        }
        bw_merged_free(list, n);
    }
    bw_vector_free(&v);
}

static int fuzz_input(const uint8_t *data, size_t size)
{
    static void (*const targets[])(const uint8_t *, size_t) = {mark, vector, record, filter, merge};
    if (size < 1 || size > 1 << 16) return 0;
    if (data[0] % 5 > 2) fuzz_allow(8 * PLAIN_MAX + 16 * size + FUZZ_LZ4_BLOCKS); /* plain records, new batches of them */
    targets[data[0] % 5](data + 1, size - 1);
    return 0;
}
