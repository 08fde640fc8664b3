/* world.c: handles, arguments of steps, and what the library gave as JSON. */
#include "conformance/conformance.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

void broken(world *w, const char *format, ...)
{
    va_list list;
    if (w->is_broken) return; /* the first reason counts */
    w->is_broken = true;
    va_start(list, format);
    vsnprintf(w->why, sizeof w->why, format, list);
    va_end(list);
}

static int64_t clock_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int64_t clock_ms(void) { return clock_of(CLOCK_MONOTONIC); }
int64_t wall_ms(void) { return clock_of(CLOCK_REALTIME); }

void *scratch(world *w, size_t bytes)
{
    if (w->scratch_count == w->scratch_room) {
        w->scratch_room = w->scratch_room ? 2 * w->scratch_room : 64;
        w->scratch = realloc(w->scratch, w->scratch_room * sizeof *w->scratch);
    }
    void *made = calloc(1, bytes ? bytes : 1);
    w->scratch[w->scratch_count++] = made;
    return made;
}

void scratch_free(world *w)
{
    while (w->scratch_count > 0) free(w->scratch[--w->scratch_count]);
}

/* ---- handles ---- */

static const char *const names[] = {"bus", "p", "c", "q", "s", "x", "m"};

const char *kind_name(kind k) { return names[k]; }
const char *name_made(json_t *step, kind k) { return arg_text_or(step, "as", names[k]); }

handle *handle_add(world *w, kind k, const char *name, void *object)
{
    handle *h = calloc(1, sizeof *h);
    for (handle *old = w->handles; old; old = old->next)
        if (old->kind == k && !strcmp(old->name, name) && k != KIND_MESSAGES) broken(w, "%s is open already", name);
    snprintf(h->name, sizeof h->name, "%s", name);
    h->kind = k;
    h->world = w;
    h->object = object;
    h->inbox = json_array();
    h->told = json_array();
    h->outcomes = json_array();
    h->reached = json_object();
    h->next = w->handles;
    w->handles = h;
    return h;
}

handle *handle_find(world *w, kind k, const char *name)
{
    for (handle *h = w->handles; h; h = h->next)
        if (h->kind == k && !strcmp(h->name, name)) return h;
    broken(w, "nothing is open under the name \"%s\" that this step could be done with", name);
    return NULL;
}

handle *handle_on(world *w, json_t *step, kind k) { return handle_find(w, k, arg_text_or(step, "on", names[k])); }

void handle_close(world *w, handle *h, bw_err *error)
{
    bw_err e = BW_OK;
    switch (h->kind) {
    case KIND_BUS: bw_bus_close(h->object); break;
    case KIND_PRODUCER: e = bw_producer_close(h->object, PATIENCE_MS); break;
    case KIND_CONSUMER: bw_consumer_close(h->object); break;
    case KIND_QUEUE: e = bw_queue_close(h->object); break;
    case KIND_STATE: bw_state_close(h->object); break;
    case KIND_TXN: /* whoever commits or aborts takes the object away */
        if (h->object) bw_state_abort(h->object);
        break;
    case KIND_MESSAGES: free(h->messages); break;
    }
    if (error) *error = e;
    for (handle **at = &w->handles; *at; at = &(*at)->next)
        if (*at == h) {
            *at = h->next;
            break;
        }
    json_decref(h->inbox);
    json_decref(h->told);
    json_decref(h->outcomes);
    json_decref(h->reached);
    free(h);
}

/* ---- arguments ---- */

const char *arg_text_or(json_t *step, const char *name, const char *other)
{
    json_t *v = json_object_get(step, name);
    return json_is_string(v) ? json_string_value(v) : other;
}

const char *arg_text(world *w, json_t *step, const char *name)
{
    const char *text = arg_text_or(step, name, NULL);
    if (!text) broken(w, "\"%s\" is missing, or no text", name);
    return text ? text : "";
}

int64_t arg_int(json_t *step, const char *name, int64_t other)
{
    json_t *v = json_object_get(step, name);
    return json_is_number(v) ? (int64_t)json_number_value(v) : other;
}

int32_t arg_timeout(json_t *step, int32_t other) { return (int32_t)arg_int(step, "timeout_ms", other); }
int32_t arg_partition(json_t *step) { return (int32_t)arg_int(step, "partition", BW_PARTITION_ANY); }

int64_t arg_offset(world *w, json_t *v, int64_t other)
{
    if (json_is_number(v)) return json_integer_value(v);
    if (!v || json_is_null(v)) return other;
    const char *text = json_is_string(v) ? json_string_value(v) : "";
    if (!strcmp(text, "beginning")) return BW_OFFSET_BEGINNING;
    if (!strcmp(text, "end")) return BW_OFFSET_END;
    broken(w, "\"%s\" is no offset", text);
    return other;
}

