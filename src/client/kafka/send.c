/* client/kafka/send.c: records to a cluster, and their outcomes.
 *
 * A topic is asked for when it is first sent to, so that one that is not there is said at once and not after librdkafka's patience.
 * A batch goes to one partition in its order; on the cluster it may be cut into several (whole or not at all is what a transaction gives). */
#include "client/kafka/producer.h"

#include "format/names.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LOOK_UP_LEAST_MS = 5000 };

/* ---- topics ---- */

static bw_err refresh(bw_kproducer *p, bw_ktopic *t, bw_deadline deadline)
{
    int32_t count = 0;
    bw_err e = bw_kafka_partitions(p->bus, p->rk, t->name, true, deadline, &count);
    if (!e) atomic_store(&t->partitions, count);
    return e;
}

static bw_err new_topic(bw_kproducer *p, const char *name, bw_deadline deadline, bw_ktopic **out)
{
    bw_err e = bw_topic_name_check(name, strlen(name));
    if (e) return e;
    bw_ktopic *t = calloc(1, sizeof *t), *other = NULL;
    if (!t) return bw_fail(BW_ERR_NO_MEMORY, "no memory for topic %s", name);
    memcpy(t->name, name, strlen(name) + 1);
    e = refresh(p, t, deadline);
    if (!e && !(t->rkt = RK(topic_new)(p->rk, name, NULL))) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for topic %s", name);
    if (e) {
        free(t);
        return e;
    }
    pthread_mutex_lock(&p->mutex);
    HASH_FIND_STR(p->topics, name, other); /* another thread was as quick */
    if (!other) {
        HASH_ADD_STR(p->topics, name, t);
        if (!t->hh.tbl) e = bw_fail(BW_ERR_NO_MEMORY, "no memory for topic %s", name);
    }
    pthread_mutex_unlock(&p->mutex);
    if (e || other) {
        RK(topic_destroy)(t->rkt);
        free(t);
    }
    *out = other ? other : t;
    return e;
}

static bw_err find_topic(bw_kproducer *p, const char *name, int32_t partition, int32_t timeout_ms, bw_ktopic **out)
{
    bw_ktopic *t;
    bw_err e = BW_OK;
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms >= 0 && timeout_ms < LOOK_UP_LEAST_MS ? LOOK_UP_LEAST_MS : timeout_ms);
    deadline = bw_deadline_first(deadline, bw_bus_request_deadline(p->bus->bus));
    pthread_mutex_lock(&p->mutex);
    HASH_FIND_STR(p->topics, name, t);
    pthread_mutex_unlock(&p->mutex);
    if (!t) e = new_topic(p, name, deadline, &t);
    else if (atomic_load(&t->partitions) == 0 || partition >= atomic_load(&t->partitions)) e = refresh(p, t, deadline);
    if (e) return e;
    if (partition != BW_PARTITION_ANY && (partition < 0 || partition >= atomic_load(&t->partitions)))
        return bw_fail(BW_ERR_UNKNOWN_PARTITION, "topic %s has no partition %d; it has %d", name, partition, atomic_load(&t->partitions));
    *out = t;
    return BW_OK;
}

/* ---- outcomes ---- */

/* Under the mutex. */
static void settle_wait(bw_kmsg *m, rd_kafka_resp_err_t error)
{
    bw_kwait *w = m->wait;
    if (m->error && !w->error) {
        w->error = m->error;
        snprintf(w->message, sizeof w->message, "topic %s partition %d: %s (librdkafka: %s)", m->topic->name, m->partition, RK(err2str)(error),
                 RK(err2name)(error));
    }
    if (w->placed && !w->abandoned) w->placed[m->index] = (bw_placed){m->offset, m->error ? -1 : m->partition, m->error};
    if (m->index == 0) {
        w->partition = m->partition;
        w->offset = m->offset;
        w->timestamp_ms = m->timestamp_ms;
    }
    if (--w->left == 0 && w->abandoned) free(w);
}

