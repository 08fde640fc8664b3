/* tests/unit/broker/offsets_fixture.h: requests of committed offsets, and a look into the store that has them. */
#ifndef BW_TESTS_OFFSETS_FIXTURE_H
#define BW_TESTS_OFFSETS_FIXTURE_H

#include "fixture.h"

#include "broker/offsets_layout.h"
#include "meta/store.h"

typedef struct outcome {
    bw_err error; /* of the answer, or of its only part */
    int64_t offset, timestamp;
    int32_t epoch;
    char metadata[128], message[600];
} outcome;

static inline void copy_str(char *out, size_t size, bw_str s)
{
    size_t n = s.len < size ? s.len : size - 1;
    if (n) memcpy(out, s.data, n);
    out[n] = 0;
}

static inline bw_request rq_part(bw_api_key type, const char *group, const char *topic, int partition)
{
    bw_request r = rq(type, "");
    r.group.id = bw_str_of(group);
    if (!topic) return r;
    r.group.parts = calloc(1, sizeof *r.group.parts);
    r.group.parts[0] = (bw_offset_part){.topic = bw_str_of(topic), .partition = partition, .offset = -1, .leader_epoch = -1, .timestamp = -1};
    r.group.part_count = 1;
    return r;
}

static inline outcome ask_part(fixture *fx, fake *f, bw_request *r)
{
    answer a;
    outcome o = {.error = fake_call(fx, f, r, &a), .offset = -1};
    copy_str(o.message, sizeof o.message, a.a.message);
    if (!o.error && a.a.group.part_count == 1) {
        const bw_offset_part *p = &a.a.group.parts[0];
        o.error = (bw_err)p->error;
        o.offset = p->offset;
        o.epoch = p->leader_epoch;
        o.timestamp = p->timestamp;
        copy_str(o.metadata, sizeof o.metadata, p->metadata);
        copy_str(o.message, sizeof o.message, p->message);
    }
    if (o.error) print_message("  answered %s: %s\n", bw_err_name(o.error), o.message);
    answer_free(&a);
    return o;
}

static inline bw_err commit(fixture *fx, fake *f, const char *group, const char *topic, int partition, int64_t offset)
{
    bw_request r = rq_part(BW_API_OFFSET_COMMIT, group, topic, partition);
    r.group.parts[0].offset = offset;
    return ask_part(fx, f, &r).error;
}

static inline outcome committed(fixture *fx, fake *f, const char *group, const char *topic, int partition)
{
    bw_request r = rq_part(BW_API_OFFSET_FETCH, group, topic, partition);
    return ask_part(fx, f, &r);
}

static inline void fill(fixture *fx, fake *f, const char *topic, int partition, int records)
{
    batch_spec s = BATCH_SPEC;
    s.timestamp = bw_clock_wall_ms(); /* old ones would roll the segment */
    for (int i = 0; i < records; i++) assert_int_equal(produce(fx, f, topic, partition, &s, BW_ACKS_DURABLE, NULL), BW_OK);
}

static inline void make_topic(fixture *fx, fake *f, const char *topic, int partitions, int records)
{
    assert_int_equal(rq_create(fx, f, topic, partitions, NULL, NULL), BW_OK);
    fill(fx, f, topic, 0, records);
}

static inline bool count_entry(void *opaque, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)key, (void)key_len, (void)value, (void)value_len;
    ++*(size_t *)opaque;
    return true;
}

/* The daemon is down. */
static inline size_t stored_offsets(fixture *fx)
{
    size_t n = 0;
    bw_store *s;
    assert_int_equal(bw_store_open(fx->config.data_dir, 1 << 20, &s), BW_OK);
    assert_int_equal(bw_store_each(s, BW_TABLE_OFFSETS, NULL, 0, count_entry, &n), BW_OK);
    bw_store_close(s);
    return n;
}

#endif
