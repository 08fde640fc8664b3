/* verbs_consumer.c: reading, membership, commits. */
#include "conformance/conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONSUMER_OR_LEAVE(h)                          \
    handle *h = handle_on(w, step, KIND_CONSUMER);    \
    if (!h) return BW_OK

static int by_place(const bw_topic_partition *a, const bw_topic_partition *b)
{
    int order = strcmp(a->topic, b->topic);
    return order ? order : (a->partition > b->partition) - (a->partition < b->partition);
}

static int by_place_void(const void *a, const void *b) { return by_place(a, b); }

static void rebalanced(bw_consumer *consumer, bw_rebalance event, const bw_topic_partition *parts, size_t count, void *opaque)
{
    static const char *const words[] = {"assigned", "revoked", "lost"};
    handle *h = opaque;
    json_t *list = json_array();
    bw_topic_partition *sorted = malloc((count + 1) * sizeof *sorted);
    if (count) memcpy(sorted, parts, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_place_void);
    for (size_t i = 0; i < count; i++) {
        char place[300];
        snprintf(place, sizeof place, "%s/%d", sorted[i].topic, (int)sorted[i].partition);
        json_object_del(h->reached, place); /* it begins anew where the group's offset is */
        json_array_append_new(list, json_pack("{s:s, s:i}", "topic", sorted[i].topic, "partition", (int)sorted[i].partition));
    }
    free(sorted);
    json_array_append_new(h->told, json_pack("{s:s, s:o}", "event", words[event], "partitions", list));
    if (event == BW_REBALANCE_REVOKED && h->commits_revoked) {
        bw_err e = bw_consumer_commit(consumer, NULL, 0, PATIENCE_MS);
        if (e) broken(h->world, "the commit in the callback: %s: %s", bw_err_name(e), bw_error_message());
    }
}

static void options_of(json_t *given, bw_consumer_options *o)
{
    const char *reset = arg_text_or(given, "auto_offset_reset", "none");
    o->auto_offset_reset = !strcmp(reset, "earliest") ? BW_RESET_EARLIEST : !strcmp(reset, "latest") ? BW_RESET_LATEST : BW_RESET_ERROR;
    o->isolation = !strcmp(arg_text_or(given, "isolation_level", ""), "read_committed") ? BW_READ_COMMITTED : BW_READ_UNCOMMITTED;
    o->read_limit = !strcmp(arg_text_or(given, "read_limit", ""), "durable") ? BW_READ_DURABLE : BW_READ_VISIBLE;
    o->check_crcs = !json_is_false(json_object_get(given, "check_crcs"));
    o->enable_auto_commit = !json_is_false(json_object_get(given, "enable_auto_commit"));
    o->commit_durable = json_is_true(json_object_get(given, "commit_durable"));
    o->group_id = arg_text_or(given, "group_id", NULL);
    o->group_instance_id = arg_text_or(given, "group_instance_id", NULL);
    o->assignor = arg_text_or(given, "partition_assignment_strategy", NULL);
    o->fetch_max_bytes = (uint32_t)arg_int(given, "max_partition_fetch_bytes", o->fetch_max_bytes);
    o->auto_commit_interval_ms = (int32_t)arg_int(given, "auto_commit_interval_ms", o->auto_commit_interval_ms);
    o->session_timeout_ms = (int32_t)arg_int(given, "session_timeout_ms", o->session_timeout_ms);
    o->max_poll_interval_ms = (int32_t)arg_int(given, "max_poll_interval_ms", o->max_poll_interval_ms);
    o->rebalance_timeout_ms = (int32_t)arg_int(given, "rebalance_timeout_ms", o->rebalance_timeout_ms);
}

static bw_err consumer_open(world *w, json_t *step, json_t **result)
{
    (void)result;
    bw_consumer_options o = BW_CONSUMER_OPTIONS_INIT;
    handle *bus = handle_find(w, KIND_BUS, arg_text_or(step, "bus", "bus"));
    if (!bus) return BW_OK;
    options_of(json_object_get(step, "options"), &o);
    handle *h = handle_add(w, KIND_CONSUMER, name_made(step, KIND_CONSUMER), NULL);
    h->commits_revoked = !strcmp(arg_text_or(step, "on_revoked", ""), "commit");
    o.on_rebalance = rebalanced;
    o.rebalance_opaque = h;
    bw_consumer *c = NULL;
    bw_err e = bw_consumer_open(bus->object, &o, &c);
    h->object = c;
    if (e) handle_close(w, h, NULL);
    return e;
}

static bw_err consumer_close(world *w, json_t *step, json_t **result)
{
    (void)result;
    CONSUMER_OR_LEAVE(h);
    handle_close(w, h, NULL);
    return BW_OK;
}

