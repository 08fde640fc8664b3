/* bench/peers/kafka/kafka.c: Apache Kafka through librdkafka. acks=1; BATCH 0: the library's own batching with linger.ms=5, as is
 * recommended for throughput; else exactly so many messages a batch (batch.num.messages), and one is sent at once (linger 0).
 * Reading: batches from the consumer's queue. WHERE is host:port/topic; PARTITIONS are written in turn; round trip: partition 0
 * there, 1 back. */
#include "../peer.h"

#include <librdkafka/rdkafka.h>

static char why[512];
static uint64_t acknowledged;

static void acknowledge(rd_kafka_t *k, const rd_kafka_message_t *m, void *opaque)
{
    (void)k, (void)opaque;
    if (m->err) peer_die("delivery", rd_kafka_err2str(m->err));
    acknowledged++;
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value)
{
    if (rd_kafka_conf_set(conf, name, value, why, sizeof why) != RD_KAFKA_CONF_OK) peer_die(name, why);
}

static rd_kafka_t *client(const peer *p, rd_kafka_type_t type, const char *brokers)
{
    char batch[32];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    set(conf, "bootstrap.servers", brokers);
    if (type == RD_KAFKA_PRODUCER) {
        int throughput = peer_is(p, "write") && p->batch != 1;
        snprintf(batch, sizeof batch, "%llu", (unsigned long long)(p->batch ? p->batch : 10000));
        set(conf, "acks", "1");
        set(conf, "batch.num.messages", batch);
        set(conf, "linger.ms", throughput ? "5" : "0");
        set(conf, "queue.buffering.max.messages", p->batch == 1 ? "100000" : "1000000");
        rd_kafka_conf_set_dr_msg_cb(conf, acknowledge);
    } else {
        set(conf, "group.id", "bench");
        set(conf, "enable.auto.commit", "false");
        set(conf, "auto.offset.reset", "earliest");
        set(conf, "allow.auto.create.topics", "true"); /* the topic is new for each run */
        set(conf, "topic.metadata.refresh.fast.interval.ms", "50");
        set(conf, "queued.min.messages", "1000000");
    }
    rd_kafka_t *k = rd_kafka_new(type, conf, why, sizeof why);
    if (!k) peer_die("client", why);
    return k;
}

static void send_one(rd_kafka_t *k, const char *topic, int32_t partition, void *value, size_t len)
{
    for (;;) {
        rd_kafka_resp_err_t e =
            rd_kafka_producev(k, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition), RD_KAFKA_V_VALUE(value, len),
                              RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        if (!e) return;
        if (e != RD_KAFKA_RESP_ERR__QUEUE_FULL) peer_die("produce", rd_kafka_err2str(e));
        rd_kafka_poll(k, 1);
    }
}

/* A consumer of partitions from..to-1 from offset 0. */
static rd_kafka_t *consumer(const peer *p, const char *brokers, const char *topic, int32_t from, int32_t to)
{
    rd_kafka_t *k = client(p, RD_KAFKA_CONSUMER, brokers);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(to - from);
    rd_kafka_poll_set_consumer(k);
    for (int32_t i = from; i < to; i++) rd_kafka_topic_partition_list_add(list, topic, i)->offset = 0;
    rd_kafka_resp_err_t e = rd_kafka_assign(k, list);
    if (e) peer_die("assign", rd_kafka_err2str(e));
    rd_kafka_topic_partition_list_destroy(list);
    return k;
}

static void take_one(peer *p, rd_kafka_t *k)
{
    rd_kafka_message_t *m = NULL;
    while (!m || m->err) {
        if (m) rd_kafka_message_destroy(m);
        m = rd_kafka_consumer_poll(k, 1000);
    }
    peer_take(p, m->payload, m->len);
    rd_kafka_message_destroy(m);
}

static void take_many(peer *p, rd_kafka_t *k)
{
    static rd_kafka_message_t *m[1000];
    rd_kafka_queue_t *q = rd_kafka_queue_get_consumer(k);
    while (peer_wants(p)) {
        ssize_t n = rd_kafka_consume_batch_queue(q, 1000, m, 1000);
        if (n < 0) peer_die("consume", rd_kafka_err2str(rd_kafka_last_error()));
        for (ssize_t i = 0; i < n; i++) {
            if (!m[i]->err) peer_take(p, m[i]->payload, m[i]->len);
            rd_kafka_message_destroy(m[i]);
        }
    }
    rd_kafka_queue_destroy(q);
}

typedef struct turns {
    rd_kafka_t *producer, *consumer;
    const char *topic;
    uint8_t *record;
} turns;

static void turn(peer *p, void *of)
{
    turns *t = of;
    send_one(t->producer, t->topic, 0, t->record, p->record_bytes);
    take_one(p, t->consumer);
    rd_kafka_poll(t->producer, 0);
}

int main(int argc, char **argv)
{
    peer p;
    turns t = {0};
    char brokers[200];
    int exact = argc > 3 && strcmp(argv[3], "0") != 0;
    if (argc > 3 && !exact) argv[3] = "1";
    peer_init(&p, argc, argv);
    if (!exact) p.batch = 0;
    snprintf(brokers, sizeof brokers, "%.*s", (int)strcspn(p.where, "/"), p.where);
    t.topic = p.where + strcspn(p.where, "/") + 1;
    t.record = peer_records(&p, 1);
    if (!peer_is(&p, "read")) t.producer = client(&p, RD_KAFKA_PRODUCER, brokers);
    if (peer_is(&p, "write")) {
        for (uint64_t i = 0; i < p.warm + p.records; i++) {
            send_one(t.producer, t.topic, (int32_t)(i % p.partitions), t.record, p.record_bytes);
            if (i % 1000 == 0) rd_kafka_poll(t.producer, 0);
        }
        rd_kafka_flush(t.producer, 60000);
        if (acknowledged != p.warm + p.records) peer_die("write", "not all was acknowledged");
    } else if (peer_is(&p, "read")) {
        t.consumer = consumer(&p, brokers, t.topic, 0, (int32_t)p.partitions);
        peer_ready();
        take_many(&p, t.consumer);
        peer_report_rate(&p);
    } else if (peer_is(&p, "pong")) {
        t.consumer = consumer(&p, brokers, t.topic, 0, 1);
        peer_ready();
        while (peer_wants(&p)) {
            take_one(&p, t.consumer);
            send_one(t.producer, t.topic, 1, t.record, p.record_bytes);
            rd_kafka_poll(t.producer, 0);
        }
        rd_kafka_flush(t.producer, 10000);
    } else {
        t.consumer = consumer(&p, brokers, t.topic, 1, 2);
        peer_ping(&p, turn, &t);
    }
    fflush(stdout);
    _Exit(0); /* librdkafka's farewell takes seconds and is not measured */
}
