/* link_filter.c and link_encode.c: what a stream leaves out, and how a merge stores what is new to it. */
#include "broker/link_stream.h"

#include "format/batch_filter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

/* `count` records with keys "<tag>0"…, at offsets from `base`; every third has the header kind=alarm. */
static void add_batch(bw_buf *out, const char *tag, int count, int64_t base, bool control)
{
    bw_batch_builder b;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    uint8_t *batch;
    size_t len;
    bw_batch_builder_init(&b);
    for (int i = 0; i < count; i++) {
        char key[16];
        bw_header h = {"kind", 4, "alarm", 5};
        snprintf(key, sizeof key, "%s%d", tag, i);
        bw_record r = {.key = key, .key_len = strlen(key), .value = "v", .value_len = 1, .headers = &h, .header_count = i % 3 == 0,
                       .timestamp_ms = 5};
        assert_int_equal(bw_batch_builder_add(&b, &r), BW_OK);
    }
    assert_int_equal(bw_batch_builder_finish(&b, &o, &batch, &len), BW_OK);
    bw_batch_patch(batch, base, 0);
    if (control) {
        batch[22] |= BW_ATTR_CONTROL;
        bw_batch_seal_crc(batch, len);
    }
    assert_int_equal(bw_buf_append(out, batch, len), BW_OK);
    bw_batch_builder_fini(&b);
}

struct counted {
    int records;
    int64_t last;
    char mark[BW_MARK_TEXT_MAX];
};

static bool count_one(void *opaque, const bw_record_view *r)
{
    struct counted *c = opaque;
    bw_header_iter it;
    bw_header h;
    c->records++;
    c->last = r->offset;
    bw_header_iter_init(&it, r);
    while (bw_header_iter_next(&it, &h) == 1)
        if (h.name_len == sizeof BW_ORIGIN_HEADER - 1) snprintf(c->mark, sizeof c->mark, "%.*s", (int)h.value_len, (const char *)h.value);
    return true;
}

static struct counted count_all(const uint8_t *data, size_t len)
{
    struct counted c = {.last = -1};
    bw_buf plain = {0};
    bw_batch_header h;
    for (size_t at = 0; at < len; at += bw_batch_size(&h)) {
        assert_int_equal(bw_batch_header_decode(data + at, len - at, false, &h), BW_OK);
        assert_true(bw_batch_crc_ok(data + at, bw_batch_size(&h)));
        if (!(h.attributes & BW_ATTR_CONTROL)) assert_int_equal(bw_batch_each(data + at, &h, 1 << 20, &plain, count_one, &c), BW_OK);
    }
    bw_buf_free(&plain);
    return c;
}

static void test_filter_by_key_keeps_offsets_and_drops_batches_without_any(void **state)
{
    (void)state;
    bw_buf in = {0}, out = {0};
    bw_link_text key = {(char *)(uintptr_t)"a", 1}, none = {0};
    add_batch(&in, "a", 4, 100, false);
    add_batch(&in, "b", 4, 104, false);
    add_batch(&in, "a", 2, 108, false);
    bw_link_filter f = {.key_prefix = &key, .header_value = &none, .mirror = true};
    assert_int_equal(bw_link_filter_run(&f, in.data, in.len, 1 << 20, &out), BW_OK);
    struct counted c = count_all(out.data, out.len);
    assert_int_equal(c.records, 6);
    assert_int_equal(c.last, 109);
    bw_batch_header h;
    assert_int_equal(bw_batch_header_decode(out.data, out.len, false, &h), BW_OK);
    size_t second = bw_batch_size(&h);
    assert_int_equal(bw_batch_header_decode(out.data + second, out.len - second, false, &h), BW_OK);
    assert_int_equal(h.base_offset, 108);
    assert_int_equal(bw_link_filter_run(&f, in.data, in.len - 1, 1 << 20, &out), BW_ERR_CORRUPT);
    bw_buf_free(&in);
    bw_buf_free(&out);
}

static void test_filter_by_header_and_value_keeps_what_has_it(void **state)
{
    (void)state;
    bw_buf in = {0}, out = {0};
    bw_link_text none = {0}, alarm = {(char *)(uintptr_t)"alarm", 5}, other = {(char *)(uintptr_t)"other", 5};
    char name[] = "kind";
    add_batch(&in, "a", 7, 0, false);
    bw_link_filter f = {.key_prefix = &none, .header_value = &alarm, .header = name};
    assert_int_equal(bw_link_filter_run(&f, in.data, in.len, 1 << 20, &out), BW_OK);
    assert_int_equal(count_all(out.data, out.len).records, 3);
    out.len = 0;
    f.header_value = &other;
    assert_int_equal(bw_link_filter_run(&f, in.data, in.len, 1 << 20, &out), BW_OK);
    assert_int_equal(out.len, 0);
    bw_buf_free(&in);
    bw_buf_free(&out);
}

