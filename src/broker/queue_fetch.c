/* broker/queue_fetch.c: QUEUE_FETCH: records go to a worker: what came back first, then what is due, then new ones.
 *
 * A fetch goes round the group's partitions, from where the last one stopped, until it has what it wants. One that finds nothing waits
 * in the group's line, and is tried again when a partition of its topics has something: the tail moved, a record came back, one is due.
 * A record that is out for the last time goes alone: when its worker dies of it, no neighbour is worn out with it. */
#include "broker/queue.h"

#include "base/killpoint.h"

#include <stdlib.h>

#define WAIT_MAX_MS 3600000
#define RECORD_HEAD 32u
#define PARKS_AT_ONCE 4096u

typedef struct giving {
    bw_queue_group *group;
    bw_queue_member *member;
    const bw_queue_request *want;
    size_t run_count;
    uint32_t records;
    size_t bytes;
    int64_t lease_ns, now_ms;
    bool full;
    bw_err error;
} giving;

/* ---- the answer ---- */

static bw_err add_run(bw_broker *b, giving *g, bw_queue_part *q, int64_t offset, uint16_t deliveries)
{
    bw_queues *all = b->queues;
    bw_queue_run *last = g->run_count ? &all->runs[g->run_count - 1] : NULL;
    if (last && last->topic.data == q->part->topic->name && last->partition == (int32_t)q->index && last->last + 1 == offset &&
        last->deliveries == deliveries) {
        last->last = offset;
        return BW_OK;
    }
    if (g->run_count == all->run_cap) {
        uint32_t cap = all->run_cap ? all->run_cap * 2 : 64;
        bw_queue_run *grown = realloc(all->runs, cap * sizeof *grown);
        if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for an answer");
        all->runs = grown;
        all->run_cap = cap;
    }
    all->runs[g->run_count++] = (bw_queue_run){bw_str_of(q->part->topic->name), (int32_t)q->index, offset, offset, deliveries};
    return BW_OK;
}

static uint8_t *put_bytes(uint8_t *p, const uint8_t *data, uint32_t len)
{
    bw_put_be32(p, data ? len : UINT32_MAX);
    if (data && len) memcpy(p + 4, data, len);
    return p + 4 + (data ? len : 0);
}

static size_t record_bytes(const bw_record_view *v) { return RECORD_HEAD + v->key_len + v->value_len + v->headers_len; }

static bw_err add_record(bw_broker *b, giving *g, const bw_record_view *v)
{
    size_t need = record_bytes(v);
    g->bytes += need;
    g->records++;
    if (g->want->direct) return BW_OK;
    bw_err e = bw_buf_reserve(&b->payload, need);
    if (e) return e;
    uint8_t *begin = b->payload.data + b->payload.len, *p = begin + 4;
    bw_put_be64(p, (uint64_t)v->offset);
    bw_put_be64(p + 8, (uint64_t)v->timestamp_ms);
    p = put_bytes(p + 16, v->key, v->key_len);
    p = put_bytes(p, v->value, v->value_len);
    bw_put_be32(p, v->header_count);
    if (v->headers_len) memcpy(p + 4, v->headers_raw, v->headers_len);
    p += 4 + v->headers_len;
    bw_put_be32(begin, (uint32_t)(p - begin - 4));
    b->payload.len += (size_t)(p - begin);
    return BW_OK;
}

/* May this record go into what is being given? full when not. */
static bool fits(giving *g, const bw_record_view *v)
{
    g->full = g->records >= g->want->max_records || (g->records && g->bytes + record_bytes(v) > g->want->max_bytes);
    return !g->full;
}

