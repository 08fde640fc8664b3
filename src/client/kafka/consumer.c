/* client/kafka/consumer.c: open, close, its partitions. See consumer.h. */
#include "client/kafka/consumer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { HEARTBEAT_MS = 3000, REFRESH_MS = 5000, PAYLOAD = 8 };

/* ---- partitions ---- */

static uint32_t make_key(char *key, const char *topic, int32_t partition)
{
    size_t n = strnlen(topic, BW_TOPIC_NAME_MAX);
    memcpy(key, topic, n);
    key[n++] = 0;
    memcpy(key + n, &partition, sizeof partition);
    return (uint32_t)(n + sizeof partition);
}

bw_kpart *bw_kpart_find(const bw_kconsumer *k, const char *topic, int32_t partition)
{
    char key[BW_KPART_KEY_MAX];
    uint32_t n = make_key(key, topic, partition);
    bw_kpart *p;
    HASH_FIND(hh, k->parts, key, n, p);
    return p;
}

bw_kpart *bw_kpart_add(bw_kconsumer *k, const char *topic, int32_t partition)
{
    bw_kpart *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    p->partition = partition;
    p->position = BW_OFFSET_INVALID;
    p->key_len = make_key(p->topic, topic, partition);
    HASH_ADD(hh, k->parts, topic, p->key_len, p);
    if (p->hh.tbl) return p;
    free(p);
    return NULL;
}

void bw_kpart_remove(bw_kconsumer *k, bw_kpart *p)
{
    bw_kconsumer_drop(k, p);
    if (k->given == p) k->given = NULL;
    HASH_DELETE(hh, k->parts, p);
    free(p);
}

rd_kafka_topic_partition_list_t *bw_kpart_list(const bw_kconsumer *k, const bw_kpart *p, bool positions)
{
    rd_kafka_topic_partition_list_t *list = RK(topic_partition_list_new)(p ? 1 : (int)HASH_COUNT(k->parts));
    for (const bw_kpart *at = p ? p : k->parts; at; at = p ? NULL : at->hh.next) {
        if (positions && at->position < 0) continue;
        rd_kafka_topic_partition_t *to = RK(topic_partition_list_add)(list, at->topic, at->partition);
        to->offset = at->position >= 0 ? at->position : RD_KAFKA_OFFSET_STORED;
    }
    return list;
}

void bw_kconsumer_drop(bw_kconsumer *k, const bw_kpart *p)
{
    if (!k->held) return;
    if (p) {
        const rd_kafka_message_t *m = k->held_message;
        if (!m || m->partition != p->partition || strcmp(RK(topic_name)(m->rkt), p->topic) != 0) return;
    } else if (!k->held_message) {
        return;
    }
    RK(event_destroy)(k->held);
    k->held = NULL;
    k->held_message = NULL;
}

/* With an eager assignor librdkafka takes only whole assignments. */
static bw_err restart_all(bw_kconsumer *k)
{
    bw_kconsumer_drop(k, NULL);
    rd_kafka_topic_partition_list_t *list = bw_kpart_list(k, NULL, false);
    rd_kafka_resp_err_t r = RK(assign)(k->rk, list);
    if (!r) {
        rd_kafka_topic_partition_list_t *paused = RK(topic_partition_list_new)(1);
        for (bw_kpart *p = k->parts; p; p = p->hh.next) {
            p->live = true;
            p->restart = false;
            if (p->paused) RK(topic_partition_list_add)(paused, p->topic, p->partition);
        }
        if (paused->cnt) RK(pause_partitions)(k->rk, paused);
        RK(topic_partition_list_destroy)(paused);
    }
    RK(topic_partition_list_destroy)(list);
    return r ? bw_kafka_fail(r, NULL, "assigning partitions") : BW_OK;
}

