/* support/links.c: see links.h. */
#include "support/links.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void link_add(const char *url, const char *name, const char *const *options)
{
    bw_config_entry list[16];
    char texts[16][512];
    size_t n = 0;
    for (; options[n]; n++) {
        snprintf(texts[n], sizeof texts[n], "%s", options[n]);
        char *equals = strchr(texts[n], '=');
        *equals = 0;
        list[n] = (bw_config_entry){texts[n], equals + 1};
    }
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    assert_ok(bw_link_add(bus, name, list, n));
    bw_bus_close(bus);
}

static json_t *describe(const char *url, const char *name)
{
    char *text = NULL;
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    assert_ok(bw_link_describe(bus, name, &text));
    json_t *doc = json_loads(text, 0, NULL);
    bw_free(text);
    bw_bus_close(bus);
    assert_non_null(doc);
    return doc;
}

long long link_number(const char *url, const char *name, const char *field)
{
    json_t *doc = describe(url, name);
    long long v = json_integer_value(json_object_get(doc, field));
    json_decref(doc);
    return v;
}

const char *link_text(const char *url, const char *name, const char *field)
{
    static char text[512];
    json_t *doc = describe(url, name);
    const char *v = json_string_value(json_object_get(doc, field));
    snprintf(text, sizeof text, "%s", v ? v : "");
    json_decref(doc);
    return text;
}

int64_t end_of(const char *url, const char *topic, int32_t partition)
{
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    bw_offset_range range = {0};
    bw_err e = bw_offsets_range(bus, topic, partition, &range);
    bw_bus_close(bus);
    return e ? -1 : range.end;
}

void wait_for_end(const char *url, const char *topic, int32_t partition, int64_t end, int timeout_ms)
{
    int64_t until = now_ms() + timeout_ms, got = -1;
    while (now_ms() < until && (got = end_of(url, topic, partition)) < end) usleep(5000);
    if (got < end) fail_msg("%s of %s ends at %lld, not %lld", topic, url, (long long)got, (long long)end);
}

static uint32_t mix(uint32_t sum, const void *data, size_t len)
{
    for (size_t i = 0; i < len; i++) sum = (sum ^ ((const uint8_t *)data)[i]) * 16777619u;
    return sum;
}

static void keep(seen_list *l, size_t *cap, const bw_record_view *r)
{
    bw_header_iter it;
    bw_header h;
    if (l->count == *cap) {
        *cap = *cap ? *cap * 2 : 1024;
        l->items = realloc(l->items, *cap * sizeof *l->items);
        assert_non_null(l->items);
    }
    seen *s = &l->items[l->count++];
    *s = (seen){.offset = r->offset, .sum = 2166136261u};
    snprintf(s->value, sizeof s->value, "%.*s", (int)(r->value_len < 39 ? r->value_len : 39), r->value ? (const char *)r->value : "");
    s->sum = mix(mix(mix(s->sum, r->key, r->key_len), r->value, r->value_len), &r->timestamp_ms, sizeof r->timestamp_ms);
    bw_header_iter_init(&it, r);
    while (bw_header_iter_next(&it, &h) == 1) s->foreign |= h.name_len == 13 && !memcmp(h.name, "busway.origin", 13);
}

seen_list read_whole(const char *url, const char *topic, int32_t partition, bw_isolation isolation)
{
    seen_list l = {0};
    size_t cap = 0;
    bw_bus *bus = test_bus_by(url, BW_TRANSPORT_IPC);
    bw_offset_range range;
    assert_ok(bw_offsets_range(bus, topic, partition, &range));
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    o.isolation = isolation;
    bw_consumer *c = NULL;
    assert_ok(bw_consumer_open(bus, &o, &c));
    assert_ok(bw_consumer_assign(c, topic, partition, BW_OFFSET_BEGINNING));
    for (int64_t at = 0, idle = 0; at < range.end && idle < 20;) {
        bw_batch b;
        bw_record_view r;
        bw_err e = bw_consumer_poll(c, 100, &b);
        idle = e ? idle + 1 : 0;
        if (e && e != BW_ERR_TIMED_OUT && e != BW_ERR_EMPTY) assert_ok(e);
        while (!e && bw_batch_next(&b, &r) == 1) keep(&l, &cap, &r);
        assert_ok(bw_consumer_position(c, topic, partition, &at));
    }
    bw_consumer_close(c);
    bw_bus_close(bus);
    return l;
}

void assert_mirrors(const char *origin_url, const char *topic, const char *mirror_url, const char *mirror, int32_t partition)
{
    seen_list a = read_whole(origin_url, topic, partition, BW_READ_UNCOMMITTED), b = read_whole(mirror_url, mirror, partition, BW_READ_UNCOMMITTED);
    for (size_t i = 0; i < a.count && i < b.count; i++)
        if (a.items[i].offset != b.items[i].offset || a.items[i].sum != b.items[i].sum)
            fail_msg("record %zu: offset %lld '%s' at the origin, offset %lld '%s' in the mirror", i, (long long)a.items[i].offset, a.items[i].value,
                     (long long)b.items[i].offset, b.items[i].value);
    if (a.count != b.count) fail_msg("%zu records at the origin, %zu in the mirror", a.count, b.count);
    free(a.items);
    free(b.items);
}
