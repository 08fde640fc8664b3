/* tests/unit/log/compact_fixture.h: a log with keys, an oracle of the last values, and what must hold after the log was cleaned. */
#ifndef COMPACT_FIXTURE_H
#define COMPACT_FIXTURE_H

#include "log_fixture.h"

#include "format/batch_filter.h"
#include "log/compact.h"
#include "log/offset_map.h"

#include <busway/inspect.h>
#include <signal.h>
#include <sys/mman.h>

enum { KEYS_MAX = 4096 };

/* What was written last for each key: the oracle. */
typedef struct oracle {
    int64_t offset[KEYS_MAX]; /* -1: nothing */
    uint32_t version[KEYS_MAX];
    bool dead[KEYS_MAX]; /* a tombstone */
    uint32_t versions;
    int64_t next;
} oracle;

static inline oracle *oracle_new(void)
{
    oracle *o = calloc(1, sizeof *o);
    assert_non_null(o);
    for (int i = 0; i < KEYS_MAX; i++) o->offset[i] = -1;
    return o;
}

typedef struct shape {
    int records;      /* a batch */
    size_t value_len; /* at least 8 */
    bw_codec codec;
    int64_t producer_id; /* -1 */
    int16_t attributes;  /* BW_ATTR_TRANSACTIONAL */
    bool counts;         /* for the oracle: false: of a transaction that will be aborted */
} shape;
#define PLAIN_SHAPE {4, 300, BW_CODEC_NONE, -1, 0, true}

static inline void append_bytes(log_fixture *f, const uint8_t *batch, size_t len, int count, int64_t *base)
{
    bw_appender *a = log_appender(f, false);
    bw_append_result r;
    bw_err e = BW_ERR_NO_COORDINATOR;
    for (int tries = 0; e == BW_ERR_NO_COORDINATOR && tries < 2000; tries++) {
        assert_int_equal(bw_partition_tend(f->p, NULL), BW_OK);
        e = bw_append(a, batch, len, count, f->next_ts, bw_deadline_in_ms(5), &r);
    }
    if (e) fail_msg("append: %s: %s", bw_err_name(e), bw_error_message());
    bw_appender_close(a);
    if (base) *base = r.base_offset;
}

/* One batch with these keys; key < 0: none; tombstones where dead says so. */
static inline void write_batch(log_fixture *f, oracle *o, const shape *s, const int *keys, const bool *dead)
{
    char key[KEYS_MAX > 9999 ? 32 : 24];
    uint8_t *value = malloc(s->value_len);
    bw_batch_builder_reset(&f->builder);
    for (int i = 0; i < s->records; i++) {
        int n = snprintf(key, sizeof key, "key-%d", keys[i]);
        uint32_t version = ++o->versions;
        memset(value, 'a' + (int)(version % 26), s->value_len);
        memcpy(value, &version, 4);
        bool gone = dead && dead[i];
        bw_record r = {.key = keys[i] < 0 ? NULL : key, .key_len = keys[i] < 0 ? 0 : (size_t)n, .value = gone ? NULL : value,
                       .value_len = gone ? 0 : s->value_len, .timestamp_ms = f->next_ts};
        assert_int_equal(bw_batch_builder_add(&f->builder, &r), BW_OK);
        if (keys[i] >= 0 && s->counts) {
            o->offset[keys[i]] = o->next + i;
            o->version[keys[i]] = version;
            o->dead[keys[i]] = gone;
        }
    }
    free(value);
    uint8_t *batch;
    size_t len;
    bw_batch_options bo = BW_BATCH_OPTIONS_INIT;
    bo.codec = s->codec;
    bo.producer_id = s->producer_id;
    bo.producer_epoch = s->producer_id < 0 ? -1 : 0;
    bo.base_sequence = s->producer_id < 0 ? -1 : (int32_t)o->next;
    bo.transactional = s->attributes & BW_ATTR_TRANSACTIONAL;
    assert_int_equal(bw_batch_builder_finish(&f->builder, &bo, &batch, &len), BW_OK);
    int64_t base;
    append_bytes(f, batch, len, s->records, &base);
    assert_int_equal(base, o->next);
    o->next += s->records;
    f->next_ts++;
}

/* n batches over keys [0, keys), round and round. */
static inline void write_round(log_fixture *f, oracle *o, const shape *s, int n, int keys)
{
    int list[64];
    for (int i = 0, k = 0; i < n; i++) {
        for (int j = 0; j < s->records; j++) list[j] = k++ % keys;
        write_batch(f, o, s, list, NULL);
    }
}

static inline void write_marker(log_fixture *f, oracle *o, int64_t producer_id, bool commit)
{
    uint8_t key[4] = {0, 0, 0, commit}, value[6] = {0};
    bw_batch_builder_reset(&f->builder);
    bw_record r = {.key = key, .key_len = 4, .value = value, .value_len = 6, .timestamp_ms = f->next_ts};
    assert_int_equal(bw_batch_builder_add(&f->builder, &r), BW_OK);
    uint8_t *batch;
    size_t len;
    bw_batch_options bo = BW_BATCH_OPTIONS_INIT;
    bo.producer_id = producer_id;
    bo.producer_epoch = 0;
    bo.transactional = true;
    assert_int_equal(bw_batch_builder_finish(&f->builder, &bo, &batch, &len), BW_OK);
    bw_put_be16(batch + 21, (uint16_t)(bw_get_be16(batch + 21) | BW_ATTR_CONTROL));
    bw_batch_seal_crc(batch, len);
    append_bytes(f, batch, len, 1, NULL);
    o->next++;
    f->next_ts++;
}

