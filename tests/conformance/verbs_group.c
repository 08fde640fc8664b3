/* verbs_group.c: groups from outside, and queues. */
#include "conformance/conformance.h"

#include <stdlib.h>
#include <string.h>

static bw_bus *bus_on(world *w, json_t *step)
{
    handle *h = handle_on(w, step, KIND_BUS);
    return h ? h->object : NULL;
}

#define BUS_OR_LEAVE(bus)                 \
    bw_bus *bus = bus_on(w, step);        \
    if (!bus) return BW_OK
#define QUEUE_OR_LEAVE(h)                           \
    handle *h = handle_on(w, step, KIND_QUEUE);     \
    if (!h) return BW_OK

static bw_err group_list(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = NULL;
    bw_err e = bw_groups_list(bus, &text);
    return seen_json(w, e, text, result);
}

static bw_err group_describe(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = NULL;
    bw_err e = bw_group_describe(bus, arg_text(w, step, "group"), &text);
    return seen_json(w, e, text, result);
}

static bw_err group_delete(world *w, json_t *step, json_t **result)
{
    (void)result;
    BUS_OR_LEAVE(bus);
    return bw_group_delete(bus, arg_text(w, step, "group"));
}

typedef bw_err (*offsets_fn)(bw_bus *bus, const char *group, bw_group_offset *offsets, size_t count);

static bw_err group_offsets(world *w, json_t *step, json_t *list, offsets_fn fn, json_t **result)
{
    BUS_OR_LEAVE(bus);
    size_t n = json_array_size(list);
    bw_group_offset *offsets = scratch(w, (n + 1) * sizeof *offsets);
    for (size_t i = 0; i < n; i++) {
        json_t *v = json_array_get(list, i);
        offsets[i] = (bw_group_offset){.topic = arg_text(w, v, "topic"), .partition = arg_partition(v), .offset = arg_int(v, "offset", 0),
                                       .metadata = arg_text_or(v, "metadata", NULL)};
    }
    bw_err e = fn(bus, arg_text(w, step, "group"), offsets, n);
    *result = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(*result, json_pack("{s:s, s:i, s:o}", "topic", offsets[i].topic, "partition", (int)offsets[i].partition, "error",
                                                 seen_error(offsets[i].error)));
    return e;
}

static bw_err group_offsets_alter(world *w, json_t *step, json_t **result)
{
    return group_offsets(w, step, json_object_get(step, "offsets"), bw_group_offsets_alter, result);
}

static bw_err group_offsets_delete(world *w, json_t *step, json_t **result)
{
    return group_offsets(w, step, json_object_get(step, "partitions"), bw_group_offsets_delete, result);
}

const verb group_verbs[] = {
    {"group.list", group_list},
    {"group.describe", group_describe},
    {"group.delete", group_delete},
    {"group.offsets.alter", group_offsets_alter},
    {"group.offsets.delete", group_offsets_delete},
    {NULL, NULL},
};

/* ---- queues ---- */

static bw_err queue_open(world *w, json_t *step, json_t **result)
{
    (void)result;
    json_t *given = json_object_get(step, "options"), *list = json_object_get(given, "topics");
    bw_queue_options o = BW_QUEUE_OPTIONS_INIT;
    const char *isolation = arg_text_or(given, "isolation_level", ""), *start = arg_text_or(given, "auto_offset_reset", "");
    handle *bus = handle_find(w, KIND_BUS, arg_text_or(step, "bus", "bus"));
    if (!bus) return BW_OK;
    o.topic_count = json_array_size(list);
    const char **topics = scratch(w, (o.topic_count + 1) * sizeof *topics);
    for (size_t i = 0; i < o.topic_count; i++) topics[i] = json_string_value(json_array_get(list, i));
    o.topics = topics;
    o.group = arg_text_or(given, "group", NULL);
    o.lease_ms = (int32_t)arg_int(given, "lease_ms", 0);
    o.max_deliveries = (int32_t)arg_int(given, "max_deliveries", 0);
    o.max_in_flight = (int32_t)arg_int(given, "max_in_flight", 0);
    o.dead_letter_topic = arg_text_or(given, "dead_letter_topic", NULL);
    o.archive = json_is_true(json_object_get(given, "archive"));
    o.isolation = !strcmp(isolation, "read_committed") ? BW_QUEUE_COMMITTED : *isolation ? BW_QUEUE_UNCOMMITTED : BW_QUEUE_DEFAULT;
    o.start = !strcmp(start, "earliest") ? BW_RESET_EARLIEST : !strcmp(start, "latest") ? BW_RESET_LATEST : BW_RESET_ERROR;
    o.max_records = (int32_t)arg_int(given, "max_records", o.max_records);
    o.ack_records = (int32_t)arg_int(given, "ack_records", o.ack_records);
    bw_queue *q = NULL;
    bw_err e = bw_queue_open(bus->object, &o, &q);
    if (!e) handle_add(w, KIND_QUEUE, name_made(step, KIND_QUEUE), q);
    return e;
}

