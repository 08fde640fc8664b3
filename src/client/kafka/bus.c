/* client/kafka/bus.c: a bus on a cluster: open (the cluster has answered once), close, what it does and is. */
#include "client/kafka/kafka.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum { METADATA_SLICE_MS = 250 };

/* ---- metadata ---- */

/* Asks until the deadline; ends early when credentials or TLS can't work. topic NULL: the brokers alone. */
static bw_err ask_metadata(bw_kbus *k, rd_kafka_t *rk, rd_kafka_topic_t *topic, bool all, bw_deadline deadline,
                           const struct rd_kafka_metadata **out)
{
    for (;;) {
        int left = bw_kafka_left_ms(deadline);
        int slice = left < 0 || left > METADATA_SLICE_MS ? METADATA_SLICE_MS : left;
        rd_kafka_resp_err_t r = RK(metadata)(rk, all, topic, out, slice > 0 ? slice : 1);
        if (!r) return BW_OK;
        if (rk == k->rk) RK(poll)(rk, 0); /* the error callback; a consumer's and a producer's own is not ours to run */
        pthread_mutex_lock(&k->trouble.mutex);
        bool hopeless = k->trouble.error != RD_KAFKA_RESP_ERR_NO_ERROR;
        pthread_mutex_unlock(&k->trouble.mutex);
        bool waits = r == RD_KAFKA_RESP_ERR__TRANSPORT || r == RD_KAFKA_RESP_ERR__TIMED_OUT || r == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
        if (!waits || hopeless || bw_deadline_left_ns(deadline) == 0) {
            char what[300];
            snprintf(what, sizeof what, "kafka://%.256s does not answer", k->brokers);
            bw_err e = bw_kafka_fail_wait(k, r, what);
            return e == BW_ERR_NOT_CONNECTED || e == BW_ERR_TIMED_OUT ? BW_ERR_NO_COORDINATOR : e;
        }
        if (r == RD_KAFKA_RESP_ERR__TRANSPORT) bw_kafka_nap(20);
    }
}

bw_err bw_kafka_partitions(bw_kbus *k, rd_kafka_t *rk, const char *topic, bool create, bw_deadline deadline, int32_t *count)
{
    rd_kafka_topic_t *t = RK(topic_new)(rk, topic, NULL);
    if (!t) return bw_fail(BW_ERR_INVALID_TOPIC, "topic %s: librdkafka refuses the name", topic);
    bw_err e;
    for (;;) {
        const struct rd_kafka_metadata *m;
        e = ask_metadata(k, rk, t, false, deadline, &m);
        if (e) break;
        rd_kafka_resp_err_t r = m->topic_cnt == 1 ? m->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        *count = m->topic_cnt == 1 ? m->topics[0].partition_cnt : 0;
        RK(metadata_destroy)(m);
        if (!r && *count > 0) break;
        /* One that is being made has no leader yet; one that was just made may not be known to this broker. */
        bool comes = r == RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE || !r;
        if (!(comes && create) || bw_deadline_left_ns(deadline) == 0) {
            e = bw_kafka_fail(r ? r : RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, NULL, "topic %s", topic);
            break;
        }
        bw_kafka_nap(50);
    }
    RK(topic_destroy)(t);
    return e;
}

bw_err bw_kafka_metadata(bw_kbus *k, const char *topic, bw_deadline deadline, const struct rd_kafka_metadata **out)
{
    int32_t count;
    if (!topic) return ask_metadata(k, k->rk, NULL, true, deadline, out);
    bw_err e = bw_kafka_partitions(k, k->rk, topic, false, deadline, &count);
    if (e) return e;
    rd_kafka_topic_t *t = RK(topic_new)(k->rk, topic, NULL);
    e = ask_metadata(k, k->rk, t, false, deadline, out);
    RK(topic_destroy)(t);
    return e;
}

bw_err bw_kafka_topic_partitions(bw_bus *bus, const char *topic, int32_t *count)
{
    bw_kbus *k = bw_kbus_of(bus);
    int32_t n = 0;
    bw_err e = bw_kafka_partitions(k, k->rk, topic, false, bw_bus_request_deadline(bus), &n);
    if (!e && count) *count = n;
    return e;
}

/* ---- open and close ---- */

bw_err bw_kafka_bus_open(bw_bus *bus, bw_deadline deadline)
{
    if (bus->transport != BW_TRANSPORT_AUTO)
        return bw_fail(BW_ERR_UNSUPPORTED, "kafka://: transport direct or ipc: a cluster is reached over its own protocol only");
    bw_kbus *k = calloc(1, sizeof *k);
    if (!k) return bw_fail(BW_ERR_NO_MEMORY, "no memory for a bus");
    k->bus = bus;
    pthread_mutex_init(&k->trouble.mutex, NULL);
    bus->foreign = k;
    rd_kafka_conf_t *conf = NULL;
    bw_err e = bw_kafka_config_parse(k, bus->url.path);
    if (!e) e = bw_kafka_conf_new(k, &conf);
    if (!e) e = bw_kafka_new(k, RD_KAFKA_PRODUCER, conf, &k->rk);
    const struct rd_kafka_metadata *m;
    if (!e) e = ask_metadata(k, k->rk, NULL, false, deadline, &m);
    if (!e) RK(metadata_destroy)(m);
    return e; /* bw_bus_close frees it */
}