/* Everything on the disk; the active segment closed and another one begun, so that all before it may be cleaned. */
static inline void settle(log_fixture *f)
{
    assert_int_equal(bw_partition_sync(f->p), BW_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(bw_partition_tend(f->p, NULL), BW_OK);
    assert_int_equal(bw_partition_sync(f->p), BW_OK);
    assert_int_equal(bw_partition_tend(f->p, NULL), BW_OK);
}

static inline void fill_active(log_fixture *f, oracle *o)
{
    bw_partition_info before, now;
    bw_partition_info_get(f->p, &before);
    shape s = {1, 4000, BW_CODEC_NONE, -1, 0, true};
    do {
        int key = KEYS_MAX - 1;
        write_batch(f, o, &s, &key, NULL);
        bw_partition_info_get(f->p, &now);
    } while (now.segments == before.segments);
    settle(f);
}

static inline bw_compact_options options(void)
{
    return (bw_compact_options){.min_dirty_ratio = 0.5, .max_lag_ms = INT64_MAX, .delete_retention_ms = 86400000, .dedupe_bytes = 4 << 20,
                                .now_ms = bw_clock_wall_ms(), .max_plain = 64 << 20, .producer_expiration_ms = 86400000, .force = true};
}

static inline bw_compact_report compact(log_fixture *f, const bw_compact_options *given)
{
    bw_compact_options o = given ? *given : options();
    bw_compact_report r;
    bw_err e = bw_partition_compact(f->p, &o, &r);
    if (e) fail_msg("compact: %s: %s", bw_err_name(e), bw_error_message());
    assert_int_equal(log_count_files(f, ".cleaned", NULL) + log_count_files(f, ".swap", NULL), 0);
    return r;
}

typedef struct seen {
    int64_t offset[KEYS_MAX];
    uint32_t version[KEYS_MAX];
    bool dead[KEYS_MAX];
    int count[KEYS_MAX];
    int records, keyless, batches, empty, control, horizons;
    int64_t last;
} seen;

static inline bool see(void *opaque, const bw_record_view *r)
{
    seen *s = opaque;
    assert_true(r->offset > s->last);
    s->last = r->offset;
    s->records++;
    if (!r->key) {
        s->keyless++;
        return true;
    }
    int key = -1;
    char text[32] = "";
    memcpy(text, r->key, r->key_len < 31 ? r->key_len : 31);
    assert_int_equal(sscanf(text, "key-%d", &key), 1);
    s->offset[key] = r->offset;
    s->dead[key] = r->value == NULL;
    if (r->value) memcpy(&s->version[key], r->value, 4);
    s->count[key]++;
    return true;
}

static inline void read_batch(seen *s, const bw_batch_ref *b)
{
    bw_buf plain = {0};
    s->batches++;
    s->empty += b->header.record_count == 0;
    s->horizons += (b->header.attributes & BW_ATTR_DELETE_HORIZON) != 0;
    if (b->header.attributes & BW_ATTR_CONTROL) s->control++;
    else assert_int_equal(bw_batch_each(b->data, &b->header, 1 << 26, &plain, see, s), BW_OK);
    bw_buf_free(&plain);
}

/* Reads it all. upto: the log's end that must be reached. */
static inline seen *read_log(log_fixture *f, bool use_pread, int64_t from)
{
    seen *s = calloc(1, sizeof *s);
    for (int i = 0; i < KEYS_MAX; i++) s->offset[i] = -1;
    s->last = -1;
    bw_reader *r;
    bw_reader_options o = {.control = f->control, .dir_fd = bw_partition_dir_fd(f->p), .check_crcs = true, .use_pread = use_pread};
    assert_int_equal(bw_reader_open(&o, &r), BW_OK);
    bw_reader_seek(r, from);
    bw_batch_ref b;
    bw_err e;
    while ((e = bw_reader_next(r, &b)) == BW_OK) read_batch(s, &b);
    if (e != BW_ERR_EMPTY) fail_msg("read: %s: %s", bw_err_name(e), bw_error_message());
    assert_int_equal(bw_reader_position(r), bw_slot_end_offset(&f->control->slots[0]));
    bw_reader_close(r);
    return s;
}

/* The last value of each key is there, and is what a reader ends with; below `clean` nothing older. */
static inline void check_last_values(log_fixture *f, const oracle *o, int64_t clean)
{
    for (int pread = 0; pread < 2; pread++) {
        seen *s = read_log(f, pread, 0);
        for (int i = 0; i < KEYS_MAX; i++) {
            if (o->dead[i] && s->offset[i] < 0) continue; /* a tombstone that went */
            assert_int_equal(s->offset[i], o->offset[i]);
            if (o->offset[i] < 0) continue;
            assert_int_equal(s->dead[i], o->dead[i]);
            if (!o->dead[i]) assert_int_equal(s->version[i], o->version[i]);
            if (o->offset[i] < clean) assert_int_equal(s->count[i], 1);
        }
        free(s);
    }
}

static inline void say(void *opaque, const bw_finding *x)
{
    (void)opaque;
    if (x->is_error) print_error("%s at %llu: %s\n", x->path, (unsigned long long)x->position, x->message);
}

static inline void check_verify(log_fixture *f)
{
    bw_verify_totals t;
    bw_err e = bw_verify(f->data, say, NULL, NULL, &t);
    if (e) fail_msg("verify: %s", bw_error_message());
    assert_int_equal(t.errors, 0);
}

static inline oracle *begin(log_fixture *f, uint32_t segment_bytes)
{
    log_init(f, segment_bytes);
    log_open(f, true);
    f->next_ts = bw_clock_wall_ms() - 100000;
    return oracle_new();
}

static inline void end(log_fixture *f, oracle *o)
{
    free(o);
    log_fini(f);
}

#endif
