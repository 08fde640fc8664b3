/* tests/unit/broker/fixture.h: a real broker in a temporary folder, and sessions that are no sockets. */
#ifndef BW_TESTS_BROKER_FIXTURE_H
#define BW_TESTS_BROKER_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"
#include "base/err.h"
#include "broker/broker.h"
#include "format/record_batch.h"

#include <busway/consumer.h>
#include <busway/producer.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 10000

typedef struct fixture {
    char dir[64];
    bw_daemon_config config;
    bw_broker *broker;
} fixture;

typedef struct heard {
    struct heard *next;
    bw_buf frame;
} heard;

typedef struct fake {
    bw_session *session;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    heard *first, *last;
    uint32_t correlation;
    int consumed, gone;
    size_t backlog; /* what is told to the broker */
} fake;

/* An answer with the memory that it points into. */
typedef struct answer {
    bw_answer a;
    bw_buf frame;
} answer;

/* ---- the session's side ---- */

static inline void fake_reply(void *s, const bw_answer *a)
{
    fake *f = s;
    heard *h = calloc(1, sizeof *h);
    assert_non_null(h);
    assert_int_equal(bw_answer_encode(a, &h->frame, false), BW_OK);
    pthread_mutex_lock(&f->lock);
    if (f->last) f->last->next = h;
    else f->first = h;
    f->last = h;
    pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->lock);
}
static inline void fake_consumed(void *s, void *token)
{
    fake *f = s;
    free(token);
    pthread_mutex_lock(&f->lock);
    f->consumed++;
    pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->lock);
}
static inline size_t fake_backlog(void *s)
{
    fake *f = s;
    pthread_mutex_lock(&f->lock);
    size_t n = f->backlog;
    pthread_mutex_unlock(&f->lock);
    return n;
}
static inline void fake_gone(void *s)
{
    fake *f = s;
    pthread_mutex_lock(&f->lock);
    f->gone++;
    pthread_cond_broadcast(&f->cond);
    pthread_mutex_unlock(&f->lock);
}
static const bw_session_ops fake_ops = {fake_reply, fake_consumed, fake_backlog, fake_gone};

static inline void fake_open_as(fixture *fx, fake *f, int64_t uid, int64_t gid)
{
    memset(f, 0, sizeof *f);
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&f->cond, &attr);
    bw_peer peer = {.uid = uid, .gid = gid, .pid = getpid()};
    snprintf(peer.address, sizeof peer.address, "test %d", (int)getpid());
    f->session = bw_broker_session_open(fx->broker, &fake_ops, f, &peer);
    assert_non_null(f->session);
}
static inline void fake_open(fixture *fx, fake *f) { fake_open_as(fx, f, geteuid(), getegid()); }

static inline bool fake_wait(fake *f, bool (*cond)(const fake *), int64_t ms)
{
    int64_t until = bw_clock_mono_ns() + ms * 1000000;
    struct timespec t = {until / 1000000000, until % 1000000000};
    pthread_mutex_lock(&f->lock);
    bool ok;
    while (!(ok = cond(f)) && bw_clock_mono_ns() < until) pthread_cond_timedwait(&f->cond, &f->lock, &t);
    pthread_mutex_unlock(&f->lock);
    return ok;
}
static inline bool fake_is_gone(const fake *f) { return f->gone > 0; }
static inline bool fake_has_heard(const fake *f) { return f->first != NULL; }

static inline void fake_free(fake *f)
{
    while (f->first) {
        heard *h = f->first;
        f->first = h->next;
        bw_buf_free(&h->frame);
        free(h);
    }
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->cond);
}

static inline void fake_close(fixture *fx, fake *f)
{
    bw_broker_session_closed(fx->broker, f->session);
    assert_true(fake_wait(f, fake_is_gone, WAIT_MS));
    fake_free(f);
}