/* v is AVAILABLE. */
static bw_err give(bw_broker *b, giving *g, bw_queue_part *q, const bw_record_view *v)
{
    uint16_t max = g->group->settings.max_deliveries;
    if (!bw_queue_state_acquire(&q->state, v->offset, g->member->number, g->lease_ns, max)) return BW_OK; /* it dies */
    const bw_queue_entry *entry = bw_queue_state_find(&q->state, v->offset, NULL);
    bw_queue_part_leased(b, q, g->lease_ns, entry->deliveries > 1);
    g->full = max > 1 && entry->deliveries >= max; /* alone */
    bw_err e = add_run(b, g, q, v->offset, entry->deliveries);
    if (!e) e = add_record(b, g, v);
    if (g->records >= g->want->max_records || g->bytes >= g->want->max_bytes) g->full = true;
    return e;
}

/* ---- what is put off ---- */

static bw_err put_off(bw_queue_part *q, bw_delay d)
{
    if (q->put_off + q->park_count >= BW_QUEUE_PUT_OFF_MAX) {
        q->limited = true;
        return BW_ERR_LIMIT_REACHED;
    }
    if (q->park_count == q->park_cap) {
        uint32_t cap = q->park_cap ? q->park_cap * 2 : 64;
        bw_delay *grown = realloc(q->parks, cap * sizeof *grown);
        if (!grown) return bw_fail(BW_ERR_NO_MEMORY, "no memory for delayed records");
        q->parks = grown;
        q->park_cap = cap;
    }
    bw_err e = bw_queue_state_skip(&q->state, d.offset + 1);
    if (!e) e = bw_delays_add(&q->delays, d);
    if (!e) q->parks[q->park_count++] = d;
    if (!e) q->dirty = true;
    return e;
}

/* ---- one partition ---- */

static bw_err give_again(bw_broker *b, giving *g, bw_queue_part *q)
{
    int64_t offset, upto;
    const bw_queue_entry *entry;
    uint16_t max = g->group->settings.max_deliveries;
    while (!g->full && q->state.acquired < g->group->settings.max_in_flight && bw_queue_state_next(&q->state, &offset, &entry)) {
        if (max > 1 && entry->deliveries + 1 >= max && g->records) {
            g->full = true;
            return BW_OK;
        }
        bw_record_view v;
        bw_err e = bw_queue_read(b, q, &q->old, offset, &v, &upto);
        if (e == BW_ERR_OFFSET_OUT_OF_RANGE) {
            int64_t log_start, end, durable;
            bw_part_range(q->part, &log_start, &end, &durable);
            bw_queue_state_trim(&q->state, log_start);
            q->dirty = true;
            if (offset >= log_start) return e;
            continue;
        }
        if (e && e != BW_ERR_EMPTY) return e;
        if (e || v.offset != offset) { /* compacted away, or of an aborted transaction */
            bw_queue_state_lose(&q->state, offset);
            q->dirty = true;
            continue;
        }
        if (!fits(g, &v)) return BW_OK;
        if ((e = give(b, g, q, &v))) return e;
    }
    return BW_OK;
}

/* The next new record that is due, admitted; what is not due is put off on the way. EMPTY: none. */
static bw_err next_fresh(bw_broker *b, giving *g, bw_queue_part *q, bw_record_view *v)
{
    for (;;) {
        int64_t at = q->state.end, upto = at, due;
        if (q->park_count >= PARKS_AT_ONCE) {
            bw_queue_commit(b, q);
            if (q->park_count >= 2 * PARKS_AT_ONCE) return BW_ERR_EMPTY; /* goes on when they are stored */
        }
        bw_err e = bw_queue_read(b, q, &q->fresh, at, v, &upto);
        if (e == BW_ERR_OFFSET_OUT_OF_RANGE) {
            int64_t log_start, end, durable;
            bw_part_range(q->part, &log_start, &end, &durable);
            if (at >= log_start) return at == end ? BW_ERR_EMPTY : e;
            bw_queue_state_trim(&q->state, log_start);
            if ((e = bw_queue_state_skip(&q->state, log_start))) return e == BW_ERR_LIMIT_REACHED ? BW_ERR_EMPTY : e;
            q->dirty = true;
            continue;
        }
        if (e == BW_ERR_EMPTY && upto > at && bw_queue_state_skip(&q->state, upto) == BW_OK) q->dirty = true;
        if (e) return e;
        if (v->offset + 1 - q->state.start > BW_QUEUE_SPAN_MAX && q->state.start != q->state.end) return BW_ERR_EMPTY; /* the window is full */
        if (!v->header_count || !bw_deliver_at(v, &due) || due <= g->now_ms) return BW_OK;
        if (q->limited) return BW_ERR_EMPTY;
        e = put_off(q, (bw_delay){.due_ms = due, .offset = v->offset});
        if (e) return e == BW_ERR_LIMIT_REACHED ? BW_ERR_EMPTY : e;
    }
}