void bw_kmsg_done(rd_kafka_t *rk, const rd_kafka_message_t *r, void *opaque)
{
    (void)rk;
    (void)opaque;
    bw_kmsg *m = r->_private;
    bw_kproducer *p = m->producer;
    rd_kafka_timestamp_type_t type;
    int64_t stamp = RK(message_timestamp)(r, &type);
    bw_bus *bus = p->bus->bus;
    m->error = bw_kafka_error(r->err);
    m->partition = r->partition;
    m->offset = r->err || r->offset < 0 ? -1 : r->offset;
    if (type != RD_KAFKA_TIMESTAMP_NOT_AVAILABLE) m->timestamp_ms = stamp;
    if (m->error == BW_ERR_UNKNOWN_TOPIC || m->error == BW_ERR_UNKNOWN_PARTITION) atomic_store(&m->topic->partitions, 0); /* the next asks anew */
    if (!r->err) {
        atomic_fetch_add_explicit(&bus->records_out, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&bus->bytes_out, r->len + r->key_len, memory_order_relaxed);
    } else {
        char text[400];
        snprintf(text, sizeof text, "topic %s partition %d: %s (librdkafka: %s)", m->topic->name, m->partition, RK(err2str)(r->err),
                 RK(err2name)(r->err));
        if (p->producer->txn) bw_ptxn_fail(p->producer->txn, m->error, text);
        if (m->callback) m->message = strdup(text);
    }
    pthread_mutex_lock(&p->mutex);
    if (m->wait) settle_wait(m, r->err);
    if (m->callback) {
        m->next = NULL;
        *p->done_tail = m;
        p->done_tail = &m->next;
        uint64_t one = 1;
        if (p->event_fd >= 0 && write(p->event_fd, &one, sizeof one) < 0) {} /* full is as good */
    } else {
        p->outstanding--;
        free(m);
    }
    pthread_mutex_unlock(&p->mutex);
}

/* ---- sending ---- */

static bw_err make_headers(const bw_record *r, rd_kafka_headers_t **out)
{
    *out = NULL;
    if (r->header_count == 0) return BW_OK;
    if (!r->headers) return bw_fail(BW_ERR_INVALID_ARGUMENT, "a record with %zu headers has none", r->header_count);
    rd_kafka_headers_t *h = RK(headers_new)(r->header_count);
    for (size_t i = 0; i < r->header_count; i++) {
        const bw_header *from = &r->headers[i];
        rd_kafka_resp_err_t error = from->name || !from->name_len
                                        ? RK(header_add)(h, from->name ? from->name : "", (ssize_t)from->name_len, from->value,
                                                         (ssize_t)from->value_len)
                                        : RD_KAFKA_RESP_ERR__INVALID_ARG;
        if (error) {
            RK(headers_destroy)(h);
            return bw_kafka_fail(error, NULL, "header %zu", i);
        }
    }
    *out = h;
    return BW_OK;
}

static bw_err check_record(const bw_record *r)
{
    if ((!r->key && r->key_len) || (!r->value && r->value_len))
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a record's key or value is NULL and has a length");
    if (r->timestamp_ms < 0 && r->timestamp_ms != BW_NO_TIMESTAMP)
        return bw_fail(BW_ERR_INVALID_ARGUMENT, "a record's timestamp is before 1970 (%lld ms)", (long long)r->timestamp_ms);
    if (r->timestamp_ms == 0)
        return bw_fail(BW_ERR_UNSUPPORTED, "a timestamp of 0 ms: not on a Kafka cluster: librdkafka takes it for none; 1 is the earliest");
    return BW_OK;
}

