/* client/transaction_admin.c: what people ask of transactions and producers. */
#include "client/admin.h"
#include "client/producer.h"

#include <busway/transaction.h>

static bw_err check(bw_bus *bus, const char *name)
{
    if (!bus) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no bus");
    BW_CHECK_FORK(bus);
    return name ? BW_OK : bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no name");
}

bw_err bw_transactions_list(bw_bus *bus, char **json)
{
    bw_err e = check(bus, "");
    if (e) return e;
    bw_request q;
    bw_request_init(&q, BW_API_LIST_TRANSACTIONS);
    return bw_admin_document(bus, &q, json);
}

bw_err bw_transaction_describe(bw_bus *bus, const char *id, char **json)
{
    bw_err e = check(bus, id);
    if (e) return e;
    bw_request q;
    bw_request_init(&q, BW_API_DESCRIBE_TRANSACTION);
    q.txn.id = bw_str_of(id);
    return bw_admin_document(bus, &q, json);
}

bw_err bw_transaction_abort_admin(bw_bus *bus, const char *id)
{
    bw_err e = check(bus, id);
    if (e) return e;
    bw_request q;
    bw_request_init(&q, BW_API_ABORT_TRANSACTION);
    q.txn.id = bw_str_of(id);
    return bw_admin_ask(bus, &q);
}

bw_err bw_producers_describe(bw_bus *bus, const char *topic, int32_t partition, char **json)
{
    bw_err e = check(bus, topic);
    if (e) return e;
    bw_request q;
    bw_request_init(&q, BW_API_DESCRIBE_PRODUCERS);
    q.topic = bw_str_of(topic);
    q.partition = partition;
    return bw_admin_document(bus, &q, json);
}

bw_err bw_producer_last_sequence(bw_producer *p, const char *topic, int32_t partition, int32_t *sequence, int64_t *offset)
{
    if (!p) return bw_fail(BW_ERR_INVALID_ARGUMENT, "there is no producer");
    bw_err e = check(p->bus, topic);
    if (!e && !p->name) e = bw_fail(BW_ERR_INVALID_ARGUMENT, "the producer has no name; set it in its options");
    if (e) return e;
    bw_request q;
    bw_reply reply = {0};
    bw_request_init(&q, BW_API_PRODUCER_LAST);
    q.topic = bw_str_of(topic);
    q.partition = partition;
    q.producer_name = bw_str_of(p->name);
    e = bw_bus_request(p->bus, &q, bw_bus_request_deadline(p->bus), &reply);
    if (!e && sequence) *sequence = reply.answer.sequence;
    if (!e && offset) *offset = reply.answer.offset;
    bw_reply_fini(&reply);
    return e;
}
