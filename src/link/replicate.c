/* link/replicate.c: see replicate.h.
 *
 * Acknowledging, a partition at a time: REPLICA_STATE to the sink, answered when what was copied last is on its disk -> REPLICA_ACK to the
 * source with what the sink said -> again, if more was copied meanwhile; else one REPLICA_STATE more when the watermark has moved, so that
 * the sink's readers see it. At most one of these is under way for a partition; what is copied meanwhile goes together.
 */
#include "link/replicate.h"

#include "link/copy_internal.h"
#include "link/endpoint_bus.h"
#include "proto/replica_items.h"

#include <stdio.h>
#include <stdlib.h>

enum { ASK_MS = 30000 };

/* ---- acknowledging ---- */

static bool is_mirror(const bw_copy *c) { return c->spec->mode == BW_LINK_MIRROR && c->source->is_bus && c->sink->is_bus; }

static void ask_sink(bw_copy *c, bw_copy_part *p);

static void on_acknowledged(bw_ask *ask, bw_err e, const bw_answer *a)
{
    bw_copy_part *p = ask->opaque;
    bw_copy *c = p->copy;
    p->acknowledging = false;
    if (e || c->discard || c->failed) {
        bool first = p->wanted != 0;
        if (e && !bw_copy_is_lost(e)) p->wanted = 0; /* until the stream begins anew */
        char more[420];
        snprintf(more, sizeof more, "error=%s reason=\"%.300s\"", bw_err_name(e), bw_error_message());
        if (e && first && !bw_copy_is_lost(e)) bw_copy_say(c, BW_LOG_WARN, "replica_not_acknowledged", p, more);
        return;
    }
    bool moved = a->replica.replicated > p->replicated;
    p->wanted = a->replica.wanted;
    if (moved) p->replicated = a->replica.replicated;
    if (p->wanted && (p->next > p->acknowledged || moved)) ask_sink(c, p);
}

static void on_state(bw_ask *ask, bw_err e, const bw_answer *a)
{
    bw_copy_part *p = ask->opaque;
    bw_copy *c = p->copy;
    p->acknowledging = false;
    if (e || c->discard || c->failed) return; /* the next copy tries again, or the stream begins anew */
    bool news = a->end > p->acknowledged || (p->wanted == 2 && a->durable > p->acknowledged_durable);
    if (!news && p->told) return;
    char peer[33];
    for (int i = 0; i < 16; i++) snprintf(peer + 2 * i, 3, "%02x", c->sink_origin.id.b[i]);
    bw_request q;
    bw_request_init(&q, BW_API_REPLICA_ACK);
    q.topic = bw_str_of(p->key.topic);
    q.partition = p->key.partition;
    q.replica.peer = bw_str_of(peer);
    q.replica.epoch = a->replica.epoch;
    q.replica.visible = a->end;
    q.replica.durable = a->durable;
    p->acknowledged = a->end;
    p->acknowledged_durable = a->durable;
    p->told = true;
    p->replica_ask = (bw_ask){.done = on_acknowledged, .opaque = p};
    p->acknowledging = bw_channel_submit(bw_bus_channel(c->source), &q, &p->replica_ask) == BW_OK;
}

static void ask_sink(bw_copy *c, bw_copy_part *p)
{
    bw_request q;
    bw_request_init(&q, BW_API_REPLICA_STATE);
    q.topic = bw_str_of(p->target);
    q.partition = p->key.partition;
    q.replica.visible = p->replicated;
    q.replica.durable = p->wanted == 2 ? p->next : 0;
    p->copy = c;
    p->replica_ask = (bw_ask){.done = on_state, .opaque = p};
    p->acknowledging = bw_channel_submit(bw_bus_channel(c->sink), &q, &p->replica_ask) == BW_OK;
}

void bw_replicate_note(bw_copy *c, bw_copy_part *p)
{
    if (p->wanted && !p->acknowledging && is_mirror(c)) ask_sink(c, p);
}

bw_err bw_replicate_begin(bw_copy *c)
{
    if (!is_mirror(c)) return BW_OK;
    for (bw_copy_part *p = c->parts; p; p = p->hh.next) {
        if (!p->present || p->error) continue;
        p->started = 0;
        if (p->acknowledging) continue;
        p->told = false;
        p->wanted = 1; /* the answer says */
        ask_sink(c, p);
    }
    return BW_OK;
}