/* m is librdkafka's when this is OK. Waits for room until the deadline. */
static bw_err produce(bw_kproducer *p, bw_kmsg *m, int32_t partition, const bw_record *r, int32_t timeout_ms, bw_deadline deadline)
{
    rd_kafka_headers_t *headers;
    bw_err e = check_record(r);
    if (!e) e = make_headers(r, &headers);
    if (e) return e;
    m->timestamp_ms = r->timestamp_ms;
    pthread_mutex_lock(&p->mutex);
    p->outstanding++; /* before its outcome can come */
    pthread_mutex_unlock(&p->mutex);
    for (;;) {
        int64_t stamp = r->timestamp_ms == BW_NO_TIMESTAMP ? 0 : r->timestamp_ms;
        rd_kafka_resp_err_t error =
            headers ? RK(producev)(p->rk, RD_KAFKA_V_RKT(m->topic->rkt), RD_KAFKA_V_PARTITION(partition),
                                   RD_KAFKA_V_VALUE((void *)(uintptr_t)r->value, r->value_len), RD_KAFKA_V_KEY(r->key, r->key_len),
                                   RD_KAFKA_V_TIMESTAMP(stamp), RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                   RD_KAFKA_V_OPAQUE(m), RD_KAFKA_V_END)
                    : RK(producev)(p->rk, RD_KAFKA_V_RKT(m->topic->rkt), RD_KAFKA_V_PARTITION(partition),
                                   RD_KAFKA_V_VALUE((void *)(uintptr_t)r->value, r->value_len), RD_KAFKA_V_KEY(r->key, r->key_len),
                                   RD_KAFKA_V_TIMESTAMP(stamp), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_OPAQUE(m),
                                   RD_KAFKA_V_END);
        if (!error) return BW_OK;
        bool full = error == RD_KAFKA_RESP_ERR__QUEUE_FULL;
        pthread_mutex_lock(&p->mutex);
        if (full && timeout_ms != 0 && bw_deadline_left_ns(deadline) > 0) {
            bw_kproducer_serve(p, false, deadline);
            pthread_mutex_unlock(&p->mutex);
            continue;
        }
        p->outstanding--;
        pthread_mutex_unlock(&p->mutex);
        if (headers) RK(headers_destroy)(headers);
        if (full) return bw_fail(BW_ERR_QUEUE_FULL, "buffer_memory is full: poll, or wait longer");
        if (p->producer->txn && error == RD_KAFKA_RESP_ERR__STATE) {
            bw_ptxn_fail(p->producer->txn, BW_ERR_INVALID_TXN_STATE, "librdkafka takes no more records for this transaction");
            return bw_ptxn_check_send(p->producer->txn);
        }
        return bw_kafka_fail(error, NULL, "topic %s", m->topic->name);
    }
}

bw_err bw_kafka_send(bw_producer *producer, const char *topic, int32_t partition, const bw_record *record, bw_delivery_fn callback, void *opaque,
                     int32_t timeout_ms)
{
    bw_kproducer *p = producer->foreign;
    bw_ktopic *t;
    bw_err e = find_topic(p, topic, partition, timeout_ms, &t);
    if (e) return e;
    bw_kmsg *m = calloc(1, sizeof *m);
    if (!m) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a record");
    m->producer = p;
    m->topic = t;
    m->callback = callback;
    m->opaque = opaque;
    e = produce(p, m, partition, record, timeout_ms, bw_deadline_in_ms(timeout_ms));
    if (e) free(m);
    return e;
}

/* ---- synchronously ---- */

static bw_err no_outcome(bw_delivery *out, bw_err e)
{
    if (out) *out = (bw_delivery){.error = e, .partition = -1, .offset = -1, .timestamp_ms = BW_NO_TIMESTAMP, .message = bw_error_message()};
    return e;
}

