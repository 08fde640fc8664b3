/* client/replica.c: promotion, and what was kept aside of old origins: one request each. */
#include "client/admin.h"

#include <busway/replica.h>

static bw_err begin(bw_bus *bus, bw_api_key type, const char *topic, bw_request *q)
{
    if (!bus) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no bus");
    BW_CHECK_FORK(bus);
    if (bus->backend) return bw_fail(BW_ERR_UNSUPPORTED, "a Kafka cluster promotes its replicas itself");
    bw_request_init(q, type);
    q->topic = bw_str_of(topic ? topic : "");
    return BW_OK;
}

bw_err bw_promote(bw_bus *bus, const char *topic, bool force)
{
    bw_request q;
    if (!topic) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no topic name");
    bw_err e = begin(bus, BW_API_PROMOTE, topic, &q);
    if (e) return e;
    q.replica.force = force;
    return bw_admin_ask(bus, &q);
}

bw_err bw_tails(bw_bus *bus, const char *topic, char **json)
{
    bw_request q;
    bw_err e = begin(bus, BW_API_TAILS, topic, &q);
    return e ? e : bw_admin_document(bus, &q, json);
}