/* ---- the log's start ---- */

static void on_started(bw_ask *ask, bw_err e, const bw_answer *a)
{
    bw_copy_part *p = ask->opaque;
    bw_copy *c = p->copy;
    (void)a;
    p->starting = false;
    if (c->discard || c->failed || bw_copy_is_lost(e)) return;
    if (e) { /* not again until the stream is arranged anew */
        char more[420];
        snprintf(more, sizeof more, "error=%s reason=\"%.300s\"", bw_err_name(e), bw_error_message());
        bw_copy_say(c, BW_LOG_WARN, "log_start_not_followed", p, more);
        p->started = INT64_MAX;
        return;
    }
    bw_replicate_start(c, p);
}

void bw_replicate_start(bw_copy *c, bw_copy_part *p)
{
    int64_t upto = p->log_start < p->next ? p->log_start : p->next;
    if (!c->spec->follow_start || !is_mirror(c) || p->starting || upto <= p->started) return;
    bw_request q;
    bw_request_init(&q, BW_API_DELETE_RECORDS);
    q.topic = bw_str_of(p->target);
    q.partition = p->key.partition;
    q.offset = upto;
    p->copy = c;
    p->started = upto;
    p->start_ask = (bw_ask){.done = on_started, .opaque = p};
    p->starting = bw_channel_submit(bw_bus_channel(c->sink), &q, &p->start_ask) == BW_OK;
}

/* ---- fencing ---- */

typedef struct epochs {
    bw_epoch_entry *list;
    size_t count;
    int32_t now;
    int64_t end;
} epochs;

static bw_err ask_epochs(bw_endpoint *ep, const char *topic, int32_t partition, epochs *out)
{
    bw_request q;
    bw_reply reply;
    *out = (epochs){0};
    bw_request_init(&q, BW_API_EPOCHS);
    q.topic = bw_str_of(topic);
    q.partition = partition;
    bw_err e = bw_channel_request(bw_bus_channel(ep), &q, bw_deadline_in_ms(ASK_MS), &reply);
    const bw_replica_answer *a = &reply.answer.replica;
    if (!e) {
        out->now = a->epoch;
        out->end = reply.answer.end;
        e = bw_epoch_items(a->ranges, &out->list, &out->count);
    }
    bw_reply_fini(&reply);
    return e;
}

static bw_err fence_partition(bw_copy *c, const char *topic, const char *target, int32_t partition)
{
    epochs leads, was;
    bw_err e = ask_epochs(c->sink, target, partition, &leads);
    if (e) return e;
    e = ask_epochs(c->source, topic, partition, &was);
    if (!e && leads.now > was.now) {
        bw_request q;
        bw_reply reply;
        char peer[33];
        for (int i = 0; i < 16; i++) snprintf(peer + 2 * i, 3, "%02x", c->sink_origin.id.b[i]);
        bw_request_init(&q, BW_API_FENCE);
        q.topic = bw_str_of(topic);
        q.partition = partition;
        q.replica.peer = bw_str_of(peer);
        q.replica.epoch = leads.now;
        q.replica.from = bw_epochs_part(leads.list, leads.count, leads.end, was.list, was.count, was.end);
        e = bw_channel_request(bw_bus_channel(c->source), &q, bw_deadline_in_ms(ASK_MS), &reply);
        bw_reply_fini(&reply);
    }
    free(leads.list);
    free(was.list);
    return e;
}

bw_err bw_replicate_fence(bw_copy *c, const char *topic, const char *target, int32_t partitions)
{
    if (!is_mirror(c)) return BW_OK;
    for (int32_t i = 0; i < partitions; i++) {
        bw_err e = fence_partition(c, topic, target, i);
        if (bw_copy_is_lost(e)) return e;
        if (!e) continue;
        char fields[900];
        snprintf(fields, sizeof fields, "link=%s topic=%s partition=%d error=%s reason=\"%.300s\"", c->spec->name, topic, i, bw_err_name(e),
                 bw_error_message());
        if (c->event) c->event(c->opaque, BW_LOG_ERROR, "origin_not_fenced", fields);
    }
    return BW_OK;
}