static bw_err queue_close(world *w, json_t *step, json_t **result)
{
    (void)result;
    QUEUE_OR_LEAVE(h);
    bw_err e;
    handle_close(w, h, &e);
    return e;
}

static json_t *seen_message(const bw_message *m)
{
    bw_batch b = {.topic = m->topic, .partition = m->partition, .timestamp_type = BW_TIMESTAMP_CREATE};
    json_t *v = seen_record(&b, &m->record);
    json_object_set_new(v, "deliveries", json_integer(m->deliveries));
    return v;
}

/* Under the name `as`: what can be acknowledged later. */
static handle *keep(world *w, json_t *step)
{
    const char *name = name_made(step, KIND_MESSAGES);
    for (handle *h = w->handles; h; h = h->next)
        if (h->kind == KIND_MESSAGES && !strcmp(h->name, name)) {
            h->count = 0;
            return h;
        }
    return handle_add(w, KIND_MESSAGES, name, NULL);
}

static void keep_one(handle *h, const bw_message *m)
{
    h->messages = realloc(h->messages, (h->count + 1) * sizeof *h->messages);
    h->messages[h->count++] = *m;
}

static bw_err queue_poll(world *w, json_t *step, json_t **result)
{
    QUEUE_OR_LEAVE(h);
    bw_message m;
    bw_err e = bw_queue_poll(h->object, arg_timeout(step, 5000), &m);
    if (e) return e;
    keep_one(keep(w, step), &m);
    *result = seen_message(&m);
    return BW_OK;
}

static bw_err queue_read(world *w, json_t *step, json_t **result)
{
    QUEUE_OR_LEAVE(h);
    size_t wanted = (size_t)arg_int(step, "count", 0), n = 0;
    int64_t end = clock_ms() + arg_timeout(step, PATIENCE_MS);
    handle *kept = keep(w, step);
    json_t *messages = json_array(), *values = json_array();
    bw_err e = BW_OK;
    while (kept->count < wanted && clock_ms() < end && !e) {
        bw_message m[64];
        size_t room = wanted - kept->count;
        e = bw_queue_poll_batch(h->object, 100, m, room < 64 ? room : 64, &n);
        for (size_t i = 0; !e && i < n; i++) {
            keep_one(kept, &m[i]);
            json_t *v = seen_message(&m[i]);
            json_array_append(values, json_object_get(v, "value"));
            json_array_append_new(messages, v);
        }
        if (e == BW_ERR_TIMED_OUT) e = BW_OK;
    }
    *result = json_pack("{s:i, s:o, s:o}", "count", (int)kept->count, "messages", messages, "values", values);
    return e;
}

typedef bw_err (*one_fn)(bw_queue *q, const bw_message *m);
typedef bw_err (*many_fn)(bw_queue *q, const bw_message *m, size_t count);

static bw_err settle_messages(world *w, json_t *step, one_fn one, many_fn many)
{
    QUEUE_OR_LEAVE(h);
    handle *kept = handle_find(w, KIND_MESSAGES, arg_text_or(step, "of", kind_name(KIND_MESSAGES)));
    if (!kept) return BW_OK;
    if (many && kept->count > 1 && !json_is_true(json_object_get(step, "each"))) return many(h->object, kept->messages, kept->count);
    for (size_t i = 0; i < kept->count; i++) {
        bw_err e = one(h->object, &kept->messages[i]);
        if (e) return e;
    }
    return BW_OK;
}