/* Waits for what was sent. false: the time is over; w is its last outcome's to free. */
static bool wait_for(bw_kproducer *p, bw_kwait *w, const bw_ktopic *t, int32_t timeout_ms, bw_deadline deadline)
{
    bool hurry = p->producer->options.linger_ms > 0;
    pthread_mutex_lock(&p->mutex);
    while (w->left && (timeout_ms < 0 || bw_deadline_left_ns(deadline) > 0)) bw_kproducer_serve(p, hurry, deadline);
    bool done = w->left == 0;
    if (!done) w->abandoned = true;
    pthread_mutex_unlock(&p->mutex);
    if (done) return true;
    char what[BW_TOPIC_NAME_MAX + 64];
    snprintf(what, sizeof what, "topic %s: the outcome is not known", t->name);
    (void)bw_kafka_fail_wait(p->bus, RD_KAFKA_RESP_ERR__TIMED_OUT, what); /* its message says why */
    return false;
}

/* One record more that w waits for. */
static bw_err produce_one(bw_kproducer *p, bw_ktopic *t, bw_kwait *w, size_t index, int32_t partition, const bw_record *r, int32_t timeout_ms,
                          bw_deadline deadline)
{
    bw_kmsg *m = calloc(1, sizeof *m);
    if (!m) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a batch");
    m->producer = p;
    m->topic = t;
    m->wait = w;
    m->index = index;
    pthread_mutex_lock(&p->mutex);
    w->left++;
    pthread_mutex_unlock(&p->mutex);
    bw_err e = produce(p, m, partition, r, timeout_ms, deadline);
    if (!e) return BW_OK;
    pthread_mutex_lock(&p->mutex);
    w->left--;
    pthread_mutex_unlock(&p->mutex);
    free(m);
    return e;
}

/* Sends and waits. What could not be sent ends it, when what was sent before has its outcome. */
static bw_err send_all(bw_kproducer *p, bw_ktopic *t, int32_t partition, const bw_record *records, size_t count, int32_t timeout_ms,
                       bw_delivery *out, bw_placed *placed)
{
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    bw_kwait *w = calloc(1, sizeof *w);
    if (!w) return no_outcome(out, bw_fail(BW_ERR_NO_MEMORY, "no memory for a batch"));
    w->placed = placed;
    bw_err e = BW_OK;
    char why[512];
    for (size_t i = 0; i < count && !e; i++) {
        e = produce_one(p, t, w, i, partition, &records[i], timeout_ms, deadline);
        for (size_t j = i; e && placed && j < count; j++) placed[j] = (bw_placed){-1, -1, e};
    }
    if (e) snprintf(why, sizeof why, "%s", bw_error_message());
    if (!wait_for(p, w, t, timeout_ms, deadline)) return no_outcome(out, e ? bw_error_set_message(e, why) : BW_ERR_TIMED_OUT);
    if (e) e = bw_error_set_message(e, why);
    else if (w->error) e = bw_error_set_message(w->error, w->message);
    if (e) no_outcome(out, e);
    else if (out) *out = (bw_delivery){BW_OK, w->partition, w->offset, w->timestamp_ms, (int32_t)count, t->name, NULL};
    free(w);
    return e;
}

bw_err bw_kafka_send_batch(bw_producer *producer, const char *topic, int32_t partition, const bw_record *records, size_t count, int32_t timeout_ms,
                           bw_delivery *out)
{
    bw_kproducer *p = producer->foreign;
    bw_ktopic *t;
    bw_err e = find_topic(p, topic, partition, timeout_ms, &t);
    for (size_t i = 0; i < count && !e; i++) e = check_record(&records[i]); /* none is sent when one can't be */
    return e ? no_outcome(out, e) : send_all(p, t, partition, records, count, timeout_ms, out, NULL);
}

bw_err bw_kafka_send_many(bw_producer *producer, const char *topic, int32_t partition, const bw_record *records, size_t count, int32_t timeout_ms,
                          bw_placed *placed)
{
    bw_kproducer *p = producer->foreign;
    bw_ktopic *t;
    bw_err e = find_topic(p, topic, partition, timeout_ms, &t);
    return e || count == 0 ? e : send_all(p, t, partition, records, count, timeout_ms, NULL, placed);
}
