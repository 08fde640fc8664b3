/* client/kafka/producer.c: open, poll, flush, close. See producer.h for who polls librdkafka.
 *
 * acks. none: acks=0, and then without idempotence. visible and durable: acks=all, since on a cluster both are the replicas' promise (a
 * broker does not sync to disk before it answers); visible without enable_idempotence: acks=1, the leader's alone. */
#include "client/kafka/producer.h"

#include "base/lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { POLL_SLICE_MS = 100, HURRY_SLICE_MS = 5, FLUSH_SLICE_MS = 100 };

static const char *const codecs[] = {"none", "gzip", "snappy", "lz4", "zstd"};

static bw_err make_conf(bw_kproducer *p, rd_kafka_conf_t **out)
{
    const bw_producer_options *o = &p->producer->options;
    const bw_ptxn *txn = p->producer->txn;
    bw_err e = bw_kafka_conf_new(p->bus, out);
    if (e) return e;
    rd_kafka_conf_t *conf = *out;
    bool idempotent = txn || (o->enable_idempotence && o->acks != BW_ACKS_NONE);
    int64_t most_kb = (int64_t)(o->buffer_memory / 1024);
    int64_t timeout_ms = txn && txn->timeout_ms < o->delivery_timeout_ms ? txn->timeout_ms : o->delivery_timeout_ms;
    bw_kafka_conf_set(conf, &e, "acks", o->acks == BW_ACKS_NONE ? "0" : idempotent || o->acks == BW_ACKS_DURABLE ? "all" : "1");
    bw_kafka_conf_set(conf, &e, "enable.idempotence", idempotent ? "true" : "false");
    bw_kafka_conf_set(conf, &e, "partitioner", "murmur2_random"); /* as Kafka's Java client, and sticky without a key */
    bw_kafka_conf_set(conf, &e, "compression.type", codecs[o->compression]);
    bw_kafka_conf_set_int(conf, &e, "linger.ms", o->linger_ms);
    bw_kafka_conf_set_int(conf, &e, "batch.size", o->batch_size);
    bw_kafka_conf_set_int(conf, &e, "queue.buffering.max.kbytes", most_kb < 1 ? 1 : most_kb > INT32_MAX ? INT32_MAX : most_kb);
    bw_kafka_conf_set_int(conf, &e, "delivery.timeout.ms", timeout_ms);
    if (!bw_kafka_conf_is_given(p->bus, "queue.buffering.max.messages"))
        bw_kafka_conf_set(conf, &e, "queue.buffering.max.messages", "10000000"); /* buffer_memory is the bound */
    if (!bw_kafka_conf_is_given(p->bus, "message.max.bytes"))
        bw_kafka_conf_set(conf, &e, "message.max.bytes", "104857600"); /* the topic's max.message.bytes is the bound */
    if (txn) {
        bw_kafka_conf_set(conf, &e, "transactional.id", txn->id);
        bw_kafka_conf_set_int(conf, &e, "transaction.timeout.ms", txn->timeout_ms);
    }
    RK(conf_set_dr_msg_cb)(conf, bw_kmsg_done);
    if (e) RK(conf_destroy)(conf);
    return e;
}

static void kproducer_free(bw_kproducer *p)
{
    bw_ktopic *t, *next;
    HASH_ITER(hh, p->topics, t, next)
    {
        HASH_DELETE(hh, p->topics, t);
        if (t->rkt) RK(topic_destroy)(t->rkt);
        free(t);
    }
    if (p->queue) {
        RK(queue_io_event_enable)(p->queue, -1, NULL, 0);
        RK(queue_destroy)(p->queue);
    }
    if (p->rk) RK(destroy_flags)(p->rk, 0);
    if (p->offsets) RK(topic_partition_list_destroy)(p->offsets);
    free(p->offsets_group);
    if (p->event_fd >= 0) close(p->event_fd);
    pthread_mutex_destroy(&p->mutex);
    pthread_cond_destroy(&p->changed);
    free(p);
}

bw_err bw_kafka_producer_open(bw_producer *producer)
{
    bw_kproducer *p = calloc(1, sizeof *p);
    if (!p) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a producer");
    p->producer = producer;
    p->bus = bw_kbus_of(producer->bus);
    p->done_tail = &p->done;
    p->event_fd = -1;
    bw_cond_init(&p->changed);
    pthread_mutex_init(&p->mutex, NULL);
    rd_kafka_conf_t *conf = NULL;
    bw_err e = make_conf(p, &conf);
    if (!e) e = bw_kafka_new(p->bus, RD_KAFKA_PRODUCER, conf, &p->rk);
    if (e) kproducer_free(p);
    else producer->foreign = p;
    return e;
}

/* ---- outcomes ---- */