static bw_err assign(world *w, json_t *step, json_t **result)
{
    (void)result;
    CONSUMER_OR_LEAVE(h);
    return bw_consumer_assign(h->object, arg_text(w, step, "topic"), arg_partition(step),
                              arg_offset(w, json_object_get(step, "offset"), BW_OFFSET_BEGINNING));
}

typedef bw_err (*place_fn)(bw_consumer *c, const char *topic, int32_t partition);

static bw_err at_place(world *w, json_t *step, place_fn fn)
{
    CONSUMER_OR_LEAVE(h);
    return fn(h->object, arg_text(w, step, "topic"), arg_partition(step));
}

static bw_err unassign(world *w, json_t *step, json_t **result) { (void)result; return at_place(w, step, bw_consumer_unassign); }
static bw_err pause_it(world *w, json_t *step, json_t **result) { (void)result; return at_place(w, step, bw_consumer_pause); }
static bw_err resume(world *w, json_t *step, json_t **result) { (void)result; return at_place(w, step, bw_consumer_resume); }

/* Behind a seek offsets may be lower than what came before. */
static void forget_reached(handle *h) { json_object_clear(h->reached); }

static bw_err seek(world *w, json_t *step, json_t **result)
{
    (void)result;
    CONSUMER_OR_LEAVE(h);
    forget_reached(h);
    return bw_consumer_seek(h->object, arg_text(w, step, "topic"), arg_partition(step), arg_offset(w, json_object_get(step, "offset"), 0));
}

static bw_err seek_time(world *w, json_t *step, json_t **result)
{
    (void)result;
    CONSUMER_OR_LEAVE(h);
    forget_reached(h);
    return bw_consumer_seek_time(h->object, arg_text(w, step, "topic"), arg_partition(step), arg_int(step, "time", 0));
}

static bw_err position(world *w, json_t *step, json_t **result)
{
    CONSUMER_OR_LEAVE(h);
    int64_t offset = -9;
    bw_err e = bw_consumer_position(h->object, arg_text(w, step, "topic"), arg_partition(step), &offset);
    *result = seen_offset(offset);
    return e;
}

static bw_err assignment(world *w, json_t *step, json_t **result)
{
    CONSUMER_OR_LEAVE(h);
    bw_topic_partition *parts = NULL;
    size_t n = 0;
    bw_err e = bw_consumer_assignment(h->object, &parts, &n);
    if (e) return e;
    if (n) qsort(parts, n, sizeof *parts, by_place_void);
    *result = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(*result, json_pack("{s:s, s:i, s:o}", "topic", parts[i].topic, "partition", (int)parts[i].partition, "offset",
                                                 seen_offset(parts[i].offset)));
    bw_free(parts);
    return BW_OK;
}

static bw_err subscribe(world *w, json_t *step, json_t **result)
{
    (void)result;
    CONSUMER_OR_LEAVE(h);
    json_t *list = json_object_get(step, "topics");
    size_t n = json_array_size(list);
    const char **topics = scratch(w, (n + 1) * sizeof *topics);
    for (size_t i = 0; i < n; i++) topics[i] = json_string_value(json_array_get(list, i));
    return bw_consumer_subscribe(h->object, topics, n);
}

static bw_err unsubscribe(world *w, json_t *step, json_t **result)
{
    (void)result;
    CONSUMER_OR_LEAVE(h);
    forget_reached(h);
    return bw_consumer_unsubscribe(h->object);
}

static bw_err subscription(world *w, json_t *step, json_t **result)
{
    CONSUMER_OR_LEAVE(h);
    const char **topics = NULL;
    size_t n = 0;
    bw_err e = bw_consumer_subscription(h->object, &topics, &n);
    if (e) return e;
    *result = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(*result, json_string(topics[i]));
    bw_free(topics);
    return BW_OK;
}

/* ---- reading ---- */

static json_t *take_batch(handle *h, bw_batch *b)
{
    bw_record_view r;
    char place[300];
    int more;
    json_t *list = json_array();
    snprintf(place, sizeof place, "%s/%d", b->topic, (int)b->partition);
    while ((more = bw_batch_next(b, &r)) == 1) {
        json_t *last = json_object_get(h->reached, place);
        if (last && json_integer_value(last) >= r.offset)
            broken(h->world, "offset %lld of %s came behind %lld", (long long)r.offset, place, (long long)json_integer_value(last));
        json_object_set_new(h->reached, place, json_integer(r.offset));
        json_array_append_new(list, seen_record(b, &r));
    }
    if (more < 0) broken(h->world, "a batch of %s is broken", place);
    return list;
}

bw_err consumer_pump(world *w, handle *h, int32_t timeout_ms)
{
    (void)w;
    bw_batch b = {0};
    bw_err e = bw_consumer_poll(h->object, timeout_ms, &b);
    if (e) return e;
    json_t *list = take_batch(h, &b);
    json_array_extend(h->inbox, list);
    json_decref(list);
    return BW_OK;
}

