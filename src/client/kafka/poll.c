/* client/kafka/poll.c: bw_consumer_poll on a cluster: librdkafka's events one by one, a run of messages of one partition as a batch.
 *
 * A run ends where its partition, or the gapless order of its offsets, or the batch's one append time ends, or when it is large enough;
 * the event that ended it is held. The batch is encoded anew in the format that bw_batch_next reads. */
#include "client/kafka/consumer.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RUN_MAX_RECORDS = 10000, RUN_MAX_BYTES = 1 << 20, HEADERS_ON_STACK = 32, WAIT_SLICE_MS = 1000 };

/* ---- records ---- */

static bw_err fill_headers(const rd_kafka_message_t *m, bw_header *few, bw_header **out, size_t *count)
{
    rd_kafka_headers_t *headers;
    *out = few;
    *count = 0;
    if (RK(message_headers)(m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR) return BW_OK;
    size_t n = RK(header_cnt)(headers);
    if (n > HEADERS_ON_STACK && !(*out = malloc(n * sizeof **out))) return bw_fail(BW_ERR_NO_MEMORY, "no memory for %zu headers", n);
    for (size_t i = 0; i < n; i++) {
        bw_header *h = &(*out)[i];
        if (RK(header_get_all)(headers, i, &h->name, &h->value, &h->value_len)) break;
        h->name_len = strlen(h->name);
        *count = i + 1;
    }
    return BW_OK;
}

static bw_err add_message(bw_kconsumer *k, const rd_kafka_message_t *m, int64_t delta, int64_t timestamp)
{
    bw_header few[HEADERS_ON_STACK], *headers;
    bw_record r = {.key = m->key, .key_len = m->key_len, .value = m->payload, .value_len = m->len};
    bw_err e = fill_headers(m, few, &headers, &r.header_count);
    r.headers = headers;
    r.timestamp_ms = timestamp < 0 ? 0 : timestamp;
    k->builder.count = (int32_t)delta; /* the record's offset within the batch is by this */
    if (!e) e = bw_batch_builder_add(&k->builder, &r);
    if (headers != few) free(headers);
    return e;
}

/* A run under way. */
typedef struct run {
    bw_kpart *part;
    rd_kafka_topic_t *rkt;
    rd_kafka_timestamp_type_t type;
    int64_t base, next, append_time;
    int32_t count;
} run;

/* false: the message ends the run. */
static bool belongs(const run *r, const bw_kconsumer *k, const rd_kafka_message_t *m, rd_kafka_timestamp_type_t type, int64_t timestamp)
{
    if (m->rkt != r->rkt || m->partition != r->part->partition || m->offset != r->next || type != r->type) return false;
    if (type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME && timestamp != r->append_time) return false;
    return r->count < RUN_MAX_RECORDS && k->builder.buf.len < RUN_MAX_BYTES;
}

/* The message's event is held (false) or done with. */
static bool take_message(bw_kconsumer *k, run *r, rd_kafka_event_t *event, const rd_kafka_message_t *m, bw_err *e)
{
    rd_kafka_timestamp_type_t type;
    int64_t timestamp = RK(message_timestamp)(m, &type);
    if (r->count && !belongs(r, k, m, type, timestamp)) {
        k->held = event;
        k->held_message = m;
        return false;
    }
    bw_kpart *p = r->count ? r->part : bw_kpart_find(k, RK(topic_name)(m->rkt), m->partition);
    bool wanted = p && !p->stopped && !p->restart && (p->position < 0 || m->offset >= p->position);
    if (wanted && p->paused) p->restart = true;
    if (wanted && !p->paused) {
        if (r->count == 0) {
            bw_batch_builder_reset(&k->builder);
            *r = (run){.part = p, .rkt = m->rkt, .type = type, .base = m->offset, .append_time = timestamp};
        }
        *e = add_message(k, m, m->offset - r->base, timestamp);
        if (!*e) {
            r->count++;
            r->next = m->offset + 1;
        }
    }
    RK(event_destroy)(event);
    return !*e;
}

static void give(bw_kconsumer *k, const run *r, bw_batch *b)
{
    bw_bus *bus = k->consumer->bus;
    const bw_batch_builder *builder = &k->builder;
    bool append = r->type == RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME;
    r->part->position = r->next;
    k->given = r->part;
    *b = (bw_batch){
        .topic = r->part->topic,
        .partition = r->part->partition,
        .leader_epoch = -1,
        .base_offset = r->base,
        .last_offset = r->next - 1,
        .count = r->count,
        .timestamp_type = append                                            ? BW_TIMESTAMP_LOG_APPEND
                          : r->type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE ? BW_TIMESTAMP_NONE
                                                                            : BW_TIMESTAMP_CREATE,
        .base_timestamp_ms = builder->base_timestamp,
        .max_timestamp_ms = append ? r->append_time : builder->max_timestamp,
        .it_at = builder->buf.data + BW_BATCH_HEADER_BYTES,
        .it_end = builder->buf.data + builder->buf.len,
        .it_from = r->base,
        .it_left = r->count,
    };
    atomic_fetch_add_explicit(&bus->records_in, (uint64_t)r->count, memory_order_relaxed);
    atomic_fetch_add_explicit(&bus->bytes_in, builder->buf.len - BW_BATCH_HEADER_BYTES, memory_order_relaxed);
    atomic_fetch_add_explicit(&bus->batches_in, 1, memory_order_relaxed);
}

/* ---- errors ---- */

static bw_err name_part(bw_kpart *p, bw_batch *b, bw_err e)
{
    b->topic = p->topic;
    b->partition = p->partition;
    return e;
}

/* The position is outside the log, or librdkafka has found no committed one: by auto_offset_reset, or the error. */
static bw_err out_of_range(bw_kconsumer *k, bw_kpart *p, bw_batch *b)
{
    bw_offset_reset reset = k->consumer->options.auto_offset_reset;
    int64_t start, end;
    bw_err e = bw_kafka_log_range(k->bus, k->rk, p->topic, p->partition, bw_bus_request_deadline(k->bus->bus), &start, &end);
    if (!e && reset != BW_RESET_ERROR) {
        p->position = reset == BW_RESET_EARLIEST ? start : end;
        e = bw_kpart_restart(k, p);
        if (!e) return BW_OK;
    }
    p->stopped = true;
    if (e) return name_part(p, b, bw_error_context(e, "an offset is out of range, and the range is not known"));
    if (p->position < 0) {
        p->untold = true;
        return BW_OK;
    }
    return name_part(p, b, bw_fail(BW_ERR_OFFSET_OUT_OF_RANGE, "topic %s partition %d has offsets %lld to %lld, not %lld; seek", p->topic,
                                   p->partition, (long long)start, (long long)end, (long long)p->position));
}

/* Of one partition. OK: nothing to be told. */
static bw_err part_error(bw_kconsumer *k, bw_kpart *p, rd_kafka_resp_err_t code, int64_t offset, const char *text, bw_batch *b)
{
    switch (code) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        if (!p->restart && !p->stopped && offset > p->position) {
            p->position = offset;
            k->given = p;
        }
        return BW_OK;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        return p->stopped ? BW_OK : out_of_range(k, p, b);
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        if (p->stopped) return BW_OK;
        p->stopped = true;
        return name_part(p, b, bw_fail(BW_ERR_DELETED, "topic %s partition %d is not there any more", p->topic, p->partition));
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
        bw_kafka_note(k->bus, code, text); /* librdkafka goes on by itself */
        return BW_OK;
    default:
        return name_part(p, b, bw_kafka_fail(code, text, "topic %s partition %d", p->topic, p->partition));
    }
}