bw_err bw_kpart_restart(bw_kconsumer *k, bw_kpart *p)
{
    if (k->calling) { /* after the callback, with the others */
        p->restart = true;
        return BW_OK;
    }
    const char *protocol = RK(rebalance_protocol)(k->rk);
    if (k->topics && protocol && strcmp(protocol, "EAGER") == 0) return restart_all(k);
    bw_kconsumer_drop(k, p);
    rd_kafka_topic_partition_list_t *list = bw_kpart_list(k, p, false);
    rd_kafka_error_t *error = p->live ? RK(incremental_unassign)(k->rk, list) : NULL;
    if (!error) error = RK(incremental_assign)(k->rk, list);
    p->live = !error;
    p->restart = false;
    if (!error && p->paused) RK(pause_partitions)(k->rk, list);
    RK(topic_partition_list_destroy)(list);
    return bw_kafka_fail_object(error, "topic %s partition %d", p->topic, p->partition);
}

bw_err bw_kconsumer_check_call(const bw_kconsumer *k, const char *what)
{
    if (!k->calling) return BW_OK;
    return bw_fail(BW_ERR_INVALID_ARGUMENT, "%s is not possible inside a callback of the same consumer", what);
}

/* ---- open and close ---- */

static bw_err make_conf(bw_kconsumer *k, rd_kafka_conf_t **out)
{
    const bw_consumer_options *o = &k->consumer->options;
    bw_err e = bw_kafka_conf_new(k->bus, out);
    if (e) return e;
    rd_kafka_conf_t *conf = *out;
    bw_kafka_conf_set(conf, &e, "group.id", k->group ? k->group : "busway");
    if (k->instance) bw_kafka_conf_set(conf, &e, "group.instance.id", k->instance);
    bw_kafka_conf_set(conf, &e, "enable.auto.commit", k->auto_commit ? "true" : "false");
    bw_kafka_conf_set(conf, &e, "enable.auto.offset.store", "false");
    bw_kafka_conf_set(conf, &e, "enable.partition.eof", "true"); /* a position moves over what ends transactions */
    bw_kafka_conf_set(conf, &e, "auto.offset.reset", "error"); /* poll.c does it */
    bw_kafka_conf_set(conf, &e, "isolation.level", o->isolation == BW_READ_COMMITTED ? "read_committed" : "read_uncommitted");
    bw_kafka_conf_set(conf, &e, "check.crcs", o->check_crcs ? "true" : "false");
    bw_kafka_conf_set_int(conf, &e, "max.partition.fetch.bytes", o->fetch_max_bytes < INT32_MAX / 2 ? o->fetch_max_bytes : INT32_MAX / 2);
    if (k->group) {
        int32_t session = o->session_timeout_ms < o->max_poll_interval_ms ? o->session_timeout_ms : o->max_poll_interval_ms;
        bw_kafka_conf_set_int(conf, &e, "auto.commit.interval.ms", o->auto_commit_interval_ms);
        bw_kafka_conf_set_int(conf, &e, "session.timeout.ms", session);
        bw_kafka_conf_set_int(conf, &e, "max.poll.interval.ms", o->max_poll_interval_ms);
        if (!bw_kafka_conf_is_given(k->bus, "heartbeat.interval.ms"))
            bw_kafka_conf_set_int(conf, &e, "heartbeat.interval.ms", session / 3 < HEARTBEAT_MS ? session / 3 + 1 : HEARTBEAT_MS);
        if (!bw_kafka_conf_is_given(k->bus, "topic.metadata.refresh.interval.ms")) /* a pattern's new topics: not after five minutes */
            bw_kafka_conf_set_int(conf, &e, "topic.metadata.refresh.interval.ms", REFRESH_MS);
        if (!bw_kafka_conf_is_given(k->bus, "partition.assignment.strategy"))
            bw_kafka_conf_set(conf, &e, "partition.assignment.strategy", o->assignor && *o->assignor ? o->assignor : "cooperative-sticky");
    }
    RK(conf_set_events)(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_FETCH | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_OFFSET_COMMIT);
    if (e) RK(conf_destroy)(conf);
    return e;
}