static bw_err poll_once(world *w, json_t *step, json_t **result)
{
    CONSUMER_OR_LEAVE(h);
    bw_batch b = {0};
    bw_err e = bw_consumer_poll(h->object, arg_timeout(step, 5000), &b);
    if (e) return e;
    *result = json_pack("{s:s, s:i, s:o}", "topic", b.topic, "partition", (int)b.partition, "records", take_batch(h, &b));
    return BW_OK;
}

static int by_record(const void *a, const void *b)
{
    const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    int order = strcmp(json_string_value(json_object_get(x, "topic")), json_string_value(json_object_get(y, "topic")));
    if (order) return order;
    json_int_t p = json_integer_value(json_object_get(x, "partition")), q = json_integer_value(json_object_get(y, "partition"));
    if (p != q) return p < q ? -1 : 1;
    p = json_integer_value(json_object_get(x, "offset")), q = json_integer_value(json_object_get(y, "offset"));
    return (p > q) - (p < q);
}

static json_t *seen_records(world *w, json_t *list)
{
    size_t n = json_array_size(list);
    json_t **all = scratch(w, (n + 1) * sizeof *all), *records = json_array(), *values = json_array(), *offsets = json_array();
    for (size_t i = 0; i < n; i++) all[i] = json_array_get(list, i);
    if (n) qsort(all, n, sizeof *all, by_record);
    for (size_t i = 0; i < n; i++) {
        json_array_append(records, all[i]);
        json_array_append(values, json_object_get(all[i], "value"));
        json_array_append(offsets, json_object_get(all[i], "offset"));
    }
    return json_pack("{s:i, s:o, s:o, s:o}", "count", (int)n, "records", records, "values", values, "offsets", offsets);
}

/* The handles named by "on": a text, a list, or nothing. */
static size_t consumers_on(world *w, json_t *step, handle **out, size_t most)
{
    json_t *on = json_object_get(step, "on");
    size_t n = 0;
    if (!json_is_array(on)) {
        out[0] = handle_on(w, step, KIND_CONSUMER);
        return out[0] ? 1 : 0;
    }
    for (; n < json_array_size(on) && n < most; n++)
        if (!(out[n] = handle_find(w, KIND_CONSUMER, json_string_value(json_array_get(on, n))))) return 0;
    return n;
}

static bw_err read_records(world *w, json_t *step, json_t **result)
{
    handle *h[8];
    size_t n = consumers_on(w, step, h, 8), wanted = (size_t)arg_int(step, "count", 0);
    int64_t quiet_ms = arg_int(step, "quiet_ms", 0), end = clock_ms() + arg_timeout(step, PATIENCE_MS), quiet = 0;
    json_t *got = json_array();
    bw_err e = BW_OK;
    for (bool first = true; !w->is_broken && n && !e; first = false) {
        for (size_t i = 0; i < n; i++) {
            json_array_extend(got, h[i]->inbox);
            json_array_clear(h[i]->inbox);
        }
        int64_t now = clock_ms();
        if (!quiet && json_array_size(got) >= wanted) quiet = now + quiet_ms;
        if ((quiet && now >= quiet) || (now >= end && !first)) break;
        for (size_t i = 0; i < n && !e; i++) {
            int64_t left = (quiet ? quiet : end) - now;
            e = consumer_pump(w, h[i], (int32_t)(n > 1 ? 5 : left < 100 ? left : 100));
            if (e == BW_ERR_TIMED_OUT) e = BW_OK;
        }
    }
    if (!e) *result = seen_records(w, got);
    json_decref(got);
    return e;
}

static bool passes_while_settling(bw_err e)
{
    return e == BW_OK || e == BW_ERR_TIMED_OUT || e == BW_ERR_WOKEN || e == BW_ERR_FENCED_MEMBER_EPOCH || e == BW_ERR_UNKNOWN_MEMBER_ID ||
           e == BW_ERR_NOT_CONNECTED;
}

static bw_err settle(world *w, json_t *step, json_t **result)
{
    json_t *want = json_object_get(step, "want"), *number;
    const char *name;
    int64_t end = clock_ms() + arg_timeout(step, 20000);
    for (bool done = false; !done && !w->is_broken;) {
        done = true;
        if (*result) json_decref(*result);
        *result = json_object();
        json_object_foreach(want, name, number)
        {
            bw_topic_partition *parts = NULL;
            size_t n = 0;
            handle *h = handle_find(w, KIND_CONSUMER, name);
            if (!h) return BW_OK;
            bw_err e = consumer_pump(w, h, 5);
            if (!passes_while_settling(e)) return e;
            e = bw_consumer_assignment(h->object, &parts, &n);
            if (e) return e;
            bw_free(parts);
            json_object_set_new(*result, name, json_integer((json_int_t)n));
            done &= (json_int_t)n == json_integer_value(number);
        }
        if (!done && clock_ms() > end) {
            char *seen = json_dumps(*result, 0), *wanted = json_dumps(want, 0);
            broken(w, "the members did not settle: %s, wanted %s", seen, wanted);
            free(seen);
            free(wanted);
        }
    }
    return BW_OK;
}