/* Of the whole consumer: what ends or refuses membership is told, what librdkafka repeats by itself is noted. */
static bw_err whole_error(bw_kconsumer *k, rd_kafka_resp_err_t code, const char *text, bool fatal)
{
    char why[512];
    if (fatal) {
        code = RK(fatal_error)(k->rk, why, sizeof why);
        return bw_kafka_fail(code, why, "this consumer can only be closed");
    }
    switch (code) {
    case RD_KAFKA_RESP_ERR_INCONSISTENT_GROUP_PROTOCOL:
    case RD_KAFKA_RESP_ERR_GROUP_MAX_SIZE_REACHED:
    case RD_KAFKA_RESP_ERR_INVALID_GROUP_ID:
    case RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT:
    case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
        return k->group ? bw_kafka_fail(code, text, "group %s", k->group) : BW_OK;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR__SSL:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
        bw_kafka_note(k->bus, code, text);
        return bw_kafka_fail(code, text, "kafka://%s", k->bus->brokers);
    default:
        bw_kafka_note(k->bus, code, text);
        return BW_OK;
    }
}

static bw_err take_error(bw_kconsumer *k, rd_kafka_event_t *event, bw_batch *b)
{
    rd_kafka_resp_err_t code = RK(event_error)(event);
    const char *text = RK(event_error_string)(event);
    rd_kafka_topic_partition_t *at = RK(event_topic_partition)(event);
    bw_kpart *p = at ? bw_kpart_find(k, at->topic, at->partition) : NULL;
    bw_err e = BW_OK;
    if (p) e = part_error(k, p, code, at->offset, text, b);
    else if (!at) e = whole_error(k, code, text, RK(event_error_is_fatal)(event));
    if (at) RK(topic_partition_destroy)(at);
    return e;
}

