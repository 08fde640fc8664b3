/* verbs_bus.c: the bus, topics, offsets from outside, quotas. */
#include "conformance/conformance.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bw_bus *bus_on(world *w, json_t *step)
{
    handle *h = handle_on(w, step, KIND_BUS);
    return h ? h->object : NULL;
}

/* Most verbs begin so: without a bus the step is broken and what it returns does not matter. */
#define BUS_OR_LEAVE(bus)                 \
    bw_bus *bus = bus_on(w, step);        \
    if (!bus) return BW_OK

static bw_err bus_open(world *w, json_t *step, json_t **result)
{
    (void)result;
    bw_bus_options o = BW_BUS_OPTIONS_INIT;
    bw_bus *bus = NULL;
    const char *transport = arg_text_or(step, "transport", NULL);
    o.client_id = arg_text_or(step, "client_id", "conformance");
    o.transport = w->transport;
    if (transport) o.transport = transport_named(transport);
    bw_err e = bw_bus_open(arg_text_or(step, "url", w->url), &o, &bus);
    if (!e) handle_add(w, KIND_BUS, name_made(step, KIND_BUS), bus);
    return e;
}

static bw_err bus_close(world *w, json_t *step, json_t **result)
{
    (void)result;
    handle *h = handle_on(w, step, KIND_BUS);
    if (h) handle_close(w, h, NULL);
    return BW_OK;
}

static bw_err bus_stats(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = bw_bus_stats(bus);
    return seen_json(w, text ? BW_OK : BW_ERR_NO_MEMORY, text, result);
}

static bw_err bus_status(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = NULL;
    bw_err e = bw_status(bus, &text);
    return seen_json(w, e, text, result);
}

static bw_err version(world *w, json_t *step, json_t **result)
{
    (void)step;
    int major = -1, minor = -1, patch = -1;
    if (sscanf(bw_version(), "%d.%d.%d", &major, &minor, &patch) != 3) broken(w, "the version is %s", bw_version());
    *result = json_pack("{s:s, s:i, s:i, s:i}", "version", bw_version(), "major", major, "minor", minor, "patch", patch);
    return BW_OK;
}

static bw_err error_class(world *w, json_t *step, json_t **result)
{
    bw_err e = error_named(arg_text(w, step, "name"));
    if ((int)e < 0) broken(w, "there is no error of this name");
    *result = json_pack("{s:s, s:b, s:b, s:s}", "name", bw_err_name(e), "retriable", bw_err_is_retriable(e), "fatal", bw_err_is_fatal(e),
                        "text", bw_err_text(e));
    return BW_OK;
}

static bw_err sleep_ms(world *w, json_t *step, json_t **result)
{
    (void)w, (void)result;
    usleep((useconds_t)arg_int(step, "ms", 0) * 1000);
    return BW_OK;
}

static bw_err verify(world *w, json_t *step, json_t **result)
{
    bw_verify_totals t = {0};
    bw_err e = bw_verify(arg_text(w, step, "path"), NULL, NULL, NULL, &t);
    *result = json_pack("{s:I, s:I, s:I}", "errors", (json_int_t)t.errors, "records", (json_int_t)t.records, "batches", (json_int_t)t.batches);
    return e;
}

typedef struct dumped {
    json_t *batches, *records;
    int64_t left;
} dumped;

static bool on_dump(void *opaque, const bw_dump_batch *b, const bw_record_view *r)
{
    static const char *const codecs[] = {"none", "gzip", "snappy", "lz4", "zstd"}, *const types[] = {"create", "log_append"},
                      *const markers[] = {"none", "abort", "commit"};
    dumped *d = opaque;
    if (r)
        json_array_append_new(d->records, json_pack("{s:I, s:I, s:o, s:o}", "offset", (json_int_t)r->offset, "timestamp",
                                                    (json_int_t)r->timestamp_ms, "key", value_bytes(r->key, r->key_len), "value",
                                                    value_bytes(r->value, r->value_len)));
    else
        json_array_append_new(
            d->batches, json_pack("{s:I, s:I, s:i, s:s, s:s, s:b, s:b, s:b, s:s}", "base_offset", (json_int_t)b->base_offset, "last_offset",
                                  (json_int_t)b->last_offset, "count", (int)b->count, "codec", codecs[b->codec % 5], "timestamp_type",
                                  types[b->timestamp_type % 2], "crc_ok", b->crc_ok, "transactional", b->is_transactional, "control",
                                  b->is_control, "marker", markers[b->marker % 3]));
    return --d->left > 0;
}

static bw_err dump(world *w, json_t *step, json_t **result)
{
    char path[1024];
    dumped d = {json_array(), json_array(), arg_int(step, "most", INT64_MAX)};
    snprintf(path, sizeof path, "%s/%s-%d/%020lld.log", arg_text(w, step, "path"), arg_text(w, step, "topic"), (int)arg_partition(step),
             (long long)arg_int(step, "segment", 0));
    bw_err e = bw_dump(path, json_is_true(json_object_get(step, "records")), on_dump, &d);
    *result = json_pack("{s:o, s:o}", "batches", d.batches, "records", d.records);
    return e;
}

static bw_config_entry *config_of(world *w, json_t *object, size_t *count)
{
    const char *name;
    json_t *value;
    size_t n = 0;
    *count = json_object_size(object);
    bw_config_entry *made = scratch(w, (*count + 1) * sizeof *made);
    json_object_foreach(object, name, value) made[n++] = (bw_config_entry){name, json_is_null(value) ? NULL : json_string_value(value)};
    return made;
}