static bw_err events(world *w, json_t *step, json_t **result)
{
    CONSUMER_OR_LEAVE(h);
    *result = h->told;
    h->told = json_array();
    return BW_OK;
}

static bw_err wake(world *w, json_t *step, json_t **result)
{
    (void)result;
    CONSUMER_OR_LEAVE(h);
    bw_consumer_wake(h->object);
    return BW_OK;
}

/* ---- commits ---- */

static bw_err commit(world *w, json_t *step, json_t **result)
{
    CONSUMER_OR_LEAVE(h);
    json_t *given = json_object_get(step, "offsets");
    size_t n = 0;
    bw_topic_partition *parts = given ? arg_parts(w, given, &n) : NULL;
    bw_err e = bw_consumer_commit(h->object, parts, n, arg_timeout(step, PATIENCE_MS));
    *result = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(*result, json_pack("{s:s, s:i, s:o}", "topic", parts[i].topic, "partition", (int)parts[i].partition, "error",
                                                 seen_error(parts[i].error)));
    return e;
}

static void committed_async(bw_consumer *consumer, bw_err error, const bw_topic_partition *parts, size_t count, void *opaque)
{
    (void)consumer, (void)parts, (void)count;
    handle *h = opaque;
    json_array_append_new(h->outcomes, json_pack("{s:o}", "error", seen_error(error)));
}

static bw_err commit_async(world *w, json_t *step, json_t **result)
{
    (void)result;
    CONSUMER_OR_LEAVE(h);
    json_t *given = json_object_get(step, "offsets");
    size_t n = 0;
    bw_topic_partition *parts = given ? arg_parts(w, given, &n) : NULL;
    return bw_consumer_commit_async(h->object, parts, n, committed_async, h);
}

static bw_err commit_outcomes(world *w, json_t *step, json_t **result)
{
    CONSUMER_OR_LEAVE(h);
    size_t wanted = (size_t)arg_int(step, "count", 1);
    int64_t end = clock_ms() + arg_timeout(step, PATIENCE_MS);
    while (json_array_size(h->outcomes) < wanted) {
        bw_err e = consumer_pump(w, h, 20);
        if (e && e != BW_ERR_TIMED_OUT) return e;
        if (clock_ms() > end) return BW_ERR_TIMED_OUT;
    }
    *result = h->outcomes;
    h->outcomes = json_array();
    return BW_OK;
}

static bw_err committed(world *w, json_t *step, json_t **result)
{
    CONSUMER_OR_LEAVE(h);
    size_t n = 0;
    bw_topic_partition *parts = arg_parts(w, json_object_get(step, "partitions"), &n);
    bw_err e = bw_consumer_committed(h->object, parts, n, arg_timeout(step, PATIENCE_MS));
    *result = json_array();
    for (size_t i = 0; i < n; i++) {
        const char *note = parts[i].metadata && *parts[i].metadata ? parts[i].metadata : NULL;
        json_array_append_new(*result, json_pack("{s:s, s:i, s:o, s:s?, s:o}", "topic", parts[i].topic, "partition", (int)parts[i].partition,
                                                 "offset", seen_offset(parts[i].offset), "metadata", note, "error", seen_error(parts[i].error)));
    }
    return e;
}

static bw_err group_metadata(world *w, json_t *step, json_t **result)
{
    CONSUMER_OR_LEAVE(h);
    bw_group_metadata g = {0};
    bw_err e = bw_consumer_group_metadata(h->object, &g);
    if (!e)
        *result = json_pack("{s:s, s:s, s:s?, s:i}", "group_id", g.group_id, "member_id", g.member_id, "group_instance_id", g.group_instance_id,
                            "member_epoch", (int)g.member_epoch);
    return e;
}

const verb consumer_verbs[] = {
    {"consumer.open", consumer_open},
    {"consumer.close", consumer_close},
    {"assign", assign},
    {"unassign", unassign},
    {"pause", pause_it},
    {"resume", resume},
    {"seek", seek},
    {"seek.time", seek_time},
    {"position", position},
    {"assignment", assignment},
    {"subscribe", subscribe},
    {"unsubscribe", unsubscribe},
    {"subscription", subscription},
    {"poll", poll_once},
    {"read", read_records},
    {"settle", settle},
    {"events", events},
    {"wake", wake},
    {"commit", commit},
    {"commit.async", commit_async},
    {"commit.outcomes", commit_outcomes},
    {"committed", committed},
    {"group.metadata", group_metadata},
    {NULL, NULL},
};
