/* verbs_producer.c: sending, and transactions. */
#include "conformance/conformance.h"

#include <stdlib.h>
#include <string.h>

#define PRODUCER_OR_LEAVE(h)                          \
    handle *h = handle_on(w, step, KIND_PRODUCER);    \
    if (!h) return BW_OK

static int choice(world *w, json_t *options, const char *name, int other, const char *const *words)
{
    const char *text = arg_text_or(options, name, NULL);
    if (!text) return other;
    for (int i = 0; words[i]; i++)
        if (!strcmp(words[i], text)) return i;
    broken(w, "%s can't be \"%s\"", name, text);
    return other;
}

static bw_err producer_open(world *w, json_t *step, json_t **result)
{
    (void)result;
    static const char *const acks[] = {"none", "visible", "durable", NULL};
    static const char *const codecs[] = {"none", "gzip", "snappy", "lz4", "zstd", NULL};
    json_t *given = json_object_get(step, "options");
    bw_producer_options o = BW_PRODUCER_OPTIONS_INIT;
    handle *bus = handle_find(w, KIND_BUS, arg_text_or(step, "bus", "bus"));
    if (!bus) return BW_OK;
    o.acks = (bw_acks)choice(w, given, "acks", (int)o.acks, acks);
    o.compression = (bw_codec)choice(w, given, "compression_type", (int)o.compression, codecs);
    o.batch_size = (uint32_t)arg_int(given, "batch_size", o.batch_size);
    o.linger_ms = (uint32_t)arg_int(given, "linger_ms", o.linger_ms);
    o.buffer_memory = (uint64_t)arg_int(given, "buffer_memory", (int64_t)o.buffer_memory);
    o.delivery_timeout_ms = (int32_t)arg_int(given, "delivery_timeout_ms", o.delivery_timeout_ms);
    o.name = arg_text_or(given, "name", NULL);
    if (json_is_false(json_object_get(given, "enable_idempotence"))) o.enable_idempotence = false;
    o.transactional_id = arg_text_or(given, "transactional_id", NULL);
    o.transaction_timeout_ms = (int32_t)arg_int(given, "transaction_timeout_ms", o.transaction_timeout_ms);
    bw_producer *p = NULL;
    bw_err e = bw_producer_open(bus->object, &o, &p);
    if (!e) handle_add(w, KIND_PRODUCER, name_made(step, KIND_PRODUCER), p);
    return e;
}

static bw_err producer_close(world *w, json_t *step, json_t **result)
{
    (void)result;
    PRODUCER_OR_LEAVE(h);
    bw_err e;
    handle_close(w, h, &e);
    return e;
}

static json_t *seen_delivery(const char *topic, const bw_delivery *d)
{
    return json_pack("{s:s, s:i, s:I, s:I, s:i, s:o}", "topic", topic, "partition", (int)d->partition, "offset", (json_int_t)d->offset,
                     "timestamp", (json_int_t)d->timestamp_ms, "count", (int)d->count, "error", seen_error(d->error));
}

static bw_err send_sync(world *w, json_t *step, json_t **result)
{
    PRODUCER_OR_LEAVE(h);
    bw_delivery d = {0};
    bw_record r = arg_record(w, json_object_get(step, "record"));
    bw_err e = bw_producer_send_sync(h->object, arg_text(w, step, "topic"), arg_partition(step), &r, arg_timeout(step, PATIENCE_MS), &d);
    if (!e) *result = seen_delivery(d.topic, &d);
    return e;
}

static bw_record *records_of(world *w, json_t *step, size_t *count)
{
    json_t *list = json_object_get(step, "records");
    *count = json_array_size(list);
    bw_record *records = scratch(w, (*count + 1) * sizeof *records);
    for (size_t i = 0; i < *count; i++) records[i] = arg_record(w, json_array_get(list, i));
    return records;
}

static bw_err send_batch(world *w, json_t *step, json_t **result)
{
    PRODUCER_OR_LEAVE(h);
    size_t n;
    bw_delivery d = {0};
    bw_record *records = records_of(w, step, &n);
    bw_err e = bw_producer_send_batch(h->object, arg_text(w, step, "topic"), arg_partition(step), records, n, arg_timeout(step, PATIENCE_MS), &d);
    if (!e) *result = seen_delivery(d.topic, &d);
    return e;
}

/* A record under way: where its outcome goes. */
typedef struct sent { handle *producer; size_t at; } sent;

static void delivered(void *opaque, const bw_delivery *d)
{
    sent *s = opaque;
    json_t *outcome = seen_delivery(d->topic ? d->topic : "", d);
    if (d->error && d->message) json_object_set_new(outcome, "message", json_string(d->message));
    if (!json_is_null(json_array_get(s->producer->told, s->at))) broken(s->producer->world, "a record has two outcomes");
    json_array_set_new(s->producer->told, s->at, outcome);
    free(s);
}