static void kconsumer_free(bw_kconsumer *k)
{
    if (k->held) RK(event_destroy)(k->held);
    if (k->queue) RK(queue_io_event_enable)(k->queue, -1, NULL, 0); /* the descriptor's number may be another's soon */
    if (k->answers) RK(queue_io_event_enable)(k->answers, -1, NULL, 0);
    if (k->queue) RK(queue_destroy)(k->queue);
    if (k->answers) RK(queue_destroy)(k->answers);
    if (k->rk) bw_kafka_destroy(k->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    bw_kpart *p, *next;
    HASH_ITER(hh, k->parts, p, next)
    {
        HASH_DELETE(hh, k->parts, p);
        free(p);
    }
    for (size_t i = 0; i < k->fetched_count; i++) free(k->fetched[i]);
    free(k->fetched);
    free(k->topics);
    free(k->member);
    free(k->group);
    free(k->instance);
    bw_batch_builder_fini(&k->builder);
    if (k->event_fd >= 0) close(k->event_fd);
    free(k);
}

static bw_err open_queues(bw_kconsumer *k)
{
    static const uint64_t one = 1;
    RK(poll_set_consumer)(k->rk); /* errors and rebalances come where messages come */
    k->queue = RK(queue_get_consumer)(k->rk);
    k->answers = RK(queue_new)(k->rk);
    if (!k->queue || !k->answers) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a consumer");
    k->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (k->event_fd < 0) return bw_fail_errno(errno, "can't make a consumer's eventfd");
    RK(queue_io_event_enable)(k->queue, k->event_fd, &one, PAYLOAD);
    RK(queue_io_event_enable)(k->answers, k->event_fd, &one, PAYLOAD);
    return BW_OK;
}

bw_err bw_kafka_consumer_open(bw_consumer *c)
{
    bw_consumer_options *o = &c->options;
    if (o->group_id && o->assignor && strcmp(o->assignor, "sticky") == 0)
        return bw_fail(BW_ERR_UNSUPPORTED_ASSIGNOR, "assignor sticky: not on a Kafka cluster: librdkafka has range, roundrobin and "
                                                    "cooperative-sticky");
    bw_kconsumer *k = calloc(1, sizeof *k);
    if (!k) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a consumer");
    k->consumer = c;
    k->bus = bw_kbus_of(c->bus);
    k->event_fd = -1;
    bw_batch_builder_init(&k->builder);
    k->auto_commit = o->group_id && o->enable_auto_commit;
    bw_err e = BW_OK;
    if ((o->group_id && !(k->group = strdup(o->group_id))) ||
        (o->group_id && o->group_instance_id && !(k->instance = strdup(o->group_instance_id))))
        e = bw_fail(BW_ERR_NO_MEMORY, "no memory for a consumer");
    rd_kafka_conf_t *conf = NULL;
    if (!e) e = make_conf(k, &conf);
    if (!e) e = bw_kafka_new(k->bus, RD_KAFKA_CONSUMER, conf, &k->rk);
    if (!e) e = open_queues(k);
    o->group_id = o->group_instance_id = o->assignor = NULL; /* the caller's memory */
    if (e) kconsumer_free(k);
    else c->foreign = k;
    return e;
}

void bw_kafka_consumer_close(bw_consumer *c)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    if (bw_kconsumer_check_call(k, "bw_consumer_close")) return;
    bw_kgroup_leave(k, bw_deadline_in_ms(BW_GROUP_CLOSE_MS));
    kconsumer_free(k);
    c->foreign = NULL;
}

/* ---- waiting ---- */

int bw_kafka_consumer_fd(bw_consumer *c) { return bw_kconsumer_of(c)->event_fd; }

void bw_kafka_wake(bw_consumer *c)
{
    bw_kconsumer *k = bw_kconsumer_of(c);
    uint64_t one = 1;
    atomic_store(&k->woken, 1);
    if (write(k->event_fd, &one, sizeof one) < 0) {} /* full is as good */
}