static bw_err give_fresh(bw_broker *b, giving *g, bw_queue_part *q)
{
    bw_err e = BW_OK;
    while (!e && !g->full && q->state.acquired < g->group->settings.max_in_flight) {
        bw_record_view v;
        if ((e = next_fresh(b, g, q, &v))) break;
        if (!fits(g, &v)) break;
        if ((e = bw_queue_state_admit(&q->state, v.offset))) break;
        e = give(b, g, q, &v);
    }
    return e == BW_ERR_EMPTY || e == BW_ERR_LIMIT_REACHED ? BW_OK : e;
}

static bool has_news(const bw_queue_part *q)
{
    return bw_slot_end_offset(&q->part->topic->control->slots[q->part->index]) > q->state.end;
}

static void take_from(bw_broker *b, giving *g, bw_queue_part *q)
{
    if (!bw_queue_part_ready(b, q)) return;
    bw_queue_part_admit_due(b, q, g->now_ms);
    if (!q->state.available && !has_news(q)) return;
    bw_err e = give_again(b, g, q);
    if (!e && !g->full) e = give_fresh(b, g, q);
    if (q->state.untaken) bw_queue_bury(b, q);
    if (q->park_count) bw_queue_commit(b, q);
    if (e) {
        char why[700];
        if (!q->failing)
            bw_broker_event(b, BW_LOG_ERROR, "queue_read_failed", "group=%s topic=%s partition=%u reason=%s", g->group->name,
                            q->part->topic->name, q->index, bw_event_text(bw_error_message(), why, sizeof why));
        g->error = e;
    }
    q->failing = e != BW_OK;
}

static bool wants(const bw_queue_member *m, const bw_queue_part *q)
{
    for (size_t i = 0; i < m->topic_count; i++)
        if (bw_uuid_equal(&m->topics[i], &q->topic)) return true;
    return false;
}

/* true: answered. last: whatever there is. only: from this partition; NULL: from all. */
static bool try_fetch(bw_broker *b, bw_queue_member *m, bw_op *op, bw_queue_wait *w, bw_queue_part *only, bool last)
{
    bw_queue_group *group = m->group;
    int64_t lease_ns = bw_clock_mono_ns() + group->settings.lease_ms * INT64_C(1000000);
    giving g = {.group = group, .member = m, .want = &op->request.queue, .lease_ns = lease_ns, .now_ms = bw_clock_wall_ms()};
    b->payload.len = 0;
    bw_queue_part *q = group->turn ? group->turn : group->parts;
    for (uint32_t i = 0; q && !only && i < group->part_count && !g.full; i++) {
        bw_queue_part *next = q->next ? q->next : group->parts;
        if (wants(m, q)) take_from(b, &g, q);
        q = next;
    }
    if (only) take_from(b, &g, only);
    else group->turn = q;
    if (!g.records && !g.error && !last) return false;
    if (!g.records && g.error && !w && last) {
        bw_op_fail(op, g.error);
        return true;
    }
    if (!g.records && !last) return false; /* a partition that can't be read: others may have something; describe says so */
    m->fetched += g.records;
    bw_answer a;
    bw_answer_init(&a, &op->request);
    a.queue.runs = b->queues->runs;
    a.queue.run_count = g.run_count;
    a.payload = b->payload.data;
    a.payload_len = b->payload.len;
    BW_KILL_POINT("queue.acquired");
    if (w) bw_queue_wait_end(b, w, &a);
    else bw_op_finish(op, &a);
    BW_KILL_POINT("queue.given");
    if (b->payload.cap > (4u << 20)) bw_buf_free(&b->payload);
    return true;
}