static bw_err queue_ack(world *w, json_t *step, json_t **result) { (void)result; return settle_messages(w, step, bw_queue_ack, bw_queue_ack_batch); }
static bw_err queue_renew(world *w, json_t *step, json_t **result) { (void)result; return settle_messages(w, step, bw_queue_renew, NULL); }
static bw_err queue_release(world *w, json_t *step, json_t **result)
{
    (void)result;
    return settle_messages(w, step, bw_queue_release, bw_queue_release_batch);
}
static bw_err queue_reject(world *w, json_t *step, json_t **result)
{
    (void)result;
    return settle_messages(w, step, bw_queue_reject, bw_queue_reject_batch);
}

static bw_err ack_sync_one(bw_queue *q, const bw_message *m) { return bw_queue_ack_sync(q, m, PATIENCE_MS); }
static bw_err queue_ack_sync(world *w, json_t *step, json_t **result) { (void)result; return settle_messages(w, step, ack_sync_one, NULL); }

static bw_err queue_flush(world *w, json_t *step, json_t **result)
{
    (void)result;
    QUEUE_OR_LEAVE(h);
    return bw_queue_flush(h->object, arg_timeout(step, PATIENCE_MS));
}

static bw_err queue_wake(world *w, json_t *step, json_t **result)
{
    (void)result;
    QUEUE_OR_LEAVE(h);
    bw_queue_wake(h->object);
    return BW_OK;
}

static bw_err queue_describe(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = NULL;
    bw_err e = bw_queue_describe(bus, arg_text_or(step, "group", NULL), &text);
    return seen_json(w, e, text, result);
}

static bw_err queue_peek(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = NULL;
    bw_err e = bw_queue_peek(bus, arg_text(w, step, "group"), arg_text(w, step, "topic"), arg_partition(step),
                             (int32_t)arg_int(step, "max", 10), &text);
    return seen_json(w, e, text, result);
}

static bw_err queue_settle(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    const char *word = arg_text(w, step, "outcome");
    bw_queue_outcome outcome = !strcmp(word, "done") ? BW_QUEUE_DONE : !strcmp(word, "again") ? BW_QUEUE_AGAIN : BW_QUEUE_DEAD;
    int64_t settled = -1;
    bw_err e = bw_queue_settle(bus, arg_text(w, step, "group"), arg_text(w, step, "topic"), arg_partition(step), arg_int(step, "first", 0),
                               arg_int(step, "last", 0), outcome, &settled);
    *result = json_pack("{s:I}", "settled", (json_int_t)settled);
    return e;
}

static bw_err queue_delete(world *w, json_t *step, json_t **result)
{
    (void)result;
    BUS_OR_LEAVE(bus);
    return bw_queue_delete(bus, arg_text(w, step, "group"));
}

static bw_err queue_redrive(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    int64_t moved = -1, skipped = -1;
    bw_err e = bw_queue_redrive(bus, arg_text(w, step, "topic"), arg_int(step, "max", 0), NULL, NULL, &moved, &skipped);
    *result = json_pack("{s:I, s:I}", "moved", (json_int_t)moved, "skipped", (json_int_t)skipped);
    return e;
}

static bw_err deliver_at(world *w, json_t *step, json_t **result)
{
    (void)w;
    uint8_t room[8];
    bw_header h;
    bw_header_deliver_at(arg_int(step, "time", 0), room, &h);
    *result = json_pack("[oo]", value_bytes(h.name, h.name_len), value_bytes(h.value, h.value_len));
    return BW_OK;
}

const verb queue_verbs[] = {
    {"queue.open", queue_open},
    {"queue.close", queue_close},
    {"queue.poll", queue_poll},
    {"queue.read", queue_read},
    {"queue.ack", queue_ack},
    {"queue.release", queue_release},
    {"queue.reject", queue_reject},
    {"queue.renew", queue_renew},
    {"queue.ack_sync", queue_ack_sync},
    {"queue.flush", queue_flush},
    {"queue.wake", queue_wake},
    {"queue.describe", queue_describe},
    {"queue.peek", queue_peek},
    {"queue.settle", queue_settle},
    {"queue.delete", queue_delete},
    {"queue.redrive", queue_redrive},
    {"deliver_at", deliver_at},
    {NULL, NULL},
};