/* ---- polling ---- */

static rd_kafka_event_t *next_event(bw_kconsumer *k, const rd_kafka_message_t **m)
{
    rd_kafka_event_t *event = k->held;
    *m = k->held_message;
    k->held = NULL;
    k->held_message = NULL;
    if (event) return event;
    event = RK(queue_poll)(k->queue, 0);
    if (event && RK(event_type)(event) == RD_KAFKA_EVENT_FETCH) *m = RK(event_message_next)(event);
    return event;
}

/* OK: a batch, or an error of the group that was waiting. EMPTY: nothing is there. */
static bw_err gather(bw_kconsumer *k, bw_batch *b)
{
    run r = {0};
    bw_err e = BW_OK;
    for (;;) {
        const rd_kafka_message_t *m = NULL;
        rd_kafka_event_t *event = next_event(k, &m);
        if (!event) break;
        int type = RK(event_type)(event);
        if (type == RD_KAFKA_EVENT_FETCH && m && !m->err) {
            if (!take_message(k, &r, event, m, &e)) break;
            continue;
        }
        if (r.count) {
            k->held = event;
            break;
        }
        if (type == RD_KAFKA_EVENT_REBALANCE) bw_kgroup_rebalance(k, event);
        else if (type == RD_KAFKA_EVENT_ERROR) e = take_error(k, event, b);
        RK(event_destroy)(event);
        if (e || k->lost) break;
    }
    if (e && r.part) {
        r.part->restart = true; /* what was gathered before memory ran out is fetched again */
        (void)bw_kpart_restart(k, r.part);
    }
    if (e) return e;
    if (r.count) give(k, &r, b);
    else if (k->lost) {
        bw_err lost = k->lost;
        k->lost = BW_OK;
        b->topic = k->lost_topic;
        b->partition = k->lost_partition;
        return bw_fail(lost, "group %s: this member was away for too long and lost its partitions; it joins again", k->group);
    }
    return r.count ? BW_OK : BW_ERR_EMPTY;
}

/* Partitions that had nothing committed and have no reset: each is told once. */
static bw_err tell_no_offset(bw_kconsumer *k, bw_batch *b)
{
    for (bw_kpart *p = k->parts; p; p = p->hh.next) {
        if (!p->untold) continue;
        p->untold = false;
        return name_part(p, b, bw_fail(BW_ERR_NO_OFFSET, "group %s has committed nothing for topic %s partition %d; seek, or set auto_offset_reset",
                                       k->group, p->topic, p->partition));
    }
    return BW_OK;
}

static void wait_for_more(bw_kconsumer *k, int32_t timeout_ms, bw_deadline deadline)
{
    int left = bw_kafka_left_ms(deadline);
    if (timeout_ms < 0 || left > WAIT_SLICE_MS) left = WAIT_SLICE_MS; /* librdkafka wants to see that the program polls */
    struct pollfd p = {.fd = k->event_fd, .events = POLLIN};
    poll(&p, 1, left);
}

bw_err bw_kafka_poll(bw_consumer *c, int32_t timeout_ms, bw_batch *batch)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    bw_err e = bw_kconsumer_check_call(k, "bw_consumer_poll");
    *batch = (bw_batch){.partition = -1};
    if (e) return e;
    bw_kgroup_store(k, false);
    for (;;) {
        uint64_t rings;
        if (read(k->event_fd, &rings, sizeof rings) < 0) {} /* nothing there */
        if (atomic_exchange(&k->woken, 0)) return BW_ERR_WOKEN;
        if (k->commits) bw_kcommits_serve(k, 0);
        e = gather(k, batch);
        if (e == BW_ERR_EMPTY && k->group && (e = tell_no_offset(k, batch)) == BW_OK) e = BW_ERR_EMPTY;
        if (e != BW_ERR_EMPTY) return e;
        if (timeout_ms >= 0 && bw_deadline_left_ns(deadline) == 0) return BW_ERR_TIMED_OUT;
        wait_for_more(k, timeout_ms, deadline);
    }
}