static void test_filter_control_batches_are_for_mirrors_only(void **state)
{
    (void)state;
    bw_buf in = {0}, out = {0};
    bw_link_text none = {0};
    add_batch(&in, "a", 1, 0, true);
    bw_link_filter f = {.key_prefix = &none, .header_value = &none, .mirror = true};
    assert_int_equal(bw_link_filter_run(&f, in.data, in.len, 1 << 20, &out), BW_OK);
    assert_int_equal(out.len, in.len);
    out.len = 0;
    f.mirror = false;
    assert_int_equal(bw_link_filter_run(&f, in.data, in.len, 1 << 20, &out), BW_OK);
    assert_int_equal(out.len, 0);
    bw_buf_free(&in);
    bw_buf_free(&out);
}

static size_t merge(const bw_buf *in, const bw_merge_input *like, bw_vector *v, bw_buf *out)
{
    bw_merge_input input = *like;
    bw_merged *list;
    size_t n, records = 0;
    input.data = in->data;
    input.len = in->len;
    input.max_plain = 1 << 20;
    assert_int_equal(bw_merge_encode(&input, v, &list, &n), BW_OK);
    for (size_t i = 0; i < n; i++) {
        bw_batch_header h;
        assert_int_equal(bw_batch_header_decode(list[i].batch, list[i].len, false, &h), BW_OK);
        assert_int_equal(h.base_sequence, BW_MERGE_SEQUENCE);
        records += (size_t)h.record_count;
        if (out) assert_int_equal(bw_buf_append(out, list[i].batch, list[i].len), BW_OK);
    }
    bw_merged_free(list, n);
    return records;
}

static void test_merge_admits_each_record_once_and_drops_its_own(void **state)
{
    (void)state;
    bw_buf in = {0}, at_b = {0}, at_c = {0};
    bw_vector b = {0}, c = {0}, again = {0};
    bw_merge_input from_a = {.source = {.partition = 3}}, from_b = {.source = {.partition = 3}}, to_a;
    from_a.source.origin.b[0] = 'A';
    from_b.source.origin.b[0] = 'B';
    from_a.own.b[0] = 'B';
    add_batch(&in, "a", 5, 10, false);
    assert_int_equal(merge(&in, &from_a, &b, &at_b), 5);
    assert_int_equal(merge(&in, &from_a, &b, NULL), 0); /* once more */
    assert_non_null(strstr(count_all(at_b.data, at_b.len).mark, ".3@14"));
    from_b.own.b[0] = 'C'; /* by way of B, then from A itself */
    assert_int_equal(merge(&at_b, &from_b, &c, &at_c), 5);
    from_a.own.b[0] = 'C';
    assert_int_equal(merge(&in, &from_a, &c, NULL), 0);
    to_a = from_b;
    to_a.own.b[0] = 'A'; /* come round */
    bw_vector a = {0};
    assert_int_equal(merge(&at_c, &to_a, &a, NULL), 0);
    bw_batch_header h;
    bw_buf plain = {0};
    assert_int_equal(bw_batch_header_decode(at_c.data, at_c.len, false, &h), BW_OK);
    assert_int_equal(bw_merge_note(at_c.data, &h, 1 << 20, &plain, &again), BW_OK); /* as after a crash */
    assert_int_equal(bw_vector_next(&again, BW_VECTOR_RECORDS, &from_a.source), 15);
    bw_buf_free(&plain);
    bw_vector_free(&a);
    bw_vector_free(&b);
    bw_vector_free(&c);
    bw_vector_free(&again);
    bw_buf_free(&in);
    bw_buf_free(&at_b);
    bw_buf_free(&at_c);
}

static void test_merge_mark_of_a_plain_producer_is_not_believed(void **state)
{
    (void)state;
    bw_buf in = {0};
    bw_batch_builder b;
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    uint8_t *batch;
    size_t len;
    char text[BW_MARK_TEXT_MAX];
    bw_mark forged = {.offset = 1000000};
    forged.log.origin.b[0] = 'A';
    bw_header h = {BW_ORIGIN_HEADER, sizeof BW_ORIGIN_HEADER - 1, text, bw_mark_print(&forged, text)};
    bw_record r = {.value = "v", .value_len = 1, .headers = &h, .header_count = 1, .timestamp_ms = 5};
    bw_batch_builder_init(&b);
    assert_int_equal(bw_batch_builder_add(&b, &r), BW_OK);
    assert_int_equal(bw_batch_builder_finish(&b, &o, &batch, &len), BW_OK);
    assert_int_equal(bw_buf_append(&in, batch, len), BW_OK);
    bw_vector v = {0};
    bw_merge_input input = {.source = {.partition = 0}};
    input.source.origin.b[0] = 'S';
    input.own.b[0] = 'B';
    assert_int_equal(merge(&in, &input, &v, NULL), 1);
    assert_int_equal(bw_vector_next(&v, BW_VECTOR_RECORDS, &input.source), 1);
    assert_int_equal(bw_vector_next(&v, BW_VECTOR_RECORDS, &forged.log), 0);
    bw_vector_free(&v);
    bw_batch_builder_fini(&b);
    bw_buf_free(&in);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_filter_by_key_keeps_offsets_and_drops_batches_without_any),
        cmocka_unit_test(test_filter_by_header_and_value_keeps_what_has_it),
        cmocka_unit_test(test_filter_control_batches_are_for_mirrors_only),
        cmocka_unit_test(test_merge_admits_each_record_once_and_drops_its_own),
        cmocka_unit_test(test_merge_mark_of_a_plain_producer_is_not_believed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
