/* client/backend.c: which backend a bus has, and what one that is no daemon says to what only a daemon can do. */
#include "client/backend.h"

#ifdef BW_WITH_RDKAFKA
#include "client/kafka/rdkafka.h"
#endif

bw_err bw_backend_kafka(const bw_backend **out)
{
#ifdef BW_WITH_RDKAFKA
    bw_err e = bw_rdkafka_load();
    if (e) return e;
    *out = &bw_kafka_backend;
    return BW_OK;
#else
    *out = NULL;
    return bw_fail(BW_ERR_UNSUPPORTED, "kafka:// needs librdkafka, which was not there when this library was built: install librdkafka-dev "
                                       "and build again");
#endif
}

bw_err bw_backend_refuse(const char *what, const char *why)
{
    return bw_fail(BW_ERR_UNSUPPORTED, "%s: not on a Kafka cluster: %s", what, why);
}

bw_err bw_backend_refuse_request(uint16_t type)
{
    switch (type) {
    case BW_API_SET_QUOTA:
    case BW_API_LIST_QUOTAS:
        return bw_backend_refuse("quotas", "librdkafka has no call for them; use kafka-configs.sh");
    case BW_API_QUEUE_JOIN:
    case BW_API_QUEUE_DESCRIBE:
    case BW_API_QUEUE_PEEK:
    case BW_API_QUEUE_SETTLE:
    case BW_API_QUEUE_DELETE:
        return bw_backend_refuse("queue groups", "leases and acknowledgements of single records are a Busway daemon's");
    case BW_API_LIST_TRANSACTIONS:
    case BW_API_DESCRIBE_TRANSACTION:
    case BW_API_ABORT_TRANSACTION:
        return bw_backend_refuse("looking at transactions from outside", "librdkafka has no call for it; use kafka-transactions.sh");
    case BW_API_DESCRIBE_PRODUCERS:
    case BW_API_PRODUCER_LAST:
        return bw_backend_refuse("asking for producers' sequences", "a cluster does not tell them; use a transaction");
    default:
        return bw_backend_refuse(bw_api_name(type), "it is a request to a Busway daemon");
    }
}

static bw_err no_cluster(void) { return bw_fail(BW_ERR_UNSUPPORTED, "this bus is no cluster"); }

bw_err bw_cluster_topics(bw_bus *bus, bw_backend_topic **out, size_t *count)
{
    return bus->backend ? bus->backend->topics(bus, out, count) : no_cluster();
}

bw_err bw_cluster_id(bw_bus *bus, char *out, size_t size) { return bus->backend ? bus->backend->cluster_id(bus, out, size) : no_cluster(); }