void bw_kafka_bus_close(bw_bus *bus)
{
    bw_kbus *k = bw_kbus_of(bus);
    if (!k) return;
    if (k->rk) bw_kafka_destroy(k->rk, 0);
    bw_kafka_config_free(k);
    pthread_mutex_destroy(&k->trouble.mutex);
    free(k);
    bus->foreign = NULL;
}

/* ---- what it does and is ---- */

char *bw_kafka_bus_stats(bw_bus *bus)
{
    json_t *o = json_object();
    json_object_set_new(o, "url", json_string(bus->url_text));
    json_object_set_new(o, "transport", json_string("kafka"));
    json_object_set_new(o, "topics", json_array());
    json_object_set_new(o, "librdkafka", json_string(RK(version_str)()));
    json_object_set_new(o, "records_out", json_integer((json_int_t)atomic_load(&bus->records_out)));
    json_object_set_new(o, "bytes_out", json_integer((json_int_t)atomic_load(&bus->bytes_out)));
    json_object_set_new(o, "records_in", json_integer((json_int_t)atomic_load(&bus->records_in)));
    json_object_set_new(o, "bytes_in", json_integer((json_int_t)atomic_load(&bus->bytes_in)));
    json_object_set_new(o, "batches_in", json_integer((json_int_t)atomic_load(&bus->batches_in)));
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}

bw_err bw_kafka_status(bw_bus *bus, char **json)
{
    bw_kbus *k = bw_kbus_of(bus);
    const struct rd_kafka_metadata *m;
    *json = NULL;
    bw_err e = ask_metadata(k, k->rk, NULL, true, bw_bus_request_deadline(bus), &m);
    if (e) return e;
    json_t *o = json_object(), *brokers = json_array();
    int64_t partitions = 0, leaderless = 0;
    for (int i = 0; i < m->topic_cnt; i++) {
        partitions += m->topics[i].partition_cnt;
        for (int p = 0; p < m->topics[i].partition_cnt; p++) leaderless += m->topics[i].partitions[p].leader < 0;
    }
    for (int i = 0; i < m->broker_cnt; i++) {
        char address[300];
        snprintf(address, sizeof address, "%s:%d", m->brokers[i].host, m->brokers[i].port);
        json_array_append_new(brokers, json_pack("{s:i, s:s}", "id", m->brokers[i].id, "address", address));
    }
    json_object_set_new(o, "kind", json_string("Apache Kafka cluster"));
    json_object_set_new(o, "url", json_string(bus->url_text));
    json_object_set_new(o, "librdkafka", json_string(RK(version_str)()));
    json_object_set_new(o, "answered_by", json_string(m->orig_broker_name));
    json_object_set_new(o, "broker_count", json_integer(m->broker_cnt));
    json_object_set_new(o, "topic_count", json_integer(m->topic_cnt));
    json_object_set_new(o, "partition_count", json_integer(partitions));
    json_object_set_new(o, "partitions_without_leader", json_integer(leaderless));
    json_object_set_new(o, "brokers", brokers);
    RK(metadata_destroy)(m);
    *json = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return *json ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for the answer");
}

/* ---- for links ---- */

bw_err bw_kafka_topics(bw_bus *bus, bw_backend_topic **out, size_t *count)
{
    bw_kbus *k = bw_kbus_of(bus);
    const struct rd_kafka_metadata *m;
    *out = NULL;
    *count = 0;
    bw_err e = ask_metadata(k, k->rk, NULL, true, bw_bus_request_deadline(bus), &m);
    if (e) return e;
    *out = calloc((size_t)m->topic_cnt + 1, sizeof **out);
    for (int i = 0; *out && i < m->topic_cnt; i++) {
        const struct rd_kafka_metadata_topic *t = &m->topics[i];
        if (t->err || t->partition_cnt < 1 || strlen(t->topic) > BW_TOPIC_NAME_MAX) continue;
        memcpy((*out)[*count].name, t->topic, strlen(t->topic) + 1);
        (*out)[(*count)++].partitions = t->partition_cnt;
    }
    RK(metadata_destroy)(m);
    return *out ? BW_OK : bw_fail(BW_ERR_NO_MEMORY, "no memory for the list of topics");
}

bw_err bw_kafka_cluster_id(bw_bus *bus, char *out, size_t size)
{
    bw_kbus *k = bw_kbus_of(bus);
    char *id = RK(clusterid)(k->rk, bus->request_timeout_ms);
    if (!id) return bw_fail(BW_ERR_UNSUPPORTED, "kafka://%s does not say which cluster it is", k->brokers);
    snprintf(out, size, "%s", id);
    RK(mem_free)(k->rk, id);
    return BW_OK;
}