/* ---- waiting ---- */

void bw_queue_wait_end(bw_broker *b, bw_queue_wait *w, bw_answer *a)
{
    bw_queue_group *g = w->member->group;
    if (w->prev) w->prev->next = w->next;
    else g->waits = w->next;
    if (w->next) w->next->prev = w->prev;
    else g->waits_last = w->prev;
    bw_timers_clear(&b->timers, &w->timer);
    bw_op_finish(w->op, a);
    free(w);
}

static void on_max_wait(void *broker, bw_timer *timer)
{
    bw_queue_wait *w = (bw_queue_wait *)(void *)((char *)timer - offsetof(bw_queue_wait, timer));
    try_fetch(broker, w->member, w->op, w, NULL, true);
}

static void wait(bw_broker *b, bw_queue_member *m, bw_op *op)
{
    bw_queue_group *g = m->group;
    bw_queue_wait *w = calloc(1, sizeof *w);
    if (!w) {
        bw_op_fail(op, bw_fail(BW_ERR_NO_MEMORY, "no memory for a fetch"));
        return;
    }
    *w = (bw_queue_wait){.op = op, .member = m, .timer.fire = on_max_wait, .prev = g->waits_last};
    if (w->prev) w->prev->next = w;
    else g->waits = w;
    g->waits_last = w;
    int32_t ms = op->request.queue.max_wait_ms;
    bw_timers_set(&b->timers, &w->timer, bw_deadline_in_ms(ms > WAIT_MAX_MS ? WAIT_MAX_MS : ms));
    for (bw_queue_part *q = g->parts; q; q = q->next) {
        bw_queue_part_arm_due(b, q);
        if (q->part && !q->part->armed) bw_broker_again(b, q->part);
    }
}

void bw_queue_serve(bw_broker *b, bw_queue_part *q)
{
    bw_queue_group *g = q->group;
    bw_queue_wait *w = g->waits, *next;
    if (!w || b->draining || !bw_queue_part_ready(b, q)) return;
    bw_queue_part_admit_due(b, q, bw_clock_wall_ms());
    for (; w && (q->state.available || has_news(q)); w = next) {
        next = w->next;
        if (q->state.acquired >= g->settings.max_in_flight) break;
        if (wants(w->member, q) && !try_fetch(b, w->member, w->op, w, q, false)) break;
    }
}

void bw_handle_queue_fetch(bw_broker *b, bw_op *op)
{
    bw_queue_request *r = &op->request.queue;
    bw_err e = bw_queues_need(b);
    bw_queue_member *m = e ? NULL : bw_queue_member_find(op->session, r->member, r->group);
    if (!e && !m)
        e = bw_fail(BW_ERR_UNKNOWN_MEMBER_ID, "this connection has no member %u in queue group '%.*s': join first", r->member,
                    (int)(r->group.len > 100 ? 100 : r->group.len), r->group.data);
    if (e) {
        bw_op_fail(op, e);
        return;
    }
    if (!r->max_records) r->max_records = 1;
    if (r->max_records > BW_QUEUE_RECORDS_MAX) r->max_records = BW_QUEUE_RECORDS_MAX;
    if (r->max_bytes > BW_QUEUE_BYTES_MAX) r->max_bytes = BW_QUEUE_BYTES_MAX;
    if (!try_fetch(b, m, op, NULL, NULL, r->max_wait_ms <= 0)) wait(b, m, op);
}