void arg_bytes(world *w, json_t *v, const void **bytes, size_t *len)
{
    *bytes = NULL;
    *len = 0;
    if (!v || json_is_null(v)) return;
    if (json_is_string(v)) {
        *len = json_string_length(v);
        char *copy = scratch(w, *len + 1); /* never NULL: empty is not null */
        memcpy(copy, json_string_value(v), *len);
        *bytes = copy;
        return;
    }
    const char *hex = arg_text(w, v, "hex");
    uint8_t *made = scratch(w, strlen(hex) / 2 + 1);
    for (*len = 0; hex[2 * *len] && hex[2 * *len + 1]; (*len)++) {
        unsigned byte = 0;
        if (sscanf(hex + 2 * *len, "%2x", &byte) != 1) broken(w, "\"%s\" is not hexadecimal", hex);
        made[*len] = (uint8_t)byte;
    }
    *bytes = made;
}

static void arg_header(world *w, json_t *v, bw_header *out)
{
    const void *name;
    arg_bytes(w, json_array_get(v, 0), &name, &out->name_len);
    out->name = name;
    if (json_is_number(json_array_get(v, 1))) {
        bw_header_deliver_at(json_integer_value(json_array_get(v, 1)), scratch(w, 8), out);
        return;
    }
    arg_bytes(w, json_array_get(v, 1), &out->value, &out->value_len);
}

bw_record arg_record(world *w, json_t *v)
{
    bw_record r = {.timestamp_ms = arg_int(v, "timestamp", BW_NO_TIMESTAMP)};
    json_t *headers = json_object_get(v, "headers");
    if (!json_is_object(v)) broken(w, "a record must be an object");
    arg_bytes(w, json_object_get(v, "key"), &r.key, &r.key_len);
    arg_bytes(w, json_object_get(v, "value"), &r.value, &r.value_len);
    r.header_count = json_array_size(headers);
    bw_header *made = r.header_count ? scratch(w, r.header_count * sizeof *made) : NULL;
    for (size_t i = 0; i < r.header_count; i++) arg_header(w, json_array_get(headers, i), &made[i]);
    r.headers = made;
    return r;
}

bw_topic_partition *arg_parts(world *w, json_t *list, size_t *count)
{
    *count = json_array_size(list);
    bw_topic_partition *parts = scratch(w, (*count + 1) * sizeof *parts);
    for (size_t i = 0; i < *count; i++) {
        json_t *v = json_array_get(list, i);
        parts[i] = (bw_topic_partition){.topic = arg_text(w, v, "topic"), .partition = arg_partition(v), .leader_epoch = -1,
                                        .offset = arg_offset(w, json_object_get(v, "offset"), BW_OFFSET_INVALID),
                                        .metadata = arg_text_or(v, "metadata", NULL)};
    }
    return parts;
}

bw_transport transport_named(const char *name)
{
    if (name && !strcmp(name, "direct")) return BW_TRANSPORT_DIRECT;
    return name && !strcmp(name, "ipc") ? BW_TRANSPORT_IPC : BW_TRANSPORT_AUTO;
}

/* ---- what is seen ---- */

json_t *seen_offset(int64_t offset)
{
    if (offset == BW_OFFSET_INVALID) return json_string("none");
    if (offset == BW_OFFSET_BEGINNING) return json_string("beginning");
    if (offset == BW_OFFSET_END) return json_string("end");
    return json_integer(offset);
}

json_t *seen_error(bw_err e) { return e ? json_string(bw_err_name(e)) : json_null(); }

json_t *seen_headers(const bw_record_view *r)
{
    bw_header_iter it;
    bw_header h;
    json_t *list = json_array();
    bw_header_iter_init(&it, r);
    while (bw_header_iter_next(&it, &h) == 1)
        json_array_append_new(list, json_pack("[oo]", value_bytes(h.name, h.name_len), value_bytes(h.value, h.value_len)));
    return list;
}

json_t *seen_record(const bw_batch *b, const bw_record_view *r)
{
    static const char *const types[] = {"create", "log_append"};
    return json_pack("{s:s, s:i, s:I, s:I, s:s, s:o, s:o, s:o}", "topic", b->topic, "partition", (int)b->partition, "offset",
                     (json_int_t)r->offset, "timestamp", (json_int_t)r->timestamp_ms, "timestamp_type",
                     b->timestamp_type >= 0 && b->timestamp_type <= 1 ? types[b->timestamp_type] : "none", "key",
                     value_bytes(r->key, r->key_len), "value", value_bytes(r->value, r->value_len), "headers", seen_headers(r));
}

bw_err seen_json(world *w, bw_err e, char *text, json_t **result)
{
    if (e) return e;
    json_error_t why;
    *result = json_loads(text, JSON_DECODE_ANY, &why);
    if (!*result) broken(w, "the library's document is no JSON: %s: %.200s", why.text, text);
    bw_free(text);
    return BW_OK;
}

bw_err error_named(const char *name)
{
#define ERROR_NAMED(NAME, number, text, cls) if (!strcmp(name, #NAME)) return BW_ERR_##NAME;
    BW_ERR_MAP(ERROR_NAMED)
#undef ERROR_NAMED
    return (bw_err)-1;
}