void bw_kproducer_serve(bw_kproducer *p, bool hurry, bw_deadline deadline)
{
    bw_deadline slice = bw_deadline_first(deadline, bw_deadline_in_ms(hurry ? HURRY_SLICE_MS : POLL_SLICE_MS));
    if (p->polling) {
        struct timespec until = {slice / 1000000000, slice % 1000000000};
        pthread_cond_timedwait(&p->changed, &p->mutex, &until);
        return;
    }
    p->polling = true;
    pthread_mutex_unlock(&p->mutex);
    int left = bw_kafka_left_ms(slice);
    if (hurry) RK(flush)(p->rk, left);
    else RK(poll)(p->rk, left);
    pthread_mutex_lock(&p->mutex);
    p->polling = false;
    pthread_cond_broadcast(&p->changed);
}

int bw_kproducer_deliver(bw_kproducer *p)
{
    bw_kmsg *list = p->done;
    int ran = 0;
    p->done = NULL;
    p->done_tail = &p->done;
    pthread_mutex_unlock(&p->mutex);
    while (list) {
        bw_kmsg *m = list;
        list = m->next;
        bw_delivery d = {m->error, m->partition, m->offset, m->timestamp_ms, 1, m->topic->name,
                         m->error ? m->message ? m->message : bw_err_text(m->error) : NULL};
        m->callback(m->opaque, &d);
        ran++;
        free(m->message);
        free(m);
    }
    pthread_mutex_lock(&p->mutex);
    p->outstanding -= (uint64_t)ran;
    if (ran) pthread_cond_broadcast(&p->changed);
    return ran;
}

int bw_kafka_producer_poll(bw_producer *producer, int32_t timeout_ms)
{
    bw_kproducer *p = producer->foreign;
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    uint64_t rings;
    pthread_mutex_lock(&p->mutex);
    if (p->event_fd >= 0 && read(p->event_fd, &rings, sizeof rings) < 0) {} /* nothing there */
    if (!p->done) bw_kproducer_serve(p, false, timeout_ms == 0 ? bw_clock_mono_ns() : deadline);
    while (!p->done && timeout_ms != 0 && bw_deadline_left_ns(deadline) > 0) bw_kproducer_serve(p, false, deadline);
    int ran = bw_kproducer_deliver(p);
    pthread_mutex_unlock(&p->mutex);
    return ran;
}

int bw_kafka_producer_fd(bw_producer *producer)
{
    bw_kproducer *p = producer->foreign;
    static const uint64_t one = 1;
    pthread_mutex_lock(&p->mutex);
    if (p->event_fd < 0) {
        p->event_fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK); /* something may be there */
        if (p->event_fd < 0) bw_fail_errno(errno, "can't make a producer's eventfd");
        else if ((p->queue = RK(queue_get_main)(p->rk))) RK(queue_io_event_enable)(p->queue, p->event_fd, &one, sizeof one);
    }
    int fd = p->event_fd;
    pthread_mutex_unlock(&p->mutex);
    return fd;
}

bw_err bw_kafka_flush(bw_producer *producer, int32_t timeout_ms)
{
    bw_kproducer *p = producer->foreign;
    bw_deadline deadline = bw_deadline_in_ms(timeout_ms);
    bw_err e = BW_OK;
    pthread_mutex_lock(&p->mutex);
    for (;;) {
        bw_kproducer_deliver(p);
        if (p->done) continue;
        if (p->outstanding == 0) break;
        if (timeout_ms >= 0 && bw_deadline_left_ns(deadline) == 0) {
            char what[96];
            snprintf(what, sizeof what, "%llu records are still without an outcome", (unsigned long long)p->outstanding);
            (void)bw_kafka_fail_wait(p->bus, RD_KAFKA_RESP_ERR__TIMED_OUT, what); /* its message says why */
            e = BW_ERR_TIMED_OUT;
            break;
        }
        bw_kproducer_serve(p, true, deadline);
    }
    pthread_mutex_unlock(&p->mutex);
    return e;
}

bw_err bw_kafka_producer_close(bw_producer *producer, int32_t timeout_ms)
{
    bw_kproducer *p = producer->foreign;
    bw_err e = bw_kafka_flush(producer, timeout_ms);
    atomic_store(&producer->closed, true);
    pthread_mutex_lock(&p->mutex);
    if (p->outstanding) { /* each gets its callback: librdkafka gives what it has up, and says so */
        pthread_mutex_unlock(&p->mutex);
        RK(purge)(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        while (RK(outq_len)(p->rk) > 0 && RK(poll)(p->rk, FLUSH_SLICE_MS) > 0) {}
        pthread_mutex_lock(&p->mutex);
        for (bw_kmsg *m = p->done; m; m = m->next)
            if (m->error == BW_ERR_TRANSACTION_ABORTABLE) m->error = BW_ERR_TIMED_OUT;
    }
    while (p->done) bw_kproducer_deliver(p);
    pthread_mutex_unlock(&p->mutex);
    kproducer_free(p);
    producer->foreign = NULL;
    return e;
}