/* The next frame that came, or false after ms. */
static inline bool fake_next(fake *f, int64_t ms, answer *out)
{
    memset(out, 0, sizeof *out);
    if (!fake_wait(f, fake_has_heard, ms)) return false;
    pthread_mutex_lock(&f->lock);
    heard *h = f->first;
    f->first = h->next;
    if (!f->first) f->last = NULL;
    pthread_mutex_unlock(&f->lock);
    out->frame = h->frame;
    free(h);
    bw_frame frame;
    size_t used, need;
    assert_int_equal(bw_frame_parse(out->frame.data, out->frame.len, SIZE_MAX >> 1, &frame, &used, &need), BW_OK);
    assert_int_equal(bw_answer_decode(&frame, &out->a), BW_OK);
    out->a.flags = frame.flags;
    return true;
}
static inline void answer_free(answer *a)
{
    bw_answer_fini(&a->a);
    bw_buf_free(&a->frame);
}

/* The payload is copied: it lives until the broker says "consumed". Returns the correlation. */
static inline uint32_t fake_send(fixture *fx, fake *f, bw_request *r)
{
    void *token = malloc(r->payload_len + 1);
    assert_non_null(token);
    if (r->payload_len) memcpy(token, r->payload, r->payload_len);
    bw_request moved = *r;
    moved.correlation = ++f->correlation;
    if (r->payload_len) moved.payload = token;
    bw_broker_submit(fx->broker, f->session, &moved, token);
    return moved.correlation;
}
static inline bw_err fake_call(fixture *fx, fake *f, bw_request *r, answer *out)
{
    uint32_t c = fake_send(fx, f, r);
    assert_true(fake_next(f, WAIT_MS, out));
    assert_int_equal(out->a.correlation, c);
    assert_int_equal(out->a.type, r->type);
    return (bw_err)out->a.error;
}
/* Only the outcome. */
static inline bw_err fake_ask(fixture *fx, fake *f, bw_request *r)
{
    answer a;
    bw_err e = fake_call(fx, f, r, &a);
    if (e) print_message("  answered %s: %.*s\n", bw_err_name(e), (int)a.a.message.len, a.a.message.data);
    answer_free(&a);
    return e;
}

/* ---- the broker ---- */

static inline void fx_event(void *opaque, bw_log_level level, const char *event, const char *fields)
{
    (void)opaque;
    if (level <= BW_LOG_WARN || getenv("BW_TEST_EVENTS")) print_message("  event %s %s\n", event, fields);
}

static inline void fx_config(fixture *fx)
{
    bw_daemon_config_init(&fx->config);
    fx->config.data_dir = malloc(128);
    snprintf(fx->config.data_dir, 128, "%s/data", fx->dir);
    assert_int_equal(bw_daemon_config_check(&fx->config), BW_OK);
    fx->config.event = fx_event;
    assert_int_equal(bw_daemon_config_set(&fx->config, "file.delete.delay.ms", "0"), BW_OK);
}
static inline void fx_up(fixture *fx)
{
    bw_err e = bw_broker_start(&fx->config, &fx->broker);
    if (e) print_message("start: %s\n", bw_error_message());
    assert_int_equal(e, BW_OK);
}
static inline void fx_down(fixture *fx)
{
    bw_broker_stop(fx->broker);
    fx->broker = NULL;
}
static inline int fx_make(void **state)
{
    fixture *fx = calloc(1, sizeof *fx);
    strcpy(fx->dir, "/tmp/busway-broker-XXXXXX");
    if (!mkdtemp(fx->dir)) return -1;
    fx_config(fx);
    *state = fx;
    return 0;
}
static inline int fx_setup(void **state)
{
    if (fx_make(state)) return -1;
    fx_up(*state);
    return 0;
}
static inline int fx_teardown(void **state)
{
    fixture *fx = *state;
    char command[128];
    fx_down(fx);
    bw_daemon_config_fini(&fx->config);
    snprintf(command, sizeof command, "rm -rf %s", fx->dir);
    int rc = system(command);
    free(fx);
    return rc;
}

