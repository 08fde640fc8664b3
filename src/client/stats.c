/* client/stats.c: bw_bus_stats: what a bus does, as JSON. */
#include "client/backend.h"
#include "client/consumer.h"
#include "client/producer.h"

#include <jansson.h>
#include <stdlib.h>

static void put(json_t *o, const char *name, uint64_t v) { json_object_set_new(o, name, json_integer((json_int_t)v)); }

/* What open producers' partitions sent directly, which they add to the bus's totals only when they close. */
static void add_open(bw_bus *bus, uint64_t *records, uint64_t *bytes, uint64_t *batches, uint64_t *queued)
{
    pthread_mutex_lock(&bus->mutex);
    for (bw_producer *p = bus->producers; p; p = p->next) {
        *queued += atomic_load(&p->memory);
        pthread_mutex_lock(&p->mutex);
        for (bw_ptopic *t = p->topics; t; t = t->next) {
            for (int32_t i = 0; i < atomic_load(&t->partitions); i++) {
                bw_ppart *part = atomic_load(&t->parts[i]);
                if (!part) continue;
                *records += atomic_load_explicit(&part->sent_records, memory_order_relaxed);
                *bytes += atomic_load_explicit(&part->sent_bytes, memory_order_relaxed);
                *batches += atomic_load_explicit(&part->sent_batches, memory_order_relaxed);
            }
        }
        pthread_mutex_unlock(&p->mutex);
    }
    pthread_mutex_unlock(&bus->mutex);
}

static void add_consumers(bw_bus *bus, uint64_t *records, uint64_t *bytes, uint64_t *batches, uint64_t *sleeps, uint64_t *looks)
{
    pthread_mutex_lock(&bus->mutex);
    for (bw_consumer *c = bus->consumers; c; c = c->next) {
        *records += atomic_load_explicit(&c->records, memory_order_relaxed);
        *bytes += atomic_load_explicit(&c->bytes, memory_order_relaxed);
        *batches += atomic_load_explicit(&c->batches, memory_order_relaxed);
        *sleeps += atomic_load_explicit(&c->sleeps, memory_order_relaxed);
        *looks += atomic_load_explicit(&c->looks, memory_order_relaxed);
    }
    pthread_mutex_unlock(&bus->mutex);
}

static json_t *routes_json(bw_bus *bus, bool *any, bool *all_direct)
{
    json_t *list = json_array();
    pthread_mutex_lock(&bus->direct.mutex);
    for (const bw_route *r = bus->direct.routes; r; r = r->next) {
        json_t *o = json_object();
        json_object_set_new(o, "topic", json_string(r->topic));
        json_object_set_new(o, "for", json_string(r->for_write ? "write" : "read"));
        json_object_set_new(o, "transport", json_string(r->direct ? "direct" : bw_bus_socket_kind(bus)));
        if (!r->direct) json_object_set_new(o, "reason", json_string(r->reason));
        json_array_append_new(list, o);
        *any = true;
        *all_direct &= r->direct;
    }
    pthread_mutex_unlock(&bus->direct.mutex);
    return list;
}

char *bw_bus_stats(bw_bus *bus)
{
    if (!bus || bw_forked(&bus->guard)) return NULL;
    BW_DISPATCH(bus, bus_stats(bus));
    uint64_t records = atomic_load(&bus->records_out), bytes = atomic_load(&bus->bytes_out), batches = atomic_load(&bus->batches_out);
    uint64_t records_in = atomic_load(&bus->records_in), bytes_in = atomic_load(&bus->bytes_in),
             batches_in = atomic_load(&bus->batches_in), waits = atomic_load(&bus->waits), looks = atomic_load(&bus->looks), queued = 0;
    add_consumers(bus, &records_in, &bytes_in, &batches_in, &waits, &looks);
    add_open(bus, &records, &bytes, &batches, &queued);
    json_t *o = json_object();
    bool any = false, all_direct = true;
    json_t *routes = routes_json(bus, &any, &all_direct);
    json_object_set_new(o, "url", json_string(bus->url_text));
    json_object_set_new(o, "transport", json_string(any && all_direct ? "direct" : bw_bus_socket_kind(bus)));
    json_object_set_new(o, "topics", routes);
    json_object_set_new(o, "connected", json_boolean(bw_conn_is_up(&bus->conn)));
    json_object_set_new(o, "socket", json_string(bus->socket_path));
    put(o, "connections", atomic_load(&bus->conn.epoch));
    put(o, "records_out", records);
    put(o, "bytes_out", bytes);
    put(o, "batches_out", batches);
    put(o, "records_in", records_in);
    put(o, "bytes_in", bytes_in);
    put(o, "batches_in", batches_in);
    put(o, "buffered_bytes", queued);
    put(o, "throttled_answers", atomic_load(&bus->conn.throttled)); /* by quotas */
    put(o, "throttled_ms", atomic_load(&bus->conn.throttled_ms));
    put(o, "waits", waits);
    put(o, "partitions_looked_at", looks); /* in vain: drained, or armed before a sleep */
    json_t *calls = json_object();
    put(calls, "send", atomic_load(&bus->conn.sends));
    put(calls, "recv", atomic_load(&bus->conn.receives));
    put(calls, "poll", atomic_load(&bus->conn.polls));
    put(calls, "bytes_sent", atomic_load(&bus->conn.bytes_out));
    put(calls, "bytes_received", atomic_load(&bus->conn.bytes_in));
    json_object_set_new(o, "socket_calls", calls);
    char *text = json_dumps(o, JSON_COMPACT);
    json_decref(o);
    return text;
}