static bw_err send_async(world *w, json_t *step, json_t **result)
{
    (void)result;
    PRODUCER_OR_LEAVE(h);
    size_t n;
    bw_record *records = records_of(w, step, &n);
    for (size_t i = 0; i < n; i++) {
        sent *s = malloc(sizeof *s);
        *s = (sent){h, json_array_size(h->told)};
        json_array_append_new(h->told, json_null());
        bw_err e = bw_producer_send(h->object, arg_text(w, step, "topic"), arg_partition(step), &records[i], delivered, s,
                                    arg_timeout(step, PATIENCE_MS));
        if (e) { /* it will have no outcome */
            json_array_remove(h->told, s->at);
            free(s);
            return e;
        }
    }
    return BW_OK;
}

static bw_err flush(world *w, json_t *step, json_t **result)
{
    PRODUCER_OR_LEAVE(h);
    size_t failed = 0, unknown = 0;
    bw_err e = bw_producer_flush(h->object, arg_timeout(step, PATIENCE_MS));
    if (e) return e;
    for (size_t i = 0; i < json_array_size(h->told); i++) {
        json_t *d = json_array_get(h->told, i);
        if (json_is_null(d)) unknown++;
        else failed += !json_is_null(json_object_get(d, "error"));
    }
    if (unknown) broken(w, "%zu records have no outcome after a flush", unknown);
    *result = json_pack("{s:o, s:i, s:i}", "deliveries", h->told, "count", (int)json_array_size(h->told), "failed", (int)failed);
    h->told = json_array();
    return BW_OK;
}

static bw_err reserve(world *w, json_t *step, json_t **result)
{
    PRODUCER_OR_LEAVE(h);
    bw_record r = arg_record(w, json_object_get(step, "record"));
    bw_reservation room;
    bw_delivery d = {0};
    size_t most = (size_t)arg_int(step, "max", (int64_t)r.value_len);
    bw_err e = bw_producer_reserve(h->object, arg_text(w, step, "topic"), arg_partition(step), &r, most, PATIENCE_MS, &room);
    if (e) return e;
    if (room.value_max < r.value_len) broken(w, "only %zu bytes of room", room.value_max);
    else if (r.value_len) memcpy(room.value, r.value, r.value_len);
    if (json_is_true(json_object_get(step, "abort"))) {
        bw_producer_abort(h->object, &room);
        return BW_OK;
    }
    e = bw_producer_commit(h->object, &room, r.value_len, PATIENCE_MS, &d);
    if (!e) *result = seen_delivery(d.topic, &d);
    return e;
}

static bw_err last_sequence(world *w, json_t *step, json_t **result)
{
    PRODUCER_OR_LEAVE(h);
    int32_t sequence = -9;
    int64_t offset = -9;
    bw_err e = bw_producer_last_sequence(h->object, arg_text(w, step, "topic"), arg_partition(step), &sequence, &offset);
    *result = json_pack("{s:i, s:I}", "sequence", (int)sequence, "offset", (json_int_t)offset);
    return e;
}

/* ---- transactions ---- */

static bw_err txn_init(world *w, json_t *step, json_t **result)
{
    (void)result;
    PRODUCER_OR_LEAVE(h);
    return bw_transactions_init(h->object, arg_timeout(step, PATIENCE_MS));
}

static bw_err txn_begin(world *w, json_t *step, json_t **result)
{
    (void)result;
    PRODUCER_OR_LEAVE(h);
    return bw_transaction_begin(h->object);
}

static bw_err txn_commit(world *w, json_t *step, json_t **result)
{
    (void)result;
    PRODUCER_OR_LEAVE(h);
    return bw_transaction_commit(h->object, arg_timeout(step, PATIENCE_MS));
}

static bw_err txn_abort(world *w, json_t *step, json_t **result)
{
    (void)result;
    PRODUCER_OR_LEAVE(h);
    return bw_transaction_abort(h->object, arg_timeout(step, PATIENCE_MS));
}

static bw_err txn_send_offsets(world *w, json_t *step, json_t **result)
{
    (void)result;
    PRODUCER_OR_LEAVE(h);
    handle *c = handle_find(w, KIND_CONSUMER, arg_text(w, step, "consumer"));
    if (!c) return BW_OK;
    bw_group_metadata group;
    size_t n;
    bw_topic_partition *parts = arg_parts(w, json_object_get(step, "offsets"), &n);
    bw_err e = bw_consumer_group_metadata(c->object, &group);
    return e ? e : bw_transaction_send_offsets(h->object, &group, parts, n, arg_timeout(step, PATIENCE_MS));
}

const verb producer_verbs[] = {
    {"producer.open", producer_open},
    {"producer.close", producer_close},
    {"send", send_sync},
    {"send.batch", send_batch},
    {"send.async", send_async},
    {"flush", flush},
    {"reserve", reserve},
    {"last_sequence", last_sequence},
    {"txn.init", txn_init},
    {"txn.begin", txn_begin},
    {"txn.commit", txn_commit},
    {"txn.abort", txn_abort},
    {"txn.send_offsets", txn_send_offsets},
    {NULL, NULL},
};