/* ---- requests ---- */

static inline bw_request rq(bw_api_key type, const char *topic)
{
    bw_request r;
    bw_request_init(&r, type);
    r.topic = bw_str_of(topic);
    return r;
}
static inline bw_err rq_create(fixture *fx, fake *f, const char *topic, int partitions, const char *name, const char *value)
{
    bw_request r = rq(BW_API_CREATE_TOPIC, topic);
    r.partitions = partitions;
    if (name) {
        r.configs = calloc(1, sizeof *r.configs);
        r.configs[0] = (bw_config_pair){bw_str_of(name), bw_str_of(value), value != NULL};
        r.config_count = 1;
    }
    return fake_ask(fx, f, &r);
}

typedef struct batch_spec {
    int count;
    size_t value_bytes;
    bw_codec codec;
    int64_t producer_id;
    int16_t epoch;
    int32_t sequence;
    int64_t timestamp;
    bool transactional;
} batch_spec;
#define BATCH_SPEC {1, 10, BW_CODEC_NONE, -1, -1, -1, 1000, false}

static inline void make_batch(const batch_spec *s, bw_buf *out)
{
    bw_batch_builder b;
    bw_batch_builder_init(&b);
    char *value = malloc(s->value_bytes + 1);
    for (int i = 0; i < s->count; i++) {
        memset(value, 'a' + i % 26, s->value_bytes);
        bw_record r = {.value = value, .value_len = s->value_bytes, .timestamp_ms = s->timestamp + i};
        assert_int_equal(bw_batch_builder_add(&b, &r), BW_OK);
    }
    bw_batch_options o = BW_BATCH_OPTIONS_INIT;
    o.codec = s->codec;
    o.producer_id = s->producer_id;
    o.producer_epoch = s->epoch;
    o.base_sequence = s->sequence;
    o.transactional = s->transactional;
    uint8_t *data;
    size_t len;
    assert_int_equal(bw_batch_builder_finish(&b, &o, &data, &len), BW_OK);
    out->len = 0;
    assert_int_equal(bw_buf_append(out, data, len), BW_OK);
    free(value);
    bw_batch_builder_fini(&b);
}
/* The answer's error; *offset when it is OK. */
static inline bw_err produce(fixture *fx, fake *f, const char *topic, int partition, const batch_spec *s, int acks, int64_t *offset)
{
    bw_buf batch = {0};
    make_batch(s, &batch);
    bw_request r = rq(BW_API_PRODUCE, topic);
    r.partition = partition;
    r.acks = (int8_t)acks;
    r.payload = batch.data;
    r.payload_len = batch.len;
    answer a;
    bw_err e = fake_call(fx, f, &r, &a);
    if (offset) *offset = a.a.offset;
    answer_free(&a);
    bw_buf_free(&batch);
    return e;
}

static inline bw_request rq_fetch(const char *topic, int partition, int64_t offset, int max_wait_ms)
{
    bw_request r = rq(BW_API_FETCH, NULL);
    r.parts = calloc(1, sizeof *r.parts);
    r.parts[0] = (bw_fetch_part){bw_str_of(topic), partition, offset, 1 << 20};
    r.part_count = 1;
    r.max_wait_ms = max_wait_ms;
    return r;
}
/* Walks batches: how many records, and whether offsets go on from `next` without a gap. */
static inline int count_records(const uint8_t *data, size_t len, int64_t *next)
{
    int n = 0;
    while (len) {
        bw_batch_header h;
        assert_int_equal(bw_batch_header_decode(data, len, false, &h), BW_OK);
        assert_true(bw_batch_crc_ok(data, bw_batch_size(&h)));
        assert_int_equal(h.base_offset, *next);
        *next = h.base_offset + h.last_offset_delta + 1;
        n += h.record_count;
        data += bw_batch_size(&h);
        len -= bw_batch_size(&h);
    }
    return n;
}

#endif