static bw_err topic_create(world *w, json_t *step, json_t **result)
{
    (void)result;
    BUS_OR_LEAVE(bus);
    size_t n;
    bw_config_entry *config = config_of(w, json_object_get(step, "config"), &n);
    return bw_topic_create(bus, arg_text(w, step, "topic"), (int32_t)arg_int(step, "partitions", 0), config, n);
}

static bw_err topic_alter(world *w, json_t *step, json_t **result)
{
    (void)result;
    BUS_OR_LEAVE(bus);
    size_t n;
    bw_config_entry *config = config_of(w, json_object_get(step, "config"), &n);
    return bw_topic_alter(bus, arg_text(w, step, "topic"), (int32_t)arg_int(step, "partitions", 0), config, n);
}

static bw_err topic_delete(world *w, json_t *step, json_t **result)
{
    (void)result;
    BUS_OR_LEAVE(bus);
    return bw_topic_delete(bus, arg_text(w, step, "topic"));
}

static bw_err topic_partitions(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    int32_t count = 0;
    bw_err e = bw_topic_partitions(bus, arg_text(w, step, "topic"), &count);
    *result = json_integer(count);
    return e;
}

static bw_err topic_describe(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = NULL;
    bw_err e = bw_topics_describe(bus, arg_text_or(step, "topic", NULL), &text);
    return seen_json(w, e, text, result);
}

static bw_err records_delete(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    int64_t start = -1;
    bw_err e = bw_delete_records(bus, arg_text(w, step, "topic"), arg_partition(step), arg_offset(w, json_object_get(step, "before"), 0), &start);
    *result = json_pack("{s:I}", "log_start", (json_int_t)start);
    return e;
}

static bw_err offsets_range(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    bw_offset_range r = {0};
    bw_err e = bw_offsets_range(bus, arg_text(w, step, "topic"), arg_partition(step), &r);
    *result = json_pack("{s:I, s:I, s:I}", "log_start", (json_int_t)r.log_start, "end", (json_int_t)r.end, "durable", (json_int_t)r.durable);
    return e;
}

static bw_err offset_end(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    const char *limit = arg_text_or(step, "read_limit", "visible");
    int64_t end = -1;
    bw_err e = bw_offset_end(bus, arg_text(w, step, "topic"), arg_partition(step),
                             !strcmp(limit, "durable") ? BW_READ_DURABLE : !strcmp(limit, "replicated") ? BW_READ_REPLICATED : BW_READ_VISIBLE, &end);
    *result = json_integer((json_int_t)end);
    return e;
}

static bw_err offset_for_time(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    int64_t offset = -1, found = -1;
    bw_err e = bw_offset_for_time(bus, arg_text(w, step, "topic"), arg_partition(step), arg_int(step, "time", 0), &offset, &found);
    *result = json_pack("{s:I, s:I}", "offset", (json_int_t)offset, "time", (json_int_t)found);
    return e;
}

static bw_err quota_set(world *w, json_t *step, json_t **result)
{
    (void)result;
    BUS_OR_LEAVE(bus);
    size_t n;
    bw_config_entry *rates = config_of(w, json_object_get(step, "rates"), &n);
    return bw_quota_set(bus, arg_text_or(step, "user", NULL), arg_text_or(step, "client_id", NULL), arg_text_or(step, "pid", NULL), rates, n);
}

static bw_err quota_list(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = NULL;
    bw_err e = bw_quotas_list(bus, arg_text_or(step, "user", NULL), arg_text_or(step, "client_id", NULL), arg_text_or(step, "pid", NULL), &text);
    return seen_json(w, e, text, result);
}

static bw_err producers_describe(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = NULL;
    bw_err e = bw_producers_describe(bus, arg_text(w, step, "topic"), arg_partition(step), &text);
    return seen_json(w, e, text, result);
}

static bw_err txn_list(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = NULL;
    bw_err e = bw_transactions_list(bus, &text);
    return seen_json(w, e, text, result);
}

static bw_err txn_describe(world *w, json_t *step, json_t **result)
{
    BUS_OR_LEAVE(bus);
    char *text = NULL;
    bw_err e = bw_transaction_describe(bus, arg_text(w, step, "id"), &text);
    return seen_json(w, e, text, result);
}

static bw_err txn_abort_admin(world *w, json_t *step, json_t **result)
{
    (void)result;
    BUS_OR_LEAVE(bus);
    return bw_transaction_abort_admin(bus, arg_text(w, step, "id"));
}

const verb bus_verbs[] = {
    {"bus.open", bus_open},
    {"bus.close", bus_close},
    {"bus.stats", bus_stats},
    {"bus.status", bus_status},
    {"version", version},
    {"error.class", error_class},
    {"sleep", sleep_ms},
    {"verify", verify},
    {"dump", dump},
    {"topic.create", topic_create},
    {"topic.alter", topic_alter},
    {"topic.delete", topic_delete},
    {"topic.partitions", topic_partitions},
    {"topic.describe", topic_describe},
    {"records.delete", records_delete},
    {"offsets.range", offsets_range},
    {"offset.end", offset_end},
    {"offset.for_time", offset_for_time},
    {"quota.set", quota_set},
    {"quota.list", quota_list},
    {"producers.describe", producers_describe},
    {"txn.list", txn_list},
    {"txn.describe", txn_describe},
    {"txn.abort_admin", txn_abort_admin},
    {NULL, NULL},
};
